//! Hours of contact within the seven days of an episode, with a rhythm or without.

use super::keep::keep_fields;
use super::week::day_of;
use crate::certify::episode::{ScoreInputs, input};
use sekisho_schema::{Span, Timestamp};

/// Hours of an episode.
pub const HOURS: usize = 7 * 24;

/// A bit for each hour of seven days, from the first contact on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hours {
    bits: [u8; HOURS / 8],
}
keep_fields!(Hours { bits });

impl Hours {
    /// Marks an hour; returns whether it is marked for the first time. An hour behind the last counts for nothing.
    pub fn mark(&mut self, hour: usize) -> bool {
        let Some(byte) = self.bits.get_mut(hour / 8) else { return false };
        let before = *byte;
        *byte |= 1 << (hour % 8);
        *byte != before
    }

    /// Hours with contact.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.bits.iter().map(|byte| byte.count_ones()).sum()
    }

    /// Hours with contact from one on.
    #[must_use]
    pub fn count_from(&self, hour: usize) -> u32 {
        let part = self.bits.get(hour / 8).map_or(0, |byte| (byte >> (hour % 8)).count_ones());
        let rest = self.bits.get(hour / 8 + 1..).unwrap_or_default();
        part + rest.iter().map(|byte| byte.count_ones()).sum::<u32>()
    }

    /// Days of the clock (UTC) with contact, where the first hour begins at `from`.
    #[must_use]
    pub fn days(&self, from: Timestamp) -> u32 {
        let mut last = None;
        let mut days = 0;
        for hour in 0..HOURS {
            let is_marked = self.bits.get(hour / 8).is_some_and(|byte| byte >> (hour % 8) & 1 == 1);
            let day = day_of(from.after(Span::from_hours(hour as i64)));
            if is_marked && last != Some(day) {
                last = Some(day);
                days += 1;
            }
        }
        days
    }

    /// The last hour with contact.
    #[must_use]
    pub fn last(&self) -> usize {
        let byte = self.bits.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        let bits = self.bits.get(byte).copied().unwrap_or(0);
        byte * 8 + (7 - bits.leading_zeros().min(7)) as usize
    }

    /// What the score of channel persistence is made from.
    #[must_use]
    pub fn inputs(&self) -> ScoreInputs {
        let days = self.bits.chunks_exact(3).zip(input::DAYS);
        ScoreInputs(
            days.map(|(bytes, name)| {
                let mask =
                    bytes.iter().rev().fold(0_u32, |mask, byte| mask << 8 | u32::from(*byte));
                (name, f64::from(mask))
            })
            .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certify::episode::{Channel, score_of};

    #[test]
    fn distinct_hours_are_counted_once_and_replayed_from_the_record() {
        let mut hours = Hours::default();
        assert!(hours.mark(0) && !hours.mark(0));
        for hour in [5, 23, 24, 100, 167] {
            assert!(hours.mark(hour));
        }
        assert!(!hours.mark(168), "the episode is over");
        assert_eq!((hours.count(), hours.count_from(0), hours.count_from(24)), (6, 6, 3));
        assert_eq!((hours.count_from(25), hours.count_from(167), hours.count_from(168)), (2, 1, 0));
        assert_eq!(hours.last(), 167);
        // From noon on: hours 0 and 5 on one day, 23 and 24 on the next, 100 and 167 on later ones.
        let noon = Timestamp::from_nanos(1_780_056_000_000_000_000);
        assert_eq!(hours.days(noon), 4);
        assert_eq!(score_of(Channel::Persistence, &hours.inputs()), Some(6.0));
        assert_eq!(Hours::default().last(), 0);
    }
}
