//! Enters: files of what hosts learned, of baselines, certificates and calendars. Leaves: the same as
//! documents, believed only as far as their seal reaches. Must not know: verbs, the engine's loop, the network.

mod files;
mod jobs;

pub use files::{
    BASELINE_FILE, BaselineFileError, CERTIFICATE_FILE, LEARNED_FILE, adopt, read_baseline,
    read_calendar, read_certificate, read_learned, write_learned, write_sealed,
};
pub use jobs::{Job, jobs};
