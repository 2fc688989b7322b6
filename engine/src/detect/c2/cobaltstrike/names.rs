//! Names that stagers and idle beacons ask for.

use super::super::codec::{digest, hex_digit};
use crate::learn::Bounded;
use sekisho_schema::{Span, Timestamp};
use std::net::IpAddr;

/// Stagings and zones watched at once.
const WATCHED: usize = 1024;
/// A staging that is silent for so long begins anew.
const SILENCE: Span = Span::from_secs(3600);

/// A piece of a payload that a stager asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stage<'n> {
    /// Three letters that count up from `aaa`.
    piece: &'n str,
    /// What stands behind `stage`.
    rest: &'n str,
}

/// Reads a stager's name: `aaa.stage.` in any zone, other pieces only with eight digits behind.
pub(super) fn stage(name: &str) -> Option<Stage<'_>> {
    let (piece, rest) = name.split_once(".stage.")?;
    if piece.len() != 3 || !piece.bytes().all(|byte| byte.is_ascii_lowercase()) || rest.is_empty() {
        return None;
    }
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let numbered = digits == 8 && rest.as_bytes().get(8) == Some(&b'.');
    (piece == "aaa" || numbered).then_some(Stage { piece, rest })
}

/// The zone of a name that an idle beacon may ask for: its first label is the beacon's 31-bit number in
/// hexadecimal, of which 255 in 256 have 6 digits or more; of shorter ones hosts have many (`ad1`, `db2`).
pub(super) fn beacon_zone(name: &str) -> Option<&str> {
    let (label, zone) = name.split_once('.')?;
    let fits = (6..=8).contains(&label.len())
        && label.bytes().all(|byte| hex_digit(byte).is_some())
        && label.bytes().any(|byte| byte.is_ascii_digit())
        && !zone.is_empty();
    fits.then_some(zone)
}

/// Counts the pieces of each staging.
#[derive(Debug)]
pub(super) struct Staging {
    seen: Bounded<(IpAddr, u64), (u32, u64, Timestamp)>,
}

impl Staging {
    pub(super) fn new(seed: u64) -> Self {
        Self { seen: Bounded::new(WATCHED, seed) }
    }

    pub(super) const fn evicted(&self) -> u64 {
        self.seen.evicted()
    }

    /// How many different pieces in a row were asked for, this one included.
    pub(super) fn count(&mut self, host: IpAddr, stage: &Stage<'_>, at: Timestamp) -> u32 {
        let piece = digest(stage.piece.as_bytes());
        let key = (host, digest(stage.rest.as_bytes()));
        let Some((count, last, last_at)) = self.seen.upsert(&key, || (0, 0, at), |_| true) else {
            return 1;
        };
        if at.since(*last_at) > SILENCE {
            *count = 0;
        }
        if *count == 0 || *last != piece {
            *count = count.saturating_add(1);
        }
        (*last, *last_at) = (piece, at);
        *count
    }
}

/// Counts the idle answers of each zone.
#[derive(Debug)]
pub(super) struct Beacons {
    seen: Bounded<(IpAddr, u64), (u8, Timestamp)>,
    least: u8,
    within: Span,
}

impl Beacons {
    pub(super) fn new(least: u8, within: Span, seed: u64) -> Self {
        Self { seen: Bounded::new(WATCHED, seed), least: least.max(2), within }
    }

    pub(super) const fn evicted(&self) -> u64 {
        self.seen.evicted()
    }

    /// The number of answers and the seconds they took, each time that there were enough.
    pub(super) fn count(&mut self, host: IpAddr, zone: &str, at: Timestamp) -> Option<(u8, i64)> {
        let key = (host, digest(zone.as_bytes()));
        let (count, since) = self.seen.upsert(&key, || (0, at), |_| true)?;
        if at.since(*since) > self.within {
            (*count, *since) = (0, at);
        }
        *count = count.saturating_add(1);
        if *count < self.least {
            return None;
        }
        let told = (*count, at.since(*since).millis() / 1000);
        (*count, *since) = (0, at);
        Some(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stagers_names_are_read_and_other_stages_are_not() {
        for name in [
            "aaa.stage.example.org",
            "aaa.stage.12345678.c2.example",
            "bzq.stage.00000001.c2.example",
        ] {
            assert!(stage(name).is_some(), "{name}");
        }
        for name in [
            "api.stage.example.org",
            "www.stage.1234567.example",
            "www.stage.123456789.example",
            "aaa.stage",
            "aaaa.stage.example",
            "stage.example.org",
            "",
        ] {
            assert_eq!(stage(name), None, "{name}");
        }
    }

    #[test]
    fn idle_beacons_have_digits_in_their_first_label() {
        assert_eq!(beacon_zone("5e0f62a5.c2.example"), Some("c2.example"));
        for name in ["facade.example", "ad12.example", "5e0f62a5", "123456789.example", "999999."] {
            assert_eq!(beacon_zone(name), None, "{name}");
        }
    }

    #[test]
    fn ten_idle_answers_are_told_only_within_the_span() {
        let host = IpAddr::from([10, 0, 0, 5]);
        let second = |n: i64| Timestamp::from_nanos(n * 1_000_000_000);
        let mut beacons = Beacons::new(10, Span::from_secs(90), 1);
        let told: Vec<i64> = (0..40)
            .filter(|n| beacons.count(host, "c2.example", second(n * 5)).is_some())
            .collect();
        assert_eq!(told, [9, 19, 29, 39]);
        let mut slow = Beacons::new(10, Span::from_secs(90), 1);
        assert!((0..100).all(|n| slow.count(host, "c2.example", second(n * 60)).is_none()));
    }
}
