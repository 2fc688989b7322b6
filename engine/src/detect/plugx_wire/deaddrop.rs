//! `plugx.deaddrop`: the page that tells an implant where its controller is.
//!
//! `DZKS`, letters A to P, `DZJS`: bytes of u16 protocol, u16 port (both little-endian) and the host
//! (FireEye 2014, Volexity 2014; ET 2014618, 2018984; vectors V2 and V3 of the design paper). Looked
//! for in the first 4 KiB of the body of a plain HTTP answer. The host that read it is watched for a
//! day: that it then speaks to the address told is a finding too.
//!
//! Measured: the markers alone occur in base64, the full form with a printable host nowhere. Evaded
//! by TLS, which is usual by now. Scores only: a page is a stranger's word.

use super::letters;
use super::message::shown;
use crate::app::http_head::ResponseHead;
use crate::detect::Outlook;
use crate::detect::registry::{Setup, WireDetector};
use crate::detect::signal::{Pattern, Signal, Warrant};
use crate::flow::{Appetite, Observation, ObservationKind, Toward};
use crate::learn::Bounded;
use memchr::memmem;
use sekisho_schema::finding::Direction;
use sekisho_schema::{Evidence, Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Stable identifier of the detector.
pub(super) const PLUGX_DEADDROP: &str = "plugx.deaddrop";

/// Pairs of host and controller that are watched.
const WATCHED: usize = 1024;
/// Fewest and most letters between the markers.
const LETTERS: std::ops::RangeInclusive<usize> = 8..=128;

/// The constants of the detector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct DeadDropSettings {
    /// What stands before the letters.
    begin: String,
    /// What stands behind the letters.
    end: String,
    /// Bytes of a body that are looked through.
    within: usize,
    /// Hours for which who read it is watched.
    watch_hours: i64,
}

impl Default for DeadDropSettings {
    fn default() -> Self {
        Self { begin: "DZKS".into(), end: "DZJS".into(), within: 4096, watch_hours: 24 }
    }
}

/// Where a controller is, as the page says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Controller {
    protocol: u16,
    port: u16,
    host: String,
}

#[derive(Debug)]
struct Watch {
    since: Timestamp,
    /// The end that gave the page.
    from: std::net::SocketAddr,
    port: u16,
}

#[derive(Debug)]
struct DeadDrop {
    settings: DeadDropSettings,
    /// By host and name or address of the controller.
    watched: Bounded<(IpAddr, String), Watch>,
    warrant: Warrant,
}

/// Makes the detector.
pub(super) fn build(setup: &Setup<'_>) -> Result<Box<dyn WireDetector>, String> {
    Ok(Box::new(DeadDrop {
        settings: setup.settings()?,
        watched: Bounded::new(WATCHED, setup.seed),
        warrant: setup.warrant.clone(),
    }))
}

impl WireDetector for DeadDrop {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _outlook: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        match o.kind {
            ObservationKind::Response { toward: Toward::Local, head } => {
                let body = head.body.get(..self.settings.within).unwrap_or(head.body);
                match self.settings.find(body) {
                    Some((text, controller)) => {
                        emit.push(self.read(o, text, &controller));
                        Appetite::Enough
                    }
                    None if body.len() < self.settings.within && may_be_page(head) => {
                        Appetite::More
                    }
                    None => Appetite::Enough,
                }
            }
            ObservationKind::Started if !self.watched.is_empty() => {
                emit.extend(self.spoken_to(o));
                Appetite::Enough
            }
            _ => Appetite::Enough,
        }
    }

    fn evicted(&self) -> u64 {
        self.watched.evicted()
    }
}

impl DeadDrop {
    /// The page was read: who read it is watched from now on.
    fn read(&mut self, o: &Observation<'_>, text: &[u8], controller: &Controller) -> Signal {
        let Controller { protocol, port, host } = controller;
        let key = (o.flow.key.local.ip(), host.to_ascii_lowercase());
        let (since, from) = (o.at, o.flow.key.remote);
        let make = || Watch { since, from, port: *port };
        if let Some(watch) = self.watched.upsert(&key, make, |_| true) {
            *watch = make();
        }
        let told = format!(
            "{{host}} read a PlugX dead drop from {{remote}}: the text {} decodes to protocol \
             {protocol} ({}), port {port}, host {}; {{host}} is watched for {} hours for speaking \
             to it.",
            shown(text),
            protocol_name(*protocol),
            shown(host.as_bytes()),
            self.settings.watch_hours,
        );
        let evidence = vec![Evidence::new(
            "payload",
            [
                ("host", shown(host.as_bytes()).into()),
                ("port", (*port).into()),
                ("protocol", (*protocol).into()),
                ("protocol_name", protocol_name(*protocol).into()),
                ("text", shown(text).into()),
            ],
        )];
        self.warrant.pattern(o, false, Pattern { told, evidence })
    }

    /// A flow to what a dead drop told.
    fn spoken_to(&self, o: &Observation<'_>) -> Option<Signal> {
        if o.flow.direction != Direction::Outbound {
            return None;
        }
        let local = o.flow.key.local.ip();
        let remote = o.flow.key.remote;
        let by_address = self.watched.find(&(local, remote.ip().to_canonical().to_string()));
        let watch = match (by_address, o.flow.bound_name) {
            (Some(watch), _) => watch,
            (None, Some(name)) => self.watched.find(&(local, name.to_owned()))?,
            (None, None) => return None,
        };
        let hours = self.settings.watch_hours.clamp(0, 24 * 365);
        let age = o.at.since(watch.since);
        if age > Span::from_hours(hours) || age < Span::ZERO {
            return None;
        }
        let port = if watch.port == remote.port() {
            "on the port that it told"
        } else {
            "on another port than it told"
        };
        let told = format!(
            "{{host}} began to speak to {{remote}}, {port}, which a PlugX dead drop read from {} \
             at {} named as the controller.",
            watch.from, watch.since,
        );
        let evidence = vec![Evidence::new(
            "address",
            [
                ("dead_drop", watch.from.to_string().into()),
                ("port_told", watch.port.into()),
                ("read_at", watch.since.to_string().into()),
                ("value", remote.to_string().into()),
            ],
        )];
        Some(self.warrant.pattern(o, true, Pattern { told, evidence }))
    }
}

impl DeadDropSettings {
    /// The first text of the form, markers included, and what it tells.
    fn find<'a>(&self, body: &'a [u8]) -> Option<(&'a [u8], Controller)> {
        let (begin, end) = (self.begin.as_bytes(), self.end.as_bytes());
        let mut rest = body;
        while let Some(at) = memmem::find(rest, begin).filter(|_| !begin.is_empty()) {
            rest = rest.get(at..)?;
            if let Some(inner) = rest.strip_prefix(begin) {
                // The end marker's letters may be some that also stand for bytes.
                let run = inner.iter().take(*LETTERS.end() + end.len());
                let run = run.take_while(|byte| byte.is_ascii_uppercase()).count();
                let run = inner.get(..run)?;
                let found = run.windows(end.len()).position(|window| window == end);
                if let Some(len) = found.filter(|len| LETTERS.contains(len))
                    && let Some(controller) = inner.get(..len).and_then(Controller::read)
                {
                    return Some((rest.get(..begin.len() + len + end.len())?, controller));
                }
            }
            rest = rest.get(1..)?;
        }
        None
    }
}

impl Controller {
    fn read(text: &[u8]) -> Option<Self> {
        let bytes = letters::bytes(text)?;
        let ([p0, p1, q0, q1], host) = bytes.split_first_chunk::<4>()?;
        let is_host =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
        // Padding behind the host is zero.
        let host = host.split(|byte| *byte == 0).next().unwrap_or_default();
        if host.len() < 3 || !host.iter().all(is_host) {
            return None;
        }
        Some(Self {
            protocol: u16::from_le_bytes([*p0, *p1]),
            port: u16::from_le_bytes([*q0, *q1]),
            host: String::from_utf8(host.to_vec()).ok()?,
        })
    }
}

/// What a protocol number of the configuration means in the newer builds (plugx.md 1.4).
const fn protocol_name(protocol: u16) -> &'static str {
    match protocol {
        3 => "TCP",
        4 => "HTTP",
        5 => "DNS",
        6 => "UDP",
        7 => "ICMP",
        8 => "raw IP",
        _ => "a set of an older build",
    }
}

/// Whether more of a body may come that can be read as text.
fn may_be_page(head: &ResponseHead<'_>) -> bool {
    let is_text = head.field("content-type").is_none_or(|kind| {
        let kind = kind.to_ascii_lowercase();
        kind.starts_with(b"text/") || kind.starts_with(b"application/")
    });
    let length = head.field("content-length").and_then(|text| std::str::from_utf8(text).ok());
    let more = match length.map(str::parse::<usize>) {
        Some(Ok(length)) => head.body.len() < length,
        Some(Err(_)) => false,
        None => true,
    };
    head.status == 200 && is_text && more && head.field("content-encoding").is_none()
}

#[cfg(test)]
mod tests;
