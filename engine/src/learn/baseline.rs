//! The baseline as it rests on disk between runs.

use super::destinations::Remote;
use sekisho_schema::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Name and version of the baseline schema.
pub const BASELINE_SCHEMA: &str = "sekisho.baseline/1";

/// What was learned so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// [`BASELINE_SCHEMA`].
    pub schema: String,
    /// When learning began; `None` while nothing was seen.
    pub started_at: Option<Timestamp>,
    /// Hours of the clock in which traffic was seen.
    pub hours: u64,
    /// The destinations, sorted by host and destination.
    pub destinations: Vec<LearnedDestination>,
}

impl Default for Baseline {
    fn default() -> Self {
        Self {
            schema: BASELINE_SCHEMA.to_owned(),
            started_at: None,
            hours: 0,
            destinations: Vec::new(),
        }
    }
}

/// A destination that belongs to the normal of a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnedDestination {
    /// The inside host that speaks to it; `None` for this host itself.
    pub host: Option<IpAddr>,
    /// Address or registered name.
    pub destination: Remote,
    /// When it was first spoken to.
    pub first_seen: Timestamp,
    /// When it was last spoken to.
    pub last_seen: Timestamp,
    /// Payload bytes toward it since.
    pub bytes_out: u64,
}
