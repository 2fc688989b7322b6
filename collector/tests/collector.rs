//! The collector as a process: real sockets, real TLS, a real kill.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that can not go on must end there"
)]

mod support;

use http_body_util::BodyExt;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant};
use support::{Collector, Identity, Link, batch, cli, enrol, init, plain, read, told};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill_and_what_is_sent_again_is_stored_once() {
    let place = tempfile::tempdir().unwrap();
    let (dir, said) = init(place.path());
    let collector = Collector::start(&dir);
    let (identity, answer) = enrol(&collector, &dir, "web-1").await;
    let ca = answer["ca"].as_str().unwrap();
    assert_eq!(ca, std::fs::read_to_string(dir.join("ca.pem")).unwrap());
    assert!(said.contains(&pin_of(ca)), "init printed another pin than that of the CA handed out");

    let mut link = Link::open(collector.port, ca, Some(&identity)).await.unwrap();
    let (status, text) = link.ask("POST", "/v1/events", &batch(1..=200)).await;
    assert_eq!(
        (status, serde_json::from_str::<Value>(&text).unwrap()),
        (
            200,
            json!({"ack_through": 200, "stored": 200, "duplicates": 0, "confirmed": [], "group_spent": null, "fleet": null})
        )
    );
    // A batch is on its way while the collector is killed: whatever became of it, sending it again gives one row each.
    let racing = tokio::spawn(async move {
        link.send("POST", "/v1/events", &[], &batch(201..=700))
            .await
            .map(|answer| answer.status().as_u16())
    });
    tokio::time::sleep(Duration::from_millis(5)).await;
    collector.kill();
    let raced = racing.await.unwrap();

    let collector = Collector::start(&dir);
    let mut link = Link::open(collector.port, ca, Some(&identity)).await.unwrap();
    let (status, text) = link.ask("POST", "/v1/events", &batch(201..=700)).await;
    let outcome: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, outcome["ack_through"].as_u64()), (200, Some(700)), "{text}");
    let kept = outcome["duplicates"].as_u64().unwrap();
    assert!(kept == 0 || kept == 500, "half a batch was kept: {text}");
    assert!(raced != Ok(200) || kept == 500, "an acknowledged batch was lost");
    let database = rusqlite::Connection::open(dir.join("collector.db")).unwrap();
    let rows: (i64, i64, i64) = database
        .query_row("SELECT count(*), count(DISTINCT seq), max(seq) FROM events", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    assert_eq!(rows, (700, 700, 700));
    let metrics = plain(collector.page, "/metrics", "127.0.0.1").await.1;
    assert!(
        metrics.contains(&format!("sekisho_collector_events_ingested_total {}\n", 500 - kept)),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pushed_policy_is_told_on_the_stream_within_two_seconds_and_refused_ones_never() {
    let place = tempfile::tempdir().unwrap();
    let (dir, _) = init(place.path());
    let file = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let at = dir.to_str().unwrap();
    told(&["policy", "keygen", "--out", &file("key")]);
    told(&["trust", "add", &file("key.pub"), "--dir", at]);
    let seal = |version: u64, expires: &str| {
        let text = format!(
            "schema = \"sekisho.policy/1\"\nversion = {version}\nmode = \"enforce\"\n[duty]\ngroup = \"web\"\nowner = \"a\"\ndeputy = \"b\"\n"
        );
        std::fs::write(file("policy.toml"), text).unwrap();
        told(&[
            "policy",
            "seal",
            &file("policy.toml"),
            "--key",
            &file("key"),
            "--expires",
            expires,
            "--out",
            &file("policy.json"),
        ]);
    };
    let collector = Collector::start(&dir);
    let (identity, answer) = enrol(&collector, &dir, "web-1").await;
    assert_eq!(
        answer["trust"][0].as_str().unwrap(),
        std::fs::read_to_string(file("key.pub")).unwrap().trim()
    );
    assert_eq!(answer["threshold"], 1);
    let ca = answer["ca"].as_str().unwrap();
    let mut link = Link::open(collector.port, ca, Some(&identity)).await.unwrap();
    assert_eq!(link.ask("GET", "/v1/policy", "").await.0, 404);
    let mut stream = link.send("GET", "/v1/stream", &[], "").await.unwrap().into_body();
    seal(7, "1d");
    let begun = Instant::now();
    told(&["policy", "push", &file("policy.json"), "--dir", at]);
    let notice = until_notice(&mut stream).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    let (status, sealed) = link.ask("GET", "/v1/policy", "").await;
    let sealed = sekisho_schema::Sealed::parse(&sealed).unwrap();
    assert_eq!(
        (status, notice["version"].as_u64(), notice["digest"].as_str()),
        (200, Some(7), Some(sealed.digest().as_str()))
    );

    let refused = |what: &str| {
        let output = cli(&["policy", "push", &file("policy.json"), "--dir", at]);
        assert_eq!(output.status.code(), Some(1), "{what}");
        let lines = String::from_utf8(output.stderr).unwrap();
        let kept = lines.lines().map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>();
        assert!(
            kept == ["error:", "state:", "help:"]
                && lines.contains("version 7 stays in force")
                && lines.contains(what),
            "{lines}"
        );
    };
    refused("version 7 is not above version 7");
    seal(6, "1d");
    refused("version 6 is not above version 7");
    seal(8, "1s");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    refused("expired");
    std::fs::write(
        file("policy.json"),
        std::fs::read_to_string(file("policy.json"))
            .unwrap()
            .replace("\"version\":8", "\"version\":9"),
    )
    .unwrap();
    refused("changed after sealing");

    let state = json!({"boot": "00112233445566aa", "host": "web-1", "version": "0.1.0", "mode": {"requested": "enforce", "effective": "dry-run", "why": "no nf_tables"}, "policy_version": 7, "containments": [], "bytes_out": 5, "spool": 0, "coverage": [], "at": "2026-11-22T09:00:00Z"});
    let (status, text) = link.ask("POST", "/v1/state", &state.to_string()).await;
    assert_eq!(
        (status, serde_json::from_str::<Value>(&text).unwrap()["policy"]["version"].as_u64()),
        (200, Some(7))
    );
    assert_eq!(
        cli(&["hosts", "--dir", at]).status.code(),
        Some(1),
        "a mode below the one asked for is a finding"
    );
    let (status, page) = plain(collector.page, "/", "127.0.0.1").await;
    assert!(status == 200 && page.contains("no nf_tables") && page.contains("Version 7"), "{page}");
    assert!(
        collector.terminate(Duration::from_secs(6)),
        "an open stream kept the collector from ending"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_certificate_of_ours_only_enrolment_and_health_are_open() {
    let place = tempfile::tempdir().unwrap();
    let (dir, said) = init(place.path());
    let collector = Collector::start(&dir);
    let (identity, answer) = enrol(&collector, &dir, "web-1").await;
    let ca = answer["ca"].as_str().unwrap();
    let agent = answer["id"].as_str().unwrap();
    let mut nobody = Link::open(collector.port, ca, None).await.unwrap();
    for (method, path) in [
        ("POST", "/v1/events"),
        ("POST", "/v1/state"),
        ("GET", "/v1/stream"),
        ("GET", "/v1/policy"),
        ("GET", "/v1/other"),
    ] {
        let (status, text) = nobody.ask(method, path, &batch(1..=1)).await;
        assert_eq!(
            (status, serde_json::from_str::<Value>(&text).unwrap()["status"].as_u64()),
            (401, Some(401)),
            "{path}"
        );
    }
    assert_eq!(nobody.ask("GET", "/healthz", "").await, (200, "ok\n".to_owned()));
    assert_eq!(nobody.ask("GET", "/readyz", "").await.0, 200);
    let (status, text) =
        nobody.ask("POST", "/v1/enroll", r#"{"token":"wrong","host":"web-2","csr":"x"}"#).await;
    assert!(status == 403 && text.contains("not one of this collector's"), "{text}");

    // An authority of the same name, and a certificate of the same shape, by a stranger's key.
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "Sekisho collector CA of example.org");
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = Issuer::new(params, KeyPair::generate().unwrap());
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![SanType::URI(
        format!("spiffe://example.org/agent/{agent}").as_str().try_into().unwrap(),
    )];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let foreign = Identity {
        certificate: leaf.signed_by(&key, &issuer).unwrap().pem(),
        key: key.serialize_pem(),
    };
    let met = async {
        Link::open(collector.port, ca, Some(&foreign))
            .await?
            .send("GET", "/v1/policy", &[], "")
            .await
            .map(|answer| answer.status())
    }
    .await;
    assert!(met.is_err(), "a foreign authority's certificate was taken: {met:?}");

    let mut link = Link::open(collector.port, ca, Some(&identity)).await.unwrap();
    assert_eq!(link.ask("POST", "/v1/events", &batch(1..=1)).await.0, 200);
    assert_eq!(
        link.ask("POST", "/v1/events", &format!("{{\"boot\":\"{}\"}}", "0".repeat(1 << 20)))
            .await
            .0,
        413
    );
    assert_eq!(
        link.ask("GET", "/api/v1/events", "").await.0,
        401,
        "an agent must not read what others reported"
    );
    told(&["deny", agent, "--reason", "stolen", "--dir", dir.to_str().unwrap()]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(link.ask("POST", "/v1/events", &batch(2..=2)).await.0, 403);

    for (path, status) in [
        ("/", 401),
        ("/page/board", 401),
        ("/api/v1/findings", 401),
        ("/api/v1/live", 401),
        ("/metrics", 401),
        ("/api/v1/openapi.json", 200),
    ] {
        assert_eq!(nobody.ask("GET", path, "").await.0, status, "{path}");
    }
    let password = said
        .lines()
        .find_map(|line| line.strip_prefix("operator password: "))
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    let basic = |password: &str| {
        format!(
            "Basic {}",
            base64::Engine::encode(
                &base64::engine::general_purpose::STANDARD,
                format!("operator:{password}")
            )
        )
    };
    let wrong = nobody.send("GET", "/", &[("authorization", &basic("wrong"))], "").await.unwrap();
    assert!(wrong.status() == 401 && wrong.headers().contains_key("www-authenticate"));
    let page = nobody.send("GET", "/", &[("authorization", &basic(password))], "").await.unwrap();
    let policy =
        page.headers().get("content-security-policy").unwrap().to_str().unwrap().to_owned();
    let (status, text) = read(page).await;
    let nonce = policy.split("script-src 'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert!(
        status == 200
            && policy.starts_with("default-src 'none'")
            && text.contains(&format!("<script nonce=\"{nonce}\">")),
        "{policy}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_documented_read_route_answers_and_a_foreign_name_does_not_reach_the_open_page() {
    let place = tempfile::tempdir().unwrap();
    let (dir, _) = init(place.path());
    let collector = Collector::start(&dir);
    let document: Value =
        serde_json::from_str(&plain(collector.page, "/api/v1/openapi.json", "localhost").await.1)
            .unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    for (path, item) in document["paths"].as_object().unwrap() {
        if path.starts_with("/v1/") || path.ends_with("/live") {
            continue;
        }
        let (status, text) = plain(collector.page, path, "localhost").await;
        assert_eq!(status, 200, "{path}: {text}");
        let schema = &item["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        if let Some(required) = schema["required"].as_array() {
            let answer: Value = serde_json::from_str(&text).unwrap();
            let documented: Vec<&str> =
                required.iter().map(|name| name.as_str().unwrap()).collect();
            let mut given: Vec<&str> =
                answer.as_object().unwrap().keys().map(String::as_str).collect();
            given.sort_by_key(|name| documented.iter().position(|known| known == name));
            assert_eq!(given, documented, "{path}");
        }
    }
    assert_eq!(plain(collector.page, "/", "evil.example").await.0, 421);
    assert_eq!(
        plain(collector.page, "/v1/policy", "localhost").await.0,
        404,
        "agents' routes are not on the plain listener"
    );
    assert_eq!(plain(collector.page, "/api/v1/findings?limit=x", "localhost").await.0, 400);
}

#[test]
fn what_can_not_be_done_is_told_in_three_lines_with_exit_code_two() {
    let place = tempfile::tempdir().unwrap();
    let none = place.path().join("none");
    let none = none.to_str().unwrap();
    let (dir, _) = init(place.path());
    let dir = dir.to_str().unwrap();
    let cases: [(&[&str], i32); 8] = [
        (&["run", "--dir", none], 2),
        (&["run", "--dir", dir, "--page", "0.0.0.0:1", "--page-open"], 2),
        (&["hosts", "--dir", none], 2),
        (&["token", "create", "--dir", dir, "--ttl", "forever"], 2),
        (&["rollout", "start"], 2),
        (&["export", "ocsf"], 2),
        (&["nonsense"], 2),
        (&["init", "--dir", dir], 1),
    ];
    for (arguments, code) in cases {
        let output = cli(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        let kinds: Vec<&str> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(
            (output.status.code(), kinds.as_slice()),
            (Some(code), &["error:", "state:", "help:"][..]),
            "{arguments:?}: {text}"
        );
    }
    assert!(!place.path().join("none").exists(), "a reading command made something");
}

/// Reads the stream up to the first policy notice.
async fn until_notice(stream: &mut hyper::body::Incoming) -> Value {
    let mut text = String::new();
    let reading = async {
        loop {
            let frame = stream.frame().await.expect("the stream ended").unwrap();
            text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
            if let Some(data) = text
                .split("event: policy\ndata: ")
                .nth(1)
                .and_then(|rest| rest.split("\n\n").next())
            {
                return serde_json::from_str(data).unwrap();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), reading).await.expect("no notice came")
}

/// The pin of a certificate, computed without the collector's code: the SHA-256 of its SubjectPublicKeyInfo.
fn pin_of(pem: &str) -> String {
    use rustls::pki_types::pem::PemObject;
    let der = rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    format!(
        "sha256:{}",
        Sha256::digest(certificate.tbs_certificate.subject_pki.raw)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    )
}
