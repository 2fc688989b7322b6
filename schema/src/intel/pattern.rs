//! The part of the STIX pattern language that names single values: comparisons joined by OR, and by
//! AND where that joins an address with a port.

use super::observable::Kind;
use super::report::Hint;

/// Comparisons of one pattern that are read.
const MOST: usize = 1024;
/// Parentheses within parentheses.
const DEPTH: usize = 32;

/// A value that a pattern names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) text: String,
    pub(super) hint: Hint,
}

/// What a pattern names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) values: Vec<Value>,
    /// Object paths of alternatives that are not looked for on the wire.
    pub(super) not_looked_for: Vec<String>,
}

/// Reads a pattern.
///
/// What is joined by AND must be an address and a port; an alternative that says more than can be
/// looked for is left out whole, since half of it would say something else.
pub(super) fn read(text: &str) -> Result<Found, String> {
    let tokens = tokens(text)?;
    let mut reader = Reader { tokens: &tokens, at: 0, depth: 0 };
    let alternatives = reader.alternatives(true)?;
    if reader.at != tokens.len() {
        return Err(format!("its pattern has {} where nothing is understood", reader.here()));
    }
    let mut found = Found::default();
    for parts in alternatives {
        match value_of(&parts) {
            Ok(value) => found.values.push(value),
            Err(why) => found.not_looked_for.push(why),
        }
    }
    Ok(found)
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Sign(char),
    /// An operator, a keyword or an object path.
    Word(String),
    Text(String),
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if tokens.len() > MOST * 4 {
            return Err("its pattern is too long".to_owned());
        }
        let len = match first {
            '(' | ')' | '[' | ']' | '=' | ',' => {
                tokens.push(Token::Sign(first));
                1
            }
            '\'' => {
                let (value, len) = quoted(rest).ok_or("its pattern has an open quotation mark")?;
                tokens.push(Token::Text(value));
                len
            }
            _ => {
                let len = word_len(rest);
                if len == 0 {
                    return Err(format!("its pattern has {first:?} where nothing is understood"));
                }
                tokens.push(Token::Word(rest.get(..len).unwrap_or_default().to_owned()));
                len
            }
        };
        rest = rest.get(len..).unwrap_or_default().trim_start();
    }
    Ok(tokens)
}

/// An object path may hold a quoted part, as in `file:hashes.'SHA-256'`, and an index in brackets.
fn word_len(text: &str) -> usize {
    let mut len = 0;
    let mut signs = text.chars().peekable();
    let mut in_quotes = false;
    while let Some(sign) = signs.next() {
        let goes_on = in_quotes
            || sign.is_alphanumeric()
            || matches!(sign, ':' | '.' | '_' | '-' | '!' | '<' | '>' | '*')
            || (sign == '\'' && len > 0);
        if !goes_on {
            break;
        }
        in_quotes ^= sign == '\'';
        len += sign.len_utf8();
        // `values[0]`: the bracket belongs to the path when a number or star follows.
        if !in_quotes && signs.peek() == Some(&'[') {
            break;
        }
    }
    len
}

fn quoted(text: &str) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut signs = text.char_indices().skip(1);
    while let Some((at, sign)) = signs.next() {
        match sign {
            '\\' => value.push(signs.next()?.1),
            '\'' => return Some((value, at + 1)),
            sign => value.push(sign),
        }
    }
    None
}

#[derive(Clone, Debug)]
struct Comparison {
    path: String,
    operator: String,
    value: String,
}

struct Reader<'t> {
    tokens: &'t [Token],
    at: usize,
    depth: usize,
}

/// Alternatives, each of comparisons that must all hold.
type Alternatives = Vec<Vec<Comparison>>;

impl Reader<'_> {
    fn here(&self) -> String {
        match self.tokens.get(self.at) {
            None => "its end".to_owned(),
            Some(Token::Sign(sign)) => format!("\"{sign}\""),
            Some(Token::Word(word) | Token::Text(word)) => {
                format!("\"{}\"", word.chars().take(40).collect::<String>())
            }
        }
    }

    fn sign(&mut self, sign: char) -> bool {
        let is = self.tokens.get(self.at) == Some(&Token::Sign(sign));
        self.at += usize::from(is);
        is
    }

    fn word(&mut self, word: &str) -> bool {
        let is = matches!(self.tokens.get(self.at), Some(Token::Word(here)) if here == word);
        self.at += usize::from(is);
        is
    }

    /// Alternatives within brackets, or outside them.
    fn alternatives(&mut self, outside: bool) -> Result<Alternatives, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err("its pattern is nested too deep".to_owned());
        }
        let mut all = self.joined(outside)?;
        while self.word("OR") {
            all.extend(self.joined(outside)?);
            if all.len() > MOST {
                return Err("its pattern has too many alternatives".to_owned());
            }
        }
        self.depth -= 1;
        Ok(all)
    }

    fn joined(&mut self, outside: bool) -> Result<Alternatives, String> {
        let mut all = self.single(outside)?;
        loop {
            if self.word("FOLLOWEDBY") {
                return Err("its pattern has FOLLOWEDBY, which is not understood".to_owned());
            }
            if !self.word("AND") {
                return Ok(all);
            }
            if outside {
                return Err(
                    "its pattern joins observations by AND, which is not understood".to_owned()
                );
            }
            let more = self.single(outside)?;
            if all.len() * more.len() > MOST {
                return Err("its pattern has too many alternatives".to_owned());
            }
            all = all
                .iter()
                .flat_map(|left| more.iter().map(|right| [left.as_slice(), right].concat()))
                .collect();
            if all.iter().any(|parts| parts.len() > 16) {
                return Err("its pattern joins too much by AND".to_owned());
            }
        }
    }

    fn single(&mut self, outside: bool) -> Result<Alternatives, String> {
        if self.sign('(') {
            let all = self.alternatives(outside)?;
            return self.closed(')', all);
        }
        if outside {
            if !self.sign('[') {
                return Err(format!("its pattern has {} where [ is expected", self.here()));
            }
            let all = self.alternatives(false)?;
            let all = self.closed(']', all)?;
            return match self.tokens.get(self.at) {
                Some(Token::Word(word))
                    if !matches!(word.as_str(), "OR" | "AND" | "FOLLOWEDBY") =>
                {
                    Err(format!("its pattern has the qualifier {word}, which is not understood"))
                }
                _ => Ok(all),
            };
        }
        self.comparison()
    }

    fn closed(&mut self, sign: char, all: Alternatives) -> Result<Alternatives, String> {
        if self.sign(sign) {
            Ok(all)
        } else {
            Err(format!("its pattern has {} where {sign} is expected", self.here()))
        }
    }

    fn comparison(&mut self) -> Result<Alternatives, String> {
        let Some(Token::Word(path)) = self.tokens.get(self.at) else {
            return Err(format!(
                "its pattern has {} where an object path is expected",
                self.here()
            ));
        };
        self.at += 1;
        let mut path = path.clone();
        // An index into a list, such as `[0]` or `[*]`.
        if self.sign('[') {
            self.at += 1;
            if !self.sign(']') {
                return Err("its pattern has an open bracket".to_owned());
            }
            if let Some(Token::Word(more)) = self.tokens.get(self.at)
                && more.starts_with('.')
            {
                path.push_str(more);
                self.at += 1;
            }
        }
        let negated = self.word("NOT");
        let operator = if self.sign('=') {
            "=".to_owned()
        } else {
            let here = self.here();
            match self.tokens.get(self.at) {
                Some(Token::Word(word)) => {
                    self.at += 1;
                    // `!=` and `>=` come in two pieces.
                    let _ = self.sign('=');
                    word.clone()
                }
                _ => return Err(format!("its pattern has {here} where an operator is expected")),
            }
        };
        let operator = if negated { format!("NOT {operator}") } else { operator };
        let values = if self.sign('(') { self.list()? } else { vec![self.value()?] };
        if operator == "IN" || values.len() == 1 {
            let operator = if operator == "IN" { "=".to_owned() } else { operator };
            let of =
                |value| vec![Comparison { path: path.clone(), operator: operator.clone(), value }];
            return Ok(values.into_iter().map(of).collect());
        }
        Err("its pattern has a list where a value is expected".to_owned())
    }

    fn list(&mut self) -> Result<Vec<String>, String> {
        let mut values = vec![self.value()?];
        while self.sign(',') {
            values.push(self.value()?);
            if values.len() > MOST {
                return Err("its pattern has too many values".to_owned());
            }
        }
        if self.sign(')') {
            Ok(values)
        } else {
            Err(format!("its pattern has {} where ) is expected", self.here()))
        }
    }

    fn value(&mut self) -> Result<String, String> {
        match self.tokens.get(self.at) {
            Some(Token::Text(value) | Token::Word(value)) => {
                self.at += 1;
                Ok(value.clone())
            }
            _ => Err(format!("its pattern has {} where a value is expected", self.here())),
        }
    }
}

/// What comparisons that must all hold stand for.
fn value_of(parts: &[Comparison]) -> Result<Value, String> {
    let paths = || parts.iter().map(|part| part.path.as_str()).collect::<Vec<_>>().join(" AND ");
    if let Some(odd) = parts.iter().find(|part| part.operator != "=" && part.operator != "ISSUBSET")
    {
        return Err(format!("{} {}", odd.path, odd.operator));
    }
    // The kind of an address or protocol beside the value says nothing new.
    let telling: Vec<&Comparison> = parts
        .iter()
        .filter(|part| !part.path.ends_with(".type") && !part.path.contains(":protocols"))
        .collect();
    match telling.as_slice() {
        [one] => hint_of(&one.path)
            .map(|hint| Value { text: one.value.clone(), hint })
            .ok_or_else(|| one.path.clone()),
        [one, other] => {
            let is_port = |part: &Comparison| part.path == "network-traffic:dst_port";
            let (address, port) = if is_port(other) { (one, other) } else { (other, one) };
            let is_address = matches!(hint_of(&address.path), Some(Hint::Ip));
            if !is_port(port) || !is_address {
                return Err(paths());
            }
            let text = if address.value.contains(':') {
                format!("[{}]:{}", address.value, port.value)
            } else {
                format!("{}:{}", address.value, port.value)
            };
            Ok(Value { text, hint: Hint::Kind(Kind::Endpoint) })
        }
        _ => Err(paths()),
    }
}

fn hint_of(path: &str) -> Option<Hint> {
    let path: String = path.chars().filter(|sign| *sign != '\'' && *sign != '"').collect();
    Some(match path.as_str() {
        "ipv4-addr:value"
        | "ipv6-addr:value"
        | "network-traffic:dst_ref.value"
        | "network-traffic:src_ref.value" => Hint::Ip,
        "domain-name:value" => Hint::Kind(Kind::Domain),
        "url:value" => Hint::Kind(Kind::Url),
        "x509-certificate:hashes.MD5"
        | "x509-certificate:hashes.SHA-1"
        | "x509-certificate:hashes.SHA-256" => Hint::Kind(Kind::Certificate),
        "network-traffic:extensions.http-request-ext.request_header.User-Agent" => {
            Hint::Kind(Kind::UserAgent)
        }
        "network-traffic:extensions.tls-ext.ja3" | "network-traffic:x_ja3" => Hint::Kind(Kind::Ja3),
        "network-traffic:x_ja4" => Hint::Kind(Kind::Ja4),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<String> {
        read(text).unwrap().values.into_iter().map(|value| value.text).collect()
    }

    #[test]
    fn comparisons_joined_by_or_and_an_address_with_its_port_are_read() {
        for (text, expected) in [
            ("[ipv4-addr:value = '203.0.113.9']", vec!["203.0.113.9"]),
            (
                "[ipv4-addr:value = '203.0.113.9' OR domain-name:value='c2.example']",
                vec!["203.0.113.9", "c2.example"],
            ),
            (
                "[url:value = 'http://c2.example/a\\'b'] OR [domain-name:value = 'd2.example']",
                vec!["http://c2.example/a'b", "d2.example"],
            ),
            (
                "[network-traffic:dst_ref.type = 'ipv4-addr' AND network-traffic:dst_ref.value = '203.0.113.9' AND network-traffic:dst_port = 443]",
                vec!["203.0.113.9:443"],
            ),
            (
                "[(ipv6-addr:value = '2001:db8::1' OR ipv6-addr:value = '2001:db8::2') AND network-traffic:dst_port = 53]",
                vec!["[2001:db8::1]:53", "[2001:db8::2]:53"],
            ),
            ("[domain-name:value IN ('a.example', 'b.example')]", vec!["a.example", "b.example"]),
            ("[x509-certificate:hashes.'SHA-256' = 'aa']", vec!["aa"]),
            ("[ipv4-addr:value ISSUBSET '203.0.113.0/24']", vec!["203.0.113.0/24"]),
        ] {
            assert_eq!(values(text), expected, "{text}");
        }
    }

    #[test]
    fn what_can_not_be_looked_for_whole_is_not_looked_for_in_half() {
        for text in [
            "[file:hashes.'SHA-256' = 'aa']",
            "[domain-name:value = 'c2.example' AND file:name = 'x']",
            "[domain-name:value != 'c2.example']",
            "[domain-name:value LIKE '%.example']",
            "[domain-name:value NOT = 'c2.example']",
        ] {
            let found = read(text).unwrap();
            assert!(
                found.values.is_empty() && found.not_looked_for.len() == 1,
                "{text}: {found:?}"
            );
        }
        for text in [
            "",
            "[",
            "[]",
            "[domain-name:value = 'a.example'] FOLLOWEDBY [domain-name:value = 'b.example']",
            "[domain-name:value = 'a.example'] WITHIN 5 SECONDS",
            "[domain-name:value = 'a.example'] AND [domain-name:value = 'b.example']",
            "[domain-name:value = 'a.example",
            "domain-name:value = 'a.example'",
            "[domain-name:value = ]",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read(&format!("[{}", "(".repeat(100_000))).is_err());
        assert!(read(&"[domain-name:value = 'a.example'] OR ".repeat(5000)).is_err());
    }
}
