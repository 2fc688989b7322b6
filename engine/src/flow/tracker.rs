//! From frames to flows: finds or makes the flow of each frame, counts, and tells what is new.

use super::deadlines::Flows;
use super::entry::{Entry, Opening, Patience, Tuple, by, flag};
use super::heads::Heads;
use super::names::Names;
use super::observation::{Appetite, Observation, ObservationKind, Toward};
use super::perimeter::Perimeter;
use super::table::IndexTable;
use super::teller::Teller;
use super::totals::Totals;
use super::{datagram, dns, stream};
use crate::limits::Limits;
use crate::wire::{Frame, PacketView, TcpFacts, parse};
use ahash::RandomState;
use sekisho_schema::Timestamp;
use std::hash::{BuildHasher, Hasher};

/// Payload that is told at once, and the span of sending after which less is told too.
const VOLUME_BYTES: u64 = 64 * 1024;
const VOLUME_NANOS: i64 = 1_000_000_000;
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
    names: Names,
    perimeter: Perimeter,
    totals: Totals,
    hasher: RandomState,
    most_flows: usize,
    /// Time and number of the last frame.
    at: i64,
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
            names: Names::new(limits.names, hasher.clone()),
            perimeter: Perimeter::new(&[], &[]),
            totals: Totals::default(),
            hasher,
            // The place number `u32::MAX` means none.
            most_flows: limits.flows.clamp(1, u32::MAX as usize - 1),
            at: i64::MIN,
            frame: 0,
        }
    }

    /// Draws the border anew; flows that are already tracked keep the orientation they began with.
    pub fn set_perimeter(&mut self, perimeter: Perimeter) {
        self.perimeter = perimeter;
    }

    /// Forgets every flow, name and time: the clock was set back.
    pub fn begin_anew(&mut self) {
        self.table = IndexTable::default();
        self.flows = Flows::new(self.flows.patience());
        self.heads = self.heads.emptied();
        self.names = self.names.emptied();
        self.totals.live = 0;
        self.at = i64::MIN;
    }

    /// The counters.
    #[must_use]
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// When [`Tracker::handle_timeout`] may have something to do next.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Timestamp> {
        match self.flows.next_due() {
            i64::MAX => None,
            due => Some(Timestamp::from_nanos(due)),
        }
    }

    /// Forgets the flows whose deadline has come, each at its own time.
    pub fn handle_timeout(
        &mut self,
        now: Timestamp,
        observer: &mut impl FnMut(&Observation<'_>) -> Appetite,
    ) {
        while let Some((place, deadline)) = self.flows.next_expired(now.nanos()) {
            self.end(place, deadline, observer);
        }
    }

    /// Takes one frame and tells the observer every fact that it shows.
    ///
    /// Deadlines up to the frame's time are handled first. A frame from before the last one counts
    /// as from the time of that.
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
            self.at = frame.at_ns;
        } else {
            self.totals.backward += 1;
        }
        if self.at >= self.flows.next_due() {
            self.handle_timeout(Timestamp::from_nanos(self.at), observer);
        }
        self.frame = frame_no;
        match parse(frame) {
            Ok(view) => self.packet(&view, observer),
            Err(reason) => {
                if let Some(count) = self.totals.unparsed.get_mut(reason.index()) {
                    *count += 1;
                }
            }
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

    fn packet(
        &mut self,
        view: &PacketView<'_>,
        observer: &mut impl FnMut(&Observation<'_>) -> Appetite,
    ) {
        let tuple = Tuple::of(view);
        let hash = self.hash(&tuple);
        let flows = &self.flows;
        let found = self.table.find(hash, |place| {
            flows.entry(place).is_some_and(|entry| entry.way_of(&tuple).is_some())
        });
        let place = match found {
            Some(place) if !self.starts_over(place, view.tcp) => place,
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

    /// Whether a packet opens a new connection on the ports of one that is tracked.
    fn starts_over(&self, place: u32, tcp: Option<TcpFacts>) -> bool {
        tcp.is_some_and(|tcp| tcp.syn && !tcp.ack)
            && self.flows.entry(place).is_some_and(|entry| {
                entry.has(flag::CLOSED)
                    || !entry.has(flag::START_SEEN)
                    || entry.bytes_in | entry.bytes_out != 0
            })
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
        let (mut teller, flows) = self.teller(self.at, observer);
        if let Some(entry) = flows.entry_mut(place) {
            // A SYN-ACK also says what the SYN was, when that was not seen.
            if let Some(tcp) = view.tcp.filter(|tcp| tcp.syn && tcp.ack)
                && let Some(toward) = entry.way_of(tuple)
            {
                entry.expect_seq(opposite(toward), tcp.ack_no);
            }
            teller.tell(entry, ObservationKind::Started);
        }
        place
    }

    /// Decides who spoke first, which end is ours, and so how the flow runs.
    fn opening(&self, tuple: &Tuple, view: &PacketView<'_>) -> Opening {
        let source_began = match view.tcp {
            Some(tcp) if tcp.syn => !tcp.ack,
            // In the middle of a connection: services have the lower port.
            Some(_) => view.src_port >= view.dst_port,
            None => true,
        };
        let source_inside = self.perimeter.is_inside(view.src);
        let target_inside = self.perimeter.is_inside(view.dst);
        let source_is_local =
            if source_inside == target_inside { source_began } else { source_inside };
        let mut flags = 0;
        for (bit, on) in [
            (flag::INSIDE, source_inside && target_inside),
            (flag::TRANSIT, !source_inside && !target_inside),
            (flag::INBOUND, source_is_local != source_began),
            (flag::START_SEEN, view.tcp.is_none_or(|tcp| tcp.syn && !tcp.ack)),
            (flag::DNS, view.src_port == dns::PORT || view.dst_port == dns::PORT),
            // Names between our own machines are nobody's business here.
            (flag::NAME_DONE, source_inside && target_inside),
        ] {
            flags |= if on { bit } else { 0 };
        }
        let tuple = if source_is_local { *tuple } else { tuple.reversed() };
        Opening { tuple, flags, at: self.at }
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
        let at = self.at;
        let (mut teller, flows) = self.teller(at, observer);
        let Some(entry) = flows.entry_mut(place) else { return };
        let Some(toward) = entry.way_of(tuple) else { return };
        entry.last_at = at;
        let length = u64::from(view.ip_payload_len);
        match toward {
            Toward::Local => entry.bytes_in += length,
            Toward::Remote => entry.bytes_out += length,
        }
        let mut closes = false;
        if let Some(tcp) = view.tcp {
            if tcp.syn {
                entry.expect_seq(toward, tcp.seq.wrapping_add(1));
                if tcp.ack {
                    stream::answered(&mut teller, entry, place, opposite(toward), tcp.ack_no);
                }
            }
            if tcp.fin || tcp.rst {
                entry.put(by(flag::FIN, toward), true);
                let both = flag::FIN | flag::FIN << 1;
                closes = !entry.has(flag::CLOSED) && (tcp.rst || entry.flags & both == both);
            }
        }
        if length != 0 {
            payload(&mut teller, entry, place, toward, view);
            if toward == Toward::Remote {
                sent(&mut teller, entry, length);
            }
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
        teller.tell_volume(entry, 0);
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
            names: &mut self.names,
            totals: &mut self.totals,
            hasher: &self.hasher,
        };
        (teller, &mut self.flows)
    }
}

const fn opposite(toward: Toward) -> Toward {
    match toward {
        Toward::Local => Toward::Remote,
        Toward::Remote => Toward::Local,
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
            if entry.has(flag::DNS) {
                dns::take_segment(teller, entry, toward, view.payload);
            }
        }
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
    if !entry.has(flag::INSIDE) {
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
