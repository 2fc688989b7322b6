//! Enters: signals, the policy, the exemptions, what is contained already, what was spent. Leaves:
//! a verdict (what is believed and what the policy wants for it) and a decision (what is done now).
//! Must not know: how a cut is made, or how it is told.

mod approved;
mod assess;
mod budget;
pub(crate) mod decide;
mod exemption;

pub(crate) use self::approved::Approved;
pub(crate) use self::assess::{
    DESTINATION, HOST, MANAGEMENT_ONLY, Verdict, WORKLOAD, Wanted, Whose, Workload, assess,
};
pub(crate) use self::budget::{Budget, is_of_host};
pub(crate) use self::decide::{Decision, Proposal};
pub(crate) use self::exemption::{Exemptions, Leaving};
