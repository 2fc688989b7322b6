//! Senders of tagged packets, one way out of a host each: what a cut must stop.

use super::{Arguments, leash, ready};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sendto, socket_with};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::{Duration, Instant};

/// What every tagged packet carries before its tag.
pub const MARK: &[u8] = b"SKPROBE-";
/// Length of a tag.
pub const TAG: usize = 8;

/// `send KIND --dst ADDR --tag TEXT [--src ADDR] [--port N] [--dev NAME --dmac MAC --smac MAC] [--helper PATH]`;
/// answers `go N` with how many were sent and what the kernel said.
pub fn send(arguments: &Arguments) {
    let mut way = Way::open(arguments);
    leash(&ready(), |question| match question.strip_prefix("go ").and_then(|n| n.parse().ok()) {
        Some(times) => way.go(times),
        None => json!({"error": format!("unknown question {question}")}),
    });
}

enum Way {
    Helper { helper: String, kind: String, device: String, frame: Vec<u8> },
    Icmp { socket: OwnedFd, to: SocketAddr, packet: Vec<u8> },
    Packet { capture: Box<pcap::Capture<pcap::Active>>, frame: Vec<u8> },
    Raw { socket: OwnedFd, to: SocketAddr, packet: Vec<u8> },
    Tcp { stream: Option<TcpStream>, to: SocketAddr, payload: Vec<u8>, anew: bool },
    Udp { socket: UdpSocket, to: SocketAddr, payload: Vec<u8> },
}

fn raw_socket(protocol: rustix::net::Protocol) -> OwnedFd {
    socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::empty(), Some(protocol))
        .expect("a raw socket")
}

impl Way {
    fn open(arguments: &Arguments) -> Self {
        let kind = arguments.free.first().expect("a kind of sender").as_str();
        let tag = arguments.need("tag");
        assert_eq!(tag.len(), TAG, "a tag has {TAG} bytes");
        let payload = [MARK, tag.as_bytes(), &[b'x'; 48]].concat();
        let dst: IpAddr = arguments.need("dst").parse().expect("--dst ADDR");
        let port = u16::try_from(arguments.number("port", 9999)).expect("a port");
        let to = SocketAddr::new(dst, port);
        let datagram = || {
            let src = arguments.need("src").parse().expect("--src IPv4");
            let IpAddr::V4(dst) = dst else { panic!("{kind} is for IPv4") };
            udp_packet(src, dst, port, &payload)
        };
        let frame = |ethertype: &[u8], body: Vec<u8>| {
            let mac = |name: &str| {
                arguments
                    .need(name)
                    .split(':')
                    .map(|byte| u8::from_str_radix(byte, 16).expect("a MAC"))
                    .collect::<Vec<u8>>()
            };
            [mac("dmac"), mac("smac"), ethertype.to_vec(), body].concat()
        };
        let device = || arguments.need("dev").to_owned();
        match kind {
            "tcp" => Self::Tcp { stream: None, to, payload, anew: false },
            "tcp-new" => Self::Tcp { stream: None, to, payload, anew: true },
            "udp" => {
                let any = if dst.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                Self::Udp { socket: UdpSocket::bind(any).expect("a UDP socket"), to, payload }
            }
            "icmp" => Self::Icmp {
                socket: raw_socket(ipproto::ICMP),
                to: SocketAddr::new(dst, 0),
                packet: echo_request(&payload),
            },
            "hdrincl" => Self::Raw {
                socket: raw_socket(ipproto::RAW),
                to: SocketAddr::new(dst, 0),
                packet: datagram(),
            },
            // IP in IP (RFC 2003): the inner datagram is opened by nobody here, and counted all the same.
            "ipip" => Self::Raw {
                socket: raw_socket(rustix::net::Protocol::from_raw(
                    4_u32.try_into().expect("a protocol number"),
                )),
                to: SocketAddr::new(dst, 0),
                packet: datagram(),
            },
            "packet" | "packet-vlan" | "packet-ethertype" => {
                let capture = pcap::Capture::from_device(device().as_str())
                    .and_then(pcap::Capture::open)
                    .expect("a packet socket");
                let frame = match kind {
                    "packet-vlan" => frame(&[0x81, 0, 0, 42, 8, 0], datagram()),
                    // IEEE 802: the first ethertype for local experiments.
                    "packet-ethertype" => frame(&[0x88, 0xB5], payload.clone()),
                    _ => frame(&[8, 0], datagram()),
                };
                Self::Packet { capture: Box::new(capture), frame }
            }
            "bypass" | "dgram" | "ring" | "tun" | "xsk" => Self::Helper {
                helper: arguments.need("helper").to_owned(),
                kind: kind.to_owned(),
                device: device(),
                frame: frame(&[8, 0], datagram()),
            },
            other => panic!("no sender is called {other}"),
        }
    }

    fn go(&mut self, times: usize) -> Value {
        if let Self::Helper { helper, kind, device, frame } = self {
            let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
            let output = Command::new(helper)
                .args(["send", kind.as_str(), device.as_str(), &hex, &times.to_string()])
                .output()
                .expect("the helper runs");
            let sent = String::from_utf8_lossy(&output.stdout).trim().parse::<usize>().unwrap_or(0);
            return json!({"sent": sent, "errors": String::from_utf8_lossy(&output.stderr).trim()});
        }
        let (mut sent, mut errors) = (0, BTreeMap::<String, u64>::new());
        let began = Instant::now();
        for _ in 0..times {
            match self.once() {
                Ok(()) => sent += 1,
                Err(error) => *errors.entry(error.to_string()).or_default() += 1,
            }
            // A way that blocks has been tried often enough by then.
            if began.elapsed() > Duration::from_secs(3) {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        json!({"sent": sent, "errors": errors})
    }

    fn once(&mut self) -> Result<()> {
        match self {
            Self::Helper { .. } => Ok(()),
            Self::Icmp { socket, to, packet } | Self::Raw { socket, to, packet } => {
                sendto(&*socket, packet, rustix::net::SendFlags::empty(), to)
                    .map(drop)
                    .map_err(Error::from)
            }
            Self::Packet { capture, frame } => capture
                .sendpacket(frame.as_slice())
                .map_err(|error| Error::other(error.to_string())),
            Self::Tcp { stream, to, payload, anew } => {
                if *anew {
                    *stream = None;
                }
                if stream.is_none() {
                    let fresh = TcpStream::connect_timeout(to, Duration::from_millis(1000))?;
                    fresh.set_nodelay(true)?;
                    fresh.set_write_timeout(Some(Duration::from_millis(500)))?;
                    *stream = Some(fresh);
                }
                let Some(open) = stream else { return Err(ErrorKind::NotConnected.into()) };
                open.write_all(payload)
            }
            Self::Udp { socket, to, payload } => socket.send_to(payload, *to).map(drop),
        }
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

fn udp_packet(src: Ipv4Addr, dst: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let size = |length: usize| u16::try_from(length).expect("a small packet").to_be_bytes();
    let udp = [
        &4444_u16.to_be_bytes()[..],
        &port.to_be_bytes(),
        &size(8 + payload.len()),
        &[0, 0],
        payload,
    ]
    .concat();
    let total = size(20 + udp.len());
    let mut ip =
        [&[0x45, 0][..], &total, &[0, 1, 0, 0, 64, 17, 0, 0], &src.octets(), &dst.octets()]
            .concat();
    let sum = checksum(&ip).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    [ip, udp].concat()
}

fn echo_request(payload: &[u8]) -> Vec<u8> {
    let mut packet = [&[8, 0, 0, 0, 0, 1, 0, 1], payload].concat();
    let sum = checksum(&packet).to_be_bytes();
    packet[2..4].copy_from_slice(&sum);
    packet
}
