//! Separated values, their columns known by their names, which stand in the first line or, as
//! abuse.ch writes them, in the last comment before the data.

use super::entry::{Facts, Id};
use super::observable::{Kind, Observable};
use super::report::{Hint, Intake, Offer};
use crate::finding::{Grade, IndicatorClass};
use crate::time::Timestamp;
use std::borrow::Cow;

/// Columns that are looked at; a line has no more that mean anything.
const COLUMNS: usize = 64;
/// Columns that most files have.
const FEW_COLUMNS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Class,
    Confidence,
    Grade,
    Id,
    Label,
    Other,
    Port,
    Seen,
    Source,
    Type,
    Until,
    /// A value, of this kind if its name says so.
    Value(Hint),
}

/// What the header says.
#[derive(Debug)]
pub(super) struct Csv {
    columns: Vec<Column>,
    separator: Option<char>,
    /// The word for a type that was read last, and what it means: the next line mostly says the same.
    last: (String, Option<Hint>),
}

impl Default for Csv {
    fn default() -> Self {
        Self { columns: Vec::new(), separator: None, last: (String::new(), hint_of("")) }
    }
}

impl Csv {
    /// Whether a text has a line that names columns before its first value.
    pub(super) fn is_csv(text: &str) -> bool {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        for line in lines.take(100) {
            let is_comment = line.starts_with('#');
            if header(line.trim_start_matches('#').trim(), is_comment).is_some() {
                return true;
            }
            if !is_comment {
                return false;
            }
        }
        false
    }

    pub(super) fn line(&mut self, number: u32, text: &str, intake: &mut Intake<'_>) {
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        if let Some(comment) = text.strip_prefix('#') {
            if let Some((columns, separator)) = header(comment.trim(), true) {
                (self.columns, self.separator) = (columns, Some(separator));
            }
            return;
        }
        if self.columns.is_empty()
            && let Some((columns, separator)) = header(text, false)
        {
            (self.columns, self.separator) = (columns, Some(separator));
            return;
        }
        let separator = self.separator.unwrap_or(',');
        let Some(fields) = split(text, separator) else {
            let why = "has a quotation mark that is not closed".to_owned();
            return intake.leave(Id::Line(number), text, "malformed line", why);
        };
        if self.columns.is_empty() {
            headless(number, &fields, intake);
        } else {
            self.row(number, &fields, intake);
        }
    }

    fn row(&mut self, number: u32, fields: &[Cow<'_, str>], intake: &mut Intake<'_>) {
        let mut row = Row { facts: Facts::of_line(number), ..Row::default() };
        for (column, field) in self.columns.iter().zip(fields) {
            let field = trimmed(field);
            if !matches!(field, "" | "-" | "None" | "null" | "NULL" | "n/a") {
                row.read(*column, field);
            }
        }
        let place = Id::Line(number);
        let Some(value) = row.value else {
            return intake.leave(place, "", "no value", "has no value".to_owned());
        };
        if let Some(kind) = row.kind
            && kind != self.last.0
        {
            self.last = (kind.to_owned(), hint_of(kind));
        }
        let hint = match row.kind.map(|_| self.last.1) {
            None => row.hint,
            Some(Some(hint)) => hint,
            Some(None) => {
                let why = format!("{} is not looked for", row.kind.unwrap_or_default());
                return intake.leave(place, value, "kind not looked for", why);
            }
        };
        // An address whose port stands beside it.
        let joined = row.port.filter(|_| value.parse::<std::net::IpAddr>().is_ok()).map(|port| {
            if value.contains(':') {
                format!("[{value}]:{port}")
            } else {
                format!("{value}:{port}")
            }
        });
        let (text, hint) = match &joined {
            Some(joined) => (joined.as_str(), Hint::Kind(Kind::Endpoint)),
            None => (value, hint),
        };
        intake.offer(&Offer { seen: row.seen, ..Offer::new(text, hint, row.facts) });
    }
}

struct Row<'a> {
    facts: Facts<'a>,
    value: Option<&'a str>,
    hint: Hint,
    kind: Option<&'a str>,
    port: Option<&'a str>,
    seen: Option<Timestamp>,
}

impl Default for Row<'_> {
    fn default() -> Self {
        Self {
            facts: Facts::of_line(0),
            value: None,
            hint: Hint::Any,
            kind: None,
            port: None,
            seen: None,
        }
    }
}

impl<'a> Row<'a> {
    fn read(&mut self, column: Column, field: &'a str) {
        match column {
            Column::Class if field.eq_ignore_ascii_case("sinkhole") => {
                self.facts.class = IndicatorClass::Sinkhole;
            }
            Column::Class | Column::Other => {}
            Column::Confidence => self.facts.confidence = field.parse().ok().filter(|n| *n <= 100),
            Column::Grade => self.facts.grade = grade_of(field),
            Column::Id => self.facts.id = Id::Text(field),
            // The first that says something: families stand before tags.
            Column::Label if self.facts.labels.is_empty() => self.facts.labels = field,
            Column::Label => {}
            Column::Port => self.port = Some(field).filter(|port| *port != "0"),
            Column::Seen => self.seen = self.seen.max(date(field)),
            Column::Source => self.facts.source = Some(field),
            Column::Type => self.kind = Some(field),
            Column::Until => self.facts.valid_until = date(field),
            Column::Value(hint) if self.value.is_none() => {
                (self.value, self.hint) = (Some(field), hint);
            }
            Column::Value(_) => {}
        }
    }
}

/// Without a header the first column counts that is an indicator at all.
fn headless(number: u32, fields: &[Cow<'_, str>], intake: &mut Intake<'_>) {
    let facts = Facts::of_line(number);
    let known = fields.iter().map(|field| field.trim()).find(|field| {
        let plain = super::observable::refang(field);
        match intake.options.kind {
            Some(kind) => Observable::parse_as(&plain, kind).is_ok(),
            None => Observable::parse(&plain).is_ok(),
        }
    });
    let first = fields.first().map_or("", |field| field.trim());
    intake.offer(&Offer::new(known.unwrap_or(first), Hint::Any, facts));
}

pub(super) fn grade_of(text: &str) -> Option<Grade> {
    match text.to_ascii_lowercase().as_str() {
        "malicious" => Some(Grade::Malicious),
        "odd" => Some(Grade::Odd),
        "suspect" | "suspicious" => Some(Grade::Suspect),
        _ => None,
    }
}

/// The columns and the separator, if a line names columns and one of them is a value.
fn header(line: &str, needs_two: bool) -> Option<(Vec<Column>, char)> {
    let separator = [',', ';', '\t', '|']
        .into_iter()
        .max_by_key(|separator| line.matches(*separator).count())
        .filter(|separator| line.contains(*separator));
    if needs_two && separator.is_none() {
        return None;
    }
    let separator = separator.unwrap_or(',');
    let names = split(line, separator)?;
    let lower: Vec<String> = names
        .iter()
        .map(|name| name.trim().to_ascii_lowercase().replace([' ', '-'], "_"))
        .collect();
    // SSLBL lists hashes of certificates; elsewhere a hash is one of a file.
    let is_sslbl = lower.iter().any(|name| name == "listingreason");
    let columns: Vec<Column> = lower.iter().map(|name| column(name, is_sslbl)).collect();
    let has_value = columns.iter().any(|column| matches!(column, Column::Value(_)));
    let known = columns.iter().filter(|column| **column != Column::Other).count();
    (has_value && (known > 1 || columns.len() == 1)).then_some((columns, separator))
}

fn column(name: &str, is_sslbl: bool) -> Column {
    match name {
        "value" | "indicator" | "ioc" | "ioc_value" | "indicator_value" | "observable" => {
            Column::Value(Hint::Any)
        }
        "ip" | "dst_ip" | "dstip" | "ip_address" | "ipaddress" | "address" => {
            Column::Value(Hint::Ip)
        }
        "domain" | "hostname" | "fqdn" => Column::Value(Hint::Kind(Kind::Domain)),
        "url" => Column::Value(Hint::Kind(Kind::Url)),
        "ja3" | "ja3_md5" => Column::Value(Hint::Kind(Kind::Ja3)),
        "ja4" => Column::Value(Hint::Kind(Kind::Ja4)),
        "sha1" if is_sslbl => Column::Value(Hint::Kind(Kind::Certificate)),
        "user_agent" | "useragent" => Column::Value(Hint::Kind(Kind::UserAgent)),
        "type" | "ioc_type" | "indicator_type" | "kind" => Column::Type,
        "port" | "dst_port" | "dstport" => Column::Port,
        "confidence" | "confidence_level" => Column::Confidence,
        "source" => Column::Source,
        "first_seen" | "first_seen_utc" | "firstseen" | "dateadded" | "listingdate"
        | "last_seen" | "last_seen_utc" | "lastseen" | "last_online" => Column::Seen,
        "valid_until" | "expires" | "expiration" => Column::Until,
        "malware_printable" | "malware" | "family" | "listingreason" | "tags" | "label"
        | "labels" => Column::Label,
        "id" | "ioc_id" => Column::Id,
        "grade" => Column::Grade,
        "class" => Column::Class,
        _ => Column::Other,
    }
}

/// What a word for a type means; `None` when such things are not looked for.
pub(super) fn hint_of(word: &str) -> Option<Hint> {
    let word = word.to_ascii_lowercase().replace('_', "-");
    Some(match word.as_str() {
        "ip" | "ipv4" | "ipv6" | "ipv4-addr" | "ipv6-addr" | "ip-dst" | "ip-src" | "address"
        | "addr" | "cidr" | "network" | "subnet" => Hint::Ip,
        "ip:port" | "ip-port" | "endpoint" => Hint::Kind(Kind::Endpoint),
        "domain" | "domain-name" | "fqdn" | "host" | "hostname" => Hint::Kind(Kind::Domain),
        "uri" | "url" => Hint::Kind(Kind::Url),
        "ja3" | "ja3-fingerprint-md5" | "ja3-md5" => Hint::Kind(Kind::Ja3),
        "ja4" | "ja4-fingerprint" => Hint::Kind(Kind::Ja4),
        "cert"
        | "certificate"
        | "ssl-cert"
        | "x509-fingerprint-md5"
        | "x509-fingerprint-sha1"
        | "x509-fingerprint-sha256" => Hint::Kind(Kind::Certificate),
        "user-agent" | "useragent" => Hint::Kind(Kind::UserAgent),
        _ => return None,
    })
}

/// A date as feeds write it: with or without time, `UTC` or `Z`.
pub(super) fn date(text: &str) -> Option<Timestamp> {
    let text = text.trim().trim_end_matches("UTC").trim_end_matches('Z').trim_end();
    let text = text.strip_suffix("+00:00").unwrap_or(text);
    let whole = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        _ => format!("{text}Z"),
    };
    whole.parse().ok()
}

/// The fields of a line; `None` when a quotation mark is not closed.
fn split(line: &str, separator: char) -> Option<Vec<Cow<'_, str>>> {
    let mark = u8::try_from(separator).ok()?;
    let mut fields = Vec::with_capacity(FEW_COLUMNS);
    let mut rest = line;
    while fields.len() < COLUMNS {
        let begin = rest.trim_start_matches([' ', '\u{a0}']);
        let after = if begin.as_bytes().first() == Some(&b'"') {
            let (field, after) = unquote(begin.get(1..)?)?;
            fields.push(field);
            after.trim_start()
        } else {
            let end = rest.bytes().position(|byte| byte == mark).unwrap_or(rest.len());
            let (field, after) = rest.split_at_checked(end)?;
            fields.push(Cow::Borrowed(trimmed(field)));
            after
        };
        if after.as_bytes().first() != Some(&mark) {
            break;
        }
        rest = after.get(1..)?;
    }
    Some(fields)
}

/// The field without blanks around it, which most have none of.
fn trimmed(field: &str) -> &str {
    let is_bare = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_graphic);
    let bytes = field.as_bytes();
    if is_bare(bytes.first()) && is_bare(bytes.last()) { field } else { field.trim() }
}

/// The text up to the closing quotation mark, where two stand for one, and what follows.
fn unquote(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = text.find('"')?;
    let (field, rest) = (text.get(..end)?, text.get(end + 1..)?);
    if !rest.starts_with('"') {
        return Some((Cow::Borrowed(field), rest));
    }
    let mut whole = field.to_owned();
    let mut rest = rest;
    while let Some(more) = rest.strip_prefix('"') {
        whole.push('"');
        let end = more.find('"')?;
        whole.push_str(more.get(..end)?);
        rest = more.get(end + 1..)?;
    }
    Some((Cow::Owned(whole), rest))
}

#[cfg(test)]
mod tests {
    use super::{date, split};

    #[test]
    fn fields_are_split_as_spreadsheets_do() {
        let fields = |line| split(line, ',').map(|f| f.into_iter().collect::<Vec<_>>().join("~"));
        assert_eq!(fields("a,b ,\"c,d\", \"e\"\"f\""), Some("a~b~c,d~e\"f".to_owned()));
        assert_eq!(fields("a,\"b"), None);
        assert_eq!(fields(",,"), Some("~~".to_owned()));
    }

    #[test]
    fn dates_are_read_as_feeds_write_them() {
        for text in ["2026-01-02 03:04:05", "2026-01-02 03:04:05 UTC", "2026-01-02T03:04:05Z"] {
            assert_eq!(date(text), "2026-01-02T03:04:05Z".parse().ok(), "{text}");
        }
        assert_eq!(date("2026-01-02"), "2026-01-02T00:00:00Z".parse().ok());
        assert_eq!(date("yesterday"), None);
        assert_eq!(date("äöüäö"), None);
    }
}
