//! Bytes written as letters A to P: the first letter of a pair holds the low half (FireEye 2014,
//! Volexity 2014; the same in the DNS names of `silence-is-best/c2db`).

/// Whether a letter stands for four bits; both cases, as resolvers mix them (0x20 encoding).
pub(super) const fn is_half(letter: u8) -> bool {
    matches!(letter, b'A'..=b'P' | b'a'..=b'p')
}

/// The bytes that capital letters stand for; `None` for anything else and for half a byte.
pub(super) fn bytes(letters: &[u8]) -> Option<Vec<u8>> {
    let half = |letter: u8| matches!(letter, b'A'..=b'P').then(|| letter - b'A');
    if !letters.len().is_multiple_of(2) {
        return None;
    }
    letters
        .chunks_exact(2)
        .map(|pair| match pair {
            [low, high] => Some(half(*high)? << 4 | half(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_letter_is_the_low_half() {
        assert_eq!(bytes(b"GAAALLBA"), Some(vec![6, 0, 0xBB, 0x01]));
        assert_eq!(bytes(b"GAA"), None);
        assert_eq!(bytes(b"GQ"), None);
        assert_eq!(bytes(b"ga"), None);
    }
}
