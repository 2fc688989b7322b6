//! The preload thread: destinations known beforehand go into the kernel in small commits, with pauses, so
//! that a million of them never hold up a cut; each ends by itself and is asserted again in time.

mod wanted;

pub(super) use wanted::Wish;

use super::{Inbox, Message};
use crate::chain::causes;
use crate::clock;
use crate::control::KnownStatus;
use crate::enforce::{BATCH_ELEMENTS, Key, KnownSet};
use crate::guardian::{AskGuardianError, Guardian, KnownLink};
use crate::metrics::Metrics;
use crate::queue::{Receiver, Sender, channel};
use sekisho_schema::event::Gap;
use sekisho_schema::{Body, Timestamp};
use std::collections::BTreeMap;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use wanted::{LEASE, Wanted};

/// How often some elements are looked at, and the counter read.
const LOOK: Duration = Duration::from_secs(2);
/// Elements looked at each time; others each time.
const SAMPLES: usize = 16;
/// Bounds of the pause after a commit, which is otherwise as long as the commit took.
const SHORTEST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(5);
/// What is held is asserted again after this: half of its lease.
const RENEW: Duration = Duration::from_secs(12 * 3600);
/// A kernel that refused is tried again after this.
const RETRY: Duration = Duration::from_secs(10);

/// What the thread is told.
pub(super) enum Job {
    /// The ruleset was loaded anew: what was held may be gone.
    Look,
    /// What shall be held from now on; nothing for `None`.
    Wish(Option<Box<Wish>>),
}

/// The way to the thread.
pub(super) struct Preload {
    jobs: Sender<Job>,
    status: Arc<Mutex<KnownStatus>>,
}

impl Preload {
    /// Starts the thread; it ends when this handle is gone, and what it put into the kernel stays until it ends.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn spawn(
        inbox: Inbox,
        metrics: Arc<Metrics>,
        cap: usize,
        guardian: Guardian,
    ) -> std::io::Result<Self> {
        let (jobs, work) = channel();
        let status = Arc::new(Mutex::new(KnownStatus::default()));
        let shown = Arc::clone(&status);
        std::thread::Builder::new().name("preload".to_owned()).spawn(move || {
            Holding {
                inbox,
                metrics,
                status: shown,
                cap,
                guardian,
                hand: None,
                held: BTreeMap::new(),
                at: 0,
                renew_at: None,
                renewing: false,
            }
            .run(&work)
        })?;
        Ok(Self { jobs, status })
    }

    pub(super) fn tell(&self, job: Job) {
        // A thread that is gone is seen by a status that does not change.
        let _ = self.jobs.send(job);
    }

    pub(super) fn status(&self) -> KnownStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Holding {
    inbox: Inbox,
    metrics: Arc<Metrics>,
    status: Arc<Mutex<KnownStatus>>,
    cap: usize,
    guardian: Guardian,
    hand: Option<KnownLink>,
    /// What the kernel was made to hold, by its end.
    held: BTreeMap<Option<Timestamp>, KnownSet>,
    /// Where the next samples are taken.
    at: usize,
    renew_at: Option<Instant>,
    /// Whether elements may be there already, with another end.
    renewing: bool,
}

impl Holding {
    fn run(mut self, work: &Receiver<Job>) {
        let mut next: Option<Job> = None;
        loop {
            let job = match next.take() {
                Some(job) => Ok(job),
                None => work.recv_timeout(LOOK),
            };
            next = match job {
                Ok(Job::Wish(wish)) => self.follow(wish.as_deref(), work),
                Ok(Job::Look) | Err(RecvTimeoutError::Timeout) => {
                    self.look();
                    None
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
        }
    }

    fn show(&self, change: impl FnOnce(&mut KnownStatus)) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut status);
        let mut values = self.metrics.values();
        values.known = [status.held, status.wanted, status.over_cap];
        values.known_dropped = status.dropped;
    }

    /// Makes the kernel hold a wish; gives the job that came in between.
    fn follow(&mut self, wish: Option<&Wish>, work: &Receiver<Job>) -> Option<Job> {
        let wanted = wish.map(|wish| wish.wanted(clock::now(), self.cap)).unwrap_or_default();
        let before = self.status.lock().map_or(0, |status| status.over_cap);
        self.show(|status| {
            *status = KnownStatus {
                wanted: wanted.len() as u64,
                over_cap: wanted.over,
                networks: wanted.networks,
                exempt: wanted.exempt,
                held: status.held,
                dropped: status.dropped,
                failure: None,
            };
        });
        if wanted.over > before {
            self.tell_gap("preload-cap", wanted.over, format!(
                "{} known destinations are more than [limits] preloaded allows the kernel to hold: their first packets leave before the cut",
                wanted.over
            ));
        }
        self.renew_at = wish.map(|_| Instant::now() + RENEW);
        match self.carry_out(&wanted, work) {
            Ok(next) => next,
            Err(error) if error.is_absent() => {
                // Without our tables nothing is held; whoever loads them again asks anew.
                self.forget();
                None
            }
            Err(error) => {
                let why = causes(&error);
                tracing::error!(error = %why, state = "known destinations are cut when they are seen, not before", "cannot preload the kernel");
                if error.is_gone() {
                    // What the kernel holds, it keeps; whoever comes again is asked what that is.
                    self.hand = None;
                    self.held.clear();
                }
                self.show(|status| status.failure = Some(why));
                self.renew_at = Some(Instant::now() + RETRY);
                None
            }
        }
    }

    fn forget(&mut self) {
        self.held.clear();
        self.show(|status| status.held = 0);
    }

    /// Writes the difference, what is new first; stops when another job comes.
    fn carry_out(
        &mut self,
        wanted: &Wanted,
        work: &Receiver<Job>,
    ) -> Result<Option<Job>, AskGuardianError> {
        if self.hand.is_none() {
            self.adopt()?;
        }
        for (until, group) in &wanted.groups {
            let now = clock::now();
            let lease = until.map_or(LEASE, |until| until.since(now).min(LEASE));
            let Some(lease) = u64::try_from(lease.nanos()).ok().map(Duration::from_nanos) else {
                continue;
            };
            let holds = self.held.remove(until).unwrap_or_default();
            let missing: Vec<Key> = group.keys().filter(|key| !holds.contains(*key)).collect();
            // Known under another end: that one has to give way.
            let renew = self.renewing
                || self.held.values().any(|other| missing.iter().any(|key| other.contains(*key)));
            let (done, next) =
                self.in_batches(&missing, work, |hand, keys| hand.hold(keys, lease, renew));
            let added = missing.get(..done).unwrap_or_default();
            let kept = KnownSet::from_keys(holds.keys().chain(added.iter().copied()));
            self.held.insert(*until, kept);
            self.count_held();
            if let Some(next) = next? {
                return Ok(Some(next));
            }
        }
        let surplus: Vec<Key> = {
            let all = self.held.values().flat_map(KnownSet::keys);
            all.filter(|key| !wanted.contains(*key)).collect()
        };
        let (done, next) = self.in_batches(&surplus, work, |hand, keys| hand.release(keys));
        let gone = KnownSet::from_keys(surplus.iter().take(done).copied());
        for (until, group) in &mut self.held {
            let stays = wanted.groups.get(until);
            *group = KnownSet::from_keys(group.keys().filter(|key| {
                !gone.contains(*key)
                    && (done < surplus.len() || stays.is_some_and(|set| set.contains(*key)))
            }));
        }
        self.held.retain(|_, group| !group.is_empty());
        self.count_held();
        self.renewing &= matches!(next, Ok(Some(_)));
        next
    }

    /// Opens the hand, and takes over what an earlier run left: what is wanted no more must go.
    fn adopt(&mut self) -> Result<(), AskGuardianError> {
        let mut hand = self.guardian.known()?;
        let found = hand.read()?;
        self.renewing = !found.is_empty();
        if !found.is_empty() {
            tracing::info!(
                count = found.len(),
                "the kernel holds known destinations from before this start"
            );
            // Under an end that nothing else has: all of it is either written again or released.
            self.held.insert(Some(Timestamp::MAX), found);
        }
        self.hand = Some(hand);
        Ok(())
    }

    fn count_held(&self) {
        let held = self.held.values().map(KnownSet::len).sum::<usize>() as u64;
        self.show(|status| status.held = held);
    }

    /// How many keys were written, and the job that came meanwhile or the refusal.
    fn in_batches(
        &mut self,
        keys: &[Key],
        work: &Receiver<Job>,
        write: impl Fn(&mut KnownLink, &[Key]) -> Result<(), AskGuardianError>,
    ) -> (usize, Result<Option<Job>, AskGuardianError>) {
        let Some(hand) = &mut self.hand else { return (0, Ok(None)) };
        let mut done = 0;
        for batch in keys.chunks(BATCH_ELEMENTS) {
            let began = Instant::now();
            if let Err(error) = write(hand, batch) {
                return (done, Err(error));
            }
            done += batch.len();
            // The kernel has one lock for all commits: whoever waits for it shall get it.
            match work.recv_timeout(began.elapsed().clamp(SHORTEST_PAUSE, LONGEST_PAUSE)) {
                Ok(Job::Look) | Err(_) => {}
                Ok(job) => return (done, Ok(Some(job))),
            }
        }
        (done, Ok(None))
    }

    /// Takes samples of what is held, reads the counter, asks for the next assertion.
    fn look(&mut self) {
        if self.renew_at.is_some_and(|at| at <= Instant::now()) {
            self.renew_at = None;
            // All is written again, with new ends.
            self.held.clear();
            self.renewing = true;
            self.inbox.send(Message::KnownDue);
            return;
        }
        let Some(hand) = &mut self.hand else { return };
        if let Ok(dropped) = hand.dropped() {
            self.show(|status| status.dropped = dropped);
        }
        let now = clock::now();
        self.held.retain(|until, _| until.is_none_or(|until| until > now));
        let samples: Vec<Key> = self
            .held
            .values()
            .flat_map(|group| {
                let step = (group.len() / SAMPLES).max(1);
                group.keys().skip(self.at % step).step_by(step).take(SAMPLES)
            })
            .take(4 * SAMPLES)
            .collect();
        self.at = self.at.wrapping_add(1);
        let Some(hand) = &mut self.hand else { return };
        match hand.is_holding(&samples) {
            Ok(true) => {}
            Ok(false) => {
                tracing::error!(
                    "the kernel does not hold the known destinations that it should; putting them back"
                );
                self.metrics.values().drift += 1;
                let held = self.held.values().map(KnownSet::len).sum::<usize>() as u64;
                self.tell_gap(
                    "drift",
                    held,
                    "known destinations were gone from the kernel and are put back".to_owned(),
                );
                self.forget();
                self.inbox.send(Message::KnownDue);
            }
            Err(error) => {
                tracing::warn!(error = %causes(&error), "cannot look at the known destinations in the kernel");
            }
        }
    }

    fn tell_gap(&self, cause: &str, count: u64, detail: String) {
        self.inbox.tell(Body::Gap(Gap { cause: cause.to_owned(), count, detail }));
    }
}
