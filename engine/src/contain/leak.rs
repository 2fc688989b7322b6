//! What was seen to leave of a contained scope after it was decided to cut it.

use sekisho_schema::{Containment, ContainmentId, ContainmentSet, Measure, Scope, Timestamp};
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
pub(crate) struct Leaks {
    counts: BTreeMap<ContainmentId, Leak>,
    /// Generation of the set that the two lists below are of.
    generation: u64,
    /// Contained destinations, by address: looked for in a time that hardly grows with their number.
    destinations: Vec<(IpAddr, Timestamp, ContainmentId)>,
    /// Contained inside hosts, and `None` for this host as a whole.
    hosts: Vec<(Option<IpAddr>, Timestamp, ContainmentId)>,
}

impl Leaks {
    pub(crate) fn of(&self, id: &ContainmentId) -> Leak {
        self.counts.get(id).copied().unwrap_or_default()
    }

    pub(crate) fn forget(&mut self, id: &ContainmentId) {
        self.counts.remove(id);
    }

    /// Counts a packet toward every containment of the set that it escaped.
    pub(crate) fn count(
        &mut self,
        set: &ContainmentSet,
        at: Timestamp,
        bytes: u64,
        local: IpAddr,
        remote: IpAddr,
    ) {
        if set.generation != self.generation {
            self.follow(set);
        }
        let first = self.destinations.partition_point(|(address, ..)| *address < remote);
        let here = self.destinations.iter().skip(first);
        let destinations = here.take_while(|(address, ..)| *address == remote);
        let of_host = |(host, ..): &&(Option<IpAddr>, Timestamp, ContainmentId)| {
            host.is_none_or(|host| host == local)
        };
        let escaped = destinations
            .map(|(_, since, id)| (since, id))
            .chain(self.hosts.iter().filter(of_host).map(|(_, since, id)| (since, id)))
            .filter(|(since, _)| at > **since);
        for (_, id) in escaped {
            let leak = match self.counts.get_mut(id) {
                Some(leak) => leak,
                None => self.counts.entry(id.clone()).or_default(),
            };
            leak.packets += 1;
            leak.bytes = leak.bytes.saturating_add(bytes);
            leak.last_at = leak.last_at.max(Some(at));
        }
    }

    fn follow(&mut self, set: &ContainmentSet) {
        self.generation = set.generation;
        self.destinations.clear();
        self.hosts.clear();
        // What is only slowed or counted may leave.
        let is_cut = |held: &&Containment| matches!(held.measure, Measure::Cut | Measure::Freeze);
        for held in set.containments.values().filter(is_cut) {
            let (since, id) = (held.since, held.id.clone());
            match &held.scope {
                Scope::Destination(address) => self.destinations.push((*address, since, id)),
                Scope::Host | Scope::ManagementOnly => self.hosts.push((None, since, id)),
                Scope::Internal(host) => {
                    self.hosts.extend(host.parse().ok().map(|host| (Some(host), since, id)));
                }
                // A packet does not say which program sent it.
                Scope::Cgroup(_) | Scope::Container(_) | Scope::Link(_) => {}
            }
        }
        self.destinations.sort();
    }
}
