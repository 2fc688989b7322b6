//! The audit: every stored chain computed again from the stored lines.

use super::intake::chained;
use super::{AuditReport, Store, StoreError, natural};
use rusqlite::{Connection, params};

/// Broken places that are listed; the count of them goes on.
const LISTED: usize = 100;

impl Store {
    /// Computes the chain of every boot of every agent again.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn audit(&self) -> Result<Vec<AuditReport>, StoreError> {
        self.reading("audit the events", |connection| {
            let boots: Vec<Boot> = connection
                .prepare("SELECT b.agent, coalesce(h.host, '?'), b.boot, b.pruned, b.pruned_chain FROM boots b LEFT JOIN hosts h ON h.agent = b.agent ORDER BY b.first_at")?
                .query_map([], |row| {
                    Ok(Boot { agent: row.get(0)?, host: row.get(1)?, boot: row.get(2)?, pruned: natural(row.get(3)?), chain: row.get(4)? })
                })?
                .collect::<rusqlite::Result<_>>()?;
            boots.into_iter().map(|boot| audit_boot(connection, boot)).collect()
        })
    }
}

/// A boot of an agent, and where what is left of its journal begins.
struct Boot {
    agent: String,
    host: String,
    boot: String,
    pruned: u64,
    chain: Option<String>,
}

fn audit_boot(connection: &Connection, of: Boot) -> rusqlite::Result<AuditReport> {
    let mut report = AuditReport {
        agent: of.agent,
        host: of.host,
        boot: of.boot,
        events: 0,
        removed: of.pruned,
        highest: of.pruned,
        missing: 0,
        hashed: 0,
        broken: Vec::new(),
        faults: Vec::new(),
    };
    let mut statement = connection.prepare_cached(
        "SELECT seq, json, chain FROM events WHERE agent = ?1 AND boot = ?2 ORDER BY seq",
    )?;
    let mut rows = statement.query([&report.agent, &report.boot])?;
    // The hash of the last event that was removed on purpose: the chain goes on from it.
    let mut before = of.chain.map(|chain| (of.pruned, chain));
    while let Some(row) = rows.next()? {
        let (seq, line, chain): (i64, String, Option<String>) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        let seq = natural(seq);
        report.events += 1;
        report.missing += seq.saturating_sub(report.highest + 1);
        report.highest = seq;
        if let (Some((last, previous)), Some(chain)) = (&before, &chain)
            && last + 1 == seq
            && chained(previous, &line).as_ref() != Some(chain)
            && report.broken.len() < LISTED
        {
            report.broken.push(seq);
        }
        report.hashed += u64::from(chain.is_some());
        before = chain.map(|chain| (seq, chain));
    }
    let mut statement = connection.prepare_cached(
        "SELECT seq, what FROM faults WHERE agent = ?1 AND boot = ?2 ORDER BY seq LIMIT 100",
    )?;
    report.faults = statement
        .query_map(params![report.agent, report.boot], |row| {
            Ok(format!("{}: {}", row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(report)
}
