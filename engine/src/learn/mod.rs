//! Enters: what the flow stage observed about destinations. Leaves: the baseline, the destinations
//! that are usual here, and whether it may be believed. Must not know: indicators, policy's
//! decisions, containments.

pub mod allowance;
pub mod approved;
mod baseline;
mod bounded;
mod destinations;
pub mod dns;
mod episodes;
pub mod fanout;
pub mod host_budget;
pub mod icmp;
mod keep;
mod least;
pub mod oddity;
pub mod persistence;
pub mod rhythm;
mod space_saving;
pub mod staging;
mod traffic;
mod week;

pub use crate::app::registered_name;
pub use baseline::{BASELINE_SCHEMA, Baseline, LearnedDestination};
pub(crate) use bounded::Bounded;
pub(crate) use destinations::{DestinationAt, Destinations, RemoteAt};
pub use destinations::{DestinationKey, Remote};
pub(crate) use episodes::Regard;
pub use episodes::{
    AsnOf, EpisodeSettings, Episodes, RestoreEpisodesError, Saving, Told, Unlocked, What,
};
pub(crate) use traffic::Ended;
pub use traffic::FlowEnd;
pub(crate) use week::{Week, day_of};

/// A registered name as it is kept: nearly all lie within.
type Name = crate::flow::text::Text<22>;
