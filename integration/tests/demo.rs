//! The demo and the measurement, as the README's commands run them.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a laboratory fails loudly"
)]

use sekisho_integration::{wait_for, wait_until};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

fn demo(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jtb"));
    command.args(words).stdin(Stdio::null());
    command
}

/// Names of network namespaces that a process with this id made.
fn namespaces_of(pid: u32) -> Vec<String> {
    let listed = Command::new("ip").args(["netns", "list"]).output().unwrap();
    let prefix = format!("sk{pid}-");
    let listed = String::from_utf8(listed.stdout).unwrap();
    listed.lines().filter(|line| line.starts_with(&prefix)).map(str::to_owned).collect()
}

#[test]
fn the_demo_holds_every_line_of_its_table() {
    let output = demo(&["--once", "--json"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let table: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no JSON object: {error}; it said:\n{said}"));
    assert_eq!(output.status.code(), Some(0), "{table:#}\n{said}");
    assert_eq!(table["detector"], "plugx.tcp");
    assert_eq!(table["stolen_bytes_at_c2"], 0);
    assert_eq!(table["legitimate_lost"], 0);
    assert_eq!(table["exemptions"], "ok");
    for fact in ["cut_proven", "finding_at_collector", "receipt_at_collector", "page_reachable"] {
        assert_eq!(table[fact], true, "{fact}");
    }
    let lines = table["lines"].as_array().unwrap();
    assert!(lines.len() >= 12 && lines.iter().all(|line| line["holds"] == true), "{table:#}");
}

/// A demo that is killed with this value, so that a failed assertion leaves no laboratory locked.
struct HalfWay(Child);

impl Drop for HalfWay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the demo and waits until its network is there.
fn half_way() -> HalfWay {
    let mut child = demo(&["--json"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.next().and_then(Result::ok).unwrap_or_default();
    assert!(line.contains("laboratory"), "{line}");
    // Read on, so that the demo does not stop at a full pipe.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    HalfWay(child)
}

#[test]
fn a_demo_that_is_ended_or_killed_half_way_leaves_nothing_behind() {
    use rustix::process::{Pid, Signal, kill_process};
    // Not SIGINT, which does what SIGTERM does: whoever runs tests in the background may have it ignored.
    for signal in [Signal::TERM, Signal::KILL] {
        let mut demo = half_way();
        let child = &mut demo.0;
        let pid = child.id();
        assert!(!namespaces_of(pid).is_empty());
        kill_process(Pid::from_child(child), signal).unwrap();
        wait_for("the demo to end", Duration::from_secs(5), || child.try_wait().ok().flatten());
        let swept =
            wait_until(Duration::from_secs(20), || namespaces_of(pid).is_empty().then_some(()));
        assert!(swept.is_some(), "after {signal:?} it left {:?}", namespaces_of(pid));
    }
}

#[test]
fn the_measurement_has_a_time_for_every_run() {
    let output = Command::new(env!("CARGO_BIN_EXE_time-to-contain"))
        .args(["--runs", "10", "--json"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let facts: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    // Whether the goals hold is the bench's to say: here others use the machine as well.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{facts}: {said}");
    for priority in ["granted", "refused"] {
        let told = &facts[priority];
        assert_eq!((&told["missed"], &told["runs"]), (&0.into(), &10.into()), "{facts}");
        assert!(told["sekisho"]["count"] == 10, "{facts}");
        assert!(told["sekisho"]["p50_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{facts}");
    }
    assert!(
        facts["granted"]["forked_nft"]["p50_ms"].as_f64().is_some_and(|ms| ms > 0.0),
        "{facts}"
    );
}
