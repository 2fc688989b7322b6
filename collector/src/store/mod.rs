//! The collector's memory: one SQLite file.
//!
//! What enters: events, states, tokens, policies. What leaves: acknowledgements that are only
//! given after the disk has it, and views for people. It knows neither HTTP nor TLS, and is
//! used by the server and by the command line at the same time.

mod audit;
mod certificates;
mod certified;
mod drills;
mod enrolment;
mod fleet;
mod intake;
mod learning;
mod notices;
mod orders;
mod policies;
mod read;
mod retention;
mod rulings;
mod state;
mod trials;

pub use certificates::Standing;
pub use certified::{Certified, Versions};
pub use drills::{DrillView, Overdue};
pub use enrolment::{Enrolment, RedeemError, TokenView};
pub use fleet::FleetSpent;
pub use intake::{Arrival, Batch, BatchError, Outcome};
pub use learning::{PartOutcome, RoleView};
pub use notices::{DeliveryView, Due, NewNotice, NoticeKind, NoticeView};
pub use orders::{NewOrder, OrderAnswer, OrderHanded, OrderState, OrderView};
pub use policies::StoredPolicy;
pub use read::{
    AuditReport, ContainmentView, EventView, FindingView, HostView, Liveness, PROMISED_STATE_EVERY,
    ReceiptView, SILENT_AFTER, Sample,
};
pub use retention::{LEAST, Pruning};
pub use rulings::{PageRuling, Word};
pub use state::{Heartbeat, MAX_CONTAINMENTS};
pub use trials::GroupSpent;

use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};
use sekisho_schema::Timestamp;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Version of the tables; kept in the file's `user_version`.
const TABLES: i64 = 3;
/// How long one writer waits for another process's writer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file can't be opened.
    #[error("cannot open the database {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The file was written by a newer collector.
    #[error("the database has tables of version {found}; this collector knows version {known}")]
    Newer {
        /// The version in the file.
        found: i64,
        /// The version known here.
        known: i64,
    },
    /// A statement failed; the transaction it was part of left nothing behind.
    #[error("cannot {doing}: {source}")]
    Query {
        /// What was being done.
        doing: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

/// Names what was being done when SQLite refused.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError>;
}

impl<T> Doing<T> for rusqlite::Result<T> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Query { doing, source })
    }
}

/// Two connections behind one lock, because SQLite has one writer.
struct Writer {
    /// Syncs on each commit: what is acknowledged is on the disk.
    ledger: Connection,
    /// Does not sync on each commit: a state that is lost is told again within seconds.
    pulse: Connection,
}

/// The database.
pub struct Store {
    writer: Mutex<Writer>,
    reader: Mutex<Connection>,
    watcher: Mutex<Connection>,
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while the lock was held has rolled its transaction back: the connection is sound.
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nanos(at: Timestamp) -> i64 {
    at.nanos()
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn natural(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn open(path: &Path, flags: OpenFlags, synchronous: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

impl Store {
    /// Opens the database, and makes it when `create` is set.
    ///
    /// # Errors
    /// When the file can't be opened or was written by a newer collector.
    pub fn open(path: &Path, create: bool) -> Result<Self, StoreError> {
        let fail = |source| StoreError::Open { path: path.to_owned(), source };
        let write = if create {
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
        } else {
            OpenFlags::SQLITE_OPEN_READ_WRITE
        };
        let mut ledger = open(path, write, "FULL").map_err(fail)?;
        let _: String =
            ledger.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(fail)?;
        Self::arrange(&mut ledger, create)?;
        let more = || open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, "NORMAL").map_err(fail);
        let (pulse, reader, watcher) = (more()?, more()?, more()?);
        for connection in [&reader, &watcher] {
            connection.pragma_update(None, "query_only", true).map_err(fail)?;
        }
        Ok(Self {
            writer: Mutex::new(Writer { ledger, pulse }),
            reader: Mutex::new(reader),
            watcher: Mutex::new(watcher),
        })
    }

    fn arrange(ledger: &mut Connection, create: bool) -> Result<(), StoreError> {
        let doing = "arrange the tables";
        let transaction =
            ledger.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
        let found: i64 =
            transaction.query_row("PRAGMA user_version", [], |row| row.get(0)).doing(doing)?;
        match found {
            TABLES => {}
            0..TABLES if found > 0 || create => {
                let steps = [
                    include_str!("schema.sql"),
                    include_str!("schema-2.sql"),
                    include_str!("schema-3.sql"),
                ];
                for step in steps.iter().skip(usize::try_from(found).unwrap_or(0)) {
                    transaction.execute_batch(step).doing(doing)?;
                }
                transaction.pragma_update(None, "user_version", TABLES).doing(doing)?;
            }
            _ => return Err(StoreError::Newer { found, known: TABLES }),
        }
        transaction.commit().doing(doing)
    }

    /// One transaction that is on the disk when this returns.
    fn on_disk<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut writer = held(&self.writer);
        transact(&mut writer.ledger, doing, work)
    }

    /// One transaction that may be lost when the power fails within seconds.
    fn in_passing<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut writer = held(&self.writer);
        transact(&mut writer.pulse, doing, work)
    }

    fn reading<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let connection = held(&self.reader);
        // One snapshot for a view of several queries.
        let snapshot = connection.unchecked_transaction().doing(doing)?;
        work(&snapshot).doing(doing)
    }

    /// A number that differs after anybody has committed a change, also another process.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn change_mark(&self) -> Result<i64, StoreError> {
        held(&self.watcher)
            .query_row("PRAGMA data_version", [], |row| row.get(0))
            .doing("look for changes")
    }

    /// A value kept under a name.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.reading("read a setting", |connection| {
            connection
                .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
                .optional()
        })
    }

    /// Keeps values under names, all of them or none.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn keep_meta(&self, values: &[(&str, &str)]) -> Result<(), StoreError> {
        self.on_disk("keep a setting", |transaction| {
            for (key, value) in values {
                transaction.execute("INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value", params![key, value])?;
            }
            Ok(())
        })
    }
}

fn transact<T>(
    connection: &mut Connection,
    doing: &'static str,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> Result<T, StoreError> {
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
    let value = work(&transaction).doing(doing)?;
    transaction.commit().doing(doing)?;
    Ok(value)
}

#[cfg(test)]
mod cut_tests;
#[cfg(test)]
mod tests;
