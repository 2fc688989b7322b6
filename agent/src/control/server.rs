//! The control socket: readable by root alone, one task for each caller, bounded lines.

use super::protocol::{Answer, Request, Status};
use crate::clock;
use crate::journal::read_envelopes;
use crate::metrics::Metrics;
use sekisho_schema::event::DrillReport;
use sekisho_schema::order::{Command, Order};
use sekisho_schema::{Body, Envelope, Policy, Record, Scope, Span};
use std::collections::VecDeque;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;

/// The longest request in bytes: a scope and a reason.
const MAX_LINE: u64 = 64 * 1024;
/// The longest that the detecting thread may take to carry an order out.
const ORDER_PATIENCE: Duration = Duration::from_secs(5);
/// The longest that a caller waits for a reload; a large one goes on without it.
const RELOAD_PATIENCE: Duration = Duration::from_secs(8);
/// The longest that a caller waits for a preview of many days.
const PREVIEW_PATIENCE: Duration = Duration::from_secs(30);
/// The most findings given at once.
const MAX_FINDINGS: usize = 10_000;

/// An order on its way to the detecting thread.
#[derive(Debug)]
pub struct OrderRequest {
    /// What is asked for.
    pub order: Order,
    /// Where the outcome goes.
    pub answer: oneshot::Sender<Answer>,
}

/// A wish that rules and indicators are read anew.
#[derive(Debug, Default)]
pub struct ReloadRequest {
    /// Who means what is missing or older than what is in force; `None` when nobody does.
    pub forced_by: Option<String>,
    /// Where the outcome goes.
    pub answer: Option<oneshot::Sender<Answer>>,
}

/// A preview that is asked for.
#[derive(Debug)]
pub struct PreviewRequest {
    /// What would be cut.
    pub scope: Scope,
    /// How far back.
    pub since: Span,
    /// A policy to take instead of the one in force.
    pub policy: Option<Box<Policy>>,
    /// Where it goes.
    pub answer: oneshot::Sender<Answer>,
}

/// What the control socket gives out and where it takes orders.
pub trait Serving: Send + Sync + 'static {
    /// How the agent fares.
    fn status(&self) -> Status;
    /// Facts about this host by name.
    fn facts(&self) -> std::collections::BTreeMap<String, String>;
    /// Hands an order to the detecting thread.
    fn order(&self, request: OrderRequest);
    /// Hands a question for a preview on.
    fn preview(&self, request: PreviewRequest);
    /// Has rules and indicators read anew.
    fn reload(&self, request: ReloadRequest);
    /// Has something written down that happened elsewhere.
    fn record(&self, record: Record);
    /// The counters.
    fn metrics(&self) -> &Metrics;
}

/// Why the control socket can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open control socket {path}")]
pub struct OpenControlError {
    path: PathBuf,
    source: std::io::Error,
}

/// Opens the control socket; what a dead agent left in its place is removed.
///
/// # Errors
/// [`OpenControlError`], also when another agent is listening there.
pub fn open_control(path: &Path) -> Result<std::os::unix::net::UnixListener, OpenControlError> {
    let refuse = |source| OpenControlError { path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(refuse)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(refuse(std::io::Error::new(
            std::io::ErrorKind::AddrInUse,
            "another agent is listening there",
        )));
    }
    let _ = std::fs::remove_file(path);
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(refuse)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(refuse)?;
    Ok(listener)
}

/// Answers callers for ever.
pub async fn serve_control(listener: UnixListener, serving: Arc<dyn Serving>, journal: PathBuf) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (serving, journal) = (Arc::clone(&serving), journal.clone());
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, serving, journal).await {
                        tracing::debug!(%error, "a caller of the control socket went away");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the control socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(
    stream: UnixStream,
    serving: Arc<dyn Serving>,
    journal: PathBuf,
) -> std::io::Result<()> {
    let (by, trusted) = (caller(&stream), is_trusted(&stream));
    let (read, mut write) = stream.into_split();
    let mut reader = BufReader::new(read);
    loop {
        let mut line = String::new();
        if (&mut reader).take(MAX_LINE).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let answer = match serde_json::from_str(&line) {
            Ok(Request::DrillReport { .. }) if !trusted => Answer::Refused {
                error: "only root reports drills".to_owned(),
                state: "nothing was written down".to_owned(),
                help: "run `sekisho drill run` as root".to_owned(),
            },
            Ok(request) => answer(request, &by, serving.as_ref(), &journal).await,
            Err(error) => Answer::Refused {
                error: format!("cannot understand the request: {error}"),
                state: "nothing was changed".to_owned(),
                help: "use the sekisho program of the agent's own version".to_owned(),
            },
        };
        let mut text = serde_json::to_string(&answer)?;
        text.push('\n');
        write.write_all(text.as_bytes()).await?;
    }
}

/// Whether root calls, or whoever runs the agent.
fn is_trusted(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| [0, own].contains(&peer.uid()))
}

fn caller(stream: &UnixStream) -> String {
    match stream.peer_cred() {
        Ok(peer) => format!("uid {} on the control socket", peer.uid()),
        Err(_) => "somebody on the control socket".to_owned(),
    }
}

async fn answer(request: Request, by: &str, serving: &dyn Serving, journal: &Path) -> Answer {
    match request {
        Request::Status => Answer::Status(Box::new(serving.status())),
        Request::Coverage => {
            Answer::Coverage { uncovered: serving.status().coverage, facts: serving.facts() }
        }
        Request::Findings { limit } => {
            findings(journal.to_owned(), limit.clamp(1, MAX_FINDINGS)).await
        }
        Request::DrillReport { report } => drill_report(serving, *report, by),
        Request::Preview { scope, since, policy } => preview(serving, scope, since, policy).await,
        Request::Contain { scope, lease, reason, measure, break_glass } => {
            order(
                serving,
                Order {
                    what: Command::Contain { scope, lease, measure, break_glass },
                    by: by.to_owned(),
                    reason,
                },
            )
            .await
        }
        Request::Reload { force } => reload(serving, force, by).await,
        Request::Release { containment, reason, break_glass } => {
            order(
                serving,
                Order {
                    what: Command::Release { containment, break_glass },
                    by: by.to_owned(),
                    reason,
                },
            )
            .await
        }
    }
}

fn drill_report(serving: &dyn Serving, mut report: DrillReport, by: &str) -> Answer {
    report.by.get_or_insert_with(|| by.to_owned());
    let detail = format!("the report of drill {} is on record", report.name);
    serving.record(Record { at: clock::now(), body: Body::Drill(report) });
    Answer::Done { detail, containments: Vec::new() }
}

async fn reload(serving: &dyn Serving, force: bool, by: &str) -> Answer {
    let (sender, receiver) = oneshot::channel();
    let forced_by = force.then(|| by.to_owned());
    serving.reload(ReloadRequest { forced_by, answer: Some(sender) });
    match tokio::time::timeout(RELOAD_PATIENCE, receiver).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Answer::Refused {
            error: "the thread that reads rules has ended".to_owned(),
            state: "the rules that were in force are in force".to_owned(),
            help: "look at the agent's log, and restart it to load what is there".to_owned(),
        },
        Err(_) => Answer::Done {
            detail: "still being read; the outcome will be an event (`rules-reloaded` or `rules-refused`)"
                .to_owned(),
            containments: serving.status().containments,
        },
    }
}

async fn preview(
    serving: &dyn Serving,
    scope: Scope,
    since: Span,
    policy: Option<String>,
) -> Answer {
    let policy = match policy.map(|text| Policy::parse(&text)).transpose() {
        Ok(policy) => policy.map(Box::new),
        Err(error) => {
            return Answer::Refused {
                error: format!("cannot use the policy: {error}"),
                state: "nothing was done".to_owned(),
                help: "docs/policy.md has every key".to_owned(),
            };
        }
    };
    let (sender, receiver) = oneshot::channel();
    serving.preview(PreviewRequest { scope, since, policy, answer: sender });
    match tokio::time::timeout(PREVIEW_PATIENCE, receiver).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) | Err(_) => Answer::Refused {
            error: "the preview was not made in time".to_owned(),
            state: "nothing was cut; detection goes on".to_owned(),
            help: "ask for less with --since, or look at the agent's log".to_owned(),
        },
    }
}

async fn order(serving: &dyn Serving, order: Order) -> Answer {
    let (sender, receiver) = oneshot::channel();
    serving.order(OrderRequest { order, answer: sender });
    match tokio::time::timeout(ORDER_PATIENCE, receiver).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) | Err(_) => Answer::Refused {
            error: "the detecting thread did not carry the order out in time".to_owned(),
            state: "unknown: the order may still be carried out".to_owned(),
            help: "run `sekisho status` and look at the agent's log".to_owned(),
        },
    }
}

async fn findings(journal: PathBuf, limit: usize) -> Answer {
    let read = tokio::task::spawn_blocking(move || last_findings(&journal, limit)).await;
    match read {
        Ok(Ok(findings)) => Answer::Findings { findings },
        Ok(Err(error)) => cannot_read(&error.to_string()),
        Err(error) => cannot_read(&error.to_string()),
    }
}

fn cannot_read(why: &str) -> Answer {
    Answer::Refused {
        error: format!("cannot read the journal: {why}"),
        state: "detection and cuts are not affected".to_owned(),
        help: "run `sekisho journal verify`".to_owned(),
    }
}

/// The newest findings of a journal, oldest first.
///
/// # Errors
/// What the system says.
pub fn last_findings(journal: &Path, limit: usize) -> std::io::Result<Vec<Envelope>> {
    let mut last = VecDeque::new();
    read_envelopes(journal, |envelope| {
        if matches!(envelope.body, Body::Finding(_)) {
            if last.len() == limit {
                last.pop_front();
            }
            last.push_back(envelope);
        }
        true
    })?;
    Ok(last.into())
}
