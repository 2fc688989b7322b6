//! Collects indicators until they are made into a set.

use super::book::{Book, BookBuilder, ProvenanceKey, Terms};
use super::networks::Net;
use super::record::{Form, Key, MOST_RECORDS, MOST_TERMS, Record, SHARDS, Tag, compact_v4};
use super::shard::{Parts, Shard, keep_id};
use super::{IndicatorSet, Piece};
use ahash::RandomState;
use hashbrown::HashMap;
use ipnet::IpNet;
use sekisho_schema::finding::Grade;
use sekisho_schema::intel::{Facts, Id, Observable, ParseObservableError};
use std::sync::Arc;

/// Bytes of the families that are kept of one indicator.
const LONGEST_LABELS: usize = 120;
/// Bytes of the name of a source that are kept.
const LONGEST_SOURCE: usize = 200;

/// What counts where a source says nothing.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// What a sighting is worth.
    pub grade: Grade,
    /// 0 to 100.
    pub confidence: u8,
}

/// Collects indicators, of all parts of a set or of one.
#[derive(Debug)]
pub(crate) struct SetBuilder {
    pub(super) book: BookBuilder,
    shards: Vec<ShardBuilder>,
    only: Option<usize>,
    hasher: RandomState,
}

#[derive(Debug)]
pub(super) struct ShardBuilder {
    pub(super) parts: Parts,
    known: HashMap<Terms, u32, RandomState>,
    last: Option<(Terms, u32)>,
}

/// How much a builder held at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Mark(Vec<[usize; 4]>);

impl Default for SetBuilder {
    fn default() -> Self {
        Self::seeded(1)
    }
}

impl SetBuilder {
    /// A builder whose tables nobody can foresee who does not know the seed.
    pub(crate) fn seeded(seed: u64) -> Self {
        let hasher = RandomState::with_seeds(seed, 2, 3, 4);
        Self {
            book: BookBuilder::new(hasher.clone()),
            shards: (0..SHARDS).map(|_| ShardBuilder::new(hasher.clone())).collect(),
            only: None,
            hasher,
        }
    }

    /// From now on keeps only what belongs to one part.
    pub(crate) const fn keep_only(&mut self, shard: usize) {
        self.only = Some(shard);
    }

    pub(crate) const fn keeps(&self, shard: usize) -> bool {
        match self.only {
            None => true,
            Some(only) => only == shard,
        }
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark(self.shards.iter().map(|shard| shard.parts.lens()).collect())
    }

    /// Forgets the indicators that came after a mark.
    pub(crate) fn return_to(&mut self, mark: &Mark) {
        for (shard, lens) in self.shards.iter_mut().zip(&mark.0) {
            shard.parts.cut(*lens);
        }
    }

    /// A pack, list or input begins; those that came before it take precedence.
    pub(crate) fn origin(&mut self, name: &str, version: u64) -> u32 {
        self.book.origin(name, version)
    }

    pub(super) fn shard(&mut self, number: usize) -> Option<&mut ShardBuilder> {
        self.shards.get_mut(number)
    }

    /// Adds an indicator.
    pub(crate) fn put(
        &mut self,
        observable: &Observable<'_>,
        origin: u32,
        facts: &Facts<'_>,
        defaults: Defaults,
    ) -> Result<(), ParseObservableError> {
        let key = Key::of(observable);
        let number = key.shard();
        if !self.keeps(number) {
            return Ok(());
        }
        let grade = facts.grade.unwrap_or(defaults.grade);
        // What everything built on the same library shows proves nothing by itself.
        let grade =
            if observable.kind().proves_alone() { grade } else { grade.min(Grade::Suspect) };
        let provenance = self.book.provenance(ProvenanceKey {
            origin,
            grade,
            class: facts.class,
            source: short(facts.source.unwrap_or_default(), LONGEST_SOURCE),
            labels: short(facts.labels, LONGEST_LABELS),
        });
        let terms = Terms {
            provenance,
            from: Terms::seconds(facts.valid_from),
            until: Terms::seconds(facts.valid_until),
            confidence: facts.confidence.unwrap_or(defaults.confidence).min(100).into(),
        };
        let full = ParseObservableError::TooMany;
        let Some(shard) = self.shards.get_mut(number) else { return Err(full) };
        shard.put(&key, terms, facts.id).ok_or(full)
    }

    pub(crate) fn build(self) -> IndicatorSet {
        let Self { book, shards, hasher, .. } = self;
        let book = Arc::new(book.book);
        let mut set = IndicatorSet::default();
        for (number, shard) in shards.into_iter().enumerate() {
            if !shard.parts.is_empty() {
                set.exchange(piece(number, shard, &book, &hasher));
            }
        }
        set
    }

    /// Makes one part of a set.
    pub(crate) fn build_piece(mut self, number: usize) -> Piece {
        let fresh = || ShardBuilder::new(self.hasher.clone());
        let shard = match self.shards.get_mut(number) {
            Some(shard) => std::mem::replace(shard, fresh()),
            None => fresh(),
        };
        piece(number, shard, &Arc::new(self.book.book), &self.hasher)
    }
}

fn piece(number: usize, shard: ShardBuilder, book: &Arc<Book>, hasher: &RandomState) -> Piece {
    let ShardBuilder { parts, known, .. } = shard;
    drop(known);
    Piece { number, shard: Arc::new(Shard::new(number, parts, Arc::clone(book), hasher.clone())) }
}

fn short(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}

impl Parts {
    fn lens(&self) -> [usize; 4] {
        [self.records.len(), self.arena.0.len(), self.nets4.len(), self.nets6.len()]
    }

    fn cut(&mut self, [records, arena, nets4, nets6]: [usize; 4]) {
        self.records.truncate(records);
        self.arena.0.truncate(arena);
        self.nets4.truncate(nets4);
        self.nets6.truncate(nets6);
    }

    fn is_empty(&self) -> bool {
        self.lens() == [0; 4]
    }
}

impl ShardBuilder {
    fn new(hasher: RandomState) -> Self {
        Self { parts: Parts::default(), known: HashMap::with_hasher(hasher), last: None }
    }

    pub(super) fn terms(&mut self, terms: Terms) -> Option<u32> {
        if let Some((last, at)) = self.last
            && last == terms
        {
            return Some(at);
        }
        let next = u32::try_from(self.parts.terms.len()).ok().filter(|at| *at < MOST_TERMS)?;
        let at = *self.known.entry(terms).or_insert_with(|| {
            self.parts.terms.push(terms);
            next
        });
        self.last = Some((terms, at));
        Some(at)
    }

    fn put(&mut self, key: &Key<'_>, terms: Terms, id: Id<'_>) -> Option<()> {
        if self.parts.records.len() >= MOST_RECORDS {
            return None;
        }
        let terms = self.terms(terms)?;
        let (id, is_text) = match id {
            Id::Line(line) => (line, false),
            Id::Text(text) => (self.parts.arena.keep(&keep_id(text))?, true),
        };
        let arena = &mut self.parts.arena;
        let (form, value) = match key {
            Key::V4(bits) => (Form::V4, *bits),
            Key::Endpoint(end) => (Form::Endpoint, arena.keep(end.bytes())?),
            Key::Bytes(form, bytes) => (*form, arena.keep(bytes)?),
            Key::Octets(form, bytes) => (*form, arena.keep(bytes)?),
            Key::Network(network) => {
                return self.network(*network, id, Tag::of_network(is_text, terms));
            }
        };
        self.parts.records.push(Record { value, id, tag: Tag::new(form, is_text, terms) });
        Some(())
    }

    fn network(&mut self, network: IpNet, id: u32, tag: Tag) -> Option<()> {
        let prefix = network.prefix_len();
        match network {
            IpNet::V4(net) => {
                let base = compact_v4(net.network().to_bits());
                self.parts.nets4.push(Net::new(base, id, tag, prefix)?);
            }
            IpNet::V6(net) => {
                let bits = net.network().to_bits();
                let base = ((bits >> 64) as u64, bits as u64);
                self.parts.nets6.push(Net::new(base, id, tag, prefix)?);
            }
        }
        Some(())
    }
}
