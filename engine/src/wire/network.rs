//! The network layer in general: options, extension headers, jumbograms, fragments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Proto, Unparsed};

/// Protocol numbers of extension headers (IANA, RFC 7045 §4) and of the authentication header.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
/// Extension headers walked in one packet: RFC 8200 §4.1 knows an order of seven, each once.
const MAX_EXTENSIONS: usize = 16;
/// Jumbo payload option (RFC 2675 §2), its length, and the padding option of one byte.
const JUMBO: u8 = 0xC2;
const PAD1: u8 = 0;
/// Flag and offset in the IPv4 header (RFC 791 §3.1), and in the IPv6 fragment header (RFC 8200 §4.5).
const V4_MORE: u16 = 0x2000;
const V4_OFFSET: u16 = 0x1FFF;
const V6_MORE: u16 = 1;
const V6_OFFSET: u16 = 0xFFF8;

/// What the IP layer says, before the transport is read.
#[derive(Clone, Copy)]
pub(super) struct Network<'a> {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    /// What `body` is.
    pub(super) next: u8,
    /// Captured bytes behind the headers; of a fragment, behind the header that says so.
    pub(super) body: &'a [u8],
    /// Length of `body` as the headers state it.
    pub(super) stated: u32,
    /// Where a fragment belongs in its datagram; `None` for a whole packet, also an atomic
    /// fragment (RFC 6946).
    pub(super) part: Option<Part>,
}

/// The place of a fragment in its datagram.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) id: u32,
    /// Offset in bytes.
    pub(super) offset: u32,
    pub(super) more: bool,
    /// Bytes of headers that count toward the datagram's length.
    pub(super) headers: u32,
}

impl<'a> Network<'a> {
    pub(super) const fn proto(&self) -> Proto {
        Proto::from_number(self.next)
    }

    /// Whether the capture ends before the packet does.
    pub(super) const fn is_cut(&self) -> bool {
        (self.body.len() as u64) < self.stated as u64
    }

    /// The reason for a header that does not fit into the body.
    const fn too_short(&self) -> Unparsed {
        if self.is_cut() { Unparsed::IpTruncated } else { Unparsed::IpMalformed }
    }

    /// Moves past a header of `length` bytes and says what follows it.
    fn skip(&mut self, length: usize, next: u8) -> Result<(), Unparsed> {
        self.body = self.body.get(length..).ok_or(self.too_short())?;
        self.stated = self.stated.saturating_sub(length as u32);
        self.next = next;
        Ok(())
    }

    /// Walks extension headers up to the transport or to a fragment header that fragments.
    ///
    /// A header that we do not know, mobility (RFC 6275), HIP or Shim6 too, ends the walk: it is then
    /// the protocol of the packet, and its bytes the payload.
    pub(super) fn walk(&mut self) -> Result<(), Unparsed> {
        for _ in 0..=MAX_EXTENSIONS {
            match self.next {
                AUTHENTICATION => {
                    let [next, words, ..] = self.head::<12>()?;
                    // In words of four bytes, less two (RFC 4302 §2.2).
                    let length = (usize::from(words) + 2) * 4;
                    if length < 12 {
                        return Err(Unparsed::IpMalformed);
                    }
                    self.skip(length, next)?;
                }
                ROUTING | DESTINATION_OPTIONS if self.src.is_ipv6() => {
                    let [next, units, ..] = self.head::<8>()?;
                    self.skip((usize::from(units) + 1) * 8, next)?;
                }
                FRAGMENT if self.src.is_ipv6() => {
                    let [next, _, o0, o1, id @ ..] = self.head::<8>()?;
                    self.skip(8, next)?;
                    let word = u16::from_be_bytes([o0, o1]);
                    if word & (V6_OFFSET | V6_MORE) != 0 {
                        if self.part.is_some() {
                            // A datagram is not fragmented twice by one sender.
                            return Err(Unparsed::IpMalformed);
                        }
                        self.part = Some(Part {
                            id: u32::from_be_bytes(id),
                            offset: u32::from(word & V6_OFFSET),
                            more: word & V6_MORE != 0,
                            headers: 0,
                        });
                        return Ok(());
                    }
                }
                // It stands right behind the IPv6 header or nowhere (RFC 8200 §4.3).
                HOP_BY_HOP if self.src.is_ipv6() => return Err(Unparsed::IpMalformed),
                _ => return Ok(()),
            }
        }
        Err(Unparsed::IpExtensions)
    }

    fn head<const N: usize>(&self) -> Result<[u8; N], Unparsed> {
        self.body.first_chunk::<N>().copied().ok_or(self.too_short())
    }
}

/// Reads the IP header and what extends it; `uncaptured` is how much was cut off behind `ip`.
pub(super) fn read(ip: &[u8], uncaptured: u32) -> Result<Network<'_>, Unparsed> {
    match ip.first().ok_or(Unparsed::IpTruncated)? >> 4 {
        4 => ipv4(ip, uncaptured),
        6 => ipv6(ip, uncaptured),
        _ => Err(Unparsed::IpMalformed),
    }
}

/// The length on the wire, for headers that state none: segmentation offload writes 0.
fn on_wire(body: &[u8], uncaptured: u32) -> u32 {
    u32::try_from(body.len()).unwrap_or(u32::MAX).saturating_add(uncaptured)
}

fn ipv4(ip: &[u8], uncaptured: u32) -> Result<Network<'_>, Unparsed> {
    let head = ip.first_chunk::<20>().ok_or(Unparsed::IpTruncated)?;
    let [first, _, t0, t1, i0, i1, f0, f1, _, proto, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *head;
    let header_len = usize::from(first & 0x0F) * 4;
    if header_len < 20 {
        return Err(Unparsed::IpMalformed);
    }
    let rest = ip.get(header_len..).ok_or(Unparsed::IpTruncated)?;
    let stated = match u32::from(u16::from_be_bytes([t0, t1])).checked_sub(header_len as u32) {
        Some(stated) => stated,
        None => on_wire(rest, uncaptured),
    };
    let word = u16::from_be_bytes([f0, f1]);
    let part = (word & (V4_MORE | V4_OFFSET) != 0).then(|| Part {
        id: u32::from(u16::from_be_bytes([i0, i1])),
        offset: u32::from(word & V4_OFFSET) * 8,
        more: word & V4_MORE != 0,
        headers: header_len as u32,
    });
    let mut network = Network {
        src: Ipv4Addr::new(s0, s1, s2, s3).into(),
        dst: Ipv4Addr::new(d0, d1, d2, d3).into(),
        next: proto,
        body: rest.get(..stated as usize).unwrap_or(rest),
        stated,
        part,
    };
    if part.is_none() {
        network.walk()?;
    }
    Ok(network)
}

fn ipv6(ip: &[u8], uncaptured: u32) -> Result<Network<'_>, Unparsed> {
    let (head, rest) = ip.split_first_chunk::<40>().ok_or(Unparsed::IpTruncated)?;
    let ([_, _, _, _, l0, l1, next, _], addresses) =
        head.split_first_chunk::<8>().ok_or(Unparsed::IpTruncated)?;
    let (src, addresses) = addresses.split_first_chunk::<16>().ok_or(Unparsed::IpTruncated)?;
    let dst = addresses.first_chunk::<16>().ok_or(Unparsed::IpTruncated)?;
    let stated = u32::from(u16::from_be_bytes([*l0, *l1]));
    let wire = on_wire(rest, uncaptured);
    let mut network = Network {
        src: Ipv6Addr::from(*src).into(),
        dst: Ipv6Addr::from(*dst).into(),
        next: *next,
        body: rest,
        stated: if stated == 0 { wire } else { stated },
        part: None,
    };
    network.body = rest.get(..network.stated as usize).unwrap_or(rest);
    let mut total = network.stated;
    if *next == HOP_BY_HOP {
        let [next, units, ..] = network.head::<8>()?;
        let length = (usize::from(units) + 1) * 8;
        // Longer than the wire a packet is not, whatever it says.
        if stated == 0
            && let Some(jumbo) = rest.get(2..length).and_then(jumbo)
            && jumbo < wire
        {
            (total, network.stated) = (jumbo, jumbo);
            network.body = rest.get(..jumbo as usize).unwrap_or(rest);
        }
        network.skip(length, next)?;
    }
    network.walk()?;
    if let Some(part) = &mut network.part {
        part.headers = total.saturating_sub(network.stated).saturating_sub(8);
    }
    Ok(network)
}

/// The length that a jumbo payload option states (RFC 2675 §2): all that follows the IPv6 header.
fn jumbo(mut options: &[u8]) -> Option<u32> {
    loop {
        match options {
            [PAD1, rest @ ..] => options = rest,
            [JUMBO, 4, a, b, c, d, ..] => return Some(u32::from_be_bytes([*a, *b, *c, *d])),
            [_, length, rest @ ..] => options = rest.get(usize::from(*length)..)?,
            _ => return None,
        }
    }
}
