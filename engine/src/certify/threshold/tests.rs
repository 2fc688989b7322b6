use super::super::review::{approve, list, refuse};
use super::super::sample::{START, aiko, fleet, hour, learned, pool, upload};
use super::*;
use sekisho_schema::baseline::Learned;

fn terms_of(budgets: &Budgets) -> Terms<'_> {
    Terms { budgets, confidence: CONFIDENCE, version: 1, at: START, agent: "0.1.0" }
}

fn made(records: &[Learned], baseline: &RoleBaseline) -> Certificate {
    certify(&pool(records), baseline, &terms_of(&Budgets::default()))
}

fn nothing() -> RoleBaseline {
    RoleBaseline::empty("web", START)
}

#[test]
fn a_threshold_is_the_smallest_that_keeps_its_budget() {
    // 160 host-weeks, budget 0.1 at 0.95: the bound of 9 events is 15.705, of 10 it is 16.96.
    let maxima: Vec<f64> = (1..=500).map(f64::from).collect();
    let found = smallest(&maxima, 160.0, 0.1, 0.95, 0.0).unwrap();
    assert!((found.above - 491.0).abs() < f64::EPSILON, "{found:?}");
    assert_eq!(found.exceedances, 9);
    assert!(found.bound <= 0.1 && found.bound > 0.098);
    // Equal scores never exceed the threshold that is one of them.
    let ties = [7.0; 500];
    assert_eq!(smallest(&ties, 160.0, 0.1, 0.95, 0.0).unwrap().exceedances, 0);
    // What is not seen to happen still has a floor.
    assert!((smallest(&[], 160.0, 0.1, 0.95, 500.0).unwrap().above - 500.0).abs() < f64::EPSILON);
    assert_eq!(smallest(&maxima, 20.0, 0.1, 0.95, 0.0), None);
}

#[test]
fn every_grant_keeps_its_budget_and_a_promise_that_time_does_not_bear_is_locked() {
    let certificate = made(&fleet(40), &nothing());
    assert_eq!((certificate.hosts, certificate.undecided), (40, 0));
    assert!((certificate.host_weeks - 160.0).abs() < 1e-9);
    for grant in &certificate.grant {
        match grant.threshold {
            Some(_) => assert!(grant.bound.unwrap() <= grant.budget, "{grant:?}"),
            None => assert!(grant.missing_host_weeks > 0.0, "{grant:?}"),
        }
    }
    assert!(certificate.threshold(Tier::CutDestination, Channel::Allowance).is_some());
    assert_eq!(certificate.threshold(Tier::IsolateHost, Channel::Sum), None);
    // Three channels at 0.004 for the sum: ln 60 / 0.004 host-weeks in all.
    let missing = certificate.grant(Tier::IsolateHost, Channel::Sum).unwrap().missing_host_weeks;
    assert!((missing - (60_f64.ln() / 0.004 - 160.0)).abs() < 1e-6, "{missing}");
}

#[test]
fn a_cut_is_locked_below_the_host_weeks_that_its_budget_needs() {
    // ln 60 / 0.04 is 102.4 host-weeks: 25 hosts of four weeks have 100, 26 have 104.
    let cut = |hosts| made(&fleet(hosts), &nothing()).threshold(Tier::CutDestination, Channel::Sum);
    assert!(cut(25).is_none() && cut(26).is_some());
}

#[test]
fn a_certificate_is_the_same_in_whatever_order_the_records_come() {
    let mut records = fleet(30);
    let first = made(&records, &nothing());
    records.reverse();
    assert_eq!(made(&records, &nothing()), first);
    let text = first.to_text().unwrap();
    assert_eq!(Certificate::parse(&text).unwrap(), first);
}

#[test]
fn a_roll_out_counts_once_for_a_hold_and_never_for_a_cut() {
    let mut records = fleet(40);
    for record in &mut records {
        record.episodes.push(upload("rollout.example", 9_000_000));
    }
    let with = made(&records, &nothing());
    assert_eq!(with.clusters, 1);
    let exceeding = |tier| with.grant(tier, Channel::Allowance).unwrap().exceedances.unwrap();
    assert_eq!((exceeding(Tier::Hold), exceeding(Tier::CutDestination)), (1, 0));
}

#[test]
fn hosts_that_take_a_destination_up_over_weeks_are_no_cluster() {
    let records: Vec<Learned> = (0..4_i64)
        .map(|n| {
            let mut slow = upload("slow.example", 2_000_000);
            slow.first_at = hour(30 * n);
            slow.last_at = hour(30 * n + 1);
            learned(&format!("h{n}"), 4, vec![slow])
        })
        .collect();
    assert_eq!(made(&records, &nothing()).clusters, 0);
}

#[test]
fn what_nobody_decided_locks_everything_and_what_was_refused_raises_no_threshold() {
    let mut records = fleet(40);
    records[7].episodes.push(upload("theft.example", 3_000_000_000));
    let undecided = made(&records, &nothing());
    assert_eq!(undecided.undecided, 1);
    assert_eq!(undecided.threshold(Tier::Hold, Channel::Allowance), None);

    let items = list(&pool(&records), &nothing());
    let clean = made(&fleet(40), &nothing()).threshold(Tier::Hold, Channel::Allowance);
    let refused = made(&records, &refuse(&nothing(), &items, &aiko()));
    assert_eq!(refused.threshold(Tier::Hold, Channel::Allowance), clean);
    // An approved one counts as what benign traffic does.
    let approved = made(&records, &approve(&nothing(), &items, &aiko()));
    let grant = approved.grant(Tier::Hold, Channel::Allowance).unwrap();
    assert_eq!((approved.undecided, grant.exceedances), (0, Some(1)));
}

#[test]
fn three_signed_lies_make_the_cut_blind_and_unsigned_ones_do_not() {
    // The measurement of detection.md, section 3: poisoned episodes in the calibration raise the threshold.
    let mut records = fleet(40);
    for n in [3, 13, 23] {
        let mut bad = upload(&format!("c2-{n}.example"), 3_000_000_000);
        bad.rhythm = 40.0;
        bad.hours = 100;
        records[n].episodes.push(bad);
    }
    let items = list(&pool(&records), &nothing());
    assert_eq!(items.len(), 3);
    let theft = &records[3].episodes[1];
    let cuts = |baseline: &RoleBaseline| {
        let certificate = made(&records, baseline);
        let threshold = certificate.threshold(Tier::CutDestination, Channel::Sum).unwrap();
        score_in(Channel::Sum, theft, 1, certificate.tails.as_ref().unwrap()).unwrap() > threshold
    };
    assert!(cuts(&refuse(&nothing(), &items, &aiko())));
    assert!(!cuts(&approve(&nothing(), &items, &aiko())));
}
