//! One fragment, and which datagram it belongs to.

use std::net::IpAddr;

use crate::wire::network::{Network, Part};
use crate::wire::{PacketView, Unparsed, parse};

/// Longest IP packet with fragments (RFC 791 §3.1; RFC 8200 §4.5 counts what follows its header).
pub(super) const LONGEST: u32 = 65_535;

/// One fragment, borrowed from the frame.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    pub(super) key: Key,
    /// What the datagram carries, by this piece's header.
    pub(super) next: u8,
    pub(super) offset: u32,
    pub(super) more: bool,
    headers: u32,
    pub(super) body: &'a [u8],
    stated: u32,
}

/// Which datagram a fragment belongs to.
///
/// The protocol counts for IPv4 only: of IPv6 fragments each may state another (RFC 8200 §4.5), the
/// first one's is what the datagram carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    src: IpAddr,
    dst: IpAddr,
    pub(super) id: u32,
    proto: u8,
    /// Tunnels around it.
    pub(super) depth: u8,
}

impl<'a> Piece<'a> {
    pub(in super::super) const fn new(network: &Network<'a>, part: Part) -> Self {
        let proto = if network.src.is_ipv4() { network.next } else { 0 };
        Self {
            key: Key { src: network.src, dst: network.dst, id: part.id, proto, depth: 0 },
            next: network.next,
            offset: part.offset,
            more: part.more,
            headers: part.headers,
            body: network.body,
            stated: network.stated,
        }
    }

    /// What the first fragment shows of its packet; `None` for a later one.
    ///
    /// # Errors
    /// The reason for which the first fragment alone shows no transport header.
    pub fn first(&self) -> Option<Result<PacketView<'a>, Unparsed>> {
        let part = Part { id: self.key.id, offset: 0, more: true, headers: self.headers };
        (self.offset == 0).then(|| view(&self.key, self.next, self.body, self.stated, Some(part)))
    }

    /// What of the piece is taken.
    ///
    /// An IPv4 piece of uneven length is cut like Linux cuts it; IPv6 refuses it (RFC 8200 §4.5).
    pub(super) fn fitting(&self) -> Result<&'a [u8], Unparsed> {
        if (self.body.len() as u64) < u64::from(self.stated) {
            return Err(Unparsed::FragmentTail);
        }
        let uneven = if self.more { self.body.len() % 8 } else { 0 };
        if uneven != 0 && self.key.src.is_ipv6() {
            return Err(Unparsed::FragmentMalformed);
        }
        let body = self.body.get(..self.body.len() - uneven).unwrap_or_default();
        let end = u64::from(self.offset) + u64::from(self.headers) + body.len() as u64;
        if body.is_empty() || end > u64::from(LONGEST) {
            return Err(Unparsed::FragmentMalformed);
        }
        Ok(body)
    }
}

/// Reads a datagram, or with `part` its first fragment.
pub(super) fn view<'a>(
    key: &Key,
    next: u8,
    body: &'a [u8],
    stated: u32,
    part: Option<Part>,
) -> Result<PacketView<'a>, Unparsed> {
    let mut network = Network { src: key.src, dst: key.dst, next, body, stated, part };
    network.walk()?;
    if part.is_none() && network.part.is_some() {
        return Err(Unparsed::IpMalformed);
    }
    parse::view(&network)
}

impl Key {
    pub(super) const fn at(self, depth: u8) -> Self {
        Self { depth, ..self }
    }
}
