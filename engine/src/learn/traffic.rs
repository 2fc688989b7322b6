//! Flows with an end inside, as they end: what a preview of a cut is made from.

use crate::flow::{FlowFacts, Route};
use sekisho_schema::finding::Direction;
use sekisho_schema::{FlowKey, Timestamp, Transport};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// Flows that may wait to be taken; more are counted and forgotten.
const WAITING: usize = 65_536;

/// A flow between the inside and the outside, or within the inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowEnd {
    /// Its ends.
    pub key: FlowKey,
    /// Who spoke first.
    pub direction: Direction,
    /// When its first packet was seen.
    pub first_at: Timestamp,
    /// When its last packet so far was seen.
    pub last_at: Timestamp,
    /// Payload bytes toward the outside.
    pub bytes_out: u64,
    /// Payload bytes toward the inside.
    pub bytes_in: u64,
    /// The name that the inside end asked for, as far as DNS told.
    pub name: Option<String>,
}

impl FlowEnd {
    /// What is told of a flow, seen from the host with these addresses; `None` for one with neither end inside.
    ///
    /// Within the inside, who spoke first is the local end of a flow; here the own host is, where it is an end.
    #[must_use]
    pub fn of(flow: &FlowFacts<'_>, own: &BTreeSet<IpAddr>) -> Option<Self> {
        let is_told = match flow.route {
            Route::Egress => true,
            Route::Inside => !is_of_the_link(&flow.key),
            Route::Transit => false,
        };
        if !is_told {
            return None;
        }
        let is_own = |end: SocketAddr| own.contains(&end.ip().to_canonical());
        let told = Self {
            key: flow.key,
            direction: flow.direction,
            first_at: flow.first_at,
            last_at: flow.last_at,
            bytes_out: flow.bytes_out,
            bytes_in: flow.bytes_in,
            name: flow.bound_name.map(str::to_owned),
        };
        let called =
            flow.route == Route::Inside && is_own(flow.key.remote) && !is_own(flow.key.local);
        Some(if called { told.turned() } else { told })
    }

    /// The same flow seen from its other end.
    fn turned(self) -> Self {
        Self {
            key: FlowKey { local: self.key.remote, remote: self.key.local, ..self.key },
            direction: match self.direction {
                Direction::Inbound => Direction::Outbound,
                Direction::Outbound => Direction::Inbound,
            },
            bytes_out: self.bytes_in,
            bytes_in: self.bytes_out,
            ..self
        }
    }
}

/// Whether a flow is what neighbours on a link tell each other: no cut refuses that.
fn is_of_the_link(key: &FlowKey) -> bool {
    let is_near = |address: IpAddr| match address {
        IpAddr::V4(address) => {
            address.is_multicast() || address.is_link_local() || address.is_broadcast()
        }
        IpAddr::V6(address) => address.is_multicast() || address.is_unicast_link_local(),
    };
    key.transport == Transport::Icmpv6 || is_near(key.remote.ip()) || is_near(key.local.ip())
}

/// Flows that ended since they were last taken.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    is_wanted: bool,
    flows: Vec<FlowEnd>,
    lost: u64,
}

impl Ended {
    /// Begins to remember; nothing is before.
    pub(crate) const fn want(&mut self) {
        self.is_wanted = true;
    }

    #[inline]
    pub(crate) fn note(&mut self, flow: &FlowFacts<'_>, own: &BTreeSet<IpAddr>) {
        if !self.is_wanted {
            return;
        }
        if self.flows.len() >= WAITING {
            self.lost += 1;
            return;
        }
        self.flows.extend(FlowEnd::of(flow, own));
    }

    /// What ended, and how many flows were forgotten because nobody took them.
    pub(crate) fn take(&mut self) -> (Vec<FlowEnd>, u64) {
        (std::mem::take(&mut self.flows), std::mem::take(&mut self.lost))
    }
}
