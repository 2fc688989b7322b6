//! The governor: so many automatic cuts in any seven days, whatever the statistics say.

use sekisho_schema::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// A token comes back so long after it was taken.
pub const RETURNS_AFTER: Span = Span::from_hours(168);
/// The most tokens that a bucket can have.
const MOST: u32 = 4096;

/// A bucket of tokens, each of which comes back a week after it was taken.
///
/// When it is empty, a cut becomes a hold and a page, never an opening: so the promise holds even
/// where the statistics fail, and to burn the budget buys an attacker a hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Governor {
    size: u32,
    taken: VecDeque<Timestamp>,
    refused: u64,
}

impl Governor {
    /// A full bucket for so many hosts: their promise for a week, rounded up.
    #[must_use]
    pub fn new(budget_per_host_week: f64, hosts: u64) -> Self {
        let mut governor = Self { size: 0, taken: VecDeque::new(), refused: 0 };
        governor.resize(budget_per_host_week, hosts);
        governor
    }

    /// Makes the bucket one of another promise; what was taken stays taken.
    pub fn resize(&mut self, budget_per_host_week: f64, hosts: u64) {
        let cuts = (budget_per_host_week.max(0.0) * hosts as f64).ceil();
        self.size = (cuts as u32).min(MOST);
    }

    /// Takes a token; `false` when there is none.
    pub fn take(&mut self, at: Timestamp) -> bool {
        while self.taken.front().is_some_and(|taken| at >= taken.after(RETURNS_AFTER)) {
            self.taken.pop_front();
        }
        if self.taken.len() >= self.size as usize {
            self.refused += 1;
            return false;
        }
        // A clock that stepped back must not make a token come back early.
        let latest = self.taken.back().copied().unwrap_or(at);
        self.taken.push_back(at.max(latest));
        true
    }

    /// How many tokens a full bucket has.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// How many tokens there are at a time.
    #[must_use]
    pub fn left(&self, at: Timestamp) -> u32 {
        let out = self.taken.iter().filter(|taken| at < taken.after(RETURNS_AFTER)).count();
        self.size.saturating_sub(out as u32)
    }

    /// How many were asked for and refused.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{START, hour};
    use super::*;

    #[test]
    fn a_thousand_forged_triggers_in_an_hour_get_no_more_cuts_than_a_week_may_have() {
        let mut governor = Governor::new(0.12, 40);
        let cut =
            (0..1000_i64).filter(|n| governor.take(START.after(Span::from_secs(3 * n)))).count();
        assert_eq!((cut, governor.size(), governor.refused()), (5, 5, 995));
    }

    #[test]
    fn no_seven_days_hold_more_cuts_than_the_bucket_has_tokens() {
        let mut governor = Governor::new(0.5, 5);
        let cuts: Vec<i64> = (0..2000).filter(|at| governor.take(hour(*at))).collect();
        assert!(cuts.len() >= 30, "{}", cuts.len());
        for cut in &cuts {
            let within = cuts.iter().filter(|at| (*cut..cut + 168).contains(at)).count();
            assert!(within <= 3, "{within} from hour {cut}");
        }
    }

    #[test]
    fn a_clock_that_steps_back_gives_no_token_back() {
        let mut governor = Governor::new(1.0, 2);
        assert!(governor.take(hour(1000)));
        assert!(governor.take(hour(0)));
        assert!(!governor.take(hour(169)));
        assert_eq!(governor.left(hour(1168)), 2);
        assert!(governor.take(hour(1168)));
    }

    #[test]
    fn a_promise_of_nothing_has_no_token() {
        assert!(!Governor::new(0.0, 40).take(START));
        assert!(!Governor::new(-1.0, 40).take(START));
        assert!(!Governor::new(f64::NAN, 40).take(START));
    }

    #[test]
    fn what_was_taken_stays_taken_over_a_restart() {
        let mut governor = Governor::new(0.12, 8);
        assert!(governor.take(START));
        let text = serde_json::to_string(&governor).unwrap();
        let mut restored: Governor = serde_json::from_str(&text).unwrap();
        assert_eq!(restored, governor);
        assert!(!restored.take(hour(1)));
    }
}
