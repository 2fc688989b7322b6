//! What hosts learned: taken in part by part, given out as records that can be pooled.

use super::{Store, StoreError, nanos, natural, whole};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use sekisho_schema::baseline::{
    LEARNED_SCHEMA, Learned, LearnedPart, LearnedWhole, PART_EPISODES, PART_GONE, PartTaken,
};
use sekisho_schema::{Span, Timestamp};
use serde::Serialize;
use std::collections::BTreeMap;

/// Records of one host that are held at once; of more, the one that began first goes.
const RECORDS: i64 = 16;
/// Episodes of one host that are held at once.
const EPISODES: i64 = 524_288;
/// Workloads of one record, at most (as an agent keeps them).
const WORKLOADS: usize = 4096;
/// A host may have learned alone for so long before it was enrolled; hours from before are not believed, or one host
/// that lies would lend the whole role weeks that nobody watched.
const BEFORE_ENROLMENT: Span = Span::from_hours(24 * 56);
/// How far a host's clock may run ahead.
const AHEAD: Span = Span::from_hours(1);

/// What is known of a role.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RoleView {
    /// The role.
    pub role: String,
    /// Hosts of it that may come in.
    pub hosts: u64,
    /// Hosts of it that sent what they learned.
    pub learned: u64,
    /// Hours of the clock that they watched, together.
    pub hours: u64,
    /// Episodes that they sent.
    pub episodes: u64,
    /// When the last of it came.
    pub received_at: Option<Timestamp>,
    /// Version of the baseline in force.
    pub baseline: Option<u64>,
    /// Version of the certificate in force.
    pub certificate: Option<u64>,
}

/// What became of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartOutcome {
    /// The host sent more episodes than are held of one.
    Full,
    /// It can't be what the host learned.
    Senseless(String),
    /// It was never enrolled here.
    Stranger,
    /// Taken.
    Taken(PartTaken),
}

impl Store {
    /// Takes in a part of what an agent learned; the same part again changes nothing.
    ///
    /// # Errors
    /// When SQLite refuses; nothing of the part is kept then.
    pub fn take_learned(
        &self,
        agent: &str,
        part: &LearnedPart,
        now: Timestamp,
    ) -> Result<PartOutcome, StoreError> {
        self.on_disk("keep what a host learned", |transaction| {
            let enrolled: Option<i64> = transaction
                .prepare_cached("SELECT enrolled_at FROM hosts WHERE agent = ?1")?
                .query_row([agent], |row| row.get(0))
                .optional()?;
            let Some(enrolled) = enrolled.map(Timestamp::from_nanos) else {
                return Ok(PartOutcome::Stranger);
            };
            if let Err(why) = check(part, enrolled, now) {
                return Ok(PartOutcome::Senseless(why));
            }
            let from = nanos(part.from);
            open_record(transaction, agent, part, now)?;
            let before = count(transaction, agent, from)?;
            let of_all: i64 = transaction
                .prepare_cached("SELECT count(*) FROM episodes WHERE agent = ?1")?
                .query_row([agent], |row| row.get(0))?;
            if of_all + whole(part.episodes.len() as u64) > EPISODES {
                return Ok(PartOutcome::Full);
            }
            for name in &part.gone {
                transaction
                    .prepare_cached(
                        "DELETE FROM episodes WHERE agent = ?1 AND from_at = ?2 AND name = ?3",
                    )?
                    .execute(params![agent, from, name])?;
            }
            for episode in &part.episodes {
                let json = serde_json::to_string(episode).unwrap_or_default();
                transaction
                    .prepare_cached("INSERT INTO episodes (agent, from_at, name, json) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (agent, from_at, name) DO UPDATE SET json = excluded.json WHERE json <> excluded.json")?
                    .execute(params![agent, from, episode.name(), json])?;
            }
            let changed = !part.episodes.is_empty() || !part.gone.is_empty();
            let held = if changed { count(transaction, agent, from)? } else { before };
            let again = part.whole.as_ref().is_some_and(|of| of.episodes != natural(held));
            if let Some(of) = part.whole.as_ref().filter(|_| !again) {
                close_record(transaction, agent, part, of, now)?;
            }
            Ok(PartOutcome::Taken(PartTaken { episodes: natural(held), again }))
        })
    }

    /// What the hosts of a role learned, by host and beginning: records that are here as a whole, of agents that may
    /// come in. The host is the one that the agent enrolled for, whatever it says.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn learned(&self, role: &str) -> Result<Vec<Learned>, StoreError> {
        let (records, episodes) = self.reading("read what hosts learned", |connection| {
            let records: Vec<(String, i64, Learned)> = connection
                .prepare_cached(
                    "SELECT l.agent, l.from_at, h.host, l.role, l.version, l.until, l.hours, l.week, l.workloads FROM learned l JOIN hosts h ON h.agent = l.agent
                     WHERE l.role = ?1 AND l.until IS NOT NULL AND NOT EXISTS (SELECT 1 FROM denied d WHERE d.agent = l.agent) ORDER BY h.host, l.agent, l.from_at",
                )?
                .query_map([role], record)?
                .collect::<rusqlite::Result<_>>()?;
            let mut statement =
                connection.prepare_cached("SELECT json FROM episodes WHERE agent = ?1 AND from_at = ?2 ORDER BY name")?;
            let episodes: Vec<Vec<String>> = records
                .iter()
                .map(|(agent, from, _)| statement.query_map(params![agent, from], |row| row.get(0))?.collect())
                .collect::<rusqlite::Result<_>>()?;
            Ok((records, episodes))
        })?;
        // Read outside the lock: that takes a while where there are many.
        let records = records.into_iter().zip(episodes).filter_map(|((.., mut record), lines)| {
            // A record counts with all its episodes or not at all: hours alone would promise too much.
            let read: Result<_, _> = lines.iter().map(|line| serde_json::from_str(line)).collect();
            record.episodes = read.ok()?;
            record.episodes.sort_by(|a, b| (&a.key, a.first_at).cmp(&(&b.key, b.first_at)));
            Some(record)
        });
        Ok(records.collect())
    }

    /// The roles that hosts have or documents were pushed for, by name.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn roles(&self) -> Result<Vec<RoleView>, StoreError> {
        self.reading("list the roles", |connection| {
            let mut roles: BTreeMap<String, RoleView> = BTreeMap::new();
            let mut of = |role: String, change: &dyn Fn(&mut RoleView)| {
                let view = roles.entry(role.clone()).or_insert_with(|| RoleView {
                    role,
                    hosts: 0,
                    learned: 0,
                    hours: 0,
                    episodes: 0,
                    received_at: None,
                    baseline: None,
                    certificate: None,
                });
                change(view);
            };
            for row in rows::<(String, i64)>(connection, "SELECT role, count(*) FROM roles GROUP BY role", |row| {
                Ok((row.get(0)?, row.get(1)?))
            })? {
                of(row.0, &|view| view.hosts = natural(row.1));
            }
            let learned = "SELECT l.role, count(DISTINCT l.agent), sum(l.hours), max(l.received_at), (SELECT count(*) FROM episodes e JOIN learned k ON k.agent = e.agent AND k.from_at = e.from_at WHERE k.role = l.role AND k.until IS NOT NULL)
                 FROM learned l JOIN roles r ON r.agent = l.agent WHERE l.until IS NOT NULL GROUP BY l.role";
            for (role, hosts, hours, at, episodes) in
                rows::<(String, i64, i64, i64, i64)>(connection, learned, |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
                })?
            {
                of(role, &|view| {
                    (view.learned, view.hours, view.episodes) =
                        (natural(hosts), natural(hours), natural(episodes));
                    view.received_at = Some(Timestamp::from_nanos(at));
                });
            }
            let versions = "SELECT role, kind, max(version) FROM certified GROUP BY role, kind";
            for (role, kind, version) in rows::<(String, String, i64)>(connection, versions, |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })? {
                of(role, &|view| match kind.as_str() {
                    sekisho_schema::baseline::BASELINE_KIND => view.baseline = Some(natural(version)),
                    _ => view.certificate = Some(natural(version)),
                });
            }
            Ok(roles.into_values().collect())
        })
    }

    /// The role of an agent that may come in.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn role_of(&self, agent: &str) -> Result<Option<String>, StoreError> {
        self.reading("look up a role", |connection| role_of(connection, agent))
    }
}

/// The role of an agent.
pub(super) fn role_of(connection: &Connection, agent: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT role FROM roles WHERE agent = ?1")?
        .query_row([agent], |row| row.get(0))
        .optional()
}

fn rows<T>(
    connection: &Connection,
    query: &str,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare_cached(query)?.query_map([], read)?.collect()
}

/// Whether a part may be what a host learned.
fn check(part: &LearnedPart, enrolled: Timestamp, now: Timestamp) -> Result<(), String> {
    let is_name = |text: &str| {
        (1..=128).contains(&text.len()) && !text.chars().any(|letter| letter.is_control())
    };
    if part.schema != LEARNED_SCHEMA {
        return Err(format!("schema is not \"{LEARNED_SCHEMA}\""));
    }
    if !is_name(&part.role) {
        return Err("the role has no name of 1 to 128 bytes".to_owned());
    }
    if part.episodes.len() > PART_EPISODES || part.gone.len() > PART_GONE {
        return Err(format!("at most {PART_EPISODES} episodes and {PART_GONE} names in one part"));
    }
    if part.from < enrolled.before(BEFORE_ENROLMENT) {
        return Err(format!("it began more than {BEFORE_ENROLMENT} before the host was enrolled"));
    }
    let Some(of) = &part.whole else { return Ok(()) };
    if of.until > now.after(AHEAD) {
        return Err("it ends in the future".to_owned());
    }
    if of.workloads.len() > WORKLOADS {
        return Err(format!("at most {WORKLOADS} workloads"));
    }
    let whole = Learned {
        schema: part.schema.clone(),
        host: String::new(),
        role: part.role.clone(),
        agent: of.agent.clone(),
        from: part.from,
        until: of.until,
        hours: of.hours,
        hours_of_week: of.hours_of_week.clone(),
        workloads: Vec::new(),
        episodes: Vec::new(),
    };
    whole.check().map_err(|error| error.to_string())
}

/// Makes room for a record, and forgets what was held of it where it begins anew.
fn open_record(
    transaction: &Transaction<'_>,
    agent: &str,
    part: &LearnedPart,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let from = nanos(part.from);
    if part.begins {
        forget(transaction, agent, from)?;
    }
    transaction
        .prepare_cached("INSERT INTO learned (agent, from_at, role, received_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (agent, from_at) DO NOTHING")?
        .execute(params![agent, from, part.role, nanos(now)])?;
    // The newest stay, and the one that is being sent.
    let surplus: Vec<i64> = transaction
        .prepare_cached("SELECT from_at FROM learned WHERE agent = ?1 AND from_at <> ?2 ORDER BY from_at DESC LIMIT -1 OFFSET ?3")?
        .query_map(params![agent, from, RECORDS - 1], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    surplus.into_iter().try_for_each(|from| forget(transaction, agent, from))
}

fn close_record(
    transaction: &Transaction<'_>,
    agent: &str,
    part: &LearnedPart,
    of: &LearnedWhole,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let text = |value: serde_json::Result<String>| value.unwrap_or_else(|_| "[]".to_owned());
    transaction
        .prepare_cached("UPDATE learned SET role = ?3, until = ?4, version = ?5, hours = ?6, week = ?7, workloads = ?8, received_at = ?9 WHERE agent = ?1 AND from_at = ?2")?
        .execute(params![
            agent,
            nanos(part.from),
            part.role,
            nanos(of.until),
            of.agent,
            whole(of.hours),
            text(serde_json::to_string(&of.hours_of_week)),
            text(serde_json::to_string(&of.workloads)),
            nanos(now),
        ])
        .map(drop)
}

fn forget(transaction: &Transaction<'_>, agent: &str, from: i64) -> rusqlite::Result<()> {
    for statement in [
        "DELETE FROM episodes WHERE agent = ?1 AND from_at = ?2",
        "DELETE FROM learned WHERE agent = ?1 AND from_at = ?2",
    ] {
        transaction.prepare_cached(statement)?.execute(params![agent, from])?;
    }
    Ok(())
}

fn count(transaction: &Transaction<'_>, agent: &str, from: i64) -> rusqlite::Result<i64> {
    transaction
        .prepare_cached("SELECT count(*) FROM episodes WHERE agent = ?1 AND from_at = ?2")?
        .query_row(params![agent, from], |row| row.get(0))
}

fn record(row: &rusqlite::Row<'_>) -> rusqlite::Result<(String, i64, Learned)> {
    let (agent, from): (String, i64) = (row.get(0)?, row.get(1)?);
    let (week, workloads): (String, String) = (row.get(7)?, row.get(8)?);
    let record = Learned {
        schema: LEARNED_SCHEMA.to_owned(),
        host: row.get(2)?,
        role: row.get(3)?,
        agent: row.get(4)?,
        from: Timestamp::from_nanos(from),
        until: Timestamp::from_nanos(row.get(5)?),
        hours: natural(row.get(6)?),
        hours_of_week: serde_json::from_str(&week).unwrap_or_default(),
        workloads: serde_json::from_str(&workloads).unwrap_or_default(),
        episodes: Vec::new(),
    };
    Ok((agent, from, record))
}
