//! Level 7: a network device taken down and up again, over rtnetlink.
//!
//! Enters: a device's name and the plan. Leaves: the device down, and whether it was up before. Nothing here
//! has a time-out: the kernel holds none for a device, so that whoever takes one down raises it at the lease's
//! end, also after a crash (the name and what was up have to be written down before).

use super::plan::{Plan, Refusal};
use crate::netlink::{ACK, Channel, NetlinkError, REQUEST, Writer, attribute, text_of, u32_at};
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// `RTM_NEWLINK`, `RTM_GETLINK` (linux/rtnetlink.h).
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
/// `IFLA_IFNAME`, `IFLA_LINKINFO` and within it `IFLA_INFO_KIND` (linux/if_link.h).
const NAME: u16 = 3;
const LINK_INFO: u16 = 18;
const INFO_KIND: u16 = 1;
/// `IFF_UP` (linux/if.h).
const UP: u32 = 1;
/// Bytes of `struct ifinfomsg`.
const HEAD_BYTES: usize = 16;

/// Why a device is not as it shall be.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No such device.
    #[error("there is no device {0}; nothing was changed")]
    Absent(String),
    /// The kernel refused.
    #[error("cannot take device {device} {}; it stays as it was", if *.up { "up" } else { "down" })]
    Kernel {
        /// The device.
        device: String,
        /// Whether it should have come up.
        up: bool,
        /// What the kernel said.
        source: NetlinkError,
    },
    /// The devices could not be listed.
    #[error("cannot list the devices of this host; nothing was changed")]
    List(#[source] NetlinkError),
}

/// A device as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Whether it is up by its owner's will (`IFF_UP`), whatever the wire says.
    pub up: bool,
    /// Its kind where it is no plain device: `bridge`, `veth`, `vlan`, …
    pub kind: String,
    index: u32,
}

/// The devices of this network namespace.
///
/// # Errors
/// [`LinkError::List`].
pub fn links() -> Result<Vec<Link>, LinkError> {
    let mut channel = open().map_err(LinkError::List)?;
    channel
        .dump(GET_LINK, &[0; HEAD_BYTES], |links: &mut Vec<Link>, answer| {
            let rest = answer.body.get(HEAD_BYTES..).unwrap_or_default();
            let kind = attribute(rest, LINK_INFO).and_then(|info| attribute(info, INFO_KIND));
            // struct ifinfomsg: index at 4, flags at 8.
            if let (Some(name), Some(index), Some(flags)) =
                (attribute(rest, NAME), u32_at(answer.body, 4), u32_at(answer.body, 8))
            {
                links.push(Link {
                    name: text_of(name),
                    up: flags & UP != 0,
                    kind: kind.map(text_of).unwrap_or_default(),
                    index,
                });
            }
        })
        .map_err(LinkError::List)
}

/// One device.
///
/// # Errors
/// [`LinkError::Absent`] and [`LinkError::List`].
pub fn state(device: &str) -> Result<Link, LinkError> {
    links()?
        .into_iter()
        .find(|link| link.name == device)
        .ok_or_else(|| LinkError::Absent(device.to_owned()))
}

/// Whether a bridge is among the devices of this host.
#[must_use]
pub fn has_bridge() -> bool {
    links().is_ok_and(|links| links.iter().any(|link| link.kind == "bridge"))
}

/// Takes a device down; returns whether it was up, which is for the caller to remember until it is raised.
///
/// # Errors
/// [`LinkError`]; the device stays as it was.
pub fn down(device: &str) -> Result<bool, LinkError> {
    set(device, false)
}

/// Takes a device up; returns whether it was up already.
///
/// # Errors
/// [`LinkError`]; the device stays as it was.
pub fn up(device: &str) -> Result<bool, LinkError> {
    set(device, true)
}

/// Why a device may not be taken down under this plan; `break_glass` sets aside that the collector is lost.
///
/// The loopback is never taken down.
#[must_use]
pub fn refusal(device: &str, plan: &Plan, break_glass: bool) -> Option<Refusal> {
    if device == "lo" {
        return Some(Refusal::Exempt("the loopback is this host itself".to_owned()));
    }
    if break_glass || plan.collector.is_empty() {
        return None;
    }
    // One endpoint that is reached otherwise is enough.
    let ways: Vec<Option<String>> =
        plan.collector.iter().map(|endpoint| way_to(*endpoint)).collect();
    let lost = ways.iter().all(|way| way.as_deref().is_none_or(|way| way == device));
    (lost && ways.iter().any(Option::is_some)).then(|| {
        Refusal::Exempt(format!(
            "{device} is the only way to the collector; take it down with break-glass, at the host"
        ))
    })
}

/// Why frames that come in by a device may not be cut: answers of the collector are among them.
pub(super) fn is_way_to_collector(device: &str, plan: &Plan) -> Option<String> {
    if device == "lo" {
        return Some("the loopback is this host itself".to_owned());
    }
    plan.collector
        .iter()
        .find(|end| way_to(**end).as_deref() == Some(device))
        .map(|end| format!("the collector at {end} answers by {device}"))
}

/// The device by which packets to an endpoint leave; `None` when there is no route.
fn way_to(endpoint: SocketAddr) -> Option<String> {
    let any = if endpoint.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    // Connecting a datagram socket sends nothing: it asks the routes.
    socket.connect(endpoint).ok()?;
    let local = socket.local_addr().ok()?.ip();
    pnet::datalink::interfaces()
        .into_iter()
        .find(|interface| interface.ips.iter().any(|own| same(own.ip(), local)))
        .map(|interface| interface.name)
}

fn same(a: IpAddr, b: IpAddr) -> bool {
    a.to_canonical() == b.to_canonical()
}

fn open() -> Result<Channel, NetlinkError> {
    Channel::open(netlink_sys::protocols::NETLINK_ROUTE)
}

fn set(device: &str, up: bool) -> Result<bool, LinkError> {
    let link = state(device)?;
    if link.up == up {
        return Ok(link.up);
    }
    let failed = |source| LinkError::Kernel { device: device.to_owned(), up, source };
    let mut channel = open().map_err(failed)?;
    let sequence = channel.next();
    let mut writer = Writer::default();
    // struct ifinfomsg: family, pad, type, index, flags, mask of flags.
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(&[0; 4]);
    head.extend_from_slice(&link.index.to_ne_bytes());
    head.extend_from_slice(&(if up { UP } else { 0 }).to_ne_bytes());
    head.extend_from_slice(&UP.to_ne_bytes());
    let message = writer.message(NEW_LINK, REQUEST | ACK, sequence, &head);
    writer.end_message(&message);
    channel.transact(writer.as_bytes(), sequence, sequence).map_err(failed)?;
    Ok(link.up)
}
