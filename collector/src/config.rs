//! `collector.toml`: as written, and as used. What the command line says wins.

use crate::dir::Dir;
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
        Ok(Self {
            dir: flags.dir.or(file.dir).unwrap_or_else(|| PathBuf::from(Dir::DEFAULT)),
            listen: flags.listen.or(file.listen).unwrap_or_else(|| {
                SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 8443)
            }),
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
    fn an_unknown_key_is_refused_with_line_and_column() {
        assert_eq!(
            read_toml::<RawConfig>("listen = \"127.0.0.1:1\"\nlitsen = 1\n").unwrap_err().0,
            "2:1"
        );
    }
}
