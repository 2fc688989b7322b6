//! Protocols that are not what their port says. Enters: observations. Leaves: signals. Must not
//! know: policy, modes, cuts.

mod encrypted;
mod mismatch;

use super::registry::Registration;

/// The detectors of this family.
pub(super) const DETECTORS: &[Registration] = &[encrypted::REGISTRATION, mismatch::REGISTRATION];
