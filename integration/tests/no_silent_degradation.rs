//! Whatever is taken away, the agent says `enforce` only while it is: either the mode in effect is told to be less
//! within two seconds, or a cut truly holds.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a laboratory fails loudly"
)]

use sekisho_integration::lab::agent::Agent;
use sekisho_integration::lab::bins;
use sekisho_integration::lab::node::must;
use sekisho_integration::lab::probe::{Counter, Through};
use sekisho_integration::topology::C2;
use sekisho_integration::{AgentSetup, Network, PolicyText, Probe, wait_for};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A mode that is not in effect any more is told within this.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// The laboratory, an agent's files, and a sender that was shown to get through.
struct Ground {
    setup: AgentSetup,
    probe: Probe,
    counter: Counter,
    through: Through,
    network: Network,
}

/// What `status` says: the mode in effect, and whether the exit code says that all is well.
#[derive(Debug)]
struct Said {
    effective: String,
    requested: String,
    well: bool,
    whole: Value,
}

impl Ground {
    fn new(more: &str) -> Self {
        let network = Network::build();
        let mut counter = Counter::on(&network.c2, "eth0");
        let mut probe = Probe::new("UDP", &network.web, "udp", &["--dst", C2]);
        let through = probe.control(&mut counter);
        let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent").with(more.to_owned());
        setup.seal(&PolicyText::new(1, "enforce"));
        Self { setup, probe, counter, through, network }
    }

    /// What the agent says; `None` when there is none to say anything.
    fn said(&self) -> Option<Said> {
        let output = self.setup.verb(&["status", "-o", "json"]);
        let whole: Value = serde_json::from_slice(&output.stdout).ok()?;
        let text = |of: &str| whole["mode"][of].as_str().unwrap_or_default().to_owned();
        Some(Said {
            effective: text("effective"),
            requested: text("requested"),
            well: output.status.success(),
            whole,
        })
    }

    /// The agent says within two seconds that it does not enforce, by the mode and by the exit code.
    fn must_say_less(&self, taken: &str) {
        let began = Instant::now();
        let said = loop {
            let said = self.said();
            match said {
                // Without an agent there is nobody who could say that it enforces.
                None => break None,
                Some(said) if said.effective != "enforce" && !said.well => break Some(said),
                Some(said) => assert!(
                    began.elapsed() < TOLD_WITHIN,
                    "{taken}: still told to be {} after {:?}: {}",
                    said.effective,
                    began.elapsed(),
                    said.whole
                ),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        if let Some(said) = &said {
            assert_eq!(said.requested, "enforce", "{taken}: what is asked for stays what it is");
            assert!(said.whole["mode"]["why"].is_string(), "{taken}: {}", said.whole);
        }
        println!(
            "{taken:<50} told as {} after {:?}",
            said.map_or_else(|| "no agent".to_owned(), |said| said.effective),
            began.elapsed()
        );
    }

    /// Within two seconds nothing gets through, and the agent says so.
    fn must_hold(&mut self, taken: &str) {
        std::thread::sleep(TOLD_WITHIN);
        self.probe.assert_cut(&mut self.counter, &self.through);
        println!("{taken:<50} the cut holds; told as {:?}", self.said().map(|said| said.effective));
    }

    fn cut(&self) {
        self.setup.must(&["contain", "host", "--for", "1h", "--reason", "laboratory"]);
    }

    fn enforcing(&self, agent: &Agent) -> Said {
        let said = wait_for("the mode enforce", Duration::from_secs(10), || {
            self.said().filter(|said| said.effective == "enforce" && said.well)
        });
        assert!(!agent.stderr().contains("panicked"), "{}", agent.stderr());
        said
    }

    /// Starts the agent by a command that takes something away first; ends with the value.
    fn start_by(&self, words: &[&str]) -> Running {
        let file = self.setup.configure();
        let mut command = self.setup.node.command(words[0]);
        command
            .args(&words[1..])
            .arg(bins::product("sekisho"))
            .args(["run", "--config"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Running(command.spawn().expect("sekisho starts"))
    }

    fn wait_for_agent(&self) -> Said {
        wait_for("an agent that answers", Duration::from_secs(20), || {
            self.said().filter(|said| said.whole["capture"]["realtime"] != "")
        })
    }
}

/// A child that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a process");
    rustix::process::kill_process(pid, signal).expect("it was running");
}

fn guardian_of(said: &Said) -> i32 {
    let pid = said.whole["guardian"]["pid"].as_i64().unwrap_or_else(|| panic!("{}", said.whole));
    i32::try_from(pid).expect("a process id")
}

fn parent_of(pid: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("PPid:")).expect("it has a parent");
    line.split_whitespace().nth(1).and_then(|pid| pid.parse().ok()).expect("a number")
}

#[test]
fn an_agent_without_the_capability_and_without_a_guardian_never_says_enforce() {
    let ground = Ground::new("");
    let _agent =
        ground.start_by(&["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]);
    ground.wait_for_agent();
    ground.must_say_less("started without CAP_NET_ADMIN");
    let refused = ground.setup.verb(&["contain", "host", "--for", "1h", "--reason", "laboratory"]);
    assert!(!refused.status.success(), "an order that can't be carried out is not told as done");
}

#[test]
fn an_agent_whose_guardian_lacks_the_capability_never_says_enforce() {
    let ground = Ground::new("[enforce]\nguardian = \"socket\"\n");
    let file = ground.setup.configure();
    let mut command = ground.setup.node.command("setpriv");
    command
        .args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"])
        .arg(bins::product("sekisho"))
        .args(["guardian", "--config"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _guardian = Running(command.spawn().expect("a guardian starts"));
    let _agent = ground.start_by(&["env"]);
    ground.wait_for_agent();
    ground.must_say_less("guardian without CAP_NET_ADMIN");
}

#[test]
fn without_nft_the_mode_is_less_from_the_start_and_a_cut_in_force_needs_none() {
    let ground = Ground::new("");
    // A device is no program: the place is there, and nothing in it can be run. Gone with the mounts of this command.
    let hide = "for nft in /usr/sbin/nft /sbin/nft /usr/bin/nft /usr/local/sbin/nft; do [ -e $nft ] && mount --bind /dev/null $nft; done; exec \"$@\"";
    let agent = ground.start_by(&["sh", "-c", hide, "sh"]);
    ground.wait_for_agent();
    ground.must_say_less("started without nft");
    drop(agent);
}

#[test]
fn a_guardian_that_is_gone_for_good_is_told_and_one_that_hangs_as_well() {
    use rustix::process::Signal;
    for (taken, hangs) in [
        ("guardian killed, and nobody starts another", false),
        ("guardian stopped (SIGSTOP)", true),
    ] {
        let mut ground = Ground::new("");
        let agent = ground.setup.start();
        let said = ground.enforcing(&agent);
        ground.cut();
        let guardian = guardian_of(&said);
        let keeper = parent_of(guardian);
        if hangs {
            signal(guardian, Signal::STOP);
        } else {
            signal(keeper, Signal::KILL);
            signal(guardian, Signal::KILL);
        }
        ground.must_say_less(taken);
        // What is in the kernel stays there without anybody.
        ground.must_hold(taken);
        if hangs {
            signal(guardian, Signal::CONT);
            // It is believed again only when it works again.
            ground.enforcing(&agent);
            ground.must_hold("guardian goes on");
        }
    }
}

#[test]
fn a_directory_in_which_no_socket_can_be_made_gives_no_agent_that_says_enforce() {
    let ground = Ground::new("");
    let run = ground.setup.dir.join("run");
    let _mounted = Mounted::over(&run, "ro,size=64k");
    let agent = ground.start_by(&["env"]);
    std::thread::sleep(TOLD_WITHIN);
    ground.must_say_less("/run can't be written");
    drop(agent);
}

/// A small file system over a directory, taken away with this value.
struct Mounted(PathBuf);

impl Mounted {
    fn over(dir: &std::path::Path, options: &str) -> Self {
        must(Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir));
        Self(dir.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_state_directory_that_is_full_or_read_only_stops_no_cut() {
    for (taken, take) in [
        ("state directory full", "dd if=/dev/zero of=STATE/fill bs=4k 2>/dev/null; true"),
        // Over itself, as a mount with a file open for writing can't become read-only.
        ("state directory read-only", "mount --bind STATE STATE && mount -o remount,bind,ro STATE"),
    ] {
        let mut ground = Ground::new("");
        let state = ground.setup.state();
        let _mounted = Mounted::over(&state, "size=8m");
        let agent = ground.setup.start();
        ground.enforcing(&agent);
        let taking = take.replace("STATE", &state.display().to_string());
        // The agent sees the mounts of the command that started it: of its own copy of this host's.
        let pid = ground.said().expect("it runs").whole["pid"].as_i64().expect("a process id");
        must(Command::new("nsenter").args(["-m", "-t", &pid.to_string(), "sh", "-c", &taking]));
        let ordered =
            ground.setup.verb(&["contain", "host", "--for", "1h", "--reason", "laboratory"]);
        let said = ground.said().expect("an agent");
        if said.effective == "enforce" && said.well {
            assert!(
                ordered.status.success(),
                "{taken}: {}",
                String::from_utf8_lossy(&ordered.stderr)
            );
            ground.must_hold(taken);
        } else {
            ground.must_say_less(taken);
        }
    }
}

#[test]
fn tables_deleted_again_and_again_are_there_again_or_can_not_be_deleted() {
    for (taken, more) in [
        ("tables deleted in a loop, ours alone", ""),
        ("tables deleted in a loop, shared", "[enforce]\nown-tables = false\n"),
    ] {
        let mut ground = Ground::new(more);
        let agent = ground.setup.start();
        ground.enforcing(&agent);
        ground.cut();
        let until = Instant::now() + Duration::from_secs(4);
        let mut deleted = 0;
        while Instant::now() < until {
            for table in ["inet sekisho", "netdev sekisho"] {
                let words = ["delete", "table"].into_iter().chain(table.split(' '));
                let done =
                    ground.network.web.command("nft").args(words).stderr(Stdio::null()).status();
                deleted += u32::from(done.is_ok_and(|status| status.success()));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        println!("{taken}: {deleted} times done");
        assert_eq!(deleted == 0, more.is_empty(), "{taken}: {deleted} times");
        ground.must_hold(taken);
        if deleted > 0 {
            let told = agent.journal().into_iter().filter(
                |line| matches!(&line.body, sekisho_schema::Body::Gap(gap) if gap.cause == "drift"),
            );
            assert!(told.count() > 0, "{taken}: on record");
        }
    }
}

#[test]
fn an_uplink_that_is_renamed_or_made_anew_is_no_way_out_of_a_cut() {
    let mut ground = Ground::new("");
    let agent = ground.setup.start();
    ground.enforcing(&agent);
    ground.cut();
    let web = ground.network.web.clone();
    web.ip("link set dev eth0 name wan7");
    ground.must_hold("uplink renamed");
    // A raw sender on the device by its new name meets the hook as well.
    let gateway = ground.network.gw.mac("to-web");
    let own = web.mac("wan7");
    let arguments =
        ["--dst", C2, "--src", "10.77.1.2", "--dev", "wan7", "--dmac", &gateway, "--smac", &own];
    let mut raw = Probe::new("AF_PACKET on the renamed uplink", &web, "packet", &arguments);
    let id = ground.said().expect("an agent").whole["containments"][0]["containment"]["id"]
        .as_str()
        .expect("a cut")
        .to_owned();
    ground.setup.must(&["release", &id, "--reason", "laboratory", "--break-glass"]);
    let through = raw.control(&mut ground.counter);
    ground.cut();
    std::thread::sleep(TOLD_WITHIN);
    let leaked = raw.leaked(&mut ground.counter, &through);
    let said = ground.said().expect("an agent");
    let admits = !said.well
        || said.whole["coverage"]
            .as_array()
            .is_some_and(|gaps| gaps.iter().any(|gap| gap == "device_without_hook:wan7"));
    println!("raw sender on the renamed uplink: {leaked} of 20, told: {admits}");
    assert!(
        leaked == 0 || admits,
        "{leaked} frames left by a device that is told to be covered: {}",
        said.whole
    );
}
