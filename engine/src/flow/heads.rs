//! Held first bytes of streams that somebody waits for more of; bounded in number and length.

use super::fifo::{Fifo, NOWHERE};
use super::observation::Toward;

/// A buffer that grew beyond this is freed with its head instead of kept for the next.
const KEPT_CAPACITY: usize = 4096;

#[derive(Clone, Debug, Default)]
struct Head {
    /// The flow's place and the direction; `None` for a free place.
    owner: Option<(u32, Toward)>,
    bytes: Vec<u8>,
}

/// Heads by place; when there are too many, the oldest gives way.
pub(super) struct Heads {
    fifo: Fifo<Head>,
    most: usize,
    /// Bytes held per head at most.
    pub(super) limit: usize,
}

impl Heads {
    pub(super) const fn new(most: usize, limit: usize) -> Self {
        Self { fifo: Fifo::new(), most, limit }
    }

    /// Whether a place still holds this owner's bytes: it may have given way since.
    pub(super) fn is_held(&self, at: u32, owner: (u32, Toward)) -> bool {
        at != NOWHERE && self.fifo.item(at).is_some_and(|head| head.owner == Some(owner))
    }

    /// Begins to hold bytes; returns the place and whether another head had to give way.
    pub(super) fn hold(&mut self, owner: (u32, Toward), bytes: &[u8]) -> (u32, bool) {
        let full = self.fifo.len() >= self.most.max(1);
        if full && let Some(oldest) = self.fifo.oldest() {
            self.free(oldest);
        }
        let at = self.fifo.take();
        if let Some(head) = self.fifo.item_mut(at) {
            head.owner = Some(owner);
            head.bytes.extend_from_slice(bytes.get(..self.limit).unwrap_or(bytes));
        }
        (at, full)
    }

    /// Appends as much as the limit allows.
    pub(super) fn append(&mut self, at: u32, bytes: &[u8]) {
        let limit = self.limit;
        if let Some(head) = self.fifo.item_mut(at) {
            let room = limit.saturating_sub(head.bytes.len());
            head.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        }
    }

    /// Lends the bytes out, so that they can be told while the heads change; [`Heads::put_back`] ends it.
    pub(super) fn lend(&mut self, at: u32) -> Vec<u8> {
        self.fifo.item_mut(at).map(|head| std::mem::take(&mut head.bytes)).unwrap_or_default()
    }

    pub(super) fn put_back(&mut self, at: u32, bytes: Vec<u8>) {
        if let Some(head) = self.fifo.item_mut(at) {
            head.bytes = bytes;
        }
    }

    /// Gives up a head, if it still is this owner's.
    pub(super) fn release(&mut self, at: u32, owner: (u32, Toward)) {
        if self.is_held(at, owner) {
            self.free(at);
        }
    }

    fn free(&mut self, at: u32) {
        if let Some(head) = self.fifo.item_mut(at) {
            head.owner = None;
            if head.bytes.capacity() > KEPT_CAPACITY {
                head.bytes = Vec::new();
            } else {
                head.bytes.clear();
            }
        }
        self.fifo.give_back(at);
    }
}
