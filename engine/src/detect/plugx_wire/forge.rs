//! PlugX traffic written from the published text alone: it must not know the detectors.
//!
//! Ciphers: CIRCL TR-12, Metasploit, chopshop, JPCERT/CC. LZNT1: MS-XCA §2.5, literals only.

/// One cipher of one build.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cipher {
    /// Four accumulators: what is added to each.
    One([i64; 4]),
    /// One accumulator and its constant.
    Two(u32),
    /// Two accumulators: X1, X2, ADD, SUB.
    Three([u32; 4]),
}

/// Every published setting.
pub(crate) const CIPHERS: [(&str, Cipher); 17] = [
    ("T1", Cipher::One([-0x1111_1111, -0x2222_2222, 0x4444_4444, 0x3333_3333])),
    ("T1old", Cipher::One([3, 5, -7, -9])),
    ("T2-20130524", Cipher::Two(0x713A_8FC1)),
    ("T2-20140307", Cipher::Two(0x2014_0307)),
    ("T2-20140428", Cipher::Two(0x2014_0428)),
    ("T2-20140509", Cipher::Two(0x2014_0509)),
    ("T3-20140609", Cipher::Three([0, 0x2014_0609, 0xC34F, 0x7525])),
    ("T3-20140613", Cipher::Three([0, 0x2014_0613, 0xC34F, 0x7525])),
    ("T3-20140719", Cipher::Three([0x0133_52AF, 0xA7, 0x6FD, 0x305B])),
    ("T3-20140818", Cipher::Three([0x0133_5312, 0x47, 0x2CF, 0x1EDD])),
    ("T3-20140918-p2p", Cipher::Three([20_140_918, 353, 3373, 39779])),
    ("T3-20141028", Cipher::Three([0x0133_53E4, 0x139, 0x655, 0x6697])),
    ("T3-20141116", Cipher::Three([0x0133_543C, 0xD, 0x77, 0x59F5])),
    ("T3-20141216", Cipher::Three([0xEF, 0xA3D, 0x5347, 0x0133_54A0])),
    ("T3-20150108", Cipher::Three([0x0133_775C, 0x38F, 0xB5D, 0x6157])),
    ("T3-20150202", Cipher::Three([0x0133_77BA, 0x1B1, 0x10F1, 0x70C3])),
    ("T3-20150416", Cipher::Three([0x0133_7890, 0x5BF1, 0x5BF3, 0x5BFD])),
];

/// The cipher of a name.
pub(crate) fn cipher(name: &str) -> Cipher {
    CIPHERS.iter().find(|(known, _)| *known == name).unwrap().1
}

impl Cipher {
    /// The first bytes of the keystream of a key, by the formulas of plugx.md 1.2.
    pub(crate) fn keystream(self, key: u32, len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::One(add) => {
                let mut four = [key; 4];
                for _ in 0..len {
                    let [a, b, c, d] = four.map(i64::from);
                    let next = [
                        a + (a >> 3) + add[0],
                        b + (b >> 5) + add[1],
                        c + add[2] - (c << 9),
                        d + add[3] - (d << 7),
                    ];
                    four = next.map(|n| n.rem_euclid(1 << 32) as u32);
                    let sum: u64 = four.iter().map(|n| u64::from(*n)).sum();
                    out.push(sum as u8);
                }
            }
            Self::Two(constant) => {
                let mut k = key;
                for i in 0..len as u32 {
                    k = (k << 7).wrapping_sub(k >> 3).wrapping_add(i).wrapping_add(constant);
                    let [a, b, c, d] = k.to_le_bytes();
                    out.push(a ^ b ^ c ^ d);
                }
            }
            Self::Three([x1, x2, add, sub]) => {
                let f = |n: u32| ((n.wrapping_sub(n >> 8)) ^ (n >> 16)).wrapping_sub(n >> 24) & 255;
                let (mut n1, mut n2) = if x1 == 0 { (key, x2) } else { (key ^ x1, key ^ x2) };
                for _ in 0..len {
                    n1 = n1.wrapping_add(add);
                    n2 = n2.wrapping_sub(sub);
                    out.push(f(f(n1) ^ n2) as u8);
                }
            }
        }
        out
    }
}

/// The plain header fields of a message.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fields {
    pub(crate) command: u16,
    pub(crate) flags: u16,
    pub(crate) size: u16,
    pub(crate) plain_size: u16,
    pub(crate) extra: u32,
}

/// How messages are enciphered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Build {
    pub(crate) cipher: Cipher,
    /// Whether the keystream of the header begins behind the key.
    pub(crate) after_key: bool,
}

impl Build {
    pub(crate) fn of(name: &str) -> Self {
        Self { cipher: cipher(name), after_key: false }
    }

    /// Every cipher in both alignments.
    pub(crate) fn every() -> impl Iterator<Item = (String, Self)> {
        CIPHERS.into_iter().flat_map(|(name, cipher)| {
            [(false, "from key"), (true, "after key")]
                .map(|(after_key, word)| (format!("{name} {word}"), Self { cipher, after_key }))
        })
    }

    /// A header.
    pub(crate) fn header(self, key: u32, fields: Fields) -> Vec<u8> {
        let mut plain = Vec::new();
        plain.extend_from_slice(&fields.command.to_le_bytes());
        plain.extend_from_slice(&fields.flags.to_le_bytes());
        plain.extend_from_slice(&fields.size.to_le_bytes());
        plain.extend_from_slice(&fields.plain_size.to_le_bytes());
        plain.extend_from_slice(&fields.extra.to_le_bytes());
        let skip = if self.after_key { 0 } else { 4 };
        let stream = self.cipher.keystream(key, 16);
        let body = plain.iter().zip(&stream[skip..]).map(|(a, b)| a ^ b);
        key.to_le_bytes().into_iter().chain(body).collect()
    }

    /// A message without a body.
    pub(crate) fn empty(self, key: u32, command: u16) -> Vec<u8> {
        self.header(key, Fields { command, ..Fields::default() })
    }

    /// A message with a packed body.
    pub(crate) fn packed(self, key: u32, command: u16, plain: &[u8]) -> Vec<u8> {
        let packed = pack(plain);
        let (size, plain_size) = (packed.len() as u16, plain.len() as u16);
        let mut message =
            self.header(key, Fields { command, size, plain_size, ..Fields::default() });
        message.extend(
            packed.iter().zip(self.cipher.keystream(key, packed.len())).map(|(a, b)| a ^ b),
        );
        message
    }

    /// A message whose body is enciphered but not packed.
    pub(crate) fn plain(self, key: u32, command: u16, plain: &[u8]) -> Vec<u8> {
        let size = plain.len() as u16;
        let fields = Fields { command, flags: 0x0100, size, plain_size: size, extra: 0 };
        let mut message = self.header(key, fields);
        message
            .extend(plain.iter().zip(self.cipher.keystream(key, plain.len())).map(|(a, b)| a ^ b));
        message
    }

    /// The twenty bytes of a cookie (plugx.md 1.4): the keystream begins behind the key.
    pub(crate) fn cookie(self, key: u32, words: [u32; 4]) -> Vec<u8> {
        let plain: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let stream = self.cipher.keystream(key, 20);
        let skip = if self.after_key { 0 } else { 4 };
        let body = plain.iter().zip(&stream[skip..]).map(|(a, b)| a ^ b);
        key.to_le_bytes().into_iter().chain(body).collect()
    }
}

/// LZNT1 of literals only.
pub(crate) fn pack(plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in plain.chunks(3640) {
        let mut data = Vec::new();
        for eight in chunk.chunks(8) {
            data.push(0);
            data.extend_from_slice(eight);
        }
        out.extend_from_slice(&(0xB000 | (data.len() - 1) as u16).to_le_bytes());
        out.extend_from_slice(&data);
    }
    out
}

/// Base64 (RFC 4648 §4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let mut bits = 0_u32;
        for at in 0..3 {
            bits = bits << 8 | u32::from(three.get(at).copied().unwrap_or(0));
        }
        for at in 0..4 {
            if at <= three.len() {
                out.push(char::from(alphabet[(bits >> (18 - 6 * at) & 63) as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

/// Bytes as letters A to P, the low half first.
pub(crate) fn letters(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte & 15, byte >> 4])
        .map(|half| char::from(b'A' + half))
        .collect()
}

/// A TXT question (RFC 1035 §4.1).
pub(crate) fn txt_question(id: u16, name: &str) -> Vec<u8> {
    question(id, name, 16)
}

/// A question of some type.
pub(crate) fn question(id: u16, name: &str, qtype: u16) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&qtype.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    out
}

/// The datagram of ET 2021791 and VRT 50380.
pub(crate) fn datagram_of_2015(first: u16, kind: u32) -> Vec<u8> {
    let mut out = first.to_le_bytes().to_vec();
    out.extend_from_slice(&[0x50, 0]);
    for word in [kind, 0x400, 0x1000, 0] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    // Bytes 20 to 22 are not told; the last 13 are zero.
    out.extend_from_slice(&[7, 8, 9]);
    out.extend_from_slice(&[0; 13]);
    out
}

/// The datagram of VRT 23381.
pub(crate) fn datagram_of_2012(first: u16, own: [u8; 4]) -> Vec<u8> {
    let mut out = first.to_le_bytes().to_vec();
    out.extend_from_slice(&[0x30, 0, 1, 0, 0, 0]);
    out.extend_from_slice(&own);
    for word in [0x400_u32, 0x1000, 0x32, 0] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out
}

/// Deterministic numbers (Marsaglia's xorshift64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn key(&mut self) -> u32 {
        (self.roll() >> 16) as u32
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.roll() >> 24) as u8).collect()
    }
}

/// The first bytes of honest protocols (plugx.md, section 5, negative set), by name.
pub(crate) fn honest() -> Vec<(&'static str, Vec<u8>)> {
    let hello = |text: &str| text.as_bytes().to_vec();
    let mut wireguard = vec![1, 0, 0, 0];
    wireguard.extend(Dice(77).bytes(144));
    let mut dtls = vec![0x16, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 90, 1, 0, 0, 78, 0, 0];
    dtls.extend(Dice(78).bytes(84));
    let mut zlib = 60_u32.to_le_bytes().to_vec();
    zlib.extend_from_slice(&[0x78, 0x9C]);
    zlib.extend(Dice(79).bytes(54));
    let mut torrent = vec![19];
    torrent.extend_from_slice(b"BitTorrent protocol\0\0\0\0\0\x10\0\x05");
    torrent.extend(Dice(80).bytes(40));
    let mut opc = b"HELF".to_vec();
    opc.extend_from_slice(&[57, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    opc.extend_from_slice(&[0, 0, 0, 0, 25, 0, 0, 0]);
    opc.extend_from_slice(b"opc.tcp://plant.local:484");
    let mut smb = vec![0, 0, 0, 0x54, 0xFE, b'S', b'M', b'B', 64, 0, 0, 0, 0, 0, 0, 0];
    smb.extend_from_slice(&[0; 68]);
    let mut rdp = vec![3, 0, 0, 0x2C, 0x27, 0xE0, 0, 0, 0, 0, 0];
    rdp.extend_from_slice(b"Cookie: mstshash=eltons\r\n\x01\0\x08\0\x0B\0\0\0");
    let mut kafka = vec![0, 0, 0, 30, 0, 18, 0, 3, 0, 0, 0, 1, 0, 8];
    kafka.extend_from_slice(b"producer\0\x05kafka\x063.6.1");
    vec![
        ("OPC-UA", opc),
        ("SMB", smb),
        ("RDP", rdp),
        ("DTLS", dtls),
        ("WireGuard", wireguard),
        ("BitTorrent", torrent),
        ("Redis", hello("*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n")),
        ("Kafka", kafka),
        ("zlib with a little-endian length", zlib),
        ("SSH", hello("SSH-2.0-OpenSSH_9.6\r\n")),
        ("SMTP", hello("220 mail.example ESMTP Postfix\r\n")),
    ]
}
