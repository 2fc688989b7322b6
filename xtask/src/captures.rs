//! Public captures through the real binary: no panic, every frame accounted for, and of what may cut nothing found but
//! in the captures that `captures.toml` names because they truly hold a tunnel or a C2 channel.
//!
//! `negatives` is the counterpart without captures: random payloads with forged size fields.

use crate::host::{self, Failure};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The archives that this check is for.
const ARCHIVES: [&str; 5] =
    ["ndpi", "zeek-traces", "dns-benign", "dns-tunnels", "cobaltstrike-amazon"];

/// Whatever may cut by itself is withheld by this policy, and what may not is recorded.
const POLICY: &str = "schema = \"sekisho.policy/1\"\nversion = 1\nmode = \"dry-run\"\n\
[[decide]]\ndetector = \"*\"\ngrade = \"malicious\"\nlevel = 5\nlease = \"1h\"\n\
[duty]\ngroup = \"captures\"\nowner = \"nobody\"\ndeputy = \"nobody\"\n";

/// Files that are named for a detector whose findings are few.
const NAMED_FILES: usize = 8;

/// What the captures are known to hold.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    holds: Vec<Holds>,
    misses: Vec<Misses>,
}

/// A capture that holds what must be found.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Holds {
    archive: String,
    file: String,
    what: String,
    #[serde(default)]
    cuts: Vec<String>,
    #[serde(default)]
    tells: Vec<String>,
}

/// A capture that holds what nothing names.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Misses {
    archive: String,
    file: String,
    what: String,
}

/// Findings of a file by detector and grade, and whether they would have cut.
type Told = BTreeMap<(String, String, bool), u64>;

#[derive(Default)]
struct Tally {
    files: u64,
    unreadable: Vec<String>,
    frames: u64,
    unparsed: BTreeMap<String, u64>,
    findings: BTreeMap<(String, String), u64>,
    /// Files by detector and grade.
    named: BTreeMap<(String, String), BTreeMap<String, u64>>,
}

struct Bench {
    sekisho: PathBuf,
    policy: PathBuf,
    known: Known,
    /// Whether a line of `known.holds` had its file.
    met: Vec<u64>,
    faults: Vec<String>,
}

/// Replays every capture of the archives in a folder.
pub(crate) fn run(folder: &str) -> Result<(), Failure> {
    host::build_binaries("release")?;
    let work = host::target().join("captures");
    std::fs::create_dir_all(&work)
        .map_err(|error| format!("cannot make {}: {error}", work.display()))?;
    let policy = work.join("policy.toml");
    std::fs::write(&policy, POLICY)
        .map_err(|error| format!("cannot write {}: {error}", policy.display()))?;
    let list = host::top().join("xtask/captures.toml");
    let text = std::fs::read_to_string(&list)
        .map_err(|error| format!("cannot read {}: {error}", list.display()))?;
    let known: Known =
        toml::from_str(&text).map_err(|error| format!("{}: {error}", list.display()))?;
    let met = vec![0; known.holds.len()];
    let sekisho = host::target().join("release/sekisho");
    let mut bench = Bench { sekisho, policy, known, met, faults: Vec::new() };
    for archive in ARCHIVES {
        let path = Path::new(folder).join(format!("{archive}.tar.xz"));
        if !path.is_file() {
            return Err(format!("{} is not there: nothing was checked", path.display()));
        }
        let unpacked = work.join(archive);
        if !unpacked.is_dir() {
            std::fs::create_dir_all(&unpacked)
                .map_err(|error| format!("cannot make {}: {error}", unpacked.display()))?;
            host::run(Command::new("tar").arg("-xJf").arg(&path).arg("-C").arg(&unpacked))?;
        }
        let mut tally = Tally::default();
        for file in capture_files(&unpacked) {
            bench.replay(archive, &file, &mut tally);
        }
        if tally.files == 0 {
            bench.faults.push(format!("{archive}: no capture was read"));
        }
        tally.print(archive);
    }
    bench.finish()
}

/// Random payloads with forged size fields through the engine.
pub(crate) fn negatives(words: &[&str]) -> Result<(), Failure> {
    host::build_binaries("release")?;
    host::run(Command::new(host::target().join("release/random-payloads")).args(words))
}

impl Tally {
    fn print(&self, archive: &str) {
        println!(
            "{archive}: {} files read, {} refused as unreadable, {} frames",
            self.files,
            self.unreadable.len(),
            self.frames
        );
        println!("  frames not parsed, by reason: {:?}", self.unparsed);
        for refused in &self.unreadable {
            println!("  refused: {refused}");
        }
        for ((detector, grade), count) in &self.findings {
            let files = self.named.get(&(detector.clone(), grade.clone()));
            let names: Vec<String> = files
                .into_iter()
                .flatten()
                .take(NAMED_FILES)
                .map(|(file, count)| format!("{file} {count}"))
                .collect();
            let more = files.map_or(0, BTreeMap::len).saturating_sub(names.len());
            let more = if more > 0 { format!(" and {more} more files") } else { String::new() };
            println!("  {count:>6}  {detector} {grade}: {}{more}", names.join(", "));
        }
    }
}

impl Bench {
    fn replay(&mut self, archive: &str, file: &Path, tally: &mut Tally) {
        let shown = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut command = Command::new(&self.sekisho);
        command.args(["replay", "--json", "--policy"]).arg(&self.policy).arg(file);
        let Ok(done) = command.stdin(Stdio::null()).output() else {
            self.faults.push(format!("{shown}: cannot start {}", self.sekisho.display()));
            return;
        };
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        if said.contains("panicked") || done.status.code().is_none() {
            self.faults.push(format!("{shown}: {} {said}", done.status));
            return;
        }
        let broken = done.status.code() == Some(2);
        if broken {
            if !["error:", "state:", "help:"].iter().all(|line| said.contains(line)) {
                self.faults.push(format!("{shown}: refused without the three lines: {said}"));
            }
            tally.unreadable.push(format!("{shown}: {}", said.lines().next().unwrap_or_default()));
        }
        let stdout = String::from_utf8_lossy(&done.stdout);
        let (mut told, mut summary) = (Told::new(), None);
        for line in stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let text = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or_default();
            if text("type") == "finding" {
                let action = line.pointer("/decision/action").and_then(Value::as_str);
                let (detector, grade) = (text("detector").to_owned(), text("grade").to_owned());
                let cuts = grade == "malicious" && action != Some("record");
                *told.entry((detector, grade, cuts)).or_default() += 1;
            } else if text("type") == "summary" {
                summary = Some(line);
            }
        }
        self.compare(archive, &shown, &told);
        for ((detector, grade, _), count) in told {
            let key = (detector, grade);
            *tally.findings.entry(key.clone()).or_default() += count;
            *tally.named.entry(key).or_default().entry(shown.clone()).or_default() += count;
        }
        match summary {
            Some(summary) => self.account(file, &shown, broken, &summary, tally),
            None if broken => {}
            None => self.faults.push(format!("{shown}: no summary line")),
        }
    }

    /// Adds up what was read, and compares it with an independent reader's count.
    fn account(
        &mut self,
        file: &Path,
        shown: &str,
        broken: bool,
        summary: &Value,
        tally: &mut Tally,
    ) {
        tally.files += 1;
        let frames = summary.get("frames").and_then(Value::as_u64).unwrap_or_default();
        tally.frames += frames;
        if !broken
            && let Some(counted) = count_by_tcpdump(file)
            && counted != frames
        {
            self.faults.push(format!("{shown}: {frames} frames read, tcpdump counts {counted}"));
        }
        for (reason, count) in
            summary.get("unparsed").and_then(Value::as_object).into_iter().flatten()
        {
            *tally.unparsed.entry(reason.clone()).or_default() +=
                count.as_u64().unwrap_or_default();
        }
    }

    /// Compares what was told of a file with what it is known to hold.
    fn compare(&mut self, archive: &str, shown: &str, told: &Told) {
        let held = self
            .known
            .holds
            .iter()
            .position(|held| held.archive == archive && fits(&held.file, shown));
        let entry = held.and_then(|at| self.known.holds.get(at));
        if let Some(met) = held.and_then(|at| self.met.get_mut(at)) {
            *met += 1;
        }
        for ((detector, _, cuts), count) in told {
            let expected = entry.is_some_and(|held| held.cuts.contains(detector));
            if *cuts && !expected {
                self.faults.push(format!(
                    "{archive}/{shown}: {count} findings of {detector} that would cut, where none is known"
                ));
            }
        }
        let Some(held) = entry else { return };
        let cut = |wanted: &String| told.keys().any(|(id, _, cuts)| id == wanted && *cuts);
        let said = |wanted: &String| told.keys().any(|(id, _, _)| id == wanted);
        let absent = held.cuts.iter().filter(|id| !cut(id));
        for wanted in absent.chain(held.tells.iter().filter(|id| !said(id))) {
            let what = &held.what;
            self.faults.push(format!("{archive}/{shown}: {wanted} did not find {what}"));
        }
    }

    fn finish(mut self) -> Result<(), Failure> {
        println!("captures that hold a tunnel or a C2 channel:");
        for (held, met) in self.known.holds.iter().zip(&self.met) {
            let Holds { archive, file, what, .. } = held;
            let by = [held.cuts.as_slice(), held.tells.as_slice()].concat().join(", ");
            println!("  {archive}/{file} ({met}): {what}; by {by}");
            if *met == 0 {
                self.faults.push(format!("{archive}/{file} is named but is not there"));
            }
        }
        for Misses { archive, file, what } in &self.known.misses {
            println!("  {archive}/{file}: not recognised: {what}");
        }
        if self.faults.is_empty() {
            println!("findings that would cut, elsewhere: 0");
            return Ok(());
        }
        for fault in &self.faults {
            println!("fault: {fault}");
        }
        Err(format!("{} faults on public captures", self.faults.len()))
    }
}

/// Whether a file's name is the pattern's, in which `*` stands for any text.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.get(at..).is_some_and(|rest| fits(after, rest)))
        }),
    }
}

pub(crate) fn capture_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|e| e == "pcap" || e == "pcapng" || e == "cap" || e == "trace")
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// An independent reader's count of the frames, where it can read the file at all.
fn count_by_tcpdump(file: &Path) -> Option<u64> {
    let done = Command::new("tcpdump")
        .args(["--count", "-r"])
        .arg(file)
        .stderr(Stdio::null())
        .output()
        .ok()?;
    if !done.status.success() {
        return None;
    }
    String::from_utf8_lossy(&done.stdout).split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(fits("*_amazon_http.*", "cs2_amazon_http.pcapng"));
        assert!(fits("bad.pcap", "bad.pcap"));
        assert!(!fits("*_amazon_http.*", "cs2_amazon_https.pcap"));
        assert!(!fits("bad.pcap", "good.pcap"));
        assert!(fits("MXSIZE-*", "MXSIZE-65-FLSIZE-8.pcap"));
    }
}
