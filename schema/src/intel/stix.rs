//! STIX 2.1 bundles: the comparisons of their indicators' patterns that name what is looked for.

use super::csv::date;
use super::entry::{Facts, Id};
use super::json::Walk;
use super::pattern;
use super::report::{Intake, Offer};
use crate::finding::{Grade, IndicatorClass};
use serde::Deserialize;
use std::cell::RefCell;

/// Bytes of the longest pattern that is read.
const LONGEST_PATTERN: usize = 64 << 10;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Object {
    r#type: String,
    id: String,
    name: Option<String>,
    pattern: String,
    pattern_type: Option<String>,
    confidence: Option<i64>,
    valid_from: Option<String>,
    valid_until: Option<String>,
    modified: Option<String>,
    revoked: bool,
    labels: Vec<String>,
    indicator_types: Vec<String>,
}

pub(super) fn read(bytes: &[u8], intake: &mut Intake<'_>) -> Result<(), String> {
    let cell = RefCell::new(intake);
    let mut nth = 0_u64;
    let each = |object: Result<Object, String>| {
        nth += 1;
        let mut intake = cell.borrow_mut();
        match object {
            Ok(object) if object.r#type == "indicator" => indicator(&object, &mut intake),
            Ok(_) => {}
            Err(why) => {
                intake.leave(Id::Text(&format!("object {nth}")), "", "malformed object", why);
            }
        }
    };
    Walk::<Object, _>::new(&["objects"], &["bundle", "bundles", "data"], each).run(bytes)?;
    if nth == 0 { Err("it has no \"objects\"".to_owned()) } else { Ok(()) }
}

fn indicator(object: &Object, intake: &mut Intake<'_>) {
    let place = Id::Text(&object.id);
    if object.revoked {
        return intake.leave(place, &object.pattern, "revoked", "is revoked".to_owned());
    }
    if object.pattern_type.as_deref().is_some_and(|kind| kind != "stix") {
        let why = "its pattern is not of type stix".to_owned();
        return intake.leave(place, &object.pattern, "pattern not understood", why);
    }
    if object.pattern.len() > LONGEST_PATTERN {
        let why = "its pattern is too long".to_owned();
        return intake.leave(place, &object.pattern, "too long", why);
    }
    let found = match pattern::read(&object.pattern) {
        Ok(found) => found,
        Err(why) => {
            return intake.leave(place, &object.pattern, "pattern not understood", why);
        }
    };
    let is_sinkhole = object.labels.iter().any(|label| label.eq_ignore_ascii_case("sinkhole"));
    // "anomalous-activity" and "benign" are the vocabulary's words for what proves nothing.
    let is_weak = !object.indicator_types.is_empty()
        && object
            .indicator_types
            .iter()
            .all(|kind| kind != "malicious-activity" && kind != "compromised");
    let labels = object.name.clone().unwrap_or_else(|| object.labels.join(", "));
    let facts = Facts {
        id: Id::Text(&object.id),
        source: None,
        confidence: object.confidence.and_then(|n| u8::try_from(n).ok()).filter(|n| *n <= 100),
        grade: is_weak.then_some(Grade::Suspect),
        class: if is_sinkhole { IndicatorClass::Sinkhole } else { IndicatorClass::Threat },
        labels: &labels,
        valid_from: object.valid_from.as_deref().and_then(date),
        valid_until: object.valid_until.as_deref().and_then(date),
    };
    if object.indicator_types.iter().any(|kind| kind == "benign") {
        return intake.leave(place, &object.pattern, "benign", "is said to be benign".to_owned());
    }
    let seen = object.modified.as_deref().and_then(date).max(facts.valid_from);
    for value in found.values {
        intake.offer(&Offer { seen, ..Offer::new(&value.text, value.hint, facts) });
    }
    for left in found.not_looked_for {
        let why = format!("{left} is not looked for");
        intake.leave(place, &object.pattern, "kind not looked for", why);
    }
}
