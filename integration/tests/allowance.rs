//! The upload allowance is the kernel's: it bounds the loss while agent and guardian stand still.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a laboratory fails loudly"
)]

use sekisho_integration::topology::{BACKUP, C2, CUSTOMERS, DB};
use sekisho_integration::{Actor, AgentSetup, Network, PolicyText, wait_until};
use std::time::Duration;

/// Bytes that may go to one destination that nobody approved.
const ALLOWANCE: u64 = 20_000_000;
/// The line, in Mbit/s, and what is offered on it: a busy machine takes longer than the line does.
const LINE: u64 = 160;
const OFFERED: u64 = 60_000_000;
const OFFERED_MS: u64 = 25_000;

fn read(sink: &mut Actor) -> u64 {
    sink.ask("bytes")["bytes"].as_u64().unwrap()
}

/// What a sink reads of all that a host offers it.
fn gets_through(pour: &mut Actor, sink: &mut Actor, to: &str) -> u64 {
    let before = read(sink);
    let told = pour.ask(&format!("{to} {OFFERED_MS} plain"));
    assert!(told["sent"].as_u64() > Some(0), "nothing was offered to {to}: {told}");
    let mut last = read(sink);
    wait_until(Duration::from_secs(5), || {
        std::thread::sleep(Duration::from_millis(100));
        let now = read(sink);
        let rests = now == last;
        last = now;
        rests.then_some(())
    });
    last - before
}

#[test]
fn with_everybody_stopped_no_more_than_the_allowance_and_a_second_of_the_line_leaves() {
    let network = Network::build();
    let mut c2 = network.c2.actor(&["sink", "--port", "443"]);
    let mut other = network.customers.actor(&["sink", "--port", "443"]);
    let mut backup = network.backup.actor(&["sink", "--port", "8200"]);
    let mut db = network.db.actor(&["sink", "--port", "5432"]);
    let mut pour =
        network.web.actor(&["pour", "--mbit", &LINE.to_string(), "--bytes", &OFFERED.to_string()]);
    let free = gets_through(&mut pour, &mut c2, &format!("{C2}:443"));
    let at_most = ALLOWANCE + LINE * 125_000;
    assert!(free > at_most, "control: without an allowance more leaves than it lets out: {free}");
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    let more = format!("[allowance]\nin-kernel = true\nper-destination-bytes = {ALLOWANCE}\n");
    setup.seal(&PolicyText { more, ..PolicyText::new(1, "enforce") });
    let agent = setup.start();
    let frozen = agent.freeze();
    assert_eq!(frozen.len(), 2, "agent and guardian stand still");
    let lost = gets_through(&mut pour, &mut c2, &format!("{C2}:443"));
    let elsewhere = gets_through(&mut pour, &mut other, &format!("{CUSTOMERS}:443"));
    let exempt = gets_through(&mut pour, &mut backup, &format!("{BACKUP}:8200"));
    let inside = gets_through(&mut pour, &mut db, &format!("{DB}:5432"));
    agent.wake(&frozen);
    println!("lost {lost}, to another {elsewhere}, exempt {exempt}, inside {inside}, uncut {free}");
    for (whom, bytes) in [("the intruder", lost), ("another stranger", elsewhere)] {
        assert!(bytes <= at_most, "{bytes} bytes left to {whom}, at most {at_most}");
        assert!(
            bytes >= ALLOWANCE * 8 / 10,
            "{whom}: what is allowed leaves, but only {bytes} did"
        );
    }
    for (whom, bytes) in [("the exempt backup", exempt), ("the inside", inside)] {
        assert!(bytes > at_most, "{whom} is not bounded, but got only {bytes} bytes");
    }
    assert_eq!(agent.status()["mode"]["effective"], "enforce", "it goes on where it stood");
}
