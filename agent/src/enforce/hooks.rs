//! Hooks of the lists of containments: there while something is held, so that otherwise no packet meets them.
//!
//! A hook that lets everything pass costs a packet 50 to 110 ns, one lookup in an empty set 80 more. So the base
//! chains go when the sets are empty, and the commit that holds something again brings them back, in itself.

use super::elements::{BATCH, Elements, GET_ELEMENT, INET, NETDEV, nft};
use super::skeleton::{BY_PORT, DEVICE_PREFIX, OUTPUT, PORTS, POSTROUTING, PRIORITY_KNOWN, TABLE};
use crate::netlink::{
    ACK, CREATE, Channel, NetlinkError, REQUEST, Writer, attribute, attributes, text_of,
};

const NEW_CHAIN: u16 = nft(3);
pub(super) const GET_CHAIN: u16 = nft(4);
const DELETE_CHAIN: u16 = nft(5);
const NEW_RULE: u16 = nft(6);
pub(super) const GET_RULE: u16 = nft(7);
const DELETE_RULE: u16 = nft(8);
const GET_GENERATION: u16 = nft(16);
/// The rule comes last (`NLM_F_APPEND`, linux/netlink.h).
const APPEND: u16 = 0x800;
/// `ERESTART`: the ruleset changed since the generation that a batch names.
const CHANGED_MEANWHILE: i32 = 85;
/// `NFTA_CHAIN_NAME`, `_HOOK`, `_POLICY`, `_TYPE` (linux/netfilter/nf_tables.h); so are the next.
const CHAIN_PARTS: [u16; 4] = [3, 4, 5, 7];
/// `NFTA_RULE_CHAIN`, `_EXPRESSIONS`, `_USERDATA`.
const RULE_PARTS: [u16; 3] = [2, 4, 7];
/// `NFTA_CHAIN_HOOK`, which base chains have.
const CHAIN_HOOK: u16 = 4;

/// `NFPROTO_UNSPEC` (linux/netfilter.h).
pub(super) const ANY_FAMILY: u8 = 0;

type Parts = Vec<(u16, Vec<u8>)>;

/// One base chain as the kernel told it, to be written again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Hook {
    family: u8,
    name: Vec<u8>,
    chain: Parts,
    rules: Vec<Parts>,
}

/// What a commit that holds something has to do about the hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Posture {
    /// They were there at this generation of the ruleset; the commit is void when it has changed.
    Hooked([u8; 4]),
    /// They were not there at this generation: the commit writes them.
    Unhooked([u8; 4]),
}

impl Hook {
    pub(super) const fn is_of(&self, family: u8) -> bool {
        self.family == family
    }

    pub(super) fn is_named(&self, chain: &[u8]) -> bool {
        self.name == chain
    }
}

/// Whether a base chain is one that jumps to the lists; those of single levels come and go on their own (`gates.rs`).
fn is_list_hook(name: &str) -> bool {
    name == OUTPUT || name == POSTROUTING || name.starts_with(DEVICE_PREFIX)
}

fn parts(body: &[u8], kinds: &[u16]) -> Parts {
    kinds.iter().filter_map(|kind| Some((*kind, attribute(body, *kind)?.to_vec()))).collect()
}

impl Elements {
    /// Base chains of the tables of containments that the kernel has, with their rules.
    pub(super) fn read_hooks(&mut self) -> Result<Vec<Hook>, NetlinkError> {
        let mut hooks: Vec<Hook> = Vec::new();
        for family in [INET, NETDEV] {
            let of_table = |body: &[u8]| attribute(body, 1).map(text_of).as_deref() == Some(TABLE);
            let found = self.channel.dump(
                GET_CHAIN,
                &[family, 0, 0, 0],
                |found: &mut Vec<Hook>, answer| {
                    let body = answer.body.get(4..).unwrap_or_default();
                    if let Some(name) = attribute(body, 3)
                        && of_table(body)
                        && attribute(body, CHAIN_HOOK).is_some()
                        && is_list_hook(&text_of(name))
                    {
                        let chain = parts(body, &CHAIN_PARTS);
                        found.push(Hook { family, name: name.to_vec(), chain, rules: Vec::new() });
                    }
                },
            )?;
            let rules = self.channel.dump(
                GET_RULE,
                &[family, 0, 0, 0],
                |rules: &mut Vec<(Vec<u8>, Parts)>, answer| {
                    let body = answer.body.get(4..).unwrap_or_default();
                    if let Some(chain) = attribute(body, 2)
                        && of_table(body)
                    {
                        rules.push((chain.to_vec(), parts(body, &RULE_PARTS)));
                    }
                },
            )?;
            for mut hook in found {
                let own = rules.iter().filter(|(chain, _)| *chain == hook.name);
                hook.rules = own.map(|(_, rule)| rule.clone()).collect();
                hooks.push(hook);
            }
        }
        Ok(hooks)
    }

    /// Takes the hooks that a load has just made as those to bring back.
    pub(super) fn learn_hooks(&mut self) -> Result<(), NetlinkError> {
        self.hooks = self.read_hooks()?;
        Ok(())
    }

    /// Whether no hook of the tables of containments is there: what is held cuts nothing.
    pub(super) fn is_unhooked(&mut self) -> Result<bool, NetlinkError> {
        Ok(self.read_hooks()?.is_empty())
    }

    /// Looks for the first hook, in the time of two small questions.
    pub(super) fn posture(&mut self) -> Result<Posture, NetlinkError> {
        let generation = generation(&mut self.channel)?;
        if self.hooks.is_empty() {
            self.learn_hooks()?;
        }
        let Some(Hook { family, name, .. }) = self.hooks.first() else {
            // Nothing was loaded by this hand, and what is held now would be judged by no packet.
            let text = "the lists have no hooks; load the ruleset first".to_owned();
            let source = std::io::ErrorKind::NotFound.into();
            return Err(NetlinkError::Refused { source, text });
        };
        let mut body = Writer::default();
        body.text(1, TABLE);
        body.attribute(3, name);
        let head = [&[*family, 0, 0, 0], body.as_bytes()].concat();
        match self.channel.ask(GET_CHAIN, &head, |(): &mut (), _| {}) {
            Ok(()) => Ok(Posture::Hooked(generation)),
            Err(error) if error.is_absent() => Ok(Posture::Unhooked(generation)),
            Err(error) => Err(error),
        }
    }

    /// Writes the hooks of a family, there or not: the chain, without any rule, with its own.
    pub(super) fn write_hooks(&mut self, family: u8) {
        for hook in self.hooks.iter().filter(|hook| family == ANY_FAMILY || hook.family == family) {
            let head = [hook.family, 0, 0, 0];
            let writer = &mut self.writer;
            let message = writer.message(NEW_CHAIN, REQUEST | CREATE, self.channel.next(), &head);
            writer.text(1, TABLE);
            hook.chain.iter().for_each(|(kind, value)| writer.attribute(*kind, value));
            writer.end_message(&message);
            let message = writer.message(DELETE_RULE, REQUEST, self.channel.next(), &head);
            writer.text(1, TABLE);
            writer.attribute(2, &hook.name);
            writer.end_message(&message);
            for rule in &hook.rules {
                let flags = REQUEST | CREATE | APPEND;
                let message = writer.message(NEW_RULE, flags, self.channel.next(), &head);
                writer.text(1, TABLE);
                rule.iter().for_each(|(kind, value)| writer.attribute(*kind, value));
                writer.end_message(&message);
            }
        }
    }

    /// Takes the hooks away when the sets of containments are empty.
    ///
    /// Another hand may cut at the same moment: the kernel refuses this when anything changed since it was looked at.
    pub(crate) fn rest(&mut self) -> Result<(), NetlinkError> {
        let generation = generation(&mut self.channel)?;
        let hooks = self.read_hooks()?;
        if hooks.is_empty() || !self.read()?.is_empty() {
            return Ok(());
        }
        self.writer.clear();
        let first = self.channel.next();
        let begin = self.begin_batch(first, Some(generation));
        self.writer.end_message(&begin);
        let mut last = None;
        for hook in &hooks {
            let sequence = self.channel.next();
            let head = [hook.family, 0, 0, 0];
            let message = self.writer.message(DELETE_CHAIN, REQUEST, sequence, &head);
            self.writer.text(1, TABLE);
            self.writer.attribute(3, &hook.name);
            self.writer.end_message(&message);
            last = Some((message, sequence));
        }
        let Some((open, sequence)) = last else { return Ok(()) };
        self.writer.ask(&open);
        let after = self.channel.next();
        let end = self.writer.message(BATCH[1], REQUEST, after, &[0, 0, 0, 10]);
        self.writer.end_message(&end);
        match self.channel.transact(self.writer.as_bytes(), first, sequence) {
            Err(error) if changed_meanwhile(&error) => Ok(()),
            result => result,
        }
    }

    /// Begins a batch, which is void when the ruleset is not of this generation any more.
    pub(super) fn begin_batch(
        &mut self,
        first: u32,
        generation: Option<[u8; 4]>,
    ) -> crate::netlink::Open {
        // nfgenmsg: family, version 0, resource id in network order: the subsystem.
        let begin = self.writer.message(BATCH[0], REQUEST, first, &[0, 0, 0, 10]);
        if let Some(generation) = generation {
            // NFNL_BATCH_GENID
            self.writer.attribute(1, &generation);
        }
        begin
    }
}

/// The generation of the ruleset, whoever changed it.
fn generation(channel: &mut Channel) -> Result<[u8; 4], NetlinkError> {
    let found: Option<[u8; 4]> = channel.ask(GET_GENERATION, &[0, 0, 0, 0], |found, answer| {
        // NFTA_GEN_ID
        let id = answer.body.get(4..).and_then(|body| attribute(body, 1));
        *found = id.and_then(|id| id.try_into().ok()).or(*found);
    })?;
    found.ok_or(NetlinkError::Malformed)
}

/// Takes the base chain of known ports away when their set is empty at one and the same generation.
pub(super) fn rest_ports(channel: &mut Channel, family: u8, set: &str) -> Result<(), NetlinkError> {
    if !has_ports(channel, family)? {
        return Ok(());
    }
    let now = generation(channel)?;
    let mut body = Writer::default();
    body.text(1, TABLE);
    body.text(2, set);
    let head = [&[family, 0, 0, 0], body.as_bytes()].concat();
    let holds = channel.dump(GET_ELEMENT, &head, |holds: &mut bool, answer| {
        let list = answer.body.get(4..).and_then(|body| attribute(body, 3));
        *holds |= attributes(list.unwrap_or_default()).next().is_some();
    })?;
    if holds {
        return Ok(());
    }
    let mut writer = Writer::default();
    let first = channel.next();
    let begin = writer.message(BATCH[0], REQUEST, first, &[0, 0, 0, 10]);
    // NFNL_BATCH_GENID
    writer.attribute(1, &now);
    writer.end_message(&begin);
    let last = channel.next();
    let message = writer.message(DELETE_CHAIN, REQUEST | ACK, last, &[family, 0, 0, 0]);
    writer.text(1, TABLE);
    writer.text(3, PORTS);
    writer.end_message(&message);
    let end = writer.message(BATCH[1], REQUEST, channel.next(), &[0, 0, 0, 10]);
    writer.end_message(&end);
    match channel.transact(writer.as_bytes(), first, last) {
        Err(error) if changed_meanwhile(&error) => Ok(()),
        result => result,
    }
}

/// Whether a batch was void because the ruleset had changed.
pub(super) fn changed_meanwhile(error: &NetlinkError) -> bool {
    matches!(error, NetlinkError::Refused { source, .. } if source.raw_os_error() == Some(CHANGED_MEANWHILE))
}

/// Writes the base chain that lets packets meet known ports, there or not.
pub(super) fn write_ports(writer: &mut Writer, channel: &mut Channel, family: u8) {
    let head = [family, 0, 0, 0];
    let message = writer.message(NEW_CHAIN, REQUEST | CREATE, channel.next(), &head);
    writer.text(1, TABLE);
    writer.text(3, PORTS);
    let hook = writer.nest(CHAIN_HOOK);
    // NFTA_HOOK_HOOKNUM = NF_INET_POST_ROUTING, NFTA_HOOK_PRIORITY
    writer.attribute(1, &4_u32.to_be_bytes());
    writer.attribute(2, &PRIORITY_KNOWN.to_be_bytes());
    writer.end_nest(&hook);
    // NFTA_CHAIN_POLICY = NF_ACCEPT, NFTA_CHAIN_TYPE
    writer.attribute(5, &1_u32.to_be_bytes());
    writer.text(7, "filter");
    writer.end_message(&message);
    let message = writer.message(DELETE_RULE, REQUEST, channel.next(), &head);
    writer.text(1, TABLE);
    writer.text(2, PORTS);
    writer.end_message(&message);
    let message = writer.message(NEW_RULE, REQUEST | CREATE | APPEND, channel.next(), &head);
    writer.text(1, TABLE);
    writer.text(2, PORTS);
    let expressions = writer.nest(4);
    // NFTA_LIST_ELEM, NFTA_EXPR_NAME, NFTA_EXPR_DATA
    let element = writer.nest(1);
    writer.text(1, "immediate");
    let data = writer.nest(2);
    // NFTA_IMMEDIATE_DREG = NFT_REG_VERDICT, NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT
    writer.attribute(1, &0_u32.to_be_bytes());
    let value = writer.nest(2);
    let verdict = writer.nest(2);
    // NFTA_VERDICT_CODE = NFT_JUMP, NFTA_VERDICT_CHAIN
    writer.attribute(1, &(-3_i32).to_be_bytes());
    writer.text(2, BY_PORT);
    for open in [&verdict, &value, &data, &element, &expressions] {
        writer.end_nest(open);
    }
    writer.end_message(&message);
}

/// Whether packets of a family meet known ports.
pub(super) fn has_ports(channel: &mut Channel, family: u8) -> Result<bool, NetlinkError> {
    let mut body = Writer::default();
    body.text(1, TABLE);
    body.text(3, PORTS);
    let head = [&[family, 0, 0, 0], body.as_bytes()].concat();
    match channel.ask(GET_CHAIN, &head, |(): &mut (), _| {}) {
        Ok(()) => Ok(true),
        Err(error) if error.is_absent() => Ok(false),
        Err(error) => Err(error),
    }
}
