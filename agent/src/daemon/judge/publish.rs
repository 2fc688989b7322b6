//! What others may see of the judgement: a status that is swapped whole, and gauges.

use super::super::cut::Cut;
use super::Judge;
use crate::clock;
use crate::control::{
    CaptureStatus, InterfaceStatus, LearningStatus, ModeStatus, PolicyStatus, RecordStatus, Status,
};
use crate::enforce::{Plan, coverage, kinds};
use sekisho_schema::event::CoverageReport;
use sekisho_schema::{Body, Coverage, Record};
use std::sync::PoisonError;

impl Judge {
    /// What passes a cut on this host, by name: as the lookout saw it, or before its first look as the devices tell.
    pub(in super::super) fn coverage(&self) -> Coverage {
        self.gaps.clone().unwrap_or_else(|| match &self.cut {
            Some(cut) => cut.coverage().clone(),
            None => coverage(&Plan { uplinks: self.ground.uplinks.clone(), ..Plan::default() }),
        })
    }

    /// Takes note of what passes a cut: it stands in every receipt from here on.
    pub(super) fn uncovered(&mut self, gaps: Coverage, record: bool) {
        if let Some(cut) = &mut self.cut {
            cut.cover(&gaps);
        }
        self.shared.metrics.values().gaps = kinds(&gaps);
        if record {
            let facts = self.shared.facts.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let report = CoverageReport { uncovered: gaps.clone(), facts };
            self.write_down(Record { at: clock::now(), body: Body::Coverage(report) });
        }
        self.gaps = Some(gaps);
        self.publish();
    }

    /// Publishes what findings changed: once for a batch of frames.
    pub(in super::super) fn publish_if_due(&mut self) {
        if self.stale {
            self.publish();
        }
    }

    pub(super) fn measure(&mut self, capture: &[InterfaceStatus]) {
        let summary = self.engine.summary();
        let leaked = self.board.leaked();
        let mut values = self.shared.metrics.values();
        values.packets = summary.frames;
        values.bytes = summary.bytes;
        values.dropped = summary.dropped;
        values.unparsed = summary.unparsed;
        values.flows = self.engine.totals().live;
        values.containments = self.board.levels();
        values.leaked_bytes += leaked.saturating_sub(self.leaked);
        self.leaked = leaked;
        for interface in capture {
            if !interface.paths.is_empty() {
                let paths = if interface.paths.starts_with("bulk only") { 1 } else { 2 };
                values.paths.insert(interface.name.clone(), paths);
            }
            let offered = interface.received.max(1);
            let read = interface.received.saturating_sub(interface.dropped);
            values.coverage.insert(interface.name.clone(), read as f64 / offered as f64);
        }
        values.requested = self.engine.requested_mode().to_string();
        values.effective = self.engine.effective_mode().to_string();
        values.policy_version = self.engine.policy_version();
    }

    pub(super) fn publish(&mut self) {
        let interfaces = self
            .shared
            .status
            .lock()
            .map(|status| status.capture.interfaces.clone())
            .unwrap_or_default();
        self.publish_with(interfaces);
    }

    pub(super) fn publish_with(&mut self, interfaces: Vec<InterfaceStatus>) {
        self.stale = false;
        let (requested, effective) = (self.engine.requested_mode(), self.engine.effective_mode());
        let summary = self.engine.summary();
        let policy = self.engine.policy();
        let now = clock::now();
        let episodes = self.engine.episodes().len() as u64;
        let status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: self.constant.host.clone(),
            boot: self.constant.boot.clone(),
            pid: std::process::id(),
            started_at: self.constant.started_at,
            at: now,
            mode: ModeStatus {
                requested,
                effective,
                why: self.engine.mode_fault().map(str::to_owned),
            },
            policy: PolicyStatus {
                version: policy.version,
                origin: self.policy_origin.to_owned(),
                expires: policy.expires,
                frozen: false,
                refused: None,
                owner: policy.duty.owner.clone(),
            },
            capture: CaptureStatus {
                interfaces,
                frames: summary.frames,
                bytes_out: summary.bytes_out,
                flows: summary.flows,
                realtime: self.realtime.clone(),
            },
            containments: self.board.list(),
            findings: self.board.findings,
            enforcement: self.cut.as_ref().and_then(Cut::failure).map(str::to_owned),
            guardian: None,
            coverage: self.coverage(),
            known: self.known.status(),
            learning: LearningStatus {
                record: RecordStatus { episodes, ..RecordStatus::default() },
                authority: self.authority_status(now),
                ..LearningStatus::default()
            },
            journal: crate::control::JournalStatus::default(),
            collector: crate::control::CollectorStatus::default(),
        };
        let told = (requested, effective, status.containments.len(), policy.version);
        self.shared.publish(status);
        if self.told_state != told {
            self.told_state = told;
            self.shared.sync.changed.notify_one();
        }
    }
}
