//! Rehearsals: when each group had its last one, and which are overdue.

use super::{NewNotice, NoticeKind, Store, StoreError, nanos, natural};
use rusqlite::params;
use sekisho_schema::policy::DrillPlan;
use sekisho_schema::{Span, Timestamp};
use serde::Serialize;

/// The last rehearsal of a name in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DrillView {
    /// The group.
    pub group: String,
    /// Its name.
    pub name: String,
    /// When it ended.
    pub at: Timestamp,
    /// On which host.
    pub host: String,
    /// Whether it held.
    pub passed: bool,
    /// One sentence.
    pub detail: String,
    /// Who or what began it.
    pub by: Option<String>,
    /// First packet to match, in nanoseconds.
    pub time_to_detect_ns: Option<i64>,
    /// Deciding frame to the kernel's acknowledgement, in nanoseconds.
    pub time_to_contain_ns: Option<i64>,
    /// Bytes that left after the match.
    pub leaked_bytes: u64,
}

/// A rehearsal that policy asks for and that did not take place in time, or did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Overdue {
    /// The group.
    pub group: String,
    /// Its name.
    pub name: String,
    /// How often policy asks for it.
    pub every: Span,
    /// When the group had it last; `None` for never.
    pub last: Option<Timestamp>,
}

impl Store {
    /// The last rehearsal of each name in each group.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn drills(&self) -> Result<Vec<DrillView>, StoreError> {
        self.reading("list the rehearsals", |connection| {
            connection
                .prepare_cached(
                    "SELECT h.grp, d.name, max(d.at), h.host, d.passed, d.detail, d.by, d.time_to_detect_ns, d.time_to_contain_ns, d.leaked_bytes
                     FROM drills d JOIN hosts h ON h.agent = d.agent GROUP BY h.grp, d.name ORDER BY h.grp, d.name LIMIT 500",
                )?
                .query_map([], |row| {
                    Ok(DrillView {
                        group: row.get(0)?,
                        name: row.get(1)?,
                        at: Timestamp::from_nanos(row.get(2)?),
                        host: row.get(3)?,
                        passed: row.get(4)?,
                        detail: row.get(5)?,
                        by: row.get(6)?,
                        time_to_detect_ns: row.get(7)?,
                        time_to_contain_ns: row.get(8)?,
                        leaked_bytes: natural(row.get(9)?),
                    })
                })?
                .collect()
        })
    }

    /// Rehearsals that are overdue: in each group with a host, counted from the last one that held, else from when
    /// policy began to ask (`since`) or the group's first host enrolled.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn drills_overdue(
        &self,
        plans: &[DrillPlan],
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<Overdue>, StoreError> {
        if plans.is_empty() {
            return Ok(Vec::new());
        }
        self.reading("look for overdue rehearsals", |connection| {
            let groups: Vec<(String, i64)> = connection
                .prepare_cached("SELECT grp, min(enrolled_at) FROM hosts h WHERE NOT EXISTS (SELECT 1 FROM denied d WHERE d.agent = h.agent) GROUP BY grp ORDER BY grp")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            let mut last = connection.prepare_cached(
                "SELECT max(d.at) FROM drills d JOIN hosts h ON h.agent = d.agent WHERE h.grp = ?1 AND d.name = ?2 AND d.passed",
            )?;
            let mut overdue = Vec::new();
            for (group, enrolled) in &groups {
                for plan in plans {
                    let held: Option<i64> = last.query_row(params![group, plan.name], |row| row.get(0))?;
                    let from = held.unwrap_or_else(|| nanos(since).max(*enrolled));
                    if now.since(Timestamp::from_nanos(from)) > plan.every {
                        overdue.push(Overdue { group: group.clone(), name: plan.name.clone(), every: plan.every, last: held.map(Timestamp::from_nanos) });
                    }
                }
            }
            Ok(overdue)
        })
    }

    /// Keeps a notice for each overdue rehearsal, once for each time that it was missed.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn tell_overdue(&self, overdue: &[Overdue], now: Timestamp) -> Result<(), StoreError> {
        for one in overdue {
            let last = one.last.map_or_else(
                || "never".to_owned(),
                |at| format!("{} UTC", crate::clock::to_the_second(at)),
            );
            let notice = NewNotice {
                key: format!(
                    "{}:{}:{}:{last}",
                    NoticeKind::DrillOverdue.word(),
                    one.group,
                    one.name
                ),
                kind: NoticeKind::DrillOverdue,
                agent: None,
                group: Some(&one.group),
                subject: one.name.clone(),
                text: format!(
                    "the group {} had no rehearsal {} that held within {}; the last one: {last}",
                    one.group, one.name, one.every
                ),
            };
            self.notice(&notice, now)?;
        }
        Ok(())
    }
}
