//! A journal on a disk that is full: told, survived, made good. Needs root, for a file system of its own.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that meets the unexpected ends"
)]

use sekisho_agent::journal::{JournalOptions, read_envelopes, spawn, verify};
use sekisho_schema::event::{Gap, Release};
use sekisho_schema::{Body, ContainmentId, Envelope, Record, Scope, Timestamp};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

#[test]
fn a_full_disk_is_told_and_nothing_is_lost_when_it_is_freed_in_time() {
    let disk = Disk::mount();
    let (journal, thread) = spawn(disk.journal(), "aaaaaaaaaaaaaaaa", |_| {}).unwrap();
    journal.record(release(1));
    wait_for("the first record", || {
        journal.health().durable.load(std::sync::atomic::Ordering::Relaxed) == 1
    });
    disk.fill();
    for n in 2..=300 {
        journal.record(release(n));
    }
    wait_for("the failure", || journal.health().failure().is_some());
    let failure = journal.health().failure().unwrap();
    assert!(
        failure.contains("cannot write journal") && failure.contains("No space left"),
        "{failure}"
    );
    disk.free();
    wait_for("the recovery", || journal.health().failure().is_none());
    drop(journal);
    thread.join().unwrap();
    let all = disk.read();
    assert_eq!(
        all.iter().map(|envelope| envelope.seq).collect::<Vec<_>>(),
        (1..=300).collect::<Vec<_>>()
    );
    assert_eq!(verify(&disk.journal().dir).unwrap().faults, []);
}

#[test]
fn what_memory_could_not_hold_is_counted_in_a_gap_and_the_lower_class_goes_first() {
    let disk = Disk::mount();
    disk.fill();
    let (journal, thread) = spawn(disk.journal(), "aaaaaaaaaaaaaaaa", |_| {}).unwrap();
    journal.record(lesser(1));
    wait_for("the failure", || journal.health().failure().is_some());
    for n in 2..=3000 {
        journal.record(lesser(n));
    }
    // The queue and the memory behind it are bounded each; this is more than both, a little at a time.
    for n in 1..=3000 {
        journal.record(release(n));
        if n % 500 == 0 {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    wait_for("the loss", || journal.health().lost() > 0);
    disk.free();
    disk.enlarge();
    wait_for("the recovery", || journal.health().failure().is_none());
    let lost = journal.health().lost();
    assert_eq!(journal.health().lost_first.load(std::sync::atomic::Ordering::Relaxed), 0);
    drop(journal);
    thread.join().unwrap();
    let all = disk.read();
    let told: u64 = all
        .iter()
        .filter_map(|envelope| {
            if let Body::Gap(gap) = &envelope.body {
                (gap.cause == "journal").then_some(gap.count)
            } else {
                None
            }
        })
        .sum();
    assert_eq!(told, lost);
    assert_eq!(
        all.iter().filter(|envelope| matches!(envelope.body, Body::Release(_))).count(),
        3000
    );
    assert_eq!(
        all.iter().map(|envelope| envelope.seq).collect::<Vec<_>>(),
        (1..=all.len() as u64).collect::<Vec<_>>()
    );
    assert_eq!(verify(&disk.journal().dir).unwrap().faults, []);
}

#[test]
fn an_agent_whose_disk_is_full_still_cuts_and_says_so() {
    let disk = Disk::mount();
    let net = Namespace::make();
    let policy = disk.home.join("policy.sealed");
    fs::create_dir_all(disk.home.join("trust")).unwrap();
    let (secret, public) = sekisho_schema::sealed::key_pair(&[9; 32]);
    fs::write(disk.home.join("secret"), secret).unwrap();
    fs::write(disk.home.join("policy.toml"), POLICY).unwrap();
    fs::write(disk.home.join("trust/a.pub"), public).unwrap();
    let sealed = sekisho(&[
        "policy",
        "seal",
        path(&disk.home.join("policy.toml")),
        "--key",
        path(&disk.home.join("secret")),
        "--out",
        path(&policy),
    ]);
    assert_eq!(sealed.0, Some(0), "{}", sealed.1);
    let config = disk.home.join("agent.toml");
    fs::write(
        &config,
        format!(
            "host = \"full\"\npolicy = {policy:?}\n[capture]\ninterfaces = [\"up0\"]\nring-mib = 1\n[paths]\nstate = {:?}\nrun = {:?}\ntrust = {:?}\nrules = \"/nonexistent\"\n[metrics]\nenabled = false\n",
            disk.dir,
            disk.home.join("run"),
            disk.home.join("trust"),
        ),
    )
    .unwrap();
    disk.fill();
    let mut agent = net.agent(&config);
    let config = path(&config);
    let status = sekisho(&["status", "--config", config]);
    assert!(
        status.1.contains("JOURNAL    FAILING") && status.1.contains("No space left"),
        "{}",
        status.1
    );
    let cut = sekisho(&[
        "contain",
        "dest:203.0.113.9",
        "--for",
        "60s",
        "--reason",
        "disk is full",
        "--config",
        config,
    ]);
    assert_eq!(cut.0, Some(0), "{}", cut.1);
    assert!(net.ruleset().contains("203.0.113.9"), "{}", net.ruleset());
    disk.free();
    wait_for("the journal to come back", || {
        sekisho(&["status", "--config", config]).1.contains("records of this run are safe")
    });
    agent.stop();
    assert!(disk.read().iter().any(|envelope| matches!(&envelope.body, Body::Containment(held) if held.scope == Scope::Destination([203, 0, 113, 9].into()))));
    assert!(net.ruleset().contains("203.0.113.9"), "an agent that stops lets nothing go");
}

const POLICY: &str = "schema = \"sekisho.policy/1\"\nversion = 1\nmode = \"enforce\"\n[duty]\ngroup = \"g\"\nowner = \"a\"\ndeputy = \"b\"\n";

fn release(n: u64) -> Record {
    let body = Release {
        containment: ContainmentId(format!("c-{n:012}")),
        scope: Scope::Host,
        cause: "order".into(),
        by: None,
        reason: Some("a sentence of ordinary length for a reason".into()),
    };
    Record { at: Timestamp::from_nanos(n.cast_signed()), body: Body::Release(body) }
}

fn lesser(n: u64) -> Record {
    Record {
        at: Timestamp::from_nanos(n.cast_signed()),
        body: Body::Gap(Gap { cause: "capture-drop".into(), count: n, detail: "frames".into() }),
    }
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn sekisho(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sekisho")).args(args).output().unwrap();
    (
        output.status.code(),
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
    )
}

fn system(args: &[&str]) {
    let output = Command::new(args[0]).args(&args[1..]).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A file system of 64 KiB with some ballast on it, and a home beside it.
struct Disk {
    home: PathBuf,
    dir: PathBuf,
    _keep: tempfile::TempDir,
}

impl Disk {
    fn mount() -> Self {
        let keep = tempfile::tempdir().unwrap();
        let home = keep.path().to_owned();
        let dir = home.join("state");
        fs::create_dir(&dir).unwrap();
        system(&["mount", "-t", "tmpfs", "-o", "size=64k", "none", path(&dir)]);
        Self { home, dir, _keep: keep }
    }

    fn journal(&self) -> JournalOptions {
        JournalOptions {
            dir: self.dir.join("journal"),
            host: "full".into(),
            segment_bytes: 8 << 20,
            cap_bytes: 256 << 20,
        }
    }

    fn fill(&self) {
        // Whatever the writer still had open in the last page is used up too.
        let _ = fs::write(self.dir.join("ballast"), vec![1; 128 << 10]);
    }

    fn free(&self) {
        fs::remove_file(self.dir.join("ballast")).unwrap();
        self.enlarge();
    }

    fn enlarge(&self) {
        system(&["mount", "-o", "remount,size=8m", path(&self.dir)]);
    }

    fn read(&self) -> Vec<Envelope> {
        let mut all = Vec::new();
        read_envelopes(&self.journal().dir, |envelope| {
            all.push(envelope);
            true
        })
        .unwrap();
        all
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.dir).status();
    }
}

/// A network namespace of this run with one interface that leads nowhere.
struct Namespace(String);

impl Namespace {
    fn make() -> Self {
        let name = format!("sk-full-{}", std::process::id());
        system(&["ip", "netns", "add", &name]);
        let made = Self(name);
        for args in [
            "link set lo up",
            "link add up0 type veth peer name up1",
            "addr add 10.9.9.2/24 dev up0",
            "link set up1 up",
            "link set up0 up",
            "route add default via 10.9.9.1",
        ] {
            let mut command = vec!["ip", "-n", made.0.as_str()];
            command.extend(args.split(' '));
            system(&command);
        }
        made
    }

    fn agent(&self, config: &Path) -> Agent {
        let mut child = Command::new("ip")
            .args([
                "netns",
                "exec",
                &self.0,
                env!("CARGO_BIN_EXE_sekisho"),
                "run",
                "--config",
                path(config),
            ])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (tell, told) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut said = Vec::new();
        loop {
            match told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.starts_with("sekisho: ready") => return Agent(child),
                Ok(line) => said.push(line),
                Err(_) => {
                    let _ = child.kill();
                    panic!("not ready: {said:?}");
                }
            }
        }
    }

    fn ruleset(&self) -> String {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.0, "nft", "list", "ruleset"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

struct Agent(Child);

impl Agent {
    fn stop(&mut self) {
        system(&["kill", "-TERM", &self.0.id().to_string()]);
        wait_for("the agent's end", || self.0.try_wait().unwrap().is_some());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
