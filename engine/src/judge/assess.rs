//! From a signal to a verdict: what is believed, and what the policy wants for such a belief.

use crate::detect::{Signal, Weight};
use sekisho_schema::{Grade, Policy, Scope, Span};
use std::net::IpAddr;

/// Step of the ladder that cuts one destination.
pub(super) const DESTINATION: u8 = 3;
/// Step of the ladder that cuts the host's external egress.
const HOST: u8 = 5;
/// Step of the ladder that leaves only the exemptions.
const MANAGEMENT_ONLY: u8 = 6;

/// What is believed of a subject, and what the policy wants for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) grade: Grade,
    /// The cut that the decision table wants; `None` for a mere record.
    pub(crate) wanted: Option<Wanted>,
    /// The outside address that a cut of the destination would cut, where it is known.
    pub(crate) target: Option<IpAddr>,
}

/// A line of the decision table, applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) scope: Scope,
    pub(crate) lease: Span,
}

/// Believes one signal by itself; the grades are such that a malicious one needs no second.
pub(crate) fn assess(signal: &Signal, policy: &Policy) -> Verdict {
    // What honest software shares never cuts by itself, whatever the table says.
    let may_cut = signal.weight == Weight::Decides;
    let rule = policy.rule_for(signal.detector, signal.grade).filter(|_| may_cut);
    let wanted = rule.and_then(|rule| {
        let scope = match rule.level {
            // A name that was only asked for has no address to cut yet.
            DESTINATION => Scope::Destination(signal.target?.to_canonical()),
            HOST => Scope::Host,
            MANAGEMENT_ONLY => Scope::ManagementOnly,
            _ => return None,
        };
        Some(Wanted { scope, lease: rule.lease })
    });
    Verdict { grade: signal.grade, wanted, target: signal.target.map(|t| t.to_canonical()) }
}
