//! `plugx.udp`: PlugX in UDP datagrams, by its clear framing or by a message of its own.
//!
//! Clear framings, little-endian. The one of ET 2021791 and VRT 50380 (2019), 36 bytes: a word that
//! varies, 0x0050, u32 1 or 2, u32 0x400, u32 0x1000, u32 0, at the end 13 bytes of zero. The older
//! one of VRT 23381 (2012): 0x0030 in one of the first two words, the sender's own IPv4 address at
//! 8, 0x400 at 12, 0x1000 at 16, 0x32 at 20. Ports seen: 53, 443, 9000; none is asked for.
//!
//! One such datagram is suspect; the second of the same host to the same end proves. A datagram
//! that is a whole message (plugx.md 1.1) proves by itself, as in TCP.
//!
//! Measured: 0 of 96,700 UDP payloads of public captures. Evaded by other window words together with
//! unknown cipher constants.

use super::dialogue::Dialogue;
use super::message::{MessageReader, Reading, hex};
use crate::detect::Outlook;
use crate::detect::registry::{Setup, WireDetector, is_own_word};
use crate::detect::signal::{Pattern, Signal, Warrant};
use crate::flow::{Appetite, Observation, ObservationKind, Toward};
use crate::learn::Bounded;
use sekisho_schema::{Evidence, Grade, Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// Stable identifier of the detector.
pub(super) const PLUGX_UDP: &str = "plugx.udp";

/// Pairs of host and remote end whose datagrams are counted.
const PAIRS: usize = 4096;
/// How long a first datagram waits for its second.
const WAIT: Span = Span::from_hours(24);

/// The constants of the detector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct UdpSettings {
    /// The word behind the first of the framing of 2015.
    mark: u16,
    /// Types that it may carry.
    types: Vec<u32>,
    /// The two window words of both framings.
    windows: (u32, u32),
    /// The word of the framing of 2012.
    old_mark: u16,
    /// The word behind the windows of the framing of 2012.
    old_end: u32,
}

impl Default for UdpSettings {
    fn default() -> Self {
        Self {
            mark: 0x50,
            types: vec![1, 2],
            windows: (0x400, 0x1000),
            old_mark: 0x30,
            old_end: 0x32,
        }
    }
}

#[derive(Debug)]
struct PlugxUdp {
    settings: UdpSettings,
    reader: MessageReader,
    dialogue: Dialogue,
    /// When a host last sent an end a framed datagram.
    framed: Bounded<(IpAddr, SocketAddr), Timestamp>,
    warrant: Warrant,
}

/// Makes the detector.
pub(super) fn build(setup: &Setup<'_>) -> Result<Box<dyn WireDetector>, String> {
    Ok(Box::new(PlugxUdp {
        settings: setup.settings()?,
        reader: MessageReader::new(setup.plugx),
        dialogue: Dialogue::new(setup.seed),
        framed: Bounded::new(PAIRS, setup.seed),
        warrant: setup.warrant.clone(),
    }))
}

impl WireDetector for PlugxUdp {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _outlook: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        let ObservationKind::Head { toward, bytes } = o.kind else { return Appetite::Enough };
        if let Some(framing) = self.settings.framing(bytes) {
            emit.extend(self.framed(o, toward, bytes, framing));
        } else if let Reading::Message(message) = self.reader.read(bytes, Some(bytes.len()))
            && self.dialogue.is_news(&o.flow, toward, message.header)
        {
            let proves = is_own_word(toward);
            let pattern = message.pattern(toward, proves, "a UDP datagram");
            emit.push(self.warrant.pattern(o, proves, pattern));
        }
        // Each datagram is told for itself.
        Appetite::Enough
    }

    fn evicted(&self) -> u64 {
        self.dialogue.evicted() + self.framed.evicted()
    }
}

impl PlugxUdp {
    fn framed(
        &mut self,
        o: &Observation<'_>,
        toward: Toward,
        bytes: &[u8],
        framing: Framing,
    ) -> Option<Signal> {
        let header = bytes.first_chunk().copied().unwrap_or_default();
        if !self.dialogue.is_news(&o.flow, toward, header) {
            return None;
        }
        let key = &o.flow.key;
        let pair = (key.local.ip(), key.remote);
        let again = match toward {
            Toward::Local => false,
            Toward::Remote => {
                let before = self.framed.find(&pair).copied();
                if let Some(at) = self.framed.upsert(&pair, || o.at, |_| true) {
                    *at = o.at;
                }
                before.is_some_and(|before| o.at.since(before) <= WAIT)
            }
        };
        let who = match toward {
            Toward::Remote => "{host} sent {remote}",
            Toward::Local => "{remote} sent {host}",
        };
        let count = match (toward, again) {
            (Toward::Local, _) => ", unasked as far as was seen, so a stranger may have sent it",
            (Toward::Remote, false) => "; one more within a day proves it",
            (Toward::Remote, true) => ", not the first of its kind within a day",
        };
        let told = format!(
            "{who} a datagram in PlugX's clear framing of {}: {}{count}; none of 96,700 UDP \
             payloads of public captures has it.",
            framing.year(),
            self.settings.describe(&framing),
        );
        let own = match framing {
            Framing::Old { address } => Some(address.to_string()),
            Framing::New { .. } => None,
        };
        let evidence = vec![Evidence::new(
            "payload",
            [
                ("address_inside", own.into()),
                ("framing", framing.year().into()),
                ("head", hex(bytes).into()),
                ("length", bytes.len().into()),
            ],
        )];
        let mut signal = self.warrant.pattern(o, again, Pattern { told, evidence });
        if !again {
            // Also between two hosts of the inside one datagram is not enough.
            signal.grade = signal.grade.min(Grade::Suspect);
        }
        Some(signal)
    }
}

/// A clear framing.
#[derive(Clone, Copy)]
enum Framing {
    /// ET 2021791, VRT 50380.
    New { kind: u32 },
    /// VRT 23381.
    Old { address: std::net::Ipv4Addr },
}

impl Framing {
    const fn year(self) -> &'static str {
        match self {
            Self::New { .. } => "2015",
            Self::Old { .. } => "2012",
        }
    }
}

/// Length of a datagram in the framing of 2015.
const NEW_LEN: usize = 36;

impl UdpSettings {
    fn describe(&self, framing: &Framing) -> String {
        let (first, second) = self.windows;
        match framing {
            Framing::New { kind } => format!(
                "36 bytes with the words 0x{:04x}, {kind}, 0x{first:x} and 0x{second:x} and 13 zero \
                 bytes at the end",
                self.mark,
            ),
            Framing::Old { address } => format!(
                "the words 0x{:04x}, 0x{first:x}, 0x{second:x} and 0x{:x}, and the address {address}",
                self.old_mark, self.old_end,
            ),
        }
    }

    fn framing(&self, bytes: &[u8]) -> Option<Framing> {
        let (head, rest) = bytes.split_first_chunk::<20>()?;
        let [a0, a1, b0, b1, t0, t1, t2, t3, w0, w1, w2, w3, x0, x1, x2, x3, y0, y1, y2, y3] =
            *head;
        let first = u16::from_le_bytes([a0, a1]);
        let second = u16::from_le_bytes([b0, b1]);
        let [at_4, at_8, at_12, at_16] =
            [[t0, t1, t2, t3], [w0, w1, w2, w3], [x0, x1, x2, x3], [y0, y1, y2, y3]]
                .map(u32::from_le_bytes);
        if second == self.mark
            && bytes.len() == NEW_LEN
            && self.types.contains(&at_4)
            && (at_8, at_12, at_16) == (self.windows.0, self.windows.1, 0)
            && bytes.iter().rev().take(13).all(|byte| *byte == 0)
        {
            return Some(Framing::New { kind: at_4 });
        }
        if (first == self.old_mark || second == self.old_mark)
            && (at_12, at_16) == self.windows
            && rest.first_chunk().is_some_and(|end| u32::from_le_bytes(*end) == self.old_end)
            && at_8 != 0
        {
            return Some(Framing::Old { address: [w0, w1, w2, w3].into() });
        }
        None
    }
}

#[cfg(test)]
mod tests;
