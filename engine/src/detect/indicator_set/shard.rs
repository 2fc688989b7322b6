//! A part of a set: records, their texts and the ways to find them. Never changed once made.

use super::IndicatorDescription;
use super::book::{Book, Terms};
use super::index::Index;
use super::networks::{Bits, Net, Networks};
use super::record::{
    Arena, EndpointKey, Form, KINDS, Record, Tag, compact_v4, hash_bytes, hash_v4, place_of,
    spread_v4, terms_at,
};
use ahash::RandomState;
use sekisho_schema::Timestamp;
use sekisho_schema::finding::{Grade, IndicatorRecord};
use sekisho_schema::intel::Kind;
use sekisho_schema::sealed::{hex, unhex};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Statements about one value that are kept; a feed that says a thing more often says nothing more.
const MOST_STATEMENTS: u32 = 32;

/// What a part is made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    pub(super) terms: Vec<Terms>,
    pub(super) records: Vec<Record>,
    pub(super) arena: Arena,
    pub(super) nets4: Vec<Net<u32>>,
    pub(super) nets6: Vec<Net<(u64, u64)>>,
}

/// A part of a set.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    number: usize,
    pub(super) book: Arc<Book>,
    pub(super) terms: Vec<Terms>,
    pub(super) records: Vec<Record>,
    pub(super) arena: Arena,
    index: Index,
    pub(super) nets4: Networks<u32>,
    pub(super) nets6: Networks<(u64, u64)>,
    /// Different indicators by kind.
    pub(super) counts: [u32; KINDS],
    /// Indicators by origin and kind.
    pub(super) tally: Vec<[u32; KINDS]>,
    /// What an origin said twice.
    pub(super) duplicates: u32,
    /// Numbers of labels that indicator names have, as bits.
    pub(super) labels: u128,
    hasher: RandomState,
}

impl Shard {
    pub(super) fn empty(hasher: RandomState) -> Self {
        Self::new(0, Parts::default(), Arc::new(Book::default()), hasher)
    }

    pub(super) fn new(number: usize, parts: Parts, book: Arc<Book>, hasher: RandomState) -> Self {
        let Parts { mut terms, mut records, mut arena, nets4, nets6 } = parts;
        terms.shrink_to_fit();
        records.shrink_to_fit();
        arena.0.shrink_to_fit();
        let tally = vec![[0; KINDS]; book.origins.len()];
        let mut shard = Self {
            number,
            index: Index::with_capacity(records.len()),
            book,
            terms,
            records,
            arena,
            nets4: Networks::new(nets4),
            nets6: Networks::new(nets6),
            counts: [0; KINDS],
            tally,
            duplicates: 0,
            labels: 0,
            hasher,
        };
        for at in 0..shard.records.len() {
            shard.index_record(at as u32);
        }
        shard.duplicates += shard.nets4.duplicates + shard.nets6.duplicates;
        shard.count_networks();
        shard
    }

    /// Puts a record into the index, unless its source already said the same.
    fn index_record(&mut self, at: u32) {
        let Some(record) = self.records.get(at as usize).copied() else { return };
        let Some(form) = record.tag.form() else { return };
        let bytes = if form == Form::V4 { &[][..] } else { self.bytes_of(record) };
        let hash = match form {
            Form::V4 => hash_v4(&self.hasher, record.value),
            form => hash_bytes(&self.hasher, form, bytes),
        };
        let (mut statements, mut twice) = (0, false);
        let empty = self.index.each(hash, |place| {
            let Some(other) = self.records.get(place as usize) else { return true };
            let equal = other.tag.is_form(form)
                && match form {
                    Form::V4 => other.value == record.value,
                    _ => self.bytes_of(*other) == bytes,
                };
            if equal {
                statements += 1;
                twice |= other.tag.terms() == record.tag.terms();
            }
            !twice && statements < MOST_STATEMENTS
        });
        let Some(empty) = empty else {
            self.duplicates += 1;
            return;
        };
        if form == Form::Name {
            let labels = 1 + bytes.iter().filter(|byte| **byte == b'.').count();
            self.labels |= 1 << labels.min(127);
        }
        self.index.put(empty, hash, at);
        self.count(form.kind(), record.tag, statements == 0);
    }

    fn count(&mut self, kind: Kind, tag: Tag, is_new: bool) {
        let place = place_of(kind);
        if is_new && let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
        let origin = terms_at(&self.terms, tag)
            .and_then(|terms| self.book.provenance(terms))
            .map_or(usize::MAX, |from| from.origin as usize);
        if let Some(count) = self.tally.get_mut(origin).and_then(|kinds| kinds.get_mut(place)) {
            *count += 1;
        }
    }

    fn count_networks(&mut self) {
        let v4: Vec<(Tag, bool)> = same_before(&self.nets4.nets);
        let v6: Vec<(Tag, bool)> = same_before(&self.nets6.nets);
        for (tag, is_new) in v4.into_iter().chain(v6) {
            self.count(Kind::Network, tag, is_new);
        }
    }

    fn bytes_of(&self, record: Record) -> &[u8] {
        self.arena.text(record.value).unwrap_or_default()
    }

    pub(super) fn tag_of(&self, network: bool, is_v6: bool, at: u32) -> Option<Tag> {
        let at = at as usize;
        match (network, is_v6) {
            (false, _) => self.records.get(at).map(|record| record.tag),
            (true, false) => self.nets4.nets.get(at).map(Net::tag),
            (true, true) => self.nets6.nets.get(at).map(Net::tag),
        }
    }

    /// How much a statement counts against others about the same: the origin that comes first, then
    /// the stronger. `None` when it does not count at that time.
    fn rank(&self, tag: Tag, at: Timestamp) -> Option<Rank> {
        let terms = terms_at(&self.terms, tag)?;
        if !terms.is_valid(at) {
            return None;
        }
        let from = self.book.provenance(terms)?;
        Some(Rank {
            origin: std::cmp::Reverse(from.origin),
            grade: from.grade,
            confidence: terms.confidence,
        })
    }

    #[inline]
    pub(super) fn find_v4(&self, bits: u32, at: Timestamp) -> Option<u32> {
        let mut best = Best::default();
        let hash = hash_v4(&self.hasher, bits);
        if !self.index.may_have(hash) {
            return None;
        }
        self.index.each(hash, |place| {
            if let Some(record) = self.records.get(place as usize)
                && record.value == bits
                && record.tag.is_form(Form::V4)
            {
                best.consider(place, self.rank(record.tag, at));
            }
            true
        });
        best.place
    }

    /// The hash that bytes of a form, or of another of its family, are found by.
    #[inline]
    pub(super) fn hash(&self, form: Form, bytes: &[u8]) -> u64 {
        hash_bytes(&self.hasher, form, bytes)
    }

    /// Has the memory fetched that a search for a hash reads first.
    #[inline]
    pub(super) fn foresee(&self, hash: u64) {
        self.index.foresee(hash);
    }

    /// The same for an address.
    #[inline]
    pub(super) fn foresee_v4(&self, bits: u32) {
        self.index.foresee(hash_v4(&self.hasher, bits));
    }

    /// Finds bytes of a form, or of another form of its family, by their hash.
    #[inline]
    pub(super) fn find(
        &self,
        hash: u64,
        forms: (Form, Option<Form>),
        bytes: &[u8],
        at: Timestamp,
    ) -> Option<u32> {
        self.look(hash, forms, bytes, at).0
    }

    /// The same, and whether anything is said of them at all, at whatever time.
    #[inline]
    pub(super) fn look(
        &self,
        hash: u64,
        (form, also): (Form, Option<Form>),
        bytes: &[u8],
        at: Timestamp,
    ) -> (Option<u32>, bool) {
        let mut best = Best::default();
        let mut is_stated = false;
        if !self.index.may_have(hash) {
            return (None, false);
        }
        self.index.each(hash, |place| {
            if let Some(record) = self.records.get(place as usize)
                && (record.tag.is_form(form) || also.is_some_and(|also| record.tag.is_form(also)))
                && self.bytes_of(*record) == bytes
            {
                is_stated = true;
                best.consider(place, self.rank(record.tag, at));
            }
            true
        });
        (best.place, is_stated)
    }

    #[inline]
    pub(super) fn find_net4(&self, bits: u32, at: Timestamp) -> Option<u32> {
        let mut nearest = Nearest { shard: self, at, best: Best::default(), prefix: 0 };
        self.nets4.each(compact_v4(bits), |place, net| nearest.consider(place, net));
        nearest.best.place
    }

    #[inline]
    pub(super) fn find_net6(&self, bits: u128, at: Timestamp) -> Option<u32> {
        let mut nearest = Nearest { shard: self, at, best: Best::default(), prefix: 0 };
        self.nets6
            .each(((bits >> 64) as u64, bits as u64), |place, net| nearest.consider(place, net));
        nearest.best.place
    }

    /// The value of an indicator in its normal form.
    fn value_text(&self, network: bool, is_v6: bool, at: u32) -> String {
        match (network, is_v6) {
            (true, false) => self.nets4.nets.get(at as usize).map_or_else(String::new, |net| {
                format!(
                    "{}/{}",
                    Ipv4Addr::from_bits(spread_v4(net.base, self.number)),
                    net.prefix()
                )
            }),
            (true, true) => self.nets6.nets.get(at as usize).map_or_else(String::new, |net| {
                let bits = u128::from(net.base.0) << 64 | u128::from(net.base.1);
                format!("{}/{}", Ipv6Addr::from_bits(bits), net.prefix())
            }),
            (false, _) => self
                .records
                .get(at as usize)
                .map_or_else(String::new, |record| self.text_of(*record)),
        }
    }

    fn text_of(&self, record: Record) -> String {
        let bytes = self.bytes_of(record);
        let text = || String::from_utf8_lossy(bytes).into_owned();
        match record.tag.form() {
            Some(Form::V4) => Ipv4Addr::from_bits(record.value).to_string(),
            Some(Form::V6) => <[u8; 16]>::try_from(bytes)
                .map_or_else(|_| String::new(), |octets| Ipv6Addr::from(octets).to_string()),
            Some(Form::Endpoint) => {
                EndpointKey::read(bytes).map_or_else(String::new, |end| end.to_string())
            }
            Some(Form::Name | Form::Url | Form::Ja4 | Form::UserAgent) => text(),
            Some(Form::ExactName) => format!("={}", text()),
            Some(Form::UrlPrefix) => format!("{}*", text()),
            Some(Form::Ja3 | Form::Certificate) => hex(bytes),
            None => String::new(),
        }
    }

    fn id_text(&self, tag: Tag, id: u32) -> String {
        if tag.has_text_id() {
            read_id(self.arena.text(id).unwrap_or_default())
        } else {
            id.to_string()
        }
    }

    /// What is known of an indicator.
    pub(super) fn describe(
        &self,
        network: bool,
        is_v6: bool,
        at: u32,
    ) -> Option<IndicatorDescription> {
        let place = at as usize;
        let tag = self.tag_of(network, is_v6, at)?;
        let (kind, id) = match (network, is_v6) {
            (true, false) => (Kind::Network, self.nets4.nets.get(place)?.id),
            (true, true) => (Kind::Network, self.nets6.nets.get(place)?.id),
            (false, _) => (tag.form()?.kind(), self.records.get(place)?.id),
        };
        let terms = terms_at(&self.terms, tag)?;
        let from = self.book.provenance(terms)?;
        let origin = self.book.origins.get(from.origin as usize)?;
        let id = self.id_text(tag, id);
        // What everything built on the same library shows proves nothing by itself, whoever says so.
        let grade = if kind.proves_alone() { from.grade } else { from.grade.min(Grade::Suspect) };
        let labels = from.labels.split(", ").filter(|label| !label.is_empty());
        Some(IndicatorDescription {
            rule: format!("{}@{}#{id}", origin.name, origin.version),
            kind,
            grade,
            record: IndicatorRecord {
                id: if tag.has_text_id() { id } else { format!("{}:{id}", origin.name) },
                value: self.value_text(network, is_v6, at),
                source: if from.source.is_empty() { &origin.name } else { &from.source }.clone(),
                confidence: u8::try_from(terms.confidence).unwrap_or(100),
                valid_until: terms.valid_until(),
                class: from.class,
                labels: labels.map(str::to_owned).collect(),
            },
        })
    }

    /// Addresses and networks with what they are worth, for whoever cuts ahead of any packet.
    pub(super) fn targets(&self, at: Timestamp) -> impl Iterator<Item = super::Target> + '_ {
        let worth = move |tag: Tag| {
            let terms = terms_at(&self.terms, tag).filter(|terms| terms.is_valid(at))?;
            Some((self.book.provenance(terms)?.grade, terms.valid_until()))
        };
        let single = move |record: &Record| {
            let (address, port) = match record.tag.form()? {
                Form::V4 => (IpAddr::from(Ipv4Addr::from_bits(record.value)), None),
                Form::V6 => {
                    (IpAddr::from(<[u8; 16]>::try_from(self.bytes_of(*record)).ok()?), None)
                }
                Form::Endpoint => {
                    let end = EndpointKey::read(self.bytes_of(*record))?;
                    (end.ip(), Some(end.port()))
                }
                Form::Certificate
                | Form::ExactName
                | Form::Ja3
                | Form::Ja4
                | Form::Name
                | Form::Url
                | Form::UrlPrefix
                | Form::UserAgent => return None,
            };
            let (grade, until) = worth(record.tag)?;
            Some(super::Target { network: address.into(), port, grade, until })
        };
        let nets4 = self.nets4.nets.iter().filter_map(move |net| {
            let (grade, until) = worth(net.tag())?;
            let base = Ipv4Addr::from_bits(spread_v4(net.base, self.number));
            let network = ipnet::IpNet::new(base.into(), net.prefix()).ok()?;
            Some(super::Target { network, port: None, grade, until })
        });
        let nets6 = self.nets6.nets.iter().filter_map(move |net| {
            let (grade, until) = worth(net.tag())?;
            let bits = u128::from(net.base.0) << 64 | u128::from(net.base.1);
            let network = ipnet::IpNet::new(Ipv6Addr::from_bits(bits).into(), net.prefix()).ok()?;
            Some(super::Target { network, port: None, grade, until })
        });
        self.records.iter().filter_map(single).chain(nets4).chain(nets6)
    }

    /// How many statements no longer count at a time.
    pub(super) fn expired(&self, at: Timestamp) -> u64 {
        let is_over = |tag: Tag| {
            terms_at(&self.terms, tag).and_then(Terms::valid_until).is_some_and(|until| until < at)
        };
        let records = self.records.iter().filter(|record| is_over(record.tag)).count();
        let nets4 = self.nets4.nets.iter().filter(|net| is_over(net.tag())).count();
        let nets6 = self.nets6.nets.iter().filter(|net| is_over(net.tag())).count();
        (records + nets4 + nets6) as u64
    }

    pub(super) const fn bytes(&self) -> usize {
        self.records.capacity() * size_of::<Record>()
            + self.terms.capacity() * size_of::<Terms>()
            + self.arena.0.capacity()
            + self.index.bytes()
            + self.nets4.bytes()
            + self.nets6.bytes()
    }
}

/// Each network's tag, and whether no network before it is the same one.
fn same_before<B: Bits>(nets: &[Net<B>]) -> Vec<(Tag, bool)> {
    let mut last: Option<&Net<B>> = None;
    nets.iter()
        .map(|net| {
            let is_same = last.is_some_and(|last| last.is_same(net));
            last = Some(net);
            (net.tag(), !is_same)
        })
        .collect()
}

/// UUIDs are half of what feeds say: they are kept as sixteen bytes.
const STIX_UUID: u8 = 1;
const PLAIN_UUID: u8 = 2;
const STIX_PREFIX: &str = "indicator--";
/// Bytes of the longest id that is kept.
const LONGEST_ID: usize = 120;

/// An id as it is kept.
pub(super) fn keep_id(id: &str) -> Vec<u8> {
    let (mark, text) = match id.strip_prefix(STIX_PREFIX) {
        Some(rest) => (STIX_UUID, rest),
        None => (PLAIN_UUID, id),
    };
    if text.len() == 36 && !text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let digits: String = text.chars().filter(|sign| *sign != '-').collect();
        let mut bytes = [0; 16];
        if unhex(&digits, &mut bytes) == Some(16) && uuid(&bytes) == text {
            return std::iter::once(mark).chain(bytes).collect();
        }
    }
    let shown: String = id.chars().filter(|sign| !sign.is_control()).collect();
    let end = shown.floor_char_boundary(LONGEST_ID);
    shown.as_bytes().get(..end).unwrap_or_default().to_vec()
}

/// Whether bytes are an id as [`keep_id`] keeps one.
pub(super) fn is_kept_id(kept: &[u8]) -> bool {
    match kept.split_first() {
        Some((&(STIX_UUID | PLAIN_UUID), rest)) => rest.len() == 16,
        _ => std::str::from_utf8(kept).is_ok(),
    }
}

fn read_id(kept: &[u8]) -> String {
    match kept.split_first() {
        Some((&STIX_UUID, rest)) => format!("{STIX_PREFIX}{}", uuid(rest)),
        Some((&PLAIN_UUID, rest)) => uuid(rest),
        _ => String::from_utf8_lossy(kept).into_owned(),
    }
}

fn uuid(bytes: &[u8]) -> String {
    let mut text = hex(bytes);
    for at in [20, 16, 12, 8] {
        if text.len() > at {
            text.insert(at, '-');
        }
    }
    text
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    origin: std::cmp::Reverse<u32>,
    grade: Grade,
    confidence: u32,
}

/// The statement that counts most among those about one observable.
#[derive(Default)]
struct Best {
    place: Option<u32>,
    rank: Option<Rank>,
}

impl Best {
    fn consider(&mut self, place: u32, rank: Option<Rank>) {
        if rank.is_some() && rank > self.rank {
            (self.place, self.rank) = (Some(place), rank);
        }
    }
}

/// The best statement about the most exact network that has one.
struct Nearest<'s> {
    shard: &'s Shard,
    at: Timestamp,
    best: Best,
    prefix: u8,
}

impl Nearest<'_> {
    fn consider<B: Bits>(&mut self, place: u32, net: &Net<B>) -> bool {
        if self.best.place.is_some() && net.prefix() != self.prefix {
            return false;
        }
        self.prefix = net.prefix();
        self.best.consider(place, self.shard.rank(net.tag(), self.at));
        true
    }
}
