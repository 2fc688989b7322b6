//! The reload thread: rules and indicators are read anew while the old ones are in use, and put in their
//! place piece by piece, so that no frame waits and no second copy is held.
//!
//! A reload is asked for by SIGHUP, over the control socket, or by files that changed and then stayed as they are for one more look.

use super::{Inbox, Message};
use crate::chain::causes;
use crate::clock;
use crate::control::{Answer, ReloadRequest};
use crate::metrics::Metrics;
use crate::queue::{Receiver, Sender, bounded, channel};
use crate::rules::{InForce, ReplaceRulesError, Replacement, RuleSources};
use sekisho_engine::rules::Rules;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// A piece that is not exchanged by then never will be: the detecting thread has ended.
const EXCHANGE_WITHIN: Duration = Duration::from_secs(30);
/// What helps when new rules are refused.
const HELP: &str = "`sekisho check` tells what can't be read; `sekisho indicators reload --force` takes what is there";
/// Files that are looked at, at most.
const MOST_FILES: usize = 4096;

/// The way to the thread.
#[derive(Clone)]
pub(super) struct Reload {
    asks: Sender<ReloadRequest>,
}

impl Reload {
    /// Starts the thread; `in_force` is what new rules are compared with. It ends when this handle is gone.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn spawn(
        sources: RuleSources,
        in_force: InForce,
        inbox: Inbox,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let (asks, asked) = channel();
        let mut reading = Reading { files: look(&sources), sources, in_force, inbox, metrics };
        std::thread::Builder::new().name("reload".to_owned()).spawn(move || reading.run(&asked))?;
        Ok(Self { asks })
    }

    /// Asks for a reload.
    pub(super) fn ask(&self, request: ReloadRequest) {
        // A thread that is gone is seen by a reload that is never told.
        let _ = self.asks.send(request);
    }
}

/// What tells that a file is another: device, inode, length, time of change.
type Files = Vec<(PathBuf, Option<(u64, u64, u64, i64, i64)>)>;

struct Reading {
    sources: RuleSources,
    in_force: InForce,
    /// The files as they were when they were last read, or refused.
    files: Files,
    inbox: Inbox,
    metrics: Arc<Metrics>,
}

impl Reading {
    fn run(&mut self, asked: &Receiver<ReloadRequest>) {
        let mut before = self.files.clone();
        loop {
            match asked.recv_timeout(LOOK) {
                Ok(request) => self.reload("asked for", request),
                Err(RecvTimeoutError::Timeout) => {
                    let now = look(&self.sources);
                    // Still being written as long as it differs from the last look.
                    if now != self.files && now == before {
                        self.reload("changed files", ReloadRequest::default());
                    }
                    before = now;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn reload(&mut self, cause: &str, request: ReloadRequest) {
        let ReloadRequest { forced_by, answer } = request;
        let force = forced_by.is_some();
        tracing::info!(cause, force, "reading rules and indicators anew");
        self.files = look(&self.sources);
        let (outcome, refused) = match self.replace(force) {
            Ok(()) => ("reloaded", None),
            Err(error) => {
                let why = causes(&error);
                tracing::error!(error = %why, state = "what was not replaced stays in force", help = HELP, "rules are not reloaded");
                ("refused", Some(why))
            }
        };
        *self.metrics.values().reloads.entry(outcome.to_owned()).or_default() += 1;
        if let Some(answer) = answer {
            // Who asked may have gone meanwhile.
            let _ = answer.send(self.answer(refused.clone()));
        }
        let counts = self.in_force.counts.clone();
        self.inbox.send(Message::Reloaded { counts, refused, forced_by });
    }

    fn answer(&self, refused: Option<String>) -> Answer {
        match refused {
            None => {
                let (total, sources) =
                    (self.in_force.counts.values().sum::<u64>(), self.in_force.counts.len());
                Answer::Done {
                    detail: format!(
                        "rules are reloaded: {total} indicators of {sources} packs and lists, beside the shipped lists"
                    ),
                    containments: Vec::new(),
                }
            }
            Some(why) => Answer::Refused {
                error: format!("rules are not reloaded: {why}"),
                state: "what was not replaced stays in force".to_owned(),
                help: HELP.to_owned(),
            },
        }
    }

    fn replace(&mut self, force: bool) -> Result<(), ReplaceRulesError> {
        self.sources.now = Some(clock::now());
        let mut replacement = Replacement::begin(self.sources.clone(), &self.in_force, force)?;
        while let Some(piece) = replacement.next_piece()? {
            let (back, old) = bounded(1);
            self.inbox.send(Message::Piece(Box::new(piece), back));
            // What was in its place is dropped here, where nobody waits.
            if old.recv_timeout(EXCHANGE_WITHIN).is_err() {
                return Ok(());
            }
        }
        let rules = Rules {
            detectors: replacement.detectors,
            packs: replacement.packs,
            lists: replacement.lists,
            ..Rules::default()
        };
        self.in_force = replacement.becomes;
        self.inbox.send(Message::Detectors(Box::new(rules)));
        Ok(())
    }
}

/// The files of sources, those of directories too, in the order of their names.
fn look(sources: &RuleSources) -> Files {
    let mut files = Vec::new();
    for path in sources.packs.iter().chain(&sources.lists) {
        let within = fs::read_dir(path).map(|entries| {
            let mut within: Vec<PathBuf> =
                entries.filter_map(|entry| Some(entry.ok()?.path())).take(MOST_FILES).collect();
            within.sort();
            within
        });
        files.push(path.clone());
        files.extend(within.unwrap_or_default());
    }
    let stamp =
        |data: Metadata| (data.dev(), data.ino(), data.len(), data.mtime(), data.mtime_nsec());
    files
        .into_iter()
        .take(MOST_FILES)
        .map(|path| (path.clone(), fs::metadata(&path).ok().map(stamp)))
        .collect()
}
