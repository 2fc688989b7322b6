//! The beacon e-process of one pair of workload and destination: six bettors on the next gap.
//!
//! Null hypothesis: given the past, the gap to the next contact has a non-increasing density beyond a
//! dead time, as every memoryless or bursty client has (Poisson, hyper-exponential, Pareto, Weibull
//! with shape at most 1). Then P(a ≤ gap ≤ b | d ≤ gap ≤ b) ≤ (b − a)/(b − d) for any a, b and d chosen
//! beforehand, so a bet at these odds cannot win in the mean, and a product of bets that grows is
//! evidence (Ville's inequality; detection.md, section 3). The restarted form keeps the mean time
//! between false alarms at or above 10^threshold contacts. Windows and stakes may be chosen from the
//! past in any way, and the six bettors share one stake equally, so the mean is evidence as well.

use super::keep::keep_fields;
use crate::certify::episode::input;
use sekisho_schema::Span;

/// Gaps remembered.
const RING: usize = 16;
/// Gaps before the first bet.
const PRIMED: u8 = 3;
/// Gaps after which one far above the median is no longer remembered.
const SETTLED: u8 = 8;
/// Three windows (±5 % of the median, 10 to 90 %, range), each with two lower cuts.
const BETTORS: usize = 6;
/// A bettor's memory of hits and trials is halved beyond this many trials.
const MEMORY: u8 = 64;
/// A window more likely than this under the null hypothesis is no bet.
const DULL: f64 = 0.98;
/// The largest share of the stake on one gap.
const BOLDEST: f64 = 0.95;
/// As many gaps below the lower cut say that the rhythm itself became faster.
const QUICKENED: u8 = 16;
/// As many gaps in a row far above the median say that it became slower.
const SLOWED: u8 = 4;
/// Below this share of the median nothing is bet by the bettors with the higher lower cut: an operator's burst ...
const LOWER_CUT: f64 = 0.1;
/// ... and below this share a gap is not remembered: it may be a piece of a sleep that was interrupted.
const PIECE: f64 = 0.2;
/// Gaps that the past is worth before the first was predicted: so many, hit as often as the window promises.
const PRIOR: f64 = 4.0;
/// The range of the remembered gaps is widened by this share, divided by their number, at either end:
/// the next gap is the longest or the shortest so far about once in as many.
const WIDER: f64 = 0.5;
/// Bets of which it is remembered whether they hit.
const HISTORY: u32 = 31;
/// Gaps are remembered as 16-bit logarithms: this many steps to a doubling, 0.034 % each ...
const STEPS: f64 = 2048.0;
/// ... from 2^-10 s upward, so to 48 days.
const LOWEST_LOG2: f64 = -10.0;

/// Constants of the test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RhythmSettings {
    /// Contacts closer than this are one contact; in seconds.
    pub dead: f64,
    /// Slack added to both ends of every window; in seconds.
    pub resolution: f64,
}

impl Default for RhythmSettings {
    /// detection.md, sections 3 and 4.1.
    fn default() -> Self {
        Self { dead: 1.0, resolution: 0.5 }
    }
}

/// A gap that was predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Window {
    /// Its lower end in seconds.
    pub low: f64,
    /// Its upper end in seconds.
    pub high: f64,
    /// Greatest chance that an unplanned gap falls in it, given that it is not longer.
    pub chance: f64,
}

/// The e-process of one pair.
#[derive(Clone, Debug, PartialEq)]
pub struct Rhythm {
    ring: [u16; RING],
    log10_e: [f32; BETTORS],
    /// The same when their mixture was highest.
    highest: [f32; BETTORS],
    peak: f32,
    /// In halves.
    hits: [u8; BETTORS],
    /// In halves.
    trials: [u8; BETTORS],
    /// Whether the last gaps fell in the window of the bettor that led, newest lowest, below a one.
    history: u32,
    /// Time since the contact that the last gap ended with.
    since_ms: u32,
    filled: u8,
    position: u8,
    short: u8,
    long: u8,
}
keep_fields!(Rhythm {
    ring,
    log10_e,
    highest,
    peak,
    hits,
    trials,
    history,
    since_ms,
    filled,
    position,
    short,
    long
});

impl Default for Rhythm {
    fn default() -> Self {
        Self {
            ring: [0; RING],
            log10_e: [0.0; BETTORS],
            highest: [0.0; BETTORS],
            peak: 0.0,
            hits: [0; BETTORS],
            trials: [0; BETTORS],
            history: 1,
            since_ms: 0,
            filled: 0,
            position: 0,
            short: 0,
            long: 0,
        }
    }
}

/// The remembered gaps in order.
struct Sorted {
    codes: [u16; RING],
    count: usize,
}

impl Sorted {
    /// The quantile with linear interpolation, in seconds.
    fn quantile(&self, q: f64) -> f64 {
        let x = q * (self.count.saturating_sub(1)) as f64;
        let at = x as usize;
        let fraction = x - at as f64;
        let value = |at: usize| seconds_of(self.codes.get(at).copied().unwrap_or(0));
        if at + 1 >= self.count || fraction == 0.0 {
            return value(at);
        }
        value(at) * (1.0 - fraction) + value(at + 1) * fraction
    }

    /// The three windows, before any lower cut, and the median.
    fn windows(&self, resolution: f64) -> ([Guess; 3], f64) {
        let median = self.quantile(0.5);
        let (least, most) = (self.quantile(0.0), self.quantile(1.0));
        let count = self.count.max(1) as f64;
        let wider = WIDER * (most - least) / count;
        // Were the next gap drawn as those before it were, each window would catch it so often.
        let guess = |low: f64, high: f64, expected| Guess {
            low: low - resolution,
            high: high + resolution,
            expected,
        };
        let windows = [
            guess(median * 0.95, median * 1.05, 0.5),
            guess(self.quantile(0.1) * 0.95, self.quantile(0.9) * 1.05, 0.8),
            guess(least * 0.97 - wider, most * 1.03 + wider, (count - 1.0) / count),
        ];
        (windows, median)
    }
}

/// A window before any lower cut, and how often it is expected to catch a gap that is not longer.
#[derive(Clone, Copy, Debug)]
struct Guess {
    low: f64,
    high: f64,
    expected: f64,
}

impl Guess {
    /// The window above a lower cut.
    fn above(self, cut: f64, resolution: f64) -> Window {
        let low = self.low.max(cut);
        let high = if self.high <= low { low + resolution } else { self.high };
        Window { low, high, chance: (high - low) / (high - cut) }
    }
}

fn code_of(seconds: f64) -> u16 {
    ((seconds.log2() - LOWEST_LOG2) * STEPS).round().clamp(0.0, f64::from(u16::MAX)) as u16
}

fn seconds_of(code: u16) -> f64 {
    (f64::from(code) / STEPS + LOWEST_LOG2).exp2()
}

/// log10 of the mean of the bettors' winnings.
fn mixture(log10_e: &[f32; BETTORS]) -> f64 {
    let most = f64::from(log10_e.iter().fold(f32::NEG_INFINITY, |most, e| most.max(*e)));
    let sum: f64 = log10_e.iter().map(|e| 10_f64.powf(f64::from(*e) - most)).sum();
    most + (sum / BETTORS as f64).log10()
}

impl Rhythm {
    /// Takes the time that passed since the last payload burst; returns log10 of the e-value now.
    pub fn gap(&mut self, gap: Span) -> f64 {
        self.gap_with(gap, RhythmSettings::default());
        self.log10_e()
    }

    /// The same with other constants; returns the window that the leading bettor bet on, if it did.
    pub fn gap_with(&mut self, gap: Span, settings: RhythmSettings) -> Option<Window> {
        let millis = u32::try_from(gap.nanos().max(0) / 1_000_000).unwrap_or(u32::MAX);
        self.since_ms = self.since_ms.saturating_add(millis);
        if gap.as_secs_f64() < settings.dead {
            return None;
        }
        let seconds = f64::from(std::mem::take(&mut self.since_ms)) / 1000.0;
        if self.filled < PRIMED {
            self.remember(seconds, f64::INFINITY);
            return None;
        }
        let (windows, median) = self.sorted().windows(settings.resolution);
        let lower_cut = settings.dead.max(LOWER_CUT * median);
        let bet = self.bet(seconds, windows, lower_cut, settings);
        if seconds < settings.dead.max(PIECE * median) {
            // Too short for this rhythm: a burst of its operator, or another rhythm.
            self.short = self.short.saturating_add(1);
            if self.short >= QUICKENED {
                self.learn_anew();
            }
            return bet;
        }
        self.short = 0;
        self.remember(seconds, 4.0 * median);
        bet
    }

    fn bet(
        &mut self,
        gap: f64,
        windows: [Guess; 3],
        lower_cut: f64,
        settings: RhythmSettings,
    ) -> Option<Window> {
        let leader = self.leader();
        let mut led = None;
        let mut any = false;
        let cuts = [settings.dead, lower_cut];
        let plans = cuts.into_iter().flat_map(|cut| windows.map(|guess| (cut, guess)));
        let records = self.log10_e.iter_mut().zip(&mut self.hits).zip(&mut self.trials);
        for (at, (((log10_e, hits), trials), (cut, guess))) in records.zip(plans).enumerate() {
            let window = guess.above(cut, settings.resolution);
            let chance = window.chance;
            if gap < cut || gap > window.high || chance > DULL {
                continue;
            }
            let expected = (f64::from(*hits) / 2.0 + PRIOR * guess.expected)
                / (f64::from(*trials) / 2.0 + PRIOR);
            let stake = ((expected - chance) / (1.0 - chance)).clamp(0.0, BOLDEST);
            let is_hit = gap >= window.low;
            let e = if is_hit { 1.0 + stake * (1.0 / chance - 1.0) } else { 1.0 - stake };
            *hits = hits.saturating_add(2 * u8::from(is_hit));
            *trials = trials.saturating_add(2);
            if *trials > 2 * MEMORY {
                *hits /= 2;
                *trials /= 2;
            }
            // A stake of nothing wins nothing, and most unplanned gaps meet no other.
            let won = if e == 1.0 { 0.0 } else { e.log10() as f32 };
            *log10_e = log10_e.max(0.0) + won;
            any = true;
            if at == leader {
                led = Some((window, is_hit));
            }
        }
        // A mean is no higher than the highest.
        if any && self.log10_e.iter().any(|e| *e > self.peak) {
            let now = mixture(&self.log10_e) as f32;
            if now > self.peak {
                self.peak = now;
                self.highest = self.log10_e;
            }
        }
        let (window, is_hit) = led?;
        // The highest one marks how many bits below it are told; it stays when there is no more room.
        let full = self.history & 1 << HISTORY;
        self.history = self.history << 1 | u32::from(is_hit) | full;
        Some(window)
    }

    fn leader(&self) -> usize {
        let mut best = 0;
        let mut most = f32::NEG_INFINITY;
        for (at, log10_e) in self.log10_e.iter().enumerate() {
            if *log10_e > most {
                (best, most) = (at, *log10_e);
            }
        }
        best
    }

    /// Forgets the gaps, and keeps what was won with them: windows may be chosen anyhow beforehand.
    fn learn_anew(&mut self) {
        (self.filled, self.position, self.short, self.long) = (0, 0, 0, 0);
    }

    /// A gap far above the median (a host asleep, a night off) tells nothing about the rhythm; several
    /// in a row tell that it was learned from something faster, such as an operator's burst.
    fn remember(&mut self, gap: f64, longest: f64) {
        if self.filled >= SETTLED && gap > longest {
            self.long = self.long.saturating_add(1);
            if self.long >= SLOWED {
                self.learn_anew();
            }
            return;
        }
        self.long = 0;
        if let Some(place) = self.ring.get_mut(usize::from(self.position)) {
            *place = code_of(gap);
        }
        self.position = self.position.wrapping_add(1) % RING as u8;
        self.filled = self.filled.saturating_add(1);
    }

    fn sorted(&self) -> Sorted {
        let count = RING.min(usize::from(self.filled));
        let mut codes = self.ring;
        if let Some(used) = codes.get_mut(..count) {
            used.sort_unstable();
        }
        Sorted { codes, count }
    }

    /// log10 of the mixture's e-value after the last contact that was bet on.
    #[must_use]
    pub fn log10_e(&self) -> f64 {
        mixture(&self.log10_e)
    }

    /// The highest it ever was.
    #[must_use]
    pub fn peak(&self) -> f64 {
        f64::from(self.peak)
    }

    /// Gaps that fell in the window that led, and of how many of the last.
    #[must_use]
    pub const fn counted(&self) -> (u32, u32) {
        let bets = HISTORY - self.history.leading_zeros();
        let hits = (self.history & !(1 << bets)).count_ones();
        (hits, bets)
    }

    /// The six bets when they were highest together, by the names of inputs.
    #[must_use]
    pub fn bets(&self) -> [(&'static str, f64); BETTORS] {
        let mut bets = input::BETS.map(|name| (name, 0.0));
        for (bet, log10_e) in bets.iter_mut().zip(self.highest) {
            bet.1 = f64::from(log10_e);
        }
        bets
    }

    /// The gaps that are remembered, in seconds, oldest first.
    #[must_use]
    pub fn gaps(&self) -> Vec<f32> {
        // The ring is overwritten at `position`, which is also the oldest once it is full.
        let (newer, older) = self.ring.split_at(usize::from(self.position).min(RING));
        let is_full = usize::from(self.filled) >= RING;
        let older = if is_full { older } else { &[] };
        older.iter().chain(newer).map(|code| seconds_of(*code) as f32).collect()
    }

    /// The window that the leading bettor predicts for the next gap; `None` before the first.
    #[must_use]
    pub fn predicted(&self, settings: RhythmSettings) -> Option<Window> {
        if self.filled < PRIMED {
            return None;
        }
        let (windows, median) = self.sorted().windows(settings.resolution);
        let leader = self.leader();
        let cut = if leader < 3 { settings.dead } else { settings.dead.max(LOWER_CUT * median) };
        Some(windows.get(leader % 3)?.above(cut, settings.resolution))
    }
}

#[cfg(test)]
mod tests;
