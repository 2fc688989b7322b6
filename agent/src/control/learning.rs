//! What learning has come to, and what it may do, as `status` tells it.

use sekisho_schema::Timestamp;
use sekisho_schema::episode::{Channel, Tier};
use serde::{Deserialize, Serialize};

/// What learning has come to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LearningStatus {
    /// The record of this host, and how it is kept.
    pub record: RecordStatus,
    /// The documents that people signed.
    pub documents: DocumentsStatus,
    /// What scores may do, and what they may not yet.
    pub authority: AuthorityStatus,
}

/// The record of this host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordStatus {
    /// The role that it is learned for.
    pub role: String,
    /// Weeks of this host that were watched.
    pub host_weeks: f64,
    /// Hours of the week that were watched at least once, of 168.
    pub week_hours: u64,
    /// What is not covered yet, in one sentence.
    pub covered: String,
    /// Episodes that are watched.
    pub episodes: u64,
    /// Episodes that are over and in the record.
    pub finished: u64,
    /// Episodes that were over and found no place.
    pub lost: u64,
    /// When all of it was last written down.
    pub kept_at: Option<Timestamp>,
    /// Why it can't be written down now.
    pub failure: Option<String>,
    /// Why it began anew at this start, if it did.
    pub began_anew: Option<String>,
}

/// The documents that people signed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DocumentsStatus {
    /// Version of the baseline in force; `null` for none.
    pub baseline: Option<u64>,
    /// Destinations that it names.
    pub destinations: u64,
    /// Version of the certificate in force; `null` for none.
    pub certificate: Option<u64>,
    /// Until when the certificate counts.
    pub expires: Option<Timestamp>,
    /// The document that was refused last, and why; `null` once a later one was taken.
    pub refused: Option<String>,
    /// How many were refused since the start.
    pub refusals: u64,
}

/// What scores may do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthorityStatus {
    /// What is unlocked.
    pub granted: Vec<Granted>,
    /// What is not.
    pub locked: Vec<Locked>,
    /// Channels for which the policy's decision table asks for more than a record.
    pub asked: Vec<Channel>,
    /// Automatic cuts that a week may have.
    pub cuts_of_a_week: u32,
    /// How many of them are left now.
    pub cuts_left: u32,
    /// Cuts that became holds because none was left.
    pub cuts_refused: u64,
    /// Cuts that a dry run would have made within seven days.
    pub cuts_rehearsed: u32,
    /// Cuts that in a dry run would have become holds, because none would have been left.
    pub cuts_rehearsed_refused: u64,
    /// When cutting was taken back because it was falser than promised.
    pub revoked_at: Option<Timestamp>,
    /// Change windows that are open now.
    pub windows: Vec<Window>,
}

/// A channel that may act.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Granted {
    /// How hard.
    pub tier: Tier,
    /// By which channel.
    pub channel: Channel,
    /// Above which score.
    pub threshold: f64,
}

/// A channel that may not act yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Locked {
    /// How hard it would be.
    pub tier: Tier,
    /// Which channel.
    pub channel: Channel,
    /// Why not.
    pub why: String,
    /// Host-weeks that are missing: by the certificate, or with the default budgets from what this host
    /// alone has learned; `null` when time does not help.
    pub missing_host_weeks: Option<f64>,
}

/// New software that was announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// What it is for.
    pub name: String,
    /// When it shuts.
    pub until: Timestamp,
}
