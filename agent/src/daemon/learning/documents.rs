//! The baseline and the certificate of the role, as people sealed them: looked at when their files change.

use crate::baseline::{
    BASELINE_FILE, BaselineFileError, CERTIFICATE_FILE, open_baseline, open_certificate,
};
use crate::chain::causes;
use crate::control::DocumentsStatus;
use crate::state::load_anchors;
use sekisho_schema::baseline::RoleBaseline;
use sekisho_schema::certificate::Certificate;
use sekisho_schema::{Timestamp, TrustAnchors, Verified};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What helps when a document is refused.
const HELP: &str = "`sekisho baseline import FILE` takes one that a trust anchor of this host sealed; `sekisho check` says what is wrong";

/// What the detecting thread is to go by from now on.
pub(in super::super) enum Change {
    Baseline(Option<Box<Verified<RoleBaseline>>>),
    Certificate(Option<Box<Verified<Certificate>>>),
    /// What was in force stays.
    Nothing,
}

/// A document was adopted, refused or given back.
pub(in super::super) struct News {
    pub(in super::super) change: Change,
    /// The outcome in records: `certificate-adopted` and the like.
    pub(in super::super) outcome: &'static str,
    /// What happened, in words.
    pub(in super::super) why: String,
}

/// What tells that a file is another: device, inode, length, time of change.
type Stamp = (u64, u64, u64, i64, i64);

/// A document: its file as it was looked at last, and the version in force.
#[derive(Default)]
struct Held {
    looked: Option<Option<Stamp>>,
    version: Option<u64>,
}

impl Held {
    /// Whether the file is another than at the last look; it is looked at now.
    fn is_new(&mut self, path: &Path) -> Option<Option<Stamp>> {
        let stamp = fs::metadata(path)
            .ok()
            .map(|data| (data.dev(), data.ino(), data.len(), data.mtime(), data.mtime_nsec()));
        (self.looked.replace(stamp) != Some(stamp)).then_some(stamp)
    }
}

/// Both documents.
pub(super) struct Documents {
    state: PathBuf,
    trust: PathBuf,
    role: String,
    baseline: Held,
    certificate: Held,
    status: DocumentsStatus,
}

impl Documents {
    pub(super) fn new(state: PathBuf, trust: PathBuf, role: String) -> Self {
        Self {
            state,
            trust,
            role,
            baseline: Held::default(),
            certificate: Held::default(),
            status: DocumentsStatus::default(),
        }
    }

    pub(super) fn role(&self) -> &str {
        &self.role
    }

    pub(super) const fn status(&self) -> &DocumentsStatus {
        &self.status
    }

    /// Everything is to be looked at again, changed or not: the anchors may be others.
    pub(super) fn look_again(&mut self) {
        (self.baseline.looked, self.certificate.looked) = (None, None);
    }

    /// The host is of another role from now on: what was signed for the old one counts no more.
    pub(super) fn become_of(&mut self, role: String) -> Vec<News> {
        if role == self.role {
            return Vec::new();
        }
        let why = format!("the host is of role \"{role}\" now, not of \"{}\"", self.role);
        self.role = role;
        self.look_again();
        let news = [self.give_back_certificate(&why), self.give_back_baseline(&why)];
        news.into_iter().flatten().collect()
    }

    /// Looks at both files; what is new and holds comes into force, the baseline first.
    pub(super) fn look(&mut self, now: Timestamp) -> Vec<News> {
        let mut news = Vec::new();
        if self.status.expires.is_some_and(|expires| expires <= now) {
            let expired = self.status.expires.map(|at| at.to_string()).unwrap_or_default();
            news.extend(self.give_back_certificate(&format!("it expired at {expired}")));
        }
        if let Some(stamp) = self.baseline.is_new(&self.state.join(BASELINE_FILE)) {
            news.extend(match stamp {
                Some(_) => Some(self.take_baseline()),
                None => self.give_back_baseline("its file is gone"),
            });
        }
        if let Some(stamp) = self.certificate.is_new(&self.state.join(CERTIFICATE_FILE)) {
            news.extend(match stamp {
                Some(_) => Some(self.take_certificate(now)),
                None => self.give_back_certificate("its file is gone"),
            });
        }
        news
    }

    fn anchors(&self) -> Result<TrustAnchors, String> {
        load_anchors(&self.trust).map_err(|error| causes(&error))
    }

    fn take_baseline(&mut self) -> News {
        let in_force = self.baseline.version.unwrap_or(0);
        let opened = self.anchors().and_then(|anchors| {
            let baseline = said(open_baseline(&self.state, &anchors, in_force))?;
            self.is_ours("baseline", &baseline.role).map(|()| baseline)
        });
        match opened {
            Err(why) => self.refuse("baseline-refused", self.baseline.version, why),
            Ok(baseline) => {
                self.baseline.version = Some(baseline.version);
                self.status.baseline = Some(baseline.version);
                self.status.destinations = baseline.entry.len() as u64;
                self.status.refused = None;
                let why = format!(
                    "baseline {} of role {}: {} destinations, {} change windows",
                    baseline.version,
                    baseline.role,
                    baseline.entry.len(),
                    baseline.window.len()
                );
                tracing::info!(%why, "baseline adopted");
                let change = Change::Baseline(Some(Box::new(baseline)));
                News { change, outcome: "baseline-adopted", why }
            }
        }
    }

    fn take_certificate(&mut self, now: Timestamp) -> News {
        let in_force = self.certificate.version.unwrap_or(0);
        let opened = self.anchors().and_then(|anchors| {
            let opened = said(open_certificate(&self.state, &anchors, now, in_force))?;
            self.is_ours("certificate", &opened.0.role).map(|()| opened)
        });
        match opened {
            Err(why) => self.refuse("certificate-refused", self.certificate.version, why),
            Ok((certificate, expires)) => {
                self.certificate.version = Some(certificate.version);
                self.status.certificate = Some(certificate.version);
                self.status.expires = Some(expires);
                self.status.refused = None;
                let why = format!(
                    "certificate {} of role {}: it rests on {:.1} host-weeks and counts until {expires}",
                    certificate.version, certificate.role, certificate.host_weeks
                );
                tracing::info!(%why, "certificate adopted");
                let change = Change::Certificate(Some(Box::new(certificate)));
                News { change, outcome: "certificate-adopted", why }
            }
        }
    }

    fn is_ours(&self, what: &str, role: &str) -> Result<(), String> {
        if role == self.role {
            return Ok(());
        }
        Err(format!("the {what} is of role \"{role}\", this host of \"{}\"", self.role))
    }

    fn refuse(&mut self, outcome: &'static str, in_force: Option<u64>, why: String) -> News {
        let state = in_force.map_or_else(
            || "none is in force: nothing is unlocked by it".to_owned(),
            |version| format!("version {version} stays in force"),
        );
        tracing::error!(error = %why, %state, help = HELP, outcome);
        let why = format!("{why}; {state}");
        self.status.refused = Some(why.clone());
        self.status.refusals += 1;
        News { change: Change::Nothing, outcome, why }
    }

    fn give_back_certificate(&mut self, why: &str) -> Option<News> {
        let version = self.certificate.version.take()?;
        (self.status.certificate, self.status.expires) = (None, None);
        let why = format!("certificate {version} counts no more: {why}");
        tracing::warn!(%why, state = "behaviour alerts, and holds or cuts nothing", help = HELP, "certificate given back");
        Some(News { change: Change::Certificate(None), outcome: "certificate-withdrawn", why })
    }

    fn give_back_baseline(&mut self, why: &str) -> Option<News> {
        let version = self.baseline.version.take()?;
        (self.status.baseline, self.status.destinations) = (None, 0);
        let why = format!("baseline {version} counts no more: {why}");
        tracing::warn!(%why, state = "what was learned is taken for normal, signed or not", help = HELP, "baseline given back");
        Some(News { change: Change::Baseline(None), outcome: "baseline-withdrawn", why })
    }
}

fn said<T>(opened: Result<T, BaselineFileError>) -> Result<T, String> {
    opened.map_err(|error| causes(&error))
}

#[cfg(test)]
mod tests;
