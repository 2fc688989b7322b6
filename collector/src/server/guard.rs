//! Who may read: the operator, by password; on the open page, whoever sits at this host.

use super::problem::Problem;
use super::room::{Door, Peer, Room};
use crate::secret::{password_fits, random, same};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header, uri::Authority};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Passwords that are checked at the same time; the rest is told to come again.
const CHECKS_AT_ONCE: usize = 4;
/// The longest that a wrong password makes the next one wait: guessing is slow, the operator is never locked out.
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// Checks the operator's password.
pub(super) struct Guard {
    record: String,
    /// A digest, under a nonce of this process, of the password that was right last: later requests need not stretch it again.
    right: Mutex<Option<[u8; 32]>>,
    nonce: [u8; 32],
    failures: AtomicU32,
    checks: Semaphore,
}

impl Guard {
    pub(super) fn new(record: String) -> Result<Self, crate::secret::DrawError> {
        Ok(Self {
            record,
            right: Mutex::new(None),
            nonce: random()?,
            failures: AtomicU32::new(0),
            checks: Semaphore::new(CHECKS_AT_ONCE),
        })
    }

    fn digest(&self, password: &str) -> [u8; 32] {
        Sha256::new().chain_update(self.nonce).chain_update(password.as_bytes()).finalize().into()
    }

    /// Stands in the forms of the page: another site can send a form with the operator's password, but not read it.
    pub(super) fn form_token(&self) -> String {
        let digest = Sha256::new().chain_update(self.nonce).chain_update(b"form").finalize();
        sekisho_schema::sealed::hex(&digest)
    }

    fn known(&self, password: &str) -> bool {
        let right = *self.right.lock().unwrap_or_else(PoisonError::into_inner);
        right.is_some_and(|right| same(&right, &self.digest(password)))
    }

    async fn check(&self, password: String) -> Result<(), Problem> {
        if self.known(&password) {
            return Ok(());
        }
        let Ok(Ok(_permit)) = tokio::time::timeout(LONGEST_DELAY, self.checks.acquire()).await
        else {
            return Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many passwords are being tried",
            )
            .retry_after(5));
        };
        let record = self.record.clone();
        let tried = password.clone();
        if tokio::task::spawn_blocking(move || password_fits(&tried, &record))
            .await
            .unwrap_or(false)
        {
            self.failures.store(0, Ordering::Relaxed);
            *self.right.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(self.digest(&password));
            return Ok(());
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).min(8);
        tokio::time::sleep(Duration::from_millis(100 << failures).min(LONGEST_DELAY)).await;
        Err(Problem::password())
    }
}

fn password(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, code) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let plain = String::from_utf8(BASE64.decode(code.trim()).ok()?).ok()?;
    let (user, password) = plain.split_once(':')?;
    (user == "operator").then(|| password.to_owned())
}

/// A page of another site, led to this address by its own name server, must not read us (DNS rebinding).
fn is_local_name(request: &Request) -> bool {
    let name = request
        .headers()
        .get(header::HOST)
        .and_then(|value| value.to_str().ok())
        .or_else(|| request.uri().authority().map(Authority::as_str));
    let Some(host) = name.and_then(|name| name.parse::<Authority>().ok()) else { return false };
    let host = host.host().trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Lets through who may read.
pub(super) async fn operators_only(
    State(room): State<Arc<Room>>,
    request: Request,
    next: Next,
) -> Response {
    let asked = asks(&request);
    match allowed(&room, asked).await {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Lets through who has the password, also at the open page: what is said there goes on record.
pub(super) async fn password_only(
    State(room): State<Arc<Room>>,
    request: Request,
    next: Next,
) -> Response {
    let asked = match (asks(&request), request.extensions().get::<Peer>()) {
        (Asks::Anybody, Some(peer)) => match password(request.headers()) {
            Some(password) => Asks::With(peer.address, password),
            None => Asks::Refused(Problem::password()),
        },
        (asked, _) => asked,
    };
    match allowed(&room, asked).await {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// What a request shows of who asks.
enum Asks {
    Anybody,
    Refused(Problem),
    With(SocketAddr, String),
}

fn asks(request: &Request) -> Asks {
    let Some(peer) = request.extensions().get::<Peer>() else {
        return Asks::Refused(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the connection is not known",
        ));
    };
    if matches!(peer.door, Door::Page { .. }) && !is_local_name(request) {
        return Asks::Refused(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "this listener answers to localhost and loopback addresses only",
        ));
    }
    match password(request.headers()) {
        _ if peer.door == (Door::Page { open: true }) => Asks::Anybody,
        Some(password) => Asks::With(peer.address, password),
        None => Asks::Refused(Problem::password()),
    }
}

async fn allowed(room: &Room, asks: Asks) -> Result<(), Problem> {
    let (address, password) = match asks {
        Asks::Anybody => return Ok(()),
        Asks::Refused(problem) => return Err(problem),
        Asks::With(address, password) => (address, password),
    };
    let checked = room.guard.check(password).await;
    if checked.is_err() {
        room.metrics.refused.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(peer = %address, "a wrong operator password was tried");
    }
    checked
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    #[test]
    fn the_page_answers_to_names_of_this_host_only() {
        let asked = |host: &str| {
            is_local_name(
                &Request::builder().uri("/").header("host", host).body(Body::empty()).unwrap(),
            )
        };
        assert!(
            asked("127.0.0.1:8444")
                && asked("localhost:8444")
                && asked("[::1]:8444")
                && asked("localhost")
        );
        assert!(
            !asked("evil.example:8444")
                && !asked("192.0.2.1")
                && !asked("localhost.evil.example")
                && !asked("")
        );
    }

    #[tokio::test]
    async fn only_the_right_password_opens_and_a_wrong_one_does_not_lock_the_right_one_out() {
        let guard = Guard::new(crate::secret::password_record("right").unwrap()).unwrap();
        assert!(guard.check("wrong".into()).await.is_err());
        assert!(
            guard.check("right".into()).await.is_ok()
                && guard.known("right")
                && !guard.known("wrong")
        );
    }

    #[test]
    fn only_basic_credentials_of_the_operator_are_read() {
        let of = |value: &str| {
            password(&HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]))
        };
        assert_eq!(of(&format!("Basic {}", BASE64.encode("operator:a:b"))).unwrap(), "a:b");
        for value in [
            format!("Basic {}", BASE64.encode("root:a")),
            "Bearer x".to_owned(),
            "Basic".to_owned(),
            "Basic %%".to_owned(),
        ] {
            assert_eq!(of(&value), None);
        }
    }
}
