//! The flows' places and their deadlines: a wheel of one-second slots, each a list of flows.
//!
//! A flow stands in the slot of a deadline that was true once; traffic only writes its time, and
//! the slot looks again when its turn comes. What fires, when and in what order depends on the
//! frames alone, never on how often somebody asks.

use super::entry::{Entry, Patience};
use super::fifo::NOWHERE;

const SECOND: i64 = 1_000_000_000;
/// Slots of the wheel; later deadlines wait in the farthest slot and are looked at again.
const SLOTS: usize = 4096;
const WORDS: usize = SLOTS / 64;
/// Flows of a piece of the storage: 2 MiB.
const PIECE: usize = 1 << 14;
/// Stale deadlines corrected for one eviction, before the flow at hand goes whatever its deadline.
const MAX_LOOKS: usize = 32;

#[derive(Clone, Copy)]
struct List {
    first: u32,
    last: u32,
}

/// All flow entries, chained by deadline.
pub(super) struct Flows {
    /// In pieces, so that no flow waits while the others move to a larger room.
    pieces: Vec<Vec<Entry>>,
    free: u32,
    live: usize,
    lists: Vec<List>,
    /// One bit for each slot that has a list.
    occupied: [u64; WORDS],
    /// The last second whose slot was emptied.
    cursor: i64,
    /// No deadline fires before this time, in nanoseconds.
    next_due: i64,
    patience: Patience,
}

const fn split(at: u32) -> (usize, usize) {
    (at as usize / PIECE, at as usize % PIECE)
}

/// The first whole second at or after a time.
const fn ceil_second(nanos: i64) -> i64 {
    nanos.div_euclid(SECOND) + (nanos.rem_euclid(SECOND) != 0) as i64
}

const fn slot_of(second: i64) -> u16 {
    second.rem_euclid(SLOTS as i64) as u16
}

impl Flows {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            pieces: Vec::new(),
            free: NOWHERE,
            live: 0,
            lists: vec![List { first: NOWHERE, last: NOWHERE }; SLOTS],
            occupied: [0; WORDS],
            cursor: 0,
            next_due: i64::MAX,
            patience,
        }
    }

    /// How long silent flows are kept.
    pub(super) const fn patience(&self) -> Patience {
        self.patience
    }

    pub(super) const fn live(&self) -> usize {
        self.live
    }

    /// No flow ends before this time; nanoseconds, `i64::MAX` without any flow.
    #[inline]
    pub(super) const fn next_due(&self) -> i64 {
        self.next_due
    }

    #[inline]
    pub(super) fn entry(&self, at: u32) -> Option<&Entry> {
        let (piece, within) = split(at);
        self.pieces.get(piece)?.get(within)
    }

    /// The places of flows from one on, free ones too.
    pub(super) fn places(&self, from: usize) -> impl Iterator<Item = &Entry> {
        self.pieces.iter().flatten().skip(from)
    }

    #[inline]
    pub(super) fn entry_mut(&mut self, at: u32) -> Option<&mut Entry> {
        let (piece, within) = split(at);
        self.pieces.get_mut(piece)?.get_mut(within)
    }

    /// Takes a place for a flow; `now` is the time of its first frame, all earlier deadlines are done.
    pub(super) fn add(&mut self, entry: Entry, now: i64) -> u32 {
        self.cursor = self.cursor.max(now.div_euclid(SECOND));
        let at = if self.free == NOWHERE {
            self.push(entry)
        } else {
            let at = self.free;
            if let Some(place) = self.entry_mut(at) {
                let free = place.next;
                *place = entry;
                self.free = free;
            }
            at
        };
        self.live += 1;
        self.link(at);
        at
    }

    fn push(&mut self, entry: Entry) -> u32 {
        if self.pieces.last().is_none_or(|piece| piece.len() >= PIECE) {
            // The first grows with its flows: where there are few, few bytes are taken, and few are moved.
            let room = if self.pieces.is_empty() { 0 } else { PIECE };
            self.pieces.push(Vec::with_capacity(room));
        }
        let before = (self.pieces.len() - 1) * PIECE;
        self.pieces.last_mut().map_or(NOWHERE, |piece| {
            piece.push(entry);
            (before + piece.len() - 1) as u32
        })
    }

    /// Frees the place of a flow.
    pub(super) fn remove(&mut self, at: u32) {
        self.unlink(at);
        let free = self.free;
        if let Some(place) = self.entry_mut(at) {
            *place = Entry::FREE;
            place.next = free;
            self.free = at;
            self.live -= 1;
        }
        if self.live == 0 {
            self.next_due = i64::MAX;
        }
    }

    /// Looks at the deadline of a flow anew, because it may now come earlier.
    pub(super) fn reschedule(&mut self, at: u32, now: i64) {
        self.cursor = self.cursor.max(now.div_euclid(SECOND));
        self.unlink(at);
        self.link(at);
    }

    /// The next flow whose deadline is at or before `now`, with that deadline; it keeps its place.
    pub(super) fn next_expired(&mut self, now: i64) -> Option<(u32, i64)> {
        let today = now.div_euclid(SECOND);
        while self.next_due <= now {
            let Some(second) = self.next_occupied().filter(|second| *second <= today) else {
                self.cursor = self.cursor.max(today);
                self.refresh_next_due();
                break;
            };
            self.cursor = second - 1;
            let first = self.list(second).first;
            if self.true_second(first) > second {
                self.unlink(first);
                self.cursor = second;
                self.link(first);
                self.cursor = second - 1;
            } else {
                return Some((first, second.saturating_mul(SECOND)));
            }
            self.refresh_next_due();
        }
        None
    }

    /// The flow that would be forgotten soonest.
    pub(super) fn most_idle(&mut self) -> Option<u32> {
        for look in 0..=MAX_LOOKS {
            let second = self.next_occupied()?;
            let first = self.list(second).first;
            if self.true_second(first) <= second || look == MAX_LOOKS {
                return Some(first);
            }
            self.unlink(first);
            self.link(first);
        }
        None
    }

    fn true_second(&self, at: u32) -> i64 {
        self.entry(at).map_or(0, |entry| ceil_second(self.patience.deadline(entry)))
    }

    fn list(&self, second: i64) -> List {
        let none = List { first: NOWHERE, last: NOWHERE };
        self.lists.get(usize::from(slot_of(second))).copied().unwrap_or(none)
    }

    /// Appends a flow to the list of its deadline, within the wheel's reach.
    fn link(&mut self, at: u32) {
        let (soonest, latest) = (self.cursor + 1, self.cursor + SLOTS as i64 - 1);
        let second = self.true_second(at).clamp(soonest, latest);
        let slot = slot_of(second);
        let Some(list) = self.lists.get_mut(usize::from(slot)) else { return };
        let last = std::mem::replace(&mut list.last, at);
        if last == NOWHERE {
            list.first = at;
        }
        if let Some(word) = self.occupied.get_mut(usize::from(slot) / 64) {
            *word |= 1 << (slot % 64);
        }
        if let Some(neighbour) = self.entry_mut(last) {
            neighbour.next = at;
        }
        if let Some(entry) = self.entry_mut(at) {
            (entry.slot, entry.prev, entry.next) = (slot, last, NOWHERE);
        }
        self.next_due = self.next_due.min(second.saturating_mul(SECOND));
    }

    fn unlink(&mut self, at: u32) {
        let Some((slot, prev, next)) = self.entry(at).map(|e| (e.slot, e.prev, e.next)) else {
            return;
        };
        if let Some(neighbour) = self.entry_mut(prev) {
            neighbour.next = next;
        }
        if let Some(neighbour) = self.entry_mut(next) {
            neighbour.prev = prev;
        }
        let Some(list) = self.lists.get_mut(usize::from(slot)) else { return };
        if prev == NOWHERE {
            list.first = next;
        }
        if next == NOWHERE {
            list.last = prev;
        }
        if list.first == NOWHERE
            && let Some(word) = self.occupied.get_mut(usize::from(slot) / 64)
        {
            *word &= !(1 << (slot % 64));
        }
    }

    /// The first second behind the cursor that has a list.
    fn next_occupied(&self) -> Option<i64> {
        let start = self.cursor + 1;
        let start_slot = usize::from(slot_of(start));
        // One word more than there are: the first is looked at from the start's bit, then up to it.
        for step in 0..=WORDS {
            let word_at = (start_slot / 64 + step) % WORDS;
            let mut word = *self.occupied.get(word_at)?;
            if step == 0 {
                word &= u64::MAX << (start_slot % 64);
            }
            if word != 0 {
                let slot = word_at * 64 + word.trailing_zeros() as usize;
                return Some(start + ((slot + SLOTS - start_slot) % SLOTS) as i64);
            }
        }
        None
    }

    fn refresh_next_due(&mut self) {
        self.next_due =
            self.next_occupied().map_or(i64::MAX, |second| second.saturating_mul(SECOND));
    }
}
