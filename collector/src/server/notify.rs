//! A person is told: notices go to a webhook, signed, tried again until they arrive, each under one key.

use super::room::Room;
use crate::clock;
use crate::config::Notify;
use crate::policy::InForce;
use crate::secret::hmac;
use crate::store::Due;
use bytes::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How often it is looked for notices that are due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Name and version of the body.
const SCHEMA: &str = "sekisho.notice/1";

/// Posts notices.
#[derive(Clone)]
pub(super) struct Caller {
    notify: Notify,
    host: String,
    port: u16,
    authority: String,
    path: String,
    tls: Option<Arc<ClientConfig>>,
}

impl Caller {
    /// Makes ready to call; the address was checked with the configuration.
    ///
    /// # Errors
    /// What about the address or the authorities can't be used.
    pub(super) fn new(notify: Notify) -> Result<Self, String> {
        let uri: Uri = notify.url.parse().map_err(|error| format!("notify.url: {error}"))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let authority =
            uri.authority().map(ToString::to_string).ok_or("notify.url names no host")?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let tls = if is_tls { Some(Arc::new(client(&notify.ca)?)) } else { None };
        Ok(Self { notify, host, port, authority, path, tls })
    }

    async fn call(&self, key: &str, body: String) -> Result<(), String> {
        let at = clock::now().seconds().to_string();
        let code = hmac(&self.notify.secret, format!("{at}.{body}").as_bytes());
        let request = Request::post(&self.path)
            .header("host", &self.authority)
            .header("content-type", "application/json")
            .header("user-agent", concat!("sekisho-collector/", env!("CARGO_PKG_VERSION")))
            .header("idempotency-key", key)
            .header("sekisho-timestamp", &at)
            .header("sekisho-signature", format!("sha256={code}"))
            .body(axum::body::Body::from(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let tried = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port))
                .await
                .map_err(|error| format!("cannot connect: {error}"))?;
            let Some(tls) = &self.tls else { return post(stream, request).await };
            let name =
                ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?;
            let stream = TlsConnector::from(Arc::clone(tls))
                .connect(name, stream)
                .await
                .map_err(|error| format!("TLS: {error}"))?;
            post(stream, request).await
        };
        tokio::time::timeout(PATIENCE, tried)
            .await
            .unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }
}

async fn post<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    request: Request<axum::body::Body>,
) -> Result<(), String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let driving = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| error.to_string());
    // The body of the answer is of no interest: the connection ends with it unread.
    driving.abort();
    let status = answer?.status();
    if status.is_success() { Ok(()) } else { Err(format!("answered {status}")) }
}

fn client(ca: &str) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(ca.as_bytes()).filter_map(Result::ok).collect();
    let (taken, _) = roots.add_parsable_certificates(found);
    if taken == 0 {
        return Err("notify: the ca-file holds no certificate".to_owned());
    }
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())
        .map(|builder| builder.with_root_certificates(roots).with_no_client_auth())
}

/// Delivers what is due until the room closes.
pub(super) async fn deliver(room: Arc<Room>, caller: Caller) {
    let mut closing = room.closing.subscribe();
    let patience = caller.notify.deputy_after;
    loop {
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let due = room
            .waiting(move |room| Ok(room.store.due_deliveries(patience, clock::now())?))
            .await
            .unwrap_or_default();
        for due in due {
            deliver_one(&room, &caller, due).await;
        }
    }
}

async fn deliver_one(room: &Arc<Room>, caller: &Caller, due: Due) {
    let policy = room.policy.borrow().clone();
    let key = format!("{}-{}-{}", due.notice.id, due.notice.at.nanos(), due.who);
    let body = body(&due, policy.as_deref()).to_string();
    let outcome = caller.call(&key, body).await;
    let counter =
        if outcome.is_ok() { &room.metrics.deliveries } else { &room.metrics.delivery_failures };
    counter.fetch_add(1, Ordering::Relaxed);
    if let Err(why) = &outcome {
        tracing::error!(
            notice = due.notice.id,
            who = due.who,
            attempt = due.attempts + 1,
            why,
            state = "tried again later; it stands on the page",
            "a notice did not arrive"
        );
    }
    // A failure to keep this only means that the notice is sent again, under the same key.
    let _ = room
        .waiting(move |room| {
            let failure = outcome.as_ref().err().map(String::as_str);
            Ok(room.store.delivered(&due, failure, clock::now())?)
        })
        .await;
}

/// What is posted.
fn body(due: &Due, policy: Option<&InForce>) -> Value {
    let notice = &due.notice;
    let duty = policy.and_then(|policy| policy.policy.as_ref()).map(|policy| &policy.duty);
    let to = duty.map(|duty| if due.who == "deputy" { &duty.deputy } else { &duty.owner });
    json!({
        "schema": SCHEMA,
        "id": notice.id,
        "kind": notice.kind,
        "at": notice.at,
        "host": notice.host,
        "group": notice.group,
        "subject": notice.subject,
        "text": notice.text,
        "to": {"role": due.who, "name": to},
        "duty": duty.map(|duty| json!({"group": duty.group, "owner": duty.owner, "deputy": duty.deputy})),
        "attempt": due.attempts + 1,
        "seen": format!("sekisho-collector notices seen {} --by NAME", notice.id),
    })
}
