//! Enters: decisions to cut, orders to cut and to release, owners of flows, the passing of time.
//! Leaves: the whole set that the kernel shall hold, by generation, how each containment ended, and
//! which actor tried other ways. Must not know: why anything was decided, or how the kernel holds it.

mod actors;
mod asked;
mod leak;
mod ledger;

pub(crate) use actors::{Actors, Note};
pub(crate) use asked::{Origin, Wait, Want};
pub use leak::Leak;
pub(crate) use leak::Leaks;
pub(crate) use ledger::{Cut, Ledger, short_name};
