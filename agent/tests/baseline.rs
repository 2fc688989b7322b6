//! From what hosts learned over what people sign to a certificate, by the verbs alone.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use sekisho_engine::certify::episode::{ScoreInputs, input, scored};
use sekisho_engine::certify::sentence::sentence;
use sekisho_engine::certify::{Channel, EpisodeKey, Tier};
use sekisho_schema::baseline::{Episode, LEARNED_SCHEMA, Learned, RoleBaseline};
use sekisho_schema::certificate::Certificate;
use sekisho_schema::ruling::Ruling;
use sekisho_schema::sealed::key_pair;
use sekisho_schema::{
    Action, Body, DecisionRecord, Envelope, Finding, Grade, Record, Span, Subject, Timestamp,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A Monday, 00:00 UTC.
const START: Timestamp = Timestamp::from_nanos(1_779_667_200_000_000_000);

fn hour(hours: i64) -> Timestamp {
    START.after(Span::from_hours(hours))
}

fn key(destination: &str) -> EpisodeKey {
    EpisodeKey {
        workload: "unit:web.service".parse().unwrap(),
        destination: destination.parse().unwrap(),
        service: "tcp/443".parse().unwrap(),
    }
}

fn upload(destination: &str, up: u64) -> Episode {
    let inputs = ScoreInputs(vec![(input::UP, up as f64), (input::DOWN, 0.0)]);
    Episode {
        key: key(destination),
        first_at: START,
        last_at: hour(1),
        contacts: 1,
        days: 1,
        hours: 1,
        up,
        down: 0,
        net: up,
        rhythm: 0.0,
        proven_at: None,
        gaps: Vec::new(),
        oddities: Vec::new(),
        users: 1,
        scores: vec![scored(Channel::Allowance, hour(1), inputs).unwrap()],
        crossings: Vec::new(),
    }
}

/// A house with forty records of four weeks each, one of which holds a theft and another a backup.
struct House {
    dir: TempDir,
}

impl House {
    fn new() -> Self {
        let house = Self { dir: TempDir::new().unwrap() };
        for name in ["learned", "state", "trust"] {
            fs::create_dir(house.path(name)).unwrap();
        }
        for n in 1..=40_u64 {
            let mut episodes = vec![upload(&format!("own{n}.example"), n * 1000)];
            match n {
                7 => episodes.push(upload("theft.example", 3_000_000_000)),
                9 => episodes.push(upload("backup.example", 40_000_000)),
                _ => {}
            }
            let record = Learned {
                schema: LEARNED_SCHEMA.into(),
                host: format!("h{n:02}"),
                role: "web".into(),
                agent: "0.1.0".into(),
                from: START,
                until: hour(4 * 168),
                hours: 4 * 168,
                hours_of_week: vec![4; 168],
                workloads: Vec::new(),
                episodes,
            };
            let text = serde_json::to_string(&record).unwrap();
            fs::write(house.path(&format!("learned/h{n:02}.json")), text).unwrap();
        }
        let (secret, public) = key_pair(&[7; 32]);
        fs::write(house.path("key"), secret).unwrap();
        fs::write(house.path("trust/a.pub"), public).unwrap();
        let config = format!(
            "[paths]\nstate = {:?}\ntrust = {:?}\n",
            house.path("state"),
            house.path("trust")
        );
        fs::write(house.path("agent.toml"), config).unwrap();
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a verb; its exit code and what it said.
    fn run(&self, words: &[&str]) -> (i32, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_sekisho"))
            .arg("baseline")
            .args(words)
            .args(["--config", self.path("agent.toml").to_str().unwrap()])
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    fn review(&self, baseline: &[&str]) -> Vec<serde_json::Value> {
        let words = with(&["review", "--learned", "learned", "-o", "json"], baseline);
        let (_, text) = self.run(&words);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The name of the item about a destination.
    fn item(&self, destination: &str) -> String {
        let items = self.review(&[]);
        let item = items.iter().find(|item| item["key"]["destination"] == destination).unwrap();
        item["id"].as_str().unwrap().to_owned()
    }
}

/// Words and more words.
fn with<'a>(words: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [words, more].concat()
}

const BY: [&str; 6] = ["--by", "Aiko", "--reason", "looked at it", "--key", "key"];

#[test]
fn learned_traffic_becomes_a_certificate_only_after_people_decided_what_is_large() {
    let house = House::new();
    let (code, told) = house.run(&["review", "--learned", "learned"]);
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("2 to decide in 160.0 host-weeks"), "{told}");

    // Undecided: everything is locked.
    let locked = ["certify", "--learned", "learned", "--key", "key", "--out", "locked.sealed"];
    let (code, told) = house.run(&locked);
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("LOCKED: 2 items"), "{told}");

    let (theft, backup) = (house.item("theft.example"), house.item("backup.example"));
    let words = with(&["refuse", &theft, "--learned", "learned", "--out", "one.sealed"], &BY);
    let (code, told) = house.run(&words);
    assert_eq!(code, 0, "{told}");
    let more = ["--learned", "learned", "--baseline", "one.sealed", "--out", "two.sealed"];
    let words = with(&with(&["approve", &backup], &more), &BY);
    let (code, told) = house.run(&words);
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("0 left to decide"), "{told}");

    let text = fs::read_to_string(house.path("two.toml")).unwrap();
    let baseline = RoleBaseline::parse(&text).unwrap();
    assert_eq!((baseline.version, baseline.entry.len(), baseline.refused.len()), (2, 1, 1));
    assert_eq!(baseline.entry[0].signed_by.as_deref(), Some("Aiko"));
    let (code, told) = house.run(&["diff", "one.toml", "two.sealed"]);
    assert_eq!(code, 1);
    assert_eq!(told, "+ unit:web.service to backup.example (tcp/443), signed by Aiko\n");

    let certify = [
        "certify",
        "--learned",
        "learned",
        "--baseline",
        "two.sealed",
        "--key",
        "key",
        "--out",
        "certificate.sealed",
    ];
    let (code, told) = house.run(&certify);
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("isolate-host") && told.contains("more host-weeks needed"), "{told}");
    let text = fs::read_to_string(house.path("certificate.toml")).unwrap();
    let certificate = Certificate::parse(&text).unwrap();
    assert_eq!(certificate.undecided, 0);
    // One benign upload of 40 MB is within the budget of a cut: the threshold lies below it.
    let threshold = certificate.threshold(Tier::CutDestination, Channel::Allowance).unwrap();
    assert!(threshold < 40e6, "{threshold}");
    assert_eq!(
        certificate.grant(Tier::CutDestination, Channel::Allowance).unwrap().exceedances,
        Some(1)
    );

    report(&house, threshold);
    import(&house);
}

fn report(house: &House, threshold: f64) {
    let words = [
        "report",
        "--learned",
        "learned",
        "--baseline",
        "two.sealed",
        "--certificate",
        "certificate.sealed",
        "-o",
        "json",
    ];
    let (code, told) = house.run(&words);
    assert_eq!(code, 1, "{told}");
    let report: serde_json::Value = serde_json::from_str(&told).unwrap();
    let actions = report["actions"].as_array().unwrap();
    let theft = actions
        .iter()
        .find(|action| action["host"] == "h07" && action["channel"] == "allowance")
        .unwrap();
    assert_eq!(
        (theft["tier"].as_str(), theft["standing"].as_str()),
        (Some("cut-destination"), Some("refused"))
    );
    assert_eq!(theft["counter_threshold"].as_f64(), Some(3e9));
    assert_eq!(theft["bytes_stopped"].as_f64(), Some(3e9 - threshold));
    assert_eq!(theft["users_hit"], 1);
    let (_, table) = house.run(&words[..words.len() - 2]);
    assert!(table.contains("would have stopped 3.0 GB") && table.contains('#'), "{table}");
}

fn import(house: &House) {
    for (file, kind) in [("two.sealed", "baseline 2"), ("certificate.sealed", "certificate 1")] {
        let (code, told) = house.run(&["import", file]);
        assert_eq!(code, 0, "{told}");
        assert!(told.contains(kind), "{told}");
    }
    // An older one, and one that nobody sealed, change nothing.
    assert_eq!(house.run(&["import", "one.sealed"]).0, 1);
    assert_eq!(house.run(&["import", "two.toml"]).0, 2);
    let (code, told) = house.run(&["show", "--learned", "learned"]);
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("baseline 2 with 1 destinations; 0 items to decide"), "{told}");
    assert!(told.contains("certificate 1 of role web: 160.0 host-weeks of 40 hosts"), "{told}");
}

#[test]
fn an_item_that_is_not_on_the_list_and_an_empty_reason_decide_nothing() {
    let house = House::new();
    let words = with(&["approve", "00000000", "--learned", "learned", "--out", "x.sealed"], &BY);
    assert_eq!(house.run(&words).0, 2);
    let theft = house.item("theft.example");
    let (code, told) = house.run(&[
        "approve",
        &theft,
        "--learned",
        "learned",
        "--out",
        "x.sealed",
        "--by",
        "Aiko",
        "--reason",
        " ",
        "--key",
        "key",
    ]);
    assert_eq!(code, 2, "{told}");
    assert!(!house.path("x.sealed").exists());
    // No item at all is a mistake and never all of them.
    assert_eq!(
        house.run(&with(&["approve", "--learned", "learned", "--out", "x.sealed"], &BY)).0,
        2
    );
}

#[test]
fn a_change_window_is_announced_under_seal_and_never_for_longer_than_four_weeks() {
    let house = House::new();
    let announce = |lasts: &str| {
        house.run(&[
            "announce",
            "new backup",
            "--to",
            "backup2.example",
            "--upload",
            "5000000000",
            "--for",
            lasts,
            "--by",
            "Aiko",
            "--role",
            "web",
            "--key",
            "key",
            "--out",
            "w.sealed",
        ])
    };
    assert_eq!(announce("29d").0, 2);
    let (code, told) = announce("2d");
    assert_eq!(code, 0, "{told}");
    let text = fs::read_to_string(house.path("w.toml")).unwrap();
    let baseline = RoleBaseline::parse(&text).unwrap();
    assert_eq!(baseline.window[0].upload, 5_000_000_000);
}

fn finding(up: f64) -> Finding {
    let inputs = ScoreInputs(vec![(input::UP, up), (input::DOWN, 1234.0)]);
    let score = scored(Channel::Allowance, START, inputs).unwrap();
    let ruling = Ruling {
        key: key("theft.example"),
        threshold: 20e6,
        counter_threshold: score.score,
        reached: Tier::CutDestination,
        tier: Tier::CutDestination,
        budget: 0.04,
        reduced: None,
        score,
    };
    Finding {
        id: format!("f-{up}"),
        detector: Channel::Allowance.detector().into(),
        grade: Grade::Suspect,
        score: Some(ruling.score.score),
        subject: Subject { kind: "destination".into(), value: "theft.example".into() },
        flow: None,
        name: None,
        process: None,
        place: None,
        indicator: None,
        explanation: sentence(&ruling),
        evidence: vec![ruling.to_evidence()],
        frame: 1,
        first_packet_at: START,
        matched_at: START,
        decision: DecisionRecord {
            action: Action::Contain,
            scope: None,
            level: 3,
            reason: None,
            lease: None,
            containment: None,
        },
        rule: None,
        policy: 1,
    }
}

fn events(path: &Path, findings: Vec<Finding>) {
    let lines: Vec<String> = findings
        .into_iter()
        .zip(1..)
        .map(|(finding, seq)| {
            let record = Record { at: START, body: Body::Finding(Box::new(finding)) };
            serde_json::to_string(&Envelope::new(seq, "h07", record)).unwrap()
        })
        .collect();
    fs::write(path, lines.join("\n") + "\n").unwrap();
}

#[test]
fn every_record_replays_to_its_score_and_one_that_was_changed_is_named() {
    let house = House::new();
    events(&house.path("good.jsonl"), vec![finding(3e9), finding(33_333_333.0)]);
    let (code, told) = house.run(&["replay", "good.jsonl"]);
    assert_eq!(
        (code, told.lines().next()),
        (0, Some("2 records give the same score again, 0 do not; 0 findings carry no score"))
    );

    let mut changed = finding(3e9);
    changed.explanation = changed.explanation.replace("3.0 GB", "2.0 GB");
    let mut bare = finding(4e9);
    bare.evidence.clear();
    events(&house.path("bad.jsonl"), vec![finding(5e9), changed, bare]);
    let (code, told) = house.run(&["replay", "bad.jsonl", "-o", "json"]);
    assert_eq!(code, 1, "{told}");
    let replayed: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(replayed["same"]["cut-destination"], 1);
    assert_eq!(replayed["faults"].as_array().unwrap().len(), 2, "{told}");
}
