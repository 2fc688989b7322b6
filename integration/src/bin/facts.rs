//! The application facts that the engine reads from a capture, one JSON object a line.
//!
//! `facts CAPTURE`: `{"frame":7,"fact":"ja3","value":"…","flow":"tcp 10.0.0.2:50000 192.0.2.1:443"}`, where a fact is
//! one of `alpn`, `certificate`, `dns`, `host`, `ja3`, `ja3s`, `ja4`, `ja4_text`, `quic_sni`, `sni`, `version`; then
//! `{"unparsed":"…","frame":N}` for each frame that is not read, with the reason, and `{"frames":N}` at the end.
//! Exit code 2 if the capture cannot be read.
#![allow(clippy::print_stderr, reason = "a measurement for people at a terminal")]

use sekisho_engine::Limits;
use sekisho_engine::flow::{
    Appetite, NameSource, Observation, ObservationKind, Perimeter, Tracker,
};
use sekisho_engine::wire::{Frame, LinkType, parse};
use sekisho_schema::FlowKey;
use serde_json::json;
use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(capture), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: facts CAPTURE");
        return ExitCode::from(2);
    };
    match run(Path::new(&capture), &mut BufWriter::new(std::io::stdout().lock())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: cannot read {capture}: {failure}");
            ExitCode::from(2)
        }
    }
}

fn run(path: &Path, out: &mut impl Write) -> Result<(), String> {
    let mut capture = pcap::Capture::from_file_with_precision(path, pcap::Precision::Nano)
        .map_err(|error| error.to_string())?;
    let link = LinkType::from_dlt(capture.get_datalink().0);
    let mut tracker = Tracker::new(&Limits::default(), 1);
    // With nothing inside, every flow is looked at.
    tracker.set_perimeter(Perimeter::new(&[], &[]));
    let mut number = 0;
    let mut lines = String::new();
    loop {
        let packet = match capture.next_packet() {
            Ok(packet) => packet,
            Err(pcap::Error::NoMorePackets) => break,
            Err(error) => {
                writeln!(out, "{}", json!({"frames": number})).map_err(|e| e.to_string())?;
                return Err(error.to_string());
            }
        };
        number += 1;
        let time = packet.header.ts;
        let frame = Frame {
            // With nanosecond precision the field named for microseconds holds nanoseconds.
            at_ns: time.tv_sec * 1_000_000_000 + time.tv_usec,
            link,
            wire_len: packet.header.len,
            bytes: packet.data,
        };
        lines.clear();
        if let Err(reason) = parse(&frame) {
            let _ =
                writeln!(lines, "{}", json!({"unparsed": format!("{reason:?}"), "frame": number}));
        }
        tracker.observe(number, &frame, &mut |observation| {
            tell(observation, &mut lines);
            Appetite::Enough
        });
        out.write_all(lines.as_bytes()).map_err(|error| error.to_string())?;
    }
    writeln!(out, "{}", json!({"frames": number})).map_err(|error| error.to_string())?;
    out.flush().map_err(|error| error.to_string())
}

fn tell(observation: &Observation<'_>, lines: &mut String) {
    let flow = flow_text(&observation.flow.key);
    let mut line = |fact: &str, value: &str| {
        let line = json!({"frame": observation.frame, "fact": fact, "value": value, "flow": flow});
        let _ = writeln!(lines, "{line}");
    };
    match observation.kind {
        ObservationKind::Hello(hello) => {
            let mut text = String::new();
            let _ = hello.ja4_text(&mut text);
            line("ja3", &hex(&hello.ja3()));
            line("ja4", hello.ja4().as_str());
            line("ja4_text", &text);
            line("version", &format!("{:04x}", hello.supported_version()));
            let protocols: Vec<_> = hello.each_alpn().map(String::from_utf8_lossy).collect();
            line("alpn", &protocols.join(","));
        }
        ObservationKind::ServerHello(hello) => line("ja3s", &hex(&hello.ja3s())),
        ObservationKind::Certificate(certificate) => {
            let subject = certificate.subject().unwrap_or_default();
            line("certificate", &format!("{} {subject}", hex(&certificate.sha1())));
        }
        ObservationKind::Name { name, source: NameSource::Sni } => line("sni", name),
        ObservationKind::Name { name, source: NameSource::Quic } => line("quic_sni", name),
        ObservationKind::Name { name, .. } => line("host", name),
        ObservationKind::Message { message, .. } => {
            if let Some(question) = message.question() {
                line("dns", question.name.as_str());
            }
        }
        _ => {}
    }
}

/// Protocol and both ends, in ascending order.
fn flow_text(key: &FlowKey) -> String {
    let mut ends = [key.local, key.remote].map(|end| format!("{} {}", end.ip(), end.port()));
    ends.sort();
    format!("{} {}", key.transport, ends.join(" "))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
