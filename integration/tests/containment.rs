//! A cut holds against every way out, each first shown to get through; what must stay open stays open.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a laboratory fails loudly"
)]

use sekisho_integration::lab::kernel::timed_elements;
use sekisho_integration::matrix::{Escapes, Lifelines};
use sekisho_integration::topology::{C2, MIRROR, WEB};
use sekisho_integration::{AgentSetup, Network, PolicyText, wait_for};
use std::time::Duration;

#[test]
fn an_ordered_cut_of_the_host_holds_against_every_way_out_and_ends_on_release() {
    let network = Network::build();
    let mut escapes = Escapes::open(&network);
    let mut lifelines = Lifelines::open(&network);
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    setup.seal(&PolicyText::new(1, "enforce"));
    let agent = setup.start();
    escapes.assert_open();
    setup.must(&["contain", "host", "--for", "1h", "--reason", "laboratory"]);
    let receipt = agent.receipt("of the order", Duration::from_secs(5), |receipt| {
        receipt.applied && receipt.proof.cut.is_some()
    });
    escapes.assert_cut();
    lifelines.assert_open();
    assert_eq!(receipt.proof.cut.as_deref(), Some("proven"), "{receipt:?}");
    assert_eq!(receipt.proof.exemptions.as_deref(), Some("ok"), "{receipt:?}");
    assert!(!timed_elements(&network.web).is_empty(), "the kernel itself must hold the lease");
    let status = agent.status();
    let id = status["containments"][0]["containment"]["id"]
        .as_str()
        .unwrap_or_else(|| panic!("{status}"))
        .to_owned();
    setup.must(&["release", &id, "--reason", "laboratory", "--break-glass"]);
    escapes.assert_open();
    lifelines.assert_open();
}

#[test]
fn a_cut_by_detection_holds_against_every_way_out_and_loses_no_legitimate_connection() {
    let network = Network::build();
    let mut escapes = Escapes::open(&network);
    let mut lifelines = Lifelines::open(&network);
    let _web = network.web.actor(&["http-serve", "--port", "80"]);
    let _mirror = network.mirror.actor(&["http-serve", "--port", "80"]);
    let c2 = network.c2.actor(&["plugx-c2", "--settings", "443=T1"]);
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    setup.seal(&PolicyText::new(1, "enforce"));
    let agent = setup.start();
    let mut customers = network.customers.actor(&["browse", "--to", &format!("{WEB}:80")]);
    let mut updates = network.web.actor(&["updates", "--to", &format!("{MIRROR}:80")]);
    wait_for("customers and updates", Duration::from_secs(5), || {
        (customers.ask("report")["done"].as_u64() >= Some(8)
            && updates.ask("report")["done"].as_u64() >= Some(2))
        .then_some(())
    });
    let mut implant = network.web.actor(&["knock", "--setting", "T1"]);
    implant.ask(&format!("go {C2}:443"));
    let finding = agent.finding("plugx.tcp", Duration::from_secs(5));
    let receipt = agent.receipt("of the finding", Duration::from_secs(5), |receipt| {
        receipt.applied && receipt.finding.as_ref() == Some(&finding.id)
    });
    escapes.assert_cut();
    lifelines.assert_open();
    assert!(receipt.time_to_contain_ns.is_some_and(|ns| ns > 0), "{receipt:?}");
    assert_eq!(
        finding.flow.as_ref().map(|flow| flow.remote.to_string()),
        Some(format!("{C2}:443"))
    );
    let (customers, updates) = (customers.finish(), updates.finish());
    assert_eq!(
        (customers["lost"].as_u64(), updates["lost"].as_u64()),
        (Some(0), Some(0)),
        "{customers} {updates}"
    );
    assert!(
        c2.finish()["raw_bytes"].as_u64() <= Some(16),
        "no more than the probe itself may have left"
    );
}

#[test]
fn a_cut_of_one_destination_leaves_the_others_open() {
    let network = Network::build();
    let mut escapes = Escapes::open(&network);
    let mut lifelines = Lifelines::open(&network);
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    setup.seal(&PolicyText::new(1, "enforce"));
    let _agent = setup.start();
    setup.must(&["contain", &format!("dest:{C2}"), "--for", "1h", "--reason", "laboratory"]);
    setup.must(&[
        "contain",
        &format!("dest:{}", sekisho_integration::topology::C2_6),
        "--for",
        "1h",
        "--reason",
        "laboratory",
    ]);
    escapes.assert_cut();
    lifelines.assert_open();
    let customers = network.customers.actor(&["sink", "--port", "9999"]);
    let mut counter = sekisho_integration::lab::probe::Counter::on(&network.customers, "eth0");
    let mut other = sekisho_integration::Probe::new(
        "another destination",
        &network.web,
        "udp",
        &["--dst", sekisho_integration::topology::CUSTOMERS],
    );
    other.control(&mut counter);
    drop(customers);
}
