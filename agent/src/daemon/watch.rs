//! The loop of the detecting thread: frames first, then messages, then deadlines.

use super::Message;
use super::judge::Judge;
use crate::capture::live::{LiveCapture, LiveOptions, NextFrame, OpenLiveError, Paths, Way};
use crate::capture::refused::RefusedLog;
use crate::chain::causes;
use crate::clock;
use crate::control::InterfaceStatus;
use crate::enforce::LOG_GROUP;
use crate::host::interfaces::{Interface, interfaces, on_link, own_addresses, uplinks};
use crate::queue::Receiver;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use sekisho_engine::{HostFact, Input};
use sekisho_schema::{Span, Timestamp};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The waker's token; captures have those above it.
pub(super) const WAKER: Token = Token(0);
/// Frames of each kind taken from one interface before the others and the messages have their turn.
const BATCH: usize = 2048;
/// Frames of transfers judged before those that can decide are looked for again: some 50 µs.
const STRIDE: usize = 64;
/// Wakes a second from which frames are gathered for [`GATHER`].
const THICK: f64 = 5_000.0;
/// Wakes a second below which they are gathered no longer: as many as [`THICK`] frames make when gathered.
const THIN: f64 = 2_500.0;
/// How long frames are gathered then; a cut comes later by as much at most. A wake costs some 10 µs, so that at
/// 80 µs the wakes alone took a tenth of a core.
const GATHER: Duration = Duration::from_micros(200);
/// How long wakes are counted before they are judged.
const WINDOW: Duration = Duration::from_millis(20);
/// Frames reach us at most this late: the kernel's block time-out and a scheduling delay. A
/// deadline is not processed before every frame that precedes it can have come.
const GRACE: Span = Span::from_millis(20);
/// How often losses are read and the state is published.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How often the interfaces are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// A wall clock that moved against the steady one by more than this was set by somebody.
const CLOCK_STEP: Span = Span::from_secs(1);
/// How often what was learned is kept.
const KEEP: Duration = Duration::from_secs(3600);

struct Source {
    capture: LiveCapture,
    /// Tokens of its descriptors, the one for what can decide first where there are two.
    tokens: Vec<Token>,
    /// Whether there may be frames: asking a ring that has none is a call to the kernel.
    ready: bool,
    received: u64,
    dropped: u64,
}

/// Waking for each frame costs more than judging it: where wakes come thick, frames are gathered for a moment.
struct Wakes {
    since: Instant,
    count: u32,
    thick: bool,
}

impl Wakes {
    /// How long to gather frames before they are read.
    fn pause(&mut self, now: Instant) -> Option<Duration> {
        self.count += 1;
        let lasted = now.duration_since(self.since);
        if lasted >= WINDOW {
            // A gathered wake stands for several: it must not look like a thin one.
            let bound = if self.thick { THIN } else { THICK };
            self.thick = f64::from(self.count) > bound * lasted.as_secs_f64();
            (self.since, self.count) = (now, 0);
        }
        self.thick.then_some(GATHER)
    }
}

/// Captures and when to look at what.
pub(super) struct Watch {
    poll: Poll,
    options: LiveOptions,
    named: Option<Vec<String>>,
    sources: Vec<Source>,
    failed: Vec<InterfaceStatus>,
    seen: (Vec<Interface>, BTreeSet<IpAddr>),
    next_token: usize,
    /// What the kernel drops of known destinations.
    log: Option<(RefusedLog, Token)>,
}

impl Watch {
    pub(super) const fn new(poll: Poll, options: LiveOptions, named: Option<Vec<String>>) -> Self {
        Self {
            poll,
            options,
            named,
            sources: Vec::new(),
            failed: Vec::new(),
            seen: (Vec::new(), BTreeSet::new()),
            next_token: 1,
            log: None,
        }
    }

    /// Looks at the interfaces; `true` when something about them or the host's addresses is new.
    pub(super) fn look(&mut self) -> bool {
        let seen = (interfaces(), own_addresses());
        let changed = seen != self.seen;
        self.seen = seen;
        changed
    }

    /// The uplinks, the networks on them, and the host's own addresses.
    pub(super) fn ground(&self) -> (Vec<String>, Vec<ipnet::IpNet>, Vec<IpAddr>) {
        let (interfaces, addresses) = &self.seen;
        (
            uplinks(interfaces, self.named.as_deref().unwrap_or_default()),
            on_link(interfaces),
            addresses.iter().copied().collect(),
        )
    }

    /// Opens what is not captured yet; gives what could not be opened.
    pub(super) fn open(&mut self) -> Vec<OpenLiveError> {
        let (wanted, _, _) = self.ground();
        let mut errors = Vec::new();
        self.failed.clear();
        for name in wanted {
            if self.sources.iter().any(|source| source.capture.interface() == name) {
                continue;
            }
            match LiveCapture::open(&name, &self.options) {
                Ok(capture) => self.register(capture),
                Err(error) => {
                    self.failed.push(InterfaceStatus {
                        name,
                        state: causes(&error),
                        received: 0,
                        dropped: 0,
                        paths: String::new(),
                    });
                    errors.push(error);
                }
            }
        }
        errors
    }

    fn register(&mut self, capture: LiveCapture) {
        if let Paths::BulkOnly(why) = capture.paths() {
            tracing::warn!(interface = capture.interface(), %why, state = "everything is seen, up to a millisecond later", "no trigger path");
        }
        let mut tokens = Vec::new();
        for fd in capture.fds() {
            let token = Token(self.next_token);
            self.next_token += 1;
            tokens.push(token);
            if let Err(error) =
                self.poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE)
            {
                // Without readiness frames are still read at every wake-up, at least once a second.
                tracing::error!(interface = capture.interface(), %error, "cannot wait for frames of an interface");
            }
        }
        self.sources.push(Source { capture, tokens, ready: true, received: 0, dropped: 0 });
    }

    /// Names of the interfaces that are captured.
    pub(super) fn captured(&self) -> Vec<String> {
        self.sources.iter().map(|source| source.capture.interface().to_owned()).collect()
    }

    /// Runs until told to stop.
    pub(super) fn run(mut self, mut judge: Judge, inbox: &Receiver<Message>) -> Judge {
        let mut events = Events::with_capacity(64);
        let (mut chores_at, mut look_at, mut keep_at) =
            (Instant::now(), Instant::now() + LOOK, Instant::now() + KEEP);
        let (mut busy, mut gathers) = (false, false);
        let mut wakes = Wakes { since: Instant::now(), count: 0, thick: false };
        let mut since = (clock::now(), Instant::now());
        loop {
            let idle = !busy && !gathers;
            let timeout = if idle { patience(&judge, chores_at) } else { Duration::ZERO };
            if let Err(error) = self.poll.poll(&mut events, Some(timeout))
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "cannot wait for frames");
                std::thread::sleep(Duration::from_millis(10));
            }
            for event in &events {
                let concerns = |source: &&mut Source| source.tokens.contains(&event.token());
                if let Some(source) = self.sources.iter_mut().find(concerns) {
                    // Only the handle for what can decide is asked at every look.
                    source.ready |= source.tokens.last() == Some(&event.token());
                }
            }
            let is_woken = idle && events.iter().any(|event| event.token() != WAKER);
            if is_woken && let Some(pause) = wakes.pause(Instant::now()) {
                // Before they are read, so that the next look finds nothing left to ask for.
                std::thread::sleep(pause);
            }
            // Before any frame and deadline: a lease must not end by a clock that was set.
            follow_clock(&mut since, &mut judge);
            busy = self.read(&mut judge);
            self.follow_known(&mut judge, &events);
            while let Ok(message) = inbox.try_recv() {
                if !judge.message(message) {
                    judge.keep_learned(true);
                    return judge;
                }
            }
            gathers = judge.gather();
            let now = clock::now();
            if !busy {
                judge.tick(now.before(GRACE));
            }
            if judge.next_chore().is_some_and(|at| at <= now) {
                judge.chores(now);
            }
            let instant = Instant::now();
            if instant >= chores_at {
                chores_at = instant + HOUSEKEEPING;
                self.count_losses(&mut judge);
                // A descriptor that could not be registered is read all the same.
                self.sources.iter_mut().for_each(|source| source.ready = true);
                let status = self.status();
                judge.housekeeping(&status);
            }
            if instant >= look_at {
                look_at = instant + LOOK;
                self.look_again(&mut judge);
            }
            judge.publish_if_due();
            if instant >= keep_at {
                keep_at = instant + KEEP;
                judge.keep_learned(false);
            }
        }
    }

    /// Reads what is there; `true` when more may be.
    fn read(&mut self, judge: &mut Judge) -> bool {
        let mut more = false;
        let mut broken = None;
        for (at, source) in self.sources.iter_mut().enumerate() {
            more |= loop_frames(source, judge, &mut broken, at);
        }
        if let Some((at, why)) = broken {
            self.give_up(at, &why, judge);
        }
        more
    }

    /// Opens, reads and closes the log of what the kernel drops of known destinations.
    fn follow_known(&mut self, judge: &mut Judge, events: &Events) {
        match (&mut self.log, judge.listens()) {
            (Some((log, token)), true) => {
                if events.iter().any(|event| event.token() == *token) {
                    judge.hear(log);
                }
                if judge.has_known_waiting() {
                    judge.hold_known(Ok(()));
                }
            }
            (None, true) if judge.has_known_waiting() => {
                let opened = self.open_log(judge);
                judge.hold_known(opened);
            }
            (Some(_), false) => self.log = None,
            (None, _) => {}
        }
    }

    fn open_log(&mut self, judge: &mut Judge) -> Result<(), String> {
        let log = RefusedLog::over(judge.packet_log(LOG_GROUP)?);
        let token = Token(self.next_token);
        self.next_token += 1;
        self.poll
            .registry()
            .register(&mut SourceFd(&log.fd()), token, Interest::READABLE)
            .map_err(|error| error.to_string())?;
        self.log = Some((log, token));
        Ok(())
    }

    fn give_up(&mut self, at: usize, why: &str, judge: &mut Judge) {
        if at >= self.sources.len() {
            return;
        }
        let source = self.sources.remove(at);
        let name = source.capture.interface().to_owned();
        for fd in source.capture.fds() {
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
        }
        tracing::error!(interface = %name, error = why, state = "frames there are not seen until it comes back", "lost the capture of an interface");
        judge.gap("capture-lost", 1, format!("interface {name} can't be captured any more: {why}"));
        self.failed.push(InterfaceStatus {
            name,
            state: why.to_owned(),
            received: source.received,
            dropped: source.dropped,
            paths: String::new(),
        });
    }

    fn count_losses(&mut self, judge: &mut Judge) {
        let mut lost = 0;
        for source in &mut self.sources {
            let loss = source.capture.take_loss();
            source.received += loss.received;
            source.dropped += loss.dropped;
            lost += loss.dropped;
        }
        if lost > 0 {
            judge.input(Input::Fact(HostFact::Lost(lost), clock::now()));
        }
    }

    fn status(&self) -> Vec<InterfaceStatus> {
        let captured = self.sources.iter().map(|source| InterfaceStatus {
            name: source.capture.interface().to_owned(),
            state: "capturing".to_owned(),
            received: source.received,
            dropped: source.dropped,
            paths: source.capture.paths().to_string(),
        });
        captured.chain(self.failed.iter().cloned()).collect()
    }

    fn look_again(&mut self, judge: &mut Judge) {
        let changed = self.look();
        if !changed && self.failed.is_empty() {
            return;
        }
        let before = self.captured();
        // Said when it failed first; tried again in silence.
        let _ = self.open();
        let captured = self.captured();
        if captured != before {
            tracing::info!(interfaces = %captured.join(", "), "capturing");
        }
        if changed {
            let (uplinks, on_link, addresses) = self.ground();
            judge.move_to(uplinks, on_link, addresses);
        }
    }
}

fn loop_frames(
    source: &mut Source,
    judge: &mut Judge,
    broken: &mut Option<(usize, String)>,
    at: usize,
) -> bool {
    for _ in 0..BATCH / STRIDE {
        let decided = take(&mut source.capture, Way::Trigger, BATCH, judge);
        let carried = if source.ready {
            take(&mut source.capture, Way::Bulk, STRIDE, judge)
        } else {
            Taken::All
        };
        source.ready &= !matches!(carried, Taken::All);
        match (decided, carried) {
            (Taken::Failed(why), _) | (_, Taken::Failed(why)) => {
                *broken = Some((at, why));
                return false;
            }
            (Taken::All, Taken::All) => return false,
            _ => {}
        }
    }
    true
}

/// How reading ended.
enum Taken {
    All,
    Failed(String),
    Some,
}

fn take(capture: &mut LiveCapture, way: Way, most: usize, judge: &mut Judge) -> Taken {
    for _ in 0..most {
        match capture.next_frame(way) {
            NextFrame::Frame(frame) => judge.frame(frame),
            NextFrame::Drained => return Taken::All,
            NextFrame::Failed(why) => return Taken::Failed(why),
        }
    }
    Taken::Some
}

/// Tells the judge when the wall clock moved against the steady one.
fn follow_clock(since: &mut (Timestamp, Instant), judge: &mut Judge) {
    let (now, instant) = (clock::now(), Instant::now());
    let steady = i64::try_from(instant.duration_since(since.1).as_nanos()).unwrap_or(0);
    let step = Span::from_nanos(now.since(since.0).nanos().saturating_sub(steady));
    *since = (now, instant);
    if step.nanos().unsigned_abs() > CLOCK_STEP.nanos().unsigned_abs() {
        judge.clock_set(step, now);
    }
}

/// How long nothing is due.
fn patience(judge: &Judge, chores_at: Instant) -> Duration {
    let now = clock::now();
    let until =
        |at: Timestamp| Duration::from_nanos(u64::try_from(at.since(now).nanos()).unwrap_or(0));
    let housekeeping = chores_at.saturating_duration_since(Instant::now());
    let engine =
        judge.engine.poll_timeout().map(|due| until(due.after(GRACE)) + Duration::from_millis(1));
    let chore = judge.next_chore().map(until);
    [engine, chore].into_iter().flatten().fold(housekeeping, Duration::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wakes that frames of an even rate make, second for second; whether they are gathered at the end.
    fn settle(wakes: &mut Wakes, now: &mut Instant, frames_a_second: u32) -> bool {
        let apart = Duration::from_secs(1) / frames_a_second;
        let end = *now + Duration::from_secs(1);
        let mut gathers = false;
        while *now < end {
            *now += apart;
            let pause = wakes.pause(*now);
            gathers = pause.is_some();
            *now += pause.unwrap_or_default();
        }
        gathers
    }

    #[test]
    fn frames_are_gathered_while_they_come_thick_and_not_in_turns() {
        let mut now = Instant::now();
        let mut wakes = Wakes { since: now, count: 0, thick: false };
        assert!(!settle(&mut wakes, &mut now, 4_000));
        assert!(settle(&mut wakes, &mut now, 40_000));
        for _ in 0..50 {
            // A window of ungathered wakes in between would be one of a wake for each frame.
            now += Duration::from_micros(25);
            let pause = wakes.pause(now);
            assert_eq!(pause, Some(GATHER));
            now += GATHER;
        }
        assert!(!settle(&mut wakes, &mut now, 3_000), "thin again: every frame at once");
    }
}
