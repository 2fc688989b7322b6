//! Bytes of the last seven days, by day.

use sekisho_schema::Timestamp;

const DAY_SECONDS: i64 = 86_400;
const DAYS: i64 = 7;

/// Seven counters, one for each UTC day, the oldest forgotten as days pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Week {
    day: i64,
    bytes: [u64; DAYS as usize],
}

impl Week {
    /// Adds bytes to the day of `at`; a time before the newest day counts to the newest day.
    pub(crate) fn add(&mut self, at: Timestamp, bytes: u64) {
        self.turn_to(day_of(at));
        let today = self.day;
        if let Some(counter) = self.counter(today) {
            *counter = counter.saturating_add(bytes);
        }
    }

    /// Bytes of the day of the last addition and the six before it.
    pub(crate) fn total(&self) -> u64 {
        self.bytes.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    fn turn_to(&mut self, day: i64) {
        let passed = day.saturating_sub(self.day);
        if passed <= 0 {
            return;
        }
        for step in 0..passed.min(DAYS) {
            if let Some(counter) = self.counter(day - step) {
                *counter = 0;
            }
        }
        self.day = day;
    }

    fn counter(&mut self, day: i64) -> Option<&mut u64> {
        self.bytes.get_mut(usize::try_from(day.rem_euclid(DAYS)).ok()?)
    }
}

/// The UTC day of a time, counted from 1970-01-01.
pub(crate) fn day_of(at: Timestamp) -> i64 {
    at.seconds().div_euclid(DAY_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sekisho_schema::Span;

    #[test]
    fn a_day_leaves_the_week_after_seven_days() {
        let start = Timestamp::from_nanos(1_780_000_000_000_000_000);
        let on = |day: i64| start.after(Span::from_hours(24 * day));
        let mut week = Week::default();
        week.add(on(0), 100);
        week.add(on(3), 10);
        week.add(on(6), 1);
        assert_eq!(week.total(), 111);
        week.add(on(7), 0);
        assert_eq!(week.total(), 11);
        week.add(on(40), 5);
        assert_eq!(week.total(), 5);
    }

    #[test]
    fn a_clock_that_steps_back_loses_no_byte() {
        let start = Timestamp::from_nanos(1_780_000_000_000_000_000);
        let mut week = Week::default();
        week.add(start, 100);
        week.add(start.before(Span::from_hours(48)), 7);
        assert_eq!(week.total(), 107);
    }
}
