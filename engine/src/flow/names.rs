//! Which name a client asked an address for by: what DNS answers said, for as long as they may be believed.
//!
//! A binding counts only for the client that was answered: hosting addresses carry many names, and
//! what one host asked for says nothing of another that speaks to the same address.

use super::fifo::Fifo;
use super::table::IndexTable;
use ahash::RandomState;
use sekisho_schema::{Span, Timestamp};
use std::hash::{BuildHasher, Hash, Hasher};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

/// Bounds of the time a binding is believed: resolvers and programs keep addresses longer than a
/// short time to live says, and no answer shall bind for ever.
const SHORTEST: u32 = 60;
const LONGEST: u32 = 24 * 3600;

/// Who asked, and the address that the answer gave.
pub(super) type Bound = (IpAddr, IpAddr);

struct Binding {
    key: Bound,
    name: Box<str>,
    until: Timestamp,
}

impl Default for Binding {
    fn default() -> Self {
        Self {
            key: (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            name: Box::default(),
            until: Timestamp::EPOCH,
        }
    }
}

/// Bindings by client and address; the newest wins, and the one longest not renewed gives way.
pub(super) struct Names {
    table: IndexTable,
    fifo: Fifo<Binding>,
    most: usize,
    hasher: RandomState,
    /// What was looked for last, and where it was found: the facts of a packet all ask for the same.
    met: Option<(Bound, Option<u32>)>,
}

impl Names {
    pub(super) fn new(most: usize, hasher: RandomState) -> Self {
        Self {
            table: IndexTable::default(),
            fifo: Fifo::new(),
            most: most.max(1),
            hasher,
            met: None,
        }
    }

    /// The same without any binding.
    pub(super) fn emptied(&self) -> Self {
        Self::new(self.most, self.hasher.clone())
    }

    /// What a key is found by.
    #[inline]
    pub(super) fn hash(&self, key: Bound) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        match key {
            (IpAddr::V4(client), IpAddr::V4(address)) => {
                hasher.write_u64(u64::from(client.to_bits()) << 32 | u64::from(address.to_bits()));
            }
            (client, address) => (client, address).hash(&mut hasher),
        }
        (hasher.finish() >> 32) as u32
    }

    /// Has the memory fetched that looking for a key with this hash would read first.
    #[inline]
    pub(super) fn foresee(&self, hash: u32) {
        self.table.foresee(hash);
    }

    /// The same for the binding that is likely found; its name is not read.
    #[inline]
    pub(super) fn foresee_binding(&self, hash: u32) -> Option<&str> {
        let binding = self.fifo.item(self.table.find(hash, |_| true)?)?;
        black_box(binding.until);
        Some(&binding.name)
    }

    fn find(&self, key: Bound) -> Option<u32> {
        self.table
            .find(self.hash(key), |at| self.fifo.item(at).is_some_and(|binding| binding.key == key))
    }

    /// Binds a name to an address for a client; returns whether another binding had to give way.
    pub(super) fn bind(&mut self, key: Bound, name: &str, ttl: u32, now: Timestamp) -> bool {
        let until = now.after(Span::from_secs(i64::from(ttl.clamp(SHORTEST, LONGEST))));
        self.met = None;
        if let Some(at) = self.find(key) {
            self.fifo.renew(at);
            if let Some(binding) = self.fifo.item_mut(at) {
                binding.until = until;
                if *binding.name != *name {
                    binding.name = name.into();
                }
            }
            return false;
        }
        let full = self.fifo.len() >= self.most;
        if full && let Some(oldest) = self.fifo.oldest() {
            let gone = self.fifo.item(oldest).map(|binding| self.hash(binding.key));
            self.table.remove(gone.unwrap_or_default(), oldest);
            self.fifo.give_back(oldest);
        }
        let at = self.fifo.take();
        if let Some(binding) = self.fifo.item_mut(at) {
            *binding = Binding { key, name: name.into(), until };
        }
        self.table.insert(self.hash(key), at);
        full
    }

    /// The name bound to an address for a client, if it may still be believed.
    pub(super) fn bound(&self, key: Bound, now: Timestamp) -> Option<&str> {
        self.name_at(self.find(key)?, now)
    }

    /// The same, remembered for the next time.
    #[inline]
    pub(super) fn recall(&mut self, key: Bound, now: Timestamp) -> Option<&str> {
        let place = match self.met {
            Some((met, place)) if met == key => place,
            _ => self.find(key),
        };
        self.met = Some((key, place));
        self.name_at(place?, now)
    }

    fn name_at(&self, place: u32, now: Timestamp) -> Option<&str> {
        let binding = self.fifo.item(place)?;
        (binding.until > now).then_some(&*binding.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::EPOCH.after(Span::from_secs(secs))
    }

    #[test]
    fn a_binding_lives_at_least_a_minute_and_at_most_a_day() {
        let ip: Bound = ("10.0.0.1".parse().unwrap(), "203.0.113.9".parse().unwrap());
        let mut names = Names::new(8, RandomState::with_seeds(1, 2, 3, 4));
        names.bind(ip, "short.example", 0, at(0));
        assert_eq!(names.bound(ip, at(59)), Some("short.example"));
        assert_eq!(names.bound(ip, at(60)), None);
        names.bind(ip, "long.example", u32::MAX, at(0));
        assert_eq!(names.bound(ip, at(86_399)), Some("long.example"));
        assert_eq!(names.bound(ip, at(86_400)), None);
    }

    #[test]
    fn the_newest_name_wins_and_the_binding_longest_not_renewed_gives_way() {
        let ip = |n: u32| (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::from_bits(n)));
        let mut names = Names::new(2, RandomState::with_seeds(1, 2, 3, 4));
        assert!(!names.bind(ip(1), "old.example", 300, at(0)));
        assert!(!names.bind(ip(2), "b.example", 300, at(0)));
        assert!(!names.bind(ip(1), "new.example", 300, at(1)));
        assert!(names.bind(ip(3), "c.example", 300, at(2)));
        assert_eq!(names.bound(ip(1), at(3)), Some("new.example"));
        assert_eq!(names.bound(ip(2), at(3)), None);
        assert_eq!(names.bound(ip(3), at(3)), Some("c.example"));
    }

    #[test]
    fn what_one_client_asked_for_says_nothing_of_another() {
        let [one, other, shared]: [IpAddr; 3] =
            ["10.0.0.1", "10.0.0.2", "203.0.113.9"].map(|ip| ip.parse().unwrap());
        let mut names = Names::new(8, RandomState::with_seeds(1, 2, 3, 4));
        names.bind((one, shared), "c2.example", 300, at(0));
        assert_eq!(names.bound((one, shared), at(1)), Some("c2.example"));
        assert_eq!(names.bound((other, shared), at(1)), None);
    }
}
