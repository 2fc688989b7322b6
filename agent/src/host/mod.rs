//! Facts about this host: its interfaces, the program behind a flow, the place of a remote end.
//!
//! Enters: the kernel's and procfs' view, an operator's MMDB file. Leaves: plain facts, absent ones as `None`.
//! Must not know: detectors, policy, containments, the collector.

pub mod geoip;
pub mod interfaces;
pub mod owner;
pub mod recent;
