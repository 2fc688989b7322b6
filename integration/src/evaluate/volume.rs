//! E7 and E8: what leaves before the allowances hold, time-warped through the product's whole engine.

use super::fleet::{Attack, DAY, Episode, HOUR, Role};
use super::peers::{elastic, rita};
use super::replay::Replay;
use super::table::{Grid, Outcome, duration, median, megabytes};
use super::{Plan, draw::Draw};
use std::net::Ipv4Addr;

/// The allowances of the shipped policy, in bytes (detection.md, section 4.7).
const POLICY: &str = "schema = \"sekisho.policy/1\"\nversion = 1\nmode = \"dry-run\"\n\
[allowance]\nlearn-for = \"0s\"\n\
[duty]\ngroup = \"server\"\nowner = \"nobody\"\ndeputy = \"nobody\"\n";

/// What leaves is held by these.
const HOLDS: [&str; 2] = ["behaviour.allowance", "behaviour.host-budget"];
/// Bytes that may be lost to one destination, a piece of the upload included.
const PER_KEY: f64 = 21e6;
/// Bytes that a host may lose in a day.
const PER_DAY: f64 = 50e6;
/// The line, in bytes a second: 100 Mbit/s.
const LINE: f64 = 12.5e6;

/// Bytes that left an episode until somebody acted at a moment.
fn lost(episode: &Episode, at: Option<f64>) -> f64 {
    at.map_or_else(|| episode.total_up(), |at| episode.up_until(at))
}

fn cell(lost: f64, at: Option<f64>) -> String {
    at.map_or_else(
        || format!("{} (not found)", megabytes(lost)),
        |at| format!("{} after {}", megabytes(lost), duration(at)),
    )
}

/// E7: little by little, hidden in a beacon.
pub(super) fn low_and_slow(plan: Plan) -> Outcome {
    let mut outcome =
        Outcome::new("E7", "low and slow: bytes that leave in seven days before the hold");
    let mut grid =
        Grid::new(&["bytes an hour", "ours", "RITA > 0.8", "RITA >= 0.6", "Elastic any"]);
    let mut draw = Draw::new(plan.seed ^ 7);
    for (name, rate) in [("0.1 MB", 1e5), ("1 MB", 1e6), ("10 MB", 1e7)] {
        let attack = Attack { slow: rate, ..Attack::beacon("low and slow", 300.0, 0.2) };
        let mut cells: [Vec<(f64, Option<f64>)>; 4] = Default::default();
        for _ in 0..plan.runs(10, 2) {
            let episode = attack.episode(&mut draw, Role::Server);
            let scores = rita::series(&episode, 60);
            let above =
                |bound: f64| scores.iter().find(|(_, score)| *score > bound).map(|(at, _)| *at);
            let told = elastic::series(&episode);
            let seen = [
                replayed(&episode),
                above(rita::CRITICAL),
                above(rita::HIGH - 1e-9),
                told.iter().find(|(_, told)| told.is_beaconing).map(|(at, _)| *at),
            ];
            for (cells, at) in cells.iter_mut().zip(seen) {
                cells.push((lost(&episode, at), at));
            }
        }
        let worst = cells[0].iter().map(|(lost, _)| *lost).fold(0.0, f64::max);
        outcome.hold(
            format!("{name} an hour, worst of {}", cells[0].len()),
            format!("at most {}", megabytes(PER_KEY)),
            megabytes(worst),
            worst <= PER_KEY,
        );
        let middle = |runs: &Vec<(f64, Option<f64>)>| {
            let bytes = median(runs.iter().map(|(lost, _)| *lost).collect()).unwrap_or(0.0);
            let times: Vec<f64> = runs.iter().filter_map(|(_, at)| *at).collect();
            cell(bytes, if 2 * times.len() >= runs.len() { median(times) } else { None })
        };
        grid.rows.push(std::iter::once(name.to_owned()).chain(cells.iter().map(middle)).collect());
    }
    outcome.grid = Some(grid);
    outcome.note("ours holds in the packet path; the others report, and their cells assume that somebody cuts at that moment");
    outcome.note("lists of known addresses and of signatures (Suricata, Maltrail) are not run here: an address that nobody reported is in none");
    outcome
}

/// Seconds after which the engine first found too much; 0.1 MB an hour stays below and is never found.
fn replayed(episode: &Episode) -> Option<f64> {
    let mut replay = Replay::new(POLICY, &[]);
    let to = (Ipv4Addr::new(203, 0, 113, 9), 443);
    for burst in &episode.bursts {
        replay.send(burst.at, to, burst.up, burst.down);
        // What is held needs no more traffic.
        if let Some(at) = replay.first(&HOLDS) {
            return Some(at);
        }
    }
    replay.pass(8.0 * DAY);
    replay.first(&HOLDS)
}

/// E8: one upload over twenty new destinations, each below its allowance for long.
pub(super) fn spread(plan: Plan) -> Outcome {
    let mut outcome = Outcome::new("E8", "600 MB over 20 new destinations in two hours");
    let attack = Attack {
        total: 30e6,
        piece: 5e5,
        speed: 30e6 / (2.0 * HOUR),
        destinations: 20,
        ..Attack::beacon("spread", 0.0, 0.0)
    };
    let bound = PER_DAY + LINE;
    let mut grid = Grid::new(&["run", "ours", "after", "RITA > 0.8", "Elastic any"]);
    let mut worst: f64 = 0.0;
    for run in 0..plan.runs(10, 2) {
        let mut draw = Draw::new(plan.seed ^ 8 ^ (run as u64) << 32);
        let (lost, at, total) = spread_once(&attack, &mut draw);
        let one = attack.episode(&mut draw, Role::Server);
        let is_critical = rita::series(&one, 60).iter().any(|(_, score)| *score > rita::CRITICAL);
        let is_told = elastic::series(&one).iter().any(|(_, told)| told.is_beaconing);
        let others = |is_found: bool| {
            if is_found {
                "found, reports only".to_owned()
            } else {
                format!("{} (not found)", megabytes(total))
            }
        };
        worst = worst.max(lost);
        grid.rows.push(vec![
            format!("{}", run + 1),
            megabytes(lost),
            at.map_or_else(|| "never".to_owned(), duration),
            others(is_critical),
            others(is_told),
        ]);
    }
    outcome.hold(
        "bytes lost, worst run",
        format!("at most {} and a second of 100 Mbit/s", megabytes(PER_DAY)),
        megabytes(worst),
        worst <= bound,
    );
    outcome.grid = Some(grid);
    outcome
}

/// Bytes lost, when the host's budget held them, and how much was to leave.
fn spread_once(attack: &Attack, draw: &mut Draw) -> (f64, Option<f64>, f64) {
    let mut bursts: Vec<(f64, f64, f64, usize)> = Vec::new();
    for destination in 0..attack.destinations {
        let episode = attack.episode(draw, Role::Server);
        bursts.extend(episode.bursts.iter().map(|b| (b.at, b.up, b.down, destination)));
    }
    bursts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total = bursts.iter().map(|burst| burst.1).sum();
    let mut replay = Replay::new(POLICY, &[]);
    let mut left = 0.0;
    for (at, up, down, destination) in bursts {
        replay.send(at, (Ipv4Addr::new(198, 51, 100, 1 + destination as u8), 443), up, down);
        left += up;
        if let Some(at) = replay.first(&["behaviour.host-budget"]) {
            return (left, Some(at), total);
        }
    }
    (left, None, total)
}
