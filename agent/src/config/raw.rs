//! The configuration as a person writes it; every key is documented here.

use serde::Deserialize;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Why the configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadConfigError {
    /// A file can't be read.
    #[error("cannot read configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not TOML of this shape, or has a key that does not exist.
    #[error("{path}:{at}: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// `line:column` of the fault.
        at: String,
        /// What is wrong there.
        message: String,
    },
    /// Well-formed and without sense.
    #[error("configuration {path}: {why}")]
    Senseless {
        /// The main file.
        path: PathBuf,
        /// What makes no sense.
        why: String,
    },
}

/// `agent.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RawConfig {
    /// Name of this host in every event. Default: the kernel's host name.
    pub host: Option<String>,
    /// A sealed policy file that is adopted at start if it is newer than the one in force.
    pub policy: Option<PathBuf>,
    /// What is captured.
    pub capture: RawCapture,
    /// Where files are.
    pub paths: RawPaths,
    /// Indicators beside the rule packs.
    pub indicators: RawIndicators,
    /// Where events go and policies come from.
    pub collector: RawCollector,
    /// Countries and networks of remote addresses.
    pub geo: RawGeo,
    /// What learning goes by.
    pub learn: RawLearn,
    /// Prometheus metrics.
    pub metrics: RawMetrics,
    /// Frames kept for findings.
    pub evidence: RawEvidence,
    /// Bounds of the engine's tables and of the journal.
    pub limits: RawLimits,
    /// Who has the power to cut.
    pub enforce: RawEnforce,
}

/// `[evidence]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RawEvidence {
    /// MiB of memory for the last frames seen, 0 (none are kept) to 1024. Default: 32.
    pub ring_mib: Option<usize>,
    /// MiB of files; the oldest go first. Default: 256.
    pub keep_mib: Option<u64>,
}

/// `[capture]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RawCapture {
    /// Uplinks: interfaces to capture on and to cut. Default: every interface that is up and not a loopback.
    pub interfaces: Option<Vec<String>>,
    /// A filter in the language of pcap-filter(7). Default: none, everything is seen.
    pub filter: Option<String>,
    /// MiB of the kernel's capture rings for each interface, 1 to 1024: half for what can decide, half for transfers. Default: 32.
    pub ring_mib: Option<u32>,
    /// Whether frames for other hosts are taken too, for a mirror port. Default: false.
    pub promiscuous: Option<bool>,
}

/// `[paths]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RawPaths {
    /// Journal, last good policy, identity. Default: `/var/lib/sekisho`.
    pub state: Option<PathBuf>,
    /// Control socket. Default: `/run/sekisho`.
    pub run: Option<PathBuf>,
    /// Rule packs (`*.toml`) that replace shipped ones of the same name. Default: `/usr/share/sekisho/rules`; it need not exist.
    pub rules: Option<PathBuf>,
    /// Trust anchors (`*.pub`) and `threshold`. Default: `/etc/sekisho/trust.d`.
    pub trust: Option<PathBuf>,
}

/// `[indicators]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RawIndicators {
    /// Lists with one address, `address:port` or name a line; `#` begins a comment.
    pub lists: Option<Vec<PathBuf>>,
}

/// `[collector]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RawCollector {
    /// `https://HOST:PORT`. Default: the one of the enrolment; without either the agent works alone.
    pub url: Option<String>,
    /// Directory of key and certificates from the enrolment. Default: `identity` below `[paths] state`.
    pub identity: Option<PathBuf>,
}

/// `[geo]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RawGeo {
    /// A database in MaxMind DB format with countries or autonomous systems. Default: none.
    pub database: Option<PathBuf>,
}

/// `[learn]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RawLearn {
    /// A holiday calendar. Default: none, every day is one of its week.
    pub calendar: Option<PathBuf>,
    /// Directories on the volumes of data whose free space is watched. Default: every mounted file system on a disk.
    pub volumes: Option<Vec<PathBuf>>,
}

/// `[metrics]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RawMetrics {
    /// Address to serve `/metrics` on. Default: `127.0.0.1:9477`.
    pub listen: Option<SocketAddr>,
    /// Whether metrics are served at all. Default: true.
    pub enabled: Option<bool>,
}

/// `[enforce]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RawEnforce {
    /// `auto` starts a guardian where none serves `[paths] run`; `socket` leaves that to a unit. Default: `auto`.
    pub guardian: Option<String>,
    /// Whether the guardian makes the tables its own, so that nobody else can change them, where the kernel can. Default: true.
    pub own_tables: Option<bool>,
    /// Seconds after which a guardian that the agent started ends, without an agent and without anything held, 1 to 3600. Default: 10.
    pub linger_secs: Option<u64>,
}

/// `[limits]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RawLimits {
    /// Flows tracked at once. Default: 1048576.
    pub flows: Option<usize>,
    /// Addresses bound to a DNS name at once. Default: 131072.
    pub names: Option<usize>,
    /// Flows whose first payload is held at once. Default: 4096.
    pub heads: Option<usize>,
    /// Destinations watched by the learning detectors at once. Default: 65536.
    pub destinations: Option<usize>,
    /// Containments held at once. Default: 4096.
    pub containments: Option<usize>,
    /// Known destinations that the kernel is made to drop beforehand, in mode enforce; 0 for none. Default: 1000000.
    pub preloaded: Option<usize>,
    /// MiB of the journal; the oldest segments go first, acknowledged ones before others. Default: 256.
    pub journal_mib: Option<u64>,
}

macro_rules! overlay {
    ($into:expr, $from:expr, $($key:ident).+) => {
        if let Some(value) = $from.$($key).+ {
            $into.$($key).+ = Some(value);
        }
    };
}

impl RawConfig {
    /// Reads the main file and then, in the order of their names, `agent.d/*.toml` beside it;
    /// a later file replaces the keys that it has.
    ///
    /// # Errors
    /// [`LoadConfigError`] with file, line and column of the first fault.
    pub fn load(path: &Path) -> Result<Self, LoadConfigError> {
        let mut config = Self::read(path)?;
        for extra in fragments(path)? {
            config.merge(Self::read(&extra)?);
        }
        Ok(config)
    }

    fn read(path: &Path) -> Result<Self, LoadConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| LoadConfigError::Read { path: path.to_owned(), source })?;
        sekisho_schema::policy::read_toml(&text).map_err(|(at, message)| {
            LoadConfigError::Malformed { path: path.to_owned(), at, message }
        })
    }

    fn merge(&mut self, other: Self) {
        overlay!(self, other, host);
        overlay!(self, other, policy);
        overlay!(self, other, capture.interfaces);
        overlay!(self, other, capture.filter);
        overlay!(self, other, capture.ring_mib);
        overlay!(self, other, capture.promiscuous);
        overlay!(self, other, paths.state);
        overlay!(self, other, paths.run);
        overlay!(self, other, paths.rules);
        overlay!(self, other, paths.trust);
        overlay!(self, other, indicators.lists);
        overlay!(self, other, collector.url);
        overlay!(self, other, collector.identity);
        overlay!(self, other, geo.database);
        overlay!(self, other, learn.calendar);
        overlay!(self, other, learn.volumes);
        overlay!(self, other, metrics.listen);
        overlay!(self, other, metrics.enabled);
        overlay!(self, other, evidence.ring_mib);
        overlay!(self, other, evidence.keep_mib);
        overlay!(self, other, enforce.guardian);
        overlay!(self, other, enforce.own_tables);
        overlay!(self, other, enforce.linger_secs);
        overlay!(self, other, limits.flows);
        overlay!(self, other, limits.names);
        overlay!(self, other, limits.heads);
        overlay!(self, other, limits.destinations);
        overlay!(self, other, limits.containments);
        overlay!(self, other, limits.preloaded);
        overlay!(self, other, limits.journal_mib);
    }
}

fn fragments(path: &Path) -> Result<Vec<PathBuf>, LoadConfigError> {
    let dir = path.parent().unwrap_or(Path::new(".")).join("agent.d");
    let refuse = |source| LoadConfigError::Read { path: dir.clone(), source };
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(refuse(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(refuse)?.path();
        if file.extension().is_some_and(|extension| extension == "toml") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}
