//! Two threads between the agent and the guardian: one has cuts proven, so that no proof ever holds up a
//! cut; the other hears what happens on the guardian's side, above all that it is gone.

use super::shared::Shared;
use super::{Drifted, Inbox, Message};
use crate::chain::causes;
use crate::enforce::Ownership;
use crate::guardian::{Asker, Event, Guardian, listen};
use sekisho_schema::Containment;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// A guardian that is gone is called again after this.
const AGAIN: Duration = Duration::from_millis(50);

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

    /// Has a cut proven.
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
        while let Ok(containment) = work.recv() {
            self.prove(&containment);
        }
    }

    fn prove(&mut self, containment: &Containment) {
        if self.asker.is_none() {
            self.asker = self.guardian.asker().ok();
        }
        let Some(asker) = &mut self.asker else { return };
        match asker.prove(containment) {
            Ok(proof) => {
                self.inbox.send(Message::Proved { containment: containment.id.clone(), proof });
            }
            Err(error) => {
                tracing::warn!(error = %causes(&error), containment = %containment.id, "a cut could not be tried");
                if error.is_gone() {
                    self.asker = None;
                }
            }
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
                shared.metrics.values().table_owned = false;
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
            shared.metrics.values().table_owned = owned(&state.ownership);
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
