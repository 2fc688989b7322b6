//! Upload to a destination that is usual, against the largest of the 28 days before (detection.md, 2.2
//! and 4.5): what held its promise where rules on the mean broke it.

use super::keep::keep_fields;
use super::week::day_of;
use crate::certify::episode::{DAY_FLOOR, ScoreInputs, WEEK_FLOOR, input};
use sekisho_schema::Timestamp;

/// Days that are looked back to.
const BACK: i64 = 28;
/// Days of a week.
const WEEK: i64 = 7;
/// Days remembered: a week of the days that are looked back to must be whole.
const DAYS: usize = 42;
/// What the envelope may grow by within a week.
const GROWTH: f64 = 1.5;
/// Of an upload that never was, this much is usual: nothing grows from zero.
const LEAST: f64 = 1e6;
/// Past days are kept in units of this many bytes.
const UNIT: u64 = 1024;

/// The upload of 42 days to one destination.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Envelope {
    first_day: i64,
    day: i64,
    today: u64,
    days: [u32; DAYS],
    cap_day: f64,
    cap_week: f64,
    usual_day: f64,
    usual_week: f64,
    six_before: f64,
    highest: [f64; 4],
    highest_score: f64,
    highest_at: Timestamp,
    began: i64,
    /// The score that was told last within seven days.
    pub(super) told: f64,
}
keep_fields!(Envelope {
    first_day,
    day,
    today,
    days,
    cap_day,
    cap_week,
    usual_day,
    usual_week,
    six_before,
    highest,
    highest_score,
    highest_at,
    began,
    told
});

impl Envelope {
    /// An envelope that begins to learn on the day of `at`.
    #[must_use]
    pub fn new(at: Timestamp) -> Self {
        let day = day_of(at);
        Self {
            first_day: day,
            day,
            today: 0,
            days: [0; DAYS],
            cap_day: 0.0,
            cap_week: 0.0,
            usual_day: 0.0,
            usual_week: 0.0,
            six_before: 0.0,
            highest: [0.0; 4],
            highest_score: f64::NEG_INFINITY,
            highest_at: at,
            began: day,
            told: 0.0,
        }
    }

    /// Adds payload bytes; returns the score, log10 of the ratio to what is usual; `None` within the
    /// first 28 days.
    pub fn add(&mut self, at: Timestamp, bytes: u64) -> Option<f64> {
        self.turn_to(day_of(at));
        if self.is_over(at) {
            self.begin_anew(at);
        }
        self.today = self.today.saturating_add(bytes);
        let score = self.score()?;
        if score > self.highest_score {
            (self.highest_score, self.highest_at) = (score, at);
            let today = self.today as f64;
            self.highest = [today, self.usual_day, self.six_before + today, self.usual_week];
        }
        Some(score)
    }

    /// The ratio now.
    #[must_use]
    pub fn score(&self) -> Option<f64> {
        if self.day - self.first_day < BACK {
            return None;
        }
        let today = self.today as f64;
        let day = ((today + DAY_FLOOR) / (self.usual_day + DAY_FLOOR)).log10();
        let week = self.six_before + today;
        Some(day.max(((week + WEEK_FLOOR) / (self.usual_week + WEEK_FLOOR)).log10()))
    }

    /// Whether its seven days are over.
    #[must_use]
    pub fn is_over(&self, at: Timestamp) -> bool {
        day_of(at) >= self.began.saturating_add(WEEK)
    }

    /// The highest score is looked for anew from now on.
    pub fn begin_anew(&mut self, at: Timestamp) {
        self.began = day_of(at);
        self.highest_score = f64::NEG_INFINITY;
        self.told = 0.0;
    }

    /// When the score was highest within seven days.
    #[must_use]
    pub const fn highest_at(&self) -> Timestamp {
        self.highest_at
    }

    /// What the score of channel approved was made from at its highest; `None` while there is none.
    #[must_use]
    pub fn inputs(&self) -> Option<ScoreInputs> {
        if self.highest_score == f64::NEG_INFINITY {
            return None;
        }
        let names = [input::TODAY, input::TODAY_USUAL, input::WEEK, input::WEEK_USUAL];
        Some(ScoreInputs(names.into_iter().zip(self.highest).collect()))
    }

    /// Days pass, each at its turn; more than are remembered leave nothing.
    fn turn_to(&mut self, day: i64) {
        let passed = day.saturating_sub(self.day);
        if passed > DAYS as i64 + BACK {
            let growth = GROWTH.powf(passed as f64 / WEEK as f64);
            let (cap_day, cap_week) = (self.cap_day * growth, self.cap_week * growth);
            let is_ripe = self.day - self.first_day >= BACK;
            self.days = [0; DAYS];
            (self.day, self.today) = (day, 0);
            if is_ripe {
                (self.cap_day, self.cap_week) = (cap_day.min(1e18), cap_week.min(1e18));
            } else {
                (self.cap_day, self.cap_week) = (LEAST, LEAST);
            }
            self.look_back();
        } else {
            for _ in 0..passed.max(0) {
                self.end_day();
            }
        }
    }

    fn end_day(&mut self) {
        let units = u32::try_from(self.today.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let place = self.day.rem_euclid(DAYS as i64) as usize;
        if let Some(day) = self.days.get_mut(place) {
            *day = units;
        }
        self.day += 1;
        self.today = 0;
        // The place of the new day holds one that is forgotten.
        let place = self.day.rem_euclid(DAYS as i64) as usize;
        if let Some(day) = self.days.get_mut(place) {
            *day = 0;
        }
        match self.day - self.first_day {
            age if age < BACK => return,
            BACK => {
                self.cap_day = self.largest_day().max(LEAST);
                let weeks = (self.first_day + WEEK - 1..self.day).map(|day| self.week_to(day));
                self.cap_week = weeks.fold(LEAST, f64::max);
            }
            _ => {
                let growth = GROWTH.powf(1.0 / WEEK as f64);
                self.cap_day = (self.cap_day * growth).min(1e18);
                self.cap_week = (self.cap_week * growth).min(1e18);
            }
        }
        self.look_back();
    }

    fn look_back(&mut self) {
        self.usual_day = self.largest_day().min(self.cap_day);
        let oldest = (self.day - BACK - WEEK).max(self.first_day + WEEK - 1);
        let weeks = (oldest..=self.day - WEEK).map(|day| self.week_to(day));
        self.usual_week = weeks.fold(0.0, f64::max).min(self.cap_week);
        self.six_before = (self.day - WEEK + 1..self.day).map(|day| self.of(day)).sum();
    }

    /// The largest of the 28 days before this one.
    fn largest_day(&self) -> f64 {
        (self.day - BACK..self.day).map(|day| self.of(day)).fold(0.0, f64::max)
    }

    /// The seven days that end with one.
    fn week_to(&self, day: i64) -> f64 {
        (day - WEEK + 1..=day).map(|day| self.of(day)).sum()
    }

    /// The bytes of a past day.
    fn of(&self, day: i64) -> f64 {
        if day >= self.day || day <= self.day - DAYS as i64 || day < self.first_day {
            return 0.0;
        }
        let units = self.days.get(day.rem_euclid(DAYS as i64) as usize).copied().unwrap_or(0);
        f64::from(units) * UNIT as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certify::episode::{Channel, score_of};
    use sekisho_schema::Span;

    /// The middle of a day.
    fn on(day: i64) -> Timestamp {
        Timestamp::from_nanos(1_779_926_400_000_000_000).after(Span::from_hours(24 * day + 12))
    }

    /// The prototype's two ratios on whole days.
    fn prototype(x: &[f64]) -> Vec<f64> {
        let largest = |slice: &[f64]| slice.iter().copied().fold(0.0, f64::max);
        let s7: Vec<f64> = (0..x.len()).map(|i| x[i.saturating_sub(6)..=i].iter().sum()).collect();
        let (mut cap, mut cap7) = (largest(&x[..28]), largest(&s7[6..28]));
        let growth = 1.5_f64.powf(1.0 / 7.0);
        (28..x.len())
            .map(|i| {
                let usual = largest(&x[i - 28..i]).min(cap);
                let usual7 = largest(&s7[6.max(i.saturating_sub(35))..i - 6]).min(cap7);
                (cap, cap7) = (cap * growth, cap7 * growth);
                let day = ((x[i] + 2e7) / (usual + 2e7)).log10();
                day.max(((s7[i] + 5e7) / (usual7 + 5e7)).log10())
            })
            .collect()
    }

    #[test]
    fn the_ratios_are_those_of_the_prototype() {
        let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
        let mut unit = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 11) as f64 / (1_u64 << 53) as f64
        };
        for weekend in [1.0, 0.1, 6.0] {
            let mut x: Vec<f64> = (0..84)
                .map(|day| {
                    let size = 1e8 * (1.0 + 3.0 * unit());
                    (if day % 7 == 5 { size * weekend } else { size }).floor()
                })
                .collect();
            // A change of level for good, and one day far above.
            x[50..].iter_mut().for_each(|bytes| *bytes *= 2.5);
            x[65] += 4e9;
            let mut envelope = Envelope::new(on(0));
            let mut got = Vec::new();
            for (day, bytes) in x.iter().enumerate() {
                envelope.add(on(day as i64), *bytes as u64 / 2);
                let score = envelope.add(on(day as i64), *bytes as u64 - *bytes as u64 / 2);
                assert_eq!(score.is_some(), day >= 28);
                got.extend(score);
            }
            for (day, (got, expected)) in got.iter().zip(prototype(&x)).enumerate() {
                assert!((got - expected).abs() < 1e-4, "day {}: {got} {expected}", day + 28);
            }
        }
    }

    #[test]
    fn the_record_replays_to_the_highest_score() {
        let mut envelope = Envelope::new(on(0));
        for day in 0..40 {
            envelope.add(on(day), 100_000_000);
        }
        let told = envelope.add(on(40), 5_000_000_000).unwrap();
        envelope.add(on(41), 1);
        let inputs = envelope.inputs().unwrap();
        assert_eq!(score_of(Channel::Approved, &inputs).unwrap().to_bits(), told.to_bits());
        assert_eq!(envelope.highest_at(), on(40));
    }

    #[test]
    fn a_destination_that_was_silent_for_a_year_has_nothing_usual() {
        let mut envelope = Envelope::new(on(0));
        for day in 0..40 {
            envelope.add(on(day), 100_000_000);
        }
        let score = envelope.add(on(400), 2_000_000_000).unwrap();
        assert!(score > 1.9, "{score}");
    }

    #[test]
    fn an_envelope_is_small() {
        assert!(size_of::<Envelope>() <= 312);
    }
}
