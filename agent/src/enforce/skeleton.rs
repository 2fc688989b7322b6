//! Plan to ruleset: pure, one transaction, elements of the sets kept.
//!
//! Each base chain only jumps to the chain `egress` of its table, and that to `list` while something is cut,
//! so that output, postrouting and every device judge by the very same list. The base chains go while nothing
//! is contained (`hooks.rs`); destinations known beforehand have tables of their own.

mod allowance;
mod exempt;
mod known;
mod layer;
mod levels;
mod terms;

pub use self::allowance::ALLOWANCE_DESTINATIONS;
pub(super) use self::allowance::{SPENT, SPENT_REST, SPENT4, SPENT6};
pub use self::known::LOG_GROUP;
pub(super) use self::levels::{
    GATE_PREFIX, LISTENER, LISTENING, MEASURES, OBSERVE4, OBSERVE6, QUOTA4, QUOTA6, SENDER_MAC,
    SENDER_PORT, SENDER4, SENDER6, SENDERS, SENT, THROTTLE4, THROTTLE6, WORKLOAD, cgroup_set,
};

use super::plan::Plan;
use exempt::Spared;
use ipnet::IpNet;
use layer::Layer;
use nftables::expr::{Expression, MetaKey};
use nftables::schema::{
    Chain, Counter, FlushObject, NfCmd, NfListObject, NfObject, Nftables, Rule, Set, SetFlag,
    SetTypeValue, Table,
};
use nftables::stmt::{JumpTarget, Operator, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfHook};
use std::borrow::Cow;
use std::collections::HashSet;
use terms::{
    count, ethertype, field, matches, members, meta, network_expression, one_of, with, word,
};

/// Name of all tables: of containments `inet` and `netdev`, of destinations known beforehand `ip` and `ip6`.
pub const TABLE: &str = "sekisho";
/// Name of the tables of the upload allowance, `inet` and `netdev`; they are there while a plan names one.
pub const ALLOWANCE_TABLE: &str = "sekisho_allowance";
/// Set of contained IPv4 destinations, and the counter of what it dropped; in both tables.
pub(super) const CUT_DEST4: &str = "cut_dest4";
/// Set of contained IPv6 destinations, and the counter of what it dropped; in both tables.
pub(super) const CUT_DEST6: &str = "cut_dest6";
/// Set of address families of which the external egress is cut (`inet`), and the counter of the drops (both tables).
pub(super) const ARMED_HOST: &str = "armed_host";
/// Set of address families of which all egress is cut (`inet`), and the counter of the drops (both tables).
pub(super) const ARMED_MANAGEMENT: &str = "armed_management";
/// Set of devices of which the external egress is cut (`netdev`).
pub(super) const ARMED_HOST_DEVICE: &str = "armed_host_dev";
/// Set of devices of which all egress is cut (`netdev`).
pub(super) const ARMED_MANAGEMENT_DEVICE: &str = "armed_management_dev";
/// Set of devices on which frames must be what they claim to be, while anything is contained (`netdev`).
pub(super) const STRICT_DEVICE: &str = "strict_dev";
/// Counter of frames that were not what they claimed to be (`netdev`).
pub(super) const DISGUISED: &str = "disguised";
/// Counter of packets that passed as the collector's (both tables).
pub(super) const COLLECTOR: &str = "collector";

/// Sets of destinations known beforehand (`ip` and `ip6`), by address and by address and port.
pub(super) const KNOWN4: &str = "known4";
pub(super) const KNOWN6: &str = "known6";
pub(super) const KNOWN4_PORT: &str = "known4_port";
pub(super) const KNOWN6_PORT: &str = "known6_port";
/// Chain that drops what goes to a destination known beforehand, and the counter of it (`ip` and `ip6`).
pub(super) const KNOWN: &str = "known";

/// Seconds after which an element without a time-out of its own would go: nobody can make a permanent cut.
pub const DEFAULT_TIMEOUT_SECS: u32 = 86_400;

/// Name of the regular chain to which every hook jumps, in both tables.
const EGRESS: &str = "egress";
/// Name of the regular chain that judges what `egress` does not let pass at once.
const LIST: &str = "list";
/// Name of the regular chain that lets pass what no containment may touch.
const EXEMPT: &str = "exempt";
/// Name of the regular chain that lets pass what this host's exempt services answer.
const SERVICES: &str = "services";
/// Name of the base chain that every packet passes which leaves.
pub(super) const POSTROUTING: &str = "postrouting";
/// Name of the base chain of what this host sends.
pub(super) const OUTPUT: &str = "output";
/// How the base chain of a device begins.
pub(super) const DEVICE_PREFIX: &str = "dev_";
/// Before every site's filter and before connection tracking (NF_IP_PRI_RAW, `linux/netfilter_ipv4.h`).
const PRIORITY_FIRST: i32 = -300;
/// After DNAT and before source NAT (NF_IP_PRI_NAT_SRC is 100): the address that the packet really goes to.
const PRIORITY_AFTER_DNAT: i32 = 90;
/// After the containments, so that what is told here is cut by nothing else.
pub(super) const PRIORITY_KNOWN: i32 = 91;
/// Chain that looks for destinations known by their port (`ip` and `ip6`).
pub(super) const BY_PORT: &str = "by_port";
/// Base chain that jumps there, while one is known: whoever writes the first of them makes it.
pub(super) const PORTS: &str = "ports";
/// The device of this host itself.
const LOOPBACK: &str = "lo";
/// Ethertypes of IPv4, ARP and IPv6 (IEEE 802 numbers, IANA).
const ETHERTYPES: [u32; 3] = [0x0800, 0x0806, 0x86dd];

type Objects = Vec<NfObject<'static>>;
type Statements = Vec<Statement<'static>>;

/// The ruleset of a plan: adds what is missing, refills the chains, keeps the elements of the sets.
///
/// `stale` names base chains of the `netdev` table, of devices that are uplinks no longer.
#[must_use]
pub fn skeleton(plan: &Plan, stale: &[String]) -> Nftables<'static> {
    let mut objects = Vec::new();
    for layer in Layer::ALL {
        match layer {
            Layer::Allowance | Layer::AllowanceFrames => {
                allowance::fill(&mut objects, layer, plan);
                continue;
            }
            Layer::Bridge if !plan.bridged => continue,
            _ => {}
        }
        add(&mut objects, table(layer));
        for (name, kind) in layer.sets().into_iter().chain(levels::sets(layer)) {
            add(&mut objects, set(layer, name, SetTypeValue::Single(kind), None));
        }
        for (name, kind) in known::sets(layer) {
            add(&mut objects, set(layer, name, kind, Some(known::COLLECT_SECS)));
        }
        for name in layer.counters().iter().chain(levels::counters(layer)) {
            counter(&mut objects, layer, name);
        }
        let regular: &[&'static str] = match layer {
            Layer::Inet => &[EGRESS, LIST],
            Layer::Netdev => &[EGRESS, LIST, DISGUISED],
            Layer::Known4 | Layer::Known6 => &[LIST, KNOWN, BY_PORT],
            Layer::Allowance | Layer::AllowanceFrames | Layer::Bridge => &[],
        };
        for name in regular.iter().chain(levels::chains(layer)) {
            refill(&mut objects, chain(layer, name));
        }
        for base in base_chains(layer, plan) {
            let name = base.name.clone();
            refill(&mut objects, base);
            if layer.contains() {
                let jump = Statement::Jump(JumpTarget { target: EGRESS.into() });
                rule_in(&mut objects, layer, name, vec![jump], "one list for every hook");
            }
        }
        if layer.contains() {
            known::gates(&mut objects, layer, plan);
        } else {
            known::fill(&mut objects, layer, plan);
        }
        if layer != Layer::Bridge {
            Walk { layer, objects: &mut objects }.fill(plan);
        }
        if layer.contains() || layer == Layer::Bridge {
            spared(&mut objects, layer, plan);
            levels::fill(&mut objects, layer, plan);
        }
    }
    for name in stale {
        let chain = Chain { name: name.clone().into(), ..chain(Layer::Netdev, "") };
        objects.push(NfObject::CmdObject(NfCmd::Flush(FlushObject::Chain(chain.clone()))));
        objects.push(NfObject::CmdObject(NfCmd::Delete(NfListObject::Chain(chain))));
    }
    Nftables { objects: objects.into() }
}

/// The text for `nft -j`.
///
/// What the crate's types (0.6.3) can't say and `nft -j` (1.0.6) takes is put right here, the one place: the
/// types `nf_proto` and `cgroupsv2`, for which sets are built as `inet_proto`, and the quota of an update.
///
/// # Errors
/// What serde says when a value can't be written as JSON.
pub fn to_json(ruleset: &Nftables<'_>) -> Result<serde_json::Value, serde_json::Error> {
    let mut value = serde_json::to_value(ruleset)?;
    let objects =
        value.get_mut("nftables").and_then(serde_json::Value::as_array_mut).into_iter().flatten();
    for object in objects {
        let of_cgroups = object
            .pointer("/add/set/name")
            .and_then(serde_json::Value::as_str)
            .is_some_and(|name| name.starts_with("cgroup_"));
        if let Some(kind) = object.pointer_mut("/add/set/type").filter(|kind| *kind == "inet_proto")
        {
            *kind = if of_cgroups { "cgroupsv2" } else { "nf_proto" }.into();
        }
        if let Some(statements) = object.pointer_mut("/add/rule/expr") {
            allowance::nest_quota(statements);
        }
    }
    Ok(value)
}

/// The transaction that removes every table of ours with all that is in it, but for the one of bridges: see [`removal_of_bridge`].
#[must_use]
pub fn removal() -> Nftables<'static> {
    removal_of(Layer::ALL.into_iter().filter(|layer| *layer != Layer::Bridge))
}

/// The transaction that removes our table of bridges; a kernel without rules for bridges refuses it, and has none.
#[must_use]
pub(super) fn removal_of_bridge() -> Nftables<'static> {
    removal_of([Layer::Bridge].into_iter())
}

fn removal_of(layers: impl Iterator<Item = Layer>) -> Nftables<'static> {
    let mut objects = Vec::new();
    for layer in layers {
        let table = table(layer);
        // Deleting what is not there is an error in nft 1.0.6; adding what is there is none.
        add(&mut objects, table.clone());
        objects.push(NfObject::CmdObject(NfCmd::Delete(table)));
    }
    Nftables { objects: objects.into() }
}

/// Name of the base chain of a device.
#[must_use]
pub fn device_chain(device: &str) -> String {
    use std::fmt::Write as _;
    let mut name = String::from(DEVICE_PREFIX);
    for byte in device.bytes() {
        // '/' can't occur in a device name, so the escape is unambiguous and stays within nft's identifiers.
        if byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'_' {
            name.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(name, "/{byte:02x}");
        }
    }
    name
}

fn base_chains(layer: Layer, plan: &Plan) -> Vec<Chain<'static>> {
    let base = |name, hook, prio, dev| base_chain(layer, name, hook, prio, dev);
    match layer {
        // Their hooks are made where they are needed: gates, and the chains of the allowance.
        Layer::Allowance | Layer::AllowanceFrames | Layer::Bridge => Vec::new(),
        Layer::Inet => vec![
            base(OUTPUT.to_owned(), NfHook::Output, PRIORITY_FIRST, None),
            // What is forwarded passes here too, with the same destination: DNAT lies before, source NAT behind.
            base(POSTROUTING.to_owned(), NfHook::Postrouting, PRIORITY_AFTER_DNAT, None),
        ],
        Layer::Known4 | Layer::Known6 => vec![
            // Empty: it keeps the kernel ready to wake the containments.
            base(OUTPUT.to_owned(), NfHook::Output, PRIORITY_FIRST, None),
            base(POSTROUTING.to_owned(), NfHook::Postrouting, PRIORITY_KNOWN, None),
        ],
        // nft 1.0.6 refuses several devices of one chain as JSON.
        Layer::Netdev => plan
            .uplinks
            .iter()
            .map(|device| {
                base(device_chain(device), NfHook::Egress, PRIORITY_FIRST, Some(device.clone()))
            })
            .collect(),
    }
}

fn base_chain(
    layer: Layer,
    name: String,
    hook: NfHook,
    prio: i32,
    dev: Option<String>,
) -> Chain<'static> {
    Chain {
        _type: Some(NfChainType::Filter),
        hook: Some(hook),
        prio: Some(prio),
        dev: dev.map(Cow::Owned),
        policy: Some(NfChainPolicy::Accept),
        name: name.into(),
        ..chain(layer, "")
    }
}

/// Fills the chains of what no containment may touch.
fn spared(objects: &mut Objects, layer: Layer, plan: &Plan) {
    Spared { layer, objects, chain: EXEMPT }.peers(plan);
    if layer != Layer::Bridge {
        Spared { layer, objects, chain: SERVICES }.services(plan);
    }
}

/// Seconds of a window as the kernel counts them, one at least.
pub(super) fn window_seconds(window: sekisho_schema::Span) -> u32 {
    u32::try_from(window.nanos() / 1_000_000_000).unwrap_or(u32::MAX).max(1)
}

fn counter(objects: &mut Objects, layer: Layer, name: &'static str) {
    add(
        objects,
        NfListObject::Counter(Counter {
            family: layer.family(),
            table: layer.table().into(),
            name: name.into(),
            handle: None,
            packets: None,
            bytes: None,
        }),
    );
}

/// Fills the list of one table, in the order that makes exemptions stronger than every cut.
struct Walk<'a> {
    layer: Layer,
    objects: &'a mut Objects,
}

impl Walk<'_> {
    fn fill(&mut self, plan: &Plan) {
        match self.layer {
            Layer::Netdev => self.frames(),
            _ => self.rule(
                vec![
                    matches(meta(MetaKey::Oifname), Operator::EQ, word(LOOPBACK)),
                    Statement::Accept(None),
                ],
                "loopback",
            ),
        }
        if self.layer.contains() {
            for target in [EXEMPT, SERVICES] {
                let jump = Statement::Jump(JumpTarget { target: target.into() });
                self.rule(vec![jump], "what no containment may touch");
            }
            self.cuts(plan);
        } else {
            let mut spared = Spared { layer: self.layer, objects: self.objects, chain: LIST };
            spared.peers(plan);
            spared.services(plan);
            self.inside(plan);
        }
    }

    fn inside(&mut self, plan: &Plan) {
        for condition in to_networks(self.layer, &plan.inside) {
            self.rule(with(condition, [Statement::Accept(None)]), "inside networks");
        }
    }

    fn cuts(&mut self, plan: &Plan) {
        self.rule(
            vec![
                matches(field("ip", "daddr"), Operator::EQ, members(CUT_DEST4)),
                count(CUT_DEST4),
                Statement::Drop(None),
            ],
            "contained destinations, IPv4",
        );
        self.rule(
            vec![
                matches(field("ip6", "daddr"), Operator::EQ, members(CUT_DEST6)),
                count(CUT_DEST6),
                Statement::Drop(None),
            ],
            "contained destinations, IPv6",
        );
        if self.layer == Layer::Netdev {
            levels::judged_frames(self.objects, LIST);
        }
        levels::names_of_host(self.objects, self.layer, plan);
        let armed = self.layer.armed(ARMED_MANAGEMENT, ARMED_MANAGEMENT_DEVICE);
        self.rule(
            vec![armed, count(ARMED_MANAGEMENT), Statement::Drop(None)],
            "all but management, while armed",
        );
        self.inside(plan);
        let armed = self.layer.armed(ARMED_HOST, ARMED_HOST_DEVICE);
        self.rule(
            vec![armed, count(ARMED_HOST), Statement::Drop(None)],
            "external egress, while armed",
        );
    }

    /// Frames on a device: a sender of raw frames chooses both the ethertype on the wire and the protocol the kernel believes in.
    fn frames(&mut self) {
        let jump = Statement::Jump(JumpTarget { target: DISGUISED.into() });
        self.rule(
            vec![matches(meta(MetaKey::Oifname), Operator::EQ, members(STRICT_DEVICE)), jump],
            "frames must be what they claim",
        );
        for (families, devices) in
            [(ARMED_MANAGEMENT, ARMED_MANAGEMENT_DEVICE), (ARMED_HOST, ARMED_HOST_DEVICE)]
        {
            let others = matches(
                ethertype(),
                Operator::NEQ,
                one_of(ETHERTYPES.map(Expression::Number).to_vec()),
            );
            let armed = self.layer.armed(families, devices);
            self.rule(
                vec![armed, others, count(families), Statement::Drop(None)],
                "neither IP nor ARP, VLAN tags too, while armed",
            );
        }
        let arp = vec![
            matches(ethertype(), Operator::EQ, Expression::Number(0x0806)),
            matches(meta(MetaKey::Protocol), Operator::EQ, word("arp")),
            Statement::Accept(None),
        ];
        self.rule(arp, "ARP");
        for (number, name) in [(0x0800, "ip"), (0x0806, "arp"), (0x86dd, "ip6")] {
            let lie = vec![
                matches(ethertype(), Operator::EQ, Expression::Number(number)),
                matches(meta(MetaKey::Protocol), Operator::NEQ, word(name)),
                count(DISGUISED),
                Statement::Drop(None),
            ];
            rule_in(
                self.objects,
                self.layer,
                DISGUISED.into(),
                lie,
                "ethertype on the wire is not the one told to the kernel",
            );
        }
        for (protocol, version) in [("ip", 4), ("ip6", 6)] {
            let lie = vec![
                matches(field(protocol, "version"), Operator::NEQ, Expression::Number(version)),
                count(DISGUISED),
                Statement::Drop(None),
            ];
            rule_in(
                self.objects,
                self.layer,
                DISGUISED.into(),
                lie,
                "version of the IP header is not the one told to the kernel",
            );
        }
    }

    fn rule(&mut self, statements: Statements, comment: &str) {
        rule_in(self.objects, self.layer, LIST.into(), statements, comment);
    }
}

fn table(layer: Layer) -> NfListObject<'static> {
    NfListObject::Table(Table { family: layer.family(), name: layer.table().into(), handle: None })
}

fn add(objects: &mut Objects, object: NfListObject<'static>) {
    objects.push(NfObject::CmdObject(NfCmd::Add(object)));
}

fn refill(objects: &mut Objects, chain: Chain<'static>) {
    add(objects, NfListObject::Chain(chain.clone()));
    let named = Chain { _type: None, hook: None, prio: None, dev: None, policy: None, ..chain };
    objects.push(NfObject::CmdObject(NfCmd::Flush(FlushObject::Chain(named))));
}

fn chain(layer: Layer, name: &'static str) -> Chain<'static> {
    Chain {
        family: layer.family(),
        table: layer.table().into(),
        name: name.into(),
        newname: None,
        handle: None,
        _type: None,
        hook: None,
        prio: None,
        dev: None,
        policy: None,
    }
}

fn rule_in(
    objects: &mut Objects,
    layer: Layer,
    chain: Cow<'static, str>,
    statements: Statements,
    comment: &str,
) {
    // The kernel's user data of a rule ends at 256 bytes; nft takes 128 of comment.
    let comment: String = comment
        .chars()
        .filter(|c| !c.is_control())
        .scan(0, |used, c| {
            *used += c.len_utf8();
            (*used <= 120).then_some(c)
        })
        .collect();
    add(
        objects,
        NfListObject::Rule(Rule {
            family: layer.family(),
            table: layer.table().into(),
            chain,
            expr: statements.into(),
            handle: None,
            index: None,
            comment: Some(comment.into()),
        }),
    );
}

fn set(
    layer: Layer,
    name: &'static str,
    kind: SetTypeValue<'static>,
    gc_interval: Option<u32>,
) -> NfListObject<'static> {
    NfListObject::Set(Box::new(Set {
        family: layer.family(),
        table: layer.table().into(),
        name: name.into(),
        handle: None,
        set_type: kind,
        policy: None,
        flags: Some(HashSet::from([SetFlag::Timeout])),
        elem: None,
        timeout: Some(DEFAULT_TIMEOUT_SECS),
        gc_interval,
        size: None,
        comment: None,
    }))
}

/// One condition per address family that occurs; none for no network, so that an empty list never means all.
fn to_networks(layer: Layer, networks: &[IpNet]) -> Vec<Statement<'static>> {
    // Aggregated, because nft refuses overlapping networks in one set.
    let whole = IpNet::aggregate(&networks.iter().map(IpNet::trunc).collect());
    let mut conditions = Vec::new();
    for v4 in layer.families().iter().copied() {
        let family: Vec<&IpNet> =
            whole.iter().filter(|network| matches!(network, IpNet::V4(_)) == v4).collect();
        if family.iter().any(|network| network.prefix_len() == 0) {
            conditions.push(layer.of_family(v4));
            continue;
        }
        let items: Vec<Expression<'static>> = family.into_iter().map(network_expression).collect();
        let left = field(if v4 { "ip" } else { "ip6" }, "daddr");
        match <[_; 1]>::try_from(items) {
            Ok([only]) => conditions.push(matches(left, Operator::EQ, only)),
            Err(items) if items.is_empty() => {}
            Err(items) => conditions.push(matches(left, Operator::EQ, one_of(items))),
        }
    }
    conditions
}

#[cfg(test)]
mod tests;
