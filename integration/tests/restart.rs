//! The cut outlives the agent, and the lease outlives neither.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a laboratory fails loudly"
)]

use sekisho_integration::matrix::{Escapes, Lifelines};
use sekisho_integration::{AgentSetup, Network, PolicyText, wait_for};
use std::time::{Duration, Instant};

fn contained(network: &Network, lease: &str) -> (AgentSetup, sekisho_integration::Agent, String) {
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    setup.seal(&PolicyText::new(1, "enforce"));
    let agent = setup.start();
    setup.must(&["contain", "host", "--for", lease, "--reason", "laboratory"]);
    let status = wait_for("the containment in status", Duration::from_secs(5), || {
        Some(agent.status()).filter(|status| status["containments"][0].is_object())
    });
    let id = status["containments"][0]["containment"]["id"].as_str().unwrap().to_owned();
    (setup, agent, id)
}

#[test]
fn a_killed_agent_leaves_the_cut_and_the_next_one_adopts_it() {
    let network = Network::build();
    let mut escapes = Escapes::open(&network);
    let mut lifelines = Lifelines::open(&network);
    let (setup, agent, id) = contained(&network, "1h");
    agent.kill9();
    escapes.assert_cut();
    lifelines.assert_open();
    let agent = setup.start();
    let status = agent.status();
    assert_eq!(
        status["containments"][0]["containment"]["id"].as_str(),
        Some(id.as_str()),
        "{status}"
    );
    escapes.assert_cut();
    lifelines.assert_open();
    setup.must(&["release", &id, "--reason", "laboratory", "--break-glass"]);
    escapes.assert_open();
}

#[test]
fn the_kernel_lets_go_at_the_end_of_the_lease_with_the_agent_dead() {
    let network = Network::build();
    let mut escapes = Escapes::open(&network);
    let (_setup, agent, _id) = contained(&network, "10s");
    let began = Instant::now();
    agent.kill9();
    escapes.assert_cut();
    assert!(began.elapsed() < Duration::from_secs(9), "the laboratory was too slow to see the cut");
    wait_for("the lease to end", Duration::from_secs(20), || {
        (began.elapsed() > Duration::from_millis(10_800)).then_some(())
    });
    escapes.assert_open();
}

#[test]
fn an_agent_that_is_told_to_stop_leaves_the_cut() {
    let network = Network::build();
    let mut escapes = Escapes::open(&network);
    let (_setup, agent, _id) = contained(&network, "1h");
    agent.stop();
    escapes.assert_cut();
}
