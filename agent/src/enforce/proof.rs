//! Proof of a cut, without a peer: read back, then try to send.

use super::desired::needs_target;
use super::elements::Found;
use super::plan::is_cut;
use super::{Cell, Enforcer};
use sekisho_schema::{Containment, Measure, Proof, Scope, Transport};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// The discard port (RFC 863).
const DISCARD: u16 = 9;
/// Addresses that belong to nobody: TEST-NET-1 to -3 (RFC 5737) and the documentation prefix (RFC 3849).
const NOBODY: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
/// Longest wait for the collector to answer.
const COLLECTOR_PATIENCE: Duration = Duration::from_millis(300);

/// What became of a probe packet of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// Refused by the kernel and counted by our rules.
    Cut,
    /// Refused, but not counted by us: somebody else's rule, or nobody's.
    CutByOthers,
    /// It left.
    Left,
    /// There is no route to send it on.
    NoRoute,
    /// It could not be tried.
    Untried,
}

impl Probe {
    const fn text(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::CutByOthers => "refused, but not by our rules",
            Self::Left => "left the host",
            Self::NoRoute => "no route",
            Self::Untried => "could not be tried",
        }
    }
}

impl Enforcer {
    /// Tries whether a containment that was applied holds.
    ///
    /// Less than a cut is read back only, and its proof says nothing of a cut. For a workload or a sender behind this
    /// host no packet of ours can stand: it is proven once the kernel has dropped one of such a scope. For all others
    /// the probe is one UDP packet to the discard port of the contained destination, or for a whole-host cut to an
    /// address that belongs to nobody. None is sent when the kernel doesn't hold the elements. Blocks for up to 300 ms
    /// for each endpoint of the collector that does not answer.
    pub fn prove(&mut self, containment: &Containment) -> Proof {
        let mut proof = Proof::default();
        let intact = self.check_ruleset(&mut proof);
        let held = self.check_elements(containment, &mut proof);
        let is_cut = matches!(containment.measure, Measure::Cut | Measure::Freeze);
        let mut proven = false;
        if !is_cut {
            // Whoever is slowed down or counted would get the probe, and be told.
            proof.checks.insert("probe".to_owned(), "none: it would arrive".to_owned());
        } else if needs_target(&containment.scope) {
            proven = intact && held && self.check_drops(&containment.scope, &mut proof);
        } else if intact && held {
            let probes = self.probe(&containment.scope);
            proven = !probes.is_empty()
                && probes.iter().any(|(_, probe)| *probe == Probe::Cut)
                && probes.iter().all(|(_, probe)| matches!(probe, Probe::Cut | Probe::NoRoute));
            proof.checks.extend(
                probes
                    .into_iter()
                    .map(|(family, probe)| (format!("probe_{family}"), probe.text().to_owned())),
            );
        }
        proof.cut = is_cut.then(|| if proven { "proven" } else { "unproven" }.to_owned());
        let spared = intact & self.check_exemptions(containment, &mut proof);
        proof.exemptions = Some(if spared { "ok" } else { "broken" }.to_owned());
        proof
    }

    fn check_ruleset(&mut self, proof: &mut Proof) -> bool {
        let (ok, text) = match self.elements.fingerprint() {
            Ok(current) if current == self.fingerprint => (true, "as loaded".to_owned()),
            Ok(_) => (false, "changed by somebody else".to_owned()),
            Err(error) => (false, error.to_string()),
        };
        proof.checks.insert("ruleset".to_owned(), text);
        ok
    }

    fn check_elements(&mut self, containment: &Containment, proof: &mut Proof) -> bool {
        let (scope, measure) = (&containment.scope, containment.measure);
        let found = match self.elements.read() {
            Ok(found) => found,
            Err(error) => {
                proof.checks.insert("read_back".to_owned(), error.to_string());
                return false;
            }
        };
        let cells = match self.aim.targets.get(scope) {
            // Known to the kernel alone: what it has under this name must at least be there.
            None if needs_target(scope) => {
                let own = |element: &Found| element.id.as_deref() == Some(&containment.id.0);
                found.iter().filter(|(_, element)| own(element)).map(|(cell, _)| *cell).collect()
            }
            target => {
                let mut cells = Cell::of(scope, measure, target, &self.plan);
                // What could not be looked at here is told as open, and is not held.
                cells.retain(|cell| self.is_reachable(cell));
                cells
            }
        };
        let held = cells
            .iter()
            .filter(|cell| {
                found.get(cell).is_some_and(|element| {
                    element.left.is_some_and(|left| !left.is_zero())
                        && (!cell.slot.kind.is_measure() || element.measure == measure)
                })
            })
            .count();
        proof.checks.insert("read_back".to_owned(), format!("{held} of {}", cells.len()));
        let gates = self.check_gates(&cells, proof);
        held == cells.len() && held > 0 && gates
    }

    /// Whether the gates of cells are there as they were made.
    fn check_gates(&mut self, cells: &[Cell], proof: &mut Proof) -> bool {
        match self.elements.read_gates() {
            Ok(gates) => self.elements.gates = gates,
            Err(error) => {
                proof.checks.insert("gates".to_owned(), error.to_string());
                return false;
            }
        }
        let shut: Vec<String> =
            cells.iter().filter_map(|cell| self.shut(cell)).map(|gate| gate.to_string()).collect();
        if !shut.is_empty() {
            proof.checks.insert("gates".to_owned(), format!("not there: {}", shut.join(", ")));
        }
        shut.is_empty()
    }

    /// Whether the kernel has dropped packets of workloads or senders behind this host.
    fn check_drops(&mut self, scope: &Scope, proof: &mut Proof) -> bool {
        let dropped = match self.elements.counters() {
            Ok(counters) => match scope {
                Scope::Cgroup(_) => counters.workloads.packets,
                Scope::Internal(_) => counters.senders.packets,
                _ => counters.workloads.packets.saturating_add(counters.senders.packets),
            },
            Err(error) => {
                proof.checks.insert("drops".to_owned(), error.to_string());
                return false;
            }
        };
        let text = match dropped {
            0 => "no packet of such a scope was seen yet, and none of ours can stand for it"
                .to_owned(),
            packets => format!("{packets} packets of such scopes dropped"),
        };
        proof.checks.insert("drops".to_owned(), text);
        dropped > 0
    }

    /// One probe per address family; for a destination, of its family alone.
    fn probe(&mut self, scope: &Scope) -> Vec<(&'static str, Probe)> {
        if let Scope::Destination(address) = scope {
            let address = address.to_canonical();
            return vec![(if address.is_ipv4() { "ipv4" } else { "ipv6" }, self.send(address))];
        }
        // An on-link network outside the perimeter is reached without a default route.
        let on_link = self
            .plan
            .on_link
            .iter()
            .filter(|network| network.prefix_len() < network.max_prefix_len())
            .filter_map(|network| match network {
                ipnet::IpNet::V4(v4) => {
                    Some(IpAddr::V4(Ipv4Addr::from(u32::from(v4.broadcast()).saturating_sub(1))))
                }
                // Link-local needs a device to be named, and is inside anyhow.
                ipnet::IpNet::V6(v6) if v6.addr().is_unicast_link_local() => None,
                ipnet::IpNet::V6(v6) => {
                    Some(IpAddr::V6(Ipv6Addr::from(u128::from(v6.network()) | 0xfffe)))
                }
            });
        let candidates: Vec<IpAddr> = NOBODY
            .into_iter()
            .chain(on_link)
            .filter(|address| {
                is_cut(scope, Transport::Udp, 0, SocketAddr::new(*address, DISCARD), &self.plan)
            })
            .collect();
        let mut probes = Vec::new();
        for (family, v4) in [("ipv4", true), ("ipv6", false)] {
            let mut outcome = Probe::NoRoute;
            for address in candidates.iter().filter(|address| address.is_ipv4() == v4) {
                outcome = self.send(*address);
                if outcome != Probe::NoRoute {
                    break;
                }
            }
            probes.push((family, outcome));
        }
        probes
    }

    fn send(&mut self, address: IpAddr) -> Probe {
        let any: IpAddr = if address.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let Ok(before) = self.elements.counters() else { return Probe::Untried };
        let Ok(socket) = UdpSocket::bind((any, 0)) else {
            // A kernel without the family has no way out by it either.
            return Probe::NoRoute;
        };
        let refused = match socket.send_to(b"sekisho probe", (address, DISCARD)) {
            // A drop on a device is not reported to the sender: our counter tells.
            Ok(_) => None,
            Err(error) => Some(error.kind()),
        };
        let Ok(after) = self.elements.counters() else { return Probe::Untried };
        let counted = after.dropped().packets > before.dropped().packets;
        match (refused, counted) {
            (Some(ErrorKind::PermissionDenied), true) => Probe::Cut,
            (Some(ErrorKind::PermissionDenied), false) => Probe::CutByOthers,
            (
                Some(
                    ErrorKind::NetworkUnreachable
                    | ErrorKind::HostUnreachable
                    | ErrorKind::AddrNotAvailable,
                ),
                _,
            ) => Probe::NoRoute,
            (Some(_), _) => Probe::Untried,
            // Drops of other packets count alike, so a silent success proves nothing in our favour.
            (None, _) => Probe::Left,
        }
    }

    fn check_exemptions(&mut self, containment: &Containment, proof: &mut Proof) -> bool {
        let scope = &containment.scope;
        let mut ok = true;
        for endpoint in self.plan.collector.clone() {
            let (reached, text) = self.reach(endpoint);
            ok &= reached && !is_cut(scope, Transport::Tcp, 0, endpoint, &self.plan);
            proof.checks.insert(format!("collector {endpoint}"), text.to_owned());
        }
        for exemption in &self.plan.exempt {
            let (name, spared) = match exemption {
                sekisho_schema::policy::Exemption::Peer { name, to, transport, port } => {
                    let remote = SocketAddr::new(to.addr(), port.unwrap_or(DISCARD));
                    (
                        name,
                        !is_cut(scope, transport.unwrap_or(Transport::Tcp), 0, remote, &self.plan),
                    )
                }
                sekisho_schema::policy::Exemption::Service { name, transport, port, from } => (
                    name,
                    !is_cut(
                        scope,
                        *transport,
                        *port,
                        SocketAddr::new(from.addr(), DISCARD),
                        &self.plan,
                    ),
                ),
            };
            ok &= spared;
            proof.checks.insert(
                format!("exempt {name}"),
                if spared { "passes by rule" } else { "would be cut" }.to_owned(),
            );
        }
        ok
    }

    /// Whether a connection to the collector gets past our rules: it answers, or at least our counter saw it pass.
    fn reach(&mut self, endpoint: SocketAddr) -> (bool, &'static str) {
        let Ok(before) = self.elements.counters() else {
            return (false, "the counters can't be read");
        };
        match TcpStream::connect_timeout(&endpoint, COLLECTOR_PATIENCE) {
            Ok(_) => return (true, "answers"),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                return (true, "reached; nobody listens");
            }
            Err(_) => {}
        }
        match self.elements.counters() {
            Ok(after) if after.collector.packets > before.collector.packets => {
                (true, "passes; no answer")
            }
            _ => (false, "does not pass"),
        }
    }
}
