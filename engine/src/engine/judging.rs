//! From signals to findings and containments.

use super::{CLOCK_STEP, Engine};
use crate::contain::Cut;
use crate::detect::Signal;
use crate::judge::decide::{Circumstances, decide};
use crate::judge::{Decision, Proposal, assess};
use crate::report::{Author, Outcome, compose, finding_name};
use sekisho_schema::{Body, Containment, Grade, Measure, Reason, Scope, Timestamp};

impl Engine {
    pub(super) fn judge_signals(&mut self) {
        let mut signals = std::mem::take(&mut self.signals);
        for signal in signals.drain(..) {
            self.judge_signal(signal);
        }
        // The buffer is kept: no allocation for the next signal.
        self.signals = signals;
    }

    fn judge_signal(&mut self, signal: Signal) {
        // The frame's own time, so that a replay decides what the live engine decided; unless the
        // clock was set, which must not end a lease before it began.
        let is_near = self.now.since(signal.at) <= CLOCK_STEP;
        let now = if is_near { signal.at } else { self.now };
        let verdict = assess(&signal, &self.policy);
        let ledger = &self.ledger;
        let decision = decide(
            &verdict,
            &Circumstances {
                policy: &self.policy,
                exemptions: &self.exemptions,
                covering: &|scope: &Scope, until| ledger.covering(scope, until),
                has_room: ledger.has_room(),
                budget: &self.budget,
                enforcement: self.enforcement.as_ref().copied().map_err(String::as_str),
                now,
            },
        );
        // What was told need not be told again, but a cut that is due is made whatever was told.
        let cuts = matches!(decision, Decision::Contain(..));
        if !cuts && self.recent.was_told(&signal, now) {
            return;
        }
        // Strangers can make any number of suspicions; what is proven is told whatever they do.
        let is_proven = cuts || signal.grade == Grade::Malicious;
        if !is_proven && !self.recent.has_room(&signal, now) {
            return;
        }
        self.recent.tell(&signal, now);
        self.conclude(signal, decision, now);
    }

    fn conclude(&mut self, signal: Signal, decision: Decision, now: Timestamp) {
        let id = finding_name(&signal, &self.host);
        let (at, flow, detector) = (signal.at, signal.flow, signal.detector);
        let mut containment = None;
        let outcome = match decision {
            Decision::Contain(proposal, reason) => {
                let made = self.begin(&proposal, now, detector, &id);
                let cut = Some((proposal.scope, proposal.lease, made.id.clone()));
                containment = Some(made);
                Outcome { contained: true, reason, cut }
            }
            Decision::Held { by, proposal, may_prolong } => {
                if may_prolong {
                    containment = self.ledger.prolong(&by, now.after(proposal.lease));
                }
                let cut = Some((proposal.scope, proposal.lease, by));
                Outcome { contained: false, reason: Some(Reason::AlreadyContained), cut }
            }
            Decision::Record => Outcome::default(),
            Decision::Withhold(Proposal { scope, lease }, reason) => {
                let name = self.ledger.withhold(&scope, now, lease);
                let cut = Some((scope, lease, name));
                Outcome { contained: false, reason: Some(reason), cut }
            }
        };
        *self.tally.findings.entry(detector.to_owned()).or_default() += 1;
        let author = Author {
            host: &self.host,
            is_own: self.own.contains(&flow.local.ip()),
            policy: self.policy.version,
        };
        let finding = compose(id, signal, outcome, author);
        self.record(at, Body::Finding(Box::new(finding)));
        if let Some(containment) = containment {
            self.order_set(Some(at), Some(flow));
            self.record(at, Body::Containment(Box::new(containment)));
        }
    }

    fn begin(
        &mut self,
        proposal: &Proposal,
        now: Timestamp,
        detector: &str,
        finding: &str,
    ) -> Containment {
        self.budget.spend(&proposal.scope, now);
        self.tally.contained += 1;
        self.ledger.begin(Cut {
            scope: proposal.scope.clone(),
            since: now,
            lease: proposal.lease,
            cause: detector.to_owned(),
            finding: Some(finding.to_owned()),
            by: None,
            measure: Measure::Cut,
        })
    }
}
