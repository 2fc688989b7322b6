//! The link to the collector: connect, send what is spooled, tell the state, hear notices.

use super::backoff::Backoff;
use super::http::{HttpError, Link};
use super::identity::Identity;
use super::learning;
use super::notices::{Notice, Notices};
use super::orders::{Handed, OrderOutcome, Orders as Taker, Places};
use super::renewal::{Validity, renew};
use crate::chain::causes;
use crate::clock;
use crate::control::CollectorStatus;
use crate::journal::{Batch, Spool};
use http_body_util::BodyExt;
use rustls::ClientConfig;
use sekisho_schema::event::ModeChange;
use sekisho_schema::order::Order;
use sekisho_schema::policy::Orders;
use sekisho_schema::{Containment, ContainmentId, Sealed, Timestamp, Verified};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// How often the state is told when nothing changes.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Changes of the state within this time are told together.
const STATE_PACE: Duration = Duration::from_millis(200);
/// The most events in one batch.
const BATCH_EVENTS: usize = 500;
/// The most bytes of events in one batch.
const BATCH_BYTES: usize = 512 * 1024;
/// How often it is looked whether the certificate is to be renewed.
const RENEWAL_CHECK: Duration = Duration::from_secs(3600);
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
    /// Where this agent's files lie; without them nothing is renewed and no order is taken.
    fn places(&self) -> Option<Places> {
        None
    }
    /// The bounds that policy sets to orders from the centre.
    fn order_bounds(&self) -> Orders {
        Orders::default()
    }
    /// Carries out an order whose seal held, within policy's bounds, and says what came of it.
    fn order(&self, _order: Verified<Order>, answer: oneshot::Sender<OrderOutcome>) {
        let detail = "this agent takes no orders from the centre".to_owned();
        // Whoever asked may have gone.
        let _ = answer.send(OrderOutcome { done: false, detail, containment: None });
    }
    /// An order from the centre was not believed, or is beyond policy's bounds: to be put on record.
    fn order_refused(&self, _id: &str, _why: &str) {}
    /// The collector took the receipt of this containment over a connection that the cut leaves open. Told again
    /// until the heartbeat says that it is on trial no more.
    fn confirmed(&self, _containment: ContainmentId) {}
    /// So many hosts of the group were cut since a time.
    fn group_spent(&self, _count: u32, _since: Timestamp) {}
    /// The role that this host learns for; the collector goes by what it knows where there is none.
    fn role(&self) -> Option<String> {
        None
    }
    /// A baseline or certificate whose seal held lies in the state directory now, to be opened from there.
    fn certified(&self, _kind: &'static str, _version: u64) {}
    /// What the collector offered as a baseline or certificate was not believed: to be put on record.
    fn certified_refused(&self, _kind: &'static str, _why: &str) {}
    /// So many automatic cuts of behaviour a week the role's hosts may have together, and so many are left.
    fn fleet(&self, _of: u32, _left: u32) {}
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

/// Why a connection ended.
enum Ended {
    /// Something failed.
    Failed(HttpError),
    /// The certificate was renewed: the next connection shows the new one.
    Renewed,
}

impl From<HttpError> for Ended {
    fn from(error: HttpError) -> Self {
        Self::Failed(error)
    }
}

/// Keeps the link for ever.
pub async fn run(
    url: String,
    mut tls: Arc<ClientConfig>,
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
                let ended = keep(&link, journal.clone(), &state, &hooks, &mut proven).await;
                if proven {
                    backoff.reset();
                }
                match ended {
                    Ended::Failed(error) => error,
                    Ended::Renewed => {
                        tls = present_tls(&hooks).unwrap_or(tls);
                        // Were the clocks that far apart that each certificate is due at once, this bounds it.
                        tokio::time::sleep(backoff.next()).await;
                        continue;
                    }
                }
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

/// TLS with the identity as it lies on the disk now.
fn present_tls(hooks: &Arc<dyn Hooks>) -> Option<Arc<ClientConfig>> {
    let places = hooks.places()?;
    let identity = Identity::load(&places.identity).and_then(|kept| kept.tls(&places.identity));
    identity
        .inspect_err(|error| {
            tracing::error!(error = %causes(error), state = "the certificate before it is shown on", "cannot use the renewed certificate");
        })
        .ok()
        .map(Arc::new)
}

/// What the notice stream told that there is to fetch.
#[derive(Default)]
struct Told {
    orders: Notify,
    certified: Notify,
}

/// Works on one connection until something fails or the certificate is renewed.
async fn keep(
    link: &Link,
    journal: PathBuf,
    state: &SyncState,
    hooks: &Arc<dyn Hooks>,
    proven: &mut bool,
) -> Ended {
    // One that has ended is good for nothing else than to be renewed.
    if let Some(ended) = renew_if_due(link, hooks).await {
        return ended;
    }
    // The first exchange proves that the collector still knows us.
    if let Err(error) = tell(link, state, hooks).await {
        return error.into();
    }
    *proven = true;
    let told = Told::default();
    let ended = tokio::select! {
        ended = upload(link, journal, state, hooks) => ended.map_err(Ended::from),
        ended = heartbeats(link, state, hooks) => ended.map_err(Ended::from),
        ended = listen(link, state, hooks, &told) => ended.map_err(Ended::from),
        ended = orders(link, hooks, &told.orders) => ended.map_err(Ended::from),
        ended = learning::send(link, hooks) => ended.map_err(Ended::from),
        ended = learning::fetch(link, hooks, &told.certified) => ended.map_err(Ended::from),
        ended = renewals(link, hooks) => Err(ended),
    };
    match ended {
        Ok(never) => match never {},
        Err(ended) => ended,
    }
}

/// Renews the certificate when it is time; what fails is tried again while the present one is good.
async fn renewals(link: &Link, hooks: &Arc<dyn Hooks>) -> Ended {
    loop {
        let present = hooks.places().and_then(|places| Identity::load(&places.identity).ok());
        let validity = present.and_then(|present| Validity::of(&present.certificate).ok());
        let Some(validity) = validity else { return std::future::pending().await };
        let left = validity.due().since(clock::now()).nanos();
        // The wall clock may be set meanwhile: it is looked at again each hour.
        let wait = Duration::from_nanos(u64::try_from(left).unwrap_or(0)).min(RENEWAL_CHECK);
        tokio::time::sleep(wait).await;
        if let Some(ended) = renew_if_due(link, hooks).await {
            return ended;
        }
        if validity.due() <= clock::now() {
            let again = u64::try_from(validity.again().nanos()).unwrap_or(0);
            tokio::time::sleep(Duration::from_nanos(again)).await;
        }
    }
}

/// Renews the certificate if it is time to; `None` when it is not, or when that failed.
async fn renew_if_due(link: &Link, hooks: &Arc<dyn Hooks>) -> Option<Ended> {
    let places = hooks.places()?;
    let present = Identity::load(&places.identity).ok()?;
    let validity = Validity::of(&present.certificate).ok()?;
    if validity.due() > clock::now() {
        return None;
    }
    match renew(link, &places.identity, &present).await {
        Ok(_) => {
            tracing::info!("the certificate for the collector was renewed");
            Some(Ended::Renewed)
        }
        Err(error) => {
            let (why, until) = (causes(&error), validity.until());
            tracing::warn!(error = %why, %until, state = "the present certificate stays; it is tried again", "cannot renew the certificate for the collector");
            None
        }
    }
}

/// What the collector says beside its answers.
#[derive(Default, Deserialize)]
struct Word {
    #[serde(default)]
    confirmed: Vec<ContainmentId>,
    #[serde(default)]
    group_spent: Option<Spent>,
    #[serde(default)]
    fleet: Option<Fleet>,
}

#[derive(Deserialize)]
struct Fleet {
    of: u32,
    left: u32,
}

#[derive(Deserialize)]
struct Spent {
    count: u32,
    since: Timestamp,
}

fn heed(word: Word, hooks: &Arc<dyn Hooks>) {
    for containment in word.confirmed {
        hooks.confirmed(containment);
    }
    if let Some(Spent { count, since }) = word.group_spent {
        hooks.group_spent(count, since);
    }
    if let Some(Fleet { of, left }) = word.fleet {
        hooks.fleet(of, left);
    }
}

/// Fetches and carries out orders whenever some wait, and answers each.
async fn orders(
    link: &Link,
    hooks: &Arc<dyn Hooks>,
    waiting: &Notify,
) -> Result<std::convert::Infallible, HttpError> {
    #[derive(Deserialize)]
    struct Answer {
        orders: Vec<Handed>,
    }
    let Some(places) = hooks.places() else { return std::future::pending().await };
    let mut taker = Taker::new(places, Arc::clone(hooks));
    loop {
        waiting.notified().await;
        let bytes = link.read("/v1/orders").await?;
        let Ok(Answer { orders }) = serde_json::from_slice(&bytes) else {
            tracing::error!(
                state = "nothing was ordered",
                "cannot read the orders that the collector offers"
            );
            continue;
        };
        for order in orders.iter().filter(|order| order.is_well_named()) {
            let outcome = taker.take(order).await;
            let text = serde_json::to_string(&outcome).unwrap_or_default();
            link.post(&format!("/v1/orders/{}", order.id), text).await?;
        }
    }
}

async fn tell(link: &Link, state: &SyncState, hooks: &Arc<dyn Hooks>) -> Result<(), HttpError> {
    let text = serde_json::to_string(&hooks.heartbeat()).unwrap_or_default();
    let answer = link.post("/v1/state", text).await?;
    state.reached();
    heed(serde_json::from_slice(&answer).unwrap_or_default(), hooks);
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
    #[serde(flatten)]
    word: Word,
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
        let Ok(Acknowledgement { ack_through, word }) = serde_json::from_slice(&answer) else {
            return Err(HttpError::Broken {
                authority: "the collector".to_owned(),
                source: "its answer to events has no ack_through".into(),
            });
        };
        state.reached();
        heed(word, hooks);
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
    told: &Told,
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
        for Notice { event, data } in notices.push(&bytes) {
            match event.as_str() {
                "policy" => fetch_policy(link, hooks).await?,
                "order" => told.orders.notify_one(),
                "certified" => told.certified.notify_one(),
                "fleet" => {
                    if let Ok(Fleet { of, left }) = serde_json::from_str(&data) {
                        hooks.fleet(of, left);
                    }
                }
                "group" => {
                    if let Ok(Spent { count, since }) = serde_json::from_str(&data) {
                        hooks.group_spent(count, since);
                    }
                }
                _ => {}
            }
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
