//! Enters: what channels said of episodes, and what people approved. Leaves: thresholds with a
//! promise behind them, and what a score may do under it. Must not know: packets, flows, policy's
//! decisions, containments.

pub mod authority;
pub mod bound;
pub mod cluster;
pub mod coverage;
pub mod drift;
pub mod episode;
pub mod governor;
pub mod recorder;
pub mod replay;
pub mod report;
pub mod review;
#[cfg(test)]
mod sample;
pub mod season;
pub mod sentence;
pub mod tails;
pub mod threshold;

pub use authority::{Authority, AuthorityState, FleetWord};
pub use drift::DriftGuard;
pub use episode::{
    Channel, DestinationKey, EpisodeKey, EpisodeScore, PortClass, ScoreInputs, Service, Tier,
    Workload,
};
pub use governor::Governor;
