//! From a desired set to elements and gates: what shall be held, under which name, until when.

use super::cell::Cell;
use super::elements::{Assert, Found, LONGEST};
use super::expression::Tally;
use super::gates::{Gate, is_device};
use super::link::is_way_to_collector;
use super::netlink::NetlinkError;
use super::plan::{Plan, Refusal};
use super::{Count, Enforcer, Refused, clock, duration, span};
use crate::target::{Target, Targets};
use sekisho_schema::{ContainmentId, ContainmentSet, Measure, Scope, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// An element that shall be there, or is: whose it is and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) id: ContainmentId,
    pub(super) until: Timestamp,
    /// `None` where the kernel's element tells none.
    pub(super) scope: Option<Scope>,
    pub(super) measure: Measure,
}

/// What was found out for the set that was applied last.
#[derive(Clone, Debug)]
pub(super) struct Aim {
    /// The cgroup of this process, whatever the plan says.
    own: Option<String>,
    /// The plan that was asked for, where this kernel could not take all of it.
    pub(super) asked: Option<Plan>,
    /// What its scopes are on this host.
    pub(super) targets: Targets,
    /// By containment: what of it could not be held here, in words.
    pub(super) unheld: BTreeMap<ContainmentId, Vec<String>>,
}

impl Default for Aim {
    fn default() -> Self {
        let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        // The line of cgroup v2 (cgroups(7)); in its root nothing has to be spared.
        let own = text.lines().find_map(|line| line.strip_prefix("0::")).filter(|own| *own != "/");
        Self {
            own: own.map(str::to_owned),
            asked: None,
            targets: Targets::new(),
            unheld: BTreeMap::new(),
        }
    }
}

pub(super) type Desired = BTreeMap<Cell, Hold>;

/// What a measure on a destination has counted so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The containment.
    pub id: ContainmentId,
    /// The destination.
    pub destination: IpAddr,
    /// How it is held.
    pub measure: Measure,
    /// Packets and bytes to it, passed and dropped, since it is held so.
    pub met: Count,
    /// Bytes used up of a quota, 0 for the other measures.
    pub used: u64,
}

/// The stricter of two measures of one kind.
fn stricter(a: Measure, b: Measure) -> Measure {
    match (a, b) {
        (Measure::Quota { bytes: x }, Measure::Quota { bytes: y }) => {
            Measure::Quota { bytes: x.min(y) }
        }
        (Measure::Throttle { bytes_per_second: x }, Measure::Throttle { bytes_per_second: y }) => {
            Measure::Throttle { bytes_per_second: x.min(y) }
        }
        _ => a,
    }
}

impl Enforcer {
    /// The cells that a set asks for, and what of it is refused; leases that have ended ask for nothing.
    ///
    /// Of a scope that nobody has found out yet, what the kernel holds under its name stays.
    pub(super) fn desired(&self, set: &ContainmentSet, now: Timestamp) -> (Desired, Vec<Refused>) {
        let mut desired = Desired::new();
        let mut refused = Vec::new();
        for (id, containment) in &set.containments {
            let (scope, measure) = (&containment.scope, containment.measure);
            let target = self.aim.targets.get(scope);
            let kept: Vec<Cell> = if target.is_none() && needs_target(scope) {
                let own = self.holding.iter().filter(|(_, hold)| hold.id == *id);
                own.map(|(cell, _)| *cell).collect()
            } else {
                Vec::new()
            };
            let refusal = if kept.iter().all(Cell::is_auxiliary) {
                self.plan.refusal_of(scope, measure, target).or_else(|| self.is_ours(target))
            } else {
                self.plan.refusal(scope)
            };
            if let Some(why) = refusal {
                refused.push(Refused { id: id.clone(), scope: scope.clone(), why });
                continue;
            }
            let until = containment.held_until();
            if until <= now {
                continue;
            }
            let cells =
                if kept.is_empty() { Cell::of(scope, measure, target, &self.plan) } else { kept };
            for cell in cells {
                let hold = Hold {
                    id: id.clone(),
                    until: until.min(now.after(span(LONGEST))),
                    scope: (!cell.is_shared()).then(|| scope.clone()),
                    measure,
                };
                merge(&mut desired, cell, hold);
            }
        }
        (desired, refused)
    }

    /// Why a target may not be cut by what this process knows of itself, whatever the plan says.
    fn is_ours(&self, target: Option<&Target>) -> Option<Refusal> {
        let target = target?;
        let around = |own: &str, path: &str| {
            own.strip_prefix(path.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if let Some(own) = &self.aim.own
            && target.cgroups.iter().any(|cgroup| around(own, &cgroup.path))
        {
            return Some(Refusal::Exempt(format!("this process runs in {own}")));
        }
        let mut ports = target.ports.iter();
        ports.find_map(|port| is_way_to_collector(port, &self.plan)).map(Refusal::Exempt)
    }

    /// Makes the gates that cells need; what has none on this host is left out and told, and refused when nothing else of it remains.
    pub(super) fn open_gates(
        &mut self,
        desired: &mut Desired,
        refused: &mut Vec<Refused>,
    ) -> Result<(), NetlinkError> {
        self.aim.unheld.clear();
        let mut closed: BTreeMap<Gate, String> = BTreeMap::new();
        for gate in needed(desired, &self.plan) {
            if self.elements.gates.get(&gate) == Some(&true) {
                continue;
            }
            if let Gate::Port(device) | Gate::Sent(device) = &gate
                && !is_device(device)
            {
                closed.insert(gate.clone(), format!("there is no device {device} now"));
                continue;
            }
            if self.elements.gates.contains_key(&gate) {
                // Somebody changed it: it is made anew.
                let _ = self.elements.remove_gate(&gate);
            }
            match self.elements.add_gate(&gate) {
                Ok(()) => {
                    self.elements.gates.insert(gate, true);
                }
                // Without tables everything has to be loaded first.
                Err(error) if error.is_absent() => return Err(error),
                Err(error) => {
                    let why = format!("this kernel can't look there ({gate}): {error}");
                    closed.insert(gate, why);
                }
            }
        }
        if !closed.is_empty() {
            self.leave_out(&closed, desired, refused);
        }
        Ok(())
    }

    fn leave_out(
        &mut self,
        closed: &BTreeMap<Gate, String>,
        desired: &mut Desired,
        refused: &mut Vec<Refused>,
    ) {
        let unheld = &mut self.aim.unheld;
        let uplinks = &self.plan.uplinks;
        let mut scopes: BTreeMap<ContainmentId, Scope> = BTreeMap::new();
        desired.retain(|cell, hold| {
            let gates = Gate::of(cell, uplinks);
            for why in gates.iter().filter_map(|gate| closed.get(gate)) {
                let told = unheld.entry(hold.id.clone()).or_default();
                if !told.contains(why) {
                    told.push(why.clone());
                }
                scopes.extend(hold.scope.clone().map(|scope| (hold.id.clone(), scope)));
            }
            gates.is_empty() || gates.iter().any(|gate| !closed.contains_key(gate))
        });
        for (id, scope) in scopes {
            let mut rest = desired.iter().filter(|(_, hold)| hold.id == id);
            if rest.all(|(cell, _)| cell.is_auxiliary()) {
                desired.retain(|_, hold| hold.id != id);
                let why = unheld.get(&id).map(|why| why.join("; ")).unwrap_or_default();
                refused.push(Refused { id, scope, why: Refusal::Unsupported(why) });
            }
        }
    }

    /// Removes the gates that nothing of what is held needs; one that stays costs a little and cuts nothing.
    pub(super) fn close_gates(&mut self) {
        let needed = needed(&self.holding, &self.plan);
        let idle: Vec<Gate> =
            self.elements.gates.keys().filter(|gate| !needed.contains(*gate)).cloned().collect();
        for gate in idle {
            if let Err(error) = self.elements.remove_gate(&gate) {
                tracing::debug!(%gate, error = %crate::chain::causes(&error), "cannot take a gate away");
            }
            self.elements.gates.remove(&gate);
        }
    }

    /// Gates of a cell of which none is open any more; none for a cell that could not have one here.
    pub(super) fn shut(&self, cell: &Cell) -> Option<Gate> {
        let gates = Gate::of(cell, &self.plan.uplinks);
        let open = gates.iter().any(|gate| self.elements.gates.get(gate) == Some(&true));
        gates.into_iter().next().filter(|_| !open && self.is_reachable(cell))
    }

    /// Whether the packets of a cell can be looked at on this host now.
    pub(super) fn is_reachable(&self, cell: &Cell) -> bool {
        let gates = Gate::of(cell, &self.plan.uplinks);
        gates.is_empty()
            || gates.iter().any(|gate| match gate {
                Gate::Port(device) | Gate::Sent(device) => is_device(device),
                _ => true,
            })
    }

    /// Makes the gates of what is held, after a load that may have taken them away.
    pub(super) fn restore_gates(&mut self) -> Result<(), NetlinkError> {
        self.elements.gates = self.elements.read_gates()?;
        let mut held = self.holding.clone();
        self.open_gates(&mut held, &mut Vec::new())
    }

    /// What has to be written, and what it has counted already where it goes on under the same name.
    pub(super) fn tallies(&mut self, asserts: &mut [Assert<'_>]) -> Result<(), NetlinkError> {
        let slots: BTreeSet<_> = asserts
            .iter()
            .filter(|assert| assert.cell.slot.kind.is_measure())
            .map(|assert| assert.cell.slot)
            .collect();
        for slot in slots {
            let found: BTreeMap<Cell, Found> = self.elements.read_slot(slot)?.into_iter().collect();
            for assert in asserts.iter_mut().filter(|assert| assert.cell.slot == slot) {
                if let Some(known) = found.get(&assert.cell)
                    && known.id.as_deref() == Some(assert.id)
                {
                    assert.tally = known.tally;
                }
            }
        }
        Ok(())
    }

    /// What the measures on destinations have counted.
    ///
    /// # Errors
    /// [`NetlinkError`] when the sets can't be read.
    pub fn measured(&mut self) -> Result<Vec<Measured>, NetlinkError> {
        let mut all: BTreeMap<(ContainmentId, IpAddr), Measured> = BTreeMap::new();
        for (cell, found) in self.elements.read()? {
            let (true, Some(destination), Some(id)) =
                (cell.slot.kind.is_measure(), cell.address(), found.id)
            else {
                continue;
            };
            let id = ContainmentId(id);
            let Tally { met, used } = found.tally;
            let measured =
                Measured { id: id.clone(), destination, measure: found.measure, met, used };
            // A packet passes the hook of packets and that of its device: the larger count is the whole.
            all.entry((id, destination))
                .and_modify(|known| {
                    known.used = known.used.max(used);
                    if known.met.bytes < met.bytes {
                        known.met = met;
                    }
                })
                .or_insert(measured);
        }
        Ok(all.into_values().collect())
    }

    /// What of a containment could not be held when the set was applied last, in words; for its receipt.
    #[must_use]
    pub fn unheld(&self, id: &ContainmentId) -> &[String] {
        self.aim.unheld.get(id).map_or(&[], Vec::as_slice)
    }

    pub(super) fn remember(&mut self, found: BTreeMap<Cell, Found>, now: Timestamp) {
        self.holding = found
            .into_iter()
            .map(|(cell, found)| {
                // An element without an end or a name is nobody's: it differs from every desire, and apply releases it.
                let until = found.left.map_or(Timestamp::MAX, |left| now.after(span(left)));
                let id = ContainmentId(found.id.unwrap_or_default());
                (cell, Hold { id, until, scope: found.scope, measure: found.measure })
            })
            .collect();
    }

    /// Arms the devices of a new plan with what is held for the old one.
    pub(super) fn rearm(&mut self, plan: &Plan) -> Result<(), NetlinkError> {
        let now = clock();
        let mut new = Desired::new();
        for hold in self.holding.values().filter(|hold| !hold.id.0.is_empty()) {
            let Some(scope) = &hold.scope else { continue };
            let target = self.aim.targets.get(scope);
            let cells = match target {
                None if needs_target(scope) => Cell::strict(plan),
                _ => Cell::of(scope, hold.measure, target, plan),
            };
            for cell in cells {
                if !self.holding.contains_key(&cell) {
                    merge(&mut new, cell, hold.clone());
                }
            }
        }
        // A gate is made when the set is applied next; what is asked there is not lost by waiting for it.
        match self.elements.commit(&[], &asserts(&new, now)) {
            // A set that an older version had not is made by the load that follows.
            Err(error) if error.is_absent() => Ok(()),
            result => result,
        }
    }
}

/// Whether a scope has to be found out on this host before it can be held.
pub(super) const fn needs_target(scope: &Scope) -> bool {
    matches!(scope, Scope::Cgroup(_) | Scope::Container(_) | Scope::Internal(_))
}

pub(super) fn asserts(desired: &Desired, now: Timestamp) -> Vec<Assert<'_>> {
    desired.iter().map(|(cell, hold)| assert(*cell, hold, now)).collect()
}

pub(super) fn assert(cell: Cell, hold: &Hold, now: Timestamp) -> Assert<'_> {
    Assert {
        cell,
        id: &hold.id.0,
        lease: duration(hold.until.since(now)),
        // A cell that is shared names no scope.
        scope: hold.scope.as_ref().unwrap_or(&Scope::Host),
        measure: hold.measure,
        tally: Tally::default(),
        fresh: false,
    }
}

fn needed(desired: &Desired, plan: &Plan) -> BTreeSet<Gate> {
    desired.keys().flat_map(|cell| Gate::of(cell, &plan.uplinks)).collect()
}

/// Two containments of one cell are one element: the longer lease names it, the stricter measure holds.
fn merge(desired: &mut Desired, cell: Cell, hold: Hold) {
    let known = desired.entry(cell).or_insert_with(|| hold.clone());
    let measure = stricter(known.measure, hold.measure);
    if known.until < hold.until {
        *known = hold;
    }
    known.measure = measure;
}
