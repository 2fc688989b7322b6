//! Hears every change of rules and devices as it happens, so that what somebody opened is closed at once.

use super::seat::{Seat, Wish};
use super::wire::Event;
use crate::enforce::{Change, Changes};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait without a look whether the guardian still runs.
const PATIENCE: Duration = Duration::from_secs(1);

/// Follows the changes of rules until the socket fails; `port` is the socket whose changes are ours.
pub(super) fn rules(seat: &Arc<Seat>, port: u32) {
    // It waits nearly always, and when it does not, something is open that was closed.
    let _ = crate::realtime::ask_for_realtime();
    let Some(mut changes) = opened(Changes::of_rules()) else { return };
    changes.pass_over(port);
    loop {
        let heard = match changes.wait(PATIENCE, port) {
            Ok(heard) => heard,
            Err(error) => {
                tracing::error!(%error, state = "changes are noticed within a second or two", "cannot hear changes of rules");
                return;
            }
        };
        for change in heard {
            match change {
                Change::Tables { rules, who } => {
                    let what = if rules {
                        "tables of ours were changed"
                    } else {
                        "elements of our sets were changed"
                    };
                    seat.wish(Wish::Mend { what: vec![what.to_owned()], who, rules });
                }
                Change::Lost => seat.wish(Wish::Mend {
                    what: vec!["more changes than the kernel could tell".to_owned()],
                    who: None,
                    rules: true,
                }),
                Change::Link { .. } => {}
            }
        }
    }
}

/// Follows devices: one that is new, or named anew, while something is contained is armed at once.
pub(super) fn links(seat: &Arc<Seat>) {
    let Some(mut changes) = opened(Changes::of_links()) else { return };
    let mut names: BTreeMap<u32, String> = BTreeMap::new();
    loop {
        let heard = match changes.wait(PATIENCE, 0) {
            Ok(heard) => heard,
            Err(error) => {
                tracing::error!(%error, "cannot hear changes of devices");
                return;
            }
        };
        let mut changed = false;
        let mut new = Vec::new();
        for change in heard {
            let Change::Link { index, name, present, loopback } = change else {
                changed = true;
                continue;
            };
            if !present {
                changed |= names.remove(&index).is_some();
            } else if names.insert(index, name.clone()).as_deref() != Some(name.as_str()) {
                changed = true;
                if !loopback {
                    new.push(name);
                }
            }
        }
        if !changed {
            continue;
        }
        let facts = seat.facts();
        if !facts.set.containments.is_empty()
            && let Some(plan) = &facts.plan
        {
            new.retain(|name| !plan.uplinks.contains(name));
            if !new.is_empty() {
                seat.wish(Wish::Arm(new));
                continue;
            }
        }
        seat.tell(&Event::Links);
    }
}

fn opened(changes: Result<Changes, crate::enforce::NetlinkError>) -> Option<Changes> {
    changes
        .inspect_err(|error| {
            tracing::error!(error = %crate::chain::causes(error), state = "changes are noticed within a second or two", "cannot hear changes");
        })
        .ok()
}
