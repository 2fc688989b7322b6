//! The figures of a rehearsal, and what they are worth.

use super::canary::Account;
use super::overlay::is_of_workload;
use super::scenario::Drill;
use sekisho_schema::event::DrillReport;
use sekisho_schema::finding::{Action, Finding, Reason};
use sekisho_schema::policy::Mode;
use sekisho_schema::{Receipt, Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Frames that were under way when the kernel acknowledged arrive within this.
pub(super) const UNDER_WAY: Span = Span::from_millis(1);
/// A check that held.
const OK: &str = "ok";

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The finding in the second instance.
    pub id: String,
    /// The detector.
    pub detector: String,
    /// Its sentence.
    pub explanation: String,
    /// What was decided.
    pub action: Action,
    /// Why nothing was cut, where nothing was.
    pub reason: Option<Reason>,
    /// The level decided.
    pub level: u8,
    /// When the evidence was complete.
    pub matched_at: Timestamp,
}

impl From<&Finding> for Found {
    fn from(finding: &Finding) -> Self {
        Self {
            id: finding.id.clone(),
            detector: finding.detector.clone(),
            explanation: finding.explanation.clone(),
            action: finding.decision.action,
            reason: finding.decision.reason,
            level: finding.decision.level,
            matched_at: finding.matched_at,
        }
    }
}

/// What was measured, with the times of an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// The mode of the second instance.
    pub mode: Mode,
    /// Why it is not `enforce`, where it is not.
    pub mode_why: Option<String>,
    /// How its detecting thread was scheduled.
    pub scheduling: String,
    /// The first packet of the intruder that arrived outside.
    pub first_packet_at: Option<Timestamp>,
    /// What was found.
    pub found: Option<Found>,
    /// What the kernel held.
    pub receipt: Option<Receipt>,
    /// The highest level that was held.
    pub level: u8,
    /// The level that the decision table has for it.
    pub policy_level: u8,
    /// The last packet with payload that arrived at the intruder's end, until the release.
    pub last_packet_at: Option<Timestamp>,
    /// Packets with payload that arrived there after the match.
    pub leaked_packets: u64,
    /// Their payload in bytes.
    pub leaked_bytes: u64,
    /// Packets with payload that arrived there although the kernel had acknowledged the cut.
    pub late_packets: u64,
    /// Bytes that the intruder meant to steal.
    pub theft_bytes: u64,
    /// Whether intruder and peer could be reached under the cut.
    pub under_cut: Option<(bool, bool)>,
    /// Whether intruder and peer could be reached after the release; `None` when nothing was released.
    pub released: Option<(bool, bool)>,
    /// Why a release was refused.
    pub release_error: Option<String>,
    /// What became of the legitimate connection until the release: answers, losses, longest wait in microseconds.
    pub business: (u64, u64, u64),
    /// Tries of the implant to go on after it had been cut off.
    pub attempts: u64,
}

impl Figures {
    pub(super) fn take(&mut self, account: &Account) {
        self.business = (account.answers, account.lost, account.longest_us);
        self.attempts = account.attempts;
    }

    /// First packet to match.
    fn time_to_detect(&self) -> Option<Span> {
        let found = self.found.as_ref()?;
        Some(found.matched_at.since(self.first_packet_at?).max(Span::ZERO))
    }

    /// The report of these figures; it holds when every check does.
    #[must_use]
    pub fn report(&self, drill: &Drill, by: &str) -> DrillReport {
        let checks = self.checks(drill);
        let amiss: Vec<&str> =
            checks.values().map(String::as_str).filter(|check| *check != OK).collect();
        let passed = amiss.is_empty();
        let detail = if passed { self.sentence() } else { amiss.join("; ") };
        DrillReport {
            name: drill.name.clone(),
            passed,
            detail,
            by: Some(by.to_owned()),
            time_to_detect_ns: self.time_to_detect().map(Span::nanos),
            time_to_contain_ns: self.receipt.as_ref().and_then(|held| held.time_to_contain_ns),
            leaked_bytes: self.leaked_bytes,
            checks,
        }
    }

    fn sentence(&self) -> String {
        let millis = |span: Option<Span>| {
            span.map_or_else(|| "?".to_owned(), |span| format!("{:.3}", span.nanos() as f64 / 1e6))
        };
        let contain = self.receipt.as_ref().and_then(|held| held.time_to_contain_ns);
        let limit = if is_of_workload(self.policy_level) && self.level < self.policy_level {
            "; the cut of a workload is not rehearsed, only that of its destination"
        } else {
            ""
        };
        format!(
            "found {} ms after the first packet, cut {} ms after the deciding frame on level {}, {} bytes of {} left after the match, {} answers of the legitimate peer and none lost, released{limit}",
            millis(self.time_to_detect()),
            millis(contain.map(Span::from_nanos)),
            self.level,
            self.leaked_bytes,
            self.theft_bytes,
            self.business.0,
        )
    }

    fn checks(&self, drill: &Drill) -> BTreeMap<String, String> {
        let mut checks = BTreeMap::new();
        let mut check = |name: &str, outcome: Result<(), String>| {
            checks.insert(name.to_owned(), outcome.err().unwrap_or_else(|| OK.to_owned()));
        };
        check("mode", self.mode_check());
        check("found", self.found_check(drill));
        check("cut", self.cut_check(drill));
        if let Some(receipt) = &self.receipt {
            check("proof", proven(receipt.proof.cut.as_deref(), "proven", "the cut"));
            let exemptions = receipt.proof.exemptions.as_deref();
            check("exemptions", proven(exemptions, OK, "the exemptions"));
            check("contain_time", self.time_check(drill));
            check("release", self.release_check());
        }
        check("leak", self.leak_check(drill));
        check("business", self.business_check());
        checks
    }

    fn mode_check(&self) -> Result<(), String> {
        if self.mode == Mode::Enforce {
            return Ok(());
        }
        let why = self.mode_why.as_deref().unwrap_or("no cause given");
        Err(format!("this host can't cut: only {} was in effect: {why}", self.mode))
    }

    fn found_check(&self, drill: &Drill) -> Result<(), String> {
        match &self.found {
            Some(_) => Ok(()),
            None => Err(format!("{} did not find the intruder", drill.expect.detector)),
        }
    }

    fn cut_check(&self, drill: &Drill) -> Result<(), String> {
        let Some(found) = &self.found else {
            return Err("nothing was found, and nothing was cut".to_owned());
        };
        let Some(receipt) = &self.receipt else {
            return Err(match (found.action, found.reason) {
                (Action::Record, _) => format!(
                    "the policy in force does not cut upon {}: its decision table says record",
                    found.detector
                ),
                (_, Some(reason)) => {
                    format!(
                        "the policy in force does not cut upon {}: {}",
                        found.detector,
                        word(reason)
                    )
                }
                (_, None) => "a cut was decided and not told to be held".to_owned(),
            });
        };
        if !receipt.applied {
            let why = receipt.error.as_deref().unwrap_or("no cause given");
            return Err(format!("the kernel did not take the cut: {why}"));
        }
        if self.level < drill.expect.level {
            return Err(format!(
                "cut on level {} only; the drill asks for {} at least",
                self.level, drill.expect.level
            ));
        }
        if self.late_packets > 0 {
            return Err(format!(
                "{} packets reached the intruder although the kernel held the cut",
                self.late_packets
            ));
        }
        match self.under_cut {
            Some((true, _)) => Err("the intruder could be reached under the cut".to_owned()),
            _ => Ok(()),
        }
    }

    fn time_check(&self, drill: &Drill) -> Result<(), String> {
        let most = drill.limits.contain_ms;
        match self.receipt.as_ref().and_then(|held| held.time_to_contain_ns) {
            Some(nanos) if u128::from(nanos.unsigned_abs()) <= u128::from(most) * 1_000_000 => {
                Ok(())
            }
            Some(nanos) => Err(format!(
                "cut {:.3} ms after the deciding frame; at most {most} ms are allowed",
                nanos as f64 / 1e6
            )),
            None => Err("the time to contain was not told".to_owned()),
        }
    }

    fn leak_check(&self, drill: &Drill) -> Result<(), String> {
        let most = drill.limits.leaked_bytes;
        if self.leaked_bytes > most {
            let leaked = self.leaked_bytes;
            return Err(format!("{leaked} bytes left after the match; at most {most} are allowed"));
        }
        Ok(())
    }

    fn business_check(&self) -> Result<(), String> {
        let (answers, lost, _) = self.business;
        match (answers, lost, self.under_cut) {
            (0, ..) => Err("the legitimate peer never answered".to_owned()),
            (_, 1.., _) => Err(format!("the legitimate connection was lost {lost} times")),
            (_, _, Some((_, false))) => {
                Err("the legitimate peer could not be reached under the cut".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn release_check(&self) -> Result<(), String> {
        if let Some(error) = &self.release_error {
            return Err(format!("the cut could not be released: {error}"));
        }
        match self.released {
            Some((true, true)) => Ok(()),
            Some((false, _)) => {
                Err("the intruder's end could not be reached after the release".to_owned())
            }
            Some((_, false)) => Err("the peer could not be reached after the release".to_owned()),
            None => Err("the cut was not released".to_owned()),
        }
    }
}

fn proven(outcome: Option<&str>, wanted: &str, what: &str) -> Result<(), String> {
    match outcome {
        Some(outcome) if outcome == wanted => Ok(()),
        Some(outcome) => Err(format!("{what}: {outcome}")),
        None => Err(format!("{what}: not tried in time")),
    }
}

const fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::AlreadyContained => "already contained",
        Reason::Budget => "its budget is spent",
        Reason::CannotEnforce => "this host can't hold a cut",
        Reason::DryRun => "dry-run",
        Reason::Escalated => "escalated",
        Reason::Exemption => "the intruder's address is exempt",
        Reason::Learn => "learn",
        Reason::Owner => "the workload was not known",
        Reason::Trial => "on trial",
    }
}

#[cfg(test)]
mod tests;
