//! What the detectors of frameworks and tunnels share: the question of a message, and the lesser
//! warrant for what honest software also does.

use super::super::registry::Weight;
use super::super::signal::Warrant;
use crate::app::dns::Question;
use crate::flow::{Observation, ObservationKind, Route, Toward};
use sekisho_schema::Grade;
use std::net::IpAddr;

/// A DNS question of an inside end.
pub(super) struct Asked {
    /// Who asked.
    pub(super) host: IpAddr,
    /// Placeholders for who asked and who was asked.
    pub(super) who: [&'static str; 2],
    pub(super) question: Question,
}

/// The question that an observed DNS query of an inside end asks.
///
/// Between two inside ends the one that was seen first counts as local, which may be the resolver.
pub(super) fn ask(o: &Observation<'_>) -> Option<Asked> {
    let ObservationKind::Message { toward, message } = o.kind else { return None };
    let key = &o.flow.key;
    let (host, who) = match toward {
        Toward::Remote => (key.local.ip(), ["{host}", "{remote}"]),
        Toward::Local if o.flow.route == Route::Inside => (key.remote.ip(), ["{remote}", "{host}"]),
        Toward::Local => return None,
    };
    if message.is_response() {
        return None;
    }
    message.question().map(|question| Asked { host, who, question })
}

/// Whether a stranger's page can make a browser ask for records of this type: A, AAAA, SVCB, HTTPS.
pub(super) const fn is_led(qtype: u16) -> bool {
    matches!(qtype, 1 | 28 | 64 | 65)
}

/// The warrant for a sign that honest software shows too: it never cuts, and is worth this at most.
pub(super) fn lesser(warrant: &Warrant, grade: Grade) -> Warrant {
    Warrant { grade: warrant.grade.min(grade), weight: Weight::Scores, ..warrant.clone() }
}

/// The settings of a detector in the shipped pack of frameworks.
#[cfg(test)]
pub(super) fn shipped<T: serde::de::DeserializeOwned>(id: &str) -> T {
    let pack = include_str!("../../../../rules/packs/frameworks.toml");
    let pack = sekisho_schema::pack::RulePack::parse(pack).unwrap();
    pack.detector.iter().find(|entry| entry.id == id).unwrap().settings_as().unwrap()
}
