//! Reading captures back, apart from the engine: which frame carried the first payload to whom.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

/// A TCP segment over IPv4 in a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Number of the frame, from 1.
    pub frame: u64,
    /// Kernel time stamp, nanoseconds since the epoch.
    pub at_ns: i64,
    /// From where.
    pub from: SocketAddr,
    /// To where.
    pub to: SocketAddr,
    /// Bytes of payload.
    pub payload: usize,
}

/// Every TCP segment over IPv4 on Ethernet, in order.
#[must_use]
pub fn segments(path: &Path) -> Vec<Segment> {
    let mut capture = pcap::Capture::from_file_with_precision(path, pcap::Precision::Nano)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let mut found = Vec::new();
    let mut frame = 0;
    while let Ok(packet) = capture.next_packet() {
        frame += 1;
        let (data, time) = (packet.data, packet.header.ts);
        // With nanosecond precision the field named for microseconds holds nanoseconds.
        let at_ns = time.tv_sec * 1_000_000_000 + time.tv_usec;
        if data.len() < 54 || data[12..14] != [8, 0] || data[23] != 6 {
            continue;
        }
        let ip = usize::from(data[14] & 15) * 4;
        let total = usize::from(u16::from_be_bytes([data[16], data[17]]));
        let tcp = 14 + ip;
        let word = |at: usize| u16::from_be_bytes([data[at], data[at + 1]]);
        let address = |at: usize| {
            IpAddr::V4(Ipv4Addr::new(data[at], data[at + 1], data[at + 2], data[at + 3]))
        };
        let offset = usize::from(data[tcp + 12] >> 4) * 4;
        found.push(Segment {
            frame,
            at_ns,
            from: SocketAddr::new(address(26), word(tcp)),
            to: SocketAddr::new(address(30), word(tcp + 2)),
            payload: total.saturating_sub(ip + offset),
        });
    }
    found
}

/// Copies a capture, each frame through `change` (which may spoil it).
pub fn rewrite(from: &Path, to: &Path, mut change: impl FnMut(usize, &mut Vec<u8>)) {
    let bytes = std::fs::read(from).expect("a capture");
    let (header, mut rest) = bytes.split_at(24);
    let mut out = header.to_vec();
    let mut number = 0;
    while rest.len() >= 16 {
        let (head, tail) = rest.split_at(16);
        let size = usize::try_from(u32::from_le_bytes([head[8], head[9], head[10], head[11]]))
            .expect("a size");
        let mut frame = tail[..size].to_vec();
        number += 1;
        change(number, &mut frame);
        assert_eq!(frame.len(), size, "a frame keeps its length");
        out.extend_from_slice(head);
        out.extend_from_slice(&frame);
        rest = &tail[size..];
    }
    std::fs::write(to, out).expect("a capture");
}
