//! `c2.shadowpad`: what of ShadowPad can be seen without the constants of its build.
//!
//! Over TCP a message has 20 bytes of header (key, identifier, module, packed and unpacked length, each
//! u32), enciphered from byte 4 on with constants that differ from build to build; behind the header of
//! the first message stand 0 to 63 bytes. So nothing in it can be checked against anything else, and the
//! tell is the place: bytes of a cipher in just that number, as a client's first words on a port where
//! TLS, HTTP or DNS belong. Over DNS it asks for TXT records of names of more than 80 bytes, made of
//! lower-case letters. Sources: Dr.Web, "Study of the ShadowPad APT backdoor and its relation to PlugX",
//! 2020; Snort registered rules 44797 to 44807 (facts only); VMware's list of controllers (38 of 85 on
//! 443 with HTTP, 33 with bare TCP).
//!
//! Both shapes are shared with honest software, so that they are told as odd and never cut. Evades:
//! other ports, HTTP, another alphabet.

use super::telling::{Sessions, Strength, Telling, looks_random, payload, who};
use crate::app::dns::DnsMessage;
use crate::detect::Outlook;
use crate::detect::registry::{Registration, Setup, Weight, WireDetector, reads};
use crate::detect::signal::{Pattern, Signal};
use crate::flow::{Appetite, Observation, ObservationKind, Route, Toward};
use crate::learn::Bounded;
use crate::limits::SESSIONS;
use sekisho_schema::finding::Direction;
use sekisho_schema::{Evidence, Transport};
use serde::Deserialize;
use std::net::IpAddr;

/// Bytes that a first message may have.
const FIRST: std::ops::RangeInclusive<usize> = 20..=20 + 0x3F;
/// TXT (RFC 1035 §3.2.2).
const TXT: u16 = 16;
/// Labels that a zone is taken to have.
const ZONE: usize = 2;

/// The line of the list of detectors.
pub(super) const REGISTRATION: Registration = Registration {
    id: "c2.shadowpad",
    reads: reads::STREAM | reads::MESSAGE,
    weight: Weight::Scores,
    build,
};

/// Constants of the detector.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ShadowPadSettings {
    /// Ports where another protocol belongs.
    ports: Vec<u16>,
    /// A name that is asked for is longer than this.
    name_above: usize,
    /// Different names below one zone that are told.
    names: u8,
}

impl Default for ShadowPadSettings {
    fn default() -> Self {
        Self { ports: vec![53, 80, 443], name_above: 80, names: 2 }
    }
}

/// What one host asked of one zone.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    last: u64,
    names: u8,
}

/// Looks for ShadowPad's shapes.
#[derive(Debug)]
pub(super) struct ShadowPad {
    settings: ShadowPadSettings,
    telling: Telling,
    judged: Sessions<bool>,
    zones: Bounded<(IpAddr, u64), Asked>,
}

/// Makes the detector.
fn build(setup: &Setup<'_>) -> Result<Box<dyn WireDetector>, String> {
    Ok(Box::new(ShadowPad {
        settings: setup.settings()?,
        telling: Telling::new(setup.warrant.clone(), setup.seed),
        judged: Sessions::new(setup.seed),
        zones: Bounded::new(SESSIONS, setup.seed),
    }))
}

impl WireDetector for ShadowPad {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _outlook: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        match o.kind {
            ObservationKind::Head { toward, bytes } => self.stream(o, toward, bytes, emit),
            ObservationKind::Message { toward, message } => {
                self.message(o, toward, message, emit);
            }
            _ => {}
        }
        Appetite::Enough
    }

    fn evicted(&self) -> u64 {
        self.telling.evicted() + self.judged.evicted() + self.zones.evicted()
    }
}

impl ShadowPad {
    fn stream(
        &mut self,
        o: &Observation<'_>,
        toward: Toward,
        bytes: &[u8],
        emit: &mut Vec<Signal>,
    ) {
        let flow = &o.flow;
        let asks = toward == Toward::Remote
            && flow.direction == Direction::Outbound
            && flow.route == Route::Egress
            && flow.start_seen
            && flow.bytes_in == 0
            && flow.key.transport == Transport::Tcp
            && self.settings.ports.contains(&flow.key.remote.port());
        if !asks {
            return;
        }
        // Only the first telling is the first segment.
        let Some(judged) = self.judged.of(flow) else { return };
        if std::mem::replace(judged, true) || !FIRST.contains(&bytes.len()) || !looks_random(bytes)
        {
            return;
        }
        self.telling.tell(o, (toward, bytes), Strength::Shape, emit, || Pattern {
            told: format!(
                "{} in the shape of ShadowPad's first message: {} bytes that look enciphered, on \
                 port {} where another protocol belongs; other software does so too.",
                who(toward),
                bytes.len(),
                flow.key.remote.port(),
            ),
            evidence: vec![payload(toward, bytes, [("size", bytes.len().into())])],
        });
    }

    fn message(
        &mut self,
        o: &Observation<'_>,
        toward: Toward,
        message: &DnsMessage<'_>,
        emit: &mut Vec<Signal>,
    ) {
        if toward != Toward::Remote || message.is_response() {
            return;
        }
        let Some(question) = message.question().filter(|question| question.qtype == TXT) else {
            return;
        };
        let name = question.name.as_str();
        let Some(zone) = zone_of(name, self.settings.name_above) else { return };
        let key = (o.flow.key.local.ip(), hash(zone));
        let Some(asked) = self.zones.upsert(&key, Asked::default, |_| true) else { return };
        let now = hash(name);
        // Resolvers ask again for what was not answered.
        if asked.last == now {
            return;
        }
        asked.last = now;
        asked.names = asked.names.saturating_add(1);
        if asked.names < self.settings.names {
            return;
        }
        let names = asked.names;
        self.telling.tell(o, (toward, name.as_bytes()), Strength::Shape, emit, || Pattern {
            told: format!(
                "{{host}} asks for TXT records as ShadowPad does: {names} names below {zone}, the \
                 last of {} bytes, made of lower-case letters only; other tunnels do so too.",
                name.len(),
            ),
            evidence: vec![Evidence::new(
                "name",
                [("value", name.into()), ("zone", zone.into()), ("names", names.into())],
            )],
        });
    }
}

/// The zone of a name that is long enough and below the zone made of nothing but letters.
///
/// Names of letters a to p only are PlugX's, which has a detector of its own.
fn zone_of(name: &str, above: usize) -> Option<&str> {
    if name.len() <= above {
        return None;
    }
    let (at, _) = name.rmatch_indices('.').nth(ZONE - 1)?;
    let (data, zone) = name.split_at_checked(at)?;
    let letters = data.bytes().all(|byte| byte == b'.' || byte.is_ascii_lowercase());
    let long = data.split('.').any(|label| label.len() >= 30);
    let beyond_p = data.bytes().any(|byte| byte > b'p');
    (letters && long && beyond_p && data.len() > above / 2).then(|| zone.trim_start_matches('.'))
}

/// FNV-1a: the keys are bounded and only compared with one another.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
    })
}

#[cfg(test)]
mod tests {
    use super::super::telling::shipped;
    use super::*;

    #[test]
    fn the_shipped_settings_are_the_defaults() {
        assert_eq!(shipped::<ShadowPadSettings>(REGISTRATION.id), ShadowPadSettings::default());
    }

    #[test]
    fn a_long_name_of_letters_has_the_zone_that_it_is_asked_below() {
        let name = "sajajlyoogrmkllmuoqiyaxlymwlvajdkouhkdyiyolamdjivho.cjpybuhwnjgkhllm.zq.nylalobghyhirgh.com";
        assert_eq!(zone_of(name, 80), Some("nylalobghyhirgh.com"));
        for other in [
            // Short; a digit; a hyphen; words; PlugX's alphabet.
            "sajajlyoogrmkllmuoqiyaxlymwl.nylalobghyhirgh.com".to_owned(),
            name.replace("gkhllm", "gkh1lm"),
            name.replace("gkhllm", "gkh-lm"),
            format!("{}example.com", "selector.".repeat(9)),
            format!(
                "{}.{}.example.com",
                "abcdefghijklmnop".repeat(3),
                "ponmlkjihgfedcba".repeat(3)
            ),
        ] {
            assert_eq!(zone_of(&other, 80), None, "{other}");
        }
    }

    #[test]
    fn the_hash_is_the_published_one() {
        // Test vectors of the FNV-1a draft: the empty string and "a".
        assert_eq!(hash(""), 0xCBF2_9CE4_8422_2325);
        assert_eq!(hash("a"), 0xAF63_DC4C_8601_EC8C);
    }
}
