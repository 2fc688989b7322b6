//! A table of fixed size: the second-chance algorithm evicts, the owner says what may go.

use crate::flow::table::IndexTable;
use ahash::RandomState;
use std::fmt;
use std::hash::Hash;

/// Slots looked at for one eviction. Bounds the cost of a flood of new keys.
const SCAN: usize = 64;

#[derive(Debug)]
struct Slot<K, V> {
    key: K,
    value: V,
    /// Of the key, which may lie elsewhere in memory.
    hash: u32,
    touched: bool,
}

/// At most `capacity` values by key.
pub(crate) struct Bounded<K, V> {
    index: IndexTable,
    hasher: RandomState,
    slots: Vec<Slot<K, V>>,
    capacity: usize,
    hand: usize,
    /// Keys evicted for another, and keys refused because nothing might go.
    evicted: u64,
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Bounded<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.slots).finish()
    }
}

impl<K, V> Bounded<K, V> {
    pub(crate) fn new(capacity: usize, seed: u64) -> Self {
        let hasher = RandomState::with_seeds(seed, seed.rotate_left(17), seed ^ 0x5EC1, !seed);
        Self {
            index: IndexTable::default(),
            hasher,
            slots: Vec::new(),
            // Places are numbers of 32 bits.
            capacity: capacity.clamp(1, 1 << 30),
            hand: 0,
            evicted: 0,
        }
    }

    /// How often a key had to give way or was refused.
    pub(crate) const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Whether no key was ever put in.
    pub(crate) const fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn hash<Q: Hash>(&self, like: &Q) -> u32 {
        (self.hasher.hash_one(like) >> 32) as u32
    }

    fn at(&self, hash: u32, is_it: impl Fn(&K) -> bool) -> Option<usize> {
        let is_it = |at: u32| self.slots.get(at as usize).is_some_and(|slot| is_it(&slot.key));
        self.index.find(hash, is_it).map(|at| at as usize)
    }

    /// The value of a key.
    pub(crate) fn find(&self, key: &K) -> Option<&V>
    where
        K: Eq + Hash,
    {
        self.find_like(key, |known| known == key)
    }

    /// The value of a key that hashes like this one; nothing is copied to look for it.
    pub(crate) fn find_like<Q: Hash>(&self, like: &Q, is_it: impl Fn(&K) -> bool) -> Option<&V> {
        let at = self.at(self.hash(like), is_it)?;
        self.slots.get(at).map(|slot| &slot.value)
    }

    /// Keys and values in the order of their slots.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&K, &V)> {
        self.slots.iter().map(|slot| (&slot.key, &slot.value))
    }

    /// The value of a key, made if it is new; `None` when the table is full of values that may not go.
    pub(crate) fn upsert(
        &mut self,
        key: &K,
        make: impl FnOnce() -> V,
        may_go: impl Fn(&V) -> bool,
    ) -> Option<&mut V>
    where
        K: Clone + Eq + Hash,
    {
        self.upsert_like(key, |known| known == key, || key.clone(), make, may_go)
    }

    /// The same for a key that hashes like this one; it is copied only if it is new.
    pub(crate) fn upsert_like<Q: Hash>(
        &mut self,
        like: &Q,
        is_it: impl Fn(&K) -> bool,
        own: impl FnOnce() -> K,
        make: impl FnOnce() -> V,
        may_go: impl Fn(&V) -> bool,
    ) -> Option<&mut V> {
        let hash = self.hash(like);
        // What a new key removes is fetched while the key is looked for.
        if let Some(next) = self.slots.get(self.hand).filter(|_| self.is_full()) {
            self.index.foresee(next.hash);
        }
        let at = match self.at(hash, is_it) {
            Some(at) => {
                self.slots.get_mut(at)?.touched = true;
                at
            }
            None => {
                let at = self.room(may_go)?;
                self.index.insert(hash, at as u32);
                let slot = Slot { key: own(), value: make(), hash, touched: false };
                match self.slots.get_mut(at) {
                    Some(old) => *old = slot,
                    None => self.slots.push(slot),
                }
                at
            }
        };
        self.slots.get_mut(at).map(|slot| &mut slot.value)
    }

    /// The value of a key that hashes like this one, as by [`Bounded::upsert_like`] in a table that is full of what
    /// may not go, without a look at what that is.
    pub(crate) fn update_like<Q: Hash>(
        &mut self,
        like: &Q,
        is_it: impl Fn(&K) -> bool,
    ) -> Option<&mut V> {
        let Some(at) = self.at(self.hash(like), is_it) else {
            self.evicted += 1;
            return None;
        };
        let slot = self.slots.get_mut(at)?;
        slot.touched = true;
        Some(&mut slot.value)
    }

    /// Keys that it has room for.
    pub(crate) const fn capacity(&self) -> usize {
        self.capacity
    }

    const fn is_full(&self) -> bool {
        self.slots.len() >= self.capacity
    }

    /// The place of a new key; one that stands there is no longer found.
    fn room(&mut self, may_go: impl Fn(&V) -> bool) -> Option<usize> {
        if !self.is_full() {
            return Some(self.slots.len());
        }
        self.evicted += 1;
        let at = self.victim(may_go)?;
        let old = self.slots.get(at)?.hash;
        self.index.remove(old, at as u32);
        Some(at)
    }

    fn victim(&mut self, may_go: impl Fn(&V) -> bool) -> Option<usize> {
        let mut fallback = None;
        for _ in 0..SCAN.min(self.slots.len()) {
            let at = self.hand;
            self.hand = if at + 1 < self.slots.len() { at + 1 } else { 0 };
            let slot = self.slots.get_mut(at)?;
            if !may_go(&slot.value) {
                continue;
            }
            if !std::mem::take(&mut slot.touched) {
                return Some(at);
            }
            fallback = fallback.or(Some(at));
        }
        fallback
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_new_keys_never_moves_what_may_not_go() {
        let mut table = Bounded::new(8, 1);
        for key in 0..4_u64 {
            table.upsert(&key, || true, |kept| !kept);
        }
        for key in 100..10_000_u64 {
            table.upsert(&key, || false, |kept| !kept);
        }
        assert_eq!(table.entries().count(), 8);
        assert!((0..4).all(|key| table.find(&key) == Some(&true)));
        assert_eq!(table.evicted(), 9900 - 4);
    }

    #[test]
    fn a_table_full_of_what_may_not_go_refuses_and_counts() {
        let mut table = Bounded::new(2, 1);
        assert!(table.upsert(&1, || (), |()| false).is_some());
        assert!(table.upsert(&2, || (), |()| false).is_some());
        assert!(table.upsert(&3, || (), |()| false).is_none());
        assert_eq!((table.entries().count(), table.evicted()), (2, 1));
    }

    #[test]
    fn what_was_touched_outlives_what_was_not() {
        let mut table = Bounded::new(3, 1);
        for key in [1, 2, 3, 1] {
            table.upsert(&key, || (), |()| true);
        }
        table.upsert(&4, || (), |()| true);
        assert!(table.find(&1).is_some() && table.find(&2).is_none());
    }
}
