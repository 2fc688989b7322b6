//! What hosts of a role could have learned, as tests need it: ordinary uploads, a beacon, a theft.

use sekisho_schema::baseline::{
    Crossing, Episode, LEARNED_SCHEMA, Learned, LearnedPart, PART_EPISODES,
};
use sekisho_schema::episode::{
    Channel, EpisodeKey, EpisodeScore, Oddity, ScoreInputs, Tier, input,
};
use sekisho_schema::{Span, Timestamp};

/// Four weeks.
const LASTED: Span = Span::from_hours(4 * 168);

fn score(
    channel: Channel,
    score: f64,
    at: Timestamp,
    inputs: Vec<(&'static str, f64)>,
) -> EpisodeScore {
    EpisodeScore { channel, score, at, inputs: ScoreInputs(inputs) }
}

/// An upload within an hour.
pub(crate) fn upload(destination: &str, at: Timestamp, up: u64) -> Episode {
    let until = at.after(Span::from_hours(1));
    Episode {
        key: EpisodeKey {
            workload: "unit:web.service".parse().unwrap(),
            destination: destination.parse().unwrap(),
            service: "tcp/443".parse().unwrap(),
        },
        first_at: at,
        last_at: until,
        contacts: 3,
        days: 1,
        hours: 1,
        up,
        down: up / 10,
        net: up - up / 10,
        rhythm: 0.0,
        proven_at: None,
        gaps: Vec::new(),
        oddities: Vec::new(),
        users: 0,
        scores: vec![score(
            Channel::Allowance,
            (up - up / 10) as f64,
            until,
            vec![(input::UP, up as f64), (input::DOWN, (up / 10) as f64)],
        )],
        crossings: Vec::new(),
    }
}

/// A beacon of a minute with jitter that lasts three days, by one host.
pub(crate) fn beacon(destination: &str, at: Timestamp, hours: u32) -> Episode {
    let until = at.after(Span::from_hours(i64::from(hours)));
    let bets: Vec<_> = input::BETS.into_iter().map(|bet| (bet, 9.5)).collect();
    let days = input::DAYS.into_iter().enumerate().map(|(day, name)| {
        let left = hours.saturating_sub(24 * day as u32).min(24);
        (name, f64::from(u32::try_from((1_u64 << left) - 1).unwrap()))
    });
    let mut inputs = bets;
    inputs.push((input::HOURS, f64::from(hours)));
    let mut episode = upload(destination, at, 400_000);
    episode.key.workload = "program:/usr/local/bin/updater".parse().unwrap();
    episode.scores.push(score(Channel::Rhythm, f64::from(hours), until, inputs));
    episode.scores.push(score(Channel::Persistence, f64::from(hours), until, days.collect()));
    Episode {
        last_at: until,
        contacts: u64::from(hours) * 60,
        days: hours.div_ceil(24),
        hours,
        rhythm: 9.5,
        proven_at: Some(at.after(Span::from_hours(1))),
        gaps: (0..16_u16).map(|n| 54.0 + f32::from(n * 7 % 13)).collect(),
        oddities: vec![Oddity::NoServerName],
        ..episode
    }
}

/// Three gigabytes in a night, of which 1.2 MB were gone when it could have been cut.
pub(crate) fn theft(destination: &str, at: Timestamp) -> Episode {
    let mut theft = upload(destination, at, 3_000_000_000);
    theft.users = 2;
    theft.crossings = vec![Crossing {
        tier: Tier::CutDestination,
        channel: Channel::Allowance,
        at: at.after(Span::from_secs(7)),
        score: 1_100_000.0,
        threshold: 1e6,
        up: 1_200_000,
    }];
    theft
}

/// The record of a host that watched for four weeks until a time.
pub(crate) fn record(host: usize, until: Timestamp) -> Learned {
    let from = until.before(LASTED);
    let at = |hours: i64| from.after(Span::from_hours(hours));
    let mut episodes: Vec<Episode> = (0..6_u64)
        .map(|n| {
            let up = 2000 * (1 + (host as u64 * 7 + n * 13) % 97) * (1 + n * n);
            upload(&format!("host{host}-{n}.example"), at(20 * (n as i64 + 1)), up)
        })
        .collect();
    episodes.push(upload("mirror.example", at(30), 70_000));
    episodes.sort_by(|a, b| (&a.key, a.first_at).cmp(&(&b.key, b.first_at)));
    Learned {
        schema: LEARNED_SCHEMA.into(),
        host: format!("web-{host}"),
        role: "web".into(),
        agent: "0.1.0".into(),
        from,
        until,
        hours: 4 * 168,
        hours_of_week: vec![4; 168],
        workloads: Vec::new(),
        episodes,
    }
}

/// A record in parts, as an agent that sends it for the first time makes them.
pub(crate) fn parts(learned: &Learned) -> Vec<LearnedPart> {
    let mut parts: Vec<LearnedPart> = learned
        .episodes
        .chunks(PART_EPISODES)
        .map(|episodes| LearnedPart { episodes: episodes.to_vec(), ..learned.part() })
        .collect();
    if let Some(first) = parts.first_mut() {
        first.begins = true;
    }
    parts.push(LearnedPart { whole: Some(learned.whole()), ..learned.part() });
    parts
}
