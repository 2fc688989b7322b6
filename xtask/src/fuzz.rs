//! Hostile inputs from libFuzzer, target after target on every core.

use crate::host::{self, Failure};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// Seconds for each target when none are asked for.
const SECONDS: u64 = 600;
/// Most resident memory of a target in MiB, sanitizer included.
const RESIDENT_MIB: u64 = 2_048;
/// Seconds that one input may take.
const INPUT_SECONDS: u64 = 25;
/// Least memory in MiB that one call may ask for: libFuzzer itself needs some.
const CALL_MIB: u64 = 64;

struct Target {
    name: String,
    longest: u64,
    call_mib: u64,
}

/// What came of a target.
struct Outcome {
    name: String,
    runs: Option<u64>,
    /// New inputs that reached what none before had.
    found: usize,
    broken: Option<String>,
}

/// `[SECONDS] [TARGET…]`: builds the targets with the nightly compiler, runs them, shows a table.
pub(crate) fn run(words: &[&str]) -> Result<(), Failure> {
    let (seconds, named) = match words.split_first() {
        Some((first, rest)) if first.parse::<u64>().is_ok() => {
            (first.parse().unwrap_or(SECONDS), rest)
        }
        _ => (SECONDS, words),
    };
    if seconds == 0 {
        return Err("no seconds: 0 would be no end for libFuzzer".to_owned());
    }
    let targets = chosen(named)?;
    install()?;
    let built = host::target().join("fuzz");
    host::run(
        // By rustup: the cargo that runs this is a toolchain's own, which knows of no others.
        Command::new("rustup")
            .args(["run", "nightly", "cargo", "fuzz", "build", "--features", "libfuzzer"])
            .arg("--target-dir")
            .arg(&built)
            .current_dir(host::top())
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_BUILD_JOBS", "2")
            .env_remove("CARGO")
            .env_remove("RUSTC"),
    )?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    println!(
        "{} targets, {seconds} s each, {cores} at a time: {} min",
        targets.len(),
        (targets.len() as u64 * seconds).div_ceil(cores as u64 * 60)
    );
    let (waiting, done) = (Mutex::new(targets.into_iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().ok().and_then(|mut waiting| waiting.next());
                    let Some(target) = next else { return };
                    let outcome = attempt(&built, &target, seconds);
                    show(&outcome);
                    if let Ok(mut done) = done.lock() {
                        done.push(outcome);
                    }
                }
            });
        }
    });
    let done = done.into_inner().map_err(|_| "a thread of ours panicked".to_owned())?;
    let runs: u64 = done.iter().filter_map(|outcome| outcome.runs).sum();
    let broken: Vec<&str> = done.iter().filter_map(|outcome| outcome.broken.as_deref()).collect();
    println!(
        "{} targets, {:.1} million runs, {} broken",
        done.len(),
        runs as f64 / 1e6,
        broken.len()
    );
    if broken.is_empty() { Ok(()) } else { Err(broken.join("; ")) }
}

fn show(outcome: &Outcome) {
    let runs = outcome.runs.map_or_else(|| "?".to_owned(), |runs| runs.to_string());
    let said = outcome.broken.as_deref().unwrap_or("nothing broke");
    println!("  {:<20} {runs:>12} runs, {:>5} new inputs: {said}", outcome.name, outcome.found);
}

/// The targets that are named, or all; their limits are told by the crate itself.
fn chosen(named: &[&str]) -> Result<Vec<Target>, Failure> {
    let list = host::output(&mut host::cargo(&[
        "run",
        "--quiet",
        "--locked",
        "-j2",
        "-p",
        "sekisho-fuzz",
        "--example",
        "targets",
    ]))?;
    let all: Vec<Target> = list.lines().filter_map(target).collect();
    if let Some(unknown) = named.iter().find(|name| !all.iter().any(|target| target.name == **name))
    {
        let names: Vec<&str> = all.iter().map(|target| target.name.as_str()).collect();
        return Err(format!("no target {unknown}; there are {}", names.join(", ")));
    }
    Ok(all.into_iter().filter(|it| named.is_empty() || named.contains(&&*it.name)).collect())
}

fn target(line: &str) -> Option<Target> {
    let mut words = line.split_whitespace();
    let name = words.next()?.to_owned();
    let (longest, memory): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    // Twice, as a buffer that grows holds the old one besides.
    Some(Target { name, longest, call_mib: CALL_MIB.max((2 * memory).div_ceil(1 << 20)) })
}

/// The nightly compiler, which libFuzzer's instrumentation needs, and cargo-fuzz, where they are missing.
fn install() -> Result<(), Failure> {
    let quiet = |command: &mut Command| {
        let done = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        done.is_ok_and(|status| status.success())
    };
    if !quiet(Command::new("rustup").args(["run", "nightly", "rustc", "--version"])) {
        host::run(Command::new("rustup").args([
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
        ]))?;
    }
    if !quiet(&mut host::cargo(&["fuzz", "--version"])) {
        host::run(&mut host::cargo(&["install", "cargo-fuzz", "--locked", "-j2"]))?;
    }
    Ok(())
}

fn attempt(built: &Path, target: &Target, seconds: u64) -> Outcome {
    let name = target.name.clone();
    match fuzzed(built, target, seconds) {
        Ok((runs, found, broken)) => Outcome { name, runs, found, broken },
        Err(failure) => {
            Outcome { broken: Some(format!("{name}: {failure}")), name, runs: None, found: 0 }
        }
    }
}

type Fuzzed = (Option<u64>, usize, Option<String>);

fn fuzzed(built: &Path, target: &Target, seconds: u64) -> Result<Fuzzed, Failure> {
    let name = target.name.as_str();
    let said = |error: std::io::Error| error.to_string();
    let (found, log) = (built.join("found").join(name), built.join(format!("{name}.log")));
    fs::create_dir_all(&found).map_err(said)?;
    let before = count(&found);
    let program = program(built, name)?;
    let mut command = Command::new(program);
    command.arg(&found).arg(host::top().join("fuzz/corpus").join(name));
    let regressions = host::top().join("fuzz/regressions").join(name);
    if regressions.is_dir() {
        command.arg(regressions);
    }
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={}", target.longest))
        .arg(format!("-malloc_limit_mb={}", target.call_mib))
        .arg(format!("-rss_limit_mb={RESIDENT_MIB}"))
        .arg(format!("-timeout={INPUT_SECONDS}"))
        .arg(format!("-artifact_prefix={}/broken-{name}-", built.display()))
        .arg("-print_final_stats=1")
        .stdout(Stdio::null())
        .stderr(File::create(&log).map_err(said)?);
    let mut child = command.spawn().map_err(said)?;
    let status = child.wait().map_err(said)?;
    // What a sanitizer writes of a crash may be no UTF-8.
    let text = String::from_utf8_lossy(&fs::read(&log).map_err(said)?).into_owned();
    let runs = text
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))
        .and_then(|number| number.trim().parse().ok());
    let ended =
        (!status.success()).then(|| format!("{name} ended with {status}: see {}", log.display()));
    let untold = || format!("{name} did not say how often it ran: see {}", log.display());
    let broken = ended.or_else(|| runs.is_none().then(untold));
    Ok((runs, count(&found).saturating_sub(before), broken))
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

/// cargo builds for a named platform here, so that the folder is called after it.
fn program(built: &Path, name: &str) -> Result<PathBuf, Failure> {
    let folders =
        fs::read_dir(built).map_err(|error| format!("cannot read {}: {error}", built.display()))?;
    folders
        .flatten()
        .map(|folder| folder.path().join("release").join(name))
        .find(|program| program.is_file())
        .ok_or_else(|| format!("{name} was not built in {}", built.display()))
}
