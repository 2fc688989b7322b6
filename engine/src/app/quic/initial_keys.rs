//! Keys of client Initial packets, and AES-128-GCM over them.
//!
//! Nothing here is secret: the keys follow from bytes sent in clear, so the comparison of tags need not
//! run in constant time.

use aes::{
    Aes128,
    cipher::{Array, BlockCipherEncrypt, KeyInit},
};
use ghash::{GHash, universal_hash::UniversalHash};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// Initial salts of version 1 (RFC 9001 §5.2) and version 2 (RFC 9369 §3.3.1).
const SALT_V1: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad,
    0xcc, 0xbb, 0x7f, 0x0a,
];
const SALT_V2: [u8; 20] = [
    0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb,
    0xf9, 0xbd, 0x2e, 0xd9,
];
/// Block length of SHA-256 (FIPS 180-4), which HMAC pads keys to (RFC 2104).
const HASH_BLOCK_LEN: usize = 64;

/// Blocks enciphered in one go, as the processor does several at once.
const TOGETHER: usize = 16;

/// The client's Initial keys for one destination connection identifier.
pub(super) struct InitialKeys {
    packet: Aes128,
    header: Aes128,
    iv: [u8; 12],
}

impl InitialKeys {
    /// Derives the keys (RFC 9001 §5.2).
    pub(super) fn derive(dcid: &[u8], version_2: bool) -> Self {
        let secret = client_secret(dcid, version_2);
        let mac = Hmac::new(&secret);
        let label = |v1: &'static [u8], v2: &'static [u8]| {
            mac.expand_label(if version_2 { v2 } else { v1 })
        };
        let key = first::<16>(&label(b"quic key", b"quicv2 key"));
        let iv = first::<12>(&label(b"quic iv", b"quicv2 iv"));
        let header_key = first::<16>(&label(b"quic hp", b"quicv2 hp"));
        Self { packet: Aes128::new(&Array(key)), header: Aes128::new(&Array(header_key)), iv }
    }

    /// The header-protection mask for a sample (RFC 9001 §5.4.3).
    pub(super) fn header_mask(&self, sample: &[u8; 16]) -> [u8; 5] {
        first::<5>(&encrypt(&self.header, *sample))
    }

    /// Deciphers `text` in place and says whether the tag holds; without it `text` means nothing.
    pub(super) fn open(&self, number: u64, header: &[u8], text: &mut [u8], tag: &[u8; 16]) -> bool {
        let nonce = self.nonce(number);
        if self.tag(&nonce, header, text) != *tag {
            return false;
        }
        self.apply_counter(&nonce, text);
        true
    }

    /// The packet number is added into the low bytes of the IV (RFC 9001 §5.3).
    fn nonce(&self, number: u64) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, digit) in nonce.iter_mut().rev().zip(number.to_le_bytes()) {
            *byte ^= digit;
        }
        nonce
    }

    /// Counter mode from block 2 on; block 1 masks the tag (NIST SP 800-38D §7).
    fn apply_counter(&self, nonce: &[u8; 12], text: &mut [u8]) {
        let mut counter = 2_u32;
        for chunk in text.chunks_mut(16 * TOGETHER) {
            let mut stream = [Array([0; 16]); TOGETHER];
            for block in &mut stream {
                *block = Array(counter_block(nonce, counter));
                counter = counter.wrapping_add(1);
            }
            self.packet.encrypt_blocks(&mut stream);
            let (blocks, rest) = chunk.as_chunks_mut::<16>();
            for (block, mask) in blocks.iter_mut().zip(&stream) {
                *block = (u128::from_ne_bytes(*block) ^ u128::from_ne_bytes(mask.0)).to_ne_bytes();
            }
            let last = stream.get(blocks.len()).map(|mask| mask.0).unwrap_or_default();
            for (byte, mask) in rest.iter_mut().zip(last) {
                *byte ^= mask;
            }
        }
    }

    fn tag(&self, nonce: &[u8; 12], header: &[u8], enciphered: &[u8]) -> [u8; 16] {
        let mut hash = GHash::new(&Array(encrypt(&self.packet, [0; 16])));
        hash.update_padded(header);
        hash.update_padded(enciphered);
        let bits = |bytes: &[u8]| (bytes.len() as u128) * 8;
        hash.update(&[Array((bits(header) << 64 | bits(enciphered)).to_be_bytes())]);
        let mask = u128::from_ne_bytes(encrypt(&self.packet, counter_block(nonce, 1)));
        (u128::from_ne_bytes(hash.finalize().0) ^ mask).to_ne_bytes()
    }

    /// Enciphers `text` in place and gives its tag: what a client does, for the tests.
    #[cfg(test)]
    pub(super) fn seal(&self, number: u64, header: &[u8], text: &mut [u8]) -> [u8; 16] {
        let nonce = self.nonce(number);
        self.apply_counter(&nonce, text);
        self.tag(&nonce, header, text)
    }
}

const fn counter_block(nonce: &[u8; 12], counter: u32) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *nonce;
    let [m, n, o, p] = counter.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

fn encrypt(cipher: &Aes128, block: [u8; 16]) -> [u8; 16] {
    let mut block = Array(block);
    cipher.encrypt_block(&mut block);
    block.0
}

/// HKDF-Extract of the identifier, then the client's label (RFC 5869, RFC 8446 §7.1).
fn client_secret(dcid: &[u8], version_2: bool) -> [u8; 32] {
    static SALTED: LazyLock<[Hmac; 2]> =
        LazyLock::new(|| [SALT_V1, SALT_V2].map(|s| Hmac::new(&s)));
    let [version_1, other] = &*SALTED;
    let initial = if version_2 { other } else { version_1 }.finish(&[dcid]);
    Hmac::new(&initial).expand_label(b"client in")
}

fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

/// HMAC-SHA-256 (RFC 2104) with the key already absorbed, so that several messages share it.
struct Hmac {
    inner: Sha256,
    outer: Sha256,
}

impl Hmac {
    /// Takes a key of at most one block; ours are salts and hashes.
    fn new(key: &[u8]) -> Self {
        let padded = |pad: u8| {
            let mut block = [pad; HASH_BLOCK_LEN];
            for (byte, key) in block.iter_mut().zip(key) {
                *byte ^= key;
            }
            Sha256::new_with_prefix(block)
        };
        Self { inner: padded(0x36), outer: padded(0x5C) }
    }

    fn finish(&self, message: &[&[u8]]) -> [u8; 32] {
        let mut inner = self.inner.clone();
        for part in message {
            inner.update(part);
        }
        let mut outer = self.outer.clone();
        outer.update(inner.finalize());
        outer.finalize().0
    }

    /// HKDF-Expand-Label with an empty context, for up to 32 bytes (RFC 8446 §7.1).
    ///
    /// The stated length enters the hash, so it must be the one the label is used with.
    fn expand_label(&self, label: &[u8]) -> [u8; 32] {
        let len = match label {
            b"client in" => 32,
            b"quic iv" | b"quicv2 iv" => 12,
            _ => 16,
        };
        let label_len = (b"tls13 ".len() + label.len()) as u8;
        self.finish(&[&[0, len, label_len], b"tls13 ", label, &[0, 1]])
    }
}

#[cfg(test)]
mod tests {
    use aes::cipher::KeyInit;

    use super::{InitialKeys, client_secret, encrypt, first};

    const DCID: [u8; 8] = 0x8394_C8F0_3E51_5708_u64.to_be_bytes();

    #[test]
    fn the_keys_are_those_of_rfc_9001_appendix_a() {
        assert_eq!(
            hex(&client_secret(&DCID, false)),
            "c00cf151ca5be075ed0ebfb5c80323c42d6b7db67881289af4008f1f6c357aea"
        );
        let keys = InitialKeys::derive(&DCID, false);
        assert_eq!(hex(&keys.iv), "fa044b2f42a3fd3b46fb255c");
        assert_eq!(
            block_of_zeros(&keys.packet),
            block_of_zeros_under("1f369613dd76d5467730efcbe3b1a22d")
        );
        assert_eq!(
            block_of_zeros(&keys.header),
            block_of_zeros_under("9f50449e04a0e810283a1e9933adedd2")
        );
        let sample = unhex("d1b1c98dd7689fb8ec11d242b123dc9b");
        assert_eq!(hex(&keys.header_mask(&first::<16>(&sample))), "437b9aec36");
    }

    #[test]
    fn the_keys_of_version_2_are_those_of_rfc_9369_appendix_a() {
        assert_eq!(
            hex(&client_secret(&DCID, true)),
            "14ec9d6eb9fd7af83bf5a668bc17a7e283766aade7ecd0891f70f9ff7f4bf47b"
        );
        let keys = InitialKeys::derive(&DCID, true);
        assert_eq!(hex(&keys.iv), "91f73e2351d8fa91660e909f");
        assert_eq!(
            block_of_zeros(&keys.packet),
            block_of_zeros_under("8b1a0bc121284290a29e0971b5cd045d")
        );
        assert_eq!(
            block_of_zeros(&keys.header),
            block_of_zeros_under("45b95e15235d6f45a6b19cbcb0294ba9")
        );
    }

    /// Test cases 2 and 4 of the GCM submission (McGrew and Viega): zeros, and a header of 20 bytes.
    #[test]
    fn tags_are_those_of_the_gcm_test_cases() {
        let keys = |key: &str, iv: &str| InitialKeys {
            packet: super::Aes128::new(&super::Array(first::<16>(&unhex(key)))),
            header: super::Aes128::new(&super::Array([0; 16])),
            iv: first::<12>(&unhex(iv)),
        };
        let zeros = keys("00000000000000000000000000000000", "000000000000000000000000");
        let mut text = [0; 16];
        let tag = zeros.seal(0, &[], &mut text);
        assert_eq!(hex(&text), "0388dace60b6a392f328c2b971b2fe78");
        assert_eq!(hex(&tag), "ab6e47d42cec13bdf53a67b21257bddf");
        assert!(zeros.open(0, &[], &mut text, &tag) && text == [0; 16]);

        let keys = keys("feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888");
        let mut text = unhex(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
             1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        );
        let header = unhex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        assert_eq!(hex(&keys.seal(0, &header, &mut text)), "5bc94fbc3221a5db94fae95ae7121a47");
    }

    fn block_of_zeros(cipher: &super::Aes128) -> [u8; 16] {
        encrypt(cipher, [0; 16])
    }

    fn block_of_zeros_under(key: &str) -> [u8; 16] {
        block_of_zeros(&super::Aes128::new(&super::Array(first::<16>(&unhex(key)))))
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digit = |digit: u8| char::from(digit).to_digit(16).unwrap() as u8;
        text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    }
}
