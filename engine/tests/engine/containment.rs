//! What is cut, when, and what is withheld.

use crate::forge::{Bench, C2, DECIDE, LOCAL, PROBE, RESOLVER, START, answer, end, hello, query};
use sekisho_engine::{HostFact, Input, Limits, OrderRefused, Output};
use sekisho_schema::order::{Command, Order};
use sekisho_schema::sealed::Local;
use sekisho_schema::{Action, Body, Containment, ContainmentId, Mode, Reason, Receipt};
use sekisho_schema::{Scope, Span, Timestamp, Verified};
use std::net::{IpAddr, Ipv4Addr};

fn after(seconds: i64) -> Timestamp {
    START.after(Span::from_secs(seconds))
}

fn probe(at: Timestamp, port: u16, to: Ipv4Addr) -> Vec<crate::forge::Made> {
    hello(at, end(LOCAL, port), end(to, 443), &PROBE)
}

fn order(what: Command) -> Verified<Order> {
    let order = Order { what, by: "Aiko".to_owned(), reason: "drill".to_owned() };
    Verified::locally(order, Local::ControlSocket)
}

fn cut(scope: &str, lease: Span) -> Verified<Order> {
    order(Command::Contain {
        scope: scope.parse().unwrap(),
        lease,
        measure: sekisho_schema::Measure::Cut,
        break_glass: false,
    })
}

#[test]
fn a_header_only_probe_cuts_the_host_on_the_first_data_packet() {
    let mut bench = Bench::new("enforce", "", &[]);
    bench.feed(&probe(START, 41_822, C2));
    let kinds: Vec<_> = bench
        .log
        .iter()
        .map(|output| match output {
            Output::Approve(_) => "approved",
            Output::AskOwner(_) => "question",
            Output::Contain(_) => "order",
            Output::Record(record) => match record.body {
                Body::Finding(_) => "finding",
                Body::Containment(_) => "containment",
                _ => "other",
            },
        })
        .filter(|kind| *kind != "other")
        .collect();
    assert_eq!(kinds, ["order", "finding", "containment"], "{:?}", bench.every_finding());
    let finding = bench.findings()[0];
    assert_eq!((finding.detector.as_str(), finding.frame), ("plugx.tcp", 4));
    assert_eq!(finding.decision.action, Action::Contain);
    assert_eq!((finding.decision.scope.as_deref(), finding.decision.level), (Some("host"), 5));
    let order = bench.orders()[0];
    assert_eq!(order.decided_at, Some(START.after(Span::from_millis(3))));
    assert_eq!(order.flow.unwrap().remote, "203.0.113.9:443".parse().unwrap());
    let held = order.set.containments.values().next().unwrap();
    assert_eq!(Some(&held.id), finding.decision.containment.as_ref());
    assert_eq!((held.finding.as_ref(), &held.scope), (Some(&finding.id), &Scope::Host));
}

#[test]
fn an_answer_of_the_intruder_and_a_caller_from_outside_are_found_too() {
    for (client, server) in [(end(LOCAL, 8080), end(C2, 443)), (end(C2, 4444), end(LOCAL, 80))] {
        let mut frames = hello(START, client, server, b"");
        frames.truncate(3);
        let at = after(1);
        frames.push(crate::forge::tcp(at, server, client, 0x18, 901, 101, &PROBE));
        let mut bench = Bench::new("enforce", "", &[]);
        bench.feed(&frames);
        let found: Vec<_> = bench.findings().iter().map(|f| f.detector.clone()).collect();
        assert_eq!(found, ["plugx.tcp"], "{client} {server}");
    }
}

#[test]
fn learn_and_dry_run_cut_nothing_and_say_what_they_would() {
    for (mode, reason) in [("learn", Reason::Learn), ("dry-run", Reason::DryRun)] {
        let mut bench = Bench::new(mode, "", &["203.0.113.80"]);
        bench.feed(&probe(START, 41_822, C2));
        bench.feed(&hello(after(1), end(LOCAL, 41_823), end([203, 0, 113, 80].into(), 80), b"GET"));
        bench.tick(after(100 * 3600));
        assert!(bench.orders().is_empty(), "{mode}");
        let told: Vec<_> = bench.findings().iter().map(|f| f.decision.clone()).collect();
        assert_eq!(told.len(), 2, "{mode}");
        assert!(told.iter().all(|d| d.action == Action::Withhold && d.reason == Some(reason)));
        assert!(told.iter().all(|d| d.containment.is_some() && d.lease.is_some()));
        assert_eq!(told[0].scope.as_deref(), Some("host"));
        assert_eq!(told[1].scope.as_deref(), Some("dest:203.0.113.80"));
        assert_eq!(bench.engine.summary().would_contain, 2);
    }
}

#[test]
fn the_fuse_lets_a_second_host_cut_become_a_cut_of_the_destination() {
    let spent = "[budget]\nhost-cuts-per-hour = 0\ndestination-cuts-per-hour = 1\n";
    let mut bench = Bench::new("enforce", spent, &[]);
    bench.feed(&probe(START, 1000, C2));
    bench.feed(&probe(after(10), 1001, [203, 0, 113, 10].into()));
    let told: Vec<_> = bench.findings().iter().map(|f| f.decision.clone()).collect();
    assert_eq!((told[0].action, told[0].reason), (Action::Contain, Some(Reason::Budget)));
    assert_eq!((told[0].scope.as_deref(), told[0].level), (Some("dest:203.0.113.9"), 3));
    assert_eq!((told[1].action, told[1].reason), (Action::Withhold, Some(Reason::Budget)));
    assert_eq!(bench.orders().len(), 1);
}

#[test]
fn an_inside_host_is_never_cut_as_a_destination() {
    let spent = "[budget]\nhost-cuts-per-hour = 0\ndestination-cuts-per-hour = 9\n";
    let mut bench = Bench::new("enforce", spent, &[]);
    bench.feed(&probe(START, 1000, RESOLVER));
    let decision = bench.findings()[0].decision.clone();
    assert_eq!((decision.action, decision.reason), (Action::Withhold, Some(Reason::Budget)));
    assert!(bench.orders().is_empty());
}

#[test]
fn a_decision_bears_the_time_of_its_frame_though_a_tick_ran_ahead() {
    let mut bench = Bench::new("enforce", "", &[]);
    let frames = probe(START, 1000, C2);
    let (last, first) = frames.split_last().unwrap();
    bench.feed(first);
    bench.tick(START.after(Span::from_millis(500)));
    bench.feed(std::slice::from_ref(last));
    assert_eq!(bench.engine.held().containments.values().next().unwrap().since, last.at);
}

#[test]
fn a_clock_set_back_is_told_once_and_ends_no_lease_early() {
    let mut bench = Bench::new("enforce", "", &[]);
    bench.feed(&[query(after(200_000), "example.com")]);
    bench.feed(&probe(START, 1000, C2));
    let steps = bench
        .records()
        .filter(|(_, body)| matches!(body, Body::Gap(gap) if gap.cause == "clock-step"))
        .count();
    assert_eq!(steps, 1);
    let held = bench.engine.held().containments.values().next().unwrap().clone();
    assert_eq!(held.until, after(200_000 + 24 * 3600));
}

#[test]
fn a_budget_is_given_back_after_an_hour() {
    let one = "[budget]\nhost-cuts-per-hour = 1\ndestination-cuts-per-hour = 1\n";
    let indicators = ["203.0.113.80", "203.0.113.81", "203.0.113.82"];
    let mut bench = Bench::new("enforce", one, &indicators);
    for (n, at) in [(80, 0), (81, 3599), (82, 3600)] {
        bench.feed(&hello(after(at), end(LOCAL, 1000), end([203, 0, 113, n].into(), 80), b""));
    }
    let told: Vec<_> = bench.findings().iter().map(|f| f.decision.action).collect();
    assert_eq!(told, [Action::Contain, Action::Withhold, Action::Contain]);
}

#[test]
fn an_exempt_destination_is_not_cut_and_a_host_cut_leaves_it_open() {
    let exempt =
        "[[exempt]]\nname = \"backup\"\nto = \"203.0.113.0/28\"\ntransport = \"tcp\"\nport = 443\n";
    let mut bench = Bench::new("enforce", exempt, &["203.0.113.9"]);
    bench.feed(&hello(START, end(LOCAL, 1000), end(C2, 443), b"GET / HTTP/1.1\r\n\r\n"));
    let decision = bench.findings()[0].decision.clone();
    assert_eq!((decision.action, decision.reason), (Action::Withhold, Some(Reason::Exemption)));
    assert!(bench.orders().is_empty());
    bench.feed(&probe(after(1), 1001, C2));
    assert_eq!(bench.orders().len(), 1);
    assert_eq!(bench.findings().last().unwrap().decision.scope.as_deref(), Some("host"));
}

#[test]
fn the_collector_is_exempt_without_being_named_in_the_policy() {
    let mut bench = Bench::new("enforce", "", &["203.0.113.9"]);
    bench.input(Input::Fact(HostFact::Collectors(vec![IpAddr::V4(C2)]), START));
    bench.feed(&hello(START, end(LOCAL, 1000), end(C2, 443), b""));
    assert_eq!(bench.findings()[0].decision.reason, Some(Reason::Exemption));
    let refused = bench.engine.handle_order(cut("dest:203.0.113.9", Span::from_hours(1)), START);
    assert!(matches!(refused, Err(OrderRefused::Exempt { .. })));
}

#[test]
fn a_lease_ends_at_its_own_time_whenever_it_is_noticed() {
    let mut bench = Bench::new("enforce", "", &["203.0.113.9"]);
    bench.feed(&hello(START, end(LOCAL, 1000), end(C2, 443), b""));
    let until = after(3600);
    assert_eq!(bench.orders()[0].set.containments.values().next().unwrap().until, until);
    bench.feed(&[query(after(90_000), "example.com")]);
    let ended: Vec<_> = bench
        .records()
        .filter_map(|(at, body)| match body {
            Body::Release(release) => Some((at, release.cause.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(ended, [(until, "expired")]);
    let last = bench.orders().last().copied().unwrap().clone();
    assert!(last.set.containments.is_empty() && last.set.generation == 2);
    assert_eq!(last.decided_at, None);
}

#[test]
fn what_is_contained_is_not_contained_again_and_its_lease_only_grows() {
    let mut bench = Bench::new("enforce", "", &["203.0.113.9"]);
    bench.feed(&hello(START, end(LOCAL, 1000), end(C2, 443), b""));
    bench.feed(&hello(after(60), end(LOCAL, 1001), end(C2, 80), b""));
    let findings = bench.findings();
    assert_eq!(findings[1].decision.reason, Some(Reason::AlreadyContained));
    assert_eq!(findings[1].decision.action, Action::Record);
    assert_eq!(findings[0].decision.containment, findings[1].decision.containment);
    let orders = bench.orders();
    assert_eq!((orders.len(), orders[1].set.containments.len()), (2, 1));
    assert_eq!(orders[1].set.containments.values().next().unwrap().until, after(3660));
    // The same again to the same port is not told again, and orders nothing.
    bench.feed(&hello(after(120), end(LOCAL, 1002), end(C2, 80), b""));
    assert_eq!((bench.findings().len(), bench.orders().len()), (2, 2));
}

#[test]
fn a_repetition_after_the_lease_is_cut_again_though_it_was_told_lately() {
    let short = DECIDE.replace("\"1h\"", "\"10s\"");
    let policy = crate::forge::policy("enforce", &short);
    let mut bench = Bench::with(policy, &["203.0.113.9"], Limits::default());
    for (at, port) in [(0, 1000), (5, 1001), (11, 1002)] {
        bench.feed(&hello(after(at), end(LOCAL, port), end(C2, 443), b""));
    }
    let told: Vec<_> = bench.findings().iter().map(|f| f.decision.action).collect();
    assert_eq!(told, [Action::Contain, Action::Contain]);
}

#[test]
fn a_flow_older_than_its_indicator_is_cut_at_its_next_burst() {
    let mut bench = Bench::new("enforce", "", &[]);
    bench.feed(&hello(START, end(LOCAL, 1000), end(C2, 443), b"GET / HTTP/1.1\r\n"));
    let rules = crate::forge::rules(&["203.0.113.9"]);
    bench.input(Input::Rules(Box::new(rules), after(60)));
    bench.feed(&[crate::forge::tcp(
        after(61),
        end(LOCAL, 1000),
        end(C2, 443),
        0x18,
        117,
        901,
        b"more",
    )]);
    assert_eq!((bench.findings().len(), bench.orders().len()), (1, 1));
}

#[test]
fn a_name_is_recorded_at_its_question_and_cut_at_its_answer() {
    let mut bench = Bench::new("enforce", "", &["c2.example"]);
    bench.feed(&[query(START, "a.b.c2.example"), query(after(1), "notc2.example")]);
    let asked = bench.findings()[0].clone();
    assert_eq!(bench.findings().len(), 1);
    assert_eq!(
        (asked.subject.kind.as_str(), asked.subject.value.as_str()),
        ("destination", "a.b.c2.example")
    );
    assert_eq!((asked.decision.action, asked.decision.scope), (Action::Record, None));
    bench.feed(&[answer(after(2), "a.b.c2.example", C2)]);
    let told = bench.findings()[1].clone();
    assert_eq!(told.decision.scope.as_deref(), Some("dest:203.0.113.9"));
    assert_eq!(told.decision.action, Action::Contain);
    bench.feed(&hello(after(3), end(LOCAL, 1000), end(C2, 443), b""));
    let begun = bench.findings()[2].clone();
    assert_eq!(begun.decision.reason, Some(Reason::AlreadyContained));
    assert_eq!(begun.name.as_deref(), Some("a.b.c2.example"));
}

#[test]
fn a_name_that_points_inside_cuts_nothing() {
    let mut bench = Bench::new("enforce", "", &["c2.example"]);
    bench.feed(&[query(START, "c2.example")]);
    for (n, address) in
        [RESOLVER, Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED].into_iter().enumerate()
    {
        bench.feed(&[answer(after(1 + n as i64), "c2.example", address)]);
    }
    assert!(bench.orders().is_empty());
    assert_eq!(bench.findings().len(), 1);
}

#[test]
fn where_no_cut_can_be_held_the_mode_says_so_and_nothing_is_ordered() {
    let mut bench = Bench::new("enforce", "", &[]);
    let fault = HostFact::Enforcement(Err("no CAP_NET_ADMIN".to_owned()));
    bench.input(Input::Fact(fault, START));
    let (_, body) = bench.records().last().unwrap();
    let Body::Mode(change) = body else { panic!("{body:?}") };
    assert_eq!((change.requested, change.effective), (Mode::Enforce, Mode::DryRun));
    assert_eq!(change.why.as_deref(), Some("no CAP_NET_ADMIN"));
    bench.feed(&probe(START, 1000, C2));
    assert_eq!(bench.findings()[0].decision.reason, Some(Reason::CannotEnforce));
    assert!(bench.orders().is_empty());
}

#[test]
fn a_person_contains_and_releases_and_the_budget_does_not_bind_them() {
    let spent = "[budget]\nhost-cuts-per-hour = 0\ndestination-cuts-per-hour = 0\n";
    let mut bench = Bench::new("enforce", spent, &[]);
    let id = bench.engine.handle_order(cut("host", Span::from_hours(2)), START).unwrap();
    bench.drain();
    let held = bench.orders()[0].set.containments.get(&id).unwrap().clone();
    assert_eq!((held.by.as_deref(), held.cause.as_str()), (Some("Aiko"), "drill"));
    let release = order(Command::Release { containment: id.clone(), break_glass: true });
    assert_eq!(bench.engine.handle_order(release.clone(), after(1)), Ok(id.clone()));
    bench.drain();
    assert!(bench.orders()[1].set.containments.is_empty());
    let again = bench.engine.handle_order(release, after(2));
    assert_eq!(again, Err(OrderRefused::Unknown(id)));
    bench.drain();
    let (_, body) = bench.records().last().unwrap();
    assert!(matches!(body, Body::Policy(change) if change.outcome == "order-refused"));
}

#[test]
fn an_order_against_sense_is_refused() {
    let mut bench = Bench::new("enforce", "", &[]);
    let hour = Span::from_hours(1);
    let mut ask = |scope: &str, lease| bench.engine.handle_order(cut(scope, lease), START);
    assert!(matches!(ask("dest:10.1.1.1", hour), Err(OrderRefused::Inside { .. })));
    assert!(matches!(ask("host", Span::ZERO), Err(OrderRefused::Lease { .. })));
    assert!(matches!(ask("host", Span::from_hours(24 * 31)), Err(OrderRefused::Lease { .. })));
    let mut dry = Bench::new("dry-run", "", &[]);
    let refused = dry.engine.handle_order(cut("host", hour), START);
    assert!(matches!(refused, Err(OrderRefused::Mode { mode: Mode::DryRun, .. })));
}

#[test]
fn a_policy_that_cuts_less_opens_nothing_and_a_person_still_can() {
    let mut bench = Bench::new("enforce", "[trial]\nlasts = \"0s\"\n", &[]);
    bench.feed(&probe(START, 1000, C2));
    let dry = Verified::locally(crate::forge::policy("dry-run", DECIDE), Local::Installed);
    bench.input(Input::Policy(Box::new(dry), after(1)));
    assert_eq!((bench.orders().len(), bench.engine.held().containments.len()), (1, 1));
    // Another finding in dry-run does not prolong what is held.
    bench.feed(&probe(after(7200), 1001, [203, 0, 113, 10].into()));
    assert_eq!(bench.orders().len(), 1);
    let id = bench.engine.held().containments.keys().next().unwrap().clone();
    let release = order(Command::Release { containment: id, break_glass: true });
    bench.engine.handle_order(release, after(7300)).unwrap();
    bench.drain();
    assert!(bench.orders()[1].set.containments.is_empty());
    let released = bench.records().any(|(_, body)| {
        matches!(body, Body::Release(r) if r.cause == "break-glass" && r.by.as_deref() == Some("Aiko"))
    });
    assert!(released);
}

#[test]
fn what_the_kernel_was_found_to_hold_is_adopted() {
    let mut bench = Bench::new("enforce", "", &["203.0.113.9"]);
    let held = |id: &str, scope: &str, until| Containment {
        id: ContainmentId(id.to_owned()),
        scope: scope.parse().unwrap(),
        level: 3,
        since: START.before(Span::from_hours(1)),
        until,
        cause: "indicator.ip".to_owned(),
        finding: None,
        by: None,
        measure: sekisho_schema::Measure::Cut,
        trial_until: None,
    };
    let found = vec![
        held("c-000000000001", "dest:203.0.113.9", after(7200)),
        held("c-000000000002", "dest:203.0.113.8", START),
    ];
    bench.input(Input::Fact(HostFact::Held(found), START));
    bench.feed(&hello(after(1), end(LOCAL, 1000), end(C2, 443), b""));
    let decision = bench.findings()[0].decision.clone();
    assert_eq!(decision.containment, Some(ContainmentId("c-000000000001".to_owned())));
    assert_eq!(bench.engine.held().containments.len(), 1);
    bench.tick(after(7200));
    assert!(bench.orders().last().unwrap().set.containments.is_empty());
}

#[test]
fn packets_that_escape_are_counted_and_a_failed_cut_is_said_aloud() {
    let exempt = "[[exempt]]\nname = \"dns\"\nto = \"198.51.100.53/32\"\n";
    let mut bench = Bench::new("enforce", exempt, &[]);
    bench.feed(&probe(START, 1000, C2));
    let id = bench.engine.held().containments.keys().next().unwrap().clone();
    bench.feed(&[
        crate::forge::udp(after(1), end(LOCAL, 5), end([198, 51, 100, 7].into(), 9), &[0; 100]),
        crate::forge::udp(after(2), end(LOCAL, 5), end([198, 51, 100, 53].into(), 53), &[0; 100]),
        crate::forge::udp(after(3), end([198, 51, 100, 7].into(), 9), end(LOCAL, 5), &[0; 100]),
        crate::forge::udp(after(4), end(LOCAL, 5), end(RESOLVER, 9), &[0; 100]),
    ]);
    let leak = bench.engine.leak(&id);
    assert_eq!((leak.packets, leak.bytes, leak.last_at), (1, 142, Some(after(1))));
    let receipt = Receipt {
        generation: 1,
        containment: id,
        finding: None,
        scope: Scope::Host,
        applied: false,
        error: Some("Operation not permitted".to_owned()),
        committed_at: None,
        last_packet_at: None,
        time_to_contain_ns: None,
        leaked_packets: 0,
        leaked_bytes: 0,
        sockets_destroyed: 0,
        proof: Default::default(),
        coverage: Vec::new(),
        target: Vec::new(),
        open: Vec::new(),
    };
    bench.input(Input::Receipt(Box::new(receipt), after(5)));
    let last: Vec<_> = bench.records().map(|(_, body)| body.clone()).collect();
    let [.., Body::Receipt(receipt), Body::Gap(gap)] = &last[..] else { panic!("{last:?}") };
    assert_eq!((receipt.leaked_packets, receipt.leaked_bytes), (1, 142));
    assert!(gap.detail.contains("egress of host is NOT cut"), "{}", gap.detail);
}

#[test]
fn an_expired_policy_stays_in_force_and_is_reported_once_as_frozen() {
    let mut policy = crate::forge::policy("enforce", DECIDE);
    policy.expires = Some(after(60));
    let mut bench = Bench::with(policy, &[], Limits::default());
    bench.tick(after(59));
    let frozen = |bench: &Bench| {
        bench
            .records()
            .filter(|(_, body)| matches!(body, Body::Policy(change) if change.outcome == "frozen"))
            .map(|(at, _)| at)
            .collect::<Vec<_>>()
    };
    assert!(frozen(&bench).is_empty());
    bench.feed(&probe(after(120), 1000, C2));
    assert_eq!(frozen(&bench), [after(60)]);
    assert_eq!(bench.orders().len(), 1);
}
