//! Frames built by hand, and an engine with a log of what left it.

use sekisho_engine::rules::{Rules, RulesBuilder};
use sekisho_engine::wire::{Frame, LinkType};
use sekisho_engine::{Engine, EngineConfig, HostFact, Input, Limits, Output, drive, packs};
use sekisho_schema::pack::RulePack;
use sekisho_schema::sealed::Local;
use sekisho_schema::{Body, Finding, Policy, Span, Timestamp, Verified};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

pub(crate) const START: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);
pub(crate) const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
pub(crate) const C2: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
pub(crate) const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 53);
/// Metasploit's probe under T1 with the key 0x12345678 (plugx.md, V10).
pub(crate) const PROBE: [u8; 16] = [
    0x78, 0x56, 0x34, 0x12, 0x27, 0x8a, 0x2a, 0xea, 0xc3, 0x69, 0xb7, 0x74, 0x7d, 0xef, 0xc1, 0xdd,
];

/// A frame that owns its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) at: Timestamp,
    pub(crate) wire_len: u32,
    pub(crate) bytes: Vec<u8>,
}

impl Made {
    pub(crate) fn frame(&self) -> Frame<'_> {
        Frame {
            at_ns: self.at.nanos(),
            link: LinkType::Ethernet,
            wire_len: self.wire_len,
            bytes: &self.bytes,
        }
    }
}

pub(crate) fn end(ip: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(ip, port)
}

fn ipv4(
    at: Timestamp,
    proto: u8,
    src: Ipv4Addr,
    dst: Ipv4Addr,
    body: &[u8],
    stated: usize,
) -> Made {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    bytes.extend_from_slice(&u16::try_from(20 + stated).unwrap().to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0x40, 0, 64, proto, 0, 0]);
    bytes.extend_from_slice(&src.octets());
    bytes.extend_from_slice(&dst.octets());
    bytes.extend_from_slice(body);
    Made { at, wire_len: u32::try_from(34 + stated).unwrap(), bytes }
}

pub(crate) fn udp(at: Timestamp, src: SocketAddrV4, dst: SocketAddrV4, payload: &[u8]) -> Made {
    udp_stating(at, src, dst, payload, payload.len())
}

/// A datagram whose headers state more payload than was captured.
pub(crate) fn udp_stating(
    at: Timestamp,
    src: SocketAddrV4,
    dst: SocketAddrV4,
    payload: &[u8],
    stated: usize,
) -> Made {
    let mut body = Vec::new();
    body.extend_from_slice(&src.port().to_be_bytes());
    body.extend_from_slice(&dst.port().to_be_bytes());
    body.extend_from_slice(&u16::try_from(8 + stated).unwrap().to_be_bytes());
    body.extend_from_slice(&[0, 0]);
    body.extend_from_slice(payload);
    ipv4(at, 17, *src.ip(), *dst.ip(), &body, 8 + stated)
}

pub(crate) fn tcp(
    at: Timestamp,
    src: SocketAddrV4,
    dst: SocketAddrV4,
    flags: u8,
    seq: u32,
    ack: u32,
    payload: &[u8],
) -> Made {
    let mut body = Vec::new();
    body.extend_from_slice(&src.port().to_be_bytes());
    body.extend_from_slice(&dst.port().to_be_bytes());
    body.extend_from_slice(&seq.to_be_bytes());
    body.extend_from_slice(&ack.to_be_bytes());
    body.extend_from_slice(&[0x50, flags, 0xFF, 0xFF, 0, 0, 0, 0]);
    body.extend_from_slice(payload);
    let stated = body.len();
    ipv4(at, 6, *src.ip(), *dst.ip(), &body, stated)
}

const SYN: u8 = 2;
const PSH_ACK: u8 = 0x18;
const ACK: u8 = 0x10;

/// A handshake and one segment of payload from the client, a millisecond apart.
pub(crate) fn hello(
    at: Timestamp,
    client: SocketAddrV4,
    server: SocketAddrV4,
    payload: &[u8],
) -> Vec<Made> {
    let step = |n| at.after(Span::from_millis(n));
    vec![
        tcp(step(0), client, server, SYN, 100, 0, &[]),
        tcp(step(1), server, client, SYN | ACK, 900, 101, &[]),
        tcp(step(2), client, server, ACK, 101, 901, &[]),
        tcp(step(3), client, server, PSH_ACK, 101, 901, payload),
    ]
}

fn dns_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

pub(crate) fn query(at: Timestamp, name: &str) -> Made {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&dns_name(name));
    message.extend_from_slice(&[0, 1, 0, 1]);
    udp(at, end(LOCAL, 40_000), end(RESOLVER, 53), &message)
}

pub(crate) fn answer(at: Timestamp, name: &str, address: Ipv4Addr) -> Made {
    let mut message = vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    message.extend_from_slice(&dns_name(name));
    message.extend_from_slice(&[0, 1, 0, 1, 0xC0, 12, 0, 1, 0, 1, 0, 0, 1, 0x2C, 0, 4]);
    message.extend_from_slice(&address.octets());
    udp(at, end(RESOLVER, 53), end(LOCAL, 40_000), &message)
}

pub(crate) fn policy(mode: &str, more: &str) -> Policy {
    let text = format!(
        "schema = \"sekisho.policy/1\"\nversion = 42\nmode = \"{mode}\"\n{more}\n\
         [duty]\ngroup = \"web\"\nowner = \"Aiko\"\ndeputy = \"Ben\"\n"
    );
    Policy::parse(&text).unwrap()
}

pub(crate) const DECIDE: &str = "
[[decide]]
detector = \"plugx.*\"
grade = \"malicious\"
level = 5
lease = \"24h\"
[[decide]]
detector = \"indicator.*\"
grade = \"malicious\"
level = 3
lease = \"1h\"
";

/// The shipped packs and one with these indicators.
pub(crate) fn rules(indicators: &[&str]) -> Rules {
    let mut rules = RulesBuilder::new();
    for (_, text) in packs::shipped_packs() {
        let pack = RulePack::parse(text).unwrap();
        rules.add_pack(&Verified::locally(pack, Local::BuiltIn)).unwrap();
    }
    let mut own = String::from("schema = \"sekisho.rules/1\"\nname = \"local\"\nversion = 3\n");
    for (n, value) in indicators.iter().enumerate() {
        own.push_str(&format!(
            "[[indicator]]\nid = \"i-{n}\"\nvalue = \"{value}\"\nsource = \"a report\"\nconfidence = 90\n"
        ));
    }
    let pack = RulePack::parse(&own).unwrap();
    rules.add_pack(&Verified::locally(pack, Local::Installed)).unwrap();
    rules.build()
}

/// An engine and everything that left it.
pub(crate) struct Bench {
    pub(crate) engine: Engine,
    pub(crate) log: Vec<Output>,
}

impl Bench {
    pub(crate) fn new(mode: &str, more: &str, indicators: &[&str]) -> Self {
        Self::with(policy(mode, &format!("{more}\n{DECIDE}")), indicators, Limits::default())
    }

    pub(crate) fn with(policy: Policy, indicators: &[&str], limits: Limits) -> Self {
        let host = "web-1".to_owned();
        let mut engine = Engine::new(EngineConfig { host, limits, hash_seed: 7 });
        let at = START.before(Span::from_secs(1));
        engine.handle(Input::Fact(HostFact::Addresses(vec![IpAddr::V4(LOCAL)]), at));
        engine.handle(Input::Rules(Box::new(rules(indicators)), at));
        let policy = Verified::locally(policy, Local::Installed);
        engine.handle(Input::Policy(Box::new(policy), at));
        let mut bench = Self { engine, log: Vec::new() };
        bench.drain();
        bench
    }

    pub(crate) fn feed(&mut self, frames: &[Made]) {
        let log = &mut self.log;
        drive(&mut self.engine, frames.iter().map(Made::frame), |output| log.push(output));
    }

    pub(crate) fn input(&mut self, input: Input<'_>) {
        self.engine.handle(input);
        self.drain();
    }

    pub(crate) fn tick(&mut self, now: Timestamp) {
        let log = &mut self.log;
        drive::tick(&mut self.engine, now, &mut |output| log.push(output));
    }

    pub(crate) fn drain(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            self.log.push(output);
        }
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = (Timestamp, &Body)> {
        self.log.iter().filter_map(|output| match output {
            Output::Record(record) => Some((record.at, &record.body)),
            Output::Approve(_) | Output::AskOwner(_) | Output::Contain(_) => None,
        })
    }

    /// Everything that was found.
    pub(crate) fn every_finding(&self) -> Vec<&Finding> {
        self.records()
            .filter_map(|(_, body)| match body {
                Body::Finding(finding) => Some(&**finding),
                _ => None,
            })
            .collect()
    }

    /// What was found, but for protocols that are not what their port says: the frames made here
    /// carry made-up bytes on well-known ports.
    pub(crate) fn findings(&self) -> Vec<&Finding> {
        self.every_finding()
            .into_iter()
            .filter(|finding| !finding.detector.starts_with("protocol."))
            .collect()
    }

    pub(crate) fn orders(&self) -> Vec<&sekisho_engine::ContainOrder> {
        self.log
            .iter()
            .filter_map(|output| match output {
                Output::Contain(order) => Some(&**order),
                Output::Approve(_) | Output::AskOwner(_) | Output::Record(_) => None,
            })
            .collect()
    }
}
