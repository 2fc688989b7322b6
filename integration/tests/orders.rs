//! A person at the centre cuts and opens a host: sealed by two operators, carried out once, confirmed by the collector
//! over the way that the cut leaves open.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a laboratory fails loudly"
)]

use sekisho_integration::{Agent, AgentSetup, Collector, Network, PolicyText, wait_until};
use sekisho_schema::Body;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

fn containments(agent: &Agent) -> Vec<Value> {
    agent.status()["containments"].as_array().cloned().unwrap_or_default()
}

fn held(agent: &Agent, scope: &str) -> Option<Value> {
    let mut containments = containments(agent).into_iter().map(|held| held["containment"].clone());
    containments.find(|held| held["scope"] == scope)
}

/// Makes an operator's key, known to the collector; gives where the secret lies.
fn operator(collector: &Collector, dir: &Path, name: &str, seed: u8) -> String {
    let (secret, public) = sekisho_schema::sealed::key_pair(&[seed; 32]);
    let path = dir.join(name);
    std::fs::write(&path, secret).unwrap();
    std::fs::write(path.with_extension("pub"), public).unwrap();
    collector.must(&["trust", "operator", name, path.with_extension("pub").to_str().unwrap()]);
    path.to_str().unwrap().to_owned()
}

fn states(collector: &Collector) -> Vec<String> {
    let output = collector.verb(&["order", "list", "-o", "json"]);
    let orders: Value = serde_json::from_slice(&output.stdout).unwrap();
    let state = |order: &Value| order["state"].as_str().unwrap().to_owned();
    orders.as_array().unwrap().iter().map(state).collect()
}

#[test]
fn two_operators_cut_a_host_from_the_centre_its_trial_is_confirmed_and_they_open_it_again() {
    let network = Network::build();
    let mut collector = Collector::init(&network);
    let dir = network.lab.dir().to_owned();
    let aiko = operator(&collector, &dir, "aiko", 21);
    let ben = operator(&collector, &dir, "ben", 22);
    collector.start();
    let setup = AgentSetup::new(&network.web, &dir, "agent");
    collector.enrol(&setup);
    let agent = setup.start();
    wait_until(Duration::from_secs(20), || {
        agent.status()["collector"]["connected"].as_bool().filter(|connected| *connected)
    })
    .expect("the agent reaches its collector");
    let sealed = collector.seal(&PolicyText::new(5, "enforce"));
    assert!(collector.push(&sealed).status.success());
    wait_until(Duration::from_secs(20), || {
        (agent.status()["mode"]["effective"] == "enforce").then_some(())
    })
    .expect("the agent enforces");
    let name = agent.status()["host"].as_str().unwrap().to_owned();

    let contain = ["order", "contain", &name, "host", "--for", "1h", "--reason", "theft", "--key"];
    let alone = collector.verb(&[&contain[..], &[&aiko]].concat());
    assert_eq!(alone.status.code(), Some(1), "one operator cut a host");
    collector.must(&[&contain[..], &[&aiko, "--key", &ben]].concat());
    let cut = wait_until(Duration::from_secs(10), || held(&agent, "host")).unwrap_or_else(|| {
        let told = collector.verb(&["order", "list"]);
        panic!("{}\n{}\n{}", String::from_utf8_lossy(&told.stdout), agent.status(), agent.stderr())
    });
    assert_eq!(cut["by"], "aiko and ben");
    let id = cut["id"].as_str().unwrap().to_owned();
    let began_on_trial = agent.journal().iter().any(|event| {
        matches!(&event.body, Body::Containment(cut) if cut.id.0 == id && cut.trial_until.is_some())
    });
    assert!(began_on_trial, "a cut of a host begins on trial");
    // On trial for two minutes; the receipt and the answer to it go over the way that is left open.
    wait_until(Duration::from_secs(30), || {
        held(&agent, "host").filter(|held| held["trial_until"].is_null())
    })
    .expect("the collector confirmed the trial");
    wait_until(Duration::from_secs(10), || (states(&collector) == ["done"]).then_some(()))
        .unwrap_or_else(|| panic!("{:?}", states(&collector)));

    let release = ["order", "release", &name, &id, "--reason", "over", "--key"];
    let alone = collector.verb(&[&release[..], &[&ben]].concat());
    assert_eq!(alone.status.code(), Some(1), "one operator opened a host");
    collector.must(&[&release[..], &[&ben, "--key", &aiko]].concat());
    wait_until(Duration::from_secs(10), || held(&agent, "host").is_none().then_some(()))
        .expect("the host is open again");

    let dest = ["order", "contain", &name, "dest:203.0.113.99", "--for", "1h", "--reason", "c2"];
    collector.must(&[&dest[..], &["--throttle", "8000", "--key", &ben]].concat());
    let slow = wait_until(Duration::from_secs(10), || held(&agent, "dest:203.0.113.99"))
        .expect("the destination is throttled");
    assert_eq!((&slow["level"], &slow["by"]), (&serde_json::json!(1), &serde_json::json!("ben")));
    wait_until(Duration::from_secs(10), || (states(&collector) == ["done"; 3]).then_some(()))
        .unwrap_or_else(|| panic!("{:?}", states(&collector)));
}
