use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{LaxNetSlice, LaxSlicedPacket, PacketBuilder, TransportSlice};

use super::{Frame, LinkType, PacketView, Proto, Unparsed, fast, link, parse, parse::lax};

#[test]
fn a_tcp_segment_over_ethernet_and_ipv4_is_read_whole() {
    let frame = tcp4(b"hello");
    let view = parsed(LinkType::Ethernet, &frame);
    assert_eq!(view.src, IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(view.dst, IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)));
    assert_eq!((view.src_port, view.dst_port), (40_000, 443));
    let tcp = view.tcp.unwrap();
    assert!(tcp.psh && tcp.ack && !tcp.syn && !tcp.fin && !tcp.rst);
    assert_eq!((tcp.seq, tcp.ack_no), (1_000, 77));
    assert_eq!(view.payload, b"hello");
    assert_eq!(view.ip_payload_len, 5);
    assert!(!view.truncated && !view.fragment);
}

#[test]
fn ethernet_padding_is_not_payload() {
    let mut frame = tcp4(b"");
    frame.extend_from_slice(&[0xAA; 6]);
    assert_eq!(parsed(LinkType::Ethernet, &frame).payload, b"");
}

#[test]
fn up_to_three_vlan_tags_are_unwrapped_and_a_fourth_is_named() {
    let plain = tcp4(b"x");
    let mut frame = plain.clone();
    for tag in 1..=4 {
        frame.splice(12..12, [0x81, 0x00, 0x00, tag]);
        if tag < 4 {
            assert_eq!(parsed(LinkType::Ethernet, &frame).payload, b"x");
        }
    }
    assert_eq!(refused(LinkType::Ethernet, &frame), Unparsed::VlanTooDeep);
}

#[test]
fn every_supported_link_type_leads_to_the_same_packet() {
    let ethernet = tcp4(b"same");
    let ip = &ethernet[14..];
    let expected = parsed(LinkType::Ethernet, &ethernet);
    let with = |head: &[u8]| [head, ip].concat();
    let sll = with(&[0, 4, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 0x08, 0x00]);
    let sll2 = with(&[0x08, 0, 0, 0, 0, 0, 0, 2, 0, 1, 4, 6, 1, 2, 3, 4, 5, 6, 0, 0]);
    let pppoe = [&ethernet[..12], &[0x88, 0x64, 0x11, 0, 0, 1, 0, 46, 0, 0x21], ip].concat();
    assert_eq!(parsed(LinkType::LinuxSll, &sll), expected);
    assert_eq!(parsed(LinkType::LinuxSll2, &sll2), expected);
    assert_eq!(parsed(LinkType::Null, &with(&[2, 0, 0, 0])), expected);
    assert_eq!(parsed(LinkType::Null, &with(&[0, 0, 0, 2])), expected);
    assert_eq!(parsed(LinkType::RawIp, ip), expected);
    assert_eq!(parsed(LinkType::Ethernet, &pppoe), expected);
}

#[test]
fn link_type_numbers_map_as_registered() {
    for (dlt, link) in [
        (1, LinkType::Ethernet),
        (113, LinkType::LinuxSll),
        (276, LinkType::LinuxSll2),
        (0, LinkType::Null),
        (108, LinkType::Null),
        (101, LinkType::RawIp),
        (228, LinkType::RawIp),
        (105, LinkType::Unsupported(105)),
    ] {
        assert_eq!(LinkType::from_dlt(dlt), link);
    }
}

#[test]
fn a_payload_cut_by_the_snap_length_keeps_its_stated_length() {
    let mut frame = tcp4(&[7; 1000]);
    frame.truncate(14 + 20 + 20 + 100);
    let view = parsed(LinkType::Ethernet, &frame);
    assert_eq!((view.payload.len(), view.ip_payload_len, view.truncated), (100, 1000, true));
    let mut frame = udp6(&[7; 1000]);
    frame.truncate(14 + 40 + 8 + 100);
    let view = parsed(LinkType::Ethernet, &frame);
    assert_eq!((view.payload.len(), view.ip_payload_len, view.truncated), (100, 1000, true));
}

#[test]
fn a_total_length_of_zero_means_the_length_on_the_wire() {
    let mut frame = tcp4(&[7; 1000]);
    let wire_len = frame.len() as u32;
    frame[16..18].fill(0);
    frame.truncate(14 + 40 + 100);
    let view = parse(&Frame { wire_len, ..ethernet(&frame) }).unwrap();
    assert_eq!((view.payload.len(), view.ip_payload_len, view.truncated), (100, 1000, true));
}

#[test]
fn a_first_fragment_has_ports_and_a_later_one_is_a_tail() {
    let mut frame = udp4(&[1; 64]);
    frame[20] = 0x20;
    let view = parsed(LinkType::Ethernet, &frame);
    assert!(view.fragment && view.dst_port == 53 && view.payload.len() == 64);
    frame[20..22].copy_from_slice(&[0x00, 0x10]);
    assert_eq!(refused(LinkType::Ethernet, &frame), Unparsed::FragmentTail);
}

#[test]
fn ipv6_extension_headers_and_fragments_are_walked() {
    let plain = udp6(b"inner");
    let extended = |next: u8, extension: &[u8]| {
        let mut frame = plain.clone();
        frame[20] = next;
        let len = u16::from_be_bytes([frame[18], frame[19]]) + extension.len() as u16;
        frame[18..20].copy_from_slice(&len.to_be_bytes());
        frame.splice(54..54, extension.iter().copied());
        frame
    };
    let hop_by_hop = extended(0, &[17, 0, 1, 4, 0, 0, 0, 0]);
    let view = parsed(LinkType::Ethernet, &hop_by_hop);
    assert_eq!((view.payload, view.ip_payload_len, view.dst_port), (&b"inner"[..], 5, 53));
    let first = extended(44, &[17, 0, 0, 1, 0, 0, 0, 9]);
    assert!(parsed(LinkType::Ethernet, &first).fragment);
    let tail = extended(44, &[17, 0, 0, 9, 0, 0, 0, 9]);
    assert_eq!(refused(LinkType::Ethernet, &tail), Unparsed::FragmentTail);
    let beyond_the_packet = extended(0, &[17, 200, 1, 4, 0, 0, 0, 0]);
    assert_eq!(refused(LinkType::Ethernet, &beyond_the_packet), Unparsed::IpMalformed);
}

#[test]
fn icmp_and_unknown_protocols_keep_their_payload() {
    let mut frame = udp4(b"12345678abc");
    frame[23] = 1;
    let view = parsed(LinkType::Ethernet, &frame);
    assert_eq!((view.proto, view.payload, view.src_port), (Proto::Icmp, &b"12345678abc"[..], 0));
    frame[23] = 255;
    let view = parsed(LinkType::Ethernet, &frame);
    assert_eq!((view.proto, view.ip_payload_len), (Proto::Other(255), 19));
}

#[test]
fn every_reason_is_reached_and_has_its_own_name_and_place() {
    let good = tcp4(b"");
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = good.clone();
        change(&mut frame);
        frame
    };
    let cases = [
        (Unparsed::Arp, changed(&|f| f[13] = 0x06)),
        (Unparsed::FragmentTail, changed(&|f| f[21] = 1)),
        (Unparsed::IpMalformed, changed(&|f| f[14] = 0x42)),
        (Unparsed::IpTruncated, changed(&|f| f.truncate(20))),
        (Unparsed::LinkTruncated, changed(&|f| f.truncate(13))),
        (Unparsed::NotIp, changed(&|f| f[12] = 0x12)),
        (Unparsed::TransportMalformed, changed(&|f| f[46] = 0x10)),
        (Unparsed::TransportTruncated, changed(&|f| f.truncate(50))),
    ];
    for (reason, frame) in cases {
        assert_eq!(refused(LinkType::Ethernet, &frame), reason);
    }
    assert_eq!(refused(LinkType::Unsupported(7), &good), Unparsed::LinkUnsupported);
    for (index, reason) in Unparsed::ALL.into_iter().enumerate() {
        assert_eq!(reason.index(), index);
        assert!(Unparsed::ALL[..index].iter().all(|other| other.as_str() != reason.as_str()));
    }
}

/// Law: whatever the fast path accepts, the lax slices read identically.
#[test]
fn the_fast_path_and_the_lax_slices_agree_on_mutated_frames() {
    let seeds = [tcp4(b"payload"), udp4(&[9; 40]), tcp6(&[3; 300]), udp6(b"abc")];
    let mut random = XorShift(0x5EED_0001);
    let mut accepted = 0;
    for round in 0..200_000 {
        let mut frame = seeds[round % seeds.len()].clone();
        mutate(&mut frame, &mut random);
        let Ok(ip) = link::ip_packet(LinkType::Ethernet, &frame) else { continue };
        if let Some(fast) = fast::packet(ip) {
            accepted += 1;
            assert_eq!(Ok(fast), lax(ip, random.next() as u32 % 3), "{ip:02x?}");
        }
    }
    assert!(accepted > 50_000, "the law must be exercised: {accepted}");
}

/// Law: our own link reading finds what etherparse finds from the Ethernet header on.
#[test]
fn addresses_and_ports_agree_with_etherparse_read_from_ethernet() {
    let mut tagged = tcp6(b"tagged");
    tagged.splice(12..12, [0x88, 0xA8, 0, 5, 0x81, 0x00, 0, 6]);
    let seeds = [tcp4(b"payload"), udp6(&[9; 40]), tagged];
    let mut random = XorShift(0x5EED_0002);
    for round in 0..60_000 {
        let mut frame = seeds[round % seeds.len()].clone();
        mutate(&mut frame, &mut random);
        let Ok(sliced) = LaxSlicedPacket::from_ethernet(&frame) else { continue };
        let Ok(view) = parse(&ethernet(&frame)) else { continue };
        let Some(net) = &sliced.net else { panic!("etherparse sees no network: {frame:02x?}") };
        let destination: IpAddr = match net {
            LaxNetSlice::Ipv4(v4) => v4.header().destination_addr().into(),
            LaxNetSlice::Ipv6(v6) => v6.header().destination_addr().into(),
            LaxNetSlice::Arp(_) => panic!("etherparse sees ARP: {frame:02x?}"),
        };
        assert_eq!(destination, view.dst);
        match &sliced.transport {
            Some(TransportSlice::Tcp(tcp)) => {
                assert_eq!(tcp.destination_port(), view.dst_port);
                assert_eq!(tcp.payload(), view.payload);
            }
            Some(TransportSlice::Udp(udp)) => {
                assert_eq!(udp.destination_port(), view.dst_port);
                assert_eq!(udp.payload(), view.payload);
            }
            _ if view.fragment => {}
            _ => assert_eq!((view.src_port, view.tcp), (0, None)),
        }
    }
}

/// Law: bytes of any kind end in a view within the frame or in a reason.
#[test]
fn random_bytes_never_do_more_than_be_refused() {
    let mut random = XorShift(0x5EED_0003);
    for _ in 0..100_000 {
        let bytes: Vec<u8> = (0..random.next() % 120).map(|_| random.next() as u8).collect();
        for link in [LinkType::Ethernet, LinkType::LinuxSll, LinkType::LinuxSll2, LinkType::RawIp] {
            if let Ok(view) = parse(&Frame { link, ..ethernet(&bytes) }) {
                assert!(view.payload.len() <= bytes.len());
            }
        }
    }
}

fn mutate(frame: &mut Vec<u8>, random: &mut XorShift) {
    for _ in 0..random.next() % 4 {
        // Mostly headers, where a changed byte changes the reading.
        let at = (random.next() as usize) % frame.len().min(80);
        frame[at] = match random.next() % 3 {
            0 => random.next() as u8,
            1 => frame[at] ^ (1 << (random.next() % 8)),
            _ => [0, 1, 6, 17, 44, 60, 0x45, 0x60, 0x81, 0xFF][(random.next() % 10) as usize],
        };
    }
    if random.next().is_multiple_of(4) {
        frame.truncate((random.next() as usize) % (frame.len() + 1));
    }
    if random.next().is_multiple_of(8) {
        frame.extend_from_slice(&[0; 7]);
    }
}

fn ethernet(bytes: &[u8]) -> Frame<'_> {
    Frame { at_ns: 0, link: LinkType::Ethernet, wire_len: bytes.len() as u32, bytes }
}

fn parsed(link: LinkType, bytes: &[u8]) -> PacketView<'_> {
    parse(&Frame { link, ..ethernet(bytes) }).unwrap()
}

fn refused(link: LinkType, bytes: &[u8]) -> Unparsed {
    parse(&Frame { link, ..ethernet(bytes) }).unwrap_err()
}

const V6_SRC: [u8; 16] = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets();
const V6_DST: [u8; 16] = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2).octets();

fn tcp4(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ethernet2([1; 6], [2; 6])
        .ipv4([10, 0, 0, 1], [203, 0, 113, 9], 64)
        .tcp(40_000, 443, 1_000, 512)
        .ack(77)
        .psh()
        .write(&mut out, payload)
        .unwrap();
    out
}

fn udp4(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ethernet2([1; 6], [2; 6])
        .ipv4([10, 0, 0, 1], [203, 0, 113, 9], 64)
        .udp(40_000, 53)
        .write(&mut out, payload)
        .unwrap();
    out
}

fn tcp6(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ethernet2([1; 6], [2; 6])
        .ipv6(V6_SRC, V6_DST, 64)
        .tcp(40_000, 443, 1_000, 512)
        .write(&mut out, payload)
        .unwrap();
    out
}

fn udp6(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ethernet2([1; 6], [2; 6])
        .ipv6(V6_SRC, V6_DST, 64)
        .udp(40_000, 53)
        .write(&mut out, payload)
        .unwrap();
    out
}

/// Deterministic bytes (Marsaglia's xorshift64).
struct XorShift(u64);

impl XorShift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
