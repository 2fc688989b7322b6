//! The link to the collector over real TLS on loopback, with a collector made for the test: orders, confirmations,
//! renewal.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that meets the unexpected ends"
)]

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use sekisho_agent::sync::{
    Heartbeat, Hooks, Identity, OrderOutcome, Places, SyncState, Validity, run,
};
use sekisho_schema::event::ModeChange;
use sekisho_schema::order::{Command, Dispatch, Order};
use sekisho_schema::policy::Mode;
use sekisho_schema::sealed::{key_pair, parse_secret};
use sekisho_schema::{ContainmentId, Measure, Sealed, Span, Timestamp, Verified};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

const ID: &str = "c-0123456789ab";

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_fetched_when_told_of_carried_out_once_and_answered_and_confirmations_are_passed_on()
 {
    let house = House::new(Duration::from_secs(3600));
    let order = sealed_order(&[1]);
    let unsealed = sealed_order(&[9]);
    house.desk.lock().unwrap().orders = vec![
        ("o-00000000000a".into(), order.clone()),
        ("o-00000000000b".into(), unsealed),
        ("../../v1/state".into(), order),
    ];
    let body = house.start().await;
    until("both orders are answered", || house.desk.lock().unwrap().answers.len() >= 2).await;
    until("the trial is confirmed", || !body.confirmed.lock().unwrap().is_empty()).await;
    until("the group's share is heard", || body.spent.lock().unwrap().len() >= 2).await;
    let answers = house.desk.lock().unwrap().answers.clone();
    assert_eq!((answers[0].0.as_str(), &answers[0].1["done"]), ("o-00000000000a", &json!(true)));
    assert_eq!(answers[0].1["containment"], ID);
    assert_eq!((answers[1].0.as_str(), &answers[1].1["done"]), ("o-00000000000b", &json!(false)));
    assert!(answers[1].1["detail"].as_str().unwrap().contains("0 of 1 signatures"), "{answers:?}");
    // The test's collector tells of the same orders again and again, as one would whose database was put back.
    until("they were handed over again", || house.desk.lock().unwrap().answers.len() >= 6).await;
    assert_eq!(body.carried.lock().unwrap().len(), 1, "an order is carried out once");
    assert_eq!(body.refused.lock().unwrap().len(), 1, "a refusal is on record once");
    assert!(
        house.desk.lock().unwrap().strange.is_empty(),
        "{:?}",
        house.desk.lock().unwrap().strange
    );
    assert_eq!(body.confirmed.lock().unwrap()[0].0, ID);
    // From the answer to the state, and from the stream.
    let spent = body.spent.lock().unwrap();
    assert!(spent.contains(&2) && spent.contains(&3), "{spent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_in_time_with_a_new_key_and_the_link_goes_on_with_the_new_one() {
    let house = House::new(Duration::from_secs(6));
    let before = Identity::load(&house.places.identity).unwrap();
    let validity = Validity::of(&before.certificate).unwrap();
    let (due, end) = (validity.due(), validity.until());
    let _body = house.start().await;
    until("the link stands", || house.desk.lock().unwrap().shown.len() == 1).await;
    until("a second certificate is shown", || house.desk.lock().unwrap().shown.len() >= 2).await;
    let at = now();
    assert!(at >= due && at < end, "renewed at {at}, due {due}, end {end}");
    let after = Identity::load(&house.places.identity).unwrap();
    assert!(after.key != before.key && after.certificate != before.certificate);
    assert_eq!((after.id, after.url, after.ca), (before.id, before.url, before.ca));
    assert!(Validity::of(&after.certificate).unwrap().until() > end);
    // It goes on over the next end, too.
    until("a third is shown", || house.desk.lock().unwrap().shown.len() >= 3).await;
    assert!(house.state.status().connected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_is_refused_leaves_the_present_certificate_and_is_tried_again() {
    let house = House::new(Duration::from_secs(6));
    house.desk.lock().unwrap().refuse_renewals = 2;
    let before = Identity::load(&house.places.identity).unwrap();
    let _body = house.start().await;
    until("it was refused", || house.desk.lock().unwrap().refuse_renewals < 2).await;
    assert_eq!(Identity::load(&house.places.identity).unwrap().key, before.key);
    assert_eq!(house.desk.lock().unwrap().shown.len(), 1, "the link stays");
    until("it was granted", || house.desk.lock().unwrap().shown.len() >= 2).await;
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn sealed_order(seeds: &[u8]) -> String {
    let what = Command::Contain {
        scope: "dest:203.0.113.9".parse().unwrap(),
        lease: Span::from_hours(1),
        measure: Measure::Cut,
        break_glass: false,
    };
    let order = Order { what, by: "x".into(), reason: "test".into() };
    let nonce = format!("{:02x}", seeds[0]).repeat(16);
    let dispatch = Dispatch { host: "web-1".into(), order, nonce, at: now() };
    let sealed = Sealed::wrap_order(&dispatch, now().after(Span::from_secs(600)));
    let key = |seed: &u8| parse_secret(&key_pair(&[*seed; 32]).0).unwrap();
    seeds.iter().fold(sealed, |sealed, seed| sealed.signed_by(&key(seed))).to_text()
}

/// The rest of the agent.
struct Body {
    places: Places,
    carried: Mutex<Vec<Order>>,
    refused: Mutex<Vec<String>>,
    confirmed: Mutex<Vec<ContainmentId>>,
    spent: Mutex<Vec<u32>>,
}

impl Hooks for Body {
    fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            boot: "00".repeat(8),
            host: "web-1".into(),
            version: String::new(),
            mode: ModeChange { requested: Mode::Enforce, effective: Mode::Enforce, why: None },
            policy_version: 0,
            containments: Vec::new(),
            bytes_out: 0,
            spool: 0,
            coverage: Vec::new(),
            at: now(),
        }
    }

    fn policy(&self, _sealed: Sealed) {}

    fn acknowledged(&self, _records: usize) {}

    fn places(&self) -> Option<Places> {
        Some(self.places.clone())
    }

    fn order(&self, order: Verified<Order>, answer: oneshot::Sender<OrderOutcome>) {
        self.carried.lock().unwrap().push(order.into_inner());
        let containment = Some(ContainmentId(ID.into()));
        answer.send(OrderOutcome { done: true, detail: "done".into(), containment }).unwrap();
    }

    fn order_refused(&self, _id: &str, why: &str) {
        self.refused.lock().unwrap().push(why.to_owned());
    }

    fn confirmed(&self, containment: ContainmentId) {
        self.confirmed.lock().unwrap().push(containment);
    }

    fn group_spent(&self, count: u32, _since: Timestamp) {
        self.spent.lock().unwrap().push(count);
    }
}

/// What the test's collector was asked and answers.
#[derive(Default)]
struct Desk {
    orders: Vec<(String, String)>,
    answers: Vec<(String, Value)>,
    /// Certificates that were shown, each once, in order.
    shown: Vec<Vec<u8>>,
    refuse_renewals: usize,
    /// Requests that nobody should make.
    strange: Vec<String>,
}

struct House {
    _dir: tempfile::TempDir,
    places: Places,
    journal: PathBuf,
    state: Arc<SyncState>,
    desk: Arc<Mutex<Desk>>,
    authority: Arc<Authority>,
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    life: Duration,
}

impl Authority {
    fn new(life: Duration) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = params.self_signed(&key).unwrap();
        let (certificate, pem) = (ca.der().clone(), ca.pem());
        Self { issuer: Issuer::new(params, key), certificate, pem, life }
    }

    fn leaf(&self, purpose: ExtendedKeyUsagePurpose, life: Duration) -> CertificateParams {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        // Certificates count whole seconds.
        let seconds = u64::try_from(now().seconds()).unwrap();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + Duration::from_secs(seconds);
        params.not_after = epoch + Duration::from_secs(seconds) + life;
        params
    }
}

impl House {
    fn new(life: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let places =
            Places { identity: path("identity"), trust: path("trust"), state: path("state") };
        for folder in
            [&places.identity, &places.state, &places.trust.join("operators"), &path("journal")]
        {
            std::fs::create_dir_all(folder).unwrap();
        }
        let key = places.trust.join("operators").join("aiko.pub");
        std::fs::write(key, key_pair(&[1; 32]).1).unwrap();
        let authority = Arc::new(Authority::new(life));
        let key = KeyPair::generate().unwrap();
        let leaf = authority
            .leaf(ExtendedKeyUsagePurpose::ClientAuth, life)
            .signed_by(&key, &authority.issuer)
            .unwrap();
        let identity = Identity {
            id: "agent-7".into(),
            url: String::new(),
            key: key.serialize_pem(),
            certificate: leaf.pem(),
            ca: authority.pem.clone(),
        };
        identity.store(&places.identity).unwrap();
        Self {
            journal: path("journal"),
            _dir: dir,
            places,
            state: Arc::default(),
            desk: Arc::default(),
            authority,
        }
    }

    /// Starts the collector and the agent's link to it.
    async fn start(&self) -> Arc<Body> {
        let url = listen(&self.authority, &self.desk).await;
        let body = Arc::new(Body {
            places: self.places.clone(),
            carried: Mutex::default(),
            refused: Mutex::default(),
            confirmed: Mutex::default(),
            spent: Mutex::default(),
        });
        let tls = tls(&self.places.identity);
        let hooks: Arc<dyn Hooks> = Arc::<Body>::clone(&body);
        tokio::spawn(run(url, tls, self.journal.clone(), Arc::clone(&self.state), hooks));
        body
    }
}

fn tls(identity: &Path) -> Arc<rustls::ClientConfig> {
    Arc::new(Identity::load(identity).unwrap().tls(identity).unwrap())
}

async fn listen(authority: &Arc<Authority>, desk: &Arc<Mutex<Desk>>) -> String {
    let key = KeyPair::generate().unwrap();
    let leaf = authority
        .leaf(ExtendedKeyUsagePurpose::ServerAuth, Duration::from_secs(3600))
        .signed_by(&key, &authority.issuer)
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (authority, desk) = (Arc::clone(authority), Arc::clone(desk));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, authority, desk) =
                (acceptor.clone(), Arc::clone(&authority), Arc::clone(&desk));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
                let service = service_fn(move |request| {
                    answer(request, Arc::clone(&authority), Arc::clone(&desk), shown.clone())
                });
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    format!("https://{address}")
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn answer(
    request: Request<Incoming>,
    authority: Arc<Authority>,
    desk: Arc<Mutex<Desk>>,
    shown: Vec<u8>,
) -> Result<Answer, Infallible> {
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let text = request.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&text).unwrap_or_default();
    let json = |value: Value| Response::new(Full::new(Bytes::from(value.to_string())).boxed());
    let mut desk = desk.lock().unwrap();
    Ok(match (method.as_str(), path.as_str()) {
        ("POST", "/v1/state") => {
            if !desk.shown.contains(&shown) {
                desk.shown.push(shown);
            }
            json(
                json!({"policy": null, "confirmed": [ID], "group_spent": {"count": 2, "since": now()}}),
            )
        }
        ("GET", "/v1/stream") => notices(),
        ("GET", "/v1/orders") => {
            let orders: Vec<Value> = desk
                .orders
                .iter()
                .map(|(id, sealed)| json!({"id": id, "sealed": sealed}))
                .collect();
            json(json!({"orders": orders}))
        }
        ("POST", "/v1/renew") => {
            if desk.refuse_renewals > 0 {
                desk.refuse_renewals -= 1;
                let mut refusal = json(json!({"detail": "not now"}));
                *refusal.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                return Ok(refusal);
            }
            let request =
                CertificateSigningRequestParams::from_pem(body["csr"].as_str().unwrap()).unwrap();
            let leaf = authority
                .leaf(ExtendedKeyUsagePurpose::ClientAuth, authority.life)
                .signed_by(&request.public_key, &authority.issuer)
                .unwrap();
            json(json!({"certificate": leaf.pem()}))
        }
        ("POST", path)
            if path.strip_prefix("/v1/orders/").is_some_and(|id| id.starts_with("o-")) =>
        {
            desk.answers.push((path.trim_start_matches("/v1/orders/").to_owned(), body));
            json(json!({"kept": true}))
        }
        _ => {
            desk.strange.push(format!("{method} {path}"));
            json(json!({}))
        }
    })
}

/// A stream that tells of orders again and again, and once of the group.
fn notices() -> Answer {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(4);
    tokio::spawn(async move {
        let group = format!("event: group\ndata: {{\"count\":3,\"since\":\"{}\"}}\n\n", now());
        let mut text = group;
        while sender.send(Bytes::from(text)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            text = "event: order\ndata: {\"waiting\":2}\n\n".to_owned();
        }
    });
    Response::new(Feed(receiver).boxed())
}

struct Feed(tokio::sync::mpsc::Receiver<Bytes>);

impl hyper::body::Body for Feed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
