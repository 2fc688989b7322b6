//! How things read to people.

use sekisho_schema::{Action, Body, Envelope, Finding, Reason, Span, Timestamp};
use std::io::Write;

/// A time to the second, in UTC.
pub(super) fn seconds(at: Timestamp) -> String {
    let text = at.to_string();
    text.get(..19).map_or_else(|| text.clone(), |whole| format!("{}Z", whole.replace('T', " ")))
}

/// A time of the day to the microsecond.
fn time_of_day(at: Timestamp) -> String {
    at.to_string().get(11..26).unwrap_or_default().to_owned()
}

/// A span in the two largest units that matter to a person.
pub(super) fn rough(span: Span) -> String {
    let total = span.nanos().max(0) / 1_000_000_000;
    let (days, hours, minutes, seconds) =
        (total / 86_400, total / 3600 % 24, total / 60 % 60, total % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {seconds} s"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Bytes as a person compares them, in powers of 1000.
pub(super) fn amount(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// Nanoseconds as a person compares them.
pub(super) fn milliseconds(nanos: i64) -> String {
    let micros = nanos / 1000;
    format!("{}.{:03} ms", micros / 1000, micros % 1000)
}

/// The decision of a finding in words.
pub(super) fn decision(finding: &Finding) -> String {
    let decision = &finding.decision;
    let scope = decision.scope.as_deref().unwrap_or("nothing");
    let lease = decision.lease.map(|lease| format!(" for {lease}")).unwrap_or_default();
    match (decision.action, decision.reason) {
        (Action::Contain, None) => format!("contain {scope}{lease}"),
        (Action::Contain, Some(reason)) => format!("contain {scope}{lease} ({})", word(reason)),
        (Action::Withhold, Some(Reason::AlreadyContained)) => {
            format!("{scope} is contained already")
        }
        (Action::Withhold, reason) => format!(
            "would contain {scope}{lease}; withheld: {}",
            reason.map_or("no reason given", word)
        ),
        (Action::Record, _) => "record".to_owned(),
    }
}

const fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::AlreadyContained => "contained already",
        Reason::Budget => "the automatic budget is spent",
        Reason::CannotEnforce => "this host can't hold a cut",
        Reason::DryRun => "the mode is dry-run",
        Reason::Escalated => "a contained actor tried other ways",
        Reason::Exemption => "it is exempt",
        Reason::Learn => "the mode is learn",
        Reason::Owner => "until the workload behind it is known",
        Reason::Trial => "on trial",
    }
}

fn grade(finding: &Finding) -> String {
    format!("{:?}", finding.grade).to_lowercase()
}

/// A timeline for people, one or two lines an event.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    date: String,
}

impl Timeline {
    pub(super) fn write(
        &mut self,
        envelope: &Envelope,
        out: &mut dyn Write,
    ) -> std::io::Result<()> {
        if let Body::Summary(summary) = &envelope.body {
            return write_summary(summary, out);
        }
        let date = envelope.at.to_string().get(..10).unwrap_or_default().to_owned();
        if self.date != date {
            writeln!(out, "{date} (UTC)")?;
            self.date = date;
        }
        let at = time_of_day(envelope.at);
        match &envelope.body {
            Body::Finding(finding) => write_finding(&at, finding, out),
            Body::Containment(held) => writeln!(
                out,
                "{at}  containment {} of {} until {}",
                held.id,
                held.scope,
                seconds(held.until)
            ),
            Body::Release(release) => writeln!(
                out,
                "{at}  released {} of {}: {}",
                release.containment, release.scope, release.cause
            ),
            Body::Receipt(receipt) => writeln!(
                out,
                "{at}  receipt for {}: {}",
                receipt.containment,
                if receipt.applied { "the kernel holds it" } else { "NOT applied" }
            ),
            Body::Policy(change) => writeln!(
                out,
                "{at}  policy {}{} {}{}",
                change.version,
                if change.version == 0 && change.outcome == "adopted" { " (built-in)" } else { "" },
                change.outcome,
                why(change.why.as_deref())
            ),
            Body::Mode(change) => writeln!(
                out,
                "{at}  mode {}, effective {}{}",
                change.requested,
                change.effective,
                why(change.why.as_deref())
            ),
            Body::Gap(gap) => writeln!(out, "{at}  gap ({}): {}", gap.cause, gap.detail),
            Body::Baseline(state) => writeln!(
                out,
                "{at}  learned {} destinations in {:.0} h",
                state.destinations, state.hours
            ),
            Body::Coverage(coverage) => {
                writeln!(out, "{at}  not covered: {}", coverage.uncovered.join(", "))
            }
            Body::Evidence(file) => writeln!(
                out,
                "{at}  evidence of {}: {} frames, {} processes, in {}",
                file.finding,
                file.frames,
                file.processes.len(),
                file.file
            ),
            Body::Drill(drill) => writeln!(out, "{at}  drill {}: {}", drill.name, drill.detail),
            Body::Preview(preview) => writeln!(
                out,
                "{at}  a cut of {} would have refused {} flows and {} bytes since {}",
                preview.scope,
                preview.refused_flows,
                preview.refused_bytes_out,
                seconds(preview.since)
            ),
            Body::Summary(_) => Ok(()),
        }
    }
}

fn why(why: Option<&str>) -> String {
    why.map(|why| format!(": {why}")).unwrap_or_default()
}

fn write_finding(at: &str, finding: &Finding, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{at}  {} {} at frame {}: {}",
        finding.detector,
        grade(finding),
        finding.frame,
        finding.explanation
    )?;
    writeln!(
        out,
        "                 decision: {} ({}, policy {})",
        decision(finding),
        finding.id,
        finding.policy
    )
}

fn write_summary(
    summary: &sekisho_schema::event::Summary,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    writeln!(
        out,
        "\n{} frames, {} bytes, {} flows, {} bytes of payload toward the outside",
        summary.frames, summary.bytes, summary.flows, summary.bytes_out
    )?;
    if let (Some(first), Some(last)) = (summary.first_at, summary.last_at) {
        writeln!(
            out,
            "from {} to {} ({})",
            seconds(first),
            seconds(last),
            rough(last.since(first))
        )?;
    }
    let list = |counts: &std::collections::BTreeMap<String, u64>| {
        if counts.is_empty() {
            "none".to_owned()
        } else {
            counts
                .iter()
                .map(|(name, count)| format!("{name} {count}"))
                .collect::<Vec<_>>()
                .join(", ")
        }
    };
    writeln!(out, "findings: {}", list(&summary.findings))?;
    writeln!(out, "cuts decided or withheld: {}", summary.would_contain)?;
    writeln!(out, "not parsed: {}", list(&summary.unparsed))?;
    if !summary.evicted.is_empty() {
        writeln!(out, "evicted from full tables: {}", list(&summary.evicted))?;
    }
    Ok(())
}

/// One finding as a paragraph.
pub(super) fn paragraph(
    envelope: &Envelope,
    finding: &Finding,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    writeln!(
        out,
        "{}  {} {}  {}",
        seconds(envelope.at),
        finding.detector,
        grade(finding),
        finding.id
    )?;
    writeln!(out, "  {}", finding.explanation)?;
    if let Some(process) = &finding.process {
        writeln!(
            out,
            "  process: {} (pid {}){}",
            process.exe.as_deref().unwrap_or("unknown"),
            process.pid,
            process.unit.as_ref().map(|unit| format!(", {unit}")).unwrap_or_default()
        )?;
    }
    writeln!(out, "  decision: {}", decision(finding))
}
