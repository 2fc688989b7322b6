//! Set elements, counters and the fingerprint of the rules, over nfnetlink.

use super::hooks::{ANY_FAMILY, GET_CHAIN, GET_RULE, Hook, Posture, changed_meanwhile};
use super::netlink::{
    CREATE, Channel, NetlinkError, Open, REQUEST, Writer, attribute, attributes, big_endian,
    text_of,
};
use super::skeleton::{
    ARMED_HOST, ARMED_HOST_DEVICE, ARMED_MANAGEMENT, ARMED_MANAGEMENT_DEVICE, COLLECTOR, CUT_DEST4,
    CUT_DEST6, DEVICE_PREFIX, DISGUISED, KNOWN, PORTS, STRICT_DEVICE, TABLE,
};
use sekisho_schema::Scope;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Messages of nf_tables (`linux/netfilter/nf_tables.h`), within subsystem 10 of nfnetlink.
pub(super) const fn nft(message: u16) -> u16 {
    10 << 8 | message
}
pub(super) const NEW_ELEMENT: u16 = nft(12);
pub(super) const GET_ELEMENT: u16 = nft(13);
pub(super) const DELETE_ELEMENT: u16 = nft(14);
const GET_OBJECT: u16 = nft(19);
/// `NFNL_MSG_BATCH_BEGIN` and `_END` (linux/netfilter/nfnetlink.h).
pub(super) const BATCH: [u16; 2] = [0x10, 0x11];

/// `NFPROTO_INET` (linux/netfilter.h); so are the next.
pub(super) const INET: u8 = 1;
pub(super) const NETDEV: u8 = 5;
pub(super) const IPV4: u8 = 2;
pub(super) const IPV6: u8 = 10;
/// The families in which tables of ours are.
pub(super) const FAMILIES: [u8; 4] = [INET, NETDEV, IPV4, IPV6];

/// Elements changed in one commit: 64 bytes of comment each still fit the 65,535 bytes of one attribute.
const COMMIT_ELEMENTS: usize = 400;
/// Bytes of a containment's name kept as the element's comment.
const COMMENT_BYTES: usize = 64;
/// The longest lease that is written (the longest a policy may name): no element is ever without an end.
pub(crate) const LONGEST: Duration = Duration::from_secs(30 * 86_400);
/// The shortest lease that is written: zero would mean for ever.
const SHORTEST: Duration = Duration::from_millis(1);

/// A named set of ours; in the order in which they are committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Slot {
    ArmedHost,
    ArmedHostDevice,
    ArmedManagement,
    ArmedManagementDevice,
    InetDest4,
    InetDest6,
    NetdevDest4,
    NetdevDest6,
    StrictDevice,
}

impl Slot {
    const ALL: [Self; 9] = [
        Self::ArmedHost,
        Self::ArmedHostDevice,
        Self::ArmedManagement,
        Self::ArmedManagementDevice,
        Self::InetDest4,
        Self::InetDest6,
        Self::NetdevDest4,
        Self::NetdevDest6,
        Self::StrictDevice,
    ];

    const fn family(self) -> u8 {
        match self {
            Self::ArmedHost | Self::ArmedManagement | Self::InetDest4 | Self::InetDest6 => INET,
            Self::ArmedHostDevice
            | Self::ArmedManagementDevice
            | Self::NetdevDest4
            | Self::NetdevDest6
            | Self::StrictDevice => NETDEV,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::ArmedHost => ARMED_HOST,
            Self::ArmedHostDevice => ARMED_HOST_DEVICE,
            Self::ArmedManagement => ARMED_MANAGEMENT,
            Self::ArmedManagementDevice => ARMED_MANAGEMENT_DEVICE,
            Self::InetDest4 | Self::NetdevDest4 => CUT_DEST4,
            Self::InetDest6 | Self::NetdevDest6 => CUT_DEST6,
            Self::StrictDevice => STRICT_DEVICE,
        }
    }
}

/// One element of one set: what the kernel compares a packet with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    slot: Slot,
    key: [u8; 16],
    length: u8,
}

impl Cell {
    fn new(slot: Slot, value: &[u8]) -> Self {
        let mut key = [0; 16];
        for (place, byte) in key.iter_mut().zip(value) {
            *place = *byte;
        }
        // Device names fill the key (IFNAMSIZ is 16), zeros included.
        let device = matches!(
            slot,
            Slot::ArmedHostDevice | Slot::ArmedManagementDevice | Slot::StrictDevice
        );
        Self {
            slot,
            key,
            length: if device { 16 } else { u8::try_from(value.len().min(16)).unwrap_or(16) },
        }
    }

    fn key(&self) -> &[u8] {
        self.key.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// The scope that this cell is part of.
    pub(crate) fn scope(&self) -> Option<Scope> {
        match self.slot {
            Slot::ArmedHost | Slot::ArmedHostDevice => Some(Scope::Host),
            Slot::ArmedManagement | Slot::ArmedManagementDevice => Some(Scope::ManagementOnly),
            Slot::InetDest4 | Slot::NetdevDest4 => <[u8; 4]>::try_from(self.key())
                .ok()
                .map(|key| Scope::Destination(Ipv4Addr::from(key).into())),
            Slot::InetDest6 | Slot::NetdevDest6 => {
                Some(Scope::Destination(IpAddr::V6(Ipv6Addr::from(self.key))))
            }
            Slot::StrictDevice => None,
        }
    }

    /// Every cell of a scope on these devices; none for a scope that is not cut by sets.
    pub(crate) fn of(scope: &Scope, devices: &[String]) -> Vec<Self> {
        let (families, by_device) = match scope {
            Scope::Destination(address) => {
                let strict =
                    devices.iter().map(|device| Self::new(Slot::StrictDevice, device.as_bytes()));
                return match address.to_canonical() {
                    IpAddr::V4(ip) => [Slot::InetDest4, Slot::NetdevDest4]
                        .map(|slot| Self::new(slot, &ip.octets()))
                        .into_iter()
                        .chain(strict)
                        .collect(),
                    IpAddr::V6(ip) => [Slot::InetDest6, Slot::NetdevDest6]
                        .map(|slot| Self::new(slot, &ip.octets()))
                        .into_iter()
                        .chain(strict)
                        .collect(),
                };
            }
            Scope::Host => (Slot::ArmedHost, Slot::ArmedHostDevice),
            Scope::ManagementOnly => (Slot::ArmedManagement, Slot::ArmedManagementDevice),
            Scope::Cgroup(_) | Scope::Container(_) | Scope::Internal(_) | Scope::Link(_) => {
                return Vec::new();
            }
        };
        let mut cells = vec![Self::new(families, &[IPV4]), Self::new(families, &[IPV6])];
        for device in devices {
            cells.extend(
                [by_device, Slot::StrictDevice].map(|slot| Self::new(slot, device.as_bytes())),
            );
        }
        cells
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = if self.slot.family() == INET { "inet" } else { "netdev" };
        write!(f, "{table} {} ", self.slot.name())?;
        match (self.scope(), self.key()) {
            (Some(Scope::Destination(address)), _) => write!(f, "{address}"),
            (_, [IPV4]) => f.write_str("ipv4"),
            (_, [IPV6]) => f.write_str("ipv6"),
            (_, device) => f.write_str(&text_of(device)),
        }
    }
}

/// An element as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The containment that its comment names.
    pub(crate) id: Option<String>,
    /// What is left of its lease; `None` for an element without an end, which is never ours.
    pub(crate) left: Option<Duration>,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Count {
    /// Packets, or frames.
    pub packets: u64,
    /// Bytes as the hook saw them.
    pub bytes: u64,
}

/// What the ruleset dropped and passed since it was first loaded, both tables together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// Passed as the collector's; a packet counts at each hook it passes.
    pub collector: Count,
    /// Dropped for their destination.
    pub destinations: Count,
    /// Dropped because a frame was not what it claimed to be.
    pub disguised: Count,
    /// Dropped by a cut of the host's external egress.
    pub host: Count,
    /// Dropped because the destination was known beforehand.
    pub known: Count,
    /// Dropped by a cut of all but management.
    pub management: Count,
}

impl Counters {
    /// Everything dropped.
    #[must_use]
    pub fn dropped(&self) -> Count {
        [self.destinations, self.disguised, self.host, self.known, self.management].iter().fold(
            Count::default(),
            |sum, count| Count {
                packets: sum.packets.saturating_add(count.packets),
                bytes: sum.bytes.saturating_add(count.bytes),
            },
        )
    }
}

/// The sets of both tables, over a socket that is open before it is needed.
pub(crate) struct Elements {
    pub(super) channel: Channel,
    pub(super) writer: Writer,
    /// What makes packets meet the tables of containments, as it was loaded.
    pub(super) hooks: Vec<Hook>,
}

impl Elements {
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        // NETLINK_NETFILTER
        Ok(Self {
            channel: Channel::open(netlink_sys::protocols::NETLINK_NETFILTER)?,
            writer: Writer::default(),
            hooks: Vec::new(),
        })
    }

    /// Another hand with a socket of its own, for a ruleset whose hooks are known.
    pub(super) fn open_knowing(hooks: &[Hook]) -> Result<Self, NetlinkError> {
        Ok(Self { hooks: hooks.to_vec(), ..Self::open()? })
    }

    /// Makes the kernel hold and let go of these cells, both tables in one commit; more than [`COMMIT_ELEMENTS`] go in several.
    pub(crate) fn commit(
        &mut self,
        releases: &[Cell],
        asserts: &[(Cell, &str, Duration)],
    ) -> Result<(), NetlinkError> {
        // Asserting comes first: a release must not open what an assertion of the same change closes.
        for chunk in asserts.chunks(COMMIT_ELEMENTS) {
            let rest = if chunk.len() == asserts.len() && releases.len() <= COMMIT_ELEMENTS {
                releases
            } else {
                &[]
            };
            self.commit_once(rest, chunk)?;
        }
        if asserts.is_empty() || asserts.len() > COMMIT_ELEMENTS || releases.len() > COMMIT_ELEMENTS
        {
            for chunk in releases.chunks(COMMIT_ELEMENTS) {
                self.commit_once(chunk, &[])?;
            }
        }
        Ok(())
    }

    /// One commit; what is asserted takes effect with it, whether the hooks were there or not.
    fn commit_once(
        &mut self,
        releases: &[Cell],
        asserts: &[(Cell, &str, Duration)],
    ) -> Result<(), NetlinkError> {
        if asserts.is_empty() {
            return self.commit_batch(releases, asserts, None, None);
        }
        match self.posture()? {
            Posture::Unhooked => {
                // The first hook on a device makes the kernel rewrite its own code, for 0.1 ms: what packets of every
                // socket meet goes before it, and only frames of packet sockets wait.
                let of_frames = |cell: &Cell| cell.slot.family() == NETDEV;
                let is_packets = |assert: &&(Cell, &str, Duration)| !of_frames(&assert.0);
                let packets: Vec<_> = asserts.iter().filter(is_packets).copied().collect();
                self.commit_batch(&[], &packets, None, Some(INET))?;
                self.commit_batch(releases, asserts, None, Some(NETDEV))
            }
            Posture::Hooked(generation) => {
                match self.commit_batch(releases, asserts, Some(generation), None) {
                    // Whoever changed the ruleset may have taken the hooks away.
                    Err(error) if changed_meanwhile(&error) => {
                        self.commit_batch(releases, asserts, None, Some(ANY_FAMILY))
                    }
                    result => result,
                }
            }
        }
    }

    fn commit_batch(
        &mut self,
        releases: &[Cell],
        asserts: &[(Cell, &str, Duration)],
        generation: Option<[u8; 4]>,
        hooks: Option<u8>,
    ) -> Result<(), NetlinkError> {
        self.writer.clear();
        let first = self.channel.next();
        let begin = self.begin_batch(first, generation);
        self.writer.end_message(&begin);
        let mut last = None;
        if let Some(family) = hooks {
            self.write_hooks(family);
        }
        for group in asserts.chunk_by(|a, b| a.0.slot == b.0.slot) {
            let Some((Cell { slot, .. }, ..)) = group.first() else { continue };
            // Adding what is there may keep its old end (kernels before 6.12), deleting what is not there fails the
            // batch, and an element may end at any moment: add, delete, add holds in every case, and no packet sees between.
            let cells = || group.iter().map(|(cell, id, lease)| (cell, Some((*id, *lease))));
            self.message(NEW_ELEMENT, CREATE, *slot, cells());
            self.message(DELETE_ELEMENT, 0, *slot, group.iter().map(|(cell, ..)| (cell, None)));
            last = Some(self.message(NEW_ELEMENT, CREATE, *slot, cells()));
        }
        for group in releases.chunk_by(|a, b| a.slot == b.slot) {
            let Some(Cell { slot, .. }) = group.first() else { continue };
            self.message(
                NEW_ELEMENT,
                CREATE,
                *slot,
                group.iter().map(|cell| (cell, Some(("", SHORTEST)))),
            );
            last =
                Some(self.message(DELETE_ELEMENT, 0, *slot, group.iter().map(|cell| (cell, None))));
        }
        let Some((open, sequence)) = last else { return Ok(()) };
        self.writer.ask(&open);
        let after = self.channel.next();
        let end = self.writer.message(BATCH[1], REQUEST, after, &[0, 0, 0, 10]);
        self.writer.end_message(&end);
        self.channel.transact(self.writer.as_bytes(), first, sequence)
    }

    /// Writes one message on several elements of one set.
    fn message<'a>(
        &mut self,
        kind: u16,
        flags: u16,
        slot: Slot,
        cells: impl Iterator<Item = (&'a Cell, Option<(&'a str, Duration)>)>,
    ) -> (Open, u32) {
        let sequence = self.channel.next();
        let writer = &mut self.writer;
        let message = writer.message(kind, REQUEST | flags, sequence, &[slot.family(), 0, 0, 0]);
        // NFTA_SET_ELEM_LIST_TABLE, _SET, _ELEMENTS
        writer.text(1, TABLE);
        writer.text(2, slot.name());
        let list = writer.nest(3);
        for (cell, lease) in cells {
            let element = writer.nest(1);
            // NFTA_SET_ELEM_KEY, _TIMEOUT (ms), _USERDATA
            let key = writer.nest(1);
            writer.attribute(1, cell.key());
            writer.end_nest(&key);
            if let Some((id, lease)) = lease {
                let millis =
                    u64::try_from(lease.clamp(SHORTEST, LONGEST).as_millis()).unwrap_or(1).max(1);
                writer.attribute(4, &millis.to_be_bytes());
                if !id.is_empty() {
                    let (comment, length) = comment_data(id);
                    writer.attribute(6, comment.get(..length).unwrap_or_default());
                }
            }
            writer.end_nest(&element);
        }
        writer.end_nest(&list);
        writer.end_message(&message);
        (message, sequence)
    }

    /// Reads every element of ours back.
    pub(crate) fn read(&mut self) -> Result<BTreeMap<Cell, Found>, NetlinkError> {
        let mut all = BTreeMap::new();
        for slot in Slot::ALL {
            let mut body = Writer::default();
            body.text(1, TABLE);
            body.text(2, slot.name());
            let head = [&[slot.family(), 0, 0, 0], body.as_bytes()].concat();
            let found = self.channel.dump(
                GET_ELEMENT,
                &head,
                |found: &mut Vec<(Cell, Found)>, answer| {
                    let list = answer
                        .body
                        .get(4..)
                        .and_then(|body| attribute(body, 3))
                        .unwrap_or_default();
                    found.extend(
                        attributes(list).filter_map(|(_, element)| read_element(slot, element)),
                    );
                },
            )?;
            all.extend(found);
        }
        Ok(all)
    }

    /// Reads the counters of both tables.
    pub(crate) fn counters(&mut self) -> Result<Counters, NetlinkError> {
        let mut counters = Counters::default();
        for family in FAMILIES {
            let mut body = Writer::default();
            // NFTA_OBJ_TABLE, NFTA_OBJ_TYPE = NFT_OBJECT_COUNTER
            body.text(1, TABLE);
            body.attribute(3, &1_u32.to_be_bytes());
            let head = [&[family, 0, 0, 0], body.as_bytes()].concat();
            let read = self.channel.dump(
                GET_OBJECT,
                &head,
                |read: &mut Vec<(String, Count)>, answer| {
                    let body = answer.body.get(4..).unwrap_or_default();
                    let (Some(name), Some(data)) = (attribute(body, 2), attribute(body, 4)) else {
                        return;
                    };
                    let number = |kind| attribute(data, kind).map_or(0, big_endian);
                    // NFTA_COUNTER_BYTES, NFTA_COUNTER_PACKETS
                    read.push((text_of(name), Count { packets: number(2), bytes: number(1) }));
                },
            )?;
            for (name, count) in read {
                let place = match name.as_str() {
                    COLLECTOR => &mut counters.collector,
                    CUT_DEST4 | CUT_DEST6 => &mut counters.destinations,
                    DISGUISED => &mut counters.disguised,
                    ARMED_HOST => &mut counters.host,
                    KNOWN => &mut counters.known,
                    ARMED_MANAGEMENT => &mut counters.management,
                    _ => continue,
                };
                place.packets = place.packets.saturating_add(count.packets);
                place.bytes = place.bytes.saturating_add(count.bytes);
            }
        }
        Ok(counters)
    }

    /// A fingerprint of our chains and rules per layer; it changes when anybody touches them, and with the process.
    ///
    /// Hooks that were taken away as a whole count as they were loaded.
    pub(crate) fn fingerprint(&mut self) -> Result<[u64; 2], NetlinkError> {
        let mut hashers = [DefaultHasher::new(), DefaultHasher::new()];
        let [packets, frames] = &mut hashers;
        let mut hooks = self.read_hooks()?;
        if hooks.is_empty() {
            hooks.clone_from(&self.hooks);
        }
        for family in FAMILIES {
            let hasher = if family == NETDEV { &mut *frames } else { &mut *packets };
            let own: Vec<&Hook> = hooks.iter().filter(|hook| hook.is_of(family)).collect();
            own.hash(hasher);
            let mut body = Writer::default();
            body.text(1, TABLE);
            let head = [&[family, 0, 0, 0], body.as_bytes()].concat();
            // NFTA_CHAIN_NAME, _HOOK, _POLICY; then NFTA_RULE_CHAIN, _EXPRESSIONS, _USERDATA. Handles, positions and use counts vary.
            for (request, kinds, name) in [(GET_CHAIN, [3, 4, 5], 3), (GET_RULE, [2, 4, 7], 2)] {
                let parts =
                    self.channel.dump(request, &head, |parts: &mut Vec<Vec<u8>>, answer| {
                        let body = answer.body.get(4..).unwrap_or_default();
                        let chain = attribute(body, name).unwrap_or_default();
                        if attribute(body, 1).map(text_of).as_deref() == Some(TABLE)
                            && !own.iter().any(|hook| hook.is_named(chain))
                            && text_of(chain) != PORTS
                        {
                            parts.extend(
                                kinds.iter().map(|kind| {
                                    attribute(body, *kind).unwrap_or_default().to_vec()
                                }),
                            );
                        }
                    })?;
                parts.hash(hasher);
            }
        }
        Ok(hashers.map(|hasher| hasher.finish()))
    }

    /// Names of the base chains of devices that our `netdev` table has.
    pub(crate) fn device_chains(&mut self) -> Result<Vec<String>, NetlinkError> {
        self.channel.dump(GET_CHAIN, &[NETDEV, 0, 0, 0], |names: &mut Vec<String>, answer| {
            let body = answer.body.get(4..).unwrap_or_default();
            if attribute(body, 1).map(text_of).as_deref() == Some(TABLE) {
                names.extend(
                    attribute(body, 3).map(text_of).filter(|name| name.starts_with(DEVICE_PREFIX)),
                );
            }
        })
    }
}

/// A comment as nft stores it: type 0, length, text with its final zero (libnftnl udata.h, `NFTNL_UDATA_SET_ELEM_COMMENT`).
fn comment_data(id: &str) -> ([u8; COMMENT_BYTES + 3], usize) {
    let mut data = [0; COMMENT_BYTES + 3];
    let length = id.floor_char_boundary(COMMENT_BYTES.min(id.len()));
    if let Some(place) = data.get_mut(1) {
        *place = u8::try_from(length + 1).unwrap_or(u8::MAX);
    }
    for (place, byte) in data.iter_mut().skip(2).zip(id.bytes().take(length)) {
        *place = byte;
    }
    (data, length + 3)
}

fn read_comment(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == 0 {
            return Some(text_of(value));
        }
        data = rest.get(usize::from(*length)..)?;
    }
    None
}

fn read_element(slot: Slot, element: &[u8]) -> Option<(Cell, Found)> {
    let key = attribute(attribute(element, 1)?, 1)?;
    // NFTA_SET_ELEM_EXPIRATION (ms), NFTA_SET_ELEM_USERDATA
    let left = attribute(element, 5).map(|value| Duration::from_millis(big_endian(value)));
    Some((Cell::new(slot, key), Found { id: attribute(element, 6).and_then(read_comment), left }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_reads_back_and_is_cut_at_a_character() {
        let (data, length) = comment_data("c-0123456789ab");
        assert_eq!(&data[..4], [0, 15, b'c', b'-']);
        assert_eq!(read_comment(&data[..length]).unwrap(), "c-0123456789ab");
        let long = "é".repeat(50);
        let (data, length) = comment_data(&long);
        assert_eq!(read_comment(&data[..length]).unwrap(), "é".repeat(32));
    }

    #[test]
    fn a_host_cut_is_both_families_and_each_device_and_names_itself() {
        let cells = Cell::of(&Scope::Host, &["eth0".to_owned()]);
        let names: Vec<String> = cells.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "inet armed_host ipv4",
                "inet armed_host ipv6",
                "netdev armed_host_dev eth0",
                "netdev strict_dev eth0"
            ]
        );
        assert!(Cell::of(&Scope::Container("x".to_owned()), &["eth0".to_owned()]).is_empty());
    }

    #[test]
    fn a_destination_is_one_element_in_each_table() {
        let scope: Scope = "dest:2001:db8::1".parse().unwrap();
        let cells = Cell::of(&scope, &[]);
        assert_eq!(cells.len(), 2);
        assert!(cells.iter().all(|cell| cell.scope().as_ref() == Some(&scope)));
    }
}
