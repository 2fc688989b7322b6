//! The last frames, in memory that was taken once.
//!
//! A ring is a row of pieces that are filled one after the other and never changed once they are full: whoever wants to
//! look through them takes hold of them for next to nothing, and looks in a thread where no frame waits.

use sekisho_engine::wire::{Frame, LinkType};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

/// Bytes of a frame within which an address is looked for: headers, tunnels around them, and the records of a DNS answer.
const SEARCHED: usize = 512;
/// Bytes kept of a frame that can decide: a whole one of an ordinary network.
const SNAP_EARLY: usize = 1_600;
/// Bytes kept of any other frame: its headers, and the beginning of what it says.
const SNAP_BULK: usize = 160;
/// Bytes of ring for each entry of the index: an empty segment takes about as much.
const BYTES_AN_ENTRY: usize = 96;
/// A piece is this part of its ring, and no larger than what is copied in some microseconds.
const PIECES: usize = 64;
const PIECE_BYTES: usize = 256 * 1024;
/// Glances that are held at once, at most: the pieces in them stay until they are gone.
const GLANCES: usize = 4;

/// One frame that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Capture time in nanoseconds since the Unix epoch.
    pub at_ns: i64,
    /// What the first bytes are.
    pub link: LinkType,
    /// Length on the wire.
    pub wire_len: u32,
    /// The bytes that were kept.
    pub bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at_ns: i64,
    link: LinkType,
    wire_len: u32,
    offset: usize,
    length: usize,
}

/// Frames one behind the other.
#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    index: Vec<Entry>,
}

impl Piece {
    fn new(capacity: usize) -> Self {
        let entries = (capacity / BYTES_AN_ENTRY).max(1);
        Self { bytes: Vec::with_capacity(capacity), index: Vec::with_capacity(entries) }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.index.clear();
    }

    fn has_room(&self, length: usize) -> bool {
        self.bytes.len() + length <= self.bytes.capacity()
            && self.index.len() < self.index.capacity()
    }

    fn copy(&self) -> Self {
        Self { bytes: self.bytes.clone(), index: self.index.clone() }
    }

    fn frames(&self) -> impl Iterator<Item = (&Entry, &[u8])> {
        self.index.iter().filter_map(|entry| {
            let bytes = self.bytes.get(entry.offset..entry.offset + entry.length)?;
            Some((entry, bytes))
        })
    }
}

/// A ring of frames: the newest push out the oldest, a piece at a time.
#[derive(Debug)]
struct Ring {
    full: VecDeque<Arc<Piece>>,
    filling: Piece,
    /// Pieces that were never filled, or are free again.
    spare: Vec<Piece>,
    piece_bytes: usize,
    snap: usize,
}

impl Ring {
    fn new(capacity: usize, snap: usize) -> Self {
        let piece_bytes = (capacity / PIECES).min(PIECE_BYTES).max(snap);
        let pieces = (capacity / piece_bytes).max(2);
        Self {
            full: VecDeque::with_capacity(pieces),
            filling: Piece::new(piece_bytes),
            spare: (1..pieces).map(|_| Piece::new(piece_bytes)).collect(),
            piece_bytes,
            snap,
        }
    }

    #[inline]
    fn push(&mut self, frame: &Frame<'_>) {
        let kept = frame.bytes.get(..self.snap).unwrap_or(frame.bytes);
        if !self.filling.has_room(kept.len()) {
            self.turn();
        }
        let offset = self.filling.bytes.len();
        self.filling.bytes.extend_from_slice(kept);
        self.filling.index.push(Entry {
            at_ns: frame.at_ns,
            link: frame.link,
            wire_len: frame.wire_len,
            offset,
            length: kept.len(),
        });
    }

    /// Goes on in a free piece, or in the oldest one.
    #[cold]
    fn turn(&mut self) {
        let next = self.spare.pop().unwrap_or_else(|| {
            // Somebody still looks through the oldest: it stays theirs, and another takes its place.
            let oldest = self.full.pop_front().and_then(Arc::into_inner);
            oldest.unwrap_or_else(|| Piece::new(self.piece_bytes))
        });
        let full = std::mem::replace(&mut self.filling, next);
        self.filling.clear();
        self.full.push_back(Arc::new(full));
    }

    fn glance(&self, pieces: &mut Vec<Arc<Piece>>) {
        pieces.extend(self.full.iter().cloned());
        pieces.push(Arc::new(self.filling.copy()));
    }
}

/// What was on the wire a moment ago: one ring for frames that can decide, which stay longer, one for the rest.
#[derive(Debug)]
pub struct Recent {
    early: Ring,
    bulk: Ring,
    /// One more of it is held by each glance.
    glances: Arc<()>,
}

impl Recent {
    /// Takes the memory; half of it for each ring.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            early: Ring::new(capacity / 2, SNAP_EARLY),
            bulk: Ring::new(capacity / 2, SNAP_BULK),
            glances: Arc::new(()),
        }
    }

    /// Keeps a frame; nothing is allocated.
    #[inline]
    pub fn push(&mut self, frame: &Frame<'_>, can_decide: bool) {
        if can_decide { &mut self.early } else { &mut self.bulk }.push(frame);
    }

    /// All frames as they are now, for another thread to look through: at most 512 KiB are copied. None while four
    /// others are held, as each can keep a whole ring's memory from being used anew.
    #[must_use]
    pub fn glance(&self) -> Option<Glance> {
        if Arc::strong_count(&self.glances) > GLANCES {
            return None;
        }
        let mut pieces = Vec::with_capacity(self.early.full.len() + self.bulk.full.len() + 2);
        self.early.glance(&mut pieces);
        self.bulk.glance(&mut pieces);
        Some(Glance { pieces, _held: Arc::clone(&self.glances) })
    }
}

/// The frames of one moment.
#[derive(Debug)]
pub struct Glance {
    pieces: Vec<Arc<Piece>>,
    _held: Arc<()>,
}

impl Glance {
    /// The frames that name an address near their beginning, in the order of their times: what went there, what
    /// came from there, and the answer that told the host of it. At most `most` bytes: the first half of them from
    /// the oldest frames, the rest from the newest.
    #[must_use]
    pub fn about(&self, address: IpAddr, most: usize) -> Selection {
        let mut found: Vec<(&Entry, &[u8])> = match address.to_canonical() {
            IpAddr::V4(address) => self.naming(&address.octets()),
            IpAddr::V6(address) => self.naming(&address.octets()),
        };
        found.sort_by_key(|(entry, _)| entry.at_ns);
        let mut size = 0;
        let oldest = found.iter().take_while(|(_, bytes)| add(&mut size, bytes, most / 2)).count();
        let newest = found
            .iter()
            .skip(oldest)
            .rev()
            .take_while(|(_, bytes)| add(&mut size, bytes, most))
            .count();
        let left_out = found.len() - oldest - newest;
        let frames = found
            .iter()
            .take(oldest)
            .chain(found.iter().skip(oldest + left_out))
            .map(|(entry, bytes)| Kept {
                at_ns: entry.at_ns,
                link: entry.link,
                wire_len: entry.wire_len,
                bytes: bytes.to_vec(),
            })
            .collect();
        Selection { frames, left_out }
    }

    fn naming<const N: usize>(&self, needle: &[u8; N]) -> Vec<(&Entry, &[u8])> {
        let frames = self.pieces.iter().flat_map(|piece| piece.frames());
        frames
            .filter(|(_, bytes)| contains(bytes.get(..SEARCHED).unwrap_or(bytes), needle))
            .collect()
    }
}

/// Frames about one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// In the order of their times.
    pub frames: Vec<Kept>,
    /// Frames between the oldest and the newest that were too many.
    pub left_out: usize,
}

fn add(size: &mut usize, bytes: &[u8], most: usize) -> bool {
    *size += bytes.len();
    let fits = *size <= most;
    if !fits {
        *size -= bytes.len();
    }
    fits
}

/// The length is known while compiling: a step is one comparison of a register.
fn contains<const N: usize>(bytes: &[u8], needle: &[u8; N]) -> bool {
    bytes.windows(N).any(|window| window.first_chunk() == Some(needle))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(at_ns: i64, bytes: &[u8]) -> Frame<'_> {
        Frame { at_ns, link: LinkType::Ethernet, wire_len: 1500, bytes }
    }

    fn times(recent: &Recent) -> Vec<i64> {
        let glance = recent.glance().unwrap();
        let frames = glance.pieces.iter().flat_map(|piece| piece.frames());
        frames.map(|(entry, _)| entry.at_ns).collect()
    }

    #[test]
    fn the_newest_push_out_the_oldest_and_what_is_kept_is_whole() {
        let mut recent = Recent::new(32_768);
        for n in 0..1_000_u16 {
            let length = 60 + usize::from(n * 37 % 900);
            let bytes = vec![n.to_be_bytes()[1]; length];
            recent.push(&frame(i64::from(n), &bytes), true);
            let glance = recent.glance().unwrap();
            let frames = || glance.pieces.iter().flat_map(|piece| piece.frames());
            assert!(frames().map(|(entry, _)| entry.length).sum::<usize>() <= 16_384);
            for (entry, bytes) in frames() {
                let fill = u16::try_from(entry.at_ns).unwrap().to_be_bytes()[1];
                assert!(
                    bytes.iter().all(|byte| *byte == fill),
                    "frame {} was overwritten",
                    entry.at_ns
                );
            }
        }
        let times = times(&recent);
        assert_eq!(times.last(), Some(&999));
        assert!(times.is_sorted() && times.len() > 12, "{times:?}");
    }

    #[test]
    fn memory_is_taken_once() {
        let mut ring = Ring::new(65_536, SNAP_BULK);
        let held = |ring: &Ring| {
            let all = ring.full.iter().map(AsRef::as_ref).chain(&ring.spare).chain([&ring.filling]);
            let mut places: Vec<_> = all.map(|piece| piece.bytes.as_ptr()).collect();
            places.sort();
            places
        };
        let before = held(&ring);
        assert_eq!(before.len(), PIECES);
        for n in 0..100_000 {
            ring.push(&frame(n, &[7; 20]));
        }
        assert_eq!(held(&ring), before);
    }

    #[test]
    fn a_glance_keeps_its_moment_while_frames_go_on_and_only_so_many_are_held() {
        let mut recent = Recent::new(1 << 16);
        let (c2, other) = ([203, 0, 113, 9], [198, 51, 100, 7]);
        for n in 0..50 {
            recent.push(&frame(n, &[&[0; 30][..], &c2, &[1; 60]].concat()), false);
        }
        let early = recent.glance().unwrap();
        for n in 50..100_000 {
            recent.push(&frame(n, &[&[0; 30][..], &other, &[1; 60]].concat()), false);
        }
        assert_eq!(early.about(c2.into(), 1 << 20).frames.len(), 50);
        assert_eq!(early.about(other.into(), 1 << 20).frames.len(), 0);
        let late = recent.glance().unwrap();
        assert_eq!(late.about(c2.into(), 1 << 20).frames.len(), 0);
        assert!(late.about(other.into(), 1 << 20).frames.len() > 200);
        let more = (recent.glance().unwrap(), recent.glance().unwrap());
        assert!(recent.glance().is_none());
        drop(more);
        assert!(recent.glance().is_some());
    }

    #[test]
    fn frames_about_an_address_come_in_order_from_both_rings() {
        let mut recent = Recent::new(1 << 16);
        let c2 = [203, 0, 113, 9];
        let named = |at| [&[0; 30][..], &c2, &[at; 10]].concat();
        let (a, b, other) = (named(1), named(2), vec![9; 60]);
        recent.push(&frame(20, &b), false);
        recent.push(&frame(10, &a), true);
        recent.push(&frame(15, &other), true);
        let found = recent.glance().unwrap().about(c2.into(), 1 << 20);
        assert_eq!(found.frames.iter().map(|kept| kept.at_ns).collect::<Vec<_>>(), [10, 20]);
        assert_eq!((found.frames[0].bytes.as_slice(), found.left_out), (a.as_slice(), 0));
    }

    #[test]
    fn of_too_many_frames_the_oldest_and_the_newest_are_told() {
        let mut recent = Recent::new(1 << 16);
        for n in 0..100_u8 {
            recent.push(&frame(i64::from(n), &[&[203, 0, 113, 9][..], &[n; 96]].concat()), true);
        }
        let found = recent.glance().unwrap().about([203, 0, 113, 9].into(), 1_000);
        let times: Vec<i64> = found.frames.iter().map(|kept| kept.at_ns).collect();
        assert_eq!(times, [0, 1, 2, 3, 4, 95, 96, 97, 98, 99]);
        assert_eq!(found.left_out, 90);
    }
}
