//! The drift guard: takes the authority to cut back when cuts come more often than was promised.

use super::governor::RETURNS_AFTER;
use sekisho_schema::Timestamp;
use serde::{Deserialize, Serialize};

/// The guard speaks when the odds against the promise reach this: wrongly once in 20.
const REVOKE_AT: f64 = 20.0;
/// After so many weeks it begins anew: a quiet year must not pay for a bad month.
pub const PERIOD_WEEKS: u32 = 26;

/// A running test of the promise, in weeks: log-odds of twice the promised rate against the rate itself.
///
/// Each week adds n·ln 2 − b·hosts. While the promise holds, its exponential is a supermartingale, so
/// that it ever reaches 20 within a period has a probability of at most 1/20 (Ville's inequality).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriftGuard {
    promised: f64,
    log_odds: f64,
    weeks: u32,
    since: Option<Timestamp>,
    count: u64,
    revoked_at: Option<Timestamp>,
}

impl DriftGuard {
    /// A guard over a promise of so many cuts a week, of all hosts together.
    #[must_use]
    pub const fn new(promised_per_week: f64) -> Self {
        Self {
            promised: promised_per_week,
            log_odds: 0.0,
            weeks: 0,
            since: None,
            count: 0,
            revoked_at: None,
        }
    }

    /// Ends the weeks that are over at a time; whether the authority is taken back.
    pub fn turn(&mut self, at: Timestamp) -> bool {
        let mut since = *self.since.get_or_insert(at);
        // A gap of years ends a period as well as its weeks would.
        for _ in 0..=PERIOD_WEEKS {
            if at < since.after(RETURNS_AFTER) {
                break;
            }
            since = since.after(RETURNS_AFTER);
            self.end_week(since);
        }
        if at >= since.after(RETURNS_AFTER) {
            since = at;
        }
        self.since = Some(since);
        self.revoked_at.is_some()
    }

    fn end_week(&mut self, at: Timestamp) {
        let count = std::mem::take(&mut self.count) as f64;
        self.log_odds += count * std::f64::consts::LN_2 - self.promised;
        self.weeks += 1;
        if self.log_odds >= REVOKE_AT.ln() {
            self.revoked_at.get_or_insert(at);
        }
        if self.weeks >= PERIOD_WEEKS {
            self.weeks = 0;
            self.log_odds = 0.0;
        }
    }

    /// Notes a cut that the thresholds asked for, whether it was carried out or not.
    pub fn note(&mut self, at: Timestamp) {
        self.turn(at);
        self.count += 1;
    }

    /// When the authority was taken back.
    #[must_use]
    pub const fn revoked_at(&self) -> Option<Timestamp> {
        self.revoked_at
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{START, hour};
    use super::*;

    /// Uniform numbers from a linear congruential generator (Knuth's MMIX constants).
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self) -> f64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 11) as f64 / (1_u64 << 53) as f64
        }

        /// A Poisson count, by multiplying uniforms (Knuth).
        fn poisson(&mut self, mean: f64) -> u64 {
            let (limit, mut product, mut count) = ((-mean).exp(), 1.0, 0);
            loop {
                product *= self.roll();
                if product <= limit {
                    return count;
                }
                count += 1;
            }
        }
    }

    /// Weeks until the guard speaks when cuts come `factor` times as often as promised.
    fn revoked_after(factor: f64, dice: &mut Dice) -> Option<i64> {
        // The promise of the measurement of detection.md, section 3: 0.5 a week, 40 hosts.
        let promised = 20.0;
        let mut guard = DriftGuard::new(promised);
        guard.turn(START);
        for week in 0..26 {
            for _ in 0..dice.poisson(promised * factor) {
                guard.note(hour(week * 168 + 1));
            }
            if guard.turn(hour((week + 1) * 168)) {
                return Some(week + 1);
            }
        }
        None
    }

    #[test]
    fn a_kept_promise_is_seldom_revoked_and_a_broken_one_at_once() {
        let mut dice = Dice(7);
        let runs = 400;
        let mut of = |factor| -> Vec<i64> {
            (0..runs).filter_map(|_| revoked_after(factor, &mut dice)).collect()
        };
        assert!(of(1.0).len() * 20 <= runs, "wrongly revoked");
        let double = of(2.0);
        assert_eq!(double.len(), runs);
        let at_once = double.iter().filter(|week| **week == 1).count();
        assert!(at_once * 100 >= runs * 75, "{at_once} of {runs} in the first week");
        let at_once = of(3.0).iter().filter(|week| **week == 1).count();
        assert!(at_once * 100 >= runs * 99, "{at_once} of {runs} in the first week");
        assert!(of(1.5).len() * 100 >= runs * 90);
    }

    #[test]
    fn once_taken_back_the_authority_stays_back() {
        let mut guard = DriftGuard::new(0.12);
        for _ in 0..5 {
            guard.note(START);
        }
        assert!(!guard.turn(hour(167)));
        assert!(guard.turn(hour(168)));
        assert!(guard.turn(hour(168 * 60)));
        assert_eq!(guard.revoked_at(), Some(hour(168)));
    }

    #[test]
    fn a_quiet_year_is_forgotten_after_its_period_and_a_gap_of_ages_costs_no_time() {
        let mut quiet = DriftGuard::new(1.0);
        quiet.turn(START);
        quiet.turn(hour(168 * 26));
        for _ in 0..7 {
            quiet.note(hour(168 * 26 + 1));
        }
        assert!(quiet.turn(hour(168 * 27)));
        let mut asleep = DriftGuard::new(1.0);
        asleep.turn(START);
        assert!(!asleep.turn(Timestamp::MAX));
    }
}
