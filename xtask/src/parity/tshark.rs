//! tshark's reading of a capture.

use super::Fact;
use crate::host::{self, Failure};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// What is asked of tshark, in the order of [`Line::read`].
const FIELDS: [&str; 30] = [
    "frame.number",
    "frame.protocols",
    "frame.len",
    "frame.cap_len",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "tcp.srcport",
    "tcp.dstport",
    "udp.srcport",
    "udp.dstport",
    "dns.qry.name",
    "tls.handshake.type",
    "tls.handshake.ja3",
    "tls.handshake.ja3s",
    "tls.handshake.extensions_server_name",
    "tls.handshake.version",
    "tls.handshake.ciphersuite",
    "tls.handshake.extension.type",
    "tls.handshake.extensions.supported_version",
    "tls.handshake.sig_hash_alg",
    "tls.handshake.extensions_alpn_str",
    // These lengths tell whose a signature algorithm is.
    "tls.handshake.sig_hash_alg_len",
    "quic.version",
    "dns.flags.opcode",
    "tcp.seq",
    "tcp.segment",
    "tls.record.content_type",
    "_ws.malformed",
];
/// Stands between the values of one field.
const BETWEEN: char = '\u{1f}';

/// What tshark says of a capture.
#[derive(Default)]
pub(crate) struct Theirs {
    pub(super) facts: Vec<Fact>,
    pub(super) frames: BTreeMap<u64, Seen>,
}

/// What it says of a frame.
pub(crate) struct Seen {
    pub(super) protocols: String,
    pub(super) flow: String,
    pub(super) cut: bool,
    pub(super) quic_versions: String,
    /// Whether the first TLS record in it is an alert.
    pub(super) alert_first: bool,
    /// Whether lengths in it contradict each other.
    pub(super) malformed: bool,
    /// Whether a hello in it states a draft of TLS 1.3.
    pub(super) draft: bool,
    /// Operation codes of its DNS messages.
    pub(super) opcodes: Vec<u32>,
    /// Place of its segment in the stream, from 1.
    pub(super) seq: u64,
    /// The first frame of those that a message in it was joined of.
    pub(super) joined_from: Option<u64>,
    /// Handshake messages in it.
    pub(super) handshakes: Vec<String>,
}

/// Which tshark this is.
pub(super) fn version() -> Result<String, Failure> {
    if !Path::new("/usr/bin/tshark").exists() {
        host::run(
            host::as_root("apt-get")
                .args(["install", "-y", "-qq", "--no-install-recommends", "tshark"])
                .env("DEBIAN_FRONTEND", "noninteractive")
                .stdout(Stdio::null()),
        )?;
    }
    let said = host::output(Command::new("tshark").arg("--version"))?;
    Ok(said.lines().next().unwrap_or_default().trim_end_matches('.').to_owned())
}

/// Runs tshark over a capture.
pub(super) fn read(file: &Path) -> Result<Theirs, Failure> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-T", "fields", "-E", "separator=/t", "-E", "quote=n"]);
    command.args(["-E", "occurrence=a", "-E", &format!("aggregator={BETWEEN}")]);
    // Otherwise it gives up on streams whose segments were reordered.
    command.args(["-o", "tcp.reassemble_out_of_order:TRUE"]);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let done = command
        .arg("-r")
        .arg(file)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(|error| format!("cannot start tshark: {error}"))?;
    let mut theirs = Theirs::default();
    for line in String::from_utf8_lossy(&done.stdout).lines() {
        if let Some(line) = Line::read(line) {
            line.tell(&mut theirs);
        }
    }
    Ok(theirs)
}

/// One frame's fields, each with all its values.
struct Line<'a> {
    fields: Vec<Vec<&'a str>>,
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let fields: Vec<Vec<&str>> = line
            .split('\t')
            .map(|field| field.split(BETWEEN).filter(|value| !value.is_empty()).collect())
            .collect();
        (fields.len() == FIELDS.len()).then_some(Self { fields })
    }

    fn all(&self, name: &str) -> &[&'a str] {
        let at = FIELDS.iter().position(|field| *field == name);
        at.and_then(|at| self.fields.get(at)).map_or(&[], Vec::as_slice)
    }

    fn first(&self, name: &str) -> &'a str {
        self.all(name).first().copied().unwrap_or_default()
    }

    fn last(&self, name: &str) -> &'a str {
        self.all(name).last().copied().unwrap_or_default()
    }

    fn tell(&self, theirs: &mut Theirs) {
        let Ok(frame) = self.first("frame.number").parse::<u64>() else { return };
        let (flow, protocols) = (self.flow(), self.first("frame.protocols"));
        let quic = protocols.contains(":quic");
        let mut fact = |kind: &str, value: String| {
            let kind = kind.to_owned();
            theirs.facts.push(Fact { kind, value, frame, flow: flow.clone() });
        };
        for (kind, field) in [
            ("ja3", "tls.handshake.ja3"),
            ("ja3s", "tls.handshake.ja3s"),
            (if quic { "quic_sni" } else { "sni" }, "tls.handshake.extensions_server_name"),
            ("dns", "dns.qry.name"),
        ] {
            for value in self.all(field) {
                // It lists values alone: an empty name is the root of DNS.
                let plain = if *value == "<Root>" { "" } else { value.trim_end_matches('.') };
                fact(kind, plain.to_ascii_lowercase());
            }
        }
        if let Some(text) = self.ja4_text(quic) {
            fact("ja4_text", text);
        }
        let seen = Seen {
            protocols: protocols.to_owned(),
            flow,
            cut: self.first("frame.len") != self.first("frame.cap_len"),
            quic_versions: self.all("quic.version").join(" "),
            alert_first: self.first("tls.record.content_type") == "21",
            malformed: !self.all("_ws.malformed").is_empty(),
            draft: self.all("tls.handshake.version").iter().any(|it| it.starts_with("0x7f")),
            opcodes: self.all("dns.flags.opcode").iter().filter_map(|it| it.parse().ok()).collect(),
            seq: self.last("tcp.seq").parse().unwrap_or(1),
            joined_from: self.first("tcp.segment").parse().ok(),
            handshakes: self.all("tls.handshake.type").iter().map(|it| (*it).to_owned()).collect(),
        };
        theirs.frames.insert(frame, seen);
    }

    /// The innermost flow, written as our reader writes it.
    fn flow(&self) -> String {
        let layers: Vec<&str> = self.first("frame.protocols").split(':').collect();
        let place = |wanted: &str| layers.iter().rposition(|layer| *layer == wanted);
        let version = if place("ipv6") > place("ip") { "ipv6" } else { "ip" };
        let transport = if place("tcp") > place("udp") { "tcp" } else { "udp" };
        let mut ends = ["src", "dst"].map(|end| {
            let address = self.last(&format!("{version}.{end}"));
            format!("{address} {}", self.last(&format!("{transport}.{end}port")))
        });
        ends.sort();
        let [one, other] = ends;
        format!("{transport} {one} {other}")
    }

    /// The raw form of JA4, where the frame has one client hello and nothing that mixes with it.
    fn ja4_text(&self, quic: bool) -> Option<String> {
        if self.all("tls.handshake.ja3").len() != 1 || self.all("tls.handshake.type").contains(&"2")
        {
            return None;
        }
        let number = |text: &&str| match text.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        };
        let useful = |field: &str| -> Vec<u32> {
            self.all(field).iter().filter_map(number).filter(|it| !reserved(*it)).collect()
        };
        let mut suites = useful("tls.handshake.ciphersuite");
        let kinds = useful("tls.handshake.extension.type");
        let version = useful("tls.handshake.extensions.supported_version").into_iter().max();
        let version = version.or_else(|| useful("tls.handshake.version").first().copied())?;
        let version = match version {
            0x0304 => "13",
            0x0303 => "12",
            0x0302 => "11",
            0x0301 => "10",
            0x0300 => "s3",
            _ => "00",
        };
        let name = if kinds.contains(&0) { 'd' } else { 'i' };
        let protocol = ends_of(self.first("tls.handshake.extensions_alpn_str"));
        let (s, e) = (suites.len().min(99), kinds.len().min(99));
        let front =
            format!("{}{version}{name}{s:02}{e:02}{protocol}", if quic { 'q' } else { 't' });
        suites.sort_unstable();
        let mut sorted: Vec<u32> =
            kinds.iter().copied().filter(|it| ![0, 16].contains(it)).collect();
        sorted.sort_unstable();
        let mut text = format!("{front}_{}_{}", hex_list(&suites), hex_list(&sorted));
        let signatures = self.signatures(&kinds)?;
        if !signatures.is_empty() {
            text = format!("{text}_{}", hex_list(&signatures));
        }
        Some(text)
    }

    /// The values of extension 13 among those of 13, 34 and 50, which tshark lists as one.
    fn signatures(&self, kinds: &[u32]) -> Option<Vec<u32>> {
        let mut values = self.all("tls.handshake.sig_hash_alg").iter();
        let mut lengths = self.all("tls.handshake.sig_hash_alg_len").iter();
        for kind in kinds.iter().filter(|kind| [13, 34, 50].contains(*kind)) {
            let count = lengths.next()?.parse::<usize>().ok()? / 2;
            let list: Vec<u32> = values
                .by_ref()
                .take(count)
                .filter_map(|text| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok())
                .collect();
            if *kind == 13 {
                return Some(list.into_iter().filter(|it| !reserved(*it)).collect());
            }
        }
        Some(Vec::new())
    }
}

/// The values that RFC 8701 reserves.
fn reserved(value: u32) -> bool {
    value & 0x0F0F == 0x0A0A && value >> 8 == value & 0xFF
}

fn hex_list(values: &[u32]) -> String {
    values.iter().map(|value| format!("{value:04x}")).collect::<Vec<_>>().join(",")
}

fn ends_of(protocol: &str) -> String {
    let (Some(first), Some(last)) = (protocol.bytes().next(), protocol.bytes().next_back()) else {
        return "00".to_owned();
    };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        [char::from(first), char::from(last)].iter().collect()
    } else {
        format!("{:x}{:x}", first >> 4, last & 0xF)
    }
}
