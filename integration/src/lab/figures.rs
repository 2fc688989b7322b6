//! Figures for people: percentiles and histograms of what was measured.

use serde_json::{Value, json};

/// Upper bounds of a histogram's bars, in microseconds.
const BARS: [u64; 17] = [
    5,
    10,
    15,
    20,
    30,
    60,
    100,
    200,
    300,
    500,
    750,
    1_000,
    2_000,
    5_000,
    10_000,
    200_000,
    u64::MAX,
];

/// The value below which a share of sorted numbers lies; nearest rank.
#[must_use]
pub fn percentile(sorted: &[u64], share: f64) -> u64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// Times of one thing, in nanoseconds, sorted.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<u64>);

impl Times {
    /// Of these, in any order.
    #[must_use]
    pub fn of(mut nanos: Vec<u64>) -> Self {
        nanos.sort_unstable();
        Self(nanos)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The time below which a share lies, in microseconds.
    #[must_use]
    pub fn micros(&self, share: f64) -> f64 {
        percentile(&self.0, share) as f64 / 1e3
    }

    /// The figures, in milliseconds, and every sample.
    #[must_use]
    pub fn facts(&self) -> Value {
        let ms = |share| self.micros(share) / 1e3;
        json!({
            "count": self.0.len(), "p50_ms": ms(0.5), "p90_ms": ms(0.9), "p99_ms": ms(0.99), "max_ms": ms(1.0),
            "samples_ns": self.0,
        })
    }

    /// A line of figures, in microseconds.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "p50 {:>9.1} µs · p99 {:>9.1} µs · worst {:>9.1} µs  ({} times)",
            self.micros(0.5),
            self.micros(0.99),
            self.micros(1.0),
            self.0.len()
        )
    }

    /// Prints a histogram.
    pub fn print(&self, title: &str) {
        println!("{title}");
        let (mut from, mut shown) = (0, false);
        let last = self.0.last().copied().unwrap_or(0) / 1000;
        for to in BARS {
            let count = self.0.iter().filter(|ns| (from..to).contains(&(**ns / 1000))).count();
            shown |= count > 0;
            if shown && from <= last {
                let share = (count * 60).div_ceil(self.0.len().max(1));
                let label = if to == u64::MAX {
                    format!("≥ {:>8.3} ms", from as f64 / 1e3)
                } else {
                    format!("< {:>8.3} ms", to as f64 / 1e3)
                };
                println!("  {label} {count:>6} {}", "█".repeat(share));
            }
            from = to;
        }
        println!("  {}\n", self.line());
    }
}
