//! What an episode is found by, at hand and kept.

use crate::learn::keep::Keep;
use ahash::RandomState;
use ipnet::IpNet;
use sekisho_schema::Transport;
use sekisho_schema::episode::{DestinationKey, PortClass, Service};
use std::net::IpAddr;

/// A destination at hand: nothing is copied to look for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct At<'a> {
    pub(super) place: Place<'a>,
    pub(super) host: u16,
    pub(super) service: Option<Service>,
}

impl At<'_> {
    pub(super) fn own(self) -> Key {
        Key { destination: self.place.own(), host: self.host, service: self.service }
    }

    pub(super) fn hash(self, state: &RandomState) -> u64 {
        state.hash_one(self)
    }
}

/// The same, kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) destination: DestinationKey,
    pub(super) host: u16,
    pub(super) service: Option<Service>,
}

impl Key {
    pub(super) fn at(&self) -> At<'_> {
        At { place: Place::of(&self.destination), host: self.host, service: self.service }
    }

    /// What the table hashes by.
    pub(super) fn hash(state: &RandomState, key: &Self) -> u64 {
        key.at().hash(state)
    }
}

impl Keep for Key {
    fn keep(&self, out: &mut Vec<u8>) {
        self.destination.keep(out);
        self.host.keep(out);
        self.service.keep(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let destination = DestinationKey::take(from)?;
        Some(Self { destination, host: u16::take(from)?, service: Keep::take(from)? })
    }
}

impl Keep for DestinationKey {
    fn keep(&self, out: &mut Vec<u8>) {
        match self {
            Self::Asn(number) => {
                0_u8.keep(out);
                number.keep(out);
            }
            Self::Domain(name) => {
                1_u8.keep(out);
                name.keep(out);
            }
            Self::Network(network) => {
                2_u8.keep(out);
                network.keep(out);
            }
            Self::Object(name) => {
                3_u8.keep(out);
                name.keep(out);
            }
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        match u8::take(from)? {
            0 => u32::take(from).map(Self::Asn),
            1 => Keep::take(from).map(Self::Domain),
            2 => IpNet::take(from).map(Self::Network),
            3 => Keep::take(from).map(Self::Object),
            _ => None,
        }
    }
}

impl Keep for Service {
    fn keep(&self, out: &mut Vec<u8>) {
        self.transport.number().keep(out);
        match self.port {
            PortClass::High => u16::MAX.keep(out),
            PortClass::None => (u16::MAX - 1).keep(out),
            PortClass::System(port) => port.keep(out),
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let transport = Transport::from_number(u8::take(from)?);
        let port = match u16::take(from)? {
            u16::MAX => PortClass::High,
            0xFFFE => PortClass::None,
            port if port < 1024 => PortClass::System(port),
            _ => return None,
        };
        Some(Self { transport, port })
    }
}

/// A name below which questions are counted: a registered domain, or the resolver that is asked for names
/// without a known suffix.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asked {
    Domain(Box<str>),
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
            Self::Domain(name) => AskedAt::Domain(name),
            Self::Resolver(address) => AskedAt::Resolver(*address),
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
