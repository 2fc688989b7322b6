//! The cut against a real kernel: two network namespaces joined by a wire, packets that are first shown to get through.
//!
//! Needs root, iproute2 and nft. Every namespace has a name of this run and is removed with the test.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that meets the unexpected ends"
)]

mod lab;

use lab::{Lab, PEER4, PEER6, contain, pairs, set_of};
use sekisho_agent::enforce::{ApplyError, Drift, Enforcer, Plan, Sockets, Tracked, coverage};
use sekisho_schema::policy::Exemption;
use sekisho_schema::{ContainmentSet, Scope, Span, Transport};
use std::time::{Duration, Instant};

/// Everything that a sender can use: name, and whether a destination cut must stop it (a host cut must stop all).
const SENDERS: [(&str, bool); 11] = [
    ("tcp4", true),
    ("tcp6", true),
    ("udp4", true),
    ("udp6", true),
    ("icmp4", true),
    ("icmp6", true),
    ("raw4", true),
    ("packet_ip", true),
    ("packet_lie", true),
    ("packet_vlan", false),
    ("packet_other", false),
];

#[test]
fn a_destination_cut_stops_every_sender_of_ip() {
    Lab::run("dest", |lab| {
        let mut enforcer = Enforcer::open(&lab.plan()).unwrap();
        for (sender, _) in SENDERS {
            assert!(lab.reaches(sender), "{sender} must get through before the cut");
        }
        let set = set_of(
            1,
            &[
                contain("c-000000000001", "dest:203.0.113.2", 60),
                contain("c-000000000002", "dest:2001:db8:7::2", 60),
            ],
        );
        let applied = enforcer.apply(&set, lab.now()).unwrap();
        assert_eq!(applied.changed, 2);
        for (sender, stopped) in SENDERS {
            assert_eq!(lab.reaches(sender), !stopped, "{sender}");
        }
        // Another address of the same peer is not contained.
        assert!(lab.udp_reaches("203.0.113.3:9999"));
        assert!(enforcer.counters().unwrap().destinations.packets >= 6);
        let proof = enforcer.prove(&set.containments.values().next().unwrap().clone());
        assert_eq!(
            (proof.cut.as_deref(), proof.exemptions.as_deref()),
            (Some("proven"), Some("ok")),
            "{proof:?}"
        );
        let _ = enforcer.apply(&set_of(2, &[]), lab.now()).unwrap();
        for (sender, _) in SENDERS {
            assert!(lab.reaches(sender), "{sender} must get through after the release");
        }
    });
}

#[test]
fn a_host_cut_stops_every_frame_and_leaves_what_is_exempt() {
    Lab::run("host", |lab| {
        let plan = Plan {
            collector: vec![
                "198.51.100.2:8443".parse().unwrap(),
                "[2001:db8:8::2]:8443".parse().unwrap(),
            ],
            exempt: vec![Exemption::Peer {
                name: "backup".to_owned(),
                to: "198.51.100.3/32".parse().unwrap(),
                transport: Some(Transport::Tcp),
                port: Some(8443),
            }],
            ..lab.plan()
        };
        let mut enforcer = Enforcer::open(&plan).unwrap();
        let spared = [
            "10.7.0.2:8443",
            "[fd07::2]:8443",
            "198.51.100.2:8443",
            "[2001:db8:8::2]:8443",
            "198.51.100.3:8443",
        ];
        let cut =
            ["203.0.113.2:8443", "[2001:db8:7::2]:8443", "198.51.100.2:9000", "198.51.100.3:9000"];
        for (sender, _) in SENDERS {
            assert!(lab.reaches(sender), "{sender} must get through before the cut");
        }
        for target in spared.iter().chain(&cut) {
            assert!(lab.connects(target), "{target} before the cut");
        }
        let set = set_of(1, &[contain("c-000000000001", "host", 60)]);
        let _ = enforcer.apply(&set, lab.now()).unwrap();
        // ARP and neighbour discovery have to begin anew.
        lab.forget_neighbours();
        for (sender, _) in SENDERS {
            assert!(!lab.reaches(sender), "{sender} must be cut");
        }
        for target in spared {
            assert!(lab.connects(target), "{target} must stay reachable");
        }
        for target in cut {
            assert!(!lab.connects(target), "{target} must be cut");
        }
        assert!(lab.loopback_works());
        let proof = enforcer.prove(&set.containments.values().next().unwrap().clone());
        assert_eq!(
            (proof.cut.as_deref(), proof.exemptions.as_deref()),
            (Some("proven"), Some("ok")),
            "{proof:?}"
        );
        assert_eq!(proof.checks["collector 198.51.100.2:8443"], "answers");
        assert_eq!(enforcer.verify(&set).unwrap(), []);
    });
}

#[test]
fn a_cut_stops_containers_routed_and_on_a_device_of_their_own() {
    Lab::run("pods", |lab| {
        let (routed, macvlan) = (lab.routed_container(), lab.macvlan_container());
        let mut enforcer = Enforcer::open(&lab.plan()).unwrap();
        let targets = ["203.0.113.2:9999", "[2001:db8:7::2]:9999"];
        for (scopes, name) in [
            (vec!["dest:203.0.113.2", "dest:2001:db8:7::2"], "destination"),
            (vec!["host"], "host"),
        ] {
            for target in targets {
                for container in [&routed, &macvlan] {
                    assert!(
                        lab.waits_until(Duration::from_secs(2), || lab
                            .container_reaches(container, target)),
                        "{target} before the cut of the {name}"
                    );
                }
            }
            let set = set_of(
                1,
                &scopes
                    .iter()
                    .enumerate()
                    .map(|(n, scope)| contain(&format!("c-{n:012}"), scope, 60))
                    .collect::<Vec<_>>(),
            );
            let _ = enforcer.apply(&set, lab.now()).unwrap();
            for target in targets {
                assert!(
                    !lab.container_reaches(&routed, target),
                    "{target} routed, cut of the {name}"
                );
                assert!(
                    !lab.container_reaches(&macvlan, target),
                    "{target} macvlan, cut of the {name}"
                );
            }
            assert!(lab.container_reaches(&routed, "10.7.0.2:9999"), "the inside");
            let _ = enforcer.apply(&set_of(2, &[]), lab.now()).unwrap();
        }
    });
}

#[test]
fn dhcp_and_whole_datagrams_to_exempt_peers_pass_a_host_cut() {
    Lab::run("dhcp", |lab| {
        let storage = Exemption::Peer {
            name: "storage".to_owned(),
            to: "198.51.100.3/32".parse().unwrap(),
            transport: Some(Transport::Udp),
            port: Some(9999),
        };
        let mut enforcer = Enforcer::open(&Plan { exempt: vec![storage], ..lab.plan() }).unwrap();
        // Limited broadcast is not inside this plan: only a DHCP client may use it.
        let cases = [
            (68, "255.255.255.255:67", 0, true),
            (0, "255.255.255.255:67", 0, false),
            (0, "198.51.100.3:9999", 4000, true),
            (68, "203.0.113.2:67", 0, false),
            (0, "198.51.100.3:9998", 4000, false),
        ];
        for (from, to, filling, _) in cases {
            assert!(lab.datagram_reaches(from, to, filling), "{from} to {to} before the cut");
        }
        let _ = enforcer
            .apply(&set_of(1, &[contain("c-000000000001", "host", 60)]), lab.now())
            .unwrap();
        for (from, to, filling, passes) in cases {
            assert_eq!(lab.datagram_reaches(from, to, filling), passes, "{from} to {to}");
        }
    });
}

#[test]
fn no_packet_slips_through_renewals_and_reloads() {
    Lab::run("gap", |lab| {
        let mut enforcer = Enforcer::open(&lab.plan()).unwrap();
        let (tried, arrived) = lab.while_sending(|| std::thread::sleep(Duration::from_millis(50)));
        assert!(tried > 10 && arrived, "the sender must get through before the cut");
        let mut set = set_of(1, &[contain("c-000000000001", "host", 60)]);
        let _ = enforcer.apply(&set, lab.now()).unwrap();
        let (tried, arrived) = lab.while_sending(|| {
            for round in 1..=200 {
                set.containments.values_mut().for_each(|containment| {
                    containment.until = containment.until.after(Span::from_secs(5))
                });
                assert_eq!(enforcer.apply(&set, lab.now()).unwrap().changed, 1);
                if round % 20 == 0 {
                    enforcer.reload(&lab.plan()).unwrap();
                }
            }
        });
        assert!(tried > 1000 && !arrived, "{tried} tried");
    });
}

#[test]
fn management_only_cuts_the_inside_too_and_keeps_loopback_and_the_collector() {
    Lab::run("mgmt", |lab| {
        let plan = Plan { collector: vec!["10.7.0.2:8443".parse().unwrap()], ..lab.plan() };
        let mut enforcer = Enforcer::open(&plan).unwrap();
        assert!(
            lab.connects("10.7.0.2:8443")
                && lab.connects("10.7.0.2:9000")
                && lab.connects("[fd07::2]:8443")
        );
        let _ = enforcer
            .apply(&set_of(1, &[contain("c-000000000001", "management-only", 60)]), lab.now())
            .unwrap();
        lab.forget_neighbours();
        assert!(lab.connects("10.7.0.2:8443"));
        assert!(
            !lab.connects("10.7.0.2:9000")
                && !lab.connects("[fd07::2]:8443")
                && !lab.connects("203.0.113.2:8443")
        );
        assert!(lab.loopback_works());
    });
}

#[test]
fn an_established_connection_is_cut_and_ended() {
    Lab::run("flow", |lab| {
        let plan = lab.plan();
        let mut enforcer = Enforcer::open(&plan).unwrap();
        let mut sockets = Sockets::open().unwrap();
        let mut doomed = lab.open("203.0.113.2:8443");
        let mut spared = lab.open("10.7.0.2:8443");
        assert!(doomed.echoes() && spared.echoes(), "both must speak before the cut");
        let set = set_of(1, &[contain("c-000000000001", "host", 60)]);
        let _ = enforcer.apply(&set, lab.now()).unwrap();
        assert!(!doomed.echoes(), "the drop alone must silence it");
        let destroyed = sockets.destroy_cut(&"host".parse().unwrap(), &plan).unwrap();
        assert_eq!((destroyed.count, destroyed.failed), (1, 0));
        assert!(doomed.is_aborted() && spared.echoes());
    });
}

#[test]
fn an_exempt_service_answers_and_opens_no_connection() {
    Lab::run("svc", |lab| {
        let service = Exemption::Service {
            name: "customers".to_owned(),
            transport: Transport::Tcp,
            port: 8080,
            from: "0.0.0.0/0".parse().unwrap(),
        };
        let mut enforcer = Enforcer::open(&Plan { exempt: vec![service], ..lab.plan() }).unwrap();
        lab.serve_here(8080);
        lab.serve_here(8082);
        assert!(
            lab.peer_connects("203.0.113.1:8082"),
            "another service must answer before the cut"
        );
        assert!(lab.peer_connects("203.0.113.1:8080"), "a customer must be served before the cut");
        assert!(
            lab.connects_from(8081, "203.0.113.2:8443"),
            "a connection from a fixed port must open before the cut"
        );
        let _ = enforcer
            .apply(&set_of(1, &[contain("c-000000000001", "host", 60)]), lab.now())
            .unwrap();
        assert!(lab.peer_connects("203.0.113.1:8080"), "a customer must be served during the cut");
        assert!(!lab.peer_connects("203.0.113.1:8082"), "another service must not answer outside");
        assert!(
            !lab.connects_from(8080, "203.0.113.2:8443"),
            "the service's port must open nothing"
        );
    });
}

#[test]
fn the_kernel_lets_go_when_the_lease_ends() {
    Lab::run("lease", |lab| {
        let mut enforcer = Enforcer::open(&lab.plan()).unwrap();
        assert!(lab.reaches("udp4"));
        let now = lab.now();
        let mut containment = contain("c-000000000001", "dest:203.0.113.2", 0);
        let until = now.after(Span::from_millis(900));
        containment.until = until;
        let _ = enforcer.apply(&set_of(1, &[containment]), now).unwrap();
        // Nobody of ours is left.
        drop(enforcer);
        assert!(!lab.reaches("udp4"));
        assert!(
            lab.waits_until(Duration::from_secs(3), || lab.reaches("udp4")),
            "it must be let go"
        );
        let early = until.since(lab.now());
        assert!(early <= Span::ZERO, "let go {early:?} before its end");
    });
}

#[test]
fn no_lease_ends_before_its_time_however_late_the_kernel_counts() {
    Lab::run("early", |lab| {
        let mut enforcer = Enforcer::open(&lab.plan()).unwrap();
        for round in 0..40 {
            // Begun at every place between two ticks.
            std::thread::sleep(Duration::from_micros(300 * round));
            let now = lab.now();
            // The same containment again and again, each time longer by less than what counts as another end elsewhere.
            let mut containment = contain("c-000000000001", "dest:203.0.113.2", 0);
            let until = now.after(Span::from_millis(100));
            containment.until = until;
            let _ = enforcer.apply(&set_of(round, &[containment]), now).unwrap();
            assert!(!enforcer.held().unwrap().is_empty(), "it is held at all");
            while !enforcer.held().unwrap().is_empty() {
                assert!(lab.now() < until.after(Span::from_secs(3)), "round {round}: not let go");
                std::thread::sleep(Duration::from_micros(100));
            }
            let early = until.since(lab.now());
            assert!(early <= Span::ZERO, "round {round}: let go {early:?} before its end");
        }
    });
}

#[test]
fn applying_again_changes_nothing_and_renewing_extends() {
    Lab::run("again", |lab| {
        let mut enforcer = Enforcer::open(&lab.plan()).unwrap();
        let now = lab.now();
        let set = set_of(
            1,
            &[
                contain("c-000000000001", "host", 60),
                contain("c-000000000002", "dest:203.0.113.2", 60),
            ],
        );
        assert_eq!(enforcer.apply(&set, now).unwrap().changed, 2);
        assert_eq!(enforcer.apply(&set, lab.now()).unwrap().changed, 0);
        assert_eq!(enforcer.verify(&set).unwrap(), []);
        let mut renewed = set.clone();
        for containment in renewed.containments.values_mut() {
            containment.until = containment.until.after(Span::from_secs(600));
        }
        assert_eq!(enforcer.apply(&renewed, lab.now()).unwrap().changed, 2);
        assert!(enforcer.held().unwrap().iter().all(|held| held.until_in > Span::from_secs(600)));
        assert_eq!(enforcer.verify(&renewed).unwrap(), []);
        // A lease that ended is never written, least of all as one without an end.
        let mut over = set.clone();
        over.containments.values_mut().for_each(|containment| containment.until = now);
        let _ = enforcer.apply(&over, lab.now()).unwrap();
        assert_eq!(enforcer.held().unwrap(), []);
    });
}

#[test]
fn a_restarted_enforcer_adopts_what_the_kernel_holds() {
    Lab::run("adopt", |lab| {
        let plan = lab.plan();
        let set = set_of(
            7,
            &[
                contain("c-00000000000a", "host", 60),
                contain("c-00000000000b", "dest:2001:db8:7::2", 60),
            ],
        );
        let mut enforcer = Enforcer::open(&plan).unwrap();
        assert!(lab.reaches("udp4"));
        let _ = enforcer.apply(&set, lab.now()).unwrap();
        drop(enforcer);
        assert!(!lab.reaches("udp4"), "nobody runs, and the cut holds");
        let mut enforcer = Enforcer::open(&plan).unwrap();
        assert!(!lab.reaches("udp4"), "loading the ruleset again must not open a gap");
        let held = enforcer.held().unwrap();
        let names: Vec<String> =
            held.iter().map(|held| format!("{} {}", held.id, held.scope)).collect();
        assert_eq!(names, ["c-00000000000b dest:2001:db8:7::2", "c-00000000000a host"]);
        assert!(held.iter().all(
            |held| held.until_in > Span::from_secs(50) && held.until_in <= Span::from_secs(60)
        ));
        assert_eq!(enforcer.apply(&set, lab.now()).unwrap().changed, 0);
    });
}

#[test]
fn a_device_that_appears_is_armed_with_the_plan_that_names_it() {
    Lab::run("plug", |lab| {
        let mut enforcer = Enforcer::open(&Plan { uplinks: vec![], ..lab.plan() }).unwrap();
        let set = set_of(1, &[contain("c-000000000001", "host", 60)]);
        let _ = enforcer.apply(&set, lab.now()).unwrap();
        assert!(lab.reaches("packet_ip"), "without the device in the plan raw frames pass");
        enforcer.reload(&lab.plan()).unwrap();
        assert!(!lab.reaches("packet_ip"));
        assert_eq!(enforcer.verify(&set).unwrap(), []);
        // And a device that is an uplink no longer keeps no chain.
        enforcer.reload(&Plan { uplinks: vec![], ..lab.plan() }).unwrap();
        assert!(lab.reaches("packet_ip"));
    });
}

#[test]
fn tampering_is_seen_and_mended() {
    Lab::run("drift", |lab| {
        let mut enforcer = Enforcer::open(&lab.plan()).unwrap();
        let set = set_of(1, &[contain("c-000000000001", "dest:203.0.113.2", 60)]);
        let _ = enforcer.apply(&set, lab.now()).unwrap();
        lab.nft("delete element inet sekisho cut_dest4 { 203.0.113.2 }");
        let drift = enforcer.verify(&set).unwrap();
        assert!(
            matches!(drift.as_slice(), [Drift::Missing { element, .. }] if element == "inet cut_dest4 203.0.113.2"),
            "{drift:?}"
        );
        let proof = enforcer.prove(&set.containments.values().next().unwrap().clone());
        assert_eq!(proof.cut.as_deref(), Some("unproven"));
        assert!(
            !proof.checks.contains_key("probe_ipv4"),
            "no probe without the read-back: {proof:?}"
        );
        assert_eq!(enforcer.apply(&set, lab.now()).unwrap().changed, 1);
        assert_eq!(enforcer.verify(&set).unwrap(), []);
        lab.nft("insert rule inet sekisho egress accept");
        assert_eq!(enforcer.verify(&set).unwrap(), [Drift::Ruleset { table: "inet" }]);
        enforcer.reload(&lab.plan()).unwrap();
        assert_eq!(enforcer.verify(&set).unwrap(), []);
        lab.nft("flush ruleset");
        assert!(enforcer.verify(&set).unwrap_err().is_absent());
        assert!(lab.reaches("udp4"));
        assert!(matches!(
            enforcer.apply(&set_of(2, &[contain("c-000000000003", "host", 60)]), lab.now()),
            Err(ApplyError::Kernel { .. })
        ));
        enforcer.reload(&lab.plan()).unwrap();
        assert_eq!(enforcer.apply(&set, lab.now()).unwrap().changed, 1);
        assert!(!lab.reaches("udp4"));
    });
}

#[test]
fn a_target_that_is_exempt_or_unknown_is_refused_before_it_is_written_and_the_rest_holds() {
    Lab::run("refuse", |lab| {
        let plan = Plan { collector: vec!["198.51.100.2:8443".parse().unwrap()], ..lab.plan() };
        let mut enforcer = Enforcer::open(&plan).unwrap();
        let set = set_of(
            3,
            &[
                contain("c-000000000001", "dest:198.51.100.2", 60),
                contain("c-000000000002", "cgroup:/a.slice", 60),
                contain("c-000000000003", "dest:203.0.113.2", 60),
            ],
        );
        let error = enforcer.apply(&set, lab.now()).unwrap_err();
        assert!(
            matches!(&error, ApplyError::Exempt { id, .. } if id.0 == "c-000000000001"),
            "{error}"
        );
        let partial = error.partial().unwrap();
        assert_eq!((partial.refused.len(), partial.applied.changed), (2, 1));
        assert!(lab.connects("198.51.100.2:8443") && !lab.connects("203.0.113.2:8443"));
        let only = set_of(4, &[contain("c-000000000002", "cgroup:/a.slice", 60)]);
        let error = enforcer.apply(&only, lab.now()).unwrap_err();
        assert!(
            matches!(error, ApplyError::Unsupported { .. })
                && error.to_string().contains("cgroup:/a.slice"),
            "{error}"
        );
        assert_eq!(enforcer.held().unwrap(), []);
        let all = Plan { inside: vec!["0.0.0.0/0".parse().unwrap()], ..plan };
        assert!(enforcer.reload(&all).is_err());
    });
}

#[test]
fn rules_of_others_are_untouched() {
    Lab::run("others", |lab| {
        lab.nft("table inet site { set s { type ipv4_addr; }\n chain c { type filter hook output priority 0; policy accept; ip daddr @s accept; }\n}");
        let before = lab.ruleset();
        let mut enforcer = Enforcer::open(&lab.plan()).unwrap();
        let _ = enforcer
            .apply(&set_of(1, &[contain("c-000000000001", "host", 60)]), lab.now())
            .unwrap();
        enforcer.reload(&lab.plan()).unwrap();
        assert_ne!(lab.ruleset(), before);
        Enforcer::remove().unwrap();
        Enforcer::remove().unwrap();
        assert_eq!(lab.ruleset(), before);
    });
}

#[test]
fn packets_meet_no_list_while_nothing_is_contained_and_every_list_with_the_first_cut() {
    Lab::run("rest", |lab| {
        let mut enforcer = Enforcer::open(&lab.plan()).unwrap();
        let resting = lab.hooks();
        // The looks for what is known beforehand, and what keeps the kernel ready.
        assert_eq!(resting.len(), 4, "{resting:#?}");
        assert_eq!(enforcer.verify(&ContainmentSet::default()).unwrap(), []);
        let mut other = enforcer.second_hand().unwrap();
        let set = set_of(1, &[contain("c-000000000001", "dest:203.0.113.2", 60)]);
        for _ in 0..5 {
            let _ = other.apply(&set, lab.now()).unwrap();
            assert!(!lab.reaches("udp4") && !lab.reaches("packet_ip"));
            assert!(lab.hooks().len() > resting.len());
            // A hand that knows of no cut changes nothing of it, and one that shall hold nothing lets go.
            assert!(!enforcer.verify(&ContainmentSet::default()).unwrap().is_empty());
            assert!(!lab.reaches("udp4"));
            let _ = enforcer.apply(&set_of(2, &[]), lab.now()).unwrap();
            assert_eq!(lab.hooks(), resting);
            assert!(lab.reaches("udp4") && lab.reaches("packet_ip"));
            assert_eq!(other.verify(&ContainmentSet::default()).unwrap(), []);
        }
        // What is held by lists that no packet meets is drift, and a reload mends it.
        let _ = other.apply(&set, lab.now()).unwrap();
        assert_eq!(other.verify(&set).unwrap(), []);
        lab.nft("delete chain inet sekisho output\ndelete chain inet sekisho postrouting");
        lab.nft("delete chain netdev sekisho dev_h0");
        assert!(lab.reaches("udp4"));
        assert!(!other.verify(&set).unwrap().is_empty());
        other.reload(&lab.plan()).unwrap();
        assert_eq!(other.verify(&set).unwrap(), []);
        assert!(!lab.reaches("udp4") && !lab.reaches("packet_ip"));
    });
}

#[test]
fn a_cut_between_two_hands_is_never_held_by_lists_at_rest() {
    Lab::run("race", |lab| {
        let mut one = Enforcer::open(&lab.plan()).unwrap();
        let mut two = one.second_hand().unwrap();
        let now = lab.now();
        let cut = set_of(1, &[contain("c-000000000001", "dest:203.0.113.2", 60)]);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _looking = scope.spawn(|| {
                // The other hand lets the lists rest whenever it finds them empty.
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = two.verify(&ContainmentSet::default());
                }
            });
            for round in 0..300 {
                let _ = one.apply(&cut, now).unwrap();
                assert_eq!(lab.hooks().len(), 7, "round {round}: held, and no packet meets it");
                let _ = one.apply(&set_of(2, &[]), now).unwrap();
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    });
}

#[test]
fn a_thousand_containments_go_in_and_out() {
    Lab::run("many", |lab| {
        let mut enforcer = Enforcer::open(&lab.plan()).unwrap();
        let all: Vec<_> = (0..1000_u32)
            .map(|n| {
                contain(
                    &format!("c-{n:012x}"),
                    &format!("dest:198.18.{}.{}", n / 250, n % 250 + 1),
                    60,
                )
            })
            .collect();
        let set = set_of(1, &all);
        assert_eq!(enforcer.apply(&set, lab.now()).unwrap().changed, 1000);
        assert_eq!(enforcer.verify(&set).unwrap(), []);
        assert_eq!(enforcer.held().unwrap().len(), 1000);
        assert_eq!(enforcer.apply(&ContainmentSet::default(), lab.now()).unwrap().changed, 1000);
        assert_eq!(enforcer.held().unwrap(), []);
    });
}

#[test]
fn what_is_not_covered_is_named_with_the_device() {
    Lab::run("cover", |lab| {
        let gaps = coverage(&lab.plan());
        assert!(
            gaps.iter().any(|gap| gap == "af_xdp")
                && !gaps.iter().any(|gap| gap.starts_with("xdp_program")),
            "{gaps:?}"
        );
    });
}

/// Prints the time from the call to the kernel's acknowledgement; a loose bound only, for machines are shared.
#[test]
fn a_cut_takes_microseconds() {
    Lab::run("speed", |lab| {
        let mut enforcer = Enforcer::open(&lab.plan()).unwrap();
        for (name, scope) in [("dest", "dest:203.0.113.2"), ("host", "host")] {
            let mut times = Vec::new();
            for generation in 0..200 {
                let set = set_of(generation, &[contain("c-000000000001", scope, 60)]);
                let now = lab.now();
                let began = Instant::now();
                let applied = enforcer.apply(&set, now).unwrap();
                times.push(began.elapsed());
                assert_eq!(applied.changed, 1);
                let _ = enforcer.apply(&set_of(generation, &[]), lab.now()).unwrap();
            }
            times.sort_unstable();
            println!(
                "apply({name}): median {:?}, p99 {:?}, worst {:?} of {}",
                times[100],
                times[197],
                times[199],
                times.len()
            );
            assert!(times[100] < Duration::from_millis(5));
        }
    });
}

#[test]
fn the_lab_reaches_every_address_that_the_tests_use() {
    Lab::run("lab", |lab| {
        for (_, peer) in pairs() {
            assert!(lab.udp_reaches(&std::net::SocketAddr::new(peer, 9999).to_string()), "{peer}");
        }
        assert!(lab.reaches("udp4") && PEER4.is_ipv4() && PEER6.is_ipv6());
    });
}

#[test]
fn entries_of_connection_tracking_go_with_the_cut_and_no_others() {
    Lab::run("gct", |lab| {
        let mut tracked = Tracked::open().unwrap();
        let host = [Scope::Host];
        assert!(lab.reaches("udp4"));
        assert_eq!(tracked.delete_cut(&host, &lab.plan()).unwrap(), 0, "nothing is tracked yet");
        // Only a rule that asks for it makes the kernel track.
        lab.nft("table ip site { chain out { type filter hook output priority 0; ct state new counter; }\n}");
        assert!(lab.reaches("udp4") && lab.udp_reaches("203.0.113.3:9999"));
        let one = [Scope::Destination("203.0.113.3".parse().unwrap())];
        assert_eq!(tracked.delete_cut(&one, &lab.plan()).unwrap(), 1);
        assert_eq!(tracked.delete_cut(&one, &lab.plan()).unwrap(), 0);
        assert!(tracked.delete_cut(&host, &lab.plan()).unwrap() >= 1);
        assert_eq!(tracked.delete_cut(&host, &lab.plan()).unwrap(), 0);
    });
}
