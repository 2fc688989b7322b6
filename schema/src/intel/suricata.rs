//! Suricata rules: those whose whole condition is an address, name, URL, fingerprint, certificate or
//! User-Agent. A rule that says more is left out with its number: half of it would mean something else.

mod condition;

use self::condition::{Condition, Options};
use super::entry::{Facts, Id};
use super::report::{Hint, Intake, Offer};
use crate::finding::Grade;
use std::net::IpAddr;

/// Bytes of the longest rule, over all its lines.
const LONGEST_RULE: usize = 256 << 10;
/// Addresses, or addresses with ports, that one rule may name.
const MOST_ADDRESSES: usize = 4096;

const ACTIONS: [&str; 8] =
    ["alert", "drop", "pass", "reject", "rejectboth", "rejectdst", "rejectsrc", "sdrop"];

/// Rules, which may go over several lines.
#[derive(Debug, Default)]
pub(super) struct Rules {
    carried: String,
}

impl Rules {
    /// Whether a line begins like a rule.
    pub(super) fn is_rule(line: &str) -> bool {
        let mut words = line.split_whitespace();
        words.next().is_some_and(|word| ACTIONS.contains(&word))
            && words.next().is_some_and(|word| word.bytes().all(|b| b.is_ascii_alphanumeric()))
            && (line.contains("->") || line.contains("<>"))
            && line.contains('(')
    }

    pub(super) fn line(&mut self, number: u32, text: &str, intake: &mut Intake<'_>) {
        let text = text.trim();
        if self.carried.is_empty() && (text.is_empty() || text.starts_with('#')) {
            return;
        }
        if let Some(part) = text.strip_suffix('\\') {
            if self.carried.len() + part.len() > LONGEST_RULE {
                self.carried.clear();
                let why = "the rule is too long".to_owned();
                return intake.leave(Id::Line(number), text, "too long", why);
            }
            self.carried.push_str(part);
            return;
        }
        if self.carried.is_empty() {
            return rule(number, text, intake);
        }
        let mut whole = std::mem::take(&mut self.carried);
        whole.push_str(text);
        rule(number, &whole, intake);
    }
}

struct Header<'a> {
    source: (&'a str, &'a str),
    destination: (&'a str, &'a str),
}

fn rule(number: u32, text: &str, intake: &mut Intake<'_>) {
    let malformed = |intake: &mut Intake<'_>| {
        let why = "is no rule".to_owned();
        intake.leave(Id::Line(number), text, "malformed rule", why);
    };
    let Some((head, body)) = text.split_once('(') else { return malformed(intake) };
    let Some(body) = body.trim_end().strip_suffix(')') else { return malformed(intake) };
    let (Some((action, header)), Some(options)) = (header(head), Options::parse(body)) else {
        return malformed(intake);
    };
    let sid = format!("sid {}", options.sid.as_deref().unwrap_or("0"));
    let place = Id::Text(&sid);
    let message = options.message.as_deref().unwrap_or("");
    let left = |intake: &mut Intake<'_>, why: String| {
        intake.leave(place, message, "not understood", why);
    };
    if action == "pass" {
        return left(intake, "it lets pass; use the policy's allow-list".to_owned());
    }
    if let Some(odd) = &options.odd {
        return left(intake, odd.clone());
    }
    let labels: String = options.family.as_deref().unwrap_or(message).chars().take(120).collect();
    let facts = Facts {
        id: Id::Text(options.sid.as_deref().unwrap_or("0")),
        confidence: options.confidence,
        // A rule that its author has little confidence in is a hint.
        grade: options.confidence.is_some_and(|n| n < 50).then_some(Grade::Suspect),
        labels: &labels,
        ..Facts::of_line(number)
    };
    let addresses = match addresses(&header) {
        Ok(addresses) => addresses,
        Err(why) => return left(intake, why),
    };
    match (options.condition(), addresses.is_empty()) {
        (Err(why), _) => left(intake, why),
        (Ok(None), true) => left(intake, "it names no address and no content".to_owned()),
        (Ok(Some(_)), false) => left(intake, "it joins an address with content".to_owned()),
        (Ok(None), false) => {
            for address in &addresses {
                intake.offer(&Offer::new(address, Hint::Ip, facts));
            }
        }
        (Ok(Some(Condition { text, hint, exact })), true) => {
            intake.offer(&Offer { exact, ..Offer::new(&text, hint, facts) });
        }
    }
}

/// Action, and both ends.
fn header(text: &str) -> Option<(&str, Header<'_>)> {
    // Lists may have blanks after their commas.
    let mut words = Vec::with_capacity(7);
    let (mut start, mut depth) = (None, 0_u32);
    for (at, sign) in text.char_indices() {
        match sign {
            '[' => depth = depth.checked_add(1)?,
            ']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if sign.is_whitespace() && depth == 0 {
            if let Some(from) = start.take() {
                words.push(text.get(from..at)?);
            }
        } else if start.is_none() {
            start = Some(at);
        }
    }
    if let Some(from) = start {
        words.push(text.get(from..)?);
    }
    let [action, _protocol, source, source_port, arrow, destination, destination_port] =
        *words.as_slice()
    else {
        return None;
    };
    let known = ACTIONS.contains(&action) && matches!(arrow, "->" | "<>" | "=>");
    known.then_some((
        action,
        Header { source: (source, source_port), destination: (destination, destination_port) },
    ))
}

/// The addresses, networks and endpoints that the rule's head names at one of its ends.
fn addresses(header: &Header<'_>) -> Result<Vec<String>, String> {
    let is_open = |text: &str| text == "any" || (text.starts_with('$') && !text.contains(','));
    let is_own = |text: &str| text.trim_start_matches(['!', '[']).starts_with('$') || text == "any";
    let (source, destination) = (header.source, header.destination);
    match (is_own(source.0), is_own(destination.0)) {
        (true, true) => Ok(Vec::new()),
        (false, false) => Err("it names addresses at both ends".to_owned()),
        (true, false) if !is_open(source.1) => Err("it names the port of its own end".to_owned()),
        (true, false) => ends(destination),
        (false, true) if !is_open(destination.1) => {
            Err("it names the port of its own end".to_owned())
        }
        (false, true) => ends(source),
    }
}

fn ends((addresses, ports): (&str, &str)) -> Result<Vec<String>, String> {
    if addresses.contains('!') || ports.contains('!') {
        return Err("it negates an address or port".to_owned());
    }
    let members = |text: &str| -> Vec<String> {
        let flat = text.replace(['[', ']'], "");
        flat.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect()
    };
    let ports = match ports {
        "any" => None,
        text if text.contains([':', '$']) => {
            return Err("it names a range of ports".to_owned());
        }
        text => Some(members(text)),
    };
    let mut all = Vec::new();
    for address in members(addresses) {
        if address.starts_with('$') {
            return Err("it mixes addresses and variables".to_owned());
        }
        match &ports {
            None => all.push(address),
            Some(ports) => {
                let Ok(plain) = address.parse::<IpAddr>() else {
                    return Err("it joins a network with a port".to_owned());
                };
                for port in ports {
                    let port: u16 = port.parse().map_err(|_| format!("{port} is no port"))?;
                    all.push(std::net::SocketAddr::new(plain, port).to_string());
                }
            }
        }
        if all.len() > MOST_ADDRESSES {
            return Err("it names too many addresses".to_owned());
        }
    }
    Ok(all)
}
