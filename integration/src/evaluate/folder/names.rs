//! E9: tunnels in names, and the names that people ask for.

use super::File;
use super::labels::Holds;
use super::series::Question;
use crate::evaluate::ours::NameKeys;
use crate::evaluate::peers::rita;
use crate::evaluate::table::{Grid, Outcome};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of information that may have left when the alarm comes.
const MOST_BEFORE: f64 = 600.0;

/// What was seen of the domains of a file.
struct Seen {
    keys: usize,
    /// Keys above the threshold, with the bytes at that moment.
    over: BTreeMap<String, f64>,
    highest: f64,
    /// Most unique subdomains of a domain.
    subdomains: u64,
    /// Domains that RITA would tell at all.
    rita: usize,
}

fn look(questions: &[Question]) -> Seen {
    let mut names = NameKeys::default();
    let mut unique: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let mut over: BTreeMap<String, f64> = BTreeMap::new();
    let mut highest: f64 = 0.0;
    for question in questions {
        let asked = (question.client.as_str(), question.resolver.as_str(), question.name.as_str());
        let Some(told) = names.ask(question.at, asked) else { continue };
        unique.entry(told.domain).or_default().insert(&question.name);
        highest = highest.max(told.score);
        if told.is_over {
            over.entry(told.key).or_insert(told.score);
        }
    }
    let counts: Vec<u64> = unique.values().map(|names| names.len() as u64).collect();
    Seen {
        keys: names.len(),
        over,
        highest,
        subdomains: counts.iter().copied().max().unwrap_or(0),
        rita: counts.iter().filter(|count| rita::dns(**count) > 0.0).count(),
    }
}

/// The experiment; `None` when the folder holds nothing for it.
pub(super) fn run(files: &[File]) -> Option<Outcome> {
    let meant = [Holds::DnsBenign, Holds::DnsTunnel];
    let files: Vec<&File> = files.iter().filter(|file| meant.contains(&file.holds)).collect();
    if files.is_empty() {
        return None;
    }
    let mut outcome = Outcome::new("E9", "tunnels in names, and names that people ask for");
    let mut grid = Grid::new(&[
        "file",
        "holds",
        "questions",
        "keys",
        "highest, bytes",
        "over",
        "bytes at the alarm",
        "unique names",
        "RITA tells",
    ]);
    let (mut tunnels, mut caught, mut rita_caught) = (0, 0, 0);
    let (mut benign_keys, mut false_keys, mut rita_false) = (0, 0, 0);
    let mut before: f64 = 0.0;
    for file in files {
        let seen = look(&file.taken.questions);
        let first = seen.over.values().copied().fold(f64::INFINITY, f64::min);
        if file.holds == Holds::DnsTunnel {
            tunnels += 1;
            caught += usize::from(!seen.over.is_empty());
            rita_caught += usize::from(seen.rita > 0);
            if first.is_finite() {
                before = before.max(first);
            }
        } else {
            benign_keys += seen.keys;
            false_keys += seen.over.len();
            rita_false += seen.rita;
        }
        grid.rows.push(vec![
            file.shown.clone(),
            file.holds.name().to_owned(),
            file.taken.questions.len().to_string(),
            seen.keys.to_string(),
            format!("{:.0}", seen.highest),
            seen.over.keys().take(2).cloned().collect::<Vec<_>>().join(", "),
            if first.is_finite() { format!("{first:.0}") } else { "-".to_owned() },
            seen.subdomains.to_string(),
            seen.rita.to_string(),
        ]);
    }
    if tunnels > 0 {
        outcome.hold(
            "tunnels caught",
            format!("all of {tunnels}"),
            format!("{caught} (RITA {rita_caught})"),
            caught == tunnels,
        );
        outcome.hold(
            "bytes of information before the alarm, worst",
            format!("at most {MOST_BEFORE:.0}"),
            format!("{before:.0}"),
            before <= MOST_BEFORE,
        );
    }
    if benign_keys > 0 {
        outcome.hold(
            format!("benign keys told, of {benign_keys}"),
            "0",
            format!("{false_keys} (RITA {rita_false})"),
            false_keys == 0,
        );
    }
    outcome.grid = Some(grid);
    Some(outcome)
}
