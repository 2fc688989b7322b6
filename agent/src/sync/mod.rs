//! Enters: the journal's lines, the agent's state, the collector's notices. Leaves: acknowledged
//! lines, policies whose seal held. Must not know: packets, the kernel, the engine. Whatever
//! happens here, the cut does not wait for it.

mod backoff;
mod client;
mod enrol;
mod http;
mod identity;
mod notices;
mod tls;

pub use client::{Heartbeat, Hooks, SyncState, run};
pub use enrol::{EnrolError, Enrolled, enrol};
pub use http::{HttpError, Link};
pub use identity::{Identity, IdentityError};
pub use tls::{Pin, TlsError, client_config, pinned_config};
