//! The chains of the steps of the ladder beside the whole-host list: measures on a destination, workloads,
//! senders behind this host. No packet meets them until a gate (`gates.rs`) leads to them.

use super::layer::Layer;
use super::terms::{count, field, handshake, matches, members, meta, one_of, port, with, word};
use super::{
    ARMED_MANAGEMENT, ARMED_MANAGEMENT_DEVICE, EXEMPT, LIST, LOOPBACK, Objects, SERVICES,
    Statements, rule_in, to_networks,
};
use crate::enforce::Plan;
use crate::enforce::cell::DEEPEST_CGROUP;
use ipnet::IpNet;
use nftables::expr::{Expression, MetaKey, NamedExpression, Payload, PayloadBase, PayloadRaw};
use nftables::schema::SetType;
use nftables::stmt::{JumpTarget, Limit, Operator, Statement};

/// Sets of IPv4 and IPv6 destinations that are counted and pass; in both tables.
pub(in crate::enforce) const OBSERVE4: &str = "observe4";
pub(in crate::enforce) const OBSERVE6: &str = "observe6";
/// Sets of destinations of which so many bytes pass yet.
pub(in crate::enforce) const QUOTA4: &str = "quota4";
pub(in crate::enforce) const QUOTA6: &str = "quota6";
/// Sets of destinations that are slowed down.
pub(in crate::enforce) const THROTTLE4: &str = "throttle4";
pub(in crate::enforce) const THROTTLE6: &str = "throttle6";
/// Sets of contained senders behind this host: by address, hardware address and the device they come in by.
pub(in crate::enforce) const SENDER4: &str = "sender4";
pub(in crate::enforce) const SENDER6: &str = "sender6";
pub(in crate::enforce) const SENDER_MAC: &str = "sender_mac";
pub(in crate::enforce) const SENDER_PORT: &str = "sender_port";
/// Set of local TCP ports of contained listeners (`inet`).
pub(in crate::enforce) const LISTENER: &str = "listener";
/// Prefix of the base chains of gates.
pub(in crate::enforce) const GATE_PREFIX: &str = "at_";
/// Chain of the measures on a destination, and the counter of what they dropped.
pub(in crate::enforce) const MEASURES: &str = "measures";
/// Chain of what came in and may be of a contained sender, and the counter of what was dropped.
pub(in crate::enforce) const SENDERS: &str = "senders";
/// Chain of packets of contained workloads, and the counter of what was dropped.
pub(in crate::enforce) const WORKLOAD: &str = "workload";
/// Chain of packets that may be a contained listener's answer to a handshake.
pub(in crate::enforce) const LISTENING: &str = "listening";
/// Chain of what is above a measure, unless it is exempt.
const ABOVE: &str = "above";
/// Chain of what a contained sender sent.
pub(in crate::enforce) const SENT: &str = "sent";
/// Names by port: DNS, and DNS over TLS (RFC 7858).
const DNS: u16 = 53;
const DNS_TLS: u16 = 853;
/// Where the first label of a question begins: behind the headers of UDP (8 bytes) and of DNS (12).
const FIRST_LABEL_BITS: u32 = (8 + 12) * 8;

/// The set of contained cgroups of a depth.
pub(in crate::enforce) const fn cgroup_set(level: u8) -> &'static str {
    match level {
        1 => "cgroup_1",
        2 => "cgroup_2",
        3 => "cgroup_3",
        4 => "cgroup_4",
        5 => "cgroup_5",
        6 => "cgroup_6",
        7 => "cgroup_7",
        _ => "cgroup_8",
    }
}

/// The sets of a layer.
pub(super) fn sets(layer: Layer) -> Vec<(&'static str, SetType)> {
    let senders = [
        (SENDER4, SetType::Ipv4Addr),
        (SENDER6, SetType::Ipv6Addr),
        (SENDER_MAC, SetType::EtherAddr),
        (SENDER_PORT, SetType::Ifname),
    ];
    let measures = [
        (OBSERVE4, SetType::Ipv4Addr),
        (OBSERVE6, SetType::Ipv6Addr),
        (QUOTA4, SetType::Ipv4Addr),
        (QUOTA6, SetType::Ipv6Addr),
        (THROTTLE4, SetType::Ipv4Addr),
        (THROTTLE6, SetType::Ipv6Addr),
    ];
    match layer {
        Layer::Inet => measures
            .into_iter()
            .chain(senders)
            // Renamed where the ruleset becomes JSON: the crate's types know no cgroups.
            .chain((1..=DEEPEST_CGROUP).map(|level| (cgroup_set(level), SetType::InetProto)))
            .chain([(LISTENER, SetType::InetService)])
            .collect(),
        Layer::Netdev => measures.into_iter().chain(senders).collect(),
        Layer::Bridge => senders.to_vec(),
        _ => Vec::new(),
    }
}

/// The counters of a layer.
pub(super) const fn counters(layer: Layer) -> &'static [&'static str] {
    match layer {
        Layer::Inet => &[MEASURES, SENDERS, WORKLOAD],
        Layer::Netdev => &[MEASURES, SENDERS],
        Layer::Bridge => &[SENDERS],
        _ => &[],
    }
}

/// The regular chains of a layer.
pub(super) const fn chains(layer: Layer) -> &'static [&'static str] {
    match layer {
        Layer::Inet => &[EXEMPT, SERVICES, ABOVE, MEASURES, SENT, SENDERS, WORKLOAD, LISTENING],
        Layer::Netdev => &[EXEMPT, SERVICES, SENT, SENDERS],
        Layer::Bridge => &[EXEMPT, SENT, SENDERS],
        _ => &[],
    }
}

/// Fills the chains of a layer.
pub(super) fn fill(objects: &mut Objects, layer: Layer, plan: &Plan) {
    match layer {
        Layer::Inet => {
            for statements in measures(goto(ABOVE)) {
                rule_in(objects, layer, MEASURES.into(), statements, "measures on a destination");
            }
            for statements in [
                vec![jump(EXEMPT)],
                vec![jump(SERVICES)],
                vec![count(MEASURES), Statement::Drop(None)],
            ] {
                rule_in(objects, layer, ABOVE.into(), statements, "above a measure");
            }
            workload(objects, plan);
        }
        Layer::Netdev | Layer::Bridge => {}
        _ => return,
    }
    senders(objects, layer, plan);
}

/// The rules of measures: what is observed goes on, what is above a limit or a quota goes the way of `above`.
fn measures(above: Statement<'static>) -> Vec<Statements> {
    [("ip", OBSERVE4, THROTTLE4, QUOTA4), ("ip6", OBSERVE6, THROTTLE6, QUOTA6)]
        .into_iter()
        .flat_map(|(ip, observe, throttle, quota)| {
            let to = |set| matches(field(ip, "daddr"), Operator::EQ, members(set));
            // The look itself counts; the elements of the other two sets are found by what is above them alone.
            [vec![to(observe)], vec![to(throttle), above.clone()], vec![to(quota), above.clone()]]
        })
        .collect()
}

/// Measures and contained senders within the list of frames, behind what is exempt.
pub(super) fn judged_frames(objects: &mut Objects, chain: &'static str) {
    measured_frames(objects, chain);
    sent_frames(objects, chain);
}

fn measured_frames(objects: &mut Objects, chain: &'static str) {
    for mut statements in measures(Statement::Drop(None)) {
        if let Some(last) = statements.pop_if(|last| matches!(last, Statement::Drop(_))) {
            statements.extend([count(MEASURES), last]);
        }
        rule_in(objects, Layer::Netdev, chain.into(), statements, "measures on a destination");
    }
}

/// Frames that leave as a contained sender's own: a container on a device of its own above an uplink. Its hardware
/// address is asked for at a gate, because nft's word for that asks for the device a frame came in by as well.
fn sent_frames(objects: &mut Objects, chain: &'static str) {
    for (left, set) in [(field("ip", "saddr"), SENDER4), (field("ip6", "saddr"), SENDER6)] {
        let statements = vec![matches(left, Operator::EQ, members(set)), goto(SENT)];
        rule_in(objects, Layer::Netdev, chain.into(), statements, "contained senders");
    }
}

/// Names for who may speak to nobody else, in the list of a whole host.
pub(super) fn names_of_host(objects: &mut Objects, layer: Layer, plan: &Plan) {
    let armed = layer.armed(ARMED_MANAGEMENT, ARMED_MANAGEMENT_DEVICE);
    // A packet of this host meets the list at two hooks of packets, and at one of frames.
    let times = if layer == Layer::Inet { 2 } else { 1 };
    for statements in names(layer, plan, times) {
        rule_in(objects, layer, LIST.into(), with(armed.clone(), statements), "named resolvers");
    }
}

/// Questions to the named resolvers: few, and short, and over UDP alone.
fn names(layer: Layer, plan: &Plan, times: u32) -> Vec<Statements> {
    if plan.names.questions_per_second == 0 {
        return Vec::new();
    }
    let resolvers: Vec<IpNet> =
        plan.names.resolvers.iter().map(|ip| ip.to_canonical().into()).collect();
    let rate = plan.names.questions_per_second.saturating_mul(times);
    to_networks(layer, &resolvers)
        .into_iter()
        .map(|condition| {
            let label = raw(PayloadBase::TH, FIRST_LABEL_BITS, 8);
            let longest = Expression::Number(u32::from(plan.names.longest_label));
            with(
                condition,
                [
                    port("udp", "dport", DNS),
                    matches(label, Operator::LEQ, longest),
                    Statement::Limit(Limit {
                        rate,
                        rate_unit: None,
                        per: Some("second".into()),
                        burst: Some(rate),
                        burst_unit: None,
                        inv: None,
                    }),
                    Statement::Accept(None),
                ],
            )
        })
        .collect()
}

/// A workload: nothing but what is exempt; of the loopback all but those who would speak for it.
fn workload(objects: &mut Objects, plan: &Plan) {
    let mut rule = |chain: &'static str, statements, comment| {
        rule_in(objects, Layer::Inet, chain.into(), statements, comment);
    };
    let ported = |numbers: Vec<u16>| {
        let transports = one_of([6, 17].map(Expression::Number).to_vec());
        let ports = numbers.into_iter().map(|port| Expression::Number(u32::from(port))).collect();
        [
            matches(meta(MetaKey::L4proto), Operator::EQ, transports),
            matches(field("th", "dport"), Operator::EQ, one_of(ports)),
        ]
    };
    let drop = || [count(WORKLOAD), Statement::Drop(None)];
    // A resolver that is exempt for the host still is a deputy: names can carry anything out.
    rule(
        WORKLOAD,
        ported(vec![DNS, DNS_TLS]).into_iter().chain(drop()).collect(),
        "a contained workload asks nobody for names",
    );
    for deputy in &plan.deputies {
        for condition in to_networks(Layer::Inet, &[IpNet::from(deputy.ip().to_canonical())]) {
            let rest = ported(vec![deputy.port()]).into_iter().chain(drop());
            rule(WORKLOAD, with(condition, rest), "nor a proxy to speak for it");
        }
    }
    let loopback = matches(meta(MetaKey::Oifname), Operator::EQ, word(LOOPBACK));
    rule(WORKLOAD, vec![loopback.clone(), Statement::Accept(None)], "other loopback");
    for chain in [EXEMPT, SERVICES] {
        rule(WORKLOAD, vec![jump(chain)], "what is exempt");
    }
    rule(WORKLOAD, drop().to_vec(), "contained workloads");
    let other = matches(meta(MetaKey::Oifname), Operator::NEQ, word(LOOPBACK));
    let from = matches(field("tcp", "sport"), Operator::EQ, members(LISTENER));
    rule(
        LISTENING,
        vec![other, handshake(), from, goto(WORKLOAD)],
        "answers to a handshake belong to no cgroup",
    );
}

/// What came in: from a contained sender nothing goes on but what keeps it on the wire and what is exempt.
fn senders(objects: &mut Objects, layer: Layer, plan: &Plan) {
    let mut conditions = vec![
        (meta(MetaKey::Iifname), SENDER_PORT),
        (field("ip", "saddr"), SENDER4),
        (field("ip6", "saddr"), SENDER6),
    ];
    conditions.push((field("ether", "saddr"), SENDER_MAC));
    for (left, set) in conditions {
        let from = matches(left, Operator::EQ, members(set));
        rule_in(objects, layer, SENDERS.into(), vec![from, goto(SENT)], "contained senders");
    }
    let mut rule =
        |statements| rule_in(objects, layer, SENT.into(), statements, "contained senders");
    if layer != Layer::Inet {
        rule(vec![
            matches(meta(MetaKey::Protocol), Operator::EQ, word("arp")),
            Statement::Accept(None),
        ]);
    }
    rule(vec![jump(EXEMPT)]);
    // A frame may come in by a port of its own and leave by another device.
    for statements in names(layer, plan, if layer == Layer::Netdev { 2 } else { 1 }) {
        rule(statements);
    }
    rule(vec![count(SENDERS), Statement::Drop(None)]);
}

fn raw(base: PayloadBase, offset: u32, len: u32) -> Expression<'static> {
    Expression::Named(NamedExpression::Payload(Payload::PayloadRaw(PayloadRaw {
        base,
        offset,
        len,
    })))
}

fn jump(target: &'static str) -> Statement<'static> {
    Statement::Jump(JumpTarget { target: target.into() })
}

fn goto(target: &'static str) -> Statement<'static> {
    Statement::Goto(JumpTarget { target: target.into() })
}
