//! The freezer of cgroup v2: its processes stand still, with their memory and sockets kept.

use super::cgroup::{Tree, normal};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest wait for the kernel's word that all stand still; 0.8 ms is usual (containment.md, section 5).
pub const FREEZE_LIMIT: Duration = Duration::from_secs(2);
/// Pause between two looks at `cgroup.events`.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Why a cgroup was not frozen or thawed.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// It holds what must go on.
    #[error("{path} is not frozen: it holds {holds} (process {pid})")]
    Spared {
        /// The cgroup.
        path: String,
        /// Who is in it.
        holds: &'static str,
        /// Its process id.
        pid: u32,
    },
    /// The root, or no path at all.
    #[error("{path} is not frozen: it is the root of all cgroups, or no path")]
    Root {
        /// What was named.
        path: String,
    },
    /// The kernel did not take the order.
    #[error("cannot write {file}; nothing was changed")]
    Write {
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel took the order and did not carry it out in time.
    #[error("{path} was told to {order}, and after {} ms not all of its processes had", waited.as_millis())]
    Unconfirmed {
        /// The cgroup.
        path: String,
        /// `stand still` or `go on`.
        order: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
}

/// What the kernel confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrozenAfter {
    /// From the order to the confirmation that was seen.
    pub took: Duration,
    /// Processes in the cgroup and below it.
    pub processes: usize,
}

/// Freezes or thaws a cgroup with all below it, and waits for the kernel to confirm it.
///
/// Refuses to freeze the root and every cgroup that holds init, the calling process or one of `spared`
/// (the agent for the guardian and the other way round). Thawing is never refused.
///
/// # Errors
/// [`FreezeError`]. After [`FreezeError::Unconfirmed`] the order stands and the kernel may still carry it out.
pub fn freeze(
    tree: &Tree,
    path: &str,
    frozen: bool,
    spared: &[u32],
) -> Result<FrozenAfter, FreezeError> {
    let Some(path) = normal(path) else { return Err(FreezeError::Root { path: path.to_owned() }) };
    if frozen {
        refuse_spared(&path, spared)?;
    }
    let directory = tree.directory(&path);
    let file = directory.join("cgroup.freeze");
    let started = Instant::now();
    fs::write(&file, if frozen { "1" } else { "0" }).map_err(|source| FreezeError::Write {
        file: file.to_string_lossy().into_owned(),
        source,
    })?;
    // A cgroup above may be frozen, and this one then stays so whatever it is told.
    while is_frozen(&directory) != Some(frozen) {
        let waited = started.elapsed();
        if waited >= FREEZE_LIMIT {
            let order = if frozen { "stand still" } else { "go on" };
            return Err(FreezeError::Unconfirmed { path, order, waited });
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(FrozenAfter { took: started.elapsed(), processes: tree.members(&path).pids.len() })
}

/// Whether all of a cgroup stands still, as the kernel says in `cgroup.events`.
fn is_frozen(directory: &Path) -> Option<bool> {
    let events = fs::read_to_string(directory.join("cgroup.events")).ok()?;
    events.lines().find_map(|line| line.strip_prefix("frozen ")).map(|word| word == "1")
}

/// A cgroup is told by its path: whoever is in it or below it would stand still with it.
fn refuse_spared(path: &str, spared: &[u32]) -> Result<(), FreezeError> {
    let own = std::process::id();
    let all = [(1, "init"), (own, "this program")]
        .into_iter()
        .chain(spared.iter().map(|pid| (*pid, "a part of this program")));
    for (pid, holds) in all {
        let Some(home) = Tree::of_process(pid) else { continue };
        if home == path || home.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')) {
            return Err(FreezeError::Spared { path: path.to_owned(), holds, pid });
        }
    }
    Ok(())
}
