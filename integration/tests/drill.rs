//! Rehearsals: real figures on a healthy machine, a failure where nothing would be cut, and nothing left behind.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a laboratory fails loudly"
)]

use sekisho_integration::lab::agent::journal;
use sekisho_integration::lab::bins;
use sekisho_integration::{AgentSetup, Lab, Node, PolicyText, wait_for, wait_until};
use sekisho_schema::Body;
use sekisho_schema::event::DrillReport;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Stdio;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(45);

/// A host with one uplink that leads nowhere: a drill needs no network of the host.
fn host(lab: &Lab) -> Node {
    let node = lab.node("web");
    node.ip("link add eth0 type veth peer name far0");
    node.ip("link set far0 up");
    node.ip("addr add 10.77.1.2/24 dev eth0");
    node.ip("link set eth0 up");
    node
}

fn setup(lab: &Lab, policy: &PolicyText) -> AgentSetup {
    let setup = AgentSetup::new(&host(lab), lab.dir(), "agent")
        .with("[metrics]\nenabled = false\n".to_owned());
    setup.seal(policy);
    setup
}

fn reports(setup: &AgentSetup) -> Vec<DrillReport> {
    let lines = journal(&setup.state().join("journal"));
    let drills = lines.into_iter().filter_map(|line| match line.body {
        Body::Drill(report) => Some(report),
        _ => None,
    });
    drills.collect()
}

/// Parents by process, of every process of this machine.
fn parents() -> BTreeMap<u32, u32> {
    let parent = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect()
}

fn descendants(of: u32) -> BTreeSet<u32> {
    let parents = parents();
    let mut found = BTreeSet::from([of]);
    loop {
        let more: Vec<u32> = parents
            .iter()
            .filter(|(pid, parent)| found.contains(parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            found.remove(&of);
            return found;
        }
        found.extend(more);
    }
}

fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// Processes of drills, and namespaces of theirs with a name.
fn of_drills() -> Vec<String> {
    let words = ["drill canary", "drill cell", "drill stage", "/run/drill/agent.toml"];
    let processes = parents()
        .into_keys()
        .map(command_line)
        .filter(|line| words.iter().any(|word| line.contains(word)));
    let named = fs::read_dir("/run/netns").into_iter().flatten().filter_map(|entry| {
        let name = entry.ok()?.file_name().to_string_lossy().into_owned();
        name.starts_with("skdrill").then_some(name)
    });
    processes.chain(named).collect()
}

#[test]
fn a_drill_holds_on_a_healthy_machine_and_is_on_record() {
    let lab = Lab::open();
    // What the host itself does is of no account: the rehearsal enforces what the policy decides.
    let setup = setup(&lab, &PolicyText::new(3, "dry-run"));
    let agent = setup.start();
    let tables = setup.node.run("nft list ruleset");
    let output = setup.verb(&["drill", "run", "plugx-tcp", "-o", "json"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_str(&said).unwrap();
    println!("{}", told["report"]);
    let report: DrillReport = serde_json::from_value(told["report"].clone()).unwrap();
    assert!(report.passed && report.checks.values().all(|check| check == "ok"), "{report:?}");
    let (detect, contain) = (report.time_to_detect_ns.unwrap(), report.time_to_contain_ns.unwrap());
    assert!((1..1_000_000_000).contains(&detect) && (1..100_000_000).contains(&contain));
    let figures = &told["figures"];
    assert_eq!(figures["found"]["detector"], "plugx.tcp");
    assert_eq!(figures["level"], 5, "as the policy in force decides");
    assert!(report.leaked_bytes < figures["theft_bytes"].as_u64().unwrap());
    assert!(figures["business"][0].as_u64().unwrap() > 50, "{figures}");
    let times: Vec<&str> = ["first_packet_at", "last_packet_at"]
        .iter()
        .map(|name| figures[name].as_str().unwrap())
        .collect();
    assert!(times[0] < times[1]);
    let recorded = wait_for("the report in the journal", WITHIN, || reports(&setup).pop());
    assert_eq!(recorded, report);
    assert_eq!(setup.node.run("nft list ruleset"), tables, "the host's own rules are untouched");
    assert_eq!(of_drills(), Vec::<String>::new(), "nothing is left behind");
    assert_eq!(setup.verb(&["drill", "report", "plugx-tcp"]).status.code(), Some(0));
    drop(agent);
    // The other one, without an agent: it holds, and nobody was told.
    let output = setup.verb(&["drill", "run", "indicator"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    // The laboratory's table has no line for indicators, which is what a drill is there to tell.
    assert!(output.status.code() == Some(1) && said.contains("says record"), "{said}{why}");
    assert!(why.contains("was not handed to the agent"), "{why}");
    assert_eq!(of_drills(), Vec::<String>::new());
}

#[test]
fn a_drill_fails_when_the_policy_in_force_would_not_cut() {
    let lab = Lab::open();
    let setup = setup(&lab, &PolicyText { level: 0, ..PolicyText::new(1, "enforce") });
    let _agent = setup.start();
    let output = setup.verb(&["drill", "run", "plugx-tcp", "--by", "Aiko"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        said.starts_with("FAILED") && said.contains("its decision table says record"),
        "{said}"
    );
    let report = wait_for("the report in the journal", WITHIN, || reports(&setup).pop());
    assert!(!report.passed && report.checks["found"] == "ok" && report.checks["cut"] != "ok");
    assert!(report.leaked_bytes > 1_000_000, "what nobody cut leaves: {report:?}");
    assert_eq!(report.by.as_deref(), Some("Aiko"));
    assert_eq!(setup.verb(&["drill", "report"]).status.code(), Some(1));
    assert_eq!(of_drills(), Vec::<String>::new(), "nothing is left behind");
}

#[test]
fn what_is_overdue_is_told_and_then_rehearsed_by_the_schedule() {
    let lab = Lab::open();
    let more = "[[drill]]\nname = \"plugx-tcp\"\nevery = \"1h\"\n".to_owned();
    let setup = setup(&lab, &PolicyText { more, ..PolicyText::new(1, "enforce") });
    let kept = json!({
        "schema": "sekisho.drills/1", "asked_since": {"plugx-tcp": "2026-01-01T00:00:00.000000000Z"}, "reports": []
    });
    fs::write(setup.state().join("drills.json"), kept.to_string()).unwrap();
    let listed = setup.verb(&["drill", "list"]);
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.status.code() == Some(1) && text.contains("OVERDUE"), "{text}");
    let agent = setup.start();
    let told = wait_until(WITHIN, || reports(&setup).into_iter().find(|report| !report.passed));
    let told = told.unwrap_or_else(|| panic!("nothing was told: {}", agent.stderr()));
    assert!(told.checks["overdue"].contains("is overdue"), "{told:?}");
    // The agent has laid CAP_NET_ADMIN down by now: its child rehearses in a user namespace of its own.
    let held = wait_until(WITHIN, || reports(&setup).into_iter().find(|report| report.passed));
    let held = held.unwrap_or_else(|| panic!("nothing was rehearsed: {}", agent.stderr()));
    assert_eq!(held.by.as_deref(), Some("schedule"));
    let listed = setup.verb(&["drill", "list"]);
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.status.code() == Some(0) && !text.contains("OVERDUE"), "{text}");
}

#[test]
fn a_drill_that_is_killed_in_the_middle_takes_everything_with_it() {
    let lab = Lab::open();
    let setup = setup(&lab, &PolicyText::new(1, "enforce"));
    let mut command = setup.node.command(bins::product("sekisho"));
    command.args(["drill", "run", "plugx-tcp", "--config"]).arg(setup.configure());
    let mut drill =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let all = wait_for("the attack", WITHIN, || {
        let all = descendants(drill.id());
        all.iter().any(|pid| command_line(*pid).contains("drill canary")).then_some(all)
    });
    assert!(all.len() >= 5, "cell, stage, guardian, agent, canary: {all:?}");
    drill.kill().unwrap();
    drill.wait().unwrap();
    wait_for("everything to end", Duration::from_secs(5), || {
        let parents = parents();
        all.iter().all(|pid| !parents.contains_key(pid)).then_some(())
    });
    assert_eq!(of_drills(), Vec::<String>::new(), "nothing is left behind");
}
