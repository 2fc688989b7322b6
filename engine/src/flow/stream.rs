//! The first bytes of a TCP direction: heads for the observer, server names from hellos and requests.

use super::entry::{Entry, by, flag};
use super::fifo::NOWHERE;
use super::observation::{Appetite, NameSource, Observation, ObservationKind, Toward};
use super::teller::Teller;
use crate::app::http::{HttpHost, request_host};
use crate::app::tls::{Sni, client_hello_sni};

/// No name is waited for beyond this many bytes: a TLS record's length, and that of a request head.
const NAME_WITHIN: usize = 16 * 1024;
/// A segment that starts this far from the expected byte has nothing to do with it any more.
const HOPELESS: u32 = 1 << 16;
/// Content type of a TLS handshake record (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;

/// A segment with payload, as the head's reader needs it.
#[derive(Clone, Copy)]
pub(super) struct Segment<'a> {
    /// Sequence number of the first payload byte.
    pub(super) seq: u32,
    pub(super) payload: &'a [u8],
    /// Bytes that the snap length cut off.
    pub(super) missing: u32,
}

/// Takes a segment of one direction, until that direction is only counted.
#[inline]
pub(super) fn take<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    place: u32,
    toward: Toward,
    segment: Segment<'_>,
) {
    if !entry.has(by(flag::DONE, toward)) {
        head(teller, entry, place, toward, segment);
    } else if toward == Toward::Remote && entry.has(flag::HTTP) {
        later_request(teller, entry, place, segment);
    }
}

fn head<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    place: u32,
    toward: Toward,
    segment: Segment<'_>,
) {
    let Some(fresh) = in_order(teller, entry, place, toward, segment) else { return };
    let at = entry.held(toward);
    if at == NOWHERE {
        if read(teller, entry, toward, fresh) && segment.missing == 0 {
            teller.hold(entry, place, toward, fresh);
        } else {
            teller.finish(entry, place, toward);
        }
        return;
    }
    if !teller.heads.is_held(at, (place, toward)) {
        teller.finish(entry, place, toward);
        return;
    }
    teller.totals.evicted_heads += teller.heads.append(at, fresh);
    let bytes = teller.heads.lend(at);
    let more = read(teller, entry, toward, &bytes);
    teller.heads.put_back(at, bytes);
    if !more || segment.missing != 0 {
        teller.finish(entry, place, toward);
    }
}

/// The part of a segment that continues the head; `None` for a repetition or behind a hole.
fn in_order<'a, O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    place: u32,
    toward: Toward,
    segment: Segment<'a>,
) -> Option<&'a [u8]> {
    if !entry.has(by(flag::SEQ_KNOWN, toward)) {
        entry.expect_seq(toward, segment.seq);
    }
    let mut ahead = segment.seq.wrapping_sub(entry.next_seq(toward));
    let distance = ahead.min(ahead.wrapping_neg());
    if distance >= HOPELESS {
        gap(teller, entry, toward);
        if entry.has(by(flag::HEAD_TOLD, toward)) {
            teller.finish(entry, place, toward);
            return None;
        }
        // A handshake that does not fit what is sent must not blind us: this is then the middle.
        entry.expect_seq(toward, segment.seq);
        ahead = 0;
    }
    if ahead != 0 && ahead == distance {
        // The missing bytes may still come, late or again; what follows them is not kept. It is
        // shown, as the capture may have lost what it will never get.
        gap(teller, entry, toward);
        if !entry.has(by(flag::HEAD_TOLD, toward)) {
            teller.tell(entry, ObservationKind::Head { toward, bytes: segment.payload });
        }
        return None;
    }
    let known = ahead.wrapping_neg() as usize;
    let fresh = segment.payload.get(known..).filter(|fresh| !fresh.is_empty())?;
    entry.expect_seq(toward, segment.seq.wrapping_add(segment.payload.len() as u32));
    Some(fresh)
}

/// A SYN was answered: bytes that came with it and were not taken are sent again, or others are.
pub(super) fn answered<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    place: u32,
    toward: Toward,
    next: u32,
) {
    if !entry.has(by(flag::SEQ_KNOWN, toward)) || entry.next_seq(toward) == next {
        return;
    }
    teller.release(entry, place, toward);
    for read in [flag::DONE, flag::HEAD_TOLD, flag::HEAD_WANTED, flag::GAP] {
        entry.put(by(read, toward), false);
    }
    if toward == Toward::Remote && !entry.has(flag::INSIDE) {
        entry.put(flag::NAME_DONE, false);
    }
    entry.expect_seq(toward, next);
}

/// Counts a hole, once for each head.
fn gap<O>(teller: &mut Teller<'_, O>, entry: &mut Entry, toward: Toward) {
    if !entry.has(by(flag::GAP, toward)) {
        entry.put(by(flag::GAP, toward), true);
        teller.totals.head_gaps += 1;
    }
}

/// Tells a head and looks for a name in it; returns whether more of it is wanted.
fn read<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    toward: Toward,
    bytes: &[u8],
) -> bool {
    let wanted = by(flag::HEAD_WANTED, toward);
    if entry.has(wanted) || !entry.has(by(flag::HEAD_TOLD, toward)) {
        entry.put(by(flag::HEAD_TOLD, toward), true);
        let appetite = teller.tell(entry, ObservationKind::Head { toward, bytes });
        entry.put(wanted, appetite == Appetite::More);
    }
    let mut name_pending = false;
    if toward == Toward::Remote && !entry.has(flag::NAME_DONE) {
        name_pending = bytes.len() < NAME_WITHIN && !name(teller, entry, bytes);
        entry.put(flag::NAME_DONE, !name_pending);
    }
    (entry.has(wanted) || name_pending) && bytes.len() < teller.heads.limit
}

/// Looks for a server name; returns whether that is decided.
fn name<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    bytes: &[u8],
) -> bool {
    if bytes.first() == Some(&TLS_HANDSHAKE) {
        return match client_hello_sni(bytes) {
            Sni::Incomplete => false,
            Sni::Name(name) => {
                teller.tell_name(entry, &name, NameSource::Sni);
                true
            }
            Sni::None | Sni::NotHello => true,
        };
    }
    match request_host(bytes) {
        HttpHost::Host(name, _) => {
            entry.put(flag::HTTP, true);
            teller.tell_name(entry, &name, NameSource::Host);
            true
        }
        HttpHost::Incomplete => false,
        HttpHost::NoHost => {
            entry.put(flag::HTTP, true);
            true
        }
        HttpHost::NotHttp => true,
    }
}

/// A segment in a flow that spoke HTTP: the next request may be for another host, and behind a
/// CONNECT comes the hello that names the true server.
fn later_request<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    place: u32,
    segment: Segment<'_>,
) {
    let Some(first) = segment.payload.first() else { return };
    if *first != TLS_HANDSHAKE && !first.is_ascii_uppercase() {
        return;
    }
    if !name(teller, entry, segment.payload) && segment.missing == 0 {
        entry.put(flag::NAME_DONE, false);
        entry.put(by(flag::DONE, Toward::Remote), false);
        entry.put(by(flag::GAP, Toward::Remote), false);
        entry.expect_seq(Toward::Remote, segment.seq.wrapping_add(segment.payload.len() as u32));
        teller.hold(entry, place, Toward::Remote, segment.payload);
    }
}
