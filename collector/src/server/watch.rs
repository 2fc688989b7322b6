//! Watches the database for what other processes changed, and the fleet for who fell silent.

use super::room::Room;
use crate::clock;
use crate::config::Keeping;
use crate::policy::InForce;
use crate::store::{HostView, Liveness, NewNotice, NoticeKind, StoreError};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often the database is looked at: a policy pushed by the command line is noticed within this time.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks between two roll calls.
const LOOKS_PER_ROLL_CALL: u64 = 20;

/// When records are removed first after the start, and how often then.
const FIRST_CLEANING: Duration = Duration::from_secs(10);
const CLEAN_EVERY: Duration = Duration::from_secs(3600);
/// When it is looked again after something was removed.
const NEXT_CLEANING: Duration = Duration::from_secs(2);

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

fn replace<T: PartialEq>(sender: &tokio::sync::watch::Sender<Arc<T>>, fresh: T) {
    sender.send_if_modified(|current| {
        let changed = **current != fresh;
        if changed {
            *current = Arc::new(fresh);
        }
        changed
    });
}

/// Reads the policy in force, the denied agents, waiting orders and what groups have spent, and tells who waits for them.
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
    let now = clock::now();
    replace(&room.denied, room.store.denied()?);
    replace(&room.orders, room.store.orders_open(now)?);
    replace(&room.spent, room.store.spent(now)?);
    replace(&room.certified, room.store.certified_versions()?);
    let fleet = room.store.fleet(now)?;
    if *room.fleet.borrow().as_ref() != fleet {
        room.store.tell_spent(&fleet, now)?;
    }
    replace(&room.fleet, fleet);
    let (notices, undelivered) = room.store.notice_counts()?;
    room.metrics.notices.store(notices, Ordering::Relaxed);
    room.metrics.undelivered.store(undelivered, Ordering::Relaxed);
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
        // What lapses by time alone leaves no mark.
        refresh(room)?;
        look_for_drills(room)?;
    }
    Ok(())
}

/// A silence is told once for the last word before it, also over a restart of the collector.
fn tell_lost(room: &Room, host: &HostView) -> Result<(), StoreError> {
    let last = host
        .last_seen
        .map_or_else(|| "it enrolled".to_owned(), |at| format!("{} UTC", clock::to_the_second(at)));
    let notice = NewNotice {
        key: format!("{}:{}:{last}", NoticeKind::AgentLost.word(), host.agent),
        kind: NoticeKind::AgentLost,
        agent: Some(&host.agent),
        group: None,
        subject: host.host.clone(),
        text: format!("{} is silent since {last}: what it sees and cuts is not known", host.host),
    };
    room.store.notice(&notice, clock::now()).map(drop)
}

fn look_for_drills(room: &Room) -> Result<(), StoreError> {
    let policy = room.policy.borrow().clone();
    let Some(in_force) = policy.as_deref() else { return Ok(()) };
    let Some(policy) = &in_force.policy else { return Ok(()) };
    let now = clock::now();
    let overdue = room.store.drills_overdue(&policy.drill, in_force.stored.pushed_at, now)?;
    room.store.tell_overdue(&overdue, now)
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
                tracing::warn!(agent = host.agent, host = ?host.host, "agent fell silent: three states were missed");
                tell_lost(room, host)?;
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

/// Removes what is no longer to be kept: soon after the start, then each hour.
pub(super) async fn keep_house(room: Arc<Room>, keeping: Keeping) {
    let mut closing = room.closing.subscribe();
    let mut wait = FIRST_CLEANING;
    loop {
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = CLEAN_EVERY;
        let again = Arc::clone(&room);
        let cleaned =
            tokio::task::spawn_blocking(move || again.store.prune(&keeping, clock::now())).await;
        match cleaned {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(pruning))) => {
                // A database that is too large loses a day at a time: there may be more.
                wait = NEXT_CLEANING;
                room.metrics.removed.fetch_add(pruning.events, Ordering::Relaxed);
                tracing::info!(why = %pruning.why, before = %pruning.before, events = pruning.events, findings = pruning.findings, other = pruning.other, "old records were removed");
            }
            Ok(Err(error)) => tracing::error!(%error, "old records could not be removed"),
            Err(error) => tracing::error!(%error, "a cleaning ended in the middle"),
        }
    }
}
