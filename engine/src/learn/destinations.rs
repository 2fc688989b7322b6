//! The destinations that hosts of the inside speak to.

use super::baseline::{BASELINE_SCHEMA, Baseline, LearnedDestination};
use super::{Bounded, Name, Week};
use crate::app::registered_name;
use sekisho_schema::event::BaselineState;
use sekisho_schema::{Span, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

const HOUR_SECONDS: i64 = 3600;

/// The outside end as a person would name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Remote {
    /// An address without a name.
    Address(IpAddr),
    /// The registered name that a DNS answer bound to the address.
    Name(Box<str>),
}

impl Remote {
    /// The registered name where one is bound, else the address.
    #[must_use]
    pub fn new(address: IpAddr, name: Option<&str>) -> Self {
        name.map_or(Self::Address(address), |name| Self::Name(registered_name(name).into()))
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Serialize for Remote {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Remote {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(text.parse().map_or_else(|_| Self::Name(text.into()), Self::Address))
    }
}

/// A host and whom it speaks to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationKey {
    /// The inside host; `None` for the own host with all its addresses.
    pub host: Option<IpAddr>,
    /// The outside end.
    pub remote: Remote,
}

impl DestinationKey {
    fn at(&self) -> DestinationAt<'_> {
        let remote = match &self.remote {
            Remote::Address(address) => RemoteAt::Address(*address),
            Remote::Name(name) => RemoteAt::Name(name),
        };
        DestinationAt { host: self.host, remote }
    }
}

/// The same as it lies in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    host: Option<IpAddr>,
    remote: Kept,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kept {
    Address(IpAddr),
    Name(Name),
}

impl Key {
    #[inline]
    fn is(&self, at: &DestinationAt<'_>) -> bool {
        self.host == at.host
            && match (&self.remote, at.remote) {
                (Kept::Address(known), RemoteAt::Address(address)) => *known == address,
                (Kept::Name(known), RemoteAt::Name(name)) => known.is(name),
                _ => false,
            }
    }

    fn remote(&self) -> Remote {
        match &self.remote {
            Kept::Address(address) => Remote::Address(*address),
            Kept::Name(name) => Remote::Name(name.as_str().into()),
        }
    }
}

/// The outside end at hand: nothing is copied to look for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RemoteAt<'a> {
    Address(IpAddr),
    Name(&'a str),
}

impl RemoteAt<'_> {
    pub(crate) fn own(self) -> Remote {
        match self {
            Self::Address(address) => Remote::Address(address),
            Self::Name(name) => Remote::Name(name.into()),
        }
    }
}

/// A host and whom it speaks to, at hand; what the table hashes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DestinationAt<'a> {
    pub(crate) host: Option<IpAddr>,
    pub(crate) remote: RemoteAt<'a>,
}

impl Hash for DestinationAt<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.host {
            None => state.write_u64(0),
            Some(IpAddr::V4(host)) => state.write_u64(1 << 32 | u64::from(host.to_bits())),
            Some(IpAddr::V6(host)) => state.write_u128(host.to_bits()),
        }
        match self.remote {
            RemoteAt::Address(IpAddr::V4(address)) => state.write_u32(address.to_bits()),
            RemoteAt::Address(IpAddr::V6(address)) => state.write_u128(address.to_bits()),
            RemoteAt::Name(name) => state.write(name.as_bytes()),
        }
    }
}

impl<'a> DestinationAt<'a> {
    /// By the registered name where one is bound, else by the address.
    pub(crate) fn new(host: Option<IpAddr>, address: IpAddr, registered: Option<&'a str>) -> Self {
        Self { host, remote: registered.map_or(RemoteAt::Address(address), RemoteAt::Name) }
    }

    fn kept(self) -> Key {
        let remote = match self.remote {
            RemoteAt::Address(address) => Kept::Address(address),
            RemoteAt::Name(name) => Kept::Name(name.into()),
        };
        Key { host: self.host, remote }
    }
}

/// What is known of one destination.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    pub(crate) first_at: Timestamp,
    pub(crate) last_at: Timestamp,
    pub(crate) learned: bool,
    pub(crate) bytes_out: u64,
    pub(crate) week: Week,
    /// Whether the excess of this week was told.
    pub(crate) told: bool,
}

/// Every destination spoken to, learned or not, within bounds.
#[derive(Debug)]
pub(crate) struct Destinations {
    table: Bounded<Key, Destination>,
    learned: u64,
    started_at: Option<Timestamp>,
    hours: u64,
    hour: Option<i64>,
}

impl Destinations {
    pub(crate) fn new(capacity: usize, seed: u64) -> Self {
        Self {
            table: Bounded::new(capacity, seed),
            learned: 0,
            started_at: None,
            hours: 0,
            hour: None,
        }
    }

    /// Takes in what was learned before; what is already known here stays.
    pub(crate) fn restore(&mut self, baseline: &Baseline) {
        self.started_at = match (self.started_at, baseline.started_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.hours = self.hours.saturating_add(baseline.hours);
        for known in &baseline.destinations {
            let key = DestinationKey { host: known.host, remote: known.destination.clone() };
            if let Some(entry) = self.learn(key.at(), known.first_seen) {
                entry.first_at = entry.first_at.min(known.first_seen);
                entry.last_at = entry.last_at.max(known.last_seen);
                entry.bytes_out = entry.bytes_out.max(known.bytes_out);
            }
        }
    }

    /// Notes that traffic was seen; the first time begins the baseline.
    pub(crate) fn note(&mut self, at: Timestamp) {
        self.started_at.get_or_insert(at);
        let hour = at.seconds().div_euclid(HOUR_SECONDS);
        if self.hour != Some(hour) {
            self.hour = Some(hour);
            self.hours += 1;
        }
    }

    /// Whether learning has lasted long enough to call a new destination unusual.
    pub(crate) fn is_mature(&self, at: Timestamp, learn_for: Span) -> bool {
        self.started_at.is_some_and(|start| at >= start.after(learn_for))
    }

    pub(crate) fn knows(&self, key: DestinationAt<'_>) -> bool {
        self.table.find_like(&key, |known| known.is(&key)).is_some_and(|entry| entry.learned)
    }

    /// Makes a destination part of the normal; `None` when the table is full of what may not go.
    pub(crate) fn learn(
        &mut self,
        key: DestinationAt<'_>,
        at: Timestamp,
    ) -> Option<&mut Destination> {
        let is_it = |known: &Key| known.is(&key);
        let may_go = |entry: &Destination| !entry.learned;
        let entry = if self.is_full() {
            self.table.update_like(&key, is_it)?
        } else {
            self.table.upsert_like(&key, is_it, || key.kept(), || fresh(at), may_go)?
        };
        if !entry.learned {
            entry.learned = true;
            self.learned += 1;
        }
        entry.last_at = entry.last_at.max(at);
        Some(entry)
    }

    /// Watches a destination; one past `kept_bytes` this week is not evicted for it.
    pub(crate) fn watch(
        &mut self,
        key: DestinationAt<'_>,
        at: Timestamp,
        kept_bytes: u64,
    ) -> Option<&mut Destination> {
        let is_it = |known: &Key| known.is(&key);
        let may_go = |entry: &Destination| !entry.learned && entry.week.total() <= kept_bytes;
        let entry = if self.is_full() {
            self.table.update_like(&key, is_it)?
        } else {
            self.table.upsert_like(&key, is_it, || key.kept(), || fresh(at), may_go)?
        };
        entry.last_at = entry.last_at.max(at);
        Some(entry)
    }

    /// Whether the table is full of what was learned, which never goes.
    const fn is_full(&self) -> bool {
        self.learned >= self.table.capacity() as u64
    }

    pub(crate) const fn evicted(&self) -> u64 {
        self.table.evicted()
    }

    pub(crate) fn state(&self, at: Timestamp, learn_for: Span) -> BaselineState {
        BaselineState {
            destinations: self.learned,
            hours: self.hours as f64,
            mature: self.is_mature(at, learn_for),
        }
    }

    pub(crate) fn snapshot(&self) -> Baseline {
        let mut destinations: Vec<_> = self
            .table
            .entries()
            .filter(|(_, entry)| entry.learned)
            .map(|(key, entry)| LearnedDestination {
                host: key.host,
                destination: key.remote(),
                first_seen: entry.first_at,
                last_seen: entry.last_at,
                bytes_out: entry.bytes_out,
            })
            .collect();
        destinations.sort();
        Baseline {
            schema: BASELINE_SCHEMA.to_owned(),
            started_at: self.started_at,
            hours: self.hours,
            destinations,
        }
    }
}

fn fresh(at: Timestamp) -> Destination {
    Destination {
        first_at: at,
        last_at: at,
        learned: false,
        bytes_out: 0,
        week: Week::default(),
        told: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_full_of_what_was_learned_refuses_counts_and_still_knows() {
        let at = Timestamp::from_nanos(1_780_000_000_000_000_000);
        let mut learned = Destinations::new(4, 1);
        let name = |name| DestinationAt { host: None, remote: RemoteAt::Name(name) };
        for known in ["a.example", "b.example", "c.example", "d.example"] {
            assert!(learned.watch(name(known), at, 0).is_some());
            assert!(learned.learn(name(known), at).is_some());
        }
        assert!(learned.learn(name("e.example"), at).is_none());
        assert!(learned.watch(name("e.example"), at, 0).is_none());
        assert!(!learned.knows(name("e.example")) && learned.knows(name("a.example")));
        assert!(learned.watch(name("a.example"), at, 0).is_some_and(|known| known.learned));
        assert_eq!(learned.evicted(), 2);
    }

    #[test]
    fn a_baseline_restores_what_it_wrote() {
        let at = Timestamp::from_nanos(1_780_000_000_000_000_000);
        let mut first = Destinations::new(16, 1);
        first.note(at);
        let key = |remote| DestinationKey { host: None, remote };
        let name = key(Remote::Name("example.com".into()));
        let address = key(Remote::Address("203.0.113.9".parse().unwrap()));
        first.learn(name.at(), at).unwrap().bytes_out = 7;
        first.learn(address.at(), at);
        let text = serde_json::to_string(&first.snapshot()).unwrap();
        let mut second = Destinations::new(16, 2);
        second.restore(&serde_json::from_str(&text).unwrap());
        assert!(second.knows(name.at()) && second.knows(address.at()));
        assert_eq!(second.snapshot(), first.snapshot());
        assert!(second.is_mature(at.after(Span::from_hours(24)), Span::from_hours(24)));
        assert!(!second.is_mature(at, Span::from_hours(24)));
    }
}
