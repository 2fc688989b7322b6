//! Fingerprints of hellos: JA3 and JA3S (Salesforce, BSD-3-Clause) and JA4 (FoxIO, the TLS client
//! fingerprint alone, BSD-3-Clause), each from its published definition.
//!
//! They are computed when asked for, without an allocation, in time linear in the hello (JA4: and
//! the sorting of its lists).

use super::{
    ALPN, ClientHello, POINT_FORMATS, SERVER_NAME, SIGNATURE_ALGORITHMS, SUPPORTED_GROUPS,
    ServerHello, is_grease, words,
};
use md5::Md5;
use sha2::{Digest, Sha256, digest::Output};
use std::fmt;

/// Values that are sorted on a small part of the stack: what every real client stays below.
const FEW: usize = 128;
/// The most values that a length of sixteen bits leaves room for.
const MOST: usize = 1 << 15;
/// Bytes gathered before they are hashed: two blocks of MD5 and SHA-256.
const GATHERED: usize = 128;
/// What stands for the hash of an empty list.
const NOTHING: [u8; 12] = *b"000000000000";

/// A JA4 fingerprint: 36 characters (FoxIO JA4, BSD-3-Clause part).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ja4(pub [u8; 36]);

impl Ja4 {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Ja4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ClientHello<'_> {
    /// JA3: the MD5 of [`ClientHello::ja3_text`].
    #[must_use]
    pub fn ja3(&self) -> [u8; 16] {
        let mut hash = Gathered::<Md5>::new();
        self.ja3_parts(&mut |part| hash.put(part));
        hash.finish().0
    }

    /// Writes what JA3 hashes: version, cipher suites, extensions, groups and point formats, in the
    /// order of the client, without the reserved values of RFC 8701.
    ///
    /// # Errors
    ///
    /// Only those of `out`.
    pub fn ja3_text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let mut done = Ok(());
        self.ja3_parts(&mut |part| write_ascii(&mut done, out, part));
        done
    }

    fn ja3_parts(&self, put: &mut impl FnMut(&[u8])) {
        put_decimal(self.version, put);
        put(b",");
        put_list(words(self.suites), put);
        put(b",");
        put_list(self.each_extension().map(|(kind, _)| kind), put);
        put(b",");
        put_list(words(self.behind(SUPPORTED_GROUPS, 2)), put);
        put(b",");
        put_list(self.behind(POINT_FORMATS, 1).iter().map(|byte| u16::from(*byte)), put);
    }

    /// The content of an extension behind the length of its list.
    fn behind(&self, kind: u16, len: usize) -> &[u8] {
        self.extension(kind).and_then(|content| content.get(len..)).unwrap_or_default()
    }

    /// JA4, with `q` for a hello from QUIC and `t` for one from a stream.
    #[must_use]
    pub fn ja4(&self) -> Ja4 {
        let mut out = *b"t00i000000_000000000000_000000000000";
        if let Some(front) = out.first_chunk_mut::<10>() {
            *front = self.ja4_front();
        }
        let mut place = |at: usize, hash: [u8; 12]| {
            if let Some(room) = out.get_mut(at..at + 12) {
                room.copy_from_slice(&hash);
            }
        };
        place(11, sorted(self.ja4_suites(), |suites| hash_of(suites, [].into_iter())));
        place(24, sorted(self.ja4_extensions(), |kinds| hash_of(kinds, self.ja4_signatures())));
        Ja4(out)
    }

    /// Writes the raw form of JA4 (`JA4_r`): the lists in place of their hashes.
    ///
    /// # Errors
    ///
    /// Only those of `out`.
    pub fn ja4_text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let mut done = Ok(());
        let mut put = |part: &[u8]| write_ascii(&mut done, out, part);
        put(&self.ja4_front());
        put(b"_");
        sorted(self.ja4_suites(), |suites| put_hex_list(suites.iter().copied(), &mut put));
        put(b"_");
        sorted(self.ja4_extensions(), |kinds| put_hex_list(kinds.iter().copied(), &mut put));
        let mut signatures = self.ja4_signatures().peekable();
        if signatures.peek().is_some() {
            put(b"_");
            put_hex_list(signatures, &mut put);
        }
        done
    }

    /// The readable part: protocol, version, whether a name is sent, counts, application protocol.
    fn ja4_front(&self) -> [u8; 10] {
        let [v0, v1] = match self.supported_version() {
            0x0304 => *b"13",
            0x0303 => *b"12",
            0x0302 => *b"11",
            0x0301 => *b"10",
            0x0300 => *b"s3",
            0x0002 => *b"s2",
            _ => *b"00",
        };
        let name = if self.extension(SERVER_NAME).is_some() { b'd' } else { b'i' };
        let [s0, s1] = two_digits(self.ja4_suites().count());
        let kinds = self.each_extension().filter(|(kind, _)| !is_grease(*kind)).count();
        let [e0, e1] = two_digits(kinds);
        let [a0, a1] = ends(self.alpn().unwrap_or_default());
        [if self.quic { b'q' } else { b't' }, v0, v1, name, s0, s1, e0, e1, a0, a1]
    }

    fn ja4_suites(&self) -> impl Iterator<Item = u16> + Clone {
        words(self.suites).filter(|suite| !is_grease(*suite))
    }

    fn ja4_extensions(&self) -> impl Iterator<Item = u16> + Clone {
        self.each_extension()
            .map(|(kind, _)| kind)
            .filter(|kind| !is_grease(*kind) && !matches!(*kind, SERVER_NAME | ALPN))
    }

    fn ja4_signatures(&self) -> impl Iterator<Item = u16> + Clone {
        words(self.behind(SIGNATURE_ALGORITHMS, 2)).filter(|algorithm| !is_grease(*algorithm))
    }
}

impl ServerHello<'_> {
    /// JA3S: the MD5 of [`ServerHello::ja3s_text`].
    #[must_use]
    pub fn ja3s(&self) -> [u8; 16] {
        let mut hash = Gathered::<Md5>::new();
        self.ja3s_parts(&mut |part| hash.put(part));
        hash.finish().0
    }

    /// Writes what JA3S hashes: version, cipher suite and extensions.
    ///
    /// # Errors
    ///
    /// Only those of `out`.
    pub fn ja3s_text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let mut done = Ok(());
        self.ja3s_parts(&mut |part| write_ascii(&mut done, out, part));
        done
    }

    fn ja3s_parts(&self, put: &mut impl FnMut(&[u8])) {
        put_decimal(self.version, put);
        put(b",");
        put_decimal(self.suite, put);
        put(b",");
        put_list(self.each_extension().map(|(kind, _)| kind), put);
    }
}

/// A hash that takes its small pieces together: one by one they cost more than the hashing.
struct Gathered<D> {
    hash: D,
    room: [u8; GATHERED],
    len: usize,
}

impl<D: Digest> Gathered<D> {
    fn new() -> Self {
        Self { hash: D::new(), room: [0; GATHERED], len: 0 }
    }

    /// Takes a piece, which is shorter than the room.
    #[inline]
    fn put(&mut self, part: &[u8]) {
        if self.len + part.len() > GATHERED {
            self.hash.update(self.room.get(..self.len).unwrap_or_default());
            self.len = 0;
        }
        for (to, from) in self.room.iter_mut().skip(self.len).zip(part) {
            *to = *from;
        }
        self.len += part.len();
    }

    fn finish(mut self) -> Output<D> {
        self.hash.update(self.room.get(..self.len).unwrap_or_default());
        self.hash.finalize()
    }
}

/// Numbers joined by dashes, without the reserved values.
fn put_list(values: impl Iterator<Item = u16>, put: &mut impl FnMut(&[u8])) {
    for (at, value) in values.filter(|value| !is_grease(*value)).enumerate() {
        if at > 0 {
            put(b"-");
        }
        put_decimal(value, put);
    }
}

fn put_decimal(value: u16, put: &mut impl FnMut(&[u8])) {
    let digit = |power: u16| b'0' + (value / power % 10) as u8;
    let digits = [digit(10_000), digit(1000), digit(100), digit(10), digit(1)];
    let zeros = digits.iter().take(4).take_while(|digit| **digit == b'0').count();
    put(digits.get(zeros..).unwrap_or_default());
}

/// Four hexadecimal digits each, joined by commas.
fn put_hex_list(values: impl Iterator<Item = u16>, put: &mut impl FnMut(&[u8])) {
    for (at, value) in values.enumerate() {
        let [a, b, c, d] = [12, 8, 4, 0].map(|shift| hex_digit((value >> shift & 0xF) as u8));
        let joined = [b',', a, b, c, d];
        put(joined.get(usize::from(at == 0)..).unwrap_or_default());
    }
}

/// The first twelve characters of the SHA-256 of the list, with the second behind a line.
fn hash_of(list: &[u16], second: impl Iterator<Item = u16>) -> [u8; 12] {
    if list.is_empty() {
        return NOTHING;
    }
    let mut hash = Gathered::<Sha256>::new();
    put_hex_list(list.iter().copied(), &mut |part| hash.put(part));
    let mut second = second.peekable();
    if second.peek().is_some() {
        hash.put(b"_");
        put_hex_list(second, &mut |part| hash.put(part));
    }
    let mut out = NOTHING;
    for (pair, byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(hash.finish().0) {
        *pair = [hex_digit(byte >> 4), hex_digit(byte & 0xF)];
    }
    out
}

const fn hex_digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' + value - 10 }
}

fn two_digits(count: usize) -> [u8; 2] {
    let count = count.min(99) as u8;
    [b'0' + count / 10, b'0' + count % 10]
}

/// First and last character of a protocol's name; of its hexadecimal form if one of them is no
/// letter or digit.
fn ends(protocol: &[u8]) -> [u8; 2] {
    let (Some(first), Some(last)) = (protocol.first(), protocol.last()) else { return *b"00" };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        [*first, *last]
    } else {
        [hex_digit(first >> 4), hex_digit(last & 0xF)]
    }
}

/// Hands the values on in ascending order.
fn sorted<R>(values: impl Iterator<Item = u16> + Clone, then: impl FnOnce(&[u16]) -> R) -> R {
    if values.clone().nth(FEW).is_none() {
        sorted_in(&mut [0; FEW], values, then)
    } else {
        sorted_many(values, then)
    }
}

/// Apart, so that only a hello that means harm takes 64 KiB of the stack.
#[inline(never)]
fn sorted_many<R>(values: impl Iterator<Item = u16>, then: impl FnOnce(&[u16]) -> R) -> R {
    sorted_in(&mut [0; MOST], values, then)
}

fn sorted_in<R>(
    room: &mut [u16],
    values: impl Iterator<Item = u16>,
    then: impl FnOnce(&[u16]) -> R,
) -> R {
    let mut count = 0;
    for (to, value) in room.iter_mut().zip(values) {
        *to = value;
        count += 1;
    }
    let filled = room.get_mut(..count).unwrap_or_default();
    filled.sort_unstable();
    then(filled)
}

fn write_ascii(done: &mut fmt::Result, out: &mut dyn fmt::Write, part: &[u8]) {
    if done.is_ok() {
        *done = out.write_str(std::str::from_utf8(part).unwrap_or_default());
    }
}
