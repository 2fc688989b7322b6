//! Nanoseconds a packet of each stage of the engine, over frames that lie in memory.
//!
//! `engine-cost CAPTURE [LIST…]`: reads the capture once, then times decoding alone, decoding and flows, and the whole
//! engine with the shipped packs and the lists. Each stage includes the ones before it; the best of three runs is shown.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement fails loudly and prints for people"
)]

use rustix::time::{ClockId, clock_gettime};
use sekisho_engine::flow::{Appetite, Perimeter, Tracker};
use sekisho_engine::packs::shipped_packs;
use sekisho_engine::rules::RulesBuilder;
use sekisho_engine::wire::{Frame, LinkType, parse};
use sekisho_engine::{Engine, EngineConfig, Input, Limits};
use sekisho_schema::pack::RulePack;
use sekisho_schema::policy::default_inside;
use sekisho_schema::sealed::Local;
use sekisho_schema::{Timestamp, Verified};
use std::hint::black_box;
use std::path::Path;

struct Loaded {
    link: LinkType,
    bytes: Vec<u8>,
    frames: Vec<(i64, u32, usize, usize)>,
}

impl Loaded {
    fn read(path: &Path) -> Self {
        let mut capture = pcap::Capture::from_file(path).expect("the capture can be opened");
        let link = LinkType::from_dlt(capture.get_datalink().0);
        let (mut bytes, mut frames) = (Vec::new(), Vec::new());
        while let Ok(packet) = capture.next_packet() {
            let at = packet.header.ts.tv_sec * 1_000_000_000 + packet.header.ts.tv_usec * 1000;
            frames.push((at, packet.header.len, bytes.len(), packet.data.len()));
            bytes.extend_from_slice(packet.data);
        }
        Self { link, bytes, frames }
    }

    fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        self.frames.iter().map(|(at, wire_len, from, len)| Frame {
            at_ns: *at,
            link: self.link,
            wire_len: *wire_len,
            bytes: self.bytes.get(*from..from + len).unwrap_or_default(),
        })
    }
}

/// CPU time of this thread, in nanoseconds.
fn cpu() -> i64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

fn best(loaded: &Loaded, mut stage: impl FnMut(&Loaded) -> u64) -> f64 {
    let mut least = i64::MAX;
    for _ in 0..3 {
        let began = cpu();
        black_box(stage(loaded));
        least = least.min(cpu() - began);
    }
    least as f64 / loaded.frames.len().max(1) as f64
}

fn engine_with(lists: &[String]) -> Engine {
    let mut rules = RulesBuilder::new();
    for (name, text) in shipped_packs() {
        let pack = RulePack::parse(text).expect(name);
        rules.add_pack(&Verified::locally(pack, Local::BuiltIn)).expect(name);
    }
    for list in lists {
        let text = std::fs::read_to_string(list).expect("the list can be read");
        rules.add_list(list, &text).expect("the list is well formed");
    }
    let mut engine = Engine::new(EngineConfig {
        host: "bench".to_owned(),
        limits: Limits::default(),
        hash_seed: 1,
    });
    engine.handle(Input::Rules(Box::new(rules.build()), Timestamp::EPOCH));
    engine
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (capture, lists) = arguments.split_first().expect("usage: engine-cost CAPTURE [LIST…]");
    let loaded = Loaded::read(Path::new(capture));
    let decode = best(&loaded, |loaded| {
        loaded.frames().filter(|frame| black_box(parse(frame)).is_ok()).count() as u64
    });
    let flows = best(&loaded, |loaded| {
        let mut tracker = Tracker::new(&Limits::default(), 1);
        tracker.set_perimeter(Perimeter::new(&default_inside(), &[]));
        let mut told = 0;
        for (number, frame) in loaded.frames().enumerate() {
            tracker.observe(number as u64 + 1, &frame, &mut |_| {
                told += 1;
                Appetite::Enough
            });
        }
        told
    });
    // Building the indicator set is start-up, not cost per packet.
    let mut engines: Vec<Engine> = (0..3).map(|_| engine_with(lists)).collect();
    let whole = best(&loaded, |loaded| {
        let mut engine = engines.pop().expect("an engine for each run");
        let mut told = 0;
        for frame in loaded.frames() {
            engine.handle(Input::Frame(frame));
            while engine.poll_output().is_some() {
                told += 1;
            }
        }
        told
    });
    println!("  stages, {} frames in memory, thread CPU, best of 3", loaded.frames.len());
    println!("    decode                           {decode:>7.0} ns a packet");
    println!("    flows and names                  {:>7.0} ns a packet", flows - decode);
    println!("    detect, judge, report            {:>7.0} ns a packet", whole - flows);
    println!("    the whole engine                 {whole:>7.0} ns a packet");
}
