//! Seasonality: what is usual at this hour of this kind of day.

use sekisho_schema::Timestamp;
use sekisho_schema::calendar::{Calendar, Weekday};
use serde::{Deserialize, Serialize};

const DAY_SECONDS: i64 = 86_400;
const DAY_HOURS: usize = 24;
/// Slots of hours of the week.
const WEEK_SLOTS: usize = 7 * DAY_HOURS;
/// Slots in all: the hours of the week, and those of a holiday.
pub const SLOTS: usize = WEEK_SLOTS + DAY_HOURS;

/// A kind of hour: 0 to 167 are the hours of the week from Monday 00:00 on the clocks of the place,
/// 168 to 191 those of a holiday, whatever weekday it falls on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u8);

impl Slot {
    /// The slot of a time.
    #[must_use]
    pub fn of(calendar: &Calendar, at: Timestamp) -> Self {
        let hour = calendar.local_seconds(at).rem_euclid(DAY_SECONDS) / 3600;
        let day = match calendar.holiday(at) {
            Some(_) => 7,
            None => i64::from(Weekday::of_day(calendar.local_day(at)).number()),
        };
        Self(u8::try_from(day * DAY_HOURS as i64 + hour).unwrap_or(0))
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> usize {
        self.0 as usize
    }
}

/// What kind of moment it is, in words; `None` for an ordinary working hour.
#[must_use]
pub fn unusual_moment(calendar: &Calendar, at: Timestamp) -> Option<String> {
    if let Some(name) = calendar.holiday(at) {
        return Some(format!("on a public holiday of {} ({name})", calendar.name));
    }
    if calendar.weekend.contains(&Weekday::of_day(calendar.local_day(at))) {
        return Some("at a weekend".to_owned());
    }
    // From eight to eight on the clocks of the place.
    let hour = calendar.local_seconds(at).rem_euclid(DAY_SECONDS) / 3600;
    (!(8..20).contains(&hour)).then(|| "outside working hours".to_owned())
}

/// How much goes up in each kind of hour: the largest hour so far, and how many hours were seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Season {
    largest: Vec<u64>,
    seen: Vec<u32>,
    /// The hour that is being filled, counted from 1970-01-01, its slot, and its bytes.
    open: Option<(i64, u8, u64)>,
}

impl Default for Season {
    fn default() -> Self {
        Self { largest: vec![0; SLOTS], seen: vec![0; SLOTS], open: None }
    }
}

impl Season {
    /// Adds bytes to the hour of a time; 0 bytes tell that the hour was watched.
    pub fn add(&mut self, calendar: &Calendar, at: Timestamp, bytes: u64) {
        let hour = at.seconds().div_euclid(3600);
        match &mut self.open {
            // A clock that stepped back fills the hour that is open.
            Some((open, _, sum)) if hour <= *open => *sum = sum.saturating_add(bytes),
            _ => {
                self.close();
                self.open = Some((hour, Slot::of(calendar, at).0, bytes));
            }
        }
    }

    fn close(&mut self) {
        let Some((_, slot, bytes)) = self.open.take() else { return };
        if let Some(largest) = self.largest.get_mut(usize::from(slot)) {
            *largest = bytes.max(*largest);
        }
        if let Some(seen) = self.seen.get_mut(usize::from(slot)) {
            *seen = seen.saturating_add(1);
        }
    }

    /// The largest hour of this kind, in bytes, and how many such hours were seen before the one at hand.
    #[must_use]
    pub fn usual(&self, slot: Slot) -> (u64, u32) {
        let at = slot.number();
        (self.largest.get(at).copied().unwrap_or(0), self.seen.get(at).copied().unwrap_or(0))
    }

    /// How many kinds of hour were seen at least so often: of the week, and of holidays.
    #[must_use]
    pub fn covered(&self, times: u32) -> (usize, usize) {
        let (week, holiday) = self.seen.split_at_checked(WEEK_SLOTS).unwrap_or((&self.seen, &[]));
        let count = |slots: &[u32]| slots.iter().filter(|seen| **seen >= times).count();
        (count(week), count(holiday))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sekisho_schema::Span;

    fn japan() -> Calendar {
        Calendar::parse(include_str!("../../../rules/calendar/japan.toml")).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_holiday_is_not_its_weekday() {
        let japan = japan();
        // Monday 21 March 2016, 10:00 in Tokyo, and the Monday after.
        assert_eq!(Slot::of(&japan, at("2016-03-21T01:00:00Z")).number(), 168 + 10);
        assert_eq!(Slot::of(&japan, at("2016-03-28T01:00:00Z")).number(), 10);
        assert_eq!(Slot::of(&Calendar::unknown(), at("2016-03-21T01:00:00Z")).number(), 1);
        assert_eq!(Slot::of(&japan, at("2026-11-22T14:59:59Z")).number(), 6 * 24 + 23);
    }

    #[test]
    fn moments_are_told_by_the_clocks_of_the_place() {
        let japan = japan();
        let told = |text: &str| unusual_moment(&japan, at(text)).unwrap_or_default();
        assert_eq!(told("2016-03-21T01:00:00Z"), "on a public holiday of Japan (休日)");
        assert_eq!(told("2026-11-22T03:00:00Z"), "at a weekend");
        assert_eq!(told("2026-11-24T18:00:00Z"), "outside working hours");
        assert_eq!(told("2026-11-24T03:00:00Z"), "");
    }

    #[test]
    fn an_hour_is_compared_with_hours_of_its_kind_that_are_over() {
        let calendar = Calendar::unknown();
        let monday = at("2026-11-16T09:00:00Z");
        let mut season = Season::default();
        season.add(&calendar, monday, 100);
        season.add(&calendar, monday.after(Span::from_secs(600)), 50);
        let slot = Slot::of(&calendar, monday);
        assert_eq!(season.usual(slot), (0, 0));
        season.add(&calendar, monday.after(Span::from_hours(1)), 7);
        assert_eq!(season.usual(slot), (150, 1));
        // A step back loses nothing and counts no hour twice.
        season.add(&calendar, monday, 3);
        season.add(&calendar, monday.after(Span::from_hours(168)), 0);
        assert_eq!(season.usual(slot), (150, 1));
        assert_eq!(season.covered(1), (2, 0));
    }
}
