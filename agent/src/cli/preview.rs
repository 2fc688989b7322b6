//! `sekisho preview`

use super::args::{Format, PreviewArgs};
use super::contain::{ask_agent, load, refused};
use super::replay::{read_policy, read_policy_text};
use super::text::{amount, seconds};
use super::{Console, Outcome, cannot_write};
use crate::chain::Complaint;
use crate::control::{Answer, Request};
use sekisho_schema::Scope;
use sekisho_schema::event::Preview;
use std::io::Write;

pub(super) fn run(args: &PreviewArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let policy = match &args.policy {
        None => None,
        Some(file) => {
            // What makes no sense is told here, with the file's name.
            read_policy(file)?;
            Some(read_policy_text(file)?.0)
        }
    };
    // A policy alone asks what its widest cut would refuse.
    let scope = args.scope.clone().unwrap_or(Scope::Host);
    let request = Request::Preview { scope, since: args.since, policy };
    match ask_agent(&load(&args.config)?, &request)? {
        Answer::Preview(preview) => {
            let told = match args.output {
                Format::Json => serde_json::to_string(&preview)
                    .map_err(std::io::Error::from)
                    .and_then(|text| writeln!(console.out, "{text}")),
                Format::Table => table(&preview, console.out),
            };
            told.map_err(|error| cannot_write(&error))?;
            Ok(Outcome::Fine)
        }
        other => refused(other, console),
    }
}

/// What would be refused, the dearest first.
pub(super) fn table(preview: &Preview, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "a cut of {} would have refused, from {} to {}:",
        preview.scope,
        seconds(preview.since),
        seconds(preview.until)
    )?;
    if preview.hours == 0 {
        writeln!(
            out,
            "  nothing is recorded of that time: this tells nothing of what a cut would do"
        )?;
        return Ok(());
    }
    if preview.lines.is_empty() {
        writeln!(out, "  no flow that was recorded")?;
    } else {
        writeln!(
            out,
            "  {:<8} {:<44} {:>7} {:>10} {:>10}  last",
            "what", "end", "flows", "out", "in"
        )?;
    }
    for line in &preview.lines {
        let port = line.port.map(|port| format!("/{port}")).unwrap_or_default();
        let end = match (&line.remote, &line.name) {
            (None, _) => format!("{}{port} for {} clients", line.transport, line.clients),
            (Some(remote), None) => format!("{remote} {}{port}", line.transport),
            (Some(remote), Some(name)) => format!("{name} ({remote}) {}{port}", line.transport),
        };
        writeln!(
            out,
            "  {:<8} {end:<44} {:>7} {:>10} {:>10}  {}",
            line.what,
            line.flows,
            amount(line.bytes_out),
            amount(line.bytes_in),
            seconds(line.last_at)
        )?;
        for workload in &line.workloads {
            writeln!(out, "           held by {workload}")?;
        }
    }
    if preview.lines_left_out > 0 {
        writeln!(
            out,
            "  and {} more services and peers (-o json has those sums)",
            preview.lines_left_out
        )?;
    }
    writeln!(
        out,
        "refused: {} flows, {} out; going on: {} flows, {} out; {} of the hours are recorded",
        preview.refused_flows,
        amount(preview.refused_bytes_out),
        preview.kept_flows,
        amount(preview.kept_bytes_out),
        preview.hours
    )?;
    if !preview.complete {
        writeln!(
            out,
            "NOT COMPLETE: some flows of that time were too many to be recorded one by one"
        )?;
    }
    Ok(())
}
