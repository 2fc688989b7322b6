//! The text codings that tunnels put their bytes in: hexadecimal, base32 and base64.

/// The value of a hexadecimal digit of either case.
pub(super) const fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The value of a base64 digit, in the standard or the URL-safe alphabet (RFC 4648 §4, §5).
const fn base64_digit(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

/// The value of a digit of iodine's base32 (yarrick/iodine, `doc/proto_00000502.txt`).
const fn base32_digit(byte: u8) -> Option<u8> {
    match byte {
        b'a'..=b'z' => Some(byte - b'a'),
        b'0'..=b'5' => Some(byte - b'0' + 26),
        _ => None,
    }
}

/// Fills `out` from digits of `bits` bits each; returns how many whole bytes there were.
fn unpack(
    text: &[u8],
    bits: u32,
    digit: impl Fn(u8) -> Option<u8>,
    out: &mut [u8],
) -> Option<usize> {
    let (mut held, mut have, mut filled) = (0_u32, 0_u32, 0);
    for byte in text {
        held = held << bits | u32::from(digit(*byte)?);
        have += bits;
        if have >= 8 {
            have -= 8;
            let Some(place) = out.get_mut(filled) else { break };
            *place = (held >> have) as u8;
            filled += 1;
        }
    }
    Some(filled)
}

/// Decodes iodine's base32, lower case, until `out` is full; `None` at a letter that is none of it.
pub(super) fn base32(text: &[u8], out: &mut [u8]) -> Option<usize> {
    unpack(text, 5, base32_digit, out)
}

/// Decodes base64 without its padding until `out` is full; `None` at a letter that is none of it.
pub(super) fn base64(text: &[u8], out: &mut [u8]) -> Option<usize> {
    unpack(text, 6, base64_digit, out)
}

/// How many bytes a whole, padded base64 text stands for; `None` if it is none.
pub(super) fn base64_len(text: &[u8]) -> Option<usize> {
    let pads = text.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    let digits = text.get(..text.len() - pads)?;
    let whole = !digits.is_empty()
        && text.len().is_multiple_of(4)
        && digits.iter().all(|byte| base64_digit(*byte).is_some());
    whole.then(|| text.len() / 4 * 3 - pads)
}

/// A number that stands for some bytes in the key of a table (FNV-1a, 64 bits).
pub(super) fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3)
    })
}

/// The alphabet of iodine's base32 (yarrick/iodine, `doc/proto_00000502.txt`), for tests that write it.
#[cfg(test)]
pub(super) const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz012345";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_rfc_is_read() {
        // RFC 4648 §10.
        for (text, plain) in [("Zg==", &b"f"[..]), ("Zm8=", b"fo"), ("Zm9vYmFy", b"foobar")] {
            let mut out = [0; 8];
            assert_eq!(base64_len(text.as_bytes()), Some(plain.len()));
            let digits = text.trim_end_matches('=');
            let len = base64(digits.as_bytes(), &mut out).unwrap();
            assert_eq!(&out[..len], plain);
        }
        for bad in ["", "Zg=", "Z===", "Zg==Zg==", "Z g=", "===="] {
            assert_eq!(base64_len(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn base32_of_iodine_is_read() {
        // The version query of a public capture: 00000502 and a counter.
        let mut out = [0; 6];
        assert_eq!(base32(b"aaaakardli", &mut out), Some(6));
        assert_eq!(out[..4], [0, 0, 5, 2]);
        for (value, letter) in (0..).zip(BASE32) {
            assert_eq!(base32_digit(*letter), Some(value));
        }
        assert_eq!(base32(b"6", &mut out), None);
    }
}
