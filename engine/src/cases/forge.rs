//! From the steps of a script to Ethernet frames that any reader of captures accepts.

use super::script::{Act, Message, ScriptError, Step};
use sekisho_schema::Timestamp;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// When the first frame of a case is seen: 2026-01-01T00:00:00Z in nanoseconds.
const START: i64 = 1_767_225_600_000_000_000;
/// Payload of one segment over Ethernet with IPv6, without options.
const SEGMENT: usize = 1440;
/// Longest payload of one datagram.
const DATAGRAM: usize = 65_000;
/// Bytes of all frames of a case: a line can ask for ten thousand times a mebibyte.
const MOST_BYTES: usize = 64 << 20;
/// The same on the wire, where a capture keeps less: the least pull that counts as one is 100 MB.
const MOST_ON_WIRE: usize = 128 << 20;

/// A frame that owns its bytes, link type Ethernet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgedFrame {
    /// Nanoseconds since the Unix epoch, UTC.
    pub at_ns: i64,
    /// The bytes that were captured.
    pub bytes: Vec<u8>,
    /// How many there were on the wire.
    pub wire_len: u32,
}

/// What a flow is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Icmp,
    Other(u8),
    Tcp,
    Udp,
}

struct Flow {
    transport: Transport,
    left: SocketAddr,
    right: SocketAddr,
    /// Next sequence numbers from left and from right.
    next: [u32; 2],
    /// Identifier of the next DNS question, and the last question.
    dns_id: u16,
}

struct Forge {
    at: i64,
    frames: Vec<ForgedFrame>,
    /// Bytes of the frames.
    bytes: usize,
    /// The same on the wire.
    on_wire: usize,
    /// Bytes that are captured of a frame.
    snap: usize,
    flow: Option<Flow>,
}

const SYN: u8 = 2;
const ACK: u8 = 0x10;
const PSH: u8 = 8;

pub(super) fn forge(
    steps: &[Step],
    at: Option<Timestamp>,
) -> Result<Vec<ForgedFrame>, ScriptError> {
    let at = at.map_or(START, Timestamp::nanos);
    let (frames, snap) = (Vec::new(), usize::MAX);
    let mut forge = Forge { at, frames, bytes: 0, on_wire: 0, snap, flow: None };
    for step in steps {
        let refuse = |why: String| ScriptError { line: step.line, why };
        match &step.act {
            Act::Open { transport, left, right, midstream } => {
                forge.open(*transport, *left, *right, *midstream);
            }
            Act::Send { from_left, message, split, repeat, snap } => {
                forge.snap = *snap;
                for _ in 0..*repeat {
                    forge.wait(step.after);
                    forge.send(*from_left, message, split).map_err(refuse)?;
                }
            }
        }
    }
    Ok(forge.frames)
}

impl Forge {
    fn wait(&mut self, span: Duration) {
        self.at = self.at.saturating_add(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX));
    }

    fn open(&mut self, transport: Transport, left: SocketAddr, right: SocketAddr, midstream: bool) {
        let mut flow = Flow { transport, left, right, next: [1000, 5000], dns_id: 1 };
        if transport == Transport::Tcp && !midstream {
            for (from_left, flags) in [(true, SYN), (false, SYN | ACK), (true, ACK)] {
                let bytes = flow.segment(from_left, flags, &[]);
                if flags & SYN != 0 {
                    flow.advance(from_left, 1);
                }
                self.push(bytes);
            }
        }
        self.flow = Some(flow);
    }

    fn push(&mut self, mut bytes: Vec<u8>) {
        let wire_len = bytes.len() as u32;
        self.on_wire += bytes.len();
        if bytes.len() > self.snap {
            bytes.truncate(self.snap);
            bytes.shrink_to_fit();
        }
        self.bytes += bytes.len();
        self.frames.push(ForgedFrame { at_ns: self.at, bytes, wire_len });
        self.at = self.at.saturating_add(1_000_000);
    }

    fn send(&mut self, from_left: bool, message: &Message, split: &[usize]) -> Result<(), String> {
        let flow = self.flow.as_mut().ok_or("nothing is open to send in")?;
        let payload = flow.payload(message)?;
        let frames: Vec<Vec<u8>> = if flow.transport == Transport::Tcp {
            pieces(&payload, split)
                .into_iter()
                .map(|piece| {
                    let bytes = flow.segment(from_left, PSH | ACK, piece);
                    flow.advance(from_left, piece.len() as u32);
                    bytes
                })
                .collect()
        } else if payload.len() > DATAGRAM {
            return Err(format!("a datagram carries at most {DATAGRAM} bytes"));
        } else {
            vec![flow.datagram(from_left, &payload)]
        };
        for bytes in frames {
            self.push(bytes);
        }
        if self.bytes > MOST_BYTES {
            return Err(format!("a case has at most {MOST_BYTES} bytes of frames"));
        }
        if self.on_wire > MOST_ON_WIRE {
            return Err(format!("a case has at most {MOST_ON_WIRE} bytes on the wire"));
        }
        Ok(())
    }
}

/// Cuts at the given places, then to the size of segments.
fn pieces<'a>(payload: &'a [u8], split: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let (mut rest, mut done) = (payload, 0);
    for at in split {
        if let Some((piece, after)) = rest.split_at_checked(at.saturating_sub(done)) {
            pieces.extend(piece.chunks(SEGMENT));
            (rest, done) = (after, *at);
        }
    }
    pieces.extend(rest.chunks(SEGMENT));
    pieces
}

impl Flow {
    fn advance(&mut self, from_left: bool, by: u32) {
        if let Some(next) = self.next.get_mut(usize::from(!from_left)) {
            *next = next.wrapping_add(by);
        }
    }

    fn ends(&self, from_left: bool) -> (SocketAddr, SocketAddr) {
        if from_left { (self.left, self.right) } else { (self.right, self.left) }
    }

    fn segment(&self, from_left: bool, flags: u8, payload: &[u8]) -> Vec<u8> {
        let (from, to) = self.ends(from_left);
        let [left, right] = self.next;
        let (seq, ack) = if from_left { (left, right) } else { (right, left) };
        let ack = if flags & ACK == 0 { 0 } else { ack };
        let mut body = Vec::with_capacity(20 + payload.len());
        body.extend_from_slice(&from.port().to_be_bytes());
        body.extend_from_slice(&to.port().to_be_bytes());
        body.extend_from_slice(&seq.to_be_bytes());
        body.extend_from_slice(&ack.to_be_bytes());
        body.extend_from_slice(&[0x50, flags, 0xFF, 0xFF, 0, 0, 0, 0]);
        body.extend_from_slice(payload);
        frame(from.ip(), to.ip(), 6, body, Some(16))
    }

    fn datagram(&self, from_left: bool, payload: &[u8]) -> Vec<u8> {
        let (from, to) = self.ends(from_left);
        match self.transport {
            Transport::Udp | Transport::Tcp => {
                let mut body = Vec::with_capacity(8 + payload.len());
                body.extend_from_slice(&from.port().to_be_bytes());
                body.extend_from_slice(&to.port().to_be_bytes());
                body.extend_from_slice(&((payload.len() + 8) as u16).to_be_bytes());
                body.extend_from_slice(&[0, 0]);
                body.extend_from_slice(payload);
                frame(from.ip(), to.ip(), 17, body, Some(6))
            }
            Transport::Icmp if from.is_ipv4() => {
                let mut body = payload.to_vec();
                let sum = checksum(&[&body]);
                if let Some(field) = body.get_mut(2..4) {
                    field.copy_from_slice(&sum.to_be_bytes());
                }
                frame(from.ip(), to.ip(), 1, body, None)
            }
            Transport::Icmp => frame(from.ip(), to.ip(), 58, payload.to_vec(), Some(2)),
            Transport::Other(number) => frame(from.ip(), to.ip(), number, payload.to_vec(), None),
        }
    }

    fn payload(&mut self, message: &Message) -> Result<Vec<u8>, String> {
        match message {
            Message::Bytes(bytes) => Ok(bytes.clone()),
            Message::Echo { request, id, seq, payload } => {
                if self.transport != Transport::Icmp {
                    return Err("an echo travels in icmp".to_owned());
                }
                let kind = match (self.left.is_ipv4(), *request) {
                    (true, true) => 8,
                    (true, false) => 0,
                    (false, true) => 128,
                    (false, false) => 129,
                };
                let mut bytes = vec![kind, 0, 0, 0];
                bytes.extend_from_slice(&id.to_be_bytes());
                bytes.extend_from_slice(&seq.to_be_bytes());
                bytes.extend_from_slice(payload);
                Ok(bytes)
            }
            Message::Question { qtype, name } => {
                let id = self.dns_id;
                self.dns_id = id.wrapping_add(1);
                let mut bytes = id.to_be_bytes().to_vec();
                bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
                question(&mut bytes, name, *qtype)?;
                Ok(self.framed(bytes))
            }
            Message::Answer { qtype, name, data, ttl } => {
                let id = self.dns_id.wrapping_sub(1);
                let mut bytes = id.to_be_bytes().to_vec();
                bytes.extend_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
                question(&mut bytes, name, *qtype)?;
                bytes.extend_from_slice(&[0xC0, 12]);
                bytes.extend_from_slice(&qtype.to_be_bytes());
                bytes.extend_from_slice(&[0, 1]);
                bytes.extend_from_slice(&ttl.to_be_bytes());
                let data = rdata(*qtype, data)?;
                bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
                bytes.extend_from_slice(&data);
                Ok(self.framed(bytes))
            }
        }
    }

    /// DNS over TCP has its length before it (RFC 1035 §4.2.2).
    fn framed(&self, message: Vec<u8>) -> Vec<u8> {
        if self.transport != Transport::Tcp {
            return message;
        }
        let mut framed = (message.len() as u16).to_be_bytes().to_vec();
        framed.extend_from_slice(&message);
        framed
    }
}

fn question(bytes: &mut Vec<u8>, name: &str, qtype: u16) -> Result<(), String> {
    name_bytes(bytes, name)?;
    bytes.extend_from_slice(&qtype.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    Ok(())
}

fn name_bytes(bytes: &mut Vec<u8>, name: &str) -> Result<(), String> {
    for label in name.trim_end_matches('.').split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err(format!("{name} is no domain name"));
        }
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    Ok(())
}

fn rdata(qtype: u16, data: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    match (qtype, data.parse::<IpAddr>()) {
        (1, Ok(IpAddr::V4(address))) => out.extend_from_slice(&address.octets()),
        (28, Ok(IpAddr::V6(address))) => out.extend_from_slice(&address.octets()),
        (1 | 28, _) => return Err(format!("{data} is no address of such a record")),
        (2 | 5, _) => name_bytes(&mut out, data)?,
        (15, _) => {
            out.extend_from_slice(&[0, 10]);
            name_bytes(&mut out, data)?;
        }
        (16, _) => {
            for piece in data.as_bytes().chunks(255) {
                out.push(piece.len() as u8);
                out.extend_from_slice(piece);
            }
        }
        _ => out.extend_from_slice(data.as_bytes()),
    }
    Ok(out)
}

/// Ethernet and IP around a body; the checksum of the transport goes where it says, if it has one.
fn frame(
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    mut body: Vec<u8>,
    sum_at: Option<usize>,
) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    let length = (body.len() as u16).to_be_bytes();
    let mut pseudo = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            pseudo.extend_from_slice(&from.octets());
            pseudo.extend_from_slice(&to.octets());
        }
        (from, to) => {
            for address in [from, to] {
                if let IpAddr::V6(address) = address {
                    pseudo.extend_from_slice(&address.octets());
                }
            }
        }
    }
    pseudo.extend_from_slice(&[0, protocol]);
    pseudo.extend_from_slice(&length);
    if let Some(field) = sum_at.map(|at| at..at + 2) {
        let sum = checksum(&[&pseudo, &body]);
        if let Some(field) = body.get_mut(field) {
            field.copy_from_slice(&sum.to_be_bytes());
        }
    }
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            bytes.extend_from_slice(&[8, 0]);
            let mut head = vec![0x45, 0];
            head.extend_from_slice(&((body.len() + 20) as u16).to_be_bytes());
            head.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
            head.extend_from_slice(&from.octets());
            head.extend_from_slice(&to.octets());
            let sum = checksum(&[&head]);
            if let Some(field) = head.get_mut(10..12) {
                field.copy_from_slice(&sum.to_be_bytes());
            }
            bytes.extend_from_slice(&head);
        }
        _ => {
            bytes.extend_from_slice(&[0x86, 0xDD, 0x60, 0, 0, 0]);
            bytes.extend_from_slice(&length);
            bytes.extend_from_slice(&[protocol, 64]);
            bytes.extend_from_slice(pseudo.get(..32).unwrap_or_default());
        }
    }
    bytes.extend_from_slice(&body);
    bytes
}

/// The Internet checksum (RFC 1071) over joined parts, of which all but the last are of even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            let word = match pair {
                [high, low] => u16::from_be_bytes([*high, *low]),
                [high] => u16::from_be_bytes([*high, 0]),
                _ => 0,
            };
            sum += u32::from(word);
        }
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}
