//! A destination that several hosts take up within a day is one event: a roll-out is not as many
//! false cuts as there are hosts.

use super::episode::{Channel, DestinationKey, Service};
use sekisho_schema::baseline::{Episode, Pool};
use sekisho_schema::{Span, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// So many hosts make a cluster; a destination of fewer is that of single hosts.
pub const CLUSTER_HOSTS: usize = 3;
/// Within this time.
pub const CLUSTER_TIME: Span = Span::from_hours(24);

/// What hosts have in common when they speak to the same.
pub type Common = (DestinationKey, Service);

/// Whether an episode is about a host and no destination in particular.
#[must_use]
pub fn is_of_the_host(episode: &Episode) -> bool {
    episode.scores.iter().any(|score| score.channel == Channel::HostBudget)
}

/// Whether an episode is about contacts with a destination outside the baseline: what names or uploads
/// to usual destinations say has no rhythm, no hours and no volume that could enter a sum.
#[must_use]
pub fn has_contacts(episode: &Episode) -> bool {
    let beside = [Channel::HostBudget, Channel::Dns, Channel::Approved];
    episode.scores.is_empty() || episode.scores.iter().any(|score| !beside.contains(&score.channel))
}

/// Which hosts speak to which destination, and since when.
#[derive(Clone, Debug, Default)]
pub struct Prevalence {
    hosts: BTreeMap<Common, BTreeMap<String, Timestamp>>,
    clusters: BTreeSet<Common>,
}

impl Prevalence {
    /// Looks through a pool.
    #[must_use]
    pub fn of(pool: &Pool) -> Self {
        let mut hosts: BTreeMap<Common, BTreeMap<String, Timestamp>> = BTreeMap::new();
        for (host, episode) in &pool.episodes {
            if is_of_the_host(episode) {
                continue;
            }
            let common = (episode.key.destination.clone(), episode.key.service);
            let first =
                hosts.entry(common).or_default().entry(host.clone()).or_insert(episode.first_at);
            *first = (*first).min(episode.first_at);
        }
        let clusters = hosts
            .iter()
            .filter(|(_, firsts)| within_a_day(firsts.values().copied().collect()))
            .map(|(common, _)| common.clone())
            .collect();
        Self { hosts, clusters }
    }

    /// How many hosts speak to it; at least 1.
    #[must_use]
    pub fn hosts(&self, common: &Common) -> u64 {
        self.hosts.get(common).map_or(1, |hosts| hosts.len().max(1) as u64)
    }

    /// Names of the hosts that speak to it, sorted.
    #[must_use]
    pub fn names(&self, common: &Common) -> Vec<String> {
        self.hosts.get(common).into_iter().flat_map(BTreeMap::keys).cloned().collect()
    }

    /// Whether three hosts or more took it up within a day.
    #[must_use]
    pub fn is_cluster(&self, common: &Common) -> bool {
        self.clusters.contains(common)
    }

    /// How many destinations are clusters.
    #[must_use]
    pub fn clusters(&self) -> u64 {
        self.clusters.len() as u64
    }
}

fn within_a_day(mut firsts: Vec<Timestamp>) -> bool {
    firsts.sort_unstable();
    firsts.windows(CLUSTER_HOSTS).any(|days| match (days.first(), days.last()) {
        (Some(first), Some(last)) => last.since(*first) <= CLUSTER_TIME,
        _ => false,
    })
}
