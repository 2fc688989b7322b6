//! What the engine reads from public captures against what tshark reads: JA3, JA3S, JA4, server names and DNS names.
//!
//! tshark 4.0 knows no JA4. Its own list of suites, extensions, versions, protocols and signature algorithms is put
//! into the raw form of JA4 (`JA4_r`) here, and that is compared; the hash over it is held by published examples.

mod causes;
mod tshark;

use crate::captures;
use crate::host::{self, Failure};
use causes::cause;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The archives that are compared.
const ARCHIVES: [&str; 3] = ["dns-benign.tar.xz", "ndpi.tar.xz", "zeek-traces.tar.xz"];
/// The facts that are compared.
const FACTS: [&str; 6] = ["dns", "ja3", "ja3s", "ja4_text", "quic_sni", "sni"];
/// Differences of one cause that are shown; the report has them all.
const SHOWN: usize = 3;
/// Causes that begin so are faults of ours until somebody finds another cause.
const UNEXPLAINED: &str = "unexplained";

/// One value read from one frame.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fact {
    kind: String,
    value: String,
    frame: u64,
    /// Protocol and both ends, in ascending order.
    flow: String,
}

/// What our reader says of a capture.
#[derive(Default)]
pub(crate) struct Ours {
    facts: Vec<Fact>,
    /// Names that a request told, with their flows.
    asked: BTreeSet<(String, String)>,
    /// Frames that are not read, with the reason.
    unparsed: BTreeMap<u64, String>,
}

#[derive(Default)]
struct Totals {
    files: u64,
    refused: Vec<String>,
    /// By fact: in the same frame, in another frame of the flow, only ours, only tshark's.
    counts: BTreeMap<String, [u64; 4]>,
    differences: BTreeMap<(String, String), Vec<String>>,
}

/// Compares all captures in the archives of a folder, or those named; fails if a difference has no cause.
pub(crate) fn run(folder: &str, wanted: &[&str]) -> Result<(), Failure> {
    let version = tshark::version()?;
    host::run(&mut host::cargo(&[
        "build",
        "--locked",
        "-j2",
        "--release",
        "-p",
        "sekisho-integration",
        "--bin",
        "facts",
    ]))?;
    let mut totals = Totals::default();
    for archive in ARCHIVES {
        let unpacked = unpack(folder, archive)?;
        for file in captures::capture_files(&unpacked) {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            if wanted.is_empty() || wanted.contains(&name.as_ref()) {
                one(&file, &mut totals)?;
            }
        }
    }
    report(&version, &totals)
}

/// Unpacks an archive below the folder that cargo builds into, unless it is there.
fn unpack(folder: &str, archive: &str) -> Result<PathBuf, Failure> {
    let path = Path::new(folder).join(archive);
    if !path.is_file() {
        return Err(format!("{} is not there: nothing was compared", path.display()));
    }
    let unpacked = host::target().join("captures").join(archive.trim_end_matches(".tar.xz"));
    if !unpacked.is_dir() {
        std::fs::create_dir_all(&unpacked)
            .map_err(|error| format!("cannot make {}: {error}", unpacked.display()))?;
        host::run(Command::new("tar").arg("-xJf").arg(&path).arg("-C").arg(&unpacked))?;
    }
    Ok(unpacked)
}

fn one(file: &Path, totals: &mut Totals) -> Result<(), Failure> {
    let shown = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let ours = match read_ours(file)? {
        Ok(ours) => ours,
        Err(refused) => {
            totals.refused.push(format!("{shown}: {refused}"));
            return Ok(());
        }
    };
    totals.files += 1;
    let theirs = tshark::read(file)?;
    let matched = pair(&ours.facts, &theirs.facts);
    for (kind, counts) in matched.counts {
        let into = totals.counts.entry(kind).or_default();
        for (to, from) in into.iter_mut().zip(counts) {
            *to += from;
        }
    }
    for (who, facts) in [("only ours", &matched.only_ours), ("only tshark", &matched.only_theirs)] {
        let others = if who == "only ours" { &matched.only_theirs } else { &matched.only_ours };
        for fact in facts {
            let why = cause(fact, who == "only ours", others, &ours, &theirs);
            let text = format!("{shown} frame {}: {} {}", fact.frame, fact.value, fact.flow);
            let group = (format!("{} {who}", fact.kind), why);
            totals.differences.entry(group).or_default().push(text);
        }
    }
    Ok(())
}

/// Runs our reader; inside, why it cannot read the file.
fn read_ours(file: &Path) -> Result<Result<Ours, String>, Failure> {
    let done = Command::new(host::target().join("release/facts"))
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot start facts: {error}"))?;
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    if said.contains("panicked") || done.status.code().is_none() {
        return Err(format!("{}: {said}", file.display()));
    }
    let mut ours = Ours::default();
    let mut frames = 0;
    for line in String::from_utf8_lossy(&done.stdout).lines() {
        let line: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let text = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let frame = line.get("frame").and_then(Value::as_u64).unwrap_or_default();
        if line.get("unparsed").is_some() {
            ours.unparsed.insert(frame, text("unparsed"));
        } else if line.get("fact").is_some() {
            let kind = text("fact");
            if kind == "host" {
                ours.asked.insert((text("value"), text("flow")));
            }
            if FACTS.contains(&kind.as_str()) {
                let (value, flow) = (text("value"), text("flow"));
                ours.facts.push(Fact { kind, value, frame, flow });
            }
        } else {
            frames = line.get("frames").and_then(Value::as_u64).unwrap_or_default();
        }
    }
    // A capture that is cut in its last frame still counts.
    Ok(if frames == 0 && !done.status.success() { Err(said) } else { Ok(ours) })
}

#[derive(Default)]
struct Matched {
    counts: BTreeMap<String, [u64; 4]>,
    only_ours: Vec<Fact>,
    only_theirs: Vec<Fact>,
}

/// Pairs the facts: first those of the same frame, then those of the same flow.
fn pair(ours: &[Fact], theirs: &[Fact]) -> Matched {
    let mut matched = Matched::default();
    let mut ours: Vec<Fact> = ours.to_vec();
    let mut theirs: Vec<Fact> = theirs.to_vec();
    for (column, same) in [
        (0, (|a, b| a == b) as fn(&Fact, &Fact) -> bool),
        (1, |a, b| (&a.kind, &a.value, &a.flow) == (&b.kind, &b.value, &b.flow)),
    ] {
        let mut rest: BTreeMap<String, Vec<Fact>> = BTreeMap::new();
        for fact in theirs.drain(..) {
            rest.entry(fact.value.clone()).or_default().push(fact);
        }
        ours.retain(|fact| {
            let Some(candidates) = rest.get_mut(&fact.value) else { return true };
            let Some(at) = candidates.iter().position(|other| same(fact, other)) else {
                return true;
            };
            candidates.remove(at);
            let counts = matched.counts.entry(fact.kind.clone()).or_default();
            if let Some(count) = counts.get_mut(column) {
                *count += 1;
            }
            false
        });
        theirs = rest.into_values().flatten().collect();
    }
    for (column, facts) in [(2, &ours), (3, &theirs)] {
        for fact in facts {
            let counts = matched.counts.entry(fact.kind.clone()).or_default();
            if let Some(count) = counts.get_mut(column) {
                *count += 1;
            }
        }
    }
    theirs.sort_by_key(|fact| fact.frame);
    Matched { only_ours: ours, only_theirs: theirs, ..matched }
}

fn report(version: &str, totals: &Totals) -> Result<(), Failure> {
    let mut text = format!(
        "parity with {version}: {} captures read, {} refused as unreadable\n",
        totals.files,
        totals.refused.len()
    );
    let _ = writeln!(
        text,
        "{:<10} {:>12} {:>16} {:>10} {:>12}",
        "fact", "same frame", "other frame", "only ours", "only tshark"
    );
    for (kind, [same, other, ours, theirs]) in &totals.counts {
        let _ = writeln!(text, "{kind:<10} {same:>12} {other:>16} {ours:>10} {theirs:>12}");
    }
    print!("{text}");
    let mut unexplained = 0;
    for ((group, why), lines) in &totals.differences {
        println!("{group}: {:>6} {why}", lines.len());
        let _ = writeln!(text, "\n{group}: {} {why}", lines.len());
        for line in lines {
            let _ = writeln!(text, "  {line}");
        }
        for line in lines.iter().take(SHOWN) {
            println!("         {line}");
        }
        if why.starts_with(UNEXPLAINED) {
            unexplained += lines.len();
        }
    }
    for refused in &totals.refused {
        println!("refused: {refused}");
        let _ = writeln!(text, "refused: {refused}");
    }
    let path = host::target().join("parity.txt");
    std::fs::write(&path, text)
        .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    println!("every difference: {}", path.display());
    if totals.files == 0 {
        return Err("no capture was read".to_owned());
    }
    if unexplained > 0 {
        return Err(format!("{unexplained} differences have no known cause"));
    }
    Ok(())
}
