//! What a scope is on this host, now.
//!
//! Enters: a `Scope`, the kernel's own facts (cgroup tree, /proc, network namespaces, neighbour and bridge
//! tables). Leaves: a [`Target`]: ids, addresses and devices that sets of the ruleset can hold. Must not know:
//! nftables, packets, policy.

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
    /// A process in it, by which it can be entered.
    pub pid: u32,
}

/// What a scope is on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Its cgroups: the named one, or that of the container.
    pub cgroups: BTreeSet<Cgroup>,
    /// Addresses of a container or an inside host, as senders.
    pub addresses: BTreeSet<IpAddr>,
    /// Hardware addresses of the same.
    pub macs: BTreeSet<[u8; 6]>,
    /// Devices of this host by which its frames come in: host end of a veth, bridge port, VLAN device.
    pub ports: BTreeSet<String>,
    /// Network namespaces of its own.
    pub namespaces: BTreeSet<Namespace>,
    /// Local ports on which its sockets listen: their answers to a handshake belong to no cgroup.
    pub listeners: BTreeSet<(Transport, u16)>,
    /// What of it can't be held, in words for people.
    pub open: Vec<String>,
}

/// The targets of every scope of a set that needs one.
pub type Targets = BTreeMap<Scope, Target>;
