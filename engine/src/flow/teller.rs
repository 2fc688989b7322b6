//! What the readers of payload share while one frame is handled: tables to write, an observer to tell.

use super::early::Early;
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
    pub(super) early: &'t mut Early,
    pub(super) names: &'t mut Names,
    pub(super) totals: &'t mut Totals,
    pub(super) hasher: &'t RandomState,
}

impl<O: FnMut(&Observation<'_>) -> Appetite> Teller<'_, O> {
    pub(super) fn tell(&mut self, entry: &Entry, kind: ObservationKind<'_>) -> Appetite {
        let flow = entry
            .facts(self.names.recall((entry.local_address(), entry.remote_address()), self.at));
        (self.observer)(&Observation { at: self.at, frame: self.frame, flow, kind })
    }

    /// Tells a server name, unless it is the one told last in this flow.
    fn tell_name(&mut self, entry: &mut Entry, name: &Name, source: NameSource) {
        let tag = (self.hasher.hash_one(name) >> 32) as u32 | 1;
        if entry.name_tag != tag {
            entry.name_tag = tag;
            self.tell(entry, ObservationKind::Name { name: name.as_str(), source });
        }
    }

    /// Tells a head; `middle` says that bytes before it are missing.
    pub(super) fn tell_head(
        &mut self,
        entry: &Entry,
        toward: Toward,
        bytes: &[u8],
        middle: bool,
    ) -> Appetite {
        let bound = self.names.recall((entry.local_address(), entry.remote_address()), self.at);
        let mut flow = entry.facts(bound);
        flow.start_seen &= !middle;
        let kind = ObservationKind::Head { toward, bytes };
        (self.observer)(&Observation { at: self.at, frame: self.frame, flow, kind })
    }

    /// Tells the name of a flow's server; names between our own machines are nobody's business here.
    pub(super) fn tell_server(&mut self, entry: &mut Entry, name: &Name, source: NameSource) {
        if !entry.has(flag::INSIDE) {
            self.tell_name(entry, name, source);
        }
    }

    /// Tells the payload that no volume observation covered yet.
    pub(super) fn tell_volume(&mut self, entry: &mut Entry, more: u64) {
        let bytes_in = entry.take_bytes_in();
        self.tell_bytes(entry, more, bytes_in);
    }

    /// The same at the end of a flow, to the last byte.
    pub(super) fn tell_last_volume(&mut self, entry: &mut Entry) {
        let bytes_in = entry.take_rest_in();
        self.tell_bytes(entry, 0, bytes_in);
    }

    fn tell_bytes(&mut self, entry: &mut Entry, more: u64, bytes_in: u64) {
        let bytes_out = u64::from(std::mem::take(&mut entry.pending)) + more;
        if bytes_out | bytes_in != 0 {
            self.tell(entry, ObservationKind::Volume { bytes_out, bytes_in });
        }
    }

    /// Ends what is held of a direction; its payload is only counted from now on.
    pub(super) fn finish(&mut self, entry: &mut Entry, place: u32, toward: Toward) {
        self.release(entry, place, toward);
        entry.put(by(flag::WAITING, toward), false);
        entry.put(by(flag::DONE, toward), true);
    }

    pub(super) fn release(&mut self, entry: &mut Entry, place: u32, toward: Toward) {
        if entry.held(toward) != NOWHERE {
            self.heads.release(entry.held(toward), (place, toward));
            entry.hold(toward, NOWHERE);
        }
    }
}
