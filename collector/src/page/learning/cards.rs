//! The cards of the page of learning: one for each destination that a host spoke to.

use super::super::board::moment;
use super::super::chart;
use super::super::text::{bytes, visible};
use super::{Card, deed, marks, ruled};
use crate::clock::to_the_second;
use crate::learning::Role;
use crate::store::PageRuling;
use sekisho_engine::certify::report::WouldBe;
use sekisho_engine::certify::review::Item;
use sekisho_schema::baseline::Episode;
use sekisho_schema::certificate::Certificate;
use sekisho_schema::episode::{Channel, EpisodeScore, Tier};
use std::collections::BTreeSet;

/// The charts that show what a score rests on.
fn charts(
    episode: Option<&Episode>,
    score: &EpisodeScore,
    certificate: &Certificate,
) -> Vec<(String, String)> {
    let mut charts = Vec::new();
    let is_of_time = matches!(score.channel, Channel::Rhythm | Channel::Persistence | Channel::Sum);
    if let Some(episode) = episode.filter(|_| is_of_time) {
        charts.extend(chart::gaps(&episode.gaps));
        charts.extend(episode.score(Channel::Persistence).and_then(chart::hours));
    } else if score.channel == Channel::Persistence {
        charts.extend(chart::hours(score));
    }
    charts.extend(chart::score(score, &marks(certificate, score.channel)));
    charts
}

/// The sentence without the key that stands above it.
fn told(action: &WouldBe) -> String {
    let key = format!("{}: ", action.key);
    visible(action.sentence.strip_prefix(&key).unwrap_or(&action.sentence))
}

/// Makes cards.
pub(super) struct Deck<'a> {
    role: &'a Role,
    certificate: &'a Certificate,
    seen: BTreeSet<String>,
}

impl<'a> Deck<'a> {
    pub(super) const fn new(role: &'a Role, certificate: &'a Certificate) -> Self {
        Self { role, certificate, seen: BTreeSet::new() }
    }

    fn ruling(&self, id: &str) -> Option<&PageRuling> {
        self.role.rulings.iter().find(|ruling| ruling.item == id)
    }

    pub(super) fn action(&mut self, action: &WouldBe) -> Card {
        let channel = action.channel;
        let key = |(host, episode): &&(String, Episode)| {
            *host == action.host && episode.key == action.key
        };
        let episode = self.role.pool.episodes.iter().find(key).map(|(_, episode)| episode);
        let others = |count: u64| match count {
            0 => "none".to_owned(),
            count => format!("{count} other workloads of the host"),
        };
        let mut facts = vec![
            ("channel", format!("{} ({channel})", chart::words(channel))),
            (
                "score",
                format!(
                    "{}, threshold {}",
                    chart::full(channel, action.score),
                    chart::full(channel, action.threshold)
                ),
            ),
            (
                "would not be",
                format!("with a threshold of {}", chart::full(channel, action.counter_threshold)),
            ),
            (
                "would have stopped",
                action
                    .bytes_stopped
                    .map_or_else(|| "not watched for".to_owned(), |count| bytes(count as f64)),
            ),
            ("would have hit", others(action.users_hit)),
            ("hosts that speak to it", action.hosts.to_string()),
        ];
        if let Some(moment) = &action.moment {
            facts.push(("moment", moment.clone()));
        }
        if let Some(reduced) = &action.ruling.reduced {
            facts.push(("milder because", visible(&reduced.to_string())));
        }
        let ruling = self.ruling(&action.id).map(ruled);
        Card {
            is_first: self.seen.insert(action.id.clone()),
            id: action.id.clone(),
            title: format!("would {}", deed(action.tier)),
            class: if action.tier > Tier::Hold { "bad" } else { "unsure" },
            at: moment(action.at),
            host: visible(&action.host),
            whom: visible(&format!(
                "{} to {} ({})",
                action.key.workload, action.key.destination, action.key.service
            )),
            sentence: told(action),
            facts,
            charts: charts(episode, &action.ruling.score, self.certificate),
            ruled: ruling.or_else(|| {
                (action.standing == "approved" || action.standing == "refused")
                    .then(|| format!("{} in the baseline in force", action.standing))
            }),
            may_rule: !matches!(channel, Channel::HostBudget | Channel::Approved),
        }
    }

    /// Adds what another channel says of the same.
    pub(super) fn also(&self, card: &mut Card, action: &WouldBe) {
        let channel = action.channel;
        let stopped = action.bytes_stopped.map_or_else(String::new, |count| {
            format!("; would have stopped {}", bytes(count as f64))
        });
        card.facts.push((
            "also",
            format!(
                "{} UTC: would {} by {channel}: {}{stopped}",
                to_the_second(action.at),
                deed(action.tier),
                told(action)
            ),
        ));
        card.charts.extend(chart::score(&action.ruling.score, &marks(self.certificate, channel)));
    }

    pub(super) fn item(&mut self, item: &Item) -> Card {
        let episodes =
            self.role.pool.episodes.iter().filter(|(_, episode)| episode.key == item.key);
        // The one that says most: proven, then the largest.
        let episode = episodes.map(|(_, episode)| episode).max_by(|a, b| {
            (a.rhythm, a.net as f64)
                .partial_cmp(&(b.rhythm, b.net as f64))
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        let mut drawn = Vec::new();
        if let Some(episode) = episode {
            drawn.extend(chart::gaps(&episode.gaps));
            drawn.extend(episode.score(Channel::Persistence).and_then(chart::hours));
            let volume = episode.score(Channel::Allowance).filter(|score| score.score > 0.0);
            drawn.extend(volume.and_then(|score| {
                chart::score(score, &marks(self.certificate, Channel::Allowance))
            }));
            drawn.extend(
                episode
                    .score(Channel::Dns)
                    .and_then(|score| chart::score(score, &marks(self.certificate, Channel::Dns))),
            );
        }
        let why: Vec<String> = item.why.iter().map(ToString::to_string).collect();
        Card {
            is_first: self.seen.insert(item.id.clone()),
            id: item.id.clone(),
            title: "undecided".to_owned(),
            class: "unsure",
            at: moment(item.last_at),
            host: visible(&item.hosts.join(", ")),
            whom: visible(&format!(
                "{} to {} ({})",
                item.key.workload, item.key.destination, item.key.service
            )),
            sentence: visible(&why.join("; ")),
            facts: vec![
                ("first contact", format!("{} UTC", to_the_second(item.first_at))),
                ("went up", format!("{}, {} net", bytes(item.up as f64), bytes(item.net as f64))),
            ],
            charts: drawn,
            ruled: None,
            may_rule: true,
        }
    }
}
