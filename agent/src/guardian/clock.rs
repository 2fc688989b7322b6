//! Two clocks: the one that leases are told by, and the one that nobody can set.

use rustix::time::ClockId;
use sekisho_schema::{ContainmentSet, Span, Timestamp};

/// A wall clock that moved against the steady one by more than this was set by somebody.
const STEP: Span = Span::from_millis(500);

/// Nanoseconds since the kernel began, sleep included.
pub(super) fn since_boot() -> Span {
    crate::clock::reading(ClockId::Boottime)
}

/// Which run of the kernel this is.
pub(super) fn kernel_boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clocks {
    wall: Timestamp,
    steady: Span,
}

impl Clocks {
    pub(super) fn now() -> Self {
        Self { wall: crate::clock::now(), steady: since_boot() }
    }

    /// By how much the wall clock was set since the last time; nothing for what clocks drift anyway.
    pub(super) fn step(&mut self) -> Option<Span> {
        let now = Self::now();
        let (walked, ran) = (now.wall.since(self.wall), now.steady.nanos() - self.steady.nanos());
        let step = Span::from_nanos(walked.nanos().saturating_sub(ran));
        if step.nanos().unsigned_abs() < STEP.nanos().unsigned_abs() {
            return None;
        }
        *self = now;
        Some(step)
    }
}

/// Moves every end with a clock that was set: leases keep their length.
pub(super) fn shift(set: &mut ContainmentSet, step: Span) {
    for containment in set.containments.values_mut() {
        containment.until = containment.until.after(step);
        containment.trial_until = containment.trial_until.map(|trial| trial.after(step));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_not_set_makes_no_step_and_one_that_was_makes_its_own() {
        let mut clocks = Clocks::now();
        assert_eq!(clocks.step(), None);
        clocks.wall = clocks.wall.after(Span::from_secs(-3600));
        let step = clocks.step().unwrap();
        assert!((step.nanos() - Span::from_secs(3600).nanos()).abs() < 100_000_000, "{step:?}");
        assert_eq!(clocks.step(), None, "it is told once");
    }
}
