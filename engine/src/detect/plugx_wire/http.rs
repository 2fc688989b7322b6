//! `plugx.http`: PlugX in HTTP/1, directly or through a proxy (absolute-form targets).
//!
//! Two things are recognised. First the head of every variant of 2011 to 2019, whatever its field
//! names: four consecutive fields of digits with 61456 (0xF010, the largest message) as the third,
//! and `Content-Length: 0` (ET 2017714, 2018169, 2018228, 2018541; VRT 19917, 31693, 32179; FireEye
//! GreedyWonk and Poisoned Hurricane 2014; `silence-is-best/c2db`). Second a body that is a message
//! (plugx.md 1.1; both public decoders read it in POST and 200 bodies), where the header's size
//! field must agree with the length that HTTP states.
//!
//! Measured: 0 of 4,362 requests of public captures have four consecutive fields of digits at all.
//! Evaded by another number than 61456 together with unknown cipher constants, and by TLS.
//!
//! Only the inside end's own requests prove an implant: what a server answers can be a file that a
//! stranger put there.

use super::dialogue::Dialogue;
use super::message::{MessageReader, Reading, is_text, shown};
use crate::app::http_head::{RequestHead, ResponseHead};
use crate::detect::Outlook;
use crate::detect::registry::{Setup, WireDetector, is_own_word};
use crate::detect::signal::{Pattern, Signal, Warrant};
use crate::flow::{Appetite, Observation, ObservationKind, Toward};
use sekisho_schema::{Evidence, Grade};
use serde::{Deserialize, Serialize};

/// Stable identifier of the detector.
pub(super) const PLUGX_HTTP: &str = "plugx.http";

/// Fields of digits that must follow each other (session, status, size, sequence).
const FIELDS: usize = 4;
/// Digits of the greatest 32-bit number.
const DIGITS: usize = 10;
/// Fields of digits that honest software sends.
const HONEST: [&str; 6] =
    ["age", "content-length", "dnt", "keep-alive", "max-forwards", "upgrade-insecure-requests"];
/// Most that a chunk's first line takes (RFC 9112 §7.1): sixteen digits and the line's end.
const CHUNK_LINE: usize = 18;

/// The constants of the detector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct HttpSettings {
    /// Numbers that the third of the four fields may hold.
    sizes: Vec<u32>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self { sizes: vec![0xF010] }
    }
}

#[derive(Debug)]
struct PlugxHttp {
    settings: HttpSettings,
    reader: MessageReader,
    dialogue: Dialogue,
    warrant: Warrant,
}

/// Makes the detector.
pub(super) fn build(setup: &Setup<'_>) -> Result<Box<dyn WireDetector>, String> {
    Ok(Box::new(PlugxHttp {
        settings: setup.settings()?,
        reader: MessageReader::new(setup.plugx),
        dialogue: Dialogue::new(setup.seed),
        warrant: setup.warrant.clone(),
    }))
}

impl WireDetector for PlugxHttp {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _outlook: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        match o.kind {
            ObservationKind::Request { toward, head } => {
                if let Some(signal) = self.numbered(o, toward, head) {
                    emit.push(signal);
                }
                if head.body.is_empty() && matches!(head.method, b"GET" | b"HEAD" | b"CONNECT") {
                    return Appetite::Enough;
                }
                let body = Body {
                    bytes: head.body,
                    length: head.field("content-length"),
                    coding: head.field("transfer-encoding"),
                };
                let place = "the body of an HTTP request";
                self.body(o, toward, &body, is_own_word(toward), place, emit)
            }
            ObservationKind::Response { toward, head } => {
                let body = Body {
                    bytes: head.body,
                    length: head.field("content-length"),
                    coding: head.field("transfer-encoding"),
                };
                if !may_have_body(head) {
                    return Appetite::Enough;
                }
                self.body(o, toward, &body, false, "the body of an HTTP response", emit)
            }
            _ => Appetite::Enough,
        }
    }

    fn evicted(&self) -> u64 {
        self.dialogue.evicted()
    }
}

impl PlugxHttp {
    /// The four numbered fields.
    fn numbered(
        &self,
        o: &Observation<'_>,
        toward: Toward,
        head: &RequestHead<'_>,
    ) -> Option<Signal> {
        let fields = self.four_fields(head)?;
        let length = head.field("content-length");
        let empty = length == Some(b"0");
        let proves = is_own_word(toward);
        let [a, b, c, d] = fields.map(|(_, value)| shown(value));
        let who = match toward {
            Toward::Remote => "{host} sent {remote}",
            Toward::Local => "{remote} sent {host}",
        };
        let rest = if empty {
            "Content-Length is 0"
        } else {
            "though Content-Length is not 0, as it is in the known builds"
        };
        let told = format!(
            "{who} a request in PlugX's form: four header fields in a row hold only numbers, {a}, \
             {b}, {c} and {d}, where {c} is PlugX's largest message, and {rest}; none of 4,362 \
             requests of public captures has four such fields.",
        );
        let names = fields.map(|(name, _)| shown(name)).join(", ");
        let evidence = vec![Evidence::new(
            "header",
            [
                ("content_length", length.map(shown).into()),
                ("fields", names.into()),
                ("host", head.field("host").map(shown).into()),
                ("method", shown(head.method).into()),
                ("target", shown(head.target).into()),
                ("values", format!("{a}, {b}, {c}, {d}").into()),
            ],
        )];
        let mut signal = self.warrant.pattern(o, proves, Pattern { told, evidence });
        if !empty {
            signal.grade = signal.grade.min(Grade::Suspect);
        }
        Some(signal)
    }

    /// Four fields of digits in a row with a known number as the third.
    fn four_fields<'a>(&self, head: &RequestHead<'a>) -> Option<[(&'a [u8], &'a [u8]); FIELDS]> {
        let mut last: [(&[u8], &[u8]); FIELDS] = [(&[], &[]); FIELDS];
        let mut run = 0;
        for (name, value) in head.each_field() {
            let Some(_) = number(value).filter(|_| !is_honest(name)) else {
                run = 0;
                continue;
            };
            last.rotate_left(1);
            if let Some(place) = last.last_mut() {
                *place = (name, value);
            }
            run += 1;
            let [_, _, (_, third), _] = last;
            if run >= FIELDS
                && number(third).is_some_and(|size| self.settings.sizes.contains(&size))
            {
                return Some(last);
            }
        }
        None
    }

    /// A body that is a message.
    fn body(
        &mut self,
        o: &Observation<'_>,
        toward: Toward,
        body: &Body<'_>,
        proves: bool,
        place: &str,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        let (bytes, total) = match body.content() {
            Content::None => return Appetite::Enough,
            Content::Unfinished => return Appetite::More,
            Content::Bytes(bytes, total) => (bytes, total),
        };
        if is_text(bytes) {
            return Appetite::Enough;
        }
        match self.reader.read(bytes, total) {
            Reading::No => Appetite::Enough,
            Reading::NeedMore => Appetite::More,
            Reading::Message(message) => {
                if self.dialogue.is_news(&o.flow, toward, message.header) {
                    let pattern = message.pattern(toward, proves, place);
                    emit.push(self.warrant.pattern(o, proves, pattern));
                }
                Appetite::Enough
            }
        }
    }
}

/// A body as far as it is there, and what its head says of its length.
struct Body<'a> {
    bytes: &'a [u8],
    length: Option<&'a [u8]>,
    coding: Option<&'a [u8]>,
}

enum Content<'a> {
    None,
    Unfinished,
    /// The first bytes, and how many there will be.
    Bytes(&'a [u8], Option<usize>),
}

impl<'a> Body<'a> {
    fn content(&self) -> Content<'a> {
        if self.coding.is_some_and(|coding| coding.to_ascii_lowercase().ends_with(b"chunked")) {
            return self.chunk();
        }
        match self.length.map(number) {
            // Without a length a body ends with its connection, which only responses do.
            None if self.bytes.is_empty() => Content::None,
            None => Content::Bytes(self.bytes, None),
            Some(None) => Content::None,
            // Shorter than a header.
            Some(Some(0..16)) => Content::None,
            Some(Some(_)) if self.bytes.is_empty() => Content::Unfinished,
            Some(Some(length)) => {
                let length = length as usize;
                Content::Bytes(self.bytes.get(..length).unwrap_or(self.bytes), Some(length))
            }
        }
    }

    /// The first chunk (RFC 9112 §7.1).
    fn chunk(&self) -> Content<'a> {
        let Some(end) = self.bytes.iter().take(CHUNK_LINE).position(|byte| *byte == b'\n') else {
            let unfinished = self.bytes.len() < CHUNK_LINE;
            return if unfinished { Content::Unfinished } else { Content::None };
        };
        let line = self.bytes.get(..end).unwrap_or_default().trim_ascii();
        let size =
            std::str::from_utf8(line).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let data = self.bytes.get(end + 1..).unwrap_or_default();
        match size {
            None | Some(0..16) => Content::None,
            Some(_) if data.is_empty() => Content::Unfinished,
            Some(size) => Content::Bytes(data.get(..size).unwrap_or(data), Some(size)),
        }
    }
}

fn may_have_body(head: &ResponseHead<'_>) -> bool {
    // RFC 9112 §6.3.
    !matches!(head.status, 100..=199 | 204 | 304)
}

fn is_honest(name: &[u8]) -> bool {
    HONEST.iter().any(|honest| name.eq_ignore_ascii_case(honest.as_bytes()))
}

fn number(value: &[u8]) -> Option<u32> {
    if value.is_empty() || value.len() > DIGITS || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    value
        .iter()
        .try_fold(0_u32, |sum, digit| sum.checked_mul(10)?.checked_add(u32::from(digit - b'0')))
}

#[cfg(test)]
mod tests;
