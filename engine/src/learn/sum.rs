//! All evidence about one destination, summed: how rare each of its sides is among the benign episodes of
//! the learning time (detection.md, section 3, channel S).

use super::oddity::Oddities;
use crate::certify::episode::{ScoreInputs, input};
use serde::{Deserialize, Serialize};

/// Most that log10 of an e-value counts.
const MOST_LOG10_E: f64 = 40.0;
/// Share of the largest uploads from which the tail is drawn, and the fewest of them.
const TAIL_SHARE: f64 = 0.02;
const TAIL_LEAST: usize = 20;
/// Least mean excess of the tail, in decades.
const LEAST_EXCESS: f64 = 0.05;
/// Values that two numbers must differ by to be told apart.
const SLACK: f64 = 1e-9;
/// Largest distinct values kept as they are, and groups that the smaller ones are put in.
const EXACT: usize = 128;
const GROUPS: usize = 128;
/// Which of the four numbers is the upload.
const UPLOAD: usize = 2;
/// Which of [`Oddities::ALL`] say the same thing: of the name, of the cipher, of the certificate.
const GROUPS_OF_ODDITIES: [std::ops::Range<usize>; 3] = [0..3, 3..5, 5..6];

/// What is looked at of an episode.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Features {
    /// The highest log10 of the rhythm's e-value.
    pub log10_e: f64,
    /// Hours with contact.
    pub hours: f64,
    /// Most net payload bytes upward.
    pub net_up: f64,
    /// Hosts that were seen with it, this one among them.
    pub hosts: f64,
    /// What was odd about it.
    pub oddities: Oddities,
    /// Whether the program behind it was new.
    pub new_process: bool,
}

impl Features {
    /// The four that are numbers, larger meaning rarer.
    fn values(&self) -> [f64; 4] {
        [
            self.log10_e.clamp(0.0, MOST_LOG10_E),
            self.hours,
            self.net_up.max(0.0).ln_1p() / std::f64::consts::LN_10,
            1.0 / self.hosts.max(1.0),
        ]
    }
}

/// How many of the benign values are at least as large.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Tail {
    /// Values, ascending, and how many are at least as large; among smaller ones a value may stand for those
    /// just below it, which makes nothing rarer than it is.
    knots: Vec<(f64, u32)>,
}

impl Tail {
    /// Of values in ascending order.
    fn of(sorted: &[f64]) -> Self {
        let total = sorted.len();
        let mut knots: Vec<(f64, u32)> = Vec::new();
        for (at, value) in sorted.iter().enumerate() {
            if knots.last().is_none_or(|(last, _)| *last < *value) {
                knots.push((*value, (total - at) as u32));
            }
        }
        if knots.len() > EXACT + GROUPS {
            let exact = knots.split_off(knots.len() - EXACT);
            let size = knots.len().div_ceil(GROUPS);
            knots = knots
                .chunks(size)
                .filter_map(|group| Some((group.last()?.0, group.first()?.1)))
                .chain(exact)
                .collect();
        }
        Self { knots }
    }

    fn at_least(&self, value: f64) -> u32 {
        let at = self.knots.partition_point(|(known, _)| *known < value - SLACK);
        self.knots.get(at).map_or(0, |(_, count)| *count)
    }
}

/// What benign episodes of a role look like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    episodes: u32,
    tails: [Tail; 4],
    /// log10 of the upload from which the tail is drawn, the share of episodes above, their mean excess.
    upload_from: f64,
    upload_share: f64,
    upload_excess: f64,
    /// How often each oddity is there, in the order of [`Oddities::ALL`].
    oddities: [f64; 6],
    process: f64,
}

impl Calibration {
    /// Draws it from benign episodes at their highest.
    #[must_use]
    pub fn of(episodes: &[Features]) -> Self {
        let count = episodes.len();
        let mut values: [Vec<f64>; 4] = Default::default();
        for episode in episodes {
            for (all, value) in values.iter_mut().zip(episode.values()) {
                all.push(value);
            }
        }
        values.iter_mut().for_each(|all| all.sort_unstable_by(f64::total_cmp));
        let among = |of: &dyn Fn(&Features) -> bool| {
            (1 + episodes.iter().filter(|episode| of(episode)).count()) as f64 / (count + 1) as f64
        };
        let tails = values.each_ref().map(|all| Tail::of(all));
        let [_, _, upload, _] = &values;
        let wanted = TAIL_LEAST.max((TAIL_SHARE * count as f64) as usize);
        let above = wanted.min(count.saturating_sub(1));
        let from = count.checked_sub(above + 1).and_then(|at| upload.get(at)).copied();
        let from = from.unwrap_or(0.0);
        let excess: f64 = upload.iter().rev().take(above).map(|value| value - from).sum();
        Self {
            episodes: count as u32,
            tails,
            upload_from: from,
            upload_share: above as f64 / count.max(1) as f64,
            upload_excess: (excess / above.max(1) as f64).max(LEAST_EXCESS),
            oddities: Oddities::ALL.map(|(one, _)| among(&|episode| episode.oddities.has(one))),
            process: among(&|episode| episode.new_process),
        }
    }

    /// Whether it stands on any episode.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.episodes == 0
    }

    /// What the score of channel sum is made from.
    #[must_use]
    pub fn inputs(&self, features: &Features) -> ScoreInputs {
        let mut inputs = Vec::with_capacity(input::TERMS.len());
        let mut names = input::TERMS.into_iter();
        let mut term = |value: f64| inputs.extend(names.next().map(|name| (name, value)));
        for (at, (tail, value)) in self.tails.iter().zip(features.values()).enumerate() {
            term(rarity(self.chance(at == UPLOAD, tail, value)));
        }
        for group in GROUPS_OF_ODDITIES {
            let of_group = Oddities::ALL.iter().zip(self.oddities).enumerate();
            let rarest = of_group
                .filter(|(at, ((one, _), _))| group.contains(at) && features.oddities.has(*one))
                .map(|(_, (_, share))| rarity(share))
                .fold(0.0, f64::max);
            term(rarest);
        }
        term(if features.new_process { rarity(self.process) } else { 0.0 });
        ScoreInputs(inputs)
    }

    /// How often a benign episode has a value at least as large.
    fn chance(&self, is_upload: bool, tail: &Tail, value: f64) -> f64 {
        if is_upload && value > self.upload_from {
            let excess = (value - self.upload_from) / self.upload_excess;
            return (self.upload_share * (-excess).exp()).min(self.upload_share);
        }
        f64::from(1 + tail.at_least(value)) / (f64::from(self.episodes) + 1.0)
    }
}

fn rarity(chance: f64) -> f64 {
    -chance.log10()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certify::episode::{Channel, score_of};

    fn benign() -> Vec<Features> {
        (0..60_u32)
            .map(|n| Features {
                log10_e: f64::from(n % 7),
                hours: f64::from(n % 11 + 1),
                net_up: 10_f64.powf(f64::from(n) / 10.0),
                hosts: f64::from(1 + n % 3),
                oddities: if n % 20 == 3 { Oddities::NO_NAME } else { Oddities::default() },
                new_process: n % 25 == 4,
            })
            .collect()
    }

    // The expected terms were computed by the Python prototype's class `Calib`.
    #[test]
    fn the_terms_are_those_of_the_prototype() {
        let calibration = Calibration::of(&benign());
        let plugx = Features {
            log10_e: 55.0,
            hours: 9.0,
            net_up: 3e9,
            hosts: 1.0,
            oddities: Oddities::NO_NAME
                .with(Oddities::NO_TLS_ON_443)
                .with(Oddities::FULLY_ENCRYPTED),
            new_process: true,
        };
        let inputs = calibration.inputs(&plugx);
        let expected = [
            1.785_329_835_010_767_1,
            0.581_209_852_354_842_2,
            2.783_970_063_232_589_4,
            0.463_110_540_276_847_7,
            1.183_269_843_682_804_6,
            1.785_329_835_010_767_1,
            0.0,
            1.183_269_843_682_804_6,
        ];
        for ((name, got), expected) in inputs.0.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-9, "{name}: {got} {expected}");
        }
        let sum: f64 = expected.iter().sum();
        assert!((score_of(Channel::Sum, &inputs).unwrap() - sum).abs() < 1e-9);
        let quiet = Features { log10_e: 2.0, hours: 3.0, net_up: 500.0, hosts: 2.0, ..plugx };
        let quiet = Features { oddities: Oddities::default(), new_process: false, ..quiet };
        let inputs = calibration.inputs(&quiet);
        for ((name, got), expected) in inputs.0.iter().zip([
            0.151_861_379_431_180_5,
            0.095_133_754_982_253_38,
            0.253_850_917_968_511_95,
            0.172_545_978_291_031_58,
            0.0,
            0.0,
            0.0,
            0.0,
        ]) {
            assert!((got - expected).abs() < 1e-9, "{name}: {got} {expected}");
        }
    }

    #[test]
    fn a_tail_that_was_shortened_makes_nothing_rarer_than_it_is() {
        let sorted: Vec<f64> = (0..5000).map(|n| f64::from(n) * 0.5).collect();
        let tail = Tail::of(&sorted);
        assert!(tail.knots.len() <= EXACT + GROUPS);
        for value in [0.0, 0.3, 7.0, 100.25, 2400.0, 2460.0, 2499.5, 3000.0] {
            let exact = sorted.iter().filter(|known| **known >= value).count() as u32;
            let got = tail.at_least(value);
            assert!(got >= exact && got <= exact + 50, "{value}: {got} {exact}");
        }
        assert_eq!((tail.at_least(2499.5), tail.at_least(2499.6)), (1, 0));
    }

    #[test]
    fn a_calibration_reads_back_what_it_wrote() {
        let calibration = Calibration::of(&benign());
        let text = serde_json::to_string(&calibration).unwrap();
        assert_eq!(serde_json::from_str::<Calibration>(&text).unwrap(), calibration);
    }
}
