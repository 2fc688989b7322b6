//! `plugx.tcp`: the PlugX decoder on the first bytes of both directions of every TCP flow.

use super::plugx::{PlugxConstants, PlugxDecoder, PlugxVerdict};
use super::signal::{Signal, SignalKind, Warrant};
use crate::flow::{Appetite, FlowFacts, Observation, Route, Toward};
use crate::learn::Bounded;
use sekisho_schema::{FlowKey, Grade, Transport};

/// Stable identifier of the detector.
pub(crate) const PLUGX_TCP: &str = "plugx.tcp";

/// Flows whose finding is remembered: far more than one host's implants keep open.
const FOUND: usize = 4096;

/// Looks for PlugX in the heads of TCP flows: any port, any route, whoever spoke first, since an
/// infected server also listens.
#[derive(Debug)]
pub(super) struct PlugxFlow {
    decoder: PlugxDecoder,
    warrant: Warrant,
    /// What was found in flows that may still run.
    found: Bounded<FlowKey, Option<SignalKind>>,
}

impl PlugxFlow {
    pub(super) fn new(constants: &PlugxConstants, warrant: Warrant, seed: u64) -> Self {
        let found = Bounded::new(FOUND, seed);
        Self { decoder: PlugxDecoder::new(constants), warrant, found }
    }

    /// Says again what a flow is, when it goes on: the policy may be another by now, and a lease can
    /// end before its flow.
    pub(super) fn observe_more(&self, o: &Observation<'_>, emit: &mut Vec<Signal>) {
        // What is told at a flow's end is no packet.
        if o.at == o.flow.last_at
            && let Some(Some(kind)) = self.found.find(&o.flow.key)
        {
            emit.push(self.signal(o, kind.clone()));
        }
    }

    /// A flow began or ended: what was found on its ports before is over.
    pub(super) fn forget(&mut self, flow: &FlowFacts<'_>) {
        if self.found.find(&flow.key).is_some() {
            self.found.upsert(&flow.key, || None, |_| true).map(Option::take);
        }
    }

    /// The signal of a message. Only the inside end's own words prove an implant: anyone can send such
    /// bytes to an open port, or answer a client with them, and a stranger must not cut a host.
    fn signal(&self, o: &Observation<'_>, kind: SignalKind) -> Signal {
        let stranger = matches!(kind, SignalKind::Plugx { toward: Toward::Local, .. });
        let mut signal = self.warrant.signal(o.at, o.frame, &o.flow, kind);
        if stranger && o.flow.route != Route::Inside {
            signal.grade = signal.grade.min(Grade::Suspect);
        }
        // Between two hosts of the inside there is no outside destination to cut.
        let target = signal.target.filter(|_| o.flow.route != Route::Inside);
        Signal { target, ..signal }
    }

    /// Whether a message only answers what the inside end said itself, or only echoes what a stranger
    /// said: a message of its own has a key of its own.
    fn says_nothing_new(&self, o: &Observation<'_>, toward: Toward, bytes: &[u8; 16]) -> bool {
        match self.found.find(&o.flow.key) {
            Some(Some(SignalKind::Plugx { toward: before, header, .. })) => {
                match (before, toward) {
                    (Toward::Remote, Toward::Local) => true,
                    (Toward::Local, Toward::Remote) => header == bytes,
                    (Toward::Local, Toward::Local) | (Toward::Remote, Toward::Remote) => false,
                }
            }
            _ => false,
        }
    }

    pub(super) fn observe_head(
        &mut self,
        o: &Observation<'_>,
        toward: Toward,
        bytes: &[u8],
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        if o.flow.key.transport != Transport::Tcp {
            return Appetite::Enough;
        }
        match self.decoder.examine(bytes) {
            PlugxVerdict::NeedMore => Appetite::More,
            PlugxVerdict::No => Appetite::Enough,
            PlugxVerdict::Match(matched) => {
                let header = bytes.first_chunk::<16>().copied().unwrap_or_default();
                if self.says_nothing_new(o, toward, &header) {
                    return Appetite::Enough;
                }
                let kind = SignalKind::Plugx {
                    matched,
                    cipher: self.decoder.cipher_id(matched.cipher).to_owned(),
                    toward,
                    header,
                    present: bytes.len().saturating_sub(header.len()).min(matched.size.into()),
                };
                if let Some(found) = self.found.upsert(&o.flow.key, || None, |_| true) {
                    *found = Some(kind.clone());
                }
                emit.push(self.signal(o, kind));
                Appetite::Enough
            }
        }
    }
}
