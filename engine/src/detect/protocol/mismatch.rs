//! `protocol.mismatch`: another protocol than the one that a port is known for.
//!
//! Looked at are the client's first bytes (IANA service names: 443 TLS or QUIC, 80 HTTP, 53 DNS, 22
//! SSH, 25 and 587 SMTP), once enough of them are there to tell. Honest causes are many: VPNs, chat
//! and games on 443, private services. So it is odd, no more, and never a cut; it is the one sign that
//! remains of an implant whose protocol is unknown (plugx.md, D9: VMware found 47 of 85 ShadowPad
//! controllers on 443 or 80 without TLS).
//!
//! It is only said of a connection that the inside began to the outside, whose handshake was seen, and
//! of which no byte before these was lost: what begins in the middle is always "not TLS". Evades: TLS.

use crate::app::dns::DnsMessage;
use crate::detect::Outlook;
use crate::detect::c2::telling::{Sessions, Strength, Telling, payload};
use crate::detect::registry::{Registration, Setup, Weight, WireDetector, reads};
use crate::detect::signal::{Pattern, Signal};
use crate::flow::{Appetite, Observation, ObservationKind, Route, Toward};
use sekisho_schema::Transport;
use sekisho_schema::finding::Direction;
use serde::Deserialize;

/// Bytes that settle it for each protocol but DNS.
const ENOUGH: usize = 8;
/// Bytes of a DNS message that settle it: its header, behind its length in a stream.
const DNS_HEADER: usize = 12;
/// Bytes within which a question ends: header, longest name, type and class (RFC 1035 §2.3.4).
const DNS_QUESTION: usize = DNS_HEADER + 255 + 4;

/// The line of the list of detectors.
pub(super) const REGISTRATION: Registration = Registration {
    id: "protocol.mismatch",
    reads: reads::ANY_STREAM | reads::DATAGRAM,
    weight: Weight::Scores,
    build,
};

/// Constants of the detector.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct MismatchSettings {
    /// Ports of DNS.
    dns: Vec<u16>,
    /// Ports of HTTP.
    http: Vec<u16>,
    /// Ports of SMTP.
    smtp: Vec<u16>,
    /// Ports of SSH.
    ssh: Vec<u16>,
    /// Ports of TLS and QUIC.
    tls: Vec<u16>,
}

impl Default for MismatchSettings {
    fn default() -> Self {
        Self { dns: vec![53], http: vec![80], smtp: vec![25, 587], ssh: vec![22], tls: vec![443] }
    }
}

/// What a port is known for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Dns,
    Http,
    Quic,
    Smtp,
    Ssh,
    Tls,
}

impl Service {
    const fn name(self) -> &'static str {
        match self {
            Self::Dns => "DNS",
            Self::Http => "HTTP",
            Self::Quic => "QUIC",
            Self::Smtp => "SMTP",
            Self::Ssh => "SSH",
            Self::Tls => "TLS",
        }
    }

    /// Whether its server speaks first.
    const fn is_greeted(self) -> bool {
        matches!(self, Self::Smtp | Self::Ssh)
    }
}

/// What the bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Fits,
    Other,
    Short,
}

/// Compares first bytes with what the port is known for.
#[derive(Debug)]
struct Mismatch {
    settings: MismatchSettings,
    telling: Telling,
    /// Whether a flow is settled.
    settled: Sessions<bool>,
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn WireDetector>, String> {
    let telling = Telling::new(setup.warrant.clone(), setup.seed);
    let settled = Sessions::new(setup.seed);
    Ok(Box::new(Mismatch { settings: setup.settings()?, telling, settled }))
}

impl WireDetector for Mismatch {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _outlook: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        let ObservationKind::Head { toward: Toward::Remote, bytes } = o.kind else {
            return Appetite::Enough;
        };
        let flow = &o.flow;
        if flow.direction != Direction::Outbound || flow.route != Route::Egress || !flow.start_seen
        {
            return Appetite::Enough;
        }
        let Some(service) = self.settings.service(flow.key.transport, flow.key.remote.port())
        else {
            return Appetite::Enough;
        };
        match fit(service, flow.key.transport, bytes) {
            Fit::Fits => return Appetite::Enough,
            Fit::Short => return Appetite::More,
            Fit::Other => {}
        }
        let Some(settled) = self.settled.of(flow) else { return Appetite::Enough };
        // Where the client speaks first, an answer before these bytes means that some were lost; of
        // datagrams only the first is the beginning.
        let is_first = flow.key.transport == Transport::Tcp || flow.bytes_out == bytes.len() as u64;
        let lost = !is_first || (!service.is_greeted() && flow.bytes_in != 0);
        if std::mem::replace(settled, true) || lost {
            return Appetite::Enough;
        }
        self.telling.tell(o, (Toward::Remote, bytes), Strength::Shape, emit, || Pattern {
            told: format!(
                "{{host}} spoke to {{remote}}, and its first {} bytes are not {}, which {} port {} \
                 is known for.",
                bytes.len(),
                service.name(),
                flow.key.transport,
                flow.key.remote.port(),
            ),
            evidence: vec![payload(Toward::Remote, bytes, [("expected", service.name().into())])],
        });
        Appetite::Enough
    }

    fn evicted(&self) -> u64 {
        self.telling.evicted() + self.settled.evicted()
    }
}

impl MismatchSettings {
    fn service(&self, transport: Transport, port: u16) -> Option<Service> {
        let is = |ports: &Vec<u16>| ports.contains(&port);
        match transport {
            Transport::Tcp if is(&self.tls) => Some(Service::Tls),
            Transport::Tcp if is(&self.http) => Some(Service::Http),
            Transport::Tcp if is(&self.ssh) => Some(Service::Ssh),
            Transport::Tcp if is(&self.smtp) => Some(Service::Smtp),
            Transport::Tcp | Transport::Udp if is(&self.dns) => Some(Service::Dns),
            Transport::Udp if is(&self.tls) => Some(Service::Quic),
            _ => None,
        }
    }
}

fn fit(service: Service, transport: Transport, bytes: &[u8]) -> Fit {
    let is_short = bytes.len() < ENOUGH;
    let fits = match service {
        Service::Dns if transport == Transport::Udp => return dns(bytes),
        Service::Dns => return dns_stream(bytes),
        Service::Http => is_request(bytes),
        Service::Quic => is_quic(bytes),
        Service::Smtp => is_command(bytes),
        Service::Ssh => begins(bytes, b"SSH-"),
        Service::Tls => is_tls(bytes),
    };
    match fits {
        true => Fit::Fits,
        false if is_short && transport == Transport::Tcp => Fit::Short,
        false => Fit::Other,
    }
}

fn begins(bytes: &[u8], with: &[u8]) -> bool {
    bytes.iter().zip(with).all(|(a, b)| a == b)
}

/// A TLS record with a handshake, or the hello of SSL 2 that old clients begin with (RFC 5246 E.2).
fn is_tls(bytes: &[u8]) -> bool {
    match bytes {
        [0x16, 3, 0..=4, ..] | [0x16, 3] | [0x16] => true,
        [length, _, 1, 3, ..] | [length, _, 1, 0, 2, ..] => length & 0x80 != 0,
        _ => false,
    }
}

/// QUIC, or what has its place beside it: Google's own before it was a standard, TLS over datagrams
/// (RFC 9147), and STUN of calls that take this port to get through (RFC 8489 §5).
fn is_quic(bytes: &[u8]) -> bool {
    match bytes {
        [0x0C | 0x0D, _, _, _, _, _, _, _, _, b'Q', b'0'..=b'9', ..] => true,
        [20..=23, 0xFE, 0xFD | 0xFF, ..] | [20..=23, 1, 0, ..] => true,
        [0 | 1, _, _, _, 0x21, 0x12, 0xA4, 0x42, ..] => true,
        // The fixed bit of RFC 9000 §17; clear only where both ends agreed to grease it.
        [first, ..] => first & 0x40 != 0,
        [] => true,
    }
}

/// A method and a blank (RFC 9110 §9.1), HTTP/2's preface among them.
fn is_request(bytes: &[u8]) -> bool {
    let is_method = |byte: &u8| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_');
    let word = bytes.iter().take(24).take_while(|byte| is_method(byte)).count();
    word > 0 && bytes.get(word).is_none_or(|next| *next == b' ')
}

/// A command of four letters or more (RFC 5321 §4.1.1), or TLS from the first byte.
fn is_command(bytes: &[u8]) -> bool {
    let word = bytes.iter().take(12).take_while(|byte| byte.is_ascii_alphabetic()).count();
    let ends = bytes.get(word).is_none_or(|next| matches!(next, b' ' | b'\r' | b'\n'));
    (word >= 4.min(bytes.len()) && word > 0 && ends) || is_tls(bytes)
}

/// A message, or one that was cut before its question ends.
fn dns(bytes: &[u8]) -> Fit {
    let message = DnsMessage::parse(bytes);
    let asks = message.is_some_and(|message| message.question().is_some());
    let cut = message.is_some() && bytes.len() < DNS_QUESTION;
    if asks || cut { Fit::Fits } else { Fit::Other }
}

/// A message behind its length (RFC 1035 §4.2.2).
fn dns_stream(bytes: &[u8]) -> Fit {
    match bytes.split_first_chunk::<2>() {
        Some((length, message)) if message.len() >= DNS_HEADER => {
            let length = usize::from(u16::from_be_bytes(*length));
            let fit = dns(message.get(..length).unwrap_or(message));
            if length < DNS_HEADER { Fit::Other } else { fit }
        }
        _ => Fit::Short,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::c2::telling::shipped;

    fn tcp(service: Service, bytes: &[u8]) -> Fit {
        fit(service, Transport::Tcp, bytes)
    }

    fn udp(service: Service, bytes: &[u8]) -> Fit {
        fit(service, Transport::Udp, bytes)
    }

    #[test]
    fn the_shipped_settings_are_the_defaults() {
        assert_eq!(shipped::<MismatchSettings>(REGISTRATION.id), MismatchSettings::default());
    }

    #[test]
    fn each_protocol_fits_its_own_port() {
        for hello in [
            &b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"[..],
            b"\x80\x2e\x01\x03\x01\0\x15\0\0",
            b"\x80\x2e\x01\0\x02\0\x15\0\0",
        ] {
            assert_eq!(tcp(Service::Tls, hello), Fit::Fits);
        }
        for request in [
            "GET / HTTP/1.1\r\n",
            "PRI * HTTP/2.0\r\n",
            "M-SEARCH * HTTP/1.1\r\n",
            "VERSION_CONTROL /x",
        ] {
            assert_eq!(tcp(Service::Http, request.as_bytes()), Fit::Fits, "{request}");
        }
        assert_eq!(tcp(Service::Ssh, b"SSH-2.0-OpenSSH_9.9\r\n"), Fit::Fits);
        for command in ["EHLO host.example\r\n", "helo x\r\n", "QUIT\r\n", "STARTTLS\r\n"] {
            assert_eq!(tcp(Service::Smtp, command.as_bytes()), Fit::Fits, "{command}");
        }
        let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x01\0\x01";
        assert_eq!(udp(Service::Dns, query), Fit::Fits);
        assert_eq!(udp(Service::Dns, &query[..20]), Fit::Fits, "cut by the snap length");
        let framed = [&[0, query.len() as u8], &query[..]].concat();
        assert_eq!(tcp(Service::Dns, &framed), Fit::Fits);
        assert_eq!(udp(Service::Quic, &[0xC3, 0, 0, 0, 1, 8]), Fit::Fits);
        assert_eq!(udp(Service::Quic, &[0x4F, 1, 2, 3]), Fit::Fits);
        for beside in
            [&b"\x0d12345678Q024\x01"[..], b"\x16\xfe\xfd\0\0", b"\0\x01\0\0\x21\x12\xa4\x42"]
        {
            assert_eq!(udp(Service::Quic, beside), Fit::Fits, "{beside:x?}");
        }
    }

    #[test]
    fn other_protocols_do_not() {
        assert_eq!(tcp(Service::Tls, b"GET / HTTP/1.1\r\n"), Fit::Other);
        assert_eq!(tcp(Service::Tls, b"SSH-2.0-OpenSSH_9.9\r\n"), Fit::Other);
        assert_eq!(
            tcp(Service::Tls, &[0x78, 0x56, 0x34, 0x12, 0x27, 0x8A, 0x2A, 0xEA]),
            Fit::Other
        );
        assert_eq!(tcp(Service::Http, b"\x16\x03\x01\x02\0\x01\0\x01"), Fit::Other);
        assert_eq!(tcp(Service::Http, b"Gh0st\x40\0\0\0\x88\x13\0\0"), Fit::Other);
        assert_eq!(tcp(Service::Ssh, b"\x03\0\0\x13\x0e\xe0\0\0"), Fit::Other);
        assert_eq!(tcp(Service::Smtp, b"\x86\x19\0\0\x04\x01\0\0"), Fit::Other);
        assert_eq!(tcp(Service::Dns, &[0xA5; 32]), Fit::Other);
        // WireGuard and OpenVPN on 443; WireGuard on 53.
        assert_eq!(udp(Service::Quic, &[1, 0, 0, 0, 9, 9]), Fit::Other);
        assert_eq!(udp(Service::Quic, &[0x38, 0x33, 0x48, 0x57, 0x70]), Fit::Other);
        assert_eq!(udp(Service::Dns, &[1, 0, 0, 0]), Fit::Other);
    }

    #[test]
    fn too_few_bytes_settle_nothing() {
        assert_eq!(tcp(Service::Tls, &[0x16, 3]), Fit::Fits);
        assert_eq!(tcp(Service::Tls, &[0x78, 0x56]), Fit::Short);
        assert_eq!(tcp(Service::Http, b"\r\n"), Fit::Short);
        assert_eq!(tcp(Service::Dns, &[0, 29]), Fit::Short);
    }
}
