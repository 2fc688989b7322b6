//! Enters: records, from the detecting thread. Leaves: lines that survive a crash, in order,
//! numbered and chained, for people (`findings`, `journal verify`) and for the upload.
//! Must not know: what a record means, the network, the engine.
//!
//! # On disk
//! A directory of segments `NUMBER-BOOT-FIRST.log`. The first line of a segment is
//! `sekisho-journal/1 BOOT FIRST PREV`; every other line is `HASH JSON`, where `HASH` is the
//! SHA-256 (64 hexadecimal digits) of the 32 bytes of the hash before it and the bytes of `JSON`,
//! and `PREV` is the hash before the segment's first line (64 zeros in the first segment of all).
//! `JSON` is one event of the schema `sekisho.event/1`; its sequence counts from 1 in each boot.

mod chain;
mod cursor;
mod reader;
mod segment;
mod spool;
mod writer;

pub use chain::{Hash, chain_hash};
pub use cursor::Cursor;
pub use reader::{Fault, VerifyReport, read_envelopes, verify};
pub use segment::{Journal, JournalError, JournalOptions};
pub use spool::{Batch, ReadSpoolError, Spool};
pub use writer::{JournalHandle, JournalHealth, spawn};

use sekisho_schema::Body;

/// Whether losing a record would hide what was cut, found or decided.
#[must_use]
pub const fn is_first_class(body: &Body) -> bool {
    match body {
        Body::Baseline(_)
        | Body::Coverage(_)
        | Body::Drill(_)
        | Body::Gap(_)
        | Body::Preview(_)
        | Body::Summary(_) => false,
        Body::Containment(_)
        | Body::Evidence(_)
        | Body::Finding(_)
        | Body::Mode(_)
        | Body::Policy(_)
        | Body::Receipt(_)
        | Body::Release(_) => true,
    }
}

#[cfg(test)]
mod tests;
