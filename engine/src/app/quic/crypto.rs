//! The CRYPTO frames of client Initials, in clear, and the hello they make up over several datagrams.

use super::{LongPacket, MAX_CID_LEN, SCRATCH_LEN};
use crate::app::hello::{ClientHello, Reading};
use crate::app::reader::Reader;
use crate::app::tls::{Sni, client_hello_body_sni};

/// Coalesced packets read in one datagram (RFC 9000 §12.2).
const MAX_PACKETS: usize = 4;
/// CRYPTO frames kept of one datagram; Chrome sends a shuffled dozen.
const MAX_FRAGMENTS: usize = 64;
/// CRYPTO frames joined to one hello, over all datagrams.
const MAX_JOINED: usize = 4 * MAX_FRAGMENTS;
/// What one datagram adds at most: its plain text, with four bytes before each fragment instead of
/// the three or more of its frame, and the identifier.
const OPENED_LEN: usize = SCRATCH_LEN + MAX_FRAGMENTS + 1 + MAX_CID_LEN as usize;

/// What one datagram adds to the hello of its flow.
///
/// The flow keeps it as bytes: those of the first datagram, those of the next appended, and so on.
/// They hold the deciphered fragments alone, neither padding nor packets. Whoever follows the flow
///
/// 1. calls [`Opened::open`] with a datagram and the bytes kept so far (none at first);
/// 2. calls [`join`] with the bytes kept and [`Opened::as_bytes`];
/// 3. tells [`Joined::hello`] when it is whole, else [`Joined::sni`] if that is there already, and
///    keeps [`Opened::as_bytes`] behind the bytes kept.
pub struct Opened {
    /// For the first datagram its destination identifier behind its length; then the fragments, each
    /// behind its offset and length of two bytes.
    bytes: [u8; OPENED_LEN],
    len: usize,
    fragments: usize,
}

impl Default for Opened {
    fn default() -> Self {
        Self::new()
    }
}

impl Opened {
    /// Makes an empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: [0; OPENED_LEN], len: 0, fragments: 0 }
    }

    /// Deciphers the client Initials of a datagram; `false` when there is none, of version 1 or 2,
    /// whose tag holds.
    ///
    /// The keys follow from the destination identifier of the packet, as after a Retry, or of the
    /// flow's first one, as after the server has chosen its own (RFC 9001 §5.2).
    #[must_use]
    pub fn open(&mut self, datagram: &[u8], kept: &[u8]) -> bool {
        let first_id = Kept::split(kept).id;
        let mut plain = [0; SCRATCH_LEN];
        let mut opened = false;
        let mut rest = datagram;
        for _ in 0..MAX_PACKETS {
            let Some((packet, after)) = LongPacket::split(rest) else { break };
            rest = after;
            if !packet.is_initial() {
                continue;
            }
            let mut used = packet.open(packet.dcid, &mut plain).map(|len| (packet.dcid, len));
            if used.is_none() && !first_id.is_empty() && first_id != packet.dcid {
                used = packet.open(first_id, &mut plain).map(|len| (first_id, len));
            }
            let Some((id, frames)) = used.and_then(|(id, len)| Some((id, plain.get(..len)?)))
            else {
                break;
            };
            if !opened && kept.is_empty() {
                self.put(&[id.len() as u8]);
                self.put(id);
            }
            opened = true;
            if self.collect(frames).is_none() {
                break;
            }
        }
        opened
    }

    /// What to keep behind the bytes of the earlier datagrams.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Takes the CRYPTO frames of one packet; `None` from a frame on that no client Initial may carry.
    fn collect(&mut self, frames: &[u8]) -> Option<()> {
        let mut reader = Reader::new(frames);
        while let Some(kind) = reader.u8() {
            match kind {
                // PADDING and PING (RFC 9000 §19.1, §19.2).
                0x00 => reader.skip_zeros(),
                0x01 => {}
                // ACK, with or without ECN counts (§19.3).
                0x02 | 0x03 => skip_ack(&mut reader, kind == 0x03)?,
                // CRYPTO (§19.6).
                0x06 => {
                    let offset = reader.varint()?;
                    let len = reader.varint()?;
                    self.fragment(offset, reader.take(usize::try_from(len).ok()?)?);
                }
                // CONNECTION_CLOSE ends what there is to read (§19.19).
                0x1C => return Some(()),
                _ => return None,
            }
        }
        Some(())
    }

    fn fragment(&mut self, offset: u64, data: &[u8]) {
        let (Ok(offset), Ok(len)) = (u16::try_from(offset), u16::try_from(data.len())) else {
            return;
        };
        let fits = OPENED_LEN - self.len >= 4 + data.len();
        if data.is_empty() || !fits || self.fragments >= MAX_FRAGMENTS {
            return;
        }
        self.put(&offset.to_be_bytes());
        self.put(&len.to_be_bytes());
        self.put(data);
        self.fragments += 1;
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            room.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }
}

/// The bytes that a flow keeps.
#[derive(Clone, Copy)]
struct Kept<'a> {
    id: &'a [u8],
    fragments: Reader<'a>,
}

impl<'a> Kept<'a> {
    fn split(kept: &'a [u8]) -> Self {
        let mut fragments = Reader::new(kept);
        let len = usize::from(fragments.u8().unwrap_or_default());
        Self { id: fragments.take(len).unwrap_or_default(), fragments }
    }
}

/// The hello as far as it is there without a gap.
#[derive(Clone, Copy, Debug)]
pub struct Joined<'s> {
    bytes: &'s [u8],
}

impl<'s> Joined<'s> {
    /// The hello; [`Reading::Incomplete`] while it continues in another datagram.
    #[must_use]
    pub fn hello(&self) -> Reading<ClientHello<'s>> {
        ClientHello::from_handshake(self.bytes)
    }

    /// The server name, as soon as the bytes reach up to it.
    #[must_use]
    pub fn sni(&self) -> Sni {
        client_hello_body_sni(self.bytes)
    }
}

/// Joins the fragments that a flow keeps and those of its newest datagram, whatever their order; of
/// bytes that were sent twice the first ones count. The hello is read up to the length of `scratch`.
#[must_use]
pub fn join<'s>(kept: &[u8], newest: &[u8], scratch: &'s mut [u8]) -> Joined<'s> {
    let (first, second) = if kept.is_empty() { (newest, kept) } else { (kept, newest) };
    let fragments = Fragments { parts: [Kept::split(first).fragments, Reader::new(second)] };
    let mut end = 0_usize;
    // Each pass places one fragment or is the last.
    for _ in 0..MAX_JOINED {
        let next = fragments.clone().take(MAX_JOINED).find_map(|(offset, data)| {
            let fresh = data.get(end.checked_sub(offset)?..)?;
            (!fresh.is_empty()).then_some(fresh)
        });
        let Some(fresh) = next else { break };
        let Some(room) = scratch.get_mut(end..).filter(|room| !room.is_empty()) else { break };
        let fits = fresh.len().min(room.len());
        for (to, from) in room.iter_mut().zip(fresh) {
            *to = *from;
        }
        end += fits;
    }
    Joined { bytes: scratch.get(..end).unwrap_or_default() }
}

/// The fragments in the order of their arrival.
#[derive(Clone)]
struct Fragments<'a> {
    parts: [Reader<'a>; 2],
}

impl<'a> Iterator for Fragments<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.parts.iter_mut().find_map(|part| {
            let offset = part.u16()?;
            let len = part.u16()?;
            Some((usize::from(offset), part.take(usize::from(len))?))
        })
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
