//! Packets that the kernel dropped for their destination, from its packet log (NFLOG): they never reach a
//! device, so no capture sees them, and an attempt must be told all the same.
//!
//! The group is bound by the guardian, which may; libpcap's `nflog` devices would also make themselves the logger
//! of the address families for everybody else's rules.

use crate::netlink::{attribute, attributes, big_endian, u16_at, u32_at};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use sekisho_engine::wire::{Frame, LinkType};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// A packet of the packet log (`linux/netfilter/nfnetlink_log.h`), within subsystem 4 of nfnetlink.
const PACKET: u16 = 4 << 8;
/// Attributes of a packet: time stamp and payload.
const TIMESTAMP: u16 = 3;
const PAYLOAD: u16 = 9;
/// The kernel sends one packet a message; with several it fills a page or two.
const RECEIVE_BYTES: usize = 64 * 1024;

/// The packet log of one group.
pub struct RefusedLog {
    /// Replies to the configuration and packets come by one socket.
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl RefusedLog {
    /// Reads a socket that whoever may has bound to a group; it must not block.
    #[must_use]
    pub fn over(socket: OwnedFd) -> Self {
        Self { socket, buffer: vec![0; RECEIVE_BYTES] }
    }

    /// The descriptor that becomes readable when a packet was dropped.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Shows each packet that is there; `now` is the time of those whose stamp the kernel does not tell.
    ///
    /// # Errors
    /// What the system says; packets were lost (`ENOBUFS`) or the log is gone.
    pub fn read(
        &mut self,
        now: impl Fn() -> i64,
        mut show: impl FnMut(Frame<'_>),
    ) -> io::Result<()> {
        // More than the kernel's own limit lets come at once: what is left would wait for the next one.
        for _ in 0..1024 {
            let length = match recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for packet in packets(self.buffer.get(..length).unwrap_or_default()) {
                show(packet.frame(&now));
            }
        }
        Ok(())
    }
}

/// A packet as the log tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Logged<'a> {
    at_ns: Option<i64>,
    bytes: &'a [u8],
}

impl<'a> Logged<'a> {
    fn frame(&self, now: &impl Fn() -> i64) -> Frame<'a> {
        Frame {
            at_ns: self.at_ns.unwrap_or_else(now),
            link: LinkType::RawIp,
            wire_len: self.wire_len(),
            bytes: self.bytes,
        }
    }

    /// The length that the IP header states: the log may have cut the packet.
    fn wire_len(&self) -> u32 {
        let at = |at: usize| self.bytes.get(at..at + 2).map_or(0, |part| big_endian(part) as u32);
        let said = match self.bytes.first().map(|byte| byte >> 4) {
            Some(4) => at(2),
            Some(6) => at(4) + 40,
            _ => 0,
        };
        said.max(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX))
    }
}

/// The packets of a datagram; what is malformed ends it.
fn packets(mut bytes: &[u8]) -> impl Iterator<Item = Logged<'_>> {
    std::iter::from_fn(move || {
        loop {
            let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
            let message = bytes.get(..length).filter(|_| length >= 16)?;
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
            // After the netlink header and nfgenmsg.
            if let (Some(PACKET), Some(body)) = (u16_at(message, 4), message.get(20..))
                && let Some(bytes) = attribute(body, PAYLOAD)
            {
                return Some(Logged { at_ns: stamp(body), bytes });
            }
        }
    })
}

/// `struct nfulnl_msg_packet_timestamp`: seconds and microseconds, eight bytes each, in network order.
fn stamp(body: &[u8]) -> Option<i64> {
    let (_, value) = attributes(body).find(|(kind, _)| *kind == TIMESTAMP)?;
    let seconds = i64::try_from(big_endian(value.get(..8)?)).ok()?;
    let micros = i64::try_from(big_endian(value.get(8..16)?)).ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(micros.checked_mul(1_000)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Writer;

    fn message(kind: u16, parts: &[(u16, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::default();
        let open = writer.message(kind, 0, 0, &[2, 0, 0, 7]);
        for (kind, value) in parts {
            writer.attribute(*kind, value);
        }
        writer.end_message(&open);
        writer.as_bytes().to_vec()
    }

    #[test]
    fn a_packet_is_read_with_its_time_and_its_whole_length() {
        let mut packet = vec![0x45, 0, 5, 0xdc];
        packet.resize(60, 0);
        let time: Vec<u8> = [7_u64, 9].iter().flat_map(|part| part.to_be_bytes()).collect();
        let bytes = [
            message(PACKET, &[(1, &[0; 4]), (PAYLOAD, &packet)]),
            message(3, &[(PAYLOAD, &[1])]),
            message(PACKET, &[(TIMESTAMP, &time), (PAYLOAD, &packet[..20])]),
        ]
        .concat();
        let frames: Vec<_> = packets(&bytes).map(|logged| logged.frame(&|| 5)).collect();
        assert_eq!(frames.len(), 2);
        assert_eq!((frames[0].at_ns, frames[0].wire_len, frames[0].bytes), (5, 1500, &packet[..]));
        assert_eq!((frames[1].at_ns, frames[1].link), (7_000_009_000, LinkType::RawIp));
    }

    #[test]
    fn what_is_cut_short_or_lies_about_its_length_ends_the_reading() {
        let whole = message(PACKET, &[(TIMESTAMP, &[1; 16]), (PAYLOAD, &[0x60; 44])]);
        for end in 0..whole.len() {
            assert!(packets(&whole[..end]).all(|logged| logged.bytes.len() <= 44));
        }
        for byte in 0..whole.len() {
            let mut bent = whole.clone();
            bent[byte] ^= 0xff;
            packets(&bent).for_each(|logged| {
                let _read = logged.frame(&|| 0);
            });
        }
        assert_eq!(packets(&[0; 64]).count(), 0);
    }
}
