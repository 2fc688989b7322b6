//! TLS hellos and certificates as they travel in clear (RFC 8446 §4, RFC 5246 §7.4), and their fingerprints.
//!
//! Whoever has the first bytes of a stream calls [`ClientHello::parse_joined`],
//! [`ServerHello::parse_joined`] or [`Certificate::find`] with them and a scratch: what lies within
//! one record is borrowed where it lies, only what goes over several records is copied. Nothing is
//! hashed before a fingerprint is asked for.

mod certificate;
mod der;
mod fingerprint;
mod messages;

use self::messages::{Fault, Messages};
use super::{Name, reader::Reader};

pub use certificate::Certificate;
pub use fingerprint::Ja4;

/// How long a scratch is useful: a hello or certificate over several records that is longer is not
/// read. The longest hellos seen in the wild, with two post-quantum key shares, stay below 4 KiB.
pub const SCRATCH_LEN: usize = 16 * 1024;

/// Handshake types (RFC 8446 §4, RFC 5246 §7.4).
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
/// Extensions (IANA TLS ExtensionType values).
const SERVER_NAME: u16 = 0;
const SUPPORTED_GROUPS: u16 = 10;
const POINT_FORMATS: u16 = 11;
const SIGNATURE_ALGORITHMS: u16 = 13;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;
/// The random of a HelloRetryRequest (RFC 8446 §4.1.3).
const RETRY_RANDOM: [u8; 32] = [
    0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8, 0x91,
    0xC2, 0xA2, 0x11, 0x16, 0x7A, 0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8, 0x33, 0x9C,
];

/// A client hello, borrowed from the bytes it came in; only what is all there is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientHello<'a> {
    /// `legacy_version` of the hello (0x0303 from TLS 1.2 on).
    pub version: u16,
    /// Cipher suites, two bytes each, in the order of the client.
    pub suites: &'a [u8],
    /// The extensions, each as type, length and content; empty when there are none.
    pub extensions: &'a [u8],
    /// Whether it came in QUIC Initials.
    pub quic: bool,
}

/// A server hello, borrowed from the bytes it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerHello<'a> {
    /// `legacy_version` of the hello.
    pub version: u16,
    /// The cipher suite chosen.
    pub suite: u16,
    /// The extensions, each as type, length and content.
    pub extensions: &'a [u8],
    /// Whether it is a HelloRetryRequest, to which the client answers with a second hello.
    pub retry: bool,
}

/// What the bytes at hand give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading<T> {
    /// The bytes end before it is all there.
    Incomplete,
    /// It is something else, or contradicts itself.
    Other,
    /// It is all there.
    Whole(T),
}

impl<T> Reading<T> {
    /// What was read, if it is all there.
    #[must_use]
    pub fn whole(self) -> Option<T> {
        match self {
            Self::Whole(it) => Some(it),
            Self::Incomplete | Self::Other => None,
        }
    }

    fn from_option(read: Option<T>) -> Self {
        read.map_or(Self::Other, Self::Whole)
    }
}

impl<T> From<Fault> for Reading<T> {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Cut => Self::Incomplete,
            Fault::Other => Self::Other,
        }
    }
}

impl<'a> ClientHello<'a> {
    /// Reads the hello from the first bytes that a TLS client sends, where they lie.
    ///
    /// A hello that goes over several records is `Other` here: [`ClientHello::parse_joined`] reads it.
    #[must_use]
    #[inline]
    pub fn parse(stream: &'a [u8]) -> Reading<Self> {
        Self::parse_joined(stream, &mut [])
    }

    /// Reads the hello from the first bytes that a TLS client sends; one that goes over several
    /// records (an evasion) is joined in `scratch` ([`SCRATCH_LEN`]), once it is all there.
    #[must_use]
    #[inline]
    pub fn parse_joined(stream: &'a [u8], scratch: &'a mut [u8]) -> Reading<Self> {
        match Messages::new(stream).expect(CLIENT_HELLO, scratch) {
            Ok(body) => Reading::from_option(Self::from_body(body, false)),
            Err(fault) => fault.into(),
        }
    }

    /// Reads the hello from a handshake message that starts at its type byte, as QUIC carries it.
    #[must_use]
    pub fn from_handshake(message: &'a [u8]) -> Reading<Self> {
        let mut reader = Reader::new(message);
        match reader.u8() {
            None => return Reading::Incomplete,
            Some(CLIENT_HELLO) => {}
            Some(_) => return Reading::Other,
        }
        let Some(len) = reader.u24() else { return Reading::Incomplete };
        match reader.take(len) {
            Some(body) => Reading::from_option(Self::from_body(body, true)),
            None => Reading::Incomplete,
        }
    }

    fn from_body(body: &'a [u8], quic: bool) -> Option<Self> {
        let mut reader = Reader::new(body);
        let version = Self::front(&mut reader)?;
        // An odd length is wrong, but nothing that keeps a peer that means harm from talking on.
        let suites_len = usize::from(reader.u16()?);
        let suites = reader.take(suites_len)?;
        let compression_len = usize::from(reader.u8()?);
        reader.take(compression_len)?;
        Some(Self { version, suites, extensions: extension_block(&mut reader)?, quic })
    }

    /// What both hellos begin with: version, random, session identifier.
    fn front(reader: &mut Reader<'_>) -> Option<u16> {
        let version = reader.u16().filter(|version| version >> 8 == 3)?;
        reader.array::<32>()?;
        let session_id_len = reader.u8().filter(|len| *len <= 32)?;
        reader.take(usize::from(session_id_len))?;
        Some(version)
    }

    /// Each extension as type and content, as far as they are well formed.
    pub fn each_extension(&self) -> impl Iterator<Item = (u16, &'a [u8])> + Clone + use<'a> {
        Extensions { rest: self.extensions }
    }

    /// The content of the first extension of a type.
    #[must_use]
    pub fn extension(&self, wanted: u16) -> Option<&'a [u8]> {
        self.each_extension().find(|(kind, _)| *kind == wanted).map(|(_, content)| content)
    }

    /// The first host name of the `server_name` extension (RFC 6066 §3): with Encrypted Client
    /// Hello, the one of the outer hello.
    #[must_use]
    pub fn sni(&self) -> Option<Name> {
        let ([_, _, kind, l0, l1], rest) = self.extension(SERVER_NAME)?.split_first_chunk::<5>()?;
        let len = usize::from(u16::from_be_bytes([*l0, *l1]));
        if *kind != 0 { None } else { Name::from_host(rest.get(..len)?) }
    }

    /// The application protocols offered (RFC 7301), most wanted first.
    pub fn each_alpn(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        alpn(self.extension(ALPN))
    }

    /// The application protocol wanted most.
    #[must_use]
    pub fn alpn(&self) -> Option<&'a [u8]> {
        self.each_alpn().next()
    }

    /// The highest version offered: of `supported_versions` where that is sent (RFC 8446 §4.2.1),
    /// without the reserved values of RFC 8701, otherwise `legacy_version`.
    #[must_use]
    pub fn supported_version(&self) -> u16 {
        self.extension(SUPPORTED_VERSIONS)
            .and_then(|content| words(content.get(1..)?).filter(|it| !is_grease(*it)).max())
            .unwrap_or(self.version)
    }
}

impl<'a> ServerHello<'a> {
    /// Reads the hello from the first bytes that a TLS server sends, where they lie.
    ///
    /// A hello that goes over several records is `Other` here: [`ServerHello::parse_joined`] reads it.
    #[must_use]
    #[inline]
    pub fn parse(stream: &'a [u8]) -> Reading<Self> {
        Self::parse_joined(stream, &mut [])
    }

    /// Reads the hello from the first bytes that a TLS server sends; one that goes over several
    /// records is joined in `scratch` ([`SCRATCH_LEN`]), once it is all there.
    #[must_use]
    #[inline]
    pub fn parse_joined(stream: &'a [u8], scratch: &'a mut [u8]) -> Reading<Self> {
        match Messages::new(stream).expect(SERVER_HELLO, scratch) {
            Ok(body) => Reading::from_option(Self::from_body(body)),
            Err(fault) => fault.into(),
        }
    }

    fn from_body(body: &'a [u8]) -> Option<Self> {
        let retry = body.get(2..34) == Some(&RETRY_RANDOM);
        let mut reader = Reader::new(body);
        let version = ClientHello::front(&mut reader)?;
        let suite = reader.u16()?;
        reader.u8()?;
        Some(Self { version, suite, extensions: extension_block(&mut reader)?, retry })
    }

    /// Each extension as type and content, as far as they are well formed.
    pub fn each_extension(&self) -> impl Iterator<Item = (u16, &'a [u8])> + Clone + use<'a> {
        Extensions { rest: self.extensions }
    }

    /// The content of the first extension of a type.
    #[must_use]
    pub fn extension(&self, wanted: u16) -> Option<&'a [u8]> {
        self.each_extension().find(|(kind, _)| *kind == wanted).map(|(_, content)| content)
    }

    /// The version chosen: `supported_versions` where that is sent (RFC 8446 §4.2.1), otherwise
    /// `legacy_version`.
    #[must_use]
    pub fn selected_version(&self) -> u16 {
        self.extension(SUPPORTED_VERSIONS)
            .and_then(|content| Reader::new(content).u16())
            .unwrap_or(self.version)
    }

    /// The application protocol chosen, where it is said in clear (TLS 1.2 and older).
    #[must_use]
    pub fn alpn(&self) -> Option<&'a [u8]> {
        alpn(self.extension(ALPN)).next()
    }
}

/// The rest of a hello: TLS 1.2 and older may end without any extension.
fn extension_block<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    if reader.is_empty() {
        return Some(&[]);
    }
    let len = usize::from(reader.u16()?);
    reader.take(len)
}

/// Walks a block of extensions.
#[derive(Clone)]
struct Extensions<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Extensions<'a> {
    type Item = (u16, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let ([t0, t1, l0, l1], after) = self.rest.split_first_chunk::<4>()?;
        let len = usize::from(u16::from_be_bytes([*l0, *l1]));
        let (content, after) = after.split_at_checked(len)?;
        self.rest = after;
        Some((u16::from_be_bytes([*t0, *t1]), content))
    }
}

/// The values of an ALPN extension's content, as far as they are well formed.
fn alpn(content: Option<&[u8]>) -> impl Iterator<Item = &[u8]> {
    let mut reader = Reader::new(content.and_then(|content| content.get(2..)).unwrap_or_default());
    std::iter::from_fn(move || {
        let len = reader.u8()?;
        reader.take(usize::from(len))
    })
}

/// Big-endian pairs of bytes.
fn words(bytes: &[u8]) -> impl Iterator<Item = u16> + Clone {
    bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair))
}

/// The values that RFC 8701 reserves to keep peers tolerant: they say nothing.
const fn is_grease(value: u16) -> bool {
    value & 0x0F0F == 0x0A0A && value >> 8 == value & 0xFF
}

#[cfg(test)]
mod tests;
