//! The e-process of one pair of host and destination: six bettors on the next gap.

use sekisho_schema::Timestamp;

/// Gaps remembered.
const RING: usize = 16;
/// Gaps before the first bet.
const PRIMED: u32 = 3;
/// Three windows (±5 % of the median, 10 to 90 %, range), each with two lower cuts.
const BETTORS: usize = 6;
/// A bettor's memory of hits and trials is halved beyond this many trials.
const MEMORY: f64 = 64.0;
/// A window more likely than this under the null hypothesis is no bet.
const DULL: f64 = 0.98;
/// The largest share of the stake on one gap.
const BOLDEST: f64 = 0.95;
/// As many gaps below the lower cut say that the rhythm itself became faster.
const QUICKENED: u32 = 16;

/// One bettor: its record, its winnings, and its latest window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Bettor {
    log10_e: f64,
    hit: f64,
    trials: f64,
    history: u64,
    bets: u32,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) chance: f64,
}

impl Bettor {
    /// Gaps of [`Self::counted`] that fell in their window.
    pub(super) const fn hits(&self) -> u32 {
        self.history.count_ones()
    }

    /// Bets counted: the last 64 at most.
    pub(super) fn counted(&self) -> u32 {
        self.bets.min(u64::BITS)
    }

    fn bet(&mut self, gap: f64, low: f64, high: f64, chance: f64) {
        let expected = (self.hit + 1.0) / (self.trials + 2.0);
        let stake = ((expected - chance) / (1.0 - chance)).clamp(0.0, BOLDEST);
        let is_hit = gap >= low;
        let e = if is_hit { 1.0 + stake * (1.0 / chance - 1.0) } else { 1.0 - stake };
        self.hit += f64::from(u8::from(is_hit));
        self.trials += 1.0;
        if self.trials > MEMORY {
            self.hit *= 0.5;
            self.trials *= 0.5;
        }
        self.history = self.history << 1 | u64::from(is_hit);
        self.bets = self.bets.saturating_add(1);
        (self.low, self.high, self.chance) = (low, high, chance);
        self.log10_e = self.log10_e.max(0.0) + e.log10();
    }
}

/// The state of the e-process; most pairs have one contact, which takes little.
#[derive(Clone, Debug)]
pub(super) struct Bets {
    past: Option<Box<Past>>,
    last: Timestamp,
    active: Timestamp,
    current: f64,
    lower_cut: f64,
    filled: u32,
    position: u32,
    short: u32,
}

/// The gaps, and what was bet on them.
#[derive(Clone, Debug, Default)]
struct Past {
    ring: [f64; RING],
    bettors: [Bettor; BETTORS],
}

/// The gaps in order, and the quantiles that windows are made of.
struct Sorted {
    gaps: [f64; RING],
    count: usize,
}

impl Sorted {
    /// The quantile with linear interpolation.
    fn quantile(&self, q: f64) -> f64 {
        let x = q * (self.count.saturating_sub(1)) as f64;
        let at = x as usize;
        let fraction = x - at as f64;
        let value = |at: usize| self.gaps.get(at).copied().unwrap_or(0.0);
        if at + 1 >= self.count {
            return value(at);
        }
        value(at) * (1.0 - fraction) + value(at + 1) * fraction
    }
}

impl Bets {
    pub(super) fn new(at: Timestamp, dead: f64) -> Self {
        Self {
            past: None,
            last: at,
            active: at,
            current: 0.0,
            lower_cut: dead,
            filled: 0,
            position: 0,
            short: 0,
        }
    }

    /// Base-10 logarithm of the mixture's e-value after the last contact that was bet on.
    pub(super) const fn log10_e(&self) -> f64 {
        self.current
    }

    /// The bettor that won most.
    pub(super) fn best(&self) -> Bettor {
        let better = |a: Bettor, b: Bettor| if b.log10_e > a.log10_e { b } else { a };
        let bettors = self.past.as_ref().map(|past| past.bettors);
        bettors.into_iter().flatten().reduce(better).unwrap_or_default()
    }

    /// Takes in a contact.
    pub(super) fn observe(&mut self, at: Timestamp, dead: f64, resolution: f64) {
        let idle = at.since(self.active).as_secs_f64();
        let gap = at.since(self.last).as_secs_f64();
        self.active = self.active.max(at);
        if idle < dead {
            return;
        }
        self.last = at;
        let sorted = self.sorted();
        let primed = self.filled >= PRIMED;
        if primed {
            self.lower_cut = dead.max(0.2 * sorted.quantile(0.5));
            self.bet(gap, dead, resolution, &sorted);
        }
        self.remember(gap, primed, &sorted);
    }

    fn bet(&mut self, gap: f64, dead: f64, resolution: f64, sorted: &Sorted) {
        let median = sorted.quantile(0.5);
        let windows = [
            (median * 0.95 - resolution, median * 1.05 + resolution),
            (sorted.quantile(0.1) * 0.95 - resolution, sorted.quantile(0.9) * 1.05 + resolution),
            (sorted.quantile(0.0) * 0.97 - resolution, sorted.quantile(1.0) * 1.03 + resolution),
        ];
        let lower_cut = self.lower_cut;
        let plans =
            [dead, lower_cut].into_iter().flat_map(|cut| windows.map(|window| (cut, window)));
        let bettors = &mut self.past.get_or_insert_default().bettors;
        for (bettor, (cut, (a, b))) in bettors.iter_mut().zip(plans) {
            if gap < cut {
                continue;
            }
            let a = a.max(cut);
            let b = if b <= a { a + resolution } else { b };
            if gap > b {
                continue;
            }
            let chance = (b - a) / (b - cut);
            if chance <= DULL {
                bettor.bet(gap, a, b, chance);
            }
        }
        let most = bettors.iter().fold(f64::NEG_INFINITY, |most, b| most.max(b.log10_e));
        let sum: f64 = bettors.iter().map(|b| 10_f64.powf(b.log10_e - most)).sum();
        self.current = most + (sum / BETTORS as f64).log10();
    }

    /// A gap far above the median (a host asleep, a night off) tells nothing about the rhythm.
    fn remember(&mut self, gap: f64, primed: bool, sorted: &Sorted) {
        if primed && gap < self.lower_cut {
            self.short += 1;
            if self.short >= QUICKENED {
                (self.filled, self.position, self.short) = (0, 0, 0);
            }
            return;
        }
        self.short = 0;
        if self.filled < 8 || gap <= 4.0 * sorted.quantile(0.5) {
            let ring = &mut self.past.get_or_insert_default().ring;
            if let Some(place) = ring.get_mut(self.position as usize) {
                *place = gap;
            }
            self.position = (self.position + 1) % RING as u32;
            self.filled = self.filled.saturating_add(1);
        }
    }

    fn sorted(&self) -> Sorted {
        let count = RING.min(self.filled as usize);
        let mut gaps = self.past.as_ref().map_or([0.0; RING], |past| past.ring);
        if let Some(used) = gaps.get_mut(..count) {
            used.sort_unstable_by(f64::total_cmp);
        }
        Sorted { gaps, count }
    }
}

#[cfg(test)]
mod tests;
