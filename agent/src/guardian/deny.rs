//! New packet and AF_XDP sockets are refused to what is contained, where the kernel has a security module for it.
//!
//! An extra beside the ruleset, on a thread of its own: a cut never waits for it, and what fails here is told and
//! leaves the cut as it is. What is refused ends in the kernel with the lease, whoever is dead by then.

use super::seat::{Facts, Seat};
use crate::bpf::{BPF_FS, Denial, Openers, Spared, Wanted, boot_nanos};
use crate::chain::causes;
use crate::clock;
use crate::queue::{Receiver, Sender};
use crate::target::sockets::{ALL_STATES, Diagnosis};
use crate::target::workload::{listed_inodes, sockets_of};
use crate::target::{AskKernelError, MAX_LEVEL, processes};
use sekisho_schema::{Measure, Scope, Timestamp, Transport};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// How often what is refused is looked at when nothing changes.
const LOOK: Duration = Duration::from_secs(1);
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// Ends are told in whole milliseconds, rounded down: never longer than the lease, and the same each time.
const GRAIN: u64 = 1_000_000;
/// Ports of clients of DHCP (RFC 2131) and DHCPv6 (RFC 8415).
const LEASE_CLIENTS: [u16; 2] = [68, 546];
/// Agents that asked to be spared, at most; the map in the kernel holds 256 processes.
const MOST_AGENTS: usize = 16;
const MOST_SPARED: usize = 200;

/// Whether new packet and AF_XDP sockets of what is contained are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Denying {
    /// It was not tried yet.
    #[default]
    Unknown,
    /// It can't be done here.
    Absent {
        /// Why not.
        why: String,
    },
    /// It can be done, and nothing is contained that it could concern.
    Ready {
        /// Sockets refused so far.
        refused: u64,
    },
    /// It is done.
    Stands {
        /// Cgroups concerned, with all below them.
        cgroups: u64,
        /// Whether everybody in this network namespace is concerned.
        host: bool,
        /// Whether it outlives the guardian.
        outlives: bool,
        /// Sockets refused so far.
        refused: u64,
    },
}

impl Denying {
    /// Whether it can be done, whether it is done, and how many sockets were refused; `None` before it was tried.
    #[must_use]
    pub const fn figures(&self) -> Option<(bool, bool, u64)> {
        match self {
            Self::Unknown => None,
            Self::Absent { .. } => Some((false, false, 0)),
            Self::Ready { refused } => Some((true, false, *refused)),
            Self::Stands { refused, .. } => Some((true, true, *refused)),
        }
    }
}

/// Whether the kernel remembers who opened connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Remembering {
    /// It was not tried yet.
    #[default]
    Unknown,
    /// It can't be done here.
    Absent {
        /// Why not.
        why: String,
    },
    /// It does.
    Works,
}

/// What others tell the thread.
pub(super) enum Told {
    /// Something is held, or not any more.
    Changed,
    /// An agent is about to open packet sockets; the answer comes when it may.
    Spare(u32, Sender<()>),
}

/// The thread's own state.
struct Denier {
    seat: Arc<Seat>,
    denial: Option<Denial>,
    tried: Option<Instant>,
    agents: Vec<Known>,
    /// Who has packet sockets for reasons of its own, found when the host was cut.
    holders: Option<Vec<Known>>,
}

/// A process that is not another one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    pid: u32,
    began: u64,
}

/// Refuses what shall be refused, until nobody tells it anything any more.
pub(super) fn run(seat: Arc<Seat>, told: &Receiver<Told>) {
    let mut denier = Denier { seat, denial: None, tried: None, agents: Vec::new(), holders: None };
    denier.open();
    remember(&denier.seat);
    let mut waiting = Vec::new();
    loop {
        denier.follow();
        for done in waiting.drain(..) {
            let _ = Sender::send(&done, ());
        }
        let first = match told.recv_timeout(LOOK) {
            Ok(first) => Some(first),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // A burst of changes is followed once.
        for told in first.into_iter().chain(told.try_iter()) {
            if let Told::Spare(pid, done) = told {
                denier.agents.retain(Known::is_there);
                denier.agents.truncate(MOST_AGENTS - 1);
                denier.agents.extend(Known::of(pid));
                waiting.push(done);
            }
        }
    }
}

/// Has the kernel remember who opens connections, for as long as the guardian lives.
fn remember(seat: &Seat) {
    let remembering = match Openers::open() {
        Ok(openers) => {
            let _ = seat.openers.set(openers);
            Remembering::Works
        }
        Err(error) => {
            let why = causes(&error);
            tracing::info!(error = %why, state = "programs are named by their sockets, while these are there", "nobody remembers who opened what");
            Remembering::Absent { why }
        }
    };
    seat.change(|facts| facts.state.remembering = remembering);
}

impl Denier {
    fn open(&mut self) {
        self.tried = Some(Instant::now());
        match Denial::open(Path::new(BPF_FS)) {
            Ok(denial) => self.denial = Some(denial),
            Err(error) => {
                let why = causes(&error);
                tracing::info!(error = %why, state = "cuts hold as ever; only new packet and AF_XDP sockets of what is contained are not refused", "no raw sockets can be refused");
                self.tell(&Denying::Absent { why });
            }
        }
    }

    fn follow(&mut self) {
        let (mut wanted, agent) =
            self.seat.see(|facts| (wanted(facts, clock::now(), boot_nanos()), facts.agent));
        if wanted.namespace.is_some() {
            wanted.spared = self.spared(agent);
        } else {
            self.holders = None;
        }
        if self.denial.is_none()
            && !wanted.is_empty()
            && self.tried.is_none_or(|tried| tried.elapsed() >= AGAIN)
        {
            self.open();
        }
        let Some(denial) = &mut self.denial else { return };
        let state = match denial.follow(&wanted) {
            Err(error) => {
                let why = causes(&error);
                tracing::error!(error = %why, "cannot change to whom raw sockets are refused");
                Denying::Absent { why }
            }
            Ok(()) if wanted.is_empty() => Denying::Ready { refused: denial.refused() },
            Ok(()) => Denying::Stands {
                cgroups: wanted.cgroups.len() as u64,
                host: wanted.namespace.is_some(),
                outlives: denial.is_pinned(),
                refused: denial.refused(),
            },
        };
        self.tell(&state);
    }

    fn tell(&self, state: &Denying) {
        self.seat.change(|facts| facts.state.denying.clone_from(state));
    }

    /// The agent and ourselves, and whoever has packet sockets already or is a client of DHCP: neither gains anything
    /// by it, and a host that loses its address is lost.
    fn spared(&mut self, agent: u32) -> BTreeMap<u32, Spared> {
        let holders = self.holders.get_or_insert_with(|| {
            let pids = holders().unwrap_or_else(|error| {
                tracing::warn!(error = %causes(&error), "cannot see who is a client of DHCP");
                BTreeSet::new()
            });
            pids.into_iter().take(MOST_SPARED).filter_map(Known::of).collect()
        });
        holders.retain(Known::is_there);
        self.agents.retain(Known::is_there);
        let mut spared: BTreeMap<u32, Spared> =
            holders.iter().map(|holder| (holder.pid, Spared::Packet)).collect();
        let own = [agent, std::process::id()].into_iter().filter(|pid| *pid != 0);
        spared.extend(
            own.chain(self.agents.iter().map(|known| known.pid)).map(|pid| (pid, Spared::All)),
        );
        spared
    }
}

impl Known {
    fn of(pid: u32) -> Option<Self> {
        began(pid).map(|began| Self { pid, began })
    }

    fn is_there(&self) -> bool {
        began(self.pid) == Some(self.began)
    }
}

/// When a process began, in clock ticks after the kernel (proc(5), stat, field 22).
fn began(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may have spaces and brackets in it.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(19)?.parse().ok()
}

/// Who has a packet socket of this network namespace, or listens for leases.
fn holders() -> Result<BTreeSet<u32>, AskKernelError> {
    let mut inodes: BTreeSet<u32> = listed_inodes("packet").into_iter().collect();
    let datagrams = Diagnosis::open()?.list(Transport::Udp, ALL_STATES)?;
    inodes.extend(
        datagrams
            .iter()
            .filter(|socket| LEASE_CLIENTS.contains(&socket.local.port()))
            .map(|socket| socket.inode),
    );
    inodes.remove(&0);
    if inodes.is_empty() {
        return Ok(BTreeSet::new());
    }
    Ok(processes().filter(|pid| sockets_of(*pid).any(|inode| inodes.contains(&inode))).collect())
}

/// To whom raw sockets shall be refused, and until when by the clock that nobody can set.
fn wanted(facts: &Facts, now: Timestamp, boot: u64) -> Wanted {
    let mut wanted = Wanted::default();
    for held in facts.set.containments.values() {
        let left = u64::try_from(held.held_until().since(now).nanos()).unwrap_or(0);
        let is_cut = matches!(held.measure, Measure::Cut | Measure::Freeze);
        if left == 0 || !is_cut || facts.refused.contains(&held.id) {
            continue;
        }
        let end = boot.saturating_add(left) / GRAIN * GRAIN;
        match held.scope {
            Scope::Host | Scope::ManagementOnly => {
                wanted.namespace = wanted.namespace.max(Some(end));
            }
            Scope::Cgroup(_) | Scope::Container(_) => {
                let cgroups = facts.targets.get(&held.scope).map(|target| &target.cgroups);
                for cgroup in cgroups.into_iter().flatten() {
                    if (1..=MAX_LEVEL).contains(&cgroup.level) {
                        let held = wanted.cgroups.entry(cgroup.id).or_default();
                        *held = end.max(*held);
                    }
                }
            }
            // An address or a device has no processes here.
            Scope::Destination(_) | Scope::Internal(_) | Scope::Link(_) => {}
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::super::wire::bare;
    use super::*;
    use crate::target::{Cgroup, Target};
    use sekisho_schema::ContainmentId;

    const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000_000);
    const BOOT: u64 = 5_000_000_000;

    fn facts(held: &[(&str, i64, Option<i64>, Measure)]) -> Facts {
        let mut facts = Facts::default();
        for (nth, (scope, until, trial, measure)) in held.iter().enumerate() {
            let id = ContainmentId(format!("c-{nth:012}"));
            let at = |secs: i64| NOW.after(sekisho_schema::Span::from_secs(secs));
            let scope: Scope = scope.parse().unwrap();
            let containment = bare(id.clone(), scope.clone(), at(*until), trial.map(at), *measure);
            facts.set.containments.insert(id, containment);
            if matches!(scope, Scope::Cgroup(_)) {
                let cgroup = Cgroup { level: 1, id: 77, path: "/w".to_owned() };
                let target = Target { cgroups: [cgroup].into(), ..Target::default() };
                facts.targets.insert(scope, target);
            }
        }
        facts
    }

    fn of(held: &[(&str, i64, Option<i64>, Measure)]) -> Wanted {
        wanted(&facts(held), NOW, BOOT)
    }

    #[test]
    fn only_what_is_cut_is_refused_and_no_longer_than_it_is_held() {
        let seconds = |secs: u64| BOOT + secs * 1_000_000_000;
        assert_eq!(
            of(&[("cgroup:/w", 9, None, Measure::Cut), ("cgroup:/w", 7, None, Measure::Freeze)]),
            Wanted { cgroups: [(77, seconds(9))].into(), ..Wanted::default() }
        );
        // A trial ends before its lease.
        assert_eq!(of(&[("host", 600, Some(120), Measure::Cut)]).namespace, Some(seconds(120)));
        for none in [
            ("host", 600, None, Measure::Observe),
            ("host", 0, None, Measure::Cut),
            ("host", -5, None, Measure::Cut),
            ("dest:203.0.113.9", 600, None, Measure::Cut),
            ("internal:10.0.0.9", 600, None, Measure::Cut),
            ("link:eth0", 600, None, Measure::Cut),
            ("cgroup:/w", 600, None, Measure::Throttle { bytes_per_second: 1 }),
        ] {
            assert!(of(&[none]).is_empty(), "{none:?}");
        }
    }

    #[test]
    fn what_the_enforcer_refused_to_cut_is_refused_nothing() {
        let mut facts = facts(&[("host", 600, None, Measure::Cut)]);
        facts.refused.insert(ContainmentId("c-000000000000".to_owned()));
        assert!(wanted(&facts, NOW, BOOT).is_empty());
    }

    #[test]
    fn a_workload_that_nobody_found_is_refused_nothing() {
        let mut facts = facts(&[("cgroup:/w", 600, None, Measure::Cut)]);
        facts.targets.clear();
        assert!(wanted(&facts, NOW, BOOT).is_empty());
    }

    #[test]
    fn a_process_is_known_by_its_beginning_and_not_by_its_number() {
        let own = Known::of(std::process::id()).unwrap();
        assert!(own.is_there());
        assert!(!Known { began: own.began + 1, ..own }.is_there());
        assert_eq!(Known::of(u32::MAX), None);
    }
}
