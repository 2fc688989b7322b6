//! When something is to be told of an episode, and what.

use super::episode::{Episode, LASTS, mark};
use super::host::Hosts;
use super::key::At;
use super::naming::named;
use crate::certify::authority::Authority;
use crate::certify::episode::scored;
use crate::learn::approved::Envelope;
use crate::learn::dns::NameInformation;
use crate::learn::host_budget::HostDay;
use crate::learn::oddity::Oddities;
use crate::learn::rhythm::{RhythmSettings, Window};
use crate::learn::staging::Push;
use sekisho_schema::Timestamp;
use sekisho_schema::baseline;
use sekisho_schema::certificate::Tails;
use sekisho_schema::episode::{Channel, EpisodeKey, EpisodeScore, Tier, Workload};

/// Decades by which the ratio to the usual must have grown to be told again.
const AGAIN_LOG10: f64 = 0.3;

/// From when on people are told: no promise stands behind any of these.
#[derive(Clone, Debug, PartialEq)]
pub struct EpisodeSettings {
    /// Constants of the test of rhythm.
    pub rhythm: RhythmSettings,
    /// log10 of the e-value of a rhythm.
    pub rhythm_log10: f64,
    /// Hours of contact with one destination, of 168.
    pub persistence_hours: u32,
    /// Bytes of information an hour in names below one registered domain.
    pub dns_bytes: f64,
    /// log10 of the ratio of an upload to the largest of the 28 days before.
    pub approved_log10: f64,
    /// Bytes an hour of echoes that say something new, to one address.
    pub icmp_bytes: u64,
    /// Distinct addresses an hour.
    pub fan_out: f64,
    /// Bytes that leave after data was gathered.
    pub push_bytes: u64,
    /// Net bytes up from half of which on an episode is never evicted.
    pub upload_bytes: u64,
    /// Whether each new destination is told.
    pub first_seen: bool,
}

impl Default for EpisodeSettings {
    /// detection.md, sections 2.4, 3, 4.3, 4.5 and 4.7; hours and fan-out are of our own choice.
    fn default() -> Self {
        Self {
            rhythm: RhythmSettings::default(),
            rhythm_log10: 6.0,
            persistence_hours: 24,
            dns_bytes: 500.0,
            approved_log10: 0.3,
            icmp_bytes: 10_000,
            fan_out: 300.0,
            push_bytes: 1_000_000,
            upload_bytes: 20_000_000,
            first_seen: false,
        }
    }
}

/// The thresholds that certificates stand behind, by channel and tier; those that none does are infinite.
#[derive(Clone, Debug, PartialEq)]
pub struct Unlocked {
    thresholds: [[f64; Tier::ALL.len()]; Channel::ALL.len()],
}

impl Default for Unlocked {
    fn default() -> Self {
        Self { thresholds: [[f64::INFINITY; Tier::ALL.len()]; Channel::ALL.len()] }
    }
}

impl Unlocked {
    /// What an authority grants now.
    #[must_use]
    pub fn of(authority: &Authority) -> Self {
        let mut unlocked = Self::default();
        for ((tier, channel), stands) in authority.standing() {
            if let Ok(threshold) = stands {
                unlocked.set(channel, tier, threshold);
            }
        }
        unlocked
    }

    /// Lets a channel decide for a tier above a threshold.
    pub fn set(&mut self, channel: Channel, tier: Tier, threshold: f64) {
        let of_channel = self.thresholds.get_mut(channel as usize);
        if let Some(place) = of_channel.and_then(|tiers| tiers.get_mut(tier as usize)) {
            *place = threshold;
        }
    }

    /// The hardest tier that a score unlocks, from the hold on.
    #[must_use]
    pub fn tier(&self, channel: Channel, score: f64) -> Option<Tier> {
        let tiers = self.thresholds.get(channel as usize)?;
        let passed = |(tier, threshold): &(Tier, &f64)| *tier > Tier::Alert && score > **threshold;
        Tier::ALL.into_iter().zip(tiers).filter(passed).map(|(tier, _)| tier).next_back()
    }

    /// The least threshold of a channel; infinite when it is locked.
    #[must_use]
    pub fn least(&self, channel: Channel) -> f64 {
        let tiers = self.thresholds.get(channel as usize);
        tiers.into_iter().flatten().copied().fold(f64::INFINITY, f64::min)
    }

    /// The threshold of a channel for a tier; infinite when it is locked.
    #[must_use]
    pub fn threshold(&self, channel: Channel, tier: Tier) -> f64 {
        let tiers = self.thresholds.get(channel as usize);
        tiers.and_then(|tiers| tiers.get(tier as usize)).copied().unwrap_or(f64::INFINITY)
    }

    /// Whether no tier of a channel is unlocked.
    #[must_use]
    pub fn is_locked(&self, channel: Channel) -> bool {
        self.least(channel) == f64::INFINITY
    }
}

/// What was seen.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A channel's score passed a threshold; the score says all.
    Channel,
    /// Echoes carried more than pings do.
    Echoes {
        /// Bytes of the hour that said something new.
        bytes: u64,
        /// Bytes of the longest payload among them.
        largest: u32,
    },
    /// Many addresses were spoken to.
    FanOut {
        /// About how many within the hour.
        distinct: f64,
    },
    /// A destination was spoken to for the first time.
    FirstSeen,
    /// So many new destinations came that others had to be forgotten.
    Flood {
        /// Destinations that gave way or found no place within the hour.
        gone: u64,
    },
    /// Names carried information.
    Names,
    /// Data was gathered, and then something left.
    Push(Push),
    /// Contacts come by the clock.
    Rhythm {
        /// Gaps that fell in their window, of the last `bets`.
        hits: u32,
        /// Gaps that could tell.
        bets: u32,
        /// The latest window.
        window: Window,
        /// log10 of the e-value.
        log10_e: f64,
        /// The six bets that it is made from, by the names of inputs.
        inputs: [(&'static str, f64); 6],
    },
}

/// Something to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Whom it is about.
    pub key: EpisodeKey,
    /// What was seen.
    pub what: What,
    /// When.
    pub at: Timestamp,
    /// When it began.
    pub first_at: Timestamp,
    /// The channel's score, where a channel speaks.
    pub score: Option<EpisodeScore>,
    /// The hardest tier that a certificate unlocks for it.
    pub tier: Option<Tier>,
    /// What is odd about the episode.
    pub oddities: Oddities,
    /// Hosts that were seen with the destination.
    pub hosts: u8,
    /// Payload bytes that the episode sent up so far.
    pub up: u64,
}

impl Told {
    /// Of a host as a whole.
    pub(super) fn of_host(key: EpisodeKey, at: Timestamp, what: What) -> Self {
        let oddities = Oddities::default();
        Self { key, what, at, first_at: at, score: None, tier: None, oddities, hosts: 1, up: 0 }
    }
}

/// The score of an envelope at its highest.
pub(super) fn approved(envelope: &Envelope) -> Option<EpisodeScore> {
    scored(Channel::Approved, envelope.highest_at(), envelope.inputs()?)
}

/// The score of names at their highest.
pub(super) fn dns(names: &NameInformation) -> Option<EpisodeScore> {
    scored(Channel::Dns, names.highest_at(), names.inputs())
}

/// The score of a host's largest day.
pub(super) fn host_budget(day: &HostDay) -> Option<EpisodeScore> {
    scored(Channel::HostBudget, day.highest_at(), day.inputs())
}

/// What a channel said within seven days that are over, of what has no bursts of its own.
pub(super) fn of_channel(key: EpisodeKey, score: EpisodeScore, at: Timestamp) -> baseline::Episode {
    baseline::Episode {
        key,
        first_at: at.before(LASTS),
        last_at: score.at,
        contacts: 0,
        days: 0,
        hours: 0,
        up: 0,
        down: 0,
        net: 0,
        rhythm: 0.0,
        proven_at: None,
        gaps: Vec::new(),
        oddities: Vec::new(),
        users: 0,
        scores: vec![score],
        crossings: Vec::new(),
    }
}

/// Who is half-way to a threshold.
pub(super) struct Halves<'a> {
    pub(super) settings: &'a EpisodeSettings,
    pub(super) unlocked: &'a Unlocked,
    pub(super) tails: Option<&'a Tails>,
}

impl Halves<'_> {
    /// Whether an episode must not be evicted.
    pub(super) fn protect(&self, episode: &Episode) -> bool {
        let Self { settings, unlocked, tails } = self;
        let hours = f64::from(episode.hours.count());
        let hours_half = f64::from(settings.persistence_hours)
            .min(unlocked.least(Channel::Rhythm))
            .min(unlocked.least(Channel::Persistence))
            / 2.0;
        let net = episode.bytes.highest() as f64;
        let net_half = (settings.upload_bytes as f64).min(unlocked.least(Channel::Allowance)) / 2.0;
        if episode.rhythm.peak() >= settings.rhythm_log10 / 2.0
            || hours >= hours_half.max(1.5)
            || net >= net_half.max(1.0)
        {
            return true;
        }
        let sum_half = unlocked.least(Channel::Sum) / 2.0;
        sum_half.is_finite()
            && episode.score(Channel::Sum, *tails).is_some_and(|score| score.score >= sum_half)
    }
}

/// Where what is to be told is put, and what it is made with.
pub(super) struct Voice<'a> {
    pub(super) settings: &'a EpisodeSettings,
    pub(super) unlocked: &'a Unlocked,
    pub(super) tails: Option<&'a Tails>,
    pub(super) hosts: &'a Hosts,
    pub(super) workloads: &'a [Workload],
    pub(super) told: &'a mut Vec<Told>,
}

impl Voice<'_> {
    fn key(&self, key: At<'_>, workload: u16) -> EpisodeKey {
        named(self.hosts, self.workloads, key, workload)
    }

    fn say(
        &mut self,
        key: At<'_>,
        episode: &Episode,
        at: Timestamp,
        what: What,
    ) -> Option<&mut Told> {
        let told = Told {
            key: self.key(key, episode.workload),
            what,
            at,
            first_at: episode.first_at,
            score: None,
            tier: None,
            oddities: episode.oddities,
            hosts: episode.hosts,
            up: episode.bytes.up(),
        };
        self.told.push(told);
        self.told.last_mut()
    }

    pub(super) fn first_seen(&mut self, key: At<'_>, episode: &Episode, at: Timestamp) {
        if self.settings.first_seen {
            self.say(key, episode, at, What::FirstSeen);
        }
    }

    /// What a contact shows; `is_remarkable` says that more than the rhythm may have changed.
    pub(super) fn contact(
        &mut self,
        key: At<'_>,
        episode: &mut Episode,
        at: Timestamp,
        window: Option<Window>,
        is_remarkable: bool,
    ) {
        self.rhythm(key, episode, at, window);
        if !is_remarkable {
            return;
        }
        for channel in [Channel::Rhythm, Channel::Persistence, Channel::Sum] {
            self.channel(key, episode, channel, at);
        }
    }

    /// A rhythm is told when it is proven, and then each time that the evidence has doubled.
    fn rhythm(
        &mut self,
        key: At<'_>,
        episode: &mut Episode,
        at: Timestamp,
        window: Option<Window>,
    ) {
        let due = |told: u8| self.settings.rhythm_log10 * 2_f64.powi(i32::from(told));
        let peak = episode.rhythm.peak();
        if peak < due(episode.told) {
            return;
        }
        while episode.told < 32 && peak >= due(episode.told) {
            episode.told += 1;
        }
        let (hits, bets) = episode.rhythm.counted();
        let predicted = || episode.rhythm.predicted(self.settings.rhythm);
        let window = window.or_else(predicted).unwrap_or_default();
        let inputs = episode.rhythm.bets();
        let what = What::Rhythm { hits, bets, window, log10_e: peak, inputs };
        self.say(key, episode, at, what);
    }

    /// Tells of a channel when its threshold for people is passed for the first time, and whenever one is
    /// that a certificate stands behind: a lease can end while the episode goes on.
    fn channel(&mut self, key: At<'_>, episode: &mut Episode, channel: Channel, at: Timestamp) {
        let told_mark = match channel {
            Channel::Persistence if episode.hours.count() >= self.settings.persistence_hours => {
                Some(mark::PERSISTENCE_TOLD)
            }
            _ => None,
        };
        if told_mark.is_none() && self.unlocked.is_locked(channel) {
            return;
        }
        let Some(score) = episode.score(channel, self.tails) else { return };
        let tier = self.unlocked.tier(channel, score.score);
        let is_first = told_mark.is_some_and(|told| episode.mark(told));
        if (is_first || tier.is_some())
            && let Some(told) = self.say(key, episode, at, What::Channel)
        {
            (told.score, told.tier) = (Some(score), tier);
        }
    }

    /// What an upload shows.
    pub(super) fn volume(&mut self, key: At<'_>, episode: &mut Episode, at: Timestamp) {
        for channel in [Channel::Allowance, Channel::Sum] {
            self.channel(key, episode, channel, at);
        }
    }

    /// What an upload to a usual destination shows.
    pub(super) fn usual(&mut self, key: At<'_>, envelope: &mut Envelope, now: f64, at: Timestamp) {
        let tier = self.unlocked.tier(Channel::Approved, now);
        let is_due = now >= self.settings.approved_log10.max(envelope.told + AGAIN_LOG10);
        if !is_due && tier.is_none() {
            return;
        }
        if is_due {
            envelope.told = now;
        }
        if let Some(score) = approved(envelope) {
            let told = Told::of_host(self.key(key, 0), at, What::Channel);
            self.told.push(Told { score: Some(score), tier, ..told });
        }
    }

    pub(super) fn flood(&mut self, host: u16, at: Timestamp, gone: u64) {
        let key = super::naming::host_key(self.hosts.workload(host));
        self.told.push(Told::of_host(key, at, What::Flood { gone }));
    }

    /// The record of an episode that is over.
    pub(super) fn record(&self, key: At<'_>, episode: &Episode) -> baseline::Episode {
        episode.record(self.key(key, episode.workload), self.tails)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_unlocks_the_hardest_tier_whose_threshold_it_passes() {
        let mut unlocked = Unlocked::default();
        assert!(unlocked.is_locked(Channel::Sum) && unlocked.tier(Channel::Sum, 1e300).is_none());
        unlocked.set(Channel::Sum, Tier::Alert, 1.0);
        unlocked.set(Channel::Sum, Tier::Hold, 3.0);
        unlocked.set(Channel::Sum, Tier::CutDestination, 5.0);
        let tier = |score| unlocked.tier(Channel::Sum, score);
        assert_eq!((tier(2.0), tier(3.0), tier(3.1)), (None, None, Some(Tier::Hold)));
        assert_eq!(tier(9.0), Some(Tier::CutDestination));
        assert_eq!(unlocked.least(Channel::Sum), 1.0);
        assert!(unlocked.is_locked(Channel::Rhythm));
    }
}
