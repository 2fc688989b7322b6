//! What strangers, neighbours and relays can make a host say, and what that must not do to it; and
//! what an intruder does to hide.

use crate::forge::{Bench, C2, LOCAL, Made, PROBE, START, end, hello, policy, tcp, udp};
use sekisho_engine::Limits;
use sekisho_schema::{Grade, Span, Timestamp};
use std::net::{Ipv4Addr, SocketAddrV4};

const PSH_ACK: u8 = 0x18;
const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 9);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 77, 9, 9);
const CUT_ALL: &str = "
[[decide]]
detector = \"plugx.*\"
grade = \"malicious\"
level = 5
lease = \"24h\"
[[decide]]
detector = \"c2.*\"
grade = \"malicious\"
level = 5
lease = \"24h\"
";
/// Plain form of 9002's first message (ET 2016398).
const NINE: [u8; 24] = [
    0xA1, 0xB2, 0xC3, 0xD4, 0x0C, 0, 0, 0, 8, 0, 0, 0, 0x19, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0,
    0x11, 0, 0,
];

fn at(millis: i64) -> Timestamp {
    START.after(Span::from_millis(millis))
}

fn bench() -> Bench {
    Bench::with(policy("enforce", CUT_ALL), &[], Limits::default())
}

/// A server's answer to the payload of [`hello`].
fn answer(
    millis: i64,
    server: SocketAddrV4,
    client: SocketAddrV4,
    asked: usize,
    said: &[u8],
) -> Made {
    tcp(at(millis), server, client, PSH_ACK, 901, 101 + u32::try_from(asked).unwrap(), said)
}

fn post(body: &[u8]) -> Vec<u8> {
    let mut text = format!(
        "POST /upload HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    text.extend_from_slice(body);
    text
}

fn response(body: &[u8]) -> Vec<u8> {
    let mut text =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    text.extend_from_slice(body);
    text
}

/// Nothing was cut, and what was told is suspect at most, but something was told.
fn only_suspected(bench: &Bench, why: &str) {
    let found = bench.findings();
    assert!(!found.is_empty(), "{why}: nothing was told");
    assert!(found.iter().all(|found| found.grade <= Grade::Suspect), "{why}: {found:#?}");
    assert!(bench.orders().is_empty(), "{why}");
}

#[test]
fn a_relay_that_passes_a_strangers_bytes_on_is_not_cut() {
    for inside in [true, false] {
        for bytes in [&PROBE[..], &NINE] {
            let next =
                if inside { end(BACKEND, 8443) } else { end([198, 51, 100, 7].into(), 8443) };
            let mut bench = bench();
            bench.feed(&hello(START, end(C2, 50_000), end(LOCAL, 443), bytes));
            bench.feed(&hello(at(20), end(LOCAL, 40_000), next, bytes));
            // The flow goes on: what it was told as stays.
            let goes_on = 101 + u32::try_from(bytes.len()).unwrap();
            bench.feed(&[tcp(at(9000), end(LOCAL, 40_000), next, PSH_ACK, goes_on, 901, &[7; 40])]);
            only_suspected(&bench, "a relay");
        }
    }
}

#[test]
fn a_relay_that_passes_a_second_message_of_a_stranger_on_is_not_cut() {
    let mut other = NINE;
    other[0] = 0x77;
    let mut bench = bench();
    let (client, server) = (end(C2, 50_000), end(LOCAL, 80));
    bench.feed(&hello(START, client, server, &post(&NINE)));
    let asked = post(&NINE).len();
    bench.feed(&[answer(10, server, client, asked, &response(b"ok"))]);
    let seq = 101 + u32::try_from(asked).unwrap();
    bench.feed(&[tcp(at(20), client, server, PSH_ACK, seq, 980, &post(&other))]);
    bench.feed(&hello(
        at(30),
        end(LOCAL, 40_000),
        end([198, 51, 100, 7].into(), 80),
        &post(&other),
    ));
    only_suspected(&bench, "the second message");
}

#[test]
fn a_web_server_in_front_that_hands_requests_on_is_not_cut() {
    let mut bench = bench();
    // What came to it came under TLS.
    bench.feed(&hello(START, end(LOCAL, 40_000), end(BACKEND, 8080), &post(&PROBE)));
    bench.feed(&hello(at(50), end(LOCAL, 40_001), end(BACKEND, 8080), &post(&NINE)));
    only_suspected(&bench, "a web server in front");
}

#[test]
fn an_implant_that_goes_through_an_inside_proxy_is_cut() {
    let proxy = end(BACKEND, 3128);
    let connect = b"CONNECT 203.0.113.9:443 HTTP/1.1\r\nHost: 203.0.113.9:443\r\n\r\n";
    let granted = b"HTTP/1.1 200 Connection established\r\n\r\n";
    for inner in [PROBE.to_vec(), post(&PROBE)] {
        let mut bench = bench();
        bench.feed(&hello(START, end(LOCAL, 40_000), proxy, connect));
        bench.feed(&[answer(10, proxy, end(LOCAL, 40_000), connect.len(), granted)]);
        let (seq, ack) = (101 + connect.len() as u32, 901 + granted.len() as u32);
        bench.feed(&[tcp(at(20), end(LOCAL, 40_000), proxy, PSH_ACK, seq, ack, &inner)]);
        assert_eq!(bench.orders().len(), 1);
    }
    let absolute = String::from_utf8(post(b"0123456789abcdef")).unwrap();
    let absolute = absolute.replace("POST /", "POST http://203.0.113.9/");
    let body = absolute.len() - 16;
    let mut absolute = absolute.into_bytes();
    absolute[body..].copy_from_slice(&PROBE);
    let mut bench = bench();
    bench.feed(&hello(START, end(LOCAL, 40_000), proxy, &absolute));
    assert_eq!(bench.orders().len(), 1);
}

#[test]
fn an_inside_proxy_is_not_cut_for_its_client() {
    let connect = b"CONNECT 203.0.113.9:443 HTTP/1.1\r\nHost: 203.0.113.9:443\r\n\r\n";
    let mut bench = bench();
    let (client, proxy) = (end(NEIGHBOUR, 50_000), end(LOCAL, 3128));
    bench.feed(&hello(START, client, proxy, connect));
    let seq = 101 + connect.len() as u32;
    bench.feed(&[tcp(at(20), client, proxy, PSH_ACK, seq, 901, &PROBE)]);
    bench.feed(&hello(at(30), end(LOCAL, 40_000), end(C2, 443), &PROBE));
    only_suspected(&bench, "a proxy");
}

#[test]
fn a_neighbour_or_a_forged_inside_address_cuts_nothing() {
    let mut bench = bench();
    bench.feed(&hello(START, end(NEIGHBOUR, 50_000), end(LOCAL, 80), &PROBE));
    bench.feed(&hello(at(20), end(NEIGHBOUR, 50_001), end(LOCAL, 80), &NINE));
    bench.feed(&[udp(at(40), end(NEIGHBOUR, 50_002), end(LOCAL, 5000), &PROBE)]);
    only_suspected(&bench, "a neighbour");
}

#[test]
fn what_a_server_of_the_inside_serves_cuts_neither_end() {
    let get = b"GET /stored HTTP/1.1\r\nHost: a\r\n\r\n";
    for (client, server) in
        [(end(LOCAL, 40_000), end(BACKEND, 80)), (end(NEIGHBOUR, 40_000), end(LOCAL, 80))]
    {
        let mut bench = bench();
        bench.feed(&hello(START, client, server, get));
        bench.feed(&[answer(10, server, client, get.len(), &response(&PROBE))]);
        only_suspected(&bench, "a server");
    }
}

/// An ICMP echo.
fn echo(millis: i64, src: Ipv4Addr, dst: Ipv4Addr, request: bool, payload: &[u8]) -> Made {
    let mut made = udp(at(millis), end(src, 0), end(dst, 0), payload);
    made.bytes[23] = 1;
    let icmp = [if request { 8 } else { 0 }, 0, 0, 0, 0x12, 0x34, 0, 1];
    made.bytes[34..42].copy_from_slice(&icmp);
    made
}

#[test]
fn a_kernel_that_answers_an_echo_is_not_cut_whether_or_not_the_request_was_seen() {
    let wake = [0xFF, 0xFF, 9, 0, 0, 0, 0xFF, 0xFF, 1, 2, 3, 4, 5, 6, 7, 8];
    let mut tunnel = vec![0xD5, 0x20, 8, 0x80];
    for word in [0x0A00_0002_u32, 22, 0x4000_0002, 0xFFFF, 0] {
        tunnel.extend_from_slice(&word.to_be_bytes());
    }
    tunnel.extend_from_slice(&[0, 1, 0x17, 0x2A]);
    for payload in [&PROBE[..], &wake, &tunnel] {
        for asker in [C2, NEIGHBOUR] {
            for seen in [true, false] {
                let mut bench = bench();
                if seen {
                    bench.feed(&[echo(0, asker, LOCAL, true, payload)]);
                }
                bench.feed(&[echo(1, LOCAL, asker, false, payload)]);
                only_suspected(&bench, "an echo");
            }
        }
    }
}

#[test]
fn a_service_that_sends_datagrams_back_or_on_is_not_cut() {
    let raw: [&[u8]; 2] = [&[0x10, 0xD1, 0x9E, 0x20, 1, 2, 3, 4], &[0x10, 0xD1, 0x9E, 0x30]];
    for bytes in [&PROBE[..], raw[0], raw[1]] {
        for to in [end(C2, 50_000), end([198, 51, 100, 7].into(), 3478)] {
            let mut bench = bench();
            for n in 0..3 {
                bench.feed(&[udp(at(n * 10), end(C2, 50_000), end(LOCAL, 7), bytes)]);
                bench.feed(&[udp(at(n * 10 + 1), end(LOCAL, 7), to, bytes)]);
            }
            only_suspected(&bench, "a service of datagrams");
        }
    }
}

fn question(millis: i64, (src, dst): (SocketAddrV4, SocketAddrV4), qtype: u8, name: &str) -> Made {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, qtype, 0, 1]);
    udp(at(millis), src, dst, &message)
}

/// Names of PlugX's DNS transport (plugx.md, V4), of dnscat2 and of iodine.
const NAMES: [(u8, &[&str]); 3] = [
    (
        16,
        &[
            "PEOJNOOBAAHDMKNGELEADFCKBPAEPIONNCMHLMKBJGILHAGFFKEPDECJBOADPHO.MNBMGLLKAJFIKIPHEGJFOEDDICNBCAHPLOANFMKLPKEJJIOHDGIFNECDHCMBBAG.PKOPNEMJMOLDKIJNIC.z.example",
            "JJIOHDOBJEIEIBJJELEADFCKBPAEPIONNCMHLMKBJGILHAGFFKEPDECJBOADPHO.MNBMGLLKAJFIKIPHEGJFOEDDICNBCAHPLOANFMKLPKEJJIOHDGIFNECDHCMBBAG.PKOPNEMJMOLDKIJNIC.z.example",
        ],
    ),
    (
        5,
        &[
            "11110365e618d6e1cac2a8.c2.example",
            "22220165e698ce94b2b196.c2.example",
            "33330165e61032746e7e33.c2.example",
            "44440165e65cb0cce74445.c2.example",
        ],
    ),
    (10, &["paaaaaaa.t.example", "paaaaaab.t.example"]),
];

#[test]
fn a_resolver_and_a_mail_server_are_not_cut_for_the_names_of_others() {
    let authority = end([198, 51, 100, 53].into(), 53);
    let service = end(LOCAL, 53);
    for (qtype, names) in &NAMES[..2] {
        for mail in [false, true] {
            let mut bench = bench();
            if mail {
                let (client, server) = (end(C2, 50_000), end(LOCAL, 25));
                bench.feed(&hello(START, client, server, b""));
                bench.feed(&[answer(10, server, client, 0, b"220 mx.example ESMTP\r\n")]);
            }
            for (n, name) in names.iter().enumerate() {
                let n = 100 + n as i64 * 10;
                if !mail {
                    let client = end(C2, 50_000);
                    bench.feed(&[question(n, (client, service), *qtype, "www.example")]);
                    let mut answer = question(n + 1, (service, client), *qtype, "www.example");
                    answer.bytes[44] = 0x81;
                    bench.feed(&[answer]);
                }
                bench.feed(&[question(n + 2, (end(LOCAL, 40_000), authority), *qtype, name)]);
            }
            only_suspected(&bench, "who asks for others");
        }
        // A question that nobody answered makes no resolver of a host.
        let mut bench = bench();
        bench.feed(&[question(0, (end(C2, 50_000), service), 1, "www.example")]);
        bench.feed(&hello(START, end(C2, 50_000), end(LOCAL, 25), b""));
        for (n, name) in names.iter().enumerate() {
            let pair = (end(LOCAL, 40_000), authority);
            bench.feed(&[question(100 + n as i64, pair, *qtype, name)]);
        }
        assert_eq!(bench.orders().len(), 1);
    }
}

#[test]
fn an_implant_is_cut_again_by_its_next_flow_though_its_controller_repeats_its_words() {
    let mut bench = Bench::with(policy("dry-run", CUT_ALL), &[], Limits::default());
    for n in 0..3_u16 {
        let start = at(i64::from(n) * 1000);
        let (client, server) =
            (end(LOCAL, 40_000 + n), end([203, 0, 113, n as u8 + 9].into(), 443));
        bench.feed(&hello(start, client, server, &NINE));
        let heard =
            tcp(start.after(Span::from_millis(9)), server, client, PSH_ACK, 901, 125, &NINE);
        bench.feed(&[heard]);
    }
    let malicious = bench.findings().iter().filter(|f| f.grade == Grade::Malicious).count();
    assert_eq!(malicious, 3);
}

/// A SYN, its answer and the acknowledgement.
fn opened(client: SocketAddrV4, server: SocketAddrV4) -> Vec<Made> {
    let mut frames = hello(START, client, server, b"");
    frames.truncate(3);
    frames
}

const CLIENT: SocketAddrV4 = SocketAddrV4::new(LOCAL, 41_822);
const SERVER: SocketAddrV4 = SocketAddrV4::new(C2, 443);

fn cut_after(why: &str, frames: &[Made]) {
    let mut bench = bench();
    bench.feed(&opened(CLIENT, SERVER));
    bench.feed(frames);
    assert_eq!(
        bench.orders().len(),
        1,
        "{why}: {:#?} {:?}",
        bench.every_finding(),
        bench.engine.summary()
    );
}

#[test]
fn no_trick_of_tcp_hides_a_header() {
    let own = |n, flags, seq, said: &[u8]| tcp(at(n), CLIENT, SERVER, flags, seq, 901, said);
    let theirs = |n, flags, seq, said: &[u8]| tcp(at(n), SERVER, CLIENT, flags, seq, 101, said);
    let whole = || own(50, PSH_ACK, 101, &PROBE);
    cut_after("a reset that a stranger forged", &[theirs(5, 4, 7, b""), whole()]);
    cut_after("a reset with the right number", &[theirs(5, 0x14, 901, b""), whole()]);
    cut_after("a reset of our own that went nowhere", &[own(5, 4, 101, b""), whole()]);
    cut_after(
        "both closed, and said",
        &[own(5, 0x11, 101, b""), theirs(6, 0x11, 901, b""), whole()],
    );
    cut_after("a SYN in the middle", &[theirs(5, 2, 77, b""), whole()]);
    cut_after("a SYN-ACK with other numbers", &[theirs(5, 0x12, 5000, b""), whole()]);
    cut_after("urgent", &[own(5, 0x38, 101, &PROBE)]);
    cut_after("no flags", &[own(5, 0, 101, &PROBE)]);
    cut_after("FIN with it", &[own(5, 0x19, 101, &PROBE)]);
    cut_after("far beyond the window first", &[own(5, PSH_ACK, 0x7000_0000, &[7; 90]), whole()]);
    cut_after("far behind first", &[own(5, PSH_ACK, 0x9000_0000, &[7; 90]), whole()]);
    let bytes: Vec<Made> = (0..16)
        .rev()
        .map(|n: u32| own(60 - i64::from(n), PSH_ACK, 101 + n, &PROBE[n as usize..][..1]))
        .collect();
    cut_after("backwards by the byte", &bytes);
    let forth: Vec<Made> = (0..16)
        .map(|n: u32| own(i64::from(n) + 9, PSH_ACK, 101 + n, &PROBE[n as usize..][..1]))
        .collect();
    cut_after("by the byte", &forth);
}

#[test]
fn bytes_that_the_far_end_never_takes_hide_no_header() {
    let own = |n, seq, said: &[u8]| tcp(at(n), CLIENT, SERVER, PSH_ACK, seq, 901, said);
    let mut wrong = own(5, 101, b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    // A wrong checksum, or too few hops to arrive: the far end sees only the second.
    wrong.bytes[50] ^= 0x55;
    let mut bench = bench();
    bench.feed(&opened(CLIENT, SERVER));
    bench.feed(&[wrong, own(6, 101, &PROBE)]);
    let told = !bench.findings().is_empty();
    let counted = format!("{:?}", bench.engine.summary());
    assert!(told || counted.contains("overlap"), "neither told nor counted: {counted}");
}

#[test]
fn more_holes_than_are_kept_are_counted() {
    let mut bench = bench();
    bench.feed(&opened(CLIENT, SERVER));
    let odd: Vec<Made> = [1, 3, 5, 7, 9, 11, 13, 15, 0, 2, 4, 6, 8, 10, 12, 14]
        .map(|n: u32| {
            tcp(
                at(i64::from(n) + 9),
                CLIENT,
                SERVER,
                PSH_ACK,
                101 + n,
                901,
                &PROBE[n as usize..][..1],
            )
        })
        .into();
    bench.feed(&odd);
    assert!(bench.findings().is_empty());
    assert_eq!(bench.engine.summary().unparsed.get("head_gap"), Some(&1));
}

#[test]
fn a_stranger_with_any_number_of_addresses_makes_a_bounded_number_of_findings_and_starves_no_proof()
{
    let mut bench = bench();
    let flood: Vec<Made> = (0..5000_u32)
        .map(|n| {
            let from = end(Ipv4Addr::from_bits(0xC633_0000 | n), 5000);
            udp(at(10 + i64::from(n) / 10), from, end(LOCAL, 9), &PROBE)
        })
        .collect();
    bench.feed(&flood);
    assert_eq!(bench.findings().len(), 1000);
    assert_eq!(bench.engine.summary().evicted.get("withheld-findings"), Some(&4000));
    let mut own = PROBE;
    // Metasploit's probe under another cipher setting (plugx.md, V10).
    own[4..]
        .copy_from_slice(&[0xE5, 0xB3, 0x32, 0xE3, 0x7C, 0x90, 0x66, 0x13, 0xEC, 0xAE, 0xC1, 0x4C]);
    bench.feed(&[udp(at(2000), end(LOCAL, 40_000), end(C2, 53_000), &own)]);
    assert_eq!(bench.orders().len(), 1);
}

#[test]
fn a_listed_name_is_sighted_however_it_is_written() {
    let message = |name: &[u8], count: u8| {
        let mut message = vec![0x12, 0x34, 1, 0, 0, count, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(name);
        message.extend_from_slice(&[0, 1, 0, 1]);
        message
    };
    let evil = b"\x04eViL\x07exAMple\0";
    let mut opt = message(evil, 1);
    opt[11] = 1;
    opt.extend_from_slice(&[0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
    let resolver = end([198, 51, 100, 53].into(), 53);
    for (why, question) in [("mixed case", message(evil, 1)), ("EDNS", opt)] {
        let mut bench = Bench::with(
            policy("enforce", crate::forge::DECIDE),
            &["evil.example"],
            Limits::default(),
        );
        bench.feed(&[udp(START, end(LOCAL, 40_000), resolver, &question)]);
        assert!(!bench.findings().is_empty(), "{why}");
        // Over TCP, a byte a segment.
        let mut bench = Bench::with(
            policy("enforce", crate::forge::DECIDE),
            &["evil.example"],
            Limits::default(),
        );
        bench.feed(&opened(end(LOCAL, 40_001), resolver));
        let framed =
            [&u16::try_from(question.len()).unwrap().to_be_bytes()[..], &question].concat();
        let bytes: Vec<Made> = framed
            .iter()
            .enumerate()
            .map(|(n, byte)| {
                let seq = 101 + n as u32;
                tcp(at(10 + n as i64), end(LOCAL, 40_001), resolver, PSH_ACK, seq, 901, &[*byte])
            })
            .collect();
        bench.feed(&bytes);
        assert!(!bench.findings().is_empty(), "{why} over TCP");
    }
    for text in [
        "GET / HTTP/1.1\r\nHost: EVIL.example\r\n\r\n",
        "GET / HTTP/1.1\r\nhOsT:\tevil.example.:8080 \r\n\r\n",
        "GET / HTTP/1.1\nHost:evil.example\n\n",
        "GET http://evil.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET hTTp://u:p@evil.example:80/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "M-SEARCH / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\n\r\nGET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    ] {
        let mut bench = Bench::with(
            policy("enforce", crate::forge::DECIDE),
            &["evil.example"],
            Limits::default(),
        );
        bench.feed(&hello(START, end(LOCAL, 40_000), end(C2, 80), text.as_bytes()));
        assert!(!bench.findings().is_empty(), "{text:?}");
    }
}
