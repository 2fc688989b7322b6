//! Public captures through the real binary: no panic, every frame accounted for, nothing found that is not there.

use crate::host::{self, Failure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The archives that this check is for.
const ARCHIVES: [&str; 2] = ["ndpi.tar.xz", "zeek-traces.tar.xz"];

/// Detectors that prove by themselves and must be silent on these captures.
const SILENT: [&str; 1] = ["plugx.tcp"];

#[derive(Default)]
struct Tally {
    files: u64,
    unreadable: Vec<String>,
    frames: u64,
    unparsed: BTreeMap<String, u64>,
    findings: BTreeMap<String, u64>,
    faults: Vec<String>,
}

pub(crate) fn run(folder: &str) -> Result<(), Failure> {
    host::build_binaries("release")?;
    let sekisho = host::target().join("release/sekisho");
    let work = host::target().join("captures");
    let mut tally = Tally::default();
    for archive in ARCHIVES {
        let path = Path::new(folder).join(archive);
        if !path.is_file() {
            return Err(format!("{} is not there: nothing was checked", path.display()));
        }
        let unpacked = work.join(archive.trim_end_matches(".tar.xz"));
        if !unpacked.is_dir() {
            std::fs::create_dir_all(&unpacked)
                .map_err(|error| format!("cannot make {}: {error}", unpacked.display()))?;
            host::run(Command::new("tar").arg("-xJf").arg(&path).arg("-C").arg(&unpacked))?;
        }
        for file in capture_files(&unpacked) {
            one(&sekisho, &file, &mut tally);
        }
    }
    println!(
        "captures: {} files read, {} refused as unreadable, {} frames",
        tally.files,
        tally.unreadable.len(),
        tally.frames
    );
    println!("frames not parsed, by reason: {:?}", tally.unparsed);
    println!("findings by detector: {:?}", tally.findings);
    for refused in &tally.unreadable {
        println!("refused: {refused}");
    }
    if tally.files == 0 {
        tally.faults.push("no capture was read".to_owned());
    }
    for detector in SILENT {
        if let Some(count) = tally.findings.get(detector) {
            tally.faults.push(format!("{detector}: {count} findings on captures that hold none"));
        }
    }
    if tally.faults.is_empty() {
        return Ok(());
    }
    for fault in &tally.faults {
        println!("fault: {fault}");
    }
    Err(format!("{} faults on public captures", tally.faults.len()))
}

fn capture_files(folder: &Path) -> Vec<PathBuf> {
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

fn one(sekisho: &Path, file: &Path, tally: &mut Tally) {
    let shown = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Ok(done) =
        Command::new(sekisho).args(["replay", "--json"]).arg(file).stdin(Stdio::null()).output()
    else {
        tally.faults.push(format!("{shown}: cannot start {}", sekisho.display()));
        return;
    };
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    if said.contains("panicked") || done.status.code().is_none() {
        tally.faults.push(format!("{shown}: {} {said}", done.status));
        return;
    }
    let stdout = String::from_utf8_lossy(&done.stdout);
    let summary = stdout
        .lines()
        .next_back()
        .and_then(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line.get("type").is_some_and(|t| t == "summary"));
    if done.status.code() == Some(2) {
        if !(said.contains("error:") && said.contains("state:") && said.contains("help:")) {
            tally.faults.push(format!("{shown}: refused without the three lines: {said}"));
        }
        tally.unreadable.push(format!("{shown}: {}", said.lines().next().unwrap_or_default()));
    }
    let Some(summary) = summary else {
        if done.status.code() != Some(2) {
            tally.faults.push(format!("{shown}: no summary line"));
        }
        return;
    };
    tally.files += 1;
    let frames = summary.get("frames").and_then(Value::as_u64).unwrap_or_default();
    tally.frames += frames;
    if done.status.code() != Some(2)
        && let Some(counted) = count_by_tcpdump(file)
        && counted != frames
    {
        tally.faults.push(format!("{shown}: {frames} frames read, tcpdump counts {counted}"));
    }
    for (key, into) in [("unparsed", &mut tally.unparsed), ("findings", &mut tally.findings)] {
        for (name, count) in summary.get(key).and_then(Value::as_object).into_iter().flatten() {
            *into.entry(name.clone()).or_default() += count.as_u64().unwrap_or_default();
        }
    }
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
