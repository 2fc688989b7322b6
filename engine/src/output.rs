//! What leaves the engine: what shall be held first, the rest in the order of cause and effect.

use sekisho_schema::{ContainmentSet, FlowKey, Record, Timestamp};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What the kernel shall hold, and what led to it.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainOrder {
    /// The whole desired state.
    pub set: ContainmentSet,
    /// Time of the frame that decided; `None` for an order of a person or the end of a lease.
    pub decided_at: Option<Timestamp>,
    /// The flow that decided, so that its owner can be asked before its sockets are ended.
    pub flow: Option<FlowKey>,
}

/// What leaves the engine.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// The addresses that answers gave for names that the policy approves, whole: an allowance that the
    /// kernel keeps knows addresses alone. Emitted when the set changed.
    Approve(BTreeSet<IpAddr>),
    /// Say who owns this flow, by `HostFact::Owner`: a cut waits for it. Comes after the order that it belongs to.
    AskOwner(FlowKey),
    /// Hold this, at once; it comes before all that is told of it. Never emitted in learn and dry-run.
    Contain(Box<ContainOrder>),
    /// Write this down.
    Record(Box<Record>),
}
