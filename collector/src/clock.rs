//! The only place that reads the clock, and how times are shown to people.

use sekisho_schema::{Span, Timestamp};
use std::time::{SystemTime, UNIX_EPOCH};

/// The present by the system clock.
#[must_use]
pub fn now() -> Timestamp {
    let nanos =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_nanos());
    Timestamp::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
}

/// A time to the second, as `2026-11-22 09:00:00`; always UTC.
#[must_use]
pub fn to_the_second(at: Timestamp) -> String {
    at.to_string().chars().take(19).map(|letter| if letter == 'T' { ' ' } else { letter }).collect()
}

/// The time of day to the second, as `09:00:00`; always UTC.
#[must_use]
pub fn of_day(at: Timestamp) -> String {
    at.to_string().chars().skip(11).take(8).collect()
}

/// A span in words that a person reads at a glance: `3 s`, `4 min`, `2 h 5 min`, `3 d 4 h`.
#[must_use]
pub fn roughly(span: Span) -> String {
    let secs = span.nanos().max(0) / 1_000_000_000;
    let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    match secs {
        0..60 => format!("{secs} s"),
        60..3600 => format!("{minutes} min"),
        3600..86_400 => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_two_units_at_most() {
        for (secs, words) in
            [(0, "0 s"), (59, "59 s"), (61, "1 min"), (7500, "2 h 5 min"), (273_600, "3 d 4 h")]
        {
            assert_eq!(roughly(Span::from_secs(secs)), words);
        }
    }
}
