//! Episodes over a restart: what goes on from what was kept is the same, byte for byte.

use super::calls::Calls;
use super::crossed::Crossed;
use super::episode::Episode;
use super::host::Hosts;
use super::key::{Asked, Key, hash_ends};
use super::{Adopters, Episodes, SpaceSaving};
use crate::learn::Name;
use crate::learn::approved::Envelope;
use crate::learn::dns::NameInformation;
use crate::learn::icmp::EchoHour;
use crate::learn::keep::Keep;
use crate::learn::oddity::Oddities;
use crate::learn::space_saving::Partly;
use sekisho_schema::episode::Workload;
use sekisho_schema::{FlowKey, Timestamp, Transport};
use sha2::{Digest, Sha256};
use std::net::{IpAddr, SocketAddr};

/// What the bytes begin with; another layout has another number.
const MAGIC: &[u8] = b"sekisho.episodes/1\n";
/// Bytes of the digest at the end.
const DIGEST: usize = 32;

/// Why what was kept of episodes can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreEpisodesError {
    /// It is not what this version writes.
    #[error("it does not begin with \"sekisho.episodes/1\"; all episodes begin anew")]
    Layout,
    /// It is damaged, or was kept under larger bounds.
    #[error("it is damaged or larger than the bounds of today; all episodes begin anew")]
    NotWhole,
}

/// Everything that is known, while it is written down.
#[derive(Debug)]
pub struct Saving {
    out: Vec<u8>,
    /// The table that is being written.
    stage: u8,
    partly: Option<Partly>,
}

impl Saving {
    fn table<K: Keep + PartialEq, V: Keep>(&mut self, table: &SpaceSaving<K, V>, left: &mut usize) {
        let partly = self.partly.get_or_insert_with(|| table.begin_keeping(&mut self.out));
        match table.keep_some(partly, *left, &mut self.out) {
            // An empty table costs a step, too.
            Some(rest) => {
                *left = rest.min(left.saturating_sub(1));
                (self.partly, self.stage) = (None, self.stage + 1);
            }
            None => *left = 0,
        }
    }

    /// What is to be kept, once it is whole, with its digest: that may be made elsewhere.
    #[must_use]
    pub fn sealed(mut self) -> Vec<u8> {
        let digest = Sha256::digest(&self.out).0;
        self.out.extend_from_slice(&digest);
        self.out
    }
}

impl Keep for FlowKey {
    fn keep(&self, out: &mut Vec<u8>) {
        self.transport.number().keep(out);
        for end in [self.local, self.remote] {
            end.ip().keep(out);
            end.port().keep(out);
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let transport = Transport::from_number(u8::take(from)?);
        let local = SocketAddr::new(IpAddr::take(from)?, u16::take(from)?);
        let remote = SocketAddr::new(IpAddr::take(from)?, u16::take(from)?);
        Some(Self { transport, local, remote })
    }
}

impl Keep for Workload {
    fn keep(&self, out: &mut Vec<u8>) {
        self.to_string().into_boxed_str().keep(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Box::<str>::take(from)?.parse().ok()
    }
}

impl Episodes {
    /// Everything that is known, to be restored.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let mut saving = self.begin_saving();
        while !self.save_some(&mut saving, usize::MAX) {}
        saving.sealed()
    }

    /// Begins to write down everything that is known, piece by piece while it is gone on from.
    #[must_use]
    pub fn begin_saving(&self) -> Saving {
        Saving { out: MAGIC.to_vec(), stage: 0, partly: None }
    }

    /// Writes about so many keys more; `true` once it is whole.
    ///
    /// Each key is written as it stands when its turn comes: one that moves meanwhile may be missing or stand twice,
    /// and is then read once.
    pub fn save_some(&self, saving: &mut Saving, most: usize) -> bool {
        let mut left = most;
        while left > 0 {
            match saving.stage {
                0 => saving.table(&self.table, &mut left),
                1 => saving.table(&self.envelopes, &mut left),
                2 => saving.table(&self.names, &mut left),
                3 => saving.table(&self.echoes, &mut left),
                4 => saving.table(&self.adopters, &mut left),
                5 => saving.table(&self.bound, &mut left),
                6 => {
                    self.save_rest(&mut saving.out);
                    saving.stage += 1;
                }
                7 => saving.table(&self.calls, &mut left),
                _ => return true,
            }
        }
        false
    }

    fn save_rest(&self, out: &mut Vec<u8>) {
        self.hosts.keep(out);
        self.workloads.keep(out);
        let odd: Vec<(FlowKey, Oddities)> = self.odd.iter().map(|(k, v)| (*k, *v)).collect();
        odd.keep(out);
        self.odd_evicted.keep(out);
        self.tls.keep(out);
        self.waiting.keep(out);
        self.gone.keep(out);
        self.lost.keep(out);
        self.crossed.keep(out);
    }

    /// Goes on from what was saved. Episodes that were over and not taken are not part of it.
    ///
    /// # Errors
    /// What was saved is damaged, of another layout, or larger than today's bounds; nothing is changed then.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreEpisodesError> {
        if !bytes.starts_with(MAGIC) {
            return Err(RestoreEpisodesError::Layout);
        }
        let (body, digest) = bytes
            .len()
            .checked_sub(DIGEST)
            .and_then(|at| bytes.split_at_checked(at))
            .ok_or(RestoreEpisodesError::NotWhole)?;
        if Sha256::digest(body).0.as_slice() != digest {
            return Err(RestoreEpisodesError::NotWhole);
        }
        let mut from = body.get(MAGIC.len()..).unwrap_or_default();
        let restored = self.read(&mut from).filter(|_| from.is_empty());
        let restored = restored.ok_or(RestoreEpisodesError::NotWhole)?;
        let Kept { table, envelopes, names, echoes, adopters, bound, hosts, rest, calls } =
            restored;
        self.calls = calls;
        (self.table, self.envelopes, self.names, self.echoes) = (table, envelopes, names, echoes);
        (self.adopters, self.bound, self.hosts) = (adopters, bound, hosts);
        let Rest { workloads, odd, odd_evicted, tls, waiting, gone, lost, crossed } = rest;
        self.crossed = crossed;
        self.odd_evicted = odd_evicted;
        self.workloads = workloads;
        self.odd = odd.into_iter().collect();
        (self.tls, self.waiting, self.gone, self.lost) = (tls, waiting, gone, lost);
        Ok(())
    }

    fn read(&self, from: &mut &[u8]) -> Option<Kept> {
        let seed = self.seed;
        let Self { table, envelopes, names, echoes, adopters, bound, calls, .. } = self;
        Some(Kept {
            table: SpaceSaving::new(table.capacity(), seed, Key::hash).take(from)?,
            envelopes: SpaceSaving::new(envelopes.capacity(), seed, Key::hash).take(from)?,
            names: SpaceSaving::new(names.capacity(), seed, Asked::hash).take(from)?,
            echoes: SpaceSaving::new(echoes.capacity(), seed, |state, key| state.hash_one(key))
                .take(from)?,
            adopters: SpaceSaving::new(adopters.capacity(), seed, Key::hash).take(from)?,
            bound: SpaceSaving::new(bound.capacity(), seed, hash_ends).take(from)?,
            hosts: Hosts::take(from, self.hosts.most(), seed)?,
            rest: Rest {
                workloads: Vec::take(from)?,
                odd: Vec::take(from)?,
                odd_evicted: u64::take(from)?,
                tls: Keep::take(from)?,
                waiting: Keep::take(from)?,
                gone: <(u64, bool)>::take(from)?,
                lost: u64::take(from)?,
                // What an earlier version wrote ends here.
                crossed: if from.is_empty() { Crossed::default() } else { Keep::take(from)? },
            },
            calls: {
                let empty = SpaceSaving::new(calls.capacity(), seed, Key::hash);
                if from.is_empty() { empty } else { empty.take(from)? }
            },
        })
    }
}

/// What is read back, before anything is changed.
struct Kept {
    table: SpaceSaving<Key, Episode>,
    envelopes: SpaceSaving<Key, Envelope>,
    names: SpaceSaving<(u16, Asked), NameInformation>,
    echoes: SpaceSaving<(u16, IpAddr), EchoHour>,
    adopters: SpaceSaving<Key, Adopters>,
    bound: SpaceSaving<(IpAddr, IpAddr), Name>,
    hosts: Hosts,
    rest: Rest,
    calls: SpaceSaving<Key, Calls>,
}

struct Rest {
    workloads: Vec<Workload>,
    odd: Vec<(FlowKey, Oddities)>,
    odd_evicted: u64,
    tls: Option<FlowKey>,
    waiting: Option<(FlowKey, Timestamp)>,
    gone: (u64, bool),
    lost: u64,
    crossed: Crossed,
}
