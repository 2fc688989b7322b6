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
    /// Where its last burst stands in the series of its key.
    burst: Option<usize>,
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
    tracker.live(0, usize::MAX, &mut |flow: &FlowFacts<'_>| reading.end(flow));
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
                let (up, down) = (o.flow.bytes_out - open.out, o.flow.bytes_in - open.back);
                (open.out, open.back) = (o.flow.bytes_out, o.flow.bytes_in);
                let series = self.taken.series.entry(key).or_default();
                let before = open.burst.replace(series.bursts.len());
                // The packet that begins a burst is in the flow's count already, and how long it is is not told:
                // it goes to the burst before but for a byte, as without payload there would be no contact.
                let burst = match before.and_then(|at| series.bursts.get_mut(at)) {
                    Some(before) => {
                        before.up += up.saturating_sub(1) as f64;
                        before.down += down as f64;
                        Burst { at, up: 1.0, down: 0.0 }
                    }
                    None => Burst { at, up: up as f64, down: down as f64 },
                };
                series.bursts.push(burst);
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
        if let Some(burst) = open.burst.and_then(|at| series.bursts.get_mut(at)) {
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

#[cfg(test)]
mod tests {
    use super::super::series::Series;
    use super::*;

    const INSIDE: ([u8; 4], u16) = ([192, 0, 2, 1], 40_000);
    const FAR: ([u8; 4], u16) = ([203, 0, 113, 9], 5000);

    /// A record of a capture: a datagram with so many bytes of payload.
    fn record(second: u32, from: ([u8; 4], u16), to: ([u8; 4], u16), payload: u16) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
        frame.extend((28 + payload).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
        frame.extend([from.0, to.0].concat());
        for word in [from.1, to.1, 8 + payload, 0] {
            frame.extend(word.to_be_bytes());
        }
        frame.resize(frame.len() + usize::from(payload), 7);
        let length = frame.len() as u32;
        let head = [second, 0, length, length].map(u32::to_le_bytes).concat();
        [head, frame].concat()
    }

    fn series_of(records: &[Vec<u8>]) -> Series {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made.pcap");
        let head: [u32; 6] = [0xA1B2_C3D4, 0x0004_0002, 0, 0, 65_535, 1];
        let mut bytes = head.map(u32::to_le_bytes).concat();
        bytes.extend(records.concat());
        std::fs::write(&path, bytes).unwrap();
        let mut taken = read(&path).unwrap();
        assert_eq!(taken.series.len(), 1);
        taken.series.pop_first().unwrap().1
    }

    #[test]
    fn a_request_in_a_flow_of_its_own_is_a_contact_with_its_bytes() {
        let request = |n: u32| record(1000 + 5 * n, (INSIDE.0, INSIDE.1 + n as u16), FAR, 10);
        let series = series_of(&(0..9).map(request).collect::<Vec<_>>());
        let bursts: Vec<(f64, f64)> = series.bursts.iter().map(|b| (b.at, b.up)).collect();
        let expected: Vec<(f64, f64)> = (0..9).map(|n| (f64::from(1000 + 5 * n), 10.0)).collect();
        assert_eq!(bursts, expected);
    }

    #[test]
    fn requests_in_one_flow_are_contacts_and_no_byte_is_lost() {
        let records: Vec<Vec<u8>> = (0..9)
            .flat_map(|n| {
                let at = 1000 + 5 * n;
                [record(at, INSIDE, FAR, 10), record(at, FAR, INSIDE, 30)]
            })
            .collect();
        let series = series_of(&records);
        assert_eq!(series.bursts.len(), 9);
        assert!(series.bursts.iter().all(|burst| burst.up > 0.0), "{:?}", series.bursts);
        let sums = series.bursts.iter().fold((0.0, 0.0), |sum, b| (sum.0 + b.up, sum.1 + b.down));
        assert_eq!(sums, (90.0, 270.0));
    }
}
