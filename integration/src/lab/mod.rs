//! The laboratory: namespaces under a prefix of their own, torn down whatever happens.
//!
//! In comes a topology; out come [`Node`]s. It must not know what runs in them.

pub mod agent;
pub mod battery;
pub mod bins;
pub mod collector;
pub mod figures;
pub mod kernel;
pub mod matrix;
pub mod node;
pub mod pcapfile;
pub mod peers;
pub mod probe;
pub mod topology;
pub mod wait;

use node::{Actor, Node, ip, must};
use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A laboratory. While one lives no other begins: two cores and kernel-wide notifications are shared.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    dir: tempfile::TempDir,
    // Ends when our standard input to it closes, however this process dies, and then removes what is left.
    janitor: RefCell<Option<Actor>>,
    _only_one: File,
}

static LABS: AtomicU32 = AtomicU32::new(0);
const LOCK: &str = "/run/lock/sekisho-lab.lock";
const LOCK_WITHIN: Duration = Duration::from_secs(900);

impl Lab {
    /// Opens a laboratory; fails loudly where it cannot be one.
    #[must_use]
    pub fn open() -> Self {
        require();
        let only_one = lock();
        let prefix = format!("sk{}-{}-", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let dir =
            tempfile::Builder::new().prefix(&prefix).tempdir().expect("a temporary directory");
        let mut command = Command::new(bins::actor());
        // A group of its own: Ctrl-C on the terminal must not reach who cleans up after it.
        command.process_group(0);
        let path = dir.path().to_str().expect("a temporary path in UTF-8").to_owned();
        let janitor = Actor::start(command, "janitor", &["janitor", &prefix, &path]);
        Self { prefix, dir, janitor: RefCell::new(Some(janitor)), _only_one: only_one }
    }

    /// Directory for the files of this run; goes with the laboratory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a host.
    #[must_use]
    pub fn node(&self, name: &str) -> Node {
        let netns = format!("{}{name}", self.prefix);
        ip(&format!("netns add {netns}"));
        let node = Node { name: name.to_owned(), netns };
        node.ip("link set lo up");
        for setting in [
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.default.rp_filter=0",
            "net.ipv6.conf.all.accept_dad=0",
            "net.ipv6.conf.default.accept_dad=0",
            "net.ipv6.conf.all.disable_ipv6=0",
            "net.ipv6.conf.default.disable_ipv6=0",
        ] {
            node.run(&format!("sysctl -qw {setting}"));
        }
        node
    }

    /// A cable between two hosts: device names at both ends.
    pub fn cable(&self, a: &Node, a_device: &str, b: &Node, b_device: &str) {
        ip(&format!(
            "link add name {a_device} netns {} type veth peer name {b_device} netns {}",
            a.netns, b.netns
        ));
        for (node, device) in [(a, a_device), (b, b_device)] {
            node.ip(&format!("link set dev {device} up"));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(janitor) = self.janitor.borrow_mut().take() {
            janitor.let_go(Duration::from_secs(30));
        }
    }
}

/// Fails loudly where no laboratory can be made.
pub fn require() {
    assert!(
        rustix::process::geteuid().is_root(),
        "the laboratory makes network namespaces: run it as root"
    );
    for (program, package) in [("ip", "iproute2"), ("nft", "nftables"), ("sysctl", "procps")] {
        assert!(
            Command::new(program).arg("--version").output().is_ok(),
            "the laboratory needs `{program}`: install the package {package}"
        );
    }
}

fn lock() -> File {
    let _made = std::fs::create_dir_all("/run/lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(LOCK)
        .expect("the lock file of the laboratory");
    wait::wait_for("the laboratory of another run to end", LOCK_WITHIN, || {
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).ok()
    });
    file
}

/// Removes every namespace under `prefix` and ends what runs in it.
pub fn sweep(prefix: &str) {
    let listed = must(Command::new("ip").args(["netns", "list"]));
    let names: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with(prefix))
        .collect();
    for name in &names {
        wait::wait_until(Duration::from_secs(5), || {
            let pids = must(Command::new("ip").args(["netns", "pids", name]));
            for pid in pids
                .split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .filter_map(rustix::process::Pid::from_raw)
            {
                let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            pids.trim().is_empty().then_some(())
        });
    }
    for name in &names {
        let _left = Command::new("ip").args(["netns", "del", name]).output();
    }
}
