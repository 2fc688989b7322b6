//! `c2.meterpreter`: Metasploit's Meterpreter over TCP and HTTP.
//!
//! Packet: 4-byte XOR key without a zero, then under it 16 bytes session GUID, u32 big-endian cipher (0
//! none, 1 AES-256, 2 AES-128), u32 length of the packet without its first 24 bytes, u32 type (0, 1, 10,
//! 11), then tag-length-values, or an initialisation vector and whole cipher blocks. It is the first of
//! a TCP direction, or the body of a POST or of the answer. Old builds: u32 length, u32 type, then in
//! clear a method name such as `core_` or `stdapi_`. Staging: u32 little-endian length, then a DLL whose
//! DOS header is code. Sources: `rapid7/metasploit-payloads` `common_core.h` and
//! `rapid7/metasploit-framework` `packet.rb`, `meterpreter_loader` (both BSD-3-Clause); Emerging Threats
//! open rules 2014530 to 2014533 (old builds).
//!
//! A packet has to agree with itself in more than 60 bits, so that it proves itself. A stage is said
//! by the server, so it is suspect. The checksum of a URI (its bytes sum up to 80, 88, 92, 95 or 98
//! modulo 256) is met by 2 % of all URIs and is told as odd, and only together with the shape that
//! Metasploit gives such URIs and requests. Evades: TLS, which is usual; a profile with other URIs.

use super::havoc::content_length;
use super::telling::{Strength, Telling, be32, hex, le32, payload, who};
use crate::app::hello::Reading;
use crate::app::http_head::RequestHead;
use crate::detect::Outlook;
use crate::detect::registry::{Registration, Setup, Weight, WireDetector, reads};
use crate::detect::signal::{Pattern, Signal};
use crate::flow::{Appetite, Observation, ObservationKind, Toward};
use sekisho_schema::Evidence;
use serde::Deserialize;

/// Bytes before the length field counts, and of the whole header.
const UNCOUNTED: usize = 24;
const HEADER: usize = 32;
/// Longest packet that is believed: Metasploit sends files in pieces of at most this.
const LONGEST: u32 = 64 << 20;
/// Types of packets: request, response, and both in clear.
const TYPES: [u32; 4] = [0, 1, 10, 11];
/// Kinds of value that a tag may say (`TLV_META_TYPE_*`), without the bit for compression.
const META: u32 = 0xC01F_0000;
const COMPRESSED: u32 = 1 << 29;
/// How staged DLLs begin for x86 and x64: `MZ` and a call, `MZ` and pushes.
const STAGES: [&[u8]; 2] =
    [&[0x4D, 0x5A, 0xE8, 0, 0, 0, 0, 0x5B], &[0x4D, 0x5A, 0x41, 0x52, 0x55, 0x48, 0x89, 0xE5]];
/// Sizes that a stage may have.
const STAGE: std::ops::RangeInclusive<u32> = 0x4000..=0x200_0000;

/// The line of the list of detectors.
pub(super) const REGISTRATION: Registration = Registration {
    id: "c2.meterpreter",
    reads: reads::STREAM | reads::REQUEST | reads::RESPONSE,
    weight: Weight::Decides,
    build,
};

/// Constants of the detector.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct MeterpreterSettings {
    /// Sums of the bytes of a URI modulo 256.
    checksums: Vec<u8>,
    /// Least length of a URI whose sum is looked at; shorter ones are too often plain words.
    least_uri: usize,
    /// Greatest length of a URI whose sum is looked at.
    greatest_uri: usize,
}

impl Default for MeterpreterSettings {
    fn default() -> Self {
        Self { checksums: vec![80, 88, 92, 95, 98], least_uri: 24, greatest_uri: 255 }
    }
}

/// What was recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    Old {
        length: u32,
    },
    Packet {
        cipher: u32,
        length: u32,
        kind: u32,
        guid: [u8; 16],
    },
    /// With the length before it; over HTTP there is none.
    Stage {
        length: Option<u32>,
    },
}

/// Looks for Meterpreter in the heads of streams, and in HTTP.
#[derive(Debug)]
pub(super) struct Meterpreter {
    settings: MeterpreterSettings,
    telling: Telling,
}

/// Makes the detector.
fn build(setup: &Setup<'_>) -> Result<Box<dyn WireDetector>, String> {
    let telling = Telling::new(setup.warrant.clone(), setup.seed);
    Ok(Box::new(Meterpreter { settings: setup.settings()?, telling }))
}

impl WireDetector for Meterpreter {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _outlook: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        match o.kind {
            ObservationKind::Head { toward, bytes } => {
                let reading = match examine(bytes) {
                    Reading::Other => stage(bytes),
                    reading => reading,
                };
                self.conclude(o, toward, bytes, reading, emit)
            }
            ObservationKind::Request { toward, head } => {
                let length = content_length(head).unwrap_or_default();
                if head.method == b"POST" && length >= HEADER as u64 {
                    let reading = examine(head.body);
                    return self.conclude(o, toward, head.body, reading, emit);
                }
                if head.method == b"GET" {
                    self.checksum(o, toward, head, emit);
                }
                Appetite::Enough
            }
            ObservationKind::Response { toward, head } => {
                if STAGES.iter().any(|stage| head.body.starts_with(stage)) {
                    let reading = Reading::Whole(Found::Stage { length: None });
                    return self.conclude(o, toward, head.body, reading, emit);
                }
                // Bodies of answers are many: one that is not there yet is not waited for.
                match examine(head.body) {
                    Reading::Incomplete => Appetite::Enough,
                    reading => self.conclude(o, toward, head.body, reading, emit),
                }
            }
            _ => Appetite::Enough,
        }
    }

    fn evicted(&self) -> u64 {
        self.telling.evicted()
    }
}

impl Meterpreter {
    fn conclude(
        &mut self,
        o: &Observation<'_>,
        toward: Toward,
        bytes: &[u8],
        reading: Reading<Found>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        let found = match reading {
            Reading::Incomplete => return Appetite::More,
            Reading::Other => return Appetite::Enough,
            Reading::Whole(found) => found,
        };
        // Whoever can store something on a server of ours can have it answered.
        let is_served = matches!(o.kind, ObservationKind::Response { .. });
        let strength = match found {
            _ if is_served => Strength::Likely,
            Found::Stage { .. } => Strength::Likely,
            Found::Old { .. } | Found::Packet { .. } => Strength::Proof,
        };
        self.telling.tell(o, (toward, bytes), strength, emit, || told(toward, &found, bytes));
        Appetite::Enough
    }

    fn checksum(
        &mut self,
        o: &Observation<'_>,
        toward: Toward,
        head: &RequestHead<'_>,
        emit: &mut Vec<Signal>,
    ) {
        let Some(sum) = uri_sum(&self.settings, head) else { return };
        self.telling.tell(o, (toward, head.target), Strength::Shape, emit, || {
            let target = String::from_utf8_lossy(head.target).into_owned();
            Pattern {
                told: format!(
                    "{} with a URI that Metasploit's stagers would use: {} letters of base64 in one \
                     piece whose bytes sum up to {sum} modulo 256, in a request without Referer, \
                     Cookie and languages; of other such URIs 2 % have such a sum.",
                    who(toward),
                    target.len(),
                ),
                evidence: vec![Evidence::new(
                    "header",
                    [("checksum8", sum.into()), ("target", target.into())],
                )],
            }
        });
    }
}

/// The sum of a URI, if it is one of Metasploit's and the request has the shape of theirs.
fn uri_sum(settings: &MeterpreterSettings, head: &RequestHead<'_>) -> Option<u8> {
    let [b'/', rest @ ..] = head.target else { return None };
    let uri = rest.strip_suffix(b"/").unwrap_or(rest);
    if !(settings.least_uri..=settings.greatest_uri).contains(&uri.len())
        || !uri.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    {
        return None;
    }
    let has = |test: fn(&u8) -> bool| uri.iter().any(test);
    let mixed =
        has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_digit);
    let browses = ["Referer", "Cookie", "Accept-Language", "Accept-Encoding", "Authorization"]
        .iter()
        .any(|name| head.field(name).is_some());
    let sum = uri.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    (mixed && !browses && settings.checksums.contains(&sum)).then_some(sum)
}

fn told(toward: Toward, found: &Found, bytes: &[u8]) -> Pattern {
    let (verb, what, piece) = match found {
        Found::Old { length } => (
            "does",
            format!("{length} bytes announced, then in clear the name of a Meterpreter method"),
            payload(toward, bytes, [("length", (*length).into())]),
        ),
        Found::Packet { cipher, length, kind, guid } => {
            let cipher = match cipher {
                0 => "none",
                1 => "AES-256",
                _ => "AES-128",
            };
            let guid = hex(guid);
            (
                "does",
                format!(
                    "under the XOR key of bytes 0 to 3 the header of a packet appears: session \
                     {guid}, cipher {cipher}, {length} bytes announced, type {kind}, and what \
                     follows agrees with it"
                ),
                payload(
                    toward,
                    bytes,
                    [
                        ("cipher", cipher.into()),
                        ("length", (*length).into()),
                        ("session", guid.into()),
                        ("type", (*kind).into()),
                    ],
                ),
            )
        }
        Found::Stage { length } => {
            let before = match length {
                Some(length) => format!("{length} bytes announced, then "),
                None => "in an HTTP response ".to_owned(),
            };
            let what = format!("{before}a DLL whose DOS header is code");
            let length = length.unwrap_or_default();
            ("is loaded", what, payload(toward, bytes, [("length", length.into())]))
        }
    };
    Pattern {
        told: format!("{} as Metasploit's Meterpreter {verb}: {what}.", who(toward)),
        evidence: vec![piece],
    }
}

/// Reads a packet of either kind.
fn examine(bytes: &[u8]) -> Reading<Found> {
    match packet(bytes) {
        Reading::Other => old(bytes),
        reading => reading,
    }
}

fn packet(bytes: &[u8]) -> Reading<Found> {
    let Some(key) = bytes.first_chunk::<4>() else { return Reading::Incomplete };
    if key.contains(&0) {
        return Reading::Other;
    }
    let key = u32::from_be_bytes(*key);
    let word = |at: usize| be32(bytes, at).map(|word| word ^ key);
    let may = |at: usize, test: &dyn Fn(u32) -> bool| word(at).is_none_or(test);
    let plausible = may(20, &|cipher| cipher <= 2)
        && may(24, &|length| (8..=LONGEST).contains(&length))
        && may(28, &|kind| TYPES.contains(&kind));
    if !plausible {
        return Reading::Other;
    }
    let (Some(cipher), Some(length), Some(kind)) = (word(20), word(24), word(28)) else {
        return Reading::Incomplete;
    };
    let size = UNCOUNTED + length as usize;
    let body = length - 8;
    let agrees = if cipher == 0 {
        // The first value says its own length, kind and tag.
        if body < 8 {
            return Reading::Other;
        }
        let (Some(first), Some(tag)) = (word(HEADER), word(HEADER + 4)) else {
            return Reading::Incomplete;
        };
        let meta = tag & META;
        (8..=body).contains(&first)
            && tag & !(META | COMPRESSED | 0xFFFF) == 0
            && meta.count_ones() == 1
            && tag & 0xFFFF != 0
    } else {
        body >= 32 && body % 16 == 0
    };
    // Words that repeat decipher to zeros: a session is either zero as a whole or random.
    let mut guid = [0; 16];
    for (at, four) in (4..).step_by(4).zip(guid.chunks_exact_mut(4)) {
        four.copy_from_slice(&word(at).unwrap_or_default().to_be_bytes());
    }
    let zeros = guid.iter().filter(|byte| **byte == 0).count();
    // A packet does not end before the segment that it begins; another may follow it.
    let whole = bytes.len() <= size || be32(bytes, size).is_none_or(|key| key != 0);
    if agrees && whole && (zeros == 16 || zeros <= 4) {
        Reading::Whole(Found::Packet { cipher, length, kind, guid })
    } else {
        Reading::Other
    }
}

/// Reads a packet of the builds that sent everything in clear.
fn old(bytes: &[u8]) -> Reading<Found> {
    const METHOD: u32 = 0x0001_0001;
    let may = |at: usize, test: &dyn Fn(u32) -> bool| be32(bytes, at).is_none_or(test);
    let Some(length) = be32(bytes, 0) else { return Reading::Incomplete };
    let plausible = (24..=LONGEST).contains(&length)
        && may(4, &|kind| TYPES.contains(&kind))
        && may(8, &|first| (13..=length.min(256)).contains(&first))
        && may(12, &|tag| tag == METHOD);
    if !plausible {
        return Reading::Other;
    }
    let names: [&[u8]; 2] = [b"core_", b"stdapi_"];
    let name = bytes.get(16..).unwrap_or_default();
    if names.iter().any(|known| name.starts_with(known)) {
        return Reading::Whole(Found::Old { length });
    }
    if names.iter().any(|known| known.starts_with(name)) {
        Reading::Incomplete
    } else {
        Reading::Other
    }
}

/// Reads the beginning of a stage.
fn stage(bytes: &[u8]) -> Reading<Found> {
    let Some(length) = le32(bytes, 0) else { return Reading::Incomplete };
    if !STAGE.contains(&length) {
        return Reading::Other;
    }
    let code = bytes.get(4..).unwrap_or_default();
    if STAGES.iter().any(|stage| code.starts_with(stage)) {
        Reading::Whole(Found::Stage { length: Some(length) })
    } else if STAGES.iter().any(|stage| stage.starts_with(code)) {
        Reading::Incomplete
    } else {
        Reading::Other
    }
}

#[cfg(test)]
mod tests {
    use super::super::telling::shipped;
    use super::*;

    fn random(seed: &mut u64) -> u8 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        (*seed >> 40) as u8
    }

    /// A packet after the text of packet.rb: key, then XORed session, cipher, length, type, body.
    fn made(key: [u8; 4], guid: [u8; 16], cipher: u32, kind: u32, body: &[u8]) -> Vec<u8> {
        let mut plain = guid.to_vec();
        plain.extend_from_slice(&cipher.to_be_bytes());
        plain.extend_from_slice(&(body.len() as u32 + 8).to_be_bytes());
        plain.extend_from_slice(&kind.to_be_bytes());
        plain.extend_from_slice(body);
        let xored = plain.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]);
        key.into_iter().chain(xored).collect()
    }

    /// Command id and request id, as every request begins.
    fn values() -> Vec<u8> {
        let mut body = vec![0, 0, 0, 12, 0, 2, 0, 1, 0, 0, 0, 16];
        body.extend_from_slice(&[0, 0, 0, 41, 0, 1, 0, 2]);
        body.extend_from_slice(b"59318402845729364518273645091827\0");
        body
    }

    const KEY: [u8; 4] = [0xA7, 0x3C, 0x91, 0x5E];

    fn found(bytes: &[u8]) -> Option<Found> {
        match examine(bytes) {
            Reading::Whole(found) => Some(found),
            Reading::Incomplete | Reading::Other => None,
        }
    }

    #[test]
    fn the_shipped_settings_are_the_defaults() {
        assert_eq!(shipped::<MeterpreterSettings>(REGISTRATION.id), MeterpreterSettings::default());
    }

    #[test]
    fn packets_in_clear_and_enciphered_are_found_at_the_byte_that_settles_it() {
        let mut seed = 7;
        let guid = [0_u8; 16].map(|_| random(&mut seed).max(1));
        for (cipher, guid, body) in [
            (0, [0; 16], values()),
            (0, guid, values()),
            (1, guid, vec![0x5A; 16 + 48]),
            (2, guid, vec![0xC3; 16 + 16]),
        ] {
            for kind in TYPES {
                let packet = made(KEY, guid, cipher, kind, &body);
                let settles = if cipher == 0 { 40 } else { 32 };
                for cut in 0..settles {
                    assert_eq!(examine(&packet[..cut]), Reading::Incomplete, "{cipher} {cut}");
                }
                let length = body.len() as u32 + 8;
                let expected = Found::Packet { cipher, length, kind, guid };
                assert_eq!(found(&packet[..settles]), Some(expected.clone()));
                assert_eq!(found(&packet), Some(expected.clone()));
                assert_eq!(found(&[packet.clone(), packet].concat()), Some(expected));
            }
        }
    }

    #[test]
    fn a_packet_that_contradicts_itself_is_none() {
        let whole = made(KEY, [0; 16], 0, 0, &values());
        // Cipher, length, type, length of the first value, its kind: the upper bytes decide.
        for at in [20, 21, 24, 28, 29, 30, 32, 33, 36, 37] {
            let mut other = whole.clone();
            other[at] ^= 0x84;
            assert_eq!(found(&other), None, "byte {at}");
        }
        assert_eq!(found(&made([1, 2, 0, 4], [0; 16], 0, 0, &values())), None, "a zero in the key");
        assert_eq!(found(&made(KEY, [0; 16], 1, 0, &[9; 33])), None, "no whole blocks");
        for same in [0_u8, 0x41, 0xFF] {
            assert_eq!(found(&[same; 64]), None);
        }
        assert_eq!(found(&b"ABCDABCDABCDABCDABCDABCDABCDABCDABCDABCDABCD"[..]), None);
        let counter: Vec<u8> = (1..40_u32).flat_map(u32::to_be_bytes).collect();
        assert_eq!(found(&counter), None);
    }

    #[test]
    fn the_packets_of_old_builds_are_found_by_their_method() {
        let name = b"stdapi_sys_config_getuid\0";
        let mut packet = Vec::new();
        for word in [8 + 8 + name.len() as u32 + 41, 0, 8 + name.len() as u32, 0x0001_0001] {
            packet.extend_from_slice(&word.to_be_bytes());
        }
        packet.extend_from_slice(name);
        assert_eq!(examine(&packet[..22]), Reading::Incomplete);
        assert!(matches!(found(&packet), Some(Found::Old { .. })));
        packet[13] = 2;
        assert_eq!(found(&packet), None);
    }

    #[test]
    fn a_stage_is_a_length_before_a_dll_whose_header_is_code() {
        let stage_of = |length: u32, code: &[u8]| [&length.to_le_bytes(), code].concat();
        let x64 = b"MZARUH\x89\xe5\x48\x81\xec\x20\0\0\0";
        let x86 = b"MZ\xe8\0\0\0\0\x5b\x52\x45\x55\x89\xe5";
        assert_eq!(
            stage(&stage_of(175_174, x64)),
            Reading::Whole(Found::Stage { length: Some(175_174) })
        );
        assert_eq!(
            stage(&stage_of(175_174, x86)),
            Reading::Whole(Found::Stage { length: Some(175_174) })
        );
        assert_eq!(stage(&stage_of(175_174, &x64[..3])), Reading::Incomplete);
        assert_eq!(stage(&stage_of(100, x64)), Reading::Other);
        assert_eq!(stage(&stage_of(175_174, b"MZ\x90\0\x03\0\0\0")), Reading::Other);
    }

    #[test]
    fn a_sum_counts_only_with_the_shape_of_metasploit() {
        let settings = MeterpreterSettings::default();
        let sum = |request: &str| {
            let crate::app::http_head::HeadReading::Whole(head) =
                RequestHead::parse(request.as_bytes())
            else {
                panic!("{request}")
            };
            uri_sum(&settings, &head)
        };
        // The last letters are chosen so that they make the sum 92.
        let begin = "aB3dE5gH7jK9mN1pQ3sT5vW7yZ0bC";
        let letters = || b'a'..=b'z';
        let uri = letters()
            .flat_map(|a| letters().flat_map(move |b| letters().map(move |c| [a, b, c])))
            .map(|end| format!("/{begin}{}", String::from_utf8_lossy(&end)))
            .find(|uri| uri.bytes().skip(1).map(u32::from).sum::<u32>() % 256 == 92)
            .unwrap();
        assert_eq!(sum(&format!("GET {uri} HTTP/1.1\r\nHost: h\r\n\r\n")), Some(92));
        assert_eq!(sum(&format!("GET {uri}/ HTTP/1.1\r\nHost: h\r\n\r\n")), Some(92));
        assert_eq!(sum(&format!("GET {uri}?a=1 HTTP/1.1\r\nHost: h\r\n\r\n")), None);
        assert_eq!(sum(&format!("GET {uri} HTTP/1.1\r\nHost: h\r\nCookie: a=b\r\n\r\n")), None);
        assert_eq!(sum(&format!("GET {uri}x HTTP/1.1\r\nHost: h\r\n\r\n")), None);
        assert_eq!(sum("GET /login HTTP/1.1\r\nHost: h\r\n\r\n"), None);
    }

    #[test]
    fn no_random_payload_with_a_forged_length_is_a_packet() {
        let mut seed = 0x2545_F491_4F6C_DD1D_u64;
        for _ in 0..100_000 {
            let mut payload = [0_u8; 64];
            payload.iter_mut().for_each(|byte| *byte = random(&mut seed));
            assert_eq!(found(&payload), None);
            let forged = be32(&payload, 0).unwrap() ^ 40;
            payload[24..28].copy_from_slice(&forged.to_be_bytes());
            assert_eq!(found(&payload), None);
            assert!(!matches!(stage(&payload), Reading::Whole(_)));
        }
    }
}
