//! Links, addresses, neighbours, forwarding entries and routes of a network namespace, as the kernel lists them.

use super::netlink::{AskKernelError, Channel};
use crate::netlink::{Answer, Writer, attribute_behind, attributes, u16_at, u32_at};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Message types (linux/rtnetlink.h).
pub(super) const NEW_LINK: u16 = 16;
pub(super) const DEL_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const GET_ADDRESS: u16 = 22;
const GET_ROUTE: u16 = 26;
pub(super) const NEW_NEIGHBOUR: u16 = 28;
const GET_NEIGHBOUR: u16 = 30;
const GET_NAMESPACE: u16 = 90;
/// `AF_INET`, `AF_INET6`, `AF_BRIDGE`.
const INET: u8 = 2;
const INET6: u8 = 10;
const BRIDGE: u8 = 7;
/// `IFF_LOOPBACK` (linux/if.h).
const LOOPBACK: u32 = 1 << 3;
/// States in which a neighbour has no usable link-layer address: `NUD_INCOMPLETE` and `NUD_FAILED`.
const UNRESOLVED: u16 = 0x01 | 0x20;
/// `NUD_NOARP`: multicast and the like, computed and not learned.
const COMPUTED: u16 = 0x40;
/// `NUD_PERMANENT`: in a forwarding table, an address of the port itself.
const PERMANENT: u16 = 0x80;
/// `RTN_UNICAST`: the destination is reached over a device or a gateway.
const UNICAST: u8 = 1;

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// `veth`, `bridge`, `macvlan`, …; `None` for hardware.
    pub(super) kind: Option<String>,
    pub(super) mac: Option<[u8; 6]>,
    /// The device that it is joined to or stands on, by its number in `lower_namespace`.
    pub(super) lower: Option<u32>,
    /// Id of the namespace in which `lower` counts, as this namespace numbers its neighbours; `None` for this one.
    pub(super) lower_namespace: Option<i32>,
    /// The bridge or bond that it is a port of.
    pub(super) master: Option<u32>,
    pub(super) is_loopback: bool,
}

impl Link {
    pub(super) fn is(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }
}

/// An entry of a neighbour or forwarding table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) device: u32,
    pub(super) address: Option<IpAddr>,
    pub(super) mac: [u8; 6],
    /// It stands in a bridge's forwarding table, and `device` is the port.
    pub(super) is_forwarding: bool,
}

/// How a destination is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) device: Option<u32>,
    pub(super) gateway: Option<IpAddr>,
}

/// The tables of the network namespace in which it was opened.
pub(super) struct Routes(Channel);

impl Routes {
    pub(super) fn open() -> Result<Self, AskKernelError> {
        Channel::open(netlink_sys::protocols::NETLINK_ROUTE).map(Self)
    }

    pub(super) fn links(&mut self) -> Result<Vec<Link>, AskKernelError> {
        self.0.table(GET_LINK, &[0; 16], |message| read_link(message.body))
    }

    /// Addresses of this namespace with the number of their device.
    pub(super) fn addresses(&mut self) -> Result<Vec<(u32, IpAddr)>, AskKernelError> {
        self.0.table(GET_ADDRESS, &[0; 8], |message| {
            // IFA_LOCAL is 2 and, on a wire between two ends, the own one; IFA_ADDRESS is 1.
            let value = attribute_behind(message.body, 8, 2)
                .or_else(|| attribute_behind(message.body, 8, 1))?;
            Some((u32_at(message.body, 4)?, address(value)?))
        })
    }

    /// Neighbours that have a hardware address, IPv4 and IPv6.
    pub(super) fn neighbours(&mut self) -> Result<Vec<Neighbour>, AskKernelError> {
        let mut all = Vec::new();
        for family in [INET, INET6] {
            match self.0.table(GET_NEIGHBOUR, &head::<12>(family), read_neighbour) {
                Ok(found) => all.extend(found),
                // A kernel without IPv6 has no such table.
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// What the bridges have learned: which hardware address stands behind which port.
    pub(super) fn forwarding(&mut self) -> Result<Vec<Neighbour>, AskKernelError> {
        match self.0.table(GET_NEIGHBOUR, &head::<12>(BRIDGE), read_neighbour) {
            Err(error) if error.is_absent() => Ok(Vec::new()),
            other => other,
        }
    }

    /// Addresses of routers that any route leads over.
    pub(super) fn gateways(&mut self) -> Result<BTreeSet<IpAddr>, AskKernelError> {
        let mut all = BTreeSet::new();
        for family in [INET, INET6] {
            match self.0.table(GET_ROUTE, &head::<12>(family), |m| Some(gateways(m.body))) {
                Ok(found) => all.extend(found.into_iter().flatten()),
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// How an address is reached; `None` when it is this host's own, everybody's, or nowhere.
    pub(super) fn way(&mut self, to: IpAddr) -> Result<Option<Way>, AskKernelError> {
        let (family, bits) = if to.is_ipv4() { (INET, 32) } else { (INET6, 128) };
        let mut head = head::<12>(family);
        head[1] = bits;
        let mut body = Writer::default();
        body.copy(&head);
        match to {
            IpAddr::V4(to) => body.attribute(1, &to.octets()),
            IpAddr::V6(to) => body.attribute(1, &to.octets()),
        }
        let way = self.0.one(GET_ROUTE, body.as_bytes(), |message| {
            Some((*message.body.get(7)? == UNICAST).then(|| Way {
                device: attribute_behind(message.body, 12, 4).and_then(|value| u32_at(value, 0)),
                gateway: attribute_behind(message.body, 12, 5).and_then(address),
            }))
        });
        match way {
            Ok(way) => Ok(way.flatten()),
            Err(AskKernelError::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The number under which this namespace knows that of a process; `None` when it has none.
    pub(super) fn number_of(&mut self, pid: u32) -> Result<Option<i32>, AskKernelError> {
        let mut body = Writer::default();
        body.copy(&[0; 4]);
        body.attribute(2, &pid.to_ne_bytes());
        let number = self.0.one(GET_NAMESPACE, body.as_bytes(), |message| {
            attribute_behind(message.body, 4, 1).and_then(|value| u32_at(value, 0))
        })?;
        Ok(number.map(u32::cast_signed).filter(|number| *number >= 0))
    }
}

/// Addresses of the network namespace of the calling thread.
pub(crate) fn own_addresses() -> Result<BTreeSet<IpAddr>, AskKernelError> {
    Ok(Routes::open()?.addresses()?.into_iter().map(|(_, address)| address).collect())
}

/// A fixed part of which only the family is set.
fn head<const N: usize>(family: u8) -> [u8; N] {
    let mut head = [0; N];
    if let Some(first) = head.first_mut() {
        *first = family;
    }
    head
}

/// An address as an attribute holds it.
fn address(value: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(value) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(value).ok().map(|octets| Ipv6Addr::from(octets).into())
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// `struct ifinfomsg` (16 bytes) and its attributes.
pub(super) fn read_link(body: &[u8]) -> Option<Link> {
    let number = |kind| attribute_behind(body, 16, kind).and_then(|value| u32_at(value, 0));
    Some(Link {
        index: u32_at(body, 4)?,
        name: text(attribute_behind(body, 16, 3)?),
        kind: attribute_behind(body, 16, 18)
            .and_then(|info| attribute_behind(info, 0, 1))
            .map(text),
        mac: attribute_behind(body, 16, 1).and_then(|value| value.try_into().ok()),
        lower: number(5).filter(|lower| *lower != 0),
        lower_namespace: number(37).map(u32::cast_signed),
        master: number(10),
        is_loopback: u32_at(body, 8)? & LOOPBACK != 0,
    })
}

/// `struct ndmsg` (12 bytes) and its attributes; `None` for entries that name no neighbour.
pub(super) fn read_neighbour(message: Answer<'_>) -> Option<Neighbour> {
    let body = message.body;
    let is_forwarding = *body.first()? == BRIDGE;
    let state = u16_at(body, 8)?;
    let useless = if is_forwarding { PERMANENT } else { UNRESOLVED | COMPUTED };
    if state & useless != 0 {
        return None;
    }
    Some(Neighbour {
        device: u32_at(body, 4)?,
        address: if is_forwarding {
            None
        } else {
            Some(attribute_behind(body, 12, 1).and_then(address)?)
        },
        // Multicast entries of a bridge name no host: the lowest bit of the first byte is set.
        mac: attribute_behind(body, 12, 2)
            .and_then(|value| value.try_into().ok())
            .filter(|mac: &[u8; 6]| mac.first().is_some_and(|first| first & 1 == 0))
            .filter(|mac| *mac != [0; 6])?,
        is_forwarding,
    })
}

/// The routers of one route: `RTA_GATEWAY` (5), `RTA_VIA` (18: family, then the address), each hop of `RTA_MULTIPATH` (9).
fn gateways(body: &[u8]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for (kind, value) in attributes(body.get(12..).unwrap_or_default()) {
        match kind {
            5 => found.extend(address(value)),
            18 => found.extend(value.get(2..).and_then(address)),
            9 => {
                let mut hops = value;
                // `struct rtnexthop`: length, flags, weight, device; eight bytes, then attributes.
                while let Some(length) = u16_at(hops, 0).map(usize::from).filter(|l| *l >= 8) {
                    let hop = hops.get(8..length).unwrap_or_default();
                    found.extend(attribute_behind(hop, 0, 5).and_then(address));
                    found.extend(
                        attribute_behind(hop, 0, 18).and_then(|via| via.get(2..)).and_then(address),
                    );
                    hops = hops.get(length.next_multiple_of(4)..).unwrap_or_default();
                }
            }
            _ => {}
        }
    }
    found
}

/// A hardware address as people write it.
pub(super) fn mac_text(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A hardware address as people write it, with colons or hyphens.
pub(super) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts
            .next()
            .filter(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_reads_back_what_it_writes() {
        for text in ["02:aa:bb:cc:dd:01", "00:00:00:00:00:ff"] {
            assert_eq!(mac_text(&parse_mac(text).unwrap()), text);
        }
        assert_eq!(parse_mac("02-AA-bb-cc-dd-01"), parse_mac("02:aa:bb:cc:dd:01"));
        for text in [
            "",
            "02:aa:bb:cc:dd",
            "02:aa:bb:cc:dd:01:02",
            "2:aa:bb:cc:dd:01",
            "+2:aa:bb:cc:dd:01",
            "10.0.0.1",
        ] {
            assert_eq!(parse_mac(text), None, "{text}");
        }
    }

    #[test]
    fn the_loopback_is_listed_with_its_addresses() {
        let mut routes = Routes::open().unwrap();
        let loopback = routes.links().unwrap().into_iter().find(|link| link.is_loopback).unwrap();
        assert_eq!(loopback.name, "lo");
        assert!(
            routes.addresses().unwrap().contains(&(loopback.index, "127.0.0.1".parse().unwrap()))
        );
        assert_eq!(routes.way("127.0.0.1".parse().unwrap()).unwrap(), None);
    }

    #[test]
    fn every_router_of_a_route_is_named() {
        let mut hop = Writer::default();
        hop.copy(&[0; 8]);
        hop.attribute(5, &[10, 0, 0, 2]);
        let mut hop = hop.as_bytes().to_vec();
        let length = u16::try_from(hop.len()).unwrap().to_ne_bytes();
        hop[..2].copy_from_slice(&length);
        let mut body = Writer::default();
        body.copy(&[0; 12]);
        body.attribute(5, &[10, 0, 0, 1]);
        body.attribute(9, &hop);
        body.attribute(18, &[2, 0, 10, 0, 0, 3]);
        let body = body.as_bytes();
        let routers: Vec<String> = gateways(body).iter().map(ToString::to_string).collect();
        assert_eq!(routers, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        assert!(gateways(&body[..30]).len() <= 2);
    }
}
