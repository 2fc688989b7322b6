//! The first datagrams of a flow: heads for the observer, the hellos in QUIC Initials, and echoes.

use super::entry::{Entry, flag};
use super::observation::{Appetite, NameSource, Observation, ObservationKind, Toward};
use super::reader::Reader;
use super::teller::Teller;
use crate::app::hello::Reading;
use crate::app::quic::{Opened, join};
use crate::app::tls::Sni;
use crate::wire::{PacketView, Proto};

/// Datagrams of a direction that are told, each as a head of its own.
const TOLD: u32 = 6;
/// Datagrams in which a QUIC hello is looked for: with a post-quantum key share it fills two, and
/// early data or an empty one may come before.
const QUIC_WITHIN: u32 = TOLD;
/// Longest QUIC hello that is read; with two post-quantum key shares it stays below.
const LONGEST_HELLO: usize = 4096;
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
    if !entry.has(flag::QUIC_DONE) && entry.is_client(toward) {
        if !quic_hello(teller, entry, place, toward, payload) && count < QUIC_WITHIN {
            return;
        }
        teller.release(entry, place, toward);
        entry.put(flag::QUIC_DONE, true);
    }
}

/// Takes an ICMP message; requests and replies of an echo are told, each of them.
#[inline]
pub(super) fn take_icmp<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &Entry,
    toward: Toward,
    view: &PacketView<'_>,
) {
    let Some(icmp) = view.icmp else { return };
    // RFC 792 and RFC 4443 §4.
    let request = match (view.proto, icmp.kind) {
        (Proto::Icmp, 8) | (Proto::Icmpv6, 128) => true,
        (Proto::Icmp, 0) | (Proto::Icmpv6, 129) => false,
        _ => return,
    };
    let (id, seq, payload) = (icmp.id, icmp.seq, view.payload);
    teller.tell(entry, ObservationKind::Echo { toward, request, id, seq, payload });
}

fn looks_like_initial(payload: &[u8]) -> bool {
    payload.len() >= LEAST_INITIAL && is_long_header(payload)
}

fn is_long_header(payload: &[u8]) -> bool {
    payload.first().is_some_and(|first| first & 0xC0 == 0xC0)
        && payload.get(1..5).is_some_and(|version| VERSIONS.iter().any(|known| known == version))
}

/// Looks for a QUIC hello; returns whether that is decided.
fn quic_hello<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    place: u32,
    toward: Toward,
    payload: &[u8],
) -> bool {
    let at = entry.held(toward);
    let continues = teller.heads.is_held(at, (place, toward));
    if !looks_like_initial(payload) {
        // Another long header of QUIC, such as early data, may overtake the first Initial.
        return !continues && !is_long_header(payload);
    }
    let (kept, _, reader) = if continues { teller.heads.lend(at) } else { Default::default() };
    let mut opened = Opened::new();
    let decided = !opened.open(payload, &kept) && kept.is_empty() || {
        let mut scratch = [0; LONGEST_HELLO];
        let joined = join(&kept, opened.as_bytes(), &mut scratch);
        match joined.hello() {
            Reading::Whole(hello) => {
                teller.tell(entry, ObservationKind::Hello(&hello));
                if let Some(name) = hello.sni() {
                    teller.tell_server(entry, &name, NameSource::Quic);
                }
                true
            }
            Reading::Incomplete => {
                if let Sni::Name(name) = joined.sni() {
                    teller.tell_server(entry, &name, NameSource::Quic);
                }
                false
            }
            Reading::Other => true,
        }
    };
    if continues {
        teller.heads.put_back(at, kept, 0, reader);
        teller.totals.evicted_heads += teller.heads.append(at, opened.as_bytes());
    } else if !decided {
        let kept = opened.as_bytes();
        let (at, evicted) = teller.heads.hold((place, toward), kept, Reader::default());
        teller.totals.evicted_heads += evicted;
        entry.hold(toward, at);
    }
    decided
}
