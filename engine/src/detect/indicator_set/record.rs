//! One indicator in twelve bytes, and the bytes that it may need beside them.

use super::book::Terms;
use super::index::Index;
use sekisho_schema::intel::{Kind, Observable};
use std::net::{IpAddr, SocketAddr};

/// Parts of a set; each can be exchanged by itself.
pub(super) const SHARDS: usize = 16;

/// How an indicator is found; its numbers stand in compiled files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Form {
    V4 = 0,
    V6 = 1,
    Endpoint = 2,
    /// A name and all below it.
    Name = 3,
    /// A name alone.
    ExactName = 4,
    Url = 5,
    /// A URL and all below it.
    UrlPrefix = 6,
    Ja3 = 7,
    Ja4 = 8,
    Certificate = 9,
    UserAgent = 10,
}

impl Form {
    const ALL: [Self; 11] = [
        Self::V4,
        Self::V6,
        Self::Endpoint,
        Self::Name,
        Self::ExactName,
        Self::Url,
        Self::UrlPrefix,
        Self::Ja3,
        Self::Ja4,
        Self::Certificate,
        Self::UserAgent,
    ];

    pub(super) fn of_number(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }

    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::V4 | Self::V6 => Kind::Address,
            Self::Endpoint => Kind::Endpoint,
            Self::Name | Self::ExactName => Kind::Domain,
            Self::Url | Self::UrlPrefix => Kind::Url,
            Self::Ja3 => Kind::Ja3,
            Self::Ja4 => Kind::Ja4,
            Self::Certificate => Kind::Certificate,
            Self::UserAgent => Kind::UserAgent,
        }
    }

    /// Forms that are looked for by one look share a family.
    const fn family(self) -> u8 {
        match self {
            Self::ExactName => Self::Name as u8,
            other => other as u8,
        }
    }
}

/// Where a kind's number stands in a table.
pub(super) const fn place_of(kind: Kind) -> usize {
    kind as usize
}

/// How many kinds there are.
pub(super) const KINDS: usize = Kind::ALL.len();

const FORM_SHIFT: u32 = 28;
const IS_TEXT_ID: u32 = 1 << 27;
/// Different terms that one part of a set can tell apart.
pub(super) const MOST_TERMS: u32 = IS_TEXT_ID - 1;
/// Records of one part of a set.
pub(super) const MOST_RECORDS: usize = Index::MOST;

/// Form, kind of id and terms of an indicator in one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag(pub(super) u32);

impl Tag {
    pub(super) const fn new(form: Form, is_text_id: bool, terms: u32) -> Self {
        let id = if is_text_id { IS_TEXT_ID } else { 0 };
        Self((form as u32) << FORM_SHIFT | id | (terms & MOST_TERMS))
    }

    /// The tag of a network, which has no form.
    pub(super) const fn of_network(is_text_id: bool, terms: u32) -> Self {
        Self::new(Form::V4, is_text_id, terms)
    }

    pub(super) fn form(self) -> Option<Form> {
        Form::of_number(self.0 >> FORM_SHIFT)
    }

    #[inline]
    pub(super) const fn is_form(self, form: Form) -> bool {
        self.0 >> FORM_SHIFT == form as u32
    }

    pub(super) const fn has_text_id(self) -> bool {
        self.0 & IS_TEXT_ID != 0
    }

    pub(super) const fn terms(self) -> u32 {
        self.0 & MOST_TERMS
    }

    pub(super) const fn with_terms(self, terms: u32) -> Self {
        Self(self.0 & !MOST_TERMS | (terms & MOST_TERMS))
    }
}

/// An indicator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// IPv4 address, or where its bytes stand.
    pub(super) value: u32,
    /// Line of the list, or where its id stands.
    pub(super) id: u32,
    pub(super) tag: Tag,
}

/// Texts one behind the other, each with its length before it: one byte below 128, else two.
#[derive(Clone, Debug, Default)]
pub(super) struct Arena(pub(super) Vec<u8>);

impl Arena {
    /// Bytes of the longest text.
    const LONGEST: usize = 0x7FFF;

    pub(super) fn keep(&mut self, bytes: &[u8]) -> Option<u32> {
        let at = u32::try_from(self.0.len()).ok()?;
        match bytes.len() {
            len @ 0..0x80 => self.0.push(len as u8),
            len @ 0x80..=Self::LONGEST => {
                self.0.extend_from_slice(&[0x80 | (len >> 8) as u8, len as u8]);
            }
            _ => return None,
        }
        self.0.extend_from_slice(bytes);
        Some(at)
    }

    #[inline]
    pub(super) fn text(&self, at: u32) -> Option<&[u8]> {
        let (first, rest) = self.0.get(at as usize..)?.split_first()?;
        if *first < 0x80 {
            return rest.get(..usize::from(*first));
        }
        let (second, rest) = rest.split_first()?;
        rest.get(..usize::from(*first & 0x7F) << 8 | usize::from(*second))
    }
}

/// The bytes that an endpoint is found by.
#[derive(Clone, Copy)]
pub(super) struct EndpointKey {
    bytes: [u8; 18],
    len: usize,
}

impl EndpointKey {
    #[inline]
    pub(super) fn new(end: SocketAddr) -> Self {
        let mut bytes = [0; 18];
        let port = end.port().to_be_bytes();
        let len = match end.ip().to_canonical() {
            IpAddr::V4(v4) => {
                if let Some(part) = bytes.first_chunk_mut::<6>() {
                    let [a, b, c, d] = v4.octets();
                    *part = [a, b, c, d, port[0], port[1]];
                }
                6
            }
            IpAddr::V6(v6) => {
                for (to, from) in bytes.iter_mut().zip(v6.octets().into_iter().chain(port)) {
                    *to = from;
                }
                18
            }
        };
        Self { bytes, len }
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    pub(super) fn read(bytes: &[u8]) -> Option<SocketAddr> {
        let (address, port) = bytes.split_last_chunk::<2>()?;
        let address = match address.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
            16 => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
            _ => return None,
        };
        Some(SocketAddr::new(address, u16::from_be_bytes(*port)))
    }
}

/// What an observable is found by.
pub(super) enum Key<'a> {
    V4(u32),
    Endpoint(EndpointKey),
    Bytes(Form, &'a [u8]),
    Octets(Form, [u8; 16]),
    Network(ipnet::IpNet),
}

impl<'a> Key<'a> {
    pub(super) fn of(observable: &'a Observable<'_>) -> Self {
        match observable {
            Observable::Address(IpAddr::V4(v4)) => Self::V4(v4.to_bits()),
            Observable::Address(IpAddr::V6(v6)) => Self::Octets(Form::V6, v6.octets()),
            Observable::Certificate(hash) => Self::Bytes(Form::Certificate, hash.bytes()),
            Observable::Domain { name, exact: false } => Self::Bytes(Form::Name, name.as_bytes()),
            Observable::Domain { name, exact: true } => {
                Self::Bytes(Form::ExactName, name.as_bytes())
            }
            Observable::Endpoint(end) => Self::Endpoint(EndpointKey::new(*end)),
            Observable::Ja3(hash) => Self::Octets(Form::Ja3, *hash),
            Observable::Ja4(text) => Self::Bytes(Form::Ja4, text.as_bytes()),
            Observable::Network(network) => Self::Network(*network),
            Observable::Url(url) => {
                let form = if url.is_prefix() { Form::UrlPrefix } else { Form::Url };
                Self::Bytes(form, url.as_str().as_bytes())
            }
            Observable::UserAgent(text) => Self::Bytes(Form::UserAgent, text.as_bytes()),
        }
    }

    /// The part of a set that it belongs to: the same on every machine, since it stands in files.
    pub(super) fn shard(&self) -> usize {
        match self {
            Self::V4(bits) => shard_of_v4(*bits),
            Self::Endpoint(key) => shard_of(key.bytes()),
            Self::Bytes(_, bytes) => shard_of(bytes),
            Self::Octets(_, bytes) => shard_of(bytes),
            Self::Network(ipnet::IpNet::V4(net)) => shard_of_net4(net.network().to_bits()),
            Self::Network(ipnet::IpNet::V6(net)) => shard_of_net6(net.network().to_bits()),
        }
    }
}

#[inline]
pub(super) const fn shard_of_v4(bits: u32) -> usize {
    (bits.wrapping_mul(0x9E37_79B1) >> 28) as usize
}

#[inline]
pub(super) fn shard_of(bytes: &[u8]) -> usize {
    let word = |part: &[u8]| part.iter().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
    let half = |part: Option<&[u8; 8]>| part.map(|part| u64::from_le_bytes(*part));
    let first = half(bytes.first_chunk::<8>()).unwrap_or_else(|| word(bytes));
    let last = half(bytes.last_chunk::<8>()).unwrap_or(0);
    let mixed =
        (first ^ last.rotate_left(23) ^ bytes.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 60) as usize
}

/// A network of at most 8 fixed leading bits lies whole in one part.
#[inline]
pub(super) const fn shard_of_net4(bits: u32) -> usize {
    (bits >> 24 & 0xF) as usize
}

/// An address as its part sees it: without the bits that chose the part, so that ranges stay in order.
#[inline]
pub(super) const fn compact_v4(bits: u32) -> u32 {
    bits >> 28 << 24 | bits & 0x00FF_FFFF
}

/// The address of which [`compact_v4`] made this, in its part.
pub(super) const fn spread_v4(compact: u32, shard: usize) -> u32 {
    compact >> 24 << 28 | (shard as u32 & 0xF) << 24 | compact & 0x00FF_FFFF
}

#[inline]
pub(super) const fn shard_of_net6(bits: u128) -> usize {
    (((bits >> 112) as u32).wrapping_mul(0x9E37_79B1) >> 28) as usize
}

/// The hash of bytes that are found in a family of forms.
#[inline]
pub(super) fn hash_bytes(hasher: &ahash::RandomState, form: Form, bytes: &[u8]) -> u64 {
    hasher.hash_one((form.family(), bytes))
}

#[inline]
pub(super) fn hash_v4(hasher: &ahash::RandomState, bits: u32) -> u64 {
    hasher.hash_one(bits)
}

/// Terms by their places.
pub(super) fn terms_at(terms: &[Terms], tag: Tag) -> Option<&Terms> {
    terms.get(tag.terms() as usize)
}
