//! A table of fixed size by the Space-Saving rule: the key seen least gives way, and who comes in its place
//! counts from there; what the owner protects never gives way.

use super::keep::Keep;
use super::least::{Least, MOST};
use crate::flow::table::IndexTable;
use ahash::RandomState;

/// One key and what is known of it.
#[derive(Debug)]
pub(crate) struct Slot<K, V> {
    pub(crate) key: K,
    pub(crate) value: V,
    /// How often it was seen, and how often the keys before it in this place were.
    weight: u32,
    hash: u32,
}

/// How keys are hashed: those at hand and those that are kept must agree.
pub(crate) type HashOf<K> = fn(&RandomState, &K) -> u64;

/// At most `capacity` values by key.
pub(crate) struct SpaceSaving<K, V> {
    index: IndexTable,
    hasher: RandomState,
    hash_of: HashOf<K>,
    slots: Vec<Slot<K, V>>,
    /// Weights by place; a weight may have grown since, and what was protected when its turn came is left out.
    order: Least,
    capacity: usize,
    evicted: u64,
    refused: u64,
}

impl<K, V> std::fmt::Debug for SpaceSaving<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpaceSaving").field("keys", &self.slots.len()).finish_non_exhaustive()
    }
}

/// What became of a key.
pub(crate) struct Entered<'a, V> {
    pub(crate) value: &'a mut V,
    pub(crate) is_new: bool,
}

impl<K, V> SpaceSaving<K, V> {
    pub(crate) fn new(capacity: usize, seed: u64, hash_of: HashOf<K>) -> Self {
        Self {
            index: IndexTable::default(),
            hasher: RandomState::with_seeds(seed, seed.rotate_left(29), seed ^ 0x5A1E, !seed),
            hash_of,
            slots: Vec::new(),
            order: Least::default(),
            // Places are numbers of 32 bits.
            capacity: capacity.clamp(1, 1 << 30),
            evicted: 0,
            refused: 0,
        }
    }

    /// The hasher that keys at hand must be hashed with.
    pub(crate) const fn hasher(&self) -> &RandomState {
        &self.hasher
    }

    /// Keys that gave way to others.
    pub(crate) const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Keys that found no place, because nothing might go.
    pub(crate) const fn refused(&self) -> u64 {
        self.refused
    }

    /// Keys that it has room for.
    pub(crate) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Keys that are kept.
    pub(crate) const fn len(&self) -> usize {
        self.slots.len()
    }

    fn at(&self, hash: u32, is_it: impl Fn(&K) -> bool) -> Option<usize> {
        let is_it = |at: u32| self.slots.get(at as usize).is_some_and(|slot| is_it(&slot.key));
        self.index.find(hash, is_it).map(|at| at as usize)
    }

    /// The value of a key with this hash.
    pub(crate) fn find(&self, hash: u64, is_it: impl Fn(&K) -> bool) -> Option<&V> {
        let at = self.at(short(hash), is_it)?;
        self.slots.get(at).map(|slot| &slot.value)
    }

    /// The value of a key with this hash, to be written; it does not count as seen.
    pub(crate) fn find_mut(&mut self, hash: u64, is_it: impl Fn(&K) -> bool) -> Option<&mut V> {
        let place = self.place(hash, is_it)?;
        self.at_place(place)
    }

    /// The place of a key with this hash.
    pub(crate) fn place(&self, hash: u64, is_it: impl Fn(&K) -> bool) -> Option<usize> {
        self.at(short(hash), is_it)
    }

    /// The value at a place, to be written; it does not count as seen.
    pub(crate) fn at_place(&mut self, place: usize) -> Option<&mut V> {
        self.slots.get_mut(place).map(|slot| &mut slot.value)
    }

    /// Counts a key as seen, made if it is new; `None` when the table is full of what may not go.
    pub(crate) fn enter(
        &mut self,
        hash: u64,
        is_it: impl Fn(&K) -> bool,
        make: impl FnOnce() -> (K, V),
        may_go: impl Fn(&V) -> bool,
    ) -> Option<Entered<'_, V>> {
        let hash = short(hash);
        if let Some(at) = self.at(hash, is_it) {
            let slot = self.slots.get_mut(at)?;
            slot.weight = slot.weight.saturating_add(1);
            return Some(Entered { value: &mut slot.value, is_new: false });
        }
        let (key, value) = make();
        let at = if self.slots.len() < self.capacity {
            let at = self.slots.len();
            self.slots.push(Slot { key, value, weight: 1, hash });
            self.order.set(at as u32, 1);
            at
        } else {
            let Some(at) = self.victim(may_go) else {
                self.refused = self.refused.saturating_add(1);
                return None;
            };
            self.evicted = self.evicted.saturating_add(1);
            let slot = self.slots.get_mut(at)?;
            self.index.remove(slot.hash, at as u32);
            let weight = slot.weight.saturating_add(1);
            *slot = Slot { key, value, weight, hash };
            self.order.set(at as u32, weight);
            at
        };
        self.index.insert(hash, at as u32);
        self.slots.get_mut(at).map(|slot| Entered { value: &mut slot.value, is_new: true })
    }

    /// The place of the key seen least that may go; of several the one in the first place. Each look
    /// corrects one weight that has grown or leaves out one that is protected, so looks are bounded by sightings.
    fn victim(&mut self, may_go: impl Fn(&V) -> bool) -> Option<usize> {
        while let Some((place, weight)) = self.order.first() {
            let Some(slot) = self.slots.get(place as usize) else {
                self.order.leave_out(place);
                continue;
            };
            if slot.weight > weight && weight < MOST {
                self.order.set(place, slot.weight);
            } else if may_go(&slot.value) {
                return Some(place as usize);
            } else {
                self.order.leave_out(place);
            }
        }
        None
    }

    /// Orders all anew: what is no longer protected may go again, and what is stale goes first.
    pub(crate) fn reorder(&mut self, is_stale: impl Fn(&V) -> bool) {
        for slot in &mut self.slots {
            if is_stale(&slot.value) {
                slot.weight = 0;
            }
        }
        self.order = self.slots.iter().map(|slot| slot.weight).collect();
    }

    /// Every key that is kept, by its place.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &Slot<K, V>> {
        self.slots.iter()
    }

    /// The same, to be written.
    pub(crate) fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot<K, V>> {
        self.slots.iter_mut()
    }
}

const fn short(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// How far a table is written down that goes on to be used meanwhile: each place as it stands when its turn comes.
#[derive(Debug)]
pub(crate) struct Partly {
    /// Places that there were when it began.
    count: usize,
    next: usize,
}

impl<K: Keep + PartialEq, V: Keep> SpaceSaving<K, V> {
    /// Begins to write the table down.
    pub(crate) fn begin_keeping(&self, out: &mut Vec<u8>) -> Partly {
        (self.evicted, self.refused).keep(out);
        (self.slots.len() as u32).keep(out);
        Partly { count: self.slots.len(), next: 0 }
    }

    /// Writes so many places more; how many of these are left when the table is whole, `None` while it is not.
    pub(crate) fn keep_some(
        &self,
        partly: &mut Partly,
        most: usize,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let slots = self.slots.iter().zip(0..).take(partly.count).skip(partly.next);
        let mut written = 0;
        for (slot, place) in slots.take(most) {
            slot.key.keep(out);
            slot.value.keep(out);
            slot.weight.keep(out);
            // Which places are left out of the order decides who goes next.
            (!self.order.is_out(place)).keep(out);
            written += 1;
        }
        partly.next += written;
        (partly.next >= partly.count).then(|| most - written)
    }

    /// Reads back what was kept into a table of this size; `None` when it is not whole or does not fit.
    ///
    /// A key that moved to another place while the table was written down is taken once.
    pub(crate) fn take(mut self, from: &mut &[u8]) -> Option<Self> {
        (self.evicted, self.refused) = <(u64, u64)>::take(from)?;
        let count = u32::take(from)? as usize;
        if count > self.capacity || count > from.len() {
            return None;
        }
        for _ in 0..count {
            let (key, value) = <(K, V)>::take(from)?;
            let (weight, is_ordered) = <(u32, bool)>::take(from)?;
            let hash = short((self.hash_of)(&self.hasher, &key));
            if self.at(hash, |known| *known == key).is_some() {
                continue;
            }
            let place = self.slots.len() as u32;
            self.index.insert(hash, place);
            self.slots.push(Slot { key, value, weight, hash });
            if is_ordered {
                self.order.set(place, weight);
            } else {
                self.order.leave_out(place);
            }
        }
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(capacity: usize) -> SpaceSaving<u64, u32> {
        SpaceSaving::new(capacity, 7, |state, key| state.hash_one(key))
    }

    fn see(table: &mut SpaceSaving<u64, u32>, key: u64) -> Option<bool> {
        let hash = table.hasher().hash_one(key);
        let entered = table.enter(hash, |known| *known == key, || (key, 0), |value| *value < 5)?;
        *entered.value += 1;
        Some(entered.is_new)
    }

    fn value(table: &SpaceSaving<u64, u32>, key: u64) -> Option<u32> {
        table.find(table.hasher().hash_one(key), |known| *known == key).copied()
    }

    #[test]
    fn the_key_seen_least_gives_way_and_its_heir_counts_on() {
        let mut table = table(3);
        for key in [1, 1, 2, 2, 2, 3] {
            see(&mut table, key);
        }
        assert_eq!(see(&mut table, 4), Some(true));
        assert_eq!((value(&table, 3), value(&table, 1)), (None, Some(2)));
        // 4 weighs two by now, like 1; the first place goes.
        see(&mut table, 5);
        assert_eq!((value(&table, 1), value(&table, 4)), (None, Some(1)));
        assert_eq!((table.evicted(), table.refused(), table.len()), (2, 0, 3));
    }

    #[test]
    fn a_flood_evicts_nothing_that_is_protected() {
        let mut table = table(64);
        for key in 0..8 {
            (0..5).for_each(|_| {
                see(&mut table, key);
            });
        }
        for key in 1000..1_000_000 {
            see(&mut table, key);
        }
        assert!((0..8).all(|key| value(&table, key) == Some(5)));
        assert_eq!(table.evicted(), 999_000 - 56);
    }

    #[test]
    fn a_table_full_of_what_is_protected_refuses_until_it_is_ordered_anew() {
        let mut table = table(2);
        for _ in 0..5 {
            see(&mut table, 1);
            see(&mut table, 2);
        }
        assert_eq!((see(&mut table, 3), table.refused()), (None, 1));
        table.slots_mut().for_each(|slot| slot.value = 0);
        assert_eq!(see(&mut table, 3), None, "the order does not know yet");
        table.reorder(|_| false);
        assert_eq!(see(&mut table, 3), Some(true));
    }

    #[test]
    fn a_table_that_is_used_while_it_is_written_down_is_read_back_with_each_key_once() {
        let mut first = table(16);
        for key in 0..16 {
            (0..key).for_each(|_| {
                see(&mut first, key);
            });
        }
        let mut bytes = Vec::new();
        let mut partly = first.begin_keeping(&mut bytes);
        assert_eq!(first.keep_some(&mut partly, 8, &mut bytes), None);
        // What stood in the first half gives way, and comes again in the second.
        let moved = *first.slots().next().map(|slot| &slot.key).unwrap();
        for key in 100..140 {
            see(&mut first, key);
        }
        (0..9).for_each(|_| {
            see(&mut first, moved);
        });
        while first.keep_some(&mut partly, 3, &mut bytes).is_none() {}
        let mut from = bytes.as_slice();
        let second = table(16).take(&mut from).unwrap();
        assert!(from.is_empty());
        let mut keys: Vec<u64> = second.slots().map(|slot| slot.key).collect();
        keys.sort_unstable();
        let count = keys.len();
        keys.dedup();
        assert_eq!((keys.len(), keys.contains(&moved)), (count, true));
    }

    #[test]
    fn a_restored_table_evicts_the_same_keys() {
        let mut draw = 9_u64;
        let mut key = || {
            draw ^= draw << 13;
            draw ^= draw >> 7;
            draw ^= draw << 17;
            draw % 97
        };
        let mut first = table(16);
        (0..5000).for_each(|_| {
            see(&mut first, key());
        });
        let mut bytes = Vec::new();
        let mut partly = first.begin_keeping(&mut bytes);
        while first.keep_some(&mut partly, 5, &mut bytes).is_none() {}
        let empty =
            SpaceSaving::new(16, 12345, |state: &RandomState, key: &u64| state.hash_one(key));
        let mut from = bytes.as_slice();
        let mut second = empty.take(&mut from).unwrap();
        assert!(from.is_empty());
        for _ in 0..5000 {
            let key = key();
            assert_eq!(see(&mut first, key), see(&mut second, key));
        }
        let kept = |table: &SpaceSaving<u64, u32>| {
            let mut bytes = Vec::new();
            let mut partly = table.begin_keeping(&mut bytes);
            assert_eq!(table.keep_some(&mut partly, 100, &mut bytes), Some(84));
            bytes
        };
        assert_eq!(kept(&first), kept(&second));
        let small = table(8);
        assert!(small.take(&mut bytes.as_slice()).is_none(), "it does not fit");
    }
}
