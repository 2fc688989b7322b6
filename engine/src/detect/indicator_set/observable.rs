//! What a text of a pack or list stands for.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Why a text is not an indicator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseIndicatorError {
    /// A network.
    #[error("is a network; an indicator is one address")]
    Network,
    /// A name of one label.
    #[error("stands for a whole top-level domain")]
    OneLabel,
    /// Nothing that is known.
    #[error("is no address, address:port or domain name")]
    Shape,
    /// Full.
    #[error("is one indicator too many")]
    TooMany,
    /// An address that no packet leaves for.
    #[error("is an address that no packet leaves for")]
    Unroutable,
}

/// What a text stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Observable {
    Address(IpAddr),
    Endpoint(SocketAddr),
    Name(String),
}

impl Observable {
    pub(super) fn parse(text: &str) -> Result<Self, ParseIndicatorError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return routable(address).map(Self::Address);
        }
        if let Ok(end) = text.parse::<SocketAddr>() {
            let address = routable(end.ip())?;
            return if end.port() == 0 {
                Err(ParseIndicatorError::Shape)
            } else {
                Ok(Self::Endpoint(SocketAddr::new(address, end.port())))
            };
        }
        if text.contains('/') {
            let network = text.parse::<IpNet>().is_ok();
            return Err(if network {
                ParseIndicatorError::Network
            } else {
                ParseIndicatorError::Shape
            });
        }
        parse_name(text).map(Self::Name)
    }
}

fn routable(address: IpAddr) -> Result<IpAddr, ParseIndicatorError> {
    let address = address.to_canonical();
    let nowhere = address.is_unspecified()
        || address.is_loopback()
        || address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if nowhere { Err(ParseIndicatorError::Unroutable) } else { Ok(address) }
}

/// Reads a domain name of at least two labels (RFC 1123 §2.1, with `_`), lower-cased.
fn parse_name(text: &str) -> Result<String, ParseIndicatorError> {
    let text = text.strip_prefix("*.").or_else(|| text.strip_prefix('.')).unwrap_or(text);
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() || text.len() > 253 {
        return Err(ParseIndicatorError::Shape);
    }
    let (mut labels, mut last_is_number) = (0, false);
    for label in text.split('.') {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if label.is_empty() || label.len() > 63 || !label.bytes().all(plain) {
            return Err(ParseIndicatorError::Shape);
        }
        labels += 1;
        last_is_number = label.bytes().all(|byte| byte.is_ascii_digit());
    }
    match (labels, last_is_number) {
        (_, true) => Err(ParseIndicatorError::Shape),
        (1, false) => Err(ParseIndicatorError::OneLabel),
        _ => Ok(text.to_ascii_lowercase()),
    }
}
