//! Measurements, always as ratios of things run side by side in the same run.

use crate::host::{self, Failure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Most that replay may cost, as a multiple of the bare libpcap loop with a flow table.
const ENGINE_RATIO: f64 = 6.0;
/// Most that a million indicators of each kind may cost per packet, as a multiple of a thousand.
const INDICATOR_RATIO: f64 = 1.3;
/// Most seconds from start to ready with a million indicators of each kind.
const START_SECONDS: f64 = 5.0;
/// Most resident memory of the agent with a million indicators of each kind, in MB.
const RESIDENT_MB: f64 = 200.0;

/// Time to contain in the laboratory.
pub(crate) fn contain(arguments: &[&str]) -> Result<(), Failure> {
    host::install_packages()?;
    host::build_binaries("release")?;
    let folder = host::target().join("release");
    host::run(
        host::as_root(folder.join("time-to-contain"))
            .args(arguments)
            .env("SEKISHO_BIN_DIR", &folder),
    )
}

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
        if !file.is_file() {
            host::run(
                Command::new(self.folder.join("build/release/pcapgen"))
                    .args(["mix", "--packets", packets, "--flows", flows, "--out"])
                    .arg(&file)
                    .stdout(Stdio::null()),
            )?;
        }
        Ok(file)
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

fn replay_words<'a>(
    sekisho: &'a Path,
    lists: &'a [PathBuf],
    file: &'a Path,
) -> Vec<&'a std::ffi::OsStr> {
    let mut words = vec![sekisho.as_os_str(), "replay".as_ref(), "--json".as_ref()];
    for list in lists {
        words.extend(["--rules".as_ref(), list.as_os_str()]);
    }
    words.push(file.as_os_str());
    words
}

/// Cost per packet in replay, beside the bare loop, and what was planted against what was found.
pub(crate) fn engine(folder: &str, arguments: &[&str]) -> Result<(), Failure> {
    host::install_packages()?;
    host::build_binaries("release")?;
    let short = arguments.contains(&"--short");
    let (packets, flows, runs) =
        if short { ("400000", "5000", 5) } else { ("4000000", "50000", 5) };
    let yard = Yard::build(folder)?;
    let (mix, empty) = (yard.mix(packets, flows)?, yard.empty()?);
    let release = host::target().join("release");
    let sekisho = release.join("sekisho");
    let lists = yard.lists("1m");
    let truth = read_json(&PathBuf::from(format!("{}.truth.json", mix.display())))?;
    let count = truth
        .get("packets")
        .and_then(Value::as_f64)
        .ok_or("the generator's truth has no packets")?;
    let loop_program = yard.folder.join("pcaploop");
    let (mut floors, mut costs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let floor = cpu_seconds(&[loop_program.as_os_str(), "flow".as_ref(), mix.as_os_str()])?
            - cpu_seconds(&[loop_program.as_os_str(), "flow".as_ref(), empty.as_os_str()])?;
        let cost = cpu_seconds(&replay_words(&sekisho, &lists, &mix))?
            - cpu_seconds(&replay_words(&sekisho, &lists, &empty))?;
        floors.push(floor / count * 1e9);
        costs.push(cost / count * 1e9);
        ratios.push(cost / floor);
    }
    let ratio = median(ratios.clone());
    println!(
        "mix, {count} packets, 1,000,000 addresses and 1,000,000 names, {runs} paired runs, CPU net of start-up"
    );
    println!("  bare libpcap loop with flow table  {:>7.0} ns a packet (median)", median(floors));
    println!("  sekisho replay                     {:>7.0} ns a packet (median)", median(costs));
    println!(
        "  ratio                              {ratio:>7.2} (median of {ratios:.2?}; at most {ENGINE_RATIO})"
    );
    host::run(Command::new(release.join("engine-cost")).arg(&mix).args(&lists))?;
    check_planted(&found(&sekisho, &lists, &mix)?, &truth)?;
    if ratio > ENGINE_RATIO {
        Err(format!("replay costs {ratio:.2} times the bare loop, {ENGINE_RATIO} allowed"))
    } else {
        Ok(())
    }
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

/// Every planted flow reported, and nothing where nothing was planted.
fn check_planted(found: &Found, truth: &Value) -> Result<(), Failure> {
    let wanted: u64 = ["planted_sni", "planted_dns", "planted_http", "planted_ip", "planted_quic"]
        .iter()
        .filter_map(|key| truth.get(*key).and_then(Value::as_u64))
        .sum();
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

/// Nanoseconds a packet of the whole engine over frames in memory, as `engine-cost` prints them.
fn engine_cost(file: &Path, lists: &[PathBuf]) -> Result<f64, Failure> {
    let text = host::output(
        Command::new(host::target().join("release/engine-cost")).arg(file).args(lists),
    )?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("the whole engine"));
    line.and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| format!("engine-cost printed no total: {text}"))
}

/// A thousand against a million indicators of each kind.
pub(crate) fn indicators(folder: &str) -> Result<(), Failure> {
    host::install_packages()?;
    host::build_binaries("release")?;
    let yard = Yard::build(folder)?;
    let mix = yard.mix("400000", "5000")?;
    let sekisho = host::target().join("release/sekisho");
    let (few, many) = (yard.lists("1k"), yard.lists("1m"));
    // Over frames in memory and without start-up, as the difference is small beside both.
    let mut ratios = Vec::new();
    for _ in 0..5 {
        let (small, large) = (engine_cost(&mix, &few)?, engine_cost(&mix, &many)?);
        ratios.push(large / small);
    }
    let ratio = median(ratios.clone());
    let (seconds, resident, peak) = agent_with(&sekisho, &many, &yard.folder)?;
    println!("1,000,000 addresses and 1,000,000 names");
    println!("  start to ready     {seconds:>7.2} s (at most {START_SECONDS})");
    println!("  resident           {resident:>7.1} MB (at most {RESIDENT_MB}; peak {peak:.1} MB)");
    println!(
        "  cost per packet    {ratio:>7.2} times that of 1,000 each (median of {ratios:.2?}; at most {INDICATOR_RATIO})"
    );
    if seconds > START_SECONDS || resident > RESIDENT_MB || ratio > INDICATOR_RATIO {
        Err("a bound was passed".to_owned())
    } else {
        Ok(())
    }
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
