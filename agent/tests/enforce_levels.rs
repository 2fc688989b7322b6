//! The steps of the ladder beside the whole-host cut, against a real kernel: measures on a destination, the upload
//! allowance, workloads, devices. Every probe is first shown to get through.
//!
//! Needs root, iproute2, nft and cgroup v2. Every namespace and cgroup has a name of this run and is removed with the test.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that meets the unexpected ends"
)]

mod lab;

use lab::workload::Group;
use lab::{Lab, Workload, contain, set_of};
use sekisho_agent::enforce::{
    ApplyError, Drift, Enforcer, KernelAllowance, Plan, Refusal, link, open_for,
};
use sekisho_agent::target::{Target, Targets};
use sekisho_schema::policy::Exemption;
use sekisho_schema::{Containment, Measure, Scope, Span, Transport};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The test that is a workload when it is started as one.
const WORKLOAD: &str = "a_workload_does_what_it_is_told";

fn measured(id: &str, scope: &str, measure: Measure, secs: i64) -> Containment {
    let containment = contain(id, scope, secs);
    Containment { level: containment.scope.level_of(measure), measure, ..containment }
}

fn targets(scope: &str, target: Target) -> Targets {
    [(scope.parse::<Scope>().unwrap(), target)].into()
}

fn service(name: &str, port: u16) -> Exemption {
    Exemption::Service {
        name: name.to_owned(),
        transport: Transport::Tcp,
        port,
        from: "0.0.0.0/0".parse().unwrap(),
    }
}

#[test]
fn a_workload_does_what_it_is_told() {
    if lab::workload::obey() {
        return;
    }
    Lab::run("told", |_| {
        let mut workload = Workload::start(WORKLOAD);
        assert!(workload.connects("203.0.113.2:8443") && !workload.connects("203.0.113.2:1"));
    });
}

#[test]
fn an_observed_destination_is_counted_and_loses_nothing() {
    Lab::run("watch", |lab| {
        let mut enforcer = Enforcer::open(&lab.plan()).unwrap();
        let set = set_of(
            1,
            &[
                measured("c-000000000001", "dest:203.0.113.2", Measure::Observe, 60),
                measured("c-000000000002", "dest:2001:db8:7::2", Measure::Observe, 60),
            ],
        );
        assert_eq!(enforcer.apply(&set, lab.now()).unwrap().changed, 2);
        assert_eq!(enforcer.verify(&set).unwrap(), []);
        assert_eq!(lab.pours("203.0.113.2:9999", 100_000), 100_000);
        assert!(lab.reaches("tcp6"));
        let counted = enforcer.measured().unwrap();
        assert_eq!(counted.len(), 2);
        assert!(counted[0].met.bytes >= 100_000 && counted[0].met.packets >= 100, "{counted:?}");
        assert!(counted[1].met.packets >= 2, "{counted:?}");
        // A renewal goes on counting.
        let mut renewed = set.clone();
        renewed
            .containments
            .values_mut()
            .for_each(|one| one.until = one.until.after(Span::from_secs(600)));
        assert_eq!(enforcer.apply(&renewed, lab.now()).unwrap().changed, 2);
        assert!(enforcer.measured().unwrap()[0].met.bytes >= 100_000);
        let held = enforcer.held().unwrap();
        assert!(held.iter().all(|held| held.measure == Measure::Observe), "{held:?}");
        let _ = enforcer.apply(&set_of(2, &[]), lab.now()).unwrap();
        assert!(!lab.ruleset().contains("at_measuring"), "a gate goes with what needed it");
    });
}

#[test]
fn a_quota_lets_so_many_bytes_pass_and_then_nothing_also_across_renewals_and_restarts() {
    Lab::run("quota", |lab| {
        let plan = lab.plan();
        let mut enforcer = Enforcer::open(&plan).unwrap();
        assert_eq!(lab.pours("203.0.113.2:9999", 500_000), 500_000, "before the quota");
        let quota = Measure::Quota { bytes: 200_000 };
        let mut set = set_of(1, &[measured("c-000000000001", "dest:203.0.113.2", quota, 60)]);
        let _ = enforcer.apply(&set, lab.now()).unwrap();
        let first = lab.pours("203.0.113.2:9999", 100_000);
        assert_eq!(first, 100_000);
        // A renewal, a reload and a restart must not grant it anew.
        set.containments
            .values_mut()
            .for_each(|one| one.until = one.until.after(Span::from_secs(600)));
        assert_eq!(enforcer.apply(&set, lab.now()).unwrap().changed, 1);
        enforcer.reload(&plan).unwrap();
        drop(enforcer);
        let mut enforcer = Enforcer::open(&plan).unwrap();
        assert_eq!(enforcer.apply(&set, lab.now()).unwrap().changed, 0);
        assert_eq!(enforcer.verify(&set).unwrap(), []);
        let rest = lab.pours("203.0.113.2:9999", 500_000);
        // Headers of IP and UDP count: 1,028 bytes for 1,000 of payload.
        assert!((180_000..=200_000).contains(&(first + rest)), "{first} + {rest}");
        assert_eq!(lab.pours("203.0.113.2:9999", 50_000), 0, "spent is spent");
        assert!(lab.udp_reaches("203.0.113.3:9999"), "another address of the peer");
        let counted = enforcer.measured().unwrap();
        assert!(counted[0].used >= 200_000 && counted[0].measure == quota, "{counted:?}");
        assert!(enforcer.counters().unwrap().measures.packets > 0);
        // What is exempt passes beyond the quota, too: raw frames do not.
        assert!(!lab.reaches("packet_ip") && !lab.reaches("raw4"));
    });
}

#[test]
fn a_throttled_destination_gets_about_its_rate() {
    Lab::run("slow", |lab| {
        let mut enforcer = Enforcer::open(&lab.plan()).unwrap();
        let rate = 50_000;
        let began = Instant::now();
        let full = lab.pours("203.0.113.2:9999", 1_000_000);
        assert_eq!(full, 1_000_000, "before the throttle, in {:?}", began.elapsed());
        let throttle = Measure::Throttle { bytes_per_second: rate };
        let set = set_of(1, &[measured("c-000000000001", "dest:203.0.113.2", throttle, 60)]);
        let _ = enforcer.apply(&set, lab.now()).unwrap();
        assert_eq!(enforcer.verify(&set).unwrap(), []);
        let began = Instant::now();
        let mut arrived = 0;
        while began.elapsed() < Duration::from_secs(3) {
            arrived += lab.pours("203.0.113.2:9999", 100_000);
        }
        let seconds = began.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let per_second = arrived as f64 / seconds;
        println!("throttled to {rate} bytes/s: {per_second:.0} bytes/s over {seconds:.1} s");
        assert!(per_second > 20_000.0 && per_second < 80_000.0, "{per_second}");
        assert!(lab.udp_reaches("[2001:db8:7::2]:9999"));
    });
}

#[test]
fn a_measure_is_exchanged_for_another_and_for_a_cut() {
    Lab::run("steps", |lab| {
        let mut enforcer = Enforcer::open(&lab.plan()).unwrap();
        assert!(lab.reaches("udp4"));
        let measures = [
            (Measure::Observe, true),
            (Measure::Throttle { bytes_per_second: 1_000_000 }, true),
            (Measure::Quota { bytes: 1_000_000 }, true),
            (Measure::Quota { bytes: 10 }, false),
            (Measure::Cut, false),
            (Measure::Observe, true),
        ];
        for (generation, (measure, passes)) in (1_u64..).zip(measures) {
            let set =
                set_of(generation, &[measured("c-000000000001", "dest:203.0.113.2", measure, 60)]);
            assert_eq!(enforcer.apply(&set, lab.now()).unwrap().changed, 1, "{measure}");
            assert_eq!(enforcer.verify(&set).unwrap(), [], "{measure}");
            lab.udp_reaches("203.0.113.2:9999");
            assert_eq!(lab.reaches("udp4"), passes, "{measure}");
            let held = enforcer.held().unwrap();
            assert_eq!((held.len(), held[0].measure), (1, measure));
            let proof = enforcer.prove(set.containments.values().next().unwrap());
            let proven = (measure == Measure::Cut).then(|| "proven".to_owned());
            assert_eq!(proof.cut, proven, "{proof:?}");
            assert_eq!(proof.checks["read_back"], "3 of 3", "{proof:?}");
        }
        let host = set_of(9, &[measured("c-000000000001", "host", Measure::Observe, 60)]);
        let error = enforcer.apply(&host, lab.now()).unwrap_err();
        assert!(matches!(error, ApplyError::Unsupported { .. }), "{error}");
    });
}

fn allowance(bytes: u64, window: i64) -> Option<KernelAllowance> {
    Some(KernelAllowance {
        bytes,
        window: Span::from_secs(window),
        approved: vec!["203.0.113.3/32".parse().unwrap()],
    })
}

#[test]
fn the_upload_allowance_bounds_what_goes_to_each_outside_destination_with_nobody_running() {
    Lab::run("allow", |lab| {
        let plan = Plan {
            allowance: allowance(200_000, 600),
            collector: vec!["198.51.100.2:8443".parse().unwrap()],
            exempt: vec![Exemption::Peer {
                name: "backup".to_owned(),
                to: "198.51.100.3/32".parse().unwrap(),
                transport: Some(Transport::Udp),
                port: Some(9999),
            }],
            ..lab.plan()
        };
        let before = lab.pours("203.0.113.2:9999", 400_000);
        assert_eq!(before, 400_000, "before the allowance");
        drop(Enforcer::open(&plan).unwrap());
        // Nobody of ours is left.
        let arrived = lab.pours("203.0.113.2:9999", 400_000);
        assert!((150_000..=200_000).contains(&arrived), "{arrived}");
        assert_eq!(lab.pours("203.0.113.2:9999", 100_000), 0);
        assert!(!lab.connects("203.0.113.2:8443"), "beyond the allowance nothing passes");
        // Each destination has its own, and what is inside, approved, exempt or the collector's costs nothing.
        assert!(lab.udp_reaches("[2001:db8:7::2]:9999"));
        for free in ["10.7.0.2:9999", "203.0.113.3:9999", "198.51.100.3:9999"] {
            assert_eq!(lab.pours(free, 400_000), 400_000, "{free}");
        }
        assert!(lab.connects("198.51.100.2:8443"));
        let mut enforcer = Enforcer::open(&plan).unwrap();
        let spent = enforcer.spent(10).unwrap();
        let peer: IpAddr = "203.0.113.2".parse().unwrap();
        assert!(
            spent.iter().any(|spent| spent.destination == Some(peer)
                && (spent.bytes, spent.of) == (200_000, 200_000)),
            "{spent:?}"
        );
        assert!(enforcer.counters().unwrap().allowance.packets > 0);
        // Loading again grants nothing anew; another allowance begins anew.
        enforcer.reload(&plan).unwrap();
        assert_eq!(lab.pours("203.0.113.2:9999", 100_000), 0);
        enforcer.reload(&Plan { allowance: allowance(300_000, 600), ..plan.clone() }).unwrap();
        let arrived = lab.pours("203.0.113.2:9999", 400_000);
        assert!((250_000..=300_000).contains(&arrived), "{arrived}");
        enforcer.reload(&Plan { allowance: None, ..plan }).unwrap();
        assert_eq!(lab.pours("203.0.113.2:9999", 400_000), 400_000);
        assert!(!lab.ruleset().contains("sekisho_allowance"));
    });
}

#[test]
fn the_allowance_counts_raw_frames_and_begins_anew_with_its_window() {
    Lab::run("frames", |lab| {
        let plan = Plan { allowance: allowance(3_000, 3), ..lab.plan() };
        assert!(lab.reaches("packet_ip"), "before the allowance");
        let _enforcer = Enforcer::open(&plan).unwrap();
        let passed = (0..200).take_while(|_| lab.reaches("packet_ip")).count();
        assert!((5..100).contains(&passed), "{passed} raw frames passed");
        assert!(
            lab.waits_until(Duration::from_secs(5), || lab.reaches("packet_ip")),
            "the window must end"
        );
    });
}

#[test]
fn answers_of_services_to_the_outside_count_unless_they_are_exempt() {
    Lab::run("serve", |lab| {
        lab.serve_here(8080);
        lab.serve_here(8081);
        let plan = Plan {
            allowance: allowance(1_500, 600),
            exempt: vec![service("customers", 8080)],
            ..lab.plan()
        };
        let asks = |port: u16| lab.peer_downloads(&format!("203.0.113.1:{port}"), 40);
        assert!(asks(8080) && asks(8081), "before the allowance");
        let _enforcer = Enforcer::open(&plan).unwrap();
        assert!(asks(8080), "an exempt service answers");
        assert!(!asks(8081), "answers of another count");
        assert!(asks(8080), "and the exempt one goes on");
    });
}

#[test]
fn a_contained_workload_is_cut_wherever_its_sockets_were_opened_before() {
    Lab::run("cgroup", |lab| {
        let (group, other) = (
            Group::new(&format!("/sk-{}/a.service", std::process::id())),
            Group::new(&format!("/sk-{}-b", std::process::id())),
        );
        let mut enforcer = Enforcer::open(&lab.plan()).unwrap();
        let (mut inside, mut outside) = (Workload::start(WORKLOAD), Workload::start(WORKLOAD));
        let mut moved_in = Workload::start(WORKLOAD);
        assert!(moved_in.opens("203.0.113.2:8443"), "opened in no cgroup of ours");
        group.take(&inside);
        other.take(&outside);
        let ways = ["203.0.113.2:8443", "[2001:db8:7::2]:8443", "10.7.0.2:8443"];
        for way in ways {
            assert!(inside.connects(way) && outside.connects(way), "{way} before the cut");
        }
        assert!(inside.opens("203.0.113.2:8443") && inside.echoes());
        assert!(lab.workload_reaches(&mut inside, "203.0.113.2:9999"));
        let mut moved_out = Workload::start(WORKLOAD);
        group.take(&moved_out);
        assert!(moved_out.opens("203.0.113.2:8443") && moved_out.echoes());
        let scope = format!("cgroup:/sk-{}/a.service", std::process::id());
        let set = set_of(1, &[contain("c-000000000001", &scope, 60)]);
        let known = targets(&scope, group.target());
        assert_eq!(enforcer.apply_with(&set, &known, lab.now()).unwrap().changed, 1);
        assert_eq!(enforcer.verify(&set).unwrap(), []);
        for way in ways {
            assert!(!inside.connects(way), "{way}: the inside is no refuge");
            assert!(outside.connects(way), "{way}: another workload");
        }
        assert!(!inside.echoes(), "a connection from before the cut");
        assert!(!lab.workload_reaches(&mut inside, "203.0.113.2:9999"));
        assert!(lab.reaches("tcp4"), "the host itself");
        // Moved out with sockets open: still cut. Moved in: those pass, and that is told.
        other.take(&moved_out);
        assert!(!moved_out.echoes());
        group.take(&moved_in);
        assert!(moved_in.echoes());
        assert!(!moved_in.connects("203.0.113.2:8443"), "a new socket is of the cgroup");
        let open =
            open_for(&scope.parse().unwrap(), Measure::Cut, &lab.plan(), known.values().next());
        assert!(open.iter().any(|open| open.contains("handed over")), "{open:?}");
        let proof = enforcer.prove(set.containments.values().next().unwrap());
        assert_eq!(proof.cut.as_deref(), Some("proven"), "{proof:?}");
        assert!(enforcer.counters().unwrap().workloads.packets > 0);
        // It is told by its name in the kernel alone, and let go as a whole.
        drop(enforcer);
        let mut enforcer = Enforcer::open(&lab.plan()).unwrap();
        let held = enforcer.held().unwrap();
        assert_eq!((held.len(), held[0].scope.to_string()), (1, scope.clone()));
        let renewed = enforcer.apply(&set, lab.now()).unwrap();
        assert_eq!(renewed.changed, 0, "without a target what is held stays");
        assert!(!inside.connects("203.0.113.2:8443"));
        let _ = enforcer.apply_with(&set_of(2, &[]), &Targets::new(), lab.now()).unwrap();
        assert!(inside.connects("203.0.113.2:8443"));
        assert!(!lab.ruleset().contains("at_cgroup"));
    });
}

#[test]
fn a_contained_workload_keeps_the_loopback_without_resolvers_and_proxies() {
    Lab::run("deputy", |lab| {
        let group = Group::new(&format!("/sk-{}-d", std::process::id()));
        let plan = Plan {
            deputies: vec!["127.0.0.1:3128".parse().unwrap()],
            exempt: vec![Exemption::Peer {
                name: "site".to_owned(),
                to: "10.7.0.2/32".parse().unwrap(),
                transport: None,
                port: None,
            }],
            ..lab.plan()
        };
        let mut enforcer = Enforcer::open(&plan).unwrap();
        let listeners: Vec<_> = [
            "127.0.0.1:53",
            "127.0.0.1:853",
            "127.0.0.1:3128",
            "127.0.0.1:5432",
            "[::1]:53",
            "[::1]:5432",
        ]
        .iter()
        .map(|at| std::net::TcpListener::bind(at).unwrap())
        .collect();
        let mut workload = Workload::start(WORKLOAD);
        group.take(&workload);
        let at: Vec<String> =
            listeners.iter().map(|one| one.local_addr().unwrap().to_string()).collect();
        for at in &at {
            assert!(workload.connects(at), "{at} before the cut");
        }
        assert!(workload.connects("10.7.0.2:8443") && workload.connects("203.0.113.2:8443"));
        let scope = format!("cgroup:/sk-{}-d", std::process::id());
        let set = set_of(1, &[contain("c-000000000001", &scope, 60)]);
        let _ = enforcer.apply_with(&set, &targets(&scope, group.target()), lab.now()).unwrap();
        for at in &at {
            assert_eq!(workload.connects(at), at.ends_with(":5432"), "{at}");
        }
        assert!(workload.connects("10.7.0.2:8443"), "an exempt peer");
        assert!(!workload.connects("203.0.113.2:8443"));
        assert!(std::net::TcpStream::connect("127.0.0.1:53").is_ok(), "another program");
    });
}

#[test]
fn a_contained_listener_answers_no_handshake() {
    Lab::run("listen", |lab| {
        let group = Group::new(&format!("/sk-{}-l", std::process::id()));
        let plan = Plan { exempt: vec![service("customers", 8090)], ..lab.plan() };
        let mut enforcer = Enforcer::open(&plan).unwrap();
        let mut workload = Workload::start(WORKLOAD);
        group.take(&workload);
        for port in [8090, 8091, 8092] {
            workload.listens(&format!("203.0.113.1:{port}"));
            assert!(lab.peer_connects(&format!("203.0.113.1:{port}")), "{port} before the cut");
        }
        let scope = format!("cgroup:/sk-{}-l", std::process::id());
        let set = set_of(1, &[contain("c-000000000001", &scope, 60)]);
        let mut target = group.target();
        let _ = enforcer.apply_with(&set, &targets(&scope, target.clone()), lab.now()).unwrap();
        assert!(lab.peer_connects("203.0.113.1:8091"), "its answer to a handshake is of no cgroup");
        target.listeners = [(Transport::Tcp, 8090), (Transport::Tcp, 8091)].into();
        let _ = enforcer.apply_with(&set, &targets(&scope, target), lab.now()).unwrap();
        assert!(!lab.peer_connects("203.0.113.1:8091"));
        assert!(lab.peer_connects("203.0.113.1:8090"), "an exempt service answers");
        assert!(workload.connects("203.0.113.1:8091"), "on the loopback it answers");
    });
}

#[test]
fn a_restarted_workload_is_cut_again_under_its_new_id_and_a_gone_one_is_refused() {
    Lab::run("rearm", |lab| {
        let group = Group::new(&format!("/sk-{}-r", std::process::id()));
        let mut enforcer = Enforcer::open(&lab.plan()).unwrap();
        let scope = format!("cgroup:/sk-{}-r", std::process::id());
        let set = set_of(1, &[contain("c-000000000001", &scope, 60)]);
        let old = group.id();
        let _ = enforcer.apply_with(&set, &targets(&scope, group.target()), lab.now()).unwrap();
        group.anew();
        assert_ne!(group.id(), old, "a restart must give a new id");
        let mut workload = Workload::start(WORKLOAD);
        group.take(&workload);
        assert!(workload.connects("203.0.113.2:8443"), "the dead id cuts nobody");
        let applied =
            enforcer.apply_with(&set, &targets(&scope, group.target()), lab.now()).unwrap();
        assert_eq!(applied.changed, 1);
        assert!(!workload.connects("203.0.113.2:8443"));
        assert_eq!(enforcer.verify(&set).unwrap(), []);
        let nothing = targets(&scope, Target::default());
        let error = enforcer.apply_with(&set, &nothing, lab.now()).unwrap_err();
        assert!(
            matches!(&error, ApplyError::Unsupported { why: Refusal::Unsupported(why), .. } if why.contains("nothing of it")),
            "{error}"
        );
        assert!(workload.connects("203.0.113.2:8443") && lab.reaches("tcp4"), "never all instead");
    });
}

#[test]
fn sekishos_own_cgroup_is_never_cut() {
    Lab::run("own", |lab| {
        let group = Group::new(&format!("/sk-{}-own", std::process::id()));
        let path = format!("/sk-{}-own", std::process::id());
        let plan = Plan { own_cgroups: vec![format!("{path}/agent.service")], ..lab.plan() };
        let mut enforcer = Enforcer::open(&plan).unwrap();
        let scope = format!("cgroup:{path}");
        let set = set_of(1, &[contain("c-000000000001", &scope, 60)]);
        let error =
            enforcer.apply_with(&set, &targets(&scope, group.target()), lab.now()).unwrap_err();
        assert!(matches!(error, ApplyError::Exempt { .. }), "{error}");
        assert_eq!(enforcer.held().unwrap(), []);
    });
}

#[test]
fn a_gate_that_somebody_takes_away_is_noticed_and_put_back() {
    Lab::run("gate", |lab| {
        let group = Group::new(&format!("/sk-{}-g", std::process::id()));
        let mut enforcer = Enforcer::open(&lab.plan()).unwrap();
        let mut workload = Workload::start(WORKLOAD);
        group.take(&workload);
        assert!(workload.connects("203.0.113.2:8443"));
        let scope = format!("cgroup:/sk-{}-g", std::process::id());
        let set = set_of(1, &[contain("c-000000000001", &scope, 60)]);
        let known = targets(&scope, group.target());
        let _ = enforcer.apply_with(&set, &known, lab.now()).unwrap();
        assert!(!workload.connects("203.0.113.2:8443"));
        for tampering in [
            "delete chain inet sekisho at_cgroup_1",
            "flush chain inet sekisho at_cgroup_1",
            "insert rule inet sekisho at_cgroup_1 accept",
        ] {
            lab.nft(if tampering.starts_with("delete") {
                "flush chain inet sekisho at_cgroup_1\ndelete chain inet sekisho at_cgroup_1"
            } else {
                tampering
            });
            assert!(workload.connects("203.0.113.2:8443"), "{tampering}");
            let drift = enforcer.verify(&set).unwrap();
            assert!(
                matches!(drift.as_slice(), [Drift::Missing { element, .. }] if element == "at_cgroup_1"),
                "{tampering}: {drift:?}"
            );
            let _ = enforcer.apply_with(&set, &known, lab.now()).unwrap();
            assert_eq!(enforcer.verify(&set).unwrap(), [], "{tampering}");
            assert!(!workload.connects("203.0.113.2:8443"), "{tampering}");
        }
    });
}

#[test]
fn a_device_is_taken_down_and_raised_unless_it_alone_leads_to_the_collector() {
    Lab::run("link", |lab| {
        assert!(lab.reaches("packet_ip"));
        let plan = Plan { collector: vec!["198.51.100.2:8443".parse().unwrap()], ..lab.plan() };
        assert!(matches!(link::refusal("h0", &plan, false), Some(Refusal::Exempt(_))));
        assert_eq!(link::refusal("h0", &plan, true), None);
        assert!(matches!(link::refusal("lo", &plan, true), Some(Refusal::Exempt(_))));
        let loopback = Plan { collector: vec!["127.0.0.1:8443".parse().unwrap()], ..lab.plan() };
        assert_eq!(link::refusal("h0", &loopback, false), None);
        assert!(link::state("h0").unwrap().up);
        assert!(link::down("h0").unwrap(), "it was up");
        assert!(!link::down("h0").unwrap() && !link::state("h0").unwrap().up);
        // Its addresses stay, its routes go with it.
        assert!(!lab.udp_goes("203.0.113.2:9999"));
        assert!(!link::up("h0").unwrap(), "it was down");
        assert!(link::state("h0").unwrap().up);
        assert!(
            lab.waits_until(Duration::from_secs(3), || lab.udp_reaches("203.0.113.2:9999")),
            "it must come back"
        );
        assert!(link::down("nosuch0").is_err());
        assert!(!link::has_bridge());
    });
}

#[test]
fn under_management_only_names_are_asked_of_the_named_resolvers_alone() {
    Lab::run("names", |lab| {
        let names = sekisho_schema::policy::Names {
            resolvers: vec!["198.51.100.3".parse().unwrap()],
            ..Default::default()
        };
        let plan = Plan { names, ..lab.plan() };
        let mut enforcer = Enforcer::open(&plan).unwrap();
        let resolvers = ["198.51.100.3:53", "198.51.100.2:53", "10.7.0.2:53"];
        for to in resolvers {
            assert!(lab.question_goes(to, 5), "{to} before the cut");
        }
        let set = set_of(1, &[contain("c-000000000001", "management-only", 60)]);
        let _ = enforcer.apply(&set, lab.now()).unwrap();
        assert!(lab.question_goes("198.51.100.3:53", 5));
        assert!(!lab.question_goes("198.51.100.3:53", 60), "a label for a tunnel");
        assert!(!lab.question_goes("198.51.100.2:53", 5) && !lab.question_goes("10.7.0.2:53", 5));
        std::thread::sleep(Duration::from_millis(1_100));
        let arrived = lab.questions_arrive("198.51.100.3:53");
        assert!((3..=12).contains(&arrived), "{arrived} of 40");
    });
}

#[test]
fn an_open_connection_to_the_collector_passes_where_its_name_leads_elsewhere() {
    Lab::run("live", |lab| {
        let mut open = lab.open("198.51.100.2:8443");
        let mut other = lab.open("198.51.100.2:9000");
        assert!(open.echoes() && other.echoes());
        let plan = Plan {
            collector: vec!["192.0.2.9:8443".parse().unwrap()],
            collector_live: vec![(open.local(), "198.51.100.2:8443".parse().unwrap())],
            ..lab.plan()
        };
        let mut enforcer = Enforcer::open(&plan).unwrap();
        for scope in ["host", "management-only"] {
            let set = set_of(1, &[contain("c-000000000001", scope, 60)]);
            let _ = enforcer.apply(&set, lab.now()).unwrap();
            assert!(open.echoes(), "{scope}");
            assert!(!lab.connects("198.51.100.2:8443"), "{scope}: that one connection alone");
            let _ = enforcer.apply(&set_of(2, &[]), lab.now()).unwrap();
        }
        let set = set_of(3, &[contain("c-000000000001", "dest:198.51.100.2", 60)]);
        assert!(matches!(enforcer.apply(&set, lab.now()), Err(ApplyError::Exempt { .. })));
    });
}
