//! Holiday calendars: which days are not like their weekday.

use crate::policy::read_toml;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name and version of the calendar schema.
pub const CALENDAR_SCHEMA: &str = "sekisho.calendar/1";
/// Offsets of time zones lie within this many minutes (UTC−12 to UTC+14).
const OFFSETS: std::ops::RangeInclusive<i32> = -720..=840;
const DAY_SECONDS: i64 = 86_400;

/// A day of the week; the week begins on Monday.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weekday {
    /// Monday.
    Monday,
    /// Tuesday.
    Tuesday,
    /// Wednesday.
    Wednesday,
    /// Thursday.
    Thursday,
    /// Friday.
    Friday,
    /// Saturday.
    Saturday,
    /// Sunday.
    Sunday,
}

impl Weekday {
    const ALL: [Self; 7] = [
        Self::Monday,
        Self::Tuesday,
        Self::Wednesday,
        Self::Thursday,
        Self::Friday,
        Self::Saturday,
        Self::Sunday,
    ];

    /// The weekday of a day counted from 1970-01-01, a Thursday.
    #[must_use]
    pub fn of_day(day: i64) -> Self {
        let from_monday = usize::try_from((day + 3).rem_euclid(7)).unwrap_or(0);
        Self::ALL.get(from_monday).copied().unwrap_or(Self::Monday)
    }

    /// Its number: 0 is Monday.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawCalendar {
    schema: String,
    name: String,
    utc_offset_minutes: i32,
    weekend: Vec<Weekday>,
    source: Vec<String>,
    years: Vec<u16>,
    #[serde(default)]
    holiday: Vec<RawHoliday>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHoliday {
    date: String,
    name: String,
}

/// The holidays of a place, for the years that it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// The place.
    pub name: String,
    /// How far its clocks are ahead of UTC, in minutes.
    pub utc_offset_minutes: i32,
    /// Days of the week without work.
    pub weekend: Vec<Weekday>,
    /// The law and the publications that it follows.
    pub source: Vec<String>,
    /// Years that it knows whole; of others it says nothing.
    pub years: Vec<u16>,
    /// Names of holidays by day, counted from 1970-01-01 in local time.
    pub holidays: BTreeMap<i64, String>,
}

/// Why a text is not a calendar.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {message}")]
pub struct ParseCalendarError {
    /// `line:column` of the fault; `1:1` where it has no place.
    pub at: String,
    /// What is wrong.
    pub message: String,
}

fn refuse<T>(message: String) -> Result<T, ParseCalendarError> {
    Err(ParseCalendarError { at: "1:1".to_owned(), message })
}

impl Calendar {
    /// Reads a calendar from TOML.
    ///
    /// # Errors
    /// Line, column and cause of the first fault, or what makes no sense.
    pub fn parse(text: &str) -> Result<Self, ParseCalendarError> {
        let raw: RawCalendar =
            read_toml(text).map_err(|(at, message)| ParseCalendarError { at, message })?;
        if raw.schema != CALENDAR_SCHEMA {
            return refuse(format!("schema is \"{}\", expected \"{CALENDAR_SCHEMA}\"", raw.schema));
        }
        if !OFFSETS.contains(&raw.utc_offset_minutes) {
            return refuse(format!("{} minutes is no time zone", raw.utc_offset_minutes));
        }
        if raw.source.is_empty() {
            return refuse("no source is named: who says that these are holidays".to_owned());
        }
        let mut holidays = BTreeMap::new();
        for RawHoliday { date, name } in raw.holiday {
            let Some(day) = day_of_date(&date) else {
                return refuse(format!("\"{date}\" is no date such as 2026-01-01"));
            };
            let year = date.get(..4).and_then(|year| year.parse().ok()).unwrap_or(0);
            if !raw.years.contains(&year) {
                return refuse(format!("{date} lies outside the years that the calendar knows"));
            }
            if holidays.insert(day, name).is_some() {
                return refuse(format!("{date} is given twice"));
            }
        }
        Ok(Self {
            name: raw.name,
            utc_offset_minutes: raw.utc_offset_minutes,
            weekend: raw.weekend,
            source: raw.source,
            years: raw.years,
            holidays,
        })
    }

    /// A place whose holidays nobody told, in UTC: weekends alone.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            name: "no calendar".to_owned(),
            utc_offset_minutes: 0,
            weekend: vec![Weekday::Saturday, Weekday::Sunday],
            source: Vec::new(),
            years: Vec::new(),
            holidays: BTreeMap::new(),
        }
    }

    /// Seconds since 1970-01-01 on the clocks of the place.
    #[must_use]
    pub fn local_seconds(&self, at: Timestamp) -> i64 {
        at.seconds() + i64::from(self.utc_offset_minutes) * 60
    }

    /// The day of a time on the clocks of the place, counted from 1970-01-01.
    #[must_use]
    pub fn local_day(&self, at: Timestamp) -> i64 {
        self.local_seconds(at).div_euclid(DAY_SECONDS)
    }

    /// The holiday of a time, by its name.
    #[must_use]
    pub fn holiday(&self, at: Timestamp) -> Option<&str> {
        self.holidays.get(&self.local_day(at)).map(String::as_str)
    }

    /// Whether the holidays around a time are known.
    #[must_use]
    pub fn knows(&self, at: Timestamp) -> bool {
        date_of_day(self.local_day(at))
            .get(..4)
            .and_then(|year| year.parse().ok())
            .is_some_and(|year: u16| self.years.contains(&year))
    }
}

/// The day of a date such as `2026-01-01`, counted from 1970-01-01; `None` for what is no date.
#[must_use]
pub fn day_of_date(date: &str) -> Option<i64> {
    let at: Timestamp = format!("{date}T00:00:00Z").parse().ok()?;
    let day = at.seconds().div_euclid(DAY_SECONDS);
    // The 31st of a short month reads back as another date.
    (date_of_day(day) == date).then_some(day)
}

/// The date of a day counted from 1970-01-01.
#[must_use]
pub fn date_of_day(day: i64) -> String {
    let at = Timestamp::from_nanos(day.saturating_mul(DAY_SECONDS).saturating_mul(1_000_000_000));
    at.to_string().chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const JAPAN: &str = include_str!("../../rules/calendar/japan.toml");

    fn japan() -> Calendar {
        Calendar::parse(JAPAN).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_file_theft_of_2016_fell_on_a_holiday_of_the_calendar() {
        // 2016-03-21 in Tokyo begins at 15:00 UTC of the day before.
        let japan = japan();
        assert_eq!(japan.holiday(at("2016-03-20T15:00:00Z")), Some("休日"));
        assert_eq!(japan.holiday(at("2016-03-21T14:59:59Z")), Some("休日"));
        assert_eq!(japan.holiday(at("2016-03-21T15:00:00Z")), None);
        assert!(
            japan.knows(at("2016-03-21T00:00:00Z")) && !japan.knows(at("2015-03-21T00:00:00Z"))
        );
    }

    /// The `nth` Monday of a month, as the law sets several holidays.
    fn monday(year: u16, month: u8, nth: i64) -> i64 {
        let first = day_of_date(&format!("{year}-{month:02}-01")).unwrap();
        let to_monday = (7 - i64::from(Weekday::of_day(first).number())) % 7;
        first + to_monday + 7 * (nth - 1)
    }

    /// Articles 2 and 3 of the Act on National Holidays, for years from 2023 on; equinoxes as announced.
    fn by_law(year: u16) -> Vec<i64> {
        let equinoxes = match year {
            2024 => ("03-20", "09-22"),
            2025 | 2026 => ("03-20", "09-23"),
            2027 => ("03-21", "09-23"),
            other => panic!("no announced equinoxes for {other}"),
        };
        let fixed = |date: &str| day_of_date(&format!("{year}-{date}")).unwrap();
        let mut named: Vec<i64> = [
            "01-01",
            "02-11",
            "02-23",
            equinoxes.0,
            "04-29",
            "05-03",
            "05-04",
            "05-05",
            "08-11",
            equinoxes.1,
            "11-03",
            "11-23",
        ]
        .into_iter()
        .map(fixed)
        .collect();
        named.extend([
            monday(year, 1, 2),
            monday(year, 7, 3),
            monday(year, 9, 3),
            monday(year, 10, 2),
        ]);
        let mut days = named.clone();
        for day in &named {
            if Weekday::of_day(*day) == Weekday::Sunday {
                let next = (day + 1..).find(|day| !named.contains(day)).unwrap();
                days.push(next);
            }
            if named.contains(&(day + 2)) && !named.contains(&(day + 1)) {
                days.push(day + 1);
            }
        }
        days.sort_unstable();
        days.dedup();
        days
    }

    #[test]
    fn the_shipped_holidays_are_those_of_the_law() {
        let japan = japan();
        for year in [2024_u16, 2025, 2026, 2027] {
            let first = day_of_date(&format!("{year}-01-01")).unwrap();
            let next = day_of_date(&format!("{}-01-01", year + 1)).unwrap();
            let shipped: Vec<i64> =
                japan.holidays.range(first..next).map(|(day, _)| *day).collect();
            let dates = |days: &[i64]| days.iter().map(|day| date_of_day(*day)).collect::<Vec<_>>();
            assert_eq!(dates(&shipped), dates(&by_law(year)), "{year}");
        }
    }

    #[test]
    fn a_date_that_does_not_exist_or_lies_outside_the_years_is_refused() {
        for (from, to) in [
            ("2026-01-01", "2026-02-30"),
            ("2026-01-01", "2031-01-01"),
            ("2026-01-01", "2026-01-12"),
            ("utc-offset-minutes = 540", "utc-offset-minutes = 5400"),
        ] {
            let text = JAPAN.replacen(from, to, 1);
            assert_ne!(text, JAPAN);
            assert!(Calendar::parse(&text).is_err(), "{to}");
        }
    }

    #[test]
    fn weekdays_follow_the_calendar() {
        let of = |date: &str| Weekday::of_day(day_of_date(date).unwrap());
        assert_eq!(of("1970-01-01"), Weekday::Thursday);
        assert_eq!(of("2026-11-22"), Weekday::Sunday);
        assert_eq!(of("1969-12-31"), Weekday::Wednesday);
    }
}
