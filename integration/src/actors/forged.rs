//! Captures written byte by byte: PlugX on every transport, in every segmentation and encapsulation
//! of the published text, with the number of the frame that first makes it knowable.
//!
//! In come conversations in words; out comes a capture and, for each, that number. It must not know
//! the engine: what a frame makes knowable is computed from the text alone.

use super::message::{Message, Setting};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// What the frames travel in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// Ethernet and IPv4.
    Plain,
    /// One VLAN tag (IEEE 802.1Q).
    Vlan,
    /// IPv4 in GRE (RFC 2784) in IPv4.
    Gre,
    /// IPv6.
    Ipv6,
}

/// Every wrapping by name.
pub const WRAPPINGS: [(&str, Wrapping); 4] = [
    ("plain", Wrapping::Plain),
    ("VLAN", Wrapping::Vlan),
    ("GRE", Wrapping::Gre),
    ("IPv6", Wrapping::Ipv6),
];

/// How the bytes of one side are cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Each message in a segment of its own.
    Whole,
    /// Header and body in two segments.
    Split,
    /// The first two messages in one segment.
    TwoInOne,
    /// One byte in each.
    OneByte,
    /// In three pieces of which the second comes first and the first last.
    Reordered,
}

/// Every cut by name.
pub const CUTS: [(&str, Cut); 5] = [
    ("one send", Cut::Whole),
    ("split header", Cut::Split),
    ("two messages in a segment", Cut::TwoInOne),
    ("1-byte segments", Cut::OneByte),
    ("reordered", Cut::Reordered),
];

/// One end of a conversation by its last number.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    port: u16,
}

impl Peer {
    /// A host inside.
    #[must_use]
    pub const fn inside(port: u16) -> Self {
        let v6 = Ipv6Addr::new(0xFD00, 0, 0, 0, 0, 0, 0, 5);
        Self { v4: Ipv4Addr::new(10, 0, 0, 5), v6, port }
    }

    /// The host outside with a number, so that each conversation has one of its own.
    #[must_use]
    pub const fn outside(number: u16, port: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        let v6 = Ipv6Addr::new(0x2A0F, 0x4242, 0, 0, 0, 0, 0, number);
        Self { v4: Ipv4Addr::new(45, 32, high, low), v6, port }
    }

    /// The address that it has in a wrapping.
    #[must_use]
    pub fn address(&self, wrapping: Wrapping) -> IpAddr {
        match wrapping {
            Wrapping::Ipv6 => IpAddr::V6(self.v6),
            Wrapping::Gre | Wrapping::Plain | Wrapping::Vlan => IpAddr::V4(self.v4),
        }
    }
}

/// A capture in the making.
#[derive(Debug, Default)]
pub struct Forgery {
    frames: Vec<Vec<u8>>,
}

impl Forgery {
    /// Frames so far: the number of the last.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.frames.len() as u64
    }

    /// Whether there is none yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Writes the capture (pcap with nanoseconds, Ethernet), a millisecond between frames.
    ///
    /// # Panics
    /// If the file can't be written.
    pub fn write(&self, path: &Path) {
        let mut out = Vec::new();
        for word in [0xA1B2_3C4D_u32, 0x0004_0002, 0, 0, 0x4_0000, 1] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for (n, frame) in (0_u32..).zip(&self.frames) {
            let length = u32::try_from(frame.len()).expect("a frame is short");
            for word in [1_780_000_000 + n / 1000, n % 1000 * 1_000_000, length, length] {
                out.extend_from_slice(&word.to_le_bytes());
            }
            out.extend_from_slice(frame);
        }
        std::fs::write(path, out).expect("a capture is written");
    }

    /// Puts an IP payload into a frame.
    fn packet(&mut self, wrapping: Wrapping, protocol: u8, from: Peer, to: Peer, body: &[u8]) {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        match wrapping {
            Wrapping::Plain => frame.extend_from_slice(&[8, 0]),
            Wrapping::Vlan => frame.extend_from_slice(&[0x81, 0, 0, 42, 8, 0]),
            Wrapping::Gre => {
                frame.extend_from_slice(&[8, 0]);
                let (a, b) = (Ipv4Addr::new(10, 9, 9, 1), Ipv4Addr::new(192, 0, 2, 1));
                frame.extend_from_slice(&ipv4(47, a, b, 4 + 20 + body.len()));
                frame.extend_from_slice(&[0, 0, 8, 0]);
            }
            Wrapping::Ipv6 => frame.extend_from_slice(&[0x86, 0xDD]),
        }
        if wrapping == Wrapping::Ipv6 {
            frame.extend_from_slice(&[0x60, 0, 0, 0]);
            frame.extend_from_slice(&size(body.len()));
            frame.extend_from_slice(&[protocol, 64]);
            frame.extend_from_slice(&from.v6.octets());
            frame.extend_from_slice(&to.v6.octets());
        } else {
            frame.extend_from_slice(&ipv4(protocol, from.v4, to.v4, body.len()));
        }
        frame.extend_from_slice(body);
        self.frames.push(frame);
    }

    /// A datagram; returns its number.
    pub fn udp(&mut self, wrapping: Wrapping, from: Peer, to: Peer, payload: &[u8]) -> u64 {
        let ports = [from.port.to_be_bytes(), to.port.to_be_bytes()].concat();
        let body = [&ports[..], &size(8 + payload.len()), &[0, 0], payload].concat();
        self.packet(wrapping, 17, from, to, &body);
        self.len()
    }

    /// A packet of IP protocol 255; returns its number.
    pub fn raw(&mut self, wrapping: Wrapping, from: Peer, to: Peer, payload: &[u8]) -> u64 {
        self.packet(wrapping, 255, from, to, payload);
        self.len()
    }

    /// An echo request; returns its number.
    pub fn echo(&mut self, wrapping: Wrapping, from: Peer, to: Peer, payload: &[u8]) -> u64 {
        let (protocol, kind) = if wrapping == Wrapping::Ipv6 { (58, 128) } else { (1, 8) };
        let body = [&[kind, 0, 0, 0, 0, 7, 0, 1], payload].concat();
        self.packet(wrapping, protocol, from, to, &body);
        self.len()
    }

    /// Opens a connection.
    pub fn connect(&mut self, wrapping: Wrapping, client: Peer, server: Peer) -> Connection {
        let mut connection = Connection { wrapping, ends: [client, server], next: [101, 901] };
        connection.segment(self, 0, 2, (100, 0), &[]);
        connection.segment(self, 1, 0x12, (900, 101), &[]);
        connection.segment(self, 0, 0x10, (101, 901), &[]);
        connection
    }
}

/// A connection.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    wrapping: Wrapping,
    /// Client and server.
    ends: [Peer; 2],
    /// Next sequence number of each.
    next: [u32; 2],
}

impl Connection {
    fn segment(
        &mut self,
        into: &mut Forgery,
        side: usize,
        flags: u8,
        (seq, ack): (u32, u32),
        payload: &[u8],
    ) {
        let (from, to) = (self.ends[side], self.ends[1 - side]);
        let body = [
            &from.port.to_be_bytes()[..],
            &to.port.to_be_bytes(),
            &seq.to_be_bytes(),
            &ack.to_be_bytes(),
            &[0x50, flags, 0xFF, 0xFF, 0, 0, 0, 0],
            payload,
        ]
        .concat();
        into.packet(self.wrapping, 6, from, to, &body);
    }

    /// One side says something in one segment; returns its number.
    pub fn say(&mut self, into: &mut Forgery, side: usize, payload: &[u8]) -> u64 {
        self.say_at(into, side, 0, payload);
        self.next[side] += u32::try_from(payload.len()).expect("a segment is short");
        into.len()
    }

    /// A segment `ahead` bytes behind what was said; what it takes part in is said when all came.
    fn say_at(&mut self, into: &mut Forgery, side: usize, ahead: u32, payload: &[u8]) {
        let at = (self.next[side] + ahead, self.next[1 - side]);
        self.segment(into, side, 0x18, at, payload);
    }

    /// The client says `messages`, cut as told; returns the number of the frame with which the first
    /// `needed` bytes are all there. `header` bytes stand before a body that is cut off by itself.
    pub fn say_cut(
        &mut self,
        into: &mut Forgery,
        cut: Cut,
        messages: &[Vec<u8>],
        (header, needed): (usize, usize),
    ) -> u64 {
        let all = messages.concat();
        let first = messages.first().map_or(0, Vec::len);
        let ends: Vec<usize> = match cut {
            Cut::TwoInOne => vec![all.len()],
            Cut::OneByte => (1..=all.len()).collect(),
            Cut::Whole => messages
                .iter()
                .scan(0, |at, one| {
                    *at += one.len();
                    Some(*at)
                })
                .collect(),
            Cut::Split if header < first => vec![header, first, all.len()],
            // A header without a body is cut in its middle.
            Cut::Split => vec![7, first, all.len()],
            Cut::Reordered => return self.say_reordered(into, &all),
        };
        let (mut from, mut known) = (0, 0);
        for to in ends.into_iter().filter(|to| *to > 0) {
            if to <= from {
                continue;
            }
            let number = self.say(into, 0, &all[from..to]);
            if known == 0 && to >= needed {
                known = number;
            }
            from = to;
        }
        known
    }

    /// Three pieces, the second first and the first last: nothing is known before the last frame.
    fn say_reordered(&mut self, into: &mut Forgery, all: &[u8]) -> u64 {
        let (one, two) = (5.min(all.len()), 12.min(all.len()));
        for (from, to) in [(one, two), (two, all.len()), (0, one)] {
            if from < to {
                let ahead = u32::try_from(from).expect("a piece is short");
                self.say_at(into, 0, ahead, &all[from..to]);
            }
        }
        self.next[0] += u32::try_from(all.len()).expect("a message is short");
        into.len()
    }
}

fn size(length: usize) -> [u8; 2] {
    u16::try_from(length).expect("a packet is short").to_be_bytes()
}

fn ipv4(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, length: usize) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend_from_slice(&size(20 + length));
    header.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
    header.extend_from_slice(&from.octets());
    header.extend_from_slice(&to.octets());
    header
}

/// Base64 (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits =
            (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(*three.get(at).unwrap_or(&0)));
        for at in 0..4 {
            let digit = char::from(digits[(bits >> (18 - 6 * at) & 63) as usize]);
            text.push(if at <= three.len() { digit } else { '=' });
        }
    }
    text
}

/// The cookie of plugx.md 1.4: a key, then session, sequence number, build date and 61456.
#[must_use]
pub fn cookie(setting: Setting, key: u32, sequence: u32) -> String {
    let stream = setting.cipher.keystream(key, 20);
    let skip = if setting.after_key { 0 } else { 4 };
    let plain = [0, sequence, 20_130_923, 0xF010].map(u32::to_le_bytes).concat();
    let enciphered = plain.iter().zip(&stream[skip..]).map(|(byte, pad)| byte ^ pad);
    let bytes: Vec<u8> = key.to_le_bytes().into_iter().chain(enciphered).collect();
    base64(&bytes)
}

/// The names of the four numbered fields in the published captures and rules, and one unknown set.
pub const FIELD_NAMES: [[&str; 4]; 5] = [
    ["X-Session", "X-Status", "X-Size", "X-Sn"],
    ["HHV1", "HHV2", "HHV3", "HHV4"],
    ["CG100", "CG103", "CG107", "CG108"],
    ["x-debug", "x-request", "x-content", "x-storage"],
    ["QWER3", "QWER1", "QWER4", "QWER2"],
];

/// A request head; `length` bytes of body follow it.
#[must_use]
pub fn request(
    line: &str,
    names: Option<[&str; 4]>,
    cookie: Option<&str>,
    length: usize,
) -> Vec<u8> {
    let mut head = format!("{line} HTTP/1.1\r\nAccept: */*\r\n");
    for (name, value) in names.into_iter().flatten().zip(["0", "0", "61456", "1"]) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(cookie) = cookie {
        head.push_str(&format!("Cookie: {cookie}\r\n"));
    }
    head.push_str(&format!(
        "User-Agent: Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 5.1;SV1;\r\nHost: c2.example\r\n\
         Content-Length: {length}\r\nConnection: Keep-Alive\r\nCache-Control: no-cache\r\n\r\n"
    ));
    head.into_bytes()
}

/// The two messages that an implant says first (plugx.md, section 5, recipe 1): probe and machine.
#[must_use]
pub fn opening(setting: Setting, keys: [u32; 2]) -> [Vec<u8>; 2] {
    let machine =
        super::message::wide("WEB-1\0www-data\0Microsoft Windows Server 2012 R2 Standard");
    [
        Message::empty(0).encipher(setting, keys[0]),
        Message { command: 1, body: machine }.encipher(setting, keys[1]),
    ]
}
