//! `sekisho journal verify`

use super::args::{Format, JournalArgs, JournalVerb};
use super::contain::load;
use super::findings::no_journal;
use super::{Console, Outcome, cannot_write};
use crate::chain::Complaint;
use crate::journal::{VerifyReport, verify};

pub(super) fn run(args: &JournalArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let JournalVerb::Verify(args) = &args.verb;
    let dir = load(&args.config)?.journal_dir();
    let report = verify(&dir).map_err(|error| no_journal(&dir, "verify anything", &error))?;
    tell(&report, args.output, console)
        .and_then(|()| console.out.flush())
        .map_err(|error| cannot_write(&error))?;
    if report.faults.is_empty() {
        return Ok(Outcome::Fine);
    }
    Complaint::new(
        format!("the journal in {} is not whole: {} faults", dir.display(), report.faults.len()),
        "what comes before each fault can be believed; what follows within its segment can't",
        "compare with what the collector received; keep a copy before anything else",
    )
    .print(console.err);
    Ok(Outcome::Finding)
}

fn tell(report: &VerifyReport, format: Format, console: &mut Console<'_>) -> std::io::Result<()> {
    if format == Format::Json {
        return writeln!(console.out, "{}", serde_json::to_string(report)?);
    }
    writeln!(
        console.out,
        "{}: {} records in {} segments of {} runs of the agent",
        if report.faults.is_empty() { "whole" } else { "NOT WHOLE" },
        report.records,
        report.segments,
        report.boots
    )?;
    if report.truncated_head {
        writeln!(console.out, "older segments are gone, as the cap demands")?;
    }
    if report.torn_tail {
        writeln!(
            console.out,
            "the last line is torn, as after a crash; the next start cuts it off"
        )?;
    }
    for fault in &report.faults {
        writeln!(console.out, "FAULT {}:{}: {}", fault.segment, fault.line, fault.what)?;
    }
    writeln!(console.out, "head {}", report.head)
}
