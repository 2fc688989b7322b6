//! The whole matrix of senders against the levels of the ladder: what can be cut is cut, the holes are the declared ones.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a laboratory fails loudly"
)]

use sekisho_integration::matrix::{Escapes, Lifelines};
use sekisho_integration::topology::{C2, C2_6};
use sekisho_integration::{AgentSetup, Network, PolicyText};
use std::collections::BTreeSet;
use std::time::Duration;

/// Holes of a level that are declared beside those of the host: frames with a VLAN tag or of another ethertype have
/// no address that a cut of one destination could compare.
fn is_declared(level: &str, way: &str, hole: Option<&str>, coverage: &BTreeSet<String>) -> bool {
    match hole {
        Some(name) => {
            coverage.iter().any(|gap| gap == name || gap.starts_with(&format!("{name}:")))
        }
        None => {
            level == "dest"
                && ["802.1Q", "0x88b5", "VXLAN"].iter().any(|word| way.contains(word))
                && coverage.contains("vlan_tagged_frames")
        }
    }
}

fn hold_against_the_matrix(level: &str, scopes: &[String]) {
    let network = Network::build();
    let mut escapes = Escapes::every(&network);
    let mut lifelines = Lifelines::open(&network);
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    setup.seal(&PolicyText::new(1, "enforce"));
    let agent = setup.start();
    for scope in scopes {
        setup.must(&["contain", scope, "--for", "1h", "--reason", "laboratory"]);
    }
    let receipt = agent.receipt("of the order", Duration::from_secs(5), |receipt| {
        receipt.applied && receipt.proof.cut.is_some()
    });
    let coverage: BTreeSet<String> = receipt.coverage.iter().cloned().collect();
    let mut wrong = Vec::new();
    for (way, arrived, hole) in escapes.arrived() {
        println!("{level:<16} {way:<44} {arrived:>3} of 20 arrived");
        let declared = is_declared(level, &way, hole, &coverage);
        if arrived > 0 && !declared {
            wrong.push(format!("{way}: {arrived} arrived, and no hole is declared for it"));
        }
        if arrived == 0 && hole.is_some() {
            wrong.push(format!("{way}: declared as a hole, and closed"));
        }
    }
    if level != "management-only" {
        lifelines.assert_open();
    }
    assert!(wrong.is_empty(), "{level}: {wrong:#?}; declared: {coverage:?}");
}

#[test]
fn a_cut_of_the_host_closes_every_way_but_the_declared_ones() {
    hold_against_the_matrix("host", &["host".to_owned()]);
}

#[test]
fn a_cut_of_all_but_management_closes_every_way_but_the_declared_ones() {
    hold_against_the_matrix("management-only", &["management-only".to_owned()]);
}

#[test]
fn a_cut_of_a_destination_closes_every_way_to_it_but_the_declared_ones() {
    hold_against_the_matrix("dest", &[format!("dest:{C2}"), format!("dest:{C2_6}")]);
}
