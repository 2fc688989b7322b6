//! The words that learning, certificates and evaluation share, and the one place where inputs become a score.

use sekisho_schema::Timestamp;
pub use sekisho_schema::episode::{
    Channel, DestinationKey, EpisodeKey, EpisodeScore, PortClass, ScoreInputs, Service, Tier,
    Workload, input,
};

/// log10 of the odds against unplanned traffic at which a rhythm counts as proven (detection.md, section 3).
pub const RHYTHM_PROVEN: f64 = 6.0;
/// Bytes below which a day's upload to a usual destination says nothing.
pub const DAY_FLOOR: f64 = 2e7;
/// Bytes below which seven days' upload to a usual destination says nothing.
pub const WEEK_FLOOR: f64 = 5e7;
/// Hours over which the information of a day in DNS names is spread when it is compared to that of an hour.
pub const DNS_DAY_HOURS: f64 = 6.0;

/// Bytes of information in names within an hour that no benign key of 940,091 reached (detection.md, section 4.3).
pub const DNS_TELLS: f64 = 500.0;

/// The score that these inputs make; `None` when one is missing or is not a finite number.
///
/// Whoever reports a score makes it here, so that the record alone gives the same number again.
#[must_use]
pub fn score_of(channel: Channel, inputs: &ScoreInputs) -> Option<f64> {
    let value = |name: &str| inputs.value(name).filter(|value| value.is_finite());
    let sum = |names: &[&str]| names.iter().try_fold(0.0, |sum, name| Some(sum + value(name)?));
    let score = match channel {
        Channel::Rhythm => {
            let hours = value(input::HOURS)?;
            if mixture(inputs)? >= RHYTHM_PROVEN { hours } else { 0.0 }
        }
        Channel::Persistence => {
            let mut hours = 0;
            for day in input::DAYS {
                hours += (value(day)? as u32).count_ones();
            }
            f64::from(hours)
        }
        Channel::Allowance => (value(input::UP)? - value(input::DOWN)?).max(0.0),
        Channel::HostBudget => sum(&[input::NET, input::ANSWERED])?,
        Channel::Dns => value(input::HOUR)?.max(value(input::DAY)? / DNS_DAY_HOURS),
        Channel::Approved => {
            let ratio = |now: &str, usual: &str, floor: f64| {
                Some(((value(now)? + floor) / (value(usual)? + floor)).log10())
            };
            ratio(input::TODAY, input::TODAY_USUAL, DAY_FLOOR)?.max(ratio(
                input::WEEK,
                input::WEEK_USUAL,
                WEEK_FLOOR,
            )?)
        }
        Channel::Sum => sum(&input::TERMS)?,
    };
    Some(score).filter(|score| score.is_finite())
}

/// log10 of the mean of the six bets of a rhythm; `None` when one is missing.
#[must_use]
pub fn mixture(inputs: &ScoreInputs) -> Option<f64> {
    let mut bets = [0.0; input::BETS.len()];
    for (bet, name) in bets.iter_mut().zip(input::BETS) {
        *bet = inputs.value(name)?;
    }
    let highest = bets.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = bets.iter().map(|bet| 10_f64.powf(bet - highest)).sum();
    Some(highest + (sum / bets.len() as f64).log10())
}

/// The score of a channel from its inputs, ready to be recorded; `None` as for [`score_of`].
#[must_use]
pub fn scored(channel: Channel, at: Timestamp, inputs: ScoreInputs) -> Option<EpisodeScore> {
    let score = score_of(channel, &inputs)?;
    Some(EpisodeScore { channel, score, at, inputs })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<const N: usize>(channel: Channel, inputs: [(&'static str, f64); N]) -> Option<f64> {
        score_of(channel, &ScoreInputs(inputs.to_vec()))
    }

    fn rhythm(bet: f64) -> Option<f64> {
        let mut inputs: Vec<_> = input::BETS.iter().map(|name| (*name, 0.0)).collect();
        inputs[2].1 = bet;
        inputs.push((input::HOURS, 5.0));
        score_of(Channel::Rhythm, &ScoreInputs(inputs))
    }

    #[test]
    fn a_rhythm_scores_its_hours_once_the_mean_of_the_bets_proves_it() {
        // One bet of six at 10^x makes a mean of 10^x / 6.
        assert_eq!(rhythm(6.0 + 6_f64.log10() + 1e-9), Some(5.0));
        assert_eq!(rhythm(6.0 + 6_f64.log10() - 1e-5), Some(0.0));
    }

    #[test]
    fn persistence_counts_the_hours_of_seven_days() {
        let mut days: Vec<_> = input::DAYS.iter().map(|day| (*day, 0.0)).collect();
        (days[0].1, days[6].1) = (f64::from(0x00FF_FFFF), 5.0);
        assert_eq!(score_of(Channel::Persistence, &ScoreInputs(days.clone())), Some(26.0));
        days.pop();
        assert_eq!(score_of(Channel::Persistence, &ScoreInputs(days)), None);
    }

    #[test]
    fn volumes_are_net_and_never_negative() {
        assert_eq!(of(Channel::Allowance, [(input::UP, 10.0), (input::DOWN, 3.0)]), Some(7.0));
        assert_eq!(of(Channel::Allowance, [(input::UP, 3.0), (input::DOWN, 10.0)]), Some(0.0));
        assert_eq!(of(Channel::Allowance, [(input::UP, f64::NAN), (input::DOWN, 1.0)]), None);
        assert_eq!(of(Channel::HostBudget, [(input::NET, 5.0), (input::ANSWERED, 2.0)]), Some(7.0));
    }

    #[test]
    fn an_upload_as_large_as_the_largest_scores_nothing_and_ten_times_it_scores_one() {
        let of = |today| {
            let usual = [(input::TODAY_USUAL, 1e9), (input::WEEK, 0.0), (input::WEEK_USUAL, 1e9)];
            let mut inputs = vec![(input::TODAY, today)];
            inputs.extend(usual);
            score_of(Channel::Approved, &ScoreInputs(inputs)).unwrap()
        };
        assert!(of(1e9).abs() < 1e-12);
        assert!((of(1e10 + 9.0 * DAY_FLOOR) - 1.0).abs() < 1e-12);
    }
}
