//! Gates: hooks of the levels that few hosts ever need, each a base chain with one rule, made and removed over netlink.
//!
//! Enters: what the sets shall hold. Leaves: the hooks at which those sets are asked. A host of which no
//! workload, sender or measure is held pays nothing for them. A hook without elements cuts nothing, so that
//! making one is no part of the commit that cuts; and the level of a cgroup, of which `nft -j` (1.0.6) knows no
//! word, is written here by its number.

use super::cell::{BRIDGE, Cell, INET, Kind, NETDEV};
use super::elements::{BATCH, Elements, nft};
use super::expression::{each, one};
use super::skeleton::{
    GATE_PREFIX, LISTENING, MEASURES, SENDER_MAC, SENDERS, SENT, TABLE, WORKLOAD, cgroup_set,
    device_chain,
};
use crate::netlink::{CREATE, NetlinkError, Open, REQUEST, Writer, attribute, text_of, u32_at};
use std::collections::BTreeMap;
use std::fmt;

const NEW_CHAIN: u16 = nft(3);
const GET_CHAIN: u16 = nft(4);
const DELETE_CHAIN: u16 = nft(5);
const NEW_RULE: u16 = nft(6);
const GET_RULE: u16 = nft(7);
const DELETE_RULE: u16 = nft(8);
/// `NFT_GOTO` (linux/netfilter/nf_tables.h; so are the next), and the register of verdicts.
const GOTO: i32 = -4;
const VERDICT: u32 = 0;
/// `NFT_SOCKET_CGROUPV2` and `NFT_REG_1`.
const SOCKET_CGROUP: u32 = 3;
const REGISTER: u32 = 1;
/// `NFT_PAYLOAD_LL_HEADER`.
const LINK_HEADER: u32 = 0;
/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;
/// Before the list of every packet (-300), so that a workload is judged as one.
const PRIORITY_WORKLOAD: i32 = -301;
/// Before connection tracking and every site's filter (`NF_IP_PRI_RAW`, `NF_BR_PRI_NAT_DST_BRIDGED`).
const PRIORITY_SENDERS: i32 = -300;
/// Before every flow table, which takes packets away at priority 0 or above.
const PRIORITY_PORT: i32 = -500;
/// After DNAT, like the cut of destinations.
const PRIORITY_MEASURES: i32 = 90;

/// A hook that can be made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Gate {
    /// Frames that come into a bridge.
    Bridged,
    /// Packets of sockets of this host, asked for their cgroup at this depth.
    Cgroup(u8),
    /// Packets of this host, asked for the port of a contained listener.
    Listening,
    /// Packets that leave, asked for their destination.
    Measuring,
    /// Frames that come in by this device.
    Port(String),
    /// Packets that come in.
    Routed,
    /// Frames that leave by this device, asked for the hardware address they are sent from.
    Sent(String),
}

impl Gate {
    /// The gates at which the set of a cell is asked; none when that happens in a list of every packet.
    pub(super) fn of(cell: &Cell, uplinks: &[String]) -> Vec<Self> {
        match (cell.slot.family, cell.slot.kind) {
            (INET, Kind::Cgroup(level)) => vec![Self::Cgroup(level)],
            (INET, Kind::Listener) => vec![Self::Listening],
            (INET, kind) if kind.is_measure() => vec![Self::Measuring],
            (INET, Kind::Sender4 | Kind::Sender6 | Kind::SenderMac | Kind::SenderPort) => {
                vec![Self::Routed]
            }
            (NETDEV, Kind::SenderMac) => uplinks.iter().cloned().map(Self::Sent).collect(),
            (NETDEV, Kind::SenderPort) => cell.device().map(Self::Port).into_iter().collect(),
            (BRIDGE, _) => vec![Self::Bridged],
            _ => Vec::new(),
        }
    }

    const fn family(&self) -> u8 {
        match self {
            Self::Bridged => BRIDGE,
            Self::Cgroup(_) | Self::Listening | Self::Measuring | Self::Routed => INET,
            Self::Port(_) | Self::Sent(_) => NETDEV,
        }
    }

    /// Number of the hook (`NF_INET_…`, `NF_NETDEV_…`, `NF_BR_PRE_ROUTING`) and its priority.
    const fn place(&self) -> (u32, i32) {
        match self {
            Self::Bridged | Self::Routed => (0, PRIORITY_SENDERS),
            Self::Cgroup(_) | Self::Listening => (3, PRIORITY_WORKLOAD),
            Self::Measuring => (4, PRIORITY_MEASURES),
            Self::Port(_) => (0, PRIORITY_PORT),
            Self::Sent(_) => (1, PRIORITY_WORKLOAD),
        }
    }

    /// The chain in which its packets are judged.
    const fn goal(&self) -> &'static str {
        match self {
            Self::Bridged | Self::Port(_) | Self::Routed => SENDERS,
            Self::Sent(_) => SENT,
            Self::Cgroup(_) => WORKLOAD,
            Self::Listening => LISTENING,
            Self::Measuring => MEASURES,
        }
    }

    fn name(&self) -> String {
        let name = match self {
            Self::Bridged => "bridged".to_owned(),
            Self::Cgroup(level) => format!("cgroup_{level}"),
            Self::Listening => "listening".to_owned(),
            Self::Measuring => "measuring".to_owned(),
            Self::Port(device) => format!("port_{}", device_chain(device)),
            Self::Routed => "routed".to_owned(),
            Self::Sent(device) => format!("sent_{}", device_chain(device)),
        };
        format!("{GATE_PREFIX}{name}")
    }

    /// The hook of a base chain as the kernel shows it.
    fn read(family: u8, chain: &[u8]) -> Option<Self> {
        let name = text_of(attribute(chain, 3)?);
        let found = match (family, name.strip_prefix(GATE_PREFIX)?) {
            (BRIDGE, "bridged") => Self::Bridged,
            (INET, "listening") => Self::Listening,
            (INET, "measuring") => Self::Measuring,
            (INET, "routed") => Self::Routed,
            (INET, other) => Self::Cgroup(other.strip_prefix("cgroup_")?.parse().ok()?),
            (NETDEV, other) if other.starts_with("port_") => {
                Self::Port(device_of(attribute(chain, 4)?)?)
            }
            (NETDEV, other) if other.starts_with("sent_") => {
                Self::Sent(device_of(attribute(chain, 4)?)?)
            }
            _ => return None,
        };
        Some(found)
    }

    fn write(&self, elements: &mut Elements, writer: &mut Writer) -> (Open, u32) {
        let head = [self.family(), 0, 0, 0];
        let message = writer.message(NEW_CHAIN, REQUEST | CREATE, elements.channel.next(), &head);
        // NFTA_CHAIN_TABLE, _NAME, _HOOK {_HOOKNUM, _PRIORITY, _DEV}, _POLICY, _TYPE
        writer.text(1, TABLE);
        writer.text(3, &self.name());
        let hook = writer.nest(4);
        let (number, priority) = self.place();
        writer.attribute(1, &number.to_be_bytes());
        writer.attribute(2, &priority.to_be_bytes());
        if let Self::Port(device) | Self::Sent(device) = self {
            writer.text(3, device);
        }
        writer.end_nest(&hook);
        writer.attribute(5, &ACCEPT.to_be_bytes());
        writer.text(7, "filter");
        writer.end_message(&message);
        let sequence = elements.channel.next();
        let message = writer.message(NEW_RULE, REQUEST | CREATE, sequence, &head);
        // NFTA_RULE_TABLE, _CHAIN, _EXPRESSIONS
        writer.text(1, TABLE);
        writer.text(2, &self.name());
        let list = writer.nest(4);
        if let Self::Cgroup(level) = self {
            one(writer, "socket", |writer| {
                // NFTA_SOCKET_KEY, _DREG, _LEVEL
                writer.attribute(1, &SOCKET_CGROUP.to_be_bytes());
                writer.attribute(2, &REGISTER.to_be_bytes());
                writer.attribute(3, &u32::from(*level).to_be_bytes());
            });
            look(writer, cgroup_set(*level));
        }
        if let Self::Sent(_) = self {
            one(writer, "payload", |writer| {
                // NFTA_PAYLOAD_DREG, _BASE, _OFFSET, _LEN
                writer.attribute(1, &REGISTER.to_be_bytes());
                writer.attribute(2, &LINK_HEADER.to_be_bytes());
                writer.attribute(3, &6_u32.to_be_bytes());
                writer.attribute(4, &6_u32.to_be_bytes());
            });
            look(writer, SENDER_MAC);
        }
        one(writer, "immediate", |writer| {
            // NFTA_IMMEDIATE_DREG, _DATA {NFTA_DATA_VERDICT {_CODE, _CHAIN}}
            writer.attribute(1, &VERDICT.to_be_bytes());
            let data = writer.nest(2);
            let verdict = writer.nest(2);
            writer.attribute(1, &GOTO.to_be_bytes());
            writer.text(2, self.goal());
            writer.end_nest(&verdict);
            writer.end_nest(&data);
        });
        writer.end_nest(&list);
        writer.end_message(&message);
        (message, sequence)
    }

    /// Whether a rule of the kernel's is the one of this hook.
    fn is_rule(&self, rule: &[u8]) -> bool {
        let list = attribute(rule, 4).unwrap_or_default();
        let mut names = Vec::new();
        let mut goal = None;
        let mut level = None;
        for (name, data) in each(list) {
            match name.as_str() {
                "immediate" => {
                    let verdict = attribute(data, 2).and_then(|data| attribute(data, 2));
                    goal = verdict.and_then(|verdict| attribute(verdict, 2)).map(text_of);
                }
                "socket" => level = attribute(data, 3).and_then(|value| value.last().copied()),
                _ => {}
            }
            names.push(name);
        }
        let expected: &[&str] = match self {
            Self::Cgroup(wanted) if level == Some(*wanted) => &["socket", "lookup", "immediate"],
            Self::Cgroup(_) => return false,
            Self::Sent(_) => &["payload", "lookup", "immediate"],
            _ => &["immediate"],
        };
        names == expected && goal.as_deref() == Some(self.goal())
    }
}

/// Goes on with what a set of our table holds.
fn look(writer: &mut Writer, set: &str) {
    one(writer, "lookup", |writer| {
        // NFTA_LOOKUP_SET, _SREG
        writer.text(1, set);
        writer.attribute(2, &REGISTER.to_be_bytes());
    });
}

/// The device of a chain's hook: one alone, or the first of several.
fn device_of(hook: &[u8]) -> Option<String> {
    // NFTA_HOOK_DEV, NFTA_HOOK_DEVS {NFTA_DEVICE_NAME}
    attribute(hook, 3)
        .or_else(|| attribute(hook, 4).and_then(|devices| attribute(devices, 1)))
        .map(text_of)
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// Whether a device of this name is here.
pub(super) fn is_device(name: &str) -> bool {
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};
    socket(AddressFamily::INET, SocketType::DGRAM, None)
        .is_ok_and(|socket| netdevice::name_to_index(&socket, name).is_ok())
}

impl Elements {
    /// Makes a hook that is not there; it cuts nothing until a set of its chain holds an element.
    pub(super) fn add_gate(&mut self, hook: &Gate) -> Result<(), NetlinkError> {
        let mut writer = Writer::default();
        let first = self.begin_gate(&mut writer);
        let (message, sequence) = hook.write(self, &mut writer);
        self.finish_gate(writer, &message, first, sequence)
    }

    /// Removes a hook.
    pub(super) fn remove_gate(&mut self, hook: &Gate) -> Result<(), NetlinkError> {
        let mut writer = Writer::default();
        let first = self.begin_gate(&mut writer);
        let head = [hook.family(), 0, 0, 0];
        // NFTA_RULE_TABLE, _CHAIN; then NFTA_CHAIN_TABLE, _NAME
        let message = writer.message(DELETE_RULE, REQUEST, self.channel.next(), &head);
        writer.text(1, TABLE);
        writer.text(2, &hook.name());
        writer.end_message(&message);
        let sequence = self.channel.next();
        let message = writer.message(DELETE_CHAIN, REQUEST, sequence, &head);
        writer.text(1, TABLE);
        writer.text(3, &hook.name());
        writer.end_message(&message);
        self.finish_gate(writer, &message, first, sequence)
    }

    /// The hooks that are there, and whether each is as it was made.
    pub(super) fn read_gates(&mut self) -> Result<BTreeMap<Gate, bool>, NetlinkError> {
        let mut all = BTreeMap::new();
        for family in [INET, NETDEV, BRIDGE] {
            let head = [family, 0, 0, 0];
            let ours = |body: &[u8]| attribute(body, 1).map(text_of).as_deref() == Some(TABLE);
            let chains =
                self.channel.dump(GET_CHAIN, &head, |found: &mut Vec<(Gate, bool)>, answer| {
                    let body = answer.body.get(4..).unwrap_or_default();
                    if let Some(hook) = Gate::read(family, body).filter(|_| ours(body)) {
                        let placed = attribute(body, 4).is_some_and(|place| {
                            let number = |kind| attribute(place, kind).and_then(|v| u32_at(v, 0));
                            let (number_is, priority) = hook.place();
                            number(1) == Some(number_is.to_be())
                                && number(2) == Some(priority.cast_unsigned().to_be())
                        });
                        found.push((hook, placed));
                    }
                });
            let chains = match chains {
                Ok(chains) => chains,
                // A kernel without the family of bridges has no hook of it.
                Err(_) if family == BRIDGE => continue,
                Err(error) => return Err(error),
            };
            if chains.is_empty() {
                continue;
            }
            let rules: Vec<(String, Vec<u8>)> = self.channel.dump(
                GET_RULE,
                &head,
                |found: &mut Vec<(String, Vec<u8>)>, answer| {
                    let body = answer.body.get(4..).unwrap_or_default();
                    let chain = attribute(body, 2).map(text_of).unwrap_or_default();
                    if ours(body) && chain.starts_with(GATE_PREFIX) {
                        found.push((chain, body.to_vec()));
                    }
                },
            )?;
            for (gate, placed) in chains {
                let name = gate.name();
                let mut own = rules.iter().filter(|(chain, _)| *chain == name);
                let intact = placed
                    && own.next().is_some_and(|(_, rule)| gate.is_rule(rule))
                    && own.next().is_none();
                all.insert(gate, intact);
            }
        }
        Ok(all)
    }

    fn begin_gate(&mut self, writer: &mut Writer) -> u32 {
        let first = self.channel.next();
        let begin = writer.message(BATCH[0], REQUEST, first, &[0, 0, 0, 10]);
        writer.end_message(&begin);
        first
    }

    fn finish_gate(
        &mut self,
        mut writer: Writer,
        message: &Open,
        first: u32,
        sequence: u32,
    ) -> Result<(), NetlinkError> {
        writer.ask(message);
        let after = self.channel.next();
        let end = writer.message(BATCH[1], REQUEST, after, &[0, 0, 0, 10]);
        writer.end_message(&end);
        self.channel.transact(writer.as_bytes(), first, sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gate_has_a_name_of_its_own() {
        let gates = [
            Gate::Bridged,
            Gate::Cgroup(2),
            Gate::Listening,
            Gate::Measuring,
            Gate::Port("a-b".to_owned()),
            Gate::Port("a_b".to_owned()),
            Gate::Routed,
            Gate::Sent("a-b".to_owned()),
        ];
        let names: std::collections::BTreeSet<_> = gates.iter().map(Gate::name).collect();
        assert_eq!(names.len(), gates.len());
        assert!(names.iter().all(|name| name.starts_with(GATE_PREFIX)));
    }
}
