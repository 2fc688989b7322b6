//! The server name a QUIC client asks for (RFC 9000, RFC 9001, RFC 9369).
//!
//! Initial packets are enciphered under keys derived from a field they carry in clear, so any
//! observer may read them; the tag is verified all the same, so that bytes which merely look like
//! QUIC give no name.

mod crypto;
mod initial_keys;

use self::initial_keys::InitialKeys;
use super::{Name, reader::Reader, tls::Sni};

pub use crypto::{Joined, Opened, join};

/// QUIC version 1 (RFC 9000 §15) and version 2 (RFC 9369 §3.1).
const VERSION_1: u32 = 1;
const VERSION_2: u32 = 0x6B33_43CF;
/// Long connection identifiers are at most this long (RFC 9000 §17.2).
const MAX_CID_LEN: u8 = 20;
/// How much of one packet is deciphered, and of one hello joined; a client's first datagram
/// fits the path MTU.
const SCRATCH_LEN: usize = 2048;

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
/// `scratch`, in whatever order they were sent. A hello over several datagrams takes [`Opened`].
#[must_use]
pub fn initial_sni(datagram: &[u8], scratch: &mut [u8; SCRATCH_LEN]) -> QuicSni {
    let mut opened = Opened::new();
    if !opened.open(datagram, &[]) {
        return QuicSni::NotQuic;
    }
    match join(&[], opened.as_bytes(), scratch).sni() {
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

    /// Deciphers the packet into the front of `plain`, under the keys of an identifier; its length,
    /// or `None` unless the tag holds.
    fn open(&self, id: &[u8], plain: &mut [u8; SCRATCH_LEN]) -> Option<usize> {
        let keys = InitialKeys::derive(id, self.version == VERSION_2);
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
        keys.open(number, header, plain, tag).then_some(plain.len())
    }
}

/// The two type bits say "Initial" differently in version 2 (RFC 9369 §3.2).
const fn is_initial(first: u8, version: u32) -> bool {
    let kind = first >> 4 & 0x03;
    if version == VERSION_2 { kind == 1 } else { kind == 0 }
}

#[cfg(test)]
mod tests;
