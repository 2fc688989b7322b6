//! What the ruleset is built from, and the same judgement as a pure function.

use super::cell::Cell;
use crate::target::Target;
use ipnet::IpNet;
use sekisho_schema::policy::{Exemption, Names};
use sekisho_schema::{Measure, Scope, Span, Transport};
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
    /// Connections to the collector that are open now, local end and remote end: they pass also where the name led elsewhere since.
    pub collector_live: Vec<(SocketAddr, SocketAddr)>,
    /// Whether destinations known beforehand are dropped before any packet of theirs was seen.
    pub known: bool,
    /// How much may go to each outside destination, held by the kernel alone; `None`: no bound.
    pub allowance: Option<KernelAllowance>,
    /// Whom a contained inside host, and any host under `management-only`, may ask for names.
    pub names: Names,
    /// Proxies that would speak for a contained workload: address and port, on the loopback or elsewhere.
    pub deputies: Vec<SocketAddr>,
    /// Cgroups of this program and of its guardian, as paths below the root: never cut, nor what contains them.
    pub own_cgroups: Vec<String>,
    /// Whether this host has a bridge, so that frames between its ports are judged too.
    pub bridged: bool,
}

/// How much may go to each outside destination, held by the kernel alone.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KernelAllowance {
    /// Bytes of packets to one destination, as the kernel counts them.
    pub bytes: u64,
    /// Within which time, from the first packet on.
    pub window: Span,
    /// Outside networks that cost nothing.
    pub approved: Vec<IpNet>,
}

/// Why a scope is not cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The target is something that no containment may touch; the text names it.
    #[error("it is exempt: {0}")]
    Exempt(String),
    /// There is nothing to hold, or no means to hold it here; the text says which.
    #[error("it can't be held here: {0}")]
    Unsupported(String),
}

/// Both ends of a flow, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The transport.
    pub transport: Transport,
    /// The end on the sender's side.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// The cgroup of the socket, where it is known.
    pub cgroup: Option<u64>,
}

impl Plan {
    /// Whether an address lies inside the perimeter.
    #[must_use]
    pub fn is_inside(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.inside.iter().any(|network| network.contains(&address))
    }

    /// Why a scope may not be cut under this plan; `None` when it may, or when that depends on what it is on this host.
    #[must_use]
    pub fn refusal(&self, scope: &Scope) -> Option<Refusal> {
        match scope {
            Scope::Host | Scope::ManagementOnly | Scope::Container(_) => None,
            Scope::Destination(address) => self.spared(*address).map(Refusal::Exempt),
            Scope::Cgroup(path) => self.own(path).map(Refusal::Exempt),
            Scope::Internal(host) => {
                host.parse().ok().and_then(|address| self.spared(address)).map(Refusal::Exempt)
            }
            Scope::Link(_) => Some(Refusal::Unsupported(
                "no rule takes a device down; the guardian does".to_owned(),
            )),
        }
    }

    /// Why a scope may not be held so, given what it is on this host; `None` when it may.
    #[must_use]
    pub fn refusal_of(
        &self,
        scope: &Scope,
        measure: Measure,
        target: Option<&Target>,
    ) -> Option<Refusal> {
        let unsupported = |why: &str| Some(Refusal::Unsupported(why.to_owned()));
        if !scope.takes(measure) {
            return Some(Refusal::Unsupported(format!("{scope} can't be {measure}, only cut")));
        }
        // What is merely counted loses nothing.
        if let Some(refusal) = self.refusal(scope).filter(|_| measure != Measure::Observe) {
            return Some(refusal);
        }
        if !matches!(scope, Scope::Cgroup(_) | Scope::Container(_) | Scope::Internal(_)) {
            return None;
        }
        let Some(target) = target else {
            return unsupported("nobody has found out what it is on this host");
        };
        let own = target.cgroups.iter().find_map(|cgroup| self.own(&cgroup.path));
        let spared = target.addresses.iter().find_map(|address| self.spared(*address));
        if let Some(why) = own.or(spared) {
            return Some(Refusal::Exempt(why));
        }
        if target.macs.iter().any(|[first, ..]| first & 1 == 1) {
            return unsupported("a group's hardware address is nobody's");
        }
        if Cell::of(scope, measure, Some(target), self).iter().all(Cell::is_auxiliary) {
            let deep = target.cgroups.iter().any(|cgroup| cgroup.level > 8);
            return unsupported(if deep {
                "its cgroup lies deeper than eight levels, and nothing else of it is known"
            } else {
                "nothing of it is there now: no cgroup, no address, no port"
            });
        }
        None
    }

    /// Why an address is never cut, in words.
    fn spared(&self, address: IpAddr) -> Option<String> {
        let address = address.to_canonical();
        if address.is_loopback() || address.is_unspecified() {
            return Some(format!("{address} is this host itself"));
        }
        let live = self.collector_live.iter().map(|(_, remote)| remote);
        if let Some(collector) =
            self.collector.iter().chain(live).find(|end| end.ip().to_canonical() == address)
        {
            return Some(format!("{collector} is the collector"));
        }
        self.exempt.iter().find_map(|exemption| match exemption {
            Exemption::Peer { name, to, .. } if to.contains(&address) => {
                Some(format!("{address} belongs to \"{name}\" ({to})"))
            }
            Exemption::Peer { .. } | Exemption::Service { .. } => None,
        })
    }

    /// Why a cgroup is never cut, in words: this program runs in it or below.
    fn own(&self, path: &str) -> Option<String> {
        let path = path.trim_end_matches('/');
        let own = self.own_cgroups.iter().find(|own| {
            own.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })?;
        Some(format!("Sekisho itself runs in {own}"))
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
        let live = self.collector_live.iter().any(|(own, end)| {
            transport == Transport::Tcp
                && own.port() == local_port
                && end.port() == remote.port()
                && end.ip().to_canonical() == address
        });
        address.is_loopback()
            || collector
            || live
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

/// Whether a cut of `scope` stops this flow of this host: the ruleset as a pure function, for sockets and for proofs.
///
/// Never for a workload or a sender behind this host: see [`is_held`].
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

/// Whether a containment stops this flow, whatever its scope; a measure that lets packets pass stops none for good.
#[must_use]
pub fn is_held(
    scope: &Scope,
    measure: Measure,
    target: Option<&Target>,
    flow: &Ends,
    plan: &Plan,
) -> bool {
    if !matches!(measure, Measure::Cut | Measure::Freeze) {
        return false;
    }
    let passes = plan.passes(flow.transport, flow.local.port(), flow.remote);
    let Some(target) = target
        .filter(|_| matches!(scope, Scope::Cgroup(_) | Scope::Container(_) | Scope::Internal(_)))
    else {
        return is_cut(scope, flow.transport, flow.local.port(), flow.remote, plan);
    };
    let workload =
        target.cgroups.iter().any(|cgroup| Some(cgroup.id) == flow.cgroup && cgroup.level <= 8);
    if workload {
        let ported = matches!(flow.transport, Transport::Tcp | Transport::Udp);
        let deputy = plan.deputies.iter().any(|deputy| {
            deputy.ip().to_canonical() == flow.remote.ip().to_canonical()
                && deputy.port() == flow.remote.port()
        });
        return (ported && (deputy || matches!(flow.remote.port(), 53 | 853))) || !passes;
    }
    let local = flow.local.ip().to_canonical();
    !passes && target.addresses.iter().any(|address| address.to_canonical() == local)
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
            own_cgroups: vec!["/system.slice/sekisho.service".to_owned()],
            deputies: vec!["127.0.0.1:3128".parse().unwrap()],
            ..Plan::default()
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
        assert!(matches!(refusal("link:eth0"), Some(Refusal::Unsupported(_))));
        assert_eq!(refusal("dest:203.0.113.9"), None);
        assert_eq!(refusal("host"), None);
    }

    fn workload(path: &str) -> Target {
        let cgroup = crate::target::Cgroup { level: 2, id: 7, path: path.to_owned() };
        Target { cgroups: [cgroup].into(), ..Target::default() }
    }

    #[test]
    fn a_workload_or_sender_that_is_exempt_or_is_nothing_is_refused() {
        let plan = plan();
        let refusal = |scope: &str, target: Option<&Target>| {
            plan.refusal_of(&scope.parse().unwrap(), Measure::Cut, target)
        };
        for own in ["/system.slice", "/system.slice/sekisho.service"] {
            let scope = format!("cgroup:{own}");
            assert!(
                matches!(refusal(&scope, Some(&workload(own))), Some(Refusal::Exempt(_))),
                "{own}"
            );
        }
        assert_eq!(
            refusal(
                "cgroup:/system.slice/web.service",
                Some(&workload("/system.slice/web.service"))
            ),
            None
        );
        assert_eq!(refusal("cgroup:/system.sl", Some(&workload("/system.sl"))), None);
        for nothing in [None, Some(&Target::default())] {
            for scope in ["cgroup:/x", "container:x", "internal:10.0.0.9"] {
                assert!(
                    matches!(refusal(scope, nothing), Some(Refusal::Unsupported(_))),
                    "{scope}"
                );
            }
        }
        for address in ["192.0.2.9", "198.51.100.20"] {
            let addresses = [address.parse().unwrap(), "10.0.0.9".parse().unwrap()].into();
            let target = Target { addresses, ..Target::default() };
            for scope in ["internal:02:00:00:00:00:01", "container:x"] {
                assert!(
                    matches!(refusal(scope, Some(&target)), Some(Refusal::Exempt(_))),
                    "{scope}"
                );
            }
        }
        let group = Target { macs: [[0xff; 6]].into(), ..Target::default() };
        assert!(matches!(
            refusal("internal:10.0.0.9", Some(&group)),
            Some(Refusal::Unsupported(_))
        ));
        let limit = Measure::Throttle { bytes_per_second: 1 };
        assert!(matches!(
            plan.refusal_of(&Scope::Host, limit, None),
            Some(Refusal::Unsupported(why)) if why.contains("throttled")
        ));
    }

    #[test]
    fn a_contained_workload_keeps_the_loopback_but_not_its_deputies() {
        let plan = plan();
        let target = workload("/a.slice/b.service");
        let held = |remote: &str, cgroup| {
            let flow = Ends {
                transport: Transport::Tcp,
                local: "10.0.0.5:40000".parse().unwrap(),
                remote: remote.parse().unwrap(),
                cgroup,
            };
            let scope = "cgroup:/a.slice/b.service".parse().unwrap();
            is_held(&scope, Measure::Cut, Some(&target), &flow, &plan)
        };
        for cut in
            ["203.0.113.9:443", "10.9.9.9:22", "127.0.0.53:53", "127.0.0.1:3128", "10.0.0.53:853"]
        {
            assert!(held(cut, Some(7)), "{cut}");
            assert!(!held(cut, Some(8)) && !held(cut, None), "another workload: {cut}");
        }
        for spared in ["127.0.0.1:5432", "198.51.100.20:443", "192.0.2.9:8443"] {
            assert!(!held(spared, Some(7)), "{spared}");
        }
    }
}
