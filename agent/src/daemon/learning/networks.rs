//! Whose network an address is of, by the database that the operator names.

use maxminddb::{Reader, path};
use sekisho_engine::learn::AsnOf;
use std::net::IpAddr;
use std::path::Path;

/// Bytes of the largest database that is read; the largest public ones of networks are about 15 MB.
const LARGEST: u64 = 256 << 20;

/// A database of autonomous systems.
pub(super) struct Networks(Reader<Vec<u8>>);

impl Networks {
    /// Opens the database of the configuration; `None` when it knows no autonomous systems or can't be read,
    /// which the reader of places has said already.
    pub(super) fn open(path: &Path) -> Option<Self> {
        let size = std::fs::metadata(path).ok()?.len();
        if size > LARGEST {
            return None;
        }
        let reader = Reader::from_source(std::fs::read(path).ok()?).ok()?;
        let kind = reader.metadata().database_type.to_ascii_uppercase();
        (kind.contains("ASN") || kind.contains("ISP")).then_some(Self(reader))
    }
}

impl AsnOf for Networks {
    fn asn(&self, address: IpAddr) -> Option<u32> {
        let found = self.0.lookup(address.to_canonical()).ok()?;
        found.decode_path::<u32>(&path!["autonomous_system_number"]).ok().flatten()
    }
}
