//! Episodes over a restart: what goes on from what was kept is the same, byte for byte.

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
        let mut out = MAGIC.to_vec();
        self.table.keep(&mut out);
        self.envelopes.keep(&mut out);
        self.names.keep(&mut out);
        self.echoes.keep(&mut out);
        self.adopters.keep(&mut out);
        self.bound.keep(&mut out);
        self.hosts.keep(&mut out);
        self.workloads.keep(&mut out);
        let odd: Vec<(FlowKey, Oddities)> = self.odd.iter().map(|(k, v)| (*k, *v)).collect();
        odd.keep(&mut out);
        self.odd_evicted.keep(&mut out);
        self.tls.keep(&mut out);
        self.waiting.keep(&mut out);
        self.gone.keep(&mut out);
        self.lost.keep(&mut out);
        let digest = Sha256::digest(&out).0;
        out.extend_from_slice(&digest);
        out
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
        let Kept { table, envelopes, names, echoes, adopters, bound, hosts, rest } = restored;
        (self.table, self.envelopes, self.names, self.echoes) = (table, envelopes, names, echoes);
        (self.adopters, self.bound, self.hosts) = (adopters, bound, hosts);
        let Rest { workloads, odd, odd_evicted, tls, waiting, gone, lost } = rest;
        self.odd_evicted = odd_evicted;
        self.workloads = workloads;
        self.odd = odd.into_iter().collect();
        (self.tls, self.waiting, self.gone, self.lost) = (tls, waiting, gone, lost);
        Ok(())
    }

    fn read(&self, from: &mut &[u8]) -> Option<Kept> {
        let seed = self.seed;
        let Self { table, envelopes, names, echoes, adopters, bound, .. } = self;
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
}

struct Rest {
    workloads: Vec<Workload>,
    odd: Vec<(FlowKey, Oddities)>,
    odd_evicted: u64,
    tls: Option<FlowKey>,
    waiting: Option<(FlowKey, Timestamp)>,
    gone: (u64, bool),
    lost: u64,
}
