//! `sekisho status`: written for a frightened operator at night. First what is cut, then whether
//! it may be believed, then how to undo it.

mod learning;

use super::args::{Format, ReadArgs};
use super::contain::{ask_agent, load, refused};
use super::text::{milliseconds, rough, seconds};
use super::{Console, Outcome, cannot_write};
use crate::chain::Complaint;
use crate::control::{Answer, ContainmentStatus, Request, Status};
use crate::enforce::Ownership;
use crate::enforce::{explain, is_always};
use crate::guardian::{Denying, Remembering};
use std::io::Write;

pub(super) fn run(args: &ReadArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let config = load(&args.config)?;
    let status = match ask_agent(&config, &Request::Status)? {
        Answer::Status(status) => status,
        other => return refused(other, console),
    };
    let told = match args.output {
        Format::Json => serde_json::to_string(&status)
            .map_err(std::io::Error::from)
            .and_then(|text| writeln!(console.out, "{text}")),
        Format::Table => table(&status, console.out),
    };
    told.map_err(|error| cannot_write(&error))?;
    Ok(if status.mode.requested == status.mode.effective && status.enforcement.is_none() {
        Outcome::Fine
    } else {
        Outcome::Finding
    })
}

fn table(status: &Status, out: &mut dyn Write) -> std::io::Result<()> {
    let failed = status
        .containments
        .iter()
        .filter(|held| held.receipt.as_ref().is_some_and(|receipt| !receipt.applied))
        .count();
    match status.containments.len() - failed {
        0 => writeln!(out, "NOTHING IS CUT on {}", status.host)?,
        1 => writeln!(out, "1 CUT IS IN FORCE on {}", status.host)?,
        count => writeln!(out, "{count} CUTS ARE IN FORCE on {}", status.host)?,
    }
    if failed > 0 {
        writeln!(out, "{failed} WANTED AND NOT IN FORCE: see NOT APPLIED below")?;
    }
    for held in &status.containments {
        cut(held, status, out)?;
    }
    if let Some(failure) = &status.enforcement {
        writeln!(out, "\nNOT CUT AS DECIDED: {failure}")?;
    }
    writeln!(out)?;
    mode(status, out)?;
    guardian(status, out)?;
    sight(status, out)?;
    known(status, out)?;
    learning::tell(&status.learning, status.at, out)?;
    let policy = &status.policy;
    let frozen = if policy.frozen { ", EXPIRED and frozen" } else { "" };
    writeln!(
        out,
        "policy     version {} ({}{frozen}), owner {}",
        policy.version, policy.origin, policy.owner
    )?;
    if let Some(refused) = &policy.refused {
        writeln!(out, "           last refused: {refused}")?;
    }
    journal(status, out)?;
    collector(status, out)?;
    writeln!(
        out,
        "agent      version {}, pid {}, up {}, {} findings since",
        status.version,
        status.pid,
        rough(status.at.since(status.started_at)),
        status.findings
    )?;
    uncovered(&status.coverage, out)
}

/// Gaps told in full, at most.
const TOLD: usize = 12;

/// What passes a cut here: on every host, and what was found on this one.
fn uncovered(gaps: &[String], out: &mut dyn Write) -> std::io::Result<()> {
    if gaps.is_empty() {
        return Ok(());
    }
    let (always, found): (Vec<&String>, Vec<&String>) = gaps.iter().partition(|gap| is_always(gap));
    let always: Vec<&str> = always.into_iter().map(String::as_str).collect();
    writeln!(out, "\nNOT COVERED here: a cut does not close these ways (`sekisho doctor` tries)")?;
    writeln!(out, "  {}: possible on every host", always.join(", "))?;
    for gap in found.iter().take(TOLD) {
        writeln!(out, "  {gap}: {}", explain(gap))?;
    }
    if found.len() > TOLD {
        writeln!(out, "  and {} more: `sekisho status -o json`", found.len() - TOLD)?;
    }
    Ok(())
}

fn cut(held: &ContainmentStatus, status: &Status, out: &mut dyn Write) -> std::io::Result<()> {
    let containment = &held.containment;
    let what = match &containment.scope {
        sekisho_schema::Scope::Host => "this host's traffic to the outside".to_owned(),
        sekisho_schema::Scope::ManagementOnly => {
            "all traffic of this host but management".to_owned()
        }
        sekisho_schema::Scope::Destination(address) => format!("all traffic to {address}"),
        other => other.to_string(),
    };
    writeln!(out, "\n  {}  {what} ({})", containment.id, containment.scope)?;
    writeln!(
        out,
        "    since    {} ({} ago)",
        seconds(containment.since),
        rough(status.at.since(containment.since))
    )?;
    let why = held.explanation.as_deref().unwrap_or(&containment.cause);
    let by = containment.by.as_ref().map(|by| format!(" (ordered by {by})")).unwrap_or_default();
    writeln!(out, "    why      {why}{by}")?;
    writeln!(
        out,
        "    until    {} ({} left), then the kernel lets go by itself",
        seconds(containment.until),
        rough(containment.remaining(status.at))
    )?;
    match &held.receipt {
        Some(receipt) if receipt.applied => {
            let proof = receipt.proof.cut.as_deref().unwrap_or("not proven yet");
            match (receipt.time_to_contain_ns, &containment.by) {
                (Some(nanos), _) => writeln!(
                    out,
                    "    effect   {proof}, cut {} after the deciding frame; sockets ended: {}; left after the match: {} packets, {} bytes",
                    milliseconds(nanos),
                    receipt.sockets_destroyed,
                    receipt.leaked_packets,
                    receipt.leaked_bytes
                )?,
                (None, Some(_)) => writeln!(
                    out,
                    "    effect   {proof}; sockets ended: {}",
                    receipt.sockets_destroyed
                )?,
                // What an earlier run of the agent measured is not known to this one.
                (None, None) => writeln!(
                    out,
                    "    effect   {proof}; taken over from an earlier run of the agent, whose receipt with the times is in the journal"
                )?,
            }
            writeln!(
                out,
                "    business exemptions {}",
                receipt.proof.exemptions.as_deref().unwrap_or("not tried yet")
            )?;
            let doubtful = receipt.proof.cut.as_deref() == Some("unproven")
                || receipt.proof.exemptions.as_deref() == Some("broken");
            if doubtful {
                for (name, outcome) in &receipt.proof.checks {
                    writeln!(out, "             {name}: {outcome}")?;
                }
            }
        }
        Some(receipt) => writeln!(
            out,
            "    effect   NOT APPLIED: {}",
            receipt.error.as_deref().unwrap_or("no cause given")
        )?,
        None => {
            writeln!(out, "    effect   held by the kernel; not proven by this run of the agent")?
        }
    }
    writeln!(out, "    undo     sekisho release {} --reason \"…\"", containment.id)
}

fn guardian(status: &Status, out: &mut dyn Write) -> std::io::Result<()> {
    let Some(state) = &status.guardian else {
        return writeln!(out, "GUARDIAN   gone: nothing new can be cut; what is cut stays cut");
    };
    let drift = if state.drift > 0 {
        format!("; {} times somebody else's change was set right", state.drift)
    } else {
        String::new()
    };
    let owned = match &state.ownership {
        Ownership::Absent => "no tables are loaded".to_owned(),
        Ownership::Owned => "the tables are its own, nobody else can change them".to_owned(),
        Ownership::Shared { why } => {
            format!("THE TABLES ARE OPEN TO OTHERS ({why}): what they change is put back")
        }
    };
    writeln!(
        out,
        "guardian   pid {}, {owned}{drift}; scheduling: {}",
        state.pid, state.scheduling
    )?;
    writeln!(out, "raw socks  {}", raw_sockets(&state.denying, state.containments > 0))?;
    match &state.remembering {
        Remembering::Unknown => Ok(()),
        Remembering::Works => {
            writeln!(
                out,
                "openers    the kernel remembers who opened connections, also when that has ended"
            )
        }
        Remembering::Absent { why } => writeln!(
            out,
            "openers    NOT REMEMBERED: programs are named by their sockets, while these are there: {why}"
        ),
    }
}

/// Whether new packet and AF_XDP sockets are refused, in words.
fn raw_sockets(denying: &Denying, is_holding: bool) -> String {
    match denying {
        Denying::Unknown => "not tried yet whether new ones can be refused".to_owned(),
        Denying::Absent { why } if is_holding => {
            format!("NEW ONES ARE NOT REFUSED to what is contained: {why}")
        }
        Denying::Absent { why } => {
            format!("new ones would not be refused to what is contained; cuts hold as ever: {why}")
        }
        Denying::Ready { refused } => format!(
            "new packet and AF_XDP sockets will be refused to what is contained; {refused} refused so far"
        ),
        Denying::Stands { cgroups, host, outlives, refused } => {
            let whom = match (host, cgroups) {
                (true, 0) => "everybody on this host".to_owned(),
                (true, cgroups) => format!("everybody on this host, and {cgroups} cgroups"),
                (false, cgroups) => format!("{cgroups} cgroups"),
            };
            let dies = if *outlives {
                ""
            } else {
                "; it ends with the guardian, as no bpf file system is mounted at /sys/fs/bpf"
            };
            format!(
                "new packet and AF_XDP sockets are refused to {whom}: {refused} so far; those that are open stay{dies}"
            )
        }
    }
}

fn mode(status: &Status, out: &mut dyn Write) -> std::io::Result<()> {
    let mode = &status.mode;
    if mode.requested == mode.effective {
        return writeln!(out, "mode       {}", mode.effective);
    }
    writeln!(
        out,
        "MODE       {} is requested and only {} is in effect: {}",
        mode.requested,
        mode.effective,
        mode.why.as_deref().unwrap_or("no cause given")
    )
}

fn sight(status: &Status, out: &mut dyn Write) -> std::io::Result<()> {
    let capture = &status.capture;
    let interfaces: Vec<String> = capture
        .interfaces
        .iter()
        .map(|interface| {
            let dropped = if interface.dropped > 0 {
                format!(", {} DROPPED", interface.dropped)
            } else {
                String::new()
            };
            let paths = if interface.paths.starts_with("bulk only") {
                format!("; {}", interface.paths)
            } else {
                String::new()
            };
            format!(
                "{} {} ({} frames{dropped}{paths})",
                interface.name, interface.state, interface.received
            )
        })
        .collect();
    let interfaces = if interfaces.is_empty() {
        "NO INTERFACE IS CAPTURED".to_owned()
    } else {
        interfaces.join(", ")
    };
    writeln!(
        out,
        "sight      {interfaces}; {} flows, {} bytes out; scheduling: {}",
        capture.flows, capture.bytes_out, capture.realtime
    )
}

fn known(status: &Status, out: &mut dyn Write) -> std::io::Result<()> {
    let known = &status.known;
    if known.wanted + known.held == 0 && known.failure.is_none() {
        return Ok(());
    }
    let over = if known.over_cap > 0 {
        format!(", {} LEFT OUT (more than [limits] preloaded)", known.over_cap)
    } else {
        String::new()
    };
    writeln!(
        out,
        "known      {} of {} known destinations are dropped by the kernel{over}; {} packets so far",
        known.held, known.wanted, known.dropped
    )?;
    match &known.failure {
        Some(failure) => writeln!(out, "KNOWN      NOT ALL HELD OR TOLD: {failure}"),
        None => Ok(()),
    }
}

fn journal(status: &Status, out: &mut dyn Write) -> std::io::Result<()> {
    let journal = &status.journal;
    let lost =
        if journal.lost > 0 { format!(", {} RECORDS LOST", journal.lost) } else { String::new() };
    match &journal.failure {
        Some(failure) => writeln!(out, "JOURNAL    FAILING: {failure}{lost}"),
        None => writeln!(
            out,
            "journal    {} records of this run are safe, {} bytes{lost}",
            journal.durable, journal.bytes
        ),
    }
}

fn collector(status: &Status, out: &mut dyn Write) -> std::io::Result<()> {
    let collector = &status.collector;
    let Some(url) = &collector.url else {
        return writeln!(out, "collector  none: this agent works alone");
    };
    let contact = collector.last_contact.map_or_else(
        || "never heard".to_owned(),
        |at| format!("heard {} ago", rough(status.at.since(at))),
    );
    match &collector.failure {
        Some(failure) => writeln!(
            out,
            "COLLECTOR  {url}: NO LINK ({contact}, {} records wait): {failure}",
            status.journal.unsent
        ),
        None => {
            writeln!(out, "collector  {url}, {contact}, {} records wait", status.journal.unsent)
        }
    }
}
