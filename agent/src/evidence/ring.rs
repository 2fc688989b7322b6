//! The last frames, in memory that was taken once.

use sekisho_engine::wire::{Frame, LinkType};
use std::collections::VecDeque;
use std::net::IpAddr;

/// Bytes of a frame within which an address is looked for: headers, tunnels around them, and the records of a DNS answer.
const SEARCHED: usize = 512;
/// Bytes kept of a frame that can decide: a whole one of an ordinary network.
const SNAP_EARLY: usize = 1_600;
/// Bytes kept of any other frame: its headers, and the beginning of what it says.
const SNAP_BULK: usize = 160;
/// Bytes of ring for each entry of the index: an empty segment takes about as much.
const BYTES_AN_ENTRY: usize = 96;

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

/// A ring of frames: the newest push out the oldest.
#[derive(Debug)]
struct Ring {
    bytes: Vec<u8>,
    index: VecDeque<Entry>,
    entries: usize,
    next: usize,
    snap: usize,
}

impl Ring {
    fn new(capacity: usize, snap: usize) -> Self {
        let entries = (capacity / BYTES_AN_ENTRY).max(1);
        Self {
            bytes: vec![0; capacity.max(snap)],
            index: VecDeque::with_capacity(entries),
            entries,
            next: 0,
            snap,
        }
    }

    #[inline]
    fn push(&mut self, frame: &Frame<'_>) {
        let kept = frame.bytes.get(..self.snap).unwrap_or(frame.bytes);
        if self.next + kept.len() > self.bytes.len() {
            // What lies between here and the end goes with the oldest.
            while self.index.front().is_some_and(|oldest| oldest.offset >= self.next) {
                self.index.pop_front();
            }
            self.next = 0;
        }
        let end = self.next + kept.len();
        while let Some(oldest) = self.index.front() {
            let overlaps = oldest.offset < end && oldest.offset + oldest.length > self.next;
            if !overlaps && self.index.len() < self.entries {
                break;
            }
            self.index.pop_front();
        }
        if let Some(place) = self.bytes.get_mut(self.next..end) {
            place.copy_from_slice(kept);
        }
        self.index.push_back(Entry {
            at_ns: frame.at_ns,
            link: frame.link,
            wire_len: frame.wire_len,
            offset: self.next,
            length: kept.len(),
        });
        self.next = end;
    }

    fn frames(&self) -> impl Iterator<Item = (&Entry, &[u8])> {
        self.index.iter().filter_map(|entry| {
            let bytes = self.bytes.get(entry.offset..entry.offset + entry.length)?;
            Some((entry, bytes))
        })
    }
}

/// What was on the wire a moment ago: one ring for frames that can decide, which stay longer, one for the rest.
#[derive(Debug)]
pub struct Recent {
    early: Ring,
    bulk: Ring,
}

impl Recent {
    /// Takes the memory; half of it for each ring.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            early: Ring::new(capacity / 2, SNAP_EARLY),
            bulk: Ring::new(capacity / 2, SNAP_BULK),
        }
    }

    /// Keeps a frame; nothing is allocated.
    #[inline]
    pub fn push(&mut self, frame: &Frame<'_>, can_decide: bool) {
        if can_decide { &mut self.early } else { &mut self.bulk }.push(frame);
    }

    /// The frames that name an address near their beginning, in the order of their times: what went there, what
    /// came from there, and the answer that told the host of it. At most `most` bytes: the first half of them from
    /// the oldest frames, the rest from the newest.
    #[must_use]
    pub fn about(&self, address: IpAddr, most: usize) -> Selection {
        let (four, sixteen);
        let needle: &[u8] = match address.to_canonical() {
            IpAddr::V4(address) => {
                four = address.octets();
                &four
            }
            IpAddr::V6(address) => {
                sixteen = address.octets();
                &sixteen
            }
        };
        let mut found: Vec<(&Entry, &[u8])> = self
            .early
            .frames()
            .chain(self.bulk.frames())
            .filter(|(_, bytes)| contains(bytes.get(..SEARCHED).unwrap_or(bytes), needle))
            .collect();
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

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(at_ns: i64, bytes: &[u8]) -> Frame<'_> {
        Frame { at_ns, link: LinkType::Ethernet, wire_len: 1500, bytes }
    }

    #[test]
    fn the_newest_push_out_the_oldest_and_what_is_kept_is_whole() {
        let mut ring = Ring::new(4_096, SNAP_EARLY);
        for n in 0..1_000_u16 {
            let length = 60 + usize::from(n * 37 % 900);
            let bytes = vec![n.to_be_bytes()[1]; length];
            ring.push(&frame(i64::from(n), &bytes));
            let kept: usize = ring.frames().map(|(entry, _)| entry.length).sum();
            assert!(kept <= 4_096);
            for (entry, bytes) in ring.frames() {
                let fill = u16::try_from(entry.at_ns).unwrap().to_be_bytes()[1];
                assert!(
                    bytes.iter().all(|byte| *byte == fill),
                    "frame {} was overwritten",
                    entry.at_ns
                );
            }
        }
        let times: Vec<i64> = ring.frames().map(|(entry, _)| entry.at_ns).collect();
        assert_eq!(times.last(), Some(&999));
        assert!(times.is_sorted() && times.len() > 3);
    }

    #[test]
    fn memory_is_taken_once() {
        let mut ring = Ring::new(8_192, SNAP_BULK);
        let (bytes, entries) = (ring.bytes.capacity(), ring.index.capacity());
        for n in 0..10_000 {
            ring.push(&frame(n, &[7; 20]));
        }
        assert_eq!((ring.bytes.capacity(), ring.index.capacity()), (bytes, entries));
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
        let found = recent.about(c2.into(), 1 << 20);
        assert_eq!(found.frames.iter().map(|kept| kept.at_ns).collect::<Vec<_>>(), [10, 20]);
        assert_eq!((found.frames[0].bytes.as_slice(), found.left_out), (a.as_slice(), 0));
    }

    #[test]
    fn of_too_many_frames_the_oldest_and_the_newest_are_told() {
        let mut recent = Recent::new(1 << 16);
        for n in 0..100_u8 {
            recent.push(&frame(i64::from(n), &[&[203, 0, 113, 9][..], &[n; 96]].concat()), true);
        }
        let found = recent.about([203, 0, 113, 9].into(), 1_000);
        let times: Vec<i64> = found.frames.iter().map(|kept| kept.at_ns).collect();
        assert_eq!(times, [0, 1, 2, 3, 4, 95, 96, 97, 98, 99]);
        assert_eq!(found.left_out, 90);
    }
}
