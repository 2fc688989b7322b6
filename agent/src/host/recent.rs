//! Processes that were seen to begin and end, so that one that has ended can still be named.
//!
//! The kernel reports every fork, exec and exit over the proc connector (CONFIG_PROC_EVENTS; needs the host's pid
//! and user namespace, and CAP_NET_ADMIN before Linux 6.6). What the report does not say is read from procfs
//! right away, before the process can end.

use crate::netlink::{Answer, Writer, answers, u32_at};
use crate::target::netlink::Heard;
use crate::target::{AskKernelError, path_in, processes};
use netlink_sys::{Socket, SocketAddr};
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Living processes that are remembered; the kernel's own bound is 32,768 on small hosts.
const MAX_LIVING: usize = 32_768;
/// Ended processes that are remembered; the oldest is forgotten first.
const MAX_ENDED: usize = 4_096;
/// Receive buffer asked for: a burst of forks must wait for us, not be lost.
const QUEUE_BYTES: usize = 4 << 20;
const RECEIVE_BYTES: usize = 64 * 1024;
/// Longest wait for a report before the wish to stop is looked at.
const WAIT: Duration = Duration::from_millis(250);
/// `CN_IDX_PROC` and `CN_VAL_PROC` (linux/connector.h), the multicast group too.
const PROC: u32 = 1;
/// `PROC_CN_MCAST_LISTEN` and `PROC_CN_MCAST_IGNORE` (linux/cn_proc.h).
const LISTEN: u32 = 1;
const IGNORE: u32 = 2;
/// `PROC_EVENT_FORK`, `PROC_EVENT_EXEC`, `PROC_EVENT_EXIT`.
const FORK: u32 = 1;
const EXEC: u32 = 2;
const EXIT: u32 = 0x8000_0000;
/// Bytes of `cn_msg`, and of the part of `proc_event` that all have.
const CONNECTOR_BYTES: usize = 20;
const EVENT_BYTES: usize = 16;
/// `NLMSG_DONE`: what the connector takes for a message.
const DONE: u16 = 3;

/// Why processes can't be followed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}, so that only processes that are still there can be named")]
pub struct OpenRecentError {
    doing: &'static str,
    #[source]
    source: io::Error,
}

/// A process as it was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Its process id.
    pub pid: u32,
    /// Process that made it; 0 when that was before we looked.
    pub parent: u32,
    /// Path of its executable, when it could be read in time.
    pub exe: Option<String>,
    /// Its cgroup v2 path, in the same manner.
    pub cgroup: Option<String>,
    /// When it ended; `None` while it lives.
    pub ended: Option<Instant>,
}

#[derive(Debug, Default)]
struct Book {
    living: BTreeMap<u32, Remembered>,
    ended: VecDeque<Remembered>,
}

impl Book {
    fn begin(&mut self, process: Remembered) {
        if self.living.len() >= MAX_LIVING && !self.living.contains_key(&process.pid) {
            self.living.pop_first();
        }
        self.living.insert(process.pid, process);
    }

    fn end(&mut self, pid: u32, at: Instant) {
        let Some(mut process) = self.living.remove(&pid) else { return };
        process.ended = Some(at);
        if self.ended.len() >= MAX_ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back(process);
    }
}

#[derive(Debug, Default)]
struct Shared {
    book: Mutex<Book>,
    lost: AtomicU64,
}

impl Shared {
    fn with<T>(&self, body: impl FnOnce(&mut Book) -> T) -> T {
        // A book that a panic left is whole: each change of it is one step.
        body(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is remembered of processes; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Recent(Arc<Shared>);

impl Recent {
    /// Processes of a cgroup that have ended, the latest first.
    #[must_use]
    pub fn ended_in(&self, cgroup: &str) -> Vec<Remembered> {
        let fits = |process: &&Remembered| process.cgroup.as_deref() == Some(cgroup);
        self.0.with(|book| book.ended.iter().rev().filter(fits).cloned().collect())
    }

    /// The process that has or last had this number.
    #[must_use]
    pub fn process(&self, pid: u32) -> Option<Remembered> {
        self.0.with(|book| {
            let ended = || book.ended.iter().rev().find(|process| process.pid == pid);
            book.living.get(&pid).or_else(ended).cloned()
        })
    }

    /// How often reports were lost for want of room; what began or ended then is not known.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

/// Hears the kernel's reports and writes them down.
pub struct Reporter {
    socket: Socket,
    buffer: Vec<u8>,
    shared: Arc<Shared>,
}

/// Begins to follow processes: the one to run on a thread of its own, and what it remembers.
///
/// # Errors
/// [`OpenRecentError`].
pub fn follow() -> Result<(Reporter, Recent), OpenRecentError> {
    let failed = |doing| move |source| OpenRecentError { doing, source };
    let mut socket = Socket::new(netlink_sys::protocols::NETLINK_CONNECTOR)
        .map_err(failed("open the proc connector"))?;
    socket.bind(&SocketAddr::new(0, PROC)).map_err(failed("join the proc connector"))?;
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE_BYTES);
    rustix::net::sockopt::set_socket_timeout(
        &socket,
        rustix::net::sockopt::Timeout::Recv,
        Some(WAIT),
    )
    .map_err(|source| failed("bound the wait for the proc connector")(source.into()))?;
    order(&socket, LISTEN).map_err(failed("have the proc connector speak"))?;
    let shared = Arc::new(Shared::default());
    let reporter = Reporter { socket, buffer: vec![0; RECEIVE_BYTES], shared: Arc::clone(&shared) };
    // Those that are there already; one that begins meanwhile is reported.
    for pid in processes() {
        let process = look(pid, 0);
        shared.with(|book| book.begin(process));
    }
    Ok((reporter, Recent(shared)))
}

impl Reporter {
    /// Follows processes until told to stop, which is looked at four times a second.
    ///
    /// # Errors
    /// What the system says when the socket fails; what is remembered by then stays.
    pub fn run(&mut self, stop: &AtomicBool) -> Result<(), AskKernelError> {
        while !stop.load(Ordering::Relaxed) {
            self.read()
                .map_err(|source| AskKernelError::Socket { doing: "follow processes", source })?;
        }
        Ok(())
    }

    /// Waits for reports at most a quarter of a second, and writes them down.
    fn read(&mut self) -> io::Result<Heard> {
        let mut space = self.buffer.as_mut_slice();
        let length = match self.socket.recv(&mut space, 0) {
            Ok(length) => length,
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(Heard::All),
                    // ENOBUFS: the kernel had no room for a report; the socket itself is well.
                    _ if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {
                        self.shared.lost.fetch_add(1, Ordering::Relaxed);
                        Ok(Heard::Lost)
                    }
                    _ => Err(error),
                };
            }
        };
        let bytes = self.buffer.get(..length).unwrap_or_default();
        for report in answers(bytes) {
            self.take(report);
        }
        Ok(Heard::All)
    }

    fn take(&self, report: Answer<'_>) {
        let Some((kind, [first, second, third, fourth])) = parse(report.body) else { return };
        match kind {
            // A thread of a process shares its number: only the first thread counts.
            FORK if third == fourth => {
                // A child is what its parent was, until it executes something else.
                let known = self.shared.with(|book| book.living.get(&second).cloned());
                let child = match known {
                    Some(parent) => Remembered { pid: fourth, parent: second, ..parent },
                    None => look(fourth, second),
                };
                self.shared.with(|book| book.begin(child));
            }
            EXEC => {
                let before = self.shared.with(|book| book.living.get(&second).cloned());
                let mut process = look(second, before.as_ref().map_or(0, |one| one.parent));
                // It may have ended already; its cgroup seldom changes with its program.
                process.cgroup = process.cgroup.or(before.and_then(|one| one.cgroup));
                self.shared.with(|book| book.begin(process));
            }
            EXIT if first == second => {
                let at = Instant::now();
                self.shared.with(|book| book.end(second, at));
            }
            _ => {}
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        // The kernel counts listeners and makes reports as long as it believes in one.
        let _ = order(&self.socket, IGNORE);
    }
}

/// Sends `cn_msg` with an operation: identifier, sequence, acknowledgement, length, flags, operation.
fn order(socket: &Socket, operation: u32) -> io::Result<()> {
    let mut body = Vec::with_capacity(CONNECTOR_BYTES + 4);
    for word in [PROC, PROC, 0, 0] {
        body.extend_from_slice(&word.to_ne_bytes());
    }
    for half in [4_u16, 0] {
        body.extend_from_slice(&half.to_ne_bytes());
    }
    body.extend_from_slice(&operation.to_ne_bytes());
    let mut writer = Writer::default();
    let message = writer.message(DONE, 0, 0, &body);
    writer.end_message(&message);
    socket.send_to(writer.as_bytes(), &SocketAddr::new(0, 0), 0).map(|_| ())
}

/// Kind of a report and its four numbers: for a fork parent's thread and process, then the child's; else the process's first.
fn parse(body: &[u8]) -> Option<(u32, [u32; 4])> {
    let event = body.get(CONNECTOR_BYTES..)?;
    let number = |n: usize| u32_at(event, EVENT_BYTES + 4 * n).unwrap_or(0);
    Some((u32_at(event, 0)?, [number(0), number(1), number(2), number(3)]))
}

fn look(pid: u32, parent: u32) -> Remembered {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok();
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok();
    Remembered {
        pid,
        parent,
        exe: exe.map(|path| path.to_string_lossy().into_owned()),
        cgroup: cgroup.and_then(|text| path_in(&text)),
        ended: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn with_reporter(body: impl FnOnce(&Recent)) {
        let (mut reporter, recent) = follow().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let wish = Arc::clone(&stop);
        let thread = std::thread::spawn(move || reporter.run(&wish).unwrap());
        body(&recent);
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    }

    #[test]
    fn a_process_that_has_ended_is_remembered_with_its_program() {
        with_reporter(|recent| {
            let mut child = Command::new("sleep").arg("0.02").spawn().unwrap();
            let pid = child.id();
            child.wait().unwrap();
            assert!(fs::metadata(format!("/proc/{pid}")).is_err());
            let deadline = Instant::now() + Duration::from_secs(5);
            let remembered = loop {
                let found = recent.process(pid).filter(|process| process.ended.is_some());
                if let Some(found) = found {
                    break found;
                }
                assert!(Instant::now() < deadline, "{:?}", recent.process(pid));
                std::thread::sleep(Duration::from_millis(1));
            };
            assert!(remembered.exe.unwrap().contains("sleep"));
            assert_eq!(remembered.parent, std::process::id());
            assert!(recent.ended_in(&remembered.cgroup.unwrap()).iter().any(|one| one.pid == pid));
            assert!(recent.ended_in("/no/such").is_empty());
            // This process was there before.
            let own = recent.process(std::process::id()).unwrap();
            assert_eq!((own.ended, own.parent), (None, 0));
        });
    }

    #[test]
    fn a_book_forgets_the_oldest_and_never_grows() {
        let mut book = Book::default();
        for pid in 0..u32::try_from(MAX_ENDED + 10).unwrap() {
            book.begin(look(u32::MAX, 0));
            book.living.get_mut(&u32::MAX).unwrap().parent = pid;
            book.end(u32::MAX, Instant::now());
        }
        assert_eq!((book.living.len(), book.ended.len()), (0, MAX_ENDED));
        assert_eq!(book.ended.front().unwrap().parent, 10);
        book.end(7, Instant::now());
        assert_eq!(book.ended.len(), MAX_ENDED);
    }
}
