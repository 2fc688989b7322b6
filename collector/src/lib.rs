//! The Sekisho collector: policy out, findings in, a person told.
//!
//! Agents speak HTTP/2 over mutual TLS; what they report is on disk before they are told so.
//! Policies are sealed with a key that is never here: a collector can withhold one, not forge one.

pub mod authority;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dir;
pub mod learning;
pub mod page;
pub mod policy;
pub mod secret;
pub mod server;
pub mod store;
