//! Sealed policies in the order of their versions; the newest one is the one in force.

use super::{Store, StoreError, natural, whole};
use rusqlite::{OptionalExtension, params};
use sekisho_schema::{Sealed, Timestamp};

/// A sealed policy as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPolicy {
    /// Its version.
    pub version: u64,
    /// The name of the envelope's content.
    pub digest: String,
    /// The envelope's text.
    pub sealed: String,
    /// When it was pushed.
    pub pushed_at: Timestamp,
}

impl Store {
    /// The newest policy.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn newest_policy(&self) -> Result<Option<StoredPolicy>, StoreError> {
        self.reading("read the policy", |connection| {
            connection
                .query_row("SELECT version, digest, sealed, pushed_at FROM policies ORDER BY version DESC LIMIT 1", [], |row| {
                    Ok(StoredPolicy { version: natural(row.get(0)?), digest: row.get(1)?, sealed: row.get(2)?, pushed_at: Timestamp::from_nanos(row.get(3)?) })
                })
                .optional()
        })
    }

    /// Stores a policy if it is above every stored one; `false` when it is not.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn keep_policy(&self, sealed: &Sealed, now: Timestamp) -> Result<bool, StoreError> {
        self.on_disk("store a policy", |transaction| {
            // Asked again inside the transaction: two pushes may race.
            let newest: i64 = transaction.query_row("SELECT coalesce(max(version), 0) FROM policies", [], |row| row.get(0))?;
            if whole(sealed.version) <= newest {
                return Ok(false);
            }
            transaction.execute(
                "INSERT INTO policies (version, digest, sealed, expires, pushed_at) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![whole(sealed.version), sealed.digest(), sealed.to_text(), sealed.expires.nanos(), now.nanos()],
            )?;
            Ok(true)
        })
    }
}
