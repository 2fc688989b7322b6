//! What is said over the control socket: one JSON object a line, one answer for each request.

use sekisho_schema::event::{DrillReport, Preview};
use sekisho_schema::policy::Mode;
use sekisho_schema::{
    Containment, ContainmentId, Envelope, Measure, Receipt, Scope, Span, Timestamp,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What root may ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Request {
    /// Cut a scope.
    Contain {
        /// What to cut.
        scope: Scope,
        /// For how long.
        lease: Span,
        /// Why, in the person's words.
        reason: String,
        /// How to hold it.
        #[serde(default, skip_serializing_if = "Measure::is_cut")]
        measure: Measure,
        /// Whether it is meant although nobody may reach the host afterwards.
        #[serde(default)]
        break_glass: bool,
    },
    /// What this host can see and cut.
    Coverage,
    /// Write down what came of a rehearsal.
    DrillReport {
        /// The report.
        report: Box<DrillReport>,
    },
    /// The newest findings.
    Findings {
        /// At most so many, newest last.
        limit: usize,
    },
    /// What a cut would have refused.
    Preview {
        /// What would be cut.
        scope: Scope,
        /// How far back.
        since: Span,
        /// The TOML of a policy to take instead of the one in force.
        policy: Option<String>,
    },
    /// End a containment.
    Release {
        /// Which one.
        containment: ContainmentId,
        /// Why, in the person's words.
        reason: String,
        /// Whether the guard on opening is broken on purpose.
        break_glass: bool,
    },
    /// Read rules and indicators anew.
    Reload {
        /// Whether what is missing or older than what is in force is meant.
        #[serde(default)]
        force: bool,
    },
    /// How the agent fares.
    Status,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// The order was carried out; with the containments now in force.
    Done {
        /// One sentence.
        detail: String,
        /// What is in force now.
        containments: Vec<ContainmentStatus>,
    },
    /// What this host can see and cut.
    Coverage {
        /// Paths that a cut does not close, by name.
        uncovered: Vec<String>,
        /// Facts by name.
        facts: BTreeMap<String, String>,
    },
    /// Findings, oldest first.
    Findings {
        /// The findings in their envelopes.
        findings: Vec<Envelope>,
    },
    /// What a cut would have refused.
    Preview(Box<Preview>),
    /// It was not done.
    Refused {
        /// What could not be done.
        error: String,
        /// What holds now.
        state: String,
        /// What helps.
        help: String,
    },
    /// How the agent fares.
    Status(Box<Status>),
}

/// Requested and effective mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeStatus {
    /// What policy asks.
    pub requested: Mode,
    /// What this host does.
    pub effective: Mode,
    /// Why they differ.
    pub why: Option<String>,
}

/// The policy in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Its version; 0 for the built-in one.
    pub version: u64,
    /// `built-in`, `file`, `state` or `collector`.
    pub origin: String,
    /// When it ceases to be fresh.
    pub expires: Option<Timestamp>,
    /// Whether it has expired and stays in force.
    pub frozen: bool,
    /// The last policy that was refused, and why.
    pub refused: Option<String>,
    /// Who is told first.
    pub owner: String,
}

/// One captured interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// `capturing`, or why not.
    pub state: String,
    /// Frames offered by the kernel.
    pub received: u64,
    /// Frames dropped by the kernel.
    pub dropped: u64,
    /// `trigger and bulk`, or why everything comes by the block.
    #[serde(default)]
    pub paths: String,
}

/// What the agent sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureStatus {
    /// The uplinks.
    pub interfaces: Vec<InterfaceStatus>,
    /// Frames read.
    pub frames: u64,
    /// Bytes of payload that left for the outside.
    pub bytes_out: u64,
    /// Flows seen.
    pub flows: u64,
    /// `SCHED_FIFO 1`, or why it was refused.
    pub realtime: String,
}

/// A containment, with what is known of its effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainmentStatus {
    /// What was decided.
    pub containment: Containment,
    /// The sentence of the finding behind it.
    pub explanation: Option<String>,
    /// What the kernel holds; `None` until it was read back.
    pub receipt: Option<Receipt>,
}

/// Destinations known beforehand, dropped by the kernel before their first packet leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownStatus {
    /// How many the kernel holds.
    pub held: u64,
    /// How many it shall hold.
    pub wanted: u64,
    /// How many are left out because more than `[limits] preloaded` are known.
    pub over_cap: u64,
    /// Networks, which are compared with packets that were seen, not held.
    pub networks: u64,
    /// Those that an exemption, the collector or this host itself forbids to hold.
    pub exempt: u64,
    /// Packets dropped for them since the ruleset was first loaded.
    pub dropped: u64,
    /// What went wrong the last time.
    pub failure: Option<String>,
}

/// How the journal fares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalStatus {
    /// Why it can't be written now.
    pub failure: Option<String>,
    /// Sequence of the last durable record of this boot.
    pub durable: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Records that the collector has not acknowledged.
    pub unsent: u64,
    /// Records lost.
    pub lost: u64,
}

/// How the link to the collector fares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectorStatus {
    /// Its address; `None` when the agent works alone.
    pub url: Option<String>,
    /// Whether the last attempt got through.
    pub connected: bool,
    /// When it last answered.
    pub last_contact: Option<Timestamp>,
    /// What the last failure was.
    pub failure: Option<String>,
}

/// How the agent fares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// The host's name in events.
    pub host: String,
    /// Names this run.
    pub boot: String,
    /// The agent's process id.
    pub pid: u32,
    /// When this run began.
    pub started_at: Timestamp,
    /// When this was written.
    pub at: Timestamp,
    /// The mode.
    pub mode: ModeStatus,
    /// The policy in force.
    pub policy: PolicyStatus,
    /// What the agent sees.
    pub capture: CaptureStatus,
    /// What is cut now.
    pub containments: Vec<ContainmentStatus>,
    /// Findings since the start.
    pub findings: u64,
    /// What the kernel could not be made to hold, when something failed.
    pub enforcement: Option<String>,
    /// How the guardian fares; `None` while it is not there.
    #[serde(default)]
    pub guardian: Option<crate::guardian::State>,
    /// Paths that a cut does not close.
    pub coverage: Vec<String>,
    /// Destinations known beforehand.
    #[serde(default)]
    pub known: KnownStatus,
    /// What learning has come to, and what it may do.
    #[serde(default)]
    pub learning: super::LearningStatus,
    /// How the journal fares.
    pub journal: JournalStatus,
    /// How the link to the collector fares.
    pub collector: CollectorStatus,
}
