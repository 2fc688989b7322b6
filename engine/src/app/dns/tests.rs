use std::net::IpAddr;

use super::{AnswerData, DnsMessage};

#[test]
fn a_query_gives_its_name_in_lower_case_and_its_type() {
    let bytes = query(&[b"WWW", b"Example", b"com"], 16);
    let message = DnsMessage::parse(&bytes).unwrap();
    let question = message.question().unwrap();
    assert_eq!((question.name.as_str(), question.qtype), ("www.example.com", 16));
    assert!(!message.is_response());
    assert_eq!((message.id(), message.rcode(), message.opcode()), (0xABCD, 0, 0));
    assert_eq!(message.answers().count(), 0);
}

#[test]
fn a_response_gives_aliases_and_addresses_with_owner_and_ttl() {
    let bytes = response();
    let message = DnsMessage::parse(&bytes).unwrap();
    assert!(message.is_response());
    let answers: Vec<_> = message.answers().collect();
    assert_eq!(answers.len(), 3, "the TXT record is passed over");
    assert_eq!(answers[0].owner.as_str(), "www.example.com");
    assert!(matches!(&answers[0].data, AnswerData::Cname(to) if to.as_str() == "cdn.example.com"));
    assert_eq!(answers[1].owner.as_str(), "cdn.example.com");
    assert_eq!(answers[1].data, AnswerData::Address(IpAddr::from([203, 0, 113, 9])));
    assert_eq!(answers[1].ttl, 300);
    assert_eq!(answers[2].data, AnswerData::Address(IpAddr::from([0x20; 16])));
}

#[test]
fn a_message_cut_short_still_gives_its_question_and_whole_answers() {
    let bytes = response();
    let question_ends = 12 + 17 + 4;
    for len in 12..bytes.len() {
        let message = DnsMessage::parse(&bytes[..len]).unwrap();
        assert_eq!(message.question().is_some(), len >= question_ends - 2, "{len}");
        assert!(message.answers().count() <= 3);
    }
}

#[test]
fn over_tcp_the_length_comes_first() {
    let bytes = query(&[b"a", b"example"], 1);
    let framed = [&(bytes.len() as u16).to_be_bytes(), &bytes[..], b"next message"].concat();
    let message = DnsMessage::parse_tcp(&framed).unwrap();
    assert_eq!(message.question().unwrap().name.as_str(), "a.example");
    assert!(DnsMessage::parse_tcp(&[0, 4, 1, 2, 3, 4]).is_none());
}

#[test]
fn binary_labels_are_escaped_or_marked_but_never_hide_the_name() {
    let bytes = query(&[b"a\x00.\\", b"example"], 1);
    let question = DnsMessage::parse(&bytes).unwrap().question().unwrap();
    assert_eq!(question.name.as_str(), "a\\000\\046\\092.example");
    let bytes = query(&[&[0xC3; 63], &[0x80; 63], b"tunnel", b"example"], 10);
    let question = DnsMessage::parse(&bytes).unwrap().question().unwrap();
    let expected = format!("{0}.{0}.tunnel.example", "?".repeat(63));
    assert_eq!(question.name.as_str(), expected);
}

#[test]
fn the_longest_name_fits_and_a_longer_one_is_refused() {
    let longest = query(&[&[b'a'; 63], &[b'b'; 63], &[b'c'; 63], &[b'd'; 61]], 1);
    let name = DnsMessage::parse(&longest).unwrap().question().unwrap().name;
    assert_eq!(name.as_str().len(), 253);
    let longer = query(&[&[b'a'; 63], &[b'b'; 63], &[b'c'; 63], &[b'd'; 62]], 1);
    assert!(DnsMessage::parse(&longer).and_then(|message| message.question()).is_none());
}

#[test]
fn pointers_that_loop_or_lead_forward_end_the_name() {
    for pointer in [12, 14, 200] {
        let mut bytes = header(0x0100, 1, 0);
        bytes.extend_from_slice(&[1, b'a', 0xC0, pointer, 0, 1, 0, 1]);
        assert!(DnsMessage::parse(&bytes).unwrap().question().is_none());
    }
}

#[test]
fn other_protocols_are_not_dns() {
    assert!(DnsMessage::parse(b"short").is_none());
    assert!(DnsMessage::parse(b"SSH-2.0-OpenSSH_9.2\r\n").is_none());
    assert!(DnsMessage::parse(&[0xFF; 64]).is_none());
}

#[test]
fn mutated_messages_are_read_without_a_panic() {
    let whole = response();
    let mut seed = 0x2468_1357_u32;
    for round in 0..100_000 {
        let mut bytes = whole.clone();
        for _ in 0..3 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = (seed >> 8) as usize % bytes.len();
            bytes[at] = seed as u8;
        }
        bytes.truncate(round % (bytes.len() + 1));
        if let Some(message) = DnsMessage::parse(&bytes) {
            let _ = message.question();
            assert!(message.answers().count() <= bytes.len());
        }
    }
}

fn header(flags: u16, questions: u16, answers: u16) -> Vec<u8> {
    [0xABCD, flags, questions, answers, 0, 0].into_iter().flat_map(u16::to_be_bytes).collect()
}

fn query(labels: &[&[u8]], qtype: u16) -> Vec<u8> {
    let mut bytes = header(0x0100, 1, 0);
    for label in labels {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label);
    }
    bytes.push(0);
    bytes.extend_from_slice(&qtype.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    bytes
}

fn response() -> Vec<u8> {
    let mut bytes = query(&[b"www", b"example", b"com"], 1);
    bytes[..8].copy_from_slice(&header(0x8180, 1, 4)[..8]);
    let mut record = |owner: [u8; 2], kind: u8, content: &[u8]| {
        bytes.extend_from_slice(&owner);
        bytes.extend_from_slice(&[0, kind, 0, 1, 0, 0, 1, 44, 0, content.len() as u8]);
        bytes.extend_from_slice(content);
        bytes.len()
    };
    // The alias target starts at 45: header 12, question 21, record head 12; its tail at 16.
    record([0xC0, 12], 5, &[3, b'c', b'd', b'n', 0xC0, 16]);
    record([0xC0, 45], 1, &[203, 0, 113, 9]);
    record([0xC0, 45], 16, b"\x03txt");
    record([0xC0, 45], 28, &[0x20; 16]);
    bytes
}

#[test]
fn the_question_is_also_there_as_it_was_sent() {
    let bytes = query(&[b"PEJOnnoo", b"bca", b"Example"], 16);
    let message = DnsMessage::parse(&bytes).unwrap();
    let labels: Vec<_> = message.raw_question_name().collect();
    assert_eq!(labels, [&b"PEJOnnoo"[..], b"bca", b"Example"]);
    for len in 12..bytes.len() {
        if let Some(message) = DnsMessage::parse(&bytes[..len]) {
            assert!(message.raw_question_name().count() <= 3);
        }
    }
    let mut compressed = header(0x0100, 1, 0);
    compressed.extend([1, b'a', 0xC0, 12, 0, 1, 0, 1]);
    assert_eq!(DnsMessage::parse(&compressed).unwrap().raw_question_name().count(), 1);
    let nothing = header(0x0100, 0, 0);
    assert_eq!(DnsMessage::parse(&nothing).unwrap().raw_question_name().count(), 0);
}

#[test]
fn records_of_every_type_are_handed_out_with_their_data() {
    let mut bytes = query(&[b"a", b"example"], 255);
    bytes[..8].copy_from_slice(&header(0x8180, 1, 5)[..8]);
    let mut record = |kind: u8, content: &[u8]| {
        bytes.extend_from_slice(&[0xC0, 12, 0, kind, 0, 1, 0, 0, 1, 44, 0, content.len() as u8]);
        bytes.extend_from_slice(content);
    };
    record(16, b"\x03one\x02tw\x00");
    record(10, b"\xFF\x00raw");
    record(15, &[0, 10, 2, b'm', b'x', 0xC0, 12]);
    record(33, &[0, 1, 0, 2, 0x1F, 0x90, 3, b's', b'r', b'v', 0]);
    record(1, &[203, 0, 113, 9]);
    let message = DnsMessage::parse(&bytes).unwrap();
    let records: Vec<_> = message.records().collect();
    assert_eq!(records.iter().map(|r| r.kind).collect::<Vec<_>>(), [16, 10, 15, 33, 1]);
    assert!(records.iter().all(|r| r.ttl == 300 && r.owner().unwrap().as_str() == "a.example"));
    assert_eq!(records[0].strings().collect::<Vec<_>>(), [&b"one"[..], b"tw", b""]);
    assert_eq!(records[1].rdata, b"\xFF\x00raw");
    assert_eq!(records[1].strings().count(), 0);
    assert_eq!(records[2].target().unwrap().as_str(), "mx.a.example");
    assert_eq!(records[3].target().unwrap().as_str(), "srv");
    assert_eq!((records[4].rdata, records[4].target()), (&[203, 0, 113, 9][..], None));
    for len in 12..bytes.len() {
        if let Some(message) = DnsMessage::parse(&bytes[..len]) {
            assert!(message.records().count() <= 5);
        }
    }
}
