//! Destinations known beforehand, in the kernel's sets: many, written in small commits by a hand of their own.
//!
//! The kernel handles one commit at a time, whoever asks: a commit of a million elements would hold up a cut
//! for seconds. Each of ours is bounded by [`BATCH_ELEMENTS`]; whoever drives this hand pauses between them.

use super::elements::{BATCH, DELETE_ELEMENT, GET_ELEMENT, IPV4, IPV6, NEW_ELEMENT};
use super::hooks::{has_ports, rest_ports, write_ports};
use super::skeleton::{KNOWN4, KNOWN4_PORT, KNOWN6, KNOWN6_PORT, TABLE};
use super::{Count, Counters};
use crate::netlink::{
    ACK, CREATE, Channel, NetlinkError, Open, REQUEST, Writer, attribute, attributes,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Elements changed in one commit: half a millisecond of the kernel's time where one costs 1.7 µs.
pub const BATCH_ELEMENTS: usize = 256;
/// The lease of an element that is about to be deleted.
const AT_ONCE: Duration = Duration::from_millis(1);

/// Where a destination is held.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    family: u8,
    set: &'static str,
}

/// A destination known beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// An IPv4 address.
    V4(u32),
    /// An IPv4 address and a port.
    V4Port(u32, u16),
    /// An IPv6 address.
    V6(u128),
    /// An IPv6 address and a port.
    V6Port(u128, u16),
}

impl Key {
    /// The key of an address, or of an address and a port.
    #[must_use]
    pub fn new(address: IpAddr, port: Option<u16>) -> Self {
        match (address.to_canonical(), port) {
            (IpAddr::V4(v4), None) => Self::V4(v4.to_bits()),
            (IpAddr::V4(v4), Some(port)) => Self::V4Port(v4.to_bits(), port),
            (IpAddr::V6(v6), None) => Self::V6(v6.to_bits()),
            (IpAddr::V6(v6), Some(port)) => Self::V6Port(v6.to_bits(), port),
        }
    }

    /// The address.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        match self {
            Self::V4(bits) | Self::V4Port(bits, _) => IpAddr::V4(Ipv4Addr::from_bits(bits)),
            Self::V6(bits) | Self::V6Port(bits, _) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        }
    }

    /// The port, when only that port is known.
    #[must_use]
    pub const fn port(self) -> Option<u16> {
        match self {
            Self::V4(_) | Self::V6(_) => None,
            Self::V4Port(_, port) | Self::V6Port(_, port) => Some(port),
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let port = |part: &[u8]| Some(u16::from_be_bytes(part.get(..2)?.try_into().ok()?));
        match bytes.len() {
            4 => Some(Self::V4(u32::from_be_bytes(bytes.try_into().ok()?))),
            8 => {
                let (address, rest) = bytes.split_first_chunk()?;
                Some(Self::V4Port(u32::from_be_bytes(*address), port(rest)?))
            }
            16 => Some(Self::V6(u128::from_be_bytes(bytes.try_into().ok()?))),
            20 => {
                let (address, rest) = bytes.split_first_chunk()?;
                Some(Self::V6Port(u128::from_be_bytes(*address), port(rest)?))
            }
            _ => None,
        }
    }

    const fn place(self) -> Place {
        match self {
            Self::V4(_) => Place { family: IPV4, set: KNOWN4 },
            Self::V4Port(..) => Place { family: IPV4, set: KNOWN4_PORT },
            Self::V6(_) => Place { family: IPV6, set: KNOWN6 },
            Self::V6Port(..) => Place { family: IPV6, set: KNOWN6_PORT },
        }
    }

    /// The key as the kernel compares it: each part of a concatenation in whole registers of four bytes.
    fn bytes(self) -> ([u8; 20], usize) {
        let mut bytes = [0; 20];
        let (address, length): (&[u8], usize) = match self {
            Self::V4(bits) | Self::V4Port(bits, _) => (&bits.to_be_bytes(), 4),
            Self::V6(bits) | Self::V6Port(bits, _) => (&bits.to_be_bytes(), 16),
        };
        let port = self.port().map(u16::to_be_bytes);
        let parts = address.iter().chain(port.iter().flatten());
        for (place, byte) in bytes.iter_mut().zip(parts) {
            *place = *byte;
        }
        (bytes, if port.is_some() { length + 4 } else { length })
    }
}

/// Destinations by form, each list in order and without repetition: four bytes for an IPv4 address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownSet {
    v4: Vec<u32>,
    v4_port: Vec<(u32, u16)>,
    v6: Vec<u128>,
    v6_port: Vec<(u128, u16)>,
}

impl KnownSet {
    /// A set of keys in any order.
    #[must_use]
    pub fn from_keys(keys: impl IntoIterator<Item = Key>) -> Self {
        let mut set = Self::default();
        for key in keys {
            set.push(key);
        }
        set.settle();
        set
    }

    /// Adds a key; [`KnownSet::settle`] must come before anything is asked.
    pub fn push(&mut self, key: Key) {
        match key {
            Key::V4(bits) => self.v4.push(bits),
            Key::V4Port(bits, port) => self.v4_port.push((bits, port)),
            Key::V6(bits) => self.v6.push(bits),
            Key::V6Port(bits, port) => self.v6_port.push((bits, port)),
        }
    }

    /// Brings what was added into order.
    pub fn settle(&mut self) {
        fn settle<T: Ord>(list: &mut Vec<T>) {
            list.sort_unstable();
            list.dedup();
            list.shrink_to_fit();
        }
        settle(&mut self.v4);
        settle(&mut self.v4_port);
        settle(&mut self.v6);
        settle(&mut self.v6_port);
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.v4.len() + self.v4_port.len() + self.v6.len() + self.v6_port.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a key is among them.
    #[must_use]
    pub fn contains(&self, key: Key) -> bool {
        match key {
            Key::V4(bits) => self.v4.binary_search(&bits).is_ok(),
            Key::V4Port(bits, port) => self.v4_port.binary_search(&(bits, port)).is_ok(),
            Key::V6(bits) => self.v6.binary_search(&bits).is_ok(),
            Key::V6Port(bits, port) => self.v6_port.binary_search(&(bits, port)).is_ok(),
        }
    }

    /// All of them, those of one kernel set together.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        let v4 = self.v4.iter().map(|bits| Key::V4(*bits));
        let v4_port = self.v4_port.iter().map(|(bits, port)| Key::V4Port(*bits, *port));
        let v6 = self.v6.iter().map(|bits| Key::V6(*bits));
        let v6_port = self.v6_port.iter().map(|(bits, port)| Key::V6Port(*bits, *port));
        v4.chain(v4_port).chain(v6).chain(v6_port)
    }
}

/// A hand on the sets of known destinations, with a socket of its own.
pub struct KnownHand {
    elements: super::elements::Elements,
    channel: Channel,
}

impl KnownHand {
    /// Opens the socket.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel gives none.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            elements: super::elements::Elements::open()?,
            channel: Channel::open(netlink_sys::protocols::NETLINK_NETFILTER)?,
        })
    }

    /// Makes the kernel hold keys for a while, in one commit; `renew` where some may be held already with another end.
    ///
    /// # Errors
    /// [`NetlinkError`]; nothing of the batch was written. At most [`BATCH_ELEMENTS`] keys at a time.
    pub fn hold(&mut self, keys: &[Key], lease: Duration, renew: bool) -> Result<(), NetlinkError> {
        KnownWriter::over(&mut self.channel).hold(keys, lease, renew)
    }

    /// Makes the kernel let go of keys, held or not, in one commit.
    ///
    /// # Errors
    /// [`NetlinkError`]; nothing of the batch was written.
    pub fn release(&mut self, keys: &[Key]) -> Result<(), NetlinkError> {
        KnownWriter::over(&mut self.channel).release(keys)
    }

    /// Whether the kernel holds every one of these keys, and lets packets meet them.
    ///
    /// # Errors
    /// [`NetlinkError`] when it can't be asked; that the tables or a key are gone is no error.
    pub fn is_holding(&mut self, keys: &[Key]) -> Result<bool, NetlinkError> {
        for group in keys.chunk_by(|a, b| a.place() == b.place()) {
            let Some(first) = group.first() else { continue };
            if first.port().is_some() && !has_ports(&mut self.channel, first.place().family)? {
                return Ok(false);
            }
            let mut asking = KnownWriter::over(&mut self.channel);
            let (_, sequence) = asking.message(GET_ELEMENT, ACK, group, None);
            let KnownWriter { channel, writer } = asking;
            match channel.transact(writer.as_bytes(), sequence, sequence) {
                Ok(()) => {}
                Err(error) if error.is_absent() => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Everything that the kernel's sets of known destinations hold, whoever put it there.
    ///
    /// # Errors
    /// [`NetlinkError`]; [`NetlinkError::is_absent`] without our tables.
    pub fn read(&mut self) -> Result<KnownSet, NetlinkError> {
        let mut all = KnownSet::default();
        for key in [Key::V4(0), Key::V4Port(0, 0), Key::V6(0), Key::V6Port(0, 0)] {
            let Place { family, set } = key.place();
            let mut body = Writer::default();
            body.text(1, TABLE);
            body.text(2, set);
            let head = [&[family, 0, 0, 0], body.as_bytes()].concat();
            let found =
                self.channel.dump(GET_ELEMENT, &head, |found: &mut Vec<Key>, answer| {
                    let list = answer.body.get(4..).and_then(|body| attribute(body, 3));
                    let elements = attributes(list.unwrap_or_default());
                    found.extend(elements.filter_map(|(_, element)| {
                        Key::read(attribute(attribute(element, 1)?, 1)?)
                    }));
                })?;
            found.into_iter().for_each(|key| all.push(key));
        }
        all.settle();
        Ok(all)
    }

    /// Lets packets meet no look for ports while none is held.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel can't be asked; nothing changed.
    pub fn rest(&mut self) -> Result<(), NetlinkError> {
        for place in [Key::V4Port(0, 0).place(), Key::V6Port(0, 0).place()] {
            rest_ports(&mut self.channel, place.family, place.set)?;
        }
        Ok(())
    }

    /// What was dropped for such a destination.
    ///
    /// # Errors
    /// [`NetlinkError`] when the counters can't be read.
    pub fn dropped(&mut self) -> Result<Count, NetlinkError> {
        self.elements.counters().map(|Counters { known, .. }| known)
    }
}

/// Writes known destinations over a socket that is lent: the one that owns the tables, where one does.
pub(super) struct KnownWriter<'a> {
    channel: &'a mut Channel,
    writer: Writer,
}

impl<'a> KnownWriter<'a> {
    pub(super) fn over(channel: &'a mut Channel) -> Self {
        Self { channel, writer: Writer::default() }
    }

    pub(super) fn hold(
        &mut self,
        keys: &[Key],
        lease: Duration,
        renew: bool,
    ) -> Result<(), NetlinkError> {
        self.commit(keys, |hand, group| {
            if let Some(first) = group.first().filter(|key| key.port().is_some()) {
                // Packets meet the ports from this commit on, if they did not before.
                write_ports(&mut hand.writer, hand.channel, first.place().family);
            }
            // Adding what is there may keep its old end (kernels before 6.12), deleting what is not there
            // fails the batch: add, delete, add holds in every case, and no packet sees between.
            if renew {
                hand.message(NEW_ELEMENT, CREATE, group, Some(lease));
                hand.message(DELETE_ELEMENT, 0, group, None);
            }
            hand.message(NEW_ELEMENT, CREATE, group, Some(lease))
        })
    }

    pub(super) fn release(&mut self, keys: &[Key]) -> Result<(), NetlinkError> {
        self.commit(keys, |hand, group| {
            hand.message(NEW_ELEMENT, CREATE, group, Some(AT_ONCE));
            hand.message(DELETE_ELEMENT, 0, group, None)
        })
    }

    fn commit(
        &mut self,
        keys: &[Key],
        write: impl Fn(&mut Self, &[Key]) -> (Open, u32),
    ) -> Result<(), NetlinkError> {
        self.writer.clear();
        let first = self.channel.next();
        // nfgenmsg: family, version 0, resource id in network order: the subsystem.
        let begin = self.writer.message(BATCH[0], REQUEST, first, &[0, 0, 0, 10]);
        self.writer.end_message(&begin);
        let mut last = None;
        for group in keys.chunk_by(|a, b| a.place() == b.place()) {
            last = Some(write(self, group));
        }
        let Some((open, sequence)) = last else { return Ok(()) };
        self.writer.ask(&open);
        let after = self.channel.next();
        let end = self.writer.message(BATCH[1], REQUEST, after, &[0, 0, 0, 10]);
        self.writer.end_message(&end);
        self.channel.transact(self.writer.as_bytes(), first, sequence)
    }

    /// Writes one message on several keys of one set.
    fn message(
        &mut self,
        kind: u16,
        flags: u16,
        group: &[Key],
        lease: Option<Duration>,
    ) -> (Open, u32) {
        let sequence = self.channel.next();
        let writer = &mut self.writer;
        let Place { family, set } = group.first().unwrap_or(&Key::V4(0)).place();
        let message = writer.message(kind, REQUEST | flags, sequence, &[family, 0, 0, 0]);
        // NFTA_SET_ELEM_LIST_TABLE, _SET, _ELEMENTS
        writer.text(1, TABLE);
        writer.text(2, set);
        let list = writer.nest(3);
        for key in group {
            let element = writer.nest(1);
            // NFTA_SET_ELEM_KEY, _TIMEOUT (ms)
            let nest = writer.nest(1);
            let (bytes, length) = key.bytes();
            writer.attribute(1, bytes.get(..length).unwrap_or_default());
            writer.end_nest(&nest);
            if let Some(lease) = lease {
                let millis = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).max(1);
                writer.attribute(4, &millis.to_be_bytes());
            }
            writer.end_nest(&element);
        }
        writer.end_nest(&list);
        writer.end_message(&message);
        (message, sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        match text.parse::<std::net::SocketAddr>() {
            Ok(end) => Key::new(end.ip(), Some(end.port())),
            Err(_) => Key::new(text.parse().unwrap(), None),
        }
    }

    #[test]
    fn a_key_is_what_the_kernel_compares_with() {
        let bytes = |text: &str| {
            let (bytes, length) = key(text).bytes();
            bytes[..length].to_vec()
        };
        assert_eq!(bytes("203.0.113.9"), [203, 0, 113, 9]);
        assert_eq!(bytes("203.0.113.9:443"), [203, 0, 113, 9, 1, 187, 0, 0]);
        assert_eq!(bytes("[2001:db8::1]:80").len(), 20);
        assert_eq!(key("::ffff:203.0.113.9"), key("203.0.113.9"));
        for text in ["203.0.113.9", "203.0.113.9:443", "2001:db8::1", "[2001:db8::1]:80"] {
            assert_eq!(Key::read(&bytes(text)), Some(key(text)));
        }
    }

    #[test]
    fn a_set_is_in_order_without_repetition_and_knows_its_members() {
        let texts =
            ["9.9.9.9", "1.1.1.1", "9.9.9.9", "1.1.1.1:53", "2001:db8::1", "[2001:db8::1]:5"];
        let set = KnownSet::from_keys(texts.map(key));
        assert_eq!(set.len(), 5);
        assert!(texts.iter().all(|text| set.contains(key(text))));
        assert!(!set.contains(key("1.1.1.1:54")) && !set.contains(key("1.1.1.2")));
        assert_eq!(set.keys().next(), Some(key("1.1.1.1")));
        assert_eq!(KnownSet::from_keys(set.keys()), set);
    }
}
