//! Enters: signals and the decisions on them. Leaves: findings that a person can read, with bounded
//! evidence and one sentence each. Must not know: how anything is detected, decided or cut.

mod evidence;
mod explain;
mod finding;
mod recent;

pub(crate) use finding::{Outcome, Untold, finding_name};
pub(crate) use recent::Recent;
