//! Network identifiers: transports, flows oriented inside to outside, Community IDs.

use base64::Engine as _;
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A text as it may stand in a query (RFC 3986, unreserved characters).
#[must_use]
pub fn query_value(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The transport of a flow, by IP protocol number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// ICMP, IP protocol 1.
    Icmp,
    /// ICMPv6, IP protocol 58.
    Icmpv6,
    /// Any other IP protocol, by its number.
    Other(u8),
    /// TCP, IP protocol 6.
    #[default]
    Tcp,
    /// UDP, IP protocol 17.
    Udp,
}

impl Transport {
    /// The IP protocol number (IANA "Assigned Internet Protocol Numbers").
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Icmp => 1,
            Self::Icmpv6 => 58,
            Self::Other(number) => number,
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// The transport with this IP protocol number.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Icmp,
            6 => Self::Tcp,
            17 => Self::Udp,
            58 => Self::Icmpv6,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Icmp => f.write_str("icmp"),
            Self::Icmpv6 => f.write_str("icmpv6"),
            Self::Other(number) => write!(f, "ip-{number}"),
            Self::Tcp => f.write_str("tcp"),
            Self::Udp => f.write_str("udp"),
        }
    }
}

impl Serialize for Transport {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Transport {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "icmp" => Ok(Self::Icmp),
            "icmpv6" => Ok(Self::Icmpv6),
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            other => other
                .strip_prefix("ip-")
                .and_then(|number| number.parse().ok())
                .map(Self::Other)
                .ok_or_else(|| {
                    serde::de::Error::custom(format!(
                        "\"{other}\" is not a transport: tcp, udp, icmp, icmpv6 or ip-NUMBER"
                    ))
                }),
        }
    }
}

/// Transport and both endpoints, always from the inside to the outside of the perimeter.
///
/// ICMP and other transports without ports carry port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// The transport protocol.
    pub transport: Transport,
    /// The inside endpoint.
    pub local: SocketAddr,
    /// The outside endpoint.
    pub remote: SocketAddr,
}

impl FlowKey {
    /// The Community ID version 1, seed 0 (corelight/community-id-spec): what other tools call this flow.
    #[must_use]
    pub fn community_id(&self) -> String {
        let (a, b) = (self.local, self.remote);
        let (first, second) =
            if (a.ip(), a.port()) <= (b.ip(), b.port()) { (a, b) } else { (b, a) };
        let mut hash = Sha1::new();
        hash.update([0, 0]);
        for end in [first, second] {
            match end.ip() {
                IpAddr::V4(ip) => hash.update(ip.octets()),
                IpAddr::V6(ip) => hash.update(ip.octets()),
            }
        }
        hash.update([self.transport.number(), 0]);
        if matches!(self.transport, Transport::Tcp | Transport::Udp) {
            hash.update(first.port().to_be_bytes());
            hash.update(second.port().to_be_bytes());
        }
        format!("1:{}", base64::engine::general_purpose::STANDARD.encode(hash.finalize()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_community_id_is_the_published_one() {
        // The example of the specification's README: 128.232.110.120:34855 to 66.35.250.204:80 over TCP.
        let key = FlowKey {
            transport: Transport::Tcp,
            local: "128.232.110.120:34855".parse().unwrap(),
            remote: "66.35.250.204:80".parse().unwrap(),
        };
        assert_eq!(key.community_id(), "1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
    }
}
