//! What learning goes on from after a restart: the record so far and the episodes, in one file, so that a
//! crash leaves both of one moment.

use super::files::BaselineFileError;
use crate::state::write_atomically;
use sekisho_engine::certify::AuthorityState;
use sekisho_schema::baseline::{Learned, Pool};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// Name of what learning goes on from, in the state directory.
pub const LEARNING_FILE: &str = "learning.state";
/// Name of what the governor and the drift guard go on from, in the state directory.
pub const AUTHORITY_FILE: &str = "authority.json";
/// What the first begins with; another layout has another number.
const MAGIC: &[u8] = b"sekisho.learning/1\n";
/// Bytes of the number that tells how long the record is.
const NUMBER: usize = 8;
/// Bytes of the digest at the end.
const DIGEST: usize = 32;
/// Bytes of the largest such file that is read.
const LARGEST: u64 = 768 << 20;

/// What learning goes on from.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// The record, of episodes that are over only.
    pub record: Learned,
    /// Those that go on, as the engine saved them.
    pub episodes: Vec<u8>,
}

/// Writes it into the state directory.
///
/// # Errors
/// [`BaselineFileError`]: what was there before is then in place.
pub fn write_kept(state: &Path, kept: &Kept) -> Result<(), BaselineFileError> {
    let path = state.join(LEARNING_FILE);
    let record =
        serde_json::to_vec(&kept.record).map_err(|error| malformed(&path, error.to_string()))?;
    let mut bytes =
        Vec::with_capacity(MAGIC.len() + NUMBER + record.len() + kept.episodes.len() + DIGEST);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(record.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&record);
    bytes.extend_from_slice(&kept.episodes);
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    Ok(write_atomically(&path, &bytes, 0o600)?)
}

/// Reads it; `None` when there is none yet.
///
/// # Errors
/// [`BaselineFileError`] when it can't be read or is damaged.
pub fn read_kept(state: &Path) -> Result<Option<Kept>, BaselineFileError> {
    let path = state.join(LEARNING_FILE);
    let Some(bytes) = bytes_of(&path)? else { return Ok(None) };
    let refuse = |why: &str| malformed(&path, why.to_owned());
    let body = bytes
        .strip_prefix(MAGIC)
        .ok_or_else(|| refuse("it does not begin with \"sekisho.learning/1\""))?;
    let damaged = || refuse("it is damaged: its digest does not match");
    let (whole, digest) =
        bytes.split_at_checked(bytes.len().saturating_sub(DIGEST)).ok_or_else(damaged)?;
    if Sha256::digest(whole).as_slice() != digest {
        return Err(damaged());
    }
    let body = body.get(..body.len().saturating_sub(DIGEST)).ok_or_else(damaged)?;
    let (length, rest) = body.split_first_chunk::<NUMBER>().ok_or_else(damaged)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| damaged())?;
    let (record, episodes) = rest.split_at_checked(length).ok_or_else(damaged)?;
    let record: Learned =
        serde_json::from_slice(record).map_err(|error| refuse(&error.to_string()))?;
    Pool::of(&record.role, std::slice::from_ref(&record))
        .map_err(|error| refuse(&error.to_string()))?;
    Ok(Some(Kept { record, episodes: episodes.to_vec() }))
}

/// Writes what the governor and the drift guard go on from.
///
/// # Errors
/// [`BaselineFileError`]: what was there before is then in place.
pub fn write_authority(state: &Path, kept: &AuthorityState) -> Result<(), BaselineFileError> {
    let path = state.join(AUTHORITY_FILE);
    let text = serde_json::to_vec(kept).map_err(|error| malformed(&path, error.to_string()))?;
    Ok(write_atomically(&path, &text, 0o600)?)
}

/// Reads what the governor and the drift guard go on from; `None` when there is nothing yet.
///
/// # Errors
/// [`BaselineFileError`] when it can't be read or is damaged.
pub fn read_authority(state: &Path) -> Result<Option<AuthorityState>, BaselineFileError> {
    let path = state.join(AUTHORITY_FILE);
    let Some(bytes) = bytes_of(&path)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| malformed(&path, error.to_string()))
}

/// Puts a file that can't be used beside, so that a person can look at it and nothing overwrites it.
///
/// # Errors
/// What the system says; the file is then where it was.
pub fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".damaged");
    let aside = path.with_file_name(name);
    fs::rename(path, &aside)?;
    Ok(aside)
}

fn bytes_of(path: &Path) -> Result<Option<Vec<u8>>, BaselineFileError> {
    let refuse = |source| BaselineFileError::Read { path: path.to_owned(), source };
    let size = match fs::metadata(path) {
        Ok(data) => data.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refuse(error)),
    };
    if size > LARGEST {
        return Err(malformed(path, format!("{size} bytes are too many")));
    }
    fs::read(path).map(Some).map_err(refuse)
}

fn malformed(path: &Path, why: String) -> BaselineFileError {
    BaselineFileError::Malformed { path: path.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sekisho_engine::certify::Authority;
    use sekisho_schema::Timestamp;
    use sekisho_schema::baseline::LEARNED_SCHEMA;

    fn kept() -> Kept {
        let at = Timestamp::from_nanos(1_780_000_000_000_000_000);
        let record = Learned {
            schema: LEARNED_SCHEMA.into(),
            host: "a".into(),
            role: "web".into(),
            agent: "0.1.0".into(),
            from: at,
            until: at,
            hours: 1,
            hours_of_week: vec![0; 168],
            workloads: Vec::new(),
            episodes: Vec::new(),
        };
        Kept { record, episodes: vec![7; 1000] }
    }

    #[test]
    fn what_is_kept_comes_back_the_same_and_nothing_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_kept(dir.path()).unwrap(), None);
        write_kept(dir.path(), &kept()).unwrap();
        assert_eq!(read_kept(dir.path()).unwrap(), Some(kept()));
        assert!(read_authority(dir.path()).unwrap().is_none());
        let authority = Authority::default();
        write_authority(dir.path(), authority.state()).unwrap();
        assert_eq!(read_authority(dir.path()).unwrap().as_ref(), Some(authority.state()));
    }

    #[test]
    fn a_byte_changed_or_missing_anywhere_is_noticed_and_the_file_can_be_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        write_kept(dir.path(), &kept()).unwrap();
        let path = dir.path().join(LEARNING_FILE);
        let whole = fs::read(&path).unwrap();
        for at in [0, 20, 40, whole.len() / 2, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            assert!(read_kept(dir.path()).is_err(), "byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(read_kept(dir.path()).is_err(), "{at} bytes");
        }
        let aside = set_aside(&path).unwrap();
        assert!(aside.ends_with("learning.state.damaged") && !path.exists());
        assert_eq!(read_kept(dir.path()).unwrap(), None);
    }

    #[test]
    fn a_record_that_makes_no_sense_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut senseless = kept();
        senseless.record.hours = 1000;
        write_kept(dir.path(), &senseless).unwrap();
        let said = read_kept(dir.path()).unwrap_err().to_string();
        assert!(said.contains("1000 hours were watched"), "{said}");
    }
}
