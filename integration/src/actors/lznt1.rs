//! LZNT1 of the intruder's own ([MS-XCA], section 2.5): nothing shared with the engine's decoder.

const CHUNK: usize = 4096;

/// Bits of the length field for a match at `position` within its chunk.
fn length_bits(position: usize) -> u32 {
    let mut bits = 12;
    let mut reach = 16;
    while position > reach && bits > 4 {
        bits -= 1;
        reach <<= 1;
    }
    bits
}

/// Packs bytes.
#[must_use]
pub fn pack(plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in plain.chunks(CHUNK) {
        let packed = pack_chunk(chunk);
        let (mark, body) =
            if packed.len() < chunk.len() { (0xB000, packed.as_slice()) } else { (0x3000, chunk) };
        let header =
            mark | u16::try_from(body.len() - 1).expect("a chunk holds 4096 bytes at most");
        out.extend_from_slice(&header.to_le_bytes());
        out.extend_from_slice(body);
    }
    out
}

fn pack_chunk(chunk: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut seen = std::collections::HashMap::new();
    let mut at = 0;
    while at < chunk.len() {
        let flags_at = out.len();
        out.push(0);
        for bit in 0..8 {
            if at >= chunk.len() {
                break;
            }
            let bits = length_bits(at);
            let longest = ((1 << bits) + 2).min(chunk.len() - at);
            let found = chunk.get(at..at + 3).and_then(|three| seen.get(three).copied());
            let step = match found {
                Some(before) if longest >= 3 => {
                    let length = (3..=longest)
                        .take_while(|&n| chunk[before + n - 1] == chunk[at + n - 1])
                        .last()
                        .unwrap_or(3);
                    let token = ((at - before - 1) << bits) | (length - 3);
                    out.extend_from_slice(
                        &u16::try_from(token).expect("a token has 16 bits").to_le_bytes(),
                    );
                    out[flags_at] |= 1 << bit;
                    length
                }
                _ => {
                    out.push(chunk[at]);
                    1
                }
            };
            for position in at..at + step {
                if let Some(three) = chunk.get(position..position + 3) {
                    seen.insert(three, position);
                }
            }
            at += step;
        }
    }
    out
}

/// Unpacks bytes; `None` for what is no LZNT1.
#[must_use]
pub fn unpack(mut packed: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    while packed.len() >= 2 {
        let header = u16::from_le_bytes([packed[0], packed[1]]);
        let length = usize::from(header & 0xFFF) + 1;
        let body = packed.get(2..2 + length)?;
        packed = &packed[2 + length..];
        if header & 0x8000 == 0 {
            out.extend_from_slice(body);
        } else {
            unpack_chunk(body, &mut out)?;
        }
    }
    Some(out)
}

fn unpack_chunk(body: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let start = out.len();
    let mut at = 0;
    while at < body.len() {
        let flags = body[at];
        at += 1;
        for bit in 0..8 {
            if at >= body.len() {
                break;
            }
            if flags & (1 << bit) == 0 {
                out.push(body[at]);
                at += 1;
                continue;
            }
            let token = usize::from(u16::from_le_bytes([body[at], *body.get(at + 1)?]));
            at += 2;
            let bits = length_bits(out.len() - start);
            let (length, back) = ((token & ((1 << bits) - 1)) + 3, (token >> bits) + 1);
            for _ in 0..length {
                let byte = *out.get(out.len().checked_sub(back)?)?;
                out.push(byte);
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_unpacks() {
        for size in [0, 1, 3, 17, 4095, 4096, 4097, 0xF000] {
            let text = crate::actors::customers_file(size);
            assert_eq!(unpack(&pack(&text)).as_deref(), Some(text.as_slice()), "{size}");
        }
        assert!(pack(&crate::actors::customers_file(0xF000)).len() < 0xF000 * 3 / 4);
    }

    #[test]
    fn the_example_of_ms_xca_unpacks() {
        // [MS-XCA] section 3.3: "F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E F# G F# D E F# G F# E D E A F# F# G A A G F# E D D E F# E D D\0"
        let packed = [
            0x38_u8, 0xb0, 0x88, 0x46, 0x23, 0x20, 0x00, 0x20, 0x47, 0x20, 0x41, 0x00, 0x10, 0xa2,
            0x47, 0x01, 0xa0, 0x45, 0x20, 0x44, 0x00, 0x08, 0x45, 0x01, 0x50, 0x79, 0x00, 0xc0,
            0x45, 0x20, 0x05, 0x24, 0x13, 0x88, 0x05, 0xb4, 0x02, 0x4a, 0x44, 0xef, 0x03, 0x58,
            0x02, 0x8c, 0x09, 0x16, 0x01, 0x48, 0x45, 0x00, 0xbe, 0x00, 0x9e, 0x00, 0x04, 0x01,
            0x18, 0x90, 0x00,
        ];
        let text = String::from_utf8(unpack(&packed).unwrap()).unwrap();
        assert!(
            text.starts_with("F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E")
                && text.ends_with('\0'),
            "{text}"
        );
    }
}
