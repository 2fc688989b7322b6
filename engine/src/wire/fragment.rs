//! Datagrams put together from their fragments, bounded in number, bytes, pieces and time.

use std::collections::VecDeque;

use ahash::RandomState;
use hashbrown::HashTable;

use self::piece::{Key, LONGEST, view};
use super::network::Part;
use super::{PacketView, Unparsed};
use crate::limits::Limits;

mod piece;

pub use self::piece::Piece;

/// Buffers kept for the next datagrams, and the longest that is kept.
const SPARE: usize = 16;
const SPARE_CAPACITY: usize = 2 * LONGEST as usize;

/// What became of a fragment.
#[derive(Debug)]
pub enum Taken {
    /// It is kept until the others come.
    Held,
    /// It is not kept.
    Refused(Unparsed),
    /// It spoiled its datagram, of which nothing is kept; what follows of that is refused too.
    Spoiled(Unparsed, Gathered),
    /// It was the last that was missing.
    Whole(Gathered),
}

/// The bytes of a datagram that left the table, whole or given up.
#[derive(Debug)]
pub struct Gathered {
    key: Key,
    next: u8,
    /// The buffer, of which the first `len` bytes follow each other without a hole.
    bytes: Vec<u8>,
    len: u32,
    whole: bool,
    /// Fragments that were held.
    pub pieces: u64,
    /// Payload that was counted when the first fragment came; `None` if that was not read.
    pub counted: Option<u32>,
    /// Bytes held behind the first hole.
    pub tails: u32,
}

impl Gathered {
    /// Tunnels around the datagram.
    #[must_use]
    pub const fn depth(&self) -> u8 {
        self.key.depth
    }

    /// The datagram as one packet; of one that was given up, what it shows up to its first hole.
    ///
    /// # Errors
    /// The reason for which there is nothing to judge.
    pub fn view(&self) -> Result<PacketView<'_>, Unparsed> {
        let body = self.bytes.get(..self.len as usize).filter(|body| !body.is_empty());
        let body = body.ok_or(Unparsed::FragmentTail)?;
        let part = Part { id: self.key.id, offset: 0, more: true, headers: 0 };
        view(&self.key, self.next, body, self.len, (!self.whole).then_some(part))
    }
}

/// A piece that is held: where it belongs in the datagram, and where it stands in the buffer.
#[derive(Clone, Copy, Debug)]
struct Held {
    start: u32,
    len: u32,
    at: u32,
}

impl Held {
    const fn end(&self) -> u32 {
        self.start + self.len
    }
}

#[derive(Debug)]
struct Datagram {
    key: Key,
    /// Tells this datagram from others that had the place.
    serial: u64,
    deadline: i64,
    next: u8,
    counted: Option<u32>,
    /// Length, once the last piece came.
    total: Option<u32>,
    /// By place in the datagram.
    pieces: Vec<Held>,
    /// In the order of coming: what is held is what was sent, whatever offsets say.
    bytes: Vec<u8>,
    /// Why nothing more of it is taken.
    spoiled: Option<Unparsed>,
}

/// Fragments that wait for others of their datagram.
///
/// A datagram is given up after its time, or when more datagrams or bytes are held than the limits
/// allow: then the oldest gives way. Time comes with the fragments.
///
/// Overlapping fragments, also a second last one and a different total length, spoil their datagram
/// (RFC 5722). An exact duplicate is dropped and does not, as RFC 8200 §4.5 allows: a mirror port
/// and a bridge show packets twice, and two equal readings cannot differ from the receiver's.
#[derive(Debug)]
pub struct Fragments {
    index: HashTable<u32>,
    places: Vec<Datagram>,
    free: Vec<u32>,
    /// Places with their serial numbers by age; those whose number has changed are stale.
    ages: VecDeque<(u32, u64)>,
    spare: Vec<Vec<u8>>,
    /// Where pieces that came out of order are joined.
    joined: Vec<u8>,
    hasher: RandomState,
    serial: u64,
    /// Deadline of the oldest.
    due: i64,
    /// Capacity of all buffers in places.
    bytes: usize,
    most: usize,
    most_bytes: usize,
    most_pieces: usize,
    patience: i64,
}

impl Fragments {
    /// Makes a table that holds nothing; `hasher` keeps strangers from choosing colliding keys.
    #[must_use]
    pub fn new(limits: &Limits, hasher: RandomState) -> Self {
        Self {
            index: HashTable::new(),
            places: Vec::new(),
            free: Vec::new(),
            ages: VecDeque::new(),
            spare: Vec::new(),
            joined: Vec::new(),
            hasher,
            serial: 0,
            due: i64::MAX,
            bytes: 0,
            most: limits.fragments.clamp(1, u32::MAX as usize),
            most_bytes: limits.fragment_bytes,
            most_pieces: limits.fragment_pieces,
            patience: limits.fragment_lifetime.nanos(),
        }
    }

    /// The same without any fragment.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self {
            index: HashTable::new(),
            places: Vec::new(),
            free: Vec::new(),
            ages: VecDeque::new(),
            spare: Vec::new(),
            joined: Vec::new(),
            hasher: self.hasher.clone(),
            serial: 0,
            due: i64::MAX,
            bytes: 0,
            ..*self
        }
    }

    /// Datagrams held, those that were spoiled included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Bytes of memory in buffers of datagrams.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.bytes
    }

    /// Fragments held.
    #[must_use]
    pub fn held_pieces(&self) -> u64 {
        self.places.iter().map(|datagram| datagram.pieces.len() as u64).sum()
    }

    /// When [`Fragments::expired`] has something to do, in nanoseconds; `i64::MAX` for never.
    #[must_use]
    #[inline]
    pub const fn next_due(&self) -> i64 {
        self.due
    }

    /// Gives up the oldest datagram if its time has come by `now`.
    pub fn expired(&mut self, now: i64) -> Option<Gathered> {
        while self.next_due() <= now && !self.is_empty() {
            // A spoiled one has nothing left to tell.
            if let Some(gathered) = self.oldest_gives_way() {
                return Some(gathered);
            }
        }
        None
    }

    /// Gives up the oldest datagram if there is no room for a piece; to be called until `None`.
    pub fn crowded(&mut self, piece: &Piece<'_>, depth: u8) -> Option<Gathered> {
        while !self.is_empty() {
            let no_place = self.len() >= self.most && self.find(&piece.key.at(depth)).is_none();
            let no_bytes = self.bytes.saturating_add(piece.body.len()) > self.most_bytes;
            if !(no_place || no_bytes) {
                return None;
            }
            if let Some(gathered) = self.oldest_gives_way() {
                return Some(gathered);
            }
        }
        None
    }

    /// Takes a fragment inside `depth` tunnels at time `at`, which never falls.
    ///
    /// `counted` is the payload of a first fragment that the caller has counted.
    pub fn take(&mut self, at: i64, piece: &Piece<'_>, depth: u8, counted: Option<u32>) -> Taken {
        let body = match piece.fitting() {
            Ok(body) => body,
            Err(reason) => return Taken::Refused(reason),
        };
        let key = piece.key.at(depth);
        let place = self.find(&key).unwrap_or_else(|| self.begin(key, at));
        let Some(datagram) = self.places.get_mut(place as usize) else {
            return Taken::Refused(Unparsed::FragmentEvicted);
        };
        if datagram.spoiled == Some(Unparsed::FragmentTooMany) && piece.offset == 0 {
            // The identifier may have been given to another by now.
            datagram.begin_anew();
        }
        if let Some(reason) = datagram.spoiled {
            return Taken::Refused(reason);
        }
        match datagram.fit(piece, body) {
            Fit::Duplicate => return Taken::Refused(Unparsed::FragmentDuplicate),
            Fit::Overlap => return self.spoil(place, Unparsed::FragmentOverlap),
            Fit::At(_) if datagram.pieces.len() >= self.most_pieces => {
                return self.spoil(place, Unparsed::FragmentTooMany);
            }
            Fit::At(index) => {
                let before = datagram.bytes.capacity();
                datagram.put(index, piece, body);
                if piece.offset == 0 {
                    datagram.counted = counted;
                }
                self.bytes += datagram.bytes.capacity() - before;
            }
        }
        if datagram.is_whole() { self.whole(place) } else { Taken::Held }
    }

    /// Takes the buffer back for another datagram.
    pub fn give_back(&mut self, gathered: Gathered) {
        self.keep(gathered.bytes);
    }

    fn keep(&mut self, mut bytes: Vec<u8>) {
        if self.joined.capacity() == 0 {
            bytes.clear();
            self.joined = bytes;
        } else if self.spare.len() < SPARE && bytes.capacity() <= SPARE_CAPACITY {
            bytes.clear();
            self.spare.push(bytes);
        }
    }

    fn find(&self, key: &Key) -> Option<u32> {
        let places = &self.places;
        let is_it = |place: &u32| places.get(*place as usize).is_some_and(|held| held.key == *key);
        self.index.find(self.hasher.hash_one(key), is_it).copied()
    }

    fn begin(&mut self, key: Key, at: i64) -> u32 {
        self.serial += 1;
        let bytes = self.spare.pop().unwrap_or_default();
        self.bytes += bytes.capacity();
        let mut datagram = Datagram {
            key,
            serial: self.serial,
            deadline: at.saturating_add(self.patience),
            next: 0,
            counted: None,
            total: None,
            pieces: Vec::new(),
            bytes,
            spoiled: None,
        };
        let place = match self.free.pop() {
            Some(place) => {
                if let Some(free) = self.places.get_mut(place as usize) {
                    std::mem::swap(&mut datagram.pieces, &mut free.pieces);
                    *free = datagram;
                }
                place
            }
            None => {
                self.places.push(datagram);
                (self.places.len() - 1) as u32
            }
        };
        let (places, hasher) = (&self.places, &self.hasher);
        self.index.insert_unique(hasher.hash_one(key), place, |place| {
            places.get(*place as usize).map_or(0, |held| hasher.hash_one(held.key))
        });
        self.ages.push_back((place, self.serial));
        self.note_due();
        place
    }

    /// Lets a datagram go, but keeps that it was spoiled until its time is over.
    fn spoil(&mut self, place: u32, reason: Unparsed) -> Taken {
        match self.gather(place, false) {
            Some(gathered) => {
                if let Some(datagram) = self.places.get_mut(place as usize) {
                    datagram.spoiled = Some(reason);
                }
                Taken::Spoiled(reason, gathered)
            }
            None => Taken::Refused(reason),
        }
    }

    fn whole(&mut self, place: u32) -> Taken {
        let gathered = self.gather(place, true);
        self.free(place);
        gathered.map_or(Taken::Held, Taken::Whole)
    }

    /// The oldest datagram leaves; `None` where it was spoiled, as that has nothing left.
    fn oldest_gives_way(&mut self) -> Option<Gathered> {
        let (place, _) = *self.ages.front()?;
        let gathered = self.gather(place, false);
        self.free(place);
        gathered
    }

    /// Takes the bytes of a datagram out of its place: all, or up to the first hole.
    fn gather(&mut self, place: u32, whole: bool) -> Option<Gathered> {
        let datagram = self.places.get_mut(place as usize)?;
        let held: u32 = datagram.pieces.iter().map(|piece| piece.len).sum();
        let (mut len, mut in_order, mut joins) = (0, true, 0);
        for piece in &datagram.pieces {
            if piece.start != len {
                break;
            }
            len = piece.end();
            in_order &= piece.start == piece.at;
            joins += 1;
        }
        let mut bytes = std::mem::take(&mut datagram.bytes);
        self.bytes = self.bytes.saturating_sub(bytes.capacity());
        if !in_order {
            let mut joined = std::mem::take(&mut self.joined);
            joined.clear();
            for piece in datagram.pieces.iter().take(joins) {
                let from = bytes.get(piece.at as usize..).unwrap_or_default();
                joined.extend_from_slice(from.get(..piece.len as usize).unwrap_or(from));
            }
            std::mem::swap(&mut joined, &mut bytes);
            self.joined = joined;
        }
        let gathered = Gathered {
            key: datagram.key,
            next: datagram.next,
            bytes,
            len,
            whole,
            pieces: datagram.pieces.len() as u64,
            counted: datagram.counted,
            tails: held - len,
        };
        datagram.pieces.clear();
        datagram.spoiled.is_none().then_some(gathered)
    }

    /// Frees a place whose bytes were taken out.
    fn free(&mut self, place: u32) {
        let Some(datagram) = self.places.get_mut(place as usize) else { return };
        datagram.serial = 0;
        let hash = self.hasher.hash_one(datagram.key);
        if let Ok(found) = self.index.find_entry(hash, |held| *held == place) {
            found.remove();
        }
        self.free.push(place);
        while let Some((place, serial)) = self.ages.front()
            && self.places.get(*place as usize).is_none_or(|held| held.serial != *serial)
        {
            self.ages.pop_front();
        }
        // Behind an old datagram that still waits, the ages of others gather: seldom swept.
        if self.ages.len() > 2 * self.most {
            let places = &self.places;
            self.ages.retain(|(place, serial)| {
                places.get(*place as usize).is_some_and(|held| held.serial == *serial)
            });
        }
        self.note_due();
    }

    /// Keeps the oldest deadline at hand; the front is never stale, as [`Fragments::free`] sees to it.
    fn note_due(&mut self) {
        let oldest = self.ages.front().and_then(|(place, _)| self.places.get(*place as usize));
        self.due = oldest.map_or(i64::MAX, |datagram| datagram.deadline);
    }
}

/// How a piece fits to those that are held.
enum Fit {
    /// It belongs before the piece with this index.
    At(usize),
    Duplicate,
    Overlap,
}

impl Datagram {
    fn fit(&self, piece: &Piece<'_>, body: &[u8]) -> Fit {
        let (start, end) = (piece.offset, piece.offset + body.len() as u32);
        let index = self.pieces.partition_point(|held| held.start < start);
        let after = self.pieces.get(index);
        if let Some(same) = after.filter(|held| held.start == start && held.end() == end) {
            let from = self.bytes.get(same.at as usize..).unwrap_or_default();
            let is_last = self.total == Some(end);
            let equal = from.get(..body.len()) == Some(body) && is_last != piece.more;
            return if equal { Fit::Duplicate } else { Fit::Overlap };
        }
        let before = index.checked_sub(1).and_then(|index| self.pieces.get(index));
        let overlaps = before.is_some_and(|held| held.end() > start)
            || after.is_some_and(|held| held.start < end);
        let beyond = match self.total {
            // A second last piece, or one behind the last.
            Some(total) => !piece.more || end >= total,
            None => !piece.more && self.pieces.last().is_some_and(|held| held.end() > start),
        };
        if overlaps || beyond { Fit::Overlap } else { Fit::At(index) }
    }

    fn put(&mut self, index: usize, piece: &Piece<'_>, body: &[u8]) {
        let held =
            Held { start: piece.offset, len: body.len() as u32, at: self.bytes.len() as u32 };
        self.pieces.insert(index, held);
        self.bytes.extend_from_slice(body);
        if piece.offset == 0 {
            self.next = piece.next;
        }
        if !piece.more {
            self.total = Some(held.end());
        }
    }

    /// Forgets the datagram that had the identifier before.
    fn begin_anew(&mut self) {
        self.spoiled = None;
        self.total = None;
        self.counted = None;
    }

    /// Pieces never overlap, so their lengths alone tell.
    fn is_whole(&self) -> bool {
        self.total.is_some_and(|total| total as usize == self.bytes.len())
    }
}
