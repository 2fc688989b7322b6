//! `sekisho baseline replay`: every recorded score, made again from its record alone.

use super::args::ReplayArgs;
use super::files::UNTOUCHED;
use crate::chain::Complaint;
use crate::cli::args::Format;
use crate::cli::contain::load;
use crate::cli::findings::no_journal;
use crate::cli::{Console, Outcome, cannot_write};
use crate::journal::read_envelopes;
use sekisho_engine::certify::replay::{ReplayError, replay};
use sekisho_engine::certify::{Channel, Tier};
use sekisho_schema::{Body, Envelope, Finding};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Replayed {
    /// Records that gave their score again, by tier.
    same: BTreeMap<Tier, u64>,
    /// Findings that carry no score: of detectors that have none, or of before there was one.
    without: u64,
    /// Records that did not.
    faults: Vec<Fault>,
}

/// A record that does not stand.
#[derive(Debug, Serialize)]
struct Fault {
    finding: String,
    detector: String,
    what: String,
}

impl Replayed {
    fn take(&mut self, envelope: &Envelope) {
        let Body::Finding(finding) = &envelope.body else { return };
        match replay(finding) {
            Ok(ruling) => *self.same.entry(ruling.tier).or_default() += 1,
            // Only a finding on a score must carry one.
            Err(ReplayError::NoRuling) if !must_carry(finding) => self.without += 1,
            Err(error) => self.faults.push(Fault {
                finding: finding.id.clone(),
                detector: finding.detector.clone(),
                what: error.to_string(),
            }),
        }
    }
}

/// Whether a finding is of a channel and led to more than a record.
fn must_carry(finding: &Finding) -> bool {
    finding.decision.level > 0
        && Channel::ALL.iter().any(|channel| channel.detector() == finding.detector)
}

pub(super) fn run(args: &ReplayArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let mut replayed = Replayed::default();
    if args.files.is_empty() {
        let dir = load(&args.config)?.journal_dir();
        read_envelopes(&dir, |envelope| {
            replayed.take(&envelope);
            true
        })
        .map_err(|error| no_journal(&dir, "replay anything", &error))?;
    }
    for file in &args.files {
        read_events(file, &mut replayed)?;
    }
    tell(&replayed, args.output, console.out).map_err(|error| cannot_write(&error))?;
    Ok(if replayed.faults.is_empty() { Outcome::Fine } else { Outcome::Finding })
}

fn read_events(file: &Path, replayed: &mut Replayed) -> Result<(), Complaint> {
    let refuse = |why: String| {
        Complaint::new(
            format!("cannot use {}: {why}", file.display()),
            UNTOUCHED,
            "name a file of events, one JSON object a line",
        )
    };
    let lines =
        BufReader::new(File::open(file).map_err(|error| refuse(error.to_string()))?).lines();
    for (number, line) in lines.enumerate() {
        let line = line.map_err(|error| refuse(error.to_string()))?;
        if line.trim().is_empty() {
            continue;
        }
        let envelope = serde_json::from_str(&line)
            .map_err(|error| refuse(format!("line {}: {error}", number + 1)))?;
        replayed.take(&envelope);
    }
    Ok(())
}

fn tell(replayed: &Replayed, format: Format, out: &mut dyn Write) -> std::io::Result<()> {
    if format == Format::Json {
        return writeln!(out, "{}", serde_json::to_string(replayed)?);
    }
    let same: u64 = replayed.same.values().sum();
    writeln!(
        out,
        "{same} records give the same score again, {} do not; {} findings carry no score",
        replayed.faults.len(),
        replayed.without
    )?;
    for (tier, count) in &replayed.same {
        writeln!(out, "  {tier}: {count}")?;
    }
    for fault in &replayed.faults {
        writeln!(out, "FAULT {} ({}): {}", fault.finding, fault.detector, fault.what)?;
    }
    Ok(())
}
