//! Nanoseconds a packet of each stage of the engine, over frames that lie in memory.
//!
//! `engine-cost CAPTURE [LIST…] [--flows MOST] [--runs N] [--tell-all] [--json]`: reads the capture once, then times decoding alone,
//! decoding and flows, and the whole engine with the shipped packs and the lists, frame by frame and looking ahead. Each
//! stage includes the ones before it; the best run is shown. With `--json` also what was found, and the memory it took.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement fails loudly and prints for people"
)]

use sekisho_engine::flow::{AHEAD, Appetite, Perimeter, Tracker};
use sekisho_engine::packs::shipped_packs;
use sekisho_engine::rules::RulesBuilder;
use sekisho_engine::wire::parse;
use sekisho_engine::{Engine, EngineConfig, Input, Limits, Output};
use sekisho_integration::measure::{Loaded, cpu, resident};
use sekisho_schema::pack::RulePack;
use sekisho_schema::policy::default_inside;
use sekisho_schema::sealed::Local;
use sekisho_schema::{Body, Span, Timestamp, Verified};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::path::Path;

/// Thread CPU of one run, in nanoseconds a frame.
fn once(loaded: &Loaded, stage: impl FnOnce(&Loaded)) -> f64 {
    let began = cpu();
    stage(loaded);
    (cpu() - began) as f64 / loaded.count().max(1) as f64
}

/// Bytes that an indicator takes on average.
fn indicator_bytes(engine: &Engine) -> f64 {
    let set = &engine.rules().indicators;
    set.bytes() as f64 / set.counts().total().max(1) as f64
}

/// What a run of the whole engine told.
#[derive(Default)]
struct Told {
    /// Flows (by their inside end) with the indicator that was seen in them, by where it was seen.
    seen: BTreeMap<String, BTreeSet<(String, String)>>,
    detectors: BTreeMap<String, u64>,
    most_live: u64,
}

impl Told {
    fn take(&mut self, output: Output) {
        let Output::Record(record) = output else { return };
        let Body::Finding(finding) = record.body else { return };
        if finding.detector.starts_with("indicator.") {
            let value = finding.indicator.map(|known| known.value).unwrap_or_default();
            let local = finding.flow.map(|flow| flow.local.to_string()).unwrap_or_default();
            let place = finding.evidence.first().and_then(|piece| piece.facts.get("seen_in"));
            let place = place.and_then(Value::as_str).unwrap_or("address").to_owned();
            self.seen.entry(place).or_default().insert((local, value));
        }
        *self.detectors.entry(finding.detector).or_default() += 1;
    }
}

/// Shows all frames to an engine, with or without a look ahead.
fn whole(loaded: &Loaded, engine: &mut Engine, ahead: bool) -> Told {
    let mut told = Told::default();
    let mut frames = loaded.frames();
    let mut batch = Vec::with_capacity(AHEAD);
    loop {
        batch.clear();
        batch.extend(frames.by_ref().take(AHEAD));
        if batch.is_empty() {
            return told;
        }
        if ahead {
            engine.foresee(&batch);
        }
        for frame in &batch {
            engine.handle(Input::Frame(*frame));
            while let Some(output) = engine.poll_output() {
                told.take(output);
            }
        }
        told.most_live = told.most_live.max(engine.totals().live);
    }
}

/// Places of the flow table that the agent looks at for a preview before frames have their turn again.
const PLACES: usize = 512;

/// Showing the flows under way for a preview: their number, CPU of it all at once and of the longest step, in microseconds.
fn showing(engine: &Engine) -> (usize, f64, f64) {
    let micros = |began: i64| (cpu() - began) as f64 / 1e3;
    let began = cpu();
    let count = black_box(engine.live_flows(0, usize::MAX)).0.len();
    let at_once = micros(began);
    let (mut from, mut longest) = (Some(0), 0.0_f64);
    while let Some(place) = from {
        let began = cpu();
        from = black_box(engine.live_flows(place, PLACES)).1;
        longest = longest.max(micros(began));
    }
    (count, at_once, longest)
}

fn engine_with(lists: &[String], limits: Limits) -> Engine {
    let mut rules = RulesBuilder::new();
    for (name, text) in shipped_packs() {
        let pack = RulePack::parse(text).expect(name);
        rules.add_pack(&Verified::locally(pack, Local::BuiltIn)).expect(name);
    }
    for list in lists {
        let text = std::fs::read_to_string(list).expect("the list can be read");
        rules.add_list(list, &text).expect("the list is well formed");
    }
    let mut engine = Engine::new(EngineConfig { host: "bench".to_owned(), limits, hash_seed: 1 });
    engine.handle(Input::Rules(Box::new(rules.build()), Timestamp::EPOCH));
    engine
}

struct Options {
    capture: String,
    lists: Vec<String>,
    limits: Limits,
    runs: usize,
    json: bool,
}

impl Options {
    fn read() -> Self {
        let usage =
            "usage: engine-cost CAPTURE [LIST…] [--flows MOST] [--runs N] [--tell-all] [--json]";
        let (mut words, mut rest) = (std::env::args().skip(1), Vec::new());
        let mut options = Self {
            capture: String::new(),
            lists: Vec::new(),
            limits: Limits::default(),
            runs: 3,
            json: false,
        };
        while let Some(word) = words.next() {
            let mut number = || words.next().and_then(|word| word.parse().ok()).expect(usage);
            match word.as_str() {
                "--flows" => options.limits.flows = number(),
                "--json" => options.json = true,
                "--runs" => options.runs = number(),
                // Every flow is told, also when the same was told of the same host and remote before.
                "--tell-all" => options.limits.repeat_after = Span::ZERO,
                _ => rest.push(word),
            }
        }
        let mut rest = rest.into_iter();
        options.capture = rest.next().expect(usage);
        options.lists = rest.collect();
        options
    }
}

fn main() {
    let options = Options::read();
    let loaded = Loaded::read(Path::new(&options.capture));
    let mut least = [f64::MAX; 4];
    let mut outcome = Value::Null;
    let mut shown = (0, 0.0, 0.0);
    for _ in 0..options.runs {
        let decode = once(&loaded, |loaded| {
            black_box(loaded.frames().filter(|frame| black_box(parse(frame)).is_ok()).count());
        });
        let flows = once(&loaded, |loaded| {
            let mut tracker = Tracker::new(&options.limits, 1);
            tracker.set_perimeter(Perimeter::new(&default_inside(), &[]));
            for (number, frame) in loaded.frames().enumerate() {
                tracker.observe(number as u64 + 1, &frame, &mut |_| Appetite::Enough);
            }
        });
        // Building the indicator set is start-up, not cost per packet.
        let mut engine = engine_with(&options.lists, options.limits.clone());
        let blind = once(&loaded, |loaded| drop(whole(loaded, &mut engine, false)));
        drop(engine);
        let mut engine = engine_with(&options.lists, options.limits.clone());
        let before = resident();
        let mut told = Told::default();
        let ahead = once(&loaded, |loaded| told = whole(loaded, &mut engine, true));
        let grown = resident() - before;
        for (least, now) in least.iter_mut().zip([decode, flows, blind, ahead]) {
            *least = least.min(now);
        }
        shown = showing(&engine);
        let summary = engine.summary();
        outcome = json!({
            "frames": loaded.count(),
            "flows": engine.totals().flows,
            "most_live": told.most_live,
            "grown": grown,
            "seen": told.seen.iter().map(|(place, flows)| (place.clone(), flows.len().into())).collect::<serde_json::Map<_, Value>>(),
            "detectors": told.detectors,
            "evicted": summary.evicted,
            "indicator_bytes": indicator_bytes(&engine),
        });
    }
    let [decode, flows, blind, ahead] = least;
    if options.json {
        outcome["ns"] = json!({"decode": decode, "flows": flows, "blind": blind, "whole": ahead});
        println!("{outcome}");
        return;
    }
    println!("  stages, {} frames in memory, thread CPU, best of {}", loaded.count(), options.runs);
    println!("    decode                           {decode:>7.0} ns a packet");
    println!("    flows and names                  {:>7.0} ns a packet", flows - decode);
    println!("    detect, judge, report            {:>7.0} ns a packet", blind - flows);
    println!("    the whole engine                 {blind:>7.0} ns a packet");
    println!("    the same, looking ahead          {ahead:>7.0} ns a packet");
    let (count, at_once, longest) = shown;
    println!(
        "    {count} flows shown for a preview: {at_once:.0} µs at once, {longest:.0} µs the longest step"
    );
}
