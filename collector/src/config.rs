//! `collector.toml`: as written, and as used. What the command line says wins.

use crate::dir::Dir;
use sekisho_schema::Span;
use sekisho_schema::calendar::Calendar;
use sekisho_schema::policy::read_toml;
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where the configuration lies unless told otherwise; it may be absent.
pub const DEFAULT_FILE: &str = "/etc/sekisho/collector.toml";

/// `collector.toml` as a person writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RawConfig {
    /// The collector's directory. Default: `/var/lib/sekisho-collector`.
    pub dir: Option<PathBuf>,
    /// Address and port for agents and the page over TLS. Default: `0.0.0.0:8443`.
    pub listen: Option<SocketAddr>,
    /// Loopback address and port for the page without TLS, or `"off"`. Default: `127.0.0.1:8444`.
    pub page: Option<String>,
    /// Whether the loopback page asks for no password. Default: `false`.
    pub page_open: bool,
    /// Agents' certificates.
    pub agents: RawAgents,
    /// How a person is told.
    pub notify: Option<RawNotify>,
    /// What is kept, for how long.
    pub store: RawStore,
    /// What is learned.
    pub learn: RawLearn,
}

/// `[learn]` as a person writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RawLearn {
    /// The holiday calendar that the page of learning goes by. Default: none, every day is one of its week.
    pub calendar: Option<PathBuf>,
}

/// `[agents]` as a person writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RawAgents {
    /// Life of an agent's certificate; it is renewed at 50 to 67 % of it. Default: `30d`, at most 90 days.
    pub certificate: Option<Span>,
}

/// `[store]` as a person writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RawStore {
    /// How long events and findings are kept. Default: `400d`, at least 7 days.
    pub keep: Option<Span>,
    /// How long containments, receipts, orders, notices and rehearsals are kept. Default: `1200d`, at least `keep`.
    pub keep_cuts: Option<Span>,
    /// The largest that the database may grow, in bytes; 0 for no bound. Default: 20 GB.
    pub largest: Option<u64>,
}

/// `[notify]` as a person writes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawNotify {
    /// Where notices are posted: `https://HOST[:PORT]/PATH`; `http://` to a loopback address only.
    pub url: String,
    /// A file with the secret that signs them, 16 bytes or more, for its owner alone.
    pub secret_file: PathBuf,
    /// Certificates of the authorities that the receiver may be certified by, PEM. Default: those of the system.
    pub ca_file: Option<PathBuf>,
    /// After this long without anybody taking a notice on, the deputy is told. Default: `15m`.
    pub deputy_after: Option<Span>,
}

/// How a person is told.
#[derive(Clone, PartialEq, Eq)]
pub struct Notify {
    /// Where notices are posted.
    pub url: String,
    /// The secret that signs them.
    pub secret: Vec<u8>,
    /// The authorities of the receiver, PEM; empty for plain HTTP on loopback.
    pub ca: String,
    /// After this long the deputy is told.
    pub deputy_after: Span,
}

impl std::fmt::Debug for Notify {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notify").field("url", &self.url).finish_non_exhaustive()
    }
}

/// The configuration as used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The collector's directory.
    pub dir: PathBuf,
    /// Address and port for agents and the page over TLS.
    pub listen: SocketAddr,
    /// Loopback address and port for the page without TLS.
    pub page: Option<SocketAddr>,
    /// Whether the loopback page asks for no password.
    pub page_open: bool,
    /// Life of an agent's certificate.
    pub agent_life: Span,
    /// How a person is told; `None` when nobody is.
    pub notify: Option<Notify>,
    /// What is kept, for how long.
    pub keeping: Keeping,
    /// The holidays that the page of learning goes by.
    pub calendar: Calendar,
}

/// What is kept, for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// Events, findings.
    pub events: Span,
    /// Containments, receipts, orders, notices, rehearsals, faults.
    pub cuts: Span,
    /// The largest that the database may grow, in bytes; 0 for no bound.
    pub largest: u64,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML of this shape.
    #[error("{path}:{at}: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// `line:column`.
        at: String,
        /// What is wrong there.
        message: String,
    },
    /// The page's address is not one, or not of this host alone.
    #[error(
        "page = \"{0}\" is not a loopback address with a port: without TLS the page may only be shown to this host itself"
    )]
    Page(String),
    /// A value that makes no sense.
    #[error("{0}")]
    Senseless(String),
}

/// Where systems keep the certificates of authorities (Debian, Red Hat).
const SYSTEM_CA: [&str; 2] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
/// The least that a secret may hold: 128 bits.
const LEAST_SECRET: usize = 16;

fn notify(raw: RawNotify) -> Result<Notify, ConfigError> {
    let refuse = |why: String| ConfigError::Senseless(why);
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })
    };
    let uri: hyper::Uri = raw
        .url
        .parse()
        .map_err(|error| refuse(format!("notify.url = \"{}\": {error}", raw.url)))?;
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let is_loopback =
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let ca = match uri.scheme_str() {
        Some("https") => match &raw.ca_file {
            Some(path) => read(path)?,
            None => SYSTEM_CA.iter().find_map(|path| std::fs::read_to_string(path).ok()).ok_or_else(
                || refuse("notify: this system has no certificates of authorities where they are looked for; name a ca-file".to_owned()),
            )?,
        },
        Some("http") if is_loopback => String::new(),
        _ => {
            return Err(refuse(format!(
                "notify.url = \"{}\": https://HOST/PATH, or http:// to a loopback address: notices name hosts and people",
                raw.url
            )));
        }
    };
    use std::os::unix::fs::MetadataExt as _;
    let mode = std::fs::metadata(&raw.secret_file)
        .map_err(|source| ConfigError::Read { path: raw.secret_file.clone(), source })?
        .mode();
    if mode & 0o077 != 0 {
        return Err(refuse(format!(
            "notify.secret-file = \"{}\": others may read it (mode {:o}); chmod 600",
            raw.secret_file.display(),
            mode & 0o7777
        )));
    }
    let secret = read(&raw.secret_file)?.trim().as_bytes().to_vec();
    if secret.len() < LEAST_SECRET {
        return Err(refuse(format!(
            "notify.secret-file holds {} bytes; a secret has {LEAST_SECRET} or more",
            secret.len()
        )));
    }
    let deputy_after = raw.deputy_after.unwrap_or(Span::from_secs(15 * 60));
    Ok(Notify { url: raw.url, secret, ca, deputy_after })
}

fn calendar(path: &Path) -> Result<Calendar, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    Calendar::parse(&text).map_err(|error| ConfigError::Malformed {
        path: path.to_owned(),
        at: error.at,
        message: error.message,
    })
}

fn bounded(
    key: &str,
    value: Option<Span>,
    default: Span,
    bounds: std::ops::RangeInclusive<Span>,
) -> Result<Span, ConfigError> {
    let value = value.unwrap_or(default);
    if bounds.contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::Senseless(format!(
        "{key} = \"{value}\": it is {} to {}",
        bounds.start(),
        bounds.end()
    )))
}

impl Config {
    /// Joins the command line (`flags`) with a file; the command line wins.
    ///
    /// # Errors
    /// When the file can't be read or says something that can't be done.
    pub fn load(flags: RawConfig, file: Option<&Path>) -> Result<Self, ConfigError> {
        let path = file.unwrap_or_else(|| Path::new(DEFAULT_FILE));
        let written = match std::fs::read_to_string(path) {
            Ok(text) => read_toml(&text).map_err(|(at, message)| ConfigError::Malformed {
                path: path.to_owned(),
                at,
                message,
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && file.is_none() => {
                RawConfig::default()
            }
            Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
        };
        Self::join(flags, written)
    }

    fn join(flags: RawConfig, file: RawConfig) -> Result<Self, ConfigError> {
        let page = flags.page.or(file.page).unwrap_or_else(|| "127.0.0.1:8444".to_owned());
        let page = if page == "off" {
            None
        } else {
            Some(
                page.parse::<SocketAddr>()
                    .ok()
                    .filter(|at| at.ip().is_loopback())
                    .ok_or(ConfigError::Page(page))?,
            )
        };
        let days = |days: i64| Span::from_hours(24 * days);
        let ever = days(36_500);
        let life = bounded(
            "agents.certificate",
            file.agents.certificate,
            days(30),
            Span::from_secs(5)..=days(90),
        )?;
        let events = bounded("store.keep", file.store.keep, days(400), days(7)..=ever)?;
        let cuts = bounded(
            "store.keep-cuts",
            file.store.keep_cuts,
            days(1200).max(events),
            events..=ever,
        )?;
        Ok(Self {
            agent_life: life,
            notify: file.notify.map(notify).transpose()?,
            keeping: Keeping {
                events,
                cuts,
                largest: file.store.largest.unwrap_or(20_000_000_000),
            },
            dir: flags.dir.or(file.dir).unwrap_or_else(|| PathBuf::from(Dir::DEFAULT)),
            listen: flags.listen.or(file.listen).unwrap_or_else(|| {
                SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 8443)
            }),
            calendar: match &file.learn.calendar {
                Some(path) => calendar(path)?,
                None => Calendar::unknown(),
            },
            page,
            page_open: flags.page_open || file.page_open,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_without_tls_is_refused_anywhere_but_on_loopback() {
        for page in ["0.0.0.0:8444", "192.0.2.1:8444", "[::]:8444", "localhost"] {
            let flags =
                RawConfig { page: Some(page.to_owned()), page_open: true, ..RawConfig::default() };
            assert!(
                matches!(Config::join(flags, RawConfig::default()), Err(ConfigError::Page(_))),
                "{page}"
            );
        }
    }

    #[test]
    fn the_command_line_wins_over_the_file_and_the_file_over_the_defaults() {
        let file: RawConfig = read_toml("listen = \"127.0.0.1:1\"\npage = \"off\"\n").unwrap();
        let config = Config::join(
            RawConfig { listen: Some("127.0.0.1:2".parse().unwrap()), ..RawConfig::default() },
            file,
        )
        .unwrap();
        assert_eq!(
            (config.listen.port(), config.page, config.dir),
            (2, None, PathBuf::from(Dir::DEFAULT))
        );
    }

    #[test]
    fn a_calendar_is_read_at_the_start_and_one_that_is_none_is_refused_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("calendar.toml");
        let of = |path: &Path| {
            let learn = RawLearn { calendar: Some(path.to_owned()) };
            Config::join(RawConfig::default(), RawConfig { learn, ..RawConfig::default() })
        };
        std::fs::write(&path, include_str!("../../rules/calendar/japan.toml")).unwrap();
        assert_eq!(of(&path).unwrap().calendar.name, "Japan");
        std::fs::write(&path, "schema = \"sekisho.calendar/1\"\nnane = 1\n").unwrap();
        assert!(matches!(of(&path), Err(ConfigError::Malformed { at, .. }) if at == "2:1"));
        assert!(matches!(of(&dir.path().join("none")), Err(ConfigError::Read { .. })));
        let none = Config::join(RawConfig::default(), RawConfig::default()).unwrap();
        assert_eq!(none.calendar, Calendar::unknown());
    }

    #[test]
    fn an_unknown_key_is_refused_with_line_and_column() {
        assert_eq!(
            read_toml::<RawConfig>("listen = \"127.0.0.1:1\"\nlitsen = 1\n").unwrap_err().0,
            "2:1"
        );
    }
}
