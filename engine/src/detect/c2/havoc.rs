//! `c2.havoc`: what a Havoc demon posts to its team server.
//!
//! Body of an HTTP POST: u32 big-endian size of what follows it, `DE AD BE EF`, u32 agent number, u32
//! command, u32 request number, then enciphered arguments. The first one, command 99, registers the
//! demon. Sources: Havoc's published demon and team server (the size excludes itself); plugx.md section
//! 6. The magic alone is a favourite of testers, so that the size has to agree with the length that
//! the request itself states: the chance is one in 2^63. Evades: another magic (one line in its
//! source), or TLS, which is usual.

use super::telling::{Strength, Telling, be32, payload, who};
use crate::app::http_head::RequestHead;
use crate::detect::Outlook;
use crate::detect::registry::{Registration, Setup, Weight, WireDetector, reads};
use crate::detect::signal::{Pattern, Signal};
use crate::flow::{Appetite, Observation, ObservationKind};
use serde::Deserialize;

/// Bytes of size, magic, agent and command.
const HEADER: usize = 16;
/// Bytes of the size field itself.
const SIZE: u64 = 4;

/// The line of the list of detectors.
pub(super) const REGISTRATION: Registration =
    Registration { id: "c2.havoc", reads: reads::REQUEST, weight: Weight::Decides, build };

/// Constants of the detector.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct HavocSettings {
    /// The magic behind the size.
    magic: u32,
}

impl Default for HavocSettings {
    fn default() -> Self {
        Self { magic: 0xDEAD_BEEF }
    }
}

/// Looks for Havoc's header in the bodies of HTTP requests.
#[derive(Debug)]
pub(super) struct Havoc {
    settings: HavocSettings,
    telling: Telling,
}

/// Makes the detector.
fn build(setup: &Setup<'_>) -> Result<Box<dyn WireDetector>, String> {
    let telling = Telling::new(setup.warrant.clone(), setup.seed);
    Ok(Box::new(Havoc { settings: setup.settings()?, telling }))
}

/// The body length that a request states (RFC 9112 §6.2).
pub(super) fn content_length(head: &RequestHead<'_>) -> Option<u64> {
    std::str::from_utf8(head.field("Content-Length")?).ok()?.parse().ok()
}

impl WireDetector for Havoc {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _outlook: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        let ObservationKind::Request { toward, head } = o.kind else { return Appetite::Enough };
        let Some(stated) = content_length(head) else { return Appetite::Enough };
        if head.method != b"POST" || stated < HEADER as u64 {
            return Appetite::Enough;
        }
        let (Some(size), Some(magic)) = (be32(head.body, 0), be32(head.body, 4)) else {
            return Appetite::More;
        };
        if magic != self.settings.magic || u64::from(size) + SIZE != stated {
            return Appetite::Enough;
        }
        let (Some(agent), Some(command)) = (be32(head.body, 8), be32(head.body, 12)) else {
            return Appetite::More;
        };
        self.telling.tell(o, (toward, head.body), Strength::Proof, emit, || Pattern {
            told: format!(
                "{} as a Havoc demon does: the body of an HTTP POST states {size} bytes behind the \
                 size itself and has just these, then {magic:08x}, agent {agent:08x}, command \
                 {command}.",
                who(toward),
            ),
            evidence: vec![payload(
                toward,
                head.body,
                [
                    ("agent", format!("{agent:08x}").into()),
                    ("command", command.into()),
                    ("size", size.into()),
                ],
            )],
        });
        Appetite::Enough
    }

    fn evicted(&self) -> u64 {
        self.telling.evicted()
    }
}

#[cfg(test)]
mod tests {
    use super::super::telling::shipped;
    use super::*;

    #[test]
    fn the_shipped_settings_are_the_defaults() {
        assert_eq!(shipped::<HavocSettings>(REGISTRATION.id), HavocSettings::default());
    }
}
