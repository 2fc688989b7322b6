//! Every cap of the engine in one place: all state is bounded, and what is evicted is counted.

use sekisho_schema::Span;

/// Flows that one wire detector remembers something of; the second-chance rule decides which goes.
pub(crate) const SESSIONS: usize = 4096;

/// Bounds of the engine's tables and timers.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Flows tracked at once; the one that would be forgotten soonest gives way.
    pub flows: usize,
    /// Addresses bound to a DNS name at once.
    pub names: usize,
    /// Flows whose head (first payload bytes of a direction) is held at once.
    pub heads: usize,
    /// Bytes of a head held per direction: the largest PlugX message (0xF000 + 16 bytes, plugx.md 1.1).
    pub head_bytes: usize,
    /// Bytes of all heads together: whoever can open connections decides how many are long.
    pub heads_bytes: usize,
    /// Destinations watched by the learning detectors at once.
    pub destinations: usize,
    /// Episodes (workload, destination and service outside the baseline) watched at once.
    pub episodes: usize,
    /// Usual destinations whose daily upload is remembered at once.
    pub envelopes: usize,
    /// Registered domains, by asking host, of which it is counted what their names carry.
    pub asked_domains: usize,
    /// Addresses, by host, of which it is counted what echoes to them carry.
    pub echo_peers: usize,
    /// Destinations, by host and service, of which calls without payload are counted at once.
    pub called: usize,
    /// Addresses, by host, whose name is remembered beyond its time to live, or was said by the client alone.
    pub named_peers: usize,
    /// Inside hosts that are told apart by the learning stage; the others share one place.
    pub learned_hosts: usize,
    /// Findings whose repetition is suppressed at once.
    pub recent_findings: usize,
    /// Findings below malicious that one detector tells within [`Limits::repeat_after`], those of flows
    /// that begin outside and those that begin inside each; what is beyond is counted.
    pub findings_of_detector: usize,
    /// A finding with the same detector, host, indicator and remote is told once within this span.
    pub repeat_after: Span,
    /// A TCP flow without traffic is forgotten after this span.
    pub tcp_idle: Span,
    /// A UDP, ICMP or other flow without traffic is forgotten after this span.
    pub datagram_idle: Span,
    /// A closed TCP flow is forgotten after this span.
    pub closed_linger: Span,
    /// Containments held at once.
    pub containments: usize,
    /// Flows whose owner is asked for at once; the first asked is taken for nobody's.
    pub asked_owners: usize,
    /// An owner that was not told within this span is taken for nobody.
    pub owner_wait: Span,
    /// Addresses of approved names at once; the one longest not answered gives way.
    pub approved: usize,
    /// Fragmented datagrams held at once until they are whole.
    pub fragments: usize,
    /// Bytes of all held fragments together.
    pub fragment_bytes: usize,
    /// Fragments held of one datagram.
    pub fragment_pieces: usize,
    /// A datagram that is not whole this long after its first fragment came is given up (Linux
    /// `ipfrag_time`).
    pub fragment_lifetime: Span,
    /// Far ends of tunnels remembered as spoken to; the first met gives way.
    pub tunnel_peers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 1 << 20,
            names: 1 << 17,
            heads: 4096,
            head_bytes: 0xF010,
            heads_bytes: 32 << 20,
            destinations: 1 << 16,
            episodes: 1 << 16,
            envelopes: 1 << 14,
            asked_domains: 1 << 14,
            echo_peers: 4096,
            called: 2048,
            named_peers: 1 << 14,
            learned_hosts: 4096,
            recent_findings: 1 << 16,
            findings_of_detector: 1000,
            repeat_after: Span::from_hours(1),
            tcp_idle: Span::from_hours(1),
            datagram_idle: Span::from_secs(120),
            closed_linger: Span::from_secs(5),
            containments: 4096,
            asked_owners: 256,
            owner_wait: Span::from_secs(10),
            approved: 4096,
            fragments: 1024,
            fragment_bytes: 8 << 20,
            fragment_pieces: 64,
            fragment_lifetime: Span::from_secs(30),
            tunnel_peers: 1024,
        }
    }
}
