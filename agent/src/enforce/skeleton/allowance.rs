//! How much may go to each outside destination, kept by the kernel alone: tables of their own, which never rest
//! while the plan names an allowance, so that the bound holds with nobody running.
//!
//! Counted is what leaves this host or passes it to the outside, whoever sends, up to the number of bytes; a packet
//! beyond it is dropped unless it is exempt. An answer of an exempt service is not counted, a handshake or a
//! refusal (SYN with ACK, RST) neither, for strangers could fill the set with them; every other answer is.

use super::exempt::{service, with_verdict};
use super::layer::Layer;
use super::terms::{count, field, handshake, matches, members, meta, refusal, word};
use super::{
    ALLOWANCE_TABLE, COLLECTOR, EXEMPT, LOOPBACK, Objects, SERVICES, Statements, add, base_chain,
    chain, counter, device_chain, refill, rule_in, spared, table, to_networks, window_seconds,
};
use crate::enforce::plan::{KernelAllowance, Plan};
use ipnet::IpNet;
use nftables::expr::{Elem, Expression, MetaKey, NamedExpression};
use nftables::schema::{NfListObject, Set, SetFlag, SetType, SetTypeValue};
use nftables::stmt::{
    JumpTarget, Operator, Quota, QuotaOrQuotaRef, Set as Update, SetOp, Statement,
};
use nftables::types::NfHook;
use sekisho_schema::policy::Exemption;
use std::collections::HashSet;

/// Sets of outside destinations and what went to each; and the counters of what was dropped.
pub(in crate::enforce) const SPENT4: &str = "spent4";
pub(in crate::enforce) const SPENT6: &str = "spent6";
/// Set of few elements: what went to all destinations for which the sets had no room.
pub(in crate::enforce) const SPENT_REST: &str = "spent_rest";
/// Counter of what was dropped beyond an allowance.
pub(in crate::enforce) const SPENT: &str = "spent";
/// Destinations that are counted one by one, of each address family; all others share one allowance.
pub const ALLOWANCE_DESTINATIONS: u32 = 32_768;
/// Chain that counts, and chain of what is beyond.
const SPEND: &str = "spend";
const BEYOND: &str = "beyond";
/// After the containments, which may have dropped it, and before source NAT.
const PRIORITY: i32 = 92;
/// After the containments' hook of a device.
const PRIORITY_DEVICE: i32 = -299;

/// The tables of the allowance as the plan wants them.
pub(super) fn fill(objects: &mut Objects, layer: Layer, plan: &Plan) {
    // Tables that are there without an allowance are removed before (`allowance.rs` of this module's parent).
    let Some(allowance) = &plan.allowance else { return };
    add(objects, table(layer));
    let window = window_seconds(allowance.window);
    let frames = layer.of_frames();
    // What all share is counted by family among packets, by device among frames.
    let rest = || meta(if frames { MetaKey::Oifname } else { MetaKey::Nfproto });
    for (name, kind, size) in [
        (SPENT4, SetType::Ipv4Addr, ALLOWANCE_DESTINATIONS),
        (SPENT6, SetType::Ipv6Addr, ALLOWANCE_DESTINATIONS),
        (SPENT_REST, if frames { SetType::Ifname } else { SetType::InetProto }, 64),
    ] {
        add(objects, spent_set(layer, name, kind, size, window));
    }
    for name in [SPENT, COLLECTOR] {
        counter(objects, layer, name);
    }
    for name in [EXEMPT, SERVICES, SPEND, BEYOND] {
        refill(objects, chain(layer, name));
    }
    let bases = if layer == Layer::Allowance {
        vec![base_chain(layer, "postrouting".to_owned(), NfHook::Postrouting, PRIORITY, None)]
    } else {
        let uplinks = plan.uplinks.iter();
        uplinks
            .map(|device| {
                let name = format!("spend_{}", device_chain(device));
                base_chain(layer, name, NfHook::Egress, PRIORITY_DEVICE, Some(device.clone()))
            })
            .collect()
    };
    for base in bases {
        let name = base.name.clone();
        refill(objects, base);
        rule_in(objects, layer, name, vec![jump(SPEND)], "what goes outside");
    }
    spared(objects, layer, plan);
    let mut rule = |chain: &'static str, statements, comment| {
        rule_in(objects, layer, chain.into(), statements, comment);
    };
    for statements in free(layer, plan, allowance) {
        rule(SPEND, statements, "costs nothing");
    }
    let beyond = || Statement::Goto(JumpTarget { target: BEYOND.into() });
    for (ip, set) in [("ip", SPENT4), ("ip6", SPENT6)] {
        let to = || field(ip, "daddr");
        let spend = vec![update(set, to(), window), quota(allowance.bytes), beyond()];
        rule(SPEND, spend, "an allowance for each destination");
        // A negated look runs no quota: what is counted above is not counted twice.
        let shared = vec![
            matches(to(), Operator::NEQ, members(set)),
            update(SPENT_REST, rest(), window),
            quota(allowance.bytes),
            beyond(),
        ];
        rule(SPEND, shared, "one for all for which there is no room");
    }
    rule(BEYOND, vec![jump(EXEMPT)], "what is exempt");
    rule(BEYOND, vec![count(SPENT), Statement::Drop(None)], "beyond the allowance");
}

/// What is not counted.
fn free(layer: Layer, plan: &Plan, allowance: &KernelAllowance) -> Vec<Statements> {
    let pass = Statement::Return(None);
    let mut rules = Vec::new();
    if layer == Layer::Allowance {
        let loopback = matches(meta(MetaKey::Oifname), Operator::EQ, word(LOOPBACK));
        rules.push(vec![loopback, pass.clone()]);
    }
    let mut networks: Vec<IpNet> = plan.inside.clone();
    networks.extend(&allowance.approved);
    networks.extend(plan.collector.iter().map(|end| IpNet::from(end.ip().to_canonical())));
    networks.extend(plan.exempt.iter().filter_map(|exemption| match exemption {
        Exemption::Peer { to, transport: None, .. } => Some(*to),
        // One port alone is exempt: counted with the rest, and never dropped.
        Exemption::Peer { .. } | Exemption::Service { .. } => None,
    }));
    for condition in to_networks(layer, &networks) {
        rules.push(vec![condition, pass.clone()]);
    }
    for exemption in &plan.exempt {
        let answers = service(layer, exemption).into_iter();
        rules.extend(answers.map(|statements| with_verdict(statements, pass.clone())));
    }
    rules.push(vec![handshake(), pass.clone()]);
    rules.push(vec![refusal(), pass]);
    rules
}

fn update(set: &'static str, key: Expression<'static>, window: u32) -> Statement<'static> {
    let elem = Elem { val: Box::new(key), timeout: Some(window), ..Elem::default() };
    Statement::Set(Update {
        op: SetOp::Add,
        elem: Expression::Named(NamedExpression::Elem(elem)),
        set: format!("@{set}").into(),
    })
}

/// The quota of an update's elements: the crate's `Set` (0.6.3) has no place for it, so that it follows as a
/// statement of its own and is moved where the ruleset becomes JSON.
fn quota(bytes: u64) -> Statement<'static> {
    // Rounded down to what the crate's number holds.
    let (val, unit) = match u32::try_from(bytes) {
        Ok(bytes) => (bytes, "bytes"),
        Err(_) => (u32::try_from(bytes >> 20).unwrap_or(u32::MAX), "mbytes"),
    };
    Statement::Quota(QuotaOrQuotaRef::Quota(Quota {
        val,
        val_unit: unit.into(),
        used: None,
        used_unit: None,
        inv: Some(true),
    }))
}

fn spent_set(
    layer: Layer,
    name: &'static str,
    kind: SetType,
    size: u32,
    window: u32,
) -> NfListObject<'static> {
    NfListObject::Set(Box::new(Set {
        family: layer.family(),
        table: ALLOWANCE_TABLE.into(),
        name: name.into(),
        handle: None,
        set_type: SetTypeValue::Single(kind),
        policy: None,
        flags: Some(HashSet::from([SetFlag::Timeout])),
        elem: None,
        timeout: Some(window),
        gc_interval: None,
        size: Some(size),
        comment: None,
    }))
}

fn jump(target: &'static str) -> Statement<'static> {
    Statement::Jump(JumpTarget { target: target.into() })
}

/// Moves the quota that follows an update into it.
pub(super) fn nest_quota(rule: &mut serde_json::Value) {
    let Some(statements) = rule.as_array_mut() else { return };
    let Some(at) = statements.iter().position(|statement| statement.get("set").is_some()) else {
        return;
    };
    if statements.get(at + 1).is_none_or(|next| next.get("quota").is_none()) {
        return;
    }
    let quota = statements.remove(at + 1);
    if let Some(update) = statements.get_mut(at).and_then(|statement| statement.pointer_mut("/set"))
        && let Some(fields) = update.as_object_mut()
    {
        fields.insert("stmt".to_owned(), serde_json::Value::Array(vec![quota]));
    }
}
