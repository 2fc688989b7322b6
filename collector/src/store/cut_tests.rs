use super::*;
use crate::config::Keeping;
use sekisho_schema::event::{DrillReport, Gap, Release};
use sekisho_schema::policy::DrillPlan;
use sekisho_schema::{
    Body, Containment, ContainmentId, Envelope, Measure, Proof, Receipt, Record, Scope, Span,
};
use sha2::{Digest, Sha256};

const NOW: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);
const BOOT: &str = "00112233445566aa";
const ID: &str = "c-0123456789ab";

fn agent(number: usize) -> String {
    format!("0a1b2c3d-0000-4000-8000-{number:012}")
}

fn fleet(groups: &[&str]) -> (tempfile::TempDir, Store) {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("c.db"), true).unwrap();
    for (number, group) in groups.iter().enumerate() {
        let token = format!("t{number}");
        store.keep_token(&token, &token, group, NOW, NOW.after(Span::from_hours(1))).unwrap();
        let enrolment = Enrolment {
            agent: agent(number),
            host: format!("host-{number}"),
            certificate_until: NOW.after(Span::from_hours(720)),
            spki: "first".into(),
        };
        store.redeem_token(&token, &enrolment, NOW).unwrap();
    }
    (place, store)
}

fn take(store: &Store, number: usize, at: Timestamp, bodies: Vec<Body>) {
    let first = store.acknowledged(&agent(number), BOOT).unwrap() + 1;
    let lines: Vec<String> = bodies
        .into_iter()
        .zip(first..)
        .map(|(body, seq)| {
            let line = Envelope::new(seq, &format!("host-{number}"), Record { at, body });
            serde_json::to_string(&line).unwrap()
        })
        .collect();
    let text = format!("{{\"boot\":\"{BOOT}\",\"events\":[{}]}}", lines.join(","));
    store.take_in(&agent(number), &Batch::parse(text.as_bytes()).unwrap(), at).unwrap();
}

fn cut(id: &str, since: Timestamp) -> Containment {
    Containment {
        id: ContainmentId(id.into()),
        scope: Scope::Host,
        level: 5,
        since,
        until: since.after(Span::from_hours(24)),
        measure: Measure::Cut,
        trial_until: Some(since.after(Span::from_secs(120))),
        cause: "plugx.tcp".into(),
        finding: None,
        by: None,
    }
}

fn receipt(id: &str, cut: &str, exemptions: &str) -> Receipt {
    Receipt {
        generation: 1,
        containment: ContainmentId(id.into()),
        finding: None,
        scope: Scope::Host,
        applied: true,
        error: None,
        committed_at: Some(NOW),
        last_packet_at: None,
        time_to_contain_ns: Some(1),
        leaked_packets: 0,
        leaked_bytes: 0,
        sockets_destroyed: 0,
        proof: Proof {
            cut: Some(cut.into()),
            exemptions: Some(exemptions.into()),
            ..Proof::default()
        },
        coverage: vec!["af_xdp".into()],
        target: vec!["cgroup 7".into()],
        open: vec!["established sockets of others".into()],
    }
}

#[test]
fn a_database_of_the_first_version_is_taken_over_with_what_it_holds() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("c.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("schema.sql")).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    old.execute("INSERT INTO meta VALUES ('organisation', 'example.org')", []).unwrap();
    drop(old);
    let store = Store::open(&path, false).unwrap();
    assert_eq!(store.meta("organisation").unwrap().unwrap(), "example.org");
    assert!(store.notices(true, 1).unwrap().is_empty() && store.audit().unwrap().is_empty());
    drop(store);
    assert!(Store::open(&path, false).is_ok(), "taken over once");
}

#[test]
fn a_trial_is_confirmed_by_its_good_receipt_on_the_disk_and_by_nothing_less() {
    let (_place, store) = fleet(&["web"]);
    let asked = || store.confirmable(&agent(0), NOW).unwrap();
    take(&store, 0, NOW, vec![Body::Containment(Box::new(cut(ID, NOW)))]);
    assert!(asked().is_empty(), "no receipt yet");
    for (cut, exemptions) in [("unproven", "ok"), ("proven", "broken")] {
        take(&store, 0, NOW, vec![Body::Receipt(Box::new(receipt(ID, cut, exemptions)))]);
        assert!(asked().is_empty(), "{cut} {exemptions}");
    }
    take(&store, 0, NOW, vec![Body::Receipt(Box::new(receipt(ID, "proven", "ok")))]);
    // Until the agent says that it has heard it.
    assert_eq!(
        (asked(), asked()),
        (vec![ContainmentId(ID.into())], vec![ContainmentId(ID.into())])
    );
    let view = store.containments(false, 9, NOW).unwrap().remove(0);
    assert_eq!(view.confirmed_at, Some(NOW));
    let receipt = view.receipt.unwrap();
    assert_eq!(
        (receipt.open.len(), receipt.coverage, receipt.target.len()),
        (1, vec!["af_xdp".to_owned()], 1)
    );
    let held = Containment { trial_until: None, ..cut(ID, NOW) };
    take(&store, 0, NOW, vec![Body::Containment(Box::new(held))]);
    assert!(asked().is_empty(), "it is on trial no more");
}

#[test]
fn the_fuse_counts_hosts_of_the_group_within_the_hour_and_no_persons_orders() {
    let (_place, store) = fleet(&["web", "web", "web", "mail"]);
    // One host that tells of five cuts counts once: it can't spend the share of the others.
    for number in 0..5 {
        take(&store, 0, NOW, vec![Body::Containment(Box::new(cut(&format!("c-{number}"), NOW)))]);
    }
    let later = NOW.after(Span::from_secs(600));
    take(&store, 1, later, vec![Body::Containment(Box::new(cut(ID, later)))]);
    let ordered = Containment { by: Some("aiko".into()), ..cut(ID, later) };
    take(&store, 2, later, vec![Body::Containment(Box::new(ordered))]);
    let spent = store.spent(later).unwrap();
    assert_eq!(spent.len(), 1, "{spent:?}");
    assert_eq!(spent["web"], GroupSpent { count: 2, since: NOW });
    let after = NOW.after(Span::from_secs(3601));
    assert_eq!(store.spent(after).unwrap()["web"], GroupSpent { count: 1, since: later });
    assert!(store.spent(later.after(Span::from_secs(3600))).unwrap().is_empty());
}

#[test]
fn each_incident_calls_a_person_once_however_often_it_is_told() {
    let (_place, store) = fleet(&["web"]);
    let release = |cause: &str, id: &str| {
        Body::Release(Release {
            containment: ContainmentId(id.into()),
            scope: Scope::Host,
            cause: cause.into(),
            by: None,
            reason: None,
        })
    };
    let gap = |cause: &str| {
        Body::Gap(Gap { cause: cause.into(), count: 1, detail: "the budget is spent".into() })
    };
    let failed = Receipt { applied: false, error: Some("ENOENT".into()), ..receipt(ID, "x", "x") };
    let drill =
        DrillReport { name: "jtb".into(), detail: "1 kB left".into(), ..Default::default() };
    for _ in 0..2 {
        take(
            &store,
            0,
            NOW,
            vec![
                release("trial", "c-a"),
                release("escalated", "c-b"),
                release("expired", "c-c"),
                release("order", "c-d"),
                Body::Receipt(Box::new(failed.clone())),
                gap("capture-drop"),
            ],
        );
    }
    take(&store, 0, NOW, vec![gap("fuse"), Body::Drill(drill)]);
    let mut kinds: Vec<String> =
        store.notices(false, 100).unwrap().into_iter().map(|notice| notice.kind).collect();
    kinds.sort();
    assert_eq!(kinds, ["drill-failed", "escalated", "fuse", "not-applied", "trial-released"]);
}

#[test]
fn a_notice_goes_to_the_owner_then_to_the_deputy_until_somebody_takes_it_on() {
    let (_place, store) = fleet(&["web"]);
    let notice = NewNotice {
        key: "k".into(),
        kind: NoticeKind::Fuse,
        agent: Some(&agent(0)),
        group: None,
        subject: "s".into(),
        text: "t".into(),
    };
    assert!(store.notice(&notice, NOW).unwrap() && !store.notice(&notice, NOW).unwrap());
    let patience = Span::from_secs(900);
    let due = |secs| store.due_deliveries(patience, NOW.after(Span::from_secs(secs))).unwrap();
    let whom = |secs| due(secs).into_iter().map(|due| due.who).collect::<Vec<_>>();
    let first = due(0).remove(0);
    assert_eq!((first.who.as_str(), first.notice.group.as_deref()), ("owner", Some("web")));
    store.delivered(&first, Some("no answer in time"), NOW).unwrap();
    assert_eq!(store.notice_counts().unwrap(), (1, 1));
    assert!(whom(4).is_empty() && whom(5) == ["owner"], "tried again after the wait");
    let again = due(5).remove(0);
    assert_eq!(again.attempts, 1);
    store.delivered(&again, None, NOW.after(Span::from_secs(5))).unwrap();
    assert_eq!(store.notice_counts().unwrap(), (1, 0));
    assert!(whom(899).is_empty() && whom(900) == ["deputy"]);
    assert!(store.see_notice(1, "ben", Some("mine"), NOW).unwrap());
    assert!(!store.see_notice(1, "aiko", None, NOW).unwrap());
    assert!(whom(1000).is_empty() && store.notice_counts().unwrap() == (0, 0));
    let seen = store.notices(true, 1).unwrap().remove(0);
    assert_eq!((seen.seen_by.as_deref(), seen.deliveries.len()), (Some("ben"), 2));
}

#[test]
fn a_later_certificate_in_use_ends_the_one_before_and_its_use_calls_a_person() {
    let (_place, store) = fleet(&["web"]);
    let later = NOW.after(Span::from_hours(400));
    let show = |spki| store.show_certificate(&agent(0), spki, later).unwrap();
    assert_eq!(show("first"), Standing::Good);
    store.renewed(&agent(0), "second", later.after(Span::from_hours(720)), later).unwrap();
    assert_eq!(show("first"), Standing::Good, "the answer with the new one may have been lost");
    assert_eq!(show("second"), Standing::Good);
    assert_eq!(
        store.hosts(later).unwrap()[0].certificate_until,
        later.after(Span::from_hours(720))
    );
    assert_eq!(
        (show("first"), show("first"), show("second")),
        (Standing::Replaced, Standing::Replaced, Standing::Good)
    );
    let notices = store.notices(false, 9).unwrap();
    assert_eq!((notices.len(), notices[0].kind.as_str()), (1, "identity-copied"));
}

#[test]
fn an_order_is_handed_out_until_it_is_answered_or_stale() {
    let (_place, store) = fleet(&["web", "web"]);
    let until = NOW.after(Span::from_secs(900));
    let order = |id: &str, host: &str| NewOrder {
        id: id.into(),
        host: host.into(),
        sealed: "sealed".into(),
        sealed_by: "aiko".into(),
        expires: until,
    };
    assert_eq!(store.keep_order(&order("o-1", "nobody"), NOW).unwrap(), 0);
    assert_eq!(store.keep_order(&order("o-1", "host-0"), NOW).unwrap(), 1);
    assert_eq!(store.keep_order(&order("o-2", "host-0"), NOW).unwrap(), 1);
    let open = store.orders_open(NOW).unwrap();
    let names: Vec<&str> = open[&agent(0)].iter().map(String::as_str).collect();
    assert_eq!((open.len(), names), (1, vec!["o-1", "o-2"]));
    let hand = |at| store.hand_orders(&agent(0), at).unwrap().len();
    assert_eq!((hand(NOW), hand(NOW), store.hand_orders(&agent(1), NOW).unwrap().len()), (2, 2, 0));
    let answer = OrderAnswer { done: true, detail: "done".into(), containment: None };
    assert!(!store.answer_order(&agent(1), "o-1", &answer, NOW).unwrap(), "another's order");
    assert!(store.answer_order(&agent(0), "o-1", &answer, NOW).unwrap());
    let refusal = OrderAnswer { done: false, detail: "1 of 2".into(), containment: None };
    assert!(store.answer_order(&agent(0), "o-1", &refusal, NOW).unwrap(), "the first counts");
    assert_eq!((hand(NOW), hand(until)), (1, 0));
    let states: Vec<OrderState> =
        store.orders(9, until).unwrap().into_iter().map(|order| order.state).collect();
    assert_eq!(states, [OrderState::Done, OrderState::Lapsed]);
    assert!(store.notices(true, 9).unwrap().is_empty());
}

#[test]
fn a_rehearsal_that_no_host_of_a_group_held_in_time_is_overdue_and_told_once() {
    let (_place, store) = fleet(&["web", "mail"]);
    let plans = [DrillPlan { name: "jtb".into(), every: Span::from_hours(24) }];
    let at = |hours| NOW.after(Span::from_hours(hours));
    let late = |hours| {
        let overdue = store.drills_overdue(&plans, NOW, at(hours)).unwrap();
        store.tell_overdue(&overdue, at(hours)).unwrap();
        overdue.into_iter().map(|one| one.group).collect::<Vec<_>>()
    };
    assert!(late(24).is_empty());
    let drill =
        |passed| Body::Drill(DrillReport { name: "jtb".into(), passed, ..Default::default() });
    take(&store, 0, at(20), vec![drill(true)]);
    take(&store, 1, at(20), vec![drill(false)]);
    assert_eq!((late(25), late(26)), (vec!["mail".to_owned()], vec!["mail".to_owned()]));
    assert_eq!(late(45), ["mail", "web"]);
    let told = store.notices(true, 99).unwrap();
    let overdue = told.iter().filter(|notice| notice.kind == "drill-overdue").count();
    assert_eq!(overdue, 2, "{told:?}");
    assert!(told.iter().any(|notice| notice.group.as_deref() == Some("mail")));
    let last = store.drills().unwrap();
    assert_eq!(last.iter().map(|drill| drill.passed).collect::<Vec<_>>(), [false, true]);
}

/// Stores `count` events of one boot with their chain, a day apart.
fn a_year(store: &Store, count: u64) {
    let mut hash = [0_u8; 32];
    for seq in 1..=count {
        let at = NOW.before(Span::from_hours(24 * i64::try_from(count - seq).unwrap()));
        let body = Body::Gap(Gap { cause: "journal".into(), count: seq, detail: "x".repeat(2000) });
        let line =
            serde_json::to_string(&Envelope::new(seq, "host-0", Record { at, body })).unwrap();
        hash = Sha256::new().chain_update(hash).chain_update(&line).finalize().into();
        let chain = sekisho_schema::sealed::hex(&hash);
        let text = format!("{{\"boot\":\"{BOOT}\",\"events\":[{line}],\"chain\":[\"{chain}\"]}}");
        store.take_in(&agent(0), &Batch::parse(text.as_bytes()).unwrap(), at).unwrap();
    }
}

#[test]
fn old_events_go_day_by_day_and_the_chain_of_what_stays_is_still_checked() {
    let (_place, store) = fleet(&["web"]);
    a_year(&store, 60);
    let days = |days: i64| Span::from_hours(24 * days);
    let keep = Keeping { events: days(20), cuts: days(1200), largest: 0 };
    let pruning = store.prune(&keep, NOW).unwrap().unwrap();
    assert_eq!((pruning.events, pruning.why.as_str()), (39, "age"));
    assert!(store.prune(&keep, NOW).unwrap().is_none(), "nothing is left to remove");
    let report = store.audit().unwrap().remove(0);
    assert_eq!(
        (report.events, report.removed, report.missing, report.broken.len()),
        (21, 39, 0, 0)
    );
    assert_eq!(store.prunings(9).unwrap(), [pruning]);
    // The first event that stayed is still held by the hash of the last that went.
    store
        .on_disk("forge", |transaction| {
            transaction
                .execute("UPDATE events SET json = replace(json, 'xx', 'yy') WHERE seq = 40", [])
        })
        .unwrap();
    assert_eq!(store.audit().unwrap()[0].broken, [40]);
    // And what is sent again is not stored twice.
    assert_eq!(store.acknowledged(&agent(0), BOOT).unwrap(), 60);
}

#[test]
fn a_database_that_is_too_large_loses_its_oldest_days_but_never_the_last_week() {
    let (_place, store) = fleet(&["web"]);
    take(&store, 0, NOW.before(Span::from_hours(24 * 60)), Vec::new());
    a_year(&store, 60);
    let days = |days: i64| Span::from_hours(24 * days);
    let keep = Keeping { events: days(400), cuts: days(1200), largest: 1 };
    let mut rounds = 0;
    while let Some(pruning) = store.prune(&keep, NOW).unwrap() {
        assert_eq!(pruning.why, "size");
        rounds += 1;
        assert!(rounds < 100);
    }
    let left = store.audit().unwrap().remove(0);
    assert!(
        (7..=8).contains(&left.events) && left.missing == 0 && rounds > 40,
        "{left:?} {rounds}"
    );
    assert_eq!(store.notices(true, 9).unwrap()[0].kind, "store-full");
}

#[test]
fn what_was_cut_outlives_its_events_and_what_may_be_in_force_is_never_removed() {
    let (_place, store) = fleet(&["web"]);
    let year = |years: i64| NOW.before(Span::from_hours(24 * 365 * years));
    let lasting =
        Containment { until: NOW.after(Span::from_hours(1)), ..cut("c-lasting", year(5)) };
    for (containment, at) in
        [(cut("c-old", year(5)), year(5)), (cut("c-two", year(2)), year(2)), (lasting, year(5))]
    {
        take(&store, 0, at, vec![Body::Containment(Box::new(containment))]);
    }
    let days = |days: i64| Span::from_hours(24 * days);
    let keep = Keeping { events: days(400), cuts: days(1200), largest: 0 };
    let pruning = store.prune(&keep, NOW).unwrap().unwrap();
    assert_eq!((pruning.events, pruning.other), (3, 1));
    let mut left: Vec<String> = store
        .containments(true, 9, NOW)
        .unwrap()
        .into_iter()
        .map(|view| view.containment.id.0)
        .collect();
    left.sort();
    assert_eq!(left, ["c-lasting", "c-two"]);
}
