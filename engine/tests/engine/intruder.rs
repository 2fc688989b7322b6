//! What an intruder or an accident does to the detector's sight, and to its clock.

use crate::forge::{Bench, C2, LOCAL, PROBE, START, end, hello, policy, tcp};
use sekisho_engine::{HostFact, Input};
use sekisho_schema::sealed::Local;
use sekisho_schema::{Body, Grade, Scope, Span, Timestamp, Verified};

const PSH_ACK: u8 = 0x18;

fn after(seconds: i64) -> Timestamp {
    START.after(Span::from_secs(seconds))
}

fn detectors(bench: &Bench) -> Vec<String> {
    bench.findings().iter().map(|finding| finding.detector.clone()).collect()
}

fn enforce() -> Input<'static> {
    let policy = policy("enforce", crate::forge::DECIDE);
    Input::Policy(Box::new(Verified::locally(policy, Local::Installed)), after(60))
}

#[test]
fn a_flow_found_under_dry_run_is_cut_by_its_next_packet_once_enforce_comes() {
    let (client, server) = (end(LOCAL, 41_822), end(C2, 443));
    let mut bench = Bench::new("dry-run", "", &[]);
    bench.feed(&hello(START, client, server, &PROBE));
    bench.feed(&[tcp(after(30), client, server, PSH_ACK, 117, 901, &[7; 40])]);
    assert_eq!((bench.findings().len(), bench.orders().len()), (1, 0));
    bench.input(enforce());
    assert!(bench.orders().is_empty(), "a policy alone is no packet");
    bench.feed(&[tcp(after(61), client, server, PSH_ACK, 157, 901, &[7; 40])]);
    assert_eq!(bench.orders().len(), 1);
    assert_eq!(bench.orders()[0].decided_at, Some(after(61)));
    assert_eq!(bench.engine.held().containments.values().next().unwrap().scope, Scope::Host);
}

#[test]
fn a_connection_that_is_over_is_not_held_against_the_next_one_on_its_ports() {
    let (client, server) = (end(LOCAL, 41_822), end(C2, 443));
    let mut bench = Bench::new("dry-run", "", &[]);
    bench.feed(&hello(START, client, server, &PROBE));
    bench.input(enforce());
    bench.feed(&hello(after(70), client, server, b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"));
    bench.feed(&[tcp(after(75), client, server, PSH_ACK, 137, 901, b"GET /b HTTP/1.1\r\n\r\n")]);
    bench.tick(after(3 * 3600));
    assert!(bench.orders().is_empty(), "{:?}", bench.findings());
}

#[test]
fn a_flow_that_outlives_its_lease_is_cut_again() {
    let (client, server) = (end(LOCAL, 41_822), end(C2, 443));
    let mut bench = Bench::new("enforce", "", &[]);
    bench.feed(&hello(START, client, server, &PROBE));
    let mut at = START;
    for n in 0..50_u32 {
        at = after(i64::from(n + 1) * 1800);
        bench.feed(&[tcp(at, client, server, PSH_ACK, 117 + n * 10, 901, &[7; 10])]);
    }
    assert!(at > after(24 * 3600));
    assert!(!bench.engine.held().containments.is_empty(), "the implant speaks and nothing is cut");
}

#[test]
fn bytes_in_a_syn_that_the_server_did_not_take_hide_nothing() {
    let (client, server) = (end(LOCAL, 41_822), end(C2, 443));
    let at = |n| START.after(Span::from_millis(n));
    let mut bench = Bench::new("enforce", "", &[]);
    bench.feed(&[
        tcp(at(0), client, server, 2, 100, 0, b"nothing to see in these bytes"),
        tcp(at(1), server, client, 0x12, 900, 101, &[]),
        tcp(at(2), client, server, PSH_ACK, 101, 901, &PROBE),
    ]);
    assert_eq!(detectors(&bench), ["plugx.tcp"]);
}

#[test]
fn bytes_in_a_syn_that_the_server_took_are_judged() {
    let (client, server) = (end(LOCAL, 41_822), end(C2, 443));
    let mut bench = Bench::new("enforce", "", &[]);
    bench.feed(&[tcp(START, client, server, 2, 100, 0, &PROBE)]);
    assert_eq!(detectors(&bench), ["plugx.tcp"]);
}

#[test]
fn a_first_data_packet_that_the_capture_lost_hides_not_the_second() {
    let (client, server) = (end(LOCAL, 41_822), end(C2, 443));
    let mut frames = hello(START, client, server, b"");
    frames.truncate(3);
    frames.push(tcp(after(1), client, server, PSH_ACK, 101 + 300, 901, &PROBE));
    let mut bench = Bench::new("enforce", "", &[]);
    bench.feed(&frames);
    assert_eq!(detectors(&bench), ["plugx.tcp"]);
}

#[test]
fn a_header_in_two_segments_behind_an_empty_one_and_a_keep_alive_is_found() {
    let (client, server) = (end(LOCAL, 41_822), end(C2, 443));
    let mut frames = hello(START, client, server, b"");
    frames.push(tcp(after(1), client, server, 0x10, 100, 901, &[0]));
    frames.push(tcp(after(2), client, server, 0x10, 101, 901, &PROBE[..1]));
    frames.push(tcp(after(3), client, server, 0x10, 101, 901, &[0xAA]));
    frames.push(tcp(after(4), client, server, 0x10, 102, 901, &PROBE[1..]));
    let mut bench = Bench::new("enforce", "", &[]);
    bench.feed(&frames);
    assert_eq!(detectors(&bench), ["plugx.tcp"]);
}

#[test]
fn an_exemption_that_comes_later_ends_the_cut_of_what_it_covers_and_no_other() {
    let mut bench = Bench::new("enforce", "", &["203.0.113.80", "203.0.113.81"]);
    for last in [80, 81] {
        let there = end([203, 0, 113, last].into(), 80);
        bench.feed(&hello(START, end(LOCAL, 1000 + u16::from(last)), there, b"GET / HTTP/1.1\r\n"));
    }
    assert_eq!(bench.engine.held().containments.len(), 2);
    let exempt = "[[exempt]]\nname = \"shop\"\nto = \"203.0.113.80/32\"\n";
    let policy = policy("enforce", &format!("{exempt}{}", crate::forge::DECIDE));
    let policy = Box::new(Verified::locally(policy, Local::Installed));
    bench.input(Input::Policy(policy, after(60)));
    let held: Vec<_> =
        bench.engine.held().containments.values().map(|held| held.scope.to_string()).collect();
    assert_eq!(held, ["dest:203.0.113.81"]);
    assert_eq!(bench.orders().last().unwrap().set, *bench.engine.held());
    let released = bench.records().find_map(|(_, body)| match body {
        Body::Release(release) => Some((release.cause.clone(), release.scope.to_string())),
        _ => None,
    });
    assert_eq!(released, Some(("exempt".to_owned(), "dest:203.0.113.80".to_owned())));
}

#[test]
fn a_clock_set_forward_ends_no_lease_and_one_set_back_prolongs_none() {
    for hours in [2, -2] {
        let step = Span::from_nanos(hours * 3_600_000_000_000);
        let lease = "[[decide]]\ndetector = \"plugx.tcp\"\ngrade = \"malicious\"\nlevel = 5\nlease = \"1h\"\n";
        let mut bench = Bench::with(policy("enforce", lease), &[], Default::default());
        bench.feed(&hello(START, end(LOCAL, 41_822), end(C2, 443), &PROBE));
        let until = bench.engine.held().containments.values().next().unwrap().until;
        bench.input(Input::Fact(HostFact::ClockSet(step), after(60).after(step)));
        let held = bench.engine.held();
        let told: Vec<_> = held.containments.values().map(|held| held.until).collect();
        assert_eq!(told, [until.after(step)], "{hours}");
        assert_eq!(bench.orders().last().unwrap().set, *held);
        bench.tick(after(3590).after(step));
        assert_eq!(bench.engine.held().containments.len(), 1, "{hours}");
        bench.tick(after(3610).after(step));
        assert!(bench.engine.held().containments.is_empty(), "{hours}");
    }
}

#[test]
fn after_a_clock_set_back_by_years_a_lease_is_as_long_as_the_policy_says() {
    let step = Span::from_hours(-24 * 365 * 4);
    let mut bench = Bench::new("enforce", "", &[]);
    bench.feed(&hello(START, end(LOCAL, 1000), end(C2, 80), b"GET / HTTP/1.1\r\n\r\n"));
    let now = after(10).after(step);
    bench.input(Input::Fact(HostFact::ClockSet(step), now));
    bench.feed(&hello(now, end(LOCAL, 41_822), end(C2, 443), &PROBE));
    let held = bench.engine.held().containments.values().next().unwrap().clone();
    assert!(held.until.since(now) <= Span::from_hours(25), "{} from {now}", held.until);
    let gaps = bench.records().filter(|(_, body)| matches!(body, Body::Gap(_))).count();
    assert_eq!(gaps, 0, "whoever set the clock tells of it, once");
}

/// Another message than the probe: the same fields under the cipher "T1old" and the same key (plugx.md, V10).
const OTHER: [u8; 16] = [
    0x78, 0x56, 0x34, 0x12, 0xe5, 0xb3, 0x32, 0xe3, 0x7c, 0x90, 0x66, 0x13, 0xec, 0xae, 0xc1, 0x4c,
];

#[test]
fn a_stranger_who_speaks_plugx_to_an_open_port_cuts_nothing_until_the_inside_answers_in_it() {
    let (stranger, service) = (end(C2, 50_000), end(LOCAL, 80));
    let mut bench = Bench::new("enforce", "", &[]);
    bench.feed(&hello(START, stranger, service, &PROBE));
    assert_eq!(bench.findings()[0].grade, Grade::Suspect);
    assert!(bench.orders().is_empty(), "16 bytes of a stranger cut the host");
    bench.feed(&[tcp(after(1), service, stranger, PSH_ACK, 901, 117, &OTHER)]);
    assert_eq!(bench.findings()[1].grade, Grade::Malicious);
    assert_eq!(bench.orders().len(), 1);
}

#[test]
fn a_service_that_echoes_a_strangers_plugx_cuts_nothing() {
    let (stranger, service) = (end(C2, 50_000), end(LOCAL, 7));
    let mut bench = Bench::new("enforce", "", &[]);
    bench.feed(&hello(START, stranger, service, &PROBE));
    bench.feed(&[tcp(after(1), service, stranger, PSH_ACK, 901, 117, &PROBE)]);
    assert!(bench.orders().is_empty());
}

#[test]
fn a_server_that_answers_a_client_in_plugx_cuts_nothing() {
    let (client, server) = (end(LOCAL, 41_822), end(C2, 80));
    let mut bench = Bench::new("enforce", "", &[]);
    bench.feed(&hello(START, client, server, b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"));
    bench.feed(&[tcp(after(1), server, client, PSH_ACK, 901, 138, &PROBE)]);
    assert_eq!(bench.findings()[0].grade, Grade::Suspect);
    assert!(bench.orders().is_empty());
}

#[test]
fn the_c2s_answer_to_an_implant_is_not_told_a_second_time() {
    let (client, server) = (end(LOCAL, 41_822), end(C2, 443));
    let mut bench = Bench::new("dry-run", "", &[]);
    bench.feed(&hello(START, client, server, &PROBE));
    bench.feed(&[tcp(after(1), server, client, PSH_ACK, 901, 117, &OTHER)]);
    assert_eq!(detectors(&bench), ["plugx.tcp"]);
}
