//! Objects that clang made, and the maps in them.

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use aya::{Ebpf, Pod};

/// The program that refuses raw sockets.
pub(super) static DENY: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/deny.bpf.o"));

/// The programs that remember who opened what.
pub(super) static OWNER: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/owner.bpf.o"));

/// A map that an object does not have as it should.
#[derive(Debug, thiserror::Error)]
pub enum FindObjectError {
    /// No such name.
    #[error("the object has nothing of the name \"{0}\"")]
    Absent(&'static str),
    /// Another kind, or other sizes.
    #[error("the map \"{name}\" is another than expected")]
    Other {
        /// Its name.
        name: &'static str,
        /// What aya said.
        source: MapError,
    },
}

/// A map of an object.
pub(super) fn map<'a>(object: &'a Ebpf, name: &'static str) -> Result<&'a Map, FindObjectError> {
    object.map(name).ok_or(FindObjectError::Absent(name))
}

/// A hash map of an object, to read.
pub(super) fn hash<'a, K: Pod, V: Pod>(
    object: &'a Ebpf,
    name: &'static str,
) -> Result<HashMap<&'a MapData, K, V>, FindObjectError> {
    let map = map(object, name)?;
    HashMap::try_from(map).map_err(|source| FindObjectError::Other { name, source })
}

/// A hash map of an object, to write.
pub(super) fn hash_mut<'a, K: Pod, V: Pod>(
    object: &'a mut Ebpf,
    name: &'static str,
) -> Result<HashMap<&'a mut MapData, K, V>, FindObjectError> {
    let map = object.map_mut(name).ok_or(FindObjectError::Absent(name))?;
    HashMap::try_from(map).map_err(|source| FindObjectError::Other { name, source })
}

/// An array of an object, to read and write.
pub(super) fn array<'a, V: Pod>(
    object: &'a mut Ebpf,
    name: &'static str,
) -> Result<Array<&'a mut MapData, V>, FindObjectError> {
    let map = object.map_mut(name).ok_or(FindObjectError::Absent(name))?;
    Array::try_from(map).map_err(|source| FindObjectError::Other { name, source })
}
