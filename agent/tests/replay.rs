//! `sekisho replay` as a program: captures in, findings out, exit codes and complaints as promised.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that meets the unexpected ends"
)]

use pcap::{Capture, Linktype, Packet, PacketHeader, Precision};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Metasploit's PlugX probe for key 0x12345678, cipher T1 (plugx.md, vector V10).
const PROBE: [u8; 16] = 0x7856_3412_278a_2aea_c369_b774_7def_c1dd_u128.to_be_bytes();
const SERVER: [u8; 4] = [10, 77, 1, 2];
const C2: [u8; 4] = [203, 0, 113, 9];

#[test]
fn a_plugx_probe_is_found_on_the_frame_that_carries_it() {
    let dir = tempfile::tempdir().unwrap();
    let capture = save(dir.path(), "probe.pcap", &probe_flow(1_780_000_000));
    let output = sekisho(&["replay", "--json", capture.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let lines = lines(&output);
    let finding = lines.iter().find(|line| line["type"] == "finding").unwrap();
    assert_eq!(
        (finding["detector"].as_str(), finding["grade"].as_str()),
        (Some("plugx.tcp"), Some("malicious"))
    );
    assert_eq!(finding["frame"], 4);
    assert_eq!(finding["flow"]["local"], "10.77.1.2:41822");
    assert_eq!(finding["flow"]["remote"], "203.0.113.9:443");
    assert_eq!(finding["decision"]["action"], "withhold");
    assert_eq!(finding["decision"]["reason"], "dry-run");
    assert!(finding["process"].is_null());
    let summary = lines.last().unwrap();
    assert_eq!(
        (summary["type"].as_str(), summary["frames"].as_u64(), summary["would_contain"].as_u64()),
        (Some("summary"), Some(4), Some(1))
    );
    assert_eq!(summary["findings"]["plugx.tcp"], 1);
}

#[test]
fn the_same_captures_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let one = save(dir.path(), "one.pcap", &probe_flow(1_780_000_000));
    let two = save(dir.path(), "two.pcap", &probe_flow(1_780_000_600));
    let args = ["replay", "--json", one.to_str().unwrap(), two.to_str().unwrap()];
    let first = sekisho(&args);
    assert!(first.stdout.len() > 1000);
    for _ in 0..3 {
        assert_eq!(sekisho(&args).stdout, first.stdout);
    }
    let frames: Vec<u64> = lines(&first)
        .iter()
        .filter(|line| line["type"] == "finding")
        .map(|line| line["frame"].as_u64().unwrap())
        .collect();
    assert_eq!(frames.first(), Some(&4));
    assert_eq!(lines(&first).last().unwrap()["frames"], 8);
    let seqs: Vec<u64> = lines(&first).iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
}

#[test]
fn traffic_without_anything_in_it_exits_with_zero() {
    let dir = tempfile::tempdir().unwrap();
    let mut frames = probe_flow(1_780_000_000);
    frames.pop();
    let capture = save(dir.path(), "quiet.pcap", &frames);
    let output = sekisho(&["replay", capture.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("findings: none"));
}

#[test]
fn a_truncated_capture_is_told_and_its_findings_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let capture = save(
        dir.path(),
        "cut.pcap",
        &[probe_flow(1_780_000_000), probe_flow(1_780_000_600)].concat(),
    );
    let bytes = std::fs::read(&capture).unwrap();
    std::fs::write(&capture, &bytes[..bytes.len() - 7]).unwrap();
    let output = sekisho(&["replay", "--json", capture.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let lines = lines(&output);
    assert!(lines.iter().any(|line| line["detector"] == "plugx.tcp"));
    assert_eq!(lines.last().unwrap()["frames"], 7);
    three_lines(&output, &["cut.pcap", "beyond frame 7"]);
}

#[test]
fn a_corrupted_capture_is_told_without_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let capture = save(dir.path(), "bad.pcap", &probe_flow(1_780_000_000));
    let mut bytes = std::fs::read(&capture).unwrap();
    // The captured length of the second frame becomes absurd.
    let second = 24 + 16 + 54;
    bytes[second + 8..second + 12].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
    std::fs::write(&capture, &bytes).unwrap();
    let output = sekisho(&["replay", "--json", capture.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(lines(&output).last().unwrap()["frames"], 1);
    three_lines(&output, &["bad.pcap", "beyond frame 1"]);
}

#[test]
fn what_is_no_capture_is_told_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("notes.txt");
    std::fs::write(&file, "not a capture at all, just some words").unwrap();
    for path in [file.clone(), dir.path().join("absent.pcap"), dir.path().to_owned()] {
        let output = sekisho(&["replay", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{path:?}");
        three_lines(&output, &[path.file_name().unwrap().to_str().unwrap()]);
    }
}

#[test]
fn a_pcapng_reads_like_a_pcap() {
    let dir = tempfile::tempdir().unwrap();
    let frames = probe_flow(1_780_000_000);
    let classic = save(dir.path(), "classic.pcap", &frames);
    let modern = dir.path().join("modern.pcapng");
    std::fs::write(&modern, pcapng(&frames)).unwrap();
    let run = |path: &Path| sekisho(&["replay", "--json", path.to_str().unwrap()]);
    assert_eq!(run(&modern).stdout, run(&classic).stdout);
    let piped = Command::new(env!("CARGO_BIN_EXE_sekisho"))
        .args(["replay", "--json", "-"])
        .stdin(std::fs::File::open(&modern).unwrap())
        .output()
        .unwrap();
    assert_eq!(piped.stdout, run(&classic).stdout);
}

#[test]
fn an_indicator_list_and_an_enforcing_policy_decide_a_cut_and_show_the_ruleset() {
    let dir = tempfile::tempdir().unwrap();
    let mut frames = probe_flow(1_780_000_000);
    frames.pop();
    let capture = save(dir.path(), "sight.pcap", &frames);
    let list = dir.path().join("feed.txt");
    std::fs::write(&list, "# feed\n203.0.113.9\n").unwrap();
    let policy = dir.path().join("policy.toml");
    std::fs::write(&policy, POLICY).unwrap();
    let output = sekisho(&[
        "replay",
        "--json",
        "--show-ruleset",
        "--rules",
        list.to_str().unwrap(),
        "--policy",
        policy.to_str().unwrap(),
        capture.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = lines(&output);
    let finding = lines.iter().find(|line| line["type"] == "finding").unwrap();
    assert_eq!(
        (finding["detector"].as_str(), finding["decision"]["action"].as_str()),
        (Some("indicator.ip"), Some("contain"))
    );
    let ruleset = lines.iter().find(|line| line["type"] == "ruleset").unwrap();
    assert!(ruleset["nftables"]["nftables"].as_array().unwrap().len() > 10);
    assert_eq!(ruleset["set"]["containments"].as_object().unwrap().len(), 1);
}

#[test]
fn a_policy_with_an_unknown_key_and_a_malformed_list_stop_the_replay_before_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    let capture = save(dir.path(), "x.pcap", &probe_flow(1_780_000_000));
    let policy = dir.path().join("policy.toml");
    std::fs::write(&policy, POLICY.replace("mode =", "moode = 1\nmode =")).unwrap();
    let output =
        sekisho(&["replay", "--policy", policy.to_str().unwrap(), capture.to_str().unwrap()]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    three_lines(&output, &["4:1", "moode"]);
    let list = dir.path().join("feed.txt");
    std::fs::write(&list, "203.0.113.9\n203.0.113.0/240\n").unwrap();
    let output = sekisho(&["replay", "--rules", list.to_str().unwrap(), capture.to_str().unwrap()]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    three_lines(&output, &["feed.txt:2", "203.0.113.0/240"]);
}

const POLICY: &str = r#"
schema = "sekisho.policy/1"
version = 3
mode = "enforce"
[[decide]]
detector = "*"
grade = "malicious"
level = 3
lease = "1h"
[duty]
group = "web"
owner = "a"
deputy = "b"
"#;

fn sekisho(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sekisho")).args(args).output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn three_lines(output: &Output, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    let starts: Vec<&str> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(starts, ["error:", "state:", "help:"], "{text}");
    for part in parts {
        assert!(text.lines().next().unwrap().contains(part), "{part}: {text}");
    }
}

/// A handshake and the probe, five milliseconds apart.
fn probe_flow(second: i64) -> Vec<(i64, Vec<u8>)> {
    let (syn, syn_ack, ack, push) = (0x02, 0x12, 0x10, 0x18);
    let out = |flags, seq, acked, data: &[u8]| tcp(SERVER, 41822, C2, 443, flags, seq, acked, data);
    let back = |flags, seq, acked| tcp(C2, 443, SERVER, 41822, flags, seq, acked, &[]);
    [
        out(syn, 1000, 0, &[]),
        back(syn_ack, 5000, 1001),
        out(ack, 1001, 5001, &[]),
        out(push, 1001, 5001, &PROBE),
    ]
    .into_iter()
    .enumerate()
    .map(|(at, frame)| (second * 1_000_000 + i64::try_from(at).unwrap() * 5000, frame))
    .collect()
}

#[allow(clippy::too_many_arguments, reason = "a TCP segment has these parts")]
fn tcp(
    from: [u8; 4],
    from_port: u16,
    to: [u8; 4],
    to_port: u16,
    flags: u8,
    seq: u32,
    ack: u32,
    data: &[u8],
) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    let length = u16::try_from(40 + data.len()).unwrap();
    let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0];
    ip[2..4].copy_from_slice(&length.to_be_bytes());
    ip.extend(from);
    ip.extend(to);
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = !(u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap());
    ip[10..12].copy_from_slice(&folded.to_be_bytes());
    frame.extend(ip);
    frame.extend(from_port.to_be_bytes());
    frame.extend(to_port.to_be_bytes());
    frame.extend(seq.to_be_bytes());
    frame.extend(ack.to_be_bytes());
    frame.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    frame.extend(data);
    frame
}

fn save(dir: &Path, name: &str, frames: &[(i64, Vec<u8>)]) -> PathBuf {
    let path = dir.join(name);
    let dead = Capture::dead_with_precision(Linktype::ETHERNET, Precision::Micro).unwrap();
    let mut file = dead.savefile(&path).unwrap();
    for (micros, bytes) in frames {
        let length = u32::try_from(bytes.len()).unwrap();
        let mut header = PacketHeader { ts: zero_time(), caplen: length, len: length };
        header.ts.tv_sec = micros / 1_000_000;
        header.ts.tv_usec = micros % 1_000_000;
        file.write(&Packet { header: &header, data: bytes });
    }
    file.flush().unwrap();
    path
}

/// A `timeval` without naming the crate that it comes from.
fn zero_time<T: Default>() -> T {
    T::default()
}

/// The same as pcapng: one section, one interface with microseconds, enhanced packet blocks.
fn pcapng(frames: &[(i64, Vec<u8>)]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let length = u32::try_from(12 + body.len().next_multiple_of(4)).unwrap();
        let mut bytes = [kind.to_le_bytes(), length.to_le_bytes()].concat();
        bytes.extend(body);
        bytes.resize(usize::try_from(length).unwrap() - 4, 0);
        bytes.extend(length.to_le_bytes());
        bytes
    };
    let mut file = block(
        0x0A0D_0D0A,
        &[&0x1A2B_3C4D_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat(),
    );
    file.extend(block(1, &[1, 0, 0, 0, 0, 0, 4, 0]));
    for (micros, bytes) in frames {
        let high = u32::try_from(micros >> 32).unwrap();
        let low = u32::try_from(micros & 0xffff_ffff).unwrap();
        let length = u32::try_from(bytes.len()).unwrap();
        let mut body: Vec<u8> =
            [0, high, low, length, length].iter().flat_map(|word| word.to_le_bytes()).collect();
        body.extend(bytes);
        file.extend(block(6, &body));
    }
    file
}
