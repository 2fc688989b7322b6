//! Enters: the command line. Leaves: text for people or JSON for programs, and an exit code:
//! 0 fine, 1 a finding, a refusal or a mode that is not the requested one, 2 could not do it.
//! Must not know: how anything is done; one verb, one file.

mod args;
mod baseline;
mod check;
mod contain;
mod doctor;
mod drill;
mod enroll;
mod findings;
mod guardian;
mod indicators;
mod journal;
mod policy;
mod preview;
mod release;
mod replay;
mod rules;
mod run;
mod status;
mod text;
mod version;

pub use args::{Cli, Format, Verb};

use crate::chain::Complaint;
use clap::Parser;
use std::ffi::OsString;
use std::io::Write;

/// What a verb that went through has to say in its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to worry about.
    Fine,
    /// A finding, a refusal, or an effective mode that is not the requested one.
    Finding,
    /// It was done in part; the complaint was printed.
    Failed,
}

impl Outcome {
    const fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Finding => 1,
            Self::Failed => 2,
        }
    }
}

/// Where a verb writes.
pub struct Console<'a> {
    /// Results.
    pub out: &'a mut dyn Write,
    /// Complaints.
    pub err: &'a mut dyn Write,
}

/// Runs the program and gives its exit code.
pub fn main(
    args: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => {
            let _ = write!(out, "{error}");
            return 0;
        }
        Err(error) => {
            misunderstood(&error).print(err);
            return 2;
        }
    };
    let mut console = Console { out, err };
    let done = dispatch(cli, &mut console);
    // What was said comes before what went wrong, and a full disk behind a redirection is told.
    let told = console.out.flush();
    match done.and_then(|outcome| told.map(|()| outcome).map_err(|error| cannot_write(&error))) {
        Ok(outcome) => outcome.code(),
        Err(complaint) => {
            complaint.print(console.err);
            2
        }
    }
}

/// A command line that is none, in the three lines of every other complaint.
fn misunderstood(error: &clap::Error) -> Complaint {
    let text = error.to_string();
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // The usage line of the help names the verb that lacks a verb of its own.
        let before = text
            .lines()
            .find_map(|line| line.strip_prefix("Usage: "))
            .and_then(|usage| usage.split(['<', '[']).next())
            .map_or("sekisho", str::trim);
        return Complaint::new(
            format!("no verb is given after `{before}`"),
            "nothing was done",
            format!("`{before} --help` lists them"),
        );
    }
    // What follows the first empty line repeats the usage.
    let told: Vec<&str> =
        text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    let told = told.join(" ");
    let told = told.strip_prefix("error: ").unwrap_or(&told);
    Complaint::new(told, "nothing was done", "`sekisho help VERB` shows how the verb is used")
}

fn dispatch(cli: Cli, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    match cli.verb {
        Verb::Baseline(args) => baseline::run(args, console),
        Verb::Check(args) => check::run(&args, console),
        Verb::Contain(args) => contain::run(args, console),
        Verb::Doctor(args) => doctor::run(&args, console),
        Verb::Drill(args) => drill::run(args, console),
        Verb::Enroll(args) => enroll::run(&args, console),
        Verb::Boot(args) => guardian::boot(&args, console),
        Verb::Findings(args) => findings::run(&args, console),
        Verb::Guardian(args) => guardian::run(&args, console),
        Verb::Indicators(args) => indicators::run(&args, console),
        Verb::Journal(args) => journal::run(&args, console),
        Verb::Policy(args) => policy::run(args, console),
        Verb::Preview(args) => preview::run(&args, console),
        Verb::Release(args) => release::run(args, console),
        Verb::Replay(args) => replay::run(&args, console),
        Verb::Rules(args) => rules::run(&args, console),
        Verb::Run(args) => run::run(&args, console),
        Verb::Status(args) => status::run(&args, console),
        Verb::Version => version::run(console),
        Verb::Top(_) => later("top"),
    }
}

fn later(verb: &str) -> Result<Outcome, Complaint> {
    Err(Complaint::new(
        format!("`sekisho {verb}` is not in version {}", env!("CARGO_PKG_VERSION")),
        "nothing was done",
        "docs/cli.md says which verbs are still to come; `sekisho help` lists them all",
    ))
}

/// A complaint about output that can't be written, such as a full disk behind a redirection.
fn cannot_write(error: &std::io::Error) -> Complaint {
    Complaint::new(
        format!("cannot write the output: {error}"),
        "nothing was changed; the output is incomplete",
        "free space or write elsewhere",
    )
}
