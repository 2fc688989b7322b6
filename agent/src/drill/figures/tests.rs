use super::*;
use crate::drill::scenario::load;
use sekisho_schema::{ContainmentId, Proof, Scope};
use std::path::Path;

fn at(millis: i64) -> Timestamp {
    Timestamp::EPOCH.after(Span::from_millis(millis))
}

fn good() -> Figures {
    Figures {
        mode: Mode::Enforce,
        mode_why: None,
        scheduling: "ordinary".to_owned(),
        first_packet_at: Some(at(1)),
        found: Some(Found {
            id: "f-1".to_owned(),
            detector: "plugx.tcp".to_owned(),
            explanation: "found".to_owned(),
            action: Action::Contain,
            reason: None,
            level: 5,
            matched_at: at(3),
        }),
        receipt: Some(Receipt {
            generation: 1,
            containment: ContainmentId("c-1".to_owned()),
            finding: Some("f-1".to_owned()),
            scope: Scope::Host,
            applied: true,
            error: None,
            committed_at: Some(at(4)),
            last_packet_at: None,
            time_to_contain_ns: Some(1_000_000),
            leaked_packets: 0,
            leaked_bytes: 0,
            sockets_destroyed: 1,
            proof: Proof {
                cut: Some("proven".to_owned()),
                exemptions: Some("ok".to_owned()),
                checks: BTreeMap::new(),
            },
            coverage: Vec::new(),
            target: Vec::new(),
            open: Vec::new(),
        }),
        level: 5,
        policy_level: 5,
        last_packet_at: Some(at(4)),
        leaked_packets: 2,
        leaked_bytes: 2_000,
        late_packets: 0,
        theft_bytes: 20_000_000,
        under_cut: Some((false, true)),
        released: Some((true, true)),
        release_error: None,
        business: (100, 0, 900),
        attempts: 3,
    }
}

fn report(figures: &Figures) -> DrillReport {
    figures.report(&load(Path::new("/nonexistent"), "plugx-tcp").unwrap(), "a test")
}

#[test]
fn good_figures_hold_and_tell_the_times_of_an_incident() {
    let report = report(&good());
    assert!(report.passed && report.checks.values().all(|check| check == "ok"), "{report:?}");
    assert_eq!(report.time_to_detect_ns, Some(2_000_000));
    assert_eq!(report.time_to_contain_ns, Some(1_000_000));
    assert!(
        report.detail.starts_with("found 2.000 ms after the first packet, cut 1.000 ms after"),
        "{}",
        report.detail
    );
}

type Fault = (&'static str, fn(&mut Figures));

#[test]
fn every_single_fault_fails_the_drill_by_its_own_check() {
    let proof = |figures: &mut Figures| figures.receipt.as_mut().map(|held| held.proof.clone());
    assert!(proof(&mut good()).is_some());
    let faults: [Fault; 15] = [
        ("mode", |figures| figures.mode = Mode::DryRun),
        ("found", |figures| figures.found = None),
        ("cut", |figures| figures.receipt = None),
        ("cut", |figures| figures.level = 2),
        ("cut", |figures| figures.late_packets = 1),
        ("cut", |figures| figures.under_cut = Some((true, true))),
        ("cut", |figures| figures.receipt.as_mut().unwrap().applied = false),
        ("proof", |figures| figures.receipt.as_mut().unwrap().proof.cut = None),
        ("exemptions", |figures| {
            figures.receipt.as_mut().unwrap().proof.exemptions = Some("broken".to_owned());
        }),
        ("contain_time", |figures| {
            figures.receipt.as_mut().unwrap().time_to_contain_ns = Some(100_000_001);
        }),
        ("leak", |figures| figures.leaked_bytes = 1_000_001),
        ("business", |figures| figures.business.1 = 1),
        ("business", |figures| figures.under_cut = Some((false, false))),
        ("release", |figures| figures.released = Some((false, true))),
        ("release", |figures| figures.release_error = Some("no".to_owned())),
    ];
    for (name, spoil) in faults {
        let mut figures = good();
        spoil(&mut figures);
        let report = report(&figures);
        assert!(!report.passed, "{name}");
        assert_ne!(report.checks[name], "ok", "{name}: {report:?}");
        assert!(report.detail.contains(&report.checks[name]), "{report:?}");
    }
}

#[test]
fn a_policy_that_only_records_is_told_as_the_reason() {
    let mut figures = good();
    figures.receipt = None;
    figures.found.as_mut().unwrap().action = Action::Record;
    let report = report(&figures);
    assert!(report.detail.contains("its decision table says record"), "{}", report.detail);
}
