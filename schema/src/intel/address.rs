//! Addresses and networks as lists write them, read in a fraction of the time that the standard
//! library takes, which reads what is written otherwise.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) fn parse_network(text: &str) -> Option<IpNet> {
    let (address, prefix) = text.split_once('/')?;
    // ipnet takes a prefix of digits alone.
    let is_number = (1..=3).contains(&prefix.len()) && prefix.bytes().all(|b| b.is_ascii_digit());
    if is_number && let Some(address) = parse_ip(address) {
        return IpNet::new(address, prefix.parse().ok()?).ok();
    }
    text.parse().ok()
}

pub(super) fn parse_ip(text: &str) -> Option<IpAddr> {
    if let Some(bits) = octets(text.as_bytes()) {
        return Some(Ipv4Addr::from_bits(bits).into());
    }
    if let Some(bits) = words(text.as_bytes()) {
        return Some(Ipv6Addr::from_bits(bits).into());
    }
    text.parse().ok()
}

/// The IPv6 address that eight words of up to four hexadecimal digits are, a row of zero words left
/// out at most once; `None` also for forms that are seldom written.
fn words(text: &[u8]) -> Option<u128> {
    if text.len() > "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".len() {
        return None;
    }
    // What stands before the gap, and after it.
    let (mut before, mut bits, mut word, mut digits) = (None, 0_u128, 0_u32, 0_u32);
    let (mut count, mut ahead) = (0_u32, 0_u32);
    let mut bytes = text.iter().peekable();
    while let Some(byte) = bytes.next() {
        if let Some(digit) = char::from(*byte).to_digit(16) {
            (word, digits) = (word << 4 | digit, digits + 1);
            if digits > 4 {
                return None;
            }
            continue;
        }
        if *byte != b':' {
            return None;
        }
        if digits > 0 {
            (bits, count) = (bits << 16 | u128::from(word), count + 1);
        }
        let is_gap = bytes.peek() == Some(&&b':');
        match (digits, is_gap) {
            (_, true) if before.is_none() => {
                bytes.next();
                (before, ahead) = (Some(bits), count);
                (bits, count) = (0, 0);
            }
            (1.., false) if bytes.peek().is_some() => {}
            _ => return None,
        }
        (word, digits) = (0, 0);
    }
    if digits > 0 {
        (bits, count) = (bits << 16 | u128::from(word), count + 1);
    }
    match before {
        None if count == 8 => Some(bits),
        Some(before) if ahead + count < 8 => {
            Some(before.checked_shl(16 * (8 - ahead)).unwrap_or(0) | bits)
        }
        _ => None,
    }
}

/// The IPv4 address that four decimal numbers with dots between them are.
pub(super) fn octets(text: &[u8]) -> Option<u32> {
    let (mut bits, mut octet, mut digits, mut octets) = (0_u32, 0_u32, 0_u32, 1);
    if text.len() > "255.255.255.255".len() {
        return None;
    }
    for byte in text {
        if *byte == b'.' {
            if digits == 0 || octet > 255 {
                return None;
            }
            (bits, octet, digits, octets) = (bits << 8 | octet, 0, 0, octets + 1);
        } else {
            let digit = u32::from(byte.wrapping_sub(b'0'));
            // A number that begins with zero may be meant in base eight.
            if digit > 9 || (digits > 0 && octet == 0) || digits == 3 {
                return None;
            }
            (octet, digits) = (octet * 10 + digit, digits + 1);
        }
    }
    (octets == 4 && digits > 0 && octet <= 255).then_some(bits << 8 | octet)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Law: addresses and networks are read as the standard library and ipnet read them.
    #[test]
    fn addresses_and_networks_are_read_as_others_read_them() {
        const PARTS: [&str; 22] = [
            ":", ":", ":", "::", "0", "1", "ffff", "db8", "2001", "a", "12345", ".", "1.2.3.4",
            "255", "/", "/", "24", "64", "129", "+1", "00", "%1",
        ];
        let mut state = 5_u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        let mut read = [0; 2];
        for round in 0..60_000 {
            let text = match round % 4 {
                0 => (0..8 + random(2)).map(|_| PARTS[4 + random(6)]).collect::<Vec<_>>().join(":"),
                1 => {
                    let mut row = |many| {
                        (0..many).map(|_| PARTS[4 + random(6)]).collect::<Vec<_>>().join(":")
                    };
                    let (before, after) = (row(3), row(4));
                    format!("{before}::{after}/{}", random(140))
                }
                _ => (0..=random(9)).map(|_| PARTS[random(PARTS.len())]).collect(),
            };
            assert_eq!(parse_ip(&text), text.parse().ok(), "{text}");
            assert_eq!(parse_network(&text), text.parse().ok(), "{text}");
            read[0] += usize::from(words(text.as_bytes()).is_some());
            read[1] += usize::from(text.parse::<IpNet>().is_ok());
        }
        assert!(read.iter().all(|many| *many > 1000), "{read:?}");
    }
}
