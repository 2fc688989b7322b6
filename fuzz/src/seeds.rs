//! Inputs to begin with, forged here or from the cases of the rules; the same on every run.

mod forge;
mod texts;

use crate::input::write_pieces;
use crate::{documents, packets, quic, tape};
use sekisho_engine::cases::{CaseFile, ForgedFrame};
use sekisho_engine::wire::{Frame, LinkType, Proto, parse};
use sekisho_schema::intel::{Format, Header, MANIFEST_SCHEMA, Manifest, Section};
use sekisho_schema::{Policy, Sealed, Timestamp};
use std::collections::BTreeMap;

/// Bytes of a tape of frames that is still a seed.
const LONGEST_TAPE: usize = 5000;

/// What was kept of episodes: nothing, all, a forged count, more than there is, times and numbers far away.
const EPISODES: [(&str, &[u8]); 5] = [
    ("nothing", &[0]),
    ("whole", &[1]),
    ("count", &[1, 16, 0, 0, 0xFF, 17, 0, 0, 0xFF]),
    ("longer", &[1, 0xFF, 0xFF, 0xFF, 7]),
    (
        "far",
        &[1, 60, 0, 0, 0x7F, 90, 0, 0, 0xFF, 120, 0, 0, 0xFF, 200, 0, 0, 0x80, 240, 0, 0, 0xFF],
    ),
];

/// An input to begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The target that it is for.
    pub target: &'static str,
    /// Its file name.
    pub name: String,
    /// The input.
    pub bytes: Vec<u8>,
}

#[derive(Default)]
struct Seeds(Vec<Seed>);

impl Seeds {
    fn add(&mut self, target: &'static str, name: &str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        if !self.0.iter().any(|seed| seed.target == target && seed.bytes == bytes) {
            self.0.push(Seed { target, name: format!("seed-{name}"), bytes });
        }
    }
}

/// Every seed.
#[must_use]
pub fn seeds() -> Vec<Seed> {
    let mut seeds = Seeds::default();
    of_cases(&mut seeds);
    of_heads(&mut seeds);
    of_packets(&mut seeds);
    of_intel(&mut seeds);
    of_documents(&mut seeds);
    seeds.0
}

/// One case of each file as a tape, and the payloads in it for whoever reads such.
fn of_cases(seeds: &mut Seeds) {
    for text in texts::CASES {
        let Ok(file) = CaseFile::parse(text) else { continue };
        let (mut tapes, mut payloads) = (0, 0);
        for (nth, case) in file.cases.iter().enumerate() {
            let Ok(frames) = case.frames() else { continue };
            let name = format!("{}-{nth}", file.detector);
            let mut bytes = vec![if tapes == 0 { 3 } else { 0 }];
            for frame in &frames {
                tape::write(&mut bytes, 0, &frame.bytes);
            }
            if bytes.len() <= LONGEST_TAPE && tapes < 2 {
                tapes += 1;
                seeds.add("engine", &name, bytes);
            }
            for frame in &frames {
                if payloads < 3 && payload(seeds, &file.detector, &name, frame) {
                    payloads += 1;
                    break;
                }
            }
        }
    }
}

/// Offers what a frame carries to the reader of such; whether there is one.
fn payload(seeds: &mut Seeds, detector: &str, name: &str, frame: &ForgedFrame) -> bool {
    let bytes = frame.bytes.as_slice();
    let view =
        parse(&Frame { at_ns: 0, link: LinkType::Ethernet, wire_len: bytes.len() as u32, bytes });
    let Ok(view) = view else { return false };
    if view.payload.is_empty() || view.payload.len() > 3000 {
        return false;
    }
    let is_port = |port| view.src_port == port || view.dst_port == port;
    let target = match view.payload {
        _ if view.proto == Proto::Udp && is_port(53) => "dns",
        [0x16, 3, ..] => "tls_hello",
        [b'S', b'S', b'H', b'-', ..] => "ssh",
        [b'G', b'E', b'T', b' ', ..]
        | [b'P', b'O', b'S', b'T', ..]
        | [b'H', b'T', b'T', b'P', ..] => "http_head",
        _ if detector.starts_with("plugx") => {
            let mut bytes = (view.payload.len() as u16).to_le_bytes().to_vec();
            bytes.extend_from_slice(view.payload);
            seeds.add("plugx_decode", name, bytes);
            return true;
        }
        _ => return false,
    };
    seeds.add(target, name, view.payload);
    let mut framed = vec![0, 0, 0];
    framed.extend_from_slice(bytes);
    seeds.add("wire", name, framed);
    true
}

fn of_heads(seeds: &mut Seeds) {
    let hello = forge::client_hello("seed.example");
    seeds.add("tls_hello", "client", forge::record(&hello));
    seeds.add(
        "tls_hello",
        "client-over-records",
        hello.chunks(40).flat_map(forge::record).collect::<Vec<_>>(),
    );
    seeds.add("tls_hello", "handshake", hello.as_slice());
    let flight = [forge::server_hello(), forge::certificate(), forge::message(14, &[])].concat();
    seeds.add("tls_hello", "server", forge::record(&flight));
    seeds.add(
        "tls_hello",
        "server-over-records",
        flight.chunks(64).flat_map(forge::record).collect::<Vec<_>>(),
    );
    seeds.add(
        "http_head",
        "connect",
        &b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\nx"[..],
    );
    seeds.add("http_head", "absolute", &b"GET http://user@b.example:80/p?q HTTP/1.0\r\nA:\t1\r\nContent-Length: 5\r\n\r\nhello"[..]);
    seeds.add("http_head", "response", &b"HTTP/1.1 200 OK\r\nServer: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 99999999999999999999\r\n\r\n"[..]);
    let mut ssh = b"SSH-2.0-seed_1.0 comment\r\n".to_vec();
    ssh.extend_from_slice(&forge::ssh_offer());
    seeds.add("ssh", "offer", ssh);
    seeds.add("ssh", "bare-offer", forge::ssh_offer());
    seeds.add("socks", "4", &[4, 1, 0, 80, 203, 0, 113, 9, b'u', 0, b'x'][..]);
    seeds.add("socks", "4a", [&[4, 1, 0, 80, 0, 0, 0, 1, 0][..], b"evil.example\0GET"].concat());
    seeds.add(
        "socks",
        "5",
        [&[5, 2, 0, 2, 1, 1, b'u', 1, b'p', 5, 1, 0, 3, 12][..], b"evil.example\0\x50"].concat(),
    );
    seeds.add("socks", "5-v6", [&[5, 1, 0, 5, 1, 0, 4][..], &[0x20; 16], &[1, 187]].concat());
    seeds.add("socks", "5-reply", &[5, 2, 1, 0, 5, 0, 0, 1, 10, 0, 0, 1, 4, 56, b'H'][..]);
    seeds.add("socks", "4-reply", &[0, 0x5A, 0, 80, 1, 2, 3, 4, b'H'][..]);
    of_quic(seeds, &hello);
    let bomb = [0x03, 0xB0, 0x02, b'a', 0xFC, 0x0F].repeat(8);
    seeds.add("lznt1", "bomb", [&[0xFF, 0xFF][..], &bomb].concat());
    seeds.add("lznt1", "stored", &[0xFF, 0x0F, 0x02, 0x30, 1, 2, 3, 0x00, 0x30, 4, 0, 0, 99][..]);
    seeds.add(
        "lznt1",
        "words",
        [&[0xFF, 0x0F, 0x0B, 0xB0, 0x08][..], b"abc\x02\x20defgh"].concat(),
    );
    let mut loops = vec![0, 7, 0x81, 0x80, 0, 1, 0, 3, 0, 0, 0, 0, 1, b'a', 7];
    loops.extend_from_slice(b"example\0\0\x01\0\x01");
    loops.extend_from_slice(b"\xC0\x0C\0\x05\0\x01\0\0\0\x3C\0\x04\x01b\xC0\x0E");
    loops.extend_from_slice(b"\xC0\x25\0\x01\0\x01\0\0\0\x3C\0\x04\xCB\0\x71\x09");
    loops.extend_from_slice(b"\xC0\x39\0\x10\0\x01\0\0\0\x3C\0\x04\x03txt");
    seeds.add("dns", "aliases", loops.as_slice());
    seeds.add("dns", "tcp", [&(loops.len() as u16).to_be_bytes(), loops.as_slice()].concat());
}

fn of_quic(seeds: &mut Seeds, hello: &[u8]) {
    for (name, version, how) in [("v1", quic::VERSION_1, 2), ("v2", quic::VERSION_2, 6)] {
        let whole = quic::crypto(0, hello);
        let datagram = quic::initial(version, [7; 8], 0, &whole);
        seeds.add("quic_initial", name, [&[0][..], &datagram].concat());
        let parts: Vec<Vec<u8>> = hello
            .chunks(30)
            .enumerate()
            .rev()
            .map(|(nth, part)| {
                [&[1, 0, 2, 0, 0, 0, 0][..], &quic::crypto(nth as u16 * 30, part)].concat()
            })
            .collect();
        let mut frames = vec![how];
        write_pieces(
            &mut frames,
            parts.chunks(2).map(|pair| pair.concat()).collect::<Vec<_>>().iter().map(Vec::as_slice),
        );
        seeds.add("quic_initial", &format!("{name}-frames"), frames);
    }
    let mut kept = vec![3, 9, 0, 8, 7, 7, 7, 7, 7, 7, 7, 7];
    kept.extend_from_slice(&[0, 0, 0, hello.len() as u8]);
    kept.extend_from_slice(hello);
    seeds.add("quic_initial", "kept", kept);
}

fn of_packets(seeds: &mut Seeds) {
    let question = forge::udp(53, b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01a\x07example\0\0\x01\0\x01");
    let whole = forge::ipv4(17, 0, &question);
    for (name, protocol, inner) in [
        ("ip-in-ip", 4, whole.clone()),
        ("gre", 47, [&[0x30, 0, 8, 0, 0, 0, 0, 1, 0, 0, 0, 2][..], &whole].concat()),
        ("6in4", 41, forge::ipv6(17, &question)),
        ("mpls", 137, [&[0, 0, 0x10, 64, 0, 0, 0x21, 64][..], &whole].concat()),
        (
            "vxlan",
            17,
            forge::udp(4789, &[&[8, 0, 0, 0, 0, 0, 1, 0][..], &forge::ethernet(&whole)].concat()),
        ),
        (
            "geneve",
            17,
            forge::udp(
                6081,
                &[&[1, 0, 0x65, 0x58, 0, 0, 1, 0, 9, 9, 9, 9][..], &forge::ethernet(&whole)]
                    .concat(),
            ),
        ),
    ] {
        let packet = forge::ipv4(protocol, 0, &inner);
        seeds.add("wire", name, [&[1, 0, 0][..], &packet].concat());
        let mut bytes = vec![1];
        tape::write(&mut bytes, 1, &packet);
        seeds.add("engine", name, bytes.as_slice());
        let halves = forge::fragments(protocol, &inner);
        let mut bytes = Vec::new();
        for piece in halves.iter().rev() {
            tape::write(&mut bytes, 1, piece);
        }
        seeds.add("fragments", name, bytes);
    }
    for (name, link, head) in [
        ("vlan", 0, &b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x81\0\0\x05\x08\0"[..]),
        ("pppoe", 0, &b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x88\x64\x11\0\0\x01\0\x30\0\x21"[..]),
        ("sll", 2, &b"\0\0\0\x01\0\x06\x02\0\0\0\0\x01\0\0\x08\0"[..]),
        ("sll2", 3, &b"\x08\0\0\0\0\0\0\x02\0\x01\0\x06\x02\0\0\0\0\x01\0\0"[..]),
        ("null", 4, &b"\x02\0\0\0"[..]),
    ] {
        seeds.add("wire", name, [&[link, 0, 0][..], head, &whole].concat());
    }
    let chained = [&[6, 0, 1, 4, 0, 0, 0, 0][..], &forge::tcp(443, b"\x16\x03\x01")].concat();
    seeds.add("wire", "v6-extension", [&[1, 10, 0][..], &forge::ipv6(0, &chained)].concat());
    let mut overlap = Vec::new();
    let long = forge::udp(53, &[b'a'; 60]);
    for piece in forge::fragments(17, &long)
        .iter()
        .chain(&forge::fragments(17, &forge::udp(53, &[b'b'; 44])))
    {
        tape::write(&mut overlap, 1, piece);
    }
    seeds.add("fragments", "overlap", overlap);
    of_flows(seeds);
}

/// One operation of the flow target: connection and way, flags, place, payload.
fn operation(out: &mut Vec<u8>, how: u8, flags: u8, place: u16, payload: &[u8]) {
    out.extend_from_slice(&[how, flags]);
    out.extend_from_slice(&place.to_le_bytes());
    out.push(payload.len() as u8);
    out.extend_from_slice(payload);
}

fn of_flows(seeds: &mut Seeds) {
    const SYN: u8 = 2;
    const ACK: u8 = 0x10;
    let hello = forge::record(&forge::client_hello("flow.example"));
    let request = b"POST /a HTTP/1.1\r\nHost: b.example\r\nContent-Length: 5\r\n\r\nhello".to_vec();
    let question = b"\0\x1B\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01a\x07example\0\0\x01\0\x01".to_vec();
    let banner = b"SSH-2.0-flow\r\n".to_vec();
    for (number, (name, payload)) in
        [("tls", hello), ("http", request), ("dns", question), ("ssh", banner)]
            .into_iter()
            .enumerate()
    {
        let number = number as u8;
        for (order, reversed) in [("in-order", false), ("reversed", true)] {
            let mut bytes = vec![u8::from(reversed)];
            operation(&mut bytes, number, SYN, 0xFFFF, &[]);
            operation(&mut bytes, number | 4, SYN | ACK, 0xFFFF, &[]);
            let mut parts: Vec<_> = payload.chunks(25).enumerate().collect();
            if reversed {
                parts.reverse();
            }
            for (nth, part) in parts {
                operation(&mut bytes, number, ACK, nth as u16 * 25, part);
            }
            operation(&mut bytes, number | 4, ACK, 0, b"HTTP/1.1 200 OK\r\n\r\n");
            operation(&mut bytes, number | 0x40, ACK, 600, b"far");
            operation(&mut bytes, number, ACK | 1, 4000, &[]);
            operation(&mut bytes, number | 4, ACK | 4, 0, &[]);
            seeds.add("flow", &format!("{name}-{order}"), bytes);
        }
    }
    let mut others = vec![1];
    operation(
        &mut others,
        0x22,
        0,
        0,
        b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01a\x07example\0\0\x01\0\x01",
    );
    operation(&mut others, 0x30, 1, 0, b"echo");
    operation(&mut others, 0x34, 1, 0, b"echo");
    seeds.add("flow", "datagrams", others);
}

fn of_intel(seeds: &mut Seeds) {
    let known =
        |format: Format| Format::ALL.iter().position(|one| *one == format).unwrap_or(7) as u8;
    for (format, text) in texts::INTEL {
        for (name, how) in [("told", known(format) | 0x28), ("found", 7)] {
            let mut bytes = vec![how, 40, 0];
            bytes.extend_from_slice(text.as_bytes());
            seeds.add("indicator_import", &format!("{format}-{name}"), bytes);
        }
    }
    let sections = packets::shipped_rules().indicators.sections().unwrap_or_default();
    let mut bytes = vec![1];
    write_pieces(&mut bytes, sections.iter().map(Vec::as_slice));
    seeds.add("indicators_compiled", "sections", bytes);
    let manifest = Manifest {
        schema: MANIFEST_SCHEMA.to_owned(),
        name: "seed".to_owned(),
        version: 3,
        built_at: Timestamp::EPOCH,
        indicators: BTreeMap::new(),
        sources: BTreeMap::from([("seed".to_owned(), 2)]),
        sections: sections
            .iter()
            .map(|bytes| Section { bytes: bytes.len() as u64, sha256: "00".repeat(32) })
            .collect(),
    };
    let sealed = Header::seal(&manifest, Timestamp::MAX).signed_by(&documents::KEY);
    seeds.add("indicators_compiled", "head", [&[0][..], &Header::write(&sealed)].concat());
}

fn of_documents(seeds: &mut Seeds) {
    for (name, text) in sekisho_engine::packs::shipped_packs() {
        seeds.add("rule_pack", name.trim_end_matches(".toml"), text.as_bytes());
    }
    seeds.add("rule_pack", "indicators", texts::PACK.as_bytes());
    seeds.add("policy", "enforce", texts::ENFORCE.as_bytes());
    seeds.add("policy", "learn", texts::LEARN.as_bytes());
    let far = Timestamp::MAX;
    // The envelope must say the version that the policy says.
    let version = Policy::parse(texts::ENFORCE).map_or(0, |policy| policy.version);
    let policy = Sealed::wrap("policy", version, far, texts::ENFORCE.as_bytes());
    seeds.add("sealed", "unsigned", policy.to_text().into_bytes());
    seeds.add("sealed", "signed", policy.signed_by(&documents::KEY).to_text().into_bytes());
    for (name, bytes) in EPISODES {
        seeds.add("episodes", name, bytes);
    }
    let rules = Sealed::wrap("rules", 1, Timestamp::EPOCH, b"x").signed_by(&documents::KEY);
    seeds.add("sealed", "rules", rules.to_text().into_bytes());
    for text in texts::CASES.iter().filter(|text| text.len() < 4000) {
        if let Ok(file) = CaseFile::parse(text) {
            seeds.add("cases", &file.detector, text.as_bytes());
        }
    }
    seeds.add("cases", "every-word", texts::CASE.as_bytes());
}
