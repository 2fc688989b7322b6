//! Records of a fleet as tests need them.

use super::episode::{Channel, EpisodeKey, EpisodeScore, ScoreInputs, input};
use super::review::Signer;
use sekisho_schema::baseline::{Episode, LEARNED_SCHEMA, Learned, Pool};
use sekisho_schema::{Span, Timestamp};

/// A Monday, 00:00 UTC.
pub(super) const START: Timestamp = Timestamp::from_nanos(1_779_667_200_000_000_000);

pub(super) fn hour(hours: i64) -> Timestamp {
    START.after(Span::from_hours(hours))
}

pub(super) const fn aiko() -> Signer<'static> {
    Signer { by: "Aiko", at: START, reason: "the new backup" }
}

pub(super) fn key(destination: &str) -> EpisodeKey {
    EpisodeKey {
        workload: "unit:web.service".parse().unwrap(),
        destination: destination.parse().unwrap(),
        service: "tcp/443".parse().unwrap(),
    }
}

/// An upload of so many bytes within an hour, and nothing else about it.
pub(super) fn upload(destination: &str, up: u64) -> Episode {
    Episode {
        key: key(destination),
        first_at: START,
        last_at: hour(1),
        contacts: 1,
        days: 1,
        hours: 1,
        up,
        down: 0,
        net: up,
        rhythm: 0.0,
        proven_at: None,
        gaps: Vec::new(),
        oddities: Vec::new(),
        users: 0,
        scores: vec![EpisodeScore {
            channel: Channel::Allowance,
            score: up as f64,
            at: hour(1),
            inputs: ScoreInputs(vec![(input::UP, up as f64), (input::DOWN, 0.0)]),
        }],
        crossings: Vec::new(),
    }
}

pub(super) fn learned(host: &str, weeks: u64, episodes: Vec<Episode>) -> Learned {
    Learned {
        schema: LEARNED_SCHEMA.into(),
        host: host.into(),
        role: "web".into(),
        agent: "0.1.0".into(),
        from: START,
        until: hour(i64::try_from(weeks).unwrap() * 168),
        hours: weeks * 168,
        hours_of_week: vec![u32::try_from(weeks).unwrap(); 168],
        workloads: Vec::new(),
        episodes,
    }
}

/// Hosts that learned for four weeks each; every host uploads to a destination of its own, the n-th host n kB.
pub(super) fn fleet(hosts: u64) -> Vec<Learned> {
    (1..=hosts)
        .map(|n| {
            learned(&format!("h{n:03}"), 4, vec![upload(&format!("own{n}.example"), n * 1000)])
        })
        .collect()
}

pub(super) fn pool(records: &[Learned]) -> Pool {
    Pool::of("web", records).unwrap()
}
