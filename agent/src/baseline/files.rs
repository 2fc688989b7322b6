//! The files of learning, beside the agent's other state.

use crate::state::{StoreError, write_atomically};
use sekisho_schema::baseline::{Learned, RoleBaseline};
use sekisho_schema::calendar::Calendar;
use sekisho_schema::certificate::Certificate;
use sekisho_schema::sealed::{Local, SealError, SigningKey};
use sekisho_schema::{Sealed, Timestamp, TrustAnchors, Verified};
use std::fs;
use std::path::{Path, PathBuf};

/// Name of what this host learned, in the state directory.
pub const LEARNED_FILE: &str = "learned.json";
/// Name of the baseline in force, in the state directory.
pub const BASELINE_FILE: &str = "baseline.sealed";
/// Name of the certificate in force, in the state directory.
pub const CERTIFICATE_FILE: &str = "certificate.sealed";
/// Why a document in plain text is refused where a sealed one is asked for.
pub const NOT_SEALED: &str = "it is not sealed";
/// Bytes of the largest such file that is read.
const LARGEST: u64 = 512 << 20;

/// Why a file of learning is not used.
#[derive(Debug, thiserror::Error)]
pub enum BaselineFileError {
    /// It can't be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("cannot use {path}: {why}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Its seal does not hold.
    #[error("{path} (version {version}) refused")]
    Refused {
        /// The file.
        path: PathBuf,
        /// The version that it says it has.
        version: u64,
        /// What does not hold.
        source: SealError,
    },
    /// It can't be written.
    #[error("cannot keep it")]
    Keep(#[from] StoreError),
}

pub(super) fn read(path: &Path) -> Result<String, BaselineFileError> {
    let refuse = |source| BaselineFileError::Read { path: path.to_owned(), source };
    let size = fs::metadata(path).map_err(refuse)?.len();
    if size > LARGEST {
        return Err(malformed(path, format!("{size} bytes are too many")));
    }
    fs::read_to_string(path).map_err(refuse)
}

pub(super) fn malformed(path: &Path, why: String) -> BaselineFileError {
    BaselineFileError::Malformed { path: path.to_owned(), why }
}

/// Reads records of hosts; of a directory every `*.json` in it, by name.
///
/// # Errors
/// The first file that can't be used.
pub fn read_learned(paths: &[PathBuf]) -> Result<Vec<Learned>, BaselineFileError> {
    let mut records = Vec::new();
    for path in paths {
        for file in files_of(path)? {
            let record = serde_json::from_str(&read(&file)?)
                .map_err(|error| malformed(&file, error.to_string()))?;
            records.push(record);
        }
    }
    Ok(records)
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, BaselineFileError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let refuse = |source| BaselineFileError::Read { path: path.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(refuse)? {
        let file = entry.map_err(refuse)?.path();
        if file.extension().is_some_and(|extension| extension == "json") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// Writes what this host learned into its state directory.
///
/// # Errors
/// [`BaselineFileError`]: what was there before is then in place.
pub fn write_learned(state: &Path, learned: &Learned) -> Result<(), BaselineFileError> {
    let path = state.join(LEARNED_FILE);
    let text = serde_json::to_vec(learned).map_err(|error| malformed(&path, error.to_string()))?;
    Ok(write_atomically(&path, &text, 0o600)?)
}

/// Reads a baseline: as a person writes it, or sealed by an anchor.
///
/// # Errors
/// [`BaselineFileError`]; a sealed one whose seal does not hold is refused.
pub fn read_baseline(
    path: &Path,
    anchors: &TrustAnchors,
) -> Result<Verified<RoleBaseline>, BaselineFileError> {
    let text = read(path)?;
    let Some(sealed) = sealed(path, &text)? else {
        return RoleBaseline::parse(&text)
            .map(|baseline| Verified::locally(baseline, Local::Installed))
            .map_err(|error| malformed(path, error.to_string()));
    };
    sealed.open_baseline(anchors, 0).map_err(|source| refused(path, &sealed, source))
}

/// Reads a certificate: as it was written, or sealed by an anchor.
///
/// # Errors
/// [`BaselineFileError`]; a sealed one whose seal does not hold is refused.
pub fn read_certificate(
    path: &Path,
    anchors: &TrustAnchors,
    now: Timestamp,
) -> Result<Verified<Certificate>, BaselineFileError> {
    let text = read(path)?;
    let Some(sealed) = sealed(path, &text)? else {
        return Certificate::parse(&text)
            .map(|certificate| Verified::locally(certificate, Local::Installed))
            .map_err(|error| malformed(path, error.to_string()));
    };
    sealed.open_certificate(anchors, now, 0).map_err(|source| refused(path, &sealed, source))
}

/// Opens the baseline in force below a state directory: sealed by an anchor, and no older than `in_force`.
///
/// # Errors
/// [`BaselineFileError`]; what is not sealed is refused.
pub fn open_baseline(
    state: &Path,
    anchors: &TrustAnchors,
    in_force: u64,
) -> Result<Verified<RoleBaseline>, BaselineFileError> {
    let path = state.join(BASELINE_FILE);
    let sealed = sealed_only(&path)?;
    sealed.open_baseline(anchors, in_force).map_err(|source| refused(&path, &sealed, source))
}

/// Opens the certificate in force below a state directory, and until when it is fresh: sealed by an
/// anchor, not expired, and no older than `in_force`.
///
/// # Errors
/// [`BaselineFileError`]; what is not sealed is refused.
pub fn open_certificate(
    state: &Path,
    anchors: &TrustAnchors,
    now: Timestamp,
    in_force: u64,
) -> Result<(Verified<Certificate>, Timestamp), BaselineFileError> {
    let path = state.join(CERTIFICATE_FILE);
    let sealed = sealed_only(&path)?;
    let opened = sealed.open_certificate(anchors, now, in_force);
    opened
        .map(|certificate| (certificate, sealed.expires))
        .map_err(|source| refused(&path, &sealed, source))
}

fn sealed_only(path: &Path) -> Result<Sealed, BaselineFileError> {
    sealed(path, &read(path)?)?.ok_or_else(|| malformed(path, NOT_SEALED.to_owned()))
}

/// The envelope in a file; `None` when the document stands there as it is.
pub(super) fn sealed(path: &Path, text: &str) -> Result<Option<Sealed>, BaselineFileError> {
    if !text.trim_start().starts_with('{') {
        return Ok(None);
    }
    Sealed::parse(text).map(Some).map_err(|error| malformed(path, error.to_string()))
}

pub(super) fn refused(path: &Path, sealed: &Sealed, source: SealError) -> BaselineFileError {
    BaselineFileError::Refused { path: path.to_owned(), version: sealed.version, source }
}

/// Reads a holiday calendar.
///
/// # Errors
/// [`BaselineFileError`].
pub fn read_calendar(path: &Path) -> Result<Calendar, BaselineFileError> {
    Calendar::parse(&read(path)?).map_err(|error| malformed(path, error.to_string()))
}

/// Seals a document and writes it twice: sealed under its name, and as a person reads it beside, as `*.toml`.
///
/// # Errors
/// [`BaselineFileError::Keep`]; what was there before is then in place, of the sealed one at least.
pub fn write_sealed(
    path: &Path,
    (kind, version): (&str, u64),
    text: &str,
    key: &SigningKey,
    until: Timestamp,
) -> Result<PathBuf, BaselineFileError> {
    let readable = path.with_extension("toml");
    if readable == path {
        return Err(malformed(path, "the sealed one must not end in .toml".to_owned()));
    }
    let mut envelope = Sealed::wrap(kind, version, until, text.as_bytes()).signed_by(key).to_text();
    envelope.push('\n');
    write_atomically(path, envelope.as_bytes(), 0o644)?;
    write_atomically(&readable, text.as_bytes(), 0o644)?;
    Ok(readable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sekisho_schema::Span;
    use sekisho_schema::baseline::BASELINE_KIND;

    const NOW: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn anchors() -> TrustAnchors {
        TrustAnchors::new([key(1).verifying_key()], 1)
    }

    fn seal(dir: &Path, version: u64, seed: u8) -> PathBuf {
        let baseline = RoleBaseline { version, ..RoleBaseline::empty("web", NOW) };
        let path = dir.join(format!("{version}-{seed}.sealed"));
        let until = NOW.after(Span::from_hours(1));
        let text = baseline.to_text().unwrap();
        write_sealed(&path, (BASELINE_KIND, version), &text, &key(seed), until).unwrap();
        path
    }

    #[test]
    fn the_readable_twin_says_what_the_sealed_one_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = seal(dir.path(), 4, 1);
        let twin = read_baseline(&path.with_extension("toml"), &anchors()).unwrap();
        assert!(!twin.is_sealed());
        assert_eq!(*twin, *read_baseline(&path, &anchors()).unwrap());
    }

    #[test]
    fn a_directory_of_records_is_read_by_name_and_a_bad_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("notes.txt"), "not a record").unwrap();
        assert_eq!(read_learned(&[dir.path().to_owned()]).unwrap(), []);
        fs::write(dir.path().join("bad.json"), "{}").unwrap();
        let said = read_learned(&[dir.path().to_owned()]).unwrap_err().to_string();
        assert!(said.contains("bad.json"), "{said}");
    }
}
