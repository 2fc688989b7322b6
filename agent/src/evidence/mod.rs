//! What was on the wire before a match, and who sent it: kept for people, hashed, bounded.
//!
//! Enters: every frame that was read, and the findings that cut. Leaves: one pcapng file for each with the frames
//! about the remote end, the first contact among them, and a record with its hash and the processes behind it.
//! Must not know: how anything was decided or cut.

mod pcapng;
mod ring;
mod store;
mod tree;

pub use pcapng::pcapng;
pub use ring::{Glance, Kept, Recent, Selection};
pub use store::{Freeze, Store};
pub use tree::tree;
