//! Known observables in little memory: addresses, endpoints and names, found exactly.
//!
//! A record is twelve bytes, a slot of its table about eleven, and text stands once in an arena;
//! what a whole source shares is kept once.

mod builder;
mod observable;

pub(crate) use self::builder::SetBuilder;
use self::observable::Observable;
pub use self::observable::ParseIndicatorError;
use crate::flow::table::IndexTable;
use ahash::RandomState;
use ipnet::IpNet;
use sekisho_schema::Timestamp;
use sekisho_schema::finding::{Grade, IndicatorRecord};
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where an indicator stands in its set; worth nothing in another set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndicatorRef(u32);

/// What is known of an indicator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndicatorDescription {
    /// Id, value, source, confidence and validity; the value in its normal form.
    pub record: IndicatorRecord,
    /// What a sighting is worth.
    pub grade: Grade,
    /// `pack@version#id`; a list has version 0 and its line as id.
    pub rule: String,
}

/// How many different indicators a set holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndicatorCounts {
    /// Addresses.
    pub addresses: usize,
    /// Addresses with a port.
    pub endpoints: usize,
    /// Names.
    pub names: usize,
}

impl IndicatorCounts {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.addresses + self.endpoints + self.names
    }
}

/// What the indicators of one source share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Provenance {
    pub(crate) grade: Grade,
    pub(crate) confidence: u8,
    pub(crate) valid_until: Option<Timestamp>,
    pub(crate) source: String,
    /// `pack@version`.
    pub(crate) origin: String,
    /// Ids are line numbers.
    pub(crate) is_list: bool,
}

/// An IPv4 address stands in the record itself.
const IS_V4: u32 = 1 << 31;
/// Kinds of text in the arena.
const V6: u8 = b'6';
const ENDPOINT: u8 = b':';
const NAME: u8 = b'n';

#[derive(Clone, Copy, Debug)]
struct Record {
    /// IPv4 address, or where in the arena kind, length and bytes stand.
    value: u32,
    /// Line of the list, or which of the kept ids.
    id: u32,
    /// Which provenance, and [`IS_V4`].
    group: u32,
}

/// Records and what they refer to.
#[derive(Clone, Debug, Default)]
struct Store {
    records: Vec<Record>,
    arena: Vec<u8>,
    groups: Vec<Provenance>,
    ids: Vec<Box<str>>,
}

impl Store {
    /// Kind and bytes of a record in the arena.
    fn keyed(&self, record: Record) -> Option<(u8, &[u8])> {
        let text = self.arena.get(record.value as usize..)?;
        let ([kind, len], text) = text.split_first_chunk::<2>()?;
        Some((*kind, text.get(..usize::from(*len))?))
    }

    fn record(&self, at: u32) -> Option<Record> {
        self.records.get(at as usize).copied()
    }

    fn provenance(&self, record: Record) -> Option<&Provenance> {
        self.groups.get((record.group & !IS_V4) as usize)
    }

    fn is_address(&self, at: u32, bits: u32) -> bool {
        self.record(at).is_some_and(|record| record.group & IS_V4 != 0 && record.value == bits)
    }

    fn is_keyed(&self, at: u32, kind: u8, bytes: &[u8]) -> bool {
        self.record(at).is_some_and(|record| {
            record.group & IS_V4 == 0 && self.keyed(record) == Some((kind, bytes))
        })
    }

    fn value_text(&self, record: Record) -> String {
        if record.group & IS_V4 != 0 {
            return Ipv4Addr::from_bits(record.value).to_string();
        }
        match self.keyed(record) {
            Some((V6, bytes)) => <[u8; 16]>::try_from(bytes)
                .map_or_else(|_| String::new(), |octets| Ipv6Addr::from(octets).to_string()),
            Some((_, bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            None => String::new(),
        }
    }
}

/// What the operator declares good.
#[derive(Clone, Debug, Default)]
struct Allowed {
    networks: Vec<IpNet>,
    endpoints: BTreeSet<SocketAddr>,
    names: BTreeSet<String>,
}

impl Allowed {
    fn has_address(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }

    fn has_name(&self, name: &str) -> bool {
        suffixes(name).any(|suffix| self.names.contains(suffix))
    }
}

/// Exact indicators with their provenance.
#[derive(Clone)]
pub struct IndicatorSet {
    store: Store,
    /// IPv4 addresses.
    addresses: IndexTable,
    /// Everything else.
    keyed: IndexTable,
    counts: IndicatorCounts,
    allowed: Allowed,
    hasher: RandomState,
}

impl Default for IndicatorSet {
    fn default() -> Self {
        // Fixed: the indicators are the operator's, and whoever asks for a name adds nothing here.
        let hasher = RandomState::with_seeds(1, 2, 3, 4);
        Self {
            store: Store::default(),
            addresses: IndexTable::default(),
            keyed: IndexTable::default(),
            counts: IndicatorCounts::default(),
            allowed: Allowed::default(),
            hasher,
        }
    }
}

impl fmt::Debug for IndicatorSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndicatorSet").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl IndicatorSet {
    /// Puts a record into its table, unless its source already said the same.
    fn index(&mut self, at: u32) {
        let Some(record) = self.store.record(at) else { return };
        let same_group =
            |other: u32| self.store.record(other).is_some_and(|other| other.group == record.group);
        let mut known = false;
        if record.group & IS_V4 != 0 {
            let hash = self.address_hash(record.value);
            let twice = self.addresses.find(hash, |other| {
                let equal = self.store.is_address(other, record.value);
                known |= equal;
                equal && same_group(other)
            });
            if twice.is_none() {
                self.addresses.insert(hash, at);
                self.counts.addresses += usize::from(!known);
            }
        } else if let Some((kind, bytes)) = self.store.keyed(record) {
            let hash = self.keyed_hash(kind, bytes);
            let twice = self.keyed.find(hash, |other| {
                let equal = self.store.is_keyed(other, kind, bytes);
                known |= equal;
                equal && same_group(other)
            });
            if twice.is_none() {
                self.keyed.insert(hash, at);
                let count = match kind {
                    NAME => &mut self.counts.names,
                    ENDPOINT => &mut self.counts.endpoints,
                    _ => &mut self.counts.addresses,
                };
                *count += usize::from(!known);
            }
        }
    }

    #[inline]
    fn address_hash(&self, bits: u32) -> u32 {
        (self.hasher.hash_one(bits) >> 32) as u32
    }

    #[inline]
    fn keyed_hash(&self, kind: u8, bytes: &[u8]) -> u32 {
        (self.hasher.hash_one((kind, bytes)) >> 32) as u32
    }

    /// Finds the indicator for an address that is valid at a time.
    #[must_use]
    #[inline]
    pub fn by_address(&self, address: IpAddr, at: Timestamp) -> Option<IndicatorRef> {
        let address = address.to_canonical();
        let found = match address {
            IpAddr::V4(v4) => {
                let bits = v4.to_bits();
                let mut best = Best { set: self, at, found: None };
                self.addresses.find(self.address_hash(bits), |place| {
                    best.consider(place, |store| store.is_address(place, bits));
                    false
                });
                best.found
            }
            IpAddr::V6(v6) => self.best_keyed(V6, &v6.octets(), at),
        }?;
        (!self.allowed.has_address(address)).then_some(found)
    }

    /// Finds the indicator for an address with a port that is valid at a time; one for the address
    /// alone is not looked for.
    #[must_use]
    pub fn by_endpoint(&self, end: SocketAddr, at: Timestamp) -> Option<IndicatorRef> {
        if self.counts.endpoints == 0 {
            return None;
        }
        let end = SocketAddr::new(end.ip().to_canonical(), end.port());
        let found = self.best_keyed(ENDPOINT, end.to_string().as_bytes(), at)?;
        let allowed = self.allowed.has_address(end.ip()) || self.allowed.endpoints.contains(&end);
        (!allowed).then_some(found)
    }

    /// Finds the indicator for a lower-case name, or for the nearest name above it, that is valid
    /// at a time.
    #[must_use]
    pub fn by_name(&self, name: &str, at: Timestamp) -> Option<IndicatorRef> {
        if self.counts.names == 0 {
            return None;
        }
        let found =
            suffixes(name).find_map(|suffix| self.best_keyed(NAME, suffix.as_bytes(), at))?;
        (!self.allowed.has_name(name)).then_some(found)
    }

    fn best_keyed(&self, kind: u8, bytes: &[u8], at: Timestamp) -> Option<IndicatorRef> {
        let mut best = Best { set: self, at, found: None };
        self.keyed.find(self.keyed_hash(kind, bytes), |place| {
            best.consider(place, |store| store.is_keyed(place, kind, bytes));
            false
        });
        best.found
    }

    /// Tells what is known of an indicator of this set.
    #[must_use]
    pub fn describe(&self, indicator: IndicatorRef) -> IndicatorDescription {
        let none = Record { value: 0, id: 0, group: u32::MAX };
        let record = self.store.record(indicator.0).unwrap_or(none);
        let (id, mut rule, mut described) = match self.store.provenance(record) {
            Some(from) if from.is_list => {
                let line = record.id.to_string();
                (format!("{}:{line}", from.source), format!("{}#{line}", from.origin), from.clone())
            }
            Some(from) => {
                let id = self.store.ids.get(record.id as usize).map_or("", |id| id);
                (id.to_owned(), format!("{}#{id}", from.origin), from.clone())
            }
            None => (String::new(), String::new(), unknown()),
        };
        IndicatorDescription {
            record: IndicatorRecord {
                id,
                value: self.store.value_text(record),
                source: std::mem::take(&mut described.source),
                confidence: described.confidence,
                valid_until: described.valid_until,
            },
            grade: described.grade,
            rule: std::mem::take(&mut rule),
        }
    }

    /// How many different indicators there are.
    #[must_use]
    pub const fn counts(&self) -> IndicatorCounts {
        self.counts
    }

    /// Bytes of memory held for the indicators.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.store.records.capacity() * size_of::<Record>()
            + self.store.arena.capacity()
            + self.addresses.bytes()
            + self.keyed.bytes()
    }

    /// Sets what the operator declares good, above every pack and list: addresses, networks,
    /// `address:port`, and names with all below them. Returns the entries that are none of these.
    pub fn set_allow(&mut self, allow: &[String]) -> Vec<String> {
        self.allowed = Allowed::default();
        let mut unknown = Vec::new();
        for text in allow {
            match Observable::parse(text.trim()) {
                Ok(Observable::Address(address)) => self.allowed.networks.push(address.into()),
                Ok(Observable::Endpoint(end)) => {
                    self.allowed.endpoints.insert(end);
                }
                Ok(Observable::Name(name)) => {
                    self.allowed.names.insert(name);
                }
                Err(_) => match text.trim().parse::<IpNet>() {
                    Ok(network) => self.allowed.networks.push(network),
                    Err(_) => unknown.push(text.clone()),
                },
            }
        }
        unknown
    }
}

/// Stands in for the provenance of an indicator from another set.
const fn unknown() -> Provenance {
    Provenance {
        grade: Grade::Odd,
        confidence: 0,
        valid_until: None,
        source: String::new(),
        origin: String::new(),
        is_list: false,
    }
}

/// A name and the names above it, down to two labels.
fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, above)| above))
        .filter(|suffix| suffix.contains('.'))
}

/// The strongest valid indicator among those for one observable.
struct Best<'s> {
    set: &'s IndicatorSet,
    at: Timestamp,
    found: Option<IndicatorRef>,
}

impl Best<'_> {
    fn consider(&mut self, place: u32, is_it: impl FnOnce(&Store) -> bool) {
        let store = &self.set.store;
        let rank = |at: u32| {
            store
                .record(at)
                .and_then(|record| store.provenance(record))
                .map(|from| (from.grade, from.confidence))
        };
        let valid = || {
            store
                .record(place)
                .and_then(|record| store.provenance(record))
                .is_some_and(|from| from.valid_until.is_none_or(|until| self.at <= until))
        };
        if is_it(store) && valid() && self.found.is_none_or(|found| rank(place) > rank(found.0)) {
            self.found = Some(IndicatorRef(place));
        }
    }
}

#[cfg(test)]
mod tests;
