//! Tokens that are good once, the hosts that came by them, and agents that may come no more.

use super::{Store, StoreError, nanos};
use rusqlite::{OptionalExtension, params};
use sekisho_schema::Timestamp;
use serde::Serialize;
use std::collections::BTreeSet;

/// A token as it is listed; the token itself is not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenView {
    /// Its name.
    pub id: String,
    /// The group that a host enrolled with it belongs to.
    pub group: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When it was used.
    pub used_at: Option<Timestamp>,
    /// The agent that used it.
    pub used_by: Option<String>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// A host about to be enrolled.
#[derive(Clone, Debug)]
pub struct Enrolment {
    /// The id it shall have.
    pub agent: String,
    /// The name it gave.
    pub host: String,
    /// When its certificate ends.
    pub certificate_until: Timestamp,
    /// The hash of its certificate's key.
    pub spki: String,
}

/// Why a token is refused.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// It ended unused.
    #[error("the token ended at {0}")]
    Expired(Timestamp),
    /// A person took it back.
    #[error("the token was revoked")]
    Revoked,
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such token.
    #[error("the token is not one of this collector's")]
    Unknown,
    /// It was used before.
    #[error("the token was used already; each token enrols one host")]
    Used,
}

type TokenRow = (String, String, i64, Option<i64>, Option<i64>);

fn standing(row: Option<&TokenRow>, now: Timestamp) -> Result<(), RedeemError> {
    match row {
        None => Err(RedeemError::Unknown),
        Some((.., Some(_), _)) => Err(RedeemError::Used),
        Some((.., Some(_))) => Err(RedeemError::Revoked),
        Some((_, _, until, ..)) if *until <= nanos(now) => {
            Err(RedeemError::Expired(Timestamp::from_nanos(*until)))
        }
        Some(_) => Ok(()),
    }
}

const FIND: &str = "SELECT id, grp, expires_at, used_at, revoked_at FROM tokens WHERE hash = ?1";

fn token_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<TokenRow> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
}

impl Store {
    /// Keeps the hash of a new token.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn keep_token(
        &self,
        id: &str,
        hash: &str,
        group: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.on_disk("keep a token", |transaction| {
            transaction.execute("INSERT INTO tokens (id, hash, grp, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)", params![id, hash, group, nanos(now), nanos(until)]).map(drop)
        })
    }

    /// Every token, newest first.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn tokens(&self) -> Result<Vec<TokenView>, StoreError> {
        self.reading("list the tokens", |connection| {
            let mut statement = connection.prepare("SELECT id, grp, created_at, expires_at, used_at, used_by, revoked_at FROM tokens ORDER BY created_at DESC")?;
            let time = |nanos: Option<i64>| nanos.map(Timestamp::from_nanos);
            statement
                .query_map([], |row| {
                    Ok(TokenView {
                        id: row.get(0)?,
                        group: row.get(1)?,
                        created_at: Timestamp::from_nanos(row.get(2)?),
                        expires_at: Timestamp::from_nanos(row.get(3)?),
                        used_at: time(row.get(4)?),
                        used_by: row.get(5)?,
                        revoked_at: time(row.get(6)?),
                    })
                })?
                .collect()
        })
    }

    /// Takes a token back; `false` when there is none of that name that could still be used.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn revoke_token(&self, id: &str, now: Timestamp) -> Result<bool, StoreError> {
        self.on_disk("revoke a token", |transaction| {
            Ok(transaction.execute("UPDATE tokens SET revoked_at = ?2 WHERE id = ?1 AND used_at IS NULL AND revoked_at IS NULL", params![id, nanos(now)])? == 1)
        })
    }

    /// Whether a token could be used now; nothing changes.
    ///
    /// # Errors
    /// Why it could not.
    pub fn check_token(&self, hash: &str, now: Timestamp) -> Result<(), RedeemError> {
        let row = self.reading("look up a token", |connection| {
            connection.query_row(FIND, [hash], token_row).optional()
        })?;
        standing(row.as_ref(), now)
    }

    /// Uses a token up and enrols the host, both or neither.
    ///
    /// # Errors
    /// Why the token is refused.
    pub fn redeem_token(
        &self,
        hash: &str,
        enrolment: &Enrolment,
        now: Timestamp,
    ) -> Result<(), RedeemError> {
        self.on_disk("enrol a host", |transaction| {
            let row = transaction.query_row(FIND, [hash], token_row).optional()?;
            if let Err(refusal) = standing(row.as_ref(), now) {
                return Ok(Err(refusal));
            }
            let Some((id, group, ..)) = row else { return Ok(Err(RedeemError::Unknown)) };
            transaction.execute("UPDATE tokens SET used_at = ?2, used_by = ?3 WHERE id = ?1", params![id, nanos(now), enrolment.agent])?;
            transaction.execute(
                "INSERT INTO hosts (agent, host, grp, enrolled_at, certificate_until) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![enrolment.agent, enrolment.host, group, nanos(now), nanos(enrolment.certificate_until)],
            )?;
            super::certificates::keep(transaction, &enrolment.agent, &enrolment.spki, enrolment.certificate_until, now)?;
            Ok(Ok(()))
        })?
    }

    /// Shuts an agent out for good; `false` when there is no such agent.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn deny(&self, agent: &str, why: &str, now: Timestamp) -> Result<bool, StoreError> {
        self.on_disk("deny an agent", |transaction| {
            let known: bool = transaction.query_row("SELECT EXISTS (SELECT 1 FROM hosts WHERE agent = ?1)", [agent], |row| row.get(0))?;
            if known {
                transaction.execute("INSERT INTO denied (agent, at, why) VALUES (?1, ?2, ?3) ON CONFLICT (agent) DO NOTHING", params![agent, nanos(now), why])?;
            }
            Ok(known)
        })
    }

    /// The agents that may come no more.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn denied(&self) -> Result<BTreeSet<String>, StoreError> {
        self.reading("list the denied agents", |connection| {
            connection
                .prepare("SELECT agent FROM denied")?
                .query_map([], |row| row.get(0))?
                .collect()
        })
    }

    /// Whether an agent was enrolled here.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn enrolled(&self, agent: &str) -> Result<bool, StoreError> {
        self.reading("look up an agent", |connection| {
            connection.query_row(
                "SELECT EXISTS (SELECT 1 FROM hosts WHERE agent = ?1)",
                [agent],
                |row| row.get(0),
            )
        })
    }
}
