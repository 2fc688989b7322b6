//! `c2.derusbi`: the 64-byte hello of Derusbi's server variant, which waits on any open port.
//!
//! Sixteen little-endian words, random but for two: one is the complement of word 0, one is word 0
//! rotated right by seven bits. The words are 1 and 2, or 3 and 8 (which of the two stands first in
//! the second form is read off one secondary description). The operator says it first, the implant
//! answers in kind. Source: Novetta, "Derusbi (Server Variant) Analysis", 2014. No match in 36,219
//! public TCP payloads; the chance is one in 2^63. Evades: another handshake (the client variant has one).

use super::telling::{Strength, Telling, le32, payload, who};
use crate::app::hello::Reading;
use crate::detect::Outlook;
use crate::detect::registry::{Registration, Setup, Weight, WireDetector, reads};
use crate::detect::signal::{Pattern, Signal};
use crate::flow::{Appetite, Observation, ObservationKind};
use serde::Deserialize;

/// Bytes of a hello.
const HELLO: usize = 64;
/// Set bits that word 0 may have: constants of honest formats have few or nearly all.
const BITS: std::ops::RangeInclusive<u32> = 5..=27;

/// Where a form keeps its two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct DerusbiForm {
    /// The word that is the complement of word 0.
    complement: usize,
    /// The word that is word 0 rotated right.
    rotated: usize,
}

/// The line of the list of detectors.
pub(super) const REGISTRATION: Registration =
    Registration { id: "c2.derusbi", reads: reads::STREAM, weight: Weight::Decides, build };

/// Constants of the detector.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct DerusbiSettings {
    /// The forms of the hello.
    forms: Vec<DerusbiForm>,
    /// Bits that word 0 is rotated right by.
    rotation: u32,
}

impl Default for DerusbiSettings {
    fn default() -> Self {
        let form = |complement, rotated| DerusbiForm { complement, rotated };
        Self { forms: vec![form(1, 2), form(3, 8)], rotation: 7 }
    }
}

/// Looks for Derusbi's hello in the heads of streams.
#[derive(Debug)]
pub(super) struct Derusbi {
    settings: DerusbiSettings,
    telling: Telling,
}

/// Makes the detector.
fn build(setup: &Setup<'_>) -> Result<Box<dyn WireDetector>, String> {
    let settings: DerusbiSettings = setup.settings()?;
    let outside = |word: usize| !(1..HELLO / 4).contains(&word);
    if settings.forms.iter().any(|form| outside(form.complement) || outside(form.rotated)) {
        return Err(format!("forms: words are numbered 1 to {}", HELLO / 4 - 1));
    }
    let telling = Telling::new(setup.warrant.clone(), setup.seed);
    Ok(Box::new(Derusbi { settings, telling }))
}

impl WireDetector for Derusbi {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _outlook: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        let ObservationKind::Head { toward, bytes } = o.kind else { return Appetite::Enough };
        let form = match examine(&self.settings, bytes) {
            Reading::Incomplete => return Appetite::More,
            Reading::Other => return Appetite::Enough,
            Reading::Whole(form) => form,
        };
        let DerusbiSettings { rotation, .. } = self.settings;
        self.telling.tell(o, (toward, bytes), Strength::Proof, emit, || Pattern {
            told: format!(
                "{} as Derusbi's server variant does: of the first 64 bytes word {} is the \
                 complement of word 0 and word {} is word 0 rotated right by {rotation} bits; the \
                 chance of this in other traffic is below 1 in 10^18.",
                who(toward),
                form.complement,
                form.rotated,
            ),
            evidence: vec![payload(
                toward,
                bytes,
                [("complement", form.complement.into()), ("rotated", form.rotated.into())],
            )],
        });
        Appetite::Enough
    }

    fn evicted(&self) -> u64 {
        self.telling.evicted()
    }
}

fn examine(settings: &DerusbiSettings, bytes: &[u8]) -> Reading<DerusbiForm> {
    let Some(first) = le32(bytes, 0) else { return Reading::Incomplete };
    let turned = first.rotate_right(settings.rotation);
    if !BITS.contains(&first.count_ones()) || turned == first {
        return Reading::Other;
    }
    // A word that is not there yet may still be the right one.
    let may_be = |word: usize, value: u32| le32(bytes, word * 4).is_none_or(|read| read == value);
    let form = settings
        .forms
        .iter()
        .find(|form| may_be(form.complement, !first) && may_be(form.rotated, turned));
    match form {
        None => Reading::Other,
        Some(_) if bytes.len() < HELLO => Reading::Incomplete,
        Some(form) => Reading::Whole(*form),
    }
}

#[cfg(test)]
mod tests {
    use super::super::telling::shipped;
    use super::*;

    fn random(seed: &mut u64) -> u32 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        (*seed >> 32) as u32
    }

    /// A hello after the report: random words, and two made of the first.
    fn hello(first: u32, complement: usize, rotated: usize) -> Vec<u8> {
        let mut seed = 0x9E37_79B9_7F4A_7C15;
        let mut words = [0_u32; 16].map(|_| random(&mut seed));
        words[0] = first;
        words[complement] = u32::MAX - first;
        words[rotated] = first / 128 + (first % 128) * (1 << 25);
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn the_shipped_settings_are_the_defaults() {
        assert_eq!(shipped::<DerusbiSettings>(REGISTRATION.id), DerusbiSettings::default());
    }

    #[test]
    fn both_forms_are_found_at_their_last_byte() {
        let settings = DerusbiSettings::default();
        for (complement, rotated) in [(1, 2), (3, 8)] {
            let hello = hello(0x7A5C_3391, complement, rotated);
            for cut in 0..HELLO {
                assert_eq!(examine(&settings, &hello[..cut]), Reading::Incomplete, "{cut}");
            }
            let form = DerusbiForm { complement, rotated };
            assert_eq!(examine(&settings, &hello), Reading::Whole(form));
            assert_eq!(examine(&settings, &[hello, vec![7; 9]].concat()), Reading::Whole(form));
        }
    }

    #[test]
    fn one_of_the_two_words_is_not_enough_and_constants_are_no_hello() {
        let settings = DerusbiSettings::default();
        let whole = hello(0x7A5C_3391, 1, 2);
        for at in 4..12 {
            let mut other = whole.clone();
            other[at] ^= 0x10;
            assert_eq!(examine(&settings, &other), Reading::Other, "byte {at}");
        }
        for first in [0, u32::MAX, 1, 0x8000_0000, 0xFFFF_FFFE] {
            assert_eq!(examine(&settings, &hello(first, 1, 2)), Reading::Other, "{first:x}");
        }
        assert_eq!(examine(&settings, &[0x55; 64]), Reading::Other);
        let alternating: Vec<u8> = [0x00FF_00FF_u32, 0xFF00_FF00]
            .repeat(8)
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .collect();
        assert_eq!(examine(&settings, &alternating), Reading::Other);
    }

    #[test]
    fn no_random_payload_is_a_hello() {
        let settings = DerusbiSettings::default();
        let mut seed = 0x2545_F491_4F6C_DD1D;
        for _ in 0..100_000 {
            let mut words = [0_u32; 16].map(|_| random(&mut seed));
            // Forged: the complement is there, the rotation is not.
            words[1] = !words[0];
            let payload: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            assert_eq!(examine(&settings, &payload), Reading::Other);
        }
    }
}
