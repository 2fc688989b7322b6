use super::{InitialKeys, Opened, QuicSni, SCRATCH_LEN, VERSION_1, VERSION_2, initial_sni, join};
use crate::app::hello::Reading;
use crate::app::tls::{Sni, tests::hello};

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

#[test]
fn the_hello_of_rfc_9001_is_whole_and_has_its_fingerprint() {
    let datagram = initial(VERSION_1, 2, &[&unhex(A2_FRAME)], 1162);
    let read = flow(&[&datagram]);
    assert_eq!(read.len(), 1);
    let (sni, ja4) = read[0].clone().unwrap();
    assert_eq!(sni, "example.com");
    // Two suites, eleven extensions; the protocol it asks for is called "alpn".
    assert!(ja4.starts_with("q13d0211an_"), "{ja4}");
}

#[test]
fn a_hello_over_four_datagrams_with_holes_is_joined_in_any_order() {
    let hello = long_hello("four.example");
    let parts: Vec<Vec<u8>> =
        hello.chunks(150).enumerate().map(|(at, part)| crypto(at * 150, part)).collect();
    // Each datagram carries every fourth fragment, so that all leave holes.
    let datagrams: Vec<Vec<u8>> = (0..4)
        .map(|which| {
            let frames: Vec<&[u8]> =
                parts.iter().skip(which).step_by(4).rev().map(Vec::as_slice).collect();
            initial(VERSION_2, which as u32, &frames, 1162)
        })
        .collect();
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
        let sent: Vec<&[u8]> = order.iter().map(|at| datagrams[*at].as_slice()).collect();
        let read = flow(&sent);
        assert_eq!(read[..3], [None, None, None], "{order:?}");
        let (sni, ja4) = read[3].clone().unwrap();
        assert_eq!(sni, "four.example");
        assert!(ja4.starts_with("q12d0202"), "{ja4}");
    }
}

#[test]
fn the_name_is_told_before_the_rest_of_the_hello() {
    let hello = long_hello("early.example");
    let mut opened = Opened::new();
    assert!(opened.open(&initial(VERSION_1, 0, &[&crypto(0, &hello[..600])], 1162), &[]));
    let mut scratch = [0; 4096];
    let joined = join(&[], opened.as_bytes(), &mut scratch);
    assert_eq!(joined.hello(), Reading::Incomplete);
    assert!(matches!(joined.sni(), Sni::Name(name) if name.as_str() == "early.example"));
}

#[test]
fn a_new_identifier_after_a_retry_or_from_the_server_is_followed() {
    let hello = long_hello("moved.example");
    let (front, back) = hello.split_at(700);
    let first = initial(VERSION_1, 0, &[&crypto(0, front)], 1162);
    let other = [9; 20];
    // The server's identifier, under the keys of the first one.
    let answered = initial_to(VERSION_1, [&other, &DCID], 1, &[&crypto(700, back)], 1162);
    assert!(flow(&[&first, &answered])[1].is_some());
    // After a Retry the keys are of the new one, and all is sent again.
    let again = initial_to(VERSION_1, [&other, &other], 0, &[&crypto(0, front)], 1162);
    let last = initial_to(VERSION_1, [&other, &other], 1, &[&crypto(700, back)], 1162);
    assert!(flow(&[&first, &again, &last])[2].is_some());
    // Nobody else's keys open it.
    let foreign = initial_to(VERSION_1, [&other, &[7; 8]], 1, &[&crypto(700, back)], 1162);
    assert!(!Opened::new().open(&foreign, &[8, 0x83, 0x94, 0xC8, 0xF0, 0x3E, 0x51, 0x57, 0x08]));
}

#[test]
fn bytes_sent_twice_count_as_first_sent() {
    let hello = hello(Some("first.example"));
    let forged = hello.iter().map(|byte| byte ^ 1).collect::<Vec<_>>();
    let datagram =
        initial(VERSION_1, 0, &[&crypto(0, &hello), &crypto(0, &forged), &crypto(10, b"xx")], 1162);
    assert_eq!(sni(&datagram), "first.example");
}

#[test]
fn a_hello_in_very_many_fragments_takes_bounded_work() {
    let hello = long_hello("tiny.example");
    let mut kept = Vec::new();
    let mut opened_all = 0;
    for (number, part) in hello.chunks(200).cycle().take(60).enumerate() {
        let frames: Vec<Vec<u8>> =
            part.iter().enumerate().map(|(at, byte)| crypto(at * 2, &[*byte])).collect();
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        let mut opened = Opened::new();
        assert!(opened.open(&initial(VERSION_1, number as u32, &frames, 1300), &kept));
        assert!(opened.as_bytes().len() <= 9 + 64 * 5);
        let mut scratch = [0; 4096];
        let _ = join(&kept, opened.as_bytes(), &mut scratch).hello();
        kept.extend_from_slice(opened.as_bytes());
        opened_all += 1;
    }
    assert_eq!(opened_all, 60);
}

#[test]
fn spoiled_kept_bytes_and_frames_are_read_without_a_panic() {
    let hello = long_hello("spoiled.example");
    let mut seed = 0x1234_5678_u32;
    let mut next = move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as usize
    };
    let mut whole = 0;
    for _ in 0..1000 {
        let mut frame = crypto(0, &hello[..500]);
        frame.extend(crypto(500, &hello[500..]));
        for _ in 0..next() % 3 {
            let at = next() % frame.len();
            frame[at] = next() as u8;
        }
        let mut opened = Opened::new();
        assert!(opened.open(&initial(VERSION_1, 0, &[&frame], 1500), &[]));
        let mut kept = opened.as_bytes().to_vec();
        for _ in 0..next() % 3 {
            let at = next() % kept.len();
            kept[at] = next() as u8;
        }
        let mut scratch = [0; 4096];
        if let Reading::Whole(hello) = join(&kept, &[], &mut scratch).hello() {
            whole += 1;
            let _ = (hello.ja4(), hello.sni());
        }
        let _ = Opened::new().open(&initial(VERSION_1, 0, &[&frame], 1500), &kept);
    }
    assert!(whole > 150, "{whole}");
}

/// What each datagram of a flow adds: nothing, or name and JA4 of the hello that is whole with it.
fn flow(datagrams: &[&[u8]]) -> Vec<Option<(String, String)>> {
    let mut kept = Vec::new();
    let mut out = Vec::new();
    for datagram in datagrams {
        let mut opened = Opened::new();
        assert!(opened.open(datagram, &kept));
        let mut scratch = [0; 4096];
        let read = join(&kept, opened.as_bytes(), &mut scratch).hello().whole();
        out.push(read.map(|hello| {
            (hello.sni().unwrap().as_str().to_owned(), hello.ja4().as_str().to_owned())
        }));
        kept.extend_from_slice(opened.as_bytes());
    }
    out
}

/// A hello as long as one with a post-quantum key share: the name first, 1,300 bytes behind it.
fn long_hello(host: &str) -> Vec<u8> {
    let mut out = hello(Some(host));
    let extra = 1300_u16;
    let block_at = 4 + 2 + 32 + 1 + 2 + 4 + 2;
    for (at, grown) in [(2, extra + 4), (block_at, extra + 4)] {
        let was = u16::from_be_bytes([out[at], out[at + 1]]);
        out[at..at + 2].copy_from_slice(&(was + grown).to_be_bytes());
    }
    out.extend_from_slice(&51_u16.to_be_bytes());
    out.extend_from_slice(&extra.to_be_bytes());
    out.extend((0..extra).map(|byte| byte as u8));
    out
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

fn initial(version: u32, number: u32, frames: &[&[u8]], plain_len: usize) -> Vec<u8> {
    initial_to(version, [&DCID, &DCID], number, frames, plain_len)
}

/// Builds a client Initial with a four-byte packet number and `plain_len` bytes of frames, to an
/// identifier and under the keys of another.
fn initial_to(
    version: u32,
    [to, keys]: [&[u8]; 2],
    number: u32,
    frames: &[&[u8]],
    plain_len: usize,
) -> Vec<u8> {
    let mut plain = frames.concat();
    plain.resize(plain_len, 0);
    let mut packet = vec![if version == VERSION_2 { 0xD3 } else { 0xC3 }];
    packet.extend_from_slice(&version.to_be_bytes());
    packet.push(to.len() as u8);
    packet.extend_from_slice(to);
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(&((4 + plain_len + 16) as u16 | 0x4000).to_be_bytes());
    let number_at = packet.len();
    packet.extend_from_slice(&number.to_be_bytes());
    let keys = InitialKeys::derive(keys, version == VERSION_2);
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
