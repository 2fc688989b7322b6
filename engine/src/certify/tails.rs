//! The terms of the sum: how seldom benign episodes look like that, each as -log10 of a share.

use super::cluster::Prevalence;
use super::episode::{ScoreInputs, input};
use sekisho_schema::baseline::Episode;
use sekisho_schema::certificate::{Tail, Tails};
use sekisho_schema::episode::Oddity;
use std::collections::BTreeMap;

/// log10 of the odds of a rhythm beyond which nothing more is said by more.
const RHYTHM_MOST: f64 = 40.0;
/// Beyond this share of the largest uploads a power law takes over (detection.md, section 3).
const TAIL_SHARE: f64 = 0.02;
/// A power law rests on at least so many episodes.
const TAIL_LEAST: usize = 20;
/// The least mean excess, in decades, of a power law.
const EXCESS_LEAST: f64 = 0.05;
/// The largest values are kept one by one, so many of them.
const KEPT_WHOLE: usize = 64;
/// Steps of the ranks below, eight to a doubling.
const RANK_STEP: f64 = 1.090_507_732_665_257_7;
/// Values that differ by less are the same.
const SAME: f64 = 1e-9;

/// What of an episode enters the sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// log10 of the odds of the rhythm against unplanned traffic.
    pub rhythm: f64,
    /// Distinct hours of the clock with contact.
    pub hours: f64,
    /// The largest net upload, in bytes.
    pub net: f64,
    /// Hosts that speak to the destination.
    pub hosts: f64,
    /// What is odd about it.
    pub oddities: Vec<Oddity>,
}

impl Features {
    /// Those of an episode whose destination so many hosts speak to.
    #[must_use]
    pub fn of(episode: &Episode, hosts: u64) -> Self {
        Self {
            rhythm: episode.rhythm,
            hours: f64::from(episode.hours),
            net: episode.net as f64,
            hosts: hosts.max(1) as f64,
            oddities: episode.oddities.clone(),
        }
    }

    /// The amounts, by the term that they make.
    fn amounts(&self) -> [(&'static str, f64); 4] {
        [
            ("rhythm", self.rhythm.clamp(0.0, RHYTHM_MOST)),
            ("active-hours", self.hours.max(0.0)),
            ("upload", (1.0 + self.net.max(0.0)).log10()),
            ("prevalence", 1.0 / self.hosts.max(1.0)),
        ]
    }
}

/// Measures benign episodes.
#[must_use]
pub fn measure(benign: &[Features]) -> Tails {
    let mut amounts: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for features in benign {
        for (name, value) in features.amounts() {
            amounts.entry(name).or_default().push(value);
        }
    }
    let count = benign.len();
    let share = |oddity: &Oddity| {
        let with = benign.iter().filter(|features| features.oddities.contains(oddity)).count();
        (with + 1) as f64 / (count + 1) as f64
    };
    let oddities =
        Oddity::ALL.iter().map(|oddity| (oddity.name().to_owned(), share(oddity))).collect();
    let names = input::TERMS.iter().filter_map(|name| amounts.remove_entry(name));
    Tails {
        episodes: count as u64,
        oddities,
        term: names.map(|(name, values)| tail_of(name, values)).collect(),
    }
}

/// Measures the episodes of a pool.
#[must_use]
pub fn measure_pool<'a>(
    episodes: impl IntoIterator<Item = &'a Episode>,
    prevalence: &Prevalence,
) -> Tails {
    let features: Vec<Features> = episodes
        .into_iter()
        .map(|episode| {
            let common = (episode.key.destination.clone(), episode.key.service);
            Features::of(episode, prevalence.hosts(&common))
        })
        .collect();
    measure(&features)
}

fn tail_of(name: &str, mut values: Vec<f64>) -> Tail {
    values.sort_by(f64::total_cmp);
    let count = values.len();
    // From the largest down: each value with how many reach it, ranks thinning out.
    let (mut kept, mut next): (Vec<(f64, u64)>, f64) = (Vec::new(), 1.0);
    for (at, value) in values.iter().enumerate().rev() {
        let reach = count - at;
        let is_first_of_its_kind = at
            .checked_sub(1)
            .and_then(|before| values.get(before))
            .is_none_or(|before| value - before > SAME);
        if is_first_of_its_kind && (reach <= KEPT_WHOLE || reach as f64 >= next || at == 0) {
            kept.push((*value, reach as u64));
            next = reach as f64 * RANK_STEP;
        }
    }
    kept.reverse();
    let (values_kept, reach) = kept.into_iter().unzip();
    let mut tail = Tail { name: name.to_owned(), values: values_kept, reach, ..Tail::default() };
    // Only volumes have a tail that goes on as a power law.
    let beyond = TAIL_LEAST.max((TAIL_SHARE * count as f64) as usize);
    let from = (beyond < count).then(|| values.get(count - beyond - 1)).flatten();
    if name == "upload"
        && let Some(from) = from
    {
        let excess: f64 = values.iter().skip(count - beyond).map(|value| value - from).sum::<f64>()
            / beyond as f64;
        tail.beyond = Some(*from);
        tail.share = Some(beyond as f64 / count as f64);
        tail.excess = Some(excess.max(EXCESS_LEAST));
    }
    tail
}

/// The share of benign episodes that reach a value.
fn share_reaching(tail: &Tail, episodes: u64, value: f64) -> f64 {
    let at = tail.values.partition_point(|known| *known < value - SAME);
    let reach = tail.reach.get(at).copied().unwrap_or(0);
    let empirical = (1 + reach) as f64 / (1 + episodes) as f64;
    match (tail.beyond, tail.share, tail.excess) {
        (Some(from), Some(share), Some(excess)) if value > from => {
            share * (-(value - from) / excess).exp()
        }
        _ => empirical,
    }
}

/// The terms of the sum for an episode, ready to be scored and recorded.
#[must_use]
pub fn terms(tails: &Tails, features: &Features) -> ScoreInputs {
    let mut found = [0.0_f64; input::TERMS.len()];
    let mut raise = |term: &str, rarity: f64| {
        let place = input::TERMS.iter().position(|known| *known == term);
        if let Some(value) = place.and_then(|at| found.get_mut(at)) {
            *value = value.max(rarity);
        }
    };
    for (name, value) in features.amounts() {
        if let Some(tail) = tails.term.iter().find(|tail| tail.name == name) {
            raise(name, -share_reaching(tail, tails.episodes, value).log10());
        }
    }
    // Oddities of one group come together: only the strongest of a group counts.
    for oddity in &features.oddities {
        let share = tails.oddities.get(oddity.name()).copied().unwrap_or(1.0);
        raise(oddity.term(), -share.clamp(f64::MIN_POSITIVE, 1.0).log10());
    }
    ScoreInputs(input::TERMS.into_iter().zip(found).collect())
}

#[cfg(test)]
mod tests {
    use super::super::episode::{Channel, score_of};
    use super::*;

    fn plain(net: f64) -> Features {
        Features { rhythm: 0.0, hours: 1.0, net, hosts: 1.0, oddities: Vec::new() }
    }

    fn sum(tails: &Tails, features: &Features) -> f64 {
        score_of(Channel::Sum, &terms(tails, features)).unwrap()
    }

    fn benign() -> Tails {
        // Uploads of 10^0 to 10^5 bytes, evenly over the decades; one in a hundred names no server.
        let episodes: Vec<Features> = (0..1000_u32)
            .map(|n| Features {
                oddities: if n % 100 == 0 { vec![Oddity::NoServerName] } else { Vec::new() },
                ..plain(10_f64.powf(f64::from(n) / 200.0) - 1.0)
            })
            .collect();
        measure(&episodes)
    }

    #[test]
    fn what_benign_episodes_do_adds_nothing_and_what_is_rare_adds_its_rarity() {
        let tails = benign();
        assert!(sum(&tails, &plain(0.0)) < 1e-3);
        let odd = Features { oddities: vec![Oddity::NoServerName], ..plain(0.0) };
        // 11 of 1001 is 10^-1.96.
        assert!((sum(&tails, &odd) - 1.959).abs() < 0.01, "{}", sum(&tails, &odd));
        let rhythmic = Features { rhythm: 50.0, ..plain(0.0) };
        assert!((sum(&tails, &rhythmic) - 1001_f64.log10()).abs() < 0.01);
    }

    /// The expected terms were computed by the Python prototype's class `Calib`.
    #[test]
    fn the_terms_are_those_of_the_prototype() {
        let benign: Vec<Features> = (0..60_u32)
            .map(|n| Features {
                rhythm: f64::from(n % 7),
                hours: f64::from(n % 11 + 1),
                net: 10_f64.powf(f64::from(n) / 10.0),
                hosts: f64::from(1 + n % 3),
                oddities: [(n % 20 == 3, Oddity::NoName), (n % 25 == 4, Oddity::NewProcess)]
                    .into_iter()
                    .filter_map(|(is_there, oddity)| is_there.then_some(oddity))
                    .collect(),
            })
            .collect();
        let tails = measure(&benign);
        let plugx = Features {
            rhythm: 55.0,
            hours: 9.0,
            net: 3e9,
            hosts: 1.0,
            oddities: vec![
                Oddity::NoName,
                Oddity::NotTls443,
                Oddity::EncryptedFirstPayload,
                Oddity::NewProcess,
            ],
        };
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
        for ((name, found), expected) in terms(&tails, &plugx).0.into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{name}: {found} {expected}");
        }
    }

    #[test]
    fn of_oddities_that_come_together_the_strongest_counts_alone() {
        let tails = benign();
        let one = Features { oddities: vec![Oddity::NoName], ..plain(0.0) };
        let both = Features { oddities: vec![Oddity::NoServerName, Oddity::NoName], ..plain(0.0) };
        assert!((sum(&tails, &one) - sum(&tails, &both)).abs() < 1e-12);
        let groups = Features { oddities: vec![Oddity::NoName, Oddity::NotTls443], ..plain(0.0) };
        assert!(sum(&tails, &groups) > sum(&tails, &one) + 2.9);
    }

    #[test]
    fn beyond_the_largest_uploads_the_score_goes_on_growing() {
        let tails = benign();
        let scores: Vec<f64> =
            [1e3, 1e5, 1e6, 1e8, 1e10].iter().map(|net| sum(&tails, &plain(*net))).collect();
        assert!(scores.is_sorted_by(|a, b| a < b), "{scores:?}");
        assert!(scores[4] > 20.0, "{scores:?}");
    }

    #[test]
    fn a_thinned_tail_stays_close_to_the_whole_and_small() {
        let values: Vec<f64> = (0..10_000).map(f64::from).collect();
        let tail = tail_of("active-hours", values);
        assert!(tail.values.len() < 150, "{}", tail.values.len());
        for value in [0.0, 10.5, 5000.0, 9000.0, 9999.0, 10_000.0] {
            let exact = (1.0 + (10_000.0 - f64::ceil(value)).max(0.0)) / 10_001.0;
            let found = share_reaching(&tail, 10_000, value);
            assert!(found <= exact * 1.01 && found >= exact / 1.1, "{value}: {found} {exact}");
        }
    }
}
