//! E6: a quiet server whose intruder uploads, known by its protocol or by nothing but its bytes; business goes on.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a laboratory fails loudly"
)]

use sekisho_integration::topology::{BACKUP, MANY_C2, MIRROR, WEB};
use sekisho_integration::{Actor, Agent, AgentSetup, Network, PolicyText, wait_until};
use std::time::Duration;

/// Bytes that may go to one destination that nobody approved, and from one host to all of them in a day.
const PER_KEY: u64 = 20_000_000;
const PER_DAY: u64 = 50_000_000;
/// Bytes that may leave of an upload whose protocol is known.
const KNOWN_AT_MOST: u64 = 1_000_000;
/// Lines, in Mbit/s.
const LINES: [u64; 2] = [10, 100];
/// What is offered to each destination.
const OFFERED: u64 = 30_000_000;

/// Customers, updates and backup, each with its server.
struct Business {
    actors: Vec<Actor>,
    _servers: Vec<Actor>,
}

impl Business {
    fn begin(network: &Network) -> Self {
        let servers = vec![
            network.web.actor(&["http-serve", "--port", "80"]),
            network.mirror.actor(&["http-serve", "--port", "80"]),
            network.backup.actor(&["http-serve", "--port", "8200"]),
        ];
        let actors = vec![
            network.customers.actor(&["browse", "--to", &format!("{WEB}:80")]),
            network.web.actor(&["updates", "--to", &format!("{MIRROR}:80")]),
            network.web.actor(&["backup", "--to", &format!("{BACKUP}:8200")]),
        ];
        Self { actors, _servers: servers }
    }

    /// Fails unless every one of them did something and lost nothing.
    fn went_on(&mut self) {
        for actor in &mut self.actors {
            let report = actor.ask("report");
            assert!(report["done"].as_u64() > Some(0), "business did nothing: {report}");
            assert_eq!(report["lost"], 0, "business lost connections: {report}");
        }
    }
}

fn read(sink: &mut Actor) -> u64 {
    sink.ask("bytes")["bytes"].as_u64().unwrap()
}

/// What the sink read in all once nothing comes any more.
fn at_rest(sink: &mut Actor) -> u64 {
    let mut last = read(sink);
    wait_until(Duration::from_secs(5), || {
        std::thread::sleep(Duration::from_millis(100));
        let now = read(sink);
        let rests = now == last;
        last = now;
        rests.then_some(())
    });
    last
}

fn agent(network: &Network) -> Agent {
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    let more = format!(
        "[allowance]\nin-kernel = true\nper-destination-bytes = {PER_KEY}\nper-host-day-bytes = {PER_DAY}\nlearn-for = \"0s\"\n\
         [[decide]]\ndetector = \"behaviour.host-budget\"\ngrade = \"suspect\"\nlevel = 5\nlease = \"1h\"\n"
    );
    setup.seal(&PolicyText { more, ..PolicyText::new(1, "enforce") });
    setup.start()
}

#[test]
fn an_upload_of_a_known_protocol_leaves_less_than_a_megabyte_and_business_goes_on() {
    let network = Network::build();
    let mut business = Business::begin(&network);
    let mut sink = network.c2.actor(&["sink", "--port", "443"]);
    let agent = agent(&network);
    let mut before = at_rest(&mut sink);
    for (nth, line) in LINES.into_iter().enumerate() {
        let mut pour = network.web.actor(&["pour", "--mbit", &line.to_string()]);
        let address = format!("{MANY_C2}.7.{}:443", nth + 1);
        pour.ask(&format!("{address} 2000 plugx"));
        let after = at_rest(&mut sink);
        let lost = after - before;
        println!("PlugX at {line} Mbit/s: {lost} bytes left");
        assert!(lost <= KNOWN_AT_MOST, "{lost} bytes left at {line} Mbit/s");
        before = after;
    }
    assert!(!agent.findings("plugx.tcp").is_empty(), "it was found by its protocol");
    business.went_on();
}

#[test]
fn an_upload_that_nothing_recognises_leaves_its_allowance_and_the_host_its_budget() {
    let network = Network::build();
    let mut business = Business::begin(&network);
    let mut sink = network.c2.actor(&["sink", "--port", "443"]);
    let agent = agent(&network);
    let line = LINES[1];
    let second = line * 125_000;
    let began = at_rest(&mut sink);
    let mut pour =
        network.web.actor(&["pour", "--mbit", &line.to_string(), "--bytes", &OFFERED.to_string()]);
    let mut before = began;
    for nth in 1..=5 {
        pour.ask(&format!("{MANY_C2}.8.{nth}:443 8000 plain"));
        let after = at_rest(&mut sink);
        let (lost, all) = (after - before, after - began);
        println!("destination {nth}: {lost} bytes left, {all} in all");
        assert!(lost <= PER_KEY + second, "{lost} bytes left to destination {nth}");
        assert!(all <= PER_DAY + second, "{all} bytes left the host");
        before = after;
    }
    let all = before - began;
    assert!(all >= PER_KEY, "what is allowed leaves, but only {all} bytes did");
    assert!(!agent.findings("behaviour.host-budget").is_empty(), "the budget of the day was told");
    business.went_on();
}
