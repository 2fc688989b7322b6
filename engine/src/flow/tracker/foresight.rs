//! What the next frames will need from memory, asked for before their turn.
//!
//! With many flows each packet meets one that is in no cache, and the search for it is a chain of
//! fetches that each wait for the one before. The chains of several frames wait side by side: each
//! round reads one link of all of them, and decides nothing by what it reads.

use super::Tracker;
use crate::flow::entry::{Tuple, by, flag};
use crate::flow::observation::Toward;
use crate::wire::{Frame, LinkType, parse};
use std::hint::black_box;
use std::net::IpAddr;

/// Frames worth looking ahead: about as many fetches as a processor has under way at once.
pub const AHEAD: usize = 16;

impl Tracker {
    /// Has the memory fetched that the first [`AHEAD`] of these frames will read, and changes nothing.
    /// The far ends of flows that begin or of which more is to be read go to `ends`.
    pub fn foresee(&self, frames: &[Frame<'_>], ends: &mut impl FnMut(IpAddr)) {
        let mut asked = [(Tuple::NONE, 0); AHEAD];
        for (asked, frame) in asked.iter_mut().zip(frames) {
            if let Some(tuple) = glance(frame) {
                *asked = (tuple, self.hash(&tuple));
            }
        }
        let asked = asked.get(..frames.len()).unwrap_or(&asked);
        for (_, hash) in asked {
            self.table.foresee(*hash);
        }
        let mut places = [None; AHEAD];
        for (place, (_, hash)) in places.iter_mut().zip(asked) {
            *place = self.table.find(*hash, |_| true).and_then(|place| self.flows.entry(place));
        }
        for entry in places.iter().flatten() {
            // Both lines of the entry.
            black_box((entry.flags, entry.first_at));
        }
        let done = by(flag::DONE, Toward::Remote) | by(flag::DONE, Toward::Local);
        let mut bindings = [None; AHEAD];
        for (((tuple, _), entry), binding) in asked.iter().zip(places).zip(&mut bindings) {
            let (local, remote) = match entry {
                Some(entry) if entry.flags & done == done => continue,
                Some(entry) => (entry.local_address(), entry.remote_address()),
                None => tuple.addresses(),
            };
            *binding = Some((self.names.hash((local, remote)), remote));
        }
        // Nothing else stands between the fetches, so that all are under way at once.
        for (hash, _) in bindings.iter().flatten() {
            self.names.foresee(*hash);
        }
        for (_, remote) in bindings.iter().flatten() {
            ends(*remote);
        }
        let mut names = [None; AHEAD];
        for (name, binding) in names.iter_mut().zip(bindings) {
            *name = binding.and_then(|(hash, _)| self.names.foresee_binding(hash));
        }
        for name in names.iter().flatten() {
            black_box(name.first().copied());
        }
    }
}

/// The tuple of what nearly all frames are, unchecked; of others as they are read.
#[inline]
fn glance(frame: &Frame<'_>) -> Option<Tuple> {
    if frame.link == LinkType::Ethernet
        && let Some(head) = frame.bytes.first_chunk::<38>()
        && let [
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            0x08,
            0x00,
            0x45,
            ..,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
            p0,
            p1,
            q0,
            q1,
        ] = *head
        && let Some(proto @ (6 | 17)) = head.get(23)
    {
        let address = |octets: [u8; 4]| u32::from_be_bytes(octets);
        let ports = (u16::from_be_bytes([p0, p1]), u16::from_be_bytes([q0, q1]));
        return Some(Tuple::v4(
            address([s0, s1, s2, s3]),
            address([d0, d1, d2, d3]),
            ports,
            *proto,
        ));
    }
    parse(frame).ok().map(|view| Tuple::of(&view))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glance_sees_the_tuple_that_reading_gives() {
        for proto in [1, 6, 17, 47] {
            let mut bytes = vec![2; 12];
            bytes.extend([8, 0, 0x45, 0, 0, 60, 0, 0, 0, 0, 64, proto, 0, 0]);
            bytes.extend([10, 0, 0, 1, 192, 0, 2, 7, 0x9C, 0x40, 1, 0xBB, 0, 40, 0, 0]);
            bytes.extend([0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]);
            let (link, wire_len) = (LinkType::Ethernet, bytes.len() as u32);
            let frame = Frame { at_ns: 0, link, wire_len, bytes: &bytes };
            let read = parse(&frame).ok().map(|view| Tuple::of(&view));
            assert!(read.is_some() && glance(&frame) == read, "{proto}");
        }
    }
}
