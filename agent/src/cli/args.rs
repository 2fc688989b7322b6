//! The command line's shape.

use crate::config::DEFAULT_PATH;
use clap::{Args, Parser, Subcommand, ValueEnum};
use sekisho_schema::{ContainmentId, Scope, Span};
use std::path::PathBuf;

/// Sees outbound traffic, recognises command and control, cuts the host's egress, proves the cut.
#[derive(Debug, Parser)]
#[command(name = "sekisho", version, about, disable_help_subcommand = false)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// How a reading verb answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: one JSON document, or one a line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// (not in this version) Show, review, approve, export or import what was learned.
    Baseline(Rest),
    /// Check configuration, policy and rules without changing anything.
    Check(CheckArgs),
    /// Cut a scope now, for a time, with a reason.
    Contain(ContainArgs),
    /// Find out what this kernel and host cover, and what not, by trying.
    Doctor(DoctorArgs),
    /// (not in this version) Rehearse.
    Drill(Rest),
    /// Give this host an identity at a collector.
    Enroll(EnrollArgs),
    /// Show what was found.
    Findings(FindingsArgs),
    /// Check indicator lists, or count what is looked for.
    Indicators(IndicatorsArgs),
    /// Verify the journal.
    Journal(JournalArgs),
    /// Show, seal or verify a policy.
    Policy(PolicyArgs),
    /// (not in this version) Show what a cut would hit.
    Preview(Rest),
    /// End a containment before its lease ends.
    Release(ReleaseArgs),
    /// Judge captures as if they were live; nothing is cut.
    Replay(ReplayArgs),
    /// (not in this version) Test rules against their cases.
    Rules(Rest),
    /// Watch, cut and tell, until stopped.
    Run(ConfigArgs),
    /// Show what is cut now, why, until when, and whether it is proven.
    Status(ReadArgs),
    /// (not in this version) Watch live.
    Top(Rest),
    /// Show the version.
    Version,
}

/// Words after a verb that is not in this version.
#[derive(Debug, Args)]
pub struct Rest {
    /// Ignored.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub rest: Vec<String>,
}

/// Where the configuration is.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,
}

/// A verb that only reads.
#[derive(Debug, Args)]
pub struct ReadArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// How to answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub(super) read: ReadArgs,
    /// Also check a policy in TOML, as a person writes it.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

/// `contain`
#[derive(Debug, Args)]
pub struct ContainArgs {
    /// What to cut: dest:ADDR, host, management-only (cgroup:PATH, container:ID, internal:ADDR are not in this version).
    pub scope: Scope,
    /// For how long, such as 90s, 15m or 24h.
    #[arg(long = "for", value_name = "SPAN")]
    pub lease: Span,
    /// Why; it goes on record.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// `release`
#[derive(Debug, Args)]
pub struct ReleaseArgs {
    /// The containment, as `sekisho status` names it.
    pub containment: String,
    /// Why; it goes on record.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Go on record as having broken the guard on opening.
    #[arg(long)]
    pub break_glass: bool,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

impl ReleaseArgs {
    pub(super) fn id(&self) -> ContainmentId {
        ContainmentId(self.containment.clone())
    }
}

/// `doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub(super) read: ReadArgs,
    /// Tries here and now, as JSON; for the doctor's own scratch namespace.
    #[arg(long, hide = true)]
    pub probe: bool,
}

/// `enroll`
#[derive(Debug, Args)]
pub struct EnrollArgs {
    /// The collector: https://HOST:PORT.
    pub url: String,
    /// The token from `sekisho-collector token create`.
    #[arg(long)]
    pub token: String,
    /// The collector's CA pin, from `sekisho-collector init`: sha256: and 64 hexadecimal digits.
    #[arg(long, value_name = "PIN")]
    pub ca_pin: String,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// `findings`
#[derive(Debug, Args)]
pub struct FindingsArgs {
    /// At most so many, the newest.
    #[arg(long, default_value_t = 50)]
    pub limit: usize,
    #[command(flatten)]
    pub(super) read: ReadArgs,
}

/// `indicators`
#[derive(Debug, Args)]
pub struct IndicatorsArgs {
    #[command(subcommand)]
    pub(super) verb: IndicatorsVerb,
}

/// What to do with indicators.
#[derive(Debug, Subcommand)]
pub(super) enum IndicatorsVerb {
    /// Check lists without loading them anywhere.
    Check {
        /// The lists.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Count what this configuration looks for.
    Stats(ReadArgs),
}

/// `journal`
#[derive(Debug, Args)]
pub struct JournalArgs {
    #[command(subcommand)]
    pub(super) verb: JournalVerb,
}

/// What to do with the journal.
#[derive(Debug, Subcommand)]
pub(super) enum JournalVerb {
    /// Verify every line's hash, the sequence and the joints between segments.
    Verify(ReadArgs),
}

/// `policy`
#[derive(Debug, Args)]
pub struct PolicyArgs {
    #[command(subcommand)]
    pub(super) verb: PolicyVerb,
}

/// What to do with a policy.
#[derive(Debug, Subcommand)]
pub(super) enum PolicyVerb {
    /// Seal a policy with an offline key.
    Seal {
        /// The policy in TOML.
        file: PathBuf,
        /// The file of the secret key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// For how long the seal is fresh.
        #[arg(long, value_name = "SPAN", default_value = "90d")]
        expires: Span,
        /// Where the sealed policy goes.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Show the policy in force.
    Show(ReadArgs),
    /// Verify a sealed policy against trust anchors, offline.
    Verify {
        /// The sealed policy.
        file: PathBuf,
        /// The directory of trust anchors; by default that of the configuration.
        #[arg(long, value_name = "DIR")]
        trust: Option<PathBuf>,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// `replay`
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Captures, pcap or pcapng, in this order; `-` is standard input.
    #[arg(required = true, value_name = "PCAP")]
    pub captures: Vec<PathBuf>,
    /// A policy in TOML, or sealed; by default the built-in dry-run.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Rule packs (`*.toml`, or a directory of them) and lists (any other file) beside the shipped packs.
    #[arg(long, value_name = "DIR|FILE")]
    pub rules: Vec<PathBuf>,
    /// What was learned before.
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// The host's name in events.
    #[arg(long, default_value = "replay")]
    pub host: String,
    /// Write one event a line, and the summary last.
    #[arg(long)]
    pub json: bool,
    /// Also show the ruleset and the elements that the kernel would hold at the end.
    #[arg(long)]
    pub show_ruleset: bool,
}
