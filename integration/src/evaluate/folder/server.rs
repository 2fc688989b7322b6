//! E4: a server's days, the first of them learned, with something planted.

use super::File;
use super::frameworks::{PROVEN, certificate, watch};
use super::labels::Holds;
use super::series::{Key, Series};
use crate::evaluate::Plan;
use crate::evaluate::fleet::{Connection, DAY, HOUR};
use crate::evaluate::ours::{self, crossings};
use crate::evaluate::peers::{between, rita};
use crate::evaluate::table::{Grid, Outcome, duration};
use sekisho_schema::certificate::Certificate;
use sekisho_schema::episode::Tier;
use std::collections::BTreeMap;

/// The machine itself: the client with the most contacts.
fn own(file: &File) -> Option<String> {
    let mut contacts: BTreeMap<&str, usize> = BTreeMap::new();
    for (key, series) in &file.taken.series {
        *contacts.entry(&key.client).or_default() += series.bursts.len();
    }
    contacts.into_iter().max_by_key(|(_, count)| *count).map(|(client, _)| client.to_owned())
}

/// What became of one file.
struct Seen {
    new_keys: usize,
    held: usize,
    cut: usize,
    planted: Option<(String, Option<f64>, Option<f64>)>,
    day_two: bool,
}

/// RITA's beacon score of the first day of a key.
fn rita_of(connections: &[Connection]) -> Option<f64> {
    let first = connections.first()?.at;
    rita::beacon(between(connections, first, first + DAY), first).map(|beacon| beacon.score)
}

fn look(file: &File, certificate: &Certificate) -> Option<Seen> {
    let own = own(file)?;
    let (from, to) = file.taken.span?;
    let day_two = to - from > 1.5 * DAY;
    let mut seen = Seen { new_keys: 0, held: 0, cut: 0, planted: None, day_two };
    let is_planted = |key: &Key, series: &Series| {
        file.server.as_ref().map_or(series.is_hostile, |server| *server == key.server)
    };
    let mut most = 0;
    for (number, (key, series)) in file.taken.series.iter().enumerate() {
        if key.client != own || series.bursts.is_empty() {
            continue;
        }
        let watched = watch(series, from);
        let first = series.bursts.first().map_or(from, |burst| burst.at);
        if is_planted(key, series) {
            // Of several flows to what was planted the busiest is its channel.
            if series.bursts.len() > most {
                most = series.bursts.len();
                let proven = watched.told().map(|at| from + at - first);
                seen.planted = Some((key.to_string(), proven, rita_of(&series.connections)));
            }
            continue;
        }
        if !day_two || first < from + DAY {
            continue;
        }
        seen.new_keys += 1;
        let Some(record) = watched.record(ours::key(number)) else { continue };
        let acts = |tier| !crossings(certificate, tier, &record, 1).is_empty();
        seen.held += usize::from(acts(Tier::Hold));
        seen.cut += usize::from(acts(Tier::CutDestination));
    }
    Some(seen)
}

/// The experiment; `None` when the folder holds nothing for it.
pub(super) fn run(files: &[File], plan: Plan) -> Option<Outcome> {
    let files: Vec<&File> = files.iter().filter(|file| file.holds == Holds::Server).collect();
    if files.is_empty() {
        return None;
    }
    let certificate = certificate(plan);
    let mut outcome =
        Outcome::new("E4", "a server's days: the first is learned, something is planted");
    let mut grid = Grid::new(&[
        "file",
        "lasts",
        "new keys",
        "held",
        "cut",
        "planted",
        "found after",
        "RITA beacon, first 24 h",
    ]);
    for file in files {
        let Some(seen) = look(file, &certificate) else { continue };
        let (planted, found, rita) = seen.planted.clone().unwrap_or_default();
        grid.rows.push(vec![
            file.shown.clone(),
            duration(file.taken.seconds()),
            seen.new_keys.to_string(),
            seen.held.to_string(),
            seen.cut.to_string(),
            planted.clone(),
            found.map_or_else(|| "-".to_owned(), duration),
            rita.map_or_else(|| "-".to_owned(), |score| format!("{score:.2}")),
        ]);
        if seen.day_two {
            outcome.hold(
                format!("{}: false holds / cuts among {} new keys", file.shown, seen.new_keys),
                "0 / 0",
                format!("{} / {}", seen.held, seen.cut),
                seen.held + seen.cut == 0,
            );
        }
        if !planted.is_empty() {
            outcome.hold(
                format!("{}: {planted} found (10^{PROVEN:.0})", file.shown),
                "within 3 h",
                found.map_or_else(|| "not found".to_owned(), duration),
                found.is_some_and(|at| at <= 3.0 * HOUR),
            );
        }
    }
    outcome.grid = Some(grid);
    outcome.note("RITA sees a key's whole first day, and imports by the hour at best");
    Some(outcome)
}
