//! Housekeeping in Rust: `cargo xtask VERB`.
//!
//! Imports no product crate, so that it builds when the product does not.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command for people at a terminal")]

mod bench;
mod bench_contain;
mod bench_live;
mod captures;
mod ci;
mod demo;
mod evaluate;
mod fuzz;
mod host;
mod parity;
mod shipped;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask VERB

  demo [--once] [--json]   the JTB story in a laboratory of namespaces, from a bare machine
  test [-- ARG…]           the whole test suite, laboratories included, from a bare machine
  ci                       what .ci/run calls: formatting, lints, docs, tidy, licences, test, demo, short benches
  tidy                     layers without cycles, size limits, words, dependency ceilings
  setup                    install the Debian packages that build and tests need
  bench engine DIR [--short]      cost per packet in replay beside the bare libpcap loop; DIR holds the workload generator
  bench indicators DIR [--short]  each kind, 1,000 to 5,000,000: load, memory, lookup, cost per packet
  bench live DIR [--short]        loss, CPU and memory of the agent at rising rates over a veth, beside a bare ring
  bench preload DIR               forwarding with a million known destinations in the kernel, and what of one leaks
  bench reload DIR                a million indicators read anew while packets flow
  bench contain [--short]  the price of a cut, time to contain under load, bytes that leave after the match
  battery [--json]         what still leaves under the rule shapes of others, and under ours, in the same battery
  captures DIR             replay public captures: no panic, every frame accounted for, nothing that cuts but where it belongs
  evaluate [E1 …] [--short] [--json]  the experiments of detection: target, measured, held or missed, others' formulas beside ours
  evaluate --folder DIR [--json]      the same on captures, Zeek conn and dns logs, and lists of packets
  negatives [--short]      random payloads with forged sizes through the engine: nothing that cuts
  fuzz [SECONDS] [TARGET…]  every reader of what strangers write against libFuzzer, 600 s each; needs the nightly compiler
  parity DIR [FILE…]       JA3, JA4, server names and DNS names of public captures beside tshark's: every difference
  shipped-indicators CSV   make rules/indicators of a table of public indicators: licences, expiry, provenance
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["demo", rest @ ..] => demo::demo(rest),
        ["test", rest @ ..] => demo::test(rest),
        ["ci"] => ci::run(),
        ["tidy"] => tidy::run(),
        ["setup"] => host::install_packages(),
        ["battery", rest @ ..] => bench_contain::battery(rest),
        ["bench", "engine", folder, rest @ ..] => bench::engine(folder, rest),
        ["bench", "indicators", folder, rest @ ..] => bench::indicators(folder, rest),
        ["bench", "contain", rest @ ..] => bench_contain::contain(rest),
        ["bench", "live", folder, rest @ ..] => bench_live::live(folder, rest),
        ["bench", "preload", folder] => bench_live::preload(folder),
        ["bench", "reload", folder] => bench_live::reload(folder),
        ["shipped-indicators", table] => shipped::make(table),
        ["captures", folder] => captures::run(folder),
        ["evaluate", rest @ ..] => evaluate::run(rest),
        ["negatives", rest @ ..] => captures::negatives(rest),
        ["fuzz", rest @ ..] => fuzz::run(rest),
        ["parity", folder, files @ ..] => parity::run(folder, files),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}
