//! Each second: does the kernel hold what it should, whose are the tables, where is the agent's lifeline?

use super::ending::{end, thaw};
use super::seat::{Seat, Wish};
use super::wire::Event;
use crate::chain::causes;
use crate::enforce::{Drift, Enforcer, Ownership, Sockets};
use sekisho_schema::Transport;
use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How often.
const CHECK: Duration = Duration::from_secs(1);

/// The thread's own eyes.
pub(super) struct Check {
    pub(super) seat: Arc<Seat>,
    /// Process of the agent that calls; 0 for none.
    pub(super) agent: Arc<AtomicI32>,
    /// Whose the tables are, asked by the socket that may own them.
    pub(super) port: u32,
    /// Where it is written down what has to be undone.
    pub(super) state: std::path::PathBuf,
}

impl Check {
    pub(super) fn run(self) {
        let mut eyes: Option<(u64, Enforcer)> = None;
        let mut last = BTreeSet::new();
        let mut owned = Ownership::Absent;
        let mut due = Instant::now();
        loop {
            due = (due + CHECK).max(Instant::now());
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.look_at_lifelines();
            // Whoever cut has not ended what goes on: it died, or hangs.
            let begun = self.seat.take_begun();
            if !begun.is_empty() {
                let _ended = end(&self.seat, &begun, &self.state);
            }
            let facts = self.seat.facts();
            thaw(&facts, &self.state);
            let eye = facts.eye.clone().unwrap_or_default();
            if eyes.as_ref().is_none_or(|(loads, _)| *loads != facts.loads) {
                eyes = Enforcer::watcher(&eye).ok().map(|watcher| (facts.loads, watcher));
            }
            let Some((_, watcher)) = &mut eyes else { continue };
            if let Ok(ownership) = watcher.ownership_of(self.port)
                && ownership != owned
            {
                owned.clone_from(&ownership);
                self.seat.change(|facts| facts.state.ownership = ownership.clone());
                self.seat.tell(&Event::Owned { ownership });
            }
            if facts.eye.is_none() {
                // Without a plan nobody knows what should be there.
                continue;
            }
            let before = self.seat.loads();
            let drift = match watcher.verify(&facts.set) {
                Ok(drift) => Some(drift),
                Err(error) if error.is_absent() => None,
                Err(error) => {
                    tracing::warn!(error = %causes(&error), "cannot compare the kernel with what it should hold");
                    continue;
                }
            };
            // What changed while it was read tells nothing.
            if self.seat.loads() != before || before != (facts.loads, facts.set.generation) {
                continue;
            }
            let (what, rules) = match &drift {
                None => (vec!["our tables are gone".to_owned()], true),
                Some(drift) => news(drift, &mut last),
            };
            if !what.is_empty() {
                last.clear();
                self.seat.wish(Wish::Mend { what, who: None, rules });
            }
        }
    }

    /// Remote ends of the agent's own outgoing connections, by the kernel's list of sockets.
    fn look_at_lifelines(&self) {
        let pid = self.agent.load(Relaxed);
        let found = if pid == 0 { None } else { lifelines(pid) };
        self.seat.set_lifelines(found.unwrap_or_default());
    }
}

/// What is to be mended, in words, and whether rules are. An element is when it is amiss the second time in a row: a
/// release or an end of a lease under way right now is no drift.
fn news(drift: &[Drift], last: &mut BTreeSet<String>) -> (Vec<String>, bool) {
    if drift.iter().any(|drift| matches!(drift, Drift::Ruleset { .. })) {
        return (drift.iter().map(describe).collect(), true);
    }
    let amiss = drift.iter().map(|drift| (about(drift), drift));
    let again = amiss.clone().filter(|(about, _)| last.contains(about));
    let what = again.map(|(_, drift)| describe(drift)).collect();
    *last = amiss.map(|(about, _)| about).collect();
    (what, false)
}

/// What tells one difference from another, however long it lasts.
fn about(drift: &Drift) -> String {
    match drift {
        Drift::Lease { id, element, .. } => format!("another end: {element} of {id}"),
        other => describe(other),
    }
}

fn lifelines(pid: i32) -> Option<BTreeSet<IpAddr>> {
    let mut inodes = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let inode = target
            .to_str()
            .and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u32>().ok());
        inodes.extend(inode);
    }
    let sockets = Sockets::open().ok()?.list(Transport::Tcp).ok()?;
    Some(
        sockets
            .iter()
            .filter(|socket| inodes.contains(&socket.inode))
            .map(|socket| socket.remote.ip().to_canonical())
            .filter(|address| !address.is_loopback())
            .collect(),
    )
}

/// A difference in words.
pub(super) fn describe(drift: &Drift) -> String {
    match drift {
        Drift::Foreign { element } => format!("{element} is held and nobody asked for it"),
        Drift::Lease { id, element, left } => format!(
            "{element} of {id} ends in {} s, which is another end than decided",
            left.nanos() / 1_000_000_000
        ),
        Drift::Missing { id, element } => format!("{element} of {id} is gone"),
        Drift::Ruleset { table } => {
            format!("chains or rules of table {table} sekisho were changed")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sekisho_schema::{ContainmentId, Span};

    #[test]
    fn only_what_is_amiss_twice_in_a_row_is_mended_and_rules_at_once() {
        let element = |text: &str| text.to_owned();
        let gone =
            |text| Drift::Missing { id: ContainmentId("c-1".into()), element: element(text) };
        let ends = |secs| Drift::Lease {
            id: ContainmentId("c-2".into()),
            element: element("203.0.113.9"),
            left: Span::from_secs(secs),
        };
        let mut last = BTreeSet::new();
        assert_eq!(news(&[gone("192.0.2.1")], &mut last), (vec![], false));
        // Another end of a lease a second later is news as well.
        assert_eq!(news(&[gone("192.0.2.2"), ends(9)], &mut last), (vec![], false));
        let (what, rules) = news(&[ends(8), gone("192.0.2.3")], &mut last);
        assert!(!rules && what.len() == 1 && what[0].starts_with("203.0.113.9"), "{what:?}");
        assert_eq!(news(&[], &mut last), (vec![], false));
        assert_eq!(news(&[gone("192.0.2.3")], &mut last), (vec![], false));
        let flushed = [Drift::Ruleset { table: "inet" }, gone("192.0.2.4")];
        let (what, rules) = news(&flushed, &mut last);
        assert!(rules && what.len() == 2);
    }
}
