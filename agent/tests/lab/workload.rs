//! A workload: a process of its own in a cgroup of its own, which does what it is told, line by line.

#![allow(dead_code, reason = "each test binary uses a part of the lab")]

use super::frames;
use sekisho_agent::target::{Cgroup, Target};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Tells the test binary, started again, that it is the workload.
const MARK: &str = "SEKISHO_TEST_WORKLOAD";
/// What its answers begin with, between the words of the test harness.
const ANSWER: &str = "workload says ";
const WAIT: Duration = Duration::from_millis(400);

/// A cgroup that this test made, and removes.
pub(crate) struct Group {
    path: String,
    directory: PathBuf,
}

impl Group {
    /// Makes a cgroup below the root of cgroup v2.
    pub(crate) fn new(path: &str) -> Self {
        let directory = root().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(&directory).unwrap();
        Self { path: path.to_owned(), directory }
    }

    /// Removes it and makes it again, as a restart of a service does.
    pub(crate) fn anew(&self) {
        std::fs::remove_dir(&self.directory).unwrap();
        std::fs::create_dir(&self.directory).unwrap();
    }

    pub(crate) fn id(&self) -> u64 {
        std::fs::metadata(&self.directory).unwrap().ino()
    }

    /// What it is to a ruleset.
    pub(crate) fn target(&self) -> Target {
        let level = u8::try_from(self.path.trim_matches('/').split('/').count()).unwrap();
        let cgroup = Cgroup { level, id: self.id(), path: self.path.clone() };
        Target { cgroups: [cgroup].into(), ..Target::default() }
    }

    /// Moves a process into it.
    pub(crate) fn take(&self, process: &Workload) {
        std::fs::write(self.directory.join("cgroup.procs"), process.child.id().to_string())
            .unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..100 {
            if std::fs::remove_dir(&self.directory).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if let Some(parent) = self.directory.parent().filter(|parent| *parent != root()) {
            let _ = std::fs::remove_dir(parent);
        }
    }
}

fn root() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    PathBuf::from(mount.expect("a cgroup v2 mount").split(' ').nth(1).unwrap())
}

/// A process that does what it is told, in the network namespace of the thread that started it.
pub(crate) struct Workload {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Workload {
    /// Starts the test `name` of this binary as a workload: its body must be [`obey`].
    pub(crate) fn start(name: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(MARK, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, orders, answers }
    }

    fn ask(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").unwrap();
        for line in self.answers.by_ref().lines() {
            let line = line.unwrap();
            // The harness may have begun the line.
            if let Some((_, answer)) = line.split_once(ANSWER) {
                return answer.to_owned();
            }
        }
        panic!("the workload ended at \"{order}\"")
    }

    /// Whether a TCP connection of it opens.
    pub(crate) fn connects(&mut self, to: &str) -> bool {
        self.ask(&format!("connect {to}")) == "yes"
    }

    /// Opens a connection that stays.
    pub(crate) fn opens(&mut self, to: &str) -> bool {
        self.ask(&format!("open {to}")) == "yes"
    }

    /// Whether the connection that stays still carries a byte there and back.
    pub(crate) fn echoes(&mut self) -> bool {
        self.ask("echo") == "yes"
    }

    /// Sends a datagram with this number.
    pub(crate) fn sends(&mut self, to: &str, nonce: u64) {
        self.ask(&format!("send {to} {nonce}"));
    }

    /// Whether it may open a packet socket.
    pub(crate) fn opens_raw(&mut self) -> bool {
        self.ask("raw") == "yes"
    }

    /// Listens, and accepts what comes.
    pub(crate) fn listens(&mut self, at: &str) {
        assert_eq!(self.ask(&format!("listen {at}")), "yes");
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether this process was started as a workload; then it does what it is told until it is told no more.
pub(crate) fn obey() -> bool {
    if std::env::var_os(MARK).is_none() {
        return false;
    }
    let mut kept: Option<TcpStream> = None;
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let address = || words[1].parse::<SocketAddr>().unwrap();
        let connect = || TcpStream::connect_timeout(&address(), WAIT);
        let done = match words[0] {
            "connect" => connect().is_ok(),
            "open" => {
                kept = connect().ok();
                kept.is_some()
            }
            "echo" => kept.as_mut().is_some_and(|stream| {
                stream.set_read_timeout(Some(WAIT)).unwrap();
                stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0]).is_ok()
            }),
            "send" => {
                let any = if address().is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).unwrap();
                socket.send_to(&frames::tag(words[2].parse().unwrap()), address()).is_ok()
            }
            "raw" => {
                use rustix::net::{AddressFamily, SocketType, socket};
                socket(AddressFamily::PACKET, SocketType::DGRAM, None).is_ok()
            }
            "listen" => {
                let listener = TcpListener::bind(address()).unwrap();
                std::thread::spawn(move || {
                    let streams: Vec<_> = listener.incoming().take(16).collect();
                    drop(streams);
                });
                true
            }
            other => panic!("no order {other}"),
        };
        let answer = format!("\n{ANSWER}{}\n", if done { "yes" } else { "no" });
        std::io::stdout().write_all(answer.as_bytes()).unwrap();
        std::io::stdout().flush().unwrap();
    }
    true
}
