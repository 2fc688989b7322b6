//! The host that is attacked: an implant with plain sockets, and beside it a connection that must go on.
//!
//! Enters: a story in the first line of standard input, then words, one a line. Leaves: one line of JSON for
//! each.

use super::scenario::{PEER, Story};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for a connection that shall come about, and for an answer of the peer.
const CONNECT: Duration = Duration::from_secs(1);
const PEER_WITHIN: Duration = Duration::from_secs(3);
/// The peer is spoken to so often.
const PEER_EVERY: Duration = Duration::from_millis(10);
/// Once cut off, the implant tries again so often, and waits so long.
const AGAIN: Duration = Duration::from_millis(100);
const AGAIN_WITHIN: Duration = Duration::from_millis(300);
/// Longest wait of the implant for the other end's turn, or for room to write.
const TURN: Duration = Duration::from_secs(2);
/// Bytes of the theft that are written at once.
const CHUNK: usize = 16 << 10;

/// What the canary is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Word {
    /// Play the story.
    Play,
    /// Try whether intruder and peer can be reached.
    Prove,
    /// Tell.
    Report,
    /// Play no more.
    Stop,
}

/// What the canary knows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    /// Whether the intruder could be reached, where it was tried.
    pub(super) c2: Option<bool>,
    /// Whether the legitimate peer could be.
    pub(super) peer: Option<bool>,
    /// Whether the story was told to its end.
    pub(super) told: bool,
    /// Bytes of the theft that the kernel took from the implant.
    pub(super) stolen: u64,
    /// Times that it tried to go on after it had been cut off.
    pub(super) attempts: u64,
    /// How it was cut off first.
    pub(super) cut_off: Option<String>,
    /// Answers of the peer over the connection that must go on.
    pub(super) answers: u64,
    /// Times that this connection was lost.
    pub(super) lost: u64,
    /// The longest wait for an answer of the peer, in microseconds.
    pub(super) longest_us: u64,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    told: AtomicBool,
    stolen: AtomicU64,
    attempts: AtomicU64,
    cut_off: Mutex<Option<String>>,
    answers: AtomicU64,
    lost: AtomicU64,
    longest_us: AtomicU64,
}

impl Shared {
    fn account(&self) -> Account {
        Account {
            c2: None,
            peer: None,
            told: self.told.load(Relaxed),
            stolen: self.stolen.load(Relaxed),
            attempts: self.attempts.load(Relaxed),
            cut_off: self.cut_off.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            answers: self.answers.load(Relaxed),
            lost: self.lost.load(Relaxed),
            longest_us: self.longest_us.load(Relaxed),
        }
    }
}

/// Serves until standard input ends.
///
/// # Errors
/// What the system says, or that what came is no story.
pub fn serve(mut input: impl BufRead, out: &mut dyn Write) -> io::Result<()> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    let story: Story = serde_json::from_str(&line)?;
    let c2 = story.flows.iter().rev().find(|flow| flow.tcp).map(|flow| flow.to);
    let c2 = c2.ok_or(io::ErrorKind::InvalidData)?;
    let (shared, story) = (Arc::new(Shared::default()), Arc::new(story));
    let beside = Arc::clone(&shared);
    thread::Builder::new().name("business".to_owned()).spawn(move || business(&beside))?;
    for line in input.lines() {
        let mut account = None;
        match serde_json::from_str(&line?)? {
            Word::Play => {
                let (story, shared) = (Arc::clone(&story), Arc::clone(&shared));
                thread::Builder::new()
                    .name("implant".to_owned())
                    .spawn(move || implant(&story, c2, &shared))?;
            }
            Word::Prove => {
                let reaches = |to| TcpStream::connect_timeout(&to, CONNECT).is_ok();
                account = Some(Account {
                    c2: Some(reaches(c2)),
                    peer: Some(reaches(PEER)),
                    ..shared.account()
                });
            }
            Word::Report => {}
            Word::Stop => shared.stop.store(true, Relaxed),
        }
        let account = account.unwrap_or_else(|| shared.account());
        writeln!(out, "{}", serde_json::to_string(&account)?)?;
        out.flush()?;
    }
    Ok(())
}

/// The connection that must go on: one question after the other, each answered.
fn business(shared: &Shared) {
    loop {
        let gone = converse(shared);
        if gone.is_err() && !shared.stop.load(Relaxed) {
            shared.lost.fetch_add(1, Relaxed);
        }
        thread::sleep(AGAIN);
    }
}

fn converse(shared: &Shared) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&PEER, CONNECT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PEER_WITHIN))?;
    stream.set_write_timeout(Some(PEER_WITHIN))?;
    let mut answer = [0; 64];
    loop {
        let asked = Instant::now();
        stream.write_all(&[b'?'; 64])?;
        stream.read_exact(&mut answer)?;
        let took = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
        shared.longest_us.fetch_max(took, Relaxed);
        shared.answers.fetch_add(1, Relaxed);
        thread::sleep(PEER_EVERY);
    }
}

/// Plays the story, steals, and tries again when it is cut off, until it is told to stop.
fn implant(story: &Story, c2: SocketAddr, shared: &Shared) {
    let is_done = || shared.stolen.load(Relaxed) >= story.theft_bytes;
    let outcome = tell(story, shared).and_then(|stream| steal(stream, story, shared));
    match outcome {
        Ok(()) => shared.told.store(is_done(), Relaxed),
        Err(error) => {
            *shared.cut_off.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(error.to_string());
            while !shared.stop.load(Relaxed) {
                thread::sleep(AGAIN);
                shared.attempts.fetch_add(1, Relaxed);
                let again = TcpStream::connect_timeout(&c2, AGAIN_WITHIN);
                if again.and_then(|stream| steal(stream, story, shared)).is_ok() {
                    shared.told.store(is_done(), Relaxed);
                    return;
                }
            }
        }
    }
}

/// Says everything that the story says, and gives the connection that the theft goes over.
fn tell(story: &Story, shared: &Shared) -> io::Result<TcpStream> {
    let mut last = None;
    for flow in &story.flows {
        if !flow.tcp {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect(flow.to)?;
            socket.set_read_timeout(Some(TURN))?;
            let mut room = [0; 2048];
            for turn in &flow.turns {
                thread::sleep(Duration::from_millis(turn.after_ms));
                if turn.ours {
                    socket.send(&turn.bytes)?;
                } else {
                    socket.recv(&mut room)?;
                }
            }
            continue;
        }
        let mut stream = TcpStream::connect_timeout(&flow.to, TURN)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TURN))?;
        stream.set_write_timeout(Some(TURN))?;
        for turn in &flow.turns {
            thread::sleep(Duration::from_millis(turn.after_ms));
            if turn.ours {
                stream.write_all(&turn.bytes)?;
            } else {
                stream.read_exact(&mut vec![0; turn.bytes.len()])?;
            }
        }
        last = Some(stream);
    }
    let mut stream = last.ok_or(io::ErrorKind::InvalidData)?;
    for _ in 0..story.keep_alives {
        if shared.stop.load(Relaxed) {
            break;
        }
        thread::sleep(Duration::from_millis(story.every_ms));
        stream.write_all(&story.keep_alive)?;
    }
    Ok(stream)
}

/// Sends what is left of the loot, no faster than the story says.
fn steal(mut stream: TcpStream, story: &Story, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(TURN))?;
    let loot = [b'.'; CHUNK];
    let (began, mut sent) = (Instant::now(), 0_u64);
    loop {
        let left = story.theft_bytes.saturating_sub(shared.stolen.load(Relaxed));
        if left == 0 || shared.stop.load(Relaxed) {
            return Ok(());
        }
        let part = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let count = stream.write(loot.get(..part).unwrap_or_default())? as u64;
        shared.stolen.fetch_add(count, Relaxed);
        sent += count;
        if let Some(nanos) = sent.saturating_mul(8_000).checked_div(story.mbit) {
            thread::sleep(Duration::from_nanos(nanos).saturating_sub(began.elapsed()));
        }
    }
}
