use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{LaxNetSlice, LaxSlicedPacket, PacketBuilder, TransportSlice};

use self::forge::{Carrier, XorShift, fragments as cut, host, ip as packet, tcp, udp};
use super::{
    Fragments, Frame, IcmpFacts, LinkType, Packet, PacketView, Proto, Taken, Unparsed, fast, link,
    parse, parse::lax, read, tunnel,
};
use crate::limits::Limits;

pub(crate) mod forge;
mod fragments;
mod tunnels;

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
    assert_eq!(view.icmp, None);
}

#[test]
fn icmp_shows_its_type_and_an_echo_its_numbers() {
    for (v6, proto, echoes) in [(false, 1, [0, 8]), (true, 58, [128, 129])] {
        for kind in 0..=255 {
            let message = [kind, 3, 0xAA, 0xBB, 0x12, 0x34, 0x56, 0x78, 9, 9];
            let bytes = packet(proto, host(v6, 1), host(v6, 2), &message);
            let view = parsed(LinkType::RawIp, &bytes);
            let (id, seq) = if echoes.contains(&kind) { (0x1234, 0x5678) } else { (0, 0) };
            assert_eq!(view.icmp, Some(IcmpFacts { kind, code: 3, id, seq }));
            assert_eq!((view.payload, view.ip_payload_len, view.tcp), (&[9, 9][..], 2, None));
        }
    }
}

#[test]
fn a_chain_of_sixteen_extension_headers_is_walked_and_a_longer_one_is_named() {
    for (count, known) in [(0, true), (1, true), (16, true), (17, false), (200, false)] {
        let mut body = udp((host(true, 1), 9), (host(true, 2), 53), b"deep")[40..].to_vec();
        let mut next = 17;
        for n in 0..count {
            let kind = [60, 43, 51][n % 3];
            // An authentication header counts words less two, the others units of eight less one.
            let (length, bytes) = if kind == 51 { (4, 24) } else { (1, 16) };
            let mut header = vec![next, length];
            header.resize(bytes, 0);
            body.splice(0..0, header);
            next = kind;
        }
        let bytes = packet(next, host(true, 1), host(true, 2), &body);
        match parse(&Frame { link: LinkType::RawIp, ..ethernet(&bytes) }) {
            Ok(view) => assert!(known && view.payload == b"deep" && view.dst_port == 53),
            Err(reason) => assert!(!known && reason == Unparsed::IpExtensions, "{count}"),
        }
    }
}

#[test]
fn extension_headers_that_are_not_known_are_the_protocol_of_the_packet() {
    let body = [17, 0, 1, 4, 0, 0, 0, 0, 1, 2, 3];
    for number in [135, 139, 140, 50, 59] {
        let bytes = packet(number, host(true, 1), host(true, 2), &body);
        let view = parsed(LinkType::RawIp, &bytes);
        assert_eq!((view.proto, view.payload), (Proto::Other(number), &body[..]));
    }
    let late_hop_by_hop = [&[0, 0, 1, 4, 0, 0, 0, 0][..], &[17, 0, 1, 4, 0, 0, 0, 0]].concat();
    let bytes = packet(60, host(true, 1), host(true, 2), &late_hop_by_hop);
    assert_eq!(refused(LinkType::RawIp, &bytes), Unparsed::IpMalformed);
    let authentic = [&[17, 4][..], &[0; 22], &udp4(b"ah")[34..]].concat();
    let bytes = packet(51, host(false, 1), host(false, 2), &authentic);
    let view = parsed(LinkType::RawIp, &bytes);
    assert_eq!((view.payload, view.dst_port, view.ip_payload_len), (&b"ah"[..], 53, 2));
}

/// Offloaded packets of more than 64 KiB (BIG TCP): IPv4 states 0, IPv6 a jumbo payload option.
#[test]
fn packets_longer_than_64_kib_are_read_to_their_end() {
    let payload = vec![3; 180_000];
    let mut v4 = tcp((host(false, 1), 9), (host(false, 2), 443), 0x18, 7, b"");
    v4[2..4].fill(0);
    v4.extend(&payload);
    let mut v6 = tcp((host(true, 1), 9), (host(true, 2), 443), 0x18, 7, b"");
    v6[4..6].fill(0);
    let mut jumbo = v6.clone();
    v6.extend(&payload);
    jumbo[6] = 0;
    let length = (8 + 20 + payload.len() as u32).to_be_bytes();
    jumbo.splice(40..40, [&[6, 0, 0xC2, 4][..], &length].concat());
    jumbo.extend(&payload);
    for bytes in [&v4, &v6, &jumbo] {
        let view = parsed(LinkType::RawIp, bytes);
        assert_eq!((view.payload.len(), view.ip_payload_len), (180_000, 180_000));
        assert!(view.dst_port == 443 && !view.truncated);
        let wire_len = bytes.len() as u32;
        let cut = Frame { link: LinkType::RawIp, wire_len, ..ethernet(&bytes[..200]) };
        let view = parse(&cut).unwrap();
        assert!(view.ip_payload_len == 180_000 && view.truncated);
    }
    // What follows a jumbogram is not its payload, and no option makes it longer than the wire.
    jumbo.extend([0xEE; 9]);
    assert_eq!(parsed(LinkType::RawIp, &jumbo).payload.len(), 180_000);
    jumbo[44] = 0x7F;
    assert_eq!(parsed(LinkType::RawIp, &jumbo).payload.len(), 180_009);
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

/// Law: what nests and what is cut into pieces is read, opened or refused, whatever changes in it.
#[test]
fn mutations_of_every_shape_end_in_a_packet_a_piece_or_a_reason() {
    let mut seeds = vec![
        packet(255, host(false, 1), host(false, 2), b"raw"),
        packet(1, host(false, 1), host(false, 2), &[8, 0, 1, 2, 3, 4, 5, 6, 7]),
        packet(
            0,
            host(true, 1),
            host(true, 2),
            &[60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0],
        ),
    ];
    for carrier in Carrier::ALL {
        for v6 in [false, true] {
            let inside = tcp((host(v6, 1), 9), (host(v6, 2), 443), 0x18, 1, b"inside");
            let once = carrier.wrap(host(!v6, 3), host(!v6, 4), &inside);
            seeds.extend(cut(&once, seeds.len() as u32, 24));
            seeds.push(carrier.wrap(host(v6, 5), host(v6, 6), &once));
            seeds.push(once);
        }
    }
    let mut table = Fragments::new(&Limits::default(), ahash::RandomState::with_seeds(1, 2, 3, 4));
    let mut random = XorShift(0x5EED_0004);
    let (mut opened, mut wholes, mut refused) = (0, 0, 0);
    for round in 0..300_000 {
        let mut bytes = seeds[round % seeds.len()].clone();
        if random.next().is_multiple_of(3) {
            mutate(&mut bytes, &mut random);
        }
        if round % seeds.len() == 0 {
            while let Some(gone) = table.expired(i64::MAX - 1) {
                table.give_back(gone);
            }
        }
        match read(&bytes, random.next() as u32 % 3) {
            Ok(Packet::Whole(view)) => {
                assert!(view.payload.len() <= bytes.len());
                if let Some(inner) = tunnel::inner(&view) {
                    assert!(tunnel::may_carry(&view));
                    opened += u64::from(inner.is_ok_and(|inner| inner.ip.len() < bytes.len()));
                }
            }
            Ok(Packet::Piece(piece)) => {
                while let Some(gone) = table.crowded(&piece, 0) {
                    table.give_back(gone);
                }
                match table.take(round as i64, &piece, 0, None) {
                    Taken::Held | Taken::Refused(_) => {}
                    Taken::Spoiled(_, gathered) => table.give_back(gathered),
                    Taken::Whole(whole) => {
                        wholes += u64::from(whole.view().is_ok());
                        table.give_back(whole);
                    }
                }
            }
            Err(_) => refused += 1,
        }
    }
    assert!(opened > 50_000 && wholes > 5_000 && refused > 1_000, "{opened} {wholes} {refused}");
}

/// Law: our own reading of options, chains and fragments finds what etherparse finds.
#[test]
fn the_network_layer_agrees_with_etherparse_on_mutated_chains() {
    let extended = |chain: &[u8], first: u8| {
        let datagram = udp((host(true, 1), 9), (host(true, 2), 53), b"chained");
        packet(first, host(true, 1), host(true, 2), &[chain, &datagram[40..]].concat())
    };
    let mut options = udp((host(false, 1), 9), (host(false, 2), 53), b"options");
    options[0] = 0x47;
    options[3] += 8;
    options.splice(20..20, [1; 8]);
    let seeds = [
        options,
        extended(&[17, 0, 1, 4, 0, 0, 0, 0], 0),
        extended(&[43, 0, 1, 4, 0, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0], 0),
        extended(&[17, 0, 0, 1, 0, 0, 0, 9], 44),
        extended(&[17, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 51),
    ];
    let mut random = XorShift(0x5EED_0005);
    let mut compared = 0;
    for round in 0..200_000 {
        let mut bytes = seeds[round % seeds.len()].clone();
        mutate(&mut bytes, &mut random);
        let Ok(view) = lax(&bytes, 0) else { continue };
        let sliced = LaxSlicedPacket::from_ip(&bytes).unwrap();
        let payload = sliced.ip_payload().unwrap();
        assert_eq!(payload.ip_number.0, view.proto.number(), "{bytes:02x?}");
        assert_eq!(payload.fragmented, view.fragment);
        if let Proto::Other(_) = view.proto {
            assert_eq!(payload.payload, view.payload, "{bytes:02x?}");
        }
        compared += 1;
    }
    assert!(compared > 100_000, "{compared}");
}

/// Law: bytes of any kind end in a view within the frame or in a reason.
#[test]
fn random_bytes_never_do_more_than_be_refused() {
    let mut random = XorShift(0x5EED_0003);
    for _ in 0..100_000 {
        let bytes: Vec<u8> = (0..random.next() % 120).map(|_| random.next() as u8).collect();
        if let Ok(Packet::Whole(view)) = read(&bytes, 0) {
            assert!(tunnel::inner(&view).is_none_or(|found| {
                found.is_err() || found.is_ok_and(|inner| inner.ip.len() <= bytes.len())
            }));
        }
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
