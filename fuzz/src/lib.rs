//! Hostile inputs for every reader of what a stranger or a third party wrote.
//!
//! Each function takes any bytes, gives them to one reader as the product does, and asserts what
//! must hold for all of them; it panics when something does not. The programs in `fuzz_targets` call
//! them from libFuzzer, the tests replay `corpus` and `regressions` and hold [`Target::most_memory`].

mod app;
mod documents;
mod input;
mod intel;
mod kept;
mod packets;
mod quic;
pub mod seeds;
mod tape;

pub use self::app::{dns, http_head, lznt1, plugx_decode, quic_initial, socks, ssh, tls_hello};
pub use self::documents::{cases, policy, rule_pack, sealed};
pub use self::intel::{indicator_import, indicators_compiled};
pub use self::kept::{episodes, saved};
pub use self::packets::{engine, flow, fragments, tight_limits, wire};

/// A reader to be tried.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: of the program and of the folders of its inputs.
    pub name: &'static str,
    /// Reads an input; panics if something does not hold.
    pub run: fn(&[u8]),
    /// Longest input in bytes that is worth trying.
    pub longest: usize,
    /// Bytes of memory that it may take at once for any input.
    fixed: usize,
    /// Bytes of memory that it may take at once for each byte of input besides.
    each: usize,
}

impl Target {
    /// Bytes of memory that reading an input of a length may take at once, at most.
    #[must_use]
    pub const fn most_memory(&self, len: usize) -> usize {
        self.fixed + self.each * len
    }
}

/// Every target.
pub const TARGETS: [Target; 19] = [
    // What reads packets, names and heads allocates nothing at all.
    Target { name: "wire", run: wire, longest: 4096, fixed: 0, each: 0 },
    Target { name: "dns", run: dns, longest: 4096, fixed: 0, each: 0 },
    Target { name: "http_head", run: http_head, longest: 20_000, fixed: 0, each: 0 },
    Target { name: "ssh", run: ssh, longest: 10_000, fixed: 0, each: 0 },
    Target { name: "socks", run: socks, longest: 1024, fixed: 0, each: 0 },
    // Subject and issuer of a certificate, and its hello, are written as text.
    Target { name: "tls_hello", run: tls_hello, longest: 20_000, fixed: 4096, each: 32 },
    Target { name: "quic_initial", run: quic_initial, longest: 4096, fixed: 16 << 10, each: 16 },
    Target { name: "plugx_decode", run: plugx_decode, longest: 8192, fixed: 192 << 10, each: 0 },
    Target { name: "lznt1", run: lznt1, longest: 8192, fixed: 192 << 10, each: 0 },
    // The tables of the limits that the targets set.
    Target { name: "fragments", run: fragments, longest: 16_384, fixed: 512 << 10, each: 16 },
    Target { name: "flow", run: flow, longest: 8192, fixed: 512 << 10, each: 16 },
    Target { name: "engine", run: engine, longest: 16_384, fixed: 2 << 20, each: 256 },
    Target {
        name: "indicator_import",
        run: indicator_import,
        longest: 16_384,
        fixed: 1 << 20,
        each: 256,
    },
    Target {
        name: "indicators_compiled",
        run: indicators_compiled,
        longest: 16_384,
        fixed: 1 << 20,
        each: 256,
    },
    Target { name: "rule_pack", run: rule_pack, longest: 16_384, fixed: 2 << 20, each: 512 },
    Target { name: "policy", run: policy, longest: 8192, fixed: 2 << 20, each: 512 },
    Target { name: "sealed", run: sealed, longest: 16_384, fixed: 256 << 10, each: 128 },
    // The tables of the limits that the targets set, thrice, and what is told of them.
    Target { name: "episodes", run: episodes, longest: 16_384, fixed: 6 << 20, each: 256 },
    // A script may ask for as many frames as the forge grants.
    Target { name: "cases", run: cases, longest: 8192, fixed: 160 << 20, each: 512 },
];
