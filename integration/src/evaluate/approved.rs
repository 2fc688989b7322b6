//! E12: upload to destinations that were approved, against its own past.

use super::draw::Draw;
use super::fleet::{DAY, uploads};
use super::replay::after;
use super::table::{Grid, Outcome};
use super::{Plan, peers};
use sekisho_engine::certify::threshold::{floor_of, smallest};
use sekisho_engine::learn::approved::Envelope;
use sekisho_schema::episode::Channel;

/// Days of learning, and of all.
const LEARN: usize = 28;
const DAYS: usize = 84;
/// Destinations, and destinations of one host.
const KEYS: usize = 300;
const KEYS_OF_HOST: f64 = 5.0;
/// False actions of a host in a week.
const BUDGET: f64 = 0.2;

/// What is added to an upload that was legitimate.
type Added = (&'static str, fn(&[f64]) -> f64, usize);

const ADDED: [Added; 5] = [
    ("+100 MB in a day", |_| 1e8, 1),
    ("+1 GB in a day", |_| 1e9, 1),
    ("+10 GB in a day", |_| 1e10, 1),
    ("+50 % for 14 days", |past| 0.5 * middle(past), 14),
    ("+200 % for 14 days", |past| 2.0 * middle(past), 14),
];

fn middle(past: &[f64]) -> f64 {
    super::table::median(past.to_vec()).unwrap_or(0.0)
}

/// The product's score of each day.
fn scores(bytes: &[f64]) -> Vec<f64> {
    let at = |day: usize| after((day as f64 + 0.5) * DAY);
    let mut envelope = Envelope::new(at(0));
    bytes
        .iter()
        .enumerate()
        .map(|(day, bytes)| envelope.add(at(day), *bytes as u64).unwrap_or(0.0))
        .collect()
}

/// How many deviations above the mean of the learned days each day is.
fn sigmas(bytes: &[f64]) -> Vec<f64> {
    let (mean, deviation) = peers::mean_and_deviation(&bytes[..LEARN]);
    bytes.iter().map(|bytes| (bytes - mean) / (deviation + 1.0)).collect()
}

/// The highest of each week of some days.
fn weekly(scores: &[f64]) -> Vec<f64> {
    scores.chunks(7).map(|week| week.iter().copied().fold(f64::NEG_INFINITY, f64::max)).collect()
}

struct Seed {
    threshold: f64,
    ours: f64,
    sigma: f64,
    found: [(usize, usize); ADDED.len()],
}

fn one_seed(draw: &mut Draw, keys: usize) -> Seed {
    let all: Vec<Vec<f64>> = (0..keys).map(|_| uploads(draw, DAYS).1).collect();
    let scored: Vec<Vec<f64>> = all.iter().map(|bytes| scores(bytes)).collect();
    let between = |from: usize, to: usize| -> Vec<f64> {
        scored.iter().flat_map(|scores| weekly(&scores[from..to])).collect()
    };
    let host_weeks = keys as f64 / KEYS_OF_HOST * 4.0;
    let floor = floor_of(Channel::Approved);
    let threshold = smallest(&between(LEARN, 56), host_weeks, BUDGET, 0.95, floor)
        .map_or(f64::INFINITY, |found| found.above);
    let rate = |count: usize| count as f64 / host_weeks;
    let ours = rate(between(56, DAYS).iter().filter(|score| **score > threshold).count());
    let beyond = |bytes: &Vec<f64>| {
        weekly(&sigmas(bytes)[56..]).iter().filter(|sigma| **sigma > 3.0).count()
    };
    let sigma = rate(all.iter().map(beyond).sum());
    let found = ADDED.map(|(_, add, days)| {
        let mut found = (0, 0);
        for bytes in &all {
            let from = 60 + draw.whole(0, 7);
            let to = (from + days).min(DAYS);
            let mut changed = bytes.clone();
            let more = add(&bytes[..LEARN]);
            changed[from..to].iter_mut().for_each(|bytes| *bytes += more);
            found.0 += usize::from(scores(&changed)[from..to].iter().any(|s| *s > threshold));
            found.1 += usize::from(sigmas(&changed)[from..to].iter().any(|s| *s > 3.0));
        }
        found
    });
    Seed { threshold, ours, sigma, found }
}

/// The experiment.
pub(super) fn run(plan: Plan) -> Outcome {
    let mut outcome = Outcome::new(
        "E12",
        "upload to approved destinations: 300 of them, 12 weeks, 10 % change their level",
    );
    let seeds = plan.runs(5, 2);
    let mut grid = Grid::new(&["seed", "threshold", "false a host-week", "3 sigma: false"]);
    grid.head.extend(ADDED.iter().map(|(name, ..)| format!("{name}: ours (3 sigma)")));
    let (mut kept, mut gigabyte) = (0, 1.0_f64);
    for seed in 0..seeds {
        let mut draw = Draw::new(plan.seed ^ 12 ^ (seed as u64) << 32);
        let one = one_seed(&mut draw, KEYS);
        kept += usize::from(one.ours <= BUDGET);
        let share = |count: usize| count as f64 / KEYS as f64;
        gigabyte = gigabyte.min(share(one.found[1].0));
        let mut row = vec![
            (seed + 1).to_string(),
            format!("x{:.2}", 10_f64.powf(one.threshold)),
            format!("{:.3}", one.ours),
            format!("{:.2}", one.sigma),
        ];
        row.extend(one.found.map(|(ours, sigma)| {
            format!("{:.0} % ({:.0} %)", 100.0 * share(ours), 100.0 * share(sigma))
        }));
        grid.rows.push(row);
    }
    outcome.hold(
        format!("seeds within {BUDGET} false actions a host-week"),
        format!("{seeds} of {seeds}"),
        kept.to_string(),
        kept == seeds,
    );
    outcome.hold(
        "+1 GB in a day found, worst seed",
        "at least 75 %",
        format!("{:.0} %", 100.0 * gigabyte),
        gigabyte >= 0.75,
    );
    outcome.grid = Some(grid);
    outcome.note("3 sigma finds as much or more, at five times the budget in false actions");
    outcome
}
