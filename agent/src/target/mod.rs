//! What a scope is on this host, now.
//!
//! Enters: a `Scope`, the kernel's own facts (cgroup tree, /proc, network namespaces, neighbour and bridge
//! tables). Leaves: a [`Target`]: ids, addresses and devices that sets of the ruleset can hold. Must not know:
//! nftables, packets, policy.

mod cgroup;
mod container;
mod freeze;
mod inside;
mod namespace;
pub(crate) mod netlink;
mod reach;
mod resolve;
mod routes;
pub(crate) mod sockets;
mod watch;
pub(crate) mod workload;

pub use cgroup::{FindTreeError, MAX_LEVEL, Members, Tree, path_in};
pub use container::{FindContainerError, container_of};
pub use freeze::{FREEZE_LIMIT, FreezeError, FrozenAfter, freeze};
pub use inside::FindHostError;
pub(crate) use namespace::processes;
pub use namespace::{EnterError, here, of_process, others, within};
pub use netlink::AskKernelError;
pub use reach::describe;
pub use resolve::{ResolveError, Resolver, needs_target};
pub(crate) use routes::own_addresses;
pub use watch::{Changed, Note, OpenWatchError};
pub use workload::Stray;

use sekisho_schema::{Scope, Transport};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A cgroup as the kernel compares sockets with it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cgroup {
    /// Depth of the path below the root of cgroup v2, from 1: the `level` of `socket cgroupv2`.
    pub level: u8,
    /// Inode of its directory, which is its id.
    pub id: u64,
    /// Its path below the root, for people.
    pub path: String,
}

/// A network namespace that belongs to the scope, not the host's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Namespace {
    /// Its inode.
    pub inode: u64,
    /// A process in it, by which it can be entered; 0 when it has a name and no process.
    pub pid: u32,
}

/// What a scope is on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Its cgroups: the named one, or that of the container. What is below them matches by level.
    pub cgroups: BTreeSet<Cgroup>,
    /// Addresses of a container or an inside host, as senders.
    pub addresses: BTreeSet<IpAddr>,
    /// Hardware addresses of the same; never one of this host.
    pub macs: BTreeSet<[u8; 6]>,
    /// Devices of this host by which its frames come in: host end of a veth, bridge port. They carry nothing
    /// else: whatever comes in by them may be cut. For a link, the device itself.
    pub ports: BTreeSet<String>,
    /// Network namespaces of its own.
    pub namespaces: BTreeSet<Namespace>,
    /// Local ports of this network namespace on which its sockets alone listen: their answers to a handshake
    /// belong to no cgroup.
    pub listeners: BTreeSet<(Transport, u16)>,
    /// What of it can't be held, in words for people.
    pub open: Vec<String>,
}

/// The targets of every scope of a set that needs one.
pub type Targets = BTreeMap<Scope, Target>;
