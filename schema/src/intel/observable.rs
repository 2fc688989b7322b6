//! What a text of a pack, list or feed stands for.

use super::address::{octets, parse_ip, parse_network};
use super::url::UrlPattern;
use crate::sealed::unhex;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// Bytes of the longest domain name in text form (RFC 1035 §2.3.4).
const LONGEST_NAME: usize = 253;
/// Bytes of the longest User-Agent that is compared: longer ones are cut short by most servers' limits.
const LONGEST_USER_AGENT: usize = 512;
/// Bytes of a JA4 fingerprint: ten, twelve and twelve, and two signs between them.
const JA4_LEN: usize = 36;
/// A wider IPv4 network than the widest allocation to a registry is no indicator.
const WIDEST_V4: u8 = 8;
/// A wider IPv6 network than a registry hands to a large provider is no indicator.
const WIDEST_V6: u8 = 16;

/// What kind of thing is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An IP address.
    Address,
    /// The hash of a TLS certificate.
    Certificate,
    /// A domain name.
    Domain,
    /// An IP address with a port.
    Endpoint,
    /// A JA3 fingerprint.
    Ja3,
    /// A JA4 fingerprint.
    Ja4,
    /// A network.
    Network,
    /// A URL.
    Url,
    /// A User-Agent.
    UserAgent,
}

impl Kind {
    /// All kinds, in the order of their place in a table.
    pub const ALL: [Self; 9] = [
        Self::Address,
        Self::Certificate,
        Self::Domain,
        Self::Endpoint,
        Self::Ja3,
        Self::Ja4,
        Self::Network,
        Self::Url,
        Self::UserAgent,
    ];

    /// The word for it in documents and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Certificate => "certificate",
            Self::Domain => "domain",
            Self::Endpoint => "endpoint",
            Self::Ja3 => "ja3",
            Self::Ja4 => "ja4",
            Self::Network => "network",
            Self::Url => "url",
            Self::UserAgent => "user-agent",
        }
    }

    /// Whether a sighting can be a proof by itself: a client fingerprint or a User-Agent is shared
    /// by everything built on the same library (plugx.md, section 2, D12).
    #[must_use]
    pub const fn proves_alone(self) -> bool {
        !matches!(self, Self::Ja3 | Self::Ja4 | Self::UserAgent)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|kind| kind.as_str()).collect();
            format!("\"{text}\" is no kind of indicator; kinds are {}", known.join(", "))
        })
    }
}

/// Why a text is not an indicator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum ParseObservableError {
    /// A hash of nobody knows what.
    #[error("is a hash and it is not said of what; write ja3:, sha1: or sha256: before it")]
    BareHash,
    /// Not what its kind demands.
    #[error("is not of the kind that it is said to be")]
    Mismatch,
    /// A name of one label.
    #[error("stands for a whole top-level domain")]
    OneLabel,
    /// An address that only counts inside.
    #[error("is an address of private or special use")]
    Private,
    /// A name under which a registry sells names.
    #[error("stands for a whole registry; write = before it for the name alone")]
    Registry,
    /// Nothing that is known.
    #[error("is no address, network, address:port, domain name, URL or fingerprint")]
    Shape,
    /// Longer than anything that is looked for.
    #[error("is too long")]
    TooLong,
    /// Full.
    #[error("is one indicator too many")]
    TooMany,
    /// An address that no packet leaves for.
    #[error("is an address that no packet leaves for")]
    Unroutable,
    /// A network that is no statement about anybody.
    #[error("is too wide a network; the widest are /8 for IPv4 and /16 for IPv6")]
    Wide,
}

/// The hash of a certificate in DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CertificateHash {
    /// MD5.
    Md5([u8; 16]),
    /// SHA-1.
    Sha1([u8; 20]),
    /// SHA-256.
    Sha256([u8; 32]),
}

impl CertificateHash {
    /// Its bytes; their number tells which hash it is.
    #[must_use]
    pub const fn bytes(&self) -> &[u8] {
        match self {
            Self::Md5(bytes) => bytes,
            Self::Sha1(bytes) => bytes,
            Self::Sha256(bytes) => bytes,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let len = unhex(text, &mut bytes)?;
        let bytes = bytes.get(..len)?;
        match len {
            16 => bytes.try_into().ok().map(Self::Md5),
            20 => bytes.try_into().ok().map(Self::Sha1),
            32 => bytes.try_into().ok().map(Self::Sha256),
            _ => None,
        }
    }
}

/// What a text stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Observable<'a> {
    /// An IP address, never IPv4-mapped.
    Address(IpAddr),
    /// The hash of a TLS certificate.
    Certificate(CertificateHash),
    /// A domain name in lower case without trailing dot.
    Domain {
        /// The name.
        name: Cow<'a, str>,
        /// Whether the names below it are not meant.
        exact: bool,
    },
    /// An IP address with a port.
    Endpoint(SocketAddr),
    /// A JA3 fingerprint: an MD5.
    Ja3([u8; 16]),
    /// A JA4 fingerprint in lower case.
    Ja4(Cow<'a, str>),
    /// A network, its host bits zero.
    Network(IpNet),
    /// A URL.
    Url(UrlPattern),
    /// A User-Agent, whole.
    UserAgent(Cow<'a, str>),
}

impl<'a> Observable<'a> {
    /// Of which kind it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Address(_) => Kind::Address,
            Self::Certificate(_) => Kind::Certificate,
            Self::Domain { .. } => Kind::Domain,
            Self::Endpoint(_) => Kind::Endpoint,
            Self::Ja3(_) => Kind::Ja3,
            Self::Ja4(_) => Kind::Ja4,
            Self::Network(_) => Kind::Network,
            Self::Url(_) => Kind::Url,
            Self::UserAgent(_) => Kind::UserAgent,
        }
    }

    /// Reads a text whose kind shows: `=name` means the name alone, `ja3:`, `ja4:`, `md5:`, `sha1:`,
    /// `sha256:` and `ua:` say what follows; a URL that ends with `/*` stands for all below it.
    ///
    /// # Errors
    /// Why it is no indicator.
    pub fn parse(text: &'a str) -> Result<Self, ParseObservableError> {
        // Lists are mostly addresses and names: one look tells which, before anything costly.
        let (mut number, mut colon, mut slash, mut ip) = (true, false, false, true);
        for byte in text.bytes() {
            match byte {
                b'0'..=b'9' | b'.' => {}
                b':' => (number, colon) = (false, true),
                b'/' => (number, slash) = (false, true),
                b'a'..=b'f' | b'A'..=b'F' | b'[' | b']' | b'%' => number = false,
                _ => (number, ip) = (false, false),
            }
        }
        if number {
            return match text.parse::<Ipv4Addr>() {
                Ok(address) => routable(address.into()).map(Self::Address),
                Err(_) => Err(ParseObservableError::Shape),
            };
        }
        if ip
            && colon
            && !slash
            && let Some(known) = parse_address(text)
        {
            return known;
        }
        if ip
            && slash
            && let Some(network) = parse_network(text)
        {
            return network_of(network);
        }
        if is_ja4(text) {
            return Ok(Self::Ja4(lower(text)));
        }
        if !colon
            && !slash
            && let Ok(name @ Self::Domain { .. }) = domain(text, false)
        {
            return Ok(name);
        }
        if let Some(name) = text.strip_prefix('=') {
            return domain(name, true);
        }
        if let Some((prefix, rest)) = text.split_once(':') {
            match prefix {
                "ja3" => return Self::parse_as(rest, Kind::Ja3),
                "ja4" => return Self::parse_as(rest, Kind::Ja4),
                "md5" | "sha1" | "sha256" => {
                    let hash = CertificateHash::parse(rest);
                    return hash
                        .filter(|hash| hash.bytes().len() == hash_bytes(prefix))
                        .map(Self::Certificate)
                        .ok_or(ParseObservableError::Mismatch);
                }
                "ua" => return Self::parse_as(rest.trim_start(), Kind::UserAgent),
                _ => {}
            }
            return UrlPattern::parse(text).map(Self::Url);
        }
        if text.contains('/') {
            return UrlPattern::parse(text).map(Self::Url);
        }
        match domain(text, false) {
            Err(_) if CertificateHash::parse(text).is_some() => Err(ParseObservableError::BareHash),
            Err(ParseObservableError::OneLabel) if text.len() >= 32 => {
                Err(ParseObservableError::Shape)
            }
            read => read,
        }
    }

    /// A network, or the address that it is.
    ///
    /// # Errors
    /// Why it is no indicator.
    pub fn network(network: IpNet) -> Result<Self, ParseObservableError> {
        network_of(network)
    }

    /// Reads a text of a known kind.
    ///
    /// # Errors
    /// Why it is no indicator of this kind.
    pub fn parse_as(text: &'a str, kind: Kind) -> Result<Self, ParseObservableError> {
        let mismatch = ParseObservableError::Mismatch;
        match kind {
            Kind::Address | Kind::Endpoint => match parse_address(text) {
                Some(Ok(read)) if read.kind() == kind => Ok(read),
                Some(Err(why)) => Err(why),
                _ => Err(mismatch),
            },
            Kind::Certificate => {
                let plain = text.rsplit_once(':').filter(|(before, _)| before.starts_with("sha"));
                let text = plain.map_or(text, |(_, hash)| hash);
                if text.contains(':') {
                    // Colons between the octets, as certificate viewers write it.
                    let joined: String = text.chars().filter(|sign| *sign != ':').collect();
                    return CertificateHash::parse(&joined).map(Self::Certificate).ok_or(mismatch);
                }
                CertificateHash::parse(text).map(Self::Certificate).ok_or(mismatch)
            }
            Kind::Domain => match text.strip_prefix('=') {
                Some(name) => domain(name, true),
                None => domain(text, false),
            },
            Kind::Ja3 => {
                let mut bytes = [0; 16];
                match unhex(text, &mut bytes) {
                    Some(16) => Ok(Self::Ja3(bytes)),
                    _ => Err(mismatch),
                }
            }
            Kind::Ja4 if is_ja4(text) => Ok(Self::Ja4(lower(text))),
            Kind::Ja4 => Err(mismatch),
            Kind::Network => parse_network(text).ok_or(mismatch).and_then(network_of),
            Kind::Url => UrlPattern::parse(text).map(Self::Url),
            Kind::UserAgent if text.is_empty() => Err(mismatch),
            Kind::UserAgent if text.len() > LONGEST_USER_AGENT => {
                Err(ParseObservableError::TooLong)
            }
            Kind::UserAgent => Ok(Self::UserAgent(Cow::Borrowed(text))),
        }
    }

    /// Whether it names an address that no host of the Internet has: a feed that says so is wrong,
    /// or means another network than ours.
    #[must_use]
    pub fn is_private(&self) -> bool {
        match self {
            Self::Address(address) => is_special(*address),
            Self::Endpoint(end) => is_special(end.ip()),
            Self::Network(network) => {
                is_special(network.network()) || is_special(network.broadcast())
            }
            Self::Url(url) => url.address().is_some_and(is_special),
            Self::Certificate(_)
            | Self::Domain { .. }
            | Self::Ja3(_)
            | Self::Ja4(_)
            | Self::UserAgent(_) => false,
        }
    }
}

const fn hash_bytes(prefix: &str) -> usize {
    match prefix.as_bytes() {
        b"md5" => 16,
        b"sha1" => 20,
        _ => 32,
    }
}

fn parse_address(text: &str) -> Option<Result<Observable<'static>, ParseObservableError>> {
    if let Some(address) = parse_ip(text) {
        return Some(routable(address).map(Observable::Address));
    }
    let end = text.parse::<SocketAddr>().ok()?;
    Some(routable(end.ip()).and_then(|address| match end.port() {
        0 => Err(ParseObservableError::Shape),
        port => Ok(Observable::Endpoint(SocketAddr::new(address, port))),
    }))
}

fn routable(address: IpAddr) -> Result<IpAddr, ParseObservableError> {
    let address = address.to_canonical();
    let nowhere = address.is_unspecified()
        || address.is_loopback()
        || address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if nowhere { Err(ParseObservableError::Unroutable) } else { Ok(address) }
}

fn network_of<'a>(network: IpNet) -> Result<Observable<'a>, ParseObservableError> {
    let network = network.trunc();
    let widest = if network.addr().is_ipv4() { WIDEST_V4 } else { WIDEST_V6 };
    if network.prefix_len() < widest {
        return Err(ParseObservableError::Wide);
    }
    if network.prefix_len() == network.max_prefix_len() {
        return routable(network.addr()).map(Observable::Address);
    }
    let ends = [network.network(), network.broadcast()];
    let nowhere = ends.iter().any(|end| end.is_loopback() || end.is_unspecified());
    if nowhere { Err(ParseObservableError::Unroutable) } else { Ok(Observable::Network(network)) }
}

/// Addresses that the registries set apart (RFC 6890, RFC 5737, RFC 4193), but for the
/// documentation networks: rehearsals use them.
fn is_special(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (b == 18 || b == 19))
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
        }
    }
}

fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

/// Reads a domain name of at least two labels (RFC 1123 §2.1, with `_`), lower-cased.
fn domain(text: &str, exact: bool) -> Result<Observable<'_>, ParseObservableError> {
    let text = text.strip_prefix("*.").or_else(|| text.strip_prefix('.')).unwrap_or(text);
    let text = text.strip_suffix('.').unwrap_or(text);
    let labels = check_name(text)?;
    match labels {
        0 | 1 => Err(ParseObservableError::OneLabel),
        2 if !exact && is_registry(text) => Err(ParseObservableError::Registry),
        _ => Ok(Observable::Domain { name: lower(text), exact }),
    }
}

/// What four decimal numbers with dots between them stand for, if that is an address to look for.
pub(super) fn plain_v4<'a>(text: &[u8]) -> Option<Observable<'a>> {
    let address = Ipv4Addr::from_bits(octets(text)?);
    routable(address.into()).ok().map(Observable::Address)
}

/// The name that a text of so many labels stands for, which [`check_name`] would find right and in
/// lower case, if that is a name to look for.
pub(super) fn plain_name(text: &str, labels: usize) -> Option<Observable<'_>> {
    if text.len() > LONGEST_NAME || (labels == 2 && is_registry(text)) {
        return None;
    }
    Some(Observable::Domain { name: Cow::Borrowed(text), exact: false })
}

/// How many labels a name has.
pub(super) fn check_name(text: &str) -> Result<usize, ParseObservableError> {
    if text.is_empty() || text.len() > LONGEST_NAME {
        return Err(ParseObservableError::Shape);
    }
    let (mut labels, mut len, mut digits) = (0, 0_usize, true);
    for byte in text.bytes() {
        match byte {
            b'.' if len == 0 || len > 63 => return Err(ParseObservableError::Shape),
            b'.' => {
                labels += 1;
                (len, digits) = (0, true);
            }
            b'0'..=b'9' => len += 1,
            b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' => {
                len += 1;
                digits = false;
            }
            _ => return Err(ParseObservableError::Shape),
        }
    }
    // A last label of digits would be an address written in some other way.
    if len == 0 || len > 63 || digits {
        return Err(ParseObservableError::Shape);
    }
    Ok(labels + 1)
}

/// Whether a name of two labels is one that a country's registry sells names under.
fn is_registry(name: &str) -> bool {
    const SECOND: [&str; 13] =
        ["ac", "co", "com", "edu", "go", "gob", "gov", "mil", "ne", "net", "or", "org", "gouv"];
    name.split_once('.').is_some_and(|(second, top)| {
        top.len() == 2 && SECOND.iter().any(|known| second.eq_ignore_ascii_case(known))
    })
}

/// `t13d1516h2_8daaf6152771_e5627efa2ab1` and its kin: ten signs, twelve hexadecimal, twelve hexadecimal.
fn is_ja4(text: &str) -> bool {
    if text.len() != JA4_LEN {
        return false;
    }
    let mut parts = text.split('_');
    let (Some(head), Some(ciphers), Some(extensions), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let hex = |part: &str| part.len() == 12 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    head.len() == 10
        && head.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && head.bytes().next().is_some_and(|byte| matches!(byte | 0x20, b't' | b'q' | b'd'))
        && hex(ciphers)
        && hex(extensions)
}

/// Undoes what people do to make an address or link harmless in a report: `hxxp`, `[.]`, `(dot)`, `[:]`.
#[must_use]
pub fn refang(text: &str) -> Cow<'_, str> {
    const MARKS: [(&str, &str); 13] = [
        ("[.]", "."),
        ("(.)", "."),
        ("{.}", "."),
        ("[.", "."),
        (".]", "."),
        ("[dot]", "."),
        ("(dot)", "."),
        ("{dot}", "."),
        ("[DOT]", "."),
        ("(DOT)", "."),
        ("[:]", ":"),
        ("[://]", "://"),
        ("[/]", "/"),
    ];
    // A scheme and not the beginning of a name.
    let is_meow = ["hxxp", "hXXp", "HXXP", "meow"].iter().any(|known| {
        text.strip_prefix(known).is_some_and(|rest| {
            let rest = rest.strip_prefix(['s', 'S']).unwrap_or(rest);
            rest.starts_with([':', '[', '('])
        })
    });
    // An IPv6 address in brackets is nobody's disguise.
    let marked =
        text.bytes().any(|byte| matches!(byte, b'[' | b'(' | b'{')) && !text.starts_with('[');
    if !marked && !is_meow {
        return Cow::Borrowed(text);
    }
    let mut plain = text.to_owned();
    if marked {
        for (mark, meant) in MARKS {
            if plain.contains(mark) {
                plain = plain.replace(mark, meant);
            }
        }
    }
    if is_meow {
        plain = match plain.get(4..) {
            Some(rest) => format!("http{rest}"),
            None => plain,
        };
    }
    if plain == text { Cow::Borrowed(text) } else { Cow::Owned(plain) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Result<Kind, ParseObservableError> {
        Observable::parse(text).map(|read| read.kind())
    }

    #[test]
    fn what_a_text_stands_for_shows() {
        for (text, expected) in [
            ("203.0.113.9", Kind::Address),
            ("203.0.113.9/32", Kind::Address),
            ("2001:db8::1", Kind::Address),
            ("::ffff:203.0.113.9", Kind::Address),
            ("203.0.113.0/24", Kind::Network),
            ("203.0.113.9/24", Kind::Network),
            ("2001:db8::/32", Kind::Network),
            ("203.0.113.9:443", Kind::Endpoint),
            ("[2001:db8::1]:443", Kind::Endpoint),
            ("c2.example", Kind::Domain),
            ("*.c2.example", Kind::Domain),
            ("=c2.example", Kind::Domain),
            ("=co.jp", Kind::Domain),
            ("dead.beef", Kind::Domain),
            ("http://c2.example/x", Kind::Url),
            ("c2.example/x", Kind::Url),
            ("203.0.113.9/x", Kind::Url),
            ("https://c2.example", Kind::Url),
            ("c2.example:8080/x", Kind::Url),
            ("ja3:e7d705a3286e19ea42f587b344ee6865", Kind::Ja3),
            ("t13d1516h2_8daaf6152771_e5627efa2ab1", Kind::Ja4),
            ("sha1:e7d705a3286e19ea42f587b344ee6865e7d705a3", Kind::Certificate),
            ("ua: Mozilla/4.0 (test)", Kind::UserAgent),
        ] {
            assert_eq!(kind(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn texts_that_would_match_too_much_or_nothing_are_refused() {
        use ParseObservableError::{
            BareHash, Mismatch, OneLabel, Registry, Shape, Unroutable, Wide,
        };
        for (text, why) in [
            ("com", OneLabel),
            ("*.jp", OneLabel),
            ("co.jp", Registry),
            ("com.au", Registry),
            ("0.0.0.0", Unroutable),
            ("127.0.0.1:80", Unroutable),
            ("127.0.0.0/8", Unroutable),
            ("0.0.0.0/0", Wide),
            ("10.0.0.0/7", Wide),
            ("2001::/15", Wide),
            ("::", Unroutable),
            ("1.2.3", Shape),
            ("1.2.3.4:0", Shape),
            ("1.2.3.4:99999", Shape),
            ("203.0.113.0/33", Shape),
            ("a..b", Shape),
            ("c2 example.com", Shape),
            ("bücher.example", Shape),
            ("*", Shape),
            (".", Shape),
            ("", Shape),
            ("e7d705a3286e19ea42f587b344ee6865", BareHash),
            ("ja3:e7d705a3286e19ea42f587b344ee68", Mismatch),
            ("ja4:c2.example", Mismatch),
        ] {
            assert_eq!(kind(text), Err(why), "{text}");
        }
    }

    #[test]
    fn a_disguise_is_undone_and_nothing_else_is_touched() {
        for (text, plain) in [
            ("hxxp://c2[.]example/x", "http://c2.example/x"),
            ("hxxps[:]//c2.example", "https://c2.example"),
            ("203[.]0[.]113[.]9", "203.0.113.9"),
            ("c2(dot)example", "c2.example"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
            ("c2.example", "c2.example"),
            ("meow.example", "meow.example"),
            ("hxxp.example/x", "hxxp.example/x"),
        ] {
            assert_eq!(refang(text), plain);
        }
    }

    #[test]
    fn a_hash_of_a_certificate_may_have_colons_between_its_octets() {
        let text = "e7:d7:05:a3:28:6e:19:ea:42:f5:87:b3:44:ee:68:65:e7:d7:05:a3";
        let read = Observable::parse_as(text, Kind::Certificate).unwrap();
        assert!(matches!(read, Observable::Certificate(CertificateHash::Sha1(_))), "{read:?}");
    }
}
