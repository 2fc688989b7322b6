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
    group: Option<Group>,
    /// When whoever is on duty was last told of the fuse of hosts, and of the other.
    paged: [Option<Timestamp>; 2],
}

/// What the collector told of the whole group.
#[derive(Clone, Copy, Debug)]
struct Group {
    count: u32,
    since: Timestamp,
    told_at: Timestamp,
}

impl Budget {
    /// Whether another containment of this scope may begin.
    pub(crate) fn allows(&self, scope: &Scope, limit: &policy::Budget, now: Timestamp) -> bool {
        if !is_of_host(scope) {
            return recent(&self.destinations, now) < limit.destination_cuts_per_hour as usize;
        }
        let own = recent(&self.hosts, now);
        own < limit.host_cuts_per_hour as usize
            && self.in_group(own, now) < limit.group_host_cuts_per_hour as usize
    }

    /// Cuts of hosts in the group as far as is known; those of this host since the collector told are not in its count.
    fn in_group(&self, own: usize, now: Timestamp) -> usize {
        match self.group.filter(|group| now.since(group.since) < WINDOW) {
            None => own,
            Some(group) => {
                let since = self.hosts.iter().filter(|at| **at > group.told_at).count();
                (group.count as usize).saturating_add(since).max(own)
            }
        }
    }

    /// Takes in how many cuts of hosts began in the group since a time.
    pub(crate) const fn adopt_group(&mut self, count: u32, since: Timestamp, now: Timestamp) {
        self.group = Some(Group { count, since, told_at: now });
    }

    /// Moves what was spent with a clock that was set: otherwise an hour would last as long as the step.
    pub(crate) fn shift(&mut self, step: Span) {
        let paged = self.paged.iter_mut().flatten();
        let group = self.group.iter_mut().flat_map(|group| [&mut group.since, &mut group.told_at]);
        for at in self.hosts.iter_mut().chain(&mut self.destinations).chain(paged).chain(group) {
            *at = at.after(step);
        }
    }

    /// Notes that a containment of this scope began.
    pub(crate) fn spend(&mut self, scope: &Scope, now: Timestamp) {
        let spent = if is_of_host(scope) { &mut self.hosts } else { &mut self.destinations };
        while spent.front().is_some_and(|at| now.since(*at) >= WINDOW) {
            spent.pop_front();
        }
        spent.push_back(now);
    }

    /// Whether whoever is on duty is to be told that the fuse for this scope has blown: once an hour.
    pub(crate) fn pages(&mut self, scope: &Scope, now: Timestamp) -> bool {
        let [hosts, others] = &mut self.paged;
        let paged = if is_of_host(scope) { hosts } else { others };
        let is_due = paged.is_none_or(|at| now.since(at) >= WINDOW);
        if is_due {
            *paged = Some(now);
        }
        is_due
    }
}

/// Whether a cut of this scope takes a whole host away; an inside host's gateway sees it as a level 4.
pub(crate) const fn is_of_host(scope: &Scope) -> bool {
    scope.level() >= HOST_LEVEL || matches!(scope, Scope::Internal(_))
}

fn recent(spent: &VecDeque<Timestamp>, now: Timestamp) -> usize {
    spent.iter().rev().take_while(|at| now.since(**at) < WINDOW).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);

    fn limit(host: u32, destination: u32, group: u32) -> policy::Budget {
        policy::Budget {
            host_cuts_per_hour: host,
            destination_cuts_per_hour: destination,
            group_host_cuts_per_hour: group,
        }
    }

    #[test]
    fn a_budget_is_whole_again_after_an_hour() {
        let limit = limit(1, 2, 3);
        let mut budget = Budget::default();
        assert!(budget.allows(&Scope::Host, &limit, START));
        budget.spend(&Scope::Host, START);
        assert!(!budget.allows(&Scope::Host, &limit, START));
        assert!(!budget.allows(&Scope::ManagementOnly, &limit, START));
        assert!(!budget.allows(&Scope::Internal("10.0.0.9".into()), &limit, START));
        assert!(budget.allows(&Scope::Destination([203, 0, 113, 9].into()), &limit, START));
        assert!(!budget.allows(&Scope::Host, &limit, START.after(Span::from_secs(3599))));
        assert!(budget.allows(&Scope::Host, &limit, START.after(Span::from_secs(3600))));
    }

    #[test]
    fn a_budget_of_nothing_allows_nothing() {
        let limit = limit(0, 0, 0);
        assert!(!Budget::default().allows(&Scope::Host, &limit, Timestamp::EPOCH));
    }

    #[test]
    fn what_the_group_spent_counts_for_its_hour_and_own_cuts_are_counted_once() {
        let limit = limit(9, 9, 3);
        let later = |seconds| START.after(Span::from_secs(seconds));
        let mut budget = Budget::default();
        budget.spend(&Scope::Host, START);
        // The collector has seen that one and another host's.
        budget.adopt_group(2, START, later(10));
        assert!(budget.allows(&Scope::Host, &limit, later(11)));
        budget.spend(&Scope::Host, later(11));
        assert!(!budget.allows(&Scope::Host, &limit, later(12)));
        assert!(budget.allows(&Scope::Host, &limit, later(3601)));
    }

    #[test]
    fn a_blown_fuse_is_told_once_an_hour() {
        let mut budget = Budget::default();
        let destination = Scope::Destination([203, 0, 113, 9].into());
        assert!(budget.pages(&Scope::Host, START) && budget.pages(&destination, START));
        assert!(!budget.pages(&Scope::Host, START.after(Span::from_secs(3599))));
        assert!(budget.pages(&Scope::Host, START.after(Span::from_secs(3600))));
    }
}
