//! Finds records by a hash: four bytes a slot, written once.

use std::hint::black_box;

/// Bits of a slot that hold a place; the others hold a tag that spares most comparisons.
const PLACE_BITS: u32 = 22;
const PLACE: u32 = (1 << PLACE_BITS) - 1;
/// Most of the table that is filled, in quarters.
const FULL_QUARTERS: usize = 3;
/// Records that share a word of the filter: a byte each, and one look in thirty is in vain.
const RECORDS_OF_WORD: usize = 8;
/// Where in a hash the numbers of its bits in that word stand: below those of the tag.
const BIT_SHIFTS: [u32; 3] = [0, 6, 12];

/// Open addressing with linear probing; an empty slot ends every search.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// Tag in the upper bits, place + 1 in the lower; zero is empty.
    slots: Vec<u32>,
    /// Some bits of every hash that was put in. Nearly all that is looked for is unknown, and the
    /// filter stays in caches that the slots are too many for.
    filter: Vec<u64>,
}

impl Index {
    /// Records that one index can tell apart.
    pub(super) const MOST: usize = PLACE as usize - 1;

    /// Makes an index for so many places; more than these must not be put in.
    pub(super) fn with_capacity(len: usize) -> Self {
        if len == 0 {
            return Self::default();
        }
        Self {
            slots: vec![0; (len * 4).div_ceil(FULL_QUARTERS) + 1],
            filter: vec![0; len.div_ceil(RECORDS_OF_WORD)],
        }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u32>() + self.filter.capacity() * size_of::<u64>()
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        (((hash >> 32) * self.slots.len() as u64) >> 32) as usize
    }

    #[inline]
    fn word(&self, hash: u64) -> usize {
        (((hash >> 32) * self.filter.len() as u64) >> 32) as usize
    }

    #[inline]
    const fn bits(hash: u64) -> u64 {
        let [a, b, c] = BIT_SHIFTS;
        1 << (hash >> a & 63) | 1 << (hash >> b & 63) | 1 << (hash >> c & 63)
    }

    /// Whether anything with this hash may have been put in; rarely so where nothing was.
    #[inline]
    pub(super) fn may_have(&self, hash: u64) -> bool {
        let bits = Self::bits(hash);
        self.filter.get(self.word(hash)).is_some_and(|word| word & bits == bits)
    }

    const fn tag(hash: u64) -> u32 {
        (hash as u32) & !PLACE
    }

    /// Has the memory fetched that a search reads first.
    #[inline]
    pub(super) fn foresee(&self, hash: u64) {
        black_box(self.filter.get(self.word(hash)).copied());
    }

    /// Shows the places that may have this hash, until told to stop; gives the empty slot at the end.
    #[inline]
    pub(super) fn each(&self, hash: u64, mut goes_on: impl FnMut(u32) -> bool) -> Option<usize> {
        let tag = Self::tag(hash);
        let mut at = self.home(hash);
        loop {
            let slot = *self.slots.get(at)?;
            if slot == 0 {
                return Some(at);
            }
            if slot & !PLACE == tag && !goes_on((slot & PLACE) - 1) {
                return None;
            }
            at += 1;
            if at == self.slots.len() {
                at = 0;
            }
        }
    }

    /// Puts a place into the empty slot that [`Self::each`] gave for the same hash.
    pub(super) fn put(&mut self, slot: usize, hash: u64, place: u32) {
        if let Some(empty) = self.slots.get_mut(slot) {
            *empty = Self::tag(hash) | (place + 1);
        }
        let word = self.word(hash);
        if let Some(word) = self.filter.get_mut(word) {
            *word |= Self::bits(hash);
        }
    }
}
