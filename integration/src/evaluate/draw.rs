//! Random numbers from a seed: the same seed gives the same fleet on every machine.

use std::f64::consts::TAU;

/// Largest mean that the multiplicative method is used for at once; more is drawn in parts.
const POISSON_PART: f64 = 30.0;

/// A source of numbers (xoshiro256++, seeded by SplitMix64; Blackman and Vigna, 2019).
#[derive(Clone, Debug)]
pub struct Draw {
    state: [u64; 4],
    spare: Option<f64>,
}

impl Draw {
    /// A source that this seed determines.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut mixed = seed;
        let state = [0; 4].map(|_: u64| {
            mixed = mixed.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let z = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ z >> 31
        });
        Self { state, spare: None }
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        let s = &mut self.state;
        let drawn = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        drawn
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in `[low, high)`.
    pub fn within(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A whole number of `[low, high)`.
    pub fn whole(&mut self, low: usize, high: usize) -> usize {
        low + (self.unit() * (high - low) as f64) as usize
    }

    /// True with this probability.
    pub fn happens(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// One of several, each as likely.
    pub fn among<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.whole(0, of.len())]
    }

    /// Normal (Box and Muller).
    pub fn normal(&mut self, mean: f64, deviation: f64) -> f64 {
        let standard = self.spare.take().unwrap_or_else(|| {
            let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
            let angle = TAU * self.unit();
            self.spare = Some(radius * angle.sin());
            radius * angle.cos()
        });
        mean + deviation * standard
    }

    /// Exponential with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// Log-normal with this median and deviation of the logarithm.
    pub fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        (median.ln() + self.normal(0.0, sigma)).exp()
    }

    /// Pareto of the second kind with scale 1: from 0 on.
    pub fn pareto(&mut self, shape: f64) -> f64 {
        (1.0 - self.unit()).powf(-1.0 / shape) - 1.0
    }

    /// Gamma with a shape of at least 1 (Marsaglia and Tsang, 2000).
    pub fn gamma(&mut self, shape: f64, scale: f64) -> f64 {
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal(0.0, 1.0);
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && (1.0 - self.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v * scale;
            }
        }
    }

    /// Poisson with this mean.
    pub fn poisson(&mut self, mean: f64) -> usize {
        let (mut left, mut count) = (mean, 0);
        while left > 0.0 {
            let part = left.min(POISSON_PART);
            left -= part;
            let floor = (-part).exp();
            let mut product = self.unit();
            while product > floor {
                count += 1;
                product *= self.unit();
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: usize = 100_000;

    fn moments(mut draw: impl FnMut() -> f64) -> (f64, f64) {
        let drawn: Vec<f64> = (0..MANY).map(|_| draw()).collect();
        let mean = drawn.iter().sum::<f64>() / MANY as f64;
        let variance = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / MANY as f64;
        (mean, variance)
    }

    #[test]
    fn a_seed_determines_every_number() {
        let of = |seed| (0..9).map(|_| 0).scan(Draw::new(seed), |d, _| Some(d.bits())).collect();
        let (a, b, c): (Vec<u64>, Vec<u64>, Vec<u64>) = (of(5), of(5), of(6));
        assert_eq!(a, b);
        assert_ne!(a, c);
    }

    #[test]
    fn laws_have_their_means_and_variances() {
        let mut draw = Draw::new(1);
        let near = |(mean, variance): (f64, f64), m: f64, v: f64| {
            assert!((mean - m).abs() < 0.03 * m.max(1.0), "mean {mean}, not {m}");
            assert!((variance - v).abs() < 0.08 * v, "variance {variance}, not {v}");
        };
        near(moments(|| draw.unit()), 0.5, 1.0 / 12.0);
        near(moments(|| draw.normal(3.0, 2.0)), 3.0, 4.0);
        near(moments(|| draw.exponential(5.0)), 5.0, 25.0);
        near(moments(|| draw.gamma(4.0, 0.25)), 1.0, 0.25);
        near(moments(|| draw.poisson(70.0) as f64), 70.0, 70.0);
        near(moments(|| draw.poisson(0.4) as f64), 0.4, 0.4);
        near(
            moments(|| draw.lognormal(1.0, 0.5)),
            0.125_f64.exp(),
            0.25_f64.exp() * 0.25_f64.exp_m1(),
        );
        near(moments(|| draw.pareto(5.0)), 0.25, 5.0 / (16.0 * 3.0));
    }
}
