//! What was rehearsed and when: `drills.json` in the state directory.

use super::figures::Figures;
use crate::state::{StoreError, private_dir, write_atomically};
use sekisho_schema::event::DrillReport;
use sekisho_schema::policy::DrillPlan;
use sekisho_schema::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Name and version of the schema of the file.
const SCHEMA: &str = "sekisho.drills/1";
/// The file in the state directory, and the one by which writers take turns.
const FILE: &str = "drills.json";
const TURNS: &str = "drills.lock";
/// Reports that are kept of each drill.
const MOST_REPORTS: usize = 20;
/// Drills whose beginning is remembered.
const MOST_NAMES: usize = 200;
/// One that is later than this many hundredths of its interval beyond it is overdue.
const TOLERANCE: i64 = 10;

/// Why the file of drills was not written; what was in it is in it.
#[derive(Debug, thiserror::Error)]
pub enum KeepDrillsError {
    /// It could not be locked.
    #[error("cannot lock {path}")]
    Lock {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It could not be written.
    #[error("cannot keep what was rehearsed")]
    Store(#[from] StoreError),
    /// It can't be said in JSON.
    #[error("cannot say in JSON what was rehearsed")]
    Encode(#[from] serde_json::Error),
}

/// One rehearsal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// When it ended.
    pub at: Timestamp,
    /// What came of it.
    pub report: DrillReport,
    /// What was measured.
    pub figures: Option<Figures>,
}

/// What was rehearsed on this host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    schema: String,
    /// Since when policy asks for a drill.
    #[serde(default)]
    asked_since: BTreeMap<String, Timestamp>,
    /// Rehearsals, the oldest first.
    #[serde(default)]
    pub reports: Vec<Kept>,
}

/// How a drill stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It shall take place now.
    Due,
    /// It held in time.
    Held,
    /// It did not hold within its interval and a tenth.
    Overdue,
    /// No policy asks for it.
    Unscheduled,
}

/// How one drill stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DrillStanding {
    /// Its name.
    pub name: String,
    /// How often at least, by policy.
    pub every: Option<Span>,
    /// When it took place last.
    pub last_at: Option<Timestamp>,
    /// Whether it held then.
    pub last_passed: Option<bool>,
    /// When it held last.
    pub held_at: Option<Timestamp>,
    /// When it shall take place again.
    pub due_at: Option<Timestamp>,
    /// How it stands.
    pub standing: Standing,
}

impl Ledger {
    /// What a state directory keeps; nothing where nothing is or can be read.
    #[must_use]
    pub fn read(state: &Path) -> Self {
        let read = fs::read(state.join(FILE)).ok();
        let ledger: Option<Self> = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        ledger.filter(|ledger| ledger.schema == SCHEMA).unwrap_or_default()
    }

    /// Changes what a state directory keeps, one writer at a time.
    ///
    /// # Errors
    /// [`KeepDrillsError`].
    pub fn change(state: &Path, change: impl FnOnce(&mut Self)) -> Result<Self, KeepDrillsError> {
        let path = state.join(TURNS);
        let lock = |source| KeepDrillsError::Lock { path: path.clone(), source };
        private_dir(state).map_err(lock)?;
        let turn = lock_file(&path).map_err(lock)?;
        turn.lock().map_err(lock)?;
        let mut ledger = Self::read(state);
        let before = ledger.clone();
        change(&mut ledger);
        ledger.schema = SCHEMA.to_owned();
        if ledger != before {
            write_atomically(&state.join(FILE), &serde_json::to_vec_pretty(&ledger)?, 0o600)?;
        }
        Ok(ledger)
    }

    /// Adds a rehearsal; the oldest of the same drill go.
    pub fn add(&mut self, kept: Kept) {
        let name = kept.report.name.clone();
        self.reports.push(kept);
        let mut surplus = self
            .reports
            .iter()
            .filter(|kept| kept.report.name == name)
            .count()
            .saturating_sub(MOST_REPORTS);
        self.reports.retain(|kept| {
            let goes = surplus > 0 && kept.report.name == name;
            surplus -= usize::from(goes);
            !goes
        });
    }

    /// Takes note of what policy asks for at `now`.
    pub fn ask(&mut self, plans: &[DrillPlan], now: Timestamp) {
        self.asked_since.retain(|name, _| plans.iter().any(|plan| plan.name == *name));
        for plan in plans.iter().take(MOST_NAMES) {
            self.asked_since.entry(plan.name.clone()).or_insert(now);
        }
    }

    /// The last rehearsal of a drill.
    #[must_use]
    pub fn last(&self, name: &str) -> Option<&Kept> {
        self.reports.iter().rev().find(|kept| kept.report.name == name)
    }

    /// How a drill stands at `now`.
    #[must_use]
    pub fn standing(&self, name: &str, plans: &[DrillPlan], now: Timestamp) -> DrillStanding {
        let every = plans.iter().filter(|plan| plan.name == name).map(|plan| plan.every).min();
        let last = self.last(name);
        let held_at = self
            .reports
            .iter()
            .rev()
            .find(|kept| kept.report.name == name && kept.report.passed)
            .map(|kept| kept.at);
        let standing = match every {
            None => Standing::Unscheduled,
            Some(every) if self.is_overdue(name, held_at, every, now) => Standing::Overdue,
            Some(every) if held_at.is_some_and(|at| now < at.after(every)) => Standing::Held,
            Some(_) => Standing::Due,
        };
        DrillStanding {
            name: name.to_owned(),
            every,
            last_at: last.map(|kept| kept.at),
            last_passed: last.map(|kept| kept.report.passed),
            held_at,
            due_at: every.map(|every| held_at.map_or(now, |at| at.after(every))),
            standing,
        }
    }

    fn is_overdue(&self, name: &str, held: Option<Timestamp>, every: Span, now: Timestamp) -> bool {
        let most = every.nanos().saturating_add(every.nanos() / 100 * TOLERANCE);
        // One that never held counts from when it was first asked for.
        let since = held.max(self.asked_since.get(name).copied());
        since.is_some_and(|since| now.since(since).nanos() > most)
    }
}

/// A file that is there to be locked.
pub(super) fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(name: &str, at: Timestamp, passed: bool) -> Kept {
        let report = DrillReport { name: name.to_owned(), passed, ..DrillReport::default() };
        Kept { at, report, figures: None }
    }

    fn hours(hours: i64) -> Timestamp {
        Timestamp::EPOCH.after(Span::from_hours(hours))
    }

    #[test]
    fn what_is_kept_reads_back_and_the_oldest_of_the_same_name_go() {
        let dir = tempfile::tempdir().unwrap();
        for hour in 0..30 {
            Ledger::change(dir.path(), |ledger| ledger.add(kept("a", hours(hour), true))).unwrap();
        }
        Ledger::change(dir.path(), |ledger| ledger.add(kept("b", hours(1), false))).unwrap();
        let ledger = Ledger::read(dir.path());
        assert_eq!(ledger.reports.len(), MOST_REPORTS + 1);
        assert_eq!(ledger.last("a").map(|kept| kept.at), Some(hours(29)));
        assert_eq!(ledger.reports.first().map(|kept| kept.at), Some(hours(10)));
    }

    #[test]
    fn a_drill_is_due_then_held_then_due_then_overdue() {
        let plans = [DrillPlan { name: "a".to_owned(), every: Span::from_hours(10) }];
        let mut ledger = Ledger::default();
        let standing = |ledger: &Ledger, now| ledger.standing("a", &plans, now).standing;
        ledger.ask(&plans, hours(0));
        assert_eq!(standing(&ledger, hours(0)), Standing::Due);
        ledger.add(kept("a", hours(1), true));
        assert_eq!(standing(&ledger, hours(10)), Standing::Held);
        assert_eq!(standing(&ledger, hours(11)), Standing::Due);
        assert_eq!(standing(&ledger, hours(13)), Standing::Overdue);
        ledger.add(kept("a", hours(13), false));
        assert_eq!(
            standing(&ledger, hours(13)),
            Standing::Overdue,
            "one that failed sets nothing right"
        );
        ledger.add(kept("a", hours(14), true));
        assert_eq!(standing(&ledger, hours(14)), Standing::Held);
    }

    #[test]
    fn one_that_never_held_is_overdue_from_when_it_was_first_asked_for() {
        let plans = [DrillPlan { name: "a".to_owned(), every: Span::from_hours(10) }];
        let mut ledger = Ledger::default();
        ledger.ask(&plans, hours(5));
        ledger.ask(&plans, hours(9));
        assert_eq!(ledger.standing("a", &plans, hours(15)).standing, Standing::Due);
        assert_eq!(ledger.standing("a", &plans, hours(17)).standing, Standing::Overdue);
        ledger.ask(&[], hours(17));
        assert_eq!(ledger.standing("a", &[], hours(17)).standing, Standing::Unscheduled);
        ledger.ask(&plans, hours(18));
        assert_eq!(ledger.standing("a", &plans, hours(18)).standing, Standing::Due);
    }

    #[test]
    fn two_writers_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for name in ["a", "b"] {
                let dir = dir.path();
                scope.spawn(move || {
                    for hour in 0..10 {
                        Ledger::change(dir, |ledger| ledger.add(kept(name, hours(hour), true)))
                            .unwrap();
                    }
                });
            }
        });
        assert_eq!(Ledger::read(dir.path()).reports.len(), 20);
    }
}
