//! The bytes that a set is kept in: its arrays one behind the other, checked when they are read.
//!
//! Numbers are little-endian. A file of such sections is no parse per indicator, and a forged one
//! is refused: nothing that is read here is believed.

use super::IndicatorSet;
use super::book::{Book, MOST_PROVENANCES, ProvenanceKey, Terms};
use super::builder::SetBuilder;
use super::networks::Net;
use super::record::{
    Arena, Form, MOST_RECORDS, MOST_TERMS, Record, SHARDS, Tag, compact_v4, shard_of,
    shard_of_net6, shard_of_v4, spread_v4,
};
use sekisho_schema::finding::{Grade, IndicatorClass};
use sekisho_schema::intel::Observable;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Bytes of a piece's header: five numbers.
const HEADER: usize = 20;
const TERMS: usize = 16;
const RECORD: usize = 12;
const NET4: usize = 16;
const NET6: usize = 28;

/// Why bytes are not what they claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadCompiledError {
    /// They end too soon or go on too long.
    #[error("the {0} is cut short or too long")]
    Length(&'static str),
    /// They hold something that no compiler writes.
    #[error("the {0} holds what no compiler writes")]
    Forged(&'static str),
    /// More than can be held.
    #[error("there are more indicators than can be held")]
    TooMany,
    /// The set was made of pieces of different origin.
    #[error("the set is of pieces that were not made together")]
    Mixed,
}

/// Origins of a compiled set, as the builder that reads it knows them.
#[derive(Clone, Debug)]
pub struct CompiledBook {
    /// The builder's number of each provenance.
    provenances: Vec<u32>,
}

impl IndicatorSet {
    /// The sections of this set: first its origins, then its pieces.
    ///
    /// # Errors
    /// When its pieces were not made together.
    pub fn sections(&self) -> Result<Vec<Vec<u8>>, ReadCompiledError> {
        let filled: Vec<_> = self.shards.iter().filter(|s| !s.book.origins.is_empty()).collect();
        let book = match filled.first() {
            Some(first) => &first.book,
            None => return Ok(vec![write_book(&Book::default())]),
        };
        if filled.iter().any(|shard| !Arc::ptr_eq(&shard.book, book)) {
            return Err(ReadCompiledError::Mixed);
        }
        let mut sections = vec![write_book(book)];
        for number in 0..SHARDS {
            sections.push(self.shards.get(number).map(|shard| shard.write()).unwrap_or_default());
        }
        Ok(sections)
    }
}

impl super::shard::Shard {
    fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(
            HEADER
                + self.terms.len() * TERMS
                + self.records.len() * RECORD
                + self.arena.0.len()
                + self.nets4.nets.len() * NET4
                + self.nets6.nets.len() * NET6,
        );
        for len in [
            self.terms.len(),
            self.records.len(),
            self.arena.0.len(),
            self.nets4.nets.len(),
            self.nets6.nets.len(),
        ] {
            number(&mut out, len as u32);
        }
        for terms in &self.terms {
            numbers_of(&mut out, [terms.provenance, terms.from, terms.until, terms.confidence]);
        }
        for record in &self.records {
            numbers_of(&mut out, [record.value, record.id, record.tag.0]);
        }
        out.extend_from_slice(&self.arena.0);
        for net in &self.nets4.nets {
            numbers_of(&mut out, [net.base, net.id, net.tag().0, net.prefix().into()]);
        }
        for net in &self.nets6.nets {
            out.extend_from_slice(&net.base.0.to_le_bytes());
            out.extend_from_slice(&net.base.1.to_le_bytes());
            numbers_of(&mut out, [net.id, net.tag().0, net.prefix().into()]);
        }
        out
    }
}

fn number(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn numbers_of<const N: usize>(out: &mut Vec<u8>, numbers: [u32; N]) {
    for one in numbers {
        number(out, one);
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    number(out, text.len() as u32);
    out.extend_from_slice(text.as_bytes());
}

fn write_book(book: &Book) -> Vec<u8> {
    let mut out = Vec::new();
    number(&mut out, book.origins.len() as u32);
    for origin in &book.origins {
        out.extend_from_slice(&origin.version.to_le_bytes());
        text(&mut out, &origin.name);
    }
    number(&mut out, book.provenances.len() as u32);
    for from in &book.provenances {
        number(&mut out, from.origin);
        out.push(match from.grade {
            Grade::Odd => 0,
            Grade::Suspect => 1,
            Grade::Malicious => 2,
        });
        out.push(match from.class {
            IndicatorClass::Threat => 0,
            IndicatorClass::Sinkhole => 1,
        });
        text(&mut out, &from.source);
        text(&mut out, &from.labels);
    }
    out
}

/// Takes numbers and texts off the front of bytes.
struct Cursor<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], ReadCompiledError> {
        let (taken, rest) =
            self.rest.split_at_checked(len).ok_or(ReadCompiledError::Length(self.what))?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, ReadCompiledError> {
        let length = ReadCompiledError::Length(self.what);
        self.take(1)?.first().copied().ok_or(length)
    }

    fn number(&mut self) -> Result<u32, ReadCompiledError> {
        let length = ReadCompiledError::Length(self.what);
        self.take(4)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)).ok_or(length)
    }

    fn text(&mut self) -> Result<&'a str, ReadCompiledError> {
        let len = self.number()? as usize;
        let forged = ReadCompiledError::Forged(self.what);
        std::str::from_utf8(self.take(len)?).map_err(|_| forged)
    }
}

impl SetBuilder {
    /// Takes the origins of a compiled set; they come after those that are there.
    pub(crate) fn read_book(&mut self, bytes: &[u8]) -> Result<CompiledBook, ReadCompiledError> {
        const WHAT: &str = "list of sources";
        let mut cursor = Cursor { rest: bytes, what: WHAT };
        let forged = ReadCompiledError::Forged(WHAT);
        let first = self.book.book.origins.len() as u32;
        let origins = cursor.number()?;
        for _ in 0..origins {
            let version = cursor.take(8)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            let name = cursor.text()?;
            if name.len() > 4096 || name.chars().any(char::is_control) {
                return Err(forged);
            }
            self.book.origin(name, version.ok_or(forged)?);
        }
        let count = cursor.number()? as usize;
        if count > MOST_PROVENANCES * 2 {
            return Err(forged);
        }
        let mut provenances = Vec::new();
        for _ in 0..count {
            let origin = cursor.number()?;
            let grade = match cursor.byte()? {
                0 => Grade::Odd,
                1 => Grade::Suspect,
                2 => Grade::Malicious,
                _ => return Err(forged),
            };
            let class = match cursor.byte()? {
                0 => IndicatorClass::Threat,
                1 => IndicatorClass::Sinkhole,
                _ => return Err(forged),
            };
            let (source, labels) = (cursor.text()?, cursor.text()?);
            if origin >= origins || source.len() > 4096 || labels.len() > 4096 {
                return Err(forged);
            }
            let key = ProvenanceKey { origin: first + origin, grade, class, source, labels };
            provenances.push(self.book.provenance(key));
        }
        if cursor.rest.is_empty() {
            Ok(CompiledBook { provenances })
        } else {
            Err(ReadCompiledError::Length(WHAT))
        }
    }

    /// Takes one piece of a compiled set; gives the number of its indicators.
    pub(crate) fn read_piece(
        &mut self,
        book: &CompiledBook,
        number: usize,
        bytes: &[u8],
    ) -> Result<u64, ReadCompiledError> {
        const WHAT: &str = "piece";
        let mut cursor = Cursor { rest: bytes, what: WHAT };
        let mut lens = [0_usize; 5];
        for len in &mut lens {
            *len = cursor.number()? as usize;
        }
        let [terms, records, arena, nets4, nets6] = lens;
        // All sizes hold before anything is made room for.
        let sizes = [(terms, TERMS), (records, RECORD), (arena, 1), (nets4, NET4), (nets6, NET6)];
        let whole = sizes
            .iter()
            .try_fold(0_usize, |sum, (len, size)| sum.checked_add(len.checked_mul(*size)?));
        if whole != Some(cursor.rest.len()) {
            return Err(ReadCompiledError::Length(WHAT));
        }
        let shard = self.shard(number).ok_or(ReadCompiledError::Forged(WHAT))?;
        let mut known = Vec::with_capacity(terms);
        for bytes in cursor.take(terms * TERMS)?.chunks_exact(TERMS) {
            let [provenance, from, until, confidence] = numbers(bytes);
            let provenance = book.provenances.get(provenance as usize).copied();
            let provenance = provenance.ok_or(ReadCompiledError::Forged("piece's terms"))?;
            let confidence = confidence.min(100);
            let at = shard.terms(Terms { provenance, from, until, confidence });
            known.push(at.ok_or(ReadCompiledError::TooMany)?);
        }
        let parts = &mut shard.parts;
        let record_bytes = cursor.take(records * RECORD)?;
        let base = u32::try_from(parts.arena.0.len()).ok();
        let base = base.filter(|base| base.checked_add(arena as u32).is_some());
        let base = base.filter(|_| parts.records.len() + records <= MOST_RECORDS);
        let base = base.ok_or(ReadCompiledError::TooMany)?;
        parts.arena.0.extend_from_slice(cursor.take(arena)?);
        parts.records.reserve(records);
        let move_to = Move { number, base, known: &known };
        for bytes in record_bytes.chunks_exact(RECORD) {
            let [value, id, tag] = numbers(bytes);
            let record = Record { value, id, tag: Tag(tag) };
            let moved = move_to.record(record, &parts.arena);
            parts.records.push(moved.ok_or(ReadCompiledError::Forged("piece's indicators"))?);
        }
        for bytes in cursor.take(nets4 * NET4)?.chunks_exact(NET4) {
            let [base, id, tag, prefix] = numbers(bytes);
            let net = move_to.net4(base, id, tag, prefix, &parts.arena);
            parts.nets4.push(net.ok_or(ReadCompiledError::Forged("piece's networks"))?);
        }
        for bytes in cursor.take(nets6 * NET6)?.chunks_exact(NET6) {
            let [low0, high0, low1, high1, id, tag, prefix] = numbers(bytes);
            let wide = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
            let base = (wide(low0, high0), wide(low1, high1));
            let net = move_to.net6(base, id, tag, prefix, &parts.arena);
            parts.nets6.push(net.ok_or(ReadCompiledError::Forged("piece's networks"))?);
        }
        Ok((records + nets4 + nets6) as u64)
    }
}

fn numbers<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut all = [0; N];
    for (number, four) in all.iter_mut().zip(bytes.chunks_exact(4)) {
        *number = four.first_chunk().map_or(0, |four| u32::from_le_bytes(*four));
    }
    all
}

/// How what a piece holds is moved behind what is there; `None` for what is no indicator.
struct Move<'m> {
    number: usize,
    base: u32,
    known: &'m [u32],
}

impl Move<'_> {
    fn tag(&self, tag: Tag, id: u32, arena: &Arena) -> Option<(Tag, u32)> {
        let terms = *self.known.get(tag.terms() as usize)?;
        if terms > MOST_TERMS {
            return None;
        }
        let id = if tag.has_text_id() {
            let id = id.checked_add(self.base)?;
            if !super::shard::is_kept_id(arena.text(id)?) {
                return None;
            }
            id
        } else {
            id
        };
        Some((tag.with_terms(terms), id))
    }

    fn record(&self, record: Record, arena: &Arena) -> Option<Record> {
        let (tag, id) = self.tag(record.tag, record.id, arena)?;
        let form = tag.form()?;
        if form == Form::V4 {
            let address = Ipv4Addr::from_bits(record.value);
            let nowhere =
                address.is_unspecified() || address.is_loopback() || address.is_broadcast();
            let is_here = shard_of_v4(record.value) == self.number;
            return (is_here && !nowhere).then_some(Record { value: record.value, id, tag });
        }
        let value = record.value.checked_add(self.base)?;
        let bytes = arena.text(value)?;
        let is_plain = |most: usize| {
            !bytes.is_empty()
                && bytes.len() <= most
                && bytes.iter().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase())
        };
        let fits = match form {
            Form::V4 => false,
            Form::V6 | Form::Ja3 => bytes.len() == 16,
            Form::Endpoint => matches!(bytes.len(), 6 | 18),
            Form::Certificate => matches!(bytes.len(), 16 | 20 | 32),
            // A name of one label would stand for a whole top-level domain.
            Form::Name => is_plain(253) && bytes.contains(&b'.'),
            Form::ExactName | Form::Ja4 => is_plain(253),
            Form::Url | Form::UrlPrefix => {
                bytes.contains(&b'/')
                    && !bytes.starts_with(b"/")
                    && std::str::from_utf8(bytes).is_ok()
            }
            Form::UserAgent => !bytes.is_empty() && std::str::from_utf8(bytes).is_ok(),
        };
        (fits && shard_of(bytes) == self.number).then_some(Record { value, id, tag })
    }

    fn net4(&self, base: u32, id: u32, tag: u32, prefix: u32, arena: &Arena) -> Option<Net<u32>> {
        let (tag, id) = self.tag(Tag(tag), id, arena)?;
        let prefix = u8::try_from(prefix).ok()?;
        let address = Ipv4Addr::from_bits(spread_v4(base, self.number));
        let network = ipnet::Ipv4Net::new(address, prefix).ok()?;
        is_network(network.into(), address.into())?;
        (compact_v4(address.to_bits()) == base).then_some(())?;
        Net::new(base, id, tag, prefix)
    }

    fn net6(
        &self,
        base: (u64, u64),
        id: u32,
        tag: u32,
        prefix: u32,
        arena: &Arena,
    ) -> Option<Net<(u64, u64)>> {
        let (tag, id) = self.tag(Tag(tag), id, arena)?;
        let prefix = u8::try_from(prefix).ok()?;
        let bits = u128::from(base.0) << 64 | u128::from(base.1);
        let address = Ipv6Addr::from_bits(bits);
        let network = ipnet::Ipv6Net::new(address, prefix).ok()?;
        is_network(network.into(), address.into())?;
        (shard_of_net6(bits) == self.number).then_some(())?;
        Net::new(base, id, tag, prefix)
    }
}

/// Whether a network is one that a text could have stood for.
fn is_network(network: ipnet::IpNet, base: std::net::IpAddr) -> Option<()> {
    let is_one = network.network() == base
        && matches!(Observable::network(network), Ok(Observable::Network(same)) if same == network);
    is_one.then_some(())
}
