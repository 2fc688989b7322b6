//! Reading back: for people, and to verify the chain.

use super::chain::{Hash, chain_hash, parse_hash};
use super::segment::{MAGIC, SegmentName, segments};
use sekisho_schema::Envelope;
use serde::Serialize;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// What is wrong in a journal, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The segment's file name.
    pub segment: String,
    /// Line from 1; the header is line 1.
    pub line: u64,
    /// What is wrong there.
    pub what: String,
}

/// The outcome of verifying a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Segments read.
    pub segments: u64,
    /// Lines whose hash fits.
    pub records: u64,
    /// Boots seen.
    pub boots: u64,
    /// Whether the last line is torn, as after a crash.
    pub torn_tail: bool,
    /// Whether older segments are gone, as the cap demands.
    pub truncated_head: bool,
    /// The last hash, in hexadecimal: the name of the journal's whole content.
    pub head: String,
    /// What does not fit; empty for a whole journal.
    pub faults: Vec<Fault>,
}

/// Verifies every line of a journal: hashes, sequence, and the joints between segments.
///
/// # Errors
/// What the system says of a directory or file that can't be read.
pub fn verify(dir: &Path) -> std::io::Result<VerifyReport> {
    let segments = segments(dir)?;
    let mut report = VerifyReport { segments: segments.len() as u64, ..VerifyReport::default() };
    let mut walk = Walk { previous: None, boot: String::new(), seq: 0 };
    let last = segments.last().map(|segment| segment.number);
    for segment in &segments {
        verify_segment(segment, Some(segment.number) == last, &mut walk, &mut report)?;
    }
    report.head = walk.previous.map(|hash| sekisho_schema::sealed::hex(&hash)).unwrap_or_default();
    Ok(report)
}

struct Walk {
    previous: Option<Hash>,
    boot: String,
    seq: u64,
}

fn verify_segment(
    segment: &SegmentName,
    is_last: bool,
    walk: &mut Walk,
    report: &mut VerifyReport,
) -> std::io::Result<()> {
    let name = segment
        .path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let mut reader = BufReader::new(File::open(&segment.path)?);
    let mut number = 0;
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        if reader.read_until(b'\n', &mut bytes)? == 0 {
            return Ok(());
        }
        number += 1;
        let whole = bytes.last() == Some(&b'\n');
        if !whole && is_last {
            report.torn_tail = true;
            return Ok(());
        }
        let text = String::from_utf8_lossy(&bytes);
        let line = text.trim_end_matches('\n');
        let checked = if number == 1 {
            check_header(segment, line, walk, report)
        } else {
            check_line(line, walk)
        };
        match checked {
            Ok(()) => report.records += u64::from(number > 1),
            Err(what) => {
                report.faults.push(Fault { segment: name, line: number, what });
                // Beyond a broken link nothing in this segment can be vouched for.
                walk.previous = None;
                return Ok(());
            }
        }
    }
}

fn check_header(
    segment: &SegmentName,
    line: &str,
    walk: &mut Walk,
    report: &mut VerifyReport,
) -> Result<(), String> {
    let mut words = line.split(' ');
    let (Some(MAGIC), Some(boot), Some(first), Some(previous), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err(format!("not a segment header: {MAGIC} BOOT FIRST PREV"));
    };
    let previous =
        parse_hash(previous).ok_or("the hash in the header is not 64 hexadecimal digits")?;
    let first: u64 = first.parse().map_err(|_| "the sequence in the header is not a number")?;
    if boot != segment.boot || first != segment.first {
        return Err("the header names another boot or sequence than the file name".to_owned());
    }
    match walk.previous {
        Some(expected) if expected != previous => {
            return Err(
                "does not follow the segment before it: a line or a segment was removed or changed"
                    .to_owned(),
            );
        }
        Some(_) => {}
        None => {
            report.truncated_head |= report.records == 0 && previous != Hash::default();
            walk.seq = first.saturating_sub(1);
            walk.previous = Some(previous);
            boot.clone_into(&mut walk.boot);
            report.boots = report.boots.max(1);
        }
    }
    if walk.boot != boot {
        report.boots += 1;
        boot.clone_into(&mut walk.boot);
        walk.seq = 0;
    }
    if first != walk.seq + 1 {
        return Err(format!("begins with sequence {first}, expected {}", walk.seq + 1));
    }
    Ok(())
}

fn check_line(line: &str, walk: &mut Walk) -> Result<(), String> {
    let (hash, json) = line.split_once(' ').ok_or("not HASH JSON")?;
    let hash = parse_hash(hash).ok_or("the hash is not 64 hexadecimal digits")?;
    if chain_hash(&walk.previous.unwrap_or_default(), json) != hash {
        return Err("the hash does not fit the line: it or one before it was changed".to_owned());
    }
    let envelope: Envelope =
        serde_json::from_str(json).map_err(|error| format!("not an event: {error}"))?;
    if envelope.seq != walk.seq + 1 {
        return Err(format!("sequence {}, expected {}", envelope.seq, walk.seq + 1));
    }
    walk.seq = envelope.seq;
    walk.previous = Some(hash);
    Ok(())
}

/// Gives every readable event of a journal to `each`, oldest first, until it answers `false`.
///
/// # Errors
/// What the system says of a directory or file that can't be read.
pub fn read_envelopes(dir: &Path, mut each: impl FnMut(Envelope) -> bool) -> std::io::Result<()> {
    for segment in segments(dir)? {
        for line in BufReader::new(File::open(&segment.path)?).split(b'\n').skip(1) {
            let line = line?;
            let text = String::from_utf8_lossy(&line);
            let Some((_, json)) = text.split_once(' ') else { continue };
            let Ok(envelope) = serde_json::from_str(json) else { continue };
            if !each(envelope) {
                return Ok(());
            }
        }
    }
    Ok(())
}
