use super::*;
use sekisho_schema::event::{Gap, ModeChange, Release};
use sekisho_schema::finding::{Action, DecisionRecord, Finding, Grade, Subject};
use sekisho_schema::{Body, Containment, ContainmentId, Envelope, Mode, Record, Scope, Span};

const NOW: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);
const AGENT: &str = "0a1b2c3d-0000-4000-8000-000000000001";
const BOOT: &str = "00112233445566aa";

#[test]
fn a_batch_sent_twice_is_stored_once() {
    let (_place, store) = store();
    let first = store.take_in(AGENT, &batch(1..=3, None), NOW).unwrap();
    assert_eq!(first, Outcome { ack_through: 3, stored: 3, duplicates: 0 });
    let again = store.take_in(AGENT, &batch(2..=4, None), NOW).unwrap();
    assert_eq!(again, Outcome { ack_through: 4, stored: 1, duplicates: 2 });
    assert_eq!(store.events(None, None, 100, None).unwrap().len(), 4);
}

#[test]
fn the_acknowledgement_stops_at_a_gap_until_the_gap_is_filled() {
    let (_place, store) = store();
    assert_eq!(store.take_in(AGENT, &batch(3..=5, None), NOW).unwrap().ack_through, 0);
    assert_eq!(store.take_in(AGENT, &batch(1..=1, None), NOW).unwrap().ack_through, 1);
    assert_eq!(store.take_in(AGENT, &batch(2..=2, None), NOW).unwrap().ack_through, 5);
    assert_eq!(store.acknowledged(AGENT, BOOT).unwrap(), 5);
    assert_eq!(store.acknowledged(AGENT, "ffffffffffffffff").unwrap(), 0);
}

#[test]
fn records_an_agent_has_lost_do_not_hold_up_the_rest_but_stay_on_record() {
    let (_place, store) = store();
    let mut late = batch(8..=9, None);
    late.oldest = Some(8);
    assert_eq!(store.take_in(AGENT, &late, NOW).unwrap().ack_through, 9);
    let report = store.audit().unwrap().remove(0);
    assert_eq!((report.missing, report.faults.len()), (7, 1));
}

#[test]
fn a_replay_after_seven_days_offline_gives_one_row_each_and_cuts_nothing_now() {
    let (_place, store) = store();
    let then = NOW.before(Span::from_hours(7 * 24));
    let cut = containment("c-00000000aaaa", then, then.after(Span::from_hours(24)));
    let lines = [
        line(1, then, Body::Finding(Box::new(finding("x", Some("c-00000000aaaa"))))),
        line(2, then, Body::Containment(Box::new(cut))),
    ];
    for _ in 0..2 {
        store.take_in(AGENT, &parse(&lines, None), NOW).unwrap();
    }
    assert_eq!(store.findings(10, None).unwrap().len(), 1);
    assert!(store.containments(false, 10, NOW).unwrap().is_empty());
    let ever = store.containments(true, 10, NOW).unwrap();
    assert!(ever.len() == 1 && !ever[0].active);
}

#[test]
fn a_release_that_overtakes_its_containment_still_ends_it() {
    let (_place, store) = store();
    let until = NOW.after(Span::from_hours(24));
    let release = Release {
        containment: ContainmentId("c-00000000aaaa".into()),
        scope: Scope::Host,
        cause: "order".into(),
        by: Some("aiko".into()),
        reason: Some("false alarm".into()),
    };
    store.take_in(AGENT, &parse(&[line(2, NOW, Body::Release(release))], None), NOW).unwrap();
    begin(&store, until);
    assert!(store.containments(false, 10, NOW).unwrap().is_empty());
    assert_eq!(store.containments(true, 10, NOW).unwrap()[0].released_by.as_deref(), Some("aiko"));
}

#[test]
fn a_state_is_the_whole_truth_about_what_is_cut() {
    let (_place, store) = store();
    let until = NOW.after(Span::from_hours(24));
    begin(&store, until);
    assert_eq!(store.containments(false, 10, NOW).unwrap().len(), 1);
    let mut state = heartbeat(NOW.before(Span::from_secs(1)), Vec::new());
    assert!(store.take_state(AGENT, &state, NOW).unwrap());
    assert_eq!(
        store.containments(false, 10, NOW).unwrap().len(),
        1,
        "a state older than the cut says nothing about it"
    );
    state.at = NOW.after(Span::from_secs(1));
    store.take_state(AGENT, &state, NOW).unwrap();
    assert!(store.containments(false, 10, NOW).unwrap().is_empty());
    state.containments = vec![containment("c-00000000aaaa", NOW, until)];
    store.take_state(AGENT, &state, NOW).unwrap();
    assert_eq!(store.containments(false, 10, NOW).unwrap().len(), 1);
    assert!(!store.take_state("stranger", &state, NOW).unwrap());
}

#[test]
fn an_agent_that_misses_three_states_is_silent_but_not_while_the_collector_was_deaf() {
    let (_place, store) = store();
    let at = |secs| NOW.after(Span::from_secs(secs));
    store.take_state(AGENT, &heartbeat(NOW, Vec::new()), NOW).unwrap();
    assert_eq!(store.hosts(at(29)).unwrap()[0].liveness, Liveness::Reporting);
    assert_eq!(store.hosts(at(31)).unwrap()[0].liveness, Liveness::Silent);
    store.keep_meta(&[("listening_since", &at(100).nanos().to_string())]).unwrap();
    assert_eq!(store.hosts(at(110)).unwrap()[0].liveness, Liveness::Reporting);
    assert_eq!(store.hosts(at(131)).unwrap()[0].liveness, Liveness::Silent);
}

#[test]
fn a_broken_chain_is_told_whatever_the_order_of_arrival() {
    let (_place, store) = store();
    let lines: Vec<String> = (1..=4).map(|seq| line(seq, NOW, gap())).collect();
    let mut chain = chain_of(&lines);
    store.take_in(AGENT, &parse(&lines[2..3], Some(&chain[2..3])), NOW).unwrap();
    store.take_in(AGENT, &parse(&lines[0..2], Some(&chain[0..2])), NOW).unwrap();
    assert_eq!(store.audit().unwrap()[0].broken, Vec::<u64>::new());
    assert_eq!(
        store
            .events(None, None, 10, None)
            .unwrap()
            .iter()
            .filter(|event| event.chained == Some(true))
            .count(),
        2
    );
    chain[3] = "00".repeat(32);
    store.take_in(AGENT, &parse(&lines[3..4], Some(&chain[3..4])), NOW).unwrap();
    let report = store.audit().unwrap().remove(0);
    assert_eq!((report.broken, report.events, report.hashed, report.missing), (vec![4], 4, 4, 0));
    assert_eq!(store.hosts(NOW).unwrap()[0].journal_faults, 1);
}

#[test]
fn a_line_changed_in_the_database_is_found_by_the_audit() {
    let (place, store) = store();
    let lines: Vec<String> = (1..=3).map(|seq| line(seq, NOW, gap())).collect();
    store.take_in(AGENT, &parse(&lines, Some(&chain_of(&lines))), NOW).unwrap();
    let other = Connection::open(place.path().join("c.db")).unwrap();
    other
        .execute("UPDATE events SET json = replace(json, 'three', 'four') WHERE seq = 2", [])
        .unwrap();
    assert_eq!(store.audit().unwrap()[0].broken, vec![2]);
}

#[test]
fn another_event_under_the_same_number_does_not_replace_the_first_and_is_noted() {
    let (_place, store) = store();
    store.take_in(AGENT, &batch(1..=1, None), NOW).unwrap();
    let other = parse(
        &[line(
            1,
            NOW,
            Body::Gap(Gap { cause: "journal".into(), count: 9, detail: "other".into() }),
        )],
        None,
    );
    assert_eq!(
        store.take_in(AGENT, &other, NOW).unwrap(),
        Outcome { ack_through: 1, stored: 0, duplicates: 1 }
    );
    assert!(store.events(None, None, 1, None).unwrap()[0].event.to_string().contains("three"));
    assert_eq!(store.audit().unwrap()[0].faults.len(), 1);
}

#[test]
fn an_event_of_a_type_unknown_here_is_kept() {
    let (_place, store) = store();
    let text = r#"{"schema":"sekisho.event/1","seq":1,"at":"2026-11-22T09:00:00Z","host":"web-1","type":"novelty","x":1}"#;
    let outcome = store.take_in(AGENT, &parse(&[text.to_owned()], None), NOW).unwrap();
    assert_eq!((outcome.stored, outcome.ack_through), (1, 1));
}

#[test]
fn a_batch_that_makes_no_sense_is_refused_whole() {
    let events = |events: &str, rest: &str| {
        Batch::parse(format!(r#"{{"boot":"{BOOT}","events":[{events}]{rest}}}"#).as_bytes())
            .map(drop)
    };
    let good = line(1, NOW, gap());
    assert_eq!(
        events(&good, r#","chain":[]"#).unwrap_err(),
        BatchError::Chain { chain: 0, events: 1 }
    );
    assert_eq!(
        events(&vec![good.as_str(); 501].join(","), "").unwrap_err(),
        BatchError::TooMany(501)
    );
    for bad in [
        r#"{"seq":1}"#,
        "7",
        &good.replace("\"seq\":1", "\"seq\":0"),
        &good.replace("event/1", "event/9"),
        &good.replace("\"at\":\"2", "\"at\":\"x"),
    ] {
        assert!(
            matches!(events(bad, "").unwrap_err(), BatchError::Event { place: 1, .. }),
            "{bad}"
        );
    }
    assert!(matches!(Batch::parse(b"{}").unwrap_err(), BatchError::Malformed(_)));
}

#[test]
fn a_token_is_good_once_and_a_wrong_ended_or_revoked_one_never() {
    let (_place, store) = store();
    let until = NOW.after(Span::from_hours(1));
    for id in ["good", "late", "back"] {
        store.keep_token(id, &crate::secret::token_hash(id), "web", NOW, until).unwrap();
    }
    let redeem = |token: &str, agent: &str, at| {
        store.redeem_token(
            &crate::secret::token_hash(token),
            &Enrolment {
                agent: agent.into(),
                host: "h".into(),
                certificate_until: until,
                spki: "00".into(),
            },
            at,
        )
    };
    assert!(store.check_token(&crate::secret::token_hash("good"), NOW).is_ok());
    redeem("good", "a", NOW).unwrap();
    assert!(matches!(redeem("good", "b", NOW), Err(RedeemError::Used)));
    assert!(matches!(redeem("wrong", "b", NOW), Err(RedeemError::Unknown)));
    assert!(matches!(redeem("late", "b", until), Err(RedeemError::Expired(_))));
    assert!(store.revoke_token("back", NOW).unwrap() && !store.revoke_token("good", NOW).unwrap());
    assert!(matches!(redeem("back", "b", NOW), Err(RedeemError::Revoked)));
    let hosts = store.hosts(NOW).unwrap();
    assert!(
        hosts.iter().any(|host| host.agent == "a"
            && host.group == "web"
            && host.liveness == Liveness::Waiting)
            && hosts.iter().all(|host| host.agent != "b")
    );
}

#[test]
fn two_openings_of_one_file_see_each_others_changes() {
    let (place, store) = store();
    let other = Store::open(&place.path().join("c.db"), false).unwrap();
    let mark = store.change_mark().unwrap();
    assert_eq!(store.change_mark().unwrap(), mark);
    assert!(other.deny(AGENT, "stolen", NOW).unwrap() && !other.deny("nobody", "x", NOW).unwrap());
    assert_ne!(store.change_mark().unwrap(), mark);
    assert!(store.denied().unwrap().contains(AGENT));
    assert_eq!(store.hosts(NOW).unwrap()[0].liveness, Liveness::Denied);
}

#[test]
fn a_file_that_is_absent_or_newer_is_not_opened() {
    let place = tempfile::tempdir().unwrap();
    assert!(matches!(
        Store::open(&place.path().join("none.db"), false),
        Err(StoreError::Open { .. })
    ));
    let path = place.path().join("new.db");
    drop(Store::open(&path, true).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(Store::open(&path, true), Err(StoreError::Newer { found: 99, .. })));
}

fn store() -> (tempfile::TempDir, Store) {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("c.db"), true).unwrap();
    store.keep_token("t", "hash", "web", NOW, NOW.after(Span::from_hours(1))).unwrap();
    let enrolment = Enrolment {
        agent: AGENT.into(),
        host: "web-1".into(),
        certificate_until: NOW.after(Span::from_hours(720)),
        spki: "00".into(),
    };
    store.redeem_token("hash", &enrolment, NOW).unwrap();
    (place, store)
}

fn gap() -> Body {
    Body::Gap(Gap { cause: "capture-drop".into(), count: 3, detail: "three frames".into() })
}

fn line(seq: u64, at: Timestamp, body: Body) -> String {
    serde_json::to_string(&Envelope::new(seq, "web-1", Record { at, body })).unwrap()
}

fn parse(lines: &[String], chain: Option<&[String]>) -> Batch {
    let chain = chain.map_or(String::new(), |chain| {
        format!(r#","chain":{}"#, serde_json::to_string(chain).unwrap())
    });
    Batch::parse(format!(r#"{{"boot":"{BOOT}","events":[{}]{chain}}}"#, lines.join(",")).as_bytes())
        .unwrap()
}

fn batch(seqs: std::ops::RangeInclusive<u64>, chain: Option<&[String]>) -> Batch {
    parse(&seqs.map(|seq| line(seq, NOW, gap())).collect::<Vec<_>>(), chain)
}

fn chain_of(lines: &[String]) -> Vec<String> {
    let mut last = "00".repeat(32);
    lines
        .iter()
        .map(|line| {
            last = intake::chained(&last, line).unwrap();
            last.clone()
        })
        .collect()
}

fn containment(id: &str, since: Timestamp, until: Timestamp) -> Containment {
    Containment {
        id: ContainmentId(id.into()),
        scope: Scope::Host,
        level: 5,
        since,
        until,
        cause: "plugx.tcp".into(),
        finding: None,
        by: None,
        measure: sekisho_schema::Measure::Cut,
        trial_until: None,
    }
}

fn heartbeat(at: Timestamp, containments: Vec<Containment>) -> Heartbeat {
    let mode = ModeChange { requested: Mode::Enforce, effective: Mode::Enforce, why: None };
    Heartbeat {
        boot: BOOT.into(),
        host: "web-1".into(),
        version: "0.1.0".into(),
        mode,
        policy_version: 1,
        containments,
        bytes_out: 1,
        spool: 0,
        coverage: Vec::new(),
        at,
    }
}

fn finding(explanation: &str, containment: Option<&str>) -> Finding {
    let decision = DecisionRecord {
        action: Action::Contain,
        scope: Some("host".into()),
        level: 5,
        reason: None,
        lease: None,
        containment: containment.map(|id| ContainmentId(id.into())),
    };
    Finding {
        id: "f-1".into(),
        detector: "plugx.tcp".into(),
        grade: Grade::Malicious,
        score: None,
        subject: Subject { kind: "host".into(), value: "web-1".into() },
        flow: None,
        name: None,
        process: None,
        place: None,
        indicator: None,
        explanation: explanation.into(),
        evidence: Vec::new(),
        frame: 1,
        first_packet_at: NOW,
        matched_at: NOW,
        decision,
        rule: None,
        policy: 1,
    }
}

/// Takes in the beginning of the containment `c-00000000aaaa` as the agent's first event.
fn begin(store: &Store, until: Timestamp) {
    let begun = containment("c-00000000aaaa", NOW, until);
    let event = line(1, NOW, Body::Containment(Box::new(begun)));
    store.take_in(AGENT, &parse(&[event], None), NOW).unwrap();
}
