//! Elements by name: what each scope is in the sets of the ruleset.

use super::plan::Plan;
use super::skeleton::{
    ARMED_HOST, ARMED_HOST_DEVICE, ARMED_MANAGEMENT, ARMED_MANAGEMENT_DEVICE, CUT_DEST4, CUT_DEST6,
    LISTENER, OBSERVE4, OBSERVE6, QUOTA4, QUOTA6, SENDER_MAC, SENDER_PORT, SENDER4, SENDER6,
    STRICT_DEVICE, THROTTLE4, THROTTLE6, cgroup_set,
};
use crate::netlink::text_of;
use crate::target::Target;
use sekisho_schema::{Measure, Scope, Transport};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `NFPROTO_INET` (linux/netfilter.h); so are the next.
pub(super) const INET: u8 = 1;
pub(super) const IPV4: u8 = 2;
pub(super) const NETDEV: u8 = 5;
pub(super) const BRIDGE: u8 = 7;
pub(super) const IPV6: u8 = 10;
/// The deepest cgroup that has a set.
pub(super) const DEEPEST_CGROUP: u8 = 8;
/// Bytes of a device's name, its final zero included (`IFNAMSIZ`).
const DEVICE_BYTES: usize = 16;

/// Which set of a table; in the order in which they are committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    ArmedHost,
    ArmedHostDevice,
    ArmedManagement,
    ArmedManagementDevice,
    Cgroup(u8),
    Destination4,
    Destination6,
    Listener,
    Observe4,
    Observe6,
    Quota4,
    Quota6,
    Sender4,
    Sender6,
    SenderMac,
    SenderPort,
    StrictDevice,
    Throttle4,
    Throttle6,
}

impl Kind {
    /// The name of the set.
    const fn name(self) -> &'static str {
        match self {
            Self::ArmedHost => ARMED_HOST,
            Self::ArmedHostDevice => ARMED_HOST_DEVICE,
            Self::ArmedManagement => ARMED_MANAGEMENT,
            Self::ArmedManagementDevice => ARMED_MANAGEMENT_DEVICE,
            Self::Cgroup(level) => cgroup_set(level),
            Self::Destination4 => CUT_DEST4,
            Self::Destination6 => CUT_DEST6,
            Self::Listener => LISTENER,
            Self::Observe4 => OBSERVE4,
            Self::Observe6 => OBSERVE6,
            Self::Quota4 => QUOTA4,
            Self::Quota6 => QUOTA6,
            Self::Sender4 => SENDER4,
            Self::Sender6 => SENDER6,
            Self::SenderMac => SENDER_MAC,
            Self::SenderPort => SENDER_PORT,
            Self::StrictDevice => STRICT_DEVICE,
            Self::Throttle4 => THROTTLE4,
            Self::Throttle6 => THROTTLE6,
        }
    }

    /// Whether its keys are names of devices, which fill the key, zeros included.
    const fn is_device(self) -> bool {
        matches!(
            self,
            Self::ArmedHostDevice
                | Self::ArmedManagementDevice
                | Self::SenderPort
                | Self::StrictDevice
        )
    }

    /// Whether its elements count and pass some packets.
    pub(crate) const fn is_measure(self) -> bool {
        matches!(
            self,
            Self::Observe4
                | Self::Observe6
                | Self::Quota4
                | Self::Quota6
                | Self::Throttle4
                | Self::Throttle6
        )
    }

    fn of_measure(measure: Measure, v4: bool) -> Self {
        match (measure, v4) {
            (Measure::Cut | Measure::Freeze, true) => Self::Destination4,
            (Measure::Cut | Measure::Freeze, false) => Self::Destination6,
            (Measure::Observe, true) => Self::Observe4,
            (Measure::Observe, false) => Self::Observe6,
            (Measure::Quota { .. }, true) => Self::Quota4,
            (Measure::Quota { .. }, false) => Self::Quota6,
            (Measure::Throttle { .. }, true) => Self::Throttle4,
            (Measure::Throttle { .. }, false) => Self::Throttle6,
        }
    }
}

/// A named set of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot {
    pub(super) family: u8,
    pub(super) kind: Kind,
}

impl Slot {
    /// Every set; those of the bridge are there only where a bridge is.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let both = [
            Kind::Destination4,
            Kind::Destination6,
            Kind::Observe4,
            Kind::Observe6,
            Kind::Quota4,
            Kind::Quota6,
            Kind::Sender4,
            Kind::Sender6,
            Kind::SenderMac,
            Kind::SenderPort,
            Kind::Throttle4,
            Kind::Throttle6,
        ];
        let inet = [Kind::ArmedHost, Kind::ArmedManagement, Kind::Listener]
            .into_iter()
            .chain((1..=DEEPEST_CGROUP).map(Kind::Cgroup))
            .chain(both)
            .map(|kind| Self { family: INET, kind });
        let netdev = [Kind::ArmedHostDevice, Kind::ArmedManagementDevice, Kind::StrictDevice]
            .into_iter()
            .chain(both)
            .map(|kind| Self { family: NETDEV, kind });
        let bridge = [Kind::Sender4, Kind::Sender6, Kind::SenderMac, Kind::SenderPort]
            .map(|kind| Self { family: BRIDGE, kind });
        inet.chain(netdev).chain(bridge)
    }

    /// Its name within its table.
    pub(super) const fn name(self) -> &'static str {
        self.kind.name()
    }
}

/// One element of one set: what the kernel compares a packet with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(super) slot: Slot,
    key: [u8; DEVICE_BYTES],
    length: u8,
}

impl Cell {
    pub(super) fn new(slot: Slot, value: &[u8]) -> Self {
        let mut key = [0; DEVICE_BYTES];
        for (place, byte) in key.iter_mut().zip(value) {
            *place = *byte;
        }
        let length =
            if slot.kind.is_device() { DEVICE_BYTES } else { value.len().min(DEVICE_BYTES) };
        Self { slot, key, length: u8::try_from(length).unwrap_or(16) }
    }

    fn inet(kind: Kind, value: &[u8]) -> Self {
        Self::new(Slot { family: INET, kind }, value)
    }

    fn netdev(kind: Kind, value: &[u8]) -> Self {
        Self::new(Slot { family: NETDEV, kind }, value)
    }

    pub(super) fn key(&self) -> &[u8] {
        self.key.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// The device that it names.
    pub(super) fn device(&self) -> Option<String> {
        self.slot.kind.is_device().then(|| text_of(self.key()))
    }

    /// The address that it names.
    pub(super) fn address(&self) -> Option<IpAddr> {
        match (self.length, self.slot.kind.is_device()) {
            (4, _) => self.key.first_chunk::<4>().map(|key| Ipv4Addr::from(*key).into()),
            (16, false) => Some(Ipv6Addr::from(self.key).into()),
            _ => None,
        }
    }

    /// The scope that this cell is part of, where the cell alone tells.
    pub(crate) fn scope(&self) -> Option<Scope> {
        match self.slot.kind {
            Kind::ArmedHost | Kind::ArmedHostDevice => Some(Scope::Host),
            Kind::ArmedManagement | Kind::ArmedManagementDevice => Some(Scope::ManagementOnly),
            Kind::Destination4 | Kind::Destination6 => self.address().map(Scope::Destination),
            kind if kind.is_measure() => self.address().map(Scope::Destination),
            _ => None,
        }
    }

    /// Whether it only helps others: it is never what a containment is about.
    pub(crate) const fn is_auxiliary(&self) -> bool {
        matches!(self.slot.kind, Kind::StrictDevice | Kind::Listener)
    }

    /// Whether many containments share it, so that it names none of them.
    pub(crate) const fn is_shared(&self) -> bool {
        matches!(self.slot.kind, Kind::StrictDevice)
    }

    /// The cells that make frames be what they claim on every device that leads outside.
    pub(super) fn strict(plan: &Plan) -> Vec<Self> {
        let devices = plan.uplinks.iter();
        devices.map(|device| Self::netdev(Kind::StrictDevice, device.as_bytes())).collect()
    }

    /// Every cell of a scope under this plan; none for one that is not held by sets, or of which nothing is there.
    pub(crate) fn of(
        scope: &Scope,
        measure: Measure,
        target: Option<&Target>,
        plan: &Plan,
    ) -> Vec<Self> {
        let (families, by_device) = match scope {
            Scope::Destination(address) => {
                let (kind, bytes) = match address.to_canonical() {
                    IpAddr::V4(ip) => (Kind::of_measure(measure, true), ip.octets().to_vec()),
                    IpAddr::V6(ip) => (Kind::of_measure(measure, false), ip.octets().to_vec()),
                };
                let cells = [Self::inet(kind, &bytes), Self::netdev(kind, &bytes)];
                return cells.into_iter().chain(Self::strict(plan)).collect();
            }
            Scope::Host => (Kind::ArmedHost, Kind::ArmedHostDevice),
            Scope::ManagementOnly => (Kind::ArmedManagement, Kind::ArmedManagementDevice),
            Scope::Cgroup(_) | Scope::Container(_) | Scope::Internal(_) => {
                let mut cells =
                    target.map_or_else(Vec::new, |target| Self::of_target(target, plan));
                if cells.iter().any(|cell| cell.slot.family == NETDEV) {
                    cells.extend(Self::strict(plan));
                }
                return cells;
            }
            Scope::Link(_) => return Vec::new(),
        };
        let mut cells = vec![Self::inet(families, &[IPV4]), Self::inet(families, &[IPV6])];
        for device in &plan.uplinks {
            cells.extend(
                [by_device, Kind::StrictDevice].map(|kind| Self::netdev(kind, device.as_bytes())),
            );
        }
        cells
    }

    /// The cells of a workload and of a sender that stands in another namespace or on another host.
    fn of_target(target: &Target, plan: &Plan) -> Vec<Self> {
        let mut cells: Vec<Self> = target
            .cgroups
            .iter()
            .filter(|cgroup| (1..=DEEPEST_CGROUP).contains(&cgroup.level))
            // The kernel compares the id as a number of its own order.
            .map(|cgroup| Self::inet(Kind::Cgroup(cgroup.level), &cgroup.id.to_ne_bytes()))
            .collect();
        if !cells.is_empty() {
            let listeners = target.listeners.iter();
            cells.extend(
                listeners
                    .filter(|(transport, _)| *transport == Transport::Tcp)
                    .map(|(_, port)| Self::inet(Kind::Listener, &port.to_be_bytes())),
            );
        }
        let families: &[u8] = if plan.bridged { &[INET, NETDEV, BRIDGE] } else { &[INET, NETDEV] };
        for family in families.iter().copied() {
            let cell = |kind, value: &[u8]| Self::new(Slot { family, kind }, value);
            cells.extend(target.addresses.iter().map(|address| match address.to_canonical() {
                IpAddr::V4(ip) => cell(Kind::Sender4, &ip.octets()),
                IpAddr::V6(ip) => cell(Kind::Sender6, &ip.octets()),
            }));
            cells.extend(target.macs.iter().map(|mac| cell(Kind::SenderMac, mac)));
            cells.extend(target.ports.iter().map(|port| cell(Kind::SenderPort, port.as_bytes())));
        }
        cells
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = match self.slot.family {
            INET => "inet",
            NETDEV => "netdev",
            _ => "bridge",
        };
        write!(f, "{table} {} ", self.slot.name())?;
        if let Some(device) = self.device() {
            return f.write_str(&device);
        }
        match (self.address(), self.slot.kind, self.key()) {
            (Some(address), ..) => write!(f, "{address}"),
            (_, Kind::Cgroup(_), key) => {
                write!(f, "{}", <[u8; 8]>::try_from(key).map_or(0, u64::from_ne_bytes))
            }
            (_, Kind::Listener, [high, low]) => write!(f, "{}", u16::from_be_bytes([*high, *low])),
            (_, _, [IPV4]) => f.write_str("ipv4"),
            (_, _, [IPV6]) => f.write_str("ipv6"),
            (_, _, bytes) => {
                for (place, byte) in bytes.iter().enumerate() {
                    write!(f, "{}{byte:02x}", if place == 0 { "" } else { ":" })?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Cgroup;

    fn plan() -> Plan {
        Plan { uplinks: vec!["eth0".to_owned()], ..Plan::default() }
    }

    fn names(scope: &str, measure: Measure, target: &Target, plan: &Plan) -> Vec<String> {
        Cell::of(&scope.parse().unwrap(), measure, Some(target), plan)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_host_cut_is_both_families_and_each_device_and_names_itself() {
        assert_eq!(
            names("host", Measure::Cut, &Target::default(), &plan()),
            [
                "inet armed_host ipv4",
                "inet armed_host ipv6",
                "netdev armed_host_dev eth0",
                "netdev strict_dev eth0"
            ]
        );
    }

    #[test]
    fn a_destination_is_one_element_in_each_table_whatever_the_measure() {
        let scope: Scope = "dest:2001:db8::1".parse().unwrap();
        for measure in [Measure::Cut, Measure::Observe, Measure::Quota { bytes: 1 }] {
            let cells = Cell::of(&scope, measure, None, &Plan::default());
            assert_eq!(cells.len(), 2);
            assert!(cells.iter().all(|cell| cell.scope().as_ref() == Some(&scope)));
        }
    }

    #[test]
    fn a_workload_is_its_cgroups_and_what_it_listens_on() {
        let target = Target {
            cgroups: [Cgroup { level: 2, id: 77, path: "/a.slice/b.service".to_owned() }].into(),
            listeners: [(Transport::Tcp, 8080), (Transport::Udp, 53)].into(),
            ..Target::default()
        };
        assert_eq!(
            names("cgroup:/a.slice/b.service", Measure::Cut, &target, &plan()),
            ["inet cgroup_2 77", "inet listener 8080"]
        );
    }

    #[test]
    fn a_sender_is_its_addresses_macs_and_ports_in_every_table() {
        let target = Target {
            addresses: ["10.8.0.2".parse().unwrap()].into(),
            macs: [[2, 0, 0, 0, 0, 1]].into(),
            ports: ["v0".to_owned()].into(),
            ..Target::default()
        };
        let names =
            names("internal:10.8.0.2", Measure::Cut, &target, &Plan { bridged: true, ..plan() });
        for table in ["inet", "netdev", "bridge"] {
            for cell in ["sender4 10.8.0.2", "sender_mac 02:00:00:00:00:01", "sender_port v0"] {
                assert!(names.contains(&format!("{table} {cell}")), "{table} {cell}: {names:?}");
            }
        }
        assert!(names.contains(&"netdev strict_dev eth0".to_owned()));
    }

    #[test]
    fn nothing_is_held_for_what_is_not_there() {
        for scope in ["cgroup:/x.slice", "container:x", "internal:10.0.0.9", "link:eth0"] {
            assert!(names(scope, Measure::Cut, &Target::default(), &plan()).is_empty(), "{scope}");
        }
    }
}
