//! Inputs that are made to cost memory or steps: what they may take of either is counted, not timed.
//!
//! What the engine's own tests hold already (single bytes in the worst order, DNS over flows, floods
//! of first fragments) is not held again; here all memory of the process counts.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do"
)]

use peak_alloc::PeakAlloc;
use sekisho_engine::app::dns::DnsMessage;
use sekisho_engine::app::hello::{ClientHello, Reading, SCRATCH_LEN, ServerHello};
use sekisho_engine::detect::plugx::lznt1::decompress;
use sekisho_engine::detect::plugx::{PlugxConstants, PlugxDecoder};
use sekisho_engine::flow::{Appetite, Tracker};
use sekisho_engine::rules::{LIST_DEFAULTS, RulesBuilder};
use sekisho_engine::wire::{Frame, LinkType, Unparsed};
use sekisho_engine::{Engine, EngineConfig, Input, Limits, drive};
use sekisho_schema::intel::{
    Facts, Format, Observable, ParseObservableError, ReadOptions, Reader, Taker,
};
use sekisho_schema::pack::RulePack;
use sekisho_schema::sealed::Local;
use sekisho_schema::{Timestamp, Verified};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counts the memory of the whole process, so that only one test may run at a time.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;
static ALONE: Mutex<()> = Mutex::new(());

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const START: i64 = 1_767_225_600_000_000_000;

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory that was held at once, besides what was there before.
fn held<T>(what: impl FnOnce() -> T) -> (usize, T) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let done = what();
    (MEMORY.peak_usage().saturating_sub(before), done)
}

#[test]
fn an_lznt1_bomb_takes_no_more_memory_than_its_cap_allows() {
    let _alone = alone();
    // Six bytes stand for 4096, so that these 6 MiB stand for 4 GiB.
    let bomb = [0x03, 0xB0, 0x02, b'a', 0xFC, 0x0F].repeat(MIB);
    for cap in [0, 1, 4096, 0xF010, 0xFFFF] {
        let (held, out) = held(|| {
            let mut out = Vec::new();
            assert!(decompress(&bomb, &mut out, cap).is_err());
            out
        });
        assert!(out.len() <= cap && held <= 3 * cap.max(64), "{held} bytes for a cap of {cap}");
    }
    // Behind a header in clear the decoder allows what that states: sixteen bits.
    let decoder = PlugxDecoder::new(&PlugxConstants::default());
    for stated in [16_u16, 0x1000, 0xF000] {
        for flags in [0_u8, 0x10, 0x20] {
            let mut head = vec![0, 0, 0, 0, 2, 0, 0, flags];
            head.extend_from_slice(&stated.to_le_bytes());
            head.extend_from_slice(&0xFFFF_u16.to_le_bytes());
            head.extend_from_slice(&[0; 4]);
            head.extend_from_slice(&bomb[..usize::from(stated)]);
            let (held, _) = held(|| decoder.examine(&head));
            assert!(held <= 256 * KIB, "{held}");
        }
    }
}

/// A DNS message of 65,535 bytes whose records are made by `record` from the place that they are at.
fn message(record: impl Fn(u16) -> Vec<u8>) -> Vec<u8> {
    let mut bytes = vec![0, 9, 0x81, 0x80, 0, 1, 0xFF, 0xFF, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1];
    loop {
        let more = record(bytes.len() as u16);
        if bytes.len() + more.len() > 0xFFFF {
            return bytes;
        }
        bytes.extend(more);
    }
}

#[test]
fn compression_loops_in_dns_take_no_memory_and_a_step_for_each_record() {
    let _alone = alone();
    let pointer = |to: u16| (0xC000 | to & 0x3FFF).to_be_bytes();
    let record = |owner: &[u8], data: &[u8]| {
        let fixed = [0, 5, 0, 1, 0, 0, 0, 9, 0, data.len() as u8];
        [owner, &fixed, data].concat()
    };
    let hostile = [
        ("to itself", message(|at| record(&pointer(at), &pointer(at)))),
        (
            "to the next",
            message(|at| record(&pointer(at.wrapping_add(12)), &pointer(at.wrapping_add(14)))),
        ),
        ("back in a chain", message(|at| record(&pointer(at.saturating_sub(14)), &pointer(at)))),
        (
            "labels before a loop",
            message(|at| record(&[&[1, b'x'][..], &pointer(at)].concat(), &[1, b'y', 0xC0, 12])),
        ),
        ("roots", message(|_| record(&[0], &[]))),
    ];
    for (what, bytes) in &hostile {
        let (held, steps) = held(|| {
            let message = DnsMessage::parse(bytes).unwrap();
            let mut steps = message.raw_question_name().count();
            for record in message.records() {
                let names = [record.owner(), record.target()];
                assert!(names.iter().flatten().all(|name| name.as_str().len() <= 1024));
                steps += 1 + record.strings().count();
            }
            steps + message.answers().count()
        });
        assert_eq!(held, 0, "{what}");
        assert!(steps <= 2 * bytes.len() / 11 + 2, "{what}: {steps} steps");
    }
}

#[test]
fn hellos_with_65_535_extensions_are_refused_or_read_in_place() {
    let _alone = alone();
    let front = [&[3, 3][..], &[5; 32], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
    // Without content an extension is four bytes: sixteen bits of length hold 16,383 of them.
    let all: Vec<u8> =
        (0..65_535_u16).flat_map(|kind| [kind.to_be_bytes(), [0, 0]].concat()).collect();
    for (count, stated) in [(16_383, 16_383 * 4), (65_535, 0xFFFF), (65_535, 4), (16_384, 0)] {
        let block = &all[..count * 4];
        let body = [&front[..], &(stated as u16).to_be_bytes(), block].concat();
        for kind in [1_u8, 2] {
            let [_, a, b, c] = (body.len() as u32).to_be_bytes();
            let handshake = [&[kind, a, b, c][..], &body].concat();
            let stream: Vec<u8> = handshake
                .chunks(16_384)
                .flat_map(|part| {
                    [&[22, 3, 3][..], &(part.len() as u16).to_be_bytes(), part].concat()
                })
                .collect();
            let mut scratch = vec![0; SCRATCH_LEN];
            let (held, read) = held(|| {
                let _server = ServerHello::parse_joined(&stream, &mut scratch)
                    .whole()
                    .map(|hello| hello.ja3s());
                assert_eq!(ClientHello::parse_joined(&stream, &mut scratch), Reading::Other);
                let hello = ClientHello::from_handshake(&handshake).whole()?;
                assert_eq!(hello.ja4().as_str().len(), 36);
                Some((hello.each_extension().count(), hello.ja3(), hello.sni()))
            });
            assert!(held <= 4 * KIB, "{held}");
            if let Some((extensions, ..)) = read {
                assert!(extensions <= 16_383);
            }
            assert_eq!(read.is_some(), kind == 1, "{count} {stated}");
        }
    }
}

fn ipv4(id: u16, protocol: u8, part: u16, body: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x45, 0];
    ip.extend_from_slice(&((body.len() + 20) as u16).to_be_bytes());
    ip.extend_from_slice(&id.to_be_bytes());
    ip.extend_from_slice(&part.to_be_bytes());
    ip.extend_from_slice(&[64, protocol, 0, 0, 10, 0, 0, 5, 203, 0, 113, 9]);
    ip.extend_from_slice(body);
    ip
}

fn frame(number: u64, bytes: &[u8]) -> Frame<'_> {
    Frame {
        at_ns: START + number as i64 * 1000,
        link: LinkType::RawIp,
        wire_len: bytes.len() as u32,
        bytes,
    }
}

#[test]
fn overlapping_fragments_without_end_hold_no_more_than_the_limits() {
    let _alone = alone();
    let limits = Limits::default();
    let (held, (totals, most_told)) = held(|| {
        let mut tracker = Tracker::new(&limits, 0);
        let (mut most_told, mut random) = (0, Random(3));
        for number in 0..200_000_u64 {
            // A thousand datagrams at a time, of which each piece lies across two others.
            let id = (number / 97) as u16 & 0x3FF;
            let offset = random.below(8190) as u16;
            let body = vec![number as u8; 8 * (1 + random.below(180))];
            let bytes = ipv4(id, 17, 0x2000 | offset, &body);
            let mut told = 0;
            tracker.observe(number, &frame(number, &bytes), &mut |_| {
                told += 1;
                Appetite::More
            });
            most_told = most_told.max(told);
        }
        (*tracker.totals(), most_told)
    });
    let overlaps = totals.unparsed[Unparsed::FragmentOverlap.index()];
    assert!(overlaps > 1000, "{overlaps} overlaps: {:?}", totals.unparsed);
    assert!(most_told <= 16, "{most_told} facts of one frame");
    // The bytes of pieces, buffers that are kept for the next, and what tables are made of.
    assert!(held <= limits.fragment_bytes + 16 * MIB, "{held} bytes");
}

fn engine_with_everything(limits: Limits) -> Engine {
    let mut engine = Engine::new(EngineConfig { host: "hostile".to_owned(), limits, hash_seed: 0 });
    let mut builder = RulesBuilder::new();
    for (_, text) in sekisho_engine::packs::shipped_packs() {
        builder
            .add_shipped(&Verified::locally(RulePack::parse(text).unwrap(), Local::BuiltIn))
            .unwrap();
    }
    engine.handle(Input::Rules(Box::new(builder.build()), Timestamp::from_nanos(START)));
    engine
}

#[test]
fn single_bytes_with_jumps_of_4_gb_cost_the_whole_engine_no_more_than_its_limits() {
    let _alone = alone();
    let limits = Limits {
        flows: 1024,
        heads: 256,
        heads_bytes: 4 * MIB,
        destinations: 1024,
        ..Limits::default()
    };
    let mut engine = engine_with_everything(limits);
    let (held, most_said) = held(|| {
        let (mut most_said, mut random) = (0, Random(5));
        for number in 0..60_000_u64 {
            let port = 1024 + random.below(2048) as u16;
            let near = 1 + random.below(20_000) as u32;
            let seq = if number % 5 == 0 { random.next() as u32 } else { near };
            let flags = if number % 97 == 0 { 2 } else { 0x10 };
            let mut segment =
                [&port.to_be_bytes()[..], &443_u16.to_be_bytes(), &seq.to_be_bytes()].concat();
            segment.extend_from_slice(&[
                0,
                0,
                0,
                1,
                0x50,
                flags,
                0xFF,
                0xFF,
                0,
                0,
                0,
                0,
                number as u8,
            ]);
            let bytes = ipv4(0, 6, 0x4000, &segment);
            let mut said = 0;
            drive::step(&mut engine, frame(number, &bytes), &mut |_| said += 1);
            most_said = most_said.max(said);
        }
        most_said
    });
    assert!(engine.totals().live <= 1024);
    assert!(most_said <= 64, "{most_said} outputs of one frame");
    assert!(held <= 24 * MIB, "{held} bytes");
}

#[test]
fn a_compressed_message_byte_for_byte_costs_the_whole_engine_no_more_than_its_limits() {
    let _alone = alone();
    let mut engine = engine_with_everything(Limits::default());
    let bomb = [0x03, 0xB0, 0x02, b'a', 0xFC, 0x0F].repeat(200);
    // In clear, as one variant sends it: key, command and flags, size, plain size, status.
    let mut message = vec![0, 0, 0, 0, 2, 0, 0, 0x20];
    message.extend_from_slice(&(bomb.len() as u16).to_le_bytes());
    message.extend_from_slice(&0xF000_u16.to_le_bytes());
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(&bomb);
    let (held, said) = held(|| {
        let mut said = 0;
        for (at, byte) in message.iter().enumerate() {
            let mut segment = [&40_000_u16.to_be_bytes()[..], &443_u16.to_be_bytes()].concat();
            segment.extend_from_slice(&(1000 + at as u32).to_be_bytes());
            segment.extend_from_slice(&[0, 0, 0, 1, 0x50, 0x18, 0xFF, 0xFF, 0, 0, 0, 0, *byte]);
            let bytes = ipv4(0, 6, 0x4000, &segment);
            drive::step(&mut engine, frame(at as u64, &bytes), &mut |_| said += 1);
        }
        said
    });
    assert!(said <= 64, "{said} outputs");
    assert!(held <= 4 * MIB, "{held} bytes");
}

/// Counts and keeps nothing.
#[derive(Default)]
struct Nowhere(u64);

impl Taker for Nowhere {
    fn take(&mut self, _: &Observable<'_>, _: &Facts<'_>) -> Result<(), ParseObservableError> {
        self.0 += 1;
        Ok(())
    }
}

/// Feeds a text in pieces of 64 KiB; the memory held, and how many values were taken.
fn feed(format: Option<Format>, text: &[u8]) -> (usize, u64) {
    held(|| {
        let mut taker = Nowhere::default();
        let options = ReadOptions { format, ..ReadOptions::default() };
        let mut reader = Reader::new(options, &mut taker);
        let fed = text.chunks(64 * KIB).try_for_each(|piece| reader.feed(piece));
        if let Ok(report) = fed.and_then(|()| reader.finish()) {
            assert!(report.left_out.len() <= 100);
        }
        taker.0
    })
}

#[test]
fn documents_nested_100_000_deep_are_refused_in_memory_bounded_by_their_length() {
    let _alone = alone();
    let deep = 100_000;
    for (front, each) in [
        ("", "["),
        ("", "{\"a\":"),
        ("{\"objects\":", "["),
        ("{\"objects\":[", "{\"objects\":["),
        ("{\"response\":", "[{\"Event\":"),
        ("{\"Event\":{\"Attribute\":[", "{\"x\":"),
        ("{\"Event\":{\"Object\":", "[{\"Attribute\":"),
    ] {
        let text = format!("{front}{}", each.repeat(deep));
        for format in [None, Some(Format::Stix), Some(Format::Misp)] {
            let (held, taken) = feed(format, text.as_bytes());
            assert_eq!(taken, 0);
            // A document is held whole, in a buffer that may be twice as long.
            assert!(
                held <= 3 * text.len() + 256 * KIB,
                "{held} bytes for {} of {each}",
                text.len()
            );
        }
    }
    let pattern = format!("[{}ipv4-addr:value = '203.0.113.9'", "(".repeat(deep));
    let text = format!(
        "{{\"type\":\"bundle\",\"objects\":[{{\"type\":\"indicator\",\"id\":\"i\",\"pattern_type\":\"stix\",\"pattern\":\"{pattern}\"}}]}}"
    );
    let (held, _) = feed(Some(Format::Stix), text.as_bytes());
    assert!(held <= 64 * text.len(), "{held} bytes for {}", text.len());
}

#[test]
fn a_line_of_10_mb_is_left_out_in_less_memory_than_it_has() {
    let _alone = alone();
    let long = 10 * MIB;
    for each in [
        "a",
        "203.0.113.9,",
        "a.example;",
        "\"",
        "\t",
        "alert ip any any -> any any (",
        "\\",
        "%41",
    ] {
        let text = each.repeat(long / each.len());
        for format in [Format::Csv, Format::Dataset, Format::Plain, Format::Suricata, Format::Zeek]
        {
            let (held, taken) = feed(Some(format), text.as_bytes());
            assert_eq!(taken, 0, "{format} {each}");
            // The longest line that is read is 256 KiB.
            assert!(held <= 2 * MIB, "{held} bytes for {format} of {each}");
        }
        let (held, _) = feed(None, text.as_bytes());
        assert!(held <= 2 * MIB, "{held} bytes for {each}");
    }
    // As a source of the rules: what was taken before stays, and what follows is read.
    let text = format!("a.example\n{}\nb.example\n", "x".repeat(long));
    let mut builder = RulesBuilder::new();
    let report = builder
        .read_list("long", LIST_DEFAULTS, |taker| {
            sekisho_schema::intel::read(
                text.as_bytes(),
                ReadOptions { format: Some(Format::Plain), ..ReadOptions::default() },
                taker,
            )
        })
        .unwrap();
    assert_eq!((report.total(), report.left_out_total()), (2, 1));
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound
    }
}
