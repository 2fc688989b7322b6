//! The cut: what the kernel shall hold goes in, what it holds comes out.
//!
//! Enters: a [`Plan`] (perimeter, exemptions, devices) and a `ContainmentSet`, whole. Leaves: a ruleset of
//! ours that drops nothing until an element of a set says so, elements that end by themselves, and proof.
//! Must not know: packets, detectors, policy modes, tokio, the network beyond this host's own kernel.

mod allowance;
mod cell;
mod conntrack;
mod coverage;
mod desired;
mod drift;
mod elements;
mod executor;
mod expression;
mod flows;
mod gates;
mod hooks;
mod known;
pub mod link;
mod open;
mod owner;
mod packet_log;
mod plan;
mod proof;
mod skeleton;
mod transplant;

pub use crate::netlink::NetlinkError;
pub use allowance::Spent;
pub use conntrack::{Tracked, TrackedError};
pub use coverage::{Bell, Look, NEW_RAW_SOCKETS, coverage, explain, is_always, kind, kinds};
pub use desired::Measured;
pub use drift::{Change, Changes};
pub use elements::{Count, Counters};
pub use executor::RunNftError;
pub use flows::{Destroyed, FlowsError, SocketRecord, Sockets};
pub use known::{BATCH_ELEMENTS, Key, KnownHand, KnownSet};
pub use open::open_for;
pub use owner::{Eye, Ownership};
pub use packet_log::packet_log;
pub use plan::{Ends, KernelAllowance, Plan, Refusal, is_cut, is_held};
pub use skeleton::{
    ALLOWANCE_DESTINATIONS, ALLOWANCE_TABLE, DEFAULT_TIMEOUT_SECS, LOG_GROUP, TABLE, device_chain,
    removal, skeleton, to_json,
};

use crate::target::Targets;
use cell::Cell;
use desired::{Aim, Desired};
use elements::{Assert, Elements, Found};
use sekisho_schema::{ContainmentId, ContainmentSet, Measure, Scope, Span, Timestamp};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

/// Ends that differ by less are the same end: reading an element back is not exact, and a commit is not worth it.
const SAME_END: Span = Span::from_millis(1000);
/// How long the kernel may hold an element after its end: ticks that were added to its lease, and ticks that are owed.
pub(crate) const LINGERS: Span = Span::from_millis(250);
/// How far a remaining lease may be from the desired one before it counts as drift.
const DRIFT_TOLERANCE: Span = Span::from_secs(3);

/// Why the enforcer could not take up its duty; no containment holds by it.
#[derive(Debug, thiserror::Error)]
pub enum OpenEnforcerError {
    /// The plan would make every cut empty.
    #[error(
        "cannot build the ruleset: the inside names every address ({0}), so that a cut of the host would cut nothing; the ruleset is unchanged"
    )]
    InsideIsEverything(String),
    /// The ruleset could not be loaded.
    #[error("cannot load the ruleset of tables inet and netdev {TABLE}")]
    Load(#[from] RunNftError),
    /// The kernel could not be asked.
    #[error("cannot speak with the kernel's nf_tables")]
    Netlink(#[from] NetlinkError),
    /// The ruleset could not be written down.
    #[error("cannot write the ruleset as JSON")]
    Write(#[from] serde_json::Error),
}

/// One scope of a desired set that was not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The containment.
    pub id: ContainmentId,
    /// Its scope.
    pub scope: Scope,
    /// Why.
    pub why: Refusal,
}

/// What an application did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Applied {
    /// Generation of the desired set.
    pub generation: u64,
    /// CLOCK_REALTIME right after the kernel acknowledged.
    pub committed_at: Timestamp,
    /// Containments that began, were renewed or were released; 0 when the kernel held the set already.
    pub changed: usize,
}

/// What was applied beside what was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partial {
    /// The rest of the set, which the kernel holds.
    pub applied: Applied,
    /// Every containment that was not written, in the order of their names.
    pub refused: Vec<Refused>,
}

/// Why a desired set does not hold, or not as a whole.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A scope hits what no containment may touch; nothing was written for it, the others hold.
    #[error(
        "cannot apply containment {id} ({scope}): {why}; nothing was written for it, the other containments of the set hold"
    )]
    Exempt {
        /// The first such containment.
        id: ContainmentId,
        /// Its scope.
        scope: Scope,
        /// What it hits.
        why: Refusal,
        /// The others, and every refusal.
        partial: Box<Partial>,
    },
    /// The kernel refused the change as a whole; what it held before, it still holds.
    #[error(
        "cannot apply generation {generation}: the change was not made, the previous containments still hold"
    )]
    Kernel {
        /// The generation that was asked for.
        generation: u64,
        /// What the kernel said.
        source: NetlinkError,
    },
    /// A scope that this version can't cut; nothing was written for it, the others hold.
    #[error(
        "cannot apply containment {id} ({scope}): {why}; nothing was written for it, the other containments of the set hold"
    )]
    Unsupported {
        /// The first such containment.
        id: ContainmentId,
        /// Its scope.
        scope: Scope,
        /// Why.
        why: Refusal,
        /// The others, and every refusal.
        partial: Box<Partial>,
    },
}

impl ApplyError {
    /// What was applied all the same; `None` when nothing was.
    #[must_use]
    pub fn partial(&self) -> Option<&Partial> {
        match self {
            Self::Exempt { partial, .. } | Self::Unsupported { partial, .. } => Some(partial),
            Self::Kernel { .. } => None,
        }
    }
}

/// A containment that the kernel holds.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Held {
    /// Its name, from the comment of the element.
    pub id: ContainmentId,
    /// Its scope.
    pub scope: Scope,
    /// How it is held.
    pub measure: Measure,
    /// How long the kernel holds it yet: the shortest of its elements.
    pub until_in: Span,
}

/// A difference between what the kernel holds and what it shall hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    /// An element is there that nobody desires, or without an end.
    Foreign {
        /// Table, set and key.
        element: String,
    },
    /// An element has another end than desired.
    Lease {
        /// The containment.
        id: ContainmentId,
        /// Table, set and key.
        element: String,
        /// What is left of it.
        left: Span,
    },
    /// An element is gone.
    Missing {
        /// The containment.
        id: ContainmentId,
        /// Table, set and key.
        element: String,
    },
    /// Chains or rules of a table are not those that were loaded.
    Ruleset {
        /// `inet` or `netdev`.
        table: &'static str,
    },
}

/// Holds containments in the kernel of this network namespace.
pub struct Enforcer {
    elements: Elements,
    plan: Plan,
    holding: Desired,
    aim: Aim,
    fingerprint: [u64; 2],
    owner: owner::Owner,
    ready_for: Duration,
    /// Since when nothing is held and the hooks are still there for what may come next.
    empty_since: Option<Instant>,
}

impl Enforcer {
    /// Loads the ruleset, opens the socket and adopts what the kernel holds already.
    ///
    /// # Errors
    /// [`OpenEnforcerError`]; a ruleset that fails to load leaves everything as it was.
    pub fn open(plan: &Plan) -> Result<Self, OpenEnforcerError> {
        let mut enforcer = Self {
            elements: Elements::open()?,
            plan: Plan::default(),
            holding: BTreeMap::new(),
            aim: Aim::default(),
            fingerprint: [0; 2],
            owner: owner::Owner::default(),
            ready_for: Duration::ZERO,
            empty_since: None,
        };
        enforcer.reload(plan)?;
        Ok(enforcer)
    }

    /// Loads the ruleset of a changed plan in one transaction; elements are kept, and devices that are new are armed before their chain begins to judge.
    ///
    /// # Errors
    /// [`OpenEnforcerError`]; the ruleset stays as it was.
    pub fn reload(&mut self, plan: &Plan) -> Result<(), OpenEnforcerError> {
        if let Some(all) = plan.inside.iter().find(|network| network.prefix_len() == 0) {
            return Err(OpenEnforcerError::InsideIsEverything(all.to_string()));
        }
        let wanted: Vec<String> = plan.uplinks.iter().map(|device| device_chain(device)).collect();
        let stale: Vec<String> = self
            .elements
            .device_chains()?
            .into_iter()
            .filter(|name| !wanted.contains(name))
            .collect();
        let known = self.adopt();
        match known {
            Ok(()) => self.rearm(plan)?,
            // Without tables there is nothing to adopt yet.
            Err(error) if error.is_absent() => {}
            Err(error) => return Err(error.into()),
        }
        self.plan = self.load_whole(plan, &stale)?;
        self.aim.asked = (self.plan != *plan).then(|| plan.clone());
        self.adopt()?;
        self.restore_gates()?;
        self.elements.learn_hooks()?;
        self.fingerprint = self.elements.fingerprint()?;
        if self.holding.is_empty() {
            self.rest();
        }
        Ok(())
    }

    /// Loads a plan; without the bridge where the kernel has no rules for it. Returns the plan that was loaded.
    fn load_whole(&mut self, plan: &Plan, stale: &[String]) -> Result<Plan, OpenEnforcerError> {
        self.renew_allowance(plan)?;
        match self.load(plan, stale) {
            Err(error) if plan.bridged => {
                let plain = Plan { bridged: false, ..plan.clone() };
                self.load(&plain, stale).map_err(|_| error)?;
                Ok(plain)
            }
            done => done.map(|()| plan.clone()),
        }
    }

    /// Whether the kernel holds elements in sets of ours, whoever put them there; changes nothing.
    ///
    /// # Errors
    /// [`NetlinkError`] when the sets can't be read; that our tables are not there is no error.
    pub fn is_holding() -> Result<bool, NetlinkError> {
        match Elements::open()?.read() {
            Ok(found) => Ok(!found.is_empty()),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Another hand on the same ruleset, for another thread: with a socket of its own.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel gives no socket.
    pub fn second_hand(&self) -> Result<Self, NetlinkError> {
        Ok(Self {
            elements: Elements::open_knowing(&self.elements.hooks)?,
            plan: self.plan.clone(),
            holding: self.holding.clone(),
            aim: self.aim.clone(),
            fingerprint: self.fingerprint,
            owner: owner::Owner::default(),
            ready_for: self.ready_for,
            empty_since: None,
        })
    }

    /// Keeps the hooks for a while after the last release: a cut that follows it finds them there.
    ///
    /// Taking them away and bringing them back costs the kernel a grace period (15 ms under load), and whoever was
    /// released in error is often cut again within a minute. Packets pay 0.3 µs meanwhile. [`Enforcer::rest_when_due`]
    /// must be called now and then.
    pub fn stay_ready(&mut self, while_empty: Duration) {
        self.ready_for = while_empty;
    }

    /// Lets no packet meet lists that have been empty for as long as was told.
    pub fn rest_when_due(&mut self) {
        if self.empty_since.is_some_and(|since| since.elapsed() >= self.ready_for) {
            self.rest();
        }
    }

    /// What the kernel holds, by containment.
    ///
    /// # Errors
    /// [`NetlinkError`] when the sets can't be read.
    pub fn held(&mut self) -> Result<Vec<Held>, NetlinkError> {
        let mut held: BTreeMap<(Scope, String), (Measure, Span)> = BTreeMap::new();
        for (cell, found) in self.elements.read()? {
            // A scope too long for its element is known by name to whoever wrote it.
            let written = self.holding.get(&cell).and_then(|hold| hold.scope.clone());
            let (Some(scope), Some(id), Some(left)) =
                (found.scope.or(written), found.id, found.left)
            else {
                continue;
            };
            let left = span(left);
            held.entry((scope, id))
                .and_modify(|(_, least)| *least = (*least).min(left))
                .or_insert((found.measure, left));
        }
        let held = held.into_iter().map(|((scope, id), (measure, until_in))| Held {
            id: ContainmentId(id),
            scope,
            measure,
            until_in,
        });
        Ok(held.collect())
    }

    /// The same as [`Enforcer::apply`], with what the scopes of the set are on this host now.
    ///
    /// A workload, a container or an inside host without a target is refused; what the kernel holds of it
    /// already, under the same name, stays.
    ///
    /// # Errors
    /// [`ApplyError`], as there.
    pub fn apply_with(
        &mut self,
        set: &ContainmentSet,
        targets: &Targets,
        now: Timestamp,
    ) -> Result<Applied, ApplyError> {
        self.aim.targets.clone_from(targets);
        self.apply(set, now)
    }

    /// Makes the kernel hold exactly this set: one commit for all that changed, both tables together.
    ///
    /// # Errors
    /// [`ApplyError`]: scopes that are refused are named, before anything is written, and the others applied.
    pub fn apply(&mut self, set: &ContainmentSet, now: Timestamp) -> Result<Applied, ApplyError> {
        let (mut desired, mut refused) = self.desired(set, now);
        let kernel = |source| ApplyError::Kernel { generation: set.generation, source };
        self.open_gates(&mut desired, &mut refused).map_err(kernel)?;
        let mut touched: Vec<&ContainmentId> = Vec::new();
        let mut asserts = Vec::new();
        // The kernel's end is what counts: many small steps must add up to one that is written.
        let mut unwritten = Vec::new();
        for (cell, hold) in &desired {
            if let Some(held) = self.holding.get(cell).filter(|held| {
                held.id == hold.id
                    && is_same_end(held.until, hold.until, now)
                    && (cell.is_shared() || held.measure == hold.measure)
            }) {
                unwritten.extend((held.until != hold.until).then_some((*cell, held.until)));
                continue;
            }
            touched.extend((!cell.is_shared()).then_some(&hold.id));
            let fresh = !self.holding.contains_key(cell);
            asserts.push(Assert { fresh, ..desired::assert(*cell, hold, now) });
        }
        self.tallies(&mut asserts).map_err(kernel)?;
        let mut releases = Vec::new();
        for (cell, hold) in self.holding.iter().filter(|(cell, _)| !desired.contains_key(cell)) {
            // What has ended long ago needs no commit.
            if hold.until.after(LINGERS) > now {
                let counts = hold.until > now && !cell.is_shared();
                touched.extend(counts.then_some(&hold.id));
                releases.push(*cell);
            }
        }
        touched.sort_unstable();
        touched.dedup();
        let changed = touched.len();
        if !(asserts.is_empty() && releases.is_empty())
            && let Err(source) = self.elements.commit(&releases, &asserts)
        {
            // What is held is unknown now; when it can't be read either, nothing counts as held, and the next call writes all.
            if self.adopt().is_err() {
                self.holding.clear();
            }
            return Err(kernel(source));
        }
        let applied = Applied { generation: set.generation, committed_at: clock(), changed };
        for (cell, until) in unwritten {
            if let Some(hold) = desired.get_mut(&cell) {
                hold.until = until;
            }
        }
        self.holding = desired;
        self.close_gates();
        self.rest_or_stay_ready(self.holding.is_empty());
        match refused.first().cloned() {
            None => Ok(applied),
            Some(Refused { id, scope, why }) => {
                let partial = Box::new(Partial { applied, refused });
                Err(match why {
                    Refusal::Exempt(_) => ApplyError::Exempt { id, scope, why, partial },
                    Refusal::Unsupported(_) => ApplyError::Unsupported { id, scope, why, partial },
                })
            }
        }
    }

    /// Reads everything back and compares it with what is desired; afterwards `apply` mends what is amiss with elements, `reload` what is amiss with rules.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel can't be asked; [`NetlinkError::is_absent`] when our tables are gone.
    pub fn verify(&mut self, set: &ContainmentSet) -> Result<Vec<Drift>, NetlinkError> {
        let mut drift = Vec::new();
        let current = self.elements.fingerprint()?;
        for (table, (is, was)) in
            ["inet", "netdev"].into_iter().zip(current.into_iter().zip(self.fingerprint))
        {
            if is != was {
                drift.push(Drift::Ruleset { table });
            }
        }
        let now = clock();
        let found = self.elements.read()?;
        self.rest_or_stay_ready(found.is_empty());
        if !found.is_empty() && self.elements.is_unhooked()? {
            // What is held cuts nothing while no packet meets it.
            drift = ["inet", "netdev"].map(|table| Drift::Ruleset { table }).to_vec();
        }
        // What is held of a scope that nobody has found out here counts as desired under its name.
        self.remember(found.clone(), now);
        let (desired, _) = self.desired(set, now);
        self.elements.gates = self.elements.read_gates()?;
        for (cell, hold) in &desired {
            drift.extend(
                self.shut(cell)
                    .map(|gate| Drift::Missing { id: hold.id.clone(), element: gate.to_string() }),
            );
            let left = found
                .get(cell)
                .filter(|element| element.id.as_deref() == Some(hold.id.0.as_str()))
                .map(|element| element.left);
            match left {
                Some(Some(left)) if near(now.after(span(left)), hold.until, DRIFT_TOLERANCE) => {}
                Some(Some(left)) => drift.push(Drift::Lease {
                    id: hold.id.clone(),
                    element: cell.to_string(),
                    left: span(left),
                }),
                Some(None) => drift.push(Drift::Foreign { element: cell.to_string() }),
                None => {
                    drift.push(Drift::Missing { id: hold.id.clone(), element: cell.to_string() })
                }
            }
        }
        // What the kernel lets go in a moment has ended by our clock.
        let lingers = |found: &Found| found.left.is_some_and(|left| span(left) <= LINGERS);
        drift.extend(
            found
                .iter()
                .filter(|(cell, found)| !desired.contains_key(cell) && !lingers(found))
                .map(|(cell, _)| Drift::Foreign { element: cell.to_string() }),
        );
        Ok(drift)
    }

    /// What was dropped and passed.
    ///
    /// # Errors
    /// [`NetlinkError`] when the counters can't be read.
    pub fn counters(&mut self) -> Result<Counters, NetlinkError> {
        self.elements.counters()
    }

    /// The plan in force.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        self.aim.asked.as_ref().unwrap_or(&self.plan)
    }

    /// Removes both tables, and every containment with them.
    ///
    /// # Errors
    /// [`OpenEnforcerError`] when nft refuses; the tables stay.
    pub fn remove() -> Result<(), OpenEnforcerError> {
        executor::load(&to_json(&removal())?)?;
        // A kernel without rules for bridges refuses this, and has no such table.
        let _ = executor::load(&to_json(&skeleton::removal_of_bridge())?);
        Ok(())
    }

    /// Begins to wait where nothing is held, and ends that wait where something is.
    fn rest_or_stay_ready(&mut self, is_empty: bool) {
        if is_empty {
            self.empty_since.get_or_insert_with(Instant::now);
            self.rest_when_due();
        } else {
            self.empty_since = None;
        }
    }

    /// Lets no packet meet the empty lists; when that can't be done they cost a little, and judge as well.
    fn rest(&mut self) {
        self.empty_since = None;
        if self.owner.only_looks() {
            return;
        }
        if let Err(error) = self.elements.rest() {
            tracing::debug!(error = %crate::chain::causes(&error), "cannot take the hooks of empty lists away");
        }
    }

    /// Takes what the kernel holds as what we hold.
    fn adopt(&mut self) -> Result<(), NetlinkError> {
        let found = self.elements.read()?;
        self.remember(found, clock());
        Ok(())
    }
}

/// Whether the end that the kernel knows needs no writing: the wanted one, or near it while there is time to write it yet.
fn is_same_end(held: Timestamp, wanted: Timestamp, now: Timestamp) -> bool {
    held == wanted || (near(held, wanted, SAME_END) && held.since(now) > SAME_END)
}

fn near(a: Timestamp, b: Timestamp, tolerance: Span) -> bool {
    a.since(b).nanos().unsigned_abs() <= tolerance.nanos().unsigned_abs()
}

fn span(duration: Duration) -> Span {
    Span::from_nanos(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

fn duration(span: Span) -> Duration {
    Duration::from_nanos(u64::try_from(span.nanos()).unwrap_or(0))
}

/// CLOCK_REALTIME.
fn clock() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::EPOCH.after(span(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enforcer_may_move_to_the_thread_that_cuts() {
        fn moves<T: Send>() {}
        moves::<Enforcer>();
        moves::<Sockets>();
    }

    #[test]
    fn ends_are_compared_in_both_directions_and_spans_never_turn_negative() {
        let (a, b) = (Timestamp::from_nanos(10_000_000_000), Timestamp::from_nanos(10_900_000_000));
        assert!(near(a, b, SAME_END) && near(b, a, SAME_END));
        assert!(!near(a, b.after(SAME_END), SAME_END));
        assert!(is_same_end(a, b, a.before(Span::from_secs(5))), "it can be written later");
        assert!(!is_same_end(a, b, a.before(SAME_END)), "in the last second each step counts");
        assert!(is_same_end(a, a, a));
        assert_eq!(duration(Span::from_nanos(-5)), Duration::ZERO);
    }
}
