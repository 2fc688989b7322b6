//! The ruleset that the policy asks for: loaded, adopted, set right and taken away, and what is said when nobody can.

use super::super::cut::Cut;
use super::super::warden::{Presence, Warden};
use super::super::{Drifted, board};
use super::{Judge, known};
use crate::chain::causes;
use crate::clock;
use crate::enforce::{KernelAllowance, Plan};
use crate::host::own_cgroups;
use sekisho_engine::{HostFact, Input};
use sekisho_schema::policy::Mode;
use sekisho_schema::{Containment, Policy, Span};
use std::net::IpAddr;

/// An enforcer that could not be opened is tried again after this.
const REARM_AFTER: Span = Span::from_secs(10);
/// The same for a guardian that is gone: it tells when it is there again, so this is for one that did not tell.
const REARM_SOON: Span = Span::from_secs(2);
/// The kernel's remaining time is read a little after it was counted.
const ADOPTING: Span = Span::from_secs(2);
/// Time of an allowance (detection.md, section 3: channel V).
const ALLOWANCE_WINDOW: Span = Span::from_hours(7 * 24);

impl Judge {
    pub(super) fn plan(&self, policy: &Policy) -> Plan {
        Plan {
            uplinks: self.ground.uplinks.clone(),
            inside: policy.inside.clone(),
            on_link: self.ground.on_link.clone(),
            exempt: policy.exempt.clone(),
            collector: self.ground.collector.clone(),
            known: !self.cutting_grades(policy).is_empty(),
            names: policy.names.clone(),
            allowance: self.kernel_allowance(policy),
            own_cgroups: own_cgroups(),
            bridged: has_bridge(),
            ..Plan::default()
        }
    }

    /// The bound that the kernel holds by itself; only where cuts are made at all.
    fn kernel_allowance(&self, policy: &Policy) -> Option<KernelAllowance> {
        let allowance = &policy.allowance;
        if !allowance.in_kernel || policy.mode != Mode::Enforce {
            return None;
        }
        let named = allowance.approved.iter().filter_map(|text| {
            let network = text.parse::<ipnet::IpNet>().ok();
            network.or_else(|| text.parse::<IpAddr>().ok().map(ipnet::IpNet::from))
        });
        Some(KernelAllowance {
            bytes: allowance.per_destination_bytes,
            window: ALLOWANCE_WINDOW,
            approved: named.chain(self.approved.iter().copied().map(ipnet::IpNet::from)).collect(),
        })
    }

    /// Loads the ruleset that a policy needs. Unless it says enforce, the kernel is not touched; but
    /// what it holds from before is ours to tell and to release whatever the mode.
    pub(super) fn arm(&mut self, policy: &Policy) {
        self.rearm_at = None;
        let is_needed = || {
            policy.mode == Mode::Enforce
                || self.is_holding().unwrap_or(false)
                || known::is_left_behind(&self.constant.guardian)
        };
        if self.cut.is_none() && !is_needed() {
            return;
        }
        let plan = self.plan(policy);
        let outcome = match &mut self.cut {
            Some(cut) => cut.reload(&plan).map_err(|error| causes(&error)),
            None => self.open_cut(&plan),
        };
        if let Err(why) = &outcome {
            tracing::error!(error = %why, state = "detection goes on; nothing new can be cut", help = "run `sekisho doctor`", "cannot enforce");
            self.rearm_at = Some(clock::now().after(REARM_AFTER));
        }
        self.input(Input::Fact(HostFact::Enforcement(outcome), clock::now()));
        self.adopt_held();
    }

    /// Takes our tables away once nothing needs them: only enforce has any.
    pub(super) fn stand_down(&mut self) {
        if self.cut.is_none()
            || self.rearm_at.is_some()
            || self.engine.requested_mode() == Mode::Enforce
            || !self.engine.held().containments.is_empty()
            || self.is_holding().unwrap_or(true)
        {
            return;
        }
        let Some(cut) = &mut self.cut else { return };
        match cut.remove() {
            Ok(()) => {
                self.cut = None;
                self.wish_known();
                self.shared.metrics.values().table_owned = false;
                tracing::info!("nothing is cut and the mode cuts nothing: our tables are gone");
            }
            Err(error) => {
                tracing::error!(error = %causes(&error), state = "they cut nothing", help = "run `sekisho doctor`", "cannot take our tables away");
                self.rearm_at = Some(clock::now().after(REARM_AFTER));
            }
        }
    }

    fn open_cut(&mut self, plan: &Plan) -> Result<(), String> {
        let guardian = self.constant.guardian.clone();
        let warden = Warden::spawn(self.shared.inbox.clone(), guardian.clone())
            .map_err(|error| format!("no thread for the warden: {error}"))?;
        let mut cut = Cut::open(plan, guardian, warden).map_err(|error| causes(&error))?;
        if let Some(gaps) = &self.gaps {
            cut.cover(gaps);
        }
        self.cut = Some(cut);
        Ok(())
    }

    /// What the kernel holds from before the start is ours to keep and to tell.
    fn adopt_held(&mut self) {
        let Some(cut) = &mut self.cut else { return };
        let held = cut.take_held();
        if held.is_empty() {
            return;
        }
        let now = clock::now();
        let told = board::recall(&self.constant.journal_dir, &held);
        let mut containments = Vec::new();
        for held in held {
            let (known, sentence) = told.get(&held.id).cloned().unwrap_or_default();
            if let (Some(sentence), Some(finding)) =
                (sentence, known.as_ref().and_then(|known| known.finding.clone()))
            {
                self.board.explain(&finding, &sentence);
            }
            let until = now.after(held.until_in);
            containments.push(match known {
                // What the kernel counts down on trial is the trial, not the lease. More time than that: it was confirmed.
                Some(known)
                    if known.trial_until.is_some_and(|trial| until <= trial.after(ADOPTING)) =>
                {
                    Containment { trial_until: Some(until), scope: held.scope, ..known }
                }
                Some(known) => Containment { until, scope: held.scope, trial_until: None, ..known },
                None => Containment {
                    id: held.id,
                    level: held.scope.level(),
                    scope: held.scope,
                    since: now,
                    until,
                    cause: "held by the kernel before this start".to_owned(),
                    finding: None,
                    by: None,
                    measure: sekisho_schema::Measure::Cut,
                    trial_until: None,
                },
            });
        }
        tracing::warn!(containments = containments.len(), "adopted what the kernel holds");
        self.input(Input::Fact(HostFact::Held(containments.clone()), now));
        let set = self.engine.held().clone();
        if let Some(cut) = &mut self.cut {
            cut.adopt(set, containments);
        }
    }

    pub(super) fn mend(&mut self, drifted: &Drifted) {
        if self.cut.is_none() {
            // Told before our tables were taken away.
            return;
        }
        let detail = drifted.what.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
        let who = drifted.who.as_ref().map(|who| format!(", by {who}")).unwrap_or_default();
        let after = match &drifted.failure {
            None => "was set right".to_owned(),
            Some(why) => format!("COULD NOT be set right ({why})"),
        };
        tracing::error!(what = %detail, who = ?drifted.who, failure = ?drifted.failure, "the kernel held something else than it should");
        self.gap(
            "drift",
            drifted.what.len() as u64,
            format!("the kernel held something else than decided and {after}: {detail}{who}"),
        );
        self.known.look();
        self.publish();
    }

    /// The guardian went, or came again.
    pub(super) fn guardian_is(&mut self, presence: Presence) {
        match presence {
            Presence::Back => {
                if self.cut.is_some() || self.engine.requested_mode() == Mode::Enforce {
                    let policy = self.engine.policy().clone();
                    self.arm(&policy);
                    self.chores(clock::now());
                    self.wish_known();
                    self.known.look();
                }
            }
            Presence::Gone(why) => {
                tracing::error!(error = %why, state = "what is cut stays cut until its lease ends; nothing new can be cut", "the guardian is gone");
                if let Some(cut) = &mut self.cut {
                    cut.lose();
                }
                self.cannot_cut(why);
            }
        }
        self.publish();
    }

    /// Nobody can cut: said before anything else is, so that no mode is told that is not in effect.
    pub(super) fn cannot_cut(&mut self, why: String) {
        let why = format!("the guardian is gone: {why}");
        self.rearm_at = Some(clock::now().after(REARM_SOON));
        self.input(Input::Fact(HostFact::Enforcement(Err(why)), clock::now()));
    }

    /// Whether the kernel holds containments of ours, whoever put them there.
    pub(super) fn is_holding(&self) -> Result<bool, crate::guardian::AskGuardianError> {
        Ok(!self.constant.guardian.asker()?.held()?.is_empty())
    }

    /// The kernel's packet log of a group, bound by the guardian.
    pub(in crate::daemon) fn packet_log(
        &mut self,
        group: u16,
    ) -> Result<std::os::fd::OwnedFd, String> {
        let Some(cut) = &mut self.cut else { return Err("nothing is loaded".to_owned()) };
        cut.packet_log(group).map_err(|error| causes(&error))
    }
}

/// Whether this host has a bridge: frames between its ports pass none of the other hooks.
fn has_bridge() -> bool {
    std::fs::read_dir("/sys/class/net")
        .is_ok_and(|devices| devices.flatten().any(|device| device.path().join("bridge").is_dir()))
}
