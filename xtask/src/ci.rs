//! What `.ci/run` calls: every check, in the order in which a fault is cheapest to hear of.

use crate::host::{self, Failure};
use crate::{bench, bench_contain, captures, demo, evaluate, tidy};
use std::path::PathBuf;

/// Version of cargo-deny that the checks were written for.
const DENY: &str = "0.20.2";

/// Free space that the checks take at their most, builds and captures together, in gigabytes.
const DISK_GB: f64 = 5.0;

pub(crate) fn run() -> Result<(), Failure> {
    let free = host::free_gb();
    eprintln!("{free:.1} GB are free; the checks take up to {DISK_GB:.0} GB in target/");
    host::install_packages()?;
    host::run(&mut host::cargo(&["fmt", "--all", "--check"]))?;
    tidy::run()?;
    host::run(&mut host::cargo(&[
        "clippy",
        "--locked",
        "-j2",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    // Without programs in the kernel: what is told then must still compile.
    host::run(&mut host::cargo(&[
        "clippy",
        "--locked",
        "-j2",
        "-p",
        "sekisho-agent",
        "--lib",
        "--no-default-features",
        "--",
        "-D",
        "warnings",
    ]))?;
    host::run(
        host::cargo(&[
            "doc",
            "--locked",
            "-j2",
            "--workspace",
            "--no-deps",
            "--document-private-items",
        ])
        .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links"),
    )?;
    deny()?;
    demo::test(&[])?;
    make_room()?;
    demo::demo(&["--once", "--json"])?;
    bench_contain::battery(&[])?;
    bench_contain::contain(&["--short"])?;
    captures::negatives(&["--short"])?;
    match shared() {
        Some(shared) => {
            captures::run(&shared.join("data/pcap").to_string_lossy())?;
            let generator = shared.join("bench").to_string_lossy().into_owned();
            bench::engine(&generator, &["--short"])?;
            bench::indicators(&generator, &["--short"])?;
        }
        None => eprintln!(
            "NOT COVERED here: public captures and the engine benches, as the folder with their data is not on this machine"
        ),
    }
    evaluate::run(&["--short", "E1", "E2", "E5", "E7", "E8", "E10", "E11", "E12", "E13", "E14"])
}

/// Takes away what only the tests needed, as what follows runs release builds; says what is free.
fn make_room() -> Result<(), Failure> {
    host::run(&mut host::cargo(&[
        "clean",
        "--profile=dev",
        "-psekisho-agent",
        "-psekisho-collector",
        "-psekisho-engine",
        "-psekisho-integration",
    ]))?;
    eprintln!("{:.1} GB are free", host::free_gb());
    Ok(())
}

/// The folder with captures and workload generators, beside the checkout on the machines that have it.
fn shared() -> Option<PathBuf> {
    let beside = host::top().parent()?.join("shared");
    beside.join("data/pcap").is_dir().then_some(beside)
}

fn deny() -> Result<(), Failure> {
    let there =
        host::cargo(&["deny", "--version"]).output().is_ok_and(|done| done.status.success());
    if !there {
        host::run(&mut host::cargo(&[
            "install",
            "--locked",
            "-j2",
            "cargo-deny",
            "--version",
            DENY,
        ]))?;
    }
    host::run(&mut host::cargo(&["deny", "--locked", "check", "bans", "licenses", "sources"]))
}
