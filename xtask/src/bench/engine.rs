//! Cost per packet beside the bare libpcap loop with a flow table, on the reference workloads; what
//! was planted against what was found; memory of a flow.

use super::{Yard, cpu_seconds, engine_cost, learning, median, number};
use crate::host::{self, Failure};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Most resident bytes that a tracked flow may take, its share of every table included.
const FLOW_BYTES: f64 = 256.0;
/// The memory of flows under which most of what was planted must still be found, and how much of it.
const FLOW_CAP: f64 = 128.0 * 1024.0 * 1024.0;
const FOUND_UNDER_CAP: f64 = 0.95;
/// More flows than any workload has.
const NO_CAP: &str = "4000000";
/// How much the packet price may grow from few to many concurrent flows.
const GROWTH: f64 = 1.5;
/// The short form guards against getting worse: where a goal is missed already it says so, and fails
/// only beyond this multiple of the goal. Ratios of the same binary differ by a fifth beside other work.
const SLACK: f64 = 3.0;
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
        let all = ["--runs", "1", "--tell-all", "--flows", NO_CAP];
        let told = engine_cost(&file, &bench.lists, &all)?;
        faults.extend(check_planted(&told, &truth).err());
        if number <= MANY {
            let gate = if number == MANY { f64::INFINITY } else { learning::LEARNING_RATIO };
            faults.extend(learning::price(workload.name, &file, bench.gate(gate))?);
        }
        if number == MANY {
            faults.extend(bench.memory(&file, &told, &truth)?);
        }
        if number == FEWEST {
            fewest = price.cost;
        }
        last = price.cost;
        if made {
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
    faults.extend(learning::flood_and_week(bench.short)?);
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
            Some(gate) if workload.gate.is_some_and(|goal| ratio > goal) => {
                (format!("{gate:.1}"), "GOAL MISSED")
            }
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
    fn memory(&self, file: &Path, whole: &Value, truth: &Value) -> Result<Vec<Failure>, Failure> {
        let mut faults = Vec::new();
        let flows = number(whole, "/most_live")?;
        let bytes = number(whole, "/grown")? / flows;
        println!("  {flows} flows at once, {bytes:.0} bytes each (at most {FLOW_BYTES})");
        // With few flows the tables that stand for all weigh more than the flows.
        if bytes > FLOW_BYTES && !self.short {
            faults.push(format!("a flow takes {bytes:.0} bytes"));
        }
        // The short form has too few flows to fill it: its cap is half of them.
        let room = if self.short { flows / 2.0 } else { FLOW_CAP / bytes };
        let cap = format!("{room:.0}");
        let capped =
            engine_cost(file, &self.lists, &["--runs", "1", "--tell-all", "--flows", &cap])?;
        let (seen, planted) = (seen(&capped) as f64, planted(truth) as f64);
        let evicted = number(&capped, "/evicted/flows").unwrap_or(0.0);
        println!(
            "  room for {cap} flows ({:.0} MiB): {seen} of {planted} planted found, {evicted} flows evicted",
            room * bytes / 1024.0 / 1024.0,
        );
        let too_few = seen < planted * FOUND_UNDER_CAP && !self.short;
        if too_few || evicted == 0.0 {
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

/// Where an indicator is seen, and what the generator calls it when it plants one there.
const PLACES: [(&str, &str); 5] = [
    ("address", "planted_ip"),
    ("dns-answer", "planted_dns"),
    ("http-host", "planted_http"),
    ("quic-sni", "planted_quic"),
    ("tls-sni", "planted_sni"),
];

fn planted(truth: &Value) -> u64 {
    PLACES.iter().filter_map(|(_, key)| truth.get(*key).and_then(Value::as_u64)).sum()
}

fn seen(told: &Value) -> u64 {
    let flows = |place: &str| told.pointer(&format!("/seen/{place}")).and_then(Value::as_u64);
    PLACES.iter().filter_map(|(place, _)| flows(place)).sum()
}

/// Every planted flow reported at its place, and nothing where nothing was planted: `told` is what
/// `engine-cost --tell-all` saw, as what is told twice of a host and its remote is told once else.
///
/// Names that an answer bound to an address which is then spoken to are true and not in the truth.
fn check_planted(told: &Value, truth: &Value) -> Result<(), Failure> {
    let (wanted, found) = (planted(truth), seen(told));
    let detectors = told.get("detectors").and_then(Value::as_object).cloned().unwrap_or_default();
    println!("  {found} of {wanted} planted flows found; findings {detectors:?}");
    for (place, key) in PLACES {
        let wanted = truth.get(key).and_then(Value::as_u64).unwrap_or(0);
        let found = told.pointer(&format!("/seen/{place}")).and_then(Value::as_u64).unwrap_or(0);
        if wanted != found {
            return Err(format!("{wanted} flows planted as {place}, {found} found"));
        }
    }
    // What the generator sends on known ports in tiny packets is no such protocol, and said to be odd.
    let expected = ["indicator.", "behaviour.", "protocol."];
    let other = detectors.keys().find(|name| !expected.iter().any(|begin| name.starts_with(begin)));
    other.map_or(Ok(()), |other| Err(format!("{other} told where nothing of the kind was planted")))
}

fn read_json(path: &Path) -> Result<Value, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}
