//! What is said over the guardian's socket: a length, a kind and a body, one answer for each question.
//!
//! Desired state and batches of destinations are written compactly, because a cut waits for them; everything
//! else is JSON.

use super::deny::{Denying, Remembering};
use crate::bpf::Opener;
use crate::enforce::{Counters, Held, Key, Ownership, Plan};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, send, sendmsg,
};
use sekisho_schema::{
    Containment, ContainmentId, ContainmentSet, Measure, Proof, Scope, Timestamp,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A body is never longer: a million known destinations are less.
const MOST_BYTES: usize = 64 << 20;
/// Length and kind before each body.
const HEAD_BYTES: usize = 5;
/// Bytes read at once at first.
const FIRST_BYTES: usize = 8 * 1024;

/// Kinds of bodies.
pub(super) const JSON: u8 = 1;
pub(super) const SET: u8 = 2;
pub(super) const APPLIED: u8 = 3;
pub(super) const HOLD_KNOWN: u8 = 4;
pub(super) const RELEASE_KNOWN: u8 = 5;
pub(super) const HOLDING_KNOWN: u8 = 6;
/// Something that matters may follow at once; the one kind without body and answer.
pub(super) const ALERT: u8 = 7;
/// The whole of an alert.
const ALERT_BYTES: [u8; HEAD_BYTES] = [0, 0, 0, 0, ALERT];

/// What a caller comes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Role {
    /// Questions.
    Ask,
    /// Desired state; one at a time, the newest counts.
    Hand,
    /// Destinations known beforehand, in batches; one at a time.
    Known,
    /// To be told what happens.
    Listen,
}

/// What is asked in JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub(super) enum Question {
    /// Who calls.
    Hello { role: Role, boot: String },
    /// The ruleset shall be that of this plan.
    Plan { plan: Box<Plan> },
    /// Our tables shall go.
    Remove,
    /// The packet log of a group, as a descriptor.
    PacketLog { group: u16 },
    /// What the kernel holds, by containment.
    Held,
    /// What was dropped and passed.
    Counters,
    /// Does it hold what it should?
    Verify,
    /// Try whether a cut holds.
    Prove { containment: Box<Containment> },
    /// End what goes on in these scopes.
    End { scopes: Vec<Scope> },
    /// What passes a cut here and now; these are the devices that lead out, where no plan names them.
    Look { uplinks: Vec<String> },
    /// Who opened the connection between these ends, or sent from one to the other.
    Opener { transport: u8, local: SocketAddr, remote: SocketAddr },
    /// The caller is about to open packet sockets: they are how an agent sees.
    Spare,
    /// How the guardian fares.
    State,
    /// Known destinations that are held.
    ReadKnown,
}

/// What is answered in JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(super) enum Answer {
    /// Desired state was taken, perhaps in part.
    Applied {
        outcome: Outcome,
    },
    /// The kernel refused; `absent` where our tables are gone.
    Failed {
        why: String,
        absent: bool,
    },
    /// Done, and nothing to tell.
    Done,
    Held {
        held: Vec<Held>,
    },
    Counters {
        counters: Counters,
    },
    Drift {
        what: Vec<String>,
        rules: bool,
    },
    Proof {
        proof: Proof,
    },
    Ended {
        ended: Ended,
    },
    State {
        state: State,
    },
    Holding {
        holding: bool,
    },
    Passing {
        gaps: Vec<String>,
    },
    Opener {
        opener: Option<Opener>,
    },
}

/// A containment that was not written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedScope {
    /// The containment.
    pub id: ContainmentId,
    /// Why, in words.
    pub why: String,
}

/// What became of a desired set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The generation in force.
    pub generation: u64,
    /// CLOCK_REALTIME right after the kernel acknowledged.
    pub committed_at: Timestamp,
    /// Containments that began, were renewed or were released.
    pub changed: u64,
    /// What was not written.
    pub refused: Vec<RefusedScope>,
    /// What scopes were found to be, in words, by containment; only those that are more than their name says.
    #[serde(default)]
    pub targets: BTreeMap<ContainmentId, Vec<String>>,
    /// Whether it was ignored, because a later set of the same run of the agent is in force.
    pub stale: bool,
}

/// What was ended behind a cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Sockets ended, in every network namespace concerned.
    pub sockets: u32,
    /// Sockets that did not end.
    pub failed: u32,
    /// Entries of connection tracking deleted.
    pub tracked: u32,
    /// Cgroups that stand still.
    pub frozen: u32,
    /// What went wrong, in words.
    pub faults: Vec<String>,
}

/// How the guardian fares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Its process id.
    pub pid: u32,
    /// Whose the tables are.
    pub ownership: Ownership,
    /// Generation in force.
    pub generation: u64,
    /// Containments in force.
    pub containments: u64,
    /// Times that something had to be set right.
    pub drift: u64,
    /// How the thread that cuts is scheduled.
    pub scheduling: String,
    /// Whether it knows alerts.
    #[serde(default)]
    pub heeds_alerts: bool,
    /// Whether raw sockets are refused to what is contained.
    #[serde(default)]
    pub denying: Denying,
    /// Whether the kernel remembers who opened connections.
    #[serde(default)]
    pub remembering: Remembering,
}

/// What happens on the guardian's side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The kernel held something else than it should, and was set right or not.
    Drift {
        /// What differed, in words.
        what: Vec<String>,
        /// Process that did it, where the kernel tells.
        who: Option<String>,
        /// Why it could not be set right, if it could not.
        failure: Option<String>,
    },
    /// A device came, went or was named anew.
    Links,
    /// The tables are, or are not, safe from other hands.
    Owned {
        /// Whose they are.
        ownership: Ownership,
    },
    /// The guardian is there.
    Present {
        /// How it fares.
        state: State,
    },
}

/// One end of a conversation.
#[derive(Debug)]
pub(super) struct Link {
    stream: UnixStream,
    buffer: Vec<u8>,
    out: Vec<u8>,
}

fn malformed(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl Link {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, buffer: vec![0; FIRST_BYTES], out: Vec::with_capacity(FIRST_BYTES) }
    }

    pub(super) const fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Bounds every later wait for the other end.
    pub(super) fn patience(&self, wait: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(wait)?;
        self.stream.set_write_timeout(wait)
    }

    /// Sends one body that `write` appends.
    pub(super) fn send(&mut self, kind: u8, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.fill(kind, write)?;
        self.stream.write_all(&self.out)
    }

    /// Says that something may follow at once. Never waits: where there is no room, the other end is not idle.
    pub(super) fn alert(&self) {
        let _ = send(&self.stream, &ALERT_BYTES, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    fn fill(&mut self, kind: u8, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.out.clear();
        self.out.extend_from_slice(&[0, 0, 0, 0, kind]);
        write(&mut self.out);
        let length = self.out.len() - HEAD_BYTES;
        if length > MOST_BYTES {
            return Err(malformed("too long to be said to the guardian"));
        }
        let length = u32::try_from(length).map_err(|_| malformed("too long"))?.to_le_bytes();
        if let Some(place) = self.out.get_mut(..4) {
            place.copy_from_slice(&length);
        }
        Ok(())
    }

    pub(super) fn send_json<T: Serialize>(&mut self, value: &T) -> io::Result<()> {
        let text = serde_json::to_vec(value)?;
        self.send(JSON, |out| out.extend_from_slice(&text))
    }

    /// Sends an answer with a descriptor beside it.
    pub(super) fn send_descriptor<T: Serialize>(
        &mut self,
        value: &T,
        descriptor: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let text = serde_json::to_vec(value)?;
        self.fill(JSON, |out| out.extend_from_slice(&text))?;
        let mut space = [std::mem::MaybeUninit::uninit(); 64];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor];
        if !beside.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(malformed("no room for a descriptor"));
        }
        // An answer of some dozen bytes goes whole.
        let sent =
            sendmsg(&self.stream, &[IoSlice::new(&self.out)], &mut beside, SendFlags::NOSIGNAL)?;
        if sent == self.out.len() { Ok(()) } else { Err(malformed("sent in part")) }
    }

    /// Hears one body; `None` when the other end is gone. Nothing may follow it before it is answered.
    pub(super) fn receive(&mut self) -> io::Result<Option<(u8, &[u8])>> {
        self.await_word()?;
        self.receive_begun()
    }

    /// As [`Link::receive`], for who knows that something is there to be read.
    pub(super) fn receive_begun(&mut self) -> io::Result<Option<(u8, &[u8])>> {
        let mut filled = 0;
        loop {
            let space = self.buffer.get_mut(filled..).unwrap_or_default();
            match self.stream.read(space) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            // What follows an alert counts more than the alert.
            while filled > HEAD_BYTES && self.buffer.starts_with(&ALERT_BYTES) {
                self.buffer.copy_within(HEAD_BYTES..filled, 0);
                filled -= HEAD_BYTES;
            }
            if let Some(end) = self.end(filled)? {
                let kind = self.buffer.get(4).copied().unwrap_or_default();
                return Ok(self.buffer.get(HEAD_BYTES..end).map(|body| (kind, body)));
            }
        }
    }

    /// Waits until something is there. Not by reading: a reader is also woken when the other end takes what was said
    /// to it, which costs that end an interrupt of another core right before it cuts.
    fn await_word(&self) -> io::Result<()> {
        let patience = self.stream.read_timeout()?.map(|patience| Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(patience.subsec_nanos()),
        });
        loop {
            match poll(&mut [PollFd::new(&self.stream, PollFlags::IN)], patience.as_ref()) {
                Ok(0) => return Err(io::ErrorKind::WouldBlock.into()),
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Where the body ends, once all of it is there; makes room for the rest.
    fn end(&mut self, filled: usize) -> io::Result<Option<usize>> {
        let Some(head) = self.buffer.first_chunk::<4>().filter(|_| filled >= HEAD_BYTES) else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
        if length > MOST_BYTES {
            return Err(malformed("longer than anything that is said here"));
        }
        let end = HEAD_BYTES + length;
        if filled > end {
            return Err(malformed("something follows before the answer"));
        }
        if self.buffer.len() <= end {
            self.buffer.resize(end + 1, 0);
        }
        Ok((filled == end).then_some(end))
    }

    /// Hears an answer with a descriptor beside it.
    pub(super) fn receive_descriptor(&mut self) -> io::Result<(Answer, Option<OwnedFd>)> {
        let mut space = [std::mem::MaybeUninit::uninit(); 64];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(
            &self.stream,
            &mut [IoSliceMut::new(&mut self.buffer)],
            &mut beside,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let descriptor = beside.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let body = self.buffer.get(HEAD_BYTES..got.bytes).unwrap_or_default();
        Ok((serde_json::from_slice(body)?, descriptor))
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = text.floor_char_boundary(text.len().min(usize::from(u16::MAX)));
    out.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(text.as_bytes().get(..length).unwrap_or_default());
}

fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            out.push(4);
            out.extend_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            out.push(6);
            out.extend_from_slice(&v6.octets());
        }
    }
}

/// Reads what was put, in the same order; `None` once something is amiss.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Option<Timestamp> {
        self.take().map(|bytes| Timestamp::from_nanos(i64::from_le_bytes(bytes)))
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::from(u16::from_le_bytes(self.take()?));
        let text = self.0.get(..length)?;
        self.0 = self.0.get(length..)?;
        std::str::from_utf8(text).ok()
    }

    fn address(&mut self) -> Option<IpAddr> {
        match self.byte()? {
            4 => Some(Ipv4Addr::from(self.take::<4>()?).into()),
            6 => Some(Ipv6Addr::from(self.take::<16>()?).into()),
            _ => None,
        }
    }
}

/// Writes a desired set: of each containment only what the kernel is to hold.
pub(super) fn put_set(out: &mut Vec<u8>, set: &ContainmentSet) {
    out.extend_from_slice(&set.generation.to_le_bytes());
    let count = u32::try_from(set.containments.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&count.to_le_bytes());
    for containment in set.containments.values() {
        put_text(out, &containment.id.0);
        match &containment.scope {
            Scope::Destination(address) => {
                out.push(1);
                put_address(out, *address);
            }
            Scope::Host => out.push(2),
            Scope::ManagementOnly => out.push(3),
            other => {
                out.push(0);
                put_text(out, &other.to_string());
            }
        }
        out.extend_from_slice(&containment.until.nanos().to_le_bytes());
        out.push(u8::from(containment.trial_until.is_some()));
        if let Some(trial) = containment.trial_until {
            out.extend_from_slice(&trial.nanos().to_le_bytes());
        }
        let (kind, number) = match containment.measure {
            Measure::Cut => (0, 0),
            Measure::Freeze => (1, 0),
            Measure::Observe => (2, 0),
            Measure::Quota { bytes } => (3, bytes),
            Measure::Throttle { bytes_per_second } => (4, bytes_per_second),
        };
        out.push(kind);
        if number > 0 {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
}

/// Reads a desired set.
pub(super) fn read_set(body: &[u8]) -> Option<ContainmentSet> {
    let mut reader = Reader(body);
    let mut set = ContainmentSet { generation: reader.number()?, ..ContainmentSet::default() };
    let count = u32::from_le_bytes(reader.take()?);
    for _ in 0..count {
        let id = ContainmentId(reader.text()?.to_owned());
        let scope = match reader.byte()? {
            0 => reader.text()?.parse().ok()?,
            1 => Scope::Destination(reader.address()?),
            2 => Scope::Host,
            3 => Scope::ManagementOnly,
            _ => return None,
        };
        let until = reader.time()?;
        let trial_until = if reader.byte()? == 1 { Some(reader.time()?) } else { None };
        let measure = match reader.byte()? {
            0 => Measure::Cut,
            1 => Measure::Freeze,
            2 => Measure::Observe,
            3 => Measure::Quota { bytes: reader.number()? },
            4 => Measure::Throttle { bytes_per_second: reader.number()? },
            _ => return None,
        };
        set.containments.insert(id.clone(), bare(id, scope, until, trial_until, measure));
    }
    reader.0.is_empty().then_some(set)
}

/// A containment of which only what the kernel holds is known.
pub(super) fn bare(
    id: ContainmentId,
    scope: Scope,
    until: Timestamp,
    trial_until: Option<Timestamp>,
    measure: Measure,
) -> Containment {
    Containment {
        id,
        level: scope.level_of(measure),
        scope,
        since: Timestamp::EPOCH,
        until,
        measure,
        trial_until,
        cause: String::new(),
        finding: None,
        by: None,
    }
}

/// Writes the answer to a set of which everything was written.
pub(super) fn put_outcome(out: &mut Vec<u8>, outcome: &Outcome) {
    out.extend_from_slice(&outcome.generation.to_le_bytes());
    out.extend_from_slice(&outcome.committed_at.nanos().to_le_bytes());
    out.extend_from_slice(&outcome.changed.to_le_bytes());
}

/// Reads the answer to a set of which everything was written.
pub(super) fn read_outcome(body: &[u8]) -> Option<Outcome> {
    let mut reader = Reader(body);
    Some(Outcome {
        generation: reader.number()?,
        committed_at: reader.time()?,
        changed: reader.number()?,
        refused: Vec::new(),
        targets: BTreeMap::new(),
        stale: false,
    })
}

/// Writes a batch of known destinations.
pub(super) fn put_keys(out: &mut Vec<u8>, keys: &[Key], lease: Duration, renew: bool) {
    out.push(u8::from(renew));
    out.extend_from_slice(&u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).to_le_bytes());
    for key in keys {
        put_address(out, key.address());
        out.push(u8::from(key.port().is_some()));
        out.extend_from_slice(&key.port().unwrap_or_default().to_le_bytes());
    }
}

/// Reads a batch of known destinations.
pub(super) fn read_keys(body: &[u8]) -> Option<(Vec<Key>, Duration, bool)> {
    let mut reader = Reader(body);
    let renew = reader.byte()? == 1;
    let lease = Duration::from_millis(reader.number()?);
    let mut keys = Vec::new();
    while !reader.0.is_empty() {
        let address = reader.address()?;
        let with_port = reader.byte()? == 1;
        let port = u16::from_le_bytes(reader.take()?);
        keys.push(Key::new(address, with_port.then_some(port)));
    }
    Some((keys, lease, renew))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> ContainmentSet {
        let at = Timestamp::from_nanos;
        let all = [
            ("dest:203.0.113.9", None, Measure::Cut),
            ("dest:2001:db8::1", None, Measure::Quota { bytes: 20_000_000 }),
            ("dest:203.0.113.10", Some(5), Measure::Throttle { bytes_per_second: 1 }),
            ("host", Some(9), Measure::Cut),
            ("management-only", None, Measure::Cut),
            ("cgroup:/system.slice/web.service", None, Measure::Freeze),
            ("link:eth0", None, Measure::Cut),
        ];
        let containments = all.into_iter().enumerate().map(|(nth, (scope, trial, measure))| {
            let id = ContainmentId(format!("c-{nth:012}"));
            (id.clone(), bare(id, scope.parse().unwrap(), at(77), trial.map(at), measure))
        });
        ContainmentSet { generation: 7, containments: containments.collect() }
    }

    #[test]
    fn a_set_reads_back_what_was_written_and_nothing_else_is_one() {
        let mut bytes = Vec::new();
        put_set(&mut bytes, &set());
        assert_eq!(read_set(&bytes).unwrap(), set());
        for end in 0..bytes.len() {
            assert_eq!(read_set(&bytes[..end]), None, "{end} bytes");
        }
        bytes.push(0);
        assert_eq!(read_set(&bytes), None);
    }

    #[test]
    fn a_batch_of_destinations_reads_back() {
        let keys: Vec<Key> = [
            ("203.0.113.9", None),
            ("203.0.113.9", Some(443)),
            ("2001:db8::1", None),
            ("2001:db8::1", Some(53)),
        ]
        .map(|(address, port)| Key::new(address.parse().unwrap(), port))
        .into();
        let mut bytes = Vec::new();
        put_keys(&mut bytes, &keys, Duration::from_secs(3), true);
        assert_eq!(read_keys(&bytes).unwrap(), (keys, Duration::from_secs(3), true));
        assert!(read_keys(&bytes[..bytes.len() - 1]).is_none());
    }

    #[test]
    fn what_is_said_is_heard_whole_and_one_at_a_time() {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut near, mut far) = (Link::new(near), Link::new(far));
        let long = vec![7_u8; 100_000];
        let heard = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                near.send(SET, |out| out.extend_from_slice(&long)).unwrap();
                // The next word comes after the answer to this one.
                heard.wait();
                near.send(JSON, |_| {}).unwrap();
            });
            let (kind, body) = far.receive().unwrap().unwrap();
            assert_eq!((kind, body.len()), (SET, long.len()));
            heard.wait();
            assert_eq!(far.receive().unwrap().unwrap().0, JSON);
        });
        drop(near);
        assert!(far.receive().unwrap().is_none());
    }

    #[test]
    fn a_length_that_nobody_says_ends_the_conversation() {
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(&[255, 255, 255, 255, 1]).unwrap();
        assert!(Link::new(far).receive().is_err());
    }
}
