//! The price of one cut: a commit over the socket that owns the tables, beside what others load and how others cut.
//!
//! `cut-cost [--short] [--json]`. In one network namespace, one after the other: alone; beside 10,000 rules of somebody
//! else; beside a set of 100,000 ranges of somebody else. In each: our commit in a loop, a forked `nft add element`, and
//! a script that follows a log. Then the cut of the whole host with tens of thousands of live flows: the transaction
//! alone, and through a running agent, with what must survive it.
//!
//! Between two commits of ours stands a bare one, the least that this machine asks for a commit: their ratio says more
//! of the code and less of the machine. The goals are what they are on every machine.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a measurement fails loudly and prints for people"
)]

use sekisho_agent::enforce::{Enforcer, Plan};
use sekisho_integration::actors::bare::BareCommit;
use sekisho_integration::lab::figures::Times;
use sekisho_integration::topology::{COLLECTOR, CUSTOMERS, MANY_C2, WEB};
use sekisho_integration::{Actor, AgentSetup, Network, Node, PolicyText, wait_until};
use sekisho_schema::{Containment, ContainmentId, ContainmentSet, Measure, Scope, Span, Timestamp};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Goal G9, in microseconds: half of the commits, and all but one in a hundred.
const COMMIT_US: [f64; 2] = [15.0, 60.0];
/// Most that a foreign ruleset may change the middle of it: what a loop on a shared machine can tell.
const UNCHANGED: f64 = 1.5;
/// Goal G10, in microseconds.
const HOST_US: f64 = 1_000.0;
/// Few runs beside other load: the short form fails at this multiple.
const SLACK: f64 = 10.0;
/// First port of the crowd's connections.
const CROWD_PORT: u32 = 9997;
/// Processes of the crowd, and as many that answer them.
const CROWDS: u32 = 5;

#[derive(Clone, Copy)]
struct Size {
    commits: u32,
    forks: u32,
    scripts: u32,
    flows: u32,
    rounds: u32,
}

const WHOLE: Size = Size { commits: 5_000, forks: 20, scripts: 6, flows: 50_000, rounds: 5 };
const SHORT: Size = Size { commits: 1_000, forks: 5, scripts: 2, flows: 10_000, rounds: 1 };

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (short, as_json) = match words.as_slice() {
        ["inside"] => {
            inside();
            return ExitCode::SUCCESS;
        }
        [] => (false, false),
        ["--short"] => (true, false),
        ["--json"] => (false, true),
        ["--short", "--json"] => (true, true),
        other => {
            eprintln!(
                "error: cut-cost knows --short and --json, not {other:?}\nstate: nothing was measured\nhelp:  cut-cost --short"
            );
            return ExitCode::from(2);
        }
    };
    let size = if short { SHORT } else { WHOLE };
    let network = Network::build();
    let beside = beside_others(&network, size);
    let host = host(&network, size);
    let faults = faults(&beside, &host, if short { SLACK } else { 1.0 });
    if as_json {
        let rows: Vec<Value> = beside.iter().map(Row::facts).collect();
        println!("{}", json!({"beside": rows, "host": host.facts(), "faults": faults}));
    } else {
        for row in &beside {
            row.print();
        }
        host.print();
    }
    for fault in &faults {
        eprintln!("error: {fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What one surrounding gave.
struct Row {
    beside: &'static str,
    commit: Times,
    bare: Times,
    forked: Times,
    script: Times,
}

impl Row {
    fn facts(&self) -> Value {
        json!({"beside": self.beside, "commit": self.commit.facts(), "bare": self.bare.facts(), "forked_nft": self.forked.facts(), "script": self.script.facts()})
    }

    fn print(&self) {
        self.commit.print(&format!("one cut = one commit, {}", self.beside));
        println!("  a bare commit, in turns with it {}", self.bare.line());
        let times = self.commit.micros(0.5) / self.bare.micros(0.5);
        println!("  half of ours took {times:.2} times half of the bare ones");
        println!("  forked `nft add element`        {}", self.forked.line());
        println!("  a script that follows a log     {}\n", self.script.line());
    }
}

/// What the cut of the whole host gave.
struct Host {
    flows: u64,
    /// The transaction alone, from the call to the kernel's acknowledgement.
    transaction: Times,
    /// Through a running agent: deciding frame to acknowledgement.
    contained: Times,
    sockets: u64,
    survived: Vec<String>,
    lost: Vec<String>,
}

impl Host {
    fn facts(&self) -> Value {
        json!({
            "live_flows": self.flows, "transaction": self.transaction.facts(), "through_the_agent": self.contained.facts(),
            "sockets_ended": self.sockets, "survived": self.survived, "lost": self.lost,
        })
    }

    fn print(&self) {
        self.transaction
            .print(&format!("the whole host in one transaction, {} live flows", self.flows));
        println!(
            "  deciding frame to acknowledgement, through the agent: {}",
            self.contained.line()
        );
        println!(
            "  {} sockets ended; survived: {}; lost: {:?}\n",
            self.sockets,
            self.survived.join(", "),
            self.lost
        );
    }
}

fn faults(beside: &[Row], host: &Host, slack: f64) -> Vec<String> {
    let mut faults = Vec::new();
    let mut hold = |what: String, is: f64, goal: f64, slack: f64| {
        if is > goal * slack {
            faults
                .push(format!("{what}: {is:.1} µs, at most {:.1} (goal {goal:.1})", goal * slack));
        }
    };
    let alone = beside.first().map_or(f64::NAN, |row| row.commit.micros(0.5));
    for row in beside {
        for (share, goal) in [0.5, 0.99].into_iter().zip(COMMIT_US) {
            let what = format!("commit, {}, {:.0} %", row.beside, share * 100.0);
            hold(what, row.commit.micros(share), goal, slack);
        }
        let what = format!("commit, {}, beside the same alone", row.beside);
        hold(what, row.commit.micros(0.5), alone, UNCHANGED * slack.sqrt());
    }
    hold(
        "the host in one transaction, 50 %".to_owned(),
        host.transaction.micros(0.5),
        HOST_US,
        slack,
    );
    hold("the host through the agent, 50 %".to_owned(), host.contained.micros(0.5), HOST_US, slack);
    faults.extend(host.lost.iter().map(|what| format!("lost with the cut of the host: {what}")));
    if host.contained.is_empty() {
        faults.push("no host was cut through the agent".to_owned());
    }
    faults
}

/// The loop that commits, a process of its own in the web server's namespace, scheduled as the guardian's hand is.
struct Inside {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Inside {
    fn start(node: &Node) -> Self {
        let own = std::env::current_exe().expect("the path of this executable");
        let mut command = node.command("chrt");
        command.args(["-f", "1"]).arg(own).arg("inside");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the loop starts");
        let input = child.stdin.take().expect("stdin is piped");
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut inside = Self { child, input, output };
        inside.hear();
        inside
    }

    fn hear(&mut self) -> [Vec<u64>; 2] {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the loop answers");
        serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("the loop said {line:?}: {error}"))
    }

    /// Ours, and for destinations the bare ones in turns with them.
    fn ask(&mut self, question: &str) -> [Times; 2] {
        writeln!(self.input, "{question}").expect("the loop is there");
        self.hear().map(Times::of)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Answers `dest N` and `host N` by the nanoseconds of N cuts each, on a socket that owns the tables; `dest` by those of
/// as many bare commits too.
fn inside() {
    let mut enforcer = Enforcer::open_holding(true).expect("an enforcer");
    let plan = Plan {
        uplinks: vec!["eth0".to_owned()],
        inside: vec!["10.0.0.0/8".parse().unwrap(), "127.0.0.0/8".parse().unwrap()],
        collector: vec![format!("{COLLECTOR}:8443").parse().unwrap()],
        ..Plan::default()
    };
    enforcer.reload(&plan).expect("the ruleset");
    // Something is held all the time, as on a host that is under attack: packets meet the lists already.
    let keep = contain("c-000000000000", "dest:192.0.2.77");
    let mut out = std::io::stdout();
    let mut bare = BareCommit::open();
    writeln!(out, "[[],[]]").expect("whoever asks is there");
    let mut committed = 0;
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let (kind, times) = line.split_once(' ').expect("a kind and a number");
        let times: u32 = times.parse().expect("a number");
        let (mut took, mut took_bare) = (Vec::new(), Vec::new());
        for nth in 0..times {
            let (scope, rest) = match kind {
                "host" => ("host".to_owned(), ContainmentSet::default()),
                _ => {
                    (format!("dest:198.19.{}.{}", nth / 200 % 250, 1 + nth % 200), set_of(&[&keep]))
                }
            };
            let cut = contain("c-000000000001", &scope);
            let wanted = match kind {
                "host" => set_of(&[&cut]),
                _ => set_of(&[&keep, &cut]),
            };
            let _before = enforcer.apply(&rest, now()).expect("what is held else");
            let (at, began) = (now(), Instant::now());
            let applied = enforcer.apply(&wanted, at).expect("a cut");
            took.push(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
            assert_eq!(applied.changed, 1, "one cut is one change");
            if kind == "dest" {
                took_bare.push(bare.commit(Ipv4Addr::from_bits(0x6440_0000 + committed)));
                committed += 1;
            }
        }
        let _after = enforcer.apply(&ContainmentSet::default(), now()).expect("nothing is held");
        writeln!(out, "{}", json!([took, took_bare])).expect("whoever asks is there");
    }
}

fn now() -> Timestamp {
    sekisho_integration::lab::agent::now()
}

fn contain(id: &str, scope: &str) -> Containment {
    let (scope, since): (Scope, _) = (scope.parse().expect("a scope"), now());
    Containment {
        id: ContainmentId(id.to_owned()),
        level: scope.level(),
        scope,
        since,
        until: since.after(Span::from_secs(3600)),
        measure: Measure::Cut,
        trial_until: None,
        cause: "bench".to_owned(),
        finding: None,
        by: None,
    }
}

fn set_of(containments: &[&Containment]) -> ContainmentSet {
    ContainmentSet {
        generation: 1,
        containments: containments.iter().map(|one| (one.id.clone(), (*one).clone())).collect(),
    }
}

/// Ten thousand rules, and a hundred thousand ranges, of somebody else.
fn foreign(what: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("table inet foreign {\n");
    match what {
        "rules" => {
            text.push_str(" chain many {\n");
            for n in 0..10_000 {
                let _ = writeln!(
                    text,
                    "  ip daddr 100.64.{}.{} tcp dport {} accept",
                    n / 250,
                    1 + n % 250,
                    1 + n
                );
            }
            text.push_str(" }\n");
        }
        _ => {
            text.push_str(" set ranges { type ipv4_addr; flags interval; elements = {\n");
            for n in 0..100_000_u32 {
                let from = 0x0B00_0000 + n * 8;
                let address = std::net::Ipv4Addr::from(from);
                let _ = writeln!(text, "  {address}-{},", std::net::Ipv4Addr::from(from + 3));
            }
            text.push_str(" } }\n");
        }
    }
    text.push_str("}\n");
    text
}

fn beside_others(network: &Network, size: Size) -> Vec<Row> {
    let web = &network.web;
    let mut inside = Inside::start(web);
    web.run("nft add table inet stand-in");
    web.run("nft add set inet stand-in cut { type ipv4_addr ; flags timeout ; }");
    let mut script = Script::start(network);
    let mut rows = Vec::new();
    for (beside, what) in [
        ("alone", None),
        ("beside 10,000 rules of somebody else", Some("rules")),
        ("beside 100,000 ranges of somebody else", Some("ranges")),
    ] {
        if let Some(what) = what {
            let file = network.lab.dir().join("foreign.nft");
            std::fs::write(&file, foreign(what)).expect("a file in the laboratory's directory");
            web.run(&format!("nft -f {}", file.display()));
        }
        inside.ask("dest 50");
        let [commit, bare] = inside.ask(&format!("dest {}", size.commits));
        let forked = (0..size.forks).map(|n| {
            let began = Instant::now();
            web.run(&format!(
                "nft add element inet stand-in cut {{ 198.18.1.{} timeout 1h }}",
                1 + n % 250
            ));
            u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
        });
        let forked = Times::of(forked.collect());
        let followed = (0..size.scripts).map(|n| script.tell(&format!("198.18.2.{}", 1 + n)));
        let script = Times::of(followed.collect());
        rows.push(Row { beside, commit, bare, forked, script });
        if what.is_some() {
            web.run("nft delete table inet foreign");
        }
    }
    web.run("nft delete table inet stand-in");
    rows
}

/// The usual glue: a log is followed line by line, and each line becomes a call of `nft`.
struct Script {
    child: Child,
    done: BufReader<ChildStdout>,
    log: std::fs::File,
}

impl Script {
    fn start(network: &Network) -> Self {
        let path = network.lab.dir().join("alerts.log");
        let log = std::fs::File::create(&path).expect("a log");
        let mut command = network.web.command("bash");
        command.args(["-c", &format!("tail -n0 -F {} | while read -r ip; do nft add element inet stand-in cut \"{{ $ip timeout 1h }}\"; echo done; done", path.display())]);
        let mut child = std::os::unix::process::CommandExt::process_group(&mut command, 0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash starts");
        let done = BufReader::new(child.stdout.take().expect("stdout is piped"));
        // `tail` must have opened the log before the first line is written.
        std::thread::sleep(Duration::from_millis(500));
        Self { child, done, log }
    }

    /// Nanoseconds from a line in the log to the end of the call that it led to.
    fn tell(&mut self, address: &str) -> u64 {
        let began = Instant::now();
        writeln!(self.log, "{address}").expect("a line in the log");
        let mut line = String::new();
        self.done.read_line(&mut line).expect("the script answers");
        u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // The whole pipe: `tail` would follow for ever.
        let group = format!("-{}", self.child.id());
        let _gone = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _status = self.child.wait();
    }
}

/// The crowd behind a cut of the host, and what must survive it.
fn host(network: &Network, size: Size) -> Host {
    // Each of several processes, as a process may hold only so many open files.
    let ports: Vec<String> = (0..CROWDS).map(|n| (CROWD_PORT + n).to_string()).collect();
    let most = (size.flows / CROWDS).to_string();
    let _hold: Vec<Actor> = ports
        .iter()
        .map(|port| network.c2.actor(&["hold", "--port", port, "--most", &most]))
        .collect();
    let mut crowd: Vec<Actor> = ports
        .iter()
        .map(|port| network.web.actor(&["crowd", "--prefix", MANY_C2, "--port", port]))
        .collect();
    // Flows are live in connection tracking too.
    let tracking = network.lab.dir().join("tracking.nft");
    std::fs::write(&tracking, sekisho_integration::lab::peers::TRACKING).expect("a ruleset");
    network.web.run(&format!("nft -f {}", tracking.display()));
    let flows = open(&mut crowd, size.flows);
    let [transaction, _] = Inside::start(&network.web).ask(&format!("host {}", size.commits / 5));
    let _collector = network.collector.actor(&["echo", "--tcp", "8443"]);
    let _ssh = network.web.actor(&["echo", "--tcp", "22"]);
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    let console = format!(
        "[[exempt]]\nname = \"console\"\nservice = \"tcp/22\"\nfrom = \"{CUSTOMERS}/32\"\n"
    );
    let policy = PolicyText::new(1, "enforce");
    setup.seal(&PolicyText { budget: [1_000, 1_000], more: console, ..policy });
    let agent = setup.start();
    let _c2 = network.c2.actor(&["plugx-c2", "--settings", "443=T1"]);
    let mut implant = network.web.actor(&["knock", "--setting", "T1"]);
    let (mut contained, mut sockets, mut lost) = (Vec::new(), 0, Vec::new());
    let mut survived: Vec<String> = Vec::new();
    for round in 0..size.rounds {
        open(&mut crowd, size.flows);
        let mut from_web = network.web.actor(&["talk"]);
        let mut from_console = network.customers.actor(&["talk"]);
        let lines = [
            ("the collector's connection", &mut from_web, format!("open {COLLECTOR}:8443")),
            ("the console's connection", &mut from_console, format!("open {WEB}:22")),
        ];
        let mut lines = lines.map(|(what, talk, open)| {
            assert_eq!(talk.ask(&open)["ok"], true, "control: {what} is open before the cut");
            (what, talk)
        });
        let seen = agent.receipts().len();
        implant.ask(&format!("go {MANY_C2}.{}.9:443", 100 + round));
        let receipt = wait_until(Duration::from_secs(60), || {
            let mut receipts = agent.receipts().into_iter().skip(seen);
            // With its sockets ended: those that are not would go on after the release, and be cut again.
            receipts
                .rfind(|receipt| receipt.applied && receipt.proof.cut.as_deref() == Some("proven"))
        });
        let Some(receipt) = receipt else { break };
        contained.extend(receipt.time_to_contain_ns.and_then(|ns| u64::try_from(ns).ok()));
        sockets += u64::from(receipt.sockets_destroyed);
        for (what, talk) in &mut lines {
            let list = if talk.ask("say 0")["ok"] == true { &mut survived } else { &mut lost };
            if !list.iter().any(|known| known == what) {
                list.push((*what).to_owned());
            }
        }
        // What the far end of the implant's connection would say again is heard after the release, and cut.
        network.c2.run("ss -K state established state close-wait state last-ack sport = :443");
        setup.must(&["release", &receipt.containment.0, "--reason", "bench", "--break-glass"]);
    }
    Host { flows, transaction, contained: Times::of(contained), sockets, survived, lost }
}

fn open(crowd: &mut [Actor], flows: u32) -> u64 {
    let each = flows / CROWDS;
    crowd
        .iter_mut()
        .map(|crowd| {
            let told = crowd.ask(&format!("open {each}"));
            assert_eq!(told["open"], each, "the crowd: {told}");
            u64::from(each)
        })
        .sum()
}
