//! Random secrets, and what is kept of them instead of the secrets themselves.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sekisho_schema::sealed::hex;
use sha2::{Digest, Sha256};

/// Rounds of SHA-256 over an operator password. The password is random (100 bits), so the rounds only slow a thief of the database down further.
const ROUNDS: u32 = 20_000;

/// The alphabet of passwords: Crockford's base 32, which has no letters that look alike.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw random bytes from the system: {0}")]
pub struct DrawError(String);

/// Random bytes from the system.
///
/// # Errors
/// When the system gives none.
pub fn random<const N: usize>() -> Result<[u8; N], DrawError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| DrawError(error.to_string()))?;
    Ok(bytes)
}

/// A token of 192 random bits for one enrolment, less the one in 64 that a command line would take for an option.
///
/// # Errors
/// When the system gives no random bytes.
pub fn new_token() -> Result<String, DrawError> {
    loop {
        let token = URL_SAFE_NO_PAD.encode(random::<24>()?);
        if !token.starts_with('-') {
            return Ok(token);
        }
    }
}

/// What is kept of a token.
#[must_use]
pub fn token_hash(token: &str) -> String {
    hex(&Sha256::new()
        .chain_update(b"sekisho enrolment token\0")
        .chain_update(token.trim().as_bytes())
        .finalize())
}

/// A new agent id in the shape of a random UUID (RFC 9562, version 4).
///
/// # Errors
/// When the system gives no random bytes.
pub fn new_agent_id() -> Result<String, DrawError> {
    let mut bytes = random::<16>()?;
    if let Some(byte) = bytes.get_mut(6) {
        *byte = (*byte & 0x0f) | 0x40;
    }
    if let Some(byte) = bytes.get_mut(8) {
        *byte = (*byte & 0x3f) | 0x80;
    }
    let mut id = String::with_capacity(36);
    for (place, digit) in hex(&bytes).chars().enumerate() {
        if matches!(place, 8 | 12 | 16 | 20) {
            id.push('-');
        }
        id.push(digit);
    }
    Ok(id)
}

/// An operator password: twenty letters in four groups, 100 random bits.
///
/// # Errors
/// When the system gives no random bytes.
pub fn new_password() -> Result<String, DrawError> {
    let letters: Vec<char> = random::<20>()?
        .iter()
        .filter_map(|byte| ALPHABET.get(usize::from(byte & 31)))
        .map(|letter| char::from(*letter))
        .collect();
    Ok(letters
        .chunks(5)
        .map(|group| group.iter().collect::<String>())
        .collect::<Vec<_>>()
        .join("-"))
}

/// Whether two texts are equal, in a time that does not tell where they differ.
#[must_use]
pub fn same(left: &[u8], right: &[u8]) -> bool {
    // Digests have one length, so that the length of the secret is not told either.
    let (left, right) = (Sha256::digest(left), Sha256::digest(right));
    left.iter().zip(right.iter()).fold(0_u8, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// HMAC-SHA256 (RFC 2104), in hexadecimal.
#[must_use]
pub fn hmac(key: &[u8], message: &[u8]) -> String {
    const BLOCK: usize = 64;
    let short = if key.len() > BLOCK { Sha256::digest(key).to_vec() } else { key.to_vec() };
    let padded = |with: u8| {
        let mut block = [with; BLOCK];
        for (byte, key) in block.iter_mut().zip(&short) {
            *byte ^= key;
        }
        Sha256::new().chain_update(block)
    };
    let inner = padded(0x36).chain_update(message).finalize();
    hex(&padded(0x5c).chain_update(inner).finalize())
}

fn stretch(password: &str, salt: &str, rounds: u32) -> String {
    let mut state =
        Sha256::new().chain_update(salt.as_bytes()).chain_update(password.as_bytes()).finalize();
    for _ in 0..rounds {
        state = Sha256::new()
            .chain_update(state)
            .chain_update(salt.as_bytes())
            .chain_update(password.as_bytes())
            .finalize();
    }
    hex(&state)
}

/// What is kept of a password: `sha256i$ROUNDS$SALT$HASH`.
///
/// # Errors
/// When the system gives no random bytes for the salt.
pub fn password_record(password: &str) -> Result<String, DrawError> {
    let salt = hex(&random::<16>()?);
    Ok(format!("sha256i${ROUNDS}${salt}${}", stretch(password, &salt, ROUNDS)))
}

/// Whether a password fits what was kept of it.
#[must_use]
pub fn password_fits(password: &str, record: &str) -> bool {
    let mut parts = record.split('$');
    let (Some("sha256i"), Some(rounds), Some(salt), Some(hash), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    rounds.parse().is_ok_and(|rounds: u32| {
        rounds <= ROUNDS * 100 && same(stretch(password, salt, rounds).as_bytes(), hash.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_itself_fits_its_record() {
        let password = new_password().unwrap();
        let record = password_record(&password).unwrap();
        assert!(password_fits(&password, &record) && !record.contains(&password));
        assert!(
            !password_fits("", &record)
                && !password_fits(&format!("{password} "), &record)
                && !password_fits(&password, "sha256i$1$$")
        );
    }

    #[test]
    fn the_code_of_a_message_is_that_of_rfc_4231() {
        // Test cases 1, 2 and 6.
        for (key, message, code) in [
            (
                &[0x0b; 20][..],
                &b"Hi There"[..],
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ] {
            assert_eq!(hmac(key, message), code);
        }
    }

    #[test]
    fn no_token_looks_like_an_option_of_a_command_line() {
        for _ in 0..2_000 {
            let token = new_token().unwrap();
            assert!(token.len() == 32 && !token.starts_with('-'), "{token}");
        }
    }

    #[test]
    fn agent_ids_look_like_random_uuids_and_differ() {
        let id = new_agent_id().unwrap();
        assert_eq!((id.len(), id.matches('-').count(), id.chars().nth(14)), (36, 4, Some('4')));
        assert_ne!(id, new_agent_id().unwrap());
    }
}
