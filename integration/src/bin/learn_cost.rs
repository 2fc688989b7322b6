//! What learning costs, over frames in memory.
//!
//! `learn-cost pairs CAPTURE [--runs N]`: thread CPU of the whole engine with the shipped packs beside the same without
//! the pack `behaviour`, both shown the same frames in turn, chunk by chunk; and once more with thresholds in force.
//! `learn-cost flood KEYS [--without]`: that many distinct destinations within minutes, after some that are half-way to a
//! threshold. `learn-cost week`: seven days of a busy host, twice, and a third time from a saved state.
//! Each writes one line of JSON.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement fails loudly and prints for people"
)]

use sekisho_engine::certify::episode::{Channel, Tier};
use sekisho_engine::certify::tails::{Features, measure};
use sekisho_engine::flow::AHEAD;
use sekisho_engine::learn::Unlocked;
use sekisho_engine::packs::shipped_packs;
use sekisho_engine::rules::RulesBuilder;
use sekisho_engine::wire::{Frame, LinkType};
use sekisho_engine::{Engine, EngineConfig, Input, Limits, Output, drive};
use sekisho_integration::measure::{Loaded, cpu, resident};
use sekisho_schema::pack::RulePack;
use sekisho_schema::sealed::Local;
use sekisho_schema::{Body, Timestamp, Verified};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Instant;

/// Frames that one engine is shown before it is the other's turn: enough that the caches, which hold what the other
/// needs by then, are its own for most of them.
const CHUNK: usize = 1 << 17;
/// When forged traffic begins, in nanoseconds: 2026-01-05T00:00:00Z, a Monday.
const START: i64 = 1_767_571_200_000_000_000;
const SECOND: i64 = 1_000_000_000;
const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 53);
const USAGE: &str = "usage: learn-cost pairs CAPTURE [--runs N] | learn-cost flood KEYS [--without] | learn-cost week";

fn engine(learns: bool, limits: Limits, hash_seed: u64) -> Engine {
    let mut rules = RulesBuilder::new();
    for (name, text) in shipped_packs() {
        let pack = RulePack::parse(text).expect(name);
        if learns || pack.name != "behaviour" {
            rules.add_pack(&Verified::locally(pack, Local::BuiltIn)).expect(name);
        }
    }
    let mut engine = Engine::new(EngineConfig { host: "bench".to_owned(), limits, hash_seed });
    engine.handle(Input::Rules(Box::new(rules.build()), Timestamp::EPOCH));
    engine
}

/// Puts thresholds in force that nothing passes: every channel is scored as under a certificate.
fn unlock(engine: &mut Engine) {
    let benign: Vec<Features> = (1..=200)
        .map(|n| Features {
            rhythm: f64::from(n % 7),
            hours: f64::from(n % 24),
            net: f64::from(n) * 1e5,
            hosts: 1.0,
            oddities: Vec::new(),
        })
        .collect();
    let mut unlocked = Unlocked::default();
    for channel in Channel::ALL {
        unlocked.set(channel, Tier::Hold, 1e15);
    }
    let episodes = engine.episodes_mut();
    episodes.calibrate(Some(measure(&benign)));
    episodes.unlock(unlocked);
}

/// Shows frames to an engine, so much later, a few ahead as a replay does; the thread CPU that it took.
fn show(engine: &mut Engine, frames: &[Frame<'_>], later: i64) -> i64 {
    let began = cpu();
    for few in frames.chunks(AHEAD) {
        let mut batch = [few[0]; AHEAD];
        let batch = &mut batch[..few.len()];
        for (place, frame) in batch.iter_mut().zip(few) {
            *place = Frame { at_ns: frame.at_ns + later, ..*frame };
        }
        engine.foresee(batch);
        for frame in batch {
            drive::step(engine, *frame, &mut drop);
        }
    }
    cpu() - began
}

fn pairs(path: &str, runs: usize) -> Value {
    let loaded = Loaded::read(Path::new(path));
    let frames: Vec<Frame<'_>> = loaded.frames().collect();
    let (mut ratios, mut unlocked, mut watched) = (Vec::new(), Vec::new(), 0);
    let mut least = [f64::MAX; 3];
    for run in 0..runs {
        let mut engines = [false, true, true].map(|learns| engine(learns, Limits::default(), 1));
        // The tables grow and fill once in the life of an agent: what is measured comes after that.
        let last = frames.last().map_or(0, |frame| frame.at_ns);
        let first = frames.first().map_or(0, |frame| frame.at_ns);
        let later = last - first + 3 * 3600 * SECOND;
        for engine in &mut engines {
            show(engine, &frames, 0);
            drive::tick(engine, Timestamp::from_nanos(first + later), &mut drop);
        }
        unlock(&mut engines[2]);
        let mut spent = [0_i64; 3];
        for (number, chunk) in frames.chunks(CHUNK).enumerate() {
            // Whoever comes first finds the frames less warm.
            for turn in 0..3 {
                let who = (run + number + turn) % 3;
                spent[who] += show(&mut engines[who], chunk, later);
            }
        }
        let spent = spent.map(|spent| spent as f64 / loaded.count().max(1) as f64);
        ratios.push(spent[1] / spent[0]);
        unlocked.push(spent[2] / spent[0]);
        for (least, now) in least.iter_mut().zip(spent) {
            *least = least.min(now);
        }
        watched = engines[1].episodes().len();
    }
    json!({
        "frames": loaded.count(),
        "episodes": watched,
        "without_ns": least[0],
        "with_ns": least[1],
        "ratios": ratios,
        "unlocked_ratios": unlocked,
    })
}

/// A frame of Ethernet, IPv4 and what the protocol makes of it.
fn ipv4(proto: u8, (from, to): (Ipv4Addr, Ipv4Addr), body: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0]);
    let len = u16::try_from(20 + body.len()).expect("a packet");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0x40, 0, 64, proto, 0, 0]);
    out.extend_from_slice(&from.octets());
    out.extend_from_slice(&to.octets());
    out.extend_from_slice(body);
}

type End = (Ipv4Addr, u16);

fn udp(from: End, to: End, payload: &[u8], out: &mut Vec<u8>) {
    let mut body = Vec::with_capacity(8 + payload.len());
    let len = u16::try_from(8 + payload.len()).expect("a datagram");
    for word in [from.1, to.1, len, 0] {
        body.extend_from_slice(&word.to_be_bytes());
    }
    body.extend_from_slice(payload);
    ipv4(17, (from.0, to.0), &body, out);
}

fn tcp(from: End, to: End, flags: u8, (seq, ack): (u32, u32), payload: &[u8], out: &mut Vec<u8>) {
    let mut body = Vec::with_capacity(20 + payload.len());
    for word in [from.1, to.1] {
        body.extend_from_slice(&word.to_be_bytes());
    }
    for word in [seq, ack] {
        body.extend_from_slice(&word.to_be_bytes());
    }
    body.extend_from_slice(&[0x50, flags, 0xFF, 0xFF, 0, 0, 0, 0]);
    body.extend_from_slice(payload);
    ipv4(6, (from.0, to.0), &body, out);
}

/// What an engine told.
#[derive(Default)]
struct Told {
    findings: BTreeMap<String, u64>,
    floods: u64,
    records: u64,
    digest: Sha256,
}

impl Told {
    fn take(&mut self, output: Output) {
        let Output::Record(record) = output else { return };
        self.records += 1;
        let text = serde_json::to_vec(&(record.at, &record.body)).expect("a record can be written");
        self.digest.update(text);
        let Body::Finding(finding) = record.body else { return };
        self.floods += u64::from(finding.explanation.contains("had to be forgotten"));
        *self.findings.entry(finding.detector).or_default() += 1;
    }

    fn digest(&self) -> String {
        self.digest.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn present(engine: &mut Engine, at_ns: i64, bytes: &[u8], told: &mut Told) {
    let wire_len = bytes.len() as u32;
    let frame = Frame { at_ns, link: LinkType::Ethernet, wire_len, bytes };
    drive::step(engine, frame, &mut |output| told.take(output));
}

/// Ten keys that are half-way to a proof and ten half-way to the allowance, then the flood.
fn flood(keys: u32, learns: bool) -> Value {
    // Flows are measured elsewhere: they would hide what a key takes.
    let limits = Limits { flows: 1 << 12, ..Limits::default() };
    let mut engine = engine(learns, limits, 7);
    let (mut out, mut told) = (Vec::new(), Told::default());
    let before = resident();
    let half = |n: u8| Ipv4Addr::new(198, 51, n, 7);
    let mut at = START;
    for minute in 0..9_i64 {
        for n in 0..10 {
            at = START + (minute * 60 + i64::from(n)) * SECOND;
            udp((LOCAL, 4000), (half(n), 8443), b"ping", &mut out);
            present(&mut engine, at, &out, &mut told);
        }
    }
    for n in 10..20 {
        for _ in 0..8000 {
            at += SECOND / 1000;
            udp((LOCAL, 4000), (half(n), 8443), &[b'.'; 1400], &mut out);
            present(&mut engine, at, &out, &mut told);
        }
    }
    let began = cpu();
    for n in 0..keys {
        at += SECOND / 50_000;
        // A thousand services of as many networks as it takes.
        let network = 0x2000_0000 + ((n / 1000) << 8) + 9;
        let port = u16::try_from(1 + n % 1000).expect("a port");
        udp((LOCAL, 4001), (Ipv4Addr::from_bits(network), port), b"x", &mut out);
        present(&mut engine, at, &out, &mut told);
    }
    let spent = (cpu() - began) as f64 / f64::from(keys.max(1));
    // The flows of the flood end first: what the turn of the hour takes is then seen alone.
    drive::tick(&mut engine, Timestamp::from_nanos(at + 600 * SECOND), &mut drop);
    let began = cpu();
    engine.episodes_mut().turn_hour(Timestamp::from_nanos(at + 600 * SECOND));
    let hour = cpu() - began;
    let saving = saving(&engine);
    let kept = |channel: Channel, from: u8, least: f64| {
        let of = |n: u8| format!("198.51.{n}.0/24");
        (from..from + 10)
            .filter(|n| {
                engine.episodes().records().any(|episode| {
                    episode.key.destination.to_string() == of(*n)
                        && match channel {
                            Channel::Rhythm => episode.rhythm >= least,
                            _ => episode.net as f64 >= least,
                        }
                })
            })
            .count()
    };
    json!({
        "keys": keys,
        "ns_a_key": spent,
        "hour_us": hour as f64 / 1000.0,
        "save_begin_us": saving[0],
        "save_step_us": saving[1],
        "save_seal_us": saving[2],
        "grown": resident() - before,
        "watched": engine.episodes().len(),
        "evicted": engine.episodes().evicted(),
        "half_proven_kept": kept(Channel::Rhythm, 0, 3.0),
        "half_sent_kept": kept(Channel::Allowance, 10, 10e6),
        "floods_told": told.floods,
        "findings": told.findings,
    })
}

/// Keys that the agent writes down at a time.
const KEYS: usize = 512;

/// Writing everything down as the agent does: CPU of the beginning, of the longest step, and of the digest that
/// another thread makes; in microseconds.
fn saving(engine: &Engine) -> [f64; 3] {
    let mut began = cpu();
    let mut lap = || {
        let now = cpu();
        (now - std::mem::replace(&mut began, now)) as f64 / 1000.0
    };
    let mut saving = engine.episodes().begin_saving();
    let begin = lap();
    let mut longest = 0.0_f64;
    loop {
        let is_whole = engine.episodes().save_some(&mut saving, KEYS);
        longest = longest.max(lap());
        if is_whole {
            break;
        }
    }
    let bytes = saving.sealed().len();
    assert!(bytes > 0, "nothing was written");
    [begin, longest, lap()]
}

/// A stream of numbers that is the same each time.
struct Draw(u64);

impl Draw {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below.max(1)
    }
}

fn dns(id: u16, name: &str, answer: Option<Ipv4Addr>) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend_from_slice(if answer.is_some() { &[0x81, 0x80] } else { &[1, 0] });
    message.extend_from_slice(&[0, 1, 0, u8::from(answer.is_some()), 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("a label"));
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    if let Some(address) = answer {
        message.extend_from_slice(&[0xC0, 12, 0, 1, 0, 1, 0, 0, 1, 0x2C, 0, 4]);
        message.extend_from_slice(&address.octets());
    }
    message
}

/// Every frame of seven days, in order: a beacon that keeps its connection, forty services that are polled, people
/// who browse, and one upload a night.
fn week(mut show: impl FnMut(i64, &[u8])) {
    let mut draw = Draw(0x5EED);
    let mut out = Vec::new();
    let (beacon, me) = ((Ipv4Addr::new(203, 0, 113, 9), 443), (LOCAL, 40_000));
    let (mut seq, mut ack) = (1000_u32, 5000_u32);
    for (from, to, flags, numbers) in [
        (me, beacon, 2, (seq - 1, 0)),
        (beacon, me, 0x12, (ack - 1, seq)),
        (me, beacon, 0x10, (seq, ack)),
    ] {
        tcp(from, to, flags, numbers, &[], &mut out);
        show(START, &out);
    }
    for second in 1..7 * 86_400_i64 {
        let at = START + second * SECOND;
        if second % 30 == 0 {
            let late = draw.next(3 * SECOND as u64) as i64;
            let payload: [u8; 96] = std::array::from_fn(|_| draw.next(256) as u8);
            tcp(me, beacon, 0x18, (seq, ack), &payload, &mut out);
            show(at + late / 10, &out);
            seq = seq.wrapping_add(96);
            tcp(beacon, me, 0x18, (ack, seq), b"ok", &mut out);
            show(at + late / 10 + SECOND / 50, &out);
            ack = ack.wrapping_add(2);
        }
        // Each service has its own clock.
        let service = second % 300;
        if service < 40 {
            let to = Ipv4Addr::new(198, 51, 100, service as u8 + 1);
            udp((LOCAL, 5000), (to, 123), &[0x23; 48], &mut out);
            show(at + SECOND / 4, &out);
            udp((to, 123), (LOCAL, 5000), &[0x24; 48], &mut out);
            show(at + SECOND / 3, &out);
        }
        let hour = second / 3600 % 24;
        if (8..20).contains(&hour) && draw.next(20) == 0 {
            let site = draw.next(3000) * draw.next(3000) / 3000;
            let name = format!("www.site{site}.com");
            let address = Ipv4Addr::from_bits(0x5000_0000 + site as u32 * 300);
            let id = draw.next(65_536) as u16;
            let ask = (LOCAL, 20_000 + draw.next(20_000) as u16);
            udp(ask, (RESOLVER, 53), &dns(id, &name, None), &mut out);
            show(at + SECOND / 2, &out);
            udp((RESOLVER, 53), ask, &dns(id, &name, Some(address)), &mut out);
            show(at + SECOND / 2 + 1000, &out);
            let (from, to) = ((LOCAL, 41_000 + draw.next(20_000) as u16), (address, 443));
            for n in 0..6 {
                udp(from, to, &[b'q'; 300], &mut out);
                show(at + SECOND / 2 + 2000 + n * 1000, &out);
                udp(to, from, &[b'a'; 1200], &mut out);
                show(at + SECOND / 2 + 2500 + n * 1000, &out);
            }
        }
        if hour == 3 && second % 3600 < 60 {
            for n in 0..200 {
                let to = (Ipv4Addr::new(192, 0, 2, 10), 22);
                udp((LOCAL, 6000), to, &[b'b'; 1400], &mut out);
                show(at + n * SECOND / 400, &out);
            }
        }
    }
}

/// Seven days through an engine; half-way through, what it knows of episodes is saved and restored if asked for.
fn replay(seed: u64, restarts: bool) -> (u64, Told, f64, usize) {
    let mut engine = engine(true, Limits::default(), seed);
    let (mut told, mut frames, mut saved_bytes) = (Told::default(), 0_u64, 0);
    let half = START + 84 * 3600 * SECOND;
    let mut is_due = restarts;
    let began = Instant::now();
    week(|at, bytes| {
        if is_due && at >= half {
            is_due = false;
            let saved = engine.episodes().save();
            saved_bytes = saved.len();
            engine.episodes_mut().restore(&saved).expect("what was saved can be restored");
        }
        frames += 1;
        present(&mut engine, at, bytes, &mut told);
    });
    let seconds = began.elapsed().as_secs_f64();
    told.digest.update(engine.episodes().save());
    (frames, told, seconds, saved_bytes)
}

fn seven_days() -> Value {
    let (frames, first, seconds, _) = replay(1, false);
    let (_, again, _, _) = replay(1, false);
    let (_, other, _, _) = replay(99, false);
    let (_, restarted, _, saved) = replay(1, true);
    json!({
        "frames": frames,
        "seconds": seconds,
        "records": first.records,
        "findings": first.findings,
        "again_the_same": first.digest() == again.digest(),
        "other_seed_the_same": first.digest() == other.digest(),
        "restarted_the_same": first.digest() == restarted.digest(),
        "saved_bytes": saved,
    })
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u32>().expect(USAGE);
    let measured = match words.as_slice() {
        ["pairs", capture] => pairs(capture, 5),
        ["pairs", capture, "--runs", runs] => pairs(capture, number(runs) as usize),
        ["flood", keys] => flood(number(keys), true),
        ["flood", keys, "--without"] => flood(number(keys), false),
        ["week"] => seven_days(),
        _ => panic!("{USAGE}"),
    };
    println!("{measured}");
}
