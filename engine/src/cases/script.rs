//! The script of a case: one line opens a flow or sends something in it.

use super::forge::Transport;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A script's line that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of packets: {why}")]
pub struct ScriptError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

/// Steps that a script may have: what a person writes and reads.
const MAX_STEPS: usize = 10_000;
/// Repetitions of a line.
const MAX_REPEAT: u32 = 10_000;

/// Bytes of a frame that a capture keeps at least: every header up to the payload.
const LEAST_SNAP: usize = 96;
/// Bytes of a message up to which it may be filled.
const MAX_FILL: usize = 1 << 20;

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) line: usize,
    /// Time before it.
    pub(super) after: Duration,
    pub(super) act: Act,
}

/// What a line does.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    /// A flow from left to right; later lines speak in it.
    Open { transport: Transport, left: SocketAddr, right: SocketAddr, midstream: bool },
    /// Something is sent.
    Send { from_left: bool, message: Message, split: Vec<usize>, repeat: u32, snap: usize },
}

/// What is sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Message {
    Answer { qtype: u16, name: String, data: String, ttl: u32 },
    Bytes(Vec<u8>),
    Echo { request: bool, id: u16, seq: u16, payload: Vec<u8> },
    Question { qtype: u16, name: String },
}

pub(super) fn parse(text: &str) -> Result<Vec<Step>, ScriptError> {
    let mut steps = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let refuse = |why: String| ScriptError { line: at + 1, why };
        let words = words(line).map_err(refuse)?;
        if words.is_empty() {
            continue;
        }
        steps.push(step(at + 1, &words).map_err(refuse)?);
        if steps.len() > MAX_STEPS {
            return Err(refuse(format!("a case has at most {MAX_STEPS} lines")));
        }
    }
    Ok(steps)
}

/// A word as written, or the bytes of a quoted string.
#[derive(Clone, Debug, PartialEq)]
enum Word {
    Plain(String),
    Text(Vec<u8>),
}

impl Word {
    fn plain(&self) -> Option<&str> {
        match self {
            Self::Plain(word) => Some(word),
            Self::Text(_) => None,
        }
    }
}

fn words(line: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    while let Some(first) = chars.next() {
        match first {
            '#' => break,
            '"' => words.push(Word::Text(quoted(&mut chars)?)),
            blank if blank.is_whitespace() => {}
            first => {
                let mut word = String::from(first);
                while let Some(next) = chars.next_if(|next| !next.is_whitespace() && *next != '"') {
                    word.push(next);
                }
                words.push(Word::Plain(word));
            }
        }
    }
    Ok(words)
}

fn quoted(chars: &mut impl Iterator<Item = char>) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    loop {
        let next = chars.next().ok_or("a string has no end")?;
        match next {
            '"' => return Ok(bytes),
            '\\' => bytes.push(match chars.next() {
                Some('r') => b'\r',
                Some('n') => b'\n',
                Some('t') => b'\t',
                Some('0') => 0,
                Some('\\') => b'\\',
                Some('"') => b'"',
                Some('x') => {
                    let mut digit = || chars.next().and_then(|digit| digit.to_digit(16));
                    let (high, low) = digit().zip(digit()).ok_or("\\x wants two digits")?;
                    (high << 4 | low) as u8
                }
                other => return Err(format!("\\{} is no escape", other.unwrap_or(' '))),
            }),
            other => {
                let mut room = [0; 4];
                bytes.extend_from_slice(other.encode_utf8(&mut room).as_bytes());
            }
        }
    }
}

fn step(line: usize, words: &[Word]) -> Result<Step, String> {
    let (first, rest) = words.split_first().ok_or("nothing stands here")?;
    let act = match first.plain() {
        Some(">") => return sending(line, true, rest),
        Some("<") => return sending(line, false, rest),
        Some("tcp") => opening(Transport::Tcp, rest)?,
        Some("udp") => opening(Transport::Udp, rest)?,
        Some("icmp") => opening(Transport::Icmp, rest)?,
        Some("ip") => {
            let (number, rest) = rest.split_first().ok_or("ip wants a protocol number")?;
            let number = number.plain().and_then(|number| number.parse().ok());
            opening(Transport::Other(number.ok_or("ip wants a protocol number")?), rest)?
        }
        _ => return Err("a line begins with tcp, udp, icmp, ip, > or <".to_owned()),
    };
    Ok(Step { line, after: Duration::from_millis(1), act })
}

fn opening(transport: Transport, words: &[Word]) -> Result<Act, String> {
    let plain: Vec<&str> = words.iter().filter_map(Word::plain).collect();
    let (left, right, midstream) = match plain.as_slice() {
        [left, ">", right] => (left, right, false),
        [left, ">", right, "midstream"] => (left, right, true),
        _ => return Err("a flow is opened as A > B".to_owned()),
    };
    let end = |text: &str| {
        let found = if matches!(transport, Transport::Tcp | Transport::Udp) {
            text.parse::<SocketAddr>().ok()
        } else {
            text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, 0))
        };
        found.ok_or_else(|| format!("{text} is no end of such a flow"))
    };
    let (left, right) = (end(left)?, end(right)?);
    if left.is_ipv4() != right.is_ipv4() {
        return Err("both ends are of one address family".to_owned());
    }
    Ok(Act::Open { transport, left, right, midstream })
}

fn sending(line: usize, from_left: bool, words: &[Word]) -> Result<Step, String> {
    let mut after = Duration::from_millis(1);
    let (mut split, mut repeat, mut snap) = (Vec::new(), 1, usize::MAX);
    let mut payload: Vec<&Word> = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().and_then(Word::plain).ok_or("a suffix wants a value");
        match word.plain() {
            Some("after") => after = span(value()?)?,
            Some("repeat") => {
                let times = value()?.parse().ok().filter(|times| *times <= MAX_REPEAT);
                repeat =
                    times.ok_or_else(|| format!("repeat wants a number up to {MAX_REPEAT}"))?;
            }
            Some("snap") => {
                let kept = value()?.parse().ok().filter(|kept| *kept >= LEAST_SNAP);
                snap = kept.ok_or_else(|| format!("snap wants {LEAST_SNAP} bytes or more"))?;
            }
            Some("split") => {
                split.push(value()?.parse().map_err(|_| "split wants a number of bytes")?);
            }
            _ => payload.push(word),
        }
    }
    split.sort_unstable();
    let message = message(&payload)?;
    Ok(Step { line, after, act: Act::Send { from_left, message, split, repeat, snap } })
}

fn span(text: &str) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let number = text.strip_suffix(unit).and_then(|number| number.parse::<u64>().ok());
    let number = number.ok_or_else(|| format!("{text} is no span"))?;
    match unit {
        "us" => Ok(Duration::from_micros(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        _ => Err(format!("{text} is no span: us, ms, s, m or h")),
    }
}

fn message(words: &[&Word]) -> Result<Message, String> {
    match words.first().and_then(|word| word.plain()) {
        Some("dns?") => match words {
            [_, Word::Plain(kind), Word::Plain(name)] => {
                Ok(Message::Question { qtype: record_type(kind)?, name: name.clone() })
            }
            _ => Err("dns? wants a type and a name".to_owned()),
        },
        Some("dns!") => match words {
            [_, Word::Plain(kind), Word::Plain(name), Word::Text(data), rest @ ..] => {
                let ttl = match rest {
                    [] => Some(300),
                    [Word::Plain(ttl)] => ttl.parse().ok(),
                    _ => None,
                };
                Ok(Message::Answer {
                    qtype: record_type(kind)?,
                    name: name.clone(),
                    data: String::from_utf8_lossy(data).into_owned(),
                    ttl: ttl.ok_or("a time to live is a number of seconds")?,
                })
            }
            _ => Err("dns! wants a type, a name, and data in quotes".to_owned()),
        },
        Some(echo @ ("echo?" | "echo!")) => match words {
            [_, Word::Plain(id), Word::Plain(seq), rest @ ..] => Ok(Message::Echo {
                request: echo == "echo?",
                id: id.parse().map_err(|_| "an echo wants an identifier")?,
                seq: seq.parse().map_err(|_| "an echo wants a sequence number")?,
                payload: bytes(rest)?,
            }),
            _ => Err("an echo wants an identifier and a sequence number".to_owned()),
        },
        _ => Ok(Message::Bytes(bytes(words)?)),
    }
}

/// Record types by their names (IANA DNS parameters).
fn record_type(name: &str) -> Result<u16, String> {
    Ok(match name {
        "A" => 1,
        "NS" => 2,
        "CNAME" => 5,
        "NULL" => 10,
        "MX" => 15,
        "TXT" => 16,
        "AAAA" => 28,
        "SRV" => 33,
        "PRIVATE" => 65_399,
        other => other.parse().map_err(|_| format!("{other} is no record type"))?,
    })
}

/// Strings as they are; words after `hex` as digits.
fn bytes(words: &[&Word]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let (mut hex, mut half) = (false, None);
    for word in words {
        match word {
            Word::Text(text) => out.extend_from_slice(text),
            Word::Plain(word) if word == "hex" => hex = true,
            Word::Plain(word) if word.starts_with("fill:") => {
                let count =
                    word.strip_prefix("fill:").and_then(|count| count.parse::<usize>().ok());
                let count = count.filter(|count| *count <= MAX_FILL.saturating_sub(out.len()));
                let count = count.ok_or_else(|| format!("fill wants up to {MAX_FILL} bytes"))?;
                out.resize(out.len() + count, b'.');
            }
            Word::Plain(word) if hex => {
                for digit in word.chars() {
                    let digit =
                        digit.to_digit(16).ok_or_else(|| format!("{word} is not hexadecimal"))?;
                    match half.take() {
                        None => half = Some(digit),
                        Some(high) => out.push((high << 4 | digit) as u8),
                    }
                }
            }
            Word::Plain(word) => {
                return Err(format!("{word} is no payload: quote it, or write hex before it"));
            }
        }
    }
    if half.is_some() { Err("hex has an odd number of digits".to_owned()) } else { Ok(out) }
}
