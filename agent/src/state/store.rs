//! Write, rename, fsync: a crash leaves the old document or the new one, never half of one.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why a document can't be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}")]
pub struct StoreError {
    path: PathBuf,
    source: std::io::Error,
}

/// Makes a directory that nobody else may look into, and what leads to it; one that is there keeps its mode.
///
/// # Errors
/// What the system says.
pub fn private_dir(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file so that a crash leaves the old content or the new one.
///
/// # Errors
/// [`StoreError`] with the path; the old content is then in place.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let refuse = |source| StoreError { path: path.to_owned(), source };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = dir.join(name);
    let written = write_new(&temporary, bytes, mode)
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| File::open(dir)?.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(refuse)
}

/// Removes a file for good; one that is not there is fine.
///
/// # Errors
/// [`StoreError`].
pub fn remove(path: &Path) -> Result<(), StoreError> {
    let refuse = |source| StoreError { path: path.to_owned(), source };
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        removed => removed.map_err(refuse)?,
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(refuse)
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
