//! Learning and the centre: what this host learned goes there in parts, baselines and certificates come back under
//! seal. What is in force here changes by a seal alone.

use super::client::Hooks;
use super::http::{HttpError, Link};
use super::identity::Identity;
use super::orders::Places;
use crate::baseline::{
    BASELINE_FILE, BaselineFileError, CERTIFICATE_FILE, LEARNED_FILE, adopt, read_learned,
};
use crate::chain::causes;
use crate::clock;
use crate::state::{load_anchors, remove, write_atomically};
use sekisho_schema::baseline::{
    BASELINE_KIND, Learned, LearnedPart, PART_EPISODES, PART_GONE, PartTaken, RoleBaseline,
};
use sekisho_schema::certificate::{CERTIFICATE_KIND, Certificate};
use sekisho_schema::sealed::hex;
use sekisho_schema::{Sealed, Timestamp, query_value};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;

/// How often it is looked whether there is more to send; the record is written each hour.
const LOOK: Duration = Duration::from_secs(60);
/// When it is tried again after the collector took no part of it.
const REFUSED: Duration = Duration::from_secs(600);
/// File of the state directory that remembers what was acknowledged.
const CURSOR: &str = "learned.cursor.json";
/// File of the state directory in which what came is checked.
const INCOMING: &str = "certified.incoming";
/// The cursor is kept after so many parts: what was sent since is sent again after a crash.
const KEEP_EVERY: usize = 16;
/// Bytes of episodes after which a part is full.
const PART_BYTES: usize = 256 << 10;
/// Bytes of the largest sealed document that is fetched.
const LARGEST: usize = 64 << 20;

/// What the collector has acknowledged: names of episodes with a hash of what they were.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    /// The agent that sent it: an enrolment anew begins anew.
    agent: String,
    from: Option<Timestamp>,
    sent: BTreeMap<String, String>,
}

impl Cursor {
    fn load(state: &Path) -> Self {
        // A cursor that can't be read costs a transfer, nothing else.
        let text = fs::read(state.join(CURSOR)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn keep(&self, state: &Path) {
        let text = serde_json::to_vec(self).unwrap_or_default();
        if let Err(error) = write_atomically(&state.join(CURSOR), &text, 0o600) {
            tracing::warn!(error = %causes(&error), state = "it is sent again after a restart, which does no harm", "cannot keep how far what was learned was sent");
        }
    }
}

/// What is acknowledged with a part: the name of an episode with its hash, or without where it is gone.
type Note = (String, Option<String>);

/// The parts that say what changed since what was acknowledged; the last one has the whole.
struct Parts<'a> {
    learned: &'a Learned,
    /// Episodes that are new or changed, with name, hash and length.
    changed: Vec<(usize, String, String, usize)>,
    gone: Vec<String>,
    begins: bool,
    at: usize,
    is_over: bool,
}

impl<'a> Parts<'a> {
    fn new(learned: &'a Learned, cursor: &Cursor) -> Self {
        let mut gone = cursor.sent.clone();
        let mut changed = Vec::new();
        for (at, episode) in learned.episodes.iter().enumerate() {
            let text = serde_json::to_vec(episode).unwrap_or_default();
            let hash: String = hex(&Sha256::digest(&text)).chars().take(16).collect();
            let name = episode.name();
            gone.remove(&name);
            if cursor.sent.get(&name) != Some(&hash) {
                changed.push((at, name, hash, text.len()));
            }
        }
        let begins = cursor.from != Some(learned.from);
        let gone = if begins { Vec::new() } else { gone.into_keys().collect() };
        Self { learned, changed, gone, begins, at: 0, is_over: false }
    }

    /// The next part, and what is acknowledged when it was taken: names with hashes, or without where they are gone.
    fn next(&mut self) -> Option<(LearnedPart, Vec<Note>)> {
        if self.is_over {
            return None;
        }
        let mut part = self.learned.part();
        part.begins = std::mem::take(&mut self.begins);
        part.gone = self.gone.split_off(self.gone.len().saturating_sub(PART_GONE));
        let mut notes: Vec<Note> = part.gone.iter().map(|name| (name.clone(), None)).collect();
        let mut bytes = 0;
        while let Some((at, name, hash, size)) = self.changed.get(self.at) {
            if part.episodes.len() >= PART_EPISODES || (bytes > 0 && bytes + size > PART_BYTES) {
                break;
            }
            bytes += size;
            part.episodes.extend(self.learned.episodes.get(*at).cloned());
            notes.push((name.clone(), Some(hash.clone())));
            self.at += 1;
        }
        if self.at >= self.changed.len() && self.gone.is_empty() {
            part.whole = Some(self.learned.whole());
            self.is_over = true;
        }
        Some((part, notes))
    }
}

/// Sends what was learned whenever it grew, for as long as the connection lives.
pub(super) async fn send(link: &Link, hooks: &Arc<dyn Hooks>) -> Result<Infallible, HttpError> {
    let Some(places) = hooks.places() else { return std::future::pending().await };
    let mut sent = None;
    loop {
        let stamp = stamp(&places.state);
        let mut wait = LOOK;
        if stamp.is_some() && stamp != sent {
            match send_once(link, &places).await {
                Ok(true) => sent = stamp,
                Ok(false) => wait = REFUSED,
                // A collector that does not want it has other duties: events go on.
                Err(error @ HttpError::Refused { .. }) => {
                    tracing::warn!(error = %causes(&error), state = "it is kept here and tried again", "the collector does not take what was learned");
                    wait = REFUSED;
                }
                Err(error) => return Err(error),
            }
        }
        tokio::time::sleep(wait).await;
    }
}

fn stamp(state: &Path) -> Option<(SystemTime, u64)> {
    let data = fs::metadata(state.join(LEARNED_FILE)).ok()?;
    Some((data.modified().ok()?, data.len()))
}

/// Sends what changed; `false` when there was nothing that could be sent.
pub(super) async fn send_once(link: &Link, places: &Places) -> Result<bool, HttpError> {
    let (file, state) = (places.state.join(LEARNED_FILE), places.state.clone());
    let read = tokio::task::spawn_blocking(move || (read_learned(&[file]), Cursor::load(&state)));
    let Ok((read, mut cursor)) = read.await else { return Ok(false) };
    let learned = match read {
        Ok(records) => records.into_iter().next(),
        Err(error) => {
            tracing::warn!(error = %causes(&error), "cannot read what was learned");
            None
        }
    };
    let Some(learned) = learned else { return Ok(false) };
    let agent = Identity::load(&places.identity).map(|identity| identity.id).unwrap_or_default();
    if cursor.agent != agent || cursor.from != Some(learned.from) {
        cursor = Cursor { agent, ..Cursor::default() };
    }
    // A collector that lost what was acknowledged says so once; after that it has everything.
    for _ in 0..2 {
        if !send_parts(link, &learned, &mut cursor, places).await? {
            return Ok(true);
        }
        cursor = Cursor { agent: cursor.agent, ..Cursor::default() };
    }
    tracing::warn!("the collector holds other episodes than it was sent, again and again");
    Ok(false)
}

/// Sends the parts; whether everything is to be sent again.
async fn send_parts(
    link: &Link,
    learned: &Learned,
    cursor: &mut Cursor,
    places: &Places,
) -> Result<bool, HttpError> {
    let mut parts = Parts::new(learned, cursor);
    let mut since_kept = 0;
    while let Some((part, notes)) = parts.next() {
        let text = serde_json::to_string(&part).unwrap_or_default();
        let answer = link.post("/v1/learned", text).await?;
        let taken: PartTaken = serde_json::from_slice(&answer).map_err(|error| {
            HttpError::Broken { authority: "the collector".to_owned(), source: error.into() }
        })?;
        if taken.again {
            return Ok(true);
        }
        cursor.from = Some(learned.from);
        for (name, hash) in notes {
            match hash {
                Some(hash) => cursor.sent.insert(name, hash),
                None => cursor.sent.remove(&name),
            };
        }
        since_kept += 1;
        if since_kept >= KEEP_EVERY || part.whole.is_some() {
            tokio::task::block_in_place(|| cursor.keep(&places.state));
            since_kept = 0;
        }
    }
    Ok(false)
}

/// Fetches what the role is certified whenever the collector says that there is something.
pub(super) async fn fetch(
    link: &Link,
    hooks: &Arc<dyn Hooks>,
    told: &Notify,
) -> Result<Infallible, HttpError> {
    let Some(places) = hooks.places() else { return std::future::pending().await };
    let mut refused: BTreeMap<&str, String> = BTreeMap::new();
    loop {
        told.notified().await;
        for (kind, file) in [(BASELINE_KIND, BASELINE_FILE), (CERTIFICATE_KIND, CERTIFICATE_FILE)] {
            match fetch_one(link, hooks, &places, (kind, file)).await {
                Ok(()) => {}
                Err(FetchError::Http(HttpError::Refused { status, .. }))
                    if status.as_u16() == 404 => {}
                Err(FetchError::Http(error)) => return Err(error),
                Err(FetchError::Document(why)) => {
                    // The collector repeats itself on every new connection.
                    if refused.get(kind) != Some(&why) {
                        hooks.certified_refused(kind, &why);
                    }
                    refused.insert(kind, why);
                }
            }
        }
    }
}

/// Why nothing was fetched.
enum FetchError {
    /// It could not be had.
    Http(HttpError),
    /// It is not believed, or can't be kept.
    Document(String),
}

impl From<HttpError> for FetchError {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}

impl From<BaselineFileError> for FetchError {
    fn from(error: BaselineFileError) -> Self {
        Self::Document(causes(&error))
    }
}

async fn fetch_one(
    link: &Link,
    hooks: &Arc<dyn Hooks>,
    places: &Places,
    (kind, file): (&'static str, &str),
) -> Result<(), FetchError> {
    let have = version_of(&places.state.join(file));
    let mut path = format!("/v1/certified/{kind}?have={have}");
    let role = hooks.role().filter(|role| !role.is_empty());
    if let Some(role) = &role {
        path.push_str("&role=");
        path.push_str(&query_value(role));
    }
    let bytes = link.read_within(&path, LARGEST).await?;
    if bytes.is_empty() {
        return Ok(());
    }
    let (places, text) = (places.clone(), bytes.to_vec());
    let taken = tokio::task::spawn_blocking(move || take(&places, &text, role.as_deref())).await;
    let taken = taken.unwrap_or_else(|error| Err(FetchError::Document(error.to_string())))?;
    hooks.certified(taken.0, taken.1);
    Ok(())
}

/// Takes a document into the state directory, if its seal holds and it is of this host's role.
fn take(
    places: &Places,
    text: &[u8],
    role: Option<&str>,
) -> Result<(&'static str, u64), FetchError> {
    let fail = |why: String| FetchError::Document(why);
    let named = role_of(text).map_err(fail)?;
    if role.is_some_and(|role| role != named) {
        return Err(fail(format!("it is of role \"{named}\", which this host does not have")));
    }
    let anchors = load_anchors(&places.trust).map_err(|error| fail(causes(&error)))?;
    let incoming = places.state.join(INCOMING);
    write_atomically(&incoming, text, 0o600).map_err(|error| fail(causes(&error)))?;
    let adopted = adopt(&places.state, &incoming, &anchors, clock::now());
    let removed = remove(&incoming);
    let adopted = adopted?;
    removed.map_err(|error| fail(causes(&error)))?;
    Ok(adopted)
}

/// The role that a sealed document says it is of; its seal is not checked.
fn role_of(text: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    let sealed = Sealed::parse(text).map_err(|error| error.to_string())?;
    let payload = sealed.payload_bytes().map_err(|error| error.to_string())?;
    let payload = std::str::from_utf8(&payload).map_err(|error| error.to_string())?;
    if sealed.kind == BASELINE_KIND {
        RoleBaseline::parse(payload).map(|read| read.role).map_err(|error| error.to_string())
    } else {
        Certificate::parse(payload).map(|read| read.role).map_err(|error| error.to_string())
    }
}

/// The version of what lies in the state directory; 0 for nothing.
fn version_of(path: &Path) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    Sealed::parse(&text).map_or(0, |sealed| sealed.version)
}

#[cfg(test)]
mod tests;
