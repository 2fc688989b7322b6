//! `plugx.cookie`: the nameless cookie of the HTTP variant.
//!
//! The request is `GET /<24 upper-case hex digits>` and its cookie has no name: 28 characters of
//! base64 hold a key and sixteen bytes enciphered under it, session, sequence number, build date
//! 20130923 and 61456 (0xF010) (`silence-is-best/c2db`, a capture of 2019, vector V1 of the design
//! paper). Only the last word decides: 2^-32 for each cipher setting tried.
//!
//! Measured: 0 of 4,362 requests of public captures. Evaded by unknown cipher constants and by TLS.

use super::message::{hex, shown};
use crate::app::http_head::RequestHead;
use crate::detect::Outlook;
use crate::detect::plugx::{CookieMatch, PlugxDecoder};
use crate::detect::registry::{Setup, WireDetector, is_own_word};
use crate::detect::signal::{Pattern, Signal, Warrant};
use crate::flow::{Appetite, Observation, ObservationKind, Toward};
use sekisho_schema::Evidence;
use serde::{Deserialize, Serialize};

/// Stable identifier of the detector.
pub(super) const PLUGX_COOKIE: &str = "plugx.cookie";

/// Characters of the cookie: base64 of twenty bytes, one pad included.
const COOKIE_LEN: usize = 28;
/// Bytes that it holds: a key and four words.
const PLAIN_LEN: usize = 20;

/// The constants of the detector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct CookieSettings {
    /// Numbers that the last word may hold.
    sizes: Vec<u32>,
}

impl Default for CookieSettings {
    fn default() -> Self {
        Self { sizes: vec![0xF010] }
    }
}

#[derive(Debug)]
struct PlugxCookie {
    settings: CookieSettings,
    decoder: PlugxDecoder,
    warrant: Warrant,
}

/// Makes the detector.
pub(super) fn build(setup: &Setup<'_>) -> Result<Box<dyn WireDetector>, String> {
    Ok(Box::new(PlugxCookie {
        settings: setup.settings()?,
        decoder: PlugxDecoder::new(setup.plugx),
        warrant: setup.warrant.clone(),
    }))
}

impl WireDetector for PlugxCookie {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _outlook: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        if let ObservationKind::Request { toward, head } = o.kind
            && let Some(cookie) = head.field("cookie")
            && let Some(bytes) = nameless(cookie)
            && let Some(found) = self.decoder.examine_cookie(&bytes, &self.settings.sizes)
        {
            emit.push(self.signal(o, toward, head, (&bytes, &found)));
        }
        Appetite::Enough
    }
}

impl PlugxCookie {
    fn signal(
        &self,
        o: &Observation<'_>,
        toward: Toward,
        head: &RequestHead<'_>,
        (bytes, found): (&[u8; PLAIN_LEN], &CookieMatch),
    ) -> Signal {
        let cipher = self.decoder.cipher_id(found.cipher);
        let [session, sequence, build, size] = found.words;
        let who = match toward {
            Toward::Remote => "{host} sent {remote}",
            Toward::Local => "{remote} sent {host}",
        };
        let told = format!(
            "{who} a request with PlugX's cookie: it has no name, and its 20 bytes decode with \
             cipher {cipher} to session {session}, sequence number {sequence}, build {build} and \
             PlugX's largest message {size}; the chance of this in other cookies of that form is \
             below 1 in 100,000,000.",
        );
        let evidence = vec![Evidence::new(
            "header",
            [
                ("build", build.into()),
                ("cipher", cipher.into()),
                ("cookie", hex(bytes).into()),
                ("host", head.field("host").map(shown).into()),
                ("sequence", sequence.into()),
                ("session", session.into()),
                ("size", size.into()),
                ("target", shown(head.target).into()),
            ],
        )];
        self.warrant.pattern(o, is_own_word(toward), Pattern { told, evidence })
    }
}

/// The bytes of a cookie that is nothing but base64 of twenty bytes.
fn nameless(cookie: &[u8]) -> Option<[u8; PLAIN_LEN]> {
    let (pad, digits) = cookie.split_last()?;
    if cookie.len() != COOKIE_LEN || *pad != b'=' {
        return None;
    }
    let mut bytes = [0; PLAIN_LEN];
    let mut bits = 0_u32;
    let mut place = bytes.iter_mut();
    for (at, digit) in digits.iter().enumerate() {
        bits = bits << 6 | base64_value(*digit)?;
        if at % 4 != 0 {
            *place.next()? = (bits >> (6 - 2 * (at % 4))) as u8;
        }
    }
    Some(bytes)
}

const fn base64_value(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value as u32)
}

#[cfg(test)]
mod tests;
