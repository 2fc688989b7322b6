//! Facts of the host, policies, rules and receipts: what the engine goes by from now on.

use super::{Engine, Queued};
use crate::detect::Approvals;
use crate::detect::indicator_set::Piece;
use crate::flow::Perimeter;
use crate::input::HostFact;
use crate::output::Output;
use crate::rules::Rules;
use sekisho_schema::event::{Gap, ModeChange, PolicyChange, Release};
use sekisho_schema::{Body, Containment, ContainmentId, Mode, Policy, Receipt, Span, Timestamp};
use std::collections::BTreeSet;
use std::net::IpAddr;

impl Engine {
    pub(super) fn adopt_fact(&mut self, fact: HostFact, at: Timestamp) {
        if let HostFact::ClockSet(step) = fact {
            // Before any deadline: what the step passed over has not come to its end.
            self.follow_clock(step, at);
        }
        self.handle_timeout(at);
        match fact {
            HostFact::Addresses(addresses) => {
                self.own = addresses.into_iter().map(|address| address.to_canonical()).collect();
                self.draw_perimeter();
                self.correct_own(at);
            }
            HostFact::Cgroups(cgroups) => {
                self.exemptions.adopt_cgroups(cgroups);
                self.release_exempt(at);
            }
            HostFact::ClockSet(_) => {}
            HostFact::Collectors(addresses) => {
                self.exemptions.adopt_collectors(addresses);
                self.release_exempt(at);
            }
            HostFact::Confirmed(containment) => self.confirm(&containment, at),
            HostFact::Enforcement(enforcement) => {
                self.has_hands = true;
                let before = (self.policy.mode, self.effective_mode());
                self.enforcement = enforcement;
                self.report_mode(before, at);
            }
            HostFact::Enrolled(enrolled) => self.enrolled = enrolled,
            HostFact::GroupSpent { count, since } => {
                self.budget.adopt_group(count, since, self.now);
            }
            HostFact::Held(containments) => self.adopt_held(containments, at),
            HostFact::Lost(count) => self.report_lost(count, at),
            HostFact::SpaceFell(bytes) => self.episodes.space_fell(at, bytes),
            HostFact::Owner { flow, process } => self.take_owner(&flow, process.as_deref(), at),
        }
    }

    /// Adopts a policy. What is contained stays contained until its lease ends or a person releases
    /// it: opening is guarded like cutting, and a policy that cuts less is no release. An exemption is.
    pub(super) fn adopt_policy(&mut self, policy: Policy, at: Timestamp) {
        self.handle_timeout(at);
        let before = (self.policy.mode, self.effective_mode());
        self.approvals = Approvals::new(&policy);
        self.exemptions.adopt_policy(&policy);
        let unknown = self.rules.indicators.set_allow(&policy.allow);
        let why = (!unknown.is_empty())
            .then(|| format!("allow: {} name nothing and count for nothing", unknown.join(", ")));
        // A policy that expired before it was adopted is frozen from the start.
        self.frozen_at = policy.expires.map(|expires| expires.max(self.now));
        self.policy = policy;
        self.episodes.keep_uploads(self.policy.allowance.per_destination_bytes);
        self.draw_perimeter();
        self.review_approved();
        let version = self.policy.version;
        let outcome = "adopted".to_owned();
        self.record(at, Body::Policy(PolicyChange { version, outcome, why, in_force: version }));
        self.report_mode(before, at);
        self.release_exempt(at);
        self.handle_timeout(at);
    }

    /// What has become exempt is open in the kernel already: the ledger must not say otherwise.
    fn release_exempt(&mut self, at: Timestamp) {
        let exempt: Vec<(ContainmentId, String)> = self
            .ledger
            .set()
            .containments
            .values()
            .filter_map(|held| {
                let name = self.exemptions.forbidding(&held.scope)?;
                Some((held.id.clone(), name.to_owned()))
            })
            .collect();
        for (id, name) in &exempt {
            let Some(released) = self.ledger.release(id) else { continue };
            self.forget(id);
            let release = Release {
                containment: released.id,
                scope: released.scope,
                cause: "exempt".to_owned(),
                by: None,
                reason: Some(format!("the exemption \"{name}\" covers it now")),
            };
            self.record(at, Body::Release(release));
        }
        if !exempt.is_empty() {
            self.order_set(None, None);
        }
    }

    pub(super) fn adopt_rules(&mut self, rules: Rules, at: Timestamp) {
        self.handle_timeout(at);
        self.rules = rules;
        // What is no entry of an allow-list was said when the policy was adopted.
        let _said = self.rules.indicators.set_allow(&self.policy.allow);
        self.configure_detectors(at);
    }

    /// Puts a piece of the indicators in its place and gives the one that was there, to be dropped
    /// where nobody waits.
    pub fn exchange_piece(&mut self, piece: Piece) -> Piece {
        self.detectors.forget_names();
        self.rules.indicators.exchange(piece)
    }

    /// Takes what rules say beside their indicators, which are exchanged by the piece.
    pub fn adopt_detectors(&mut self, rules: Rules, at: Timestamp) {
        self.handle_timeout(at);
        let Rules { indicators: _, detectors, packs, lists } = rules;
        self.rules.detectors = detectors;
        self.rules.packs = packs;
        self.rules.lists = lists;
        self.configure_detectors(at);
    }

    fn configure_detectors(&mut self, at: Timestamp) {
        let switched_on = &self.rules.detectors;
        let rules = |id: &str| switched_on.get(id).map(|rule| (&rule.entry, rule.rule.as_str()));
        let faults = self.detectors.configure(&rules, &mut self.episodes);
        for fault in faults {
            let change = PolicyChange {
                version: self.policy.version,
                outcome: "rule-refused".to_owned(),
                why: Some(fault.to_string()),
                in_force: self.policy.version,
            };
            self.record(at, Body::Policy(change));
        }
    }

    /// Records a receipt, with what was seen to leave since; a cut that failed is said aloud.
    pub(super) fn take_receipt(&mut self, mut receipt: Receipt, at: Timestamp) {
        self.handle_timeout(at);
        let leak = self.leak(&receipt.containment);
        receipt.leaked_packets = receipt.leaked_packets.max(leak.packets);
        receipt.leaked_bytes = receipt.leaked_bytes.max(leak.bytes);
        receipt.last_packet_at = receipt.last_packet_at.max(leak.last_at);
        if let Some(note) = self.actors.of(&receipt.containment) {
            for line in note
                .open
                .iter()
                .filter(|line| !receipt.open.contains(line))
                .cloned()
                .collect::<Vec<_>>()
            {
                receipt.open.push(line);
            }
        }
        let proof = receipt.clone();
        let failure = (!receipt.applied).then(|| {
            let why = receipt.error.as_deref().unwrap_or("no cause given");
            format!(
                "egress of {} is NOT cut: containment {} of generation {} was not applied: {why}",
                receipt.scope, receipt.containment, receipt.generation,
            )
        });
        self.record(at, Body::Receipt(Box::new(receipt)));
        if let Some(detail) = failure {
            let cause = "not-applied".to_owned();
            self.record(at, Body::Gap(Gap { cause, count: 1, detail }));
        }
        self.take_proof(&proof, at);
    }

    pub(super) fn report_frozen(&mut self, at: Timestamp) {
        let version = self.policy.version;
        let change = PolicyChange {
            version,
            outcome: "frozen".to_owned(),
            why: Some("it has expired and stays in force until a newer one comes".to_owned()),
            in_force: version,
        };
        self.record(at, Body::Policy(change));
    }

    fn adopt_held(&mut self, containments: Vec<Containment>, at: Timestamp) {
        for containment in containments {
            if containment.held_until() > self.now {
                self.count_adopted(&containment);
                self.actors.adopt(&containment);
                self.ledger.adopt(containment.clone());
                self.record(at, Body::Containment(Box::new(containment)));
            } else {
                let is_trial = containment.until > self.now;
                let release = Release {
                    containment: containment.id,
                    scope: containment.scope,
                    cause: if is_trial { "trial" } else { "expired" }.to_owned(),
                    by: None,
                    reason: None,
                };
                self.record(at, Body::Release(release));
            }
        }
    }

    /// A lease is a span and no date: its end moves with the clock, as the kernel counts it.
    fn follow_clock(&mut self, step: Span, at: Timestamp) {
        self.budget.shift(step);
        self.ledger.shift(step);
        self.actors.shift(step);
        self.approved.shift(step);
        if step < Span::ZERO {
            // Flows of a time to come would neither end nor be told from new ones.
            self.now = at;
            self.tally.last_at = Some(at);
            self.hour_ends = None;
            self.tracker.begin_anew();
        }
        if self.ledger.is_empty() {
            return;
        }
        self.order_set(None, None);
        for containment in self.ledger.set().containments.values().cloned().collect::<Vec<_>>() {
            self.record(at, Body::Containment(Box::new(containment)));
        }
    }

    fn report_lost(&mut self, count: u64, at: Timestamp) {
        if count == 0 {
            return;
        }
        self.tally.dropped = self.tally.dropped.saturating_add(count);
        let detail = format!("the kernel dropped {count} frames before they could be read");
        self.record(at, Body::Gap(Gap { cause: "capture-drop".to_owned(), count, detail }));
    }

    fn report_mode(&mut self, before: (Mode, Mode), at: Timestamp) {
        let (requested, effective) = (self.policy.mode, self.effective_mode());
        if before != (requested, effective) {
            let why = self.mode_fault().map(str::to_owned);
            self.record(at, Body::Mode(ModeChange { requested, effective, why }));
        }
    }

    /// Keeps of the approved names' addresses what the policy in force still approves.
    pub(super) fn review_approved(&mut self) {
        let (approvals, is_kept) = (&self.approvals, self.policy.allowance.in_kernel);
        self.approved
            .keep(self.now, |address, name| is_kept && approvals.cover(address, Some(name)));
        self.tell_approved();
    }

    /// The addresses that answers gave for names that the policy approves.
    #[must_use]
    pub fn approved_addresses(&self) -> BTreeSet<IpAddr> {
        self.approved.all()
    }

    pub(super) fn tell_approved(&mut self) {
        if let Some(all) = self.approved.take_change() {
            self.queue.push_back(Queued::Output(Output::Approve(all)));
        }
    }

    fn draw_perimeter(&mut self) {
        let own: Vec<IpAddr> = self.own.iter().copied().collect();
        self.perimeter = Perimeter::new(&self.policy.inside, &own);
        self.tracker.set_perimeter(self.perimeter.clone());
    }
}
