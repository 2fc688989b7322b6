use super::{Certificate, ClientHello, Reading, SCRATCH_LEN, ServerHello};
use crate::app::tls::tests::record;
use std::fmt::Write;

mod certificates;

/// Suites, extensions and signature algorithms of the example in the definition of JA4, in the
/// order of its `JA4_ro`.
const JA4_SUITES: [u16; 15] = [
    0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c,
    0x009d, 0x002f, 0x0035,
];
const JA4_KINDS: [u16; 16] = [
    0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012, 0x002b,
    0xff01, 0x000b, 0x000a, 0x0015,
];
const JA4_SIGNATURES: [u16; 8] = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601];

#[test]
fn ja4_is_that_of_its_definition() {
    let hello = ja4_example(&JA4_SIGNATURES);
    let read = whole(&hello);
    assert_eq!(read.ja4().as_str(), "t13d1516h2_8daaf6152771_e5627efa2ab1");
    assert_eq!(
        written(|out| read.ja4_text(out)),
        "t13d1516h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9_\
         0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01_\
         0403,0804,0401,0503,0805,0501,0806,0601"
    );
    let Reading::Whole(quic) = ClientHello::from_handshake(&hello) else { panic!("not read") };
    assert_eq!(quic.ja4().as_str(), "q13d1516h2_8daaf6152771_e5627efa2ab1");
    let unsigned = ja4_example(&[]);
    assert_eq!(whole(&unsigned).ja4().as_str(), "t13d1516h2_8daaf6152771_6d807ffa2a79");
}

#[test]
fn ja4_writes_zeros_for_lists_without_values() {
    let bare = client(0x0301, &[], None);
    assert_eq!(whole(&bare).ja4().as_str(), "t10i000000_000000000000_000000000000");
    let named = client(0x0303, &[0x0a0a], Some(&[(0, sni(b"a.example")), (0x1a1a, vec![])]));
    assert_eq!(whole(&named).ja4().as_str(), "t12d000100_000000000000_000000000000");
    assert_eq!(written(|out| whole(&named).ja4_text(out)), "t12d000100__");
}

#[test]
fn ja4_takes_the_ends_of_the_first_protocol() {
    for (protocol, ends) in [
        (&b""[..], "00"),
        (b"h2", "h2"),
        (b"http/1.1", "h1"),
        (b"h", "hh"),
        (b"\xAB", "ab"),
        (b"\xAB\xCD", "ad"),
        (b"\x30\xAB", "3b"),
        (b"\x30\x31\xAB\xCD", "3d"),
        (b"\x30\xAB\xCD\x31", "01"),
    ] {
        let hello = client(0x0303, &[0x1301], Some(&[(16, alpn(&[protocol, b"other"]))]));
        assert_eq!(ja4_part(&hello, 8..10), ends, "{protocol:?}");
    }
}

#[test]
fn ja4_states_versions_and_counts_up_to_99() {
    for (version, said) in
        [(0x0304, "13"), (0x0303, "12"), (0x0302, "11"), (0x0301, "10"), (0x0300, "s3")]
    {
        assert_eq!(ja4_part(&client(version, &[], None), 1..3), said);
        let newer =
            client(0x0300, &[], Some(&[(43, versions(&[0x0a0a, version, 0x0300, 0xfafa]))]));
        assert_eq!(ja4_part(&newer, 1..3), said);
        assert_eq!(whole(&newer).supported_version(), version);
    }
    let suites: Vec<u16> = (0..300).collect();
    let kinds: Vec<(u16, Vec<u8>)> = (100..220).map(|kind| (kind, vec![])).collect();
    let many = client(0x0303, &suites, Some(&kinds));
    assert_eq!(ja4_part(&many, 4..8), "9999");
}

/// The two examples of the JA3 paper's repository.
#[test]
fn ja3_is_that_of_its_definition() {
    let suites = [47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4];
    let kinds = [(0, sni(b"x.example")), (10, list16(&[23, 24, 25])), (11, vec![1, 0])];
    let hello = client(769, &suites, Some(&kinds));
    assert_eq!(
        written(|out| whole(&hello).ja3_text(out)),
        "769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0"
    );
    assert_eq!(hex(&whole(&hello).ja3()), "ada70206e40642a3e4461f35503241d5");

    let bare = client(769, &[4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99], None);
    assert_eq!(written(|out| whole(&bare).ja3_text(out)), "769,4-5-10-9-100-98-3-6-19-18-99,,,");
    assert_eq!(hex(&whole(&bare).ja3()), "de350869b8c85de67a350c8d186f11e6");
}

#[test]
fn ja3_leaves_reserved_values_out_everywhere() {
    let hello = client(
        771,
        &[0x2a2a, 4865, 0xfafa],
        Some(&[(0x1a1a, vec![]), (10, list16(&[0x3a3a, 29])), (0xdada, vec![0])]),
    );
    assert_eq!(written(|out| whole(&hello).ja3_text(out)), "771,4865,10,29,");
}

/// The text is the example of the JA3 paper's repository; the hash printed there is that of the text
/// with a line feed behind it, which no implementation adds.
#[test]
fn ja3s_is_that_of_its_definition() {
    let kinds = [65281, 0, 11, 35, 5, 16].map(|kind| (kind, vec![]));
    let stream = record(&server(769, 47, &kinds, [9; 32]));
    let Reading::Whole(hello) = ServerHello::parse(&stream) else { panic!("not read") };
    assert_eq!(written(|out| hello.ja3s_text(out)), "769,47,65281-0-11-35-5-16");
    assert_eq!(hex(&hello.ja3s()), "836ce314215654b5b1f85f97c73e506f");
    assert!(!hello.retry);
}

#[test]
fn a_server_states_its_version_its_protocol_and_a_retry() {
    let kinds = [(43, vec![3, 4]), (16, alpn(&[b"h2"]))];
    let stream = record(&server(0x0303, 0x1301, &kinds, super::RETRY_RANDOM));
    let Reading::Whole(hello) = ServerHello::parse(&stream) else { panic!("not read") };
    assert!(hello.retry);
    assert_eq!((hello.selected_version(), hello.alpn()), (0x0304, Some(&b"h2"[..])));
}

#[test]
fn a_hello_gives_names_protocols_and_its_extensions() {
    let hello = client(
        0x0303,
        &[1, 2],
        Some(&[(16, alpn(&[b"h2", b"http/1.1"])), (0, sni(b"A.Example")), (0xfe0d, vec![0; 40])]),
    );
    let read = whole(&hello);
    assert_eq!(read.sni().unwrap().as_str(), "a.example");
    assert_eq!(read.each_alpn().collect::<Vec<_>>(), [&b"h2"[..], b"http/1.1"]);
    assert_eq!(read.alpn(), Some(&b"h2"[..]));
    assert_eq!(read.supported_version(), 0x0303);
}

#[test]
fn a_hello_cut_anywhere_is_incomplete_and_whole_at_its_end() {
    let stream = record(&ja4_example(&JA4_SIGNATURES));
    for len in 0..stream.len() {
        assert_eq!(ClientHello::parse(&stream[..len]), Reading::Incomplete, "{len}");
    }
    let mut more = stream.clone();
    more.extend_from_slice(b"\x14\x03\x03\x00\x01\x01");
    assert_eq!(ClientHello::parse(&more), ClientHello::parse(&stream));
    assert!(ClientHello::parse(&stream).whole().is_some());
}

#[test]
fn hellos_over_any_records_are_joined() {
    let hello = ja4_example(&JA4_SIGNATURES);
    let reply = server(0x0303, 0xc02f, &[(65281, vec![0])], [1; 32]);
    for chunk in [1, 2, 3, 5, 40, 200] {
        let mut scratch = [0; SCRATCH_LEN];
        let stream: Vec<u8> = hello.chunks(chunk).flat_map(record).collect();
        for len in 0..stream.len() {
            let read = ClientHello::parse_joined(&stream[..len], &mut scratch);
            assert_eq!(read, Reading::Incomplete, "{chunk} {len}");
        }
        let read = ClientHello::parse_joined(&stream, &mut scratch).whole().unwrap();
        assert_eq!(read, whole(&hello));
        assert_eq!(ClientHello::parse(&stream), Reading::Other);
        assert_eq!(ClientHello::parse_joined(&stream, &mut [0; 64]), Reading::Other);

        let stream: Vec<u8> = reply.chunks(chunk).flat_map(record).collect();
        let read = ServerHello::parse_joined(&stream, &mut scratch).whole().unwrap();
        assert_eq!(Reading::Whole(read), ServerHello::parse(&record(&reply)));
    }
}

#[test]
fn a_warning_before_the_server_hello_is_passed_over() {
    let hello = server(0x0303, 0xc02f, &[(65281, vec![0])], [1; 32]);
    let warning = [21, 3, 3, 0, 2, 1, 112];
    let warned = |times: usize| [warning.repeat(times), record(&hello)].concat();
    for times in 1..=4 {
        assert_eq!(ServerHello::parse(&warned(times)), ServerHello::parse(&record(&hello)));
    }
    let stream = warned(1);
    for len in 0..stream.len() {
        assert_eq!(ServerHello::parse(&stream[..len]), Reading::Incomplete, "{len}");
    }
    assert_eq!(ServerHello::parse(&warned(5)), Reading::Other, "no endless warnings");
    assert_eq!(ServerHello::parse(&[21, 3, 3, 0, 2, 2, 40]), Reading::Other, "a fatal alert");
    assert_eq!(ServerHello::parse(&[21, 3, 3, 0, 32, 1]), Reading::Other, "enciphered");
}

#[test]
fn other_protocols_and_contradictions_are_no_hello() {
    let good = client(0x0303, &[1], Some(&[(0, sni(b"a.example"))]));
    let spoiled = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        record(&bad)
    };
    for other in [
        b"GET / HTTP/1.1\r\n".to_vec(),
        b"SSH-2.0-x\r\n".to_vec(),
        b"\x16\x03\x01\x00\x00".to_vec(),
        b"\x16\x03\x05\x00\x10\x01".to_vec(),
        b"\x16\x03\x01\xff\xff\x01".to_vec(),
        b"\x17\x03\x03\x00\x20".to_vec(),
        spoiled(0, 2),     // another message
        spoiled(4, 2),     // version 2
        spoiled(38, 33),   // session identifier too long
        spoiled(40, 99),   // suites beyond the hello
        spoiled(45, 0x7f), // extensions beyond the hello
    ] {
        assert_eq!(ClientHello::parse(&other), Reading::Other, "{other:02x?}");
    }
    assert!(ClientHello::parse(&record(&good)).whole().is_some());
    assert_eq!(ServerHello::parse(&record(&good)), Reading::Other);
}

#[test]
fn a_hello_with_half_a_suite_is_read() {
    let mut odd = client(0x0303, &[0x1301, 0x1302], None);
    odd.insert(45, 0x13);
    odd[3] += 1;
    odd[40] += 1;
    assert_eq!(written(|out| whole(&odd).ja3_text(out)), "771,4865-4866,,,");
}

#[test]
fn the_largest_hellos_are_read_in_place_and_fingerprinted() {
    // 16,383 extensions without content fill what sixteen bits of length allow.
    let kinds: Vec<(u16, Vec<u8>)> = (0..16_383_u16).rev().map(|kind| (kind, vec![])).collect();
    let suites: Vec<u16> = (0..32_767_u16).rev().collect();
    let hello = client(0x0303, &suites, Some(&kinds));
    assert!(hello.len() > 65_535 * 2);
    let Reading::Whole(read) = ClientHello::from_handshake(&hello) else { panic!("not read") };
    assert_eq!(read.each_extension().count(), 16_383);
    assert!(read.ja4().as_str().starts_with("q12d999900_"));
    let raw = written(|out| read.ja4_text(out));
    assert!(raw.starts_with("q12d999900_0000,0001,0002,"));
    assert_eq!(raw.matches(',').count(), (32_767 - 8 - 1) + (16_383 - 2 - 1 - 4));
    assert_ne!(read.ja3(), [0; 16]);
    let stream: Vec<u8> = hello.chunks(16_384).flat_map(record).collect();
    let mut scratch = [0; SCRATCH_LEN];
    let read = ClientHello::parse_joined(&stream, &mut scratch);
    assert_eq!(read, Reading::Other, "longer than what is joined");
}

#[test]
fn one_extension_may_fill_the_hello() {
    // Sixteen bits of length cannot state 65,539 bytes: the block says 3, and the hello goes on.
    let hello = client(0x0303, &[1], Some(&[(16, vec![0xFF; 65_531]), (0, vec![])]));
    let spoiled = ClientHello::from_handshake(&hello);
    assert!(spoiled.whole().is_some_and(|read| read.each_extension().count() == 0));
    let hello = client(0x0303, &[1], Some(&[(16, vec![0xFF; 65_531])]));
    let Reading::Whole(read) = ClientHello::from_handshake(&hello) else { panic!("not read") };
    assert_eq!(read.extensions.len(), 65_535);
    assert_eq!(read.each_alpn().count(), 65_529 / 256);
    assert_eq!(read.ja4().as_str().get(8..10), Some("ff"));
}

#[test]
fn mutated_hellos_are_read_without_a_panic_and_in_bounded_time() {
    let mut seeds = vec![record(&ja4_example(&JA4_SIGNATURES))];
    seeds.push(ja4_example(&JA4_SIGNATURES).chunks(50).flat_map(record).collect());
    seeds.push(record(&server(0x0303, 0xc02f, &[(16, alpn(&[b"h2"]))], [1; 32])));
    seeds.push(certificates::flight(&certificates::der(), 100));
    let mut scratch = [0; SCRATCH_LEN];
    let mut random = Random(0x5eed);
    let mut read = [0_u32; 3];
    for round in 0..200_000 {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..1 + random.below(4) {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[at] = random.below(256) as u8,
                1 => bytes.truncate(at + 1),
                _ => {
                    let from = random.below(bytes.len());
                    bytes[at] = bytes[from];
                }
            }
        }
        if let Reading::Whole(hello) = ClientHello::parse_joined(&bytes, &mut scratch) {
            read[0] += 1;
            let _ = (hello.sni(), hello.alpn(), hello.supported_version(), hello.ja3());
            assert!(hello.ja4().as_str().is_ascii());
        }
        if let Reading::Whole(hello) = ServerHello::parse_joined(&bytes, &mut scratch) {
            read[1] += 1;
            let _ = (hello.ja3s(), hello.selected_version(), hello.alpn());
        }
        if let Reading::Whole(found) = Certificate::find(&bytes, &mut scratch) {
            read[2] += 1;
            let _ = (found.serial(), found.validity(), found.sha256());
            for text in [found.subject(), found.issuer()].into_iter().flatten() {
                assert!(text.len() <= 512);
            }
        }
    }
    assert!(read.iter().all(|count| *count > 1000), "{read:?}");
}

/// A multiplicative generator: the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

fn whole(handshake: &[u8]) -> ClientHello<'_> {
    let Reading::Whole(hello) = ClientHello::from_handshake(handshake) else {
        panic!("not a whole hello")
    };
    ClientHello { quic: false, ..hello }
}

fn ja4_part(handshake: &[u8], part: std::ops::Range<usize>) -> String {
    whole(handshake).ja4().as_str().get(part).unwrap().to_owned()
}

fn written(write: impl FnOnce(&mut dyn Write) -> std::fmt::Result) -> String {
    let mut out = String::new();
    write(&mut out).unwrap();
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn ja4_example(signatures: &[u16]) -> Vec<u8> {
    let mut suites = JA4_SUITES.to_vec();
    suites.insert(0, 0xdada);
    let mut kinds: Vec<(u16, Vec<u8>)> = vec![(0x6a6a, vec![])];
    for kind in JA4_KINDS {
        let content = match kind {
            0x0000 => sni(b"www.example.com"),
            0x0010 => alpn(&[b"h2", b"http/1.1"]),
            0x000d => list16(signatures),
            0x002b => versions(&[0x7a7a, 0x0304, 0x0303]),
            _ => vec![0; 3],
        };
        kinds.push((kind, content));
    }
    kinds.push((0x4a4a, vec![0]));
    client(0x0303, &suites, Some(&kinds))
}

fn client(version: u16, suites: &[u16], kinds: Option<&[(u16, Vec<u8>)]>) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend_from_slice(&[7; 32]);
    body.push(0);
    body.extend_from_slice(&list16(suites));
    body.extend_from_slice(&[1, 0]);
    if let Some(kinds) = kinds {
        body.extend_from_slice(&block(kinds));
    }
    message(1, &body)
}

fn server(version: u16, suite: u16, kinds: &[(u16, Vec<u8>)], random: [u8; 32]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend_from_slice(&random);
    body.push(32);
    body.extend_from_slice(&[5; 32]);
    body.extend_from_slice(&suite.to_be_bytes());
    body.push(0);
    body.extend_from_slice(&block(kinds));
    message(2, &body)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(body);
    out
}

fn block(kinds: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut inner = Vec::new();
    for (kind, content) in kinds {
        inner.extend_from_slice(&kind.to_be_bytes());
        inner.extend_from_slice(&(content.len() as u16).to_be_bytes());
        inner.extend_from_slice(content);
    }
    let mut out = (inner.len() as u16).to_be_bytes().to_vec();
    out.append(&mut inner);
    out
}

fn list16(values: &[u16]) -> Vec<u8> {
    let mut out = (values.len() as u16 * 2).to_be_bytes().to_vec();
    out.extend(values.iter().flat_map(|value| value.to_be_bytes()));
    out
}

fn versions(values: &[u16]) -> Vec<u8> {
    let mut out = vec![values.len() as u8 * 2];
    out.extend(values.iter().flat_map(|value| value.to_be_bytes()));
    out
}

fn alpn(protocols: &[&[u8]]) -> Vec<u8> {
    let mut inner = Vec::new();
    for protocol in protocols {
        inner.push(protocol.len() as u8);
        inner.extend_from_slice(protocol);
    }
    let mut out = (inner.len() as u16).to_be_bytes().to_vec();
    out.append(&mut inner);
    out
}

fn sni(host: &[u8]) -> Vec<u8> {
    let len = host.len() as u16;
    let mut out = (len + 3).to_be_bytes().to_vec();
    out.push(0);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(host);
    out
}
