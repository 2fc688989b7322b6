//! The one form in which every reader hands out a host or domain name.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    net::Ipv6Addr,
};

/// Longest domain name in text form, without the trailing dot (RFC 1035 §2.3.4).
const MAX_LEN: usize = 253;

/// A host or domain name: lower-case ASCII, no trailing dot, at most 253 bytes, on the stack.
#[derive(Clone)]
pub struct Name {
    len: u8,
    bytes: [u8; MAX_LEN],
}

impl Name {
    pub(super) const fn empty() -> Self {
        Self { len: 0, bytes: [0; MAX_LEN] }
    }

    /// Takes a host name as written in TLS or HTTP; refuses characters no host name has.
    ///
    /// Letters, digits, `-`, `.` and `_` are accepted, which covers dotted IPv4 addresses too.
    #[must_use]
    pub fn from_host(text: &[u8]) -> Option<Self> {
        let text = text.strip_suffix(b".").unwrap_or(text);
        let mut name = Self::empty();
        let filled = name.bytes.get_mut(..text.len())?;
        let mut previous = b'.';
        for (to, &from) in filled.iter_mut().zip(text) {
            let valid = from.is_ascii_alphanumeric() || matches!(from, b'-' | b'.' | b'_');
            if !valid || (from == b'.' && previous == b'.') {
                return None;
            }
            *to = from.to_ascii_lowercase();
            previous = from;
        }
        name.len = u8::try_from(text.len()).ok()?;
        (name.len != 0).then_some(name)
    }

    /// Takes an IPv6 address as written between brackets.
    pub(super) fn from_ipv6(text: &[u8]) -> Option<Self> {
        std::str::from_utf8(text).ok()?.parse::<Ipv6Addr>().ok()?;
        let mut name = Self::empty();
        for &byte in text {
            name.push(byte.to_ascii_lowercase())?;
        }
        Some(name)
    }

    /// Appends one ASCII byte; `None` when the name is full.
    pub(super) fn push(&mut self, byte: u8) -> Option<()> {
        *self.bytes.get_mut(usize::from(self.len))? = byte;
        self.len += 1;
        Some(())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Appends a whole label of host-name characters; `false` leaves the name as it was.
    pub(super) fn push_plain(&mut self, label: &[u8]) -> bool {
        let start = usize::from(self.len);
        let Some(room) = self.bytes.get_mut(start..start + label.len()) else { return false };
        let mut plain = true;
        for (to, &from) in room.iter_mut().zip(label) {
            plain &= from.is_ascii_graphic() && !matches!(from, b'.' | b'\\');
            *to = from.to_ascii_lowercase();
        }
        if plain {
            self.len += label.len() as u8;
        }
        plain
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// Whether this is the root, written as the empty name.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::Name;

    #[test]
    fn a_host_is_lower_cased_and_loses_its_trailing_dot() {
        assert_eq!(Name::from_host(b"WWW.Example.COM.").unwrap().as_str(), "www.example.com");
    }

    #[test]
    fn what_no_host_name_contains_is_refused() {
        for bad in
            [&b""[..], b".", b"a b", b"a..b", b".a", b"a\0b", b"\xc3\xa9", b"a/b", &[b'a'; 254]]
        {
            assert_eq!(Name::from_host(bad), None, "{bad:?}");
        }
        assert_eq!(Name::from_host(&[b'a'; 253]).unwrap().as_str().len(), 253);
    }

    #[test]
    fn only_a_real_ipv6_address_stands_between_brackets() {
        assert_eq!(Name::from_ipv6(b"2001:DB8::1").unwrap().as_str(), "2001:db8::1");
        assert_eq!(Name::from_ipv6(b"2001:db8::1%eth0"), None);
    }
}
