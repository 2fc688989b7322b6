//! An observable on its way from a reader to whoever keeps it.

use super::observable::{Observable, ParseObservableError};
use crate::finding::{Grade, IndicatorClass};
use crate::time::Timestamp;

/// What a source calls an indicator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id<'a> {
    /// The line that it stands in, from 1.
    Line(u32),
    /// A number or name of the source's own.
    Text(&'a str),
}

/// What a source says of an observable; `None` where it says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// What the source calls it.
    pub id: Id<'a>,
    /// Who says so, where that is not the source as a whole.
    pub source: Option<&'a str>,
    /// 0 to 100.
    pub confidence: Option<u8>,
    /// What a sighting is worth.
    pub grade: Option<Grade>,
    /// What stands behind it.
    pub class: IndicatorClass,
    /// Families and campaigns, joined by `, `; empty for none.
    pub labels: &'a str,
    /// When it begins to count.
    pub valid_from: Option<Timestamp>,
    /// When it ceases to count.
    pub valid_until: Option<Timestamp>,
}

impl Facts<'_> {
    /// Facts of which nothing is known but the line.
    #[must_use]
    pub const fn of_line(line: u32) -> Self {
        Self {
            id: Id::Line(line),
            source: None,
            confidence: None,
            grade: None,
            class: IndicatorClass::Threat,
            labels: "",
            valid_from: None,
            valid_until: None,
        }
    }
}

/// Takes what a reader reads.
pub trait Taker {
    /// Takes one observable.
    ///
    /// # Errors
    /// Why it can't be taken; the reader reports it and goes on.
    fn take(
        &mut self,
        observable: &Observable<'_>,
        facts: &Facts<'_>,
    ) -> Result<(), ParseObservableError>;
}
