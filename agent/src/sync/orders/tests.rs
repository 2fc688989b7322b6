use super::*;
use crate::sync::Heartbeat;
use sekisho_schema::event::ModeChange;
use sekisho_schema::order::Order;
use sekisho_schema::policy::Mode;
use sekisho_schema::sealed::{key_pair, parse_secret};
use sekisho_schema::{Containment, Measure, Scope, Verified};
use std::sync::Mutex;

/// The rest of the agent, as far as orders need it.
#[derive(Default)]
struct Body {
    carried: Mutex<Vec<Order>>,
    refused: Mutex<Vec<String>>,
    bounds: Mutex<Bounds>,
    /// Whether the detecting thread does not answer.
    mute: bool,
    unanswered: Mutex<Vec<oneshot::Sender<OrderOutcome>>>,
}

impl Hooks for Body {
    fn heartbeat(&self) -> Heartbeat {
        let held = |id: &str, scope: Scope| Containment {
            id: ContainmentId(id.to_owned()),
            level: scope.level(),
            scope,
            since: Timestamp::EPOCH,
            until: Timestamp::MAX,
            measure: Measure::Cut,
            trial_until: None,
            cause: String::new(),
            finding: None,
            by: None,
        };
        Heartbeat {
            boot: "00".repeat(8),
            host: "web-1".to_owned(),
            version: String::new(),
            mode: ModeChange { requested: Mode::Enforce, effective: Mode::Enforce, why: None },
            policy_version: 1,
            containments: vec![
                held("c-000000000003", "dest:203.0.113.9".parse().unwrap()),
                held("c-000000000005", Scope::Host),
            ],
            bytes_out: 0,
            spool: 0,
            coverage: Vec::new(),
            at: Timestamp::EPOCH,
        }
    }

    fn policy(&self, _sealed: Sealed) {}

    fn acknowledged(&self, _records: usize) {}

    fn order_bounds(&self) -> Bounds {
        self.bounds.lock().unwrap().clone()
    }

    fn order(&self, order: Verified<Order>, answer: oneshot::Sender<OrderOutcome>) {
        assert!(order.is_sealed());
        self.carried.lock().unwrap().push(order.into_inner());
        if self.mute {
            self.unanswered.lock().unwrap().push(answer);
        } else {
            let _ =
                answer.send(OrderOutcome { done: true, detail: "done".into(), containment: None });
        }
    }

    fn order_refused(&self, _id: &str, why: &str) {
        self.refused.lock().unwrap().push(why.to_owned());
    }
}

struct House {
    _dir: tempfile::TempDir,
    places: Places,
}

fn house() -> House {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let places = Places { identity: path("identity"), trust: path("trust"), state: path("state") };
    fs::create_dir_all(&places.state).unwrap();
    for (name, seed) in [("aiko.one", 1), ("aiko.two", 2), ("ben", 3)] {
        fs::create_dir_all(places.trust.join(FOLDER)).unwrap();
        let file = places.trust.join(FOLDER).join(format!("{name}.pub"));
        fs::write(file, key_pair(&[seed; 32]).1).unwrap();
    }
    House { _dir: dir, places }
}

fn contain(scope: &str, hours: i64) -> Command {
    Command::Contain {
        scope: scope.parse().unwrap(),
        lease: Span::from_hours(hours),
        measure: Measure::Cut,
        break_glass: false,
    }
}

fn release(id: &str) -> Command {
    Command::Release { containment: ContainmentId(id.to_owned()), break_glass: false }
}

fn handed(what: Command, nonce: &str, seeds: &[u8]) -> Handed {
    let order = Order { what, by: "mallory".into(), reason: "test".into() };
    let now = clock::now();
    let dispatch = Dispatch { host: "web-1".into(), order, nonce: nonce.into(), at: now };
    let sealed = seeds
        .iter()
        .fold(Sealed::wrap_order(&dispatch, now.after(Span::from_secs(600))), |sealed, seed| {
            sealed.signed_by(&parse_secret(&key_pair(&[*seed; 32]).0).unwrap())
        });
    Handed { id: "o-0123456789ab".into(), sealed: sealed.to_text() }
}

#[tokio::test]
async fn an_order_is_carried_out_once_also_over_a_restart_and_answered_the_same_again() {
    let house = house();
    let body = Arc::new(Body::default());
    let order = handed(contain("dest:203.0.113.9", 1), &"ab".repeat(16), &[1]);
    for _ in 0..3 {
        // Each a restart: nothing but the disk is remembered.
        let mut taker = Orders::new(house.places.clone(), Arc::<Body>::clone(&body));
        for _ in 0..2 {
            let outcome = taker.take(&order).await;
            assert!(outcome.done, "{outcome:?}");
        }
    }
    let carried = body.carried.lock().unwrap();
    assert_eq!((carried.len(), carried[0].by.as_str()), (1, "aiko"), "{carried:?}");
}

#[tokio::test]
async fn an_agent_that_was_ended_amid_an_order_does_not_do_it_again_and_says_so() {
    let house = house();
    let body = Arc::new(Body { mute: true, ..Body::default() });
    let mut taker = Orders::new(house.places.clone(), Arc::<Body>::clone(&body));
    let order = handed(contain("dest:203.0.113.9", 1), &"cd".repeat(16), &[1]);
    // Begun and on the disk, then the agent is gone: dropped while it waits for the detecting thread.
    tokio::select! {
        outcome = taker.take(&order) => panic!("{outcome:?}"),
        () = tokio::time::sleep(Duration::from_millis(100)) => {}
    }
    let mut restarted = Orders::new(house.places.clone(), Arc::<Body>::clone(&body));
    let outcome = restarted.take(&order).await;
    assert!(!outcome.done && outcome.detail.contains("did not see the end"), "{outcome:?}");
    assert_eq!(body.carried.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_not_sealed_by_enough_operators_or_beyond_policys_bounds_is_refused_and_told_once()
{
    let house = house();
    let body = Arc::new(Body::default());
    *body.bounds.lock().unwrap() =
        Bounds { up_to: 5, longest: Span::from_hours(48), release: false, per_hour: 2 };
    let mut taker = Orders::new(house.places.clone(), Arc::<Body>::clone(&body));
    for (what, seeds, why) in [
        (contain("host", 1), &[1][..], "1 of 2 signatures"),
        (contain("host", 1), &[1, 2], "1 of 2 signatures"),
        (contain("dest:203.0.113.9", 1), &[9], "0 of 1 signatures"),
        (contain("link:eth0", 1), &[1, 3], "level 7 is above 5"),
        (contain("dest:203.0.113.9", 72), &[1], "longer than"),
        (release("c-000000000003"), &[1], "not released from the centre"),
        (release("c-000000000005"), &[1], "1 of 2 signatures"),
    ] {
        let order = handed(what, &"ef".repeat(16), seeds);
        for _ in 0..2 {
            let outcome = taker.take(&order).await;
            assert!(!outcome.done && outcome.detail.contains(why), "{why}: {outcome:?}");
        }
        assert!(body.refused.lock().unwrap().last().unwrap().contains(why));
    }
    assert_eq!(body.refused.lock().unwrap().len(), 7, "a refusal is on record once");
    assert!(!taker.take(&handed(contain("host", 1), "short", &[1, 3])).await.done);
    // None of them used up the bound of two within the hour.
    for (number, done) in [(1, true), (2, true), (3, false)] {
        let order = handed(contain("dest:203.0.113.9", 1), &format!("{number:032x}"), &[1]);
        let outcome = taker.take(&order).await;
        assert_eq!(outcome.done, done, "{outcome:?}");
    }
    assert_eq!(body.carried.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_memory_that_can_t_be_read_or_kept_takes_no_order() {
    let house = house();
    let body = Arc::new(Body::default());
    let mut taker = Orders::new(house.places.clone(), Arc::<Body>::clone(&body));
    let order = handed(contain("dest:203.0.113.9", 1), &"ab".repeat(16), &[1]);
    fs::write(house.places.state.join(LEDGER), "{").unwrap();
    assert!(taker.take(&order).await.detail.contains("cannot read what orders were seen"));
    fs::remove_dir_all(&house.places.state).unwrap();
    assert!(taker.take(&order).await.detail.contains("cannot remember it"));
    assert!(body.carried.lock().unwrap().is_empty());
}

#[test]
fn what_is_forgotten_is_never_believed_again() {
    let now = Timestamp::from_nanos(1_780_000_000_000_000_000);
    let mut ledger = Ledger::default();
    let stale = now.after(Span::from_secs(600));
    ledger.begin("aa", stale, now).unwrap();
    let later = stale.after(REMEMBER_FOR).after(Span::from_secs(1));
    ledger.begin("bb", later.after(Span::from_secs(600)), later).unwrap();
    assert!(ledger.find("aa").is_none() && ledger.find("bb").is_some());
    // The clock is set back to when the first one was fresh.
    assert!(matches!(ledger.begin("aa", stale, now), Err(OrderError::Forgotten)));
}

#[test]
fn an_operators_key_that_others_may_write_is_no_operators() {
    use std::os::unix::fs::PermissionsExt as _;
    let house = house();
    assert!(load_operators(&house.places.trust).is_ok());
    let file = house.places.trust.join(FOLDER).join("ben.pub");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let said = load_operators(&house.places.trust).unwrap_err().to_string();
    assert!(said.contains("ben.pub") && said.contains("others"), "{said}");
}
