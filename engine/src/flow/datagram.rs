//! The first datagrams of a flow: heads for the observer, server names from QUIC Initials.

use super::entry::{Entry, flag};
use super::fifo::NOWHERE;
use super::observation::{Appetite, NameSource, Observation, ObservationKind, Toward};
use super::teller::Teller;
use crate::app::quic::{QuicSni, initial_sni};

/// Datagrams of a direction that are told, each as a head of its own.
const TOLD: u32 = 4;
/// Datagrams in which a QUIC hello is looked for: with a post-quantum key share it fills two.
const QUIC_WITHIN: u32 = 3;
/// Least size of a datagram with a client's Initial (RFC 9000 §14.1).
const LEAST_INITIAL: usize = 1200;
/// QUIC version 1 (RFC 9000 §15) and version 2 (RFC 9369 §3.1).
const VERSIONS: [[u8; 4]; 2] = [[0, 0, 0, 1], [0x6B, 0x33, 0x43, 0xCF]];

/// Takes a datagram's payload.
#[inline]
pub(super) fn take<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    place: u32,
    toward: Toward,
    payload: &[u8],
) {
    if payload.is_empty() || entry.datagrams(toward) >= TOLD {
        return;
    }
    let count = entry.count_datagram(toward);
    teller.tell(entry, ObservationKind::Head { toward, bytes: payload });
    if toward == Toward::Remote && !entry.has(flag::NAME_DONE) {
        if !quic_name(teller, entry, place, payload) && count < QUIC_WITHIN {
            return;
        }
        teller.release(entry, place, Toward::Remote);
        entry.put(flag::NAME_DONE, true);
    }
}

fn looks_like_initial(payload: &[u8]) -> bool {
    payload.len() >= LEAST_INITIAL
        && payload.first().is_some_and(|first| first & 0xC0 == 0xC0)
        && payload.get(1..5).is_some_and(|version| VERSIONS.iter().any(|known| known == version))
}

/// Looks for the server name of a QUIC hello; returns whether that is decided.
///
/// Datagrams are joined as if their packets had come coalesced in one.
fn quic_name<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    place: u32,
    payload: &[u8],
) -> bool {
    let at = entry.held(Toward::Remote);
    let continues = at != NOWHERE && teller.heads.is_held(at, (place, Toward::Remote));
    if !looks_like_initial(payload) {
        return !continues;
    }
    let mut scratch = [0; 2048];
    let found = if continues {
        teller.totals.evicted_heads += teller.heads.append(at, payload);
        let joined = teller.heads.lend(at);
        let found = initial_sni(&joined, &mut scratch);
        teller.heads.put_back(at, joined);
        found
    } else {
        initial_sni(payload, &mut scratch)
    };
    match found {
        QuicSni::Incomplete => {
            if !continues {
                teller.hold(entry, place, Toward::Remote, payload);
            }
            false
        }
        QuicSni::Name(name) => {
            teller.tell_name(entry, &name, NameSource::Quic);
            true
        }
        QuicSni::None | QuicSni::NotQuic => true,
    }
}
