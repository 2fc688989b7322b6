//! What the next frames will need from memory, asked for before their turn.
//!
//! With many flows each packet meets one that is in no cache, and the search for it is a chain of
//! fetches that each wait for the one before. The chains of several frames wait side by side.

use super::{Tracker, carried};
use crate::flow::entry::{by, flag};
use crate::flow::observation::Toward;
use crate::wire::{Frame, parse};
use std::hint::black_box;
use std::net::IpAddr;

/// Frames worth looking ahead: about as many fetches as a processor has under way at once.
pub const AHEAD: usize = 16;

impl Tracker {
    /// Has the memory fetched that the first [`AHEAD`] of these frames will read, and changes nothing.
    /// The ends of flows that seem to begin go to `begins`.
    pub fn foresee(&self, frames: &[Frame<'_>], begins: &mut impl FnMut(IpAddr, IpAddr)) {
        let mut hashes = [None; AHEAD];
        for (hash, frame) in hashes.iter_mut().zip(frames) {
            *hash = parse(frame)
                .ok()
                .map(|view| (self.hash(&carried::tuple(&view, 0)), view.src, view.dst));
        }
        let places = hashes.map(|hash| {
            let (hash, src, dst) = hash?;
            Some((self.table.find(hash, |_| true), src, dst))
        });
        let mut asked = [None; AHEAD];
        for (asked, place) in asked.iter_mut().zip(places) {
            let Some((place, src, dst)) = place else { continue };
            let Some(entry) = place.and_then(|place| self.flows.entry(place)) else {
                begins(src, dst);
                *asked = Some((src, dst));
                continue;
            };
            // The second line of the entry too.
            black_box(entry.first_at);
            let done = by(flag::DONE, Toward::Remote) | by(flag::DONE, Toward::Local);
            if entry.flags & done != done {
                *asked = Some((entry.local_address(), entry.remote_address()));
            }
        }
        for key in asked.into_iter().flatten() {
            self.names.foresee(key);
        }
    }
}
