//! Certificates in clear (RFC 5246 §7.4.2) and what they say of themselves (RFC 5280 §4.1).

use super::der::{Values, tag};
use super::messages::{Fault, Messages};
use super::{Reading, SERVER_HELLO, ServerHello};
use md5::Md5;
use sekisho_schema::Timestamp;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Handshake type `certificate` and those that only come after where it would be (RFC 5246 §7.4).
const CERTIFICATE: u8 = 11;
/// Handshake messages passed over before the certificate; there is one, the server's hello.
const MAX_BEFORE: usize = 4;
/// Version from which on certificates are enciphered (RFC 8446 §4.4.2).
const TLS_1_3: u16 = 0x0304;
/// Longest certificate that is looked at.
const MAX_DER_LEN: usize = super::SCRATCH_LEN;
/// Relative names that are read of one name, and bytes of the text made of them.
const MAX_PARTS: usize = 16;
const MAX_TEXT_LEN: usize = 512;

/// The server's own certificate of a TLS 1.2 or older handshake, DER (RFC 5280).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate<'a> {
    /// The whole certificate.
    pub der: &'a [u8],
}

/// From when until when a certificate says to be valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before: Timestamp,
    /// Last moment.
    pub not_after: Timestamp,
}

/// The fields of a certificate that are looked at, undecoded.
struct Fields<'a> {
    serial: &'a [u8],
    issuer: &'a [u8],
    validity: &'a [u8],
    subject: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Finds the server's own certificate in the first bytes that a TLS server sends: it is there
    /// from TLS 1.2 down, unless the session is resumed. What goes over several records is joined in
    /// `scratch` ([`super::SCRATCH_LEN`]), once it is all there.
    #[must_use]
    pub fn find(stream: &'a [u8], scratch: &'a mut [u8]) -> Reading<Self> {
        match Self::find_der(stream, scratch) {
            Ok(der) => Reading::Whole(Self { der }),
            Err(fault) => fault.into(),
        }
    }

    fn find_der(stream: &'a [u8], scratch: &'a mut [u8]) -> Result<&'a [u8], Fault> {
        let mut messages = Messages::new(stream);
        for _ in 0..MAX_BEFORE {
            let (kind, len) = messages.head()?;
            match kind {
                CERTIFICATE => {
                    let list = messages.u24()?;
                    let leaf = messages.u24()?;
                    if leaf == 0 || leaf + 3 > list || list + 3 > len || leaf > MAX_DER_LEN {
                        return Err(Fault::Other);
                    }
                    return messages.take(leaf, scratch);
                }
                SERVER_HELLO => {
                    if matches!(ServerHello::parse(stream), Reading::Whole(hello) if hello.selected_version() >= TLS_1_3)
                    {
                        return Err(Fault::Other);
                    }
                    messages.skip(len)?;
                }
                _ => return Err(Fault::Other),
            }
        }
        Err(Fault::Other)
    }

    /// SHA-256 of the whole certificate.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.der).0
    }

    /// SHA-1 of the whole certificate, as many lists name it.
    #[must_use]
    pub fn sha1(&self) -> [u8; 20] {
        Sha1::digest(self.der).0
    }

    /// MD5 of the whole certificate, as old lists name it.
    #[must_use]
    pub fn md5(&self) -> [u8; 16] {
        Md5::digest(self.der).0
    }

    /// Its subject as text in the manner of RFC 4514, at most 512 bytes; `None` when malformed.
    #[must_use]
    pub fn subject(&self) -> Option<String> {
        name_text(self.fields()?.subject)
    }

    /// Its issuer as text in the manner of RFC 4514, at most 512 bytes; `None` when malformed.
    #[must_use]
    pub fn issuer(&self) -> Option<String> {
        name_text(self.fields()?.issuer)
    }

    /// Its serial number, big-endian, without leading zeros (RFC 5280 allows 20 bytes).
    #[must_use]
    pub fn serial(&self) -> Option<&'a [u8]> {
        let serial = self.fields()?.serial;
        let zeros = serial.iter().take_while(|byte| **byte == 0).count();
        serial.get(zeros.min(serial.len().saturating_sub(1))..)
    }

    /// From when until when it says to be valid.
    #[must_use]
    pub fn validity(&self) -> Option<Validity> {
        let mut values = Values::new(self.fields()?.validity);
        let mut next = || values.next().and_then(|(tag, text)| time(tag, text));
        Some(Validity { not_before: next()?, not_after: next()? })
    }

    fn fields(&self) -> Option<Fields<'a>> {
        let outer = Values::new(self.der).expect(tag::SEQUENCE)?;
        let mut fields = Values::new(Values::new(outer).expect(tag::SEQUENCE)?);
        let serial = match fields.next()? {
            (tag::VERSION, _) => fields.expect(tag::INTEGER)?,
            (tag::INTEGER, serial) => serial,
            _ => return None,
        };
        let _algorithm = fields.expect(tag::SEQUENCE)?;
        let issuer = fields.expect(tag::SEQUENCE)?;
        let validity = fields.expect(tag::SEQUENCE)?;
        let subject = fields.expect(tag::SEQUENCE)?;
        Some(Fields { serial, issuer, validity, subject })
    }
}

/// Writes a name, its last part first (RFC 4514 §2.1).
fn name_text(name: &[u8]) -> Option<String> {
    let mut parts: [&[u8]; MAX_PARTS] = [&[]; MAX_PARTS];
    let mut used = 0;
    let mut values = Values::new(name);
    for room in &mut parts {
        let Some((tag::SET, part)) = values.next() else { break };
        *room = part;
        used += 1;
    }
    let mut out = String::new();
    for part in parts.get(..used)?.iter().rev() {
        let mut joint = ',';
        let mut pairs = Values::new(part);
        while let Some(pair) = pairs.expect(tag::SEQUENCE) {
            if !out.is_empty() {
                out.push(joint);
            }
            joint = '+';
            let mut pair = Values::new(pair);
            push_type(&mut out, pair.expect(tag::OID)?);
            out.push('=');
            let (kind, value) = pair.next()?;
            push_value(&mut out, kind, value);
            if out.len() >= MAX_TEXT_LEN {
                let end = (0..=MAX_TEXT_LEN).rev().find(|at| out.is_char_boundary(*at))?;
                out.truncate(end);
                return Some(out);
            }
        }
    }
    Some(out)
}

/// The short name of an attribute type (RFC 4514 §3, RFC 4519), else its numbers.
fn push_type(out: &mut String, oid: &[u8]) {
    let short = match oid {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 4] => "SN",
        [0x55, 4, 5] => "serialNumber",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 9] => "STREET",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x55, 4, 12] => "title",
        [0x55, 4, 42] => "GN",
        [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 9, 1] => "emailAddress",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 1, 25] => "DC",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 1, 1] => "UID",
        _ => return push_oid(out, oid),
    };
    out.push_str(short);
}

/// Dotted numbers of an object identifier (X.690 §8.19), as far as the text has room.
fn push_oid(out: &mut String, oid: &[u8]) {
    let mut value = 0_u64;
    let mut first = true;
    for byte in oid.iter().take(MAX_PARTS * 2) {
        value = value << 7 | u64::from(byte & 0x7F);
        if byte & 0x80 == 0 {
            // Writing to a string cannot fail.
            let _ = if first {
                let root = (value / 40).min(2);
                write!(out, "{root}.{}", value - root * 40)
            } else {
                write!(out, ".{value}")
            };
            (value, first) = (0, false);
        }
    }
}

fn push_value(out: &mut String, kind: u8, value: &[u8]) {
    let value = value.get(..MAX_TEXT_LEN).unwrap_or(value);
    match kind {
        tag::UTF8_STRING | tag::PRINTABLE_STRING | tag::IA5_STRING => {
            for chunk in value.utf8_chunks() {
                push_escaped(out, chunk.valid().chars());
                push_escaped(out, chunk.invalid().iter().map(|byte| char::from(*byte)));
            }
        }
        tag::T61_STRING => push_escaped(out, value.iter().map(|byte| char::from(*byte))),
        tag::BMP_STRING => {
            let units = value.as_chunks::<2>().0.iter().map(|unit| u16::from_be_bytes(*unit));
            let text = char::decode_utf16(units);
            push_escaped(out, text.map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)));
        }
        _ => {
            out.push('#');
            for byte in value {
                let _ = write!(out, "{byte:02x}");
            }
        }
    }
}

/// Escapes what RFC 4514 §2.4 names, and every control character.
fn push_escaped(out: &mut String, text: impl Iterator<Item = char>) {
    let mut text = text.peekable();
    let mut first = true;
    while let Some(letter) = text.next() {
        let begins = std::mem::take(&mut first);
        let edge = begins || text.peek().is_none();
        match letter {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', letter]),
            ' ' if edge => out.push_str("\\ "),
            '#' if begins => out.push_str("\\#"),
            control if control.is_control() => {
                let mut bytes = [0; 4];
                for byte in control.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(out, "\\{byte:02X}");
                }
            }
            plain => out.push(plain),
        }
    }
}

/// UTCTime and GeneralizedTime in the forms of RFC 5280 §4.1.2.5: to the second, in UTC.
fn time(kind: u8, text: &[u8]) -> Option<Timestamp> {
    let (digits, b'Z') = text.split_last().map(|(last, digits)| (digits, *last))? else {
        return None;
    };
    let (year, rest) = match kind {
        tag::UTC_TIME => {
            let (year, rest) = digits.split_first_chunk::<2>()?;
            let year = number(year)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        tag::GENERALIZED_TIME => {
            let (year, rest) = digits.split_first_chunk::<4>()?;
            (number(year)?, rest)
        }
        _ => return None,
    };
    let [mo0, mo1, d0, d1, h0, h1, mi0, mi1, s0, s1] = *rest.first_chunk::<10>()?;
    let [month, day, hour, minute, second] =
        [[mo0, mo1], [d0, d1], [h0, h1], [mi0, mi1], [s0, s1]].map(|pair| number(&pair));
    let (month, day) = (month.filter(|it| (1..=12).contains(it))?, day?);
    let seconds = days(year, month, day) * 86_400 + hour? * 3600 + minute? * 60 + second?;
    Some(Timestamp::from_nanos(seconds.saturating_mul(1_000_000_000)))
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |value, digit| {
        digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0'))
    })
}

/// Days from the epoch to a date of the Gregorian calendar, with the year begun in March.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year / 4 - year / 100 + year / 400 + of_year - 719_468
}
