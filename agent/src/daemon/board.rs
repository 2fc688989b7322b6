//! What is known of the containments in force, told by the engine's own records.

use crate::control::ContainmentStatus;
use crate::enforce::Held;
use crate::journal::read_envelopes;
use sekisho_schema::{Body, Containment, ContainmentId};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

/// Sentences of findings that are remembered for containments yet to be told.
const SENTENCES: usize = 1024;

/// Containments in force with their sentences and receipts.
#[derive(Debug, Default)]
pub(super) struct Board {
    containments: BTreeMap<ContainmentId, ContainmentStatus>,
    sentences: VecDeque<(String, String)>,
    /// Findings told since the start.
    pub(super) findings: u64,
    leaked: u64,
}

impl Board {
    /// Takes note of a record.
    pub(super) fn note(&mut self, body: &Body) {
        match body {
            Body::Containment(containment) => self.begin(containment),
            Body::Finding(finding) => {
                self.findings += 1;
                if self.sentences.len() == SENTENCES {
                    self.sentences.pop_front();
                }
                self.sentences.push_back((finding.id.clone(), finding.explanation.clone()));
                for status in self.containments.values_mut().filter(|status| {
                    status.containment.finding.as_deref() == Some(finding.id.as_str())
                }) {
                    status.explanation.get_or_insert_with(|| finding.explanation.clone());
                }
            }
            Body::Receipt(receipt) => {
                if let Some(status) = self.containments.get_mut(&receipt.containment) {
                    let before = status.receipt.as_ref().map_or(0, |before| before.leaked_bytes);
                    self.leaked += receipt.leaked_bytes.saturating_sub(before);
                    status.receipt = Some(receipt.as_ref().clone());
                }
            }
            Body::Release(release) => {
                self.containments.remove(&release.containment);
            }
            _ => {}
        }
    }

    fn begin(&mut self, containment: &Containment) {
        let sentence = containment
            .finding
            .as_ref()
            .and_then(|id| self.sentences.iter().rev().find(|(finding, _)| finding == id))
            .map(|(_, sentence)| sentence.clone());
        let status = self.containments.entry(containment.id.clone()).or_insert_with(|| {
            ContainmentStatus { containment: containment.clone(), explanation: None, receipt: None }
        });
        status.containment = containment.clone();
        if sentence.is_some() {
            status.explanation = sentence;
        }
    }

    /// Puts a sentence to a containment from before the start.
    pub(super) fn explain(&mut self, finding: &str, sentence: &str) {
        self.sentences.push_back((finding.to_owned(), sentence.to_owned()));
    }

    /// The containments in force.
    pub(super) fn list(&self) -> Vec<ContainmentStatus> {
        self.containments.values().cloned().collect()
    }

    /// Bytes that left after the match, over all containments so far.
    pub(super) const fn leaked(&self) -> u64 {
        self.leaked
    }

    /// How many are in force on each level.
    pub(super) fn levels(&self) -> BTreeMap<u8, u64> {
        let mut levels = BTreeMap::new();
        for status in self.containments.values() {
            *levels.entry(status.containment.level).or_default() += 1;
        }
        levels
    }
}

/// What the journal tells of containments from before the start: how they began, and the sentence behind them.
pub(super) fn recall(
    journal: &Path,
    held: &[Held],
) -> BTreeMap<ContainmentId, (Option<Containment>, Option<String>)> {
    let mut told: BTreeMap<ContainmentId, (Option<Containment>, Option<String>)> = BTreeMap::new();
    let mut sentences: BTreeMap<String, String> = BTreeMap::new();
    let read = read_envelopes(journal, |envelope| {
        match envelope.body {
            Body::Containment(containment) if held.iter().any(|held| held.id == containment.id) => {
                let sentence = containment
                    .finding
                    .as_ref()
                    .and_then(|finding| sentences.get(finding))
                    .cloned();
                told.insert(containment.id.clone(), (Some(*containment), sentence));
            }
            Body::Finding(finding)
                if finding
                    .decision
                    .containment
                    .as_ref()
                    .is_some_and(|id| held.iter().any(|held| held.id == *id)) =>
            {
                sentences.insert(finding.id, finding.explanation);
            }
            _ => {}
        }
        true
    });
    if let Err(error) = read {
        tracing::debug!(%error, "the journal tells nothing of what is held");
    }
    told
}
