use super::super::episode::{ScoreInputs, input, scored};
use super::super::sample::{START, fleet, hour, key, pool};
use super::super::sentence::sentence;
use super::super::threshold::{CONFIDENCE, Terms, certify};
use super::*;
use sekisho_schema::baseline::RoleBaseline;
use sekisho_schema::certificate::Budgets;
use sekisho_schema::sealed::Local;

/// The certificate of a fleet of so many hosts that uploaded some kB each.
fn certificate(hosts: u64) -> Verified<Certificate> {
    let budgets = Budgets::default();
    let terms =
        Terms { budgets: &budgets, confidence: CONFIDENCE, version: 1, at: START, agent: "0.1.0" };
    let made = certify(&pool(&fleet(hosts)), &RoleBaseline::empty("web", START), &terms);
    Verified::locally(made, Local::Replay)
}

fn authority(hosts: u64) -> Authority {
    let mut authority = Authority::default();
    authority.certify(certificate(hosts));
    authority
}

fn upload(up: f64, at: Timestamp) -> EpisodeScore {
    let inputs = ScoreInputs(vec![(input::UP, up), (input::DOWN, 0.0)]);
    scored(Channel::Allowance, at, inputs).unwrap()
}

fn tier(ruling: Option<Ruling>) -> Option<(Tier, Option<Reduced>)> {
    ruling.map(|ruling| (ruling.tier, ruling.reduced))
}

#[test]
fn without_a_certificate_nothing_but_an_alert_is_possible() {
    let mut authority = Authority::default();
    let ruled = authority.rule(&key("theft.example"), &upload(3e9, START), 1);
    let locked = Reduced::Locked { missing_host_weeks: None };
    assert_eq!(tier(ruled), Some((Tier::Alert, Some(locked))));
    assert_eq!(authority.rule(&key("small.example"), &upload(1e6, START), 1), None);
}

#[test]
fn what_is_locked_says_how_many_host_weeks_are_missing() {
    // 5 hosts of four weeks: an allowance of 0.1 of seven channels takes ln 140 / 0.1 host-weeks.
    let mut authority = authority(5);
    let ruled = authority.rule(&key("theft.example"), &upload(3e9, START), 1).unwrap();
    let Some(Reduced::Locked { missing_host_weeks: Some(missing) }) = ruled.reduced else {
        panic!("{ruled:?}");
    };
    assert!((missing - (140_f64.ln() / 0.1 - 20.0)).abs() < 1e-6, "{missing}");
}

#[test]
fn a_certificate_lets_a_host_cut_once_a_week_and_then_hold() {
    let mut authority = authority(40);
    let mut rule =
        |name: &str, hours| tier(authority.rule(&key(name), &upload(3e9, hour(hours)), 1));
    assert_eq!(rule("a.example", 0), Some((Tier::CutDestination, None)));
    // The same episode is told once and costs one token.
    assert_eq!(rule("a.example", 1), None);
    for (n, name) in ["b.example", "c.example", "d.example"].iter().enumerate() {
        let spent = Reduced::Spent { of: 1 };
        assert_eq!(rule(name, 2 + n as i64), Some((Tier::Hold, Some(spent))));
    }
    assert_eq!(rule("e.example", 168), Some((Tier::CutDestination, None)));
}

#[test]
fn a_dry_run_spends_tokens_of_its_own_and_none_that_a_cut_needs_later() {
    let mut authority = authority(40);
    for (n, name) in ["a.example", "b.example"].iter().enumerate() {
        authority.rehearse(&key(name), &upload(3e9, hour(n as i64)), 1);
    }
    let state = authority.state();
    assert_eq!((state.governor().left(hour(2)), state.rehearsed().left(hour(2))), (1, 0));
    assert_eq!((state.governor().refused(), state.rehearsed().refused()), (0, 1));
    // Told once while it is rehearsed, and ruled anew when it is enforced.
    assert_eq!(authority.rehearse(&key("a.example"), &upload(3e9, hour(3)), 1), None);
    let ruled = authority.rule(&key("a.example"), &upload(3e9, hour(4)), 1);
    assert_eq!(tier(ruled), Some((Tier::CutDestination, None)));
    assert_eq!(authority.state().governor().left(hour(5)), 0);
    assert_eq!(authority.rehearse(&key("a.example"), &upload(3e9, hour(6)), 1), None);

    let text = serde_json::to_string(authority.state()).unwrap();
    let kept: AuthorityState = serde_json::from_str(&text).unwrap();
    assert_eq!(&kept, authority.state());
    // What a version before wrote knows of no dry run.
    let mut before: serde_json::Value = serde_json::from_str(&text).unwrap();
    before.as_object_mut().unwrap().remove("rehearsed");
    for ruled in before["ruled"].as_array_mut().unwrap() {
        for field in ["rehearsed", "cut"] {
            ruled.as_object_mut().unwrap().remove(field);
        }
    }
    let kept: AuthorityState = serde_json::from_value(before).unwrap();
    assert_eq!(kept.rehearsed().left(hour(2)), 0, "empty until a certificate fills it");
}

#[test]
fn one_episode_costs_one_token_whatever_the_number_of_channels_that_ask_for_the_cut() {
    let mut authority = authority(40);
    let theft = key("theft.example");
    let cut = authority.rule(&theft, &upload(3e9, START), 1).unwrap();
    let threshold =
        authority.certificate().unwrap().threshold(Tier::CutDestination, Channel::Sum).unwrap();
    let mut terms: Vec<_> = input::TERMS.iter().map(|term| (*term, 0.0)).collect();
    terms[0].1 = threshold + 1.0;
    let sum = scored(Channel::Sum, hour(1), ScoreInputs(terms)).unwrap();
    let again = authority.rule(&theft, &sum, 1).unwrap();
    assert_eq!((cut.tier, again.tier), (Tier::CutDestination, Tier::CutDestination));
    assert_eq!((again.reduced, authority.state().governor().refused()), (None, 0));
    let other = authority.rule(&key("other.example"), &upload(3e9, hour(2)), 1);
    assert_eq!(tier(other), Some((Tier::Hold, Some(Reduced::Spent { of: 1 }))));
}

#[test]
fn cuts_that_come_too_often_end_the_authority_until_a_newer_certificate() {
    let mut authority = authority(40);
    for n in 0..10 {
        authority.rule(&key(&format!("n{n}.example")), &upload(3e9, hour(n)), 1);
    }
    let ruled = authority.rule(&key("later.example"), &upload(3e9, hour(200)), 1);
    assert_eq!(tier(ruled), Some((Tier::Hold, Some(Reduced::Revoked))));
    assert!(authority.is_revoked());

    // A restart with the same certificate does not give it back; a newer one does.
    let kept = authority.state().clone();
    let mut again = Authority::default();
    again.restore(kept);
    again.certify(certificate(40));
    assert!(again.is_revoked());
    let newer = Certificate { version: 2, ..certificate(40).into_inner() };
    again.certify(Verified::locally(newer, Local::Replay));
    assert!(!again.is_revoked());
}

#[test]
fn a_destination_that_three_hosts_took_up_is_held_and_costs_no_token() {
    let mut authority = authority(40);
    let ruled = authority.rule(&key("rollout.example"), &upload(3e9, START), 3);
    assert_eq!(tier(ruled), Some((Tier::Hold, Some(Reduced::Cluster { hosts: 3 }))));
    let ruled = authority.rule(&key("theft.example"), &upload(3e9, START), 1);
    assert_eq!(tier(ruled), Some((Tier::CutDestination, None)));
}

#[test]
fn a_change_window_lets_pass_what_was_announced_and_no_byte_more() {
    let mut authority = authority(40);
    authority.announce(vec![ChangeWindow {
        name: "new backup".into(),
        from: START,
        until: hour(24),
        workload: None,
        destinations: vec!["backup.example".parse().unwrap()],
        upload: 2_000_000_000,
        by: "Aiko".into(),
    }]);
    let mut rule =
        |up, hours| tier(authority.rule(&key("backup.example"), &upload(up, hour(hours)), 1));
    let announced = Reduced::Window { name: "new backup".into() };
    assert_eq!(rule(2e9, 1), Some((Tier::Alert, Some(announced))));
    assert_eq!(rule(1e9, 2), None);
    assert_eq!(rule(2.1e9, 3), Some((Tier::CutDestination, None)));
    assert_eq!(rule(2.2e9, 4), None);
}

#[test]
fn nothing_is_granted_while_items_are_undecided() {
    let undecided = Certificate { undecided: 3, ..certificate(40).into_inner() };
    let mut authority = Authority::default();
    authority.certify(Verified::locally(undecided, Local::Replay));
    let ruled = authority.rule(&key("theft.example"), &upload(3e9, START), 1);
    assert_eq!(tier(ruled), Some((Tier::Alert, Some(Reduced::Undecided { items: 3 }))));
    assert!(authority.standing().values().all(Result::is_err));
}

#[test]
fn a_ruling_tells_number_threshold_and_counter_threshold_in_one_sentence() {
    let mut authority = authority(40);
    let ruled = authority.rule(&key("theft.example"), &upload(21e6, START), 1).unwrap();
    assert_eq!(
        sentence(&ruled),
        "unit:web.service to theft.example (tcp/443): 21.0 MB went up and 0 B came down in seven days, \
         21.0 MB net; a cut of the destination is due above 1.0 MB and would not be at 21.0 MB \
         (a threshold that benign traffic passes at most 0.04 times a host-week)"
    );
}

#[test]
fn a_fleet_that_has_no_cut_left_holds_and_one_that_has_lets_a_host_cut() {
    let mut authority = authority(40);
    let word = |left, at| FleetWord { of: 5, left, at };
    authority.fleet(word(0, START));
    let ruled = authority.rule(&key("a.example"), &upload(3e9, START), 1);
    assert_eq!(tier(ruled), Some((Tier::Hold, Some(Reduced::Spent { of: 5 }))));
    authority.fleet(word(1, hour(1)));
    let ruled = authority.rule(&key("b.example"), &upload(3e9, hour(1)), 1);
    assert_eq!(tier(ruled), Some((Tier::CutDestination, None)));
}

#[test]
fn a_host_that_hears_nothing_of_its_fleet_cuts_no_oftener_than_its_share_over_a_restart_too() {
    let mut authority = authority(40);
    let share = 1.0 / (0.12 + authority.certificate().unwrap().promise(Tier::IsolateHost));
    authority.fleet(FleetWord { of: 5, left: 0, at: START });
    let mut cuts = Vec::new();
    for week in 0..30 {
        // The word that there was none left is over: the host goes by its own share.
        let at = hour(1 + week * 168);
        let ruled = authority.rule(&key(&format!("n{week}.example")), &upload(3e9, at), 1);
        cuts.extend(ruled.filter(|ruled| ruled.tier > Tier::Hold).map(|_| week));
        let kept = authority.state().clone();
        authority.restore(kept);
        // Cuts that come too often end the authority as well, which is not looked at here.
        authority.state.drift = DriftGuard::new(0.12);
    }
    assert_eq!(cuts.len(), (30.0 / share).ceil() as usize, "{cuts:?}");
    assert!(cuts.windows(2).all(|pair| (pair[1] - pair[0]) as f64 >= share), "{cuts:?}");
}

#[test]
fn what_policy_only_records_is_told_costs_no_token_and_is_ruled_anew_once_it_acts() {
    let mut authority = authority(40);
    let (name, score) = (key("a.example"), upload(3e9, START));
    let told = authority.tell(&name, &score, 1);
    assert_eq!(tier(told), Some((Tier::CutDestination, None)));
    assert_eq!(authority.tell(&name, &score, 1), None, "it was told");
    assert_eq!(authority.state().governor().left(START), 1);
    assert_eq!(tier(authority.rule(&name, &score, 1)), Some((Tier::CutDestination, None)));
    assert_eq!(authority.state().governor().left(START), 0);
    assert_eq!(authority.tell(&name, &score, 1), None);
    assert_eq!(authority.rule(&name, &score, 1), None);
}
