//! Who is behind each containment, and what else they were seen trying while contained.

use crate::judge::Whose;
use sekisho_schema::policy::Escalation;
use sekisho_schema::{Containment, ContainmentId, ContainmentSet, Scope, Span, Timestamp};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

/// Tries remembered of one actor: more than any policy needs that can be read.
const TRIES: usize = 256;

/// What is known of a containment beside what the kernel needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Note {
    /// Whose traffic led to it, where that is known.
    pub(crate) actor: Option<Whose>,
    /// The workload that it cuts.
    pub(crate) cgroup: Option<String>,
    /// The outside address that led to it.
    pub(crate) target: Option<IpAddr>,
    /// Whether narrower containments go once it is firm.
    pub(crate) is_escalated: bool,
    /// Whether the agent's own proof showed that it does what it shall and no more; `None` without a proof yet.
    pub(crate) proof: Option<bool>,
    /// What it leaves open, in words for the receipt.
    pub(crate) open: Vec<String>,
}

/// The notes and the tries; those of ended containments go with them.
#[derive(Debug, Default)]
pub(crate) struct Actors {
    notes: BTreeMap<ContainmentId, Note>,
    tries: BTreeMap<Whose, VecDeque<(Timestamp, IpAddr)>>,
}

impl Actors {
    pub(crate) fn note(&mut self, id: &ContainmentId) -> &mut Note {
        self.notes.entry(id.clone()).or_default()
    }

    pub(crate) fn of(&self, id: &ContainmentId) -> Option<&Note> {
        self.notes.get(id)
    }

    /// Notes what the scope of an ordered or adopted containment itself says of whose it is.
    pub(crate) fn adopt(&mut self, held: &Containment) {
        let actor = match &held.scope {
            Scope::Cgroup(_) | Scope::Container(_) | Scope::Host | Scope::ManagementOnly => {
                Some(Whose::Own)
            }
            Scope::Internal(host) => host.parse().ok().map(Whose::Inside),
            Scope::Destination(_) | Scope::Link(_) => None,
        };
        let cgroup = match &held.scope {
            Scope::Cgroup(path) => Some(path.clone()),
            _ => None,
        };
        *self.note(&held.id) = Note { actor, cgroup, ..Note::default() };
    }

    pub(crate) fn forget(&mut self, id: &ContainmentId) {
        let gone = self.notes.remove(id).and_then(|note| note.actor);
        if let Some(actor) = gone
            && !self.notes.values().any(|note| note.actor == Some(actor))
        {
            self.tries.remove(&actor);
        }
    }

    /// The highest level on which an actor is contained; `None` when it is not.
    pub(crate) fn standing(&self, actor: Whose, set: &ContainmentSet) -> Option<u8> {
        let held = self.notes.iter().filter(|(_, note)| note.actor == Some(actor));
        held.filter_map(|(id, _)| set.containments.get(id)).map(|held| held.level).max()
    }

    /// Whether a workload of an actor other than this one is cut, and this one is not.
    pub(crate) fn is_other_workload(&self, actor: Whose, cgroup: &str) -> bool {
        let mut known = self
            .notes
            .values()
            .filter(|note| note.actor == Some(actor))
            .filter_map(|note| note.cgroup.as_deref())
            .peekable();
        known.peek().is_some() && known.all(|known| known != cgroup)
    }

    /// Notes that a contained actor spoke to another destination; whether it has tried often enough, and
    /// then it is counted anew.
    pub(crate) fn tries_enough(
        &mut self,
        actor: Whose,
        target: IpAddr,
        rule: &Escalation,
        now: Timestamp,
    ) -> bool {
        let is_known = |note: &Note| note.actor == Some(actor) && note.target == Some(target);
        if self.notes.values().any(is_known) {
            return false;
        }
        let tries = self.tries.entry(actor).or_default();
        while tries.front().is_some_and(|(at, _)| now.since(*at) > rule.within) {
            tries.pop_front();
        }
        if tries.iter().all(|(_, tried)| *tried != target) {
            if tries.len() >= TRIES {
                tries.pop_front();
            }
            tries.push_back((now, target));
        }
        let enough = tries.len() >= (rule.after as usize).min(TRIES);
        if enough {
            tries.clear();
        }
        enough
    }

    /// Moves every time with a clock that was set.
    pub(crate) fn shift(&mut self, step: Span) {
        for (at, _) in self.tries.values_mut().flatten() {
            *at = at.after(step);
        }
    }
}
