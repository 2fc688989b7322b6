//! Request and response heads of HTTP/1 (RFC 9112 §2–§6), borrowed.

use super::Name;
use super::http::{Authority, host_of, target_authority};
use memchr::memchr;

/// Longest head that is read; what has no end within it is no head (as servers limit theirs).
pub const MAX_HEAD: usize = 16 * 1024;
/// Longest method that is waited for; the longest one registered has 17 letters (RFC 3253 §6).
const LONGEST_METHOD: usize = 20;

/// A request: its line, its fields in the order of the sender, and what is there of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// The method as sent.
    pub method: &'a [u8],
    /// The request target as sent: origin, absolute, authority or asterisk form (RFC 9112 §3.2).
    pub target: &'a [u8],
    /// The field lines, line ends included, without the empty line that ends them.
    pub fields: &'a [u8],
    /// The bytes behind the head, as many as came; the next pipelined request may be among them.
    pub body: &'a [u8],
    names: FieldNames,
}

/// A response: its status, its fields in the order of the sender, and what is there of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead<'a> {
    /// The status code.
    pub status: u16,
    /// The field lines, line ends included, without the empty line that ends them.
    pub fields: &'a [u8],
    /// The bytes behind the head, as many as came.
    pub body: &'a [u8],
    names: FieldNames,
}

/// What the bytes at hand give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadReading<T> {
    /// The head has no end yet.
    Incomplete,
    /// No HTTP/1 head.
    Other,
    /// The whole head.
    Whole(T),
}

impl<'a> RequestHead<'a> {
    /// Reads a request head from the first bytes of a request.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> HeadReading<Self> {
        Self::cuts(bytes).and_then(|cuts| Self::cut(bytes, cuts))
    }

    /// Looks for the ends of a request head's parts.
    pub(crate) fn cuts(bytes: &[u8]) -> HeadReading<Cuts> {
        Cuts::of(bytes, may_be_request, |line| request_line(line).is_some())
    }

    /// Reads a head again whose ends are known.
    pub(crate) fn cut(bytes: &'a [u8], cuts: Cuts) -> Option<Self> {
        let (line, fields, body) = cuts.parts(bytes)?;
        let (method, target) = request_line(line)?;
        Some(Self { method, target, fields, body, names: FieldNames::of(fields) })
    }

    /// The host that it is for: the authority of a `CONNECT` or an absolute-form target, else the
    /// `Host` field (RFC 9112 §3.2.2).
    #[must_use]
    pub fn host(&self) -> Option<Name> {
        let authority = match target_authority(self.method, self.target, true) {
            Authority::Written(authority) => authority,
            Authority::Cut | Authority::None => self.field("host")?,
        };
        host_of(authority).map(|(name, _)| name)
    }

    /// Whether it asks a proxy to open a tunnel (RFC 9110 §9.3.6).
    #[must_use]
    pub fn is_connect(&self) -> bool {
        self.method == b"CONNECT"
    }

    /// Length of the body, where the head states it (RFC 9112 §6.3): without any word of one there is none.
    #[must_use]
    pub fn body_len(&self) -> Option<usize> {
        match (self.field("transfer-encoding"), self.field("content-length")) {
            (None, None) => Some(0),
            (coding, length) => body_len(coding, length),
        }
    }

    /// Each field as name and value, blanks around the value taken off.
    pub fn each_field(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        each_field(self.fields)
    }

    /// The value of the first field of a name, whatever its case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.names.may_have(name.as_bytes()).then(|| field(self.fields, name)).flatten()
    }
}

impl<'a> ResponseHead<'a> {
    /// Reads a response head from the first bytes of a response.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> HeadReading<Self> {
        Self::cuts(bytes).and_then(|cuts| Self::cut(bytes, cuts))
    }

    /// Looks for the ends of a response head's parts.
    pub(crate) fn cuts(bytes: &[u8]) -> HeadReading<Cuts> {
        Cuts::of(bytes, may_be_response, |line| status_line(line).is_some())
    }

    /// Length of the body, where the head states it (RFC 9112 §6.3).
    #[must_use]
    pub fn body_len(&self) -> Option<usize> {
        match self.status {
            100..200 | 204 | 304 => Some(0),
            _ => body_len(self.field("transfer-encoding"), self.field("content-length")),
        }
    }

    /// Reads a head again whose ends are known.
    pub(crate) fn cut(bytes: &'a [u8], cuts: Cuts) -> Option<Self> {
        let (line, fields, body) = cuts.parts(bytes)?;
        let names = FieldNames::of(fields);
        Some(Self { status: status_line(line)?, fields, body, names })
    }

    /// Each field as name and value, blanks around the value taken off.
    pub fn each_field(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        each_field(self.fields)
    }

    /// The value of the first field of a name, whatever its case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.names.may_have(name.as_bytes()).then(|| field(self.fields, name)).flatten()
    }
}

impl<T> HeadReading<T> {
    fn and_then<U>(self, next: impl FnOnce(T) -> Option<U>) -> HeadReading<U> {
        match self {
            Self::Incomplete => HeadReading::Incomplete,
            Self::Other => HeadReading::Other,
            Self::Whole(it) => next(it).map_or(HeadReading::Other, HeadReading::Whole),
        }
    }
}

/// First line without its end, field lines, body.
type Parts<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Where the parts of a head end, so that it need not be looked for twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cuts {
    /// Length of the first line with its end.
    line: u16,
    /// Where the empty line begins.
    fields: u16,
    /// Where the body begins.
    body: u16,
}

impl Cuts {
    /// Looks for the ends of a head's parts: `begins` says whether an unfinished first line may be
    /// one, `fits` whether a whole one is.
    fn of(
        bytes: &[u8],
        begins: impl Fn(&[u8]) -> bool,
        fits: impl Fn(&[u8]) -> bool,
    ) -> HeadReading<Self> {
        let head = bytes.get(..MAX_HEAD).unwrap_or(bytes);
        let unfinished = || match bytes.len() < MAX_HEAD {
            true => HeadReading::Incomplete,
            false => HeadReading::Other,
        };
        if !begins(head) {
            return HeadReading::Other;
        }
        let Some(line) = line_len(head) else { return unfinished() };
        if !fits(without_end(head.get(..line).unwrap_or_default())) {
            return HeadReading::Other;
        }
        let mut at = line;
        while let Some(len) = head.get(at..).and_then(line_len) {
            if without_end(head.get(at..at + len).unwrap_or_default()).is_empty() {
                // All of them lie within `MAX_HEAD`.
                let (line, fields, body) = (line as u16, at as u16, (at + len) as u16);
                return HeadReading::Whole(Self { line, fields, body });
            }
            at += len;
        }
        unfinished()
    }

    /// Where the body begins.
    pub(crate) const fn body(self) -> usize {
        self.body as usize
    }

    fn parts(self, bytes: &[u8]) -> Option<Parts<'_>> {
        let line = without_end(bytes.get(..usize::from(self.line))?);
        let fields = bytes.get(usize::from(self.line)..usize::from(self.fields))?;
        Some((line, fields, bytes.get(usize::from(self.body)..)?))
    }
}

/// Length of the first line with its end.
fn line_len(bytes: &[u8]) -> Option<usize> {
    memchr(b'\n', bytes).map(|end| end + 1)
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The method and the target of a request line.
fn request_line(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut words = line.splitn(2, |byte| *byte == b' ');
    let method = words.next().filter(|method| is_token(method))?;
    let rest = words.next()?;
    let blank = rest.iter().rposition(|byte| *byte == b' ')?;
    let (target, version) = rest.split_at_checked(blank)?;
    let whole = !target.is_empty() && is_version(version.get(1..)?);
    whole.then_some((method, target))
}

/// The status code of a status line.
fn status_line(line: &[u8]) -> Option<u16> {
    let mut words = line.split(|byte| *byte == b' ');
    words.next().filter(|version| is_version(version))?;
    let code = words.next()?;
    (code.len() == 3 && code.iter().all(u8::is_ascii_digit))
        .then(|| code.iter().fold(0_u16, |sum, digit| sum * 10 + u16::from(digit - b'0')))
}

/// Whether the beginning of a status line can be one.
pub(crate) fn may_be_response(bytes: &[u8]) -> bool {
    bytes.iter().zip(b"HTTP/1.").all(|(a, b)| a == b)
}

/// Whether the beginning of a request line can be one: a method in capitals, then a blank.
pub(crate) fn may_be_request(bytes: &[u8]) -> bool {
    let word = bytes
        .iter()
        .take(LONGEST_METHOD + 1)
        .take_while(|byte| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_'))
        .count();
    (1..=LONGEST_METHOD).contains(&word)
        && bytes.first().is_some_and(u8::is_ascii_uppercase)
        && bytes.get(word).is_none_or(|next| *next == b' ')
}

pub(super) fn is_token(method: &[u8]) -> bool {
    (1..=LONGEST_METHOD).contains(&method.len())
        && method.first().is_some_and(u8::is_ascii_uppercase)
        && method.iter().all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_'))
}

fn is_version(version: &[u8]) -> bool {
    matches!(version, [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9'])
}

fn each_field(mut rest: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (line, after) = rest.split_at_checked(line_len(rest).unwrap_or(rest.len()))?;
            rest = after;
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = line.split_at_checked(colon)?;
            return Some((name.trim_ascii_end(), value.get(1..)?.trim_ascii()));
        }
        None
    })
}

/// Which names the fields of a head may have, as bits: most that are asked for are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FieldNames(u64);

impl FieldNames {
    fn of(fields: &[u8]) -> Self {
        Self(each_field(fields).fold(0, |bits, (name, _)| bits | Self::bit(name)))
    }

    const fn may_have(self, name: &[u8]) -> bool {
        self.0 & Self::bit(name) != 0
    }

    /// A bit by the length and the last letters, which tell more than the first ones.
    const fn bit(name: &[u8]) -> u64 {
        let letters = match name {
            [.., a, b] => (*a & 0x1F) as usize * 5 + (*b & 0x1F) as usize,
            _ => 0,
        };
        1 << ((letters + name.len() * 11) & 63)
    }
}

fn field<'a>(fields: &'a [u8], name: &str) -> Option<&'a [u8]> {
    each_field(fields)
        .find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, value)| value)
}

/// The length that a `Content-Length` states; none beside a `Transfer-Encoding`.
fn body_len(coding: Option<&[u8]>, length: Option<&[u8]>) -> Option<usize> {
    if coding.is_some() {
        return None;
    }
    std::str::from_utf8(length?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{HeadReading, MAX_HEAD, RequestHead, ResponseHead};

    const REQUEST: &[u8] =
        b"POST http://C2.Example:8080/a%20b?x=1 HTTP/1.1\r\nHost: other.example\r\nX-Session : 0 \r\nContent-Length: 3\r\n\r\nabc";

    #[test]
    fn a_request_gives_its_line_its_fields_in_order_and_its_body() {
        let HeadReading::Whole(head) = RequestHead::parse(REQUEST) else { panic!() };
        assert_eq!(head.method, b"POST");
        assert_eq!(head.target, b"http://C2.Example:8080/a%20b?x=1");
        let fields: Vec<_> = head.each_field().map(|(name, _)| name).collect();
        assert_eq!(fields, [&b"Host"[..], b"X-Session", b"Content-Length"]);
        assert_eq!((head.field("x-session"), head.field("absent")), (Some(&b"0"[..]), None));
        assert_eq!((head.body, head.body_len()), (&b"abc"[..], Some(3)));
        assert_eq!(head.host().unwrap().as_str(), "c2.example", "the target goes before the field");
    }

    #[test]
    fn a_head_is_incomplete_until_its_empty_line() {
        let ends = REQUEST.len() - 3;
        for len in 0..REQUEST.len() {
            let read = RequestHead::parse(&REQUEST[..len]);
            let whole = matches!(read, HeadReading::Whole(_));
            assert_eq!(whole, len >= ends, "{len}");
            assert!(whole || len == 0 || read == HeadReading::Incomplete, "{len}");
        }
        let response = b"HTTP/1.0 204 \r\nA: b\n\r\n";
        for len in 1..response.len() {
            assert_eq!(ResponseHead::parse(&response[..len]), HeadReading::Incomplete, "{len}");
        }
        let HeadReading::Whole(head) = ResponseHead::parse(response) else { panic!() };
        assert_eq!(
            (head.status, head.field("a"), head.body_len()),
            (204, Some(&b"b"[..]), Some(0))
        );
    }

    #[test]
    fn what_is_no_head_is_known_by_its_first_line() {
        for other in
            ["EHLO a.example\r\n", "USER x\r\nA: b\r\n", "GET / HTTP/2.0\r\n", "Get / HTTP/1.1\r\n"]
        {
            assert_eq!(RequestHead::parse(other.as_bytes()), HeadReading::Other, "{other}");
        }
        for other in ["HTTP/1.1 20 OK\r\n", "HTTP/1.1\r\n", "HTTP/1.x 200 OK\r\n", "220 ready\r\n"]
        {
            assert_eq!(ResponseHead::parse(other.as_bytes()), HeadReading::Other, "{other}");
        }
        let endless = [&b"GET / HTTP/1.1\r\nA: "[..], &[b'a'; MAX_HEAD]].concat();
        assert_eq!(RequestHead::parse(&endless), HeadReading::Other);
    }

    #[test]
    fn a_target_with_blanks_is_read_to_the_last_one() {
        let HeadReading::Whole(head) = RequestHead::parse(b"GET /a b c HTTP/1.1\n\n") else {
            panic!()
        };
        assert_eq!(head.target, b"/a b c");
    }

    #[test]
    fn a_length_beside_a_transfer_coding_does_not_count() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
        let HeadReading::Whole(head) = ResponseHead::parse(text) else { panic!() };
        assert_eq!(head.body_len(), None);
        let huge = b"GET / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n";
        let HeadReading::Whole(head) = RequestHead::parse(huge) else { panic!() };
        assert_eq!(head.body_len(), None);
    }

    #[test]
    fn mutated_heads_are_read_without_a_panic() {
        let mut seed = 0x1357_9BDF_u32;
        for _ in 0..50_000 {
            let mut bytes = REQUEST.to_vec();
            for _ in 0..3 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (seed >> 8) as usize % bytes.len();
                bytes[at] = seed as u8;
            }
            if let HeadReading::Whole(head) = RequestHead::parse(&bytes) {
                let _ = (head.host(), head.body_len(), head.each_field().count());
            }
            let _ = ResponseHead::parse(&bytes);
        }
    }
}
