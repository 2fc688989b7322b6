//! What people decided on the page: a chain of lines that is only ever added to.

use super::intake::chained;
use super::{Store, StoreError};
use rusqlite::{OptionalExtension, params};
use sekisho_schema::Timestamp;
use sekisho_schema::episode::EpisodeKey;
use serde::{Deserialize, Serialize};

/// The hash before the first line.
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What was decided about an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// It is normal.
    Approve,
    /// It stays held.
    KeepHeld,
}

/// A person's decision about an item of the review list. It changes nothing on a host: whoever seals the next
/// baseline takes it over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRuling {
    /// When, by the collector's clock.
    pub at: Timestamp,
    /// The role.
    pub role: String,
    /// The item's name.
    pub item: String,
    /// Who and to whom: the item's name is a hash of it.
    pub key: EpisodeKey,
    /// What was decided.
    pub word: Word,
    /// Who, in their own words.
    pub by: String,
    /// Why, in their own words.
    pub reason: String,
    /// The address from which it was said.
    pub peer: String,
}

impl Store {
    /// Adds a ruling to the chain.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn keep_ruling(&self, ruling: &PageRuling) -> Result<(), StoreError> {
        let line = serde_json::to_string(ruling).unwrap_or_default();
        self.on_disk("keep a ruling", |transaction| {
            let before: Option<String> = transaction
                .query_row("SELECT chain FROM rulings ORDER BY row DESC LIMIT 1", [], |row| {
                    row.get(0)
                })
                .optional()?;
            let chain = chained(before.as_deref().unwrap_or(GENESIS), &line).unwrap_or_default();
            transaction.execute(
                "INSERT INTO rulings (role, item, line, chain) VALUES (?1, ?2, ?3, ?4)",
                params![ruling.role, ruling.item, line, chain],
            )?;
            Ok(())
        })
    }

    /// The last ruling on each item of a role, in the order in which they were made.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn rulings(&self, role: &str) -> Result<Vec<PageRuling>, StoreError> {
        let lines: Vec<String> = self.reading("read the rulings", |connection| {
            connection
                .prepare_cached("SELECT line FROM rulings WHERE row IN (SELECT max(row) FROM rulings WHERE role = ?1 GROUP BY item) ORDER BY row")?
                .query_map([role], |row| row.get(0))?
                .collect()
        })?;
        Ok(lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// How many rulings there are, and the first at which the chain does not hold.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn audit_rulings(&self) -> Result<(u64, Option<u64>), StoreError> {
        self.reading("audit the rulings", |connection| {
            let mut statement =
                connection.prepare_cached("SELECT row, line, chain FROM rulings ORDER BY row")?;
            let mut rows = statement.query([])?;
            let (mut before, mut count) = (GENESIS.to_owned(), 0);
            while let Some(row) = rows.next()? {
                let (number, line, chain): (i64, String, String) =
                    (row.get(0)?, row.get(1)?, row.get(2)?);
                count += 1;
                // A row that was taken out leaves a hole in the numbers and in the chain.
                if chained(&before, &line).as_ref() != Some(&chain) || number != count {
                    return Ok((super::natural(count), Some(super::natural(number))));
                }
                before = chain;
            }
            Ok((super::natural(count), None))
        })
    }
}
