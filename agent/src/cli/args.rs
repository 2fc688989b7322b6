//! The command line's shape.

use super::baseline::BaselineArgs;
use super::drill::DrillArgs;
use crate::config::DEFAULT_PATH;
use clap::{Args, Parser, Subcommand, ValueEnum};
use sekisho_schema::{ContainmentId, Measure, Scope, Span};
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
    /// Show, review, approve and certify what was learned; what a certificate would have done.
    Baseline(BaselineArgs),
    /// Hold again what was held when the host went down; for the unit that runs before the network.
    Boot(ConfigArgs),
    /// Check configuration, policy and rules without changing anything.
    Check(CheckArgs),
    /// Cut a scope now, for a time, with a reason.
    Contain(ContainArgs),
    /// Find out what this kernel and host cover, and what not, by trying.
    Doctor(DoctorArgs),
    /// Rehearse: a synthetic intruder, a real cut of a canary.
    Drill(DrillArgs),
    /// Give this host an identity at a collector.
    Enroll(EnrollArgs),
    /// Show what was found.
    Findings(FindingsArgs),
    /// Hold the cuts: the process that alone has the power to, for a unit.
    Guardian(GuardianArgs),
    /// Check lists and feeds, compile them, or count what is looked for.
    Indicators(IndicatorsArgs),
    /// Verify the journal.
    Journal(JournalArgs),
    /// Show, seal or verify a policy.
    Policy(PolicyArgs),
    /// Show what a cut would have refused in the last days.
    Preview(PreviewArgs),
    /// End a containment before its lease ends.
    Release(ReleaseArgs),
    /// Judge captures as if they were live; nothing is cut.
    Replay(ReplayArgs),
    /// Test rules against their cases.
    Rules(RulesArgs),
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

/// `guardian`
#[derive(Clone, Debug, Args)]
pub struct GuardianArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// Directory of the socket, instead of the configuration's `[paths] run`.
    #[arg(long, value_name = "DIR", hide = true, requires = "state")]
    pub(super) run: Option<PathBuf>,
    /// Directory of what is written down, instead of the configuration's `[paths] state`.
    #[arg(long, value_name = "DIR", hide = true, requires = "run")]
    pub(super) state: Option<PathBuf>,
    /// Leave the tables open to others.
    #[arg(long, hide = true)]
    pub(super) shared: bool,
    /// End after so many seconds without an agent and without anything held.
    #[arg(long, value_name = "SECS", hide = true)]
    pub(super) linger: Option<u64>,
    /// Start again what ends by anything but its own decision.
    #[arg(long, hide = true)]
    pub(super) keep: bool,
    /// Start one that outlives whoever started it.
    #[arg(long, hide = true, conflicts_with = "keep")]
    pub(super) detach: bool,
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
    /// What to cut: dest:ADDR, cgroup:PATH, container:ID, host, management-only, internal:ADDR, internal:MAC or link:DEVICE.
    pub scope: Scope,
    /// For how long, such as 90s, 15m or 24h.
    #[arg(long = "for", value_name = "SPAN")]
    pub lease: Span,
    /// Why; it goes on record.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Let a destination have so many bytes a second instead of none.
    #[arg(long, value_name = "BYTES", conflicts_with_all = ["quota", "observe", "freeze"])]
    pub throttle: Option<u64>,
    /// Let a destination have so many bytes, then none.
    #[arg(long, value_name = "BYTES", conflicts_with_all = ["observe", "freeze"])]
    pub quota: Option<u64>,
    /// Count what goes to a destination, and let it pass.
    #[arg(long, conflicts_with = "freeze")]
    pub observe: bool,
    /// Make the processes of a cgroup or container stand still too.
    #[arg(long)]
    pub freeze: bool,
    /// Needed for link:DEVICE: the host may not be reached any more until the lease ends.
    #[arg(long)]
    pub break_glass: bool,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

impl ContainArgs {
    pub(super) fn measure(&self) -> Measure {
        match (self.throttle, self.quota) {
            (Some(bytes_per_second), _) => Measure::Throttle { bytes_per_second },
            (None, Some(bytes)) => Measure::Quota { bytes },
            (None, None) if self.observe => Measure::Observe,
            (None, None) if self.freeze => Measure::Freeze,
            (None, None) => Measure::Cut,
        }
    }
}

/// `preview`
#[derive(Debug, Args)]
pub struct PreviewArgs {
    /// What would be cut, as for `contain`; with --policy the default is host.
    #[arg(required_unless_present = "policy")]
    pub scope: Option<Scope>,
    /// Under this policy (inside networks, exemptions) instead of the one in force.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// How far back.
    #[arg(long, value_name = "SPAN", default_value = "7d")]
    pub since: Span,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// How to answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
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
    /// Check lists, feeds and compiled sets without loading them anywhere.
    Check(IndicatorsCheckArgs),
    /// Make one compiled set of lists and feeds.
    Import(Box<IndicatorsImportArgs>),
    /// Have the running agent read its packs and lists anew.
    Reload(IndicatorsReloadArgs),
    /// Count what this configuration looks for.
    Stats(ReadArgs),
}

/// `indicators reload`
#[derive(Debug, Args)]
pub(super) struct IndicatorsReloadArgs {
    /// Take what is there although much is missing, unreadable, or older than what is in force.
    #[arg(long)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// How a list or feed is read.
#[derive(Debug, Args)]
pub(super) struct IndicatorsReadArgs {
    /// plain, csv, stix, misp, zeek, suricata or dataset; by default found out by the content.
    #[arg(long, value_name = "FORMAT")]
    pub(super) format: Option<sekisho_schema::intel::Format>,
    /// What values are that don't say it: ja3, certificate, user-agent, domain, …
    #[arg(long, value_name = "KIND")]
    pub(super) kind: Option<sekisho_schema::intel::Kind>,
    /// Also take addresses of private use.
    #[arg(long)]
    pub(super) allow_private: bool,
}

/// `indicators check`
#[derive(Debug, Args)]
pub(super) struct IndicatorsCheckArgs {
    /// The files.
    #[arg(required = true)]
    pub(super) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) read: IndicatorsReadArgs,
    /// The directory of trust anchors that seals are checked against; by default that of the configuration.
    #[arg(long, value_name = "DIR")]
    pub(super) trust: Option<PathBuf>,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// `indicators import`
#[derive(Debug, Args)]
pub(super) struct IndicatorsImportArgs {
    /// Lists, feeds and compiled sets; those named first take precedence.
    #[arg(required = true, value_name = "INPUT")]
    pub(super) inputs: Vec<PathBuf>,
    /// Where the compiled set goes.
    #[arg(long, value_name = "FILE")]
    pub(super) out: PathBuf,
    #[command(flatten)]
    pub(super) read: IndicatorsReadArgs,
    /// Who says so, for a single input; by default each input's file name.
    #[arg(long, value_name = "NAME")]
    pub(super) source: Option<String>,
    /// 0 to 100, for values whose source says nothing.
    #[arg(long, value_name = "N", default_value_t = 75, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(super) confidence: u8,
    /// odd, suspect or malicious, for values whose source says nothing.
    #[arg(long, value_name = "GRADE", default_value = "malicious", value_parser = grade)]
    pub(super) grade: sekisho_schema::Grade,
    /// How long values count that say no end, from when they were last seen.
    #[arg(long, value_name = "SPAN")]
    pub(super) valid_for: Option<Span>,
    /// The file of the secret key to seal the set with.
    #[arg(long, value_name = "FILE")]
    pub(super) key: Option<PathBuf>,
    /// For how long the seal is fresh.
    #[arg(long, value_name = "SPAN", default_value = "90d")]
    pub(super) expires: Span,
}

fn grade(text: &str) -> Result<sekisho_schema::Grade, String> {
    match text {
        "malicious" => Ok(sekisho_schema::Grade::Malicious),
        "odd" => Ok(sekisho_schema::Grade::Odd),
        "suspect" => Ok(sekisho_schema::Grade::Suspect),
        other => Err(format!("\"{other}\" is no grade; grades are odd, suspect and malicious")),
    }
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

/// `rules`
#[derive(Debug, Args)]
pub struct RulesArgs {
    /// What to do with the rules.
    #[command(subcommand)]
    pub verb: RulesVerb,
}

/// What to do with the rules.
#[derive(Debug, Subcommand)]
pub enum RulesVerb {
    /// Play every case to the shipped packs and those of the folder.
    Test {
        /// The folder with `packs/` and `cases/`; by default the installed one.
        dir: Option<PathBuf>,
        /// Also write each case as a capture into this folder.
        #[arg(long, value_name = "FOLDER")]
        write: Option<PathBuf>,
        /// How to answer.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}
