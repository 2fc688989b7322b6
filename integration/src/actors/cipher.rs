//! PlugX's ciphers, from the published text alone (CIRCL TR-12, rapid7's plugx module, MITRE's chopshop decoder, JPCERT/CC).

/// A family of ciphers with its constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// "Type I" and its older sister: four accumulators and their constants.
    T1 {
        /// Constants added to a, b, c and d.
        add: [u32; 4],
    },
    /// "Type II": one accumulator and its constant.
    T2(u32),
    /// "Type III": two accumulators; X1, X2, ADD, SUB.
    T3(u32, u32, u32, u32),
}

/// Every cipher setting by name.
pub const SETTINGS: [(&str, Cipher); 17] = [
    (
        "T1",
        Cipher::T1 {
            add: [
                0_u32.wrapping_sub(0x1111_1111),
                0_u32.wrapping_sub(0x2222_2222),
                0x4444_4444,
                0x3333_3333,
            ],
        },
    ),
    ("T1old", Cipher::T1 { add: [3, 5, 0_u32.wrapping_sub(7), 0_u32.wrapping_sub(9)] }),
    ("T2-2013", Cipher::T2(0x713A_8FC1)),
    ("T2-20140307", Cipher::T2(0x2014_0307)),
    ("T2-20140428", Cipher::T2(0x2014_0428)),
    ("T2-20140509", Cipher::T2(0x2014_0509)),
    ("T3-20140609", Cipher::T3(0, 0x2014_0609, 0xC34F, 0x7525)),
    ("T3-20140613", Cipher::T3(0, 0x2014_0613, 0xC34F, 0x7525)),
    ("T3-20140719", Cipher::T3(0x0133_52AF, 0xA7, 0x6FD, 0x305B)),
    ("T3-20140818", Cipher::T3(0x0133_5312, 0x47, 0x2CF, 0x1EDD)),
    ("T3-P2P", Cipher::T3(20_140_918, 353, 3373, 39779)),
    ("T3-20141028", Cipher::T3(0x0133_53E4, 0x139, 0x655, 0x6697)),
    ("T3-20141116", Cipher::T3(0x0133_543C, 0xD, 0x77, 0x59F5)),
    ("T3-20141216", Cipher::T3(0xEF, 0xA3D, 0x5347, 0x0133_54A0)),
    ("T3-20150108", Cipher::T3(0x0133_775C, 0x38F, 0xB5D, 0x6157)),
    ("T3-20150202", Cipher::T3(0x0133_77BA, 0x1B1, 0x10F1, 0x70C3)),
    ("T3-20150416", Cipher::T3(0x0133_7890, 0x5BF1, 0x5BF3, 0x5BFD)),
];

impl Cipher {
    /// The cipher with a name of [`SETTINGS`].
    #[must_use]
    pub fn named(name: &str) -> Self {
        SETTINGS
            .iter()
            .find(|(known, _)| *known == name)
            .unwrap_or_else(|| panic!("no cipher is called {name}"))
            .1
    }

    /// The first `length` bytes of the keystream of `key`.
    #[must_use]
    pub fn keystream(self, key: u32, length: usize) -> Vec<u8> {
        match self {
            Self::T1 { add } => type_one(add, key, length),
            Self::T2(constant) => type_two(constant, key, length),
            Self::T3(x1, x2, add, sub) => {
                let start = if x1 == 0 { (key, x2) } else { (key ^ x1, key ^ x2) };
                type_three(start, add, sub, length)
            }
        }
    }
}

fn type_one(add: [u32; 4], key: u32, length: usize) -> Vec<u8> {
    let [mut a, mut b, mut c, mut d] = [key; 4];
    (0..length)
        .map(|_| {
            a = a.wrapping_add(a >> 3).wrapping_add(add[0]);
            b = b.wrapping_add(b >> 5).wrapping_add(add[1]);
            c = c.wrapping_add(add[2]).wrapping_sub(c << 9);
            d = d.wrapping_add(add[3]).wrapping_sub(d << 7);
            a.wrapping_add(b).wrapping_add(c).wrapping_add(d).to_le_bytes()[0]
        })
        .collect()
}

fn type_two(constant: u32, key: u32, length: usize) -> Vec<u8> {
    let mut k = key;
    (0_u32..)
        .take(length)
        .map(|i| {
            k = (k << 7).wrapping_sub(k >> 3).wrapping_add(i).wrapping_add(constant);
            k.to_le_bytes().into_iter().fold(0, |sum, byte| sum ^ byte)
        })
        .collect()
}

fn fold(n: u32) -> u32 {
    ((n.wrapping_sub(n >> 8)) ^ (n >> 16)).wrapping_sub(n >> 24) & 255
}

fn type_three(start: (u32, u32), add: u32, sub: u32, length: usize) -> Vec<u8> {
    let (mut n1, mut n2) = start;
    (0..length)
        .map(|_| {
            n1 = n1.wrapping_add(add);
            n2 = n2.wrapping_sub(sub);
            fold(fold(n1) ^ n2).to_le_bytes()[0]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_keystreams_are_the_published_ones() {
        for (name, stream) in [
            ("T1", "a6282d18278a2aeac369b7747defc1dd"),
            ("T1old", "5ac4b11fe5b332e37c906613ecaec14c"),
            ("T2-2013", "24dcafe32ad01e00b1c49a31e9c8fb67"),
            ("T3-20140613", "a4eb6dc8bdb5a9d7dea65a2083216179"),
            ("T3-P2P", "af69032a40e77f9c7adae415eeee5c3c"),
        ] {
            assert_eq!(hex(&Cipher::named(name).keystream(0x1234_5678, 16)), stream, "{name}");
        }
    }
}
