//! The same where the program was built without the feature `ebpf`.

use super::Opener;
use sekisho_schema::FlowKey;

/// Why nobody remembers who opened what.
#[derive(Debug, thiserror::Error)]
pub enum RememberError {
    /// No kernel programs were built in.
    #[error("this program was built without eBPF (feature `ebpf`)")]
    NotBuilt,
}

/// Remembers who opened what; never there in this build.
#[derive(Debug)]
pub struct Openers(std::convert::Infallible);

impl Openers {
    /// Says that there is none.
    ///
    /// # Errors
    /// Always [`RememberError::NotBuilt`].
    pub const fn open() -> Result<Self, RememberError> {
        Err(RememberError::NotBuilt)
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub const fn opener(&self, _: &FlowKey) -> Result<Option<Opener>, RememberError> {
        match self.0 {}
    }
}
