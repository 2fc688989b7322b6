//! Looks for what passes a cut here and now: each ten seconds, and when devices, filters or namespaces change.

use super::Message;
use super::shared::Shared;
use crate::chain::causes;
use crate::enforce::{Bell, Look};
use crate::guardian::{Asker, Guardian};
use sekisho_schema::Coverage;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How often it looks when nothing is heard: processes tell nobody that they open a socket.
const EACH: Duration = Duration::from_secs(10);
/// Changes come in swarms; they are looked at together.
const SETTLE: Duration = Duration::from_millis(100);
/// Looks are at least so far apart, whatever changes.
const APART: Duration = Duration::from_secs(1);
/// Records of changes are at least so far apart; what changes in between is told with the next one.
const RECORDS_APART: Duration = Duration::from_secs(10);
/// How long a look of our own may take, while there is no guardian to look.
const PATIENCE: Duration = Duration::from_secs(1);

/// Starts looking, for as long as the agent runs.
///
/// # Errors
/// When the system gives no thread.
pub(super) fn spawn(guardian: Guardian, shared: Arc<Shared>) -> std::io::Result<()> {
    let mut lookout = Lookout { guardian, shared, asker: None };
    std::thread::Builder::new().name("lookout".to_owned()).spawn(move || lookout.run()).map(drop)
}

struct Lookout {
    guardian: Guardian,
    shared: Arc<Shared>,
    asker: Option<Asker>,
}

impl Lookout {
    fn run(&mut self) {
        let mut bell = Bell::hang()
            .inspect_err(|error| {
                tracing::warn!(error = %causes(error), state = "changes are noticed within ten seconds", "cannot hear changes of devices");
            })
            .ok();
        let mut told: Option<Coverage> = None;
        let mut pace = Pace::default();
        loop {
            let began = Instant::now();
            let gaps = self.look();
            let is_new = told.as_ref() != Some(&gaps);
            let record = pace.is_due(is_new, began);
            if is_new || record {
                if let Some(before) = &told {
                    say(before, &gaps);
                }
                told = Some(gaps.clone());
                self.shared.inbox.send(Message::Coverage { gaps, record });
            }
            match &mut bell {
                Some(bell) => {
                    if bell.wait(EACH) {
                        std::thread::sleep(SETTLE);
                        bell.quiet();
                    }
                }
                None => std::thread::sleep(EACH),
            }
            std::thread::sleep(APART.saturating_sub(began.elapsed()));
        }
    }

    /// The guardian sees more: it has the power to.
    fn look(&mut self) -> Coverage {
        let uplinks = self.uplinks();
        if self.asker.is_none() {
            self.asker = self.guardian.asker().ok();
        }
        if let Some(asker) = &mut self.asker {
            match asker.look(uplinks.clone()) {
                Ok(gaps) => return gaps,
                Err(error) => {
                    tracing::debug!(error = %causes(&error), "the guardian did not look");
                    self.asker = None;
                }
            }
        }
        Look { uplinks, bridged: false, ours: vec![std::process::id()] }.now(PATIENCE)
    }

    fn uplinks(&self) -> Vec<String> {
        let facts = self.shared.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let named = facts.get("uplinks").cloned().unwrap_or_default();
        named.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }
}

fn say(before: &Coverage, now: &Coverage) {
    let without = |all: &Coverage, some: &Coverage| {
        all.iter().filter(|gap| !some.contains(gap)).take(8).cloned().collect::<Vec<_>>().join(", ")
    };
    let (opened, closed) = (without(now, before), without(before, now));
    if opened.is_empty() {
        tracing::info!(%closed, "a cut passes less by than before");
    } else {
        tracing::warn!(%opened, %closed, help = "`sekisho doctor` explains", "something passes a cut on this host");
    }
}

/// When a change goes on record.
#[derive(Debug, Default)]
struct Pace {
    last: Option<Instant>,
    owed: bool,
}

impl Pace {
    /// Whether a record is due, after a look that found news or not.
    fn is_due(&mut self, is_new: bool, now: Instant) -> bool {
        self.owed |= is_new;
        let rested = self.last.is_none_or(|last| now.duration_since(last) >= RECORDS_APART);
        if !(self.owed && rested) {
            return false;
        }
        self.owed = false;
        self.last = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_goes_on_record_and_a_storm_of_them_at_a_walking_pace() {
        let begun = Instant::now();
        let mut pace = Pace::default();
        let records: Vec<u64> = (0..60)
            // News in each of the first thirty seconds, then none.
            .filter(|second| pace.is_due(*second < 30, begun + Duration::from_secs(*second)))
            .collect();
        assert_eq!(records, [0, 10, 20, 30], "the last change is told though nothing follows it");
    }
}
