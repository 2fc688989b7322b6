//! Enters: the journal's lines, the agent's state, what it learned, the collector's notices. Leaves: acknowledged
//! lines, policies, orders, baselines and certificates whose seal held, confirmations of trials. Must not know: packets, the kernel, the engine. Whatever
//! happens here, the cut does not wait for it.

mod backoff;
mod client;
mod enrol;
mod http;
mod identity;
mod learning;
mod notices;
mod orders;
mod renewal;
mod tls;

pub use client::{Heartbeat, Hooks, SyncState, run};
pub use enrol::{EnrolError, Enrolled, enrol};
pub use http::{HttpError, Link};
pub use identity::{Identity, IdentityError};
pub use orders::{OrderError, OrderOutcome, Places, load_operators};
pub use renewal::{RenewError, Validity, renew};
pub use tls::{Pin, TlsError, client_config, pinned_config};
