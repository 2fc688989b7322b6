//! E1: traffic without a plan must not prove a rhythm.

use super::draw::Draw;
use super::fleet::Connection;
use super::ours;
use super::peers::rita;
use super::table::{Grid, Outcome, percent};
use super::{Plan, peers::between};
use crate::evaluate::fleet::DAY;

/// log10 of the evidence that Ville's inequality lets one in a thousand streams reach.
const REACHED: f64 = 3.0;
/// Gaps of a stream.
const EVENTS: usize = 300;

/// A law of gaps without a plan.
type Law = (&'static str, fn(&mut Draw) -> Vec<f64>);

const LAWS: [Law; 4] = [
    ("Poisson", poisson),
    ("bursty (two exponentials)", bursty),
    ("Pareto", pareto),
    ("log-normal, sigma 1.5 to 2.5", lognormal),
];

fn stream(draw: &mut Draw, mut gap: impl FnMut(&mut Draw) -> f64) -> Vec<f64> {
    let mut at = 0.0;
    (0..EVENTS)
        .map(|_| {
            at += gap(draw);
            at
        })
        .collect()
}

fn poisson(draw: &mut Draw) -> Vec<f64> {
    let mean = 10_f64.powf(draw.within(0.5, 3.0));
    stream(draw, |draw| draw.exponential(mean))
}

fn bursty(draw: &mut Draw) -> Vec<f64> {
    let (short, long) = (draw.within(1.0, 10.0), draw.within(100.0, 1800.0));
    let share = draw.within(0.5, 0.95);
    stream(draw, |draw| {
        let mean = if draw.happens(share) { short } else { long };
        draw.exponential(mean)
    })
}

fn pareto(draw: &mut Draw) -> Vec<f64> {
    let (shape, scale) = (draw.within(1.1, 2.5), 10_f64.powf(draw.within(0.5, 2.0)));
    stream(draw, |draw| scale * draw.pareto(shape))
}

fn lognormal(draw: &mut Draw) -> Vec<f64> {
    let (sigma, middle) = (draw.within(1.5, 2.5), 10_f64.powf(draw.within(0.5, 2.5)));
    stream(draw, |draw| draw.lognormal(middle, sigma))
}

/// What RITA says of the first day of a stream, to a destination that is new and that nobody else knows.
fn rita_says(draw: &mut Draw, times: &[f64]) -> f64 {
    let connections: Vec<Connection> = times
        .iter()
        .map(|at| Connection {
            at: *at,
            up: draw.lognormal(6.5_f64.exp(), 0.3),
            down: 0.0,
            seconds: 1.0,
        })
        .collect();
    let around = rita::Surroundings { prevalence: 0.01, days_known: 1.0, open: 0.0 };
    rita::score(between(&connections, 0.0, DAY), 0.0, around)
}

/// The experiment.
pub(super) fn run(plan: Plan) -> Outcome {
    let mut outcome =
        Outcome::new("E1", "streams without a plan, 300 contacts each: no rhythm is proven");
    let each = plan.runs(2500, 250);
    let mut draw = Draw::new(plan.seed ^ 1);
    let mut grid = Grid::new(&[
        "law",
        "ours >= 10^3",
        "highest",
        "RITA high (>= 0.6)",
        "RITA critical (> 0.8)",
    ]);
    let (mut reached, mut rita_high) = (0, 0);
    for (name, law) in LAWS {
        let (mut here, mut high, mut critical, mut most) = (0, 0, 0, 0.0_f64);
        for _ in 0..each {
            let times = law(&mut draw);
            let highest = ours::evidence(&times).into_iter().fold(0.0, f64::max);
            most = most.max(highest);
            here += usize::from(highest >= REACHED);
            let rita = rita_says(&mut draw, &times);
            high += usize::from(rita >= rita::HIGH);
            critical += usize::from(rita > rita::CRITICAL);
        }
        (reached, rita_high) = (reached + here, rita_high + high);
        grid.rows.push(vec![
            name.to_owned(),
            percent(here, each),
            format!("10^{most:.1}"),
            percent(high, each),
            percent(critical, each),
        ]);
    }
    let all = each * LAWS.len();
    outcome.hold(
        format!("share of {all} streams that ever reach 10^3"),
        "at most 0.1 %",
        format!("{reached} ({:.3} %)", 100.0 * reached as f64 / all as f64),
        reached as f64 <= 0.001 * all as f64,
    );
    outcome.tell("RITA calls high or critical", percent(rita_high, all));
    outcome.grid = Some(grid);
    outcome.note("the evidence is started anew whenever it falls below 1, so Ville's bound holds from each start; the target is asked of whole streams");
    outcome
}
