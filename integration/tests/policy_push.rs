//! A pushed policy is held within two seconds; what is not sealed, older or expired is refused and the last good one kept.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a laboratory fails loudly"
)]

use sekisho_integration::{Agent, AgentSetup, Collector, Network, PolicyText, wait_until};
use std::process::Output;
use std::time::{Duration, Instant};

fn in_force(agent: &Agent) -> u64 {
    agent.status()["policy"]["version"].as_u64().unwrap_or(0)
}

fn assert_three_lines(what: &str, output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{what} must not succeed");
    assert!(!said.contains("panicked"), "{what}: {said}");
    for part in ["error:", "state:", "help:"] {
        assert!(
            said.lines().any(|line| line.starts_with(part)),
            "{what}: no \"{part}\" line in\n{said}"
        );
    }
}

#[test]
fn a_pushed_policy_is_held_within_two_seconds_and_a_worse_one_is_refused() {
    let network = Network::build();
    let mut collector = Collector::init(&network);
    collector.start();
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    collector.enrol(&setup);
    let agent = setup.start();
    wait_until(Duration::from_secs(10), || {
        agent.status()["collector"]["connected"].as_bool().filter(|connected| *connected)
    })
    .expect("the agent reaches its collector");
    for version in [5, 6, 7] {
        let sealed = collector.seal(&PolicyText::new(version, "dry-run"));
        let began = Instant::now();
        let pushed = collector.push(&sealed);
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
        let held = wait_until(Duration::from_secs(10), || {
            (in_force(&agent) == version).then(|| began.elapsed())
        });
        assert!(
            held.is_some_and(|held| held < Duration::from_secs(2)),
            "version {version} was held after {held:?}"
        );
    }
    let older = collector.seal(&PolicyText::new(6, "enforce"));
    assert_three_lines("an older policy", &collector.push(&older));
    let mut sealed: serde_json::Value = serde_json::from_str(
        &std::fs::read_to_string(collector.seal(&PolicyText::new(8, "enforce"))).unwrap(),
    )
    .unwrap();
    sealed["signatures"] = serde_json::json!({});
    let unsigned = network.lab.dir().join("unsigned.sealed");
    std::fs::write(&unsigned, sealed.to_string()).unwrap();
    assert_three_lines("an unsigned policy", &collector.push(&unsigned));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(in_force(&agent), 7, "the last good policy must stay");
}

#[test]
fn an_agent_refuses_unsigned_older_and_expired_policies_by_itself_and_keeps_the_last_good_one() {
    use sekisho_schema::Sealed;
    use sekisho_schema::sealed::{key_pair, parse_secret};
    let network = Network::build();
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    setup.seal(&PolicyText::new(7, "dry-run"));
    let agent = setup.start();
    assert_eq!(in_force(&agent), 7);
    agent.stop();
    let file = setup.dir.join("policy.sealed");
    let now = sekisho_integration::lab::agent::now();
    let day = sekisho_schema::Span::from_hours(24);
    let envelope = |version: u64, expires| {
        Sealed::wrap(
            "policy",
            version,
            expires,
            PolicyText::new(version, "enforce").toml().as_bytes(),
        )
    };
    let (own, foreign) = (
        parse_secret(&key_pair(&[42; 32]).0).unwrap(),
        parse_secret(&key_pair(&[9; 32]).0).unwrap(),
    );
    let cases = [
        ("unsigned", envelope(8, now.after(day))),
        ("foreign key", envelope(8, now.after(day)).signed_by(&foreign)),
        ("older", envelope(6, now.after(day)).signed_by(&own)),
        ("expired", envelope(8, now.before(day)).signed_by(&own)),
    ];
    for (name, sealed) in cases {
        std::fs::write(&file, sealed.to_text()).unwrap();
        let agent = setup.start();
        let status = agent.status();
        assert_eq!(
            (status["policy"]["version"].as_u64(), status["mode"]["effective"].as_str()),
            (Some(7), Some("dry-run")),
            "{name}: {status}"
        );
        assert!(
            status["policy"]["refused"].is_string(),
            "{name}: the refusal must be told: {status}"
        );
        agent.stop();
    }
}

#[test]
fn a_wrong_token_and_a_wrong_pin_are_refused_in_three_lines() {
    let network = Network::build();
    let mut collector = Collector::init(&network);
    collector.start();
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    let (url, token) = (collector.url(), collector.token());
    let wrong: String = token.chars().rev().collect();
    assert_three_lines(
        "a wrong token",
        &setup.verb(&["enroll", &url, "--token", &wrong, "--ca-pin", &collector.pin]),
    );
    let pin = format!(
        "sha256:{}",
        collector.pin.trim_start_matches("sha256:").chars().rev().collect::<String>()
    );
    assert_three_lines(
        "a wrong pin",
        &setup.verb(&["enroll", &url, "--token", &token, "--ca-pin", &pin]),
    );
    // The token was not spent on a server that was not the right one.
    setup.must(&["enroll", &url, "--token", &token, "--ca-pin", &collector.pin]);
    let other = AgentSetup::new(&network.db, network.lab.dir(), "other");
    assert_three_lines(
        "a token used twice",
        &other.verb(&["enroll", &url, "--token", &token, "--ca-pin", &collector.pin]),
    );
}
