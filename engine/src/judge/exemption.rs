//! What no containment may touch, asked before anything is cut.

use sekisho_schema::policy::Exemption;
use sekisho_schema::{Policy, Scope, Transport};
use std::net::IpAddr;

/// The policy's exemptions, the collectors of this agent, and its own workloads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exemptions {
    listed: Vec<Exemption>,
    collectors: Vec<IpAddr>,
    /// cgroups of the agent and of whatever holds its cuts.
    own_cgroups: Vec<String>,
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

    pub(crate) fn adopt_cgroups(&mut self, cgroups: Vec<String>) {
        self.own_cgroups = cgroups;
    }

    /// Whether a collector is known.
    pub(crate) const fn has_collector(&self) -> bool {
        !self.collectors.is_empty()
    }

    /// The exemption that forbids a cut of this scope.
    ///
    /// The cut of a destination or of an inside host hits an exemption of that address, also when it is for
    /// one port of it; wider cuts leave every exemption open. A workload must not be the agent's own, nor one
    /// that everything runs in.
    pub(crate) fn forbidding(&self, scope: &Scope) -> Option<&str> {
        match scope {
            Scope::Destination(address) => self.of_address(*address),
            Scope::Internal(host) => host.parse().ok().and_then(|host| self.of_address(host)),
            Scope::Cgroup(path) => self.of_cgroup(path),
            Scope::Container(id) => self
                .own_cgroups
                .iter()
                .any(|own| !id.is_empty() && own.contains(id.as_str()))
                .then_some(AGENT),
            Scope::Host | Scope::Link(_) | Scope::ManagementOnly => None,
        }
    }

    fn of_address(&self, address: IpAddr) -> Option<&str> {
        let peer = self.listed.iter().find_map(|exemption| match exemption {
            Exemption::Peer { name, to, .. } if to.contains(&address) => Some(name.as_str()),
            Exemption::Peer { .. } | Exemption::Service { .. } => None,
        });
        peer.or_else(|| self.collectors.contains(&address).then_some("collector"))
    }

    fn of_cgroup(&self, path: &str) -> Option<&'static str> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let is_plain = !parts.iter().any(|part| matches!(*part, "." | ".."));
        match parts.as_slice() {
            // A relative path could name anything, and a single slice holds all services or all users.
            [] => Some("the root of all workloads"),
            _ if !is_plain => Some("a path that is not plain"),
            [one] if one.ends_with(".slice") => Some("a slice of the whole system"),
            [.., "init.scope"] => Some("the service manager"),
            [.., last] if last.starts_with("user@") && last.ends_with(".service") => {
                Some("a user's service manager")
            }
            _ => self.own_cgroups.iter().any(|own| is_within(own, &parts)).then_some(AGENT),
        }
    }

    /// What forbids that a workload is cut without anybody's word: besides what forbids every cut of it, that
    /// it holds more than one service.
    pub(crate) fn forbidding_alone(&self, scope: &Scope) -> Option<&str> {
        let holds_many =
            matches!(scope, Scope::Cgroup(path) if path.trim_end_matches('/').ends_with(".slice"));
        self.forbidding(scope)
            .or_else(|| holds_many.then_some("a slice, which holds many services"))
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

const AGENT: &str = "the agent itself";

/// Whether a path lies in the cgroup of these parts, or is it.
fn is_within(path: &str, parts: &[&str]) -> bool {
    let mut own = path.split('/').filter(|part| !part.is_empty());
    parts.iter().all(|part| own.next() == Some(*part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cut_takes_the_agent_or_everything_with_it() {
        let mut exemptions = Exemptions::default();
        let agent = "/system.slice/sekisho.service/agent".to_owned();
        exemptions.adopt_cgroups(vec![agent, "/system.slice/docker-0a1b.scope".into()]);
        for path in [
            "/",
            "//",
            "/system.slice",
            "/system.slice/",
            "/init.scope",
            "/user.slice/user-1000.slice/user@1000.service",
            "/user.slice/user-1000.slice/user@1000.service/init.scope",
            "/system.slice/sekisho.service",
            "/system.slice/sekisho.service/agent",
            "/system.slice/../system.slice/web.service",
        ] {
            assert!(exemptions.forbidding(&Scope::Cgroup(path.into())).is_some(), "{path}");
        }
        for path in [
            "/system.slice/web.service",
            "/system.slice/sekisho.service2",
            "/system.slice/sekisho.service/agent/child",
            "/user.slice/user-1000.slice/session-2.scope",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/x.service",
        ] {
            assert_eq!(exemptions.forbidding(&Scope::Cgroup(path.into())), None, "{path}");
        }
        assert!(exemptions.forbidding(&Scope::Container("0a1b".into())).is_some());
        assert!(exemptions.forbidding(&Scope::Container("0a1c".into())).is_none());
        let users = Scope::Cgroup("/user.slice/user-1000.slice".into());
        assert!(exemptions.forbidding(&users).is_none());
        assert!(exemptions.forbidding_alone(&users).is_some());
    }
}
