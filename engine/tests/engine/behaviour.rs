//! Rhythm, allowance and the baseline.

use crate::forge::{Bench, C2, DECIDE, LOCAL, Made, START, answer, end, query, udp, udp_stating};
use sekisho_engine::{Input, Limits};
use sekisho_schema::{Body, Policy, Span, Timestamp};
use std::net::Ipv4Addr;

struct Draw(u64);

impl Draw {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn after(seconds: f64) -> Timestamp {
    START.after(Span::from_nanos((seconds * 1e9) as i64))
}

fn contacts(mut gap: impl FnMut() -> f64, count: usize, remote: Ipv4Addr) -> Vec<Made> {
    let mut at = 0.0;
    (0..count)
        .map(|_| {
            at += gap();
            udp(after(at), end(LOCAL, 6000), end(remote, 8443), b"ping")
        })
        .collect()
}

fn learning_policy(learn_for: &str) -> Policy {
    crate::forge::policy(
        "dry-run",
        &format!(
            "[allowance]\nper-destination-bytes = 1000000\nper-host-day-bytes = 1500000\nlearn-for = \"{learn_for}\"\n{DECIDE}"
        ),
    )
}

#[test]
fn a_beacon_with_20_percent_jitter_is_found() {
    let mut draw = Draw(99);
    let mut bench = Bench::new("dry-run", "", &[]);
    bench.feed(&contacts(|| 60.0 * (0.8 + 0.4 * draw.unit()), 60, C2));
    let findings = bench.findings();
    assert_eq!(findings[0].detector, "behaviour.beacon");
    assert!(findings[0].score.unwrap() >= 6.0 && findings[0].frame <= 45, "{:?}", findings[0]);
    let text = &findings[0].explanation;
    assert!(text.starts_with("web-1 comes back to 203.0.113.9 port 8443 by the clock: "), "{text}");
    assert!(
        text.contains(" s predicted beforehand; unplanned traffic does that at most "),
        "{text}"
    );
    // Told again only when the evidence has doubled.
    assert!(findings.len() <= 3, "{}", findings.len());
}

#[test]
fn no_poisson_stream_of_200_is_called_a_beacon() {
    let mut draw = Draw(0x9E37_79B9_7F4A_7C15);
    let mut frames = Vec::new();
    for stream in 0..200_u8 {
        let mean = 5.0 + 300.0 * draw.unit();
        let remote = Ipv4Addr::new(198, 51, 100, stream);
        frames.extend(contacts(|| -mean * (1.0 - draw.unit()).ln(), 300, remote));
    }
    frames.sort_by_key(|frame| frame.at);
    let mut bench = Bench::new("dry-run", "", &[]);
    bench.feed(&frames);
    assert_eq!(bench.engine.summary().frames, 60_000);
    assert_eq!(bench.findings(), Vec::<&sekisho_schema::Finding>::new());
}

fn upload(start: f64, remote: Ipv4Addr, datagrams: usize) -> Vec<Made> {
    (0..datagrams)
        .map(|n| {
            let at = after(start + n as f64 * 0.01);
            udp_stating(at, end(LOCAL, 7000), end(remote, 443), &[0; 32], 50_000)
        })
        .collect()
}

#[test]
fn an_exceeded_allowance_is_told_once() {
    let mut bench = Bench::with(learning_policy("1h"), &[], Limits::default());
    bench.feed(&upload(0.0, [198, 51, 100, 1].into(), 100));
    assert!(bench.findings().is_empty(), "a destination met while learning is no surprise");
    bench.feed(&upload(7200.0, C2, 60));
    let told: Vec<_> = bench.findings().iter().map(|f| f.detector.clone()).collect();
    assert_eq!(told, ["behaviour.allowance", "behaviour.host-budget"]);
    let text = bench.findings()[0].explanation.clone();
    assert!(
        text.contains(" bytes to 203.0.113.9 within seven days")
            && text.contains("1,000,000 bytes are allowed"),
        "{text}"
    );
    bench.feed(&upload(7300.0, C2, 60));
    assert_eq!(bench.findings().len(), 2);
}

#[test]
fn many_new_destinations_within_their_allowance_still_spend_the_host_budget() {
    let mut bench = Bench::with(learning_policy("0s"), &[], Limits::default());
    for n in 0..4_u8 {
        bench.feed(&upload(f64::from(n) * 300.0, Ipv4Addr::new(198, 51, 100, n), 12));
    }
    bench.tick(after(2000.0));
    let told: Vec<_> = bench.findings().iter().map(|f| f.detector.clone()).collect();
    assert_eq!(told, ["behaviour.host-budget"]);
    assert_eq!(bench.findings()[0].subject.value, "web-1");
}

#[test]
fn an_approved_or_exempt_destination_spends_nothing() {
    let mut policy = learning_policy("0s");
    policy.allowance.approved = vec!["203.0.113.9".to_owned(), "updates.example".to_owned()];
    let mut bench = Bench::with(policy, &[], Limits::default());
    bench.feed(&upload(0.0, C2, 100));
    bench.feed(&[query(after(9.9), "cdn.updates.example")]);
    bench.feed(&[answer(after(10.0), "cdn.updates.example", [198, 51, 100, 9].into())]);
    bench.feed(&upload(11.0, [198, 51, 100, 9].into(), 100));
    bench.tick(after(1000.0));
    assert!(bench.findings().is_empty());
}

#[test]
fn a_restored_baseline_knows_its_destinations_by_name_and_address() {
    let mut first = Bench::with(learning_policy("1h"), &[], Limits::default());
    first.feed(&[query(after(0.0), "www.partner.example")]);
    first.feed(&[answer(after(0.1), "www.partner.example", C2)]);
    first.feed(&upload(1.0, C2, 4));
    first.tick(after(600.0));
    let baseline = first.engine.baseline();
    assert_eq!(baseline.destinations.len(), 2);
    assert!(baseline.destinations.iter().all(|known| known.host.is_none()));
    let mut second = Bench::with(learning_policy("1h"), &[], Limits::default());
    second.input(Input::Baseline(Box::new(baseline), after(7200.0)));
    second.feed(&upload(7201.0, C2, 100));
    second.tick(after(9000.0));
    assert!(second.findings().is_empty());
    second.feed(&upload(9001.0, [198, 51, 100, 1].into(), 100));
    assert_eq!(second.findings()[0].detector, "behaviour.allowance");
}

#[test]
fn learn_tells_the_baseline_after_each_hour_with_traffic() {
    let policy = crate::forge::policy("learn", DECIDE);
    let mut bench = Bench::with(policy, &[], Limits::default());
    bench.feed(&upload(0.0, C2, 4));
    bench.feed(&upload(30_000.0, C2, 4));
    bench.tick(after(90_000.0));
    let told: Vec<_> = bench
        .records()
        .filter_map(|(at, body)| match body {
            Body::Baseline(state) => Some((at, state.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|(at, _)| at.seconds() % 3600 == 0));
    assert_eq!((told[1].1.hours, told[1].1.destinations), (2.0, 1));
}

#[test]
fn a_flood_of_destinations_is_bounded_and_counted() {
    let limits = Limits { destinations: 64, ..Limits::default() };
    let mut bench = Bench::with(learning_policy("0s"), &[], limits);
    bench.feed(&upload(0.0, C2, 15));
    let flood: Vec<_> = (0..4000_u16)
        .map(|n| {
            let remote = Ipv4Addr::new(198, 51, (n >> 8) as u8, n as u8);
            udp(after(100.0 + f64::from(n) * 0.1), end(LOCAL, 7000), end(remote, 443), b"x")
        })
        .collect();
    bench.feed(&flood);
    bench.feed(&upload(900.0, C2, 10));
    bench.tick(after(2000.0));
    let told: Vec<_> = bench.findings().iter().map(|f| f.detector.clone()).collect();
    assert_eq!(
        told,
        ["behaviour.fanout", "behaviour.allowance"],
        "what was past half its allowance was kept"
    );
    assert!(bench.engine.summary().evicted["destinations"] > 3000);
    bench.tick(after(4000.0));
    let told = bench.records().any(
        |(_, body)| matches!(body, Body::Gap(gap) if gap.cause == "table-full" && gap.count > 3000),
    );
    assert!(told);
}
