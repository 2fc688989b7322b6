//! Plan to ruleset: pure, one transaction, elements of the sets kept.
//!
//! Each base chain only jumps to the chain `egress` of its table, and that to `list` while something is cut,
//! so that output, postrouting and every device judge by the very same list. The base chains go while nothing
//! is contained (`hooks.rs`); destinations known beforehand have tables of their own.

mod known;
mod terms;

pub use self::known::LOG_GROUP;

use super::plan::Plan;
use ipnet::IpNet;
use nftables::expr::{Expression, MetaKey};
use nftables::schema::{
    Chain, Counter, FlushObject, NfCmd, NfListObject, NfObject, Nftables, Rule, Set, SetFlag,
    SetType, SetTypeValue, Table,
};
use nftables::stmt::{JumpTarget, Operator, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
use sekisho_schema::Transport;
use sekisho_schema::policy::Exemption;
use std::borrow::Cow;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use terms::{
    count, ethertype, field, matches, members, meta, network_expression, not_opening, of_transport,
    one_of, port, transport_name, with, word,
};

/// Name of all tables: of containments `inet` and `netdev`, of destinations known beforehand `ip` and `ip6`.
pub const TABLE: &str = "sekisho";
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
        add(&mut objects, table(layer));
        for (name, kind) in layer.sets() {
            add(&mut objects, set(layer, name, SetTypeValue::Single(kind), None));
        }
        for (name, kind) in known::sets(layer) {
            add(&mut objects, set(layer, name, kind, Some(known::COLLECT_SECS)));
        }
        for name in layer.counters() {
            add(
                &mut objects,
                NfListObject::Counter(Counter {
                    family: layer.family(),
                    table: TABLE.into(),
                    name: name.into(),
                    handle: None,
                    packets: None,
                    bytes: None,
                }),
            );
        }
        let regular: &[&'static str] = match layer {
            Layer::Inet => &[EGRESS, LIST],
            Layer::Netdev => &[EGRESS, LIST, DISGUISED],
            Layer::Known4 | Layer::Known6 => &[LIST, KNOWN, BY_PORT],
        };
        for name in regular {
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
        Walk { layer, objects: &mut objects }.fill(plan);
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
/// The crate's `SetType` (0.6.3) has no `nf_proto`, which `nft -j` (1.0.6) takes and prints; the sets of
/// address families are built as `inet_proto`, of the same size, and renamed here, the one place.
///
/// # Errors
/// What serde says when a value can't be written as JSON.
pub fn to_json(ruleset: &Nftables<'_>) -> Result<serde_json::Value, serde_json::Error> {
    let mut value = serde_json::to_value(ruleset)?;
    let objects =
        value.get_mut("nftables").and_then(serde_json::Value::as_array_mut).into_iter().flatten();
    for kind in objects.filter_map(|object| object.pointer_mut("/add/set/type")) {
        if kind == "inet_proto" {
            *kind = "nf_proto".into();
        }
    }
    Ok(value)
}

/// The transaction that removes every table of ours with all that is in it.
#[must_use]
pub fn removal() -> Nftables<'static> {
    let mut objects = Vec::new();
    for layer in Layer::ALL {
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Layer {
    /// Containments, packets.
    Inet,
    /// Containments, frames.
    Netdev,
    /// Known addresses: a family each, so that a packet meets the look of its own family alone.
    Known4,
    Known6,
}

impl Layer {
    const ALL: [Self; 4] = [Self::Inet, Self::Netdev, Self::Known4, Self::Known6];

    const fn family(self) -> NfFamily {
        match self {
            Self::Inet => NfFamily::INet,
            Self::Netdev => NfFamily::NetDev,
            Self::Known4 => NfFamily::IP,
            Self::Known6 => NfFamily::IP6,
        }
    }

    /// Whether containments are its business.
    const fn contains(self) -> bool {
        matches!(self, Self::Inet | Self::Netdev)
    }

    /// The address families that can occur: whether IPv4.
    const fn families(self) -> &'static [bool] {
        match self {
            Self::Inet | Self::Netdev => &[true, false],
            Self::Known4 => &[true],
            Self::Known6 => &[false],
        }
    }

    fn sets(self) -> Vec<(&'static str, SetType)> {
        let mut sets = vec![(CUT_DEST4, SetType::Ipv4Addr), (CUT_DEST6, SetType::Ipv6Addr)];
        match self {
            Self::Inet => sets
                .extend([(ARMED_HOST, SetType::InetProto), (ARMED_MANAGEMENT, SetType::InetProto)]),
            Self::Netdev => sets.extend(
                [ARMED_HOST_DEVICE, ARMED_MANAGEMENT_DEVICE, STRICT_DEVICE]
                    .map(|name| (name, SetType::Ifname)),
            ),
            Self::Known4 | Self::Known6 => sets.clear(),
        }
        sets
    }

    fn counters(self) -> Vec<&'static str> {
        match self {
            Self::Inet => vec![CUT_DEST4, CUT_DEST6, ARMED_HOST, ARMED_MANAGEMENT, COLLECTOR],
            Self::Netdev => {
                vec![CUT_DEST4, CUT_DEST6, ARMED_HOST, ARMED_MANAGEMENT, COLLECTOR, DISGUISED]
            }
            Self::Known4 | Self::Known6 => vec![COLLECTOR, KNOWN],
        }
    }

    /// The match on a set that arms a whole-host cut.
    fn armed(self, families: &str, devices: &str) -> Statement<'static> {
        if self == Self::Netdev {
            matches(meta(MetaKey::Oifname), Operator::EQ, members(devices))
        } else {
            matches(meta(MetaKey::Nfproto), Operator::EQ, members(families))
        }
    }

    /// The match on the address family alone.
    fn of_family(self, v4: bool) -> Statement<'static> {
        let number = Expression::Number(if v4 { 4 } else { 6 });
        match self {
            Self::Inet => {
                let word = word(if v4 { "ipv4" } else { "ipv6" });
                matches(meta(MetaKey::Nfproto), Operator::EQ, word)
            }
            Self::Netdev => {
                matches(meta(MetaKey::Protocol), Operator::EQ, word(if v4 { "ip" } else { "ip6" }))
            }
            // Tables of one family: nft refuses to ask for it, and this is always so.
            Self::Known4 | Self::Known6 => {
                let version = field(if v4 { "ip" } else { "ip6" }, "version");
                matches(version, Operator::EQ, number)
            }
        }
    }
}

fn base_chains(layer: Layer, plan: &Plan) -> Vec<Chain<'static>> {
    let base = |name: String, hook, prio, dev: Option<String>| Chain {
        _type: Some(NfChainType::Filter),
        hook: Some(hook),
        prio: Some(prio),
        dev: dev.map(Cow::Owned),
        policy: Some(NfChainPolicy::Accept),
        name: name.into(),
        ..chain(layer, "")
    };
    match layer {
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
        self.neighbours(plan);
        self.dhcp(plan);
        for endpoint in &plan.collector {
            collector(self.objects, self.layer, LIST, *endpoint);
        }
        for exemption in &plan.exempt {
            self.exemption(exemption);
        }
        if self.layer.contains() {
            self.cuts(plan);
        } else {
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

    /// Neighbour discovery and multicast listener reports, only to where they have business: their types would else lead outside.
    fn neighbours(&mut self, plan: &Plan) {
        let kinds = [
            "nd-router-solicit",
            "nd-router-advert",
            "nd-neighbor-solicit",
            "nd-neighbor-advert",
            "mld-listener-query",
            "mld-listener-report",
            "mld-listener-done",
            "mld2-listener-report",
        ];
        let mut networks = ipv6(&["fe80::/10", "ff02::/16"]);
        networks.extend(
            plan.on_link
                .iter()
                .chain(&plan.inside)
                .filter(|network| matches!(network, IpNet::V6(_))),
        );
        for condition in to_networks(self.layer, &networks) {
            let kind =
                matches(field("icmpv6", "type"), Operator::EQ, one_of(kinds.map(word).to_vec()));
            self.rule(
                with(condition, [kind, Statement::Accept(None)]),
                "IPv6 neighbour discovery and multicast listening",
            );
        }
    }

    fn dhcp(&mut self, plan: &Plan) {
        let mut networks: Vec<IpNet> = "255.255.255.255/32".parse().into_iter().collect();
        // A server outside is found again by broadcast, when the lease is rebound (RFC 2131, section 4.4.5).
        networks.extend(plan.inside.iter().filter(|network| matches!(network, IpNet::V4(_))));
        for condition in to_networks(self.layer, &networks) {
            self.rule(
                with(
                    condition,
                    [port("udp", "sport", 68), port("udp", "dport", 67), Statement::Accept(None)],
                ),
                "DHCP",
            );
        }
        for condition in to_networks(self.layer, &ipv6(&["ff02::1:2/128", "fe80::/10"])) {
            self.rule(
                with(
                    condition,
                    [port("udp", "sport", 546), port("udp", "dport", 547), Statement::Accept(None)],
                ),
                "DHCPv6",
            );
        }
    }

    fn exemption(&mut self, exemption: &Exemption) {
        match exemption {
            Exemption::Peer { name, to, transport, port: number } => {
                for condition in to_networks(self.layer, &[*to]) {
                    let mut rest = Vec::new();
                    // Later fragments carry no ports: on a device the address alone decides.
                    if self.layer != Layer::Netdev {
                        rest.extend(transport.map(of_transport));
                        rest.extend(transport.zip(*number).map(|(transport, number)| {
                            port(transport_name(transport), "dport", number)
                        }));
                    }
                    rest.push(Statement::Accept(None));
                    self.rule(with(condition, rest), &format!("exempt peer: {name}"));
                }
            }
            Exemption::Service { name, transport, port: number, from } => {
                for condition in to_networks(self.layer, &[*from]) {
                    let mut rest = vec![port(transport_name(*transport), "sport", *number)];
                    if *transport == Transport::Tcp {
                        rest.push(not_opening());
                    }
                    rest.push(Statement::Accept(None));
                    self.rule(with(condition, rest), &format!("exempt service: {name}"));
                }
            }
        }
    }

    fn rule(&mut self, statements: Statements, comment: &str) {
        rule_in(self.objects, self.layer, LIST.into(), statements, comment);
    }
}

fn collector(objects: &mut Objects, layer: Layer, chain: &'static str, endpoint: SocketAddr) {
    let address = IpNet::from(endpoint.ip().to_canonical());
    for condition in to_networks(layer, &[address]) {
        let rest =
            [port("tcp", "dport", endpoint.port()), count(COLLECTOR), Statement::Accept(None)];
        rule_in(objects, layer, chain.into(), with(condition, rest), "collector");
    }
}

fn table(layer: Layer) -> NfListObject<'static> {
    NfListObject::Table(Table { family: layer.family(), name: TABLE.into(), handle: None })
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
        table: TABLE.into(),
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
            table: TABLE.into(),
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
        table: TABLE.into(),
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

fn ipv6(networks: &[&str]) -> Vec<IpNet> {
    networks
        .iter()
        .filter_map(|network| network.parse().ok())
        .filter(|network: &IpNet| matches!(network.addr(), IpAddr::V6(_)))
        .collect()
}

#[cfg(test)]
mod tests;
