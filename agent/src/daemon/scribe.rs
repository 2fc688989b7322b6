//! Puts programs' names to flows, and hands records to the journal in their order.
//!
//! To find who holds a socket, or held one that is gone, every network namespace and every process may have to be
//! looked through: tens of milliseconds for which the detecting thread must not keep frames waiting.

use super::{Inbox, Message};
use crate::chain::causes;
use crate::clock;
use crate::evidence::{Freeze, Glance, Store, tree};
use crate::guardian::{Asker, Guardian};
use crate::host::owner::Owners;
use crate::host::recent::follow;
use crate::journal::JournalHandle;
use crate::queue::{Receiver, Sender, bounded};
use sekisho_schema::event::Gap;
use sekisho_schema::{Body, FlowKey, Process, Record};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, TrySendError};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// Records and questions that wait, at most; records beyond it pass by unnamed.
const WAITING: usize = 4096;
/// Longest wait for the guardian's word on who opened a flow, and how long nobody asks after one in vain.
const OPENER_PATIENCE: Duration = Duration::from_millis(20);
const OPENER_REST: Duration = Duration::from_secs(5);
/// Time within each second that may go into looking for owners: in a flood of findings most stay without a name, and
/// none waits for long.
const ASKING: Duration = Duration::from_millis(250);
/// Findings for whose program nobody looked are told of at most so often, all at once.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Bytes of frames that are frozen for a finding.
const FROZEN_BYTES: usize = 4 << 20;

/// A record on its way to the journal.
pub(super) struct Entry {
    pub(super) record: Record,
    /// The flow of a finding whose owner is to be looked for.
    pub(super) naming: Option<FlowKey>,
    /// The frames that are kept with it, and where.
    pub(super) freeze: Option<Frozen>,
}

/// The frames of the moment of a finding; those about its remote end are still to be found among them.
pub(super) struct Frozen {
    pub(super) store: Store,
    /// Its selection is still empty.
    pub(super) freeze: Freeze,
    pub(super) remote: IpAddr,
    /// None when too many were held.
    pub(super) glance: Option<Glance>,
}

enum Job {
    Name(FlowKey),
    Write(Box<Entry>),
}

/// The way to the thread; it ends, with everything handed over, when this is gone.
pub(super) struct Scribe {
    /// None when the system gave no thread: then nothing is named.
    jobs: Option<Sender<Job>>,
    /// Findings for whose program nobody looked, not yet told.
    unnamed: Arc<AtomicU64>,
    journal: JournalHandle,
    inbox: Inbox,
}

impl Scribe {
    pub(super) fn spawn(journal: JournalHandle, inbox: Inbox, guardian: Guardian) -> Self {
        let (jobs, work) = bounded(WAITING);
        let (to, back) = (journal.clone(), inbox.clone());
        let unnamed = Arc::new(AtomicU64::new(0));
        let mut naming = Naming {
            owners: open_owners(guardian),
            since: Instant::now(),
            spent: Duration::ZERO,
            unnamed: Arc::clone(&unnamed),
        };
        let spawned = Builder::new()
            .name("scribe".to_owned())
            .spawn(move || run(&mut naming, &work, &to, &back));
        if let Err(error) = &spawned {
            tracing::error!(%error, state = "findings name no program", "no thread to ask who owns flows");
        }
        Self { jobs: spawned.is_ok().then_some(jobs), unnamed, journal, inbox }
    }

    /// Has a record written down behind all before it.
    pub(super) fn write(&self, entry: Entry) {
        // Without the thread nothing is named, which was said when it could not be had.
        let Some(jobs) = &self.jobs else { return self.pass(entry) };
        if let Err(
            TrySendError::Full(Job::Write(entry)) | TrySendError::Disconnected(Job::Write(entry)),
        ) = jobs.try_send(Job::Write(Box::new(entry)))
        {
            self.unnamed.fetch_add(u64::from(entry.naming.is_some()), Ordering::Relaxed);
            self.pass(*entry);
        }
    }

    /// Looks for the owner of a flow, who comes as a message; `false` when too much waits.
    #[must_use]
    pub(super) fn ask(&self, flow: FlowKey) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(Job::Name(flow)).is_ok())
    }

    /// What nobody has time to name is written down all the same.
    fn pass(&self, entry: Entry) {
        self.journal.record(entry.record);
        if let Some(frozen) = entry.freeze {
            // To look for its frames would take time that is not to be had here.
            keep(Frozen { glance: None, ..frozen }, &self.inbox);
        }
    }
}

fn run(naming: &mut Naming, work: &Receiver<Job>, journal: &JournalHandle, inbox: &Inbox) {
    let mut told = Instant::now();
    loop {
        let job = match work.recv_timeout(TELL_EVERY) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                // Nobody reads messages any more.
                if let Some(body) = unnamed(&naming.unnamed) {
                    journal.record(Record { at: clock::now(), body });
                }
                return;
            }
        };
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            if let Some(body) = unnamed(&naming.unnamed) {
                inbox.tell(body);
            }
        }
        let Some(job) = job else { continue };
        match job {
            Job::Name(flow) => {
                let process = naming.owner(&flow).map(Box::new);
                inbox.send(Message::Owner(flow, process));
            }
            Job::Write(entry) => {
                let Entry { mut record, naming: flow, freeze } = *entry;
                let process = flow.and_then(|flow| naming.owner(&flow));
                let pid = process.as_ref().map(|process| process.pid);
                if let Body::Finding(finding) = &mut record.body {
                    finding.process = process.or(finding.process.take());
                }
                journal.record(record);
                if let Some(mut frozen) = freeze {
                    if let Some(pid) = pid {
                        frozen.freeze.processes = tree(pid);
                    }
                    keep(frozen, inbox);
                }
            }
        }
    }
}

/// What there is to tell of findings that name no program.
fn unnamed(count: &AtomicU64) -> Option<Body> {
    let count = count.swap(0, Ordering::Relaxed);
    if count == 0 {
        return None;
    }
    let detail = format!(
        "{count} findings name no program: looking for programs may take {} ms of each second",
        ASKING.as_millis()
    );
    Some(Body::Gap(Gap { cause: "owner".to_owned(), count, detail }))
}

fn keep(frozen: Frozen, inbox: &Inbox) {
    let Frozen { store, mut freeze, remote, glance } = frozen;
    let finding = freeze.finding.clone();
    let is_kept = glance.is_some_and(|glance| {
        freeze.selection = glance.about(remote, FROZEN_BYTES);
        drop(glance);
        store.keep(freeze)
    });
    if !is_kept {
        let detail = format!("the frames of finding {finding} were not kept: too many wait");
        inbox.tell(Body::Gap(Gap { cause: "evidence".to_owned(), count: 1, detail }));
    }
}

/// Who owns flows, asked for no longer than may be.
struct Naming {
    owners: Option<Owners>,
    since: Instant,
    spent: Duration,
    unnamed: Arc<AtomicU64>,
}

impl Naming {
    fn owner(&mut self, flow: &FlowKey) -> Option<Process> {
        let began = Instant::now();
        if began.duration_since(self.since) >= Duration::from_secs(1) {
            (self.since, self.spent) = (began, Duration::ZERO);
        }
        if self.spent >= ASKING {
            self.unnamed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let process = self.owners.as_mut()?.owner(flow).ok().flatten();
        self.spent += began.elapsed();
        process
    }
}

/// Who owns flows, with a memory of processes that have ended where the kernel tells of them.
fn open_owners(guardian: Guardian) -> Option<Owners> {
    let recent = match follow() {
        Ok((mut reporter, recent)) => {
            let running = std::thread::Builder::new().name("processes".to_owned()).spawn(move || {
                // It ends with the program.
                if let Err(error) = reporter.run(&AtomicBool::new(false)) {
                    tracing::warn!(error = %causes(&error), state = "only processes that are still there can be named", "cannot follow processes any more");
                }
            });
            running.is_ok().then_some(recent)
        }
        Err(error) => {
            tracing::info!(error = %causes(&error), "processes are not followed");
            None
        }
    };
    let mut asker: Option<Asker> = None;
    let mut rests_until = Instant::now();
    let openers = move |flow: &FlowKey| {
        if Instant::now() < rests_until {
            return None;
        }
        let asked = match &mut asker {
            Some(asker) => asker.opener(flow),
            None => guardian
                .hasty_asker(OPENER_PATIENCE)
                .and_then(|found| asker.insert(found).opener(flow)),
        };
        asked.unwrap_or_else(|error| {
            tracing::debug!(error = %causes(&error), "the guardian does not tell who opened a flow");
            asker = None;
            rests_until = Instant::now() + OPENER_REST;
            None
        })
    };
    let owners = Owners::open(recent).map(|owners| owners.with_openers(Box::new(openers)));
    owners.inspect_err(|error| tracing::warn!(error = %causes(error), state = "findings name no program", "cannot ask who owns flows")).ok()
}
