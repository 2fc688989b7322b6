//! The product's whole engine with traffic made in memory: time is the frames' own, so seven days take seconds.

use sekisho_engine::packs::shipped_packs;
use sekisho_engine::rules::RulesBuilder;
use sekisho_engine::wire::{Frame, LinkType};
use sekisho_engine::{Engine, EngineConfig, HostFact, Input, Limits, Output, drive};
use sekisho_schema::pack::RulePack;
use sekisho_schema::sealed::Local;
use sekisho_schema::{Body, ContainmentSet, Finding, Policy, Span, Timestamp, Verified};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

/// The host that is watched.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
/// When the made traffic begins: a Monday, 00:00 UTC.
pub const START: Timestamp = Timestamp::from_nanos(1_780_272_000_000_000_000);
/// Largest payload that one made datagram states.
const DATAGRAM: f64 = 60_000.0;
/// Bytes of it that are really there.
const SNAP: usize = 24;

/// The time so many seconds after [`START`].
#[must_use]
pub fn after(seconds: f64) -> Timestamp {
    START.after(Span::from_nanos((seconds * 1e9) as i64))
}

/// An engine, and what it said.
pub struct Replay {
    engine: Engine,
    /// Findings in order.
    pub findings: Vec<Finding>,
    /// What the kernel should hold, each time it changed.
    pub orders: Vec<(Timestamp, ContainmentSet)>,
    /// Frames shown.
    pub frames: u64,
}

impl Replay {
    /// An engine with the shipped rules, this policy, and these addresses as indicators.
    ///
    /// # Panics
    ///
    /// When the policy or a pack is malformed.
    #[must_use]
    pub fn new(policy: &str, indicators: &[Ipv4Addr]) -> Self {
        let mut rules = RulesBuilder::new();
        for (name, text) in shipped_packs() {
            let pack = RulePack::parse(text).expect(name);
            rules.add_pack(&Verified::locally(pack, Local::BuiltIn)).expect(name);
        }
        let mut own =
            String::from("schema = \"sekisho.rules/1\"\nname = \"forged\"\nversion = 1\n");
        for (n, value) in indicators.iter().enumerate() {
            let _ = write!(
                own,
                "[[indicator]]\nid = \"i-{n}\"\nvalue = \"{value}\"\nsource = \"forged\"\nconfidence = 90\n"
            );
        }
        let pack = RulePack::parse(&own).expect("a pack of addresses");
        rules.add_pack(&Verified::locally(pack, Local::Installed)).expect("a pack of addresses");
        let policy = Policy::parse(policy).expect("the experiment's policy is well formed");
        let config =
            EngineConfig { host: "server".to_owned(), limits: Limits::default(), hash_seed: 7 };
        let mut engine = Engine::new(config);
        let at = START.before(Span::from_secs(1));
        engine.handle(Input::Fact(HostFact::Addresses(vec![IpAddr::V4(HOST)]), at));
        engine.handle(Input::Fact(HostFact::Enforcement(Ok(())), at));
        engine.handle(Input::Rules(Box::new(rules.build()), at));
        engine.handle(Input::Policy(Box::new(Verified::locally(policy, Local::Installed)), at));
        let mut replay = Self { engine, findings: Vec::new(), orders: Vec::new(), frames: 0 };
        while let Some(output) = replay.engine.poll_output() {
            keep(&mut replay.findings, &mut replay.orders, at, output);
        }
        replay
    }

    /// Sends payload bytes to a destination, and its answer back, as datagrams.
    pub fn send(&mut self, seconds: f64, to: (Ipv4Addr, u16), up: f64, down: f64) {
        let mut left = up.max(1.0);
        let at = after(seconds);
        let mut step = 0;
        while left >= 1.0 {
            let stated = left.min(DATAGRAM);
            left -= stated;
            self.show(at.after(Span::from_nanos(step * 1000)), (HOST, 50_000), to, stated as u16);
            step += 1;
        }
        if down >= 1.0 {
            let stated = down.min(DATAGRAM) as u16;
            self.show(at.after(Span::from_millis(1)), to, (HOST, 50_000), stated);
        }
    }

    fn show(&mut self, at: Timestamp, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), stated: u16) {
        let bytes = datagram(from, to, stated);
        let frame = Frame {
            at_ns: at.nanos(),
            link: LinkType::Ethernet,
            wire_len: 42 + u32::from(stated),
            bytes: &bytes,
        };
        self.frames += 1;
        let (findings, orders) = (&mut self.findings, &mut self.orders);
        drive::step(&mut self.engine, frame, &mut |output| keep(findings, orders, at, output));
    }

    /// Lets time pass without traffic.
    pub fn pass(&mut self, until: f64) {
        let at = after(until);
        let (findings, orders) = (&mut self.findings, &mut self.orders);
        drive::tick(&mut self.engine, at, &mut |output| keep(findings, orders, at, output));
    }

    /// Seconds after [`START`] of the first finding of these detectors from a place in the log on.
    #[must_use]
    pub fn first(&self, detectors: &[&str]) -> Option<f64> {
        self.findings
            .iter()
            .find(|finding| detectors.contains(&finding.detector.as_str()))
            .map(|finding| finding.matched_at.since(START).as_secs_f64())
    }
}

fn keep(
    findings: &mut Vec<Finding>,
    orders: &mut Vec<(Timestamp, ContainmentSet)>,
    at: Timestamp,
    output: Output,
) {
    match output {
        Output::Contain(order) => orders.push((at, order.set)),
        Output::Record(record) => {
            if let Body::Finding(finding) = record.body {
                findings.push(*finding);
            }
        }
        Output::Approve(_) | Output::AskOwner(_) => {}
    }
}

/// A UDP datagram over Ethernet and IPv4 whose headers state this payload.
fn datagram(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), stated: u16) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    bytes.extend_from_slice(&(28 + stated).to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
    bytes.extend_from_slice(&from.0.octets());
    bytes.extend_from_slice(&to.0.octets());
    bytes.extend_from_slice(&from.1.to_be_bytes());
    bytes.extend_from_slice(&to.1.to_be_bytes());
    bytes.extend_from_slice(&(8 + stated).to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    // Neither text nor noise: what it carries must not be what is found.
    bytes.extend(
        (0..SNAP.min(usize::from(stated))).map(|at| if at % 2 == 0 { 0 } else { at as u8 }),
    );
    bytes
}
