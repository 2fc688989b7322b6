//! What a person must be told: kept with the event that calls for it, told once, until somebody has seen it.

use super::{Store, StoreError, nanos, natural, whole};
use rusqlite::{Transaction, params};
use sekisho_schema::{Span, Timestamp};
use serde::Serialize;

/// The most deliveries that are tried in one round.
const ROUND: u64 = 32;
/// The first wait after a delivery that failed; it doubles.
const FIRST_WAIT: Span = Span::from_secs(5);
/// The longest wait between two tries.
const LONGEST_WAIT: Span = Span::from_secs(3600);
/// After this long a delivery is given up; that is on the page until somebody has seen the notice.
const GIVEN_UP_AFTER: Span = Span::from_hours(24 * 3);
/// Lines of the delivery log that are kept.
const LOG_LINES: i64 = 10_000;

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeKind {
    /// An agent fell silent.
    AgentLost,
    /// A rehearsal did not hold.
    DrillFailed,
    /// A rehearsal did not take place in time.
    DrillOverdue,
    /// A contained actor tried other ways and was cut at a higher level.
    Escalated,
    /// The automatic budget is spent: cuts are made at a lower level.
    Fuse,
    /// The automatic cuts of behaviour of a role are spent for the week: what would be cut is held.
    Governor,
    /// A certificate was used that a later one had replaced.
    IdentityCopied,
    /// The kernel did not take a cut.
    NotApplied,
    /// A host refused an order.
    OrderRefused,
    /// The database is at its largest.
    StoreFull,
    /// Asked for by a person, to see that it arrives.
    Test,
    /// A cut on trial was let go because nobody confirmed it.
    TrialReleased,
}

impl NoticeKind {
    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::AgentLost => "agent-lost",
            Self::DrillFailed => "drill-failed",
            Self::DrillOverdue => "drill-overdue",
            Self::Escalated => "escalated",
            Self::Fuse => "fuse",
            Self::Governor => "governor",
            Self::IdentityCopied => "identity-copied",
            Self::NotApplied => "not-applied",
            Self::OrderRefused => "order-refused",
            Self::StoreFull => "store-full",
            Self::Test => "test",
            Self::TrialReleased => "trial-released",
        }
    }
}

/// A notice to be kept.
#[derive(Clone, Debug)]
pub struct NewNotice<'a> {
    /// Names the incident: the same is told once.
    pub key: String,
    /// What it is about.
    pub kind: NoticeKind,
    /// The agent that it is about.
    pub agent: Option<&'a str>,
    /// The group that it is about, when it is about no agent.
    pub group: Option<&'a str>,
    /// The containment, finding, order or rehearsal.
    pub subject: String,
    /// One sentence.
    pub text: String,
}

/// A notice as shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NoticeView {
    /// Its number.
    pub id: u64,
    /// When it came up, by the collector's clock.
    pub at: Timestamp,
    /// What it is about.
    pub kind: String,
    /// The agent.
    pub agent: Option<String>,
    /// Its host.
    pub host: Option<String>,
    /// Its group.
    pub group: Option<String>,
    /// The containment, finding, order or rehearsal.
    pub subject: String,
    /// One sentence.
    pub text: String,
    /// When somebody took it on.
    pub seen_at: Option<Timestamp>,
    /// Who.
    pub seen_by: Option<String>,
    /// What they said.
    pub seen_note: Option<String>,
    /// Who was told and what came of it.
    pub deliveries: Vec<DeliveryView>,
}

/// One way a notice goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeliveryView {
    /// `owner` or `deputy`.
    pub who: String,
    /// When it is tried next.
    pub due_at: Timestamp,
    /// How often it was tried.
    pub attempts: u64,
    /// When it arrived.
    pub delivered_at: Option<Timestamp>,
    /// When it was given up.
    pub given_up_at: Option<Timestamp>,
    /// Why the last try failed.
    pub failure: Option<String>,
}

/// A delivery that is due.
#[derive(Clone, Debug)]
pub struct Due {
    /// The notice.
    pub notice: NoticeView,
    /// `owner` or `deputy`.
    pub who: String,
    /// How often it was tried before.
    pub attempts: u64,
}

/// Keeps a notice unless it is known; `true` when it is new.
pub(super) fn keep(
    transaction: &Transaction<'_>,
    notice: &NewNotice<'_>,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let fresh = transaction
        .prepare_cached(
            "INSERT INTO notices (key, at, kind, agent, host, grp, subject, text)
             VALUES (?1, ?2, ?3, ?4, (SELECT host FROM hosts WHERE agent = ?4), coalesce((SELECT grp FROM hosts WHERE agent = ?4), ?7), ?5, ?6) ON CONFLICT (key) DO NOTHING",
        )?
        .execute(params![notice.key, nanos(now), notice.kind.word(), notice.agent, notice.subject, notice.text, notice.group])?;
    Ok(fresh == 1)
}

fn time(nanos: Option<i64>) -> Option<Timestamp> {
    nanos.map(Timestamp::from_nanos)
}

const VIEW: &str = "n.id, n.at, n.kind, n.agent, n.host, n.grp, n.subject, n.text, n.seen_at, n.seen_by, n.seen_note";

fn view(row: &rusqlite::Row<'_>) -> rusqlite::Result<NoticeView> {
    Ok(NoticeView {
        id: natural(row.get(0)?),
        at: Timestamp::from_nanos(row.get(1)?),
        kind: row.get(2)?,
        agent: row.get(3)?,
        host: row.get(4)?,
        group: row.get(5)?,
        subject: row.get(6)?,
        text: row.get(7)?,
        seen_at: time(row.get(8)?),
        seen_by: row.get(9)?,
        seen_note: row.get(10)?,
        deliveries: Vec::new(),
    })
}

impl Store {
    /// Keeps a notice unless it is known; `true` when it is new.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn notice(&self, notice: &NewNotice<'_>, now: Timestamp) -> Result<bool, StoreError> {
        self.on_disk("keep a notice", |transaction| keep(transaction, notice, now))
    }

    /// Notices, newest first: those that nobody took on yet, or all.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn notices(&self, also_seen: bool, limit: u64) -> Result<Vec<NoticeView>, StoreError> {
        self.reading("list the notices", |connection| {
            let mut notices = connection
                .prepare_cached(&format!("SELECT {VIEW} FROM notices n WHERE ?1 OR n.seen_at IS NULL ORDER BY n.id DESC LIMIT ?2"))?
                .query_map(params![also_seen, whole(limit)], view)?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let mut ways = connection.prepare_cached("SELECT who, due_at, attempts, delivered_at, given_up_at, failure FROM deliveries WHERE notice = ?1 ORDER BY who DESC")?;
            for notice in &mut notices {
                notice.deliveries = ways
                    .query_map([whole(notice.id)], |row| {
                        Ok(DeliveryView {
                            who: row.get(0)?,
                            due_at: Timestamp::from_nanos(row.get(1)?),
                            attempts: natural(row.get(2)?),
                            delivered_at: time(row.get(3)?),
                            given_up_at: time(row.get(4)?),
                            failure: row.get(5)?,
                        })
                    })?
                    .collect::<rusqlite::Result<Vec<_>>>()?;
            }
            Ok(notices)
        })
    }

    /// Somebody takes a notice on; `false` when there is none of that number that nobody took on yet.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn see_notice(
        &self,
        id: u64,
        by: &str,
        note: Option<&str>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.on_disk("take a notice on", |transaction| {
            let changed = transaction.execute(
                "UPDATE notices SET seen_at = ?2, seen_by = ?3, seen_note = ?4 WHERE id = ?1 AND seen_at IS NULL",
                params![whole(id), nanos(now), by, note],
            )?;
            Ok(changed == 1)
        })
    }

    /// The deliveries that are due: to the owner at once, to the deputy when nobody took the notice on in `patience`.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn due_deliveries(&self, patience: Span, now: Timestamp) -> Result<Vec<Due>, StoreError> {
        self.on_disk("look for notices to deliver", |transaction| {
            for (who, wait) in [("owner", Span::ZERO), ("deputy", patience)] {
                transaction
                    .prepare_cached(
                        "INSERT INTO deliveries (notice, who, due_at) SELECT n.id, ?1, n.at + ?2 FROM notices n
                         WHERE n.seen_at IS NULL AND n.at + ?2 <= ?3 AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.notice = n.id AND d.who = ?1)",
                    )?
                    .execute(params![who, wait.nanos(), nanos(now)])?;
            }
            transaction
                .prepare_cached(&format!(
                    "SELECT {VIEW}, d.who, d.attempts FROM deliveries d JOIN notices n ON n.id = d.notice
                     WHERE d.delivered_at IS NULL AND d.given_up_at IS NULL AND d.due_at <= ?1 AND n.seen_at IS NULL ORDER BY d.due_at LIMIT ?2"
                ))?
                .query_map(params![nanos(now), whole(ROUND)], |row| {
                    Ok(Due { notice: view(row)?, who: row.get(11)?, attempts: natural(row.get(12)?) })
                })?
                .collect()
        })
    }

    /// Keeps what came of a try.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn delivered(
        &self,
        due: &Due,
        failure: Option<&str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.on_disk("keep what came of a delivery", |transaction| {
            let (notice, attempts) = (whole(due.notice.id), due.attempts + 1);
            match failure {
                None => transaction.execute(
                    "UPDATE deliveries SET delivered_at = ?3, attempts = ?4, failure = NULL WHERE notice = ?1 AND who = ?2",
                    params![notice, due.who, nanos(now), whole(attempts)],
                )?,
                Some(why) => {
                    let given_up = now.since(due.notice.at) > GIVEN_UP_AFTER;
                    transaction.execute(
                        "UPDATE deliveries SET due_at = ?3, attempts = ?4, failure = ?5, given_up_at = ?6 WHERE notice = ?1 AND who = ?2",
                        params![notice, due.who, nanos(now.after(wait_after(attempts))), whole(attempts), why, given_up.then_some(nanos(now))],
                    )?
                }
            };
            transaction
                .prepare_cached("INSERT INTO delivery_log (notice, who, at, outcome) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![notice, due.who, nanos(now), failure.unwrap_or("delivered")])?;
            transaction
                .prepare_cached("DELETE FROM delivery_log WHERE row <= (SELECT max(row) FROM delivery_log) - ?1")?
                .execute([LOG_LINES])
                .map(drop)
        })
    }

    /// Notices that nobody took on, and deliveries whose last try failed.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn notice_counts(&self) -> Result<(u64, u64), StoreError> {
        self.reading("count the notices", |connection| {
            connection.query_row(
                "SELECT (SELECT count(*) FROM notices WHERE seen_at IS NULL),
                        (SELECT count(*) FROM deliveries d JOIN notices n ON n.id = d.notice WHERE n.seen_at IS NULL AND d.delivered_at IS NULL AND d.failure IS NOT NULL)",
                [],
                |row| Ok((natural(row.get(0)?), natural(row.get(1)?))),
            )
        })
    }
}

/// How long a try waits after so many have failed.
fn wait_after(attempts: u64) -> Span {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    Span::from_nanos(FIRST_WAIT.nanos() << doublings).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_further_and_further_apart_up_to_an_hour() {
        assert_eq!(wait_after(1), Span::from_secs(5));
        assert_eq!(wait_after(3), Span::from_secs(20));
        assert_eq!(wait_after(40), Span::from_secs(3600));
    }
}
