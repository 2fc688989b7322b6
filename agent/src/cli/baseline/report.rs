//! `sekisho baseline report`: the dry-run report on a terminal or as JSON.

use super::args::ReportArgs;
use super::files::{Source, UNTOUCHED, calendar, certificate};
use crate::chain::Complaint;
use crate::cli::args::Format;
use crate::cli::text::{amount as bytes, seconds};
use crate::cli::{Console, Outcome, cannot_write};
use sekisho_engine::certify::report::{Curve, DryRun, WouldBe, dry_run};
use sekisho_engine::certify::sentence::amount;
use sekisho_schema::Timestamp;
use std::io::Write;

/// Columns of the bar of a curve.
const BAR: usize = 40;
/// Points of a curve that a terminal shows.
const SHOWN: usize = 12;

pub(super) fn run(args: &ReportArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let source = Source::read(&args.source)?;
    let calendar = calendar(args.calendar.as_ref(), &args.source.config)?;
    // What a certificate would have done can be asked after it has expired, too.
    let Some(certificate) =
        certificate(args.certificate.as_ref(), &args.source.config, Timestamp::EPOCH)?
    else {
        return Err(Complaint::new(
            "there is no certificate to report on",
            UNTOUCHED,
            "`sekisho baseline certify` makes one; name it with --certificate FILE",
        ));
    };
    if certificate.role != source.pool.role {
        return Err(Complaint::new(
            format!(
                "the certificate is of role \"{}\", the records of \"{}\"",
                certificate.role, source.pool.role
            ),
            UNTOUCHED,
            "name records, baseline and certificate of one role",
        ));
    }
    let report = dry_run(&source.pool, &source.baseline, &certificate, &calendar);
    let told = match args.output {
        Format::Json => serde_json::to_string(&report)
            .map_err(std::io::Error::from)
            .and_then(|text| writeln!(console.out, "{text}")),
        Format::Table => table(&report, console.out),
    };
    told.map_err(|error| cannot_write(&error))?;
    Ok(if report.actions.is_empty() { Outcome::Fine } else { Outcome::Finding })
}

fn table(report: &DryRun, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "dry run of role {} under certificate {}: {} hosts, {:.1} host-weeks, {} to {}",
        report.role,
        report.certificate,
        report.hosts,
        report.host_weeks,
        seconds(report.from),
        seconds(report.until)
    )?;
    for tier in &report.tiers {
        writeln!(out, "  {tier}")?;
        for locked in &tier.locked {
            writeln!(out, "    {:<13} {}", locked.channel.name(), locked.why)?;
        }
    }
    for curve in &report.curves {
        write_curve(curve, out)?;
    }
    for action in &report.actions {
        write_action(action, out)?;
    }
    if report.actions.is_empty() {
        writeln!(out, "\nnothing would have been held or cut")?;
    }
    Ok(())
}

/// Threshold against actions per host-week, the highest threshold first.
fn write_curve(curve: &Curve, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "\n{}: with a threshold of … so many actions a host-week", curve.channel)?;
    let step = curve.points.len().div_ceil(SHOWN).max(1);
    let most = curve.points.last().map_or(0.0, |point| point.per_host_week);
    for point in curve.points.iter().step_by(step) {
        let share = if most > 0.0 { point.per_host_week / most } else { 0.0 };
        writeln!(
            out,
            "  {:>18} {:>8.3} (at most {:>7.3}) {}",
            amount(curve.channel, point.threshold),
            point.per_host_week,
            point.at_most,
            "#".repeat((share * BAR as f64).round() as usize)
        )?;
    }
    Ok(())
}

fn write_action(action: &WouldBe, out: &mut dyn Write) -> std::io::Result<()> {
    let moment = action.moment.as_ref().map(|moment| format!(", {moment}")).unwrap_or_default();
    writeln!(
        out,
        "\n{}  {}  {} on {} by {}{moment}  [{}]",
        action.id,
        seconds(action.at),
        action.tier,
        action.host,
        action.channel,
        action.standing
    )?;
    writeln!(out, "  {}", action.sentence)?;
    let stopped = action
        .bytes_stopped
        .map_or_else(|| "an unknown amount (the record tells no moment)".to_owned(), bytes);
    writeln!(
        out,
        "  would have stopped {stopped}; hit {} other workloads of the host; {} hosts speak to it",
        action.users_hit, action.hosts
    )?;
    if action.standing == "undecided" {
        writeln!(
            out,
            "  [approve: `sekisho baseline approve {0}` | keep held: `sekisho baseline refuse {0}`]",
            action.id
        )?;
    }
    Ok(())
}
