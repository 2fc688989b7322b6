//! The shipped rules against their cases, as `sekisho rules test` runs them.
#![allow(clippy::unwrap_used, reason = "a test")]

use sekisho_agent::cli;
use std::ffi::OsString;

fn run(words: &[&str]) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let words = words.iter().map(OsString::from);
    let code = cli::main(words, &mut out, &mut err);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../rules");

#[test]
fn every_shipped_rule_finds_what_it_must_and_leaves_alone_what_it_must() {
    let (code, out, err) = run(&["sekisho", "rules", "test", RULES]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.ends_with("0 failed; 0 detectors lack a case\n"), "{out}");
}

#[test]
fn a_rule_without_a_case_and_a_case_that_fails_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("packs")).unwrap();
    std::fs::create_dir(path("cases")).unwrap();
    let case = "schema = \"sekisho.cases/1\"\ndetector = \"plugx.tcp\"\n[[case]]\nname = \"silence\"\nexpect = [\"plugx.tcp\"]\npackets = '''\ntcp 10.0.0.5:1 > 203.0.113.9:443\n> \"nothing of the kind\"\n'''\n";
    std::fs::write(path("cases/one.toml"), case).unwrap();
    let entry = |id: &str| {
        format!("[[detector]]\nid = \"{id}\"\ngrade = \"malicious\"\nsource = \"a test\"\n")
    };
    let pack = format!(
        "schema = \"sekisho.rules/1\"\nname = \"plugx\"\nversion = 9\n{}{}",
        entry("plugx.tcp"),
        entry("plugx.http"),
    );
    std::fs::write(path("packs/plugx.toml"), pack).unwrap();
    let folder = folder.path().to_str().unwrap().to_owned();
    let (code, out, _) = run(&["sekisho", "rules", "test", &folder]);
    assert_eq!(code, 1);
    assert!(out.contains("FAILED one.toml: silence\n       plugx.tcp was not told\n"), "{out}");
    assert!(out.contains("LACKING plugx.tcp has no case that it must leave alone\n"), "{out}");
    assert!(out.contains("LACKING plugx.http has no case\n"), "{out}");
}

#[test]
fn a_script_that_can_not_be_read_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("cases")).unwrap();
    let case = "schema = \"sekisho.cases/1\"\ndetector = \"plugx.tcp\"\n[[case]]\nname = \"odd\"\nexpect = []\npackets = '''\ntcp 10.0.0.5:1 > 203.0.113.9:443\n> hex 012\n'''\n";
    std::fs::write(folder.path().join("cases/one.toml"), case).unwrap();
    let folder = folder.path().to_str().unwrap().to_owned();
    let (code, _, err) = run(&["sekisho", "rules", "test", &folder]);
    assert_eq!(code, 2);
    let expected = "error: one.toml: case \"odd\": line 2 of packets: hex has an odd number of digits\nstate: ";
    assert!(err.starts_with(expected), "{err}");
    assert_eq!(err.lines().count(), 3, "{err}");
}
