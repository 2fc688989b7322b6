//! `c2.gh0st`: messages of Gh0st RAT and its hundreds of rebuilds.
//!
//! Layout, all numbers little-endian: a magic of 2 to 16 printable bytes (5 in the original,
//! `Gh0st`), u32 length of the whole message, u32 unpacked size, then a zlib stream. Some builds put
//! the length before the magic. Sources: `MITRECND/chopshop` `gh0st_decode` (layout); Emerging Threats
//! open rules 2013214 and 2017913 to 2021716 (both orders; first two bytes of builds that disguise
//! the zlib header).
//!
//! A length alone is never enough: on 36,219 public TCP payloads it alone matched five, all OPC-UA.
//! With the zlib header it matched none. The stream is also unpacked (counted, not stored), and only
//! a message that unpacks to just the size it announces proves itself; one with a disguised header is
//! suspect. Evades: another packer or cipher, a message above 16 KiB as the first of a direction.

use super::deflated::unpacked_size;
use super::telling::{Strength, Telling, is_printable, le32, payload, who};
use crate::app::hello::Reading;
use crate::detect::Outlook;
use crate::detect::registry::{Registration, Setup, Weight, WireDetector, reads};
use crate::detect::signal::{Pattern, Signal};
use crate::flow::{Appetite, Observation, ObservationKind};
use serde::Deserialize;

/// Lengths that a magic may have.
const MAGIC: std::ops::RangeInclusive<usize> = 2..=16;
/// Longest message that is waited for.
const LONGEST: u32 = 16 * 1024;
/// The shortest zlib stream: two bytes of header, one of blocks, four of checksum.
const SHORTEST_STREAM: usize = 7;
/// What deflate can gain at most (a match of 258 bytes in two bits).
const MOST_GAIN: u64 = 1032;

/// The line of the list of detectors.
pub(super) const REGISTRATION: Registration =
    Registration { id: "c2.gh0st", reads: reads::STREAM, weight: Weight::Decides, build };

/// Constants of the detector.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Gh0stSettings {
    /// First two bytes that builds with a disguised zlib header send instead of `78 9c`.
    disguised_headers: Vec<[u8; 2]>,
}

impl Default for Gh0stSettings {
    fn default() -> Self {
        let disguised_headers = [
            0x3BDF_u16, 0x40A3, 0x7098, 0x709B, 0x7195, 0x7994, 0x7995, 0x7999, 0x799A, 0x799B,
            0x799C, 0x7A9B, 0x7A9F, 0x7B95, 0x7B98, 0x7C9C, 0x7C9E, 0x7D94, 0x7D9A, 0x7D9F,
        ];
        Self { disguised_headers: disguised_headers.map(u16::to_be_bytes).to_vec() }
    }
}

/// What a message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Message {
    magic: [u8; 16],
    magic_len: usize,
    total: u32,
    unpacked: u32,
    /// Whether the stream unpacked to just that size.
    unpacks: bool,
}

/// Looks for Gh0st messages in the heads of streams.
#[derive(Debug)]
pub(super) struct Gh0st {
    settings: Gh0stSettings,
    telling: Telling,
}

/// Makes the detector.
fn build(setup: &Setup<'_>) -> Result<Box<dyn WireDetector>, String> {
    let telling = Telling::new(setup.warrant.clone(), setup.seed);
    Ok(Box::new(Gh0st { settings: setup.settings()?, telling }))
}

impl WireDetector for Gh0st {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _outlook: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        let ObservationKind::Head { toward, bytes } = o.kind else { return Appetite::Enough };
        let message = match examine(&self.settings, bytes) {
            Reading::Incomplete => return Appetite::More,
            Reading::Other => return Appetite::Enough,
            Reading::Whole(message) => message,
        };
        let strength = if message.unpacks { Strength::Proof } else { Strength::Likely };
        self.telling.tell(o, (toward, bytes), strength, emit, || {
            let magic = message.magic.get(..message.magic_len).unwrap_or_default();
            let magic = String::from_utf8_lossy(magic).into_owned();
            let body = if message.unpacks {
                "and a zlib stream that unpacks to just that size"
            } else {
                "and what builds with a disguised packer put in the place of a zlib stream"
            };
            Pattern {
                told: format!(
                    "{} as Gh0st does: the magic \"{magic}\", the length {} of a message that has \
                     just that length, {} bytes unpacked, {body}.",
                    who(toward),
                    message.total,
                    message.unpacked,
                ),
                evidence: vec![payload(
                    toward,
                    bytes,
                    [
                        ("magic", magic.into()),
                        ("total", message.total.into()),
                        ("unpacked", message.unpacked.into()),
                        ("unpacks", message.unpacks.into()),
                    ],
                )],
            }
        });
        Appetite::Enough
    }

    fn evicted(&self) -> u64 {
        self.telling.evicted()
    }
}

fn examine(settings: &Gh0stSettings, bytes: &[u8]) -> Reading<Message> {
    let mut incomplete = false;
    for magic_at in [0, 4] {
        let magic = bytes.get(magic_at..).unwrap_or_default();
        let run = magic.iter().take(*MAGIC.end()).take_while(|byte| is_printable(**byte)).count();
        // Where the length comes first it is below 16 KiB, so its upper half is zero.
        let may_be = magic_at == 0 || bytes.iter().skip(2).take(2).all(|byte| *byte == 0);
        if !may_be || run < magic.len().min(*MAGIC.start()) {
            continue;
        }
        for magic_len in MAGIC {
            let ends = magic_at + magic_len;
            if magic_len > run {
                incomplete |= magic.len() == run;
                break;
            }
            let place =
                if magic_at == 0 { (ends, ends + 4, ends + 8) } else { (0, ends, ends + 4) };
            match message(settings, bytes, (magic_at, magic_len), place) {
                Reading::Incomplete => incomplete = true,
                Reading::Other => {}
                whole @ Reading::Whole(_) => return whole,
            }
        }
    }
    if incomplete { Reading::Incomplete } else { Reading::Other }
}

/// Reads a message with its magic here, and length, unpacked size and stream at these places.
fn message(
    settings: &Gh0stSettings,
    bytes: &[u8],
    (magic_at, magic_len): (usize, usize),
    (total_at, unpacked_at, stream_at): (usize, usize, usize),
) -> Reading<Message> {
    let Some(total) = le32(bytes, total_at) else { return Reading::Incomplete };
    let size = total as usize;
    if total > LONGEST || size < stream_at + SHORTEST_STREAM {
        return Reading::Other;
    }
    let Some(unpacked) = le32(bytes, unpacked_at) else { return Reading::Incomplete };
    let packed = (size - stream_at) as u64;
    // Packing makes nothing much longer.
    let fits = u64::from(unpacked) <= packed * MOST_GAIN && packed <= u64::from(unpacked) * 2 + 64;
    if unpacked == 0 || !fits {
        return Reading::Other;
    }
    let Some(header) = bytes.get(stream_at..).and_then(<[u8]>::first_chunk::<2>) else {
        return Reading::Incomplete;
    };
    let plain = matches!(header, [0x78, 0x01 | 0x5E | 0x9C | 0xDA]);
    if !plain && !settings.disguised_headers.contains(header) {
        return Reading::Other;
    }
    let Some((whole, next)) = bytes.split_at_checked(size) else { return Reading::Incomplete };
    let magic = bytes.get(magic_at..magic_at + magic_len).unwrap_or_default();
    // What follows in the same segment is another message.
    let follows = next.get(magic_at..).unwrap_or_default();
    if !follows.iter().zip(magic).all(|(a, b)| a == b) {
        return Reading::Other;
    }
    let unpacks =
        unpacked_size(whole.get(stream_at..).unwrap_or_default()) == Some(unpacked.into());
    if plain && !unpacks {
        return Reading::Other;
    }
    let mut room = [0; 16];
    room.iter_mut().zip(magic).for_each(|(place, byte)| *place = *byte);
    Reading::Whole(Message { magic: room, magic_len, total, unpacked, unpacks })
}

#[cfg(test)]
mod tests {
    use super::super::telling::shipped;
    use super::*;

    /// `zlib.compress(b"A" * 5000, 9)` of Python.
    const PACKED: &str = "78daedc13101000000c2a06ceb5fca147e4001000000006f032929f5c5";

    fn stream() -> Vec<u8> {
        let digits: Vec<u8> =
            PACKED.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
        digits.chunks_exact(2).map(|two| two[0] << 4 | two[1]).collect()
    }

    fn made(magic: &[u8], stream: &[u8], unpacked: u32, length_first: bool) -> Vec<u8> {
        let total = u32::try_from(magic.len() + 8 + stream.len()).unwrap().to_le_bytes();
        let unpacked = unpacked.to_le_bytes();
        if length_first {
            [&total, magic, &unpacked, stream].concat()
        } else {
            [magic, &total, &unpacked, stream].concat()
        }
    }

    fn found(bytes: &[u8]) -> Option<bool> {
        match examine(&Gh0stSettings::default(), bytes) {
            Reading::Whole(message) => Some(message.unpacks),
            Reading::Incomplete | Reading::Other => None,
        }
    }

    #[test]
    fn the_shipped_settings_are_the_defaults() {
        assert_eq!(shipped::<Gh0stSettings>(REGISTRATION.id), Gh0stSettings::default());
    }

    #[test]
    fn a_message_of_either_order_and_any_magic_is_found_at_its_last_byte() {
        for magic in [&b"Gh0st"[..], b"7hero", b"HM", b"LURK0", b"ABCDEFGHIJKLMNOP"] {
            for length_first in [false, true] {
                let message = made(magic, &stream(), 5000, length_first);
                for cut in 0..message.len() {
                    let reading = examine(&Gh0stSettings::default(), &message[..cut]);
                    assert_eq!(reading, Reading::Incomplete, "{magic:?} {cut}");
                }
                assert_eq!(found(&message), Some(true), "{magic:?}");
                assert_eq!(found(&[message.clone(), message].concat()), Some(true), "{magic:?}");
            }
        }
    }

    #[test]
    fn a_disguised_stream_is_found_but_does_not_prove() {
        let mut disguised = stream();
        disguised[..2].copy_from_slice(&[0x7C, 0x9E]);
        assert_eq!(found(&made(b"Gh0st", &disguised, 5000, false)), Some(false));
    }

    #[test]
    fn a_length_without_a_stream_that_unpacks_is_no_message() {
        // OPC-UA's hello: message type, chunk type, u32 size of the whole, then numbers and a URL.
        let mut opc = b"HELF".to_vec();
        let url = b"opc.tcp://plc.example:4840";
        opc.extend_from_slice(&u32::try_from(32 + url.len()).unwrap().to_le_bytes());
        for number in [0_u32, 65_536, 65_536, 0, 0, url.len() as u32] {
            opc.extend_from_slice(&number.to_le_bytes());
        }
        opc.extend_from_slice(url);
        assert_eq!(examine(&Gh0stSettings::default(), &opc), Reading::Other);
        let whole = made(b"Gh0st", &stream(), 5000, false);
        assert_eq!(found(&made(b"Gh0st", &stream(), 4999, false)), None, "wrong unpacked size");
        assert_eq!(found(&[&whole[..], b"x"].concat()), None, "one byte too many");
        let mut broken = whole.clone();
        broken[20] ^= 0x41;
        assert_eq!(found(&broken), None, "a stream that does not unpack");
        assert_eq!(found(&[b"data", &stream()[..]].concat()), None, "a stream without a length");
        assert_eq!(found(b"220 mail.example ESMTP ready\r\n"), None);
    }

    #[test]
    fn no_random_payload_with_a_forged_length_and_zlib_header_is_a_message() {
        let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
        for round in 0..100_000_usize {
            let mut payload = b"Gh0st".to_vec();
            for _ in 0..6 + round % 9 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                payload.extend_from_slice(&seed.to_le_bytes());
            }
            let total = u32::try_from(payload.len()).unwrap();
            payload[5..9].copy_from_slice(&total.to_le_bytes());
            payload[11..13].fill(0);
            payload[13..15].copy_from_slice(&[0x78, 0x9C]);
            assert_eq!(found(&payload), None);
        }
    }
}
