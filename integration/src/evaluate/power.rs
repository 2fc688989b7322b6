//! E2: how many contacts of a beacon prove its rhythm.

use super::Plan;
use super::draw::Draw;
use super::fleet::{DAY, HOUR, periodic};
use super::ours;
use super::table::{Grid, Outcome, median};

/// log10 of the evidence that proves a rhythm.
const PROVEN: f64 = 6.0;
/// Contacts after which a run is given up.
const MOST: usize = 600;
/// Sleeps, in seconds.
const PERIODS: [f64; 5] = [10.0, 60.0, 300.0, 900.0, 3600.0];

/// A law of jitter: name, jitter, whether sleeps are also lengthened, most contacts to proof.
const LAWS: [(&str, f64, bool, f64); 4] = [
    ("no jitter", 0.0, false, 12.0),
    ("Cobalt Strike 20 %", 0.2, false, 18.0),
    ("Cobalt Strike 50 %", 0.5, false, 45.0),
    ("Empire +-50 %", 0.5, true, 80.0),
];

/// What disturbs the beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disturbed {
    /// Nothing.
    No,
    /// An operator gives work now and then.
    Operator,
    /// The machine is off at night.
    Nights,
}

const DISTURBED: [(&str, Disturbed); 3] = [
    ("alone", Disturbed::No),
    ("operator", Disturbed::Operator),
    ("nights off", Disturbed::Nights),
];

/// Times of contact, and whether each is the beacon's own.
fn contacts(
    draw: &mut Draw,
    period: f64,
    law: (f64, bool),
    disturbed: Disturbed,
) -> Vec<(f64, bool)> {
    let (jitter, both_ways) = law;
    let until = period * MOST as f64 * 0.8;
    let mut times: Vec<(f64, bool)> = periodic(draw, period, jitter, both_ways, 0.05, until)
        .into_iter()
        .map(|at| (at, true))
        .collect();
    match disturbed {
        Disturbed::No => {}
        Disturbed::Operator => {
            // As often as a few times in a hundred sleeps.
            for _ in 0..draw.poisson(0.03 * MOST as f64) {
                let mut at = draw.unit() * until;
                for _ in 0..draw.whole(3, 30) {
                    at += draw.exponential(3.0);
                    times.push((at, false));
                }
            }
            times.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        Disturbed::Nights => {
            let start = draw.within(8.0, 18.0) * HOUR;
            times.retain(|(at, _)| (8.0..20.0).contains(&(((at + start) % DAY) / HOUR)));
        }
    }
    times
}

/// The beacon's own contacts until its rhythm is proven.
fn to_proof(times: &[(f64, bool)]) -> Option<usize> {
    let all: Vec<f64> = times.iter().map(|(at, _)| *at).collect();
    let proven = ours::evidence(&all).into_iter().position(|evidence| evidence >= PROVEN)?;
    Some(times.iter().take(proven + 1).filter(|(_, is_own)| *is_own).count())
}

/// The experiment.
pub(super) fn run(plan: Plan) -> Outcome {
    let mut outcome = Outcome::new("E2", "contacts of a beacon until its rhythm is proven (10^6)");
    let runs = plan.runs(100, 20);
    let mut draw = Draw::new(plan.seed ^ 2);
    let head: Vec<String> = PERIODS.iter().map(|period| format!("{period} s")).collect();
    let mut grid = Grid::new(&["law", "beside it"]);
    grid.head.extend(head);
    for (name, jitter, both_ways, most) in LAWS {
        let (mut pooled, mut alone) = (Vec::new(), Vec::new());
        for (beside, disturbed) in DISTURBED {
            let mut row = vec![name.to_owned(), beside.to_owned()];
            for period in PERIODS {
                let counts: Vec<f64> = (0..runs)
                    .map(|_| {
                        let times = contacts(&mut draw, period, (jitter, both_ways), disturbed);
                        // A run without a proof counts as one more than it had.
                        to_proof(&times).unwrap_or(MOST) as f64
                    })
                    .collect();
                pooled.extend_from_slice(&counts);
                if disturbed == Disturbed::No {
                    alone.extend_from_slice(&counts);
                }
                let found = counts.iter().filter(|count| **count < MOST as f64).count();
                let middle = median(counts).unwrap_or(f64::NAN);
                let few = if found < runs { format!(" ({found}/{runs})") } else { String::new() };
                row.push(format!("{middle:.0}{few}"));
            }
            grid.rows.push(row);
        }
        let (pooled, alone) =
            (median(pooled).unwrap_or(f64::NAN), median(alone).unwrap_or(f64::NAN));
        outcome.hold(
            format!("{name}: median over sleeps of 10 s to 1 h, alone and disturbed"),
            format!("at most {most:.0}"),
            format!("{pooled:.0} (alone {alone:.0})"),
            pooled <= most,
        );
    }
    let bytes = ours::state_bytes();
    outcome.hold("state of a destination", "at most 256 B", format!("{bytes} B"), bytes <= 256);
    outcome.grid = Some(grid);
    outcome.note("an operator's contacts are not counted; a sleep of 10 s takes longer to prove as its window is wide beside it (half a second at both ends)");
    outcome
}
