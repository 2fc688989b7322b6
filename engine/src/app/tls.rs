//! The server name a TLS client asks for (RFC 6066 §3).

use super::{Name, reader::Reader};

/// Record content type `handshake` (RFC 8446 §5.1).
const RECORD_HANDSHAKE: u8 = 22;
/// Handshake type `client_hello` (RFC 8446 §4).
const CLIENT_HELLO: u8 = 1;
/// Extension `server_name` (RFC 6066 §3) and its only name type, `host_name`.
const EXTENSION_SERVER_NAME: u16 = 0;
const NAME_TYPE_HOST: u8 = 0;
/// Longest record body a peer may send: 2^14 and the allowance of RFC 5246 §6.2.3.
const MAX_RECORD_LEN: u16 = (1 << 14) + 2048;
/// How much of a hello spread over several records is joined before it is read.
const JOINED_LEN: usize = 4096;

/// What the start of a client's bytes says about the server name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "the name stays on the stack: no allocation per packet"
)]
pub enum Sni {
    /// The bytes end before the name; a longer head may hold it.
    Incomplete,
    /// The name asked for.
    Name(Name),
    /// A complete hello that names no valid host.
    None,
    /// No TLS client hello.
    NotHello,
}

/// Reads the server name from the first bytes a TLS client sends.
///
/// A hello cut at the end of a segment still gives its name if the extension lies in what is there,
/// and a hello split over several records (an evasion) is joined first.
#[must_use]
pub fn client_hello_sni(payload: &[u8]) -> Sni {
    let mut reader = Reader::new(payload);
    match first_record(&mut reader) {
        Err(fault) => fault.into(),
        Ok((body, whole)) => {
            let continues = hello_len(body).is_none_or(|len| len > body.len());
            if whole && continues && !reader.is_empty() {
                joined_sni(payload)
            } else {
                client_hello_body_sni(body)
            }
        }
    }
}

/// Reads the server name from a handshake message that starts at its type byte, as QUIC carries it.
#[must_use]
pub fn client_hello_body_sni(handshake: &[u8]) -> Sni {
    let mut reader = Reader::new(handshake);
    match reader.u8() {
        None => return Sni::Incomplete,
        Some(CLIENT_HELLO) => {}
        Some(_) => return Sni::NotHello,
    }
    let Some(len) = reader.u24() else { return Sni::Incomplete };
    let rest = reader.rest();
    let cut = rest.len() < len;
    walk_hello(Reader::new(rest.get(..len).unwrap_or(rest)), cut).unwrap_or(if cut {
        Sni::Incomplete
    } else {
        Sni::NotHello
    })
}

/// Length of the whole handshake message the bytes start with.
fn hello_len(handshake: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(handshake);
    reader.u8()?;
    Some(4 + reader.u24()?)
}

/// Why the front of the bytes is no handshake record.
#[derive(Clone, Copy)]
enum RecordFault {
    Cut,
    NotHello,
}

impl From<RecordFault> for Sni {
    fn from(fault: RecordFault) -> Self {
        match fault {
            RecordFault::Cut => Self::Incomplete,
            RecordFault::NotHello => Self::NotHello,
        }
    }
}

/// Takes one handshake record off the front: its body, and whether the body is all there.
fn first_record<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], bool), RecordFault> {
    let or_cut = |field: Option<u8>| field.ok_or(RecordFault::Cut);
    if or_cut(reader.u8())? != RECORD_HANDSHAKE || or_cut(reader.u8())? != 3 {
        return Err(RecordFault::NotHello);
    }
    // SSL 3.0 to TLS 1.3 state minor versions 0 to 4 here.
    if or_cut(reader.u8())? > 4 {
        return Err(RecordFault::NotHello);
    }
    let len = reader.u16().ok_or(RecordFault::Cut)?;
    if len == 0 || len > MAX_RECORD_LEN {
        return Err(RecordFault::NotHello);
    }
    let rest = reader.rest();
    match reader.take(usize::from(len)) {
        Some(body) => Ok((body, true)),
        None => {
            *reader = Reader::new(&[]);
            Ok((rest, false))
        }
    }
}

/// The slow case: the hello continues in further records.
fn joined_sni(payload: &[u8]) -> Sni {
    let mut joined = [0; JOINED_LEN];
    let mut filled = 0;
    let mut reader = Reader::new(payload);
    while !reader.is_empty() && filled < JOINED_LEN {
        match first_record(&mut reader) {
            Ok((body, _)) => {
                let room = joined.get_mut(filled..).unwrap_or_default();
                for (to, from) in room.iter_mut().zip(body) {
                    *to = *from;
                    filled += 1;
                }
            }
            Err(fault) if filled == 0 => return fault.into(),
            Err(_) => break,
        }
    }
    client_hello_body_sni(joined.get(..filled).unwrap_or_default())
}

/// Walks a hello to its server name; `None` when the bytes run out before the walk ends.
fn walk_hello(mut hello: Reader<'_>, cut: bool) -> Option<Sni> {
    let [major, _minor] = hello.array()?;
    if major != 3 {
        return Some(Sni::NotHello);
    }
    let _random = hello.array::<32>()?;
    let session_id_len = hello.u8()?;
    if session_id_len > 32 {
        return Some(Sni::NotHello);
    }
    hello.take(usize::from(session_id_len))?;
    let suites_len = hello.u16()?;
    hello.take(usize::from(suites_len))?;
    let compression_len = hello.u8()?;
    hello.take(usize::from(compression_len))?;
    // TLS 1.2 and older may end without any extension.
    if hello.is_empty() {
        return (!cut).then_some(Sni::None);
    }
    let extensions_len = usize::from(hello.u16()?);
    let rest = hello.rest();
    let mut extensions = Reader::new(rest.get(..extensions_len).unwrap_or(rest));
    while !extensions.is_empty() {
        let kind = extensions.u16()?;
        let len = usize::from(extensions.u16()?);
        if kind == EXTENSION_SERVER_NAME {
            let rest = extensions.rest();
            return host_name(Reader::new(rest.get(..len).unwrap_or(rest)));
        }
        extensions.take(len)?;
    }
    if rest.len() < extensions_len { None } else { Some(Sni::None) }
}

/// Reads the first host name of a `server_name` extension.
fn host_name(mut list: Reader<'_>) -> Option<Sni> {
    let _list_len = list.u16()?;
    let kind = list.u8()?;
    let len = usize::from(list.u16()?);
    if kind != NAME_TYPE_HOST {
        return Some(Sni::None);
    }
    Some(Name::from_host(list.take(len)?).map_or(Sni::None, Sni::Name))
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Sni, client_hello_body_sni, client_hello_sni};

    #[test]
    fn the_server_name_is_read_in_lower_case() {
        assert_eq!(
            name_of(&client_hello_sni(&record(&hello(Some("WWW.Example.com"))))),
            "www.example.com"
        );
        assert_eq!(name_of(&client_hello_body_sni(&hello(Some("a.example")))), "a.example");
    }

    #[test]
    fn a_hello_cut_anywhere_is_incomplete_until_the_name_is_there() {
        let whole = record(&hello(Some("cut.example")));
        let name_ends = whole.windows(11).position(|w| w == b"cut.example").unwrap() + 11;
        for len in 0..whole.len() {
            let sni = client_hello_sni(&whole[..len]);
            if len < name_ends {
                assert_eq!(sni, Sni::Incomplete, "{len}");
            } else {
                assert_eq!(name_of(&sni), "cut.example", "{len}");
            }
        }
    }

    #[test]
    fn a_hello_split_over_records_is_joined() {
        let hello = hello(Some("split.example"));
        for chunk in [1, 3, 7, 40] {
            let records: Vec<u8> = hello.chunks(chunk).flat_map(record).collect();
            assert_eq!(name_of(&client_hello_sni(&records)), "split.example");
        }
    }

    #[test]
    fn a_complete_hello_without_a_name_says_so() {
        assert_eq!(client_hello_sni(&record(&hello(None))), Sni::None);
        let mut bare = hello(None);
        let extensions_at = bare.len() - 8;
        bare.truncate(extensions_at);
        bare[3] -= 8;
        assert_eq!(client_hello_sni(&record(&bare)), Sni::None);
        assert_eq!(client_hello_sni(&record(&hello(Some("not a host")))), Sni::None);
    }

    #[test]
    fn other_protocols_are_not_a_hello() {
        for other in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"SSH-2.0-",
            &[22, 3, 1, 0, 4, 2, 0, 0, 0],
            &[22, 9, 1],
            &[23, 3, 3, 0, 5],
        ] {
            assert_eq!(client_hello_sni(other), Sni::NotHello, "{other:?}");
        }
    }

    #[test]
    fn mutated_hellos_are_read_without_a_panic() {
        let whole = record(&hello(Some("mutated.example")));
        let mut seed = 0x1234_5678_u32;
        for _ in 0..100_000 {
            let mut bytes = whole.clone();
            for _ in 0..3 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (seed >> 8) as usize % bytes.len();
                bytes[at] = seed as u8;
            }
            let _ = client_hello_sni(&bytes);
        }
    }

    fn name_of(sni: &Sni) -> &str {
        match sni {
            Sni::Name(name) => name.as_str(),
            other => panic!("no name: {other:?}"),
        }
    }

    pub(crate) fn record(handshake: &[u8]) -> Vec<u8> {
        let mut out = vec![22, 3, 1];
        out.extend_from_slice(&(handshake.len() as u16).to_be_bytes());
        out.extend_from_slice(handshake);
        out
    }

    /// A hello with one unknown extension before and, if asked, the server name after it.
    pub(crate) fn hello(host: Option<&str>) -> Vec<u8> {
        let mut extensions = vec![0x0A, 0x0A, 0, 2, 1, 2];
        if let Some(host) = host {
            let len = host.len() as u16;
            extensions.extend_from_slice(&[0, 0]);
            extensions.extend_from_slice(&(len + 5).to_be_bytes());
            extensions.extend_from_slice(&(len + 3).to_be_bytes());
            extensions.push(0);
            extensions.extend_from_slice(&len.to_be_bytes());
            extensions.extend_from_slice(host.as_bytes());
        }
        let mut body = vec![3, 3];
        body.extend_from_slice(&[7; 32]);
        body.extend_from_slice(&[0, 0, 4, 0x13, 0x01, 0x13, 0x02, 1, 0]);
        body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
        body.extend_from_slice(&extensions);
        let mut out = vec![1, 0];
        out.extend_from_slice(&(body.len() as u16).to_be_bytes());
        out.extend_from_slice(&body);
        out
    }
}
