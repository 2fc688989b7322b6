//! `sekisho findings`

use super::args::{FindingsArgs, Format};
use super::contain::{load, refused};
use super::text::paragraph;
use super::{Console, Outcome, cannot_write};
use crate::chain::Complaint;
use crate::control::{Answer, Request, ask, last_findings};
use sekisho_schema::{Body, Envelope};

pub(super) fn run(args: &FindingsArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let config = load(&args.read.config)?;
    let findings = match ask(&config.socket(), &Request::Findings { limit: args.limit }) {
        Ok(Answer::Findings { findings }) => findings,
        Ok(other) => return refused(other, console),
        // The journal is there without the agent too.
        Err(_) => last_findings(&config.journal_dir(), args.limit.max(1)).map_err(|error| {
            Complaint::new(
                format!(
                    "cannot ask the agent, nor read its journal in {}: {error}",
                    config.journal_dir().display()
                ),
                "unknown: findings may exist",
                "run as root, and name the agent's configuration with --config",
            )
        })?,
    };
    tell(&findings, args.read.output, console).map_err(|error| cannot_write(&error))?;
    Ok(if findings.is_empty() { Outcome::Fine } else { Outcome::Finding })
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
