//! The journal thread: a bounded queue in front of the disk.
//!
//! Whoever hands over a record never waits: a full queue counts the record as lost, and the
//! journal says so with a gap as soon as it can.

use super::cursor::Cursor;
use super::is_first_class;
use super::segment::{Journal, JournalError, JournalOptions, journal_gap};
use crate::clock;
use crate::queue::{Receiver, Sender, bounded};
use sekisho_schema::{Action, Body, Envelope, Record};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Records that may wait for the journal thread.
const QUEUE: usize = 8192;
/// Places of it that are kept for what tells of cuts: a flood of findings must not hide them.
const RESERVE: usize = 1024;
/// Records kept in memory while the disk refuses; the oldest of lower class go first.
const MEMORY: usize = 4096;
/// The longest that a record of lower class waits for the disk's word.
const GROUP_COMMIT: Duration = Duration::from_millis(50);
/// How often a disk that refused is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often size and cap are looked at.
const CAP_CHECK: Duration = Duration::from_secs(10);

/// How the journal fares.
#[derive(Debug, Default)]
pub struct JournalHealth {
    failure: Mutex<Option<String>>,
    /// Sequence of the last durable record of this boot.
    pub durable: AtomicU64,
    /// Bytes of all segments.
    pub bytes: AtomicU64,
    /// Records that the collector has not acknowledged.
    pub unsent: AtomicI64,
    /// Records of first class that were lost.
    pub lost_first: AtomicU64,
    /// Other records that were lost.
    pub lost_other: AtomicU64,
    /// Records waiting in memory because the disk refuses.
    pub waiting: AtomicU64,
}

impl JournalHealth {
    /// Why the journal can't be written now; `None` while it can.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_failure(&self, why: Option<String>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    fn count_lost(&self, record: &Record) {
        let counter =
            if is_first_class(&record.body) { &self.lost_first } else { &self.lost_other };
        counter.fetch_add(1, Relaxed);
    }

    /// Records lost so far, of every class.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost_first.load(Relaxed) + self.lost_other.load(Relaxed)
    }
}

/// The way into the journal.
#[derive(Clone, Debug)]
pub struct JournalHandle {
    queue: Sender<Record>,
    health: Arc<JournalHealth>,
    queued: Arc<AtomicUsize>,
}

impl JournalHandle {
    /// Hands a record over without waiting.
    pub fn record(&self, record: Record) {
        // Counted before it is sent, so that the count never falls below what waits.
        let waiting = self.queued.fetch_add(1, Relaxed);
        let sent = if waiting >= QUEUE - RESERVE && !tells_of_a_cut(&record.body) {
            Err(TrySendError::Full(record))
        } else {
            self.queue.try_send(record)
        };
        if let Err(TrySendError::Full(record) | TrySendError::Disconnected(record)) = sent {
            self.queued.fetch_sub(1, Relaxed);
            self.health.count_lost(&record);
        }
    }

    /// How the journal fares.
    #[must_use]
    pub const fn health(&self) -> &Arc<JournalHealth> {
        &self.health
    }
}

/// Whether a record tells what was cut, or that it was not.
fn tells_of_a_cut(body: &Body) -> bool {
    match body {
        Body::Finding(finding) => finding.decision.action == Action::Contain,
        other => is_first_class(other),
    }
}

/// Starts the journal thread. It ends, with everything written that can be, when every handle is gone.
///
/// `stored` is called on the journal thread after records became durable.
///
/// # Errors
/// When the system gives no thread.
pub fn spawn(
    options: JournalOptions,
    boot: &str,
    stored: impl Fn(&Envelope) + Send + 'static,
) -> std::io::Result<(JournalHandle, JoinHandle<()>)> {
    let (queue, records) = bounded(QUEUE);
    let health = Arc::new(JournalHealth::default());
    let queued = Arc::new(AtomicUsize::new(0));
    let writer = Writer {
        queued: Arc::clone(&queued),
        options,
        boot: boot.to_owned(),
        health: Arc::clone(&health),
        journal: None,
        memory: VecDeque::new(),
        told_lost: 0,
        dirty_since: None,
        retry_at: None,
        cap_at: Instant::now(),
        undurable: Vec::new(),
    };
    let thread = std::thread::Builder::new()
        .name("journal".to_owned())
        .spawn(move || writer.run(&records, stored))?;
    Ok((JournalHandle { queue, health, queued }, thread))
}

struct Writer {
    queued: Arc<AtomicUsize>,
    options: JournalOptions,
    boot: String,
    health: Arc<JournalHealth>,
    journal: Option<Journal>,
    memory: VecDeque<Record>,
    told_lost: u64,
    dirty_since: Option<Instant>,
    retry_at: Option<Instant>,
    cap_at: Instant,
    undurable: Vec<Envelope>,
}

impl Writer {
    fn run(mut self, records: &Receiver<Record>, stored: impl Fn(&Envelope)) {
        self.open();
        self.health.unsent.store(self.count_unsent(), Relaxed);
        self.check_cap();
        loop {
            let wait = if self.dirty_since.is_some() { GROUP_COMMIT } else { RETRY };
            let urgent = match records.recv_timeout(wait) {
                Ok(record) => self.take(record, records),
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => {
                    self.retry_at = None;
                    self.write_memory();
                    self.commit(&stored);
                    return;
                }
            };
            self.write_memory();
            if urgent || self.dirty_since.is_some_and(|since| since.elapsed() >= GROUP_COMMIT) {
                self.commit(&stored);
            }
            if self.cap_at.elapsed() >= CAP_CHECK {
                self.check_cap();
            }
        }
    }

    fn take(&mut self, first: Record, records: &Receiver<Record>) -> bool {
        let mut urgent = false;
        let mut next = Some(first);
        while let Some(record) = next {
            self.queued.fetch_sub(1, Relaxed);
            urgent |= is_first_class(&record.body);
            self.remember(record);
            next = records.try_recv().ok();
        }
        urgent
    }

    fn remember(&mut self, record: Record) {
        if self.memory.len() >= MEMORY {
            let victim =
                [is_first_class, tells_of_a_cut].iter().find_map(|kept: &fn(&Body) -> bool| {
                    self.memory.iter().position(|waiting| !kept(&waiting.body))
                });
            let victim = victim.unwrap_or(0);
            if let Some(lost) = self.memory.remove(victim) {
                self.health.count_lost(&lost);
            }
        }
        self.memory.push_back(record);
    }

    fn open(&mut self) {
        match Journal::open(self.options.clone(), &self.boot) {
            Ok(journal) => self.journal = Some(journal),
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &JournalError) {
        let why = crate::chain::causes(error);
        // Said once for each cause, not once a second.
        if self.health.failure().as_deref() != Some(why.as_str()) {
            tracing::error!(error = %why, state = "detection and cuts go on; records wait in memory, bounded", help = "free space on the file system of the journal, or move [paths] state", "cannot write the journal");
        }
        self.health.set_failure(Some(why));
        self.retry_at = Some(Instant::now() + RETRY);
    }

    fn write_memory(&mut self) {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            self.health.waiting.store(self.memory.len() as u64, Relaxed);
            return;
        }
        if self.journal.is_none() {
            self.open();
        }
        let Some(mut journal) = self.journal.take() else { return };
        let outcome = self.append_all(&mut journal);
        self.journal = Some(journal);
        match outcome {
            Ok(()) => {
                if self.retry_at.take().is_some() {
                    tracing::info!("the journal can be written again");
                }
                self.health.set_failure(None);
            }
            Err(error) => self.fail(&error),
        }
        self.health.waiting.store(self.memory.len() as u64, Relaxed);
    }

    fn append_all(&mut self, journal: &mut Journal) -> Result<(), JournalError> {
        let lost = self.health.lost();
        if lost > self.told_lost {
            let detail = "records were lost because the journal's queue or its disk was full";
            let gap = Record { at: clock::now(), body: journal_gap(lost - self.told_lost, detail) };
            self.append(journal, gap)?;
            self.told_lost = lost;
        }
        while let Some(record) = self.memory.front() {
            self.append(journal, record.clone())?;
            self.memory.pop_front();
        }
        Ok(())
    }

    fn append(&mut self, journal: &mut Journal, record: Record) -> Result<(), JournalError> {
        let before = journal.written();
        let envelope = journal.append(record)?;
        self.health.bytes.fetch_add(journal.written() - before, Relaxed);
        self.undurable.push(envelope);
        self.health.unsent.fetch_add(1, Relaxed);
        self.dirty_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn commit(&mut self, stored: &impl Fn(&Envelope)) {
        let Some(journal) = self.journal.as_mut() else { return };
        match journal.sync() {
            Ok(()) => {
                self.health.durable.store(journal.seq(), Relaxed);
                self.dirty_since = None;
                for envelope in self.undurable.drain(..) {
                    stored(&envelope);
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    fn check_cap(&mut self) {
        self.cap_at = Instant::now();
        let Some(journal) = self.journal.as_mut() else { return };
        let cursor = Cursor::load(&self.options.dir);
        let before = journal.lost();
        match journal.enforce_cap(&cursor) {
            Ok(dropped) => {
                let [first, other] = journal.lost();
                let [first_before, other_before] = before;
                self.health.lost_first.fetch_add(first.saturating_sub(first_before), Relaxed);
                self.health.lost_other.fetch_add(other.saturating_sub(other_before), Relaxed);
                self.health.unsent.fetch_sub(i64::try_from(dropped).unwrap_or(i64::MAX), Relaxed);
            }
            Err(error) => tracing::warn!(%error, "cannot hold the journal to its cap"),
        }
        if let Ok(bytes) = journal.bytes() {
            self.health.bytes.store(bytes, Relaxed);
        }
    }

    fn count_unsent(&self) -> i64 {
        let mut spool = super::Spool::open(self.options.dir.clone());
        let mut count = 0;
        while let Ok(Some(batch)) = spool.next_batch(4096, 1 << 20) {
            count += i64::try_from(batch.events.len()).unwrap_or(0);
            spool.skip(&batch);
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sekisho_schema::event::{Gap, ModeChange};
    use sekisho_schema::{Mode, Timestamp};

    fn record(body: Body) -> Record {
        Record { at: Timestamp::EPOCH, body }
    }

    #[test]
    fn a_flood_leaves_room_for_what_tells_of_a_cut() {
        let (queue, records) = bounded(QUEUE);
        let health = Arc::new(JournalHealth::default());
        let handle = JournalHandle { queue, health: Arc::clone(&health), queued: Arc::default() };
        let gap = Gap { cause: "capture-drop".to_owned(), count: 1, detail: String::new() };
        for _ in 0..QUEUE + 10 {
            handle.record(record(Body::Gap(gap.clone())));
        }
        assert_eq!(health.lost_other.load(Relaxed) as usize, RESERVE + 10);
        let change = ModeChange { requested: Mode::Enforce, effective: Mode::Enforce, why: None };
        for _ in 0..RESERVE {
            handle.record(record(Body::Mode(change.clone())));
        }
        assert_eq!((health.lost_first.load(Relaxed), records.try_iter().count()), (0, QUEUE));
    }
}
