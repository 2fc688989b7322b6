//! Who this agent is to the collector: the files of the enrolment.

use super::tls::{TlsError, client_config};
use crate::state::{StoreError, write_atomically};
use rustls::ClientConfig;
use std::fs;
use std::path::{Path, PathBuf};

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file can't be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Keys or certificates are not what they should be.
    #[error("cannot use the identity in {dir}")]
    Tls {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        source: TlsError,
    },
}

/// An enrolled agent's name, keys and collector.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The agent's id at the collector.
    pub id: String,
    /// The collector's address.
    pub url: String,
    /// Our key, PEM.
    pub key: String,
    /// Our certificate, PEM.
    pub certificate: String,
    /// The collector's CA, PEM.
    pub ca: String,
}

impl Identity {
    /// Whether a directory holds an identity.
    #[must_use]
    pub fn exists(dir: &Path) -> bool {
        dir.join("cert.pem").exists()
    }

    /// Reads an identity.
    ///
    /// # Errors
    /// [`IdentityError::Read`].
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(|source| IdentityError::Read { path, source })
        };
        Ok(Self {
            id: read("id")?.trim().to_owned(),
            url: read("url")?.trim().to_owned(),
            key: read("key.pem")?,
            certificate: read("cert.pem")?,
            ca: read("ca.pem")?,
        })
    }

    /// Keeps an identity; its certificate comes last, so that a crash leaves none rather than half of one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn store(&self, dir: &Path) -> Result<(), StoreError> {
        write_atomically(&dir.join("key.pem"), self.key.as_bytes(), 0o600)?;
        write_atomically(&dir.join("ca.pem"), self.ca.as_bytes(), 0o644)?;
        write_atomically(&dir.join("id"), format!("{}\n", self.id).as_bytes(), 0o644)?;
        write_atomically(&dir.join("url"), format!("{}\n", self.url).as_bytes(), 0o644)?;
        write_atomically(&dir.join("cert.pem"), self.certificate.as_bytes(), 0o644)
    }

    /// TLS with this identity.
    ///
    /// # Errors
    /// [`IdentityError::Tls`].
    pub fn tls(&self, dir: &Path) -> Result<ClientConfig, IdentityError> {
        client_config(&self.ca, &self.certificate, &self.key)
            .map_err(|source| IdentityError::Tls { dir: dir.to_owned(), source })
    }
}
