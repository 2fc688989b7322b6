//! Flows between the inside and the outside, as they end: what a preview of a cut is made from.

use crate::flow::{FlowFacts, Route};
use sekisho_schema::finding::Direction;
use sekisho_schema::{FlowKey, Timestamp};

/// Flows that may wait to be taken; more are counted and forgotten.
const WAITING: usize = 65_536;

/// A flow between the inside and the outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowEnd {
    /// Its ends.
    pub key: FlowKey,
    /// Who spoke first.
    pub direction: Direction,
    /// When its first packet was seen.
    pub first_at: Timestamp,
    /// When its last packet so far was seen.
    pub last_at: Timestamp,
    /// Payload bytes toward the outside.
    pub bytes_out: u64,
    /// Payload bytes toward the inside.
    pub bytes_in: u64,
    /// The name that the inside end asked for, as far as DNS told.
    pub name: Option<String>,
}

impl FlowEnd {
    /// What is told of a flow; `None` for one that never leaves the inside.
    #[must_use]
    pub fn of(flow: &FlowFacts<'_>) -> Option<Self> {
        (flow.route == Route::Egress).then(|| Self {
            key: flow.key,
            direction: flow.direction,
            first_at: flow.first_at,
            last_at: flow.last_at,
            bytes_out: flow.bytes_out,
            bytes_in: flow.bytes_in,
            name: flow.bound_name.map(str::to_owned),
        })
    }
}

/// Flows that ended since they were last taken.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    is_wanted: bool,
    flows: Vec<FlowEnd>,
    lost: u64,
}

impl Ended {
    /// Begins to remember; nothing is before.
    pub(crate) const fn want(&mut self) {
        self.is_wanted = true;
    }

    #[inline]
    pub(crate) fn note(&mut self, flow: &FlowFacts<'_>) {
        if !self.is_wanted {
            return;
        }
        if self.flows.len() >= WAITING {
            self.lost += 1;
            return;
        }
        self.flows.extend(FlowEnd::of(flow));
    }

    /// What ended, and how many flows were forgotten because nobody took them.
    pub(crate) fn take(&mut self) -> (Vec<FlowEnd>, u64) {
        (std::mem::take(&mut self.flows), std::mem::take(&mut self.lost))
    }
}
