//! The hash chain over the lines of a journal.

use sha2::{Digest, Sha256};

/// A link of the chain: SHA-256.
pub type Hash = [u8; 32];

/// The hash of a line, given the hash before it.
#[must_use]
pub fn chain_hash(previous: &Hash, json: &str) -> Hash {
    let mut hash = Sha256::new();
    hash.update(previous);
    hash.update(json.as_bytes());
    hash.finalize().into()
}

/// Reads 64 hexadecimal digits.
pub(super) fn parse_hash(text: &str) -> Option<Hash> {
    if text.len() != 64 {
        return None;
    }
    let mut hash = [0_u8; 32];
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(hash)
}
