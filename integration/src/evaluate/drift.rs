//! E11: when false cuts come more often than promised, the authority to cut is taken back, and hardly ever otherwise.

use super::Plan;
use super::draw::Draw;
use super::fleet::HORIZON;
use super::replay::after;
use super::table::{Grid, Outcome, median};
use sekisho_engine::certify::drift::DriftGuard;

/// Weeks that a guard is watched.
const WEEKS: usize = 26;
/// The promise of the design's measurement: half an action a host-week of forty hosts.
const PROMISED: f64 = 20.0;
/// The promise of cuts: 0.12 a host-week of forty hosts.
const CUTS: f64 = 4.8;

/// The week in which a guard speaks, when actions come `factor` times as often as promised.
fn week_of(draw: &mut Draw, promised: f64, factor: f64) -> Option<usize> {
    let mut guard = DriftGuard::new(promised);
    guard.turn(after(0.0));
    for week in 0..WEEKS {
        let begins = week as f64 * HORIZON;
        let mut times: Vec<f64> =
            (0..draw.poisson(promised * factor)).map(|_| begins + draw.unit() * HORIZON).collect();
        times.sort_by(f64::total_cmp);
        times.iter().for_each(|at| guard.note(after(*at)));
        if guard.turn(after(begins + HORIZON)) {
            return Some(week + 1);
        }
    }
    None
}

/// The experiment.
pub(super) fn run(plan: Plan) -> Outcome {
    let mut outcome = Outcome::new("E11", "drift: false actions more often than promised");
    let runs = plan.runs(2000, 400);
    let mut draw = Draw::new(plan.seed ^ 11);
    let mut grid = Grid::new(&[
        "times the promise",
        "20 a week: revoked, median week",
        "4.8 a week: revoked, median week",
    ]);
    for factor in [0.5, 1.0, 1.5, 2.0, 3.0] {
        let mut row = vec![format!("x{factor}")];
        for promised in [PROMISED, CUTS] {
            let weeks: Vec<f64> = (0..runs)
                .filter_map(|_| week_of(&mut draw, promised, factor).map(|week| week as f64))
                .collect();
            let share = weeks.len() as f64 / runs as f64;
            let middle = median(weeks);
            let week = middle.map_or_else(|| "-".to_owned(), |week| format!("{week:.0}"));
            row.push(format!("{:.1} % {week}", 100.0 * share));
            let is_promise = promised == PROMISED;
            if factor == 1.0 {
                outcome.hold(
                    format!("revoked within 26 weeks at the promised rate of {promised} a week"),
                    "at most 5 %",
                    format!("{:.1} %", 100.0 * share),
                    share <= 0.05,
                );
            } else if factor >= 2.0 && is_promise {
                let is_soon = share >= 0.99 && middle.is_some_and(|week| week <= 1.0);
                outcome.hold(
                    format!("x{factor}: weeks until it is revoked"),
                    "all, median 1",
                    format!("{:.1} %, {week}", 100.0 * share),
                    is_soon,
                );
            }
        }
        grid.rows.push(row);
    }
    outcome.grid = Some(grid);
    outcome.note("a small promise takes longer to be seen broken: twice 4.8 a week is not told apart within one");
    outcome
}
