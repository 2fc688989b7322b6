//! The pure judgement of Sekisho: frames and documents in, containments and records out.
//!
//! The stages follow the data: [`wire`] makes packets of frames, [`app`] reads names in them,
//! [`flow`] makes observations, [`learn`] keeps what is normal, [`detect`] makes signals, the
//! judgement makes decisions, [`contain`] keeps what the kernel shall hold, the report tells it.
//! A stage imports only earlier ones; [`mod@engine`] joins them, [`mod@drive`] feeds them.
//!
//! The crate reads no clock, file, socket, environment or random number: time comes in with the
//! data, and the same inputs give the same outputs.

pub mod app;
pub mod cases;
pub mod certify;
pub mod contain;
pub mod detect;
pub mod drive;
pub mod engine;
pub mod flow;
pub mod input;
mod judge;
pub mod learn;
pub mod limits;
pub mod output;
pub mod packs;
mod report;
pub mod rules;
pub mod wire;

pub use drive::drive;
pub use engine::{Engine, EngineConfig, OrderRefused};
pub use input::{HostFact, Input};
pub use limits::Limits;
pub use output::{ContainOrder, Output};
