//! MISP events and search results: attributes that are meant for detection.

use super::csv::hint_of;
use super::entry::{Facts, Id};
use super::json::Walk;
use super::observable::Kind;
use super::report::{Hint, Intake, Offer};
use crate::time::Timestamp;
use serde::{Deserialize, Deserializer};
use std::cell::RefCell;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Attribute {
    uuid: String,
    r#type: String,
    value: String,
    #[serde(deserialize_with = "flag")]
    to_ids: Option<bool>,
    #[serde(deserialize_with = "flag")]
    deleted: Option<bool>,
    #[serde(deserialize_with = "seconds")]
    timestamp: Option<Timestamp>,
    #[serde(rename = "Tag")]
    tags: Vec<Tag>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Tag {
    name: String,
}

/// `true`, `1` and `"1"` are all in use.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    Ok(match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Bool(flag) => Some(flag),
        serde_json::Value::Number(number) => Some(number.as_i64() != Some(0)),
        serde_json::Value::String(text) => Some(text != "0" && text != "false"),
        _ => None,
    })
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let seconds = match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Number(number) => number.as_i64(),
        serde_json::Value::String(text) => text.parse().ok(),
        _ => None,
    };
    Ok(seconds.and_then(|seconds| seconds.checked_mul(1_000_000_000)).map(Timestamp::from_nanos))
}

pub(super) fn read(bytes: &[u8], intake: &mut Intake<'_>) -> Result<(), String> {
    let cell = RefCell::new(intake);
    let mut nth = 0_u64;
    let each = |attribute: Result<Attribute, String>| {
        nth += 1;
        let mut intake = cell.borrow_mut();
        match attribute {
            Ok(read) => one(&read, &mut intake),
            Err(why) => {
                let place = format!("attribute {nth}");
                intake.leave(Id::Text(&place), "", "malformed attribute", why);
            }
        }
    };
    Walk::<Attribute, _>::new(&["Attribute"], &["Event", "Object", "response"], each).run(bytes)?;
    if nth == 0 { Err("it has no \"Attribute\"".to_owned()) } else { Ok(()) }
}

fn one(read: &Attribute, intake: &mut Intake<'_>) {
    let place = Id::Text(&read.uuid);
    if read.deleted == Some(true) {
        return intake.leave(place, &read.value, "deleted", "is deleted".to_owned());
    }
    if read.to_ids != Some(true) {
        let why = "is not meant for detection (to_ids)".to_owned();
        return intake.leave(place, &read.value, "not for detection", why);
    }
    let galaxy = |tag: &Tag| {
        let (_, name) = tag.name.split_once("misp-galaxy:")?;
        Some(name.split_once("=\"")?.1.trim_end_matches('"').to_owned())
    };
    let families: Vec<String> = read.tags.iter().filter_map(galaxy).take(4).collect();
    let labels = families.join(", ");
    let facts = Facts { id: Id::Text(&read.uuid), labels: &labels, ..Facts::of_line(0) };
    let seen = read.timestamp;
    match read.r#type.as_str() {
        "ip-dst|port" | "ip-src|port" => {
            let Some((address, port)) = read.value.split_once('|') else {
                let why = "has no port".to_owned();
                return intake.leave(place, &read.value, "not of its kind", why);
            };
            let text = if address.contains(':') {
                format!("[{address}]:{port}")
            } else {
                format!("{address}:{port}")
            };
            let hint = Hint::Kind(Kind::Endpoint);
            intake.offer(&Offer { seen, ..Offer::new(&text, hint, facts) });
        }
        "domain|ip" => {
            let (domain, address) = read.value.split_once('|').unwrap_or((&read.value, ""));
            let hint = Hint::Kind(Kind::Domain);
            intake.offer(&Offer { seen, ..Offer::new(domain, hint, facts) });
            intake.offer(&Offer { seen, ..Offer::new(address, Hint::Ip, facts) });
        }
        "hostname|port" => {
            let (name, _) = read.value.split_once('|').unwrap_or((&read.value, ""));
            let hint = Hint::Kind(Kind::Domain);
            intake.offer(&Offer { seen, exact: Some(true), ..Offer::new(name, hint, facts) });
        }
        "hostname" => {
            let hint = Hint::Kind(Kind::Domain);
            intake.offer(&Offer {
                seen,
                exact: Some(true),
                ..Offer::new(&read.value, hint, facts)
            });
        }
        // MISP's `uri` is a path, which says nothing without a host.
        "uri" => left(place, read, intake),
        other => match hint_of(other) {
            Some(hint) => {
                intake.offer(&Offer { seen, ..Offer::new(&read.value, hint, facts) });
            }
            None => left(place, read, intake),
        },
    }
}

fn left(place: Id<'_>, read: &Attribute, intake: &mut Intake<'_>) {
    let why = format!("{} is not looked for", read.r#type.chars().take(40).collect::<String>());
    intake.leave(place, &read.value, "kind not looked for", why);
}
