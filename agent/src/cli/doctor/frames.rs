//! Packets of every kind that a safe program can send, and the eye that counts them at the other end.

use super::scratch::{FAR, FAR_MAC, FAR4, OWN, OWN_MAC, OWN4};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
use std::collections::BTreeSet;
use std::io::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// What every packet of ours carries before its number.
const MARK: &[u8; 8] = b"SKDOCTOR";
/// Port that nothing listens on (RFC 863: discard).
pub(super) const DISCARD: u16 = 9;
/// Bytes of a tag.
const TAG_BYTES: usize = 16;

/// A payload by which a packet is known, never the same twice.
pub(super) fn tag() -> (u64, Vec<u8>) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Relaxed);
    (number, [&MARK[..], &number.to_be_bytes()].concat())
}

/// Notes the numbers of packets of ours that arrive.
#[derive(Clone, Default)]
pub(super) struct Eye {
    seen: Arc<Mutex<BTreeSet<u64>>>,
    blind: Arc<AtomicBool>,
}

impl Eye {
    /// Watches the far end of the wire; must be called inside its namespace.
    pub(super) fn open(&self) -> Result<()> {
        let capture = pcap::Capture::from_device(FAR)
            .and_then(|capture| capture.immediate_mode(true).timeout(20).snaplen(256).open())
            .map_err(Error::other)?;
        let eye = self.clone();
        std::thread::Builder::new()
            .name("eye".to_owned())
            .spawn(move || eye.watch(capture))
            .map(drop)
    }

    fn watch(&self, mut capture: pcap::Capture<pcap::Active>) {
        while !self.blind.load(Relaxed) {
            let Ok(packet) = capture.next_packet() else { continue };
            for window in packet.data.windows(TAG_BYTES) {
                if let Some(number) =
                    window.strip_prefix(MARK).and_then(|rest| <[u8; 8]>::try_from(rest).ok())
                {
                    let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.insert(u64::from_be_bytes(number));
                }
            }
        }
    }

    /// Whether this packet arrived.
    pub(super) fn saw(&self, number: u64) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).contains(&number)
    }

    /// Ends the watch.
    pub(super) fn close(&self) {
        self.blind.store(true, Relaxed);
    }
}

/// A datagram to the discard port; what the kernel says of a cut is no fault.
pub(super) fn udp(to: IpAddr, payload: &[u8]) -> Result<()> {
    let any: IpAddr =
        if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let _ = UdpSocket::bind((any, 0))?.send_to(payload, (to, DISCARD));
    Ok(())
}

/// An echo request from a raw socket.
pub(super) fn icmp(to: IpAddr, payload: &[u8]) -> Result<()> {
    let (family, protocol, kind) = if to.is_ipv4() {
        (AddressFamily::INET, ipproto::ICMP, 8)
    } else {
        (AddressFamily::INET6, ipproto::ICMPV6, 128)
    };
    let mut packet = [&[kind, 0, 0, 0, 0, 1, 0, 1], payload].concat();
    if to.is_ipv4() {
        let sum = checksum(&packet);
        if let Some(place) = packet.get_mut(2..4) {
            place.copy_from_slice(&sum.to_be_bytes());
        }
    }
    let socket = socket(family, SocketType::RAW, Some(protocol))?;
    let _ = sendto(&socket, &packet, SendFlags::empty(), &SocketAddr::new(to, 0));
    Ok(())
}

/// A packet with a header of our own making (IP_HDRINCL).
pub(super) fn own_header(payload: &[u8]) -> Result<()> {
    let socket = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))?;
    let to = SocketAddr::new(FAR4.into(), 0);
    let _ = sendto(&socket, &ipv4(OWN4, payload), SendFlags::empty(), &to);
    Ok(())
}

/// A frame from a packet socket on a device, with a VLAN tag or another ethertype if asked for.
pub(super) fn frame(device: &str, from: Ipv4Addr, head: &[u8], payload: &[u8]) -> Result<()> {
    let mut capture = pcap::Capture::from_device(device)
        .and_then(|capture| capture.snaplen(64).open())
        .map_err(Error::other)?;
    let body = if head == OTHER { payload.to_vec() } else { ipv4(from, payload) };
    let whole = [&FAR_MAC[..], &OWN_MAC, head, &body].concat();
    let _ = capture.sendpacket(whole);
    Ok(())
}

/// Ethertypes: IPv4; 802.1Q and then IPv4; the first for local experiments (IEEE 802).
pub(super) const PLAIN: &[u8] = &[8, 0];
pub(super) const TAGGED: &[u8] = &[0x81, 0, 0, 42, 8, 0];
pub(super) const OTHER: &[u8] = &[0x88, 0xb5];
/// The device that frames of the host under test are sent by.
pub(super) const DEVICE: &str = OWN;

/// An IPv4 packet with a UDP datagram to the far end.
fn ipv4(from: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
    let udp_bytes = 8 + payload.len();
    let mut header = [
        &[0x45, 0][..],
        &length(20 + udp_bytes),
        &[0, 1, 0, 0, 64, 17, 0, 0],
        &from.octets(),
        &FAR4.octets(),
    ]
    .concat();
    let sum = checksum(&header);
    if let Some(place) = header.get_mut(10..12) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
    // A UDP checksum of nought means that there is none (RFC 768).
    [
        &header[..],
        &DISCARD.to_be_bytes(),
        &DISCARD.to_be_bytes(),
        &length(udp_bytes),
        &[0, 0],
        payload,
    ]
    .concat()
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        let [high, low] = [pair.first(), pair.get(1)].map(|byte| byte.copied().unwrap_or(0));
        sum += u32::from(u16::from_be_bytes([high, low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_of_our_own_making_sums_up() {
        let packet = ipv4(OWN4, b"four");
        assert_eq!((packet.len(), packet[3]), (32, 32));
        assert_eq!(checksum(&packet[..20]), 0, "a header with its checksum sums up to nought");
    }
}
