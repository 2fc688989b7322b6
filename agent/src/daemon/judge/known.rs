//! Destinations known beforehand: what the preload thread shall hold, and what the kernel dropped of them.

use super::super::preload::{Job, Preload, Wish};
use super::Judge;
use crate::capture::refused::RefusedLog;
use crate::chain::causes;
use crate::clock;
use crate::control::KnownStatus;
use crate::guardian::Guardian;
use sekisho_engine::wire::Frame;
use sekisho_schema::policy::Mode;
use sekisho_schema::{Grade, Policy, Scope};
use std::net::IpAddr;
use std::sync::Arc;

/// The detector that sights an address.
const DETECTOR: &str = "indicator.ip";
/// The least level that cuts something.
const CUTS: u8 = 3;

/// The judge's side of the preload.
#[derive(Default)]
pub(super) struct Known {
    preload: Option<Preload>,
    /// What is to be held as soon as the log of dropped packets is open, or known not to open.
    waiting: Option<Box<Wish>>,
    /// Whether the thread was told to hold something.
    told: bool,
    /// Why packets that are dropped are not told.
    deaf: Option<String>,
}

/// Whether the kernel holds known destinations of an earlier run.
pub(super) fn is_left_behind(guardian: &Guardian) -> bool {
    let held = guardian.known().and_then(|mut hand| hand.read());
    held.is_ok_and(|held| !held.is_empty())
}

impl Known {
    /// Our tables were loaded anew.
    pub(super) fn look(&self) {
        if let Some(preload) = &self.preload {
            preload.tell(Job::Look);
        }
    }

    pub(super) fn status(&self) -> KnownStatus {
        let mut status = self.preload.as_ref().map(Preload::status).unwrap_or_default();
        status.failure = status.failure.or_else(|| self.deaf.clone());
        status
    }
}

impl Judge {
    /// Grades of an address's sighting that cut by policy; none unless the policy cuts at all.
    pub(super) fn cutting_grades(&self, policy: &Policy) -> Vec<Grade> {
        if policy.mode != Mode::Enforce || self.constant.preloaded == 0 {
            return Vec::new();
        }
        let cuts = |grade| policy.rule_for(DETECTOR, grade).is_some_and(|rule| rule.level >= CUTS);
        [Grade::Malicious, Grade::Suspect, Grade::Odd]
            .into_iter()
            .filter(|grade| cuts(*grade))
            .collect()
    }

    /// Tells the preload thread what shall be held under policy, rules and ruleset as they are now.
    pub(in super::super) fn wish_known(&mut self) {
        let grades = self.cutting_grades(self.engine.policy());
        let wish =
            self.cut.as_ref().filter(|cut| cut.plan().known && !grades.is_empty()).map(|cut| {
                let indicators = self.engine.rules().indicators.clone();
                Box::new(Wish { plan: cut.plan().clone(), grades, indicators })
            });
        self.known.waiting = wish;
        if self.known.waiting.is_none() && self.known.told {
            self.known.told = false;
            if let Some(preload) = &self.known.preload {
                preload.tell(Job::Wish(None));
            }
        }
    }

    /// Whether what the kernel drops of known destinations is to be heard.
    pub(in super::super) const fn listens(&self) -> bool {
        self.known.waiting.is_some() || self.known.told
    }

    /// Holds what waits, now that drops are heard; or all the same when they can't be.
    pub(in super::super) fn hold_known(&mut self, log: Result<(), String>) {
        if let Err(why) = &log
            && self.known.deaf.is_none()
        {
            tracing::error!(error = %why, state = "known destinations are dropped by the kernel; attempts are counted and not told", "cannot hear what the kernel drops");
        }
        self.known.deaf = log.err();
        let Some(wish) = self.known.waiting.take() else { return };
        if self.known.preload.is_none() {
            let (inbox, metrics) = (self.shared.inbox.clone(), Arc::clone(&self.shared.metrics));
            let guardian = self.constant.guardian.clone();
            match Preload::spawn(inbox, metrics, self.constant.preloaded, guardian) {
                Ok(preload) => self.known.preload = Some(preload),
                Err(error) => {
                    tracing::error!(%error, state = "known destinations are cut when they are seen, not before", "no thread for the preload");
                    return;
                }
            }
        }
        self.known.told = true;
        if let Some(preload) = &self.known.preload {
            preload.tell(Job::Wish(Some(wish)));
        }
    }

    /// Whether a wish waits.
    pub(in super::super) const fn has_known_waiting(&self) -> bool {
        self.known.waiting.is_some()
    }

    /// Judges packets that the kernel dropped for their destination.
    pub(in super::super) fn hear(&mut self, log: &mut RefusedLog) {
        let read = log.read(|| clock::now().nanos(), |frame| self.refused(frame));
        if let Err(error) = read {
            // More than the queue holds: the kernel's counter has them all.
            tracing::info!(error = %causes(&error), "some packets to known destinations were dropped without being told");
        }
    }

    fn refused(&mut self, frame: Frame<'_>) {
        // What is cut meanwhile was dropped here too: it must not count as having left.
        let covered = self.engine.held().containments.values().any(|held| match held.scope {
            Scope::Destination(address) => destination(frame.bytes) == Some(address.to_canonical()),
            Scope::Host | Scope::ManagementOnly => true,
            Scope::Cgroup(_) | Scope::Container(_) | Scope::Internal(_) | Scope::Link(_) => false,
        });
        if !covered {
            self.frame(frame);
        }
    }
}

/// The destination of an IP packet.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => <[u8; 4]>::try_from(packet.get(16..20)?).ok().map(IpAddr::from),
        6 => <[u8; 16]>::try_from(packet.get(24..40)?)
            .ok()
            .map(|octets| IpAddr::from(octets).to_canonical()),
        _ => None,
    }
}
