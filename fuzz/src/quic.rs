//! Seals client Initials, so that what stands in them can be anything (RFC 9001 §5, RFC 9369).
//!
//! It is written apart from the engine's reader, which it thereby checks.

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use sha2::{Digest, Sha256};

pub(crate) const VERSION_1: u32 = 1;
pub(crate) const VERSION_2: u32 = 0x6B33_43CF;
const SALT_1: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad,
    0xcc, 0xbb, 0x7f, 0x0a,
];
const SALT_2: [u8; 20] = [
    0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb,
    0xf9, 0xbd, 0x2e, 0xd9,
];

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0_u8; 64];
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    let inner =
        Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
    let outer =
        Sha256::new().chain_update(block.map(|byte| byte ^ 0x5C)).chain_update(inner).finalize();
    outer.into()
}

fn expand<const N: usize>(secret: &[u8; 32], label: &str) -> [u8; N] {
    let label = format!("tls13 {label}");
    let mut info = (N as u16).to_be_bytes().to_vec();
    info.push(label.len() as u8);
    info.extend_from_slice(label.as_bytes());
    info.extend_from_slice(&[0, 1]);
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(hmac(secret, &info)) {
        *to = from;
    }
    out
}

fn encrypt(key: &Aes128, bytes: [u8; 16]) -> [u8; 16] {
    let mut block = Array(bytes);
    key.encrypt_block(&mut block);
    block.0
}

fn counter(nonce: [u8; 12], count: u32) -> [u8; 16] {
    (u128::from_be_bytes(padded(&nonce)) | u128::from(count)).to_be_bytes()
}

fn padded(bytes: &[u8]) -> [u8; 16] {
    let mut block = [0; 16];
    for (to, from) in block.iter_mut().zip(bytes) {
        *to = *from;
    }
    block
}

/// Multiplication in the field of GHASH (NIST SP 800-38D §6.3).
fn multiply(x: u128, y: u128) -> u128 {
    let (mut product, mut shifted) = (0, y);
    for bit in (0..128).rev() {
        if x >> bit & 1 == 1 {
            product ^= shifted;
        }
        shifted = shifted >> 1 ^ if shifted & 1 == 1 { 0xE1 << 120 } else { 0 };
    }
    product
}

fn seal_text(key: &Aes128, nonce: [u8; 12], header: &[u8], text: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    for (nth, block) in text.chunks(16).enumerate() {
        let stream = encrypt(key, counter(nonce, nth as u32 + 2));
        out.extend(block.iter().zip(stream).map(|(byte, mask)| byte ^ mask));
    }
    let subkey = u128::from_be_bytes(encrypt(key, [0; 16]));
    let mut hash = 0;
    for block in header.chunks(16).chain(out.chunks(16)) {
        hash = multiply(hash ^ u128::from_be_bytes(padded(block)), subkey);
    }
    let lengths = (header.len() as u128 * 8) << 64 | (out.len() as u128 * 8);
    hash = multiply(hash ^ lengths, subkey);
    let tag = hash ^ u128::from_be_bytes(encrypt(key, counter(nonce, 1)));
    out.extend_from_slice(&tag.to_be_bytes());
    out
}

/// A client's Initial packet with these frames, padded so that it can be sampled.
pub(crate) fn initial(version: u32, dcid: [u8; 8], number: u8, frames: &[u8]) -> Vec<u8> {
    let second = version == VERSION_2;
    let secret = hmac(if second { &SALT_2 } else { &SALT_1 }, &dcid);
    let secret = expand::<32>(&secret, "client in");
    let prefix = if second { "quicv2" } else { "quic" };
    let key = Aes128::new(&Array(expand::<16>(&secret, &format!("{prefix} key"))));
    let mask_key = Aes128::new(&Array(expand::<16>(&secret, &format!("{prefix} hp"))));
    let mut nonce = expand::<12>(&secret, &format!("{prefix} iv"));
    if let Some(last) = nonce.last_mut() {
        *last ^= number;
    }
    let mut text = frames.to_vec();
    text.resize(text.len().max(4), 0);
    // Long header, Initial, a packet number of one byte.
    let first = if second { 0xD0 } else { 0xC0 };
    let mut packet = vec![first];
    packet.extend_from_slice(&version.to_be_bytes());
    packet.push(dcid.len() as u8);
    packet.extend_from_slice(&dcid);
    packet.extend_from_slice(&[0, 0]);
    let rest = (1 + text.len() + 16) as u16 & 0x3FFF;
    packet.extend_from_slice(&(0x4000 | rest).to_be_bytes());
    packet.push(number);
    let sealed = seal_text(&key, nonce, &packet, &text);
    let sample: Vec<u8> = sealed.iter().skip(3).take(16).copied().collect();
    let mask = encrypt(&mask_key, padded(&sample));
    let at = packet.len() - 1;
    for (place, mask) in [
        (0, mask.first().copied().unwrap_or_default() & 0x0F),
        (at, mask.get(1).copied().unwrap_or_default()),
    ] {
        if let Some(byte) = packet.get_mut(place) {
            *byte ^= mask;
        }
    }
    packet.extend_from_slice(&sealed);
    packet
}

/// A CRYPTO frame; offset and length below 16,384.
pub(crate) fn crypto(offset: u16, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![6];
    frame.extend_from_slice(&(0x4000 | offset & 0x3FFF).to_be_bytes());
    frame.extend_from_slice(&(0x4000 | data.len() as u16 & 0x3FFF).to_be_bytes());
    frame.extend_from_slice(data);
    frame
}
