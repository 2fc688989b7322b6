//! Enrolment against a collector made for the test: the pin, the token, what is kept.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that meets the unexpected ends"
)]

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use sekisho_agent::sync::{Identity, Link, Pin, enrol};
use sekisho_schema::sealed::{key_id, key_pair, parse_public};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const TOKEN: &str = "right";

#[tokio::test]
async fn a_host_with_the_right_pin_and_token_gets_an_identity_and_anchors() {
    let collector = Collector::start("127.0.0.1").await;
    let dir = tempfile::tempdir().unwrap();
    let (identity, trust) = (dir.path().join("identity"), dir.path().join("trust"));
    let enrolled =
        enrol(&collector.url(), TOKEN, collector.pin, "web-1", &identity, &trust).await.unwrap();
    let public = key_pair(&[3; 32]).1;
    let id = key_id(&parse_public(&public).unwrap());
    assert_eq!(
        (enrolled.id.as_str(), enrolled.threshold, enrolled.anchors),
        ("agent-7", 2, vec![id.clone()])
    );
    let kept = Identity::load(&identity).unwrap();
    assert_eq!((kept.id.as_str(), kept.url.clone()), ("agent-7", collector.url()));
    assert_eq!(std::fs::read_to_string(trust.join(format!("{id}.pub"))).unwrap().trim(), public);
    assert_eq!(std::fs::read_to_string(trust.join("threshold")).unwrap(), "2\n");
    let mode =
        std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(identity.join("key.pem")).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    // The identity proves itself: the CA that was kept is the one that the collector shows.
    let tls = Arc::new(kept.tls(&identity).unwrap());
    assert!(Link::connect(&collector.url(), tls).await.is_ok());
}

#[tokio::test]
async fn another_ca_another_name_and_a_wrong_token_leave_nothing_behind() {
    let collector = Collector::start("127.0.0.1").await;
    let other = Collector::start("127.0.0.1").await;
    let misnamed = Collector::start("192.0.2.1").await;
    for (url, token, pin, why) in [
        (collector.url(), TOKEN, other.pin, "not the pinned one"),
        (misnamed.url(), TOKEN, misnamed.pin, "not valid for name"),
        (collector.url(), "wrong", collector.pin, "403 Forbidden: the token is unknown"),
        ("https://127.0.0.1:1".to_owned(), TOKEN, collector.pin, "Connection refused"),
        ("http://127.0.0.1".to_owned(), TOKEN, collector.pin, "not a collector address"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (identity, trust) = (dir.path().join("identity"), dir.path().join("trust"));
        let error = enrol(&url, token, pin, "web-1", &identity, &trust).await.unwrap_err();
        let said = sekisho_agent::chain::causes(&error);
        assert!(said.contains(why), "{why}: {said}");
        assert_eq!(
            (
                std::fs::read_dir(&identity).unwrap().count(),
                std::fs::read_dir(&trust).unwrap().count()
            ),
            (0, 0),
            "{why}"
        );
    }
}

#[test]
fn a_pin_reads_back_what_it_writes_and_nothing_else() {
    let text = format!("sha256:{}", "0a".repeat(32));
    assert_eq!(text.parse::<Pin>().unwrap().to_string(), text);
    for bad in [
        "",
        "sha256:",
        text.get(..70).unwrap(),
        &text.replace("sha256", "sha1"),
        &text.replace('a', "g"),
        &format!("{text}0"),
    ] {
        assert!(bad.parse::<Pin>().is_err(), "{bad}");
    }
}

struct Collector {
    address: SocketAddr,
    pin: Pin,
}

impl Collector {
    async fn start(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = params.self_signed(&key).unwrap();
        let issuer = Arc::new(Issuer::new(params, key));
        let leaf_key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .signed_by(&leaf_key, &issuer)
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone(), ca.der().clone()],
                PrivateKeyDer::Pkcs8(leaf_key.serialize_der().into()),
            )
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (acceptor, pem) = (TlsAcceptor::from(Arc::new(tls)), ca.pem());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, issuer, pem) = (acceptor.clone(), Arc::clone(&issuer), pem.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| {
                        answer(request, Arc::clone(&issuer), pem.clone())
                    });
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, pin: Pin::of(ca.der()).unwrap() }
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

async fn answer(
    request: Request<Incoming>,
    issuer: Arc<Issuer<'static, KeyPair>>,
    ca: String,
) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/enroll"));
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let asked: serde_json::Value = serde_json::from_slice(&body).unwrap();
    if asked["token"] != TOKEN {
        let mut refusal =
            Response::new(Full::new(Bytes::from_static(b"{\"detail\":\"the token is unknown\"}")));
        *refusal.status_mut() = hyper::StatusCode::FORBIDDEN;
        return Ok(refusal);
    }
    assert_eq!(asked["host"], "web-1");
    let certificate = CertificateSigningRequestParams::from_pem(asked["csr"].as_str().unwrap())
        .unwrap()
        .signed_by(&issuer)
        .unwrap();
    let told = serde_json::json!({"id": "agent-7", "certificate": certificate.pem(), "ca": ca, "trust": [key_pair(&[3; 32]).1], "threshold": 2});
    Ok(Response::new(Full::new(Bytes::from(told.to_string()))))
}
