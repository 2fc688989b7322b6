//! What goes on behind a cut is ended: sockets in every network namespace concerned, and entries of
//! connection tracking by which a site's rules or a NAT would keep it alive.

use super::seat::Seat;
use super::wire::Ended;
use crate::chain::causes;
use crate::enforce::{Destroyed, Plan, Sockets, Tracked};
use crate::target;
use sekisho_schema::Scope;
use std::time::{Duration, Instant};

/// Longest look for other network namespaces.
const LOOK: Duration = Duration::from_millis(200);

/// Ends what goes on in scopes that the kernel holds.
pub(super) fn end(seat: &Seat, scopes: &[Scope]) -> Ended {
    seat.settle(scopes);
    let mut ended = Ended::default();
    let Some(plan) = seat.plan() else { return ended };
    ended.note("this network namespace", end_here(scopes, &plan));
    // A cut of this host's way out is a cut of everybody who is forwarded by it.
    if scopes.iter().any(is_forwarded) {
        for other in target::others(Instant::now() + LOOK) {
            match target::within(&other, || end_here(scopes, &plan)) {
                Ok(done) => ended.note(&format!("network namespace {}", other.inode), done),
                Err(error) => ended.faults.push(causes(&error)),
            }
        }
    }
    match Tracked::open().and_then(|mut tracked| tracked.delete_cut(scopes, &plan)) {
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

/// Whether a cut of this scope stops what is forwarded for others.
fn is_forwarded(scope: &Scope) -> bool {
    matches!(scope, Scope::Destination(_) | Scope::Host | Scope::ManagementOnly)
}

fn end_here(scopes: &[Scope], plan: &Plan) -> Result<Destroyed, String> {
    let mut sum = Destroyed::default();
    let mut sockets = Sockets::open().map_err(|error| causes(&error))?;
    for scope in scopes {
        let destroyed = sockets.destroy_cut(scope, plan).map_err(|error| causes(&error))?;
        sum.count += destroyed.count;
        sum.failed += destroyed.failed;
    }
    Ok(sum)
}
