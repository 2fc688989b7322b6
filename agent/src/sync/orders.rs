//! Orders from the centre: believed by the operators' seals alone, carried out once, on record either way.

use super::client::Hooks;
use crate::chain::causes;
use crate::clock;
use crate::state::{StoreError, check_writers, write_atomically};
use sekisho_schema::order::{Command, Dispatch};
use sekisho_schema::policy::Orders as Bounds;
use sekisho_schema::sealed::{Opened, Operators, parse_public};
use sekisho_schema::{ContainmentId, Sealed, Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Folder of the trust directory that holds the operators' keys: `NAME.pub` or `NAME.KEY.pub`.
const FOLDER: &str = "operators";
/// File of the state directory that remembers the orders.
const LEDGER: &str = "orders.json";
/// Orders that are remembered at most; when it is full, no order is taken.
const REMEMBERED: usize = 1024;
/// How long an order is remembered after it went stale.
const REMEMBER_FOR: Span = Span::from_hours(24);
/// Refusals that are remembered, so that the same one is on record once.
const REFUSALS: usize = 64;
/// How long the detecting thread may take to carry an order out.
const PATIENCE: Duration = Duration::from_secs(10);
/// The time in which orders are counted against policy.
const HOUR: Span = Span::from_hours(1);

/// Where the files of this agent lie that the link to the collector needs.
#[derive(Clone, Debug)]
pub struct Places {
    /// The enrolment: key, certificate, CA.
    pub identity: PathBuf,
    /// Trust anchors, and the operators' keys below.
    pub trust: PathBuf,
    /// What must outlive a restart.
    pub state: PathBuf,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderOutcome {
    /// Whether it was carried out.
    pub done: bool,
    /// One sentence.
    pub detail: String,
    /// The containment that it is about, where there is one.
    pub containment: Option<ContainmentId>,
}

/// Why an order is not carried out; what is cut stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The keys of the operators can't be used.
    #[error("cannot read the operators' keys in {path}: {why}")]
    Operators {
        /// Folder or file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The seal does not hold.
    #[error(transparent)]
    Seal(#[from] sekisho_schema::sealed::SealError),
    /// Its nonce is not one.
    #[error("its nonce is not 16 to 64 hexadecimal digits")]
    Nonce,
    /// Policy's bounds.
    #[error("policy does not allow it: {0}")]
    Bounds(String),
    /// The ledger can't be read.
    #[error("cannot read what orders were seen in {path}: {why}")]
    Ledger {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It is as old as what was forgotten already.
    #[error("it is as old as orders that were forgotten already")]
    Forgotten,
    /// Too many orders are remembered.
    #[error("{REMEMBERED} orders of the last day are remembered, and there is no room for more")]
    Full,
    /// The order could not be remembered: carried out all the same, it could be carried out twice.
    #[error("cannot remember it before it is carried out")]
    Remember(#[from] StoreError),
}

/// An order that was seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Seen {
    nonce: String,
    at: Timestamp,
    expires: Timestamp,
    /// `None` while it is carried out: an agent that was ended then does not know.
    outcome: Option<OrderOutcome>,
}

/// The orders that were seen, as kept on the disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ledger {
    /// No order that went stale up to then is believed: it could be one that was forgotten.
    floor: Option<Timestamp>,
    seen: VecDeque<Seen>,
}

/// An order as the collector hands it over.
#[derive(Debug, Deserialize)]
pub(super) struct Handed {
    pub(super) id: String,
    pub(super) sealed: String,
}

impl Handed {
    /// Whether its name may stand in a path.
    pub(super) fn is_well_named(&self) -> bool {
        self.id.strip_prefix("o-").is_some_and(|digits| {
            digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
    }
}

/// Takes orders.
pub(super) struct Orders {
    places: Places,
    hooks: Arc<dyn Hooks>,
    refused: VecDeque<String>,
}

impl Orders {
    pub(super) const fn new(places: Places, hooks: Arc<dyn Hooks>) -> Self {
        Self { places, hooks, refused: VecDeque::new() }
    }

    /// Carries an order out, if it may be believed and was not seen before; says what came of it.
    pub(super) async fn take(&mut self, handed: &Handed) -> OrderOutcome {
        match self.try_take(handed).await {
            Ok(outcome) => outcome,
            Err(error) => {
                let why = causes(&error);
                self.refuse(&handed.id, &handed.sealed, &why);
                OrderOutcome { done: false, detail: why, containment: None }
            }
        }
    }

    async fn try_take(&self, handed: &Handed) -> Result<OrderOutcome, OrderError> {
        let sealed = Sealed::parse(&handed.sealed)?;
        let operators = load_operators(&self.places.trust)?;
        let now = clock::now();
        let beat = self.hooks.heartbeat();
        let level_of = |id: &ContainmentId| {
            beat.containments.iter().find(|held| held.id == *id).map(|held| held.level)
        };
        // A repeated order is answered by what came of it, also when its time is over meanwhile: so the seal is read
        // before, and the expiry judged after the memory was asked.
        let dispatch = sealed.read_order()?;
        if !is_nonce(&dispatch.nonce) {
            return Err(OrderError::Nonce);
        }
        let mut ledger = Ledger::load(&self.places.state)?;
        if let Some(seen) = ledger.find(&dispatch.nonce)
            && !sealed.operators_of(&operators)?.is_empty()
        {
            return Ok(seen.outcome.clone().unwrap_or_else(interrupted));
        }
        let opened = sealed.open_order(&operators, &beat.host, now, level_of)?;
        within(&self.hooks.order_bounds(), opened.dispatch(), &ledger, now)?;
        ledger.begin(&dispatch.nonce, sealed.expires, now)?;
        ledger.store(&self.places.state)?;
        let outcome = self.carry_out(opened).await;
        ledger.finish(&dispatch.nonce, &outcome);
        if let Err(error) = ledger.store(&self.places.state) {
            tracing::error!(error = %causes(&error), state = "the order is not carried out again all the same", "cannot keep what came of an order");
        }
        Ok(outcome)
    }

    async fn carry_out(&self, opened: Opened) -> OrderOutcome {
        let containment = match &opened.dispatch().order.what {
            Command::Contain { .. } => None,
            Command::Confirm { containment } | Command::Release { containment, .. } => {
                Some(containment.clone())
            }
        };
        let (answer, answered) = oneshot::channel();
        self.hooks.order(opened.into_order(), answer);
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(outcome)) => {
                OrderOutcome { containment: outcome.containment.or(containment), ..outcome }
            }
            _ => OrderOutcome { containment, ..interrupted() },
        }
    }

    fn refuse(&mut self, id: &str, sealed: &str, why: &str) {
        let what = format!("{sealed}\n{why}");
        if self.refused.contains(&what) {
            return;
        }
        if self.refused.len() >= REFUSALS {
            self.refused.pop_front();
        }
        self.refused.push_back(what);
        self.hooks.order_refused(id, why);
    }
}

fn interrupted() -> OrderOutcome {
    OrderOutcome {
        done: false,
        detail: "the agent did not see the end of it: see what is cut on the host before it is ordered again".to_owned(),
        containment: None,
    }
}

fn is_nonce(text: &str) -> bool {
    (16..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether policy, which was sealed offline, lets such an order be given at all.
fn within(
    bounds: &Bounds,
    dispatch: &Dispatch,
    ledger: &Ledger,
    now: Timestamp,
) -> Result<(), OrderError> {
    let refuse = |why: String| Err(OrderError::Bounds(why));
    if bounds.up_to == 0 {
        return refuse("no order is taken from the centre".to_owned());
    }
    match &dispatch.order.what {
        Command::Contain { scope, measure, lease, .. } => {
            let level = scope.level_of(*measure);
            if level > bounds.up_to {
                return refuse(format!("level {level} is above {}", bounds.up_to));
            }
            if *lease > bounds.longest {
                return refuse(format!("a lease of {lease} is longer than {}", bounds.longest));
            }
        }
        Command::Release { .. } if !bounds.release => {
            return refuse("a containment is not released from the centre".to_owned());
        }
        Command::Confirm { .. } | Command::Release { .. } => {}
    }
    let lately = ledger.seen.iter().filter(|seen| now.since(seen.at) < HOUR).count();
    if lately >= bounds.per_hour as usize {
        return refuse(format!("{} orders within the hour are the most", bounds.per_hour));
    }
    Ok(())
}

impl Ledger {
    fn load(state: &Path) -> Result<Self, OrderError> {
        let path = state.join(LEDGER);
        let fail = |why: String| OrderError::Ledger { path: path.clone(), why };
        match fs::read_to_string(&path) {
            // A ledger that can't be read must not count as an empty one: every order could come again.
            Ok(text) => serde_json::from_str(&text).map_err(|error| fail(error.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(fail(error.to_string())),
        }
    }

    fn store(&self, state: &Path) -> Result<(), StoreError> {
        let text = serde_json::to_string(self).unwrap_or_default();
        write_atomically(&state.join(LEDGER), text.as_bytes(), 0o600)
    }

    fn find(&self, nonce: &str) -> Option<&Seen> {
        self.seen.iter().find(|seen| seen.nonce == nonce)
    }

    fn begin(&mut self, nonce: &str, expires: Timestamp, now: Timestamp) -> Result<(), OrderError> {
        let forgotten = now.before(REMEMBER_FOR);
        while let Some(seen) = self.seen.front().filter(|seen| seen.expires < forgotten) {
            self.floor = self.floor.max(Some(seen.expires));
            self.seen.pop_front();
        }
        if self.floor.is_some_and(|floor| expires <= floor) {
            return Err(OrderError::Forgotten);
        }
        if self.seen.len() >= REMEMBERED {
            return Err(OrderError::Full);
        }
        self.seen.push_back(Seen { nonce: nonce.to_owned(), at: now, expires, outcome: None });
        Ok(())
    }

    fn finish(&mut self, nonce: &str, outcome: &OrderOutcome) {
        if let Some(seen) = self.seen.iter_mut().find(|seen| seen.nonce == nonce) {
            seen.outcome = Some(outcome.clone());
        }
    }
}

/// The operators whose orders count on this host; none when the folder is not there.
///
/// # Errors
/// [`OrderError::Operators`]: they are used whole or not at all.
pub fn load_operators(trust: &Path) -> Result<Operators, OrderError> {
    let folder = trust.join(FOLDER);
    let fail = |path: &Path, why: &dyn std::fmt::Display| OrderError::Operators {
        path: path.to_owned(),
        why: why.to_string(),
    };
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Operators::default());
        }
        Err(error) => return Err(fail(&folder, &error)),
    };
    let owned = |path: &Path| check_writers(path).map_err(|error| fail(path, &error));
    owned(trust)?;
    owned(&folder)?;
    let mut keys = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| fail(&folder, &error))?.path();
        if path.extension().is_none_or(|extension| extension != "pub") {
            continue;
        }
        owned(&path)?;
        let text = fs::read_to_string(&path).map_err(|error| fail(&path, &error))?;
        let key = parse_public(&text).map_err(|error| fail(&path, &error))?;
        let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = file.split('.').next().unwrap_or_default();
        if name.is_empty() {
            return Err(fail(&path, &"its name begins with a dot, and so names nobody"));
        }
        keys.push((name.to_owned(), key));
    }
    keys.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(Operators::new(keys))
}

/// Keeps the operators that an enrolment brought, beside those that are there.
///
/// # Errors
/// [`StoreError`] when a file can't be written, or what about a name or key can't be used.
pub(super) fn keep_operators(
    trust: &Path,
    operators: &[(String, String)],
) -> Result<(), super::EnrolError> {
    use super::EnrolError;
    let folder = trust.join(FOLDER);
    for (name, text) in operators {
        let fits = (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !fits {
            return Err(EnrolError::Answer(format!("operators: {name:?} is not a name")));
        }
        let key = parse_public(text)
            .map_err(|error| EnrolError::Answer(format!("operators: {error}")))?;
        fs::create_dir_all(&folder)
            .map_err(|source| EnrolError::Directory { path: folder.clone(), source })?;
        let file = format!("{name}.{}.pub", sekisho_schema::sealed::key_id(&key));
        write_atomically(&folder.join(file), format!("{}\n", text.trim()).as_bytes(), 0o644)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
