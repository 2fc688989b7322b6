//! What scopes are on this host while they are held, and what is held by other means than the ruleset:
//! devices that are down.

use super::wire::RefusedScope;
use crate::chain::causes;
use crate::enforce::{Plan, link};
use crate::target::{Resolver, Targets, describe, needs_target};
use sekisho_schema::{ContainmentId, ContainmentSet, Scope, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

/// Name of the file below `[paths] state` that says what has to be undone by hand of ours: the kernel holds no time-out for it.
pub(super) const FILE: &str = "undo.json";

/// What has to be undone when nobody wants it any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Undo {
    /// Devices that were up before.
    #[serde(default)]
    pub(super) links: BTreeSet<String>,
    /// Cgroups that stand still.
    #[serde(default)]
    pub(super) frozen: BTreeSet<String>,
}

impl Undo {
    pub(super) fn read(state: &Path) -> Self {
        std::fs::read(state.join(FILE))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// On disk before it is done: whoever comes after a crash must know.
    pub(super) fn write(&self, state: &Path) -> io::Result<()> {
        super::kept::write_whole(&state.join(FILE), &serde_json::to_vec(self)?)
    }
}

/// Targets of what is held.
#[derive(Default)]
pub(super) struct Aims {
    resolver: Option<Resolver>,
    pub(super) targets: Targets,
}

impl Aims {
    /// What to wait on for changes.
    pub(super) fn fds(&self) -> Option<[BorrowedFd<'_>; 2]> {
        self.resolver.as_ref().map(Resolver::fds)
    }

    /// Finds out what the scopes of a set are, and forgets those that are in it no more; `true` when anything changed.
    pub(super) fn follow(&mut self, set: &ContainmentSet) -> bool {
        let wanted: BTreeSet<&Scope> = set
            .containments
            .values()
            .map(|containment| &containment.scope)
            .filter(|scope| needs_target(scope))
            .collect();
        let gone: Vec<Scope> =
            self.targets.keys().filter(|scope| !wanted.contains(scope)).cloned().collect();
        let mut changed = !gone.is_empty();
        for scope in gone {
            self.targets.remove(&scope);
            if let Some(resolver) = &mut self.resolver {
                resolver.unwatch(&scope);
            }
        }
        for scope in wanted {
            if !self.targets.contains_key(scope) {
                changed |= self.find(scope, true);
            }
        }
        changed
    }

    fn find(&mut self, scope: &Scope, begin: bool) -> bool {
        if self.resolver.is_none() {
            match Resolver::open() {
                Ok(resolver) => self.resolver = Some(resolver),
                Err(error) => {
                    tracing::error!(error = %causes(&error), "cannot find out what scopes are");
                    return false;
                }
            }
        }
        let Some(resolver) = &mut self.resolver else { return false };
        let found = if begin { resolver.watch(scope) } else { resolver.resolve(scope) };
        match found {
            Ok(target) => {
                let changed = self.targets.get(scope) != Some(&target);
                self.targets.insert(scope.clone(), target);
                changed
            }
            Err(error) => {
                // What was held under the old target stays held: it may come back under its old ids.
                tracing::warn!(%scope, error = %causes(&error), "a contained scope can't be found");
                false
            }
        }
    }

    /// Takes in what changed; `true` when something has to be held anew.
    pub(super) fn heed(&mut self) -> bool {
        let Some(resolver) = &mut self.resolver else { return false };
        let changed = resolver.changed();
        for note in &changed.notes {
            tracing::warn!(scope = %note.scope, note = %note.text, "a contained scope changed");
        }
        let mut anew = false;
        for scope in &changed.scopes {
            anew |= self.find(scope, false);
        }
        anew
    }

    /// Targets in words, by containment.
    pub(super) fn words(&self, set: &ContainmentSet) -> BTreeMap<ContainmentId, Vec<String>> {
        set.containments
            .values()
            .filter_map(|held| Some((held.id.clone(), describe(self.targets.get(&held.scope)?))))
            .collect()
    }
}

/// Devices that are down because somebody decided so.
pub(super) struct Links {
    state: PathBuf,
    undo: BTreeSet<String>,
}

impl Links {
    pub(super) fn new(state: PathBuf) -> Self {
        let undo = Undo::read(&state).links;
        Self { state, undo }
    }

    /// Whether a device is down that has to be raised some time.
    pub(super) fn is_used(&self) -> bool {
        !self.undo.is_empty()
    }

    /// Takes the devices of a set down and raises those that nobody wants down any more; gives what was refused.
    pub(super) fn follow(
        &mut self,
        set: &ContainmentSet,
        plan: &Plan,
        now: Timestamp,
    ) -> Vec<RefusedScope> {
        let mut refused = Vec::new();
        let mut wanted = BTreeSet::new();
        for held in set.containments.values().filter(|held| held.held_until() > now) {
            let Scope::Link(device) = &held.scope else { continue };
            // Who orders it by hand has been asked for break-glass by the agent where it is needed.
            let why = link::refusal(device, plan, held.by.is_some())
                .map(|refusal| refusal.to_string())
                .or_else(|| self.lower(device).err());
            match why {
                Some(why) => refused.push(RefusedScope { id: held.id.clone(), why }),
                None => {
                    wanted.insert(device.clone());
                }
            }
        }
        let over: Vec<String> = self.undo.difference(&wanted).cloned().collect();
        for device in over {
            if let Err(error) = link::up(&device) {
                tracing::error!(error = %causes(&error), %device, "cannot raise a device whose lease has ended");
            }
            self.undo.remove(&device);
            let _ = self.write();
        }
        refused
    }

    fn lower(&mut self, device: &str) -> Result<(), String> {
        let is_up = link::state(device).map_err(|error| causes(&error))?.up;
        if is_up && self.undo.insert(device.to_owned()) {
            self.write().map_err(|error| format!("cannot write down what to undo: {error}"))?;
        }
        link::down(device).map(drop).map_err(|error| causes(&error))
    }

    fn write(&self) -> io::Result<()> {
        Undo { links: self.undo.clone(), ..Undo::read(&self.state) }.write(&self.state)
    }
}
