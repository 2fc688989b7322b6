//! Bytes that leave after the match: at a steady rate, to a known address, and with an allowance while nobody runs.
//!
//! `leak [--runs N | --short] [--json]`: each run is a connection to a fresh destination whose first bytes are a PlugX
//! header and whose next are as many as the line takes; counted is what the program at the other end reads after the header.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement fails loudly and prints for people"
)]

use sekisho_integration::lab::figures::percentile;
use sekisho_integration::topology::MANY_C2;
use sekisho_integration::{Actor, Agent, AgentSetup, Network, PolicyText, wait_for, wait_until};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

/// Rates in Mbit/s, with the most bytes that half of the runs, and all but one in a hundred, may leak (goal G8).
const RATES: [(u64, u64, Option<u64>); 2] = [(100, 4_000, None), (1_000, 16_000, Some(64_000))];
/// Few runs beside other load: the short form fails at this multiple.
const SLACK: u64 = 10;
/// A PlugX header: what decides.
const HEADER: u64 = 16;
/// The allowance that is measured, and the line that it is measured on, in Mbit/s.
const ALLOWANCE: u64 = 20_000_000;
const LINE: u64 = 200;
/// Bytes that are offered on it: a busy machine takes longer than the line does.
const OFFERED: u64 = 75_000_000;
/// An address that the kernel is told before anything is sent there.
const KNOWN: &str = "198.18.254.254";

/// What one rate leaked.
struct Leak {
    mbit: u64,
    /// What the sender reached without a cut, in Mbit/s.
    reached: f64,
    /// Bytes read at the other end after the header, sorted.
    bytes: Vec<u64>,
    /// The same as receipts tell, sorted.
    told: Vec<u64>,
}

fn main() -> ExitCode {
    let (mut runs, mut as_json, mut short) = (100_u32, false, false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => as_json = true,
            "--runs" => runs = words.next().and_then(|n| n.parse().ok()).expect("--runs N"),
            "--short" => (runs, short) = (20, true),
            other => {
                eprintln!(
                    "error: leak knows --runs N, --short and --json, not {other}\nstate: nothing was measured\nhelp:  leak --runs 100"
                );
                return ExitCode::from(2);
            }
        }
    }
    let network = Network::build();
    let mut sink = network.c2.actor(&["sink", "--port", "443"]);
    let list = network.lab.dir().join("known.txt");
    std::fs::write(&list, format!("{KNOWN}\n")).expect("a list");
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent")
        .with(format!("[indicators]\nlists = [{list:?}]\n"));
    let decide = "[[decide]]\ndetector = \"indicator.*\"\ngrade = \"malicious\"\nlevel = 3\nlease = \"1h\"\n";
    let policy = PolicyText { level: 3, more: decide.to_owned(), ..PolicyText::new(1, "enforce") };
    setup.seal(&policy);
    let agent = setup.start();
    wait_for("the known address to be held", Duration::from_secs(30), || {
        (agent.status()["known"]["held"] == 1).then_some(())
    });
    let leaks: Vec<Leak> = (0_u8..)
        .zip(RATES)
        .map(|(nth, (mbit, ..))| rate(&network, &setup, &agent, &mut sink, (mbit, runs, nth)))
        .collect();
    let known = known(&network, &mut sink, runs.min(20));
    drop(agent.stop());
    let allowed = allowance(&network, &mut sink, &setup, &policy);
    let faults = faults(&leaks, known, &allowed, if short { SLACK } else { 1 });
    if as_json {
        let rates: Vec<Value> = leaks.iter().map(|leak| json!({"mbit": leak.mbit, "reached_mbit": leak.reached, "bytes": leak.bytes, "told_by_receipts": leak.told})).collect();
        println!(
            "{}",
            json!({"rates": rates, "known_bytes": known, "allowance": allowed, "faults": faults})
        );
    } else {
        print(&leaks, known, &allowed);
    }
    for fault in &faults {
        eprintln!("error: {fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read(sink: &mut Actor) -> u64 {
    sink.ask("bytes")["bytes"].as_u64().expect("a sink counts")
}

/// What was read once nothing comes any more.
fn read_to_rest(sink: &mut Actor) -> u64 {
    let mut last = read(sink);
    wait_until(Duration::from_secs(5), || {
        std::thread::sleep(Duration::from_millis(60));
        let now = read(sink);
        let rests = now == last;
        last = now;
        rests.then_some(())
    });
    last
}

fn rate(
    network: &Network,
    setup: &AgentSetup,
    agent: &Agent,
    sink: &mut Actor,
    (mbit, runs, nth): (u64, u32, u8),
) -> Leak {
    let mut pour = network.web.actor(&["pour", "--mbit", &mbit.to_string()]);
    let free = pour.ask(&format!("{MANY_C2}.{nth}.1:443 300 plain"));
    let reached =
        free["sent"].as_f64().unwrap_or(0.0) * 8e3 / free["took_ns"].as_f64().unwrap_or(1.0);
    let mut before = read_to_rest(sink);
    let (mut bytes, mut addresses) = (Vec::new(), Vec::new());
    for run in 0..runs {
        let address =
            format!("{MANY_C2}.{}.{}", 10 + u32::from(nth) * 20 + run / 200, 1 + run % 200);
        pour.ask(&format!("{address}:443 60 plugx"));
        let after = read_to_rest(sink);
        bytes.push((after - before).saturating_sub(HEADER));
        before = after;
        addresses.push(address);
        if run % 10 == 9 {
            setup.release_all(agent);
        }
    }
    let mut latest = BTreeMap::new();
    wait_until(Duration::from_secs(5), || {
        latest = agent
            .receipts()
            .into_iter()
            .filter(|receipt| receipt.applied)
            .map(|receipt| (receipt.scope.to_string(), receipt.leaked_bytes))
            .collect();
        addresses
            .iter()
            .all(|address| latest.contains_key(&format!("dest:{address}")))
            .then_some(())
    });
    let mut told: Vec<u64> = addresses
        .iter()
        .filter_map(|address| latest.get(&format!("dest:{address}")).copied())
        .collect();
    bytes.sort_unstable();
    told.sort_unstable();
    Leak { mbit, reached, bytes, told }
}

/// Bytes that reached a known address, all runs together.
fn known(network: &Network, sink: &mut Actor, runs: u32) -> u64 {
    let before = read_to_rest(sink);
    // The sender waits two seconds for each connection that never comes about: all of them at once.
    let mut pours: Vec<Actor> =
        (0..runs.min(8)).map(|_| network.web.actor(&["pour", "--mbit", "1000"])).collect();
    std::thread::scope(|scope| {
        for pour in &mut pours {
            scope.spawn(|| pour.ask(&format!("{KNOWN}:443 50 plain")));
        }
    });
    read_to_rest(sink) - before
}

/// What leaves with an allowance in the kernel while agent and guardian stand still.
fn allowance(
    network: &Network,
    sink: &mut Actor,
    setup: &AgentSetup,
    policy: &PolicyText,
) -> Value {
    let mut pour =
        network.web.actor(&["pour", "--mbit", &LINE.to_string(), "--bytes", &OFFERED.to_string()]);
    let more = format!(
        "{}[allowance]\nin-kernel = true\nper-destination-bytes = {ALLOWANCE}\n",
        policy.more
    );
    setup.seal(&PolicyText { version: 2, more, ..policy.clone() });
    let agent = setup.start();
    let frozen = agent.freeze();
    let before = read_to_rest(sink);
    let offered = pour.ask(&format!("{MANY_C2}.200.1:443 25000 plain"));
    let lost = read_to_rest(sink) - before;
    agent.wake(&frozen);
    json!({
        "lost": lost, "allowance": ALLOWANCE, "line_mbit": LINE, "at_most": ALLOWANCE + LINE * 125_000,
        "offered": OFFERED, "stopped": frozen.len(), "sender": offered,
    })
}

fn faults(leaks: &[Leak], known: u64, allowed: &Value, slack: u64) -> Vec<String> {
    let mut faults = Vec::new();
    for (leak, (_, half, most)) in leaks.iter().zip(RATES) {
        let goals = [(0.5, Some(half)), (0.99, most)];
        for (share, goal) in goals.into_iter().filter_map(|(share, goal)| Some((share, goal?))) {
            let is = percentile(&leak.bytes, share);
            if is > goal * slack {
                faults.push(format!(
                    "{} Mbit/s: {:.0} % of the runs leaked up to {is} bytes, at most {} (goal {goal})",
                    leak.mbit,
                    share * 100.0,
                    goal * slack
                ));
            }
        }
    }
    if known > 0 {
        faults.push(format!("{known} bytes reached a known address"));
    }
    let number = |key: &str| allowed[key].as_u64().unwrap_or(0);
    if number("lost") > number("at_most") {
        faults.push(format!("{} bytes left beyond the allowance: {allowed}", number("lost")));
    }
    // A bound that lets nothing out bounds nothing that was measured.
    if number("lost") < ALLOWANCE * 8 / 10 {
        faults.push(format!("the allowance was not reached, so nothing is shown: {allowed}"));
    }
    if number("stopped") < 2 {
        faults.push("agent and guardian were to stand still, and did not".to_owned());
    }
    faults
}

fn print(leaks: &[Leak], known: u64, allowed: &Value) {
    println!("bytes read at the other end after the header that decides");
    for leak in leaks {
        let of = |list: &[u64], share| percentile(list, share);
        println!(
            "  {:>4} Mbit/s (reached uncut: {:.0})  p50 {:>6} · p90 {:>6} · p99 {:>7} · worst {:>7}  ({} runs; receipts tell p50 {}, worst {})",
            leak.mbit,
            leak.reached,
            of(&leak.bytes, 0.5),
            of(&leak.bytes, 0.9),
            of(&leak.bytes, 0.99),
            of(&leak.bytes, 1.0),
            leak.bytes.len(),
            of(&leak.told, 0.5),
            of(&leak.told, 1.0)
        );
    }
    println!("  known address (TCP): {known}");
    println!(
        "  allowance of {ALLOWANCE} in the kernel, agent and guardian stopped, {OFFERED} offered at {LINE} Mbit/s: {} left (at most {})",
        allowed["lost"], allowed["at_most"]
    );
}
