use crate::detect::plugx_wire::forge::{Build, CIPHERS, Dice, base64};
use crate::detect::plugx_wire::scene::Scene;
use crate::flow::Toward;
use sekisho_schema::{Grade, Transport};

fn scene() -> Scene {
    Scene::of("plugx.cookie", Transport::Tcp)
}

fn request(cookie: &str) -> Vec<u8> {
    format!(
        "GET /F1B8D4D8F6A4C0E7B2A69C33 HTTP/1.1\r\nAccept: */*\r\nCookie: {cookie}\r\n\
         User-Agent: Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 5.1;SV1;\r\nHost: 203.0.113.9\r\n\
         Connection: Keep-Alive\r\n\r\n"
    )
    .into_bytes()
}

/// Vector V1: `silence-is-best/c2db`, a capture of 2019.
#[test]
fn the_captured_cookie_is_found_with_its_build() {
    let mut scene = scene();
    scene.request(Toward::Remote, &request("QhTbeUW+YzYYsZWz0PQvBvYIgo8="));
    assert_eq!(scene.fact("cipher"), "T3-20140613");
    assert_eq!(scene.fact("build"), 20_130_923);
    assert_eq!((scene.fact("session"), scene.fact("sequence")), (0.into(), 1.into()));
    assert_eq!(scene.grades(), [Grade::Malicious]);
}

#[test]
fn a_cookie_is_found_under_every_setting() {
    let mut dice = Dice(9);
    for (name, build) in Build::every() {
        let cookie = base64(&build.cookie(dice.key(), [0, 3, 20_130_923, 0xF010]));
        assert_eq!(cookie.len(), 28);
        let mut scene = scene();
        scene.request(Toward::Remote, &request(&cookie));
        assert_eq!(scene.grades(), [Grade::Malicious], "{name}");
    }
}

#[test]
fn what_a_stranger_asks_our_server_is_suspect_at_most() {
    let mut scene = scene();
    scene.request(Toward::Local, &request("QhTbeUW+YzYYsZWz0PQvBvYIgo8="));
    assert_eq!(scene.grades(), [Grade::Suspect]);
}

#[test]
fn other_cookies_are_let_pass() {
    let last = base64(
        &Build { cipher: CIPHERS[7].1, after_key: true }.cookie(7, [0, 1, 20_130_923, 0xF011]),
    );
    let mut scene = scene();
    for cookie in [
        "",
        "a=QhTbeUW+YzYYsZWz0PQvBvYIgo8=",
        "QhTbeUW+YzYYsZWz0PQvBvYIgo8",
        "QhTbeUW+YzYYsZWz0PQvBvYIgo8==",
        "QhTbeUW-YzYYsZWz0PQvBvYIgo8=",
        "sid=31d4d96e407aad42; lang=en",
        last.as_str(),
    ] {
        scene.request(Toward::Remote, &request(cookie));
    }
    assert!(scene.said.is_empty(), "{}", scene.told());
}

#[test]
fn random_cookies_of_the_form_are_let_pass() {
    let (mut scene, mut dice) = (scene(), Dice(0xC00C1E));
    for _ in 0..100_000 {
        scene.request(Toward::Remote, &request(&base64(&dice.bytes(20))));
    }
    assert!(scene.said.is_empty());
}
