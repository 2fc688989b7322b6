//! What follows from knowing, or not, who owns a flow: the cut of a workload, and the next level for an actor
//! that tried other ways.

use super::Engine;
use super::judging::Behind;
use crate::contain::{Note, Origin, Wait, Want};
use crate::judge::{Decision, HOST, Proposal, Verdict, WORKLOAD, Wanted, Whose, Workload};
use sekisho_schema::event::{Gap, Release};
use sekisho_schema::{
    Body, ContainmentId, FlowKey, Grade, Measure, Process, Reason, Scope, Timestamp,
};

impl Engine {
    /// Takes in who owns a flow that was asked about; `None` when nobody of this host does.
    pub(super) fn take_owner(&mut self, flow: &FlowKey, process: Option<&Process>, at: Timestamp) {
        self.episodes.adopt_owner(flow, process);
        for wait in self.ledger.ask(|asked| asked.take(flow)) {
            self.owner_known(wait, process, at);
        }
    }

    /// Does what waited for an owner; without one what can be done without.
    pub(super) fn owner_known(&mut self, wait: Wait, process: Option<&Process>, at: Timestamp) {
        if self.withheld_by().is_some() {
            return;
        }
        match wait.want.clone() {
            Want::Workload { workload, meanwhile } => {
                match self.cut_workload(&wait, workload, process, false, at) {
                    Ok(()) => self.open_destination(workload, meanwhile.as_ref(), at),
                    Err(why) => self.tell_uncut(&wait, meanwhile.as_ref(), &why, at),
                }
            }
            Want::Escalate { actor, from } => self.escalate(&wait, actor, from, process, at),
        }
    }

    /// Cuts the workload of a process.
    ///
    /// # Errors
    /// Why not, as a clause.
    fn cut_workload(
        &mut self,
        wait: &Wait,
        workload: Workload,
        process: Option<&Process>,
        is_escalated: bool,
        at: Timestamp,
    ) -> Result<(), String> {
        let process = process.ok_or("nobody of this host was found to own the flow")?;
        if !process.may_be_scope() {
            return Err(format!(
                "process {} is only one of those that could own the flow",
                process.pid
            ));
        }
        let scope = match (&process.container, &process.cgroup) {
            (Some(container), _) => Scope::Container(container.clone()),
            (None, Some(cgroup)) => Scope::Cgroup(cgroup.clone()),
            (None, None) => {
                return Err(format!("the cgroup of process {} is unknown", process.pid));
            }
        };
        let barred = self.exemptions.forbidding_alone(&scope).or_else(|| {
            let cgroup = process.cgroup.clone().map(Scope::Cgroup)?;
            self.exemptions.forbidding_alone(&cgroup)
        });
        if let Some(barred) = barred {
            return Err(format!("{scope} is {barred}"));
        }
        let note = Note {
            actor: Some(Whose::Own),
            cgroup: process.cgroup.clone(),
            target: wait.origin.target,
            is_escalated,
            ..Note::default()
        };
        let wanted = Wanted { scope, measure: workload.measure, lease: wait.lease, workload: None };
        self.begin_late(&wait.origin, wanted, note, at)
    }

    /// Decides on a cut that could not be decided on with its finding.
    pub(super) fn begin_late(
        &mut self,
        origin: &Origin,
        wanted: Wanted,
        note: Note,
        at: Timestamp,
    ) -> Result<(), String> {
        let now = self.now;
        let what = wanted.scope.to_string();
        let verdict = Verdict { grade: Grade::Malicious, wanted: Some(wanted), target: None };
        match self.decide_on(&verdict, now) {
            Decision::Contain(proposal, _) => {
                let behind = Behind { finding: &origin.finding, detector: origin.detector, note };
                let begun = self.begin(&proposal, now, behind);
                self.announce(begun, Some(origin.at), Some(origin.flow), at);
                Ok(())
            }
            Decision::Held { by, proposal, may_prolong, .. } => {
                let until = now.after(proposal.lease);
                let prolonged = may_prolong.then(|| self.ledger.prolong(&by, until)).flatten();
                if let Some(prolonged) = prolonged {
                    self.announce(prolonged, Some(origin.at), Some(origin.flow), at);
                }
                Ok(())
            }
            Decision::Record => Err(format!("{what} is not to be cut")),
            Decision::Withhold(Proposal { scope, .. }, reason) => {
                if reason == Reason::Budget {
                    self.page_fuse(&scope, now, at);
                }
                Err(match reason {
                    Reason::Budget => format!("the budget for {what} is spent"),
                    Reason::Exemption => format!("{what} is exempt"),
                    _ => format!("no cut of {what} can be held"),
                })
            }
        }
    }

    /// Opens the destination again where the policy wants the workload alone cut.
    fn open_destination(
        &mut self,
        workload: Workload,
        meanwhile: Option<&ContainmentId>,
        at: Timestamp,
    ) {
        let Some(id) = meanwhile.filter(|_| workload.alone) else { return };
        let is_own = self
            .ledger
            .held(id)
            .is_some_and(|held| held.by.is_none() && matches!(held.scope, Scope::Destination(_)));
        if !is_own {
            return;
        }
        let Some(released) = self.ledger.release(id) else { return };
        self.forget(id);
        self.order_set(None, None);
        let release = Release {
            containment: released.id,
            scope: released.scope,
            cause: "escalated".to_owned(),
            by: None,
            reason: Some("the workload behind it is cut now".to_owned()),
        };
        self.record(at, Body::Release(release));
    }

    /// Says why a workload stays uncut; the receipt of what is cut instead says so too.
    fn tell_uncut(
        &mut self,
        wait: &Wait,
        meanwhile: Option<&ContainmentId>,
        why: &str,
        at: Timestamp,
    ) {
        let instead = match meanwhile.and_then(|id| self.ledger.held(id)) {
            Some(held) => format!("{} ({}) stays cut", held.scope, held.id),
            None => "nothing is cut instead".to_owned(),
        };
        let flow = &wait.origin.flow;
        let detail = format!(
            "the workload behind {} ({} {} -> {}) is not cut: {why}; {instead}",
            wait.origin.finding, flow.transport, flow.local, flow.remote
        );
        if let Some(id) = meanwhile.filter(|id| self.ledger.held(id).is_some()) {
            let open = &mut self.actors.note(id).open;
            let line = format!("the workload itself: {why}");
            if !open.contains(&line) && open.len() < OPEN {
                open.push(line);
            }
        }
        self.record(at, Body::Gap(Gap { cause: "workload".to_owned(), count: 1, detail }));
    }

    /// The next level for an actor of this host that tried other ways: its workload where that is known and
    /// may be cut, else the host.
    fn escalate(
        &mut self,
        wait: &Wait,
        actor: Whose,
        from: u8,
        process: Option<&Process>,
        at: Timestamp,
    ) {
        let up_to = self.policy.escalation.up_to;
        if self.actors.standing(actor, self.ledger.set()).is_none() {
            // It ended meanwhile, or somebody released it.
            return;
        }
        let cgroup = process
            .filter(|process| process.may_be_scope())
            .and_then(|process| process.cgroup.as_deref());
        // Another program's traffic is no sign that the contained one got out.
        if from >= WORKLOAD
            && cgroup.is_some_and(|cgroup| self.actors.is_other_workload(actor, cgroup))
        {
            return;
        }
        if from < WORKLOAD {
            let workload = Workload { measure: Measure::Cut, alone: false };
            match self.cut_workload(wait, workload, process, true, at) {
                Ok(()) => return,
                Err(why) if up_to < HOST => return self.tell_uncut(wait, None, &why, at),
                Err(_) => {}
            }
        }
        let Some(wanted) = Wanted::cut(HOST, actor, wait.origin.target, wait.lease) else { return };
        let note = Note {
            actor: Some(actor),
            target: wait.origin.target,
            is_escalated: true,
            ..Note::default()
        };
        if let Err(why) = self.begin_late(&wait.origin, wanted, note, at) {
            self.tell_uncut(wait, None, &why, at);
        }
    }
}

/// Lines that a receipt gains of what is open.
const OPEN: usize = 4;
