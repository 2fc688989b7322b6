//! What is held, written down for a guardian or a host that starts again. Commit first, disk second: a cut
//! never waits for a disk.

use super::clock::{kernel_boot, since_boot};
use super::seat::Seat;
use super::wire::bare;
use crate::clock;
use crate::enforce::Plan;
use crate::queue::Receiver;
use sekisho_schema::{ContainmentId, ContainmentSet, Measure, Scope, Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

/// Name of the file below `[paths] state`.
pub(super) const FILE: &str = "held.json";
/// While something is held it is written at least so often: a host whose clock is lost holds no longer than this too long.
const REFRESH: Duration = Duration::from_secs(60);
/// Changes that come closer than this are one.
const GATHER: Duration = Duration::from_millis(2);

/// What is in force, and by which clocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Which run of the kernel wrote it.
    kernel_boot: String,
    /// CLOCK_REALTIME then.
    wall: Timestamp,
    /// CLOCK_BOOTTIME then.
    steady: Span,
    plan: Plan,
    holds: Vec<Hold>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Hold {
    id: ContainmentId,
    scope: Scope,
    until: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trial_until: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Measure::is_cut")]
    measure: Measure,
}

impl Kept {
    fn of(plan: Plan, set: &ContainmentSet) -> Self {
        let holds = set.containments.values().map(|held| Hold {
            id: held.id.clone(),
            scope: held.scope.clone(),
            until: held.until,
            trial_until: held.trial_until,
            measure: held.measure,
        });
        Self {
            kernel_boot: kernel_boot(),
            wall: clock::now(),
            steady: since_boot(),
            plan,
            holds: holds.collect(),
        }
    }

    /// Reads what was written; `None` when nothing was.
    pub(super) fn read(state: &Path) -> io::Result<Option<Self>> {
        match fs::read(state.join(FILE)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is left of it, by the clocks of now.
    pub(super) fn resume(self) -> (Plan, ContainmentSet) {
        self.resume_at(&kernel_boot(), clock::now(), since_boot())
    }

    fn resume_at(self, boot: &str, wall: Timestamp, steady: Span) -> (Plan, ContainmentSet) {
        let same_boot = !boot.is_empty() && boot == self.kernel_boot;
        // How far an end is moved: by what the wall clock was set within one run of the kernel; and a clock that
        // was lost with the power must not prolong what was left when this was written.
        let step = if same_boot {
            let walked = wall.since(self.wall).nanos();
            walked.saturating_sub(steady.nanos().saturating_sub(self.steady.nanos()))
        } else {
            wall.since(self.wall).nanos().min(0)
        };
        let moved = |at: Timestamp| at.after(Span::from_nanos(step));
        let containments = self
            .holds
            .into_iter()
            .map(|hold| {
                let trial = hold.trial_until.map(moved);
                bare(hold.id, hold.scope, moved(hold.until), trial, hold.measure)
            })
            .filter(|containment| containment.held_until() > wall)
            .map(|containment| (containment.id.clone(), containment))
            .collect();
        (self.plan, ContainmentSet { generation: 0, containments })
    }
}

/// Writes down what is in force, until nobody asks any more.
pub(super) fn keep(state: PathBuf, seat: &Arc<Seat>, asked: &Receiver<()>) {
    let path = state.join(FILE);
    loop {
        match asked.recv_timeout(REFRESH) {
            Ok(()) => {
                // A burst of changes is one document.
                while asked.recv_timeout(GATHER).is_ok() {}
            }
            Err(RecvTimeoutError::Timeout) => {
                if seat.see(|facts| facts.set.containments.is_empty()) {
                    continue;
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let facts = seat.facts();
        let Some(plan) = facts.plan else {
            let _ = fs::remove_file(&path);
            continue;
        };
        let written = serde_json::to_vec(&Kept::of(plan, &facts.set))
            .map_err(io::Error::from)
            .and_then(|bytes| write_whole(&path, &bytes));
        if let Err(error) = written {
            tracing::error!(path = %path.display(), %error, state = "what is cut is cut; after a reboot it would not be", "cannot write down what is held");
        }
    }
}

/// Writes a file so that a crash leaves the old content or the new one, and the disk has it.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let temporary = path.with_extension("tmp");
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000_000;

    fn kept() -> Kept {
        let set = ContainmentSet {
            generation: 5,
            containments: [("c-1", "host", 2, None), ("c-2", "dest:203.0.113.9", 9, Some(1))]
                .into_iter()
                .map(|(id, scope, hours, trial)| {
                    let id = ContainmentId(id.to_owned());
                    let at = |hours: i64| Timestamp::from_nanos(100 * HOUR + hours * HOUR);
                    let held = bare(
                        id.clone(),
                        scope.parse().unwrap(),
                        at(hours),
                        trial.map(at),
                        Measure::Cut,
                    );
                    (id, held)
                })
                .collect(),
        };
        Kept {
            kernel_boot: "this".to_owned(),
            wall: Timestamp::from_nanos(100 * HOUR),
            steady: Span::from_nanos(10 * HOUR),
            ..Kept::of(Plan::default(), &set)
        }
    }

    fn left(boot: &str, wall_hours: i64, steady_hours: i64) -> Vec<(String, i64)> {
        let wall = Timestamp::from_nanos(wall_hours * HOUR);
        let (_, set) = kept().resume_at(boot, wall, Span::from_nanos(steady_hours * HOUR));
        set.containments
            .values()
            .map(|held| (held.id.0.clone(), held.remaining(wall).nanos() / HOUR))
            .collect()
    }

    #[test]
    fn a_lease_keeps_what_was_left_whatever_the_wall_clock_says_within_one_run_of_the_kernel() {
        let after_half_an_hour = kept().resume_at(
            "this",
            Timestamp::from_nanos(7 * HOUR),
            Span::from_nanos(10 * HOUR + HOUR / 2),
        );
        let now = Timestamp::from_nanos(7 * HOUR);
        let spans: Vec<i64> = after_half_an_hour
            .1
            .containments
            .values()
            .map(|held| held.remaining(now).nanos())
            .collect();
        assert_eq!(spans, [HOUR + HOUR / 2, HOUR / 2]);
    }

    #[test]
    fn a_reboot_takes_its_time_off_the_lease_and_ends_what_is_over() {
        assert_eq!(left("other", 101, 0), [("c-1".to_owned(), 1)], "the trial is over");
        assert!(left("other", 102, 0).is_empty());
    }

    #[test]
    fn a_clock_that_was_lost_prolongs_nothing() {
        assert_eq!(left("other", 1, 0), [("c-1".to_owned(), 2), ("c-2".to_owned(), 1)]);
    }
}
