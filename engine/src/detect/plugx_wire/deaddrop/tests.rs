use crate::detect::plugx_wire::forge::{Dice, letters};
use crate::detect::plugx_wire::scene::Scene;
use crate::flow::{Appetite, ObservationKind, Toward};
use sekisho_schema::{Grade, Transport};

/// Vectors V2 and V3.
const V2: &str = "DZKSGAAALLBACDCDCDOCBDCDCDOCCDADIDOCBDADDZJS";
const V3: &str = "DZKSCAAAAJPBBDHDDDOCCDFDFDOCCDBDHDOCHDHDDZJS";

fn scene() -> Scene {
    Scene::of("plugx.deaddrop", Transport::Tcp).to("198.51.100.7:80")
}

fn page(text: &str) -> Vec<u8> {
    let body = format!("<html><title>notes</title><p>DZ {text} and more</p></html>");
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[test]
fn the_published_texts_tell_protocol_port_and_host() {
    for (text, protocol, port, host) in
        [(V2, 6, 443, "222.122.208.10"), (V3, 2, 8080, "173.255.217.77")]
    {
        let mut scene = scene();
        scene.response(Toward::Local, &page(text));
        assert_eq!(scene.fact("protocol"), protocol);
        assert_eq!(scene.fact("port"), port);
        assert_eq!(scene.fact("host"), host);
        assert_eq!(scene.fact("text"), text);
        assert_eq!(scene.grades(), [Grade::Suspect]);
    }
}

#[test]
fn who_read_it_is_watched_for_a_day() {
    let mut scene = scene();
    scene.tell(ObservationKind::Started);
    scene.response(Toward::Local, &page(V2));
    scene.grades();
    scene.remote("222.122.208.10:443");
    scene.wait(3600);
    scene.tell(ObservationKind::Started);
    assert!(scene.told().contains("on the port that it told"), "{}", scene.told());
    assert!(scene.told().contains("198.51.100.7:80"), "{}", scene.told());
    assert_eq!(scene.grades(), [Grade::Suspect]);
    scene.remote("222.122.208.10:53");
    scene.tell(ObservationKind::Started);
    assert!(scene.told().contains("on another port"), "{}", scene.told());
    scene.grades();
    let other = "10.0.0.6:41000".parse().unwrap();
    let reader = std::mem::replace(&mut scene.flow.key.local, other);
    scene.tell(ObservationKind::Started);
    assert_eq!(scene.grades(), [], "another host did not read it");
    scene.flow.key.local = reader;
    scene.wait(24 * 3600);
    scene.tell(ObservationKind::Started);
    assert_eq!(scene.grades(), [], "a day later");
}

#[test]
fn a_controller_told_by_name_is_watched_by_name() {
    let told = [&[4, 0, 0x50, 0][..], b"Update.C2.example"].concat();
    let mut scene = scene();
    scene.response(Toward::Local, &page(&format!("DZKS{}DZJS", letters(&told))));
    scene.grades();
    scene.remote("203.0.113.99:80");
    scene.flow.bound_name = Some("update.c2.example");
    scene.tell(ObservationKind::Started);
    assert_eq!(scene.grades(), [Grade::Suspect]);
    scene.flow.bound_name = Some("www.example");
    scene.tell(ObservationKind::Started);
    assert_eq!(scene.grades(), []);
}

#[test]
fn a_text_that_comes_in_pieces_is_found_when_it_is_whole() {
    let whole = page(V2);
    let head = whole.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let end = whole.windows(4).position(|four| four == b"DZJS").unwrap() + 4;
    let mut scene = scene();
    for len in head..end {
        assert_eq!(scene.response(Toward::Local, &whole[..len]), Appetite::More, "{len}");
    }
    assert_eq!(scene.response(Toward::Local, &whole[..end]), Appetite::Enough);
    assert_eq!(scene.grades(), [Grade::Suspect]);
}

#[test]
fn look_alikes_are_let_pass() {
    let mut scene = scene();
    let unprintable = letters(&[6, 0, 0xBB, 1, 1, 2, 3, 4, 5, 6]);
    let long = "A".repeat(130);
    for text in [
        "DZKS and DZJS in one sentence",
        "DZKSQUJDREZHSElKS0xNTk9QDZJS",
        "DZKSGAAALLDZJS",
        "DZKSGAAALLBACDCDCDOCBDCDCDOCCDADIDOCBDADDZKS",
        "dzksgaaallbacdcdcdocbdcdcdoccdadidocbdaddzjs",
        "DZKSGAAALLBACDCDCDOCBDCDCDOCCDADIDOCBDADADZJS",
        &format!("DZKS{unprintable}DZJS"),
        &format!("DZKS{long}DZJS"),
    ] {
        scene.response(Toward::Local, &page(text));
        assert!(scene.said.is_empty(), "{text}");
    }
    let far = format!("{}{V2}", "x".repeat(4096));
    assert_eq!(scene.response(Toward::Local, &page(&far)), Appetite::Enough);
    assert!(scene.said.is_empty());
    // What our own server gives to strangers.
    scene.response(Toward::Remote, &page(V2));
    assert!(scene.said.is_empty());
}

#[test]
fn a_begin_without_an_end_hides_not_the_text_behind_it() {
    let mut scene = scene();
    scene.response(Toward::Local, &page(&format!("DZKS{V2}")));
    assert_eq!(scene.grades().len(), 1);
}

#[test]
fn images_packed_bodies_and_finished_ones_are_not_waited_for() {
    let mut scene = scene();
    for fields in [
        "Content-Type: image/png\r\nContent-Length: 900",
        "Content-Type: text/html\r\nContent-Encoding: gzip\r\nContent-Length: 900",
        "Content-Type: text/html\r\nContent-Length: 0",
    ] {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
        assert_eq!(scene.response(Toward::Local, head.as_bytes()), Appetite::Enough, "{fields}");
    }
    assert_eq!(scene.response(Toward::Local, b"HTTP/1.1 302 Found\r\n\r\n"), Appetite::Enough);
}

#[test]
fn random_bodies_with_the_markers_never_tell_an_unprintable_host() {
    let (mut scene, mut dice) = (scene(), Dice(0xDEAD));
    let mut found = 0;
    for _ in 0..100_000 {
        let len = 8 + (dice.roll() % 60) as usize;
        let inner: String =
            (0..len).map(|_| char::from(b'A' + (dice.roll() >> 30) as u8 % 16)).collect();
        scene.response(Toward::Local, &page(&format!("DZKS{inner}DZJS")));
        found += scene.said.len();
        scene.said.clear();
    }
    // A host of three bytes is printable by chance now and then; a longer one hardly ever.
    assert!(found < 2_000, "{found}");
}
