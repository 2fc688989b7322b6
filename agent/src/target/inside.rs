//! Who an inside host is, seen from its gateway or its bridge.

use super::Target;
use super::netlink::AskKernelError;
use super::reach::{Here, MAX_ADDRESSES};
use super::routes::{Neighbour, mac_text, parse_mac};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Hosts told in an error.
const TOLD: usize = 8;

/// Why an inside host was not found.
#[derive(Debug, thiserror::Error)]
pub enum FindHostError {
    /// No neighbour has it.
    #[error("no neighbour with the hardware address {mac} is known; {known}")]
    Absent {
        /// The address.
        mac: String,
        /// Some that are, in words.
        known: String,
    },
    /// The kernel could not be asked.
    #[error("cannot read the tables of neighbours")]
    Ask(#[from] AskKernelError),
    /// It can't be an inside host.
    #[error("{host} is no inside host: it is {what}")]
    NotInside {
        /// What was named.
        host: String,
        /// What it is.
        what: &'static str,
    },
    /// Others' packets come from its hardware address.
    #[error(
        "{host} is the router {router} of this host: a cut by its hardware address would cut everybody behind it"
    )]
    Router {
        /// What was named.
        host: String,
        /// The address that routes lead over.
        router: IpAddr,
    },
    /// It is neither an IP nor a hardware address.
    #[error("\"{0}\" is neither an IP address nor a hardware address")]
    Unreadable(String),
}

/// Finds an inside host by an address or its MAC.
pub(super) fn find(text: &str) -> Result<Target, FindHostError> {
    let mut here = Here::look()?;
    let neighbours = here.routes.neighbours()?;
    let forwarding = here.routes.forwarding()?;
    let routers = here.routes.gateways()?;
    let mut target = Target::default();
    if let Ok(address) = text.parse::<IpAddr>() {
        let address = address.to_canonical();
        let way = refuse_foreign(&mut here, address, text)?;
        target.addresses.insert(address);
        let macs: BTreeSet<[u8; 6]> = neighbours
            .iter()
            .filter(|neighbour| neighbour.address == Some(address))
            .map(|neighbour| neighbour.mac)
            .collect();
        if macs.is_empty() {
            target.open.push(format!(
                "{address} is in no neighbour table{way}: its hardware address and its other addresses are not known and not held"
            ));
        }
        for mac in macs {
            if let Some(router) = router_at(&mac, &neighbours, &routers) {
                if router == address {
                    return Err(FindHostError::Router { host: text.to_owned(), router });
                }
                target.open.push(format!(
                    "{} is also the router {router}: held by {address} only",
                    mac_text(&mac)
                ));
                continue;
            }
            target.macs.insert(mac);
        }
    } else {
        let mac = parse_mac(text).ok_or_else(|| FindHostError::Unreadable(text.to_owned()))?;
        refuse_mac(&here, &mac)?;
        if !neighbours.iter().chain(&forwarding).any(|neighbour| neighbour.mac == mac) {
            return Err(FindHostError::Absent { mac: mac_text(&mac), known: known(&neighbours) });
        }
        if let Some(router) = router_at(&mac, &neighbours, &routers) {
            return Err(FindHostError::Router { host: text.to_owned(), router });
        }
        target.macs.insert(mac);
    }
    add_addresses(&here, &neighbours, &mut target);
    add_ports(&here, &neighbours, &forwarding, &mut target);
    Ok(target)
}

/// Refuses what is no single other host that this one reaches; tells the router in between, if any.
fn refuse_foreign(here: &mut Here, address: IpAddr, text: &str) -> Result<String, FindHostError> {
    let refuse = |what| Err(FindHostError::NotInside { host: text.to_owned(), what });
    if address.is_unspecified() || address.is_multicast() {
        return refuse("no address of a single host");
    }
    if address.is_loopback() || here.addresses.contains(&address) {
        return refuse("this host itself");
    }
    // Link-local addresses have no route without a device.
    if matches!(address, IpAddr::V6(six) if six.is_unicast_link_local()) {
        return Ok(String::new());
    }
    match here.routes.way(address)? {
        Some(way) => Ok(way
            .gateway
            .map(|gateway| format!(" and behind the router {gateway}"))
            .unwrap_or_default()),
        None => refuse("nowhere: no route leads to it"),
    }
}

fn refuse_mac(here: &Here, mac: &[u8; 6]) -> Result<(), FindHostError> {
    let refuse = |what| Err(FindHostError::NotInside { host: mac_text(mac), what });
    if *mac == [0; 6] || mac.first().is_some_and(|first| first & 1 == 1) {
        return refuse("no address of a single host");
    }
    if here.has_mac(mac) {
        return refuse("this host itself");
    }
    Ok(())
}

/// The router that stands behind a hardware address, if one does.
fn router_at(
    mac: &[u8; 6],
    neighbours: &[Neighbour],
    routers: &BTreeSet<IpAddr>,
) -> Option<IpAddr> {
    neighbours
        .iter()
        .filter(|neighbour| neighbour.mac == *mac)
        .filter_map(|neighbour| neighbour.address)
        .find(|address| routers.contains(address))
}

/// Every address that speaks from these MACs: IPv4, IPv6, private and link-local ones.
fn add_addresses(here: &Here, neighbours: &[Neighbour], target: &mut Target) {
    for neighbour in neighbours.iter().filter(|one| target.macs.contains(&one.mac)) {
        let Some(address) = neighbour.address.filter(|one| !here.addresses.contains(one)) else {
            continue;
        };
        if target.addresses.len() >= MAX_ADDRESSES {
            target.open.push(format!(
                "it speaks from more than {MAX_ADDRESSES} addresses: the others are held by hardware address only"
            ));
            break;
        }
        target.addresses.insert(address.to_canonical());
    }
}

/// The ports behind which nobody but the host is; others are told and not held.
fn add_ports(here: &Here, neighbours: &[Neighbour], forwarding: &[Neighbour], target: &mut Target) {
    let mine = |all: &[Neighbour]| -> BTreeSet<u32> {
        all.iter().filter(|one| target.macs.contains(&one.mac)).map(|one| one.device).collect()
    };
    let others = |all: &[Neighbour], device: u32| -> usize {
        all.iter()
            .filter(|one| one.device == device)
            .map(|one| one.mac)
            .filter(|mac| !target.macs.contains(mac) && !here.has_mac(mac))
            .collect::<BTreeSet<_>>()
            .len()
    };
    let (mut ports, mut open) = (BTreeSet::new(), Vec::new());
    for device in mine(forwarding) {
        let name = here.name(device);
        match others(forwarding, device) {
            0 => {
                ports.insert(name);
            }
            count => open.push(format!(
                "behind port {name} are {count} other hosts: on it, it is held by its hardware address and its addresses only, which it can change"
            )),
        }
    }
    for device in mine(neighbours) {
        let Some(link) = here.link(device).filter(|link| !link.is("bridge")) else { continue };
        // A wire has one other end; behind any other device may be hosts that never spoke.
        if link.is("veth") && link.master.is_none() && others(neighbours, device) == 0 {
            ports.insert(link.name.clone());
        } else {
            open.push(format!(
                "it is on {} with whoever else is there: held by its hardware address and its addresses only, which it can change; this host does not see what it sends to its own segment",
                link.name
            ));
        }
    }
    target.ports.extend(ports);
    target.open.extend(open);
}

fn known(neighbours: &[Neighbour]) -> String {
    let macs: BTreeSet<String> =
        neighbours.iter().map(|neighbour| mac_text(&neighbour.mac)).collect();
    if macs.is_empty() {
        return "there are no neighbours at all".to_owned();
    }
    format!("there are: {}", macs.into_iter().take(TOLD).collect::<Vec<_>>().join(", "))
}
