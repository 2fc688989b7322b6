//! Straight-line reading of the packets that make up nearly all traffic: IPv4 without options or
//! IPv6 without extension headers, unfragmented, carrying TCP or UDP. Anything else is left to the
//! lax slices; the tests hold both to identical results.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::view::{PacketView, Proto, Segment, TcpFacts, udp_payload_len};

/// Version 4 with a header of five words, the only IPv4 first byte read here.
const IPV4_WITHOUT_OPTIONS: u8 = 0x45;
/// More-fragments flag and fragment offset (RFC 791 §3.1).
const IPV4_FRAGMENTING: u16 = 0x3FFF;
/// IANA protocol numbers.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Reads an IP packet of the common shape; `None` means "ask the lax slices".
#[inline]
pub(super) fn packet(ip: &[u8]) -> Option<PacketView<'_>> {
    match *ip.first()? {
        IPV4_WITHOUT_OPTIONS => ipv4(ip),
        first if first >> 4 == 6 => ipv6(ip),
        _ => None,
    }
}

#[inline]
fn ipv4(ip: &[u8]) -> Option<PacketView<'_>> {
    let (head, rest) = ip.split_first_chunk::<20>()?;
    let [_, _, t0, t1, _, _, f0, f1, _, proto, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *head;
    if u16::from_be_bytes([f0, f1]) & IPV4_FRAGMENTING != 0 {
        return None;
    }
    let stated = u16::from_be_bytes([t0, t1]).checked_sub(20)?;
    let body = rest.get(..usize::from(stated)).unwrap_or(rest);
    let src = IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3));
    let dst = IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3));
    transport(src, dst, proto, body, u32::from(stated))
}

#[inline]
fn ipv6(ip: &[u8]) -> Option<PacketView<'_>> {
    let (head, rest) = ip.split_first_chunk::<40>()?;
    let ([_, _, _, _, l0, l1, next, _], addresses) = head.split_first_chunk::<8>()?;
    let (src, rest_of_head) = addresses.split_first_chunk::<16>()?;
    let dst = rest_of_head.first_chunk::<16>()?;
    // Zero is a jumbogram or an offloaded packet: the lax slices decide.
    let stated = u16::from_be_bytes([*l0, *l1]);
    if stated == 0 {
        return None;
    }
    let body = rest.get(..usize::from(stated)).unwrap_or(rest);
    let (src, dst) = (IpAddr::V6(Ipv6Addr::from(*src)), IpAddr::V6(Ipv6Addr::from(*dst)));
    transport(src, dst, *next, body, u32::from(stated))
}

#[inline]
fn transport(
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    body: &[u8],
    stated: u32,
) -> Option<PacketView<'_>> {
    let (proto, segment) = match proto {
        TCP => (Proto::Tcp, tcp(body, stated)?),
        UDP => (Proto::Udp, udp(body, stated)?),
        _ => return None,
    };
    Some(PacketView {
        src,
        dst,
        src_port: segment.ports.0,
        dst_port: segment.ports.1,
        proto,
        tcp: segment.tcp,
        icmp: None,
        payload: segment.payload,
        ip_payload_len: segment.stated,
        truncated: (segment.payload.len() as u64) < u64::from(segment.stated),
        fragment: false,
    })
}

#[inline]
fn tcp(body: &[u8], stated: u32) -> Option<Segment<'_>> {
    let head = body.first_chunk::<20>()?;
    let [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, ..] = *head;
    let header_len = usize::from(offset >> 4) * 4;
    if header_len < 20 {
        return None;
    }
    let payload = body.get(header_len..)?;
    Some(Segment {
        ports: (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])),
        tcp: Some(TcpFacts {
            syn: flags & 0x02 != 0,
            ack: flags & 0x10 != 0,
            fin: flags & 0x01 != 0,
            rst: flags & 0x04 != 0,
            psh: flags & 0x08 != 0,
            seq: u32::from_be_bytes([q0, q1, q2, q3]),
            ack_no: u32::from_be_bytes([a0, a1, a2, a3]),
        }),
        icmp: None,
        payload,
        stated: stated.saturating_sub(header_len as u32),
    })
}

#[inline]
fn udp(body: &[u8], stated: u32) -> Option<Segment<'_>> {
    let ([s0, s1, d0, d1, l0, l1, _, _], rest) = body.split_first_chunk::<8>()?;
    let udp_len = u16::from_be_bytes([*l0, *l1]);
    let len = udp_payload_len(udp_len, stated);
    let payload = rest.get(..len as usize).unwrap_or(rest);
    Some(Segment {
        ports: (u16::from_be_bytes([*s0, *s1]), u16::from_be_bytes([*d0, *d1])),
        tcp: None,
        icmp: None,
        payload,
        stated: len,
    })
}
