//! From configuration to a running agent, and to its orderly end.

use super::judge::{Constant, Ground, Judge};
use super::learning::{self, Learning};
use super::reload::Reload;
use super::service::Service;
use super::shared::{Adopting, Shared};
use super::watch::{WAKER, Watch};
use super::whereabouts::endpoints;
use super::{Inbox, Message};
use crate::capture::live::LiveOptions;
use crate::chain::{Complaint, causes};
use crate::clock;
use crate::config::Config;
use crate::control::{Status, open_control};
use crate::drill::{self, Schedule};
use crate::guardian::{self, Guardian};
use crate::host::geoip::Places;
use crate::host::own_cgroups;
use crate::journal::{JournalHandle, JournalOptions, spawn};
use crate::metrics::Metrics;
use crate::queue::{Receiver, channel};
use crate::rules::RuleSources;
use crate::state::{LoadedPolicy, PolicyOrigin, load_anchors, load_policy, private_dir};
use crate::sync::{Identity, SyncState};
use rustls::ClientConfig;
use sekisho_engine::{Engine, EngineConfig, HostFact, Input};
use sekisho_schema::event::CoverageReport;
use sekisho_schema::policy::Mode;
use sekisho_schema::sealed::Local;
use sekisho_schema::{Body, Policy, Record, Verified};
use std::fs::TryLockError;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Bytes of one journal segment.
const SEGMENT_BYTES: u64 = 8 << 20;
/// Name of the file that one agent at a time may lock, in the state directory.
const LOCK_FILE: &str = "lock";

/// How an agent's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunOutcome {
    /// In the mode that policy asked for.
    AsRequested,
    /// In a lower mode than policy asked for.
    BelowRequested,
}

/// Makes sure that somebody has the power to cut, and lays our own down: before there are other threads.
///
/// # Errors
/// A [`Complaint`] when the power can't be laid down. That no guardian could be started is told by the mode.
pub fn prepare(config: &Config) -> Result<(), Complaint> {
    // A unit that may not cut starts nobody who can: another unit does.
    if config.start_guardian && guardian::has_net_admin() {
        let arguments = guardian_arguments(config);
        if let Err(error) = guardian::ensure(&config.guardian_socket(), &config.state, &arguments) {
            // Not fatal: detection goes on, and the mode says that nothing can be cut.
            tracing::error!(error = %causes(&error), "no guardian");
        }
    }
    // Before the captures are opened: while the host is contained, new packet sockets are refused to everybody else.
    let spared = Guardian::at(config.guardian_socket(), "").asker().and_then(|mut to| to.spare());
    if let Err(error) = spared {
        tracing::debug!(error = %causes(&error), "the guardian spares nobody");
    }
    guardian::shed_net_admin().map_err(cannot("begin", "is the agent started as root?"))
}

fn guardian_arguments(config: &Config) -> Vec<String> {
    let mut arguments = vec![
        "--run".to_owned(),
        config.run.display().to_string(),
        "--state".to_owned(),
        config.state.display().to_string(),
        "--linger".to_owned(),
        config.linger.as_secs().to_string(),
    ];
    if !config.own_tables {
        arguments.push("--shared".to_owned());
    }
    arguments
}

/// Runs the agent until it is told to stop; says `ready` on `console` once it watches and can cut.
///
/// # Errors
/// A [`Complaint`] when it can't begin.
pub fn run(config: Config, console: &mut dyn Write) -> Result<RunOutcome, Complaint> {
    private_dir(&config.state)
        .map_err(cannot("make [paths] state", "make it writable for root"))?;
    let _only = lock(&config.state)
        .map_err(cannot("lock [paths] state", "is another agent running? `sekisho status`"))?;
    let control = open_control(&config.socket())
        .map_err(cannot("open the control socket", "is another agent running? `sekisho status`"))?;
    let control = control_std(control).map_err(cannot("serve the control socket", DESCRIPTORS))?;
    let boot = clock::boot_id();
    let sync = Arc::new(SyncState::default());
    let (journal, journal_thread) = begin_journal(&config, &boot, &sync)?;
    let poll = mio::Poll::new().map_err(cannot("make an event queue", DESCRIPTORS))?;
    let waker = mio::Waker::new(poll.registry(), WAKER)
        .map_err(cannot("make an event queue", DESCRIPTORS))?;
    let (sender, inbox) = channel();
    let inbox_in = Inbox { sender, waker: Arc::new(waker) };
    let loaded = load_policy(&config.state, &config.trust, config.policy.as_deref(), clock::now());
    let shared = Arc::new(share(&config, &boot, &loaded, &journal, sync, inbox_in));
    let collector = link(&config);
    let watch = begin_watch(&config, poll).inspect_err(|_| remove_socket(&config))?;
    let captured = watch.captured().join(",");
    let service = Service {
        shared: Arc::clone(&shared),
        control,
        metrics: config.metrics,
        collector: collector.clone(),
        journal: config.journal_dir(),
        drills: Schedule::new(drill::Ground::from(&config)),
    };
    let service = service.spawn().map_err(cannot("start the service thread", DESCRIPTORS))?;
    let collector = collector.map(|(url, _)| url);
    let mut found = learning::find(&config);
    for complaint in &found.beginning.complaints {
        complaint.print(console);
    }
    let beginning = std::mem::take(&mut found.beginning);
    let role = loaded.policy.duty.group.clone();
    let (learning, news) = Learning::new(&config, found, role.clone(), Arc::clone(&shared));
    let mut judge =
        Beginning { config: &config, boot, shared, journal, loaded, collector }.judge(&watch);
    judge.begin_learning(beginning, news);
    let learning = learning
        .spawn()
        .inspect_err(|error| tracing::error!(%error, state = "what is learned is lost at the end", "no thread to keep what is learned"))
        .ok();
    let learning = learning.map(|(keeper, thread)| {
        judge.keep_by(keeper, role);
        thread
    });
    let (ready, is_ready) = channel();
    let detect = std::thread::Builder::new()
        .name("detect".to_owned())
        .spawn(move || detect(watch, judge, &inbox, &ready))
        .map_err(cannot("start the detecting thread", DESCRIPTORS))?;
    if let Ok(mode) = is_ready.recv() {
        let _ = writeln!(console, "sekisho: ready, mode {mode}, capturing {captured}");
        let _ = console.flush();
    }
    let ended = detect.join();
    remove_socket(&config);
    let outcome = ended.map_err(|_| {
        Complaint::new(
            "the detecting thread failed",
            "nothing is detected; what the kernel holds, it keeps until its leases end",
            "restart the agent and report this with its log",
        )
    })?;
    if learning.is_some_and(|thread| thread.join().is_err()) {
        tracing::error!("the learning thread had failed");
    }
    service.end();
    if journal_thread.join().is_err() {
        tracing::error!("the journal thread had failed");
    }
    Ok(outcome)
}

const DESCRIPTORS: &str = "is the system out of threads or descriptors?";
const NOT_STARTED: &str =
    "the agent did not start; what the kernel holds, it keeps until its leases end";

/// The lock of the state directory, held for as long as the value lives and no longer than the process.
fn lock(state: &Path) -> std::io::Result<std::fs::File> {
    let path = state.join(LOCK_FILE);
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::Error(error)) => Err(error),
        Err(TryLockError::WouldBlock) => {
            Err(std::io::Error::new(std::io::ErrorKind::AddrInUse, "another agent holds it"))
        }
    }
}

/// A complaint about what could not be done at the start.
fn cannot<E: std::error::Error>(what: &str, help: &str) -> impl FnOnce(E) -> Complaint {
    move |error| Complaint::new(format!("cannot {what}: {}", causes(&error)), NOT_STARTED, help)
}

fn remove_socket(config: &Config) {
    let _ = std::fs::remove_file(config.socket());
}

fn begin_journal(
    config: &Config,
    boot: &str,
    sync: &Arc<SyncState>,
) -> Result<(JournalHandle, JoinHandle<()>), Complaint> {
    let grown = Arc::clone(sync);
    let options = JournalOptions {
        dir: config.journal_dir(),
        host: config.host.clone(),
        segment_bytes: SEGMENT_BYTES.min(config.journal_cap / 4),
        cap_bytes: config.journal_cap,
    };
    spawn(options, boot, move |_| grown.grown.notify_one())
        .map_err(cannot("start the journal thread", DESCRIPTORS))
}

fn share(
    config: &Config,
    boot: &str,
    loaded: &LoadedPolicy,
    journal: &JournalHandle,
    sync: Arc<SyncState>,
    inbox: Inbox,
) -> Shared {
    Shared {
        status: Mutex::new(Arc::new(first_status(config, boot, &loaded.policy))),
        metrics: Arc::new(Metrics::default()),
        sync,
        journal: Arc::clone(journal.health()),
        inbox,
        facts: Mutex::default(),
        state_dir: config.state.clone(),
        trust_dir: config.trust.clone(),
        identity_dir: config.collector.identity.clone(),
        order_bounds: Mutex::new(loaded.policy.orders.clone()),
        adopting: Mutex::new(Adopting {
            in_force: loaded.policy.version,
            digest: loaded.digest.clone(),
            ..Adopting::default()
        }),
        guardian: Mutex::default(),
        learning: Mutex::default(),
    }
}

/// Opens the captures; an agent that sees nothing at all does not start.
fn begin_watch(config: &Config, poll: mio::Poll) -> Result<Watch, Complaint> {
    let options = LiveOptions {
        ring_bytes: config.ring_bytes,
        promiscuous: config.promiscuous,
        filter: config.filter.clone(),
    };
    let mut watch = Watch::new(poll, options, config.interfaces.clone());
    watch.look();
    let errors = watch.open();
    for error in &errors {
        tracing::warn!(error = %causes(error), state = "it is tried again every two seconds", "an interface is not captured");
    }
    if !watch.captured().is_empty() {
        return Ok(watch);
    }
    let error = errors.first().map_or_else(
        || "cannot capture: no interface is up but the loopback".to_owned(),
        |error| causes(error),
    );
    let help = "name the uplinks under [capture] interfaces; capturing needs root or CAP_NET_RAW";
    Err(Complaint::new(error, NOT_STARTED, help))
}

/// The control socket for the tokio thread.
fn control_std(
    listener: std::os::unix::net::UnixListener,
) -> std::io::Result<std::os::unix::net::UnixListener> {
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn detect(
    watch: Watch,
    mut judge: Judge,
    inbox: &Receiver<Message>,
    ready: &crate::queue::Sender<Mode>,
) -> RunOutcome {
    judge.realtime = crate::realtime::ask_for_realtime();
    judge.shared.learn_facts([("scheduling".to_owned(), judge.realtime.clone())]);
    let _ = ready.send(judge.engine.effective_mode());
    let judge = watch.run(judge, inbox);
    let held = judge.engine.held().containments.len();
    tracing::info!(
        containments = held,
        state = "what is cut stays cut until its lease ends or it is released",
        "the agent stops"
    );
    if judge.engine.requested_mode() == judge.engine.effective_mode() {
        RunOutcome::AsRequested
    } else {
        RunOutcome::BelowRequested
    }
}

/// Collector and identity, when there is one.
fn link(config: &Config) -> Option<(String, Arc<ClientConfig>)> {
    let dir = &config.collector.identity;
    if !Identity::exists(dir) {
        if let Some(url) = &config.collector.url {
            tracing::warn!(collector = %url, help = "run `sekisho enroll`", "this host is not enrolled; the agent works alone");
        }
        return None;
    }
    let opened = Identity::load(dir).and_then(|identity| {
        let tls = identity.tls(dir)?;
        Ok((config.collector.url.clone().unwrap_or(identity.url), Arc::new(tls)))
    });
    opened.inspect_err(|error| tracing::error!(error = %causes(error), state = "the agent works alone", help = "enrol anew with `sekisho enroll`", "no identity")).ok()
}

fn first_status(config: &Config, boot: &str, policy: &Policy) -> Status {
    use crate::control::{
        CaptureStatus, CollectorStatus, JournalStatus, KnownStatus, LearningStatus, ModeStatus,
        PolicyStatus,
    };
    let now = clock::now();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: config.host.clone(),
        boot: boot.to_owned(),
        pid: std::process::id(),
        started_at: now,
        at: now,
        mode: ModeStatus {
            requested: policy.mode,
            effective: Mode::Learn,
            why: Some("the agent is starting".to_owned()),
        },
        policy: PolicyStatus::default(),
        capture: CaptureStatus::default(),
        containments: Vec::new(),
        findings: 0,
        enforcement: None,
        coverage: Vec::new(),
        known: KnownStatus::default(),
        guardian: None,
        learning: LearningStatus::default(),
        journal: JournalStatus::default(),
        collector: CollectorStatus::default(),
    }
}

struct Beginning<'a> {
    config: &'a Config,
    boot: String,
    shared: Arc<Shared>,
    journal: JournalHandle,
    loaded: LoadedPolicy,
    collector: Option<String>,
}

impl Beginning<'_> {
    /// A judge with rules, policy, memory and hands.
    fn judge(self, watch: &Watch) -> Judge {
        let Self { config, boot, shared, journal, loaded, collector } = self;
        let now = clock::now();
        let seed = getrandom::u64().unwrap_or(0);
        let mut engine = Engine::new(EngineConfig {
            host: config.host.clone(),
            limits: config.limits.clone(),
            hash_seed: seed,
        });
        let (uplinks, on_link, addresses) = watch.ground();
        let collector: Vec<SocketAddr> = collector
            .as_deref()
            .map(|url| endpoints(url, &config.state, shared.inbox.clone()))
            .unwrap_or_default();
        engine.handle(Input::Fact(HostFact::Addresses(addresses), now));
        // The guardian runs beside the agent, or in a unit of its own.
        let mut own = own_cgroups();
        own.push("/system.slice/sekisho-guardian.service".to_owned());
        engine.handle(Input::Fact(HostFact::Cgroups(own), now));
        engine.handle(Input::Fact(HostFact::Enrolled(!collector.is_empty()), now));
        engine.handle(Input::Fact(
            HostFact::Collectors(collector.iter().map(SocketAddr::ip).collect()),
            now,
        ));
        // A directory of packs that is not there may come.
        let packs = if config.rules.exists() { vec![config.rules.clone()] } else { Vec::new() };
        let sources = RuleSources {
            anchors: load_anchors(&config.trust).ok(),
            now: Some(now),
            seed,
            ..RuleSources::new(&packs, &config.lists, Local::Installed)
        };
        let rules = sources.load();
        for error in &rules.left_out {
            tracing::error!(error = %causes(error), state = "it is left out; the other rules are in force", help = "`sekisho check`", "cannot use rules");
        }
        let (in_force, total) = (rules.in_force, rules.rules.indicators.counts().total());
        engine.handle(Input::Rules(Box::new(rules.rules), now));
        let guardian = Guardian::at(config.guardian_socket(), &boot);
        let constant = Constant {
            host: config.host.clone(),
            boot,
            started_at: now,
            journal_dir: config.journal_dir(),
            preloaded: config.preloaded,
            guardian: guardian.clone(),
        };
        let ground = Ground { uplinks, on_link, collector };
        let places = places(config);
        let origin = match loaded.origin {
            PolicyOrigin::BuiltIn => "built-in",
            PolicyOrigin::File => "file",
            PolicyOrigin::State => "state",
        };
        let mut judge =
            Judge::new(engine, constant, ground, Arc::clone(&shared), journal, places, origin);
        judge.tell_indicators(&in_force.counts, total);
        judge.remember(config);
        let (inbox, metrics) = (shared.inbox.clone(), Arc::clone(&shared.metrics));
        judge.reload = Reload::spawn(sources, in_force, inbox, metrics)
            .inspect_err(|error| tracing::error!(%error, state = "rules are as they are until a restart", "no thread for reloads"))
            .ok();
        let looking = guardian.clone();
        // Whatever the guardian does from here on is heard, above all that it is gone.
        if let Err(error) = super::warden::hear(guardian, Arc::clone(&shared)) {
            tracing::error!(%error, state = "a guardian that is gone is noticed at the next cut", "no thread to hear the guardian");
        }
        if let Err(error) = super::lookout::spawn(looking, Arc::clone(&shared)) {
            tracing::error!(%error, state = "what passes a cut is told as it was at the start", "no thread to look for what passes a cut");
        }
        for error in &loaded.refused {
            shared.adopting().refused = Some(causes(error));
            shared.refuse_policy(error, loaded.policy.version);
        }
        judge.adopt(Verified::clone(&loaded.policy), origin);
        let facts = facts(config, &judge);
        shared.learn_facts(facts.clone());
        let uncovered = judge.coverage();
        judge.write_down(Record {
            at: now,
            body: Body::Coverage(CoverageReport { uncovered, facts: facts.into_iter().collect() }),
        });
        judge
    }
}

fn facts(config: &Config, judge: &Judge) -> Vec<(String, String)> {
    let kernel = rustix::system::uname();
    vec![
        ("kernel".to_owned(), kernel.release().to_string_lossy().into_owned()),
        ("uplinks".to_owned(), judge.ground.uplinks.join(",")),
        ("ring".to_owned(), format!("{} MiB", config.ring_bytes >> 20)),
        ("policy".to_owned(), judge.policy_origin.to_owned()),
    ]
}

fn places(config: &Config) -> Places {
    let Some(path) = &config.geo else { return Places::default() };
    Places::open(std::slice::from_ref(path)).unwrap_or_else(|error| {
        tracing::warn!(error = %causes(&error), state = "findings name no country", "no places");
        Places::default()
    })
}
