//! The head of a compiled set of indicators: what follows it, and who vouches for it.
//!
//! A file is eight bytes that no text has, the version of its form, the length of its head, the head
//! (a sealed envelope around a [`Manifest`]) and the sections that the manifest lists, one behind
//! the other. The seal covers the hash of every section, and thereby the whole file.

use super::observable::Kind;
use crate::sealed::{SealError, Sealed, TrustAnchors};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name and version of the manifest's schema.
pub const MANIFEST_SCHEMA: &str = "sekisho.indicators/1";
/// The kind of document that the envelope names.
const SEALED_KIND: &str = "indicators";
/// No text begins so, and a transfer as text would spoil it.
const MAGIC: [u8; 8] = *b"\x89SKI\r\n\x1a\n";
const VERSION: u32 = 1;
/// Bytes before the envelope.
const FIXED: usize = 16;
/// Bytes of the longest envelope.
const LONGEST_HEAD: usize = 4 << 20;
/// Sections of the largest form of a set.
const MOST_SECTIONS: usize = 64;

/// A part of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// Its length in bytes.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
}

/// What a compiled set holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`MANIFEST_SCHEMA`].
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Rises with each build.
    pub version: u64,
    /// When it was built.
    pub built_at: Timestamp,
    /// Different indicators by kind.
    pub indicators: BTreeMap<Kind, u64>,
    /// Indicators by source.
    pub sources: BTreeMap<String, u64>,
    /// What follows the head.
    pub sections: Vec<Section>,
}

/// Why the head of a file is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadHeaderError {
    /// Another form of file.
    #[error("it is compiled in form {0}, expected form {VERSION}")]
    Form(u32),
    /// Not what a compiler writes.
    #[error("its head can't be read: {0}")]
    Malformed(String),
    /// The seal does not hold.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// The head of a compiled set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub manifest: Manifest,
    /// Bytes of the file before the first section.
    pub len: u64,
    sealed: Sealed,
}

impl Header {
    /// Bytes that tell how long the head is.
    pub const FIXED: usize = FIXED;

    /// Whether a file that begins so is a compiled set.
    #[must_use]
    pub fn is_compiled(head: &[u8]) -> bool {
        head.starts_with(&MAGIC)
    }

    /// The length of the whole head, by its first [`Self::FIXED`] bytes.
    ///
    /// # Errors
    /// When this is no compiled set, or one of another form.
    pub fn len_of(fixed: &[u8]) -> Result<usize, ReadHeaderError> {
        let malformed = || ReadHeaderError::Malformed("it is cut short".to_owned());
        let rest = fixed.strip_prefix(&MAGIC).ok_or_else(malformed)?;
        let (form, rest) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
        let (len, _) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
        let form = u32::from_le_bytes(*form);
        if form != VERSION {
            return Err(ReadHeaderError::Form(form));
        }
        let len = u32::from_le_bytes(*len) as usize;
        if len > LONGEST_HEAD {
            return Err(ReadHeaderError::Malformed(format!("it claims {len} bytes")));
        }
        Ok(FIXED + len)
    }

    /// Reads a head, of exactly the length that [`Self::len_of`] told.
    ///
    /// # Errors
    /// What is wrong with it; the seal is not yet checked.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReadHeaderError> {
        let malformed = |why: String| ReadHeaderError::Malformed(why);
        let len = Self::len_of(bytes)?;
        let text = bytes.get(FIXED..len).filter(|_| bytes.len() == len);
        let text = text.ok_or_else(|| malformed("it is cut short".to_owned()))?;
        let text = std::str::from_utf8(text).map_err(|error| malformed(error.to_string()))?;
        let sealed = Sealed::parse(text)?;
        if sealed.kind != SEALED_KIND {
            let expected = SEALED_KIND.to_owned();
            return Err(SealError::Kind { found: sealed.kind, expected }.into());
        }
        let manifest: Manifest = serde_json::from_slice(&sealed.payload_bytes()?)
            .map_err(|error| malformed(error.to_string()))?;
        if manifest.schema != MANIFEST_SCHEMA {
            return Err(malformed(format!("schema is \"{}\"", manifest.schema)));
        }
        if manifest.version != sealed.version {
            return Err(malformed("its envelope says another version".to_owned()));
        }
        if manifest.sections.len() > MOST_SECTIONS {
            return Err(malformed(format!("it lists {} sections", manifest.sections.len())));
        }
        Ok(Self { manifest, len: len as u64, sealed })
    }

    /// The envelope for a manifest, to be signed or not.
    #[must_use]
    pub fn seal(manifest: &Manifest, expires: Timestamp) -> Sealed {
        let payload = serde_json::to_vec(manifest).unwrap_or_default();
        Sealed::wrap(SEALED_KIND, manifest.version, expires, &payload)
    }

    /// The bytes of a head.
    #[must_use]
    pub fn write(sealed: &Sealed) -> Vec<u8> {
        let text = sealed.to_text();
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    /// Whether anybody signed.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        !self.sealed.signatures.is_empty()
    }

    /// Ids of the keys that signed, unchecked.
    pub fn signers(&self) -> impl Iterator<Item = &str> {
        self.sealed.signatures.keys().map(String::as_str)
    }

    /// When the seal ceases to be fresh.
    #[must_use]
    pub const fn expires(&self) -> Timestamp {
        self.sealed.expires
    }

    /// Checks the signatures against trust anchors.
    ///
    /// # Errors
    /// The [`SealError`] that says what does not hold; [`SealError::Unsigned`] when nobody signed.
    pub fn check(&self, anchors: &TrustAnchors) -> Result<(), SealError> {
        self.sealed.check_signatures(SEALED_KIND, anchors)
    }

    /// Where each section begins in the file, with its manifest entry; `None` when lengths overflow.
    #[must_use]
    pub fn places(&self) -> Option<Vec<(u64, &Section)>> {
        let mut at = self.len;
        self.manifest
            .sections
            .iter()
            .map(|section| {
                let begin = at;
                at = at.checked_add(section.bytes)?;
                Some((begin, section))
            })
            .collect()
    }

    /// Bytes of the whole file; `None` when lengths overflow.
    #[must_use]
    pub fn file_len(&self) -> Option<u64> {
        self.manifest.sections.iter().try_fold(self.len, |sum, one| sum.checked_add(one.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;

    fn manifest() -> Manifest {
        Manifest {
            schema: MANIFEST_SCHEMA.to_owned(),
            name: "feed".to_owned(),
            version: 3,
            built_at: Timestamp::EPOCH,
            indicators: BTreeMap::from([(Kind::Domain, 2)]),
            sources: BTreeMap::from([("feed".to_owned(), 2)]),
            sections: vec![Section { bytes: 4, sha256: "00".to_owned() }],
        }
    }

    #[test]
    fn a_head_reads_back_and_its_seal_holds_only_for_its_key_and_content() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let anchors = TrustAnchors::new([key.verifying_key()], 1);
        let sealed = Header::seal(&manifest(), Timestamp::MAX).signed_by(&key);
        let bytes = Header::write(&sealed);
        assert!(Header::is_compiled(&bytes));
        let read = Header::parse(&bytes).unwrap();
        assert_eq!((&read.manifest, read.len), (&manifest(), bytes.len() as u64));
        assert_eq!(read.check(&anchors), Ok(()));
        let stranger = SigningKey::from_bytes(&[8; 32]);
        let others = TrustAnchors::new([stranger.verifying_key()], 1);
        assert_eq!(read.check(&others).unwrap_err().reason(), "threshold");
        let other = Manifest { name: "other".to_owned(), ..manifest() };
        let swapped = Sealed { payload: Header::seal(&other, Timestamp::MAX).payload, ..sealed };
        let read = Header::parse(&Header::write(&swapped)).unwrap();
        assert_eq!(read.check(&anchors).unwrap_err().reason(), "tampered");
        let unsigned =
            Header::parse(&Header::write(&Header::seal(&manifest(), Timestamp::MAX))).unwrap();
        assert!(!unsigned.is_signed());
        assert_eq!(unsigned.check(&anchors), Err(SealError::Unsigned));
    }

    #[test]
    fn a_forged_head_is_refused_without_making_room_for_what_it_claims() {
        let good = Header::write(&Header::seal(&manifest(), Timestamp::MAX));
        for end in 0..good.len() {
            assert!(Header::parse(&good[..end]).is_err(), "{end}");
        }
        let mut huge = good.clone();
        huge[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Header::parse(&huge).is_err());
        let mut form = good.clone();
        form[8] = 2;
        assert_eq!(Header::parse(&form), Err(ReadHeaderError::Form(2)));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x11;
            let _ = Header::parse(&bad);
        }
        let wide = Manifest {
            sections: vec![Section { bytes: u64::MAX, sha256: String::new() }; 2],
            ..manifest()
        };
        let read = Header::parse(&Header::write(&Header::seal(&wide, Timestamp::MAX))).unwrap();
        assert_eq!((read.file_len(), read.places()), (None, None));
    }
}
