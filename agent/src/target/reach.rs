//! How the packets of another network namespace come into this one.

use super::namespace::{EnterError, within};
use super::netlink::AskKernelError;
use super::routes::{Link, Routes, mac_text};
use super::{Namespace, Target};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Addresses held of one scope; more is no workload but a network.
pub(super) const MAX_ADDRESSES: usize = 1_024;
/// Devices that send by others of the same namespace, or not at all.
const INNER: [&str; 8] = ["bridge", "bond", "dummy", "ifb", "nlmon", "team", "vcan", "vrf"];

/// What this namespace is and has.
pub(super) struct Here {
    pub(super) routes: Routes,
    pub(super) links: Vec<Link>,
    pub(super) addresses: BTreeSet<IpAddr>,
}

impl Here {
    pub(super) fn look() -> Result<Self, AskKernelError> {
        let mut routes = Routes::open()?;
        let links = routes.links()?;
        let addresses = routes.addresses()?.into_iter().map(|(_, address)| address).collect();
        Ok(Self { routes, links, addresses })
    }

    pub(super) fn has_mac(&self, mac: &[u8; 6]) -> bool {
        self.links.iter().any(|link| link.mac.as_ref() == Some(mac))
    }

    pub(super) fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The name of a device, or its number when it is gone.
    pub(super) fn name(&self, index: u32) -> String {
        self.link(index).map_or_else(|| format!("device {index}"), |link| link.name.clone())
    }

    /// Adds what a namespace sends by and from; what this host itself has is never added.
    pub(super) fn add_namespace(&mut self, namespace: &Namespace, target: &mut Target) {
        let inside = match within(namespace, || {
            let mut routes = Routes::open()?;
            Ok::<_, AskKernelError>((routes.links()?, routes.addresses()?))
        }) {
            Ok(Ok(inside)) => inside,
            Ok(Err(error)) => return unseen(namespace, &error, target),
            Err(
                error @ (EnterError::Gone { .. }
                | EnterError::Refused { .. }
                | EnterError::Thread { .. }),
            ) => {
                return unseen(namespace, &error, target);
            }
        };
        let (links, addresses) = inside;
        let number = self.routes.number_of(namespace.pid).ok().flatten();
        for link in links.iter().filter(|link| !link.is_loopback) {
            self.add_device(link, number, target);
        }
        let is_sender = |address: &IpAddr| {
            !(address.is_loopback() || address.is_unspecified() || address.is_multicast())
        };
        for (_, address) in addresses {
            let address = address.to_canonical();
            if is_sender(&address) && !self.addresses.contains(&address) {
                if target.addresses.len() >= MAX_ADDRESSES {
                    target.open.push(format!(
                        "network namespace {} has more than {MAX_ADDRESSES} addresses; the others are not held",
                        namespace.inode
                    ));
                    break;
                }
                target.addresses.insert(address);
            }
        }
    }

    fn add_device(&self, link: &Link, number: Option<i32>, target: &mut Target) {
        // The device that it stands on may lend it its own address; held, this host itself would be cut.
        if let Some(mac) = link.mac.filter(|mac| *mac != [0; 6] && !self.has_mac(mac)) {
            target.macs.insert(mac);
        }
        let name = &link.name;
        match link.kind.as_deref() {
            Some("veth") => match self.host_end(link, number) {
                Some(end) => {
                    target.ports.insert(end.name.clone());
                }
                None => target.open.push(format!(
                    "its device {name} leads to another network namespace than this host's: what is forwarded from there is held by address only"
                )),
            },
            Some("macvlan" | "macvtap") => target.open.push(format!(
                "its device {name} sends past this host's stack: held by its hardware address only, which root in it can change"
            )),
            Some("ipvlan" | "ipvtap") => target.open.push(format!(
                "its device {name} sends past this host's stack with this host's hardware address: held by its addresses only"
            )),
            Some(kind) if INNER.contains(&kind) => {}
            // One that stands on another of the same namespace sends by that.
            Some("vlan") if link.lower_namespace.is_none() => {}
            Some(kind) => target.open.push(format!(
                "its device {name} ({kind}) is a tunnel: its outer packets leave from the network namespace in which it was made"
            )),
            None => target.open.push(format!(
                "its device {name} is hardware of its own: its frames never come into this host's network namespace"
            )),
        }
    }

    /// The end of a wire that is in this namespace; numbers alone would also fit a wire of another container.
    fn host_end(&self, inside: &Link, number: Option<i32>) -> Option<&Link> {
        self.link(inside.lower?).filter(|end| {
            end.is("veth")
                && end.lower == Some(inside.index)
                && (number.is_none() || end.lower_namespace == number)
        })
    }
}

fn unseen(namespace: &Namespace, error: &dyn std::error::Error, target: &mut Target) {
    let mut text = error.to_string();
    if let Some(source) = error.source() {
        text = format!("{text}: {source}");
    }
    target.open.push(format!(
        "what its network namespace {} sends by is not known ({text})",
        namespace.inode
    ));
}

/// A target in words, for receipts.
#[must_use]
pub fn describe(target: &Target) -> Vec<String> {
    let mut words = Vec::new();
    for cgroup in &target.cgroups {
        words.push(format!("cgroup {} (id {}, level {})", cgroup.path, cgroup.id, cgroup.level));
    }
    words.extend(target.ports.iter().map(|port| format!("device {port}")));
    words.extend(target.macs.iter().map(|mac| format!("hardware address {}", mac_text(mac))));
    words.extend(target.addresses.iter().map(|address| format!("address {address}")));
    for namespace in &target.namespaces {
        words.push(format!("network namespace {} (process {})", namespace.inode, namespace.pid));
    }
    words.extend(
        target.listeners.iter().map(|(transport, port)| format!("listener {transport} {port}")),
    );
    words
}
