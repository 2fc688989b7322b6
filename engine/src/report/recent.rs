//! What was told lately: a repetition is not told again within a span.

use crate::detect::plugx::PlugxDecoder;
use crate::detect::{Sighted, Signal, SignalKind, Weight};
use crate::learn::Bounded;
use crate::limits::Limits;
use sekisho_schema::finding::Direction;
use sekisho_schema::{Grade, Span, Timestamp, Transport};
use std::net::{IpAddr, SocketAddr};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    detector: &'static str,
    grade: Grade,
    /// What only scores must not hide what may cut.
    decides: bool,
    local: IpAddr,
    /// The indicator sighted, or the destination that a statistic is of.
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
            SignalKind::Scored(ref scored) if scored.about.is_none() => None,
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
            decides: signal.weight == Weight::Decides,
            local: flow.local.ip(),
            indicator: match &signal.kind {
                SignalKind::Scored(scored) => scored.about.clone(),
                _ => signal.indicator.as_ref().map(|indicator| indicator.id.clone()),
            },
            remote,
            transport: flow.transport,
            is_theft,
        }
    }
}

/// Detectors whose findings are counted, far more than there are.
const DETECTORS: usize = 256;

/// When each finding was last told.
#[derive(Debug)]
pub(crate) struct Recent {
    told: Bounded<Key, Timestamp>,
    span: Span,
    /// Findings of a detector within the span that began then, those of strangers' making apart: whoever
    /// can send packets with any source could otherwise make as many findings as packets.
    counts: Bounded<(&'static str, bool), (Timestamp, usize)>,
    most: usize,
    withheld: u64,
}

impl Recent {
    pub(crate) fn new(limits: &Limits, seed: u64) -> Self {
        Self {
            told: Bounded::new(limits.recent_findings, seed),
            span: limits.repeat_after,
            counts: Bounded::new(DETECTORS, seed),
            most: limits.findings_of_detector,
            withheld: 0,
        }
    }

    /// Whether one more finding of this detector is told; if not it is counted.
    pub(crate) fn has_room(&mut self, signal: &Signal, now: Timestamp) -> bool {
        let of = (signal.detector, signal.direction == Direction::Inbound);
        let Some((begin, count)) = self.counts.upsert(&of, || (now, 0), |_| true) else {
            return true;
        };
        if now.since(*begin).nanos().unsigned_abs() >= self.span.nanos().unsigned_abs() {
            (*begin, *count) = (now, 0);
        }
        *count += 1;
        let has_room = *count <= self.most;
        self.withheld += u64::from(!has_room);
        has_room
    }

    /// Findings that were not told because their detector had told too many.
    pub(crate) const fn withheld(&self) -> u64 {
        self.withheld
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
