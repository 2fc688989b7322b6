//! What hosts learned, pooled by role, and the baseline that people signed.

use crate::episode::{
    Channel, DestinationKey, EpisodeKey, EpisodeScore, Oddity, Service, Tier, Workload,
};
use crate::policy::{read_toml, write_toml};
use crate::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

mod part;

pub use part::{LearnedPart, LearnedWhole, PART_EPISODES, PART_GONE, PartTaken};

/// Name and version of the schema of what one host learned.
pub const LEARNED_SCHEMA: &str = "sekisho.learned/1";
/// Name and version of the schema of a role's baseline.
pub const ROLE_BASELINE_SCHEMA: &str = "sekisho.role-baseline/1";
/// Kind of the envelope of a sealed baseline.
pub const BASELINE_KIND: &str = "baseline";
/// Hours of a week.
pub const WEEK_HOURS: u64 = 168;

/// What one host saw while it learned: every episode outside its baseline, and how much of the week that was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Learned {
    /// [`LEARNED_SCHEMA`].
    pub schema: String,
    /// The host, as in events.
    pub host: String,
    /// The role it is learned for: hosts of one role are pooled.
    pub role: String,
    /// Version of the agent.
    pub agent: String,
    /// When learning began.
    pub from: Timestamp,
    /// The last moment that is in it.
    pub until: Timestamp,
    /// Hours of the clock in which the host's traffic was watched.
    pub hours: u64,
    /// Hours of the week (0 is Monday 00:00 UTC) and in how many weeks each was watched; 168 of them.
    pub hours_of_week: Vec<u32>,
    /// Workloads that spoke, sorted.
    pub workloads: Vec<SeenWorkload>,
    /// Episodes, sorted by key and time.
    pub episodes: Vec<Episode>,
}

/// A workload that spoke while learning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenWorkload {
    /// Which.
    pub workload: Workload,
    /// When it was first seen to speak.
    pub first_at: Timestamp,
    /// When it was last seen to speak.
    pub last_at: Timestamp,
    /// On how many days.
    pub days: u32,
}

/// A workload and a destination, seven days of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Episode {
    /// Who and to whom.
    pub key: EpisodeKey,
    /// First contact.
    pub first_at: Timestamp,
    /// Last contact so far.
    pub last_at: Timestamp,
    /// Bursts of client payload.
    pub contacts: u64,
    /// Distinct days with contact.
    pub days: u32,
    /// Distinct hours of the clock with contact.
    pub hours: u32,
    /// Payload bytes toward the destination.
    pub up: u64,
    /// Payload bytes from it.
    pub down: u64,
    /// The largest excess of what went up over what came down, in bytes.
    pub net: u64,
    /// log10 of the odds of the rhythm against unplanned traffic, at its highest.
    pub rhythm: f64,
    /// When the rhythm was proven.
    #[serde(default)]
    pub proven_at: Option<Timestamp>,
    /// The last gaps between contacts in seconds, oldest first, at most 16; only of a rhythm that was proven.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<f32>,
    /// What is odd about it, sorted.
    #[serde(default)]
    pub oddities: Vec<Oddity>,
    /// Other workloads of the host that speak to the destination.
    #[serde(default)]
    pub users: u64,
    /// The highest score of each channel.
    pub scores: Vec<EpisodeScore>,
    /// Thresholds that it went over, in the order in which that happened.
    #[serde(default)]
    pub crossings: Vec<Crossing>,
}

impl Episode {
    /// What a channel said at its highest.
    #[must_use]
    pub fn score(&self, channel: Channel) -> Option<&EpisodeScore> {
        self.scores.iter().find(|score| score.channel == channel)
    }
}

/// A threshold that an episode went over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crossing {
    /// What it unlocked.
    pub tier: Tier,
    /// In which channel.
    pub channel: Channel,
    /// When.
    pub at: Timestamp,
    /// The score at that moment.
    pub score: f64,
    /// The threshold at that moment.
    pub threshold: f64,
    /// Payload bytes that had gone up until then.
    pub up: u64,
}

/// Records of one role, put together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pool {
    /// The role.
    pub role: String,
    /// Hosts, sorted.
    pub hosts: BTreeSet<String>,
    /// Hours of the clock, summed over hosts.
    pub hours: u64,
    /// The earliest beginning.
    pub from: Timestamp,
    /// The latest end.
    pub until: Timestamp,
    /// Episodes with their host, in the order of hosts, keys and times.
    pub episodes: Vec<(String, Episode)>,
    /// Records left out: another of the same host covers the same time and more.
    pub left_out: u64,
}

/// Why records can't be pooled.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// None of them is of the role.
    #[error("no record is of role \"{0}\"")]
    Empty(String),
    /// A record is of another schema, or makes no sense.
    #[error("the record of host {host} can't be used: {why}")]
    Senseless {
        /// Whose.
        host: String,
        /// What is wrong.
        why: String,
    },
}

impl Pool {
    /// Puts the records of a role together; the order in which they come makes no difference.
    ///
    /// A host counts each hour once: of two records of a host that overlap, the longer one counts.
    ///
    /// # Errors
    /// When no record is of the role, or one makes no sense.
    pub fn of(role: &str, records: &[Learned]) -> Result<Self, PoolError> {
        let mut of_role: Vec<&Learned> = Vec::new();
        for record in records.iter().filter(|record| record.role == role) {
            record.check()?;
            of_role.push(record);
        }
        // The longest first, so that what it overlaps is left out; equal ones by time.
        of_role.sort_by_key(|record| {
            (&record.host, u64::MAX - record.hours, record.from, record.until)
        });
        let mut pool = Self { role: role.to_owned(), from: Timestamp::MAX, ..Self::default() };
        let mut taken: Vec<&Learned> = Vec::new();
        for record in of_role {
            let overlaps = taken.iter().any(|other| {
                other.host == record.host && other.from < record.until && record.from < other.until
            });
            if overlaps {
                pool.left_out += 1;
                continue;
            }
            taken.push(record);
            pool.hosts.insert(record.host.clone());
            pool.hours = pool.hours.saturating_add(record.hours);
            pool.from = pool.from.min(record.from);
            pool.until = pool.until.max(record.until);
            pool.episodes.extend(
                record.episodes.iter().map(|episode| (record.host.clone(), episode.clone())),
            );
        }
        if pool.hosts.is_empty() {
            return Err(PoolError::Empty(role.to_owned()));
        }
        pool.episodes.sort_by(|(a, x), (b, y)| {
            (a, &x.key, x.first_at, x.last_at).cmp(&(b, &y.key, y.first_at, y.last_at))
        });
        Ok(pool)
    }

    /// Weeks of one host that were watched, summed over hosts.
    #[must_use]
    pub fn host_weeks(&self) -> f64 {
        self.hours as f64 / WEEK_HOURS as f64
    }
}

impl Learned {
    /// Whether it makes sense, so that it may be pooled.
    ///
    /// # Errors
    /// [`PoolError::Senseless`].
    pub fn check(&self) -> Result<(), PoolError> {
        let refuse = |why: String| PoolError::Senseless { host: self.host.clone(), why };
        if self.schema != LEARNED_SCHEMA {
            return Err(refuse(format!(
                "schema is \"{}\", expected \"{LEARNED_SCHEMA}\"",
                self.schema
            )));
        }
        if self.hours_of_week.len() as u64 != WEEK_HOURS {
            return Err(refuse(format!("it has {} hours of the week", self.hours_of_week.len())));
        }
        // More hours than the clock has would shorten the way to a promise.
        let seconds = self.until.since(self.from).nanos().max(0) / 1_000_000_000;
        let at_most = u64::try_from(seconds).unwrap_or(0).div_ceil(3600) + 1;
        if self.hours > at_most {
            return Err(refuse(format!(
                "{} hours were watched in {at_most} hours of the clock",
                self.hours
            )));
        }
        let scores = self.episodes.iter().flat_map(|episode| &episode.scores);
        if scores.into_iter().any(|score| !score.score.is_finite()) {
            return Err(refuse("a score is not a finite number".to_owned()));
        }
        Ok(())
    }
}

/// What is normal for the hosts of a role, as people signed it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RoleBaseline {
    /// [`ROLE_BASELINE_SCHEMA`].
    pub schema: String,
    /// Rises with each change.
    pub version: u64,
    /// The role.
    pub role: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// What is normal, sorted by key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entry: Vec<Entry>,
    /// What people said is not, and shall stay held; sorted by key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedEntry>,
    /// New software that was announced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub window: Vec<ChangeWindow>,
}

/// A destination that is normal for a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Entry {
    /// Who speaks.
    pub workload: Workload,
    /// To whom.
    pub destination: DestinationKey,
    /// Which service.
    pub service: Service,
    /// When any host first spoke to it.
    pub first_seen: Timestamp,
    /// When any host last spoke to it.
    pub last_seen: Timestamp,
    /// How many hosts speak to it.
    pub hosts: u64,
    /// The largest upload of a host in one episode, in bytes: the envelope that learning starts from.
    pub upload: u64,
    /// Who signed it; left out where nothing about it needed a signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    /// When it was signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_at: Option<Timestamp>,
    /// Why, in the signer's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Entry {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> EpisodeKey {
        EpisodeKey {
            workload: self.workload.clone(),
            destination: self.destination.clone(),
            service: self.service,
        }
    }
}

/// A destination that somebody looked at and did not approve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RefusedEntry {
    /// Who speaks.
    pub workload: Workload,
    /// To whom.
    pub destination: DestinationKey,
    /// Which service.
    pub service: Service,
    /// Who said so.
    pub signed_by: String,
    /// When.
    pub signed_at: Timestamp,
    /// Why, in their words.
    pub reason: String,
}

impl RefusedEntry {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> EpisodeKey {
        EpisodeKey {
            workload: self.workload.clone(),
            destination: self.destination.clone(),
            service: self.service,
        }
    }
}

/// New software or a new job, announced before it runs: what it may do until people have looked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ChangeWindow {
    /// What it is for.
    pub name: String,
    /// When it opens.
    pub from: Timestamp,
    /// When it shuts.
    pub until: Timestamp,
    /// The workload, or every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// The destinations; at least one.
    pub destinations: Vec<DestinationKey>,
    /// Payload bytes that may go up to each of them while it is open.
    pub upload: u64,
    /// Who announced it.
    pub by: String,
}

/// The longest that a change window may be open.
pub const LONGEST_WINDOW: Span = Span::from_hours(28 * 24);

impl ChangeWindow {
    /// Whether it is open for a key at a time.
    #[must_use]
    pub fn covers(&self, key: &EpisodeKey, at: Timestamp) -> bool {
        self.from <= at
            && at < self.until
            && self.workload.as_ref().is_none_or(|workload| *workload == key.workload)
            && self.destinations.contains(&key.destination)
    }
}

/// Why a text is not a baseline or a certificate.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseBaselineError {
    /// Not TOML of this shape.
    #[error("{at}: {message}")]
    Malformed {
        /// `line:column` of the fault.
        at: String,
        /// What is wrong there.
        message: String,
    },
    /// Well-formed and without sense.
    #[error("{0}")]
    Senseless(String),
}

impl RoleBaseline {
    /// A baseline in which nothing is normal yet.
    #[must_use]
    pub fn empty(role: &str, at: Timestamp) -> Self {
        Self {
            schema: ROLE_BASELINE_SCHEMA.to_owned(),
            version: 0,
            role: role.to_owned(),
            made_at: at,
            entry: Vec::new(),
            refused: Vec::new(),
            window: Vec::new(),
        }
    }

    /// Reads a baseline from TOML.
    ///
    /// # Errors
    /// Line, column and cause of the first fault, or what makes no sense.
    pub fn parse(text: &str) -> Result<Self, ParseBaselineError> {
        let read: Self = read_toml(text)
            .map_err(|(at, message)| ParseBaselineError::Malformed { at, message })?;
        let refuse = |why: String| Err(ParseBaselineError::Senseless(why));
        if read.schema != ROLE_BASELINE_SCHEMA {
            return refuse(format!(
                "schema is \"{}\", expected \"{ROLE_BASELINE_SCHEMA}\"",
                read.schema
            ));
        }
        for window in &read.window {
            if window.destinations.is_empty() {
                return refuse(format!("change window \"{}\" names no destination", window.name));
            }
            let open = window.until.since(window.from);
            if open <= Span::ZERO || open > LONGEST_WINDOW {
                return refuse(format!(
                    "change window \"{}\" is open for {open}: at most {LONGEST_WINDOW}",
                    window.name
                ));
            }
            if window.by.trim().is_empty() {
                return refuse(format!("nobody announced change window \"{}\"", window.name));
            }
        }
        let half = |entry: &Entry| {
            let signed = entry.signed_by.as_ref().is_some_and(|by| !by.trim().is_empty());
            signed != entry.signed_at.is_some() || signed != entry.reason.is_some()
        };
        if let Some(entry) = read.entry.iter().find(|entry| half(entry)) {
            return refuse(format!(
                "{} is signed in part: who, when and why belong together",
                entry.key()
            ));
        }
        let refused: BTreeSet<_> = read.refused.iter().map(RefusedEntry::key).collect();
        if let Some(entry) = read.entry.iter().find(|entry| refused.contains(&entry.key())) {
            return refuse(format!("{} is both approved and refused", entry.key()));
        }
        Ok(read)
    }

    /// The text form: sorted, so that two versions can be compared line by line.
    ///
    /// # Errors
    /// What can't be said in TOML.
    pub fn to_text(&self) -> Result<String, String> {
        let mut sorted = self.clone();
        sorted.entry.sort_by_key(Entry::key);
        sorted.refused.sort_by_key(RefusedEntry::key);
        sorted.window.sort_by(|a, b| (a.from, &a.name).cmp(&(b.from, &b.name)));
        write_toml(&sorted)
    }

    /// Whether a key is normal.
    #[must_use]
    pub fn knows(&self, key: &EpisodeKey) -> bool {
        self.entry.iter().any(|entry| entry.key() == *key)
    }

    /// The change window that is open for a key at a time.
    #[must_use]
    pub fn window_for(&self, key: &EpisodeKey, at: Timestamp) -> Option<&ChangeWindow> {
        self.window.iter().find(|window| window.covers(key, at))
    }

    /// What another version adds, drops and changes, a line each: entries in the order of their keys, then
    /// what was refused, then change windows; empty when nothing.
    #[must_use]
    pub fn difference(&self, newer: &Self) -> Vec<String> {
        let index = |baseline: &Self| -> BTreeMap<EpisodeKey, Entry> {
            baseline.entry.iter().map(|entry| (entry.key(), entry.clone())).collect()
        };
        let (old, new) = (index(self), index(newer));
        // In the order in which the text form has them, so that a reader finds each line there.
        let keys: BTreeSet<&EpisodeKey> = old.keys().chain(new.keys()).collect();
        let line = |key: &EpisodeKey| match (old.get(key), new.get(key)) {
            (None, Some(entry)) => Some(match &entry.signed_by {
                Some(by) => format!("+ {key}, signed by {by}"),
                None => format!("+ {key}"),
            }),
            (Some(before), Some(entry)) if before.upload != entry.upload => {
                Some(format!("~ {key}: upload {} to {} bytes", before.upload, entry.upload))
            }
            (Some(_), None) => Some(format!("- {key}")),
            _ => None,
        };
        let mut lines: Vec<String> = keys.into_iter().filter_map(line).collect();
        let refused: BTreeSet<_> = self.refused.iter().map(RefusedEntry::key).collect();
        lines.extend(
            newer
                .refused
                .iter()
                .filter(|entry| !refused.contains(&entry.key()))
                .map(|entry| format!("! {} refused by {}", entry.key(), entry.signed_by)),
        );
        lines.extend(
            newer.window.iter().filter(|window| !self.window.contains(window)).map(|window| {
                format!("+ change window \"{}\" until {}", window.name, window.until)
            }),
        );
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);

    fn learned(host: &str, from_hour: i64, hours: u64) -> Learned {
        let from = START.after(Span::from_hours(from_hour));
        Learned {
            schema: LEARNED_SCHEMA.into(),
            host: host.into(),
            role: "web".into(),
            agent: "0.1.0".into(),
            from,
            until: from.after(Span::from_hours(i64::try_from(hours).unwrap())),
            hours,
            hours_of_week: vec![1; 168],
            workloads: Vec::new(),
            episodes: Vec::new(),
        }
    }

    fn key(destination: &str) -> EpisodeKey {
        EpisodeKey {
            workload: "unit:web.service".parse().unwrap(),
            destination: destination.parse().unwrap(),
            service: "tcp/443".parse().unwrap(),
        }
    }

    fn entry(destination: &str) -> Entry {
        let key = key(destination);
        Entry {
            workload: key.workload,
            destination: key.destination,
            service: key.service,
            first_seen: START,
            last_seen: START,
            hosts: 1,
            upload: 7,
            signed_by: Some("Aiko".into()),
            signed_at: Some(START),
            reason: Some("backup".into()),
        }
    }

    #[test]
    fn a_pool_counts_each_hour_of_a_host_once_in_whatever_order_records_come() {
        let mut records = [
            learned("a", 0, 168),
            learned("a", 100, 100),
            learned("a", 168, 168),
            learned("b", 0, 84),
        ];
        let pool = Pool::of("web", &records).unwrap();
        assert_eq!((pool.hosts.len(), pool.hours, pool.left_out), (2, 420, 1));
        assert!((pool.host_weeks() - 2.5).abs() < 1e-12);
        records.reverse();
        assert_eq!(Pool::of("web", &records).unwrap(), pool);
        assert_eq!(Pool::of("db", &records), Err(PoolError::Empty("db".into())));
    }

    #[test]
    fn a_record_that_claims_more_hours_than_passed_is_refused() {
        let mut record = learned("a", 0, 10);
        record.hours = 1000;
        assert!(matches!(Pool::of("web", &[record]), Err(PoolError::Senseless { .. })));
    }

    #[test]
    fn a_baseline_reads_back_what_it_writes_and_tells_what_changed() {
        let mut old = RoleBaseline::empty("web", START);
        old.entry.push(entry("example.com"));
        old.entry.push(entry("old.example"));
        let text = old.to_text().unwrap();
        assert_eq!(RoleBaseline::parse(&text).unwrap(), old, "{text}");
        let mut new = old.clone();
        new.entry.remove(1);
        new.entry.push(entry("203.0.113.0/24"));
        new.entry[0].upload = 9;
        assert_eq!(
            old.difference(&new),
            [
                "~ unit:web.service to example.com (tcp/443): upload 7 to 9 bytes",
                "- unit:web.service to old.example (tcp/443)",
                "+ unit:web.service to 203.0.113.0/24 (tcp/443), signed by Aiko",
            ]
        );
        assert!(new.knows(&key("203.0.113.0/24")) && !new.knows(&key("old.example")));
    }

    #[test]
    fn a_baseline_that_contradicts_itself_or_is_signed_in_part_is_refused() {
        let mut baseline = RoleBaseline::empty("web", START);
        baseline.entry.push(Entry { reason: None, ..entry("example.com") });
        assert!(RoleBaseline::parse(&baseline.to_text().unwrap()).is_err());
        baseline.entry = vec![entry("example.com")];
        let key = key("example.com");
        baseline.refused.push(RefusedEntry {
            workload: key.workload,
            destination: key.destination,
            service: key.service,
            signed_by: "Ben".into(),
            signed_at: START,
            reason: "unknown".into(),
        });
        assert!(RoleBaseline::parse(&baseline.to_text().unwrap()).is_err());
    }

    #[test]
    fn a_change_window_covers_its_destinations_while_it_is_open_and_no_longer_than_four_weeks() {
        let mut baseline = RoleBaseline::empty("web", START);
        baseline.window.push(ChangeWindow {
            name: "new backup".into(),
            from: START,
            until: START.after(Span::from_hours(48)),
            workload: None,
            destinations: vec!["backup.example".parse().unwrap()],
            upload: 5_000_000_000,
            by: "Aiko".into(),
        });
        let text = baseline.to_text().unwrap();
        let baseline = RoleBaseline::parse(&text).unwrap();
        let open = |hours, name: &str| {
            baseline.window_for(&key(name), START.after(Span::from_hours(hours))).is_some()
        };
        assert!(open(0, "backup.example") && open(47, "backup.example"));
        assert!(!open(48, "backup.example") && !open(1, "other.example"));
        let mut long = baseline.clone();
        long.window[0].until = START.after(Span::from_hours(29 * 24));
        assert!(RoleBaseline::parse(&long.to_text().unwrap()).is_err());
    }
}
