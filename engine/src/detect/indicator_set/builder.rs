//! Collects indicators until they are made into a set.

use super::observable::{Observable, ParseIndicatorError};
use super::{ENDPOINT, IS_V4, IndicatorSet, NAME, Provenance, Record, Store, V6};
use crate::flow::table::IndexTable;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Collects indicators.
#[derive(Debug, Default)]
pub(crate) struct SetBuilder {
    store: Store,
    groups: BTreeMap<Provenance, u32>,
}

/// How much a builder held at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    records: usize,
    arena: usize,
    ids: usize,
}

impl SetBuilder {
    pub(crate) fn mark(&self) -> Mark {
        let store = &self.store;
        Mark { records: store.records.len(), arena: store.arena.len(), ids: store.ids.len() }
    }

    /// Forgets the indicators that came after a mark.
    pub(crate) fn return_to(&mut self, mark: Mark) {
        self.store.records.truncate(mark.records);
        self.store.arena.truncate(mark.arena);
        self.store.ids.truncate(mark.ids);
    }

    pub(crate) fn group(&mut self, provenance: Provenance) -> u32 {
        let next = self.store.groups.len() as u32;
        let groups = &mut self.store.groups;
        *self.groups.entry(provenance).or_insert_with_key(|provenance| {
            groups.push(provenance.clone());
            next
        })
    }

    pub(crate) fn keep_id(&mut self, id: &str) -> u32 {
        self.store.ids.push(id.into());
        (self.store.ids.len() - 1) as u32
    }

    pub(crate) fn add(
        &mut self,
        text: &str,
        group: u32,
        id: u32,
    ) -> Result<(), ParseIndicatorError> {
        let (value, group) = match Observable::parse(text)? {
            Observable::Address(IpAddr::V4(address)) => (address.to_bits(), group | IS_V4),
            Observable::Address(IpAddr::V6(address)) => (self.keep(V6, &address.octets())?, group),
            Observable::Endpoint(end) => (self.keep(ENDPOINT, end.to_string().as_bytes())?, group),
            Observable::Name(name) => (self.keep(NAME, name.as_bytes())?, group),
        };
        // The place `u32::MAX` means none.
        if self.store.records.len() >= u32::MAX as usize - 1 {
            return Err(ParseIndicatorError::TooMany);
        }
        self.store.records.push(Record { value, id, group });
        Ok(())
    }

    fn keep(&mut self, kind: u8, bytes: &[u8]) -> Result<u32, ParseIndicatorError> {
        let arena = &mut self.store.arena;
        let at = u32::try_from(arena.len()).map_err(|_| ParseIndicatorError::TooMany)?;
        let len = u8::try_from(bytes.len()).map_err(|_| ParseIndicatorError::Shape)?;
        arena.extend_from_slice(&[kind, len]);
        arena.extend_from_slice(bytes);
        Ok(at)
    }

    pub(crate) fn build(mut self) -> IndicatorSet {
        self.store.records.shrink_to_fit();
        self.store.arena.shrink_to_fit();
        let v4 = self.store.records.iter().filter(|record| record.group & IS_V4 != 0).count();
        let mut set = IndicatorSet {
            addresses: IndexTable::with_capacity(v4),
            keyed: IndexTable::with_capacity(self.store.records.len() - v4),
            store: self.store,
            ..IndicatorSet::default()
        };
        for at in 0..set.store.records.len() as u32 {
            set.index(at);
        }
        set
    }
}
