//! The first words of SSH: the identification string (RFC 4253 §4.2) and the key exchange offer (§7.1).

use super::reader::Reader;
use md5::{Digest, Md5};

/// Longest identification string, its line end included (RFC 4253 §4.2).
const MAX_BANNER: usize = 255;
/// Longest offer that is waited for; those of today's programs have 1 to 2 KiB.
const MAX_OFFER: usize = 8 * 1024;
/// Message number of the offer (RFC 4253 §12).
const KEXINIT: u8 = 20;

/// What an SSH end says before it enciphers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SshHello<'a> {
    /// The identification string without its line end.
    Banner(&'a [u8]),
    /// The offer of algorithms (`SSH_MSG_KEXINIT`).
    Offer(SshOffer<'a>),
}

/// The name-lists of a key exchange offer, each comma-separated as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SshOffer<'a> {
    /// `kex_algorithms`.
    pub key_exchange: &'a [u8],
    /// Encryption algorithms of the direction that the sender writes.
    pub encryption: &'a [u8],
    /// MAC algorithms of that direction.
    pub mac: &'a [u8],
    /// Compression algorithms of that direction.
    pub compression: &'a [u8],
}

/// What the bytes at hand give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SshReading<T> {
    /// The bytes end before it is all there.
    Incomplete,
    /// It is something else.
    Other,
    /// It is all there, and this many bytes long.
    Whole(T, usize),
}

/// Reads the identification string that an SSH end's bytes begin with; the length counts the line end.
#[must_use]
pub fn banner(bytes: &[u8]) -> SshReading<&[u8]> {
    if !bytes.iter().zip(b"SSH-").all(|(a, b)| a == b) {
        return SshReading::Other;
    }
    match bytes.iter().take(MAX_BANNER).position(|byte| *byte == b'\n') {
        Some(end) => {
            let line = bytes.get(..end).unwrap_or_default();
            SshReading::Whole(line.strip_suffix(b"\r").unwrap_or(line), end + 1)
        }
        None if bytes.len() < MAX_BANNER => SshReading::Incomplete,
        None => SshReading::Other,
    }
}

impl<'a> SshOffer<'a> {
    /// Reads the packet behind the identification string; `by_client` says which end sent it.
    #[must_use]
    pub fn parse(bytes: &'a [u8], by_client: bool) -> SshReading<Self> {
        let mut reader = Reader::new(bytes);
        let Some(length) = reader.u32() else { return SshReading::Incomplete };
        let length = length as usize;
        if !(2..=MAX_OFFER).contains(&length) {
            return SshReading::Other;
        }
        if bytes.get(5).is_some_and(|kind| *kind != KEXINIT) {
            return SshReading::Other;
        }
        match reader.take(length) {
            Some(packet) => Self::lists(packet, by_client)
                .map_or(SshReading::Other, |offer| SshReading::Whole(offer, 4 + length)),
            None => SshReading::Incomplete,
        }
    }

    fn lists(packet: &'a [u8], by_client: bool) -> Option<Self> {
        let mut reader = Reader::new(packet);
        let _padding = reader.u8()?;
        let _kind = reader.u8()?;
        let _cookie = reader.array::<16>()?;
        let mut list = || {
            let length = reader.u32()?;
            reader.take(usize::try_from(length).ok()?)
        };
        let key_exchange = list()?;
        let _host_key = list()?;
        let mut of_sender = || {
            let (by_client_list, by_server_list) = (list()?, list()?);
            Some(if by_client { by_client_list } else { by_server_list })
        };
        let (encryption, mac, compression) = (of_sender()?, of_sender()?, of_sender()?);
        Some(Self { key_exchange, encryption, mac, compression })
    }

    /// The HASSH of a client's offer, or the HASSHServer of a server's: the MD5 of its lists
    /// (Salesforce HASSH, BSD-3-Clause).
    #[must_use]
    pub fn hassh(&self) -> [u8; 16] {
        let mut md5 = Md5::new();
        let lists = [self.key_exchange, self.encryption, self.mac, self.compression];
        for (n, list) in lists.into_iter().enumerate() {
            if n != 0 {
                md5.update(b";");
            }
            md5.update(list);
        }
        md5.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_OFFER, SshOffer, SshReading, banner};

    fn offer(lists: &[&str]) -> Vec<u8> {
        let mut body = vec![4, 20];
        body.extend([7; 16]);
        for list in lists {
            body.extend((list.len() as u32).to_be_bytes());
            body.extend(list.as_bytes());
        }
        body.extend([0; 9]);
        [&(body.len() as u32).to_be_bytes()[..], &body].concat()
    }

    #[test]
    fn an_identification_ends_with_its_line() {
        let text = b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\nnext";
        assert_eq!(banner(text), SshReading::Whole(&text[..30], 32));
        assert_eq!(banner(b"SSH-1.99-x\n"), SshReading::Whole(&b"SSH-1.99-x"[..], 11));
        for len in 0..31 {
            assert_eq!(banner(&text[..len]), SshReading::Incomplete, "{len}");
        }
        assert_eq!(banner(b"SSX"), SshReading::Other);
        assert_eq!(banner(&[b"SSH-2.0-", &[b'a'; 300][..]].concat()), SshReading::Other);
    }

    #[test]
    fn each_end_is_known_by_the_lists_of_what_it_writes() {
        let bytes = offer(&["kex", "key", "e1", "e2", "m1", "m2", "c1", "c2", "", ""]);
        let SshReading::Whole(client, len) = SshOffer::parse(&bytes, true) else { panic!() };
        let SshReading::Whole(server, _) = SshOffer::parse(&bytes, false) else { panic!() };
        assert_eq!(len, bytes.len());
        assert_eq!(
            (client.encryption, client.mac, client.compression),
            (&b"e1"[..], &b"m1"[..], &b"c1"[..])
        );
        assert_eq!(
            (server.encryption, server.mac, server.compression),
            (&b"e2"[..], &b"m2"[..], &b"c2"[..])
        );
        assert_eq!(client.key_exchange, b"kex");
        for len in 0..bytes.len() {
            assert_eq!(SshOffer::parse(&bytes[..len], true), SshReading::Incomplete, "{len}");
        }
    }

    /// The value is that of another program's MD5 over the lists joined by semicolons.
    #[test]
    fn the_hassh_is_the_md5_of_the_joined_lists() {
        let offer = SshOffer {
            key_exchange: b"curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,diffie-hellman-group-exchange-sha256,diffie-hellman-group-exchange-sha1,diffie-hellman-group14-sha1,diffie-hellman-group1-sha1",
            encryption: b"aes128-cbc,aes192-cbc,aes256-cbc,blowfish-cbc,3des-cbc",
            mac: b"hmac-sha1",
            compression: b"none",
        };
        let hex: String = offer.hassh().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "40becd18659df9509ba9c3f52a7b2b5f");
    }

    #[test]
    fn lengths_that_contradict_themselves_are_refused() {
        let mut bytes = offer(&["kex", "key"]);
        assert_eq!(SshOffer::parse(&bytes, true), SshReading::Other, "too few lists");
        bytes[5] = 21;
        assert_eq!(SshOffer::parse(&bytes, true), SshReading::Other);
        let long = (MAX_OFFER as u32 + 1).to_be_bytes();
        assert_eq!(SshOffer::parse(&long, true), SshReading::Other);
        let mut seed = 1_u32;
        let whole = offer(&["kex", "key", "e1", "e2", "m1", "m2", "c1", "c2", "", ""]);
        for _ in 0..50_000 {
            let mut bytes = whole.clone();
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = (seed >> 8) as usize % bytes.len();
            bytes[at] = seed as u8;
            let _ = SshOffer::parse(&bytes, seed & 1 == 0);
        }
    }
}
