//! What each protocol tells in clear, and the tunnels through proxies.

use super::tape::Tape;
use super::*;

const CONNECT: &[u8] = b"CONNECT proxied.example:443 HTTP/1.1\r\nHost: proxied.example:443\r\n\r\n";
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
const GREETING_5: &[u8] = &[5, 2, 0, 2];
const REQUEST_5: &[u8] = b"\x05\x01\x00\x03\x0dproxied.hosts\x01\xbb";
const REPLY_5: &[u8] = &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0];

/// A TLS 1.2 server hello and a certificate chain of one, in one record each.
fn server_flight(version: u16, certificate: &[u8]) -> Vec<u8> {
    let handshake = |kind: u8, body: &[u8]| {
        let len = (body.len() as u32).to_be_bytes();
        let message = [&[kind, len[1], len[2], len[3]][..], body].concat();
        [&[22, 3, 3][..], &(message.len() as u16).to_be_bytes(), &message].concat()
    };
    let mut hello = vec![3, 3];
    hello.extend([9; 32]);
    hello.extend([0, 0xC0, 0x2F, 0]);
    if version == 0x0304 {
        hello.extend([0, 6, 0, 43, 0, 2, 3, 4]);
    } else {
        hello.extend([0, 0]);
    }
    let sized = |body: &[u8]| [&(body.len() as u32).to_be_bytes()[1..], body].concat();
    [handshake(2, &hello), handshake(11, &sized(&sized(certificate)))].concat()
}

#[test]
fn a_server_hello_and_the_certificate_of_tls_12_are_told_however_they_are_cut() {
    let certificate = [0x30, 0x82, 7, 0xD0].into_iter().chain([5; 2000]).collect::<Vec<u8>>();
    let flight = server_flight(0x0303, &certificate);
    for most in [1, 100, 1460, 5000] {
        let mut tape = Tape::open();
        for (n, piece) in flight.chunks(most).enumerate() {
            tape.server(n * most, piece);
        }
        assert_eq!(
            tape.only(&["serverhello", "certificate"]),
            ["serverhello 0303", "certificate 2004"],
            "{most}"
        );
    }
    let mut tape = Tape::open();
    tape.server(0, &server_flight(0x0304, &certificate));
    assert_eq!(tape.only(&["serverhello", "certificate"]), ["serverhello 0304"]);
}

#[test]
fn behind_a_connect_both_directions_begin_anew() {
    let hello = client_hello("inner.example", 100);
    let flight = server_flight(0x0304, b"");
    let plugx: Vec<u8> = (0x80..0x90).collect();
    for whole in [true, false] {
        let mut tape = Tape::open();
        if whole {
            tape.client(0, CONNECT);
            tape.server(0, ESTABLISHED);
            tape.client(CONNECT.len(), &hello);
        } else {
            let client = [CONNECT, &hello].concat();
            for (at, byte) in client.iter().enumerate() {
                tape.client(at, &[*byte]);
                if at == CONNECT.len() {
                    for (at, byte) in ESTABLISHED.iter().enumerate() {
                        tape.server(at, &[*byte]);
                    }
                }
            }
        }
        tape.server(ESTABLISHED.len(), &flight);
        let told = tape.only(&["request", "response", "hello", "serverhello", "name"]);
        let request = "request Remote CONNECT proxied.example:443 +0";
        assert_eq!(tape.count(request), 1, "{told:?}");
        assert_eq!(tape.count("response Local 200 +0"), 1, "{told:?}");
        for what in ["hello inner.example", "serverhello 0304", "name proxied.example Host"] {
            assert_eq!(tape.count(what), 1, "{told:?}");
        }
        assert_eq!(tape.count("name inner.example Sni"), 1, "{told:?}");
        assert!(tape.heads.iter().any(|(toward, head)| {
            *toward == Toward::Local && flight.starts_with(head) && !head.is_empty()
        }));
    }
    // The same with another protocol inside, request and tunnelled bytes in one segment.
    let mut tape = Tape::open();
    tape.client(0, &[CONNECT, &plugx].concat());
    tape.server(0, &[ESTABLISHED, &plugx].concat());
    for toward in [Toward::Remote, Toward::Local] {
        assert!(tape.heads.contains(&(toward, plugx.clone())), "{:?}", tape.heads);
    }
}

#[test]
fn a_refused_connect_opens_nothing_and_the_next_one_does() {
    let refused = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 4\r\n\r\nwhy?";
    let mut tape = Tape::open();
    tape.client(0, CONNECT);
    tape.server(0, refused);
    tape.client(CONNECT.len(), CONNECT);
    tape.server(refused.len(), ESTABLISHED);
    tape.client(2 * CONNECT.len(), &client_hello("inner.example", 0));
    tape.server(refused.len() + ESTABLISHED.len(), b"\x99inner");
    assert_eq!(tape.count("request Remote CONNECT"), 2);
    assert_eq!(tape.only(&["response"]), ["response Local 407 +4", "response Local 200 +0"]);
    assert_eq!(tape.count("hello inner.example"), 1);
    assert_eq!(tape.heads.last().unwrap(), &(Toward::Local, b"\x99inner".to_vec()));
}

#[test]
fn a_tunnel_whose_answer_is_shown_before_its_request_is_read_too() {
    let mut tape = Tape::open();
    tape.server(0, ESTABLISHED);
    tape.client(0, CONNECT);
    tape.server(ESTABLISHED.len(), b"\x99inner");
    assert_eq!(tape.heads.last().unwrap(), &(Toward::Local, b"\x99inner".to_vec()));
}

#[test]
fn behind_a_socks_negotiation_both_directions_begin_anew() {
    let hello = client_hello("inner.example", 0);
    let password = b"\x01\x04user\x04word";
    let four = b"\x04\x01\x01\xbb\x00\x00\x00\x01me\x00proxied.hosts\x00".to_vec();
    type Said = Vec<Vec<u8>>;
    let cases: [(Said, Said); 3] = [
        (vec![GREETING_5.to_vec(), REQUEST_5.to_vec()], vec![vec![5, 0], REPLY_5.to_vec()]),
        (
            vec![GREETING_5.to_vec(), password.to_vec(), REQUEST_5.to_vec()],
            vec![vec![5, 2], vec![1, 0], REPLY_5.to_vec()],
        ),
        (vec![four], vec![vec![0, 0x5A, 0, 0, 0, 0, 0, 0]]),
    ];
    for (asked, answered) in cases {
        let mut tape = Tape::new();
        tape.port = 1080;
        tape.syn();
        let (mut client, mut server) = (0, 0);
        for (ask, answer) in asked.iter().zip(&answered) {
            tape.client(client, ask);
            client += ask.len();
            tape.server(server, answer);
            server += answer.len();
        }
        tape.client(client, &hello);
        tape.server(server, &server_flight(0x0304, b""));
        assert_eq!(tape.count("name proxied.hosts Socks"), 1, "{:?}", tape.told);
        assert_eq!(tape.count("hello inner.example"), 1, "{:?}", tape.told);
        assert_eq!(tape.count("serverhello 0304"), 1, "{:?}", tape.told);
        assert!(tape.heads.contains(&(Toward::Remote, hello.clone())));
    }
}

#[test]
fn pipelined_and_later_heads_are_told_each() {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n").into_bytes();
    let post = b"POST /p HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc".to_vec();
    let mut tape = Tape::open();
    let first = [get("/1"), post, get("/2")].concat();
    tape.client(0, &first);
    let later = get("/3");
    tape.client(first.len(), &later[..20]);
    tape.client(first.len() + 20, &later[20..]);
    assert_eq!(
        tape.only(&["request"])
            .iter()
            .map(|told| told.split(' ').nth(3).unwrap())
            .collect::<Vec<_>>(),
        ["/1", "/p", "/2", "/3"]
    );
    let answers = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 304 Not Modified\r\n\r\n";
    tape.server(0, answers);
    tape.server(answers.len(), b"HTTP/1.0 500 No\r\n\r\nbody");
    let status: Vec<_> =
        tape.only(&["response"]).iter().map(|told| told.split(' ').nth(2).unwrap()).collect();
    assert_eq!(status, ["100", "200", "304", "500"]);
}

#[test]
fn a_head_that_is_sent_again_is_told_once() {
    let get = b"GET /1 HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let answer = b"HTTP/1.1 200 OK\r\n\r\nbody";
    let mut tape = Tape::open();
    for _ in 0..3 {
        tape.client(0, get);
        tape.server(0, answer);
    }
    assert_eq!((tape.count("request"), tape.count("response")), (1, 1));
    for _ in 0..2 {
        tape.client(get.len(), get);
        tape.client(0, get);
    }
    assert_eq!(tape.count("request"), 2);
}

#[test]
fn a_later_head_whose_end_is_lost_hides_none_behind_it() {
    let head = |n: u32| format!("HTTP/1.1 200 OK\r\nX-Number: {n}\r\n\r\n").into_bytes();
    let len = head(1).len();
    let mut tape = Tape::open();
    tape.server(0, &head(1));
    tape.server(len, &head(2)[..20]);
    // The end of the second is not captured.
    tape.server(2 * len, &head(3));
    tape.server(3 * len, &head(4));
    assert_eq!(tape.count("response"), 3, "{:?}", tape.told);
}

#[test]
fn a_body_is_told_again_as_long_as_somebody_wants_more() {
    let head = b"POST /up HTTP/1.1\r\nHost: a.example\r\nContent-Length: 9999\r\n\r\n";
    let mut tape = Tape::open();
    tape.body_appetite = Appetite::More;
    tape.client(0, head);
    tape.client(head.len() + 10, &[2; 10]);
    tape.client(head.len(), &[1; 10]);
    tape.body_appetite = Appetite::Enough;
    tape.client(head.len() + 20, &[3; 10]);
    tape.client(head.len() + 30, &[3; 10]);
    assert_eq!(
        tape.only(&["request"]),
        [
            "request Remote POST /up +0",
            "request Remote POST /up +20",
            "request Remote POST /up +30"
        ]
    );
    assert_eq!(tape.count("head"), 1);
    // A body never goes beyond what a head may hold.
    let mut tape = Tape::with(Limits { head_bytes: 500, ..Limits::default() });
    tape.body_appetite = Appetite::More;
    for n in 0..40 {
        let piece = if n == 0 { &head[..] } else { &[b'x'; 50] };
        tape.client(if n == 0 { 0 } else { head.len() + 50 * (n - 1) }, piece);
    }
    assert_eq!(
        tape.only(&["request"]).last().unwrap(),
        &format!("request Remote POST /up +{}", 500 - head.len())
    );
}

#[test]
fn any_method_in_capitals_makes_a_request_and_other_lines_do_not() {
    for (line, is_request) in [
        ("BREW /pot HTTP/1.1\r\n\r\n", true),
        ("M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n\r\n", true),
        ("CCM_POST /x HTTP/1.1\r\n\r\n", true),
        ("EHLO mail.example\r\n\r\n", false),
        ("GET /x\r\n\r\n", false),
        ("get / HTTP/1.1\r\n\r\n", false),
    ] {
        let mut tape = Tape::open();
        tape.client(0, line.as_bytes());
        assert_eq!(tape.count("request"), usize::from(is_request), "{line}");
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

#[test]
fn dns_over_tcp_is_read_however_it_is_cut() {
    let names = ["one.example", "two.example", "three.example"];
    let questions: Vec<u8> = names.iter().flat_map(|name| framed(&dns_question(name))).collect();
    let answers: Vec<u8> = names.iter().flat_map(|name| framed(&dns_answer(name, 9))).collect();
    for most in [1, 2, 3, 7, 30, 50, 1000] {
        let mut tape = Tape::new();
        tape.port = 53;
        tape.syn();
        let mut pieces: Vec<_> = questions.chunks(most).enumerate().collect();
        for pair in pieces.chunks_mut(2) {
            pair.reverse();
        }
        for (n, piece) in pieces {
            tape.client(n * most, piece);
        }
        for (n, piece) in answers.chunks(most).enumerate() {
            tape.server(n * most, piece);
        }
        for name in names {
            assert_eq!(tape.count(&format!("query {name} 1")), 1, "{most}: {:?}", tape.told);
            assert_eq!(tape.count(&format!("answer {name} 203.0.113.9")), 1, "{most}");
        }
        assert_eq!(tape.count("message Remote query"), 3);
        assert_eq!(tape.count("message Local response"), 3);
    }
}

#[test]
fn dns_over_tcp_finds_its_way_again_behind_what_is_no_message() {
    let mut tape = Tape::new();
    tape.port = 53;
    tape.syn();
    tape.client(0, &[0xFF; 700]);
    tape.client(700, &framed(&dns_question("behind.example")));
    assert_eq!(tape.count("query behind.example"), 1, "{:?}", tape.told);
    // The capture lost a segment; the stream runs far ahead.
    tape.client(100_000, &[0xFF; 10]);
    tape.client(100_010, &framed(&dns_question("later.example")));
    assert_eq!(tape.count("query later.example"), 1, "{:?}", tape.told);
}

#[test]
fn other_protocols_on_the_port_of_dns_are_read_too() {
    let request = b"GET /a HTTP/1.1\r\nHost: c2.example\r\n\r\n";
    for (stream, what) in [
        (&client_hello("c2.example", 0)[..], "name c2.example Sni"),
        (request, "name c2.example Host"),
        (b"SSH-2.0-x\r\n", "ssh Remote SSH-2.0-x"),
    ] {
        for most in [1, 5, 5000] {
            let mut tape = Tape::new();
            tape.port = 53;
            tape.syn();
            for (n, piece) in stream.chunks(most).enumerate() {
                tape.client(n * most, piece);
            }
            assert_eq!(tape.count(what), 1, "{most}: {:?}", tape.told);
        }
    }
}

#[test]
fn only_the_chain_that_begins_at_the_question_binds_addresses() {
    let mut lab = Lab::new(Limits::default());
    lab.udp(LOCAL, 4001, RESOLVER, 53, &dns_question("www.example"));
    let mut answer = dns_answer("www.example", 9);
    // One more address, of a name that nobody asked for.
    answer[7] = 3;
    answer.extend(dns_name("bank.example"));
    answer.extend([0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 203, 0, 113, 77]);
    lab.udp(RESOLVER, 53, LOCAL, 4001, &answer);
    assert_eq!(lab.count("answer www.example 203.0.113.9"), 1, "{:?}", lab.told);
    assert_eq!(lab.count("answer"), 1, "{:?}", lab.told);
    assert_eq!(lab.count("message"), 2);
}

#[test]
fn ssh_ends_say_who_they_are_and_what_they_offer() {
    let list = |text: &str| [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
    let mut body = vec![6, 20];
    body.extend([7; 16]);
    for text in ["kex", "key", "enc-c", "enc-s", "mac-c", "mac-s", "none-c", "none-s", "", ""] {
        body.extend(list(text));
    }
    body.extend([0; 11]);
    let packet = [&(body.len() as u32).to_be_bytes()[..], &body].concat();
    for most in [1, 9, 2000] {
        let mut tape = Tape::open();
        let client = [b"SSH-2.0-Client_1\r\n", &packet[..]].concat();
        for (n, piece) in client.chunks(most).enumerate() {
            tape.client(n * most, piece);
        }
        tape.server(0, b"SSH-2.0-Server\n");
        tape.server(15, &packet);
        assert_eq!(
            tape.only(&["ssh"]),
            [
                "ssh Remote SSH-2.0-Client_1",
                // MD5 of "kex;enc-c;mac-c;none-c" and of "kex;enc-s;mac-s;none-s".
                "ssh Remote 23b66998c83752dd080f9af680c70e36",
                "ssh Local SSH-2.0-Server",
                "ssh Local 9695dc84de813b73739aac92e37c9ab1",
            ],
            "{most}"
        );
    }
}

#[test]
fn each_echo_is_told_with_what_it_carries() {
    let mut lab = Lab::new(Limits::default());
    for n in 0..10 {
        lab.packet(ip(LOCAL, REMOTE, 1, &[8, 0, 0, 0, 0x12, 0x34, 0, n, b'x', b'y']));
        lab.packet(ip(REMOTE, LOCAL, 1, &[0, 0, 0, 0, 0x12, 0x34, 0, n, b'x', b'y']));
    }
    lab.packet(ip(LOCAL, REMOTE, 1, &[8, 0, 0, 0, 0, 1, 0, 0]));
    lab.packet(ip(LOCAL, REMOTE, 1, &[13, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4]));
    assert_eq!(lab.count("echo Remote request 4660 "), 10, "{:?}", lab.told);
    assert_eq!(lab.count("echo Local reply 4660 "), 10);
    assert_eq!(lab.count("echo Local reply 4660 9 2"), 1);
    assert_eq!((lab.count("echo Remote request 1 0 0"), lab.count("echo")), (1, 21));
    assert_eq!(lab.count("head Remote"), 6);
}
