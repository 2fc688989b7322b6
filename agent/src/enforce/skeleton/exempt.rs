//! What no containment may touch, as rules: in chains of their own, which every cut asks first.

use super::layer::Layer;
use super::terms::{
    count, field, matches, not_opening, of_transport, one_of, port, transport_name, with, word,
};
use super::{COLLECTOR, Objects, Statements, rule_in, to_networks};
use crate::enforce::Plan;
use ipnet::IpNet;
use nftables::stmt::{Operator, Statement};
use sekisho_schema::Transport;
use sekisho_schema::policy::Exemption;
use std::net::{IpAddr, SocketAddr};

/// Fills one chain with what passes.
pub(super) struct Spared<'a> {
    pub(super) layer: Layer,
    pub(super) objects: &'a mut Objects,
    pub(super) chain: &'static str,
}

impl Spared<'_> {
    /// What keeps a host on the wire, the collector and the peers.
    pub(super) fn peers(&mut self, plan: &Plan) {
        self.neighbours(plan);
        self.dhcp(plan);
        for endpoint in &plan.collector {
            collector(self.objects, self.layer, self.chain, *endpoint);
        }
        for (own, end) in &plan.collector_live {
            self.live(*own, *end);
        }
        for exemption in &plan.exempt {
            self.peer(exemption);
        }
    }

    /// Answers of this host's own services.
    pub(super) fn services(&mut self, plan: &Plan) {
        for exemption in &plan.exempt {
            for statements in service(self.layer, exemption) {
                let comment = match exemption {
                    Exemption::Peer { name, .. } | Exemption::Service { name, .. } => name,
                };
                let accepted = with_verdict(statements, Statement::Accept(None));
                self.rule(accepted, &format!("exempt service: {comment}"));
            }
        }
    }

    /// The connection to the collector that is open now.
    fn live(&mut self, own: SocketAddr, end: SocketAddr) {
        let (own_ip, end_ip) = (own.ip().to_canonical(), end.ip().to_canonical());
        if own_ip.is_ipv4() != end_ip.is_ipv4() {
            return;
        }
        for condition in to_networks(self.layer, &[IpNet::from(end_ip)]) {
            let source = field(if own_ip.is_ipv4() { "ip" } else { "ip6" }, "saddr");
            let rest = [
                matches(source, Operator::EQ, super::terms::text(own_ip.to_string())),
                port("tcp", "sport", own.port()),
                port("tcp", "dport", end.port()),
                count(COLLECTOR),
                Statement::Accept(None),
            ];
            self.rule(with(condition, rest), "collector, the connection that is open");
        }
    }

    /// Neighbour discovery and multicast listener reports, only to where they have business: their types would else lead outside.
    fn neighbours(&mut self, plan: &Plan) {
        let kinds = [
            "nd-router-solicit",
            "nd-router-advert",
            "nd-neighbor-solicit",
            "nd-neighbor-advert",
            "mld-listener-query",
            "mld-listener-report",
            "mld-listener-done",
            "mld2-listener-report",
        ];
        let mut networks = ipv6(&["fe80::/10", "ff02::/16"]);
        networks.extend(
            plan.on_link
                .iter()
                .chain(&plan.inside)
                .filter(|network| matches!(network, IpNet::V6(_))),
        );
        for condition in to_networks(self.layer, &networks) {
            let kind =
                matches(field("icmpv6", "type"), Operator::EQ, one_of(kinds.map(word).to_vec()));
            self.rule(
                with(condition, [kind, Statement::Accept(None)]),
                "IPv6 neighbour discovery and multicast listening",
            );
        }
    }

    fn dhcp(&mut self, plan: &Plan) {
        let mut networks: Vec<IpNet> = "255.255.255.255/32".parse().into_iter().collect();
        // A server outside is found again by broadcast, when the lease is rebound (RFC 2131, section 4.4.5).
        networks.extend(plan.inside.iter().filter(|network| matches!(network, IpNet::V4(_))));
        for condition in to_networks(self.layer, &networks) {
            self.rule(
                with(
                    condition,
                    [port("udp", "sport", 68), port("udp", "dport", 67), Statement::Accept(None)],
                ),
                "DHCP",
            );
        }
        for condition in to_networks(self.layer, &ipv6(&["ff02::1:2/128", "fe80::/10"])) {
            self.rule(
                with(
                    condition,
                    [port("udp", "sport", 546), port("udp", "dport", 547), Statement::Accept(None)],
                ),
                "DHCPv6",
            );
        }
    }

    fn peer(&mut self, exemption: &Exemption) {
        let Exemption::Peer { name, to, transport, port: number } = exemption else { return };
        for condition in to_networks(self.layer, &[*to]) {
            let mut rest = Vec::new();
            // Later fragments carry no ports: on a device the address alone decides.
            if !self.layer.of_frames() {
                rest.extend(transport.map(of_transport));
                rest.extend(
                    transport.zip(*number).map(|(transport, number)| {
                        port(transport_name(transport), "dport", number)
                    }),
                );
            }
            rest.push(Statement::Accept(None));
            self.rule(with(condition, rest), &format!("exempt peer: {name}"));
        }
    }

    fn rule(&mut self, statements: Statements, comment: &str) {
        rule_in(self.objects, self.layer, self.chain.into(), statements, comment);
    }
}

/// What an exempt service sends, without a verdict; nothing for a peer.
pub(super) fn service(layer: Layer, exemption: &Exemption) -> Vec<Statements> {
    let Exemption::Service { transport, port: number, from, .. } = exemption else {
        return Vec::new();
    };
    to_networks(layer, &[*from])
        .into_iter()
        .map(|condition| {
            let mut rest = vec![port(transport_name(*transport), "sport", *number)];
            if *transport == Transport::Tcp {
                rest.push(not_opening());
            }
            with(condition, rest)
        })
        .collect()
}

pub(super) fn with_verdict(mut statements: Statements, verdict: Statement<'static>) -> Statements {
    statements.push(verdict);
    statements
}

pub(super) fn collector(
    objects: &mut Objects,
    layer: Layer,
    chain: &'static str,
    endpoint: SocketAddr,
) {
    let address = IpNet::from(endpoint.ip().to_canonical());
    for condition in to_networks(layer, &[address]) {
        let rest =
            [port("tcp", "dport", endpoint.port()), count(COLLECTOR), Statement::Accept(None)];
        rule_in(objects, layer, chain.into(), with(condition, rest), "collector");
    }
}

fn ipv6(networks: &[&str]) -> Vec<IpNet> {
    networks
        .iter()
        .filter_map(|network| network.parse().ok())
        .filter(|network: &IpNet| matches!(network.addr(), IpAddr::V6(_)))
        .collect()
}
