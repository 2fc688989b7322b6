//! Frames: the wire, fragments, flows, and the whole engine.

use crate::input::Input;
use crate::tape::{LINKS, START, frames};
use ahash::RandomState;
use sekisho_engine::flow::{Appetite, Observation, ObservationKind, Perimeter, Tracker};
use sekisho_engine::rules::{Rules, RulesBuilder};
use sekisho_engine::wire::{
    Fragments, Frame, LinkType, Packet, PacketView, Taken, ip_packet, parse, read, tunnel,
};
use sekisho_engine::{Engine, EngineConfig, HostFact, Limits, Output, drive};
use sekisho_schema::pack::RulePack;
use sekisho_schema::policy::default_inside;
use sekisho_schema::sealed::Local;
use sekisho_schema::{Policy, Span, Timestamp, Verified};
use std::sync::LazyLock;

/// A limit for every table, low enough that an input reaches it.
#[must_use]
pub fn tight_limits() -> Limits {
    Limits {
        flows: 8,
        names: 8,
        heads: 4,
        heads_bytes: 96 << 10,
        destinations: 8,
        episodes: 8,
        envelopes: 4,
        asked_domains: 4,
        echo_peers: 4,
        called: 4,
        named_peers: 4,
        learned_hosts: 3,
        recent_findings: 8,
        containments: 4,
        fragments: 4,
        fragment_bytes: 8 << 10,
        fragment_pieces: 16,
        tunnel_peers: 4,
        ..Limits::default()
    }
}

/// Any link type, and the tunnels inside: byte of the link type, bytes not captured, frame.
pub fn wire(data: &[u8]) {
    let mut input = Input::new(data);
    let number = input.byte();
    let link = LINKS.get(usize::from(number & 7)).copied().unwrap_or(LinkType::Ethernet);
    let missing = u32::from(input.short());
    let bytes = input.rest();
    let frame = Frame { at_ns: START, link, wire_len: bytes.len() as u32 + missing, bytes };
    let parsed = parse(&frame);
    let Ok((mut ip, mut uncaptured)) = ip_packet(&frame) else {
        assert!(parsed.is_err(), "a view of a frame without a packet");
        return;
    };
    for depth in 0..8 {
        match read(ip, uncaptured) {
            Ok(Packet::Whole(view)) => {
                if depth == 0 {
                    assert_eq!(parsed, Ok(view), "two readings of one frame");
                }
                check_view(&view, ip);
                let Some(Ok(inner)) = tunnel::inner(&view) else { return };
                assert!(tunnel::may_carry(&view), "a tunnel that the cheap test passes over");
                assert!(inner.ip.len() < ip.len(), "a tunnel adds a header");
                (ip, uncaptured) = (inner.ip, inner.uncaptured);
            }
            Ok(Packet::Piece(piece)) => {
                if let Some(Ok(view)) = piece.first() {
                    assert!(view.fragment, "the first piece of a datagram says so");
                    check_view(&view, ip);
                }
                return;
            }
            Err(reason) => {
                if depth == 0 {
                    assert_eq!(parsed, Err(reason), "two readings of one frame");
                }
                return;
            }
        }
    }
}

fn check_view(view: &PacketView<'_>, ip: &[u8]) {
    assert!(view.payload.len() <= ip.len(), "more payload than packet");
    let is_short = (view.payload.len() as u64) < u64::from(view.ip_payload_len);
    assert_eq!(view.truncated, is_short, "what is missing is said to be");
}

fn perimeter() -> Perimeter {
    Perimeter::new(&default_inside(), &[])
}

/// Frames through the table of fragments alone, and through a tracker.
pub fn fragments(data: &[u8]) {
    let limits = tight_limits();
    let mut table = Fragments::new(&limits, RandomState::with_seeds(1, 2, 3, 4));
    let mut at = i64::MIN;
    for frame in frames(data) {
        at = at.max(frame.at_ns);
        while let Some(gathered) = table.expired(at) {
            show(&gathered);
            table.give_back(gathered);
        }
        let Ok((ip, uncaptured)) = ip_packet(&frame) else { continue };
        let Ok(Packet::Piece(piece)) = read(ip, uncaptured) else { continue };
        while let Some(gathered) = table.crowded(&piece, 0) {
            show(&gathered);
            table.give_back(gathered);
        }
        match table.take(at, &piece, 0, None) {
            Taken::Held | Taken::Refused(_) => {}
            Taken::Spoiled(_, gathered) | Taken::Whole(gathered) => {
                show(&gathered);
                table.give_back(gathered);
            }
        }
        assert!(table.len() <= limits.fragments, "more datagrams than allowed");
        let most = limits.fragments * limits.fragment_pieces;
        assert!(table.held_pieces() <= most as u64, "more pieces than allowed");
        // A buffer may have twice the room that its bytes take, and is kept for the next datagram.
        let most = 2 * limits.fragment_bytes + 2 * limits.fragments * 0xFFFF;
        assert!(table.held_bytes() <= most, "more bytes than allowed: {}", table.held_bytes());
    }
    track(&limits, frames(data), Appetite::Enough);
}

fn show(gathered: &sekisho_engine::wire::Gathered) {
    if let Ok(view) = gathered.view() {
        assert!(view.payload.len() <= 0xFFFF, "a datagram longer than any");
    }
}

/// Follows frames; whatever they are, each flow ends once, and no table is over its limit.
fn track<'a>(limits: &Limits, frames: impl Iterator<Item = Frame<'a>>, appetite: Appetite) {
    let mut tracker = Tracker::new(limits, 0);
    tracker.set_perimeter(perimeter());
    let (mut number, mut begun, mut ended) = (0, 0_u64, 0_u64);
    let mut observer = |o: &Observation<'_>| {
        match o.kind {
            ObservationKind::Started => begun += 1,
            ObservationKind::Ended => ended += 1,
            ObservationKind::Head { bytes, .. } => {
                assert!(bytes.len() <= limits.head_bytes.max(0xFFFF), "a head beyond its limit");
            }
            ObservationKind::Name { name, .. } | ObservationKind::Query { name, .. } => {
                assert!(name.len() <= 255, "a name longer than any");
            }
            _ => {}
        }
        appetite
    };
    let mut latest = i64::MIN;
    for frame in frames {
        number += 1;
        latest = latest.max(frame.at_ns);
        tracker.observe(number, &frame, &mut observer);
        assert!(tracker.totals().live <= limits.flows as u64, "more flows than allowed");
    }
    assert_eq!(tracker.totals().frames, number, "a frame that is not counted");
    tracker.handle_timeout(Timestamp::MAX, &mut observer);
    // The last nanosecond that can be told stands for never: what waits for longer has no end.
    if latest > i64::MAX - 2 * limits.tcp_idle.nanos() {
        return;
    }
    assert_eq!(tracker.totals().live, 0, "a flow without end");
    assert_eq!(
        (begun, begun),
        (ended, tracker.totals().flows),
        "each flow is begun and ended once"
    );
}

/// Segments of four connections with numbers and flags of choice, datagrams and echoes between.
pub fn flow(data: &[u8]) {
    let mut input = Input::new(data);
    let appetite = if input.byte() & 1 == 0 { Appetite::Enough } else { Appetite::More };
    let mut packets = Vec::new();
    let mut at = START;
    while !input.is_empty() && packets.len() < 512 {
        at = at.saturating_add(1_000_000);
        packets.push((at, packet(&mut input)));
    }
    let frames = packets.iter().map(|(at, bytes)| Frame {
        at_ns: *at,
        link: LinkType::RawIp,
        wire_len: bytes.len() as u32,
        bytes,
    });
    track(&tight_limits(), frames, appetite);
}

/// First sequence numbers of the local and the remote end: the remote one's soon wraps.
pub(crate) const FIRST: [u32; 2] = [1000, u32::MAX - 500];
/// Ports of the remote ends.
pub(crate) const PORTS: [u16; 4] = [443, 80, 53, 22];

/// How (two bits of connection, one of direction, one of an absolute number, two of protocol, one
/// of a payload made long by repetition), flags, place, length, payload.
fn packet(input: &mut Input<'_>) -> Vec<u8> {
    let how = input.byte();
    let number = usize::from(how & 3);
    let (port, remote) = (40_000 + number as u16, PORTS.get(number).copied().unwrap_or(443));
    let inward = usize::from(how >> 2 & 1);
    let protocol = match how >> 4 & 3 {
        0 | 1 => 6_u8,
        2 => 17,
        _ => 1,
    };
    let flags = input.byte();
    let place = if how & 8 == 0 { u32::from(input.short()) } else { input.word() };
    let ours = FIRST.get(inward).copied().unwrap_or_default().wrapping_add(place);
    let theirs =
        FIRST.get(1 - inward).copied().unwrap_or_default().wrapping_add(u32::from(flags) << 4);
    let len = usize::from(input.byte());
    let mut payload = input.take(len).to_vec();
    if how & 0x40 != 0 && !payload.is_empty() {
        payload = payload.iter().copied().cycle().take(1400).collect();
    }
    let ports = if inward == 0 { [port, remote] } else { [remote, port] };
    let mut body = Vec::new();
    if protocol != 1 {
        body.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    }
    match protocol {
        6 => {
            body.extend_from_slice(&ours.to_be_bytes());
            body.extend_from_slice(&theirs.to_be_bytes());
            body.extend_from_slice(&[0x50, flags, 0xFF, 0xFF, 0, 0, 0, 0]);
        }
        17 => {
            body.extend_from_slice(&((payload.len() + 8) as u16).to_be_bytes());
            body.extend_from_slice(&[0, 0]);
        }
        _ => body.extend_from_slice(&[if inward == 0 { 8 } else { 0 }, 0, 0, 0, 0, 7, 0, flags]),
    }
    body.extend_from_slice(&payload);
    let ends = if inward == 0 {
        [[10, 0, 0, 5], [203, 0, 113, 9]]
    } else {
        [[203, 0, 113, 9], [10, 0, 0, 5]]
    };
    let mut ip = vec![0x45, 0];
    ip.extend_from_slice(&((body.len() + 20) as u16).to_be_bytes());
    ip.extend_from_slice(&[0, 1, 0x40, 0, 64, protocol, 0, 0]);
    ip.extend(ends.iter().flatten());
    ip.extend_from_slice(&body);
    ip
}

/// Indicators of each kind that lies in seeds.
const LISTED: &str = "203.0.113.9\n198.51.100.0/24\n203.0.113.10:443\nevil.example\n=exact.example\n\
    http://evil.example/a\n*.wild.example\n2001:db8::/64\n";

static PACKS: LazyLock<Vec<Verified<RulePack>>> = LazyLock::new(|| {
    sekisho_engine::packs::shipped_packs()
        .iter()
        .filter_map(|(_, text)| RulePack::parse(text).ok())
        .map(|pack| Verified::locally(pack, Local::BuiltIn))
        .collect()
});

static ENFORCE: LazyLock<Option<Policy>> =
    LazyLock::new(|| Policy::parse(include_str!("../../rules/policies/enforce.toml")).ok());

/// The shipped packs and a few indicators.
pub(crate) fn shipped_rules() -> Rules {
    let mut builder = RulesBuilder::seeded(1);
    for pack in PACKS.iter() {
        assert!(builder.add_shipped(pack).is_ok(), "a shipped pack is refused");
    }
    assert_eq!(PACKS.len(), 5, "a shipped pack can't be read");
    assert!(builder.add_list("fuzz", LISTED).is_ok(), "the list is refused");
    builder.build()
}

/// An engine that looks for everything, and cuts if asked to.
pub(crate) fn watching(hash_seed: u64, limits: Limits, enforce: bool) -> Engine {
    let mut engine = Engine::new(EngineConfig { host: "fuzz".to_owned(), limits, hash_seed });
    let at = Timestamp::from_nanos(START);
    engine.handle(sekisho_engine::Input::Rules(Box::new(shipped_rules()), at));
    if enforce && let Some(policy) = ENFORCE.as_ref() {
        engine.handle(sekisho_engine::Input::Fact(HostFact::Enforcement(Ok(())), at));
        let policy = Box::new(Verified::locally(policy.clone(), Local::Installed));
        engine.handle(sekisho_engine::Input::Policy(policy, at));
    }
    engine
}

/// Frames through the whole engine with every shipped pack: byte of how, frames.
///
/// The byte says whether the engine may cut (1), and whether another one with another seed of its
/// hashes is asked too (2): both must say the same.
pub fn engine(data: &[u8]) {
    let mut input = Input::new(data);
    let how = input.byte();
    let tape = input.rest();
    let first = play(0, how & 1 != 0, tape);
    if how & 2 == 0 {
        return;
    }
    let second = play(0x9E37_79B9_7F4A_7C15, how & 1 != 0, tape);
    assert_eq!(first.len(), second.len(), "the seed of hashes changes how much is said");
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(first, second, "the seed of hashes changes what is said");
    }
}

fn play(seed: u64, enforce: bool, tape: &[u8]) -> Vec<Output> {
    let limits = tight_limits();
    let most = limits.containments;
    let mut engine = watching(seed, limits, enforce);
    let mut said = Vec::new();
    let mut last = START;
    for frame in frames(tape) {
        last = last.max(frame.at_ns);
        drive::step(&mut engine, frame, &mut |output| said.push(output));
        assert!(engine.held().containments.len() <= most, "more containments than allowed");
    }
    let later = Timestamp::from_nanos(last).after(Span::from_hours(3));
    drive::tick(&mut engine, later, &mut |output| said.push(output));
    said
}
