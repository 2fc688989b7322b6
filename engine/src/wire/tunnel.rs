//! Packets inside packets: what a tunnel carries, seen from outside.

use super::{LinkType, PacketView, Proto, Unparsed, link};

/// Tunnels opened around a packet; more are named, so that nesting costs nobody anything.
pub const MAX_DEPTH: u8 = 2;

/// IP protocol numbers of tunnels (IANA): IP-in-IP (RFC 2003, RFC 2473), 6in4 and IPv6-in-IPv6
/// (RFC 4213, RFC 2473), GRE (RFC 2784), MPLS-in-IP (RFC 4023).
const IPV4_INSIDE: u8 = 4;
const IPV6_INSIDE: u8 = 41;
const GRE: u8 = 47;
const MPLS_INSIDE: u8 = 137;
/// UDP ports: VXLAN (RFC 7348) and the one that Linux used before it, Geneve (RFC 8926).
const VXLAN: u16 = 4789;
const VXLAN_LINUX: u16 = 8472;
const GENEVE: u16 = 6081;
/// EtherTypes of what GRE and Geneve carry: transparent Ethernet bridging (RFC 1701, RFC 7637).
const ETHERNET: u16 = 0x6558;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86DD;
const MPLS: u16 = 0x8847;
const MPLS_UPSTREAM: u16 = 0x8848;
/// GRE: checksum, routing, key and sequence present (RFC 2784 §2.1, RFC 1701, RFC 2890 §2), version.
const GRE_CHECKSUM: u16 = 0x8000;
const GRE_ROUTING: u16 = 0x4000;
const GRE_KEY: u16 = 0x2000;
const GRE_SEQUENCE: u16 = 0x1000;
const GRE_VERSION: u16 = 0x0007;
/// VXLAN: the flag of a valid network identifier (RFC 7348 §5).
const VXLAN_VALID: u8 = 0x08;

/// The IP packet inside a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner<'a> {
    /// Its bytes, from the IP header on.
    pub ip: &'a [u8],
    /// How many bytes of it the snap length cut off.
    pub uncaptured: u32,
}

/// Whether a packet's protocol or port is that of a tunnel: the one test that plain packets pay for.
#[must_use]
#[inline]
pub const fn may_carry(view: &PacketView<'_>) -> bool {
    match view.proto {
        Proto::Tcp | Proto::Icmp | Proto::Icmpv6 => false,
        Proto::Udp => matches!(view.dst_port, VXLAN | VXLAN_LINUX | GENEVE),
        Proto::Other(number) => {
            matches!(number, IPV4_INSIDE | IPV6_INSIDE | GRE | MPLS_INSIDE)
        }
    }
}

/// Opens the tunnel that a packet is; `None` for a packet that is none.
///
/// The outer packet stays a packet of its own. A datagram to a tunnel's port that does not have
/// that tunnel's header is a datagram, no more.
#[must_use]
pub fn inner<'a>(view: &PacketView<'a>) -> Option<Result<Inner<'a>, Unparsed>> {
    let found = match view.proto {
        Proto::Other(IPV4_INSIDE) => versioned(view.payload, 4),
        Proto::Other(IPV6_INSIDE) => versioned(view.payload, 6),
        Proto::Other(GRE) => gre(view.payload),
        Proto::Other(MPLS_INSIDE) => link::ether_payload(MPLS, view.payload),
        Proto::Udp => match view.dst_port {
            VXLAN | VXLAN_LINUX => vxlan(view.payload)?,
            GENEVE => geneve(view.payload)?,
            _ => return None,
        },
        _ => return None,
    };
    let cut = u64::from(view.ip_payload_len).saturating_sub(view.payload.len() as u64) as u32;
    Some(match found {
        Ok(ip) => Ok(Inner { ip, uncaptured: cut }),
        // What is missing was sent, if the capture ends before the packet does.
        Err(Unparsed::LinkTruncated | Unparsed::TunnelTruncated) if cut == 0 => {
            Err(Unparsed::TunnelMalformed)
        }
        Err(Unparsed::LinkTruncated) => Err(Unparsed::TunnelTruncated),
        Err(reason) => Err(reason),
    })
}

fn versioned(ip: &[u8], version: u8) -> Result<&[u8], Unparsed> {
    match ip.first() {
        Some(first) if first >> 4 == version => Ok(ip),
        Some(_) => Err(Unparsed::TunnelMalformed),
        None => Err(Unparsed::TunnelTruncated),
    }
}

fn carried(ether_type: u16, rest: &[u8]) -> Result<&[u8], Unparsed> {
    match ether_type {
        ETHERNET => link::ip_packet(LinkType::Ethernet, rest),
        IPV4 => versioned(rest, 4),
        IPV6 => versioned(rest, 6),
        MPLS | MPLS_UPSTREAM => link::ether_payload(ether_type, rest),
        _ => Err(Unparsed::TunnelUnread),
    }
}

/// GRE with the optional fields of RFC 2784 and RFC 2890.
fn gre(body: &[u8]) -> Result<&[u8], Unparsed> {
    let ([f0, f1, t0, t1], rest) =
        body.split_first_chunk::<4>().ok_or(Unparsed::TunnelTruncated)?;
    let flags = u16::from_be_bytes([*f0, *f1]);
    // Version 1 is PPTP's (RFC 2637): PPP, compressed and encrypted as a rule.
    if flags & (GRE_VERSION | GRE_ROUTING) != 0 {
        return Err(Unparsed::TunnelUnread);
    }
    let fields = [GRE_CHECKSUM, GRE_KEY, GRE_SEQUENCE];
    let optional = 4 * fields.iter().filter(|field| flags & **field != 0).count();
    let rest = rest.get(optional..).ok_or(Unparsed::TunnelTruncated)?;
    carried(u16::from_be_bytes([*t0, *t1]), rest)
}

/// VXLAN: `None` where the header is none, or one with reserved bits before something unreadable.
///
/// Receivers shall ignore reserved bits, so a header with some is read, but blamed for nothing.
fn vxlan(body: &[u8]) -> Option<Result<&[u8], Unparsed>> {
    let ([flags, reserved @ .., last], rest) = body.split_first_chunk::<8>()?;
    if flags & VXLAN_VALID == 0 {
        return None;
    }
    let [r0, r1, r2, ..] = *reserved;
    let plain = *flags == VXLAN_VALID && [r0, r1, r2, *last] == [0; 4];
    let found = link::ip_packet(LinkType::Ethernet, rest);
    if plain { Some(found) } else { found.ok().map(Ok) }
}

/// Geneve version 0: `None` where the header is none, or carries what is not Ethernet, IP or MPLS.
fn geneve(body: &[u8]) -> Option<Result<&[u8], Unparsed>> {
    let ([first, second, t0, t1, _, _, _, reserved], rest) = body.split_first_chunk::<8>()?;
    let ether_type = u16::from_be_bytes([*t0, *t1]);
    let known = matches!(ether_type, ETHERNET | IPV4 | IPV6 | MPLS | MPLS_UPSTREAM);
    if first >> 6 != 0 || !known {
        return None;
    }
    let options = usize::from(first & 0x3F) * 4;
    let plain = second & 0x3F == 0 && *reserved == 0;
    let found = rest
        .get(options..)
        .ok_or(Unparsed::TunnelTruncated)
        .and_then(|inner| carried(ether_type, inner));
    if plain { Some(found) } else { found.ok().map(Ok) }
}
