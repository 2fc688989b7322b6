//! What the guardian's threads share.

use super::deny::Told;
use super::wire::{Event, State};
use crate::bpf::Openers;
use crate::enforce::{Eye, Plan};
use crate::queue::{Sender, bounded};
use crate::target::Targets;
use sekisho_schema::{ContainmentId, ContainmentSet, Scope};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::mpsc::TrySendError;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The hand looks up at least each half second, unless the kernel keeps it: a whole ruleset takes that long beside others.
const BEAT_WITHIN: Duration = Duration::from_secs(3);
/// How long an agent waits to be spared; it goes on without.
const SPARED_WITHIN: Duration = Duration::from_secs(2);
/// Events that wait for one listener, at most.
pub(super) const MOST_EVENTS: usize = 64;

/// What is in force, told by the hand after it is done.
#[derive(Clone, Default)]
pub(super) struct Facts {
    /// Rises with each load of the ruleset.
    pub(super) loads: u64,
    pub(super) plan: Option<Plan>,
    pub(super) set: ContainmentSet,
    pub(super) targets: Targets,
    /// Of the set, what was not written: it hits what no containment may.
    pub(super) refused: BTreeSet<ContainmentId>,
    /// Process of the agent; 0 for none.
    pub(super) agent: u32,
    /// With this a second pair of eyes sees whether the ruleset is as it was loaded.
    pub(super) eye: Option<Eye>,
    pub(super) state: State,
}

/// What others want of the hand.
pub(super) enum Wish {
    /// A caller with desired state.
    Caller(Box<super::hand::Caller>),
    /// The kernel holds something else than it should; rules too, or only elements.
    Mend { what: Vec<String>, who: Option<String>, rules: bool },
    /// Devices that must be armed beside those of the plan, by name.
    Arm(Vec<String>),
    /// Nobody calls any more and nothing is held.
    End,
}

/// The one thing that all threads hold.
pub(super) struct Seat {
    facts: Mutex<Facts>,
    listeners: Mutex<Vec<Sender<Event>>>,
    /// Ends of live connections of the agent, by the kernel's own list: never cut.
    lifelines: Mutex<BTreeSet<IpAddr>>,
    wishes: Mutex<Sender<Wish>>,
    /// Begun cuts of which nobody has ended the sockets yet.
    begun: Mutex<Vec<Scope>>,
    waker: std::os::unix::net::UnixStream,
    keep: Mutex<Sender<()>>,
    deny: Mutex<Sender<Told>>,
    /// Who opened what, once the kernel remembers it.
    pub(super) openers: OnceLock<Openers>,
    /// When the hand was last seen at work.
    beat: Mutex<Option<Instant>>,
}

fn whole<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seat {
    pub(super) fn new(
        wishes: Sender<Wish>,
        waker: std::os::unix::net::UnixStream,
        keep: Sender<()>,
        deny: Sender<Told>,
    ) -> Self {
        Self {
            facts: Mutex::default(),
            listeners: Mutex::default(),
            lifelines: Mutex::default(),
            wishes: Mutex::new(wishes),
            begun: Mutex::default(),
            waker,
            keep: Mutex::new(keep),
            deny: Mutex::new(deny),
            openers: OnceLock::new(),
            beat: Mutex::default(),
        }
    }

    pub(super) fn facts(&self) -> Facts {
        self.see(Facts::clone)
    }

    /// Looks at what is in force without a copy of it all; the hand waits meanwhile.
    pub(super) fn see<T>(&self, look: impl FnOnce(&Facts) -> T) -> T {
        look(&whole(&self.facts))
    }

    pub(super) fn loads(&self) -> (u64, u64) {
        self.see(|facts| (facts.loads, facts.set.generation))
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut whole(&self.facts));
    }

    /// The hand is at work.
    pub(super) fn beat(&self) {
        *whole(&self.beat) = Some(Instant::now());
    }

    /// Whether the hand was at work lately.
    pub(super) fn is_alive(&self) -> bool {
        whole(&self.beat).is_some_and(|beat| beat.elapsed() < BEAT_WITHIN)
    }

    /// Asks for what is held to be written down.
    pub(super) fn keep(&self) {
        let _ = whole(&self.keep).send(());
    }

    /// Says that what raw sockets are refused for may have changed.
    pub(super) fn deny(&self) {
        let _ = whole(&self.deny).send(Told::Changed);
    }

    /// Has an agent's own packet sockets spared before it opens them.
    pub(super) fn spare(&self, pid: u32) {
        let (done, is_done) = bounded(1);
        if whole(&self.deny).send(Told::Spare(pid, done)).is_ok() {
            let _ = is_done.recv_timeout(SPARED_WITHIN);
        }
    }

    pub(super) fn wish(&self, wish: Wish) {
        use std::io::Write as _;
        if whole(&self.wishes).send(wish).is_ok() {
            // A waker that is full has woken already.
            let _ = (&self.waker).write(&[1]);
        }
    }

    pub(super) fn listen(&self, to: Sender<Event>) {
        whole(&self.listeners).push(to);
    }

    /// Tells every listener; one that does not keep up loses its place and comes back for the whole state.
    pub(super) fn tell(&self, event: &Event) {
        whole(&self.listeners).retain(|to| {
            !matches!(
                to.try_send(event.clone()),
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_))
            )
        });
    }

    pub(super) fn set_lifelines(&self, addresses: BTreeSet<IpAddr>) {
        *whole(&self.lifelines) = addresses;
    }

    pub(super) fn is_lifeline(&self, address: IpAddr) -> bool {
        whole(&self.lifelines).contains(&address)
    }

    /// Notes cuts that began; whoever ends their sockets takes them.
    pub(super) fn begin(&self, scopes: impl Iterator<Item = Scope>) {
        whole(&self.begun).extend(scopes);
    }

    pub(super) fn take_begun(&self) -> Vec<Scope> {
        std::mem::take(&mut whole(&self.begun))
    }

    /// Takes scopes whose sockets are about to be ended.
    pub(super) fn settle(&self, scopes: &[Scope]) {
        whole(&self.begun).retain(|scope| !scopes.contains(scope));
    }
}
