//! What a reader took, and what it left out and why.

use super::entry::{Facts, Id, Taker};
use super::observable::{Kind, Observable, ParseObservableError, refang};
use super::plain::quick_value;
use super::reader::{Format, ReadOptions};
use crate::time::Timestamp;
use std::collections::BTreeMap;

/// Things left out that are told one by one; the rest is counted.
const TOLD: usize = 100;
/// Characters of a text that are told.
const TOLD_CHARS: usize = 120;

/// A thing that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// `line 4`, `sid 2000123`, `indicator--…`.
    pub place: String,
    /// What stands there, cut short.
    pub text: String,
    /// Why it is left out.
    pub why: String,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The format it was read as.
    pub format: Format,
    /// Indicators taken, by kind.
    pub taken: BTreeMap<Kind, u64>,
    /// Things left out, by reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// The first of those left out.
    pub left_out: Vec<LeftOut>,
    /// Values that were written so that nobody would follow them by mistake.
    pub defanged: u64,
}

impl Report {
    /// Indicators taken.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.taken.values().sum()
    }

    /// Things left out.
    #[must_use]
    pub fn left_out_total(&self) -> u64 {
        self.reasons.values().sum()
    }
}

/// What a value is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// Nothing is said; or the operator says it for the whole file.
    Any,
    /// An address, network or endpoint.
    Ip,
    /// Exactly this.
    Kind(Kind),
}

impl Hint {
    const fn fits(self, kind: Kind) -> bool {
        match self {
            Self::Any => true,
            Self::Ip => matches!(kind, Kind::Address | Kind::Endpoint | Kind::Network),
            Self::Kind(said) => said as u8 == kind as u8,
        }
    }
}

/// A value as a reader found it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer<'a> {
    pub(super) text: &'a str,
    pub(super) hint: Hint,
    /// Whether a name is meant alone, where that is said.
    pub(super) exact: Option<bool>,
    /// When its source last saw it.
    pub(super) seen: Option<Timestamp>,
    pub(super) facts: Facts<'a>,
}

impl<'a> Offer<'a> {
    pub(super) const fn new(text: &'a str, hint: Hint, facts: Facts<'a>) -> Self {
        Self { text, hint, exact: None, seen: None, facts }
    }
}

/// The one gate between every reader and the taker.
pub(super) struct Intake<'t> {
    pub(super) options: ReadOptions,
    pub(super) taker: &'t mut dyn Taker,
    pub(super) report: Report,
    /// Indicators taken, by kind.
    taken: [u64; Kind::ALL.len()],
    /// The first fault, for whoever wants none.
    pub(super) fault: Option<(LeftOut, ParseObservableError)>,
}

impl<'t> Intake<'t> {
    pub(super) fn new(options: ReadOptions, taker: &'t mut dyn Taker) -> Self {
        let report = Report {
            format: Format::Plain,
            taken: BTreeMap::new(),
            reasons: BTreeMap::new(),
            left_out: Vec::new(),
            defanged: 0,
        };
        Self { options, taker, report, taken: [0; Kind::ALL.len()], fault: None }
    }

    /// What was read.
    pub(super) fn into_report(self) -> Report {
        let taken = Kind::ALL.into_iter().zip(self.taken).filter(|(_, count)| *count > 0);
        Report { taken: taken.collect(), ..self.report }
    }

    /// Offers a value; whether it was taken.
    pub(super) fn offer(&mut self, offer: &Offer<'_>) -> bool {
        let hint = match (offer.hint, self.options.kind) {
            (Hint::Any, Some(kind)) => Hint::Kind(kind),
            (hint, _) => hint,
        };
        if let Some(read) = quick_value(offer.text)
            && hint.fits(read.kind())
        {
            return self.offer_observable(read, offer);
        }
        let text = refang(offer.text.trim());
        if matches!(text, std::borrow::Cow::Owned(_)) {
            self.report.defanged += 1;
        }
        let read = match hint {
            Hint::Any => Observable::parse(&text),
            Hint::Ip => Observable::parse(&text).and_then(|read| {
                if hint.fits(read.kind()) { Ok(read) } else { Err(ParseObservableError::Mismatch) }
            }),
            Hint::Kind(kind) => Observable::parse_as(&text, kind),
        };
        match read {
            Ok(read) => self.offer_observable(read, offer),
            Err(why) => {
                self.refuse(offer.facts.id, &text, why);
                false
            }
        }
    }

    /// Offers what is already known for what it is.
    pub(super) fn offer_observable(&mut self, read: Observable<'_>, offer: &Offer<'_>) -> bool {
        let read = match (read, offer.exact) {
            (Observable::Domain { name, .. }, Some(exact)) => Observable::Domain { name, exact },
            (read, _) => read,
        };
        if !self.options.allow_private && read.is_private() {
            self.refuse(offer.facts.id, offer.text, ParseObservableError::Private);
            return false;
        }
        let mut facts = offer.facts;
        if facts.valid_until.is_none()
            && let Some(span) = self.options.valid_for
        {
            facts.valid_until = offer.seen.or(self.options.now).map(|since| since.after(span));
        }
        if let (Some(now), Some(until)) = (self.options.now, facts.valid_until)
            && until < now
        {
            self.leave(facts.id, offer.text, "expired", format!("ceased to count at {until}"));
            return false;
        }
        match self.taker.take(&read, &facts) {
            Ok(()) => {
                if let Some(count) = self.taken.get_mut(read.kind() as usize) {
                    *count += 1;
                }
                true
            }
            Err(why) => {
                self.refuse(facts.id, offer.text, why);
                false
            }
        }
    }

    pub(super) fn refuse(&mut self, place: Id<'_>, text: &str, why: ParseObservableError) {
        if self.fault.is_none() {
            self.fault = Some((left_out(place, text, why.to_string()), why));
        }
        self.leave(place, text, reason(why), why.to_string());
    }

    /// Leaves something out for a reason that is counted under one word.
    pub(super) fn leave(&mut self, place: Id<'_>, text: &str, reason: &'static str, why: String) {
        *self.report.reasons.entry(reason).or_default() += 1;
        if self.report.left_out.len() < TOLD {
            self.report.left_out.push(left_out(place, text, why));
        }
    }
}

fn left_out(place: Id<'_>, text: &str, why: String) -> LeftOut {
    let place = match place {
        Id::Line(line) => format!("line {line}"),
        Id::Text(text) => text.chars().take(TOLD_CHARS).collect(),
    };
    LeftOut { place, text: text.chars().take(TOLD_CHARS).collect(), why }
}

const fn reason(why: ParseObservableError) -> &'static str {
    match why {
        ParseObservableError::BareHash => "hash of unknown kind",
        ParseObservableError::Mismatch => "not of its kind",
        ParseObservableError::OneLabel => "whole top-level domain",
        ParseObservableError::Private => "private or special address",
        ParseObservableError::Registry => "whole registry",
        ParseObservableError::Shape => "no indicator",
        ParseObservableError::TooLong => "too long",
        ParseObservableError::TooMany => "too many",
        ParseObservableError::Unroutable => "unroutable address",
        ParseObservableError::Wide => "too wide a network",
    }
}
