//! The link to the collector: connect, send what is spooled, tell the state, hear notices.

use super::backoff::Backoff;
use super::http::{HttpError, Link};
use super::notices::Notices;
use crate::chain::causes;
use crate::clock;
use crate::control::CollectorStatus;
use crate::journal::{Batch, Spool};
use http_body_util::BodyExt;
use rustls::ClientConfig;
use sekisho_schema::event::ModeChange;
use sekisho_schema::{Containment, Sealed, Timestamp};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How often the state is told when nothing changes.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Changes of the state within this time are told together.
const STATE_PACE: Duration = Duration::from_millis(200);
/// The most events in one batch.
const BATCH_EVENTS: usize = 500;
/// The most bytes of events in one batch.
const BATCH_BYTES: usize = 512 * 1024;
/// How often the spool is looked at when nobody says that it grew.
const SPOOL_CHECK: Duration = Duration::from_secs(2);

/// What the agent says of itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Heartbeat {
    /// Names this run.
    pub boot: String,
    /// The host's name in events.
    pub host: String,
    /// The agent's version.
    pub version: String,
    /// Requested and effective mode.
    pub mode: ModeChange,
    /// Version of the policy in force.
    pub policy_version: u64,
    /// What is cut now.
    pub containments: Vec<Containment>,
    /// Bytes of payload that left for the outside.
    pub bytes_out: u64,
    /// Records not acknowledged.
    pub spool: u64,
    /// Paths that a cut does not close.
    pub coverage: Vec<String>,
    /// When it was said.
    pub at: Timestamp,
}

/// How the rest of the agent takes part.
pub trait Hooks: Send + Sync + 'static {
    /// What to say of this host now.
    fn heartbeat(&self) -> Heartbeat;
    /// A sealed policy arrived. Everything about it is still to be checked.
    fn policy(&self, sealed: Sealed);
    /// So many records were acknowledged.
    fn acknowledged(&self, records: usize);
}

/// What others may see of the link, and how they wake it.
#[derive(Debug, Default)]
pub struct SyncState {
    status: Mutex<CollectorStatus>,
    /// The journal has grown.
    pub grown: Notify,
    /// The agent's state has changed.
    pub changed: Notify,
}

impl SyncState {
    /// How the link fares.
    #[must_use]
    pub fn status(&self) -> CollectorStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is known of the link.
    pub fn update(&self, change: impl FnOnce(&mut CollectorStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn reached(&self) {
        self.update(|status| {
            status.connected = true;
            status.failure = None;
            status.last_contact = Some(clock::now());
        });
    }
}

/// Keeps the link for ever.
pub async fn run(
    url: String,
    tls: Arc<ClientConfig>,
    journal: PathBuf,
    state: Arc<SyncState>,
    hooks: Arc<dyn Hooks>,
) {
    state.update(|status| status.url = Some(url.clone()));
    let mut backoff = Backoff::new();
    loop {
        let failure = match Link::connect(&url, Arc::clone(&tls)).await {
            Ok(link) => {
                let mut proven = false;
                let error = keep(&link, journal.clone(), &state, &hooks, &mut proven).await;
                if proven {
                    backoff.reset();
                }
                error
            }
            Err(error) => error,
        };
        let why = causes(&failure);
        let news = state.status().failure.as_deref() != Some(why.as_str());
        if news {
            tracing::warn!(collector = %url, error = %why, state = "detection and cuts go on; records wait in the journal", "no link to the collector");
        }
        state.update(|status| {
            status.connected = false;
            status.failure = Some(why);
        });
        let wait = match &failure {
            HttpError::Refused { retry_after: Some(seconds), .. } => {
                Duration::from_secs((*seconds).min(300))
            }
            _ => Duration::ZERO,
        };
        tokio::time::sleep(wait + backoff.next()).await;
    }
}

/// Works on one connection until something fails, and says what.
async fn keep(
    link: &Link,
    journal: PathBuf,
    state: &SyncState,
    hooks: &Arc<dyn Hooks>,
    proven: &mut bool,
) -> HttpError {
    // The first exchange proves that the collector still knows us.
    if let Err(error) = tell(link, state, hooks).await {
        return error;
    }
    *proven = true;
    let ended = tokio::select! {
        ended = upload(link, journal, state, hooks) => ended,
        ended = heartbeats(link, state, hooks) => ended,
        ended = listen(link, state, hooks) => ended,
    };
    match ended {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn tell(link: &Link, state: &SyncState, hooks: &Arc<dyn Hooks>) -> Result<(), HttpError> {
    let text = serde_json::to_string(&hooks.heartbeat()).unwrap_or_default();
    link.post("/v1/state", text).await?;
    state.reached();
    Ok(())
}

async fn heartbeats(
    link: &Link,
    state: &SyncState,
    hooks: &Arc<dyn Hooks>,
) -> Result<std::convert::Infallible, HttpError> {
    loop {
        if tokio::time::timeout(HEARTBEAT, state.changed.notified()).await.is_ok() {
            tokio::time::sleep(STATE_PACE).await;
        }
        tell(link, state, hooks).await?;
    }
}

#[derive(Deserialize)]
struct Acknowledgement {
    ack_through: u64,
}

async fn upload(
    link: &Link,
    journal: PathBuf,
    state: &SyncState,
    hooks: &Arc<dyn Hooks>,
) -> Result<std::convert::Infallible, HttpError> {
    let mut spool = Spool::open(journal.clone());
    loop {
        let (back, batch) = next_batch(spool, journal.clone()).await;
        spool = back;
        let Some(batch) = batch else {
            let _ = tokio::time::timeout(SPOOL_CHECK, state.grown.notified()).await;
            continue;
        };
        let answer = link.post("/v1/events", body_of(&batch)).await?;
        let Ok(Acknowledgement { ack_through }) = serde_json::from_slice(&answer) else {
            return Err(HttpError::Broken {
                authority: "the collector".to_owned(),
                source: "its answer to events has no ack_through".into(),
            });
        };
        state.reached();
        let before = if spool.cursor().boot == batch.boot { spool.cursor().seq } else { 0 };
        let through = ack_through.min(batch.last_seq);
        if through <= before {
            // Without progress the same batch would be sent without pause.
            tracing::warn!(boot = %batch.boot, ack_through, "the collector acknowledged nothing of a batch");
            tokio::time::sleep(SPOOL_CHECK).await;
            continue;
        }
        let first = batch.last_seq + 1 - batch.events.len() as u64;
        hooks.acknowledged(usize::try_from((through + 1).saturating_sub(first)).unwrap_or(0));
        if let Err(error) = spool.acknowledge(&batch, through) {
            tracing::warn!(error = %causes(&error), state = "records may be sent twice after a restart, which does no harm", "cannot keep the upload cursor");
        }
    }
}

async fn next_batch(mut spool: Spool, journal: PathBuf) -> (Spool, Option<Batch>) {
    let read = tokio::task::spawn_blocking(move || {
        let batch = spool.next_batch(BATCH_EVENTS, BATCH_BYTES);
        (spool, batch)
    });
    match read.await {
        Ok((spool, Ok(batch))) => (spool, batch),
        Ok((spool, Err(error))) => {
            tracing::warn!(error = %causes(&error), "cannot read the upload spool");
            (spool, None)
        }
        // The reader went down with its task; the cursor on disk is still right.
        Err(_) => (Spool::open(journal), None),
    }
}

/// The lines go out byte for byte as they were hashed.
fn body_of(batch: &Batch) -> String {
    let chain: Vec<String> = batch.chain.iter().map(|hash| format!("\"{hash}\"")).collect();
    format!(
        "{{\"boot\":\"{}\",\"events\":[{}],\"chain\":[{}]}}",
        batch.boot,
        batch.events.join(","),
        chain.join(",")
    )
}

async fn listen(
    link: &Link,
    state: &SyncState,
    hooks: &Arc<dyn Hooks>,
) -> Result<std::convert::Infallible, HttpError> {
    let mut body = link.stream("/v1/stream").await?;
    let mut notices = Notices::default();
    loop {
        let frame = match body.frame().await {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                return Err(HttpError::Broken {
                    authority: "the notice stream".to_owned(),
                    source: error.into(),
                });
            }
            None => {
                return Err(HttpError::Broken {
                    authority: "the notice stream".to_owned(),
                    source: "the collector closed it".into(),
                });
            }
        };
        let Ok(bytes) = frame.into_data() else { continue };
        state.reached();
        if notices.push(&bytes).iter().any(|event| event == "policy") {
            fetch_policy(link, hooks).await?;
        }
    }
}

async fn fetch_policy(link: &Link, hooks: &Arc<dyn Hooks>) -> Result<(), HttpError> {
    let bytes = link.read("/v1/policy").await?;
    match Sealed::parse(&String::from_utf8_lossy(&bytes)) {
        Ok(sealed) => hooks.policy(sealed),
        Err(error) => {
            tracing::error!(%error, state = "the policy in force stays", "cannot read the policy that the collector offers")
        }
    }
    Ok(())
}
