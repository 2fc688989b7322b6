use super::forge::{Carrier, XorShift, ethernet, host, ip, labelled, tcp, udp};
use crate::wire::tunnel::{Inner, inner, may_carry};
use crate::wire::{Frame, LinkType, Packet, PacketView, Proto, Unparsed, parse, read};

fn whole(ip: &[u8]) -> PacketView<'_> {
    match read(ip, 0).unwrap() {
        Packet::Whole(view) => view,
        Packet::Piece(_) => panic!("a piece: {ip:02x?}"),
    }
}

fn opened(ip: &[u8]) -> Result<Inner<'_>, Unparsed> {
    inner(&whole(ip)).expect("a tunnel")
}

#[test]
fn every_tunnel_over_either_ip_gives_the_packet_of_either_ip_inside_it() {
    for carrier in Carrier::ALL {
        for (outer_v6, inner_v6) in [(false, false), (false, true), (true, false), (true, true)] {
            let inside = tcp((host(inner_v6, 1), 40_000), (host(inner_v6, 2), 443), 0x18, 7, b"in");
            let outside = carrier.wrap(host(outer_v6, 3), host(outer_v6, 4), &inside);
            let view = whole(&outside);
            assert!(may_carry(&view));
            assert_eq!(view.dst, host(outer_v6, 4), "the outer packet stays one");
            let found = inner(&view).unwrap().unwrap();
            assert_eq!((found.ip, found.uncaptured), (&inside[..], 0), "{carrier:?}");
            assert_eq!(whole(found.ip).payload, b"in");
        }
    }
}

#[test]
fn gre_is_opened_behind_any_of_its_optional_fields() {
    let inside = udp((host(false, 1), 1), (host(false, 2), 2), b"x");
    for flags in [0x00, 0x80, 0x20, 0x10, 0xA0, 0x90, 0x30, 0xB0_u8] {
        let fields = vec![0xEE; 4 * flags.count_ones() as usize];
        let body = [&[flags, 0, 8, 0][..], &fields, &inside].concat();
        let packet = ip(47, host(false, 3), host(false, 4), &body);
        assert_eq!(opened(&packet).unwrap().ip, inside, "{flags:02x}");
    }
}

#[test]
fn what_a_tunnel_carries_that_is_not_read_is_named() {
    let gre = |body: &[u8]| ip(47, host(false, 3), host(false, 4), body);
    for unread in [
        // Version 1 with PPP, source routing, ERSPAN, a keepalive.
        &[0x30, 0x01, 0x88, 0x0B, 0, 4, 0, 1, 0, 0, 0, 1][..],
        &[0x40, 0, 8, 0, 0, 0, 0, 0],
        &[0x10, 0, 0x88, 0xBE, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0, 0, 0, 0],
    ] {
        assert_eq!(opened(&gre(unread)), Err(Unparsed::TunnelUnread), "{unread:02x?}");
    }
    for malformed in [&[0, 0][..], &[0x20, 0, 8, 0, 1], &[0, 0, 8, 0, 0x60], &[0, 0, 0x65, 0x58, 1]]
    {
        assert_eq!(opened(&gre(malformed)), Err(Unparsed::TunnelMalformed), "{malformed:02x?}");
    }
    let arp = [&[0, 0, 0x65, 0x58][..], &[0; 12], &[8, 6], &[0; 28]].concat();
    assert_eq!(opened(&gre(&arp)), Err(Unparsed::Arp));
    let inside = udp((host(true, 1), 1), (host(true, 2), 2), b"x");
    let wrong_version = ip(4, host(false, 3), host(false, 4), &inside);
    assert_eq!(opened(&wrong_version), Err(Unparsed::TunnelMalformed));
}

#[test]
fn a_tunnel_that_the_capture_cut_is_truncated_and_its_packet_keeps_its_length() {
    let inside = udp((host(false, 1), 1), (host(false, 2), 2), &[5; 400]);
    let outside = Carrier::GreFull.wrap(host(false, 3), host(false, 4), &inside);
    let header = &outside[..24];
    assert_eq!(opened(header), Err(Unparsed::TunnelTruncated));
    let found = opened(&outside[..100]).unwrap();
    assert_eq!(found.ip.len() + found.uncaptured as usize, inside.len());
    let view = whole(found.ip);
    assert_eq!((view.ip_payload_len, view.truncated), (400, true));
}

#[test]
fn a_datagram_to_a_tunnel_port_that_is_no_tunnel_is_a_datagram() {
    let mut random = XorShift(0x5EED_0100);
    let mut none = 0;
    for round in 0..60_000 {
        let payload: Vec<u8> = (0..random.below(90)).map(|_| random.next() as u8).collect();
        for port in [4789, 8472, 6081] {
            let packet = udp((host(false, 1), 4789), (host(false, 2), port), &payload);
            let view = whole(&packet);
            match inner(&view) {
                None => none += 1,
                // Only a header without a reserved bit is blamed for what follows it.
                Some(Err(_)) => {
                    assert!(payload[..2] == [8, 0] || payload[0] >> 6 == 0, "{payload:02x?}");
                }
                Some(Ok(found)) => assert!(found.ip.len() < payload.len()),
            }
            assert_eq!(view.payload, payload, "round {round}");
        }
    }
    assert!(none > 170_000, "{none}");
    let no_identifier = udp((host(false, 1), 9), (host(false, 2), 4789), &[0; 80]);
    assert_eq!(inner(&whole(&no_identifier)), None);
    let reply = udp((host(false, 1), 4789), (host(false, 2), 53), &[8; 80]);
    assert!(!may_carry(&whole(&reply)), "a resolver's answer to a client on that port");
}

#[test]
fn vxlan_with_reserved_bits_is_read_when_there_is_something_to_read() {
    let inside = udp((host(false, 1), 1), (host(false, 2), 2), b"policy extension");
    let with = |header: [u8; 8], frame: &[u8]| {
        let payload = [&header[..], frame].concat();
        udp((host(false, 3), 9), (host(false, 4), 4789), &payload)
    };
    let group = with([0x88, 0, 0, 7, 1, 2, 3, 0], &ethernet(&inside));
    assert_eq!(opened(&group).unwrap().ip, inside);
    assert_eq!(inner(&whole(&with([0x88, 0, 0, 7, 1, 2, 3, 0], &[0; 60]))), None);
    let plain = with([8, 0, 0, 0, 1, 2, 3, 0], &[0; 60]);
    assert_eq!(opened(&plain), Err(Unparsed::NotIp));
}

#[test]
fn geneve_options_are_skipped_and_may_not_exceed_the_datagram() {
    let inside = udp((host(true, 1), 1), (host(true, 2), 2), b"options");
    for words in [0_u8, 1, 10, 63] {
        let options = vec![1; usize::from(words) * 4];
        let head = [words, 0x40, 0x86, 0xDD, 0, 0, 1, 0];
        let payload = [&head[..], &options, &inside].concat();
        let packet = udp((host(false, 3), 9), (host(false, 4), 6081), &payload);
        assert_eq!(opened(&packet).unwrap().ip, inside);
        let short = udp((host(false, 3), 9), (host(false, 4), 6081), &payload[..8 + options.len()]);
        assert_eq!(opened(&short), Err(Unparsed::TunnelMalformed));
    }
    let version_1 = [&[0x40, 0, 0x86, 0xDD, 0, 0, 1, 0][..], &inside].concat();
    let packet = udp((host(false, 3), 9), (host(false, 4), 6081), &version_1);
    assert_eq!(inner(&whole(&packet)), None);
}

#[test]
fn up_to_eight_labels_are_unwrapped_and_a_ninth_is_named() {
    for v6 in [false, true] {
        let inside = udp((host(v6, 1), 1), (host(v6, 2), 2), b"labels");
        for kind in [[0x88, 0x47], [0x88, 0x48]] {
            for labels in 1..=9 {
                let frame = [&[0; 12][..], &kind, &labelled(labels, &inside)].concat();
                let found = parse(&frame_of(&frame));
                if labels < 9 {
                    assert_eq!(found.unwrap().payload, b"labels");
                } else {
                    assert_eq!(found, Err(Unparsed::MplsTooDeep));
                }
            }
        }
    }
}

#[test]
fn ethernet_in_a_pseudowire_is_read_once() {
    let inside = udp((host(false, 1), 1), (host(false, 2), 2), b"wire");
    let mut tagged = ethernet(&inside);
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    let wire = |inner: &[u8]| labelled(2, &[&[0, 0, 0, 1][..], inner].concat());
    let frame = [&[0; 12][..], &[0x88, 0x47], &wire(&tagged)].concat();
    assert_eq!(parse(&frame_of(&frame)).unwrap().payload, b"wire");
    let twice = wire(&[&[0; 12][..], &[0x88, 0x47], &wire(&tagged)].concat());
    let frame = [&[0; 12][..], &[0x88, 0x47], &twice].concat();
    assert_eq!(parse(&frame_of(&frame)), Err(Unparsed::MplsTooDeep));
    let channel = [&[0; 12][..], &[0x88, 0x47], &labelled(1, &[0x10, 0, 0, 0])].concat();
    assert_eq!(parse(&frame_of(&channel)), Err(Unparsed::NotIp));
    for cut in 14..frame.len().min(40) {
        assert_eq!(parse(&frame_of(&frame[..cut])), Err(Unparsed::LinkTruncated), "{cut}");
    }
}

#[test]
fn any_other_protocol_is_a_packet_with_its_payload_and_no_tunnel() {
    for v6 in [false, true] {
        for number in (0..=255_u8).filter(|number| {
            let known = [1, 6, 17, 58, 4, 41, 47, 137, 51].contains(number);
            !(known || v6 && [0, 43, 44, 60].contains(number))
        }) {
            let packet = ip(number, host(v6, 1), host(v6, 2), b"raw ip payload");
            let view = whole(&packet);
            assert_eq!((view.proto, view.payload), (Proto::Other(number), &b"raw ip payload"[..]));
            assert!(!may_carry(&view) && inner(&view).is_none());
        }
    }
}

fn frame_of(bytes: &[u8]) -> Frame<'_> {
    Frame { at_ns: 0, link: LinkType::Ethernet, wire_len: bytes.len() as u32, bytes }
}
