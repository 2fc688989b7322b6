//! Which name a client asked an address for by: what DNS answers said, for as long as they may be believed.
//!
//! A binding counts only for the client that was answered: hosting addresses carry many names, and
//! what one host asked for says nothing of another that speaks to the same address.

use super::fifo::Fifo;
use super::table::IndexTable;
use super::text::Text;
use crate::app::registered_name;
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

/// The name that a client asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Called<'a> {
    /// The whole of it.
    pub(super) name: &'a str,
    /// The part that somebody registered.
    pub(super) registered: &'a str,
}

struct Binding {
    key: Bound,
    /// Where the part begins that somebody registered; looked for when the name is first asked for.
    registered_at: Option<u8>,
    name: Text<38>,
    until: Timestamp,
}

impl Binding {
    fn called(&self) -> Called<'_> {
        let name = self.name.as_str();
        let registered = match self.registered_at {
            Some(at) => name.get(usize::from(at)..).unwrap_or(name),
            None => registered_name(name),
        };
        Called { name, registered }
    }

    /// Looks for the part that somebody registered, unless that was done.
    fn take_apart(&mut self) {
        if self.registered_at.is_none() {
            let name = self.name.as_str();
            let front = name.len() - registered_name(name).len();
            self.registered_at = u8::try_from(front).ok();
        }
    }
}

impl Default for Binding {
    fn default() -> Self {
        Self {
            key: (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            registered_at: None,
            name: Text::default(),
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

    /// The same for the binding that is likely found, with its name.
    #[inline]
    pub(super) fn foresee_binding(&self, hash: u32) -> Option<&[u8]> {
        let binding = self.fifo.item(self.table.find(hash, |_| true)?)?;
        black_box(binding.until);
        Some(binding.name.as_bytes())
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
                if !binding.name.is(name) {
                    binding.name = name.into();
                    binding.registered_at = None;
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
            *binding = Binding { key, registered_at: None, name: name.into(), until };
        }
        self.table.insert(self.hash(key), at);
        full
    }

    /// The name bound to an address for a client, if it may still be believed.
    pub(super) fn bound(&self, key: Bound, now: Timestamp) -> Option<Called<'_>> {
        let binding = self.fifo.item(self.find(key)?)?;
        (binding.until > now).then(|| binding.called())
    }

    /// The same, remembered for the next time.
    #[inline]
    pub(super) fn recall(&mut self, key: Bound, now: Timestamp) -> Option<Called<'_>> {
        let place = match self.met {
            Some((met, place)) if met == key => place,
            _ => self.find(key),
        };
        self.met = Some((key, place));
        let binding = self.fifo.item_mut(place?).filter(|binding| binding.until > now)?;
        binding.take_apart();
        Some(binding.called())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::EPOCH.after(Span::from_secs(secs))
    }

    fn called(names: &Names, key: Bound, now: Timestamp) -> Option<&str> {
        names.bound(key, now).map(|called| called.name)
    }

    #[test]
    fn a_binding_lives_at_least_a_minute_and_at_most_a_day() {
        let ip: Bound = ("10.0.0.1".parse().unwrap(), "203.0.113.9".parse().unwrap());
        let mut names = Names::new(8, RandomState::with_seeds(1, 2, 3, 4));
        names.bind(ip, "short.example", 0, at(0));
        assert_eq!(called(&names, ip, at(59)), Some("short.example"));
        assert_eq!(called(&names, ip, at(60)), None);
        names.bind(ip, "long.example", u32::MAX, at(0));
        assert_eq!(called(&names, ip, at(86_399)), Some("long.example"));
        assert_eq!(called(&names, ip, at(86_400)), None);
    }

    #[test]
    fn the_newest_name_wins_and_the_binding_longest_not_renewed_gives_way() {
        let ip = |n: u32| (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::from_bits(n)));
        let mut names = Names::new(2, RandomState::with_seeds(1, 2, 3, 4));
        assert!(!names.bind(ip(1), "old.example", 300, at(0)));
        assert!(!names.bind(ip(2), "b.example", 300, at(0)));
        assert!(!names.bind(ip(1), "new.example", 300, at(1)));
        assert!(names.bind(ip(3), "c.example", 300, at(2)));
        assert_eq!(called(&names, ip(1), at(3)), Some("new.example"));
        assert_eq!(called(&names, ip(2), at(3)), None);
        assert_eq!(called(&names, ip(3), at(3)), Some("c.example"));
    }

    #[test]
    fn what_one_client_asked_for_says_nothing_of_another() {
        let [one, other, shared]: [IpAddr; 3] =
            ["10.0.0.1", "10.0.0.2", "203.0.113.9"].map(|ip| ip.parse().unwrap());
        let mut names = Names::new(8, RandomState::with_seeds(1, 2, 3, 4));
        names.bind((one, shared), "c2.example", 300, at(0));
        assert_eq!(called(&names, (one, shared), at(1)), Some("c2.example"));
        assert_eq!(called(&names, (other, shared), at(1)), None);
    }

    #[test]
    fn what_is_recalled_is_what_is_bound_with_what_was_registered_of_it() {
        let key: Bound = ("10.0.0.1".parse().unwrap(), "203.0.113.9".parse().unwrap());
        let mut names = Names::new(8, RandomState::with_seeds(1, 2, 3, 4));
        let long = format!("{}.example.co.jp", ["a23456789"; 23].join("."));
        for (name, registered) in [
            ("www.example.com", "example.com"),
            ("a.b.example.co.jp", "example.co.jp"),
            (long.as_str(), "example.co.jp"),
            ("localhost", "localhost"),
        ] {
            names.bind(key, name, 300, at(0));
            let bound = names.bound(key, at(1)).map(|called| (called.name, called.registered));
            assert_eq!(bound, Some((name, registered)));
            for _ in 0..2 {
                let called = names.recall(key, at(1)).unwrap();
                assert_eq!((called.name, called.registered), (name, registered));
            }
        }
        assert!(names.recall(key, at(301)).is_none());
    }
}
