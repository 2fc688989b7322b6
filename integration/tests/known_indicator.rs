//! A destination known beforehand gets no packet at all, and every attempt is told all the same.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a laboratory fails loudly"
)]

use sekisho_integration::lab::kernel::Ruleset;
use sekisho_integration::lab::node::Node;
use sekisho_integration::lab::probe::Counter;
use sekisho_integration::topology::{C2, C2_6, COLLECTOR, CUSTOMERS, MANY_C2, MIRROR, WEB, WEB6};
use sekisho_integration::{Agent, AgentSetup, Network, PolicyText, Probe, wait_for, wait_until};
use sekisho_schema::finding::{Action, Reason};
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(10);

/// A policy under which a known destination is cut.
fn policy(version: u64, mode: &'static str, more: &str) -> PolicyText {
    let decide = "[[decide]]\ndetector = \"indicator.*\"\ngrade = \"malicious\"\nlevel = 3\nlease = \"1h\"\n";
    PolicyText { more: format!("{decide}{more}"), ..PolicyText::new(version, mode) }
}

/// Counts every packet of the web server that arrives at a host, whatever it is.
struct Arrivals<'a>(&'a Node);

impl<'a> Arrivals<'a> {
    fn at(node: &'a Node) -> Self {
        node.run("nft add table inet watch");
        node.run("nft add counter inet watch seen");
        node.run("nft add chain inet watch arrive { type filter hook prerouting priority -400 ; }");
        node.run(&format!("nft add rule inet watch arrive ip saddr {WEB} counter name seen"));
        node.run(&format!("nft add rule inet watch arrive ip6 saddr {WEB6} meta l4proto != icmpv6 counter name seen"));
        Self(node)
    }

    fn count(&self) -> u64 {
        let text = self.0.run("nft -j list counter inet watch seen");
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let counters = json["nftables"].as_array().unwrap();
        counters.iter().find_map(|object| object["counter"]["packets"].as_u64()).unwrap()
    }
}

fn setup(network: &Network, list: &str, more: &str) -> AgentSetup {
    let file = network.lab.dir().join("known.txt");
    std::fs::write(&file, list).unwrap();
    let more = format!("[indicators]\nlists = [{file:?}]\n[metrics]\nenabled = false\n{more}");
    AgentSetup::new(&network.web, network.lab.dir(), "agent").with(more)
}

fn known(agent: &Agent) -> serde_json::Value {
    agent.status()["known"].clone()
}

fn wait_held(agent: &Agent, count: u64) {
    let held = wait_until(WITHIN, || {
        let known = known(agent);
        (known["held"] == count && known["wanted"] == count).then_some(())
    });
    assert!(held.is_some(), "{count} should be held: {}\n{}", known(agent), agent.stderr());
}

/// A TCP connection is tried: whether it got through.
fn connects(from: &Node, to: &str, port: u16) -> bool {
    let mut command = from.command("bash");
    command.args(["-c", &format!("exec timeout 1 bash -c '</dev/tcp/{to}/{port}'")]);
    command.output().expect("bash starts").status.success()
}

#[test]
fn a_known_destination_gets_no_packet_and_the_attempt_is_a_finding() {
    let network = Network::build();
    let arrivals = Arrivals::at(&network.c2);
    let _c2 = network.c2.actor(&["plugx-c2", "--settings", "443=T1"]);
    let _collector = network.collector.actor(&["http-serve", "--port", "80"]);
    let _mirror = network.mirror.actor(&["http-serve", "--port", "80"]);
    let mut at_customers = Counter::on(&network.customers, "eth0");
    let mut other = Probe::new("another destination", &network.web, "udp", &["--dst", CUSTOMERS]);
    let through_other = other.control(&mut at_customers);
    assert!(
        connects(&network.web, C2, 443),
        "control: the destination answers while nothing is cut"
    );
    assert!(arrivals.count() > 2, "control: its packets are counted");
    // Besides the two that count: what is exempt, what lies inside, what the operator allows.
    let list = format!("{C2}\n{C2_6}\n{COLLECTOR}\n{MIRROR}\n{MANY_C2}.0.7\n");
    let setup = setup(&network, &list, "");
    setup.seal(&policy(1, "enforce", ""));
    let agent = setup.start();
    wait_held(&agent, 3);
    let before = arrivals.count();
    assert!(!connects(&network.web, C2, 443), "a known destination must not be reached");
    assert!(!connects(&network.web, C2_6, 443), "nor by IPv6");
    for kind in [["udp", "--dst", C2], ["udp", "--dst", C2_6]] {
        let mut at_c2 = Counter::on(&network.c2, "eth0");
        let mut probe = Probe::new("known", &network.web, kind[0], &kind[1..]);
        let _sent =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| probe.control(&mut at_c2)));
    }
    assert_eq!(arrivals.count(), before, "not one packet may arrive at a known destination");
    let finding = agent.finding("indicator.ip", WITHIN);
    let flow = finding.flow.as_ref().expect("the flow that was tried");
    assert_eq!(flow.remote.to_string(), format!("{C2}:443"), "{finding:?}");
    assert_eq!(flow.local.ip().to_string(), WEB);
    assert_eq!(finding.indicator.as_ref().map(|known| known.value.as_str()), Some(C2));
    assert_eq!(finding.decision.action, Action::Contain, "{finding:?}");
    let receipt = agent.receipt("of the attempt", WITHIN, |receipt| {
        receipt.scope.to_string() == format!("dest:{C2}") && receipt.applied
    });
    assert_eq!(receipt.leaked_packets, 0, "{receipt:?}");
    assert!(
        connects(&network.web, COLLECTOR, 80),
        "what lies inside stays reachable, named or not"
    );
    assert!(connects(&network.web, MIRROR, 80), "what is exempt stays reachable, named or not");
    other.assert_open(&mut at_customers, &through_other);
    assert!(known(&agent)["dropped"].as_u64() > Some(0), "{}", known(&agent));
    let told = setup.verb(&["status"]);
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(text.contains("3 of 3 known destinations"), "{text}");
}

#[test]
fn dry_run_holds_nothing_and_lets_the_packets_pass() {
    let network = Network::build();
    let _c2 = network.c2.actor(&["plugx-c2", "--settings", "443=T1"]);
    let before = Ruleset::of(&network.web);
    let setup = setup(&network, &format!("{C2}\n"), "");
    setup.seal(&policy(1, "dry-run", ""));
    let agent = setup.start();
    assert!(connects(&network.web, C2, 443), "dry-run must not cut");
    let finding = agent.finding("indicator.ip", WITHIN);
    assert_eq!(
        (finding.decision.action, finding.decision.reason),
        (Action::Withhold, Some(Reason::DryRun)),
        "{finding:?}"
    );
    assert_eq!(Ruleset::of(&network.web), before, "dry-run changed the kernel");
    assert_eq!(known(&agent)["wanted"], 0);
}

#[test]
fn what_is_flushed_comes_back_and_what_a_dead_agent_left_goes_with_the_mode() {
    let network = Network::build();
    let _c2 = network.c2.actor(&["plugx-c2", "--settings", "443=T1"]);
    let list = format!("{C2}\n{C2_6}\n{MANY_C2}.0.9:443\n[{C2_6}]:80\n");
    // Where the guardian owns the tables nobody else can do any of this.
    let setup = setup(&network, &list, "[enforce]\nown-tables = false\n");
    setup.seal(&policy(1, "enforce", ""));
    let agent = setup.start();
    wait_held(&agent, 4);
    network.web.run("nft flush set ip sekisho known4");
    wait_for("the flushed destinations to be put back", Duration::from_secs(20), || {
        network.web.run("nft list set ip sekisho known4").contains(C2).then_some(())
    });
    network.web.run("nft delete table ip sekisho");
    wait_for("the deleted table to be put back", Duration::from_secs(20), || {
        let listed =
            network.web.command("nft").args(["list", "set", "ip", "sekisho", "known4"]).output();
        let listed = listed.expect("nft starts");
        String::from_utf8_lossy(&listed.stdout).contains(C2).then_some(())
    });
    wait_held(&agent, 4);
    let setup = agent.kill9();
    // Nobody hears these, so no containment of their own comes of them.
    assert!(!connects(&network.web, C2, 443), "what is held outlives the agent");
    assert!(!connects(&network.web, &format!("{MANY_C2}.0.9"), 443), "by port too");
    setup.seal(&policy(2, "enforce", ""));
    std::fs::write(network.lab.dir().join("known.txt"), format!("{C2_6}\n")).unwrap();
    let agent = setup.start();
    wait_held(&agent, 1);
    let open = wait_until(WITHIN, || connects(&network.web, C2, 443).then_some(()));
    assert!(open.is_some(), "what is known no longer must open again\n{}", agent.stderr());
    let setup = agent.kill9();
    setup.seal(&policy(3, "dry-run", ""));
    let agent = setup.start();
    let gone = wait_until(WITHIN, || (!Ruleset::of(&network.web).has_our_tables()).then_some(()));
    assert!(gone.is_some(), "in dry-run nothing may be held\n{}", agent.stderr());
}

#[test]
fn the_cap_is_kept_and_what_is_over_it_is_told() {
    let network = Network::build();
    let list: String = (1..=200).map(|n| format!("{MANY_C2}.1.{n}\n")).collect();
    let setup = setup(&network, &list, "[limits]\npreloaded = 150\n");
    setup.seal(&policy(1, "enforce", ""));
    let agent = setup.start();
    wait_held(&agent, 150);
    assert_eq!(known(&agent)["over_cap"], 50);
    let told = wait_until(WITHIN, || {
        let mut journal = agent.journal().into_iter();
        journal.find(|line| serde_json::to_string(&line.body).unwrap().contains("preload-cap"))
    });
    assert!(told.is_some(), "what is left out must be on record");
}

fn hang_up(agent: &Agent) {
    let pid = agent.status()["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
}

fn wait_outcomes(agent: &Agent, outcome: &str, count: usize) {
    let told = wait_until(WITHIN, || {
        let lines = agent.journal();
        let texts = lines.iter().map(|line| serde_json::to_string(&line.body).unwrap());
        (texts.filter(|text| text.contains(outcome)).count() >= count).then_some(())
    });
    assert!(told.is_some(), "no {outcome}: {}", agent.stderr());
}

#[test]
fn a_list_that_grew_counts_after_a_hangup_and_one_that_all_but_vanished_is_refused() {
    let network = Network::build();
    let _c2 = network.c2.actor(&["plugx-c2", "--settings", "443=T1"]);
    let many: String = (1..=200).map(|n| format!("{MANY_C2}.1.{n}\n")).collect();
    let file = network.lab.dir().join("known.txt");
    let setup = setup(&network, &many, "");
    setup.seal(&policy(1, "enforce", ""));
    let agent = setup.start();
    wait_held(&agent, 200);
    assert!(connects(&network.web, C2, 443), "control: not on the list yet");
    std::fs::write(&file, format!("{many}{C2}\n")).unwrap();
    hang_up(&agent);
    wait_outcomes(&agent, "rules-reloaded", 1);
    wait_held(&agent, 201);
    assert!(!connects(&network.web, C2, 443), "the list that grew counts");
    let finding = agent.finding("indicator.ip", WITHIN);
    assert_eq!(finding.flow.map(|flow| flow.remote.to_string()), Some(format!("{C2}:443")));
    std::fs::write(&file, format!("{C2_6}\n")).unwrap();
    hang_up(&agent);
    wait_outcomes(&agent, "rules-refused", 1);
    assert_eq!(known(&agent)["held"], 201, "what was in force stays");
    // Whoever takes some off gets it, without a signal too.
    std::fs::write(&file, &many).unwrap();
    let lifted =
        wait_until(Duration::from_secs(30), || (known(&agent)["held"] == 200).then_some(()));
    assert!(lifted.is_some(), "changed files are read: {}\n{}", known(&agent), agent.stderr());
}
