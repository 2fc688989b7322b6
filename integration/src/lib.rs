//! A laboratory of network namespaces: real kernel, real packets, the real binaries.
//!
//! In come a topology and the programs that live in it; out come what crossed the wire, what the
//! kernel holds, and what the agent and the collector say about it. The laboratory must not know
//! how the engine recognises anything: its intruder is written from the published protocol alone.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a laboratory fails loudly"
)]

pub mod actors;
pub mod evaluate;
pub mod lab;
pub mod measure;
pub mod story;

pub use lab::agent::{Agent, AgentSetup, PolicyText};
pub use lab::collector::Collector;
pub use lab::kernel::Ruleset;
pub use lab::node::{Actor, Node};
pub use lab::probe::{Probe, Through};
pub use lab::topology::Network;
pub use lab::wait::{wait_for, wait_until};
pub use lab::{Lab, matrix, pcapfile, topology};
