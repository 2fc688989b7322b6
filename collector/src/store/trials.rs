//! Cuts of hosts across the fleet: which trials are confirmed, and how many a group has had within the hour.

use super::{Store, StoreError, nanos};
use rusqlite::{Connection, params};
use sekisho_schema::{ContainmentId, Span, Timestamp};
use std::collections::BTreeMap;

/// The time in which cuts of a group are counted.
const HOUR: Span = Span::from_hours(1);
/// From this level on a cut is one of a whole host.
const HOST: i64 = 5;

/// Hosts of a group that were cut automatically within the hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct GroupSpent {
    /// How many.
    pub count: u32,
    /// When the first of them was heard of.
    pub since: Timestamp,
}

impl Store {
    /// The trials of an agent whose receipt is on the disk, with the cut proven and the exemptions ok: each time they
    /// are asked for, until the agent says itself that they are on trial no more. The first time is kept.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn confirmable(
        &self,
        agent: &str,
        now: Timestamp,
    ) -> Result<Vec<ContainmentId>, StoreError> {
        let ids = self.reading("look for trials to confirm", |connection| {
            confirmable(connection, agent, now)
        })?;
        if ids.iter().any(|(_, is_new)| *is_new) {
            self.on_disk("keep a confirmation", |transaction| {
                for (id, _) in ids.iter().filter(|(_, is_new)| *is_new) {
                    transaction
                        .prepare_cached("UPDATE containments SET confirmed_at = ?3 WHERE agent = ?1 AND id = ?2 AND confirmed_at IS NULL")?
                        .execute(params![agent, id, nanos(now)])?;
                }
                Ok(())
            })?;
        }
        Ok(ids.into_iter().map(|(id, _)| ContainmentId(id)).collect())
    }

    /// What each group has spent: hosts of which an automatic cut of level 5 or above was heard of within the hour.
    ///
    /// Hosts are counted, not cuts: one host whose agent lies cannot spend the group's share alone. Times are the
    /// collector's.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn spent(&self, now: Timestamp) -> Result<BTreeMap<String, GroupSpent>, StoreError> {
        self.reading("count the cuts of the groups", |connection| {
            connection
                .prepare_cached(
                    "SELECT h.grp, count(DISTINCT c.agent), min(c.first_at) FROM containments c JOIN hosts h ON h.agent = c.agent
                     WHERE c.first_at > ?1 AND c.first_at <= ?2 AND c.json IS NOT NULL AND json_extract(c.json, '$.level') >= ?3 AND json_extract(c.json, '$.by') IS NULL
                     GROUP BY h.grp",
                )?
                .query_map(params![nanos(now.before(HOUR)), nanos(now), HOST], |row| {
                    Ok((row.get(0)?, GroupSpent { count: row.get(1)?, since: Timestamp::from_nanos(row.get(2)?) }))
                })?
                .collect()
        })
    }

    /// The group of an agent.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn group_of(&self, agent: &str) -> Result<Option<String>, StoreError> {
        use rusqlite::OptionalExtension as _;
        self.reading("look up a group", |connection| {
            connection
                .query_row("SELECT grp FROM hosts WHERE agent = ?1", [agent], |row| row.get(0))
                .optional()
        })
    }
}

fn confirmable(
    connection: &Connection,
    agent: &str,
    now: Timestamp,
) -> rusqlite::Result<Vec<(String, bool)>> {
    connection
        .prepare_cached(
            "SELECT c.id, c.confirmed_at IS NULL FROM containments c JOIN receipts r ON r.agent = c.agent AND r.containment = c.id
               AND r.generation = (SELECT max(generation) FROM receipts WHERE agent = c.agent AND containment = c.id)
             WHERE c.agent = ?1 AND c.json IS NOT NULL AND json_extract(c.json, '$.trial_until') IS NOT NULL AND c.released_at IS NULL AND c.absent_at IS NULL AND c.until > ?2
               AND r.applied AND r.cut = 'proven' AND r.exemptions = 'ok' LIMIT 256",
        )?
        .query_map(params![agent, nanos(now)], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}
