//! The same where the program was built without the feature `ebpf`.

use super::Wanted;
use std::path::Path;

/// Why nothing is refused.
#[derive(Debug, thiserror::Error)]
pub enum DenyError {
    /// No kernel programs were built in.
    #[error("this program was built without eBPF (feature `ebpf`)")]
    NotBuilt,
}

/// Refuses raw sockets; never there in this build.
#[derive(Debug)]
pub struct Denial(std::convert::Infallible);

impl Denial {
    /// Says that there is none.
    ///
    /// # Errors
    /// Always [`DenyError::NotBuilt`].
    pub const fn open(_: &Path) -> Result<Self, DenyError> {
        Err(DenyError::NotBuilt)
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub const fn follow(&mut self, _: &Wanted) -> Result<(), DenyError> {
        match self.0 {}
    }

    /// Never called.
    #[must_use]
    pub const fn refused(&mut self) -> u64 {
        match self.0 {}
    }

    /// Never called.
    #[must_use]
    pub const fn is_pinned(&self) -> bool {
        match self.0 {}
    }
}
