//! Flows of one hour, put together by what a cut asks for.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sekisho_engine::learn::FlowEnd;
use sekisho_schema::finding::Direction;
use sekisho_schema::{Span, Timestamp, Transport};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Rows of one hour; beyond them clients are told by their network, and beyond that only counted.
const ROWS: usize = 16_384;
/// Rows beyond which new clients of services are told by their network (/24, /48).
const EXACT_ROWS: usize = 8_192;
/// Workloads told for one row.
const WORKLOADS: usize = 4;
const HOUR: i64 = 3_600;

/// The outside end: one address, or a network where there were too many.
pub type Client = IpNet;

/// What flows have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RowKey {
    /// Who spoke first.
    pub direction: Direction,
    /// Transport.
    pub transport: Transport,
    /// The inside end.
    pub inside: IpAddr,
    /// The local port, when the outside spoke first: a service.
    pub service: Option<u16>,
    /// The outside end.
    pub outside: Client,
    /// The remote port, when the inside spoke first.
    pub port: Option<u16>,
}

/// Flows that have their key in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// What they have in common.
    #[serde(flatten)]
    pub key: RowKey,
    /// A name that was asked for, the last one.
    pub name: Option<String>,
    /// Workloads that were seen to hold such a flow, by cgroup path; sampled, so not all.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub workloads: BTreeSet<String>,
    /// How many.
    pub flows: u64,
    /// Payload bytes toward the outside.
    pub bytes_out: u64,
    /// Payload bytes toward the inside.
    pub bytes_in: u64,
    /// When the first packet of the first was seen.
    pub first_at: Timestamp,
    /// When the last packet of the last was seen.
    pub last_at: Timestamp,
}

impl RowKey {
    fn of(flow: &FlowEnd, network: bool) -> Self {
        let inbound = flow.direction == Direction::Inbound;
        let address = flow.key.remote.ip().to_canonical();
        let outside = if network && inbound { around(address) } else { IpNet::from(address) };
        Self {
            direction: flow.direction,
            transport: flow.key.transport,
            inside: flow.key.local.ip().to_canonical(),
            service: inbound.then_some(flow.key.local.port()),
            outside,
            port: (!inbound).then_some(flow.key.remote.port()),
        }
    }
}

/// The network around an address that usually belongs to one site: /24 or /48.
fn around(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(address) => Ipv4Net::new(address, 24)
            .map_or(IpNet::from(IpAddr::V4(address)), |net| net.trunc().into()),
        IpAddr::V6(address) => Ipv6Net::new(address, 48)
            .map_or(IpNet::from(IpAddr::V6(address)), |net| net.trunc().into()),
    }
}

/// The flows that ended within one hour of UTC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hour {
    /// Hours since the Unix epoch.
    pub number: i64,
    /// The rows.
    pub rows: BTreeMap<RowKey, Row>,
    /// Flows that found no row any more.
    pub uncounted: u64,
}

impl Hour {
    /// The hour of a time.
    #[must_use]
    pub const fn of(at: Timestamp) -> i64 {
        at.seconds().div_euclid(HOUR)
    }

    /// An hour without flows.
    #[must_use]
    pub fn new(number: i64) -> Self {
        Self { number, ..Self::default() }
    }

    /// When it begins.
    #[must_use]
    pub const fn begins(&self) -> Timestamp {
        Timestamp::from_nanos(self.number.saturating_mul(HOUR).saturating_mul(1_000_000_000))
    }

    /// When it ends.
    #[must_use]
    pub const fn ends(&self) -> Timestamp {
        self.begins().after(Span::from_secs(HOUR))
    }

    /// Adds a flow.
    pub fn add(&mut self, flow: FlowEnd) {
        let exact = RowKey::of(&flow, false);
        let full = self.rows.len() >= EXACT_ROWS;
        let key =
            if full && !self.rows.contains_key(&exact) { RowKey::of(&flow, true) } else { exact };
        if self.rows.len() >= ROWS && !self.rows.contains_key(&key) {
            self.uncounted += 1;
            return;
        }
        let row = self.rows.entry(key.clone()).or_insert_with(|| Row {
            key,
            name: None,
            workloads: BTreeSet::new(),
            flows: 0,
            bytes_out: 0,
            bytes_in: 0,
            first_at: flow.first_at,
            last_at: flow.last_at,
        });
        row.flows += 1;
        row.bytes_out = row.bytes_out.saturating_add(flow.bytes_out);
        row.bytes_in = row.bytes_in.saturating_add(flow.bytes_in);
        row.first_at = row.first_at.min(flow.first_at);
        row.last_at = row.last_at.max(flow.last_at);
        row.name = flow.name.or_else(|| row.name.take());
    }

    /// Notes who was seen to hold flows to an outside end, or of a service.
    pub fn attribute(&mut self, fits: impl Fn(&RowKey) -> bool, workload: &str) {
        for row in self.rows.values_mut().filter(|row| fits(&row.key)) {
            if row.workloads.len() < WORKLOADS && !row.workloads.contains(workload) {
                row.workloads.insert(workload.to_owned());
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use sekisho_schema::FlowKey;

    pub(crate) fn flow(direction: Direction, local: &str, remote: &str, bytes_out: u64) -> FlowEnd {
        FlowEnd {
            key: FlowKey {
                transport: Transport::Tcp,
                local: local.parse().unwrap(),
                remote: remote.parse().unwrap(),
            },
            direction,
            first_at: Timestamp::from_nanos(1_780_000_000_000_000_000),
            last_at: Timestamp::from_nanos(1_780_000_001_000_000_000),
            bytes_out,
            bytes_in: 10,
            name: None,
        }
    }

    #[test]
    fn flows_of_one_peer_are_one_row_whatever_their_own_port() {
        let mut hour = Hour::new(0);
        for port in 40_000..40_010 {
            hour.add(flow(
                Direction::Outbound,
                &format!("10.0.0.5:{port}"),
                "203.0.113.9:443",
                100,
            ));
        }
        hour.add(flow(Direction::Inbound, "10.0.0.5:443", "198.51.100.7:50000", 7));
        assert_eq!(hour.rows.len(), 2);
        let row = hour.rows.values().find(|row| row.key.port == Some(443)).unwrap();
        assert_eq!((row.flows, row.bytes_out, row.bytes_in), (10, 1_000, 100));
    }

    #[test]
    fn too_many_clients_are_told_by_network_and_nothing_is_lost_in_silence() {
        let mut hour = Hour::new(0);
        let total = 70_000_u32;
        for n in 0..total {
            let [_, b, c, d] = n.to_be_bytes();
            hour.add(flow(
                Direction::Inbound,
                "10.0.0.5:443",
                &format!("{}.{b}.{c}.{d}:5", 20 + n % 100),
                1,
            ));
        }
        assert!(hour.rows.len() <= ROWS);
        let told: u64 = hour.rows.values().map(|row| row.flows).sum();
        assert_eq!(told + hour.uncounted, u64::from(total));
        assert!(hour.rows.keys().any(|key| key.outside.prefix_len() == 24));
    }
}
