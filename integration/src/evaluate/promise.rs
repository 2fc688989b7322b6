//! E5: whether the promised rate of false actions is kept on weeks that nobody learned from.

use super::Plan;
use super::draw::Draw;
use super::fleet::{Role, Size, population};
use super::ours::{Weeks, crossings, first_crossing};
use super::peers::{elastic, rita};
use super::scenarios::scenarios;
use super::table::{Grid, Outcome, duration, median, megabytes, percent};
use sekisho_engine::certify::bound::{missing, poisson_upper};
use sekisho_schema::certificate::{Budgets, Certificate};
use sekisho_schema::episode::{Channel, Tier};
use std::collections::BTreeMap;

/// Weeks of learning and weeks of test.
const WEEKS: usize = 4;
/// The tiers that are promised.
const TIERS: [Tier; 2] = [Tier::Hold, Tier::CutDestination];

/// The budgets of the experiment: upload and sum for a hold, a third each for a cut.
fn budgets() -> Budgets {
    Budgets(BTreeMap::from([
        (Tier::Hold, BTreeMap::from([(Channel::Allowance, 0.25), (Channel::Sum, 0.25)])),
        (
            Tier::CutDestination,
            BTreeMap::from([
                (Channel::Allowance, 0.04),
                (Channel::HostBudget, 0.04),
                (Channel::Sum, 0.04),
            ]),
        ),
    ]))
}

/// What the others said at their highest of an episode.
#[derive(Clone, Copy, Debug, Default)]
struct Peers {
    rita: f64,
    elastic: elastic::Told,
}

/// A role of a fleet: what was learned, what came then, and the others' words on both.
struct Half {
    weeks: Weeks,
    peers: Vec<Peers>,
}

impl Half {
    fn new(role: Role, size: Size) -> Self {
        Self { weeks: Weeks::new(role, size.of(role), WEEKS), peers: Vec::new() }
    }
}

/// A fleet's weeks by role; the others' words only where they are wanted.
fn weeks(draw: &mut Draw, size: Size, with_peers: bool) -> BTreeMap<Role, Half> {
    let mut halves: BTreeMap<Role, Half> =
        Role::ALL.into_iter().map(|role| (role, Half::new(role, size))).collect();
    population(draw, size, WEEKS, 1.0, |episode| {
        let Some(half) = halves.get_mut(&episode.role) else { return };
        half.weeks.take(&episode);
        if with_peers {
            let rita = rita::series(&episode, size.all()).iter().fold(0.0, |a, b| f64::max(a, b.1));
            let told = elastic::series(&episode);
            let elastic = elastic::Told {
                score: told.iter().map(|(_, told)| told.score).max().unwrap_or(0),
                is_beaconing: told.iter().any(|(_, told)| told.is_beaconing),
            };
            half.peers.push(Peers { rita, elastic });
        }
    });
    halves
}

/// False actions of a tier in some weeks, by channel, an event each.
fn false_actions(certificate: &Certificate, tier: Tier, test: &Weeks) -> BTreeMap<Channel, usize> {
    let mut counted = BTreeMap::new();
    let days = test.host_days();
    let all = test
        .episodes
        .iter()
        .map(|(_, record, hosts, _)| (record, *hosts))
        .chain(days.iter().map(|(_, record)| (record, 1)));
    for (record, hosts) in all {
        // An episode is acted on once, whatever the number of channels that ask for it.
        if let Some(first) = crossings(certificate, tier, record, hosts).first() {
            *counted.entry(first.score.channel).or_default() += 1;
        }
    }
    counted
}

/// RITA's threshold that keeps a budget on the learned weeks, by the same exact bound.
fn tuned_rita(learned: &[Peers], host_weeks: f64, budget: f64) -> f64 {
    let mut scores: Vec<f64> = learned.iter().map(|peers| peers.rita).collect();
    scores.sort_by(|a, b| b.total_cmp(a));
    let allowed =
        (0_u64..).take_while(|events| poisson_upper(*events, 0.95) / host_weeks <= budget).last();
    allowed.map_or(f64::INFINITY, |events| scores.get(events as usize).copied().unwrap_or(0.0))
}

/// Fleets whose measured rate kept the promise, and all rates, by tier and role.
#[derive(Default)]
struct Kept {
    rates: BTreeMap<(Role, Tier), Vec<f64>>,
    locked: BTreeMap<(Role, Tier), usize>,
    is_locked_before: usize,
    fleets: usize,
    by_channel: BTreeMap<(Role, Tier, Channel), usize>,
}

/// The experiment.
pub(super) fn run(plan: Plan) -> Outcome {
    let mut outcome = Outcome::new(
        "E5",
        "promised false actions against those of four weeks nobody learned from",
    );
    let fleets = plan.runs(20, 3);
    let (experiment, shipped) = (budgets(), Budgets::default());
    let (mut kept, mut as_shipped) = (Kept::default(), Kept::default());
    let mut comparison = Comparison::default();
    for fleet in 0..fleets {
        let mut draw = Draw::new(plan.seed.wrapping_mul(1000).wrapping_add(fleet as u64));
        let with_peers = fleet < plan.runs(4, 1);
        let learned = weeks(&mut draw, Size::USUAL, with_peers);
        let test = weeks(&mut draw, Size::USUAL, with_peers);
        one_fleet(&learned, &test, &experiment, &mut kept);
        one_fleet(&learned, &test, &shipped, &mut as_shipped);
        if with_peers {
            comparison.add(&mut draw, &learned, &test, plan);
        }
    }
    tell(&mut outcome, &kept, &experiment, fleets);
    tell(&mut outcome, &as_shipped, &shipped, fleets);
    outcome.hold(
        "cuts locked below 3/b host-weeks",
        format!("{fleets} of {fleets}"),
        kept.is_locked_before.to_string(),
        kept.is_locked_before == fleets,
    );
    comparison.tell(&mut outcome);
    outcome.note("rates and laws of the fleets are assumed (detection.md, 4.4); a roll-out is on three hosts and one event; everything on the review list was signed");
    outcome
}

fn one_fleet(
    learned: &BTreeMap<Role, Half>,
    test: &BTreeMap<Role, Half>,
    budgets: &Budgets,
    kept: &mut Kept,
) {
    kept.fleets += 1;
    let mut locked_before = true;
    for role in Role::ALL {
        let (Some(before), Some(then)) = (learned.get(&role), test.get(&role)) else { continue };
        let certificate = before.weeks.certificate(budgets);
        for tier in TIERS {
            let is_open = Channel::ALL.iter().any(|c| certificate.threshold(tier, *c).is_some());
            if !is_open {
                *kept.locked.entry((role, tier)).or_default() += 1;
            }
            let counted = false_actions(&certificate, tier, &then.weeks);
            let events: usize = counted.values().sum();
            let rate = events as f64 / then.weeks.host_weeks();
            kept.rates.entry((role, tier)).or_default().push(rate);
            for (channel, count) in counted {
                *kept.by_channel.entry((role, tier, channel)).or_default() += count;
            }
        }
        locked_before &= is_locked_on_too_little(&before.weeks);
    }
    kept.is_locked_before += usize::from(locked_before);
}

/// Whether a cut stays locked on fewer host-weeks than the rule of three asks for.
fn is_locked_on_too_little(learned: &Weeks) -> bool {
    let mut pool = learned.pool();
    let needed = missing(0.0, 0.04, 0.95);
    pool.hours = (needed * 168.0) as u64 - 168;
    let certificate = super::ours::certificate(&pool, &learned.baseline(), &budgets());
    Channel::ALL.iter().all(|c| certificate.threshold(Tier::CutDestination, *c).is_none())
}

fn tell(outcome: &mut Outcome, kept: &Kept, budgets: &Budgets, fleets: usize) {
    // 18 of 20 where there are 20.
    let least = (fleets * 9).div_ceil(10).min(fleets);
    for ((role, tier), rates) in &kept.rates {
        // Three times 0.04 is a little more than 0.12.
        let promise = (budgets.promise(*tier) * 1e6).round() / 1e6;
        let held = rates.iter().filter(|rate| **rate <= promise).count();
        let mean = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
        let worst = rates.iter().copied().fold(0.0, f64::max);
        let locked = kept.locked.get(&(*role, *tier)).copied().unwrap_or(0);
        let shut = if locked > 0 { format!(", locked in {locked}") } else { String::new() };
        outcome.hold(
            format!("{} {tier}: fleets within {promise} a host-week", role.name()),
            format!("at least {least} of {fleets}"),
            format!("{held} (mean {mean:.3}, worst {worst:.3}{shut})"),
            held >= least,
        );
    }
    for ((role, tier, channel), count) in &kept.by_channel {
        outcome
            .tell(format!("  {} {tier} by {channel}, all fleets", role.name()), count.to_string());
    }
}

/// Runs of one attack seen by one judge.
#[derive(Clone, Default)]
struct Seen {
    runs: usize,
    times: Vec<f64>,
    lost: Vec<f64>,
}

impl Seen {
    fn cell(&self) -> String {
        let lost = median(self.lost.clone()).unwrap_or(0.0);
        let when = median(self.times.clone()).map_or_else(|| "-".to_owned(), duration);
        format!("{} {when} {}", percent(self.times.len(), self.runs), megabytes(lost))
    }
}

/// The judges, in the order of columns.
const JUDGES: [&str; 6] =
    ["hold", "cut", "RITA at hold's budget", "RITA at cut's budget", "RITA > 0.8", "Elastic any"];

/// Ours and theirs on the same fleets.
#[derive(Default)]
struct Comparison {
    false_events: BTreeMap<(Role, usize), usize>,
    host_weeks: BTreeMap<Role, f64>,
    attacks: BTreeMap<(Role, usize), Vec<Seen>>,
    names: Vec<&'static str>,
}

impl Comparison {
    fn add(
        &mut self,
        draw: &mut Draw,
        learned: &BTreeMap<Role, Half>,
        test: &BTreeMap<Role, Half>,
        plan: Plan,
    ) {
        let attacks = scenarios();
        self.names = attacks.iter().map(|attack| attack.name).collect();
        for role in Role::ALL {
            let (Some(before), Some(then)) = (learned.get(&role), test.get(&role)) else {
                continue;
            };
            // The whole system, with the budgets that it is shipped with.
            let shipped = Budgets::default();
            let certificate = before.weeks.certificate(&shipped);
            let tiers = [Tier::Hold, Tier::CutDestination];
            let tuned = tiers.map(|tier| {
                tuned_rita(&before.peers, before.weeks.host_weeks(), shipped.promise(tier))
            });
            *self.host_weeks.entry(role).or_default() += then.weeks.host_weeks();
            let mut count = |judge: usize, events: usize| {
                *self.false_events.entry((role, judge)).or_default() += events
            };
            for (judge, tier) in tiers.into_iter().enumerate() {
                count(judge, false_actions(&certificate, tier, &then.weeks).values().sum());
            }
            let above = |bound: f64| then.peers.iter().filter(|p| p.rita > bound).count();
            count(2, above(tuned[0]));
            count(3, above(tuned[1]));
            count(4, above(rita::CRITICAL));
            count(5, then.peers.iter().filter(|p| p.elastic.is_beaconing).count());
            for (number, attack) in attacks.iter().enumerate() {
                let seen = self
                    .attacks
                    .entry((role, number))
                    .or_insert_with(|| vec![Seen::default(); JUDGES.len()]);
                for _ in 0..plan.runs(12, 4) {
                    let episode = attack.episode(draw, role);
                    let scores = rita::series(&episode, Size::USUAL.all());
                    let rita_above =
                        |bound: f64| scores.iter().find(|(_, score)| *score > bound).map(|s| s.0);
                    let told = elastic::series(&episode);
                    let first =
                        |tier| first_crossing(&certificate, tier, &episode, attack.destinations);
                    let at = [
                        first(tiers[0]),
                        first(tiers[1]),
                        rita_above(tuned[0]),
                        rita_above(tuned[1]),
                        rita_above(rita::CRITICAL),
                        told.iter().find(|(_, told)| told.is_beaconing).map(|told| told.0),
                    ];
                    let many = attack.destinations as f64;
                    for (seen, at) in seen.iter_mut().zip(at) {
                        seen.runs += 1;
                        seen.times.extend(at.map(|at| at - episode.began()));
                        let lost = at.map_or_else(|| episode.total_up(), |at| episode.up_until(at));
                        seen.lost.push(lost * many);
                    }
                }
            }
        }
    }

    fn tell(&self, outcome: &mut Outcome) {
        let mut grid = Grid::new(&["role", "found, median time, lost"]);
        grid.head.extend(JUDGES.map(str::to_owned));
        for (role, host_weeks) in &self.host_weeks {
            let rate = |judge: usize| {
                let events = self.false_events.get(&(*role, judge)).copied().unwrap_or(0);
                format!("{:.3}", events as f64 / host_weeks)
            };
            let row = [role.name().to_owned(), "false actions a host-week".to_owned()];
            grid.rows.push(row.into_iter().chain((0..JUDGES.len()).map(rate)).collect());
        }
        for ((role, number), seen) in &self.attacks {
            let name = self.names.get(*number).copied().unwrap_or_default();
            let row = [role.name().to_owned(), name.to_owned()];
            grid.rows.push(row.into_iter().chain(seen.iter().map(Seen::cell)).collect());
        }
        outcome.grid = Some(grid);
        outcome.note("the table has the shipped budgets (hold 1.0, cut 0.12) and the first fleets only; RITA and Elastic report, their bytes assume that somebody cuts at that moment; Elastic's list of process names is not modelled");
    }
}
