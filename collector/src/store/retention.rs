//! What is removed, and that it is told: events by the day, from the oldest on; what was cut is kept longer.

use super::{Store, StoreError, nanos, natural, whole};
use crate::config::Keeping;
use rusqlite::{Transaction, params};
use sekisho_schema::{Span, Timestamp};
use serde::Serialize;

/// Events that are removed in one transaction: intake never waits for long.
const AT_ONCE: i64 = 5_000;
/// The least that is kept, however full the disk: what an incident needs.
pub const LEAST: Span = Span::from_hours(24 * 7);
/// A day.
const DAY: Span = Span::from_hours(24);

/// What was removed in one go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pruning {
    /// When.
    pub at: Timestamp,
    /// What had come in before this was removed.
    pub before: Timestamp,
    /// `age` or `size`.
    pub why: String,
    /// Events.
    pub events: u64,
    /// Findings.
    pub findings: u64,
    /// Containments, receipts and the like.
    pub other: u64,
}

impl Store {
    /// Bytes of the database that hold something.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn size(&self) -> Result<u64, StoreError> {
        self.reading("measure the database", |connection| {
            let read = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
            let pages = read("PRAGMA page_count")? - read("PRAGMA freelist_count")?;
            Ok(natural(pages) * natural(read("PRAGMA page_size")?))
        })
    }

    /// Removes what is older than is to be kept, or, when the database is too large, its oldest day. `None` when there
    /// was nothing to remove.
    ///
    /// # Errors
    /// When SQLite refuses; what was removed until then stays removed.
    pub fn prune(&self, keep: &Keeping, now: Timestamp) -> Result<Option<Pruning>, StoreError> {
        let by_age = now.before(keep.events.max(LEAST));
        let oldest = self.oldest_event()?;
        let too_large = keep.largest > 0 && self.size()? > keep.largest;
        let (before, why) = match oldest {
            Some(oldest) if too_large && oldest > by_age => {
                (day_after(oldest).min(now.before(LEAST)), "size")
            }
            _ => (by_age, "age"),
        };
        if too_large && oldest.is_none_or(|oldest| oldest >= now.before(LEAST)) {
            let day = now.nanos().div_euclid(DAY.nanos());
            let notice = super::NewNotice {
                key: format!("store-full:{day}"),
                kind: super::NoticeKind::StoreFull,
                agent: None,
                group: None,
                subject: "collector".to_owned(),
                text: "the database is larger than [store] largest and holds nothing older than a week: give it room".to_owned(),
            };
            self.notice(&notice, now)?;
        }
        let mut pruning =
            Pruning { at: now, before, why: why.to_owned(), events: 0, findings: 0, other: 0 };
        if oldest.is_some_and(|oldest| oldest < before) {
            loop {
                let (events, findings) = self.on_disk("remove old events", |transaction| {
                    remove_events(transaction, before)
                })?;
                pruning.events += events;
                pruning.findings += findings;
                if events < natural(AT_ONCE) {
                    break;
                }
            }
        }
        let cuts_before = now.before(keep.cuts.max(keep.events).max(LEAST));
        pruning.other = self.on_disk("remove old containments", |transaction| {
            remove_cuts(transaction, cuts_before)
        })?;
        if pruning.events + pruning.findings + pruning.other == 0 {
            return Ok(None);
        }
        self.on_disk("keep what was removed", |transaction| {
            transaction
                .execute(
                    "INSERT INTO prunings (at, before, why, events, findings, other) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    params![nanos(now), nanos(before), why, whole(pruning.events), whole(pruning.findings), whole(pruning.other)],
                )
                .map(drop)
        })?;
        Ok(Some(pruning))
    }

    fn oldest_event(&self) -> Result<Option<Timestamp>, StoreError> {
        self.reading("look for the oldest event", |connection| {
            let oldest: Option<i64> =
                connection
                    .query_row("SELECT min(received_at) FROM events", [], |row| row.get(0))?;
            Ok(oldest.map(Timestamp::from_nanos))
        })
    }

    /// What was removed, newest first.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn prunings(&self, limit: u64) -> Result<Vec<Pruning>, StoreError> {
        self.reading("list what was removed", |connection| {
            connection
                .prepare_cached("SELECT at, before, why, events, findings, other FROM prunings ORDER BY row DESC LIMIT ?1")?
                .query_map([whole(limit)], |row| {
                    Ok(Pruning {
                        at: Timestamp::from_nanos(row.get(0)?),
                        before: Timestamp::from_nanos(row.get(1)?),
                        why: row.get(2)?,
                        events: natural(row.get(3)?),
                        findings: natural(row.get(4)?),
                        other: natural(row.get(5)?),
                    })
                })?
                .collect()
        })
    }
}

fn day_after(at: Timestamp) -> Timestamp {
    Timestamp::from_nanos((at.nanos().div_euclid(DAY.nanos()) + 1) * DAY.nanos())
}

/// Removes a share of the oldest events. Of each boot a beginning is removed, never a middle: the hash at the cut is
/// kept, so that the chain of what stays can still be checked.
fn remove_events(transaction: &Transaction<'_>, before: Timestamp) -> rusqlite::Result<(u64, u64)> {
    let boots: Vec<(String, String, i64)> = transaction
        .prepare_cached(
            "SELECT agent, boot, max(seq) FROM (SELECT agent, boot, seq FROM events WHERE received_at < ?1 ORDER BY received_at LIMIT ?2) GROUP BY agent, boot",
        )?
        .query_map(params![nanos(before), AT_ONCE], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let (mut events, mut findings) = (0, 0);
    for (agent, boot, last) in boots {
        // An event that came late keeps its place in the chain by keeping what follows it.
        let last: i64 = transaction
            .prepare_cached("SELECT coalesce((SELECT min(seq) - 1 FROM events WHERE agent = ?1 AND boot = ?2 AND seq <= ?3 AND received_at >= ?4), ?3)")?
            .query_row(params![agent, boot, last, nanos(before)], |row| row.get(0))?;
        transaction
            .prepare_cached(
                "UPDATE boots SET pruned_chain = (SELECT chain FROM events WHERE agent = ?1 AND boot = ?2 AND seq = ?3), pruned = ?3 WHERE agent = ?1 AND boot = ?2 AND pruned < ?3",
            )?
            .execute(params![agent, boot, last])?;
        findings += transaction
            .prepare_cached("DELETE FROM findings WHERE agent = ?1 AND boot = ?2 AND seq <= ?3")?
            .execute(params![agent, boot, last])? as u64;
        events += transaction
            .prepare_cached("DELETE FROM events WHERE agent = ?1 AND boot = ?2 AND seq <= ?3")?
            .execute(params![agent, boot, last])? as u64;
    }
    Ok((events, findings))
}

fn remove_cuts(transaction: &Transaction<'_>, before: Timestamp) -> rusqlite::Result<u64> {
    let before = nanos(before);
    let mut removed = 0;
    for statement in [
        // What may be in force is never removed.
        "DELETE FROM containments WHERE until < ?1 AND coalesce(released_at, absent_at, until) < ?1",
        "DELETE FROM receipts WHERE at < ?1 AND NOT EXISTS (SELECT 1 FROM containments c WHERE c.agent = receipts.agent AND c.id = receipts.containment)",
        "DELETE FROM previews WHERE at < ?1 AND NOT EXISTS (SELECT 1 FROM containments c WHERE c.agent = previews.agent AND c.id = previews.containment)",
        "DELETE FROM orders WHERE sent_at < ?1",
        "DELETE FROM deliveries WHERE notice IN (SELECT id FROM notices WHERE at < ?1 AND seen_at IS NOT NULL)",
        "DELETE FROM notices WHERE at < ?1 AND seen_at IS NOT NULL",
        "DELETE FROM drills WHERE at < ?1",
        "DELETE FROM faults WHERE at < ?1",
        "DELETE FROM behaviour_cuts WHERE at < ?1",
        "DELETE FROM episodes WHERE EXISTS (SELECT 1 FROM learned l WHERE l.agent = episodes.agent AND l.from_at = episodes.from_at AND l.received_at < ?1)",
        "DELETE FROM learned WHERE received_at < ?1",
    ] {
        removed += transaction.prepare_cached(statement)?.execute([before])? as u64;
    }
    Ok(removed)
}
