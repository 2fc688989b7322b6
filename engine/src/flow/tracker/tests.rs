use super::Tracker;
use crate::flow::{Appetite, Observation, ObservationKind, Perimeter, Totals};
use crate::limits::Limits;
use crate::wire::tests::forge::{Carrier, XorShift, fragments, host, piece, tcp, udp};
use crate::wire::{Frame, LinkType, Unparsed};
use sekisho_schema::Timestamp;
use std::net::IpAddr;

const START: i64 = 1_780_000_000_000_000_000;
const SECOND: i64 = 1_000_000_000;
/// A PlugX header as it is on the wire before anything is decoded: what a detector must be shown.
const HEADER: [u8; 16] = [
    0x78, 0x56, 0x34, 0x12, 0x27, 0x8A, 0x2A, 0xEA, 0xC3, 0x69, 0xB7, 0x74, 0x7D, 0xEF, 0xC1, 0xDD,
];

struct Lab {
    tracker: Tracker,
    now: i64,
    frames: u64,
    told: Vec<String>,
    heads: Vec<(IpAddr, Vec<u8>)>,
}

/// Host 1 to 3 are ours, all others are not.
fn inside() -> Perimeter {
    let own: Vec<IpAddr> =
        (1..=3).flat_map(|number| [host(false, number), host(true, number)]).collect();
    Perimeter::new(&[], &own)
}

fn note(told: &mut Vec<String>, heads: &mut Vec<(IpAddr, Vec<u8>)>, o: &Observation<'_>) {
    let remote = o.flow.key.remote;
    let text = match o.kind {
        ObservationKind::Head { toward, bytes } => {
            heads.push((remote.ip(), bytes.to_vec()));
            format!("head {toward:?} {}", bytes.len())
        }
        ObservationKind::Name { name, .. } => format!("name {name}"),
        ObservationKind::Query { name, .. } => format!("query {name}"),
        ObservationKind::Started => "started".to_owned(),
        ObservationKind::Ended => format!("ended {} {}", o.flow.bytes_out, o.flow.bytes_in),
        _ => return,
    };
    told.push(format!("{} {remote} {text}", o.at.nanos() - START));
}

impl Lab {
    fn new() -> Self {
        Self::with(&Limits::default())
    }

    fn with(limits: &Limits) -> Self {
        let mut tracker = Tracker::new(limits, 0);
        tracker.set_perimeter(inside());
        Self { tracker, now: START, frames: 0, told: Vec::new(), heads: Vec::new() }
    }

    fn packet(&mut self, ip: &[u8]) {
        self.frames += 1;
        let wire_len = ip.len() as u32;
        let frame = Frame { at_ns: self.now, link: LinkType::RawIp, wire_len, bytes: ip };
        let (told, heads) = (&mut self.told, &mut self.heads);
        self.tracker.observe(self.frames, &frame, &mut |o| {
            note(told, heads, o);
            Appetite::Enough
        });
    }

    fn tick(&mut self, now: i64) {
        let (told, heads) = (&mut self.told, &mut self.heads);
        self.tracker.handle_timeout(Timestamp::from_nanos(now), &mut |o| {
            note(told, heads, o);
            Appetite::Enough
        });
    }

    fn saw(&self, bytes: &[u8], remote: IpAddr) -> bool {
        self.heads.iter().any(|(to, head)| *to == remote && head.ends_with(bytes))
    }

    fn count(&self, text: &str) -> usize {
        self.told.iter().filter(|told| told.contains(text)).count()
    }

    fn totals(&self) -> &Totals {
        self.tracker.totals()
    }

    fn refused(&self, reason: Unparsed) -> u64 {
        self.totals().unparsed[reason.index()]
    }
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in permutations(count - 1) {
        for at in 0..count {
            let mut longer = shorter.clone();
            longer.insert(at, count - 1);
            all.push(longer);
        }
    }
    all
}

fn hello(name: &str) -> Vec<u8> {
    let mut names = vec![0, 0, 0];
    names.extend(u16::try_from(name.len() + 3).unwrap().to_be_bytes());
    names.push(0);
    names.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
    names.extend(name.as_bytes());
    let inner = u16::try_from(names.len() - 3).unwrap();
    names[1..3].copy_from_slice(&inner.to_be_bytes());
    names.splice(0..1, [0, 0]);
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(u16::try_from(names.len()).unwrap().to_be_bytes());
    body.extend(&names);
    let mut message = vec![1, 0];
    message.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    message.extend(&body);
    let mut record = vec![22, 3, 1];
    record.extend(u16::try_from(message.len()).unwrap().to_be_bytes());
    record.extend(&message);
    record
}

fn query(name: &str) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

#[test]
fn a_header_inside_any_tunnel_is_shown_and_its_bytes_are_counted_once() {
    for carrier in Carrier::ALL {
        for (outer, inner) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut lab = Lab::new();
            let message = udp((host(inner, 1), 9000), (host(inner, 9), 443), &HEADER);
            let outside = carrier.wrap(host(outer, 3), host(outer, 8), &message);
            lab.packet(&outside);
            assert!(lab.saw(&HEADER, host(inner, 9)), "{carrier:?} {:?}", lab.told);
            assert_eq!(lab.count("started"), 2, "the tunnel is a flow too");
            assert_eq!((lab.totals().flows, lab.totals().tunnelled), (2, 1));
            let headers = if outer { 40 } else { 20 };
            let udp = if [Carrier::Vxlan, Carrier::VxlanLinux, Carrier::Geneve, Carrier::GeneveIp]
                .contains(&carrier)
            {
                8
            } else {
                0
            };
            assert_eq!(lab.totals().bytes_out, (outside.len() - headers - udp) as u64);
        }
    }
}

#[test]
fn two_tunnels_are_opened_and_a_third_is_counted() {
    for (first, second, third) in Carrier::ALL
        .iter()
        .enumerate()
        .map(|(n, third)| (Carrier::ALL[(n + 3) % 10], Carrier::ALL[(n + 7) % 10], *third))
    {
        let message = tcp((host(false, 1), 9), (host(false, 9), 443), 0x18, 1, &HEADER);
        let once = first.wrap(host(true, 1), host(true, 8), &message);
        let twice = second.wrap(host(false, 2), host(false, 7), &once);
        let thrice = third.wrap(host(true, 3), host(true, 6), &twice);
        let mut lab = Lab::new();
        lab.packet(&twice);
        assert!(lab.saw(&HEADER, host(false, 9)), "{:?}", lab.told);
        assert_eq!(lab.refused(Unparsed::TunnelTooDeep), 0);
        let mut lab = Lab::new();
        lab.packet(&thrice);
        assert!(!lab.saw(&HEADER, host(false, 9)));
        assert_eq!((lab.refused(Unparsed::TunnelTooDeep), lab.totals().tunnelled), (1, 2));
        assert_eq!(lab.count("started"), 3, "each that was opened is a flow");
    }
}

#[test]
fn what_a_tunnel_carries_that_is_no_packet_is_counted_beside_the_tunnel() {
    let mut lab = Lab::new();
    let message = udp((host(false, 1), 9000), (host(false, 9), 443), &HEADER);
    let mut outside = Carrier::Gre.wrap(host(false, 3), host(false, 8), &message);
    outside[24] = 0x42;
    lab.packet(&outside);
    assert_eq!((lab.refused(Unparsed::IpMalformed), lab.totals().flows), (1, 1));
    let datagram = udp((host(false, 1), 4789), (host(false, 9), 4789), b"no tunnel at all");
    lab.packet(&datagram);
    assert_eq!(lab.totals().unparsed.iter().sum::<u64>(), 1);
    assert!(lab.saw(b"no tunnel at all", host(false, 9)));
}

/// Otherwise whoever can send one datagram could have any address cut: the packet inside claims that
/// this host speaks to it.
#[test]
fn a_tunnel_from_outside_is_opened_only_after_one_went_there() {
    let forged = udp((host(false, 1), 9000), (host(false, 9), 443), &HEADER);
    for carrier in Carrier::ALL {
        let mut lab = Lab::new();
        let inward = carrier.wrap(host(false, 8), host(false, 3), &forged);
        lab.packet(&inward);
        assert!(lab.heads.iter().all(|(remote, _)| *remote == host(false, 8)), "{carrier:?}");
        assert_eq!((lab.refused(Unparsed::TunnelUnasked), lab.totals().flows), (1, 1));
        let asked = udp((host(false, 1), 9000), (host(false, 10), 53), b"ours");
        lab.packet(&carrier.wrap(host(false, 3), host(false, 8), &asked));
        lab.packet(&inward);
        assert!(lab.saw(&HEADER, host(false, 9)), "{carrier:?} {:?}", lab.told);
        let stranger = carrier.wrap(host(false, 7), host(false, 3), &forged);
        lab.packet(&stranger);
        assert_eq!(lab.refused(Unparsed::TunnelUnasked), 2);
        lab.tracker.begin_anew();
        lab.packet(&inward);
        assert_eq!(lab.refused(Unparsed::TunnelUnasked), 3, "forgotten with the flows");
    }
    let mut lab = Lab::new();
    lab.packet(&udp((host(false, 8), 53), (host(false, 3), 4789), b"an answer, no tunnel"));
    assert_eq!(lab.refused(Unparsed::TunnelUnasked), 0);
}

#[test]
fn far_ends_that_were_spoken_to_are_bounded_and_the_first_met_gives_way() {
    let mut lab = Lab::with(&Limits { tunnel_peers: 3, ..Limits::default() });
    let message = udp((host(false, 1), 9000), (host(false, 99), 443), &HEADER);
    for peer in [11, 12, 11, 13, 14] {
        lab.packet(&Carrier::Gre.wrap(host(false, 3), host(false, peer), &message));
    }
    for (peer, unasked) in [(12, 0), (13, 0), (14, 0), (11, 1)] {
        lab.packet(&Carrier::Gre.wrap(host(false, peer), host(false, 3), &message));
        assert_eq!(lab.refused(Unparsed::TunnelUnasked), unasked, "{peer}");
    }
}

#[test]
fn the_same_ends_inside_and_outside_a_tunnel_are_two_flows() {
    let mut lab = Lab::new();
    let message = tcp((host(false, 1), 9), (host(false, 9), 443), 0x18, 1, &HEADER);
    lab.packet(&message);
    lab.packet(&Carrier::Vxlan.wrap(host(false, 1), host(false, 8), &message));
    assert_eq!((lab.totals().flows, lab.count("head Remote 16")), (3, 2));
    lab.tick(START + 4000 * SECOND);
    assert_eq!(lab.count("ended 16 0"), 2, "{:?}", lab.told);
}

#[test]
fn a_hello_in_fragments_gives_its_name_in_any_order_and_counts_once() {
    for v6 in [false, true] {
        let hello = hello("split.example");
        let packet = tcp((host(v6, 1), 9), (host(v6, 9), 443), 0x18, 1, &hello);
        let parts = fragments(&packet, 3, 32);
        for order in permutations(parts.len().min(4)) {
            let mut lab = Lab::new();
            for at in order.iter().copied().chain(4..parts.len()) {
                lab.packet(&parts[at]);
                if lab.totals().reassembled == 0 {
                    lab.packet(&parts[at]);
                }
            }
            assert_eq!(lab.count("name split.example"), 1, "{order:?} {:?}", lab.told);
            assert_eq!(lab.count("started"), 1);
            assert_eq!(lab.totals().reassembled, 1);
            assert_eq!(lab.totals().bytes_out, hello.len() as u64, "{order:?}");
        }
    }
}

#[test]
fn a_datagram_in_fragments_is_shown_whole_and_once() {
    for v6 in [false, true] {
        let payload = [&HEADER[..], &[5; 84]].concat();
        let packet = udp((host(v6, 1), 9), (host(v6, 9), 8000), &payload);
        // The first fragment ends inside the header.
        let parts = fragments(&packet, 3, 16);
        for reversed in [false, true] {
            let mut lab = Lab::new();
            if reversed {
                parts.iter().rev().for_each(|part| lab.packet(part));
            } else {
                parts.iter().for_each(|part| lab.packet(part));
            }
            assert_eq!(lab.heads, [(host(v6, 9), payload.clone())]);
            assert_eq!(lab.totals().bytes_out, 100);
            assert_eq!(lab.totals().unparsed.iter().sum::<u64>(), 0);
        }
        let packet = udp((host(v6, 1), 9), (host(v6, 9), 53), &query("a.long.name.example"));
        let mut lab = Lab::new();
        fragments(&packet, 4, 24).iter().for_each(|part| lab.packet(part));
        assert_eq!(lab.count("query a.long.name.example"), 1, "{:?}", lab.told);
    }
}

#[test]
fn the_first_fragment_starts_its_flow_at_once() {
    let packet = udp((host(false, 1), 9), (host(false, 9), 8000), &[5; 100]);
    let parts = fragments(&packet, 3, 48);
    let mut lab = Lab::new();
    lab.packet(&parts[0]);
    assert_eq!(lab.told, [format!("0 {}:8000 started", host(false, 9))]);
    assert_eq!(lab.totals().bytes_out, 40);
}

#[test]
fn what_never_becomes_whole_is_read_as_far_as_it_goes_at_its_own_time() {
    let packet = udp((host(false, 1), 9), (host(false, 9), 8000), &[5; 100]);
    let parts = fragments(&packet, 3, 24);
    let run = |ticks: &[i64]| {
        let mut lab = Lab::new();
        for n in [0, 1, 3] {
            lab.packet(&parts[n]);
            lab.now += SECOND / 4;
        }
        ticks.iter().for_each(|tick| lab.tick(START + tick));
        lab.now = START + 60 * SECOND;
        lab.packet(&tcp((host(false, 1), 9), (host(false, 9), 443), 2, 1, &[]));
        lab
    };
    let lab = run(&[]);
    assert_eq!(lab.count(&format!("{} {}:8000 head Remote 40", 30 * SECOND, host(false, 9))), 1);
    assert_eq!(lab.refused(Unparsed::FragmentExpired), 2, "all but the first");
    assert_eq!(lab.totals().bytes_out, 16 + 48);
    let every_second: Vec<i64> = (1..50).map(|n| n * SECOND).collect();
    assert_eq!(run(&every_second).told, lab.told);
    assert_eq!(run(&[30 * SECOND - 1, 30 * SECOND]).told, lab.told);
    assert_eq!(run(&every_second).tracker.totals(), lab.tracker.totals());
}

#[test]
fn a_deadline_of_fragments_is_asked_for() {
    let packet = udp((host(false, 1), 9), (host(false, 9), 8000), &[5; 100]);
    let mut lab = Lab::new();
    lab.packet(&fragments(&packet, 3, 24)[1]);
    let due = lab.tracker.poll_timeout().unwrap();
    assert_eq!(due.nanos(), START + 30 * SECOND);
    lab.tick(due.nanos());
    assert_eq!((lab.tracker.poll_timeout(), lab.refused(Unparsed::FragmentExpired)), (None, 1));
}

#[test]
fn an_overlap_is_counted_and_what_was_shown_before_it_is_read() {
    for v6 in [false, true] {
        let packet = udp((host(v6, 1), 9), (host(v6, 9), 8000), &[5; 100]);
        let parts = fragments(&packet, 3, 24);
        let body = &packet[if v6 { 40 } else { 20 }..];
        let overlapping = piece(&packet, 3, 17, 16, true, &body[16..32]);
        let mut lab = Lab::new();
        lab.packet(&parts[0]);
        lab.packet(&overlapping);
        parts[1..].iter().for_each(|part| lab.packet(part));
        assert_eq!(lab.heads, [(host(v6, 9), vec![5; 16])]);
        assert_eq!(lab.refused(Unparsed::FragmentOverlap), parts.len() as u64);
        assert_eq!((lab.totals().reassembled, lab.totals().bytes_out), (0, 16));
    }
}

/// The first fragment is shorter than a transport header, as evasion tools make it (RFC 1858).
#[test]
fn tiny_fragments_without_end_show_what_they_begin_with() {
    for (v6, reversed) in [(false, false), (false, true), (true, false), (true, true)] {
        let payload = [&HEADER[..], &[5; 2000]].concat();
        let tcp = tcp((host(v6, 1), 9), (host(v6, 9), 443), 0x18, 1, &payload);
        let udp = udp((host(v6, 1), 9), (host(v6, 9), 443), &payload);
        for (packet, header) in [(&tcp, 20), (&udp, 8)] {
            let mut parts = fragments(packet, 3, 8);
            if reversed {
                parts[..64].reverse();
            }
            let mut lab = Lab::new();
            parts.iter().for_each(|part| lab.packet(part));
            assert_eq!(
                lab.refused(Unparsed::FragmentTooMany) + 1,
                parts.len() as u64 + u64::from(header == 20)
            );
            assert_eq!(lab.heads, [(host(v6, 9), payload[..512 - header].to_vec())]);
            assert_eq!(lab.totals().bytes_out, 512 - header as u64);
            assert_eq!(lab.count("started"), 1);
        }
    }
}

/// Bytes that two first fragments claim differently are both shown: receivers differ in which wins.
#[test]
fn a_second_first_fragment_hides_nothing() {
    let good = udp((host(false, 1), 9), (host(false, 9), 8000), &HEADER);
    let decoy = udp((host(false, 1), 9), (host(false, 9), 8000), &[1; 16]);
    let mut lab = Lab::new();
    lab.packet(&piece(&decoy, 3, 17, 0, true, &decoy[20..]));
    lab.packet(&piece(&good, 3, 17, 0, true, &good[20..]));
    assert!(lab.saw(&HEADER, host(false, 9)) && lab.saw(&[1; 16], host(false, 9)));
    assert_eq!(lab.refused(Unparsed::FragmentOverlap), 1);
}

#[test]
fn tunnels_in_fragments_and_fragments_in_tunnels_are_read() {
    for v6 in [false, true] {
        for carrier in Carrier::ALL {
            let payload = [&[5; 80][..], &HEADER].concat();
            let message = udp((host(v6, 1), 9), (host(v6, 9), 8000), &payload);
            let outside = carrier.wrap(host(false, 3), host(false, 8), &message);
            let mut lab = Lab::new();
            fragments(&outside, 3, 64).iter().rev().for_each(|part| lab.packet(part));
            assert!(lab.saw(&HEADER, host(v6, 9)), "{carrier:?} {:?}", lab.told);
            let mut lab = Lab::new();
            for part in fragments(&message, 3, 64) {
                lab.packet(&carrier.wrap(host(false, 3), host(false, 8), &part));
            }
            assert!(lab.saw(&HEADER, host(v6, 9)), "{carrier:?} {:?}", lab.told);
            assert_eq!(lab.totals().reassembled, 1);
        }
    }
}

#[test]
fn a_flood_of_first_fragments_is_counted_and_each_is_read() {
    let limits = Limits { fragments: 64, flows: 1000, ..Limits::default() };
    let mut lab = Lab::with(&limits);
    let packet = udp((host(true, 1), 9), (host(true, 9), 8000), &[5; 100]);
    for id in 0..20_000 {
        lab.packet(&piece(&packet, id, 17, 0, true, &packet[40..88]));
    }
    lab.tick(START + 60 * SECOND);
    // First fragments are packets: none of them was lost, and their flow counted them all.
    assert_eq!((lab.totals().bytes_out, lab.totals().flows), (20_000 * 40, 1));
    for id in 0..20_000 {
        lab.packet(&piece(&packet, id, 17, 8, true, &packet[48..88]));
    }
    assert_eq!(lab.refused(Unparsed::FragmentEvicted), 20_000 - 64);
    lab.tracker.begin_anew();
    assert_eq!(lab.refused(Unparsed::FragmentExpired), 64);
}

/// Law: whatever comes, the bytes of flows are the bytes that are counted, and nothing panics.
#[test]
fn mutated_tunnels_and_fragments_never_break_the_count() {
    let mut seeds = Vec::new();
    for carrier in Carrier::ALL {
        for v6 in [false, true] {
            let inside = tcp((host(v6, 1), 9), (host(v6, 9), 443), 0x18, 1, &hello("a.example"));
            let once = carrier.wrap(host(!v6, 3), host(!v6, 8), &inside);
            seeds.extend(fragments(&once, 7, 40));
            seeds.extend(fragments(&inside, 8, 40));
            seeds.push(carrier.wrap(host(v6, 2), host(v6, 7), &once));
            seeds.push(once);
        }
    }
    let limits = Limits { fragments: 32, fragment_bytes: 4096, flows: 256, ..Limits::default() };
    let mut lab = Lab::with(&limits);
    let mut random = XorShift(0x5EED_0300);
    for round in 0..200_000 {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        if round % 4 != 0 {
            for _ in 0..random.below(4) {
                let at = random.below(bytes.len().min(90));
                bytes[at] ^= 1 << random.below(8);
            }
            if random.below(8) == 0 {
                bytes.truncate(random.below(bytes.len() + 1));
            }
        }
        lab.now += random.below(SECOND as usize / 50) as i64;
        lab.packet(&bytes);
        lab.told.clear();
        lab.heads.clear();
    }
    assert!(lab.totals().reassembled > 1_000, "{:?}", lab.totals());
    assert!(lab.totals().tunnelled > 50_000);
    lab.tick(START + 1_000_000 * SECOND);
    assert_eq!(lab.totals().live, 0);
}
