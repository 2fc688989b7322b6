//! Entries of the kernel's connection tracking that belong to a cut: deleted, so that no rule of the site, no
//! NAT and no offload keeps them alive.

use super::plan::{Plan, is_cut};
use crate::netlink::{
    ACK, Answer, Channel, NetlinkError, REQUEST, Writer, attribute, big_endian, whole_attributes,
};
use crate::realtime::where_nobody_waits;
use sekisho_schema::{Scope, Transport};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `IPCTNL_MSG_CT_GET`, `_DELETE` and `_GET_STATS` (`linux/netfilter/nfnetlink_conntrack.h`), within subsystem 1 of
/// nfnetlink.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const GET_STATS: u16 = 1 << 8 | 5;
/// `CTA_STATS_GLOBAL_ENTRIES`.
const ENTRIES: u16 = 1;
/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_ID`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
/// `struct nfgenmsg` of every address family.
const EVERY_FAMILY: [u8; 4] = [0; 4];
/// Entries deleted for one cut, at most; the rest are dropped by the cut itself.
const MOST: usize = 65_536;

/// Why connection tracking could not be followed.
#[derive(Debug, thiserror::Error)]
#[error("cannot delete entries of connection tracking; packets are dropped all the same")]
pub struct TrackedError(#[from] NetlinkError);

impl TrackedError {
    /// Whether the kernel has no connection tracking to speak with.
    #[must_use]
    pub fn is_absent_subsystem(&self) -> bool {
        // EINVAL and EOPNOTSUPP: nfnetlink knows no such subsystem.
        self.0.is_absent() || matches!(self.0.code(), Some(22 | 95))
    }
}

/// Connection tracking of this network namespace.
pub struct Tracked {
    channel: Channel,
}

struct Entry {
    family: u8,
    transport: Transport,
    /// Who opened it, by what port, to where as the sender said, and to where it really goes.
    source_port: u16,
    to: [SocketAddr; 2],
    parts: Vec<u8>,
}

impl Tracked {
    /// Opens the socket to the kernel.
    ///
    /// # Errors
    /// [`TrackedError`].
    pub fn open() -> Result<Self, TrackedError> {
        Ok(Self { channel: Channel::open(netlink_sys::protocols::NETLINK_NETFILTER)? })
    }

    /// Deletes every entry of which a cut of these scopes stops the packets; how many there were.
    ///
    /// # Errors
    /// [`TrackedError`] when the entries can't be read; one that went meanwhile is no error.
    pub fn delete_cut(&mut self, scopes: &[Scope], plan: &Plan) -> Result<u32, TrackedError> {
        // To find entries the kernel walks every bucket of its table (262,144 on a large host, some 5 ms), and neither
        // lets another thread run nor handles a packet on that core meanwhile. Many hosts track nothing.
        if self.count()? == 0 {
            return Ok(0);
        }
        let found = where_nobody_waits(|| self.find(scopes, plan)).map_err(|source| {
            NetlinkError::Socket { doing: "start a thread that reads connection tracking", source }
        })??;
        let mut deleted = 0;
        for entry in found {
            let sequence = self.channel.next();
            let mut writer = Writer::default();
            let message = writer.message(DELETE, REQUEST | ACK, sequence, &[entry.family, 0, 0, 0]);
            for (_, whole) in whole_attributes(&entry.parts) {
                writer.copy(whole);
            }
            writer.end_message(&message);
            if self.channel.transact(writer.as_bytes(), sequence, sequence).is_ok() {
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    /// How many entries there are in this network namespace.
    fn count(&mut self) -> Result<u64, NetlinkError> {
        self.channel.ask(GET_STATS, &EVERY_FAMILY, |count, answer| {
            let entries = answer.body.get(4..).and_then(|body| attribute(body, ENTRIES));
            *count = entries.map_or(*count, big_endian);
        })
    }

    fn find(&mut self, scopes: &[Scope], plan: &Plan) -> Result<Vec<Entry>, NetlinkError> {
        self.channel.dump(GET, &EVERY_FAMILY, |found: &mut Vec<Entry>, answer| {
            if let Some(entry) = read(answer).filter(|entry| entry.is_cut(scopes, plan))
                && found.len() < MOST
            {
                found.push(entry);
            }
        })
    }
}

impl Entry {
    fn is_cut(&self, scopes: &[Scope], plan: &Plan) -> bool {
        scopes.iter().any(|scope| {
            self.to.iter().any(|to| is_cut(scope, self.transport, self.source_port, *to, plan))
        })
    }
}

fn read(answer: Answer<'_>) -> Option<Entry> {
    let family = *answer.body.first()?;
    let body = answer.body.get(4..)?;
    let (protocol, _, to, source_port) = tuple(attribute(body, ORIGINAL)?)?;
    // The answers come from where it really goes.
    let (_, from, _, _) = tuple(attribute(body, REPLY)?)?;
    let mut parts = Vec::new();
    for (kind, whole) in whole_attributes(body).filter(|(kind, _)| matches!(*kind, ORIGINAL | ID)) {
        let _ = kind;
        parts.extend_from_slice(whole);
        parts.resize(parts.len().next_multiple_of(4), 0);
    }
    let transport = match protocol {
        6 => Transport::Tcp,
        17 => Transport::Udp,
        _ => return None,
    };
    Some(Entry { family, transport, source_port, to: [to, from], parts })
}

/// Protocol, source, destination and source port of a `CTA_TUPLE_…`.
fn tuple(tuple: &[u8]) -> Option<(u8, SocketAddr, SocketAddr, u16)> {
    // CTA_TUPLE_IP: CTA_IP_V4_SRC, _DST, CTA_IP_V6_SRC, _DST; CTA_TUPLE_PROTO: CTA_PROTO_NUM, _SRC_PORT, _DST_PORT.
    let (ip, proto) = (attribute(tuple, 1)?, attribute(tuple, 2)?);
    let address = |v4: u16, v6: u16| -> Option<IpAddr> {
        if let Some(bytes) = attribute(ip, v4) {
            return Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into());
        }
        let bytes: [u8; 16] = attribute(ip, v6)?.try_into().ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical())
    };
    let port = |kind: u16| {
        attribute(proto, kind).map_or(0, |value| u16::try_from(big_endian(value)).unwrap_or(0))
    };
    let number = *attribute(proto, 1)?.first()?;
    Some((
        number,
        SocketAddr::new(address(1, 3)?, port(2)),
        SocketAddr::new(address(2, 4)?, port(3)),
        port(2),
    ))
}
