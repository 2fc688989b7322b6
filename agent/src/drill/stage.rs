//! The play: reach everybody, attack, be cut, try, release, reach everybody again.

use super::brief::{Brief, Failure, Rehearsal, Told};
use super::canary::{Account, Word};
use super::cell::settle;
use super::figures::{Figures, Found, UNDER_WAY};
use super::network::Network;
use super::outside::{self, Arrived, Seen};
use super::scenario::Drill;
use super::second::{Second, last_words};
use crate::clock;
use crate::control::{ContainmentStatus, Status};
use sekisho_schema::{Action, Finding, Timestamp};
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// This program, as process 1 of the cell.
pub(super) const PROGRAM: &str = "/proc/1/exe";
/// The legitimate connection is watched before anything happens, and under the cut.
const QUIET: Duration = Duration::from_millis(300);
const HOLD: Duration = Duration::from_millis(1000);
/// Once something was found and not cut, it will not be.
const UNDECIDED: Duration = Duration::from_millis(1500);
/// Longest wait for everybody to be reachable, before and after.
const REACHABLE: Duration = Duration::from_secs(5);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// Releases that are tried: each containment that there is, and those that came meanwhile.
const MOST_RELEASES: usize = 16;

/// Plays what the first line of standard input says, and tells what became of it in one line.
///
/// # Errors
/// When nothing can be read or written.
pub fn serve(mut input: impl BufRead, out: &mut dyn Write) -> io::Result<()> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    let brief: Brief = serde_json::from_str(&line)?;
    let settled = settle();
    let rehearsal = match settled.map_err(Failure::new).and_then(|()| play(&brief)) {
        Ok(figures) => Rehearsal::Measured(Box::new(figures)),
        Err(failure) => Rehearsal::Failed(failure),
    };
    let namespaces = namespaces(&brief.prefix);
    writeln!(out, "{}", serde_json::to_string(&Told { rehearsal, namespaces })?)?;
    out.flush()
}

/// The network namespaces of the cell, for who looks whether they are gone.
fn namespaces(prefix: &str) -> Vec<u64> {
    let paths = ["/proc/self/ns/net".to_owned(), format!("/run/netns/{prefix}-canary")];
    paths.iter().filter_map(|path| fs::metadata(path).ok()).map(|found| found.ino()).collect()
}

fn play(brief: &Brief) -> Result<Figures, Failure> {
    let drill = &brief.drill;
    let c2 = drill.c2().ok_or_else(|| Failure::new("the story has no intruder"))?;
    let network = Network::build(drill, &brief.prefix)
        .map_err(|error| Failure::new(format!("cannot build the network of the drill: {error}")))?;
    let seen = outside::open(drill).map_err(Failure::new)?;
    let second = Second::start(brief, &network)?;
    let mut canary = Canary::start(&network, drill)?;
    let reached = canary.reach((true, true))?;
    if reached != (true, true) {
        return Err(Failure::new(format!(
            "before anything was cut, the intruder {} and the peer {}",
            could(reached.0),
            could(reached.1)
        )));
    }
    sleep(QUIET);
    let play = Play { drill, c2, second, seen };
    let figures = play.run(&mut canary, brief.policy_level);
    play.seen.end();
    figures
}

const fn could(reached: bool) -> &'static str {
    if reached { "could be reached" } else { "could not be reached" }
}

struct Play<'a> {
    drill: &'a Drill,
    c2: SocketAddr,
    second: Second,
    seen: std::sync::Arc<Seen>,
}

impl Play<'_> {
    fn run(&self, canary: &mut Canary, policy_level: u8) -> Result<Figures, Failure> {
        let told = |error: String| Failure { what: error, said: last_words("run") };
        let began = clock::now();
        canary.say(Word::Play)?;
        let (status, finding) = self.wait().map_err(told)?;
        let held = finding.as_ref().map(|finding| held_for(&status, finding)).unwrap_or_default();
        let mut figures = Figures {
            mode: status.mode.effective,
            mode_why: status.mode.why.clone(),
            scheduling: status.capture.realtime.clone(),
            first_packet_at: None,
            found: finding.as_ref().map(Found::from),
            receipt: first_receipt(&held),
            level: held
                .iter()
                .filter(|held| is_applied(held))
                .map(|held| held.containment.level)
                .max()
                .unwrap_or(0),
            policy_level,
            last_packet_at: None,
            leaked_packets: 0,
            leaked_bytes: 0,
            late_packets: 0,
            theft_bytes: self.drill.story.theft_bytes,
            under_cut: None,
            released: None,
            release_error: None,
            business: (0, 0, 0),
            attempts: 0,
        };
        if figures.receipt.is_some() {
            sleep(HOLD);
            let account = canary.say(Word::Prove)?;
            figures.under_cut = account.c2.zip(account.peer);
        }
        let account = canary.say(Word::Stop)?;
        figures.take(&account);
        self.count(&mut figures, finding.as_ref(), began);
        if figures.receipt.is_some() {
            match self.release() {
                Ok(()) => figures.released = Some(canary.reach((true, true))?),
                Err(error) => figures.release_error = Some(error),
            }
        }
        Ok(figures)
    }

    /// Waits until what shall be found is found, cut and proven, or will not be.
    fn wait(&self) -> Result<(Status, Option<Finding>), String> {
        let deadline = Instant::now() + Duration::from_secs(self.drill.limits.seconds);
        let mut found_at = None;
        loop {
            let finding = self.finding()?;
            let status = self.second.status()?;
            let is_over = Instant::now() >= deadline;
            let Some(finding) = finding else {
                if is_over {
                    return Ok((status, None));
                }
                sleep(LOOK);
                continue;
            };
            let since = *found_at.get_or_insert_with(Instant::now);
            let held = held_for(&status, &finding);
            let is_proven = !held.is_empty()
                && held.iter().all(|held| {
                    held.receipt.as_ref().is_some_and(|receipt| {
                        !receipt.applied
                            || (receipt.proof.cut.is_some() && receipt.proof.exemptions.is_some())
                    })
                });
            let is_let_go =
                finding.decision.action != Action::Contain && since.elapsed() >= UNDECIDED;
            if is_proven || is_let_go || is_over {
                return Ok((status, Some(finding)));
            }
            sleep(LOOK);
        }
    }

    /// The finding that led to a cut, else the first one of the detector.
    fn finding(&self) -> Result<Option<Finding>, String> {
        let mut findings = self.second.findings()?;
        findings.retain(|finding| finding.detector == self.drill.expect.detector);
        let cuts = |finding: &Finding| finding.decision.action == Action::Contain;
        let at = findings.iter().position(cuts).unwrap_or(0);
        Ok(findings.into_iter().nth(at))
    }

    /// What arrived outside, before and after the match.
    fn count(&self, figures: &mut Figures, finding: Option<&Finding>, began: Timestamp) {
        let ends: Vec<SocketAddr> = self.drill.story.flows.iter().map(|flow| flow.to).collect();
        let mut frames: Vec<Arrived> = self.seen.frames();
        frames.retain(|frame| frame.at_ns >= began.nanos() && ends.contains(&frame.to));
        frames.sort_by_key(|frame| frame.at_ns);
        figures.first_packet_at = frames.first().map(|frame| Timestamp::from_nanos(frame.at_ns));
        frames.retain(|frame| frame.to == self.c2 && frame.payload > 0);
        figures.last_packet_at = frames.last().map(|frame| Timestamp::from_nanos(frame.at_ns));
        let read = self.seen.read.load(Relaxed);
        let Some(finding) = finding else {
            figures.leaked_bytes = read.saturating_sub(self.spoken());
            return;
        };
        let committed = figures.receipt.as_ref().and_then(|receipt| receipt.committed_at);
        figures.late_packets = committed.map_or(0, |at| {
            let after = at.after(UNDER_WAY).nanos();
            frames.iter().filter(|frame| frame.at_ns > after).count() as u64
        });
        let matched = finding.matched_at.nanos();
        let deciding = finding.flow.as_ref().is_some_and(|flow| flow.remote == self.c2);
        // The deciding frame itself arrives after it was seen to leave.
        let leaked =
            frames.iter().filter(|frame| frame.at_ns >= matched).skip(usize::from(deciding));
        let (packets, bytes) = leaked.fold((0, 0), |(packets, bytes), frame| {
            (packets + 1, bytes + u64::from(frame.payload))
        });
        (figures.leaked_packets, figures.leaked_bytes) = (packets, bytes);
        if self.seen.lost.load(Relaxed) > 0 || figures.receipt.is_none() {
            figures.leaked_bytes = bytes.max(read.saturating_sub(self.spoken()));
        }
    }

    /// Bytes that the story says to the intruder before the theft.
    fn spoken(&self) -> u64 {
        let story = &self.drill.story;
        let flows = story.flows.iter().filter(|flow| flow.tcp);
        let turns = flows.flat_map(|flow| &flow.turns).filter(|turn| turn.ours);
        turns.map(|turn| turn.bytes.len() as u64).sum()
    }

    /// Ends every containment, through the control socket as a person would.
    fn release(&self) -> Result<(), String> {
        for _ in 0..MOST_RELEASES {
            let status = self.second.status()?;
            let Some(held) = status.containments.first() else { return Ok(()) };
            self.second.release(&held.containment.id)?;
        }
        Err("there is always another containment".to_owned())
    }
}

/// The containments that a finding led to.
fn held_for(status: &Status, finding: &Finding) -> Vec<ContainmentStatus> {
    let is_of = |held: &&ContainmentStatus| {
        held.containment.finding.as_ref() == Some(&finding.id)
            || finding.decision.containment.as_ref() == Some(&held.containment.id)
    };
    status.containments.iter().filter(is_of).cloned().collect()
}

fn is_applied(held: &ContainmentStatus) -> bool {
    held.receipt.as_ref().is_some_and(|receipt| receipt.applied)
}

/// The receipt that came first, of those that were applied if there is one.
fn first_receipt(held: &[ContainmentStatus]) -> Option<sekisho_schema::Receipt> {
    let applied =
        held.iter().filter(|held| is_applied(held)).filter_map(|held| held.receipt.clone());
    applied
        .min_by_key(|receipt| receipt.committed_at)
        .or_else(|| held.iter().find_map(|held| held.receipt.clone()))
}

/// The attacked host.
struct Canary {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Canary {
    fn start(network: &Network, drill: &Drill) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::new(format!("cannot start the canary: {error}"));
        let mut child = network
            .command(PROGRAM)
            .map_err(Failure::new)?
            .args(["drill", "canary"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::new("the canary has no pipes"));
        };
        let story = serde_json::to_string(&drill.story).map_err(|error| failed(error.into()))?;
        writeln!(input, "{story}").map_err(failed)?;
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    fn say(&mut self, word: Word) -> Result<Account, Failure> {
        let mut answer = String::new();
        let mut talk = || -> io::Result<Account> {
            writeln!(self.input, "{}", serde_json::to_string(&word)?)?;
            self.output.read_line(&mut answer)?;
            Ok(serde_json::from_str(&answer)?)
        };
        talk().map_err(|error| Failure::new(format!("the canary does not answer: {error}")))
    }

    /// Whether intruder and peer can be reached, tried until it is as wanted or was long enough.
    fn reach(&mut self, wanted: (bool, bool)) -> Result<(bool, bool), Failure> {
        let deadline = Instant::now() + REACHABLE;
        loop {
            let account = self.say(Word::Prove)?;
            let reached = (account.c2 == Some(true), account.peer == Some(true));
            if reached == wanted || Instant::now() >= deadline {
                return Ok(reached);
            }
            sleep(LOOK);
        }
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
