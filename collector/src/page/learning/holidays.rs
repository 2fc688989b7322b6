//! Which holidays the page goes by, and which come next.

use crate::page::text::visible;
use sekisho_schema::Timestamp;
use sekisho_schema::calendar::{Calendar, Weekday, date_of_day};

/// Holidays that are shown.
const SHOWN: usize = 6;
/// How far ahead they are looked for, in days.
const AHEAD: i64 = 366;

/// The calendar on the page.
#[derive(Debug, PartialEq, Eq)]
pub struct Holidays {
    /// Which calendar it is.
    pub of: String,
    /// The next holidays: date, weekday, name, and how far away.
    pub next: Vec<[String; 4]>,
    /// What is missing.
    pub missing: Option<String>,
}

const fn short(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "Mon",
        Weekday::Tuesday => "Tue",
        Weekday::Wednesday => "Wed",
        Weekday::Thursday => "Thu",
        Weekday::Friday => "Fri",
        Weekday::Saturday => "Sat",
        Weekday::Sunday => "Sun",
    }
}

fn offset(minutes: i32) -> String {
    let sign = if minutes < 0 { '-' } else { '+' };
    format!("UTC{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
}

impl Holidays {
    /// Those of a calendar, seen from a time.
    pub(super) fn of(calendar: &Calendar, now: Timestamp) -> Self {
        if calendar.years.is_empty() {
            return Self {
                of: "No holiday calendar: each day counts as one of its week, in UTC".to_owned(),
                next: Vec::new(),
                missing: Some(
                    "What leaves on a public holiday is not told apart. Name a calendar under [learn] calendar in collector.toml, such as /usr/share/sekisho/rules/calendar/japan.toml.".to_owned(),
                ),
            };
        }
        let today = calendar.local_day(now);
        let next = calendar.holidays.range(today..today + AHEAD).take(SHOWN).map(|(day, name)| {
            let away = match day - today {
                0 => "today".to_owned(),
                1 => "tomorrow".to_owned(),
                days => format!("in {days} days"),
            };
            [date_of_day(*day), short(Weekday::of_day(*day)).to_owned(), visible(name), away]
        });
        let years: Vec<String> = calendar.years.iter().map(u16::to_string).collect();
        let weekend: Vec<&str> = calendar.weekend.iter().map(|day| short(*day)).collect();
        let soon = Timestamp::from_nanos(now.nanos().saturating_add(60 * 86_400 * 1_000_000_000));
        Self {
            of: format!(
                "Holidays of {} ({}; weekend {}; it knows {})",
                visible(&calendar.name),
                offset(calendar.utc_offset_minutes),
                weekend.join(" and "),
                years.join(", ")
            ),
            next: next.collect(),
            missing: (!calendar.knows(soon)).then(|| {
                "The calendar says nothing of the time two months from now: each day counts as one of its week then. A newer file goes in its place.".to_owned()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn japan() -> Calendar {
        Calendar::parse(include_str!("../../../../rules/calendar/japan.toml")).unwrap()
    }

    #[test]
    fn the_next_holidays_are_told_from_today_on_the_clocks_of_the_place() {
        // 2026-11-23 in Tokyo begins at 15:00 UTC of the day before.
        let shown = Holidays::of(&japan(), "2026-11-22T15:30:00Z".parse().unwrap());
        assert!(
            shown.of.starts_with("Holidays of Japan (UTC+09:00; weekend Sat and Sun"),
            "{shown:?}"
        );
        assert_eq!(shown.next[0], ["2026-11-23", "Mon", "勤労感謝の日", "today"]);
        assert_eq!(shown.next[1][0], "2027-01-01");
        assert_eq!((shown.next.len(), shown.missing), (SHOWN, None));
    }

    #[test]
    fn a_calendar_that_ends_soon_and_none_at_all_are_said() {
        let ends = Holidays::of(&japan(), "2027-12-01T00:00:00Z".parse().unwrap());
        assert!(ends.missing.unwrap().contains("two months from now"));
        let none = Holidays::of(&Calendar::unknown(), "2027-12-01T00:00:00Z".parse().unwrap());
        assert!(none.next.is_empty() && none.missing.unwrap().contains("[learn] calendar"));
    }
}
