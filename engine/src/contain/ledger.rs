//! The ledger: the containments that are active, their leases, and their generation.

use sekisho_schema::{Containment, ContainmentId, ContainmentSet, Measure, Scope, Span, Timestamp};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What a containment is made from.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    pub(crate) scope: Scope,
    pub(crate) since: Timestamp,
    pub(crate) lease: Span,
    pub(crate) cause: String,
    pub(crate) finding: Option<String>,
    pub(crate) by: Option<String>,
    pub(crate) measure: Measure,
}

/// Active containments and those that the mode withheld.
#[derive(Debug)]
pub(crate) struct Ledger {
    host: String,
    capacity: usize,
    set: ContainmentSet,
    /// Asked before every frame, so it is kept and not searched.
    next_end: Option<Timestamp>,
    /// What would be cut if the mode let it: so that one withheld cut keeps one name.
    withheld: BTreeMap<Scope, (ContainmentId, Timestamp)>,
    withheld_total: u64,
}

impl Ledger {
    pub(crate) fn new(host: &str, capacity: usize) -> Self {
        Self {
            host: host.to_owned(),
            capacity,
            set: ContainmentSet::default(),
            next_end: None,
            withheld: BTreeMap::new(),
            withheld_total: 0,
        }
    }

    pub(crate) const fn set(&self) -> &ContainmentSet {
        &self.set
    }

    pub(crate) fn has_room(&self) -> bool {
        self.set.containments.len() < self.capacity
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.set.containments.is_empty()
    }

    /// Containments withheld so far, each counted once for the time of its lease.
    pub(crate) const fn withheld_total(&self) -> u64 {
        self.withheld_total
    }

    /// The containment of exactly this scope, or a wider one that lasts as long.
    pub(crate) fn covering(&self, scope: &Scope, until: Timestamp) -> Option<ContainmentId> {
        let active = self.set.containments.values();
        let same = active.clone().find(|held| held.scope == *scope);
        let wider =
            || active.clone().find(|held| held.until >= until && is_wider(&held.scope, scope));
        same.or_else(wider).map(|held| held.id.clone())
    }

    /// The containment of exactly this scope.
    pub(crate) fn same(&self, scope: &Scope) -> Option<ContainmentId> {
        self.set.containments.values().find(|held| held.scope == *scope).map(|held| held.id.clone())
    }

    /// The name that a containment of this scope, begun at this time, has.
    pub(crate) fn name(&self, scope: &Scope, since: Timestamp) -> ContainmentId {
        let parts = [self.host.clone(), scope.to_string(), since.nanos().to_string()];
        ContainmentId(short_name("c-", parts.iter().map(String::as_str)))
    }

    /// Begins a containment.
    pub(crate) fn begin(&mut self, cut: Cut) -> Containment {
        let id = self.name(&cut.scope, cut.since);
        let containment = Containment {
            id: id.clone(),
            level: cut.scope.level_of(cut.measure),
            scope: cut.scope,
            since: cut.since,
            until: cut.since.after(cut.lease),
            cause: cut.cause,
            finding: cut.finding,
            by: cut.by,
            measure: cut.measure,
            trial_until: None,
        };
        self.set.containments.insert(id.clone(), containment.clone());
        self.turn();
        containment
    }

    /// Lets a containment last until a later time; `None` when it already lasts as long.
    pub(crate) fn prolong(&mut self, id: &ContainmentId, until: Timestamp) -> Option<Containment> {
        let held = self.set.containments.get_mut(id).filter(|held| held.until < until)?;
        held.until = until;
        let held = held.clone();
        self.turn();
        Some(held)
    }

    /// Takes over a containment that the kernel was found to hold.
    pub(crate) fn adopt(&mut self, containment: Containment) {
        self.set.containments.insert(containment.id.clone(), containment);
        self.turn();
    }

    /// Ends a containment before its lease ends.
    pub(crate) fn release(&mut self, id: &ContainmentId) -> Option<Containment> {
        let released = self.set.containments.remove(id)?;
        self.turn();
        Some(released)
    }

    /// When the next lease ends.
    pub(crate) const fn next_end(&self) -> Option<Timestamp> {
        self.next_end
    }

    /// Ends every containment whose lease is over.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<Containment> {
        let over: Vec<_> = self
            .set
            .containments
            .values()
            .filter(|held| held.until <= now)
            .map(|held| held.id.clone())
            .collect();
        if over.is_empty() {
            return Vec::new();
        }
        let ended = over.iter().filter_map(|id| self.set.containments.remove(id)).collect();
        self.turn();
        ended
    }

    /// Moves every end with a clock that was set.
    pub(crate) fn shift(&mut self, step: Span) {
        if self.is_empty() {
            return;
        }
        for held in self.set.containments.values_mut() {
            held.until = held.until.after(step);
        }
        self.turn();
    }

    /// The set changed: the next generation.
    fn turn(&mut self) {
        self.set.generation += 1;
        self.next_end = self.set.containments.values().map(|held| held.until).min();
    }

    /// Names the containment that would have been made.
    pub(crate) fn withhold(&mut self, scope: &Scope, now: Timestamp, lease: Span) -> ContainmentId {
        if let Some((id, until)) = self.withheld.get(scope)
            && now < *until
        {
            return id.clone();
        }
        let id = self.name(scope, now);
        self.withheld.retain(|_, (_, until)| now < *until);
        if self.withheld.len() < self.capacity {
            self.withheld.insert(scope.clone(), (id.clone(), now.after(lease)));
        }
        self.withheld_total += 1;
        id
    }
}

/// Whether a cut of `held` cuts all that a cut of `asked` would.
const fn is_wider(held: &Scope, asked: &Scope) -> bool {
    matches!(
        (held, asked),
        (Scope::Host, Scope::Destination(_))
            | (Scope::ManagementOnly, Scope::Destination(_) | Scope::Host)
    )
}

/// Twelve hexadecimal digits of a hash over parts that can't run into each other.
pub(crate) fn short_name<'a>(prefix: &str, parts: impl Iterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digits = hash.finalize();
    let mut name = prefix.to_owned();
    for byte in digits.iter().take(6) {
        for digit in [byte >> 4, byte & 0xF] {
            name.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);

    fn cut(scope: Scope, lease: Span) -> Cut {
        Cut {
            scope,
            since: NOW,
            lease,
            cause: "plugx.tcp".into(),
            finding: None,
            by: None,
            measure: Measure::Cut,
        }
    }

    fn destination() -> Scope {
        Scope::Destination([203, 0, 113, 9].into())
    }

    #[test]
    fn a_containment_has_the_same_name_wherever_it_is_worked_out() {
        let mut a = Ledger::new("web-1", 8);
        let b = Ledger::new("web-1", 8);
        let id = a.begin(cut(Scope::Host, Span::from_hours(1))).id;
        assert_eq!(id, b.name(&Scope::Host, NOW));
        assert!(id.0.len() == 14 && id.0.starts_with("c-"));
        assert_ne!(id, Ledger::new("web-2", 8).name(&Scope::Host, NOW));
    }

    #[test]
    fn a_cut_of_the_host_covers_a_destination_only_as_long_as_it_lasts() {
        let mut ledger = Ledger::new("web-1", 8);
        ledger.begin(cut(Scope::Host, Span::from_hours(1)));
        assert!(ledger.covering(&destination(), NOW.after(Span::from_hours(1))).is_some());
        assert!(ledger.covering(&destination(), NOW.after(Span::from_hours(2))).is_none());
        assert!(ledger.covering(&Scope::Host, NOW.after(Span::from_hours(2))).is_some());
        assert!(ledger.covering(&Scope::ManagementOnly, NOW).is_none());
    }

    #[test]
    fn a_lease_is_prolonged_and_never_shortened() {
        let mut ledger = Ledger::new("web-1", 8);
        let id = ledger.begin(cut(destination(), Span::from_hours(2))).id;
        assert!(ledger.prolong(&id, NOW.after(Span::from_hours(1))).is_none());
        assert_eq!(ledger.set().generation, 1);
        let until = NOW.after(Span::from_hours(3));
        assert_eq!(ledger.prolong(&id, until).map(|held| held.until), Some(until));
        assert_eq!((ledger.set().generation, ledger.next_end()), (2, Some(until)));
    }

    #[test]
    fn a_withheld_cut_keeps_its_name_until_its_lease_would_have_ended() {
        let mut ledger = Ledger::new("web-1", 8);
        let lease = Span::from_hours(1);
        let first = ledger.withhold(&Scope::Host, NOW, lease);
        let again = ledger.withhold(&Scope::Host, NOW.after(Span::from_secs(60)), lease);
        let later = ledger.withhold(&Scope::Host, NOW.after(lease), lease);
        assert_eq!(first, again);
        assert_ne!(first, later);
        assert_eq!(ledger.withheld_total(), 2);
    }
}
