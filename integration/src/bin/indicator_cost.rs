//! What indicators cost: time to load, memory, price of a lookup and of a packet, for each kind and number.
//!
//! `indicator_cost [MOST [CAPTURE [RATIO]]]`: up to MOST of each kind. With a CAPTURE its frames are shown to an engine
//! with a thousand of the kind and to one with so many, in turn; with a RATIO it ends with 1 when a kind that is looked
//! up exactly makes a packet cost more than that many times what a thousand make it cost.

#![allow(clippy::print_stdout, reason = "a measuring program tells its numbers")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a measuring program may end at the first surprise"
)]

use rustix::time::{ClockId, clock_gettime};
use sekisho_engine::detect::indicator_set::IndicatorSet;
use sekisho_engine::flow::AHEAD;
use sekisho_engine::packs::shipped_packs;
use sekisho_engine::rules::{Rules, RulesBuilder};
use sekisho_engine::wire::{Frame, LinkType};
use sekisho_engine::{Engine, EngineConfig, Input, Limits};
use sekisho_schema::pack::RulePack;
use sekisho_schema::sealed::{Local, hex};
use sekisho_schema::{Timestamp, Verified};
use std::fmt::Write as _;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const LOOKUPS: u32 = 2_000_000;
/// The number that others are compared with.
const FEW: u32 = 1000;
/// Pairs of runs over the capture.
const PAIRS: usize = 5;
const NOW: Timestamp = Timestamp::EPOCH;

/// CPU time of this thread, in nanoseconds.
fn cpu() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

/// A number that looks random and never comes twice.
const fn mix(n: u32) -> u32 {
    let n = (n ^ n >> 16).wrapping_mul(0x7FEB_352D);
    let n = (n ^ n >> 15).wrapping_mul(0x846C_A68B);
    n ^ n >> 16
}

/// Public addresses only: 32.0.0.0 to 95.255.255.255.
fn v4(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x2000_0000 + (mix(n) >> 2))
}

fn v6(n: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(0x2A00_0000_u128 << 96 | u128::from(mix(n)) << 64 | u128::from(mix(!n)))
}

fn name(n: u32) -> String {
    format!("{:08x}{}.example", mix(n), n % 100)
}

/// Bytes that look random and never come twice.
fn bytes<const N: usize>(n: u32) -> [u8; N] {
    let mut hash = [0; N];
    for (part, k) in hash.chunks_exact_mut(4).zip(0..) {
        part.copy_from_slice(&mix(n.wrapping_add(k << 28)).to_le_bytes());
    }
    hash
}

struct Kind {
    name: &'static str,
    /// Whether one look at one table tells; networks and names above a name take more.
    exact: bool,
    text: fn(u32) -> String,
    find: fn(&IndicatorSet, u32, &mut String) -> bool,
}

fn put(text: &mut String, before: &str, n: u32) {
    text.clear();
    let _ = write!(text, "{before}{:08x}{}.example", mix(n), n % 100);
}

fn put_ja4(text: &mut String, n: u32) {
    text.clear();
    let _ = write!(text, "t13d1516h2_{:08x}e562_{:08x}8daa", mix(n), mix(!n));
}

fn put_agent(text: &mut String, n: u32) {
    text.clear();
    let _ = write!(text, "Mozilla/5.0 (Windows NT 10.0; Win64; Build {:08x})", mix(n));
}

fn put_with(put: fn(&mut String, u32), n: u32) -> String {
    let mut text = String::new();
    put(&mut text, n);
    text
}

const KINDS: [Kind; 12] = [
    Kind {
        name: "address IPv4",
        exact: true,
        text: |n| v4(n).to_string(),
        find: |set, n, _| set.by_address(IpAddr::V4(v4(n)), NOW).is_some(),
    },
    Kind {
        name: "address IPv6",
        exact: true,
        text: |n| v6(n).to_string(),
        find: |set, n, _| set.by_address(IpAddr::V6(v6(n)), NOW).is_some(),
    },
    Kind {
        name: "network IPv4",
        exact: false,
        text: |n| format!("{}/{}", v4(n), 24 + n % 8),
        find: |set, n, _| set.by_address(IpAddr::V4(v4(n)), NOW).is_some(),
    },
    Kind {
        name: "network IPv6",
        exact: false,
        text: |n| format!("{}/{}", v6(n), 48 + n % 16),
        find: |set, n, _| set.by_address(IpAddr::V6(v6(n)), NOW).is_some(),
    },
    Kind {
        name: "endpoint",
        exact: true,
        text: |n| format!("{}:443", v4(n)),
        find: |set, n, _| set.by_endpoint(SocketAddr::new(IpAddr::V4(v4(n)), 443), NOW).is_some(),
    },
    Kind {
        name: "domain alone",
        exact: true,
        text: |n| format!("={}", name(n)),
        find: |set, n, text| {
            put(text, "", n);
            set.by_name(text, NOW).is_some()
        },
    },
    Kind {
        name: "domain above",
        exact: false,
        text: name,
        find: |set, n, text| {
            put(text, "www.", n);
            set.by_name(text, NOW).is_some()
        },
    },
    Kind {
        name: "url",
        exact: true,
        text: |n| format!("http://{}/gate.php", name(n)),
        find: |set, n, text| {
            put(text, "", n);
            set.by_url(text, b"/gate.php", 80, NOW).is_some()
        },
    },
    Kind {
        name: "ja3",
        exact: true,
        text: |n| format!("ja3:{}", hex(&bytes::<16>(n))),
        find: |set, n, _| set.by_ja3(&bytes(n), NOW).is_some(),
    },
    Kind {
        name: "ja4",
        exact: true,
        text: |n| put_with(put_ja4, n),
        find: |set, n, text| {
            put_ja4(text, n);
            set.by_ja4(text, NOW).is_some()
        },
    },
    Kind {
        name: "certificate",
        exact: true,
        text: |n| format!("sha256:{}", hex(&bytes::<32>(n))),
        find: |set, n, _| set.by_certificate(&[&bytes::<32>(n)], NOW).is_some(),
    },
    Kind {
        name: "user-agent",
        exact: true,
        text: |n| format!("ua:{}", put_with(put_agent, n)),
        find: |set, n, text| {
            put_agent(text, n);
            set.by_user_agent(text.as_bytes(), NOW).is_some()
        },
    },
];

/// Frames that lie in memory.
struct Capture {
    link: LinkType,
    bytes: Vec<u8>,
    frames: Vec<(i64, u32, usize, usize)>,
}

impl Capture {
    fn read(path: &str) -> Self {
        let mut capture = pcap::Capture::from_file(path).expect("the capture can be opened");
        let link = LinkType::from_dlt(capture.get_datalink().0);
        let (mut bytes, mut frames) = (Vec::new(), Vec::new());
        while let Ok(packet) = capture.next_packet() {
            let at = packet.header.ts.tv_sec * 1_000_000_000 + packet.header.ts.tv_usec * 1000;
            frames.push((at, packet.header.len, bytes.len(), packet.data.len()));
            bytes.extend_from_slice(packet.data);
        }
        Self { link, bytes, frames }
    }

    /// Nanoseconds a packet of the whole engine with these indicators.
    fn price(&self, indicators: &IndicatorSet) -> f64 {
        let mut rules = RulesBuilder::new();
        for (name, text) in shipped_packs() {
            let pack = RulePack::parse(text).expect(name);
            rules.add_pack(&Verified::locally(pack, Local::BuiltIn)).expect(name);
        }
        let rules = Rules { indicators: indicators.clone(), ..rules.build() };
        let config =
            EngineConfig { host: "bench".to_owned(), limits: Limits::default(), hash_seed: 1 };
        let mut engine = Engine::new(config);
        engine.handle(Input::Rules(Box::new(rules), Timestamp::EPOCH));
        let frames: Vec<Frame<'_>> = self
            .frames
            .iter()
            .map(|(at, wire_len, from, len)| Frame {
                at_ns: *at,
                link: self.link,
                wire_len: *wire_len,
                bytes: &self.bytes[*from..from + len],
            })
            .collect();
        let began = cpu();
        for batch in frames.chunks(AHEAD) {
            engine.foresee(batch);
            for frame in batch {
                engine.handle(Input::Frame(*frame));
                while let Some(output) = engine.poll_output() {
                    black_box(output);
                }
            }
        }
        (cpu() - began) / self.frames.len().max(1) as f64
    }

    /// What a packet costs with the one set as a multiple of what it costs with the other.
    fn ratio(&self, of: &IndicatorSet, to: &IndicatorSet) -> f64 {
        let mut ratios: Vec<f64> = (0..PAIRS).map(|_| self.price(of) / self.price(to)).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[PAIRS / 2]
    }
}

/// What a kind and number cost.
struct Cost {
    set: IndicatorSet,
    text: f64,
    compiled: f64,
}

fn load(kind: &Kind, many: u32) -> Cost {
    let mut list = String::new();
    for n in 0..many {
        let _ = writeln!(list, "{}", (kind.text)(n));
    }
    let began = cpu();
    let mut builder = RulesBuilder::new();
    builder.add_list("list", &list).expect("the list is well formed");
    let direct = builder.build().indicators;
    let text = (cpu() - began) / 1e9;
    drop(list);
    let sections = direct.sections().expect("made together");
    drop(direct);
    let began = cpu();
    let mut builder = RulesBuilder::new();
    builder
        .add_compiled("compiled", |at| Ok::<_, ()>(sections[at].clone()))
        .expect("well formed")
        .expect("all there");
    let set = builder.build().indicators;
    Cost { set, text, compiled: (cpu() - began) / 1e9 }
}

/// Nanoseconds of a lookup of what is there, and of what is not.
fn lookups(kind: &Kind, set: &IndicatorSet, many: u32) -> (f64, f64) {
    let mut room = String::with_capacity(100);
    let mut price = |shift: u32| {
        let mut found = 0_u32;
        let began = cpu();
        for n in 0..LOOKUPS {
            let n = mix(n) % many + shift;
            found += u32::from(black_box((kind.find)(set, n, &mut room)));
        }
        ((cpu() - began) / f64::from(LOOKUPS), found)
    };
    let (hit, found) = price(0);
    assert_eq!(found, LOOKUPS, "all are found");
    (hit, price(100_000_000).0)
}

fn main() -> std::process::ExitCode {
    let mut words = std::env::args().skip(1);
    let most: u32 = words.next().map_or(5_000_000, |most| most.parse().expect("a number"));
    let capture = words.next().map(|path| Capture::read(&path));
    let bound: f64 = words.next().map_or(f64::MAX, |bound| bound.parse().expect("a ratio"));
    println!(
        "{:<13}{:>9}{:>9}{:>11}{:>8}{:>9}{:>9}{:>9}",
        "kind", "number", "text s", "compiled s", "bytes", "hit ns", "miss ns", "packet"
    );
    let mut dear = Vec::new();
    for kind in &KINDS {
        let few = load(kind, FEW).set;
        for many in [FEW, 100_000, 1_000_000, 5_000_000].into_iter().filter(|many| *many <= most) {
            let cost = load(kind, many);
            let (hit, miss) = lookups(kind, &cost.set, many);
            let ratio = capture.as_ref().map(|capture| capture.ratio(&cost.set, &few));
            println!(
                "{:<13}{many:>9}{:>9.3}{:>11.3}{:>8.1}{hit:>9.1}{miss:>9.1}{:>9}",
                kind.name,
                cost.text,
                cost.compiled,
                cost.set.bytes() as f64 / f64::from(many),
                ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            );
            if let Some(ratio) = ratio.filter(|ratio| kind.exact && *ratio > bound) {
                dear.push(format!("{many} of {}: {ratio:.2} times", kind.name));
            }
        }
    }
    if dear.is_empty() {
        return std::process::ExitCode::SUCCESS;
    }
    println!(
        "a packet costs more than {bound} times what it costs with {FEW}: {}",
        dear.join("; ")
    );
    std::process::ExitCode::FAILURE
}
