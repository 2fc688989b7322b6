//! What goes into the cell, and what comes out of it.

use super::figures::Figures;
use super::scenario::Drill;
use serde::{Deserialize, Serialize};

/// All that the cell is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Brief {
    /// What is rehearsed.
    pub(super) drill: Drill,
    /// The policy in force with what a drill lays over it, sealed.
    pub(super) policy: String,
    /// The only trust anchor of the cell.
    pub(super) anchor: String,
    /// Names and texts of the operator's packs.
    pub(super) packs: Vec<(String, String)>,
    /// Whether the guardian makes the tables its own.
    pub(super) own_tables: bool,
    /// Begins the names of the namespaces.
    pub(super) prefix: String,
    /// The level that the decision table has for what is rehearsed.
    pub(super) policy_level: u8,
}

/// What became of a rehearsal: what was measured, or why it could not be held.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Rehearsal {
    /// It took place.
    Measured(Box<Figures>),
    /// It could not be held at all.
    Failed(Failure),
}

/// All that the cell tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) rehearsal: Rehearsal,
    /// Inodes of the network namespaces of the cell.
    pub(super) namespaces: Vec<u64>,
}

/// Why a rehearsal could not be held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What could not be done.
    pub what: String,
    /// The last words of the program that failed.
    pub said: String,
}

impl Failure {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), said: String::new() }
    }
}
