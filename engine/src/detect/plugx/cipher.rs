//! PlugX's published stream ciphers (CIRCL TR-12, Metasploit `plugx.rb`, chopshop, JPCERT/CC P2P
//! PlugX). All arithmetic is modulo 2^32.

use serde::{Deserialize, Serialize};

/// One cipher as one build of the malware sets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CipherSetting {
    /// Name for findings, e.g. `T3-20140613`.
    pub id: String,
    /// The cipher and its constants.
    pub kind: CipherKind,
}

/// The shape of a cipher, with the constants that vary between builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum CipherKind {
    /// Four accumulators ("Type I"), seen 2012 to 2022.
    T1,
    /// The early form of [`CipherKind::T1`] with small increments.
    T1old,
    /// One accumulator ("Type II"), seen 2013 to 2014.
    T2 {
        /// Added at every step; often a build date written in hexadecimal.
        constant: u32,
    },
    /// Two accumulators, seen since 2014.
    T3 {
        /// Mixed into the key for the first accumulator; 0 leaves the second one keyless.
        x1: u32,
        /// Mixed into the key for the second accumulator.
        x2: u32,
        /// Added to the first accumulator at every step.
        add: u32,
        /// Taken from the second accumulator at every step.
        sub: u32,
    },
}

/// Published constants of T2: builds 20130524 and 20130810, then three dated builds.
const T2_BUILDS: [(&str, u32); 4] = [
    ("T2-20130524", 0x713A_8FC1),
    ("T2-20140307", 0x2014_0307),
    ("T2-20140428", 0x2014_0428),
    ("T2-20140509", 0x2014_0509),
];
/// Published constants of T3 (public file `PLUGX_XV_DECRYPT_SETTINGS`, JPCERT/CC): X1, X2, ADD, SUB.
const T3_BUILDS: [(&str, [u32; 4]); 11] = [
    ("T3-20140609", [0, 0x2014_0609, 0xC34F, 0x7525]),
    ("T3-20140613", [0, 0x2014_0613, 0xC34F, 0x7525]),
    ("T3-20140719", [0x0133_52AF, 0xA7, 0x6FD, 0x305B]),
    ("T3-20140818", [0x0133_5312, 0x47, 0x2CF, 0x1EDD]),
    ("T3-20140918-p2p", [20_140_918, 353, 3_373, 39_779]),
    ("T3-20141028", [0x0133_53E4, 0x139, 0x655, 0x6697]),
    ("T3-20141116", [0x0133_543C, 0xD, 0x77, 0x59F5]),
    ("T3-20141216", [0xEF, 0xA3D, 0x5347, 0x0133_54A0]),
    ("T3-20150108", [0x0133_775C, 0x38F, 0xB5D, 0x6157]),
    ("T3-20150202", [0x0133_77BA, 0x1B1, 0x10F1, 0x70C3]),
    ("T3-20150416", [0x0133_7890, 0x5BF1, 0x5BF3, 0x5BFD]),
];

/// Every published setting.
pub(super) fn published() -> Vec<CipherSetting> {
    let setting = |id: &str, kind| CipherSetting { id: id.to_owned(), kind };
    let mut all = vec![setting("T1", CipherKind::T1), setting("T1old", CipherKind::T1old)];
    all.extend(
        T2_BUILDS.iter().map(|(id, constant)| setting(id, CipherKind::T2 { constant: *constant })),
    );
    all.extend(T3_BUILDS.iter().map(|(id, [x1, x2, add, sub])| {
        setting(id, CipherKind::T3 { x1: *x1, x2: *x2, add: *add, sub: *sub })
    }));
    all
}

impl CipherKind {
    /// Starts the keystream for one key.
    #[inline]
    pub(super) fn keystream(self, key: u32) -> Keystream {
        match self {
            Self::T1 => Keystream::Four { state: [key; 4], step: STEP_T1 },
            Self::T1old => Keystream::Four { state: [key; 4], step: STEP_T1_OLD },
            Self::T2 { constant } => Keystream::One { k: key, index: 0, constant },
            Self::T3 { x1: 0, x2, add, sub } => Keystream::Two { n1: key, n2: x2, add, sub },
            Self::T3 { x1, x2, add, sub } => {
                Keystream::Two { n1: key ^ x1, n2: key ^ x2, add, sub }
            }
        }
    }
}

/// What T1 adds to its four accumulators at every step, as wrapping constants.
const STEP_T1: [u32; 4] =
    [0x1111_1111_u32.wrapping_neg(), 0x2222_2222_u32.wrapping_neg(), 0x4444_4444, 0x3333_3333];
/// The same for the early build (Metasploit "Type I (old)").
const STEP_T1_OLD: [u32; 4] = [3, 5, 7_u32.wrapping_neg(), 9_u32.wrapping_neg()];

/// A running keystream.
#[derive(Clone, Copy)]
pub(super) enum Keystream {
    Four { state: [u32; 4], step: [u32; 4] },
    One { k: u32, index: u32, constant: u32 },
    Two { n1: u32, n2: u32, add: u32, sub: u32 },
}

impl Keystream {
    /// Deciphers (or enciphers) bytes in place with the keystream's next bytes.
    #[inline]
    pub(super) fn apply(&mut self, data: &mut [u8]) {
        match self {
            Self::Four { state: [a, b, c, d], step: [sa, sb, sc, sd] } => {
                for byte in data {
                    *a = a.wrapping_add(*a >> 3).wrapping_add(*sa);
                    *b = b.wrapping_add(*b >> 5).wrapping_add(*sb);
                    *c = c.wrapping_sub(*c << 9).wrapping_add(*sc);
                    *d = d.wrapping_sub(*d << 7).wrapping_add(*sd);
                    *byte ^= a.wrapping_add(*b).wrapping_add(*c).wrapping_add(*d) as u8;
                }
            }
            Self::One { k, index, constant } => {
                for byte in data {
                    *k = (*k << 7)
                        .wrapping_sub(*k >> 3)
                        .wrapping_add(*index)
                        .wrapping_add(*constant);
                    *index = index.wrapping_add(1);
                    *byte ^= (*k ^ *k >> 8 ^ *k >> 16 ^ *k >> 24) as u8;
                }
            }
            Self::Two { n1, n2, add, sub } => {
                for byte in data {
                    *n1 = n1.wrapping_add(*add);
                    *n2 = n2.wrapping_sub(*sub);
                    *byte ^= fold(fold(*n1) ^ *n2) as u8;
                }
            }
        }
    }
}

/// Folds an accumulator to eight bits, T3's output function.
#[inline]
const fn fold(n: u32) -> u32 {
    ((n.wrapping_sub(n >> 8)) ^ (n >> 16)).wrapping_sub(n >> 24) & 0xFF
}

#[cfg(test)]
mod tests {
    use super::{CipherKind, published};

    /// Vectors V9 of the design paper, from Metasploit's and JPCERT's formulas.
    #[test]
    fn keystreams_equal_the_published_ones_byte_for_byte() {
        for (id, expected) in [
            ("T1", 0xa628_2d18_278a_2aea_c369_b774_7def_c1dd_u128),
            ("T1old", 0x5ac4_b11f_e5b3_32e3_7c90_6613_ecae_c14c),
            ("T2-20130524", 0x24dc_afe3_2ad0_1e00_b1c4_9a31_e9c8_fb67),
            ("T3-20140613", 0xa4eb_6dc8_bdb5_a9d7_dea6_5a20_8321_6179),
            ("T3-20140918-p2p", 0xaf69_032a_40e7_7f9c_7ada_e415_eeee_5c3c),
        ] {
            let mut stream = [0; 16];
            kind(id).keystream(0x1234_5678).apply(&mut stream);
            assert_eq!(stream, expected.to_be_bytes(), "{id}");
        }
    }

    /// Vector V1: the Cookie of a 2019 capture (`silence-is-best/c2db`), decoded from base64.
    #[test]
    fn a_captured_cookie_deciphers_to_the_constant_61456() {
        let cookie = base64("QhTbeUW+YzYYsZWz0PQvBvYIgo8=");
        let (key, rest) = cookie.split_first_chunk::<4>().unwrap();
        let key = u32::from_le_bytes(*key);
        assert_eq!(key, 0x79DB_1442);
        let mut plain = rest.to_vec();
        kind("T3-20140613").keystream(key).apply(&mut plain);
        let fields: Vec<u32> =
            plain.chunks(4).map(|four| u32::from_le_bytes(four.try_into().unwrap())).collect();
        assert_eq!(fields, [0, 1, 20_130_923, 61_456]);
    }

    #[test]
    fn applying_in_pieces_equals_applying_at_once() {
        for setting in published() {
            let mut at_once = [0x5A; 40];
            setting.kind.keystream(7).apply(&mut at_once);
            let mut in_pieces = [0x5A; 40];
            let mut stream = setting.kind.keystream(7);
            in_pieces.chunks_mut(3).for_each(|piece| stream.apply(piece));
            assert_eq!(at_once, in_pieces, "{}", setting.id);
        }
    }

    fn kind(id: &str) -> CipherKind {
        published().into_iter().find(|setting| setting.id == id).unwrap().kind
    }

    fn base64(text: &str) -> Vec<u8> {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut bits = 0_u32;
        let mut out = Vec::new();
        for (at, letter) in text.trim_end_matches('=').bytes().enumerate() {
            bits = bits << 6 | alphabet.iter().position(|known| *known == letter).unwrap() as u32;
            if at % 4 != 0 {
                out.push((bits >> (6 - 2 * (at % 4))) as u8);
            }
        }
        out
    }
}
