//! What people signed as normal for the role: where they did, nothing else is.

use super::key::{At, Key};
use super::naming::place_of;
use super::{Episodes, Place, Regard};
use crate::flow::Observation;
use crate::learn::space_saving::SpaceSaving;
use sekisho_schema::baseline::Entry;
use sekisho_schema::episode::Service;

/// Destinations and services that a signed baseline names, whoever speaks to them.
pub(super) type Normal = SpaceSaving<Key, ()>;

impl Episodes {
    /// Goes by these entries of a signed baseline from now on: what was only learned is watched again.
    /// `None` goes back to what was learned.
    pub fn approve(&mut self, entries: Option<&[Entry]>) {
        self.normal = entries.map(|entries| {
            let mut normal = Normal::new(entries.len().min(self.capacity), self.seed, Key::hash);
            for entry in entries {
                let place = Place::of(&entry.destination);
                let at = At { place, host: 0, service: Some(entry.service) };
                let hash = at.hash(normal.hasher());
                normal.enter(hash, |key| key.is(&at), || (at.own(), ()), |()| false);
            }
            normal
        });
    }

    /// How a flow is to be regarded once people have signed a baseline.
    pub(super) fn by_signature<'a>(&self, o: &Observation<'_>, regard: &Regard<'a>) -> Regard<'a> {
        let Some(normal) = self.normal.as_ref().filter(|_| regard.object.is_none()) else {
            return *regard;
        };
        let place = place_of(&self.bound, self.asn.as_deref(), &o.flow);
        let service = Service::new(o.flow.key.transport, o.flow.key.remote.port());
        let at = At { place, host: 0, service: Some(service) };
        let is_known = normal.find(at.hash(normal.hasher()), |key| key.is(&at)).is_some();
        Regard { is_known, ..*regard }
    }
}
