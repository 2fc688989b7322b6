//! Measurements under traffic, in the laboratory: live rates, a reload, known destinations in the kernel.

use crate::host::{self, Failure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Most of a core that 100,000 packets a second may cost.
const CORE_AT_100K: f64 = 0.10;
/// Most resident memory of the agent under load with a million addresses and a million names, in MiB.
const RESIDENT_MIB: f64 = 200.0;
/// Most that a reload may add, as a multiple of what is resident before.
const RELOAD_RATIO: f64 = 1.3;
/// Least throughput beside plain forwarding.
const FORWARDING: f64 = 0.95;
/// Most microseconds that a round trip may take more.
const ROUND_TRIP_US: f64 = 1.0;
/// Two gateways without rules may differ by so much, or the machine can't tell.
const ALIKE: f64 = 0.02;

/// Tools, traffic and lists, made from their folder.
struct Yard {
    folder: PathBuf,
}

impl Yard {
    fn build(folder: &str, packets: &str, flows: &str) -> Result<(Self, PathBuf), Failure> {
        host::install_packages()?;
        host::build_binaries("release")?;
        let (from, yard) = (Path::new(folder), host::target().join("bench"));
        std::fs::create_dir_all(&yard)
            .map_err(|error| format!("cannot make {}: {error}", yard.display()))?;
        if !from.join("pcapgen/Cargo.toml").is_file() {
            return Err(format!("{folder} holds no workload generator: nothing was measured"));
        }
        // The folder may be read-only and has no lock file: build a copy.
        host::run(
            Command::new("cp")
                .args(["-r", "--no-preserve=mode"])
                .arg(from.join("pcapgen"))
                .arg(&yard),
        )?;
        host::run(
            host::cargo(&["build", "--release", "-j2"])
                .arg("--manifest-path")
                .arg(yard.join("pcapgen/Cargo.toml"))
                .env("CARGO_TARGET_DIR", yard.join("build")),
        )?;
        for (tool, library) in [("pktsend", Some("-lpcap")), ("tp3read", None)] {
            let mut compile = Command::new("gcc");
            compile.args(["-O2", "-w", "-o"]).arg(yard.join(tool));
            compile.arg(from.join(format!("c/{tool}.c"))).args(library);
            host::run(&mut compile)?;
        }
        if !yard.join("ioc/domains-1m.txt").is_file() {
            host::run(Command::new(yard.join("build/release/iocgen")).arg(yard.join("ioc")))?;
        }
        let mix = yard.join(format!("mix-{packets}.pcap"));
        if !mix.is_file() {
            host::run(
                Command::new(yard.join("build/release/pcapgen"))
                    .args(["mix", "--packets", packets, "--flows", flows, "--out"])
                    .arg(&mix)
                    .stdout(Stdio::null()),
            )?;
        }
        Ok((Self { folder: yard }, mix))
    }

    fn list(&self, name: &str) -> PathBuf {
        self.folder.join("ioc").join(name)
    }

    /// Runs `live-load`; shows its table, gives the JSON of its last line.
    fn load(&self, words: &[&std::ffi::OsStr]) -> Result<Value, Failure> {
        let release = host::target().join("release");
        let text = host::output(
            host::as_root(release.join("live-load")).args(words).env("SEKISHO_BIN_DIR", &release),
        )?;
        let (table, json) = text.trim_end().rsplit_once('\n').ok_or("live-load printed nothing")?;
        println!("{table}");
        serde_json::from_str(json).map_err(|error| format!("live-load printed no JSON: {error}"))
    }

    fn under(&self, verb: &str, mix: &Path, more: &[&str]) -> Result<Value, Failure> {
        let (ips, names) = (self.list("ips-1m.txt"), self.list("domains-1m.txt"));
        let mut words = vec![
            verb.as_ref(),
            self.folder.as_os_str(),
            mix.as_os_str(),
            ips.as_os_str(),
            names.as_os_str(),
        ];
        words.extend(more.iter().map(|word| std::ffi::OsStr::new(*word)));
        self.load(&words)
    }
}

fn float(value: &Value, pointer: &str) -> Result<f64, Failure> {
    value
        .pointer(pointer)
        .and_then(Value::as_f64)
        .ok_or_else(|| format!("no number at {pointer}: {value}"))
}

/// Loss, CPU and memory of the agent on a cable, beside a bare reader of the ring.
pub(crate) fn live(folder: &str, arguments: &[&str]) -> Result<(), Failure> {
    let (yard, mix) = Yard::build(folder, "400000", "5000")?;
    println!(
        "mix over a cable, 1,000,000 addresses and 1,000,000 names; sender on one CPU, agent on the other"
    );
    let result = yard.under("live", &mix, arguments)?;
    let rows = result.pointer("/live").and_then(Value::as_array).ok_or("no rows")?;
    let mut faults = Vec::new();
    for row in rows {
        // A machine that loses frames with nobody judging them says nothing about the agent.
        let (bare, lost) = (float(row, "/bare/lost")?, float(row, "/agent/lost")?);
        if lost > bare {
            faults.push(format!(
                "{lost} packets lost at {} a second where the bare reader lost {bare}",
                float(row, "/agent/pps")?
            ));
        }
        if float(row, "/agent/rss_mib")? > RESIDENT_MIB {
            faults.push(format!("{} MiB resident", float(row, "/agent/rss_mib")?));
        }
    }
    let core = rows.first().map_or(Ok(0.0), |row| float(row, "/agent/cpu"))?;
    if core > CORE_AT_100K {
        faults.push(format!("{:.1} % of a core at 100,000 packets a second", core * 100.0));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
}

/// A million addresses and a million names read anew under traffic.
pub(crate) fn reload(folder: &str) -> Result<(), Failure> {
    let (yard, mix) = Yard::build(folder, "400000", "5000")?;
    let result = yard.under("reload", &mix, &[])?;
    let (lost, ratio) = (float(&result, "/lost")?, float(&result, "/ratio")?);
    if result.pointer("/outcome").and_then(Value::as_bool) != Some(true) {
        return Err("the rules were not reloaded".to_owned());
    }
    if lost > 0.0 || ratio > RELOAD_RATIO {
        return Err(format!("{lost} packets lost, peak {ratio:.2} times what was resident"));
    }
    Ok(())
}

/// A million destinations in the kernel beside plain forwarding, and what leaks.
pub(crate) fn preload(folder: &str) -> Result<(), Failure> {
    let (yard, _) = Yard::build(folder, "400000", "5000")?;
    let list = yard.list("ips-1m.txt");
    let result = yard.load(&["preload".as_ref(), list.as_os_str()])?;
    let leaked = float(&result, "/leaked")?;
    let (mut faults, mut noise) = (Vec::new(), Vec::new());
    for family in ["v4", "v6"] {
        let number = |stage: &str, key: &str| float(&result, &format!("/{stage}/{family}/{key}"));
        let (share, more) = (number("alone", "share")?, number("alone", "rtt_us")?);
        if share < FORWARDING || more > ROUND_TRIP_US {
            let share = share * 100.0;
            faults.push(format!(
                "{family}: {share:.1} % of plain forwarding, {more:+.2} µs there and back"
            ));
        }
        if (number("nothing", "share")? - 1.0).abs() > ALIKE {
            noise.push(format!(
                "{family}: two gateways without rules differ by more than {:.0} %",
                ALIKE * 100.0
            ));
        }
    }
    if leaked > 0.0 {
        faults.push(format!("{leaked} packets leaked"));
    }
    faults.extend(noise);
    if !faults.is_empty() {
        return Err(faults.join("; "));
    }
    Ok(())
}
