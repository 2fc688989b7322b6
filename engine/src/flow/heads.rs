//! Held first bytes of streams that somebody waits for more of; bounded in number and length.

use super::fifo::{Fifo, NOWHERE};
use super::observation::Toward;
use super::reader::Reader;

/// A buffer that grew beyond this is freed with its head instead of kept for the next.
const KEPT_CAPACITY: usize = 4096;
/// Pieces kept behind holes; honest reordering and loss leave one or two.
const MOST_PIECES: usize = 4;

/// What became of bytes that were placed in a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// Whether the contiguous bytes grew.
    pub(super) grew: bool,
    /// Whether bytes wait behind a hole.
    pub(super) waits: bool,
    /// Whether bytes that were there before said otherwise.
    pub(super) conflict: bool,
    /// Whether there would be more holes than are kept; nothing was placed then.
    pub(super) refused: bool,
    /// How many other heads had to give way.
    pub(super) evicted: u64,
}

/// Half-open, from the first byte of the head.
type Range = (usize, usize);

#[derive(Clone, Debug, Default)]
struct Head {
    /// The flow's place and the direction; `None` for a free place.
    owner: Option<(u32, Toward)>,
    /// The contiguous bytes, and behind them those of the pieces, without the holes.
    bytes: Vec<u8>,
    /// Length of the contiguous bytes.
    whole: usize,
    /// Pieces behind holes, in order; none touches another.
    pieces: [Range; MOST_PIECES],
    pieces_used: usize,
    reader: Reader,
}

impl Head {
    fn pieces(&self) -> &[Range] {
        self.pieces.get(..self.pieces_used).unwrap_or_default()
    }

    /// Writes `data` at `at` wherever nothing is yet, and takes note of it.
    fn place(&mut self, at: usize, data: &[u8]) -> Placed {
        let end = at + data.len();
        let mut placed = Placed {
            grew: false,
            waits: self.pieces_used != 0,
            conflict: false,
            refused: false,
            evicted: 0,
        };
        let old = self.pieces;
        let old = old.get(..self.pieces_used).unwrap_or_default();
        let Some((whole, pieces, used)) = joined(self.whole, old, (at, end)) else {
            placed.refused = true;
            return placed;
        };
        let (mut from, mut stored) = (at, 0);
        for (taken, until) in std::iter::once((0, self.whole)).chain(old.iter().copied()) {
            if until > from && taken < end {
                if taken > from {
                    self.insert(stored, data.get(from - at..taken - at));
                    stored += taken - from;
                    from = taken;
                }
                let until = until.min(end);
                let here = stored + (from - taken);
                let (was, is) = (here..here + (until - from), from - at..until - at);
                placed.conflict |= self.bytes.get(was) != data.get(is);
                from = until;
            }
            if taken >= end {
                break;
            }
            stored += until - taken;
        }
        if from < end {
            self.insert(stored, data.get(from - at..));
        }
        placed.grew = whole != self.whole;
        placed.waits = used != 0;
        (self.whole, self.pieces, self.pieces_used) = (whole, pieces, used);
        placed
    }

    fn insert(&mut self, stored: usize, data: Option<&[u8]>) {
        let stored = stored.min(self.bytes.len());
        self.bytes.splice(stored..stored, data.unwrap_or_default().iter().copied());
    }

    /// Where the bytes of a piece are stored.
    fn stored(&self, piece: Range) -> std::ops::Range<usize> {
        let before = self.pieces().iter().take_while(|other| other.0 < piece.0);
        let from = self.whole + before.map(|(from, until)| until - from).sum::<usize>();
        from..from + (piece.1 - piece.0)
    }
}

/// The ranges with one more; `None` if that makes too many.
fn joined(
    whole: usize,
    pieces: &[Range],
    (mut from, mut until): Range,
) -> Option<(usize, [Range; MOST_PIECES], usize)> {
    let mut out = [(0, 0); MOST_PIECES];
    let mut used = 0;
    let mut push = |range: Range| {
        *out.get_mut(used)? = range;
        used += 1;
        Some(())
    };
    if from <= whole {
        // What reaches the contiguous bytes prolongs them, over every piece that it touches.
        let mut whole = whole.max(until);
        for piece in pieces {
            if piece.0 <= whole {
                whole = whole.max(piece.1);
            } else {
                push(*piece)?;
            }
        }
        return Some((whole, out, used));
    }
    let mut pending = true;
    for piece in pieces {
        if piece.1 < from {
            push(*piece)?;
        } else if piece.0 > until {
            if std::mem::take(&mut pending) {
                push((from, until))?;
            }
            push(*piece)?;
        } else {
            (from, until) = (from.min(piece.0), until.max(piece.1));
        }
    }
    if pending {
        push((from, until))?;
    }
    Some((whole, out, used))
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

    #[cfg(test)]
    pub(super) const fn held_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a place still holds this owner's bytes: it may have given way since.
    pub(super) fn is_held(&self, at: u32, owner: (u32, Toward)) -> bool {
        at != NOWHERE && self.fifo.item(at).is_some_and(|head| head.owner == Some(owner))
    }

    /// Begins to hold bytes; returns the place and how many other heads had to give way.
    pub(super) fn hold(
        &mut self,
        owner: (u32, Toward),
        bytes: &[u8],
        reader: Reader,
    ) -> (u32, u64) {
        let full = self.fifo.len() >= self.most.max(1);
        if full && let Some(oldest) = self.fifo.oldest() {
            self.free(oldest);
        }
        let at = self.fifo.take();
        if let Some(head) = self.fifo.item_mut(at) {
            head.owner = Some(owner);
            head.bytes.extend_from_slice(bytes.get(..self.limit).unwrap_or(bytes));
            (head.whole, head.pieces_used, head.reader) = (head.bytes.len(), 0, reader);
            self.bytes += head.bytes.len();
        }
        (at, u64::from(full) + self.make_room(at))
    }

    /// Appends as much as the limit allows to a head without pieces; returns how many other heads had to give way.
    pub(super) fn append(&mut self, at: u32, bytes: &[u8]) -> u64 {
        let limit = self.limit;
        if let Some(head) = self.fifo.item_mut(at) {
            let room = limit.saturating_sub(head.bytes.len());
            let fits = bytes.get(..room).unwrap_or(bytes);
            head.bytes.extend_from_slice(fits);
            head.whole = head.bytes.len();
            self.bytes += fits.len();
        }
        self.make_room(at)
    }

    /// Places bytes `ahead` bytes behind the end of the contiguous ones, or before it; what was there
    /// first stays.
    pub(super) fn place(&mut self, at: u32, ahead: i64, bytes: &[u8]) -> Placed {
        let limit = self.limit;
        let mut placed =
            Placed { grew: false, waits: false, conflict: false, refused: false, evicted: 0 };
        let Some(head) = self.fifo.item_mut(at) else { return placed };
        placed.waits = head.pieces_used != 0;
        let from = head.whole as i64 + ahead;
        // What lies before the head is not kept any more.
        let bytes = bytes.get(usize::try_from(-from).unwrap_or(0)..).unwrap_or_default();
        let from = usize::try_from(from).unwrap_or(0);
        let room = limit.saturating_sub(from);
        let bytes = bytes.get(..room).unwrap_or(bytes);
        if bytes.is_empty() {
            return placed;
        }
        let before = head.bytes.len();
        placed = head.place(from, bytes);
        self.bytes += head.bytes.len() - before;
        placed.evicted = self.make_room(at);
        placed
    }

    /// Lets the oldest heads but this one go until the rest fit; returns how many.
    fn make_room(&mut self, at: u32) -> u64 {
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

    /// Length of the contiguous bytes, and whether pieces wait behind holes.
    pub(super) fn extent(&self, at: u32) -> (usize, bool) {
        self.fifo.item(at).map_or((0, false), |head| (head.whole, head.pieces_used != 0))
    }

    /// Makes the longest piece the whole head: what comes before it is given up. Returns how far its
    /// end lies behind the end of the contiguous bytes; `None` if there is no piece.
    pub(super) fn leap(&mut self, at: u32) -> Option<u32> {
        let head = self.fifo.item_mut(at)?;
        let piece = *head.pieces().iter().rev().max_by_key(|(from, until)| until - from)?;
        let leapt = (piece.1 - head.whole) as u32;
        let before = head.bytes.len();
        let stored = head.stored(piece);
        head.bytes.truncate(stored.end);
        head.bytes.drain(..stored.start);
        (head.whole, head.pieces_used, head.reader) =
            (head.bytes.len(), 0, Reader::in_the_middle());
        self.bytes -= before - head.bytes.len();
        Some(leapt)
    }

    /// Lends the bytes out, so that they can be told while the heads change, with their contiguous
    /// length; [`Heads::put_back`] ends it.
    pub(super) fn lend(&mut self, at: u32) -> (Vec<u8>, usize, Reader) {
        self.fifo
            .item_mut(at)
            .map(|head| (std::mem::take(&mut head.bytes), head.whole, head.reader))
            .unwrap_or_default()
    }

    /// Takes lent bytes back, without the first `consumed` of the contiguous ones.
    pub(super) fn put_back(
        &mut self,
        at: u32,
        mut bytes: Vec<u8>,
        consumed: usize,
        reader: Reader,
    ) {
        let Some(head) = self.fifo.item_mut(at) else { return };
        let consumed = consumed.min(head.whole);
        if consumed != 0 {
            bytes.drain(..consumed);
            self.bytes = self.bytes.saturating_sub(consumed);
            head.whole -= consumed;
            for (from, until) in &mut head.pieces {
                (*from, *until) = (from.saturating_sub(consumed), until.saturating_sub(consumed));
            }
        }
        (head.bytes, head.reader) = (bytes, reader);
    }

    /// The flow's ends are called the other way round from now on.
    pub(super) fn turn(&mut self, at: u32) {
        if let Some(head) = self.fifo.item_mut(at) {
            head.owner = head.owner.map(|(place, toward)| (place, toward.opposite()));
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
            (head.whole, head.pieces_used) = (0, 0);
        }
        self.fifo.give_back(at);
    }
}

#[cfg(test)]
mod tests;
