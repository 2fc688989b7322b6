//! Flows whose owner the host was asked for, and what waits for the answer.

use crate::judge::{Whose, Workload};
use sekisho_schema::{ContainmentId, FlowKey, Span, Timestamp};
use std::collections::VecDeque;
use std::net::IpAddr;

/// The finding that something is done for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) finding: String,
    pub(crate) detector: &'static str,
    pub(crate) flow: FlowKey,
    pub(crate) target: Option<IpAddr>,
    /// When the deciding frame came.
    pub(crate) at: Timestamp,
}

/// What is done once the owner of a flow is known, or known to be unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) origin: Origin,
    pub(crate) until: Timestamp,
    pub(crate) lease: Span,
    pub(crate) want: Want,
}

/// What is wanted of the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// The next level for an actor that tried other ways, from the level that it stands on.
    Escalate {
        /// Whose traffic it is.
        actor: Whose,
        /// The level that it stands on.
        from: u8,
    },
    /// Its workload is cut.
    Workload {
        /// How.
        workload: Workload,
        /// The containment of the destination that holds meanwhile, if there is one.
        meanwhile: Option<ContainmentId>,
    },
}

/// The waits, oldest first.
#[derive(Debug)]
pub(crate) struct Asked {
    waits: VecDeque<Wait>,
    most: usize,
}

impl Asked {
    pub(crate) const fn new(most: usize) -> Self {
        Self { waits: VecDeque::new(), most }
    }

    /// Adds a wait; the oldest comes back when there are too many.
    pub(crate) fn add(&mut self, wait: Wait) -> Option<Wait> {
        let oldest = if self.waits.len() >= self.most { self.waits.pop_front() } else { None };
        self.waits.push_back(wait);
        oldest
    }

    /// Takes what waits for the owner of a flow.
    pub(crate) fn take(&mut self, flow: &FlowKey) -> Vec<Wait> {
        self.split(|wait| wait.origin.flow == *flow)
    }

    /// Takes what has waited long enough.
    pub(crate) fn take_overdue(&mut self, now: Timestamp) -> Vec<Wait> {
        self.split(|wait| wait.until <= now)
    }

    fn split(&mut self, is_taken: impl Fn(&Wait) -> bool) -> Vec<Wait> {
        let (taken, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waits).into_iter().partition(is_taken);
        self.waits = kept.into();
        taken
    }

    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.waits.iter().map(|wait| wait.until).min()
    }

    pub(crate) fn shift(&mut self, step: Span) {
        for wait in &mut self.waits {
            wait.until = wait.until.after(step);
        }
    }
}
