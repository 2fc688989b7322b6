//! Enters: frames, from interfaces ([`live`]), capture files ([`pcapfile`]) or the kernel's log of what it
//! dropped ([`refused`]). Leaves: the
//! engine's [`Frame`]s with the clock of the capture, and counts of what was lost.
//! Must not know: what becomes of a frame (`enforce`, `sync`).

pub mod live;
pub mod pcapfile;
pub mod refused;
mod split;

use sekisho_engine::wire::{Frame, LinkType};

/// The frame in a packet of the capture library, whose clock has nanoseconds.
#[must_use]
pub fn frame_of<'a>(packet: &pcap::Packet<'a>, link: LinkType) -> Frame<'a> {
    let ts = packet.header.ts;
    let at_ns = ts.tv_sec.saturating_mul(1_000_000_000).saturating_add(ts.tv_usec);
    Frame { at_ns, link, wire_len: packet.header.len, bytes: packet.data }
}
