//! Terms of nftables' own language, as values of the crate.

use super::Statements;
use ipnet::IpNet;
use nftables::expr::{
    BinaryOperation, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadBase,
    PayloadField, PayloadRaw, Prefix, SetItem,
};
use nftables::stmt::{Counter, Match, Operator, Statement};
use sekisho_schema::Transport;

pub(super) fn network_expression(network: &IpNet) -> Expression<'static> {
    let address = Expression::String(network.addr().to_string().into());
    if network.prefix_len() == network.max_prefix_len() {
        return address;
    }
    Expression::Named(NamedExpression::Prefix(Prefix {
        addr: Box::new(address),
        len: u32::from(network.prefix_len()),
    }))
}

pub(super) fn with(
    condition: Statement<'static>,
    rest: impl IntoIterator<Item = Statement<'static>>,
) -> Statements {
    std::iter::once(condition).chain(rest).collect()
}

pub(super) fn matches(
    left: Expression<'static>,
    op: Operator,
    right: Expression<'static>,
) -> Statement<'static> {
    Statement::Match(Match { left, right, op })
}

pub(super) fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

pub(super) fn field(protocol: &'static str, field: &'static str) -> Expression<'static> {
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(PayloadField {
        protocol: protocol.into(),
        field: field.into(),
    })))
}

/// The ethertype on the wire, by offset: nft's `ether type` adds a test of the input device, which egress has none of.
pub(super) fn ethertype() -> Expression<'static> {
    Expression::Named(NamedExpression::Payload(Payload::PayloadRaw(PayloadRaw {
        base: PayloadBase::LL,
        offset: 96,
        len: 16,
    })))
}

pub(super) fn word(text: &'static str) -> Expression<'static> {
    Expression::String(text.into())
}

pub(super) fn members(set: &str) -> Expression<'static> {
    Expression::String(format!("@{set}").into())
}

pub(super) fn one_of(items: Vec<Expression<'static>>) -> Expression<'static> {
    Expression::Named(NamedExpression::Set(items.into_iter().map(SetItem::Element).collect()))
}

pub(super) fn count(counter: &'static str) -> Statement<'static> {
    Statement::Counter(Counter::Named(counter.into()))
}

pub(super) fn port(protocol: &'static str, end: &'static str, number: u16) -> Statement<'static> {
    matches(field(protocol, end), Operator::EQ, Expression::Number(u32::from(number)))
}

pub(super) fn of_transport(transport: Transport) -> Statement<'static> {
    matches(meta(MetaKey::L4proto), Operator::EQ, Expression::Number(u32::from(transport.number())))
}

pub(super) const fn transport_name(transport: Transport) -> &'static str {
    // Policies name ports for TCP and UDP only.
    if matches!(transport, Transport::Udp) { "udp" } else { "tcp" }
}

/// Anything but a SYN without ACK: answers pass, opening a connection does not.
pub(super) fn not_opening() -> Statement<'static> {
    let flags = BinaryOperation::AND(
        field("tcp", "flags"),
        Expression::BinaryOperation(Box::new(BinaryOperation::OR(vec![word("syn"), word("ack")]))),
    );
    matches(Expression::BinaryOperation(Box::new(flags)), Operator::NEQ, word("syn"))
}

/// An answer to a handshake: SYN and ACK together.
pub(super) fn handshake() -> Statement<'static> {
    let both = || {
        Expression::BinaryOperation(Box::new(BinaryOperation::OR(vec![word("syn"), word("ack")])))
    };
    let flags = BinaryOperation::AND(field("tcp", "flags"), both());
    matches(Expression::BinaryOperation(Box::new(flags)), Operator::EQ, both())
}

/// A refusal: RST, whatever else.
pub(super) fn refusal() -> Statement<'static> {
    let flags = BinaryOperation::AND(field("tcp", "flags"), word("rst"));
    matches(Expression::BinaryOperation(Box::new(flags)), Operator::EQ, word("rst"))
}

pub(super) fn text(text: String) -> Expression<'static> {
    Expression::String(text.into())
}
