//! Set elements, counters and the fingerprint of the rules, over nfnetlink.

use super::cell::{BRIDGE, Cell, Slot};
pub(super) use super::cell::{INET, IPV4, IPV6, NETDEV};
use super::expression::{self, Tally};
use super::gates::Gate;
use super::hooks::{ANY_FAMILY, GET_CHAIN, GET_RULE, Hook, Posture, changed_meanwhile};
use super::skeleton::{
    ALLOWANCE_TABLE, ARMED_HOST, ARMED_MANAGEMENT, COLLECTOR, CUT_DEST4, CUT_DEST6, DEVICE_PREFIX,
    DISGUISED, GATE_PREFIX, KNOWN, MEASURES, PORTS, SENDERS, SPENT, TABLE, WORKLOAD,
};
use crate::netlink::{
    CREATE, Channel, EXCLUSIVE, NetlinkError, Open, REQUEST, Writer, attribute, attributes,
    big_endian, text_of,
};
use sekisho_schema::{Measure, Scope};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
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

/// Every table of ours whose rules are watched.
const TABLES: [(u8, &str); 7] = [
    (INET, TABLE),
    (NETDEV, TABLE),
    (IPV4, TABLE),
    (IPV6, TABLE),
    (BRIDGE, TABLE),
    (INET, ALLOWANCE_TABLE),
    (NETDEV, ALLOWANCE_TABLE),
];

/// Elements of one message: their names and scopes still fit the 65,535 bytes of one attribute.
const MESSAGE_ELEMENTS: usize = 150;
/// Elements of one commit: three messages for each still fit the socket's buffer.
const COMMIT_ELEMENTS: usize = 1_500;
/// Bytes of a containment's name kept as the element's comment.
const COMMENT_BYTES: usize = 64;
/// Bytes of an element's user data (`NFT_USERDATA_MAXLEN`).
const DATA_BYTES: usize = 256;
/// Type of user data that names a scope, where the element alone does not; nft passes over it.
const SCOPE_DATA: u8 = 0x53;
/// The longest lease that is written (the longest a policy may name): no element is ever without an end.
pub(crate) const LONGEST: Duration = Duration::from_secs(30 * 86_400);
/// The shortest lease that is written: zero would mean for ever.
const SHORTEST: Duration = Duration::from_millis(1);

/// An element as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The containment that its comment names.
    pub(crate) id: Option<String>,
    /// What is left of its lease; `None` for an element without an end, which is never ours.
    pub(crate) left: Option<Duration>,
    /// The scope that it names, or that its set tells.
    pub(crate) scope: Option<Scope>,
    /// How it is held.
    pub(crate) measure: Measure,
    /// What it has done, where it counts.
    pub(crate) tally: Tally,
}

/// EEXIST (asm-generic/errno-base.h).
const EEXIST: i32 = 17;

/// An element that shall be there.
#[derive(Clone, Debug)]
pub(crate) struct Assert<'a> {
    pub(crate) cell: Cell,
    pub(crate) id: &'a str,
    pub(crate) lease: Duration,
    pub(crate) scope: &'a Scope,
    pub(crate) measure: Measure,
    pub(crate) tally: Tally,
    /// Whether nothing of ours is there yet, as far as we know.
    pub(crate) fresh: bool,
}

impl Assert<'_> {
    /// Its user data: the containment as a comment that nft shows, and the scope where the cell can't tell it.
    fn data(&self) -> Vec<u8> {
        let (comment, length) = comment_data(self.id);
        let mut data = comment.get(..length).unwrap_or_default().to_vec();
        if self.cell.scope().is_none() && !self.cell.is_shared() {
            let freeze = if self.measure == Measure::Freeze { "freeze " } else { "cut " };
            let text = format!("{freeze}{}", self.scope);
            // A scope that is cut short would be another: then the name alone must do.
            if data.len() + text.len() + 2 <= DATA_BYTES
                && let Ok(length) = u8::try_from(text.len())
            {
                data.extend_from_slice(&[SCOPE_DATA, length]);
                data.extend_from_slice(text.as_bytes());
            }
        }
        data
    }
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
    /// Dropped beyond the upload allowance.
    pub allowance: Count,
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
    /// Dropped above a throttle or a quota of a destination.
    pub measures: Count,
    /// Dropped because a contained container or inside host sent it.
    pub senders: Count,
    /// Dropped because a contained workload sent it.
    pub workloads: Count,
}

impl Counters {
    /// Everything dropped.
    #[must_use]
    pub fn dropped(&self) -> Count {
        let all = [
            self.allowance,
            self.destinations,
            self.disguised,
            self.host,
            self.known,
            self.management,
            self.measures,
            self.senders,
            self.workloads,
        ];
        all.iter().fold(Count::default(), |sum, count| Count {
            packets: sum.packets.saturating_add(count.packets),
            bytes: sum.bytes.saturating_add(count.bytes),
        })
    }
}

/// The sets of both tables, over a socket that is open before it is needed.
pub(crate) struct Elements {
    pub(super) channel: Channel,
    pub(super) writer: Writer,
    /// What makes packets meet the tables of containments, as it was loaded.
    pub(super) hooks: Vec<Hook>,
    /// The gates that are there, and whether each is as it was made.
    pub(super) gates: BTreeMap<Gate, bool>,
    /// The kernel's generation at which hooks were there; another one tells nothing.
    ready: Option<[u8; 4]>,
}

impl Elements {
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        // NETLINK_NETFILTER
        Ok(Self {
            channel: Channel::open(netlink_sys::protocols::NETLINK_NETFILTER)?,
            writer: Writer::default(),
            hooks: Vec::new(),
            gates: BTreeMap::new(),
            ready: None,
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
        asserts: &[Assert<'_>],
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
        asserts: &[Assert<'_>],
    ) -> Result<(), NetlinkError> {
        if asserts.is_empty() {
            return self.commit_batch(releases, asserts, None, None);
        }
        if asserts.iter().any(|assert| assert.fresh) {
            match self.commit_at_hooks(releases, asserts) {
                Err(error) if error.code() == Some(EEXIST) => {
                    let known: Vec<_> = asserts
                        .iter()
                        .map(|assert| Assert { fresh: false, ..assert.clone() })
                        .collect();
                    return self.commit_at_hooks(releases, &known);
                }
                result => return result,
            }
        }
        self.commit_at_hooks(releases, asserts)
    }

    fn commit_at_hooks(
        &mut self,
        releases: &[Cell],
        asserts: &[Assert<'_>],
    ) -> Result<(), NetlinkError> {
        // Where nothing changed since the last commit the hooks are where they were: the kernel checks that, not we.
        if let Some(generation) = self.ready.take() {
            match self.commit_batch(releases, asserts, Some(generation), None) {
                Ok(()) => {
                    self.ready = Some(following(generation));
                    return Ok(());
                }
                Err(error) if changed_meanwhile(&error) => {}
                Err(error) => return Err(error),
            }
        }
        match self.posture()? {
            Posture::Unhooked(generation) => {
                match self.commit_with_hooks(releases, asserts, Some(generation)) {
                    Err(error) if changed_meanwhile(&error) => {
                        self.commit_with_hooks(releases, asserts, None)
                    }
                    result => result,
                }
            }
            Posture::Hooked(generation) => {
                match self.commit_batch(releases, asserts, Some(generation), None) {
                    // Whoever changed the ruleset may have taken the hooks away.
                    Err(error) if changed_meanwhile(&error) => {
                        self.commit_batch(releases, asserts, None, Some(ANY_FAMILY))
                    }
                    Ok(()) => {
                        self.ready = Some(following(generation));
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Commits and brings the hooks back. What begins at a generation is void when the ruleset changed meanwhile, and else
    /// tells the one that it ends at.
    fn commit_with_hooks(
        &mut self,
        releases: &[Cell],
        asserts: &[Assert<'_>],
        mut generation: Option<[u8; 4]>,
    ) -> Result<(), NetlinkError> {
        // The first hook on a device makes the kernel rewrite its own code, for 0.1 ms: what packets of every socket
        // meet goes before it, and only frames of packet sockets wait.
        let is_packets = |assert: &&Assert<'_>| assert.cell.slot.family != NETDEV;
        let packets: Vec<_> = asserts.iter().filter(is_packets).cloned().collect();
        if !packets.is_empty() {
            self.commit_batch(&[], &packets, generation, Some(INET))?;
            generation = generation.map(following);
        }
        let mut rest: Vec<_> =
            asserts.iter().filter(|assert| !is_packets(assert)).cloned().collect();
        if rest.is_empty() && releases.is_empty() {
            // A batch needs something to be acknowledged. What is there now is not fresh any more: one that the kernel
            // refuses costs it a grace period.
            rest.extend(packets.first().map(|assert| Assert { fresh: false, ..assert.clone() }));
        }
        self.commit_batch(releases, &rest, generation, Some(NETDEV))?;
        // Only where both families have their hooks now.
        self.ready = generation.map(following).filter(|_| !packets.is_empty());
        Ok(())
    }

    fn commit_batch(
        &mut self,
        releases: &[Cell],
        asserts: &[Assert<'_>],
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
        for set in asserts.chunk_by(|a, b| a.cell.slot == b.cell.slot) {
            let Some(Assert { cell: Cell { slot, .. }, .. }) = set.first() else { continue };
            for group in set.chunks(MESSAGE_ELEMENTS) {
                // Adding what is there may keep its old end (kernels before 6.12), deleting what is not there fails the
                // batch, and an element may end at any moment: add, delete, add holds in every case, and no packet sees between.
                let full = || group.iter().map(|assert| (&assert.cell, Some(assert), None));
                if group.iter().all(|assert| assert.fresh) {
                    // Nothing to replace: a third of the work for the kernel, which refuses it when something is there.
                    last = Some(self.message(NEW_ELEMENT, CREATE | EXCLUSIVE, *slot, full()));
                    continue;
                }
                let bare = group.iter().map(|assert| (&assert.cell, None, None));
                self.message(NEW_ELEMENT, CREATE, *slot, full());
                self.message(DELETE_ELEMENT, 0, *slot, bare);
                last = Some(self.message(NEW_ELEMENT, CREATE, *slot, full()));
            }
        }
        for set in releases.chunk_by(|a, b| a.slot == b.slot) {
            let Some(Cell { slot, .. }) = set.first() else { continue };
            for group in set.chunks(MESSAGE_ELEMENTS) {
                let brief = group.iter().map(|cell| (cell, None, Some(SHORTEST)));
                self.message(NEW_ELEMENT, CREATE, *slot, brief);
                let bare = group.iter().map(|cell| (cell, None, None));
                last = Some(self.message(DELETE_ELEMENT, 0, *slot, bare));
            }
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
        cells: impl Iterator<Item = (&'a Cell, Option<&'a Assert<'a>>, Option<Duration>)>,
    ) -> (Open, u32) {
        let sequence = self.channel.next();
        let writer = &mut self.writer;
        let message = writer.message(kind, REQUEST | flags, sequence, &[slot.family, 0, 0, 0]);
        // NFTA_SET_ELEM_LIST_TABLE, _SET, _ELEMENTS
        writer.text(1, TABLE);
        writer.text(2, slot.name());
        let list = writer.nest(3);
        let owed = crate::clock::behind_ticks();
        for (cell, assert, brief) in cells {
            let element = writer.nest(1);
            // NFTA_SET_ELEM_KEY, _TIMEOUT (ms), _USERDATA
            let key = writer.nest(1);
            writer.attribute(1, cell.key());
            writer.end_nest(&key);
            // The kernel counts from its last tick: a lease never ends before its time.
            let lease = assert.map(|assert| assert.lease.saturating_add(owed));
            if let Some(lease) = lease.or(brief) {
                let millis = lease.clamp(SHORTEST, LONGEST).as_nanos().div_ceil(1_000_000);
                writer.attribute(4, &u64::try_from(millis).unwrap_or(1).to_be_bytes());
            }
            if let Some(assert) = assert {
                writer.attribute(6, &assert.data());
                if cell.slot.kind.is_measure() {
                    expression::write(writer, assert.measure, assert.tally);
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
        for slot in Slot::all() {
            match self.read_slot(slot) {
                Ok(found) => all.extend(found),
                // Without a bridge there is no table for it.
                Err(_) if slot.family == BRIDGE => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Reads the elements of one set back.
    pub(super) fn read_slot(&mut self, slot: Slot) -> Result<Vec<(Cell, Found)>, NetlinkError> {
        let mut body = Writer::default();
        body.text(1, TABLE);
        body.text(2, slot.name());
        let head = [&[slot.family, 0, 0, 0], body.as_bytes()].concat();
        self.channel.dump(GET_ELEMENT, &head, |found: &mut Vec<(Cell, Found)>, answer| {
            let list = answer.body.get(4..).and_then(|body| attribute(body, 3)).unwrap_or_default();
            found.extend(attributes(list).filter_map(|(_, element)| read_element(slot, element)));
        })
    }

    /// Reads the counters of both tables.
    pub(crate) fn counters(&mut self) -> Result<Counters, NetlinkError> {
        let mut counters = Counters::default();
        for (family, table) in TABLES {
            let mut body = Writer::default();
            // NFTA_OBJ_TABLE, NFTA_OBJ_TYPE = NFT_OBJECT_COUNTER
            body.text(1, table);
            body.attribute(3, &1_u32.to_be_bytes());
            let head = [&[family, 0, 0, 0], body.as_bytes()].concat();
            let read =
                self.channel.dump(GET_OBJECT, &head, |read: &mut Vec<(String, Count)>, answer| {
                    let body = answer.body.get(4..).unwrap_or_default();
                    let (Some(name), Some(data)) = (attribute(body, 2), attribute(body, 4)) else {
                        return;
                    };
                    let number = |kind| attribute(data, kind).map_or(0, big_endian);
                    // NFTA_COUNTER_BYTES, NFTA_COUNTER_PACKETS
                    read.push((text_of(name), Count { packets: number(2), bytes: number(1) }));
                });
            let read = match read {
                Ok(read) => read,
                // Where no bridge or no allowance is, there is no table of it.
                Err(_) if family == BRIDGE || table == ALLOWANCE_TABLE => continue,
                Err(error) => return Err(error),
            };
            for (name, count) in read {
                let place = match name.as_str() {
                    COLLECTOR => &mut counters.collector,
                    CUT_DEST4 | CUT_DEST6 => &mut counters.destinations,
                    DISGUISED => &mut counters.disguised,
                    ARMED_HOST => &mut counters.host,
                    KNOWN => &mut counters.known,
                    ARMED_MANAGEMENT => &mut counters.management,
                    MEASURES => &mut counters.measures,
                    SENDERS => &mut counters.senders,
                    SPENT => &mut counters.allowance,
                    WORKLOAD => &mut counters.workloads,
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
        for (family, table) in TABLES {
            let hasher = if family == NETDEV { &mut *frames } else { &mut *packets };
            let own: Vec<&Hook> =
                hooks.iter().filter(|hook| hook.is_of(family) && table == TABLE).collect();
            own.hash(hasher);
            let mut body = Writer::default();
            body.text(1, table);
            let head = [&[family, 0, 0, 0], body.as_bytes()].concat();
            // NFTA_CHAIN_NAME, _HOOK, _POLICY; then NFTA_RULE_CHAIN, _EXPRESSIONS, _USERDATA. Handles, positions and use counts vary.
            for (request, kinds, name) in [(GET_CHAIN, [3, 4, 5], 3), (GET_RULE, [2, 4, 7], 2)] {
                let parts =
                    self.channel.dump(request, &head, |parts: &mut Vec<Vec<u8>>, answer| {
                        let body = answer.body.get(4..).unwrap_or_default();
                        let chain = attribute(body, name).unwrap_or_default();
                        let named = text_of(chain);
                        if attribute(body, 1).map(text_of).as_deref() == Some(table)
                            && !own.iter().any(|hook| hook.is_named(chain))
                            && named != PORTS
                            // Gates come and go with what is held, and are looked at on their own.
                            && !named.starts_with(GATE_PREFIX)
                        {
                            parts.extend(
                                kinds.iter().map(|kind| {
                                    attribute(body, *kind).unwrap_or_default().to_vec()
                                }),
                            );
                        }
                    });
                match parts {
                    Ok(parts) => parts.hash(hasher),
                    Err(_) if family == BRIDGE => {}
                    Err(error) => return Err(error),
                }
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

/// The value of one type of user data.
fn read_data(mut data: &[u8], wanted: u8) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == wanted {
            return Some(text_of(value));
        }
        data = rest.get(usize::from(*length)..)?;
    }
    None
}

fn read_element(slot: Slot, element: &[u8]) -> Option<(Cell, Found)> {
    let cell = Cell::new(slot, attribute(attribute(element, 1)?, 1)?);
    // NFTA_SET_ELEM_EXPIRATION (ms), NFTA_SET_ELEM_USERDATA
    let left = attribute(element, 5).map(|value| Duration::from_millis(big_endian(value)));
    let data = attribute(element, 6).unwrap_or_default();
    let named = read_data(data, SCOPE_DATA);
    let named = named.as_deref().and_then(|text| text.split_once(' '));
    let scope = cell.scope().or_else(|| named.and_then(|(_, scope)| scope.parse().ok()));
    let (measure, tally) = expression::read(element);
    let measure = measure.filter(|_| slot.kind.is_measure()).unwrap_or(match named {
        Some(("freeze", _)) => Measure::Freeze,
        _ => Measure::Cut,
    });
    Some((cell, Found { id: read_data(data, 0), left, scope, measure, tally }))
}

/// The kernel's generation after one more commit: it counts by one and leaves out 0.
fn following(generation: [u8; 4]) -> [u8; 4] {
    u32::from_be_bytes(generation).checked_add(1).unwrap_or(1).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::cell::Kind;
    use super::*;

    #[test]
    fn a_comment_reads_back_and_is_cut_at_a_character() {
        let (data, length) = comment_data("c-0123456789ab");
        assert_eq!(&data[..4], [0, 15, b'c', b'-']);
        assert_eq!(read_data(&data[..length], 0).unwrap(), "c-0123456789ab");
        let long = "é".repeat(50);
        let (data, length) = comment_data(&long);
        assert_eq!(read_data(&data[..length], 0).unwrap(), "é".repeat(32));
    }

    #[test]
    fn an_element_names_its_scope_where_its_set_does_not() {
        let slot = Slot { family: INET, kind: Kind::Cgroup(2) };
        let scope: Scope = "cgroup:/system.slice/web.service".parse().unwrap();
        let mut assert = Assert {
            fresh: false,
            cell: Cell::new(slot, &7_u64.to_ne_bytes()),
            id: "c-0123456789ab",
            lease: Duration::from_secs(1),
            scope: &scope,
            measure: Measure::Freeze,
            tally: Tally::default(),
        };
        let data = assert.data();
        assert_eq!(read_data(&data, 0).unwrap(), "c-0123456789ab");
        assert_eq!(read_data(&data, SCOPE_DATA).unwrap(), format!("freeze {scope}"));
        let long = Scope::Cgroup(format!("/{}", "x".repeat(400)));
        assert.scope = &long;
        assert_eq!(read_data(&assert.data(), SCOPE_DATA), None, "a scope is never cut short");
    }
}
