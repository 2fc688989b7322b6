use super::{InitialKeys, QuicSni, SCRATCH_LEN, VERSION_1, VERSION_2, initial_sni};
use crate::app::tls::tests::hello;

/// CRYPTO frame of the client Initial in RFC 9001 appendix A.2.
const A2_FRAME: &str = "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47\
f06a2b69484c00000413011302010000c000000010000e00000b6578616d706c652e636f6dff01000100000a00080006\
001d0017001800100007000504616c706e000500050100000000003300260024001d00209370b2c9caa47fbabaf4559f\
edba753de171fa71f50f1ce15d43e994ec74d748002b0003020304000d0010000e040305030603020308040805080600\
2d00020101001c00024001003900320408ffffffffffffffff05048000ffff07048000ffff080110010480007530090110\
0f088394c8f03e51570806048000ffff";
const DCID: [u8; 8] = 0x8394_C8F0_3E51_5708_u64.to_be_bytes();

#[test]
fn the_client_initial_of_rfc_9001_is_rebuilt_and_read() {
    let frame = unhex(A2_FRAME);
    let datagram = initial(VERSION_1, 2, &[&frame], 1162);
    // Header, first sample and tag as printed in the appendix, so the helper is not its own judge.
    assert_eq!(hex(&datagram[..22]), "c000000001088394c8f03e5157080000449e7b9aec34");
    assert_eq!(hex(&datagram[22..38]), "d1b1c98dd7689fb8ec11d242b123dc9b");
    assert_eq!(hex(&datagram[1184..]), "e221af44860018ab0856972e194cd934");
    assert_eq!(sni(&datagram), "example.com");
}

#[test]
fn both_versions_give_the_name() {
    for version in [VERSION_1, VERSION_2] {
        let datagram = initial(version, 0, &[&crypto(0, &hello(Some("v.example")))], 1162);
        assert_eq!(sni(&datagram), "v.example");
    }
}

#[test]
fn shuffled_crypto_frames_among_pings_and_padding_are_joined() {
    let hello = hello(Some("shuffled.example"));
    let frames: Vec<Vec<u8>> =
        hello.chunks(9).enumerate().rev().map(|(at, part)| crypto(at * 9, part)).collect();
    let mut parts: Vec<&[u8]> = Vec::new();
    for frame in &frames {
        parts.extend([&frame[..], &[0x01], &[0x00, 0x00]]);
    }
    assert_eq!(sni(&initial(VERSION_1, 1, &parts, 1162)), "shuffled.example");
}

#[test]
fn coalesced_initials_are_read_as_one() {
    let hello = hello(Some("coalesced.example"));
    let (front, back) = hello.split_at(20);
    let mut datagram = initial(VERSION_1, 0, &[&crypto(20, back)], 200);
    datagram.extend(initial(VERSION_1, 1, &[&crypto(0, front)], 200));
    assert_eq!(sni(&datagram), "coalesced.example");
}

#[test]
fn a_hello_that_continues_elsewhere_is_incomplete_or_already_named() {
    let mut hello = hello(Some("early.example"));
    hello[2] = 0x20;
    assert_eq!(sni(&initial(VERSION_1, 0, &[&crypto(0, &hello)], 1162)), "early.example");
    let verdict = read(&initial(VERSION_1, 0, &[&crypto(0, &hello[..60])], 1162));
    assert_eq!(verdict, QuicSni::Incomplete);
    let verdict = read(&initial(VERSION_1, 0, &[&crypto(60, &hello[60..])], 1162));
    assert_eq!(verdict, QuicSni::Incomplete);
}

#[test]
fn a_changed_byte_anywhere_fails_the_tag() {
    let good = initial(VERSION_1, 0, &[&crypto(0, &hello(Some("t.example")))], 200);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert_eq!(read(&bad), QuicSni::NotQuic, "{at}");
        assert_eq!(read(&good[..at]), QuicSni::NotQuic, "{at}");
    }
}

#[test]
fn other_datagrams_are_not_quic() {
    for other in [&b""[..], &[0xFF; 1200], &[0xC0, 0, 0, 0, 1, 8], &[0x40; 60]] {
        assert_eq!(read(other), QuicSni::NotQuic);
    }
}

#[test]
fn a_hello_without_a_name_says_so() {
    assert_eq!(read(&initial(VERSION_2, 0, &[&crypto(0, &hello(None))], 400)), QuicSni::None);
}

fn read(datagram: &[u8]) -> QuicSni {
    initial_sni(datagram, &mut [0; SCRATCH_LEN])
}

fn sni(datagram: &[u8]) -> String {
    match read(datagram) {
        QuicSni::Name(name) => name.as_str().to_owned(),
        other => panic!("no name: {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16).unwrap() as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn crypto(offset: usize, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x06];
    for value in [offset, data.len()] {
        frame.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes());
    }
    frame.extend_from_slice(data);
    frame
}

/// Builds a client Initial with a four-byte packet number and `plain_len` bytes of frames.
fn initial(version: u32, number: u32, frames: &[&[u8]], plain_len: usize) -> Vec<u8> {
    let mut plain = frames.concat();
    plain.resize(plain_len, 0);
    let mut packet = vec![if version == VERSION_2 { 0xD3 } else { 0xC3 }];
    packet.extend_from_slice(&version.to_be_bytes());
    packet.push(8);
    packet.extend_from_slice(&DCID);
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(&((4 + plain_len + 16) as u16 | 0x4000).to_be_bytes());
    let number_at = packet.len();
    packet.extend_from_slice(&number.to_be_bytes());
    let keys = InitialKeys::derive(&DCID, version == VERSION_2);
    let tag = keys.seal(u64::from(number), &packet, &mut plain);
    let mask = keys.header_mask(plain.first_chunk().unwrap());
    packet[0] ^= mask[0] & 0x0F;
    for at in 0..4 {
        packet[number_at + at] ^= mask[at + 1];
    }
    packet.extend_from_slice(&plain);
    packet.extend_from_slice(&tag);
    packet
}
