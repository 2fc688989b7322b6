//! Enters: what the flow stage observed about destinations. Leaves: the baseline, the destinations
//! that are usual here, and whether it may be believed. Must not know: indicators, policy's
//! decisions, containments.

mod baseline;
mod bounded;
mod destinations;
mod traffic;
mod week;

pub use baseline::{BASELINE_SCHEMA, Baseline, LearnedDestination};
pub(crate) use bounded::Bounded;
pub(crate) use destinations::Destinations;
pub use destinations::{DestinationKey, Remote, registered_name};
pub(crate) use traffic::Ended;
pub use traffic::FlowEnd;
pub(crate) use week::{Week, day_of};
