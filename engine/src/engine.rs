//! The engine: the stages in their order, orders and records out.
//!
//! Frames and documents enter through [`Engine::handle`], each with its time; deadlines are processed
//! at their own time, so that it changes nothing when or how often [`Engine::handle_timeout`] is
//! called in between. The same inputs give the same outputs.

mod adopting;
mod holding;
mod judging;
mod orders;
mod workload;

pub use self::orders::OrderRefused;

use crate::certify::authority::Authority;
use crate::contain::{Actors, Leak, Leaks, Ledger};
use crate::detect::{Approvals, Detectors, Outlook, Signal};
use crate::flow::{Observation, ObservationKind, Perimeter, Totals, Tracker};
use crate::input::Input;
use crate::judge::{Approved, Budget, Exemptions, Leaving, decide};
use crate::learn::{Baseline, Destinations, Ended, Episodes, FlowEnd, Unlocked};
use crate::limits::Limits;
use crate::output::{ContainOrder, Output};
use crate::report::{Recent, Untold};
use crate::rules::Rules;
use crate::wire::{Frame, Unparsed};
use sekisho_schema::certificate::Certificate;
use sekisho_schema::event::{Gap, Summary};
use sekisho_schema::{Body, ContainmentId, ContainmentSet, FlowKey, Mode, Policy, Record};
use sekisho_schema::{Span, Timestamp, Transport, Verified};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

const HOUR_NANOS: i64 = 3_600_000_000_000;
/// Frames of several queues come a little out of order; further back the clock was set.
const CLOCK_STEP: Span = Span::from_secs(1);

/// What the engine needs to begin.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The host's name in findings and in the names of containments.
    pub host: String,
    /// Every cap.
    pub limits: Limits,
    /// Seed of the hashes of tables keyed by what an attacker may choose; changes no output.
    pub hash_seed: u64,
}

/// The pure judgement: frames and documents in, containments and records out.
pub struct Engine {
    host: String,
    now: Timestamp,
    tracker: Tracker,
    perimeter: Perimeter,
    own: BTreeSet<IpAddr>,
    policy: Policy,
    approvals: Approvals,
    exemptions: Exemptions,
    enforcement: Result<(), String>,
    rules: Rules,
    detectors: Detectors,
    learned: Destinations,
    episodes: Episodes,
    authority: Authority,
    budget: Budget,
    ledger: Ledger,
    leaks: Leaks,
    actors: Actors,
    approved: Approved,
    /// Whether this agent has a collector.
    enrolled: bool,
    /// Whether a kernel was ever spoken of that could hold a cut; in a replay there is none.
    has_hands: bool,
    limits: Limits,
    recent: Recent,
    signals: Vec<Signal>,
    ended: Ended,
    /// What shall be held: never behind anything that is only told.
    orders: VecDeque<ContainOrder>,
    queue: VecDeque<Queued>,
    tally: Tally,
    /// When the policy in force is to be reported as frozen.
    frozen_at: Option<Timestamp>,
    /// The end of the hour in which traffic was seen.
    hour_ends: Option<Timestamp>,
}

/// What moves the flow stage.
enum Step<'a> {
    Deadline(Timestamp),
    Frame(u64, &'a Frame<'a>),
}

#[derive(Debug, Default)]
struct Tally {
    frames: u64,
    first_at: Option<Timestamp>,
    last_at: Option<Timestamp>,
    findings: BTreeMap<String, u64>,
    contained: u64,
    dropped: u64,
    evicted_told: u64,
    /// Whether the frames lie behind an earlier one, and that was told.
    behind: bool,
}

/// What waits to leave. A finding is put into words when it is asked for: a cut does not wait for sentences.
#[derive(Debug)]
enum Queued {
    Output(Output),
    Finding(Timestamp, Box<Untold>),
}

impl Engine {
    /// An engine without rules, under the built-in dry-run policy.
    #[must_use]
    pub fn new(config: EngineConfig) -> Self {
        let EngineConfig { host, limits, hash_seed } = config;
        let policy = Policy::built_in(Mode::DryRun);
        let perimeter = Perimeter::new(&policy.inside, &[]);
        let mut tracker = Tracker::new(&limits, hash_seed);
        tracker.set_perimeter(perimeter.clone());
        let mut exemptions = Exemptions::default();
        exemptions.adopt_policy(&policy);
        Self {
            now: Timestamp::from_nanos(i64::MIN),
            tracker,
            perimeter,
            own: BTreeSet::new(),
            approvals: Approvals::new(&policy),
            policy,
            exemptions,
            enforcement: Ok(()),
            rules: Rules::default(),
            detectors: Detectors::new(&limits, hash_seed),
            learned: Destinations::new(limits.destinations, hash_seed),
            episodes: Episodes::new(&limits, hash_seed),
            authority: Authority::default(),
            budget: Budget::default(),
            ledger: Ledger::new(&host, limits.containments, limits.asked_owners),
            leaks: Leaks::default(),
            actors: Actors::default(),
            approved: Approved::default(),
            enrolled: false,
            has_hands: false,
            recent: Recent::new(&limits, hash_seed),
            signals: Vec::new(),
            ended: Ended::default(),
            orders: VecDeque::new(),
            queue: VecDeque::new(),
            tally: Tally::default(),
            frozen_at: None,
            hour_ends: None,
            limits,
            host,
        }
    }

    /// Takes in one input; every deadline up to its time is processed first.
    pub fn handle(&mut self, input: Input<'_>) {
        match input {
            Input::Baseline(baseline, at) => {
                self.handle_timeout(at);
                self.learned.restore(&baseline);
            }
            Input::Fact(fact, at) => self.adopt_fact(fact, at),
            Input::Frame(frame) => self.handle_frame(&frame),
            Input::Order(order, at) => {
                // Whoever needs the answer asks by `handle_order`; the refusal is on record.
                let _answered = self.handle_order(order, at);
            }
            Input::Policy(policy, at) => self.adopt_policy(policy.into_inner(), at),
            Input::Receipt(receipt, at) => self.take_receipt(*receipt, at),
            Input::Rules(rules, at) => self.adopt_rules(*rules, at),
        }
    }

    /// Has the memory fetched that these frames will need: worth calling with up to
    /// [`AHEAD`](crate::flow::AHEAD) frames before they are handled. Changes nothing.
    pub fn foresee(&self, frames: &[Frame<'_>]) {
        let set = &self.rules.indicators;
        self.tracker.foresee(frames, &mut |end| set.foresee_address(end));
    }

    /// Processes every deadline up to `now`, each at its own time.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        while let Some(due) = self.poll_timeout().filter(|due| *due <= now) {
            self.now = self.now.max(due);
            if self.tracker.poll_timeout() == Some(due) {
                self.observe(Step::Deadline(due));
                if self.tracker.poll_timeout().is_some_and(|next| next <= due) {
                    break;
                }
            } else if self.ledger.next_end() == Some(due) {
                self.end_leases(due);
            } else if self.frozen_at == Some(due) {
                self.frozen_at = None;
                self.report_frozen(due);
            } else {
                self.hour_ends = None;
                self.report_hour(due);
            }
        }
        self.now = self.now.max(now);
    }

    /// When [`Engine::handle_timeout`] has something to do.
    #[must_use]
    #[inline]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let nanos = |at: Option<Timestamp>| at.map_or(i64::MAX, Timestamp::nanos);
        let due = self
            .tracker
            .next_due()
            .min(nanos(self.ledger.next_end()))
            .min(nanos(self.frozen_at))
            .min(nanos(self.hour_ends));
        (due != i64::MAX).then_some(Timestamp::from_nanos(due))
    }

    /// The next output: what shall be held first, the rest in the order of cause and effect.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(order) = self.orders.pop_front() {
            return Some(Output::Contain(Box::new(order)));
        }
        Some(match self.queue.pop_front()? {
            Queued::Output(output) => output,
            Queued::Finding(at, finding) => {
                let body = Body::Finding(Box::new(finding.tell(&self.host)));
                Output::Record(Box::new(Record { at, body }))
            }
        })
    }

    /// What was read so far and what came of it.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let totals = self.tracker.totals();
        let unparsed = Unparsed::ALL
            .iter()
            .filter_map(|reason| {
                let count = totals.unparsed.get(reason.index()).copied().unwrap_or(0);
                (count > 0).then(|| (reason.as_str().to_owned(), count))
            })
            .chain(
                totals.heads().into_iter().filter(|(_, n)| *n > 0).map(|(r, n)| (r.to_owned(), n)),
            )
            .collect();
        Summary {
            frames: totals.frames,
            bytes: totals.bytes,
            unparsed,
            flows: totals.flows,
            findings: self.tally.findings.clone(),
            would_contain: self.tally.contained + self.ledger.withheld_total(),
            first_at: self.tally.first_at,
            last_at: self.tally.last_at,
            dropped: self.tally.dropped,
            bytes_out: totals.bytes_out,
            evicted: self
                .evicted()
                .filter(|(_, n)| *n > 0)
                .map(|(t, n)| (t.to_owned(), n))
                .collect(),
        }
    }

    /// Remembers flows that end from now on, for [`Engine::take_ended`].
    pub const fn remember_flows(&mut self) {
        self.ended.want();
    }

    /// The flows with an end inside that ended since the last call, and how many were forgotten
    /// because nobody took them in time.
    pub fn take_ended(&mut self) -> (Vec<FlowEnd>, u64) {
        self.ended.take()
    }

    /// The flows with an end inside that have not ended, at `most` places of the table (at least one) from the
    /// `from`th on, and the place to go on from; `None` after the last.
    ///
    /// In steps, as to look at each of a million flows takes longer than a cut may. A flow that ends between two
    /// steps may have been given here before: [`Engine::take_ended`] tells which did.
    #[must_use]
    pub fn live_flows(&self, from: usize, most: usize) -> (Vec<FlowEnd>, Option<usize>) {
        let mut flows = Vec::new();
        let next =
            self.tracker.live(from, most, &mut |flow| flows.extend(FlowEnd::of(flow, &self.own)));
        (flows, next)
    }

    /// What was learned so far.
    #[must_use]
    pub fn baseline(&self) -> Baseline {
        self.learned.snapshot()
    }

    /// The episodes: what is outside the baseline, and what each channel says of it.
    #[must_use]
    pub const fn episodes(&self) -> &Episodes {
        &self.episodes
    }

    /// The same, to be restored, calibrated and unlocked, and to take those that are over.
    pub const fn episodes_mut(&mut self) -> &mut Episodes {
        &mut self.episodes
    }

    /// Asks from now on who owns the first flow of each new episode of this host, so that it is told of the
    /// workload.
    pub fn ask_owners(&mut self) {
        self.episodes.ask_owners();
    }

    /// What scores may do, by whose promise.
    #[must_use]
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The same, to be restored and told of change windows.
    pub const fn authority_mut(&mut self) -> &mut Authority {
        &mut self.authority
    }

    /// Takes a certificate into force: its thresholds unlock, and episodes are compared with its benign ones.
    pub fn adopt_certificate(&mut self, certificate: Verified<Certificate>, at: Timestamp) {
        self.handle_timeout(at);
        self.episodes.calibrate(certificate.tails.clone());
        self.authority.certify(certificate);
        self.episodes.unlock(Unlocked::of(&self.authority));
    }

    /// What the flow stage counted.
    #[must_use]
    pub const fn totals(&self) -> &Totals {
        self.tracker.totals()
    }

    /// The rules in force.
    #[must_use]
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Version of the policy in force.
    #[must_use]
    pub const fn policy_version(&self) -> u64 {
        self.policy.version
    }

    /// The policy in force.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The mode that the policy asks for.
    #[must_use]
    pub const fn requested_mode(&self) -> Mode {
        self.policy.mode
    }

    /// The mode that this host can keep.
    #[must_use]
    pub const fn effective_mode(&self) -> Mode {
        decide::effective(self.policy.mode, self.enforcement.is_ok())
    }

    /// Why the effective mode is not the requested one.
    #[must_use]
    pub fn mode_fault(&self) -> Option<&str> {
        self.enforcement
            .as_ref()
            .err()
            .map(String::as_str)
            .filter(|_| self.effective_mode() != self.policy.mode)
    }

    /// Everything that the kernel shall hold.
    #[must_use]
    pub const fn held(&self) -> &ContainmentSet {
        self.ledger.set()
    }

    /// What was seen to leave of a contained scope since the decision.
    #[must_use]
    pub fn leak(&self, containment: &ContainmentId) -> Leak {
        self.leaks.of(containment)
    }

    fn handle_frame(&mut self, frame: &Frame<'_>) {
        let at = Timestamp::from_nanos(frame.at_ns);
        self.handle_timeout(at);
        self.tally.frames += 1;
        self.tally.first_at = Some(self.tally.first_at.map_or(at, |first| first.min(at)));
        self.note_clock(at);
        self.tally.last_at = self.tally.last_at.max(Some(at));
        let now = self.now;
        self.learned.note(now);
        if self.hour_ends.is_none() {
            let into = now.nanos().rem_euclid(HOUR_NANOS);
            let end = now.nanos().saturating_sub(into).saturating_add(HOUR_NANOS);
            self.hour_ends = Some(Timestamp::from_nanos(end));
        }
        if !self.ledger.is_empty() {
            self.count_leak(frame, at);
        }
        let number = self.tally.frames;
        self.observe(Step::Frame(number, frame));
    }

    /// A clock that was set back is told once, until the frames have caught up.
    fn note_clock(&mut self, at: Timestamp) {
        let Some(last) = self.tally.last_at else { return };
        let back = last.since(at);
        if back <= CLOCK_STEP {
            self.tally.behind &= back > Span::ZERO;
        } else if !self.tally.behind {
            self.tally.behind = true;
            let detail = format!("a frame of {at} came after one of {last}");
            self.record(last, Body::Gap(Gap { cause: "clock-step".to_owned(), count: 1, detail }));
        }
    }

    /// Runs a step of the flow stage, shows its observations to the detectors, judges their signals.
    fn observe(&mut self, step: Step<'_>) {
        let Self { tracker, detectors, learned, episodes, authority, .. } = self;
        let Self { signals, ended, approved, .. } = self;
        let outlook = Outlook {
            indicators: &self.rules.indicators,
            policy: &self.policy,
            approvals: &self.approvals,
            perimeter: &self.perimeter,
            own: &self.own,
            keeps_learning: decide::keeps_learning(self.policy.mode),
            enforces: decide::effective(self.policy.mode, self.enforcement.is_ok())
                == Mode::Enforce,
        };
        let most_approved = self.limits.approved;
        let mut observer = |o: &Observation<'_>| {
            if matches!(o.kind, ObservationKind::Ended) {
                ended.note(&o.flow, outlook.own);
            }
            if let ObservationKind::Answer { name, address } = o.kind
                && outlook.approves(o, name, address)
            {
                approved.note(name, address, o.at, most_approved);
            }
            let memory = (&mut *learned, &mut *episodes, &mut *authority);
            detectors.observe(o, &outlook, memory, signals)
        };
        match step {
            Step::Deadline(due) => tracker.handle_timeout(due, &mut observer),
            Step::Frame(number, frame) => tracker.observe(number, frame, &mut observer),
        }
        if !self.signals.is_empty() {
            self.judge_signals();
        }
        if self.approved.has_changed() {
            self.tell_approved();
        }
        while let Some(flow) = self.episodes.next_to_ask() {
            self.queue.push_back(Queued::Output(Output::AskOwner(flow)));
        }
    }

    fn count_leak(&mut self, frame: &Frame<'_>, at: Timestamp) {
        let Ok(packet) = crate::wire::parse(frame) else { return };
        let (local, remote) = (packet.src.to_canonical(), packet.dst.to_canonical());
        if !self.perimeter.is_inside(local)
            || self.perimeter.is_inside(remote)
            || remote.is_multicast()
        {
            return;
        }
        let leaving = Leaving {
            transport: Transport::from_number(packet.proto.number()),
            local_port: packet.src_port,
            remote,
            remote_port: packet.dst_port,
        };
        if !self.exemptions.leave_open(leaving) {
            let bytes = u64::from(frame.wire_len);
            self.leaks.count(self.ledger.set(), at, bytes, local, remote);
        }
    }

    fn report_hour(&mut self, at: Timestamp) {
        self.review_approved();
        self.episodes.turn_hour(at);
        self.episodes.unlock(Unlocked::of(&self.authority));
        if decide::keeps_learning(self.policy.mode) {
            let state = self.learned.state(at, self.policy.allowance.learn_for);
            self.record(at, Body::Baseline(state));
        }
        let evicted: u64 = self.evicted().map(|(_, count)| count).sum();
        let count = evicted - self.tally.evicted_told.min(evicted);
        if count > 0 {
            self.tally.evicted_told = evicted;
            let detail = format!("{count} entries had to leave full tables within the hour");
            self.record(at, Body::Gap(Gap { cause: "table-full".to_owned(), count, detail }));
        }
    }

    fn evicted(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.tracker.totals().evicted().into_iter().chain([
            ("approved-addresses", self.approved.evicted()),
            ("contacts", self.detectors.evicted()),
            ("destinations", self.learned.evicted()),
            ("episodes", self.episodes.evicted()),
            ("recent-findings", self.recent.evicted()),
            ("withheld-findings", self.recent.withheld()),
        ])
    }

    fn record(&mut self, at: Timestamp, body: Body) {
        self.queue.push_back(Queued::Output(Output::Record(Box::new(Record { at, body }))));
    }

    /// Asks for the ledger's set to be held.
    fn order_set(&mut self, decided_at: Option<Timestamp>, flow: Option<FlowKey>) {
        let set = self.ledger.set().clone();
        self.orders.push_back(ContainOrder { set, decided_at, flow });
    }
}
