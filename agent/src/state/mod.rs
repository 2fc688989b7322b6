//! Enters: documents that must survive a crash. Leaves: the same, or the last ones that were whole.
//! Must not know: how documents arrive (`sync`) or what they do (`daemon`).

mod policy;
mod store;

pub use policy::{
    LoadPolicyError, LoadedPolicy, PolicyOrigin, adopt_policy, check_writers, load_anchors,
    load_policy, read_sealed_policy,
};
pub use store::{StoreError, private_dir, remove, write_atomically};
