//! The tree of cgroup v2: paths to ids, ids to paths, and who is in it.

use super::Cgroup;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Deepest level at which a cgroup can be held: the ruleset has one set per level (containment.md, section 5).
pub const MAX_LEVEL: u8 = 8;
/// Cgroups visited in one walk; the kernel's own default bound of a host is far below.
const MAX_CGROUPS: usize = 65_536;
/// Processes read of one cgroup with all below it.
const MAX_PROCESSES: usize = 65_536;
/// Inode, and so id, of the kernel's own root (kernfs numbers from 1).
const ROOT_ID: u64 = 1;

/// Why the tree could not be found.
#[derive(Debug, thiserror::Error)]
pub enum FindTreeError {
    /// No cgroup v2 is mounted.
    #[error("no cgroup v2 file system is mounted")]
    Absent,
    /// Only a part of it is mounted, so that depths are unknown.
    #[error("{path} shows only a part of the cgroup tree, as in a cgroup namespace")]
    Partial {
        /// Where it is mounted.
        path: PathBuf,
    },
    /// The list of mounts can't be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The tree as it is mounted here.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
}

/// A cgroup with all below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Ids of its cgroups.
    pub ids: BTreeSet<u64>,
    /// Processes in them, as this pid namespace numbers them.
    pub pids: BTreeSet<u32>,
    /// There are more than are listed.
    pub is_partial: bool,
}

impl Tree {
    /// Finds where cgroup v2 is mounted.
    ///
    /// # Errors
    /// [`FindTreeError`].
    pub fn find() -> Result<Self, FindTreeError> {
        let path = PathBuf::from("/proc/self/mountinfo");
        let mounts =
            fs::read_to_string(&path).map_err(|source| FindTreeError::Read { path, source })?;
        let root = mounts.lines().find_map(mount_point).ok_or(FindTreeError::Absent)?;
        match fs::metadata(&root) {
            Ok(metadata) if metadata.ino() == ROOT_ID => Ok(Self { root }),
            Ok(_) => Err(FindTreeError::Partial { path: root }),
            Err(source) => Err(FindTreeError::Read { path: root, source }),
        }
    }

    /// The directory of a cgroup path.
    #[must_use]
    pub fn directory(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The cgroup at a path; `None` when there is none.
    #[must_use]
    pub fn cgroup(&self, path: &str) -> Option<Cgroup> {
        let path = normal(path)?;
        let level = u8::try_from(path.split('/').skip(1).count()).ok()?;
        let metadata = fs::symlink_metadata(self.directory(&path)).ok()?;
        metadata.is_dir().then(|| Cgroup { level, id: metadata.ino(), path })
    }

    /// The nearest path above that exists.
    #[must_use]
    pub fn nearest(&self, path: &str) -> String {
        let mut path = normal(path).unwrap_or_default();
        while let Some((above, _)) = path.rsplit_once('/') {
            if above.is_empty() {
                break;
            }
            if self.cgroup(above).is_some() {
                return above.to_owned();
            }
            path = above.to_owned();
        }
        "/".to_owned()
    }

    /// Names of the cgroups right below a path, at most `limit`.
    #[must_use]
    pub fn children(&self, path: &str, limit: usize) -> Vec<String> {
        let mut names: Vec<String> = below(&self.directory(path)).take(limit).collect();
        names.sort();
        names
    }

    /// A cgroup with all below it.
    #[must_use]
    pub fn members(&self, path: &str) -> Members {
        let mut members = Members::default();
        members.is_partial = !self.walk(path, None, &mut |_, directory, id| {
            members.ids.insert(id);
            members.pids.extend(processes(directory).take(MAX_PROCESSES));
            true
        });
        members.is_partial |= members.pids.len() >= MAX_PROCESSES;
        members
    }

    /// Every cgroup below the root by path, until `visit` says `false` or the deadline comes; whether all were seen.
    pub(super) fn walk(
        &self,
        from: &str,
        deadline: Option<Instant>,
        visit: &mut dyn FnMut(&str, &Path, u64) -> bool,
    ) -> bool {
        let start = normal(from).unwrap_or_default();
        let mut waiting = VecDeque::from([start]);
        for _ in 0..MAX_CGROUPS {
            let Some(path) = waiting.pop_front() else { return true };
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return false;
            }
            let directory = self.directory(&path);
            // One that vanished during the walk is no longer a member.
            let Ok(metadata) = fs::symlink_metadata(&directory) else { continue };
            if !visit(&path, &directory, metadata.ino()) {
                return false;
            }
            waiting.extend(below(&directory).map(|name| format!("{path}/{name}")));
        }
        waiting.is_empty()
    }

    /// The path of a cgroup by its id; `None` when it is gone or was not found in time.
    #[must_use]
    pub fn path_of(&self, id: u64, deadline: Instant) -> Option<String> {
        if id == ROOT_ID {
            return Some("/".to_owned());
        }
        let mut found = None;
        self.walk("/", Some(deadline), &mut |path, _, inode| {
            if inode == id {
                found = Some(path.to_owned());
            }
            found.is_none()
        });
        found
    }

    /// Paths of every cgroup by id, as far as the deadline allows.
    #[must_use]
    pub fn paths(&self, deadline: Instant) -> BTreeMap<u64, String> {
        let mut paths = BTreeMap::new();
        self.walk("/", Some(deadline), &mut |path, _, id| {
            paths.insert(id, if path.is_empty() { "/".to_owned() } else { path.to_owned() });
            true
        });
        paths
    }

    /// The path of the cgroup of a process.
    #[must_use]
    pub fn of_process(pid: u32) -> Option<String> {
        path_in(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)
    }
}

/// The cgroup v2 path of a `/proc/PID/cgroup` (hierarchy 0; cgroups(7)).
#[must_use]
pub fn path_in(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    // The kernel marks a cgroup that was removed under its last process.
    Some(path.strip_suffix(" (deleted)").unwrap_or(path).to_owned())
}

/// A path with one slash before each name; `None` for the root and for one that could lead elsewhere.
pub(super) fn normal(path: &str) -> Option<String> {
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    if names.is_empty()
        || names.iter().any(|name| matches!(*name, "." | "..") || name.contains('\0'))
    {
        return None;
    }
    Some(names.iter().map(|name| format!("/{name}")).collect())
}

/// The mount point of a line of mountinfo when it is cgroup v2 (proc(5): … point … - type source options).
fn mount_point(line: &str) -> Option<PathBuf> {
    let (head, tail) = line.split_once(" - ")?;
    tail.starts_with("cgroup2 ").then(|| head.split(' ').nth(4).map(PathBuf::from))?
}

fn below(directory: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
}

/// Processes of one cgroup, without those of another pid namespace (which read as 0).
fn processes(directory: &Path) -> impl Iterator<Item = u32> {
    // A threaded cgroup does not list processes; its threads' processes stand in the domain above it.
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    let pids: Vec<u32> =
        text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect();
    pids.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leads_elsewhere_is_none() {
        assert_eq!(normal("/a//b/").as_deref(), Some("/a/b"));
        for path in ["", "/", "//", "/a/../b", "/./a"] {
            assert_eq!(normal(path), None, "{path}");
        }
    }

    #[test]
    fn the_mount_of_version_2_is_told_from_others() {
        let two = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        let one = "40 31 0:37 / /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,pids";
        assert_eq!(mount_point(two), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount_point(one), None);
    }

    #[test]
    fn a_process_is_in_the_cgroup_of_hierarchy_0() {
        assert_eq!(
            path_in("12:cpu:/x\n0::/system.slice/a.service\n").as_deref(),
            Some("/system.slice/a.service")
        );
        assert_eq!(path_in("0::/a (deleted)\n").as_deref(), Some("/a"));
        assert_eq!(path_in("12:cpu:/x\n"), None);
    }
}
