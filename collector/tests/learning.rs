//! Learning at the centre: what hosts send, what people decide, what comes back under seal, and the fleet's governor.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    reason = "a test that can not go on must end there; the support is shared with other tests"
)]

#[path = "support/learned.rs"]
mod learned;
mod support;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use learned::{beacon, parts, record, theft, upload};
use sekisho_collector::clock;
use sekisho_collector::dir::Dir;
use sekisho_collector::learning::{Role, push};
use sekisho_collector::page::learning::{Asked, LearningBoard};
use sekisho_collector::page::render_learning;
use sekisho_collector::store::{Batch, Enrolment, PartOutcome, Store, Word};
use sekisho_engine::certify::report::dry_run;
use sekisho_schema::baseline::{BASELINE_KIND, Learned, LearnedPart, PartTaken};
use sekisho_schema::calendar::Calendar;
use sekisho_schema::certificate::{Budgets, CERTIFICATE_KIND};
use sekisho_schema::episode::{Channel, Tier};
use sekisho_schema::sealed::{key_pair, parse_secret};
use sekisho_schema::{Sealed, Span, Timestamp};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;
use support::{Collector, Link, cli, enrol, init, read, told};
use tokio::net::TcpStream;

const NOW: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);

fn agent(number: usize) -> String {
    format!("0a1b2c3d-0000-4000-8000-{number:012}")
}

/// A store with so many enrolled hosts.
fn store(hosts: usize) -> (tempfile::TempDir, Store) {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("c.db"), true).unwrap();
    for number in 0..hosts {
        let token = format!("t{number}");
        store.keep_token(&token, &token, "web", NOW, NOW.after(Span::from_hours(1))).unwrap();
        let enrolment = Enrolment {
            agent: agent(number),
            host: format!("web-{number}"),
            certificate_until: NOW.after(Span::from_hours(720)),
            spki: "first".into(),
        };
        store.redeem_token(&token, &enrolment, NOW).unwrap();
    }
    (place, store)
}

fn send(store: &Store, number: usize, record: &Learned) -> PartTaken {
    let mut last = None;
    for part in parts(record) {
        match store.take_learned(&agent(number), &part, NOW).unwrap() {
            PartOutcome::Taken(taken) => last = Some(taken),
            other => panic!("{other:?}"),
        }
    }
    last.unwrap()
}

#[test]
fn parts_that_come_again_or_in_pieces_leave_one_record_and_its_hours_count_when_it_is_whole() {
    let (_place, store) = store(1);
    let mut learned = record(0, NOW);
    learned.host = "another-name".into();
    learned.episodes.extend((0..600).map(|n| upload(&format!("n{n}.example"), learned.from, 1000)));
    learned.episodes.sort_by(|a, b| a.key.cmp(&b.key));
    let sent = parts(&learned);
    assert_eq!(sent.len(), 4);
    for part in &sent[..3] {
        store.take_learned(&agent(0), part, NOW).unwrap();
        assert!(
            store.learned("web").unwrap().is_empty(),
            "hours without their episodes would promise too much"
        );
    }
    for part in [&sent[1], &sent[2], &sent[3], &sent[3]] {
        store.take_learned(&agent(0), part, NOW).unwrap();
    }
    let held = store.learned("web").unwrap();
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].host, "web-0", "the host is the one that was enrolled");
    assert_eq!(held[0].episodes, learned.episodes);

    // A change and a loss, as parts say them.
    let mut later = learned.clone();
    later.episodes.retain(|episode| episode.key.destination.to_string() != "n7.example");
    let gone: Vec<String> = learned
        .episodes
        .iter()
        .filter(|e| e.key.destination.to_string() == "n7.example")
        .map(|e| e.name())
        .collect();
    let change = LearnedPart { gone, whole: Some(later.whole()), ..later.part() };
    let taken = PartTaken { episodes: later.episodes.len() as u64, again: false };
    assert_eq!(store.take_learned(&agent(0), &change, NOW).unwrap(), PartOutcome::Taken(taken));
    assert_eq!(store.learned("web").unwrap()[0].episodes, later.episodes);
}

#[test]
fn a_collector_that_lost_episodes_asks_for_everything_again_and_believes_no_hours_until_then() {
    let (_place, store) = store(1);
    let learned = record(0, NOW);
    let rest = LearnedPart { whole: Some(learned.whole()), ..learned.part() };
    let PartOutcome::Taken(taken) = store.take_learned(&agent(0), &rest, NOW).unwrap() else {
        panic!()
    };
    assert!(taken.again && store.learned("web").unwrap().is_empty());
    assert!(!send(&store, 0, &learned).again);
    assert_eq!(store.learned("web").unwrap()[0].hours, learned.hours);
}

#[test]
fn a_host_that_lies_about_its_hours_lends_the_role_nothing() {
    let (_place, store) = store(1);
    let learned = record(0, NOW);
    let outcome = |change: &dyn Fn(&mut LearnedPart)| {
        let mut part = LearnedPart { whole: Some(learned.whole()), ..learned.part() };
        change(&mut part);
        store.take_learned(&agent(0), &part, NOW).unwrap()
    };
    let of = |change: fn(&mut sekisho_schema::baseline::LearnedWhole)| {
        outcome(&|part: &mut LearnedPart| change(part.whole.as_mut().unwrap()))
    };
    for lie in [
        outcome(&|part| part.from = Timestamp::EPOCH),
        of(|whole| whole.hours = 100_000),
        of(|whole| whole.until = NOW.after(Span::from_hours(5000))),
        of(|whole| whole.hours_of_week = vec![4; 12]),
        outcome(&|part| part.role = "a\nb".into()),
        outcome(&|part| part.gone = vec![String::new(); 5000]),
    ] {
        assert!(matches!(lie, PartOutcome::Senseless(_)), "{lie:?}");
    }
    let stranger = store.take_learned("nobody", &parts(&learned)[0], NOW).unwrap();
    assert_eq!(stranger, PartOutcome::Stranger);
    assert!(store.learned("web").unwrap().is_empty());
}

/// A role of forty hosts; one of them beacons, one is robbed.
fn fleet() -> (tempfile::TempDir, Store) {
    let (place, store) = store(40);
    for number in 0..40 {
        let mut learned = record(number, NOW);
        let at = learned.from.after(Span::from_hours(50));
        match number {
            3 => learned.episodes.push(beacon("beacon.example", at, 70)),
            7 => learned.episodes.push(theft("theft.example", at)),
            _ => {}
        }
        learned.episodes.sort_by(|a, b| (&a.key, a.first_at).cmp(&(&b.key, b.first_at)));
        send(&store, number, &learned);
    }
    (place, store)
}

fn keys(place: &std::path::Path) -> Dir {
    let dir = Dir::new(place);
    std::fs::create_dir_all(dir.trust()).unwrap();
    std::fs::write(dir.trust().join("one.pub"), key_pair(&[1; 32]).1).unwrap();
    dir
}

fn sealed(kind: &str, version: u64, text: &str, seed: u8) -> String {
    let key = parse_secret(&key_pair(&[seed; 32]).0).unwrap();
    Sealed::wrap(kind, version, NOW.after(Span::from_hours(24)), text.as_bytes())
        .signed_by(&key)
        .to_text()
}

fn rule(store: &Store, item: &sekisho_engine::certify::review::Item, word: Word) {
    let ruling = sekisho_collector::store::PageRuling {
        at: NOW,
        role: "web".into(),
        item: item.id.clone(),
        key: item.key.clone(),
        word,
        by: "Aiko".into(),
        reason: "looked at it".into(),
        peer: "192.0.2.7".into(),
    };
    store.keep_ruling(&ruling).unwrap();
}

#[test]
fn a_role_goes_from_what_forty_hosts_learned_to_a_certificate_in_force() {
    let (place, store) = fleet();
    let dir = keys(place.path());
    let role = Role::read(&store, "web", NOW).unwrap();
    assert_eq!((role.pool.hosts.len(), role.pool.host_weeks()), (40, 160.0));
    let items = role.undecided();
    let of =
        |name: &str| items.iter().find(|item| item.key.destination.to_string() == name).unwrap();
    assert_eq!(items.len(), 2, "{items:#?}");
    let locked = role.certify(&role.baseline, &Budgets::default(), 0.95, NOW);
    assert!(
        locked.undecided == 2
            && locked.threshold(Tier::CutDestination, Channel::Allowance).is_none()
    );

    rule(&store, of("theft.example"), Word::KeepHeld);
    rule(&store, of("beacon.example"), Word::KeepHeld);
    // A later word counts.
    rule(&store, of("beacon.example"), Word::Approve);
    assert_eq!(store.audit_rulings().unwrap(), (3, None));
    let role = Role::read(&store, "web", NOW).unwrap();
    assert_eq!((role.undecided().len(), role.unsealed()), (0, 2));
    let next = role.draft(NOW);
    assert_eq!((next.version, next.refused.len()), (1, 1));
    let signed =
        next.entry.iter().find(|entry| entry.destination.to_string() == "beacon.example").unwrap();
    assert_eq!(signed.signed_by.as_deref(), Some("Aiko"));
    let text = next.to_text().unwrap();
    for (version, seed) in [(1, 2), (7, 1)] {
        assert!(push(&dir, &store, &sealed(BASELINE_KIND, version, &text, seed), NOW).is_err());
    }
    push(&dir, &store, &sealed(BASELINE_KIND, 1, &text, 1), NOW).unwrap();
    assert!(push(&dir, &store, &sealed(BASELINE_KIND, 1, &text, 1), NOW).is_err());

    let role = Role::read(&store, "web", NOW).unwrap();
    assert_eq!((role.baseline.version, role.unsealed(), role.undecided().len()), (1, 0, 0));
    let made = role.certify(&role.baseline, &Budgets::default(), 0.95, NOW);
    assert!(made.threshold(Tier::CutDestination, Channel::Allowance).is_some());
    let pushed =
        push(&dir, &store, &sealed(CERTIFICATE_KIND, 1, &made.to_text().unwrap(), 1), NOW).unwrap();
    assert_eq!((pushed.role.as_str(), pushed.version), ("web", 1));
    // What was kept held would be cut under it.
    let report = dry_run(&role.pool, &role.baseline, &made, &Calendar::unknown());
    let cut = report.actions.iter().find(|action| action.channel == Channel::Allowance).unwrap();
    assert_eq!((cut.tier, cut.standing), (Tier::CutDestination, "refused"));
    assert_eq!(store.roles().unwrap()[0].certificate, Some(1));
}

#[test]
fn a_ruling_that_is_changed_or_taken_out_is_found_by_the_audit() {
    for damage in [
        "UPDATE rulings SET line = replace(line, 'Aiko', 'Ben') WHERE row = 2",
        "DELETE FROM rulings WHERE row = 1",
    ] {
        let (place, store) = fleet();
        let role = Role::read(&store, "web", NOW).unwrap();
        for item in role.undecided().iter().chain(&role.undecided()) {
            rule(&store, item, Word::KeepHeld);
        }
        assert_eq!(store.audit_rulings().unwrap(), (4, None));
        let other = rusqlite::Connection::open(place.path().join("c.db")).unwrap();
        other.execute(damage, []).unwrap();
        assert!(store.audit_rulings().unwrap().1.is_some(), "{damage}");
    }
}

/// A finding of behaviour that cut a destination under a certificate.
fn cut(seq: u64, tier: &str, action: &str) -> Value {
    let score = json!({"channel": "allowance", "score": 2e9, "at": NOW, "inputs": {"up": 2e9, "down": 0.0}});
    let key = json!({"workload": "unit:web.service", "destination": "theft.example", "service": "tcp/443"});
    let evidence = json!({"kind": "score", "key": key, "score": score, "reached": tier, "tier": tier, "threshold": 1e6, "counter_threshold": 2e9, "budget": 0.04, "reduced": null});
    let decision = json!({"action": action, "scope": "dest:203.0.113.9", "level": 3, "reason": null, "lease": "24h", "containment": format!("c-{seq:012}")});
    json!({
        "schema": "sekisho.event/1", "seq": seq, "at": NOW, "host": "web", "type": "finding", "id": format!("f-{seq}"), "detector": "behaviour.allowance", "grade": "suspect", "score": 2e9,
        "subject": {"kind": "destination", "value": "203.0.113.9"}, "flow": null, "name": null, "process": null, "place": null, "indicator": null, "explanation": "x", "evidence": [evidence],
        "frame": 1, "first_packet_at": NOW, "matched_at": NOW, "decision": decision, "rule": null, "policy": 1
    })
}

fn take(store: &Store, number: usize, at: Timestamp, events: &[Value]) {
    let body = json!({"boot": "00112233445566aa", "events": events}).to_string();
    let batch = Batch::parse(body.as_bytes()).unwrap();
    assert!(batch.events.iter().all(|event| event.body.is_some()));
    store.take_in(&agent(number), &batch, at).unwrap();
}

#[test]
fn the_cuts_of_a_role_are_counted_over_its_hosts_and_the_person_on_duty_is_told_when_they_are_spent()
 {
    let (place, store) = fleet();
    let dir = keys(place.path());
    let role = Role::read(&store, "web", NOW).unwrap();
    assert!(
        store.fleet(NOW).unwrap().is_empty(),
        "without a certificate there is nothing to spend"
    );
    for item in role.undecided() {
        rule(&store, &item, Word::KeepHeld);
    }
    let role = Role::read(&store, "web", NOW).unwrap();
    let made = role.certify(&role.draft(NOW), &Budgets::default(), 0.95, NOW);
    push(&dir, &store, &sealed(CERTIFICATE_KIND, 1, &made.to_text().unwrap(), 1), NOW).unwrap();
    // 0.12 a host-week of forty hosts.
    let left = |at| {
        let fleet = store.fleet(at).unwrap();
        (fleet["web"].of, fleet["web"].left)
    };
    assert_eq!(left(NOW), (5, 5));
    // A host that sends a thousand spends one; holds and what was withheld spend none.
    let lies: Vec<Value> = (1..=400).map(|seq| cut(seq, "cut-destination", "contain")).collect();
    take(&store, 0, NOW, &lies);
    take(&store, 1, NOW, &[cut(1, "hold", "contain"), cut(2, "cut-destination", "withhold")]);
    assert_eq!(left(NOW), (5, 4));
    for host in 2..6 {
        take(
            &store,
            host,
            NOW.after(Span::from_hours(host as i64)),
            &[cut(1, "cut-destination", "contain")],
        );
    }
    let later = NOW.after(Span::from_hours(10));
    assert_eq!(left(later), (5, 0));
    for _ in 0..2 {
        store.tell_spent(&store.fleet(later).unwrap(), later).unwrap();
    }
    let notices = store.notices(false, 10).unwrap();
    assert_eq!((notices.len(), notices[0].kind.as_str()), (1, "governor"));
    assert!(
        notices[0].text.contains("is held until") && notices[0].text.contains("nothing is opened"),
        "{}",
        notices[0].text
    );
    // A week later the first comes back.
    assert_eq!(left(NOW.after(Span::from_hours(169))), (5, 1));
}

/// A request to the plain page.
async fn page(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, HashMap<String, String>, String) {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request =
        hyper::Request::builder().method(method).uri(path).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = sender
        .send_request(request.body(Full::new(Bytes::from(body.to_owned()))).unwrap())
        .await
        .unwrap();
    let headers = answer
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    let (status, text) = read(answer).await;
    (status, headers, text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_wire_to_the_page_to_a_sealed_certificate_that_hosts_fetch() {
    let place = tempfile::tempdir().unwrap();
    let (dir, said) = init(place.path());
    let at = dir.to_str().unwrap();
    let file = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    told(&["policy", "keygen", "--out", &file("key")]);
    told(&["trust", "add", &file("key.pub"), "--dir", at]);
    let collector = Collector::start(&dir);
    let ca = std::fs::read_to_string(dir.join("ca.pem")).unwrap();
    let now = clock::now();
    let mut links = Vec::new();
    for number in 0..3 {
        let (identity, _) = enrol(&collector, &dir, &format!("web-{number}")).await;
        let mut link = Link::open(collector.port, &ca, Some(&identity)).await.unwrap();
        let mut learned = record(number, now);
        if number == 1 {
            learned.episodes.push(beacon(
                "beacon.example",
                learned.from.after(Span::from_hours(9)),
                70,
            ));
        }
        for part in parts(&learned) {
            let (status, text) =
                link.ask("POST", "/v1/learned", &serde_json::to_string(&part).unwrap()).await;
            assert_eq!(status, 200, "{text}");
        }
        links.push(link);
    }
    let (status, text) = links[0].ask("POST", "/v1/learned", "{}").await;
    assert_eq!(status, 400, "{text}");

    // The page shows what is to be decided; only its own form with the password decides.
    let (_, headers, text) = page(collector.page, "GET", "/learning", &[], "").await;
    let policy = &headers["content-security-policy"];
    assert!(
        policy.contains("form-action 'self'")
            && policy.starts_with("default-src 'none'")
            && !text.contains("<script")
    );
    assert!(
        text.contains("Role web")
            && text.contains("beacon.example")
            && text.contains("The last 16 gaps"),
        "{text}"
    );
    let token =
        text.split("name=\"token\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let item =
        text.split("name=\"item\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let password = said
        .split("operator password: ")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .to_owned();
    let basic = format!(
        "Basic {}",
        base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            format!("operator:{password}")
        )
    );
    let form = |token: &str| {
        format!(
            "token={token}&role=web&item={item}&word=keep-held&by=Aiko+%3Cb%3E&reason=nobody+knows+it"
        )
    };
    let auth = ("authorization", basic.as_str());
    for (headers, body, expected) in [
        (vec![], form(&token), 401),
        (vec![("authorization", "Basic b3BlcmF0b3I6eA==")], form(&token), 401),
        (vec![auth], form("00"), 403),
        (vec![auth, ("sec-fetch-site", "cross-site")], form(&token), 403),
        (vec![auth, ("origin", "https://evil.example")], form(&token), 403),
        (vec![auth], form(&token).replace("Aiko+%3Cb%3E", "+"), 400),
        (vec![auth], form(&token).replace(&item, "00000000"), 404),
        (vec![auth], form(&token).replace("keep-held", "forget"), 400),
    ] {
        let (status, _, text) =
            page(collector.page, "POST", "/learning/rule", &headers, &body).await;
        assert_eq!(status, expected, "{headers:?} {text}");
    }
    let (_, _, none) = page(collector.page, "GET", "/api/v1/learning/rulings", &[], "").await;
    assert_eq!(
        serde_json::from_str::<Value>(&none).unwrap()["rulings"].as_array().unwrap().len(),
        0
    );
    let (status, headers, _) = page(
        collector.page,
        "POST",
        "/learning/rule",
        &[auth, ("sec-fetch-site", "same-origin"), ("origin", "null")],
        &form(&token),
    )
    .await;
    assert_eq!(status, 303);
    let (_, _, text) =
        page(collector.page, "GET", headers["location"].split('#').next().unwrap(), &[], "").await;
    assert!(
        text.contains("Recorded: ")
            && text.contains("Aiko &#60;b&#62;")
            && !text.contains("Aiko <b>"),
        "{text}"
    );
    assert!(text.contains("Nothing waits for a decision"), "{text}");
    assert!(
        told(&["audit", "verify", "--dir", at])
            .contains("decisions made on the page: 1, their chain holds")
    );

    // Made, compared, sealed elsewhere, pushed; a host is told and fetches it once.
    told(&["baseline", "draft", "--dir", at, "--out", &file("b.toml")]);
    told(&["baseline", "seal", &file("b.toml"), "--key", &file("key"), "--out", &file("b.sealed")]);
    let stream = links[1].send("GET", "/v1/stream", &[], "").await.unwrap();
    told(&["baseline", "push", &file("b.sealed"), "--dir", at]);
    let output = cli(&["baseline", "push", &file("b.sealed"), "--dir", at]);
    assert_eq!(output.status.code(), Some(1), "the same version again");
    told(&[
        "baseline",
        "certify",
        "--dir",
        at,
        "--out",
        &file("c.sealed"),
        "--key",
        &file("key"),
        "--budget",
        "hold.rhythm=1.0",
    ]);
    let differs = cli(&["baseline", "diff", &file("b.toml"), &file("c.toml")]);
    assert_eq!(differs.status.code(), Some(2), "a baseline is no certificate");
    told(&["baseline", "push", &file("c.sealed"), "--dir", at]);
    certified_notice(stream).await;
    for kind in [BASELINE_KIND, CERTIFICATE_KIND] {
        let (status, text) =
            links[0].ask("GET", &format!("/v1/certified/{kind}?role=web&have=0"), "").await;
        assert_eq!((status, Sealed::parse(&text).unwrap().kind.as_str()), (200, kind));
        let (status, text) = links[0].ask("GET", &format!("/v1/certified/{kind}?have=1"), "").await;
        assert_eq!((status, text.as_str()), (204, ""), "by the role that the collector knows");
        let (status, _) = links[0].ask("GET", &format!("/v1/certified/{kind}?role=db"), "").await;
        assert_eq!(status, 404);
    }
    let said = told(&["baseline", "status", "--dir", at]);
    assert!(
        said.contains("3 of 3 hosts learned 12.0 host-weeks")
            && said.contains("baseline 1, certificate 1"),
        "{said}"
    );
    let report = cli(&["baseline", "report", "--dir", at, "-o", "json"]);
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["actions"][0]["standing"], "refused");
}

async fn certified_notice(answer: hyper::Response<hyper::body::Incoming>) {
    let mut body = answer.into_body();
    let mut text = String::new();
    let reading = async {
        while !text.contains("event: certified\n") {
            let frame = body.frame().await.expect("the stream ended").unwrap();
            text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(5), reading).await.expect("no notice came");
}

#[test]
fn a_database_of_the_version_before_is_carried_over_with_its_hosts() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("c.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../src/store/schema.sql")).unwrap();
    old.execute_batch(include_str!("../src/store/schema-2.sql")).unwrap();
    old.execute("INSERT INTO hosts (agent, host, grp, enrolled_at, certificate_until) VALUES (?1, 'web-0', 'web', ?2, ?2)", rusqlite::params![agent(0), NOW.nanos()]).unwrap();
    old.pragma_update(None, "user_version", 2).unwrap();
    drop(old);
    for _ in 0..2 {
        let store = Store::open(&path, false).unwrap();
        assert_eq!(store.role_of(&agent(0)).unwrap().as_deref(), Some("web"));
    }
}

#[test]
fn hostile_names_of_a_host_never_become_markup_or_a_command() {
    let (_place, store) = store(1);
    let evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u{202e}";
    let mut learned = record(0, NOW);
    learned.role = format!("web {evil}");
    let mut episode = beacon("evil.example", learned.from, 70);
    episode.key.workload = format!("program:/{evil}").parse().unwrap();
    episode.key.destination = "<b>\"'><i>".parse().unwrap();
    learned.episodes.push(episode);
    send(&store, 0, &learned);
    let board = LearningBoard::read(&store, &Asked::default(), &Calendar::unknown(), NOW).unwrap();
    let page = render_learning(&board, "nonce").unwrap();
    assert!(page.contains("alert(1)") && page.contains("u{202e}"));
    assert!(
        !page.contains("<script")
            && !page.contains("<img")
            && !page.contains("<b>\"")
            && !page.contains(" onerror=alert(2)>\"")
    );
    assert!(!page.contains("baseline draft --role"), "no command with a hostile name in it");
    assert!(!page.contains(" style=") && !page.contains("http://") && !page.contains("https://"));
    // Every picture has words in its place, every field a label.
    assert_eq!(page.matches("<svg").count(), page.matches("role=\"img\" aria-label=\"").count());
    assert_eq!(page.matches("<input name=").count(), page.matches("<label").count());
}

#[test]
fn a_role_that_sent_nothing_and_a_collector_without_hosts_say_so() {
    let (_place, store) = store(0);
    let said = |store: &Store| {
        let board =
            LearningBoard::read(store, &Asked::default(), &Calendar::unknown(), NOW).unwrap();
        render_learning(&board, "nonce").unwrap()
    };
    assert!(said(&store).contains("No host is enrolled, so nothing is learned."));
    let (_place, store) = self::store(2);
    assert!(
        said(&store)
            .contains("2 hosts of role web are enrolled; none has sent what it learned yet")
    );
}
