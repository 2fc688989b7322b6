//! Captures, through the product's own flow stage: what it calls a burst, a name and a question.

use super::series::{Key, Question, Taken};
use crate::evaluate::fleet::{Burst, Connection, Oddity};
use sekisho_engine::Limits;
use sekisho_engine::flow::{
    Appetite, FlowFacts, NameSource, Observation, ObservationKind, Perimeter, Toward, Tracker,
};
use sekisho_engine::learn::oddity::is_fully_encrypted;
use sekisho_engine::wire::{Frame, LinkType};
use sekisho_schema::{FlowKey, Timestamp, Transport};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

/// What is known of a flow while it lasts.
#[derive(Default)]
struct Open {
    first: f64,
    /// Bytes that were given to a burst.
    out: u64,
    back: u64,
    has_burst: bool,
}

/// The reading of one capture.
#[derive(Default)]
struct Reading {
    taken: Taken,
    open: BTreeMap<(FlowKey, i64), Open>,
}

/// Reads every flow of a capture, whoever began it and wherever it ran.
pub(super) fn read(path: &Path) -> Result<Taken, String> {
    let mut capture = pcap::Capture::from_file_with_precision(path, pcap::Precision::Nano)
        .map_err(|error| error.to_string())?;
    let link = LinkType::from_dlt(capture.get_datalink().0);
    let mut tracker = Tracker::new(&Limits::default(), 1);
    // Nothing is inside: a flow's local end is then the end that spoke first.
    tracker.set_perimeter(Perimeter::new(&[], &[]));
    let mut reading = Reading::default();
    let mut number = 0;
    while let Ok(packet) = capture.next_packet() {
        number += 1;
        let time = packet.header.ts;
        // With nanosecond precision the field named for microseconds holds nanoseconds.
        let at_ns = time.tv_sec * 1_000_000_000 + time.tv_usec;
        let frame = Frame { at_ns, link, wire_len: packet.header.len, bytes: packet.data };
        tracker.observe(number, &frame, &mut |o: &Observation<'_>| reading.observe(o));
    }
    if number == 0 {
        return Err("no frame".to_owned());
    }
    // Whatever is still open ends with the capture.
    tracker.live(&mut |flow: &FlowFacts<'_>| reading.end(flow));
    Ok(reading.taken.sorted())
}

fn seconds(at: Timestamp) -> f64 {
    at.nanos() as f64 / 1e9
}

fn key_of(flow: &FlowKey) -> Key {
    let transport = match flow.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
        Transport::Icmp | Transport::Icmpv6 => "icmp",
        Transport::Other(_) => "other",
    };
    Key {
        client: flow.local.ip().to_canonical().to_string(),
        server: flow.remote.ip().to_canonical().to_string(),
        port: flow.remote.port(),
        transport,
    }
}

impl Reading {
    fn observe(&mut self, o: &Observation<'_>) -> Appetite {
        let at = seconds(o.at);
        self.taken.saw(at);
        let key = key_of(&o.flow.key);
        let id = (o.flow.key, o.flow.first_at.nanos());
        match o.kind {
            ObservationKind::Started => {
                self.open.insert(id, Open { first: at, ..Open::default() });
            }
            ObservationKind::Burst => {
                let fresh = Open { first: at, ..Open::default() };
                let open = self.open.entry(id).or_insert(fresh);
                // Bytes since the last burst belong to that one.
                let (up, down) = (o.flow.bytes_out - open.out, o.flow.bytes_in - open.back);
                let had_burst = std::mem::replace(&mut open.has_burst, true);
                (open.out, open.back) = (o.flow.bytes_out, o.flow.bytes_in);
                let series = self.taken.series.entry(key).or_default();
                if had_burst && let Some(before) = series.bursts.last_mut() {
                    before.up += up as f64;
                    before.down += down as f64;
                }
                series.bursts.push(Burst { at, up: 0.0, down: 0.0 });
            }
            ObservationKind::Ended => self.end(&o.flow),
            ObservationKind::Head { toward: Toward::Remote, bytes }
                if o.flow.key.transport == Transport::Tcp && o.flow.start_seen =>
            {
                self.odd_head(key, bytes);
            }
            ObservationKind::Name { name, source } => {
                let series = self.taken.series.entry(key).or_default();
                if source == NameSource::Host && name.parse::<IpAddr>().is_ok() {
                    series.oddities = series.oddities.with(Oddity::HttpAddress);
                }
                series.name.get_or_insert_with(|| name.to_owned());
            }
            ObservationKind::Query { name, .. } => self.taken.questions.push(Question {
                at,
                client: key.client,
                resolver: key.server,
                name: name.to_owned(),
            }),
            _ => {}
        }
        if let (Some(bound), Some(series)) =
            (o.flow.bound_name, self.taken.series.get_mut(&key_of(&o.flow.key)))
        {
            series.name.get_or_insert_with(|| bound.to_owned());
        }
        Appetite::Enough
    }

    fn odd_head(&mut self, key: Key, bytes: &[u8]) {
        let is_tls = bytes.first() == Some(&0x16);
        let is_443 = key.port == 443;
        let series = self.taken.series.entry(key).or_default();
        if is_443 && !is_tls {
            series.oddities = series.oddities.with(Oddity::NotTls);
        }
        if is_fully_encrypted(bytes) {
            series.oddities = series.oddities.with(Oddity::FullyEncrypted);
        }
    }

    fn end(&mut self, flow: &FlowFacts<'_>) {
        let Some(open) = self.open.remove(&(flow.key, flow.first_at.nanos())) else { return };
        let series = self.taken.series.entry(key_of(&flow.key)).or_default();
        if open.has_burst
            && let Some(burst) = series.bursts.last_mut()
        {
            burst.up += (flow.bytes_out - open.out) as f64;
            burst.down += (flow.bytes_in - open.back) as f64;
        }
        series.connections.push(Connection {
            at: open.first,
            up: flow.bytes_out as f64,
            down: flow.bytes_in as f64,
            seconds: flow.last_at.since(flow.first_at).as_secs_f64(),
        });
    }
}
