//! The agent under load: live rates, known destinations in the kernel, a reload under traffic.
//!
//! `live-load live TOOLS MIX LIST LIST [--short]`: rates up to the sender's ceiling over a cable, beside a bare ring reader.
//! `live-load reload TOOLS MIX LIST LIST`: the same lists read anew while 100,000 packets a second flow.
//! `live-load preload LIST`: forwarding with the list in the kernel beside plain forwarding, and what leaks.
//! TOOLS holds `pktsend` and `tp3read`. Each prints a table and, as its last line, the same as JSON.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement fails loudly and prints for people"
)]

use sekisho_integration::{Agent, AgentSetup, Lab, Node, PolicyText, wait_until};
use serde_json::{Value, json};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Packets a second that are offered; 0 for as many as the sender can.
const RATES: [u64; 5] = [100_000, 200_000, 300_000, 400_000, 0];
/// Packets of the mix that the sender keeps in memory.
const KEPT: &str = "400000";
/// Kernel clock ticks a second (`USER_HZ` on every Linux architecture that this runs on).
const TICKS: f64 = 100.0;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["live", tools, mix, lists @ ..] => {
            let short = lists.contains(&"--short");
            let lists: Vec<&str> =
                lists.iter().copied().filter(|word| *word != "--short").collect();
            live(Path::new(tools), mix, &lists, short);
        }
        ["reload", tools, mix, lists @ ..] => reload(Path::new(tools), mix, lists),
        ["preload", list] => preload(list),
        ["deaf"] => deaf(),
        ["compare", plain, ruled, pairs] => compare(plain, ruled, pairs.parse().unwrap()),
        _ => panic!("live-load live|reload TOOLS MIX LIST…, or live-load preload LIST"),
    }
}

fn agent_on(lab: &Lab, node: &Node, lists: &[&str], mode: &'static str, more: &str) -> Agent {
    let lists: Vec<String> = lists.iter().map(|list| format!("{list:?}")).collect();
    let setup = AgentSetup::new(node, lab.dir(), &format!("agent-{}", node.name)).with(format!(
        "[indicators]\nlists = [{}]\n[metrics]\nenabled = false\n{more}",
        lists.join(", ")
    ));
    let decide = "[[decide]]\ndetector = \"indicator.*\"\ngrade = \"malicious\"\nlevel = 3\nlease = \"1h\"\n";
    setup.seal(&PolicyText { more: decide.to_owned(), ..PolicyText::new(1, mode) });
    setup.start()
}

/// What is read of a process: CPU seconds, resident and peak MiB.
#[derive(Clone, Copy, Debug)]
struct Process {
    cpu: f64,
    resident: f64,
    peak: f64,
}

impl Process {
    fn of(pid: u64) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the agent runs");
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
        };
        Self { cpu: (ticks(11) + ticks(12)) / TICKS, resident: mib("VmRSS:"), peak: mib("VmHWM:") }
    }
}

/// Frames read, offered and dropped as the agent counts them.
fn seen(agent: &Agent) -> (u64, u64, u64) {
    let status = agent.status();
    let interface = &status["capture"]["interfaces"][0];
    let number = |value: &Value| value.as_u64().unwrap();
    (
        number(&status["capture"]["frames"]),
        number(&interface["received"]),
        number(&interface["dropped"]),
    )
}

fn pid(agent: &Agent) -> u64 {
    agent.status()["pid"].as_u64().unwrap()
}

fn json_of(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn sender(node: &Node, tools: &Path, mix: &str, rate: u64, seconds: u64) -> Command {
    let mut command = node.command("taskset");
    command.args(["-c", "0"]).arg(tools.join("pktsend")).args([
        "eth0",
        mix,
        &rate.to_string(),
        &seconds.to_string(),
        KEPT,
    ]);
    command
}

/// Two hosts and a cable; the receiver's name is the first.
fn cable() -> (Lab, Node, Node) {
    let lab = Lab::open();
    let (receiver, from) = (lab.node("receiver"), lab.node("sender"));
    lab.cable(&receiver, "eth0", &from, "eth0");
    receiver.ip("addr add 10.99.0.1/24 dev eth0");
    (lab, receiver, from)
}

fn pin(agent: &Agent, cpu: &str) {
    let pid = pid(agent).to_string();
    let done = Command::new("taskset").args(["-acp", cpu, &pid]).output().expect("taskset starts");
    assert!(done.status.success(), "{done:?}");
}

/// One rate: what was sent, lost and cost.
fn measure(agent: &Agent, mut send: Command, seconds: f64) -> Value {
    let (pid, (frames, _, dropped)) = (pid(agent), seen(agent));
    let before = Process::of(pid);
    let sent = json_of(&send.output().expect("pktsend starts"));
    // The last block, and the state that is published once a second.
    std::thread::sleep(Duration::from_millis(2_200));
    let after = Process::of(pid);
    let (read, _, lost) = seen(agent);
    let count = sent["sent"].as_u64().unwrap();
    json!({
        "pps": sent["pps"], "gbps": sent["gbps"], "sent": count, "read": read - frames,
        "dropped": lost - dropped, "lost": count.saturating_sub(read - frames),
        "cpu": (after.cpu - before.cpu) / seconds, "rss_mib": after.resident, "peak_mib": after.peak,
    })
}

fn live(tools: &Path, mix: &str, lists: &[&str], short: bool) {
    let seconds: u64 = if short { 3 } else { 6 };
    let (lab, receiver, from) = cable();
    let mut rows = Vec::new();
    println!(
        "  packets/s offered   sent/s   Gbit/s | bare ring: lost    core | agent: lost  dropped    core  RSS MiB"
    );
    for rate in RATES {
        let mut reader = receiver.command("taskset");
        reader.args(["-c", "1"]).arg(tools.join("tp3read"));
        reader.args(["eth0", &(seconds + 2).to_string(), "64", "10", "1"]);
        let reader = reader.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(700));
        let sent = json_of(&sender(&from, tools, mix, rate, seconds).output().unwrap());
        let bare = json_of(&reader.wait_with_output().unwrap());
        rows.push(json!({"rate": rate, "bare": {"sent": sent["sent"], "packets": bare["packets"], "drops": bare["drops"],
            "lost": sent["sent"].as_u64().unwrap().saturating_sub(bare["packets"].as_u64().unwrap()),
            "cpu": (bare["user"].as_f64().unwrap() + bare["sys"].as_f64().unwrap()) / seconds as f64, "pps": sent["pps"]}}));
    }
    let agent = agent_on(&lab, &receiver, lists, "dry-run", "");
    pin(&agent, "1");
    for row in &mut rows {
        let rate = row["rate"].as_u64().unwrap();
        let measured = measure(&agent, sender(&from, tools, mix, rate, seconds), seconds as f64);
        let bare = &row["bare"];
        println!(
            "  {:>17} {:>8} {:>8} | {:>15} {:>6.1}% | {:>11} {:>8} {:>6.1}% {:>8.0}",
            if rate == 0 { "ceiling".to_owned() } else { rate.to_string() },
            measured["pps"],
            measured["gbps"],
            bare["lost"],
            bare["cpu"].as_f64().unwrap() * 100.0,
            measured["lost"],
            measured["dropped"],
            measured["cpu"].as_f64().unwrap() * 100.0,
            measured["rss_mib"].as_f64().unwrap(),
        );
        row["agent"] = measured;
    }
    let findings = agent.status()["findings"].clone();
    println!("{}", json!({"live": rows, "findings": findings}));
}

fn reload(tools: &Path, mix: &str, lists: &[&str]) {
    let (lab, receiver, from) = cable();
    let agent = agent_on(&lab, &receiver, lists, "dry-run", "");
    pin(&agent, "1");
    let id = pid(&agent);
    // Warm: tables and rings as large as they will be.
    let warm = measure(&agent, sender(&from, tools, mix, 100_000, 6), 6.0);
    let (frames, ..) = seen(&agent);
    // 5 sets the peak back to what is resident now (proc(5), clear_refs).
    std::fs::write(format!("/proc/{id}/clear_refs"), "5").unwrap();
    let before = Process::of(id);
    let reloads = || {
        let text = agent
            .journal()
            .into_iter()
            .filter(|line| serde_json::to_string(&line.body).unwrap().contains("\"rules-re"));
        text.count()
    };
    let began = Instant::now();
    let mut sending = sender(&from, tools, mix, 100_000, 45);
    let sending = sending.stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let asked = Instant::now();
    let hangup = rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
    rustix::process::kill_process(hangup, rustix::process::Signal::HUP).unwrap();
    let done = wait_until(Duration::from_secs(120), || (reloads() > 0).then(|| asked.elapsed()));
    let took = done.unwrap_or_else(|| panic!("no reload within 120 s: {}", agent.stderr()));
    let after = Process::of(id);
    let sent = json_of(&sending.wait_with_output().unwrap());
    std::thread::sleep(Duration::from_millis(2_200));
    let (read, _, dropped) = seen(&agent);
    let count = sent["sent"].as_u64().unwrap();
    let result = json!({
        "sent": count, "read": read - frames, "lost": count.saturating_sub(read - frames), "dropped": dropped,
        "seconds": took.as_secs_f64(), "rss_mib": before.resident, "peak_mib": after.peak,
        "ratio": after.peak / before.resident, "during_traffic": took < began.elapsed() && took.as_secs() < 43,
        "outcome": agent.stderr().contains("rules-reloaded"), "warm": warm,
    });
    println!(
        "  reload of {} lists took {:.1} s at 100,000 packets/s: {} of {} packets lost; resident {:.0} MiB before, peak {:.0} MiB: {:.2} times",
        lists.len(),
        took.as_secs_f64(),
        result["lost"],
        count,
        before.resident,
        after.peak,
        after.peak / before.resident
    );
    println!("{result}");
}

/// Client and server, and between them the gateway that is measured and one like it without any rule.
struct Row {
    lab: Lab,
    client: Node,
    gateway: Node,
    server: Node,
    _plain: Node,
}

const SERVER: &str = "198.51.100.2";
/// The same server behind the gateway without rules.
const PLAIN: &str = "203.0.113.2";
/// Both by IPv6.
const SERVER_6: &str = "2001:db8:1::2";
const PLAIN_6: &str = "2001:db8:2::2";
/// Pairs of short runs, one by each gateway, of which the median ratio counts.
const PAIRS: &str = "200";

fn row() -> Row {
    let lab = Lab::open();
    let (client, gateway, server) = (lab.node("client"), lab.node("gateway"), lab.node("server"));
    let plain = lab.node("plain");
    for (at, node, network) in [(1, &gateway, "198.51.100"), (2, &plain, "203.0.113")] {
        let (near, far) = (format!("c{at}"), format!("s{at}"));
        lab.cable(&client, &near, node, "in0");
        lab.cable(node, "eth0", &server, &far);
        client.ip(&format!("addr add 10.99.{at}.2/24 dev {near}"));
        node.ip(&format!("addr add 10.99.{at}.1/24 dev in0"));
        node.ip(&format!("addr add {network}.1/24 dev eth0"));
        server.ip(&format!("addr add {network}.2/24 dev {far}"));
        server.ip(&format!("route add 10.99.{at}.0/24 via {network}.1"));
        client.ip(&format!("addr add fd99:{at}::2/64 dev {near} nodad"));
        node.ip(&format!("addr add fd99:{at}::1/64 dev in0 nodad"));
        node.ip(&format!("addr add 2001:db8:{at}::1/64 dev eth0 nodad"));
        server.ip(&format!("addr add 2001:db8:{at}::2/64 dev {far} nodad"));
        server.ip(&format!("-6 route add fd99:{at}::/64 via 2001:db8:{at}::1"));
        client.ip(&format!("-6 route add 2001:db8:{at}::/64 via fd99:{at}::1"));
        node.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    }
    client.ip("route add default via 10.99.1.1");
    client.ip("route add 203.0.113.0/24 via 10.99.2.1");
    server.ip("route add default via 198.51.100.1");
    Row { lab, client, gateway, server, _plain: plain }
}

fn own() -> std::path::PathBuf {
    std::env::current_exe().expect("the path of this executable")
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

fn helper(node: &Node, words: &[&str]) -> Killed {
    let child = node.command(own()).args(words).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    Killed(child)
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// The measured gateway beside the one without rules, by alternating short runs of one process that no
/// neighbour displaces (SCHED_FIFO): a packet passes the whole way within the call that sends it.
fn beside(row: &Row) -> Value {
    let run = |plain: &str, ruled: &str| {
        let mut command = row.client.command("taskset");
        command.args(["-c", "1", "chrt", "-f", "1"]).arg(own());
        json_of(&command.args(["compare", plain, ruled, PAIRS]).output().unwrap())
    };
    json!({"v4": run(PLAIN, SERVER), "v6": run(PLAIN_6, SERVER_6)})
}

/// Counts at the server what arrives for an address that only it knows.
fn watch(row: &Row, known: &str) {
    for words in [
        "nft add table inet watch",
        "nft add counter inet watch seen",
        "nft add chain inet watch arrive { type filter hook prerouting priority -400 ; }",
    ] {
        row.server.run(words);
    }
    row.server.run(&format!("nft add rule inet watch arrive ip daddr {known} counter name seen"));
    row.server.ip(&format!("route add local {known}/32 dev lo"));
    row.gateway.ip(&format!("route add {known}/32 via {SERVER}"));
}

fn arrived(row: &Row) -> u64 {
    let text = row.server.run("nft -j list counter inet watch seen");
    let json: Value = serde_json::from_str(&text).unwrap();
    json["nftables"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|object| object["counter"]["packets"].as_u64())
        .unwrap()
}

/// Tries to speak to an address by datagrams and by a connection.
fn knock(row: &Row, known: &str) {
    let socket = "exec 3<>/dev/udp/".to_owned()
        + known
        + "/443; for n in $(seq 100); do echo known >&3; done";
    let _sent = row.client.command("bash").args(["-c", &socket]).output();
    let _tried = row
        .client
        .command("timeout")
        .args(["1", "bash", "-c", &format!("</dev/tcp/{known}/443")])
        .output();
    std::thread::sleep(Duration::from_millis(300));
}

fn preload(list: &str) {
    let row = row();
    let _deaf = helper(&row.server, &["deaf"]);
    let wanted = std::fs::read_to_string(list).expect("a list");
    let known =
        wanted.lines().find(|line| line.contains('.')).expect("an address").trim().to_owned();
    watch(&row, &known);
    let (arrived, knock) = (|| arrived(&row), || knock(&row, &known));
    knock();
    let control = arrived();
    assert!(control >= 50, "control: packets to {known} arrive while nothing holds it: {control}");
    let nothing = beside(&row);
    let bare = agent_on(&row.lab, &row.gateway, &[], "enforce", "[limits]\npreloaded = 0\n");
    let _setup = bare.kill9();
    let rules_only = beside(&row);
    let began = Instant::now();
    let agent =
        agent_on(&row.lab, &row.gateway, &[list], "enforce", "[limits]\npreloaded = 1000000\n");
    let status = || agent.status()["known"].clone();
    let held = wait_until(Duration::from_secs(120), || {
        let known = status();
        (known["held"].as_u64() > Some(0) && known["held"] == known["wanted"]).then_some(known)
    });
    let held =
        held.unwrap_or_else(|| panic!("not held within 120 s: {}\n{}", status(), agent.stderr()));
    let filled = began.elapsed();
    let preloaded = beside(&row);
    let _setup = agent.kill9();
    // The agent's own watching costs a core's time too: the same rules, the same million, nobody beside them.
    let alone = beside(&row);
    // Nobody reacts: what does not arrive, the kernel held back by itself.
    let before = arrived();
    knock();
    let leaked = arrived() - before;
    println!(
        "  {} destinations in the kernel, {:.1} s after the start of the agent",
        held["held"],
        filled.as_secs_f64()
    );
    println!(
        "  beside a gateway without rules, medians of {PAIRS} pairs: ns a packet of 1,250 bytes (share of plain), there and back"
    );
    for (name, of) in [
        ("no rules on either", &nothing),
        ("our rules, nothing known", &rules_only),
        ("preloaded, agent beside it", &preloaded),
        ("preloaded alone", &alone),
    ] {
        for family in ["v4", "v6"] {
            let row = &of[family];
            let number = |key: &str| row[key].as_f64().unwrap();
            println!(
                "  {name:<28} {family} {:>6.0} ns beside {:>6.0} ({:>5.1} %)  {:>6.2} µs beside {:>6.2} ({:+.2})",
                number("ruled_ns"),
                number("plain_ns"),
                number("share") * 100.0,
                number("ruled_rtt_us"),
                number("plain_rtt_us"),
                number("rtt_us"),
            );
        }
    }
    println!(
        "  packets that arrived at the known destination: {leaked} of 101 and more ({control} without the list)"
    );
    println!(
        "{}",
        json!({"held": held, "fill_seconds": filled.as_secs_f64(), "leaked": leaked, "nothing": nothing,
        "rules_only": rules_only, "agent": preloaded, "alone": alone})
    );
}

/// Takes datagrams and reads none, so that nothing of the way is a process but its beginning.
fn deaf() {
    let _socket = UdpSocket::bind("[::]:5001").unwrap();
    std::thread::sleep(Duration::from_secs(600));
}

/// Datagrams to two servers in turns: prints the median of the pairs' ratios, and the medians of each.
fn compare(plain: &str, ruled: &str, pairs: usize) {
    let ways = [plain, ruled].map(|to| {
        let to: std::net::IpAddr = to.parse().unwrap();
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect((to, 5001)).unwrap();
        (socket, Echo::to(to))
    });
    let (mut costs, mut trips, mut shares, mut more) =
        ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()], Vec::new(), Vec::new());
    for pair in 0..=pairs {
        let mut of = [(0.0, 0.0); 2];
        for turn in [pair % 2, 1 - pair % 2] {
            let (socket, echo) = &ways[turn];
            of[turn] = (pour(socket), echo.median(50));
        }
        // The first pair warms the way.
        if pair == 0 {
            continue;
        }
        for (way, (cost, trip)) in of.into_iter().enumerate() {
            costs[way].push(cost);
            trips[way].push(trip);
        }
        shares.push(of[0].0 / of[1].0);
        more.push(of[1].1 - of[0].1);
    }
    let [plain_ns, ruled_ns] = costs.map(median);
    let [plain_rtt_us, ruled_rtt_us] = trips.map(median);
    println!(
        "{}",
        json!({"plain_ns": plain_ns, "ruled_ns": ruled_ns, "share": median(shares), "plain_rtt_us": plain_rtt_us,
        "ruled_rtt_us": ruled_rtt_us, "rtt_us": median(more)})
    );
}

/// Nanoseconds for a datagram, of a few milliseconds of them.
fn pour(socket: &UdpSocket) -> f64 {
    let (began, mut sent) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_millis(5) {
        for _ in 0..64 {
            // The server's full queue is not this side's error; a refusal by a rule would be one.
            socket.send(&[7; 1222]).expect("a datagram leaves");
            sent += 1;
        }
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(sent)
}

/// Echoes of the server's kernel, so that no process has to be woken.
struct Echo {
    socket: std::os::fd::OwnedFd,
    request: Vec<u8>,
}

impl Echo {
    fn to(address: std::net::IpAddr) -> Self {
        use rustix::net::{AddressFamily, SocketType, connect, ipproto, socket};
        let (family, protocol, kind) = match address {
            std::net::IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8),
            std::net::IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128),
        };
        let socket = socket(family, SocketType::RAW, Some(protocol)).expect("a raw socket");
        connect(&socket, &SocketAddr::new(address, 0)).expect("a raw socket connects");
        let patience = Some(Duration::from_secs(1));
        let timeout = rustix::net::sockopt::Timeout::Recv;
        rustix::net::sockopt::set_socket_timeout(&socket, timeout, patience).unwrap();
        let mut request = vec![kind, 0, 0, 0, 0x5e, 0x15, 0, 1];
        request.resize(64, 7);
        // IPv4's kernel leaves the checksum to the sender (RFC 1071), IPv6's fills it in.
        let words = request.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        let sum: u32 = words.sum();
        let folded = !((sum & 0xffff) + (sum >> 16)) as u16;
        if address.is_ipv4() {
            request[2..4].copy_from_slice(&folded.to_be_bytes());
        }
        Self { socket, request }
    }

    /// Median microseconds of so many there and back.
    fn median(&self, count: usize) -> f64 {
        use rustix::net::{RecvFlags, SendFlags, recv, send};
        let mut answer = [0; 256];
        let trips = (0..count).map(|_| {
            let began = Instant::now();
            let _sent =
                send(&self.socket, &self.request, SendFlags::empty()).expect("an echo leaves");
            let _read =
                recv(&self.socket, &mut answer, RecvFlags::empty()).expect("an echo comes back");
            began.elapsed().as_secs_f64() * 1e6
        });
        median(trips.collect())
    }
}
