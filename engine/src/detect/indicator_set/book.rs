//! Who says what: what many indicators share is kept once.

use hashbrown::{Equivalent, HashMap};
use sekisho_schema::Timestamp;
use sekisho_schema::finding::{Grade, IndicatorClass};
use std::hash::Hash;

/// Different statements about sources and families that are kept apart; a feed with more of them
/// loses the families, not the indicators.
pub(super) const MOST_PROVENANCES: usize = 1 << 16;

/// A pack, list or input: the unit of precedence and of counting. Its place is its precedence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) name: String,
    /// 0 for what has none.
    pub(crate) version: u64,
}

/// What the indicators of one source share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Provenance {
    pub(super) origin: u32,
    pub(super) grade: Grade,
    pub(super) class: IndicatorClass,
    /// Empty for the name of the origin.
    pub(super) source: String,
    /// Families, joined by `, `.
    pub(super) labels: String,
}

/// A provenance that is only looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ProvenanceKey<'a> {
    pub(super) origin: u32,
    pub(super) grade: Grade,
    pub(super) class: IndicatorClass,
    pub(super) source: &'a str,
    pub(super) labels: &'a str,
}

impl ProvenanceKey<'_> {
    fn owned(self) -> Provenance {
        Provenance {
            origin: self.origin,
            grade: self.grade,
            class: self.class,
            source: self.source.to_owned(),
            labels: self.labels.to_owned(),
        }
    }

    fn is(&self, other: &Provenance) -> bool {
        self.origin == other.origin
            && self.grade == other.grade
            && self.class == other.class
            && same(self.source, &other.source)
            && same(self.labels, &other.labels)
    }
}

/// Most sources say nothing here. To compare nothing at an address that is none costs a hundred
/// times a comparison where the C library does it with masked loads.
fn same(one: &str, other: &str) -> bool {
    one.len() == other.len() && (one.is_empty() || one == other)
}

impl Equivalent<Provenance> for ProvenanceKey<'_> {
    fn equivalent(&self, key: &Provenance) -> bool {
        self.is(key)
    }
}

/// Origins and provenances, by their places.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    pub(super) origins: Vec<Origin>,
    pub(super) provenances: Vec<Provenance>,
}

impl Book {
    pub(super) fn provenance(&self, terms: &Terms) -> Option<&Provenance> {
        self.provenances.get(terms.provenance as usize)
    }

    pub(super) fn bytes(&self) -> usize {
        let text: usize =
            self.provenances.iter().map(|p| p.source.capacity() + p.labels.capacity()).sum();
        let names: usize = self.origins.iter().map(|origin| origin.name.capacity()).sum();
        self.provenances.capacity() * size_of::<Provenance>()
            + self.origins.capacity() * size_of::<Origin>()
            + text
            + names
    }
}

/// A book that is being written.
#[derive(Debug)]
pub(super) struct BookBuilder {
    pub(super) book: Book,
    known: HashMap<Provenance, u32, ahash::RandomState>,
    last: Option<u32>,
}

impl BookBuilder {
    pub(super) fn new(hasher: ahash::RandomState) -> Self {
        Self { book: Book::default(), known: HashMap::with_hasher(hasher), last: None }
    }

    pub(super) fn origin(&mut self, name: &str, version: u64) -> u32 {
        self.book.origins.push(Origin { name: name.to_owned(), version });
        (self.book.origins.len() - 1) as u32
    }

    pub(super) fn provenance(&mut self, mut key: ProvenanceKey<'_>) -> u32 {
        if let Some(last) = self.last
            && self.book.provenances.get(last as usize).is_some_and(|known| key.is(known))
        {
            return last;
        }
        if self.book.provenances.len() >= MOST_PROVENANCES && !self.known.contains_key(&key) {
            (key.source, key.labels) = ("", "");
        }
        let next = self.book.provenances.len() as u32;
        let at = match self.known.get(&key) {
            Some(at) => *at,
            None => {
                self.known.insert(key.owned(), next);
                self.book.provenances.push(key.owned());
                next
            }
        };
        self.last = Some(at);
        at
    }
}

/// What is said of an indicator beside itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Terms {
    pub(super) provenance: u32,
    /// Seconds since the epoch from which it counts; 0 for ever since.
    pub(super) from: u32,
    /// Seconds since the epoch until which it counts; 0 for ever.
    pub(super) until: u32,
    pub(super) confidence: u32,
}

impl Terms {
    #[inline]
    pub(super) fn is_valid(&self, at: Timestamp) -> bool {
        const NANOS: i64 = 1_000_000_000;
        let at = at.nanos();
        (self.until == 0 || at <= i64::from(self.until) * NANOS)
            && (self.from == 0 || at >= i64::from(self.from) * NANOS)
    }

    /// Whole seconds, and something for every time that is not "never".
    pub(super) fn seconds(at: Option<Timestamp>) -> u32 {
        at.map_or(0, |at| u32::try_from(at.seconds().max(1)).unwrap_or(u32::MAX))
    }

    pub(super) fn valid_until(&self) -> Option<Timestamp> {
        (self.until != 0).then(|| Timestamp::from_nanos(i64::from(self.until) * 1_000_000_000))
    }
}
