//! The way to the guardian's hand: the only place between a decision and its effect.
//!
//! Order, which must not change: commit, then ask who owns the deciding flow; the warden ends sockets and proves,
//! so that neither keeps the frames behind the deciding one waiting.

use super::warden::Warden;
use crate::chain::causes;
use crate::clock;
use crate::enforce::{Held, Plan, Sockets, coverage, open_for};
use crate::guardian::{AskGuardianError, Guardian, Hand, Outcome};
use crate::host::owner::owner;
use sekisho_engine::ContainOrder;
use sekisho_schema::{
    Containment, ContainmentId, ContainmentSet, Coverage, FlowKey, Process, Proof, Receipt, Span,
    Timestamp,
};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

/// After this, what leaked is counted again and the receipt is told anew.
const RECOUNT_AFTER: Span = Span::from_secs(1);
/// A proof that did not come by then is told as missing.
const PROOF_WITHIN: Span = Span::from_secs(3);
/// A change that the kernel refused is tried again after this.
const RETRY_AFTER: Span = Span::from_millis(500);

/// What a cut gave, for the records that wait for it.
#[derive(Debug, Default)]
pub(super) struct Effect {
    /// Who owns the flow that decided.
    pub(super) owner: Option<(FlowKey, Process)>,
    /// A receipt for each containment that began, still without proof.
    pub(super) receipts: Vec<Receipt>,
}

/// The kernel's side of the agent.
pub(super) struct Cut {
    guardian: Guardian,
    /// Gives desired state; `None` while the guardian is gone.
    hand: Option<Hand>,
    plan: Plan,
    warden: Warden,
    sockets: Option<Sockets>,
    coverage: Coverage,
    known: BTreeSet<ContainmentId>,
    desired: ContainmentSet,
    /// Receipts of what is held, and until when a proof may still come.
    receipts: BTreeMap<ContainmentId, (Receipt, Option<Timestamp>)>,
    recount: Vec<(Timestamp, ContainmentId)>,
    adopted: bool,
    retry_at: Option<Timestamp>,
    failure: Option<String>,
}

impl Cut {
    /// Has the ruleset loaded; what the kernel holds, it keeps.
    ///
    /// # Errors
    /// [`AskGuardianError`].
    pub(super) fn open(
        plan: &Plan,
        guardian: Guardian,
        warden: Warden,
    ) -> Result<Self, AskGuardianError> {
        let mut hand = guardian.hand()?;
        hand.plan(plan)?;
        let sockets = match Sockets::open() {
            Ok(sockets) => Some(sockets),
            Err(error) => {
                tracing::warn!(error = %causes(&error), state = "cuts drop packets; the owners of sockets are not named", "no socket diagnosis");
                None
            }
        };
        Ok(Self {
            guardian,
            hand: Some(hand),
            plan: plan.clone(),
            warden,
            sockets,
            coverage: coverage(plan),
            known: BTreeSet::new(),
            desired: ContainmentSet::default(),
            receipts: BTreeMap::new(),
            recount: Vec::new(),
            adopted: false,
            retry_at: None,
            failure: None,
        })
    }

    /// Has the ruleset of another plan loaded, and all told anew to a guardian that came again; what is held stays held.
    ///
    /// # Errors
    /// [`AskGuardianError`]; the ruleset before stays.
    pub(super) fn reload(&mut self, plan: &Plan) -> Result<(), AskGuardianError> {
        if self.hand.is_some() && self.plan == *plan {
            return Ok(());
        }
        self.plan = plan.clone();
        let is_new = self.hand.is_none();
        self.tell_plan()?;
        if is_new && self.adopted {
            // It knows nothing of what we want, but what it found in the kernel.
            self.retry_at = Some(clock::now());
        }
        Ok(())
    }

    fn tell_plan(&mut self) -> Result<(), AskGuardianError> {
        let hand = match &mut self.hand {
            Some(hand) => hand,
            None => self.hand.insert(self.guardian.hand()?),
        };
        let told = hand.plan(&self.plan);
        if told.as_ref().is_err_and(AskGuardianError::is_gone) {
            self.hand = None;
        }
        told
    }

    /// The guardian is gone: nothing new can be cut until it is there again.
    pub(super) fn lose(&mut self) {
        self.hand = None;
    }

    /// Whether there is a guardian to cut by.
    pub(super) const fn can_cut(&self) -> bool {
        self.hand.is_some()
    }

    /// Has the guardian stand ready for a moment: what is judged now may well decide.
    pub(super) fn alert(&mut self) {
        if let Some(hand) = &mut self.hand {
            hand.alert();
        }
    }

    /// Has our tables removed, and all that they hold.
    ///
    /// # Errors
    /// [`AskGuardianError`]; they stay.
    pub(super) fn remove(&mut self) -> Result<(), AskGuardianError> {
        match &mut self.hand {
            Some(hand) => hand.remove(),
            None => self.guardian.hand()?.remove(),
        }
    }

    /// The kernel's packet log of a group, bound by the guardian.
    ///
    /// # Errors
    /// [`AskGuardianError`].
    pub(super) fn packet_log(&mut self, group: u16) -> Result<OwnedFd, AskGuardianError> {
        match &mut self.hand {
            Some(hand) => hand.packet_log(group),
            None => self.guardian.hand()?.packet_log(group),
        }
    }

    /// The plan in force.
    pub(super) const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Takes note of what passes a cut here and now.
    pub(super) fn cover(&mut self, gaps: &Coverage) {
        self.coverage.clone_from(gaps);
    }

    /// What this host cannot cut, by name.
    pub(super) const fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// What the kernel could not be made to hold, if anything.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// What the kernel holds from before the start, once; the time left is all that it knows.
    pub(super) fn take_held(&mut self) -> Vec<Held> {
        if std::mem::replace(&mut self.adopted, true) {
            return Vec::new();
        }
        self.guardian.asker().and_then(|mut asker| asker.held()).unwrap_or_else(|error| {
            tracing::error!(error = %causes(&error), state = "what was cut before stays cut until its lease ends", "cannot read what the kernel holds");
            Vec::new()
        })
    }

    /// Takes what was held before the start as desired, and has it proven anew.
    pub(super) fn adopt(&mut self, set: ContainmentSet, containments: Vec<Containment>) {
        self.known.extend(set.containments.keys().cloned());
        self.desired = set;
        // What a guardian took up of an earlier run has the ends that this one knows.
        let outcome = self.hold(&self.desired.clone());
        let _ = self.settle(outcome, &[], None);
        for containment in containments {
            let receipt = self.receipt_of(&containment, None, None, None);
            self.await_proof(receipt, containment);
        }
    }

    /// Makes the kernel hold a set. Nothing comes before the commit.
    pub(super) fn apply(&mut self, order: &ContainOrder) -> Effect {
        let outcome = self.hold(&order.set);
        let owner = self.owner_of(order.flow);
        self.desired = order.set.clone();
        let begun: Vec<Containment> = order
            .set
            .containments
            .values()
            .filter(|held| !self.known.contains(&held.id))
            .cloned()
            .collect();
        let receipts = self.settle(outcome, &begun, order.decided_at);
        self.known = order.set.containments.keys().cloned().collect();
        self.receipts.retain(|id, _| order.set.containments.contains_key(id));
        for (receipt, containment) in receipts.iter().zip(begun) {
            if receipt.applied {
                self.await_proof(receipt.clone(), containment);
            }
        }
        Effect { owner, receipts }
    }

    /// Has the kernel hold a set; a guardian that was lost is called again, once.
    fn hold(&mut self, set: &ContainmentSet) -> Result<Outcome, AskGuardianError> {
        let outcome = match &mut self.hand {
            Some(hand) => hand.apply(set),
            None => self.tell_plan_and(set),
        };
        match outcome {
            Err(error) if error.is_gone() && self.hand.take().is_some() => self.tell_plan_and(set),
            outcome => outcome,
        }
    }

    fn tell_plan_and(&mut self, set: &ContainmentSet) -> Result<Outcome, AskGuardianError> {
        self.tell_plan()?;
        match &mut self.hand {
            Some(hand) => hand.apply(set),
            None => Err(AskGuardianError::Senseless),
        }
    }

    fn await_proof(&mut self, receipt: Receipt, containment: Containment) {
        let until = clock::now().after(PROOF_WITHIN);
        self.receipts.insert(containment.id.clone(), (receipt, Some(until)));
        self.warden.prove(containment);
    }

    fn owner_of(&mut self, flow: Option<FlowKey>) -> Option<(FlowKey, Process)> {
        let flow = flow?;
        let process = owner(&flow, self.sockets.as_mut()?).unwrap_or_else(|error| {
            tracing::debug!(error = %causes(&error), "cannot ask who owns a flow");
            None
        });
        Some((flow, process?))
    }

    fn settle(
        &mut self,
        outcome: Result<Outcome, AskGuardianError>,
        begun: &[Containment],
        decided_at: Option<Timestamp>,
    ) -> Vec<Receipt> {
        let (applied, failure) = match outcome {
            // A set of a later generation is in force: this one was told twice, and counts for nothing.
            Ok(outcome) if outcome.refused.is_empty() => (Some(outcome), None),
            Ok(outcome) => {
                let why = refusals(&outcome);
                tracing::error!(error = %why, state = "the other containments of the set hold", "a containment was refused");
                (Some(outcome), Some(why))
            }
            Err(error) => {
                let why = causes(&error);
                tracing::error!(error = %why, help = "run `sekisho doctor`", "a containment could not be applied");
                if error.is_gone() {
                    self.lose();
                }
                self.retry_at = Some(clock::now().after(RETRY_AFTER));
                (None, Some(why))
            }
        };
        self.failure.clone_from(&failure);
        let error_of = |containment: &Containment| match &applied {
            Some(outcome) => outcome
                .refused
                .iter()
                .find(|refused| refused.id == containment.id)
                .map(|refused| refused.why.clone()),
            None => failure.clone(),
        };
        begun
            .iter()
            .map(|containment| {
                self.receipt_of(containment, applied.as_ref(), decided_at, error_of(containment))
            })
            .collect()
    }

    fn receipt_of(
        &self,
        containment: &Containment,
        applied: Option<&Outcome>,
        decided_at: Option<Timestamp>,
        error: Option<String>,
    ) -> Receipt {
        let committed_at = applied.map(|applied| applied.committed_at).filter(|_| error.is_none());
        Receipt {
            generation: applied.map_or(self.desired.generation, |applied| applied.generation),
            containment: containment.id.clone(),
            finding: containment.finding.clone(),
            scope: containment.scope.clone(),
            applied: error.is_none(),
            error,
            committed_at,
            last_packet_at: None,
            time_to_contain_ns: committed_at
                .and_then(|committed| decided_at.map(|decided| committed.since(decided).nanos())),
            leaked_packets: 0,
            leaked_bytes: 0,
            sockets_destroyed: 0,
            proof: Proof::default(),
            coverage: self.coverage.clone(),
            target: applied
                .and_then(|outcome| outcome.targets.get(&containment.id).cloned())
                .unwrap_or_default(),
            open: open_for(&containment.scope, containment.measure, &self.plan, None),
        }
    }

    /// Joins a proof, and how many sockets were ended before it, to its receipt; `None` when the containment ended
    /// meanwhile.
    pub(super) fn proved(
        &mut self,
        containment: &ContainmentId,
        proof: Proof,
        sockets_destroyed: u32,
    ) -> Option<Receipt> {
        let (receipt, awaited) = self.receipts.get_mut(containment)?;
        receipt.proof = proof;
        receipt.sockets_destroyed = sockets_destroyed;
        *awaited = None;
        self.recount.push((clock::now().after(RECOUNT_AFTER), containment.clone()));
        Some(receipt.clone())
    }

    /// Receipts whose proof did not come.
    pub(super) fn overdue(&mut self, now: Timestamp) -> Vec<Receipt> {
        let mut overdue = Vec::new();
        for (receipt, awaited) in self.receipts.values_mut() {
            if awaited.is_some_and(|until| until <= now) {
                *awaited = None;
                receipt.proof.cut = Some("unproven".to_owned());
                receipt.proof.checks.insert("proof".to_owned(), "did not come in time".to_owned());
                overdue.push(receipt.clone());
            }
        }
        overdue
    }

    /// Receipts to be told again because what leaked may have grown.
    pub(super) fn recounts_due(&mut self, now: Timestamp) -> Vec<Receipt> {
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.recount).into_iter().partition(|(at, _)| *at <= now);
        self.recount = later;
        due.iter()
            .filter_map(|(_, id)| self.receipts.get(id))
            .map(|(receipt, _)| receipt.clone())
            .collect()
    }

    /// When one of these has something to do.
    pub(super) fn next_chore(&self) -> Option<Timestamp> {
        let awaited = self.receipts.values().filter_map(|(_, awaited)| *awaited);
        awaited.chain(self.recount.iter().map(|(at, _)| *at)).chain(self.retry_at).min()
    }

    /// Tries again what the kernel refused; receipts for what holds now.
    pub(super) fn retry(&mut self, now: Timestamp) -> Vec<Receipt> {
        if self.retry_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.retry_at = None;
        self.reassert()
    }

    /// Applies the desired set once more; receipts for what holds now and did not before.
    fn reassert(&mut self) -> Vec<Receipt> {
        let set = self.desired.clone();
        let outcome = self.hold(&set);
        let lacking: Vec<Containment> = set
            .containments
            .values()
            .filter(|held| !self.receipts.contains_key(&held.id))
            .cloned()
            .collect();
        let mut receipts = self.settle(outcome, &lacking, None);
        receipts.retain(|receipt| receipt.applied);
        for receipt in &receipts {
            if let Some(containment) = set.containments.get(&receipt.containment) {
                self.await_proof(receipt.clone(), containment.clone());
            }
        }
        receipts
    }

    /// Moves what waits for a time with a clock that was set.
    pub(super) fn follow_clock(&mut self, step: Span) {
        let awaited = self.receipts.values_mut().filter_map(|(_, awaited)| awaited.as_mut());
        let recounts = self.recount.iter_mut().map(|(at, _)| at);
        for at in awaited.chain(recounts).chain(&mut self.retry_at) {
            *at = at.after(step);
        }
    }
}

/// What was not written, in one sentence.
fn refusals(outcome: &Outcome) -> String {
    let all: Vec<String> =
        outcome.refused.iter().map(|refused| format!("{}: {}", refused.id, refused.why)).collect();
    format!("nothing was written for {}", all.join("; "))
}
