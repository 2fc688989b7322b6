//! The small privileged process that owns the tables.
//!
//! Enters: desired state over a unix socket: the plan and the containment set, whole, and destinations known
//! beforehand in batches. Leaves: what the kernel holds, that nobody else may change it where the kernel can
//! forbid it, and that it is set right where it can't. Must not know: packets, detectors, policy, tokio, any
//! network but its own socket.
//!
//! # Threads
//! | thread | does | waits for |
//! |---|---|---|
//! | `hand` | carries out desired state over the socket that owns the tables; asks for SCHED_FIFO 1 | the agent, its waker, one second |
//! | `desk` (main) | takes callers, checks who they are | its socket, one second |
//! | `ask` (one for each caller) | answers questions, proves cuts, ends sockets | its caller |
//! | `watch` | hears every change of rules and devices | the kernel, one second |
//! | `check` | compares the kernel with what it should hold | one second |
//! | `deny` | has the kernel refuse raw sockets to what is contained, and remember who opened what | changes, one second |
//! | `keep` | writes down what is held, for a reboot | changes, one minute |

mod aims;
mod boot;
mod check;
mod client;
mod clock;
mod deny;
mod desk;
mod ending;
mod hand;
mod kept;
mod privilege;
mod seat;
mod start;
mod watch;
mod wire;

pub use boot::{BootError, Restored, restore};
pub use client::{AskGuardianError, Asker, Guardian, Hand, KnownLink, listen};
pub use deny::{Denying, Remembering};
pub use desk::{Options, RunGuardianError, run};
pub use privilege::{ShedError, has_net_admin, shed_net_admin};
pub use start::{StartGuardianError, detach, ensure, keep};
pub use wire::{Ended, Event, Outcome, RefusedScope, State};

/// Name of the guardian's socket below `[paths] run`.
pub const SOCKET: &str = "guardian.sock";
