//! Time to contain, measured on the live path: kernel time stamp of the deciding frame to the kernel's acknowledgement.
//!
//! `time-to-contain [--runs N | --short] [--back-to-back] [--json]`: each run is a PlugX probe to a fresh destination
//! that the agent cuts; with `--back-to-back` the next begins while the proof of the last is still under way. Beside it,
//! in the same namespace, what a forked `nft add element` takes for such a cut.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement fails loudly and prints for people"
)]

use sekisho_integration::topology::MANY_C2;
use sekisho_integration::{AgentSetup, Network, PolicyText, wait_until};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

/// Upper bounds of the histogram's bars, in microseconds.
const BARS: [u64; 12] =
    [100, 200, 300, 500, 750, 1_000, 2_000, 5_000, 10_000, 50_000, 200_000, u64::MAX];

fn main() -> ExitCode {
    let (mut runs, mut as_json, mut pause) = (200_u32, false, true);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--back-to-back" => pause = false,
            "--json" => as_json = true,
            "--runs" => runs = words.next().and_then(|n| n.parse().ok()).expect("--runs N"),
            "--short" => runs = 20,
            other => {
                eprintln!(
                    "error: time-to-contain knows --runs N, --short, --back-to-back and --json, not {other}\nstate: nothing was measured\nhelp:  time-to-contain --runs 200"
                );
                return ExitCode::from(2);
            }
        }
    }
    let (contained, forked) = measure(runs, pause);
    let missed = runs as usize - contained.len();
    if as_json {
        println!(
            "{}",
            json!({"runs": runs, "missed": missed, "sekisho": facts(&contained), "forked_nft": facts(&forked)})
        );
    } else {
        print_histogram("Sekisho: deciding frame to kernel acknowledgement", &contained);
        print_histogram("forked `nft add element`, the same cut, the same namespace", &forked);
        println!("{missed} of {runs} runs without a receipt");
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Nanoseconds of each run, sorted: by the agent, and by a forked `nft`.
fn measure(runs: u32, pause: bool) -> (Vec<u64>, Vec<u64>) {
    let network = Network::build();
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    setup.seal(&PolicyText { level: 3, ..PolicyText::new(1, "enforce") });
    let agent = setup.start();
    let _c2 = network.c2.actor(&["plugx-c2", "--settings", "443=T1"]);
    let mut implant = network.web.actor(&["knock", "--setting", "T1"]);
    let mut nft = network.web.actor(&["nft-loop"]);
    let told = |address: &str| {
        let scope = format!("dest:{address}");
        wait_until(Duration::from_secs(5), || {
            let mut receipts = agent.receipts().into_iter();
            receipts.rfind(|receipt| {
                receipt.scope.to_string() == scope && receipt.applied && receipt.proof.cut.is_some()
            })
        })
    };
    let (mut receipts, mut addresses, mut forked) = (Vec::new(), Vec::new(), Vec::new());
    for nth in 0..runs {
        let address = format!("{MANY_C2}.{}.{}", 10 + nth / 200, 1 + nth % 200);
        implant.ask(&format!("go {address}:443"));
        if pause {
            // The runs are independent: each is over, its proof included, before the next begins.
            receipts.extend(told(&address));
        }
        addresses.push(address);
        // Interleaved, so that both meet the same load.
        if nth % 10 == 9 {
            let took = nft.ask("go 10");
            forked
                .extend(took["took_ns"].as_array().into_iter().flatten().filter_map(Value::as_u64));
        }
    }
    if !pause {
        receipts.extend(addresses.iter().filter_map(|address| told(address)));
    }
    let mut contained: Vec<u64> = receipts
        .iter()
        .filter_map(|receipt| u64::try_from(receipt.time_to_contain_ns?).ok())
        .collect();
    contained.sort_unstable();
    forked.sort_unstable();
    (contained, forked)
}

/// The value below which a share of the sorted times lies; nearest rank.
fn percentile(times: &[u64], share: f64) -> u64 {
    let rank = (share * times.len() as f64).ceil() as usize;
    times.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

fn facts(times: &[u64]) -> Value {
    let ms = |ns: u64| ns as f64 / 1e6;
    json!({
        "count": times.len(), "p50_ms": ms(percentile(times, 0.5)), "p90_ms": ms(percentile(times, 0.9)),
        "p99_ms": ms(percentile(times, 0.99)), "max_ms": ms(percentile(times, 1.0)), "samples_ns": times,
    })
}

fn print_histogram(title: &str, times: &[u64]) {
    println!("{title} ({} runs)", times.len());
    let mut from = 0;
    for to in BARS {
        let count = times.iter().filter(|ns| (from..to).contains(&(**ns / 1000))).count();
        let share = if times.is_empty() { 0 } else { (count * 60).div_ceil(times.len()) };
        let label = if to == u64::MAX {
            format!("≥ {:>6.2} ms", from as f64 / 1e3)
        } else {
            format!("< {:>6.2} ms", to as f64 / 1e3)
        };
        if count > 0 || to <= 10_000 {
            println!("  {label} {count:>5} {}", "█".repeat(share));
        }
        from = to;
    }
    let ms = |share| percentile(times, share) as f64 / 1e6;
    println!(
        "  p50 {:.3} ms · p90 {:.3} ms · p99 {:.3} ms · max {:.3} ms\n",
        ms(0.5),
        ms(0.9),
        ms(0.99),
        ms(1.0)
    );
}
