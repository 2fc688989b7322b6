//! `sekisho findings`

use super::args::{FindingsArgs, Format};
use super::contain::{load, refused};
use super::text::paragraph;
use super::{Console, Outcome, cannot_write};
use crate::chain::Complaint;
use crate::control::{Answer, Request, ask, last_findings};
use sekisho_schema::{Body, Envelope};
use std::path::Path;

pub(super) fn run(args: &FindingsArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let config = load(&args.read.config)?;
    let findings = match ask(&config.socket(), &Request::Findings { limit: args.limit }) {
        Ok(Answer::Findings { findings }) => findings,
        Ok(other) => return refused(other, console),
        // The journal is there without the agent too.
        Err(_) => last_findings(&config.journal_dir(), args.limit.max(1))
            .map_err(|error| no_journal(&config.journal_dir(), "find anything", &error))?,
    };
    tell(&findings, args.read.output, console).map_err(|error| cannot_write(&error))?;
    Ok(if findings.is_empty() { Outcome::Fine } else { Outcome::Finding })
}

/// Says that the journal can't be read, and whether that is only because no agent has run here.
pub(super) fn no_journal(dir: &Path, what: &str, error: &std::io::Error) -> Complaint {
    let (state, help) = if error.kind() == std::io::ErrorKind::NotFound {
        (
            "no agent has kept a journal there yet",
            "the agent makes it at its first start; if yours keeps it elsewhere, name its configuration with --config",
        )
    } else {
        (
            "unknown: findings may exist",
            "run as root, and name the agent's configuration with --config",
        )
    };
    Complaint::new(
        format!("cannot {what}: no journal to read in {}: {error}", dir.display()),
        state,
        help,
    )
}

fn tell(findings: &[Envelope], format: Format, console: &mut Console<'_>) -> std::io::Result<()> {
    if format == Format::Table && findings.is_empty() {
        return writeln!(console.out, "no findings");
    }
    for envelope in findings {
        match (&envelope.body, format) {
            (_, Format::Json) => writeln!(console.out, "{}", serde_json::to_string(envelope)?)?,
            (Body::Finding(finding), Format::Table) => paragraph(envelope, finding, console.out)?,
            _ => {}
        }
    }
    Ok(())
}
