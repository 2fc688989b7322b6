//! What others compute of the same traffic, written anew from their published descriptions.
//!
//! In come connections as a log of flows has them; out come the others' scores. Nothing here knows
//! how this product judges.

pub mod elastic;
pub mod rita;

use super::fleet::{Connection, HOUR};

/// Seconds after the beginning of an episode at which scores are read; the others' first hour is the fourth.
pub const CHECKPOINTS: [f64; 19] = [
    300.0,
    0.25 * HOUR,
    0.5 * HOUR,
    HOUR,
    2.0 * HOUR,
    3.0 * HOUR,
    4.0 * HOUR,
    6.0 * HOUR,
    8.0 * HOUR,
    12.0 * HOUR,
    18.0 * HOUR,
    24.0 * HOUR,
    36.0 * HOUR,
    48.0 * HOUR,
    72.0 * HOUR,
    96.0 * HOUR,
    120.0 * HOUR,
    144.0 * HOUR,
    168.0 * HOUR,
];

/// Connections that began in `[from, to]`.
#[must_use]
pub fn between(connections: &[Connection], from: f64, to: f64) -> &[Connection] {
    let low = connections.partition_point(|connection| connection.at < from);
    let high = connections.partition_point(|connection| connection.at <= to);
    connections.get(low..high).unwrap_or(&[])
}

/// Mean and standard deviation of a population; zeros for an empty one.
pub(crate) fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}
