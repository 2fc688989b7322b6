//! The agent as a process: `sekisho` in a host's namespace, with files of its own.

use super::bins;
use super::node::Node;
use super::wait::{wait_for, wait_until};
use sekisho_schema::sealed::{key_pair, parse_secret};
use sekisho_schema::{Body, Envelope, Finding, Receipt, Sealed, Span, Timestamp};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longest wait for `ready`.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// What an agent needs before it starts: configuration, trust anchor, sealed policy.
#[derive(Clone, Debug)]
pub struct AgentSetup {
    /// The host it runs on.
    pub node: Node,
    /// Its directory.
    pub dir: PathBuf,
    /// More lines of `agent.toml`.
    pub more: String,
    /// Interfaces it captures on; default `eth0`.
    pub interfaces: Vec<String>,
    /// Words before `sekisho` when the daemon is started, such as one that takes a capability away.
    pub wrapper: Vec<String>,
    secret: String,
}

/// What a policy of the laboratory says.
#[derive(Clone, Debug)]
pub struct PolicyText {
    /// Its version.
    pub version: u64,
    /// `learn`, `dry-run` or `enforce`.
    pub mode: &'static str,
    /// Step of the ladder for PlugX.
    pub level: u8,
    /// How long a cut holds.
    pub lease: &'static str,
    /// Cuts of the host, and of destinations, that may begin by themselves within an hour.
    pub budget: [u32; 2],
    /// More TOML.
    pub more: String,
}

impl PolicyText {
    /// A policy that cuts the host's external egress for 24 hours on PlugX.
    #[must_use]
    pub fn new(version: u64, mode: &'static str) -> Self {
        Self { version, mode, level: 5, lease: "24h", budget: [5, 100_000], more: String::new() }
    }

    /// The TOML, with the exemptions of the story.
    #[must_use]
    pub fn toml(&self) -> String {
        use super::topology::{BACKUP, COLLECTOR, MIRROR};
        format!(
            r#"schema = "sekisho.policy/1"
version = {}
mode = "{}"
[[decide]]
detector = "plugx.*"
grade = "malicious"
level = {}
lease = "{}"
[[exempt]]
name = "updates"
to = "{MIRROR}/32"
transport = "tcp"
port = 80
[[exempt]]
name = "backup"
to = "{BACKUP}/32"
transport = "tcp"
port = 8200
[[exempt]]
name = "customers"
service = "tcp/80"
from = "0.0.0.0/0"
[[exempt]]
name = "collector"
to = "{COLLECTOR}/32"
[budget]
host-cuts-per-hour = {}
destination-cuts-per-hour = {}
group-host-cuts-per-hour = {}
[duty]
group = "web"
owner = "Aiko <aiko@shop.example>"
deputy = "Ben <ben@shop.example>"
{}"#,
            self.version,
            self.mode,
            self.level,
            self.lease,
            self.budget[0],
            self.budget[1],
            self.budget[0],
            self.more
        )
    }
}

impl AgentSetup {
    /// Files for an agent on `node` below `dir`: a key pair of its own is the only trust anchor.
    #[must_use]
    pub fn new(node: &Node, dir: &Path, name: &str) -> Self {
        let dir = dir.join(name);
        for part in ["state", "run", "trust.d"] {
            fs::create_dir_all(dir.join(part)).expect("a directory of the agent");
        }
        let (secret, public) = key_pair(&[42; 32]);
        fs::write(dir.join("trust.d/lab.pub"), public).expect("a trust anchor");
        Self {
            node: node.clone(),
            dir,
            more: String::new(),
            interfaces: vec!["eth0".to_owned()],
            wrapper: Vec::new(),
            secret,
        }
    }

    /// The same with more lines of `agent.toml`.
    #[must_use]
    pub fn with(mut self, more: String) -> Self {
        self.more = more;
        self
    }

    /// The trust anchors' directory.
    #[must_use]
    pub fn trust(&self) -> PathBuf {
        self.dir.join("trust.d")
    }

    /// Directory of journal, policy and identity.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Seals a policy with the laboratory's key, as the file the agent adopts at its start.
    pub fn seal(&self, policy: &PolicyText) {
        let expires = now().after(Span::from_hours(24));
        let sealed = Sealed::wrap("policy", policy.version, expires, policy.toml().as_bytes())
            .signed_by(&parse_secret(&self.secret).expect("the laboratory's key"));
        fs::write(self.dir.join("policy.sealed"), sealed.to_text()).expect("a sealed policy");
    }

    /// Writes the configuration and returns its path.
    pub fn configure(&self) -> PathBuf {
        let path = |part: &str| self.dir.join(part).display().to_string();
        let policy = if self.dir.join("policy.sealed").exists() {
            format!("policy = {:?}\n", path("policy.sealed"))
        } else {
            String::new()
        };
        let text = format!(
            "host = {:?}\n{policy}[capture]\ninterfaces = {:?}\n[paths]\nstate = {:?}\nrun = {:?}\nrules = {:?}\ntrust = {:?}\n{}",
            self.node.name,
            self.interfaces,
            path("state"),
            path("run"),
            path("rules"),
            path("trust.d"),
            self.more
        );
        let file = self.dir.join("agent.toml");
        fs::write(&file, text).expect("a configuration");
        file
    }

    /// A verb of `sekisho` with this configuration, run to its end on this host.
    #[must_use]
    pub fn verb(&self, words: &[&str]) -> Output {
        let file = self.configure();
        let mut command = self.node.command(bins::product("sekisho"));
        command.args(words).arg("--config").arg(file).stdin(Stdio::null());
        command.output().expect("sekisho starts")
    }

    /// Releases all that the agent holds, so that what is measured next meets no more than what it makes.
    pub fn release_all(&self, agent: &Agent) {
        let status = agent.status();
        let held = status["containments"].as_array().into_iter().flatten();
        for id in held.filter_map(|held| held["containment"]["id"].as_str()) {
            // One that ended meanwhile is gone as well.
            let _ = self.verb(&["release", id, "--reason", "laboratory", "--break-glass"]);
        }
        // With the last one the hooks go, which the kernel finishes in its own time.
        std::thread::sleep(Duration::from_millis(300));
    }

    /// Like [`Self::verb`], and must succeed.
    pub fn must(&self, words: &[&str]) -> String {
        let output = self.verb(words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "sekisho {words:?} failed with {}: {}",
            output.status,
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Starts the daemon and returns at once.
    #[must_use]
    pub fn launch(&self) -> Agent {
        let file = self.configure();
        let product = bins::product("sekisho");
        let mut command = match self.wrapper.as_slice() {
            [] => self.node.command(product),
            [wrapper, words @ ..] => {
                let mut command = self.node.command(wrapper);
                command.args(words).arg(product);
                command
            }
        };
        command
            .args(["run", "--config"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("sekisho starts");
        let said = Arc::new(Mutex::new(String::new()));
        collect(child.stderr.take().expect("stderr is piped"), Arc::clone(&said));
        Agent { setup: self.clone(), child, said }
    }

    /// Starts the daemon and waits until it is ready.
    #[must_use]
    pub fn start(&self) -> Agent {
        let mut agent = self.launch();
        let ready = wait_until(READY_WITHIN, || {
            let ended = agent.child.try_wait().ok().flatten();
            if agent.stderr().contains("ready") { Some(true) } else { ended.map(|_| false) }
        });
        assert_eq!(
            ready,
            Some(true),
            "the agent did not become ready within {READY_WITHIN:?}; it said:\n{}",
            agent.stderr()
        );
        agent
    }
}

/// Gathers what a child says on a pipe.
pub(super) fn collect(pipe: impl std::io::Read + Send + 'static, said: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        use std::io::BufRead as _;
        for line in std::io::BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut said = said.lock().unwrap();
            said.push_str(&line);
            said.push('\n');
        }
    });
}

/// A running agent; ends with this value.
#[derive(Debug)]
pub struct Agent {
    /// How it was set up.
    pub setup: AgentSetup,
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Agent {
    /// What it has said on stderr.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// `status` as JSON.
    #[must_use]
    pub fn status(&self) -> Value {
        let text = self.setup.must(&["status", "-o", "json"]);
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("status is no JSON: {error}: {text}"))
    }

    /// Every line of its journal, in order.
    #[must_use]
    pub fn journal(&self) -> Vec<Envelope> {
        journal(&self.setup.state().join("journal"))
    }

    /// Findings of a detector so far.
    #[must_use]
    pub fn findings(&self, detector: &str) -> Vec<Finding> {
        findings(&self.journal(), detector)
    }

    /// Waits for the first finding of a detector.
    pub fn finding(&self, detector: &str, deadline: Duration) -> Finding {
        let found = wait_until(deadline, || self.findings(detector).into_iter().next());
        found.unwrap_or_else(|| {
            panic!(
                "no {detector} within {deadline:?}; the agent said:\n{}\njournal: {:#?}",
                self.stderr(),
                self.journal()
            )
        })
    }

    /// Receipts so far.
    #[must_use]
    pub fn receipts(&self) -> Vec<Receipt> {
        self.journal()
            .into_iter()
            .filter_map(|line| match line.body {
                Body::Receipt(receipt) => Some(*receipt),
                _ => None,
            })
            .collect()
    }

    /// Waits for a receipt for which `fits` holds.
    pub fn receipt(
        &self,
        what: &str,
        deadline: Duration,
        fits: impl Fn(&Receipt) -> bool,
    ) -> Receipt {
        let found =
            wait_until(deadline, || self.receipts().into_iter().find(|receipt| fits(receipt)));
        found.unwrap_or_else(|| {
            panic!(
                "no receipt ({what}) within {deadline:?}; receipts: {:#?}; the agent said:\n{}",
                self.receipts(),
                self.stderr()
            )
        })
    }

    /// Ends it without a warning, as a crash or an intruder would.
    pub fn kill9(mut self) -> AgentSetup {
        self.child.kill().expect("the agent was running");
        self.child.wait().expect("the agent ends");
        self.setup.clone()
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(mut self) -> AgentSetup {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .expect("the agent was running");
        wait_for("the agent to end after SIGTERM", Duration::from_secs(10), || {
            self.child.try_wait().ok().flatten()
        });
        self.setup.clone()
    }

    /// Stops it where it is, its guardian too, as a machine without CPU to spare would; [`Self::wake`] lets them go on.
    #[must_use]
    pub fn freeze(&self) -> Vec<rustix::process::Pid> {
        let guardian = self.status()["guardian"]["pid"]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw));
        let mut frozen = vec![rustix::process::Pid::from_child(&self.child)];
        frozen.extend(guardian);
        for pid in &frozen {
            rustix::process::kill_process(*pid, rustix::process::Signal::STOP)
                .expect("it was running");
        }
        frozen
    }

    /// Lets go on what [`Self::freeze`] stopped.
    pub fn wake(&self, frozen: &[rustix::process::Pid]) {
        for pid in frozen {
            rustix::process::kill_process(*pid, rustix::process::Signal::CONT)
                .expect("it was there");
        }
    }

    /// Whether it still runs.
    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Every line of a journal: `HASH JSON`, segments in the order of their names.
#[must_use]
pub fn journal(dir: &Path) -> Vec<Envelope> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "log"))
        .collect();
    files.sort();
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|text| {
            text.lines()
                .filter_map(|line| {
                    line.split_once(' ').and_then(|(_, json)| serde_json::from_str(json).ok())
                })
                .collect::<Vec<Envelope>>()
        })
        .collect()
}

/// Findings of a detector among events.
#[must_use]
pub fn findings(events: &[Envelope], detector: &str) -> Vec<Finding> {
    events
        .iter()
        .filter_map(|line| match &line.body {
            Body::Finding(finding) if finding.detector == detector => Some((**finding).clone()),
            _ => None,
        })
        .collect()
}

/// Now.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::from_nanos(i64::try_from(crate::actors::now_ns()).expect("a time before 2262"))
}

/// `sekisho replay --json` of captures: the bytes on stdout, which must be the same every time.
#[must_use]
pub fn replay(captures: &[&Path], more: &[&str]) -> Vec<u8> {
    let mut command = Command::new(bins::product("sekisho"));
    command.arg("replay").arg("--json").args(more).args(captures).stdin(Stdio::null());
    let output = command.output().expect("sekisho starts");
    let code = output.status.code();
    assert!(
        matches!(code, Some(0 | 1)),
        "replay of {captures:?} failed ({code:?}): {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Events of a replay.
#[must_use]
pub fn events(bytes: &[u8]) -> Vec<Envelope> {
    let text = std::str::from_utf8(bytes).expect("NDJSON is UTF-8");
    text.lines()
        .map(|line| {
            serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("not an event: {error}: {line}"))
        })
        .collect()
}
