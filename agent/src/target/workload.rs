//! Sockets and namespaces of the processes of a workload.

use super::cgroup::Members;
use super::namespace::{here, of_process, processes};
use super::netlink::AskKernelError;
use super::sockets::{ALL_STATES, Diagnosis, LISTENING, Socket};
use super::{Namespace, Target};
use sekisho_schema::Transport;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Longest look through the open files of a workload.
const FILES_LIMIT: Duration = Duration::from_millis(500);
/// Network namespaces of one workload that are told.
const MAX_NAMESPACES: usize = 256;

/// A socket of a workload that was made in another cgroup: a cut by cgroup does not stop it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// TCP or UDP.
    pub transport: Transport,
    /// Local end.
    pub local: SocketAddr,
    /// Remote end; unspecified for one without a peer.
    pub remote: SocketAddr,
    /// Whether it waits for connections; those that it accepts are strays too.
    pub listens: bool,
    /// Id of the cgroup in which it was made.
    pub cgroup: Option<u64>,
}

/// Inodes of the sockets that processes hold, as far as the deadline allows.
pub(crate) fn held_sockets(pids: impl Iterator<Item = u32>, deadline: Instant) -> BTreeSet<u32> {
    let mut held = BTreeSet::new();
    for pid in pids {
        if Instant::now() >= deadline {
            break;
        }
        held.extend(sockets_of(pid));
    }
    held
}

/// Inodes of the sockets that a process holds.
pub(crate) fn sockets_of(pid: u32) -> impl Iterator<Item = u32> {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
}

/// Inodes of a table of sockets under `/proc/net`, in the namespace of the calling thread.
pub(crate) fn listed_inodes(table: &str) -> BTreeSet<u32> {
    let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
    let mut lines = text.lines();
    // Columns are named in the first line; "sk", "RefCnt" and others stand before "Inode" at a fixed place.
    let column = if table == "packet" { 8 } else { 9 };
    lines.next();
    lines.filter_map(|line| line.split_whitespace().nth(column)?.parse().ok()).collect()
}

/// Adds listeners, and words on sockets that the cut by cgroup misses; returns those.
pub(super) fn add_sockets(
    members: &Members,
    target: &mut Target,
) -> Result<Vec<Stray>, AskKernelError> {
    let held = held_sockets(members.pids.iter().copied(), Instant::now() + FILES_LIMIT);
    let by_cgroup = |socket: &Socket| socket.cgroup.is_some_and(|id| members.ids.contains(&id));
    let is_held = |socket: &Socket| socket.inode != 0 && held.contains(&socket.inode);
    let mut diagnosis = Diagnosis::open()?;
    let mut strays = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp] {
        for socket in diagnosis.list(transport, ALL_STATES)? {
            if is_held(&socket) && !by_cgroup(&socket) {
                strays.push(Stray {
                    transport,
                    local: socket.local,
                    remote: socket.remote,
                    listens: socket.listens,
                    cgroup: socket.cgroup,
                });
            }
        }
    }
    let listeners = diagnosis.list(Transport::Tcp, LISTENING)?;
    let (mine, others): (Vec<&Socket>, Vec<&Socket>) =
        listeners.iter().partition(|socket| by_cgroup(socket) || is_held(socket));
    let taken: BTreeSet<u16> = others.iter().map(|socket| socket.local.port()).collect();
    for port in mine.iter().map(|socket| socket.local.port()).collect::<BTreeSet<u16>>() {
        if taken.contains(&port) {
            target.open.push(format!(
                "others listen on tcp port {port} too: its answers to a handshake there can't be told from theirs and are not held"
            ));
        } else {
            target.listeners.insert((Transport::Tcp, port));
        }
    }
    add_words(&strays, &held, target);
    Ok(strays)
}

fn add_words(strays: &[Stray], held: &BTreeSet<u32>, target: &mut Target) {
    let count = |fits: &dyn Fn(&Stray) -> bool| strays.iter().filter(|stray| fits(stray)).count();
    let connected = |stray: &Stray| !stray.remote.ip().is_unspecified();
    let open = count(&connected);
    if open > 0 {
        target.open.push(format!(
            "{open} of its connections were made in another cgroup: they leave until they are ended"
        ));
    }
    let listening = count(&|stray| stray.listens);
    if listening > 0 {
        target.open.push(format!(
            "{listening} of its listeners were made in another cgroup (socket activation): what they accept is held by local port only"
        ));
    }
    let speaking = count(&|stray| stray.transport == Transport::Udp && !connected(stray));
    if speaking > 0 {
        target.open.push(format!(
            "{speaking} of its UDP sockets were made in another cgroup and can't be ended: they leave unless it is frozen"
        ));
    }
    let packet = listed_inodes("packet").intersection(held).count();
    if packet > 0 {
        target.open.push(format!(
            "{packet} of its sockets send whole frames (AF_PACKET), which belong to no cgroup: they leave unless it is frozen"
        ));
    }
}

/// Network namespaces of processes, other than this one's, each with a process in it.
pub(super) fn namespaces(pids: &BTreeSet<u32>) -> BTreeSet<Namespace> {
    let own = here().ok();
    let mut found: BTreeMap<u64, u32> = BTreeMap::new();
    for pid in pids {
        if let Ok(inode) = of_process(*pid)
            && Some(inode) != own
            && found.len() < MAX_NAMESPACES
        {
            found.entry(inode).or_insert(*pid);
        }
    }
    found.into_iter().map(|(inode, pid)| Namespace { inode, pid }).collect()
}

/// Processes of others in these namespaces: by namespace, one of them and how many.
pub(super) fn sharers(
    namespaces: &BTreeSet<Namespace>,
    pids: &BTreeSet<u32>,
) -> BTreeMap<u64, (u32, usize)> {
    let mut found: BTreeMap<u64, (u32, usize)> = BTreeMap::new();
    if namespaces.is_empty() {
        return found;
    }
    for pid in processes().filter(|pid| !pids.contains(pid)) {
        if let Ok(inode) = of_process(pid)
            && namespaces.iter().any(|namespace| namespace.inode == inode)
        {
            found.entry(inode).or_insert((pid, 0)).1 += 1;
        }
    }
    found
}
