//! IP packets, tunnels and fragments built by hand.

use std::net::IpAddr;

/// An address of one of two hosts, in either family.
pub(crate) fn host(v6: bool, number: u8) -> IpAddr {
    if v6 {
        IpAddr::from([0x20, 1, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number])
    } else {
        IpAddr::from([198, 51, 100, number])
    }
}

pub(crate) fn ip(proto: u8, src: IpAddr, dst: IpAddr, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            packet.extend([0x45, 0]);
            packet.extend(u16::try_from(20 + body.len()).unwrap().to_be_bytes());
            packet.extend([0x12, 0x34, 0, 0, 64, proto, 0, 0]);
            packet.extend(src.octets());
            packet.extend(dst.octets());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
            packet.extend([proto, 64]);
            packet.extend(src.octets());
            packet.extend(dst.octets());
        }
        _ => panic!("two families"),
    }
    packet.extend(body);
    packet
}

pub(crate) fn udp(src: (IpAddr, u16), dst: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(src.1.to_be_bytes());
    body.extend(dst.1.to_be_bytes());
    body.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    body.extend([0, 0]);
    body.extend(payload);
    ip(17, src.0, dst.0, &body)
}

pub(crate) fn tcp(
    src: (IpAddr, u16),
    dst: (IpAddr, u16),
    flags: u8,
    seq: u32,
    payload: &[u8],
) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(src.1.to_be_bytes());
    body.extend(dst.1.to_be_bytes());
    body.extend(seq.to_be_bytes());
    body.extend([0, 0, 0, 1, 0x50, flags, 0xFF, 0xFF, 0, 0, 0, 0]);
    body.extend(payload);
    ip(6, src.0, dst.0, &body)
}

fn ether_type(ip: &[u8]) -> [u8; 2] {
    if ip[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xDD] }
}

pub(crate) fn ethernet(ip: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &ether_type(ip), ip].concat()
}

/// Labels before a packet, the last one marked as the bottom.
pub(crate) fn labelled(labels: u8, inner: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in 1..=labels {
        bytes.extend([0, label, 0x10 | u8::from(label == labels), 64]);
    }
    bytes.extend(inner);
    bytes
}

/// The ways to carry a packet in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Gre,
    GreEthernet,
    GreFull,
    GreMpls,
    Vxlan,
    VxlanLinux,
    Geneve,
    GeneveIp,
    Direct,
    MplsInIp,
}

impl Carrier {
    pub(crate) const ALL: [Self; 10] = [
        Self::Gre,
        Self::GreEthernet,
        Self::GreFull,
        Self::GreMpls,
        Self::Vxlan,
        Self::VxlanLinux,
        Self::Geneve,
        Self::GeneveIp,
        Self::Direct,
        Self::MplsInIp,
    ];

    pub(crate) fn wrap(self, src: IpAddr, dst: IpAddr, inner: &[u8]) -> Vec<u8> {
        let kind = ether_type(inner);
        let gre = |flags: u8, kind: &[u8], fields: &[u8], inner: &[u8]| {
            ip(47, src, dst, &[&[flags, 0], kind, fields, inner].concat())
        };
        let to = |port: u16, header: &[u8], inner: &[u8]| {
            udp((src, 50_000), (dst, port), &[header, inner].concat())
        };
        match self {
            Self::Gre => gre(0, &kind, &[], inner),
            Self::GreEthernet => gre(0, &[0x65, 0x58], &[], &ethernet(inner)),
            Self::GreFull => gre(0xB0, &kind, &[9; 12], inner),
            Self::GreMpls => gre(0x20, &[0x88, 0x47], &[7; 4], &labelled(2, inner)),
            Self::Vxlan => to(4789, &[8, 0, 0, 0, 1, 2, 3, 0], &ethernet(inner)),
            Self::VxlanLinux => to(8472, &[8, 0, 0, 0, 1, 2, 3, 0], &ethernet(inner)),
            Self::Geneve => {
                to(6081, &[2, 0, 0x65, 0x58, 0, 0, 5, 0, 1, 2, 3, 1, 0, 0, 0, 0], &ethernet(inner))
            }
            Self::GeneveIp => to(6081, &[0, 0, kind[0], kind[1], 0, 0, 5, 0], inner),
            Self::Direct => ip(if inner[0] >> 4 == 4 { 4 } else { 41 }, src, dst, inner),
            Self::MplsInIp => ip(137, src, dst, &labelled(3, inner)),
        }
    }
}

/// One fragment of a datagram, with any offset and flag.
pub(crate) fn piece(
    like: &[u8],
    id: u32,
    next: u8,
    offset: usize,
    more: bool,
    body: &[u8],
) -> Vec<u8> {
    if like[0] >> 4 == 4 {
        let mut packet = like[..20].to_vec();
        packet[2..4].copy_from_slice(&u16::try_from(20 + body.len()).unwrap().to_be_bytes());
        packet[4..6].copy_from_slice(&u16::try_from(id).unwrap().to_be_bytes());
        let word = u16::from(more) << 13 | u16::try_from(offset / 8).unwrap();
        packet[6..8].copy_from_slice(&word.to_be_bytes());
        packet[9] = next;
        packet.extend(body);
        packet
    } else {
        let mut packet = like[..40].to_vec();
        packet[4..6].copy_from_slice(&u16::try_from(8 + body.len()).unwrap().to_be_bytes());
        packet[6] = 44;
        let word = u16::try_from(offset).unwrap() | u16::from(more);
        packet.extend([next, 0]);
        packet.extend(word.to_be_bytes());
        packet.extend(id.to_be_bytes());
        packet.extend(body);
        packet
    }
}

/// A whole packet in fragments of `size` bytes.
pub(crate) fn fragments(packet: &[u8], id: u32, size: usize) -> Vec<Vec<u8>> {
    let (header, next) = if packet[0] >> 4 == 4 { (20, packet[9]) } else { (40, packet[6]) };
    let body = &packet[header..];
    let count = body.len().div_ceil(size);
    let cut = |(n, part): (usize, &[u8])| piece(packet, id, next, n * size, n + 1 < count, part);
    body.chunks(size).enumerate().map(cut).collect()
}

/// Deterministic bytes (Marsaglia's xorshift64).
pub(crate) struct XorShift(pub(crate) u64);

impl XorShift {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
