//! Every cap of the engine in one place: all state is bounded, and what is evicted is counted.

use sekisho_schema::Span;

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
    /// Findings whose repetition is suppressed at once.
    pub recent_findings: usize,
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
            recent_findings: 1 << 16,
            repeat_after: Span::from_hours(1),
            tcp_idle: Span::from_hours(1),
            datagram_idle: Span::from_secs(120),
            closed_linger: Span::from_secs(5),
            containments: 4096,
        }
    }
}
