//! Bytes of information that went out in new names below one registered domain (detection.md, 2.3 and 4.3).
//!
//! A name tunnel must say something new in each name. Counted is what a name's characters can carry at
//! most by how often each occurs, once for each name.

use super::keep::keep_fields;
use crate::certify::episode::{DNS_DAY_HOURS, ScoreInputs, input};
use sekisho_schema::{Span, Timestamp};

/// Most bits that one character of a name is taken to carry: base32.
const MOST_BITS: f64 = 5.0;
/// Words of the set of names.
const WORDS: usize = 8;
/// Places of a name in the set.
const PLACES: u32 = 3;

const HOUR: Span = Span::from_hours(1);
const DAY: Span = Span::from_hours(24);
const WEEK: Span = Span::from_hours(7 * 24);

/// Bytes of information in the part of a name that its owner made up, dots not counted.
#[must_use]
pub fn information(below: &str) -> f64 {
    let mut counts = [0_u32; 256];
    // A bit for each byte that occurs: few of all do.
    let mut there = [0_u128; 2];
    let mut length = 0_u32;
    for byte in below.bytes().filter(|byte| *byte != b'.') {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count += 1;
        }
        if let Some(there) = there.get_mut(usize::from(byte >> 7)) {
            *there |= 1 << (byte & 0x7F);
        }
        length += 1;
    }
    if length == 0 {
        return 0.0;
    }
    let length = f64::from(length);
    let mut entropy = 0.0;
    for (mut there, first) in there.into_iter().zip([0, 128]) {
        while there != 0 {
            let byte = first + there.trailing_zeros() as usize;
            there &= there - 1;
            let share = f64::from(counts.get(byte).copied().unwrap_or(0)) / length;
            entropy -= share * share.log2();
        }
    }
    length * entropy.min(MOST_BITS) / 8.0
}

/// A set of names that may take one for known, more often the more it holds; and their information.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Window {
    began: Timestamp,
    names: [u64; WORDS],
    bytes: f64,
}
keep_fields!(Window { began, names, bytes });

impl Window {
    fn ask(&mut self, at: Timestamp, lasts: Span, below: &str, bytes: f64) -> f64 {
        if at.since(self.began) > lasts || at < self.began {
            *self = Self { began: at, ..Self::default() };
        }
        // Where the window began nobody can know beforehand: nobody can choose names that count for nothing.
        if self.is_new(mixed(below.as_bytes(), self.began.nanos() as u64)) {
            self.bytes += bytes;
        }
        self.bytes
    }

    fn is_new(&mut self, hash: u64) -> bool {
        let mut is_new = false;
        for place in 0..PLACES {
            let bit = (hash >> (place * 9)) as usize & 0x1FF;
            if let Some(word) = self.names.get_mut(bit / 64) {
                is_new |= *word >> (bit % 64) & 1 == 0;
                *word |= 1 << (bit % 64);
            }
        }
        is_new
    }
}

/// FNV-1a under a salt, with the finish of splitmix64: spreads, and is the same everywhere.
pub(super) fn mixed(bytes: &[u8], salt: u64) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325 ^ salt.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
    }
    hash = (hash ^ hash >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ hash >> 31
}

/// What went out below one registered domain: within an hour and within a day, and the most of each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NameInformation {
    hour: Window,
    day: Window,
    highest_hour: f64,
    highest_day: f64,
    highest_at: Timestamp,
    began: Timestamp,
}
keep_fields!(NameInformation { hour, day, highest_hour, highest_day, highest_at, began });

impl NameInformation {
    /// Takes the part of a question's name below the registered domain; returns the bytes of the hour
    /// and of the day.
    pub fn ask(&mut self, at: Timestamp, below: &str) -> (f64, f64) {
        let bytes = information(below);
        let hour = self.hour.ask(at, HOUR, below, bytes);
        let day = self.day.ask(at, DAY, below, bytes);
        if at.since(self.began) >= WEEK || at < self.began {
            self.begin_anew(at);
        }
        // The two may be highest at different times: then the score, the larger of them, is that of one.
        if hour > self.highest_hour || day > self.highest_day {
            self.highest_hour = self.highest_hour.max(hour);
            self.highest_day = self.highest_day.max(day);
            self.highest_at = at;
        }
        (hour, day)
    }

    /// Whether its seven days are over, or will be within the hour.
    #[must_use]
    pub fn is_over(&self, at: Timestamp) -> bool {
        at.after(HOUR).since(self.began) >= WEEK
    }

    /// The highest is looked for anew from now on.
    pub fn begin_anew(&mut self, at: Timestamp) {
        (self.began, self.highest_at) = (at, at);
        (self.highest_hour, self.highest_day) = (0.0, 0.0);
    }

    /// The score at its highest within seven days, in bytes an hour.
    #[must_use]
    pub fn score(&self) -> f64 {
        self.highest_hour.max(self.highest_day / DNS_DAY_HOURS)
    }

    /// When it was highest.
    #[must_use]
    pub const fn highest_at(&self) -> Timestamp {
        self.highest_at
    }

    /// What the score of channel DNS is made from.
    #[must_use]
    pub fn inputs(&self) -> ScoreInputs {
        ScoreInputs(vec![(input::HOUR, self.highest_hour), (input::DAY, self.highest_day)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certify::episode::{Channel, score_of};

    const AT: Timestamp = Timestamp::from_nanos(1_780_000_000_123_456_789);

    // The expected values were computed by the Python prototype (`bits(sub)/8`).
    #[test]
    fn information_is_that_of_the_prototype() {
        for (below, bytes) in [
            ("", 0.0),
            ("www", 0.0),
            ("mail", 1.0),
            ("abc.def", 1.938_721_875_540_867_3),
            ("0123456789abcdef0123456789abcdef", 16.0),
            (
                "aaaabbbbccccddddeeeeffffgggghhhhiiiijjjjkkkkllllmmmmnnnnoooopppp.qrstuv",
                37.631_226_398_268_45,
            ),
            ("abcdefghijklmnopqrstuvwxyz0123456789-_ABCDEF", 27.5),
        ] {
            let got = information(below);
            assert!((got - bytes).abs() < 1e-9, "{below}: {got}");
        }
    }

    fn name(n: u64) -> String {
        format!("{:016x}{:016x}", mixed(&n.to_le_bytes(), 1), mixed(&n.to_le_bytes(), 2))
    }

    #[test]
    fn the_same_name_counts_once_an_hour() {
        let mut below = NameInformation::default();
        let first = below.ask(AT, "cdn-7").0;
        for second in 1..3600 {
            assert_eq!(below.ask(AT.after(Span::from_secs(second)), "cdn-7").0, first);
        }
        let (hour, day) = below.ask(AT.after(Span::from_secs(3601)), "cdn-7");
        assert_eq!((hour, day), (first, first), "a new hour, the same day");
    }

    #[test]
    fn forty_names_of_a_tunnel_are_counted_almost_whole() {
        let mut below = NameInformation::default();
        let mut sum = 0.0;
        for n in 0..40 {
            let name = name(n);
            sum += information(&name);
            below.ask(AT.after(Span::from_secs(n as i64)), &name);
        }
        let score = score_of(Channel::Dns, &below.inputs()).unwrap();
        assert!(sum > 500.0 && score > 0.95 * sum && score <= sum, "{score} of {sum}");
        assert_eq!(score.to_bits(), below.score().to_bits());
    }

    #[test]
    fn what_is_slow_for_an_hour_is_found_within_the_day() {
        let mut below = NameInformation::default();
        for n in 0..24 {
            below.ask(AT.after(Span::from_secs(3500 * n)), &name(n as u64));
        }
        let inputs = below.inputs();
        let (hour, day) = (inputs.value(input::HOUR).unwrap(), inputs.value(input::DAY).unwrap());
        assert!(hour < 40.0 && day > 300.0, "{hour} {day}");
    }
}
