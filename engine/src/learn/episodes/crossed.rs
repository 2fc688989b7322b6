//! When episodes went over thresholds that a certificate stands behind: what the dry-run report tells of a moment.

use super::episode::LASTS;
use super::telling::{Told, Unlocked};
use crate::learn::keep::Keep;
use sekisho_schema::Timestamp;
use sekisho_schema::baseline::{Crossing, Episode};
use sekisho_schema::episode::{Channel, EpisodeKey, Tier};
use std::collections::BTreeMap;

/// Episodes of which it is remembered; a fleet that keeps its promise has few.
const MOST: usize = 4096;

/// The crossings of episodes that go on, each channel's first of each tier.
#[derive(Debug, Default)]
pub(super) struct Crossed {
    of: BTreeMap<EpisodeKey, Vec<Crossing>>,
    /// Crossings that found no place.
    lost: u64,
}

impl Crossed {
    /// Notes a score above a threshold, if it is the first of its channel and tier.
    pub(super) fn note(&mut self, told: &Told, unlocked: &Unlocked) {
        let (Some(score), Some(tier)) = (&told.score, told.tier) else { return };
        let is_it =
            |crossing: &Crossing| crossing.channel == score.channel && crossing.tier == tier;
        let crossing = || Crossing {
            tier,
            channel: score.channel,
            at: told.at,
            score: score.score,
            threshold: unlocked.threshold(score.channel, tier),
            up: told.up,
        };
        let has_room = self.of.len() < MOST;
        match self.of.get_mut(&told.key) {
            Some(known) if known.iter().any(is_it) => {}
            // At most one of each channel and tier.
            Some(known) => known.push(crossing()),
            None if has_room => {
                self.of.insert(told.key.clone(), vec![crossing()]);
            }
            None => self.lost = self.lost.saturating_add(1),
        }
    }

    /// Puts what is known of an episode into its record.
    pub(super) fn tell(&self, mut episode: Episode) -> Episode {
        if let Some(crossings) = self.of.get(&episode.key) {
            let within = |crossing: &&Crossing| crossing.at >= episode.first_at;
            episode.crossings = crossings.iter().filter(within).cloned().collect();
        }
        episode
    }

    /// Crossings that found no place.
    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    /// Forgets what belongs to an episode that is over.
    pub(super) fn forget(&mut self, key: &EpisodeKey) {
        self.of.remove(key);
    }

    /// Forgets what no episode can be that old for.
    pub(super) fn turn_hour(&mut self, at: Timestamp) {
        self.of.retain(|_, crossings| {
            crossings.last().is_some_and(|crossing| at.since(crossing.at) < LASTS)
        });
    }
}

impl Keep for EpisodeKey {
    fn keep(&self, out: &mut Vec<u8>) {
        self.workload.keep(out);
        for part in [self.destination.to_string(), self.service.to_string()] {
            part.into_boxed_str().keep(out);
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let workload = Keep::take(from)?;
        let destination = Box::<str>::take(from)?.parse().ok()?;
        let service = Box::<str>::take(from)?.parse().ok()?;
        Some(Self { workload, destination, service })
    }
}

impl Keep for Crossing {
    fn keep(&self, out: &mut Vec<u8>) {
        (self.tier as u8).keep(out);
        (self.channel as u8).keep(out);
        self.at.keep(out);
        (self.score, self.threshold).keep(out);
        self.up.keep(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let tier = *Tier::ALL.get(usize::from(u8::take(from)?))?;
        let channel = *Channel::ALL.get(usize::from(u8::take(from)?))?;
        let at = Keep::take(from)?;
        let (score, threshold) = Keep::take(from)?;
        Some(Self { tier, channel, at, score, threshold, up: u64::take(from)? })
    }
}

impl Keep for Crossed {
    fn keep(&self, out: &mut Vec<u8>) {
        (self.of.len() as u32).keep(out);
        for (key, crossings) in &self.of {
            key.keep(out);
            crossings.keep(out);
        }
        self.lost.keep(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let of: Vec<(EpisodeKey, Vec<Crossing>)> = Vec::take(from)?;
        let lost = u64::take(from)?;
        let most = Channel::ALL.len() * Tier::ALL.len();
        let fits = of.len() <= MOST && of.iter().all(|(_, crossings)| crossings.len() <= most);
        fits.then(|| Self { of: of.into_iter().collect(), lost })
    }
}
