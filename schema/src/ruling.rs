//! What a score was allowed to do, with everything that is needed to make the score again.

use crate::episode::{Channel, EpisodeKey, EpisodeScore, Tier};
use crate::finding::Evidence;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Kind of the evidence that carries a ruling.
pub const RULING_EVIDENCE: &str = "score";

/// Why less is done than the score would unlock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "because", rename_all = "kebab-case")]
pub enum Reduced {
    /// Three hosts or more took the destination up within a day: a roll-out, or an intruder who spreads.
    Cluster {
        /// How many hosts.
        hosts: u64,
    },
    /// Nothing is promised about this yet.
    Locked {
        /// Host-weeks that are still needed; `null` without a certificate.
        missing_host_weeks: Option<f64>,
    },
    /// Falser than promised of late: cutting was taken back until learning is done anew.
    Revoked,
    /// The automatic cuts of this week are spent.
    Spent {
        /// How many a week may have.
        of: u32,
    },
    /// The review list has items that nobody has decided.
    Undecided {
        /// How many.
        items: u64,
    },
    /// New software was announced.
    Window {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Reduced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster { hosts } => write!(f, "{hosts} hosts took it up within a day"),
            Self::Locked { missing_host_weeks: Some(weeks) } => {
                write!(f, "locked: {:.0} more host-weeks needed", weeks.ceil())
            }
            Self::Locked { missing_host_weeks: None } => f.write_str("locked: no certificate"),
            Self::Revoked => f.write_str("the certificate was taken back: learn anew"),
            Self::Spent { of } => write!(f, "the {of} automatic cuts of this week are spent"),
            Self::Undecided { items } => {
                write!(f, "locked: {items} items of the review list are undecided")
            }
            Self::Window { name } => write!(f, "announced by change window \"{name}\""),
        }
    }
}

/// What a score may do now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ruling {
    /// Who and to whom.
    pub key: EpisodeKey,
    /// The score, with what it was made from.
    pub score: EpisodeScore,
    /// The tier that the score reaches.
    pub reached: Tier,
    /// The tier that is acted on: the same, or a milder one.
    pub tier: Tier,
    /// The threshold of the tier that was reached: the score is above it.
    pub threshold: f64,
    /// With this threshold it would not have been reached.
    pub counter_threshold: f64,
    /// False actions per host-week that the threshold may cost; 0 for an alert, which promises nothing.
    pub budget: f64,
    /// Why it is milder.
    pub reduced: Option<Reduced>,
}

impl Ruling {
    /// The evidence that carries it in a finding.
    #[must_use]
    pub fn to_evidence(&self) -> Evidence {
        // A ruling is plain data: it is always a map.
        let facts = match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(facts)) => facts.into_iter().collect(),
            _ => std::collections::BTreeMap::new(),
        };
        Evidence { kind: RULING_EVIDENCE.to_owned(), facts }
    }

    /// The ruling in a piece of evidence; `None` when that carries none.
    ///
    /// # Errors
    /// What is wrong with one that says it carries a ruling.
    pub fn from_evidence(evidence: &Evidence) -> Option<Result<Self, String>> {
        if evidence.kind != RULING_EVIDENCE {
            return None;
        }
        let facts = evidence.facts.clone().into_iter().collect();
        let read = serde_json::from_value(serde_json::Value::Object(facts));
        Some(read.map_err(|error| error.to_string()))
    }

    /// The channel that spoke.
    #[must_use]
    pub const fn channel(&self) -> Channel {
        self.score.channel
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::episode::{ScoreInputs, input};
    use crate::time::Timestamp;

    fn ruling() -> Ruling {
        Ruling {
            key: EpisodeKey {
                workload: "unit:web.service".parse().unwrap(),
                destination: "example.com".parse().unwrap(),
                service: "tcp/443".parse().unwrap(),
            },
            score: EpisodeScore {
                channel: Channel::Allowance,
                score: 21e6,
                at: Timestamp::EPOCH,
                inputs: ScoreInputs(vec![(input::UP, 22e6), (input::DOWN, 1e6)]),
            },
            reached: Tier::CutDestination,
            tier: Tier::Hold,
            threshold: 20e6,
            counter_threshold: 21e6,
            budget: 0.04,
            reduced: Some(Reduced::Spent { of: 1 }),
        }
    }

    #[test]
    fn a_ruling_travels_in_the_evidence_of_a_finding() {
        let evidence = ruling().to_evidence();
        let text = serde_json::to_string(&evidence).unwrap();
        let read: Evidence = serde_json::from_str(&text).unwrap();
        assert_eq!(Ruling::from_evidence(&read), Some(Ok(ruling())), "{text}");
    }

    #[test]
    fn other_evidence_carries_no_ruling_and_a_damaged_one_says_so() {
        assert_eq!(Ruling::from_evidence(&Evidence::new("volume", [])), None);
        let mut damaged = ruling().to_evidence();
        damaged.facts.remove("threshold");
        assert!(
            matches!(Ruling::from_evidence(&damaged), Some(Err(why)) if why.contains("threshold"))
        );
    }

    #[test]
    fn what_is_locked_says_how_much_is_missing() {
        let locked = Reduced::Locked { missing_host_weeks: Some(211.3) };
        assert_eq!(locked.to_string(), "locked: 212 more host-weeks needed");
    }
}
