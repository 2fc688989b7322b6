//! What the ruleset is built from, and the same judgement as a pure function.

use ipnet::IpNet;
use sekisho_schema::policy::Exemption;
use sekisho_schema::{Scope, Transport};
use std::net::{IpAddr, SocketAddr};

/// Everything the ruleset depends on; it changes with the policy and with the host's interfaces, never with a containment.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Plan {
    /// Devices that lead out of the host, by name.
    pub uplinks: Vec<String>,
    /// Networks inside the perimeter.
    pub inside: Vec<IpNet>,
    /// Networks that the host's own interfaces are part of; neighbour discovery may reach them.
    pub on_link: Vec<IpNet>,
    /// What no containment may touch.
    pub exempt: Vec<Exemption>,
    /// Endpoints of the collector.
    pub collector: Vec<SocketAddr>,
    /// Whether destinations known beforehand are dropped before any packet of theirs was seen.
    pub known: bool,
}

/// Why a scope is not cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The target is something that no containment may touch; the text names it.
    #[error("it is exempt: {0}")]
    Exempt(String),
    /// This version has no means to cut such a scope.
    #[error(
        "this version can't cut such a scope; dest:ADDR, host and management-only are available"
    )]
    Unsupported,
}

impl Plan {
    /// Whether an address lies inside the perimeter.
    #[must_use]
    pub fn is_inside(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.inside.iter().any(|network| network.contains(&address))
    }

    /// Why a scope may not be cut under this plan; `None` when it may.
    #[must_use]
    pub fn refusal(&self, scope: &Scope) -> Option<Refusal> {
        let address = match scope {
            Scope::Host | Scope::ManagementOnly => return None,
            Scope::Cgroup(_) | Scope::Container(_) | Scope::Internal(_) | Scope::Link(_) => {
                return Some(Refusal::Unsupported);
            }
            Scope::Destination(address) => address.to_canonical(),
        };
        if address.is_loopback() || address.is_unspecified() {
            return Some(Refusal::Exempt(format!("{address} is this host itself")));
        }
        if let Some(collector) =
            self.collector.iter().find(|endpoint| endpoint.ip().to_canonical() == address)
        {
            return Some(Refusal::Exempt(format!("{collector} is the collector")));
        }
        self.exempt.iter().find_map(|exemption| match exemption {
            Exemption::Peer { name, to, .. } if to.contains(&address) => {
                Some(Refusal::Exempt(format!("{address} belongs to \"{name}\" ({to})")))
            }
            Exemption::Peer { .. } | Exemption::Service { .. } => None,
        })
    }

    /// Whether an exemption or the collector lets this flow pass every cut, as the ruleset does.
    #[must_use]
    pub fn passes(&self, transport: Transport, local_port: u16, remote: SocketAddr) -> bool {
        let address = remote.ip().to_canonical();
        let collector = self.collector.iter().any(|endpoint| {
            transport == Transport::Tcp
                && endpoint.ip().to_canonical() == address
                && endpoint.port() == remote.port()
        });
        address.is_loopback()
            || collector
            || self.exempt.iter().any(|exemption| match exemption {
                Exemption::Peer { to, transport: only, port, .. } => {
                    to.contains(&address)
                        && only.is_none_or(|only| only == transport)
                        && port.is_none_or(|port| port == remote.port())
                }
                Exemption::Service { transport: only, port, from, .. } => {
                    from.contains(&address) && *only == transport && *port == local_port
                }
            })
    }
}

/// Whether a cut of `scope` stops this flow: the ruleset as a pure function, for sockets and for proofs.
///
/// A flow of an exempt service is taken to be an answer; that such a service can't open
/// connections is left to the ruleset, which sees the flags.
#[must_use]
pub fn is_cut(
    scope: &Scope,
    transport: Transport,
    local_port: u16,
    remote: SocketAddr,
    plan: &Plan,
) -> bool {
    if plan.passes(transport, local_port, remote) {
        return false;
    }
    match scope {
        Scope::Destination(address) => address.to_canonical() == remote.ip().to_canonical(),
        Scope::Host => !plan.is_inside(remote.ip()),
        Scope::ManagementOnly => true,
        Scope::Cgroup(_) | Scope::Container(_) | Scope::Internal(_) | Scope::Link(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            uplinks: vec!["eth0".to_owned()],
            inside: vec!["10.0.0.0/8".parse().unwrap(), "fc00::/7".parse().unwrap()],
            on_link: vec![],
            exempt: vec![
                Exemption::Peer {
                    name: "backup".to_owned(),
                    to: "198.51.100.20/32".parse().unwrap(),
                    transport: Some(Transport::Tcp),
                    port: Some(443),
                },
                Exemption::Service {
                    name: "customers".to_owned(),
                    transport: Transport::Tcp,
                    port: 80,
                    from: "0.0.0.0/0".parse().unwrap(),
                },
            ],
            collector: vec!["192.0.2.9:8443".parse().unwrap()],
            known: true,
        }
    }

    fn cut(scope: &str, transport: Transport, local_port: u16, remote: &str) -> bool {
        is_cut(&scope.parse().unwrap(), transport, local_port, remote.parse().unwrap(), &plan())
    }

    #[test]
    fn a_host_cut_spares_the_inside_the_collector_and_the_exemptions() {
        let tcp = Transport::Tcp;
        assert!(cut("host", tcp, 40000, "203.0.113.9:443"));
        assert!(cut("host", tcp, 40000, "[2001:db8::9]:443"));
        for spared in [
            "10.9.9.9:22",
            "[fd00::1]:22",
            "[::ffff:10.9.9.9]:22",
            "192.0.2.9:8443",
            "198.51.100.20:443",
            "127.0.0.1:5432",
        ] {
            assert!(!cut("host", tcp, 40000, spared), "{spared}");
        }
        assert!(!cut("host", tcp, 80, "203.0.113.9:50000"), "an answer of an exempt service");
        assert!(cut("host", tcp, 40000, "192.0.2.9:22"), "another port of the collector");
        assert!(
            cut("host", Transport::Udp, 40000, "198.51.100.20:443"),
            "another transport of an exempt peer"
        );
    }

    #[test]
    fn management_only_cuts_the_inside_too() {
        assert!(cut("management-only", Transport::Tcp, 40000, "10.9.9.9:22"));
        assert!(!cut("management-only", Transport::Tcp, 40000, "192.0.2.9:8443"));
        assert!(!cut("management-only", Transport::Tcp, 40000, "[::1]:22"));
    }

    #[test]
    fn a_destination_cut_is_for_that_address_in_every_notation() {
        assert!(cut("dest:203.0.113.9", Transport::Udp, 1, "203.0.113.9:53"));
        assert!(cut("dest:203.0.113.9", Transport::Udp, 1, "[::ffff:203.0.113.9]:53"));
        assert!(!cut("dest:203.0.113.9", Transport::Udp, 1, "203.0.113.10:53"));
    }

    #[test]
    fn a_target_that_is_exempt_is_refused_by_name() {
        let plan = plan();
        let refusal = |scope: &str| plan.refusal(&scope.parse().unwrap());
        assert!(
            matches!(refusal("dest:192.0.2.9"), Some(Refusal::Exempt(why)) if why.contains("collector"))
        );
        assert!(
            matches!(refusal("dest:198.51.100.20"), Some(Refusal::Exempt(why)) if why.contains("backup"))
        );
        assert!(matches!(refusal("dest:127.0.0.2"), Some(Refusal::Exempt(_))));
        assert_eq!(refusal("cgroup:/x.slice"), Some(Refusal::Unsupported));
        assert_eq!(refusal("dest:203.0.113.9"), None);
        assert_eq!(refusal("host"), None);
    }
}
