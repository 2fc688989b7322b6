//! What full tables had to let go.

use super::Episodes;
use crate::learn::space_saving::SpaceSaving;

const fn gone<K, V>(table: &SpaceSaving<K, V>) -> u64 {
    table.evicted().saturating_add(table.refused())
}

impl Episodes {
    /// Keys that had to leave full tables, or found no place in them.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        gone(&self.table)
            .saturating_add(gone(&self.envelopes))
            .saturating_add(gone(&self.names))
            .saturating_add(gone(&self.echoes))
            .saturating_add(gone(&self.adopters))
            .saturating_add(gone(&self.bound))
            .saturating_add(gone(&self.calls))
            .saturating_add(self.odd_evicted)
            .saturating_add(self.crossed.lost())
    }
}

/// Keys that give way within an hour, from which on it is a flood: a sixteenth of the table.
pub(super) const fn flood_of(capacity: usize) -> u64 {
    (capacity / 16) as u64 + 16
}
