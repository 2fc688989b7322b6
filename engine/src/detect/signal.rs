//! A signal: one detector's opinion, with the facts that made it.

use super::indicator_set::Kind;
use super::plugx::PlugxMatch;
use super::registry::Weight;
use crate::flow::{FlowFacts, NameSource, Route, Toward};
use crate::learn::Remote;
use sekisho_schema::finding::Direction;
use sekisho_schema::{Evidence, FlowKey, Grade, IndicatorRecord, Timestamp};
use std::net::IpAddr;

/// Where an indicator was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighted {
    /// The address that a DNS answer gave for the name.
    Answer,
    /// The name that was last resolved to the address that is spoken to.
    Bound,
    /// The certificate that the server presented.
    Certificate,
    /// The address at the other end, or address and port.
    Endpoint,
    /// A fingerprint of the client's hello, of this kind.
    Fingerprint(Kind),
    /// A name read in the flow itself.
    Name(NameSource),
    /// A DNS question.
    Query,
    /// What an HTTP request asked for.
    Url,
    /// The User-Agent of an HTTP request.
    UserAgent,
}

/// What a detector saw.
#[derive(Clone, Debug, PartialEq)]
pub enum SignalKind {
    /// More was sent to one unapproved destination than the policy allows.
    Allowance {
        /// The destination.
        destination: Remote,
        /// Payload bytes toward it within seven days.
        bytes: u64,
        /// Payload bytes that the policy allows.
        allowed: u64,
        /// When it was first spoken to.
        first_seen: Timestamp,
    },
    /// More was sent to all unapproved destinations within a day than the policy allows.
    HostBudget {
        /// Payload bytes within the day.
        bytes: u64,
        /// Payload bytes that the policy allows.
        allowed: u64,
    },
    /// A wire detector recognised what it looks for.
    Pattern(Box<Pattern>),
    /// A PlugX message header deciphered and agreed with itself.
    Plugx {
        /// What was deciphered.
        matched: PlugxMatch,
        /// The name of the cipher setting.
        cipher: String,
        /// The way it travelled.
        toward: Toward,
        /// The message header as it was on the wire.
        header: [u8; 16],
        /// Bytes of the body that were there to be checked.
        present: usize,
    },
    /// The learning stage saw something of an episode.
    Scored(Box<Scored>),
    /// An indicator was seen.
    Sighting(Sighted),
}

/// What the learning stage saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The destination; `None` where it is about the inside host as a whole.
    pub about: Option<String>,
    /// The statistic.
    pub score: f64,
    /// One sentence in plain English with the numbers that decided, in which `{host}` stands for the inside end.
    pub told: String,
    /// Bounded proof.
    pub evidence: Vec<Evidence>,
}

/// What a wire detector recognised.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    /// One sentence in plain English with the numbers that decided, in which `{host}` stands for the
    /// inside end and `{remote}` for the outside end.
    pub told: String,
    /// Bounded proof.
    pub evidence: Vec<Evidence>,
}

/// One detector's opinion.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// Stable detector identifier.
    pub detector: &'static str,
    /// How bad the detector believes it to be.
    pub grade: Grade,
    /// Whether it may cut.
    pub weight: Weight,
    /// `pack@version#id` of the rule behind it.
    pub rule: Option<String>,
    /// When the evidence was complete.
    pub at: Timestamp,
    /// The frame that completed it.
    pub frame: u64,
    /// When the first packet of the flow or episode was seen.
    pub first_at: Timestamp,
    /// The flow that showed it.
    pub flow: FlowKey,
    /// Who spoke first in it.
    pub direction: Direction,
    /// Where it runs.
    pub route: Route,
    /// The outside address that a cut of the destination would cut, where it is known.
    pub target: Option<IpAddr>,
    /// The name spoken to or asked for.
    pub name: Option<String>,
    /// The indicator sighted.
    pub indicator: Option<IndicatorRecord>,
    /// What was seen.
    pub kind: SignalKind,
    /// Why it is worth less than its kind, as a clause in which "it" is who said it.
    pub doubt: Option<&'static str>,
}

impl Signal {
    /// The detector's statistic, where it has one.
    #[must_use]
    pub fn score(&self) -> Option<f64> {
        match &self.kind {
            SignalKind::Scored(scored) => Some(scored.score),
            _ => None,
        }
    }
}

/// What a rule lends to the signals of a detector.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Warrant {
    pub(super) detector: &'static str,
    pub(super) grade: Grade,
    pub(super) rule: Option<String>,
    pub(super) weight: Weight,
}

impl Warrant {
    /// A signal on the remote end of the observed flow.
    pub(super) fn signal(
        &self,
        at: Timestamp,
        frame: u64,
        flow: &FlowFacts<'_>,
        kind: SignalKind,
    ) -> Signal {
        Signal {
            detector: self.detector,
            grade: self.grade,
            weight: self.weight,
            rule: self.rule.clone(),
            at,
            frame,
            first_at: flow.first_at,
            flow: flow.key,
            direction: flow.direction,
            route: flow.route,
            target: Some(flow.key.remote.ip()),
            name: flow.bound_name.map(str::to_owned),
            indicator: None,
            kind,
            doubt: None,
        }
    }
}
