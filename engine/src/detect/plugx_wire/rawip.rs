//! `plugx.rawip`: PlugX below the transports, in IP protocol 255 and in ICMP echoes.
//!
//! Protocol 255 is reserved (IANA) and has no honest use; PlugX's "RAW" transport has it (JPCERT/CC
//! 2015). That it leaves at all is suspect and scores. A message (plugx.md 1.1) in it, or in the
//! payload of an ICMP echo, proves. Where in the outer part the message begins is not public: that
//! it is the very beginning of the payload is a guess, and an implant with another layout is missed
//! but for the protocol number.
//!
//! Of echoes only requests of the inside end prove: the kernel answers any stranger's request with
//! the bytes that came.
//!
//! Measured: the header test has 0 false matches in 5,716 ICMP payloads of public captures.

use super::dialogue::Dialogue;
use super::message::{MessageReader, Reading, hex};
use crate::detect::Outlook;
use crate::detect::registry::{Setup, Weight, WireDetector, is_own_word};
use crate::detect::signal::{Pattern, Signal, Warrant};
use crate::flow::{Appetite, Observation, ObservationKind, Toward};
use sekisho_schema::finding::Direction;
use sekisho_schema::{Evidence, Grade, Transport};
use serde::{Deserialize, Serialize};

/// Stable identifier of the detector.
pub(super) const PLUGX_RAWIP: &str = "plugx.rawip";

/// The constants of the detector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawIpSettings {
    /// IP protocol numbers without an honest use.
    protocols: Vec<u8>,
}

impl Default for RawIpSettings {
    fn default() -> Self {
        Self { protocols: vec![255] }
    }
}

#[derive(Debug)]
struct RawIp {
    settings: RawIpSettings,
    reader: MessageReader,
    dialogue: Dialogue,
    warrant: Warrant,
}

/// Makes the detector.
pub(super) fn build(setup: &Setup<'_>) -> Result<Box<dyn WireDetector>, String> {
    Ok(Box::new(RawIp {
        settings: setup.settings()?,
        reader: MessageReader::new(setup.plugx),
        dialogue: Dialogue::new(setup.seed),
        warrant: setup.warrant.clone(),
    }))
}

impl WireDetector for RawIp {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _outlook: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        match (o.kind, o.flow.key.transport) {
            (ObservationKind::Echo { toward, request, payload, .. }, _) if !is_ping(payload) => {
                let proves = request && is_own_word(toward);
                let place = "the payload of an ICMP echo";
                self.message(o, toward, payload, (proves, place), emit);
            }
            (ObservationKind::Started, Transport::Other(protocol))
                if self.settings.protocols.contains(&protocol)
                    && o.flow.direction == Direction::Outbound =>
            {
                emit.push(self.left(o, protocol, &[]));
            }
            (ObservationKind::Head { toward, bytes }, Transport::Other(protocol))
                if self.settings.protocols.contains(&protocol) =>
            {
                let place = format!("IP protocol {protocol}");
                let proves = is_own_word(toward);
                if !self.message(o, toward, bytes, (proves, &place), emit)
                    && proves
                    && o.flow.direction == Direction::Inbound
                {
                    emit.push(self.left(o, protocol, bytes));
                }
            }
            _ => {}
        }
        // Each packet is told for itself.
        Appetite::Enough
    }

    fn evicted(&self) -> u64 {
        self.dialogue.evicted()
    }
}

impl RawIp {
    /// A packet that is a message; returns whether it is.
    fn message(
        &mut self,
        o: &Observation<'_>,
        toward: Toward,
        bytes: &[u8],
        (proves, place): (bool, &str),
        emit: &mut Vec<Signal>,
    ) -> bool {
        let Reading::Message(message) = self.reader.read(bytes, Some(bytes.len())) else {
            return false;
        };
        if self.dialogue.is_news(&o.flow, toward, message.header) {
            let pattern = message.pattern(toward, proves, place);
            emit.push(self.warrant.pattern(o, proves, pattern));
        }
        true
    }

    /// A packet of a protocol that nobody uses left the inside.
    fn left(&self, o: &Observation<'_>, protocol: u8, bytes: &[u8]) -> Signal {
        let told = format!(
            "{{host}} sent {{remote}} a packet of IP protocol {protocol}, which is reserved and has \
             no honest use; PlugX can use it as a transport.",
        );
        let evidence = vec![Evidence::new(
            "payload",
            [("head", hex(bytes).into()), ("protocol", protocol.into())],
        )];
        let mut signal = self.warrant.pattern(o, true, Pattern { told, evidence });
        signal.weight = Weight::Scores;
        signal.grade = signal.grade.min(Grade::Suspect);
        signal
    }
}

/// Whether an echo carries the counting bytes that ping programs send behind their time stamp.
fn is_ping(payload: &[u8]) -> bool {
    payload.get(16..20).is_some_and(|four| {
        four.iter().zip(four.iter().skip(1)).all(|(a, b)| b.wrapping_sub(*a) == 1)
    })
}

#[cfg(test)]
mod tests;
