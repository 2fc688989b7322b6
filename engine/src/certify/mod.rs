//! Enters: what channels said of episodes, and what people approved. Leaves: thresholds with a
//! promise behind them, and whether the promise still holds. Must not know: packets, flows, policy's
//! decisions, containments.

pub mod episode;
