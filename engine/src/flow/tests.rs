use super::*;
use crate::app::ssh::SshHello;
use crate::limits::Limits;
use crate::wire::{Frame, LinkType};
use sekisho_schema::finding::Direction;
use sekisho_schema::{Span, Timestamp, Transport};
use std::net::{IpAddr, Ipv4Addr};

mod hostile;
mod order;
mod protocols;
mod segments;
mod tape;

#[test]
fn a_flow_is_told_from_its_start_to_its_end_in_order() {
    let mut lab = Lab::new(Limits::default());
    let hello = client_hello("C2.Example", 0);
    lab.open(1, 443);
    lab.send(1, 443, &hello);
    lab.wait(Span::from_secs(2));
    lab.send(1, 443, &[7; 100]);
    lab.reset(1, 443);
    lab.tick(Span::from_secs(10));
    assert_eq!(
        lab.told,
        [
            "started Egress Outbound seen".to_owned(),
            format!("head Remote {}", hello.len()),
            "hello c2.example".to_owned(),
            "name c2.example Sni".to_owned(),
            "burst".to_owned(),
            "burst".to_owned(),
            format!("volume {}", hello.len() + 100),
            "ended".to_owned(),
        ]
    );
    assert_eq!((lab.tracker.totals().live, lab.tracker.totals().flows), (0, 1));
    assert_eq!(lab.tracker.totals().bytes_out, hello.len() as u64 + 100);
    assert_eq!(lab.tracker.poll_timeout(), None);
}

#[test]
fn a_hello_in_two_segments_gives_its_name_once() {
    for cut in [1, 4, 5, 43, 200, 900] {
        let mut lab = Lab::new(Limits::default());
        let hello = client_hello("split.example", 1000);
        let (first, second) = hello.split_at(cut);
        lab.open(1, 8443);
        lab.send(1, 8443, first);
        lab.repeat_last();
        lab.send(1, 8443, second);
        lab.send(1, 8443, b"more");
        assert_eq!(lab.count("name split.example Sni"), 1, "cut at {cut}: {:?}", lab.told);
        assert_eq!(lab.count("head Remote"), 1, "the observer had enough of the first");
    }
}

#[test]
fn a_later_request_for_another_host_is_told_and_the_same_host_is_not() {
    let mut lab = Lab::new(Limits::default());
    lab.open(1, 80);
    for host in ["a.example", "a.example", "b.example"] {
        lab.send(1, 80, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
    }
    lab.send(1, 80, b"GET / HTTP/1.1\r\nHo");
    lab.send(1, 80, b"st: c.example\r\n\r\n");
    lab.send(1, 80, b"CONNECT d.example:443 HTTP/1.1\r\n\r\n");
    lab.send(1, 80, &client_hello("e.example", 0));
    let names: Vec<_> = lab.told.iter().filter(|told| told.starts_with("name")).collect();
    assert_eq!(
        names,
        [
            "name a.example Host",
            "name b.example Host",
            "name c.example Host",
            "name d.example Host",
            "name e.example Sni"
        ]
    );
}

#[test]
fn an_observer_that_wants_more_gets_the_head_as_it_grows_in_order_only() {
    let mut lab = Lab::new(Limits { head_bytes: 50, ..Limits::default() });
    lab.appetite = Appetite::More;
    lab.open(1, 9000);
    lab.send(1, 9000, &[1; 20]);
    lab.repeat_last();
    lab.send(1, 9000, &[2; 20]);
    lab.skip(1, 10);
    lab.send(1, 9000, &[4; 10]);
    lab.rewind(1, 20);
    lab.send(1, 9000, &[3; 20]);
    lab.send(1, 9000, &[5; 20]);
    let heads: Vec<_> = lab.told.iter().filter(|told| told.starts_with("head")).collect();
    assert_eq!(heads, ["head Remote 20", "head Remote 40", "head Remote 50"]);
    assert_eq!(lab.tracker.totals().head_gaps, 0, "the hole was filled");
}

#[test]
fn a_handshake_that_does_not_fit_hides_no_name() {
    for offset in [1 << 20, u32::MAX - (1 << 20)] {
        let mut lab = Lab::new(Limits::default());
        lab.open(1, 443);
        lab.skip(1, offset);
        lab.send(1, 443, &client_hello("c2.example", 0));
        assert_eq!(lab.count("name c2.example Sni"), 1, "{offset}");
        assert_eq!(lab.tracker.totals().head_gaps, 1);
    }
}

#[test]
fn a_segment_that_comes_late_still_gives_the_name() {
    let mut lab = Lab::new(Limits::default());
    let hello = client_hello("late.example", 0);
    lab.open(1, 443);
    lab.skip(1, hello.len() as u32);
    lab.send(1, 443, b"what follows");
    lab.rewind(1, 12 + hello.len() as u32);
    lab.send(1, 443, &hello);
    assert_eq!(lab.count("name late.example Sni"), 1, "{:?}", lab.told);
}

/// The fixture is a hello for two.datagrams.example, cut at byte 40, in two Initials of QUIC
/// version 1 under the destination identifier of RFC 9001 appendix A.
#[test]
fn a_quic_hello_in_two_datagrams_gives_its_name_once() {
    let (first, second) = include_bytes!("tests/quic_two_datagrams.bin").split_at(1200);
    let mut lab = Lab::new(Limits::default());
    for datagram in [first, second, second, second, second, second, second] {
        lab.udp(LOCAL, 5000, REMOTE, 443, datagram);
    }
    assert_eq!(lab.count("name two.datagrams.example Quic"), 1, "{:?}", lab.told);
    assert_eq!(lab.count("hello two.datagrams.example quic"), 1, "{:?}", lab.told);
    assert_eq!(lab.count("head Remote 1200"), 6, "later datagrams are only counted");
    // The same port on a peer that sends only the second half has no name.
    lab.udp(LOCAL, 5000, OUTSIDE, 443, second);
    lab.udp(LOCAL, 5000, OUTSIDE, 443, second);
    assert_eq!(lab.count("name"), 1);
}

#[test]
fn an_address_is_known_by_the_name_it_was_asked_for() {
    let mut lab = Lab::new(Limits::default());
    // An answer that nobody asked for binds nothing.
    lab.udp(RESOLVER, 53, LOCAL, 4000, &dns_answer("evil.example", 9));
    lab.udp(LOCAL, 4001, RESOLVER, 53, &dns_question("WWW.Example"));
    lab.udp(RESOLVER, 53, LOCAL, 4001, &dns_answer("www.example", 9));
    lab.open(1, 443);
    assert_eq!(lab.count("answer evil.example"), 0);
    assert_eq!(lab.count("query www.example 1"), 1);
    assert_eq!(lab.count("answer www.example 203.0.113.9"), 1);
    assert_eq!(lab.count("started Egress Outbound seen bound to www.example"), 1);
}

#[test]
fn questions_over_tcp_are_read_even_if_the_length_comes_alone() {
    let mut lab = Lab::new(Limits::default());
    lab.open(1, 53);
    let question = dns_question("tcp.example");
    lab.send(1, 53, &(question.len() as u16).to_be_bytes());
    lab.send(1, 53, &question);
    let mut both = Vec::new();
    for name in ["x.example", "y.example"] {
        both.extend((dns_question(name).len() as u16).to_be_bytes());
        both.extend(dns_question(name));
    }
    lab.send(1, 53, &both);
    for name in ["tcp.example", "x.example", "y.example"] {
        assert_eq!(lab.count(&format!("query {name} 1")), 1, "{:?}", lab.told);
    }
}

#[test]
fn the_local_end_is_the_inside_one_whoever_speaks_first() {
    let mut lab = Lab::new(Limits::default());
    lab.tcp(REMOTE, 5000, LOCAL, 22, SYN, 1, &[]);
    lab.tcp(REMOTE, 6000, OUTSIDE, 22, SYN, 1, &[]);
    lab.tcp(LOCAL, 7000, RESOLVER, 22, SYN, 1, &[]);
    // In the middle of a connection the higher port is taken for the client's.
    lab.tcp(REMOTE, 443, LOCAL, 40_000, ACK, 1, b"x");
    lab.tcp(REMOTE, 443, LOCAL, 40_001, SYN | ACK, 1, &[]);
    assert_eq!(
        lab.told,
        [
            "started Egress Inbound seen",
            "started Transit Outbound seen",
            "started Inside Outbound seen",
            "started Egress Outbound",
            "head Local 1",
            "started Egress Outbound",
        ]
    );
}

#[test]
fn a_syn_on_the_ports_of_a_closed_flow_opens_another() {
    let mut lab = Lab::new(Limits::default());
    lab.open(1, 80);
    lab.send(1, 80, b"x");
    lab.reset(1, 80);
    lab.open(1, 80);
    assert_eq!((lab.count("started"), lab.count("ended")), (2, 1));
    // A SYN sent again is the same flow.
    lab.repeat_last();
    lab.tcp(LOCAL, 30_001, REMOTE, 80, SYN, 999, &[]);
    assert_eq!(lab.count("started"), 2);
}

#[test]
fn the_flow_that_would_be_forgotten_soonest_gives_way_and_is_counted() {
    let mut lab = Lab::new(Limits { flows: 2, ..Limits::default() });
    lab.udp(LOCAL, 1, REMOTE, 1, b"a");
    lab.wait(Span::from_secs(5));
    lab.udp(LOCAL, 2, REMOTE, 2, b"b");
    lab.wait(Span::from_secs(5));
    lab.udp(LOCAL, 1, REMOTE, 1, b"a");
    lab.udp(LOCAL, 3, REMOTE, 3, b"c");
    assert_eq!((lab.tracker.totals().evicted_flows, lab.tracker.totals().live), (1, 2));
    // The first was seen last, so it is still the same flow.
    lab.udp(LOCAL, 1, REMOTE, 1, b"a");
    assert_eq!((lab.count("started"), lab.count("ended")), (3, 1));
}

#[test]
fn heads_and_names_that_give_way_are_counted() {
    let mut lab = Lab::new(Limits { heads: 1, names: 1, ..Limits::default() });
    lab.appetite = Appetite::More;
    for host in 1..=3 {
        lab.open(host, 9000);
        lab.send(host, 9000, b"abc");
    }
    assert_eq!(lab.tracker.totals().evicted_heads, 2);
    lab.send(1, 9000, b"def");
    assert_eq!(lab.count("head Remote 6"), 0, "its bytes gave way");
    for host in [8, 9] {
        lab.udp(LOCAL, 4001, RESOLVER, 53, &dns_question("n.example"));
        lab.udp(RESOLVER, 53, LOCAL, 4001, &dns_answer("n.example", host));
    }
    assert_eq!(lab.tracker.totals().evicted_names, 1);
    assert_eq!(lab.tracker.totals().evicted(), [("flows", 0), ("heads", 2), ("names", 1)]);
}

#[test]
fn flows_under_way_are_shown_once_each_in_steps_of_any_size() {
    // More than a piece of the table holds, with free places between.
    let mut lab = Lab::new(Limits { flows: 40_000, ..Limits::default() });
    for port in 1..=20_000 {
        lab.udp(LOCAL, port, REMOTE, 9, b"a");
    }
    for n in 1..=7 {
        lab.open(n, 80);
        lab.send(n, 80, b"x");
    }
    lab.reset(4, 80);
    lab.tick(Span::from_secs(10));
    let live = usize::try_from(lab.tracker.totals().live).unwrap();
    for most in [0, 1, 511, 16_384, 20_009, usize::MAX] {
        let (mut ports, mut from) = (Vec::new(), Some(0));
        while let Some(place) = from {
            from = lab.tracker.live(place, most, &mut |flow| {
                ports.push((flow.key.transport, flow.key.local.port()));
            });
        }
        assert_eq!(ports.len(), live, "steps of {most}");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), live, "each once, in steps of {most}");
        assert!(!ports.contains(&(Transport::Tcp, 30_004)), "it has ended");
    }
}

#[test]
fn flows_end_at_their_own_deadline_however_late_somebody_looks() {
    let mut lab = Lab::new(Limits::default());
    lab.udp(LOCAL, 1, REMOTE, 1, b"a");
    lab.wait(Span::from_secs(7200));
    let mut ended = Vec::new();
    let frame = lab.frame_of(&ip(LOCAL, REMOTE, 17, &udp_segment(9, 9, b"z")));
    lab.tracker.observe(2, &frame.as_frame(), &mut |o| {
        if matches!(o.kind, ObservationKind::Ended) {
            ended.push((o.at.since(Timestamp::from_nanos(START)), o.frame));
        }
        Appetite::Enough
    });
    assert_eq!(ended, [(Span::from_secs(120), 1)]);
}

#[test]
fn a_tcp_flow_with_payload_outlives_a_scan() {
    let mut lab = Lab::new(Limits::default());
    lab.open(1, 80);
    lab.send(1, 80, b"x");
    lab.open(2, 80);
    lab.tick(Span::from_secs(121));
    assert_eq!((lab.count("ended"), lab.tracker.totals().live), (1, 1));
    lab.tick(Span::from_secs(3600));
    assert_eq!(lab.tracker.totals().live, 0);
}

#[test]
fn time_that_runs_backward_is_counted_and_held() {
    let mut lab = Lab::new(Limits::default());
    lab.udp(LOCAL, 1, REMOTE, 1, b"a");
    lab.wait(Span::from_secs(-3));
    lab.udp(LOCAL, 2, REMOTE, 1, b"a");
    assert_eq!(lab.tracker.totals().backward, 1);
    assert_eq!(lab.last_at, Timestamp::from_nanos(START));
}

#[test]
fn bulk_is_told_by_64_kib_and_by_seconds() {
    let mut lab = Lab::new(Limits::default());
    lab.open(1, 443);
    for _ in 0..100 {
        lab.send(1, 443, &[23; 1400]);
    }
    let told: Vec<_> = lab.told.iter().filter(|told| told.starts_with("volume")).collect();
    assert_eq!(told, ["volume 65800", "volume 65800"]);
}

#[test]
fn every_outgoing_byte_is_in_exactly_one_volume() {
    let mut random = Random(11);
    let mut lab = Lab::new(Limits { flows: 8, ..Limits::default() });
    for _ in 0..20_000 {
        lab.wait(Span::from_millis(random.below(900) as i64));
        random_packet(&mut lab, &mut random);
    }
    lab.tick(Span::from_hours(48));
    let volumes: u64 =
        lab.told.iter().filter_map(|told| told.strip_prefix("volume ")?.parse::<u64>().ok()).sum();
    assert_eq!(lab.count("started"), lab.count("ended"));
    assert_eq!(volumes, lab.ended_bytes);
    assert!(volumes > 1_000_000);
}

/// Law: looking at the clock more often, with another hash seed, changes nothing that is told.
#[test]
fn extra_ticks_and_other_seeds_change_nothing() {
    let run = |seed: u64, ticks: bool| {
        let mut random = Random(42);
        let mut tick_random = Random(seed + 5);
        let mut lab = Lab::new(Limits { flows: 24, heads: 2, names: 3, ..Limits::default() });
        lab.tracker = Tracker::new(&lab.limits, seed);
        lab.tracker.set_perimeter(perimeter());
        lab.keep_at = true;
        for step in 0..30_000_u64 {
            let most = if step % 1000 == 999 { 5_000_000 } else { 2000 };
            let pause = random.below(most) as i64;
            if ticks {
                for _ in 0..tick_random.below(3) {
                    let part = tick_random.below(pause as u64 + 1) as i64;
                    lab.peek(Span::from_millis(part));
                }
            }
            lab.wait(Span::from_millis(pause));
            lab.appetite = if random.below(2) == 0 { Appetite::More } else { Appetite::Enough };
            random_packet(&mut lab, &mut random);
        }
        lab.tick(Span::from_hours(100));
        (lab.told, *lab.tracker.totals())
    };
    let plain = run(1, false);
    assert!(plain.1.evicted_flows > 100 && plain.1.evicted_heads > 10, "{:?}", plain.1);
    for seed in [1, 2, 3] {
        let ticked = run(seed, true);
        assert_eq!(plain.1, ticked.1);
        assert!(plain.0 == ticked.0, "seed {seed} tells otherwise");
    }
}

#[test]
fn random_and_mutated_frames_never_panic() {
    let mut random = Random(3);
    let mut lab = Lab::new(Limits { flows: 16, heads: 4, names: 4, ..Limits::default() });
    lab.appetite = Appetite::More;
    let seeds = [
        ip(LOCAL, REMOTE, 6, &tcp_segment(5000, 443, ACK, 1, &client_hello("m.example", 300))),
        ip(LOCAL, RESOLVER, 17, &udp_segment(5000, 53, &dns_question("m.example"))),
        ip(RESOLVER, LOCAL, 17, &udp_segment(53, 5000, &dns_answer("m.example", 4))),
        ip(
            LOCAL,
            REMOTE,
            6,
            &tcp_segment(5001, 80, ACK, 1, b"GET / HTTP/1.1\r\nHost: x.example\r\n\r\n"),
        ),
        ip(REMOTE, REMOTE, 17, &udp_segment(7, 7, &[0xC0, 0, 0, 0, 1].repeat(240))),
    ];
    for round in 0..60_000_u64 {
        let mut bytes = seeds[random.below(seeds.len() as u64) as usize].clone();
        for _ in 0..random.below(6) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.below(256) as u8;
        }
        if random.below(4) == 0 {
            bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
        }
        let link = [LinkType::RawIp, LinkType::Ethernet, LinkType::Null][random.below(3) as usize];
        let at_ns =
            if random.below(500) == 0 { random.next() as i64 } else { START + round as i64 };
        let frame = Frame { at_ns, link, wire_len: random.below(70_000) as u32, bytes: &bytes };
        lab.tracker.observe(round, &frame, &mut |_| Appetite::More);
        if random.below(100) == 0 {
            let now = Timestamp::from_nanos(random.next() as i64 / 2);
            lab.tracker.handle_timeout(now, &mut |_| Appetite::More);
        }
    }
    let totals = lab.tracker.totals();
    assert_eq!(totals.frames, 60_000);
    assert!(totals.flows > 100 && totals.live <= 16, "{totals:?}");
}

#[test]
fn both_ends_on_one_address_and_port_are_one_flow() {
    let mut lab = Lab::new(Limits::default());
    for _ in 0..3 {
        lab.udp(LOCAL, 9, LOCAL, 9, b"x");
    }
    assert_eq!((lab.count("started Inside"), lab.tracker.totals().live), (1, 1));
    assert!(perimeter().is_inside(IpAddr::V4(Ipv4Addr::LOCALHOST)));
}

const START: i64 = 1_780_000_000_000_000_000;
const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 53);
const REMOTE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

struct OwnedFrame(i64, Vec<u8>);

impl OwnedFrame {
    fn as_frame(&self) -> Frame<'_> {
        Frame {
            at_ns: self.0,
            link: LinkType::RawIp,
            wire_len: self.1.len() as u32,
            bytes: &self.1,
        }
    }
}

/// A tracker, what it told, and clients that count their sequence numbers.
struct Lab {
    limits: Limits,
    tracker: Tracker,
    now: i64,
    frames: u64,
    appetite: Appetite,
    told: Vec<String>,
    keep_at: bool,
    last_at: Timestamp,
    last: Option<Vec<u8>>,
    seq: [u32; 8],
    /// Sum of the outgoing bytes that flows had when they ended.
    ended_bytes: u64,
}

fn perimeter() -> Perimeter {
    Perimeter::new(&["10.0.0.0/8".parse().unwrap()], &[])
}

fn describe(o: &Observation<'_>) -> String {
    let flow = &o.flow;
    match o.kind {
        ObservationKind::Answer { name, address } => format!("answer {name} {address}"),
        ObservationKind::Burst => "burst".to_owned(),
        ObservationKind::Certificate(certificate) => {
            format!("certificate {}", certificate.der.len())
        }
        ObservationKind::Echo { toward, request, id, seq, payload } => {
            let kind = if request { "request" } else { "reply" };
            format!("echo {toward:?} {kind} {id} {seq} {}", payload.len())
        }
        ObservationKind::Ended => "ended".to_owned(),
        ObservationKind::Head { toward, bytes } => format!("head {toward:?} {}", bytes.len()),
        ObservationKind::Hello(hello) => {
            let quic = if hello.quic { " quic" } else { "" };
            let name = hello.sni().map(|name| name.as_str().to_owned()).unwrap_or_default();
            format!("hello {name}{quic}")
        }
        ObservationKind::Message { toward, message } => {
            let kind = if message.is_response() { "response" } else { "query" };
            let name = message.question().map(|question| question.name.as_str().to_owned());
            format!("message {toward:?} {kind} {}", name.unwrap_or_default())
        }
        ObservationKind::Name { name, source } => format!("name {name} {source:?}"),
        ObservationKind::Query { name, qtype } => format!("query {name} {qtype}"),
        ObservationKind::Request { toward, head } => {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            let (method, target) = (text(head.method), text(head.target));
            format!("request {toward:?} {method} {target} +{}", head.body.len())
        }
        ObservationKind::Response { toward, head } => {
            format!("response {toward:?} {} +{}", head.status, head.body.len())
        }
        ObservationKind::ServerHello(hello) => {
            format!("serverhello {:04x}", hello.selected_version())
        }
        ObservationKind::Ssh { toward, hello } => match hello {
            SshHello::Banner(banner) => {
                format!("ssh {toward:?} {}", String::from_utf8_lossy(banner))
            }
            SshHello::Offer(offer) => {
                let hash: String = offer.hassh().iter().map(|byte| format!("{byte:02x}")).collect();
                format!("ssh {toward:?} {hash}")
            }
        },
        ObservationKind::Started => {
            let seen = if flow.start_seen { " seen" } else { "" };
            let bound = flow.bound_name.map(|name| format!(" bound to {name}")).unwrap_or_default();
            let way = if flow.direction == Direction::Inbound { "Inbound" } else { "Outbound" };
            format!("started {:?} {way}{seen}{bound}", flow.route)
        }
        ObservationKind::Volume { bytes_out, .. } => format!("volume {bytes_out}"),
    }
}

/// Whether it tells of bytes that came and of none that left.
fn is_only_received(o: &Observation<'_>) -> bool {
    matches!(o.kind, ObservationKind::Volume { bytes_out: 0, .. })
}

fn ended(o: &Observation<'_>) -> u64 {
    if matches!(o.kind, ObservationKind::Ended) { o.flow.bytes_out } else { 0 }
}

impl Lab {
    fn new(limits: Limits) -> Self {
        let mut tracker = Tracker::new(&limits, 0);
        tracker.set_perimeter(perimeter());
        Self {
            limits,
            tracker,
            now: START,
            frames: 0,
            appetite: Appetite::Enough,
            told: Vec::new(),
            keep_at: false,
            last_at: Timestamp::EPOCH,
            last: None,
            seq: [1000; 8],
            ended_bytes: 0,
        }
    }

    fn wait(&mut self, span: Span) {
        self.now += span.nanos();
    }

    /// Lets time pass and says so.
    fn tick(&mut self, span: Span) {
        self.wait(span);
        self.peek(Span::ZERO);
    }

    /// Says that it is `span` later, for this look only.
    fn peek(&mut self, span: Span) {
        let now = Timestamp::from_nanos(self.now).after(span);
        let (told, keep_at, appetite) = (&mut self.told, self.keep_at, self.appetite);
        let ended_bytes = &mut self.ended_bytes;
        self.tracker.handle_timeout(now, &mut |o| {
            *ended_bytes += ended(o);
            if !is_only_received(o) {
                told.push(if keep_at {
                    format!("{} {} {:?}", o.at, o.frame, o)
                } else {
                    describe(o)
                });
            }
            appetite
        });
    }

    fn frame_of(&self, bytes: &[u8]) -> OwnedFrame {
        OwnedFrame(self.now, bytes.to_vec())
    }

    fn packet(&mut self, bytes: Vec<u8>) {
        self.frames += 1;
        let frame = self.frame_of(&bytes);
        let (told, keep_at, appetite) = (&mut self.told, self.keep_at, self.appetite);
        let (last_at, ended_bytes) = (&mut self.last_at, &mut self.ended_bytes);
        self.tracker.observe(self.frames, &frame.as_frame(), &mut |o| {
            *last_at = o.at;
            *ended_bytes += ended(o);
            if !is_only_received(o) {
                told.push(if keep_at {
                    format!("{} {} {:?}", o.at, o.frame, o)
                } else {
                    describe(o)
                });
            }
            appetite
        });
        self.last = Some(bytes);
    }

    fn repeat_last(&mut self) {
        let last = self.last.clone().unwrap();
        self.packet(last);
    }

    #[allow(clippy::too_many_arguments, reason = "a TCP segment has as many fields")]
    fn tcp(
        &mut self,
        src: Ipv4Addr,
        sport: u16,
        dst: Ipv4Addr,
        dport: u16,
        flags: u8,
        seq: u32,
        payload: &[u8],
    ) {
        self.packet(ip(src, dst, 6, &tcp_segment(sport, dport, flags, seq, payload)));
    }

    fn udp(&mut self, src: Ipv4Addr, sport: u16, dst: Ipv4Addr, dport: u16, payload: &[u8]) {
        self.packet(ip(src, dst, 17, &udp_segment(sport, dport, payload)));
    }

    /// Client `n` opens a connection to a port of the remote host.
    fn open(&mut self, n: usize, port: u16) {
        self.seq[n] = 1000;
        self.tcp(LOCAL, 30_000 + n as u16, REMOTE, port, SYN, 999, &[]);
    }

    fn send(&mut self, n: usize, port: u16, payload: &[u8]) {
        let seq = self.seq[n];
        self.tcp(LOCAL, 30_000 + n as u16, REMOTE, port, ACK, seq, payload);
        self.seq[n] = self.seq[n].wrapping_add(payload.len() as u32);
    }

    fn reset(&mut self, n: usize, port: u16) {
        self.tcp(REMOTE, port, LOCAL, 30_000 + n as u16, RST | ACK, 1, &[]);
    }

    fn skip(&mut self, n: usize, bytes: u32) {
        self.seq[n] = self.seq[n].wrapping_add(bytes);
    }

    fn rewind(&mut self, n: usize, bytes: u32) {
        self.seq[n] -= bytes;
    }

    fn count(&self, what: &str) -> usize {
        self.told.iter().filter(|told| told.starts_with(what)).count()
    }
}

fn random_packet(lab: &mut Lab, random: &mut Random) {
    let n = random.below(8) as usize;
    let port = [80, 443, 53, 9000][random.below(4) as usize];
    match random.below(12) {
        0 | 1 => lab.open(n, port),
        2 => lab.reset(n, port),
        3 => lab.tcp(LOCAL, 30_000 + n as u16, REMOTE, port, FIN | ACK, 5, &[]),
        4 => lab.tcp(REMOTE, port, LOCAL, 30_000 + n as u16, FIN | ACK, 5, &[]),
        5 => lab.udp(RESOLVER, 53, LOCAL, 4000 + n as u16, &dns_answer("r.example", n as u8)),
        6 => lab.udp(LOCAL, 4000 + n as u16, RESOLVER, 53, &dns_question("r.example")),
        7 => {
            let len = random.below(1400) as usize;
            lab.udp(LOCAL, 100 + n as u16, OUTSIDE, port, &vec![1; len]);
        }
        8 => {
            let hello = client_hello("r.example", random.below(500) as usize);
            let part = &hello[..random.below(hello.len() as u64) as usize];
            lab.send(n, port, part);
        }
        9 => lab.tcp(REMOTE, port, LOCAL, 30_000 + n as u16, ACK, 77, b"down"),
        _ => {
            let payload = vec![b'P'; random.below(1400) as usize];
            lab.send(n, port, &payload);
        }
    }
}

fn ip(src: Ipv4Addr, dst: Ipv4Addr, proto: u8, body: &[u8]) -> Vec<u8> {
    let len = (20 + body.len() as u16).to_be_bytes();
    let mut bytes = vec![0x45, 0, len[0], len[1], 0, 0, 0x40, 0, 64, proto, 0, 0];
    bytes.extend(src.octets());
    bytes.extend(dst.octets());
    bytes.extend(body);
    bytes
}

fn tcp_segment(sport: u16, dport: u16, flags: u8, seq: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    bytes.extend(seq.to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0x50, flags, 0xFF, 0xFF, 0, 0, 0, 0]);
    bytes.extend(payload);
    bytes
}

fn udp_segment(sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let len = 8 + payload.len() as u16;
    let mut bytes = [sport.to_be_bytes(), dport.to_be_bytes(), len.to_be_bytes(), [0, 0]].concat();
    bytes.extend(payload);
    bytes
}

/// A TLS 1.2 hello whose server name comes behind `padding` bytes of another extension.
fn client_hello(host: &str, padding: usize) -> Vec<u8> {
    let sized = |body: Vec<u8>| [(body.len() as u16).to_be_bytes().to_vec(), body].concat();
    let extension = |kind: u16, body: Vec<u8>| [kind.to_be_bytes().to_vec(), sized(body)].concat();
    let name = [vec![0], sized(host.as_bytes().to_vec())].concat();
    let extensions = [extension(21, vec![0; padding]), extension(0, sized(name))].concat();
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    hello.extend(sized(extensions));
    let len = (hello.len() as u32).to_be_bytes();
    let handshake = [vec![1, len[1], len[2], len[3]], hello].concat();
    [vec![22, 3, 1], sized(handshake)].concat()
}

fn dns_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn dns_question(name: &str) -> Vec<u8> {
    let head = vec![0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    [head, dns_name(name), vec![0, 1, 0, 1]].concat()
}

/// An answer by way of a CNAME: 203.0.113.`last`.
fn dns_answer(name: &str, last: u8) -> Vec<u8> {
    let alias = dns_name("edge.cdn.example");
    let mut bytes = vec![0, 9, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0];
    bytes.extend(dns_name(name));
    bytes.extend([0, 1, 0, 1, 0xC0, 12, 0, 5, 0, 1, 0, 0, 1, 44]);
    bytes.extend((alias.len() as u16).to_be_bytes());
    bytes.extend(&alias);
    bytes.extend(&alias);
    bytes.extend([0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 203, 0, 113, last]);
    bytes
}
