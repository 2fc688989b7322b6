//! The warden thread: proves cuts and watches over them, with a hand of its own on the kernel,
//! so that no proof ever holds up a cut.

use super::{Drifted, Inbox, Message};
use crate::chain::causes;
use crate::enforce::{Drift, Enforcer};
use crate::metrics::Metrics;
use sekisho_schema::{Containment, ContainmentSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How often the kernel is compared with what it should hold.
const CHECK: Duration = Duration::from_secs(1);

/// What the warden is told.
pub(super) enum Job {
    /// This is what the kernel shall hold from now on.
    Desired(ContainmentSet),
    /// The ruleset was loaded; a hand on it.
    Hand(Box<Enforcer>),
    /// A cut to prove.
    Prove(Containment),
}

/// The way to the warden.
pub(super) struct Warden {
    jobs: Sender<Job>,
}

impl Warden {
    /// Starts the thread; it ends when this handle is gone.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn spawn(inbox: Inbox, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let (jobs, work) = channel();
        std::thread::Builder::new().name("warden".to_owned()).spawn(move || {
            Watching { inbox, metrics, hand: None, desired: ContainmentSet::default(), last: None }
                .run(&work)
        })?;
        Ok(Self { jobs })
    }

    pub(super) fn tell(&self, job: Job) {
        // A warden that is gone is seen by proofs that never come; the cut holds without it.
        let _ = self.jobs.send(job);
    }
}

struct Watching {
    inbox: Inbox,
    metrics: Arc<Metrics>,
    hand: Option<Enforcer>,
    desired: ContainmentSet,
    last: Option<Drifted>,
}

impl Watching {
    fn run(mut self, work: &Receiver<Job>) {
        let mut check_at = Instant::now() + CHECK;
        loop {
            match work.recv_timeout(check_at.saturating_duration_since(Instant::now())) {
                Ok(Job::Desired(set)) => {
                    self.desired = set;
                    // What was just asked for may still be on its way into the kernel.
                    check_at = Instant::now() + CHECK;
                }
                Ok(Job::Hand(hand)) => self.hand = Some(*hand),
                Ok(Job::Prove(containment)) => self.prove(&containment),
                Err(RecvTimeoutError::Timeout) => {
                    check_at = Instant::now() + CHECK;
                    self.check();
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn prove(&mut self, containment: &Containment) {
        let Some(hand) = &mut self.hand else { return };
        let proof = hand.prove(containment);
        self.inbox.send(Message::Proved { containment: containment.id.clone(), proof });
    }

    fn check(&mut self) {
        let Some(hand) = &mut self.hand else { return };
        let drifted = match hand.verify(&self.desired) {
            Ok(drift) => Drifted {
                rules: drift.iter().any(|drift| matches!(drift, Drift::Ruleset { .. })),
                what: drift.iter().map(describe).collect(),
            },
            Err(error) if error.is_absent() => {
                Drifted { what: vec!["our tables are gone".to_owned()], rules: true }
            }
            Err(error) => {
                tracing::warn!(error = %causes(&error), "cannot compare the kernel with what it should hold");
                return;
            }
        };
        self.metrics.values().table_owned = !drifted.rules;
        if drifted.what.is_empty() {
            self.last = None;
            return;
        }
        // The second time in a row: a release under way right now is no drift.
        if self.last.replace(drifted.clone()).is_some() || drifted.rules {
            self.metrics.values().drift += 1;
            self.inbox.send(Message::Drift(drifted));
            self.last = None;
        }
    }
}

fn describe(drift: &Drift) -> String {
    match drift {
        Drift::Foreign { element } => format!("{element} is held and nobody asked for it"),
        Drift::Lease { id, element, left } => format!(
            "{element} of {id} ends in {} s, which is another end than decided",
            left.nanos() / 1_000_000_000
        ),
        Drift::Missing { id, element } => format!("{element} of {id} is gone"),
        Drift::Ruleset { table } => {
            format!("chains or rules of table {table} sekisho were changed")
        }
    }
}
