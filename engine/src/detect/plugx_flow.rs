//! `plugx.tcp`: the PlugX decoder on the first bytes of both directions of every TCP flow.
//!
//! A message may also begin at one of the next segments: behind a preamble that nobody reads, or
//! where the flow was picked up in the middle. Of a stream that is not known for another protocol
//! the starts of the first four segments are examined, but of a service's answers only the first. In a flow that was found, the headers that
//! follow are read on, so that theft is named when it begins.

mod starts;

use self::starts::{Next, Starts};
use super::plugx::{PlugxConstants, PlugxDecoder, PlugxMatch, PlugxVerdict};
use super::signal::{Signal, SignalKind, Warrant};
use crate::flow::{Appetite, FlowFacts, Observation, Route, Toward};
use crate::learn::Bounded;
use sekisho_schema::finding::Direction;
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
    found: Bounded<FlowKey, Option<Found>>,
    /// Where the next message of a direction may begin.
    starts: Starts,
}

/// A message, and what lessens its worth.
#[derive(Clone, Debug)]
struct Found {
    kind: SignalKind,
    grade: Grade,
    doubt: Option<&'static str>,
}

/// Says what a signal is worth, given who may only pass words on.
type Weigh<'a> = dyn FnMut(&mut Signal) + 'a;

impl PlugxFlow {
    pub(super) fn new(constants: &PlugxConstants, warrant: Warrant, seed: u64) -> Self {
        let found = Bounded::new(FOUND, seed);
        let starts = Starts::new(seed);
        Self { decoder: PlugxDecoder::new(constants), warrant, found, starts }
    }

    /// Directions whose later segments could not be examined because others had begun.
    pub(super) const fn evicted(&self) -> u64 {
        self.starts.evicted()
    }

    /// Says again what a flow is, when it goes on: the policy may be another by now, and a lease can
    /// end before its flow.
    pub(super) fn observe_more(&self, o: &Observation<'_>, emit: &mut Vec<Signal>) {
        // What is told at a flow's end is no packet.
        if o.at == o.flow.last_at
            && !self.found.is_empty()
            && let Some(Some(found)) = self.found.find(&o.flow.key)
        {
            let signal = self.signal(o, found.kind.clone());
            let grade = signal.grade.min(found.grade);
            emit.push(Signal { grade, doubt: found.doubt, ..signal });
        }
    }

    /// A flow began or ended: what was found on its ports before is over.
    pub(super) fn forget(&mut self, flow: &FlowFacts<'_>) {
        if !self.found.is_empty() && self.found.find(&flow.key).is_some() {
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
            Some(Some(Found {
                kind: SignalKind::Plugx { toward: before, header, .. }, ..
            })) => match (before, toward) {
                (Toward::Remote, Toward::Local) => true,
                (Toward::Local, Toward::Remote) => header == bytes,
                (Toward::Local, Toward::Local) | (Toward::Remote, Toward::Remote) => false,
            },
            _ => false,
        }
    }

    pub(super) fn observe_head(
        &mut self,
        o: &Observation<'_>,
        (toward, bytes): (Toward, &[u8]),
        weigh: &mut Weigh<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        if o.flow.key.transport != Transport::Tcp {
            return Appetite::Enough;
        }
        let at = match self.starts.next(&o.flow, toward, bytes) {
            Next::First => 0,
            Next::Nowhere => return Appetite::Enough,
            Next::Unknown(at) => at,
            Next::Follows(at, before) => {
                return self.read_on(o, (toward, bytes), (at, &before), weigh, emit);
            }
        };
        let message = bytes.get(at..).unwrap_or_default();
        match self.decoder.examine(message) {
            PlugxVerdict::NeedMore => Appetite::More,
            // A service that answers strangers may hand back what one of them sent before.
            PlugxVerdict::No
                if toward == Toward::Remote && o.flow.direction == Direction::Inbound =>
            {
                Appetite::Enough
            }
            PlugxVerdict::No => self.starts.try_later(&o.flow, toward, bytes),
            PlugxVerdict::Match(matched) => {
                let header = message.first_chunk::<16>().copied().unwrap_or_default();
                if self.says_nothing_new(o, toward, &header) {
                    self.starts.finish(&o.flow, toward, bytes);
                    return Appetite::Enough;
                }
                let present = message.len().saturating_sub(header.len()).min(matched.size.into());
                let kind = self.kind(toward, matched, (header, present));
                self.tell(o, kind, weigh, emit);
                if toward == Toward::Local || PlugxDecoder::is_theft(matched.command) {
                    self.starts.finish(&o.flow, toward, bytes);
                    return Appetite::Enough;
                }
                self.read_on(o, (toward, bytes), (matched.end(at), &matched), weigh, emit)
            }
        }
    }

    /// Reads the headers that follow a message of the inside end, until one of them is theft.
    fn read_on(
        &mut self,
        o: &Observation<'_>,
        (toward, bytes): (Toward, &[u8]),
        (mut at, first): (usize, &PlugxMatch),
        weigh: &mut Weigh<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        while let Some(header) = bytes.get(at..).and_then(|rest| rest.first_chunk::<16>()) {
            let Some(matched) = self.decoder.examine_next(first, header) else {
                self.starts.finish(&o.flow, toward, bytes);
                return Appetite::Enough;
            };
            if PlugxDecoder::is_theft(matched.command) {
                let present = (bytes.len() - at).saturating_sub(16).min(matched.size.into());
                self.starts.finish(&o.flow, toward, bytes);
                let kind = self.kind(toward, matched, (*header, present));
                self.tell(o, kind, weigh, emit);
                return Appetite::Enough;
            }
            at = matched.end(at);
        }
        self.starts.follow(&o.flow, toward, bytes, (at, *first));
        Appetite::More
    }

    fn kind(
        &self,
        toward: Toward,
        matched: PlugxMatch,
        (header, present): ([u8; 16], usize),
    ) -> SignalKind {
        let cipher = self.decoder.cipher_id(matched.cipher).to_owned();
        SignalKind::Plugx { matched, cipher, toward, header, present }
    }

    fn tell(
        &mut self,
        o: &Observation<'_>,
        kind: SignalKind,
        weigh: &mut Weigh<'_>,
        emit: &mut Vec<Signal>,
    ) {
        let mut signal = self.signal(o, kind.clone());
        weigh(&mut signal);
        if let Some(found) = self.found.upsert(&o.flow.key, || None, |_| true) {
            *found = Some(Found { kind, grade: signal.grade, doubt: signal.doubt });
        }
        emit.push(signal);
    }
}
