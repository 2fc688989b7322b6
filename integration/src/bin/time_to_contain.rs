//! Time to contain, measured on the live path: kernel time stamp of the deciding frame to the kernel's acknowledgement.
//!
//! `time-to-contain [--runs N | --short] [--idle] [--back-to-back] [--json]`: each run is a PlugX probe to a fresh
//! destination that the agent cuts, with a CPU hog on every core unless told `--idle`; with `--back-to-back` the next
//! begins while the proof of the last is still under way. Beside it, in turns and in the same namespace: what a forked
//! `nft add element` takes for such a cut, and what it takes somebody who decides nothing (a frame wakes a SCHED_FIFO
//! thread, which sends a message that was prepared beforehand). The goals are what they are on every machine. Then the
//! same agent where the system refuses it SCHED_FIFO.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement fails loudly and prints for people"
)]

use sekisho_integration::lab::figures::Times;
use sekisho_integration::topology::MANY_C2;
use sekisho_integration::{AgentSetup, Network, PolicyText, wait_until};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

/// Goal G8, in microseconds: half of the cuts, and all but one in a hundred.
const GOAL_US: [f64; 2] = [300.0, 1_000.0];
/// Between a run and the look for its receipt.
const REST: Duration = Duration::from_millis(20);
/// Few runs beside other load: the short form fails at this multiple.
const SLACK: f64 = 10.0;
/// Starts a program without the right to ask for a real-time class.
const NO_REALTIME: [&str; 3] = ["setpriv", "--bounding-set", "-sys_nice"];

struct Options {
    runs: u32,
    json: bool,
    pause: bool,
    hogs: bool,
    short: bool,
}

fn main() -> ExitCode {
    let mut options = Options { runs: 200, json: false, pause: true, hogs: true, short: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--back-to-back" => options.pause = false,
            "--idle" => options.hogs = false,
            "--json" => options.json = true,
            "--runs" => {
                options.runs = words.next().and_then(|n| n.parse().ok()).expect("--runs N");
            }
            "--short" => (options.runs, options.short) = (40, true),
            other => {
                eprintln!(
                    "error: time-to-contain knows --runs N, --short, --idle, --back-to-back and --json, not {other}\nstate: nothing was measured\nhelp:  time-to-contain --runs 200"
                );
                return ExitCode::from(2);
            }
        }
    }
    let granted = measure(&options, options.runs, &[]);
    let refused = measure(&options, options.runs.min(40), &NO_REALTIME);
    let faults = faults(&options, &granted, &refused);
    if options.json {
        let of = |told: &Told| json!({"runs": told.runs, "missed": told.missed(), "says": told.says, "sekisho": told.contained.facts(), "bare": told.bare.facts(), "forked_nft": told.forked.facts()});
        println!("{}", json!({"granted": of(&granted), "refused": of(&refused), "faults": faults}));
    } else {
        let load = if options.hogs { "a CPU hog on every core" } else { "an idle machine" };
        granted.contained.print(&format!(
            "Sekisho: deciding frame to kernel acknowledgement, {load}; status says {}",
            granted.says
        ));
        println!(
            "  half of ours took {:.1} times half of the bare cuts, 1/{:.0} of half of the forked `nft`\n",
            granted.contained.micros(0.5) / granted.bare.micros(0.5),
            granted.forked.micros(0.5) / granted.contained.micros(0.5),
        );
        granted.bare.print(
            "a bare cut: no decision, a message prepared beforehand; in turns with the above",
        );
        granted
            .forked
            .print("forked `nft add element`, the same cut, the same namespace, the same load");
        refused.contained.print(&format!(
            "Sekisho where the system refuses SCHED_FIFO; status says {}",
            refused.says
        ));
    }
    for fault in &faults {
        eprintln!("error: {fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What one agent did.
struct Told {
    runs: u32,
    contained: Times,
    bare: Times,
    forked: Times,
    /// What `status` says of how its detecting thread and its guardian are scheduled.
    says: Value,
}

impl Told {
    fn missed(&self) -> usize {
        self.runs as usize - self.contained.len()
    }
}

fn faults(options: &Options, granted: &Told, refused: &Told) -> Vec<String> {
    let mut faults = Vec::new();
    for (who, told) in [("with SCHED_FIFO", granted), ("without", refused)] {
        if told.missed() > 0 {
            faults.push(format!(
                "{who}: {} of {} runs without a receipt",
                told.missed(),
                told.runs
            ));
        }
    }
    for thread in ["detect", "guardian"] {
        let (yes, no) = (&granted.says[thread], &refused.says[thread]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if text(yes) != "SCHED_FIFO 1" {
            faults.push(format!("{thread}: root was refused SCHED_FIFO: {yes}"));
        }
        if !text(no).contains("refused") {
            faults.push(format!("{thread}: status does not say that SCHED_FIFO was refused: {no}"));
        }
    }
    if !options.pause {
        return faults;
    }
    let slack = if options.short { SLACK } else { 1.0 };
    for (share, goal) in [0.5, 0.99].into_iter().zip(GOAL_US) {
        let is = granted.contained.micros(share);
        if is > goal * slack {
            faults.push(format!(
                "{:.0} % of the cuts took up to {is:.0} µs, at most {:.0} (goal {goal:.0})",
                share * 100.0,
                goal * slack
            ));
        }
    }
    faults
}

/// Nanoseconds of each run: by the agent, and by a forked `nft`.
fn measure(options: &Options, runs: u32, wrapper: &[&str]) -> Told {
    let network = Network::build();
    let mut setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    setup.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
    setup.seal(&PolicyText { level: 3, ..PolicyText::new(1, "enforce") });
    let agent = setup.start();
    let _c2 = network.c2.actor(&["plugx-c2", "--settings", "443=T1"]);
    let mut implant = network.web.actor(&["knock", "--setting", "T1"]);
    let mut nft = network.web.actor(&["nft-loop"]);
    let bare_to = format!("{MANY_C2}.9.9");
    let mut bare_cut = network.web.actor(&["bare-cut", "--dev", "eth0", "--to", &bare_to]);
    let _hogs = options.hogs.then(|| network.db.actor(&["hog"]));
    let told = |address: &str| {
        let scope = format!("dest:{address}");
        wait_until(Duration::from_secs(5), || {
            let mut receipts = agent.receipts().into_iter();
            receipts.rfind(|receipt| {
                receipt.scope.to_string() == scope && receipt.applied && receipt.proof.cut.is_some()
            })
        })
    };
    let (mut receipts, mut addresses) = (Vec::new(), Vec::new());
    let (mut forked, mut bare) = (Vec::new(), Vec::new());
    for nth in 0..runs {
        let address = format!("{MANY_C2}.{}.{}", 10 + nth / 200, 1 + nth % 200);
        implant.ask(&format!("go {address}:443"));
        if options.pause {
            // Reading the journal takes a core and its caches: not while the cut is being made.
            std::thread::sleep(REST);
            // The runs are independent: each is over, its proof included, before the next begins.
            receipts.extend(told(&address));
            if nth % 10 == 9 {
                setup.release_all(&agent);
            }
        }
        addresses.push(address);
        // Interleaved, so that both meet the same load.
        if nth % 10 == 9 && wrapper.is_empty() {
            for (who, ask, times) in
                [(&mut forked, &mut nft, "go 5"), (&mut bare, &mut bare_cut, "go 10")]
            {
                let took = ask.ask(times);
                who.extend(
                    took["took_ns"].as_array().into_iter().flatten().filter_map(Value::as_u64),
                );
            }
        }
    }
    if !options.pause {
        receipts.extend(addresses.iter().filter_map(|address| told(address)));
    }
    let status = agent.status();
    let nanos = |receipt: &sekisho_schema::Receipt| u64::try_from(receipt.time_to_contain_ns?).ok();
    Told {
        runs,
        contained: Times::of(receipts.iter().filter_map(nanos).collect()),
        bare: Times::of(bare),
        forked: Times::of(forked),
        says: json!({"detect": status["capture"]["realtime"], "guardian": status["guardian"]["scheduling"]}),
    }
}
