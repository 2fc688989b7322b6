//! What a preview says a cut would refuse is what the cut then refuses: nothing more, nothing less.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a laboratory fails loudly"
)]

use sekisho_integration::topology::{BACKUP, C2, C2_6, COLLECTOR, CUSTOMERS, DB, MIRROR, WEB};
use sekisho_integration::{Actor, AgentSetup, Network, PolicyText, wait_until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// A service or peer as a preview names it: what, transport, port, address of a peer.
type Named = (String, String, u64, String);

/// One flow of the recorded day: who speaks to whom, and how the preview would name it.
struct Flow {
    talker: usize,
    question: String,
    named: Named,
    /// Whether it crosses the perimeter; what stays inside is no business of a cut of the outside.
    crosses: bool,
}

fn flow(talker: usize, what: &str, transport: &str, to: &str, port: u16, crosses: bool) -> Flow {
    let host = if to.contains(':') { format!("[{to}]") } else { to.to_owned() };
    let remote = if what == "peer" { to.to_owned() } else { String::new() };
    Flow {
        talker,
        question: format!("{transport} {host}:{port}"),
        named: (what.to_owned(), transport.to_owned(), u64::from(port), remote),
        crosses,
    }
}

/// Who speaks: the web server, customers, the database, the intruder's server.
const FROM_WEB: usize = 0;
const FROM_CUSTOMERS: usize = 1;
const FROM_DB: usize = 2;
const FROM_C2: usize = 3;

/// The day: services with clients, peers, what is exempt and what is not, both transports, both families.
fn day() -> Vec<Flow> {
    vec![
        // Exempt: customers of tcp/80, updates on port 80 of the mirror, backups on port 8200.
        flow(FROM_CUSTOMERS, "service", "tcp", WEB, 80, true),
        flow(FROM_C2, "service", "tcp", WEB, 80, true),
        flow(FROM_WEB, "peer", "tcp", MIRROR, 80, true),
        flow(FROM_WEB, "peer", "tcp", BACKUP, 8200, true),
        flow(FROM_WEB, "peer", "tcp", COLLECTOR, 8443, false),
        // The same peers on ports that are not exempt.
        flow(FROM_WEB, "peer", "tcp", MIRROR, 443, true),
        flow(FROM_WEB, "peer", "tcp", BACKUP, 9000, true),
        flow(FROM_WEB, "peer", "udp", MIRROR, 123, true),
        // Services that are not exempt.
        flow(FROM_CUSTOMERS, "service", "tcp", WEB, 22, true),
        flow(FROM_CUSTOMERS, "service", "udp", WEB, 5353, true),
        flow(FROM_C2, "service", "tcp", WEB, 2222, true),
        // Peers that are not exempt, one of them over IPv6.
        flow(FROM_WEB, "peer", "tcp", CUSTOMERS, 25, true),
        flow(FROM_WEB, "peer", "tcp", C2, 443, true),
        flow(FROM_WEB, "peer", "udp", C2, 123, true),
        flow(FROM_WEB, "peer", "tcp", C2_6, 443, true),
        // The inside.
        flow(FROM_WEB, "peer", "tcp", DB, 5432, false),
        flow(FROM_DB, "service", "tcp", WEB, 22, false),
    ]
}

/// The servers of the day.
fn serve(network: &Network) -> Vec<Actor> {
    vec![
        network.web.actor(&["echo", "--tcp", "80,22,2222", "--udp", "5353"]),
        network.mirror.actor(&["echo", "--tcp", "80,443", "--udp", "123"]),
        network.backup.actor(&["echo", "--tcp", "8200,9000"]),
        network.customers.actor(&["echo", "--tcp", "25"]),
        network.c2.actor(&["echo", "--tcp", "443", "--udp", "123"]),
        network.db.actor(&["echo", "--tcp", "5432"]),
        network.collector.actor(&["echo", "--tcp", "8443"]),
    ]
}

/// Lets the day happen once; the flows that were refused, by their place.
fn live(day: &[Flow], talkers: &mut [Actor]) -> BTreeSet<usize> {
    let mut refused = BTreeSet::new();
    for (nth, flow) in day.iter().enumerate() {
        if talkers[flow.talker].ask(&flow.question)["ok"] != true {
            refused.insert(nth);
        }
    }
    refused
}

fn names(day: &[Flow], places: &BTreeSet<usize>) -> BTreeSet<Named> {
    places.iter().map(|nth| day[*nth].named.clone()).collect()
}

/// The lines of a preview.
fn lines(preview: &Value) -> BTreeSet<Named> {
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let lines = preview["lines"].as_array().expect("lines");
    lines
        .iter()
        .map(|line| {
            let port = line["port"].as_u64().expect("a port");
            (text(line, "what"), text(line, "transport"), port, text(line, "remote"))
        })
        .collect()
}

fn preview(setup: &AgentSetup, scope: &str) -> Value {
    let text = setup.must(&["preview", scope, "-o", "json"]);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_preview_of_a_recorded_day_names_exactly_what_the_cut_then_refuses() {
    let network = Network::build();
    let _servers = serve(&network);
    let mut talkers = [&network.web, &network.customers, &network.db, &network.c2]
        .map(|node| node.actor(&["talk"]));
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    let names_of = "[trial]\nlasts = \"0s\"\n";
    setup.seal(&PolicyText { more: names_of.to_owned(), ..PolicyText::new(1, "enforce") });
    let agent = setup.start();
    let day = day();
    const TIMES: u64 = 3;
    for _ in 0..TIMES {
        let refused = live(&day, &mut talkers);
        assert!(refused.is_empty(), "control: uncut, all of it works: {:?}", names(&day, &refused));
    }
    let scopes = ["host", "management-only", &format!("dest:{C2}"), &format!("dest:{C2_6}")];
    // Every flow is recorded once its end or its age is seen; the last may take a moment.
    let crossing = day.iter().filter(|flow| flow.crosses).count() as u64 * TIMES;
    let recorded = wait_until(Duration::from_secs(10), || {
        let told = preview(&setup, "host");
        let seen = told["refused_flows"].as_u64()? + told["kept_flows"].as_u64()?;
        (seen >= crossing).then_some(told)
    });
    let recorded =
        recorded.unwrap_or_else(|| panic!("{} flows, {}", crossing, preview(&setup, "host")));
    assert_eq!(recorded["complete"], true, "{recorded}");
    let previews = scopes.map(|scope| preview(&setup, scope));
    for (scope, told) in scopes.iter().zip(&previews) {
        setup.must(&["contain", scope, "--for", "1h", "--reason", "laboratory"]);
        let refused = live(&day, &mut talkers);
        let status = agent.status();
        let id = status["containments"][0]["containment"]["id"].as_str().expect("a containment");
        setup.must(&["release", id, "--reason", "laboratory", "--break-glass"]);
        let again = live(&day, &mut talkers);
        assert!(
            again.is_empty(),
            "{scope}: after its release all works: {:?}",
            names(&day, &again)
        );
        let (said, was) = (lines(told), names(&day, &refused));
        let right = said.intersection(&was).count() as f64;
        println!(
            "{scope:<24} {} refused live, {} lines previewed: precision {:.2}, recall {:.2}",
            was.len(),
            said.len(),
            right / said.len().max(1) as f64,
            right / was.len().max(1) as f64
        );
        assert!(!was.is_empty(), "{scope} refuses something");
        assert_eq!(
            said,
            was,
            "{scope}: said and not refused {:?}; refused and not said {:?}; {told}",
            said.difference(&was).collect::<Vec<_>>(),
            was.difference(&said).collect::<Vec<_>>()
        );
        assert_eq!(
            told["refused_flows"].as_u64(),
            Some(refused.len() as u64 * TIMES),
            "{scope}: every flow of a line is counted once: {told}"
        );
    }
}
