//! Forged triggers: whoever makes a host look like an intruder's cannot make the agent take the business down.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a laboratory fails loudly"
)]

use sekisho_integration::topology::{BACKUP, CUSTOMERS, DB, MANY_C2, MIRROR, WEB};
use sekisho_integration::{Actor, Agent, AgentSetup, Network, PolicyText, wait_for, wait_until};
use sekisho_schema::finding::{Action, Reason};
use sekisho_schema::{Body, Containment, ContainmentId};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Triggers of each attack, and the time that they are made within.
const TRIGGERS: u64 = 1_000;
const WITHIN: Duration = Duration::from_secs(60);

/// What the shop lives from: customers, updates and backups, which are exempt, and its database inside.
struct Business {
    actors: Vec<(&'static str, Actor)>,
    _servers: Vec<Actor>,
}

impl Business {
    fn open(network: &Network) -> Self {
        let servers = vec![
            network.web.actor(&["http-serve", "--port", "80"]),
            network.mirror.actor(&["http-serve", "--port", "80"]),
            network.backup.actor(&["http-serve", "--port", "8200"]),
            network.db.actor(&["http-serve", "--port", "80"]),
        ];
        let actors = vec![
            ("customers", network.customers.actor(&["browse", "--to", &format!("{WEB}:80")])),
            ("updates", network.web.actor(&["updates", "--to", &format!("{MIRROR}:80")])),
            ("backups", network.web.actor(&["backup", "--to", &format!("{BACKUP}:8200")])),
            ("database", network.web.actor(&["updates", "--to", &format!("{DB}:80")])),
        ];
        Self { actors, _servers: servers }
    }

    fn done(&mut self) -> Vec<(&'static str, u64, u64)> {
        let told = self.actors.iter_mut().map(|(name, actor)| {
            let report = actor.ask("report");
            (*name, report["done"].as_u64().unwrap(), report["lost"].as_u64().unwrap())
        });
        told.collect()
    }

    /// Waits until each has done more, so that what is judged came after what went before.
    fn goes_on(&mut self) {
        let before = self.done();
        wait_for("business to go on", Duration::from_secs(20), || {
            let now = self.done();
            now.iter().zip(&before).all(|(now, before)| now.1 > before.1 + 2).then_some(())
        });
    }

    fn assert_unharmed(&mut self) {
        self.goes_on();
        for (name, done, lost) in self.done() {
            assert_eq!(lost, 0, "{name}: {lost} of {done} were lost");
        }
    }
}

/// Every containment that began by itself, by name.
fn automatic(agent: &Agent) -> BTreeMap<ContainmentId, Containment> {
    let events = agent.journal().into_iter();
    events
        .filter_map(|event| match event.body {
            Body::Containment(held) if held.by.is_none() => Some((held.id.clone(), *held)),
            _ => None,
        })
        .collect()
}

/// What the agent made of the triggers.
#[derive(Debug, Default)]
struct Told {
    findings: usize,
    withheld_by_the_fuse: usize,
    pages: usize,
    /// Findings that something was decided about, and how many have their frames.
    decided: u64,
    framed: u64,
    /// What was not seen or not told one by one, by cause.
    gaps: BTreeMap<String, u64>,
}

fn told(agent: &Agent) -> Told {
    let mut told = Told::default();
    for event in agent.journal() {
        match event.body {
            Body::Finding(finding) => {
                told.findings += 1;
                let decision = &finding.decision;
                let is_decided = matches!(decision.action, Action::Contain | Action::Withhold);
                told.decided += u64::from(is_decided && finding.flow.is_some());
                told.withheld_by_the_fuse += usize::from(
                    decision.action == Action::Withhold && decision.reason == Some(Reason::Budget),
                );
            }
            Body::Evidence(_) => told.framed += 1,
            Body::Gap(gap) => {
                told.pages += usize::from(gap.cause == "fuse");
                *told.gaps.entry(gap.cause).or_default() += gap.count;
            }
            _ => {}
        }
    }
    told
}

/// Lets a forger make its triggers; what it tells.
fn attack(forgers: &mut [Actor]) {
    let began = Instant::now();
    for forger in forgers.iter_mut() {
        forger.ask("go");
    }
    for forger in forgers {
        wait_for("the triggers to be made", WITHIN, || {
            (forger.ask("report")["tried"].as_u64() >= Some(TRIGGERS)).then_some(())
        });
    }
    assert!(began.elapsed() <= WITHIN, "too slow to be the attack that is meant");
}

fn forger(from: &sekisho_integration::Node, to: &str) -> Actor {
    from.actor(&["forge", "--to", to, "--count", &TRIGGERS.to_string()])
}

/// Waits until the agent has nothing more to say of the attack.
fn settle(agent: &Agent) -> Told {
    let mut last = told(agent);
    wait_until(Duration::from_secs(20), || {
        std::thread::sleep(Duration::from_millis(500));
        let now = told(agent);
        let rests = now.findings == last.findings;
        last = now;
        rests.then_some(())
    });
    last
}

/// Each finding that something was decided about has its frames, or is among those of which it is told that they have none.
fn assert_framed_or_told(agent: &Agent) {
    let mut last = Told::default();
    let is_whole = wait_until(Duration::from_secs(20), || {
        last = told(agent);
        let without = last.gaps.get("evidence").copied().unwrap_or(0);
        (last.framed > 0 && last.framed + without >= last.decided).then_some(())
    });
    assert!(is_whole.is_some(), "findings without frames and without a word: {last:?}");
    assert!(last.framed < last.decided, "the attack was meant to be more than frames are kept of");
}

#[test]
fn a_thousand_forged_triggers_cut_no_more_destinations_than_the_fuse_lets() {
    let network = Network::build();
    let mut business = Business::open(&network);
    let _c2 = network.c2.actor(&["plugx-c2", "--settings", "443=T1"]);
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    setup.seal(&PolicyText { level: 3, budget: [1, 20], ..PolicyText::new(1, "enforce") });
    let agent = setup.start();
    business.goes_on();
    // Flows of this host, and of a container that it routes for: what it says is not what the host says.
    let container = network.routed_container();
    attack(&mut [
        forger(&network.web, MANY_C2),
        forger(&container, &format!("{MANY_C2}.250.1:443")),
    ]);
    let told = settle(&agent);
    let cuts = automatic(&agent);
    println!("{told:?}, {} automatic cuts", cuts.len());
    assert!(told.findings >= 900, "the triggers were seen: {told:?}");
    assert!(told.withheld_by_the_fuse > 0, "the fuse held cuts back: {told:?}");
    assert_framed_or_told(&agent);
    assert_eq!(told.pages, 1, "whoever is on duty is told once: {told:?}");
    assert!(!cuts.is_empty() && cuts.len() <= 20, "{} cuts began by themselves", cuts.len());
    assert!(cuts.values().all(|cut| cut.level == 3), "{cuts:?}");
    business.assert_unharmed();
}

#[test]
fn a_thousand_forged_triggers_cut_the_host_once_and_exempt_business_goes_on() {
    let network = Network::build();
    let mut business = Business::open(&network);
    let _c2 = network.c2.actor(&["plugx-c2", "--settings", "443=T1"]);
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    setup.seal(&PolicyText { budget: [1, 20], ..PolicyText::new(1, "enforce") });
    let agent = setup.start();
    business.goes_on();
    attack(&mut [forger(&network.web, MANY_C2)]);
    let told = settle(&agent);
    let cuts = automatic(&agent);
    println!("{told:?}, {} automatic cuts", cuts.len());
    let hosts = cuts.values().filter(|cut| cut.level >= 5).count();
    assert_eq!(hosts, 1, "the host is cut once: {cuts:?}");
    assert!(cuts.len() <= 1 + 20, "{} cuts began by themselves", cuts.len());
    business.assert_unharmed();
}

#[test]
fn what_strangers_forge_cuts_nothing() {
    let network = Network::build();
    let mut business = Business::open(&network);
    let _open = network.web.actor(&["sink", "--port", "9999"]);
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    setup.seal(&PolicyText { budget: [1, 20], ..PolicyText::new(1, "enforce") });
    let agent = setup.start();
    business.goes_on();
    // To a service that is exempt, and to one that is not; by a customer, and from the inside.
    attack(&mut [
        forger(&network.customers, &format!("{WEB}:80")),
        forger(&network.c2, &format!("{WEB}:9999")),
    ]);
    let told = settle(&agent);
    let cuts = automatic(&agent);
    println!("{told:?}, {} automatic cuts", cuts.len());
    assert!(told.findings > 0, "the triggers were seen: {told:?}");
    assert!(cuts.is_empty(), "a stranger cut something: {cuts:?}");
    assert_eq!(agent.status()["containments"].as_array().map(Vec::len), Some(0));
    business.assert_unharmed();
    let mut talk = network.web.actor(&["talk"]);
    let _echo = network.customers.actor(&["echo", "--tcp", "7777"]);
    assert_eq!(
        talk.ask(&format!("tcp {CUSTOMERS}:7777"))["ok"],
        true,
        "what is not exempt goes on too"
    );
}
