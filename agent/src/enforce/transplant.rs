//! A ruleset from nft into tables that nft may not touch: nft loads it in a network namespace that nobody
//! else has, and the kernel's own words for it go over our socket in one batch.
//!
//! Enters: the document for nft, and the socket that owns the tables. Leaves: the ruleset in place, elements
//! kept. Rules are never open in between: the kernel swaps the whole batch at once.

use super::RunNftError;
use super::elements::{BATCH, NEW_ELEMENT, nft};
use super::executor;
use super::owner::{Flags, Place, is_ours};
use super::skeleton::GATE_PREFIX;
use crate::netlink::{
    CREATE, Channel, NetlinkError, Open, REQUEST, Writer, attribute, attributes, text_of,
    whole_attributes,
};
use rustix::thread::UnshareFlags;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const NEW_TABLE: u16 = nft(0);
const DELETE_TABLE: u16 = nft(2);
const NEW_CHAIN: u16 = nft(3);
const GET_CHAIN: u16 = nft(4);
const DELETE_CHAIN: u16 = nft(5);
const NEW_RULE: u16 = nft(6);
const GET_RULE: u16 = nft(7);
const DELETE_RULE: u16 = nft(8);
const NEW_SET: u16 = nft(9);
const GET_SET: u16 = nft(10);
const GET_ELEMENT: u16 = nft(13);
const NEW_OBJECT: u16 = nft(18);
const GET_OBJECT: u16 = nft(19);
/// A rule goes to the end of its chain (`NLM_F_APPEND`).
const APPEND: u16 = 0x800;
/// Attributes of a chain that are written anew: hook, policy, type, user data.
const CHAIN_PARTS: [u16; 4] = [4, 5, 7, 12];
/// Attributes of a set: flags, key, data, policy, description, time-out, collection, user data, objects, expressions.
const SET_PARTS: [u16; 13] = [3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 17, 18];
/// Attributes of an object: type, data, user data.
const OBJECT_PARTS: [u16; 3] = [3, 4, 8];
/// `NFT_SET_ANONYMOUS`.
const ANONYMOUS: u64 = 1;
/// Elements of one message: an attribute holds 65,535 bytes.
const MESSAGE_ELEMENTS: usize = 256;
/// More elements than this in one set are not carried over to a table that is made anew; whoever wished for them puts them back.
const MOST_CARRIED: usize = 4_096;

/// Why a ruleset could not be put in place; it is as it was.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransplantError {
    /// The kernel refused, or could not be asked.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// nft refused the document.
    #[error(transparent)]
    Nft(#[from] RunNftError),
    /// There is no namespace to build it in.
    #[error("cannot make a network namespace to build the ruleset in")]
    Scratch(#[source] std::io::Error),
}

/// One named thing of a table, in the kernel's own words.
#[derive(Debug, Default)]
struct Part {
    name: String,
    whole: Vec<u8>,
}

/// What one table holds.
#[derive(Debug, Default)]
struct Table {
    chains: Vec<Part>,
    sets: Vec<Part>,
    /// By set: the elements, each with its header.
    elements: BTreeMap<String, Vec<Vec<u8>>>,
    objects: Vec<Part>,
    /// By their chain.
    rules: Vec<Part>,
}

/// A hook that the scratch namespace has no device for.
#[derive(Clone, Debug)]
struct Hook {
    number: u32,
    priority: i32,
    device: String,
}

/// A ruleset in the kernel's own words.
#[derive(Debug)]
pub(super) struct Ruleset {
    /// `None` for a table that shall not be there.
    tables: BTreeMap<Place, Option<Table>>,
    hooks: BTreeMap<String, Hook>,
}

impl Ruleset {
    /// Has nft build the document in a namespace of its own, which ends with this call.
    pub(super) fn build(document: &Value) -> Result<Self, TransplantError> {
        let (document, hooks) = without_devices(document.clone());
        let built = std::thread::Builder::new().name("scratch".to_owned()).spawn(move || {
            leave_network().map_err(TransplantError::Scratch)?;
            executor::load(&document)?;
            let mut channel = Channel::open(netlink_sys::protocols::NETLINK_NETFILTER)?;
            let mut tables = BTreeMap::new();
            for place in places(&document) {
                let table = read_if_there(&mut channel, &place)?;
                tables.insert(place, table);
            }
            Ok::<_, TransplantError>(tables)
        });
        let tables = built
            .map_err(TransplantError::Scratch)?
            .join()
            .map_err(|_| TransplantError::Netlink(NetlinkError::Malformed))??;
        Ok(Self { tables, hooks })
    }

    /// Puts it in place in one batch; sets that are there keep their elements. `anew` makes tables that are
    /// there afresh, with what is left of their elements.
    pub(super) fn put(
        &self,
        channel: &mut Channel,
        flags: Flags,
        anew: bool,
    ) -> Result<(), NetlinkError> {
        let mut batch = Batch::begin(channel);
        for (place, table) in &self.tables {
            let there = read_if_there(batch.channel, place)?;
            let Some(table) = table else {
                if there.is_some() {
                    batch.table(DELETE_TABLE, 0, place, None);
                }
                continue;
            };
            let fresh = Table::default();
            if anew && there.is_some() {
                batch.table(DELETE_TABLE, 0, place, None);
            }
            batch.table(NEW_TABLE, CREATE, place, flags.bits());
            let kept = there.as_ref().filter(|_| !anew).unwrap_or(&fresh);
            self.table(&mut batch, place, table, kept);
            if let Some(there) = there.as_ref().filter(|_| anew) {
                let named: BTreeSet<&str> =
                    table.sets.iter().map(|set| set.name.as_str()).collect();
                for (set, elements) in &there.elements {
                    if named.contains(set.as_str()) && elements.len() <= MOST_CARRIED {
                        batch.elements(place, set, None, elements);
                    }
                }
            }
        }
        batch.commit()
    }

    fn table(&self, batch: &mut Batch<'_>, place: &Place, table: &Table, there: &Table) {
        // Gates belong to what is held, not to the plan.
        let loaded = || there.chains.iter().filter(|chain| !chain.name.starts_with(GATE_PREFIX));
        for chain in loaded() {
            batch.open(DELETE_RULE, 0, place, |writer| writer.text(2, &chain.name));
        }
        // A base chain that goes before its device's other one comes frees the hook for it.
        let stays: BTreeSet<&str> = table.chains.iter().map(|chain| chain.name.as_str()).collect();
        for chain in loaded().filter(|chain| !stays.contains(chain.name.as_str())) {
            batch.open(DELETE_CHAIN, 0, place, |writer| writer.text(3, &chain.name));
        }
        for object in &table.objects {
            if there.objects.iter().any(|other| other.name == object.name) {
                continue;
            }
            batch.open(NEW_OBJECT, CREATE, place, |writer| {
                writer.text(2, &object.name);
                copy(writer, &object.whole, &OBJECT_PARTS);
            });
        }
        let mut anonymous: BTreeMap<&str, u32> = BTreeMap::new();
        let mut numbered = Vec::new();
        for set in &table.sets {
            let id = batch.next_set();
            let is_anonymous = flags_of(&set.whole) & ANONYMOUS != 0;
            let name = if is_anonymous { template(&set.name) } else { &set.name };
            if is_anonymous {
                anonymous.insert(&set.name, id);
            }
            batch.open(NEW_SET, CREATE, place, |writer| {
                writer.text(2, name);
                copy(writer, &set.whole, &SET_PARTS);
                writer.attribute(10, &id.to_be_bytes());
            });
            numbered.push((set, name, id));
        }
        for chain in &table.chains {
            batch.open(NEW_CHAIN, CREATE, place, |writer| {
                writer.text(3, &chain.name);
                match self.hooks.get(&chain.name).filter(|_| attribute(&chain.whole, 4).is_none()) {
                    Some(hook) => hook.write(writer),
                    None => copy(writer, &chain.whole, &CHAIN_PARTS),
                }
            });
        }
        // Elements may lead to chains, so they come after them; and before the rules that look them up.
        for (set, name, id) in numbered {
            if let Some(elements) = table.elements.get(&set.name) {
                batch.elements(place, name, Some(id), elements);
            }
        }
        for rule in &table.rules {
            batch.open(NEW_RULE, CREATE | APPEND, place, |writer| {
                writer.text(2, &rule.name);
                let list = writer.nest(4);
                for (_, expression) in attributes(attribute(&rule.whole, 4).unwrap_or_default()) {
                    let element = writer.nest(1);
                    rewrite(writer, expression, &anonymous);
                    writer.end_nest(&element);
                }
                writer.end_nest(&list);
                copy(writer, &rule.whole, &[7]);
            });
        }
    }
}

impl Hook {
    /// `NFTA_CHAIN_HOOK`, `_POLICY` (accept) and `_TYPE`, as for a base chain of one device.
    fn write(&self, writer: &mut Writer) {
        let hook = writer.nest(4);
        writer.attribute(1, &self.number.to_be_bytes());
        writer.attribute(2, &self.priority.to_be_bytes());
        writer.text(3, &self.device);
        writer.end_nest(&hook);
        writer.attribute(5, &1_u32.to_be_bytes());
        writer.text(7, "filter");
    }
}

/// One batch being written for the socket that owns the tables.
struct Batch<'a> {
    channel: &'a mut Channel,
    writer: Writer,
    first: u32,
    last: Option<(Open, u32)>,
    sets: u32,
}

impl<'a> Batch<'a> {
    fn begin(channel: &'a mut Channel) -> Self {
        let mut writer = Writer::default();
        let first = channel.next();
        // nfgenmsg: family, version 0, resource id in network order: the subsystem.
        let begin = writer.message(BATCH[0], REQUEST, first, &[0, 0, 0, 10]);
        writer.end_message(&begin);
        Self { channel, writer, first, last: None, sets: 0 }
    }

    const fn next_set(&mut self) -> u32 {
        self.sets += 1;
        self.sets
    }

    /// One message about a thing of our table of a family.
    fn open(&mut self, kind: u16, flags: u16, place: &Place, rest: impl FnOnce(&mut Writer)) {
        let sequence = self.channel.next();
        let message = self.writer.message(kind, REQUEST | flags, sequence, &[place.0, 0, 0, 0]);
        self.writer.text(1, &place.1);
        rest(&mut self.writer);
        self.writer.end_message(&message);
        self.last = Some((message, sequence));
    }

    fn table(&mut self, kind: u16, flags: u16, place: &Place, bits: Option<u32>) {
        self.open(kind, flags, place, |writer| {
            if let Some(bits) = bits {
                writer.attribute(2, &bits.to_be_bytes());
            }
        });
    }

    fn elements(&mut self, place: &Place, set: &str, id: Option<u32>, elements: &[Vec<u8>]) {
        for chunk in elements.chunks(MESSAGE_ELEMENTS) {
            self.open(NEW_ELEMENT, CREATE, place, |writer| {
                writer.text(2, set);
                if let Some(id) = id {
                    writer.attribute(4, &id.to_be_bytes());
                }
                let list = writer.nest(3);
                for element in chunk {
                    writer.copy(element);
                }
                writer.end_nest(&list);
            });
        }
    }

    fn commit(mut self) -> Result<(), NetlinkError> {
        let Some((open, sequence)) = self.last else { return Ok(()) };
        self.writer.ask(&open);
        let after = self.channel.next();
        let end = self.writer.message(BATCH[1], REQUEST, after, &[0, 0, 0, 10]);
        self.writer.end_message(&end);
        self.channel.transact(self.writer.as_bytes(), self.first, sequence)
    }
}

/// Moves the calling thread into a new network namespace.
#[allow(
    deprecated,
    reason = "its successor is unsafe for the sake of file descriptor tables, which are not touched here"
)]
fn leave_network() -> std::io::Result<()> {
    rustix::thread::unshare(UnshareFlags::NEWNET).map_err(std::io::Error::from)
}

/// Takes the hooks on devices out of a document: the scratch namespace has no such devices.
fn without_devices(mut document: Value) -> (Value, BTreeMap<String, Hook>) {
    let mut hooks = BTreeMap::new();
    let objects = document.get_mut("nftables").and_then(Value::as_array_mut);
    for chain in objects.into_iter().flatten().filter_map(|object| object.pointer_mut("/add/chain"))
    {
        let Some(fields) = chain.as_object_mut() else { continue };
        let Some(device) = fields.remove("dev").and_then(|value| value.as_str().map(str::to_owned))
        else {
            continue;
        };
        let word = |value: Option<Value>| value.and_then(|value| value.as_str().map(str::to_owned));
        let (hook, priority) = (word(fields.remove("hook")), fields.remove("prio"));
        fields.remove("type");
        fields.remove("policy");
        let name = fields.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        hooks.insert(
            name,
            Hook {
                // NF_NETDEV_INGRESS and NF_NETDEV_EGRESS (linux/netfilter.h).
                number: u32::from(hook.as_deref() == Some("egress")),
                priority: priority
                    .and_then(|value| value.as_i64())
                    .and_then(|value| i32::try_from(value).ok())
                    .unwrap_or_default(),
                device,
            },
        );
    }
    (document, hooks)
}

/// The tables that a document adds.
fn places(document: &Value) -> BTreeSet<Place> {
    let objects = document.get("nftables").and_then(Value::as_array).into_iter().flatten();
    objects
        .filter_map(|object| {
            let table = object.pointer("/add/table")?;
            let name = table.get("name")?.as_str().filter(|name| is_ours(name))?;
            Some((family(table.get("family")?.as_str()?)?, name.to_owned()))
        })
        .collect()
}

/// `NFPROTO_…` (linux/netfilter.h).
fn family(name: &str) -> Option<u8> {
    match name {
        "inet" => Some(1),
        "ip" => Some(2),
        "arp" => Some(3),
        "netdev" => Some(5),
        "bridge" => Some(7),
        "ip6" => Some(10),
        _ => None,
    }
}

/// Everything of a table; `None` where it is not.
fn read_if_there(channel: &mut Channel, place: &Place) -> Result<Option<Table>, NetlinkError> {
    match read(channel, place) {
        Ok(table) => Ok(Some(table)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Everything of a table.
fn read(channel: &mut Channel, place: &Place) -> Result<Table, NetlinkError> {
    let parts = |channel: &mut Channel, request: u16, name: u16| {
        let mut body = Writer::default();
        body.text(1, &place.1);
        let head = [&[place.0, 0, 0, 0], body.as_bytes()].concat();
        channel.dump(request, &head, |found: &mut Vec<Part>, answer| {
            let body = answer.body.get(4..).unwrap_or_default();
            if attribute(body, 1).map(text_of).as_deref() == Some(place.1.as_str()) {
                let name = attribute(body, name).map(text_of).unwrap_or_default();
                found.push(Part { name, whole: body.to_vec() });
            }
        })
    };
    let sets = parts(channel, GET_SET, 2)?;
    let mut elements = BTreeMap::new();
    for set in &sets {
        let mut found = read_elements(channel, place, &set.name)?;
        found.sort_by_cached_key(|element| order(element));
        if !found.is_empty() {
            elements.insert(set.name.clone(), found);
        }
    }
    Ok(Table {
        chains: parts(channel, GET_CHAIN, 3)?,
        objects: parts(channel, GET_OBJECT, 2)?,
        rules: parts(channel, GET_RULE, 2)?,
        sets,
        elements,
    })
}

fn read_elements(
    channel: &mut Channel,
    place: &Place,
    set: &str,
) -> Result<Vec<Vec<u8>>, NetlinkError> {
    let mut body = Writer::default();
    body.text(1, &place.1);
    body.text(2, set);
    let head = [&[place.0, 0, 0, 0], body.as_bytes()].concat();
    channel.dump(GET_ELEMENT, &head, |found: &mut Vec<Vec<u8>>, answer| {
        let list = answer.body.get(4..).and_then(|body| attribute(body, 3)).unwrap_or_default();
        if found.len() <= MOST_CARRIED {
            found.extend(whole_attributes(list).map(|(_, whole)| whole.to_vec()));
        }
    })
}

/// Intervals are taken in the order of their keys, an end before the next beginning.
fn order(element: &[u8]) -> (Vec<u8>, bool) {
    let body = element.get(4..).unwrap_or_default();
    let key = attribute(body, 1).and_then(|key| attribute(key, 1)).unwrap_or_default();
    // NFT_SET_ELEM_INTERVAL_END
    let end = attribute(body, 3).is_some_and(|flags| crate::netlink::big_endian(flags) & 1 != 0);
    (key.to_vec(), !end)
}

fn flags_of(set: &[u8]) -> u64 {
    attribute(set, 3).map_or(0, crate::netlink::big_endian)
}

/// The name by which the kernel gives an anonymous set the next free one.
fn template(name: &str) -> &'static str {
    if name.starts_with("__map") { "__map%d" } else { "__set%d" }
}

fn copy(writer: &mut Writer, body: &[u8], kinds: &[u16]) {
    for (_, whole) in whole_attributes(body).filter(|(kind, _)| kinds.contains(kind)) {
        writer.copy(whole);
    }
}

/// Writes an expression, with anonymous sets by their number in this batch.
fn rewrite(writer: &mut Writer, expression: &[u8], anonymous: &BTreeMap<&str, u32>) {
    let name = attribute(expression, 1).map(text_of).unwrap_or_default();
    // NFTA_LOOKUP_SET and _SET_ID, NFTA_DYNSET_SET_NAME and _SET_ID, NFTA_OBJREF_SET_NAME and _SET_ID.
    let kinds = match name.as_str() {
        "lookup" => Some((1, 4)),
        "dynset" => Some((1, 2)),
        "objref" => Some((4, 5)),
        _ => None,
    };
    let data = attribute(expression, 2).unwrap_or_default();
    let found = kinds.and_then(|(set, id)| {
        let name = text_of(attribute(data, set)?);
        let (name, number) = anonymous.get_key_value(name.as_str())?;
        Some((set, id, template(name), *number))
    });
    let Some((set, id, template, number)) = found else {
        copy(writer, expression, &[1, 2]);
        return;
    };
    copy(writer, expression, &[1]);
    let nest = writer.nest(2);
    for (kind, whole) in whole_attributes(data) {
        if kind == set {
            writer.text(set, template);
        } else {
            writer.copy(whole);
        }
    }
    writer.attribute(id, &number.to_be_bytes());
    writer.end_nest(&nest);
}
