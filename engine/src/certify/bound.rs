//! The exact Poisson upper bound: how often something may happen that was seen so many times.

/// The confidence of a single channel is held below this, so that the bound stays finite.
const SUREST: f64 = 1.0 - 1e-15;
/// Halvings of the interval in which the bound is looked for: beyond the resolution of a double.
const HALVINGS: u32 = 200;

/// The upper bound of the mean of a Poisson count that came out as `events`, at a confidence.
///
/// It is χ² with 2(events + 1) degrees of freedom at the confidence, halved (Garwood 1936): the mean
/// at which so few events have a probability of 1 − confidence.
#[must_use]
pub fn poisson_upper(events: u64, confidence: f64) -> f64 {
    let tail = 1.0 - confidence.clamp(0.0, SUREST);
    let count = events as f64;
    let (mut low, mut high) = (0.0, 2.0 * count + 80.0);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if at_most(events, middle) > tail {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The probability that a Poisson count with this mean is at most `events`.
fn at_most(events: u64, mean: f64) -> f64 {
    if mean <= 0.0 {
        return 1.0;
    }
    let count = events as f64;
    let highest = count * mean.ln() - mean - ln_factorial(events);
    // From the last term down: each is the one above it times j / mean.
    let (mut sum, mut term) = (1.0, 1.0);
    let mut j = count;
    while j > 0.0 && term > sum * 1e-18 {
        term *= j / mean;
        sum += term;
        j -= 1.0;
        if !f64::is_finite(sum) {
            return 1.0;
        }
    }
    (highest + f64::ln(sum)).exp().min(1.0)
}

fn ln_factorial(of: u64) -> f64 {
    if of < 256 {
        return (2..=of).map(|factor| (factor as f64).ln()).sum();
    }
    // Stirling's series: the first term left out is below 1e-19 here.
    let x = of as f64;
    let correction = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3)) + 1.0 / (1260.0 * x.powi(5));
    x * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI * x).ln() + correction
}

/// How many events a time may hold so that their rate is still promised; `None` when even none is too many.
#[must_use]
pub fn allowed(host_weeks: f64, budget: f64, confidence: f64) -> Option<u64> {
    let fits = |events: u64| poisson_upper(events, confidence) <= budget * host_weeks;
    if !host_weeks.is_finite() || !budget.is_finite() || !fits(0) {
        return None;
    }
    // The bound is above the count itself, so that so many can't fit.
    let (mut low, mut high) = (0, (budget * host_weeks).ceil() as u64 + 1);
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if fits(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(low)
}

/// Host-weeks without an event that are still needed before a budget can be promised at all.
#[must_use]
pub fn missing(host_weeks: f64, budget: f64, confidence: f64) -> f64 {
    (poisson_upper(0, confidence) / budget - host_weeks).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with mpmath 1.3 at 30 digits (the root of the regularised upper incomplete gamma
    /// function); those at 0.95 and 0.99 agree with Gehrels 1986, table 1, and with tables of χ².
    const KNOWN: [(u64, f64, f64); 15] = [
        (0, 0.95, 2.995_732_273_553_99),
        (1, 0.95, 4.743_864_518_390_58),
        (2, 0.95, 6.295_793_621_871_99),
        (5, 0.95, 10.513_034_908_741_5),
        (10, 0.95, 16.962_219_235_721_9),
        (100, 0.95, 118.079_272_782_097),
        (1000, 0.95, 1_053.603_122_133_3),
        (10_000, 0.95, 10_166.060_136_127_1),
        (0, 0.99, 4.605_170_185_988_09),
        (10, 0.99, 20.144_680_218_796_9),
        (50, 0.99, 69.067_235_574_836_3),
        (0, 1.0 - 0.05 / 3.0, 4.094_344_562_222_1),
        (2, 1.0 - 0.05 / 3.0, 7.752_946_032_805_68),
        (5, 1.0 - 0.05 / 7.0, 13.618_376_010_534_6),
        (1000, 1.0 - 0.05 / 7.0, 1_080.179_644_777_01),
    ];

    #[test]
    fn the_bound_is_the_known_one() {
        for (events, confidence, known) in KNOWN {
            let bound = poisson_upper(events, confidence);
            assert!((bound / known - 1.0).abs() < 1e-12, "{events} at {confidence}: {bound}");
        }
    }

    #[test]
    fn as_many_events_are_allowed_as_the_bound_admits() {
        for (host_weeks, budget, confidence) in
            [(160.0, 0.5, 0.99), (40.0, 0.12, 0.95), (1e5, 0.04, 0.9833), (30.0, 0.1, 0.95)]
        {
            let events = allowed(host_weeks, budget, confidence).unwrap();
            assert!(poisson_upper(events, confidence) / host_weeks <= budget);
            assert!(poisson_upper(events + 1, confidence) / host_weeks > budget, "{host_weeks}");
        }
    }

    #[test]
    fn nothing_is_promised_on_too_little_time_and_the_rule_of_three_says_how_much_is_missing() {
        // 3 / b host-weeks at 0.95 (2.9957 / b exactly).
        for (budget, needed) in [(0.5, 5.991_464_5), (0.1, 29.957_322_7), (0.01, 299.573_227_4)] {
            assert_eq!(allowed(needed - 0.01, budget, 0.95), None);
            assert_eq!(allowed(needed + 0.01, budget, 0.95), Some(0));
            assert!((missing(1.0, budget, 0.95) - (needed - 1.0)).abs() < 1e-5);
        }
        // Three channels together at 0.95 take 4.1 / b each.
        assert!((missing(0.0, 0.04, 1.0 - 0.05 / 3.0) - 102.358_614).abs() < 1e-5);
        assert!(missing(1000.0, 0.5, 0.95).abs() < f64::EPSILON);
        assert_eq!(allowed(f64::NAN, 0.5, 0.95), None);
        assert_eq!(allowed(10.0, 0.0, 0.95), None);
    }
}
