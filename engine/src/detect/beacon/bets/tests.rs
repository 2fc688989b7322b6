use super::*;
use sekisho_schema::Span;

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

fn run(gaps: impl Iterator<Item = f64>) -> Vec<f64> {
    let start = Timestamp::from_nanos(1_780_000_000_000_000_000);
    let mut bets = Bets::new(start, 1.0);
    let mut seconds = 0.0;
    let mut out = vec![0.0];
    for gap in gaps {
        seconds += gap;
        bets.observe(start.after(Span::from_nanos((seconds * 1e9) as i64)), 1.0, 0.5);
        out.push(bets.log10_e());
    }
    out
}

fn agrees(out: &[f64], reference: [f64; 6]) {
    let at = [9, 15, 29, 59, 119, out.len() - 1];
    for (index, expected) in at.into_iter().zip(reference) {
        assert!((out[index] - expected).abs() < 1e-6, "contact {index}: {} {expected}", out[index]);
    }
}

// The expected values were computed by the Python prototype of the same formulas.
#[test]
fn a_beacon_with_20_percent_jitter_wins_as_the_reference_does() {
    let mut draw = Draw(SEED);
    let out = run((0..200).map(|_| 60.0 * (0.8 + 0.4 * draw.unit())));
    agrees(
        &out,
        [
            1.015_150_388_302_152_2,
            2.157_845_100_224_928,
            6.968_991_072_805_244,
            19.267_017_911_157_78,
            41.864_066_936_939_93,
            72.137_664_282_293_12,
        ],
    );
}

#[test]
fn memoryless_traffic_wins_nothing_as_in_the_reference() {
    let mut draw = Draw(SEED);
    let out = run((0..200).map(|_| -60.0 * (1.0 - draw.unit()).ln()));
    agrees(
        &out,
        [
            -0.034_265_279_608_828_25,
            -0.002_844_394_679_341_137_7,
            -0.002_696_933_560_796_602_6,
            0.0,
            -0.002_181_582_507_465_349,
            -0.001_426_691_210_920_653_7,
        ],
    );
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
    agrees(
        &out,
        [
            0.030_022_025_261_384_505,
            0.118_741_320_011_478_2,
            0.737_935_106_701_153_1,
            5.076_566_305_158_882,
            10.104_297_255_714_416,
            20.179_676_609_615_676,
        ],
    );
}

#[test]
fn no_memoryless_or_bursty_stream_of_200_reaches_a_thousand() {
    let mut draw = Draw(SEED);
    for stream in 0..200 {
        let mean = 2.0 + 600.0 * draw.unit();
        let out = run((0..300).map(|_| {
            let exponential = -(1.0 - draw.unit()).ln();
            match stream % 3 {
                0 => mean * exponential,
                1 if draw.unit() < 0.7 => 3.0 * exponential,
                1 => mean * 3.0 * exponential,
                _ => mean * ((1.0 - draw.unit()).powf(-1.0 / 1.3) - 1.0),
            }
        }));
        let most = out.into_iter().fold(0.0, f64::max);
        assert!(most < 3.0, "stream {stream}: 10^{most}");
    }
}

#[test]
fn the_counted_hits_belong_to_the_bettor_that_won_most() {
    let start = Timestamp::from_nanos(0);
    let mut bets = Bets::new(start, 1.0);
    for contact in 1..=20 {
        bets.observe(start.after(Span::from_secs(60 * contact)), 1.0, 0.5);
    }
    let best = bets.best();
    // Three gaps are learned before the first bet.
    assert_eq!((best.hits(), best.counted()), (17, 17));
    assert!(best.low < 60.0 && best.high > 60.0 && best.chance < 0.2);
    assert!(bets.log10_e() > 6.0);
}
