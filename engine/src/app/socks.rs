//! What a client asks a SOCKS proxy for, and the proxy's answer (RFC 1928, RFC 1929, SOCKS 4 and 4a):
//! both negotiations are read as the beginning of their direction, so that what is tunnelled behind
//! them can be.

use super::{Name, reader::Reader};
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Versions, as their first byte says.
const VERSION_4: u8 = 4;
const VERSION_5: u8 = 5;
/// Authentication methods offered at most; four are in use.
const MAX_METHODS: usize = 16;
/// User names of version 4 longer than this are not waited for.
const MAX_USER: usize = 256;
/// The reply code of version 4 that grants the request.
const GRANTED_4: u8 = 0x5A;

/// What the bytes at hand give.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "the name stays on the stack: no allocation per packet"
)]
pub enum SocksReading {
    /// The negotiation goes on.
    Incomplete,
    /// No SOCKS, or a request that opens no tunnel.
    Other,
    /// The negotiation ends at this offset; a request also names its target.
    Whole {
        /// Where the tunnelled bytes begin.
        end: usize,
        /// The host or address asked for; `None` in a reply or when it is no valid host.
        target: Option<Name>,
    },
}

/// Why a negotiation is not read to its end.
enum Stop {
    Cut,
    Other,
}

/// Reads the client's side of a negotiation from the first bytes that it sends.
#[must_use]
pub fn request(bytes: &[u8]) -> SocksReading {
    let mut reader = Reader::new(bytes);
    let target = match reader.u8() {
        Some(VERSION_4) => request_4(&mut reader),
        Some(VERSION_5) => request_5(&mut reader),
        Some(_) => Err(Stop::Other),
        None => Err(Stop::Cut),
    };
    ended(bytes, &reader, target)
}

/// Reads the proxy's side of a negotiation; `asked_4` says that its client spoke version 4.
#[must_use]
pub fn reply(bytes: &[u8], asked_4: bool) -> SocksReading {
    let mut reader = Reader::new(bytes);
    let done = match reader.u8() {
        Some(0) if asked_4 => reply_4(&mut reader),
        Some(VERSION_5) => reply_5(&mut reader),
        Some(_) => Err(Stop::Other),
        None => Err(Stop::Cut),
    };
    ended(bytes, &reader, done.map(|()| None))
}

fn ended(bytes: &[u8], reader: &Reader<'_>, target: Result<Option<Name>, Stop>) -> SocksReading {
    match target {
        Ok(target) => SocksReading::Whole { end: bytes.len() - reader.rest().len(), target },
        Err(Stop::Cut) => SocksReading::Incomplete,
        Err(Stop::Other) => SocksReading::Other,
    }
}

fn request_4(reader: &mut Reader<'_>) -> Result<Option<Name>, Stop> {
    // CONNECT or BIND.
    expect(reader, |command| matches!(command, 1 | 2))?;
    let port = reader.u16().ok_or(Stop::Cut)?;
    let address = reader.array::<4>().ok_or(Stop::Cut)?;
    if port == 0 {
        return Err(Stop::Other);
    }
    zero_ended(reader)?;
    // 0.0.0.x says that the name follows (SOCKS 4a).
    if matches!(address, [0, 0, 0, last] if last != 0) {
        return Ok(Name::from_host(zero_ended(reader)?));
    }
    Ok(name_of(Ipv4Addr::from(address)))
}

fn request_5(reader: &mut Reader<'_>) -> Result<Option<Name>, Stop> {
    let methods = usize::from(reader.u8().ok_or(Stop::Cut)?);
    if !(1..=MAX_METHODS).contains(&methods) {
        return Err(Stop::Other);
    }
    let methods = reader.take(methods).ok_or(Stop::Cut)?;
    // Beyond 0x0A only private methods and "none" are assigned (IANA socks-methods).
    if methods.iter().any(|method| (0x0B..0x80).contains(method)) {
        return Err(Stop::Other);
    }
    let mut first = reader.u8().ok_or(Stop::Cut)?;
    if first == 1 {
        // User name and password (RFC 1929 §2).
        for _ in 0..2 {
            let length = reader.u8().ok_or(Stop::Cut)?;
            reader.take(usize::from(length)).ok_or(Stop::Cut)?;
        }
        first = reader.u8().ok_or(Stop::Cut)?;
    }
    if first != VERSION_5 {
        return Err(Stop::Other);
    }
    expect(reader, |command| matches!(command, 1 | 2))?;
    expect(reader, |reserved| reserved == 0)?;
    address_5(reader)
}

fn reply_4(reader: &mut Reader<'_>) -> Result<(), Stop> {
    expect(reader, |code| code == GRANTED_4)?;
    reader.array::<6>().map(|_| ()).ok_or(Stop::Cut)
}

fn reply_5(reader: &mut Reader<'_>) -> Result<(), Stop> {
    let method = reader.u8().ok_or(Stop::Cut)?;
    match method {
        0 => {}
        2 => {
            expect(reader, |version| version == 1)?;
            expect(reader, |status| status == 0)?;
        }
        _ => return Err(Stop::Other),
    }
    expect(reader, |version| version == VERSION_5)?;
    expect(reader, |reply| reply == 0)?;
    expect(reader, |reserved| reserved == 0)?;
    address_5(reader).map(|_| ())
}

/// Reads an address and a port (RFC 1928 §5).
fn address_5(reader: &mut Reader<'_>) -> Result<Option<Name>, Stop> {
    let name = match reader.u8().ok_or(Stop::Cut)? {
        1 => name_of(Ipv4Addr::from(reader.array::<4>().ok_or(Stop::Cut)?)),
        3 => {
            let length = reader.u8().ok_or(Stop::Cut)?;
            Name::from_host(reader.take(usize::from(length)).ok_or(Stop::Cut)?)
        }
        4 => name_of(Ipv6Addr::from(reader.array::<16>().ok_or(Stop::Cut)?)),
        _ => return Err(Stop::Other),
    };
    reader.u16().map(|_| name).ok_or(Stop::Cut)
}

fn expect(reader: &mut Reader<'_>, fits: impl Fn(u8) -> bool) -> Result<(), Stop> {
    match reader.u8() {
        Some(byte) if fits(byte) => Ok(()),
        Some(_) => Err(Stop::Other),
        None => Err(Stop::Cut),
    }
}

fn zero_ended<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Stop> {
    let rest = reader.rest();
    match rest.iter().take(MAX_USER).position(|byte| *byte == 0) {
        Some(end) => {
            reader.take(end + 1);
            rest.get(..end).ok_or(Stop::Cut)
        }
        None if rest.len() < MAX_USER => Err(Stop::Cut),
        None => Err(Stop::Other),
    }
}

/// Writes an address as a name, without a heap.
fn name_of(address: impl std::fmt::Display) -> Option<Name> {
    struct Writer(Name);
    impl Write for Writer {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            text.bytes().try_for_each(|byte| self.0.push(byte)).ok_or(std::fmt::Error)
        }
    }
    let mut writer = Writer(Name::empty());
    write!(writer, "{address}").ok()?;
    Some(writer.0)
}

#[cfg(test)]
mod tests {
    use super::{SocksReading, reply, request};

    fn whole(reading: &SocksReading) -> (usize, Option<&str>) {
        match reading {
            SocksReading::Whole { end, target } => (*end, target.as_ref().map(|n| n.as_str())),
            other => panic!("not whole: {other:?}"),
        }
    }

    #[test]
    fn a_request_of_every_version_gives_its_target_and_its_end() {
        let domain = [&[5, 1, 0, 5, 1, 0, 3, 9][..], b"C2.Example", &[1, 187]].concat();
        let mut domain = domain;
        domain[7] = 10;
        let cases: [(&[u8], &str); 6] = [
            (&domain, "c2.example"),
            (&[5, 2, 0, 2, 5, 1, 0, 1, 203, 0, 113, 9, 0, 80], "203.0.113.9"),
            (&[5, 1, 2, 1, 1, b'u', 1, b'p', 5, 1, 0, 1, 203, 0, 113, 9, 0, 80], "203.0.113.9"),
            (
                &[
                    5, 1, 0, 5, 1, 0, 4, 0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0,
                    80,
                ],
                "2001:db8::1",
            ),
            (&[4, 1, 0, 80, 203, 0, 113, 9, b'u', 0], "203.0.113.9"),
            (&[4, 1, 0, 80, 0, 0, 0, 1, 0, b'a', b'.', b'b', 0], "a.b"),
        ];
        for (bytes, target) in cases {
            for cut in 0..bytes.len() {
                assert_eq!(request(&bytes[..cut]), SocksReading::Incomplete, "{bytes:?} at {cut}");
            }
            let longer = [bytes, b"inner"].concat();
            assert_eq!(whole(&request(&longer)), (bytes.len(), Some(target)));
        }
    }

    #[test]
    fn a_reply_ends_where_the_tunnel_begins() {
        let five = [5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let with_password = [5, 2, 1, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(whole(&reply(&five, false)).0, five.len());
        assert_eq!(whole(&reply(&with_password, false)).0, with_password.len());
        assert_eq!(whole(&reply(&[0, 0x5A, 0, 0, 0, 0, 0, 0, 22], true)).0, 8);
        assert_eq!(reply(&[0, 0x5A, 0, 0, 0, 0, 0, 0], false), SocksReading::Other);
        assert_eq!(reply(&[0, 0x5B, 0, 0, 0, 0, 0, 0], true), SocksReading::Other);
        assert_eq!(reply(&[5, 0, 5, 1, 0], false), SocksReading::Other, "refused");
    }

    #[test]
    fn other_protocols_are_no_negotiation() {
        // DCE/RPC version 5.0 begins with the same byte.
        for other in [&[5, 0, 11, 3][..], &[4, 9], b"GET", &[5, 1, 0x41], &[5, 17, 0]] {
            assert_eq!(request(other), SocksReading::Other, "{other:?}");
        }
    }
}
