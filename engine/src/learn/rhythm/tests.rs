use super::*;
use crate::certify::episode;
use crate::learn::keep::Keep;
use sekisho_schema::episode::ScoreInputs;

/// xorshift64, upper 53 bits, as in the reference run.
struct Draw(u64);

impl Draw {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

const SEED: u64 = 0x9E37_79B9_7F4A_7C15;

fn span(seconds: f64) -> Span {
    Span::from_nanos((seconds * 1e9) as i64)
}

fn run(gaps: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut rhythm = Rhythm::default();
    std::iter::once(0.0).chain(gaps.map(|gap| rhythm.gap(span(gap)))).collect()
}

/// Gaps kept as logarithms and hits in halves move the winnings by little.
fn agrees(out: &[f64], reference: [f64; 6]) {
    let at = [9, 15, 29, 59, 119, out.len() - 1];
    for (index, expected) in at.into_iter().zip(reference) {
        let slack = 0.005 + 0.002 * expected.abs();
        assert!(
            (out[index] - expected).abs() < slack,
            "contact {index}: {} {expected}",
            out[index]
        );
    }
}

// The expected values were computed by a Python program of the same formulas that was written apart.
#[test]
fn a_beacon_with_20_percent_jitter_wins_as_the_reference_does() {
    let mut draw = Draw(SEED);
    let out = run((0..200).map(|_| 60.0 * (0.8 + 0.4 * draw.unit())));
    agrees(&out, [1.624_485, 2.799_373, 7.863_940, 19.947_896, 41.573_683, 70.785_573]);
}

#[test]
fn memoryless_traffic_wins_nothing_as_in_the_reference() {
    let mut draw = Draw(SEED);
    let out = run((0..200).map(|_| -60.0 * (1.0 - draw.unit()).ln()));
    agrees(&out, [-0.047_551, -0.017_397, -0.010_973, -0.002_014, 0.002_727, -0.002_126]);
}

#[test]
fn nights_off_and_operator_bursts_cost_what_they_cost_in_the_reference() {
    let mut draw = Draw(SEED);
    let out = run((0..200).map(|i| {
        let unit = draw.unit();
        match i {
            i if i % 50 == 49 => 8.0 * 3600.0,
            i if i % 7 == 3 => 0.3,
            i if i % 11 == 5 => 4.0,
            _ => 30.0 * (0.5 + 0.5 * unit),
        }
    }));
    agrees(&out, [0.259_236, 0.348_263, 0.760_959, 5.136_456, 10.186_108, 16.699_260]);
}

/// What each bettor makes of its stake in the mean, when the next gap is drawn evenly between the dead
/// time and a longest: every law without a rise is a mixture of such draws.
fn means(rhythm: &Rhythm, longest: f64) -> [f64; BETTORS] {
    const DRAWS: usize = 500;
    let mut sums = [0.0; BETTORS];
    for draw in 0..DRAWS {
        let gap = 1.0 + (longest - 1.0) * (draw as f64 + 0.5) / DRAWS as f64;
        let mut next = rhythm.clone();
        next.gap(span(gap));
        for ((sum, after), before) in sums.iter_mut().zip(next.log10_e).zip(rhythm.log10_e) {
            // Unchanged: no bet. Otherwise the stake is what was won so far, or 1 after a loss of all.
            let is_bet = after.to_bits() != before.to_bits();
            *sum += if is_bet { 10_f64.powf(f64::from(after - before.max(0.0))) } else { 1.0 };
        }
    }
    sums.map(|sum| sum / DRAWS as f64)
}

#[test]
fn no_bettor_wins_in_the_mean_whatever_the_past_was() {
    assert_eq!(Rhythm::default().log10_e(), 0.0, "the bettors share one stake");
    let mut draw = Draw(SEED);
    let mut won = 0.0_f64;
    for past in 0..60 {
        let mut rhythm = Rhythm::default();
        let sleep = 10_f64.powf(1.0 + 2.5 * draw.unit());
        for _ in 0..5 + past % 40 {
            // A beacon, a beacon with an operator, or no plan at all.
            let gap = match past % 3 {
                1 if draw.unit() < 0.2 => 1.0 + 3.0 * draw.unit(),
                0 | 1 => sleep * (0.5 + draw.unit()),
                _ => 1.0 - sleep * (1.0 - draw.unit()).ln(),
            };
            rhythm.gap(span(gap));
        }
        for longest in [0.1, 0.4, 0.9, 1.2, 1.5, 1.7, 2.5, 8.0].map(|times| 1.0 + times * sleep) {
            for mean in means(&rhythm, longest) {
                // The slack is that of the grid of draws.
                assert!(mean <= 1.012, "past {past}, sleep {sleep}, to {longest}: {mean}");
                won = won.max(mean);
            }
        }
    }
    assert!(won > 0.99, "nobody bet: {won}");
}

fn null_stream(draw: &mut Draw, kind: u64) -> f64 {
    let mean = 2.0 + 600.0 * draw.unit();
    let out = run((0..300).map(|_| {
        let exponential = -(1.0 - draw.unit()).ln();
        match kind % 4 {
            0 => mean * exponential,
            1 if draw.unit() < 0.7 => 3.0 * exponential,
            1 => mean * 3.0 * exponential,
            2 => mean * ((1.0 - draw.unit()).powf(-1.0 / 1.3) - 1.0),
            _ => {
                // Box and Muller; a log-normal of sigma 2.
                let normal = (-2.0 * (1.0 - draw.unit()).ln()).sqrt()
                    * (std::f64::consts::TAU * draw.unit()).cos();
                mean * (2.0 * normal).exp()
            }
        }
    }));
    out.into_iter().fold(0.0, f64::max)
}

#[test]
fn no_memoryless_or_bursty_stream_of_800_reaches_a_thousand() {
    let mut draw = Draw(SEED);
    for stream in 0..800 {
        let most = null_stream(&mut draw, stream);
        assert!(most < 3.0, "stream {stream}: 10^{most}");
    }
}

/// Contacts until 10^6, median of 101 streams.
fn contacts(draw: &mut Draw, gap: impl Fn(f64) -> f64) -> usize {
    let mut counts: Vec<usize> = (0..101)
        .map(|_| {
            let mut rhythm = Rhythm::default();
            1 + (1..600).find(|_| rhythm.gap(span(gap(draw.unit()))) >= 6.0).unwrap_or(600)
        })
        .collect();
    counts.sort_unstable();
    counts[50]
}

#[test]
fn proof_takes_no_more_contacts_than_promised() {
    let mut draw = Draw(SEED);
    // detection.md, E2: jitter 0, 20 %, 50 % as Cobalt Strike draws it, 50 % to both sides.
    for (jitter, low, most) in [(0.0, 1.0, 12), (0.2, 0.8, 18), (0.5, 0.5, 45), (1.0, 0.5, 80)] {
        // The slack of half a second at both ends is large against ten seconds.
        for (sleep, more) in [(10.0, 6), (60.0, 0), (900.0, 0), (3600.0, 0)] {
            let got = contacts(&mut draw, |unit| sleep * (low + jitter * unit));
            assert!(got <= most + more, "sleep {sleep} jitter {jitter}: {got} contacts");
        }
    }
}

#[test]
fn a_burst_of_an_operator_does_not_hide_the_beacon_behind_it() {
    let mut draw = Draw(SEED);
    let mut rhythm = Rhythm::default();
    // Enough quick contacts that the ring holds nothing else.
    for _ in 0..40 {
        rhythm.gap(span(1.0 + 2.0 * draw.unit()));
    }
    let before = rhythm.log10_e();
    let proven = (1..100).find(|_| rhythm.gap(span(60.0 * (0.8 + 0.2 * draw.unit()))) >= 6.0);
    assert!(before < 3.0 && proven.is_some_and(|contacts| contacts <= 30), "{before} {proven:?}");
}

#[test]
fn the_counted_hits_are_those_of_the_last_bets() {
    let mut rhythm = Rhythm::default();
    assert_eq!(rhythm.counted(), (0, 0));
    for _ in 0..19 {
        rhythm.gap(Span::from_secs(60));
    }
    // Three gaps are learned before the first bet.
    assert_eq!(rhythm.counted(), (16, 16));
    rhythm.gap(Span::from_secs(30));
    assert_eq!(rhythm.counted(), (16, 17));
    for _ in 0..100 {
        rhythm.gap(Span::from_secs(60));
    }
    assert_eq!(rhythm.counted(), (31, 31));
    let window = rhythm.predicted(RhythmSettings::default()).unwrap();
    assert!(window.low < 60.0 && window.high > 60.0 && window.chance < 0.2, "{window:?}");
}

#[test]
fn the_record_replays_to_the_highest_e_value_though_the_rhythm_was_lost() {
    let mut draw = Draw(SEED);
    let mut rhythm = Rhythm::default();
    for _ in 0..40 {
        rhythm.gap(span(60.0 * (0.9 + 0.2 * draw.unit())));
    }
    let peak = rhythm.peak();
    for _ in 0..60 {
        rhythm.gap(span(-20.0 * (1.0 - draw.unit()).ln() + 1.0));
    }
    assert!(peak > 6.0 && rhythm.log10_e() < peak);
    let mut inputs = rhythm.bets().to_vec();
    inputs.push((input::HOURS, 3.0));
    let replayed = episode::mixture(&ScoreInputs(inputs)).unwrap();
    assert!((replayed - peak).abs() < 1e-5, "{replayed} {peak}");
}

#[test]
fn a_restored_rhythm_goes_on_to_the_same_bits() {
    let mut draw = Draw(SEED);
    let mut first = Rhythm::default();
    for _ in 0..50 {
        first.gap(span(60.0 * draw.unit()));
    }
    let mut bytes = Vec::new();
    first.keep(&mut bytes);
    let mut second = Rhythm::take(&mut bytes.as_slice()).unwrap();
    for _ in 0..50 {
        let gap = span(60.0 * draw.unit());
        assert_eq!(first.gap(gap).to_bits(), second.gap(gap).to_bits());
    }
    assert_eq!(first, second);
}

#[test]
fn the_state_of_a_rhythm_is_small() {
    assert!(size_of::<Rhythm>() <= 112, "{}", size_of::<Rhythm>());
}

#[test]
fn the_last_sixteen_gaps_are_told_in_their_order() {
    for count in [0_u8, 5, 16, 40] {
        let mut rhythm = Rhythm::default();
        for n in 0..count {
            rhythm.gap(span(60.0 + f64::from(n)));
        }
        let first = count.saturating_sub(16);
        let expected: Vec<f32> = (first..count).map(|n| 60.0 + f32::from(n)).collect();
        let gaps = rhythm.gaps();
        assert_eq!(gaps.len(), expected.len());
        for (gap, expected) in gaps.iter().zip(&expected) {
            assert!((gap / expected - 1.0).abs() < 0.001, "{gap} {expected}");
        }
    }
}
