//! Thresholds with a promise: the smallest whose events, as seen while learning, are bounded by the budget.

use super::bound::{allowed, missing, poisson_upper};
use super::cluster::{Common, Prevalence, has_contacts};
use super::episode::{Channel, DNS_TELLS, Tier, score_of};
use super::review::{Desk, Standing, list};
use super::tails::{Features, measure_pool, terms};
use sekisho_schema::Timestamp;
use sekisho_schema::baseline::{Episode, Pool, RoleBaseline};
use sekisho_schema::certificate::{Budgets, CERTIFICATE_SCHEMA, Certificate, Grant, Tails};
use std::collections::{BTreeMap, BTreeSet};

/// How sure the promise of a tier is, all its channels together.
pub const CONFIDENCE: f64 = 0.95;

/// The least that a threshold may be, whatever was learned: below it a score says nothing, and a
/// channel in which nothing was seen would act on everything.
#[must_use]
pub const fn floor_of(channel: Channel) -> f64 {
    match channel {
        // An hour, and a morning, of contact.
        Channel::Rhythm => 1.0,
        Channel::Persistence => 3.0,
        Channel::Allowance => 1e6,
        Channel::HostBudget => 5e6,
        Channel::Dns => DNS_TELLS,
        // Half as much again as the largest of 28 days: log10 of 1.5.
        Channel::Approved => 0.176_091_259_055_681_24,
        // One benign episode in a thousand.
        Channel::Sum => 3.0,
    }
}

/// A threshold and what stands behind it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// A score above it acts.
    pub above: f64,
    /// Events above it in the time that it rests on.
    pub exceedances: u64,
    /// The upper bound of the rate of such events.
    pub bound: f64,
}

/// The smallest threshold whose events keep a budget; `None` while the time is too short to promise anything.
#[must_use]
pub fn smallest(
    maxima: &[f64],
    host_weeks: f64,
    budget: f64,
    confidence: f64,
    floor: f64,
) -> Option<Threshold> {
    let most = allowed(host_weeks, budget, confidence)?;
    let mut falling: Vec<f64> = maxima.iter().copied().filter(|score| score.is_finite()).collect();
    falling.sort_by(|a, b| b.total_cmp(a));
    let at = usize::try_from(most).unwrap_or(usize::MAX);
    // The first that may not exceed is the threshold; what equals it does not exceed it.
    let above = falling.get(at).copied().unwrap_or(0.0).max(floor);
    let exceedances = falling.iter().filter(|score| **score > above).count() as u64;
    let bound = poisson_upper(exceedances, confidence) / host_weeks;
    Some(Threshold { above, exceedances, bound })
}

/// What a certificate is made for.
#[derive(Clone, Debug)]
pub struct Terms<'a> {
    /// False actions per host-week that each channel of each tier may cost.
    pub budgets: &'a Budgets,
    /// How sure the promise of a tier shall be.
    pub confidence: f64,
    /// Version of the certificate.
    pub version: u64,
    /// When it is made.
    pub at: Timestamp,
    /// Version of the agent.
    pub agent: &'a str,
}

/// The certificate of a role: thresholds from what its hosts learned.
///
/// Each episode counts with its highest score, so that looking often costs nothing. What a person
/// refused, and what nobody has decided, calibrates nothing; while anything is undecided, nothing is granted.
#[must_use]
pub fn certify(pool: &Pool, baseline: &RoleBaseline, of: &Terms<'_>) -> Certificate {
    let prevalence = Prevalence::of(pool);
    let desk = Desk::new(baseline, &prevalence);
    let benign: Vec<&Episode> = pool
        .episodes
        .iter()
        .map(|(_, episode)| episode)
        .filter(|episode| matches!(desk.standing(episode), Standing::Free | Standing::Approved))
        .collect();
    let with_contacts = benign.iter().copied().filter(|episode| has_contacts(episode));
    let tails = measure_pool(with_contacts, &prevalence);
    let host_weeks = pool.host_weeks();
    let mut grant = Vec::new();
    for (tier, channels) in &of.budgets.0 {
        // Each channel alone must be surer than all together shall be (detection.md, section 4.4).
        let confidence = 1.0 - (1.0 - of.confidence) / channels.len().max(1) as f64;
        // What one channel acts on costs nothing in the next: it is acted on once.
        let mut taken = BTreeSet::new();
        for (channel, budget) in channels {
            let events = events(*channel, *tier, &benign, &prevalence, &tails);
            let left = events.iter().filter(|(event, _)| !taken.contains(*event));
            let maxima: Vec<f64> = left.map(|(_, score)| *score).collect();
            let found = smallest(&maxima, host_weeks, *budget, confidence, floor_of(*channel));
            if let Some(found) = found {
                let over = events.into_iter().filter(|(_, score)| *score > found.above);
                taken.extend(over.map(|(event, _)| event));
            }
            grant.push(Grant {
                tier: *tier,
                channel: *channel,
                budget: *budget,
                confidence,
                threshold: found.map(|found| found.above),
                exceedances: found.map(|found| found.exceedances),
                bound: found.map(|found| found.bound),
                missing_host_weeks: missing(host_weeks, *budget, confidence),
            });
        }
    }
    Certificate {
        schema: CERTIFICATE_SCHEMA.to_owned(),
        version: of.version,
        role: pool.role.clone(),
        made_at: of.at,
        from: pool.from,
        until: pool.until,
        hosts: pool.hosts.len() as u64,
        host_weeks,
        episodes: benign.len() as u64,
        clusters: prevalence.clusters(),
        undecided: list(pool, baseline).len() as u64,
        confidence: of.confidence,
        agent: of.agent.to_owned(),
        baseline: baseline.version,
        grant,
        tails: Some(tails),
    }
}

/// What is acted on once: a cluster, or else an episode, by its place in the pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Cluster(Common),
    Episode(usize),
}

/// The highest scores of a channel, an event each: what a cluster does counts once, and is never cut.
fn events(
    channel: Channel,
    tier: Tier,
    benign: &[&Episode],
    prevalence: &Prevalence,
    tails: &Tails,
) -> BTreeMap<Event, f64> {
    let mut highest: BTreeMap<Event, f64> = BTreeMap::new();
    for (at, episode) in benign.iter().enumerate() {
        let common = (episode.key.destination.clone(), episode.key.service);
        let Some(score) = score_in(channel, episode, prevalence.hosts(&common), tails) else {
            continue;
        };
        let event = if channel == Channel::HostBudget || !prevalence.is_cluster(&common) {
            Event::Episode(at)
        } else if tier <= Tier::Hold {
            Event::Cluster(common)
        } else {
            continue;
        };
        let before = highest.entry(event).or_insert(score);
        *before = before.max(score);
    }
    highest
}

/// The score of an episode in a channel; the sum is made here, from the tails at hand.
#[must_use]
pub fn score_in(channel: Channel, episode: &Episode, hosts: u64, tails: &Tails) -> Option<f64> {
    if channel != Channel::Sum {
        return episode.score(channel).map(|score| score.score);
    }
    if !has_contacts(episode) {
        return None;
    }
    score_of(Channel::Sum, &terms(tails, &Features::of(episode, hosts)))
}

#[cfg(test)]
mod tests;
