//! The record of what a host learned, as it grows: hours, workloads, and episodes that are over.

use super::cluster::is_of_the_host;
use super::episode::{Channel, DestinationKey, EpisodeKey, EpisodeScore, Workload, input};
use super::season::Slot;
use sekisho_schema::baseline::{Episode, LEARNED_SCHEMA, Learned, SeenWorkload, WEEK_HOURS};
use sekisho_schema::calendar::Calendar;
use sekisho_schema::episode::Oddity;
use sekisho_schema::{Span, Timestamp};
use std::collections::BTreeMap;

/// Episodes that a record holds.
const EPISODES: usize = 262_144;
/// How long an episode is watched.
const WATCHED: Span = Span::from_hours(WEEK_HOURS as i64);
/// Workloads that a record holds.
const WORKLOADS: usize = 4096;

/// Whose record it is.
#[derive(Clone, Copy, Debug)]
pub struct Whose<'a> {
    /// The host, as in events.
    pub host: &'a str,
    /// Its role.
    pub role: &'a str,
    /// Version of the agent.
    pub agent: &'a str,
}

/// A record that grows. When it is full it is shut: it goes on to count for the time until then.
#[derive(Clone, Debug)]
pub struct Recorder {
    from: Option<Timestamp>,
    until: Timestamp,
    hours: u64,
    hours_of_week: Vec<u32>,
    hour: Option<i64>,
    workloads: BTreeMap<Workload, SeenWorkload>,
    episodes: Vec<Episode>,
    is_full: bool,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            from: None,
            until: Timestamp::EPOCH,
            hours: 0,
            hours_of_week: vec![0; WEEK_HOURS as usize],
            hour: None,
            workloads: BTreeMap::new(),
            episodes: Vec::new(),
            is_full: false,
        }
    }
}

impl Recorder {
    /// Goes on with a record of before; its episodes must all be over.
    #[must_use]
    pub fn resume(learned: Learned) -> Self {
        let mut hours_of_week = learned.hours_of_week;
        hours_of_week.resize(WEEK_HOURS as usize, 0);
        let workloads =
            learned.workloads.into_iter().map(|seen| (seen.workload.clone(), seen)).collect();
        Self {
            from: Some(learned.from),
            until: learned.until,
            hours: learned.hours,
            hours_of_week,
            // The hour that was open then is not counted again.
            hour: (learned.hours > 0).then(|| hour_of(learned.until)),
            workloads,
            is_full: learned.episodes.len() >= EPISODES,
            episodes: learned.episodes,
        }
    }

    /// Notes that the host was watched at a time, whether anything was seen or not.
    pub fn watch(&mut self, at: Timestamp) {
        if self.is_full {
            return;
        }
        let hour = hour_of(at);
        // A clock that stepped back counts no hour twice.
        if self.hour.is_some_and(|known| hour <= known) {
            self.until = self.until.max(at);
            return;
        }
        self.from.get_or_insert(at);
        self.until = self.until.max(at);
        self.hour = Some(hour);
        self.hours += 1;
        let slot = Slot::of(&Calendar::unknown(), at).number();
        if let Some(weeks) = self.hours_of_week.get_mut(slot) {
            *weeks = weeks.saturating_add(1);
        }
    }

    /// Notes that a workload spoke.
    pub fn spoke(&mut self, workload: &Workload, at: Timestamp) {
        if self.is_full {
            return;
        }
        if let Some(seen) = self.workloads.get_mut(workload) {
            seen.days += u32::from(day_of(at) > day_of(seen.last_at));
            seen.last_at = seen.last_at.max(at);
        } else if self.workloads.len() < WORKLOADS {
            let seen =
                SeenWorkload { workload: workload.clone(), first_at: at, last_at: at, days: 1 };
            self.workloads.insert(workload.clone(), seen);
        }
    }

    /// Takes an episode that is over.
    pub fn take(&mut self, episode: Episode) {
        if self.episodes.len() >= EPISODES {
            self.is_full = true;
        }
        if !self.is_full {
            self.episodes.push(episode);
        }
    }

    /// Hours of the clock in which the host was watched.
    #[must_use]
    pub const fn hours(&self) -> u64 {
        self.hours
    }

    /// Hours of the week that were watched at least once, of 168.
    #[must_use]
    pub fn week_hours(&self) -> u64 {
        self.hours_of_week.iter().filter(|weeks| **weeks > 0).count() as u64
    }

    /// Episodes that are over.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.episodes.len()
    }

    /// Whether no episode is over yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.episodes.is_empty()
    }

    /// Whether the record is shut.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.is_full
    }

    /// The record, with episodes that still go on as they stand now.
    #[must_use]
    pub fn record(&self, of: Whose<'_>, open: impl IntoIterator<Item = Episode>) -> Learned {
        let mut episodes = self.episodes.clone();
        if !self.is_full {
            episodes.extend(open);
        }
        episodes.sort_by(|a, b| (&a.key, a.first_at).cmp(&(&b.key, b.first_at)));
        count_users(&mut episodes);
        Learned {
            schema: LEARNED_SCHEMA.to_owned(),
            host: of.host.to_owned(),
            role: of.role.to_owned(),
            agent: of.agent.to_owned(),
            from: self.from.unwrap_or(self.until),
            until: self.until,
            hours: self.hours,
            hours_of_week: self.hours_of_week.clone(),
            workloads: self.workloads.values().cloned().collect(),
            episodes,
        }
    }

    /// What is kept for the next start: the record without what still goes on.
    #[must_use]
    pub fn keep(&self, of: Whose<'_>) -> Learned {
        self.record(of, [])
    }
}

/// Counts for each episode the other workloads that spoke to its destination within its seven days, before or
/// after: an action against the destination would have hit them.
fn count_users(episodes: &mut [Episode]) {
    let mut of: BTreeMap<DestinationKey, Vec<(Timestamp, usize)>> = BTreeMap::new();
    for (at, episode) in episodes.iter().enumerate() {
        if !is_of_the_host(episode) {
            let places = of.entry(episode.key.destination.clone()).or_default();
            places.push((episode.first_at, at));
        }
    }
    for places in of.values_mut() {
        places.sort_unstable();
        // Both ends of the window only move on, so that each place enters and leaves it once.
        let mut within: BTreeMap<&Workload, usize> = BTreeMap::new();
        let (mut entering, mut leaving) = (places.iter().peekable(), places.iter().peekable());
        let mut counted = Vec::with_capacity(places.len());
        let workload = |at: usize| episodes.get(at).map(|episode| &episode.key.workload);
        for (first_at, at) in places.iter() {
            while let Some((_, at)) = entering.next_if(|(at, _)| at.since(*first_at) < WATCHED) {
                if let Some(workload) = workload(*at) {
                    *within.entry(workload).or_default() += 1;
                }
            }
            while let Some((_, at)) = leaving.next_if(|(at, _)| first_at.since(*at) >= WATCHED) {
                if let Some(workload) = workload(*at)
                    && let Some(count) = within.get_mut(workload)
                {
                    *count -= 1;
                    if *count == 0 {
                        within.remove(workload);
                    }
                }
            }
            // Its own workload is always among them.
            counted.push((*at, within.len().saturating_sub(1) as u64));
        }
        for (at, users) in counted {
            if let Some(episode) = episodes.get_mut(at) {
                episode.users = episode.users.max(users);
            }
        }
    }
}

fn hour_of(at: Timestamp) -> i64 {
    at.seconds().div_euclid(3600)
}

fn day_of(at: Timestamp) -> i64 {
    at.seconds().div_euclid(86_400)
}

/// What is known of an episode beside its scores.
#[derive(Clone, Debug)]
pub struct Facts {
    /// First contact.
    pub first_at: Timestamp,
    /// Last contact.
    pub last_at: Timestamp,
    /// Bursts of client payload.
    pub contacts: u64,
    /// Distinct hours of the clock with contact.
    pub hours: u32,
    /// log10 of the odds of the rhythm, at its highest.
    pub rhythm: f64,
    /// The largest net upload, in bytes.
    pub net: u64,
    /// What is odd about it.
    pub oddities: Vec<Oddity>,
    /// Other workloads of the host that speak to the destination.
    pub users: u64,
}

/// An episode of its scores and what is known beside them: days and amounts are read from their inputs.
#[must_use]
pub fn episode_of(key: EpisodeKey, facts: Facts, scores: Vec<EpisodeScore>) -> Episode {
    let of = |channel: Channel, name: &str| {
        let score = scores.iter().find(|score| score.channel == channel)?;
        score.inputs.value(name)
    };
    let with_contact = |day: &&&str| of(Channel::Persistence, day).is_some_and(|hours| hours > 0.0);
    let days = input::DAYS.iter().filter(with_contact).count() as u32;
    // Without the hours of each day, the time between first and last tells the most there can be.
    let spanned =
        day_of(facts.last_at).saturating_sub(day_of(facts.first_at)).clamp(0, 6) as u32 + 1;
    let up = of(Channel::Allowance, input::UP).unwrap_or(0.0).max(0.0) as u64;
    let mut oddities = facts.oddities;
    oddities.sort_unstable();
    oddities.dedup();
    Episode {
        key,
        first_at: facts.first_at,
        last_at: facts.last_at,
        contacts: facts.contacts,
        days: if days > 0 { days } else { spanned.min(facts.hours.max(1)) },
        hours: facts.hours,
        up: up.max(facts.net),
        down: of(Channel::Allowance, input::DOWN).unwrap_or(0.0).max(0.0) as u64,
        net: facts.net,
        rhythm: facts.rhythm,
        proven_at: None,
        gaps: Vec::new(),
        oddities,
        users: facts.users,
        scores,
        crossings: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::episode::{ScoreInputs, scored};
    use super::super::sample::{START, hour, key, upload};
    use super::*;
    use sekisho_schema::baseline::Pool;

    const WHOSE: Whose<'static> = Whose { host: "a", role: "web", agent: "0.1.0" };

    #[test]
    fn every_hour_of_the_clock_counts_once_over_a_restart_too() {
        let mut recorder = Recorder::default();
        for minute in 0..30 * 60 {
            recorder.watch(START.after(Span::from_secs(60 * minute)));
        }
        recorder.watch(START);
        let kept = recorder.keep(WHOSE);
        assert_eq!((kept.hours, kept.hours_of_week[0], kept.hours_of_week[30]), (30, 1, 0));
        let mut resumed = Recorder::resume(kept.clone());
        assert_eq!(resumed.keep(WHOSE), kept);
        resumed.watch(hour(29));
        resumed.watch(hour(168));
        let after = resumed.keep(WHOSE);
        assert_eq!((after.hours, after.hours_of_week[0]), (31, 2));
        assert!(Pool::of("web", &[after]).is_ok());
    }

    #[test]
    fn workloads_count_their_days_and_open_episodes_are_told_and_not_kept() {
        let mut recorder = Recorder::default();
        let web = "unit:web.service".parse().unwrap();
        for at in [0, 1, 25, 24 * 9] {
            recorder.watch(hour(at));
            recorder.spoke(&web, hour(at));
        }
        recorder.take(upload("b.example", 1));
        let record = recorder.record(WHOSE, [upload("a.example", 2)]);
        assert_eq!((record.workloads[0].days, record.episodes.len()), (3, 2));
        assert!(record.episodes.is_sorted_by_key(|episode| episode.key.clone()));
        assert_eq!(recorder.keep(WHOSE).episodes.len(), 1);
    }

    #[test]
    fn other_workloads_that_speak_to_a_destination_within_the_seven_days_are_its_users() {
        let mut recorder = Recorder::default();
        recorder.watch(START);
        let mut of = |workload: &str, destination: &str, at: i64| {
            let mut episode = upload(destination, 1);
            episode.key.workload = workload.parse().unwrap();
            (episode.first_at, episode.last_at) = (hour(at), hour(at + 1));
            recorder.take(episode);
        };
        of("unit:a.service", "shared.example", 0);
        of("unit:a.service", "shared.example", 168);
        of("unit:b.service", "shared.example", 100);
        of("unit:c.service", "shared.example", 101);
        of("unit:b.service", "shared.example", 400);
        of("unit:b.service", "own.example", 0);
        let record = recorder.record(WHOSE, []);
        let users = |workload: &str, at: i64| {
            let workload = workload.parse().unwrap();
            let is_it = |episode: &&Episode| {
                episode.key.workload == workload && episode.first_at == hour(at)
            };
            record.episodes.iter().find(is_it).unwrap().users
        };
        assert_eq!((users("unit:a.service", 0), users("unit:a.service", 168)), (2, 2));
        assert_eq!((users("unit:b.service", 100), users("unit:b.service", 400)), (2, 0));
        assert_eq!((users("unit:c.service", 101), users("unit:b.service", 0)), (2, 0));
    }

    #[test]
    fn a_full_record_is_shut_so_that_time_without_episodes_is_not_counted() {
        let mut recorder = Recorder::default();
        recorder.watch(START);
        for _ in 0..=EPISODES {
            recorder.take(upload("a.example", 1));
        }
        assert!(recorder.is_full());
        recorder.watch(hour(100));
        let record = recorder.keep(WHOSE);
        assert_eq!((record.hours, record.episodes.len(), record.until), (1, EPISODES, START));
    }

    #[test]
    fn days_and_amounts_are_read_from_the_inputs_of_scores() {
        let days =
            input::DAYS.iter().enumerate().map(|(n, day)| (*day, if n < 3 { 6.0 } else { 0.0 }));
        let scores = vec![
            scored(Channel::Persistence, hour(60), ScoreInputs(days.collect())).unwrap(),
            scored(
                Channel::Allowance,
                hour(60),
                ScoreInputs(vec![(input::UP, 500.0), (input::DOWN, 100.0)]),
            )
            .unwrap(),
        ];
        let facts = Facts {
            first_at: START,
            last_at: hour(60),
            contacts: 9,
            hours: 6,
            rhythm: 0.0,
            net: 400,
            oddities: vec![Oddity::NoName, Oddity::NoName],
            users: 0,
        };
        let found = episode_of(key("a.example"), facts.clone(), scores);
        assert_eq!((found.days, found.up, found.down, found.oddities.len()), (3, 500, 100, 1));
        assert_eq!(episode_of(key("a.example"), facts, Vec::new()).days, 3);
    }
}
