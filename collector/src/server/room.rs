//! What all requests share: the database, the authority, the policy in force, and who listens.

use super::guard::Guard;
use super::problem::Problem;
use crate::authority::{AgentShown, Authority};
use crate::clock;
use crate::config::Config;
use crate::dir::Dir;
use crate::policy::InForce;
use crate::store::{FleetSpent, GroupSpent, Store, Versions};
use axum::http::StatusCode;
use sekisho_schema::calendar::Calendar;
use sekisho_schema::{Span, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, watch};

/// Batches of events that are read and stored at the same time; bounds the memory they take.
const INGEST_AT_ONCE: usize = 64;

/// The shared state of a running collector.
pub(super) struct Room {
    pub(super) store: Store,
    pub(super) authority: Authority,
    pub(super) dir: Dir,
    pub(super) guard: Guard,
    pub(super) metrics: Metrics,
    pub(super) ingest: Semaphore,
    /// When the server's certificate ends.
    pub(super) certificate_until: Timestamp,
    pub(super) policy: watch::Sender<Option<Arc<InForce>>>,
    pub(super) denied: watch::Sender<Arc<BTreeSet<String>>>,
    /// Agents with the names of the orders that they did not answer yet.
    pub(super) orders: watch::Sender<Arc<BTreeMap<String, BTreeSet<String>>>>,
    /// Versions of the baselines and certificates in force, by role.
    pub(super) certified: watch::Sender<Arc<BTreeMap<String, Versions>>>,
    /// What each role has spent of its cuts of behaviour.
    pub(super) fleet: watch::Sender<Arc<BTreeMap<String, FleetSpent>>>,
    /// Roles are pooled one at a time: that takes memory.
    pub(super) pooling: Semaphore,
    /// What each group has spent of its cuts of hosts.
    pub(super) spent: watch::Sender<Arc<BTreeMap<String, GroupSpent>>>,
    /// Life of an agent's certificate.
    pub(super) agent_life: Span,
    /// The holidays that the page of learning goes by.
    pub(super) calendar: Calendar,
    /// Whether notices go to anybody.
    pub(super) notifies: bool,
    /// Rises with each change in the database.
    pub(super) changes: watch::Sender<u64>,
    /// Turns `true` once, at the end.
    pub(super) closing: watch::Sender<bool>,
    streams: Mutex<BTreeMap<String, usize>>,
}

/// What is told of the fleet's cuts, role by role: name, help, value.
type OfFleet = (&'static str, &'static str, fn(&FleetSpent) -> u32);

const FLEET: [OfFleet; 2] = [
    (
        "fleet_cuts_of_a_week",
        "Automatic cuts of behaviour that a role may have in seven days.",
        |spent| spent.of,
    ),
    ("fleet_cuts_left", "How many of them are left.", |spent| spent.left),
];

/// A role as a label (Prometheus text format: backslash, quote and line feed are escaped).
fn role_label(role: &str) -> String {
    let escaped = role.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{{role=\"{escaped}\"}}")
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The agent its certificate names.
    pub(super) agent: Option<AgentShown>,
    /// Whether a later certificate of the same agent is in use already.
    pub(super) replaced: bool,
    /// Its address.
    pub(super) address: SocketAddr,
    /// The listener it came to.
    pub(super) door: Door,
}

/// The listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// Loopback without TLS.
    Page {
        /// Whether no password is asked for.
        open: bool,
    },
    /// TLS.
    Tls,
}

/// Counters since the start.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    pub(super) ingested: AtomicU64,
    pub(super) duplicates: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) batch_nanos: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) silent: AtomicU64,
    pub(super) renewed: AtomicU64,
    pub(super) confirmed: AtomicU64,
    pub(super) notices: AtomicU64,
    pub(super) undelivered: AtomicU64,
    pub(super) deliveries: AtomicU64,
    pub(super) delivery_failures: AtomicU64,
    pub(super) removed: AtomicU64,
}

/// One open notice stream of an agent; counts it while it lives.
pub(super) struct Listening {
    room: Arc<Room>,
    agent: String,
}

impl Room {
    pub(super) fn new(
        store: Store,
        authority: Authority,
        dir: Dir,
        guard: Guard,
        certificate_until: Timestamp,
        config: &Config,
    ) -> Self {
        Self {
            store,
            authority,
            dir,
            guard,
            metrics: Metrics::default(),
            ingest: Semaphore::new(INGEST_AT_ONCE),
            certificate_until,
            policy: watch::Sender::new(None),
            denied: watch::Sender::new(Arc::default()),
            orders: watch::Sender::new(Arc::default()),
            certified: watch::Sender::new(Arc::default()),
            fleet: watch::Sender::new(Arc::default()),
            pooling: Semaphore::new(1),
            spent: watch::Sender::new(Arc::default()),
            agent_life: config.agent_life,
            calendar: config.calendar.clone(),
            notifies: config.notify.is_some(),
            changes: watch::Sender::new(0),
            closing: watch::Sender::new(false),
            streams: Mutex::default(),
        }
    }

    /// Runs work that waits for the disk where it may wait.
    pub(super) async fn waiting<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let room = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&room)).await {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, "a request ended in the middle of its work");
                Err(Problem::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the request could not be completed",
                ))
            }
        }
    }

    /// The agent behind a connection, if it may come in.
    pub(super) fn admit(&self, peer: &Peer) -> Result<String, Problem> {
        let shown = self.admit_to_renew(peer)?;
        if shown.until <= clock::now() {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                format!("this certificate ended at {}; POST /v1/renew comes first", shown.until),
            ));
        }
        Ok(shown.agent)
    }

    /// The agent behind a connection, if it may have a new certificate: also when its own has ended.
    pub(super) fn admit_to_renew(&self, peer: &Peer) -> Result<AgentShown, Problem> {
        let Some(shown) = &peer.agent else {
            return Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "this needs the certificate of an enrolled agent",
            ));
        };
        let refuse = |why| {
            self.metrics.refused.fetch_add(1, Ordering::Relaxed);
            Err(Problem::new(StatusCode::FORBIDDEN, why))
        };
        if self.denied.borrow().contains(&shown.agent) {
            return refuse("this agent was denied by an operator; enrol again with a new token");
        }
        if peer.replaced {
            return refuse(
                "a later certificate of this agent is in use already; enrol again with a new token",
            );
        }
        Ok(shown.clone())
    }

    pub(super) fn listening(self: &Arc<Self>, agent: &str) -> Listening {
        *self
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(agent.to_owned())
            .or_default() += 1;
        Listening { room: Arc::clone(self), agent: agent.to_owned() }
    }

    /// Agents that hold a notice stream open.
    pub(super) fn connected(&self) -> usize {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The counters in Prometheus' text format.
    pub(super) fn metrics_text(&self) -> String {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let policy = self.policy.borrow().as_ref().map_or(0, |policy| policy.stored.version);
        let seconds = self.metrics.batch_nanos.load(Ordering::Relaxed) as f64 / 1e9;
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, lines: &[(&str, String)]| {
            let _ = writeln!(
                text,
                "# HELP sekisho_collector_{name} {help}\n# TYPE sekisho_collector_{name} {kind}"
            );
            for (suffix, value) in lines {
                let _ = writeln!(text, "sekisho_collector_{name}{suffix} {value}");
            }
        };
        let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
        family("build_info", "gauge", "The version that runs.", &[(&version, "1".to_owned())]);
        family(
            "agents_connected",
            "gauge",
            "Agents that hold a notice stream open.",
            &[("", self.connected().to_string())],
        );
        family(
            "agents_silent",
            "gauge",
            "Agents that missed three states.",
            &[("", read(&self.metrics.silent).to_string())],
        );
        family(
            "events_ingested_total",
            "counter",
            "Events stored for the first time.",
            &[("", read(&self.metrics.ingested).to_string())],
        );
        family(
            "events_duplicate_total",
            "counter",
            "Events that were stored already.",
            &[("", read(&self.metrics.duplicates).to_string())],
        );
        family(
            "refused_total",
            "counter",
            "Requests refused: wrong token, wrong password, denied agent.",
            &[("", read(&self.metrics.refused).to_string())],
        );
        family(
            "policy_version",
            "gauge",
            "Version of the newest policy; 0 for none.",
            &[("", policy.to_string())],
        );
        for (name, kind, help, value) in self.counted() {
            family(name, kind, help, &[("", read(value).to_string())]);
        }
        let orders: usize = self.orders.borrow().values().map(BTreeSet::len).sum();
        family(
            "orders_open",
            "gauge",
            "Orders that their hosts did not answer yet.",
            &[("", orders.to_string())],
        );
        let fleet = Arc::clone(&self.fleet.borrow());
        let labelled: Vec<(String, &FleetSpent)> =
            fleet.values().map(|spent| (role_label(&spent.role), spent)).collect();
        for (name, help, of) in FLEET {
            let lines: Vec<(&str, String)> = labelled
                .iter()
                .map(|(label, spent)| (label.as_str(), of(spent).to_string()))
                .collect();
            family(name, "gauge", help, &lines);
        }
        let lines = [
            ("_sum", format!("{seconds:.9}")),
            ("_count", read(&self.metrics.batches).to_string()),
        ];
        family(
            "ingest_duration_seconds",
            "summary",
            "Time from a batch read to a batch on the disk.",
            &lines,
        );
        text
    }

    /// Counters with one value: name, kind, help.
    fn counted(&self) -> [(&'static str, &'static str, &'static str, &AtomicU64); 7] {
        [
            (
                "certificates_renewed_total",
                "counter",
                "Agents' certificates made anew.",
                &self.metrics.renewed,
            ),
            (
                "trials_confirmed_total",
                "counter",
                "Confirmations of cuts on trial that were handed out.",
                &self.metrics.confirmed,
            ),
            ("notices", "gauge", "Notices that nobody took on yet.", &self.metrics.notices),
            (
                "notices_undelivered",
                "gauge",
                "Notices whose last delivery failed.",
                &self.metrics.undelivered,
            ),
            ("deliveries_total", "counter", "Notices that arrived.", &self.metrics.deliveries),
            (
                "delivery_failures_total",
                "counter",
                "Tries to deliver a notice that failed.",
                &self.metrics.delivery_failures,
            ),
            (
                "events_removed_total",
                "counter",
                "Events removed because of their age or the size of the database.",
                &self.metrics.removed,
            ),
        ]
    }

    /// What keeps this collector from doing its duty; empty when nothing does.
    pub(super) fn ailments(&self) -> Vec<String> {
        let now = clock::now();
        let mut ailments = Vec::new();
        if let Err(error) = self.store.change_mark() {
            ailments.push(format!("database: {error}"));
        }
        match crate::authority::ends(self.authority.pem()) {
            Ok(end) if end > now => {}
            Ok(end) => ailments.push(format!("the authority's certificate ended at {end}")),
            Err(error) => ailments.push(error.to_string()),
        }
        if self.certificate_until <= now {
            ailments.push(format!(
                "the server's certificate ended at {}; a restart makes a new one",
                self.certificate_until
            ));
        }
        if *self.closing.borrow() {
            ailments.push("shutting down".to_owned());
        }
        ailments
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut streams = self.room.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = streams.get_mut(&self.agent) {
            *count -= 1;
            if *count == 0 {
                streams.remove(&self.agent);
            }
        }
    }
}
