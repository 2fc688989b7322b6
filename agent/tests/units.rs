//! The units as systemd reads them: no key it does not know, and an order that has no circle.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected ends")]

use std::path::Path;
use std::process::Command;

const UNITS: [&str; 3] = ["sekisho-boot.service", "sekisho-guardian.service", "sekisho.service"];

fn read(unit: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist").join(unit);
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn systemd_takes_every_unit_and_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for unit in UNITS {
        // The program need not be installed here.
        let text = read(unit).replace("/usr/bin/sekisho", "/bin/true");
        let path = dir.path().join(unit);
        std::fs::write(&path, text).unwrap();
        files.push(path);
    }
    let output = Command::new("systemd-analyze").arg("verify").args(&files).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("sekisho")).collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");
}

#[test]
fn what_was_held_is_held_before_there_is_a_network() {
    for unit in ["sekisho-boot.service", "sekisho-guardian.service"] {
        let text = read(unit);
        let of = |key: &str| -> Vec<String> {
            let lines = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
        };
        assert!(of("Before").contains(&"network-pre.target".to_owned()), "{unit}");
        assert!(of("Wants").contains(&"network-pre.target".to_owned()), "{unit}");
    }
}

#[test]
fn the_power_to_cut_is_the_guardians_alone() {
    let may = |unit: &str| {
        let text = read(unit);
        text.lines().any(|line| {
            line.starts_with("CapabilityBoundingSet=") && line.contains("CAP_NET_ADMIN")
        })
    };
    assert!(may("sekisho-guardian.service") && !may("sekisho.service"));
}
