//! The daemon against its operators: a log that nobody reads, a restart in another mode, two at once.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a laboratory fails loudly"
)]

use sekisho_schema::sealed::{key_pair, parse_secret};
use sekisho_schema::{Sealed, Timestamp};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// A namespace with one uplink, and the files of an agent in it; both end with this value.
struct House {
    name: String,
    dir: tempfile::TempDir,
}

/// A running agent; ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl House {
    fn new(tag: &str) -> Self {
        let name = format!("skd{}{tag}", std::process::id());
        ip(&format!("netns add {name}"));
        let house = Self { name, dir: tempfile::tempdir().unwrap() };
        for words in [
            "link set lo up",
            "link add eth0 type veth peer name far0",
            "addr add 203.0.113.1/24 dev eth0",
            "link set eth0 up",
            "link set far0 up",
        ] {
            ip(&format!("-n {} {words}", house.name));
        }
        fs::create_dir(house.dir.path().join("trust")).unwrap();
        fs::write(house.dir.path().join("trust/a.pub"), key_pair(&[1; 32]).1).unwrap();
        house.configure("agent.toml", "run");
        house
    }

    fn configure(&self, file: &str, run: &str) {
        let at = |part: &str| self.dir.path().join(part).display().to_string();
        let text = format!(
            "host = \"web-1\"\npolicy = {:?}\n[capture]\ninterfaces = [\"eth0\"]\n[paths]\nstate = {:?}\nrun = {:?}\nrules = {:?}\ntrust = {:?}\n[metrics]\nenabled = false\n",
            at("policy.sealed"),
            at("state"),
            at(run),
            at("rules"),
            at("trust"),
        );
        fs::write(self.dir.path().join(file), text).unwrap();
    }

    fn policy(&self, version: u64, mode: &str) {
        let text = format!(
            "schema = \"sekisho.policy/1\"\nversion = {version}\nmode = \"{mode}\"\n[duty]\ngroup = \"web\"\nowner = \"a\"\ndeputy = \"b\"\n"
        );
        let sealed = Sealed::wrap("policy", version, Timestamp::MAX, text.as_bytes())
            .signed_by(&parse_secret(&key_pair(&[1; 32]).0).unwrap());
        fs::write(self.dir.path().join("policy.sealed"), sealed.to_text()).unwrap();
    }

    fn command(&self, file: &str, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name, env!("CARGO_BIN_EXE_sekisho")])
            .args(words)
            .arg("--config")
            .arg(self.dir.path().join(file))
            .stdin(Stdio::null());
        command
    }

    fn verb(&self, words: &[&str]) -> Output {
        self.command("agent.toml", words).output().unwrap()
    }

    /// Starts the agent; its log goes where `stderr` leads.
    fn start(&self, stderr: Stdio) -> Running {
        let mut command = self.command("agent.toml", &["run"]);
        let child = command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        let running = Running(child);
        wait_for("the control socket", || {
            self.status().filter(|status| status["capture"]["realtime"] != "")
        });
        running
    }

    fn status(&self) -> Option<Value> {
        let output = self.verb(&["status", "-o", "json"]);
        serde_json::from_slice(&output.stdout).ok()
    }

    fn scopes(&self) -> Vec<String> {
        let status = self.status().unwrap();
        let held = status["containments"].as_array().unwrap().iter();
        held.map(|held| held["containment"]["scope"].as_str().unwrap().to_owned()).collect()
    }

    fn ruleset(&self) -> String {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.name, "nft", "list", "ruleset"])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn a_log_that_nobody_reads_stops_no_cut() {
    let house = House::new("l");
    house.policy(1, "enforce");
    // Nobody reads the other end, and a pipe takes 64 KiB (pipe(7)): a little is left for the start.
    let (unread, mut log) = std::io::pipe().unwrap();
    log.write_all(&[b'.'; 62 * 1024]).unwrap();
    let _agent = house.start(log.into());
    for n in 1..=40 {
        let scope = format!("dest:198.51.100.{n}");
        let cut = house.verb(&["contain", &scope, "--for", "60s", "--reason", "drill"]);
        assert!(cut.status.success(), "{n}: {}", String::from_utf8_lossy(&cut.stderr));
    }
    let host = house.verb(&["contain", "host", "--for", "60s", "--reason", "drill"]);
    assert!(host.status.success(), "{}", String::from_utf8_lossy(&host.stderr));
    drop(unread);
}

#[test]
fn a_cut_from_before_a_restart_in_dry_run_is_told_and_released_and_leaves_no_table() {
    let house = House::new("d");
    house.policy(1, "enforce");
    let agent = house.start(Stdio::null());
    assert!(house.verb(&["contain", "host", "--for", "1h", "--reason", "drill"]).status.success());
    drop(agent);
    house.policy(2, "dry-run");
    let _agent = house.start(Stdio::null());
    assert_eq!(house.scopes(), ["host"], "what the kernel cuts must be told");
    let id = house.status().unwrap()["containments"][0]["containment"]["id"].clone();
    let released =
        house.verb(&["release", id.as_str().unwrap(), "--reason", "drill", "--break-glass"]);
    assert!(released.status.success(), "{}", String::from_utf8_lossy(&released.stderr));
    wait_for("the end of our tables", || house.ruleset().is_empty().then_some(()));
    assert!(house.scopes().is_empty());
}

#[test]
fn a_cut_that_is_due_when_somebody_took_our_tables_away_is_made_at_once() {
    let house = House::new("f");
    house.policy(1, "enforce");
    let _agent = house.start(Stdio::null());
    for n in 1..=3 {
        ip(&format!("netns exec {} nft flush ruleset", house.name));
        let scope = format!("dest:198.51.100.{n}");
        let cut = house.verb(&["contain", &scope, "--for", "60s", "--reason", "drill"]);
        assert!(cut.status.success(), "{n}: {}", String::from_utf8_lossy(&cut.stderr));
        assert!(house.ruleset().contains(&format!("198.51.100.{n} ")), "{}", house.ruleset());
    }
}

#[test]
fn a_second_agent_on_the_same_state_refuses_to_start() {
    let house = House::new("t");
    house.policy(1, "dry-run");
    let _agent = house.start(Stdio::null());
    house.configure("second.toml", "run2");
    let second = house.command("second.toml", &["run"]).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(2), "{said}");
    assert!(said.contains("another agent holds it"), "{said}");
}

#[test]
fn what_is_written_down_is_for_root_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let house = House::new("p");
    house.policy(1, "dry-run");
    let _agent = house.start(Stdio::null());
    let state = house.dir.path().join("state");
    let log = wait_for("a line in the journal", || {
        fs::read_dir(state.join("journal")).ok()?.flatten().next().map(|entry| entry.path())
    });
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let socket = house.dir.path().join("run/agent.sock");
    let modes = [mode(&state), mode(&state.join("journal")), mode(&log), mode(&socket)];
    assert_eq!(modes, [0o700, 0o700, 0o600, 0o600]);
}

/// The processes named `sekisho guardian` that serve a house: those whose arguments name its run directory.
fn guardians(house: &House) -> Vec<i32> {
    let run = house.dir.path().join("run").display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<String> = words
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        if words.iter().any(|word| word == "guardian") && words.contains(&run) {
            found.push((words.iter().any(|word| word == "--keep"), pid));
        }
    }
    // The one that keeps the other comes last: whoever ends both ends it first.
    found.sort_unstable();
    found.into_iter().map(|(_, pid)| pid).collect()
}

fn kill9(pid: i32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

/// CAP_NET_ADMIN (linux/capability.h).
const NET_ADMIN: u64 = 1 << 12;

#[test]
fn no_thread_of_the_agent_has_the_power_to_cut_and_it_cuts_all_the_same() {
    let house = House::new("c");
    house.policy(1, "enforce");
    let agent = house.start(Stdio::null());
    // `ip netns exec` runs the agent in its own place.
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.0.id())).unwrap();
    let mut threads = 0;
    for task in tasks.flatten() {
        let status = fs::read_to_string(task.path().join("status")).unwrap();
        for key in ["CapEff", "CapPrm", "CapBnd"] {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            let set = u64::from_str_radix(line.rsplit('\t').next().unwrap(), 16).unwrap();
            assert_eq!(set & NET_ADMIN, 0, "{line} of {status}");
        }
        threads += 1;
    }
    assert!(threads > 5, "{threads} threads");
    let cut = house.verb(&["contain", "dest:198.51.100.1", "--for", "1h", "--reason", "r"]);
    assert_eq!(cut.status.code(), Some(0), "{}", String::from_utf8_lossy(&cut.stderr));
    let status = wait_for("ownership in status", || {
        house.status().filter(|status| status["guardian"]["ownership"]["ownership"] == "owned")
    });
    assert_eq!(status["mode"]["effective"], "enforce");
}

#[test]
fn a_guardian_that_is_gone_is_never_told_as_enforce_and_one_that_comes_again_is_told_everything() {
    let house = House::new("g");
    house.policy(1, "enforce");
    let _agent = house.start(Stdio::null());
    let contain = |to: &str| house.verb(&["contain", to, "--for", "1h", "--reason", "r"]);
    assert_eq!(contain("dest:198.51.100.1").status.code(), Some(0));
    let both = guardians(&house);
    assert_eq!(both.len(), 2, "one that serves and one that keeps it");
    // The one that serves dies: the other brings the next, which is told everything anew.
    kill9(both[0]);
    wait_for("another guardian", || {
        guardians(&house).first().filter(|pid| **pid != both[0] && **pid != both[1]).map(drop)
    });
    wait_for("the mode that is in effect again", || {
        house.status().filter(|status| status["mode"]["effective"] == "enforce")
    });
    let done = wait_for("a cut by the next guardian", || {
        Some(contain("dest:198.51.100.2")).filter(|done| done.status.success())
    });
    assert!(done.status.success());
    assert!(house.ruleset().contains("198.51.100.1") && house.ruleset().contains("198.51.100.2"));
    // Both die: nobody can cut, and that is what is told.
    for pid in guardians(&house).into_iter().rev() {
        kill9(pid);
    }
    let refused = contain("dest:198.51.100.3");
    let status = house.status().unwrap();
    assert_ne!(status["mode"]["effective"], "enforce", "{status}");
    assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stderr));
    assert!(!house.ruleset().contains("198.51.100.3"));
    assert!(house.ruleset().contains("198.51.100.1"), "what was cut stays cut");
    assert_eq!(house.verb(&["status"]).status.code(), Some(1));
}
