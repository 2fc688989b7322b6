//! From a verdict to a decision. The only file that asks for the mode: learn, dry-run and enforce
//! run the same code up to here.

use super::assess::{Verdict, Wanted};
use super::{Budget, Exemptions};
use sekisho_schema::{ContainmentId, Measure, Mode, Policy, Reason, Scope, Span, Timestamp};

/// What is done now.
#[must_use]
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    /// Cut, and say why it is less than was wanted if it is.
    Contain(Proposal, Option<Reason>),
    /// The scope is cut already; its lease may be prolonged.
    Held {
        /// The containment that covers the scope.
        by: ContainmentId,
        /// What was wanted.
        proposal: Proposal,
        /// Whether the lease may be prolonged: what withholds a cut withholds that too.
        may_prolong: bool,
        /// Whether the fuse made it less than was wanted.
        is_degraded: bool,
    },
    /// Nothing is to be cut for such a finding.
    Record,
    /// A cut was due and is withheld.
    Withhold(Proposal, Reason),
}

/// A cut that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub(crate) scope: Scope,
    pub(crate) measure: Measure,
    pub(crate) lease: Span,
}

impl Proposal {
    /// Step of the ladder.
    pub(crate) const fn level(&self) -> u8 {
        self.scope.level_of(self.measure)
    }
}

/// What already cuts a scope, so held or stronger, until a time.
pub(crate) type Covering<'a> = dyn Fn(&Scope, Measure, Timestamp) -> Option<ContainmentId> + 'a;

/// What a decision rests on besides the verdict.
pub(crate) struct Circumstances<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) exemptions: &'a Exemptions,
    /// The containment that already covers a scope.
    pub(crate) covering: &'a Covering<'a>,
    /// Whether another containment can be held.
    pub(crate) has_room: bool,
    pub(crate) budget: &'a Budget,
    /// Whether a cut can be held here.
    pub(crate) enforcement: Result<(), &'a str>,
    pub(crate) now: Timestamp,
}

/// What keeps every automatic and every ordered cut from being made.
pub(crate) fn withholding(mode: Mode, enforcement: Result<(), &str>) -> Option<Reason> {
    match (mode, enforcement) {
        (Mode::Learn, _) => Some(Reason::Learn),
        (Mode::DryRun, _) => Some(Reason::DryRun),
        (Mode::Enforce, Err(_)) => Some(Reason::CannotEnforce),
        (Mode::Enforce, Ok(())) => None,
    }
}

/// The mode that this host can keep.
pub(crate) const fn effective(requested: Mode, can_enforce: bool) -> Mode {
    match requested {
        Mode::Enforce if !can_enforce => Mode::DryRun,
        requested => requested,
    }
}

/// Whether the mode builds the baseline without end.
pub(crate) const fn keeps_learning(mode: Mode) -> bool {
    matches!(mode, Mode::Learn)
}

/// Decides on a verdict. The first that applies: exemption, already cut, mode, budget.
pub(crate) fn decide(verdict: &Verdict, around: &Circumstances<'_>) -> Decision {
    let Some(Wanted { scope, measure, lease, .. }) = &verdict.wanted else {
        return Decision::Record;
    };
    let proposal = Proposal { scope: scope.clone(), measure: *measure, lease: *lease };
    if around.exemptions.forbidding(scope).is_some() {
        return Decision::Withhold(proposal, Reason::Exemption);
    }
    let withheld = withholding(around.policy.mode, around.enforcement);
    if let Some(by) = (around.covering)(scope, *measure, around.now.after(*lease)) {
        let may_prolong = withheld.is_none();
        return Decision::Held { by, proposal, may_prolong, is_degraded: false };
    }
    if let Some(reason) = withheld {
        return Decision::Withhold(proposal, reason);
    }
    if !around.has_room {
        return Decision::Withhold(proposal, Reason::Budget);
    }
    if around.budget.allows(scope, &around.policy.budget, around.now) {
        return Decision::Contain(proposal, None);
    }
    degrade(verdict, proposal, around)
}

/// The fuse: where no further host may be cut, the destination still may.
fn degrade(verdict: &Verdict, proposal: Proposal, around: &Circumstances<'_>) -> Decision {
    let smaller = verdict
        .target
        .map(Scope::Destination)
        .filter(|scope| scope.level() < proposal.scope.level())
        .filter(|scope| around.exemptions.forbidding(scope).is_none())
        .filter(|scope| around.budget.allows(scope, &around.policy.budget, around.now));
    let Some(scope) = smaller else { return Decision::Withhold(proposal, Reason::Budget) };
    let smaller = Proposal { scope, measure: Measure::Cut, lease: proposal.lease };
    match (around.covering)(&smaller.scope, smaller.measure, around.now.after(smaller.lease)) {
        Some(by) => Decision::Held { by, proposal: smaller, may_prolong: true, is_degraded: true },
        None => Decision::Contain(smaller, Some(Reason::Budget)),
    }
}
