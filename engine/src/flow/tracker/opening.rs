//! How flows begin: who spoke first, which end is ours, and what a SYN says that is shown late.

use super::Tracker;
use crate::flow::entry::{Entry, Opening, Tuple, flag};
use crate::flow::observation::{Appetite, Observation, ObservationKind, Route, Toward};
use crate::flow::teller::Teller;
use crate::flow::{dns, stream};
use crate::wire::{PacketView, TcpFacts};

impl Tracker {
    /// Whether a packet opens a new connection on the ports of one that is tracked.
    pub(super) fn starts_over(&self, place: u32, tuple: &Tuple, tcp: Option<TcpFacts>) -> bool {
        let Some(tcp) = tcp.filter(|tcp| tcp.syn && !tcp.ack) else { return false };
        self.flows.entry(place).is_some_and(|entry| {
            let began = !entry.has(flag::START_SEEN) || entry.bytes_in | entry.bytes_out != 0;
            entry.has(flag::CLOSED)
                || began && !entry.way_of(tuple).is_some_and(|way| self.fits(entry, way, tcp))
        })
    }

    /// Whether a SYN opens the connection whose later packets a young flow has already shown.
    fn fits(&self, entry: &Entry, way: Toward, syn: TcpFacts) -> bool {
        let shown = entry.next_seq(way).wrapping_sub(syn.seq.wrapping_add(1));
        let age = self.at.saturating_sub(entry.first_at);
        shown < stream::HOPELESS && age < stream::LATE_SYN_NANOS
    }

    /// Decides who spoke first, which end is ours, and so how the flow runs.
    pub(super) fn opening(&self, tuple: &Tuple, view: &PacketView<'_>) -> Opening {
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
            (flag::QUIC_DONE, source_inside && target_inside),
        ] {
            flags |= if on { bit } else { 0 };
        }
        let tuple = if source_is_local { *tuple } else { tuple.reversed() };
        Opening { tuple, flags, at: self.told_at }
    }
}

/// Takes the packet that opens a direction.
#[cold]
pub(super) fn begun<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    place: u32,
    mut toward: Toward,
    tcp: TcpFacts,
    length: u64,
) {
    let late = !tcp.ack && !entry.has(flag::START_SEEN);
    // What was seen before a late SYN had to be guessed.
    if late && toward == Toward::Local && entry.route() != Route::Egress {
        turn(teller, entry);
        toward = Toward::Remote;
    }
    let before = entry.bytes(toward) - length;
    stream::opened(teller, entry, place, toward, tcp.seq.wrapping_add(1), before);
    if tcp.ack {
        return stream::answered(teller, entry, place, toward.opposite(), tcp.ack_no);
    }
    entry.put(flag::SYN_DATA, length != 0);
    entry.put(flag::START_SEEN, true);
    if late {
        entry.put(flag::INBOUND, toward == Toward::Local);
    }
}

/// Calls the ends of a flow the other way round: it ends under its old key and starts under the new.
fn turn<O: FnMut(&Observation<'_>) -> Appetite>(teller: &mut Teller<'_, O>, entry: &mut Entry) {
    teller.tell_volume(entry, 0);
    teller.tell(entry, ObservationKind::Ended);
    for toward in [Toward::Remote, Toward::Local] {
        teller.heads.turn(entry.held(toward));
    }
    entry.turn();
    entry.put(flag::START_SEEN, true);
    entry.put(flag::INBOUND, false);
    teller.tell(entry, ObservationKind::Started);
}
