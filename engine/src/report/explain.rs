//! One voice: a signal as one sentence of plain English with the numbers that decided.

use crate::detect::plugx::{PlugxDecoder, PlugxMatch, Proof};
use crate::detect::{Sighted, Signal, SignalKind};
use crate::flow::{NameSource, Toward};
use sekisho_schema::finding::{Direction, IndicatorClass};

/// The sentence for a signal about `host`, the inside end as a person calls it, and what makes it
/// worth less.
pub(super) fn explain(signal: &Signal, host: &str) -> String {
    let sentence = sentence(signal, host);
    match signal.doubt {
        Some(doubt) => {
            format!("{sentence} It cuts nothing, for who said it may not mean it: {doubt}.")
        }
        None => sentence,
    }
}

fn sentence(signal: &Signal, host: &str) -> String {
    let remote = signal.flow.remote;
    match &signal.kind {
        SignalKind::Allowance { destination, bytes, allowed, first_seen } => format!(
            "{host} sent {} bytes to {destination} within seven days, which nobody approved and \
             which was first spoken to at {first_seen}; {} bytes are allowed.",
            grouped(*bytes),
            grouped(*allowed),
        ),
        SignalKind::HostBudget { bytes, allowed } => format!(
            "{host} sent {} bytes within a day to destinations that nobody approved, lastly to \
             {remote}; {} bytes are allowed.",
            grouped(*bytes),
            grouped(*allowed),
        ),
        SignalKind::Pattern(pattern) => {
            pattern.told.replace("{host}", host).replace("{remote}", &remote.to_string())
        }
        SignalKind::Scored(scored) => scored.told.replace("{host}", host),
        SignalKind::Plugx { matched, cipher, toward, present, .. } => {
            let who = match toward {
                Toward::Local => format!("{remote} spoke PlugX to {host}"),
                Toward::Remote => format!("{host} spoke PlugX to {remote}"),
            };
            let sentence = plugx(&who, matched, cipher, (*toward, *present));
            match toward {
                // Graded as suspect for this reason; the sentence has to say so.
                Toward::Local => sentence.replacen(
                    ": the first",
                    &format!(" and {host} has not answered in it, so a stranger may have sent it: the first"),
                    1,
                ),
                Toward::Remote => sentence,
            }
        }
        SignalKind::Sighting(sighted) => sighting(signal, host, *sighted),
    }
}

fn plugx(
    who: &str,
    matched: &PlugxMatch,
    cipher: &str,
    (toward, present): (Toward, usize),
) -> String {
    let deed = match toward {
        Toward::Remote if PlugxDecoder::is_theft(matched.command) => ": file theft in progress",
        Toward::Local | Toward::Remote => "",
    };
    let body = match (matched.proof, matched.size) {
        (Proof::Lznt1, _) => ", and the body unpacks as LZNT1 to the size announced",
        (Proof::Header, 0) => ", which fits a message that is a header only",
        (Proof::Header, _) => "",
    };
    // plugx.md, section 2, D1: command, flags and sizes agree by chance in about 5 of 10^10 payloads.
    format!(
        "{who}: the first 16 bytes decode with cipher {cipher} to command 0x{:04x} ({}){deed}, {} body \
         bytes announced and {} present{body}; the chance of this in other traffic is below 5 in \
         10,000,000,000.",
        matched.command,
        PlugxDecoder::command_name(matched.command),
        grouped(matched.size.into()),
        grouped(present as u64),
    )
}

fn sighting(signal: &Signal, host: &str, sighted: Sighted) -> String {
    let remote = signal.flow.remote;
    let name = signal.name.as_deref().unwrap_or("a name");
    let target =
        signal.target.map_or_else(|| remote.ip().to_string(), |address| address.to_string());
    let what = match (sighted, signal.direction) {
        (Sighted::Answer, _) => format!("{host} was told that {name} has the address {target}"),
        (Sighted::Bound, Direction::Inbound) => {
            format!("{remote}, last resolved from {name}, began to speak to {host}")
        }
        (Sighted::Bound, Direction::Outbound) => {
            format!("{host} began to speak to {remote}, last resolved from {name}")
        }
        (Sighted::Endpoint, Direction::Inbound) => format!("{remote} began to speak to {host}"),
        (Sighted::Endpoint, Direction::Outbound) => format!("{host} began to speak to {remote}"),
        (Sighted::Name(source), _) => {
            let place = match source {
                NameSource::Host => "an HTTP request",
                NameSource::Quic => "a QUIC handshake",
                NameSource::Sni => "a TLS handshake",
                NameSource::Socks => "a SOCKS request",
            };
            format!("{host} named {name} in {place} with {remote}")
        }
        (Sighted::Query, _) => format!("{host} asked for the name {name}"),
        (Sighted::Certificate, _) => format!("{remote} showed {host} a known certificate"),
        (Sighted::Fingerprint(kind), _) => {
            format!("{host} greeted {remote} in the way of a known {kind} fingerprint")
        }
        (Sighted::Url, _) => format!("{host} asked {remote} for a known URL"),
        (Sighted::UserAgent, _) => format!("{host} named itself to {remote} by a known User-Agent"),
    };
    let Some(indicator) = &signal.indicator else { return format!("{what}.") };
    let families = match indicator.labels.as_slice() {
        [] => String::new(),
        labels => format!(" ({})", labels.join(", ")),
    };
    let sinkhole = match indicator.class {
        IndicatorClass::Sinkhole => {
            "; it is a sinkhole, a server that defenders took over from a worm or bot: what speaks \
             to it is infected"
        }
        IndicatorClass::Threat => "",
    };
    format!(
        "{what}: {} is an indicator of {}{families} with confidence {} of 100{sinkhole}.",
        indicator.value, indicator.source, indicator.confidence,
    )
}

/// A number with a comma after each three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_grouped_by_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (20_000_000, "20,000,000")]
        {
            assert_eq!(grouped(number), text);
        }
    }
}
