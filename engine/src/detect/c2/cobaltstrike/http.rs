//! Requests and answers of beacons over HTTP in clear.

use super::super::codec::{base64, base64_len};
use crate::app::http_head::{RequestHead, ResponseHead};
use serde::{Deserialize, Serialize};

/// Length of a beacon's metadata: one block of RSA with a 1024-bit key.
const METADATA: usize = 128;
/// Digits that base64 needs for it, padding included.
const METADATA_DIGITS: usize = METADATA.div_ceil(3) * 4;
/// Least message behind a length: a cipher block and its 16-byte authentication code.
const LEAST_MESSAGE: u32 = 32;
/// Bytes of a body beyond which nothing is added up.
const MOST_BODY: usize = 1 << 30;
/// Messages of one body that are followed.
const MOST_MESSAGES: usize = 64;

/// How a profile writes what a beacon sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Coding {
    Base64,
    Raw,
}

/// A profile by what travels in clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Profile {
    name: String,
    /// Paths of check-ins.
    get: Vec<String>,
    /// What stands before and after the metadata in the cookie.
    before: String,
    after: String,
    /// Path of output.
    post: String,
    /// Query parameter that holds the beacon's number in decimal digits.
    id: String,
    output: Coding,
}

/// The profiles whose texts are public.
pub(super) fn known() -> Vec<Profile> {
    let get = "/ca /dpixel /__utm.gif /pixel.gif /g.pixel /dot.gif /updates.rss /fwlink /cm /cx /pixel /match /visit.js /load /push /ptj /j.ad /ga.js /en_US/all.js /activity /IE9CompatViewList.xml";
    vec![
        Profile {
            name: "default".to_owned(),
            get: get.split(' ').map(str::to_owned).collect(),
            before: String::new(),
            after: String::new(),
            post: "/submit.php".to_owned(),
            id: "id".to_owned(),
            output: Coding::Raw,
        },
        Profile {
            name: "Amazon".to_owned(),
            get: vec!["/s/ref=nb_sb_noss_1/167-3294888-0262949/field-keywords=books".to_owned()],
            before: "skin=noskin;session-token=".to_owned(),
            after: "csm-hit=s-24KU11BB82RZSYGJ3BDK|1419899012996".to_owned(),
            post: "/N4215/adj/amzn.us.sr.aps".to_owned(),
            id: "sn".to_owned(),
            output: Coding::Base64,
        },
    ]
}

/// What a request shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign<'p> {
    Metadata { profile: &'p str },
    Output { profile: &'p str, chunks: usize, bytes: usize },
    Stager { sum: u8 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading<'p> {
    Found(Sign<'p>),
    /// More of the body is needed.
    More,
    Nothing,
}

/// At most 64 bytes as text, for evidence.
pub(super) fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..bytes.len().min(64)).unwrap_or_default()).into_owned()
}

/// Path and query of a target in origin or absolute form (RFC 9112 §3.2).
pub(in crate::detect::c2) fn path_and_query(target: &[u8]) -> (&[u8], &[u8]) {
    let origin = match target.strip_prefix(b"http://") {
        Some(rest) => {
            let slash = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
            rest.get(slash..).unwrap_or_default()
        }
        None => target,
    };
    match origin.iter().position(|byte| *byte == b'?') {
        Some(at) => {
            (origin.get(..at).unwrap_or_default(), origin.get(at + 1..).unwrap_or_default())
        }
        None => (origin, &[]),
    }
}

/// The parameters of a query.
pub(in crate::detect::c2) fn parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query.split(|byte| *byte == b'&').filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        Some((pair.get(..at)?, pair.get(at + 1..)?))
    })
}

/// Looks for the signs of beacons in a request.
pub(super) fn examine<'p>(
    head: &RequestHead<'_>,
    profiles: &'p [Profile],
    sums: &[u8],
) -> Reading<'p> {
    let (path, query) = path_and_query(head.target);
    match head.method {
        b"GET" => {
            for profile in profiles {
                if profile.get.iter().any(|known| known.as_bytes() == path)
                    && head.field("Cookie").is_some_and(|cookie| is_metadata(cookie, profile))
                {
                    return Reading::Found(Sign::Metadata { profile: &profile.name });
                }
            }
            stager(path, query, sums)
                .map_or(Reading::Nothing, |sum| Reading::Found(Sign::Stager { sum }))
        }
        b"POST" => profiles
            .iter()
            .find(|profile| profile.post.as_bytes() == path)
            .map_or(Reading::Nothing, |profile| output(head, query, profile)),
        _ => Reading::Nothing,
    }
}

fn is_metadata(cookie: &[u8], profile: &Profile) -> bool {
    cookie
        .strip_prefix(profile.before.as_bytes())
        .and_then(|rest| rest.strip_suffix(profile.after.as_bytes()))
        .is_some_and(|text| text.len() == METADATA_DIGITS && base64_len(text) == Some(METADATA))
}

fn stager(path: &[u8], query: &[u8], sums: &[u8]) -> Option<u8> {
    let [b'/', letters @ ..] = path else { return None };
    if letters.len() != 4 || !query.is_empty() || !letters.iter().all(u8::is_ascii_alphanumeric) {
        return None;
    }
    let sum = letters.iter().fold(0_u8, |sum, letter| sum.wrapping_add(*letter));
    sums.contains(&sum).then_some(sum)
}

fn output<'p>(head: &RequestHead<'_>, query: &[u8], profile: &'p Profile) -> Reading<'p> {
    let has_id = parameters(query).any(|(name, value)| {
        name == profile.id.as_bytes() && !value.is_empty() && value.iter().all(u8::is_ascii_digit)
    });
    let length = head
        .field("Content-Length")
        .and_then(|text| std::str::from_utf8(text).ok()?.parse::<usize>().ok());
    let Some(length) = length.filter(|length| has_id && *length < MOST_BODY) else {
        return Reading::Nothing;
    };
    // Where the messages may end: the padding of base64 is at the end, which may not be there yet.
    let ends = match profile.output {
        Coding::Base64 if length.is_multiple_of(4) => {
            let whole = length / 4 * 3;
            whole.saturating_sub(2)..=whole
        }
        Coding::Base64 => return Reading::Nothing,
        Coding::Raw => length..=length,
    };
    let mut at = 0;
    for chunks in 1..=MOST_MESSAGES {
        let Some(message) = number(head.body, at, profile.output) else {
            // Cut short within what was announced, or no base64.
            let waits = head.body.len() < length && head.body.len() < needed(at, profile.output);
            return if waits { Reading::More } else { Reading::Nothing };
        };
        if message < LEAST_MESSAGE || !message.is_multiple_of(16) {
            return Reading::Nothing;
        }
        at = at.saturating_add(4).saturating_add(message as usize).min(MOST_BODY);
        if ends.contains(&at) {
            let bytes = at;
            return Reading::Found(Sign::Output { profile: &profile.name, chunks, bytes });
        }
        if at + 4 + LEAST_MESSAGE as usize > *ends.end() {
            return Reading::Nothing;
        }
    }
    Reading::Nothing
}

/// Bytes of a body that hold the number at a decoded position.
const fn needed(at: usize, coding: Coding) -> usize {
    match coding {
        Coding::Base64 => at / 3 * 4 + 8,
        Coding::Raw => at + 4,
    }
}

/// The big-endian number at a decoded position of a body.
fn number(body: &[u8], at: usize, coding: Coding) -> Option<u32> {
    let bytes = match coding {
        Coding::Raw => *body.get(at..)?.first_chunk::<4>()?,
        Coding::Base64 => {
            let mut six = [0; 6];
            let digits = body.get(at / 3 * 4..)?.first_chunk::<8>()?;
            base64(digits, &mut six)?;
            *six.get(at % 3..)?.first_chunk()?
        }
    };
    Some(u32::from_be_bytes(bytes))
}

/// Whether an answer carries the EICAR text where team servers of the trial put it.
pub(super) fn is_trial(head: &ResponseHead<'_>) -> bool {
    const TEXT: &[u8] = b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE";
    head.field("X-Malware")
        .is_some_and(|value| value.windows(TEXT.len()).any(|window| window == TEXT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::http_head::HeadReading;

    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    /// Base64 by the text of RFC 4648 §4, apart from the reader.
    fn encode(bytes: &[u8]) -> String {
        let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
        let width = bits.len().div_ceil(6) * 6;
        let mut text: String = format!("{bits:0<width$}")
            .as_bytes()
            .chunks(6)
            .map(|six| {
                let six = std::str::from_utf8(six).unwrap();
                char::from(DIGITS[usize::from_str_radix(six, 2).unwrap()])
            })
            .collect();
        while !text.len().is_multiple_of(4) {
            text.push('=');
        }
        text
    }

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        (0..len)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 24) as u8
            })
            .collect()
    }

    fn told(request: &[u8]) -> String {
        let HeadReading::Whole(head) = RequestHead::parse(request) else { return "no head".into() };
        let profiles = known();
        format!("{:?}", examine(&head, &profiles, &[92, 93]))
    }

    fn get(path: &str, cookie: &str) -> Vec<u8> {
        format!(
            "GET {path} HTTP/1.1\r\nAccept: */*\r\nCookie: {cookie}\r\nHost: c2.example\r\n\r\n"
        )
        .into_bytes()
    }

    fn post(path: &str, length: usize, body: &[u8]) -> Vec<u8> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nAccept: */*\r\nContent-Type: application/octet-stream\r\nHost: c2.example\r\nContent-Length: {length}\r\n\r\n"
        );
        [head.as_bytes(), body].concat()
    }

    fn messages(lengths: &[u32]) -> Vec<u8> {
        let mut body = Vec::new();
        for length in lengths {
            body.extend_from_slice(&length.to_be_bytes());
            body.extend(noise(*length as usize, u64::from(*length)));
        }
        body
    }

    #[test]
    fn a_check_in_is_a_known_path_and_one_block_in_the_cookie() {
        let block = encode(&noise(128, 7));
        assert_eq!(block.len(), 172);
        for path in ["/ca", "/updates.rss", "/en_US/all.js", "http://c2.example/visit.js"] {
            let found = told(&get(path, &block));
            assert_eq!(found, "Found(Metadata { profile: \"default\" })", "{path}");
        }
        let amazon = format!(
            "skin=noskin;session-token={block}csm-hit=s-24KU11BB82RZSYGJ3BDK|1419899012996"
        );
        let path = "/s/ref=nb_sb_noss_1/167-3294888-0262949/field-keywords=books";
        assert_eq!(told(&get(path, &amazon)), "Found(Metadata { profile: \"Amazon\" })");
    }

    #[test]
    fn other_cookies_and_paths_are_no_check_ins() {
        let block = encode(&noise(128, 7));
        for (path, cookie) in [
            ("/cart", block.clone()),
            ("/ca", format!("id={block}")),
            ("/ca", encode(&noise(127, 7))),
            ("/ca", encode(&noise(129, 7))),
            ("/ca", "a=b; c=d".to_owned()),
            ("/ca", block.replace('A', "%")),
            ("/", String::new()),
        ] {
            assert_eq!(told(&get(path, &cookie)), "Nothing", "{path} {cookie}");
        }
    }

    #[test]
    fn output_is_found_as_soon_as_its_lengths_add_up() {
        let one = messages(&[64]);
        let request = post("/submit.php?id=1234567890", one.len(), &one);
        let found = "Found(Output { profile: \"default\", chunks: 1, bytes: 68 })";
        assert_eq!(told(&request), found);
        let body_at = request.len() - one.len();
        assert_eq!(told(&request[..body_at + 3]), "More");
        assert_eq!(told(&request[..body_at + 4]), found);
        let three = messages(&[48, 656, 32]);
        let request = post("/submit.php?id=7", three.len(), &three);
        assert!(told(&request).contains("chunks: 3"));
        assert_eq!(told(&request[..request.len() - 40]), "More");
    }

    #[test]
    fn output_in_base64_is_found_too() {
        for lengths in [&[64][..], &[656], &[48, 64, 80]] {
            let text = encode(&messages(lengths));
            let path = "/N4215/adj/amzn.us.sr.aps?sz=160x600&sn=1786196164&s=3717";
            let request = post(path, text.len(), text.as_bytes());
            assert!(
                told(&request).starts_with("Found(Output { profile: \"Amazon\""),
                "{lengths:?}"
            );
        }
    }

    #[test]
    fn other_bodies_are_no_output() {
        let body = messages(&[64]);
        for request in [
            post("/submit.php", 68, &body),
            post("/submit.php?id=abc", 68, &body),
            post("/submit.php?id=1", 69, &body),
            post("/submit.php?id=1", 67, &body[..67]),
            post("/submit.php?id=1", 7, b"a=b&c=d"),
            post("/other.php?id=1", 68, &body),
            post("/submit.php?id=1", 20, &messages(&[16])),
            post("/N4215/adj/amzn.us.sr.aps?sn=1", 68, &body),
            post("/N4215/adj/amzn.us.sr.aps?sn=1", 92, &[b'!'; 92]),
        ] {
            assert_eq!(told(&request), "Nothing", "{}", String::from_utf8_lossy(&request));
        }
    }

    #[test]
    fn random_bodies_are_no_output() {
        for seed in 0..100_000 {
            let body = noise(96, 0x9E37_79B9 * (seed + 1));
            let told = told(&post("/submit.php?id=1", body.len(), &body));
            assert_eq!(told, "Nothing", "{seed}");
        }
    }

    #[test]
    fn a_stagers_path_has_the_sum_of_its_letters() {
        // a + a + a + 9 = 92 + 256, a + a + a + : would be no letter; 93 by b.
        for (path, wanted) in
            [("/aaa9", "Found(Stager { sum: 92 })"), ("/aab9", "Found(Stager { sum: 93 })")]
        {
            assert_eq!(told(&get(path, "")), wanted);
        }
        for path in ["/aaa8", "/aaa9?x=1", "/aaaa9", "/aa-9", "/"] {
            assert_eq!(told(&get(path, "")), "Nothing", "{path}");
        }
    }

    #[test]
    fn the_trial_says_so_itself() {
        let answer = |field: &str| {
            let text = format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n");
            let HeadReading::Whole(head) = ResponseHead::parse(text.as_bytes()) else {
                return false;
            };
            is_trial(&head)
        };
        assert!(answer(
            "X-Malware: X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
        ));
        assert!(!answer("X-Malware: none"));
        assert!(!answer("Server: EICAR-STANDARD-ANTIVIRUS-TEST-FILE"));
    }
}
