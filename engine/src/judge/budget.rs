//! The fuse: how many containments may begin by themselves within any hour.

use sekisho_schema::policy;
use sekisho_schema::{Scope, Span, Timestamp};
use std::collections::VecDeque;

const WINDOW: Span = Span::from_hours(1);
/// Level from which a cut counts as one of a host.
const HOST_LEVEL: u8 = 5;

/// When automatic containments began, as far as the last hour needs it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Budget {
    hosts: VecDeque<Timestamp>,
    destinations: VecDeque<Timestamp>,
}

impl Budget {
    /// Whether another containment of this scope may begin.
    pub(crate) fn allows(&self, scope: &Scope, limit: &policy::Budget, now: Timestamp) -> bool {
        let (spent, limit) = if scope.level() >= HOST_LEVEL {
            (&self.hosts, limit.host_cuts_per_hour)
        } else {
            (&self.destinations, limit.destination_cuts_per_hour)
        };
        let recent = spent.iter().rev().take_while(|at| now.since(**at) < WINDOW).count();
        recent < limit as usize
    }

    /// Moves what was spent with a clock that was set: otherwise an hour would last as long as the step.
    pub(crate) fn shift(&mut self, step: Span) {
        for at in self.hosts.iter_mut().chain(&mut self.destinations) {
            *at = at.after(step);
        }
    }

    /// Notes that a containment of this scope began.
    pub(crate) fn spend(&mut self, scope: &Scope, now: Timestamp) {
        let spent =
            if scope.level() >= HOST_LEVEL { &mut self.hosts } else { &mut self.destinations };
        while spent.front().is_some_and(|at| now.since(*at) >= WINDOW) {
            spent.pop_front();
        }
        spent.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_whole_again_after_an_hour() {
        let limit = policy::Budget { host_cuts_per_hour: 1, destination_cuts_per_hour: 2, group_host_cuts_per_hour: 3 };
        let start = Timestamp::from_nanos(1_780_000_000_000_000_000);
        let mut budget = Budget::default();
        assert!(budget.allows(&Scope::Host, &limit, start));
        budget.spend(&Scope::Host, start);
        assert!(!budget.allows(&Scope::Host, &limit, start));
        assert!(!budget.allows(&Scope::ManagementOnly, &limit, start));
        assert!(budget.allows(&Scope::Destination([203, 0, 113, 9].into()), &limit, start));
        assert!(!budget.allows(&Scope::Host, &limit, start.after(Span::from_secs(3599))));
        assert!(budget.allows(&Scope::Host, &limit, start.after(Span::from_secs(3600))));
    }

    #[test]
    fn a_budget_of_nothing_allows_nothing() {
        let limit = policy::Budget { host_cuts_per_hour: 0, destination_cuts_per_hour: 0, group_host_cuts_per_hour: 0 };
        assert!(!Budget::default().allows(&Scope::Host, &limit, Timestamp::EPOCH));
    }
}
