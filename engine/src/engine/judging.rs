//! From signals to findings and containments.

use super::{CLOCK_STEP, Engine, Queued};
use crate::contain::{Cut, Note, Origin, Wait, Want};
use crate::detect::{Signal, Weight};
use crate::judge::decide::{Circumstances, decide, withholding};
use crate::judge::{
    DESTINATION, Decision, MANAGEMENT_ONLY, Proposal, Verdict, WORKLOAD, Wanted, Whose, assess,
    is_of_host,
};
use crate::output::Output;
use crate::report::{Outcome, Untold, finding_name};
use sekisho_schema::event::Gap;
use sekisho_schema::{Body, Containment, FlowKey, Grade, Reason, Scope, Span, Timestamp};
use std::net::IpAddr;

/// What a further try of a contained actor leads to.
enum Step {
    /// The owner is asked: the next level depends on it.
    Ask(u8),
    /// The next level, at once.
    Now(Wanted),
}

/// Who and what is behind a containment that begins by itself.
pub(super) struct Behind<'a> {
    pub(super) finding: &'a str,
    pub(super) detector: &'a str,
    pub(super) note: Note,
}

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
        let whose = self.whose(signal.flow.local.ip());
        let mut verdict = assess(&signal, &self.policy, whose);
        let step = self.step_up(&signal, whose, now);
        // What the line of the table wants is done beside a step up that does not cover it.
        let mut beside = None;
        if let Some(Step::Now(wanted)) = &step {
            beside = verdict.wanted.replace(wanted.clone());
            if let (Some(by_rule), Some(wanted)) = (&beside, &mut verdict.wanted) {
                wanted.lease = wanted.lease.max(by_rule.lease);
            }
        }
        let decision = self.decide_on(&verdict, now);
        // What was told need not be told again, but a cut that is due is made whatever was told.
        let cuts = matches!(decision, Decision::Contain(..)) || step.is_some();
        if !cuts && self.recent.was_told(&signal, now) {
            return;
        }
        // Strangers can make any number of suspicions; what is proven is told whatever they do.
        let is_proven = cuts || signal.grade == Grade::Malicious;
        if !is_proven && !self.recent.has_room(&signal, now) {
            return;
        }
        self.recent.tell(&signal, now);
        let origin = Origin {
            finding: finding_name(&signal, &self.host),
            detector: signal.detector,
            flow: signal.flow,
            target: verdict.target,
            at: signal.at,
        };
        self.conclude(signal, &origin, verdict.wanted, decision, step, now);
        if let Some(beside) = beside {
            let note = Note { actor: Some(whose), target: origin.target, ..Note::default() };
            // Where it can't be made the wider cut is there, and the fuse was told.
            let _wider = self.begin_late(&origin, beside, note, origin.at);
        }
    }

    pub(super) fn decide_on(&self, verdict: &Verdict, now: Timestamp) -> Decision {
        let ledger = &self.ledger;
        decide(
            verdict,
            &Circumstances {
                policy: &self.policy,
                exemptions: &self.exemptions,
                covering: &|scope: &Scope, measure, until| ledger.covering(scope, measure, until),
                has_room: ledger.has_room(),
                budget: &self.budget,
                enforcement: self.enforcement.as_ref().copied().map_err(String::as_str),
                now,
            },
        )
    }

    /// Whose traffic a flow with this inside end is. Where the own addresses were never told, as in a
    /// replay, it is this host's.
    pub(super) fn whose(&self, local: IpAddr) -> Whose {
        let local = local.to_canonical();
        if self.own.is_empty() || self.own.contains(&local) {
            Whose::Own
        } else if self.perimeter.is_inside(local) {
            Whose::Inside(local)
        } else {
            Whose::Passing
        }
    }

    /// Whether a contained actor has tried other ways often enough to be cut at a higher level.
    fn step_up(&mut self, signal: &Signal, actor: Whose, now: Timestamp) -> Option<Step> {
        let rule = &self.policy.escalation;
        if rule.up_to == 0 || signal.grade != Grade::Malicious || signal.weight != Weight::Decides {
            return None;
        }
        let target = signal.target?.to_canonical();
        let from = self.actors.standing(actor, self.ledger.set())?;
        if from >= rule.up_to || self.withheld_by().is_some() {
            return None;
        }
        if !self.actors.tries_enough(actor, target, rule, now) {
            return None;
        }
        let next = (from + 1).max(DESTINATION);
        match (actor, next) {
            (_, DESTINATION) | (Whose::Inside(_), WORKLOAD) => {}
            // A gateway can't tell the workloads of an inside host apart, and a stranger has none here.
            (Whose::Inside(_) | Whose::Passing, _) => return None,
            (Whose::Own, MANAGEMENT_ONLY) => {}
            (Whose::Own, _) => return Some(Step::Ask(from)),
        }
        let lease = self.longest_lease(actor, now);
        Wanted::cut(next, actor, Some(target), lease).map(Step::Now)
    }

    /// What is left of the longest containment of an actor.
    pub(super) fn longest_lease(&self, actor: Whose, now: Timestamp) -> Span {
        let held = self.ledger.set().containments.values();
        held.filter(|held| self.actors.of(&held.id).is_some_and(|note| note.actor == Some(actor)))
            .map(|held| held.until.since(now))
            .max()
            .unwrap_or(Span::ZERO)
    }

    /// What keeps every automatic cut from being made.
    pub(super) fn withheld_by(&self) -> Option<Reason> {
        let enforcement = self.enforcement.as_ref().copied().map_err(String::as_str);
        withholding(self.policy.mode, enforcement)
    }

    fn conclude(
        &mut self,
        signal: Signal,
        origin: &Origin,
        wanted: Option<Wanted>,
        decision: Decision,
        step: Option<Step>,
        now: Timestamp,
    ) {
        let Origin { flow, at, detector, target, .. } = *origin;
        let actor = self.whose(flow.local.ip());
        let blown = blown_fuse(&decision, wanted.as_ref());
        let may_ask = asks_for_owner(&decision, self.withheld_by());
        let note = Note {
            actor: Some(actor),
            target,
            is_escalated: matches!(step, Some(Step::Now(_))),
            ..Note::default()
        };
        let behind = Behind { finding: &origin.finding, detector, note };
        let (mut outcome, containment) = self.carry_out(decision, behind, now);
        let workload = wanted.and_then(|wanted| wanted.workload.map(|w| (w, wanted.lease)));
        if outcome.contained && outcome.reason.is_none() {
            outcome.reason = match (&step, &workload, &containment) {
                (Some(_), ..) => Some(Reason::Escalated),
                (None, Some(_), _) => Some(Reason::Owner),
                (None, None, Some(begun)) => begun.trial_until.map(|_| Reason::Trial),
                (None, None, None) => None,
            };
        }
        *self.tally.findings.entry(detector.to_owned()).or_default() += 1;
        let meanwhile = outcome.cut.as_ref().map(|(.., id)| id.clone());
        let finding = Untold {
            id: origin.finding.clone(),
            signal,
            outcome,
            is_own: self.own.contains(&flow.local.ip()),
            policy: self.policy.version,
        };
        self.queue.push_back(Queued::Finding(at, Box::new(finding)));
        if let Some(containment) = containment {
            self.announce(containment, Some(at), Some(flow), at);
        }
        if let Some(scope) = blown {
            self.page_fuse(&scope, now, at);
        }
        let until = now.after(self.limits.owner_wait);
        let wait = |want, lease| Wait { origin: origin.clone(), until, lease, want };
        let mut waits = Vec::new();
        if let Some((workload, lease)) = workload.filter(|_| may_ask) {
            let meanwhile = meanwhile.filter(|id| self.ledger.held(id).is_some());
            waits.push(wait(Want::Workload { workload, meanwhile }, lease));
        }
        if let Some(Step::Ask(from)) = step {
            waits.push(wait(Want::Escalate { actor, from }, self.longest_lease(actor, now)));
        }
        self.ask_owner(flow, waits, at);
    }

    /// Does what was decided; the containment that began or was prolonged.
    fn carry_out(
        &mut self,
        decision: Decision,
        behind: Behind<'_>,
        now: Timestamp,
    ) -> (Outcome, Option<Containment>) {
        match decision {
            Decision::Contain(proposal, reason) => {
                let begun = self.begin(&proposal, now, behind);
                let (level, lease) = (proposal.level(), proposal.lease);
                let cut = Some((proposal.scope, level, lease, begun.id.clone()));
                (Outcome { contained: true, reason, cut }, Some(begun))
            }
            Decision::Held { by, proposal, may_prolong, .. } => {
                let (level, lease) = (proposal.level(), proposal.lease);
                let prolonged =
                    may_prolong.then(|| self.ledger.prolong(&by, now.after(lease))).flatten();
                let cut = Some((proposal.scope, level, lease, by));
                let reason = Some(Reason::AlreadyContained);
                (Outcome { contained: false, reason, cut }, prolonged)
            }
            Decision::Record => (Outcome::default(), None),
            Decision::Withhold(proposal, reason) => {
                let (level, lease) = (proposal.level(), proposal.lease);
                let Proposal { scope, measure, .. } = proposal;
                let name = self.ledger.withhold(&scope, measure, now, lease);
                let cut = Some((scope, level, lease, name));
                (Outcome { contained: false, reason: Some(reason), cut }, None)
            }
        }
    }

    /// Begins a containment by the engine's own judgement.
    pub(super) fn begin(
        &mut self,
        proposal: &Proposal,
        now: Timestamp,
        behind: Behind<'_>,
    ) -> Containment {
        self.budget.spend(&proposal.scope, now);
        self.tally.contained += 1;
        let Behind { finding, detector, note } = behind;
        let cause =
            if note.is_escalated { format!("{detector}, escalated") } else { detector.to_owned() };
        let begun = self.ledger.begin(Cut {
            scope: proposal.scope.clone(),
            since: now,
            lease: proposal.lease,
            cause,
            finding: Some(finding.to_owned()),
            by: None,
            measure: proposal.measure,
            trial: self.trial_of(&proposal.scope),
        });
        *self.actors.note(&begun.id) = note;
        begun
    }

    /// How long a cut of this scope is on trial.
    pub(super) fn trial_of(&self, scope: &Scope) -> Span {
        match scope {
            Scope::Host | Scope::ManagementOnly => self.policy.trial.lasts,
            _ => Span::ZERO,
        }
    }

    /// Has the set held and tells of the containment that changed it; what it makes needless goes with it.
    pub(super) fn announce(
        &mut self,
        containment: Containment,
        decided_at: Option<Timestamp>,
        flow: Option<FlowKey>,
        at: Timestamp,
    ) {
        let needless = self.release_needless(&containment);
        self.order_set(decided_at, flow);
        self.record(at, Body::Containment(Box::new(containment)));
        for release in needless {
            self.record(at, Body::Release(release));
        }
    }

    /// Tells whoever is on duty that the fuse has blown, once an hour.
    pub(super) fn page_fuse(&mut self, scope: &Scope, now: Timestamp, at: Timestamp) {
        if !self.budget.pages(scope, now) {
            return;
        }
        let duty = &self.policy.duty;
        let what = if is_of_host(scope) {
            "no further host is cut by itself within the hour, only destinations"
        } else {
            "no further destination or workload is cut by itself within the hour"
        };
        let detail = format!(
            "the automatic budget is spent: {what}; {scope} was due; for {}, or {}: look and order a cut by hand if it must be",
            duty.owner, duty.deputy
        );
        self.record(at, Body::Gap(Gap { cause: "fuse".to_owned(), count: 1, detail }));
    }

    /// Asks the host who owns a flow.
    fn ask_owner(&mut self, flow: FlowKey, waits: Vec<Wait>, at: Timestamp) {
        if waits.is_empty() {
            return;
        }
        self.queue.push_back(Queued::Output(Output::AskOwner(flow)));
        for wait in waits {
            if let Some(displaced) = self.ledger.ask(|asked| asked.add(wait)) {
                self.owner_known(displaced, None, at);
            }
        }
    }
}

/// The cut that the fuse kept from being made, or made less.
fn blown_fuse(decision: &Decision, wanted: Option<&Wanted>) -> Option<Scope> {
    match decision {
        Decision::Contain(_, Some(Reason::Budget))
        | Decision::Withhold(_, Reason::Budget)
        | Decision::Held { is_degraded: true, .. } => wanted.map(|wanted| wanted.scope.clone()),
        Decision::Contain(..)
        | Decision::Held { .. }
        | Decision::Record
        | Decision::Withhold(..) => None,
    }
}

/// Whether a workload may yet be cut: an exempt destination is no reason against, as the workload's cut leaves it open.
const fn asks_for_owner(decision: &Decision, withheld: Option<Reason>) -> bool {
    withheld.is_none()
        && match decision {
            Decision::Contain(_, reason) => !matches!(reason, Some(Reason::Budget)),
            Decision::Held { may_prolong, is_degraded, .. } => *may_prolong && !*is_degraded,
            Decision::Withhold(_, reason) => matches!(reason, Reason::Exemption),
            Decision::Record => false,
        }
}
