//! The collector as a process: `sekisho-collector` on its host, with a door to its page.

use super::agent::{AgentSetup, PolicyText, collect};
use super::bins;
use super::node::{Actor, Node};
use super::topology::{COLLECTOR, Network};
use super::wait::{wait_for, wait_until};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const READY_WITHIN: Duration = Duration::from_secs(60);
/// Port for agents.
pub const PORT: u16 = 8443;
const PAGE: &str = "127.0.0.1:8444";

/// A collector: its directory, its process when it runs, and the way to its page.
#[derive(Debug)]
pub struct Collector {
    node: Node,
    dir: PathBuf,
    child: Option<Child>,
    said: Arc<Mutex<String>>,
    doors: [Actor; 2],
    /// `sha256:…` of its certificate authority.
    pub pin: String,
    secret: PathBuf,
    public: PathBuf,
}

impl Collector {
    /// Makes a collector's directory with `init`, and a key that seals policies beside it.
    #[must_use]
    pub fn init(network: &Network) -> Self {
        let node = network.collector.clone();
        let base = network.lab.dir();
        let dir = base.join("collector");
        let socket = base.join("page.sock");
        let socket = socket.to_str().expect("a path in UTF-8");
        let inner = node.actor(&["forward", "--unix-in", socket, "--tcp-out", PAGE]);
        let outer = Actor::start(
            Command::new(bins::actor()),
            "door to the page",
            &["forward", "--tcp-in", "127.0.0.1:0", "--unix-out", socket],
        );
        let (secret, public) = (base.join("seal.key"), base.join("seal.pub"));
        let pair = sekisho_schema::sealed::key_pair(&[77; 32]);
        fs::write(&secret, pair.0).expect("a key file");
        fs::write(&public, pair.1).expect("a key file");
        let mut collector = Self {
            node,
            dir,
            child: None,
            said: Arc::default(),
            doors: [inner, outer],
            pin: String::new(),
            secret,
            public,
        };
        let public = collector.public.display().to_string();
        let said = collector.must(&["init", "--address", COLLECTOR]);
        collector.pin = pin_in(&said).unwrap_or_else(|| panic!("init names no sha256 pin: {said}"));
        collector.must(&["trust", "add", &public]);
        collector
    }

    /// A verb of `sekisho-collector`, run to its end on the collector's host.
    #[must_use]
    pub fn verb(&self, words: &[&str]) -> Output {
        let mut command = self.node.command(bins::product("sekisho-collector"));
        command
            .args(words)
            .arg("--dir")
            .arg(&self.dir)
            .stdin(Stdio::null())
            .output()
            .expect("sekisho-collector starts")
    }

    /// Like [`Self::verb`], and must succeed.
    pub fn must(&self, words: &[&str]) -> String {
        let output = self.verb(words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "sekisho-collector {words:?} failed with {}: {}",
            output.status,
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Starts it and waits until it is ready.
    pub fn start(&mut self) {
        let mut command = self.node.command(bins::product("sekisho-collector"));
        command.arg("run").arg("--dir").arg(&self.dir).args([
            "--listen",
            &format!("{COLLECTOR}:{PORT}"),
            "--page",
            PAGE,
            "--page-open",
        ]);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sekisho-collector starts");
        self.said = Arc::default();
        collect(child.stderr.take().expect("stderr is piped"), Arc::clone(&self.said));
        collect(child.stdout.take().expect("stdout is piped"), Arc::clone(&self.said));
        let said = Arc::clone(&self.said);
        let ready = wait_until(READY_WITHIN, || {
            let ended = child.try_wait().ok().flatten();
            if said.lock().unwrap().contains("ready: page") {
                Some(true)
            } else {
                ended.map(|_| false)
            }
        });
        assert_eq!(
            ready,
            Some(true),
            "the collector did not become ready; it said:\n{}",
            self.said.lock().unwrap()
        );
        self.child = Some(child);
    }

    /// Ends it without a warning.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the collector was running");
            child.wait().expect("the collector ends");
        }
    }

    /// A one-time token for an agent.
    #[must_use]
    pub fn token(&self) -> String {
        let said = self.must(&["token", "create"]);
        token_in(&said).unwrap_or_else(|| panic!("token create prints no token: {said}"))
    }

    /// Address for agents.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{COLLECTOR}:{PORT}")
    }

    /// Enrols an agent: it gets its identity, and the collector's trust anchors beside its own.
    pub fn enrol(&self, setup: &AgentSetup) {
        setup.must(&["enroll", &self.url(), "--token", &self.token(), "--ca-pin", &self.pin]);
    }

    /// Seals a policy offline; the sealed file's path.
    #[must_use]
    pub fn seal(&self, policy: &PolicyText) -> PathBuf {
        static SEALED: AtomicU32 = AtomicU32::new(0);
        let desk = self.secret.parent().expect("the key lies in a directory");
        let plain = desk.join(format!("policy-{}.toml", SEALED.fetch_add(1, Ordering::Relaxed)));
        let sealed = plain.with_extension("sealed");
        fs::write(&plain, policy.toml()).expect("a policy file");
        let mut command = Command::new(bins::product("sekisho-collector"));
        command.args(["policy", "seal"]).arg(&plain).arg("--key").arg(&self.secret);
        super::node::must(command.arg("--out").arg(&sealed));
        sealed
    }

    /// Pushes a sealed policy.
    #[must_use]
    pub fn push(&self, sealed: &Path) -> Output {
        self.verb(&["policy", "push", sealed.to_str().expect("a path in UTF-8")])
    }

    /// Address of its page as seen from this machine.
    #[must_use]
    pub fn page_url(&self) -> String {
        format!("http://{}/", self.page_address())
    }

    fn page_address(&self) -> &str {
        self.doors[1].hello["address"].as_str().expect("the door's address")
    }

    /// Asks its page listener: status and body.
    ///
    /// # Errors
    /// What went wrong, in words.
    pub fn get(&self, path: &str) -> Result<(u16, String), String> {
        crate::actors::http::get(&format!("{}{path}", self.page_address()), Duration::from_secs(5))
    }

    /// Asks its API for JSON.
    #[must_use]
    pub fn api(&self, path: &str) -> Option<Value> {
        let (status, body) = self.get(path).ok()?;
        (status == 200).then(|| serde_json::from_str(&body).ok())?
    }

    /// Every event that is stored, as the API tells them.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        let mut all = Vec::new();
        let mut path = "/api/v1/events?limit=500".to_owned();
        // A page names where the next begins; bounded, should it never end.
        for _ in 0..1000 {
            let Some(page) = self.api(&path) else { break };
            all.extend(
                page["events"].as_array().into_iter().flatten().map(|row| row["event"].clone()),
            );
            match page["next"].as_u64() {
                Some(next) => path = format!("/api/v1/events?limit=500&before={next}"),
                None => break,
            }
        }
        all
    }

    /// Waits until the collector has an event for which `fits` holds.
    pub fn event(&self, what: &str, deadline: Duration, fits: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, deadline, || self.events().into_iter().find(|event| fits(event)))
    }

    /// What it has said on stderr.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.said.lock().unwrap().clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut() {
            let _gone = child.kill();
            let _status = child.wait();
        }
    }
}

/// The first `sha256:…` in a text.
fn pin_in(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("sha256:")?;
    let digits: String =
        rest.chars().take_while(|c| c.is_ascii_alphanumeric() || ":+/=-_".contains(*c)).collect();
    (digits.len() > 20).then(|| format!("sha256:{digits}"))
}

/// The token in what `token create` prints: after `--token`, or a line of its own.
fn token_in(text: &str) -> Option<String> {
    let mut words = text.split_whitespace();
    if words.any(|word| word == "--token") {
        return words.next().map(str::to_owned);
    }
    text.lines()
        .map(str::trim)
        .find(|line| line.len() >= 16 && !line.contains(' '))
        .map(str::to_owned)
}
