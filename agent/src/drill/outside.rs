//! The other end: it answers what the story says, swallows the rest, echoes for the legitimate peer, and counts
//! every frame of the canary that arrives.

use super::network::OUTER;
use super::scenario::{CANARY, Drill, Flow, PEER, Turn};
use crate::capture::live::{LiveCapture, LiveOptions, NextFrame, Way};
use crate::chain::causes;
use sekisho_engine::wire::{Proto, parse};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes of the capture ring.
const RING_BYTES: i32 = 16 << 20;
/// Frames that are noted; a drill whose cut holds has a few dozen.
const MOST_FRAMES: usize = 1 << 18;
/// Pause between two looks at a ring that is empty.
const LOOK: Duration = Duration::from_micros(200);
/// How long a conversation may stand still.
const SILENCE: Duration = Duration::from_secs(60);
/// Conversations at once.
const MOST_TALKS: u64 = 256;

/// A frame of the canary that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) at_ns: i64,
    pub(super) to: SocketAddr,
    /// Bytes above the transport header.
    pub(super) payload: u32,
}

/// What the other end has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    frames: Mutex<Vec<Arrived>>,
    /// Frames that could not be noted: then the sum of the sockets counts.
    pub(super) lost: AtomicU64,
    /// Bytes that the sockets of the intruder read.
    pub(super) read: AtomicU64,
    talks: AtomicU64,
    ended: AtomicBool,
}

impl Seen {
    pub(super) fn frames(&self) -> Vec<Arrived> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops to count.
    pub(super) fn end(&self) {
        self.ended.store(true, Relaxed);
    }
}

/// Opens every end of the story, the peer's and the capture; all of them end with the process.
pub(super) fn open(drill: &Drill) -> Result<Arc<Seen>, String> {
    let seen = Arc::new(Seen::default());
    let options = LiveOptions { ring_bytes: RING_BYTES, promiscuous: false, filter: None };
    let capture = LiveCapture::open(OUTER, &options).map_err(|error| causes(&error))?;
    let counting = Arc::clone(&seen);
    start("count", move || count(capture, &counting))?;
    let mut ends: Vec<(bool, SocketAddr)> =
        drill.story.flows.iter().map(|flow| (flow.tcp, flow.to)).collect();
    ends.sort();
    ends.dedup();
    for (tcp, end) in ends {
        let flows: Vec<Flow> = drill
            .story
            .flows
            .iter()
            .filter(|flow| (flow.tcp, flow.to) == (tcp, end))
            .cloned()
            .collect();
        let seen = Arc::clone(&seen);
        let failed = |error: std::io::Error| format!("cannot serve {end}: {error}");
        if tcp {
            let listener = TcpListener::bind(end).map_err(failed)?;
            start("intruder", move || serve(&listener, &seen, &flows))?;
        } else {
            let socket = UdpSocket::bind(end).map_err(failed)?;
            start("intruder", move || answer(&socket, &flows))?;
        }
    }
    let peer = TcpListener::bind(PEER).map_err(|error| format!("cannot serve {PEER}: {error}"))?;
    start("peer", move || {
        for stream in peer.incoming().flatten() {
            let _ = start("echo", move || echo(stream));
        }
    })?;
    Ok(seen)
}

fn start(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), String> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map(drop)
        .map_err(|error| format!("no thread: {error}"))
}

/// Notes every frame of the canary until told to end.
fn count(mut capture: LiveCapture, seen: &Seen) {
    while !seen.ended.load(Relaxed) {
        let mut any = false;
        for way in [Way::Trigger, Way::Bulk] {
            loop {
                match capture.next_frame(way) {
                    NextFrame::Frame(frame) => {
                        any = true;
                        if let Ok(view) = parse(&frame)
                            && view.src == IpAddr::V4(CANARY)
                            && matches!(view.proto, Proto::Tcp | Proto::Udp)
                        {
                            note(
                                seen,
                                Arrived {
                                    at_ns: frame.at_ns,
                                    to: SocketAddr::new(view.dst, view.dst_port),
                                    payload: view.ip_payload_len,
                                },
                            );
                        }
                    }
                    NextFrame::Drained => break,
                    NextFrame::Failed(_) => {
                        seen.lost.fetch_add(1, Relaxed);
                        return;
                    }
                }
            }
        }
        if !any {
            seen.lost.fetch_add(capture.take_loss().dropped, Relaxed);
            thread::sleep(LOOK);
        }
    }
}

fn note(seen: &Seen, arrived: Arrived) {
    let mut frames = seen.frames.lock().unwrap_or_else(PoisonError::into_inner);
    if frames.len() < MOST_FRAMES {
        frames.push(arrived);
    } else {
        seen.lost.fetch_add(1, Relaxed);
    }
}

/// The intruder's end of TCP: answers by the story, then swallows.
fn serve(listener: &TcpListener, seen: &Arc<Seen>, flows: &[Flow]) {
    // Whoever says nothing, as a probe does, takes no turn of the story from those that speak.
    for stream in listener.incoming().flatten() {
        if seen.talks.fetch_add(1, Relaxed) >= MOST_TALKS {
            seen.talks.fetch_sub(1, Relaxed);
            continue;
        }
        let turns = flows.first().map(|flow| flow.turns.clone()).unwrap_or_default();
        let talking = Arc::clone(seen);
        let _ = start("talk", move || {
            let _ = talk(stream, &talking, &turns);
            talking.talks.fetch_sub(1, Relaxed);
        });
    }
}

fn talk(mut stream: TcpStream, seen: &Seen, turns: &[Turn]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 64 << 10];
    let mut waiting = 0_usize;
    for turn in turns {
        if turn.ours {
            waiting += turn.bytes.len();
            continue;
        }
        while waiting > 0 {
            let part = buffer.len().min(waiting);
            let Some(room) = buffer.get_mut(..part) else { return Ok(()) };
            let count = stream.read(room)?;
            if count == 0 {
                return Ok(());
            }
            seen.read.fetch_add(count as u64, Relaxed);
            waiting -= count;
        }
        stream.write_all(&turn.bytes)?;
    }
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        seen.read.fetch_add(count as u64, Relaxed);
    }
}

/// The other end of datagrams: what follows in the story upon what it has heard.
fn answer(socket: &UdpSocket, flows: &[Flow]) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok((count, from)) = socket.recv_from(&mut buffer) else { return };
        let heard = buffer.get(..count).unwrap_or_default();
        for flow in flows {
            let at = flow.turns.iter().position(|turn| turn.ours && turn.bytes == heard);
            let after = at.map_or(flow.turns.len(), |at| at + 1);
            for turn in flow.turns.iter().skip(after).take_while(|turn| !turn.ours) {
                let _ = socket.send_to(&turn.bytes, from);
            }
        }
    }
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    if stream.set_read_timeout(Some(SILENCE)).is_err() || stream.set_nodelay(true).is_err() {
        return;
    }
    while let Ok(count) = stream.read(&mut buffer) {
        let Some(heard) = buffer.get(..count).filter(|heard| !heard.is_empty()) else { return };
        if stream.write_all(heard).is_err() {
            return;
        }
    }
}
