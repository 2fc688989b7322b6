//! The hosts whose traffic is watched: the own, and those behind a gateway.

use crate::flow::table::IndexTable;
use crate::learn::fanout::FanOut;
use crate::learn::host_budget::{DayCounts, HostDay};
use crate::learn::keep::{Keep, keep_fields};
use crate::learn::staging::Staging;
use ahash::RandomState;
use sekisho_schema::Timestamp;
use sekisho_schema::episode::Workload;
use std::net::IpAddr;

/// The place of hosts beyond those that are told apart.
const OTHERS: u16 = u16::MAX;

/// What belongs to a whole host.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Host {
    address: Option<IpAddr>,
    pub(super) day: HostDay,
    pub(super) fan: FanOut,
    pub(super) staging: Staging,
}
keep_fields!(Host { address, day, fan, staging });

impl Host {
    pub(super) fn workload(&self) -> Workload {
        self.address.map_or(Workload::Host, Workload::Inside)
    }
}

/// Every host by its place; the own comes first.
#[derive(Debug)]
pub(super) struct Hosts {
    all: Vec<Host>,
    places: IndexTable,
    hasher: RandomState,
    most: usize,
    others: DayCounts,
    /// Who was looked for last, and its place: the facts of a packet all ask for the same.
    met: Option<(IpAddr, u16)>,
}

impl Hosts {
    pub(super) fn new(most: usize, seed: u64) -> Self {
        let most = most.clamp(1, usize::from(OTHERS));
        let all = vec![Host::default()];
        let hasher = RandomState::with_seeds(seed, seed.rotate_left(41), seed ^ 0x0575, !seed);
        let (places, others) = (IndexTable::default(), DayCounts::default());
        Self { all, places, hasher, most, others, met: None }
    }

    fn hash(&self, address: IpAddr) -> u32 {
        (self.hasher.hash_one(address) >> 32) as u32
    }

    /// The place of a host, made if it is new; those beyond the bound share one.
    pub(super) fn id(&mut self, address: Option<IpAddr>) -> u16 {
        let Some(address) = address else { return 0 };
        if let Some((met, place)) = self.met
            && met == address
        {
            return place;
        }
        let place = self.place(address);
        self.met = Some((address, place));
        place
    }

    fn place(&mut self, address: IpAddr) -> u16 {
        let hash = self.hash(address);
        let is_it = |place: u32| {
            self.all.get(place as usize).is_some_and(|host| host.address == Some(address))
        };
        if let Some(place) = self.places.find(hash, is_it) {
            return place as u16;
        }
        match u16::try_from(self.all.len()) {
            Ok(place) if self.all.len() < self.most => {
                self.all.push(Host { address: Some(address), ..Host::default() });
                self.places.insert(hash, u32::from(place));
                place
            }
            _ => OTHERS,
        }
    }

    /// A host that is told apart.
    pub(super) fn of(&mut self, place: u16) -> Option<&mut Host> {
        self.all.get_mut(usize::from(place))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Host> {
        self.all.iter()
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Host> {
        self.all.iter_mut()
    }

    /// Whether no host but the own was seen.
    pub(super) const fn is_alone(&self) -> bool {
        self.all.len() <= 1
    }

    pub(super) fn workload(&self, place: u16) -> Workload {
        self.all.get(usize::from(place)).map_or(Workload::Host, Host::workload)
    }

    /// Counts bytes of a host that is not told apart; returns its bytes of the day, or more.
    pub(super) fn others(&mut self, at: Timestamp, address: Option<IpAddr>, bytes: u64) -> u64 {
        let octets = match address.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)) {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        let hash = crate::learn::dns::mixed(&octets, 0);
        self.others.add(at, [hash as u32, (hash >> 32) as u32], bytes)
    }

    pub(super) fn keep(&self, out: &mut Vec<u8>) {
        self.all.keep(out);
        self.others.keep(out);
    }

    pub(super) fn take(from: &mut &[u8], most: usize, seed: u64) -> Option<Self> {
        let mut hosts = Self::new(most, seed);
        hosts.all = Vec::take(from)?;
        hosts.others = DayCounts::take(from)?;
        if hosts.all.is_empty() || hosts.all.len() > hosts.most {
            return None;
        }
        for (host, place) in hosts.all.iter().zip(0_u32..) {
            if let Some(address) = host.address {
                let hash = (hosts.hasher.hash_one(address) >> 32) as u32;
                hosts.places.insert(hash, place);
            }
        }
        Some(hosts)
    }

    /// The bound that it was made with.
    pub(super) const fn most(&self) -> usize {
        self.most
    }
}
