//! Episodes as the whole engine sees them.

use crate::forge::{
    Bench, C2, LOCAL, Made, START, answer, end, hello, policy, query, tcp, udp, udp_stating,
};
use sekisho_engine::cases::{CaseFile, try_case};
use sekisho_engine::certify::episode::{Channel, Tier, score_of};
use sekisho_engine::learn::{Episodes, Unlocked};
use sekisho_engine::{Engine, EngineConfig, HostFact, Input, Limits, Output, drive};
use sekisho_schema::episode::EpisodeScore;
use sekisho_schema::{Action, Span, Timestamp};
use std::net::Ipv4Addr;

fn after(seconds: f64) -> Timestamp {
    START.after(Span::from_nanos((seconds * 1e9) as i64))
}

const CASES: [&str; 9] = [
    include_str!("../../../rules/cases/behaviour.allowance.toml"),
    include_str!("../../../rules/cases/behaviour.beacon.toml"),
    include_str!("../../../rules/cases/behaviour.dns-information.toml"),
    include_str!("../../../rules/cases/behaviour.fanout.toml"),
    include_str!("../../../rules/cases/behaviour.host-budget.toml"),
    include_str!("../../../rules/cases/behaviour.icmp.toml"),
    include_str!("../../../rules/cases/behaviour.persistence.toml"),
    include_str!("../../../rules/cases/behaviour.staging.toml"),
    include_str!("../../../rules/cases/behaviour.volume.toml"),
];

#[test]
fn every_case_of_behaviour_comes_out_as_it_says() {
    for text in CASES {
        let file = CaseFile::parse(text).unwrap();
        assert_eq!(file.has_both(), (true, true), "{}", file.detector);
        for case in &file.cases {
            let verdict = try_case(case, crate::forge::rules(&[])).unwrap();
            assert_eq!(verdict.faults, Vec::<String>::new(), "{}: {:?}", case.name, verdict.told);
        }
    }
}

fn score(bench: &Bench, destination: &str, channel: Channel) -> Option<EpisodeScore> {
    bench
        .engine
        .episodes()
        .scores()
        .find(|(key, score)| key.destination.to_string() == destination && score.channel == channel)
        .map(|(_, score)| score)
}

/// A connection with keep-alives of its own kind, answered.
fn keep_alives(start: f64, gap: f64, count: u32) -> Vec<Made> {
    let (client, server) = (end(LOCAL, 41_000), end(C2, 443));
    let noise = |n: u32| -> Vec<u8> {
        (0..96_u32)
            .map(|at| ((at * 167 + n * 59 + 13).wrapping_mul(2_654_435_761) >> 11) as u8)
            .collect()
    };
    let mut frames = hello(after(start), client, server, &noise(0));
    let (mut seq, mut ack) = (101 + 96, 901);
    for n in 1..count {
        let at = start + f64::from(n) * gap;
        frames.push(tcp(after(at), client, server, 0x18, seq, ack, &noise(n)));
        frames.push(tcp(after(at + 0.05), server, client, 0x18, ack, seq + 96, b"ok"));
        (seq, ack) = (seq + 96, ack + 2);
    }
    frames
}

#[test]
fn a_persistent_connection_is_scored_by_its_bursts_in_every_channel_that_applies() {
    let mut bench = Bench::new("dry-run", "", &[]);
    bench.feed(&keep_alives(0.0, 30.0, 400));
    let rhythm = score(&bench, "203.0.113.0/24", Channel::Rhythm).unwrap();
    assert_eq!(rhythm.score, 4.0, "hours since it was proven");
    assert_eq!(score(&bench, "203.0.113.0/24", Channel::Persistence).unwrap().score, 4.0);
    for (key, score) in bench.engine.episodes().scores() {
        let replayed = score_of(score.channel, &score.inputs).unwrap();
        assert_eq!(replayed.to_bits(), score.score.to_bits(), "{key}");
    }
}

#[test]
fn the_first_moment_above_each_threshold_is_in_the_record_and_outlives_a_restart() {
    let mut bench = Bench::new("dry-run", "", &[]);
    let mut unlocked = Unlocked::default();
    unlocked.set(Channel::Allowance, Tier::Hold, 2000.0);
    unlocked.set(Channel::Allowance, Tier::CutDestination, 4000.0);
    unlocked.set(Channel::Rhythm, Tier::Hold, 1e9);
    let frames = keep_alives(0.0, 30.0, 60);
    // What is unlocked is looked at anew when an hour begins.
    bench.feed(&frames[..10]);
    bench.engine.episodes_mut().unlock(unlocked);
    bench.feed(&frames[10..]);
    let record = bench.engine.episodes().records().next().unwrap();
    let tiers: Vec<Tier> = record.crossings.iter().map(|crossing| crossing.tier).collect();
    assert_eq!(tiers, [Tier::Hold, Tier::CutDestination], "each once, in their order");
    for (crossing, threshold) in record.crossings.iter().zip([2000.0, 4000.0]) {
        assert_eq!((crossing.channel, crossing.threshold), (Channel::Allowance, threshold));
        assert!(crossing.score > threshold && crossing.score < threshold + 200.0, "{crossing:?}");
        assert!(crossing.at > record.first_at && crossing.at < record.last_at);
        assert!(crossing.up < record.up, "what came after it would have been stopped");
    }
    let saved = bench.engine.episodes().save();
    let mut again = Episodes::new(&Limits::default(), 99);
    again.restore(&saved).unwrap();
    assert_eq!(again.records().next().unwrap(), record);
    assert_eq!(again.save(), saved);
}

#[test]
fn calls_that_carry_nothing_tell_of_their_rhythm_once_the_destination_has_answered() {
    let server = end(C2, 443);
    let calls = |port: u16, from: f64| -> Vec<Made> {
        let one = |n: u16| {
            let (client, at) = (end(LOCAL, port + n), from + 10.0 * f64::from(n));
            let syn = tcp(after(at), client, server, 2, 1, 0, b"");
            [syn, tcp(after(at + 0.1), server, client, 0x14, 0, 2, b"")]
        };
        (0..60).flat_map(one).collect()
    };
    let told = |bench: &Bench| {
        bench.findings().iter().filter(|finding| finding.detector == "behaviour.beacon").count()
    };
    let mut bench = Bench::new("dry-run", "", &[]);
    bench.feed(&calls(42_000, 0.0));
    bench.tick(after(1000.0));
    assert!(bench.engine.episodes().is_empty(), "nothing was ever said");
    bench.feed(&keep_alives(1000.0, 20.0, 4));
    assert_eq!((told(&bench), bench.engine.episodes().len()), (0, 1));
    let before: Vec<_> = bench.engine.episodes().scores().collect();
    bench.feed(&calls(43_000, 1100.0));
    bench.tick(after(2500.0));
    assert_eq!(told(&bench), 1);
    let after: Vec<_> = bench.engine.episodes().scores().collect();
    assert_eq!(after, before, "no contact, no hour and no score came of it");
}

#[test]
fn what_is_written_down_in_pieces_is_what_is_written_at_once() {
    let mut bench = Bench::new("dry-run", "", &[]);
    bench.feed(&keep_alives(0.0, 30.0, 50));
    for n in 0..40_u8 {
        let to = Ipv4Addr::new(198, 51, n, 1);
        bench.feed(&[udp(after(2000.0 + f64::from(n)), end(LOCAL, 6000), end(to, 4444), b"hi")]);
    }
    let episodes = bench.engine.episodes();
    let mut saving = episodes.begin_saving();
    let steps = (1..1000).find(|_| episodes.save_some(&mut saving, 3)).unwrap();
    assert!(steps > 13, "{steps}");
    assert_eq!(saving.sealed(), episodes.save());
}

#[test]
fn a_finding_of_behaviour_cuts_nothing_without_a_certificate_whatever_the_policy_says() {
    let line =
        "[[decide]]\ndetector = \"behaviour.*\"\ngrade = \"odd\"\nlevel = 5\nlease = \"1h\"\n";
    let mut bench = Bench::with(policy("enforce", line), &[], Limits::default());
    bench.input(Input::Fact(HostFact::Enforcement(Ok(())), START));
    bench.feed(&keep_alives(0.0, 30.0, 60));
    let findings = bench.findings();
    assert_eq!(findings[0].detector, "behaviour.beacon");
    assert!(findings.iter().all(|finding| finding.decision.action == Action::Record));
    assert!(bench.orders().is_empty());
    // The six bets are in the record, and make the score again.
    let facts = &findings[0].evidence[0].facts;
    let bets: Vec<f64> = (1..=6).map(|n| facts[&format!("bet-{n}")].as_f64().unwrap()).collect();
    let mean: f64 = bets.iter().map(|bet| 10_f64.powf(*bet)).sum::<f64>() / 6.0;
    assert!((mean.log10() - findings[0].score.unwrap()).abs() < 1e-4);
    assert!(facts["odd"].as_array().is_some_and(|odd| !odd.is_empty()), "{facts:?}");
}

#[test]
fn names_that_dns_gave_are_keys_and_addresses_come_and_go_below_them() {
    let mut bench = Bench::new("dry-run", "", &[]);
    for n in 0..6_u8 {
        let at = f64::from(n) * 100.0;
        let address = Ipv4Addr::new(198, 51, 100, n * 40);
        bench.feed(&[query(after(at), "x.cdn.example.co.jp")]);
        bench.feed(&[answer(after(at + 0.1), "x.cdn.example.co.jp", address)]);
        bench.feed(&[udp(
            after(at + 0.2),
            end(LOCAL, 6000 + u16::from(n)),
            end(address, 4444),
            b"hi",
        )]);
    }
    let keys: Vec<String> = bench
        .engine
        .episodes()
        .scores()
        .filter(|(_, score)| score.channel == Channel::Allowance)
        .map(|(key, _)| key.to_string())
        .collect();
    assert_eq!(keys, ["host to example.co.jp (udp/high)"]);
}

#[test]
fn bytes_that_come_back_are_set_against_those_that_go() {
    let mut bench = Bench::new("dry-run", "", &[]);
    let (client, server) = (end(LOCAL, 7000), end(C2, 4444));
    let mut frames = Vec::new();
    for n in 0..200 {
        let at = f64::from(n) * 0.1;
        frames.push(udp_stating(after(at), client, server, &[0; 32], 10_000));
        frames.push(udp_stating(after(at + 0.05), server, client, &[0; 32], 50_000));
    }
    bench.feed(&frames);
    bench.tick(after(1000.0));
    let allowance = score(&bench, "203.0.113.0/24", Channel::Allowance).unwrap();
    assert!(allowance.score < 200_000.0, "{allowance:?}");
    let host = score(&bench, "0.0.0.0/0", Channel::HostBudget).unwrap();
    assert_eq!(host.score, allowance.score, "one destination is all that the host spoke to");
}

#[test]
fn an_engine_that_goes_on_from_saved_episodes_loses_no_score() {
    let frames = keep_alives(0.0, 60.0, 240);
    // The client speaks first in what is seen of the second half.
    let (first_half, second_half) = frames.split_at(4 + 2 * 119);
    let mut whole = Bench::new("dry-run", "", &[]);
    whole.feed(first_half);
    let saved = whole.engine.episodes().save();
    whole.feed(second_half);
    let mut restarted = Bench::new("dry-run", "", &[]);
    restarted.engine.episodes_mut().restore(&saved).unwrap();
    restarted.feed(second_half);
    let scores = |bench: &Bench| {
        let of = score(bench, "203.0.113.0/24", Channel::Rhythm).unwrap();
        (of.score, of.at)
    };
    assert_eq!(scores(&whole), scores(&restarted));
}

#[test]
fn seven_days_of_a_beacon_are_replayed_and_told_a_handful_of_times() {
    let mut bench = Bench::new("dry-run", "", &[]);
    let frames: Vec<Made> = (0..10_080)
        .map(|n| udp(after(f64::from(n) * 60.0), end(LOCAL, 6000), end(C2, 8443), b"ping"))
        .collect();
    bench.feed(&frames);
    let findings = bench.findings();
    assert!((3..=12).contains(&findings.len()), "{}", findings.len());
    assert!(findings.iter().all(|finding| finding.detector == "behaviour.beacon"));
}

/// Everything that an engine with tables of a few keys says of a beacon under a flood, and its last state.
fn said(hash_seed: u64) -> (Vec<String>, Vec<u8>) {
    let limits = Limits {
        episodes: 16,
        envelopes: 4,
        asked_domains: 8,
        echo_peers: 4,
        named_peers: 8,
        ..Limits::default()
    };
    let mut engine = Engine::new(EngineConfig { host: "h".to_owned(), limits, hash_seed });
    engine.handle(Input::Rules(Box::new(crate::forge::rules(&[])), START));
    let mut frames = keep_alives(0.0, 30.0, 300);
    for n in 0..4000_u32 {
        let at = after(1.0 + f64::from(n) * 2.0);
        let to = Ipv4Addr::from_bits(0x5000_0000 + n * 256);
        frames.push(udp(at, end(LOCAL, 6000), end(to, 4444), b"flood"));
        frames.push(query(at, &format!("n{n}.zone{}.example.net", n % 50)));
    }
    frames.sort_by_key(|frame| frame.at);
    let mut said = Vec::new();
    drive(&mut engine, frames.iter().map(Made::frame), |output| {
        if let Output::Record(record) = output {
            said.push(serde_json::to_string(&(record.at, &record.body)).unwrap());
        }
    });
    (said, engine.episodes().save())
}

#[test]
fn the_same_traffic_is_told_in_the_same_bytes_whatever_the_seed_of_the_hashes() {
    let (first, state) = said(1);
    assert!(first.iter().any(|line| line.contains("had to be forgotten")), "{first:?}");
    assert!(first.iter().any(|line| line.contains("by the clock")), "{first:?}");
    for seed in [1, 2, u64::MAX] {
        assert_eq!(said(seed), (first.clone(), state.clone()), "{seed}");
    }
}

#[test]
fn a_frame_of_which_a_capture_keeps_less_says_how_much_was_sent() {
    let case = |snap: usize| {
        let text = format!(
            "schema = \"sekisho.cases/1\"\ndetector = \"behaviour.staging\"\n[[case]]\nname = \"a\"\n\
             expect = []\npackets = '''\ntcp 10.0.0.5:41000 > 10.0.0.9:5432\n< fill:2000 snap {snap}\n'''\n"
        );
        CaseFile::parse(&text).unwrap().cases[0].frames()
    };
    let frames = case(96).unwrap();
    let sizes: Vec<_> = frames[3..].iter().map(|it| (it.bytes.len(), it.wire_len)).collect();
    assert_eq!(sizes, [(96, 14 + 40 + 1440), (96, 14 + 40 + 560)]);
    assert!(case(95).is_err_and(|error| error.to_string().contains("96 bytes or more")));
}
