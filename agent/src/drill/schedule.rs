//! What policy asks for is begun when it is due, and told when it is overdue.

use super::cell::OURSELVES;
use super::ledger::{Ledger, Standing};
use super::run::{BY_SCHEDULE, Ground, policy_in_force};
use crate::chain::causes;
use sekisho_schema::event::DrillReport;
use sekisho_schema::{Span, Timestamp};
use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An overdue drill is told again after this.
const AGAIN: Span = Span::from_hours(24);
/// One that did not hold is begun again after this.
const RETRY: Span = Span::from_hours(1);
/// A drill that was begun is ended after this.
const MOST: Duration = Duration::from_secs(300);
/// The exit code of a drill that could not take place, or could not be told.
const COULD_NOT: i32 = 2;

/// The schedule of an agent.
#[derive(Debug)]
pub struct Schedule {
    ground: Ground,
    begun: BTreeMap<String, Timestamp>,
    told: BTreeMap<String, Timestamp>,
    child: Option<(String, Child, Instant)>,
}

impl Schedule {
    /// A schedule that begins with nothing.
    #[must_use]
    pub const fn new(ground: Ground) -> Self {
        Self { ground, begun: BTreeMap::new(), told: BTreeMap::new(), child: None }
    }

    /// Looks what is due and begins the first of it; gives a report for each drill that is overdue.
    pub fn look(&mut self, now: Timestamp) -> Vec<DrillReport> {
        let plans = policy_in_force(&self.ground).drill;
        let ledger = Ledger::change(&self.ground.state, |ledger| ledger.ask(&plans, now))
            .unwrap_or_else(|error| {
                tracing::error!(error = %causes(&error), state = "drills go on by what was kept before", "cannot keep what drills are asked for");
                Ledger::read(&self.ground.state)
            });
        let mut overdue = Vec::new();
        for plan in &plans {
            let standing = ledger.standing(&plan.name, &plans, now);
            if !matches!(standing.standing, Standing::Due | Standing::Overdue) {
                continue;
            }
            if standing.standing == Standing::Overdue && is_past(&self.told, &plan.name, AGAIN, now)
            {
                self.told.insert(plan.name.clone(), now);
                let held = standing
                    .held_at
                    .map_or_else(|| "never".to_owned(), |at| format!("at {at} the last time"));
                let detail = format!(
                    "drill {} is overdue: it shall hold every {} and held {held}",
                    plan.name, plan.every
                );
                overdue.push(DrillReport {
                    name: plan.name.clone(),
                    passed: false,
                    by: Some(BY_SCHEDULE.to_owned()),
                    checks: BTreeMap::from([("overdue".to_owned(), detail.clone())]),
                    detail,
                    ..DrillReport::default()
                });
            }
            if self.child.is_none() && is_past(&self.begun, &plan.name, RETRY, now) {
                self.begun.insert(plan.name.clone(), now);
                self.begin(&plan.name);
            }
        }
        overdue
    }

    fn begin(&mut self, name: &str) {
        let ground = &self.ground;
        let mut command = Command::new(OURSELVES);
        command.args(["drill", "run", name, "--by", BY_SCHEDULE]);
        for (option, path) in [
            ("--state", &ground.state),
            ("--socket", &ground.socket),
            ("--rules", &ground.rules),
            ("--trust", &ground.trust),
        ] {
            command.arg(option).arg(path);
        }
        if !ground.own_tables {
            command.arg("--shared");
        }
        match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(child) => {
                tracing::info!(drill = name, "a drill begins");
                self.child = Some((name.to_owned(), child, Instant::now()));
            }
            Err(error) => tracing::error!(drill = name, %error, "cannot begin a drill"),
        }
    }

    /// Looks after a drill that was begun; `true` once one is over, so that the next may begin.
    pub fn tend(&mut self) -> bool {
        let Some((name, child, begun)) = &mut self.child else { return false };
        match child.try_wait() {
            Ok(None) if begun.elapsed() < MOST => return false,
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                tracing::error!(drill = %name, "a drill took too long and was ended");
            }
            Ok(Some(status)) if status.code() == Some(COULD_NOT) => {
                tracing::warn!(drill = %name, state = "it is tried again in an hour, and told once it is overdue", help = "`sekisho drill run` by hand tells why; an agent whose unit forbids namespaces leaves drills to the unit sekisho-drill.timer", "a drill could not be held");
            }
            Ok(Some(status)) => {
                tracing::info!(drill = %name, held = status.success(), "a drill is over")
            }
            Err(error) => tracing::error!(drill = %name, %error, "a drill was lost"),
        }
        self.child = None;
        true
    }
}

impl Drop for Schedule {
    fn drop(&mut self) {
        if let Some((_, child, _)) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn is_past(when: &BTreeMap<String, Timestamp>, name: &str, span: Span, now: Timestamp) -> bool {
    when.get(name).is_none_or(|at| now.since(*at) >= span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_past_when_it_never_was_or_long_ago() {
        let at = Timestamp::EPOCH.after(Span::from_hours(5));
        let when = BTreeMap::from([("a".to_owned(), at)]);
        assert!(is_past(&when, "b", AGAIN, at));
        assert!(!is_past(&when, "a", AGAIN, at.after(Span::from_hours(23))));
        assert!(is_past(&when, "a", AGAIN, at.after(Span::from_hours(24))));
    }
}
