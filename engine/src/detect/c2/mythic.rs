//! `c2.mythic`: the HTTP profile of Mythic agents as it comes out of the box.
//!
//! A message is base64 of a 36-character UUID and what is enciphered behind it; agents send it as the
//! body of a POST to `/data`, or in the parameter `q` of a GET of `/index`, with the User-Agent of
//! Internet Explorer 11 on Windows 8.1 (`MythicC2Profiles/http`, `builder.go`). The UUID in base64
//! makes the message unlike others (2^-150 by chance), the rest says whose it is: the UUID with path
//! or agent is suspect, with both it has the grade of the pack. A link can make a browser send it,
//! so it never cuts. What evades it: any other path and User-Agent, TLS, agents with binary UUIDs.
//!
//! Measured: 0 findings on the public captures, none of which holds Mythic.

use super::super::Outlook;
use super::super::registry::{Registration, Setup, Weight, WireDetector, is_own_word, reads};
use super::super::signal::{Pattern, Signal, Warrant};
use super::cobaltstrike::{parameters, path_and_query};
use super::codec::base64;
use super::framework::lesser;
use crate::app::http_head::RequestHead;
use crate::flow::{Appetite, Observation, ObservationKind, Toward};
use sekisho_schema::{Evidence, Grade};
use serde::{Deserialize, Serialize};

pub(super) const REGISTRATION: Registration = Registration {
    id: "c2.mythic",
    reads: reads::REQUEST,
    weight: Weight::Scores,
    build: |setup| Ok(Box::new(Mythic::new(setup)?)),
};

/// Characters of a UUID (RFC 9562 §4).
const UUID: usize = 36;
/// Base64 digits that hold it.
const UUID_DIGITS: usize = UUID / 3 * 4;
/// Base64 digits of the shortest message: the UUID and a cipher's start vector, block and code.
const LEAST_DIGITS: usize = 100;

/// The constants of [`REGISTRATION`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct MythicSettings {
    /// Path of GET and name of its parameter.
    get: String,
    parameter: String,
    /// Path of POST.
    post: String,
    user_agent: String,
}

impl Default for MythicSettings {
    fn default() -> Self {
        Self {
            get: "/index".to_owned(),
            parameter: "q".to_owned(),
            post: "/data".to_owned(),
            user_agent: "Mozilla/5.0 (Windows NT 6.3; Trident/7.0; rv:11.0) like Gecko".to_owned(),
        }
    }
}

/// The UUID at the front of a message; `Err` if there are too few digits to know.
fn uuid(text: &[u8]) -> Result<Option<[u8; UUID]>, ()> {
    let mut id = [0; UUID];
    let digits = text.get(..UUID_DIGITS.min(text.len())).unwrap_or_default();
    let Some(len) = base64(digits, &mut id) else { return Ok(None) };
    let fits = id.iter().take(len).enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    match (fits, len) {
        (false, _) => Ok(None),
        (true, UUID) => Ok(Some(id)),
        (true, _) => Err(()),
    }
}

/// What a request shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shown {
    id: [u8; UUID],
    path: bool,
    agent: bool,
}

/// Looks for a message; `Err` if more of the body is needed.
fn examine(head: &RequestHead<'_>, settings: &MythicSettings) -> Result<Option<Shown>, ()> {
    let (path, query) = path_and_query(head.target);
    let (message, known) = match head.method {
        b"GET" => {
            let found = parameters(query)
                .find(|(name, value)| {
                    *name == settings.parameter.as_bytes() && value.len() >= LEAST_DIGITS
                })
                .map(|(_, value)| value);
            let Some(message) = found else { return Ok(None) };
            (message, &settings.get)
        }
        b"POST" => {
            let length = head
                .field("Content-Length")
                .and_then(|text| std::str::from_utf8(text).ok()?.parse::<usize>().ok());
            if length.is_none_or(|length| length < LEAST_DIGITS) {
                return Ok(None);
            }
            (head.body, &settings.post)
        }
        _ => return Ok(None),
    };
    let Some(id) = uuid(message)? else { return Ok(None) };
    let agent = head.field("User-Agent") == Some(settings.user_agent.as_bytes());
    Ok(Some(Shown { id, path: path == known.as_bytes(), agent }))
}

#[derive(Debug)]
struct Mythic {
    scored: Warrant,
    suspect: Warrant,
    settings: MythicSettings,
}

impl Mythic {
    fn new(setup: &Setup<'_>) -> Result<Self, String> {
        Ok(Self {
            scored: lesser(&setup.warrant, Grade::Malicious),
            suspect: lesser(&setup.warrant, Grade::Suspect),
            settings: setup.settings()?,
        })
    }
}

impl WireDetector for Mythic {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        let ObservationKind::Request { toward, head } = o.kind else { return Appetite::Enough };
        let shown = match examine(head, &self.settings) {
            Err(()) => return Appetite::More,
            Ok(None) => return Appetite::Enough,
            Ok(Some(shown)) => shown,
        };
        let (warrant, also) = match (shown.path, shown.agent) {
            (true, true) => (&self.scored, "the path and the User-Agent of its HTTP profile"),
            (true, false) => (&self.suspect, "the path of its HTTP profile"),
            (false, true) => (&self.suspect, "the User-Agent of its HTTP profile"),
            (false, false) => return Appetite::Enough,
        };
        let id = String::from_utf8_lossy(&shown.id).into_owned();
        let (from, to) = match toward {
            Toward::Remote => ("{host}", "{remote}"),
            Toward::Local => ("{remote}", "{host}"),
        };
        let told = format!(
            "{from} sent {to} a message like those of Mythic: base64 that begins with the UUID {id}, and {also}."
        );
        let target: String = String::from_utf8_lossy(head.target).chars().take(64).collect();
        let facts = [("target", target.into()), ("uuid", id.into())];
        let pattern = Pattern { told, evidence: vec![Evidence::new("header", facts)] };
        emit.push(warrant.pattern(o, is_own_word(toward), pattern));
        Appetite::Enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::http_head::HeadReading;

    /// Base64 of `9b3a4c1e-7f20-4d5b-8a61-0c2e9f7d3b48` and 60 zero bytes, by another program.
    const MESSAGE: &str = "OWIzYTRjMWUtN2YyMC00ZDViLThhNjEtMGMyZTlmN2QzYjQ4AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const AGENT: &str = "Mozilla/5.0 (Windows NT 6.3; Trident/7.0; rv:11.0) like Gecko";

    fn shown(text: &str) -> Result<Option<(bool, bool)>, ()> {
        let HeadReading::Whole(head) = RequestHead::parse(text.as_bytes()) else { return Ok(None) };
        let found = examine(&head, &MythicSettings::default())?;
        Ok(found.map(|shown| (shown.path, shown.agent)))
    }

    fn post(path: &str, agent: &str, length: usize, body: &str) -> String {
        format!(
            "POST {path} HTTP/1.1\r\nHost: c2.example\r\nUser-Agent: {agent}\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    }

    #[test]
    fn a_message_is_known_by_its_uuid_and_told_by_path_and_agent() {
        let len = MESSAGE.len();
        assert_eq!(shown(&post("/data", AGENT, len, MESSAGE)), Ok(Some((true, true))));
        assert_eq!(shown(&post("/data", "curl/8", len, MESSAGE)), Ok(Some((true, false))));
        assert_eq!(shown(&post("/x", AGENT, len, MESSAGE)), Ok(Some((false, true))));
        assert_eq!(shown(&post("/data", AGENT, len, MESSAGE.get(..20).unwrap())), Err(()));
        let get =
            format!("GET /index?q={MESSAGE} HTTP/1.1\r\nHost: c2\r\nUser-Agent: {AGENT}\r\n\r\n");
        assert_eq!(shown(&get), Ok(Some((true, true))));
    }

    #[test]
    fn other_bodies_are_no_messages() {
        for (length, body) in [
            (MESSAGE.len(), MESSAGE.replace("tN2Yy", "uN2Yy")),
            (MESSAGE.len(), "{\"q\":1}".to_owned()),
            (MESSAGE.len(), "A".repeat(132)),
            (20, MESSAGE.to_owned()),
            (36, "9b3a4c1e-7f20-4d5b-8a61-0c2e9f7d3b48".to_owned()),
        ] {
            assert_eq!(shown(&post("/data", AGENT, length, &body)), Ok(None), "{body}");
        }
        let get = format!("GET /index?q=rust HTTP/1.1\r\nHost: c2\r\nUser-Agent: {AGENT}\r\n\r\n");
        assert_eq!(shown(&get), Ok(None));
    }

    #[test]
    fn shipped_settings_are_the_defaults() {
        let shipped: MythicSettings = super::super::framework::shipped("c2.mythic");
        assert_eq!(shipped, MythicSettings::default());
    }
}
