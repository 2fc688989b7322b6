//! The far ends of tunnels that were spoken to: only those may say what a tunnel carries inward.
//!
//! Whoever can send a datagram to a host can write any packet into it, one from this host to any
//! address too. What comes in a tunnel from outside is therefore read only after something went out
//! to that end in a tunnel of the same kind.

use crate::wire::PacketView;
use ahash::RandomState;
use hashbrown::HashTable;
use std::collections::VecDeque;
use std::net::IpAddr;

/// Our end, the far end, and the protocol with the port of a tunnel.
///
/// UDP tunnels have that port as the destination both ways, and any source port (RFC 7348 §5).
type Peer = (IpAddr, IpAddr, u8, u16);

/// Far ends that were spoken to; the one that was met first gives way.
pub(super) struct Peers {
    index: HashTable<Peer>,
    ages: VecDeque<Peer>,
    hasher: RandomState,
    most: usize,
}

impl Peers {
    pub(super) const fn new(most: usize, hasher: RandomState) -> Self {
        Self { index: HashTable::new(), ages: VecDeque::new(), hasher, most }
    }

    pub(super) fn forget(&mut self) {
        self.index.clear();
        self.ages.clear();
    }

    fn knows(&self, peer: &Peer) -> bool {
        self.index.find(self.hasher.hash_one(peer), |known| known == peer).is_some()
    }

    /// Takes note of a tunnel's packet to its far end.
    pub(super) fn spoken_to(&mut self, view: &PacketView<'_>) {
        let peer = (view.src, view.dst, view.proto.number(), view.dst_port);
        if self.knows(&peer) {
            return;
        }
        if self.ages.len() >= self.most.max(1)
            && let Some(oldest) = self.ages.pop_front()
            && let Ok(found) =
                self.index.find_entry(self.hasher.hash_one(oldest), |known| *known == oldest)
        {
            found.remove();
        }
        let hasher = &self.hasher;
        let hash = |known: &Peer| hasher.hash_one(known);
        self.index.insert_unique(hash(&peer), peer, hash);
        self.ages.push_back(peer);
    }

    /// Whether a tunnel's packet from outside comes from an end that was spoken to.
    pub(super) fn may_speak(&self, view: &PacketView<'_>) -> bool {
        self.knows(&(view.dst, view.src, view.proto.number(), view.dst_port))
    }
}
