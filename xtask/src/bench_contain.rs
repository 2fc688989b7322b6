//! Measurements of the cut: what still leaves, what a cut costs, how soon it holds, what leaves before it does.

use crate::host::{self, Failure};

/// The measurements, in the order in which a fault of one explains those of the next.
const MEASUREMENTS: [&str; 3] = ["cut-cost", "time-to-contain", "leak"];

/// The price of a cut, time to contain under load, bytes that leave after the match; all are run, whatever one finds.
pub(crate) fn contain(arguments: &[&str]) -> Result<(), Failure> {
    if arguments.iter().any(|word| *word != "--short") {
        return Err(format!(
            "bench contain knows --short, not {arguments:?}: nothing was measured"
        ));
    }
    prepare()?;
    let faults: Vec<Failure> =
        MEASUREMENTS.iter().filter_map(|name| run(name, arguments).err()).collect();
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
}

/// The battery of ways out against the rule shapes of others, and against ours.
pub(crate) fn battery(arguments: &[&str]) -> Result<(), Failure> {
    prepare()?;
    run("battery", arguments)
}

fn prepare() -> Result<(), Failure> {
    host::install_packages()?;
    host::build_binaries("release")
}

fn run(name: &str, arguments: &[&str]) -> Result<(), Failure> {
    let folder = host::target().join("release");
    host::run(host::as_root(folder.join(name)).args(arguments).env("SEKISHO_BIN_DIR", &folder))
}
