//! Two threads between the agent and the guardian: one has sockets ended and cuts proven, so that neither ever holds
//! up a cut; the other hears what happens on the guardian's side, above all that it is gone.

use super::shared::Shared;
use super::{Drifted, Inbox, Message};
use crate::chain::causes;
use crate::enforce::Ownership;
use crate::guardian::{AskGuardianError, Asker, Event, Guardian, listen};
use crate::queue::{Receiver, Sender, channel};
use sekisho_schema::{Containment, Scope};
use std::sync::Arc;
use std::time::Duration;

/// A guardian that is gone is called again after this.
const AGAIN: Duration = Duration::from_millis(50);
/// Cuts whose sockets are ended together; their count stands in the receipt of the first.
const MOST_AT_ONCE: usize = 64;

/// The way to the proving thread.
pub(super) struct Warden {
    jobs: Sender<Containment>,
}

impl Warden {
    /// Starts the thread; it ends when this handle is gone.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn spawn(inbox: Inbox, guardian: Guardian) -> std::io::Result<Self> {
        let (jobs, work) = channel();
        std::thread::Builder::new()
            .name("warden".to_owned())
            .spawn(move || Proving { inbox, guardian, asker: None }.run(&work))?;
        Ok(Self { jobs })
    }

    /// Has the sockets of a cut ended, and the cut proven.
    pub(super) fn prove(&self, containment: Containment) {
        // A warden that is gone is seen by proofs that never come; the cut holds without it.
        let _ = self.jobs.send(containment);
    }
}

struct Proving {
    inbox: Inbox,
    guardian: Guardian,
    asker: Option<Asker>,
}

impl Proving {
    fn run(mut self, work: &Receiver<Containment>) {
        while let Ok(first) = work.recv() {
            // All that were cut meanwhile, so that many cuts at once cost one look at the sockets.
            let cut: Vec<Containment> =
                std::iter::once(first).chain(work.try_iter().take(MOST_AT_ONCE)).collect();
            let mut ended = self.end(cut.iter().map(|one| one.scope.clone()).collect());
            for containment in &cut {
                self.prove(containment, std::mem::take(&mut ended));
            }
        }
    }

    /// Has the sockets of what was just cut ended, wherever they are; how many.
    fn end(&mut self, scopes: Vec<Scope>) -> u32 {
        let Some(asker) = self.asker() else { return 0 };
        match asker.end(scopes) {
            Ok(ended) => {
                if !ended.faults.is_empty() || ended.failed > 0 {
                    tracing::info!(failed = ended.failed, faults = ?ended.faults, "some sockets of a contained scope did not end; their packets are dropped");
                }
                ended.sockets
            }
            Err(error) => {
                tracing::warn!(error = %causes(&error), state = "packets are dropped", "cannot end the sockets of a contained scope");
                self.lost(&error);
                0
            }
        }
    }

    fn prove(&mut self, containment: &Containment, sockets_destroyed: u32) {
        let Some(asker) = self.asker() else { return };
        match asker.prove(containment) {
            Ok(proof) => {
                let containment = containment.id.clone();
                self.inbox.send(Message::Proved { containment, proof, sockets_destroyed });
            }
            Err(error) => {
                tracing::warn!(error = %causes(&error), containment = %containment.id, "a cut could not be tried");
                self.lost(&error);
            }
        }
    }

    fn asker(&mut self) -> Option<&mut Asker> {
        if self.asker.is_none() {
            self.asker = self.guardian.asker().ok();
        }
        self.asker.as_mut()
    }

    fn lost(&mut self, error: &AskGuardianError) {
        if error.is_gone() {
            self.asker = None;
        }
    }
}

/// What is known of the guardian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// It is there, or there again: it knows nothing of what we want.
    Back,
    /// It is gone: nothing new can be cut.
    Gone(String),
}

/// Hears the guardian for as long as the agent runs.
///
/// # Errors
/// When the system gives no thread.
pub(super) fn hear(guardian: Guardian, shared: Arc<Shared>) -> std::io::Result<()> {
    let hearing = move || {
        let mut is_present = false;
        loop {
            let ended = listen(&guardian, |event| {
                if !std::mem::replace(&mut is_present, true) {
                    shared.inbox.send(Message::Guardian(Presence::Back));
                }
                told(event, &shared);
                true
            });
            if std::mem::replace(&mut is_present, false) {
                let why = ended.err().map_or_else(String::new, |error| causes(&error));
                let mut values = shared.metrics.values();
                values.table_owned = false;
                values.raw_sockets = None;
                drop(values);
                shared.guardian_is(None);
                shared.inbox.send(Message::Guardian(Presence::Gone(why)));
            }
            std::thread::sleep(AGAIN);
        }
    };
    std::thread::Builder::new().name("guardian".to_owned()).spawn(hearing).map(drop)
}

fn told(event: Event, shared: &Shared) {
    let owned = |ownership: &Ownership| *ownership == Ownership::Owned;
    match event {
        Event::Present { state } => {
            let mut values = shared.metrics.values();
            values.table_owned = owned(&state.ownership);
            values.raw_sockets = state.denying.figures();
            drop(values);
            shared.guardian_is(Some(state));
        }
        Event::Owned { ownership } => shared.metrics.values().table_owned = owned(&ownership),
        Event::Drift { what, who, failure } => {
            shared.metrics.values().drift += 1;
            shared.inbox.send(Message::Drift(Drifted { what, who, failure }));
        }
        Event::Links => {}
    }
}
