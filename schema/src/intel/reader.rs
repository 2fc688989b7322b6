//! Takes bytes as they come, finds out their format, and hands lines or a whole document on.

use super::csv::Csv;
use super::entry::{Facts, Id, Taker};
use super::observable::{Kind, ParseObservableError};
use super::plain::Quick;
use super::report::{Hint, Intake, Offer, Report};
use super::suricata::Rules;
use super::zeek::Zeek;
use super::{dataset, misp, plain, stix};
use crate::time::{Span, Timestamp};
use std::fmt;
use std::str::FromStr;

/// Bytes that are looked at to find out a format.
const HEAD: usize = 64 << 10;
/// Bytes of the longest line; a rule of a rule set may be long.
const LONGEST_LINE: usize = 256 << 10;
/// Bytes of the largest document that has to be held whole.
const LARGEST_DOCUMENT: usize = 256 << 20;

/// A format that people have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// Comma-, semicolon- or tab-separated with a header, also in a `#` comment, as abuse.ch writes it.
    Csv,
    /// A Suricata dataset: base64 strings, addresses or hashes.
    Dataset,
    /// A MISP event or search result in JSON.
    Misp,
    /// One value a line.
    Plain,
    /// A STIX 2.1 bundle.
    Stix,
    /// Suricata rules.
    Suricata,
    /// A Zeek Intel file.
    Zeek,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 7] =
        [Self::Csv, Self::Dataset, Self::Misp, Self::Plain, Self::Stix, Self::Suricata, Self::Zeek];

    /// The word for it on a command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Dataset => "dataset",
            Self::Misp => "misp",
            Self::Plain => "plain",
            Self::Stix => "stix",
            Self::Suricata => "suricata",
            Self::Zeek => "zeek",
        }
    }

    /// The format that the first bytes of a text show; a JSON document is told apart by all of it.
    #[must_use]
    pub fn detect(head: &[u8]) -> Self {
        let head = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head);
        match head.iter().find(|byte| !byte.is_ascii_whitespace()) {
            // A list may begin with an IPv6 endpoint in brackets.
            Some(b'{') => return json_kind(head),
            Some(b'[') if is_array(head) => return json_kind(head),
            _ => {}
        }
        let text = String::from_utf8_lossy(head);
        let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
        if lines().take(50).any(|line| line.starts_with("#fields")) {
            return Self::Zeek;
        }
        if lines().filter(|line| !line.starts_with('#')).take(5).any(Rules::is_rule)
            || lines().take(50).any(|line| Rules::is_rule(line.trim_start_matches(['#', ' '])))
        {
            return Self::Suricata;
        }
        if Csv::is_csv(&text) {
            return Self::Csv;
        }
        if dataset::is_dataset(&text) { Self::Dataset } else { Self::Plain }
    }
}

/// `[` and then what an array of objects or an empty one begins with.
fn is_array(head: &[u8]) -> bool {
    let mut signs = head.iter().filter(|byte| !byte.is_ascii_whitespace()).skip(1);
    matches!(signs.next(), Some(b'{' | b'[' | b']'))
}

fn json_kind(bytes: &[u8]) -> Format {
    let has = |word: &[u8]| bytes.windows(word.len()).any(|window| window == word);
    if has(b"\"Attribute\"") || has(b"\"Event\"") { Format::Misp } else { Format::Stix }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|format| format.as_str() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|format| format.as_str()).collect();
            format!("\"{text}\" is no format; formats are {}", known.join(", "))
        })
    }
}

/// How to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOptions {
    /// The format, where it is not to be found out.
    pub format: Option<Format>,
    /// What values are that don't say it themselves.
    pub kind: Option<Kind>,
    /// What has expired by then is left out; `None` keeps all.
    pub now: Option<Timestamp>,
    /// How long values count that say no end, from when they were last seen or else from `now`.
    pub valid_for: Option<Span>,
    /// Whether addresses of private use are taken.
    pub allow_private: bool,
    /// Whether the first fault of a value ends the reading.
    pub strict: bool,
}

/// Why a text can't be read at all.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadIntelError {
    /// Not what it is said to be.
    #[error("it is no {format}: {why}")]
    Malformed {
        /// The format it was read as.
        format: Format,
        /// What is wrong.
        why: String,
    },
    /// A document that is held whole is larger than this many bytes.
    #[error("it is a document of more than {0} bytes")]
    TooLarge(usize),
    /// A value is no indicator, and every one should be.
    #[error("{place}: \"{text}\" {why}")]
    Value {
        /// The line, without the word before it.
        place: String,
        /// What stands there.
        text: String,
        /// What is wrong with it.
        why: ParseObservableError,
    },
}

enum State {
    /// Not enough is there to know.
    Undecided,
    Lines(Lines),
    Document(Format),
}

enum Lines {
    Csv(Csv),
    Dataset,
    Plain,
    Suricata(Rules),
    Zeek(Zeek),
}

/// Reads a list or feed piece by piece.
pub struct Reader<'t> {
    intake: Intake<'t>,
    state: State,
    held: Vec<u8>,
    line: u32,
    /// In the midst of a line that is too long.
    skipping: bool,
}

impl<'t> Reader<'t> {
    /// Makes a reader that gives what it reads to a taker.
    #[must_use]
    pub fn new(options: ReadOptions, taker: &'t mut dyn Taker) -> Self {
        let intake = Intake::new(options, taker);
        Self { intake, state: State::Undecided, held: Vec::new(), line: 0, skipping: false }
    }

    /// Reads the next bytes.
    ///
    /// # Errors
    /// Why nothing more is read; what was taken before was taken.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), ReadIntelError> {
        if matches!(self.state, State::Undecided) {
            self.held.extend_from_slice(bytes);
            if self.held.len() < HEAD {
                return Ok(());
            }
            self.decide();
            let held = std::mem::take(&mut self.held);
            return self.go_on(&held);
        }
        self.go_on(bytes)
    }

    /// Reads what is left and gives the report.
    ///
    /// # Errors
    /// Why the document can't be read.
    pub fn finish(mut self) -> Result<Report, ReadIntelError> {
        if matches!(self.state, State::Undecided) {
            self.decide();
            let held = std::mem::take(&mut self.held);
            self.go_on(&held)?;
        }
        let rest = std::mem::take(&mut self.held);
        match &self.state {
            State::Document(format) => {
                let format = match self.intake.options.format {
                    Some(told) => told,
                    None if *format == Format::Stix => json_kind(&rest),
                    None => *format,
                };
                self.intake.report.format = format;
                let read = match format {
                    Format::Misp => misp::read(&rest, &mut self.intake),
                    _ => stix::read(&rest, &mut self.intake),
                };
                read.map_err(|why| ReadIntelError::Malformed { format, why })?;
                self.check()?;
            }
            State::Lines(_) | State::Undecided if !rest.is_empty() => self.one(&rest)?,
            State::Lines(_) | State::Undecided => {}
        }
        Ok(self.intake.into_report())
    }

    fn decide(&mut self) {
        let format = self.intake.options.format.unwrap_or_else(|| Format::detect(&self.held));
        self.intake.report.format = format;
        self.state = match format {
            Format::Csv => State::Lines(Lines::Csv(Csv::default())),
            Format::Dataset => State::Lines(Lines::Dataset),
            Format::Plain => State::Lines(Lines::Plain),
            Format::Suricata => State::Lines(Lines::Suricata(Rules::default())),
            Format::Zeek => State::Lines(Lines::Zeek(Zeek::default())),
            Format::Misp | Format::Stix => State::Document(format),
        };
        if let Some(rest) = self.held.strip_prefix(b"\xEF\xBB\xBF") {
            self.held = rest.to_vec();
        }
    }

    fn go_on(&mut self, bytes: &[u8]) -> Result<(), ReadIntelError> {
        if matches!(self.state, State::Document(_)) {
            if self.held.len() + bytes.len() > LARGEST_DOCUMENT {
                return Err(ReadIntelError::TooLarge(LARGEST_DOCUMENT));
            }
            self.held.extend_from_slice(bytes);
            return Ok(());
        }
        let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n') else {
            return self.hold(bytes);
        };
        let (whole, rest) = bytes.split_at_checked(last + 1).unwrap_or((bytes, &[]));
        let mut whole = whole;
        if !self.held.is_empty() || self.skipping {
            let end = whole.iter().position(|byte| *byte == b'\n').unwrap_or(last);
            let (first, others) = whole.split_at_checked(end + 1).unwrap_or((whole, &[]));
            if self.skipping {
                self.skipping = false;
                self.line = self.line.saturating_add(1);
            } else {
                let mut held = std::mem::take(&mut self.held);
                held.extend_from_slice(first);
                self.one(&held)?;
                held.clear();
                self.held = held;
            }
            whole = others;
        }
        self.lines(whole)?;
        self.hold(rest)
    }

    /// Keeps the beginning of a line until its end comes.
    fn hold(&mut self, bytes: &[u8]) -> Result<(), ReadIntelError> {
        if self.skipping {
            return Ok(());
        }
        if self.held.len() + bytes.len() > LONGEST_LINE {
            self.held.clear();
            self.skipping = true;
            let place = Id::Line(self.line.saturating_add(1));
            self.intake.refuse(place, "", ParseObservableError::TooLong);
            return self.check();
        }
        self.held.extend_from_slice(bytes);
        Ok(())
    }

    /// Reads lines, each with its end.
    fn lines(&mut self, bytes: &[u8]) -> Result<(), ReadIntelError> {
        match std::str::from_utf8(bytes) {
            Ok(text) if self.is_quick() => return self.plain_lines(text),
            Ok(text) => {
                for line in text.split_terminator('\n') {
                    self.text(line);
                    self.check()?;
                }
            }
            Err(_) => {
                for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                    self.one(line)?;
                }
            }
        }
        Ok(())
    }

    /// Whether lines are values that show what they are.
    fn is_quick(&self) -> bool {
        matches!(self.state, State::Lines(Lines::Plain)) && self.intake.options.kind.is_none()
    }

    /// Reads lines of a plain list, each with its end.
    fn plain_lines(&mut self, text: &str) -> Result<(), ReadIntelError> {
        let mut rest = text;
        while !rest.is_empty() {
            let Quick { line, rest: others, read } = plain::quick(rest);
            rest = others;
            match read {
                Some(read) => {
                    self.line = self.line.saturating_add(1);
                    let facts = Facts::of_line(self.line);
                    self.intake.offer_observable(read, &Offer::new(line, Hint::Any, facts));
                }
                None => self.text(line),
            }
            self.check()?;
        }
        Ok(())
    }

    fn one(&mut self, line: &[u8]) -> Result<(), ReadIntelError> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        match std::str::from_utf8(line) {
            Ok(text) => self.text(text),
            Err(_) => {
                self.line = self.line.saturating_add(1);
                let shown = String::from_utf8_lossy(line);
                let why = "is not UTF-8".to_owned();
                let place = Id::Line(self.line);
                self.intake.leave(place, &shown, "not UTF-8", why);
                if self.intake.options.strict {
                    self.intake.refuse(place, &shown, ParseObservableError::Shape);
                }
            }
        }
        self.check()
    }

    fn text(&mut self, text: &str) {
        self.line = self.line.saturating_add(1);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.len() > LONGEST_LINE {
            self.intake.refuse(Id::Line(self.line), text, ParseObservableError::TooLong);
            return;
        }
        match &mut self.state {
            State::Lines(Lines::Csv(csv)) => csv.line(self.line, text, &mut self.intake),
            State::Lines(Lines::Dataset) => dataset::line(self.line, text, &mut self.intake),
            State::Lines(Lines::Suricata(rules)) => rules.line(self.line, text, &mut self.intake),
            State::Lines(Lines::Zeek(zeek)) => zeek.line(self.line, text, &mut self.intake),
            State::Lines(Lines::Plain) | State::Document(_) | State::Undecided => {
                plain::line(self.line, text, &mut self.intake);
            }
        }
    }

    fn check(&mut self) -> Result<(), ReadIntelError> {
        if !self.intake.options.strict {
            return Ok(());
        }
        match self.intake.fault.take() {
            None => Ok(()),
            Some((left, why)) => Err(ReadIntelError::Value {
                place: left.place.strip_prefix("line ").unwrap_or(&left.place).to_owned(),
                text: left.text,
                why,
            }),
        }
    }
}

/// Reads a whole text.
///
/// # Errors
/// Why it can't be read.
pub fn read(
    bytes: &[u8],
    options: ReadOptions,
    taker: &mut dyn Taker,
) -> Result<Report, ReadIntelError> {
    let mut reader = Reader::new(options, taker);
    reader.feed(bytes)?;
    reader.finish()
}
