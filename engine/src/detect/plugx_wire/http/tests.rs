use crate::detect::plugx_wire::forge::{Build, Dice};
use crate::detect::plugx_wire::scene::Scene;
use crate::flow::{Appetite, Toward};
use sekisho_schema::{Grade, Transport};

fn scene() -> Scene {
    Scene::of("plugx.http", Transport::Tcp)
}

/// Vector V6: the three published heads, and ET's debug names; the order of fields as published.
fn heads() -> [String; 5] {
    let head = |first: &str, names: [&str; 4], agent: &str| {
        let [a, b, c, d] = names;
        format!(
            "{first} HTTP/1.1\r\nAccept: */*\r\n{a}: 0\r\n{b}: 0\r\n{c}: 61456\r\n{d}: 1\r\n\
             User-Agent: {agent}\r\nHost: c2.example\r\nContent-Length: 0\r\n\
             Connection: Keep-Alive\r\nCache-Control: no-cache\r\n\r\n"
        )
    };
    let agent = "Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 5.1;SV1;";
    [
        head("POST /update?wd=b0b9d49c", ["X-Session", "X-Status", "X-Size", "X-Sn"], agent),
        head("POST /0A1B2C3D4E5F60718293A4B5", ["CG100", "CG103", "CG107", "CG108"], agent),
        head("POST /update?id=00000001", ["HHV1", "HHV2", "HHV3", "HHV4"], agent),
        head(
            "POST /update?product=windows",
            ["x-debug", "x-request", "x-content", "x-storage"],
            agent,
        ),
        head(
            "POST http://c2.example/update?id=0badcafe",
            ["QWER3", "QWER1", "QWER4", "QWER2"],
            agent,
        ),
    ]
}

fn post(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /update?id=00000001 HTTP/1.1\r\nHost: c2.example\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
fn every_published_head_is_found_whatever_its_names() {
    for head in heads() {
        let mut scene = scene();
        scene.request(Toward::Remote, head.as_bytes());
        assert_eq!(scene.fact("values"), "0, 0, 61456, 1");
        assert_eq!(scene.grades(), [Grade::Malicious], "{head}");
        scene.request(Toward::Local, head.as_bytes());
        assert_eq!(scene.grades(), [Grade::Suspect], "a stranger's request");
    }
}

#[test]
fn the_head_with_a_body_is_suspect() {
    let mut scene = scene();
    let head = heads()[0].replace("Content-Length: 0", "Content-Length: 5") + "hello";
    scene.request(Toward::Remote, head.as_bytes());
    assert_eq!(scene.grades(), [Grade::Suspect]);
}

#[test]
fn heads_that_lack_a_part_are_let_pass() {
    let mut scene = scene();
    let head = heads()[0].clone();
    for other in [
        head.replace("61456", "61457"),
        head.replace("X-Sn: 1", "X-Sn: one"),
        head.replace("X-Status: 0", "X-Status: "),
        head.replace("X-Status: 0\r\n", ""),
        head.replace("X-Size: 61456", "X-Size: 61456\r\nAccept-Language: en"),
        head.replace("X-Session: 0", "X-Session: 99999999999"),
        head.replace("X-Session", "DNT"),
        head.replace("X-Status: 0\r\nX-Size: 61456", "X-Size: 61456\r\nX-Status: 0"),
    ] {
        scene.request(Toward::Remote, other.as_bytes());
        assert!(scene.said.is_empty(), "{other}");
    }
}

#[test]
fn a_body_that_is_a_message_is_found_at_its_header_under_every_setting() {
    let mut dice = Dice(21);
    for (name, build) in Build::every() {
        let message = build.packed(dice.key(), 0x3005, &b"C:\\staging\\customers.csv ".repeat(40));
        let whole = post(&message);
        let body_at = whole.len() - message.len();
        let mut scene = scene();
        // The head alone, then byte by byte: known once the header and two bytes of the body are there.
        for len in body_at..body_at + 16 {
            assert_eq!(
                scene.request(Toward::Remote, &whole[..len]),
                Appetite::More,
                "{name} {len}"
            );
        }
        scene.request(Toward::Remote, &whole[..body_at + 16]);
        assert!(scene.told().contains("file theft in progress"), "{name}: {}", scene.told());
        assert_eq!(scene.fact("command"), "0x3005");
        assert_eq!(scene.grades(), [Grade::Malicious], "{name}");
    }
}

#[test]
fn an_answer_that_is_a_message_is_suspect_and_no_news_behind_the_hosts_own() {
    let build = Build::of("T3-20140613");
    let mut scene = scene();
    scene.response(Toward::Local, &ok(&build.empty(5, 3)));
    assert_eq!(scene.grades(), [Grade::Suspect]);
    scene.request(Toward::Remote, &post(&build.empty(6, 1)));
    assert_eq!(scene.grades(), [Grade::Malicious]);
    scene.response(Toward::Local, &ok(&build.empty(7, 3)));
    assert_eq!(scene.grades(), []);
}

#[test]
fn a_server_that_gives_back_what_a_stranger_put_there_is_not_cut() {
    let build = Build::of("T1");
    let mut scene = scene();
    scene.flow.direction = sekisho_schema::finding::Direction::Inbound;
    scene.request(Toward::Local, &post(&build.empty(5, 0)));
    scene.response(Toward::Remote, &ok(&build.empty(5, 0)));
    scene.anew();
    scene.response(Toward::Remote, &ok(&build.empty(5, 0)));
    scene.response(Toward::Remote, &ok(&build.empty(6, 0)));
    assert!(scene.grades().iter().all(|grade| *grade == Grade::Suspect));
}

#[test]
fn chunked_and_unbounded_bodies_are_read() {
    let build = Build::of("T1");
    let message = build.packed(77, 1, b"WEB-1 www-data");
    let mut scene = scene();
    let head = b"POST /a HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\n\r\n";
    let line = format!("{:x}\r\n", message.len());
    let whole = [&head[..], line.as_bytes(), &message, b"\r\n0\r\n\r\n"].concat();
    assert_eq!(scene.request(Toward::Remote, head), Appetite::More);
    assert_eq!(scene.request(Toward::Remote, &whole[..head.len() + 2]), Appetite::More);
    assert_eq!(scene.request(Toward::Remote, &whole[..head.len() + 4 + 3]), Appetite::More);
    scene.request(Toward::Remote, &whole);
    assert_eq!(scene.grades(), [Grade::Malicious]);
    scene.anew();
    let until_close = [&b"HTTP/1.0 200 OK\r\n\r\n"[..], &message].concat();
    scene.response(Toward::Local, &until_close);
    assert_eq!(scene.grades(), [Grade::Suspect]);
}

#[test]
fn two_messages_in_one_body_are_found() {
    let build = Build::of("T2-20140509");
    let mut scene = scene();
    let both = [build.empty(1, 2), build.packed(2, 1, &[7; 100])].concat();
    scene.request(Toward::Remote, &post(&both));
    assert_eq!(scene.grades(), [Grade::Malicious]);
}

#[test]
fn honest_bodies_are_let_pass_and_no_more_of_them_is_asked_for() {
    let mut scene = scene();
    for body in [&b"{\"id\": 1, \"name\": \"a\"}"[..], b"<!doctype html><title>a", b"a=1&b=2", b""]
    {
        assert_eq!(scene.request(Toward::Remote, &post(body)), Appetite::Enough);
        assert_eq!(scene.response(Toward::Local, &ok(body)), Appetite::Enough);
    }
    for (name, bytes) in crate::detect::plugx_wire::forge::honest() {
        scene.request(Toward::Remote, &post(&bytes));
        assert!(scene.said.is_empty(), "{name}");
    }
    let no_body = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 900\r\n\r\n";
    assert_eq!(scene.response(Toward::Local, no_body), Appetite::Enough);
}

#[test]
fn random_bodies_of_the_right_length_for_some_setting_are_let_pass() {
    let (mut scene, mut dice) = (scene(), Dice(0xB0D1E5));
    let builds: Vec<Build> = Build::every().map(|(_, build)| build).collect();
    for round in 0..100_000_usize {
        let len = 16 + (dice.roll() % 300) as usize;
        let mut body = dice.bytes(len);
        // The size field forged to fit, all else random.
        let build = builds[round % builds.len()];
        let key = u32::from_le_bytes(body[..4].try_into().unwrap());
        let at = if build.after_key { 4 } else { 8 };
        let stream = build.cipher.keystream(key, 16);
        for (n, byte) in ((len - 16) as u16).to_le_bytes().into_iter().enumerate() {
            body[8 + n] = byte ^ stream[at + n];
        }
        scene.request(Toward::Remote, &post(&body));
    }
    assert!(scene.said.is_empty());
}
