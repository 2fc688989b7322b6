//! Senders who want to cost memory or time.

#![allow(
    clippy::disallowed_methods,
    reason = "what is bounded here is time, so a clock must say it"
)]

use super::tape::Tape;
use super::*;
use std::time::{Duration, Instant};

/// Far more than any of these takes, in a debug build on a slow machine that does other things too.
const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_million_single_bytes_with_jumps_are_bounded() {
    let began = Instant::now();
    let limits = Limits { heads: 64, heads_bytes: 1 << 20, flows: 256, ..Limits::default() };
    let mut tracker = Tracker::new(&limits, 0);
    tracker.set_perimeter(perimeter());
    let (mut most_told, mut most_held) = (0, 0);
    let mut random = Random(5);
    let flows = 512;
    for n in 0..1_000_000_u64 {
        let port = 1024 + random.below(flows) as u16;
        let near = random.below(20_000) as u32;
        // Near bytes make holes and fill them, far ones lie anywhere in the space of 4 GB.
        let seq = if n % 7 == 0 { random.next() as u32 } else { 1 + near };
        let flags = if n % 97 == 0 { SYN } else { ACK };
        let bytes = ip(LOCAL, REMOTE, 6, &tcp_segment(port, 9000, flags, seq, &[n as u8]));
        let frame =
            Frame { at_ns: START + n as i64, link: LinkType::RawIp, wire_len: 41, bytes: &bytes };
        let mut told = 0;
        tracker.observe(n, &frame, &mut |_| {
            told += 1;
            Appetite::More
        });
        most_told = most_told.max(told);
        most_held = most_held.max(tracker.held_bytes());
    }
    let totals = tracker.totals();
    assert!(most_held <= 1 << 20, "{most_held}");
    assert!(totals.live <= 256 && totals.head_gaps > 1000, "{totals:?}");
    // No frame makes more be told than its flow's beginning, middle and end.
    assert!(most_told <= 12, "{most_told}");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[test]
fn single_bytes_in_the_worst_order_are_bounded() {
    let began = Instant::now();
    let mut tape = Tape::open();
    // From the far end to the front: one piece that grows downward.
    for at in (1..16_000).rev() {
        tape.client(at, &[0x80]);
    }
    tape.client(0, &[0x80]);
    assert_eq!(tape.heads.len(), 1);
    assert_eq!(tape.heads[0].1.len(), 16_000);
    assert!(began.elapsed() < SOON);
}

#[test]
fn endless_header_lines_are_given_up() {
    let began = Instant::now();
    let line = [&b"GET /"[..], &[b'a'; 20_000]].concat();
    let fields = [&b"GET / HTTP/1.1\r\nA: "[..], &[b'a'; 20_000]].concat();
    let many = [&b"GET / HTTP/1.1\r\n"[..], &b"a:\n".repeat(10_000)].concat();
    for stream in [line, fields, many] {
        for most in [1, 1460, 30_000] {
            let mut tape = Tape::open();
            for (n, piece) in stream.chunks(most).enumerate() {
                tape.client(n * most, piece);
            }
            assert_eq!(tape.count("request"), 0);
            assert_eq!(tape.tracker.held_bytes(), 0, "{most}: nothing is waited for any more");
        }
    }
    assert!(began.elapsed() < SOON);
}

#[test]
fn as_many_fields_as_a_head_can_hold_are_read_once() {
    // 65,535 fields are too long for a head; as many as fit are its fields.
    let began = Instant::now();
    let too_many = [&b"GET / HTTP/1.1\r\n"[..], &b"a:\r\n".repeat(65_535), b"\r\n"].concat();
    let fitting = [&b"GET / HTTP/1.1\r\n"[..], &b"a:\r\n".repeat(4000), b"\r\n"].concat();
    for (stream, requests) in [(&too_many, 0), (&fitting, 1)] {
        let mut tape = Tape::open();
        for (n, piece) in stream.chunks(1).enumerate().take(20_000) {
            tape.client(n, piece);
        }
        assert_eq!(tape.count("request"), requests);
    }
    assert!(began.elapsed() < SOON);
}

#[test]
fn endless_tunnels_are_read_in_time() {
    let connect = b"CONNECT a.example:1 HTTP/1.1\r\n\r\n";
    let mut tape = Tape::open();
    let stream = connect.repeat(1000);
    let began = Instant::now();
    for (n, piece) in stream.chunks(32_000).enumerate() {
        tape.client(n * 32_000, piece);
    }
    assert!(tape.count("request Remote CONNECT") >= 8);
    assert!(tape.heads.len() <= 20, "{}", tape.heads.len());
    assert!(began.elapsed() < SOON);
}

#[test]
fn compression_loops_and_bombs_in_dns_end() {
    let began = Instant::now();
    // Each record's owner points to the one before it.
    let mut bomb = dns_question("a.example");
    bomb[2] = 0x81;
    bomb[7] = 0xFF;
    bomb[6] = 0x0F;
    let mut owner = 12_u16;
    while bomb.len() < 60_000 {
        let at = bomb.len() as u16;
        bomb.extend((0xC000 | owner & 0x3FFF).to_be_bytes());
        bomb.extend([0, 5, 0, 1, 0, 0, 0, 9, 0, 2]);
        bomb.extend((0xC000 | at & 0x3FFF).to_be_bytes());
        owner = at;
    }
    let mut lab = Lab::new(Limits::default());
    for _ in 0..20 {
        lab.udp(LOCAL, 4001, RESOLVER, 53, &dns_question("a.example"));
        lab.udp(RESOLVER, 53, LOCAL, 4001, &bomb);
    }
    assert_eq!(lab.count("message Local response"), 20);
    assert_eq!(lab.count("answer"), 0);
    for pointer in [12_u8, 14, 40] {
        let mut looped = vec![0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0xC0, pointer];
        looped.extend([0, 1, 0, 1]);
        lab.udp(LOCAL, 4002, RESOLVER, 53, &looped);
    }
    assert_eq!(lab.count("query"), 20, "a looping name is no question");
    assert!(began.elapsed() < SOON);
}

#[test]
fn an_injected_segment_far_away_is_counted_and_names_behind_it_are_still_read() {
    let mut tape = Tape::open();
    tape.client(0, &client_hello("c2.example", 0));
    tape.client(1 << 30, b"\x99far");
    assert_eq!(tape.count("hello c2.example"), 1);
    assert_eq!(tape.heads.len(), 1);
}
