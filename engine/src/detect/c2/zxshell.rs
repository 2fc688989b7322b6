//! `c2.zxshell`: the first 16 bytes of ZxShell (also Sensocode), in both directions.
//!
//! The implant connects and sends 16 bytes that begin `86 19 00 00 04 01 00 00`; the controller answers
//! 16 bytes that begin `85 19 00 00 25 04 00 00`. Sources: Emerging Threats open rules 2019587 and
//! 2019588; Snort registered rules 32180 and 32181 (facts only). No match in 36,219 public TCP
//! payloads; the chance is one in 2^63. Evades: any other build number.

use super::telling::{Strength, Telling, payload, who};
use crate::app::hello::Reading;
use crate::detect::Outlook;
use crate::detect::registry::{Registration, Setup, Weight, WireDetector, reads};
use crate::detect::signal::{Pattern, Signal};
use crate::flow::{Appetite, Observation, ObservationKind};
use serde::Deserialize;

/// Bytes of a hello.
const HELLO: usize = 16;

/// The line of the list of detectors.
pub(super) const REGISTRATION: Registration =
    Registration { id: "c2.zxshell", reads: reads::STREAM, weight: Weight::Decides, build };

/// Constants of the detector.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ZxShellSettings {
    /// The first eight bytes that implants and controllers say.
    hellos: Vec<[u8; 8]>,
}

impl Default for ZxShellSettings {
    fn default() -> Self {
        Self {
            hellos: vec![
                [0x86, 0x19, 0, 0, 0x04, 0x01, 0, 0],
                [0x85, 0x19, 0, 0, 0x25, 0x04, 0, 0],
            ],
        }
    }
}

/// Looks for ZxShell's hello in the heads of streams.
#[derive(Debug)]
pub(super) struct ZxShell {
    settings: ZxShellSettings,
    telling: Telling,
}

/// Makes the detector.
fn build(setup: &Setup<'_>) -> Result<Box<dyn WireDetector>, String> {
    let telling = Telling::new(setup.warrant.clone(), setup.seed);
    Ok(Box::new(ZxShell { settings: setup.settings()?, telling }))
}

impl WireDetector for ZxShell {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _outlook: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        let ObservationKind::Head { toward, bytes } = o.kind else { return Appetite::Enough };
        match examine(&self.settings, bytes) {
            Reading::Incomplete => return Appetite::More,
            Reading::Other => return Appetite::Enough,
            Reading::Whole(()) => {}
        }
        self.telling.tell(o, (toward, bytes), Strength::Proof, emit, || Pattern {
            told: format!(
                "{} as ZxShell does: the first 8 of 16 bytes are those of its hello; the chance of \
                 this in other traffic is below 1 in 10^18.",
                who(toward),
            ),
            evidence: vec![payload(toward, bytes.get(..HELLO).unwrap_or_default(), [])],
        });
        Appetite::Enough
    }

    fn evicted(&self) -> u64 {
        self.telling.evicted()
    }
}

fn examine(settings: &ZxShellSettings, bytes: &[u8]) -> Reading<()> {
    let begins = |hello: &[u8; 8]| hello.iter().zip(bytes).all(|(a, b)| a == b);
    match settings.hellos.iter().any(begins) {
        false => Reading::Other,
        true if bytes.len() < HELLO => Reading::Incomplete,
        true => Reading::Whole(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::telling::shipped;
    use super::*;

    #[test]
    fn the_shipped_settings_are_the_defaults() {
        assert_eq!(shipped::<ZxShellSettings>(REGISTRATION.id), ZxShellSettings::default());
    }

    #[test]
    fn each_hello_is_found_at_its_16th_byte_and_not_with_one_bit_changed() {
        let settings = ZxShellSettings::default();
        for begin in [*b"\x86\x19\0\0\x04\x01\0\0", *b"\x85\x19\0\0\x25\x04\0\0"] {
            let hello = [begin, *b"\x01\0\0\0\x07\x5c\0\0"].concat();
            for cut in 0..HELLO {
                assert_eq!(examine(&settings, &hello[..cut]), Reading::Incomplete);
            }
            assert_eq!(examine(&settings, &hello), Reading::Whole(()));
            for bit in 0..64 {
                let mut other = hello.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                // The two hellos differ in more than one bit.
                assert_eq!(examine(&settings, &other), Reading::Other, "bit {bit}");
            }
        }
    }

    #[test]
    fn no_random_payload_is_a_hello() {
        let settings = ZxShellSettings::default();
        let mut seed = 0x2545_F491_4F6C_DD1D_u64;
        for _ in 0..100_000 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let mut payload = [seed.to_le_bytes(), seed.to_be_bytes()].concat();
            assert_eq!(examine(&settings, &payload), Reading::Other);
            payload[..2].copy_from_slice(&[0x86, 0x19]);
            assert_eq!(examine(&settings, &payload), Reading::Other);
        }
    }
}
