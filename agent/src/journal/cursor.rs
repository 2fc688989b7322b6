//! How far the collector has acknowledged.

use crate::state::{StoreError, write_atomically};
use serde::{Deserialize, Serialize};
use std::path::Path;

const FILE: &str = "cursor.json";

/// Everything up to and with `seq` of `boot`, and every segment before `segment`, is at the collector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Number of the segment that the cursor stands in.
    pub segment: u64,
    /// The boot it belongs to.
    pub boot: String,
    /// The last sequence acknowledged in that boot.
    pub seq: u64,
}

impl Cursor {
    /// The cursor of a journal; the start when there is none or it can't be read, because
    /// sending twice does no harm.
    #[must_use]
    pub fn load(dir: &Path) -> Self {
        std::fs::read_to_string(dir.join(FILE))
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default()
    }

    /// Writes the cursor so that a crash leaves the old or the new one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn store(&self, dir: &Path) -> Result<(), StoreError> {
        let text = serde_json::to_string(self).unwrap_or_default();
        write_atomically(&dir.join(FILE), text.as_bytes(), 0o600)
    }
}
