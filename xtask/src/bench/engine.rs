//! Cost per packet beside the bare libpcap loop with a flow table, on the reference workloads; what
//! was planted against what was found; memory of a flow.

use super::{Yard, cpu_seconds, engine_cost, median, number};
use crate::host::{self, Failure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Most resident bytes that a tracked flow may take, its share of every table included.
const FLOW_BYTES: f64 = 256.0;
/// The memory of flows under which most of what was planted must still be found, and how much of it.
const FLOW_CAP: f64 = 128.0 * 1024.0 * 1024.0;
const FOUND_UNDER_CAP: f64 = 0.95;
/// More flows than any workload has.
const NO_CAP: &str = "4000000";
/// How much the packet price may grow from few to many concurrent flows.
const GROWTH: f64 = 1.5;
/// The short form runs where other work shares two cores: its ratios of the same binary were seen
/// to differ by a fifth, so its gates are that much wider.
const SLACK: f64 = 1.2;
/// Pairs of runs for each workload.
const RUNS: usize = 5;

/// A reference workload.
struct Workload {
    name: &'static str,
    /// What the generator is told for the whole and for the short form.
    words: [&'static [&'static str]; 2],
    /// Most that replay may cost, as a multiple of the bare loop, where there is such a goal.
    gate: Option<f64>,
}

const MANY: usize = 2;
const FEWEST: usize = 3;
const WORKLOADS: [Workload; 6] = [
    Workload {
        name: "mix",
        words: [
            &["mix", "--packets", "4000000", "--flows", "50000"],
            &["mix", "--packets", "400000", "--flows", "5000"],
        ],
        gate: Some(3.0),
    },
    Workload {
        name: "small",
        words: [
            &["small", "--packets", "8000000", "--flows", "20000", "--pps", "1000000"],
            &["small", "--packets", "1000000", "--flows", "20000", "--pps", "1000000"],
        ],
        gate: Some(2.5),
    },
    Workload {
        name: "manyflows",
        words: [&["manyflows", "--flows", "1200000"], &["manyflows", "--flows", "100000"]],
        gate: Some(4.0),
    },
    Workload {
        name: "mix-c1000",
        words: [
            &["mix", "--packets", "2000000", "--flows", "1000"],
            &["mix", "--packets", "400000", "--flows", "1000"],
        ],
        gate: None,
    },
    Workload {
        name: "mix-c10000",
        words: [
            &["mix", "--packets", "2000000", "--flows", "10000"],
            &["mix", "--packets", "400000", "--flows", "4000"],
        ],
        gate: None,
    },
    Workload {
        name: "mix-c200000",
        words: [
            &["mix", "--packets", "2000000", "--flows", "200000"],
            &["mix", "--packets", "400000", "--flows", "16000"],
        ],
        gate: None,
    },
];

/// The tools of a bench.
struct Bench {
    yard: Yard,
    sekisho: PathBuf,
    lists: [PathBuf; 2],
    empty: PathBuf,
    short: bool,
}

/// What a workload cost, in nanoseconds a packet.
struct Price {
    floor: f64,
    cost: f64,
    /// Of each pair of runs.
    ratios: Vec<f64>,
}

/// Cost per packet in replay on every workload; fails when a gate is passed or a planted flow missed.
pub(crate) fn engine(folder: &str, arguments: &[&str]) -> Result<(), Failure> {
    host::install_packages()?;
    host::build_binaries("release")?;
    let yard = Yard::build(folder)?;
    let bench = Bench {
        sekisho: host::target().join("release/sekisho"),
        lists: yard.lists("1m"),
        empty: yard.empty()?,
        short: arguments.contains(&"--short"),
        yard,
    };
    println!(
        "1,000,000 addresses and 1,000,000 names; CPU net of start-up, median of {RUNS} pairs"
    );
    println!(
        "{:<13}{:>10}{:>12}{:>12}{:>8}{:>8}  gate",
        "workload", "packets", "loop ns", "replay ns", "ratio", "at most"
    );
    let mut faults = Vec::new();
    let (mut fewest, mut last) = (f64::NAN, f64::NAN);
    for (number, workload) in WORKLOADS.iter().enumerate() {
        let (file, made) = bench.file(workload)?;
        let price = bench.price(&file)?;
        let truth = truth_of(&file)?;
        bench.show(workload, &price, &truth, &mut faults)?;
        faults.extend(check_planted(&found(&bench.sekisho, &bench.lists, &file)?, &truth).err());
        if number == MANY {
            faults.extend(bench.memory(&file, &truth)?);
        }
        if number == FEWEST {
            fewest = price.cost;
        }
        last = price.cost;
        if made && !bench.short {
            let _gone = std::fs::remove_file(&file);
        }
    }
    let growth = last / fewest;
    let most = bench.gate(GROWTH);
    println!(
        "from fewest to most concurrent flows the price grows {growth:.2} times (at most {most:.2})"
    );
    if growth > most {
        faults.push(format!("the price grows {growth:.2} times with concurrent flows"));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
}

impl Bench {
    fn gate(&self, goal: f64) -> f64 {
        if self.short { goal * SLACK } else { goal }
    }

    fn file(&self, workload: &Workload) -> Result<(PathBuf, bool), Failure> {
        let [whole, short] = workload.words;
        let words = if self.short { short } else { whole };
        let numbers: Vec<&str> =
            words.iter().copied().filter(|word| word.parse::<u64>().is_ok()).collect();
        let file = self.yard.folder.join(format!("{}-{}.pcap", workload.name, numbers.join("-")));
        let made = self.yard.generate(&file, words)?;
        Ok((file, made))
    }

    /// Runs the bare loop and the replay in turn.
    fn price(&self, file: &Path) -> Result<Price, Failure> {
        let count = number(&truth_of(file)?, "/packets")?;
        let bare = self.yard.folder.join("pcaploop");
        let bare =
            |file: &Path| cpu_seconds(&[bare.as_os_str(), "flow".as_ref(), file.as_os_str()]);
        let ours = |file: &Path| cpu_seconds(&replay_words(&self.sekisho, &self.lists, file));
        let (mut floors, mut costs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let floor = bare(file)? - bare(&self.empty)?;
            let cost = ours(file)? - ours(&self.empty)?;
            floors.push(floor / count * 1e9);
            costs.push(cost / count * 1e9);
            ratios.push(cost / floor);
        }
        Ok(Price { floor: median(floors), cost: median(costs), ratios })
    }

    fn show(
        &self,
        workload: &Workload,
        price: &Price,
        truth: &Value,
        faults: &mut Vec<Failure>,
    ) -> Result<(), Failure> {
        let ratio = median(price.ratios.clone());
        let gate = workload.gate.map(|gate| self.gate(gate));
        let (most, verdict) = match gate {
            None => ("-".to_owned(), "-"),
            Some(gate) if ratio > gate => (format!("{gate:.1}"), "FAIL"),
            Some(gate) => (format!("{gate:.1}"), "pass"),
        };
        println!(
            "{:<13}{:>10}{:>12.0}{:>12.0}{ratio:>8.2}{most:>8}  {verdict}  {:.2?}",
            workload.name,
            number(truth, "/packets")?,
            price.floor,
            price.cost,
            price.ratios,
        );
        if verdict == "FAIL" {
            faults.push(format!("{} costs {ratio:.2} times the bare loop", workload.name));
        }
        Ok(())
    }

    /// Bytes a flow, and what is found when flows may take no more than a cap.
    fn memory(&self, file: &Path, truth: &Value) -> Result<Vec<Failure>, Failure> {
        let mut faults = Vec::new();
        let whole = engine_cost(file, &self.lists, &["--runs", "1", "--flows", NO_CAP])?;
        let bytes = number(&whole, "/grown")? / number(&whole, "/most_live")?;
        println!(
            "  {} flows at once, {bytes:.0} bytes each (at most {FLOW_BYTES})",
            number(&whole, "/most_live")?
        );
        if bytes > FLOW_BYTES {
            faults.push(format!("a flow takes {bytes:.0} bytes"));
        }
        // The short form has too few flows to fill it: its cap is that much smaller.
        let share = if self.short { 12.0 } else { 1.0 };
        let cap = format!("{:.0}", FLOW_CAP / share / bytes);
        let capped = engine_cost(file, &self.lists, &["--runs", "1", "--flows", &cap])?;
        let (seen, planted) = (number(&capped, "/planted")?, planted(truth) as f64);
        let evicted = number(&capped, "/evicted/flows").unwrap_or(0.0);
        println!(
            "  {:.0} MiB of flows ({cap}): {seen} of {planted} planted found, {evicted} flows evicted",
            FLOW_CAP / share / 1024.0 / 1024.0,
        );
        if seen < planted * FOUND_UNDER_CAP || evicted == 0.0 {
            faults.push(format!("{seen} of {planted} found under a cap, {evicted} evicted"));
        }
        Ok(faults)
    }
}

pub(super) fn replay_words<'a>(
    sekisho: &'a Path,
    lists: &'a [PathBuf],
    file: &'a Path,
) -> Vec<&'a OsStr> {
    let mut words = vec![sekisho.as_os_str(), "replay".as_ref(), "--json".as_ref()];
    for list in lists {
        words.extend(["--rules".as_ref(), list.as_os_str()]);
    }
    words.push(file.as_os_str());
    words
}

/// What the generator says that it put into a workload.
fn truth_of(file: &Path) -> Result<Value, Failure> {
    read_json(&PathBuf::from(format!("{}.truth.json", file.display())))
}

fn read_json(path: &Path) -> Result<Value, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Flows (by their inside end) with the indicators sighted in them, and the findings by detector.
struct Found {
    planted: BTreeSet<(String, String)>,
    detectors: BTreeMap<String, u64>,
}

fn found(sekisho: &Path, lists: &[PathBuf], file: &Path) -> Result<Found, Failure> {
    let words = replay_words(sekisho, lists, file);
    let (program, arguments) = words.split_first().ok_or("no words")?;
    let done = Command::new(program)
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot start sekisho: {error}"))?;
    let mut found = Found { planted: BTreeSet::new(), detectors: BTreeMap::new() };
    for line in String::from_utf8_lossy(&done.stdout).lines() {
        let event: Value = serde_json::from_str(line)
            .map_err(|error| format!("replay wrote what is no event: {error}"))?;
        let text = |pointer: &str| {
            event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        if text("/type") == "finding" {
            *found.detectors.entry(text("/detector")).or_default() += 1;
            if text("/detector").starts_with("indicator.") {
                found.planted.insert((text("/flow/local"), text("/indicator/value")));
            }
        }
    }
    Ok(found)
}

fn planted(truth: &Value) -> u64 {
    ["planted_sni", "planted_dns", "planted_http", "planted_ip", "planted_quic"]
        .iter()
        .filter_map(|key| truth.get(*key).and_then(Value::as_u64))
        .sum()
}

/// Every planted flow reported, and nothing where nothing was planted.
fn check_planted(found: &Found, truth: &Value) -> Result<(), Failure> {
    let wanted = planted(truth);
    println!(
        "  planted {wanted} flows (truth of the generator), reported {}; findings {:?}",
        found.planted.len(),
        found.detectors
    );
    if found.planted.len() as u64 != wanted {
        return Err(format!(
            "{wanted} flows with an indicator were planted, {} reported",
            found.planted.len()
        ));
    }
    match found.detectors.iter().find(|(detector, _)| {
        !detector.starts_with("indicator.") && !detector.starts_with("behaviour.")
    }) {
        Some((other, count)) => {
            Err(format!("{other}: {count} findings where nothing of the kind was planted"))
        }
        None => Ok(()),
    }
}
