//! The server name a QUIC client asks for (RFC 9000, RFC 9001, RFC 9369).
//!
//! Initial packets are enciphered under keys derived from a field they carry in clear, so any
//! observer may read them; the tag is verified all the same, so that bytes which merely look like
//! QUIC give no name.

mod initial_keys;

use self::initial_keys::InitialKeys;
use super::{
    Name,
    reader::Reader,
    tls::{Sni, client_hello_body_sni},
};

/// QUIC version 1 (RFC 9000 §15) and version 2 (RFC 9369 §3.1).
const VERSION_1: u32 = 1;
const VERSION_2: u32 = 0x6B33_43CF;
/// Long connection identifiers are at most this long (RFC 9000 §17.2).
const MAX_CID_LEN: u8 = 20;
/// How much of one packet is deciphered, and of one hello joined; a client's first datagram
/// fits the path MTU.
const SCRATCH_LEN: usize = 2048;
/// Coalesced packets read in one datagram (RFC 9000 §12.2).
const MAX_PACKETS: usize = 4;
/// CRYPTO frames placed per datagram; Chrome sends a shuffled dozen.
const MAX_FRAGMENTS: usize = 64;

/// What a datagram says about the server name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "the name stays on the stack: no allocation per packet"
)]
pub enum QuicSni {
    /// A client Initial whose hello continues in another datagram, without the name so far.
    Incomplete,
    /// The name asked for.
    Name(Name),
    /// A complete hello that names no valid host.
    None,
    /// No client Initial of version 1 or 2 under the keys of its own destination identifier.
    NotQuic,
}

/// Reads the server name from a client's first QUIC datagram.
///
/// Every coalesced Initial of the datagram is deciphered and its CRYPTO frames are joined in
/// `scratch`, in whatever order they were sent.
#[must_use]
pub fn initial_sni(datagram: &[u8], scratch: &mut [u8; SCRATCH_LEN]) -> QuicSni {
    let mut hello = Hello { bytes: scratch, ranges: [(0, 0); MAX_FRAGMENTS], used: 0 };
    let mut plain = [0; SCRATCH_LEN];
    let mut opened = false;
    let mut rest = datagram;
    for _ in 0..MAX_PACKETS {
        let Some((packet, after)) = LongPacket::split(rest) else { break };
        rest = after;
        if !packet.is_initial() {
            continue;
        }
        let Some(frames) = packet.open(&mut plain) else { break };
        if hello.collect(frames).is_none() {
            break;
        }
        opened = true;
    }
    if !opened {
        return QuicSni::NotQuic;
    }
    match client_hello_body_sni(hello.contiguous()) {
        Sni::Incomplete => QuicSni::Incomplete,
        Sni::Name(name) => QuicSni::Name(name),
        Sni::None => QuicSni::None,
        Sni::NotHello => QuicSni::NotQuic,
    }
}

/// A long-header packet whose header protection is still on (RFC 9000 §17.2).
struct LongPacket<'a> {
    version: u32,
    dcid: &'a [u8],
    /// Everything before the packet number.
    head: &'a [u8],
    /// Packet number and enciphered payload.
    sealed: &'a [u8],
}

impl<'a> LongPacket<'a> {
    /// Splits the first packet off a datagram; only Initial packets carry a token.
    fn split(datagram: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut reader = Reader::new(datagram);
        let first = reader.u8()?;
        let version = reader.u32()?;
        // Long header form and the fixed bit.
        if first & 0xC0 != 0xC0 || !matches!(version, VERSION_1 | VERSION_2) {
            return None;
        }
        let dcid = Self::connection_id(&mut reader)?;
        Self::connection_id(&mut reader)?;
        if is_initial(first, version) {
            let token_len = reader.varint()?;
            reader.take(usize::try_from(token_len).ok()?)?;
        }
        let len = reader.varint()?;
        let head = datagram.get(..datagram.len() - reader.rest().len())?;
        let sealed = reader.take(usize::try_from(len).ok()?)?;
        Some((Self { version, dcid, head, sealed }, reader.rest()))
    }

    fn connection_id(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
        let len = reader.u8()?;
        if len > MAX_CID_LEN { None } else { reader.take(usize::from(len)) }
    }

    fn is_initial(&self) -> bool {
        self.head.first().is_some_and(|first| is_initial(*first, self.version))
    }

    /// Deciphers the packet into `plain`; `None` unless the tag holds.
    fn open<'p>(&self, plain: &'p mut [u8; SCRATCH_LEN]) -> Option<&'p [u8]> {
        let keys = InitialKeys::derive(self.dcid, self.version == VERSION_2);
        // The sample lies as if the packet number were four bytes long (RFC 9001 §5.4.2).
        let sample = self.sealed.get(4..)?.first_chunk::<16>()?;
        let [mask_first, mask_number @ ..] = keys.header_mask(sample);
        let first = self.head.first()? ^ (mask_first & 0x0F);
        let number_len = usize::from(first & 0x03) + 1;
        let (number_bytes, body) = self.sealed.split_at_checked(number_len)?;
        let (text, tag) = body.split_last_chunk::<16>()?;
        let plain = plain.get_mut(..text.len())?;
        plain.copy_from_slice(text);
        let mut number = 0_u64;
        let mut header = [0; SCRATCH_LEN];
        let header = header.get_mut(..self.head.len() + number_len)?;
        header.first_chunk_mut::<1>()?.copy_from_slice(&[first]);
        let (clear, protected) = header.split_at_mut_checked(self.head.len())?;
        clear.get_mut(1..)?.copy_from_slice(self.head.get(1..)?);
        for ((to, from), mask) in protected.iter_mut().zip(number_bytes).zip(mask_number) {
            *to = from ^ mask;
            number = number << 8 | u64::from(*to);
        }
        keys.open(number, header, plain, tag).then_some(&*plain)
    }
}

/// The two type bits say "Initial" differently in version 2 (RFC 9369 §3.2).
const fn is_initial(first: u8, version: u32) -> bool {
    let kind = first >> 4 & 0x03;
    if version == VERSION_2 { kind == 1 } else { kind == 0 }
}

/// A client hello under assembly.
struct Hello<'s> {
    bytes: &'s mut [u8; SCRATCH_LEN],
    /// Half-open ranges of `bytes` that are filled.
    ranges: [(usize, usize); MAX_FRAGMENTS],
    used: usize,
}

impl Hello<'_> {
    /// Places the CRYPTO frames of one packet; `None` for a frame no client Initial may carry.
    fn collect(&mut self, frames: &[u8]) -> Option<()> {
        let mut reader = Reader::new(frames);
        while let Some(kind) = reader.u8() {
            match kind {
                // PADDING and PING (RFC 9000 §19.1, §19.2).
                0x00 | 0x01 => {}
                // ACK, with or without ECN counts (§19.3).
                0x02 | 0x03 => skip_ack(&mut reader, kind == 0x03)?,
                // CRYPTO (§19.6).
                0x06 => {
                    let offset = reader.varint()?;
                    let len = reader.varint()?;
                    self.place(offset, reader.take(usize::try_from(len).ok()?)?);
                }
                // CONNECTION_CLOSE ends what there is to read (§19.19).
                0x1C => return Some(()),
                _ => return None,
            }
        }
        Some(())
    }

    fn place(&mut self, offset: u64, data: &[u8]) {
        let Ok(start) = usize::try_from(offset) else { return };
        let Some(room) = self.bytes.get_mut(start..) else { return };
        let len = room.len().min(data.len());
        let Some(range) = self.ranges.get_mut(self.used) else { return };
        for (to, from) in room.iter_mut().zip(data) {
            *to = *from;
        }
        *range = (start, start + len);
        self.used += 1;
    }

    /// The bytes from the start of the hello to the first gap.
    fn contiguous(&mut self) -> &[u8] {
        let ranges = self.ranges.get_mut(..self.used).unwrap_or_default();
        ranges.sort_unstable();
        let mut end = 0;
        for (start, stop) in ranges {
            if *start > end {
                break;
            }
            end = end.max(*stop);
        }
        self.bytes.get(..end).unwrap_or_default()
    }
}

fn skip_ack(reader: &mut Reader<'_>, with_counts: bool) -> Option<()> {
    reader.varint()?;
    reader.varint()?;
    let ranges = reader.varint()?;
    reader.varint()?;
    for _ in 0..ranges {
        reader.varint()?;
        reader.varint()?;
    }
    if with_counts {
        for _ in 0..3 {
            reader.varint()?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests;
