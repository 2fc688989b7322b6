//! Packets below the sockets that programs use, and the eye at the other end of the wire.

use pnet::datalink::{self, Channel, ChannelType, Config, MacAddr, NetworkInterface};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::IntoRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MARK: &[u8; 8] = b"SKPROBE:";

/// Payload by which a probe is known.
pub(crate) fn tag(nonce: u64) -> Vec<u8> {
    [&MARK[..], &nonce.to_be_bytes()].concat()
}

fn interface(name: &str) -> NetworkInterface {
    datalink::interfaces().into_iter().find(|interface| interface.name == name).unwrap()
}

/// Notes every probe that arrives on a device, until told to stop; returns the device's address.
pub(crate) fn sniff(
    device: &str,
    seen: Arc<Mutex<HashSet<u64>>>,
    stop: Arc<AtomicBool>,
) -> MacAddr {
    sniff_where(device, |_, _| true, seen, stop)
}

/// Notes every probe among the frames that count, given the device's own hardware address.
fn sniff_where(
    device: &str,
    counts: impl Fn(&[u8], MacAddr) -> bool + Send + 'static,
    seen: Arc<Mutex<HashSet<u64>>>,
    stop: Arc<AtomicBool>,
) -> MacAddr {
    let interface = interface(device);
    let mac = interface.mac.unwrap();
    let config = Config { read_timeout: Some(Duration::from_millis(50)), ..Config::default() };
    let Ok(Channel::Ethernet(_, mut receiver)) = datalink::channel(&interface, config) else {
        panic!("no channel on {device}")
    };
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let Ok(frame) = receiver.next() else { continue };
            if counts(frame, mac)
                && let Some(at) = frame.windows(MARK.len()).position(|window| window == MARK)
                && let Some(nonce) = frame.get(at + 8..at + 16)
            {
                seen.lock().unwrap().insert(u64::from_be_bytes(nonce.try_into().unwrap()));
            }
        }
    });
    mac
}

/// The hardware address of a device.
pub(crate) fn mac(device: &str) -> MacAddr {
    interface(device).mac.unwrap()
}

/// Notes every probe that arrives on a device, without what the device itself sends.
pub(crate) fn sniff_arriving(device: &str, seen: Arc<Mutex<HashSet<u64>>>, stop: Arc<AtomicBool>) {
    let arrives = |frame: &[u8], mac: MacAddr| frame.get(6..12) != Some(&mac.octets()[..]);
    sniff_where(device, arrives, seen, stop);
}

/// An echo request from a raw socket.
pub(crate) fn icmp(to: IpAddr, nonce: u64) {
    let (family, protocol, kind) = if to.is_ipv4() {
        (AddressFamily::INET, ipproto::ICMP, 8)
    } else {
        (AddressFamily::INET6, ipproto::ICMPV6, 128)
    };
    let socket = socket(family, SocketType::RAW, Some(protocol)).unwrap();
    let packet = [vec![kind, 0, 0, 0, 0, 1, 0, 1], tag(nonce)].concat();
    let _ = sendto(&socket, &packet, SendFlags::empty(), &SocketAddr::new(to, 0));
}

/// A UDP packet to 203.0.113.2 with a header of our own making, from a raw socket.
pub(crate) fn raw_ip(nonce: u64) {
    let socket = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW)).unwrap();
    let _ = sendto(
        &socket,
        &ipv4(nonce),
        SendFlags::empty(),
        &"203.0.113.2:0".parse::<SocketAddr>().unwrap(),
    );
}

/// A frame that no protocol stack touches: the ethertype, then an IPv4 packet to 203.0.113.2 (behind a VLAN tag for 0x8100).
///
/// `told` is what the kernel is made to believe instead of the ethertype.
pub(crate) fn packet(device: &str, to: MacAddr, ethertype: u16, told: Option<u16>, nonce: u64) {
    let interface = interface(device);
    let mut config = Config::default();
    if let Some(told) = told {
        // pnet takes the protocol of a layer-3 channel for the address it sends to, and our raw socket as it is.
        config.channel_type = ChannelType::Layer3(told);
        config.socket_fd =
            Some(socket(AddressFamily::PACKET, SocketType::RAW, None).unwrap().into_raw_fd());
    }
    let Ok(Channel::Ethernet(mut sender, _)) = datalink::channel(&interface, config) else {
        panic!("no channel on {device}")
    };
    let mut frame = [to.octets(), interface.mac.unwrap().octets()].concat();
    frame.extend(ethertype.to_be_bytes());
    if ethertype == 0x8100 {
        frame.extend([0, 7, 8, 0]);
    }
    frame.extend(ipv4(nonce));
    let _ = sender.send_to(&frame, None);
}

/// An IPv4 UDP packet from 203.0.113.1 to 203.0.113.2.
fn ipv4(nonce: u64) -> Vec<u8> {
    let payload = tag(nonce);
    let total = u16::try_from(28 + payload.len()).unwrap().to_be_bytes();
    let mut packet =
        vec![0x45, 0, total[0], total[1], 0, 1, 0, 0, 64, 17, 0, 0, 203, 0, 113, 1, 203, 0, 113, 2];
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend([0x9c, 0x40, 0x27, 0x0f]);
    packet.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}
