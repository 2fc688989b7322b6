//! Which certificate of an agent is the one in use: a later one, once shown, ends the ones before it.

use super::{Store, StoreError, nanos};
use rusqlite::{OptionalExtension, Transaction, params};
use sekisho_schema::Timestamp;

/// How a certificate that an agent shows stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may be used.
    Good,
    /// A later one of the same agent was in use already: somebody kept the key of an old one.
    Replaced,
}

pub(super) fn keep(
    transaction: &Transaction<'_>,
    agent: &str,
    spki: &str,
    until: Timestamp,
    now: Timestamp,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT INTO certificates (agent, spki, issued_at, until) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (agent, spki) DO NOTHING")?
        .execute(params![agent, spki, nanos(now), nanos(until)])
        .map(drop)
}

impl Store {
    /// Keeps that a certificate was renewed; the old one stays good until the new one is shown.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn renewed(
        &self,
        agent: &str,
        spki: &str,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.on_disk("keep a renewal", |transaction| keep(transaction, agent, spki, until, now))
    }

    /// How the certificate with this key stands, now that its agent shows it. One from before keys were kept is good
    /// until a renewed one is shown.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn show_certificate(
        &self,
        agent: &str,
        spki: &str,
        now: Timestamp,
    ) -> Result<Standing, StoreError> {
        let (known, later) = self.reading("look up a certificate", |connection| {
            let known: Option<(i64, Option<i64>)> = connection
                .prepare_cached("SELECT issued_at, used_at FROM certificates WHERE agent = ?1 AND spki = ?2")?
                .query_row([agent, spki], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let issued = known.map_or(i64::MIN, |(issued, _)| issued);
            let later: bool = connection
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM certificates WHERE agent = ?1 AND issued_at > ?2 AND used_at IS NOT NULL)")?
                .query_row(params![agent, issued], |row| row.get(0))?;
            Ok((known, later))
        })?;
        if later {
            let notice = super::NewNotice {
                key: format!("identity-copied:{agent}:{spki}"),
                kind: super::NoticeKind::IdentityCopied,
                agent: Some(agent),
                group: None,
                subject: agent.to_owned(),
                text: "a certificate was shown that a later one had replaced: its key may have been copied; enrol the host anew and deny the old agent".to_owned(),
            };
            self.notice(&notice, now)?;
            return Ok(Standing::Replaced);
        }
        if let Some((_, None)) = known {
            self.on_disk("keep that a certificate is in use", |transaction| {
                let until: i64 = transaction.query_row("SELECT until FROM certificates WHERE agent = ?1 AND spki = ?2", [agent, spki], |row| row.get(0))?;
                transaction.execute("UPDATE certificates SET used_at = ?3 WHERE agent = ?1 AND spki = ?2 AND used_at IS NULL", params![agent, spki, nanos(now)])?;
                transaction.execute("UPDATE hosts SET certificate_until = ?2 WHERE agent = ?1", params![agent, until]).map(drop)
            })?;
        }
        Ok(Standing::Good)
    }
}
