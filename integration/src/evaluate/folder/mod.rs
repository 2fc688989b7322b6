//! E3, E4 and E9: captures, Zeek logs and lists of packets of a folder.
//!
//! In comes a folder; out come the same three judgements of whatever lies in it. What a file holds is told by
//! `labels.toml` in the folder, else by words in its path ([`labels`]).

mod captures;
mod frameworks;
mod labels;
mod names;
mod packets;
mod series;
mod server;
mod zeek;

use self::labels::{Holds, Labels};
use self::series::Taken;
use super::Plan;
use super::table::Outcome;
use std::path::{Path, PathBuf};

/// Folders below the folder that are looked into.
const DEPTH: usize = 6;

/// A file, what it is said to hold, and what was read in it.
struct File {
    shown: String,
    holds: Holds,
    /// The far end of what was planted, where the labels name it.
    server: Option<String>,
    taken: Taken,
}

/// Runs E3, E4 and E9 on whatever a folder holds for them.
///
/// # Errors
///
/// When the folder or its labels cannot be read, or nothing in it is for any of the three.
pub fn run(folder: &Path, plan: Plan) -> Result<Vec<Outcome>, String> {
    let labels = Labels::read(folder)?;
    let mut paths = Vec::new();
    walk(folder, DEPTH, &mut paths)?;
    paths.sort();
    let mut files = Vec::new();
    let mut unread = Vec::new();
    for path in paths {
        let shown = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
        match read(&path) {
            None => {}
            Some(Err(why)) => unread.push(format!("{shown}: {why}")),
            Some(Ok(taken)) => {
                let (holds, server) = labels.of(&shown, &taken);
                files.push(File { shown, holds, server, taken });
            }
        }
    }
    let mut outcomes: Vec<Outcome> =
        [frameworks::run(&files, plan), server::run(&files, plan), names::run(&files)]
            .into_iter()
            .flatten()
            .collect();
    for why in unread {
        outcomes.iter_mut().take(1).for_each(|outcome| outcome.note(format!("not read: {why}")));
    }
    if outcomes.is_empty() {
        return Err(format!("{} holds nothing for E3, E4 or E9", folder.display()));
    }
    Ok(outcomes)
}

fn walk(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = std::fs::read_dir(folder)
        .map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => walk(&path, depth - 1, found)?,
            Ok(kind) if kind.is_file() => found.push(path),
            _ => {}
        }
    }
    Ok(())
}

/// What a file holds; `None` for a file of no known kind.
fn read(path: &Path) -> Option<Result<Taken, String>> {
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    let has = |part: &str| name.contains(part);
    if has(".pcap") || has(".cap") {
        return Some(captures::read(path));
    }
    if has("conn") && has(".log") {
        return Some(zeek::connections(path));
    }
    if has("dns") && has(".log") {
        return Some(zeek::questions(path));
    }
    has(".csv").then(|| packets::read(path)).flatten()
}
