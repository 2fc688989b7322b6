//! What no containment may touch, asked before anything is cut.

use sekisho_schema::policy::Exemption;
use sekisho_schema::{Policy, Scope, Transport};
use std::net::IpAddr;

/// The policy's exemptions and the collectors of this agent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exemptions {
    listed: Vec<Exemption>,
    collectors: Vec<IpAddr>,
}

/// A packet that leaves, as far as an exemption asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving {
    pub(crate) transport: Transport,
    pub(crate) local_port: u16,
    pub(crate) remote: IpAddr,
    pub(crate) remote_port: u16,
}

impl Exemptions {
    pub(crate) fn adopt_policy(&mut self, policy: &Policy) {
        self.listed.clone_from(&policy.exempt);
    }

    pub(crate) fn adopt_collectors(&mut self, collectors: Vec<IpAddr>) {
        self.collectors = collectors.into_iter().map(|address| address.to_canonical()).collect();
    }

    /// The exemption that forbids a cut of this scope.
    ///
    /// Only the cut of a destination can hit one, also when the exemption is for one port of it:
    /// wider cuts leave every exemption open.
    pub(crate) fn forbidding(&self, scope: &Scope) -> Option<&str> {
        let Scope::Destination(address) = scope else { return None };
        let peer = self.listed.iter().find_map(|exemption| match exemption {
            Exemption::Peer { name, to, .. } if to.contains(address) => Some(name.as_str()),
            Exemption::Peer { .. } | Exemption::Service { .. } => None,
        });
        peer.or_else(|| self.collectors.contains(address).then_some("collector"))
    }

    /// Whether a packet may leave under a cut of the host.
    pub(crate) fn leave_open(&self, packet: Leaving) -> bool {
        self.collectors.contains(&packet.remote)
            || self.listed.iter().any(|exemption| match exemption {
                Exemption::Peer { to, transport, port, .. } => {
                    to.contains(&packet.remote)
                        && transport.is_none_or(|transport| transport == packet.transport)
                        && port.is_none_or(|port| port == packet.remote_port)
                }
                Exemption::Service { transport, port, from, .. } => {
                    *transport == packet.transport
                        && *port == packet.local_port
                        && from.contains(&packet.remote)
                }
            })
    }
}
