//! Cgroups, namespaces, wires and processes of a test's own, all gone when it ends.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sekisho_agent::target::Tree;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A name of this run.
pub(crate) fn fresh_name() -> String {
    format!("skt{}-{}", std::process::id() % 100_000, SERIAL.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Waits for a condition, and says whether it came.
pub(crate) fn waits_until(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

/// A cgroup with all below it; removed with what runs in it.
pub(crate) struct Cgroup {
    pub(crate) path: String,
    pub(crate) tree: Tree,
}

impl Cgroup {
    pub(crate) fn new() -> Self {
        let tree = Tree::find().unwrap();
        let path = format!("/{}", fresh_name());
        fs::create_dir(tree.directory(&path)).unwrap();
        Self { path, tree }
    }

    /// Makes one below, and returns its path.
    pub(crate) fn below(&self, name: &str) -> String {
        let path = format!("{}/{name}", self.path);
        fs::create_dir_all(self.tree.directory(&path)).unwrap();
        path
    }

    pub(crate) fn id(&self, path: &str) -> u64 {
        fs::metadata(self.tree.directory(path)).unwrap().ino()
    }

    /// Starts a program in a cgroup, and waits until it says that it is ready, if it says anything.
    pub(crate) fn start(&self, path: &str, command: &[&str]) -> Process {
        self.start_with(path, command, Stdio::null())
    }

    /// Starts a program in a cgroup with this input.
    pub(crate) fn start_with(
        &self,
        path: &str,
        command: &[&str],
        input: impl Into<Stdio>,
    ) -> Process {
        let file = self.tree.directory(path).join("cgroup.procs");
        let script = format!("echo $$ > {} && exec 2>&1 && echo in && exec \"$@\"", file.display());
        let mut child = Command::new("sh")
            .args(["-c", &script, "sh"])
            .args(command)
            .stdin(input)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "in\n", "{command:?}");
        Process { child, output }
    }

    /// Runs a Perl program in a cgroup, and waits until it has printed a line.
    pub(crate) fn perl(&self, path: &str, program: &str) -> Process {
        let mut process = self.start(
            path,
            &[
                "perl",
                "-MIO::Socket::INET",
                "-e",
                &format!("$|=1; {program}; print \"ready\\n\"; sleep 600"),
            ],
        );
        assert_eq!(process.line(), "ready", "{program}");
        process
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let top = self.tree.directory(&self.path);
        let _ = fs::write(top.join("cgroup.freeze"), "0");
        let _ = fs::write(top.join("cgroup.kill"), "1");
        let deadline = Instant::now() + PATIENCE;
        while remove(&top).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn remove(directory: &std::path::Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(directory)
}

/// A program that ends with its handle.
pub(crate) struct Process {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A network namespace with a name.
pub(crate) struct Space(pub(crate) String);

impl Space {
    pub(crate) fn new() -> Self {
        let name = fresh_name();
        run("ip", &["netns", "add", &name]);
        let space = Self(name);
        space.ip("link set lo up");
        space
    }

    /// Runs `ip` in it.
    pub(crate) fn ip(&self, words: &str) {
        let mut all = vec!["-n", &self.0];
        all.extend(words.split(' '));
        run("ip", &all);
    }

    pub(crate) fn inode(&self) -> u64 {
        fs::metadata(format!("/run/netns/{}", self.0)).unwrap().ino()
    }

    /// Runs `body` in it, on a thread of its own.
    pub(crate) fn within<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                body()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Joins it to another by a wire.
    pub(crate) fn wire(&self, own: &str, other: &Self, theirs: &str) {
        run(
            "ip",
            &[
                "link", "add", own, "netns", &self.0, "type", "veth", "peer", "name", theirs,
                "netns", &other.0,
            ],
        );
        self.ip(&format!("link set {own} up"));
        other.ip(&format!("link set {theirs} up"));
    }

    pub(crate) fn mac(&self, device: &str) -> [u8; 6] {
        let text = self.within(|| {
            Command::new("ip").args(["-o", "link", "show", device]).output().unwrap().stdout
        });
        let text = String::from_utf8(text).unwrap();
        let mac = text.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
        let bytes: Vec<u8> =
            mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        bytes.try_into().unwrap()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
