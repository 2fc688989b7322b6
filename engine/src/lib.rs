//! Placeholder root, replaced as the crate is built.
pub mod app;
pub mod detect;
pub mod wire;
