//! Sealed baselines and certificates of roles; the newest version of each is the one in force.

use super::{Store, StoreError, natural, whole};
use rusqlite::{OptionalExtension, Row, params};
use sekisho_schema::{Sealed, Timestamp};
use std::collections::BTreeMap;

/// A sealed baseline or certificate as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// The role.
    pub role: String,
    /// `baseline` or `certificate`.
    pub kind: String,
    /// Its version.
    pub version: u64,
    /// The name of the envelope's content.
    pub digest: String,
    /// The envelope's text.
    pub sealed: String,
    /// When it was pushed.
    pub pushed_at: Timestamp,
}

/// Versions in force of a role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Versions {
    /// Of its baseline; 0 for none.
    pub baseline: u64,
    /// Of its certificate; 0 for none.
    pub certificate: u64,
}

fn certified(row: &Row<'_>) -> rusqlite::Result<Certified> {
    Ok(Certified {
        role: row.get(0)?,
        kind: row.get(1)?,
        version: natural(row.get(2)?),
        digest: row.get(3)?,
        sealed: row.get(4)?,
        pushed_at: Timestamp::from_nanos(row.get(5)?),
    })
}

impl Store {
    /// The document of a kind in force for a role.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn certified(&self, role: &str, kind: &str) -> Result<Option<Certified>, StoreError> {
        self.reading("read what a role was certified", |connection| {
            connection
                .prepare_cached("SELECT role, kind, version, digest, sealed, pushed_at FROM certified WHERE role = ?1 AND kind = ?2 ORDER BY version DESC LIMIT 1")?
                .query_row([role, kind], certified)
                .optional()
        })
    }

    /// Versions in force, by role.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn certified_versions(&self) -> Result<BTreeMap<String, Versions>, StoreError> {
        self.reading("list what roles were certified", |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT role, kind, max(version) FROM certified GROUP BY role, kind",
            )?;
            let mut rows = statement.query([])?;
            let mut versions: BTreeMap<String, Versions> = BTreeMap::new();
            while let Some(row) = rows.next()? {
                let of = versions.entry(row.get(0)?).or_default();
                let (kind, version): (String, i64) = (row.get(1)?, row.get(2)?);
                if kind == sekisho_schema::baseline::BASELINE_KIND {
                    of.baseline = natural(version);
                } else {
                    of.certificate = natural(version);
                }
            }
            Ok(versions)
        })
    }

    /// Stores a document if it is above every stored one of its role and kind; `false` when it is not.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn keep_certified(
        &self,
        role: &str,
        sealed: &Sealed,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.on_disk("store what a role is certified", |transaction| {
            // Asked again inside the transaction: two pushes may race.
            let newest: i64 = transaction.query_row(
                "SELECT coalesce(max(version), 0) FROM certified WHERE role = ?1 AND kind = ?2",
                [role, &sealed.kind],
                |row| row.get(0),
            )?;
            if whole(sealed.version) <= newest {
                return Ok(false);
            }
            transaction.execute(
                "INSERT INTO certified (role, kind, version, digest, sealed, expires, pushed_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![role, sealed.kind, whole(sealed.version), sealed.digest(), sealed.to_text(), sealed.expires.nanos(), now.nanos()],
            )?;
            Ok(true)
        })
    }
}
