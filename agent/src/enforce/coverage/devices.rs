//! Devices: programs on them, tunnels, and those without an egress hook of ours.

use super::Look;
use crate::netlink::{Channel, NetlinkError, attribute, text_of, u16_at, u32_at};

/// `RTM_GETLINK` (linux/rtnetlink.h).
const GET_LINK: u16 = 18;
/// `IFLA_IFNAME`, `IFLA_LINK`, `IFLA_MASTER`, `IFLA_LINKINFO` and within it `IFLA_INFO_KIND`, `IFLA_LINK_NETNSID`,
/// `IFLA_XDP` and within it `IFLA_XDP_ATTACHED` (linux/if_link.h).
const NAME: u16 = 3;
const LINK: u16 = 5;
const MASTER: u16 = 10;
const LINK_INFO: u16 = 18;
const INFO_KIND: u16 = 1;
const LINK_NAMESPACE: u16 = 37;
const XDP: u16 = 43;
const XDP_ATTACHED: u16 = 2;
/// Bytes of `struct ifinfomsg`.
const HEAD_BYTES: usize = 16;
/// `IFF_UP` (linux/if.h) and `ARPHRD_LOOPBACK` (linux/if_arp.h).
const UP: u32 = 1;
const LOOPBACK: u16 = 772;
/// Kinds of devices that wrap packets into others.
const TUNNELS: [&str; 22] = [
    "amt",
    "bareudp",
    "erspan",
    "geneve",
    "gre",
    "gretap",
    "gtp",
    "ip6erspan",
    "ip6gre",
    "ip6gretap",
    "ip6tnl",
    "ipip",
    "l2tpeth",
    "macsec",
    "ovpn",
    "ppp",
    "sit",
    "tun",
    "vti",
    "vti6",
    "vxlan",
    "wireguard",
];
/// Kinds that lead no further than into this host, or pass on to devices that are looked at themselves.
const INWARD: [&str; 7] = ["dummy", "ifb", "netkit", "nlmon", "veth", "vrf", "xfrm"];
/// Kinds whose frames leave by their members.
const GATHERING: [&str; 3] = ["bond", "bridge", "team"];

/// A device of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) index: u32,
    pub(super) name: String,
    /// Empty for hardware.
    pub(super) kind: String,
    pub(super) up: bool,
    pub(super) loopback: bool,
    pub(super) xdp: bool,
    /// The device below it.
    pub(super) below: Option<u32>,
    /// Whether the device below is in another namespace.
    pub(super) below_elsewhere: bool,
    pub(super) master: Option<u32>,
}

/// The devices of this network namespace.
pub(super) fn devices() -> Result<Vec<Device>, NetlinkError> {
    let mut channel = Channel::open(netlink_sys::protocols::NETLINK_ROUTE)?;
    channel.dump(GET_LINK, &[0; HEAD_BYTES], |devices: &mut Vec<Device>, answer| {
        devices.extend(read(answer.body));
    })
}

fn read(body: &[u8]) -> Option<Device> {
    let rest = body.get(HEAD_BYTES..)?;
    let number = |kind| attribute(rest, kind).and_then(|value| u32_at(value, 0));
    let attached = attribute(rest, XDP).and_then(|xdp| attribute(xdp, XDP_ATTACHED));
    let kind = attribute(rest, LINK_INFO).and_then(|info| attribute(info, INFO_KIND));
    Some(Device {
        index: u32_at(body, 4)?,
        name: attribute(rest, NAME).map(text_of)?,
        kind: kind.map(text_of).unwrap_or_default(),
        up: u32_at(body, 8)? & UP != 0,
        loopback: u16_at(body, 2)? == LOOPBACK,
        xdp: attached.and_then(<[u8]>::first).is_some_and(|mode| *mode != 0),
        below: number(LINK).filter(|index| *index != 0),
        below_elsewhere: attribute(rest, LINK_NAMESPACE).is_some(),
        master: number(MASTER).filter(|index| *index != 0),
    })
}

impl Device {
    pub(super) fn is_tunnel(&self) -> bool {
        TUNNELS.contains(&self.kind.as_str())
    }

    /// Whether it leads out of this host by itself.
    pub(super) fn is_hardware(&self) -> bool {
        self.kind.is_empty() && !self.loopback
    }
}

/// Whether every frame that leaves by a device meets an egress hook of ours.
pub(super) fn is_hooked(device: &Device, all: &[Device], uplinks: &[String]) -> bool {
    // Devices stand on each other some few levels high; a ring of them ends here.
    fn within(device: &Device, all: &[Device], uplinks: &[String], levels: u8) -> bool {
        if uplinks.contains(&device.name) {
            return true;
        }
        let Some(levels) = levels.checked_sub(1) else { return false };
        if GATHERING.contains(&device.kind.as_str()) {
            let mut members =
                all.iter().filter(|other| other.master == Some(device.index)).peekable();
            return members.peek().is_none()
                || members.all(|member| {
                    INWARD.contains(&member.kind.as_str()) || within(member, all, uplinks, levels)
                });
        }
        !device.below_elsewhere
            && device.below.is_some_and(|below| {
                all.iter().any(|other| {
                    other.index == below
                        && other.index != device.index
                        && within(other, all, uplinks, levels)
                })
            })
    }
    within(device, all, uplinks, 8)
}

/// What devices alone tell.
pub(super) fn gaps(all: &[Device], look: &Look) -> Vec<String> {
    let mut gaps = Vec::new();
    let bridge =
        |index: u32| all.iter().any(|device| device.index == index && device.kind == "bridge");
    for device in all.iter().filter(|device| device.up) {
        let name = &device.name;
        if device.xdp {
            gaps.push(format!("xdp_program:{name}"));
        }
        if name.starts_with("cilium_") {
            gaps.push(format!("cilium:{name}"));
        }
        if device.is_tunnel() {
            gaps.push(format!("tunnel:{name}"));
        } else if !device.loopback
            && !INWARD.contains(&device.kind.as_str())
            && !is_hooked(device, all, &look.uplinks)
        {
            if device.master.is_some_and(bridge) {
                if !look.bridged {
                    gaps.push(format!("bridge_port:{name}"));
                }
            } else {
                gaps.push(format!("device_without_hook:{name}"));
            }
        }
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(index: u32, name: &str, kind: &str) -> Device {
        Device {
            index,
            name: name.to_owned(),
            kind: kind.to_owned(),
            up: true,
            ..Device::default()
        }
    }

    fn told(all: &[Device], uplinks: &[&str]) -> Vec<String> {
        let uplinks = uplinks.iter().map(|name| (*name).to_owned()).collect();
        gaps(all, &Look { uplinks, ..Look::default() })
    }

    #[test]
    fn a_device_is_hooked_by_itself_by_what_is_below_it_or_by_all_its_members() {
        let vlan = Device { below: Some(1), ..device(2, "eth0.5", "vlan") };
        assert!(told(&[device(1, "eth0", ""), vlan.clone()], &["eth0"]).is_empty());
        assert_eq!(
            told(&[device(1, "eth0", ""), vlan], &[]),
            ["device_without_hook:eth0", "device_without_hook:eth0.5"]
        );
        let slave = |index, name| Device { master: Some(9), ..device(index, name, "") };
        let bond = device(9, "bond0", "bond");
        assert!(
            told(&[slave(1, "eth0"), slave(2, "eth1"), bond.clone()], &["eth0", "eth1"]).is_empty()
        );
        // A raw sender on a member passes the hook of the bond.
        assert_eq!(told(&[slave(1, "eth0"), bond], &["bond0"]), ["device_without_hook:eth0"]);
    }

    #[test]
    fn a_device_whose_parent_is_in_another_namespace_is_not_taken_for_hooked() {
        let macvlan =
            Device { below: Some(1), below_elsewhere: true, ..device(7, "mv0", "macvlan") };
        assert_eq!(told(&[device(1, "eth0", ""), macvlan], &["eth0"]), ["device_without_hook:mv0"]);
    }

    #[test]
    fn tunnels_bridge_ports_and_programs_are_named_by_their_device() {
        let all = [
            Device { master: Some(5), ..device(1, "eth0", "") },
            Device { master: Some(5), ..device(2, "veth1", "veth") },
            Device { xdp: true, ..device(3, "eth1", "") },
            device(4, "tun0", "tun"),
            device(5, "br0", "bridge"),
            Device { up: false, ..device(6, "tunl0", "ipip") },
        ];
        assert_eq!(
            told(&all, &["br0", "eth1"]),
            ["bridge_port:eth0", "xdp_program:eth1", "tunnel:tun0"]
        );
    }
}
