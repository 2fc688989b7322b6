//! The same in gives the same out, however often the engine is asked for the time.

use crate::forge::{Bench, C2, LOCAL, Made, PROBE, START, answer, end, hello, query, udp};
use sekisho_engine::Output;
use sekisho_schema::{Envelope, Record, Span, Timestamp};
use std::net::Ipv4Addr;

fn after(millis: i64) -> Timestamp {
    START.after(Span::from_millis(millis))
}

/// Two days: names, beacons, cuts that end, uploads, PlugX, idle flows.
fn story() -> Vec<Made> {
    let mut frames = Vec::new();
    let mut state = 0x1234_5678_9ABC_DEF1_u64;
    let mut draw = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for n in 0..400_u64 {
        let at = after(n as i64 * 400_000 + draw(300_000) as i64);
        let remote = Ipv4Addr::new(198, 51, 100, draw(40) as u8);
        match draw(5) {
            0 => frames.extend([
                query(at, "www.c2.example"),
                answer(at.after(Span::from_millis(9)), "www.c2.example", remote),
            ]),
            1 => frames.extend(hello(at, end(LOCAL, 2000 + n as u16), end(C2, 443), &PROBE)),
            2 => frames.extend(hello(
                at,
                end(LOCAL, 2000 + n as u16),
                end(remote, 80),
                b"GET / HTTP/1.1\r\nHost: x.c2.example\r\n\r\n",
            )),
            3 => frames.push(crate::forge::udp_stating(
                at,
                end(LOCAL, 99),
                end(remote, 443),
                &[1; 20],
                60_000,
            )),
            _ => frames.push(udp(at, end(LOCAL, 98), end(remote, 123), &[7; 48])),
        }
    }
    for n in 0..1500 {
        frames.push(udp(after(n * 90_000 + (n % 7) * 100), end(LOCAL, 97), end(C2, 5353), b"beat"));
    }
    frames.sort_by_key(|frame| frame.at);
    frames
}

fn policy() -> sekisho_schema::Policy {
    let mut policy = crate::forge::policy("enforce", &crate::forge::DECIDE.replace("24h", "3h"));
    policy.allowance.per_destination_bytes = 200_000;
    policy.allowance.per_host_day_bytes = 400_000;
    policy.allowance.learn_for = Span::from_hours(6);
    policy.budget.host_cuts_per_hour = 1;
    policy
}

fn lines(log: &[Output]) -> Vec<String> {
    let mut seq = 0;
    log.iter()
        .map(|output| match output {
            Output::Approve(_) | Output::AskOwner(_) => format!("{output:?}"),
            Output::Contain(order) => format!("{order:?}"),
            Output::Record(record) => {
                seq += 1;
                let record = Record::clone(record);
                serde_json::to_string(&Envelope::new(seq, "web-1", record)).unwrap()
            }
        })
        .collect()
}

fn run(frames: &[Made], mut between: impl FnMut(&mut Bench, Timestamp, Timestamp)) -> Vec<String> {
    let limits = sekisho_engine::Limits::default();
    let mut bench = Bench::with(policy(), &["c2.example"], limits);
    let mut last = START;
    for frame in frames {
        between(&mut bench, last, frame.at);
        bench.feed(std::slice::from_ref(frame));
        last = frame.at;
    }
    bench.tick(last.after(Span::from_hours(72)));
    let mut lines = lines(&bench.log);
    lines.push(serde_json::to_string(&bench.engine.summary()).unwrap());
    lines.push(serde_json::to_string(&bench.engine.baseline()).unwrap());
    lines
}

#[test]
fn the_same_frames_give_the_same_bytes() {
    let frames = story();
    let first = run(&frames, |_, _, _| {});
    let kinds =
        ["\"finding\"", "\"release\"", "\"containment\"", "ContainOrder", "already-contained"];
    for kind in kinds {
        assert!(first.iter().any(|line| line.contains(kind)), "the story lacks {kind}");
    }
    assert_eq!(first, run(&frames, |_, _, _| {}));
}

#[test]
fn extra_ticks_change_nothing() {
    let frames = story();
    let quiet = run(&frames, |_, _, _| {});
    for seed in 1..5_u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let ticked = run(&frames, |bench, last, next| {
            let room = next.since(last).nanos().max(1);
            let mut times = [0_i64; 2];
            for time in &mut times {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *time = (state % room as u64) as i64;
            }
            times.sort_unstable();
            for time in times {
                let now = last.after(Span::from_nanos(time));
                bench.engine.handle_timeout(now);
                bench.drain();
            }
        });
        assert_eq!(ticked, quiet, "seed {seed}");
    }
}
