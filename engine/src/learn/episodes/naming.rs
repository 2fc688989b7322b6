//! Keys as reports tell of them, and the destination of a flow.

use super::AsnOf;
use super::host::Hosts;
use super::key::{AskedAt, At, Place, hash_ends};
use crate::flow::FlowFacts;
use crate::learn::Name;
use crate::learn::space_saving::SpaceSaving;
use ipnet::IpNet;
use sekisho_schema::Transport;
use sekisho_schema::episode::{DestinationKey, EpisodeKey, Service, Workload};
use std::net::IpAddr;

pub(super) fn network(address: IpAddr) -> Place<'static> {
    match DestinationKey::network_of(address) {
        DestinationKey::Network(network) => Place::Network(network),
        _ => Place::Network(IpNet::from(address)),
    }
}

/// The most lasting name of a flow's destination: what DNS or the client itself called it, else its
/// autonomous system, else its network.
pub(super) fn place_of<'a>(
    bound: &'a SpaceSaving<(IpAddr, IpAddr), Name>,
    asn: Option<&dyn AsnOf>,
    flow: &FlowFacts<'a>,
) -> Place<'a> {
    if let Some(name) = flow.registered {
        return Place::Domain(name);
    }
    let ends = (flow.key.local.ip(), flow.key.remote.ip());
    let hash = hash_ends(bound.hasher(), &ends);
    // Only registered names are bound.
    if let Some(name) = bound.find(hash, |known| *known == ends) {
        return Place::Domain(name.as_str());
    }
    match asn.and_then(|asn| asn.asn(ends.1)) {
        Some(number) => Place::Asn(number),
        None => network(ends.1),
    }
}

/// The key as reports tell of it.
pub(super) fn named(
    hosts: &Hosts,
    workloads: &[Workload],
    at: At<'_>,
    workload: u16,
) -> EpisodeKey {
    let workload = match workload {
        0 => hosts.workload(at.host),
        place => workloads.get(usize::from(place)).cloned().unwrap_or(Workload::Host),
    };
    let service = at.service.unwrap_or(ANY_SERVICE);
    EpisodeKey { workload, destination: at.place.own(), service }
}

/// Every service: IP protocol 0 is on no wire of IPv4.
const ANY_SERVICE: Service = Service::new(Transport::Other(0), 0);

/// The key of what concerns all destinations of a host.
pub(super) fn host_key(workload: Workload) -> EpisodeKey {
    let everywhere = IpNet::V4(ipnet::Ipv4Net::default());
    EpisodeKey { workload, destination: DestinationKey::Network(everywhere), service: ANY_SERVICE }
}

/// The key of what is asked for below a name.
pub(super) fn asked_key(hosts: &Hosts, host: u16, asked: AskedAt<'_>) -> EpisodeKey {
    let destination = match asked {
        AskedAt::Domain(name) => DestinationKey::Domain(name.into()),
        AskedAt::Resolver(address) => DestinationKey::Network(IpNet::from(address)),
    };
    EpisodeKey {
        workload: hosts.workload(host),
        destination,
        service: Service::new(Transport::Udp, super::DNS),
    }
}
