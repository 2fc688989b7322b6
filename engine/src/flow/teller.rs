//! What the readers of payload share while one frame is handled: tables to write, an observer to tell.

use super::entry::{Entry, by, flag};
use super::fifo::NOWHERE;
use super::heads::Heads;
use super::names::Names;
use super::observation::{Appetite, NameSource, Observation, ObservationKind, Toward};
use super::totals::Totals;
use crate::app::Name;
use ahash::RandomState;
use sekisho_schema::Timestamp;

/// Tells facts about one frame.
pub(super) struct Teller<'t, O> {
    pub(super) at: Timestamp,
    pub(super) frame: u64,
    pub(super) observer: &'t mut O,
    pub(super) heads: &'t mut Heads,
    pub(super) names: &'t mut Names,
    pub(super) totals: &'t mut Totals,
    pub(super) hasher: &'t RandomState,
}

impl<O: FnMut(&Observation<'_>) -> Appetite> Teller<'_, O> {
    pub(super) fn tell(&mut self, entry: &Entry, kind: ObservationKind<'_>) -> Appetite {
        let flow =
            entry.facts(self.names.bound((entry.local_address(), entry.remote_address()), self.at));
        (self.observer)(&Observation { at: self.at, frame: self.frame, flow, kind })
    }

    /// Tells a server name, unless it is the one told last in this flow.
    pub(super) fn tell_name(&mut self, entry: &mut Entry, name: &Name, source: NameSource) {
        let tag = (self.hasher.hash_one(name.as_str()) >> 32) as u32 | 1;
        if entry.name_tag != tag {
            entry.name_tag = tag;
            self.tell(entry, ObservationKind::Name { name: name.as_str(), source });
        }
    }

    /// Tells the payload that no volume observation covered yet.
    pub(super) fn tell_volume(&mut self, entry: &mut Entry, more: u64) {
        let bytes_out = u64::from(std::mem::take(&mut entry.pending)) + more;
        if bytes_out != 0 {
            self.tell(entry, ObservationKind::Volume { bytes_out });
        }
    }

    /// Begins to hold the head of a direction.
    pub(super) fn hold(&mut self, entry: &mut Entry, place: u32, toward: Toward, bytes: &[u8]) {
        let (at, evicted) = self.heads.hold((place, toward), bytes);
        self.totals.evicted_heads += u64::from(evicted);
        entry.hold(toward, at);
    }

    /// Ends what is held of a direction; its payload is only counted from now on.
    pub(super) fn finish(&mut self, entry: &mut Entry, place: u32, toward: Toward) {
        self.release(entry, place, toward);
        entry.put(by(flag::DONE, toward), true);
    }

    pub(super) fn release(&mut self, entry: &mut Entry, place: u32, toward: Toward) {
        if entry.held(toward) != NOWHERE {
            self.heads.release(entry.held(toward), (place, toward));
            entry.hold(toward, NOWHERE);
        }
    }
}
