use crate::detect::plugx_wire::forge::{Build, Dice, datagram_of_2012, datagram_of_2015, honest};
use crate::detect::plugx_wire::scene::Scene;
use crate::flow::Toward;
use sekisho_schema::{Grade, Transport};

fn scene() -> Scene {
    Scene::of("plugx.udp", Transport::Udp)
}

#[test]
fn the_second_datagram_of_either_framing_proves() {
    for (name, make) in [
        ("2015", (|n| datagram_of_2015(n, 1)) as fn(u16) -> Vec<u8>),
        ("2015, type 2", |n| datagram_of_2015(n, 2)),
        ("2012", |n| datagram_of_2012(n, [10, 0, 0, 5])),
    ] {
        let mut scene = scene();
        scene.head(Toward::Remote, &make(3));
        assert_eq!(scene.grades(), [Grade::Suspect], "{name}");
        scene.wait(12);
        scene.head(Toward::Remote, &make(4));
        assert_eq!(scene.grades(), [Grade::Malicious], "{name}");
    }
}

#[test]
fn a_second_datagram_from_another_port_proves_too() {
    let mut scene = scene();
    scene.head(Toward::Remote, &datagram_of_2015(3, 1));
    scene.anew();
    scene.head(Toward::Remote, &datagram_of_2015(4, 1));
    assert_eq!(scene.grades(), [Grade::Suspect, Grade::Malicious]);
}

#[test]
fn a_second_datagram_to_another_end_or_after_a_day_does_not_prove() {
    let mut scene = scene();
    scene.head(Toward::Remote, &datagram_of_2015(3, 1));
    scene.remote("203.0.113.10:443");
    scene.head(Toward::Remote, &datagram_of_2015(4, 1));
    scene.wait(24 * 3600 + 1);
    scene.head(Toward::Remote, &datagram_of_2015(5, 1));
    assert_eq!(scene.grades(), [Grade::Suspect; 3]);
}

#[test]
fn what_strangers_send_never_proves_nor_does_its_echo() {
    let mut scene = scene();
    for n in 0..4 {
        scene.head(Toward::Local, &datagram_of_2015(n, 1));
        scene.head(Toward::Remote, &datagram_of_2015(n, 1));
    }
    let message = Build::of("T1").empty(7, 0);
    scene.head(Toward::Local, &message);
    scene.head(Toward::Remote, &message);
    assert!(scene.grades().iter().all(|grade| *grade == Grade::Suspect));
}

#[test]
fn a_datagram_that_is_a_message_proves_at_once_under_every_setting() {
    let mut dice = Dice(3);
    for (name, build) in Build::every() {
        for message in [
            build.empty(dice.key(), 2),
            build.packed(dice.key(), 0x3005, &b"customers ".repeat(30)),
            build.plain(dice.key(), 0x3005, &dice.bytes(400)),
            [build.empty(dice.key(), 0), build.empty(dice.key(), 1)].concat(),
        ] {
            let mut scene = scene();
            scene.head(Toward::Remote, &message);
            assert_eq!(scene.grades(), [Grade::Malicious], "{name}");
            // Cut short it is no whole message.
            if message.len() > 40 {
                scene.anew();
                scene.head(Toward::Remote, &message[..message.len() - 1]);
                assert_eq!(scene.grades(), [], "{name}");
            }
        }
    }
}

#[test]
fn a_word_off_is_let_pass() {
    let mut scene = scene();
    for (at, value) in [(2, 0x51), (4, 3), (9, 5), (13, 0x11), (16, 1), (30, 1)] {
        let mut bytes = datagram_of_2015(9, 1);
        bytes[at] = value;
        scene.head(Toward::Remote, &bytes);
        scene.head(Toward::Remote, &bytes);
    }
    for (at, value) in [(2, 0x31), (13, 5), (17, 0x11), (20, 0x33)] {
        let mut bytes = datagram_of_2012(9, [10, 0, 0, 5]);
        bytes[at] = value;
        scene.head(Toward::Remote, &bytes);
        scene.head(Toward::Remote, &bytes);
    }
    let mut longer = datagram_of_2015(9, 1);
    longer.push(0);
    scene.head(Toward::Remote, &longer);
    assert!(scene.said.is_empty(), "{}", scene.told());
}

#[test]
fn honest_and_random_datagrams_are_let_pass() {
    let (mut scene, mut dice) = (scene(), Dice(0xDA7A));
    for (name, bytes) in honest() {
        scene.head(Toward::Remote, &bytes);
        assert!(scene.said.is_empty(), "{name}");
    }
    for _ in 0..100_000 {
        let len = (dice.roll() % 90) as usize;
        let bytes = dice.bytes(len);
        scene.head(Toward::Remote, &bytes);
    }
    assert!(scene.said.is_empty());
}
