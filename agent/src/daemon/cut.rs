//! The hand on the kernel: the only place between a decision and its effect.
//!
//! Order, which must not change: commit, then ask who owns the deciding flow, then end sockets,
//! and everything else later.

use super::warden::{Job, Warden};
use crate::chain::causes;
use crate::clock;
use crate::enforce::{
    Applied, ApplyError, Enforcer, Held, OpenEnforcerError, Partial, Plan, Sockets, coverage,
};
use crate::host::owner::owner;
use sekisho_engine::ContainOrder;
use sekisho_schema::{
    Containment, ContainmentId, ContainmentSet, Coverage, FlowKey, Process, Proof, Receipt, Span,
    Timestamp,
};
use std::collections::{BTreeMap, BTreeSet};

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
    enforcer: Enforcer,
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
    /// Loads the ruleset and adopts what the kernel holds.
    ///
    /// # Errors
    /// [`OpenEnforcerError`].
    pub(super) fn open(plan: &Plan, warden: Warden) -> Result<Self, OpenEnforcerError> {
        let enforcer = Enforcer::open(plan)?;
        let sockets = match Sockets::open() {
            Ok(sockets) => Some(sockets),
            Err(error) => {
                tracing::warn!(error = %causes(&error), state = "cuts drop packets; sockets are not ended and their owners not named", "no socket diagnosis");
                None
            }
        };
        warden.tell(hand_of(&enforcer)?);
        let coverage = coverage(plan);
        Ok(Self {
            enforcer,
            warden,
            sockets,
            coverage,
            known: BTreeSet::new(),
            desired: ContainmentSet::default(),
            receipts: BTreeMap::new(),
            recount: Vec::new(),
            adopted: false,
            retry_at: None,
            failure: None,
        })
    }

    /// Loads the ruleset of another plan; what is held stays held.
    ///
    /// # Errors
    /// [`OpenEnforcerError`]; the ruleset before stays.
    pub(super) fn reload(&mut self, plan: &Plan) -> Result<(), OpenEnforcerError> {
        if self.enforcer.plan() != plan {
            self.load(plan)?;
        }
        Ok(())
    }

    fn load(&mut self, plan: &Plan) -> Result<(), OpenEnforcerError> {
        self.enforcer.reload(plan)?;
        self.warden.tell(hand_of(&self.enforcer)?);
        self.coverage = coverage(plan);
        Ok(())
    }

    /// The plan in force.
    pub(super) const fn plan(&self) -> &Plan {
        self.enforcer.plan()
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
        self.enforcer.held().unwrap_or_else(|error| {
            tracing::error!(error = %causes(&error), state = "what was cut before stays cut until its lease ends", "cannot read what the kernel holds");
            Vec::new()
        })
    }

    /// Takes what was held before the start as desired, and has it proven anew.
    pub(super) fn adopt(&mut self, set: ContainmentSet, containments: Vec<Containment>) {
        self.known.extend(set.containments.keys().cloned());
        self.desired = set;
        self.warden.tell(Job::Desired(self.desired.clone()));
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
        let mut receipts = self.settle(outcome, &begun, order.decided_at);
        self.known = order.set.containments.keys().cloned().collect();
        self.receipts.retain(|id, _| order.set.containments.contains_key(id));
        self.warden.tell(Job::Desired(order.set.clone()));
        for (receipt, containment) in
            receipts.iter_mut().zip(begun).filter(|(receipt, _)| receipt.applied)
        {
            receipt.sockets_destroyed = self.destroy(receipt);
            self.await_proof(receipt.clone(), containment);
        }
        Effect { owner, receipts }
    }

    /// Makes the kernel hold a set, and our tables before it when somebody took them away: a cut that
    /// is due must not wait until the warden looks.
    fn hold(&mut self, set: &ContainmentSet) -> Result<Applied, ApplyError> {
        let outcome = self.enforcer.apply(set, clock::now());
        if !matches!(&outcome, Err(ApplyError::Kernel { source, .. }) if source.is_absent()) {
            return outcome;
        }
        let plan = self.enforcer.plan().clone();
        match self.load(&plan) {
            Ok(()) => self.enforcer.apply(set, clock::now()),
            Err(error) => {
                tracing::error!(error = %causes(&error), "cannot load our tables again");
                outcome
            }
        }
    }

    fn await_proof(&mut self, receipt: Receipt, containment: Containment) {
        let until = clock::now().after(PROOF_WITHIN);
        self.receipts.insert(containment.id.clone(), (receipt, Some(until)));
        self.warden.tell(Job::Prove(containment));
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
        outcome: Result<Applied, ApplyError>,
        begun: &[Containment],
        decided_at: Option<Timestamp>,
    ) -> Vec<Receipt> {
        let (applied, refused, failure) = match outcome {
            Ok(applied) => (Some(applied), Vec::new(), None),
            Err(error) => {
                let why = causes(&error);
                tracing::error!(error = %why, help = "run `sekisho doctor`", "a containment could not be applied");
                match error.partial().cloned() {
                    Some(Partial { applied, refused }) => (Some(applied), refused, Some(why)),
                    None => {
                        self.retry_at = Some(clock::now().after(RETRY_AFTER));
                        (None, Vec::new(), Some(why))
                    }
                }
            }
        };
        self.failure.clone_from(&failure);
        let error_of = |containment: &Containment| match refused
            .iter()
            .find(|refused| refused.id == containment.id)
        {
            Some(refused) => Some(refused.why.to_string()),
            None if applied.is_none() => failure.clone(),
            None => None,
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
        applied: Option<&Applied>,
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
            target: Vec::new(),
            open: Vec::new(),
        }
    }

    fn destroy(&mut self, receipt: &Receipt) -> u32 {
        let Some(sockets) = &mut self.sockets else { return 0 };
        match sockets.destroy_cut(&receipt.scope, self.enforcer.plan()) {
            Ok(destroyed) => {
                if destroyed.failed > 0 {
                    tracing::info!(
                        failed = destroyed.failed,
                        "some sockets of a contained scope did not end; their packets are dropped"
                    );
                }
                destroyed.count
            }
            Err(error) => {
                tracing::warn!(error = %causes(&error), state = "packets are dropped", "cannot end the sockets of a contained scope");
                0
            }
        }
    }

    /// Joins a proof to its receipt; `None` when the containment ended meanwhile.
    pub(super) fn proved(&mut self, containment: &ContainmentId, proof: Proof) -> Option<Receipt> {
        let (receipt, awaited) = self.receipts.get_mut(containment)?;
        receipt.proof = proof;
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
        for receipt in &mut receipts {
            receipt.sockets_destroyed = self.destroy(receipt);
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

    /// Mends what the warden found amiss.
    pub(super) fn mend(&mut self, rules: bool) {
        if rules {
            let plan = self.enforcer.plan().clone();
            if let Err(error) = self.load(&plan) {
                self.failure = Some(causes(&error));
                tracing::error!(error = %causes(&error), "cannot load our tables again");
                return;
            }
        }
        // Reading back teaches the enforcer what is really there, so that the next apply writes the rest.
        if let Err(error) = self.enforcer.verify(&self.desired) {
            tracing::error!(error = %causes(&error), "cannot read back before mending");
        }
        let _ = self.reassert();
    }
}

/// A hand on the same ruleset, for the warden.
fn hand_of(enforcer: &Enforcer) -> Result<Job, OpenEnforcerError> {
    Ok(Job::Hand(Box::new(enforcer.second_hand()?)))
}
