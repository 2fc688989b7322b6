//! Takes callers: who they are is asked of the kernel, what they want of them.

use super::check::{Check, describe};
use super::deny::{self, Denying};
use super::ending::end;
use super::hand::{Caller, Hands};
use super::kept::{self, Kept};
use super::seat::{MOST_EVENTS, Seat, Wish};
use super::watch;
use super::wire::{
    Answer, Event, HOLD_KNOWN, HOLDING_KNOWN, JSON, Link, Question, Role, put_keys, read_keys,
};
use crate::chain::causes;
use crate::enforce::{Drift, Enforcer, KnownHand, Look, NEW_RAW_SOCKETS, NetlinkError, Plan};
use crate::queue::{bounded, channel};
use rustix::net::sockopt::socket_peercred;
use sekisho_schema::{FlowKey, Transport};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::RecvTimeoutError;
use std::thread::Builder;
use std::time::{Duration, Instant};

/// How long a caller may take to say who it is.
const GREETING: Duration = Duration::from_secs(1);
/// How long a caller may take to hear an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often somebody is looked for.
const LOOK: Duration = Duration::from_millis(200);
/// How often a listener is told that the guardian is there.
const BEAT: Duration = Duration::from_millis(500);
/// How long a look at what passes a cut may take.
const LOOKING: Duration = Duration::from_secs(1);
/// How long a cut after the last release finds the hooks still there.
const READY: Duration = Duration::from_secs(60);
/// Callers at once.
const MOST_CALLERS: usize = 32;

/// How a guardian runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Its socket.
    pub socket: PathBuf,
    /// Directory in which it writes down what is held.
    pub state: PathBuf,
    /// Whether it makes the tables its own where the kernel can.
    pub own: bool,
    /// After how long without an agent and without anything held it ends; never when `None`.
    pub linger: Option<Duration>,
}

/// Why a guardian does not run; what the kernel holds, it keeps.
#[derive(Debug, thiserror::Error)]
pub enum RunGuardianError {
    /// The socket.
    #[error("cannot serve {path}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another one serves the socket.
    #[error("another guardian serves {0}")]
    Taken(PathBuf),
    /// The kernel's nf_tables.
    #[error("cannot speak with the kernel's nf_tables")]
    Netlink(#[from] NetlinkError),
    /// No thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// Serves until nobody calls any more and nothing is held, if it is told to end then.
///
/// # Errors
/// [`RunGuardianError`].
pub fn run(options: &Options) -> Result<(), RunGuardianError> {
    let listener = bind(&options.socket)?;
    let inode = fs::metadata(&options.socket).map(|found| found.ino()).ok();
    let failed = RunGuardianError::Thread;
    let (wake, waker) = UnixStream::pair().map_err(failed)?;
    wake.set_nonblocking(true).map_err(failed)?;
    waker.set_nonblocking(true).map_err(failed)?;
    let (wishes, wished) = channel();
    let (asks, asked) = channel();
    let (denials, denied) = channel();
    let seat = Arc::new(Seat::new(wishes, waker, asks, denials));
    let agent = Arc::new(AtomicI32::new(0));
    let mut enforcer = Enforcer::open_holding(options.own)?;
    enforcer.stay_ready(READY);
    let port = enforcer.port();
    let mut hands = Hands::new(enforcer, Arc::clone(&seat), wished, wake, options.state.clone());
    match Kept::read(&options.state) {
        Ok(Some(kept)) => hands.resume(kept),
        Ok(None) => {}
        Err(error) => tracing::error!(%error, "cannot read what an earlier guardian held"),
    }
    let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
        Builder::new().name(name.to_owned()).spawn(body).map_err(RunGuardianError::Thread)
    };
    let keeping = (options.state.clone(), Arc::clone(&seat));
    spawn("keep", Box::new(move || kept::keep(keeping.0, &keeping.1, &asked)))?;
    let denying = Arc::clone(&seat);
    spawn("deny", Box::new(move || deny::run(denying, &denied)))?;
    let check = Check {
        seat: Arc::clone(&seat),
        agent: Arc::clone(&agent),
        port,
        state: options.state.clone(),
    };
    spawn("check", Box::new(move || check.run()))?;
    let watching = Arc::clone(&seat);
    spawn("watch", Box::new(move || watch::rules(&watching, port)))?;
    let watching = Arc::clone(&seat);
    spawn("links", Box::new(move || watch::links(&watching)))?;
    let hand = spawn("hand", Box::new(move || hands.run()))?;
    let desk = Desk { seat, agent, callers: Arc::default(), options, inode };
    desk.serve(&listener, &hand);
    if fs::metadata(&options.socket).map(|found| found.ino()).ok() == inode {
        let _ = fs::remove_file(&options.socket);
    }
    Ok(())
}

fn bind(socket: &Path) -> Result<UnixListener, RunGuardianError> {
    let failed = |source| RunGuardianError::Socket { path: socket.to_owned(), source };
    if let Some(dir) = socket.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    }
    if UnixStream::connect(socket).is_ok() {
        return Err(RunGuardianError::Taken(socket.to_owned()));
    }
    let _ = fs::remove_file(socket);
    let listener = UnixListener::bind(socket).map_err(failed)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

struct Desk<'a> {
    seat: Arc<Seat>,
    agent: Arc<AtomicI32>,
    callers: Arc<AtomicUsize>,
    options: &'a Options,
    inode: Option<u64>,
}

impl Desk<'_> {
    fn serve(&self, listener: &UnixListener, hand: &std::thread::JoinHandle<()>) {
        let mut alone_since = Instant::now();
        loop {
            match listener.accept() {
                Ok((stream, _)) => self.greet(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    use rustix::event::{PollFd, PollFlags, Timespec, poll};
                    let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK.subsec_nanos()) };
                    let _ = poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&wait));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot take a caller");
                    std::thread::sleep(LOOK);
                }
            }
            if hand.is_finished() {
                return;
            }
            let Some(linger) = self.options.linger else { continue };
            if self.callers.load(Relaxed) > 0 {
                alone_since = Instant::now();
            } else if self.is_unreachable()
                || (alone_since.elapsed() >= linger && !self.holds_anything())
            {
                self.seat.wish(Wish::End);
            }
        }
    }

    /// Whether the socket is gone, so that nobody can ever call again.
    fn is_unreachable(&self) -> bool {
        fs::metadata(&self.options.socket).map(|found| found.ino()).ok() != self.inode
    }

    fn holds_anything(&self) -> bool {
        let now = crate::clock::now();
        self.seat.see(|facts| facts.set.containments.values().any(|held| held.held_until() > now))
    }

    /// Hears who calls, on a thread of its own: nobody can keep the others waiting.
    fn greet(&self, stream: UnixStream) {
        let pid = match who(&stream) {
            Ok(pid) => pid,
            Err(error) => {
                tracing::warn!(%error, "a caller was sent away");
                return;
            }
        };
        if self.callers.load(Relaxed) >= MOST_CALLERS || stream.set_nonblocking(false).is_err() {
            return;
        }
        let (seat, agent) = (Arc::clone(&self.seat), Arc::clone(&self.agent));
        let state = self.options.state.clone();
        let counted = Counted::one(&self.callers);
        let served = Builder::new().name("ask".to_owned()).spawn(move || {
            if let Err(error) = receive(Link::new(stream), &seat, &agent, pid, counted, &state) {
                tracing::debug!(%error, "a caller was lost");
            }
        });
        if let Err(error) = served {
            tracing::error!(%error, "no thread for a caller");
        }
    }
}

/// A caller that is counted for as long as this lives.
pub(super) struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn one(callers: &Arc<AtomicUsize>) -> Self {
        callers.fetch_add(1, Relaxed);
        Self(Arc::clone(callers))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The caller's process, when it is root's or our own user's.
fn who(stream: &UnixStream) -> io::Result<i32> {
    let caller = socket_peercred(stream)?;
    if caller.uid.is_root() || caller.uid == rustix::process::geteuid() {
        Ok(caller.pid.as_raw_nonzero().get())
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "neither root nor our own user"))
    }
}

fn receive(
    mut link: Link,
    seat: &Arc<Seat>,
    agent: &AtomicI32,
    pid: i32,
    counted: Counted,
    state: &Path,
) -> io::Result<()> {
    link.patience(Some(GREETING))?;
    let Some((JSON, body)) = link.receive()? else { return Ok(()) };
    let Question::Hello { role, boot } = serde_json::from_slice(body)? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    link.patience(Some(PATIENCE))?;
    match role {
        Role::Hand | Role::Known => {
            if role == Role::Hand {
                agent.store(pid, Relaxed);
                seat.change(|facts| facts.agent = u32::try_from(pid).unwrap_or(0));
            }
            seat.wish(Wish::Caller(Box::new(Caller { link, role, boot, counted })));
            Ok(())
        }
        Role::Listen => tell(link, seat),
        Role::Ask => answer(link, seat, pid, state),
    }
}

/// Tells a listener what happens, until it is gone.
fn tell(mut link: Link, seat: &Seat) -> io::Result<()> {
    let (events, heard) = bounded(MOST_EVENTS);
    seat.listen(events);
    if seat.is_alive() {
        link.send_json(&Event::Present { state: seat.see(|facts| facts.state.clone()) })?;
    }
    loop {
        match heard.recv_timeout(BEAT) {
            Ok(event) => link.send_json(&event)?,
            // How it fares, as long as the hand does: one that hangs is told by silence.
            Err(RecvTimeoutError::Timeout) if seat.is_alive() => {
                link.send_json(&Event::Present { state: seat.see(|facts| facts.state.clone()) })?;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// Answers questions until the caller is gone.
fn answer(mut link: Link, seat: &Seat, pid: i32, state: &Path) -> io::Result<()> {
    let mut eyes: Option<(u64, Enforcer)> = None;
    let mut known: Option<KnownHand> = None;
    link.send_json(&Answer::Done)?;
    link.stream().set_read_timeout(None)?;
    loop {
        let Some((kind, body)) = link.receive()? else { return Ok(()) };
        if kind == HOLDING_KNOWN {
            let (keys, ..) = read_keys(body).ok_or(io::ErrorKind::InvalidData)?;
            let answer = match hand(&mut known).and_then(|hand| hand.is_holding(&keys)) {
                Ok(holding) => Answer::Holding { holding },
                Err(error) => failed(&error),
            };
            link.send_json(&answer)?;
            continue;
        }
        if kind != JSON {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let question: Question = serde_json::from_slice(body)?;
        let answer = match question {
            Question::ReadKnown => match hand(&mut known).and_then(KnownHand::read) {
                Ok(set) => {
                    let keys: Vec<_> = set.keys().collect();
                    link.send(HOLD_KNOWN, |out| put_keys(out, &keys, Duration::ZERO, false))?;
                    continue;
                }
                Err(error) => failed(&error),
            },
            Question::Look { uplinks } => Answer::Passing { gaps: passing(seat, pid, uplinks) },
            Question::Opener { transport, local, remote } => {
                let transport = Transport::from_number(transport);
                let flow = FlowKey { transport, local, remote };
                let found = seat.openers.get().map(|openers| openers.opener(&flow));
                Answer::Opener { opener: found.and_then(Result::ok).flatten() }
            }
            Question::Spare => {
                seat.spare(u32::try_from(pid).unwrap_or(0));
                Answer::Done
            }
            Question::State => Answer::State { state: seat.see(|facts| facts.state.clone()) },
            Question::End { scopes } => Answer::Ended { ended: end(seat, &scopes, state) },
            other => match look(&mut eyes, seat) {
                Ok(watcher) => see(watcher, other, seat)?,
                Err(error) => failed(&error),
            },
        };
        link.send_json(&answer)?;
    }
}

/// What passes a cut here and now; the packet sockets of the caller are how it sees.
fn passing(seat: &Seat, pid: i32, uplinks: Vec<String>) -> Vec<String> {
    let facts = seat.facts();
    let plan = facts.plan.unwrap_or_else(|| Plan { uplinks, ..Plan::default() });
    let ours = [u32::try_from(pid).ok(), Some(std::process::id())];
    let mut gaps = Look::of(&plan, ours.into_iter().flatten().collect()).now(LOOKING);
    if matches!(facts.state.denying, Denying::Absent { .. }) {
        gaps.push(NEW_RAW_SOCKETS.to_owned());
        gaps.sort();
    }
    gaps
}

fn hand(known: &mut Option<KnownHand>) -> Result<&mut KnownHand, NetlinkError> {
    match known {
        Some(hand) => Ok(hand),
        None => Ok(known.insert(KnownHand::open()?)),
    }
}

fn failed(error: &NetlinkError) -> Answer {
    Answer::Failed { why: causes(error), absent: error.is_absent() }
}

/// Eyes that know the ruleset as it was loaded last.
fn look<'a>(
    eyes: &'a mut Option<(u64, Enforcer)>,
    seat: &Seat,
) -> Result<&'a mut Enforcer, NetlinkError> {
    let facts = seat.facts();
    if eyes.as_ref().is_none_or(|(loads, _)| *loads != facts.loads) {
        let eye = facts.eye.unwrap_or_default();
        *eyes = Some((facts.loads, Enforcer::watcher(&eye)?));
    }
    match eyes {
        Some((_, watcher)) => Ok(watcher),
        None => Err(NetlinkError::Malformed),
    }
}

fn see(watcher: &mut Enforcer, question: Question, seat: &Seat) -> io::Result<Answer> {
    Ok(match question {
        Question::Held => match watcher.held() {
            Ok(held) => Answer::Held { held },
            Err(error) => failed(&error),
        },
        Question::Counters => match watcher.counters() {
            Ok(counters) => Answer::Counters { counters },
            Err(error) => failed(&error),
        },
        Question::Verify => match watcher.verify(&seat.see(|facts| facts.set.clone())) {
            Ok(drift) => Answer::Drift {
                rules: drift.iter().any(|drift| matches!(drift, Drift::Ruleset { .. })),
                what: drift.iter().map(describe).collect(),
            },
            Err(error) => failed(&error),
        },
        Question::Prove { containment } => Answer::Proof { proof: watcher.prove(&containment) },
        _ => return Err(io::ErrorKind::InvalidData.into()),
    })
}
