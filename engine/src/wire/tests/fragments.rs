use std::collections::BTreeMap;

use ahash::RandomState;
use sekisho_schema::Span;

use super::forge::{XorShift, fragments, host, ip, piece, tcp, udp};
use crate::limits::Limits;
use crate::wire::{Fragments, Packet, Proto, Taken, Unparsed, read};

const SECOND: i64 = 1_000_000_000;

fn table(limits: &Limits) -> Fragments {
    Fragments::new(limits, RandomState::with_seeds(1, 2, 3, 4))
}

/// Takes a fragment as the flow stage does, without the first one's count.
fn take(table: &mut Fragments, at: i64, packet: &[u8]) -> Taken {
    let Ok(Packet::Piece(piece)) = read(packet, 0) else { panic!("no piece: {packet:02x?}") };
    while let Some(gone) = table.crowded(&piece, 0) {
        table.give_back(gone);
    }
    let counted = piece.first().and_then(Result::ok).map(|view| view.ip_payload_len);
    table.take(at, &piece, 0, counted)
}

fn joined(table: &mut Fragments, packets: &[&Vec<u8>]) -> Option<Vec<u8>> {
    let mut whole = None;
    for packet in packets {
        match take(table, 0, packet) {
            Taken::Whole(gathered) => {
                assert!(whole.is_none());
                whole = Some(gathered.view().unwrap().payload.to_vec());
                table.give_back(gathered);
            }
            Taken::Held | Taken::Refused(Unparsed::FragmentDuplicate) => {}
            other => panic!("{other:?}"),
        }
    }
    whole
}

fn refused(table: &mut Fragments, packet: &[u8]) -> Unparsed {
    match take(table, 0, packet) {
        Taken::Refused(reason) | Taken::Spoiled(reason, _) => reason,
        other => panic!("{other:?}"),
    }
}

fn message(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 % 251) as u8).collect()
}

#[test]
fn fragments_in_any_order_give_the_datagram() {
    for v6 in [false, true] {
        let payload = message(100);
        let packet = udp((host(v6, 1), 9), (host(v6, 2), 53), &payload);
        let parts = fragments(&packet, 77, 32);
        assert_eq!(parts.len(), 4);
        let mut table = table(&Limits::default());
        for order in 0..256 {
            let order = [order & 3, order >> 2 & 3, order >> 4 & 3, order >> 6];
            let picked: Vec<_> = order.iter().map(|n| &parts[*n]).collect();
            let all = (0..4).all(|n| order.contains(&n));
            assert_eq!(joined(&mut table, &picked), all.then(|| payload.clone()), "{order:?}");
            if !all {
                // The rest ends the datagram, so that the next begins anew.
                let rest: Vec<_> =
                    (0..4).filter(|n| !order.contains(n)).map(|n| &parts[n]).collect();
                assert_eq!(joined(&mut table, &rest), Some(payload.clone()), "{order:?}");
            }
            assert!(table.is_empty() && table.held_bytes() == 0);
        }
    }
}

#[test]
fn a_datagram_of_64_fragments_is_read_and_one_of_65_is_refused_whole() {
    for v6 in [false, true] {
        let mut table = table(&Limits::default());
        let packet = tcp((host(v6, 1), 9), (host(v6, 2), 80), 0x18, 5, &message(64 * 8 - 20));
        let parts = fragments(&packet, 1, 8);
        let whole = joined(&mut table, &parts.iter().rev().collect::<Vec<_>>());
        assert_eq!(whole, Some(message(64 * 8 - 20)));
        let packet = udp((host(v6, 1), 9), (host(v6, 2), 53), &message(65 * 8 - 8));
        let parts = fragments(&packet, 2, 8);
        assert!(joined(&mut table, &parts[..64].iter().collect::<Vec<_>>()).is_none());
        assert_eq!(refused(&mut table, &parts[64]), Unparsed::FragmentTooMany);
        assert_eq!(refused(&mut table, &parts[1]), Unparsed::FragmentTooMany);
        assert_eq!(table.held_bytes(), 0);
        // Another datagram with the same identifier begins with its first fragment.
        let packet = udp((host(v6, 1), 9), (host(v6, 2), 53), &message(56));
        let parts = fragments(&packet, 2, 32);
        assert_eq!(joined(&mut table, &[&parts[0], &parts[1]]), Some(message(56)));
    }
}

#[test]
fn any_overlap_spoils_the_datagram_and_what_comes_later_of_it() {
    for v6 in [false, true] {
        let like = udp((host(v6, 1), 9), (host(v6, 2), 53), &[]);
        let body = message(96);
        let part = |offset: usize, more, bytes: &[u8]| piece(&like, 5, 17, offset, more, bytes);
        let good = [part(0, true, &body[..32]), part(32, true, &body[32..64])];
        let last = part(64, false, &body[64..]);
        let mut changed = body[32..64].to_vec();
        changed[31] ^= 1;
        for (case, bad) in [
            ("one byte more", part(32, false, &body[32..65])),
            ("other bytes", part(32, true, &changed)),
            ("another end", part(32, true, &body[32..56])),
            ("a part of one", part(40, true, &body[40..48])),
            ("around one", part(24, true, &body[24..72])),
            ("the same as the last", part(32, false, &body[32..64])),
            ("an earlier end", part(16, false, &body[16..32])),
        ] {
            let mut table = table(&Limits::default());
            assert!(joined(&mut table, &good.iter().collect::<Vec<_>>()).is_none());
            let Taken::Spoiled(reason, gathered) = take(&mut table, 0, &bad) else {
                panic!("{case}")
            };
            assert_eq!((reason, gathered.pieces), (Unparsed::FragmentOverlap, 2), "{case}");
            table.give_back(gathered);
            assert_eq!(refused(&mut table, &last), Unparsed::FragmentOverlap, "{case}");
            assert_eq!(refused(&mut table, &good[0]), Unparsed::FragmentOverlap, "{case}");
            assert!(table.expired(30 * SECOND).is_none());
            assert!(table.is_empty(), "the memory of it ends as well");
            let all = [&good[0], &good[1], &last];
            assert!(joined(&mut table, &all).is_some(), "{case}");
        }
        for second in [part(80, false, &body[80..]), part(96, true, &body[..8])] {
            let mut table = table(&Limits::default());
            assert!(matches!(take(&mut table, 0, &last), Taken::Held));
            assert_eq!(refused(&mut table, &second), Unparsed::FragmentOverlap, "two ends");
        }
    }
}

#[test]
fn fragments_that_no_datagram_can_have_are_refused_alone() {
    for v6 in [false, true] {
        let like = udp((host(v6, 1), 9), (host(v6, 2), 53), &[]);
        let mut table = table(&Limits::default());
        let ping_of_death = piece(&like, 5, 17, 65_528, false, &[0; 24]);
        assert_eq!(refused(&mut table, &ping_of_death), Unparsed::FragmentMalformed);
        let empty = piece(&like, 5, 17, 64, false, &[]);
        assert_eq!(refused(&mut table, &empty), Unparsed::FragmentMalformed);
        let mut cut = piece(&like, 5, 17, 64, false, &[1; 40]);
        cut.truncate(cut.len() - 1);
        assert_eq!(refused(&mut table, &cut), Unparsed::FragmentTail);
        assert!(table.is_empty());
    }
    let like = udp((host(true, 1), 9), (host(true, 2), 53), &[]);
    let mut table = table(&Limits::default());
    let uneven = piece(&like, 5, 17, 0, true, &[1; 33]);
    assert_eq!(refused(&mut table, &uneven), Unparsed::FragmentMalformed);
}

/// Linux takes the even part of such a fragment, and so would what it attacks.
#[test]
fn an_uneven_ipv4_fragment_is_read_as_linux_reads_it() {
    let packet = udp((host(false, 1), 9), (host(false, 2), 53), &message(56));
    let mut table = table(&Limits::default());
    let first = piece(&packet, 5, 17, 0, true, &[&packet[20..52], &[0xEE; 5][..]].concat());
    let last = piece(&packet, 5, 17, 32, false, &packet[52..]);
    assert_eq!(joined(&mut table, &[&first, &last]), Some(message(56)));
}

#[test]
fn the_longest_datagram_is_read() {
    for v6 in [false, true] {
        let mut table = table(&Limits::default());
        let payload = message(65_535 - if v6 { 8 } else { 28 });
        let packet = udp((host(v6, 1), 9), (host(v6, 2), 53), &payload);
        let parts = fragments(&packet, 9, 1400);
        let whole = joined(&mut table, &parts.iter().rev().collect::<Vec<_>>());
        assert_eq!(whole, Some(payload));
    }
}

#[test]
fn atomic_fragments_are_packets_and_meet_no_others() {
    let packet = udp((host(true, 1), 9), (host(true, 2), 53), b"atomic");
    let atomic = piece(&packet, 5, 17, 0, false, &packet[40..]);
    let Ok(Packet::Whole(view)) = read(&atomic, 0) else { panic!("no whole packet") };
    assert_eq!((view.payload, view.fragment, view.dst_port), (&b"atomic"[..], false, 53));
}

/// Of IPv6 fragments only the first says what the datagram carries (RFC 8200 §4.5), of IPv4 each.
#[test]
fn next_headers_of_later_fragments_split_ipv4_datagrams_only() {
    for v6 in [false, true] {
        let packet = udp((host(v6, 1), 9), (host(v6, 2), 53), &message(56));
        let header = if v6 { 40 } else { 20 };
        let first = piece(&packet, 5, 17, 0, true, &packet[header..header + 32]);
        let last = piece(&packet, 5, 59, 32, false, &packet[header + 32..]);
        let mut table = table(&Limits::default());
        assert_eq!(joined(&mut table, &[&last, &first]), v6.then(|| message(56)));
    }
}

#[test]
fn extension_headers_before_and_behind_the_fragment_header_are_walked() {
    let packet = udp((host(true, 1), 9), (host(true, 2), 53), &message(56));
    let body = [&[17, 0, 1, 4, 0, 0, 0, 0][..], &packet[40..]].concat();
    let mut parts = [
        piece(&packet, 5, 60, 0, true, &body[..16]),
        piece(&packet, 5, 60, 16, false, &body[16..]),
    ];
    for part in &mut parts {
        // A hop-by-hop header of eight bytes in front.
        part[6] = 0;
        let len = u16::from_be_bytes([part[4], part[5]]) + 8;
        part[4..6].copy_from_slice(&len.to_be_bytes());
        part.splice(40..40, [44, 0, 1, 4, 0, 0, 0, 0]);
    }
    let Ok(Packet::Piece(first)) = read(&parts[0], 0) else { panic!("no piece") };
    let view = first.first().unwrap().unwrap();
    assert_eq!((view.proto, view.dst_port, view.fragment), (Proto::Udp, 53, true));
    let mut table = table(&Limits::default());
    assert_eq!(joined(&mut table, &[&parts[1], &parts[0]]), Some(message(56)));
    let nested = piece(&packet, 5, 44, 0, true, &[17, 0, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8]);
    let Ok(Packet::Piece(first)) = read(&nested, 0) else { panic!("no piece") };
    assert_eq!(first.first(), Some(Err(Unparsed::IpMalformed)), "fragments of fragments");
}

#[test]
fn identifiers_protocols_addresses_and_tunnels_keep_datagrams_apart() {
    let like = ip(17, host(false, 1), host(false, 2), &[]);
    let other = ip(17, host(false, 1), host(false, 3), &[]);
    let mut table = table(&Limits::default());
    for first in [
        piece(&like, 5, 17, 0, true, &[1; 16]),
        piece(&like, 6, 17, 0, true, &[2; 16]),
        piece(&like, 5, 6, 0, true, &[3; 16]),
        piece(&other, 5, 17, 0, true, &[4; 16]),
    ] {
        assert!(matches!(take(&mut table, 0, &first), Taken::Held));
    }
    let inside = piece(&like, 5, 17, 0, true, &[5; 16]);
    let Ok(Packet::Piece(inside)) = read(&inside, 0) else { panic!("no piece") };
    assert!(matches!(table.take(0, &inside, 1, None), Taken::Held));
    assert_eq!((table.len(), table.held_pieces()), (5, 5));
}

#[test]
fn what_is_not_whole_in_time_is_given_up_oldest_first() {
    let like = ip(17, host(false, 1), host(false, 2), &[]);
    let mut table = table(&Limits::default());
    for id in 0..3 {
        let part = piece(&like, id, 17, 0, true, &[id as u8; 24]);
        assert!(matches!(take(&mut table, i64::from(id) * SECOND, &part), Taken::Held));
    }
    // A later fragment prolongs nothing.
    let more = piece(&like, 0, 17, 48, true, &[9; 8]);
    assert!(matches!(take(&mut table, 29 * SECOND, &more), Taken::Held));
    assert_eq!(table.next_due(), 30 * SECOND);
    assert!(table.expired(30 * SECOND - 1).is_none());
    let gone = table.expired(30 * SECOND).unwrap();
    assert_eq!((gone.pieces, gone.tails), (2, 8));
    assert_eq!(gone.view().unwrap().payload, [0; 16]);
    assert_eq!(table.next_due(), 31 * SECOND);
    assert!(table.expired(100 * SECOND).is_some() && table.expired(100 * SECOND).is_some());
    assert!(table.expired(100 * SECOND).is_none());
    assert_eq!((table.next_due(), table.held_bytes()), (i64::MAX, 0));
}

#[test]
fn a_million_first_fragments_keep_to_the_limits() {
    let limits = Limits::default();
    let mut table = table(&limits);
    let like = ip(17, host(true, 1), host(true, 2), &[]);
    let mut part = piece(&like, 0, 17, 0, true, &[7; 1200]);
    let mut evicted = 0_u64;
    for id in 0..1_000_000_u32 {
        part[44..48].copy_from_slice(&id.to_be_bytes());
        let Ok(Packet::Piece(piece)) = read(&part, 0) else { panic!("no piece") };
        while let Some(gone) = table.crowded(&piece, 0) {
            evicted += 1;
            table.give_back(gone);
        }
        assert!(matches!(table.take(i64::from(id), &piece, 0, None), Taken::Held));
        assert!(table.held_bytes() <= limits.fragment_bytes + 4096);
    }
    assert!(table.len() <= limits.fragments);
    assert_eq!(evicted + table.len() as u64, 1_000_000);
}

#[test]
fn bytes_are_bounded_as_well_as_datagrams() {
    let limits = Limits { fragment_bytes: 100_000, ..Limits::default() };
    let mut table = table(&limits);
    let like = ip(17, host(true, 1), host(true, 2), &[]);
    for id in 0..2_000_u32 {
        for n in 0..20 {
            let part = piece(&like, id, 17, 1400 * n + 8, true, &[7; 1400]);
            assert!(matches!(take(&mut table, 0, &part), Taken::Held));
            // A buffer grows to at most twice what it holds.
            assert!(table.held_bytes() <= 100_000 + 2 * 20 * 1400, "{}", table.held_bytes());
        }
    }
    let far = piece(&like, 9999, 17, 60_000, true, &[1; 8]);
    let before = table.held_bytes();
    assert!(matches!(take(&mut table, 0, &far), Taken::Held));
    assert!(table.held_bytes() <= before + 65_536, "an offset claims no memory of its own");
}

/// Law: the table says of every fragment what a byte map says that is kept without any bound.
#[test]
fn random_fragments_join_exactly_when_a_byte_map_says_so() {
    struct Model {
        bytes: BTreeMap<usize, u8>,
        pieces: Vec<(usize, usize, bool)>,
        spoiled: bool,
    }
    let mut random = XorShift(0x5EED_0200);
    let limits = Limits { fragment_pieces: 1000, ..Limits::default() };
    let mut table = table(&limits);
    let mut models: BTreeMap<u32, Model> = BTreeMap::new();
    let (mut wholes, mut overlaps) = (0, 0);
    for round in 0..200_000 {
        let v6 = round % 2 == 1;
        let id = (random.below(6) * 2) as u32 + u32::from(v6);
        let like = ip(255, host(v6, 1), host(v6, 2), &[]);
        let (start, units) = (random.below(5) * 8, 1 + random.below(3));
        let more = start == 0 || (start + units * 8 < 40 && random.below(8) != 0);
        // Nearly always the same content, so that duplicates are exact.
        let salt = u8::from(random.below(40) == 0);
        let body: Vec<u8> =
            (start..start + units * 8).map(|n| (n as u8 ^ salt).wrapping_add(id as u8)).collect();
        let taken = take(&mut table, 0, &piece(&like, id, 255, start, more, &body));
        let model = models.entry(id).or_insert_with(|| Model {
            bytes: BTreeMap::new(),
            pieces: Vec::new(),
            spoiled: false,
        });
        let end = start + body.len();
        let same = model.pieces.contains(&(start, end, more))
            && (start..end).all(|n| model.bytes.get(&n) == Some(&body[n - start]));
        let total = model.pieces.iter().find(|piece| !piece.2).map(|piece| piece.1);
        let highest = model.pieces.iter().map(|piece| piece.1).max().unwrap_or(0);
        let overlap = (start..end).any(|n| model.bytes.contains_key(&n))
            || total.is_some_and(|total| !more || end >= total)
            || (!more && highest > start);
        if model.spoiled {
            assert!(matches!(taken, Taken::Refused(Unparsed::FragmentOverlap)));
        } else if same {
            assert!(matches!(taken, Taken::Refused(Unparsed::FragmentDuplicate)));
        } else if overlap {
            assert!(matches!(taken, Taken::Spoiled(Unparsed::FragmentOverlap, _)), "{taken:?}");
            model.spoiled = true;
            overlaps += 1;
        } else {
            model.bytes.extend((start..end).zip(body));
            model.pieces.push((start, end, more));
            let total = if more { total } else { Some(end) };
            if total == Some(model.bytes.len()) {
                let Taken::Whole(whole) = taken else { panic!("not whole: {taken:?}") };
                let expected: Vec<u8> = model.bytes.values().copied().collect();
                assert_eq!(whole.view().unwrap().payload, expected);
                table.give_back(whole);
                models.remove(&id);
                wholes += 1;
            } else {
                assert!(matches!(taken, Taken::Held), "{taken:?}");
            }
        }
        if models.get(&id).is_some_and(|model| model.spoiled) && random.below(3) == 0 {
            // Time passes for all of them.
            while table.expired(Span::from_secs(60).nanos()).is_some() {}
            assert!(table.is_empty());
            models.clear();
        }
    }
    assert!(wholes > 1_000 && overlaps > 1_000, "{wholes} {overlaps}");
}
