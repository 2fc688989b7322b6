//! The journal's lines: one envelope, several bodies (contract: `sekisho.event/1`).

use crate::containment::{Containment, ContainmentId, Receipt, Scope};
use crate::finding::Finding;
use crate::net::Transport;
use crate::policy::Mode;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Name and version of the event schema.
pub const EVENT_SCHEMA: &str = "sekisho.event/1";

/// A line of the journal, of a replay, of an upload and of the API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// [`EVENT_SCHEMA`].
    pub schema: String,
    /// Counts from 1 without gaps within one boot of the agent, or one replay.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// The host it happened on.
    pub host: String,
    /// What happened; `type` names it.
    #[serde(flatten)]
    pub body: Body,
}

/// What the engine has to say: a time and a body. The journal adds sequence and host.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// When it happened, by the clock of the capture.
    pub at: Timestamp,
    /// What happened.
    pub body: Body,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Body {
    /// Learning moved: what is known now.
    Baseline(BaselineState),
    /// A containment began or was adopted from the kernel.
    Containment(Box<Containment>),
    /// What this host can see and cut, and what not.
    Coverage(CoverageReport),
    /// A rehearsal ended.
    Drill(DrillReport),
    /// Frames and processes kept for a finding.
    Evidence(Box<EvidenceFile>),
    /// Something to look at.
    Finding(Box<Finding>),
    /// Sight or records were lost.
    Gap(Gap),
    /// The mode changed, or can't be what was asked for.
    Mode(ModeChange),
    /// A policy was adopted or refused.
    Policy(PolicyChange),
    /// What a cut would have refused in the last days.
    Preview(Box<Preview>),
    /// What the kernel holds.
    Receipt(Box<Receipt>),
    /// A containment ended.
    Release(Release),
    /// The end of a replay.
    Summary(Summary),
}

/// What learning knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BaselineState {
    /// Destinations in the baseline.
    pub destinations: u64,
    /// Hours of traffic learned.
    pub hours: f64,
    /// Whether it may be believed.
    pub mature: bool,
}

/// What this host can see and cut.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CoverageReport {
    /// Paths a cut does not close, by name.
    pub uncovered: Vec<String>,
    /// Facts by name: kernel features, interfaces, scheduling.
    pub facts: BTreeMap<String, String>,
}

/// A rehearsal's outcome.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DrillReport {
    /// Its name.
    pub name: String,
    /// Whether it held.
    pub passed: bool,
    /// One sentence.
    pub detail: String,
    /// Who or what began it: a person, or `schedule`.
    pub by: Option<String>,
    /// First packet of the rehearsed intruder to the match, in nanoseconds.
    pub time_to_detect_ns: Option<i64>,
    /// The deciding frame to the kernel's acknowledgement, in nanoseconds.
    pub time_to_contain_ns: Option<i64>,
    /// Bytes of the rehearsed theft that left after the match.
    pub leaked_bytes: u64,
    /// What was checked, by name: `ok`, or what was amiss.
    pub checks: BTreeMap<String, String>,
}

/// Frames and processes kept for a finding: a pcapng file on the host, and who was behind the flow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvidenceFile {
    /// The finding.
    pub finding: String,
    /// The containment that it led to; `null` when nothing was cut.
    pub containment: Option<ContainmentId>,
    /// Name of the file in the agent's directory of evidence.
    pub file: String,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// Frames in it: about the remote end, before and at the match.
    pub frames: u64,
    /// Frames between the oldest and the newest that were too many for it.
    pub left_out: u64,
    /// Time of its first frame; `null` when no frame was kept.
    pub first_at: Option<Timestamp>,
    /// Time of its last frame.
    pub last_at: Option<Timestamp>,
    /// The process behind the flow, then its parents.
    pub processes: Vec<Ancestor>,
}

/// A process behind a flow, or one of its parents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// Process id.
    pub pid: i32,
    /// The kernel's name of it, at most 15 bytes.
    pub name: String,
    /// Path of the executable, when readable.
    pub exe: Option<String>,
    /// Its arguments, at most 512 bytes.
    pub command: String,
    /// The user it runs as.
    pub uid: Option<u32>,
}

/// What a cut would have refused, told from recorded flows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Preview {
    /// What would be cut.
    pub scope: String,
    /// The containment that it was made for; `null` for a person's question.
    pub containment: Option<ContainmentId>,
    /// From when flows were looked at.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// Hours within that time of which flows are recorded.
    pub hours: u64,
    /// Whether every flow of that time was recorded with both of its ends.
    pub complete: bool,
    /// Flows that would have been refused.
    pub refused_flows: u64,
    /// Payload bytes toward the outside that would have been refused.
    pub refused_bytes_out: u64,
    /// Flows that would have gone on.
    pub kept_flows: u64,
    /// Payload bytes toward the outside that would have gone on.
    pub kept_bytes_out: u64,
    /// The services and peers refused, those with the most bytes first.
    pub lines: Vec<PreviewLine>,
    /// Services and peers that are not in the list.
    pub lines_left_out: u64,
}

/// One service or peer that a cut would have refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PreviewLine {
    /// `service` (outsiders spoke first) or `peer` (the inside did).
    pub what: String,
    /// Transport.
    pub transport: Transport,
    /// The service's own port, or the peer's.
    pub port: Option<u16>,
    /// The peer's address; `null` for a service.
    pub remote: Option<String>,
    /// Clients of a service, or 1.
    pub clients: u64,
    /// A name that was asked for.
    pub name: Option<String>,
    /// Workloads that were seen to hold such a flow, by cgroup path.
    pub workloads: BTreeSet<String>,
    /// How many flows.
    pub flows: u64,
    /// Payload bytes toward the outside.
    pub bytes_out: u64,
    /// Payload bytes toward the inside.
    pub bytes_in: u64,
    /// When the first packet was seen.
    pub first_at: Timestamp,
    /// When the last packet was seen.
    pub last_at: Timestamp,
}

/// Loss of sight or of records.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// `capture-drop`, `unparsed`, `table-full`, `clock-step`, `journal`; `not-applied`, `drift`; for whoever
    /// is on duty: `fuse` (the automatic budget is spent), `trial` (a cut of a host was let go unconfirmed);
    /// `workload` (whose workload was to be cut is not known).
    pub cause: String,
    /// How many frames or records.
    pub count: u64,
    /// One sentence.
    pub detail: String,
}

/// The mode asked for and the mode in effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModeChange {
    /// What policy asks.
    pub requested: Mode,
    /// What this host does.
    pub effective: Mode,
    /// Why they differ; `null` when they don't.
    pub why: Option<String>,
}

/// A policy adopted or refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyChange {
    /// Version of the policy this is about; 0 when it could not be read.
    pub version: u64,
    /// `adopted`, `refused` or `frozen` (expired, still in force).
    pub outcome: String,
    /// Why it was refused.
    pub why: Option<String>,
    /// Version in force now.
    pub in_force: u64,
}

/// How a containment ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// Which one.
    pub containment: ContainmentId,
    /// What it had cut.
    pub scope: Scope,
    /// `expired`, `trial` (nobody confirmed it), `escalated`, `exempt`, `order`, `break-glass` or `failed`.
    pub cause: String,
    /// Who released it; `null` when the lease ended.
    pub by: Option<String>,
    /// Why, in the person's words.
    pub reason: Option<String>,
}

/// The end of a replay: what was read and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Frames read.
    pub frames: u64,
    /// Bytes on the wire.
    pub bytes: u64,
    /// Frames not parsed, by reason.
    pub unparsed: BTreeMap<String, u64>,
    /// Flows seen.
    pub flows: u64,
    /// Findings by detector.
    pub findings: BTreeMap<String, u64>,
    /// Containments decided or withheld.
    pub would_contain: u64,
    /// Time of the first frame.
    pub first_at: Option<Timestamp>,
    /// Time of the last frame.
    pub last_at: Option<Timestamp>,
    /// Frames the kernel dropped before they were read.
    pub dropped: u64,
    /// Bytes of payload that left for the outside.
    pub bytes_out: u64,
    /// Entries evicted from bounded tables, by table.
    pub evicted: BTreeMap<String, u64>,
}

impl Envelope {
    /// The line for a record.
    #[must_use]
    pub fn new(seq: u64, host: &str, record: Record) -> Self {
        Self {
            schema: EVENT_SCHEMA.to_owned(),
            seq,
            at: record.at,
            host: host.to_owned(),
            body: record.body,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_carries_the_common_keys_first_and_reads_back() {
        let record = Record {
            at: Timestamp::EPOCH,
            body: Body::Gap(Gap {
                cause: "capture-drop".into(),
                count: 3,
                detail: "three frames".into(),
            }),
        };
        let line = Envelope::new(7, "web-1", record);
        let text = serde_json::to_string(&line).unwrap();
        assert!(text.starts_with(r#"{"schema":"sekisho.event/1","seq":7,"at":"1970-01-01T00:00:00.000000000Z","host":"web-1","type":"gap","#), "{text}");
        assert_eq!(serde_json::from_str::<Envelope>(&text).unwrap(), line);
    }
}
