//! Before the network comes up: what was held when the host went down is held again for what is left of it.

use super::kept::Kept;
use crate::clock;
use crate::enforce::{ApplyError, Enforcer, NetlinkError, OpenEnforcerError};
use std::path::Path;

/// Why nothing was restored; nothing is cut.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// What was written down can't be read.
    #[error("cannot read what was held in {0}")]
    Read(std::path::PathBuf, #[source] std::io::Error),
    /// The kernel can't be spoken to.
    #[error("cannot speak with the kernel's nf_tables")]
    Netlink(#[from] NetlinkError),
    /// The ruleset could not be loaded.
    #[error("cannot load the ruleset; nothing is cut")]
    Load(#[from] OpenEnforcerError),
    /// The containments could not be put back.
    #[error("cannot put back what was held")]
    Apply(#[from] ApplyError),
}

/// What was restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Containments that are held again.
    pub containments: usize,
    /// Devices of the plan that are not there and could not be armed yet.
    pub absent_devices: usize,
}

/// Restores what is left of what was held; the tables persist for the guardian to take over.
///
/// # Errors
/// [`BootError`].
pub fn restore(state: &Path, own: bool) -> Result<Restored, BootError> {
    let kept = Kept::read(state).map_err(|error| BootError::Read(state.to_owned(), error))?;
    let Some(kept) = kept else { return Ok(Restored::default()) };
    let (mut plan, set) = kept.resume();
    if set.containments.is_empty() {
        return Ok(Restored::default());
    }
    let mut enforcer = Enforcer::open_holding(own)?;
    let mut absent_devices = 0;
    if let Err(error) = enforcer.reload(&plan) {
        // Kernels that bind chains to devices take none that is not there; the guardian arms it when it comes.
        let all = plan.uplinks.len();
        plan.uplinks.retain(|device| Path::new("/sys/class/net").join(device).exists());
        absent_devices = all - plan.uplinks.len();
        if absent_devices == 0 {
            return Err(error.into());
        }
        enforcer.reload(&plan)?;
    }
    match enforcer.apply(&set, clock::now()) {
        Ok(_) => {}
        Err(error) if error.partial().is_some() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Restored { containments: set.containments.len(), absent_devices })
}
