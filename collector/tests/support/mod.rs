//! A real collector in a directory of its own on loopback, and a small client over HTTP/2 and mutual TLS.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// A running collector; killed when dropped.
pub(crate) struct Collector {
    child: Child,
    pub(crate) port: u16,
    pub(crate) page: u16,
}

/// Who a client is: certificate and key as PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The command line, to its end.
pub(crate) fn cli(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sekisho-collector"))
        .args(arguments)
        .env("SEKISHO_LOG", "warn")
        .output()
        .unwrap()
}

/// What a command that must succeed printed.
pub(crate) fn told(arguments: &[&str]) -> String {
    let output = cli(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A new collector's directory and what `init` said.
pub(crate) fn init(place: &Path) -> (PathBuf, String) {
    let dir = place.join("collector");
    let said = told(&[
        "init",
        "--dir",
        dir.to_str().unwrap(),
        "--org",
        "example.org",
        "--name",
        "collector.example",
        "--address",
        "127.0.0.1",
    ]);
    (dir, said)
}

impl Collector {
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_with(dir, "")
    }

    /// With a `collector.toml` beside the directory.
    pub(crate) fn start_with(dir: &Path, config: &str) -> Self {
        let file = dir.with_extension("toml");
        std::fs::write(&file, config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_sekisho-collector"))
            .args([
                "run",
                "--dir",
                dir.to_str().unwrap(),
                "--listen",
                "127.0.0.1:0",
                "--page",
                "127.0.0.1:0",
                "--page-open",
                "--config",
                file.to_str().unwrap(),
            ])
            .env("SEKISHO_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut port = |scheme: &str| -> u16 {
            let line = lines.next().expect("the collector ended before it was ready").unwrap();
            let rest = line
                .split_once(&format!("{scheme}://127.0.0.1:"))
                .unwrap_or_else(|| panic!("{line}"))
                .1;
            rest.split(' ').next().unwrap().parse().unwrap()
        };
        let (port, page) = (port("https"), port("http"));
        Self { child, port, page }
    }

    /// kill −9, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; whether it ended by itself with success within a time.
    pub(crate) fn terminate(mut self, within: Duration) -> bool {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        let deadline = std::time::Instant::now() + within;
        while std::time::Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection over HTTP/2.
pub(crate) struct Link(SendRequest<Full<Bytes>>);

impl Link {
    pub(crate) async fn open(
        port: u16,
        ca: &str,
        identity: Option<&Identity>,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
        let mut config = match identity {
            Some(identity) => {
                let chain =
                    vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()];
                builder
                    .with_client_auth_cert(
                        chain,
                        PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap(),
                    )
                    .unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream =
            TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| error.to_string())?;
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(ServerName::try_from("127.0.0.1").unwrap(), stream)
            .await
            .map_err(|error| error.to_string())?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<hyper::Response<Incoming>, String> {
        let mut request =
            hyper::Request::builder().method(method).uri(format!("https://127.0.0.1{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let answer = async {
            self.0.ready().await.map_err(|error| error.to_string())?;
            self.0.send_request(request).await.map_err(|error| error.to_string())
        };
        tokio::time::timeout(Duration::from_secs(20), answer)
            .await
            .map_err(|_| "no answer".to_owned())?
    }

    /// Status and body of an answer.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        let answer = self.send(method, path, &[], body).await.unwrap();
        read(answer).await
    }
}

pub(crate) async fn read(answer: hyper::Response<Incoming>) -> (u16, String) {
    let status = answer.status().as_u16();
    (
        status,
        String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap(),
    )
}

/// Enrols a host with a fresh token; gives its identity and the answer.
pub(crate) async fn enrol(collector: &Collector, dir: &Path, host: &str) -> (Identity, Value) {
    let said = told(&["token", "create", "--dir", dir.to_str().unwrap()]);
    let token = said.split_whitespace().nth(4).unwrap().to_owned();
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let ca = std::fs::read_to_string(dir.join("ca.pem")).unwrap();
    let mut link = Link::open(collector.port, &ca, None).await.unwrap();
    let (status, text) = link
        .ask("POST", "/v1/enroll", &json!({"token": token, "host": host, "csr": csr}).to_string())
        .await;
    assert_eq!(status, 200, "{text}");
    let (again, text_again) = link
        .ask(
            "POST",
            "/v1/enroll",
            &json!({"token": token, "host": "other", "csr": csr}).to_string(),
        )
        .await;
    let problem: Value = serde_json::from_str(&text_again).unwrap();
    assert_eq!(
        (again, problem["type"].as_str(), problem["status"].as_u64()),
        (403, Some("about:blank"), Some(403)),
        "a token is good once"
    );
    let answer: Value = serde_json::from_str(&text).unwrap();
    (
        Identity {
            certificate: answer["certificate"].as_str().unwrap().to_owned(),
            key: key.serialize_pem(),
        },
        answer,
    )
}

/// A request to the plain listener under a name.
pub(crate) async fn plain(port: u16, path: &str, name: &str) -> (u16, String) {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::get(path)
        .header("host", name)
        .body(http_body_util::Empty::<Bytes>::new())
        .unwrap();
    read(sender.send_request(request).await.unwrap()).await
}

/// A batch of plain events with these sequences.
pub(crate) fn batch(seqs: std::ops::RangeInclusive<u64>) -> String {
    let events: Vec<Value> = seqs.map(|seq| json!({"schema": "sekisho.event/1", "seq": seq, "at": "2026-11-22T09:00:00.000000000Z", "host": "web-1", "type": "gap", "cause": "journal", "count": seq, "detail": "test"})).collect();
    json!({"boot": "00112233445566aa", "events": events}).to_string()
}
