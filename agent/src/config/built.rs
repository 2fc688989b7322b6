//! The configuration as it is used: defaults filled in, sense checked.

use super::raw::{LoadConfigError, RawConfig};
use sekisho_engine::Limits;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the agent goes by.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of this host in every event.
    pub host: String,
    /// Sealed policy to adopt at start if it is newer.
    pub policy: Option<PathBuf>,
    /// Uplinks by name; `None` for every interface that is up and not a loopback.
    pub interfaces: Option<Vec<String>>,
    /// Capture filter.
    pub filter: Option<String>,
    /// Bytes of the kernel's rings for each interface.
    pub ring_bytes: i32,
    /// Whether frames for other hosts are taken.
    pub promiscuous: bool,
    /// Directory of journal, policy and identity.
    pub state: PathBuf,
    /// Directory of the control socket.
    pub run: PathBuf,
    /// Directory of rule packs.
    pub rules: PathBuf,
    /// Directory of trust anchors.
    pub trust: PathBuf,
    /// Indicator lists.
    pub lists: Vec<PathBuf>,
    /// Where events go and policies come from.
    pub collector: CollectorConfig,
    /// MaxMind database.
    pub geo: Option<PathBuf>,
    /// A holiday calendar.
    pub calendar: Option<PathBuf>,
    /// Directories on the volumes of data; `None` for every mounted file system on a disk.
    pub volumes: Option<Vec<PathBuf>>,
    /// Address of the metrics; `None` for none.
    pub metrics: Option<SocketAddr>,
    /// Bounds of the engine.
    pub limits: Limits,
    /// Known destinations that the kernel holds at most.
    pub preloaded: usize,
    /// Whether a guardian is started where none serves.
    pub start_guardian: bool,
    /// Whether the guardian makes the tables its own.
    pub own_tables: bool,
    /// After how long alone a guardian that was started so ends.
    pub linger: Duration,
    /// Bytes of the journal.
    pub journal_cap: u64,
    /// Bytes of memory for the last frames seen; 0 for none.
    pub evidence_ring: usize,
    /// Bytes of the files of evidence.
    pub evidence_cap: u64,
}

/// Where events go and policies come from.
#[derive(Clone, Debug)]
pub struct CollectorConfig {
    /// `https://HOST:PORT`; `None` for the one of the enrolment.
    pub url: Option<String>,
    /// Directory of key and certificates.
    pub identity: PathBuf,
}

impl Config {
    /// Loads and checks a configuration.
    ///
    /// # Errors
    /// [`LoadConfigError`].
    pub fn load(path: &Path) -> Result<Self, LoadConfigError> {
        Self::build(RawConfig::load(path)?)
            .map_err(|why| LoadConfigError::Senseless { path: path.to_owned(), why })
    }

    /// Fills in the defaults and checks the sense.
    ///
    /// # Errors
    /// What makes no sense.
    pub fn build(raw: RawConfig) -> Result<Self, String> {
        let ring_mib = raw.capture.ring_mib.unwrap_or(32);
        if !(1..=1024).contains(&ring_mib) {
            return Err(format!("capture.ring-mib is {ring_mib}, expected 1 to 1024"));
        }
        if raw.capture.interfaces.as_ref().is_some_and(Vec::is_empty) {
            return Err("capture.interfaces is empty: nothing would be seen; name the uplinks or leave the key out for all of them".to_owned());
        }
        let host = raw.host.unwrap_or_else(host_name);
        if host.trim().is_empty() {
            return Err("host is empty".to_owned());
        }
        if let Some(url) = &raw.collector.url
            && !url.starts_with("https://")
        {
            return Err(format!("collector.url is \"{url}\", expected https://HOST:PORT"));
        }
        let state = raw.paths.state.unwrap_or_else(|| "/var/lib/sekisho".into());
        let listen = raw.metrics.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9477)));
        let journal_mib = raw.limits.journal_mib.unwrap_or(256);
        if journal_mib == 0 {
            return Err("limits.journal-mib is 0: a journal needs at least 1 MiB".to_owned());
        }
        let evidence_mib = raw.evidence.ring_mib.unwrap_or(32);
        if evidence_mib > 1024 {
            return Err(format!("evidence.ring-mib is {evidence_mib}, expected 0 to 1024"));
        }
        let start_guardian = match raw.enforce.guardian.as_deref() {
            None | Some("auto") => true,
            Some("socket") => false,
            Some(other) => {
                return Err(format!("enforce.guardian is \"{other}\", expected auto or socket"));
            }
        };
        let linger = raw.enforce.linger_secs.unwrap_or(10);
        if !(1..=3600).contains(&linger) {
            return Err(format!("enforce.linger-secs is {linger}, expected 1 to 3600"));
        }
        let default = Limits::default();
        let limits = Limits {
            flows: bounded("flows", raw.limits.flows, default.flows)?,
            names: bounded("names", raw.limits.names, default.names)?,
            heads: bounded("heads", raw.limits.heads, default.heads)?,
            destinations: bounded("destinations", raw.limits.destinations, default.destinations)?,
            containments: bounded("containments", raw.limits.containments, default.containments)?,
            ..default
        };
        Ok(Self {
            host,
            policy: raw.policy,
            interfaces: raw.capture.interfaces,
            filter: raw.capture.filter,
            ring_bytes: i32::try_from(u64::from(ring_mib) << 20).unwrap_or(1 << 30),
            promiscuous: raw.capture.promiscuous.unwrap_or(false),
            run: raw.paths.run.unwrap_or_else(|| "/run/sekisho".into()),
            rules: raw.paths.rules.unwrap_or_else(|| "/usr/share/sekisho/rules".into()),
            trust: raw.paths.trust.unwrap_or_else(|| "/etc/sekisho/trust.d".into()),
            lists: raw.indicators.lists.unwrap_or_default(),
            collector: CollectorConfig {
                url: raw.collector.url,
                identity: raw.collector.identity.unwrap_or_else(|| state.join("identity")),
            },
            geo: raw.geo.database,
            calendar: raw.learn.calendar,
            volumes: raw.learn.volumes,
            metrics: raw.metrics.enabled.unwrap_or(true).then_some(listen),
            limits,
            preloaded: raw.limits.preloaded.unwrap_or(1_000_000),
            start_guardian,
            own_tables: raw.enforce.own_tables.unwrap_or(true),
            linger: Duration::from_secs(linger),
            journal_cap: journal_mib << 20,
            evidence_ring: evidence_mib << 20,
            evidence_cap: raw.evidence.keep_mib.unwrap_or(256) << 20,
            state,
        })
    }

    /// The guardian's socket.
    #[must_use]
    pub fn guardian_socket(&self) -> PathBuf {
        self.run.join("guardian.sock")
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run.join("agent.sock")
    }

    /// The directory of recorded flows.
    #[must_use]
    pub fn traffic_dir(&self) -> PathBuf {
        self.state.join("traffic")
    }

    /// The directory of evidence.
    #[must_use]
    pub fn evidence_dir(&self) -> PathBuf {
        self.state.join("evidence")
    }

    /// The journal's directory.
    #[must_use]
    pub fn journal_dir(&self) -> PathBuf {
        self.state.join("journal")
    }
}

fn bounded(name: &str, value: Option<usize>, default: usize) -> Result<usize, String> {
    match value {
        Some(0) => Err(format!("limits.{name} is 0, expected at least 1")),
        Some(value) => Ok(value),
        None => Ok(default),
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
