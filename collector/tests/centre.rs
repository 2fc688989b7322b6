//! Orders, trials, renewals and notices, with a collector as a process and real TLS.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    reason = "a test that can not go on must end there; the support is shared with another test"
)]

mod support;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use rcgen::{CertificateParams, KeyPair};
use sekisho_schema::sealed::{Operators, parse_public};
use sekisho_schema::{Sealed, Timestamp};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use support::{Collector, Identity, Link, cli, enrol, init, plain, told};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const BOOT: &str = "00112233445566aa";
const ID: &str = "c-0123456789ab";

/// Keys of aiko and ben, known to the collector; gives where the secrets lie.
fn operators(place: &Path, dir: &str) -> [String; 2] {
    ["aiko", "ben"].map(|name| {
        let key = place.join(name).to_str().unwrap().to_owned();
        told(&["policy", "keygen", "--out", &key]);
        told(&["trust", "operator", name, &format!("{key}.pub"), "--dir", dir]);
        key
    })
}

fn state(host: &str) -> String {
    json!({"boot": BOOT, "host": host, "version": "0.1.0", "mode": {"requested": "enforce", "effective": "enforce", "why": null}, "policy_version": 1, "containments": [], "bytes_out": 0, "spool": 0, "coverage": [], "at": now()}).to_string()
}

fn now() -> Timestamp {
    sekisho_collector::clock::now()
}

/// A cut of the host on trial and its receipt, as the first two events of a boot.
fn trial(cut: &str) -> String {
    let at = now();
    let until = at.after(sekisho_schema::Span::from_hours(1));
    let event = |seq: u64, kind: &str, body: Value| {
        let mut event = json!({"schema": "sekisho.event/1", "seq": seq, "at": at, "host": "web-1", "type": kind});
        event.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        event
    };
    let containment = json!({"id": ID, "scope": "host", "level": 5, "since": at, "until": until, "trial_until": until, "cause": "plugx.tcp", "finding": null, "by": null});
    let receipt = json!({"generation": 1, "containment": ID, "finding": null, "scope": "host", "applied": true, "error": null, "committed_at": at, "last_packet_at": null, "time_to_contain_ns": 1, "leaked_packets": 0, "leaked_bytes": 0, "sockets_destroyed": 0, "proof": {"cut": cut, "exemptions": "ok", "checks": {}}, "coverage": []});
    json!({"boot": BOOT, "events": [event(1, "containment", containment), event(2, "receipt", receipt)]}).to_string()
}

/// Reads a stream up to the first event of a kind; gives its data.
async fn notice(stream: &mut Incoming, kind: &str) -> Value {
    let mut text = String::new();
    let mark = format!("event: {kind}\ndata: ");
    let reading = async {
        loop {
            let frame = stream.frame().await.expect("the stream ended").unwrap();
            text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
            if let Some((data, _)) =
                text.split_once(&mark).and_then(|(_, rest)| rest.split_once("\n\n"))
            {
                return serde_json::from_str(data).unwrap();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), reading).await.expect("no notice came")
}

fn refused(arguments: &[&str], what: &str) {
    let output = cli(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    assert!(said.contains(what) && said.contains("no order was given"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_two_operators_sealed_reaches_its_host_and_its_answer_the_list() {
    let place = tempfile::tempdir().unwrap();
    let (dir, _) = init(place.path());
    let at = dir.to_str().unwrap();
    let [aiko, ben] = operators(place.path(), at);
    let collector = Collector::start(&dir);
    let (identity, answer) = enrol(&collector, &dir, "web-1").await;
    let ca = answer["ca"].as_str().unwrap();
    let names: Vec<&str> = answer["operators"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["aiko", "ben"], "the host learns whose orders count");
    let mut link = Link::open(collector.port, ca, Some(&identity)).await.unwrap();
    let mut stream = link.send("GET", "/v1/stream", &[], "").await.unwrap().into_body();

    let contain = |host: &'static str, scope: &'static str| {
        ["order", "contain", host, scope, "--for", "1h", "--reason", "test", "--dir", at, "--key"]
            .map(str::to_owned)
    };
    let run = |base: &[String], keys: &[&str]| {
        let mut words: Vec<String> = base.to_vec();
        words.push(keys[0].to_owned());
        for key in &keys[1..] {
            words.extend(["--key".to_owned(), (*key).to_owned()]);
        }
        words
    };
    let refuse = |words: Vec<String>, what: &str| {
        refused(&words.iter().map(String::as_str).collect::<Vec<_>>(), what);
    };
    refuse(run(&contain("web-1", "host"), &[&aiko]), "1 of 2 signatures");
    refuse(run(&contain("web-1", "host"), &[&aiko, &aiko]), "1 of 2 signatures");
    refuse(run(&contain("web-9", "host"), &[&aiko, &ben]), "no host \"web-9\"");
    assert_eq!(link.ask("GET", "/v1/orders", "").await.1, r#"{"orders":[]}"#);

    // One seals offline, the other adds a signature, a third hand sends it.
    let file = place.path().join("order.json").to_str().unwrap().to_owned();
    let mut offline = run(&contain("web-1", "host"), &[&aiko]);
    offline.extend(["--out".to_owned(), file.clone()]);
    told(&offline.iter().map(String::as_str).collect::<Vec<_>>());
    refused(&["order", "send", &file, "--dir", at], "1 of 2 signatures");
    assert!(told(&["order", "seal", &file, "--key", &ben]).contains("all external egress"));
    let said = told(&["order", "send", &file, "--dir", at]);
    let id = said.split(':').next().unwrap().to_owned();
    assert_eq!(notice(&mut stream, "order").await["waiting"], 1);
    let (status, text) = link.ask("GET", "/v1/orders", "").await;
    let handed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, handed["orders"][0]["id"].as_str()), (200, Some(id.as_str())), "{text}");
    let sealed = Sealed::parse(handed["orders"][0]["sealed"].as_str().unwrap()).unwrap();
    let keys = ["aiko", "ben"].map(|name| {
        let text = std::fs::read_to_string(place.path().join(format!("{name}.pub"))).unwrap();
        (name.to_owned(), parse_public(&text).unwrap())
    });
    let opened = sealed.open_order(&Operators::new(keys), "web-1", now(), |_| None).unwrap();
    assert_eq!(opened.into_order().by, "aiko and ben");

    let list = || -> Value {
        serde_json::from_slice(&cli(&["order", "list", "-o", "json", "--dir", at]).stdout).unwrap()
    };
    assert_eq!(list()[0]["state"], "handed");
    let body =
        json!({"done": true, "detail": "c-0123456789ab: done", "containment": ID}).to_string();
    assert_eq!(link.ask("POST", &format!("/v1/orders/{id}"), &body).await.0, 200);
    assert_eq!(link.ask("POST", "/v1/orders/o-000000000000", &body).await.0, 404);
    assert_eq!(
        (list()[0]["state"].clone(), list()[0]["containment"].clone()),
        (json!("done"), json!(ID))
    );
    assert_eq!(link.ask("GET", "/v1/orders", "").await.1, r#"{"orders":[]}"#);

    // An order that comes while the one before is being answered is told of at once, too, not at the next reminder.
    for number in 1..=3 {
        let scope = format!("dest:203.0.113.{number}");
        let words = ["order", "contain", "web-1", &scope, "--for", "1h", "--reason", "x"];
        told(&[&words[..], &["--dir", at, "--key", &ben]].concat());
        assert!(notice(&mut stream, "order").await["waiting"].as_u64() >= Some(1));
        let orders: Value =
            serde_json::from_str(&link.ask("GET", "/v1/orders", "").await.1).unwrap();
        let id = orders["orders"][0]["id"].as_str().unwrap();
        assert_eq!(link.ask("POST", &format!("/v1/orders/{id}"), &body).await.0, 200);
    }

    // To end what holds a host takes two as well, once it is known what it holds; a destination takes one.
    assert_eq!(link.ask("POST", "/v1/events", &trial("proven")).await.0, 200);
    let release = ["order", "release", "web-1", ID, "--reason", "over", "--dir", at, "--key"]
        .map(str::to_owned);
    refuse(run(&release, &[&ben]), "1 of 2 signatures");
    let words = run(&release, &[&ben, &aiko]);
    told(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let words = run(&contain("web-1", "dest:203.0.113.9"), &[&ben]);
    told(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let (_, page) = plain(collector.page, "/", "localhost").await;
    assert!(page.contains("Orders from here") && page.contains("carried out"), "{page}");
    assert!(
        page.contains("cut traffic to 203.0.113.9 for 1h") && page.contains("waiting for the host")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_is_confirmed_in_the_answer_to_its_receipt_and_the_group_learns_what_is_spent() {
    let place = tempfile::tempdir().unwrap();
    let (dir, _) = init(place.path());
    let collector = Collector::start(&dir);
    let (one, answer) = enrol(&collector, &dir, "web-1").await;
    let (two, _) = enrol(&collector, &dir, "web-2").await;
    let ca = answer["ca"].as_str().unwrap();
    let mut first = Link::open(collector.port, ca, Some(&one)).await.unwrap();
    let mut second = Link::open(collector.port, ca, Some(&two)).await.unwrap();
    let mut stream = second.send("GET", "/v1/stream", &[], "").await.unwrap().into_body();
    let word = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
    let quiet = word(&second.ask("POST", "/v1/state", &state("web-2")).await.1);
    assert_eq!((&quiet["confirmed"], &quiet["group_spent"]), (&json!([]), &Value::Null));

    let answer = word(&first.ask("POST", "/v1/events", &trial("proven")).await.1);
    assert_eq!((&answer["ack_through"], &answer["confirmed"]), (&json!(2), &json!([ID])));
    // The answer may be lost: the same batch, sent again, is confirmed again.
    let again = word(&first.ask("POST", "/v1/events", &trial("proven")).await.1);
    assert_eq!((&again["stored"], &again["confirmed"]), (&json!(0), &json!([ID])));
    let told = notice(&mut stream, "group").await;
    assert_eq!(told["count"], 1);
    let heard = word(&second.ask("POST", "/v1/state", &state("web-2")).await.1);
    assert_eq!((&heard["group_spent"]["count"], &heard["confirmed"]), (&json!(1), &json!([])));
    let since: Timestamp = serde_json::from_value(heard["group_spent"]["since"].clone()).unwrap();
    assert!(now().since(since) < sekisho_schema::Span::from_secs(60));
}

fn request() -> (KeyPair, String) {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    (key, json!({"csr": csr}).to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_with_a_new_key_also_after_its_end_and_never_for_a_denied_agent() {
    let place = tempfile::tempdir().unwrap();
    let (dir, _) = init(place.path());
    let at = dir.to_str().unwrap();
    let collector = Collector::start_with(&dir, "[agents]\ncertificate = \"5s\"\n");
    let (old, answer) = enrol(&collector, &dir, "web-1").await;
    let (ca, agent) = (answer["ca"].as_str().unwrap(), answer["id"].as_str().unwrap());
    let mut link = Link::open(collector.port, ca, Some(&old)).await.unwrap();
    assert_eq!(link.ask("POST", "/v1/state", &state("web-1")).await.0, 200);
    let same = CertificateParams::default()
        .serialize_request(&KeyPair::from_pem(&old.key).unwrap())
        .unwrap()
        .pem()
        .unwrap();
    let (status, text) = link.ask("POST", "/v1/renew", &json!({"csr": same}).to_string()).await;
    assert!(status == 400 && text.contains("a new key"), "{status} {text}");
    let mut nobody = Link::open(collector.port, ca, None).await.unwrap();
    assert_eq!(nobody.ask("POST", "/v1/renew", &request().1).await.0, 401);

    tokio::time::sleep(Duration::from_millis(6500)).await;
    // It has ended: on the connection that is open, and on a new one, it is good for a renewal and nothing else.
    assert_eq!(link.ask("POST", "/v1/state", &state("web-1")).await.0, 403);
    let mut link = Link::open(collector.port, ca, Some(&old)).await.unwrap();
    assert_eq!(link.ask("GET", "/v1/orders", "").await.0, 403);
    let (key, body) = request();
    let (status, text) = link.ask("POST", "/v1/renew", &body).await;
    assert_eq!(status, 200, "{text}");
    let renewed: Value = serde_json::from_str(&text).unwrap();
    let fresh = Identity {
        certificate: renewed["certificate"].as_str().unwrap().to_owned(),
        key: key.serialize_pem(),
    };
    let mut link = Link::open(collector.port, ca, Some(&fresh)).await.unwrap();
    assert_eq!(link.ask("POST", "/v1/state", &state("web-1")).await.0, 200);
    // Whoever kept the old key gets nothing for it, and a person is told.
    let mut thief = Link::open(collector.port, ca, Some(&old)).await.unwrap();
    let (status, text) = thief.ask("POST", "/v1/renew", &request().1).await;
    assert!(status == 403 && text.contains("later certificate"), "{status} {text}");
    let said = String::from_utf8(cli(&["notices", "list", "--dir", at]).stdout).unwrap();
    assert!(said.contains("identity-copied"), "{said}");

    let mut stream = link.send("GET", "/v1/stream", &[], "").await.unwrap().into_body();
    told(&["hosts", "revoke", agent, "--reason", "stolen", "--dir", at]);
    let ended = async { while stream.frame().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(2), ended).await.expect("the stream went on");
    assert_eq!(link.ask("POST", "/v1/renew", &request().1).await.0, 403);
    let met = async {
        let mut link = Link::open(collector.port, ca, Some(&fresh)).await?;
        link.send("POST", "/v1/renew", &[], &request().1).await.map(|answer| answer.status())
    };
    assert!(met.await.is_err(), "a denied agent shook hands");
}

/// Takes requests one after the other, answers each with the next status, gives head and body of each.
async fn receiver(statuses: &[u16]) -> (u16, tokio::sync::mpsc::Receiver<(String, String)>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, heard) = tokio::sync::mpsc::channel(16);
    let statuses = statuses.to_vec();
    tokio::spawn(async move {
        for status in statuses {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut text = Vec::new();
            let (head, body) = loop {
                let mut some = [0; 4096];
                let read = stream.read(&mut some).await.unwrap();
                text.extend_from_slice(&some[..read]);
                let text = String::from_utf8(text.clone()).unwrap();
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let length =
                        head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    if length.unwrap().parse::<usize>().unwrap() == body.len() {
                        break (head.to_owned(), body.to_owned());
                    }
                }
            };
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            sender.send((head, body)).await.unwrap();
        }
    });
    (port, heard)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_is_signed_tried_again_under_one_key_and_a_failure_stands_on_the_page() {
    let place = tempfile::tempdir().unwrap();
    let (dir, _) = init(place.path());
    let at = dir.to_str().unwrap();
    let (port, mut heard) = receiver(&[500, 200]).await;
    let secret = place.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef\n").unwrap();
    let config = format!(
        "[notify]\nurl = \"http://127.0.0.1:{port}/page?x=1\"\nsecret-file = \"{}\"\n",
        secret.display()
    );
    // A secret that others may read is none.
    let file = place.path().join("c.toml");
    std::fs::write(&file, &config).unwrap();
    let output = cli(&["run", "--dir", at, "--config", file.to_str().unwrap()]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("chmod 600"));
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();

    let collector = Collector::start_with(&dir, &config);
    told(&["notices", "test", "--dir", at]);
    let next = async |heard: &mut tokio::sync::mpsc::Receiver<(String, String)>| {
        tokio::time::timeout(Duration::from_secs(10), heard.recv()).await.unwrap().unwrap()
    };
    let (head, body) = next(&mut heard).await;
    let header = |head: &str, name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {head}")).to_owned()
    };
    assert!(head.starts_with("POST /page?x=1 HTTP/1.1"), "{head}");
    let signed = format!("{}.{body}", header(&head, "sekisho-timestamp"));
    let code = sekisho_collector::secret::hmac(b"0123456789abcdef", signed.as_bytes());
    assert_eq!(header(&head, "sekisho-signature"), format!("sha256={code}"));
    let told_of: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&told_of["kind"], &told_of["to"]["role"]), (&json!("test"), &json!("owner")));
    let failed = async {
        loop {
            let (_, page) = plain(collector.page, "/", "localhost").await;
            if page.contains("owner not reached after 1 tries: answered 500") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3), failed)
        .await
        .expect("the failure is not on the page");
    let (again, same) = next(&mut heard).await;
    assert_eq!(header(&again, "idempotency-key"), header(&head, "idempotency-key"));
    let attempt = |body: &str| serde_json::from_str::<Value>(body).unwrap()["attempt"].clone();
    assert_eq!((attempt(&body), attempt(&same)), (json!(1), json!(2)));
    let (_, metrics) = plain(collector.page, "/metrics", "localhost").await;
    assert!(metrics.contains("sekisho_collector_delivery_failures_total 1\n"), "{metrics}");
    told(&["notices", "seen", "1", "--by", "ben", "--dir", at]);
    let output = cli(&["notices", "list", "--dir", at]);
    assert_eq!(output.status.code(), Some(0), "nothing waits any more");
}
