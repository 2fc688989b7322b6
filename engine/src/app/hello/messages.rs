//! Handshake messages out of TLS records (RFC 8446 §5.1), wherever their borders lie.

use crate::app::reader::Reader;

/// Record content types (RFC 8446 §5.1).
const RECORD_ALERT: u8 = 21;
const RECORD_HANDSHAKE: u8 = 22;
/// A server may warn before its hello, that it does not know the name (RFC 6066 §3): such records
/// are passed over, as two bytes each, up to this many.
const WARNING: u8 = 1;
const MAX_WARNINGS: u8 = 4;
/// Longest record body a peer may send: 2^14 and the allowance of RFC 5246 §6.2.3.
const MAX_RECORD_LEN: u16 = (1 << 14) + 2048;

/// Why a message cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The stream ends before.
    Cut,
    /// Another kind of record or message, or one beyond the bounds.
    Other,
}

/// A cursor over the bytes of handshake messages in a stream of records.
#[derive(Clone, Copy)]
pub(super) struct Messages<'a> {
    /// What is left of the record at hand, as far as it is there.
    body: &'a [u8],
    /// Bytes of that record that are not there yet.
    owed: usize,
    /// The records after it.
    rest: &'a [u8],
    /// Warnings that were passed over.
    warnings: u8,
}

impl<'a> Messages<'a> {
    pub(super) const fn new(stream: &'a [u8]) -> Self {
        Self { body: &[], owed: 0, rest: stream, warnings: 0 }
    }

    /// Reads the body of the next message, which has to be of this kind.
    #[inline]
    pub(super) fn expect(&mut self, kind: u8, scratch: &'a mut [u8]) -> Result<&'a [u8], Fault> {
        if self.body.is_empty()
            && let Some(body) = Self::in_first_record(self.rest, kind)
        {
            return Ok(body);
        }
        let (found, len) = self.head()?;
        if found == kind { self.take(len, scratch) } else { Err(Fault::Other) }
    }

    /// The usual case in few steps: the message is all there, within the record the stream begins with.
    #[inline]
    fn in_first_record(stream: &'a [u8], wanted: u8) -> Option<&'a [u8]> {
        let (head, after) = stream.split_first_chunk::<9>()?;
        let [RECORD_HANDSHAKE, 3, 0..=4, r0, r1, kind, m0, m1, m2] = *head else { return None };
        let record = usize::from(u16::from_be_bytes([r0, r1]));
        let len = u32::from_be_bytes([0, m0, m1, m2]) as usize;
        if kind != wanted || len + 4 > record || record > usize::from(MAX_RECORD_LEN) {
            return None;
        }
        after.get(..len)
    }

    /// Reads the kind and length that a message starts with.
    #[inline]
    pub(super) fn head(&mut self) -> Result<(u8, usize), Fault> {
        let kind = self.byte()?;
        Ok((kind, self.u24()?))
    }

    pub(super) fn u24(&mut self) -> Result<usize, Fault> {
        let bytes = [0, self.byte()?, self.byte()?, self.byte()?];
        Ok(u32::from_be_bytes(bytes) as usize)
    }

    /// Takes `len` bytes: where they lie if they are in one record, else joined in `scratch`.
    #[inline]
    pub(super) fn take(&mut self, len: usize, scratch: &'a mut [u8]) -> Result<&'a [u8], Fault> {
        if let Some((taken, after)) = self.body.split_at_checked(len) {
            self.body = after;
            return Ok(taken);
        }
        if self.body.len() + self.owed >= len {
            return Err(Fault::Cut);
        }
        let joined = scratch.get_mut(..len).ok_or(Fault::Other)?;
        // Copied only once it is all there: a stream may grow by a byte each time it is read.
        Self::skip(&mut self.clone(), len)?;
        let mut filled = 0;
        while let Some(room) = joined.get_mut(filled..).filter(|room| !room.is_empty()) {
            self.fill()?;
            let part = self.step(room.len());
            for (to, from) in room.iter_mut().zip(part) {
                *to = *from;
            }
            filled += part.len();
        }
        Ok(joined)
    }

    /// Passes over `len` bytes.
    pub(super) fn skip(&mut self, mut len: usize) -> Result<(), Fault> {
        while len > 0 {
            self.fill()?;
            len -= self.step(len).len();
        }
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        self.fill()?;
        let (first, rest) = self.body.split_first().ok_or(Fault::Cut)?;
        self.body = rest;
        Ok(*first)
    }

    #[cold]
    fn pass_warning(&mut self, mut record: Reader<'a>) -> Result<(), Fault> {
        let len = record.u16().ok_or(Fault::Cut)?;
        let level = record.u8().ok_or(Fault::Cut)?;
        if len != 2 || level != WARNING || self.warnings >= MAX_WARNINGS {
            return Err(Fault::Other);
        }
        record.u8().ok_or(Fault::Cut)?;
        self.warnings += 1;
        self.rest = record.rest();
        self.fill()
    }

    /// At most `len` bytes of the record at hand.
    fn step(&mut self, len: usize) -> &'a [u8] {
        let (taken, after) = self.body.split_at(len.min(self.body.len()));
        self.body = after;
        taken
    }

    /// Goes on to the next record when the one at hand is used up.
    #[inline]
    fn fill(&mut self) -> Result<(), Fault> {
        if !self.body.is_empty() {
            return Ok(());
        }
        if self.owed > 0 {
            return Err(Fault::Cut);
        }
        let mut reader = Reader::new(self.rest);
        let or_cut = |field: Option<u8>| field.ok_or(Fault::Cut);
        let kind = or_cut(reader.u8())?;
        // SSL 3.0 to TLS 1.3 state major version 3 and minor versions 0 to 4 here.
        if !matches!(kind, RECORD_ALERT | RECORD_HANDSHAKE)
            || or_cut(reader.u8())? != 3
            || or_cut(reader.u8())? > 4
        {
            return Err(Fault::Other);
        }
        if kind == RECORD_ALERT {
            return self.pass_warning(reader);
        }
        let len = reader.u16().ok_or(Fault::Cut)?;
        if len == 0 || len > MAX_RECORD_LEN {
            return Err(Fault::Other);
        }
        let after = reader.rest();
        let len = usize::from(len);
        let (body, rest) = after.split_at(len.min(after.len()));
        (self.body, self.owed, self.rest) = (body, len - body.len(), rest);
        if body.is_empty() { Err(Fault::Cut) } else { Ok(()) }
    }
}
