//! The finding as a person gets it.

use super::evidence::evidence;
use super::explain::explain;
use crate::contain::short_name;
use crate::detect::{Sighted, Signal, SignalKind};
use sekisho_schema::{
    Action, ContainmentId, DecisionRecord, Finding, FlowRecord, Reason, Scope, Span, Subject,
};
use std::net::IpAddr;

/// Who reports, and under which policy.
#[derive(Clone, Copy, Debug)]
struct Author<'a> {
    host: &'a str,
    /// Whether the inside end is this host itself.
    is_own: bool,
    policy: u64,
}

/// What became of a signal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) contained: bool,
    pub(crate) reason: Option<Reason>,
    /// The cut that was made, or would have been.
    pub(crate) cut: Option<(Scope, u8, Span, ContainmentId)>,
}

impl Outcome {
    fn record(self) -> DecisionRecord {
        let action = match (self.contained, self.reason) {
            (true, _) => Action::Contain,
            (false, None | Some(Reason::AlreadyContained)) => Action::Record,
            (false, Some(_)) => Action::Withhold,
        };
        let reason = self.reason;
        match self.cut {
            None => DecisionRecord {
                action,
                scope: None,
                level: 0,
                reason,
                lease: None,
                containment: None,
            },
            Some((scope, level, lease, id)) => DecisionRecord {
                action,
                scope: Some(scope.to_string()),
                level,
                reason,
                lease: Some(lease),
                containment: Some(id),
            },
        }
    }
}

/// The name of the finding of a signal: the same evidence has the same name.
pub(crate) fn finding_name(signal: &Signal, host: &str) -> String {
    let flow = &signal.flow;
    let parts = [
        host.to_owned(),
        signal.detector.to_owned(),
        flow.transport.to_string(),
        flow.local.to_string(),
        flow.remote.to_string(),
        signal.indicator.as_ref().map(|indicator| indicator.id.clone()).unwrap_or_default(),
        signal.target.map(|target| target.to_string()).unwrap_or_default(),
        signal.at.nanos().to_string(),
    ];
    short_name("f-", parts.iter().map(String::as_str))
}

/// A finding of which nothing is put into words yet.
#[derive(Clone, Debug)]
pub(crate) struct Untold {
    pub(crate) id: String,
    pub(crate) signal: Signal,
    pub(crate) outcome: Outcome,
    /// Whether the inside end is the host of the author.
    pub(crate) is_own: bool,
    pub(crate) policy: u64,
}

impl Untold {
    /// Puts it into words, for this host.
    pub(crate) fn tell(self, host: &str) -> Finding {
        let Self { id, signal, outcome, is_own, policy } = self;
        compose(id, signal, outcome, Author { host, is_own, policy })
    }
}

fn compose(id: String, signal: Signal, outcome: Outcome, author: Author<'_>) -> Finding {
    let inside = author.inside_end(signal.flow.local.ip());
    Finding {
        id,
        detector: signal.detector.to_owned(),
        grade: signal.grade,
        score: signal.score(),
        subject: subject(&signal, &inside),
        flow: Some(FlowRecord::new(&signal.flow, signal.direction)),
        process: None,
        place: None,
        explanation: explain(&signal, &inside),
        evidence: evidence(&signal),
        frame: signal.frame,
        first_packet_at: signal.first_at,
        matched_at: signal.at,
        decision: outcome.record(),
        policy: author.policy,
        name: signal.name,
        indicator: signal.indicator,
        rule: signal.rule,
    }
}

impl Author<'_> {
    fn inside_end(&self, local: IpAddr) -> String {
        if self.is_own { self.host.to_owned() } else { local.to_string() }
    }
}

fn subject(signal: &Signal, inside: &str) -> Subject {
    let flow = &signal.flow;
    let (kind, value) = match &signal.kind {
        SignalKind::Allowance { destination, .. } => ("destination", destination.to_string()),
        SignalKind::Scored(scored) => match &scored.about {
            Some(destination) => ("destination", destination.clone()),
            None => ("host", inside.to_owned()),
        },
        SignalKind::HostBudget { .. } => ("host", inside.to_owned()),
        SignalKind::Pattern(_) | SignalKind::Plugx { .. } => {
            ("flow", format!("{} {} -> {}", flow.transport, flow.local, flow.remote))
        }
        SignalKind::Sighting(Sighted::Query) => {
            ("destination", signal.name.clone().unwrap_or_default())
        }
        SignalKind::Sighting(_) => {
            ("destination", signal.target.unwrap_or(flow.remote.ip()).to_string())
        }
    };
    Subject { kind: kind.to_owned(), value }
}
