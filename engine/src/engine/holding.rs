//! What becomes of containments in time: trials judged, confirmed and lost, leases that end, owners that never came.

use super::Engine;
use crate::contain::{Cut, Note};
use crate::judge::Whose;
use sekisho_schema::event::{Gap, Release};
use sekisho_schema::policy::{Confirm, OnLostCollector};
use sekisho_schema::{Body, Containment, ContainmentId, Measure, Receipt, Scope, Span, Timestamp};

impl Engine {
    /// Processes what the ledger has due at its own time.
    pub(super) fn end_leases(&mut self, at: Timestamp) {
        for id in self.ledger.verdicts_due(at) {
            self.judge_trial(&id, at);
        }
        let ended = self.ledger.expire(at);
        let any = !ended.is_empty();
        for ended in ended {
            self.tell_ended(ended, at);
        }
        if any {
            self.order_set(None, None);
        }
        for wait in self.ledger.ask(|asked| asked.take_overdue(at)) {
            self.owner_known(wait, None, at);
        }
    }

    fn tell_ended(&mut self, ended: Containment, at: Timestamp) {
        let is_trial = ended.trial_until.is_some_and(|end| end < ended.until);
        let proof = self.actors.of(&ended.id).and_then(|note| note.proof);
        self.forget(&ended.id);
        let cause = if is_trial { "trial" } else { "expired" };
        let release = Release {
            containment: ended.id.clone(),
            scope: ended.scope.clone(),
            cause: cause.to_owned(),
            by: None,
            reason: is_trial.then(|| format!("nobody confirmed it: {}", self.trial_fault(proof))),
        };
        self.record(at, Body::Release(release));
        if is_trial {
            let duty = &self.policy.duty;
            let detail = format!(
                "the cut of {} ({}) was on trial and let go: {}; for {}, or {}: confirm sooner, or order it again when the way to the collector is exempt",
                ended.scope,
                ended.id,
                self.trial_fault(proof),
                duty.owner,
                duty.deputy
            );
            self.record(at, Body::Gap(Gap { cause: "trial".to_owned(), count: 1, detail }));
        }
    }

    fn trial_fault(&self, proof: Option<bool>) -> &'static str {
        match (self.confirms_by_proof(), proof) {
            (_, Some(false)) => "cut or exemptions were not proven",
            (true, _) => "no proof came that it cuts what it shall and spares what is exempt",
            (false, Some(true)) => "the collector did not take its receipt",
            (false, None) => "the collector did not take its receipt, and no proof came",
        }
    }

    /// Whether the agent's own proof confirms a trial: by policy, or where there is no collector to ask.
    fn confirms_by_proof(&self) -> bool {
        let has_collector = self.enrolled || self.exemptions.has_collector();
        self.policy.trial.confirm == Confirm::Proof || !has_collector
    }

    /// Decides, just before a trial ends, what becomes of it.
    fn judge_trial(&mut self, id: &ContainmentId, at: Timestamp) {
        let note = self.actors.of(id).cloned().unwrap_or_default();
        let by_proof = note.proof == Some(true)
            && (self.policy.trial.on_lost_collector == OnLostCollector::Hold
                || self.confirms_by_proof());
        // Where no kernel was ever spoken of, as in a replay, there is nothing to prove.
        if by_proof || !self.has_hands {
            self.confirm(id, at);
            return;
        }
        self.cut_behind(id, note, at);
    }

    /// A trial that is lost must not let the intruder go with the host: its destination stays cut for the lease.
    fn cut_behind(&mut self, id: &ContainmentId, note: Note, at: Timestamp) {
        let Some(held) = self.ledger.held(id).cloned() else { return };
        let Some(target) = note.target.filter(|_| held.by.is_none()) else { return };
        let scope = Scope::Destination(target);
        let is_barred = self.exemptions.forbidding(&scope).is_some()
            || self.perimeter.is_inside(target)
            || target.is_multicast()
            || !self.ledger.has_room()
            || self.withheld_by().is_some();
        if is_barred {
            return;
        }
        let behind = match self.ledger.same(&scope, Measure::Cut) {
            Some(same) => self.ledger.prolong(&same, held.until),
            None => {
                self.tally.contained += 1;
                let begun = self.ledger.begin(Cut {
                    scope,
                    since: at,
                    lease: held.until.since(at),
                    cause: held.cause.clone(),
                    finding: held.finding.clone(),
                    by: None,
                    measure: Measure::Cut,
                    trial: Span::ZERO,
                });
                let noted = Note { actor: note.actor, target: Some(target), ..Note::default() };
                *self.actors.note(&begun.id) = noted;
                Some(begun)
            }
        };
        if let Some(behind) = behind {
            self.announce(behind, None, None, at);
        }
    }

    /// Ends a trial well; a containment that is on none is left as it is.
    pub(super) fn confirm(&mut self, id: &ContainmentId, at: Timestamp) {
        if let Some(firm) = self.ledger.confirm(id) {
            self.announce(firm, None, None, at);
        }
    }

    /// Takes note of what the agent's own proof showed, and confirms a trial by it where it may.
    pub(super) fn take_proof(&mut self, receipt: &Receipt, at: Timestamp) {
        let id = &receipt.containment;
        if self.ledger.held(id).is_none() {
            return;
        }
        let said = |said: &Option<String>, word: &str| said.as_deref().map(|said| said == word);
        let cut = said(&receipt.proof.cut, "proven");
        let spared = said(&receipt.proof.exemptions, "ok");
        let proof = match (receipt.applied, cut, spared) {
            (false, ..) | (_, Some(false), _) | (_, _, Some(false)) => Some(false),
            (true, Some(true), Some(true)) => Some(true),
            (true, ..) => None,
        };
        if proof.is_some() {
            self.actors.note(id).proof = proof;
        }
        if proof == Some(true) && self.confirms_by_proof() {
            self.confirm(id, at);
        }
    }

    /// Releases what a firm escalated containment makes needless; the wider is in the same set.
    pub(super) fn release_needless(&mut self, firm: &Containment) -> Vec<Release> {
        let is_escalated = self.actors.of(&firm.id).is_some_and(|note| note.is_escalated);
        if !is_escalated || firm.trial_until.is_some() {
            return Vec::new();
        }
        let mut releases = Vec::new();
        for id in self.ledger.covered_by(firm) {
            // What a person ordered, a person ends.
            if self.ledger.held(&id).is_none_or(|held| held.by.is_some()) {
                continue;
            }
            let Some(released) = self.ledger.release(&id) else { continue };
            self.forget(&id);
            releases.push(Release {
                containment: id,
                scope: released.scope,
                cause: "escalated".to_owned(),
                by: None,
                reason: Some(format!("{} ({}) covers it now", firm.scope, firm.id)),
            });
        }
        releases
    }

    /// Forgets what was known of a containment that ended.
    pub(super) fn forget(&mut self, id: &ContainmentId) {
        self.leaks.forget(id);
        self.actors.forget(id);
    }

    /// Takes over automatic cuts from before the start into the budget: a restart gives none of it back.
    pub(super) fn count_adopted(&mut self, held: &Containment) {
        if held.by.is_none() && held.since <= self.now {
            self.budget.spend(&held.scope, held.since);
        }
    }

    /// An address that was taken for an inside host's turned out to be this host's: its cut must be one of this host.
    pub(super) fn correct_own(&mut self, at: Timestamp) {
        let mistaken: Vec<Containment> = self
            .ledger
            .set()
            .containments
            .values()
            .filter(|held| held.by.is_none())
            .filter(|held| match &held.scope {
                Scope::Internal(host) => host.parse().is_ok_and(|host| self.own.contains(&host)),
                _ => false,
            })
            .cloned()
            .collect();
        for held in mistaken {
            let note = self.actors.of(&held.id).cloned().unwrap_or_default();
            self.ledger.release(&held.id);
            self.forget(&held.id);
            let scope = Scope::Host;
            if self.ledger.same(&scope, Measure::Cut).is_none() {
                let begun = self.ledger.begin(Cut {
                    trial: self.trial_of(&scope),
                    scope,
                    since: at,
                    lease: held.until.since(at),
                    cause: held.cause.clone(),
                    finding: held.finding.clone(),
                    by: None,
                    measure: Measure::Cut,
                });
                *self.actors.note(&begun.id) = Note { actor: Some(Whose::Own), ..note };
                self.announce(begun, None, None, at);
            } else {
                self.order_set(None, None);
            }
            self.record(
                at,
                Body::Release(Release {
                    containment: held.id,
                    scope: held.scope,
                    cause: "escalated".to_owned(),
                    by: None,
                    reason: Some("the address is this host's own: the host is cut".to_owned()),
                }),
            );
        }
    }
}
