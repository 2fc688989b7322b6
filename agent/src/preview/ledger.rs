//! The thread that keeps the flows of the last days, an hour a file, and previews cuts from them.

use super::blast::preview;
use super::row::{Hour, Row};
use crate::chain::causes;
use crate::clock;
use crate::enforce::Plan;
use crate::queue::{Receiver, Sender, bounded};
use crate::state::{private_dir, write_atomically};
use sekisho_engine::learn::FlowEnd;
use sekisho_schema::event::Preview;
use sekisho_schema::{ContainmentId, FlowKey, Scope, Span, Timestamp};
use std::collections::HashSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// Batches of flows, and questions, that may wait; more are counted and forgotten.
const WAITING: usize = 64;
/// How often the hour under way is written down.
const WRITE: Duration = Duration::from_secs(60);
/// Hours kept on disk: 28 days, as long as the longest look back of a baseline.
const KEPT_HOURS: i64 = 28 * 24;
/// Bytes of all hours on disk; the oldest go first.
const KEPT_BYTES: u64 = 64 << 20;
/// Bytes of one line of an hour's file.
const LINE_BYTES: usize = 64 * 1024;

/// Why recorded flows can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadTrafficError {
    /// Too many questions wait.
    #[error("cannot make a preview: too many questions wait; ask again in a minute")]
    Busy,
    /// The directory or a file can't be read.
    #[error("cannot read recorded flows in {path}")]
    Read {
        /// The directory or file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A line is not a row.
    #[error("cannot read recorded flows in {path}: line {line} is not a row; the file is left out")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
}

/// A preview that is wanted.
pub struct Ask {
    /// What would be cut.
    pub scope: Scope,
    /// Under which plan.
    pub plan: Plan,
    /// How far back.
    pub since: Span,
    /// The containment that it is for.
    pub containment: Option<ContainmentId>,
    /// Flows that had not ended when they were looked at, step by step.
    pub live: Vec<Vec<FlowEnd>>,
    /// Those that ended during these steps, by when they began, and were handed over: they count once.
    pub ended: Vec<(FlowKey, Timestamp)>,
    /// Who gets it; a reader that went away does not matter.
    pub tell: Box<dyn FnOnce(Result<Preview, ReadTrafficError>) + Send>,
}

enum Job {
    Ask(Box<Ask>),
    Flows(Vec<FlowEnd>, u64),
}

/// The way to the thread; it ends, and writes down what it has, when this is gone.
pub struct Ledger {
    jobs: Sender<Job>,
    lost: u64,
}

impl Ledger {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn spawn(dir: PathBuf) -> std::io::Result<Self> {
        let (jobs, work) = bounded(WAITING);
        std::thread::Builder::new().name("traffic".to_owned()).spawn(move || {
            let hour = Hour::of(clock::now());
            let mut keeping = Keeping { current: resume(&dir, hour), dir, dirty: false };
            keeping.run(&work);
        })?;
        Ok(Self { jobs, lost: 0 })
    }

    /// Hands over flows that ended; nobody waits.
    pub fn add(&mut self, flows: Vec<FlowEnd>, lost: u64) {
        let lost = self.lost + lost;
        if flows.is_empty() && lost == 0 {
            return;
        }
        let count = flows.len() as u64;
        self.lost = match self.jobs.try_send(Job::Flows(flows, lost)) {
            Ok(()) => 0,
            Err(_) => lost + count,
        };
    }

    /// Asks for a preview; gives it back when too much waits.
    ///
    /// # Errors
    /// The question itself.
    pub fn ask(&self, ask: Ask) -> Result<(), Box<Ask>> {
        use std::sync::mpsc::TrySendError;
        self.jobs.try_send(Job::Ask(Box::new(ask))).map_err(|error| match error {
            TrySendError::Full(Job::Ask(ask)) | TrySendError::Disconnected(Job::Ask(ask)) => ask,
            // What was sent is what comes back.
            TrySendError::Full(Job::Flows(..)) | TrySendError::Disconnected(Job::Flows(..)) => {
                unreachable!("a question was sent")
            }
        })
    }
}

struct Keeping {
    dir: PathBuf,
    current: Hour,
    dirty: bool,
}

impl Keeping {
    fn run(&mut self, work: &Receiver<Job>) {
        let mut write_at = Instant::now() + WRITE;
        loop {
            let wait = write_at.saturating_duration_since(Instant::now());
            match work.recv_timeout(wait) {
                Ok(Job::Flows(flows, lost)) => {
                    self.turn(clock::now());
                    self.current.uncounted += lost;
                    flows.into_iter().for_each(|flow| self.current.add(flow));
                    self.dirty = true;
                }
                Ok(Job::Ask(ask)) => self.answer(*ask),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.write();
                    return;
                }
            }
            if write_at <= Instant::now() {
                write_at = Instant::now() + WRITE;
                self.write();
                self.turn(clock::now());
            }
        }
    }

    /// Begins a new hour when the old one is over.
    fn turn(&mut self, now: Timestamp) {
        let number = Hour::of(now);
        if number != self.current.number {
            self.write();
            self.current = resume(&self.dir, number);
            if let Err(error) = trim(&self.dir, number) {
                tracing::warn!(%error, "cannot keep the recorded flows within their bounds");
            }
        }
    }

    fn write(&mut self) {
        if !std::mem::replace(&mut self.dirty, false) {
            return;
        }
        let written = private_dir(&self.dir).map_err(|error| error.to_string()).and_then(|()| {
            write_atomically(&file_of(&self.dir, self.current.number), &text(&self.current), 0o600)
                .map_err(|error| causes(&error))
        });
        if let Err(error) = written {
            self.dirty = true;
            tracing::warn!(%error, state = "a preview does not know the flows of this hour after a restart", "cannot write down flows");
        }
    }

    fn answer(&self, ask: Ask) {
        let Ask { scope, plan, since, containment, live, ended, tell } = ask;
        let until = clock::now();
        let since = until.before(since);
        let answer = read_since(&self.dir, since).map(|mut hours| {
            hours.retain(|hour| hour.number != self.current.number);
            let mut current = self.current.clone();
            let ended: HashSet<(FlowKey, Timestamp)> = ended.into_iter().collect();
            let live = live.into_iter().flatten();
            live.filter(|flow| !ended.contains(&(flow.key, flow.first_at)))
                .for_each(|flow| current.add(flow));
            hours.push(current);
            preview(&scope, &plan, &hours, since, until, containment)
        });
        tell(answer);
    }
}

fn file_of(dir: &Path, number: i64) -> PathBuf {
    dir.join(format!("{number}.ndjson"))
}

/// The hours on disk, by number.
fn files(dir: &Path) -> std::io::Result<Vec<(i64, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".ndjson")?.parse::<i64>().ok());
        files.extend(number.map(|number| (number, path)));
    }
    files.sort_unstable();
    Ok(files)
}

/// What an earlier run wrote of the hour under way.
fn resume(dir: &Path, number: i64) -> Hour {
    match read(number, &file_of(dir, number)) {
        Ok(hour) => hour,
        Err(ReadTrafficError::Read { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            Hour::new(number)
        }
        Err(error) => {
            tracing::warn!(error = %causes(&error), "recorded flows of this hour are lost");
            Hour::new(number)
        }
    }
}

fn text(hour: &Hour) -> Vec<u8> {
    let mut text = format!("{{\"uncounted\":{}}}\n", hour.uncounted).into_bytes();
    for row in hour.rows.values() {
        // A row holds nothing that JSON can't.
        if serde_json::to_writer(&mut text, row).is_ok() {
            text.push(b'\n');
        }
    }
    text
}

#[derive(serde::Deserialize)]
struct Head {
    uncounted: u64,
}

fn read(number: i64, path: &Path) -> Result<Hour, ReadTrafficError> {
    let refuse = |source| ReadTrafficError::Read { path: path.to_owned(), source };
    let malformed = |line| ReadTrafficError::Malformed { path: path.to_owned(), line };
    let mut lines = BufReader::new(fs::File::open(path).map_err(refuse)?).lines();
    let head = lines.next().ok_or_else(|| malformed(1))?.map_err(refuse)?;
    let head: Head = serde_json::from_str(&head).map_err(|_| malformed(1))?;
    let mut hour = Hour { uncounted: head.uncounted, ..Hour::new(number) };
    for (at, line) in lines.enumerate() {
        let line = line.map_err(refuse)?;
        if line.len() > LINE_BYTES {
            return Err(malformed(at + 2));
        }
        let row: Row = serde_json::from_str(&line).map_err(|_| malformed(at + 2))?;
        hour.rows.insert(row.key.clone(), row);
    }
    Ok(hour)
}

/// The hours that end after a time. A file that can't be understood is left out, and its hour counts as incomplete.
///
/// # Errors
/// [`ReadTrafficError::Read`] when the directory or a file can't be read.
pub fn read_since(dir: &Path, since: Timestamp) -> Result<Vec<Hour>, ReadTrafficError> {
    let first = Hour::of(since);
    let listed =
        files(dir).map_err(|source| ReadTrafficError::Read { path: dir.to_owned(), source })?;
    let mut hours = Vec::new();
    for (number, path) in listed.into_iter().filter(|(number, _)| *number >= first) {
        match read(number, &path) {
            Ok(hour) => hours.push(hour),
            Err(error @ ReadTrafficError::Malformed { .. }) => {
                tracing::warn!(error = %causes(&error), "recorded flows are left out");
                hours.push(Hour { uncounted: 1, ..Hour::new(number) });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(hours)
}

/// Removes hours that are too old or too many.
fn trim(dir: &Path, now: i64) -> std::io::Result<()> {
    let mut sizes = Vec::new();
    for (number, path) in files(dir)? {
        if number < now - KEPT_HOURS {
            fs::remove_file(path)?;
        } else {
            sizes.push((fs::metadata(&path)?.len(), path));
        }
    }
    let mut total: u64 = sizes.iter().map(|(size, _)| size).sum();
    for (size, path) in sizes {
        if total <= KEPT_BYTES {
            break;
        }
        fs::remove_file(path)?;
        total -= size;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::flow;
    use super::*;
    use crate::queue::channel;
    use sekisho_schema::finding::Direction;

    fn ask(ledger: &Ledger, scope: &str) -> Preview {
        let (sender, answer) = channel();
        let plan = Plan { inside: vec!["10.0.0.0/8".parse().unwrap()], ..Plan::default() };
        let asked = ledger.ask(Ask {
            scope: scope.parse().unwrap(),
            plan,
            since: Span::from_hours(24 * 365),
            containment: None,
            live: vec![vec![flow(Direction::Outbound, "10.0.0.5:1", "203.0.113.77:443", 9)]],
            ended: Vec::new(),
            tell: Box::new(move |preview| {
                let _ = sender.send(preview);
            }),
        });
        assert!(asked.is_ok());
        answer.recv_timeout(Duration::from_secs(5)).unwrap().unwrap()
    }

    #[test]
    fn flows_are_kept_over_a_restart_and_live_ones_count() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::spawn(dir.path().join("traffic")).unwrap();
        let now = clock::now();
        let mut ended = flow(Direction::Outbound, "10.0.0.5:1", "203.0.113.9:443", 100);
        (ended.first_at, ended.last_at) = (now, now);
        ledger.add(vec![ended], 0);
        assert_eq!(ask(&ledger, "dest:203.0.113.9").refused_flows, 1);
        assert_eq!(ask(&ledger, "dest:203.0.113.77").refused_bytes_out, 9);
        drop(ledger);
        let began = Instant::now();
        let again = loop {
            let again = Ledger::spawn(dir.path().join("traffic")).unwrap();
            let told = ask(&again, "host");
            // The thread before writes when its handle is gone: a moment later.
            if told.refused_flows == 2 || began.elapsed() > Duration::from_secs(5) {
                break told;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!((again.refused_flows, again.refused_bytes_out), (2, 109));
    }

    #[test]
    fn a_flow_that_ends_while_flows_are_looked_at_counts_once_and_a_later_one_of_its_ends_besides()
    {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::spawn(dir.path().join("traffic")).unwrap();
        let one = |first_at, bytes| {
            let (from, to) = ("10.0.0.5:1", "203.0.113.9:443");
            let last_at = clock::now();
            FlowEnd { first_at, last_at, ..flow(Direction::Outbound, from, to, bytes) }
        };
        let (first, later) = (clock::now(), clock::now().after(Span::from_millis(5)));
        // It was seen with 60 bytes of its 100, ended, and the same ends began anew.
        ledger.add(vec![one(first, 100)], 0);
        let (sender, answer) = channel();
        let asked = ledger.ask(Ask {
            scope: "dest:203.0.113.9".parse().unwrap(),
            plan: Plan { inside: vec!["10.0.0.0/8".parse().unwrap()], ..Plan::default() },
            since: Span::from_hours(1),
            containment: None,
            live: vec![vec![one(first, 60)], vec![one(later, 7)]],
            ended: vec![(one(first, 0).key, first)],
            tell: Box::new(move |preview| {
                let _ = sender.send(preview);
            }),
        });
        assert!(asked.is_ok());
        let told = answer.recv_timeout(Duration::from_secs(5)).unwrap().unwrap();
        assert_eq!((told.refused_flows, told.refused_bytes_out), (2, 107));
    }

    #[test]
    fn a_file_that_is_no_row_makes_the_preview_incomplete_and_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        let last = Hour::of(clock::now()) - 1;
        fs::write(dir.path().join(format!("{last}.ndjson")), "{\"uncounted\":0}\nnonsense\n")
            .unwrap();
        let hours = read_since(dir.path(), Timestamp::EPOCH).unwrap();
        assert_eq!((hours.len(), hours[0].uncounted), (1, 1));
    }

    #[test]
    fn old_hours_and_too_many_bytes_go() {
        let dir = tempfile::tempdir().unwrap();
        for number in [10, 100_000, 100_001] {
            fs::write(file_of(dir.path(), number), "{\"uncounted\":0}\n").unwrap();
        }
        trim(dir.path(), 100_001).unwrap();
        let left: Vec<i64> = files(dir.path()).unwrap().into_iter().map(|(n, _)| n).collect();
        assert_eq!(left, [100_000, 100_001]);
    }
}
