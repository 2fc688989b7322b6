//! E10: an intruder who is there while learning begins must be on the review list, and must not become normal.

use super::draw::Draw;
use super::fleet::{Attack, Role, Size, population};
use super::ours::{Weeks, key, watch};
use super::table::{Grid, Outcome, percent};
use super::{Plan, replay::after};
use sekisho_engine::certify::review::{draft, list};
use std::collections::BTreeSet;

/// Weeks of learning.
const WEEKS: usize = 4;
/// Servers.
const SERVERS: usize = 40;
/// Where the intruders' destinations are numbered from.
const FIRST: usize = 1_000_000;

/// The seven kinds.
fn kinds() -> [Attack; 7] {
    let beacon = Attack::beacon;
    [
        beacon("clean beacon 60 s 20 %", 60.0, 0.2),
        beacon("clean beacon 900 s 50 %", 900.0, 0.5),
        beacon("clean beacon 1 h 20 %", 3600.0, 0.2),
        beacon("clean beacon 6 h 20 %", 21_600.0, 0.2),
        beacon("clean beacon 900 s 90 %", 900.0, 0.9),
        Attack::plugx("PlugX raw-443 30 s"),
        Attack { slow: 1e6, ..beacon("1 MB an hour over 300 s", 300.0, 0.2) },
    ]
}

/// The experiment.
pub(super) fn run(plan: Plan) -> Outcome {
    let mut outcome = Outcome::new("E10", "an intruder who is there while learning begins");
    let mut draw = Draw::new(plan.seed ^ 10);
    let size = Size { servers: SERVERS, workstations: 0 };
    let mut weeks = Weeks::new(Role::Server, SERVERS, WEEKS);
    population(&mut draw, size, WEEKS, 1.0, |episode| weeks.take(&episode));
    let benign = list(&weeks.pool(), &weeks.baseline()).len() as f64 / weeks.host_weeks();
    let runs = plan.runs(20, 10);
    let mut next = FIRST;
    let mut planted = Vec::new();
    for kind in kinds() {
        let mut keys = BTreeSet::new();
        for run in 0..runs {
            let episode = kind.episode(&mut draw, Role::Server);
            if let Some(record) = watch(&episode).record(key(next)) {
                keys.insert(record.key.clone());
                weeks.episodes.push((run % SERVERS, record, 1, kind.name));
            }
            next += 1;
        }
        planted.push((kind.name, keys));
    }
    let (pool, baseline) = (weeks.pool(), weeks.baseline());
    let listed: BTreeSet<_> = list(&pool, &baseline).into_iter().map(|item| item.key).collect();
    let drafted = draft(&pool, &baseline, after(0.0));
    let normal: BTreeSet<_> = drafted.entry.iter().map(|entry| entry.key()).collect();
    let mut grid = Grid::new(&["kind", "on the review list", "normal without a signature"]);
    let (mut found, mut entered) = (0, 0);
    for (name, keys) in &planted {
        let here = keys.intersection(&listed).count();
        let inside = keys.intersection(&normal).count();
        (found, entered) = (found + here, entered + inside);
        grid.rows.push(vec![(*name).to_owned(), percent(here, runs), inside.to_string()]);
    }
    let all = runs * planted.len();
    outcome.hold("intruders on the list", format!("all of {all}"), found.to_string(), found == all);
    outcome.hold("intruders that became normal", "0", entered.to_string(), entered == 0);
    outcome.hold(
        "benign items to sign",
        "at most 1 a server-week",
        format!("{benign:.2}"),
        benign <= 1.0,
    );
    outcome.grid = Some(grid);
    outcome
}
