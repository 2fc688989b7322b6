use super::*;
use crate::store::{Batch, Enrolment, Heartbeat, Store};
use sekisho_schema::{Span, Timestamp};
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);
const AGENT: &str = "0a1b2c3d-0000-4000-8000-000000000001";
const EVIL: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u{202e}";

#[test]
fn hostile_text_of_an_event_never_becomes_markup() {
    let (_place, store) = store();
    let decision = json!({"action": "contain", "scope": format!("cgroup:/{EVIL}"), "level": 4, "reason": null, "lease": "24h", "containment": EVIL});
    let finding = json!({
        "id": EVIL, "detector": EVIL, "grade": "malicious", "score": null, "subject": {"kind": EVIL, "value": EVIL}, "flow": null, "name": EVIL,
        "process": {"pid": 1, "exe": EVIL, "cgroup": EVIL, "unit": EVIL, "container": EVIL}, "place": {"country": EVIL, "asn": 1, "organization": EVIL},
        "indicator": {"id": EVIL, "value": EVIL, "source": EVIL, "confidence": 9, "valid_until": null}, "explanation": EVIL, "evidence": [{"kind": EVIL, "x": EVIL, EVIL: [EVIL]}],
        "frame": 1, "first_packet_at": NOW, "matched_at": NOW, "decision": decision, "rule": EVIL, "policy": 1
    });
    let containment = json!({"id": EVIL, "scope": format!("container:{EVIL}"), "level": 4, "since": NOW, "until": NOW.after(Span::from_hours(1)), "cause": EVIL, "finding": EVIL, "by": EVIL});
    let receipt = json!({
        "generation": 1, "containment": EVIL, "finding": EVIL, "scope": "host", "applied": false, "error": EVIL, "committed_at": null, "last_packet_at": null, "time_to_contain_ns": 1,
        "leaked_packets": 1, "leaked_bytes": 1, "sockets_destroyed": 0, "proof": {"cut": EVIL, "exemptions": EVIL, "checks": {}}, "coverage": [EVIL]
    });
    take(&store, &[("finding", finding), ("containment", containment), ("receipt", receipt)]);
    let board = Board::read(&store, None, true, NOW).unwrap();
    assert!(!board.calm);
    assert_eq!((board.findings.len(), board.cuts.len()), (1, 1));
    let page = render_page(&board, "nonce").unwrap();
    assert!(
        !page.contains("<script>alert") && !page.contains("<img") && !page.contains('\u{202e}')
    );
    assert!(page.contains("alert(1)") && page.contains("NOT CUT") && page.contains("u{202e}"));
    assert!(!page.contains("sekisho release &"), "no command with a hostile name in it");
    // Only our own style and script, both by nonce.
    assert_eq!(
        (
            page.matches("<script").count(),
            page.matches("<script nonce=\"nonce\">").count(),
            page.matches("<style").count()
        ),
        (1, 1, 1)
    );
    assert!(
        !page.contains(" style=")
            && !page.contains(" onclick=")
            && !page.contains("http://")
            && !page.contains("https://")
    );
}

#[test]
fn a_quiet_watch_reads_reassuring_and_true() {
    let (_place, store) = store();
    let quiet = |now| {
        let board = Board::read(&store, None, true, now).unwrap();
        (board.quiet, board.waiting)
    };
    assert_eq!(quiet(NOW).1, "1 host is enrolled and not heard yet.");
    report(&store, "enforce", NOW);
    assert_eq!(quiet(NOW).0, "Nothing is cut. 1 host reporting");
    assert!(
        render_board(&Board::read(&store, None, true, NOW).unwrap())
            .unwrap()
            .contains("1 host reporting, last heard <time")
    );
    assert!(Board::read(&store, None, true, NOW).unwrap().calm);
    report(&store, "dry-run", NOW);
    assert!(
        !Board::read(&store, None, true, NOW).unwrap().calm,
        "a mode that never cuts is no reason to be calm"
    );
    assert_eq!(quiet(NOW).0, "Nothing is cut. 1 host reporting, in a mode that never cuts");
    let later = NOW.after(Span::from_secs(60));
    assert_eq!(quiet(later).0, "Nothing is known to be cut, but 1 of 1 host is silent");
    let alarms = Board::read(&store, None, true, later).unwrap().alarms;
    assert!(alarms.iter().any(|alarm| alarm.contains("web-1 is silent since")), "{alarms:?}");
}

#[test]
fn a_mode_below_the_one_asked_for_is_red() {
    let (_place, store) = store();
    report(&store, "learn", NOW);
    let html = render_board(&Board::read(&store, None, true, NOW).unwrap()).unwrap();
    assert!(
        html.contains("<td data-label=\"mode in effect\" class=\"bad\">learn")
            && html.contains("not in the mode that was asked for")
    );
}

#[test]
fn a_proven_cut_tells_since_when_until_when_why_and_how_to_release_it() {
    let (_place, store) = store();
    let containment = json!({"id": "c-0123456789ab", "scope": "host", "level": 5, "since": NOW, "until": NOW.after(Span::from_hours(24)), "cause": "plugx.tcp", "finding": null, "by": null});
    let receipt = json!({
        "generation": 1, "containment": "c-0123456789ab", "finding": null, "scope": "host", "applied": true, "error": null, "committed_at": NOW, "last_packet_at": null, "time_to_contain_ns": 840_000,
        "leaked_packets": 0, "leaked_bytes": 0, "sockets_destroyed": 1, "proof": {"cut": "proven", "exemptions": "ok", "checks": {}}, "coverage": []
    });
    take(&store, &[("containment", containment), ("receipt", receipt)]);
    let html = render_board(&Board::read(&store, None, true, NOW).unwrap()).unwrap();
    for expected in [
        "level 5 · host",
        "cut all external egress of the host",
        "plugx.tcp",
        "cut proven",
        "exemptions ok",
        "contained in 840 µs",
        "sekisho release c-0123456789ab",
        "data-until=\"1780086400000\"",
    ] {
        assert!(html.contains(expected), "{expected}");
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("c.db"), true).unwrap();
    store.keep_token("t", "hash", "web", NOW, NOW.after(Span::from_hours(1))).unwrap();
    store
        .redeem_token(
            "hash",
            &Enrolment {
                agent: AGENT.into(),
                host: "web-1".into(),
                certificate_until: NOW,
                spki: "00".into(),
            },
            NOW,
        )
        .unwrap();
    (place, store)
}

fn take(store: &Store, bodies: &[(&str, Value)]) {
    let events: Vec<Value> = bodies
        .iter()
        .enumerate()
        .map(|(place, (kind, body))| {
            let mut event = json!({"schema": "sekisho.event/1", "seq": place + 1, "at": NOW, "host": "web-1", "type": kind});
            event.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
            event
        })
        .collect();
    let batch =
        Batch::parse(json!({"boot": "0011223344556677", "events": events}).to_string().as_bytes())
            .unwrap();
    assert!(
        batch.events.iter().all(|event| event.body.is_some()),
        "an event of the test is not understood"
    );
    store.take_in(AGENT, &batch, NOW).unwrap();
}

fn report(store: &Store, effective: &str, now: Timestamp) {
    let requested = if effective == "learn" { "enforce" } else { effective };
    let state = json!({
        "boot": "0011223344556677", "host": "web-1", "version": "0.1.0", "mode": {"requested": requested, "effective": effective, "why": null}, "policy_version": 1, "containments": [],
        "bytes_out": 1, "spool": 0, "coverage": [], "at": now
    });
    assert!(
        store.take_state(AGENT, &serde_json::from_value::<Heartbeat>(state).unwrap(), now).unwrap()
    );
}
