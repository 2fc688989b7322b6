//! Interfaces of this host, their addresses and on-link networks.

use ipnet::IpNet;
use pnet::datalink::{self, NetworkInterface};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// An interface that may carry traffic out of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name of the device.
    pub name: String,
    /// Number of the device in this network namespace.
    pub index: u32,
    /// Its addresses with the networks they are part of.
    pub networks: Vec<IpNet>,
}

impl Interface {
    /// The networks it is part of, host bits cleared.
    pub fn on_link(&self) -> impl Iterator<Item = IpNet> {
        self.networks.iter().map(IpNet::trunc)
    }
}

/// Interfaces that are up and not the loopback, by name.
#[must_use]
pub fn interfaces() -> Vec<Interface> {
    let mut all: Vec<Interface> = datalink::interfaces()
        .iter()
        .filter(|interface| interface.is_up() && !interface.is_loopback())
        .map(from_pnet)
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// Addresses of this host, the loopback's included.
#[must_use]
pub fn own_addresses() -> BTreeSet<IpAddr> {
    datalink::interfaces()
        .iter()
        .flat_map(|interface| interface.ips.iter().map(|network| network.ip()))
        .collect()
}

/// The devices that a cut has to watch: those the operator names, or by default every one that is up.
///
/// A named device is kept even when it is missing, so that the caller can say so.
#[must_use]
pub fn uplinks(interfaces: &[Interface], named: &[String]) -> Vec<String> {
    if named.is_empty() {
        interfaces.iter().map(|interface| interface.name.clone()).collect()
    } else {
        named.to_vec()
    }
}

/// Every on-link network, once.
#[must_use]
pub fn on_link(interfaces: &[Interface]) -> Vec<IpNet> {
    let networks: BTreeSet<IpNet> = interfaces.iter().flat_map(Interface::on_link).collect();
    networks.into_iter().collect()
}

fn from_pnet(interface: &NetworkInterface) -> Interface {
    Interface {
        name: interface.name.clone(),
        index: interface.index,
        networks: interface
            .ips
            .iter()
            .filter_map(|network| IpNet::new(network.ip(), network.prefix()).ok())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_own_and_no_uplink() {
        assert!(own_addresses().contains(&"127.0.0.1".parse().unwrap()));
        assert!(interfaces().iter().all(|interface| interface.name != "lo" && interface.index > 0));
    }

    #[test]
    fn on_link_networks_are_whole_and_named_once() {
        let interface = |name: &str| Interface {
            name: name.to_owned(),
            index: 2,
            networks: vec!["10.1.2.3/24".parse().unwrap(), "fe80::1/64".parse().unwrap()],
        };
        let all = [interface("a"), interface("b")];
        assert_eq!(on_link(&all), ["10.1.2.0/24".parse().unwrap(), "fe80::/64".parse().unwrap()]);
        assert_eq!(uplinks(&all, &[]), ["a", "b"]);
        assert_eq!(uplinks(&all, &["wan".to_owned()]), ["wan"]);
    }
}
