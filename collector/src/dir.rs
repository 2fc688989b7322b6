//! The collector's directory: where its keys, its database and the trust anchors lie.

use sekisho_schema::sealed::{Operators, TrustAnchors, parse_public};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The directory of one collector.
#[derive(Clone, Debug)]
pub struct Dir(PathBuf);

/// Why a file of the directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// It could not be made or written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A trust anchor is not a public key.
    #[error("{path} is not a trust anchor: {why}")]
    Anchor {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl Dir {
    /// Where a collector lives unless told otherwise.
    pub const DEFAULT: &'static str = "/var/lib/sekisho-collector";

    /// The directory at a path; nothing is touched yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The SQLite database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.0.join("collector.db")
    }

    /// The certificate of our own certificate authority.
    #[must_use]
    pub fn ca_certificate(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    /// The secret key of the certificate authority.
    #[must_use]
    pub fn ca_key(&self) -> PathBuf {
        self.0.join("ca.key")
    }

    /// The certificate the server shows.
    #[must_use]
    pub fn server_certificate(&self) -> PathBuf {
        self.0.join("server.pem")
    }

    /// The secret key of the server.
    #[must_use]
    pub fn server_key(&self) -> PathBuf {
        self.0.join("server.key")
    }

    /// Public keys that may seal policies.
    #[must_use]
    pub fn trust(&self) -> PathBuf {
        self.0.join("trust.d")
    }

    /// Public keys of the operators whose orders count, as `NAME.pub` or `NAME.KEY.pub`.
    #[must_use]
    pub fn operators_folder(&self) -> PathBuf {
        self.trust().join("operators")
    }

    /// Operators by name with the texts of their keys, by the order of their file names.
    ///
    /// # Errors
    /// When the folder or a key in it can't be read: they are used whole or not at all.
    pub fn operator_texts(&self) -> Result<Vec<(String, String)>, DirError> {
        let named = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.split('.').next().unwrap_or_default().to_owned()
        };
        public_keys(&self.operators_folder())?
            .into_iter()
            .map(|path| Ok((named(&path), read_anchor(&path)?)))
            .collect()
    }

    /// The operators whose orders count.
    ///
    /// # Errors
    /// When the folder or a key in it can't be read.
    pub fn operators(&self) -> Result<Operators, DirError> {
        let texts = self.operator_texts()?;
        Ok(Operators::new(
            texts.into_iter().filter_map(|(name, text)| Some((name, parse_public(&text).ok()?))),
        ))
    }

    /// Makes the directory and `trust.d` in it, for the owner alone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn create(&self) -> Result<(), DirError> {
        for path in [self.0.clone(), self.trust()] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|source| DirError::Write { path, source })?;
        }
        Ok(())
    }

    /// Texts of the trust anchors, by the order of their file names.
    ///
    /// # Errors
    /// When the folder or a key in it can't be read: a set of anchors is used whole or not at all.
    pub fn anchor_texts(&self) -> Result<Vec<String>, DirError> {
        public_keys(&self.trust())?.into_iter().map(|path| read_anchor(&path)).collect()
    }

    /// The trust anchors, and how many of them must have sealed a policy.
    ///
    /// # Errors
    /// When the folder or a key in it can't be read.
    pub fn anchors(&self, threshold: usize) -> Result<TrustAnchors, DirError> {
        let keys = self
            .anchor_texts()?
            .iter()
            .filter_map(|text| parse_public(text).ok())
            .collect::<Vec<_>>();
        Ok(TrustAnchors::new(keys, threshold))
    }
}

/// Files of public keys in a folder, by their names; none when it is not there.
fn public_keys(folder: &Path) -> Result<Vec<PathBuf>, DirError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(DirError::Read { path: folder.to_owned(), source }),
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "pub"))
        .collect();
    files.sort();
    Ok(files)
}

/// Reads one public key file.
///
/// # Errors
/// When it can't be read or is not a key.
pub fn read_anchor(path: &Path) -> Result<String, DirError> {
    let text = read(path)?;
    let text = text.trim();
    parse_public(text)
        .map_err(|error| DirError::Anchor { path: path.to_owned(), why: error.to_string() })?;
    Ok(text.to_owned())
}

/// Reads a text file.
///
/// # Errors
/// When the system refuses.
pub fn read(path: &Path) -> Result<String, DirError> {
    fs::read_to_string(path).map_err(|source| DirError::Read { path: path.to_owned(), source })
}

/// Writes a new file that only its owner may read, and syncs it; an existing one is never overwritten.
///
/// # Errors
/// When the system refuses or the file is there already.
pub fn write_secret(path: &Path, text: &str) -> Result<(), DirError> {
    write_new(path, text, 0o600).map_err(|source| DirError::Write { path: path.to_owned(), source })
}

/// Writes a new file that everybody may read, and syncs it; an existing one is never overwritten.
///
/// # Errors
/// When the system refuses or the file is there already.
pub fn write_public(path: &Path, text: &str) -> Result<(), DirError> {
    write_new(path, text, 0o644).map_err(|source| DirError::Write { path: path.to_owned(), source })
}

/// Puts a new text in the place of a file in one step, for its owner alone.
///
/// # Errors
/// When the system refuses; the old text stays.
pub fn replace_secret(path: &Path, text: &str) -> Result<(), DirError> {
    let fail = |source| DirError::Write { path: path.to_owned(), source };
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    write_new(&beside, text, 0o600).and_then(|()| fs::rename(&beside, path)).map_err(fail)
}

fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
