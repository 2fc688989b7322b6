//! The command line. What enters: arguments. What leaves: lines for people, JSON for programs,
//! an exit code (0 fine, 1 a finding or refusal, 2 could not do it). It works beside a running
//! server on the same database.

mod baseline;
mod failure;
mod lists;
mod notices;
mod orders;
mod policies;
mod sealing;
mod setup;
mod table;
mod tokens;

use crate::config::{Config, RawConfig};
use crate::dir::Dir;
use crate::store::{Store, StoreError};
use clap::{Args, Parser, Subcommand, ValueEnum};
use failure::Failure;
use sekisho_schema::Span;
use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Parser)]
#[command(
    name = "sekisho-collector",
    version,
    about = "The Sekisho collector: policy out, findings in, a person told",
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make the authority, the server's certificate, the database and the operator's password
    Init(setup::Init),
    /// Serve agents and the page until told to stop
    Run(RunArguments),
    /// Tokens that enrol one host each
    #[command(subcommand)]
    Token(tokens::Token),
    /// List the hosts, or shut one out
    Hosts(lists::Hosts),
    /// List the findings, newest first
    Findings(lists::Findings),
    /// Shut an agent out for good
    Deny(lists::Deny),
    /// Seal, push and compare policies
    #[command(subcommand)]
    Policy(policies::PolicyVerb),
    /// What hosts learned: pool it by role, make, seal and push baselines and certificates
    #[command(subcommand)]
    Baseline(baseline::BaselineVerb),
    /// Keys that may seal policies
    #[command(subcommand)]
    Trust(policies::Trust),
    /// The operator of the page
    #[command(subcommand)]
    Operator(setup::Operator),
    /// Check what is stored
    #[command(subcommand)]
    Audit(Audit),
    /// Staged roll-out of a policy (not in this version)
    Rollout(Absent),
    /// Orders to hosts: cut, release, confirm
    #[command(subcommand)]
    Order(orders::OrderVerb),
    /// What a person was told, and who took it on
    #[command(subcommand)]
    Notices(notices::Notices),
    /// Export to other formats (not in this version)
    Export(Absent),
}

#[derive(Subcommand)]
enum Audit {
    /// Compute the chain of every stored journal again
    Verify(Reading),
}

#[derive(Args)]
struct Absent {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<OsString>,
}

/// Where the collector lives.
#[derive(Args)]
struct Place {
    /// The collector's directory
    #[arg(long, default_value = Dir::DEFAULT)]
    dir: PathBuf,
}

/// What every reading command takes.
#[derive(Args)]
struct Reading {
    #[command(flatten)]
    place: Place,
    /// How to write the answer
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Json,
    Table,
}

#[derive(Args)]
struct RunArguments {
    /// The collector's directory [default: /var/lib/sekisho-collector]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Address and port for agents and the page over TLS [default: 0.0.0.0:8443]
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Loopback address and port for the page without TLS, or "off" [default: 127.0.0.1:8444]
    #[arg(long)]
    page: Option<String>,
    /// Ask for no password on the loopback page
    #[arg(long)]
    page_open: bool,
    /// Configuration file [default: /etc/sekisho/collector.toml, if it is there]
    #[arg(long)]
    config: Option<PathBuf>,
}

const INIT_HELP: &str = "make one with `sekisho-collector init --org ORG --name NAME --address IP`, or name its directory with --dir";

impl Place {
    fn open(&self) -> Result<(Dir, Store), Failure> {
        let dir = Dir::new(&self.dir);
        if !dir.database().exists() {
            return Err(absent_collector(&dir, "nothing was changed"));
        }
        match Store::open(&dir.database(), false) {
            Ok(store) => Ok((dir, store)),
            Err(error) => Err(Failure::unable(error, "nothing was changed", INIT_HELP)),
        }
    }
}

fn absent_collector(dir: &Dir, state: &str) -> Failure {
    Failure::unable(
        format!("there is no collector in {} that you may open", dir.path().display()),
        state,
        INIT_HELP,
    )
}

fn refused_by_store(error: StoreError) -> Failure {
    Failure::unable(
        error,
        "nothing was changed",
        "see that the disk is not full and the file belongs to you, then try again",
    )
}

fn json(out: &mut dyn Write, value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::unable(error, "nothing was changed", "use -o table"))?;
    Ok(writeln!(out, "{text}")?)
}

fn span(text: &str, at_most: Span) -> Result<Span, Failure> {
    let help = format!("write a span of at most {at_most}, such as 90s, 15m or 24h");
    let span: Span =
        text.parse().map_err(|error| Failure::unable(error, "nothing was changed", &help))?;
    if span > Span::ZERO && span <= at_most {
        Ok(span)
    } else {
        Err(Failure::unable(
            format!("{text} is not between 1s and {at_most}"),
            "nothing was changed",
            help,
        ))
    }
}

/// Runs the command line and gives the exit code.
pub fn main(
    arguments: impl Iterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) if !error.use_stderr() => {
            let _ = write!(out, "{error}");
            return 0;
        }
        Err(error) => {
            misunderstood(&error).tell(err);
            return 2;
        }
    };
    match act(arguments.verb, out, err) {
        Ok(code) => code,
        Err(failure) => {
            failure.tell(err);
            failure.code
        }
    }
}

/// A command line that is none, in the three lines of every other failure.
fn misunderstood(error: &clap::Error) -> Failure {
    let text = error.to_string();
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // The usage line of the help names the command that lacks one of its own.
        let before = text
            .lines()
            .find_map(|line| line.strip_prefix("Usage: "))
            .and_then(|usage| usage.split(['<', '[']).next())
            .map_or("sekisho-collector", str::trim);
        return Failure::unable(
            format!("no command is given after `{before}`"),
            "nothing was done",
            format!("`{before} --help` lists them"),
        );
    }
    // What follows the first empty line repeats the usage.
    let told: Vec<&str> = text.lines().take_while(|line| !line.trim().is_empty()).collect();
    let told = told.join(" ");
    Failure::unable(
        told.strip_prefix("error: ").unwrap_or(&told),
        "nothing was done",
        "`sekisho-collector --help` lists the commands, `sekisho-collector COMMAND --help` what they take",
    )
}

fn act(verb: Verb, out: &mut dyn Write, err: &mut dyn Write) -> Result<u8, Failure> {
    match verb {
        Verb::Init(init) => setup::init(&init, out),
        Verb::Run(arguments) => run(arguments, out),
        Verb::Token(token) => tokens::act(token, out, err),
        Verb::Hosts(arguments) => lists::hosts(&arguments, out),
        Verb::Findings(findings) => lists::findings(&findings, out),
        Verb::Deny(deny) => lists::deny(&deny, out),
        Verb::Policy(policy) => policies::act(policy, out),
        Verb::Baseline(verb) => baseline::act(verb, out),
        Verb::Trust(trust) => policies::trust(trust, out),
        Verb::Operator(setup::Operator::Password(place)) => setup::new_password(&place, out),
        Verb::Audit(Audit::Verify(reading)) => lists::audit(&reading, out),
        Verb::Rollout(_) => Err(absent(
            "rollout",
            "a pushed policy reaches every host at once; `policy push` is the way, `hosts` shows who runs it",
        )),
        Verb::Order(verb) => orders::act(verb, out),
        Verb::Notices(verb) => notices::act(verb, out),
        Verb::Export(_) => Err(absent("export", "read the events as JSON from /api/v1/events")),
    }
}

fn absent(verb: &str, instead: &str) -> Failure {
    Failure::unable(format!("`{verb}` is not part of this version"), "nothing was done", instead)
}

fn run(arguments: RunArguments, out: &mut dyn Write) -> Result<u8, Failure> {
    let flags = RawConfig {
        dir: arguments.dir,
        listen: arguments.listen,
        page: arguments.page,
        page_open: arguments.page_open,
        ..RawConfig::default()
    };
    let config = Config::load(flags, arguments.config.as_deref()).map_err(|error| {
        Failure::unable(
            error,
            "the collector does not run",
            "`sekisho-collector run --help` and docs/collector.md say what each key takes",
        )
    })?;
    let dir = Dir::new(&config.dir);
    if !dir.database().exists() {
        return Err(absent_collector(
            &dir,
            "the collector does not run; agents keep deciding by themselves and spool their events",
        ));
    }
    let filter = tracing_subscriber::EnvFilter::try_from_env("SEKISHO_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // A second subscriber in one process is refused; the first goes on.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
    match crate::server::run(&config, out) {
        Ok(()) => Ok(0),
        Err(error) => {
            let help = match &error {
                crate::server::RunError::Bind { .. } => {
                    "see who listens there with `ss -ltnp`, or choose another address with --listen and --page"
                }
                _ => INIT_HELP,
            };
            Err(Failure::unable(
                error,
                "the collector does not run; agents keep deciding by themselves and spool their events",
                help,
            ))
        }
    }
}
