//! `hosts`, `findings`, `deny` (also `hosts revoke`) and `audit`.

use super::{Failure, Output, Place, Reading, json, refused_by_store, table};
use crate::clock::{self, roughly, to_the_second};
use crate::page::text;
use crate::store::{AuditReport, HostView, Liveness};
use clap::{Args, Subcommand};
use sekisho_schema::Timestamp;
use std::io::Write;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Hosts {
    #[command(subcommand)]
    verb: Option<HostsVerb>,
    #[command(flatten)]
    reading: Reading,
}

#[derive(Subcommand)]
enum HostsVerb {
    /// Shut an agent out for good: its certificate counts no more, its stream ends at once
    Revoke(Deny),
}

#[derive(Args)]
pub(super) struct Findings {
    #[command(flatten)]
    reading: Reading,
    /// The most findings to list
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: u64,
}

#[derive(Args)]
pub(super) struct Deny {
    #[command(flatten)]
    place: Place,
    /// The agent's id, from `hosts`
    agent: String,
    /// Why
    #[arg(long)]
    reason: String,
}

fn host_row(host: &HostView, now: Timestamp) -> [String; 9] {
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let liveness = match host.liveness {
        Liveness::Denied => "denied",
        Liveness::Reporting => "reporting",
        Liveness::Silent => "SILENT",
        Liveness::Waiting => "waiting",
    };
    [
        host.host.clone(),
        host.group.clone(),
        liveness.to_owned(),
        known(&host.requested),
        if host.requested == host.effective {
            known(&host.effective)
        } else {
            format!("{} (!)", known(&host.effective))
        },
        host.policy_version.map_or_else(|| "-".to_owned(), |version| version.to_string()),
        host.last_seen
            .map_or_else(|| "never".to_owned(), |seen| format!("{} ago", roughly(now.since(seen)))),
        host.spool.map_or_else(|| "-".to_owned(), |spool| spool.to_string()),
        host.agent.clone(),
    ]
}

pub(super) fn hosts(arguments: &Hosts, out: &mut dyn Write) -> Result<u8, Failure> {
    if let Some(HostsVerb::Revoke(arguments)) = &arguments.verb {
        return deny(arguments, out);
    }
    let reading = &arguments.reading;
    let (_, store) = reading.place.open()?;
    let now = clock::now();
    let hosts = store.hosts(now).map_err(refused_by_store)?;
    if reading.output == Output::Json {
        json(out, &hosts)?;
    } else {
        let rows: Vec<_> = hosts.iter().map(|host| host_row(host, now)).collect();
        table::write(
            out,
            [
                "HOST",
                "GROUP",
                "STATE",
                "ASKED FOR",
                "IN EFFECT",
                "POLICY",
                "HEARD",
                "SPOOL",
                "AGENT",
            ],
            &rows,
        )?;
    }
    let wrong = hosts.iter().any(|host| {
        host.liveness == Liveness::Silent
            || (host.liveness == Liveness::Reporting && host.requested != host.effective)
    });
    Ok(u8::from(wrong))
}

pub(super) fn findings(arguments: &Findings, out: &mut dyn Write) -> Result<u8, Failure> {
    let (_, store) = arguments.reading.place.open()?;
    let findings = store.findings(arguments.limit, None).map_err(refused_by_store)?;
    if arguments.reading.output == Output::Json {
        json(out, &findings)?;
        return Ok(0);
    }
    let rows: Vec<_> = findings
        .iter()
        .map(|view| {
            let contained = view
                .receipt
                .as_ref()
                .and_then(|receipt| receipt.time_to_contain_ns)
                .map_or_else(|| "-".to_owned(), text::short_time);
            let grade = format!("{:?}", view.finding.grade).to_lowercase();
            [
                to_the_second(view.at),
                view.host.clone(),
                grade,
                view.finding.detector.clone(),
                text::decision(&view.finding.decision),
                contained,
                view.finding.explanation.clone(),
            ]
        })
        .collect();
    table::write(
        out,
        ["TIME (UTC)", "HOST", "GRADE", "DETECTOR", "DECISION", "CONTAINED IN", "EXPLANATION"],
        &rows,
    )?;
    Ok(0)
}

pub(super) fn deny(arguments: &Deny, out: &mut dyn Write) -> Result<u8, Failure> {
    let (_, store) = arguments.place.open()?;
    if arguments.reason.trim().is_empty() {
        return Err(Failure::unable(
            "the reason is empty",
            "nothing was changed",
            "say why with --reason TEXT",
        ));
    }
    if store.deny(&arguments.agent, &arguments.reason, clock::now()).map_err(refused_by_store)? {
        writeln!(
            out,
            "agent {} is denied: its stream ends within a second and its requests are refused",
            arguments.agent
        )?;
        Ok(0)
    } else {
        Err(Failure::refused(
            format!("there is no agent \"{}\"", arguments.agent),
            "nothing was changed",
            "`sekisho-collector hosts` shows the agents' ids",
        ))
    }
}

fn verdict(report: &AuditReport) -> String {
    let mut faults = Vec::new();
    if report.missing > 0 {
        faults.push(format!("{} missing", report.missing));
    }
    if !report.broken.is_empty() {
        faults.push(format!(
            "chain broken at {}",
            report.broken.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
        ));
    }
    faults.extend(report.faults.iter().cloned());
    match faults.as_slice() {
        [] if report.hashed == report.events && report.removed > 0 => {
            format!("whole after {}, which was removed on purpose", report.removed)
        }
        [] if report.hashed == report.events => "whole".to_owned(),
        [] => format!(
            "nothing missing; {} came without a hash and can't be checked",
            report.events - report.hashed
        ),
        _ => faults.join("; "),
    }
}

pub(super) fn audit(reading: &Reading, out: &mut dyn Write) -> Result<u8, Failure> {
    let (_, store) = reading.place.open()?;
    let reports = store.audit().map_err(refused_by_store)?;
    let (rulings, broken) = store.audit_rulings().map_err(refused_by_store)?;
    if reading.output == Output::Json {
        json(out, &reports)?;
    } else {
        let rows: Vec<_> = reports
            .iter()
            .map(|report| {
                [
                    report.host.clone(),
                    report.boot.clone(),
                    report.events.to_string(),
                    report.highest.to_string(),
                    verdict(report),
                ]
            })
            .collect();
        table::write(out, ["HOST", "BOOT", "EVENTS", "HIGHEST", "CHAIN"], &rows)?;
        match broken {
            None => writeln!(out, "decisions made on the page: {rulings}, their chain holds")?,
            Some(row) => writeln!(out, "decisions made on the page: BROKEN at number {row}")?,
        }
    }
    Ok(u8::from(
        broken.is_some()
            || reports.iter().any(|report| {
                report.missing > 0 || !report.broken.is_empty() || !report.faults.is_empty()
            }),
    ))
}
