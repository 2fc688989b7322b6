//! What a host learned on its way to the collector: in parts, each of which may come again.

use super::{Episode, LEARNED_SCHEMA, Learned, SeenWorkload};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Episodes of one part, at most.
pub const PART_EPISODES: usize = 256;
/// Names of episodes that are gone, of one part, at most.
pub const PART_GONE: usize = 4096;

/// A part of what a host learned. Parts say what changed since those that were acknowledged; the last one says
/// what the record is as a whole, and only then do its hours count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnedPart {
    /// [`LEARNED_SCHEMA`].
    pub schema: String,
    /// The role.
    pub role: String,
    /// When learning began: names the record.
    pub from: Timestamp,
    /// Whether what the collector holds of the record is to be forgotten first.
    #[serde(default)]
    pub begins: bool,
    /// Episodes that are new or changed, at most [`PART_EPISODES`].
    #[serde(default)]
    pub episodes: Vec<Episode>,
    /// Names of episodes that the record has no more, at most [`PART_GONE`].
    #[serde(default)]
    pub gone: Vec<String>,
    /// The record as a whole; only in the last part.
    #[serde(default)]
    pub whole: Option<LearnedWhole>,
}

/// What a host learned, without its episodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnedWhole {
    /// Version of the agent.
    pub agent: String,
    /// The last moment that is in it.
    pub until: Timestamp,
    /// Hours of the clock in which the host's traffic was watched.
    pub hours: u64,
    /// Hours of the week and in how many weeks each was watched.
    pub hours_of_week: Vec<u32>,
    /// Workloads that spoke.
    pub workloads: Vec<SeenWorkload>,
    /// How many episodes it has.
    pub episodes: u64,
}

/// What the collector answers to a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartTaken {
    /// Episodes of the record that the collector holds now.
    pub episodes: u64,
    /// Whether it holds others than the record has, so that everything is to be sent again.
    pub again: bool,
}

impl Episode {
    /// Its name within what one host learned: 16 hexadecimal digits of the SHA-256 of its key and first contact.
    #[must_use]
    pub fn name(&self) -> String {
        let text = format!("{}\n{}", self.key, self.first_at);
        let digest = Sha256::digest(text.as_bytes());
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Learned {
    /// The last part: the record as a whole.
    #[must_use]
    pub fn whole(&self) -> LearnedWhole {
        LearnedWhole {
            agent: self.agent.clone(),
            until: self.until,
            hours: self.hours,
            hours_of_week: self.hours_of_week.clone(),
            workloads: self.workloads.clone(),
            episodes: self.episodes.len() as u64,
        }
    }

    /// A part of it without anything in it yet.
    #[must_use]
    pub fn part(&self) -> LearnedPart {
        LearnedPart {
            schema: LEARNED_SCHEMA.to_owned(),
            role: self.role.clone(),
            from: self.from,
            begins: false,
            episodes: Vec::new(),
            gone: Vec::new(),
            whole: None,
        }
    }
}
