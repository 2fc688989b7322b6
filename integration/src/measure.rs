//! What measurements of the engine share: frames in memory, this thread's CPU, this process's memory.

use rustix::time::{ClockId, clock_gettime};
use sekisho_engine::wire::{Frame, LinkType};
use std::path::Path;

/// Frames of a capture, in memory.
pub struct Loaded {
    link: LinkType,
    bytes: Vec<u8>,
    frames: Vec<(i64, u32, usize, usize)>,
}

impl Loaded {
    /// Reads a capture whole.
    ///
    /// # Panics
    /// When it can't be opened.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let mut capture = pcap::Capture::from_file(path).expect("the capture can be opened");
        let link = LinkType::from_dlt(capture.get_datalink().0);
        let (mut bytes, mut frames) = (Vec::new(), Vec::new());
        while let Ok(packet) = capture.next_packet() {
            let at = packet.header.ts.tv_sec * 1_000_000_000 + packet.header.ts.tv_usec * 1000;
            frames.push((at, packet.header.len, bytes.len(), packet.data.len()));
            bytes.extend_from_slice(packet.data);
        }
        Self { link, bytes, frames }
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.frames.len()
    }

    /// Every frame, in its order.
    pub fn frames(&self) -> impl DoubleEndedIterator<Item = Frame<'_>> + ExactSizeIterator {
        self.frames.iter().map(|(at, wire_len, from, len)| Frame {
            at_ns: *at,
            link: self.link,
            wire_len: *wire_len,
            bytes: self.bytes.get(*from..from + len).unwrap_or_default(),
        })
    }
}

/// CPU time of this thread, in nanoseconds.
#[must_use]
pub fn cpu() -> i64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Resident memory of this process, in bytes.
///
/// # Panics
/// Without /proc.
#[must_use]
pub fn resident() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has a size");
    let kib: i64 =
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number");
    kib * 1024
}
