use crate::detect::Weight;
use crate::detect::plugx_wire::forge::{Build, Dice, honest};
use crate::detect::plugx_wire::scene::Scene;
use crate::flow::{ObservationKind, Toward};
use sekisho_schema::finding::Direction;
use sekisho_schema::{Grade, Transport};

fn raw() -> Scene {
    Scene::of("plugx.rawip", Transport::Other(255)).to("203.0.113.9:0")
}

fn icmp() -> Scene {
    Scene::of("plugx.rawip", Transport::Icmp).to("203.0.113.9:0")
}

#[test]
fn the_first_packet_of_protocol_255_is_suspect_and_never_cuts() {
    let mut scene = raw();
    scene.tell(ObservationKind::Started);
    assert_eq!(scene.said[0].weight, Weight::Scores);
    assert_eq!(scene.grades(), [Grade::Suspect]);
}

#[test]
fn protocol_255_from_outside_is_told_when_the_inside_answers() {
    let mut scene = raw();
    scene.flow.direction = Direction::Inbound;
    scene.tell(ObservationKind::Started);
    scene.head(Toward::Local, &[1; 30]);
    assert_eq!(scene.grades(), []);
    scene.head(Toward::Remote, &[1; 30]);
    assert_eq!(scene.said[0].weight, Weight::Scores);
    assert_eq!(scene.grades(), [Grade::Suspect]);
}

#[test]
fn a_message_in_protocol_255_proves_under_every_setting() {
    let mut dice = Dice(8);
    for (name, build) in Build::every() {
        let mut scene = raw();
        scene.head(Toward::Remote, &build.packed(dice.key(), 0x3005, &[b'a'; 300]));
        assert!(scene.told().contains("file theft in progress"), "{name}");
        assert_eq!(scene.said[0].weight, Weight::Decides);
        assert_eq!(scene.grades(), [Grade::Malicious], "{name}");
    }
}

#[test]
fn a_message_in_an_echo_request_proves_under_every_setting() {
    let mut dice = Dice(8);
    for (name, build) in Build::every() {
        for message in [build.empty(dice.key(), 2), build.packed(dice.key(), 1, b"WEB-1 www-data")]
        {
            let mut scene = icmp();
            scene.echo(Toward::Remote, true, &message);
            assert_eq!(scene.grades(), [Grade::Malicious], "{name}");
            scene.echo(Toward::Local, false, &message);
            assert_eq!(scene.grades(), [], "{name}: an answer says nothing new");
        }
    }
}

#[test]
fn a_stranger_cannot_make_the_kernel_prove_anything() {
    let message = Build::of("T1").empty(9, 0);
    let mut scene = icmp();
    scene.echo(Toward::Local, true, &message);
    scene.echo(Toward::Remote, false, &message);
    scene.anew();
    scene.echo(Toward::Remote, false, &message);
    assert_eq!(scene.grades(), [Grade::Suspect, Grade::Suspect]);
}

#[test]
fn other_protocols_are_let_pass() {
    let build = Build::of("T1");
    for protocol in [47, 50, 89, 132, 253, 254] {
        let mut scene = Scene::of("plugx.rawip", Transport::Other(protocol)).to("203.0.113.9:0");
        scene.tell(ObservationKind::Started);
        scene.head(Toward::Remote, &build.empty(9, 0));
        assert_eq!(scene.grades(), [], "{protocol}");
    }
}

#[test]
fn honest_and_random_echoes_are_let_pass() {
    let (mut scene, mut dice) = (icmp(), Dice(0x9176));
    let linux: Vec<u8> = dice.bytes(16).into_iter().chain(0x10..0x38).collect();
    let windows = b"abcdefghijklmnopqrstuvwabcdefghi";
    // Also the payload of a tunnel: a whole IPv4 packet.
    let mut tunnel = vec![0x45, 0, 0, 60, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 192, 0, 2, 1];
    tunnel.extend(dice.bytes(40));
    for payload in [&linux[..], windows, &tunnel, &[], &[0; 1400]] {
        scene.echo(Toward::Remote, true, payload);
    }
    for (name, payload) in honest() {
        scene.echo(Toward::Remote, true, &payload);
        assert!(scene.said.is_empty(), "{name}");
    }
    for _ in 0..100_000 {
        let len = (dice.roll() % 90) as usize;
        let payload = dice.bytes(len);
        scene.echo(Toward::Remote, true, &payload);
    }
    assert!(scene.said.is_empty());
}
