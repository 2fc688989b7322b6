//! From a signal to a verdict: what is believed, and what the policy wants for such a belief.

use crate::detect::{Signal, Weight};
use sekisho_schema::policy::DecideRule;
use sekisho_schema::{Grade, Measure, Policy, Scope, Span};
use std::net::IpAddr;

/// Step of the ladder that cuts one destination.
pub(crate) const DESTINATION: u8 = 3;
/// What a held destination may yet take: 64 kbit/s, which telemetry survives (detection.md, section 3).
const HELD_BYTES_PER_SECOND: u64 = 8_000;
/// Step of the ladder that cuts the workload behind a flow.
pub(crate) const WORKLOAD: u8 = 4;
/// Step of the ladder that cuts the host's external egress.
pub(crate) const HOST: u8 = 5;
/// Step of the ladder that leaves only the exemptions.
pub(crate) const MANAGEMENT_ONLY: u8 = 6;

/// Whose traffic a flow is, seen from where this engine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whose {
    /// An inside host's, for which this host is the gateway, or a container's with an address of its own.
    Inside(IpAddr),
    /// This host's own; also where its addresses were never told, as in a replay.
    Own,
    /// A stranger's that passes: neither end is inside.
    Passing,
}

/// What is believed of a subject, and what the policy wants for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) grade: Grade,
    /// The cut that the decision table wants; `None` for a mere record.
    pub(crate) wanted: Option<Wanted>,
    /// The outside address that a cut of the destination would cut, where it is known.
    pub(crate) target: Option<IpAddr>,
}

/// A line of the decision table, applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) scope: Scope,
    pub(crate) measure: Measure,
    pub(crate) lease: Span,
    /// The workload to be cut as soon as it is known; the scope is what is held until then.
    pub(crate) workload: Option<Workload>,
}

/// How a workload is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(crate) measure: Measure,
    /// Whether the destination opens again once the workload is cut.
    pub(crate) alone: bool,
}

/// Believes one signal by itself; the grades are such that a malicious one needs no second.
pub(crate) fn assess(signal: &Signal, policy: &Policy, whose: Whose) -> Verdict {
    let target = signal.target.map(|target| target.to_canonical());
    // What honest software shares never cuts by itself, whatever the table says.
    let rule = policy.rule_for(signal.detector, signal.grade);
    let wanted = rule.and_then(|rule| match signal.weight {
        Weight::Decides => Wanted::by_rule(rule, whose, target),
        Weight::UpTo(level) => Wanted::up_to(level, rule, whose, target),
        Weight::Scores => None,
    });
    Verdict { grade: signal.grade, wanted, target }
}

impl Wanted {
    fn by_rule(rule: &DecideRule, whose: Whose, target: Option<IpAddr>) -> Option<Self> {
        let measure = rule.measure()?;
        let scope = scope(rule.level, whose, target)?;
        let is_asked = rule.level == WORKLOAD && whose == Whose::Own;
        Some(Self {
            measure: if scope.takes(measure) { measure } else { Measure::Cut },
            scope,
            lease: rule.lease,
            workload: is_asked.then_some(Workload { measure, alone: rule.only_workload }),
        })
    }

    /// What a line of the table asks for, as far as a step of the ladder: below a cut that is to slow the
    /// destination.
    fn up_to(level: u8, rule: &DecideRule, whose: Whose, target: Option<IpAddr>) -> Option<Self> {
        if rule.level <= level {
            return Self::by_rule(rule, whose, target);
        }
        let wanted = Self::cut(DESTINATION, whose, target, rule.lease)?;
        let measure = Measure::Throttle { bytes_per_second: HELD_BYTES_PER_SECOND };
        Some(if level < DESTINATION { Self { measure, ..wanted } } else { wanted })
    }

    /// The plain cut on a step of the ladder.
    pub(crate) fn cut(
        level: u8,
        whose: Whose,
        target: Option<IpAddr>,
        lease: Span,
    ) -> Option<Self> {
        let scope = scope(level, whose, target)?;
        Some(Self { scope, measure: Measure::Cut, lease, workload: None })
    }
}

/// What is cut on a step of the ladder. From level 4 on it is all of an inside host where that is not this
/// one; a workload of this host is not known yet, so that its destination comes first.
fn scope(level: u8, whose: Whose, target: Option<IpAddr>) -> Option<Scope> {
    match (level, whose) {
        (WORKLOAD..=MANAGEMENT_ONLY, Whose::Inside(host)) => {
            Some(Scope::Internal(host.to_string()))
        }
        (HOST, Whose::Own) => Some(Scope::Host),
        (MANAGEMENT_ONLY, Whose::Own) => Some(Scope::ManagementOnly),
        // A name that was only asked for has no address to cut yet.
        (1..=MANAGEMENT_ONLY, _) => target.map(Scope::Destination),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_asks_for_more_than_a_certificate_reaches_gets_what_it_reaches() {
        let rule = |level| DecideRule {
            detector: "behaviour.*".to_owned(),
            grade: Grade::Suspect,
            level,
            lease: Span::from_hours(1),
            bytes_per_second: None,
            quota_bytes: None,
            freeze: false,
            only_workload: false,
        };
        let target: IpAddr = "198.51.100.2".parse().unwrap();
        let wanted = |reaches, level| {
            Wanted::up_to(reaches, &rule(level), Whose::Own, Some(target))
                .map(|wanted| (wanted.scope, wanted.measure))
        };
        let held = Measure::Throttle { bytes_per_second: HELD_BYTES_PER_SECOND };
        let destination = Scope::Destination(target);
        assert_eq!(wanted(2, 3), Some((destination.clone(), held)));
        assert_eq!(wanted(2, 5), Some((destination.clone(), held)));
        assert_eq!(wanted(3, 5), Some((destination.clone(), Measure::Cut)));
        assert_eq!(wanted(3, 3), Some((destination, Measure::Cut)));
        assert_eq!(wanted(5, 5), Some((Scope::Host, Measure::Cut)));
        assert_eq!(wanted(2, 0), None, "policy records only");
        assert!(Wanted::up_to(2, &rule(3), Whose::Own, None).is_none(), "there is no address");
    }
}
