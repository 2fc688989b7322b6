//! What goes on behind a cut is ended: sockets in every network namespace concerned, entries of connection
//! tracking by which a site's rules or a NAT would keep it alive, and processes that shall stand still.

use super::aims::Undo;
use super::seat::{Facts, Seat};
use super::wire::Ended;
use crate::chain::causes;
use crate::enforce::{Destroyed, Ends, Plan, SocketRecord, Sockets, Tracked, is_held};
use crate::target::{self, Namespace, Resolver, Stray, Target, Targets, Tree, needs_target};
use sekisho_schema::{Measure, Scope};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest look for other network namespaces.
const LOOK: Duration = Duration::from_millis(200);

/// Ends what goes on in scopes that the kernel holds.
pub(super) fn end(seat: &Seat, scopes: &[Scope], state: &Path) -> Ended {
    seat.settle(scopes);
    let mut ended = Ended::default();
    let facts = seat.facts();
    let Some(plan) = &facts.plan else { return ended };
    let Facts { set, targets, .. } = &facts;
    // A scope that lets packets pass has nothing to end.
    let cut: Vec<&Scope> = scopes
        .iter()
        .filter(|scope| {
            let mut held = set.containments.values().filter(|held| held.scope == **scope);
            held.any(|held| matches!(held.measure, Measure::Cut | Measure::Freeze))
        })
        .collect();
    freeze(&facts, &cut, state, &mut ended);
    let strays = strays(&cut, targets, &mut ended);
    ended.note("this network namespace", end_here(&cut, targets, plan, &strays));
    for (place, namespace, whole) in elsewhere(&cut, targets) {
        let done = target::within(&namespace, || {
            if whole { end_all() } else { end_here(&cut, &Targets::new(), plan, &[]) }
        });
        match done {
            Ok(done) => ended.note(&place, done),
            // It ended meanwhile, and its sockets with it.
            Err(target::EnterError::Gone { .. }) => {}
            Err(error) => ended.faults.push(causes(&error)),
        }
    }
    let scopes: Vec<Scope> = cut.into_iter().cloned().collect();
    match Tracked::open().and_then(|mut tracked| tracked.delete_cut(&scopes, plan)) {
        Ok(count) => ended.tracked = count,
        Err(error) if error.is_absent_subsystem() => {}
        Err(error) => ended.faults.push(causes(&error)),
    }
    ended
}

impl Ended {
    fn note(&mut self, place: &str, done: Result<Destroyed, String>) {
        match done {
            Ok(destroyed) => {
                self.sockets += destroyed.count;
                self.failed += destroyed.failed;
            }
            Err(why) => self.faults.push(format!("{place}: {why}")),
        }
    }
}

/// Other network namespaces: those of the scopes themselves, of which all is ended, and those of everybody whom
/// this host forwards, when its way out is cut.
fn elsewhere(cut: &[&Scope], targets: &Targets) -> Vec<(String, Namespace, bool)> {
    let own: BTreeSet<Namespace> = cut
        .iter()
        .filter_map(|scope| targets.get(*scope))
        .flat_map(|target| target.namespaces.iter().cloned())
        .collect();
    let forwards = cut
        .iter()
        .any(|scope| matches!(scope, Scope::Destination(_) | Scope::Host | Scope::ManagementOnly));
    let others = if forwards { target::others(Instant::now() + LOOK) } else { Vec::new() };
    let inodes: BTreeSet<u64> = own.iter().map(|namespace| namespace.inode).collect();
    let others = others.into_iter().filter(|other| !inodes.contains(&other.inode));
    let named = |namespace: &Namespace| format!("network namespace {}", namespace.inode);
    own.iter()
        .map(|namespace| (named(namespace), namespace.clone(), true))
        .chain(others.map(|namespace| (named(&namespace), namespace, false)))
        .collect()
}

/// Sockets of workloads that were made in other cgroups, which no rule stops.
fn strays(cut: &[&Scope], targets: &Targets, ended: &mut Ended) -> Vec<Stray> {
    let found: Vec<&Target> = cut
        .iter()
        .filter(|scope| needs_target(scope))
        .filter_map(|scope| targets.get(*scope))
        .collect();
    if found.iter().all(|target| target.cgroups.is_empty()) {
        return Vec::new();
    }
    let resolver = match Resolver::open() {
        Ok(resolver) => resolver,
        Err(error) => {
            ended.faults.push(causes(&error));
            return Vec::new();
        }
    };
    let mut strays = Vec::new();
    for target in found {
        match resolver.strays(target) {
            Ok(more) => strays.extend(more),
            Err(error) => ended.faults.push(causes(&error)),
        }
    }
    strays
}

fn end_here(
    cut: &[&Scope],
    targets: &Targets,
    plan: &Plan,
    strays: &[Stray],
) -> Result<Destroyed, String> {
    let is_stray = |socket: &SocketRecord| {
        strays.iter().any(|stray| {
            stray.transport == socket.transport
                && stray.local == socket.local
                && stray.remote == socket.remote
        })
    };
    let mut sockets = Sockets::open().map_err(|error| causes(&error))?;
    sockets
        .destroy_where(|socket| {
            let flow = Ends {
                transport: socket.transport,
                local: socket.local,
                remote: socket.remote,
                cgroup: socket.cgroup,
            };
            is_stray(socket)
                || cut
                    .iter()
                    .any(|scope| is_held(scope, Measure::Cut, targets.get(*scope), &flow, plan))
        })
        .map_err(|error| causes(&error))
}

/// Ends everything that leaves a namespace which is itself contained.
fn end_all() -> Result<Destroyed, String> {
    let mut sockets = Sockets::open().map_err(|error| causes(&error))?;
    sockets
        .destroy_where(|socket| !socket.remote.ip().is_loopback())
        .map_err(|error| causes(&error))
}

fn freeze(facts: &Facts, cut: &[&Scope], state: &Path, ended: &mut Ended) {
    let paths = wanted(facts, |scope| cut.contains(&scope));
    if paths.is_empty() {
        return;
    }
    let tree = match Tree::find() {
        Ok(tree) => tree,
        Err(error) => return ended.faults.push(causes(&error)),
    };
    let mut undo = Undo::read(state);
    undo.frozen.extend(paths.iter().cloned());
    if let Err(error) = undo.write(state) {
        ended.faults.push(format!("nothing was frozen: cannot write down what to thaw: {error}"));
        return;
    }
    for path in paths {
        match target::freeze(&tree, &path, true, &[std::process::id(), facts.agent]) {
            Ok(_) => ended.frozen += 1,
            Err(error) => ended.faults.push(causes(&error)),
        }
    }
}

/// Cgroups that shall stand still now.
fn wanted(facts: &Facts, fits: impl Fn(&Scope) -> bool) -> BTreeSet<String> {
    let now = crate::clock::now();
    facts
        .set
        .containments
        .values()
        .filter(|held| held.measure == Measure::Freeze && held.held_until() > now)
        .filter(|held| fits(&held.scope))
        .filter_map(|held| facts.targets.get(&held.scope))
        .flat_map(|target| target.cgroups.iter().map(|cgroup| cgroup.path.clone()))
        .collect()
}

/// Lets go on what nobody wants to stand still any more.
pub(super) fn thaw(facts: &Facts, state: &Path) {
    let mut undo = Undo::read(state);
    if undo.frozen.is_empty() {
        return;
    }
    let wanted = wanted(facts, |_| true);
    let over: Vec<String> = undo.frozen.difference(&wanted).cloned().collect();
    let Ok(tree) = Tree::find() else { return };
    for path in &over {
        if let Err(error) = target::freeze(&tree, path, false, &[]) {
            tracing::error!(error = %causes(&error), %path, "cannot let a workload go on");
        }
        undo.frozen.remove(path);
    }
    if !over.is_empty()
        && let Err(error) = undo.write(state)
    {
        tracing::warn!(%error, "cannot write down what was thawed");
    }
}
