//! An inside host cut by its gateway, and containers by the host they run on, against a real kernel (containment.md, section 6).
//!
//! Needs root, iproute2 and nft. Every namespace has a name of this run and is removed with the test.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that meets the unexpected ends"
)]

mod lab;

use lab::inside::Inside;
use lab::{Lab, contain, set_of};
use sekisho_agent::enforce::{ApplyError, Enforcer, Plan, open_for};
use sekisho_agent::target::{Target, Targets};
use sekisho_schema::policy::{Exemption, Names};
use sekisho_schema::{Measure, Scope};
use std::time::Duration;

const V4_OUT: &str = "203.0.113.2:9999";
const V6_OUT: &str = "[2001:db8:7::2]:9999";

fn plan(lab: &Lab) -> Plan {
    Plan { bridged: true, ..lab.plan() }
}

fn targets(scope: &str, target: Target) -> Targets {
    [(scope.parse::<Scope>().unwrap(), target)].into()
}

/// One row of the table: what of the contained host and of another one arrives.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    v4: bool,
    v6: bool,
    other: bool,
    lateral: bool,
    new_address: bool,
}

const ALL: Row = Row { v4: true, v6: true, other: true, lateral: true, new_address: true };

/// Tries everything; the contained host ends with another address.
fn row(lab: &Lab, contained: &Inside, other: &Inside) -> Row {
    let lateral = format!("{}:9999", other.v4());
    let row = Row {
        v4: lab.inside_reaches(contained, V4_OUT),
        v6: lab.inside_reaches(contained, V6_OUT),
        other: lab.inside_reaches(other, V4_OUT) && lab.inside_reaches(other, V6_OUT),
        lateral: lab.inside_reaches(contained, &lateral),
        new_address: false,
    };
    contained.takes_another_address();
    Row { new_address: lab.inside_reaches(contained, V6_OUT), ..row }
}

#[test]
fn an_inside_host_is_cut_by_its_port_its_mac_or_its_addresses() {
    // By address alone another address passes, and that is why it is never all that is known.
    let cases = [
        ("gw-noth", "nothing", (false, false, false), ALL),
        (
            "gw-addr",
            "addresses",
            (true, false, false),
            Row { v4: false, v6: false, lateral: false, ..ALL },
        ),
        ("gw-mac", "mac", (false, true, false), Row { other: true, ..none() }),
        ("gw-port", "port", (false, false, true), Row { other: true, ..none() }),
        ("gw-all", "all", (true, true, true), Row { other: true, ..none() }),
    ];
    for (lab, name, (addresses, mac, port), expected) in cases {
        Lab::run(lab, |lab| {
            let [contained, other] = lab.bridge();
            assert!(
                lab.waits_until(Duration::from_secs(5), || lab.inside_reaches(&contained, V4_OUT)
                    && lab.inside_reaches(&contained, V6_OUT)
                    && lab.inside_reaches(&other, V4_OUT)
                    && lab.inside_reaches(&other, V6_OUT)
                    && lab.inside_reaches(&contained, &format!("{}:9999", other.v4()))),
                "{name}: everything must get through before the cut"
            );
            let mut enforcer = Enforcer::open(&plan(lab)).unwrap();
            let scope = "internal:10.9.0.2";
            let target = contained.target(addresses, mac, port);
            let set = set_of(1, &[contain("c-000000000001", scope, 60)]);
            let known = targets(scope, target.clone());
            if name == "nothing" {
                let error = enforcer.apply_with(&set, &known, lab.now()).unwrap_err();
                assert!(matches!(error, ApplyError::Unsupported { .. }), "{error}");
            } else {
                assert_eq!(enforcer.apply_with(&set, &known, lab.now()).unwrap().changed, 1);
                assert_eq!(enforcer.verify(&set).unwrap(), [], "{name}");
            }
            assert_eq!(row(lab, &contained, &other), expected, "{name}");
            let open = open_for(&scope.parse().unwrap(), Measure::Cut, &plan(lab), Some(&target));
            assert_eq!(
                open.iter().any(|open| open.contains("address alone")),
                name == "addresses",
                "{name}: {open:?}"
            );
            if name != "nothing" {
                let proof = enforcer.prove(set.containments.values().next().unwrap());
                assert_eq!(proof.cut.as_deref(), Some("proven"), "{proof:?}");
                assert!(enforcer.counters().unwrap().senders.packets > 0);
                enforcer.reload(&plan(lab)).unwrap();
                assert_eq!(enforcer.verify(&set).unwrap(), [], "{name}: after loading again");
                assert!(!lab.inside_reaches(&contained, V4_OUT), "{name}: after loading again");
                let _ = enforcer.apply_with(&set_of(2, &[]), &known, lab.now()).unwrap();
                assert!(lab.inside_reaches(&contained, V4_OUT), "{name}: after the release");
                assert!(!lab.ruleset().contains("at_"), "{name}: gates go with what needed them");
            }
        });
    }
}

fn none() -> Row {
    Row { v4: false, v6: false, other: false, lateral: false, new_address: false }
}

#[test]
fn another_mac_passes_where_the_port_is_not_known() {
    Lab::run("gwother", |lab| {
        let [contained, _other] = lab.bridge();
        let mut enforcer = Enforcer::open(&plan(lab)).unwrap();
        assert!(lab.waits_until(Duration::from_secs(5), || lab.inside_reaches(&contained, V4_OUT)));
        let scope = "internal:10.9.0.2";
        let set = set_of(1, &[contain("c-000000000001", scope, 60)]);
        let changes_mac = || {
            for words in [
                "link set e0 down",
                "link set e0 address 02:77:77:77:77:77",
                "link set e0 up",
                "route replace default via 10.9.0.1",
            ] {
                contained.ip(words);
            }
        };
        let by_mac = targets(scope, contained.target(false, true, false));
        let _ = enforcer.apply_with(&set, &by_mac, lab.now()).unwrap();
        assert!(!lab.inside_reaches(&contained, V4_OUT));
        changes_mac();
        assert!(lab.waits_until(Duration::from_secs(5), || lab.inside_reaches(&contained, V4_OUT)));
        let by_port = targets(scope, contained.target(false, false, true));
        let _ = enforcer.apply_with(&set, &by_port, lab.now()).unwrap();
        assert!(
            !lab.inside_reaches(&contained, V4_OUT),
            "its port is its own whatever it says: {}",
            lab.ruleset()
        );
    });
}

#[test]
fn a_contained_inside_host_keeps_arp_dhcp_named_resolvers_and_what_is_exempt() {
    Lab::run("gwkeep", |lab| {
        let [contained, _other] = lab.bridge();
        let plan = Plan {
            collector: vec!["198.51.100.2:8443".parse().unwrap()],
            exempt: vec![Exemption::Peer {
                name: "storage".to_owned(),
                to: "198.51.100.3/32".parse().unwrap(),
                transport: None,
                port: None,
            }],
            names: Names { resolvers: vec!["10.7.0.2".parse().unwrap()], ..Names::default() },
            ..plan(lab)
        };
        let mut enforcer = Enforcer::open(&plan).unwrap();
        let asks = |to: &str, label| lab.question_reaches(&contained, to, label);
        assert!(lab.waits_until(Duration::from_secs(5), || lab.inside_reaches(&contained, V4_OUT)));
        assert!(asks("10.7.0.2:53", 5) && asks("10.7.0.2:53", 60) && asks("203.0.113.2:53", 5));
        assert!(lab.dhcp_renews(&contained) && lab.answers_at(&contained, "10.9.0.1:7777"));
        let scope = "internal:10.9.0.2";
        let set = set_of(1, &[contain("c-000000000001", scope, 60)]);
        let known = targets(scope, contained.target(true, true, true));
        let _ = enforcer.apply_with(&set, &known, lab.now()).unwrap();
        // ARP has to begin anew.
        contained.ip("neigh flush all");
        assert!(lab.inside_reaches(&contained, "198.51.100.3:9999"), "an exempt peer, after ARP");
        assert!(lab.dhcp_renews(&contained), "its lease");
        assert!(asks("10.7.0.2:53", 5), "a named resolver");
        assert!(!asks("10.7.0.2:53", 60), "a label for a tunnel");
        assert!(!asks("203.0.113.2:53", 5), "another resolver");
        assert!(!lab.inside_reaches(&contained, "10.7.0.2:9999"), "the resolver's other ports");
        assert!(!lab.inside_reaches(&contained, V4_OUT) && !lab.inside_reaches(&contained, V6_OUT));
        // Nor may it ask the gateway itself for anything.
        assert!(!lab.answers_at(&contained, "10.9.0.1:7777"));
    });
}

#[test]
fn an_inside_host_that_is_the_collector_or_a_peer_is_refused() {
    Lab::run("gwref", |lab| {
        let plan = Plan { collector: vec!["10.9.0.2:8443".parse().unwrap()], ..plan(lab) };
        let mut enforcer = Enforcer::open(&plan).unwrap();
        let target = Target {
            addresses: ["10.9.0.2".parse().unwrap()].into(),
            macs: [[2, 0, 0, 0, 0, 9]].into(),
            ..Target::default()
        };
        for scope in ["internal:10.9.0.2", "internal:02:00:00:00:00:09", "container:abc"] {
            let set = set_of(1, &[contain("c-000000000001", scope, 60)]);
            let error =
                enforcer.apply_with(&set, &targets(scope, target.clone()), lab.now()).unwrap_err();
            assert!(matches!(error, ApplyError::Exempt { .. }), "{scope}: {error}");
        }
        assert_eq!(enforcer.held().unwrap(), []);
    });
}

#[test]
fn a_container_is_cut_by_its_veth_or_its_address_and_on_macvlan_by_its_mac() {
    Lab::run("gwpods", |lab| {
        let (routed, macvlan) = (lab.routed_container(), lab.macvlan_container());
        let mut enforcer = Enforcer::open(&lab.plan()).unwrap();
        for container in [&routed, &macvlan] {
            for to in [V4_OUT, V6_OUT] {
                assert!(
                    lab.waits_until(Duration::from_secs(3), || lab
                        .container_reaches(container, to)),
                    "{to} before the cut"
                );
            }
        }
        let scope = "container:0a1b2c";
        let set = set_of(1, &[contain("c-000000000001", scope, 60)]);
        let by_port = Target { ports: ["v0".to_owned()].into(), ..Target::default() };
        let by_address = Target {
            addresses: ["10.8.0.2".parse().unwrap(), "fd08::2".parse().unwrap()].into(),
            ..Target::default()
        };
        for target in [by_port, by_address] {
            let _ = enforcer.apply_with(&set, &targets(scope, target.clone()), lab.now()).unwrap();
            for to in [V4_OUT, V6_OUT, "10.7.0.2:9999"] {
                assert!(!lab.container_reaches(&routed, to), "{to} by {target:?}");
            }
            assert!(lab.container_reaches(&macvlan, V4_OUT) && lab.reaches("udp4"));
        }
        let by_mac = Target { macs: [macvlan.mac("mv0")].into(), ..Target::default() };
        let _ = enforcer.apply_with(&set, &targets(scope, by_mac), lab.now()).unwrap();
        for to in [V4_OUT, V6_OUT] {
            assert!(!lab.container_reaches(&macvlan, to), "{to} on macvlan");
            assert!(lab.container_reaches(&routed, to) && lab.reaches("udp4"));
        }
        // A device that is not there now holds nothing, and one by which the collector answers is nobody's port.
        let gone = Target { ports: ["gone0".to_owned()].into(), ..Target::default() };
        let error = enforcer.apply_with(&set, &targets(scope, gone), lab.now()).unwrap();
        assert_eq!(error.changed, 1);
        let told = enforcer.unheld(&set.containments.keys().next().unwrap().clone()).join("; ");
        assert!(told.contains("no device gone0"), "{told}");
        let way = Target { ports: ["h0".to_owned()].into(), ..Target::default() };
        let collector = vec!["198.51.100.2:8443".parse().unwrap()];
        enforcer.reload(&Plan { collector, ..lab.plan() }).unwrap();
        let error = enforcer.apply_with(&set, &targets(scope, way), lab.now()).unwrap_err();
        assert!(matches!(error, ApplyError::Exempt { .. }), "{error}");
        assert!(lab.container_reaches(&routed, V4_OUT) && lab.reaches("udp4"));
    });
}
