use crate::detect::plugx_wire::forge::{Dice, question, txt_question};
use crate::detect::plugx_wire::scene::Scene;
use crate::flow::Toward;
use sekisho_schema::{Grade, Transport};

/// Vector V4: a name of a capture of 2019, and the first sixteen letters of others.
const NAME: &str = "PEOJNOOBAAHDMKNGELEADFCKBPAEPIONNCMHLMKBJGILHAGFFKEPDECJBOADPHO.\
                    MNBMGLLKAJFIKIPHEGJFOEDDICNBCAHPLOANFMKLPKEJJIOHDGIFNECDHCMBBAG.\
                    PKOPNEMJMOLDKIJNIC.bca.udnudfer.com";
const FIRSTS: [&str; 3] = ["JJIOHDOBJEIEIBJJ", "DBCGBLOBDMGFEIEM", "MELJKOOBLPBHDCAP"];

fn scene() -> Scene {
    Scene::of("plugx.dns", Transport::Udp).to("10.0.0.53:53")
}

fn name(first: &str) -> String {
    first.to_owned() + NAME.split_at(16).1
}

#[test]
fn the_second_name_is_told_and_a_repetition_is_not() {
    let mut scene = scene();
    for id in 0..3 {
        scene.message(Toward::Remote, &txt_question(id, NAME));
    }
    assert_eq!(scene.grades(), []);
    scene.message(Toward::Remote, &txt_question(4, &name(FIRSTS[0])));
    assert_eq!(scene.grades(), [Grade::Malicious]);
    scene.message(Toward::Remote, &txt_question(5, &name(FIRSTS[0])));
    assert_eq!(scene.grades(), []);
    for first in &FIRSTS[1..] {
        scene.message(Toward::Remote, &txt_question(6, &name(first)));
    }
    assert_eq!(scene.grades(), [Grade::Malicious; 2]);
}

#[test]
fn letters_of_mixed_case_are_the_same_letters() {
    let mixed = |text: &str| -> String {
        let swap = |(at, letter): (usize, char)| {
            if at % 3 == 0 { letter.to_ascii_lowercase() } else { letter.to_ascii_uppercase() }
        };
        text.chars().enumerate().map(swap).collect()
    };
    let mut scene = scene();
    scene.message(Toward::Remote, &txt_question(1, &NAME.to_ascii_lowercase()));
    scene.message(Toward::Remote, &txt_question(2, &mixed(NAME)));
    assert_eq!(scene.grades(), [], "one name, whatever its case");
    scene.message(Toward::Remote, &txt_question(2, &mixed(&name(FIRSTS[1]))));
    assert_eq!(scene.grades(), [Grade::Malicious]);
}

#[test]
fn what_strangers_ask_our_resolver_is_suspect_at_most() {
    let mut scene = scene();
    scene.message(Toward::Local, &txt_question(1, NAME));
    scene.message(Toward::Local, &txt_question(2, &name(FIRSTS[0])));
    assert_eq!(scene.grades(), [Grade::Suspect]);
}

#[test]
fn names_of_two_hosts_or_a_day_apart_are_not_put_together() {
    let mut scene = scene();
    scene.message(Toward::Remote, &txt_question(1, NAME));
    scene.flow.key.local = "10.0.0.6:41000".parse().unwrap();
    scene.message(Toward::Remote, &txt_question(2, &name(FIRSTS[0])));
    scene.wait(24 * 3600 + 1);
    scene.message(Toward::Remote, &txt_question(3, &name(FIRSTS[1])));
    assert_eq!(scene.grades(), []);
}

#[test]
fn other_names_are_let_pass() {
    let mut scene = scene();
    let extension = |n: u8| {
        let id: String = (0..32).map(|at| char::from(b'a' + (at * 7 + n) % 16)).collect();
        format!("{id}.{id}.{id}.{id}.{id}.extensions.example")
    };
    let short = |first: &str| {
        let labels: Vec<String> = name(first).split('.').map(str::to_owned).collect();
        format!("{}.{}.udnudfer.com", labels[0], labels[1].split_at(36).0)
    };
    let outside = |first: &str| name(first).replace("MNBMGLLK", "MNBMGLLQ");
    for n in 0..4 {
        scene.message(Toward::Remote, &txt_question(1, &extension(n)));
        scene.message(Toward::Remote, &txt_question(1, &short(FIRSTS[usize::from(n) % 3])));
        scene.message(Toward::Remote, &txt_question(1, &outside(FIRSTS[usize::from(n) % 3])));
        scene.message(Toward::Remote, &question(1, &name(FIRSTS[usize::from(n) % 3]), 1));
        scene.message(Toward::Remote, &txt_question(1, &format!("v{n}._domainkey.example.com")));
    }
    // An answer repeats its question.
    for first in FIRSTS {
        let mut answer = txt_question(1, &name(first));
        answer[2] |= 0x80;
        scene.message(Toward::Local, &answer);
    }
    assert!(scene.said.is_empty(), "{}", scene.told());
}

#[test]
fn random_names_of_the_right_length_are_let_pass() {
    let (mut scene, mut dice) = (scene(), Dice(0xD5));
    let label = |dice: &mut Dice, len: usize, letters: u64| -> String {
        (0..len).map(|_| char::from(b'a' + (dice.roll() >> 20).rem_euclid(letters) as u8)).collect()
    };
    for round in 0..100_000 {
        // Half of them from the letters a to p alone: names of their own each.
        let letters = if round % 2 == 0 { 16 } else { 26 };
        let name = format!(
            "{}.{}.{}.example",
            label(&mut dice, 63, letters),
            label(&mut dice, 63, letters),
            label(&mut dice, 18, letters)
        );
        scene.message(Toward::Remote, &txt_question(1, &name));
    }
    assert!(scene.said.is_empty());
}
