//! The ladder of responses: each level, trials, escalation, the fuse and the guard on opening.

use crate::forge::{Bench, C2, LOCAL, PROBE, START, answer, end, hello, query};
use sekisho_engine::{HostFact, Input, Limits, OrderRefused, Output};
use sekisho_schema::finding::{Certainty, OwnerSource};
use sekisho_schema::order::{Command, Order};
use sekisho_schema::sealed::Local;
use sekisho_schema::{
    Action, Body, Containment, ContainmentId, Measure, Proof, Reason, Receipt, Scope, Span,
    Timestamp, Verified,
};
use sekisho_schema::{FlowKey, Process};
use std::net::{IpAddr, Ipv4Addr};

const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 30);

fn after(seconds: i64) -> Timestamp {
    START.after(Span::from_secs(seconds))
}

fn decide(level: u8, more: &str) -> String {
    format!(
        "[[decide]]\ndetector = \"plugx.*\"\ngrade = \"malicious\"\nlevel = {level}\nlease = \"24h\"\n{more}\n"
    )
}

/// An engine in enforce whose kernel can hold cuts.
fn bench(policy: &str) -> Bench {
    let policy = crate::forge::policy("enforce", policy);
    let mut bench = Bench::with(policy, &[], Limits::default());
    bench.input(Input::Fact(HostFact::Enforcement(Ok(())), START));
    bench
}

fn attack(bench: &mut Bench, at: Timestamp, from: Ipv4Addr, port: u16, to: Ipv4Addr) {
    bench.feed(&hello(at, end(from, port), end(to, 443), &PROBE));
}

fn c2(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, number)
}

fn scopes(bench: &Bench) -> Vec<String> {
    let mut scopes: Vec<_> =
        bench.engine.held().containments.values().map(|held| held.scope.to_string()).collect();
    scopes.sort();
    scopes
}

fn of_scope<'a>(bench: &'a Bench, scope: &str) -> &'a Containment {
    let mut held = bench.engine.held().containments.values();
    held.find(|held| held.scope.to_string() == scope).unwrap()
}

fn releases(bench: &Bench) -> Vec<(Timestamp, String, String)> {
    let told = bench.records().filter_map(|(at, body)| match body {
        Body::Release(release) => Some((at, release.scope.to_string(), release.cause.clone())),
        _ => None,
    });
    told.collect()
}

fn gaps<'a>(bench: &'a Bench, cause: &'a str) -> Vec<&'a str> {
    let told = bench.records().filter_map(move |(_, body)| match body {
        Body::Gap(gap) if gap.cause == cause => Some(gap.detail.as_str()),
        _ => None,
    });
    told.collect()
}

pub(crate) fn receipt(containment: ContainmentId, scope: Scope, proof: Proof) -> Receipt {
    Receipt {
        generation: 1,
        containment,
        finding: None,
        scope,
        applied: true,
        error: None,
        committed_at: None,
        last_packet_at: None,
        time_to_contain_ns: None,
        leaked_packets: 0,
        leaked_bytes: 0,
        sockets_destroyed: 0,
        proof,
        coverage: Vec::new(),
        target: Vec::new(),
        open: Vec::new(),
    }
}

fn prove(bench: &mut Bench, scope: &str, exemptions: &str, at: Timestamp) {
    let held = of_scope(bench, scope).clone();
    let proof = Proof {
        cut: Some("proven".to_owned()),
        exemptions: Some(exemptions.to_owned()),
        ..Proof::default()
    };
    bench.input(Input::Receipt(Box::new(receipt(held.id, held.scope, proof)), at));
}

fn questions(bench: &Bench) -> Vec<FlowKey> {
    let asked = bench.log.iter().filter_map(|output| match output {
        Output::AskOwner(flow) => Some(*flow),
        _ => None,
    });
    asked.collect()
}

fn process(cgroup: &str, container: Option<&str>) -> Process {
    Process {
        pid: 812,
        exe: None,
        name: None,
        cgroup: Some(cgroup.to_owned()),
        unit: None,
        container: container.map(str::to_owned),
        source: OwnerSource::default(),
        certainty: Certainty::Sure,
    }
}

fn own(bench: &mut Bench, process: Option<Process>, at: Timestamp) {
    let flow = *questions(bench).last().unwrap();
    let process = process.map(Box::new);
    bench.input(Input::Fact(HostFact::Owner { flow, process }, at));
}

fn order(bench: &mut Bench, what: Command, at: Timestamp) -> Result<ContainmentId, OrderRefused> {
    let order = Order { what, by: "Aiko".to_owned(), reason: "drill".to_owned() };
    let done = bench.engine.handle_order(Verified::locally(order, Local::ControlSocket), at);
    bench.drain();
    done
}

fn contain(scope: &str, measure: Measure) -> Command {
    let (scope, lease) = (scope.parse().unwrap(), Span::from_hours(1));
    Command::Contain { scope, lease, measure, break_glass: false }
}

#[test]
fn throttle_and_quota_hold_the_destination_as_the_policy_says() {
    for (level, key, measure) in [
        (1, "bytes-per-second = 8000", Measure::Throttle { bytes_per_second: 8000 }),
        (2, "quota-bytes = 1000000", Measure::Quota { bytes: 1_000_000 }),
    ] {
        let mut bench = bench(&decide(level, key));
        attack(&mut bench, START, LOCAL, 1000, C2);
        let held = of_scope(&bench, "dest:203.0.113.9").clone();
        assert_eq!((held.level, held.measure, held.trial_until), (level, measure, None));
        let decision = bench.findings()[0].decision.clone();
        assert_eq!((decision.action, decision.level), (Action::Contain, level));
        // What is only slowed may leave: it is no leak.
        attack(&mut bench, after(1), LOCAL, 1001, C2);
        assert_eq!(bench.engine.leak(&held.id).packets, 0);
    }
}

#[test]
fn a_workload_is_cut_once_its_owner_is_known_and_its_destination_at_once() {
    let mut bench = bench(&decide(4, ""));
    attack(&mut bench, START, LOCAL, 1000, C2);
    assert_eq!(scopes(&bench), ["dest:203.0.113.9"]);
    let decision = bench.findings()[0].decision.clone();
    assert_eq!((decision.level, decision.reason), (3, Some(Reason::Owner)));
    assert_eq!(questions(&bench)[0].local, "10.77.1.2:1000".parse().unwrap());
    let web = "/system.slice/web.service";
    own(&mut bench, Some(process(web, None)), after(1));
    assert_eq!(scopes(&bench), ["cgroup:/system.slice/web.service", "dest:203.0.113.9"]);
    let held = of_scope(&bench, "cgroup:/system.slice/web.service");
    assert_eq!((held.level, held.measure), (4, Measure::Cut));
    assert_eq!(held.finding.as_deref(), Some(bench.findings()[0].id.as_str()));
    let last = bench.orders().last().copied().unwrap();
    assert_eq!(last.decided_at, Some(START.after(Span::from_millis(3))));
    // An answer that comes twice changes nothing.
    let orders = bench.orders().len();
    own(&mut bench, Some(process(web, None)), after(2));
    assert_eq!(bench.orders().len(), orders);
}

#[test]
fn a_container_is_cut_frozen_and_alone_where_the_policy_says_so() {
    let mut bench = bench(&decide(4, "freeze = true\nonly-workload = true"));
    attack(&mut bench, START, LOCAL, 1000, C2);
    own(&mut bench, Some(process("/system.slice/docker-0a1b.scope", Some("0a1b"))), after(1));
    assert_eq!(scopes(&bench), ["container:0a1b"]);
    assert_eq!(of_scope(&bench, "container:0a1b").measure, Measure::Freeze);
    let orders = bench.orders();
    // The destination is open only in a set that has the workload.
    assert!(orders.iter().skip(1).all(|order| {
        order.set.containments.values().any(|held| matches!(held.scope, Scope::Container(_)))
    }));
}

#[test]
fn without_an_owner_the_destination_stays_cut_and_record_and_receipt_say_why() {
    let agent = "/system.slice/sekisho.service";
    let guess =
        Process { certainty: Certainty::Possible, ..process("/system.slice/web.service", None) };
    let unknown: [(Option<Process>, &str); 7] = [
        (None, "nobody of this host"),
        (Some(guess), "only one of those that could"),
        (Some(process("/", None)), "the root of all workloads"),
        (Some(process("/system.slice", None)), "a slice"),
        (Some(process("/init.scope", None)), "the service manager"),
        (
            Some(process("/user.slice/user-0.slice/user@0.service", None)),
            "a user's service manager",
        ),
        (Some(process(agent, None)), "the agent itself"),
    ];
    for (process, why) in unknown {
        let mut bench = bench(&decide(4, ""));
        bench.input(Input::Fact(HostFact::Cgroups(vec![agent.to_owned()]), START));
        attack(&mut bench, START, LOCAL, 1000, C2);
        own(&mut bench, process, after(1));
        assert_eq!(scopes(&bench), ["dest:203.0.113.9"], "{why}");
        assert!(gaps(&bench, "workload")[0].contains(why), "{:?}", gaps(&bench, "workload"));
        prove(&mut bench, "dest:203.0.113.9", "ok", after(2));
        let Some((_, Body::Receipt(told))) = bench.records().last() else { panic!() };
        assert!(told.open[0].contains(why), "{:?}", told.open);
    }
}

#[test]
fn an_owner_that_is_never_told_is_waited_for_ten_seconds() {
    let mut bench = bench(&decide(4, ""));
    attack(&mut bench, START, LOCAL, 1000, C2);
    bench.tick(after(9));
    assert!(gaps(&bench, "workload").is_empty());
    bench.tick(after(11));
    assert_eq!(gaps(&bench, "workload").len(), 1);
    own(&mut bench, Some(process("/system.slice/web.service", None)), after(12));
    assert_eq!(scopes(&bench), ["dest:203.0.113.9"]);
}

#[test]
fn a_gateway_cuts_the_inside_host_and_not_itself() {
    for level in 4..=6 {
        let mut bench = bench(&decide(level, ""));
        attack(&mut bench, START, NEIGHBOUR, 1000, C2);
        assert_eq!(scopes(&bench), ["internal:10.77.1.30"], "level {level}");
        assert!(questions(&bench).is_empty());
        let held = of_scope(&bench, "internal:10.77.1.30");
        assert_eq!((held.level, held.trial_until), (4, None));
        // A second inside host is one too many within the hour.
        attack(&mut bench, after(1), Ipv4Addr::new(10, 77, 1, 31), 1000, c2(10));
        assert_eq!(scopes(&bench), ["dest:203.0.113.10", "internal:10.77.1.30"]);
        assert_eq!(gaps(&bench, "fuse").len(), 1);
    }
}

#[test]
fn an_address_that_turns_out_to_be_this_hosts_own_is_cut_as_this_host() {
    let mut bench = bench(&decide(5, ""));
    attack(&mut bench, START, NEIGHBOUR, 1000, C2);
    let own = vec![IpAddr::V4(LOCAL), IpAddr::V4(NEIGHBOUR)];
    bench.input(Input::Fact(HostFact::Addresses(own), after(1)));
    assert_eq!(scopes(&bench), ["host"]);
    assert!(bench.orders().iter().all(|order| order.set.containments.len() == 1));
}

#[test]
fn a_cut_of_the_host_is_on_trial_until_the_collector_took_its_receipt() {
    let mut bench = bench(&decide(5, ""));
    bench.input(Input::Fact(HostFact::Enrolled(true), START));
    attack(&mut bench, START, LOCAL, 1000, C2);
    let held = of_scope(&bench, "host").clone();
    assert_eq!(held.trial_until, Some(held.since.after(Span::from_secs(120))));
    assert_eq!(bench.findings()[0].decision.reason, Some(Reason::Trial));
    // Its own proof is not enough where the collector is to confirm.
    prove(&mut bench, "host", "ok", after(2));
    assert!(of_scope(&bench, "host").trial_until.is_some());
    bench.input(Input::Fact(HostFact::Confirmed(held.id.clone()), after(60)));
    let firm = of_scope(&bench, "host").clone();
    assert_eq!((firm.trial_until, firm.until), (None, held.until));
    assert_eq!(bench.orders().last().unwrap().set.generation, 2);
    bench.input(Input::Fact(HostFact::Confirmed(held.id), after(61)));
    bench.tick(after(4000));
    assert_eq!((scopes(&bench), bench.orders().len()), (vec!["host".to_owned()], 2));
}

#[test]
fn a_trial_that_nobody_confirms_lets_the_host_go_and_keeps_the_intruders_address_cut() {
    let mut bench = bench(&decide(5, ""));
    bench.input(Input::Fact(HostFact::Collectors(vec!["198.51.100.5".parse().unwrap()]), START));
    attack(&mut bench, START, LOCAL, 1000, C2);
    let begun = of_scope(&bench, "host").clone();
    bench.tick(after(300));
    assert_eq!(scopes(&bench), ["dest:203.0.113.9"]);
    let end = begun.since.after(Span::from_secs(120));
    assert_eq!(releases(&bench), [(end, "host".to_owned(), "trial".to_owned())]);
    assert_eq!(of_scope(&bench, "dest:203.0.113.9").until, begun.until);
    assert!(gaps(&bench, "trial")[0].contains("Aiko"));
    // The destination was in the kernel before the host left it.
    let sets: Vec<_> = bench.orders().iter().map(|order| order.set.containments.len()).collect();
    assert_eq!(sets, [1, 2, 1]);
}

#[test]
fn a_lost_collector_holds_a_proven_trial_where_the_policy_says_hold() {
    for (exemptions, holds) in [("ok", true), ("broken", false)] {
        let mut bench = bench(&format!("{}[trial]\non-lost-collector = \"hold\"\n", decide(5, "")));
        bench.input(Input::Fact(HostFact::Enrolled(true), START));
        attack(&mut bench, START, LOCAL, 1000, C2);
        prove(&mut bench, "host", exemptions, after(2));
        bench.tick(after(300));
        assert_eq!(scopes(&bench) == ["host"], holds, "{exemptions}");
        assert_eq!(gaps(&bench, "trial").is_empty(), holds, "{exemptions}");
    }
}

#[test]
fn the_agents_own_proof_confirms_where_the_policy_or_the_lack_of_a_collector_says_so() {
    for (confirm, enrolled) in [("collector", false), ("proof", true)] {
        let mut bench = bench(&format!("{}[trial]\nconfirm = \"{confirm}\"\n", decide(6, "")));
        bench.input(Input::Fact(HostFact::Enrolled(enrolled), START));
        attack(&mut bench, START, LOCAL, 1000, C2);
        prove(&mut bench, "management-only", "broken", after(1));
        assert!(of_scope(&bench, "management-only").trial_until.is_some());
        prove(&mut bench, "management-only", "ok", after(2));
        assert!(of_scope(&bench, "management-only").trial_until.is_none());
    }
}

#[test]
fn a_clock_that_is_set_neither_shortens_nor_prolongs_a_trial() {
    for step in [-86_400, 86_400] {
        let mut bench = bench(&decide(5, ""));
        bench.input(Input::Fact(HostFact::Enrolled(true), START));
        attack(&mut bench, START, LOCAL, 1000, C2);
        let (at, span) = (after(60 + step), Span::from_secs(step));
        bench.input(Input::Fact(HostFact::ClockSet(span), at));
        bench.tick(after(118 + step));
        assert_eq!(scopes(&bench), ["host"], "{step}");
        bench.tick(after(121 + step));
        assert_eq!(scopes(&bench), ["dest:203.0.113.9"], "{step}");
    }
}

#[test]
fn a_person_confirms_by_order_and_it_is_on_record() {
    let mut bench = bench(&decide(5, ""));
    let id = order(&mut bench, contain("host", Measure::Cut), START).unwrap();
    assert!(of_scope(&bench, "host").trial_until.is_some());
    let confirm = Command::Confirm { containment: id.clone() };
    assert_eq!(order(&mut bench, confirm.clone(), after(5)), Ok(id.clone()));
    assert_eq!(order(&mut bench, confirm, after(6)), Ok(id));
    bench.tick(after(600));
    assert_eq!(scopes(&bench), ["host"]);
    let told = bench.records().filter(
        |(_, body)| matches!(body, Body::Policy(change) if change.outcome == "order-confirmed"),
    );
    assert_eq!(told.count(), 1);
    let unknown = Command::Confirm { containment: ContainmentId("c-000000000000".to_owned()) };
    assert!(matches!(order(&mut bench, unknown, after(7)), Err(OrderRefused::Unknown(_))));
}

const ESCALATION: &str = "[escalation]\nup-to = 6\nafter = 2\nwithin = \"600s\"\n";

#[test]
fn an_actor_that_tries_other_ways_is_cut_by_workload_then_host_then_all_but_management() {
    let mut bench = bench(&format!("{}{ESCALATION}", decide(3, "")));
    let web = || Some(process("/system.slice/web.service", None));
    for (n, number) in [9, 10, 11].into_iter().enumerate() {
        attack(&mut bench, after(n as i64), LOCAL, 1000 + n as u16, c2(number));
    }
    assert_eq!(bench.findings()[2].decision.reason, Some(Reason::Escalated));
    own(&mut bench, web(), after(4));
    assert!(scopes(&bench).contains(&"cgroup:/system.slice/web.service".to_owned()));
    let held = of_scope(&bench, "cgroup:/system.slice/web.service");
    assert_eq!(held.cause, "plugx.tcp, escalated");
    // Another workload's traffic is no sign that this one got out.
    for n in 12..14 {
        attack(&mut bench, after(i64::from(n)), LOCAL, 1000 + u16::from(n), c2(n));
    }
    own(&mut bench, Some(process("/system.slice/db.service", None)), after(15));
    assert!(!scopes(&bench).contains(&"host".to_owned()));
    for n in 16..18 {
        attack(&mut bench, after(i64::from(n)), LOCAL, 1000 + u16::from(n), c2(n));
    }
    own(&mut bench, web(), after(19));
    assert!(scopes(&bench).contains(&"host".to_owned()));
    // On trial it makes nothing needless; once it is firm the destinations that it covers go.
    assert!(scopes(&bench).contains(&"dest:203.0.113.9".to_owned()));
    prove(&mut bench, "host", "ok", after(20));
    assert!(of_scope(&bench, "host").trial_until.is_none());
    let covered = releases(&bench);
    assert!(
        covered.iter().all(|(_, scope, cause)| scope.starts_with("dest:") && cause == "escalated")
    );
    let last = bench.orders().last().unwrap().set.clone();
    assert!(last.containments.values().any(|held| held.scope == Scope::Host));
    // The budget of this policy has one cut of a host in an hour: the next level waits for it.
    for n in 30..32 {
        attack(&mut bench, after(i64::from(n)), LOCAL, 1000 + u16::from(n), c2(n));
    }
    assert!(!scopes(&bench).contains(&"management-only".to_owned()));
    assert_eq!(gaps(&bench, "fuse").len(), 1);
}

#[test]
fn an_escalation_without_a_known_owner_skips_the_workload_and_stops_where_the_policy_does() {
    for (up_to, expected) in [(4, false), (5, true)] {
        let rule = ESCALATION.replace("up-to = 6", &format!("up-to = {up_to}"));
        let mut bench = bench(&format!("{}{rule}", decide(3, "")));
        for (n, number) in [9, 10, 11].into_iter().enumerate() {
            attack(&mut bench, after(n as i64), LOCAL, 1000 + n as u16, c2(number));
        }
        own(&mut bench, None, after(4));
        assert_eq!(scopes(&bench).contains(&"host".to_owned()), expected, "up to {up_to}");
    }
}

#[test]
fn tries_too_far_apart_or_to_the_same_address_escalate_nothing() {
    let mut bench = bench(&format!("{}{ESCALATION}", decide(3, "")));
    for (at, port, number) in [(0, 1000, 9), (1, 1001, 10), (2, 1002, 10), (700, 1003, 11)] {
        attack(&mut bench, after(at), LOCAL, port, c2(number));
    }
    assert!(questions(&bench).is_empty());
}

#[test]
fn on_a_gateway_the_inside_host_that_tries_other_ways_is_cut_whole() {
    let mut bench = bench(&format!("{}{ESCALATION}", decide(3, "")));
    attack(&mut bench, START, NEIGHBOUR, 1000, C2);
    // Another inside host's tries are its own.
    attack(&mut bench, after(1), LOCAL, 1001, c2(20));
    attack(&mut bench, after(2), NEIGHBOUR, 1002, c2(10));
    attack(&mut bench, after(3), NEIGHBOUR, 1003, c2(11));
    let held = scopes(&bench);
    assert!(held.contains(&"internal:10.77.1.30".to_owned()), "{held:?}");
    // The addresses stay cut for every other inside host.
    assert!(held.contains(&"dest:203.0.113.9".to_owned()), "{held:?}");
    let told: Vec<_> = bench
        .findings()
        .iter()
        .map(|found| {
            (found.flow.as_ref().unwrap().remote.ip(), found.decision.level, found.decision.reason)
        })
        .collect();
    assert_eq!(told.last(), Some(&(IpAddr::V4(c2(11)), 4, Some(Reason::Escalated))), "{told:?}");
}

#[test]
fn a_thousand_forged_triggers_in_a_minute_cut_no_more_than_the_fuse_allows() {
    let policy = format!(
        "{}[[exempt]]\nname = \"business\"\nto = \"203.0.114.0/24\"\n[budget]\nhost-cuts-per-hour = 1\ndestination-cuts-per-hour = 20\n{ESCALATION}",
        decide(5, "")
    );
    for locals in [[LOCAL; 2], [LOCAL, NEIGHBOUR]] {
        let mut bench = bench(&policy);
        for n in 0..1000_u32 {
            let at = START.after(Span::from_millis(i64::from(n) * 60));
            let peer = Ipv4Addr::from_bits(Ipv4Addr::new(203, 0, 112, 0).to_bits() + n);
            let local =
                Ipv4Addr::from_bits(locals[1].to_bits() + n % 7 * u32::from(locals[1] != LOCAL));
            attack(&mut bench, at, local, 2000 + n as u16, peer);
        }
        let begun: Vec<_> = bench
            .records()
            .filter_map(|(_, body)| match body {
                Body::Containment(held) => Some((held.id.clone(), held.scope.clone())),
                _ => None,
            })
            .collect();
        let ids: std::collections::BTreeSet<_> = begun.iter().map(|(id, _)| id).collect();
        let wide = |scope: &Scope| scope.level() >= 5 || matches!(scope, Scope::Internal(_));
        let hosts: std::collections::BTreeSet<_> =
            begun.iter().filter(|(_, scope)| wide(scope)).map(|(id, _)| id).collect();
        assert!(hosts.len() == 1 && ids.len() <= 21, "{} of {}", hosts.len(), ids.len());
        for (_, scope) in &begun {
            if let Scope::Destination(IpAddr::V4(address)) = scope {
                assert!(address.octets()[..3] != [203, 0, 114], "{address} is exempt");
                assert!(!address.is_private());
            }
        }
        assert!((1..=2).contains(&gaps(&bench, "fuse").len()), "{:?}", gaps(&bench, "fuse"));
        assert!(gaps(&bench, "fuse")[0].contains("Aiko"));
    }
}

#[test]
fn what_the_group_spent_binds_this_host_too() {
    let mut bench = bench(&format!("{}[budget]\ngroup-host-cuts-per-hour = 3\n", decide(5, "")));
    bench.input(Input::Fact(HostFact::GroupSpent { count: 3, since: after(-600) }, START));
    attack(&mut bench, START, LOCAL, 1000, C2);
    assert_eq!(scopes(&bench), ["dest:203.0.113.9"]);
    assert_eq!(bench.findings()[0].decision.reason, Some(Reason::Budget));
    assert_eq!(gaps(&bench, "fuse").len(), 1);
    attack(&mut bench, after(3001), LOCAL, 1001, c2(10));
    assert!(scopes(&bench).contains(&"host".to_owned()));
}

#[test]
fn opening_a_host_needs_a_broken_glass_and_less_does_not() {
    let mut bench = bench(&decide(3, ""));
    let host = order(&mut bench, contain("host", Measure::Cut), START).unwrap();
    let lesser = order(&mut bench, contain("dest:203.0.113.9", Measure::Cut), START).unwrap();
    let release = |containment: &ContainmentId, break_glass| Command::Release {
        containment: containment.clone(),
        break_glass,
    };
    let refused = order(&mut bench, release(&host, false), after(1)).unwrap_err();
    assert!(matches!(refused, OrderRefused::Guarded { .. }));
    assert!(refused.to_string().contains(&host.0) && refused.help().contains("--break-glass"));
    let Some((_, Body::Policy(change))) = bench.records().last() else { panic!() };
    assert_eq!(change.outcome, "order-refused");
    assert!(order(&mut bench, release(&lesser, false), after(1)).is_ok());
    assert_eq!(scopes(&bench), ["host"]);
    assert!(order(&mut bench, release(&host, true), after(1)).is_ok());
    let causes: Vec<_> = releases(&bench).into_iter().map(|(_, _, cause)| cause).collect();
    assert_eq!(causes, ["order", "break-glass"]);
}

#[test]
fn an_order_is_held_only_as_its_scope_can_be() {
    let mut bench = bench(&decide(3, ""));
    let slow = Measure::Throttle { bytes_per_second: 1 };
    for (scope, measure) in [
        ("host", slow),
        ("host", Measure::Freeze),
        ("dest:203.0.113.9", Measure::Freeze),
        ("internal:10.77.1.30", Measure::Quota { bytes: 1 }),
    ] {
        let refused = order(&mut bench, contain(scope, measure), START);
        assert!(matches!(refused, Err(OrderRefused::Measure { .. })), "{scope}");
    }
    for scope in ["internal:203.0.113.9", "internal:10.77.1.2", "internal:x", "internal:127.0.0.1"]
    {
        let refused = order(&mut bench, contain(scope, Measure::Cut), START);
        assert!(matches!(refused, Err(OrderRefused::NoSuchHost { .. })), "{scope}");
    }
    for scope in ["cgroup:/system.slice", "cgroup:/init.scope"] {
        let refused = order(&mut bench, contain(scope, Measure::Cut), START);
        assert!(matches!(refused, Err(OrderRefused::Exempt { .. })), "{scope}");
    }
    for scope in ["internal:02:00:00:00:00:01", "internal:10.77.1.30", "container:0a1b"] {
        assert!(order(&mut bench, contain(scope, Measure::Cut), START).is_ok(), "{scope}");
    }
    let id = order(&mut bench, contain("dest:203.0.113.9", Measure::Cut), START).unwrap();
    let weaker = order(&mut bench, contain("dest:203.0.113.9", slow), START);
    let Err(OrderRefused::Stronger { held, .. }) = weaker else { panic!("{weaker:?}") };
    assert_eq!(held, id);
}

#[test]
fn a_link_is_taken_down_by_a_broken_glass_alone_and_on_no_trial() {
    let mut bench = bench(&decide(3, ""));
    let refused = order(&mut bench, contain("link:eth0", Measure::Cut), START);
    assert!(matches!(refused, Err(OrderRefused::Guarded { .. })));
    let Command::Contain { scope, lease, measure, .. } = contain("link:eth0", Measure::Cut) else {
        unreachable!()
    };
    let broken = Command::Contain { scope, lease, measure, break_glass: true };
    let id = order(&mut bench, broken, START).unwrap();
    let held = of_scope(&bench, "link:eth0");
    assert_eq!((held.level, held.trial_until), (7, None));
    let release = Command::Release { containment: id, break_glass: false };
    assert!(matches!(order(&mut bench, release, after(1)), Err(OrderRefused::Guarded { .. })));
}

#[test]
fn a_restart_gives_no_budget_back_and_keeps_a_trial_a_trial() {
    let mut bench = bench(&decide(5, ""));
    bench.input(Input::Fact(HostFact::Enrolled(true), START));
    let held = |trial_until| Containment {
        id: ContainmentId("c-000000000001".to_owned()),
        scope: Scope::Host,
        level: 5,
        since: START.before(Span::from_secs(60)),
        until: after(3600),
        cause: "plugx.tcp".to_owned(),
        finding: None,
        by: None,
        measure: Measure::Cut,
        trial_until,
    };
    bench.input(Input::Fact(HostFact::Held(vec![held(Some(after(60)))]), START));
    bench.tick(after(61));
    assert_eq!(releases(&bench), [(after(60), "host".to_owned(), "trial".to_owned())]);
    attack(&mut bench, after(70), LOCAL, 1000, C2);
    assert_eq!(scopes(&bench), ["dest:203.0.113.9"]);
}

#[test]
fn addresses_of_approved_names_are_told_for_the_kernels_allowance() {
    let approved =
        |bench: &Bench| bench.engine.approved_addresses().into_iter().collect::<Vec<_>>();
    let allowance = "[allowance]\nin-kernel = true\napproved = [\"updates.example\"]\n";
    let mut bench = bench(&format!("{allowance}{}", decide(3, "")));
    bench.feed(&[
        query(START, "cdn.updates.example"),
        answer(after(1), "cdn.updates.example", c2(80)),
        query(after(2), "other.example"),
        answer(after(3), "other.example", c2(81)),
        query(after(4), "updates.example"),
        answer(after(5), "updates.example", Ipv4Addr::new(10, 77, 0, 9)),
    ]);
    assert_eq!(approved(&bench), [IpAddr::V4(c2(80))]);
    let told = bench.log.iter().filter(|output| matches!(output, Output::Approve(_))).count();
    assert_eq!(told, 1);
    // A policy that approves it no longer takes it back.
    let policy = Verified::locally(crate::forge::policy("enforce", ""), Local::Installed);
    bench.input(Input::Policy(Box::new(policy), after(6)));
    assert!(approved(&bench).is_empty());
    assert!(matches!(bench.log.iter().rev().find(|output| matches!(output, Output::Approve(_))),
        Some(Output::Approve(all)) if all.is_empty()));
}

#[test]
fn only_the_named_resolvers_answers_approve_and_never_a_hostile_address() {
    let allowance = "[allowance]\nin-kernel = true\napproved = [\"updates.example\"]\n";
    for (resolver, known, expected) in
        [("10.77.0.53", "", 1), ("10.77.0.54", "", 0), ("10.77.0.53", "203.0.113.80", 0)]
    {
        let names = format!("[names]\nresolvers = [\"{resolver}\"]\n{allowance}");
        let policy = crate::forge::policy("enforce", &names);
        let known: Vec<&str> = Some(known).filter(|known| !known.is_empty()).into_iter().collect();
        let mut bench = Bench::with(policy, &known, Limits::default());
        bench.feed(&[query(START, "updates.example"), answer(after(1), "updates.example", c2(80))]);
        assert_eq!(bench.engine.approved_addresses().len(), expected, "{resolver} {known:?}");
    }
}
