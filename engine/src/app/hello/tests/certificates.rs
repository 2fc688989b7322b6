//! A certificate made with OpenSSL 3, and what that says of it.

use super::super::{Certificate, Reading, SCRATCH_LEN};
use super::{hex, message, record, server};
use sekisho_schema::Timestamp;

const DER: &str = "\
30820214308201bba003020102020400f1e2d3300a06082a8648ce3d0403023068310b3009060355040613024a50\
310e300c06035504080c05546f6b796f31153013060355040a0c0c506f6e6b616e2c20496e632e31133011060355\
040b0c0a233120225465616d2220311d301b06092a864886f70d010901160e61406578616d706c652e7465737430\
1e170d3236313132323133313634335a170d3237313132323133313634335a3068310b3009060355040613024a50\
310e300c06035504080c05546f6b796f31153013060355040a0c0c506f6e6b616e2c20496e632e31133011060355\
040b0c0a233120225465616d2220311d301b06092a864886f70d010901160e61406578616d706c652e7465737430\
59301306072a8648ce3d020106082a8648ce3d03010703420004a8919adda85363a0d2ee18393c55cfaf52d0440d\
06cceecb29bc3865cfee74a3306933a6241ca52aaaed6925e3804c3d8c13c87c12e306bf9457e17a53cab9dba353\
3051301d0603551d0e0416041481df4edfd869212a53800ff0d38390480cbb5a9e301f0603551d23041830168014\
81df4edfd869212a53800ff0d38390480cbb5a9e300f0603551d130101ff040530030101ff300a06082a8648ce3d\
0403020347003044022078bd6a1a7cedc7eb583daad65a05e19027f8873e597544538c5d8fc9615550ce02207548\
d51d1994a8b08532acc69ba53bcbeeba673a549825b279a30fc3cc61bc4f";

#[test]
fn a_certificate_is_found_over_any_records_and_only_when_it_is_all_there() {
    let der = der();
    let mut scratch = [0; SCRATCH_LEN];
    for chunk in [1, 7, 100, 300, 4000] {
        let stream = flight(&der, chunk);
        let found = Certificate::find(&stream, &mut scratch).whole().unwrap();
        assert_eq!(found.der, der, "{chunk}");
        let whole_from = (0..stream.len())
            .find(|len| Certificate::find(&stream[..*len], &mut scratch) != Reading::Incomplete)
            .unwrap();
        let found = Certificate::find(&stream[..whole_from], &mut scratch).whole().unwrap();
        assert_eq!(found.der, der, "{chunk}");
        assert!(whole_from > der.len() + 80);
    }
    let one = flight(&der, 4000);
    assert!(Certificate::find(&one, &mut []).whole().is_some(), "in place without a scratch");
}

#[test]
fn there_is_no_certificate_in_a_resumed_or_a_newer_handshake() {
    let mut scratch = [0; SCRATCH_LEN];
    let hello = server(0x0303, 0xc02f, &[], [1; 32]);
    let mut resumed = record(&hello);
    resumed.extend_from_slice(&[20, 3, 3, 0, 1, 1]);
    assert_eq!(Certificate::find(&resumed, &mut scratch), Reading::Other);
    let done = [hello.clone(), message(14, &[])].concat();
    assert_eq!(Certificate::find(&record(&done), &mut scratch), Reading::Other);
    assert_eq!(Certificate::find(&record(&hello), &mut scratch), Reading::Incomplete);
    let newer = record(&server(0x0303, 0x1301, &[(43, vec![3, 4])], [1; 32]));
    assert_eq!(Certificate::find(&newer, &mut scratch), Reading::Other);
    let empty = [hello, message(11, &[0, 0, 0])].concat();
    assert_eq!(Certificate::find(&record(&empty), &mut scratch), Reading::Incomplete);
    let none = [empty, message(14, &[])].concat();
    assert_eq!(Certificate::find(&record(&none), &mut scratch), Reading::Other);
}

#[test]
fn a_certificate_says_what_openssl_says_of_it() {
    let der = der();
    let found = Certificate { der: &der };
    assert_eq!(
        hex(&found.sha256()),
        "01e6002832320e29a8246bd6dee0ef0995e7646e6dc651f329c71ac4861efbb5"
    );
    assert_eq!(hex(&found.sha1()), "3c060c71d0bab2cf8a73af136fd099c31a41b2ab");
    assert_eq!(hex(&found.md5()), "2e4839fb2da8c97fa3574b54e8f60a2c");
    let name = r##"emailAddress=a@example.test,OU=\#1 \"Team\"\ ,O=Ponkan\, Inc.,ST=Tokyo,C=JP"##;
    assert_eq!(found.subject().unwrap(), name);
    assert_eq!(found.issuer().unwrap(), name);
    assert_eq!(hex(found.serial().unwrap()), "f1e2d3");
    let validity = found.validity().unwrap();
    assert_eq!(validity.not_before, "2026-11-22T13:16:43Z".parse::<Timestamp>().unwrap());
    assert_eq!(validity.not_after, "2027-11-22T13:16:43Z".parse::<Timestamp>().unwrap());
}

#[test]
fn names_of_every_string_type_are_written_and_bounded() {
    let subject = |kind: u8, value: &[u8]| {
        let oid = [6, 3, 0x55, 4, 3];
        let pair = tlv(0x30, &[&oid[..], &tlv(kind, value)].concat());
        let name = tlv(0x30, &tlv(0x31, &pair));
        let dates =
            tlv(0x30, &[tlv(0x17, b"500101000000Z"), tlv(0x18, b"20500101000000Z")].concat());
        let fields = [vec![2, 1, 0], tlv(0x30, &[]), name.clone(), dates, name].concat();
        tlv(0x30, &tlv(0x30, &fields))
    };
    for (kind, value, text) in [
        (0x0C, "ü;".as_bytes(), "CN=ü\\;"),
        (0x13, b" a b ", "CN=\\ a b\\ "),
        (0x16, b"a\0b", "CN=a\\00b"),
        (0x14, b"\xfc", "CN=ü"),
        (0x1E, b"\0x\x30\x42", "CN=xあ"),
        (0x1E, b"\xd8\x00", "CN=\u{FFFD}"),
        (0x0C, b"\xff", "CN=ÿ"),
        (0x04, b"\x01\xfe", "CN=#01fe"),
    ] {
        let der = subject(kind, value);
        assert_eq!(Certificate { der: &der }.subject().unwrap(), text);
    }
    let der = subject(0x0C, "あ".repeat(5000).as_bytes());
    let found = Certificate { der: &der };
    assert!(found.subject().unwrap().len() <= 512);
    let validity = found.validity().unwrap();
    assert_eq!(validity.not_before, "1950-01-01T00:00:00Z".parse::<Timestamp>().unwrap());
    assert_eq!(validity.not_after, "2050-01-01T00:00:00Z".parse::<Timestamp>().unwrap());
}

#[test]
fn a_certificate_that_is_none_says_nothing() {
    for der in [&b""[..], b"\x30", b"\x30\x80\0\0", b"\x30\x84\xff\xff\xff\xff", b"\x30\x02\x30\0"]
    {
        let found = Certificate { der };
        assert_eq!((found.subject(), found.serial(), found.validity()), (None, None, None));
    }
}

pub(super) fn der() -> Vec<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16).unwrap() as u8;
    DER.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// A server's first flight: hello, certificate with an issuer's behind it, and the end.
pub(super) fn flight(der: &[u8], chunk: usize) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[1..], bytes].concat();
    let list = [sized(der), sized(&[0x30, 0])].concat();
    let messages =
        [server(0x0303, 0xc02f, &[], [1; 32]), message(11, &sized(&list)), message(14, &[])]
            .concat();
    messages.chunks(chunk).flat_map(record).collect()
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len() as u16;
    let mut out = vec![tag, 0x82];
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(content);
    out
}
