//! Enters: frames in the order of their capture. Leaves: [`Observation`]s, the facts of flows and
//! names, told to one observer. Must not know: what is normal, what is hostile, what policy says.

mod datagram;
mod deadlines;
mod dns;
mod early;
mod entry;
mod fifo;
mod heads;
mod names;
mod observation;
mod perimeter;
mod reader;
mod stream;
pub(crate) mod table;
mod teller;
pub(crate) mod text;
mod totals;
mod tracker;

pub use observation::{
    Appetite, FlowFacts, NameSource, Observation, ObservationKind, Route, Toward,
};
pub use perimeter::Perimeter;
pub use totals::Totals;
pub use tracker::{AHEAD, Tracker};

#[cfg(test)]
mod tests;
