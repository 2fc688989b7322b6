//! Programs of ours in the kernel: one refuses raw sockets to what is contained, others remember who opened what.
//!
//! Enters: which cgroups and network namespaces are contained until when, and which processes are spared. Leaves:
//! whether the kernel refuses, and how often it did. Must not know: containments, the ruleset, policy.
//!
//! All of it is an extra: where the kernel, the build or a capability does not allow it, that is told and the rest goes on.

#[cfg_attr(not(feature = "ebpf"), path = "absent.rs")]
mod denial;
#[cfg(feature = "ebpf")]
mod object;
#[cfg_attr(not(feature = "ebpf"), path = "absent_openers.rs")]
mod openers;

pub use denial::{Denial, DenyError};
pub use openers::{Openers, RememberError};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where the kernel keeps what shall outlive its maker (bpffs); systemd mounts it.
pub const BPF_FS: &str = "/sys/fs/bpf";

/// Whether this program was built with kernel programs.
pub const IS_BUILT: bool = cfg!(feature = "ebpf");

/// What a spared process may open although its network namespace is contained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spared {
    /// Packet sockets, as one that it holds already; no AF_XDP socket.
    Packet = 1,
    /// Both.
    All = 2,
}

/// A process that opened a connection, or sent to an end, as it was then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opener {
    /// When, by CLOCK_BOOTTIME in nanoseconds.
    pub at: u64,
    /// Id of its cgroup.
    pub cgroup: u64,
    /// Whether both ends of a connection were compared; of datagrams the own address is not known, nor always the port.
    pub is_exact: bool,
    /// Whether it was in the network namespace of whoever remembers.
    pub is_here: bool,
    /// Its number in the first pid namespace.
    pub pid: u32,
    /// What it called itself: 15 bytes at most, as a rule the beginning of its program's file name.
    pub name: String,
}

/// To whom new packet and AF_XDP sockets shall be refused; ends are nanoseconds of CLOCK_BOOTTIME.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Cgroups by id, with all below them, and the end of each.
    pub cgroups: BTreeMap<u64, u64>,
    /// Every process in the network namespace of whoever opened the [`Denial`], until then.
    pub namespace: Option<u64>,
    /// Processes that [`Wanted::namespace`] does not concern, by number in the first pid namespace.
    pub spared: BTreeMap<u32, Spared>,
}

impl Wanted {
    /// Whether nobody is refused anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cgroups.is_empty() && self.namespace.is_none()
    }
}

/// CLOCK_BOOTTIME, by which ends are told, in nanoseconds.
#[must_use]
pub fn boot_nanos() -> u64 {
    u64::try_from(crate::clock::reading(rustix::time::ClockId::Boottime).nanos()).unwrap_or(0)
}
