//! The live caller of the engine: frames and messages in, cuts at once, records afterwards.

mod known;
mod memory;
mod publish;

use super::board::Board;
use super::cut::{Cut, Effect};
use super::reload::Reload;
use super::shared::Shared;
use super::warden::{Presence, Warden};
use super::{Drifted, Message};
use crate::chain::causes;
use crate::clock;
use crate::control::{Answer, InterfaceStatus, OrderRequest};
use crate::enforce::{KernelAllowance, Plan};
use crate::guardian::Guardian;
use crate::host::geoip::Places;
use crate::host::own_cgroups;
use crate::host::owner::Owners;
use crate::journal::JournalHandle;
use crate::sync::OrderOutcome;
use known::Known;
use memory::Memory;
use sekisho_engine::rules::SourceCounts;
use sekisho_engine::wire::Frame;
use sekisho_engine::{Engine, HostFact, Input, Output};
use sekisho_schema::event::{Gap, PolicyChange};
use sekisho_schema::order::Order;
use sekisho_schema::policy::Mode;
use sekisho_schema::sealed::Local;
use sekisho_schema::{
    Action, Body, Containment, ContainmentId, Coverage, FlowKey, Policy, Process, Receipt, Record, Scope,
    Span, Timestamp, Verified,
};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An enforcer that could not be opened is tried again after this.
const REARM_AFTER: Span = Span::from_secs(10);
/// The same for a guardian that is gone: it tells when it is there again, so this is for one that did not tell.
const REARM_SOON: Span = Span::from_secs(2);
/// The kernel's remaining time is read a little after it was counted.
const ADOPTING: Span = Span::from_secs(2);
/// Time of an allowance (detection.md, section 3: channel V).
const ALLOWANCE_WINDOW: Span = Span::from_hours(7 * 24);
/// Addresses of approved names reach the kernel's allowance within this time.
const APPROVE_WITHIN: Span = Span::from_secs(2);
/// Time within each second that may go into asking who owns the flows of findings that cut nothing:
/// a flood of findings must not keep the frames behind it waiting.
const ASKING: Duration = Duration::from_millis(5);

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
    pub(super) journal: JournalHandle,
    pub(super) places: Places,
    pub(super) realtime: String,
    pub(super) policy_origin: &'static str,
    pub(super) reload: Option<Reload>,
    /// Whether the frames that come are those that can decide: they are remembered longer.
    pub(super) early: bool,
    memory: Memory,
    /// Addresses of approved names that the ruleset knows, or will with the next load.
    approved: BTreeSet<IpAddr>,
    cut: Option<Cut>,
    known: Known,
    board: Board,
    owners: Option<Owners>,
    pending: Vec<Record>,
    rearm_at: Option<Timestamp>,
    told_state: (Mode, Mode, usize, u64),
    /// Since when, and how long, owners were asked for.
    asked: (Instant, Duration),
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
        Self {
            engine,
            constant,
            ground,
            shared,
            journal,
            places,
            realtime: String::new(),
            policy_origin,
            reload: None,
            early: true,
            memory: Memory::default(),
            approved: BTreeSet::new(),
            cut: None,
            known: Known::default(),
            board: Board::default(),
            owners: None,
            pending: Vec::new(),
            rearm_at: None,
            told_state: (Mode::Learn, Mode::Learn, 0, 0),
            asked: (Instant::now(), Duration::ZERO),
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
            let process = self.owner_of(&flow, owner.as_ref()).map(Box::new);
            self.input(Input::Fact(HostFact::Owner { flow, process }, clock::now()));
        }
    }

    /// Everything after the cut: names, records, receipts of what failed.
    fn tell(&mut self, effect: Effect) {
        let mut pending = std::mem::take(&mut self.pending);
        for mut record in pending.drain(..) {
            if let Body::Finding(finding) = &mut record.body {
                if let Some(flow) = &finding.flow {
                    let key = flow.key();
                    finding.process = self.owner_of(&key, effect.owner.as_ref());
                    finding.place = self.places.place(key.remote.ip());
                }
                tracing::warn!(detector = %finding.detector, finding = %finding.id, action = ?finding.decision.action, "finding");
                self.freeze(finding);
            }
            let wanted = previewed(&record.body);
            self.write_down(record);
            if let Some((scope, containment)) = wanted {
                self.preview_for(scope, containment);
            }
        }
        self.pending = pending;
        for receipt in effect.receipts {
            if let Some(nanos) = receipt.time_to_contain_ns {
                self.shared.metrics.observe_time_to_contain(Span::from_nanos(nanos));
            }
            tracing::warn!(containment = %receipt.containment, scope = %receipt.scope, applied = receipt.applied, time_to_contain_ns = receipt.time_to_contain_ns, sockets = receipt.sockets_destroyed, "containment");
            if !receipt.applied {
                self.receipt(receipt);
            }
        }
        self.stale = true;
    }

    fn owner_of(&mut self, flow: &FlowKey, known: Option<&(FlowKey, Process)>) -> Option<Process> {
        match known {
            Some((key, process)) if key == flow => Some(process.clone()),
            // Its sockets are gone already: asking again would only cost time.
            Some(_) => None,
            None => self.ask_owner(flow),
        }
    }

    fn ask_owner(&mut self, flow: &FlowKey) -> Option<Process> {
        let began = Instant::now();
        if began.duration_since(self.asked.0) >= Duration::from_secs(1) {
            self.asked = (began, Duration::ZERO);
        }
        if self.asked.1 >= ASKING {
            return None;
        }
        let process = self.owners.as_mut()?.owner(flow).ok().flatten();
        self.asked.1 += began.elapsed();
        process
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
        self.board.note(&record.body);
        self.shared.metrics.count(&record.body);
        self.journal.record(record);
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

    fn plan(&self, policy: &Policy) -> Plan {
        Plan {
            uplinks: self.ground.uplinks.clone(),
            inside: policy.inside.clone(),
            on_link: self.ground.on_link.clone(),
            exempt: policy.exempt.clone(),
            collector: self.ground.collector.clone(),
            known: !self.cutting_grades(policy).is_empty(),
            names: policy.names.clone(),
            allowance: self.kernel_allowance(policy),
            own_cgroups: own_cgroups(),
            bridged: has_bridge(),
            ..Plan::default()
        }
    }

    /// The bound that the kernel holds by itself; only where cuts are made at all.
    fn kernel_allowance(&self, policy: &Policy) -> Option<KernelAllowance> {
        let allowance = &policy.allowance;
        if !allowance.in_kernel || policy.mode != Mode::Enforce {
            return None;
        }
        let named = allowance.approved.iter().filter_map(|text| {
            let network = text.parse::<ipnet::IpNet>().ok();
            network.or_else(|| text.parse::<IpAddr>().ok().map(ipnet::IpNet::from))
        });
        Some(KernelAllowance {
            bytes: allowance.per_destination_bytes,
            window: ALLOWANCE_WINDOW,
            approved: named.chain(self.approved.iter().copied().map(ipnet::IpNet::from)).collect(),
        })
    }

    /// Loads the ruleset that a policy needs. Unless it says enforce, the kernel is not touched; but
    /// what it holds from before is ours to tell and to release whatever the mode.
    fn arm(&mut self, policy: &Policy) {
        self.rearm_at = None;
        let is_needed = || {
            policy.mode == Mode::Enforce
                || self.is_holding().unwrap_or(false)
                || known::is_left_behind(&self.constant.guardian)
        };
        if self.cut.is_none() && !is_needed() {
            return;
        }
        let plan = self.plan(policy);
        let outcome = match &mut self.cut {
            Some(cut) => cut.reload(&plan).map_err(|error| causes(&error)),
            None => self.open_cut(&plan),
        };
        if let Err(why) = &outcome {
            tracing::error!(error = %why, state = "detection goes on; nothing new can be cut", help = "run `sekisho doctor`", "cannot enforce");
            self.rearm_at = Some(clock::now().after(REARM_AFTER));
        }
        self.input(Input::Fact(HostFact::Enforcement(outcome), clock::now()));
        self.adopt_held();
    }

    /// Takes our tables away once nothing needs them: only enforce has any.
    fn stand_down(&mut self) {
        if self.cut.is_none()
            || self.rearm_at.is_some()
            || self.engine.requested_mode() == Mode::Enforce
            || !self.engine.held().containments.is_empty()
            || self.is_holding().unwrap_or(true)
        {
            return;
        }
        let Some(cut) = &mut self.cut else { return };
        match cut.remove() {
            Ok(()) => {
                self.cut = None;
                self.wish_known();
                self.shared.metrics.values().table_owned = false;
                tracing::info!("nothing is cut and the mode cuts nothing: our tables are gone");
            }
            Err(error) => {
                tracing::error!(error = %causes(&error), state = "they cut nothing", help = "run `sekisho doctor`", "cannot take our tables away");
                self.rearm_at = Some(clock::now().after(REARM_AFTER));
            }
        }
    }

    fn open_cut(&mut self, plan: &Plan) -> Result<(), String> {
        let guardian = self.constant.guardian.clone();
        let warden = Warden::spawn(self.shared.inbox.clone(), guardian.clone())
            .map_err(|error| format!("no thread for the warden: {error}"))?;
        let mut cut = Cut::open(plan, guardian, warden).map_err(|error| causes(&error))?;
        if let Some(gaps) = &self.gaps {
            cut.cover(gaps);
        }
        self.cut = Some(cut);
        Ok(())
    }

    /// What the kernel holds from before the start is ours to keep and to tell.
    fn adopt_held(&mut self) {
        let Some(cut) = &mut self.cut else { return };
        let held = cut.take_held();
        if held.is_empty() {
            return;
        }
        let now = clock::now();
        let told = super::board::recall(&self.constant.journal_dir, &held);
        let mut containments = Vec::new();
        for held in held {
            let (known, sentence) = told.get(&held.id).cloned().unwrap_or_default();
            if let (Some(sentence), Some(finding)) =
                (sentence, known.as_ref().and_then(|known| known.finding.clone()))
            {
                self.board.explain(&finding, &sentence);
            }
            let until = now.after(held.until_in);
            containments.push(match known {
                // What the kernel counts down on trial is the trial, not the lease. More time than that: it was confirmed.
                Some(known)
                    if known.trial_until.is_some_and(|trial| until <= trial.after(ADOPTING)) =>
                {
                    Containment { trial_until: Some(until), scope: held.scope, ..known }
                }
                Some(known) => Containment { until, scope: held.scope, trial_until: None, ..known },
                None => Containment {
                    id: held.id,
                    level: held.scope.level(),
                    scope: held.scope,
                    since: now,
                    until,
                    cause: "held by the kernel before this start".to_owned(),
                    finding: None,
                    by: None,
                    measure: sekisho_schema::Measure::Cut,
                    trial_until: None,
                },
            });
        }
        tracing::warn!(containments = containments.len(), "adopted what the kernel holds");
        self.input(Input::Fact(HostFact::Held(containments.clone()), now));
        let set = self.engine.held().clone();
        if let Some(cut) = &mut self.cut {
            cut.adopt(set, containments);
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
            Message::Proved { containment, proof } => {
                if let Some(receipt) =
                    self.cut.as_mut().and_then(|cut| cut.proved(&containment, proof))
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
            Message::Record(record) => self.write_down(*record),
            Message::Reload(request) => {
                if let Some(reload) = &self.reload {
                    reload.ask(request);
                }
            }
            Message::Reloaded { counts, refused, forced_by } => {
                self.reloaded(&counts, refused, forced_by);
            }
            Message::Stop => return false,
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

    fn mend(&mut self, drifted: &Drifted) {
        if self.cut.is_none() {
            // Told before our tables were taken away.
            return;
        }
        let detail = drifted.what.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
        let who = drifted.who.as_ref().map(|who| format!(", by {who}")).unwrap_or_default();
        let after = match &drifted.failure {
            None => "was set right".to_owned(),
            Some(why) => format!("COULD NOT be set right ({why})"),
        };
        tracing::error!(what = %detail, who = ?drifted.who, failure = ?drifted.failure, "the kernel held something else than it should");
        self.gap(
            "drift",
            drifted.what.len() as u64,
            format!("the kernel held something else than decided and {after}: {detail}{who}"),
        );
        self.known.look();
        self.publish();
    }

    /// The guardian went, or came again.
    fn guardian_is(&mut self, presence: Presence) {
        match presence {
            Presence::Back => {
                if self.cut.is_some() || self.engine.requested_mode() == Mode::Enforce {
                    let policy = self.engine.policy().clone();
                    self.arm(&policy);
                    self.chores(clock::now());
                    self.wish_known();
                    self.known.look();
                }
            }
            Presence::Gone(why) => {
                tracing::error!(error = %why, state = "what is cut stays cut until its lease ends; nothing new can be cut", "the guardian is gone");
                if let Some(cut) = &mut self.cut {
                    cut.lose();
                }
                self.cannot_cut(why);
            }
        }
        self.publish();
    }

    /// Nobody can cut: said before anything else is, so that no mode is told that is not in effect.
    fn cannot_cut(&mut self, why: String) {
        let why = format!("the guardian is gone: {why}");
        self.rearm_at = Some(clock::now().after(REARM_SOON));
        self.input(Input::Fact(HostFact::Enforcement(Err(why)), clock::now()));
    }

    /// Whether the kernel holds containments of ours, whoever put them there.
    fn is_holding(&self) -> Result<bool, crate::guardian::AskGuardianError> {
        Ok(!self.constant.guardian.asker()?.held()?.is_empty())
    }

    /// The kernel's packet log of a group, bound by the guardian.
    pub(super) fn packet_log(&mut self, group: u16) -> Result<std::os::fd::OwnedFd, String> {
        let Some(cut) = &mut self.cut else { return Err("nothing is loaded".to_owned()) };
        cut.packet_log(group).map_err(|error| causes(&error))
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

/// Whether this host has a bridge: frames between its ports pass none of the other hooks.
fn has_bridge() -> bool {
    std::fs::read_dir("/sys/class/net")
        .is_ok_and(|devices| devices.flatten().any(|device| device.path().join("bridge").is_dir()))
}
