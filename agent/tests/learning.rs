//! From learning to a cut that a certificate allows, with the real daemon on a real wire.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a laboratory fails loudly"
)]

mod lab;

use lab::Lab;
use sekisho_agent::baseline::{read_kept, read_learned};
use sekisho_engine::certify::episode::{ScoreInputs, input, scored};
use sekisho_engine::certify::{Channel, EpisodeKey};
use sekisho_schema::baseline::{Episode, LEARNED_SCHEMA, Learned};
use sekisho_schema::sealed::{key_pair, parse_secret};
use sekisho_schema::{Sealed, Span, Timestamp};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
/// Where uploads go: nothing is answered there.
const PORT: u16 = 9443;

/// A volume in memory: nobody else takes so much of it while a test runs.
const VOLUME: &str = "/dev/shm";
/// Free space is looked at each minute.
const MINUTES: Duration = Duration::from_secs(150);

/// A Monday, 00:00 UTC.
const START: Timestamp = Timestamp::from_nanos(1_779_667_200_000_000_000);

/// The files of an agent.
struct House {
    dir: tempfile::TempDir,
}

/// A running agent; ends with this value.
struct Running(Child);

impl Running {
    /// Asks it to end, and waits until it has written everything down.
    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        wait_for("the end of the agent", || self.0.try_wait().unwrap());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for<T>(what: &str, found: impl FnMut() -> Option<T>) -> T {
    wait_longer(PATIENCE, what, found)
}

fn wait_longer<T>(patience: Duration, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(began.elapsed() < patience, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn said(output: &Output) -> String {
    [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat()
}

impl House {
    fn new() -> Self {
        let house = Self { dir: tempfile::tempdir().unwrap() };
        for name in ["learned", "trust"] {
            fs::create_dir(house.path(name)).unwrap();
        }
        let (secret, public) = key_pair(&[1; 32]);
        fs::write(house.path("key"), secret).unwrap();
        fs::write(house.path("trust/a.pub"), public).unwrap();
        let text = format!(
            "host = \"web-1\"\npolicy = {:?}\n[capture]\ninterfaces = [\"h0\"]\n[paths]\nstate = {:?}\nrun = {:?}\nrules = {:?}\ntrust = {:?}\n[metrics]\nenabled = false\n[enforce]\nlinger-secs = 1\n",
            house.path("policy.sealed"),
            house.path("state"),
            house.path("run"),
            house.path("rules"),
            house.path("trust"),
        );
        fs::write(house.path("agent.toml"), text).unwrap();
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn policy(&self, version: u64, mode: &str) {
        let text = format!(
            "schema = \"sekisho.policy/1\"\nversion = {version}\nmode = \"{mode}\"\n[[decide]]\ndetector = \"behaviour.allowance\"\ngrade = \"suspect\"\nlevel = 3\nlease = \"1h\"\n[allowance]\nlearn-for = \"1s\"\nper-destination-bytes = 100000000\n[duty]\ngroup = \"web\"\nowner = \"a\"\ndeputy = \"b\"\n"
        );
        let sealed = Sealed::wrap("policy", version, Timestamp::MAX, text.as_bytes())
            .signed_by(&parse_secret(&key_pair(&[1; 32]).0).unwrap());
        fs::write(self.path("policy.sealed"), sealed.to_text()).unwrap();
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sekisho"));
        command.args(words).arg("--config").arg(self.path("agent.toml"));
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    fn verb(&self, words: &[&str]) -> (i32, String) {
        let output = self.command(words).output().unwrap();
        (output.status.code().unwrap(), said(&output))
    }

    /// A verb that must do what it is asked.
    fn done(&self, words: &[&str]) -> String {
        let (code, told) = self.verb(words);
        assert_eq!(code, 0, "{words:?}: {told}");
        told
    }

    fn start(&self) -> Running {
        let log = fs::File::create(self.path("log")).unwrap();
        let running = Running(self.command(&["run"]).stderr(log).spawn().unwrap());
        wait_for("the control socket", || {
            self.status().filter(|status| status["capture"]["realtime"] != "")
        });
        running
    }

    fn status(&self) -> Option<Value> {
        let output = self.command(&["status", "-o", "json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }

    fn learning(&self) -> Value {
        self.status().unwrap()["learning"].clone()
    }

    /// What is held, by scope and measure.
    fn held(&self) -> Vec<(String, Value)> {
        let status = self.status().unwrap();
        let held = status["containments"].as_array().unwrap().iter();
        held.map(|held| {
            let containment = &held["containment"];
            (containment["scope"].as_str().unwrap().to_owned(), containment["measure"].clone())
        })
        .collect()
    }

    /// A connection to an address from which nothing was sent.
    fn connect(&self, to: &str) -> TcpStream {
        let to: SocketAddr = format!("{to}:{PORT}").parse().unwrap();
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))
            .unwrap_or_else(|error| panic!("{to}: {error}; held: {:?}", self.held()));
        stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        stream
    }

    /// Sends so much to an address; a cut ends it early.
    fn upload(&self, to: &str, bytes: usize) {
        self.send(self.connect(to), bytes);
    }

    fn send(&self, mut stream: TcpStream, bytes: usize) {
        for chunk in vec![b'a'; bytes].chunks(65_536) {
            if stream.write_all(chunk).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        drop(stream);
        // What was written last must have been seen.
        std::thread::sleep(Duration::from_millis(300));
    }

    fn item(&self, destination: &str) -> String {
        let (_, text) = self.verb(&["baseline", "review", "--learned", "learned", "-o", "json"]);
        let items: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let item = items.iter().find(|item| item["key"]["destination"] == destination);
        item.unwrap_or_else(|| panic!("{text}"))["id"].as_str().unwrap().to_owned()
    }

    /// Records of the other hosts of the role: four quiet weeks each.
    fn others(&self) {
        for n in 1..=39_u64 {
            let inputs = ScoreInputs(vec![(input::UP, n as f64 * 1000.0), (input::DOWN, 0.0)]);
            let hour = |hours| START.after(Span::from_hours(hours));
            let episode = Episode {
                key: EpisodeKey {
                    workload: "unit:web.service".parse().unwrap(),
                    destination: format!("own{n}.example").parse().unwrap(),
                    service: "tcp/443".parse().unwrap(),
                },
                first_at: START,
                last_at: hour(1),
                contacts: 1,
                days: 1,
                hours: 1,
                up: n * 1000,
                down: 0,
                net: n * 1000,
                rhythm: 0.0,
                proven_at: None,
                gaps: Vec::new(),
                oddities: Vec::new(),
                users: 1,
                scores: vec![scored(Channel::Allowance, hour(1), inputs).unwrap()],
                crossings: Vec::new(),
            };
            let record = Learned {
                schema: LEARNED_SCHEMA.into(),
                host: format!("h{n:02}"),
                role: "web".into(),
                agent: "0.1.0".into(),
                from: START,
                until: hour(4 * 168),
                hours: 4 * 168,
                hours_of_week: vec![4; 168],
                workloads: Vec::new(),
                episodes: vec![episode],
            };
            let text = serde_json::to_string(&record).unwrap();
            fs::write(self.path(&format!("learned/h{n:02}.json")), text).unwrap();
        }
    }

    /// Learns from a few uploads; what a person must sign is that to `[2001:db8:8::2]`.
    fn learn(&self) {
        self.policy(1, "learn");
        let agent = self.start();
        self.upload("203.0.113.2", 50_000);
        self.upload("[2001:db8:8::2]", 11_000_000);
        let status = self.learning();
        assert_eq!(status["record"]["episodes"], 2, "{status}");
        assert_eq!(status["record"]["role"], "web");
        agent.stop();
        let told = self.done(&["baseline", "export", "--out", "learned/web-1.json"]);
        assert!(told.contains("wrote 2 episodes of web-1 (web)"), "{told}");
        self.others();
    }

    /// A baseline with what was signed, and a certificate.
    fn certify(&self) {
        let backup = self.item("2001:db8:8::/48");
        let by = ["--by", "Aiko", "--reason", "the backup", "--key", "key"];
        let words = ["baseline", "approve", &backup, "--learned", "learned", "--out", "b.sealed"];
        let told = self.done(&[&words[..], &by[..]].concat());
        assert!(told.contains("0 left to decide"), "{told}");
        let words = ["baseline", "certify", "--learned", "learned", "--baseline", "b.sealed"];
        let told = self.done(&[&words[..], &["--key", "key", "--out", "c.sealed"]].concat());
        assert!(told.contains("above 1.0 MB"), "{told}");
        let words = ["baseline", "report", "--learned", "learned", "--baseline", "b.sealed"];
        let (code, told) = self.verb(&[&words[..], &["--certificate", "c.sealed"]].concat());
        assert!(code < 2 && told.contains("dry run of role web"), "{code}: {told}");
    }

    fn import(&self) {
        self.done(&["baseline", "import", "b.sealed"]);
        self.done(&["baseline", "import", "c.sealed"]);
        wait_for("the certificate", || {
            let learning = self.learning();
            (learning["documents"]["certificate"] == 1 && learning["documents"]["baseline"] == 1)
                .then_some(())
        });
    }

    /// What the findings of a detector say.
    fn findings(&self, detector: &str) -> Vec<String> {
        let mut found = Vec::new();
        sekisho_agent::journal::read_envelopes(&self.path("state/journal"), |envelope| {
            if let sekisho_schema::Body::Finding(finding) = &envelope.body
                && finding.detector == detector
            {
                found.push(finding.explanation.clone());
            }
            true
        })
        .unwrap();
        found
    }

    /// The events of the journal that changed documents, by outcome.
    fn outcomes(&self) -> Vec<String> {
        let mut outcomes = Vec::new();
        sekisho_agent::journal::read_envelopes(&self.path("state/journal"), |envelope| {
            if let sekisho_schema::Body::Policy(change) = &envelope.body {
                outcomes.push(change.outcome.clone());
            }
            true
        })
        .unwrap();
        outcomes
    }
}

/// A file that takes room on a volume, and is gone with this value.
struct Archive(PathBuf);

impl Archive {
    fn new(bytes: usize) -> Self {
        let path = PathBuf::from(format!("{VOLUME}/sekisho-archive-{}", std::process::id()));
        let archive = Self(path);
        fs::write(&archive.0, vec![7; bytes]).unwrap();
        archive
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn locked(learning: &Value, tier: &str, channel: &str) -> Option<f64> {
    let locked = learning["authority"]["locked"].as_array().unwrap();
    let found = locked.iter().find(|locked| locked["tier"] == tier && locked["channel"] == channel);
    found.map(|locked| locked["missing_host_weeks"].as_f64().unwrap())
}

/// Gives the hour that is about to end time to end: episodes are put in order then.
fn away_from_the_hour(lab: &Lab) {
    let left = 3600 - lab.now().seconds().rem_euclid(3600);
    if left < 40 {
        std::thread::sleep(Duration::from_secs(u64::try_from(left).unwrap() + 1));
    }
}

#[test]
fn a_push_that_follows_a_sudden_fall_of_free_space_is_told_as_data_that_was_gathered() {
    Lab::run("stage", |lab| {
        lab.swallow(PORT);
        let house = House::new();
        let text = fs::read_to_string(house.path("agent.toml")).unwrap();
        let text = format!("{text}[learn]\nvolumes = [\"{VOLUME}\"]\n");
        fs::write(house.path("agent.toml"), text).unwrap();
        house.policy(1, "dry-run");
        let _agent = house.start();
        house.upload("203.0.113.2", 2_000_000);
        assert!(house.findings("behaviour.staging").is_empty(), "nothing was gathered yet");
        // The first look comes within seconds; only what changes after it is a fall.
        std::thread::sleep(Duration::from_secs(8));
        let _archive = Archive::new(150_000_000);
        wait_longer(MINUTES, "the fall of free space", || {
            let log = fs::read_to_string(house.path("log")).unwrap();
            log.contains("free space fell").then_some(())
        });
        house.upload("198.51.100.2", 2_000_000);
        let told = wait_for("the finding", || house.findings("behaviour.staging").pop());
        assert!(told.contains("free space"), "{told}");
    });
}

#[test]
fn behaviour_cuts_only_where_a_certificate_allows_and_no_more_often_than_promised() {
    Lab::run("cert", |lab| {
        lab.swallow(PORT);
        let house = House::new();
        house.learn();
        house.certify();

        // Enforcing without a certificate: behaviour alerts, and says how many host-weeks are missing.
        house.policy(2, "enforce");
        let agent = house.start();
        house.upload("198.51.100.2", 2_000_000);
        assert!(house.held().is_empty(), "{:?}", house.held());
        let learning = house.learning();
        assert!(locked(&learning, "cut-destination", "allowance").unwrap() > 100.0, "{learning}");
        let told = said(&house.command(&["status"]).output().unwrap());
        assert!(told.contains("ALERTS ONLY, cuts nothing: there is no certificate"), "{told}");
        assert!(told.contains("more host-weeks"), "{told}");

        // With it: what was signed goes through, what was not is cut. The connection is there
        // before the certificate: the last bytes of the upload above are charged as its flow ends,
        // seconds after, which may cut the destination before more is sent.
        let open = house.connect("198.51.100.2");
        house.import();
        assert_eq!(locked(&house.learning(), "cut-destination", "allowance"), None);
        house.upload("[2001:db8:8::2]", 3_000_000);
        house.send(open, 3_000_000);
        let cut = wait_for("the cut", || (!house.held().is_empty()).then(|| house.held()));
        // Nothing is told of the measure where it is the plain cut.
        assert_eq!(cut, [("dest:198.51.100.2".to_owned(), Value::Null)], "the other was signed");
        assert_eq!(house.learning()["authority"]["cuts_left"], 0);
        let why = house.done(&["status"]);
        assert!(why.contains("a cut of the destination is due above 1.0 MB"), "{why}");

        // The week's cut is spent, over a restart, too: a second one becomes a hold.
        agent.stop();
        let _agent = house.start();
        let learning = house.learning();
        assert_eq!(learning["authority"]["cuts_left"], 0, "{learning}");
        assert_eq!(learning["documents"]["certificate"], 1);
        house.upload("203.0.113.3", 3_000_000);
        let held = wait_for("the hold", || {
            house.held().into_iter().find(|(scope, _)| scope == "dest:203.0.113.3")
        });
        assert_eq!(held.1["do"], "throttle", "{held:?}");
        assert!(house.learning()["authority"]["cuts_refused"].as_u64().unwrap() > 0);
        let replayed = house.done(&["baseline", "replay"]);
        assert!(replayed.contains(", 0 do not"), "{replayed}");
    });
}

/// What is announced passes up to its amount, and what is beyond it is cut.
fn announced_software_passes(house: &House) {
    house.done(&[
        "baseline",
        "announce",
        "new backup",
        "--to",
        "198.51.100.0/24",
        "--upload",
        "4000000",
        "--for",
        "2h",
        "--by",
        "Aiko",
        "--role",
        "web",
        "--key",
        "key",
        "--out",
        "w.sealed",
    ]);
    house.done(&["baseline", "import", "w.sealed"]);
    wait_for("the change window", || {
        let learning = house.learning();
        (learning["authority"]["windows"][0]["name"] == "new backup").then_some(())
    });
    house.upload("198.51.100.2", 3_000_000);
    assert!(house.held().is_empty(), "it was announced: {:?}", house.held());
    house.upload("198.51.100.2", 2_000_000);
    wait_for("the cut", || (!house.held().is_empty()).then_some(()));
}

#[test]
fn a_tampered_certificate_is_refused_and_the_old_one_stays() {
    Lab::run("tamp", |lab| {
        lab.swallow(PORT);
        let house = House::new();
        house.learn();
        house.certify();
        house.policy(2, "enforce");
        let _agent = house.start();
        house.import();
        announced_software_passes(&house);
        let path = house.path("state/certificate.sealed");
        let whole = fs::read_to_string(&path).unwrap();
        let at = whole.find("payload").unwrap() + 40;
        let mut tampered = whole.into_bytes();
        tampered[at] = if tampered[at] == b'A' { b'B' } else { b'A' };
        fs::write(&path, &tampered).unwrap();
        let refused = wait_for("the refusal", || {
            let learning = house.learning();
            learning["documents"]["refused"].as_str().map(str::to_owned)
        });
        assert!(refused.contains("version 1 stays in force"), "{refused}");
        let learning = house.learning();
        assert_eq!(learning["documents"]["certificate"], 1);
        assert_eq!(locked(&learning, "cut-destination", "allowance"), None, "it still holds");
        // The verb refuses it as well, before it gets there.
        fs::write(house.path("tampered.sealed"), &tampered).unwrap();
        let (code, told) = house.verb(&["baseline", "import", "tampered.sealed"]);
        assert!(code > 0 && told.contains("error: ") && told.contains("help: "), "{told}");
        let outcomes = house.outcomes();
        for outcome in ["baseline-adopted", "certificate-adopted", "certificate-refused"] {
            assert!(outcomes.iter().any(|told| told == outcome), "{outcome}: {outcomes:?}");
        }
    });
}

#[test]
fn a_restart_loses_no_score_and_a_damaged_file_is_put_aside_and_said() {
    Lab::run("keep", |lab| {
        lab.swallow(PORT);
        away_from_the_hour(lab);
        let house = House::new();
        house.policy(1, "learn");
        let agent = house.start();
        for (n, to) in ["203.0.113.2", "198.51.100.2", "[2001:db8:7::2]"].iter().enumerate() {
            house.upload(to, 100_000 * (n + 1));
        }
        agent.stop();
        let state = house.path("state");
        let first = read_kept(&state).unwrap().unwrap();
        let learned = |house: &House| {
            read_learned(&[house.path("state/learned.json")]).unwrap().remove(0).episodes
        };
        let scores = learned(&house);
        assert_eq!(scores.len(), 3);
        assert!(scores.iter().all(|episode| episode.score(Channel::Allowance).is_some()));
        // A restart in between changes no byte of it.
        house.start().stop();
        let second = read_kept(&state).unwrap().unwrap();
        assert_eq!(first.episodes, second.episodes);
        assert_eq!(scores, learned(&house));
        // What goes on is counted from where it was.
        let agent = house.start();
        house.upload("203.0.113.2", 300_000);
        agent.stop();
        let upload = |episodes: &[Episode], of: &str| {
            let of = |episode: &&Episode| episode.key.destination.to_string() == of;
            episodes.iter().find(of).unwrap().up
        };
        let after = learned(&house);
        assert_eq!(after.len(), 3);
        // A flow is counted in steps of 64 KiB until it is over.
        let grown = upload(&after, "203.0.113.0/24") - upload(&scores, "203.0.113.0/24");
        assert!((196_608..=300_000).contains(&grown), "{grown}");

        // A damaged file: three lines, put aside, begun anew, and told.
        let path = state.join("learning.state");
        let mut damaged = fs::read(&path).unwrap();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let (code, told) = house.verb(&["check"]);
        assert!(code == 1 && told.contains("it is damaged: its digest does not match"), "{told}");
        let agent = house.start();
        let log = fs::read_to_string(house.path("log")).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        let at = lines.iter().position(|line| line.starts_with("error: ")).unwrap();
        assert!(lines[at].contains("its digest does not match"), "{log}");
        assert!(lines[at + 1].starts_with("state: ") && lines[at + 1].contains("begins anew"));
        assert!(lines[at + 2].starts_with("help:  "), "{log}");
        assert!(state.join("learning.state.damaged").exists());
        let learning = house.learning();
        assert_eq!(learning["record"]["episodes"], 0, "{learning}");
        assert!(learning["record"]["began_anew"].as_str().unwrap().contains("digest"));
        house.upload("203.0.113.2", 10_000);
        agent.stop();
        assert_eq!(learned(&house).len(), 1);
    });
}

#[test]
fn empty_and_implausible_records_are_refused_in_three_lines() {
    let house = House::new();
    fs::create_dir(house.path("state")).unwrap();
    let refused = |words: &[&str], what: &str| {
        let output = house.command(words).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}: {told}");
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines.len(), 3, "{told}");
        assert!(lines[0].starts_with("error: ") && lines[0].contains(what), "{told}");
        assert!(lines[1].starts_with("state: ") && lines[2].starts_with("help:  "), "{told}");
        assert!(output.stdout.is_empty());
    };
    refused(&["baseline", "show"], "cannot read");
    fs::write(house.path("empty.json"), "").unwrap();
    refused(&["baseline", "review", "--learned", "empty.json"], "cannot use");
    refused(&["baseline", "review", "--learned", "learned"], "there is no record");
    house.others();
    let path = house.path("learned/h01.json");
    let good = fs::read_to_string(&path).unwrap();
    for (from, to, what) in [
        ("\"hours\":672", "\"hours\":6720", "6720 hours were watched"),
        ("sekisho.learned/1", "sekisho.learned/9", "schema is"),
        ("\"up\":1000.0", "\"sideways\":1000.0", "no score takes"),
    ] {
        assert!(good.contains(from), "{good}");
        fs::write(&path, good.replace(from, to)).unwrap();
        refused(
            &["baseline", "certify", "--learned", "learned", "--key", "key", "--out", "c.sealed"],
            what,
        );
        assert!(!house.path("c.sealed").exists());
    }
    fs::write(&path, &good).unwrap();
    refused(
        &[
            "baseline",
            "certify",
            "--learned",
            "learned",
            "--role",
            "db",
            "--key",
            "key",
            "--out",
            "c",
        ],
        "no record is of role",
    );
}
