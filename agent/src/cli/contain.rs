//! `sekisho contain`

use super::args::{ConfigArgs, ContainArgs};
use super::text::seconds;
use super::{Console, Outcome, cannot_write};
use crate::chain::{Complaint, causes};
use crate::config::{Config, DEFAULT_PATH, LoadConfigError, RawConfig};
use crate::control::{Answer, AskError, Request, ask};
use std::io::ErrorKind;
use std::path::Path;

pub(super) fn run(args: ContainArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let measure = args.measure();
    if !args.scope.takes(measure) {
        return Err(Complaint::new(
            format!("{} can't be held that way ({measure})", args.scope),
            "nothing was changed",
            "--throttle, --quota and --observe are for dest:ADDR, --freeze for cgroup:PATH and container:ID",
        ));
    }
    let request = Request::Contain {
        scope: args.scope,
        lease: args.lease,
        reason: said("--reason", args.reason)?,
        measure,
        break_glass: args.break_glass,
    };
    order(&args.config, &request, console)
}

/// A reason that says nothing is no reason.
pub(super) fn said(flag: &str, text: String) -> Result<String, Complaint> {
    if text.trim().is_empty() {
        return Err(Complaint::new(
            format!("{flag} is empty"),
            "nothing was changed",
            "say why in a few words; it goes on record",
        ));
    }
    Ok(text)
}

/// Sends an order to the agent and tells what became of it.
pub(super) fn order(
    config: &ConfigArgs,
    request: &Request,
    console: &mut Console<'_>,
) -> Result<Outcome, Complaint> {
    match ask_agent(&load(config)?, request)? {
        Answer::Done { detail, containments } => {
            let mut tell = || {
                // The agent answers "NAME: done"; which order that was is known here.
                match (detail.strip_suffix(": done"), request) {
                    (Some(id), Request::Contain { scope, .. }) => {
                        writeln!(console.out, "cut: {scope}, as {id}")?;
                    }
                    (Some(id), Request::Release { .. }) => writeln!(console.out, "released: {id}")?,
                    _ => writeln!(console.out, "{detail}")?,
                }
                if containments.is_empty() {
                    return writeln!(console.out, "nothing is cut now");
                }
                writeln!(console.out, "in force now (`sekisho status` shows the proof):")?;
                for status in &containments {
                    let held = &status.containment;
                    writeln!(
                        console.out,
                        "  {}  {}  until {}",
                        held.id,
                        held.scope,
                        seconds(held.until)
                    )?;
                }
                Ok(())
            };
            tell().map_err(|error| cannot_write(&error))?;
            Ok(Outcome::Fine)
        }
        other => refused(other, console),
    }
}

/// A refusal is told in three lines and counts as one.
pub(super) fn refused(answer: Answer, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    match answer {
        Answer::Refused { error, state, help } => {
            Complaint::new(error, state, help).print(console.err);
            Ok(Outcome::Finding)
        }
        _ => Err(Complaint::new(
            "the agent gave another answer than was asked for",
            "unknown",
            "use the sekisho program of the agent's own version",
        )),
    }
}

/// Loads the configuration. At its usual place it may be absent: every default, as for an empty file.
pub(super) fn load(config: &ConfigArgs) -> Result<Config, Complaint> {
    let usual = Path::new(DEFAULT_PATH);
    let fragments = usual.with_file_name("agent.d");
    let loaded = if config.config == usual && !usual.exists() && !fragments.exists() {
        Config::build(RawConfig::default())
            .map_err(|why| LoadConfigError::Senseless { path: usual.to_owned(), why })
    } else {
        Config::load(&config.config)
    };
    loaded.map_err(|error| {
        let help = match error {
            LoadConfigError::Read { .. } => {
                "name the file with --config FILE; an empty file means every default"
            }
            LoadConfigError::Malformed { .. } | LoadConfigError::Senseless { .. } => {
                "mend that line; docs/agent-toml.md has every key"
            }
        };
        Complaint::new(causes(&error), "nothing was changed", help)
    })
}

/// Asks the running agent.
pub(super) fn ask_agent(config: &Config, request: &Request) -> Result<Answer, Complaint> {
    ask(&config.socket(), request).map_err(|error| {
        let help = match &error {
            AskError::Unreachable { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                "only root may ask the agent: run this as root"
            }
            AskError::Unreachable { source, .. }
                if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
            {
                "no agent is running there: start it with `systemctl start sekisho` or `sekisho run`; `nft list table inet sekisho` shows what the kernel holds meanwhile"
            }
            AskError::Unreachable { .. } => "look at the agent's log; `nft list table inet sekisho` shows what the kernel holds",
            AskError::Garbled { .. } => "use the sekisho program of the agent's own version",
        };
        Complaint::new(causes(&error), "unknown: the agent did not answer; what the kernel holds, it holds without the agent until its leases end", help)
    })
}
