//! What people and their tools read: the page, the API, health and metrics.

use super::guard::operators_only;
use super::problem::Problem;
use super::room::{Door, Peer, Room};
use super::sse;
use crate::clock;
use crate::page::{Board, render_board, render_page};
use crate::secret::random;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use sekisho_schema::sealed::hex;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// The most rows of one answer.
const MOST: u64 = 500;
/// Rows of an answer unless asked otherwise.
const USUAL: u64 = 100;

type Shared = State<Arc<Room>>;

/// The routes of people and their tools.
pub(super) fn routes(room: &Arc<Room>, on_loopback: bool) -> Router<Arc<Room>> {
    // Counters name no host and no address, so that a scraper on this host needs no password.
    let (open, guarded) = if on_loopback {
        (Router::new().route("/metrics", get(metrics)), Router::new())
    } else {
        (Router::new(), Router::new().route("/metrics", get(metrics)))
    };
    let guarded = guarded
        .route("/", get(page))
        .route("/page/board", get(board))
        .route("/api/v1/overview", get(overview))
        .route("/api/v1/hosts", get(hosts))
        .route("/api/v1/findings", get(findings))
        .route("/api/v1/containments", get(containments))
        .route("/api/v1/events", get(events))
        .route("/api/v1/orders", get(orders))
        .route("/api/v1/notices", get(notices))
        .route("/api/v1/drills", get(drills))
        .route("/api/v1/policy", get(policy))
        .route("/api/v1/live", get(live))
        .route_layer(from_fn_with_state(Arc::clone(room), operators_only));
    open.route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/v1/openapi.json", get(openapi))
        .merge(guarded)
}

async fn metrics(State(room): Shared) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], room.metrics_text())
        .into_response()
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(room): Shared) -> Result<Response, Problem> {
    let ailments = room.waiting(|room| Ok(room.ailments())).await?;
    if ailments.is_empty() {
        Ok("ready\n".into_response())
    } else {
        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, ailments.join("; ")))
    }
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("openapi.json")).into_response()
}

async fn live(State(room): Shared) -> Response {
    sse::live(&room)
}

async fn read_board(room: &Arc<Room>) -> Result<Board, Problem> {
    let policy = room.policy.borrow().clone();
    room.waiting(move |room| {
        Ok(Board::read(&room.store, policy.as_deref(), room.notifies, clock::now())?)
    })
    .await
}

pub(super) fn broken(error: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%error, "the page could not be written");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be written")
}

pub(super) fn html(text: String, policy: &str) -> Result<Response, Problem> {
    let policy = HeaderValue::from_str(policy).map_err(|error| broken(&error))?;
    let mut response = ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response();
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}

async fn page(State(room): Shared) -> Result<Response, Problem> {
    let board = read_board(&room).await?;
    let nonce = hex(&random::<16>().map_err(|error| broken(&error))?);
    let text = render_page(&board, &nonce).map_err(|error| broken(&error))?;
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    html(text, &policy)
}

async fn board(State(room): Shared) -> Result<Response, Problem> {
    let board = read_board(&room).await?;
    html(
        render_board(&board).map_err(|error| broken(&error))?,
        "default-src 'none'; frame-ancestors 'none'",
    )
}

async fn overview(State(room): Shared) -> Result<Json<Value>, Problem> {
    let policy = policy_value(&room);
    let connected = room.connected();
    let value = room
        .waiting(move |room| {
            let now = clock::now();
            let hosts = room.store.hosts(now)?;
            let count = |liveness| hosts.iter().filter(|host| host.liveness == liveness).count();
            use crate::store::Liveness::{Denied, Reporting, Silent, Waiting};
            Ok(json!({
                "at": now,
                "containments": room.store.containments(false, MOST, now)?.len(),
                "hosts": {"reporting": count(Reporting), "silent": count(Silent), "waiting": count(Waiting), "denied": count(Denied)},
                "mode_mismatches": hosts.iter().filter(|host| host.requested != host.effective).count(),
                "streams": connected,
                "findings_last_hour": room.store.finding_times(now.before(sekisho_schema::Span::from_hours(1)))?.len(),
                "last_heard": hosts.iter().filter_map(|host| host.last_seen).max(),
                "policy": policy,
            }))
        })
        .await?;
    Ok(Json(value))
}

async fn hosts(State(room): Shared) -> Result<Json<Value>, Problem> {
    let hosts = room.waiting(|room| Ok(room.store.hosts(clock::now())?)).await?;
    Ok(Json(json!({"hosts": hosts})))
}

/// Which rows are asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    limit: Option<u64>,
    before: Option<u64>,
    agent: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    state: Option<String>,
}

impl Rows {
    fn limit(&self) -> u64 {
        self.limit.unwrap_or(USUAL).clamp(1, MOST)
    }
}

type Asked = Result<Query<Rows>, axum::extract::rejection::QueryRejection>;

fn rows(asked: Asked) -> Result<Rows, Problem> {
    asked
        .map(|Query(rows)| rows)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))
}

async fn findings(State(room): Shared, asked: Asked) -> Result<Json<Value>, Problem> {
    let rows = rows(asked)?;
    // Without a cursor the newest arrival comes first too, so that pages join without a seam.
    let limit = rows.limit();
    let findings = room
        .waiting(move |room| {
            Ok(room.store.findings(limit, Some(rows.before.unwrap_or(u64::MAX)))?)
        })
        .await?;
    let next = findings.last().filter(|_| findings.len() as u64 == limit).map(|last| last.cursor);
    Ok(Json(json!({"findings": findings, "next": next})))
}

async fn containments(State(room): Shared, asked: Asked) -> Result<Json<Value>, Problem> {
    let rows = rows(asked)?;
    let also_ended = match rows.state.as_deref() {
        None | Some("active") => false,
        Some("all") => true,
        Some(_) => return Err(Problem::new(StatusCode::BAD_REQUEST, "state is active or all")),
    };
    let containments = room
        .waiting(move |room| Ok(room.store.containments(also_ended, rows.limit(), clock::now())?))
        .await?;
    Ok(Json(json!({"containments": containments})))
}

async fn events(State(room): Shared, asked: Asked) -> Result<Json<Value>, Problem> {
    let rows = rows(asked)?;
    let limit = rows.limit();
    let events = room
        .waiting(move |room| {
            Ok(room.store.events(
                rows.agent.as_deref(),
                rows.kind.as_deref(),
                limit,
                rows.before,
            )?)
        })
        .await?;
    let next = events.last().filter(|_| events.len() as u64 == limit).map(|last| last.cursor);
    Ok(Json(json!({"events": events, "next": next})))
}

async fn orders(State(room): Shared, asked: Asked) -> Result<Json<Value>, Problem> {
    let limit = rows(asked)?.limit();
    let orders = room.waiting(move |room| Ok(room.store.orders(limit, clock::now())?)).await?;
    Ok(Json(json!({"orders": orders})))
}

async fn notices(State(room): Shared, asked: Asked) -> Result<Json<Value>, Problem> {
    let rows = rows(asked)?;
    let also_seen = match rows.state.as_deref() {
        None | Some("active") => false,
        Some("all") => true,
        Some(_) => return Err(Problem::new(StatusCode::BAD_REQUEST, "state is active or all")),
    };
    let notices =
        room.waiting(move |room| Ok(room.store.notices(also_seen, rows.limit())?)).await?;
    Ok(Json(json!({"notices": notices})))
}

async fn drills(State(room): Shared) -> Result<Json<Value>, Problem> {
    let policy = room.policy.borrow().clone();
    let value = room
        .waiting(move |room| {
            let now = clock::now();
            let overdue =
                match policy.as_deref().and_then(|held| Some((held, held.policy.as_ref()?))) {
                    Some((held, policy)) => {
                        room.store.drills_overdue(&policy.drill, held.stored.pushed_at, now)?
                    }
                    None => Vec::new(),
                };
            Ok(json!({"drills": room.store.drills()?, "overdue": overdue}))
        })
        .await?;
    Ok(Json(value))
}

fn policy_value(room: &Room) -> Value {
    room.policy.borrow().as_ref().map_or(Value::Null, |policy| {
        let expires = policy.policy.as_ref().and_then(|policy| policy.expires);
        json!({"version": policy.stored.version, "digest": policy.stored.digest, "pushed_at": policy.stored.pushed_at, "expires": expires, "policy": policy.policy})
    })
}

async fn policy(State(room): Shared) -> Json<Value> {
    Json(json!({"policy": policy_value(&room)}))
}

/// Marks every answer: not to be kept, not to be guessed at, not to be framed.
pub(super) async fn seal(
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}

/// What is asked for and not there.
pub(super) async fn nothing(Extension(peer): Extension<Peer>) -> Problem {
    let door = if peer.door == Door::Tls { "the collector" } else { "the page" };
    Problem::new(StatusCode::NOT_FOUND, format!("there is no such route at {door}"))
}
