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
    /// Bytes of all heads, and the most of them.
    bytes: usize,
    most_bytes: usize,
    /// Bytes held per head at most.
    pub(super) limit: usize,
}

impl Heads {
    pub(super) const fn new(most: usize, limit: usize, most_bytes: usize) -> Self {
        Self { fifo: Fifo::new(), most, bytes: 0, most_bytes, limit }
    }

    /// The same without any head.
    pub(super) const fn emptied(&self) -> Self {
        Self::new(self.most, self.limit, self.most_bytes)
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
            self.bytes += head.bytes.len();
        }
        (at, full)
    }

    /// Appends as much as the limit allows; returns how many other heads had to give way.
    pub(super) fn append(&mut self, at: u32, bytes: &[u8]) -> u64 {
        let limit = self.limit;
        if let Some(head) = self.fifo.item_mut(at) {
            let room = limit.saturating_sub(head.bytes.len());
            let fits = bytes.get(..room).unwrap_or(bytes);
            head.bytes.extend_from_slice(fits);
            self.bytes += fits.len();
        }
        let mut evicted = 0;
        while self.bytes > self.most_bytes && self.fifo.len() > 1 {
            if self.fifo.oldest() == Some(at) {
                self.fifo.renew(at);
            }
            let Some(oldest) = self.fifo.oldest() else { break };
            self.free(oldest);
            evicted += 1;
        }
        evicted
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
            self.bytes = self.bytes.saturating_sub(head.bytes.len());
            if head.bytes.capacity() > KEPT_CAPACITY {
                head.bytes = Vec::new();
            } else {
                head.bytes.clear();
            }
        }
        self.fifo.give_back(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_heads_give_way_before_they_fill_the_memory() {
        let mut heads = Heads::new(100, 400, 1000);
        let places: Vec<u32> =
            (0..5).map(|n| heads.hold((n, Toward::Remote), &[1; 100]).0).collect();
        let held = |heads: &Heads| {
            let owner = |n: usize| (n as u32, Toward::Remote);
            (0..5).filter(|n| heads.is_held(places[*n], owner(*n))).collect::<Vec<_>>()
        };
        assert_eq!(heads.append(places[0], &[1; 900]), 0);
        assert_eq!((heads.bytes, held(&heads)), (800, vec![0, 1, 2, 3, 4]));
        assert_eq!(heads.append(places[1], &[1; 250]), 1);
        assert_eq!((heads.bytes, held(&heads)), (650, vec![1, 2, 3, 4]));
        assert_eq!(heads.append(places[1], &[1; 250]), 0);
        assert_eq!(heads.append(places[2], &[1; 300]), 0);
        assert_eq!(heads.append(places[3], &[1; 100]), 1);
        assert_eq!((heads.bytes, held(&heads)), (700, vec![2, 3, 4]));
        for (n, place) in (0..).zip(&places) {
            heads.release(*place, (n, Toward::Remote));
        }
        assert_eq!(heads.bytes, 0);
    }
}
