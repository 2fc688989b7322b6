//! `learn` and `dry-run` change nothing in the kernel and say what would have been cut.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a laboratory fails loudly"
)]

use sekisho_integration::topology::C2;
use sekisho_integration::{Agent, AgentSetup, Network, PolicyText, Ruleset};
use sekisho_schema::finding::{Action, Reason};
use std::time::Duration;

/// Plays an incident before `agent` and compares the ruleset before, during and after.
fn nothing_changes(network: &Network, before: &Ruleset, agent: Agent, reason: Reason) {
    let c2 = network.c2.actor(&["plugx-c2", "--settings", "443=T3-20150202"]);
    let mut implant = network.web.actor(&["knock", "--setting", "T3-20150202"]);
    implant.ask(&format!("go {C2}:443"));
    let finding = agent.finding("plugx.tcp", Duration::from_secs(5));
    assert_eq!(
        (finding.decision.action, finding.decision.reason),
        (Action::Withhold, Some(reason)),
        "{finding:?}"
    );
    assert_eq!(
        (finding.decision.scope.as_deref(), finding.decision.level),
        (Some("host"), 5),
        "it must say what would have been cut"
    );
    assert!(agent.receipts().is_empty(), "nothing was applied, so nothing may be acknowledged");
    assert_eq!(&Ruleset::of(&network.web), before, "the ruleset changed while the agent ran");
    agent.stop();
    assert_eq!(&Ruleset::of(&network.web), before, "the ruleset changed when the agent ended");
    assert_eq!(
        c2.finish()["raw_bytes"].as_u64(),
        Some(16),
        "the probe itself must have got through"
    );
}

fn network_with_foreign_rules() -> (Network, Ruleset) {
    let network = Network::build();
    network.web.run("nft add table inet foreign");
    network.web.run("nft add chain inet foreign output { type filter hook output priority 0 ; policy accept ; }");
    network.web.run("nft add rule inet foreign output udp dport 9 counter drop");
    let before = Ruleset::of(&network.web);
    (network, before)
}

#[test]
fn learn_changes_nothing_in_the_kernel_and_says_what_would_have_been_cut() {
    let (network, before) = network_with_foreign_rules();
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    setup.seal(&PolicyText::new(1, "learn"));
    nothing_changes(&network, &before, setup.start(), Reason::Learn);
}

#[test]
fn dry_run_changes_nothing_in_the_kernel_and_says_what_would_have_been_cut() {
    let (network, before) = network_with_foreign_rules();
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    setup.seal(&PolicyText::new(1, "dry-run"));
    nothing_changes(&network, &before, setup.start(), Reason::DryRun);
}

#[test]
fn without_any_policy_the_agent_cuts_nothing() {
    let (network, before) = network_with_foreign_rules();
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    nothing_changes(&network, &before, setup.start(), Reason::DryRun);
}
