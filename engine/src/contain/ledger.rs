//! The ledger: the containments that are active, their leases and trials, and their generation.

use super::asked::Asked;
use sekisho_schema::{Containment, ContainmentId, ContainmentSet, Measure, Scope, Span, Timestamp};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// A trial is judged this long before its end: what becomes of it is then in the kernel before the kernel lets go.
pub(crate) const VERDICT_AHEAD: Span = Span::from_secs(1);

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
    /// How long it is on trial; zero for not at all.
    pub(crate) trial: Span,
}

/// Active containments and those that the mode withheld.
#[derive(Debug)]
pub(crate) struct Ledger {
    host: String,
    capacity: usize,
    set: ContainmentSet,
    /// Trials on which the verdict was given.
    judged: BTreeSet<ContainmentId>,
    /// Owners that were asked for.
    asked: Asked,
    /// Asked before every frame, so it is kept and not searched.
    next_end: Option<Timestamp>,
    /// What would be cut if the mode let it: so that one withheld cut keeps one name.
    withheld: BTreeMap<(Scope, Measure), (ContainmentId, Timestamp)>,
    withheld_total: u64,
}

impl Ledger {
    pub(crate) fn new(host: &str, capacity: usize, most_asked: usize) -> Self {
        Self {
            host: host.to_owned(),
            capacity,
            set: ContainmentSet::default(),
            judged: BTreeSet::new(),
            asked: Asked::new(most_asked),
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

    pub(crate) fn held(&self, id: &ContainmentId) -> Option<&Containment> {
        self.set.containments.get(id)
    }

    /// Containments withheld so far, each counted once for the time of its lease.
    pub(crate) const fn withheld_total(&self) -> u64 {
        self.withheld_total
    }

    /// The containment of exactly this scope, held so; or a stronger or wider one that lasts as long.
    pub(crate) fn covering(
        &self,
        scope: &Scope,
        measure: Measure,
        until: Timestamp,
    ) -> Option<ContainmentId> {
        let stronger = |held: &&Containment| {
            held.held_until() >= until
                && (is_wider(held, scope)
                    || held.scope == *scope && strength(held.measure) > strength(measure))
        };
        let mut active = self.set.containments.values();
        self.same(scope, measure).or_else(|| active.find(stronger).map(|held| held.id.clone()))
    }

    /// The containment of exactly this scope, held alike.
    pub(crate) fn same(&self, scope: &Scope, measure: Measure) -> Option<ContainmentId> {
        let is_same = |held: &&Containment| {
            held.scope == *scope && strength(held.measure) == strength(measure)
        };
        self.set.containments.values().find(is_same).map(|held| held.id.clone())
    }

    /// A containment of exactly this scope that is held more strongly.
    pub(crate) fn stronger(&self, scope: &Scope, measure: Measure) -> Option<&Containment> {
        self.set
            .containments
            .values()
            .find(|held| held.scope == *scope && strength(held.measure) > strength(measure))
    }

    /// The containments that a firm one makes needless: all that they cut, it cuts as long.
    pub(crate) fn covered_by(&self, wider: &Containment) -> Vec<ContainmentId> {
        let is_covered = |held: &&Containment| {
            held.id != wider.id
                && held.until <= wider.held_until()
                && (is_wider(wider, &held.scope)
                    || held.scope == wider.scope
                        && strength(held.measure) < strength(wider.measure))
        };
        self.set.containments.values().filter(is_covered).map(|held| held.id.clone()).collect()
    }

    /// The name that a containment of this scope, begun at this time, has.
    pub(crate) fn name(&self, scope: &Scope, measure: Measure, since: Timestamp) -> ContainmentId {
        let mut parts = vec![self.host.clone(), scope.to_string(), since.nanos().to_string()];
        if !measure.is_cut() {
            parts.push(measure.to_string());
        }
        ContainmentId(short_name("c-", parts.iter().map(String::as_str)))
    }

    /// Begins a containment.
    pub(crate) fn begin(&mut self, cut: Cut) -> Containment {
        let id = self.name(&cut.scope, cut.measure, cut.since);
        let is_tried = cut.trial > Span::ZERO && cut.trial < cut.lease;
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
            trial_until: is_tried.then(|| cut.since.after(cut.trial)),
        };
        self.judged.remove(&id);
        self.set.containments.insert(id, containment.clone());
        self.turn();
        containment
    }

    /// Lets a containment last until a later time; `None` when it already lasts as long. A trial stays as long as it was.
    pub(crate) fn prolong(&mut self, id: &ContainmentId, until: Timestamp) -> Option<Containment> {
        let held = self.set.containments.get_mut(id).filter(|held| held.until < until)?;
        held.until = until;
        let held = held.clone();
        self.turn();
        Some(held)
    }

    /// Ends a trial well: the containment holds for its lease. `None` when it is on no trial.
    pub(crate) fn confirm(&mut self, id: &ContainmentId) -> Option<Containment> {
        let held = self.set.containments.get_mut(id)?;
        held.trial_until.take()?;
        let held = held.clone();
        self.judged.remove(id);
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

    /// When the next lease, trial or wait for an owner ends.
    pub(crate) const fn next_end(&self) -> Option<Timestamp> {
        self.next_end
    }

    /// The owners that were asked for, to be changed.
    pub(crate) fn ask<T>(&mut self, change: impl FnOnce(&mut Asked) -> T) -> T {
        let answer = change(&mut self.asked);
        self.retime();
        answer
    }

    /// Trials on which a verdict is due now; each is named once.
    pub(crate) fn verdicts_due(&mut self, now: Timestamp) -> Vec<ContainmentId> {
        let is_due = |held: &&Containment| {
            held.trial_until.is_some_and(|end| end.before(VERDICT_AHEAD) <= now)
                && !self.judged.contains(&held.id)
        };
        let held = self.set.containments.values();
        let due: Vec<_> = held.filter(is_due).map(|held| held.id.clone()).collect();
        if !due.is_empty() {
            self.judged.extend(due.iter().cloned());
            self.retime();
        }
        due
    }

    /// Ends every containment whose lease or trial is over.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<Containment> {
        let over: Vec<_> = self
            .set
            .containments
            .values()
            .filter(|held| held.held_until() <= now)
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
        self.asked.shift(step);
        if self.is_empty() {
            self.retime();
            return;
        }
        for held in self.set.containments.values_mut() {
            held.until = held.until.after(step);
            held.trial_until = held.trial_until.map(|end| end.after(step));
        }
        self.turn();
    }

    /// The set changed: the next generation.
    fn turn(&mut self) {
        self.set.generation += 1;
        let held = &self.set.containments;
        self.judged.retain(|id| held.contains_key(id));
        self.retime();
    }

    fn retime(&mut self) {
        let ends = self.set.containments.values().map(|held| {
            let verdict = held.trial_until.filter(|_| !self.judged.contains(&held.id));
            verdict
                .map_or(held.held_until(), |end| held.held_until().min(end.before(VERDICT_AHEAD)))
        });
        self.next_end = ends.chain(self.asked.next_due()).min();
    }

    /// Names the containment that would have been made.
    pub(crate) fn withhold(
        &mut self,
        scope: &Scope,
        measure: Measure,
        now: Timestamp,
        lease: Span,
    ) -> ContainmentId {
        let key = (scope.clone(), measure);
        if let Some((id, until)) = self.withheld.get(&key)
            && now < *until
        {
            return id.clone();
        }
        let id = self.name(scope, measure, now);
        self.withheld.retain(|_, (_, until)| now < *until);
        if self.withheld.len() < self.capacity {
            self.withheld.insert(key, (id.clone(), now.after(lease)));
        }
        self.withheld_total += 1;
        id
    }
}

/// Whether a cut of `held` cuts all that any hold of `asked` would.
const fn is_wider(held: &Containment, asked: &Scope) -> bool {
    matches!(
        (&held.scope, asked),
        (Scope::Host, Scope::Destination(_))
            | (Scope::ManagementOnly, Scope::Destination(_) | Scope::Host)
    )
}

/// How strongly a measure holds, whatever the scope.
const fn strength(measure: Measure) -> u8 {
    match measure {
        Measure::Observe => 0,
        Measure::Throttle { .. } => 1,
        Measure::Quota { .. } => 2,
        Measure::Cut => 3,
        Measure::Freeze => 4,
    }
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
            trial: Span::ZERO,
        }
    }

    fn destination() -> Scope {
        Scope::Destination([203, 0, 113, 9].into())
    }

    #[test]
    fn a_containment_has_the_same_name_wherever_it_is_worked_out() {
        let mut a = Ledger::new("web-1", 8, 8);
        let b = Ledger::new("web-1", 8, 8);
        let id = a.begin(cut(Scope::Host, Span::from_hours(1))).id;
        assert_eq!(id, b.name(&Scope::Host, Measure::Cut, NOW));
        assert!(id.0.len() == 14 && id.0.starts_with("c-"));
        assert_ne!(id, Ledger::new("web-2", 8, 8).name(&Scope::Host, Measure::Cut, NOW));
    }

    #[test]
    fn a_cut_of_the_host_covers_a_destination_only_as_long_as_it_lasts() {
        let mut ledger = Ledger::new("web-1", 8, 8);
        ledger.begin(cut(Scope::Host, Span::from_hours(1)));
        assert!(
            ledger.covering(&destination(), Measure::Cut, NOW.after(Span::from_hours(1))).is_some()
        );
        assert!(
            ledger.covering(&destination(), Measure::Cut, NOW.after(Span::from_hours(2))).is_none()
        );
        assert!(
            ledger.covering(&Scope::Host, Measure::Cut, NOW.after(Span::from_hours(2))).is_some()
        );
        assert!(ledger.covering(&Scope::ManagementOnly, Measure::Cut, NOW).is_none());
    }

    #[test]
    fn a_lease_is_prolonged_and_never_shortened() {
        let mut ledger = Ledger::new("web-1", 8, 8);
        let id = ledger.begin(cut(destination(), Span::from_hours(2))).id;
        assert!(ledger.prolong(&id, NOW.after(Span::from_hours(1))).is_none());
        assert_eq!(ledger.set().generation, 1);
        let until = NOW.after(Span::from_hours(3));
        assert_eq!(ledger.prolong(&id, until).map(|held| held.until), Some(until));
        assert_eq!((ledger.set().generation, ledger.next_end()), (2, Some(until)));
    }

    #[test]
    fn a_withheld_cut_keeps_its_name_until_its_lease_would_have_ended() {
        let mut ledger = Ledger::new("web-1", 8, 8);
        let lease = Span::from_hours(1);
        let first = ledger.withhold(&Scope::Host, Measure::Cut, NOW, lease);
        let again =
            ledger.withhold(&Scope::Host, Measure::Cut, NOW.after(Span::from_secs(60)), lease);
        let later = ledger.withhold(&Scope::Host, Measure::Cut, NOW.after(lease), lease);
        assert_eq!(first, again);
        assert_ne!(first, later);
        assert_eq!(ledger.withheld_total(), 2);
    }

    #[test]
    fn a_trial_ends_before_its_lease_unless_confirmed_and_is_judged_once_before_it_ends() {
        let mut ledger = Ledger::new("web-1", 8, 8);
        let (hour, trial) = (Span::from_hours(1), Span::from_secs(120));
        let held = ledger.begin(Cut { trial, ..cut(Scope::Host, hour) });
        assert_eq!(held.held_until(), NOW.after(trial));
        assert_eq!(ledger.next_end(), Some(NOW.after(Span::from_secs(119))));
        assert_eq!(
            ledger.verdicts_due(NOW.after(Span::from_secs(119))),
            std::slice::from_ref(&held.id)
        );
        assert!(ledger.verdicts_due(NOW.after(trial)).is_empty());
        assert_eq!(ledger.next_end(), Some(NOW.after(trial)));
        // Prolonging the lease does not prolong the trial.
        ledger.prolong(&held.id, NOW.after(Span::from_hours(2))).unwrap();
        assert_eq!(ledger.next_end(), Some(NOW.after(trial)));
        let firm = ledger.confirm(&held.id).unwrap();
        assert_eq!((firm.trial_until, firm.held_until()), (None, NOW.after(Span::from_hours(2))));
        assert!(ledger.confirm(&held.id).is_none() && ledger.expire(NOW.after(trial)).is_empty());
        assert_eq!(ledger.set().generation, 3);
    }

    #[test]
    fn a_clock_that_was_set_moves_lease_and_trial_alike() {
        let mut ledger = Ledger::new("web-1", 8, 8);
        let trial = Span::from_secs(120);
        let id = ledger.begin(Cut { trial, ..cut(Scope::Host, Span::from_hours(1)) }).id;
        ledger.shift(Span::from_hours(-5));
        let held = ledger.held(&id).unwrap();
        let moved = NOW.before(Span::from_hours(5));
        assert_eq!(held.trial_until, Some(moved.after(trial)));
        assert_eq!(held.until, moved.after(Span::from_hours(1)));
    }

    #[test]
    fn a_throttle_covers_no_cut_and_a_cut_covers_a_throttle_as_long_as_it_lasts() {
        let mut ledger = Ledger::new("web-1", 8, 8);
        let slow = Measure::Throttle { bytes_per_second: 8000 };
        let hour = NOW.after(Span::from_hours(1));
        ledger.begin(Cut { measure: slow, ..cut(destination(), Span::from_hours(1)) });
        assert!(ledger.covering(&destination(), Measure::Cut, hour).is_none());
        assert!(ledger.covering(&destination(), slow, hour).is_some());
        let firm = ledger.begin(cut(destination(), Span::from_hours(1)));
        assert_eq!(ledger.set().containments.len(), 2, "each has a name of its own");
        assert_eq!(ledger.covered_by(&firm).len(), 1);
        let quota = Measure::Quota { bytes: 1 };
        assert_eq!(ledger.covering(&destination(), quota, hour), Some(firm.id));
        assert!(ledger.covering(&destination(), quota, hour.after(Span::from_secs(1))).is_none());
    }
}
