use super::*;
use crate::flow::{FlowFacts, ObservationKind, Route, Toward};
use sekisho_schema::Span;
use sekisho_schema::Transport;
use sekisho_schema::episode::Tier;
use sekisho_schema::finding::Direction;
use std::net::{Ipv4Addr, SocketAddr};

const START: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);

fn after(seconds: f64) -> Timestamp {
    START.after(Span::from_nanos((seconds * 1e9) as i64))
}

fn remote(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number)
}

fn facts(to: Ipv4Addr, port: u16, name: Option<&str>, bytes: (u64, u64)) -> FlowFacts<'_> {
    FlowFacts {
        key: FlowKey {
            transport: Transport::Tcp,
            local: SocketAddr::new(Ipv4Addr::new(10, 0, 0, 2).into(), 40_000),
            remote: SocketAddr::new(to.into(), port),
        },
        route: Route::Egress,
        direction: Direction::Outbound,
        start_seen: true,
        first_at: START,
        last_at: START,
        bytes_out: bytes.0,
        bytes_in: bytes.1,
        overlap: false,
        bound_name: name,
        registered: name.map(crate::app::registered_name),
    }
}

fn seen<'a>(at: Timestamp, flow: FlowFacts<'a>, kind: ObservationKind<'a>) -> Observation<'a> {
    Observation { at, frame: 1, flow, kind }
}

const NEW: Regard<'static> =
    Regard { host: None, object: None, is_known: false, is_learning: false };

fn burst(episodes: &mut Episodes, at: f64, to: Ipv4Addr, name: Option<&str>) {
    let o = seen(after(at), facts(to, 443, name, (100, 100)), ObservationKind::Burst);
    episodes.burst(&o, &NEW);
}

fn volume(episodes: &mut Episodes, at: f64, to: Ipv4Addr, bytes: (u64, u64), regard: &Regard<'_>) {
    let kind = ObservationKind::Volume { bytes_out: bytes.0, bytes_in: bytes.1 };
    let o = seen(after(at), facts(to, 443, None, bytes), kind);
    episodes.volume(&o, bytes, regard);
}

fn told(episodes: &mut Episodes) -> Vec<Told> {
    episodes.take_told().collect()
}

fn episodes(capacity: usize) -> Episodes {
    Episodes::new(&Limits { episodes: capacity, ..Limits::default() }, 3)
}

fn score(episodes: &Episodes, destination: &str, channel: Channel) -> Option<EpisodeScore> {
    episodes
        .scores()
        .find(|(key, score)| key.destination.to_string() == destination && score.channel == channel)
        .map(|(_, score)| score)
}

#[test]
fn names_of_one_registered_domain_are_one_episode_and_addresses_of_one_network_too() {
    let mut episodes = episodes(64);
    for (n, name) in ["a.example.co.jp", "b.example.co.jp", "example.co.jp"].iter().enumerate() {
        burst(&mut episodes, n as f64 * 2.0, remote(n as u32 * 1000), Some(name));
    }
    for n in 0..5 {
        burst(&mut episodes, 100.0 + f64::from(n), remote(n), None);
    }
    let mut keys: Vec<String> = episodes.scores().map(|(key, _)| key.to_string()).collect();
    keys.sort();
    keys.dedup();
    let of_episodes: Vec<_> = keys.iter().filter(|key| key.contains("tcp/443")).collect();
    assert_eq!(of_episodes, ["host to 198.18.0.0/24 (tcp/443)", "host to example.co.jp (tcp/443)"],);
}

#[test]
fn the_client_s_own_word_names_an_address_that_no_answer_named() {
    let mut episodes = episodes(64);
    let kind =
        ObservationKind::Name { name: "cdn.example.net", source: crate::flow::NameSource::Sni };
    episodes.note(&seen(START, facts(remote(9), 443, None, (0, 0)), kind), || None);
    burst(&mut episodes, 1.0, remote(9), None);
    assert!(score(&episodes, "example.net", Channel::Allowance).is_some());
}

#[test]
fn a_first_burst_waits_for_the_rest_of_the_hello() {
    let mut episodes = episodes(64);
    let flow = facts(remote(9), 443, None, (600, 0));
    let hello = [0x16, 3, 1, 2, 0, 1, 0];
    let head = ObservationKind::Head { toward: Toward::Remote, bytes: &hello };
    episodes.note(&seen(START, flow, head), || None);
    episodes.burst(&seen(START, flow, ObservationKind::Burst), &NEW);
    assert!(episodes.is_empty(), "whom it is for is not known yet");
    let kind =
        ObservationKind::Name { name: "www.example.net", source: crate::flow::NameSource::Sni };
    episodes.note(&seen(after(0.1), flow, kind), || None);
    volume(&mut episodes, 2.0, remote(9), (2000, 9000), &NEW);
    assert_eq!(episodes.len(), 1);
    assert!(score(&episodes, "example.net", Channel::Persistence).is_some());
}

#[test]
fn a_beacon_is_told_when_it_is_proven_and_at_twice_the_evidence() {
    let mut episodes = episodes(64);
    for minute in 0..60 {
        burst(&mut episodes, f64::from(minute) * 60.0, remote(9), None);
    }
    let told = told(&mut episodes);
    let rhythms: Vec<f64> = told
        .iter()
        .filter_map(|told| match told.what {
            What::Rhythm { log10_e, .. } => Some(log10_e),
            _ => None,
        })
        .collect();
    assert!(rhythms.len() >= 3 && rhythms.is_sorted(), "{rhythms:?}");
    assert!(rhythms[0] >= 6.0 && rhythms[0] < 12.0 && rhythms[1] >= 12.0, "{rhythms:?}");
    assert!(told.iter().all(|told| told.tier.is_none()), "no certificate stands behind it");
    let score = score(&episodes, "198.18.0.0/24", Channel::Rhythm).unwrap();
    assert_eq!(score.score, 1.0);
    assert!(told[0].oddities.has(Oddity::NoName));
}

#[test]
fn every_score_replays_from_its_record_to_the_same_bits() {
    let mut episodes = busy();
    let benign = crate::certify::tails::Features {
        rhythm: 1.0,
        hours: 2.0,
        net: 1000.0,
        hosts: 1.0,
        oddities: Vec::new(),
    };
    episodes.calibrate(Some(crate::certify::tails::measure(&vec![benign; 50])));
    let mut channels = std::collections::BTreeSet::new();
    for (key, score) in episodes.scores() {
        let replay =
            |of: &EpisodeScore| crate::certify::episode::score_of(of.channel, &of.inputs).unwrap();
        assert_eq!(replay(&score).to_bits(), score.score.to_bits(), "{key}");
        let text = serde_json::to_string(&score).unwrap();
        let record: EpisodeScore = serde_json::from_str(&text).unwrap();
        let (replayed, told) = (replay(&record), score.score);
        assert!((replayed - told).abs() <= 1e-12 * told.abs(), "{key}: {text}");
        channels.insert(score.channel);
    }
    assert_eq!(channels.len(), Channel::ALL.len(), "{channels:?}");
}

#[test]
fn an_upload_counts_on_balance_and_in_the_day_of_the_host() {
    let mut episodes = episodes(64);
    volume(&mut episodes, 0.0, remote(1), (1000, 900_000), &NEW);
    volume(&mut episodes, 1.0, remote(1), (500_000, 0), &NEW);
    volume(&mut episodes, 2.0, remote(1000), (3_000_000, 1_000), &NEW);
    episodes.answered(after(3.0), None, 70_000);
    let allowance = |destination| score(&episodes, destination, Channel::Allowance).unwrap().score;
    assert_eq!((allowance("198.18.0.0/24"), allowance("198.18.3.0/24")), (0.0, 2_999_000.0));
    let host = score(&episodes, "0.0.0.0/0", Channel::HostBudget).unwrap();
    assert_eq!(host.score, 2_999_000.0 + 70_000.0);
}

#[test]
fn what_a_certificate_unlocks_says_so_each_time_and_nothing_else_does() {
    let mut episodes = episodes(64);
    volume(&mut episodes, 0.0, remote(1), (50_000_000, 0), &NEW);
    assert!(told(&mut episodes).is_empty());
    let mut unlocked = Unlocked::default();
    unlocked.set(Channel::Allowance, Tier::Hold, 40e6);
    unlocked.set(Channel::Allowance, Tier::CutDestination, 90e6);
    unlocked.set(Channel::HostBudget, Tier::Hold, 120e6);
    episodes.unlock(unlocked);
    let mut tiers = Vec::new();
    for second in 1..4 {
        volume(&mut episodes, f64::from(second), remote(1), (30_000_000, 0), &NEW);
        let told = told(&mut episodes);
        tiers.extend(told.iter().map(|told| (told.score.as_ref().unwrap().channel, told.tier)));
    }
    assert_eq!(
        tiers,
        [
            (Channel::Allowance, Some(Tier::Hold)),
            (Channel::Allowance, Some(Tier::CutDestination)),
            (Channel::Allowance, Some(Tier::CutDestination)),
            (Channel::HostBudget, Some(Tier::Hold)),
        ],
    );
}

#[test]
fn a_destination_that_three_hosts_adopt_is_no_matter_of_one() {
    let mut episodes = episodes(64);
    let from = |n: u8| Regard { host: Some(Ipv4Addr::new(10, 0, 0, n).into()), ..NEW };
    let mut contact = |host: u8, at: f64| {
        let o = seen(
            after(at),
            facts(remote(9), 443, Some("agent.example.com"), (1, 1)),
            ObservationKind::Burst,
        );
        episodes.burst(&o, &from(host));
    };
    for minute in 0..200 {
        contact(1, f64::from(minute) * 60.0);
        if minute == 100 {
            contact(2, 6001.0);
            contact(3, 6002.0);
        }
    }
    let scores: Vec<_> = episodes
        .scores()
        .filter(|(key, score)| {
            key.workload.to_string() == "inside:10.0.0.1" && score.channel == Channel::Rhythm
        })
        .map(|(_, score)| score.score)
        .collect();
    assert_eq!(scores, [2.0], "the hours stand still from the third host on");
}

#[test]
fn an_episode_is_over_after_seven_days_and_handed_on_with_its_highest_scores() {
    let mut episodes = episodes(64);
    for hour in 0..200 {
        burst(&mut episodes, f64::from(hour) * 3600.0, remote(9), None);
    }
    let (finished, lost) = episodes.take_finished();
    assert_eq!((finished.len(), lost), (1, 0));
    let hours = finished[0].scores.iter().find(|score| score.channel == Channel::Persistence);
    assert_eq!(hours.unwrap().score, 168.0);
    assert_eq!(score(&episodes, "198.18.0.0/24", Channel::Persistence).unwrap().score, 32.0);
}

#[test]
fn a_hostile_flood_keeps_memory_bounded_evicts_nothing_half_way_and_is_told() {
    let mut episodes = episodes(1024);
    for minute in 0..15 {
        burst(&mut episodes, f64::from(minute) * 60.0, remote(9), None);
    }
    volume(&mut episodes, 901.0, remote(5000), (11_000_000, 0), &NEW);
    told(&mut episodes);
    let mut floods = 0;
    for n in 0..300_000_u32 {
        let name = format!("x{n}.example");
        burst(&mut episodes, 1000.0 + f64::from(n) * 0.01, remote(9000), Some(&name));
        floods += told(&mut episodes)
            .iter()
            .filter(|told| matches!(told.what, What::Flood { .. }))
            .count();
    }
    assert_eq!(episodes.len(), 1024);
    assert_eq!(floods, 1, "told once an hour");
    assert!(episodes.evicted() > 290_000);
    assert!(score(&episodes, "198.18.0.0/24", Channel::Rhythm).is_some());
    let upload = score(&episodes, "198.18.19.0/24", Channel::Allowance).unwrap();
    assert_eq!(upload.score, 11_000_000.0);
}

#[test]
fn a_key_takes_no_more_than_it_may() {
    use crate::learn::space_saving::Slot;
    // Beside it the index and the order take 24 bytes a key, and a name its letters.
    assert!(size_of::<Slot<Key, Episode>>() <= 232, "{}", size_of::<Slot<Key, Episode>>());
    assert!(size_of::<Slot<(u16, Asked), NameInformation>>() <= 256);
}

/// Something of everything.
fn busy() -> Episodes {
    let mut episodes = episodes(32);
    drive(&mut episodes, 0..400);
    episodes
}

/// The same traffic for the same numbers.
fn drive(episodes: &mut Episodes, numbers: std::ops::Range<u32>) {
    let known = Regard { is_known: true, ..NEW };
    for n in numbers {
        let at = f64::from(n) * 7200.0;
        burst(episodes, at, remote(9), None);
        burst(episodes, at + 1.0, remote(n * 300), Some("www.example.org"));
        burst(episodes, at + 2.0, remote(n * 300 % 20_000), None);
        volume(episodes, at + 3.0, remote(n * 777 % 30_000), (u64::from(n) * 10_000, 500), &NEW);
        volume(episodes, at + 4.0, remote(77), (9_000_000 + u64::from(n), 5), &known);
        let name = format!("{:x}.{:x}.tunnel.example.net", n * 7919, n.wrapping_mul(2_654_435_761));
        let question = ObservationKind::Query { name: &name, qtype: 16 };
        let o = seen(after(at + 5.0), facts(remote(53), 53, None, (40, 0)), question);
        episodes.query(&o, &name, None);
        let payload: Vec<u8> = (0..200).map(|at| (at * n % 251) as u8).collect();
        let echo = ObservationKind::Echo {
            toward: Toward::Remote,
            request: true,
            id: 1,
            seq: 1,
            payload: &payload,
        };
        let o = seen(after(at + 6.0), facts(remote(8), 0, None, (200, 0)), echo);
        episodes.note(&o, || None);
        let o =
            seen(after(at + 7.0), facts(remote(n), 443, None, (0, 0)), ObservationKind::Started);
        episodes.note(&o, || Some(Ipv4Addr::from_bits(n % 5).into()));
        episodes.pulled(after(at + 8.0), None, u64::from(n) * 1_000_000);
        episodes.answered(after(at + 9.0), None, 100);
        if n % 50 == 0 {
            episodes.turn_hour(after(at + 10.0));
        }
    }
}

#[test]
fn what_goes_on_from_what_was_saved_is_the_same_byte_for_byte() {
    let mut first = busy();
    let first_told = told(&mut first);
    assert!(first_told.len() > 10, "{}", first_told.len());
    // What is over is handed on, and no part of what goes on.
    assert!(!first.take_finished().0.is_empty());
    let saved = first.save();
    // Another seed: hashes lie elsewhere, what is told does not.
    let limits = Limits { episodes: 32, ..Limits::default() };
    let mut second = Episodes::new(&limits, 99);
    second.restore(&saved).unwrap();
    assert_eq!(second.save(), saved);
    drive(&mut first, 400..700);
    drive(&mut second, 400..700);
    assert_eq!(told(&mut first), told(&mut second));
    assert_eq!(first.save(), second.save());
    let scores = |episodes: &Episodes| episodes.scores().collect::<Vec<_>>();
    assert_eq!(scores(&first), scores(&second));
}

#[test]
fn what_is_damaged_of_another_layout_or_too_large_is_refused_and_changes_nothing() {
    let saved = busy().save();
    let mut other = episodes(32);
    for at in [20, 100, saved.len() / 2, saved.len() - 1] {
        let mut damaged = saved.clone();
        damaged[at] ^= 1;
        assert_eq!(other.restore(&damaged), Err(RestoreEpisodesError::NotWhole), "{at}");
    }
    assert_eq!(other.restore(&saved[..saved.len() - 7]), Err(RestoreEpisodesError::NotWhole));
    assert_eq!(other.restore(b"sekisho.episodes/2\n"), Err(RestoreEpisodesError::Layout));
    assert!(other.is_empty());
    assert_eq!(episodes(16).restore(&saved), Err(RestoreEpisodesError::NotWhole));
    assert_eq!(other.restore(&saved), Ok(()));
}

#[test]
fn a_flow_that_outlives_the_binding_of_its_name_stays_one_episode() {
    let mut episodes = episodes(64);
    let named = facts(remote(9), 443, Some("tunnel.example.net"), (0, 0));
    episodes.note(&seen(START, named, ObservationKind::Started), || None);
    burst(&mut episodes, 1.0, remote(9), Some("tunnel.example.net"));
    burst(&mut episodes, 4000.0, remote(9), None);
    assert_eq!(episodes.len(), 1);
    assert_eq!(score(&episodes, "example.net", Channel::Persistence).unwrap().score, 2.0);
}

#[test]
fn the_owner_of_the_first_flow_is_asked_for_and_told() {
    let mut episodes = episodes(64);
    episodes.ask_owners();
    burst(&mut episodes, 0.0, remote(9), None);
    burst(&mut episodes, 60.0, remote(9), None);
    let flow = episodes.next_to_ask().unwrap();
    assert_eq!(episodes.next_to_ask(), None, "once an episode");
    let process = Process {
        pid: 7,
        exe: Some("/usr/sbin/agent".to_owned()),
        name: None,
        cgroup: None,
        unit: Some("agent.service".to_owned()),
        container: None,
        source: Default::default(),
        certainty: Default::default(),
    };
    episodes.adopt_owner(&flow, Some(&process));
    let mut keys = episodes.scores().map(|(key, _)| key.workload.to_string());
    assert_eq!(keys.next().as_deref(), Some("unit:agent.service"));
}

#[test]
fn weeks_of_hosts_names_and_envelopes_are_handed_on_too() {
    let mut episodes = busy();
    let known = Regard { is_known: true, ..NEW };
    // Hours pass as in the engine, so that no week ends unseen.
    for hour in 400 * 2..400 * 2 + 24 * 15 {
        let at = f64::from(hour) * 3600.0;
        episodes.turn_hour(after(at));
        volume(&mut episodes, at + 1.0, remote(77), (1_000_000, 0), &known);
        volume(&mut episodes, at + 2.0, remote(400), (500_000, 0), &NEW);
    }
    let (finished, _) = episodes.take_finished();
    for channel in [Channel::HostBudget, Channel::Dns, Channel::Approved, Channel::Allowance] {
        let of = finished.iter().filter(|episode| episode.score(channel).is_some()).count();
        assert!(of > 0, "{channel}");
    }
    let live = episodes.records().find(|episode| episode.net > 0).unwrap();
    assert!(
        live.up >= live.net && live.score(Channel::Allowance).unwrap().score == live.net as f64
    );
}

#[test]
fn where_people_signed_a_baseline_only_what_they_signed_is_known() {
    use sekisho_schema::baseline::Entry;
    let mut episodes = episodes(64);
    let entry = Entry {
        workload: Workload::Host,
        destination: "backup.example".parse().unwrap(),
        service: "tcp/443".parse().unwrap(),
        first_seen: START,
        last_seen: START,
        hosts: 1,
        upload: 7,
        signed_by: None,
        signed_at: None,
        reason: None,
    };
    let learned = Regard { is_known: true, ..NEW };
    let contact = |episodes: &mut Episodes, at: f64, name: &'static str, regard: &Regard<'_>| {
        let o = seen(after(at), facts(remote(9), 443, Some(name), (9, 9)), ObservationKind::Burst);
        episodes.burst(&o, regard);
    };
    contact(&mut episodes, 0.0, "learned.example", &learned);
    assert!(episodes.is_empty(), "what was learned is known until somebody signs");
    episodes.approve(Some(std::slice::from_ref(&entry)));
    contact(&mut episodes, 1.0, "www.backup.example", &NEW);
    assert!(episodes.is_empty());
    contact(&mut episodes, 2.0, "learned.example", &learned);
    assert_eq!(episodes.len(), 1, "nobody signed it");
    contact(&mut episodes, 3.0, "backup.example", &Regard { is_learning: true, ..NEW });
    assert_eq!(episodes.len(), 2, "while learning everything is watched");
    episodes.approve(None);
    contact(&mut episodes, 4.0, "other.example", &learned);
    assert_eq!(episodes.len(), 2);
}

#[test]
fn echoes_that_are_half_way_to_being_told_outlive_a_flood_of_pings() {
    let mut episodes = Episodes::new(&Limits { echo_peers: 8, ..Limits::default() }, 3);
    let mut ping = |number: u32, to: u32| {
        let payload: [u8; 1000] = std::array::from_fn(|at| (number as usize * 7 + at) as u8);
        let kind = ObservationKind::Echo {
            toward: Toward::Remote,
            request: true,
            id: 1,
            seq: 1,
            payload: &payload,
        };
        let o = seen(after(f64::from(number) * 0.01), facts(remote(to), 0, None, (1, 0)), kind);
        episodes.note(&o, || None);
        told(&mut episodes).len()
    };
    (0..6).for_each(|number| {
        ping(number, 7);
    });
    let flood: usize = (6..5000).map(|number| ping(number, number)).sum();
    assert_eq!(flood, 0);
    assert_eq!((5000..5004).map(|number| ping(number, 7)).sum::<usize>(), 1, "told at the tenth");
    assert!(episodes.evicted() > 4900);
}
