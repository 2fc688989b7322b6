//! The shape of `sekisho baseline`.

use crate::cli::args::{ConfigArgs, Format};
use clap::{Args, Subcommand};
use sekisho_schema::Span;
use sekisho_schema::Timestamp;
use sekisho_schema::episode::{DestinationKey, Workload};
use std::path::PathBuf;

/// `baseline`
#[derive(Debug, Args)]
pub struct BaselineArgs {
    #[command(subcommand)]
    pub(super) verb: BaselineVerb,
}

/// What to do with what was learned.
#[derive(Debug, Subcommand)]
pub(super) enum BaselineVerb {
    /// Announce new software: what it may speak to, and how much, while a change window is open.
    Announce(Box<AnnounceArgs>),
    /// Sign items of the review list: they are normal.
    Approve(DecideArgs),
    /// Make the certificate of a role from what its hosts learned, and seal it.
    Certify(Box<CertifyArgs>),
    /// Make the next version of a baseline with what nobody needs to sign, and seal it.
    Draft(DraftArgs),
    /// Show what one baseline or certificate changes against another.
    Diff(DiffArgs),
    /// Write what this host learned, for pooling with others of its role.
    Export(ExportArgs),
    /// Take a sealed baseline or certificate into this host's state.
    Import(ImportArgs),
    /// Refuse items of the review list: they stay held.
    Refuse(DecideArgs),
    /// Make every recorded score again from its record alone.
    Replay(ReplayArgs),
    /// Show what a certificate would have done, and what any other threshold would have.
    Report(Box<ReportArgs>),
    /// List what must not become normal unless somebody signs it.
    Review(ReviewArgs),
    /// Show how much of the week, the jobs and the peers is covered, and what is locked.
    Show(ShowArgs),
}

/// Where what was learned comes from.
#[derive(Debug, Args)]
pub(super) struct SourceArgs {
    /// Records of hosts, as `export` writes them, or directories of them; by default this host's own.
    #[arg(long, value_name = "FILE|DIR")]
    pub(super) learned: Vec<PathBuf>,
    /// The role; by default that of the first record.
    #[arg(long, value_name = "NAME")]
    pub(super) role: Option<String>,
    /// The baseline, in TOML or sealed; by default the one in force, else an empty one.
    #[arg(long, value_name = "FILE")]
    pub(super) baseline: Option<PathBuf>,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// What to seal with, and where to.
#[derive(Debug, Args)]
pub(super) struct SealArgs {
    /// The file of the secret key.
    #[arg(long, value_name = "FILE")]
    pub(super) key: PathBuf,
    /// Where the sealed document goes; a readable one is written beside it, as *.toml.
    #[arg(long, value_name = "FILE")]
    pub(super) out: PathBuf,
    /// For how long the seal is fresh.
    #[arg(long, value_name = "SPAN", default_value = "90d")]
    pub(super) expires: Span,
}

/// `baseline announce`
#[derive(Debug, Args)]
pub(super) struct AnnounceArgs {
    /// What it is for.
    pub(super) name: String,
    /// A destination: a domain, asNUMBER, a network or object:NAME.
    #[arg(long = "to", value_name = "DESTINATION", required = true)]
    pub(super) destinations: Vec<DestinationKey>,
    /// Payload bytes that may go up to each of them.
    #[arg(long, value_name = "BYTES")]
    pub(super) upload: u64,
    /// For how long the window is open, at most 28d.
    #[arg(long = "for", value_name = "SPAN")]
    pub(super) lasts: Span,
    /// When it opens; by default now.
    #[arg(long, value_name = "TIME")]
    pub(super) from: Option<Timestamp>,
    /// For this workload only: unit:NAME, container:ID, program:PATH.
    #[arg(long, value_name = "WORKLOAD")]
    pub(super) workload: Option<Workload>,
    /// Who announces it.
    #[arg(long, value_name = "NAME")]
    pub(super) by: String,
    #[command(flatten)]
    pub(super) source: SourceArgs,
    #[command(flatten)]
    pub(super) seal: SealArgs,
}

/// `baseline approve`, `baseline refuse`
#[derive(Debug, Args)]
pub(super) struct DecideArgs {
    /// Items, as `baseline review` names them.
    #[arg(required = true, value_name = "ITEM")]
    pub(super) items: Vec<String>,
    /// Who decides; it goes on record.
    #[arg(long, value_name = "NAME")]
    pub(super) by: String,
    /// Why; it goes on record.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: String,
    #[command(flatten)]
    pub(super) source: SourceArgs,
    #[command(flatten)]
    pub(super) seal: SealArgs,
}

/// `baseline certify`
#[derive(Debug, Args)]
pub(super) struct CertifyArgs {
    /// False actions per host-week that a channel may cost, such as hold.rhythm=0.5; a tier that is named
    /// has only the channels that are named.
    #[arg(long, value_name = "TIER.CHANNEL=RATE")]
    pub(super) budget: Vec<String>,
    /// How sure the promise of a tier shall be, all its channels together.
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    pub(super) confidence: f64,
    /// The certificate that this one follows; its version rises by one.
    #[arg(long, value_name = "FILE")]
    pub(super) after: Option<PathBuf>,
    #[command(flatten)]
    pub(super) source: SourceArgs,
    #[command(flatten)]
    pub(super) seal: SealArgs,
}

/// `baseline draft`
#[derive(Debug, Args)]
pub(super) struct DraftArgs {
    #[command(flatten)]
    pub(super) source: SourceArgs,
    #[command(flatten)]
    pub(super) seal: SealArgs,
}

/// `baseline diff`
#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// The older one, in TOML or sealed.
    pub(super) old: PathBuf,
    /// The newer one.
    pub(super) new: PathBuf,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// `baseline export`
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Where the record goes.
    #[arg(long, value_name = "FILE")]
    pub(super) out: PathBuf,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// `baseline import`
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The sealed document.
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// `baseline replay`
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// Files of events, one JSON object a line, such as `replay --json` writes; by default this host's journal.
    pub(super) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// How to answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

/// `baseline report`
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// The certificate, in TOML or sealed; by default the one in force.
    #[arg(long, value_name = "FILE")]
    pub(super) certificate: Option<PathBuf>,
    /// A holiday calendar.
    #[arg(long, value_name = "FILE")]
    pub(super) calendar: Option<PathBuf>,
    #[command(flatten)]
    pub(super) source: SourceArgs,
    /// How to answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

/// `baseline review`
#[derive(Debug, Args)]
pub(super) struct ReviewArgs {
    #[command(flatten)]
    pub(super) source: SourceArgs,
    /// How to answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

/// `baseline show`
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// A holiday calendar.
    #[arg(long, value_name = "FILE")]
    pub(super) calendar: Option<PathBuf>,
    #[command(flatten)]
    pub(super) source: SourceArgs,
    /// How to answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}
