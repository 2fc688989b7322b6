//! What a person gets: a finding with its proof, the decision on it, and one sentence.

use crate::net::FlowKey;
use crate::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;

/// How bad the engine believes a thing to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// Unusual, and no more than that.
    Odd,
    /// Likely hostile; a person should look.
    Suspect,
    /// Proven hostile by itself.
    Malicious,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Odd => "odd",
            Self::Suspect => "suspect",
            Self::Malicious => "malicious",
        })
    }
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// `flow`, `destination`, `cgroup`, `container`, `host` or `internal-host`.
    pub kind: String,
    /// The thing itself, as text.
    pub value: String,
}

/// Who spoke first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The outside spoke first.
    Inbound,
    /// The inside spoke first.
    Outbound,
}

/// The flow of a finding, as other tools write it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRecord {
    /// The transport protocol.
    pub transport: crate::net::Transport,
    /// The inside endpoint.
    pub local: SocketAddr,
    /// The outside endpoint.
    pub remote: SocketAddr,
    /// Community ID version 1, seed 0.
    pub community_id: String,
    /// Who spoke first.
    pub direction: Direction,
}

impl FlowRecord {
    /// The record of a flow.
    #[must_use]
    pub fn new(key: &FlowKey, direction: Direction) -> Self {
        Self {
            transport: key.transport,
            local: key.local,
            remote: key.remote,
            community_id: key.community_id(),
            direction,
        }
    }

    /// The key of the flow.
    #[must_use]
    pub const fn key(&self) -> FlowKey {
        FlowKey { transport: self.transport, local: self.local, remote: self.remote }
    }
}

/// What told who owns a flow.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum OwnerSource {
    /// The kernel told the cgroup of the socket, and nothing more precise is known; `pid` is 0.
    CgroupOnly,
    /// A program in the kernel remembered who opened the connection, or sent; that process may have ended since.
    Ebpf,
    /// Nobody has a socket for it, and the named process is the only one that sends packets of its own making.
    PacketSocket,
    /// The process has ended; it was remembered from the kernel's reports of processes.
    ProcConnector,
    /// The kernel's list of sockets, and the open files of the process.
    #[default]
    #[serde(rename = "sock_diag")]
    SockDiag,
}

impl fmt::Display for OwnerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CgroupOnly => "cgroup-only",
            Self::Ebpf => "ebpf",
            Self::PacketSocket => "packet-socket",
            Self::ProcConnector => "proc-connector",
            Self::SockDiag => "sock_diag",
        })
    }
}

/// How sure it is that what is told of an owner is true.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Certainty {
    /// It fits, and so may others: for people to read, never for a cut.
    Possible,
    /// Nothing else was found that fits.
    Likely,
    /// The kernel says so.
    #[default]
    Sure,
}

impl fmt::Display for Certainty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Likely => "likely",
            Self::Possible => "possible",
            Self::Sure => "sure",
        })
    }
}

/// The program that owns the inside end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id in the agent's pid namespace; 0 when only the cgroup is known.
    pub pid: i32,
    /// Path of the executable, when readable.
    pub exe: Option<String>,
    /// What it called itself when it opened the connection, where nothing but that is left of it: at most 15 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// cgroup v2 path.
    pub cgroup: Option<String>,
    /// systemd unit, taken from the cgroup path.
    pub unit: Option<String>,
    /// Container id, taken from the cgroup path.
    pub container: Option<String>,
    /// What told it.
    #[serde(default)]
    pub source: OwnerSource,
    /// How sure it is.
    #[serde(default)]
    pub certainty: Certainty,
}

impl Process {
    /// Whether its cgroup or container may be the scope of a cut.
    #[must_use]
    pub const fn may_be_scope(&self) -> bool {
        !matches!(self.certainty, Certainty::Possible)
    }
}

/// Where the remote end is, from the operator's own database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// ISO 3166-1 alpha-2 country code.
    pub country: Option<String>,
    /// Autonomous system number.
    pub asn: Option<u32>,
    /// Name of the autonomous system.
    pub organization: Option<String>,
}

/// What stands behind an indicator.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum IndicatorClass {
    /// A server that defenders took over: who speaks to it is infected.
    Sinkhole,
    /// Somebody hostile.
    #[default]
    Threat,
}

impl IndicatorClass {
    /// Whether it is the usual one.
    #[must_use]
    pub const fn is_threat(&self) -> bool {
        matches!(self, Self::Threat)
    }
}

/// The indicator that was sighted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndicatorRecord {
    /// Its id in the pack or list.
    pub id: String,
    /// The observable, as written by its source.
    pub value: String,
    /// Who says so.
    pub source: String,
    /// 0 to 100.
    pub confidence: u8,
    /// When it ceases to count; `null` for never.
    pub valid_until: Option<Timestamp>,
    /// What stands behind it; left out when it is a threat.
    #[serde(default, skip_serializing_if = "IndicatorClass::is_threat")]
    pub class: IndicatorClass,
    /// Families and campaigns; left out when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

/// One bounded piece of proof: a kind and its facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// `payload`, `name`, `fingerprint`, `cadence`, `volume`, …
    pub kind: String,
    /// The facts, by name.
    #[serde(flatten)]
    pub facts: std::collections::BTreeMap<String, serde_json::Value>,
}

impl Evidence {
    /// Evidence of a kind with these facts.
    #[must_use]
    pub fn new<const N: usize>(kind: &str, facts: [(&str, serde_json::Value); N]) -> Self {
        Self {
            kind: kind.to_owned(),
            facts: facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }
}

/// What policy did with a belief.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Egress was cut.
    Contain,
    /// Nothing is cut for such a finding.
    Record,
    /// A cut was due and withheld.
    Withhold,
}

/// Why a cut was withheld or limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Already contained by an earlier decision.
    AlreadyContained,
    /// The automatic budget is spent.
    Budget,
    /// The host can't hold a cut: the effective mode is below the requested one.
    CannotEnforce,
    /// The mode is dry-run.
    DryRun,
    /// A contained actor tried other ways: it is cut at a higher level.
    Escalated,
    /// The subject is exempt.
    Exemption,
    /// The mode is learn.
    Learn,
    /// The workload behind it is to be cut and not known yet: its destination is cut at once.
    Owner,
    /// The cut is on trial and holds only if it proves itself.
    Trial,
}

/// The decision on a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// What was done.
    pub action: Action,
    /// The scope, in the text form of [`crate::Scope`]; `null` for a mere record.
    pub scope: Option<String>,
    /// Step of the ladder of responses, 0 (observe) to 7 (link).
    pub level: u8,
    /// Why it was withheld; `null` when it was not.
    pub reason: Option<Reason>,
    /// How long the kernel holds the cut; `null` for a mere record.
    pub lease: Option<Span>,
    /// The containment it made or would have made.
    pub containment: Option<crate::ContainmentId>,
}

/// What a person gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// `f-` and a hash of what was found: the same evidence has the same id.
    pub id: String,
    /// Stable detector identifier, such as `plugx.tcp`.
    pub detector: String,
    /// How bad.
    pub grade: Grade,
    /// The detector's statistic, for detectors that have one.
    pub score: Option<f64>,
    /// What it is about.
    pub subject: Subject,
    /// The flow that showed it.
    pub flow: Option<FlowRecord>,
    /// The name the host asked for, where it is known.
    pub name: Option<String>,
    /// The program at the inside end.
    pub process: Option<Process>,
    /// Where the remote end is.
    pub place: Option<Place>,
    /// The indicator sighted.
    pub indicator: Option<IndicatorRecord>,
    /// One sentence in plain English with the numbers that decided.
    pub explanation: String,
    /// Bounded proof.
    pub evidence: Vec<Evidence>,
    /// Number of the frame that completed the evidence, from 1; over all captures of a replay.
    pub frame: u64,
    /// When the first packet of the flow or episode was seen.
    pub first_packet_at: Timestamp,
    /// When the evidence was complete, by the clock of the capture.
    pub matched_at: Timestamp,
    /// What policy did.
    pub decision: DecisionRecord,
    /// `pack@version#id` of the rule.
    pub rule: Option<String>,
    /// Version of the policy in force.
    pub policy: u64,
}
