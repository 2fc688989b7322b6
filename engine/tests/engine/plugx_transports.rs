//! PlugX through the whole engine: every transport, from frames to cuts.

use crate::forge::{
    Bench, C2, DECIDE, LOCAL, Made, RESOLVER, START, answer, end, policy, query, tcp, udp,
};
use crate::plugx_forge::{
    Build, Cipher, Dice, base64, datagram_of_2012, datagram_of_2015, honest, letters, txt_question,
};
use sekisho_engine::packs;
use sekisho_engine::rules::RulesBuilder;
use sekisho_engine::{Input, Limits};
use sekisho_schema::pack::RulePack;
use sekisho_schema::sealed::Local;
use sekisho_schema::{Finding, Grade, Span, Timestamp, Verified};
use std::net::{Ipv4Addr, SocketAddrV4};

const SYN: u8 = 2;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;
const PSH_ACK: u8 = 0x18;

/// A TCP conversation written segment by segment.
struct Talk {
    at: Timestamp,
    client: SocketAddrV4,
    server: SocketAddrV4,
    /// Next sequence numbers of client and server.
    next: [u32; 2],
    frames: Vec<Made>,
}

impl Talk {
    fn open(at: Timestamp, client: SocketAddrV4, server: SocketAddrV4) -> Self {
        let mut talk = Self { at, client, server, next: [101, 901], frames: Vec::new() };
        talk.push(client, server, SYN, (100, 0), &[]);
        talk.push(server, client, SYN_ACK, (900, 101), &[]);
        talk.push(client, server, ACK, (101, 901), &[]);
        talk
    }

    fn outward(port: u16) -> Self {
        Self::open(START, end(LOCAL, 41_822), end(C2, port))
    }

    fn push(
        &mut self,
        from: SocketAddrV4,
        to: SocketAddrV4,
        flags: u8,
        (seq, ack): (u32, u32),
        payload: &[u8],
    ) {
        self.at = self.at.after(Span::from_millis(1));
        self.frames.push(tcp(self.at, from, to, flags, seq, ack, payload));
    }

    fn say(&mut self, payload: &[u8]) {
        let (from, to, [seq, ack]) = (self.client, self.server, self.next);
        self.push(from, to, PSH_ACK, (seq, ack), payload);
        self.next[0] += payload.len() as u32;
    }

    fn hear(&mut self, payload: &[u8]) {
        let (from, to, [ack, seq]) = (self.server, self.client, self.next);
        self.push(from, to, PSH_ACK, (seq, ack), payload);
        self.next[1] += payload.len() as u32;
    }
}

/// A packet of any IP protocol.
fn packet(at: Timestamp, proto: u8, src: Ipv4Addr, dst: Ipv4Addr, body: &[u8]) -> Made {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    bytes.extend_from_slice(&((20 + body.len()) as u16).to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0x40, 0, 64, proto, 0, 0]);
    bytes.extend_from_slice(&src.octets());
    bytes.extend_from_slice(&dst.octets());
    bytes.extend_from_slice(body);
    Made { at, wire_len: bytes.len() as u32, bytes }
}

fn echo(at: Timestamp, src: Ipv4Addr, dst: Ipv4Addr, kind: u8, payload: &[u8]) -> Made {
    packet(at, 1, src, dst, &[&[kind, 0, 0, 0, 0, 7, 0, 1], payload].concat())
}

fn after(seconds: i64) -> Timestamp {
    START.after(Span::from_secs(seconds))
}

fn found(frames: &[Made]) -> Bench {
    let mut bench = Bench::new("enforce", "", &[]);
    bench.feed(frames);
    bench
}

/// Detector, grade and frame of every PlugX finding.
fn plugx(bench: &Bench) -> Vec<(&str, Grade, u64)> {
    bench
        .findings()
        .into_iter()
        .filter(|finding| finding.detector.starts_with("plugx."))
        .map(|finding| (finding.detector.as_str(), finding.grade, finding.frame))
        .collect()
}

fn last<'a>(bench: &'a Bench, detector: &str) -> &'a Finding {
    bench.findings().into_iter().rfind(|finding| finding.detector == detector).unwrap()
}

fn post(target: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: c2.example\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

const HEAD: &str = "POST /update?id=00000001 HTTP/1.1\r\nAccept: */*\r\nQWER3: 0\r\nQWER1: 0\r\n\
    QWER4: 61456\r\nQWER2: 1\r\nUser-Agent: Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 5.1;SV1;\r\n\
    Host: c2.example\r\nContent-Length: 0\r\nCache-Control: no-cache\r\n\r\n";

#[test]
fn every_setting_is_found_and_cut_at_its_first_packet_on_every_transport() {
    let mut dice = Dice(0x5E7);
    for (name, build) in Build::every() {
        let message = build.packed(dice.key(), 1, b"WEB-1 www-data");
        let mut stream = Talk::outward(8080);
        stream.say(&message);
        let mut http = Talk::outward(8080);
        http.say(&post("/update?id=00000001", &message));
        let mut proxied = Talk::open(START, end(LOCAL, 41_822), end(C2, 3128));
        proxied.say(&post("http://c2.example/update?id=00000001", &message));
        let mut cookie = Talk::outward(8080);
        let text = base64(&build.cookie(dice.key(), [0, 1, 20_130_923, 0xF010]));
        cookie.say(
            format!("GET /0A1B2C3D4E5F60718293A4B5 HTTP/1.1\r\nCookie: {text}\r\nHost: c\r\n\r\n")
                .as_bytes(),
        );
        for (detector, frames, frame) in [
            ("plugx.tcp", stream.frames, 4),
            ("plugx.http", http.frames, 4),
            ("plugx.http", proxied.frames, 4),
            ("plugx.cookie", cookie.frames, 4),
            ("plugx.udp", vec![udp(START, end(LOCAL, 4000), end(C2, 9000), &message)], 1),
            ("plugx.udp", vec![udp(START, end(LOCAL, 4000), end(C2, 53), &message)], 1),
            ("plugx.rawip", vec![packet(START, 255, LOCAL, C2, &message)], 1),
            ("plugx.rawip", vec![echo(START, LOCAL, C2, 8, &message)], 1),
        ] {
            let bench = found(&frames);
            let told = plugx(&bench);
            assert!(
                told.contains(&(detector, Grade::Malicious, frame)),
                "{name}, {detector}: {told:?}"
            );
            assert_eq!(bench.orders().len(), 1, "{name}, {detector}");
        }
    }
}

#[test]
fn a_split_http_head_and_a_split_body_are_found_when_they_are_whole() {
    let mut talk = Talk::outward(80);
    for byte in HEAD.as_bytes() {
        talk.say(&[*byte]);
    }
    let bench = found(&talk.frames);
    assert_eq!(plugx(&bench), [("plugx.http", Grade::Malicious, 3 + HEAD.len() as u64)]);

    let message = Build::of("T1").packed(77, 0x3005, &b"customers ".repeat(20));
    let whole = post("/update?id=00000001", &message);
    let head = whole.len() - message.len();
    let mut talk = Talk::outward(80);
    for piece in
        [&whole[..20], &whole[20..head], &whole[head..head + 9], &whole[head + 9..head + 16]]
    {
        talk.say(piece);
    }
    talk.say(&whole[head + 16..]);
    let bench = found(&talk.frames);
    // At the sixteenth byte of the body: Content-Length says how long the message is.
    assert_eq!(plugx(&bench), [("plugx.http", Grade::Malicious, 7)]);
    assert!(last(&bench, "plugx.http").explanation.contains("file theft in progress"));
}

#[test]
fn a_later_request_of_a_connection_is_found() {
    let mut talk = Talk::outward(80);
    talk.say(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    talk.hear(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    talk.say(HEAD.as_bytes());
    assert_eq!(plugx(&found(&talk.frames)), [("plugx.http", Grade::Malicious, 6)]);
}

#[test]
fn a_message_behind_connect_and_socks_is_found_at_its_packet() {
    let message = Build::of("T3-20140613").empty(0x1234_5678, 0);
    let mut connect = Talk::open(START, end(LOCAL, 41_822), end(C2, 3128));
    connect.say(b"CONNECT c2.example:443 HTTP/1.1\r\nHost: c2.example:443\r\n\r\n");
    connect.hear(b"HTTP/1.1 200 Connection established\r\n\r\n");
    connect.say(&message);
    let mut socks5 = Talk::open(START, end(LOCAL, 41_822), end(C2, 1080));
    socks5.say(&[5, 1, 0]);
    socks5.hear(&[5, 0]);
    socks5.say(&[5, 1, 0, 1, 198, 51, 100, 7, 1, 187]);
    socks5.hear(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    socks5.say(&message);
    for (name, talk, frame) in [("CONNECT", connect, 6), ("SOCKS5", socks5, 8)] {
        assert_eq!(plugx(&found(&talk.frames)), [("plugx.tcp", Grade::Malicious, frame)], "{name}");
    }
}

#[test]
fn the_first_four_segments_of_an_unknown_stream_are_examined_and_no_fifth() {
    let message = Build::of("T1").empty(0x1234_5678, 0);
    let mut dice = Dice(44);
    for before in 0..6 {
        let mut talk = Talk::outward(5432);
        for _ in 0..before {
            talk.say(&dice.bytes(40));
        }
        talk.say(&message);
        let expected: &[_] =
            if before < 4 { &[("plugx.tcp", Grade::Malicious, 4 + before)] } else { &[] };
        assert_eq!(plugx(&found(&talk.frames)), expected, "{before} segments before");
    }
}

#[test]
fn a_later_message_in_pieces_is_found_when_its_header_is_whole() {
    let message = Build::of("T1").empty(0x1234_5678, 0);
    let mut talk = Talk::outward(5432);
    talk.say(&[0xC7; 25]);
    for byte in message {
        talk.say(&[byte]);
    }
    assert_eq!(plugx(&found(&talk.frames)), [("plugx.tcp", Grade::Malicious, 20)]);
}

#[test]
fn a_session_that_began_before_the_agent_is_found_at_a_keep_alive() {
    let build = Build::of("T2-20140307");
    let (client, server) = (end(LOCAL, 41_822), end(C2, 443));
    let frames = [
        tcp(START, server, client, PSH_ACK, 7_000, 90_000, &Dice(3).bytes(1400)),
        tcp(after(1), client, server, PSH_ACK, 90_000, 8_400, &build.empty(0xAB, 2)),
    ];
    assert_eq!(plugx(&found(&frames)), [("plugx.tcp", Grade::Malicious, 2)]);
}

#[test]
fn theft_in_a_flow_that_was_found_is_told_once_more_at_its_header() {
    for (name, build) in Build::every() {
        let mut talk = Talk::outward(443);
        talk.say(&build.empty(1, 0));
        talk.hear(&build.empty(2, 1));
        talk.say(&build.packed(3, 1, b"WEB-1 www-data"));
        talk.say(&build.empty(4, 2));
        talk.hear(&build.packed(5, 0x3004, b"C:\\customers.csv"));
        talk.say(&build.packed(6, 0x3005, &b"customers ".repeat(100))[..500]);
        let mut bench = Bench::new("dry-run", "", &[]);
        bench.feed(&talk.frames);
        assert_eq!(
            plugx(&bench),
            [("plugx.tcp", Grade::Malicious, 4), ("plugx.tcp", Grade::Malicious, 9)],
            "{name}"
        );
        let theft = last(&bench, "plugx.tcp");
        assert!(theft.explanation.contains(": file theft in progress,"), "{}", theft.explanation);
    }
}

#[test]
fn a_cipher_that_only_a_pack_knows_is_found_with_that_pack() {
    let constants =
        Build { cipher: Cipher::Three([0x0133_7ABC, 0x2F1, 0x1E25, 0x44A3]), after_key: false };
    let message = constants.packed(0x1357_9BDF, 1, b"WEB-1 www-data");
    let mut stream = Talk::outward(5432);
    stream.say(&message);
    let mut http = Talk::outward(8080);
    http.say(&post("/update?id=00000001", &message));
    let frames = [
        stream.frames,
        http.frames,
        vec![udp(after(2), end(LOCAL, 4000), end(C2, 9000), &message)],
    ]
    .concat();
    assert_eq!(plugx(&found(&frames)), []);

    let (_, shipped) =
        packs::shipped_packs().into_iter().find(|(name, _)| *name == "plugx.toml").unwrap();
    let line = "ciphers = [\n  { id = \"T3-own\", kind = { t3 = { x1 = 0x1337ABC, x2 = 0x2F1, add = 0x1E25, sub = 0x44A3 } } },";
    let own =
        shipped.replace("name = \"plugx\"", "name = \"plugx-own\"").replace("ciphers = [", line);
    let mut rules = RulesBuilder::new();
    for text in [shipped, own.as_str()] {
        rules
            .add_pack(&Verified::locally(RulePack::parse(text).unwrap(), Local::Installed))
            .unwrap();
    }
    let mut bench = Bench::new("enforce", "", &[]);
    bench.input(Input::Rules(Box::new(rules.build()), START.before(Span::from_millis(1))));
    bench.feed(&frames);
    let mut told: Vec<_> = plugx(&bench).into_iter().map(|(detector, ..)| detector).collect();
    told.sort_unstable();
    assert_eq!(told, ["plugx.http", "plugx.tcp", "plugx.udp"]);
    assert_eq!(last(&bench, "plugx.tcp").rule.as_deref(), Some("plugx-own@2#plugx.tcp"));
    assert!(last(&bench, "plugx.udp").explanation.contains("cipher T3-own"));
}

#[test]
fn the_second_framed_datagram_cuts_and_the_first_does_not() {
    let mut bench = Bench::new("enforce", "", &[]);
    bench.feed(&[udp(START, end(LOCAL, 4000), end(C2, 443), &datagram_of_2015(3, 1))]);
    assert_eq!((plugx(&bench), bench.orders().len()), (vec![("plugx.udp", Grade::Suspect, 1)], 0));
    bench.feed(&[udp(after(12), end(LOCAL, 4000), end(C2, 443), &datagram_of_2015(4, 1))]);
    assert_eq!(plugx(&bench).last(), Some(&("plugx.udp", Grade::Malicious, 2)));
    assert_eq!(bench.orders().len(), 1);
}

const REST: &str = "ELEADFCKBPAEPIONNCMHLMKBJGILHAGFFKEPDECJBOADPHO.\
    MNBMGLLKAJFIKIPHEGJFOEDDICNBCAHPLOANFMKLPKEJJIOHDGIFNECDHCMBBAG.PKOPNEMJMOLDKIJNIC.bca.udnudfer.com";

#[test]
fn the_second_name_asked_of_the_own_resolver_cuts_the_host() {
    let ask = |seconds, id, first: &str| {
        let message = txt_question(id, &format!("{first}{REST}"));
        udp(after(seconds), end(LOCAL, 40_000), end(RESOLVER, 53), &message)
    };
    let bench = found(&[
        ask(0, 1, "PEOJNOOBAAHDMKNG"),
        ask(1, 2, "PEOJNOOBAAHDMKNG"),
        ask(2, 3, "JJIOHDOBJEIEIBJJ"),
    ]);
    assert_eq!(plugx(&bench), [("plugx.dns", Grade::Malicious, 3)]);
    assert_eq!(bench.engine.held().containments.len(), 1);
}

#[test]
fn a_dead_drop_arms_and_what_it_told_is_watched_by_name_but_neither_cuts() {
    let told = [&[4, 0, 0x50, 0][..], b"drop.c2.example"].concat();
    let page = format!("<p>DZKS{}DZJS</p>", letters(&told));
    let mut talk = Talk::open(START, end(LOCAL, 41_822), end([198, 51, 100, 7].into(), 80));
    talk.say(b"GET /p/udom/ HTTP/1.1\r\nHost: code.example\r\n\r\n");
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n",
        page.len()
    );
    talk.hear(head.as_bytes());
    talk.hear(page.as_bytes());
    let mut frames = talk.frames;
    frames.push(query(after(59), "drop.c2.example"));
    frames.push(answer(after(60), "drop.c2.example", [203, 0, 113, 77].into()));
    frames.extend(
        Talk::open(after(61), end(LOCAL, 41_900), end([203, 0, 113, 77].into(), 443)).frames,
    );
    let more =
        "[[decide]]\ndetector = \"plugx.*\"\ngrade = \"suspect\"\nlevel = 5\nlease = \"1h\"\n";
    let mut bench =
        Bench::with(policy("enforce", &format!("{more}{DECIDE}")), &[], Limits::default());
    bench.feed(&frames);
    assert_eq!(
        plugx(&bench),
        [("plugx.deaddrop", Grade::Suspect, 6), ("plugx.deaddrop", Grade::Suspect, 9)]
    );
    assert!(bench.orders().is_empty(), "a detector that scores never cuts");
}

#[test]
fn a_sweep_of_the_local_network_is_told_at_the_third_host() {
    let mut frames = Vec::new();
    for n in 0..5_u8 {
        let there = end(Ipv4Addr::new(10, 77, 1, 20 + n), 1357);
        frames.push(tcp(
            after(i64::from(n)),
            end(LOCAL, 5000 + u16::from(n)),
            there,
            SYN,
            1,
            0,
            &[],
        ));
    }
    let bench = found(&frames);
    let told = plugx(&bench);
    assert_eq!(told.first(), Some(&("plugx.p2p", Grade::Suspect, 3)));
}

#[test]
fn strangers_cannot_cut_a_host_by_any_transport() {
    let message = Build::of("T1").empty(9, 0);
    let mut inward = Talk::open(START, end(C2, 50_000), end(LOCAL, 80));
    inward.say(&post("/upload", &message));
    inward.hear(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    inward.say(b"GET /upload HTTP/1.1\r\nHost: web-1\r\n\r\n");
    let ok = [&b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n"[..], &message].concat();
    inward.hear(&ok);
    inward.say(HEAD.as_bytes());
    let mut frames = inward.frames;
    for n in 0..3_u16 {
        frames.push(udp(after(5), end(C2, 6000), end(LOCAL, 7), &datagram_of_2015(n, 1)));
        frames.push(udp(after(5), end(LOCAL, 7), end(C2, 6000), &datagram_of_2015(n, 1)));
    }
    frames.push(echo(after(6), C2, LOCAL, 8, &message));
    frames.push(echo(after(6), LOCAL, C2, 0, &message));
    frames.push(packet(after(7), 255, C2, LOCAL, &message));
    let bench = found(&frames);
    let told = plugx(&bench);
    assert!(told.len() >= 4, "{told:?}");
    assert!(told.iter().all(|(_, grade, _)| *grade == Grade::Suspect), "{told:?}");
    assert!(bench.orders().is_empty());
}

#[test]
fn a_body_that_is_not_packed_is_found_in_tcp_and_http() {
    for (name, build) in Build::every() {
        let message = build.plain(0x0BAD_CAFE, 0x3005, &Dice(5).bytes(300));
        let mut stream = Talk::outward(5432);
        stream.say(&message[..100]);
        stream.say(&message[100..]);
        let mut http = Talk::outward(8080);
        http.say(&post("/update?id=00000001", &message));
        assert_eq!(plugx(&found(&stream.frames)), [("plugx.tcp", Grade::Malicious, 5)], "{name}");
        assert_eq!(plugx(&found(&http.frames)), [("plugx.http", Grade::Malicious, 4)], "{name}");
    }
}

#[test]
fn the_framing_of_2012_is_told_on_the_port_of_dns() {
    let datagram = |n| datagram_of_2012(n, [10, 77, 1, 2]);
    let frames =
        [1, 2].map(|n| udp(after(i64::from(n)), end(LOCAL, 4000), end(C2, 53), &datagram(n)));
    assert_eq!(
        plugx(&found(&frames)),
        [("plugx.udp", Grade::Suspect, 1), ("plugx.udp", Grade::Malicious, 2)]
    );
}

#[test]
fn honest_protocols_are_not_taken_for_plugx_on_any_transport() {
    for (name, bytes) in honest() {
        let mut stream = Talk::outward(5432);
        let mut http = Talk::outward(8080);
        for _ in 0..5 {
            stream.say(&bytes);
            stream.hear(&bytes);
            http.say(&post("/", &bytes));
        }
        let mut frames = [stream.frames, http.frames].concat();
        frames.push(udp(after(1), end(LOCAL, 4000), end(C2, 9000), &bytes));
        frames.push(echo(after(2), LOCAL, C2, 8, &bytes));
        assert_eq!(plugx(&found(&frames)), [], "{name}");
    }
}

#[test]
fn random_segments_are_not_taken_for_plugx() {
    let mut dice = Dice(0x5EED);
    let mut frames = Vec::new();
    for n in 0..2_000_u16 {
        let mut talk = Talk::open(START, end(LOCAL, 10_000 + n), end(C2, 5432));
        for _ in 0..4 {
            let len = 16 + (dice.roll() % 60) as usize;
            talk.say(&dice.bytes(len));
            talk.hear(&dice.bytes(len));
        }
        frames.extend(talk.frames);
    }
    frames.sort_by_key(|frame| frame.at);
    assert_eq!(plugx(&found(&frames)), []);
}

#[test]
fn a_service_that_hands_a_strangers_message_back_later_is_not_cut() {
    let build = Build::of("T1");
    let mut talk = Talk::open(START, end(C2, 50_000), end(LOCAL, 9999));
    talk.say(&[0xC7; 25]);
    talk.hear(&[0xC8; 25]);
    talk.say(&build.empty(1, 0));
    talk.hear(&[0xC9; 25]);
    talk.say(&build.empty(2, 0));
    talk.hear(&build.empty(2, 0));
    let bench = found(&talk.frames);
    assert_eq!(plugx(&bench), [("plugx.tcp", Grade::Suspect, 6)]);
    assert!(bench.orders().is_empty());
}

#[test]
fn theft_in_a_later_request_is_told_though_the_implant_was_before() {
    let build = Build::of("T1");
    let mut talk = Talk::outward(80);
    talk.say(&post("/update?id=00000001", &build.packed(1, 1, b"WEB-1 www-data")));
    talk.hear(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    talk.say(&post("/update?id=00000001", &build.empty(2, 2)));
    talk.hear(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    talk.say(&post("/update?id=00000001", &build.packed(3, 0x3005, &[b'a'; 200])));
    let mut bench = Bench::new("dry-run", "", &[]);
    bench.feed(&talk.frames);
    assert_eq!(
        plugx(&bench),
        [("plugx.http", Grade::Malicious, 4), ("plugx.http", Grade::Malicious, 8)]
    );
    assert!(last(&bench, "plugx.http").explanation.contains("file theft in progress"));
}
