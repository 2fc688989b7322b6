//! Views for people: what is cut, what was found, who reports.

use super::{Store, StoreError, nanos, natural, whole};
use rusqlite::{Connection, OptionalExtension, Row, params};
use sekisho_schema::event::Preview;
use sekisho_schema::{Containment, Envelope, Finding, Span, Timestamp};
use serde::Serialize;

/// How often an agent promises to tell its state.
pub const PROMISED_STATE_EVERY: Span = Span::from_secs(10);
/// An agent that has not told its state for this long (three times the promise) is silent, and silence is an alarm.
pub const SILENT_AFTER: Span = Span::from_secs(30);

/// Whether a host can be heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Liveness {
    /// Shut out by a person.
    Denied,
    /// It told its state in time.
    Reporting,
    /// It ought to have told its state and did not.
    Silent,
    /// Enrolled a moment ago and not heard yet.
    Waiting,
}

/// A host as shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HostView {
    /// The agent's id.
    pub agent: String,
    /// The name it enrolled with.
    pub host: String,
    /// The group of its token.
    pub group: String,
    /// Whether it can be heard.
    pub liveness: Liveness,
    /// When it enrolled.
    pub enrolled_at: Timestamp,
    /// When its certificate ends.
    pub certificate_until: Timestamp,
    /// When it was heard last, by the collector's clock.
    pub last_seen: Option<Timestamp>,
    /// The agent's version.
    pub version: Option<String>,
    /// The mode policy asks for.
    pub requested: Option<String>,
    /// The mode it is in.
    pub effective: Option<String>,
    /// Why they differ.
    pub why: Option<String>,
    /// Version of the policy in force there.
    pub policy_version: Option<u64>,
    /// Bytes of payload out since the agent started.
    pub bytes_out: Option<u64>,
    /// Records waiting there to be sent.
    pub spool: Option<u64>,
    /// Paths that a cut does not close there.
    pub coverage: Vec<String>,
    /// Events of it that are stored.
    pub events: u64,
    /// Faults of its journal: broken chain, lost or contradicting records.
    pub journal_faults: u64,
}

/// What the kernel of a host held, as told by its receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReceiptView {
    /// Whether the kernel acknowledged.
    pub applied: bool,
    /// Why not.
    pub error: Option<String>,
    /// `proven` or `unproven`; `None` when it was not tried.
    pub cut: Option<String>,
    /// `ok` or `broken`; `None` when it was not tried.
    pub exemptions: Option<String>,
    /// From the deciding frame to the kernel's acknowledgement, in nanoseconds.
    pub time_to_contain_ns: Option<i64>,
    /// Packets of the scope that left after the match.
    pub leaked_packets: u64,
    /// Bytes of the scope that left after the match.
    pub leaked_bytes: u64,
    /// What this level does not close for this scope, in words.
    pub open: Vec<String>,
    /// Paths that the host cannot cut, by name.
    pub coverage: Vec<String>,
    /// What the scope was found to be when it was cut, in words.
    pub target: Vec<String>,
}

/// A containment as shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ContainmentView {
    /// The agent.
    pub agent: String,
    /// Its host.
    pub host: String,
    /// Whether the host can be heard, so that this can be believed now.
    pub liveness: Liveness,
    /// Whether it is cut now, as far as is known.
    pub active: bool,
    /// The containment.
    #[serde(flatten)]
    pub containment: Containment,
    /// The latest receipt.
    pub receipt: Option<ReceiptView>,
    /// When this collector confirmed it, having its receipt on the disk.
    pub confirmed_at: Option<Timestamp>,
    /// What it would have refused in the days before, when the host told.
    pub preview: Option<Preview>,
    /// When it was released.
    pub released_at: Option<Timestamp>,
    /// `expired`, `order`, `break-glass` or `failed`.
    pub release_cause: Option<String>,
    /// Who released it.
    pub released_by: Option<String>,
    /// Why.
    pub release_reason: Option<String>,
}

/// A finding as shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FindingView {
    /// Place in the order of arrival; the cursor for the next page.
    pub cursor: u64,
    /// The agent.
    pub agent: String,
    /// Its host.
    pub host: String,
    /// The boot of the agent.
    pub boot: String,
    /// The sequence of the event.
    pub seq: u64,
    /// When it was found, by the agent's clock.
    pub at: Timestamp,
    /// The finding.
    pub finding: Finding,
    /// The receipt of the cut that answered it.
    pub receipt: Option<ReceiptView>,
}

/// An event as stored.
#[derive(Clone, Debug, Serialize)]
pub struct EventView {
    /// The agent.
    pub agent: String,
    /// The boot of the agent.
    pub boot: String,
    /// Whether it follows from the event before by the journal's chain; `None` when that can't be said.
    pub chained: Option<bool>,
    /// When it came in.
    pub received_at: Timestamp,
    /// The event, as it came.
    pub event: serde_json::Value,
    /// Place in the order of arrival; the cursor for the next page.
    pub cursor: u64,
}

/// Bytes out of one host at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The agent and its boot.
    pub agent: String,
    /// The boot of the agent: the count starts anew with each.
    pub boot: String,
    /// When.
    pub at: Timestamp,
    /// Bytes since the agent started.
    pub bytes_out: u64,
}

/// What an audit of one boot of one agent found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// The agent.
    pub agent: String,
    /// Its host.
    pub host: String,
    /// The boot of the agent.
    pub boot: String,
    /// Events stored.
    pub events: u64,
    /// Events removed on purpose, from the first on (`[store] keep`).
    pub removed: u64,
    /// The highest sequence stored.
    pub highest: u64,
    /// Sequences missing below the highest.
    pub missing: u64,
    /// Events that carry a hash of the journal.
    pub hashed: u64,
    /// Sequences at which the chain does not hold, the first 100.
    pub broken: Vec<u64>,
    /// Other faults that were noted on arrival.
    pub faults: Vec<String>,
}

fn time(nanos: Option<i64>) -> Option<Timestamp> {
    nanos.map(Timestamp::from_nanos)
}

fn liveness(
    denied: bool,
    last_seen: Option<i64>,
    enrolled: i64,
    listening_since: i64,
    now: Timestamp,
) -> Liveness {
    // While the collector itself was down it could hear nobody.
    let overdue =
        |since: i64| now.since(Timestamp::from_nanos(since.max(listening_since))) > SILENT_AFTER;
    match last_seen {
        _ if denied => Liveness::Denied,
        Some(seen) if overdue(seen) => Liveness::Silent,
        Some(_) => Liveness::Reporting,
        None if overdue(enrolled) => Liveness::Silent,
        None => Liveness::Waiting,
    }
}

fn listening_since(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'listening_since'), 0)", [], |row| row.get(0))
}

const RECEIPT: &str = "r.applied, r.error, r.cut, r.exemptions, r.time_to_contain_ns, r.leaked_packets, r.leaked_bytes, r.open, r.coverage, r.target";

fn list(row: &Row<'_>, place: usize) -> rusqlite::Result<Vec<String>> {
    Ok(serde_json::from_str(&row.get::<_, String>(place)?).unwrap_or_default())
}

fn receipt(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<ReceiptView>> {
    let Some(applied) = row.get::<_, Option<bool>>(first)? else { return Ok(None) };
    Ok(Some(ReceiptView {
        applied,
        error: row.get(first + 1)?,
        cut: row.get(first + 2)?,
        exemptions: row.get(first + 3)?,
        time_to_contain_ns: row.get(first + 4)?,
        leaked_packets: natural(row.get(first + 5)?),
        leaked_bytes: natural(row.get(first + 6)?),
        open: list(row, first + 7)?,
        coverage: list(row, first + 8)?,
        target: list(row, first + 9)?,
    }))
}

impl Store {
    /// Every host, silent ones first.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn hosts(&self, now: Timestamp) -> Result<Vec<HostView>, StoreError> {
        self.reading("list the hosts", |connection| {
            let since = listening_since(connection)?;
            let mut statement = connection.prepare_cached(
                "SELECT h.agent, h.host, h.grp, h.enrolled_at, h.certificate_until, h.last_seen, h.version, h.requested, h.effective, h.why, h.policy_version, h.bytes_out, h.spool, h.coverage,
                        (SELECT count(*) FROM events e WHERE e.agent = h.agent), (SELECT count(*) FROM faults f WHERE f.agent = h.agent), EXISTS (SELECT 1 FROM denied d WHERE d.agent = h.agent)
                 FROM hosts h ORDER BY h.host, h.enrolled_at",
            )?;
            let rows = statement.query_map([], |row| {
                let coverage: String = row.get(13)?;
                Ok(HostView {
                    agent: row.get(0)?,
                    host: row.get(1)?,
                    group: row.get(2)?,
                    liveness: liveness(row.get(16)?, row.get(5)?, row.get(3)?, since, now),
                    enrolled_at: Timestamp::from_nanos(row.get(3)?),
                    certificate_until: Timestamp::from_nanos(row.get(4)?),
                    last_seen: time(row.get(5)?),
                    version: row.get(6)?,
                    requested: row.get(7)?,
                    effective: row.get(8)?,
                    why: row.get(9)?,
                    policy_version: row.get::<_, Option<i64>>(10)?.map(natural),
                    bytes_out: row.get::<_, Option<i64>>(11)?.map(natural),
                    spool: row.get::<_, Option<i64>>(12)?.map(natural),
                    coverage: serde_json::from_str(&coverage).unwrap_or_default(),
                    events: natural(row.get(14)?),
                    journal_faults: natural(row.get(15)?),
                })
            })?;
            let mut hosts = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            hosts.sort_by_key(|host| host.liveness != Liveness::Silent);
            Ok(hosts)
        })
    }

    /// Containments, those of the highest level first: all that are cut now, or all that ever were (at most `limit`).
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn containments(
        &self,
        also_ended: bool,
        limit: u64,
        now: Timestamp,
    ) -> Result<Vec<ContainmentView>, StoreError> {
        self.reading("list the containments", |connection| {
            let since = listening_since(connection)?;
            let mut statement = connection.prepare_cached(&format!(
                "SELECT c.agent, h.host, h.last_seen, h.enrolled_at, EXISTS (SELECT 1 FROM denied d WHERE d.agent = h.agent), c.json,
                        c.released_at IS NULL AND c.absent_at IS NULL AND c.until > ?1, c.released_at, c.release_cause, c.released_by, c.release_reason, c.confirmed_at, p.json, {RECEIPT}
                 FROM containments c JOIN hosts h ON h.agent = c.agent
                 LEFT JOIN previews p ON p.agent = c.agent AND p.containment = c.id
                 LEFT JOIN receipts r ON r.agent = c.agent AND r.containment = c.id
                   AND r.generation = (SELECT max(generation) FROM receipts WHERE agent = c.agent AND containment = c.id)
                 WHERE c.json IS NOT NULL AND (?2 OR (c.released_at IS NULL AND c.absent_at IS NULL AND c.until > ?1))
                 ORDER BY c.since DESC LIMIT ?3"
            ))?;
            let rows = statement.query_map(params![nanos(now), also_ended, whole(limit)], |row| {
                let json: String = row.get(5)?;
                let Ok(containment) = serde_json::from_str::<Containment>(&json) else { return Ok(None) };
                Ok(Some(ContainmentView {
                    agent: row.get(0)?,
                    host: row.get(1)?,
                    liveness: liveness(row.get(4)?, row.get(2)?, row.get(3)?, since, now),
                    active: row.get(6)?,
                    containment,
                    receipt: receipt(row, 13)?,
                    confirmed_at: time(row.get(11)?),
                    preview: row.get::<_, Option<String>>(12)?.and_then(|json| serde_json::from_str(&json).ok()),
                    released_at: time(row.get(7)?),
                    release_cause: row.get(8)?,
                    released_by: row.get(9)?,
                    release_reason: row.get(10)?,
                }))
            })?;
            let mut containments = rows.filter_map(Result::transpose).collect::<rusqlite::Result<Vec<_>>>()?;
            if !also_ended {
                containments.sort_by_key(|view| std::cmp::Reverse((view.containment.level, view.containment.since)));
            }
            Ok(containments)
        })
    }

    /// Findings: the latest by their time (`before` absent), or those that arrived before a cursor.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn findings(
        &self,
        limit: u64,
        before: Option<u64>,
    ) -> Result<Vec<FindingView>, StoreError> {
        self.reading("list the findings", |connection| {
            let order = if before.is_some() { "f.row DESC" } else { "f.at DESC, f.row DESC" };
            let mut statement = connection.prepare_cached(&format!(
                "SELECT f.row, f.agent, h.host, f.boot, f.seq, e.at, e.json, {RECEIPT}
                 FROM findings f JOIN hosts h ON h.agent = f.agent JOIN events e ON e.agent = f.agent AND e.boot = f.boot AND e.seq = f.seq
                 LEFT JOIN receipts r ON f.action = 'contain' AND r.agent = f.agent AND r.containment = f.containment
                   AND r.generation = (SELECT min(generation) FROM receipts WHERE agent = f.agent AND containment = f.containment)
                 WHERE f.row < ?1 ORDER BY {order} LIMIT ?2"
            ))?;
            let rows = statement.query_map(params![before.map_or(i64::MAX, whole), whole(limit)], |row| {
                let json: String = row.get(6)?;
                let Ok(Envelope { body: sekisho_schema::Body::Finding(finding), .. }) = serde_json::from_str(&json) else { return Ok(None) };
                Ok(Some(FindingView {
                    cursor: natural(row.get(0)?),
                    agent: row.get(1)?,
                    host: row.get(2)?,
                    boot: row.get(3)?,
                    seq: natural(row.get(4)?),
                    at: Timestamp::from_nanos(row.get(5)?),
                    finding: *finding,
                    receipt: receipt(row, 7)?,
                }))
            })?;
            rows.filter_map(Result::transpose).collect()
        })
    }

    /// The sentence of a finding.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn explanation(&self, agent: &str, finding: &str) -> Result<Option<String>, StoreError> {
        self.reading("read a finding", |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT json_extract(e.json, '$.explanation') FROM findings f JOIN events e ON e.agent = f.agent AND e.boot = f.boot AND e.seq = f.seq WHERE f.agent = ?1 AND f.id = ?2 LIMIT 1",
            )?;
            statement.query_row([agent, finding], |row| row.get(0)).optional()
        })
    }

    /// Times and grades of the findings since a time, for the plot; at most 2000.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn finding_times(&self, since: Timestamp) -> Result<Vec<(Timestamp, String)>, StoreError> {
        self.reading("list the findings' times", |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT at, grade FROM findings WHERE at >= ?1 ORDER BY at DESC LIMIT 2000",
            )?;
            statement
                .query_map([nanos(since)], |row| {
                    Ok((Timestamp::from_nanos(row.get(0)?), row.get(1)?))
                })?
                .collect()
        })
    }

    /// Samples of bytes out since a time, by agent and time.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn samples(&self, since: Timestamp) -> Result<Vec<Sample>, StoreError> {
        self.reading("read the samples", |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT agent, boot, at, bytes_out FROM samples WHERE at >= ?1 ORDER BY agent, at",
            )?;
            statement
                .query_map([nanos(since)], |row| {
                    Ok(Sample {
                        agent: row.get(0)?,
                        boot: row.get(1)?,
                        at: Timestamp::from_nanos(row.get(2)?),
                        bytes_out: natural(row.get(3)?),
                    })
                })?
                .collect()
        })
    }

    /// Events as stored, newest arrival first, of one agent or of all.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn events(
        &self,
        agent: Option<&str>,
        kind: Option<&str>,
        limit: u64,
        before: Option<u64>,
    ) -> Result<Vec<EventView>, StoreError> {
        self.reading("list the events", |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT rowid, agent, boot, link, received_at, json FROM events WHERE rowid < ?1 AND (?2 IS NULL OR agent = ?2) AND (?3 IS NULL OR type = ?3) ORDER BY rowid DESC LIMIT ?4",
            )?;
            let rows = statement.query_map(params![before.map_or(i64::MAX, whole), agent, kind, whole(limit)], |row| {
                let json: String = row.get(5)?;
                Ok(EventView {
                    cursor: natural(row.get(0)?),
                    agent: row.get(1)?,
                    boot: row.get(2)?,
                    chained: row.get(3)?,
                    received_at: Timestamp::from_nanos(row.get(4)?),
                    event: serde_json::from_str(&json).unwrap_or_default(),
                })
            })?;
            rows.collect()
        })
    }
}
