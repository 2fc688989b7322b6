//! Oddities of a contact that cost nothing to see (detection.md, 2.4).

use super::keep::keep_fields;
use sekisho_schema::episode::Oddity;

/// Bytes below which a payload says nothing about its cipher.
const FLOOR: usize = 16;

/// A set of oddities; a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oddities {
    bits: u8,
}
keep_fields!(Oddities { bits });

impl From<Oddity> for Oddities {
    fn from(oddity: Oddity) -> Self {
        Self { bits: 1 << oddity as u8 }
    }
}

impl Oddities {
    /// Whether one is among them.
    #[must_use]
    pub fn has(self, oddity: Oddity) -> bool {
        self.bits & Self::from(oddity).bits != 0
    }

    /// These and those.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self { bits: self.bits | other.bits }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// Those that are there, sorted.
    pub fn list(self) -> impl Iterator<Item = Oddity> {
        Oddity::ALL.into_iter().filter(move |oddity| self.has(*oddity))
    }
}

/// Whether a client's first payload is enciphered from its first byte: the rule by which a censor found
/// such (Wu et al., USENIX Security 2023), without its exemption of TLS and HTTP by their first bytes
/// where those are printable anyway.
#[must_use]
pub fn is_fully_encrypted(payload: &[u8]) -> bool {
    const PRINTABLE: std::ops::RangeInclusive<u8> = 0x20..=0x7E;
    if payload.len() < FLOOR || matches!(payload, [0x16 | 0x17, 3, ..]) {
        return false;
    }
    let ones: u32 = payload.iter().map(|byte| byte.count_ones()).sum();
    let ones = f64::from(ones) / payload.len() as f64;
    if ones <= 3.4 || ones >= 4.6 {
        return false;
    }
    let is_printable = |byte: &u8| PRINTABLE.contains(byte);
    let printable = payload.iter().filter(|byte| is_printable(byte)).count();
    if payload.iter().take(6).all(is_printable) || printable * 2 > payload.len() {
        return false;
    }
    !payload.split(|byte| !is_printable(byte)).any(|row| row.len() > 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_are_enciphered_and_protocols_in_clear_are_not() {
        let mut seed = 7_u64;
        let random: Vec<u8> = (0..300)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 56) as u8
            })
            .collect();
        assert!(is_fully_encrypted(&random));
        assert!(!is_fully_encrypted(&random[..15]));
        let tls = [&[0x16, 3, 1, 2, 0][..], &random].concat();
        assert!(!is_fully_encrypted(&tls));
        assert!(!is_fully_encrypted(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(!is_fully_encrypted(&[0; 64]) && !is_fully_encrypted(&[0xFF; 64]));
    }

    #[test]
    fn a_set_tells_what_is_in_it() {
        let set = Oddities::from(Oddity::SelfSigned).with(Oddity::NoName.into());
        assert!(set.has(Oddity::NoName) && !set.has(Oddity::NoServerName) && !set.is_empty());
        assert_eq!(set.list().collect::<Vec<_>>(), [Oddity::NoName, Oddity::SelfSigned]);
        let all =
            Oddity::ALL.into_iter().fold(Oddities::default(), |set, one| set.with(one.into()));
        assert_eq!(all.list().count(), Oddity::ALL.len());
    }
}
