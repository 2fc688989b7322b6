//! The agent: what a host runs to see its outbound traffic, cut it, prove the cut and tell.
//!
//! Folders are rooms with one job each; `daemon` wires them and names every thread and channel.

pub mod baseline;
pub mod bpf;
pub mod capture;
pub mod chain;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod drill;
pub mod enforce;
pub mod evidence;
pub mod guardian;
pub mod host;
pub mod journal;
pub mod logging;
pub mod metrics;
pub(crate) mod netlink;
pub mod preview;
pub mod queue;
mod realtime;
pub mod rules;
pub mod state;
pub mod sync;
pub mod target;
