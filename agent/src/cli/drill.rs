//! `sekisho drill`

use super::args::{ConfigArgs, Format, ReadArgs};
use super::contain::load;
use super::text::{milliseconds, seconds};
use super::{Console, Outcome, cannot_write};
use crate::chain::{Complaint, causes};
use crate::clock;
use crate::drill::{
    self, DrillStanding, Ground, Held, Kept, Ledger, LoadDrillError, RunDrillError, Standing,
};
use clap::{Args, Subcommand};
use sekisho_schema::policy::DrillPlan;
use serde::Serialize;
use std::io::{BufReader, Write};
use std::path::PathBuf;

const AS_IT_WAS: &str = "nothing of this host was changed, and nothing was rehearsed";

/// `drill`
#[derive(Debug, Args)]
pub struct DrillArgs {
    #[command(subcommand)]
    pub(super) verb: DrillVerb,
}

/// What to do with drills.
#[derive(Debug, Subcommand)]
pub(super) enum DrillVerb {
    /// Be attacked, in a drill's own namespaces.
    #[command(hide = true)]
    Canary,
    /// Move into a drill's own namespaces.
    #[command(hide = true)]
    Cell,
    /// Show which drills there are, which policy asks for, and when they held last.
    List(ReadArgs),
    /// Show what came of the last rehearsals.
    Report(ReportArgs),
    /// Rehearse: a synthetic intruder, a real cut of a canary, in namespaces of their own.
    Run(RunArgs),
    /// Direct a drill, as process 1 of its namespaces.
    #[command(hide = true)]
    Stage,
}

/// `drill report`
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// All that is kept of this drill; without it the last of each.
    name: Option<String>,
    #[command(flatten)]
    read: ReadArgs,
}

/// `drill run`
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The drill, as `sekisho drill list` names it.
    #[arg(required_unless_present = "due")]
    name: Option<String>,
    /// Every drill that policy asks for and that is due, and nothing when none is.
    #[arg(long, conflicts_with = "name")]
    due: bool,
    /// Who or what begins it; it goes on record.
    #[arg(long, value_name = "TEXT")]
    by: Option<String>,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    ground: GroundArgs,
}

/// Instead of a configuration, for the agent's own schedule.
#[derive(Debug, Args)]
struct GroundArgs {
    #[arg(long, value_name = "DIR", hide = true, requires_all = ["socket", "rules", "trust"])]
    state: Option<PathBuf>,
    #[arg(long, value_name = "FILE", hide = true, requires = "state")]
    socket: Option<PathBuf>,
    #[arg(long, value_name = "DIR", hide = true, requires = "state")]
    rules: Option<PathBuf>,
    #[arg(long, value_name = "DIR", hide = true, requires = "state")]
    trust: Option<PathBuf>,
    #[arg(long, hide = true, requires = "state")]
    shared: bool,
}

pub(super) fn run(args: DrillArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    match args.verb {
        DrillVerb::Canary => within(drill::canary(BufReader::new(std::io::stdin()), console.out)),
        DrillVerb::Stage => within(drill::stage(BufReader::new(std::io::stdin()), console.out)),
        DrillVerb::Cell => match drill::cell() {
            Ok(status) if status.success() => Ok(Outcome::Fine),
            Ok(status) => Err(inner(format!("the stage ended with {status}"))),
            Err(error) => Err(inner(error.to_string())),
        },
        DrillVerb::List(args) => list(&args, console),
        DrillVerb::Report(args) => report(&args, console),
        DrillVerb::Run(args) => rehearse(args, console),
    }
}

fn within(outcome: std::io::Result<()>) -> Result<Outcome, Complaint> {
    outcome.map(|()| Outcome::Fine).map_err(|error| inner(error.to_string()))
}

fn inner(error: String) -> Complaint {
    Complaint::new(error, AS_IT_WAS, "these words are for `sekisho drill run`, which begins it")
}

fn ground(config: &ConfigArgs, given: GroundArgs) -> Result<Ground, Complaint> {
    match (given.state, given.socket, given.rules, given.trust) {
        (Some(state), Some(socket), Some(rules), Some(trust)) => {
            Ok(Ground { state, socket, rules, trust, policy: None, own_tables: !given.shared })
        }
        _ => Ok(Ground::from(&load(config)?)),
    }
}

fn rehearse(args: RunArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let ground = ground(&args.read.config, args.ground)?;
    let by = args.by.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    let names = match args.name {
        Some(name) => vec![name],
        None => due(&ground),
    };
    let mut outcome = Outcome::Fine;
    for name in names {
        let held = drill::run(&ground, &name, &by).map_err(|error| refused(&error))?;
        let told = match args.read.output {
            Format::Json => line(&held.kept, console.out),
            Format::Table => tell(&held.kept, console.out),
        };
        told.map_err(|error| cannot_write(&error))?;
        let this = if held.kept.report.passed {
            complain(&held, console)
        } else {
            complain(&held, console);
            Outcome::Finding
        };
        outcome = worse(outcome, this);
    }
    Ok(outcome)
}

/// One that failed outweighs one that was not told.
const fn worse(one: Outcome, other: Outcome) -> Outcome {
    match (one, other) {
        (Outcome::Finding, _) | (_, Outcome::Finding) => Outcome::Finding,
        (Outcome::Failed, _) | (_, Outcome::Failed) => Outcome::Failed,
        (Outcome::Fine, Outcome::Fine) => Outcome::Fine,
    }
}

fn due(ground: &Ground) -> Vec<String> {
    let (plans, ledger) = (drill::policy_in_force(ground).drill, Ledger::read(&ground.state));
    let now = clock::now();
    let is_due = |plan: &&DrillPlan| {
        let standing = ledger.standing(&plan.name, &plans, now).standing;
        matches!(standing, Standing::Due | Standing::Overdue)
    };
    plans.iter().filter(is_due).map(|plan| plan.name.clone()).collect()
}

fn complain(held: &Held, console: &mut Console<'_>) -> Outcome {
    let mut outcome = Outcome::Fine;
    if let Some(error) = &held.unkept {
        let error = format!("the report is not kept: {}", causes(error));
        Complaint::new(error, "it was told here alone", "make [paths] state writable")
            .print(console.err);
        outcome = Outcome::Failed;
    }
    if let Some(why) = &held.untold {
        let error = format!("the report was not handed to the agent: {why}");
        let help = "start the agent and rehearse again, so that the collector hears of it";
        Complaint::new(error, "it stands here and in `sekisho drill report`", help)
            .print(console.err);
        outcome = Outcome::Failed;
    }
    outcome
}

fn refused(error: &RunDrillError) -> Complaint {
    let help = match error {
        RunDrillError::Load(LoadDrillError::Unknown { .. }) => "`sekisho drill list` names them",
        RunDrillError::Load(_) => "rules/README.md shows what a drill is",
        RunDrillError::Busy => "wait until it is over: it takes some seconds",
        RunDrillError::Policy(_) => "`sekisho policy show` shows the policy in force",
        RunDrillError::System { .. } => "run it as root",
        RunDrillError::Cell(_) => {
            "it needs root, or the right to make user namespaces; and iproute2, nftables and mount"
        }
        RunDrillError::Late(_) => {
            "is the machine overloaded? `sekisho doctor` tries the same powers one by one"
        }
        RunDrillError::Failed(_) => "`sekisho doctor` tries the same powers one by one",
    };
    let mut text = causes(error);
    if let RunDrillError::Failed(failure) = error
        && let Some(last) = failure.said.lines().next_back()
    {
        text = format!("{text}; its last words: {last}");
    }
    Complaint::new(text, AS_IT_WAS, help)
}

fn line<T: Serialize>(value: &T, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "{}", serde_json::to_string(value)?)
}

fn tell(kept: &Kept, out: &mut dyn Write) -> std::io::Result<()> {
    let report = &kept.report;
    let word = if report.passed { "HELD" } else { "FAILED" };
    let by = report.by.as_deref().unwrap_or("nobody told");
    writeln!(out, "{word}  drill {} at {}, begun by {by}", report.name, seconds(kept.at))?;
    writeln!(out, "  {}", report.detail)?;
    if let Some(figures) = &kept.figures {
        let rows = [
            ("first packet", figures.first_packet_at),
            ("match", figures.found.as_ref().map(|found| found.matched_at)),
            ("commit", figures.receipt.as_ref().and_then(|receipt| receipt.committed_at)),
            ("last packet out", figures.last_packet_at),
        ];
        for (name, at) in rows {
            let at = at.map_or_else(|| "-".to_owned(), |at| at.to_string());
            writeln!(out, "  {name:<17} {at}")?;
        }
        if let Some(found) = &figures.found {
            writeln!(out, "  {:<17} {}: {}", "found", found.detector, found.explanation)?;
        }
    }
    let span = |nanos: Option<i64>| nanos.map_or_else(|| "-".to_owned(), milliseconds);
    writeln!(out, "  {:<17} {}", "time to detect", span(report.time_to_detect_ns))?;
    writeln!(out, "  {:<17} {}", "time to contain", span(report.time_to_contain_ns))?;
    writeln!(out, "  {:<17} {} bytes", "left after match", report.leaked_bytes)?;
    for (name, outcome) in &report.checks {
        writeln!(out, "  {name:<17} {outcome}")?;
    }
    Ok(())
}

fn report(args: &ReportArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let ground = Ground::from(&load(&args.read.config)?);
    let ledger = Ledger::read(&ground.state);
    let shown: Vec<&Kept> = match &args.name {
        Some(name) => ledger.reports.iter().filter(|kept| kept.report.name == *name).collect(),
        None => {
            let is_last = |kept: &&Kept| {
                ledger.last(&kept.report.name).is_some_and(|last| std::ptr::eq(last, *kept))
            };
            ledger.reports.iter().filter(is_last).collect()
        }
    };
    if let Some(name) = &args.name
        && shown.is_empty()
    {
        return Err(Complaint::new(
            format!("no rehearsal of \"{name}\" is kept in {}", ground.state.display()),
            "nothing was changed",
            "`sekisho drill list` names the drills, `sekisho drill run` rehearses",
        ));
    }
    let told = match args.read.output {
        Format::Json => shown.iter().try_for_each(|kept| line(kept, console.out)),
        Format::Table if shown.is_empty() => writeln!(console.out, "no drill has taken place"),
        Format::Table => shown.iter().try_for_each(|kept| tell(kept, console.out)),
    };
    told.map_err(|error| cannot_write(&error))?;
    let newest_held = |kept: &&&Kept| {
        let last = ledger.last(&kept.report.name);
        last.is_some_and(|last| last.report.passed)
    };
    let held = shown.iter().filter(newest_held).count() == shown.len();
    Ok(if held { Outcome::Fine } else { Outcome::Finding })
}

/// One line of the list.
#[derive(Serialize)]
struct Listed {
    title: String,
    #[serde(flatten)]
    standing: DrillStanding,
}

fn list(args: &ReadArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let ground = Ground::from(&load(&args.config)?);
    let (plans, ledger) = (drill::policy_in_force(&ground).drill, Ledger::read(&ground.state));
    let mut names = drill::names(&ground.rules);
    names.extend(plans.iter().map(|plan| plan.name.clone()));
    names.sort();
    names.dedup();
    let now = clock::now();
    let listed: Vec<Listed> = names
        .iter()
        .map(|name| Listed {
            title: drill::load(&ground.rules, name)
                .map_or_else(|error| format!("UNUSABLE: {}", causes(&error)), |drill| drill.title),
            standing: ledger.standing(name, &plans, now),
        })
        .collect();
    let told = match args.output {
        Format::Json => line(&listed, console.out),
        Format::Table => table(&listed, console.out),
    };
    told.map_err(|error| cannot_write(&error))?;
    let amiss = |listed: &Listed| {
        listed.standing.standing == Standing::Overdue
            || (listed.standing.every.is_some() && listed.standing.last_passed == Some(false))
    };
    Ok(if listed.iter().any(amiss) { Outcome::Finding } else { Outcome::Fine })
}

fn table(listed: &[Listed], out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{:<16} {:<7} {:<21} {:<7} {:<21} title",
        "name", "every", "last", "result", "due"
    )?;
    for Listed { title, standing } in listed {
        let at = |at: Option<sekisho_schema::Timestamp>| at.map_or_else(|| "-".to_owned(), seconds);
        let due = match standing.standing {
            Standing::Due => "now".to_owned(),
            Standing::Overdue => "OVERDUE".to_owned(),
            Standing::Held | Standing::Unscheduled => at(standing.due_at),
        };
        let result = match standing.last_passed {
            None => "-",
            Some(true) => "held",
            Some(false) => "FAILED",
        };
        writeln!(
            out,
            "{:<16} {:<7} {:<21} {result:<7} {due:<21} {title}",
            standing.name,
            standing.every.map_or_else(|| "-".to_owned(), |every| every.to_string()),
            at(standing.last_at),
        )?;
    }
    Ok(())
}
