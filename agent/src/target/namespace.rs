//! Network namespaces: which there are, and work inside one.

use super::Namespace;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::thread;
use std::time::Instant;

/// Where tools keep namespaces that have a name and perhaps no process.
const NAMED: [&str; 3] = ["/run/netns", "/run/docker/netns", "/var/run/netns"];
/// Namespaces told of one host.
const MAX_NAMESPACES: usize = 4_096;

/// Why a namespace could not be entered; nothing was done in it.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// Nobody and nothing holds it any more.
    #[error("network namespace {inode} is gone")]
    Gone {
        /// Its inode.
        inode: u64,
    },
    /// The kernel did not let us in.
    #[error("cannot enter network namespace {inode}")]
    Refused {
        /// Its inode.
        inode: u64,
        /// What the system said.
        source: io::Error,
    },
    /// No thread could be started.
    #[error("cannot start a thread to enter network namespace {inode}")]
    Thread {
        /// Its inode.
        inode: u64,
        /// What the system said.
        source: io::Error,
    },
}

/// The network namespace of the calling thread.
///
/// # Errors
/// What the system says.
pub fn here() -> io::Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino())
}

/// The network namespace of a process.
///
/// # Errors
/// What the system says; a process that ended has none.
pub fn of_process(pid: u32) -> io::Result<u64> {
    Ok(fs::metadata(format!("/proc/{pid}/ns/net"))?.ino())
}

/// Runs `body` in a network namespace, on a thread of its own that ends with it; the caller's thread never moves.
///
/// # Errors
/// [`EnterError`]; `body` has not run then.
pub fn within<T: Send>(
    namespace: &Namespace,
    body: impl FnOnce() -> T + Send,
) -> Result<T, EnterError> {
    let inode = namespace.inode;
    let file = open(namespace).ok_or(EnterError::Gone { inode })?;
    thread::scope(|scope| {
        let inside = thread::Builder::new()
            .name("namespace".to_owned())
            .spawn_scoped(scope, || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .map(|()| body())
            })
            .map_err(|source| EnterError::Thread { inode, source })?;
        match inside.join() {
            Ok(outcome) => {
                outcome.map_err(|source| EnterError::Refused { inode, source: source.into() })
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A handle on a namespace, by its process, by its name, or by another process in it.
fn open(namespace: &Namespace) -> Option<File> {
    // The process may have ended, and its number may be another's by now: only the inode counts.
    let by = |path: &str| {
        File::open(path)
            .ok()
            .filter(|file| file.metadata().is_ok_and(|found| found.ino() == namespace.inode))
    };
    by(&format!("/proc/{}/ns/net", namespace.pid))
        .or_else(|| named().into_iter().find_map(|path| by(&path)))
        .or_else(|| processes().find_map(|pid| by(&format!("/proc/{pid}/ns/net"))))
}

fn named() -> Vec<String> {
    NAMED
        .iter()
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flatten()
        .flatten()
        .filter_map(|entry| entry.path().into_os_string().into_string().ok())
        .take(MAX_NAMESPACES)
        .collect()
}

/// Every process that procfs lists.
pub(crate) fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Every network namespace but the caller's, as processes and names show, as far as the deadline allows.
#[must_use]
pub fn others(deadline: Instant) -> Vec<Namespace> {
    let own = here().ok();
    let mut found = BTreeMap::new();
    for pid in processes() {
        if Instant::now() >= deadline || found.len() >= MAX_NAMESPACES {
            break;
        }
        if let Ok(inode) = of_process(pid) {
            found.entry(inode).or_insert(pid);
        }
    }
    for path in named() {
        // What is no namespace any more reads as a plain file of another file system.
        if let Ok(metadata) = fs::metadata(&path)
            && fs::read_link("/proc/self/ns/net").is_ok()
            && Some(metadata.dev()) == fs::metadata("/proc/self/ns/net").ok().map(|own| own.dev())
        {
            found.entry(metadata.ino()).or_insert(0);
        }
    }
    found
        .into_iter()
        .filter(|(inode, _)| Some(*inode) != own)
        .map(|(inode, pid)| Namespace { inode, pid })
        .collect()
}
