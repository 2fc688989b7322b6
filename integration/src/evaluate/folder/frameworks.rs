//! E3: implants of real frameworks, waiting and at work, and people who browse.

use super::File;
use super::labels::Holds;
use super::series::{Key, Series};
use crate::evaluate::Plan;
use crate::evaluate::draw::Draw;
use crate::evaluate::fleet::{Role, Size, population};
use crate::evaluate::ours::{self, Watch, Weeks, crossings};
use crate::evaluate::peers::rita;
use crate::evaluate::table::{Grid, Outcome, duration};
use sekisho_schema::certificate::{Budgets, Certificate};
use sekisho_schema::episode::Tier;

/// log10 of the evidence that proves a rhythm.
pub(super) const PROVEN: f64 = 6.0;

/// The certificate of a generated fleet of servers: what a capture would be judged by on its first day.
pub(super) fn certificate(plan: Plan) -> Certificate {
    let size = Size { servers: Size::USUAL.servers, workstations: 0 };
    let mut weeks = Weeks::new(Role::Server, size.servers, 4);
    population(&mut Draw::new(plan.seed ^ 3), size, 4, 1.0, |episode| weeks.take(&episode));
    weeks.certificate(&Budgets::default())
}

/// Contacts of a key, shown to the statistics; times count from `from`.
pub(super) fn watch(series: &Series, from: f64) -> Watch {
    let mut watch = Watch::new(series.oddities, false);
    let mut calls = series.calls.iter().copied().peekable();
    for burst in &series.bursts {
        while let Some(at) = calls.next_if(|at| *at < burst.at) {
            watch.call(at - from);
        }
        watch.contact(burst.at - from, burst.up, burst.down);
    }
    calls.for_each(|at| watch.call(at - from));
    watch
}

/// What was seen of the key with the most evidence in a file.
struct Best<'a> {
    key: Option<&'a Key>,
    evidence: f64,
    /// Seconds from the key's first contact to the proof.
    proven: Option<f64>,
    rita: Option<f64>,
}

fn best(file: &File) -> Best<'_> {
    let from = file.taken.span.map_or(0.0, |(first, _)| first);
    let has_hostile = file.taken.series.values().any(|series| series.is_hostile);
    let mut best = Best { key: None, evidence: f64::NEG_INFINITY, proven: None, rita: None };
    for (key, series) in &file.taken.series {
        let is_meant = file.server.as_ref().map_or_else(
            || !key.is_of_the_network() && (series.is_hostile || !has_hostile),
            |server| *server == key.server,
        );
        if !is_meant || series.bursts.is_empty() {
            continue;
        }
        let seen = watch(series, from);
        if seen.evidence() > best.evidence {
            let first = series.bursts.first().map_or(from, |burst| burst.at);
            best.evidence = seen.evidence();
            best.key = Some(key);
            best.proven = seen.told().map(|at| from + at - first);
            best.rita = rita::beacon(&series.connections, from).map(|beacon| beacon.score);
        }
    }
    best
}

/// Keys of a file that are told, and that would be cut.
fn acted_on(file: &File, certificate: &Certificate) -> (usize, usize) {
    let from = file.taken.span.map_or(0.0, |(first, _)| first);
    let (mut told, mut cut) = (0, 0);
    for (number, (key, series)) in file.taken.series.iter().enumerate() {
        if key.is_of_the_network() {
            continue;
        }
        let seen = watch(series, from);
        told += usize::from(seen.evidence() >= PROVEN);
        let Some(record) = seen.record(ours::key(number)) else { continue };
        cut += usize::from(!crossings(certificate, Tier::CutDestination, &record, 1).is_empty());
    }
    (told, cut)
}

/// The experiment; `None` when the folder holds nothing for it.
pub(super) fn run(files: &[File], plan: Plan) -> Option<Outcome> {
    let meant = [Holds::Idle, Holds::Tasked, Holds::Benign];
    let files: Vec<&File> = files.iter().filter(|file| meant.contains(&file.holds)).collect();
    if files.is_empty() {
        return None;
    }
    let certificate = certificate(plan);
    let mut outcome = Outcome::new("E3", "captures of real frameworks and of people who browse");
    let mut grid =
        Grid::new(&["file", "holds", "lasts", "ours", "proven after", "RITA beacon", "key"]);
    let mut proven = [(0_usize, 0_usize); 2];
    let (mut told, mut cut, mut benign) = (0, 0, 0);
    for file in files {
        let best = best(file);
        let is_proven = best.evidence >= PROVEN;
        match file.holds {
            Holds::Benign => {
                let (t, c) = acted_on(file, &certificate);
                (told, cut, benign) = (told + t, cut + c, benign + 1);
            }
            holds => {
                let (all, found) = &mut proven[usize::from(holds == Holds::Tasked)];
                *all += 1;
                *found += usize::from(is_proven);
            }
        }
        grid.rows.push(vec![
            file.shown.clone(),
            file.holds.name().to_owned(),
            duration(file.taken.seconds()),
            if best.key.is_some() { format!("10^{:.1}", best.evidence) } else { "-".to_owned() },
            best.proven.filter(|_| is_proven).map_or_else(|| "-".to_owned(), duration),
            best.rita.map_or_else(|| "too few".to_owned(), |score| format!("{score:.2}")),
            best.key.map_or_else(String::new, Key::to_string),
        ]);
    }
    // The prototype missed one of eleven that waited, and proved 7 of 16 and 5 of 8 at work.
    let [(idle, idle_proven), (tasked, tasked_proven)] = proven;
    if idle > 0 {
        let least = idle - idle.div_ceil(11);
        outcome.hold(
            "waiting implants proven",
            format!("at least {least} of {idle}"),
            idle_proven.to_string(),
            idle_proven >= least,
        );
    }
    if tasked > 0 {
        let least = tasked * 7 / 16;
        outcome.hold(
            "implants at work proven",
            format!("at least {least} of {tasked}"),
            tasked_proven.to_string(),
            tasked_proven >= least,
        );
    }
    if benign > 0 {
        outcome.hold(format!("benign keys cut in {benign} files"), "0", cut.to_string(), cut == 0);
        outcome.tell("benign keys told", told.to_string());
    }
    outcome.grid = Some(grid);
    outcome.note("cuts by the certificate of a generated fleet of servers; RITA is asked of the same hours, and needs four connections at least");
    Some(outcome)
}
