//! From a scope to its target.

use super::cgroup::{FindTreeError, MAX_LEVEL, Members, Tree};
use super::container::{self, FindContainerError};
use super::inside::{self, FindHostError};
use super::netlink::AskKernelError;
use super::reach::Here;
use super::watch::{Changed, OpenWatchError, Watch};
use super::workload::{self, Stray};
use super::{Cgroup, Target};
use sekisho_schema::Scope;
use std::os::fd::BorrowedFd;

/// Things told in an error.
const TOLD: usize = 8;

/// Why a scope could not be resolved; nothing of it can be held.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The kernel could not be asked.
    #[error("cannot read what this host is connected with")]
    Ask(#[from] AskKernelError),
    /// No such container.
    #[error(transparent)]
    Container(#[from] FindContainerError),
    /// Too far below the root.
    #[error(
        "cgroup {path} is {level} levels deep; the kernel is given sets for levels 1 to {MAX_LEVEL}"
    )]
    Deep {
        /// The cgroup.
        path: String,
        /// Its depth.
        level: u8,
    },
    /// It is there and nothing about it can be told to a ruleset.
    #[error("{scope} was found, but nothing of it can be held: {}", open.join("; "))]
    Empty {
        /// The scope.
        scope: Scope,
        /// What was found and can't be held.
        open: Vec<String>,
    },
    /// No such inside host.
    #[error(transparent)]
    Host(#[from] FindHostError),
    /// The scope is held without a target.
    #[error("{scope} names no workload, inside host or device: it needs no target")]
    Needless {
        /// The scope.
        scope: Scope,
    },
    /// No such cgroup.
    #[error("no cgroup {path}; the nearest that exists is {nearest}{}", below(children))]
    NoCgroup {
        /// What was asked for.
        path: String,
        /// The nearest path above it.
        nearest: String,
        /// Names below that.
        children: Vec<String>,
    },
    /// No such device.
    #[error("no device {device}; there are: {}", known.join(", "))]
    NoDevice {
        /// What was asked for.
        device: String,
        /// Devices of this namespace.
        known: Vec<String>,
    },
    /// It is the way on which the host speaks with itself.
    #[error("{device} is the loopback, which is never taken down")]
    Loopback {
        /// The device.
        device: String,
    },
    /// The root is no workload.
    #[error("cgroup {path} is the root of all, or no path: contain the host instead")]
    Root {
        /// What was asked for.
        path: String,
    },
    /// The tree of cgroups can't be used.
    #[error("workloads can't be told apart on this host")]
    Tree(#[from] FindTreeError),
}

fn below(children: &[String]) -> String {
    if children.is_empty() {
        String::new()
    } else {
        format!(", with {} below it", children.join(", "))
    }
}

/// Whether a scope is held by a target, and not by its name alone.
#[must_use]
pub const fn needs_target(scope: &Scope) -> bool {
    matches!(scope, Scope::Cgroup(_) | Scope::Container(_) | Scope::Internal(_) | Scope::Link(_))
}

/// Tells what scopes are on this host, and when that may have changed.
///
/// The network namespace is that of the thread that asks; its watch is that of the thread that opened it.
pub struct Resolver {
    watch: Watch,
}

impl Resolver {
    /// Opens what is needed to hear of changes.
    ///
    /// # Errors
    /// [`OpenWatchError`].
    pub fn open() -> Result<Self, OpenWatchError> {
        Ok(Self { watch: Watch::open()? })
    }

    /// What a scope is on this host, now; never an empty target.
    ///
    /// For an inside host that is watched, what was held before is kept: it can't shake off its port by a
    /// second hardware address, nor an address by a day's silence.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub fn resolve(&mut self, scope: &Scope) -> Result<Target, ResolveError> {
        let mut target = fresh(scope)?;
        self.watch.settle(scope, &mut target);
        Ok(target)
    }

    /// Begins to watch a scope, and tells what it is now. It is watched also when it does not resolve: it may come yet.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub fn watch(&mut self, scope: &Scope) -> Result<Target, ResolveError> {
        if !needs_target(scope) {
            return Err(ResolveError::Needless { scope: scope.clone() });
        }
        // Watched before it is looked at: a change in between is heard and not missed.
        self.watch.begin(scope);
        self.resolve(scope)
    }

    /// Ends the watch of a scope.
    pub fn unwatch(&mut self, scope: &Scope) {
        self.watch.end(scope);
    }

    /// What to wait on (readable); [`Self::changed`] then tells.
    #[must_use]
    pub fn fds(&self) -> [BorrowedFd<'_>; 2] {
        self.watch.fds()
    }

    /// Watched scopes that may have changed since the last call; the caller resolves them anew. Never waits.
    pub fn changed(&mut self) -> Changed {
        self.watch.changed()
    }

    /// Sockets of a workload that a cut by its cgroups does not stop; empty for other scopes.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub fn strays(&self, target: &Target) -> Result<Vec<Stray>, ResolveError> {
        if target.cgroups.is_empty() {
            return Ok(Vec::new());
        }
        let members = members_of(&Tree::find()?, target.cgroups.iter());
        Ok(workload::add_sockets(&members, &mut Target::default())?)
    }
}

fn members_of<'a>(tree: &Tree, cgroups: impl Iterator<Item = &'a Cgroup>) -> Members {
    let mut all = Members::default();
    for cgroup in cgroups {
        let members = tree.members(&cgroup.path);
        all.ids.extend(members.ids);
        all.pids.extend(members.pids);
        all.is_partial |= members.is_partial;
    }
    all
}

fn fresh(scope: &Scope) -> Result<Target, ResolveError> {
    let mut target = match scope {
        Scope::Cgroup(path) => cgroup(path)?,
        Scope::Container(id) => container(id)?,
        Scope::Internal(host) => inside::find(host)?,
        Scope::Link(device) => link(device)?,
        Scope::Destination(_) | Scope::Host | Scope::ManagementOnly => {
            return Err(ResolveError::Needless { scope: scope.clone() });
        }
    };
    target.open.sort();
    target.open.dedup();
    if target.cgroups.is_empty()
        && target.addresses.is_empty()
        && target.macs.is_empty()
        && target.ports.is_empty()
    {
        return Err(ResolveError::Empty { scope: scope.clone(), open: target.open });
    }
    Ok(target)
}

fn cgroup(path: &str) -> Result<Target, ResolveError> {
    let tree = Tree::find()?;
    let root = || ResolveError::Root { path: path.to_owned() };
    let path = super::cgroup::normal(path).ok_or_else(root)?;
    let mut target = Target::default();
    let members = add_cgroup(&tree, &path, &mut target)?;
    let sharers = workload::sharers(&target.namespaces, &members.pids);
    let mut here = Here::look()?;
    for namespace in target.namespaces.clone() {
        match sharers.get(&namespace.inode) {
            None => here.add_namespace(&namespace, &mut target),
            Some((pid, count)) => target.open.push(format!(
                "its processes in network namespace {} share it with {count} of others (process {pid}): what they send from there is held only by a rule inside it",
                namespace.inode
            )),
        }
    }
    Ok(target)
}

/// Adds a cgroup with its sockets and namespaces.
fn add_cgroup(tree: &Tree, path: &str, target: &mut Target) -> Result<Members, ResolveError> {
    let cgroup = tree.cgroup(path).ok_or_else(|| {
        let nearest = tree.nearest(path);
        let children = tree.children(&nearest, TOLD);
        ResolveError::NoCgroup { path: path.to_owned(), nearest, children }
    })?;
    if cgroup.level > MAX_LEVEL {
        return Err(ResolveError::Deep { path: cgroup.path, level: cgroup.level });
    }
    let members = tree.members(&cgroup.path);
    target.cgroups.insert(cgroup);
    if members.is_partial {
        target.open.push("it has more cgroups or processes than were looked at".to_owned());
    }
    workload::add_sockets(&members, target)?;
    target.namespaces.extend(workload::namespaces(&members.pids));
    Ok(members)
}

fn container(id: &str) -> Result<Target, ResolveError> {
    let tree = Tree::find();
    let found = container::find(id, tree.as_ref().ok())?;
    let mut target = Target::default();
    let mut pids = found.strays;
    if let Ok(tree) = &tree {
        for path in &found.paths {
            match add_cgroup(tree, path, &mut target) {
                Ok(members) => pids.extend(members.pids),
                // It ended while it was looked at; the others may be there yet.
                Err(ResolveError::NoCgroup { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    if target.cgroups.is_empty() {
        target.open.push(
            "it has no cgroup of version 2: held by its devices and addresses only".to_owned(),
        );
        target.namespaces = workload::namespaces(&pids);
    }
    for (inode, (pid, count)) in workload::sharers(&target.namespaces, &pids) {
        target.open.push(format!(
            "its network namespace {inode} is shared with {count} processes of others (process {pid}), which are cut with it"
        ));
    }
    let mut here = Here::look()?;
    for namespace in target.namespaces.clone() {
        here.add_namespace(&namespace, &mut target);
    }
    Ok(target)
}

fn link(device: &str) -> Result<Target, ResolveError> {
    let here = Here::look()?;
    match here.links.iter().find(|link| link.name == device) {
        Some(link) if link.is_loopback => Err(ResolveError::Loopback { device: device.to_owned() }),
        Some(_) => {
            Ok(Target { ports: [device.to_owned()].into_iter().collect(), ..Target::default() })
        }
        None => {
            let mut known: Vec<String> = here.links.into_iter().map(|link| link.name).collect();
            known.sort();
            known.truncate(TOLD);
            Err(ResolveError::NoDevice { device: device.to_owned(), known })
        }
    }
}
