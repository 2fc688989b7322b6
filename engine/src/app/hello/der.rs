//! The part of DER (X.690) that certificates need: definite lengths, low tag numbers.

use crate::app::reader::Reader;

/// Universal tags (X.680 §8.6) and the explicit ones of a certificate (RFC 5280 §4.1).
pub(super) mod tag {
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const OID: u8 = 0x06;
    pub(crate) const BMP_STRING: u8 = 0x1E;
    pub(crate) const GENERALIZED_TIME: u8 = 0x18;
    pub(crate) const IA5_STRING: u8 = 0x16;
    pub(crate) const PRINTABLE_STRING: u8 = 0x13;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x31;
    pub(crate) const T61_STRING: u8 = 0x14;
    pub(crate) const UTC_TIME: u8 = 0x17;
    pub(crate) const UTF8_STRING: u8 = 0x0C;
    pub(crate) const VERSION: u8 = 0xA0;
}

/// Values one behind the other.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    rest: &'a [u8],
}

impl<'a> Values<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Takes the next value, as tag and content; `None` at the end or when malformed.
    pub(super) fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let mut reader = Reader::new(self.rest);
        let tag = reader.u8().filter(|tag| tag & 0x1F != 0x1F)?;
        let len = match reader.u8()? {
            short @ 0..=0x7F => usize::from(short),
            0x81 => usize::from(reader.u8()?),
            0x82 => usize::from(reader.u16()?),
            0x83 => reader.u24()?,
            _ => return None,
        };
        let content = reader.take(len)?;
        self.rest = reader.rest();
        Some((tag, content))
    }

    /// Takes the next value, which has to have this tag.
    pub(super) fn expect(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == wanted).map(|(_, content)| content)
    }
}
