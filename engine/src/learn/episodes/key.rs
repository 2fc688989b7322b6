//! What an episode is found by, at hand and kept.

use crate::learn::Name;
use crate::learn::keep::Keep;
use ahash::RandomState;
use ipnet::IpNet;
use sekisho_schema::Transport;
use sekisho_schema::episode::{DestinationKey, PortClass, Service};
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;

/// A destination at hand: nothing is copied to look for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    Asn(u32),
    Domain(&'a str),
    Network(IpNet),
    Object(&'a str),
}

impl<'a> Place<'a> {
    pub(super) fn of(key: &'a DestinationKey) -> Self {
        match key {
            DestinationKey::Asn(number) => Self::Asn(*number),
            DestinationKey::Domain(name) => Self::Domain(name),
            DestinationKey::Network(network) => Self::Network(*network),
            DestinationKey::Object(name) => Self::Object(name),
        }
    }

    pub(super) fn own(self) -> DestinationKey {
        match self {
            Self::Asn(number) => DestinationKey::Asn(number),
            Self::Domain(name) => DestinationKey::Domain(name.into()),
            Self::Network(network) => DestinationKey::Network(network),
            Self::Object(name) => DestinationKey::Object(name.into()),
        }
    }
}

/// A host, by its place among the hosts, and a destination; of a service or of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At<'a> {
    pub(super) place: Place<'a>,
    pub(super) host: u16,
    pub(super) service: Option<Service>,
}

impl At<'_> {
    pub(super) fn own(self) -> Key {
        let (place, is_object) = match self.place {
            Place::Asn(number) => (Kept::Asn(number), false),
            Place::Domain(name) => (Kept::Name(name.into()), false),
            Place::Network(network) => (Kept::Network(network), false),
            Place::Object(name) => (Kept::Name(name.into()), true),
        };
        Key { place, is_object, host: self.host, service: packed(self.service) }
    }

    /// What the table hashes by: the destination, and all the rest in one word.
    pub(super) fn hash(self, state: &RandomState) -> u64 {
        let mut hasher = state.build_hasher();
        let kind: u64 = match self.place {
            Place::Asn(number) => {
                hasher.write_u32(number);
                0
            }
            Place::Domain(name) => {
                hasher.write(name.as_bytes());
                1
            }
            Place::Network(IpNet::V4(network)) => {
                let (bits, length) = (network.addr().to_bits(), network.prefix_len());
                hasher.write_u64(u64::from(bits) << 8 | u64::from(length));
                2
            }
            Place::Network(IpNet::V6(network)) => {
                hasher.write_u128(network.addr().to_bits());
                3 | u64::from(network.prefix_len()) << 3
            }
            Place::Object(name) => {
                hasher.write(name.as_bytes());
                4
            }
        };
        let rest = u64::from(packed(self.service)) << 16 | u64::from(self.host);
        hasher.write_u64(kind << 48 | rest);
        hasher.finish()
    }
}

/// Marks that a service is told.
const OF_SERVICE: u32 = 1 << 24;

/// A service in one word; zero for all of them.
fn packed(service: Option<Service>) -> u32 {
    service.map_or(0, |service| {
        let transport = u32::from(service.transport.number());
        OF_SERVICE | transport << 16 | u32::from(port_of(service))
    })
}

fn unpacked(service: u32) -> Option<Service> {
    let port = port_class(service as u16)?;
    let transport = Transport::from_number((service >> 16) as u8);
    (service & OF_SERVICE != 0).then_some(Service { transport, port })
}

/// The port by which a service is told apart; those that are no port of a system stand above all.
const fn port_of(service: Service) -> u16 {
    match service.port {
        PortClass::High => u16::MAX,
        PortClass::None => u16::MAX - 1,
        PortClass::System(port) => port,
    }
}

const fn port_class(port: u16) -> Option<PortClass> {
    match port {
        u16::MAX => Some(PortClass::High),
        0xFFFE => Some(PortClass::None),
        port if port < 1024 => Some(PortClass::System(port)),
        _ => None,
    }
}

/// What a pair of ends is hashed by.
pub(super) fn hash_ends(state: &RandomState, ends: &(IpAddr, IpAddr)) -> u64 {
    match ends {
        (IpAddr::V4(local), IpAddr::V4(remote)) => {
            let mut hasher = state.build_hasher();
            hasher.write_u64(u64::from(local.to_bits()) << 32 | u64::from(remote.to_bits()));
            hasher.finish()
        }
        ends => state.hash_one(ends),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kept {
    Asn(u32),
    Name(Name),
    Network(IpNet),
}

/// The same, kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    place: Kept,
    service: u32,
    host: u16,
    /// Whether the name is that of an object of the policy.
    is_object: bool,
}

impl Key {
    pub(super) fn at(&self) -> At<'_> {
        let place = match &self.place {
            Kept::Asn(number) => Place::Asn(*number),
            Kept::Name(name) if self.is_object => Place::Object(name.as_str()),
            Kept::Name(name) => Place::Domain(name.as_str()),
            Kept::Network(network) => Place::Network(*network),
        };
        At { place, host: self.host, service: unpacked(self.service) }
    }

    /// Whether it is the key of what is at hand.
    #[inline]
    pub(super) fn is(&self, at: &At<'_>) -> bool {
        self.host == at.host
            && self.service == packed(at.service)
            && match (&self.place, at.place) {
                (Kept::Asn(known), Place::Asn(number)) => *known == number,
                (Kept::Name(known), Place::Domain(name)) => !self.is_object && known.is(name),
                (Kept::Name(known), Place::Object(name)) => self.is_object && known.is(name),
                (Kept::Network(known), Place::Network(network)) => *known == network,
                _ => false,
            }
    }

    /// What the table hashes by.
    pub(super) fn hash(state: &RandomState, key: &Self) -> u64 {
        key.at().hash(state)
    }
}

impl Keep for Key {
    fn keep(&self, out: &mut Vec<u8>) {
        match &self.place {
            Kept::Asn(number) => {
                0_u8.keep(out);
                number.keep(out);
            }
            Kept::Name(name) => {
                (if self.is_object { 3_u8 } else { 1 }).keep(out);
                name.keep(out);
            }
            Kept::Network(network) => {
                2_u8.keep(out);
                network.keep(out);
            }
        }
        self.host.keep(out);
        unpacked(self.service).keep(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let kind = u8::take(from)?;
        let place = match kind {
            0 => u32::take(from).map(Kept::Asn)?,
            1 | 3 => Name::take(from).map(Kept::Name)?,
            2 => IpNet::take(from).map(Kept::Network)?,
            _ => return None,
        };
        let host = u16::take(from)?;
        let service = packed(Keep::take(from)?);
        Some(Self { place, is_object: kind == 3, host, service })
    }
}

impl Keep for Service {
    fn keep(&self, out: &mut Vec<u8>) {
        self.transport.number().keep(out);
        port_of(*self).keep(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let transport = Transport::from_number(u8::take(from)?);
        Some(Self { transport, port: port_class(u16::take(from)?)? })
    }
}

/// A name below which questions are counted: a registered domain, or the resolver that is asked for names
/// without a known suffix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Domain(Name),
    Resolver(IpAddr),
}

/// The same at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum AskedAt<'a> {
    Domain(&'a str),
    Resolver(IpAddr),
}

impl Asked {
    pub(super) fn at(&self) -> AskedAt<'_> {
        match self {
            Self::Domain(name) => AskedAt::Domain(name.as_str()),
            Self::Resolver(address) => AskedAt::Resolver(*address),
        }
    }

    /// Whether it is this one.
    #[inline]
    pub(super) fn is(&self, at: AskedAt<'_>) -> bool {
        match (self, at) {
            (Self::Domain(known), AskedAt::Domain(name)) => known.is(name),
            (Self::Resolver(known), AskedAt::Resolver(address)) => *known == address,
            _ => false,
        }
    }

    /// What a host's questions are hashed by.
    pub(super) fn hash(state: &RandomState, key: &(u16, Self)) -> u64 {
        state.hash_one((key.0, key.1.at()))
    }
}

impl AskedAt<'_> {
    pub(super) fn own(self) -> Asked {
        match self {
            Self::Domain(name) => Asked::Domain(name.into()),
            Self::Resolver(address) => Asked::Resolver(address),
        }
    }
}

impl Keep for Asked {
    fn keep(&self, out: &mut Vec<u8>) {
        match self {
            Self::Domain(name) => {
                0_u8.keep(out);
                name.keep(out);
            }
            Self::Resolver(address) => {
                1_u8.keep(out);
                address.keep(out);
            }
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        match u8::take(from)? {
            0 => Keep::take(from).map(Self::Domain),
            1 => IpAddr::take(from).map(Self::Resolver),
            _ => None,
        }
    }
}
