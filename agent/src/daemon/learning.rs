//! The learning thread: keeps what the detecting thread learned, reads what people signed, looks at free space.
//!
//! The detecting thread never waits for it: what it learned is handed over whole, and put into files here.

mod documents;
mod networks;
mod space;

pub(super) use documents::{Change, News};

use self::documents::Documents;
use self::networks::Networks;
use self::space::Space;
use super::Message;
use super::shared::Shared;
use crate::baseline::{
    AUTHORITY_FILE, BaselineFileError, Kept, LEARNING_FILE, read_authority, read_calendar,
    read_kept, set_aside, write_authority, write_kept, write_learned,
};
use crate::chain::{Complaint, causes};
use crate::clock;
use crate::config::Config;
use crate::control::RecordStatus;
use crate::queue::{Receiver, Sender, bounded};
use crate::state::write_atomically;
use sekisho_engine::Limits;
use sekisho_engine::certify::AuthorityState;
use sekisho_engine::certify::coverage::covered;
use sekisho_engine::certify::recorder::{Recorder, Whose};
use sekisho_engine::learn::{AsnOf, Baseline, Episodes, Saving};
use sekisho_schema::Timestamp;
use sekisho_schema::baseline::{Episode, WEEK_HOURS};
use sekisho_schema::calendar::Calendar;
use sekisho_schema::certificate::Tails;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, TrySendError};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Name of the destinations that were learned, in the state directory.
const DESTINATIONS_FILE: &str = "baseline.json";
/// Things to be done that may wait.
const WAITING: usize = 16;
/// How often the documents are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How often the hour is counted and free space is looked at.
const MINUTE: Duration = Duration::from_secs(60);

/// All that the detecting thread learned, as it stands.
pub(super) struct Learnt {
    pub(super) at: Timestamp,
    pub(super) destinations: Baseline,
    pub(super) episodes: Saving,
    pub(super) finished: Vec<Episode>,
    pub(super) lost: u64,
}

enum Job {
    Authority(Box<AuthorityState>),
    Keep(Box<Learnt>),
    Look,
    Role(String),
}

/// The way to the thread; it ends, once everything is written down, when this is gone.
pub(super) struct Keeper {
    jobs: Sender<Job>,
    /// When the detecting thread last watched something, in nanoseconds.
    watched: Arc<AtomicI64>,
    /// What was over and could not be handed on.
    held_back: (Vec<Episode>, u64),
}

impl Keeper {
    /// Notes that the host is watched at a time.
    pub(super) fn watch(&self, at: Timestamp) {
        self.watched.store(at.nanos(), Relaxed);
    }

    /// Hands over what was learned; nobody waits but at the very end.
    pub(super) fn keep(&mut self, mut learnt: Learnt, is_last: bool) {
        let (mut finished, lost) = std::mem::take(&mut self.held_back);
        finished.append(&mut learnt.finished);
        learnt.finished = finished;
        learnt.lost += lost;
        let job = Job::Keep(Box::new(learnt));
        if is_last {
            // A thread that is gone has said so.
            let _ = self.jobs.send(job);
            return;
        }
        if let Err(TrySendError::Full(Job::Keep(learnt))) = self.jobs.try_send(job) {
            self.held_back = (learnt.finished, learnt.lost);
        }
    }

    /// Hands over what governor and drift guard go on from; `false` when it has to be tried again.
    pub(super) fn keep_authority(&self, state: &AuthorityState) -> bool {
        self.jobs.try_send(Job::Authority(Box::new(state.clone()))).is_ok()
    }

    /// The documents are to be looked at again, whether their files changed or not.
    pub(super) fn look(&self) {
        let _ = self.jobs.try_send(Job::Look);
    }

    /// The host is of this role; `false` when it has to be tried again.
    pub(super) fn become_of(&self, role: &str) -> bool {
        self.jobs.try_send(Job::Role(role.to_owned())).is_ok()
    }
}

/// What the detecting thread begins with.
#[derive(Default)]
pub(super) struct Beginning {
    pub(super) destinations: Option<Baseline>,
    pub(super) episodes: Option<Vec<u8>>,
    pub(super) authority: Option<AuthorityState>,
    pub(super) networks: Option<Box<dyn AsnOf>>,
    /// What could not be used, to be said on the console and on record.
    pub(super) complaints: Vec<Complaint>,
}

/// What was kept, read before the thread begins; files that can't be used are put aside.
pub(super) struct Found {
    pub(super) beginning: Beginning,
    recorder: Recorder,
    calendar: Calendar,
    began_anew: Option<String>,
}

/// Reads everything that learning goes on from.
pub(super) fn find(config: &Config) -> Found {
    let mut complaints = Vec::new();
    let state = &config.state;
    let kept = read_kept(state).unwrap_or_else(|error| {
        complaints.push(begin_anew(&state.join(LEARNING_FILE), &error, "learning"));
        None
    });
    let authority = read_authority(state).unwrap_or_else(|error| {
        complaints.push(begin_anew(
            &state.join(AUTHORITY_FILE),
            &error,
            "the count of this week's automatic cuts",
        ));
        None
    });
    let destinations = read_destinations(state).unwrap_or_else(|error| {
        complaints.push(begin_anew(&state.join(DESTINATIONS_FILE), &error, "the baseline"));
        None
    });
    let mut calendar = Calendar::unknown();
    if let Some(path) = &config.calendar {
        match read_calendar(path) {
            Ok(read) => calendar = read,
            Err(error) => complaints.push(Complaint::new(
                causes(&error),
                "no holiday is known: every day is one of its week",
                "mend the file, or name another under [learn] calendar",
            )),
        }
    }
    let (recorder, episodes) = match kept {
        Some(Kept { record, episodes }) => (Recorder::resume(record), Some(episodes)),
        None => (Recorder::default(), None),
    };
    let networks = config.geo.as_deref().and_then(Networks::open);
    let networks = networks.map(|networks| Box::new(networks) as Box<dyn AsnOf>);
    let began_anew = complaints.first().map(|complaint| complaint.error.clone());
    let beginning = Beginning { destinations, episodes, authority, networks, complaints };
    Found { beginning, recorder, calendar, began_anew }
}

/// Puts a file aside that can't be used, and says so.
fn begin_anew(path: &Path, error: &BaselineFileError, what: &str) -> Complaint {
    let state = match set_aside(path) {
        Ok(aside) => format!("the file was put aside as {}; {what} begins anew", aside.display()),
        Err(error) => format!("it can't be put aside either ({error}); {what} begins anew"),
    };
    Complaint::new(
        causes(error),
        state,
        "keep the file for whoever looks into it; a copy of before, put in its place while the agent is stopped, is gone on from",
    )
}

fn read_destinations(state: &Path) -> Result<Option<Baseline>, BaselineFileError> {
    let path = state.join(DESTINATIONS_FILE);
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| BaselineFileError::Malformed { path, why: error.to_string() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(BaselineFileError::Read { path, source }),
    }
}

/// The thread, before it runs.
pub(super) struct Learning {
    state: PathBuf,
    host: String,
    limits: Limits,
    recorder: Recorder,
    calendar: Calendar,
    documents: Documents,
    tails: Option<Tails>,
    space: Space,
    shared: Arc<Shared>,
    watched: Arc<AtomicI64>,
    record: RecordStatus,
}

impl Learning {
    /// Everything that the thread needs, and what people signed so far.
    pub(super) fn new(
        config: &Config,
        found: Found,
        role: String,
        shared: Arc<Shared>,
    ) -> (Self, Vec<News>) {
        let Found { beginning: _, recorder, calendar, began_anew } = found;
        let documents = Documents::new(config.state.clone(), config.trust.clone(), role);
        let mut learning = Self {
            state: config.state.clone(),
            host: config.host.clone(),
            limits: config.limits.clone(),
            recorder,
            calendar,
            documents,
            tails: None,
            space: Space::new(config.volumes.clone()),
            shared,
            watched: Arc::new(AtomicI64::new(i64::MIN)),
            record: RecordStatus { began_anew, ..RecordStatus::default() },
        };
        let news = learning.documents.look(clock::now());
        learning.take_tails(&news);
        learning.show();
        (learning, news)
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn spawn(mut self) -> std::io::Result<(Keeper, JoinHandle<()>)> {
        let (jobs, work) = bounded(WAITING);
        let watched = Arc::clone(&self.watched);
        let thread = std::thread::Builder::new()
            .name("learning".to_owned())
            .spawn(move || self.run(&work))?;
        Ok((Keeper { jobs, watched, held_back: (Vec::new(), 0) }, thread))
    }

    fn run(&mut self, work: &Receiver<Job>) {
        let mut minute_at = Instant::now();
        loop {
            match work.recv_timeout(LOOK) {
                Ok(Job::Authority(state)) => {
                    let kept = write_authority(&self.state, &state);
                    self.fared(
                        kept,
                        "the count of automatic cuts is as it was before at a restart",
                    );
                }
                Ok(Job::Keep(learnt)) => self.keep(*learnt),
                Ok(Job::Look) => {
                    self.documents.look_again();
                    self.look();
                }
                Ok(Job::Role(role)) => {
                    let news = self.documents.become_of(role);
                    self.tell(news);
                    self.look();
                }
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= minute_at {
                minute_at = Instant::now() + MINUTE;
                self.minute();
            }
            self.show();
        }
    }

    fn look(&mut self) {
        let news = self.documents.look(clock::now());
        self.tell(news);
    }

    fn tell(&mut self, news: Vec<News>) {
        self.take_tails(&news);
        for news in news {
            self.shared.inbox.send(Message::Learning(Box::new(news)));
        }
    }

    /// The sum is measured against the certificate's episodes here as in the detecting thread.
    fn take_tails(&mut self, news: &[News]) {
        for news in news {
            if let Change::Certificate(certificate) = &news.change {
                self.tails = certificate.as_ref().and_then(|certificate| certificate.tails.clone());
            }
        }
    }

    /// What is due each minute.
    fn minute(&mut self) {
        let watched = Timestamp::from_nanos(self.watched.load(Relaxed));
        if watched > Timestamp::EPOCH {
            self.recorder.watch(watched);
        }
        if let Some((volume, fell)) = self.space.look(clock::now()) {
            tracing::info!(volume = %volume.display(), bytes = fell, "free space fell");
            self.shared.inbox.send(Message::SpaceFell(fell));
        }
    }

    /// Puts what was learned into the record and into files.
    fn keep(&mut self, learnt: Learnt) {
        let Learnt { at, destinations, episodes, finished, lost } = learnt;
        let episodes = episodes.sealed();
        self.record.lost += lost;
        let mut spoke: Vec<_> = Vec::new();
        // The hour of the end counts, too.
        self.minute();
        let going_on = match self.going_on(&episodes) {
            Ok(going_on) => going_on,
            Err(why) => {
                tracing::error!(error = %why, state = "the record says nothing of episodes that go on", "cannot read back what was learned");
                Vec::new()
            }
        };
        for episode in finished.iter().chain(&going_on) {
            spoke.push((episode.first_at, episode.key.workload.clone()));
            spoke.push((episode.last_at, episode.key.workload.clone()));
        }
        spoke.sort();
        for (at, workload) in spoke {
            self.recorder.spoke(&workload, at);
        }
        finished.into_iter().for_each(|episode| self.recorder.take(episode));
        let whose = Whose {
            host: &self.host,
            role: self.documents.role(),
            agent: env!("CARGO_PKG_VERSION"),
        };
        let learned = self.recorder.record(whose, going_on);
        self.record.covered = covered(&learned, &self.calendar).sentence;
        let kept = Kept { record: self.recorder.keep(whose), episodes };
        let written = write_kept(&self.state, &kept)
            .and_then(|()| write_learned(&self.state, &learned))
            .and_then(|()| write_destinations(&self.state, &destinations));
        if written.is_ok() {
            self.record.kept_at = Some(at);
        }
        self.fared(written, "what was learned since the last time is lost at a restart");
    }

    /// The episodes that go on, read back from what was saved: the detecting thread does not wait for it.
    fn going_on(&self, saved: &[u8]) -> Result<Vec<Episode>, String> {
        let mut episodes = Episodes::new(&self.limits, 0);
        episodes.calibrate(self.tails.clone());
        episodes.restore(saved).map_err(|error| error.to_string())?;
        Ok(episodes.records().collect())
    }

    fn fared(&mut self, written: Result<(), BaselineFileError>, state: &str) {
        self.record.failure = written.err().map(|error| {
            let error = causes(&error);
            tracing::warn!(%error, state, help = "is the disk full?", "cannot keep what was learned");
            error
        });
    }

    /// Publishes how learning fares.
    fn show(&mut self) {
        self.record.role = self.documents.role().to_owned();
        self.record.host_weeks = self.recorder.hours() as f64 / WEEK_HOURS as f64;
        self.record.week_hours = self.recorder.week_hours();
        self.record.finished = self.recorder.len() as u64;
        let mut shown = self.shared.learning.lock().unwrap_or_else(PoisonError::into_inner);
        shown.record.clone_from(&self.record);
        shown.documents.clone_from(self.documents.status());
    }
}

fn write_destinations(state: &Path, baseline: &Baseline) -> Result<(), BaselineFileError> {
    let path = state.join(DESTINATIONS_FILE);
    let bytes = serde_json::to_vec(baseline).map_err(|error| BaselineFileError::Malformed {
        path: path.clone(),
        why: error.to_string(),
    })?;
    Ok(write_atomically(&path, &bytes, 0o600)?)
}
