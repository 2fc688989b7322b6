//! Compiled sets as files: opened with their seal, read section by section, written at one stroke.

use super::LoadRulesError;
use super::source::{ListOptions, ListReport, read_named};
use crate::state::write_atomically;
use sekisho_engine::detect::indicator_set::{IndicatorSet, ReadCompiledError};
use sekisho_engine::rules::RulesBuilder;
use sekisho_schema::intel::{Header, MANIFEST_SCHEMA, Manifest, ReadHeaderError, Section};
use sekisho_schema::sealed::{SealError, SigningKey, hex};
use sekisho_schema::{Timestamp, TrustAnchors};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Bytes that are hashed at a time.
const CHUNK: usize = 256 << 10;

/// Why a compiled set can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenCompiledError {
    /// It can't be read.
    #[error("it can't be read")]
    Read(#[from] io::Error),
    /// Its head is none, or its seal does not hold.
    #[error(transparent)]
    Header(#[from] ReadHeaderError),
    /// It is longer or shorter than its head says.
    #[error("it has {found} bytes, its head says {expected}: it was cut short or added to")]
    Length {
        /// Bytes that are there.
        found: u64,
        /// Bytes that should be.
        expected: u64,
    },
    /// A section is not what was sealed.
    #[error("section {0} is not what was compiled: the file was changed")]
    Changed(usize),
    /// Its head does not list what every set has.
    #[error("its head lists {0} sections where a set has {expected}", expected = IndicatorSet::PIECES + 1)]
    Sections(usize),
}

/// Who vouches for a compiled set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seal {
    /// These trust anchors signed.
    Checked(Vec<String>),
    /// These keys signed, and there was nothing to check them against.
    Unchecked(Vec<String>),
    /// Nobody; it counts as a file that root installed.
    Unsigned,
}

impl std::fmt::Display for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Checked(keys) => write!(f, "signed by {}", keys.join(", ")),
            Self::Unchecked(keys) => write!(f, "signed by {}, unchecked", keys.join(", ")),
            Self::Unsigned => f.write_str("unsigned"),
        }
    }
}

/// A compiled set that is open for reading.
#[derive(Debug)]
pub struct CompiledFile {
    file: File,
    header: Header,
    places: Vec<(u64, Section)>,
    seal: Seal,
}

impl CompiledFile {
    /// Opens a file and checks its head, its length and, if it is signed, its seal.
    ///
    /// # Errors
    /// What does not hold.
    pub fn open(path: &Path, anchors: Option<&TrustAnchors>) -> Result<Self, OpenCompiledError> {
        let mut file = File::open(path)?;
        let found = file.metadata()?.len();
        let mut head = read_exactly(&mut file, Header::FIXED as u64)?;
        let len = Header::len_of(&head)? as u64;
        let rest = len.saturating_sub(Header::FIXED as u64);
        if len > found {
            return Err(OpenCompiledError::Length { found, expected: len });
        }
        head.extend(read_exactly(&mut file, rest)?);
        let header = Header::parse(&head)?;
        let signers = || header.signers().map(str::to_owned).collect::<Vec<_>>();
        let seal = match anchors {
            _ if !header.is_signed() => Seal::Unsigned,
            None => Seal::Unchecked(signers()),
            Some(anchors) => {
                header.check(anchors).map_err(ReadHeaderError::Seal)?;
                Seal::Checked(signers())
            }
        };
        let expected = header.file_len().unwrap_or(u64::MAX);
        if expected != found {
            return Err(OpenCompiledError::Length { found, expected });
        }
        let places: Vec<(u64, Section)> = header
            .places()
            .unwrap_or_default()
            .into_iter()
            .map(|(at, section)| (at, section.clone()))
            .collect();
        if places.len() != IndicatorSet::PIECES + 1 {
            return Err(OpenCompiledError::Sections(places.len()));
        }
        Ok(Self { file, header, places, seal })
    }

    /// Who vouches for it.
    #[must_use]
    pub const fn seal(&self) -> &Seal {
        &self.seal
    }

    /// What it holds.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.header.manifest
    }

    /// When the seal ceases to be fresh.
    #[must_use]
    pub const fn expires(&self) -> Timestamp {
        self.header.expires()
    }

    /// Reads a section and checks that it is what was sealed.
    ///
    /// # Errors
    /// When it can't be read or was changed.
    pub fn section(&mut self, number: usize) -> Result<Vec<u8>, OpenCompiledError> {
        let Some((at, section)) = self.places.get(number) else {
            return Err(OpenCompiledError::Sections(self.places.len()));
        };
        self.file.seek(SeekFrom::Start(*at))?;
        // The lengths add up to the length of the file, so none can ask for more than that.
        let bytes = read_exactly(&mut self.file, section.bytes)?;
        if hex(&Sha256::digest(&bytes)) == section.sha256 {
            Ok(bytes)
        } else {
            Err(OpenCompiledError::Changed(number))
        }
    }

    /// Checks every section without holding one.
    ///
    /// # Errors
    /// The first section that is not what was sealed.
    pub fn check(&mut self) -> Result<(), OpenCompiledError> {
        let mut chunk = vec![0; CHUNK];
        for (number, (at, section)) in self.places.iter().enumerate() {
            self.file.seek(SeekFrom::Start(*at))?;
            let mut hash = Sha256::new();
            let mut left = section.bytes;
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
                let part = chunk.get_mut(..most).unwrap_or_default();
                self.file.read_exact(part)?;
                hash.update(&*part);
                left -= most as u64;
            }
            if hex(&hash.finalize()) != section.sha256 {
                return Err(OpenCompiledError::Changed(number));
            }
        }
        Ok(())
    }
}

fn read_exactly(file: &mut File, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(len.min(64 << 20)).unwrap_or(0));
    file.by_ref().take(len).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == len { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Why nothing was compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// An input can't be read.
    #[error(transparent)]
    Input(#[from] LoadRulesError),
    /// The set can't be written down.
    #[error("cannot compile the set")]
    Compile(#[from] ReadCompiledError),
    /// The file can't be written.
    #[error("cannot write {path}: {why}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
}

/// A set to be compiled.
#[derive(Debug)]
pub struct Compilation<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version; rises.
    pub version: u64,
    /// When it is built.
    pub built_at: Timestamp,
    /// When its seal ceases to be fresh.
    pub expires: Timestamp,
    /// Who vouches for it.
    pub key: Option<&'a SigningKey>,
}

/// Reads inputs of any format in the order of their precedence, each under a name, and writes them
/// as one compiled set. Gives what each input brought, and the set.
///
/// # Errors
/// The first input that can't be read, or why the file can't be written; then no file is changed.
pub fn compile(
    inputs: &[(String, PathBuf)],
    options: &ListOptions,
    anchors: Option<&TrustAnchors>,
    set: &Compilation<'_>,
    out: &Path,
) -> Result<(Vec<ListReport>, IndicatorSet), CompileError> {
    let mut builder = RulesBuilder::seeded(set.version);
    let mut reports = Vec::new();
    for (name, path) in inputs {
        reports.push(read_named(&mut builder, name, path, options, anchors)?);
    }
    let rules = builder.build();
    let mut sections = rules.indicators.sections()?;
    sections.resize(IndicatorSet::PIECES + 1, vec![0; EMPTY_PIECE]);
    let manifest = Manifest {
        schema: MANIFEST_SCHEMA.to_owned(),
        name: set.name.to_owned(),
        version: set.version,
        built_at: set.built_at,
        indicators: rules
            .indicators
            .counts()
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| (kind, count as u64))
            .collect(),
        sources: rules.source_counts(),
        sections: sections
            .iter()
            .map(|bytes| Section { bytes: bytes.len() as u64, sha256: hex(&Sha256::digest(bytes)) })
            .collect(),
    };
    let sealed = Header::seal(&manifest, set.expires);
    let sealed = match set.key {
        Some(key) => sealed.signed_by(key),
        None => sealed,
    };
    let mut bytes = Header::write(&sealed);
    for section in &mut sections {
        bytes.append(section);
    }
    write_atomically(out, &bytes, 0o644).map_err(|error| CompileError::Write {
        path: out.to_owned(),
        why: crate::chain::causes(&error),
    })?;
    Ok((reports, rules.indicators))
}

/// Bytes of a piece that holds nothing: five lengths of zero.
const EMPTY_PIECE: usize = 20;

impl OpenCompiledError {
    /// Whether the seal is what does not hold.
    #[must_use]
    pub const fn seal_error(&self) -> Option<&SealError> {
        match self {
            Self::Header(ReadHeaderError::Seal(error)) => Some(error),
            _ => None,
        }
    }
}
