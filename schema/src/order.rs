//! A person's word: contain this, release that.

use crate::containment::{ContainmentId, Scope};
use crate::time::Span;
use serde::{Deserialize, Serialize};

/// An order of a person, with a name and a reason behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What is asked for.
    pub what: Command,
    /// Who asks.
    pub by: String,
    /// Why, in their words.
    pub reason: String,
}

/// What a person asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Command {
    /// Cut a scope for a time.
    Contain {
        /// What to cut.
        scope: Scope,
        /// For how long.
        lease: Span,
    },
    /// End a containment before its lease ends.
    Release {
        /// Which one.
        containment: ContainmentId,
        /// Whether the guard on opening was broken on purpose.
        break_glass: bool,
    },
}
