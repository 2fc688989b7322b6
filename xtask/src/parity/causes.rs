//! Why two readers differ, where it can be known from the frame.

use super::tshark::{Seen, Theirs};
use super::{Fact, Ours, UNEXPLAINED};

/// QUIC versions 1 and 2 as tshark writes them.
const QUIC_VERSIONS: [&str; 2] = ["0x00000001", "0x6b3343cf"];
/// Highest operation code assigned: DSO (RFC 8490).
const MAX_OPCODE: u32 = 6;
/// Names are not asked of a name server there.
const NEIGHBOURS: [&str; 3] = ["mdns", "llmnr", "nbns"];
/// Envelopes that our decoder does not open; the others are named when a frame is not read.
const ENVELOPES: [&str; 4] = ["gtp", "capwap.data", "ppp", "rdpudp"];
/// Protocols that carry TLS within messages of their own.
const CARRIERS: [&str; 5] = ["eap", "openvpn", "proxy", "radius", "tpkt"];

/// Names the cause of a fact that only one reader has.
pub(super) fn cause(
    fact: &Fact,
    is_ours: bool,
    others: &[Fact],
    ours: &Ours,
    theirs: &Theirs,
) -> String {
    let same_frame = |other: &&Fact| (&other.kind, other.frame) == (&fact.kind, fact.frame);
    if others.iter().filter(same_frame).any(|other| plain(&other.value) == plain(&fact.value)) {
        return "the same bytes, which no host name has, are written otherwise".to_owned();
    }
    let Some(seen) = theirs.frames.get(&fact.frame) else {
        return format!("{UNEXPLAINED}: tshark does not list the frame");
    };
    let layers: Vec<&str> = seen.protocols.split(':').collect();
    if is_ours {
        return unread_by_tshark(fact, &layers, seen);
    }
    let found = of_frame(fact, &layers, ours, seen)
        .or_else(|| of_dns(fact, &layers, ours, seen))
        .or_else(|| of_tls(fact, &layers, ours, theirs, seen));
    found.unwrap_or_else(|| {
        let other = others.iter().find(same_frame);
        let said = other.map(|other| format!(" and ours {}", other.value)).unwrap_or_default();
        format!("{UNEXPLAINED}: tshark sees {}{said}", seen.protocols)
    })
}

/// tshark looks for TLS by port, and for a record only once it is whole.
fn unread_by_tshark(fact: &Fact, layers: &[&str], seen: &Seen) -> String {
    match layers.last() {
        Some(&"tcp") => {
            "tshark leaves the segment unread: another protocol's port, or a record that \
                         never is all there"
                .to_owned()
        }
        Some(&"tls") if seen.handshakes.is_empty() => {
            "tshark waits for the rest of the record".to_owned()
        }
        Some(layer) if fact.kind != "dns" && !layers.contains(&"tls") => {
            format!("tshark takes the segment for {layer}")
        }
        _ => format!("{UNEXPLAINED}: tshark sees {}", seen.protocols),
    }
}

fn of_frame(fact: &Fact, layers: &[&str], ours: &Ours, seen: &Seen) -> Option<String> {
    if let Some(layer) = NEIGHBOURS.iter().find(|layer| layers.contains(layer)) {
        return Some(format!("{layer}: not asked of a name server"));
    }
    if fact.kind == "dns" && !fact.flow.split(' ').any(|part| part == "53") {
        return Some("DNS on another port than 53".to_owned());
    }
    let icmp = layers.iter().position(|layer| layer.starts_with("icmp"));
    if icmp.is_some_and(|at| at + 1 < layers.len()) {
        return Some("quoted within an ICMP error".to_owned());
    }
    if let Some(reason) = ours.unparsed.get(&fact.frame) {
        return Some(format!("the frame is not read: {reason}"));
    }
    if let Some(layer) = ENVELOPES.iter().find(|layer| layers.contains(layer)) {
        return Some(format!("within {layer}, which is not opened"));
    }
    let within = |layer: &str| layers.iter().filter(|it| **it == layer).count();
    if within("gre") > 0
        && within("udp") > 0
        && layers.iter().position(|it| *it == "udp") < layers.iter().position(|it| *it == "gre")
    {
        return Some("within GRE in UDP, which is not opened".to_owned());
    }
    if within("vxlan") > 2 {
        return Some("within more than two tunnels".to_owned());
    }
    seen.cut.then(|| "the capture cut the frame".to_owned())
}

fn of_dns(fact: &Fact, layers: &[&str], ours: &Ours, seen: &Seen) -> Option<String> {
    if fact.kind != "dns" {
        return None;
    }
    if ["tls", "http", "http2", "quic"].iter().any(|layer| layers.contains(layer)) {
        return Some("DNS over TLS or HTTP, whose keys the capture carries".to_owned());
    }
    if fact.value.starts_with('<') {
        return Some(format!("a malformed name: tshark writes {}", fact.value));
    }
    if seen.opcodes.iter().any(|code| *code > MAX_OPCODE) {
        return Some("an operation code that is not assigned".to_owned());
    }
    let told = |own: &&Fact| own.kind == "dns" && own.frame == fact.frame;
    ours.facts.iter().any(|own| told(&own)).then(|| "a further question of one message".to_owned())
}

fn of_tls(
    fact: &Fact,
    layers: &[&str],
    ours: &Ours,
    theirs: &Theirs,
    seen: &Seen,
) -> Option<String> {
    if fact.kind == "dns" {
        return None;
    }
    let has = |layer: &str| layers.contains(&layer);
    if has("gquic") {
        return Some("gQUIC, from before version 1".to_owned());
    }
    if has("quic") && !QUIC_VERSIONS.iter().any(|known| seen.quic_versions.contains(known)) {
        return Some("QUIC of a draft version".to_owned());
    }
    if has("quic") && fact.kind == "ja3s" {
        return Some("a server's Initial, which is not deciphered".to_owned());
    }
    if ours.asked.contains(&(fact.value.clone(), fact.flow.clone())) {
        return Some("told before, as the target of CONNECT or SOCKS".to_owned());
    }
    if let Some(layer) = CARRIERS.iter().find(|layer| has(layer)) {
        return Some(format!("TLS within {layer}"));
    }
    let wanted = if fact.kind == "ja3s" { "2" } else { "1" };
    let mut earlier = theirs
        .frames
        .range(..fact.frame)
        .map(|(_, frame)| frame)
        .filter(|frame| frame.flow == seen.flow)
        .peekable();
    let begins = earlier.peek().is_none();
    if earlier.any(|frame| frame.handshakes.iter().any(|kind| kind == wanted))
        || seen.handshakes.iter().filter(|kind| *kind == wanted).count() > 1
    {
        return Some("not the first hello of its flow".to_owned());
    }
    let start = seen.joined_from.and_then(|frame| theirs.frames.get(&frame)).unwrap_or(seen);
    if start.seq > 1 {
        return Some("behind other bytes of its stream (STARTTLS and the like)".to_owned());
    }
    if [" 127.", " ::1 "].iter().any(|part| fact.flow.contains(part)) {
        return Some("both ends inside: what passes between them is not told".to_owned());
    }
    if has("quic") && !begins {
        return Some("a QUIC hello behind other datagrams of its flow".to_owned());
    }
    if seen.draft {
        return Some("a server hello of a TLS 1.3 draft, of another form".to_owned());
    }
    if seen.malformed {
        return Some("a malformed hello: its lengths contradict each other".to_owned());
    }
    if seen.alert_first {
        return Some("a warning before the server's hello".to_owned());
    }
    None
}

/// The value with one mark for each run of bytes that no host name has.
fn plain(value: &str) -> String {
    let mut out = String::new();
    let mut letters = value.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => {
                // Ours are three digits, tshark's a letter.
                let digits = if letters.peek().is_some_and(char::is_ascii_digit) { 3 } else { 1 };
                for _ in 0..digits {
                    letters.next();
                }
                out.push('?');
            }
            other if other.is_ascii_graphic() => out.push(other),
            _ => out.push('?'),
        }
    }
    // tshark writes one mark for several bytes that are no character together.
    while out.contains("??") {
        out = out.replace("??", "?");
    }
    out
}
