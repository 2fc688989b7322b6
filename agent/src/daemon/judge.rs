//! The live caller of the engine: frames and messages in, cuts at once, records afterwards.

mod alert;
mod arming;
mod known;
mod learning;
mod memory;
mod publish;

use super::Message;
use super::board::Board;
use super::cut::{Cut, Effect};
use super::reload::Reload;
use super::scribe::{Entry, Scribe};
use super::shared::Shared;
use crate::clock;
use crate::control::{Answer, InterfaceStatus, OrderRequest};
use crate::guardian::Guardian;
use crate::host::geoip::Places;
use crate::journal::JournalHandle;
use crate::sync::OrderOutcome;
use known::Known;
use learning::Learning;
use memory::Memory;
use sekisho_engine::certify::authority::FleetWord;
use sekisho_engine::rules::SourceCounts;
use sekisho_engine::wire::Frame;
use sekisho_engine::{Engine, HostFact, Input, Output};
use sekisho_schema::event::{Gap, PolicyChange};
use sekisho_schema::order::Order;
use sekisho_schema::policy::Mode;
use sekisho_schema::sealed::Local;
use sekisho_schema::{
    Action, Body, ContainmentId, Coverage, FlowKey, Policy, Process, Receipt, Record, Scope, Span,
    Timestamp, Verified,
};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Addresses of approved names reach the kernel's allowance within this time.
const APPROVE_WITHIN: Span = Span::from_secs(2);

/// Facts of this host that a ruleset depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ground {
    pub(super) uplinks: Vec<String>,
    pub(super) on_link: Vec<ipnet::IpNet>,
    pub(super) collector: Vec<SocketAddr>,
}

/// What does not change while the agent runs.
pub(super) struct Constant {
    pub(super) host: String,
    pub(super) boot: String,
    pub(super) started_at: Timestamp,
    pub(super) journal_dir: std::path::PathBuf,
    /// Known destinations that the kernel holds at most.
    pub(super) preloaded: usize,
    /// Who has the power to cut.
    pub(super) guardian: Guardian,
}

/// The judgement and its hands.
pub(super) struct Judge {
    pub(super) engine: Engine,
    pub(super) constant: Constant,
    pub(super) ground: Ground,
    pub(super) shared: Arc<Shared>,
    scribe: Scribe,
    pub(super) places: Places,
    pub(super) realtime: String,
    pub(super) policy_origin: &'static str,
    pub(super) reload: Option<Reload>,
    /// Whether the frames that come are those that can decide: they are remembered longer.
    pub(super) early: bool,
    alertness: alert::Alertness,
    memory: Memory,
    learning: Learning,
    /// Addresses of approved names that the ruleset knows, or will with the next load.
    approved: BTreeSet<IpAddr>,
    cut: Option<Cut>,
    known: Known,
    board: Board,
    pending: Vec<Record>,
    rearm_at: Option<Timestamp>,
    told_state: (Mode, Mode, usize, u64),
    /// Whether the published state is not the latest.
    stale: bool,
    /// What passes a cut here and now, once somebody has looked.
    gaps: Option<Coverage>,
    leaked: u64,
}

impl Judge {
    #[allow(
        clippy::too_many_arguments,
        reason = "each is a room of its own, wired once in start.rs"
    )]
    pub(super) fn new(
        engine: Engine,
        constant: Constant,
        ground: Ground,
        shared: Arc<Shared>,
        journal: JournalHandle,
        places: Places,
        policy_origin: &'static str,
    ) -> Self {
        let scribe = Scribe::spawn(journal, shared.inbox.clone(), constant.guardian.clone());
        Self {
            engine,
            constant,
            ground,
            shared,
            scribe,
            places,
            realtime: String::new(),
            policy_origin,
            reload: None,
            early: true,
            alertness: alert::Alertness::default(),
            memory: Memory::default(),
            learning: Learning::default(),
            approved: BTreeSet::new(),
            cut: None,
            known: Known::default(),
            board: Board::default(),
            pending: Vec::new(),
            rearm_at: None,
            told_state: (Mode::Learn, Mode::Learn, 0, 0),
            stale: false,
            gaps: None,
            leaked: 0,
        }
    }

    /// Judges a frame; what it decides is in the kernel when this returns.
    pub(super) fn frame(&mut self, frame: Frame<'_>) {
        let at = Timestamp::from_nanos(frame.at_ns);
        if self.engine.poll_timeout().is_some_and(|due| due <= at) {
            self.engine.handle_timeout(at);
            self.drain();
        }
        if self.early {
            self.alert(&frame);
        }
        self.memory.keep(&frame, self.early);
        self.engine.handle(Input::Frame(frame));
        self.drain();
    }

    /// Processes deadlines up to a time.
    pub(super) fn tick(&mut self, now: Timestamp) {
        if self.engine.poll_timeout().is_some_and(|due| due <= now) {
            self.engine.handle_timeout(now);
            self.drain();
        }
    }

    /// Gives the engine anything else than a frame.
    pub(super) fn input(&mut self, input: Input<'_>) {
        self.engine.handle(input);
        self.drain();
    }

    fn drain(&mut self) {
        let mut effect = Effect::default();
        let mut asked = Vec::new();
        let mut any = false;
        let mut approved = None;
        while let Some(output) = self.engine.poll_output() {
            any = true;
            match output {
                Output::Approve(addresses) => approved = Some(addresses),
                Output::AskOwner(flow) => asked.push(flow),
                Output::Contain(order) => {
                    if let Some(cut) = &mut self.cut {
                        let done = cut.apply(&order);
                        effect.owner = done.owner.or(effect.owner);
                        effect.receipts.extend(done.receipts);
                    }
                }
                Output::Record(record) => self.pending.push(*record),
            }
        }
        let owner = effect.owner.clone();
        let applied = !effect.receipts.is_empty();
        if any {
            self.tell(effect);
        }
        if applied && self.cut.as_ref().is_some_and(|cut| !cut.can_cut()) {
            self.cannot_cut("it did not answer".to_owned());
        }
        if approved.is_some_and(|addresses| addresses != self.approved) {
            self.approved = self.engine.approved_addresses();
            // Many names resolve at once: the ruleset is loaded once for them all.
            self.rearm_at.get_or_insert(clock::now().after(APPROVE_WITHIN));
        }
        for flow in asked {
            let known = owner.as_ref().filter(|(known, _)| *known == flow);
            let process = known.map(|(_, process)| Box::new(process.clone()));
            if process.is_some() || !self.scribe.ask(flow) {
                self.owned(flow, process);
            }
        }
    }

    /// Everything after the cut: names, records, receipts of what failed.
    fn tell(&mut self, effect: Effect) {
        let mut pending = std::mem::take(&mut self.pending);
        for mut record in pending.drain(..) {
            let (mut naming, mut freeze) = (None, None);
            if let Body::Finding(finding) = &mut record.body {
                if let Some(flow) = finding.flow.as_ref().map(|flow| flow.key()) {
                    match &effect.owner {
                        Some((known, process)) if *known == flow => {
                            finding.process = Some(process.clone());
                            // Of a process that has ended the socket told the cgroup at most; who opened it may be remembered.
                            naming = (process.pid == 0).then_some(flow);
                        }
                        // Its sockets are gone already: asking again would only cost time.
                        Some(_) => {}
                        None => naming = Some(flow),
                    }
                    finding.place = self.places.place(flow.remote.ip());
                }
                tracing::warn!(detector = %finding.detector, finding = %finding.id, action = ?finding.decision.action, "finding");
                freeze = self.freeze(finding);
            }
            let wanted = previewed(&record.body);
            self.take_down(Entry { record, naming, freeze });
            if let Some((scope, containment)) = wanted {
                self.preview_for(scope, containment);
            }
        }
        self.pending = pending;
        for receipt in effect.receipts {
            if let Some(nanos) = receipt.time_to_contain_ns {
                self.shared.metrics.observe_time_to_contain(Span::from_nanos(nanos));
            }
            tracing::warn!(containment = %receipt.containment, scope = %receipt.scope, applied = receipt.applied, time_to_contain_ns = receipt.time_to_contain_ns, "containment");
            if !receipt.applied {
                self.receipt(receipt);
            }
        }
        self.stale = true;
    }

    fn owned(&mut self, flow: FlowKey, process: Option<Box<Process>>) {
        self.input(Input::Fact(HostFact::Owner { flow, process }, clock::now()));
    }

    /// The wall clock was set: leases keep their length.
    pub(super) fn clock_set(&mut self, step: Span, now: Timestamp) {
        let seconds = step.as_secs_f64();
        self.gap("clock-step", 1, format!("the wall clock was set by {seconds:.3} s"));
        self.rearm_at = self.rearm_at.map(|at| at.after(step));
        if let Some(cut) = &mut self.cut {
            cut.follow_clock(step);
        }
        self.input(Input::Fact(HostFact::ClockSet(step), now));
    }

    /// Writes a record down and takes note of it.
    pub(super) fn write_down(&mut self, record: Record) {
        self.take_down(Entry { record, naming: None, freeze: None });
    }

    fn take_down(&mut self, entry: Entry) {
        self.board.note(&entry.record.body);
        self.shared.metrics.count(&entry.record.body);
        self.scribe.write(entry);
    }

    fn receipt(&mut self, receipt: Receipt) {
        let proof = &receipt.proof;
        if let Some(exemptions) = &proof.exemptions {
            self.shared.metrics.values().exemptions_ok = Some(exemptions == "ok");
        }
        self.input(Input::Receipt(Box::new(receipt), clock::now()));
    }

    /// Says that sight or records were lost.
    pub(super) fn gap(&mut self, cause: &str, count: u64, detail: String) {
        self.write_down(Record {
            at: clock::now(),
            body: Body::Gap(Gap { cause: cause.to_owned(), count, detail }),
        });
    }

    /// Adopts a policy: the ruleset first, so that what it decides can be held.
    pub(super) fn adopt(&mut self, policy: Verified<Policy>, origin: &'static str) {
        self.policy_origin = origin;
        self.shared
            .order_bounds
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone_from(&policy.orders);
        self.arm(&policy);
        self.input(Input::Policy(Box::new(policy), clock::now()));
        self.wish_known();
        self.publish();
    }

    /// Takes note of other interfaces or addresses.
    pub(super) fn move_to(
        &mut self,
        uplinks: Vec<String>,
        on_link: Vec<ipnet::IpNet>,
        addresses: Vec<IpAddr>,
    ) {
        self.ground.uplinks = uplinks;
        self.ground.on_link = on_link;
        self.input(Input::Fact(HostFact::Addresses(addresses), clock::now()));
        if self.cut.is_some() {
            let policy = self.engine.policy().clone();
            self.arm(&policy);
            self.wish_known();
        }
    }

    fn collector_at(&mut self, addresses: Vec<SocketAddr>) {
        tracing::info!(?addresses, "found the collector's address");
        let hosts = addresses.iter().map(SocketAddr::ip).collect();
        self.ground.collector = addresses;
        self.input(Input::Fact(HostFact::Collectors(hosts), clock::now()));
        if self.cut.is_some() {
            let policy = self.engine.policy().clone();
            self.arm(&policy);
            self.wish_known();
        }
    }

    /// Carries a message out; `false` ends the agent.
    pub(super) fn message(&mut self, message: Message) -> bool {
        match message {
            Message::Coverage { gaps, record } => self.uncovered(gaps, record),
            Message::Collector(addresses) => self.collector_at(addresses),
            Message::Drift(drifted) => self.mend(&drifted),
            Message::Detectors(rules) => self.engine.adopt_detectors(*rules, clock::now()),
            Message::Guardian(presence) => self.guardian_is(presence),
            Message::KnownDue => self.wish_known(),
            Message::Order(request) => self.order(request),
            Message::Policy(policy) => self.adopt(*policy, "collector"),
            Message::Proved { containment, proof, sockets_destroyed } => {
                let cut = self.cut.as_mut();
                if let Some(receipt) =
                    cut.and_then(|cut| cut.proved(&containment, proof, sockets_destroyed))
                {
                    self.receipt(receipt);
                    self.publish();
                }
            }
            Message::Centre(order, answer) => self.order_of_centre(*order, answer),
            Message::Confirmed(id) => {
                self.input(Input::Fact(HostFact::Confirmed(id), clock::now()));
                self.publish();
            }
            Message::GroupSpent(count, since) => {
                self.input(Input::Fact(HostFact::GroupSpent { count, since }, clock::now()));
            }
            Message::Preview(request) => self.preview(*request),
            Message::Piece(piece, back) => {
                // Where nobody takes it back, it is dropped here.
                let _ = back.send(self.engine.exchange_piece(*piece));
            }
            Message::Learning(news) => self.learn_of(*news),
            Message::LookAtDocuments => self.look_at_documents(),
            Message::Fleet { of, left } => {
                let at = clock::now();
                self.engine.authority_mut().fleet(FleetWord { of, left, at });
            }
            Message::SpaceFell(bytes) => self.space_fell(bytes),
            Message::Owner(flow, process) => self.owned(flow, process),
            Message::Record(record) => self.write_down(*record),
            Message::Reload(request) => {
                self.look_at_documents();
                if let Some(reload) = &self.reload {
                    reload.ask(request);
                }
            }
            Message::Reloaded { counts, refused, forced_by } => {
                self.reloaded(&counts, refused, forced_by);
            }
            Message::Stop => {
                self.tell_unframed();
                return false;
            }
        }
        true
    }

    /// Rules were read anew, or the old ones stay; on record either way.
    fn reloaded(
        &mut self,
        counts: &SourceCounts,
        refused: Option<String>,
        forced_by: Option<String>,
    ) {
        let version = self.engine.policy_version();
        let outcome = if refused.is_none() { "rules-reloaded" } else { "rules-refused" };
        let why = refused.or_else(|| forced_by.map(|by| format!("forced by {by}")));
        let total = self.engine.rules().indicators.counts().total();
        tracing::info!(outcome, indicators = total, "rules");
        self.tell_indicators(counts, total);
        let change = PolicyChange { version, outcome: outcome.to_owned(), why, in_force: version };
        self.write_down(Record { at: clock::now(), body: Body::Policy(change) });
        self.wish_known();
        self.drain();
        self.publish();
    }

    pub(super) fn tell_indicators(&self, counts: &SourceCounts, total: usize) {
        let mut values = self.shared.metrics.values();
        values.indicators.clear();
        for (source, count) in counts {
            values.indicators.insert(("list".to_owned(), source.clone()), *count);
        }
        values.indicators.insert(("all".to_owned(), "all".to_owned()), total as u64);
    }

    /// Carries out an order of the centre, whose seal was checked, and says what came of it.
    fn order_of_centre(
        &mut self,
        order: Verified<Order>,
        answer: tokio::sync::oneshot::Sender<OrderOutcome>,
    ) {
        let outcome = self.engine.handle_order(order, clock::now());
        self.drain();
        self.publish();
        let failure = self.cut.as_ref().and_then(Cut::failure).map(str::to_owned);
        let outcome = match (outcome, failure) {
            (Ok(id), None) => {
                OrderOutcome { done: true, detail: "done".to_owned(), containment: Some(id) }
            }
            (Ok(id), Some(failure)) => OrderOutcome {
                done: false,
                detail: format!("{id} was decided and the kernel refused: {failure}"),
                containment: Some(id),
            },
            (Err(refused), _) => {
                OrderOutcome { done: false, detail: refused.to_string(), containment: None }
            }
        };
        // The link may have gone: the order is on record, and is told again.
        let _ = answer.send(outcome);
    }

    fn order(&mut self, request: OrderRequest) {
        let outcome = self
            .engine
            .handle_order(Verified::locally(request.order, Local::ControlSocket), clock::now());
        self.drain();
        self.publish();
        let failure = self.cut.as_ref().and_then(Cut::failure).map(str::to_owned);
        let answer = match (outcome, failure) {
            (Ok(containment), None) => Answer::Done {
                detail: format!("{containment}: done"),
                containments: self.board.list(),
            },
            (Ok(containment), Some(failure)) => Answer::Refused {
                error: format!("{containment} was decided and the kernel refused: {failure}"),
                state: "NOT in effect; the agent tries again".to_owned(),
                help: "run `sekisho doctor`; until it holds, cut by other means".to_owned(),
            },
            (Err(refused), _) => Answer::Refused {
                error: refused.to_string(),
                state: "what is cut stays as it was".to_owned(),
                help: refused.help().to_owned(),
            },
        };
        // A caller that went away does not change what was done.
        let _ = request.answer.send(answer);
    }

    /// What is due about once a second.
    pub(super) fn housekeeping(&mut self, capture: &[InterfaceStatus]) {
        let now = clock::now();
        if self.rearm_at.is_some_and(|at| at <= now) {
            let policy = self.engine.policy().clone();
            self.arm(&policy);
            self.wish_known();
        }
        self.stand_down();
        self.pass_flows_on();
        self.tell_unframed();
        self.tend_learning(capture, now);
        self.chores(now);
        self.measure(capture);
        self.publish_with(capture.to_vec());
    }

    /// Receipts that are due: proofs that never came, counts of what leaked, cuts tried again.
    pub(super) fn chores(&mut self, now: Timestamp) {
        let Some(cut) = &mut self.cut else { return };
        let mut receipts = cut.retry(now);
        receipts.extend(cut.overdue(now));
        receipts.extend(cut.recounts_due(now));
        for receipt in receipts {
            self.receipt(receipt);
        }
    }

    /// When [`Judge::chores`] has something to do.
    pub(super) fn next_chore(&self) -> Option<Timestamp> {
        self.cut.as_ref().and_then(Cut::next_chore)
    }
}

/// The cut that a person has to confirm before it holds: one that the mode withheld, or that is on trial.
fn previewed(body: &Body) -> Option<(Scope, ContainmentId)> {
    match body {
        Body::Finding(finding) if finding.decision.action == Action::Withhold => {
            let scope = finding.decision.scope.as_deref()?.parse().ok();
            scope.zip(finding.decision.containment.clone())
        }
        Body::Containment(held) if held.trial_until.is_some() => {
            Some((held.scope.clone(), held.id.clone()))
        }
        _ => None,
    }
}
