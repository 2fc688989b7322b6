//! The page of learning, its API, and the one form of the page: a person's word about an item, kept in the audit.

use super::guard::{operators_only, password_only};
use super::problem::Problem;
use super::readers::{broken, html};
use super::room::{Peer, Room};
use crate::clock;
use crate::learning::{LearningError, Role};
use crate::page::learning::{Asked, LearningBoard, is_item};
use crate::page::render_learning;
use crate::secret::{random, same};
use crate::store::{PageRuling, Word};
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use sekisho_schema::baseline::PoolError;
use sekisho_schema::query_value;
use sekisho_schema::sealed::hex;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The largest form, in bytes; it is read as the query of an address, which has a bound of its own.
const FORM_LIMIT: usize = 16 << 10;
/// How long a form may take to arrive.
const FORM_WITHIN: Duration = Duration::from_secs(10);
/// How long a request waits for its turn to pool a role.
const TURN_WITHIN: Duration = Duration::from_secs(20);
/// The longest name of a person, in characters.
const LONGEST_NAME: usize = 80;
/// The longest reason, in characters.
const LONGEST_REASON: usize = 400;

type Shared = State<Arc<Room>>;

/// The routes; the form asks for the password also where reading needs none.
pub(super) fn routes(room: &Arc<Room>) -> Router<Arc<Room>> {
    let read = Router::new()
        .route("/learning", get(page))
        .route("/api/v1/learning", get(roles))
        .route("/api/v1/learning/report", get(report))
        .route("/api/v1/learning/rulings", get(rulings))
        .route_layer(from_fn_with_state(Arc::clone(room), operators_only));
    let write = Router::new()
        .route("/learning/rule", post(rule))
        .route_layer(from_fn_with_state(Arc::clone(room), password_only));
    read.merge(write)
}

#[derive(Deserialize)]
struct Shown {
    role: Option<String>,
    said: Option<String>,
    by: Option<String>,
}

fn cannot(error: LearningError) -> Problem {
    match error {
        LearningError::Store(error) => error.into(),
        LearningError::Pool(PoolError::Empty(_)) => {
            Problem::new(StatusCode::NOT_FOUND, "no host of that role sent what it learned")
        }
        other => {
            tracing::error!(error = %other, "a role cannot be pooled");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, other.to_string())
        }
    }
}

/// Works on a pooled role, one at a time.
async fn pooled<T: Send + 'static>(
    room: &Arc<Room>,
    work: impl FnOnce(&Room) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let Ok(Ok(_turn)) = tokio::time::timeout(TURN_WITHIN, room.pooling.acquire()).await else {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "others are looking at what is learned; try again",
        )
        .retry_after(5));
    };
    room.waiting(work).await
}

async fn page(State(room): Shared, Query(shown): Query<Shown>) -> Result<Response, Problem> {
    let asked = Asked {
        role: shown.role,
        said: shown.said.filter(|item| is_item(item)),
        by: shown.by.filter(|by| is_said(by, LONGEST_NAME)),
        token: room.guard.form_token(),
    };
    let board = pooled(&room, move |room| {
        LearningBoard::read(&room.store, &asked, &room.calendar, clock::now()).map_err(cannot)
    })
    .await?;
    let nonce = hex(&random::<16>().map_err(|error| broken(&error))?);
    let text = render_learning(&board, &nonce).map_err(|error| broken(&error))?;
    html(
        text,
        &format!(
            "default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        ),
    )
}

async fn roles(State(room): Shared) -> Result<Json<Value>, Problem> {
    let value = room
        .waiting(|room| {
            let now = clock::now();
            let fleet: Vec<_> = room.store.fleet(now)?.into_values().collect();
            Ok(json!({"roles": room.store.roles()?, "fleet": fleet}))
        })
        .await?;
    Ok(Json(value))
}

/// The role that is asked for, else the first that learned anything.
fn named(room: &Room, role: Option<String>) -> Result<Option<String>, Problem> {
    if role.is_some() {
        return Ok(role);
    }
    let roles = room.store.roles()?;
    Ok(roles.into_iter().find(|role| role.learned > 0).map(|role| role.role))
}

async fn report(State(room): Shared, Query(shown): Query<Shown>) -> Result<Json<Value>, Problem> {
    let value = pooled(&room, move |room| {
        let Some(name) = named(room, shown.role)? else {
            return Ok(json!({"report": null, "provisional": false, "undecided": []}));
        };
        let now = clock::now();
        let role = Role::read(&room.store, &name, now).map_err(cannot)?;
        let rehearsed = role.rehearse(&room.calendar, now);
        Ok(json!({"report": rehearsed.report, "provisional": rehearsed.provisional, "undecided": role.undecided()}))
    })
    .await?;
    Ok(Json(value))
}

async fn rulings(State(room): Shared, Query(shown): Query<Shown>) -> Result<Json<Value>, Problem> {
    let rulings = room
        .waiting(move |room| {
            Ok(match named(room, shown.role)? {
                Some(role) => room.store.rulings(&role)?,
                None => Vec::new(),
            })
        })
        .await?;
    Ok(Json(json!({"rulings": rulings})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ruled {
    token: String,
    role: String,
    item: String,
    word: Word,
    by: String,
    reason: String,
}

fn is_said(text: &str, longest: usize) -> bool {
    !text.trim().is_empty()
        && text.chars().count() <= longest
        && !text.chars().any(char::is_control)
}

/// Whether a form was sent by a page of ours: a browser says so, and the token proves it.
fn is_ours(room: &Room, headers: &HeaderMap, uri: &Uri, token: &str) -> bool {
    let value = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let site = value(HeaderName::from_static("sec-fetch-site"));
    let from_here = match (site, value(header::ORIGIN)) {
        (Some(site), _) => site == "same-origin",
        // A page that sends no referrer sends no origin either.
        (None, None | Some("null")) => true,
        (None, Some(origin)) => {
            let host = value(header::HOST).or_else(|| uri.authority().map(|name| name.as_str()));
            let origin = origin.split_once("://").map(|(_, name)| name);
            host.is_some() && origin == host
        }
    };
    let expected = room.guard.form_token();
    from_here && same(expected.as_bytes(), token.as_bytes())
}

async fn rule(
    State(room): Shared,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Result<Response, Problem> {
    let refuse = |status, why: &str| Err(Problem::new(status, why));
    let read = tokio::time::timeout(FORM_WITHIN, to_bytes(body, FORM_LIMIT)).await;
    let Ok(Ok(bytes)) = read else {
        return refuse(StatusCode::BAD_REQUEST, "the form is too large or did not arrive in time");
    };
    // A form is written like a query.
    let asked = std::str::from_utf8(&bytes).ok().and_then(|text| format!("/?{text}").parse().ok());
    let form = asked.and_then(|uri: Uri| Query::<Ruled>::try_from_uri(&uri).ok());
    let Some(Query(form)) = form else {
        return refuse(StatusCode::BAD_REQUEST, "the form is not one of this page");
    };
    if !is_ours(&room, &headers, &uri, &form.token) {
        tracing::warn!(peer = %peer.address, "a form that is not of this page was refused");
        return refuse(
            StatusCode::FORBIDDEN,
            "the form is not of this page, or of one from before the collector was started; load the page again",
        );
    }
    if !is_item(&form.item)
        || !is_said(&form.by, LONGEST_NAME)
        || !is_said(&form.reason, LONGEST_REASON)
    {
        return refuse(
            StatusCode::BAD_REQUEST,
            "an item, a name of at most 80 and a reason of at most 400 characters are needed",
        );
    }
    let to = format!(
        "/learning?role={}&said={}&by={}#decide",
        query_value(&form.role),
        form.item,
        query_value(&form.by)
    );
    let address = peer.address.ip().to_string();
    pooled(&room, move |room| {
        let now = clock::now();
        let role = Role::read(&room.store, &form.role, now).map_err(cannot)?;
        let Some(item) = role.item(&form.item) else {
            return Err(Problem::new(StatusCode::NOT_FOUND, "there is no such item any more"));
        };
        let ruling = PageRuling {
            at: now,
            role: form.role,
            item: form.item,
            key: item.key,
            word: form.word,
            by: form.by.trim().to_owned(),
            reason: form.reason.trim().to_owned(),
            peer: address,
        };
        room.store.keep_ruling(&ruling)?;
        tracing::info!(role = ?ruling.role, item = ruling.item, word = ?ruling.word, by = ?ruling.by, "a ruling was recorded");
        Ok(())
    })
    .await?;
    Ok((StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response())
}
