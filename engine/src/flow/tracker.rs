//! From frames to flows: finds or makes the flow of each frame, counts, and tells what is new.

use super::deadlines::Flows;
use super::early::Early;
use super::entry::{Entry, Patience, Tuple, by, flag};
use super::heads::Heads;
use super::names::Names;
use super::observation::{Appetite, Observation, ObservationKind, Toward};
use super::perimeter::Perimeter;
use super::table::IndexTable;
use super::teller::Teller;
use super::totals::Totals;
use super::{datagram, dns, stream};
use crate::limits::Limits;
use crate::wire::{Fragments, Frame, PacketView, Unparsed, parse, tunnel};
use ahash::RandomState;
use sekisho_schema::Timestamp;
use std::hash::{BuildHasher, Hasher};

mod carried;
mod foresight;
mod opening;
mod peers;

pub use foresight::AHEAD;

/// Payload that is told at once, and the span of sending after which less is told too.
const VOLUME_BYTES: u64 = 64 * 1024;
const VOLUME_NANOS: i64 = 1_000_000_000;
/// Payload that came is told each 2^24 bytes: what only receives is silent otherwise.
const VOLUME_IN_BITS: u32 = 24;
/// A frame this far behind the latest comes from a clock that was set, not from another socket.
const NEAR_NANOS: i64 = 1_000_000_000;
/// Silence of the local end that sets bursts apart.
const BURST_NANOS: i64 = 1_000_000_000;

/// Follows flows and tells their facts.
///
/// What it tells depends on the frames alone: not on the hash seed, and not on how often
/// [`Tracker::handle_timeout`] is called, as long as its time lies before the next frame's.
/// When there are too many flows, the one that would be forgotten soonest gives way.
pub struct Tracker {
    table: IndexTable,
    flows: Flows,
    heads: Heads,
    early: Early,
    names: Names,
    fragments: Fragments,
    peers: peers::Peers,
    perimeter: Perimeter,
    totals: Totals,
    hasher: RandomState,
    most_flows: usize,
    /// Latest time of a frame.
    at: i64,
    /// Time of what is told now: the frame's own, unless that lies far behind.
    told_at: i64,
    /// Number of the last frame.
    frame: u64,
}

impl Tracker {
    /// Makes a tracker without any flow, and with nothing but loopback inside.
    ///
    /// `hash_seed` keeps strangers from choosing colliding flows: random where they can send,
    /// any constant in a replay.
    #[must_use]
    pub fn new(limits: &Limits, hash_seed: u64) -> Self {
        let hasher = RandomState::with_seeds(hash_seed, hash_seed.rotate_left(32), 0, 0);
        let patience = Patience {
            tcp: limits.tcp_idle,
            datagram: limits.datagram_idle,
            closed: limits.closed_linger,
        };
        Self {
            table: IndexTable::default(),
            flows: Flows::new(patience),
            heads: Heads::new(limits.heads, limits.head_bytes, limits.heads_bytes),
            early: Early::default(),
            names: Names::new(limits.names, hasher.clone()),
            fragments: Fragments::new(limits, hasher.clone()),
            peers: peers::Peers::new(limits.tunnel_peers, hasher.clone()),
            perimeter: Perimeter::new(&[], &[]),
            totals: Totals::default(),
            hasher,
            // The place number `u32::MAX` means none.
            most_flows: limits.flows.clamp(1, u32::MAX as usize - 1),
            at: i64::MIN,
            told_at: i64::MIN,
            frame: 0,
        }
    }

    /// Draws the border anew; flows that are already tracked keep the orientation they began with.
    pub fn set_perimeter(&mut self, perimeter: Perimeter) {
        self.perimeter = perimeter;
    }

    /// Forgets every flow, name, fragment and time: the clock was set back.
    pub fn begin_anew(&mut self) {
        self.refuse(Unparsed::FragmentExpired, self.fragments.held_pieces());
        self.fragments = self.fragments.emptied();
        self.peers.forget();
        self.table = IndexTable::default();
        self.flows = Flows::new(self.flows.patience());
        self.heads = self.heads.emptied();
        self.early = Early::default();
        self.names = self.names.emptied();
        self.totals.live = 0;
        self.at = i64::MIN;
    }

    /// Shows the flows at so many places from one on, and tells the place to go on from; `None` after the last.
    pub fn live(
        &self,
        from: usize,
        most: usize,
        show: &mut dyn FnMut(&super::FlowFacts<'_>),
    ) -> Option<usize> {
        let at = Timestamp::from_nanos(self.at);
        let (most, mut looked) = (most.max(1), 0);
        for entry in self.flows.places(from).take(most) {
            looked += 1;
            if entry.tuple.kind != 0 {
                let bound = self.names.bound((entry.local_address(), entry.remote_address()), at);
                show(&entry.facts(bound));
            }
        }
        (looked == most).then_some(from.saturating_add(looked))
    }

    /// The counters.
    #[must_use]
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Bytes of heads that are held now.
    #[cfg(test)]
    pub(super) const fn held_bytes(&self) -> usize {
        self.heads.held_bytes()
    }

    /// When [`Tracker::handle_timeout`] may have something to do next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        match self.next_due() {
            i64::MAX => None,
            due => Some(Timestamp::from_nanos(due)),
        }
    }

    /// The same in nanoseconds, `i64::MAX` for none.
    #[inline]
    pub(crate) fn next_due(&self) -> i64 {
        self.flows.next_due().min(self.fragments.next_due())
    }

    /// Forgets the flows and fragments whose deadline has come, each at its own time.
    pub fn handle_timeout(
        &mut self,
        now: Timestamp,
        observer: &mut impl FnMut(&Observation<'_>) -> Appetite,
    ) {
        loop {
            let fragments_due = self.fragments.next_due();
            let until = now.nanos().min(fragments_due);
            while let Some((place, deadline)) = self.flows.next_expired(until) {
                self.end(place, deadline, observer);
            }
            if fragments_due > now.nanos() || fragments_due == i64::MAX {
                return;
            }
            self.expire_fragments(fragments_due, observer);
        }
    }

    /// Takes one frame and tells the observer every fact that it shows.
    ///
    /// Deadlines up to the frame's time are handled first. A frame from a little before the last one,
    /// as two sockets give them, is told with its own time, so that it is told as in a replay; one from
    /// further back counts as from the time of that.
    #[inline]
    pub fn observe(
        &mut self,
        frame_no: u64,
        frame: &Frame<'_>,
        observer: &mut impl FnMut(&Observation<'_>) -> Appetite,
    ) {
        self.totals.frames += 1;
        self.totals.bytes += u64::from(frame.wire_len);
        if frame.at_ns >= self.at {
            (self.at, self.told_at) = (frame.at_ns, frame.at_ns);
        } else {
            self.totals.backward += 1;
            let is_near = self.at.saturating_sub(frame.at_ns) < NEAR_NANOS;
            self.told_at = if is_near { frame.at_ns } else { self.at };
        }
        if self.at >= self.next_due() {
            self.handle_timeout(Timestamp::from_nanos(self.at), observer);
        }
        self.frame = frame_no;
        match parse(frame) {
            Ok(view) if !(view.fragment || tunnel::may_carry(&view)) => {
                self.packet(&view, 0, observer);
            }
            _ => self.unusual(frame, observer),
        }
    }

    /// Counts what was not read.
    fn refuse(&mut self, reason: Unparsed, times: u64) {
        if let Some(count) = self.totals.unparsed.get_mut(reason.index()) {
            *count += times;
        }
    }

    #[inline]
    fn hash(&self, tuple: &Tuple) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        for word in tuple.canonical() {
            hasher.write_u64(word);
        }
        (hasher.finish() >> 32) as u32
    }

    /// The flow of a tuple, if it is tracked.
    #[inline]
    fn flow_of(&self, tuple: &Tuple, hash: u32) -> Option<u32> {
        let flows = &self.flows;
        self.table.find(hash, |place| {
            flows.entry(place).is_some_and(|entry| entry.way_of(tuple).is_some())
        })
    }

    /// Takes a packet inside `depth` tunnels.
    #[inline]
    fn packet(
        &mut self,
        view: &PacketView<'_>,
        depth: u8,
        observer: &mut impl FnMut(&Observation<'_>) -> Appetite,
    ) {
        let tuple = carried::tuple(view, depth);
        let hash = self.hash(&tuple);
        let place = match self.flow_of(&tuple, hash) {
            Some(place) if !self.starts_over(place, &tuple, view.tcp) => place,
            Some(place) => {
                self.end(place, self.at, observer);
                self.begin(&tuple, hash, view, observer)
            }
            // A reset without a flow answers something that was not seen, or that is long over.
            None if view.tcp.is_some_and(|tcp| tcp.rst) => return,
            None => self.begin(&tuple, hash, view, observer),
        };
        self.count(place, &tuple, view, observer);
    }

    /// Makes the flow of its first packet and tells that it started.
    fn begin(
        &mut self,
        tuple: &Tuple,
        hash: u32,
        view: &PacketView<'_>,
        observer: &mut impl FnMut(&Observation<'_>) -> Appetite,
    ) -> u32 {
        if self.flows.live() >= self.most_flows
            && let Some(idle) = self.flows.most_idle()
        {
            self.totals.evicted_flows += 1;
            self.end(idle, self.at, observer);
        }
        let opening = self.opening(tuple, view);
        let place = self.flows.add(Entry::new(&opening), self.at);
        self.table.insert(hash, place);
        self.totals.flows += 1;
        self.totals.live += 1;
        let (mut teller, flows) = self.teller(self.told_at, observer);
        if let Some(entry) = flows.entry_mut(place) {
            if let Some(tcp) = view.tcp.filter(|tcp| tcp.ack)
                && let Some(toward) = entry.way_of(tuple)
            {
                if tcp.syn {
                    // A SYN-ACK also says what the SYN was, when that was not seen.
                    entry.expect_seq(toward.opposite(), tcp.ack_no);
                } else {
                    entry.hint_seq(toward, tcp.seq);
                    entry.hint_seq(toward.opposite(), tcp.ack_no);
                }
            }
            teller.tell(entry, ObservationKind::Started);
        }
        place
    }

    /// Counts one packet of a flow and tells what its payload shows.
    #[inline]
    fn count(
        &mut self,
        place: u32,
        tuple: &Tuple,
        view: &PacketView<'_>,
        observer: &mut impl FnMut(&Observation<'_>) -> Appetite,
    ) {
        let at = self.told_at;
        let (mut teller, flows) = self.teller(at, observer);
        let Some(entry) = flows.entry_mut(place) else { return };
        let Some(mut toward) = entry.way_of(tuple) else { return };
        entry.last_at = entry.last_at.max(at);
        entry.first_at = entry.first_at.min(at);
        let length = u64::from(view.ip_payload_len);
        let mut came_much = false;
        match toward {
            Toward::Local => {
                let before = entry.bytes_in;
                entry.bytes_in += length;
                came_much = (before ^ entry.bytes_in) >> VOLUME_IN_BITS != 0;
            }
            Toward::Remote => entry.bytes_out += length,
        }
        let mut closes = false;
        if let Some(tcp) = view.tcp {
            if tcp.syn {
                opening::begun(&mut teller, entry, place, toward, tcp, length);
                toward = entry.way_of(tuple).unwrap_or(toward);
            }
            if tcp.ack && entry.has(by(flag::WAITING, toward.opposite())) {
                stream::confirmed(&mut teller, entry, toward.opposite(), tcp.ack_no);
            }
            if tcp.fin || tcp.rst {
                entry.put(by(flag::FIN, toward), true);
                let both = flag::FIN | flag::FIN << 1;
                closes = !entry.has(flag::CLOSED) && (tcp.rst || entry.flags & both == both);
            }
        }
        if view.icmp.is_some() && !view.fragment {
            datagram::take_icmp(&mut teller, entry, toward, view);
        }
        if length != 0 {
            payload(&mut teller, entry, place, toward, view);
            if toward == Toward::Remote {
                sent(&mut teller, entry, length);
            }
        }
        if came_much {
            teller.tell_volume(entry, 0);
        }
        if closes {
            entry.put(flag::CLOSED, true);
            teller.tell_volume(entry, 0);
            flows.reschedule(place, at);
        }
    }

    /// Tells the end of a flow and forgets it.
    fn end(
        &mut self,
        place: u32,
        at: i64,
        observer: &mut impl FnMut(&Observation<'_>) -> Appetite,
    ) {
        let (mut teller, flows) = self.teller(at, observer);
        let Some(entry) = flows.entry_mut(place) else { return };
        stream::ended(&mut teller, entry);
        teller.tell_last_volume(entry);
        teller.tell(entry, ObservationKind::Ended);
        teller.release(entry, place, Toward::Remote);
        teller.release(entry, place, Toward::Local);
        let tuple = entry.tuple;
        self.table.remove(self.hash(&tuple), place);
        self.flows.remove(place);
        self.totals.live -= 1;
    }

    fn teller<'t, O>(&'t mut self, at: i64, observer: &'t mut O) -> (Teller<'t, O>, &'t mut Flows) {
        let teller = Teller {
            at: Timestamp::from_nanos(at),
            frame: self.frame,
            observer,
            heads: &mut self.heads,
            early: &mut self.early,
            names: &mut self.names,
            totals: &mut self.totals,
            hasher: &self.hasher,
        };
        (teller, &mut self.flows)
    }
}

/// Hands payload to the readers that still look at this direction.
#[inline]
fn payload<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    place: u32,
    toward: Toward,
    view: &PacketView<'_>,
) {
    match view.tcp {
        Some(tcp) => {
            let seq = tcp.seq.wrapping_add(u32::from(tcp.syn));
            let missing = view.ip_payload_len.saturating_sub(view.payload.len() as u32);
            let segment = stream::Segment { seq, payload: view.payload, missing };
            stream::take(teller, entry, place, toward, segment);
        }
        // Read when the others have come, or are given up.
        None if view.fragment => {}
        None => {
            datagram::take(teller, entry, place, toward, view.payload);
            if entry.has(flag::DNS) {
                dns::take_message(teller, entry, toward, view.payload);
            }
        }
    }
}

/// Tells bursts and volumes of what the local end sent.
#[inline]
fn sent<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    length: u64,
) {
    // What a tunnel carries was counted as its payload.
    if !entry.has(flag::INSIDE) && !carried::is_inner(&entry.tuple) {
        teller.totals.bytes_out += length;
    }
    let at = teller.at.nanos();
    let silence = at.saturating_sub(entry.out_at);
    entry.out_at = at;
    if silence >= BURST_NANOS {
        teller.tell(entry, ObservationKind::Burst);
    }
    if entry.pending == 0 {
        entry.pending_at = at;
    }
    let pending = u64::from(entry.pending) + length;
    if pending >= VOLUME_BYTES || at.saturating_sub(entry.pending_at) >= VOLUME_NANOS {
        teller.tell_volume(entry, length);
    } else {
        entry.pending = pending as u32;
    }
}

#[cfg(test)]
mod tests;
