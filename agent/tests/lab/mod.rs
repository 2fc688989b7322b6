//! Two namespaces and a wire: the host under test, and everybody else.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part of the lab")]

mod frames;
pub(crate) mod inside;
pub(crate) mod workload;

pub(crate) use workload::Workload;

use sekisho_agent::enforce::Plan;
use sekisho_agent::host::interfaces;
use sekisho_schema::{Containment, ContainmentId, ContainmentSet, Span, Timestamp};
use std::collections::HashSet;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// The outside address that most probes go to, IPv4.
pub(crate) const PEER4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 2));
/// The same, IPv6.
pub(crate) const PEER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 2));
/// Longest wait for a laboratory: other tests make and take away theirs at the same time.
const COMING_UP: Duration = Duration::from_secs(20);
/// Longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(2);
/// Wait for what must not happen; a frame takes far less than a millisecond here.
const SILENCE: Duration = Duration::from_millis(250);

static NONCE: AtomicU64 = AtomicU64::new(1);

/// Networks of the wire: own address with prefix, and an address of the peer.
pub(crate) fn pairs() -> [(&'static str, IpAddr); 8] {
    [
        ("10.7.0.1/24", "10.7.0.2"),
        ("fd07::1/64", "fd07::2"),
        ("203.0.113.1/24", "203.0.113.2"),
        ("203.0.113.1/24", "203.0.113.3"),
        ("2001:db8:7::1/64", "2001:db8:7::2"),
        ("198.51.100.1/24", "198.51.100.2"),
        ("198.51.100.1/24", "198.51.100.3"),
        ("2001:db8:8::1/64", "2001:db8:8::2"),
    ]
    .map(|(own, peer)| (own, peer.parse().unwrap()))
}

/// A containment of `secs` seconds from now.
pub(crate) fn contain(id: &str, scope: &str, secs: i64) -> Containment {
    let since = now();
    let scope: sekisho_schema::Scope = scope.parse().unwrap();
    Containment {
        id: ContainmentId(id.to_owned()),
        level: scope.level(),
        scope,
        since,
        until: since.after(Span::from_secs(secs)),
        cause: "test".to_owned(),
        finding: None,
        by: None,
        measure: sekisho_schema::Measure::Cut,
        trial_until: None,
    }
}

/// A desired set.
pub(crate) fn set_of(generation: u64, containments: &[Containment]) -> ContainmentSet {
    ContainmentSet {
        generation,
        containments: containments
            .iter()
            .map(|containment| (containment.id.clone(), containment.clone()))
            .collect(),
    }
}

fn now() -> Timestamp {
    Timestamp::from_nanos(
        i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos())
            .unwrap(),
    )
}

/// Removes its namespace, and with it every device and rule in it.
struct Namespace(String);

impl Namespace {
    fn new(name: String) -> Self {
        run("ip", &["netns", "add", &name]);
        let namespace = Self(name);
        namespace.ip("link set lo up");
        namespace
    }

    fn ip(&self, words: &str) {
        let mut all = vec!["-n", &self.0];
        all.extend(words.split(' '));
        run("ip", &all);
    }

    /// Runs `body` on a thread of its own inside the namespace.
    fn within<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                body()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
        rustix::thread::move_into_link_name_space(
            file.as_fd(),
            Some(rustix::thread::LinkNameSpaceType::Network),
        )
        .unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What a test sees of the lab; its methods run on the thread of the host under test.
pub(crate) struct Lab {
    host: String,
    peer: Arc<Namespace>,
    seen: Arc<Mutex<HashSet<u64>>>,
    peer_mac: pnet::datalink::MacAddr,
}

impl Lab {
    /// Builds the lab, runs `body` inside the host under test, and leaves nothing behind.
    pub(crate) fn run(name: &str, body: impl FnOnce(&Lab) + Send) {
        let id = std::process::id();
        let (host, peer) = (
            Namespace::new(format!("sk-{name}-{id}-h")),
            Arc::new(Namespace::new(format!("sk-{name}-{id}-p"))),
        );
        run(
            "ip",
            &[
                "link", "add", "h0", "netns", &host.0, "type", "veth", "peer", "name", "p0",
                "netns", &peer.0,
            ],
        );
        for (own, address) in pairs() {
            let family = if address.is_ipv4() { "" } else { " nodad" };
            let prefix = own.split_once('/').unwrap().1;
            // The same own address serves several peers of one network.
            let _ = Command::new("ip")
                .args(format!("-n {} addr add {own} dev h0{family}", host.0).split(' '))
                .stderr(Stdio::null())
                .status();
            peer.ip(&format!("addr add {address}/{prefix} dev p0{family}"));
        }
        host.ip("link set h0 up");
        peer.ip("link set p0 up");
        host.ip("route add default via 203.0.113.2");
        host.ip("-6 route add default via 2001:db8:7::2");
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(HashSet::new()));
        let peer_mac = peer.within(|| {
            for port in [8443, 9000] {
                let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
                serve(listener, Arc::clone(&stop));
            }
            frames::sniff("p0", Arc::clone(&seen), Arc::clone(&stop))
        });
        let lab = Lab { host: host.0.clone(), peer, seen, peer_mac };
        // Link-local addresses and the wire itself need a moment; the first answer says that they are ready.
        host.within(|| {
            assert!(
                lab.waits_until(COMING_UP, || lab.udp_reaches("203.0.113.2:9999")
                    && lab.udp_reaches("[2001:db8:7::2]:9999")),
                "the lab never came up"
            )
        });
        let ended =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| host.within(|| body(&lab))));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    }

    /// Takes whatever is sent to this port of the peer and answers nothing.
    pub(crate) fn swallow(&self, port: u16) {
        self.peer.within(|| {
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
            // It ends with the program.
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    std::thread::spawn(move || std::io::copy(&mut &stream, &mut std::io::sink()));
                }
            });
        });
    }

    /// CLOCK_REALTIME.
    pub(crate) fn now(&self) -> Timestamp {
        now()
    }

    /// The plan of this host as its interfaces tell, with the documentation networks outside.
    pub(crate) fn plan(&self) -> Plan {
        let all = interfaces::interfaces();
        Plan {
            uplinks: interfaces::uplinks(&all, &[]),
            inside: vec![
                "10.0.0.0/8".parse().unwrap(),
                "fc00::/7".parse().unwrap(),
                "fe80::/10".parse().unwrap(),
            ],
            on_link: interfaces::on_link(&all),
            exempt: vec![],
            collector: vec![],
            known: true,
            ..Plan::default()
        }
    }

    /// Whether a packet of this sender arrives at the outside peer.
    pub(crate) fn reaches(&self, sender: &str) -> bool {
        let nonce = NONCE.fetch_add(1, Ordering::Relaxed);
        match sender {
            "tcp4" => return self.connects("203.0.113.2:8443"),
            "tcp6" => return self.connects("[2001:db8:7::2]:8443"),
            "udp4" => return self.udp_reaches("203.0.113.2:9999"),
            "udp6" => return self.udp_reaches("[2001:db8:7::2]:9999"),
            "icmp4" => frames::icmp(PEER4, nonce),
            "icmp6" => frames::icmp(PEER6, nonce),
            "raw4" => frames::raw_ip(nonce),
            "packet_ip" => frames::packet("h0", self.peer_mac, 0x0800, None, nonce),
            // What ARP may do, an IPv4 packet told to be ARP must not.
            "packet_lie" => frames::packet("h0", self.peer_mac, 0x0800, Some(0x0806), nonce),
            "packet_other" => frames::packet("h0", self.peer_mac, 0x88b5, None, nonce),
            "packet_vlan" => frames::packet("h0", self.peer_mac, 0x8100, None, nonce),
            other => panic!("no sender {other}"),
        }
        self.saw(nonce)
    }

    /// Whether a UDP datagram to this address arrives.
    pub(crate) fn udp_reaches(&self, to: &str) -> bool {
        self.datagram_reaches(0, to, 0)
    }

    /// Whether the last byte of a UDP datagram arrives, sent from this port (0 for any) behind this many bytes of filling.
    pub(crate) fn datagram_reaches(&self, from: u16, to: &str, filling: usize) -> bool {
        let nonce = NONCE.fetch_add(1, Ordering::Relaxed);
        let to: SocketAddr = to.parse().unwrap();
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        // A child that another test starts holds a copy of the socket before this one until it runs its program.
        let socket = (0..100)
            .find_map(|_| {
                let bound = UdpSocket::bind((any, from));
                if bound.is_err() {
                    std::thread::sleep(Duration::from_millis(20));
                }
                bound.ok()
            })
            .unwrap();
        socket.set_broadcast(true).unwrap();
        // A cut is told to the sender as an error: that is an answer, not a fault.
        let _ = socket.send_to(&[vec![0; filling], frames::tag(nonce)].concat(), to);
        self.saw(nonce)
    }

    /// Sends datagrams to the outside peer without a pause while `body` runs; returns how many were tried, and whether any arrived.
    pub(crate) fn while_sending(&self, body: impl FnOnce()) -> (usize, bool) {
        let nonce = NONCE.fetch_add(1, Ordering::Relaxed);
        let stop = AtomicBool::new(false);
        let tried = std::thread::scope(|scope| {
            // A thread inherits the namespace of the one that starts it.
            let sender = scope.spawn(|| {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                let mut tried = 0;
                while !stop.load(Ordering::Relaxed) {
                    let _ = socket.send_to(&frames::tag(nonce), "203.0.113.2:9999");
                    tried += 1;
                }
                tried
            });
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            stop.store(true, Ordering::Relaxed);
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            sender.join().unwrap()
        });
        (tried, self.saw(nonce))
    }

    /// A container whose packets this host routes.
    pub(crate) fn routed_container(&self) -> Container {
        let container = Container(Namespace::new(format!("{}-c", self.host)));
        run(
            "ip",
            &["link", "add", "v0", "type", "veth", "peer", "name", "c0", "netns", &container.0.0],
        );
        for (file, value) in [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")] {
            std::fs::write(format!("/proc/sys/net/{file}"), value).unwrap();
        }
        for words in
            ["addr add 10.8.0.1/24 dev v0", "addr add fd08::1/64 dev v0 nodad", "link set v0 up"]
        {
            run("ip", &words.split(' ').collect::<Vec<_>>());
        }
        for words in [
            "addr add 10.8.0.2/24 dev c0",
            "addr add fd08::2/64 dev c0 nodad",
            "link set c0 up",
            "route add default via 10.8.0.1",
            "-6 route add default via fd08::1",
        ] {
            container.0.ip(words);
        }
        container
    }

    /// A container with a device of its own on the host's, past the host's network stack.
    pub(crate) fn macvlan_container(&self) -> Container {
        let container = Container(Namespace::new(format!("{}-m", self.host)));
        run(
            "ip",
            &[
                "link",
                "add",
                "mv0",
                "link",
                "h0",
                "netns",
                &container.0.0,
                "type",
                "macvlan",
                "mode",
                "bridge",
            ],
        );
        for words in [
            "addr add 203.0.113.50/24 dev mv0",
            "addr add 2001:db8:7::50/64 dev mv0 nodad",
            "link set mv0 up",
        ] {
            container.0.ip(words);
        }
        container
    }

    /// Whether a datagram of a container arrives.
    pub(crate) fn container_reaches(&self, container: &Container, to: &str) -> bool {
        container.0.within(|| self.udp_reaches(to))
    }

    fn saw(&self, nonce: u64) -> bool {
        self.waits_until(SILENCE, || self.seen.lock().unwrap().contains(&nonce))
    }

    /// Whether a TCP connection to this address opens.
    pub(crate) fn connects(&self, to: &str) -> bool {
        TcpStream::connect_timeout(&to.parse().unwrap(), SILENCE * 2).is_ok()
    }

    /// Whether a TCP connection from this port of 198.51.100.1 opens.
    pub(crate) fn connects_from(&self, port: u16, to: &str) -> bool {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(SILENCE * 2)).unwrap();
        bind(&socket, &SocketAddr::new(Ipv4Addr::new(198, 51, 100, 1).into(), port)).unwrap();
        connect(&socket, &to.parse::<SocketAddr>().unwrap()).is_ok()
    }

    /// Serves a TCP port of 203.0.113.1 in the host under test, until the lab ends.
    pub(crate) fn serve_here(&self, port: u16) {
        serve(
            TcpListener::bind((Ipv4Addr::new(203, 0, 113, 1), port)).unwrap(),
            Arc::new(AtomicBool::new(false)),
        );
    }

    /// Whether the peer opens a TCP connection to the host under test.
    pub(crate) fn peer_connects(&self, to: &str) -> bool {
        self.peer.within(|| self.connects(to))
    }

    /// Opens a connection to an echo service of the peer.
    pub(crate) fn open(&self, to: &str) -> Connection {
        let stream = TcpStream::connect_timeout(&to.parse().unwrap(), PATIENCE).unwrap();
        stream.set_read_timeout(Some(SILENCE * 2)).unwrap();
        Connection(stream)
    }

    /// Whether a service on this host's loopback answers.
    pub(crate) fn loopback_works(&self) -> bool {
        [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
            IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
        ]
        .iter()
        .all(|address| {
            let listener = TcpListener::bind((*address, 0)).unwrap();
            TcpStream::connect_timeout(&listener.local_addr().unwrap(), PATIENCE).is_ok()
        })
    }

    /// Forgets every link-layer address, as after a long silence.
    pub(crate) fn forget_neighbours(&self) {
        run("ip", &["neigh", "flush", "all"]);
        run("ip", &["-6", "neigh", "flush", "all"]);
    }

    /// Changes the ruleset as somebody else.
    pub(crate) fn nft(&self, text: &str) {
        let mut child =
            Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("{text}\n").as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{text}");
    }

    /// The ruleset of everybody.
    pub(crate) fn ruleset(&self) -> String {
        String::from_utf8(Command::new("nft").args(["list", "ruleset"]).output().unwrap().stdout)
            .unwrap()
    }

    /// The base chains of tables of ours, as nft lists them.
    pub(crate) fn hooks(&self) -> Vec<String> {
        let output = Command::new("nft").args(["list", "chains"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let hooks = text.lines().map(str::trim).filter(|line| line.contains(" hook "));
        hooks.map(str::to_owned).collect()
    }

    /// Waits for a condition, and says whether it came.
    pub(crate) fn waits_until(&self, limit: Duration, condition: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            if condition() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A namespace that stands for a container.
pub(crate) struct Container(Namespace);

impl Container {
    /// The hardware address of a device of it.
    pub(crate) fn mac(&self, device: &str) -> [u8; 6] {
        self.0.within(|| {
            let all = pnet::datalink::interfaces();
            all.into_iter().find(|one| one.name == device).unwrap().mac.unwrap().octets()
        })
    }
}

/// A connection that was open before the cut.
pub(crate) struct Connection(TcpStream);

impl Connection {
    /// Its own end.
    pub(crate) fn local(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Whether what is said comes back.
    pub(crate) fn echoes(&mut self) -> bool {
        self.0.write_all(b"x").is_ok() && self.0.read_exact(&mut [0]).is_ok()
    }

    /// Whether the kernel ended it.
    pub(crate) fn is_aborted(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Err(error) if error.kind() == ErrorKind::ConnectionAborted)
    }
}

/// Answers every connection with what it says.
fn serve(listener: TcpListener, stop: Arc<AtomicBool>) {
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let ends = Instant::now() + Duration::from_secs(120);
        while !stop.load(Ordering::Relaxed) && Instant::now() < ends {
            match listener.accept() {
                Ok((mut stream, _)) => {
                    let _ = stream.set_nonblocking(false);
                    let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
                    std::thread::spawn(move || {
                        let mut byte = [0];
                        while stream.read_exact(&mut byte).is_ok()
                            && stream.write_all(&byte).is_ok()
                        {}
                    });
                }
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    });
}
