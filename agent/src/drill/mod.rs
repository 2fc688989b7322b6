//! Rehearsals: a synthetic intruder, a real cut.
//!
//! Enters: a drill (`sekisho.drill/1`), the policy and the rule packs in force. Leaves: a report with the
//! figures of an incident. Must not know: the running agent but by its control socket, the collector.
//!
//! # Processes
//! | process | where | does |
//! |---|---|---|
//! | `drill run` | the host | prepares, waits, judges, tells |
//! | `drill cell` | the host, then leaves it | moves into new user, process, mount and network namespaces |
//! | `drill stage` | the cell, process 1 | the other end, the legitimate peer, the direction of the play |
//! | `guardian`, `run` | the cell, namespace `skdrill-PID-canary` | the very program, with a state directory of its own |
//! | `drill canary` | the cell, namespace `skdrill-PID-canary` | the host that is attacked: plain sockets |
//!
//! When whoever began it ends, however that happens, the kernel ends all of them and the namespaces go with
//! them. From within the cell neither processes nor network namespaces of the host can be seen or reached.

mod brief;
mod canary;
mod cell;
mod figures;
mod ledger;
mod network;
mod outside;
mod overlay;
mod run;
mod scenario;
mod schedule;
mod second;
mod stage;

pub use brief::Failure;
pub use canary::serve as canary;
pub use cell::enter as cell;
pub use figures::Figures;
pub use ledger::{DrillStanding, KeepDrillsError, Kept, Ledger, Standing};
pub use run::{Ground, Held, RunDrillError, policy_in_force, run};
pub use scenario::{Drill, LoadDrillError, load, names};
pub use schedule::Schedule;
pub use stage::serve as stage;
