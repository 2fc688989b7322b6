//! Enters: decisions to cut, orders to cut and to release, the passing of time. Leaves: the whole
//! set that the kernel shall hold, by generation, and how each containment ended. Must not know:
//! why anything was decided, or how the kernel holds it.

mod leak;
mod ledger;

pub use leak::Leak;
pub(crate) use leak::Leaks;
pub(crate) use ledger::{Cut, Ledger, short_name};
