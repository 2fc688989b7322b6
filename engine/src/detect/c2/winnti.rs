//! `c2.winnti`: the knock of Winnti's rootkit, which waits behind any open port, and its answer.
//!
//! The operator connects and says 16 bytes, four little-endian words, with
//! `word 0 ^ word 2 == word 3 rotated by 16` and word 1 not zero; a command may follow in the same
//! segment. The implant answers with messages that are XORed with a 4-byte key; word 1 of the answer
//! is zero before that, so that it shows the key, word 0 is `10 24 00 00`, and word 2 shows the key of
//! the build. The Linux variant is woken by datagrams that begin `FF FF 09 00 00 00 FF FF`, in UDP or
//! ICMP. Sources: `TKCERT/winnti-nmap-script`; Haruyama on Winnti's drivers (the same relation); Snort
//! registered rules 50164 and 50165 (facts only). No match of the knock in 36,219 public TCP payloads.
//!
//! A knock comes from a stranger, so that it is at most suspect; the answer proves. Evades: a build with
//! another relation.

use super::telling::{Sessions, Strength, Telling, hex, le32, payload, who};
use crate::app::hello::Reading;
use crate::detect::Outlook;
use crate::detect::registry::{Registration, Setup, Weight, WireDetector, reads};
use crate::detect::signal::{Pattern, Signal};
use crate::flow::{Appetite, Observation, ObservationKind, Toward};
use sekisho_schema::Transport;
use serde::Deserialize;

/// Bytes of a knock.
const KNOCK: usize = 16;
/// Bytes that tell a command behind the knock.
const COMMAND: usize = 8;
/// What of word 0 of a message is alike in all known commands, and its value there.
const COMMAND_MASK: u32 = 0xFF00_FF00;
const COMMAND_VALUE: u32 = 0x0000_2400;

/// The line of the list of detectors.
pub(super) const REGISTRATION: Registration = Registration {
    id: "c2.winnti",
    reads: reads::STREAM | reads::DATAGRAM | reads::ECHO,
    weight: Weight::Decides,
    build,
};

/// Constants of the detector.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WinntiSettings {
    /// Word 0 of the answer before it is enciphered.
    answer: u32,
    /// Keys of known builds; a match is told, and none is asked for.
    build_keys: Vec<u32>,
    /// How the datagrams that wake the Linux variant begin.
    wake: Vec<[u8; 8]>,
}

impl Default for WinntiSettings {
    fn default() -> Self {
        Self {
            answer: 0x2410,
            build_keys: vec![0xABC1_8CBA],
            wake: vec![[0xFF, 0xFF, 0x09, 0, 0, 0, 0xFF, 0xFF]],
        }
    }
}

/// Looks for Winnti's knock and answer in streams, and for its wake-up in datagrams.
#[derive(Debug)]
pub(super) struct Winnti {
    settings: WinntiSettings,
    telling: Telling,
    /// The way of the knock.
    knocked: Sessions<Option<Toward>>,
}

/// Makes the detector.
fn build(setup: &Setup<'_>) -> Result<Box<dyn WireDetector>, String> {
    let telling = Telling::new(setup.warrant.clone(), setup.seed);
    let knocked = Sessions::new(setup.seed);
    Ok(Box::new(Winnti { settings: setup.settings()?, telling, knocked }))
}

impl WireDetector for Winnti {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _outlook: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        match o.kind {
            ObservationKind::Head { toward, bytes } if o.flow.key.transport == Transport::Tcp => {
                self.stream(o, toward, bytes, emit)
            }
            ObservationKind::Head { toward, bytes }
            | ObservationKind::Echo { toward, payload: bytes, .. } => {
                self.datagram(o, toward, bytes, emit);
                Appetite::Enough
            }
            _ => Appetite::Enough,
        }
    }

    fn evicted(&self) -> u64 {
        self.telling.evicted() + self.knocked.evicted()
    }
}

impl Winnti {
    fn stream(
        &mut self,
        o: &Observation<'_>,
        toward: Toward,
        bytes: &[u8],
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        match self.knocked.find(&o.flow) {
            Some(Some(way)) if *way != toward => return self.answer(o, toward, bytes, emit),
            Some(Some(_)) => return Appetite::Enough,
            Some(None) | None => {}
        }
        match examine(bytes) {
            Reading::Incomplete => return Appetite::More,
            Reading::Other => return Appetite::Enough,
            Reading::Whole(()) => {}
        }
        if let Some(way) = self.knocked.of(&o.flow) {
            *way = Some(toward);
        }
        self.telling.tell(o, (toward, bytes), Strength::Likely, emit, || Pattern {
            told: format!(
                "{} as the operators of Winnti's rootkit do: of the first 16 bytes word 0 XOR word \
                 2 is word 3 with its halves exchanged; the chance of this in other traffic is 1 in \
                 4,294,967,296. Only an answer would show that anything listens for it.",
                who(toward)
            ),
            evidence: vec![payload(toward, bytes.get(..KNOCK).unwrap_or_default(), [])],
        });
        Appetite::Enough
    }

    fn answer(
        &mut self,
        o: &Observation<'_>,
        toward: Toward,
        bytes: &[u8],
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        let word = |at: usize| le32(bytes, at * 4);
        let (Some(first), Some(key), Some(build)) = (word(0), word(1), word(2)) else {
            return Appetite::More;
        };
        if first ^ key != self.settings.answer {
            return Appetite::Enough;
        }
        let build = build ^ key;
        let known = self.settings.build_keys.contains(&build);
        self.telling.tell(o, (toward, bytes), Strength::Proof, emit, || Pattern {
            told: format!(
                "{} as Winnti's rootkit answers its operator's knock: under the key 0x{key:08x}, \
                 which its second word shows, the answer begins 10 24 00 00; the key of the build \
                 is 0x{build:08x}{}.",
                who(toward),
                if known { ", that of a published sample" } else { "" },
            ),
            evidence: vec![payload(
                toward,
                bytes,
                [
                    ("build_key", format!("0x{build:08x}").into()),
                    ("key", format!("0x{key:08x}").into()),
                ],
            )],
        });
        Appetite::Enough
    }

    fn datagram(
        &mut self,
        o: &Observation<'_>,
        toward: Toward,
        bytes: &[u8],
        emit: &mut Vec<Signal>,
    ) {
        let Some(wake) = self.settings.wake.iter().find(|wake| bytes.starts_with(&wake[..])) else {
            return;
        };
        // A kernel sends back what a stranger's echo request carries.
        let strength = match o.kind {
            ObservationKind::Echo { request: false, .. } => Strength::Likely,
            _ => Strength::Proof,
        };
        self.telling.tell(o, (toward, bytes), strength, emit, || Pattern {
            told: format!(
                "{} as the operators of Winnti's Linux variant wake it: a datagram of {} bytes that \
                 begins {}.",
                who(toward),
                bytes.len(),
                hex(wake),
            ),
            evidence: vec![payload(toward, bytes, [])],
        });
    }
}

/// Whether a stream begins with a knock.
fn examine(bytes: &[u8]) -> Reading<()> {
    let word = |at: usize| le32(bytes, at * 4);
    let (Some(zero), Some(one), Some(two), Some(three)) = (word(0), word(1), word(2), word(3))
    else {
        return Reading::Incomplete;
    };
    let relation = zero ^ two == three.rotate_right(16);
    // Runs of equal words, and counters with zeros in them, keep the relation too.
    let plausible = one != 0 && one != zero && three != 0 && zero != 0 && two != 0;
    let halves_differ = three >> 16 != three & 0xFFFF;
    if !(relation && plausible && halves_differ) {
        return Reading::Other;
    }
    match (bytes.len(), word(4), word(5)) {
        (KNOCK, ..) => Reading::Whole(()),
        // Word 1 of a command is zero before it is enciphered, so that it shows the key.
        (_, Some(first), Some(key)) if (first ^ key) & COMMAND_MASK == COMMAND_VALUE => {
            Reading::Whole(())
        }
        (len, ..) if len < KNOCK + COMMAND => Reading::Incomplete,
        _ => Reading::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::telling::shipped;
    use super::*;

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// A knock after the script's text: three words are chosen, the first follows.
    fn knock(one: u32, two: u32, three: u32) -> Vec<u8> {
        let exchanged = (three % 65_536) * 65_536 + three / 65_536;
        bytes(&[exchanged ^ two, one, two, three])
    }

    #[test]
    fn the_shipped_settings_are_the_defaults() {
        assert_eq!(shipped::<WinntiSettings>(REGISTRATION.id), WinntiSettings::default());
    }

    #[test]
    fn a_knock_is_found_at_its_16th_byte_alone_or_before_a_command() {
        let knock = knock(0x93A1_0F5C, 0x592F_1AB0, 0x6B8B_4567);
        for cut in 0..KNOCK {
            assert_eq!(examine(&knock[..cut]), Reading::Incomplete);
        }
        assert_eq!(examine(&knock), Reading::Whole(()));
        let key = 0x3C6E_F372;
        let query = bytes(&[0x0042_2420 ^ key, key, 0xABC1_8CBA ^ key, 0x0973_590C ^ key]);
        let both = [knock.clone(), query].concat();
        assert_eq!(examine(&both[..20]), Reading::Incomplete);
        assert_eq!(examine(&both), Reading::Whole(()));
        assert_eq!(examine(&[knock, vec![7; 32]].concat()), Reading::Other);
    }

    #[test]
    fn regular_words_are_no_knock() {
        for words in [[0; 4], [7; 4], [1, 2, 1, 0], [0, 5, 9, 0x0009_0000], [3, 3, 2, 0x0001_0000]]
        {
            assert_eq!(examine(&bytes(&words)), Reading::Other, "{words:?}");
        }
        let mut wrong = knock(0x93A1_0F5C, 0x592F_1AB0, 0x6B8B_4567);
        wrong[14] ^= 1;
        assert_eq!(examine(&wrong), Reading::Other);
    }

    #[test]
    fn no_random_payload_is_a_knock() {
        let mut seed = 0x2545_F491_4F6C_DD1D_u64;
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 32) as u32
        };
        for _ in 0..100_000 {
            let words = [next(), next(), next(), next()];
            assert_eq!(examine(&bytes(&words)), Reading::Other);
            // Forged: a knock in front of something else.
            let forged = knock(next() | 1, next() | 1, next());
            let tail = bytes(&[next(), next(), next(), next()]);
            assert_ne!(examine(&[forged, tail].concat()), Reading::Incomplete);
        }
    }
}
