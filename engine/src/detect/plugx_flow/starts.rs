//! Where the next message of a stream's direction may begin; a table of fixed size without history.

use crate::detect::plugx::PlugxMatch;
use crate::detect::registry::is_known_stream;
use crate::flow::{Appetite, FlowFacts, Toward};
use ahash::RandomState;
use sekisho_schema::{FlowKey, Timestamp};

/// Directions whose starts are kept at once. Each is needed only while its first segments come.
const PLACES: usize = 1024;
/// Segments whose start is examined, the first included (plugx.md, section 2).
const MESSAGES: u8 = 4;
/// Bytes of a direction among which its later segments are looked at: four full ones.
const WITHIN: usize = 4 * 1460;
/// Bytes that tell a head from another of the same flow.
const OPENING: usize = 8;

#[derive(Clone, Debug)]
struct Start {
    flow: FlowKey,
    /// Tells the flow from an earlier one on the same ports.
    first_at: Timestamp,
    toward: Toward,
    /// Tells a head from the one before it: behind a proxy's preamble a direction begins anew.
    opening: [u8; OPENING],
    at: usize,
    tried: u8,
    /// The message that stands before, in a flow that was found.
    follows: Option<PlugxMatch>,
}

/// Where to look.
pub(super) enum Next {
    /// At the beginning.
    First,
    /// Nowhere: enough of this direction was looked at.
    Nowhere,
    /// Here, where a segment began.
    Unknown(usize),
    /// Here, where the message ends that was found before.
    Follows(usize, PlugxMatch),
}

/// Starts by flow and direction; a place that is taken by another is overwritten.
#[derive(Debug)]
pub(super) struct Starts {
    places: Vec<Option<Start>>,
    hasher: RandomState,
    evicted: u64,
}

impl Starts {
    pub(super) fn new(seed: u64) -> Self {
        let hasher = RandomState::with_seeds(seed, seed.rotate_left(23), seed ^ 0x57A2, !seed);
        Self { places: Vec::new(), hasher, evicted: 0 }
    }

    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Where a head that was told is to be looked at.
    pub(super) fn next(&self, flow: &FlowFacts<'_>, toward: Toward, bytes: &[u8]) -> Next {
        if self.places.is_empty() {
            return Next::First;
        }
        match self.places.get(self.place(flow, toward)) {
            Some(Some(start)) if start.is_of(flow, toward, bytes) => match start.follows {
                Some(before) => Next::Follows(start.at, before),
                None if start.tried >= MESSAGES => Next::Nowhere,
                None => Next::Unknown(start.at),
            },
            _ => Next::First,
        }
    }

    /// What was looked at is no message: notes that one may begin where the next segment does.
    pub(super) fn try_later(
        &mut self,
        flow: &FlowFacts<'_>,
        toward: Toward,
        bytes: &[u8],
    ) -> Appetite {
        let place = self.place(flow, toward);
        let known = self.places.get_mut(place).and_then(Option::as_mut);
        if let Some(start) = known.filter(|start| start.is_of(flow, toward, bytes)) {
            start.tried += 1;
            start.at = bytes.len();
            if start.tried < MESSAGES && bytes.len() < WITHIN {
                return Appetite::More;
            }
            // Kept, as others may ask for more of the same head.
            start.tried = MESSAGES;
            return Appetite::Enough;
        }
        if bytes.len() >= WITHIN || speaks_otherwise(bytes) {
            return Appetite::Enough;
        }
        self.put(flow, toward, bytes, (bytes.len(), None));
        Appetite::More
    }

    /// Notes where the message begins that follows a found one.
    pub(super) fn follow(
        &mut self,
        flow: &FlowFacts<'_>,
        toward: Toward,
        bytes: &[u8],
        (at, before): (usize, PlugxMatch),
    ) {
        self.put(flow, toward, bytes, (at, Some(before)));
    }

    /// A direction of a flow that was found needs no looking at any more.
    pub(super) fn finish(&mut self, flow: &FlowFacts<'_>, toward: Toward, bytes: &[u8]) {
        self.put(flow, toward, bytes, (bytes.len(), None));
        let place = self.place(flow, toward);
        if let Some(start) = self.places.get_mut(place).and_then(Option::as_mut) {
            start.tried = MESSAGES;
        }
    }

    fn put(
        &mut self,
        flow: &FlowFacts<'_>,
        toward: Toward,
        bytes: &[u8],
        (at, follows): (usize, Option<PlugxMatch>),
    ) {
        if self.places.is_empty() {
            self.places.resize(PLACES, None);
        }
        let start = Start {
            flow: flow.key,
            first_at: flow.first_at,
            toward,
            opening: opening(bytes),
            at,
            tried: 1,
            follows,
        };
        let place = self.place(flow, toward);
        if let Some(place) = self.places.get_mut(place) {
            let displaced = place.replace(start);
            let is_other = |other: &Start| {
                other.tried < MESSAGES && (other.flow != flow.key || other.toward != toward)
            };
            self.evicted += u64::from(displaced.as_ref().is_some_and(is_other));
        }
    }

    fn place(&self, flow: &FlowFacts<'_>, toward: Toward) -> usize {
        let side = u64::from(toward == Toward::Local);
        (self.hasher.hash_one((flow.key, side)) as usize) % PLACES
    }
}

impl Start {
    fn is_of(&self, flow: &FlowFacts<'_>, toward: Toward, bytes: &[u8]) -> bool {
        self.toward == toward
            && self.flow == flow.key
            && self.first_at == flow.first_at
            && bytes.len() >= self.at.min(OPENING)
            && self.opening == opening(bytes)
    }
}

fn opening(bytes: &[u8]) -> [u8; OPENING] {
    bytes.first_chunk().copied().unwrap_or_default()
}

/// Whether a stream that is no PlugX begins as one of a known protocol, or as text: then no message
/// follows in it either.
fn speaks_otherwise(bytes: &[u8]) -> bool {
    const LOOKED_AT: usize = 16;
    is_known_stream(bytes)
        // Any TLS record, as one sees it who comes in the middle.
        || matches!(bytes, [0x14..=0x17, 3, 0..=4, ..])
        || bytes
            .iter()
            .take(LOOKED_AT)
            .all(|byte| matches!(byte, b'\t' | b'\r' | b'\n' | 32..=126))
}
