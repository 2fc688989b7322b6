//! What is tried inside the scratch namespace, and of this host's own files.

use super::features;
use super::matrix;
use super::scratch::{FAR4, OWN};
use super::{Probed, Tries, Try, outcome, untried};
use crate::capture::live::{LiveCapture, LiveOptions, NextFrame, Paths, Way};
use crate::chain::causes;
use crate::clock;
use crate::enforce::{Enforcer, Plan, Sockets};
use crate::journal::JournalOptions;
use sekisho_schema::{Containment, ContainmentId, ContainmentSet, Scope, Span};
use std::collections::BTreeMap;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

pub(super) fn uplinks(plan: &Plan, up: &[String]) -> Try {
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

pub(super) fn journal(options: &JournalOptions) -> Try {
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

/// What is tried, inside the scratch namespace.
pub(super) fn probe() -> Probed {
    let plan = matrix::plan();
    let mut tries = Tries::new();
    let mut rows = Vec::new();
    tries.insert("capture".to_owned(), capture_try());
    match Enforcer::open(&plan) {
        Ok(mut enforcer) => {
            let detail = "nft loads tables inet and netdev with egress hooks".to_owned();
            tries.insert("ruleset".to_owned(), Try { works: Some(true), detail });
            tries.insert("cut".to_owned(), cut_try(&mut enforcer));
            let began = Instant::now();
            let tried = match matrix::run(&mut enforcer) {
                Ok(found) => {
                    rows = found;
                    let wrong = rows.iter().filter(|row| !row.is_as_told()).count();
                    let detail = format!(
                        "{} senders against levels 3, 5 and 6 in {} ms: {wrong} not as told",
                        rows.len(),
                        began.elapsed().as_millis()
                    );
                    Try { works: Some(wrong == 0), detail }
                }
                Err(error) => Try { works: Some(false), detail: causes(&error) },
            };
            tries.insert("matrix".to_owned(), tried);
        }
        Err(error) => {
            tries.insert("ruleset".to_owned(), Try { works: Some(false), detail: causes(&error) });
            for name in ["cut", "matrix"] {
                tries.insert(name.to_owned(), untried("without a ruleset there is no cut"));
            }
        }
    }
    tries.insert("socket_end".to_owned(), socket_try());
    let realtime = crate::realtime::ask_for_realtime();
    tries.insert(
        "scheduling".to_owned(),
        Try { works: Some(realtime.starts_with("SCHED_FIFO")), detail: realtime },
    );
    Probed { tries, matrix: rows, features: features::of_scratch(&plan) }
}

fn capture_try() -> Try {
    let options = LiveOptions { ring_bytes: 1 << 20, promiscuous: false, filter: None };
    let mut capture = match LiveCapture::open(OWN, &options) {
        Ok(capture) => capture,
        Err(error) => return Try { works: Some(false), detail: causes(&error) },
    };
    let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) else {
        return untried("no UDP socket");
    };
    let sent = clock::now();
    if let Err(error) = socket.send_to(b"sekisho doctor", (FAR4, 9)) {
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
        scope: Scope::Destination(IpAddr::V4(FAR4)),
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
