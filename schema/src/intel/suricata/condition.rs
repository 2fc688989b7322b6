//! What a rule's options ask of a packet, if that is one thing that can be looked for whole.

use super::super::observable::Kind;
use super::super::report::Hint;

/// Options of one rule.
const MOST_OPTIONS: usize = 512;

/// Options that say nothing about what is looked for.
const NEUTRAL: [&str; 13] = [
    "classtype",
    "fast_pattern",
    "flow",
    "gid",
    "metadata",
    "msg",
    "priority",
    "reference",
    "rev",
    "sid",
    "tag",
    "target",
    "threshold",
];

/// A buffer of the traffic that a content stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Buffer {
    Certificate,
    Host,
    Ja3,
    Ja4,
    Name,
    Uri,
    UserAgent,
}

fn buffer(word: &str) -> Option<Buffer> {
    Some(match word {
        "dns.query" | "dns_query" | "dns.queries.rrname" | "tls.sni" | "tls_sni" | "quic.sni" => {
            Buffer::Name
        }
        "http.host" | "http_host" | "http.host.raw" | "http_raw_host" => Buffer::Host,
        "http.uri" | "http_uri" | "http.uri.raw" | "http_raw_uri" => Buffer::Uri,
        "http.user_agent" | "http_user_agent" => Buffer::UserAgent,
        "ja3.hash" | "ja3_hash" => Buffer::Ja3,
        "ja4.hash" | "ja4_hash" => Buffer::Ja4,
        "tls.cert_fingerprint" | "tls_cert_fingerprint" => Buffer::Certificate,
        _ => return None,
    })
}

/// A text that must stand in a buffer, and how.
#[derive(Debug, Default)]
struct Content {
    buffer: Option<Buffer>,
    text: String,
    begins: bool,
    ends: bool,
    whole: bool,
    dotted: bool,
}

/// The options of a rule.
#[derive(Debug, Default)]
pub(super) struct Options {
    pub(super) sid: Option<String>,
    pub(super) message: Option<String>,
    pub(super) family: Option<String>,
    pub(super) confidence: Option<u8>,
    /// The first option that is not understood.
    pub(super) odd: Option<String>,
    contents: Vec<Content>,
}

/// One thing that can be looked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) text: String,
    pub(super) hint: Hint,
    pub(super) exact: Option<bool>,
}

/// What later options refer to.
#[derive(Default)]
struct Sticky {
    buffer: Option<Buffer>,
    dotted: bool,
    bsize: Option<usize>,
}

impl Options {
    /// Reads what stands in a rule's parentheses; `None` when it is malformed.
    pub(super) fn parse(body: &str) -> Option<Self> {
        let mut all = Self::default();
        let mut sticky = Sticky::default();
        for option in split(body)? {
            let (key, value) = match option.split_once(':') {
                Some((key, value)) => (key.trim(), value.trim()),
                None => (option, ""),
            };
            all.option(key, value, &mut sticky)?;
        }
        Some(all)
    }

    fn option(&mut self, key: &str, value: &str, sticky: &mut Sticky) -> Option<()> {
        match key {
            "sid" => self.sid = Some(value.chars().take(20).collect()),
            "msg" => self.message = Some(value.trim_matches('"').to_owned()),
            "metadata" => self.metadata(value),
            "content" => self.content(value, sticky)?,
            "flowbits" | "noalert" => {
                let word = value.split(',').next().unwrap_or_default().trim();
                if key == "noalert" || word == "noalert" {
                    self.not_understood("it never alerts by itself");
                } else if word != "set" {
                    self.not_understood("flowbits");
                }
            }
            "bsize" => match value.parse() {
                Ok(size) => {
                    sticky.bsize = Some(size);
                    self.resize(sticky);
                }
                Err(_) => self.not_understood("bsize of a range"),
            },
            "dotprefix" => sticky.dotted = true,
            "nocase" | "to_lowercase" => {}
            "startswith" => self.last(|content| content.begins = true),
            "endswith" => self.last(|content| content.ends = true),
            "offset" if value == "0" => {}
            "depth" => {
                self.last(|content| content.begins |= value.parse() == Ok(content.text.len()))
            }
            "isdataat" if value.replace(' ', "") == "!1,relative" => {
                self.last(|content| content.ends = true);
            }
            "tls.fingerprint" => {
                let text = value.trim_matches('"').to_owned();
                let buffer = Some(Buffer::Certificate);
                self.contents.push(Content { buffer, text, ..Content::default() });
            }
            key if NEUTRAL.contains(&key) => {}
            key => match buffer(key) {
                // The old form names the buffer behind the content that it holds for.
                Some(buffer) if key.starts_with("http_") => {
                    self.last(|content| content.buffer = Some(buffer));
                }
                Some(buffer) => {
                    *sticky = Sticky { buffer: Some(buffer), ..Sticky::default() };
                }
                None => self.not_understood(key),
            },
        }
        Some(())
    }

    fn content(&mut self, value: &str, sticky: &Sticky) -> Option<()> {
        if value.starts_with('!') {
            self.not_understood("a negated content");
            return Some(());
        }
        let text = unescape(value.strip_prefix('"')?.strip_suffix('"')?)?;
        let (buffer, dotted) = (sticky.buffer, sticky.dotted);
        self.contents.push(Content { buffer, text, dotted, ..Content::default() });
        self.resize(sticky);
        Some(())
    }

    /// The size of the buffer says that the content is all of it.
    fn resize(&mut self, sticky: &Sticky) {
        if let Some(content) = self.contents.last_mut()
            && content.buffer == sticky.buffer
            && sticky.bsize == Some(content.text.len() + usize::from(sticky.dotted))
        {
            content.whole = true;
        }
    }

    fn last(&mut self, change: impl FnOnce(&mut Content)) {
        if let Some(content) = self.contents.last_mut() {
            change(content);
        }
    }

    fn not_understood(&mut self, what: &str) {
        if self.odd.is_none() {
            let what: String = what.chars().take(40).collect();
            self.odd = Some(what);
        }
    }

    fn metadata(&mut self, value: &str) {
        for pair in value.split(',') {
            match pair.trim().split_once(' ') {
                Some(("malware_family", family)) => self.family = Some(family.trim().to_owned()),
                Some(("confidence", word)) => {
                    // The words of the public rule sets, as the middles of three equal parts.
                    self.confidence = match word.trim() {
                        "High" => Some(85),
                        "Medium" => Some(50),
                        "Low" => Some(15),
                        _ => None,
                    };
                }
                _ => {}
            }
        }
    }

    /// The one thing that the contents ask for; `None` when there is no content.
    pub(super) fn condition(&self) -> Result<Option<Condition>, String> {
        match self.contents.as_slice() {
            [] => Ok(None),
            [one] => single(one).map(Some),
            [one, other] => {
                let (host, uri) = match (one.buffer, other.buffer) {
                    (Some(Buffer::Host), Some(Buffer::Uri)) => (one, other),
                    (Some(Buffer::Uri), Some(Buffer::Host)) => (other, one),
                    _ => return Err("it joins several contents".to_owned()),
                };
                url(host, uri).map(Some)
            }
            _ => Err("it joins several contents".to_owned()),
        }
    }
}

impl Content {
    const fn is_whole(&self) -> bool {
        self.whole || (self.begins && self.ends)
    }
}

fn single(content: &Content) -> Result<Condition, String> {
    let of = |text: &str, kind, exact| {
        Ok(Condition { text: text.to_owned(), hint: Hint::Kind(kind), exact })
    };
    match content.buffer {
        None => Err("a content anywhere in the payload".to_owned()),
        Some(Buffer::Certificate) => of(&content.text, Kind::Certificate, None),
        Some(Buffer::Ja3) => of(&content.text, Kind::Ja3, None),
        Some(Buffer::Ja4) => of(&content.text, Kind::Ja4, None),
        Some(Buffer::Uri) => Err("a path without a host".to_owned()),
        Some(Buffer::UserAgent) if content.is_whole() => of(&content.text, Kind::UserAgent, None),
        Some(Buffer::UserAgent) => Err("a part of a User-Agent".to_owned()),
        Some(Buffer::Host | Buffer::Name) => {
            let text = content.text.trim_start_matches('.');
            if text.parse::<std::net::IpAddr>().is_ok() {
                return Ok(Condition { text: text.to_owned(), hint: Hint::Ip, exact: None });
            }
            if content.is_whole() && !content.dotted {
                of(text, Kind::Domain, Some(true))
            } else if content.ends || content.is_whole() {
                of(text, Kind::Domain, Some(false))
            } else {
                Err("a part of a name".to_owned())
            }
        }
    }
}

fn url(host: &Content, uri: &Content) -> Result<Condition, String> {
    if !host.is_whole() || host.dotted {
        return Err("a URL of a part of a host".to_owned());
    }
    if !uri.text.starts_with('/') {
        return Err("a part of a path".to_owned());
    }
    let text = format!("http://{}{}", host.text, uri.text);
    let hint = Hint::Kind(Kind::Url);
    if uri.is_whole() {
        Ok(Condition { text, hint, exact: None })
    } else if uri.begins && uri.text.ends_with('/') {
        Ok(Condition { text: format!("{text}*"), hint, exact: None })
    } else {
        Err("a part of a path".to_owned())
    }
}

/// Options end with `;`, but for one in quotation marks or behind a backslash.
fn split(body: &str) -> Option<Vec<&str>> {
    let mut options = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (at, byte) in body.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => {
                let option = body.get(start..at)?.trim();
                if !option.is_empty() {
                    options.push(option);
                }
                start = at + 1;
                if options.len() > MOST_OPTIONS {
                    return None;
                }
            }
            _ => {}
        }
    }
    (!quoted && body.get(start..)?.trim().is_empty()).then_some(options)
}

/// Undoes `\"`, `\;` and `|68 65 78|`; contents that are no text are none of ours.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' => bytes.push(rest.next()?),
            b'|' => {
                let mut digits =
                    rest.by_ref().take_while(|byte| *byte != b'|').filter(|b| *b != b' ');
                while let Some(high) = digits.next() {
                    let digit = |byte: u8| char::from(byte).to_digit(16);
                    let octet = digit(high)? << 4 | digit(digits.next()?)?;
                    bytes.push(u8::try_from(octet).ok()?);
                }
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}
