use crate::detect::plugx_wire::scene::Scene;
use crate::flow::{ObservationKind, Route, Toward};
use sekisho_schema::{Grade, Transport};

fn scene(transport: Transport) -> Scene {
    let mut scene = Scene::of("plugx.p2p", transport);
    scene.flow.route = Route::Inside;
    scene
}

fn ask(scene: &mut Scene, last: u8) {
    scene.remote(&format!("10.0.0.{last}:1357"));
    scene.tell(ObservationKind::Started);
}

#[test]
fn the_third_host_within_a_minute_is_told_on_both_transports() {
    for transport in [Transport::Tcp, Transport::Udp] {
        let mut scene = scene(transport);
        for last in [1, 2, 2, 1] {
            ask(&mut scene, last);
        }
        assert_eq!(scene.grades(), [], "two hosts");
        scene.wait(59);
        ask(&mut scene, 3);
        assert!(scene.said[0].target.is_none(), "nothing outside is spoken to");
        assert_eq!(scene.grades(), [Grade::Suspect]);
    }
}

#[test]
fn a_slow_tour_is_not_a_sweep() {
    let mut scene = scene(Transport::Tcp);
    for last in 1..50 {
        ask(&mut scene, last);
        scene.wait(31);
    }
    assert_eq!(scene.grades(), []);
}

#[test]
fn a_long_sweep_keeps_a_bounded_list() {
    let mut scene = scene(Transport::Tcp);
    for last in 1..=254 {
        ask(&mut scene, last);
    }
    assert_eq!(scene.fact("hosts").as_array().unwrap().len(), 8);
    assert_eq!(scene.grades().len(), 252);
}

#[test]
fn an_answer_with_payload_is_odd() {
    let mut scene = scene(Transport::Udp).to("10.0.0.9:1357");
    scene.head(Toward::Remote, b"hello");
    assert_eq!(scene.grades(), []);
    scene.head(Toward::Local, b"hello");
    assert_eq!(scene.grades(), [Grade::Odd]);
}

#[test]
fn other_ports_and_other_routes_are_let_pass() {
    let mut scene = scene(Transport::Tcp);
    for last in 1..20 {
        scene.remote(&format!("10.0.0.{last}:1358"));
        scene.tell(ObservationKind::Started);
    }
    scene.flow.route = Route::Egress;
    for last in 1..20 {
        ask(&mut scene, last);
        scene.head(Toward::Local, b"answer");
    }
    assert_eq!(scene.grades(), []);
}

#[test]
fn every_known_wire_detector_of_weight_scores_can_never_cut() {
    let mut scene = scene(Transport::Tcp);
    for last in 1..4 {
        ask(&mut scene, last);
    }
    assert_eq!(scene.said[0].weight, crate::detect::Weight::Scores);
}
