//! The first bytes of a TCP direction in the order that they were sent: a segment that continues them
//! is read where it lies; only what somebody waits for more of, and what came before its turn, is held.

use super::entry::{Entry, by, flag};
use super::fifo::NOWHERE;
use super::observation::{Appetite, Observation, Toward};
use super::reader::{Reader, Step, TLS_HANDSHAKE};
use super::teller::Teller;
use crate::app::http_head::{
    HeadReading, RequestHead, ResponseHead, may_be_request, may_be_response,
};

/// A segment that starts this far from the expected byte has nothing to do with it any more.
pub(super) const HOPELESS: u32 = 1 << 16;
/// Age of a flow up to which its SYN may be shown late, as live captures by several sockets do.
pub(super) const LATE_SYN_NANOS: i64 = 2_000_000_000;
/// Payload of a direction among which segments that do not fit are looked at for themselves: a far end
/// can drop what was sent to hide the rest, for its checksum, its hops or its number.
const ASTRAY_WITHIN: u64 = 8 * 1024;
/// Tunnels within tunnels that are read in one segment.
const MAX_TUNNELS: usize = 8;

/// A segment with payload, as the head's reader needs it.
#[derive(Clone, Copy)]
pub(super) struct Segment<'a> {
    /// Sequence number of the first payload byte.
    pub(super) seq: u32,
    pub(super) payload: &'a [u8],
    /// Bytes that the snap length cut off.
    pub(super) missing: u32,
}

impl Segment<'_> {
    const fn end(&self) -> u32 {
        self.seq.wrapping_add(self.payload.len() as u32)
    }
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
        arrive(teller, entry, place, toward, segment);
        return;
    }
    if entry.bytes(toward) < ASTRAY_WITHIN {
        astray(teller, entry, place, toward, segment);
    }
    if entry.flags & (flag::HTTP | flag::START_SEEN) != flag::START_SEEN {
        if entry.has(flag::HTTP) {
            later(teller, entry, place, toward, segment);
        }
        keep_early(teller, entry, toward, segment);
    }
}

/// Looks at a segment that repeats bytes of a direction that is read, or is far from all that were
/// read: it may be the one that the far end takes.
#[cold]
fn astray<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    place: u32,
    toward: Toward,
    segment: Segment<'_>,
) {
    let behind = entry.next_seq(toward).wrapping_sub(segment.seq);
    if behind.min(behind.wrapping_neg()) >= HOPELESS {
        give_up(teller, entry, place, toward, segment, true);
    } else if behind < HOPELESS && behind as usize >= segment.payload.len() {
        repeated(teller, entry, toward, segment);
    }
}

/// Tells bytes that are sent again by themselves: whether they are the same is not known any more.
fn repeated<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &Entry,
    toward: Toward,
    segment: Segment<'_>,
) {
    if segment.payload.len() > 1 && entry.bytes(toward) < ASTRAY_WITHIN {
        teller.totals.head_repeats += 1;
        teller.tell_head(entry, toward, segment.payload, true);
    }
}

/// Keeps a segment that came before the one that a flow without a SYN began with: that may come yet.
fn keep_early<O>(teller: &mut Teller<'_, O>, entry: &Entry, toward: Toward, segment: Segment<'_>) {
    let age = teller.at.nanos().saturating_sub(entry.first_at);
    let before = entry.next_seq(toward).wrapping_sub(segment.seq);
    if !entry.has(flag::START_SEEN) && age < LATE_SYN_NANOS && before.wrapping_sub(1) < HOPELESS {
        teller.early.keep(entry.tuple, toward, segment.seq, segment.payload);
    }
}

fn arrive<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    place: u32,
    toward: Toward,
    segment: Segment<'_>,
) {
    if !entry.has(by(flag::SEQ_KNOWN, toward)) {
        // In the middle of a connection one zero is a keep-alive probe: it stands before the bytes.
        let probe = segment.payload == [0] && !entry.has(flag::START_SEEN);
        entry.expect_seq(toward, segment.seq.wrapping_add(u32::from(probe)));
    }
    let ahead = segment.seq.wrapping_sub(entry.next_seq(toward));
    if ahead.min(ahead.wrapping_neg()) >= HOPELESS {
        return give_up(teller, entry, place, toward, segment, true);
    }
    let ahead = ahead as i32;
    if ahead > 0 && begins_next(entry, toward, segment.payload) {
        // The rest of the head before it was lost, or came before its turn and was not kept.
        gap(teller, entry, toward);
        teller.release(entry, place, toward);
        entry.put(by(flag::WAITING, toward), false);
        return start(teller, entry, place, toward, segment, Reader::default());
    }
    if entry.held(toward) != NOWHERE {
        return join(teller, entry, place, toward, segment, ahead);
    }
    if ahead > 0 {
        let (at, evicted) = teller.heads.hold((place, toward), &[], Reader::default());
        teller.totals.evicted_heads += evicted;
        entry.hold(toward, at);
        return join(teller, entry, place, toward, segment, ahead);
    }
    let known = ahead.unsigned_abs() as usize;
    if let Some(fresh) = segment.payload.get(known..).filter(|fresh| !fresh.is_empty()) {
        let seq = entry.next_seq(toward);
        start(
            teller,
            entry,
            place,
            toward,
            Segment { seq, payload: fresh, ..segment },
            Reader::default(),
        );
    } else {
        keep_early(teller, entry, toward, segment);
        repeated(teller, entry, toward, segment);
    }
}

/// Whether a segment in a flow that speaks HTTP begins another head, while a former one is still to
/// be read to its end.
fn begins_next(entry: &Entry, toward: Toward, payload: &[u8]) -> bool {
    entry.has(flag::HTTP)
        && entry.has(by(flag::HEAD_TOLD, toward))
        && !entry.has(by(flag::HEAD_WANTED, toward))
        && (matches!(ResponseHead::parse(payload), HeadReading::Whole(_))
            || matches!(RequestHead::parse(payload), HeadReading::Whole(_)))
}

/// Reads a segment in order while nothing is held.
fn start<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    place: u32,
    toward: Toward,
    segment: Segment<'_>,
    mut reader: Reader,
) {
    entry.expect_seq(toward, segment.end());
    if !entry.has(flag::START_SEEN) && !entry.has(by(flag::HEAD_TOLD, toward)) {
        teller.early.keep(entry.tuple, toward, segment.seq, segment.payload);
    }
    let last = segment.missing != 0;
    let (consumed, step) = read(teller, entry, toward, segment.payload, &mut reader, last);
    match step {
        Step::More => {
            let rest = segment.payload.get(consumed..).unwrap_or_default();
            let (at, evicted) = teller.heads.hold((place, toward), rest, reader);
            teller.totals.evicted_heads += evicted;
            entry.hold(toward, at);
        }
        Step::Idle | Step::Anew(_) => {
            entry.expect_seq(toward, segment.end().wrapping_add(segment.missing));
        }
        Step::Done => teller.finish(entry, place, toward),
    }
}

/// Joins a segment with the bytes that are held, and reads on where they grew.
fn join<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    place: u32,
    toward: Toward,
    segment: Segment<'_>,
    ahead: i32,
) {
    let at = entry.held(toward);
    if !teller.heads.is_held(at, (place, toward)) {
        // They gave way to others.
        entry.hold(toward, NOWHERE);
        entry.put(by(flag::WAITING, toward), false);
        if !entry.has(flag::DNS) {
            return teller.finish(entry, place, toward);
        }
        return start(teller, entry, place, toward, segment, Reader::default());
    }
    let (before, waited) = teller.heads.extent(at);
    if ahead == 0 && !waited {
        entry.expect_seq(toward, segment.end());
        teller.totals.evicted_heads += teller.heads.append(at, segment.payload);
        return read_held(teller, entry, place, toward, segment.missing);
    }
    let placed = teller.heads.place(at, i64::from(ahead), segment.payload);
    teller.totals.evicted_heads += placed.evicted;
    if placed.conflict && !entry.has(flag::OVERLAP) {
        entry.put(flag::OVERLAP, true);
        teller.totals.head_overlaps += 1;
    }
    if placed.refused {
        return give_up(teller, entry, place, toward, segment, false);
    }
    entry.put(by(flag::WAITING, toward), placed.waits);
    if placed.waits {
        // The capture may have lost what it will never get: what is here may be all there is.
        show(teller, entry, toward, segment.payload);
    }
    if placed.grew {
        let grown = teller.heads.extent(at).0 - before;
        entry.expect_seq(toward, entry.next_seq(toward).wrapping_add(grown as u32));
        // What was cut off matters where it is the next to come.
        let missing = if placed.waits { 0 } else { segment.missing };
        read_held(teller, entry, place, toward, missing);
    }
}

/// Reads the contiguous bytes that are held.
fn read_held<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    place: u32,
    toward: Toward,
    missing: u32,
) {
    let at = entry.held(toward);
    let (bytes, whole, mut reader) = teller.heads.lend(at);
    let contiguous = bytes.get(..whole).unwrap_or_default();
    let (consumed, step) = read(teller, entry, toward, contiguous, &mut reader, missing != 0);
    teller.heads.put_back(at, bytes, consumed, reader);
    match step {
        Step::More => {}
        Step::Idle | Step::Anew(_) => {
            // Pieces behind a hole still wait for their turn.
            if !entry.has(by(flag::WAITING, toward)) {
                teller.release(entry, place, toward);
                let next = entry.next_seq(toward).wrapping_add(missing);
                entry.expect_seq(toward, next);
            }
        }
        Step::Done => teller.finish(entry, place, toward),
    }
}

/// Tells the head and reads it on; returns how many bytes are not needed any more and what is next.
fn read<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    toward: Toward,
    bytes: &[u8],
    reader: &mut Reader,
    last: bool,
) -> (usize, Step) {
    let (told, wanted) = (by(flag::HEAD_TOLD, toward), by(flag::HEAD_WANTED, toward));
    let mut consumed = 0;
    for _ in 0..MAX_TUNNELS {
        let head = bytes.get(consumed..).unwrap_or_default();
        if head.is_empty() {
            return (consumed, Step::Idle);
        }
        if entry.has(wanted) || !entry.has(told) {
            entry.put(told, true);
            let appetite = teller.tell_head(entry, toward, head, reader.middle);
            let more = appetite == Appetite::More && head.len() < teller.heads.limit && !last;
            entry.put(wanted, more);
        }
        let step = reader.read(teller, entry, toward, head, last);
        if let Step::Anew(at) = step {
            consumed += at;
            *reader = Reader::default();
            for read in [told, wanted, by(flag::GAP, toward), by(flag::SHOWN, toward)] {
                entry.put(read, false);
            }
            continue;
        }
        if entry.has(wanted) {
            return (consumed, Step::More);
        }
        consumed += reader.shed();
        let left = bytes.len() - consumed;
        return match step {
            Step::More if last || left >= teller.heads.limit => (consumed, Step::Done),
            step => (consumed, step),
        };
    }
    (bytes.len(), Step::Done)
}

/// A segment is far from the bytes that are expected, or would make more holes than are kept: what is
/// missing is given up.
#[cold]
fn give_up<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    place: u32,
    toward: Toward,
    segment: Segment<'_>,
    is_far: bool,
) {
    gap(teller, entry, toward);
    leap(teller, entry, place, toward);
    if entry.has(by(flag::HEAD_TOLD, toward)) && !entry.has(flag::DNS) {
        if !is_far || entry.bytes(toward) >= ASTRAY_WITHIN {
            return teller.finish(entry, place, toward);
        }
        for read in [flag::DONE, flag::HEAD_TOLD, flag::HEAD_WANTED] {
            entry.put(by(read, toward), false);
        }
    }
    // A handshake that does not fit what is sent must not blind us: this is then the middle.
    teller.release(entry, place, toward);
    start(teller, entry, place, toward, segment, Reader::in_the_middle());
}

/// Gives up what comes before the longest piece and reads that, if nothing was told so far.
fn leap<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    place: u32,
    toward: Toward,
) {
    let at = entry.held(toward);
    entry.put(by(flag::WAITING, toward), false);
    if entry.has(by(flag::HEAD_TOLD, toward)) || !teller.heads.is_held(at, (place, toward)) {
        return;
    }
    if let Some(leapt) = teller.heads.leap(at) {
        entry.expect_seq(toward, entry.next_seq(toward).wrapping_add(leapt));
        read_held(teller, entry, place, toward, 0);
    }
}

/// The other end has confirmed bytes of this direction that did not come: the capture lost them, or
/// shows them late.
#[cold]
pub(super) fn confirmed<O>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    toward: Toward,
    up_to: u32,
) {
    let beyond = up_to.wrapping_sub(entry.next_seq(toward));
    if beyond != 0 && beyond < 1 << 31 {
        gap(teller, entry, toward);
    }
}

/// The flow ends: what is missing does not come any more.
pub(super) fn ended<O>(teller: &mut Teller<'_, O>, entry: &mut Entry) {
    for toward in [Toward::Remote, Toward::Local] {
        if entry.has(by(flag::WAITING, toward)) {
            gap(teller, entry, toward);
        }
    }
}

/// Tells the first that came behind a hole, if nothing was told of this direction so far.
#[cold]
fn show<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    toward: Toward,
    payload: &[u8],
) {
    let shown = by(flag::SHOWN, toward);
    if !entry.has(by(flag::HEAD_TOLD, toward)) && !entry.has(shown) {
        entry.put(shown, true);
        teller.tell_head(entry, toward, payload, true);
    }
}

/// A SYN says where a direction begins; what was read of it before, out of order, fits or is read anew.
pub(super) fn opened<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    place: u32,
    toward: Toward,
    first: u32,
    bytes_before: u64,
) {
    let ahead = entry.next_seq(toward).wrapping_sub(first);
    let known = entry.has(by(flag::SEQ_KNOWN, toward));
    if !known {
        return entry.expect_seq(toward, first);
    }
    let early = teller.early.take(&entry.tuple, toward);
    // What was shown first is the beginning, or it is something later and waits for its turn now.
    let fits = match early.first() {
        Some((seq, _)) => *seq == first,
        None => u64::from(ahead) <= bytes_before,
    };
    if ahead == 0 || fits {
        return;
    }
    begin_anew(teller, entry, place, toward, first);
    for (seq, payload) in &early {
        if seq.wrapping_sub(first) < HOPELESS {
            let segment = Segment { seq: *seq, payload, missing: 0 };
            take(teller, entry, place, toward, segment);
        }
    }
}

/// A SYN was answered: bytes that came with it and were not taken are sent again, or others are.
pub(super) fn answered<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    place: u32,
    toward: Toward,
    next: u32,
) {
    if !entry.has(by(flag::SEQ_KNOWN, toward)) {
        return entry.expect_seq(toward, next);
    }
    let ahead = entry.next_seq(toward).wrapping_sub(next);
    let wrong = if entry.has(flag::START_SEEN) {
        // What followed the SYN may be shown before its answer; what came with it was refused.
        ahead != 0 && entry.has(flag::SYN_DATA)
    } else {
        u64::from(ahead) > entry.bytes(toward)
    };
    if wrong {
        entry.put(flag::SYN_DATA, false);
        begin_anew(teller, entry, place, toward, next);
    }
}

fn begin_anew<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    place: u32,
    toward: Toward,
    first: u32,
) {
    teller.release(entry, place, toward);
    let read = [flag::HEAD_TOLD, flag::HEAD_WANTED, flag::GAP, flag::WAITING, flag::SHOWN];
    for read in [flag::DONE].into_iter().chain(read) {
        entry.put(by(read, toward), false);
    }
    entry.expect_seq(toward, first);
}

/// Counts a hole, once for each head.
fn gap<O>(teller: &mut Teller<'_, O>, entry: &mut Entry, toward: Toward) {
    if !entry.has(by(flag::GAP, toward)) {
        entry.put(by(flag::GAP, toward), true);
        teller.totals.head_gaps += 1;
    }
}

/// A segment in a flow that spoke HTTP: another head may begin, or, where a proxy was asked for a
/// tunnel and its answer was not seen in time, what the tunnel carries.
fn later<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    place: u32,
    toward: Toward,
    segment: Segment<'_>,
) {
    let Some(first) = segment.payload.first() else { return };
    // What was read already may be sent again.
    if entry.next_seq(toward).wrapping_sub(segment.seq).wrapping_sub(1) < HOPELESS {
        return;
    }
    let is_response = *first == b'H' && may_be_response(segment.payload);
    let asked = by(flag::CONNECT, toward.opposite());
    let tunnel = entry.has(asked) && !is_response;
    let begins = *first == TLS_HANDSHAKE
        || is_response
        || first.is_ascii_uppercase() && may_be_request(segment.payload);
    if !tunnel && !begins {
        return;
    }
    for read in [flag::DONE, flag::HEAD_WANTED, flag::GAP] {
        entry.put(by(read, toward), false);
    }
    if tunnel {
        entry.put(asked, false);
        entry.put(by(flag::HEAD_TOLD, toward), false);
    }
    start(teller, entry, place, toward, segment, Reader::default());
}
