//! One detector on a stage of its own: observations made by hand.

use super::super::registry::{Setup, Weight, WireDetector};
use super::super::signal::{Signal, SignalKind, Warrant};
use super::super::{Approvals, Outlook};
use super::DETECTORS;
use crate::app::dns::DnsMessage;
use crate::app::http_head::{HeadReading, RequestHead, ResponseHead};
use crate::detect::indicator_set::IndicatorSet;
use crate::detect::plugx::PlugxConstants;
use crate::flow::{Appetite, FlowFacts, Observation, ObservationKind, Perimeter, Route, Toward};
use sekisho_schema::finding::Direction;
use sekisho_schema::pack::DetectorEntry;
use sekisho_schema::{FlowKey, Grade, Mode, Policy, Span, Timestamp, Transport};
use std::collections::BTreeSet;

/// A detector and what it said.
pub(super) struct Scene {
    detector: Box<dyn WireDetector>,
    pub(super) at: Timestamp,
    pub(super) flow: FlowFacts<'static>,
    pub(super) said: Vec<Signal>,
    policy: Policy,
}

impl Scene {
    /// The detector of an identifier with its own settings, asked about a flow to the outside.
    pub(super) fn of(id: &str, transport: Transport) -> Self {
        let registration = DETECTORS.iter().find(|registration| registration.id == id).unwrap();
        let entry = DetectorEntry {
            id: id.to_owned(),
            grade: match registration.weight {
                Weight::Decides => Grade::Malicious,
                Weight::UpTo(_) | Weight::Scores => Grade::Suspect,
            },
            source: "a test".to_owned(),
            settings: Default::default(),
        };
        let warrant = Warrant {
            detector: registration.id,
            grade: entry.grade,
            rule: None,
            weight: registration.weight,
        };
        let plugx = PlugxConstants::default();
        let setup = Setup { entry: &entry, warrant, plugx: &plugx, seed: 5 };
        let at = Timestamp::from_nanos(1_780_000_000_000_000_000);
        let flow = FlowFacts {
            key: FlowKey {
                transport,
                local: "10.0.0.5:41000".parse().unwrap(),
                remote: "203.0.113.9:443".parse().unwrap(),
            },
            route: Route::Egress,
            direction: Direction::Outbound,
            start_seen: true,
            first_at: at,
            last_at: at,
            bytes_out: 0,
            bytes_in: 0,
            overlap: false,
            bound_name: None,
            registered: None,
        };
        Self {
            detector: (registration.build)(&setup).unwrap(),
            at,
            flow,
            said: Vec::new(),
            policy: Policy::built_in(Mode::DryRun),
        }
    }

    pub(super) fn to(mut self, remote: &str) -> Self {
        self.remote(remote);
        self
    }

    pub(super) fn remote(&mut self, remote: &str) {
        self.flow.key.remote = remote.parse().unwrap();
    }

    /// A new flow from another port.
    pub(super) fn anew(&mut self) {
        let port = self.flow.key.local.port();
        self.flow.key.local.set_port(port + 1);
        self.flow.first_at = self.at;
    }

    pub(super) fn wait(&mut self, seconds: i64) {
        self.at = self.at.after(Span::from_secs(seconds));
    }

    pub(super) fn tell(&mut self, kind: ObservationKind<'_>) -> Appetite {
        let approvals = Approvals::new(&self.policy);
        let (indicators, perimeter) = (IndicatorSet::default(), Perimeter::default());
        let own = BTreeSet::new();
        let outlook = Outlook {
            indicators: &indicators,
            policy: &self.policy,
            approvals: &approvals,
            perimeter: &perimeter,
            own: &own,
            keeps_learning: false,
            enforces: true,
        };
        let flow = FlowFacts { last_at: self.at, ..self.flow };
        let o = Observation { at: self.at, frame: 1, flow, kind };
        self.detector.observe(&o, &outlook, &mut self.said)
    }

    pub(super) fn head(&mut self, toward: Toward, bytes: &[u8]) -> Appetite {
        self.tell(ObservationKind::Head { toward, bytes })
    }

    pub(super) fn request(&mut self, toward: Toward, bytes: &[u8]) -> Appetite {
        match RequestHead::parse(bytes) {
            HeadReading::Whole(head) => self.tell(ObservationKind::Request { toward, head: &head }),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn response(&mut self, toward: Toward, bytes: &[u8]) -> Appetite {
        match ResponseHead::parse(bytes) {
            HeadReading::Whole(head) => {
                self.tell(ObservationKind::Response { toward, head: &head })
            }
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn message(&mut self, toward: Toward, bytes: &[u8]) {
        let message = DnsMessage::parse(bytes).unwrap();
        self.tell(ObservationKind::Message { toward, message: &message });
    }

    pub(super) fn echo(&mut self, toward: Toward, request: bool, payload: &[u8]) {
        self.tell(ObservationKind::Echo { toward, request, id: 1, seq: 1, payload });
    }

    /// Grades of what was said so far, which is then forgotten.
    pub(super) fn grades(&mut self) -> Vec<Grade> {
        self.said.drain(..).map(|signal| signal.grade).collect()
    }

    /// The sentence of the last signal.
    pub(super) fn told(&self) -> &str {
        match &self.said.last().expect("something was said").kind {
            SignalKind::Pattern(pattern) => &pattern.told,
            other => panic!("{other:?}"),
        }
    }

    /// A fact of the evidence of the last signal.
    pub(super) fn fact(&self, name: &str) -> serde_json::Value {
        match &self.said.last().expect("something was said").kind {
            SignalKind::Pattern(pattern) => pattern.evidence[0].facts[name].clone(),
            other => panic!("{other:?}"),
        }
    }
}
