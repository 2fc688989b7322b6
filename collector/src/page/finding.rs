//! A finding on the page: the sentence first, every fact behind it.

use super::board::{Moment, moment};
use super::text::{self, visible};
use crate::store::FindingView;

/// A finding on the page.
#[derive(Debug)]
pub struct Row {
    /// Its anchor.
    pub anchor: String,
    /// When.
    pub at: Moment,
    /// Where.
    pub host: String,
    /// Which detector.
    pub detector: String,
    /// How bad.
    pub grade: &'static str,
    /// The sentence.
    pub explanation: String,
    /// What policy did.
    pub decision: String,
    /// Whether it cut.
    pub contained: bool,
    /// Time to contain.
    pub time_to_contain: Option<String>,
    /// Facts by name.
    pub facts: Vec<(&'static str, String)>,
    /// Evidence: kind and facts.
    pub evidence: Vec<(String, String)>,
}

/// The row of a finding.
pub(super) fn row(view: &FindingView) -> Row {
    let finding = &view.finding;
    let contained = finding.decision.action == sekisho_schema::Action::Contain;
    Row {
        anchor: format!("f-{}", view.cursor),
        at: moment(view.at),
        host: visible(&view.host),
        detector: visible(&finding.detector),
        grade: match finding.grade {
            sekisho_schema::Grade::Odd => "odd",
            sekisho_schema::Grade::Suspect => "suspect",
            sekisho_schema::Grade::Malicious => "malicious",
        },
        explanation: visible(&finding.explanation),
        decision: text::decision(&finding.decision),
        contained,
        time_to_contain: view
            .receipt
            .as_ref()
            .and_then(|receipt| receipt.time_to_contain_ns)
            .map(text::short_time),
        facts: facts(view),
        evidence: finding
            .evidence
            .iter()
            .take(20)
            .map(|evidence| {
                (
                    visible(&evidence.kind),
                    visible(
                        &evidence
                            .facts
                            .iter()
                            .map(|(name, value)| format!("{name}: {}", plain(value)))
                            .collect::<Vec<_>>()
                            .join(" · "),
                    ),
                )
            })
            .collect(),
    }
}

/// A JSON value as a person writes it.
pub(super) fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn facts(view: &FindingView) -> Vec<(&'static str, String)> {
    let finding = &view.finding;
    let process = finding.process.as_ref().map(|process| {
        let mut text = format!(
            "{} (pid {})",
            process.exe.as_deref().unwrap_or("unknown program"),
            process.pid
        );
        for (name, value) in [
            ("unit", &process.unit),
            ("container", &process.container),
            ("cgroup", &process.cgroup),
        ] {
            if let Some(value) = value {
                text.push_str(&format!(", {name} {value}"));
            }
        }
        text
    });
    let place = finding.place.as_ref().map(|place| {
        let asn = place.asn.map(|asn| format!("AS{asn}"));
        [place.country.clone(), asn, place.organization.clone()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" · ")
    });
    let indicator = finding.indicator.as_ref().map(|indicator| {
        format!(
            "{} ({}, confidence {} of 100)",
            indicator.value, indicator.source, indicator.confidence
        )
    });
    let flow = finding
        .flow
        .as_ref()
        .map(|flow| format!("{} {} → {}", flow.transport, flow.local, flow.remote));
    let community = finding.flow.as_ref().map(|flow| flow.community_id.clone());
    let receipt = view.receipt.as_ref().map(|receipt| {
        format!(
            "{}; after the match {} in {} packets left",
            if receipt.applied { "held by the kernel" } else { "NOT held" },
            text::bytes(receipt.leaked_bytes as f64),
            receipt.leaked_packets
        )
    });
    [
        ("process", process),
        ("flow", flow),
        ("name", finding.name.clone()),
        ("place", place),
        ("about", Some(format!("{} {}", finding.subject.kind, finding.subject.value))),
        ("indicator", indicator),
        ("score", finding.score.map(|score| format!("{score:.2}"))),
        ("receipt", receipt),
        ("rule", finding.rule.clone()),
        ("policy", Some(format!("version {}", finding.policy))),
        ("frame", Some(finding.frame.to_string())),
        ("community id", community),
        ("finding", Some(format!("{} (event {} of boot {})", finding.id, view.seq, view.boot))),
    ]
    .into_iter()
    .filter_map(|(name, value)| {
        value.filter(|value| !value.is_empty()).map(|value| (name, visible(&value)))
    })
    .collect()
}
