//! What seldom comes: fragments, the packets inside tunnels, and frames that show no packet.
//!
//! Bytes are counted once. A first fragment is counted, and told as its flow's packet, when it comes;
//! the whole datagram then adds what was not counted. A datagram that never becomes whole adds the
//! fragments that came, and its first one is read as far as it goes. What a tunnel carries makes
//! flows of its own, which never meet those of the same addresses outside, and adds nothing to
//! [`Totals::bytes_out`](super::Totals::bytes_out).

use super::{Tracker, payload, sent};
use crate::flow::datagram;
use crate::flow::entry::Tuple;
use crate::flow::observation::{Appetite, Observation, Toward};
use crate::wire::{
    Frame, Gathered, Packet, PacketView, Piece, Taken, Unparsed, ip_packet, read, tunnel,
};

/// Marks the tuples of packets inside a tunnel, above protocol number and family.
const INNER: u16 = 1 << 10;

/// What a packet's headers say about its flow; packets inside tunnels have flows of their own.
#[inline]
pub(super) fn tuple(view: &PacketView<'_>, depth: u8) -> Tuple {
    let mut tuple = Tuple::of(view);
    if depth != 0 {
        tuple.kind |= INNER;
    }
    tuple
}

/// Whether a flow runs inside a tunnel.
#[inline]
pub(super) const fn is_inner(tuple: &Tuple) -> bool {
    tuple.kind & INNER != 0
}

impl Tracker {
    /// Takes a frame that is more, or less, than one plain packet.
    #[cold]
    #[inline(never)]
    pub(super) fn unusual(
        &mut self,
        frame: &Frame<'_>,
        observer: &mut impl FnMut(&Observation<'_>) -> Appetite,
    ) {
        match ip_packet(frame) {
            Ok((ip, uncaptured)) => self.internet(ip, uncaptured, 0, observer),
            Err(reason) => self.refuse(reason, 1),
        }
    }

    /// Takes an IP packet inside `depth` tunnels.
    fn internet<O: FnMut(&Observation<'_>) -> Appetite>(
        &mut self,
        ip: &[u8],
        uncaptured: u32,
        depth: u8,
        observer: &mut O,
    ) {
        match read(ip, uncaptured) {
            Ok(Packet::Whole(view)) => {
                self.carrier(&view, depth, observer);
            }
            Ok(Packet::Piece(piece)) => self.piece(&piece, depth, observer),
            Err(reason) => self.refuse(reason, 1),
        }
    }

    /// Takes a packet, and then what it carries if it is a tunnel's.
    fn carrier<O: FnMut(&Observation<'_>) -> Appetite>(
        &mut self,
        view: &PacketView<'_>,
        depth: u8,
        observer: &mut O,
    ) {
        self.totals.tunnelled += u64::from(depth != 0);
        self.packet(view, depth, observer);
        self.open(view, depth, observer);
    }

    /// Opens a tunnel: the packet inside is taken as if it had come alone.
    fn open<O: FnMut(&Observation<'_>) -> Appetite>(
        &mut self,
        view: &PacketView<'_>,
        depth: u8,
        observer: &mut O,
    ) {
        if !tunnel::may_carry(view) {
            return;
        }
        if depth == 0 && !self.is_asked(view) {
            // A datagram that is no tunnel needs no permission.
            let carries = tunnel::inner(view).is_some();
            return self.refuse(Unparsed::TunnelUnasked, u64::from(carries));
        }
        match tunnel::inner(view) {
            None => {}
            Some(_) if depth >= tunnel::MAX_DEPTH => self.refuse(Unparsed::TunnelTooDeep, 1),
            Some(Ok(inner)) => self.internet(inner.ip, inner.uncaptured, depth + 1, observer),
            Some(Err(reason)) => self.refuse(reason, 1),
        }
    }

    /// Whether a tunnel's packet may say what it carries: one from outside only if its far end was
    /// spoken to.
    fn is_asked(&mut self, view: &PacketView<'_>) -> bool {
        let ours = self.perimeter.is_inside(view.src);
        match (ours, self.perimeter.is_inside(view.dst)) {
            (true, false) => {
                self.peers.spoken_to(view);
                true
            }
            (false, true) => self.peers.may_speak(view),
            _ => true,
        }
    }

    /// Takes a fragment: the first is a packet at once, the datagram is read when it is whole.
    fn piece<O: FnMut(&Observation<'_>) -> Appetite>(
        &mut self,
        piece: &Piece<'_>,
        depth: u8,
        observer: &mut O,
    ) {
        while let Some(oldest) = self.fragments.crowded(piece, depth) {
            self.give_up(oldest, Unparsed::FragmentEvicted, observer);
        }
        let first = piece.first();
        let counted = match &first {
            Some(Ok(view)) => Some(view.ip_payload_len),
            _ => None,
        };
        match self.fragments.take(self.at, piece, depth, counted) {
            Taken::Held => {
                if let Some(Ok(view)) = first {
                    self.totals.tunnelled += u64::from(depth != 0);
                    self.packet(&view, depth, observer);
                }
            }
            Taken::Whole(whole) => {
                self.totals.reassembled += 1;
                // The first fragment came last: nothing of the datagram was taken yet.
                let fresh = piece.first().is_some();
                self.whole(&whole, fresh, observer);
                self.fragments.give_back(whole);
            }
            Taken::Refused(reason) => {
                self.refuse(reason, 1);
                // It will not be held, so what it shows is shown now.
                if let (Some(Ok(view)), false) = (first, reason == Unparsed::FragmentDuplicate) {
                    self.packet(&PacketView { fragment: false, ..view }, depth, observer);
                }
            }
            Taken::Spoiled(reason, gathered) => {
                self.refuse(reason, 1);
                self.give_up(gathered, reason, observer);
                if let Some(Ok(view)) = first {
                    self.packet(&PacketView { fragment: false, ..view }, depth, observer);
                }
            }
        }
    }

    /// Takes a datagram that is whole, `fresh` if none of it was counted.
    fn whole<O: FnMut(&Observation<'_>) -> Appetite>(
        &mut self,
        whole: &Gathered,
        fresh: bool,
        observer: &mut O,
    ) {
        let view = match whole.view() {
            Ok(view) => view,
            Err(reason) => return self.refuse(reason, whole.pieces),
        };
        match whole.counted {
            Some(counted) if !fresh => {
                let more = view.ip_payload_len.saturating_sub(counted);
                if !self.complete(&view, whole.depth(), more, true, observer) {
                    self.packet(&view, whole.depth(), observer);
                }
                self.open(&view, whole.depth(), observer);
            }
            _ => self.carrier(&view, whole.depth(), observer),
        }
    }

    /// Gives up the oldest datagram, at its deadline.
    pub(super) fn expire_fragments<O: FnMut(&Observation<'_>) -> Appetite>(
        &mut self,
        deadline: i64,
        observer: &mut O,
    ) {
        if let Some(gathered) = self.fragments.expired(deadline) {
            // What it shows is told as of the deadline, however late that is noticed.
            let now = std::mem::replace(&mut self.at, deadline);
            let told_at = std::mem::replace(&mut self.told_at, deadline);
            self.give_up(gathered, Unparsed::FragmentExpired, observer);
            (self.at, self.told_at) = (now, told_at);
        }
    }

    /// Counts the fragments of a datagram that never becomes whole, and reads it up to its first hole.
    fn give_up<O: FnMut(&Observation<'_>) -> Appetite>(
        &mut self,
        gathered: Gathered,
        reason: Unparsed,
        observer: &mut O,
    ) {
        self.refuse(reason, gathered.pieces - u64::from(gathered.counted.is_some()));
        if let Ok(view) = gathered.view() {
            let (depth, tails) = (gathered.depth(), gathered.tails);
            match gathered.counted {
                Some(counted) => {
                    let more = view.ip_payload_len.saturating_sub(counted);
                    // A stream's first bytes were read when they came.
                    let unread = more != 0 || view.tcp.is_none();
                    self.complete(&view, depth, more.saturating_add(tails), unread, observer);
                }
                // The first fragment was too short for the transport's header.
                None => {
                    self.packet(&PacketView { fragment: false, ..view }, depth, observer);
                    self.complete(&view, depth, tails, false, observer);
                }
            }
            self.open(&view, depth, observer);
        }
        self.fragments.give_back(gathered);
    }

    /// Adds to a flow what followed a first fragment: `more` bytes, and what they show if `unread`.
    ///
    /// Returns whether the flow is still tracked.
    fn complete<O: FnMut(&Observation<'_>) -> Appetite>(
        &mut self,
        view: &PacketView<'_>,
        depth: u8,
        more: u32,
        unread: bool,
        observer: &mut O,
    ) -> bool {
        let at = self.told_at;
        let tuple = tuple(view, depth);
        let Some(place) = self.flow_of(&tuple, self.hash(&tuple)) else { return false };
        let (mut teller, flows) = self.teller(at, observer);
        let Some(entry) = flows.entry_mut(place) else { return false };
        let Some(toward) = entry.way_of(&tuple) else { return false };
        let length = u64::from(more);
        match toward {
            Toward::Local => entry.bytes_in += length,
            Toward::Remote => entry.bytes_out += length,
        }
        if !view.fragment {
            entry.last_at = entry.last_at.max(at);
        }
        if unread {
            let whole = PacketView { fragment: false, ..*view };
            if whole.icmp.is_some() {
                datagram::take_icmp(&mut teller, entry, toward, &whole);
            }
            payload(&mut teller, entry, place, toward, &whole);
        }
        if length != 0 && toward == Toward::Remote {
            sent(&mut teller, entry, length);
        }
        true
    }
}
