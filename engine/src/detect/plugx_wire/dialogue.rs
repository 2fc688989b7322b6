//! Who said a PlugX message in a flow before: what only answers or echoes it says nothing new.

use crate::flow::{FlowFacts, Toward};
use crate::learn::Bounded;
use sekisho_schema::{FlowKey, Timestamp};

/// Flows whose last message is remembered: far more than one host's implants keep open.
const FLOWS: usize = 4096;
/// Bytes that tell one message from another: a message of its own has a key of its own.
const HEADER_LEN: usize = 16;

#[derive(Debug)]
struct Said {
    /// Tells the flow from an earlier one on the same ports.
    first_at: Timestamp,
    toward: Toward,
    header: [u8; HEADER_LEN],
}

/// Remembers one message for each flow that showed any.
#[derive(Debug)]
pub(super) struct Dialogue {
    said: Bounded<FlowKey, Option<Said>>,
}

impl Dialogue {
    pub(super) fn new(seed: u64) -> Self {
        Self { said: Bounded::new(FLOWS, seed) }
    }

    pub(super) const fn evicted(&self) -> u64 {
        self.said.evicted()
    }

    /// Notes a message; returns whether it says more than the one before it: not a mere answer to the
    /// inside end's own word, and not the echo of a stranger's.
    pub(super) fn is_news(
        &mut self,
        flow: &FlowFacts<'_>,
        toward: Toward,
        header: [u8; HEADER_LEN],
    ) -> bool {
        let Some(place) = self.said.upsert(&flow.key, || None, |_| true) else { return true };
        if let Some(before) = place.as_ref().filter(|before| before.first_at == flow.first_at) {
            match (before.toward, toward) {
                (Toward::Remote, Toward::Local) => return false,
                (Toward::Local, Toward::Remote) if before.header == header => return false,
                _ => {}
            }
        }
        *place = Some(Said { first_at: flow.first_at, toward, header });
        true
    }
}
