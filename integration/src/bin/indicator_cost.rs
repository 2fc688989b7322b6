//! What indicators cost: time to load, memory, and price of a lookup, for each kind and number.

#![allow(clippy::print_stdout, reason = "a measuring program tells its numbers")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a measuring program may end at the first surprise"
)]

use rustix::time::{ClockId, clock_gettime};
use sekisho_engine::detect::indicator_set::IndicatorSet;
use sekisho_engine::rules::RulesBuilder;
use sekisho_schema::Timestamp;
use std::fmt::Write as _;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const LOOKUPS: u32 = 2_000_000;
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

fn ja3(n: u32) -> [u8; 16] {
    let mut hash = [0; 16];
    for (part, k) in hash.chunks_exact_mut(4).zip(0..) {
        part.copy_from_slice(&mix(n.wrapping_add(k << 28)).to_le_bytes());
    }
    hash
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

struct Kind {
    name: &'static str,
    text: fn(u32) -> String,
    find: fn(&IndicatorSet, u32, &mut String) -> bool,
}

fn put(text: &mut String, n: u32) {
    text.clear();
    let _ = write!(text, "{:08x}{}.example", mix(n), n % 100);
}

const KINDS: [Kind; 8] = [
    Kind {
        name: "address IPv4",
        text: |n| v4(n).to_string(),
        find: |set, n, _| set.by_address(IpAddr::V4(v4(n)), NOW).is_some(),
    },
    Kind {
        name: "address IPv6",
        text: |n| v6(n).to_string(),
        find: |set, n, _| set.by_address(IpAddr::V6(v6(n)), NOW).is_some(),
    },
    Kind {
        name: "network IPv4",
        text: |n| format!("{}/{}", v4(n), 24 + n % 8),
        find: |set, n, _| set.by_address(IpAddr::V4(v4(n)), NOW).is_some(),
    },
    Kind {
        name: "network IPv6",
        text: |n| format!("{}/{}", v6(n), 48 + n % 16),
        find: |set, n, _| set.by_address(IpAddr::V6(v6(n)), NOW).is_some(),
    },
    Kind {
        name: "endpoint",
        text: |n| format!("{}:443", v4(n)),
        find: |set, n, _| set.by_endpoint(SocketAddr::new(IpAddr::V4(v4(n)), 443), NOW).is_some(),
    },
    Kind {
        name: "domain",
        text: name,
        find: |set, n, text| {
            put(text, n);
            set.by_name(text, NOW).is_some()
        },
    },
    Kind {
        name: "url",
        text: |n| format!("http://{}/gate.php", name(n)),
        find: |set, n, text| {
            put(text, n);
            set.by_url(text, b"/gate.php", 80, NOW).is_some()
        },
    },
    Kind {
        name: "ja3",
        text: |n| format!("ja3:{}", hex(&ja3(n))),
        find: |set, n, _| set.by_ja3(&ja3(n), NOW).is_some(),
    },
];

fn main() {
    let most: u32 =
        std::env::args().nth(1).map_or(5_000_000, |most| most.parse().expect("a number"));
    println!(
        "{:<14}{:>10}{:>11}{:>11}{:>9}{:>10}{:>10}",
        "kind", "number", "text s", "compiled s", "bytes", "hit ns", "miss ns"
    );
    for kind in &KINDS {
        for many in [1000, 100_000, 1_000_000, 5_000_000].into_iter().filter(|many| *many <= most) {
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
            let compiled = (cpu() - began) / 1e9;
            drop(sections);
            let bytes = set.bytes() as f64 / f64::from(many);
            let mut room = String::with_capacity(64);
            let mut price = |shift: u32| {
                let mut found = 0_u32;
                let began = cpu();
                for n in 0..LOOKUPS {
                    let n = mix(n) % many + shift;
                    found += u32::from(black_box((kind.find)(&set, n, &mut room)));
                }
                ((cpu() - began) / f64::from(LOOKUPS), found)
            };
            let (hit, found) = price(0);
            assert_eq!(found, LOOKUPS, "all are found");
            let (miss, _) = price(100_000_000);
            println!(
                "{:<14}{many:>10}{text:>11.3}{compiled:>11.3}{bytes:>9.1}{hit:>10.1}{miss:>10.1}",
                kind.name
            );
        }
    }
}
