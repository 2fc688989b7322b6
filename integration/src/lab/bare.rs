//! The least that a cut costs on this machine: one element in one set, by a message that was prepared beforehand.
//!
//! A goal in microseconds says something of one machine only. The same goal as a multiple of this holds for all.

use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink, socket_with};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::Instant;

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
        // The key lies before the lease, which is the last: four bytes behind three headers.
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
