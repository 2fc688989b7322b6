//! Enters: bytes of a list or feed in any format that people have. Leaves: observables with what
//! their source says of them, and a report of what was left out and why. Must not know: files,
//! clocks, or how a set of indicators is kept.
//!
//! Every reader is bounded: by the bytes it is given, the longest line and the longest value.

mod address;
mod compiled;
mod csv;
mod dataset;
mod entry;
mod json;
mod misp;
mod observable;
mod pattern;
mod plain;
mod reader;
mod report;
mod stix;
mod suricata;
mod url;
mod zeek;

pub use self::compiled::{Header, MANIFEST_SCHEMA, Manifest, ReadHeaderError, Section};
pub use self::entry::{Facts, Id, Taker};
pub use self::observable::{CertificateHash, Kind, Observable, ParseObservableError, refang};
pub use self::reader::{Format, ReadIntelError, ReadOptions, Reader, read};
pub use self::report::{LeftOut, Report};
pub use self::url::UrlPattern;

#[cfg(test)]
mod tests;
