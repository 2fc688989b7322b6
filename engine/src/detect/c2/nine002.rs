//! `c2.9002`: the first message of 9002, also called Hydraq or McRAT.
//!
//! Plain form, 24 bytes: four of any value, then `0c000000 08000000 19ffffff ff000000 00110000`.
//! Enciphered form: a 4-byte key at 0 is XORed over all that follows, bytes 16 to 19 give
//! `09 12 11 20`, a date, and in the published message the zeros of the header show the key itself
//! (bytes 4 to 15). It travels bare or, as such or as base64, in the body of `POST /<hex>` with the
//! User-Agent `lynx`. Sources: Emerging Threats open rules 2016398, 2017702 and 2020714; FireEye,
//! "Operation Ephemeral Hydra", whose body is a test here. No match in 36,219 public TCP payloads.
//! With the zeros the message proves itself; the date alone (one in 2^32) is suspect. Evades: another
//! date, another cipher.

use super::telling::{Strength, Telling, hex, payload, who};
use crate::app::hello::Reading;
use crate::app::http_head::RequestHead;
use crate::detect::Outlook;
use crate::detect::registry::{Registration, Setup, Weight, WireDetector, reads};
use crate::detect::signal::{Pattern, Signal};
use crate::flow::{Appetite, Observation, ObservationKind, Toward};
use sekisho_schema::Evidence;
use serde::Deserialize;

/// Bytes 4 to 23 of the plain form.
const PLAIN: [u8; 20] =
    [0x0C, 0, 0, 0, 8, 0, 0, 0, 0x19, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0x11, 0, 0];
/// Bytes that the enciphered form must have to be recognised.
const ENCIPHERED: usize = 20;
/// Base64 characters of these bytes.
const ENCODED: usize = ENCIPHERED.div_ceil(3) * 4;

/// The line of the list of detectors.
pub(super) const REGISTRATION: Registration = Registration {
    id: "c2.9002",
    reads: reads::STREAM | reads::REQUEST,
    weight: Weight::Decides,
    build,
};

/// Constants of the detector.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct NineSettings {
    /// What bytes 16 to 19 give under the key: the dates of builds, as on the wire.
    dates: Vec<[u8; 4]>,
    /// The whole User-Agent of the HTTP form.
    user_agent: String,
}

impl Default for NineSettings {
    fn default() -> Self {
        Self { dates: vec![[0x09, 0x12, 0x11, 0x20]], user_agent: "lynx".to_owned() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Under this key; whether the zeros of the header show it.
    Enciphered {
        key: [u8; 4],
        zeros: bool,
    },
    Plain,
}

impl Form {
    const fn strength(self) -> Strength {
        match self {
            Self::Enciphered { zeros: false, .. } => Strength::Likely,
            Self::Enciphered { zeros: true, .. } | Self::Plain => Strength::Proof,
        }
    }
}

/// Looks for 9002 in the heads of streams and in HTTP requests.
#[derive(Debug)]
pub(super) struct Nine {
    settings: NineSettings,
    telling: Telling,
}

/// Makes the detector.
fn build(setup: &Setup<'_>) -> Result<Box<dyn WireDetector>, String> {
    let telling = Telling::new(setup.warrant.clone(), setup.seed);
    Ok(Box::new(Nine { settings: setup.settings()?, telling }))
}

impl WireDetector for Nine {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _outlook: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        match o.kind {
            ObservationKind::Head { toward, bytes } => match examine(&self.settings, bytes) {
                Reading::Incomplete => Appetite::More,
                Reading::Other => Appetite::Enough,
                Reading::Whole(form) => {
                    self.telling.tell(o, (toward, bytes), form.strength(), emit, || {
                        told(toward, form, bytes, "")
                    });
                    Appetite::Enough
                }
            },
            ObservationKind::Request { toward, head } => self.request(o, toward, head, emit),
            _ => Appetite::Enough,
        }
    }

    fn evicted(&self) -> u64 {
        self.telling.evicted()
    }
}

impl Nine {
    fn request(
        &mut self,
        o: &Observation<'_>,
        toward: Toward,
        head: &RequestHead<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        if head.method != b"POST" {
            return Appetite::Enough;
        }
        let mut room = [0; ENCIPHERED + 1];
        let body = match decoded(head.body, &mut room) {
            Some(body) => body,
            None => head.body,
        };
        if let Reading::Whole(form) = examine(&self.settings, body) {
            let place = " in the body of an HTTP request";
            let said = (toward, body);
            self.telling.tell(o, said, form.strength(), emit, || told(toward, form, body, place));
            return Appetite::Enough;
        }
        let agent = head.field("User-Agent").unwrap_or_default();
        if agent == self.settings.user_agent.as_bytes() && is_hex_path(head.target) {
            self.telling.tell(o, (toward, head.target), Strength::Likely, emit, || {
                let path = String::from_utf8_lossy(head.target).into_owned();
                let agent = &self.settings.user_agent;
                Pattern {
                    told: format!(
                        "{} as 9002 does: an HTTP POST to {path}, which is a bare hexadecimal \
                         number, with \"{agent}\" as the whole User-Agent.",
                        who(toward)
                    ),
                    evidence: vec![Evidence::new(
                        "header",
                        [("target", path.into()), ("user_agent", agent.as_str().into())],
                    )],
                }
            });
        }
        // The body may still be on its way.
        if head.body.len() < ENCODED { Appetite::More } else { Appetite::Enough }
    }
}

fn told(toward: Toward, form: Form, bytes: &[u8], place: &str) -> Pattern {
    let (what, key) = match form {
        Form::Plain => ("20 of the first 24 bytes are its fixed header".to_owned(), String::new()),
        Form::Enciphered { key, zeros } => {
            let header = if zeros { ", and the zeros of its header at 4 to 15" } else { "" };
            let key = hex(&key);
            let what =
                format!("under the key {key} of bytes 0 to 3 its date appears at 16{header}");
            (what, key)
        }
    };
    Pattern {
        told: format!("{} as 9002 (Hydraq) does{place}: {what}.", who(toward)),
        evidence: vec![payload(toward, bytes, [("key", key.into())])],
    }
}

fn examine(settings: &NineSettings, bytes: &[u8]) -> Reading<Form> {
    let agree = |a: &[u8], b: &[u8]| a.iter().zip(b).all(|(a, b)| a == b);
    let Some((key, rest)) = bytes.split_first_chunk::<4>() else { return Reading::Incomplete };
    if agree(rest, &PLAIN) {
        return match rest.len() {
            20 => Reading::Whole(Form::Plain),
            0..20 => Reading::Incomplete,
            _ => Reading::Other,
        };
    }
    let [_, _, _, last] = key;
    if *key == [*last; 4] {
        return Reading::Other;
    }
    let Some(date) = rest.get(12..).and_then(<[u8]>::first_chunk::<4>) else {
        return Reading::Incomplete;
    };
    let is_date = settings.dates.iter().any(|known| {
        known.iter().zip(key).zip(date).all(|((known, key), byte)| known ^ key == *byte)
    });
    if !is_date {
        return Reading::Other;
    }
    let zeros = rest.iter().take(12).zip(key.iter().cycle()).all(|(a, b)| a == b);
    Reading::Whole(Form::Enciphered { key: *key, zeros })
}

/// Whether a target is `/` and up to eight hexadecimal digits.
fn is_hex_path(target: &[u8]) -> bool {
    matches!(target, [b'/', digits @ ..]
        if (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit))
}

/// The first bytes of a base64 text (RFC 4648 §4), as many as are needed.
fn decoded<'r>(text: &[u8], room: &'r mut [u8; ENCIPHERED + 1]) -> Option<&'r [u8]> {
    let text = text.get(..ENCODED)?;
    for (four, three) in text.chunks_exact(4).zip(room.chunks_exact_mut(3)) {
        let mut word = 0;
        for letter in four {
            let value = match letter {
                b'A'..=b'Z' => letter - b'A',
                b'a'..=b'z' => letter - b'a' + 26,
                b'0'..=b'9' => letter - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            word = word << 6 | u32::from(value);
        }
        let [_, bytes @ ..] = word.to_be_bytes();
        three.copy_from_slice(&bytes);
    }
    Some(room)
}

#[cfg(test)]
mod tests {
    use super::super::telling::shipped;
    use super::*;

    /// plugx.md, V5: the body that FireEye published.
    const V5: &[u8] = b"wUeAKsFHgCrBR4AqwUeAKshVkQrBR4Aq";

    fn found(bytes: &[u8]) -> Option<Form> {
        match examine(&NineSettings::default(), bytes) {
            Reading::Whole(form) => Some(form),
            Reading::Incomplete | Reading::Other => None,
        }
    }

    fn plain() -> Vec<u8> {
        let header = b"\x0c\0\0\0\x08\0\0\0\x19\xff\xff\xff\xff\0\0\0\0\x11\0\0";
        [b"\xd5\x01\x9a\x44", &header[..]].concat()
    }

    #[test]
    fn the_shipped_settings_are_the_defaults() {
        assert_eq!(shipped::<NineSettings>(REGISTRATION.id), NineSettings::default());
    }

    #[test]
    fn the_published_body_shows_its_key_and_date() {
        let mut room = [0; ENCIPHERED + 1];
        let body = decoded(V5, &mut room).unwrap();
        assert_eq!(
            found(body),
            Some(Form::Enciphered { key: [0xC1, 0x47, 0x80, 0x2A], zeros: true })
        );
        for cut in 0..ENCIPHERED {
            assert_eq!(examine(&NineSettings::default(), &body[..cut]), Reading::Incomplete);
        }
    }

    #[test]
    fn the_plain_form_is_found_at_its_24th_byte_and_only_there() {
        let message = plain();
        assert_eq!(message.len(), 24);
        for cut in 0..24 {
            assert_eq!(examine(&NineSettings::default(), &message[..cut]), Reading::Incomplete);
        }
        assert_eq!(found(&message), Some(Form::Plain));
        assert_eq!(found(&[&message[..], b"x"].concat()), None);
        for at in 4..24 {
            let mut other = message.clone();
            other[at] ^= 1;
            assert_eq!(found(&other), None, "byte {at}");
        }
    }

    #[test]
    fn equal_bytes_and_repeated_words_are_no_message() {
        assert_eq!(found(&[0; 64]), None);
        assert_eq!(found(&[b'A'; 64]), None);
        assert_eq!(found(&b"abcdabcdabcdabcdabcdabcd"[..]), None);
        // The date under a key of zeros is no cipher.
        assert_eq!(found(&[&[0; 16][..], &[9, 0x12, 0x11, 0x20], &[0; 8]].concat()), None);
    }

    #[test]
    fn only_a_bare_hexadecimal_number_is_such_a_path() {
        assert!(is_hex_path(b"/2") && is_hex_path(b"/1aF") && is_hex_path(b"/deadbeef"));
        for other in [&b"/"[..], b"/index", b"/2?x", b"2", b"/123456789", b"/2/"] {
            assert!(!is_hex_path(other));
        }
    }

    #[test]
    fn no_random_payload_is_a_message() {
        let mut seed = 0x2545_F491_4F6C_DD1D_u64;
        let mut payload = [0_u8; 32];
        for _ in 0..100_000 {
            for eight in payload.chunks_exact_mut(8) {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                eight.copy_from_slice(&seed.to_le_bytes());
            }
            assert_eq!(found(&payload), None);
            // Forged: the date under the key, but no header around it.
            let forged: Vec<u8> = payload[..4]
                .iter()
                .zip([9, 0x12, 0x11, 0x20])
                .map(|(key, date)| key ^ date)
                .collect();
            payload[16..20].copy_from_slice(&forged);
            assert_eq!(found(&payload).map(Form::strength), Some(Strength::Likely));
        }
    }
}
