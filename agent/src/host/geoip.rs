//! Country and autonomous system of an address, from databases that the operator names (MMDB).

use maxminddb::{Reader, path};
use sekisho_schema::finding::Place;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Largest file that is read into memory; the largest public city databases are about 130 MB.
const MAX_BYTES: u64 = 1 << 30;

/// Why a database could not be used; the one before, if any, stays in use.
#[derive(Debug, thiserror::Error)]
pub enum OpenPlacesError {
    /// The file is not an MMDB.
    #[error("{path} is not a usable MMDB file")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: maxminddb::MaxMindDbError,
    },
    /// The file can't be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is larger than is sensible.
    #[error("{path} has {bytes} bytes, more than {MAX_BYTES}; it was not read")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
}

/// One database and the file it came from.
struct Database {
    path: PathBuf,
    stamp: Stamp,
    reader: Reader<Vec<u8>>,
}

type Stamp = (u64, Option<SystemTime>);

/// Databases of places; the first that knows a fact tells it.
#[derive(Default)]
pub struct Places {
    databases: Vec<Database>,
}

impl Places {
    /// Reads the databases wholly into memory, so that a file that changes under us changes nothing.
    ///
    /// # Errors
    /// [`OpenPlacesError`] on the first that can't be used.
    pub fn open(paths: &[PathBuf]) -> Result<Self, OpenPlacesError> {
        Ok(Self { databases: paths.iter().map(|path| read(path)).collect::<Result<_, _>>()? })
    }

    /// Reads again what has changed on disk; returns how many were.
    ///
    /// # Errors
    /// [`OpenPlacesError`] on the first that can't be used; what was read before stays in use.
    pub fn reload(&mut self) -> Result<usize, OpenPlacesError> {
        let mut changed = 0;
        for database in &mut self.databases {
            if stamp(&database.path)? != database.stamp {
                *database = read(&database.path.clone())?;
                changed += 1;
            }
        }
        Ok(changed)
    }

    /// What the databases say on an address; `None` when they say nothing.
    #[must_use]
    pub fn place(&self, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut place = Place::default();
        for database in &self.databases {
            let Ok(found) = database.reader.lookup(address) else { continue };
            let text = |path: &[maxminddb::PathElement<'_>]| {
                found.decode_path::<String>(path).ok().flatten()
            };
            place.country = place.country.or_else(|| text(&path!["country", "iso_code"]));
            place.asn = place.asn.or_else(|| {
                found.decode_path::<u32>(&path!["autonomous_system_number"]).ok().flatten()
            });
            place.organization =
                place.organization.or_else(|| text(&path!["autonomous_system_organization"]));
        }
        (place != Place::default()).then_some(place)
    }
}

fn stamp(path: &Path) -> Result<Stamp, OpenPlacesError> {
    let metadata = fs::metadata(path)
        .map_err(|source| OpenPlacesError::Read { path: path.to_owned(), source })?;
    Ok((metadata.len(), metadata.modified().ok()))
}

fn read(path: &Path) -> Result<Database, OpenPlacesError> {
    let stamp = stamp(path)?;
    if stamp.0 > MAX_BYTES {
        return Err(OpenPlacesError::TooLarge { path: path.to_owned(), bytes: stamp.0 });
    }
    let bytes =
        fs::read(path).map_err(|source| OpenPlacesError::Read { path: path.to_owned(), source })?;
    let reader = Reader::from_source(bytes)
        .map_err(|source| OpenPlacesError::Malformed { path: path.to_owned(), source })?;
    Ok(Database { path: path.to_owned(), stamp, reader })
}

#[cfg(test)]
mod tests;
