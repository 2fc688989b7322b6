//! From the link header to the start of the IP packet.

use super::{LinkType, Unparsed};

/// EtherTypes (IEEE 802 numbers registry).
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86DD;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88A8;
const ETHERTYPE_VLAN_DOUBLE: u16 = 0x9100;
/// MPLS, downstream and upstream assigned labels (RFC 3032 §5, RFC 5332).
const ETHERTYPE_MPLS: u16 = 0x8847;
const ETHERTYPE_MPLS_UPSTREAM: u16 = 0x8848;
/// Labels unwrapped before a frame is given up; service, transport and fast-reroute labels are five.
const MAX_LABELS: usize = 8;
/// PPPoE session stage (RFC 2516 §4).
const ETHERTYPE_PPPOE: u16 = 0x8864;
/// PPP protocol numbers of IPv4 and IPv6 (RFC 1332, RFC 5072).
const PPP_IPV4: u16 = 0x0021;
const PPP_IPV6: u16 = 0x0057;
/// VLAN tags unwrapped before a frame is given up, as many as etherparse unwraps.
const MAX_VLAN_TAGS: usize = 3;
/// `ARPHRD_NETLINK`: the protocol field of a cooked frame is then a netlink family, no EtherType.
const ARPHRD_NETLINK: u16 = 824;
/// Address families a loopback frame may state: IPv4 everywhere; IPv6 on Linux, NetBSD, FreeBSD
/// and Darwin (tcpdump.org/linktypes.html, `LINKTYPE_NULL`).
const FAMILY_IPV4: u32 = 2;
const FAMILIES_IPV6: [u32; 4] = [10, 24, 28, 30];

/// Finds the IP packet in a frame.
#[inline]
pub(super) fn ip_packet(link: LinkType, bytes: &[u8]) -> Result<&[u8], Unparsed> {
    match link {
        LinkType::Ethernet => {
            let (head, rest) = bytes.split_first_chunk::<14>().ok_or(Unparsed::LinkTruncated)?;
            let [.., t0, t1] = *head;
            ether_payload(u16::from_be_bytes([t0, t1]), rest)
        }
        LinkType::LinuxSll => {
            let (head, rest) = bytes.split_first_chunk::<16>().ok_or(Unparsed::LinkTruncated)?;
            let [_, _, h0, h1, .., t0, t1] = *head;
            cooked_payload([h0, h1], [t0, t1], rest)
        }
        LinkType::LinuxSll2 => {
            let (head, rest) = bytes.split_first_chunk::<20>().ok_or(Unparsed::LinkTruncated)?;
            let [t0, t1, _, _, _, _, _, _, h0, h1, ..] = *head;
            cooked_payload([h0, h1], [t0, t1], rest)
        }
        LinkType::Null => {
            let (family, rest) = bytes.split_first_chunk::<4>().ok_or(Unparsed::LinkTruncated)?;
            let is_ip = |f| f == FAMILY_IPV4 || FAMILIES_IPV6.contains(&f);
            let known = is_ip(u32::from_le_bytes(*family)) || is_ip(u32::from_be_bytes(*family));
            if known { Ok(rest) } else { Err(Unparsed::NotIp) }
        }
        LinkType::RawIp => Ok(bytes),
        LinkType::Unsupported(_) => Err(Unparsed::LinkUnsupported),
    }
}

fn cooked_payload(arphrd: [u8; 2], proto: [u8; 2], rest: &[u8]) -> Result<&[u8], Unparsed> {
    if u16::from_be_bytes(arphrd) == ARPHRD_NETLINK {
        return Err(Unparsed::NotIp);
    }
    ether_payload(u16::from_be_bytes(proto), rest)
}

/// Finds the IP packet behind an EtherType.
#[inline]
pub(super) fn ether_payload(mut ether_type: u16, mut rest: &[u8]) -> Result<&[u8], Unparsed> {
    let mut tags = 0;
    let mut pseudowire = false;
    loop {
        match ether_type {
            ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => return Ok(rest),
            ETHERTYPE_VLAN | ETHERTYPE_QINQ | ETHERTYPE_VLAN_DOUBLE => {
                if tags == MAX_VLAN_TAGS {
                    return Err(Unparsed::VlanTooDeep);
                }
                tags += 1;
                let ([_, _, t0, t1], inner) =
                    rest.split_first_chunk::<4>().ok_or(Unparsed::LinkTruncated)?;
                ether_type = u16::from_be_bytes([*t0, *t1]);
                rest = inner;
            }
            ETHERTYPE_PPPOE => {
                let ([_, _, _, _, _, _, p0, p1], inner) =
                    rest.split_first_chunk::<8>().ok_or(Unparsed::LinkTruncated)?;
                return match u16::from_be_bytes([*p0, *p1]) {
                    PPP_IPV4 | PPP_IPV6 => Ok(inner),
                    _ => Err(Unparsed::NotIp),
                };
            }
            ETHERTYPE_MPLS | ETHERTYPE_MPLS_UPSTREAM => match labelled(rest)? {
                Labelled::Ip(ip) => return Ok(ip),
                Labelled::Ethernet(..) if pseudowire => return Err(Unparsed::MplsTooDeep),
                Labelled::Ethernet(inner_type, inner) => {
                    pseudowire = true;
                    (ether_type, rest) = (inner_type, inner);
                }
            },
            ETHERTYPE_ARP => return Err(Unparsed::Arp),
            _ => return Err(Unparsed::NotIp),
        }
    }
}

/// What a label stack carries.
enum Labelled<'a> {
    Ethernet(u16, &'a [u8]),
    Ip(&'a [u8]),
}

/// Unwraps a label stack (RFC 3032 §2.1). What it carries is nowhere stated: the first nibble tells
/// IP from a pseudowire's control word (RFC 4385 §3), behind which Ethernet is read (RFC 4448).
#[inline(never)]
fn labelled(mut rest: &[u8]) -> Result<Labelled<'_>, Unparsed> {
    for _ in 0..MAX_LABELS {
        let ([_, _, low, _], inner) =
            rest.split_first_chunk::<4>().ok_or(Unparsed::LinkTruncated)?;
        rest = inner;
        if low & 1 == 0 {
            continue;
        }
        return match rest.first().ok_or(Unparsed::LinkTruncated)? >> 4 {
            4 | 6 => Ok(Labelled::Ip(rest)),
            0 => {
                let (head, inner) =
                    rest.split_first_chunk::<18>().ok_or(Unparsed::LinkTruncated)?;
                let [.., t0, t1] = *head;
                Ok(Labelled::Ethernet(u16::from_be_bytes([t0, t1]), inner))
            }
            _ => Err(Unparsed::NotIp),
        };
    }
    Err(Unparsed::MplsTooDeep)
}
