//! Placeholder, replaced as the crate is built.
pub mod plugx;
