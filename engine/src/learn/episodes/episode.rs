//! One episode: what is known of a workload and a destination within seven days.

use crate::certify::episode::{Channel, EpisodeScore, RHYTHM_PROVEN, ScoreInputs, input, scored};
use crate::certify::tails::{Features, terms};
use crate::learn::allowance::NetUpload;
use crate::learn::keep::keep_fields;
use crate::learn::oddity::Oddities;
use crate::learn::persistence::{HOURS, Hours};
use crate::learn::rhythm::{Rhythm, RhythmSettings, Window};
use sekisho_schema::baseline;
use sekisho_schema::certificate::Tails;
use sekisho_schema::episode::EpisodeKey;
use sekisho_schema::{Span, Timestamp};

/// How long an episode is watched.
pub(super) const LASTS: Span = Span::from_hours(HOURS as i64);
/// Hosts from which on a destination is no matter of one host.
pub(super) const FLEET: u8 = 3;
/// The rhythm is not proven.
const UNPROVEN: u8 = u8::MAX;
const HOUR_NANOS: i64 = 3_600_000_000_000;

/// What was said of an episode or happened to it; a bit each.
pub(super) mod mark {
    /// The other side sent payload.
    pub(in super::super) const ANSWERED: u8 = 1;
    /// Persistence was told.
    pub(in super::super) const PERSISTENCE_TOLD: u8 = 1 << 1;
}

/// The state of one episode.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Episode {
    pub(super) rhythm: Rhythm,
    pub(super) bytes: NetUpload,
    pub(super) first_at: Timestamp,
    /// The last contact, in milliseconds after the first.
    contact_ms: u32,
    contacts: u32,
    /// Who speaks, by its place among the workloads; 0 for the host.
    pub(super) workload: u16,
    pub(super) hours: Hours,
    /// The hour in which the rhythm was proven.
    proven_in: u8,
    pub(super) marks: u8,
    /// How often the rhythm was told: each time at twice the evidence.
    pub(super) told: u8,
    pub(super) oddities: Oddities,
    /// Hosts that were seen with the destination.
    pub(super) hosts: u8,
}
keep_fields!(Episode {
    rhythm,
    bytes,
    first_at,
    contact_ms,
    contacts,
    workload,
    hours,
    proven_in,
    marks,
    told,
    oddities,
    hosts
});

impl Episode {
    pub(super) fn new(at: Timestamp, workload: u16) -> Self {
        Self {
            rhythm: Rhythm::default(),
            bytes: NetUpload::default(),
            first_at: at,
            contact_ms: u32::MAX,
            contacts: 0,
            workload,
            hours: Hours::default(),
            proven_in: UNPROVEN,
            marks: 0,
            told: 0,
            oddities: Oddities::default(),
            hosts: 1,
        }
    }

    pub(super) fn is_over(&self, at: Timestamp) -> bool {
        at.since(self.first_at) >= LASTS
    }

    /// Takes a payload burst; returns the window that was bet on, and whether it is the first of an hour.
    pub(super) fn contact(
        &mut self,
        at: Timestamp,
        settings: RhythmSettings,
    ) -> (Option<Window>, bool) {
        self.contacts = self.contacts.saturating_add(1);
        let since = at.since(self.first_at).nanos().max(0);
        let now_ms = u32::try_from(since / 1_000_000).unwrap_or(u32::MAX - 1);
        let mut window = None;
        if self.contact_ms != u32::MAX {
            let gap = Span::from_millis(i64::from(now_ms.saturating_sub(self.contact_ms)));
            window = self.rhythm.gap_with(gap, settings);
            self.contact_ms = self.contact_ms.max(now_ms);
        } else {
            self.contact_ms = now_ms;
        }
        let hour = usize::try_from(since / HOUR_NANOS).unwrap_or(HOURS);
        // What the fleet has adopted is no matter of one host: its hours stand still.
        let is_new = self.hosts < FLEET && self.hours.mark(hour);
        if self.proven_in == UNPROVEN && self.rhythm.peak() >= RHYTHM_PROVEN {
            self.proven_in = u8::try_from(hour).unwrap_or(UNPROVEN - 1);
        }
        (window, is_new)
    }

    /// The last contact.
    pub(super) fn contact_at(&self) -> Timestamp {
        let millis = if self.contact_ms == u32::MAX { 0 } else { self.contact_ms };
        self.first_at.after(Span::from_millis(i64::from(millis)))
    }

    pub(super) const fn has(&self, mark: u8) -> bool {
        self.marks & mark == mark
    }

    /// Sets a mark; returns whether it was not set before.
    pub(super) const fn mark(&mut self, mark: u8) -> bool {
        let is_new = !self.has(mark);
        self.marks |= mark;
        is_new
    }

    fn features(&self) -> Features {
        Features {
            rhythm: self.rhythm.peak(),
            hours: f64::from(self.hours.count()),
            net: self.bytes.highest() as f64,
            hosts: f64::from(self.hosts),
            oddities: self.oddities.list().collect(),
        }
    }

    /// The record of it, with the highest score of each channel.
    pub(super) fn record(&self, key: EpisodeKey, tails: Option<&Tails>) -> baseline::Episode {
        let channels = [Channel::Rhythm, Channel::Persistence, Channel::Allowance, Channel::Sum];
        let hour = |hour: u8| self.first_at.after(Span::from_hours(i64::from(hour)));
        baseline::Episode {
            key,
            first_at: self.first_at,
            last_at: self.contact_at(),
            contacts: u64::from(self.contacts),
            days: self.hours.days(self.first_at),
            hours: self.hours.count(),
            up: self.bytes.up(),
            down: self.bytes.down(),
            net: self.bytes.highest(),
            rhythm: self.rhythm.peak(),
            proven_at: (self.proven_in != UNPROVEN).then(|| hour(self.proven_in)),
            gaps: if self.proven_in == UNPROVEN { Vec::new() } else { self.rhythm.gaps() },
            oddities: self.oddities.list().collect(),
            users: 0,
            scores: channels.into_iter().filter_map(|channel| self.score(channel, tails)).collect(),
            crossings: Vec::new(),
        }
    }

    /// What a channel says; `None` when it says nothing of such an episode.
    pub(super) fn score(&self, channel: Channel, tails: Option<&Tails>) -> Option<EpisodeScore> {
        let inputs = match channel {
            Channel::Rhythm => {
                if !self.has(mark::ANSWERED) || self.proven_in == UNPROVEN {
                    return None;
                }
                let mut inputs = self.rhythm.bets().to_vec();
                let hours = self.hours.count_from(usize::from(self.proven_in));
                inputs.push((input::HOURS, f64::from(hours)));
                ScoreInputs(inputs)
            }
            Channel::Persistence => {
                if !self.has(mark::ANSWERED) {
                    return None;
                }
                self.hours.inputs()
            }
            Channel::Allowance => self.bytes.inputs(),
            Channel::Sum => terms(tails?, &self.features()),
            Channel::Approved | Channel::Dns | Channel::HostBudget => return None,
        };
        scored(channel, self.contact_at(), inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);

    #[test]
    fn hours_since_proof_are_those_of_the_prototype() {
        let mut episode = Episode::new(AT, 0);
        episode.mark(mark::ANSWERED);
        for minute in 0..300 {
            episode.contact(AT.after(Span::from_secs(60 * minute)), RhythmSettings::default());
        }
        // Proven within the first hour: all five count. Persistence counts the same.
        let hours = |channel| episode.score(channel, None).unwrap().score;
        assert_eq!((hours(Channel::Rhythm), hours(Channel::Persistence)), (5.0, 5.0));
        let mut late = Episode::new(AT, 0);
        late.mark(mark::ANSWERED);
        for n in 0..30 {
            late.contact(AT.after(Span::from_secs(900 * n)), RhythmSettings::default());
        }
        // Eleven contacts at 15 minutes prove it in the third hour, of seven and a half.
        assert_eq!(late.score(Channel::Rhythm, None).unwrap().score, 6.0);
        assert_eq!(late.score(Channel::Persistence, None).unwrap().score, 8.0);
    }

    #[test]
    fn what_the_fleet_adopts_and_what_nobody_answers_does_not_score() {
        let mut episode = Episode::new(AT, 0);
        for minute in 0..100 {
            if minute == 70 {
                episode.hosts = FLEET;
            }
            episode.contact(AT.after(Span::from_secs(60 * minute)), RhythmSettings::default());
        }
        assert!(episode.score(Channel::Rhythm, None).is_none(), "nobody answered");
        episode.mark(mark::ANSWERED);
        assert_eq!(episode.score(Channel::Rhythm, None).unwrap().score, 2.0);
    }

    #[test]
    fn an_episode_is_small() {
        assert!(size_of::<Episode>() <= 192, "{}", size_of::<Episode>());
    }
}
