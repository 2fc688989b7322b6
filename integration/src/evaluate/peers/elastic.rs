//! The decision of Elastic's beaconing package 1.3.3 (detection.md, section 2.1), re-implemented from its description:
//! six hours in buckets of a minute, every hour.

use super::{CHECKPOINTS, between, mean_and_deviation};
use crate::evaluate::fleet::{Episode, HOUR};

/// Buckets of a window.
const BUCKETS: usize = 360;
/// Seconds of a bucket.
const BUCKET: f64 = 60.0;
/// Periods that a window must hold.
const PERIODS: usize = 6;
/// Least autocovariance of a beacon.
const COVARIANCE: f64 = 0.7;

/// What Elastic says of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    /// Number of indications, 0 to 3; 3 is the rule of high confidence.
    pub score: u8,
    /// Whether it is called beaconing at all.
    pub is_beaconing: bool,
}

/// Deviation relative to the mean of what lies between the 10th and the 80th percentile of the full buckets.
fn spread(values: &[f64]) -> Option<f64> {
    let mut full: Vec<f64> = values.iter().copied().filter(|value| *value != 0.0).collect();
    full.sort_by(f64::total_cmp);
    let last = full.len().checked_sub(1)?;
    let at = |share: f64| full[((share * full.len() as f64 + 0.5) as usize).min(last)];
    let (low, high) = (at(0.1), at(0.8));
    let kept: Vec<f64> =
        values.iter().copied().filter(|value| (low..=high).contains(value)).collect();
    let (mean, deviation) = mean_and_deviation(&kept);
    Some(if mean == 0.0 { 0.0 } else { deviation / mean.abs() })
}

/// The highest mean autocovariance over the periods; a period's multiples count for it too.
fn covariance(counts: &[f64], from: usize, to: usize) -> f64 {
    let longest = (to - from) / PERIODS;
    let mut mean = vec![0.0; longest + 1];
    let mut seen = vec![0.0; longest + 1];
    for period in 2..=longest {
        let end = to - 2 * period;
        let rounds = (end + 1 - from) / period;
        let inner = counts.get(from + period..from + period * rounds).unwrap_or(&[]);
        let (middle, _) = mean_and_deviation(inner);
        let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
        for start in (from..=end).step_by(period) {
            for at in start + period..(start + 2 * period).min(counts.len()) {
                let (x, y) = (counts[at] - middle, counts[at - period] - middle);
                xx += x * x;
                yy += y * y;
                xy += x * y;
            }
        }
        let scale = f64::sqrt(xx * yy);
        let correlation = if scale == 0.0 { 1.0 } else { xy / scale };
        let divisors = (2..period / 2).filter(|divisor| period % divisor == 0);
        for of in std::iter::once(period).chain(divisors) {
            mean[of] = (seen[of] * mean[of] + correlation) / (seen[of] + 1.0);
            seen[of] += 1.0;
        }
    }
    mean.into_iter().skip(2).fold(f64::NEG_INFINITY, f64::max)
}

/// The decision about one window: connections, bytes out and bytes back of each bucket.
#[must_use]
pub fn decide(counts: &[f64], out: &[f64], back: &[f64]) -> Told {
    let Some(from) = counts.iter().position(|count| *count > 0.0) else { return Told::default() };
    let to = counts.iter().rposition(|count| *count > 0.0).map_or(0, |last| last + 1);
    let full = counts.iter().filter(|count| **count > 0.0).count();
    if to - from < 2 * PERIODS || full <= PERIODS {
        return Told::default();
    }
    let is_low = |values: &[f64], most: f64| {
        values.iter().filter(|value| **value > 0.0).count() > PERIODS
            && spread(&values[from..to]).is_some_and(|spread| spread <= most)
    };
    let (low_out, low_back) = (is_low(out, 0.05), is_low(back, 0.05));
    let is_dense = full > (to - from) / 2;
    let low_count = is_dense && is_low(counts, 0.1);
    let is_periodic = low_count || covariance(counts, from, to) >= COVARIANCE;
    let score: u8 = [is_periodic, low_out, low_back].map(u8::from).iter().sum();
    Told { score, is_beaconing: score > 0 }
}

/// What Elastic says of an episode at every checkpoint of at least an hour.
#[must_use]
pub fn series(episode: &Episode) -> Vec<(f64, Told)> {
    let Some(first) = episode.connections.first().map(|connection| connection.at) else {
        return Vec::new();
    };
    let at = |checkpoint: f64| {
        let now = first + checkpoint;
        let window = between(&episode.connections, now - BUCKETS as f64 * BUCKET, now);
        if window.len() <= PERIODS {
            return (now, Told::default());
        }
        let (mut counts, mut out, mut back) = ([0.0; BUCKETS], [0.0; BUCKETS], [0.0; BUCKETS]);
        for connection in window {
            let bucket = (((now - connection.at) / BUCKET) as usize).min(BUCKETS - 1);
            counts[bucket] += 1.0;
            out[bucket] += connection.up;
            back[bucket] += connection.down;
        }
        for ((count, out), back) in counts.iter().zip(&mut out).zip(&mut back) {
            *out /= f64::max(*count, 1.0);
            *back /= f64::max(*count, 1.0);
        }
        (now, decide(&counts, &out, &back))
    };
    CHECKPOINTS.into_iter().filter(|checkpoint| *checkpoint >= HOUR).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(minutes: usize) -> [f64; BUCKETS] {
        std::array::from_fn(|at| f64::from(u8::from(at % minutes == 0)))
    }

    #[test]
    fn a_clock_of_ten_minutes_is_beaconing_by_all_three() {
        let counts = every(10);
        let bytes = counts.map(|count| count * 500.0);
        assert_eq!(decide(&counts, &bytes, &bytes), Told { score: 3, is_beaconing: true });
    }

    #[test]
    fn a_few_moments_are_nothing() {
        let mut counts = [0.0; BUCKETS];
        counts[3] = 1.0;
        counts[200] = 2.0;
        assert_eq!(decide(&counts, &counts, &counts), Told::default());
    }
}
