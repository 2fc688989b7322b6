//! Watches the database for what other processes changed, and the fleet for who fell silent.

use super::room::Room;
use crate::clock;
use crate::policy::InForce;
use crate::store::{Liveness, StoreError};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often the database is looked at: a policy pushed by the command line is noticed within this time.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks between two roll calls.
const LOOKS_PER_ROLL_CALL: u64 = 20;

/// What was seen at the last look.
#[derive(Default)]
struct Seen {
    mark: Option<i64>,
    silent: BTreeSet<String>,
}

/// Looks until the room closes.
pub(super) async fn watch(room: Arc<Room>) {
    let mut closing = room.closing.subscribe();
    let mut seen = Seen::default();
    let mut looks = 0_u64;
    while !*closing.borrow() {
        let (again, roll_call) = (Arc::clone(&room), looks.is_multiple_of(LOOKS_PER_ROLL_CALL));
        let looked = tokio::task::spawn_blocking(move || {
            let result = look(&again, &mut seen, roll_call);
            (seen, result)
        });
        match looked.await {
            Ok((kept, result)) => {
                seen = kept;
                if let Err(error) = result {
                    tracing::error!(%error, "the database could not be looked at");
                }
            }
            Err(error) => {
                tracing::error!(%error, "a look at the database ended in the middle");
                seen = Seen::default();
            }
        }
        looks += 1;
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Reads the policy in force and the denied agents, and tells who waits for them.
pub(super) fn refresh(room: &Room) -> Result<(), StoreError> {
    let newest = room.store.newest_policy()?;
    room.policy.send_if_modified(|current| {
        if current.as_ref().map(|policy| &policy.stored) == newest.as_ref() {
            return false;
        }
        tracing::info!(
            version = newest.as_ref().map_or(0, |policy| policy.version),
            "policy in force"
        );
        *current = newest.map(|stored| Arc::new(InForce::new(stored)));
        true
    });
    let denied = room.store.denied()?;
    room.denied.send_if_modified(|current| {
        let changed = **current != denied;
        if changed {
            *current = Arc::new(denied);
        }
        changed
    });
    Ok(())
}

fn look(room: &Room, seen: &mut Seen, roll_call: bool) -> Result<(), StoreError> {
    let mark = room.store.change_mark()?;
    if seen.mark != Some(mark) {
        refresh(room)?;
        seen.mark = Some(mark);
        room.changes.send_modify(|number| *number += 1);
    }
    if roll_call {
        call_roll(room, seen)?;
    }
    Ok(())
}

fn call_roll(room: &Room, seen: &mut Seen) -> Result<(), StoreError> {
    let hosts = room.store.hosts(clock::now())?;
    let silent: BTreeSet<String> = hosts
        .iter()
        .filter(|host| host.liveness == Liveness::Silent)
        .map(|host| host.agent.clone())
        .collect();
    for host in &hosts {
        match (silent.contains(&host.agent), seen.silent.contains(&host.agent)) {
            (true, false) => {
                tracing::warn!(agent = host.agent, host = ?host.host, "agent fell silent: three states were missed")
            }
            (false, true) => {
                tracing::info!(agent = host.agent, host = ?host.host, "agent is heard again")
            }
            _ => {}
        }
    }
    room.metrics.silent.store(silent.len() as u64, Ordering::Relaxed);
    if silent != seen.silent {
        seen.silent = silent;
        room.changes.send_modify(|number| *number += 1);
    }
    Ok(())
}
