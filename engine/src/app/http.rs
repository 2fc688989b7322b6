//! The host an HTTP/1 client asks for (RFC 9112 §3.2).

use super::Name;
use super::http_head::{is_token, may_be_request};

/// How far into a head we look; a host further back than this is not waited for.
const MAX_HEAD_LEN: usize = 16 * 1024;

/// What the start of a client's bytes says about the host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "the name stays on the stack: no allocation per packet"
)]
pub enum HttpHost {
    /// The host asked for, with the port if one is written.
    Host(Name, Option<u16>),
    /// The bytes end before the host; a longer head may hold it.
    Incomplete,
    /// A complete head that names no valid host.
    NoHost,
    /// No HTTP/1 request.
    NotHttp,
}

/// Reads the host a request is for from the first bytes an HTTP/1 client sends.
///
/// The authority of a `CONNECT` or of an absolute-form target takes precedence over the `Host`
/// field (RFC 9112 §3.2.2).
#[must_use]
pub fn request_host(payload: &[u8]) -> HttpHost {
    let head = payload.get(..MAX_HEAD_LEN).unwrap_or(payload);
    let unfinished =
        if payload.len() < MAX_HEAD_LEN { HttpHost::Incomplete } else { HttpHost::NoHost };
    if !head.is_empty() && !may_be_request(head) {
        return HttpHost::NotHttp;
    }
    let Some(blank) = head.iter().position(|byte| *byte == b' ') else {
        return HttpHost::Incomplete;
    };
    let (method, rest) = head.split_at_checked(blank).unwrap_or_default();
    let rest = rest.get(1..).unwrap_or_default();
    if !is_token(method) {
        return HttpHost::NotHttp;
    }
    let (line, whole, mut rest) = match split_line(rest) {
        Some((line, rest)) => (line, true, rest),
        None => (rest, false, &[][..]),
    };
    if whole && !is_request_line(line) {
        return HttpHost::NotHttp;
    }
    let target_end = line.iter().position(|byte| *byte == b' ');
    let target = target_end.and_then(|end| line.get(..end)).unwrap_or(line);
    match target_authority(method, target, target_end.is_some()) {
        Authority::Written(authority) => return found(authority),
        Authority::Cut => return unfinished,
        Authority::None => {}
    }
    if !whole {
        return unfinished;
    }
    while let Some((line, after)) = split_line(rest) {
        if line.is_empty() {
            return HttpHost::NoHost;
        }
        if let Some(value) = host_field(line) {
            return found(value);
        }
        rest = after;
    }
    unfinished
}

fn found(authority: &[u8]) -> HttpHost {
    host_of(authority).map_or(HttpHost::NoHost, |(name, port)| HttpHost::Host(name, port))
}

/// Splits a line off, without its line end; `None` when no line end has arrived.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = bytes.split_at_checked(end)?;
    Some((line.strip_suffix(b"\r").unwrap_or(line), rest.get(1..)?))
}

/// Whether what follows the method ends in an HTTP/1 version.
fn is_request_line(after_method: &[u8]) -> bool {
    matches!(after_method, [.., b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9'])
}

/// What a request target says of the authority.
pub(super) enum Authority<'a> {
    /// The target ends before the authority does.
    Cut,
    /// It names none: the `Host` field does.
    None,
    /// It is all there.
    Written(&'a [u8]),
}

/// The authority written in a request target; `whole` says that the target is there to its end.
pub(super) fn target_authority<'a>(method: &[u8], target: &'a [u8], whole: bool) -> Authority<'a> {
    let rest = if method == b"CONNECT" {
        target
    } else {
        let scheme_end = target.iter().take(12).position(|byte| *byte == b':');
        let Some((scheme, rest)) = scheme_end.and_then(|end| target.split_at_checked(end)) else {
            return Authority::None;
        };
        if scheme.is_empty() || !scheme.iter().all(u8::is_ascii_alphabetic) {
            return Authority::None;
        }
        match rest.strip_prefix(b"://") {
            Some(rest) => rest,
            None => return Authority::None,
        }
    };
    match rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')) {
        Some(end) => Authority::Written(rest.get(..end).unwrap_or_default()),
        None if whole => Authority::Written(rest),
        None => Authority::Cut,
    }
}

/// The value of a `Host` field line; blanks before the colon are forgiven, as servers do.
fn host_field(line: &[u8]) -> Option<&[u8]> {
    let (name, rest) = line.split_at_checked(4)?;
    if !name.eq_ignore_ascii_case(b"host") {
        return None;
    }
    Some(rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii())
}

/// Reads `[userinfo@]host[:port]` (RFC 3986 §3.2).
pub(super) fn host_of(authority: &[u8]) -> Option<(Name, Option<u16>)> {
    let start = authority.iter().rposition(|byte| *byte == b'@').map_or(0, |at| at + 1);
    let authority = authority.get(start..)?;
    let (name, after) = if let Some(rest) = authority.strip_prefix(b"[") {
        let end = rest.iter().position(|byte| *byte == b']')?;
        let (host, after) = rest.split_at_checked(end)?;
        (Name::from_ipv6(host)?, after.get(1..)?)
    } else {
        let end = authority.iter().position(|byte| *byte == b':').unwrap_or(authority.len());
        let (host, after) = authority.split_at_checked(end)?;
        (Name::from_host(host)?, after)
    };
    Some((name, after.strip_prefix(b":").and_then(port)))
}

fn port(digits: &[u8]) -> Option<u16> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{HttpHost, request_host};

    #[test]
    fn the_host_field_is_found_whatever_its_case() {
        for head in [
            "GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
            "POST /x HTTP/1.0\r\nAccept: */*\r\nhOST:WWW.EXAMPLE.COM\r\n",
            "PROPFIND / HTTP/1.1\nHost :  www.example.com  \n\n",
        ] {
            assert_eq!(host(head), ("www.example.com".to_owned(), None), "{head}");
        }
        for method in ["CONNECT", "DELETE", "GET", "PATCH", "POST", "PROPFIND", "M-SEARCH", "X"] {
            let head = [method.as_bytes(), b" host.example:1 HTTP/1.1\r\nHost: host.example:1\r\n"]
                .concat();
            assert!(matches!(request_host(&head), HttpHost::Host(_, Some(1))), "{head:?}");
        }
    }

    #[test]
    fn ports_brackets_and_credentials_are_stripped() {
        assert_eq!(
            host("GET / HTTP/1.1\r\nHost: a.example:8080\r\n"),
            ("a.example".to_owned(), Some(8080))
        );
        assert_eq!(
            host("GET / HTTP/1.1\r\nHost: [2001:DB8::1]:80\r\n"),
            ("2001:db8::1".to_owned(), Some(80))
        );
        assert_eq!(host("GET http://u:p@b.example/ HTTP/1.1\r\n"), ("b.example".to_owned(), None));
    }

    #[test]
    fn the_target_takes_precedence_over_the_host_field() {
        assert_eq!(
            host("CONNECT c.example:443 HTTP/1.1\r\nHost: d.example\r\n\r\n"),
            ("c.example".to_owned(), Some(443))
        );
        assert_eq!(
            host("GET http://c.example/p HTTP/1.1\r\nHost: d.example\r\n\r\n"),
            ("c.example".to_owned(), None)
        );
        assert_eq!(host("GET http://c.example/cut-within-the-pa"), ("c.example".to_owned(), None));
    }

    #[test]
    fn a_head_cut_before_the_end_of_the_host_line_is_incomplete() {
        let head = b"GET /path HTTP/1.1\r\nUser-Agent: x\r\nHost: cut.example\r\n\r\n";
        let host_ends = head.len() - 2;
        for len in 0..head.len() {
            let expected_host = len >= host_ends;
            let result = request_host(&head[..len]);
            assert_eq!(matches!(result, HttpHost::Host(..)), expected_host, "{len}");
            assert!(expected_host || result == HttpHost::Incomplete, "{len}");
        }
    }

    #[test]
    fn a_complete_head_without_a_valid_host_says_so() {
        for head in [
            "GET / HTTP/1.1\r\nA: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: \r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n",
        ] {
            assert_eq!(request_host(head.as_bytes()), HttpHost::NoHost, "{head}");
        }
    }

    #[test]
    fn other_protocols_are_not_http() {
        for other in [
            &b"SSH-2.0-x\r\n"[..],
            b"\x16\x03\x01",
            b"Get / HTTP/1.1\r\n",
            b"GET\r\n",
            b"GET / RTSP/1.0\r\n",
            b"HTTP/1.1 200 OK\r\n",
        ] {
            assert_eq!(request_host(other), HttpHost::NotHttp, "{other:?}");
        }
    }

    fn host(head: &str) -> (String, Option<u16>) {
        match request_host(head.as_bytes()) {
            HttpHost::Host(name, port) => (name.as_str().to_owned(), port),
            other => panic!("no host: {other:?} in {head}"),
        }
    }
}
