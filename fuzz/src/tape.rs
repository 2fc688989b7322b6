//! Frames in an input: each is a byte of how, perhaps a time, a length of two bytes, and its bytes.

use crate::input::Input;
use sekisho_engine::wire::{Frame, LinkType};

/// When the first frame is seen: 2026-01-01T00:00:00Z in nanoseconds.
pub(crate) const START: i64 = 1_767_225_600_000_000_000;
/// Link types by the three low bits of how.
pub(crate) const LINKS: [LinkType; 8] = [
    LinkType::Ethernet,
    LinkType::RawIp,
    LinkType::LinuxSll,
    LinkType::LinuxSll2,
    LinkType::Null,
    LinkType::Unsupported(7),
    LinkType::Ethernet,
    LinkType::RawIp,
];
/// Nanoseconds to the next frame by the next two bits: the last goes back.
const STEPS: [i64; 4] = [1_000_000, 1_000_000_000, 3_600_000_000_000, -2_000_000_000];
/// More of the frame was on the wire than was captured.
const CUT: u8 = 0x20;
/// The time is told, in nanoseconds since the Unix epoch.
const AT: u8 = 0x80;

pub(crate) fn frames(bytes: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let mut input = Input::new(bytes);
    let mut at = START;
    std::iter::from_fn(move || {
        if input.is_empty() {
            return None;
        }
        let how = input.byte();
        let step = STEPS.get(usize::from(how >> 3 & 3)).copied().unwrap_or_default();
        at = if how & AT != 0 { input.long() } else { at.saturating_add(step) };
        let link = LINKS.get(usize::from(how & 7)).copied().unwrap_or(LinkType::Ethernet);
        let len = usize::from(input.short());
        let bytes = input.take(len);
        let missing = if how & CUT == 0 { 0 } else { 100 };
        Some(Frame { at_ns: at, link, wire_len: bytes.len() as u32 + missing, bytes })
    })
}

/// Writes a frame with a link type by its place in [`LINKS`], a millisecond after the one before.
pub(crate) fn write(out: &mut Vec<u8>, link: u8, bytes: &[u8]) {
    out.push(link);
    crate::input::write_pieces(out, [bytes]);
}
