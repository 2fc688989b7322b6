//! Random payloads with forged size fields through the whole engine: no detector that may cut may find anything.
//!
//! `random-payloads [--count N] [--short] [--from SEED]`: 5,000,000 payloads (200,000 when short), the same ones each
//! time, each in a flow of its own: first TCP payload of either side, of flows begun inside and outside; UDP datagrams;
//! HTTP bodies of requests and responses; DNS names; ICMP echoes; packets of other IP protocols. Half of them state a
//! size that fits, at every offset and in every width, order and allowance that a decoder may want, under ciphers where a
//! protocol has some. Ends with 1 when a detector that may cut by itself found something of grade malicious.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement fails loudly and prints for people"
)]

use sekisho_engine::packs::shipped_packs;
use sekisho_engine::rules::RulesBuilder;
use sekisho_engine::wire::{Frame, LinkType};
use sekisho_engine::{Engine, EngineConfig, Input, Limits, Output};
use sekisho_integration::actors::cipher::SETTINGS;
use sekisho_schema::finding::{Action, Grade};
use sekisho_schema::pack::RulePack;
use sekisho_schema::sealed::Local;
use sekisho_schema::{Body, Policy, Timestamp, Verified};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

const COUNT: u64 = 5_000_000;
const SHORT: u64 = 200_000;
/// What is said of a payload that states no size on purpose.
const UNFORGED: &str = "no forged size";
const START: i64 = 1_780_000_000_000_000_000;
/// One policy line: whatever may cut by itself is then withheld instead of merely recorded.
const POLICY: &str = "schema = \"sekisho.policy/1\"\nversion = 1\nmode = \"dry-run\"\n\
[[decide]]\ndetector = \"*\"\ngrade = \"malicious\"\nlevel = 5\nlease = \"1h\"\n\
[duty]\ngroup = \"random\"\nowner = \"nobody\"\ndeputy = \"nobody\"\n";

/// xorshift64*, Vigna 2016.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(length);
        bytes
    }

    fn text(&mut self, letters: &[u8], length: usize) -> Vec<u8> {
        (0..length).map(|_| *self.pick(letters)).collect()
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// States a size that fits, in one of the ways that protocols do.
fn forge(random: &mut Random, bytes: &mut [u8]) -> &'static str {
    let length = bytes.len() as u32;
    match random.below(7) {
        0 | 1 => {
            let at = *random.pick(&[0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 14, 16, 18, 20, 22, 24, 28]);
            let less = *random.pick(&[0, 1, 2, 4, 5, 6, 8, 10, 12, 13, 15, 16, 20, 24, 28, 32]);
            let size = length.saturating_sub(less);
            match random.below(4) {
                0 => put(bytes, at, &size.to_le_bytes()),
                1 => put(bytes, at, &size.to_be_bytes()),
                2 => put(bytes, at, &(size as u16).to_le_bytes()),
                _ => put(bytes, at, &(size as u16).to_be_bytes()),
            }
            "a size in clear"
        }
        2 => {
            // PlugX: the size on the wire under a cipher, from the key itself or after it.
            let (_, cipher) = *random.pick(&SETTINGS);
            let key = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let stream = cipher.keystream(key, 16);
            let skip = random.below(2) * 4;
            let size = (length.saturating_sub(16) as u16).to_le_bytes();
            put(bytes, 8, &[size[0] ^ stream[8 - skip], size[1] ^ stream[9 - skip]]);
            "PlugX's size under a cipher"
        }
        3 => {
            // gh0st: a printable word, its own length behind it.
            let word = 2 + random.below(15);
            let text = random
                .text(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", word);
            put(bytes, 0, &text);
            put(bytes, word, &length.to_le_bytes());
            "gh0st's word and length"
        }
        4 => {
            // meterpreter: everything under a four-byte key, the length big-endian behind 24 bytes.
            let size = length.saturating_sub(24).to_be_bytes();
            let key = [bytes[0], bytes[1], bytes[2], bytes[3]];
            let hidden = [size[0] ^ key[0], size[1] ^ key[1], size[2] ^ key[2], size[3] ^ key[3]];
            put(bytes, 24, &hidden);
            "meterpreter's length under its key"
        }
        5 => {
            // 9002: sizes as XOR of the key at the front.
            let key = [bytes[0], bytes[1], bytes[2], bytes[3]];
            let size = length.saturating_sub(*random.pick(&[0, 4, 8, 24])).to_le_bytes();
            let hidden = [size[0] ^ key[0], size[1] ^ key[1], size[2] ^ key[2], size[3] ^ key[3]];
            put(bytes, *random.pick(&[4, 8, 12, 16, 20]), &hidden);
            "a size under a four-byte key"
        }
        _ => {
            // Havoc and other HTTP agents: the size of what follows, big-endian, at the front.
            put(bytes, 0, &length.saturating_sub(4).to_be_bytes());
            "a big-endian size at the front"
        }
    }
}

/// Frames of one flow, built and fed at once.
struct Wire {
    engine: Engine,
    at: i64,
    frames: u64,
    told: BTreeMap<(String, String), u64>,
    cutting: Vec<String>,
    buffer: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Ends {
    from: [u8; 4],
    to: [u8; 4],
    ports: [u16; 2],
}

impl Ends {
    fn back(self) -> Self {
        let [a, b] = self.ports;
        Self { from: self.to, to: self.from, ports: [b, a] }
    }
}

impl Wire {
    fn new() -> Self {
        let mut rules = RulesBuilder::new();
        for (name, text) in shipped_packs() {
            let pack = RulePack::parse(text).expect(name);
            rules.add_pack(&Verified::locally(pack, Local::BuiltIn)).expect(name);
        }
        let limits = Limits { flows: 1 << 14, ..Limits::default() };
        let host = "random".to_owned();
        let mut engine = Engine::new(EngineConfig { host, limits, hash_seed: 1 });
        let at = Timestamp::from_nanos(START);
        let policy = Policy::parse(POLICY).expect("the policy is well formed");
        let policy = Box::new(Verified::locally(policy, Local::Replay));
        engine.handle(Input::Rules(Box::new(rules.build()), at));
        engine.handle(Input::Policy(policy, at));
        let (told, cutting) = (BTreeMap::new(), Vec::new());
        Self { engine, at: START, frames: 0, told, cutting, buffer: Vec::new() }
    }

    fn send(&mut self, ends: Ends, protocol: u8, body: &[&[u8]], what: &dyn Fn() -> String) {
        let length: usize = body.iter().map(|part| part.len()).sum();
        let bytes = &mut self.buffer;
        bytes.clear();
        bytes.extend_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0]);
        bytes.extend_from_slice(&(20 + length as u16).to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
        bytes.extend_from_slice(&ends.from);
        bytes.extend_from_slice(&ends.to);
        for part in body {
            bytes.extend_from_slice(part);
        }
        self.at += 100_000;
        self.frames += 1;
        let wire_len = bytes.len() as u32;
        self.engine.handle(Input::Frame(Frame {
            at_ns: self.at,
            link: LinkType::Ethernet,
            wire_len,
            bytes,
        }));
        while let Some(output) = self.engine.poll_output() {
            let Output::Record(record) = output else { continue };
            let Body::Finding(finding) = record.body else { continue };
            let grade = format!("{:?}", finding.grade).to_lowercase();
            *self.told.entry((finding.detector.clone(), grade)).or_default() += 1;
            if finding.grade == Grade::Malicious
                && finding.decision.action != Action::Record
                && self.cutting.len() < 20
            {
                self.cutting.push(format!(
                    "{}: {} [{}]",
                    finding.detector,
                    finding.explanation,
                    what()
                ));
            }
        }
    }

    fn tcp(
        &mut self,
        ends: Ends,
        flags: u8,
        seq: u32,
        ack: u32,
        payload: &[u8],
        what: &dyn Fn() -> String,
    ) {
        let [from, to] = ends.ports.map(u16::to_be_bytes);
        let (seq, ack) = (seq.to_be_bytes(), ack.to_be_bytes());
        let rest = [0x50, flags, 0xFF, 0xFF, 0, 0, 0, 0];
        self.send(ends, 6, &[&from, &to, &seq, &ack, &rest, payload], what);
    }

    /// A connection in which `first` is the first payload of the side that opened it, and `second` of the other.
    fn connection(&mut self, ends: Ends, first: &[u8], second: &[u8], what: &dyn Fn() -> String) {
        let (syn, ack, push) = (2, 0x10, 0x18);
        self.tcp(ends, syn, 99, 0, &[], what);
        self.tcp(ends.back(), syn | ack, 499, 100, &[], what);
        if !first.is_empty() {
            self.tcp(ends, push, 100, 500, first, what);
        }
        if !second.is_empty() {
            self.tcp(ends.back(), push, 500, 100 + first.len() as u32, second, what);
        }
        self.tcp(ends, 4, 100 + first.len() as u32, 0, &[], what);
    }

    fn udp(&mut self, ends: Ends, payload: &[u8], what: &dyn Fn() -> String) {
        let [from, to] = ends.ports.map(u16::to_be_bytes);
        let length = (8 + payload.len() as u16).to_be_bytes();
        self.send(ends, 17, &[&from, &to, &length, &[0, 0], payload], what);
    }
}

/// Where a payload travels.
const PLACES: [&str; 10] = [
    "TCP, inside end opens and speaks first",
    "TCP, inside end opens and outside end speaks first",
    "TCP, outside end opens and speaks first",
    "TCP, outside end opens and inside end speaks first",
    "UDP, from inside",
    "UDP, from outside",
    "HTTP request body",
    "HTTP response body",
    "DNS names",
    "ICMP echoes and other protocols",
];

fn payload(random: &mut Random) -> (Vec<u8>, &'static str) {
    let length = match random.below(10) {
        0 => *random.pick(&[4, 8, 12, 16, 20, 24, 28, 32, 36, 48, 64, 128, 256]),
        1 => 300 + random.below(1100),
        _ => 1 + random.below(200),
    };
    let mut bytes = random.bytes(length);
    let forged =
        if length >= 4 && random.below(2) == 0 { forge(random, &mut bytes) } else { UNFORGED };
    (bytes, forged)
}

fn name(random: &mut Random) -> Vec<u8> {
    let zone = *random.pick(&["example.com", "t.example.net", "cdn.example.org", "a.example"]);
    let (letters, lengths): (&[u8], &[usize]) = match random.below(5) {
        0 => (b"0123456789abcdef", &[60, 60, 36]),
        1 => (b"abcdefghijklmnopqrstuvwxyz012345", &[63, 63, 40]),
        2 => (b"ABCDEFGHIJKLMNOP", &[63, 63, 18]),
        3 => (b"0123456789abcdef", &[32]),
        _ => (b"abcdefghijklmnopqrstuvwxyz0123456789-", &[10, 7]),
    };
    let mut wire = Vec::new();
    if random.below(8) == 0 {
        wire.extend_from_slice(b"\x06dnscat");
    }
    for (at, most) in lengths.iter().enumerate() {
        let length = if random.below(2) == 0 { *most } else { 1 + random.below(*most) };
        let mut label = random.text(letters, length);
        if at == 0 && random.below(4) == 0 {
            label[0] = *random.pick(b"vlpziosnry");
            label.resize(*random.pick(&[8, 11, 32]), b'a');
        }
        wire.push(label.len() as u8);
        wire.extend(label);
    }
    for label in zone.split('.') {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}

fn http(
    random: &mut Random,
    wire: &mut Wire,
    ends: Ends,
    request: bool,
    what: &dyn Fn() -> String,
    body: &[u8],
    forged: bool,
) {
    // A forged size behind a framework's own path would be the framework, as far as anyone can see.
    let paths = [
        "/",
        "/index",
        "/api/v1/items",
        "/a/b.php?x=1234567",
        "/submit.php?id=77",
        "/data",
        "/update?id=00000001",
    ];
    let path = if forged { paths[random.below(4)] } else { *random.pick(&paths) };
    let kind = *random.pick(&["application/octet-stream", "text/html", "application/json"]);
    let length = body.len();
    if request {
        let agent =
            *random.pick(&["curl/8.5.0", "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)"]);
        let cookie =
            random.text(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", 28);
        let cookie = String::from_utf8_lossy(&cookie);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: {agent}\r\nCookie: {cookie}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        );
        wire.connection(
            ends,
            &[head.as_bytes(), body].concat(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            what,
        );
    } else {
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
        let asked = format!("GET {path} HTTP/1.1\r\nHost: www.example.com\r\n\r\n");
        wire.connection(ends, asked.as_bytes(), &[head.as_bytes(), body].concat(), what);
    }
}

fn one(random: &mut Random, wire: &mut Wire, number: u64, tally: &mut BTreeMap<&'static str, u64>) {
    let place = random.below(PLACES.len());
    let (bytes, forged) = payload(random);
    *tally.entry(PLACES[place]).or_default() += 1;
    *tally.entry(forged).or_default() += 1;
    let shown = bytes.clone();
    let what = move || {
        let hex: String = shown.iter().take(48).map(|byte| format!("{byte:02x}")).collect();
        format!("payload {number}, {}, {forged}, {} bytes {hex}", PLACES[place], shown.len())
    };
    let word = random.next().to_be_bytes();
    let ends = Ends {
        from: [10, word[0], word[1], word[2]],
        to: [*random.pick(&[5, 23, 45, 91, 185, 203]), word[3], word[4], word[5]],
        ports: [
            1024 | u16::from_be_bytes([word[6], word[7]]),
            *random.pick(&[80, 443, 8080, 53, 1357, 13579, 8888, 25]),
        ],
    };
    let none: &[u8] = &[];
    match place {
        0 => wire.connection(ends, &bytes, &payload(random).0, &what),
        1 => wire.connection(ends, none, &bytes, &what),
        2 => wire.connection(ends.back(), &bytes, &payload(random).0, &what),
        3 => wire.connection(ends.back(), none, &bytes, &what),
        4 | 5 => {
            let ends = Ends {
                ports: [ends.ports[0], *random.pick(&[53, 443, 9000, 1357, 40000])],
                ..ends
            };
            let (first, second) =
                if place == 4 { (ends, ends.back()) } else { (ends.back(), ends) };
            wire.udp(first, &bytes, &what);
            wire.udp(second, &payload(random).0, &what);
        }
        6 | 7 => http(random, wire, ends, place == 6, &what, &bytes, forged != UNFORGED),
        8 => {
            // One host asks for all of them, so that names are also judged against those before.
            let host = [10, 0, 0, word[0] % 8];
            let ends = Ends { from: host, ports: [ends.ports[0], 53], ..ends };
            let mut message = vec![word[0], word[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            message.extend(name(random));
            let kind: u16 = *random.pick(&[1, 5, 10, 15, 16, 28, 33, 65399]);
            message.extend_from_slice(&kind.to_be_bytes());
            message.extend_from_slice(&[0, 1]);
            wire.udp(ends, &message, &what);
            let mut answer = message.clone();
            (answer[2], answer[3], answer[7]) = (0x81, 0x80, 1);
            answer.extend_from_slice(&[0xC0, 12]);
            answer.extend_from_slice(&kind.to_be_bytes());
            answer.extend_from_slice(&[0, 1, 0, 0, 0, 0]);
            let content = if kind == 1 { vec![0; 4] } else { bytes };
            answer.extend_from_slice(&(content.len() as u16).to_be_bytes());
            answer.extend(content);
            wire.udp(ends.back(), &answer, &what);
        }
        _ => other(random, wire, ends, bytes, &what),
    }
}

fn other(
    random: &mut Random,
    wire: &mut Wire,
    ends: Ends,
    mut bytes: Vec<u8>,
    what: &dyn Fn() -> String,
) {
    if random.below(4) == 0 {
        wire.send(ends, *random.pick(&[46, 47, 89, 99, 103, 200]), &[&bytes], what);
        return;
    }
    if bytes.len() >= 28 && random.below(2) == 0 {
        let length = bytes.len();
        put(&mut bytes, 0, &[0x45, 0]);
        put(&mut bytes, 2, &(length as u16).to_be_bytes());
        put(&mut bytes, 20, &(length as u32 - 28).to_be_bytes());
    }
    let id = random.next().to_be_bytes();
    let echo = |kind: u8, seq: u8| [kind, 0, 0, 0, id[0], id[1], 0, seq];
    let (ask, answer) =
        if random.below(2) == 0 { (ends, ends.back()) } else { (ends.back(), ends) };
    wire.send(ask, 1, &[&echo(8, 1), &bytes], what);
    wire.send(answer, 1, &[&echo(0, 1), &bytes], what);
    wire.send(answer, 1, &[&echo(0, 1), &payload(random).0], what);
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |flag: &str| {
        let at = arguments.iter().position(|word| word == flag)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    let short = arguments.iter().any(|word| word == "--short");
    let count = number("--count").unwrap_or(if short { SHORT } else { COUNT });
    let mut random = Random(number("--from").unwrap_or(0x5EC1_5807).max(1));
    let mut wire = Wire::new();
    let mut tally = BTreeMap::new();
    let began = Instant::now();
    for number in 0..count {
        one(&mut random, &mut wire, number, &mut tally);
    }
    println!(
        "random payloads: {count} in {} frames, {:.0} s",
        wire.frames,
        began.elapsed().as_secs_f64()
    );
    for (what, count) in &tally {
        println!("  {count:>9}  {what}");
    }
    println!("findings by detector and grade:");
    for ((detector, grade), count) in &wire.told {
        println!("  {count:>9}  {detector} {grade}");
    }
    println!(
        "findings of detectors that may cut by themselves, of grade malicious: {}",
        wire.cutting.len()
    );
    for told in &wire.cutting {
        println!("  fault: {told}");
    }
    ExitCode::from(u8::from(!wire.cutting.is_empty()))
}
