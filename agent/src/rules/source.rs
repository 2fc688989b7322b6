//! One file of indicators, whatever its format, read as a stream.

use super::LoadRulesError;
use super::compiled::{CompiledFile, Seal};
use sekisho_engine::detect::indicator_set::{Defaults, IndicatorSet};
use sekisho_engine::rules::{LIST_DEFAULTS, RulesBuilder, SourceCounts};
use sekisho_schema::intel::{Format, Header, Kind, ReadOptions, Reader, Report};
use sekisho_schema::{Span, Timestamp, TrustAnchors};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Bytes of the largest text: some four million names.
const LARGEST_LIST: u64 = 128 << 20;
/// Bytes that are read at a time, and that a format is found out by.
const CHUNK: usize = 64 << 10;

/// How a list is read.
#[derive(Clone, Copy, Debug)]
pub struct ListOptions {
    /// The format, where it is not to be found out.
    pub format: Option<Format>,
    /// What values are that don't say it.
    pub kind: Option<Kind>,
    /// What counts where the source says nothing.
    pub defaults: Defaults,
    /// How long values count that say no end.
    pub valid_for: Option<Span>,
    /// What has ceased to count by then is left out.
    pub now: Option<Timestamp>,
    /// Whether one bad line of a plain list is left out alone, and not the whole list with it.
    pub lenient: bool,
    /// Whether addresses of private use are taken from feeds as they are from plain lists.
    pub allow_private: bool,
}

impl Default for ListOptions {
    fn default() -> Self {
        Self {
            format: None,
            kind: None,
            defaults: LIST_DEFAULTS,
            valid_for: None,
            now: None,
            lenient: false,
            allow_private: false,
        }
    }
}

/// What a list brought.
#[derive(Clone, Debug, Default)]
pub struct ListReport {
    /// The list.
    pub name: String,
    /// Indicators it named; `None` when it could not be read.
    pub brought: Option<u64>,
    /// The sources within it and what they brought, of a compiled set.
    pub sources: Option<SourceCounts>,
    /// Who vouches for it, of a compiled set.
    pub seal: Option<Seal>,
    /// Name and version, of a compiled set.
    pub version: Option<(String, u64)>,
    /// When that ceases to be fresh, if anybody signed.
    pub expires: Option<Timestamp>,
    /// What was taken and left out, of a text.
    pub report: Option<Report>,
}

impl ListReport {
    pub(super) fn unread(path: &Path) -> Self {
        Self { name: path.display().to_string(), ..Self::default() }
    }
}

fn read_head(file: &mut File) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.by_ref().take(CHUNK as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Reads a file by itself.
///
/// # Errors
/// Why it can't be read.
pub fn check_file(
    path: &Path,
    options: &ListOptions,
    anchors: Option<&TrustAnchors>,
) -> Result<(ListReport, IndicatorSet), LoadRulesError> {
    let mut builder = RulesBuilder::new();
    let report = read_source(&mut builder, path, options, anchors)?;
    Ok((report, builder.build().indicators))
}

/// Adds a file to rules, under its own name.
pub(super) fn read_source(
    builder: &mut RulesBuilder,
    path: &Path,
    options: &ListOptions,
    anchors: Option<&TrustAnchors>,
) -> Result<ListReport, LoadRulesError> {
    read_named(builder, &path.display().to_string(), path, options, anchors)
}

/// Adds a file to rules.
pub(super) fn read_named(
    builder: &mut RulesBuilder,
    name: &str,
    path: &Path,
    options: &ListOptions,
    anchors: Option<&TrustAnchors>,
) -> Result<ListReport, LoadRulesError> {
    let unreadable = |source| LoadRulesError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    let head = read_head(&mut file).map_err(unreadable)?;
    if Header::is_compiled(&head) {
        return read_compiled(builder, path, anchors);
    }
    let format = options.format.unwrap_or_else(|| Format::detect(&head));
    let is_plain = format == Format::Plain;
    let read_options = ReadOptions {
        // A JSON document is told apart by all of it.
        format: options.format.or_else(|| is_plain.then_some(format)),
        kind: options.kind,
        now: options.now,
        valid_for: options.valid_for,
        allow_private: options.allow_private || (is_plain && !options.lenient),
        strict: is_plain && !options.lenient,
    };
    let mut failed = None;
    let report = builder.read_list(name, options.defaults, |taker| {
        let mut reader = Reader::new(read_options, taker);
        reader.feed(&head)?;
        // A text that would not fit is refused whole: half of it would look like all of it.
        let mut left = LARGEST_LIST.saturating_sub(head.len() as u64);
        let mut chunk = vec![0; CHUNK];
        loop {
            match file.read(&mut chunk) {
                Ok(0) => return reader.finish(),
                Ok(len) if len as u64 <= left => {
                    left -= len as u64;
                    reader.feed(chunk.get(..len).unwrap_or_default())?;
                }
                Ok(_) => {
                    let most = usize::try_from(LARGEST_LIST).unwrap_or(usize::MAX);
                    return Err(sekisho_schema::intel::ReadIntelError::TooLarge(most));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    failed = Some(error);
                    return Err(sekisho_schema::intel::ReadIntelError::TooLarge(0));
                }
            }
        }
    });
    if let Some(source) = failed {
        return Err(unreadable(source));
    }
    let report = report?;
    Ok(ListReport {
        name: name.to_owned(),
        brought: Some(report.total()),
        report: Some(report),
        ..ListReport::default()
    })
}

fn read_compiled(
    builder: &mut RulesBuilder,
    path: &Path,
    anchors: Option<&TrustAnchors>,
) -> Result<ListReport, LoadRulesError> {
    let unusable = |source| LoadRulesError::Compiled { path: path.to_owned(), source };
    let mut file = CompiledFile::open(path, anchors).map_err(unusable)?;
    let (seal, name) = (file.seal().clone(), path.display().to_string());
    let manifest = file.manifest();
    let sources = manifest.sources.clone();
    let version = Some((manifest.name.clone(), manifest.version));
    let expires = (seal != Seal::Unsigned).then(|| file.expires());
    let brought = builder.add_compiled(&name, |number| file.section(number))?.map_err(unusable)?;
    Ok(ListReport {
        name,
        brought: Some(brought),
        sources: Some(sources),
        seal: Some(seal),
        version,
        expires,
        report: None,
    })
}
