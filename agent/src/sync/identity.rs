//! Who this agent is to the collector: the files of the enrolment.

use super::tls::{TlsError, client_config};
use crate::state::{StoreError, remove, write_atomically};
use rustls::ClientConfig;
use std::fs;
use std::path::{Path, PathBuf};

/// Holds a renewed key and certificate while they are put in their places.
const RENEWED: &str = "renewed.pem";
/// How a certificate begins in PEM.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

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
        let (key, certificate) = match read(RENEWED) {
            // A renewal was interrupted after it was made fast: it counts.
            Ok(pair) => match pair.find(CERTIFICATE) {
                Some(place) => {
                    let (key, certificate) = pair.split_at(place);
                    (key.to_owned(), certificate.to_owned())
                }
                None => (read("key.pem")?, read("cert.pem")?),
            },
            Err(_) => (read("key.pem")?, read("cert.pem")?),
        };
        Ok(Self {
            id: read("id")?.trim().to_owned(),
            url: read("url")?.trim().to_owned(),
            key,
            certificate,
            ca: read("ca.pem")?,
        })
    }

    /// Puts a renewed key and certificate in the place of the present ones, both or neither: a crash at any point
    /// leaves one pair that fits.
    ///
    /// # Errors
    /// [`StoreError`]; the present pair, or the new one, is used at the next start.
    pub fn replace(&self, dir: &Path) -> Result<(), StoreError> {
        // One file holds the pair until both files of the usual place hold it: what counts is the rename of this one.
        let pair = format!("{}\n{}", self.key.trim_end(), self.certificate);
        let renewed = dir.join(RENEWED);
        write_atomically(&renewed, pair.as_bytes(), 0o600)?;
        write_atomically(&dir.join("key.pem"), self.key.as_bytes(), 0o600)?;
        write_atomically(&dir.join("cert.pem"), self.certificate.as_bytes(), 0o644)?;
        remove(&renewed)
    }

    /// Keeps an identity; its certificate comes last, so that a crash leaves none rather than half of one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn store(&self, dir: &Path) -> Result<(), StoreError> {
        // What a renewal of an earlier enrolment left would count before this one.
        remove(&dir.join(RENEWED))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(generation: u8) -> Identity {
        Identity {
            id: "agent-7".into(),
            url: "https://127.0.0.1:1".into(),
            key: format!("-----BEGIN PRIVATE KEY-----\n{generation}\n-----END PRIVATE KEY-----\n"),
            certificate: format!("{CERTIFICATE}\n{generation}\n-----END CERTIFICATE-----\n"),
            ca: "ca".into(),
        }
    }

    #[test]
    fn a_renewal_that_is_interrupted_anywhere_leaves_a_pair_that_fits() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        identity(1).store(dir.path()).unwrap();
        identity(2).replace(dir.path()).unwrap();
        assert!(!path(RENEWED).exists());
        let pair =
            |identity: &Identity| format!("{}\n{}", identity.key.trim_end(), identity.certificate);
        // Before the pair is fast the old one counts; after it the new one, whatever the two files hold.
        for (key, certificate, renewed, expected) in
            [(2, 2, None, 2), (2, 2, Some(3), 3), (3, 2, Some(3), 3), (3, 3, Some(3), 3)]
        {
            fs::write(path("key.pem"), identity(key).key).unwrap();
            fs::write(path("cert.pem"), identity(certificate).certificate).unwrap();
            match renewed {
                Some(generation) => fs::write(path(RENEWED), pair(&identity(generation))).unwrap(),
                None => assert!(!path(RENEWED).exists()),
            }
            let loaded = Identity::load(dir.path()).unwrap();
            let expected = identity(expected);
            assert_eq!(
                (loaded.key.trim_end(), loaded.certificate.as_str()),
                (expected.key.trim_end(), expected.certificate.as_str())
            );
        }
        // A new enrolment is not overtaken by what an old renewal left.
        identity(9).store(dir.path()).unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap().certificate, identity(9).certificate);
    }
}
