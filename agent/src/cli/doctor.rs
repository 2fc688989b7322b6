//! `sekisho doctor`: what this kernel and host cover, found out by trying. The tries run in a
//! network namespace of their own that is removed afterwards, so that nothing of the host changes.

use super::args::{DoctorArgs, Format};
use super::contain::load;
use super::{Console, Outcome, cannot_write};
use crate::capture::live::{LiveCapture, LiveOptions, NextFrame, Paths, Way};
use crate::chain::{Complaint, causes};
use crate::clock;
use crate::enforce::{Enforcer, Plan, Sockets, coverage};
use crate::host::interfaces::{interfaces, on_link, uplinks};
use crate::journal::JournalOptions;
use sekisho_schema::{Containment, ContainmentId, ContainmentSet, Scope, Span};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

/// Where iproute2 is looked for: never by PATH, which belongs to whoever started us.
const IP: [&str; 4] = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"];
/// An address that belongs to nobody (RFC 5737), to be cut in the scratch namespace.
const NOBODY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// The outcome of one try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Try {
    /// `true` when it works, `false` when it does not, `null` when it was not tried.
    works: Option<bool>,
    /// How it went.
    detail: String,
}

type Tries = BTreeMap<String, Try>;

pub(super) fn run(args: &DoctorArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    if args.probe {
        let told = serde_json::to_string(&probe())
            .map_err(std::io::Error::from)
            .and_then(|text| writeln!(console.out, "{text}"));
        return told.map(|()| Outcome::Fine).map_err(|error| cannot_write(&error));
    }
    let config = load(&args.read.config).ok();
    let interfaces = interfaces();
    let named = config.as_ref().and_then(|config| config.interfaces.clone()).unwrap_or_default();
    let plan = Plan {
        uplinks: uplinks(&interfaces, &named),
        on_link: on_link(&interfaces),
        ..Plan::default()
    };
    let mut tries = scratch();
    tries.insert(
        "uplinks".to_owned(),
        uplink_try(
            &plan,
            &interfaces.iter().map(|interface| interface.name.clone()).collect::<Vec<_>>(),
        ),
    );
    if let Some(config) = &config {
        let options = JournalOptions {
            dir: config.journal_dir(),
            host: String::new(),
            segment_bytes: 1,
            cap_bytes: 1,
        };
        tries.insert("journal".to_owned(), journal_try(&options));
    }
    let gaps = coverage(&plan);
    tell(&tries, &gaps, args.read.output, console).map_err(|error| cannot_write(&error))?;
    Ok(if tries.values().all(|tried| tried.works == Some(true)) {
        Outcome::Fine
    } else {
        Outcome::Finding
    })
}

fn outcome<E: std::error::Error>(result: Result<String, E>) -> Try {
    match result {
        Ok(detail) => Try { works: Some(true), detail },
        Err(error) => Try { works: Some(false), detail: causes(&error) },
    }
}

fn untried(detail: &str) -> Try {
    Try { works: None, detail: detail.to_owned() }
}

fn uplink_try(plan: &Plan, up: &[String]) -> Try {
    let missing: Vec<&str> =
        plan.uplinks.iter().filter(|name| !up.contains(name)).map(String::as_str).collect();
    match (plan.uplinks.is_empty(), missing.is_empty()) {
        (true, _) => {
            Try { works: Some(false), detail: "no interface is up but the loopback".to_owned() }
        }
        (false, true) => Try { works: Some(true), detail: plan.uplinks.join(", ") },
        (false, false) => {
            Try { works: Some(false), detail: format!("not up: {}", missing.join(", ")) }
        }
    }
}

fn journal_try(options: &JournalOptions) -> Try {
    if !options.dir.exists() {
        // A host where no agent has run yet lacks nothing.
        let detail = "it does not exist yet; the first start makes it".to_owned();
        return Try { works: Some(true), detail };
    }
    outcome(
        crate::journal::verify(&options.dir)
            .map(|report| format!("{} records, {} faults", report.records, report.faults.len())),
    )
}

/// A namespace that is removed whatever happens.
struct Scratch {
    ip: &'static str,
    name: String,
}

impl Scratch {
    fn make() -> std::io::Result<Self> {
        let ip =
            IP.into_iter().find(|path| std::path::Path::new(path).exists()).ok_or_else(|| {
                std::io::Error::new(std::io::ErrorKind::NotFound, "iproute2 is not installed")
            })?;
        let name = format!("sekisho-doctor-{}", std::process::id());
        call(Command::new(ip).args(["netns", "add", &name]))?;
        let scratch = Self { ip, name };
        for line in [
            "link set lo up",
            "link add sk0 type veth peer name sk1",
            "addr add 198.51.100.2/24 dev sk0",
            "link set sk1 up",
            "link set sk0 up",
            "route add default via 198.51.100.1",
            "neigh add 198.51.100.1 lladdr 02:00:00:00:00:01 dev sk0",
        ] {
            call(Command::new(ip).args(["-n", &scratch.name]).args(line.split(' ')))?;
        }
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = Command::new(self.ip).args(["netns", "del", &self.name]).output();
    }
}

fn call(command: &mut Command) -> std::io::Result<Vec<u8>> {
    let output = command.env_clear().output()?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

/// Tries everything in a scratch namespace.
fn scratch() -> Tries {
    if !rustix::process::geteuid().is_root() {
        let names = ["capture", "cut", "ruleset", "scheduling", "socket_end"];
        return names.into_iter().map(|name| (name.to_owned(), untried("needs root"))).collect();
    }
    let tried = Scratch::make().and_then(|scratch| {
        let program = std::env::current_exe()?;
        let answer = call(
            Command::new(scratch.ip)
                .args(["netns", "exec", &scratch.name])
                .arg(program)
                .args(["doctor", "--probe"]),
        )?;
        serde_json::from_slice(&answer).map_err(std::io::Error::from)
    });
    tried.unwrap_or_else(|error| {
        BTreeMap::from([(
            "scratch".to_owned(),
            Try {
                works: Some(false),
                detail: format!("cannot try in a network namespace: {error}"),
            },
        )])
    })
}

/// What is tried, inside the scratch namespace.
fn probe() -> Tries {
    let plan = Plan {
        uplinks: vec!["sk0".to_owned()],
        inside: vec!["198.51.100.0/24".parse().unwrap_or_default()],
        ..Plan::default()
    };
    let mut tries = Tries::new();
    tries.insert("capture".to_owned(), capture_try());
    match Enforcer::open(&plan) {
        Ok(mut enforcer) => {
            tries.insert(
                "ruleset".to_owned(),
                Try {
                    works: Some(true),
                    detail: "nft loads tables inet and netdev with egress hooks".to_owned(),
                },
            );
            tries.insert("cut".to_owned(), cut_try(&mut enforcer));
        }
        Err(error) => {
            tries.insert("ruleset".to_owned(), Try { works: Some(false), detail: causes(&error) });
            tries.insert("cut".to_owned(), untried("without a ruleset there is no cut"));
        }
    }
    tries.insert("socket_end".to_owned(), socket_try());
    let realtime = crate::daemon::ask_for_realtime();
    tries.insert(
        "scheduling".to_owned(),
        Try { works: Some(realtime.starts_with("SCHED_FIFO")), detail: realtime },
    );
    tries
}

fn capture_try() -> Try {
    let options = LiveOptions { ring_bytes: 1 << 20, promiscuous: false, filter: None };
    let mut capture = match LiveCapture::open("sk0", &options) {
        Ok(capture) => capture,
        Err(error) => return Try { works: Some(false), detail: causes(&error) },
    };
    let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) else {
        return untried("no UDP socket");
    };
    let sent = clock::now();
    if let Err(error) = socket.send_to(b"sekisho doctor", (NOBODY, 9)) {
        return untried(&format!("no packet could be sent: {error}"));
    }
    let deadline = Instant::now() + Duration::from_secs(2);
    while Instant::now() < deadline {
        // A datagram of fourteen bytes is among what can decide, unless there is one way for all.
        let way = if *capture.paths() == Paths::Both { Way::Trigger } else { Way::Bulk };
        match capture.next_frame(way) {
            NextFrame::Frame(frame) if frame.bytes.ends_with(b"sekisho doctor") => {
                let late = clock::now().since(sekisho_schema::Timestamp::from_nanos(frame.at_ns));
                let stamp = if frame.at_ns >= sent.nanos() {
                    "kernel time stamps"
                } else {
                    "time stamps before sending"
                };
                return Try {
                    works: Some(true),
                    detail: format!(
                        "a packet of our own was seen {} us after its kernel time stamp, with {stamp}; {}",
                        late.nanos() / 1000,
                        capture.paths()
                    ),
                };
            }
            NextFrame::Frame(_) => {}
            NextFrame::Drained => std::thread::sleep(Duration::from_micros(200)),
            NextFrame::Failed(why) => return Try { works: Some(false), detail: why },
        }
    }
    Try { works: Some(false), detail: "a packet of our own was not seen within 2 s".to_owned() }
}

fn cut_try(enforcer: &mut Enforcer) -> Try {
    let now = clock::now();
    let containment = Containment {
        id: ContainmentId("c-d0c70d0c70d0".to_owned()),
        scope: Scope::Destination(IpAddr::V4(NOBODY)),
        level: 3,
        since: now,
        until: now.after(Span::from_secs(30)),
        cause: "doctor".to_owned(),
        finding: None,
        by: None,
        measure: sekisho_schema::Measure::Cut,
        trial_until: None,
    };
    let set = ContainmentSet {
        generation: 1,
        containments: BTreeMap::from([(containment.id.clone(), containment.clone())]),
    };
    let begun = Instant::now();
    if let Err(error) = enforcer.apply(&set, now) {
        return Try { works: Some(false), detail: causes(&error) };
    }
    let took = begun.elapsed().as_micros();
    let proof = enforcer.prove(&containment);
    let proven = proof.cut.as_deref() == Some("proven");
    let checks: Vec<String> =
        proof.checks.iter().map(|(name, text)| format!("{name}: {text}")).collect();
    Try {
        works: Some(proven),
        detail: format!(
            "{}, committed in {took} us ({})",
            proof.cut.as_deref().unwrap_or("unproven"),
            checks.join("; ")
        ),
    }
}

fn socket_try() -> Try {
    let tried = || -> std::io::Result<String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        let local = client.local_addr()?;
        client.set_read_timeout(Some(Duration::from_secs(1)))?;
        let ended = Sockets::open()
            .and_then(|mut sockets| sockets.destroy_matching(|end, _| end == local))
            .map_err(|error| std::io::Error::other(causes(&error)))?;
        match client.read(&mut [0]) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {
                Ok(format!("{} connection of our own ended", ended.count))
            }
            _ => Err(std::io::Error::other(
                "a connection of our own did not end; CONFIG_INET_DIAG_DESTROY is missing",
            )),
        }
    };
    outcome(tried())
}

/// What a path around a cut is, in a sentence.
fn explain(gap: &str) -> &'static str {
    match gap.split(':').next().unwrap_or(gap) {
        "af_xdp" => "a program with CAP_NET_RAW and an AF_XDP socket sends below every hook",
        "no_uplink_known" => {
            "no interface is known to lead out, so frames of raw senders are not seen"
        }
        "tc_redirect" => "a tc or BPF program may redirect packets between devices after our hooks",
        "unknown_xdp" => "the devices could not be asked whether XDP programs are attached",
        "vlan_tagged_frames" => {
            "frames with an 802.1Q tag of raw senders pass a cut of one destination (a cut of the host drops them)"
        }
        "xdp_program" => "an XDP program is attached to this device and may send on its own",
        "xdp_redirect" | "xdp_tx" => "an XDP program may send packets on below every hook",
        _ => "a path that no rule of ours sees",
    }
}

fn tell(
    tries: &Tries,
    gaps: &[String],
    format: Format,
    console: &mut Console<'_>,
) -> std::io::Result<()> {
    if format == Format::Json {
        return writeln!(
            console.out,
            "{}",
            serde_json::json!({"tries": tries, "not_covered": gaps})
        );
    }
    for (name, tried) in tries {
        let word = match tried.works {
            Some(true) => "ok",
            Some(false) => "NO",
            None => "?",
        };
        writeln!(console.out, "{word:<3} {name:<11} {}", tried.detail)?;
    }
    writeln!(console.out, "\nnot covered by a cut on this host:")?;
    for gap in gaps {
        writeln!(console.out, "    {gap}: {}", explain(gap))?;
    }
    writeln!(
        console.out,
        "not needed: BTF, eBPF, kernel modules beyond nf_tables, inet_diag and packet sockets"
    )
}
