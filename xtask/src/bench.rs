//! Measurements, always as ratios of things run side by side in the same run.

mod engine;
mod learning;

pub(crate) use self::engine::engine;

use crate::host::{self, Failure};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Most that a million indicators of each kind may cost per packet, as a multiple of a thousand.
const INDICATOR_RATIO: f64 = 1.1;
/// The same where a few short runs beside other load are all there is: pairs differ by a fifth.
const INDICATOR_RATIO_SHORT: f64 = 1.5;
/// Most bytes for an indicator, on average over as many addresses as names.
const INDICATOR_BYTES: f64 = 40.0;
/// Most seconds of CPU that a million addresses and a million names may take to load from text, and
/// the multiple of it at which the short form fails.
const LOAD_SECONDS: f64 = 0.5;
const LOAD_SLACK: f64 = 2.0;
/// Most seconds from start to ready with a million indicators of each kind.
const START_SECONDS: f64 = 5.0;
/// Most resident memory of the agent with a million indicators of each kind, in MB.
const RESIDENT_MB: f64 = 200.0;

/// The workload generator and the bare loop, built from their folder.
struct Yard {
    folder: PathBuf,
}

impl Yard {
    fn build(folder: &str) -> Result<Self, Failure> {
        let yard = host::target().join("bench");
        std::fs::create_dir_all(&yard)
            .map_err(|error| format!("cannot make {}: {error}", yard.display()))?;
        let manifest = Path::new(folder).join("pcapgen/Cargo.toml");
        if !manifest.is_file() {
            return Err(format!("{} is not there: nothing was measured", manifest.display()));
        }
        // The folder may be read-only and has no lock file: build a copy.
        let copy = yard.join("pcapgen");
        host::run(
            Command::new("cp")
                .args(["-r", "--no-preserve=mode"])
                .arg(Path::new(folder).join("pcapgen"))
                .arg(&yard),
        )?;
        host::run(
            host::cargo(&["build", "--release", "-j2"])
                .arg("--manifest-path")
                .arg(copy.join("Cargo.toml"))
                .env("CARGO_TARGET_DIR", yard.join("build")),
        )?;
        host::run(
            Command::new("gcc")
                .args(["-O2", "-o"])
                .arg(yard.join("pcaploop"))
                .arg(Path::new(folder).join("c/pcaploop.c"))
                .arg("-lpcap"),
        )?;
        let lists = yard.join("ioc");
        if !lists.join("domains-1m.txt").is_file() {
            host::run(Command::new(yard.join("build/release/iocgen")).arg(&lists))?;
        }
        Ok(Self { folder: yard })
    }

    fn mix(&self, packets: &str, flows: &str) -> Result<PathBuf, Failure> {
        let file = self.folder.join(format!("mix-{packets}.pcap"));
        self.generate(&file, &["mix", "--packets", packets, "--flows", flows])?;
        Ok(file)
    }

    /// Makes a workload unless it is there; whether it was made.
    fn generate(&self, file: &Path, words: &[&str]) -> Result<bool, Failure> {
        if file.is_file() {
            return Ok(false);
        }
        host::run(
            Command::new(self.folder.join("build/release/pcapgen"))
                .args(words)
                .arg("--out")
                .arg(file)
                .stdout(Stdio::null()),
        )?;
        Ok(true)
    }

    fn empty(&self) -> Result<PathBuf, Failure> {
        let file = self.folder.join("empty.pcap");
        host::run(
            Command::new(self.folder.join("build/release/pcapgen"))
                .args(["empty", "--out"])
                .arg(&file)
                .stdout(Stdio::null()),
        )?;
        Ok(file)
    }

    fn lists(&self, size: &str) -> [PathBuf; 2] {
        [format!("ioc/ips-{size}.txt"), format!("ioc/domains-{size}.txt")]
            .map(|name| self.folder.join(name))
    }
}

/// CPU seconds (user + system) of a command, by the shell's own accounting.
fn cpu_seconds(words: &[&std::ffi::OsStr]) -> Result<f64, Failure> {
    let done = Command::new("bash")
        .args(["-c", "TIMEFORMAT='%3U %3S'; time \"$@\" >/dev/null 2>&1", "_"])
        .args(words)
        .output()
        .map_err(|error| format!("cannot start bash: {error}"))?;
    let text = String::from_utf8_lossy(&done.stderr);
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    if numbers.len() == 2 {
        Ok(numbers.iter().sum())
    } else {
        Err(format!("the shell gave no times: {text}"))
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What `engine-cost` measured over frames in memory.
fn engine_cost(file: &Path, lists: &[PathBuf], options: &[&str]) -> Result<Value, Failure> {
    let mut command = Command::new(host::target().join("release/engine-cost"));
    // Memory that the loading of the lists gave back must not pass for the flows': the allocator keeps none.
    command.env("MALLOC_MMAP_THRESHOLD_", "65536").env("MALLOC_TRIM_THRESHOLD_", "65536");
    let text = host::output(command.arg(file).args(lists).arg("--json").args(options))?;
    serde_json::from_str(&text).map_err(|error| format!("engine-cost wrote {text:?}: {error}"))
}

fn number(of: &Value, pointer: &str) -> Result<f64, Failure> {
    of.pointer(pointer).and_then(Value::as_f64).ok_or_else(|| format!("no number at {pointer}"))
}

/// Each kind by itself, a thousand to five millions; then a thousand against a million addresses and
/// names, per packet and in an agent that starts.
pub(crate) fn indicators(folder: &str, arguments: &[&str]) -> Result<(), Failure> {
    host::install_packages()?;
    host::build_binaries("release")?;
    let short = arguments.contains(&"--short");
    let yard = Yard::build(folder)?;
    let kinds = host::target().join("release/indicator_cost");
    let mix = yard.mix("400000", "5000")?;
    let most = if short { "100000" } else { "5000000" };
    let bound = if short { INDICATOR_RATIO_SHORT } else { INDICATOR_RATIO };
    println!(
        "each kind by itself: CPU seconds to load, bytes and nanoseconds for each, and what a packet costs beside the same with 1,000"
    );
    host::run(Command::new(kinds).arg(most).arg(&mix).arg(bound.to_string()))?;
    let sekisho = host::target().join("release/sekisho");
    let (few, many) = (yard.lists("1k"), yard.lists("1m"));
    // Over frames in memory and without start-up, as the difference is small beside both.
    let mut ratios = Vec::new();
    for _ in 0..if short { 5 } else { 9 } {
        let price = |lists| engine_cost(&mix, lists, &["--runs", "2"]);
        let (small, large) = (price(&few)?, price(&many)?);
        ratios.push(number(&large, "/ns/whole")? / number(&small, "/ns/whole")?);
    }
    let ratio = median(ratios.clone());
    let bytes = number(&engine_cost(&mix, &many, &["--runs", "1"])?, "/indicator_bytes")?;
    let text = start_seconds(&sekisho, &many, &yard)?;
    let compiled = yard.folder.join("both.ski");
    host::run(
        Command::new(&sekisho)
            .args(["indicators", "import"])
            .args(&many)
            .arg("--out")
            .arg(&compiled)
            .stdout(Stdio::null()),
    )?;
    let ready = start_seconds(&sekisho, std::slice::from_ref(&compiled), &yard)?;
    let (seconds, resident, peak) = agent_with(&sekisho, &many, &yard.folder)?;
    let load = if short { LOAD_SECONDS * LOAD_SLACK } else { LOAD_SECONDS };
    println!("1,000,000 addresses and 1,000,000 names");
    println!("  bytes each         {bytes:>7.1} (at most {INDICATOR_BYTES})");
    println!(
        "  load, CPU          {text:>7.2} s from text (at most {load:.1}), {ready:.2} s compiled"
    );
    println!("  start to ready     {seconds:>7.2} s (at most {START_SECONDS})");
    println!("  resident           {resident:>7.1} MB (at most {RESIDENT_MB}; peak {peak:.1} MB)");
    println!(
        "  cost per packet    {ratio:>7.2} times that of 1,000 each (median of {ratios:.2?}; at most {bound})"
    );
    let measured = [
        ("bytes of an indicator", bytes, INDICATOR_BYTES),
        ("seconds to load from text", text, load),
        ("seconds to ready", seconds, START_SECONDS),
        ("MB resident", resident, RESIDENT_MB),
        ("times the cost of a packet", ratio, bound),
    ];
    let _gone = std::fs::remove_file(&mix);
    let passed: Vec<String> = measured
        .iter()
        .filter(|(_, value, most)| value > most)
        .map(|(what, value, most)| format!("{value:.2} {what}, at most {most}"))
        .collect();
    if passed.is_empty() { Ok(()) } else { Err(passed.join("; ")) }
}

/// CPU seconds that lists add to the start of a replay.
fn start_seconds(sekisho: &Path, lists: &[PathBuf], yard: &Yard) -> Result<f64, Failure> {
    let empty = yard.empty()?;
    let mut added = Vec::new();
    for _ in 0..5 {
        let with = cpu_seconds(&engine::replay_words(sekisho, lists, &empty))?;
        added.push(with - cpu_seconds(&engine::replay_words(sekisho, &[], &empty))?);
    }
    Ok(median(added))
}

/// A child process that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A network namespace that ends with this value.
struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = host::as_root("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Starts a real agent in a namespace of its own: seconds to ready, resident and peak memory in MB.
fn agent_with(
    sekisho: &Path,
    lists: &[PathBuf],
    folder: &Path,
) -> Result<(f64, f64, f64), Failure> {
    let space = Namespace(format!("skbench{}", std::process::id()));
    host::run(host::as_root("ip").args(["netns", "add", &space.0]))?;
    for words in [
        vec!["link", "add", "eth0", "type", "veth", "peer", "name", "eth1"],
        vec!["link", "set", "eth0", "up"],
        vec!["link", "set", "eth1", "up"],
        vec!["link", "set", "lo", "up"],
    ] {
        host::run(host::as_root("ip").args(["-n", &space.0]).args(words))?;
    }
    let state = folder.join(format!("state-{}", std::process::id()));
    let config = folder.join("agent.toml");
    let names: Vec<String> =
        lists.iter().map(|list| format!("{:?}", list.to_string_lossy())).collect();
    let text = format!(
        "host = \"bench\"\n[capture]\ninterfaces = [\"eth0\"]\n[paths]\nstate = {:?}\nrun = {:?}\ntrust = {:?}\n[indicators]\nlists = [{}]\n",
        state.join("lib"),
        state.join("run"),
        state.join("trust"),
        names.join(", ")
    );
    std::fs::create_dir_all(&state)
        .and_then(|()| std::fs::write(&config, text))
        .map_err(|error| format!("cannot write {}: {error}", config.display()))?;
    let began = Instant::now();
    let child = host::as_root("ip")
        .args(["netns", "exec", &space.0])
        .arg(sekisho)
        .args(["run", "--config"])
        .arg(&config)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start the agent: {error}"))?;
    let mut running = Running(child);
    let stderr = running.0.stderr.take().ok_or("no stderr")?;
    let (tell, ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            eprintln!("  agent: {line}");
            if line.contains("ready") {
                let _ = tell.send(());
            }
        }
    });
    ready
        .recv_timeout(Duration::from_secs(30))
        .map_err(|_| "the agent was not ready within 30 s")?;
    let seconds = began.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_millis(500));
    let memory = |key: &str| -> Result<f64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", running.0.id()))
            .map_err(|error| format!("the agent is gone: {error}"))?;
        let kib: f64 = status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .ok_or("no such line")?;
        Ok(kib * 1024.0 / 1e6)
    };
    let (resident, peak) = (memory("VmRSS:")?, memory("VmHWM:")?);
    drop(running);
    let _ = std::fs::remove_dir_all(&state);
    Ok((seconds, resident, peak))
}
