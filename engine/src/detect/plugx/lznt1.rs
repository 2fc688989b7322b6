//! LZNT1, the compression of Windows' `RtlCompressBuffer` (MS-XCA §2.5), with a capped output.

use thiserror::Error;

/// Plain bytes one chunk holds at most (MS-XCA §2.5.1).
const CHUNK_LEN: usize = 4096;

/// Why bytes are not an LZNT1 stream of the expected size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Lznt1Error {
    /// A back-reference points before its chunk, or a chunk header lacks its signature.
    #[error("malformed LZNT1 chunk")]
    Malformed,
    /// The output would pass the cap, or a chunk would pass 4096 bytes.
    #[error("LZNT1 output exceeds its cap")]
    TooLong,
    /// The input ends inside a chunk.
    #[error("LZNT1 input ends inside a chunk")]
    Truncated,
}

/// Whether two bytes can be the header of a chunk: bits 12 to 14 hold the signature 3.
pub(super) const fn is_chunk_header(header: [u8; 2]) -> bool {
    header[1] & 0x70 == 0x30
}

/// Replaces `out` with the decompressed input, never growing it past `cap` bytes.
///
/// # Errors
/// If the input is no LZNT1 stream or decompresses to more than `cap` bytes; `out` then holds what
/// came before the fault.
pub fn decompress(input: &[u8], out: &mut Vec<u8>, cap: usize) -> Result<(), Lznt1Error> {
    out.clear();
    let mut rest = input;
    while let Some((header, after)) = rest.split_first_chunk::<2>() {
        let value = u16::from_le_bytes(*header);
        if value == 0 {
            return Ok(());
        }
        if !is_chunk_header(*header) {
            return Err(Lznt1Error::Malformed);
        }
        let len = usize::from(value & 0x0FFF) + 1;
        let (data, next) = after.split_at_checked(len).ok_or(Lznt1Error::Truncated)?;
        if value & 0x8000 == 0 {
            if data.len() > cap.saturating_sub(out.len()) {
                return Err(Lznt1Error::TooLong);
            }
            out.extend_from_slice(data);
        } else {
            let limit = cap.min(out.len().saturating_add(CHUNK_LEN));
            decompress_chunk(data, out, limit)?;
        }
        rest = next;
    }
    if rest.is_empty() { Ok(()) } else { Err(Lznt1Error::Truncated) }
}

/// Decompresses one chunk; `limit` is the length `out` may reach.
fn decompress_chunk(data: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), Lznt1Error> {
    let chunk_start = out.len();
    let mut bytes = data.iter().copied();
    while let Some(flags) = bytes.next() {
        for bit in 0..8 {
            let Some(first) = bytes.next() else { return Ok(()) };
            if flags >> bit & 1 == 0 {
                if out.len() >= limit {
                    return Err(Lznt1Error::TooLong);
                }
                out.push(first);
                continue;
            }
            let second = bytes.next().ok_or(Lznt1Error::Truncated)?;
            let token = usize::from(u16::from_le_bytes([first, second]));
            let position = out.len() - chunk_start;
            // The further into the chunk, the more bits the distance takes from the length.
            let length_bits = length_bits(position);
            let distance = (token >> length_bits) + 1;
            let length = (token & ((1 << length_bits) - 1)) + 3;
            if distance > position {
                return Err(Lznt1Error::Malformed);
            }
            if length > limit.saturating_sub(out.len()) {
                return Err(Lznt1Error::TooLong);
            }
            // Byte by byte, because a reference may reach into what it writes itself.
            for _ in 0..length {
                let byte = out.get(out.len() - distance).copied().unwrap_or(0);
                out.push(byte);
            }
        }
    }
    Ok(())
}

/// Bits of a back-reference that hold its length, at a position within the chunk.
const fn length_bits(position: usize) -> u32 {
    let mut bits = 12;
    let mut reach = 16;
    while reach < position {
        reach *= 2;
        bits -= 1;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::{Lznt1Error, decompress, length_bits};

    const CAP: usize = 0xF010;

    /// The worked example of MS-XCA §3.3.
    #[test]
    fn the_specifications_example_decompresses() {
        let input = [
            0x38, 0xb0, 0x88, 0x46, 0x23, 0x20, 0x00, 0x20, 0x47, 0x20, 0x41, 0x00, 0x10, 0xa2,
            0x47, 0x01, 0xa0, 0x45, 0x20, 0x44, 0x00, 0x08, 0x45, 0x01, 0x50, 0x79, 0x00, 0xc0,
            0x45, 0x20, 0x05, 0x24, 0x13, 0x88, 0x05, 0xb4, 0x02, 0x4a, 0x44, 0xef, 0x03, 0x58,
            0x02, 0x8c, 0x09, 0x16, 0x01, 0x48, 0x45, 0x00, 0xbe, 0x00, 0x9e, 0x00, 0x04, 0x01,
            0x18, 0x90, 0x00,
        ];
        let expected = "F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E F# G F# D E F# G F# E D E A F# F# G A A G F# E D D E F# E D D\0";
        let mut out = Vec::new();
        decompress(&input, &mut out, CAP).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_reference_may_repeat_what_it_writes() {
        let mut out = Vec::new();
        decompress(&[0x03, 0xB0, 0x02, b'a', 0xFC, 0x0F], &mut out, CAP).unwrap();
        assert_eq!(out, [b'a'; 4096]);
    }

    #[test]
    fn stored_chunks_and_the_end_marker_are_understood() {
        let mut out = Vec::new();
        decompress(&[0x02, 0x30, 1, 2, 3, 0x00, 0x30, 4, 0, 0, 99], &mut out, CAP).unwrap();
        assert_eq!(out, [1, 2, 3, 4]);
    }

    #[test]
    fn faults_are_named() {
        let mut out = Vec::new();
        for (input, fault) in [
            (&[0x02, 0x30, 1][..], Lznt1Error::Truncated),
            (&[0x00], Lznt1Error::Truncated),
            (&[0x01, 0xB0, 0x01, 5], Lznt1Error::Truncated),
            (&[0x02, 0x20, 1, 2, 3], Lznt1Error::Malformed),
            (&[0x03, 0xB0, 0x02, b'a', 0xFC, 0x1F], Lznt1Error::Malformed),
            (&[0x03, 0xB0, 0x02, b'a', 0xFD, 0x0F], Lznt1Error::TooLong),
        ] {
            assert_eq!(decompress(input, &mut out, CAP), Err(fault), "{input:?}");
        }
    }

    #[test]
    fn output_never_passes_the_cap() {
        let bomb: Vec<u8> = [0x03, 0xB0, 0x02, b'a', 0xFC, 0x0F].repeat(100);
        let mut out = Vec::new();
        assert_eq!(decompress(&bomb, &mut out, CAP), Err(Lznt1Error::TooLong));
        assert!(out.len() <= CAP);
    }

    #[test]
    fn the_length_field_shrinks_with_the_position() {
        for (position, bits) in
            [(1, 12), (16, 12), (17, 11), (32, 11), (33, 10), (2049, 4), (4095, 4)]
        {
            assert_eq!(length_bits(position), bits, "{position}");
        }
    }
}
