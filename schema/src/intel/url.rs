//! A URL as it is looked for: host, port unless usual, path and query; the scheme does not count.

use super::observable::{ParseObservableError, check_name};
use std::net::IpAddr;

/// Bytes of the longest URL that is compared.
const LONGEST: usize = 2048;

/// A URL in its normal form: `host[:port]/path[?query]`, host in lower case, a usual port left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UrlPattern {
    text: String,
    host: usize,
    prefix: bool,
}

impl UrlPattern {
    /// Bytes of the longest normal form.
    pub const LONGEST: usize = LONGEST;

    /// Reads a URL; one that ends with `/*` stands for everything below that path.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, ParseObservableError> {
        let shape = ParseObservableError::Shape;
        if text.len() > LONGEST {
            return Err(ParseObservableError::TooLong);
        }
        if text.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
            return Err(shape);
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            None => ("", text),
        };
        if !scheme.is_empty()
            && !scheme.eq_ignore_ascii_case("http")
            && !scheme.eq_ignore_ascii_case("https")
        {
            return Err(shape);
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(end).ok_or(shape)?;
        // Without a scheme an address and a number is a network that went wrong.
        let is_number = target.len() <= 4 && target.bytes().skip(1).all(|b| b.is_ascii_digit());
        let is_network = is_number && authority.parse::<IpAddr>().is_ok();
        if scheme.is_empty() && (target.is_empty() || is_network) {
            return Err(shape);
        }
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (host, port) = split_port(authority).ok_or(shape)?;
        let mut normal = String::with_capacity(text.len() + 2);
        push_host(&mut normal, host)?;
        let len = normal.len();
        if let Some(port) = port.filter(|port| !is_usual(*port)) {
            normal.push_str(&format!(":{port}"));
        }
        let target = target.split_once('#').map_or(target, |(target, _)| target);
        if !target.starts_with('/') {
            normal.push('/');
        }
        let (target, prefix) = match target.strip_suffix("/*") {
            Some(above) => (above, true),
            None => (target, false),
        };
        normal.push_str(target);
        if prefix && !normal.ends_with('/') {
            normal.push('/');
        }
        Ok(Self { text: normal, host: len, prefix })
    }

    /// The normal form of what a request asks for, written into `room`, and its host: the target
    /// may be a path or, for a proxy, a whole URL, which then says the host. `None` when it is no
    /// web address or does not fit.
    pub fn of_request<'r>(
        host: &str,
        target: &[u8],
        port: u16,
        room: &'r mut [u8],
    ) -> Option<(&'r str, &'r str)> {
        let target = std::str::from_utf8(target).ok()?;
        let (authority, path, port) = match target.split_once("://") {
            Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                let (authority, path) = rest.split_at_checked(end)?;
                // The port of the flow is then the proxy's.
                (authority, path, 80)
            }
            _ => (host, target, port),
        };
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (host, named) = split_port(authority)?;
        let host = host.strip_suffix('.').unwrap_or(host);
        let mut room = Room { bytes: room, len: 0 };
        room.push(host.as_bytes())?;
        room.bytes.get_mut(..host.len())?.make_ascii_lowercase();
        let port = named.unwrap_or(port);
        if !is_usual(port) {
            room.push(b":")?;
            room.push_number(port)?;
        }
        if !path.starts_with('/') {
            room.push(b"/")?;
        }
        room.push(path.as_bytes())?;
        let Room { bytes, len } = room;
        let text = std::str::from_utf8(bytes.get(..len)?).ok()?;
        Some((text, text.get(..host.len())?))
    }

    /// The normal form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it stands for everything that begins so.
    #[must_use]
    pub const fn is_prefix(&self) -> bool {
        self.prefix
    }

    /// Its host, a name or an address.
    #[must_use]
    pub fn host(&self) -> &str {
        self.text.get(..self.host).unwrap_or_default()
    }

    /// Its host, if that is an address.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.host().trim_start_matches('[').trim_end_matches(']').parse().ok()
    }
}

/// Bytes that are filled from the front.
struct Room<'r> {
    bytes: &'r mut [u8],
    len: usize,
}

impl Room<'_> {
    fn push(&mut self, more: &[u8]) -> Option<()> {
        self.bytes.get_mut(self.len..self.len + more.len())?.copy_from_slice(more);
        self.len += more.len();
        Some(())
    }

    fn push_number(&mut self, number: u16) -> Option<()> {
        let digits = [10_000, 1000, 100, 10, 1].map(|unit| b'0' + (number / unit % 10) as u8);
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count().min(4);
        self.push(digits.get(zeros..)?)
    }
}

/// Ports that nobody writes.
const fn is_usual(port: u16) -> bool {
    matches!(port, 80 | 443)
}

fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (inner, after) = rest.split_once(']')?;
        let host = authority.get(..inner.len() + 2)?;
        return match after.strip_prefix(':') {
            None if after.is_empty() => Some((host, None)),
            None => None,
            Some(port) => Some((host, Some(port.parse().ok()?))),
        };
    }
    match authority.split_once(':') {
        None => Some((authority, None)),
        Some((host, port)) => Some((host, Some(port.parse().ok().filter(|port| *port != 0)?))),
    }
}

/// Appends a host in its normal form.
fn push_host(normal: &mut String, host: &str) -> Result<(), ParseObservableError> {
    // What is no number and in no brackets has no colon, and is no address.
    let may_be_address = host.starts_with(|sign: char| sign.is_ascii_digit() || sign == '[');
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    if may_be_address && let Ok(address) = plain.parse::<IpAddr>() {
        if address.is_loopback() || address.is_unspecified() {
            return Err(ParseObservableError::Unroutable);
        }
        normal.push_str(&match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        });
        return Ok(());
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    match check_name(host)? {
        0 | 1 => Err(ParseObservableError::OneLabel),
        _ => {
            normal.extend(host.chars().map(|sign| sign.to_ascii_lowercase()));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheme_usual_port_case_of_the_host_user_and_fragment_do_not_count() {
        for (text, normal) in [
            ("http://C2.Example/Gate.php?id=1#top", "c2.example/Gate.php?id=1"),
            ("https://c2.example:443", "c2.example/"),
            ("http://user:pw@c2.example:8080/a", "c2.example:8080/a"),
            ("c2.example/a", "c2.example/a"),
            ("http://203.0.113.9:80/x", "203.0.113.9/x"),
            ("http://[2001:DB8::1]:81/x", "[2001:db8::1]:81/x"),
            ("http://c2.example?x", "c2.example/?x"),
        ] {
            let url = UrlPattern::parse(text).unwrap();
            assert_eq!((url.as_str(), url.is_prefix()), (normal, false), "{text}");
        }
        for (text, normal) in
            [("http://c2.example/a/*", "c2.example/a/"), ("http://c2.example/*", "c2.example/")]
        {
            let url = UrlPattern::parse(text).unwrap();
            assert_eq!((url.as_str(), url.is_prefix()), (normal, true), "{text}");
        }
    }

    #[test]
    fn a_request_has_the_normal_form_of_the_url_that_it_asks_for() {
        for (host, target, port, normal) in [
            ("C2.Example", "/a?b", 80, "c2.example/a?b"),
            ("c2.example:8080", "/a", 80, "c2.example:8080/a"),
            ("c2.example", "/a", 8080, "c2.example:8080/a"),
            ("c2.example:80", "/a", 3128, "c2.example/a"),
            ("proxy.example", "http://C2.example/a", 3128, "c2.example/a"),
            ("proxy.example", "http://c2.example:80/a", 3128, "c2.example/a"),
            ("[2001:db8::1]", "/", 80, "[2001:db8::1]/"),
            ("c2.example.", "", 80, "c2.example/"),
        ] {
            let mut room = [0; 100];
            let read = UrlPattern::of_request(host, target.as_bytes(), port, &mut room);
            assert_eq!(read.map(|(url, _)| url), Some(normal), "{host} {target}");
        }
        assert_eq!(UrlPattern::of_request("c2.example", &[b'/'; 99], 80, &mut [0; 100]), None);
        assert_eq!(UrlPattern::of_request("c2.example", b"/\xFF", 80, &mut [0; 100]), None);
    }

    #[test]
    fn what_is_no_web_address_is_refused() {
        for text in [
            "ftp://c2.example/x",
            "http://",
            "http:///x",
            "http://c2.example:0/",
            "http://c2.example:99999/",
            "http://c2 example/",
            "http://com/",
            "http://127.0.0.1/x",
            "http://[::1/x",
            "/x",
            "mailto:a@c2.example",
        ] {
            assert!(UrlPattern::parse(text).is_err(), "{text}");
        }
        assert_eq!(
            UrlPattern::parse(&format!("http://c2.example/{}", "a".repeat(3000))),
            Err(ParseObservableError::TooLong)
        );
    }
}
