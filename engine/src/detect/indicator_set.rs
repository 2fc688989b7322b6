//! Known observables in little memory, found exactly: addresses, networks, endpoints, names, URLs,
//! fingerprints, certificates and User-Agents.
//!
//! A set is made of sixteen pieces that are never changed, only exchanged: a set of a million
//! indicators is replaced while it is in use, with a sixteenth of its size held twice. A record is
//! twelve bytes, a slot of its index about five, and text stands once in an arena.

mod allowed;
mod book;
mod builder;
mod compiled;
mod index;
mod networks;
mod record;
mod shard;

pub use self::builder::Defaults;
pub(crate) use self::builder::{Mark, SetBuilder};
pub use self::compiled::{CompiledBook, ReadCompiledError};
pub use sekisho_schema::intel::{Kind, ParseObservableError as ParseIndicatorError};

use self::allowed::Allowed;
use self::record::{
    EndpointKey, Form, KINDS, SHARDS, place_of, shard_of, shard_of_net4, shard_of_net6, shard_of_v4,
};
use self::shard::Shard;
use ahash::RandomState;
use ipnet::IpNet;
use sekisho_schema::Timestamp;
use sekisho_schema::finding::{Grade, IndicatorClass, IndicatorRecord};
use sekisho_schema::intel::UrlPattern;
use sekisho_schema::sealed::unhex;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Levels of a path that a URL's prefix is looked for at.
const MOST_LEVELS: usize = 16;
/// Names above a name that are looked for at once.
const TOGETHER: usize = 4;
/// Room for a request's host and port before its target.
const AUTHORITY: usize = 300;

/// Where an indicator stands in its set; worth nothing in another set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndicatorRef {
    shard: u8,
    network: bool,
    v6: bool,
    at: u32,
}

/// What is known of an indicator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndicatorDescription {
    /// Id, value, source, confidence and validity; the value in its normal form.
    pub record: IndicatorRecord,
    /// Of which kind it is.
    pub kind: Kind,
    /// What a sighting is worth; never more than suspect for a kind that proves nothing alone.
    pub grade: Grade,
    /// `pack@version#id`; a list has version 0 and its line as id.
    pub rule: String,
}

/// An address or network that a cut can be made for before any packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The address, as a network of one, or the network.
    pub network: IpNet,
    /// The port, of an endpoint.
    pub port: Option<u16>,
    /// What a sighting is worth.
    pub grade: Grade,
    /// When it ceases to count.
    pub until: Option<Timestamp>,
}

/// How many different indicators a set holds, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndicatorCounts([usize; KINDS]);

impl IndicatorCounts {
    /// Those of a kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> usize {
        self.0.get(place_of(kind)).copied().unwrap_or(0)
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.iter().sum()
    }

    /// Each kind with its number.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, usize)> {
        Kind::ALL.into_iter().zip(self.0)
    }
}

/// A piece of a set, ready to be exchanged; what comes back may be dropped anywhere.
#[derive(Clone, Debug)]
pub struct Piece {
    number: usize,
    shard: Arc<Shard>,
}

impl Piece {
    /// Which piece of its set it is, from 0.
    #[must_use]
    pub const fn number(&self) -> usize {
        self.number
    }
}

/// Indicators with their provenance.
#[derive(Clone)]
pub struct IndicatorSet {
    shards: [Arc<Shard>; SHARDS],
    counts: IndicatorCounts,
    /// Numbers of labels that indicator names have, as bits.
    labels: u128,
    allowed: Allowed,
}

impl Default for IndicatorSet {
    fn default() -> Self {
        let empty = Arc::new(Shard::empty(RandomState::with_seeds(1, 2, 3, 4)));
        Self {
            shards: std::array::from_fn(|_| Arc::clone(&empty)),
            counts: IndicatorCounts::default(),
            labels: 0,
            allowed: Allowed::default(),
        }
    }
}

impl fmt::Debug for IndicatorSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndicatorSet").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl IndicatorSet {
    /// How many pieces a set has.
    pub const PIECES: usize = SHARDS;

    /// Puts a piece in the place of the one that is there, which is given back. Takes no time that
    /// depends on its size, as long as what comes back is dropped elsewhere.
    pub fn exchange(&mut self, piece: Piece) -> Piece {
        let Piece { number, shard } = piece;
        let Some(place) = self.shards.get_mut(number) else { return Piece { number, shard } };
        let old = std::mem::replace(place, shard);
        let mut counts = [0; KINDS];
        for shard in &self.shards {
            for (count, more) in counts.iter_mut().zip(shard.counts) {
                *count += more as usize;
            }
        }
        self.counts = IndicatorCounts(counts);
        self.labels = self.shards.iter().fold(0, |labels, shard| labels | shard.labels);
        Piece { number, shard: old }
    }

    /// Whether there is any indicator of a kind, so that what it is compared with is worth finding out.
    #[must_use]
    #[inline]
    pub fn has(&self, kind: Kind) -> bool {
        self.counts.of(kind) > 0
    }

    fn shard(&self, number: usize) -> Option<&Shard> {
        self.shards.get(number).map(AsRef::as_ref)
    }

    const fn found(shard: usize, at: u32) -> IndicatorRef {
        IndicatorRef { shard: shard as u8, network: false, v6: false, at }
    }

    /// Finds the indicator for an address, or else for the most exact network that holds it, that
    /// is valid at a time.
    #[must_use]
    #[inline]
    pub fn by_address(&self, address: IpAddr, at: Timestamp) -> Option<IndicatorRef> {
        let address = address.to_canonical();
        let single = || match address {
            IpAddr::V4(v4) => {
                let shard = shard_of_v4(v4.to_bits());
                Some(Self::found(shard, self.shard(shard)?.find_v4(v4.to_bits(), at)?))
            }
            IpAddr::V6(v6) => self.keyed(Form::V6, &v6.octets(), at),
        };
        let found = self.has(Kind::Address).then(single).flatten();
        let network = || self.has(Kind::Network).then(|| self.by_network(address, at)).flatten();
        let found = found.or_else(network)?;
        (!self.allowed.has_address(address)).then_some(found)
    }

    #[inline]
    fn by_network(&self, address: IpAddr, at: Timestamp) -> Option<IndicatorRef> {
        let (shard, v6, found) = match address {
            IpAddr::V4(v4) => {
                let shard = shard_of_net4(v4.to_bits());
                (shard, false, self.shard(shard)?.find_net4(v4.to_bits(), at))
            }
            IpAddr::V6(v6) => {
                let shard = shard_of_net6(v6.to_bits());
                (shard, true, self.shard(shard)?.find_net6(v6.to_bits(), at))
            }
        };
        Some(IndicatorRef { shard: shard as u8, network: true, v6, at: found? })
    }

    /// Finds the indicator for an address with a port that is valid at a time; one for the address
    /// alone is not looked for.
    #[must_use]
    #[inline]
    pub fn by_endpoint(&self, end: SocketAddr, at: Timestamp) -> Option<IndicatorRef> {
        if !self.has(Kind::Endpoint) {
            return None;
        }
        let key = EndpointKey::new(end);
        let found = self.keyed(Form::Endpoint, key.bytes(), at)?;
        let end = SocketAddr::new(end.ip().to_canonical(), end.port());
        (!self.allowed.has_endpoint(&end)).then_some(found)
    }

    /// Finds the indicator for a lower-case name, or for the nearest name above it, that is valid
    /// at a time.
    #[must_use]
    pub fn by_name(&self, name: &str, at: Timestamp) -> Option<IndicatorRef> {
        self.look_for_name(name, at).0
    }

    /// The same, and whether anything is said of the name, or of one above it, at whatever time.
    pub(super) fn look_for_name(&self, name: &str, at: Timestamp) -> (Option<IndicatorRef>, bool) {
        if !self.has(Kind::Domain) {
            return (None, false);
        }
        let is_whole = |suffix: &str| suffix.len() == name.len();
        let mut due = suffixes(name).filter(|(suffix, labels)| {
            is_whole(suffix) || self.labels >> (*labels).min(127) & 1 != 0
        });
        let mut is_stated = false;
        loop {
            // Each search waits for memory: a few of them wait side by side.
            let searches: [_; TOGETHER] = std::array::from_fn(|_| {
                let (suffix, _) = due.next()?;
                let number = shard_of(suffix.as_bytes());
                let shard = self.shard(number)?;
                let hash = shard.hash(Form::Name, suffix.as_bytes());
                shard.foresee(hash);
                Some((number, shard, hash, suffix))
            });
            let [Some(_), ..] = searches else { return (None, is_stated) };
            let found = searches.iter().flatten().find_map(|(number, shard, hash, suffix)| {
                let forms = (Form::Name, is_whole(suffix).then_some(Form::ExactName));
                let (place, said) = shard.look(*hash, forms, suffix.as_bytes(), at);
                is_stated |= said;
                Some(Self::found(*number, place?))
            });
            if let Some(found) = found {
                return ((!self.allowed.has_name(name)).then_some(found), true);
            }
        }
    }

    /// Finds the indicator for what a request asks for: `host` as its Host field or the authority
    /// of its target says, `port` for when neither names one. An indicator without a query fits any.
    #[must_use]
    pub fn by_url(
        &self,
        host: &str,
        target: &[u8],
        port: u16,
        at: Timestamp,
    ) -> Option<IndicatorRef> {
        if !self.has(Kind::Url) {
            return None;
        }
        let mut room = [0; UrlPattern::LONGEST + AUTHORITY];
        let (url, host) = UrlPattern::of_request(host, target, port, &mut room)?;
        let plain = url.split_once('?').map_or(url, |(plain, _)| plain);
        let exact = self.keyed(Form::Url, url.as_bytes(), at);
        let exact = exact.or_else(|| self.keyed(Form::Url, plain.as_bytes(), at));
        let above = || {
            let ends = plain.rmatch_indices('/').take(MOST_LEVELS);
            let mut prefixes = ends.filter_map(|(end, _)| plain.get(..=end));
            prefixes.find_map(|prefix| self.keyed(Form::UrlPrefix, prefix.as_bytes(), at))
        };
        let found = exact.or_else(above)?;
        (!self.allowed.has_url(host, url)).then_some(found)
    }

    /// Finds the indicator for a JA3 fingerprint that is valid at a time.
    #[must_use]
    pub fn by_ja3(&self, hash: &[u8; 16], at: Timestamp) -> Option<IndicatorRef> {
        self.exact(Kind::Ja3, Form::Ja3, hash, at)
    }

    /// Finds the indicator for a JA3 fingerprint in hexadecimal that is valid at a time.
    #[must_use]
    pub fn by_ja3_text(&self, text: &str, at: Timestamp) -> Option<IndicatorRef> {
        let mut hash = [0; 16];
        (unhex(text, &mut hash) == Some(16)).then(|| self.by_ja3(&hash, at)).flatten()
    }

    /// Finds the indicator for a JA4 fingerprint in lower case that is valid at a time.
    #[must_use]
    pub fn by_ja4(&self, text: &str, at: Timestamp) -> Option<IndicatorRef> {
        self.exact(Kind::Ja4, Form::Ja4, text.as_bytes(), at)
    }

    /// Finds the indicator for a certificate by any of its hashes (MD5, SHA-1 or SHA-256 of the DER)
    /// that is valid at a time.
    #[must_use]
    pub fn by_certificate(&self, hashes: &[&[u8]], at: Timestamp) -> Option<IndicatorRef> {
        let (kind, form) = (Kind::Certificate, Form::Certificate);
        if hashes.iter().any(|hash| self.allowed.has(kind, hash)) {
            return None;
        }
        hashes.iter().find_map(|hash| self.exact(kind, form, hash, at))
    }

    /// Finds the indicator for a whole User-Agent that is valid at a time.
    #[must_use]
    pub fn by_user_agent(&self, text: &[u8], at: Timestamp) -> Option<IndicatorRef> {
        self.exact(Kind::UserAgent, Form::UserAgent, text, at)
    }

    fn exact(&self, kind: Kind, form: Form, bytes: &[u8], at: Timestamp) -> Option<IndicatorRef> {
        if !self.has(kind) {
            return None;
        }
        let found = self.keyed(form, bytes, at)?;
        (!self.allowed.has(kind, bytes)).then_some(found)
    }

    #[inline]
    fn keyed(&self, form: Form, bytes: &[u8], at: Timestamp) -> Option<IndicatorRef> {
        let number = shard_of(bytes);
        let shard = self.shard(number)?;
        let found = shard.find(shard.hash(form, bytes), (form, None), bytes, at)?;
        Some(Self::found(number, found))
    }

    /// Has the memory fetched that looking for an address would read first.
    #[inline]
    pub(crate) fn foresee_address(&self, address: IpAddr) {
        if let IpAddr::V4(v4) = address.to_canonical()
            && self.has(Kind::Address)
            && let Some(shard) = self.shard(shard_of_v4(v4.to_bits()))
        {
            shard.foresee_v4(v4.to_bits());
        }
    }

    /// Whether the operator declared an address good, whatever is seen in its traffic.
    #[must_use]
    pub fn allows_address(&self, address: IpAddr) -> bool {
        self.allowed.has_address(address.to_canonical())
    }

    /// Whether the operator declared a lower-case name good.
    #[must_use]
    pub fn allows_name(&self, name: &str) -> bool {
        self.allowed.has_name(name)
    }

    /// Tells what is known of an indicator of this set.
    #[must_use]
    pub fn describe(&self, indicator: IndicatorRef) -> IndicatorDescription {
        let IndicatorRef { shard, network, v6, at } = indicator;
        self.shard(shard.into())
            .and_then(|shard| shard.describe(network, v6, at))
            .unwrap_or_else(unknown)
    }

    /// How many different indicators there are.
    #[must_use]
    pub const fn counts(&self) -> IndicatorCounts {
        self.counts
    }

    /// How many indicators each source brought, by kind; a value that two sources name counts for both.
    #[must_use]
    pub fn tally(&self) -> BTreeMap<(Kind, String), u64> {
        let mut tally = BTreeMap::new();
        for shard in &self.shards {
            for (origin, kinds) in shard.book.origins.iter().zip(&shard.tally) {
                for (kind, count) in Kind::ALL.into_iter().zip(kinds).filter(|(_, n)| **n > 0) {
                    *tally.entry((kind, origin.name.clone())).or_default() += u64::from(*count);
                }
            }
        }
        tally
    }

    /// Statements that said nothing new.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.shards.iter().map(|shard| u64::from(shard.duplicates)).sum()
    }

    /// Statements that have ceased to count at a time.
    #[must_use]
    pub fn expired(&self, at: Timestamp) -> u64 {
        self.shards.iter().map(|shard| shard.expired(at)).sum()
    }

    /// Addresses, endpoints and networks that are valid at a time and not allowed, in no order.
    pub fn targets(&self, at: Timestamp) -> impl Iterator<Item = Target> + '_ {
        self.shards.iter().flat_map(move |shard| shard.targets(at)).filter(|target| {
            let address = target.network.addr();
            !self.allowed.has_address(address)
                && target
                    .port
                    .is_none_or(|port| !self.allowed.has_endpoint(&SocketAddr::new(address, port)))
        })
    }

    /// Bytes of memory held for the indicators.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let books: BTreeMap<*const book::Book, usize> = self
            .shards
            .iter()
            .map(|shard| (Arc::as_ptr(&shard.book), shard.book.bytes()))
            .collect();
        self.shards.iter().map(|shard| shard.bytes()).sum::<usize>() + books.values().sum::<usize>()
    }

    /// Sets what the operator declares good, above every pack and list: whatever an indicator can
    /// be, networks of any width, and names with all below them. Returns the entries that are none
    /// of these.
    pub fn set_allow(&mut self, allow: &[String]) -> Vec<String> {
        self.allowed = Allowed::default();
        allow.iter().filter(|text| !self.allowed.add(text)).cloned().collect()
    }
}

/// Stands in for the description of an indicator from another set.
const fn unknown() -> IndicatorDescription {
    IndicatorDescription {
        record: IndicatorRecord {
            id: String::new(),
            value: String::new(),
            source: String::new(),
            confidence: 0,
            valid_until: None,
            class: IndicatorClass::Threat,
            labels: Vec::new(),
        },
        kind: Kind::Address,
        grade: Grade::Odd,
        rule: String::new(),
    }
}

/// A name and the names above it, down to two labels, each with the number of its labels.
fn suffixes(name: &str) -> impl Iterator<Item = (&str, usize)> {
    let labels = 1 + name.bytes().filter(|byte| *byte == b'.').count();
    std::iter::successors(Some((name, labels)), |(name, labels)| {
        let dot = name.bytes().position(|byte| byte == b'.')?;
        name.get(dot + 1..).map(|above| (above, labels - 1))
    })
    .take_while(|(_, labels)| *labels >= 2)
}

#[cfg(test)]
mod tests;
