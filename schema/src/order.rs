//! A person's word: contain this, release that.

use crate::containment::{ContainmentId, Measure, Scope};
use crate::time::{Span, Timestamp};
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
        /// How to hold it.
        #[serde(default, skip_serializing_if = "Measure::is_cut")]
        measure: Measure,
        /// Whether the guard on what can't be undone over the network was broken on purpose: a link is
        /// taken down only so, or by a sealed order.
        #[serde(default, skip_serializing_if = "is_false")]
        break_glass: bool,
    },
    /// A cut that is on trial shall hold for its whole lease.
    Confirm {
        /// Which one.
        containment: ContainmentId,
    },
    /// End a containment before its lease ends.
    Release {
        /// Which one.
        containment: ContainmentId,
        /// Whether the guard on opening was broken on purpose.
        break_glass: bool,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// An order on its way from the centre to one host: sealed by the operators who give it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dispatch {
    /// Name of the host that it is for, as in events.
    pub host: String,
    /// What is ordered.
    pub order: Order,
    /// Drawn at random by who seals it: an order is carried out once.
    pub nonce: String,
    /// When it was given.
    pub at: Timestamp,
}
