//! A hint that data was gathered before it left: a pull from inside hosts far above the usual, or a sudden
//! fall of free space, and then a push to where nobody approved (plugx.md, section 4).

use super::keep::keep_fields;
use sekisho_schema::{Span, Timestamp};

const HOUR_NANOS: i64 = 3_600_000_000_000;
/// Hours remembered of what was pulled.
const HOURS: usize = 18;
/// Hours within which a pull is one pull.
const PULL_HOURS: i64 = 6;
/// Bytes below which neither a pull nor a fall of free space is a hint: the least that an archive of
/// millions of rows takes (plugx.md, section 4).
const LEAST: u64 = 100_000_000;
/// Times the usual pull that is a hint.
const TIMES: u64 = 4;
/// How long a hint holds.
const HOLDS: Span = Span::from_hours(24);
/// Pulls are kept in units of this many bytes.
const UNIT: u64 = 1024;

/// What a host gathered and gave away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Staging {
    hour: i64,
    pulled: [u32; HOURS],
    rest: u32,
    usual: u64,
    hinted_at: Option<Timestamp>,
    gathered: u64,
    fell: u64,
    pushed: u64,
    /// Times that it was told since the hint.
    pub(super) told: u8,
}
keep_fields!(Staging { hour, pulled, rest, usual, hinted_at, gathered, fell, pushed, told });

/// A push that follows a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Push {
    /// Bytes pulled from inside hosts within six hours, when it was a hint.
    pub gathered: u64,
    /// The largest such pull before.
    pub usual: u64,
    /// Bytes by which free space fell within an hour; 0 when it was no hint.
    pub fell: u64,
    /// Bytes pushed to where nobody approved since the hint.
    pub pushed: u64,
    /// When the hint came.
    pub hinted_at: Timestamp,
}

impl Staging {
    /// Takes payload bytes that came from another inside host.
    pub fn pull(&mut self, at: Timestamp, bytes: u64) {
        self.turn_to(at.nanos().div_euclid(HOUR_NANOS));
        let bytes = bytes.saturating_add(u64::from(self.rest));
        self.rest = (bytes % UNIT) as u32;
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX);
        let hour = self.hour;
        if let Some(count) = self.of(hour) {
            *count = count.saturating_add(units);
        }
        let pulled = self.within(hour);
        if pulled >= LEAST && pulled / TIMES >= self.usual {
            self.hint(at);
            self.gathered = self.gathered.max(pulled);
        }
    }

    /// Takes a fall of free space on a volume of data within an hour.
    pub fn space_fell(&mut self, at: Timestamp, bytes: u64) {
        if bytes >= LEAST {
            self.hint(at);
            self.fell = self.fell.max(bytes);
        }
    }

    /// Takes payload bytes that left for where nobody approved; tells of them when they follow a hint.
    pub fn push(&mut self, at: Timestamp, bytes: u64) -> Option<Push> {
        let hinted_at = self.hinted_at?;
        if at.since(hinted_at) > HOLDS {
            (self.hinted_at, self.gathered, self.fell, self.pushed) = (None, 0, 0, 0);
            return None;
        }
        self.pushed = self.pushed.saturating_add(bytes);
        let Self { gathered, usual, fell, pushed, .. } = *self;
        Some(Push { gathered, usual, fell, pushed, hinted_at })
    }

    fn hint(&mut self, at: Timestamp) {
        if self.hinted_at.is_none_or(|hinted| at.since(hinted) > HOLDS) {
            self.hinted_at = Some(at);
            (self.gathered, self.fell, self.pushed, self.told) = (0, 0, 0, 0);
        }
    }

    fn of(&mut self, hour: i64) -> Option<&mut u32> {
        self.pulled.get_mut(hour.rem_euclid(HOURS as i64) as usize)
    }

    /// Bytes pulled in the six hours that end with one.
    fn within(&self, hour: i64) -> u64 {
        let of = |hour: i64| self.pulled.get(hour.rem_euclid(HOURS as i64) as usize).copied();
        (0..PULL_HOURS)
            .filter_map(|back| of(hour - back))
            .map(|units| u64::from(units) * UNIT)
            .sum()
    }

    fn turn_to(&mut self, hour: i64) {
        // Two rounds leave nothing of before.
        let from = self.hour.max(hour.saturating_sub(2 * HOURS as i64));
        for next in from.saturating_add(1)..=hour {
            // The place of the new hour holds the oldest: what was pulled from then on is usual by now.
            let oldest = self.within(next.saturating_add(PULL_HOURS - 1));
            self.usual = self.usual.max(oldest);
            if let Some(count) = self.of(next) {
                *count = 0;
            }
        }
        self.hour = self.hour.max(hour);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_nanos(494_444 * HOUR_NANOS).after(Span::from_hours(hour))
    }

    #[test]
    fn a_pull_far_above_the_usual_makes_the_push_that_follows_remarkable() {
        let mut staging = Staging::default();
        for day in 0..5 {
            staging.pull(at(24 * day + 3), 50_000_000);
            assert_eq!(staging.push(at(24 * day + 4), 9_000_000), None);
        }
        for part in 0..20 {
            staging.pull(at(130 + part / 10), 100_000_000);
        }
        let push = staging.push(at(133), 5_000_000).unwrap();
        assert!(push.gathered > 1_900_000_000 && push.pushed == 5_000_000, "{push:?}");
        assert!((49_000_000..=50_000_000).contains(&push.usual), "{push:?}");
        assert_eq!(staging.push(at(134), 1).unwrap().pushed, 5_000_001);
        assert_eq!(staging.push(at(130 + 25), 1), None, "the hint is a day old");
    }

    #[test]
    fn the_nightly_copy_is_usual_from_the_second_night_on() {
        let mut staging = Staging::default();
        for night in 0..6 {
            staging.pull(at(24 * night), 3_000_000_000);
            let told = staging.push(at(24 * night + 1), 10_000_000).is_some();
            assert_eq!(told, night == 0, "night {night}");
        }
    }

    #[test]
    fn a_fall_of_free_space_is_a_hint_from_a_hundred_million_bytes_on() {
        let mut staging = Staging::default();
        staging.space_fell(at(0), 99_000_000);
        assert_eq!(staging.push(at(1), 10), None);
        staging.space_fell(at(2), 300_000_000);
        assert_eq!(staging.push(at(3), 10).unwrap().fell, 300_000_000);
    }
}
