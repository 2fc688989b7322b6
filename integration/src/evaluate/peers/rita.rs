//! RITA v5.1.1's scores of a destination (detection.md, section 2.1), re-implemented from their description.

use super::{CHECKPOINTS, between, mean_and_deviation};
use crate::evaluate::fleet::{Connection, DAY, Episode, HOUR};
use std::collections::BTreeMap;

/// RITA's "high".
pub const HIGH: f64 = 0.6;
/// RITA's "critical".
pub const CRITICAL: f64 = 0.8;
/// Hours in RITA's window.
const BINS: usize = 24;
/// Connections from which RITA calls a destination a strobe.
const STROBE: usize = 86_400;

/// The four parts of a beacon score, and their mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beacon {
    /// Regularity of the gaps.
    pub gaps: f64,
    /// Regularity of the bytes.
    pub bytes: f64,
    /// How long it goes on.
    pub duration: f64,
    /// Evenness of the 24 hours.
    pub histogram: f64,
    /// The mean of the four.
    pub score: f64,
}

fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn thousandths_up(value: f64) -> f64 {
    ((value * 1000.0).ceil() / 1000.0).min(1.0)
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// The quarters by the medians of both halves; an odd number's middle belongs to neither.
fn quarters(sorted: &[f64]) -> (f64, f64, f64) {
    let half = sorted.len() / 2;
    let upper = half + sorted.len() % 2;
    (median(&sorted[..half]), median(sorted), median(&sorted[upper..]))
}

/// Regularity of numbers: symmetry (Bowley) and narrowness (median absolute deviation).
fn regularity(values: &[f64], where_median_is_below_one: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, middle, high) = quarters(&sorted);
    let width = high - low;
    let is_skewed = width >= 10.0 && middle != low && middle != high;
    let skew = if is_skewed { (low + high - 2.0 * middle) / width } else { 0.0 };
    let mut away: Vec<f64> = sorted.iter().map(|value| (value - middle).abs()).collect();
    away.sort_by(f64::total_cmp);
    let narrow =
        if middle >= 1.0 { (middle - median(&away)) / middle } else { where_median_is_below_one };
    thousandths(f64::midpoint(1.0 - skew.abs(), narrow.max(0.0)))
}

/// The longest run of hours with traffic, beyond midnight too.
fn longest_run(hours: &[f64]) -> usize {
    let (mut run, mut longest) = (0, 0);
    for hour in 0..2 * BINS {
        run = if hours[hour % BINS] > 0.0 { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest.min(BINS)
}

/// The share of the two commonest heights among the hours with traffic.
fn two_heights(hours: &[f64], bars: usize) -> f64 {
    if bars < 11 {
        return 0.0;
    }
    let width = (hours.iter().copied().fold(0.0, f64::max) * 0.05).ceil();
    let mut heights: BTreeMap<u64, usize> = BTreeMap::new();
    for hour in hours.iter().filter(|hour| **hour > 0.0) {
        *heights.entry((hour / width).floor() as u64).or_default() += 1;
    }
    let mut counts: Vec<usize> = heights.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let two: usize = counts.iter().take(2).sum();
    thousandths(two as f64 / (bars - 1).max(1) as f64).min(1.0)
}

/// The beacon score of the connections of the 24 hours from `from`; `None` for too few.
#[must_use]
pub fn beacon(connections: &[Connection], from: f64) -> Option<Beacon> {
    let mut times: Vec<i64> = connections.iter().map(|c| c.at.floor() as i64).collect();
    times.sort_unstable();
    let mut unique = times.clone();
    unique.dedup();
    if connections.len() >= STROBE || unique.len() < 4 {
        return None;
    }
    let gaps: Vec<f64> = unique.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
    let sizes: Vec<f64> = connections.iter().map(|c| c.up).collect();
    let mut hours = [0.0; BINS];
    for at in &times {
        let bin = ((*at as f64 - from) / HOUR).floor().clamp(0.0, (BINS - 1) as f64);
        hours[bin as usize] += 1.0;
    }
    let bars = hours.iter().filter(|hour| **hour > 0.0).count();
    let (mean, deviation) = mean_and_deviation(&hours);
    let even = if deviation > mean { 0.0 } else { thousandths(1.0 - deviation / mean) };
    let duration = if bars >= 6 {
        let whole = (times[times.len() - 1] - times[0]) as f64 / DAY;
        thousandths_up(whole).max(thousandths_up(longest_run(&hours) as f64 / 12.0))
    } else {
        0.0
    };
    let parts = (
        regularity(&gaps, 1.0),
        regularity(&sizes, 0.0),
        duration,
        even.max(two_heights(&hours, bars)),
    );
    let (gaps, bytes, duration, histogram) = parts;
    let score = thousandths(0.25 * (gaps + bytes + duration + histogram));
    Some(Beacon { gaps, bytes, duration, histogram, score })
}

/// A value on the scale of RITA's categories, by the edges none, low, medium, high.
fn category(value: f64, edges: [f64; 4]) -> f64 {
    let [base, low, medium, high] = edges;
    if value < base {
        return 0.0;
    }
    if value < low {
        return 0.2 + (value - base) / (low - base) * 0.2;
    }
    if value < medium {
        return 0.4 + (value - low) / (medium - low) * 0.2;
    }
    0.6 + (value.min(high) - medium) / (high - medium) * 0.2
}

/// RITA's score of a domain by its unique subdomains.
#[must_use]
pub fn dns(subdomains: u64) -> f64 {
    category(subdomains as f64, [100.0, 500.0, 800.0, 1000.0])
}

/// What RITA knows beside the connections.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// Share of the hosts that speak to it.
    pub prevalence: f64,
    /// Days since it was first seen.
    pub days_known: f64,
    /// Seconds of the window in which a connection was open.
    pub open: f64,
}

/// RITA's final score of the connections of the 24 hours from `from`.
#[must_use]
pub fn score(connections: &[Connection], from: f64, around: Surroundings) -> f64 {
    let regular = beacon(connections, from)
        .map_or(0.0, |b| category(b.score * 100.0, [50.0, 70.0, 90.0, 100.0]));
    let strobe = if connections.len() >= STROBE { 0.8 } else { 0.0 };
    let long = category(around.open, [HOUR, 4.0 * HOUR, 8.0 * HOUR, 12.0 * HOUR]);
    let base = regular.max(strobe).max(long);
    if base == 0.0 {
        return 0.0;
    }
    let seldom = |value: f64, low: f64, high: f64| match value {
        v if v <= low => 0.15,
        v if v >= high => -0.15,
        _ => 0.0,
    };
    base + seldom(around.prevalence, 0.02, 0.5) + seldom(around.days_known, 7.0, 30.0)
}

/// RITA's score of an episode at every checkpoint of at least an hour, over the 24 hours before it.
#[must_use]
pub fn series(episode: &Episode, fleet: usize) -> Vec<(f64, f64)> {
    let Some(first) = episode.connections.first().map(|connection| connection.at) else {
        return Vec::new();
    };
    let at = |checkpoint: f64| {
        let now = first + checkpoint;
        let low = first.max(now - DAY);
        let until_now = between(&episode.connections, f64::NEG_INFINITY, now);
        let open =
            until_now.iter().map(|c| ((c.at + c.seconds).min(now) - c.at.max(low)).max(0.0)).sum();
        let around = Surroundings {
            prevalence: f64::from(episode.hosts_after(checkpoint / HOUR)) / fleet as f64,
            days_known: checkpoint / DAY,
            open,
        };
        (now, score(between(&episode.connections, low, now), now - DAY, around))
    };
    CHECKPOINTS.into_iter().filter(|checkpoint| *checkpoint >= HOUR).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(period: f64, count: usize, bytes: f64) -> Vec<Connection> {
        let one = |n| Connection { at: period * n as f64, up: bytes, down: 0.0, seconds: 1.0 };
        (0..count).map(one).collect()
    }

    #[test]
    fn a_whole_day_by_the_minute_scores_one() {
        let parts = beacon(&every(60.0, 1440, 500.0), 0.0).unwrap();
        assert_eq!(
            parts,
            Beacon { gaps: 1.0, bytes: 1.0, duration: 1.0, histogram: 1.0, score: 1.0 }
        );
    }

    #[test]
    fn three_moments_are_too_few() {
        assert_eq!(beacon(&every(60.0, 3, 500.0), 0.0), None);
    }

    #[test]
    fn two_hours_of_a_day_have_no_duration_and_no_evenness() {
        let parts = beacon(&every(60.0, 120, 500.0), 0.0).unwrap();
        assert_eq!((parts.duration, parts.histogram), (0.0, 0.0));
        assert_eq!(parts.score, 0.5);
    }

    #[test]
    fn the_numbers_worked_by_hand_come_out() {
        // Gaps 10, 20, 30, 60: quarters 15, 25, 45; skew 1/3; deviations 5, 5, 15, 35, median 10.
        assert_eq!(
            regularity(&[10.0, 20.0, 30.0, 60.0], 1.0),
            thousandths(f64::midpoint(2.0 / 3.0, 0.6))
        );
        assert!((category(80.0, [50.0, 70.0, 90.0, 100.0]) - 0.5).abs() < 1e-12);
        assert!((dns(900) - 0.7).abs() < 1e-12);
    }
}
