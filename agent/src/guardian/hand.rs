//! The hand: the one thread that changes what the kernel holds, over the socket that owns the tables.
//!
//! Cuts come first: a batch of known destinations is taken only when no desired state waits, and one at a time.

use super::aims::{Aims, Links};
use super::clock::{Clocks, shift};
use super::desk::Counted;
use super::kept::Kept;
use super::seat::{Seat, Wish};
use super::wire::{
    ALERT, APPLIED, Answer, Event, HOLD_KNOWN, JSON, Link, Outcome, Question, RELEASE_KNOWN,
    RefusedScope, Role, SET, put_outcome, read_keys, read_set,
};
use crate::chain::causes;
use crate::clock;
use crate::enforce::{ApplyError, Enforcer, LINGERS, NetlinkError, Plan, packet_log};
use crate::queue::Receiver;
use crate::target::needs_target;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sekisho_schema::{Containment, ContainmentId, ContainmentSet, Scope, Timestamp};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait for the rest of what a caller began to say.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long an alert keeps the hand awake: a frame is judged in less, also beside other work.
const READY_FOR: Duration = Duration::from_micros(250);
/// Longest sleep without a look at the clocks.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

/// A caller with desired state.
pub(super) struct Caller {
    pub(super) link: Link,
    pub(super) role: Role,
    /// Which run of the agent it is.
    pub(super) boot: String,
    /// It counts as a caller for as long as it is served.
    pub(super) counted: Counted,
}

/// The hand and what it knows.
pub(super) struct Hands {
    enforcer: Enforcer,
    plan: Option<Plan>,
    aims: Aims,
    links: Links,
    set: ContainmentSet,
    /// Of the set, what was not written.
    refused: BTreeSet<ContainmentId>,
    boot: String,
    agent: Option<(Link, Counted)>,
    batches: Option<(Link, Counted)>,
    clocks: Clocks,
    seat: Arc<Seat>,
    wishes: Receiver<Wish>,
    wake: UnixStream,
    drift: u64,
    loads: u64,
    scheduling: String,
    /// When everything that is held will have ended.
    over_at: Option<Timestamp>,
}

/// Who has something to say.
#[derive(Clone, Copy, Debug)]
struct Ready {
    agent: bool,
    /// Another thread of ours.
    woken: bool,
    /// The agent's preload.
    batch: bool,
    /// A scope that is held may have become another thing.
    scopes: bool,
}

/// Why desired state could not be carried out.
enum Failed {
    Absent(String),
    Other(String),
}

impl Failed {
    fn answer(self) -> Answer {
        match self {
            Self::Absent(why) => Answer::Failed { why, absent: true },
            Self::Other(why) => Answer::Failed { why, absent: false },
        }
    }
}

impl From<NetlinkError> for Failed {
    fn from(error: NetlinkError) -> Self {
        let why = causes(&error);
        if error.is_absent() { Self::Absent(why) } else { Self::Other(why) }
    }
}

impl Hands {
    pub(super) fn new(
        enforcer: Enforcer,
        seat: Arc<Seat>,
        wishes: Receiver<Wish>,
        wake: UnixStream,
        state: PathBuf,
    ) -> Self {
        Self {
            enforcer,
            plan: None,
            aims: Aims::default(),
            links: Links::new(state),
            set: ContainmentSet::default(),
            refused: BTreeSet::new(),
            boot: String::new(),
            agent: None,
            batches: None,
            clocks: Clocks::now(),
            seat,
            wishes,
            wake,
            drift: 0,
            loads: 0,
            scheduling: String::new(),
            over_at: None,
        }
    }

    /// Takes up again what was in force when an earlier guardian ended, with what the kernel holds beside it.
    pub(super) fn resume(&mut self, kept: Kept) {
        let (plan, mut set) = kept.resume();
        match self.enforcer.held() {
            Ok(held) => {
                let now = clock::now();
                for held in held {
                    let until = now.after(held.until_in);
                    set.containments.entry(held.id.clone()).or_insert_with(|| {
                        super::wire::bare(
                            held.id,
                            held.scope,
                            until,
                            None,
                            sekisho_schema::Measure::Cut,
                        )
                    });
                }
            }
            Err(error) if error.is_absent() => {}
            Err(error) => {
                tracing::error!(error = %causes(&error), "cannot read what the kernel holds");
            }
        }
        if set.containments.is_empty() {
            return;
        }
        tracing::warn!(containments = set.containments.len(), "taking up what was held");
        if let Err(Failed::Absent(why) | Failed::Other(why)) = self.load(plan) {
            tracing::error!(error = %why, "cannot load the ruleset; what the kernel holds, it keeps");
            return;
        }
        if let Err(Failed::Absent(why) | Failed::Other(why)) = self.apply(&set) {
            tracing::error!(error = %why, "cannot put back what was held");
        }
        // The agent's own count begins anew: any set of it is later than this one.
        set.generation = 0;
        self.set = set;
        self.tell_facts();
    }

    /// Serves until nobody calls any more.
    pub(super) fn run(mut self) {
        self.scheduling = crate::realtime::ask_for_realtime();
        self.tell_facts();
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!(%error, "cannot wait for the agent");
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                }
            };
            self.follow_clock();
            if ready.agent {
                self.hear_agent();
            } else if ready.batch {
                self.hear_batch();
            }
            if ready.scopes && self.aims.heed() {
                self.loads += 1;
                self.aim_anew();
            }
            if ready.woken && !self.carry_out_wishes() {
                return;
            }
            self.rest_when_over();
            self.enforcer.rest_when_due();
            self.seat.beat();
        }
    }

    /// Who has something to say.
    fn wait(&self) -> io::Result<Ready> {
        let (agent, batches) = (
            self.agent.as_ref().map(|(link, _)| link.stream().as_fd()),
            self.batches.as_ref().map(|(link, _)| link.stream().as_fd()),
        );
        let wake = self.wake.as_fd();
        // Who does not call has the waker's place: the same answer twice.
        let [watch, other] = self.aims.fds().unwrap_or([wake, wake]);
        let mut ready = [agent.unwrap_or(wake), wake, batches.unwrap_or(wake), watch, other]
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        match poll(&mut ready, Some(&LOOK)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [first, woken, third, watch, other] = ready.map(|fd| !fd.revents().is_empty());
        Ok(Ready {
            agent: agent.is_some() && first,
            woken,
            batch: batches.is_some() && third,
            scopes: self.aims.fds().is_some() && (watch || other),
        })
    }

    fn hear_agent(&mut self) {
        let Some((mut link, counted)) = self.agent.take() else { return };
        match self.answer_agent(&mut link) {
            Ok(true) => self.agent = Some((link, counted)),
            Ok(false) => {
                tracing::info!(
                    state = "what is held stays held until its lease ends",
                    "the agent has gone"
                );
            }
            Err(error) => tracing::warn!(%error, "lost the agent"),
        }
    }

    fn answer_agent(&mut self, link: &mut Link) -> io::Result<bool> {
        let Some((kind, body)) = link.receive_begun()? else { return Ok(false) };
        match kind {
            SET => {
                let set = read_set(body).ok_or(io::ErrorKind::InvalidData)?;
                self.take_set(set, link)?;
            }
            JSON => {
                let question: Question = serde_json::from_slice(body)?;
                self.answer(question, link)?;
            }
            ALERT => Self::stand_ready(link),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        Ok(true)
    }

    /// Stays awake for a moment: to wake takes as long as the commit.
    fn stand_ready(link: &Link) {
        let until = Instant::now() + READY_FOR;
        while Instant::now() < until {
            let mut said = [PollFd::new(link.stream(), PollFlags::IN)];
            match poll(&mut said, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
                Ok(0) => {}
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Makes the kernel hold a set; nothing comes before the commit, and the answer before all else.
    fn take_set(&mut self, mut set: ContainmentSet, link: &mut Link) -> io::Result<()> {
        if set.generation < self.set.generation {
            let outcome = Outcome {
                generation: self.set.generation,
                committed_at: clock::now(),
                changed: 0,
                refused: Vec::new(),
                targets: BTreeMap::new(),
                stale: true,
            };
            return link.send_json(&Answer::Applied { outcome });
        }
        let spared = self.spare_lifelines(&mut set);
        let began = self.apply(&set);
        // Before the answer: whoever hears it ends the sockets, and what is noted after that would be ended a second
        // time, when connections made after a release are there.
        let fresh = set
            .containments
            .iter()
            .filter(|(id, _)| !self.set.containments.contains_key(*id))
            .map(|(_, containment)| containment.scope.clone());
        self.seat.begin(fresh);
        match began {
            Ok(outcome)
                if outcome.refused.is_empty()
                    && spared.is_empty()
                    && outcome.targets.is_empty() =>
            {
                link.send(APPLIED, |out| put_outcome(out, &outcome))?;
            }
            Ok(mut outcome) => {
                outcome.refused.extend(spared);
                link.send_json(&Answer::Applied { outcome })?;
            }
            Err(failed) => link.send_json(&failed.answer())?,
        }
        // A set that the kernel refused is still what shall be held: it is tried again each second.
        self.set = set;
        self.tell_facts();
        self.seat.keep();
        Ok(())
    }

    /// Takes out of a set what would cut a live connection of the agent to where it reports.
    fn spare_lifelines(&self, set: &mut ContainmentSet) -> Vec<RefusedScope> {
        let mut spared = Vec::new();
        set.containments.retain(|id, containment| {
            let Scope::Destination(address) = containment.scope else { return true };
            let address = address.to_canonical();
            if self.set.containments.contains_key(id) || !self.seat.is_lifeline(address) {
                return true;
            }
            let why = format!("it is exempt: the agent has a live connection to {address}");
            spared.push(RefusedScope { id: id.clone(), why });
            false
        });
        spared
    }

    fn apply(&mut self, set: &ContainmentSet) -> Result<Outcome, Failed> {
        if self.aims.follow(set) {
            self.loads += 1;
        }
        let of_devices = |held: &Containment| matches!(held.scope, Scope::Link(_));
        let linked = self.links.is_used() || set.containments.values().any(of_devices);
        let mut rules = Cow::Borrowed(set);
        if linked {
            rules.to_mut().containments.retain(|_, held| !of_devices(held));
        }
        let outcome = match self.enforcer.apply_with(&rules, &self.aims.targets, clock::now()) {
            Err(ApplyError::Kernel { source, .. }) if source.is_absent() => {
                // Somebody took our tables away: a cut that is due must not wait until that is noticed.
                let plan = self.plan.clone().ok_or_else(|| Failed::from(source))?;
                self.load(plan)?;
                self.enforcer.apply_with(&rules, &self.aims.targets, clock::now())
            }
            outcome => outcome,
        };
        let (applied, refused) = match outcome {
            Ok(applied) => (applied, Vec::new()),
            Err(error) => match error.partial().cloned() {
                Some(partial) => (partial.applied, partial.refused),
                None => return Err(Failed::Other(causes(&error))),
            },
        };
        let mut refused: Vec<RefusedScope> = refused
            .into_iter()
            .map(|refused| RefusedScope { id: refused.id, why: refused.why.to_string() })
            .collect();
        if let Some(plan) = self.plan.as_ref().filter(|_| linked) {
            refused.extend(self.links.follow(set, plan, clock::now()));
        }
        self.refused = refused.iter().map(|refused| refused.id.clone()).collect();
        Ok(Outcome {
            generation: applied.generation,
            committed_at: applied.committed_at,
            changed: applied.changed as u64,
            refused,
            targets: self.aims.words(set),
            stale: false,
        })
    }

    fn load(&mut self, plan: Plan) -> Result<(), Failed> {
        self.enforcer.reload(&plan).map_err(|error| Failed::Other(causes(&error)))?;
        self.loads += 1;
        self.plan = Some(plan);
        self.tell_facts();
        Ok(())
    }

    fn answer(&mut self, question: Question, link: &mut Link) -> io::Result<()> {
        let done = match question {
            Question::Plan { plan } => {
                let done = self.load(*plan);
                self.seat.keep();
                done
            }
            Question::Remove => self.remove(),
            Question::PacketLog { group } => match packet_log(group) {
                Ok(socket) => return link.send_descriptor(&Answer::Done, socket.as_fd()),
                Err(error) => Err(error.into()),
            },
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        link.send_json(&match done {
            Ok(()) => Answer::Done,
            Err(failed) => failed.answer(),
        })
    }

    fn remove(&mut self) -> Result<(), Failed> {
        self.enforcer.remove_held()?;
        self.plan = None;
        self.set.containments.clear();
        self.tell_facts();
        self.seat.keep();
        Ok(())
    }

    fn hear_batch(&mut self) {
        let Some((mut link, counted)) = self.batches.take() else { return };
        match self.answer_batch(&mut link) {
            Ok(true) => self.batches = Some((link, counted)),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "lost the agent's preload"),
        }
    }

    fn answer_batch(&mut self, link: &mut Link) -> io::Result<bool> {
        let Some((kind, body)) = link.receive_begun()? else { return Ok(false) };
        let (keys, lease, renew) = read_keys(body).ok_or(io::ErrorKind::InvalidData)?;
        let done = match kind {
            HOLD_KNOWN => self.enforcer.hold_known(&keys, lease, renew),
            RELEASE_KNOWN => self.enforcer.release_known(&keys),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        link.send_json(&match done {
            Ok(()) => Answer::Done,
            Err(error) => Failed::from(error).answer(),
        })?;
        Ok(true)
    }

    /// Does what other threads wish; `false` ends the hand.
    fn carry_out_wishes(&mut self) -> bool {
        let mut space = [0; 64];
        let _ = self.wake.read(&mut space);
        while let Ok(wish) = self.wishes.try_recv() {
            match wish {
                Wish::Caller(caller) => self.take_caller(*caller),
                Wish::Mend { what, who, rules } => self.mend(what, who, rules),
                Wish::Arm(devices) => self.arm(devices),
                Wish::End if self.agent.is_none() => return false,
                Wish::End => {}
            }
        }
        true
    }

    fn take_caller(&mut self, caller: Caller) {
        let Caller { mut link, role, boot, counted } = caller;
        if link.patience(Some(PATIENCE)).is_err() || link.send_json(&Answer::Done).is_err() {
            return;
        }
        if role == Role::Known {
            self.batches = Some((link, counted));
            return;
        }
        if boot != self.boot {
            // Another run of the agent counts from the beginning.
            self.boot = boot;
            self.set.generation = 0;
        }
        self.agent = Some((link, counted));
        tracing::info!("the agent is there");
    }

    fn mend(&mut self, what: Vec<String>, who: Option<String>, rules: bool) {
        let Some(plan) = self.plan.clone() else { return };
        let loaded = if rules { self.load(plan) } else { Ok(()) };
        let set = self.set.clone();
        let mended = loaded.and_then(|()| {
            // Reading back teaches what is really there, so that applying writes the rest.
            self.enforcer.verify(&set)?;
            self.apply(&set)
        });
        let failure = match mended {
            Ok(_) => None,
            Err(Failed::Absent(why) | Failed::Other(why)) => Some(why),
        };
        self.drift += 1;
        tracing::error!(?what, ?who, ?failure, "the kernel held something else than it should");
        self.tell_facts();
        self.seat.tell(&Event::Drift { what, who, failure });
    }

    /// Holds what scopes have become: a service that came again, a second address.
    fn aim_anew(&mut self) {
        let set = self.set.clone();
        if let Err(Failed::Absent(why) | Failed::Other(why)) = self.apply(&set) {
            tracing::error!(error = %why, "cannot hold what a contained scope has become");
        }
        self.seat
            .begin(set.containments.values().map(|held| held.scope.clone()).filter(needs_target));
        self.tell_facts();
    }

    /// Puts devices under what is held, before the agent knows of them.
    fn arm(&mut self, devices: Vec<String>) {
        let Some(mut plan) = self.plan.clone() else { return };
        plan.uplinks.extend(devices);
        plan.uplinks.sort();
        plan.uplinks.dedup();
        if self.plan.as_ref() == Some(&plan) {
            return;
        }
        let set = self.set.clone();
        if let Err(Failed::Absent(why) | Failed::Other(why)) =
            self.load(plan).and_then(|()| self.apply(&set).map(|_| ()))
        {
            tracing::error!(error = %why, "cannot arm a new device");
        }
        self.seat.tell(&Event::Links);
    }

    /// Once the last lease has ended, packets need not meet empty lists any more.
    fn rest_when_over(&mut self) {
        let Some(end) = self.over_at.filter(|end| *end <= clock::now()) else { return };
        self.over_at = None;
        if self.last_end().is_none_or(|last| last <= end) {
            let _drift = self.enforcer.verify(&self.set.clone());
        }
        if let Some(plan) = self.plan.as_ref().filter(|_| self.links.is_used()) {
            let _refused = self.links.follow(&self.set, plan, clock::now());
        }
    }

    fn last_end(&self) -> Option<Timestamp> {
        self.set.containments.values().map(Containment::held_until).max()
    }

    /// Leases keep their length when the wall clock is set: the kernel's own time-outs never followed it.
    fn follow_clock(&mut self) {
        let Some(step) = self.clocks.step() else { return };
        tracing::warn!(
            seconds = step.as_secs_f64(),
            "the wall clock was set; leases keep their length"
        );
        shift(&mut self.set, step);
        self.tell_facts();
        self.seat.keep();
    }

    fn tell_facts(&mut self) {
        self.over_at = self.last_end().map(|end| end.after(LINGERS));
        // Only a load or other targets change how the ruleset looks.
        let is_new = self.seat.loads().0 != self.loads || self.plan.is_none();
        let eye = self.plan.as_ref().filter(|_| is_new).map(|_| self.enforcer.eye());
        self.seat.change(|facts| {
            facts.loads = self.loads;
            if is_new {
                facts.plan.clone_from(&self.plan);
                facts.eye = eye;
            }
            facts.set.clone_from(&self.set);
            facts.targets.clone_from(&self.aims.targets);
            facts.refused.clone_from(&self.refused);
            facts.state.pid = std::process::id();
            facts.state.generation = self.set.generation;
            facts.state.containments = self.set.containments.len() as u64;
            facts.state.drift = self.drift;
            facts.state.heeds_alerts = true;
            facts.state.scheduling.clone_from(&self.scheduling);
        });
        self.seat.deny();
    }
}
