//! The self-test: each sender that a safe program can be, against levels 3, 5 and 6, each first seen to get through.

use super::frames::{self, Eye, OTHER, PLAIN, TAGGED, tag};
use super::scratch::{FAR4, FAR6, INSIDE4, NAME, ON_MACVLAN, OWN4, PEER, ROUTED, space};
use crate::chain::causes;
use crate::clock;
use crate::enforce::{Enforcer, Plan};
use crate::target::{Namespace, within};
use sekisho_schema::{Containment, ContainmentId, ContainmentSet, Measure, Scope, Span};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{Error, Read as _, Result, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

/// Longest wait for what must arrive, and for what must not: a frame takes far less than a millisecond here.
const ARRIVES: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_millis(250);
/// Port of the far end's service.
const SERVICE: u16 = 7;

/// How a sender fared against a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Cell {
    /// Nothing arrived, as told.
    Cut,
    /// It arrived, and this level is told not to close it.
    Declared,
    /// It arrived, and has to: it is inside.
    Open,
    /// It arrived and must not.
    Passes,
    /// It must arrive and did not.
    Broken,
}

/// A sender and how it fared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    sender: String,
    /// Why it could not be tried, if it could not: uncut it did not get through either.
    untried: Option<String>,
    levels: BTreeMap<u8, Cell>,
}

impl Row {
    /// Whether it fared as the product says.
    pub(super) fn is_as_told(&self) -> bool {
        self.untried.is_none()
            && self.levels.values().all(|cell| !matches!(cell, Cell::Passes | Cell::Broken))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<38}", self.sender)?;
        if let Some(why) = &self.untried {
            return write!(f, " NOT TRIED: {why}");
        }
        for level in [3, 5, 6] {
            let word = match self.levels.get(&level) {
                Some(Cell::Broken) => "BROKEN",
                Some(Cell::Cut) => "cut",
                Some(Cell::Declared) => "passes *",
                Some(Cell::Open) => "open",
                Some(Cell::Passes) => "PASSES",
                None => "?",
            };
            write!(f, " {word:<10}")?;
        }
        let declared = self.levels.values().any(|cell| *cell == Cell::Declared);
        if declared { write!(f, "* vlan_tagged_frames, see below") } else { Ok(()) }
    }
}

/// What a sender does with a payload.
type Send = fn(&Ground, &[u8]) -> Result<()>;

/// A sender, and what is told of it.
struct Sender {
    name: &'static str,
    send: Send,
    /// Lowest level that is told to cut it; below it is a declared hole, or inside.
    from: u8,
    inside: bool,
}

const fn sender(name: &'static str, send: Send) -> Sender {
    Sender { name, send, from: 3, inside: false }
}

const SENDERS: [Sender; 17] = [
    sender("TCP, established", |ground, payload| {
        let mut established = &ground.established;
        let _ = established.write(payload);
        Ok(())
    }),
    sender("TCP, new", |_, payload| connect(FAR4.into(), payload)),
    sender("TCP over IPv6, new", |_, payload| connect(FAR6.into(), payload)),
    sender("UDP", |_, payload| frames::udp(FAR4.into(), payload)),
    sender("UDP over IPv6", |_, payload| frames::udp(FAR6.into(), payload)),
    sender("ICMP echo, raw socket", |_, payload| frames::icmp(FAR4.into(), payload)),
    sender("ICMPv6 echo, raw socket", |_, payload| frames::icmp(FAR6.into(), payload)),
    sender("raw socket with its own IP header", |_, payload| frames::own_header(payload)),
    sender("AF_PACKET", |_, payload| frames::frame(frames::DEVICE, OWN4, PLAIN, payload)),
    Sender {
        from: 5,
        ..sender("AF_PACKET with an 802.1Q tag", |_, payload| {
            frames::frame(frames::DEVICE, OWN4, TAGGED, payload)
        })
    },
    Sender {
        from: 5,
        ..sender("AF_PACKET of ethertype 0x88b5", |_, payload| {
            frames::frame(frames::DEVICE, OWN4, OTHER, payload)
        })
    },
    sender("routed container, UDP", |ground, payload| {
        ground.inside(ROUTED, || frames::udp(FAR4.into(), payload))
    }),
    sender("routed container, UDP over IPv6", |ground, payload| {
        ground.inside(ROUTED, || frames::udp(FAR6.into(), payload))
    }),
    sender("routed container, TCP", |ground, payload| {
        ground.inside(ROUTED, || connect(FAR4.into(), payload))
    }),
    sender("macvlan container, UDP", |ground, payload| {
        ground.inside(ON_MACVLAN, || frames::udp(FAR4.into(), payload))
    }),
    sender("macvlan container, AF_PACKET", |ground, payload| {
        ground.inside(ON_MACVLAN, || {
            frames::frame("mv0", Ipv4Addr::new(198, 51, 100, 50), PLAIN, payload)
        })
    }),
    Sender {
        from: 6,
        inside: true,
        ..sender("UDP to an inside address", |_, payload| frames::udp(INSIDE4.into(), payload))
    },
];

/// What senders are given.
struct Ground {
    name: String,
    established: TcpStream,
}

impl Ground {
    fn inside(
        &self,
        part: &str,
        body: impl FnOnce() -> Result<()> + std::marker::Send,
    ) -> Result<()> {
        enter(&space(&self.name, part), body)?
    }
}

fn enter<T: std::marker::Send>(
    name: &str,
    body: impl FnOnce() -> T + std::marker::Send,
) -> Result<T> {
    let inode = std::fs::metadata(format!("/run/netns/{name}"))?.ino();
    within(&Namespace { inode, pid: 0 }, body).map_err(|error| Error::other(causes(&error)))
}

fn connect(to: IpAddr, payload: &[u8]) -> Result<()> {
    // That it can't be opened is what a cut is for.
    if let Ok(mut stream) = TcpStream::connect_timeout(&SocketAddr::new(to, SERVICE), SILENCE) {
        let _ = stream.write(payload);
    }
    Ok(())
}

/// The plan of the host under test.
pub(super) fn plan() -> Plan {
    let inside = ["198.51.100.0/24", "2001:db8:5::/64", "10.99.8.0/24", "fd99:8::/64", "fe80::/10"];
    Plan {
        uplinks: vec![frames::DEVICE.to_owned()],
        inside: inside.iter().filter_map(|network| network.parse().ok()).collect(),
        ..Plan::default()
    }
}

/// Tries every sender against every level.
pub(super) fn run(enforcer: &mut Enforcer) -> Result<Vec<Row>> {
    let name = std::env::var(NAME).map_err(Error::other)?;
    for file in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{file}"), "1")?;
    }
    // What was tried before must not be in the way.
    let _ = enforcer
        .apply(&ContainmentSet { generation: 9, ..ContainmentSet::default() }, clock::now());
    let eye = Eye::default();
    enter(&space(&name, PEER), || {
        eye.open()?;
        serve(TcpListener::bind((Ipv6Addr::UNSPECIFIED, SERVICE))?)
    })??;
    // Addresses and neighbours of a link that has just come up need a moment.
    for far in [IpAddr::from(FAR4), IpAddr::from(FAR6)] {
        let _ = TcpStream::connect_timeout(&SocketAddr::new(far, SERVICE), ARRIVES);
    }
    let mut rows: Vec<Row> = SENDERS
        .iter()
        .map(|sender| Row {
            sender: sender.name.to_owned(),
            untried: None,
            levels: BTreeMap::new(),
        })
        .collect();
    for (generation, level) in [(10, 3_u8), (20, 5), (30, 6)] {
        let tried = against(enforcer, &name, &eye, level, generation, &mut rows);
        // Whatever came of it, the next one starts uncut.
        let _ = enforcer.apply(
            &ContainmentSet { generation: generation + 1, ..ContainmentSet::default() },
            clock::now(),
        );
        tried?;
    }
    eye.close();
    Ok(rows)
}

fn against(
    enforcer: &mut Enforcer,
    name: &str,
    eye: &Eye,
    level: u8,
    generation: u64,
    rows: &mut [Row],
) -> Result<()> {
    let established = TcpStream::connect_timeout(&SocketAddr::new(FAR4.into(), SERVICE), ARRIVES)?;
    established.set_nodelay(true)?;
    let ground = Ground { name: name.to_owned(), established };
    let uncut = burst(&ground);
    let deadline = Instant::now() + ARRIVES;
    while Instant::now() < deadline && !uncut.iter().flatten().all(|number| eye.saw(*number)) {
        std::thread::sleep(Duration::from_millis(2));
    }
    for (row, sent) in rows.iter_mut().zip(&uncut) {
        match sent {
            Ok(number) if eye.saw(*number) => {}
            Ok(_) => row.untried = Some("uncut it did not arrive either".to_owned()),
            Err(why) => row.untried = Some(why.clone()),
        }
    }
    let set = set(level, generation);
    let _ = enforcer.apply(&set, clock::now()).map_err(|error| Error::other(causes(&error)))?;
    let cut = burst(&ground);
    std::thread::sleep(SILENCE);
    for ((row, sender), sent) in rows.iter_mut().zip(&SENDERS).zip(&cut) {
        let arrived = sent.as_ref().is_ok_and(|number| eye.saw(*number));
        let told_cut = level >= sender.from;
        row.levels.insert(
            level,
            match (arrived, told_cut, sender.inside) {
                (true, true, _) => Cell::Passes,
                (false, true, _) => Cell::Cut,
                (true, false, true) => Cell::Open,
                (false, false, true) => Cell::Broken,
                // A hole that is told and is none here is no fault.
                (true, false, false) => Cell::Declared,
                (false, false, false) => Cell::Cut,
            },
        );
    }
    Ok(())
}

/// Has every sender send one packet; their numbers, or why it could not be sent.
fn burst(ground: &Ground) -> Vec<std::result::Result<u64, String>> {
    SENDERS
        .iter()
        .map(|sender| {
            let (number, payload) = tag();
            (sender.send)(ground, &payload).map(|()| number).map_err(|error| error.to_string())
        })
        .collect()
}

fn set(level: u8, generation: u64) -> ContainmentSet {
    let scopes = match level {
        3 => vec![Scope::Destination(FAR4.into()), Scope::Destination(FAR6.into())],
        5 => vec![Scope::Host],
        _ => vec![Scope::ManagementOnly],
    };
    let now = clock::now();
    let held = scopes.into_iter().enumerate().map(|(nth, scope)| {
        let id = ContainmentId(format!("c-d0c70d0c7{level:02}{nth}"));
        let containment = Containment {
            id: id.clone(),
            scope,
            level,
            since: now,
            until: now.after(Span::from_secs(30)),
            cause: "doctor".to_owned(),
            finding: None,
            by: None,
            measure: Measure::Cut,
            trial_until: None,
        };
        (id, containment)
    });
    ContainmentSet { generation, containments: held.collect() }
}

/// Takes connections and reads them, until the process ends.
fn serve(listener: TcpListener) -> Result<()> {
    std::thread::Builder::new()
        .name("service".to_owned())
        .spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = std::thread::Builder::new().spawn(move || {
                    let mut stream = stream;
                    let mut bytes = [0; 256];
                    while stream.read(&mut bytes).is_ok_and(|count| count > 0) {}
                });
            }
        })
        .map(drop)
}
