//! What a cut would refuse, told from the flows of the last days before anybody confirms it.
//!
//! Enters: flows as they end, by the hour on disk; a scope and a plan. Leaves: services, peers and bytes that the
//! same cut would have refused. Must not know: findings, detectors, how a cut is made.

mod blast;
mod ledger;
mod row;

pub use blast::{LINES, preview};
pub use ledger::{Ask, Ledger, ReadTrafficError, read_since};
pub use row::{Client, Hour, Row, RowKey};
