//! Certificates: which thresholds keep a promise about false actions, and what the promise rests on.

pub use crate::baseline::ParseBaselineError;
use crate::episode::{Channel, Tier};
use crate::policy::{read_toml, write_toml};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name and version of the certificate schema.
pub const CERTIFICATE_SCHEMA: &str = "sekisho.certificate/1";
/// Kind of the envelope of a sealed certificate.
pub const CERTIFICATE_KIND: &str = "certificate";

/// How many false actions per host-week each channel of a tier may cost; together they are the tier's promise.
#[derive(Clone, Debug, PartialEq)]
pub struct Budgets(pub BTreeMap<Tier, BTreeMap<Channel, f64>>);

impl Default for Budgets {
    /// T1 at most 1 hold, T2 at most 0.12 cuts of a destination, T3 at most 0.01 isolations per host-week.
    fn default() -> Self {
        let tier = |channels: &[(Channel, f64)]| channels.iter().copied().collect();
        Self(BTreeMap::from([
            (
                Tier::Hold,
                tier(&[
                    (Channel::Rhythm, 0.5),
                    (Channel::Persistence, 0.1),
                    (Channel::Allowance, 0.1),
                    (Channel::HostBudget, 0.05),
                    (Channel::Dns, 0.05),
                    (Channel::Approved, 0.1),
                    (Channel::Sum, 0.1),
                ]),
            ),
            (
                Tier::CutDestination,
                tier(&[
                    (Channel::Allowance, 0.04),
                    (Channel::HostBudget, 0.04),
                    (Channel::Sum, 0.04),
                ]),
            ),
            (
                Tier::IsolateHost,
                tier(&[
                    (Channel::Allowance, 0.003),
                    (Channel::HostBudget, 0.003),
                    (Channel::Sum, 0.004),
                ]),
            ),
        ]))
    }
}

impl Budgets {
    /// The promise of a tier: false actions per host-week.
    #[must_use]
    pub fn promise(&self, tier: Tier) -> f64 {
        self.0
            .get(&tier)
            .map_or(0.0, |channels| channels.values().fold(0.0, |sum, rate| sum + rate))
    }
}

/// What the hosts of a role may do by themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Certificate {
    /// [`CERTIFICATE_SCHEMA`].
    pub schema: String,
    /// Rises with each certificate of the role.
    pub version: u64,
    /// The role.
    pub role: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// Beginning of the time it rests on.
    pub from: Timestamp,
    /// End of the time it rests on.
    pub until: Timestamp,
    /// Hosts that it rests on.
    pub hosts: u64,
    /// Weeks of one host that it rests on, summed over hosts.
    pub host_weeks: f64,
    /// Episodes that it rests on.
    pub episodes: u64,
    /// Destinations that three hosts or more took up within a day: each counts as one event.
    pub clusters: u64,
    /// Items of the review list that nobody has decided; while there are some, nothing is granted.
    pub undecided: u64,
    /// How sure the promise of a tier is, all its channels together.
    pub confidence: f64,
    /// Version of the agent whose episodes these are.
    pub agent: String,
    /// Version of the baseline outside which the episodes were.
    pub baseline: u64,
    /// What each channel of each tier may do, sorted.
    #[serde(default)]
    pub grant: Vec<Grant>,
    /// What the terms of the sum are measured against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tails: Option<Tails>,
}

/// One channel of one tier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Grant {
    /// What is unlocked.
    pub tier: Tier,
    /// By which channel.
    pub channel: Channel,
    /// False actions per host-week that it may cost.
    pub budget: f64,
    /// How sure that is, for this channel alone.
    pub confidence: f64,
    /// A score above this acts; left out while the grant is locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Events above the threshold in the time it rests on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exceedances: Option<u64>,
    /// The exact upper bound of false actions per host-week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<f64>,
    /// Host-weeks that are still needed before anything can be promised; 0 when nothing is locked.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missing_host_weeks: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// How often benign episodes look like that, for the terms of the sum.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tails {
    /// Benign episodes that it rests on.
    pub episodes: u64,
    /// Share of benign episodes with an oddity, by its name.
    #[serde(default)]
    pub oddities: BTreeMap<String, f64>,
    /// Terms that are amounts.
    #[serde(default)]
    pub term: Vec<Tail>,
}

/// How many benign episodes reach a value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tail {
    /// The term.
    pub name: String,
    /// Values, rising.
    pub values: Vec<f64>,
    /// Episodes that reach each value.
    pub reach: Vec<u64>,
    /// Where a power law takes over, as value of the term; left out where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beyond: Option<f64>,
    /// Share of episodes beyond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Mean excess beyond, in decades (Hill's estimate of 1 / alpha).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excess: Option<f64>,
}

impl Certificate {
    /// Reads a certificate from TOML.
    ///
    /// # Errors
    /// Line, column and cause of the first fault, or what makes no sense.
    pub fn parse(text: &str) -> Result<Self, ParseBaselineError> {
        let read: Self = read_toml(text)
            .map_err(|(at, message)| ParseBaselineError::Malformed { at, message })?;
        let refuse = |why: String| Err(ParseBaselineError::Senseless(why));
        if read.schema != CERTIFICATE_SCHEMA {
            return refuse(format!(
                "schema is \"{}\", expected \"{CERTIFICATE_SCHEMA}\"",
                read.schema
            ));
        }
        for grant in &read.grant {
            let (tier, channel) = (grant.tier, grant.channel);
            if tier == Tier::Alert {
                return refuse("an alert needs no certificate".to_owned());
            }
            if grant.threshold.is_some_and(|threshold| !threshold.is_finite() || threshold < 0.0) {
                return refuse(format!("the threshold of {channel} for {tier} is no threshold"));
            }
            // What was granted must be what was promised.
            if grant.threshold.is_some() && grant.bound.is_none_or(|bound| bound > grant.budget) {
                return refuse(format!(
                    "{channel} for {tier} is granted and its bound is above its budget"
                ));
            }
        }
        let mut kinds: Vec<_> =
            read.grant.iter().map(|grant| (grant.tier, grant.channel)).collect();
        kinds.sort_unstable();
        if kinds.windows(2).any(|pair| pair.first() == pair.last()) {
            return refuse("a channel of a tier is granted twice".to_owned());
        }
        let tails = read.tails.iter().flat_map(|tails| &tails.term);
        if tails.into_iter().any(|tail| tail.values.len() != tail.reach.len()) {
            return refuse("a tail has more values than counts, or fewer".to_owned());
        }
        Ok(read)
    }

    /// The text form, which two versions can be compared by.
    ///
    /// # Errors
    /// What can't be said in TOML.
    pub fn to_text(&self) -> Result<String, String> {
        let mut sorted = self.clone();
        sorted.grant.sort_by_key(|grant| (grant.tier, grant.channel));
        write_toml(&sorted)
    }

    /// The line for a channel of a tier.
    #[must_use]
    pub fn grant(&self, tier: Tier, channel: Channel) -> Option<&Grant> {
        self.grant.iter().find(|grant| grant.tier == tier && grant.channel == channel)
    }

    /// The score above which a channel may act with a tier; `None` while that is locked.
    #[must_use]
    pub fn threshold(&self, tier: Tier, channel: Channel) -> Option<f64> {
        let is_open = self.undecided == 0;
        self.grant(tier, channel).filter(|_| is_open).and_then(|grant| grant.threshold)
    }

    /// The promise of a tier as far as it is granted: false actions per host-week.
    #[must_use]
    pub fn promise(&self, tier: Tier) -> f64 {
        let granted = |grant: &&Grant| grant.tier == tier && grant.threshold.is_some();
        self.grant.iter().filter(granted).fold(0.0, |sum, grant| sum + grant.budget)
    }

    /// What a newer certificate changes, a line each; empty when nothing.
    #[must_use]
    pub fn difference(&self, newer: &Self) -> Vec<String> {
        let word = |threshold: Option<f64>| {
            threshold.map_or_else(|| "locked".to_owned(), |threshold| format!("above {threshold}"))
        };
        let mut lines = Vec::new();
        for tier in Tier::ALL {
            for channel in Channel::ALL {
                let (old, new) = (self.threshold(tier, channel), newer.threshold(tier, channel));
                if old != new {
                    lines.push(format!("~ {tier} by {channel}: {} to {}", word(old), word(new)));
                }
            }
        }
        if (self.host_weeks - newer.host_weeks).abs() > 1e-9 {
            lines.push(format!("~ host-weeks: {:.1} to {:.1}", self.host_weeks, newer.host_weeks));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
schema = "sekisho.certificate/1"
version = 3
role = "web"
made-at = "2026-11-22T09:00:00Z"
from = "2026-10-25T00:00:00Z"
until = "2026-11-22T00:00:00Z"
hosts = 40
host-weeks = 160.0
episodes = 700
clusters = 4
undecided = 0
confidence = 0.95
agent = "0.1.0"
baseline = 7
[[grant]]
tier = "hold"
channel = "rhythm"
budget = 0.4
confidence = 0.99
threshold = 12.0
exceedances = 41
bound = 0.39
[[grant]]
tier = "isolate-host"
channel = "sum"
budget = 0.004
confidence = 0.98
missing-host-weeks = 863.0
"#;

    #[test]
    fn a_certificate_reads_back_what_it_writes_and_locks_what_has_no_threshold() {
        let read = Certificate::parse(GOOD).unwrap();
        assert_eq!(Certificate::parse(&read.to_text().unwrap()).unwrap(), read);
        assert_eq!(read.threshold(Tier::Hold, Channel::Rhythm), Some(12.0));
        assert_eq!(read.threshold(Tier::IsolateHost, Channel::Sum), None);
        assert_eq!(read.threshold(Tier::CutDestination, Channel::Sum), None);
        assert!((read.promise(Tier::Hold) - 0.4).abs() < 1e-12);
    }

    #[test]
    fn nothing_is_granted_while_the_review_list_is_undecided() {
        let read = Certificate::parse(&GOOD.replace("undecided = 0", "undecided = 2")).unwrap();
        assert_eq!(read.threshold(Tier::Hold, Channel::Rhythm), None);
    }

    #[test]
    fn a_grant_above_its_budget_or_given_twice_is_refused() {
        assert!(Certificate::parse(&GOOD.replace("bound = 0.39", "bound = 0.41")).is_err());
        assert!(Certificate::parse(&GOOD.replace("bound = 0.39\n", "")).is_err());
        let twice =
            GOOD.replace("\"isolate-host\"\nchannel = \"sum\"", "\"hold\"\nchannel = \"rhythm\"");
        assert!(Certificate::parse(&twice).is_err());
    }

    #[test]
    fn certificates_tell_what_changed() {
        let old = Certificate::parse(GOOD).unwrap();
        let new =
            Certificate::parse(&GOOD.replace("threshold = 12.0", "threshold = 14.5")).unwrap();
        assert_eq!(old.difference(&new), ["~ hold by rhythm: above 12 to above 14.5"]);
    }

    #[test]
    fn the_promises_of_the_default_budgets_are_those_of_the_design() {
        let budgets = Budgets::default();
        for (tier, promise) in
            [(Tier::Hold, 1.0), (Tier::CutDestination, 0.12), (Tier::IsolateHost, 0.01)]
        {
            assert!((budgets.promise(tier) - promise).abs() < 1e-12, "{tier}");
        }
    }
}
