//! Enters: files of what hosts learned, of baselines, certificates and calendars. Leaves: the same as
//! documents, believed only as far as their seal reaches. Must not know: verbs, the engine's loop, the network.

mod adopted;
mod files;
mod jobs;
mod kept;

pub use adopted::adopt;
pub use files::{
    BASELINE_FILE, BaselineFileError, CERTIFICATE_FILE, LEARNED_FILE, NOT_SEALED, open_baseline,
    open_certificate, read_baseline, read_calendar, read_certificate, read_learned, write_learned,
    write_sealed,
};
pub use jobs::{Job, jobs};
pub use kept::{
    AUTHORITY_FILE, Kept, LEARNING_FILE, read_authority, read_kept, set_aside, write_authority,
    write_kept,
};
