//! What agents ask: to be enrolled, to be believed, to be told.

use super::problem::Problem;
use super::room::{Peer, Room};
use super::sse;
use crate::authority::{AgentShown, AuthorityError};
use crate::clock;
use crate::policy::threshold;
use crate::secret::{new_agent_id, token_hash};
use crate::store::{
    Batch, Enrolment, Heartbeat, MAX_CONTAINMENTS, OrderAnswer, Outcome, PartOutcome, RedeemError,
};
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use sekisho_schema::baseline::{LearnedPart, PartTaken};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The largest batch of events, in bytes.
const EVENTS_LIMIT: usize = 1 << 20;
/// The largest state, in bytes: the most containments, and room.
const STATE_LIMIT: usize = 1 << 20;
/// The largest enrolment, in bytes.
const ENROL_LIMIT: usize = 16 << 10;
/// The largest part of what a host learned, in bytes: episodes, workloads, and room.
const LEARNED_LIMIT: usize = 2 << 20;
/// How long a body may take to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(30);

type Shared = State<Arc<Room>>;

/// The routes of agents.
pub(super) fn routes() -> Router<Arc<Room>> {
    Router::new()
        .route("/v1/enroll", post(enrol))
        .route("/v1/renew", post(renew))
        .route("/v1/orders", get(orders))
        .route("/v1/orders/{id}", post(order_answered))
        .route("/v1/events", post(events))
        .route("/v1/learned", post(learned))
        .route("/v1/certified/{kind}", get(certified))
        .route("/v1/state", post(state))
        .route("/v1/stream", get(stream))
        .route("/v1/policy", get(policy))
        .route("/v1/{*rest}", get(nothing).post(nothing))
}

async fn nothing(State(room): Shared, Extension(peer): Extension<Peer>) -> Problem {
    match room.admit(&peer) {
        Ok(_) => Problem::new(StatusCode::NOT_FOUND, "there is no such route"),
        Err(problem) => problem,
    }
}

async fn read(body: Body, limit: usize) -> Result<Bytes, Problem> {
    match tokio::time::timeout(BODY_WITHIN, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body broke off or is larger than {limit} bytes"),
        )),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    }
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &str) -> Result<T, Problem> {
    serde_json::from_slice(bytes)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("not {what}: {error}")))
}

#[derive(Deserialize)]
struct EnrolRequest {
    token: String,
    host: String,
    csr: String,
}

async fn enrol(
    State(room): Shared,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let bytes = read(body, ENROL_LIMIT).await?;
    let request: EnrolRequest = parse(&bytes, "an enrolment")?;
    if request.host.is_empty()
        || request.host.len() > 253
        || request.host.chars().any(char::is_control)
    {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "host is empty, longer than 253 bytes or has control characters",
        ));
    }
    let (answer, agent) =
        room.waiting(move |room| enrol_now(room, &request)).await.inspect_err(|_| {
            room.metrics.refused.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(peer = %peer.address, "an enrolment was refused");
        })?;
    tracing::info!(agent, peer = %peer.address, "enrolled");
    Ok(Json(answer))
}

fn enrol_now(room: &Room, request: &EnrolRequest) -> Result<(Value, String), Problem> {
    let refuse = |error: RedeemError| match error {
        RedeemError::Store(error) => error.into(),
        other => Problem::new(StatusCode::FORBIDDEN, other.to_string()),
    };
    let (now, hash) = (clock::now(), token_hash(&request.token));
    // Asked before the certificate is made, so that a stranger costs no signature; used up after it, so that a bad request costs no token.
    room.store.check_token(&hash, now).map_err(refuse)?;
    let internal = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "an enrolment could not be completed");
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the enrolment could not be completed; the token was not used",
        )
    };
    let trust = room.dir.anchor_texts().map_err(|error| internal(&error))?;
    let threshold = threshold(&room.store)?;
    let agent = new_agent_id().map_err(|error| internal(&error))?;
    let operators = room.dir.operator_texts().map_err(|error| internal(&error))?;
    let certificate = room
        .authority
        .issue_agent(&request.csr, &agent, room.agent_life, now)
        .map_err(|error| match error {
            AuthorityError::Request(_) => Problem::new(StatusCode::BAD_REQUEST, error.to_string()),
            other => internal(&other),
        })?;
    let enrolment = Enrolment {
        agent: agent.clone(),
        host: request.host.clone(),
        certificate_until: certificate.until,
        spki: certificate.spki,
    };
    room.store.redeem_token(&hash, &enrolment, now).map_err(refuse)?;
    let operators: Vec<Value> =
        operators.iter().map(|(name, key)| json!({"name": name, "key": key})).collect();
    let answer = json!({"id": agent, "certificate": certificate.pem, "ca": room.authority.pem(), "trust": trust, "threshold": threshold, "operators": operators});
    Ok((answer, agent))
}

#[derive(Deserialize)]
struct RenewRequest {
    csr: String,
}

async fn renew(
    State(room): Shared,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let shown = room.admit_to_renew(&peer)?;
    let bytes = read(body, ENROL_LIMIT).await?;
    let request: RenewRequest = parse(&bytes, "a renewal")?;
    let agent = shown.agent.clone();
    let answer = room.waiting(move |room| renew_now(room, &shown, &request)).await?;
    room.metrics.renewed.fetch_add(1, Ordering::Relaxed);
    tracing::info!(agent, peer = %peer.address, "certificate renewed");
    Ok(Json(answer))
}

fn renew_now(room: &Room, shown: &AgentShown, request: &RenewRequest) -> Result<Value, Problem> {
    if !room.store.enrolled(&shown.agent)? {
        return Err(stranger());
    }
    let now = clock::now();
    let certificate = room
        .authority
        .issue_agent(&request.csr, &shown.agent, room.agent_life, now)
        .map_err(|error| match error {
            AuthorityError::Request(_) => Problem::new(StatusCode::BAD_REQUEST, error.to_string()),
            other => {
                tracing::error!(error = %other, "a certificate could not be renewed");
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the certificate could not be made")
            }
        })?;
    if certificate.spki == shown.spki {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "a renewal takes a new key; this request has the key of the present certificate",
        ));
    }
    room.store.renewed(&shown.agent, &certificate.spki, certificate.until, now)?;
    Ok(json!({"certificate": certificate.pem, "until": certificate.until}))
}

async fn orders(
    State(room): Shared,
    Extension(peer): Extension<Peer>,
) -> Result<Json<Value>, Problem> {
    let agent = room.admit(&peer)?;
    let orders =
        room.waiting(move |room| Ok(room.store.hand_orders(&agent, clock::now())?)).await?;
    Ok(Json(json!({"orders": orders})))
}

async fn order_answered(
    State(room): Shared,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let agent = room.admit(&peer)?;
    let bytes = read(body, ENROL_LIMIT).await?;
    let answer: OrderAnswer = parse(&bytes, "an answer to an order")?;
    let name = agent.clone();
    let order = id.clone();
    let done = answer.done;
    let known = room
        .waiting(move |room| Ok(room.store.answer_order(&name, &order, &answer, clock::now())?))
        .await?;
    if !known {
        return Err(Problem::new(StatusCode::NOT_FOUND, "this agent was given no such order"));
    }
    tracing::info!(agent, order = ?id, done, "an order was answered");
    Ok(Json(json!({"kept": true})))
}

/// What every answer to an agent says beside its own: trials that are confirmed, what the group has spent.
fn word(room: &Room, agent: &str) -> Result<Value, Problem> {
    let confirmed = room.store.confirmable(agent, clock::now())?;
    room.metrics.confirmed.fetch_add(confirmed.len() as u64, Ordering::Relaxed);
    let group = room.store.group_of(agent)?.unwrap_or_default();
    let spent = room.spent.borrow().get(&group).copied();
    let role = room.store.role_of(agent)?.unwrap_or_default();
    let fleet =
        room.fleet.borrow().get(&role).map(|spent| json!({"of": spent.of, "left": spent.left}));
    Ok(json!({"confirmed": confirmed, "group_spent": spent, "fleet": fleet}))
}

/// Joins two objects.
fn with(mut value: Value, more: Value) -> Value {
    if let (Value::Object(into), Value::Object(more)) = (&mut value, more) {
        into.extend(more);
    }
    value
}

async fn events(
    State(room): Shared,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let agent = room.admit(&peer)?;
    let Ok(Ok(_permit)) = tokio::time::timeout(BODY_WITHIN, room.ingest.acquire()).await else {
        return Err(
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many batches at once").retry_after(2)
        );
    };
    let bytes = read(body, EVENTS_LIMIT).await?;
    let begun = Instant::now();
    let (outcome, word) = room
        .waiting(move |room| {
            let batch = Batch::parse(&bytes)
                .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.to_string()))?;
            if !room.store.enrolled(&agent)? {
                return Err(stranger());
            }
            let outcome = room.store.take_in(&agent, &batch, clock::now())?;
            // The receipt of a trial is on the disk now, and came over a way that the cut leaves open: that is what
            // confirms it, when this answer arrives too.
            Ok((outcome, word(room, &agent)?))
        })
        .await?;
    let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
    room.metrics.batches.fetch_add(1, Ordering::Relaxed);
    room.metrics.batch_nanos.fetch_add(nanos, Ordering::Relaxed);
    room.metrics.ingested.fetch_add(outcome.stored, Ordering::Relaxed);
    room.metrics.duplicates.fetch_add(outcome.duplicates, Ordering::Relaxed);
    let Outcome { ack_through, stored, duplicates } = outcome;
    let answer = json!({"ack_through": ack_through, "stored": stored, "duplicates": duplicates});
    Ok(Json(with(answer, word)))
}

async fn learned(
    State(room): Shared,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Json<PartTaken>, Problem> {
    let agent = room.admit(&peer)?;
    let Ok(Ok(_permit)) = tokio::time::timeout(BODY_WITHIN, room.ingest.acquire()).await else {
        return Err(
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many batches at once").retry_after(2)
        );
    };
    let bytes = read(body, LEARNED_LIMIT).await?;
    let part: LearnedPart = parse(&bytes, "a part of what a host learned")?;
    let outcome =
        room.waiting(move |room| Ok(room.store.take_learned(&agent, &part, clock::now())?)).await?;
    match outcome {
        PartOutcome::Taken(taken) => Ok(Json(taken)),
        PartOutcome::Stranger => Err(stranger()),
        PartOutcome::Full => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "more episodes came from this host than are held of one",
        )),
        PartOutcome::Senseless(why) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            format!("not a part of what a host learned: {why}"),
        )),
    }
}

#[derive(Deserialize)]
struct CertifiedAsked {
    role: Option<String>,
    #[serde(default)]
    have: u64,
}

/// The sealed document in force of the role that is asked for, else of the one that the agent has here; nothing when
/// the agent has that version already.
async fn certified(
    State(room): Shared,
    Extension(peer): Extension<Peer>,
    Path(kind): Path<String>,
    Query(asked): Query<CertifiedAsked>,
) -> Result<Response, Problem> {
    let agent = room.admit(&peer)?;
    let stored = room
        .waiting(move |room| {
            let role = match asked.role {
                Some(role) => role,
                None => room.store.role_of(&agent)?.unwrap_or_default(),
            };
            Ok(room.store.certified(&role, &kind)?)
        })
        .await?;
    match stored {
        Some(stored) if stored.version > asked.have => {
            Ok(([(header::CONTENT_TYPE, "application/json")], stored.sealed).into_response())
        }
        Some(_) => Ok(StatusCode::NO_CONTENT.into_response()),
        None => Err(Problem::new(StatusCode::NOT_FOUND, "nothing of the kind was pushed")),
    }
}

fn stranger() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "this agent is not in the collector's database; enrol again with a new token",
    )
}

async fn state(
    State(room): Shared,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let agent = room.admit(&peer)?;
    let bytes = read(body, STATE_LIMIT).await?;
    let state: Heartbeat = parse(&bytes, "a state")?;
    if state.containments.len() > MAX_CONTAINMENTS {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            format!("more than {MAX_CONTAINMENTS} containments in one state"),
        ));
    }
    let word = room
        .waiting(move |room| {
            if room.store.take_state(&agent, &state, clock::now())? {
                word(room, &agent)
            } else {
                Err(stranger())
            }
        })
        .await?;
    let policy =
        room.policy.borrow().as_ref().map(
            |policy| json!({"version": policy.stored.version, "digest": policy.stored.digest}),
        );
    Ok(Json(with(json!({"policy": policy}), word)))
}

async fn stream(
    State(room): Shared,
    Extension(peer): Extension<Peer>,
) -> Result<Response, Problem> {
    let agent = room.admit(&peer)?;
    let name = agent.clone();
    let (group, role) = room
        .waiting(move |room| Ok((room.store.group_of(&name)?, room.store.role_of(&name)?)))
        .await?;
    Ok(sse::notices(&room, agent, group.unwrap_or_default(), role.unwrap_or_default()))
}

async fn policy(
    State(room): Shared,
    Extension(peer): Extension<Peer>,
) -> Result<Response, Problem> {
    room.admit(&peer)?;
    let text = room.policy.borrow().as_ref().map(|policy| policy.stored.sealed.clone());
    match text {
        Some(text) => Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response()),
        None => Err(Problem::new(StatusCode::NOT_FOUND, "no policy was pushed yet")),
    }
}
