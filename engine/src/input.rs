//! What enters the engine. Time comes in with the data.

use crate::learn::Baseline;
use crate::rules::Rules;
use crate::wire::Frame;
use sekisho_schema::order::Order;
use sekisho_schema::{
    Containment, ContainmentId, FlowKey, Policy, Process, Receipt, Span, Timestamp, Verified,
};
use std::net::IpAddr;

/// A fact about the host that only the agent can know.
#[derive(Clone, Debug)]
pub enum HostFact {
    /// This host's own addresses: they count as inside.
    Addresses(Vec<IpAddr>),
    /// cgroup v2 paths of the agent itself and of whatever holds its cuts: no cut may take them.
    Cgroups(Vec<String>),
    /// The wall clock was set by this much against the steady one; the fact's time is the new one.
    ClockSet(Span),
    /// Where this agent's collectors are: they are exempt.
    Collectors(Vec<IpAddr>),
    /// The collector took the receipt of this containment over a connection that the cut leaves open.
    Confirmed(ContainmentId),
    /// Whether a cut can be held here; the error says why not.
    Enforcement(Result<(), String>),
    /// Whether this agent has a collector, reachable or not: then a trial waits for its word.
    Enrolled(bool),
    /// So many containments of level 5 and above began in the whole group since a time, this host's among
    /// them; what is more than an hour ago does not count.
    GroupSpent {
        /// How many.
        count: u32,
        /// Since when.
        since: Timestamp,
    },
    /// Containments that the kernel was found to hold at start.
    Held(Vec<Containment>),
    /// Frames that the kernel dropped before they could be read.
    Lost(u64),
    /// Free space on a volume of data fell by so many bytes within an hour.
    SpaceFell(u64),
    /// Who owns a flow; `None` when nobody of this host does.
    Owner {
        /// The flow.
        flow: FlowKey,
        /// The process.
        process: Option<Box<Process>>,
    },
}

/// What enters the engine.
pub enum Input<'a> {
    /// What was learned before.
    Baseline(Box<Baseline>, Timestamp),
    /// A fact about the host.
    Fact(HostFact, Timestamp),
    /// A frame; it carries its own time.
    Frame(Frame<'a>),
    /// A person's order.
    Order(Verified<Order>, Timestamp),
    /// A policy to adopt.
    Policy(Box<Verified<Policy>>, Timestamp),
    /// What the kernel holds.
    Receipt(Box<Receipt>, Timestamp),
    /// Rules to look for.
    Rules(Box<Rules>, Timestamp),
}
