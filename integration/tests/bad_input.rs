//! Bad input of every kind: three clear lines, the right exit code, nothing lost, no panic.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a laboratory fails loudly"
)]

use sekisho_integration::actors::Dice;
use sekisho_integration::lab::agent::{events, findings};
use sekisho_integration::lab::bins;
use sekisho_integration::topology::C2;
use sekisho_integration::{AgentSetup, Network, PolicyText, wait_for, wait_until};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

fn replay(words: &[&str]) -> Output {
    Command::new(bins::product("sekisho")).arg("replay").arg("--json").args(words).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn assert_three_lines(what: &str, output: &Output, code: i32) -> String {
    let text = said(output);
    assert_eq!(output.status.code(), Some(code), "{what}: {text}");
    assert!(!text.contains("panicked"), "{what}: {text}");
    for part in ["error:", "state:", "help:"] {
        assert!(
            text.lines().any(|line| line.starts_with(part)),
            "{what}: no \"{part}\" line in\n{text}"
        );
    }
    text
}

/// A capture of one PlugX session and what follows it.
fn capture(network: &Network) -> PathBuf {
    let (pcap, loot) = (network.lab.dir().join("good.pcap"), network.lab.dir().join("loot"));
    std::fs::write(&loot, sekisho_integration::actors::customers_file(100_000)).unwrap();
    let _c2 = network.c2.actor(&["plugx-c2", "--settings", "443=T1", "--theft-after-ms", "0"]);
    let mut tap = network.web.actor(&["capture", "--dev", "eth0", "--out", pcap.to_str().unwrap()]);
    let mut implant = network.web.actor(&[
        "plugx-client",
        "--to",
        &format!("{C2}:443"),
        "--setting",
        "T1",
        "--keep-alive-ms",
        "20",
        "--file",
        loot.to_str().unwrap(),
    ]);
    wait_for("the theft to end", Duration::from_secs(10), || {
        (implant.ask("report")["finished"] == true).then_some(())
    });
    tap.ask("stop");
    pcap
}

#[test]
fn truncated_and_corrupted_captures_are_told_and_lose_nothing_before_the_fault() {
    let network = Network::build();
    let good = capture(&network);
    let bytes = std::fs::read(&good).unwrap();
    let path = |name: &str| network.lab.dir().join(name);
    let text = |path: &Path| path.to_str().unwrap().to_owned();

    let cut = path("cut.pcap");
    std::fs::write(&cut, &bytes[..bytes.len() - 7]).unwrap();
    let output = replay(&[&text(&cut)]);
    assert_three_lines("a truncated capture", &output, 2);
    assert_eq!(
        findings(&events(&output.stdout), "plugx.tcp").len(),
        2,
        "the implant and its theft: what came before the fault must have been judged"
    );

    for (name, content) in [
        ("empty.pcap", Vec::new()),
        ("noise.pcap", b"this is not a capture at all, whatever its name says".to_vec()),
        ("header.pcap", bytes[..17].to_vec()),
    ] {
        let file = path(name);
        std::fs::write(&file, content).unwrap();
        assert_three_lines(name, &replay(&[&text(&file)]), 2);
    }
    assert_three_lines("a capture that is not there", &replay(&["/nonexistent/x.pcap"]), 2);

    let mut dice = Dice(12);
    for round in 0..8 {
        let spoilt = path("spoilt.pcap");
        let mut frames = 0;
        sekisho_integration::pcapfile::rewrite(&good, &spoilt, |_, frame| {
            frames += 1;
            for _ in 0..=round {
                let at = usize::try_from(dice.roll()).unwrap_or(0) % frame.len();
                frame[at] = dice.roll().to_le_bytes()[0];
            }
        });
        let output = replay(&[&text(&spoilt)]);
        assert!(
            matches!(output.status.code(), Some(0 | 1)) && !said(&output).contains("panicked"),
            "{}",
            said(&output)
        );
        let told = events(&output.stdout);
        let sekisho_schema::Body::Summary(summary) = &told.last().unwrap().body else {
            panic!("no summary")
        };
        assert_eq!(summary.frames, frames, "every frame is read, whatever is in it");
    }
}

#[test]
fn a_policy_with_an_unknown_key_is_refused_with_line_and_column() {
    let network = Network::build();
    let (good, policy) = (capture(&network), network.lab.dir().join("policy.toml"));
    std::fs::write(
        &policy,
        PolicyText::new(1, "dry-run").toml().replace("mode =", "mood = 1\nmode ="),
    )
    .unwrap();
    let text = assert_three_lines(
        "an unknown key",
        &replay(&["--policy", policy.to_str().unwrap(), good.to_str().unwrap()]),
        2,
    );
    assert!(text.contains("3:1") && text.contains("mood"), "{text}");
}

#[test]
fn a_malformed_indicator_file_is_refused_with_its_line() {
    let network = Network::build();
    let (good, list) = (capture(&network), network.lab.dir().join("list.txt"));
    std::fs::write(&list, "# a list\n203.0.113.9\nnot an indicator at all\n").unwrap();
    let text = assert_three_lines(
        "a malformed list",
        &replay(&["--rules", list.to_str().unwrap(), good.to_str().unwrap()]),
        2,
    );
    assert!(text.contains("list.txt") && text.contains('3'), "{text}");
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent")
        .with(format!("[indicators]\nlists = [{:?}]\n", list.display()));
    // A check that went through and found a fault: a refusal, not a failure of the check.
    assert_three_lines("check of a malformed list", &setup.verb(&["check"]), 1);
}

#[test]
fn a_configuration_with_an_unknown_key_is_refused_with_line_and_column() {
    let network = Network::build();
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent")
        .with("[limits]\nflwos = 1\n".to_owned());
    let text = assert_three_lines("check of an unknown key", &setup.verb(&["check"]), 2);
    assert!(text.contains("flwos") && text.contains("agent.toml:"), "{text}");
    assert_three_lines("run with an unknown key", &setup.verb(&["run"]), 2);
}

#[test]
fn an_empty_or_unknown_scope_is_refused_and_cuts_nothing() {
    let network = Network::build();
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    setup.seal(&PolicyText::new(1, "enforce"));
    let agent = setup.start();
    for scope in ["", "dest:", "everything", "dest:0.0.0.0"] {
        let output = setup.verb(&["contain", scope, "--for", "1h", "--reason", "laboratory"]);
        assert!(
            !output.status.success() && !said(&output).contains("panicked"),
            "{scope}: {}",
            said(&output)
        );
    }
    let output = setup.verb(&["contain", "--for", "1h", "--reason", "laboratory"]);
    assert!(!output.status.success(), "no scope must never mean all");
    assert_eq!(agent.status()["containments"].as_array().map(Vec::len), Some(0));
}

/// A small file system that ends with this value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        assert!(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=4m", "sekisho-lab"])
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        Self(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _left = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_neither_delays_the_cut_nor_loses_the_record() {
    let network = Network::build();
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    setup.seal(&PolicyText::new(1, "enforce"));
    let disk = SmallDisk::mount(setup.state());
    let mut agent = setup.start();
    let filler = disk.0.join("filler");
    // Fails when the disk is full, which is what it is for.
    let _full = std::fs::write(&filler, vec![1_u8; 8 << 20]);
    let mut implant = network.web.actor(&["knock", "--setting", "T1"]);
    let _c2 = network.c2.actor(&["plugx-c2", "--settings", "443=T1"]);
    implant.ask(&format!("go {C2}:443"));
    wait_for("the cut in the kernel", Duration::from_secs(5), || {
        (!sekisho_integration::lab::kernel::timed_elements(&network.web).is_empty()).then_some(())
    });
    let told = wait_until(Duration::from_secs(5), || {
        Some(agent.status()).filter(|status| status["journal"]["failure"].is_string())
    });
    assert!(told.is_some(), "the full disk must be told: {}", agent.status());
    std::fs::remove_file(&filler).unwrap();
    agent.finding("plugx.tcp", Duration::from_secs(15));
    agent.receipt("of the cut", Duration::from_secs(15), |receipt| receipt.applied);
    wait_for("the journal to recover", Duration::from_secs(15), || {
        agent.status()["journal"]["failure"].is_null().then_some(())
    });
    assert!(agent.alive() && !agent.stderr().contains("panicked"), "{}", agent.stderr());
    setup.must(&["journal", "verify"]);
    drop(agent);
    drop(disk);
}
