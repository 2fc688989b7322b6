//! What stands before the list: looks that tell whether a packet may be cut at all, and destinations that are
//! cut before any packet of theirs was seen, with a chain that tells and drops.

use super::exempt::collector;
use super::layer::Layer;
use super::terms::{count, field, matches, members, meta, one_of};
use super::{
    ARMED_HOST, ARMED_HOST_DEVICE, ARMED_MANAGEMENT, ARMED_MANAGEMENT_DEVICE, BY_PORT, CUT_DEST4,
    CUT_DEST6, EGRESS, KNOWN, KNOWN4, KNOWN4_PORT, KNOWN6, KNOWN6_PORT, LIST, Objects, POSTROUTING,
    STRICT_DEVICE, rule_in,
};
use crate::enforce::Plan;
use nftables::expr::{Expression, MetaKey, NamedExpression};
use nftables::schema::{SetType, SetTypeValue};
use nftables::stmt::{JumpTarget, Limit, Log, Operator, Statement};
use std::borrow::Cow;

/// Group of the kernel's packet log (NFLOG) to which the first bytes of such packets go.
pub const LOG_GROUP: u16 = 20_015;
/// Packets of them that are logged within a second, and at once: a flood must not become a flood of records.
const LOGGED_A_SECOND: u32 = 100;
const LOGGED_AT_ONCE: u32 = 200;
/// Bytes of each that are logged: headers and the beginning of what it says.
const LOGGED_BYTES: u32 = 1_500;
/// Seconds between two walks of the kernel over a set of known destinations: over a million elements the
/// default of one second would cost a tenth of a core. What has ended counts as gone before it is collected.
pub(super) const COLLECT_SECS: u32 = 1_800;

/// The sets of known destinations that a layer has.
pub(super) fn sets(layer: Layer) -> Vec<(&'static str, SetTypeValue<'static>)> {
    let both = |by_address, by_port, kind: fn() -> SetType| {
        let with_port = Cow::Owned(vec![kind(), SetType::InetService]);
        vec![
            (by_address, SetTypeValue::Single(kind())),
            (by_port, SetTypeValue::Concatenated(with_port)),
        ]
    };
    match layer {
        Layer::Known4 => both(KNOWN4, KNOWN4_PORT, || SetType::Ipv4Addr),
        Layer::Known6 => both(KNOWN6, KNOWN6_PORT, || SetType::Ipv6Addr),
        _ => Vec::new(),
    }
}

/// Fills the chain and the rule that jumps to it.
///
/// It stands in `postrouting` alone, which every packet passes with the address that it really goes to: a look
/// into a large set at each hook would cost forwarding twice. The chain asks the list of exemptions first, so
/// that what is logged here is exempt from nothing and not inside.
pub(super) fn fill(objects: &mut Objects, layer: Layer, plan: &Plan) {
    let (ip, by_address, by_port) = match layer {
        Layer::Known4 => ("ip", KNOWN4, KNOWN4_PORT),
        Layer::Known6 => ("ip6", KNOWN6, KNOWN6_PORT),
        _ => return,
    };
    for statements in [
        // What is exempt or inside is accepted there, and the rest comes back.
        vec![Statement::Jump(JumpTarget { target: LIST.into() })],
        vec![
            Statement::Limit(Limit {
                rate: LOGGED_A_SECOND,
                rate_unit: None,
                per: Some("second".into()),
                burst: Some(LOGGED_AT_ONCE),
                burst_unit: None,
                inv: None,
            }),
            Statement::Log(Some(Log {
                prefix: None,
                group: Some(u32::from(LOG_GROUP)),
                snaplen: Some(LOGGED_BYTES),
                queue_threshold: Some(1),
                level: None,
                flags: None,
            })),
        ],
        vec![count(KNOWN), Statement::Drop(None)],
    ] {
        rule_in(objects, layer, KNOWN.into(), statements, "told, and dropped");
    }
    if !plan.known {
        return;
    }
    let jump = || Statement::Jump(JumpTarget { target: KNOWN.into() });
    let known = matches(field(ip, "daddr"), Operator::EQ, members(by_address));
    let comment = "destinations known beforehand";
    rule_in(objects, layer, POSTROUTING.into(), vec![known, jump()], comment);
    // TCP, UDP, SCTP: the protocols with ports at one place.
    let ported = one_of([6, 17, 132].map(Expression::Number).to_vec());
    let end = vec![field(ip, "daddr"), field("th", "dport")];
    let end = Expression::Named(NamedExpression::Concat(end));
    let ported = matches(meta(MetaKey::L4proto), Operator::EQ, ported);
    let known = matches(end, Operator::EQ, members(by_port));
    let comment = "destinations known beforehand, by port";
    rule_in(objects, layer, BY_PORT.into(), vec![ported, known, jump()], comment);
}

/// Only what a cut may be for is judged by the list: a host that cuts nothing pays for these looks alone,
/// where the whole list cost each packet 0.7 µs at every hook.
pub(super) fn gates(objects: &mut Objects, layer: Layer, plan: &Plan) {
    if layer == Layer::Inet {
        // Counted whatever is cut: a proof asks whether it passes even when it does not answer.
        for endpoint in &plan.collector {
            collector(objects, layer, EGRESS, *endpoint);
        }
    }
    let conditions = match layer {
        Layer::Netdev => {
            // Every cut makes its devices strict in the same commit, and for as long.
            vec![matches(meta(MetaKey::Oifname), Operator::EQ, members(STRICT_DEVICE))]
        }
        _ => vec![
            matches(field("ip", "daddr"), Operator::EQ, members(CUT_DEST4)),
            matches(field("ip6", "daddr"), Operator::EQ, members(CUT_DEST6)),
            layer.armed(ARMED_MANAGEMENT, ARMED_MANAGEMENT_DEVICE),
            layer.armed(ARMED_HOST, ARMED_HOST_DEVICE),
        ],
    };
    for condition in conditions {
        let to_list = Statement::Goto(JumpTarget { target: LIST.into() });
        rule_in(objects, layer, EGRESS.into(), vec![condition, to_list], "what a cut may be for");
    }
}
