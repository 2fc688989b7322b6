//! The first segments of flows that were joined in their middle, for a short while: a live capture by
//! two sockets may show a segment before the SYN and before the segments between them.

use super::entry::Tuple;
use super::observation::Toward;

/// Segments kept; so many flows can be joined in their middle while one SYN is late.
const MOST: usize = 64;
/// Bytes kept of a segment.
const LONGEST: usize = 4096;

struct Slot {
    tuple: Tuple,
    toward: Toward,
    seq: u32,
    bytes: Vec<u8>,
}

/// A ring of segments; the newest takes the place of the oldest.
#[derive(Default)]
pub(super) struct Early {
    slots: Vec<Slot>,
    oldest: usize,
}

impl Early {
    pub(super) fn keep(&mut self, tuple: Tuple, toward: Toward, seq: u32, payload: &[u8]) {
        if payload.len() > LONGEST {
            return;
        }
        if self.slots.len() < MOST {
            self.slots.push(Slot { tuple, toward, seq, bytes: payload.to_vec() });
            return;
        }
        if let Some(slot) = self.slots.get_mut(self.oldest) {
            (slot.tuple, slot.toward, slot.seq) = (tuple, toward, seq);
            slot.bytes.clear();
            slot.bytes.extend_from_slice(payload);
        }
        self.oldest = (self.oldest + 1) % MOST;
    }

    /// Takes what was kept of one direction, in the order that it was shown.
    pub(super) fn take(&mut self, tuple: &Tuple, toward: Toward) -> Vec<(u32, Vec<u8>)> {
        let oldest = self.oldest.min(self.slots.len());
        let (newer, older) = self.slots.split_at_mut(oldest);
        older
            .iter_mut()
            .chain(newer)
            .filter(|slot| slot.tuple == *tuple && slot.toward == toward && !slot.bytes.is_empty())
            .map(|slot| (slot.seq, std::mem::take(&mut slot.bytes)))
            .collect()
    }
}
