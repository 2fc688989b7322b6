//! `sekisho contain`

use super::args::{ConfigArgs, ContainArgs};
use super::text::seconds;
use super::{Console, Outcome, cannot_write};
use crate::chain::{Complaint, causes};
use crate::config::{Config, LoadConfigError};
use crate::control::{Answer, AskError, Request, ask};

pub(super) fn run(args: ContainArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let request = Request::Contain {
        scope: args.scope,
        lease: args.lease,
        reason: said("--reason", args.reason)?,
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
                writeln!(console.out, "{detail}")?;
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
                writeln!(
                    console.out,
                    "{} in force; `sekisho status` shows the proof",
                    containments.len()
                )
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

/// Loads the configuration.
pub(super) fn load(config: &ConfigArgs) -> Result<Config, Complaint> {
    Config::load(&config.config).map_err(|error| {
        let help = match error {
            LoadConfigError::Read { .. } => {
                "name it with --config FILE; an empty file means every default"
            }
            LoadConfigError::Malformed { .. } | LoadConfigError::Senseless { .. } => {
                "mend that line; keys are documented in the reference of agent.toml"
            }
        };
        Complaint::new(causes(&error), "nothing was changed", help)
    })
}

/// Asks the running agent.
pub(super) fn ask_agent(config: &Config, request: &Request) -> Result<Answer, Complaint> {
    ask(&config.socket(), request).map_err(|error| {
        let help = match error {
            AskError::Unreachable { .. } => "is the agent running, and are you root? `systemctl status sekisho`; `nft list table inet sekisho` shows what the kernel holds",
            AskError::Garbled { .. } => "use the sekisho program of the agent's own version",
        };
        Complaint::new(causes(&error), "unknown: the agent did not answer; what the kernel holds, it holds without the agent until its leases end", help)
    })
}
