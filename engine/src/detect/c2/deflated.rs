//! How many bytes a zlib stream unpacks to (RFC 1950, RFC 1951), without unpacking it: symbols are
//! counted, nothing is stored, so that a hostile stream costs its own length and no memory.

/// Longest code of RFC 1951 §3.2.2.
const MAX_BITS: usize = 15;
/// Literal and length symbols, distance symbols (RFC 1951 §3.2.6).
const LITERALS: usize = 288;
const DISTANCES: usize = 32;
/// Base and extra bits of the lengths 257 to 285 (RFC 1951 §3.2.5).
const LENGTHS: [(u16, u8); 29] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
];
/// The order in which the lengths of the code length code come (RFC 1951 §3.2.7).
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// The size that a whole zlib stream unpacks to; `None` if it is none, is cut short, names a
/// preset dictionary, or goes on behind its checksum.
pub(super) fn unpacked_size(zlib: &[u8]) -> Option<u64> {
    let ([method, flags], rest) = zlib.split_first_chunk::<2>()?;
    let check = u16::from_be_bytes([*method, *flags]);
    if method & 0xF != 8 || method >> 4 > 7 || check % 31 != 0 || flags & 0x20 != 0 {
        return None;
    }
    let mut bits = Bits { bytes: rest, held: 0, count: 0 };
    let mut size = 0;
    loop {
        let last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => size += u64::from(bits.stored()?),
            1 => block(&mut bits, &fixed_literals()?, &Code::new(&[5; 30])?, &mut size)?,
            2 => {
                let (literals, distances) = dynamic(&mut bits)?;
                block(&mut bits, &literals, &distances, &mut size)?;
            }
            _ => return None,
        }
        if last {
            // The Adler-32 of the data stands behind it.
            return (bits.whole_bytes_left() == 4).then_some(size);
        }
    }
}

struct Bits<'a> {
    bytes: &'a [u8],
    held: u32,
    count: u32,
}

impl Bits<'_> {
    fn take(&mut self, want: u32) -> Option<u32> {
        while self.count < want {
            let (first, rest) = self.bytes.split_first()?;
            self.held |= u32::from(*first) << self.count;
            self.count += 8;
            self.bytes = rest;
        }
        let value = self.held & ((1 << want) - 1);
        self.held >>= want;
        self.count -= want;
        Some(value)
    }

    /// Passes over a stored block and gives its length.
    fn stored(&mut self) -> Option<u16> {
        // No more than seven bits are ever held between symbols.
        (self.held, self.count) = (0, 0);
        let ([l0, l1, n0, n1], rest) = self.bytes.split_first_chunk::<4>()?;
        let length = u16::from_le_bytes([*l0, *l1]);
        if length != !u16::from_le_bytes([*n0, *n1]) {
            return None;
        }
        self.bytes = rest.get(usize::from(length)..)?;
        Some(length)
    }

    const fn whole_bytes_left(&self) -> usize {
        self.bytes.len()
    }
}

/// A canonical Huffman code: how many codes each length has, and the symbols in code order.
struct Code {
    counts: [u16; MAX_BITS + 1],
    symbols: [u16; LITERALS],
}

impl Code {
    /// Makes the code of these lengths; `None` if more codes are used than there are.
    fn new(lengths: &[u8]) -> Option<Self> {
        let mut counts = [0; MAX_BITS + 1];
        for length in lengths {
            *counts.get_mut(usize::from(*length))? += 1;
        }
        let mut left = 1_i32;
        let mut offsets = [0_u16; MAX_BITS + 2];
        for bits in 1..=MAX_BITS {
            let count = *counts.get(bits)?;
            left = (left << 1) - i32::from(count);
            if left < 0 {
                return None;
            }
            *offsets.get_mut(bits + 1)? = offsets.get(bits)? + count;
        }
        let mut symbols = [0; LITERALS];
        for (symbol, length) in lengths.iter().enumerate().filter(|(_, length)| **length != 0) {
            let offset = offsets.get_mut(usize::from(*length))?;
            *symbols.get_mut(usize::from(*offset))? = symbol as u16;
            *offset += 1;
        }
        Some(Self { counts, symbols })
    }

    fn read(&self, bits: &mut Bits<'_>) -> Option<u16> {
        let (mut code, mut first, mut index) = (0_u32, 0_u32, 0_u32);
        for count in self.counts.iter().skip(1) {
            code |= bits.take(1)?;
            let count = u32::from(*count);
            if code < first + count {
                return self.symbols.get((index + code - first) as usize).copied();
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

fn fixed_literals() -> Option<Code> {
    let mut lengths = [8; LITERALS];
    lengths.get_mut(144..256)?.fill(9);
    lengths.get_mut(256..280)?.fill(7);
    Code::new(&lengths)
}

/// The codes that stand before a block (RFC 1951 §3.2.7).
fn dynamic(bits: &mut Bits<'_>) -> Option<(Code, Code)> {
    let literals = bits.take(5)? as usize + 257;
    let distances = bits.take(5)? as usize + 1;
    let given = bits.take(4)? as usize + 4;
    if literals > 286 || distances > 30 {
        return None;
    }
    let mut lengths = [0_u8; 19];
    for place in ORDER.iter().take(given) {
        *lengths.get_mut(*place)? = bits.take(3)? as u8;
    }
    let code = Code::new(&lengths)?;
    let mut lengths = [0_u8; LITERALS + DISTANCES];
    let mut at = 0;
    while at < literals + distances {
        let (value, times) = match code.read(bits)? {
            symbol @ 0..=15 => (symbol as u8, 1),
            16 => (*lengths.get(at.checked_sub(1)?)?, 3 + bits.take(2)? as usize),
            17 => (0, 3 + bits.take(3)? as usize),
            _ => (0, 11 + bits.take(7)? as usize),
        };
        if at + times > literals + distances {
            return None;
        }
        lengths.get_mut(at..at + times)?.fill(value);
        at += times;
    }
    let (first, rest) = lengths.split_at_checked(literals)?;
    // Without an end of block the block could not end.
    if *first.get(256)? == 0 {
        return None;
    }
    Some((Code::new(first)?, Code::new(rest.get(..distances)?)?))
}

/// Counts what the symbols of a block stand for.
fn block(bits: &mut Bits<'_>, literals: &Code, distances: &Code, size: &mut u64) -> Option<()> {
    loop {
        let symbol = usize::from(literals.read(bits)?);
        if symbol < 256 {
            *size += 1;
            continue;
        }
        let Some(length) = symbol.checked_sub(257) else { return Some(()) };
        let (base, extra) = LENGTHS.get(length)?;
        let length = u64::from(*base) + u64::from(bits.take(u32::from(*extra))?);
        let distance = u32::from(distances.read(bits)?);
        if distance >= 30 {
            return None;
        }
        // Bases of the distances: two of each number of extra bits from the third on.
        let extra = (distance / 2).saturating_sub(1);
        let base = if distance < 4 { distance + 1 } else { ((2 + distance % 2) << extra) + 1 };
        if u64::from(base + bits.take(extra)?) > *size {
            return None;
        }
        *size += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
        digits.chunks_exact(2).map(|two| two[0] << 4 | two[1]).collect()
    }

    // Made with Python's zlib: `zlib.compress(data, level).hex()`.
    const STREAMS: &[(&str, u64)] = &[
        ("789c030000000001", 0),
        ("789ccb48cdc9c957482bcacf5528c94855c8c82f2ed151c8c01404002b580e9b", 40),
        (
            "78010164009bff82b70eee7f1a5039bef07ec2347f066ed08f5dc7512447e3404300026b6e545594a065685d64c4980bb8d4544a8721a99a01ad219eb59cf6a15ef6f15a1d830bb7ce09d6bbc004e7175c643c7decb0b580ec37bc9712dd2e6aaeb94bae8d2f9fa29c5a2836383016",
            100,
        ),
        ("78daedc13101000000c2a06ceb5fca147e4001000000006f032929f5c5", 5000),
        (
            "78da8d56410e82400cfc8a2f3072f04106f6c041306c22df579425ed7466979828e2743b9d698bddedbabdee979c96f7d8a74b576e1c17eb380df39a7f88b444e06b99fb94f3f1f9189ee3b4bfef31e5a710fb47950c90a9b3dc4ce6725a60b0e3ec311b5e640db7055971ea89a4dfdb3e951305ab54820b758428342f9678b216eba477aa0494ef206d70066b0058ab740d0c082f355545c68aec2db2cdf35af2abdf3d81d844b6b95bca85a18917d051d17dc59362240364ee868224a223acd715588e27200bec5098df6a3b113bed40fb186e5b908bf18939829b7c3ccf8c2ec3e8b50cd244c77ca83081585e45ca750386d46af3fa8bc515772b70aad8cd8398bcad8523aaa9a00d3d7c1ceb0aad0ee2a147f767b45844549e9e7289b2a6a02d26ff7f6069ae193e73a918ca",
            2288,
        ),
    ];

    #[test]
    fn streams_of_an_independent_packer_have_the_size_that_they_were_made_from() {
        for (packed, size) in STREAMS {
            assert_eq!(unpacked_size(&bytes(packed)), Some(*size), "{packed}");
        }
    }

    #[test]
    fn a_stream_that_is_cut_or_goes_on_has_no_size() {
        let whole = bytes(STREAMS[1].0);
        for cut in 0..whole.len() {
            assert_eq!(unpacked_size(&whole[..cut]), None);
        }
        assert_eq!(unpacked_size(&[whole, vec![0]].concat()), None);
    }

    #[test]
    fn random_bytes_behind_a_zlib_header_neither_panic_nor_unpack_to_their_length() {
        let mut seed = 0x2545_F491_4F6C_DD1D_u64;
        for _ in 0..100_000 {
            let mut stream = vec![0x78, 0x9C];
            for _ in 0..12 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                stream.extend_from_slice(&seed.to_le_bytes());
            }
            assert_eq!(unpacked_size(&stream), None);
        }
    }
}
