//! What the threads share: a snapshot that is swapped whole, counters, and the way in.

use super::{Inbox, Message};
use crate::chain::causes;
use crate::clock;
use crate::control::{
    JournalStatus, LearningStatus, Locked, OrderRequest, PreviewRequest, ReloadRequest, Serving,
    Status,
};
use crate::journal::JournalHealth;
use crate::metrics::{self, Metrics};
use crate::state::{LoadPolicyError, adopt_policy};
use crate::sync::{Heartbeat, Hooks, OrderOutcome, Places, SyncState};
use sekisho_engine::certify::bound::missing;
use sekisho_engine::certify::threshold::CONFIDENCE;
use sekisho_schema::certificate::Budgets;
use sekisho_schema::event::{ModeChange, PolicyChange};
use sekisho_schema::order::Order;
use sekisho_schema::policy::Orders;
use sekisho_schema::ruling::Reduced;
use sekisho_schema::{Body, ContainmentId, Record, Sealed, Timestamp, Verified};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// What the threads share.
pub(super) struct Shared {
    pub(super) status: Mutex<Arc<Status>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) sync: Arc<SyncState>,
    pub(super) journal: Arc<JournalHealth>,
    pub(super) inbox: Inbox,
    pub(super) facts: Mutex<BTreeMap<String, String>>,
    pub(super) state_dir: PathBuf,
    pub(super) trust_dir: PathBuf,
    pub(super) identity_dir: PathBuf,
    /// The bounds that the policy in force sets to orders from the centre.
    pub(super) order_bounds: Mutex<Orders>,
    /// Version and digest of the last policy adopted or refused; one adoption at a time.
    pub(super) adopting: Mutex<Adopting>,
    /// How the learning thread fares: its record, and the documents that people signed.
    pub(super) learning: Mutex<LearningStatus>,
    /// How the guardian fares, while it is there.
    pub(super) guardian: Mutex<Option<crate::guardian::State>>,
}

/// Which policy is in force and which one was refused last.
#[derive(Debug, Default)]
pub(super) struct Adopting {
    pub(super) in_force: u64,
    pub(super) digest: Option<String>,
    pub(super) refused: Option<String>,
    pub(super) refused_digest: Option<String>,
}

impl Shared {
    /// Swaps the snapshot.
    pub(super) fn publish(&self, status: Status) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(status);
    }

    /// Puts facts beside those that are known.
    pub(super) fn learn_facts(&self, facts: impl IntoIterator<Item = (String, String)>) {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).extend(facts);
    }

    /// Takes note of how the guardian fares; `None` when it is gone.
    pub(super) fn guardian_is(&self, state: Option<crate::guardian::State>) {
        *self.guardian.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn snapshot(&self) -> Arc<Status> {
        Arc::clone(&self.status.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn adopting(&self) -> std::sync::MutexGuard<'_, Adopting> {
        self.adopting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what the learning thread knows to what the detecting thread does.
    fn add_learning(&self, status: &mut LearningStatus) {
        let shown = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        let episodes = std::mem::take(&mut status.record.episodes);
        status.record.clone_from(&shown.record);
        status.record.episodes = episodes;
        status.documents.clone_from(&shown.documents);
        drop(shown);
        if status.documents.certificate.is_none() {
            status.authority.granted.clear();
            status.authority.locked = without_certificate(status.record.host_weeks);
        }
    }

    fn unsent(&self) -> u64 {
        u64::try_from(self.journal.unsent.load(Relaxed)).unwrap_or(0)
    }

    /// Checks a policy's seal, keeps it, hands it to the detecting thread.
    fn consider(&self, sealed: &Sealed) {
        let mut adopting = self.adopting();
        let digest = sealed.digest();
        // The collector repeats itself on every new connection.
        if adopting.digest.as_ref() == Some(&digest)
            || adopting.refused_digest.as_ref() == Some(&digest)
        {
            return;
        }
        match adopt_policy(
            &self.state_dir,
            &self.trust_dir,
            sealed,
            clock::now(),
            adopting.in_force,
        ) {
            Ok(policy) => {
                tracing::info!(version = policy.version, mode = %policy.mode, "policy adopted");
                adopting.in_force = policy.version;
                adopting.digest = Some(digest);
                adopting.refused = None;
                self.inbox.send(Message::Policy(Box::new(policy)));
            }
            Err(error) => {
                // Only a seal that does not hold never will: a full disk passes.
                if matches!(error, LoadPolicyError::Refused { .. }) {
                    adopting.refused_digest = Some(digest);
                }
                adopting.refused = Some(causes(&error));
                let in_force = adopting.in_force;
                drop(adopting);
                self.refuse_policy(&error, in_force);
            }
        }
    }

    /// Says that a policy was refused, on every channel.
    pub(super) fn refuse_policy(&self, error: &LoadPolicyError, in_force: u64) {
        let why = causes(error);
        tracing::error!(error = %why, state = %format!("policy {in_force} stays in force"), help = "re-seal it with enrolled keys, a higher version and a later expiry", "policy refused");
        *self.metrics.values().policy_refused.entry(error.reason().to_owned()).or_default() += 1;
        let change = PolicyChange {
            version: error.version(),
            outcome: "refused".to_owned(),
            why: Some(why),
            in_force,
        };
        self.inbox.tell(Body::Policy(change));
    }
}

/// What is locked while there is no certificate, and how many host-weeks without an event the default budgets take
/// beyond those of this host.
fn without_certificate(host_weeks: f64) -> Vec<Locked> {
    let mut locked = Vec::new();
    for (tier, channels) in Budgets::default().0 {
        let confidence = 1.0 - (1.0 - CONFIDENCE) / channels.len().max(1) as f64;
        for (channel, budget) in channels {
            locked.push(Locked {
                tier,
                channel,
                why: Reduced::Locked { missing_host_weeks: None }.to_string(),
                missing_host_weeks: Some(missing(host_weeks, budget, confidence)),
            });
        }
    }
    locked
}

/// The same, as it is measured.
fn measured(status: &LearningStatus) -> metrics::Learning {
    let LearningStatus { record, documents, authority } = status;
    let granted = authority
        .granted
        .iter()
        .map(|granted| ((granted.tier.name(), granted.channel.name()), (true, 0.0)));
    let locked = authority.locked.iter().map(|locked| {
        let missing = locked.missing_host_weeks.unwrap_or(0.0);
        ((locked.tier.name(), locked.channel.name()), (false, missing))
    });
    metrics::Learning {
        host_weeks: record.host_weeks,
        episodes: [record.episodes, record.finished, record.lost],
        baseline: documents.baseline.unwrap_or(0),
        certificate: documents.certificate.unwrap_or(0),
        refusals: documents.refusals,
        channels: granted.chain(locked).collect(),
        cuts_left: authority.cuts_left,
        cuts_refused: authority.cuts_refused,
        cuts_rehearsed: authority.cuts_rehearsed,
        is_revoked: authority.revoked_at.is_some(),
        is_kept: record.failure.is_none(),
    }
}

impl Serving for Shared {
    fn status(&self) -> Status {
        let mut status = self.snapshot().as_ref().clone();
        let journal = &self.journal;
        status.at = clock::now();
        status.journal = JournalStatus {
            failure: journal.failure(),
            durable: journal.durable.load(Relaxed),
            bytes: journal.bytes.load(Relaxed),
            unsent: self.unsent(),
            lost: journal.lost(),
        };
        status.policy.refused.clone_from(&self.adopting().refused);
        status.policy.frozen = status.policy.expires.is_some_and(|expires| expires <= status.at);
        status.collector = self.sync.status();
        self.add_learning(&mut status.learning);
        status.guardian = self.guardian.lock().unwrap_or_else(PoisonError::into_inner).clone();
        status
    }

    fn facts(&self) -> BTreeMap<String, String> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn order(&self, request: OrderRequest) {
        self.inbox.send(Message::Order(request));
    }

    fn reload(&self, request: ReloadRequest) {
        self.inbox.send(Message::Reload(request));
    }

    fn record(&self, record: Record) {
        self.inbox.send(Message::Record(Box::new(record)));
    }

    fn preview(&self, request: PreviewRequest) {
        self.inbox.send(Message::Preview(Box::new(request)));
    }

    fn metrics(&self) -> &Metrics {
        let learning = measured(&Serving::status(self).learning);
        let mut values = self.metrics.values();
        values.learning = learning;
        values.spool_records = self.unsent();
        values.spool_bytes = self.journal.bytes.load(Relaxed);
        values.spool_lost =
            [self.journal.lost_first.load(Relaxed), self.journal.lost_other.load(Relaxed)];
        drop(values);
        &self.metrics
    }
}

impl Hooks for Shared {
    fn heartbeat(&self) -> Heartbeat {
        let status = self.snapshot();
        Heartbeat {
            boot: status.boot.clone(),
            host: status.host.clone(),
            version: status.version.clone(),
            mode: ModeChange {
                requested: status.mode.requested,
                effective: status.mode.effective,
                why: status.mode.why.clone(),
            },
            policy_version: status.policy.version,
            containments: status.containments.iter().map(|held| held.containment.clone()).collect(),
            bytes_out: status.capture.bytes_out,
            spool: self.unsent(),
            coverage: status.coverage.clone(),
            at: clock::now(),
        }
    }

    fn policy(&self, sealed: Sealed) {
        // Off the network thread's path would be better still, but an adoption is one small fsync.
        tokio::task::block_in_place(|| self.consider(&sealed));
    }

    fn acknowledged(&self, records: usize) {
        self.journal.unsent.fetch_sub(i64::try_from(records).unwrap_or(0), Relaxed);
    }

    fn places(&self) -> Option<Places> {
        Some(Places {
            identity: self.identity_dir.clone(),
            trust: self.trust_dir.clone(),
            state: self.state_dir.clone(),
        })
    }

    fn order_bounds(&self) -> Orders {
        self.order_bounds.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn order(&self, order: Verified<Order>, answer: oneshot::Sender<OrderOutcome>) {
        self.inbox.send(Message::Centre(Box::new(order), answer));
    }

    fn order_refused(&self, id: &str, why: &str) {
        tracing::error!(
            order = id,
            error = why,
            state = "nothing was changed",
            "an order from the centre was refused"
        );
        let in_force = self.adopting().in_force;
        let change = PolicyChange {
            version: in_force,
            outcome: "order-refused".to_owned(),
            why: Some(format!("order {id} from the centre: {why}")),
            in_force,
        };
        self.inbox.tell(Body::Policy(change));
    }

    fn confirmed(&self, containment: ContainmentId) {
        self.inbox.send(Message::Confirmed(containment));
    }

    fn group_spent(&self, count: u32, since: Timestamp) {
        self.inbox.send(Message::GroupSpent(count, since));
    }

    fn role(&self) -> Option<String> {
        let shown = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        Some(shown.record.role.clone())
    }

    fn certified(&self, kind: &'static str, version: u64) {
        tracing::info!(kind, version, "came from the collector");
        self.inbox.send(Message::LookAtDocuments);
    }

    fn certified_refused(&self, kind: &'static str, why: &str) {
        tracing::error!(
            kind,
            error = why,
            state = "what is in force stays",
            "a document from the collector was refused"
        );
        let in_force = self.adopting().in_force;
        let change = PolicyChange {
            version: in_force,
            outcome: format!("{kind}-refused"),
            why: Some(format!("from the collector: {why}")),
            in_force,
        };
        self.inbox.tell(Body::Policy(change));
    }

    fn fleet(&self, of: u32, left: u32) {
        self.inbox.send(Message::Fleet { of, left });
    }
}
