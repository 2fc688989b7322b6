//! The upload allowance that the kernel keeps: read, and begun anew when the policy changes it.

use super::cell::{INET, NETDEV};
use super::elements::BATCH;
use super::elements::{GET_ELEMENT, nft};
use super::expression;
use super::plan::{KernelAllowance, Plan};
use super::skeleton::{ALLOWANCE_TABLE, SPENT_REST, SPENT4, SPENT6};
use super::{Enforcer, span};
use crate::netlink::{NetlinkError, REQUEST, Writer, attribute, attributes, big_endian, text_of};
use sekisho_schema::{Measure, Span};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

const DELETE_TABLE: u16 = nft(2);
const GET_SET: u16 = nft(10);

/// What went to outside destinations within the window of the allowance, as the kernel counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// The destination; `None` for all together for which there was no room of their own.
    pub destination: Option<IpAddr>,
    /// Bytes that the allowance has used up.
    pub bytes: u64,
    /// How many it has.
    pub of: u64,
    /// When the kernel begins to count anew.
    pub until_in: Span,
}

impl Enforcer {
    /// What went to each outside destination, the most first; at most `most` of them. Empty without an allowance.
    ///
    /// # Errors
    /// [`NetlinkError`] when the sets can't be read.
    pub fn spent(&mut self, most: usize) -> Result<Vec<Spent>, NetlinkError> {
        let mut all: BTreeMap<Option<IpAddr>, Spent> = BTreeMap::new();
        for family in [INET, NETDEV] {
            for set in [SPENT4, SPENT6, SPENT_REST] {
                match self.spent_in(family, set) {
                    // A packet passes the hook of packets and that of its device: the larger count is the whole.
                    Ok(found) => found.into_iter().for_each(|spent| {
                        all.entry(spent.destination)
                            .and_modify(|known| {
                                if known.bytes < spent.bytes {
                                    *known = spent;
                                }
                            })
                            .or_insert(spent);
                    }),
                    Err(error) if error.is_absent() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let mut all: Vec<Spent> = all.into_values().collect();
        all.sort_by_key(|spent| std::cmp::Reverse(spent.bytes));
        all.truncate(most);
        Ok(all)
    }

    fn spent_in(&mut self, family: u8, set: &str) -> Result<Vec<Spent>, NetlinkError> {
        let mut body = Writer::default();
        body.text(1, ALLOWANCE_TABLE);
        body.text(2, set);
        let head = [&[family, 0, 0, 0], body.as_bytes()].concat();
        self.elements.channel.dump(GET_ELEMENT, &head, |found: &mut Vec<Spent>, answer| {
            let list = answer.body.get(4..).and_then(|body| attribute(body, 3)).unwrap_or_default();
            found.extend(
                attributes(list).filter_map(|(_, element)| read(element, set != SPENT_REST)),
            );
        })
    }

    /// Lets the count of an allowance that the policy has changed begin anew: its elements would keep the old bound.
    pub(super) fn renew_allowance(&mut self, plan: &Plan) -> Result<(), NetlinkError> {
        for family in [INET, NETDEV] {
            let Some(window) = self.window(family)? else { continue };
            let spent = [SPENT4, SPENT6]
                .map(|set| self.spent_in(family, set).unwrap_or_default().first().copied());
            let same = plan.allowance.as_ref().is_some_and(|allowance| {
                window == window_of(allowance)
                    && spent.iter().flatten().all(|spent| spent.of == whole(allowance.bytes))
            });
            if !same {
                self.remove_allowance(family)?;
            }
        }
        Ok(())
    }

    /// The document without the sets of an allowance that the kernel counts in already: rules fill them, which
    /// nft (1.0.6) tells the kernel only of sets that it makes, and the kernel refuses the same set with other flags.
    pub(super) fn beside_the_counted(
        &mut self,
        mut document: serde_json::Value,
    ) -> Result<serde_json::Value, NetlinkError> {
        for (family, word) in [(INET, "inet"), (NETDEV, "netdev")] {
            if self.window(family)?.is_none() {
                continue;
            }
            let objects = document.get_mut("nftables").and_then(serde_json::Value::as_array_mut);
            let is_counted = |object: &serde_json::Value| {
                object.pointer("/add/set").is_some_and(|set| {
                    set.get("table").is_some_and(|table| table == ALLOWANCE_TABLE)
                        && set.get("family").is_some_and(|family| family == word)
                })
            };
            objects.into_iter().for_each(|objects| objects.retain(|one| !is_counted(one)));
        }
        Ok(document)
    }

    /// Milliseconds after which the kernel counts anew, as its sets were made; `None` without them.
    fn window(&mut self, family: u8) -> Result<Option<u64>, NetlinkError> {
        let mut body = Writer::default();
        body.text(1, ALLOWANCE_TABLE);
        let head = [&[family, 0, 0, 0], body.as_bytes()].concat();
        let found =
            self.elements.channel.dump(GET_SET, &head, |found: &mut Option<u64>, answer| {
                let body = answer.body.get(4..).unwrap_or_default();
                // NFTA_SET_NAME, _TIMEOUT
                let named = attribute(body, 2).map(text_of);
                if attribute(body, 1).map(text_of).as_deref() == Some(ALLOWANCE_TABLE)
                    && named.as_deref() == Some(SPENT4)
                {
                    *found = attribute(body, 11).map(big_endian);
                }
            });
        match found {
            Err(error) if error.is_absent() => Ok(None),
            found => found,
        }
    }

    fn remove_allowance(&mut self, family: u8) -> Result<(), NetlinkError> {
        let channel = &mut self.elements.channel;
        let mut writer = Writer::default();
        let first = channel.next();
        let begin = writer.message(BATCH[0], REQUEST, first, &[0, 0, 0, 10]);
        writer.end_message(&begin);
        let sequence = channel.next();
        let message = writer.message(DELETE_TABLE, REQUEST, sequence, &[family, 0, 0, 0]);
        writer.text(1, ALLOWANCE_TABLE);
        writer.end_message(&message);
        writer.ask(&message);
        let after = channel.next();
        let end = writer.message(BATCH[1], REQUEST, after, &[0, 0, 0, 10]);
        writer.end_message(&end);
        channel.transact(writer.as_bytes(), first, sequence)
    }
}

/// Milliseconds of a window, as the ruleset writes them: whole seconds.
fn window_of(allowance: &KernelAllowance) -> u64 {
    u64::from(super::skeleton::window_seconds(allowance.window)) * 1000
}

/// The bytes of an allowance as the ruleset writes them: beyond 4 GiB in whole mebibytes.
fn whole(bytes: u64) -> u64 {
    if u32::try_from(bytes).is_ok() { bytes } else { bytes >> 20 << 20 }
}

fn read(element: &[u8], of_address: bool) -> Option<Spent> {
    let key = attribute(attribute(element, 1)?, 1)?;
    let (Some(Measure::Quota { bytes: of }), tally) = expression::read(element) else {
        return None;
    };
    let left = attribute(element, 5).map_or(0, big_endian);
    let destination = match key.len() {
        _ if !of_address => None,
        4 => key.first_chunk::<4>().map(|key| Ipv4Addr::from(*key).into()),
        16 => key.first_chunk::<16>().map(|key| Ipv6Addr::from(*key).into()),
        _ => None,
    };
    Some(Spent { destination, bytes: tally.used, of, until_in: span(Duration::from_millis(left)) })
}
