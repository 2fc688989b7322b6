//! What was told lately: a repetition is not told again within a span.

use crate::detect::plugx::PlugxDecoder;
use crate::detect::{Sighted, Signal, SignalKind};
use crate::learn::Bounded;
use sekisho_schema::{Grade, Span, Timestamp, Transport};
use std::net::{IpAddr, SocketAddr};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    detector: &'static str,
    grade: Grade,
    local: IpAddr,
    indicator: Option<String>,
    remote: Option<SocketAddr>,
    transport: Transport,
    /// Whether a file is being stolen: that must be told though the implant was before.
    is_theft: bool,
}

impl Key {
    fn new(signal: &Signal) -> Self {
        let flow = &signal.flow;
        let remote = match signal.kind {
            SignalKind::HostBudget { .. } | SignalKind::Sighting(Sighted::Query) => None,
            SignalKind::Sighting(Sighted::Answer) => {
                signal.target.map(|address| SocketAddr::new(address, 0))
            }
            _ => Some(flow.remote),
        };
        let is_theft = match &signal.kind {
            SignalKind::Plugx { matched, .. } => PlugxDecoder::is_theft(matched.command),
            // A message inside something else carries its command in its evidence.
            SignalKind::Pattern(pattern) => pattern.evidence.iter().any(|piece| {
                piece.facts.get("theft").is_some_and(|theft| theft.as_bool() == Some(true))
            }),
            _ => false,
        };
        Self {
            detector: signal.detector,
            grade: signal.grade,
            local: flow.local.ip(),
            indicator: signal.indicator.as_ref().map(|indicator| indicator.id.clone()),
            remote,
            transport: flow.transport,
            is_theft,
        }
    }
}

/// When each finding was last told.
#[derive(Debug)]
pub(crate) struct Recent {
    told: Bounded<Key, Timestamp>,
    span: Span,
}

impl Recent {
    pub(crate) fn new(capacity: usize, seed: u64, span: Span) -> Self {
        Self { told: Bounded::new(capacity, seed), span }
    }

    /// Whether the same was told within the span, to either side: a clock can be set back.
    pub(crate) fn was_told(&self, signal: &Signal, now: Timestamp) -> bool {
        self.told.find(&Key::new(signal)).is_some_and(|at| {
            now.since(*at).nanos().unsigned_abs() < self.span.nanos().unsigned_abs()
        })
    }

    /// Notes that it is told now.
    pub(crate) fn tell(&mut self, signal: &Signal, now: Timestamp) {
        if let Some(at) = self.told.upsert(&Key::new(signal), || now, |_| true) {
            *at = now;
        }
    }

    pub(crate) const fn evicted(&self) -> u64 {
        self.told.evicted()
    }
}
