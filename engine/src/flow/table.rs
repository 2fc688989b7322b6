//! An open-addressing index: a 32-bit hash and a place in somebody else's storage, eight bytes a slot.

use std::hint::black_box;

/// Most of the table that may be filled before it grows, in quarters.
const FULL_QUARTERS: usize = 3;
const FEWEST_SLOTS: usize = 16;

/// Maps hashes to places; the owner of the storage compares the keys.
///
/// Slots are chosen by the high bits of the hash, so that growing is one sweep in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct IndexTable {
    /// Hash in the upper half, place + 1 in the lower; zero is an empty slot.
    slots: Vec<u64>,
    len: usize,
}

const fn pack(hash: u32, place: u32) -> u64 {
    (hash as u64) << 32 | (place as u64 + 1)
}

const fn hash_of(slot: u64) -> u32 {
    (slot >> 32) as u32
}

const fn place_of(slot: u64) -> u32 {
    (slot as u32).wrapping_sub(1)
}

impl IndexTable {
    #[inline]
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.slots.len() as u64) >> 32) as usize
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// Has the memory fetched that a search for a hash reads first.
    #[inline]
    pub(crate) fn foresee(&self, hash: u32) {
        black_box(self.slots.get(self.home(hash)).copied());
    }

    /// Finds the first place with this hash that the caller confirms.
    #[inline]
    pub(crate) fn find(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        loop {
            // Never full, so an empty slot ends every search; `None` only for a table without slots.
            let slot = *self.slots.get(at)?;
            if slot == 0 {
                return None;
            }
            if hash_of(slot) == hash && is_it(place_of(slot)) {
                return Some(place_of(slot));
            }
            at = self.after(at);
        }
    }

    /// Adds a place; the same hash may stand for several places, found in the order of their coming.
    pub(crate) fn insert(&mut self, hash: u32, place: u32) {
        if (self.len + 1) * 4 > self.slots.len() * FULL_QUARTERS {
            self.grow();
        }
        self.put(pack(hash, place));
        self.len += 1;
    }

    fn put(&mut self, slot: u64) {
        let mut at = self.home(hash_of(slot));
        while self.slots.get(at).is_some_and(|taken| *taken != 0) {
            at = self.after(at);
        }
        if let Some(empty) = self.slots.get_mut(at) {
            *empty = slot;
        }
    }

    fn grow(&mut self) {
        let doubled = (self.slots.len() * 2).max(FEWEST_SLOTS);
        let old = std::mem::replace(&mut self.slots, vec![0; doubled]);
        // The run that wraps round the end comes first by rights; starting behind the first empty
        // slot keeps equal hashes in the order of their coming.
        let start = old.iter().position(|slot| *slot == 0).unwrap_or(0);
        for slot in old.iter().cycle().skip(start).take(old.len()) {
            if *slot != 0 {
                self.put(*slot);
            }
        }
    }

    /// Removes a place; the slots behind it move up, so that no tombstones gather.
    pub(crate) fn remove(&mut self, hash: u32, place: u32) {
        let wanted = pack(hash, place);
        let mut hole = self.home(hash);
        loop {
            match self.slots.get(hole) {
                None | Some(0) => return,
                Some(slot) if *slot == wanted => break,
                Some(_) => hole = self.after(hole),
            }
        }
        let cap = self.slots.len();
        let distance =
            |from: usize, to: usize| if to >= from { to - from } else { to + cap - from };
        let mut at = self.after(hole);
        while let Some(slot) = self.slots.get(at).copied().filter(|slot| *slot != 0) {
            if distance(self.home(hash_of(slot)), at) >= distance(hole, at) {
                if let Some(empty) = self.slots.get_mut(hole) {
                    *empty = slot;
                }
                hole = at;
            }
            at = self.after(at);
        }
        if let Some(last) = self.slots.get_mut(hole) {
            *last = 0;
        }
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::IndexTable;
    use std::collections::BTreeMap;

    /// Law: after any inserts and removals the table finds exactly what a map finds.
    #[test]
    fn a_table_holds_what_was_put_in_and_not_taken_out() {
        let mut state = 7_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut table = IndexTable::default();
        let mut model: BTreeMap<u32, u32> = BTreeMap::new();
        for _ in 0..40_000 {
            let place = (random() % 600) as u32;
            // Few distinct hashes near the wrap-around make long runs.
            let hash = u32::MAX - (place % 37) * 3;
            if random() % 2 == 0 {
                if model.insert(place, hash).is_none() {
                    table.insert(hash, place);
                }
            } else if let Some(hash) = model.remove(&place) {
                table.remove(hash, place);
            }
            let probe = (random() % 600) as u32;
            let found = table.find(u32::MAX - (probe % 37) * 3, |at| at == probe);
            assert_eq!(found.is_some(), model.contains_key(&probe));
        }
        assert_eq!(table.len, model.len());
    }

    #[test]
    fn equal_hashes_are_found_in_the_order_of_their_coming() {
        let mut table = IndexTable::default();
        for place in 0..500 {
            table.insert(u32::MAX, place);
        }
        let mut seen = Vec::new();
        table.find(u32::MAX, |place| {
            seen.push(place);
            false
        });
        assert_eq!(seen, (0..500).collect::<Vec<_>>());
    }
}
