//! The collector is away for the whole incident: the cut is as fast, and afterwards every event is there exactly once.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a laboratory fails loudly"
)]

use sekisho_integration::topology::MANY_C2;
use sekisho_integration::{Agent, AgentSetup, Collector, Network, PolicyText, wait_for};
use sekisho_schema::Envelope;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Provokes a cut of a destination of its own and returns its time to contain.
fn incident(network: &Network, agent: &Agent, address: &str) -> Duration {
    let mut implant = network.web.actor(&["knock", "--setting", "T1"]);
    implant.ask(&format!("go {address}:443"));
    let scope = format!("dest:{address}");
    let receipt = agent.receipt(&scope, Duration::from_secs(5), |receipt| {
        receipt.applied && receipt.scope.to_string() == scope
    });
    Duration::from_nanos(
        receipt.time_to_contain_ns.expect("a cut by detection has a time").unsigned_abs(),
    )
}

fn by_sequence(events: &[Value]) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    for event in events {
        *counts
            .entry(
                event["seq"]
                    .as_u64()
                    .unwrap_or_else(|| panic!("an event without a sequence: {event}")),
            )
            .or_default() += 1;
    }
    counts
}

#[test]
fn without_the_collector_the_cut_is_as_fast_and_every_event_arrives_exactly_once_afterwards() {
    let network = Network::build();
    let mut collector = Collector::init(&network);
    collector.start();
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    collector.enrol(&setup);
    setup.seal(&PolicyText { level: 3, ..PolicyText::new(1, "enforce") });
    let agent = setup.start();
    let _c2 = network.c2.actor(&["plugx-c2", "--settings", "443=T1"]);
    let with: Vec<Duration> =
        (1..=10).map(|nth| incident(&network, &agent, &format!("{MANY_C2}.7.{nth}"))).collect();
    collector.event("the first receipts at the collector", Duration::from_secs(10), |event| {
        event["type"] == "receipt"
    });
    collector.kill9();
    let without: Vec<Duration> =
        (11..=20).map(|nth| incident(&network, &agent, &format!("{MANY_C2}.7.{nth}"))).collect();
    let median = |times: &[Duration]| {
        let mut times = times.to_vec();
        times.sort();
        times[times.len() / 2]
    };
    assert!(
        median(&without) < median(&with) * 10 + Duration::from_millis(2),
        "with the collector {with:?}, without {without:?}"
    );
    collector.start();
    let journal: Vec<Envelope> = agent.journal();
    let last = journal.last().expect("a journal").seq;
    wait_for("every event at the collector", Duration::from_secs(60), || {
        by_sequence(&collector.events()).contains_key(&last).then_some(())
    });
    let counts = by_sequence(&collector.events());
    let missing: Vec<u64> =
        journal.iter().map(|line| line.seq).filter(|seq| !counts.contains_key(seq)).collect();
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).collect();
    assert!(
        missing.is_empty() && twice.is_empty(),
        "missing {missing:?}, more than once {twice:?}"
    );
}
