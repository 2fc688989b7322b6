//! The least that a cut costs on this machine: one element in one set, by a message that was prepared beforehand.
//!
//! Beside a figure of ours in microseconds, its multiple of this tells the code from the machine.

use super::{Arguments, leash, now_ns, ready};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink, socket_with};
use serde_json::json;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Messages (linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h).
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
const ERROR: u16 = 2;
/// Flags: a request; acknowledged; created.
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const CREATE: u16 = 0x400;
const NESTED: u16 = 0x8000;
const INET: u8 = 1;
/// Its lease: elements of a measurement end by themselves too.
const LEASE_MS: u64 = 3_600_000;

/// A set of its own in this network namespace, and the one message that is sent again and again.
#[derive(Debug)]
pub struct BareCommit {
    socket: OwnedFd,
    batch: Vec<u8>,
    key_at: usize,
    answer: Vec<u8>,
}

impl BareCommit {
    /// Makes the set and prepares the message.
    ///
    /// # Panics
    /// Where nf_tables refuses a table.
    #[must_use]
    pub fn open() -> Self {
        for words in
            ["add table inet bare", "add set inet bare cut { type ipv4_addr ; flags timeout ; }"]
        {
            let made = Command::new("nft").args(words.split_whitespace()).status();
            assert!(made.expect("nft starts").success(), "nft {words}");
        }
        let kind = SocketType::RAW;
        let (family, flags) = (AddressFamily::NETLINK, SocketFlags::CLOEXEC);
        let socket = socket_with(family, kind, flags, Some(netlink::NETFILTER))
            .expect("a socket of nfnetlink");
        let mut batch = Vec::new();
        let subsystem = SUBSYSTEM.to_be_bytes();
        message(&mut batch, BATCH_BEGIN, 0, [0, 0, subsystem[0], subsystem[1]], &[]);
        let lease = attribute(4, &LEASE_MS.to_be_bytes());
        let key = attribute(1 | NESTED, &attribute(1, &[0; 4]));
        let element = attribute(1 | NESTED, &[key, lease].concat());
        let elements = attribute(3 | NESTED, &element);
        let body = [attribute(1, b"bare\0"), attribute(2, b"cut\0"), elements].concat();
        message(&mut batch, NEW_ELEMENT, CREATE | ACK, [INET, 0, 0, 0], &body);
        // The message ends with the four bytes of the key and then the lease: a header of four bytes and eight of time.
        let key_at = batch.len() - 12 - 4;
        message(&mut batch, BATCH_END, 0, [0, 0, subsystem[0], subsystem[1]], &[]);
        Self { socket, batch, key_at, answer: vec![0; 4096] }
    }

    /// Adds an address; the nanoseconds until the kernel acknowledged.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn commit(&mut self, address: Ipv4Addr) -> u64 {
        self.batch[self.key_at..self.key_at + 4].copy_from_slice(&address.octets());
        let began = Instant::now();
        let sent = rustix::io::write(&self.socket, &self.batch).expect("the batch is sent");
        assert_eq!(sent, self.batch.len(), "the batch goes in one piece");
        let read = rustix::io::read(&self.socket, &mut self.answer).expect("the kernel answers");
        let took = began.elapsed();
        let answer = &self.answer[..read];
        let kind = u16::from_ne_bytes([answer[4], answer[5]]);
        assert!(kind == ERROR && answer[16..20] == [0; 4], "refused: {answer:?}");
        u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// One attribute, padded.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).expect("a short attribute");
    let mut whole = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    whole.extend_from_slice(value);
    whole.resize(whole.len().next_multiple_of(4), 0);
    whole
}

fn message(batch: &mut Vec<u8>, kind: u16, flags: u16, head: [u8; 4], body: &[u8]) {
    let length = u32::try_from(16 + head.len() + body.len()).expect("a short message");
    batch.extend_from_slice(&length.to_ne_bytes());
    batch.extend_from_slice(&kind.to_ne_bytes());
    batch.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
    // Its number and the sender's: nobody else speaks on this socket.
    batch.extend_from_slice(&[0; 8]);
    batch.extend_from_slice(&head);
    batch.extend_from_slice(body);
}

/// `bare-cut --dev NAME --to ADDR`: answers `go N` with the nanoseconds of N cuts by somebody who decides nothing: from the
/// kernel's time stamp of a datagram to the acknowledgement of a bare commit, in a thread of class SCHED_FIFO.
pub fn bare_cut(arguments: &Arguments) {
    const PORT: u16 = 9;
    let (device, to) = (arguments.need("dev").to_owned(), arguments.need("to").to_owned());
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let capture = pcap::Capture::from_device(device.as_str()).and_then(|capture| {
            let capture = capture.immediate_mode(true).snaplen(128).timeout(1000);
            capture.precision(pcap::Precision::Nano).open()
        });
        let mut capture = capture.expect("a capture");
        capture.filter(&format!("udp dst port {PORT}"), true).expect("a filter");
        let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
        let raised = Command::new("chrt").args(["-f", "-p", "1", &thread]).status();
        assert!(raised.expect("chrt starts").success(), "root was refused SCHED_FIFO");
        let mut bare = BareCommit::open();
        tell.send(0).expect("whoever asks is there");
        let mut committed = 0;
        loop {
            let stamped = match capture.next_packet() {
                Ok(packet) => packet.header.ts,
                Err(pcap::Error::TimeoutExpired) => continue,
                Err(error) => panic!("the capture ended: {error}"),
            };
            bare.commit(Ipv4Addr::from_bits(0x6440_0000 + committed));
            let stamped = stamped.tv_sec as u64 * 1_000_000_000 + stamped.tv_usec as u64;
            committed += 1;
            if tell.send(now_ns().saturating_sub(stamped)).is_err() {
                return;
            }
        }
    });
    told.recv().expect("the capture is open");
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    leash(&ready(), |question| {
        let Some(times) = question.strip_prefix("go ").and_then(|n| n.parse::<u32>().ok()) else {
            return json!({"error": format!("unknown question {question}")});
        };
        let took = (0..times).map(|_| {
            std::thread::sleep(Duration::from_millis(20));
            socket.send_to(b"bare", (to.as_str(), PORT)).expect("a datagram");
            told.recv_timeout(Duration::from_secs(5)).expect("a cut")
        });
        json!({"took_ns": took.collect::<Vec<u64>>()})
    });
}
