//! What was seen to leave of a contained scope after it was decided to cut it.

use sekisho_schema::{Containment, ContainmentId, Measure, Scope, Timestamp};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Packets of a contained scope that left after the decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leak {
    /// Packets.
    pub packets: u64,
    /// Bytes on the wire.
    pub bytes: u64,
    /// When the last of them was seen.
    pub last_at: Option<Timestamp>,
}

/// The counters by containment; those of ended containments go with them.
#[derive(Debug, Default)]
pub(crate) struct Leaks(BTreeMap<ContainmentId, Leak>);

impl Leaks {
    pub(crate) fn of(&self, id: &ContainmentId) -> Leak {
        self.0.get(id).copied().unwrap_or_default()
    }

    pub(crate) fn forget(&mut self, id: &ContainmentId) {
        self.0.remove(id);
    }

    /// Counts a packet toward every containment that it escaped.
    pub(crate) fn count<'a>(
        &mut self,
        active: impl Iterator<Item = &'a Containment>,
        at: Timestamp,
        bytes: u64,
        local: IpAddr,
        remote: IpAddr,
    ) {
        let escaped = |held: &&Containment| {
            at > held.since
                // What is only slowed or counted may leave.
                && matches!(held.measure, Measure::Cut | Measure::Freeze)
                && match &held.scope {
                    Scope::Destination(address) => remote == *address,
                    Scope::Host | Scope::ManagementOnly => true,
                    Scope::Internal(host) => host.parse() == Ok(local),
                    // A packet does not say which program sent it.
                    Scope::Cgroup(_) | Scope::Container(_) | Scope::Link(_) => false,
                }
        };
        for held in active.filter(escaped) {
            let leak = self.0.entry(held.id.clone()).or_default();
            leak.packets += 1;
            leak.bytes = leak.bytes.saturating_add(bytes);
            leak.last_at = leak.last_at.max(Some(at));
        }
    }
}
