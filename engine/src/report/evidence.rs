//! Bounded proof: the facts of a signal, by name.

use crate::detect::plugx::{Alignment, PlugxDecoder, Proof};
use crate::detect::{Sighted, Signal, SignalKind};
use crate::flow::{NameSource, Toward};
use sekisho_schema::Evidence;

/// The evidence of a signal; payload is bounded to the sixteen bytes of a message header.
pub(super) fn evidence(signal: &Signal) -> Vec<Evidence> {
    let piece = match &signal.kind {
        SignalKind::Allowance { bytes, allowed, first_seen, .. } => Evidence::new(
            "volume",
            [
                ("allowed_bytes", (*allowed).into()),
                ("bytes_out", (*bytes).into()),
                ("first_seen", first_seen.to_string().into()),
                ("window", "7d".into()),
            ],
        ),
        SignalKind::HostBudget { bytes, allowed } => Evidence::new(
            "volume",
            [
                ("allowed_bytes", (*allowed).into()),
                ("bytes_out", (*bytes).into()),
                ("window", "1d".into()),
            ],
        ),
        SignalKind::Pattern(pattern) => return pattern.evidence.clone(),
        SignalKind::Scored(scored) => return scored.evidence.clone(),
        SignalKind::Plugx { matched, cipher, toward, header, present } => Evidence::new(
            "payload",
            [
                ("alignment", alignment(matched.alignment).into()),
                ("cipher", cipher.as_str().into()),
                ("command", format!("0x{:04x}", matched.command).into()),
                ("command_name", PlugxDecoder::command_name(matched.command).into()),
                ("extra", matched.extra.into()),
                ("flags", format!("0x{:08x}", matched.flags).into()),
                ("head", hex(header).into()),
                ("plain_size", matched.plain_size.into()),
                ("present", (*present).into()),
                ("proof", proof(matched.proof).into()),
                ("size", matched.size.into()),
                ("toward", toward_word(*toward).into()),
            ],
        ),
        SignalKind::Sighting(Sighted::Endpoint) => Evidence::new(
            "address",
            [("value", signal.target.map(|address| address.to_string()).into())],
        ),
        SignalKind::Sighting(
            Sighted::Certificate | Sighted::Fingerprint(_) | Sighted::Url | Sighted::UserAgent,
        ) => Evidence::new(
            if matches!(&signal.kind, SignalKind::Sighting(Sighted::Url)) {
                "url"
            } else {
                "fingerprint"
            },
            [
                ("of", fingerprint(signal).into()),
                ("name", signal.name.clone().into()),
                ("value", signal.indicator.as_ref().map(|known| known.value.clone()).into()),
            ],
        ),
        SignalKind::Sighting(sighted) => Evidence::new(
            "name",
            [
                ("address", signal.target.map(|address| address.to_string()).into()),
                ("seen_in", seen_in(*sighted).into()),
                ("value", signal.name.clone().into()),
            ],
        ),
    };
    vec![piece]
}

const fn alignment(alignment: Alignment) -> &'static str {
    match alignment {
        Alignment::KeystreamAfterKey => "after-key",
        Alignment::KeystreamFromKey => "from-key",
    }
}

const fn proof(proof: Proof) -> &'static str {
    match proof {
        Proof::Header => "header",
        Proof::Lznt1 => "lznt1",
    }
}

const fn toward_word(toward: Toward) -> &'static str {
    match toward {
        Toward::Local => "local",
        Toward::Remote => "remote",
    }
}

/// What kind of thing it is that stands for somebody.
const fn fingerprint(signal: &Signal) -> &'static str {
    match &signal.kind {
        SignalKind::Sighting(Sighted::Certificate) => "certificate",
        SignalKind::Sighting(Sighted::Fingerprint(kind)) => kind.as_str(),
        SignalKind::Sighting(Sighted::UserAgent) => "user-agent",
        _ => "url",
    }
}

const fn seen_in(sighted: Sighted) -> &'static str {
    match sighted {
        Sighted::Answer => "dns-answer",
        Sighted::Bound => "dns-binding",
        Sighted::Certificate | Sighted::Fingerprint(_) => "tls",
        Sighted::Endpoint => "address",
        Sighted::Name(NameSource::Host) => "http-host",
        Sighted::Name(NameSource::Quic) => "quic-sni",
        Sighted::Name(NameSource::Sni) => "tls-sni",
        Sighted::Name(NameSource::Socks) => "socks-target",
        Sighted::Query => "dns-question",
        Sighted::Url | Sighted::UserAgent => "http-request",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 0xF])
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect()
}
