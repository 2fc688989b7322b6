//! What the agent lays down once the guardian has it.

use rustix::thread::{
    CapabilitySet, capabilities, remove_capability_from_bounding_set, set_capabilities,
};

/// Why CAP_NET_ADMIN could not be laid down.
#[derive(Debug, thiserror::Error)]
#[error("cannot lay down CAP_NET_ADMIN; the agent would keep more power than it needs")]
pub struct ShedError(#[source] std::io::Error);

/// Whether this thread could hand CAP_NET_ADMIN on to a guardian that it starts.
#[must_use]
pub fn has_net_admin() -> bool {
    capabilities(None).is_ok_and(|sets| sets.permitted.contains(CapabilitySet::NET_ADMIN))
}

/// Lays CAP_NET_ADMIN down for good, for this thread, those that it will start and what they will run.
///
/// # Errors
/// [`ShedError`] when the kernel refuses.
pub fn shed_net_admin() -> Result<(), ShedError> {
    let failed = |error: rustix::io::Errno| ShedError(error.into());
    let mut sets = capabilities(None).map_err(failed)?;
    // Without CAP_SETPCAP the bounding set is as whoever started us left it; under systemd it lacks it already.
    let _ = remove_capability_from_bounding_set(CapabilitySet::NET_ADMIN);
    sets.inheritable.remove(CapabilitySet::NET_ADMIN);
    sets.effective.remove(CapabilitySet::NET_ADMIN);
    sets.permitted.remove(CapabilitySet::NET_ADMIN);
    set_capabilities(None, sets).map_err(failed)
}
