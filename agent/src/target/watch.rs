//! Changes that make a target another: cgroups by inotify, devices and neighbours by route netlink.

use super::cgroup::{Tree, normal};
use super::netlink::{AskKernelError, Heard, Listener};
use super::routes::{
    DEL_LINK, NEW_LINK, NEW_NEIGHBOUR, Neighbour, Routes, mac_text, read_link, read_neighbour,
};
use super::{Target, routes};
use rustix::fs::inotify;
use sekisho_schema::Scope;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// `RTNLGRP_LINK`, `RTNLGRP_NEIGH` (which also tells of forwarding tables), `RTNLGRP_NSID` (linux/rtnetlink.h).
const GROUPS: [u32; 3] = [1, 3, 28];
/// Datagrams read at once; more means that everything is looked at anew.
const MAX_DATAGRAMS: usize = 4_096;
/// inotify events read at once.
const MAX_EVENTS: usize = 4_096;
/// Directories watched; a host's default bound is 8,192 at least.
const MAX_DIRECTORIES: usize = 4_096;
/// Notes told at once.
const MAX_NOTES: usize = 64;
/// Bytes of inotify events read at once.
const EVENT_BYTES: usize = 16 * 1024;

/// Why changes can't be heard.
#[derive(Debug, thiserror::Error)]
pub enum OpenWatchError {
    /// No inotify.
    #[error("cannot watch cgroups for changes")]
    Inotify(#[source] std::io::Error),
    /// No route netlink.
    #[error("cannot watch devices and neighbours for changes")]
    Netlink(#[source] AskKernelError),
}

/// What an operator should know of a scope that is held.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// The scope.
    pub scope: Scope,
    /// What happened, in words.
    pub text: String,
}

/// What changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Scopes to resolve anew.
    pub scopes: BTreeSet<Scope>,
    /// What an operator should know.
    pub notes: Vec<Note>,
    /// Changes were lost: every watched scope is among `scopes`.
    pub is_lost: bool,
}

impl Changed {
    fn note(&mut self, scope: &Scope, text: String) {
        self.scopes.insert(scope.clone());
        let note = Note { scope: scope.clone(), text };
        if self.notes.len() < MAX_NOTES && !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

/// A device as far as its changes matter.
type Known = (String, Option<u32>);

pub(super) struct Watch {
    inotify: OwnedFd,
    listener: Listener,
    tree: Option<Tree>,
    directories: BTreeMap<i32, PathBuf>,
    /// What each watched scope was when it was last resolved.
    scopes: BTreeMap<Scope, Option<Target>>,
    links: BTreeMap<u32, Known>,
    /// What inotify could not be told to watch.
    is_deaf: bool,
}

impl Watch {
    pub(super) fn open() -> Result<Self, OpenWatchError> {
        let inotify = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)
            .map_err(|error| OpenWatchError::Inotify(error.into()))?;
        let listener = Listener::open(netlink_sys::protocols::NETLINK_ROUTE, &GROUPS)
            .map_err(OpenWatchError::Netlink)?;
        let mut watch = Self {
            inotify,
            listener,
            tree: Tree::find().ok(),
            directories: BTreeMap::new(),
            scopes: BTreeMap::new(),
            links: BTreeMap::new(),
            is_deaf: false,
        };
        watch.learn_links().map_err(OpenWatchError::Netlink)?;
        Ok(watch)
    }

    fn learn_links(&mut self) -> Result<(), AskKernelError> {
        let links = Routes::open()?.links()?;
        self.links = links.into_iter().map(|link| (link.index, (link.name, link.master))).collect();
        Ok(())
    }

    pub(super) fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.inotify.as_fd(), self.listener.socket().as_fd()]
    }

    pub(super) fn begin(&mut self, scope: &Scope) {
        self.scopes.entry(scope.clone()).or_insert(None);
        self.arm();
    }

    pub(super) fn end(&mut self, scope: &Scope) {
        self.scopes.remove(scope);
        let needed = self.needed();
        self.forget(|directory| !needed.contains(directory));
    }

    /// Ends the watch of directories. The kernel keeps that of a removed cgroup, and says nothing of a new one in its place.
    fn forget(&mut self, is_stale: impl Fn(&PathBuf) -> bool) {
        let inotify = &self.inotify;
        self.directories.retain(|watch, directory| {
            let stale = is_stale(directory);
            if stale {
                let _ = inotify::remove_watch(inotify, *watch);
            }
            !stale
        });
    }

    /// Remembers what a watched scope is; an inside host keeps what it was held by.
    pub(super) fn settle(&mut self, scope: &Scope, target: &mut Target) {
        let Some(known) = self.scopes.get_mut(scope) else { return };
        if let (Scope::Internal(_), Some(before)) = (scope, known.as_ref()) {
            let devices: BTreeSet<&String> = self.links.values().map(|(name, _)| name).collect();
            let here = |port: &&String| devices.contains(port);
            target.macs.extend(before.macs.iter());
            target.addresses.extend(before.addresses.iter());
            target.ports.extend(before.ports.iter().filter(here).cloned());
        }
        *known = Some(target.clone());
        self.arm();
    }

    /// Cgroup paths of watched scopes: where they are, or where they are expected.
    fn paths(&self) -> BTreeMap<String, Vec<Scope>> {
        let mut paths: BTreeMap<String, Vec<Scope>> = BTreeMap::new();
        for (scope, known) in &self.scopes {
            let named = if let Scope::Cgroup(path) = scope { normal(path) } else { None };
            let found = known.iter().flat_map(|target| &target.cgroups);
            for path in named.into_iter().chain(found.map(|cgroup| cgroup.path.clone())) {
                paths.entry(path).or_default().push(scope.clone());
            }
        }
        paths
    }

    /// Directories in which a part of a watched path may come or go: every ancestor, and the cgroup itself for what is made below it.
    fn needed(&self) -> BTreeSet<PathBuf> {
        let Some(tree) = &self.tree else { return BTreeSet::new() };
        let mut needed = BTreeSet::new();
        for path in self.paths().keys() {
            let mut above = path.as_str();
            while let Some((parent, _)) = above.rsplit_once('/') {
                needed.insert(tree.directory(parent));
                above = parent;
            }
        }
        needed
    }

    fn arm(&mut self) {
        if self.tree.is_none() {
            self.tree = Tree::find().ok();
        }
        for directory in self.needed() {
            if self.directories.values().any(|watched| *watched == directory) {
                continue;
            }
            if self.directories.len() >= MAX_DIRECTORIES {
                self.is_deaf = true;
                return;
            }
            let flags = inotify::WatchFlags::CREATE
                | inotify::WatchFlags::DELETE
                | inotify::WatchFlags::MOVE
                | inotify::WatchFlags::ONLYDIR;
            match inotify::add_watch(&self.inotify, &directory, flags) {
                Ok(watch) => {
                    self.directories.insert(watch, directory);
                }
                // It will be watched once the directory above tells that it is there.
                Err(rustix::io::Errno::NOENT) => {}
                Err(_) => self.is_deaf = true,
            }
        }
    }

    pub(super) fn changed(&mut self) -> Changed {
        let mut changed = Changed::default();
        changed.is_lost |= !self.read_inotify(&mut changed);
        changed.is_lost |= !self.read_netlink(&mut changed);
        changed.is_lost |= std::mem::take(&mut self.is_deaf);
        if changed.is_lost {
            let _ = self.learn_links();
            changed.scopes.extend(self.scopes.keys().cloned());
        }
        changed
    }

    /// Whether everything was read.
    fn read_inotify(&mut self, changed: &mut Changed) -> bool {
        let mut events: Vec<(i32, inotify::ReadFlags, Option<String>)> = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); EVENT_BYTES];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let is_whole = loop {
            if events.len() >= MAX_EVENTS {
                break false;
            }
            match reader.next() {
                Ok(event) => {
                    if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
                        break false;
                    }
                    let name = event.file_name().and_then(|name| name.to_str().ok());
                    events.push((event.wd(), event.events(), name.map(str::to_owned)));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => break error == rustix::io::Errno::WOULDBLOCK,
            }
        };
        let paths = self.paths();
        let mut is_stirred = false;
        let mut gone = Vec::new();
        for (watch, flags, name) in events {
            if flags.contains(inotify::ReadFlags::IGNORED) {
                self.directories.remove(&watch);
                is_stirred = true;
                continue;
            }
            let (Some(tree), Some(directory), Some(name)) =
                (&self.tree, self.directories.get(&watch), name)
            else {
                continue;
            };
            let place = directory.join(name);
            for (path, scopes) in &paths {
                // The cgroup itself, or one above it, came or went.
                if tree.directory(path).starts_with(&place) {
                    changed.scopes.extend(scopes.iter().cloned());
                    is_stirred = true;
                }
            }
            gone.push(place);
        }
        if is_whole {
            self.forget(|directory| gone.iter().any(|place| directory.starts_with(place)));
        } else {
            self.forget(|_| true);
        }
        if is_stirred || !is_whole {
            self.arm();
        }
        is_whole
    }

    /// Whether everything was read.
    fn read_netlink(&mut self, changed: &mut Changed) -> bool {
        let mut links = Vec::new();
        let mut neighbours = Vec::new();
        let heard = self.listener.read(MAX_DATAGRAMS, &mut |message| match message.kind {
            // A bridge tells its ports' changes once more, as its own (AF_BRIDGE, 7).
            NEW_LINK | DEL_LINK if message.body.first() != Some(&7) => {
                links.extend(read_link(message.body).map(|link| (message.kind == NEW_LINK, link)));
            }
            NEW_NEIGHBOUR => neighbours.extend(read_neighbour(message)),
            _ => {}
        });
        for (is_there, link) in links {
            self.heard_link(is_there, link, changed);
        }
        for neighbour in neighbours {
            self.heard_neighbour(&neighbour, changed);
        }
        matches!(heard, Ok(Heard::All))
    }

    fn heard_link(&mut self, is_there: bool, link: routes::Link, changed: &mut Changed) {
        let now = is_there.then_some((link.name, link.master));
        let before = match &now {
            Some(now) => self.links.insert(link.index, now.clone()),
            None => self.links.remove(&link.index),
        };
        if before == now {
            return;
        }
        let names: BTreeSet<&String> = before.iter().chain(&now).map(|(name, _)| name).collect();
        for (scope, known) in &self.scopes {
            let matters = match scope {
                // A device that is made or moved is how a workload gets a way out of another namespace.
                Scope::Cgroup(_) | Scope::Container(_) => {
                    before.is_none() || now.is_none() || holds_any(known.as_ref(), &names)
                }
                Scope::Link(device) => names.contains(device),
                _ => holds_any(known.as_ref(), &names),
            };
            if matters {
                changed.scopes.insert(scope.clone());
            }
            if let (Some((old, _)), Some((new, _))) = (&before, &now)
                && old != new
                && known.as_ref().is_some_and(|target| target.ports.contains(old))
            {
                changed.note(scope, format!("device {old} of {scope} is called {new} now"));
            }
        }
    }

    fn heard_neighbour(&self, neighbour: &Neighbour, changed: &mut Changed) {
        let device = self.links.get(&neighbour.device).map_or("?", |(name, _)| name.as_str());
        let mac = mac_text(&neighbour.mac);
        for (scope, known) in &self.scopes {
            let (Scope::Internal(host), known) = (scope, known.as_ref()) else { continue };
            let is_mine = known.is_some_and(|target| target.macs.contains(&neighbour.mac));
            if neighbour.is_forwarding {
                let is_held = known.is_some_and(|target| target.ports.contains(device));
                match (is_mine, is_held) {
                    (false, true) => {
                        changed.note(scope, format!("new MAC {mac} on port {device} of {scope}"));
                    }
                    (true, false) => {
                        changed.scopes.insert(scope.clone());
                    }
                    _ => {}
                }
                continue;
            }
            let Some(address) = neighbour.address else { continue };
            let is_named = host.parse::<IpAddr>().is_ok_and(|named| named == address);
            let is_address = known.is_some_and(|target| target.addresses.contains(&address));
            match (is_mine, is_address || is_named) {
                (true, false) => {
                    changed.note(scope, format!("new address {address} of MAC {mac} of {scope}"));
                }
                (false, true) if known.is_some_and(|target| !target.macs.is_empty()) => {
                    changed.note(
                        scope,
                        format!("new MAC {mac} on {device} for address {address} of {scope}"),
                    );
                }
                (false, true) => {
                    changed.scopes.insert(scope.clone());
                }
                _ => {}
            }
        }
    }
}

fn holds_any(known: Option<&Target>, names: &BTreeSet<&String>) -> bool {
    known.is_some_and(|target| target.ports.iter().any(|port| names.contains(port)))
}
