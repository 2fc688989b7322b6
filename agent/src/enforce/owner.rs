//! Whose tables they are: the kernel lets only the socket that owns a table change it, and keeps a
//! persistent one when that socket is gone.

use super::desired::Aim;
use super::elements::{BATCH, nft};
use super::executor;
use super::hooks::Hook;
use super::known::{Key, KnownWriter};
use super::plan::Plan;
use super::skeleton::{TABLE, skeleton, to_json};
use super::transplant::{Ruleset, TransplantError};
use super::{Elements, Enforcer, OpenEnforcerError};
use crate::netlink::{
    CREATE, Channel, NetlinkError, REQUEST, Writer, attribute, big_endian, text_of,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

const NEW_TABLE: u16 = nft(0);
const GET_TABLE: u16 = nft(1);
const DELETE_TABLE: u16 = nft(2);
/// `NFT_TABLE_F_OWNER` and `NFT_TABLE_F_PERSIST` (linux/netfilter/nf_tables.h).
const OWNER: u32 = 2;
const PERSIST: u32 = 4;
/// Beginning of the names of our other tables, and of the one that only asks what the kernel can.
const PREFIX: &str = "sekisho_";
const PROBE: &str = "sekisho_probe_";
/// `NFPROTO_INET`.
const INET: u8 = 1;
/// EPERM (asm-generic/errno.h).
const EPERM: i32 = 1;

/// How far our tables are safe from other hands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ownership", rename_all = "kebab-case")]
pub enum Ownership {
    /// There are none.
    #[default]
    Absent,
    /// The kernel refuses every change that does not come from us.
    Owned,
    /// Anybody with CAP_NET_ADMIN can change them.
    Shared {
        /// Why.
        why: String,
    },
}

/// Flags that tables are made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flags {
    /// As they are.
    None,
    /// Ours alone, and kept when we are gone.
    Ours,
}

impl Flags {
    pub(super) const fn bits(self) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Ours => Some(OWNER | PERSIST),
        }
    }
}

/// What an enforcer does about owning its tables, and what it built last.
#[derive(Default)]
pub(super) struct Owner {
    stance: Stance,
    /// The document for nft and what it came to: whatever somebody takes away is put back without nft.
    built: Option<(serde_json::Value, Ruleset)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Stance {
    /// nft loads rulesets where everybody sees them.
    #[default]
    Nobody,
    /// It owns them.
    Us,
    /// It would, and can't, or is told not to.
    Refused(String),
    /// It only looks; why whoever holds the tables does not own them, if so.
    Eyes(Option<String>),
}

/// What is needed to see whether the ruleset is as it was loaded.
#[derive(Clone, Debug, Default)]
pub struct Eye {
    plan: Plan,
    aim: Aim,
    fingerprint: [u64; 2],
    hooks: Vec<Hook>,
    refused: Option<String>,
}

/// A table by family and name.
pub(super) type Place = (u8, String);

impl Owner {
    /// Whether it may change nothing.
    pub(super) const fn only_looks(&self) -> bool {
        matches!(self.stance, Stance::Eyes(_))
    }
}

impl From<Stance> for Owner {
    fn from(stance: Stance) -> Self {
        Self { stance, built: None }
    }
}

/// A table as the kernel lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listed {
    flags: u32,
    owner: u32,
}

impl Enforcer {
    /// Opens for the process that holds the tables for good: takes over what is there, and loads nothing
    /// until a plan comes. Without `own` the tables stay open to others.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel can't be spoken to.
    pub fn open_holding(own: bool) -> Result<Self, NetlinkError> {
        let mut elements = Elements::open()?;
        let stance = if !own {
            Stance::Refused("the configuration says so".to_owned())
        } else {
            match probe(&mut elements.channel) {
                Ok(()) => Stance::Us,
                Err(error) => {
                    Stance::Refused(format!("this kernel knows no owners that persist: {error}"))
                }
            }
        };
        let mut enforcer = Self {
            elements,
            plan: Plan::default(),
            holding: BTreeMap::new(),
            aim: Aim::default(),
            fingerprint: [0; 2],
            owner: stance.into(),
            ready_for: Duration::ZERO,
            empty_since: None,
        };
        if enforcer.owner.stance == Stance::Us {
            enforcer.claim()?;
        }
        match enforcer.adopt() {
            Err(error) if !error.is_absent() => return Err(error),
            _ => {}
        }
        Ok(enforcer)
    }

    /// Name of the socket that changes what is held, as the kernel tells it of owners and changes.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.elements.channel.port()
    }

    /// What another thread needs to see whether the ruleset is as it was loaded.
    #[must_use]
    pub fn eye(&self) -> Eye {
        let refused = match &self.owner.stance {
            Stance::Refused(why) => Some(why.clone()),
            Stance::Nobody | Stance::Us | Stance::Eyes(_) => None,
        };
        let hooks = self.elements.hooks.clone();
        let aim = self.aim.clone();
        Eye { plan: self.plan.clone(), aim, fingerprint: self.fingerprint, hooks, refused }
    }

    /// Reads and proves, with sockets of its own; where the tables are owned it can change nothing.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel gives no socket.
    pub fn watcher(eye: &Eye) -> Result<Self, NetlinkError> {
        Ok(Self {
            elements: Elements::open_knowing(&eye.hooks)?,
            plan: eye.plan.clone(),
            holding: BTreeMap::new(),
            aim: eye.aim.clone(),
            fingerprint: eye.fingerprint,
            owner: Stance::Eyes(eye.refused.clone()).into(),
            ready_for: Duration::ZERO,
            empty_since: None,
        })
    }

    /// Whose the tables are, by the kernel's own list; `us` is the name of the socket that may own them.
    ///
    /// # Errors
    /// [`NetlinkError`] when it can't be asked.
    pub fn ownership_of(&mut self, us: u32) -> Result<Ownership, NetlinkError> {
        let tables = list(&mut self.elements.channel)?;
        Ok(if tables.is_empty() {
            Ownership::Absent
        } else if tables.values().all(|table| table.flags & OWNER != 0 && table.owner == us) {
            Ownership::Owned
        } else {
            let why = match &self.owner.stance {
                Stance::Refused(why) | Stance::Eyes(Some(why)) => why.clone(),
                _ if tables.values().any(|table| table.flags & OWNER != 0) => {
                    "another process owns them".to_owned()
                }
                _ => "nobody has claimed them".to_owned(),
            };
            Ownership::Shared { why }
        })
    }

    /// Removes our tables, and every containment with them, also where we own them.
    ///
    /// # Errors
    /// [`NetlinkError`]; the tables stay.
    pub fn remove_held(&mut self) -> Result<(), NetlinkError> {
        let tables = list(&mut self.elements.channel)?;
        if !tables.is_empty() {
            let messages =
                tables.keys().map(|(family, name)| (DELETE_TABLE, 0, *family, name.as_str(), None));
            change(&mut self.elements.channel, messages)?;
        }
        self.holding.clear();
        self.plan = Plan::default();
        self.fingerprint = [0; 2];
        Ok(())
    }

    /// Makes the kernel hold known destinations for a while, in one commit, by the socket that owns the tables.
    ///
    /// # Errors
    /// [`NetlinkError`]; nothing of the batch was written.
    pub fn hold_known(
        &mut self,
        keys: &[Key],
        lease: Duration,
        renew: bool,
    ) -> Result<(), NetlinkError> {
        KnownWriter::over(&mut self.elements.channel).hold(keys, lease, renew)
    }

    /// Makes the kernel let go of known destinations, held or not, in one commit.
    ///
    /// # Errors
    /// [`NetlinkError`]; nothing of the batch was written.
    pub fn release_known(&mut self, keys: &[Key]) -> Result<(), NetlinkError> {
        KnownWriter::over(&mut self.elements.channel).release(keys)
    }

    /// Loads the ruleset of a plan: by nft where the tables are anybody's, else over the owning socket.
    pub(super) fn load(&mut self, plan: &Plan, stale: &[String]) -> Result<(), OpenEnforcerError> {
        if self.owner.stance == Stance::Nobody {
            return self.load_openly(plan, stale);
        }
        let document = to_json(&skeleton(plan, &[]))?;
        let known = self.owner.built.take().filter(|(built, _)| *built == document);
        let ruleset = match known.map_or_else(|| Ruleset::build(&document), |(_, known)| Ok(known))
        {
            Ok(ruleset) => ruleset,
            Err(TransplantError::Scratch(error)) => {
                return self.load_shared(plan, stale, &error);
            }
            Err(TransplantError::Nft(error)) => return Err(error.into()),
            Err(TransplantError::Netlink(error)) => return Err(error.into()),
        };
        let tables = list(&mut self.elements.channel)?;
        let flags = if self.owner.stance == Stance::Us { Flags::Ours } else { Flags::None };
        // Flags are given to a table when it is made; one that an older version made has to be made anew.
        let wrong = |table: &Listed| (table.flags & PERSIST != 0) != (flags == Flags::Ours);
        let anew = tables.values().any(wrong);
        match ruleset.put(&mut self.elements.channel, flags, anew) {
            // A set of another version has another shape.
            Err(error) if !anew && error.code() != Some(EPERM) => {
                ruleset.put(&mut self.elements.channel, flags, true)?;
            }
            done => done?,
        }
        self.owner.built = Some((document, ruleset));
        Ok(())
    }

    /// Without a namespace to build in, nft loads in the open; tables that persist have to give way to it.
    fn load_shared(
        &mut self,
        plan: &Plan,
        stale: &[String],
        why: &std::io::Error,
    ) -> Result<(), OpenEnforcerError> {
        self.owner.stance = Stance::Refused(format!("no namespace to build the ruleset in: {why}"));
        let persistent =
            list(&mut self.elements.channel)?.values().any(|table| table.flags & PERSIST != 0);
        if persistent {
            self.remove_held()?;
        }
        self.load_openly(plan, if persistent { &[] } else { stale })
    }

    fn load_openly(&mut self, plan: &Plan, stale: &[String]) -> Result<(), OpenEnforcerError> {
        let document = to_json(&skeleton(plan, stale))?;
        Ok(executor::load(&self.beside_the_counted(document)?)?)
    }

    /// Takes tables that persist and have no owner.
    fn claim(&mut self) -> Result<(), NetlinkError> {
        let tables = list(&mut self.elements.channel)?;
        let free: Vec<Place> = tables
            .into_iter()
            .filter(|(_, table)| table.flags & (OWNER | PERSIST) == PERSIST)
            .map(|(place, _)| place)
            .collect();
        if free.is_empty() {
            return Ok(());
        }
        let messages = free.iter().map(|(family, name)| {
            (NEW_TABLE, CREATE, *family, name.as_str(), Some(OWNER | PERSIST))
        });
        change(&mut self.elements.channel, messages)
    }
}

/// Whether the kernel has owners and persistence, by a table of ours that is gone again at once.
fn probe(channel: &mut Channel) -> Result<(), NetlinkError> {
    let name = format!("sekisho_probe_{}", std::process::id());
    let messages = [
        (NEW_TABLE, CREATE, INET, name.as_str(), Some(OWNER | PERSIST)),
        (DELETE_TABLE, 0, INET, name.as_str(), None),
    ];
    change(channel, messages.into_iter())
}

fn change<'a>(
    channel: &mut Channel,
    messages: impl Iterator<Item = (u16, u16, u8, &'a str, Option<u32>)>,
) -> Result<(), NetlinkError> {
    let mut writer = Writer::default();
    let first = channel.next();
    let begin = writer.message(BATCH[0], REQUEST, first, &[0, 0, 0, 10]);
    writer.end_message(&begin);
    let mut last = None;
    for (kind, flags, family, name, bits) in messages {
        let sequence = channel.next();
        let message = writer.message(kind, REQUEST | flags, sequence, &[family, 0, 0, 0]);
        writer.text(1, name);
        if let Some(bits) = bits {
            writer.attribute(2, &bits.to_be_bytes());
        }
        writer.end_message(&message);
        last = Some((message, sequence));
    }
    let Some((open, sequence)) = last else { return Ok(()) };
    writer.ask(&open);
    let after = channel.next();
    let end = writer.message(BATCH[1], REQUEST, after, &[0, 0, 0, 10]);
    writer.end_message(&end);
    channel.transact(writer.as_bytes(), first, sequence)
}

/// Whether a table of this name is ours.
pub(super) fn is_ours(name: &str) -> bool {
    name == TABLE || (name.starts_with(PREFIX) && !name.starts_with(PROBE))
}

/// Our tables.
fn list(channel: &mut Channel) -> Result<BTreeMap<Place, Listed>, NetlinkError> {
    let found = channel.dump(GET_TABLE, &[0; 4], |found: &mut Vec<(Place, Listed)>, answer| {
        let family = answer.body.first().copied().unwrap_or_default();
        let body = answer.body.get(4..).unwrap_or_default();
        let name = attribute(body, 1).map(text_of).unwrap_or_default();
        if is_ours(&name) {
            let number = |kind| {
                attribute(body, kind)
                    .map_or(0, |value| u32::try_from(big_endian(value)).unwrap_or(0))
            };
            // NFTA_TABLE_FLAGS, NFTA_TABLE_OWNER
            found.push(((family, name), Listed { flags: number(2), owner: number(7) }));
        }
    })?;
    Ok(found.into_iter().collect())
}
