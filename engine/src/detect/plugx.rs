//! PlugX on its first data packet: the key travels in clear in the first four bytes and the ciphers
//! are public, so the sixteen-byte header can be deciphered and checked against itself.
//!
//! Enters: the first bytes of one direction of a TCP flow, or one whole message. Leaves: a
//! [`PlugxVerdict`]. It knows no flow, no time and no address.

mod cipher;
pub mod lznt1;
mod prefilter;

use serde::{Deserialize, Deserializer, Serialize};

pub use self::cipher::{CipherKind, CipherSetting};
use self::prefilter::Prefilter;

/// Length of the message header: key, command and flags, two sizes, extra.
const HEADER_LEN: usize = 16;
/// Longest body: the messages' limit 61456 (0xF010) less the header.
const MAX_BODY_LEN: usize = 0xF000;
/// Longest decompressed body taken for real.
const MAX_PLAIN_LEN: usize = MAX_BODY_LEN + HEADER_LEN;

/// The constants of the detector, carried by the rule pack because unknown builds exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlugxConstants {
    /// Cipher settings, tried in this order; at most 64.
    #[serde(deserialize_with = "few_ciphers")]
    pub ciphers: Vec<CipherSetting>,
    /// Commands a header may carry, as inclusive ranges.
    pub commands: Vec<(u16, u16)>,
    /// Flag bits a header may carry, as values of the header's topmost flag byte.
    pub flags: Vec<u8>,
}

impl Default for PlugxConstants {
    /// Every published setting (CIRCL TR-12 table 1, chopshop, Metasploit, JPCERT/CC).
    fn default() -> Self {
        Self { ciphers: cipher::published(), commands: COMMANDS.to_vec(), flags: FLAGS.to_vec() }
    }
}

/// Reads the cipher settings and refuses more than are tried.
fn few_ciphers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<CipherSetting>, D::Error> {
    let ciphers = Vec::<CipherSetting>::deserialize(from)?;
    if ciphers.len() > prefilter::MOST {
        let why = format!("{} ciphers, and at most {} are tried", ciphers.len(), prefilter::MOST);
        return Err(serde::de::Error::custom(why));
    }
    Ok(ciphers)
}

/// Published commands (CIRCL TR-12 table 1, chopshop, capa `match-known-plugx-module`).
const COMMANDS: [(u16, u16); 18] = [
    (0x0000, 0x0008),
    (0x1000, 0x1008),
    (0x2000, 0x2005),
    (0x3000, 0x300F),
    (0x4000, 0x4006),
    (0x4100, 0x4101),
    (0x4200, 0x4200),
    (0x5000, 0x5002),
    (0x6000, 0x6004),
    (0x7002, 0x7003),
    (0x7100, 0x7100),
    (0x7104, 0x7104),
    (0x9000, 0x9007),
    (0xA000, 0xA000),
    (0xB000, 0xB000),
    (0xC000, 0xC002),
    (0xD000, 0xD002),
    (0xE000, 0xE000),
];
/// "Body not compressed" and "body not enciphered", in the two bit positions the decoders give.
const FLAGS: [u8; 4] = [0x01, 0x02, 0x10, 0x20];

/// Where the keystream begins relative to the key field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alignment {
    /// The first keystream byte falls on the byte after the key.
    KeystreamAfterKey,
    /// The first keystream byte falls on the key field itself.
    KeystreamFromKey,
}

/// What stands behind a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// The header agrees with itself and with the length of the message.
    Header,
    /// Also, the body decompresses to exactly the stated size.
    Lznt1,
}

/// A deciphered message header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlugxMatch {
    /// Index into [`PlugxConstants::ciphers`].
    pub cipher: usize,
    /// Where the keystream began.
    pub alignment: Alignment,
    /// What the message asks or answers.
    pub command: u16,
    /// The flag bits, in place: the header's second word without the command.
    pub flags: u32,
    /// Length of the body on the wire.
    pub size: u16,
    /// Length of the body after decompression.
    pub plain_size: u16,
    /// The header's last word, a status.
    pub extra: u32,
    /// What stands behind the match.
    pub proof: Proof,
}

impl PlugxMatch {
    /// Where a message ends that begins at a position.
    pub(super) fn end(&self, at: usize) -> usize {
        at + HEADER_LEN + usize::from(self.size)
    }
}

/// A deciphered cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CookieMatch {
    /// Index into [`PlugxConstants::ciphers`].
    pub(super) cipher: usize,
    /// Session, sequence number, build date and largest message.
    pub(super) words: [u32; 4],
}

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlugxVerdict {
    /// A PlugX message.
    Match(PlugxMatch),
    /// A header is incomplete, or one decodes and wants bytes that have not arrived: a longer head
    /// of the same direction may decide.
    NeedMore,
    /// No PlugX message under any setting.
    No,
}

/// Deciphers heads under every cipher setting.
#[derive(Clone, Debug)]
pub struct PlugxDecoder {
    ciphers: Vec<CipherSetting>,
    commands: Vec<(u16, u16)>,
    /// The bits no header may have, commands left out.
    refused_flags: u32,
    prefilter: Prefilter,
}

/// The enciphered part of a header, in clear.
#[derive(Clone, Copy)]
struct Header {
    key: u32,
    command: u16,
    flags: u32,
    size: u16,
    plain_size: u16,
    extra: u32,
}

impl PlugxDecoder {
    /// Prepares the constants for use.
    #[must_use]
    pub fn new(constants: &PlugxConstants) -> Self {
        let allowed = constants.flags.iter().fold(0, |all, bit| all | u32::from(*bit) << 24);
        let ciphers = constants.ciphers.get(..prefilter::MOST).unwrap_or(&constants.ciphers);
        Self {
            ciphers: ciphers.to_vec(),
            commands: constants.commands.clone(),
            refused_flags: 0xFFFF_0000 & !allowed,
            prefilter: Prefilter::new(ciphers),
        }
    }

    /// Judges the contiguous first bytes of one direction of a TCP flow, or one whole message.
    ///
    /// A header alone matches only as the whole of `head`, so that its size field is checked against
    /// a length. With more bytes behind the message it takes an LZNT1 body or a second valid header.
    #[must_use]
    pub fn examine(&self, head: &[u8]) -> PlugxVerdict {
        if is_known_opening(head) {
            return PlugxVerdict::No;
        }
        self.examine_of(head, None)
    }

    /// Judges the first bytes of something whose whole length a carrier may state, as HTTP and UDP do.
    ///
    /// A header whose size field agrees with that length matches before its body has arrived.
    #[must_use]
    pub fn examine_of(&self, head: &[u8], total: Option<usize>) -> PlugxVerdict {
        if total.is_some_and(|total| total < HEADER_LEN) {
            return PlugxVerdict::No;
        }
        let Some((first, body)) = head.split_first_chunk::<HEADER_LEN>() else {
            return PlugxVerdict::NeedMore;
        };
        let mut verdict = PlugxVerdict::No;
        let [k0, k1, k2, k3, _, _, third, ..] = *first;
        let mut left = self.prefilter.candidates(u32::from_le_bytes([k0, k1, k2, k3]), third);
        while left != 0 {
            let index = left.trailing_zeros() as usize;
            left &= left - 1;
            let Some(setting) = self.ciphers.get(index) else { continue };
            for alignment in self.candidates(setting.kind, first) {
                let Some(alignment) = alignment else { continue };
                let header = decipher(setting.kind, alignment, first);
                match self.judge(setting.kind, alignment, header, (body, total)) {
                    Reading::No => {}
                    Reading::NeedMore => verdict = PlugxVerdict::NeedMore,
                    Reading::Proven(proof) => {
                        return PlugxVerdict::Match(header.matched(index, alignment, proof));
                    }
                }
            }
        }
        verdict
    }

    /// Judges the sixteen bytes behind a message that was found: its header is enciphered likewise.
    pub(super) fn examine_next(
        &self,
        before: &PlugxMatch,
        bytes: &[u8; HEADER_LEN],
    ) -> Option<PlugxMatch> {
        let kind = self.ciphers.get(before.cipher)?.kind;
        let alignment = before.alignment;
        self.is_header(kind, alignment, bytes).then(|| {
            decipher(kind, alignment, bytes).matched(before.cipher, alignment, Proof::Header)
        })
    }

    /// Judges a cookie: a key and four words enciphered under it, of which the last is one of `sizes`.
    pub(super) fn examine_cookie(&self, cookie: &[u8; 20], sizes: &[u32]) -> Option<CookieMatch> {
        let (key, enciphered) = cookie.split_first_chunk::<4>()?;
        let key = u32::from_le_bytes(*key);
        for (cipher, setting) in self.ciphers.iter().enumerate() {
            for alignment in [Alignment::KeystreamAfterKey, Alignment::KeystreamFromKey] {
                let mut stream = setting.kind.keystream(key);
                if alignment == Alignment::KeystreamFromKey {
                    stream.apply(&mut [0; 4]);
                }
                let mut plain = [0; 16];
                plain.copy_from_slice(enciphered);
                stream.apply(&mut plain);
                let mut words = [0; 4];
                for (word, bytes) in words.iter_mut().zip(plain.as_chunks::<4>().0) {
                    *word = u32::from_le_bytes(*bytes);
                }
                if words.last().is_some_and(|last| sizes.contains(last)) {
                    return Some(CookieMatch { cipher, words });
                }
            }
        }
        None
    }

    /// The name of a cipher setting, by the index of a match.
    #[must_use]
    pub fn cipher_id(&self, index: usize) -> &str {
        self.ciphers.get(index).map_or("unknown", |setting| &setting.id)
    }

    /// Whether a command carries a file's content out, when it goes from the implant to its controller.
    #[must_use]
    pub const fn is_theft(command: u16) -> bool {
        command == 0x3005
    }

    /// What a command does, in words for a finding.
    #[must_use]
    pub fn command_name(command: u16) -> &'static str {
        match command {
            0x0000 => "probe",
            0x0001 => "machine information",
            0x0002 => "keep-alive",
            0x0003 => "plugin manager",
            0x0005 => "remove or reinstall itself",
            0x1005 => "remove itself",
            0x0004..=0x0008 | 0x1000..=0x1008 => "core",
            0x2000..=0x2005 => "option",
            0x3004 => "read file name",
            0x3005 => "read file data (file theft)",
            0x3007 => "write file name",
            0x3008 => "write file data",
            0x3000..=0x300F => "disk",
            0x4000..=0x4006 | 0x4100..=0x4101 | 0x4200 => "screen",
            0x5000..=0x5002 => "process list",
            0x6000..=0x6004 => "services",
            0x7000..=0x7003 => "shell",
            0x7100..=0x7104 => "telnet",
            0x9000..=0x9007 => "registry",
            0xA000 => "network neighbourhood",
            0xB000 => "port mapping",
            0xC000..=0xC002 => "SQL",
            0xD000..=0xD002 => "connection list",
            0xE000 => "key log",
            _ => "unknown command",
        }
    }

    /// The alignments under which command and flags are possible; eight keystream bytes decide.
    #[inline]
    fn candidates(&self, kind: CipherKind, first: &[u8; HEADER_LEN]) -> [Option<Alignment>; 2] {
        let [k0, k1, k2, k3, w0, w1, w2, w3, ..] = *first;
        let mut stream = [0; 8];
        kind.keystream(u32::from_le_bytes([k0, k1, k2, k3])).apply(&mut stream);
        let [a0, a1, a2, a3, f0, f1, f2, f3] = stream;
        let word = u32::from_le_bytes([w0, w1, w2, w3]);
        let possible = |stream: [u8; 4]| self.is_possible(word ^ u32::from_le_bytes(stream));
        [
            possible([f0, f1, f2, f3]).then_some(Alignment::KeystreamFromKey),
            possible([a0, a1, a2, a3]).then_some(Alignment::KeystreamAfterKey),
        ]
    }

    /// Whether the header's second word holds allowed flags and a listed command.
    #[inline]
    fn is_possible(&self, word: u32) -> bool {
        let command = (word & 0xFFFF) as u16;
        word & self.refused_flags == 0
            && self.commands.iter().any(|(low, high)| (*low..=*high).contains(&command))
    }

    fn judge(
        &self,
        kind: CipherKind,
        alignment: Alignment,
        header: Header,
        (body, total): (&[u8], Option<usize>),
    ) -> Reading {
        let size = usize::from(header.size);
        if !header.is_sized() || total.is_some_and(|total| HEADER_LEN + size > total) {
            return Reading::No;
        }
        let fills = total.is_none_or(|total| HEADER_LEN + size == total);
        let Some((message, after)) = body.split_at_checked(size) else {
            return match header.may_continue(kind, body) {
                true if fills && total.is_some() => Reading::Proven(Proof::Header),
                true => Reading::NeedMore,
                false => Reading::No,
            };
        };
        match header.proof(kind, message) {
            None => Reading::No,
            Some(proof) if proof == Proof::Lznt1 || (after.is_empty() && fills) => {
                Reading::Proven(proof)
            }
            Some(proof) => match after.first_chunk::<HEADER_LEN>() {
                None => Reading::NeedMore,
                Some(next) if self.is_header(kind, alignment, next) => Reading::Proven(proof),
                Some(_) => Reading::No,
            },
        }
    }

    /// Whether bytes behind a message decode as the header of another.
    fn is_header(&self, kind: CipherKind, alignment: Alignment, bytes: &[u8; HEADER_LEN]) -> bool {
        let next = decipher(kind, alignment, bytes);
        self.candidates(kind, bytes).contains(&Some(alignment))
            && next.is_sized()
            && (next.size != 0 || next.extra == 0)
    }
}

enum Reading {
    NeedMore,
    No,
    Proven(Proof),
}

impl Header {
    /// Whether the sizes can be those of any message.
    fn is_sized(&self) -> bool {
        let (size, plain_size) = (usize::from(self.size), usize::from(self.plain_size));
        // Eight literals cost nine bytes and every chunk two; real compressors stay far below.
        size <= MAX_BODY_LEN
            && plain_size <= MAX_PLAIN_LEN
            && size <= plain_size + plain_size / 8 + 64
            && (size == 0 || plain_size != 0)
    }

    /// Whether a body that has not arrived in full can be one of ours.
    fn may_continue(&self, kind: CipherKind, so_far: &[u8]) -> bool {
        if self.is_plainly_sized() {
            return true;
        }
        let Some(raw) = so_far.first_chunk::<2>() else { return true };
        let mut start = *raw;
        kind.keystream(self.key).apply(&mut start);
        lznt1::is_chunk_header(start) || (self.flags != 0 && lznt1::is_chunk_header(*raw))
    }

    /// Whether the message says that its body is not compressed, and its sizes agree.
    ///
    /// The decoders disagree on which flag says so, hence any.
    const fn is_plainly_sized(&self) -> bool {
        self.flags != 0 && self.size == self.plain_size
    }

    /// What a whole message proves.
    fn proof(&self, kind: CipherKind, message: &[u8]) -> Option<Proof> {
        if message.is_empty() {
            return (self.extra == 0).then_some(Proof::Header);
        }
        // Allocates, but only behind a header that a random payload decodes to once in 10^5.
        let mut deciphered = message.to_vec();
        kind.keystream(self.key).apply(&mut deciphered);
        let mut plain = Vec::with_capacity(usize::from(self.plain_size));
        if self.decompresses(&deciphered, &mut plain)
            || (self.flags != 0 && self.decompresses(message, &mut plain))
        {
            return Some(Proof::Lznt1);
        }
        self.is_plainly_sized().then_some(Proof::Header)
    }

    fn decompresses(&self, body: &[u8], plain: &mut Vec<u8>) -> bool {
        let stated = usize::from(self.plain_size);
        lznt1::decompress(body, plain, stated).is_ok() && plain.len() == stated
    }

    const fn matched(&self, cipher: usize, alignment: Alignment, proof: Proof) -> PlugxMatch {
        PlugxMatch {
            cipher,
            alignment,
            command: self.command,
            flags: self.flags,
            size: self.size,
            plain_size: self.plain_size,
            extra: self.extra,
            proof,
        }
    }
}

fn decipher(kind: CipherKind, alignment: Alignment, bytes: &[u8; HEADER_LEN]) -> Header {
    let [k0, k1, k2, k3, rest @ ..] = *bytes;
    let key = u32::from_le_bytes([k0, k1, k2, k3]);
    let mut stream = kind.keystream(key);
    if alignment == Alignment::KeystreamFromKey {
        stream.apply(&mut [0; 4]);
    }
    let mut fields = rest;
    stream.apply(&mut fields);
    let [c0, c1, f0, f1, s0, s1, p0, p1, e0, e1, e2, e3] = fields;
    Header {
        key,
        command: u16::from_le_bytes([c0, c1]),
        flags: u32::from_le_bytes([0, 0, f0, f1]),
        size: u16::from_le_bytes([s0, s1]),
        plain_size: u16::from_le_bytes([p0, p1]),
        extra: u32::from_le_bytes([e0, e1, e2, e3]),
    }
}

/// Whether the first bytes are the opening of a protocol that needs no decoding to be told apart.
///
/// The first four bytes of a PlugX message are a key of the sender's choice, so they alone prove
/// nothing: what follows must fit the protocol too.
#[inline]
fn is_known_opening(head: &[u8]) -> bool {
    let Some((opening, rest)) = head.split_first_chunk::<4>() else { return false };
    match opening {
        // A TLS handshake record of version 3.0 to 3.4 with a hello of less than 64 KiB, or an alert.
        [0x16, 0x03, 0x00..=0x04, _] => matches!(rest, [_, 1 | 2, 0, ..]),
        [0x15, 0x03, 0x00..=0x04, 0] => matches!(rest, [2, 1 | 2, _]),
        b"CONN" | b"DELE" | b"GET " | b"HEAD" | b"OPTI" | b"PATC" | b"POST" | b"PROP" | b"PUT "
        | b"TRAC" | b"HTTP" | b"PRI " | b"SSH-" | b"220 " | b"220-" | b"EHLO" | b"ehlo"
        | b"HELO" | b"helo" | b"MAIL" => rest
            .iter()
            .take(HEADER_LEN - 4)
            .all(|byte| matches!(byte, b'\t' | b'\r' | b'\n' | 32..=126)),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
