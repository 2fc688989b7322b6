//! Behind the host under test: a bridge of its own with inside hosts on its ports.

#![allow(dead_code, reason = "each test binary uses a part of the lab")]

use super::{Lab, NONCE, Namespace, frames, run};
use sekisho_agent::target::Target;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// An inside host on a port of the bridge.
pub(crate) struct Inside {
    namespace: Namespace,
    stop: Arc<AtomicBool>,
    number: u8,
    /// The port of the bridge.
    pub(crate) port: String,
    /// Its hardware address.
    pub(crate) mac: [u8; 6],
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Inside {
    pub(crate) fn v4(&self) -> String {
        format!("10.9.0.{}", self.number)
    }

    pub(crate) fn v6(&self) -> String {
        format!("fd09::{}", self.number)
    }

    /// Its address, hardware address and port, as far as asked.
    pub(crate) fn target(&self, addresses: bool, mac: bool, port: bool) -> Target {
        let own: Vec<IpAddr> = [self.v4(), self.v6()].map(|text| text.parse().unwrap()).to_vec();
        Target {
            addresses: own.into_iter().filter(|_| addresses).collect(),
            macs: mac.then_some(self.mac).into_iter().collect(),
            ports: port.then(|| self.port.clone()).into_iter().collect(),
            ..Target::default()
        }
    }

    /// Gives it another address of the same network, as IPv6 privacy does, and sends from there from now on.
    pub(crate) fn takes_another_address(&self) {
        self.namespace.ip("addr del fd09::2/64 dev e0");
        self.namespace.ip("addr add fd09::2:7777/64 dev e0 nodad");
        self.namespace.ip("-6 route replace default via fd09::1");
    }

    pub(crate) fn within<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        self.namespace.within(body)
    }

    pub(crate) fn ip(&self, words: &str) {
        self.namespace.ip(words);
    }
}

impl Lab {
    /// Makes the host under test the gateway and the bridge of two inside hosts.
    pub(crate) fn bridge(&self) -> [Inside; 2] {
        for words in [
            "link add br0 type bridge",
            "addr add 10.9.0.1/24 dev br0",
            "addr add fd09::1/64 dev br0 nodad",
            "link set br0 up",
        ] {
            run("ip", &words.split(' ').collect::<Vec<_>>());
        }
        for (file, value) in [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")] {
            std::fs::write(format!("/proc/sys/net/{file}"), value).unwrap();
        }
        [2, 3].map(|number| {
            let namespace = Namespace::new(format!("{}-i{number}", self.host));
            let port = format!("port{number}");
            run(
                "ip",
                &[
                    "link",
                    "add",
                    &port,
                    "type",
                    "veth",
                    "peer",
                    "name",
                    "e0",
                    "netns",
                    &namespace.0,
                ],
            );
            run("ip", &["link", "set", &port, "master", "br0", "up"]);
            for words in [
                format!("addr add 10.9.0.{number}/24 dev e0"),
                format!("addr add fd09::{number}/64 dev e0 nodad"),
                "link set e0 up".to_owned(),
                "route add default via 10.9.0.1".to_owned(),
                "-6 route add default via fd09::1".to_owned(),
            ] {
                namespace.ip(&words);
            }
            let stop = Arc::new(AtomicBool::new(false));
            let (seen, until) = (Arc::clone(&self.seen), Arc::clone(&stop));
            // What arrives at the second of them counts as arrived, too.
            let mac = namespace.within(|| {
                if number == 3 {
                    frames::sniff_arriving("e0", seen, until);
                }
                frames::mac("e0")
            });
            Inside { namespace, stop, number, port, mac: mac.octets() }
        })
    }

    /// Whether a datagram of an inside host arrives.
    pub(crate) fn inside_reaches(&self, from: &Inside, to: &str) -> bool {
        from.within(|| self.udp_reaches(to))
    }

    /// Whether a question for a name with a first label of so many bytes arrives.
    pub(crate) fn question_reaches(&self, from: &Inside, to: &str, label: usize) -> bool {
        let nonce = NONCE.fetch_add(1, Ordering::Relaxed);
        from.within(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            let _ = socket.send_to(&Self::question(nonce, label), to);
        });
        self.saw(nonce)
    }

    /// Whether a datagram of a workload arrives.
    pub(crate) fn workload_reaches(&self, workload: &mut super::Workload, to: &str) -> bool {
        let nonce = NONCE.fetch_add(1, Ordering::Relaxed);
        workload.sends(to, nonce);
        self.saw(nonce)
    }

    /// Bytes of UDP payload that arrive at the outside peer out of so many sent as fast as it goes.
    pub(crate) fn pours(&self, to: &str, bytes: usize) -> usize {
        let first = NONCE.fetch_add(1_000_000, Ordering::Relaxed);
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        const PIECE: usize = 1_000;
        let pieces = bytes / PIECE;
        for number in 0..pieces {
            let tag = frames::tag(first + u64::try_from(number).unwrap());
            let _ = socket.send_to(&[vec![0; PIECE - tag.len()], tag].concat(), to);
            // The eye at the other end must keep up: its queue has room for some 90 frames.
            if number % 40 == 39 {
                let nonce = first + u64::try_from(number).unwrap();
                let seen = || self.seen.lock().unwrap().contains(&nonce);
                self.waits_until(std::time::Duration::from_millis(30), seen);
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(300));
        let seen = self.seen.lock().unwrap();
        let arrived = (first..first + u64::try_from(pieces).unwrap())
            .filter(|nonce| seen.contains(nonce))
            .count();
        arrived * PIECE
    }

    /// Whether a datagram can be sent at all and arrives, where there may be no route.
    pub(crate) fn udp_goes(&self, to: &str) -> bool {
        let nonce = NONCE.fetch_add(1, Ordering::Relaxed);
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(&frames::tag(nonce), to).is_ok() && self.saw(nonce)
    }

    fn question(nonce: u64, label: usize) -> Vec<u8> {
        let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        question.push(u8::try_from(label).unwrap());
        question.extend(std::iter::repeat_n(b'a', label));
        question.extend(frames::tag(nonce));
        question
    }

    /// Whether a question of this host for a name with a first label of so many bytes arrives.
    pub(crate) fn question_goes(&self, to: &str, label: usize) -> bool {
        let nonce = NONCE.fetch_add(1, Ordering::Relaxed);
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let _ = socket.send_to(&Self::question(nonce, label), to);
        self.saw(nonce)
    }

    /// How many of forty questions asked at once arrive.
    pub(crate) fn questions_arrive(&self, to: &str) -> usize {
        let first = NONCE.fetch_add(40, Ordering::Relaxed);
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        for nonce in first..first + 40 {
            let _ = socket.send_to(&Self::question(nonce, 5), to);
        }
        std::thread::sleep(std::time::Duration::from_millis(300));
        let seen = self.seen.lock().unwrap();
        (first..first + 40).filter(|nonce| seen.contains(nonce)).count()
    }

    /// Whether the peer gets thirty answers of a hundred bytes from an echo service of this host.
    pub(crate) fn peer_downloads(&self, from: &str, answers: usize) -> bool {
        use std::io::{Read as _, Write as _};
        self.peer.within(|| {
            let patience = std::time::Duration::from_millis(600);
            let Ok(mut stream) =
                std::net::TcpStream::connect_timeout(&from.parse().unwrap(), patience)
            else {
                return false;
            };
            stream.set_read_timeout(Some(patience)).unwrap();
            (0..answers)
                .all(|_| stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0]).is_ok())
        })
    }

    /// Whether a datagram to a service of the host under test arrives there; called on the sender's thread.
    pub(crate) fn answers_at(&self, from: &Inside, at: &str) -> bool {
        let service = std::net::UdpSocket::bind(at).unwrap();
        service.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        from.within(|| {
            let _ = std::net::UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", at);
        });
        service.recv(&mut [0; 8]).is_ok()
    }

    /// The same for a DHCP client's renewal.
    pub(crate) fn dhcp_renews(&self, from: &Inside) -> bool {
        let server = std::net::UdpSocket::bind("10.9.0.1:67").unwrap();
        server.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        from.within(|| {
            let _ = std::net::UdpSocket::bind("0.0.0.0:68").unwrap().send_to(b"x", "10.9.0.1:67");
        });
        server.recv(&mut [0; 8]).is_ok()
    }
}
