//! What learning has come to, for a person: what behaviour may do, and what is missing.

use crate::cli::text::{rough, seconds};
use crate::control::{AuthorityStatus, LearningStatus, Locked};
use sekisho_engine::certify::sentence::amount;
use sekisho_schema::Timestamp;
use sekisho_schema::episode::Tier;
use std::collections::BTreeMap;
use std::io::Write;

/// Tiers that a certificate unlocks, and what each does.
const TIERS: [(Tier, &str); 3] = [
    (Tier::Hold, "slow a destination"),
    (Tier::CutDestination, "cut a destination"),
    (Tier::IsolateHost, "cut the host"),
];

pub(super) fn tell(
    status: &LearningStatus,
    at: Timestamp,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    record(status, at, out)?;
    let documents = &status.documents;
    match (documents.certificate, documents.expires) {
        (Some(version), Some(expires)) => writeln!(
            out,
            "behaviour  certificate {version} until {} ({} left); {}",
            seconds(expires),
            rough(expires.since(at)),
            baseline(status)
        )?,
        _ => writeln!(
            out,
            "behaviour  ALERTS ONLY, cuts nothing: there is no certificate; {}",
            baseline(status)
        )?,
    }
    let is_certified = documents.certificate.is_some();
    for (tier, deed) in TIERS {
        tell_tier(&status.authority, tier, deed, is_certified, out)?;
    }
    if is_certified {
        asked(&status.authority, out)?;
        cuts(&status.authority, out)?;
    } else {
        writeln!(
            out,
            "           (missing beyond this host's own record; weeks of all hosts of a role count together: `sekisho baseline certify`)"
        )?;
    }
    for window in &status.authority.windows {
        writeln!(
            out,
            "           change window \"{}\" is open until {}",
            window.name,
            seconds(window.until)
        )?;
    }
    if let Some(refused) = &documents.refused {
        writeln!(out, "           last refused: {refused}")?;
    }
    Ok(())
}

fn record(status: &LearningStatus, at: Timestamp, out: &mut dyn Write) -> std::io::Result<()> {
    let record = &status.record;
    let kept = record
        .kept_at
        .map_or_else(String::new, |kept| format!(", kept {} ago", rough(at.since(kept))));
    writeln!(
        out,
        "learning   role {}: {:.2} host-weeks here, {} of 168 hours of the week; {} episodes go on, {} are over{kept}",
        record.role, record.host_weeks, record.week_hours, record.episodes, record.finished
    )?;
    if record.lost > 0 {
        writeln!(out, "LEARNING   {} episodes found no place in the record", record.lost)?;
    }
    if let Some(why) = &record.began_anew {
        writeln!(out, "LEARNING   BEGAN ANEW at this start: {why}")?;
    }
    if let Some(failure) = &record.failure {
        writeln!(out, "LEARNING   NOT KEPT: {failure}")?;
    }
    if record.covered.is_empty() { Ok(()) } else { writeln!(out, "           {}", record.covered) }
}

fn baseline(status: &LearningStatus) -> String {
    status.documents.baseline.map_or_else(
        || "no signed baseline: what was learned is taken for normal".to_owned(),
        |version| {
            format!("baseline {version} names {} destinations", status.documents.destinations)
        },
    )
}

fn tell_tier(
    authority: &AuthorityStatus,
    tier: Tier,
    deed: &str,
    is_certified: bool,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let granted: Vec<String> = authority
        .granted
        .iter()
        .filter(|granted| granted.tier == tier)
        .map(|granted| {
            format!("{} above {}", granted.channel, amount(granted.channel, granted.threshold))
        })
        .collect();
    if !granted.is_empty() {
        writeln!(out, "           may {deed} on: {}", granted.join(", "))?;
    }
    let locked: Vec<&Locked> =
        authority.locked.iter().filter(|locked| locked.tier == tier).collect();
    if locked.is_empty() {
        return Ok(());
    }
    // What lacks the same is told together.
    let mut lacking: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for locked in locked {
        let lack = match locked.missing_host_weeks {
            Some(weeks) => format!("{:.0} more host-weeks", weeks.ceil()),
            None => locked.why.clone(),
        };
        lacking.entry(lack).or_default().push(locked.channel.name());
    }
    let told: Vec<String> = lacking
        .iter()
        .map(|(lack, channels)| format!("{} ({lack})", channels.join(", ")))
        .collect();
    let may_not = if is_certified || granted.is_empty() { "may not" } else { "and may not" };
    writeln!(out, "           {may_not} {deed} on: {}", told.join("; "))
}

/// A certificate allows; it is the policy that asks.
fn asked(authority: &AuthorityStatus, out: &mut dyn Write) -> std::io::Result<()> {
    let channels: Vec<&str> = authority.asked.iter().map(|channel| channel.name()).collect();
    if channels.is_empty() {
        return writeln!(
            out,
            "           the policy asks for nothing of it: no [[decide]] line for behaviour.* is above level 0"
        );
    }
    writeln!(out, "           the policy asks for it on: {}", channels.join(", "))
}

fn cuts(authority: &AuthorityStatus, out: &mut dyn Write) -> std::io::Result<()> {
    if let Some(at) = authority.revoked_at {
        writeln!(
            out,
            "BEHAVIOUR  CUTTING WAS TAKEN BACK at {}: cuts came more often than was promised; learn and certify anew",
            seconds(at)
        )?;
    }
    let refused = if authority.cuts_refused > 0 {
        format!("; {} more became holds", authority.cuts_refused)
    } else {
        String::new()
    };
    writeln!(
        out,
        "           automatic cuts: {} of {} in seven days are left{refused}",
        authority.cuts_left, authority.cuts_of_a_week
    )?;
    let (would, refused) = (authority.cuts_rehearsed, authority.cuts_rehearsed_refused);
    if would == 0 && refused == 0 {
        return Ok(());
    }
    writeln!(
        out,
        "           withheld in dry run: {would} cuts in seven days, and {refused} that would have been holds; no token was spent"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Granted, Window};
    use sekisho_schema::Span;
    use sekisho_schema::episode::Channel;

    const NOW: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);

    fn told(status: &LearningStatus) -> String {
        let mut out = Vec::new();
        tell(status, NOW, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn locked(tier: Tier, channel: Channel, missing: Option<f64>) -> Locked {
        Locked { tier, channel, why: "locked: no certificate".into(), missing_host_weeks: missing }
    }

    #[test]
    fn without_a_certificate_it_says_that_behaviour_cuts_nothing_and_how_many_weeks_are_missing() {
        let mut status = LearningStatus::default();
        status.record.role = "web".into();
        status.authority.locked = vec![
            locked(Tier::Hold, Channel::Rhythm, Some(12.3)),
            locked(Tier::Hold, Channel::Dns, Some(98.0)),
            locked(Tier::Hold, Channel::HostBudget, Some(97.2)),
            locked(Tier::CutDestination, Channel::Sum, None),
        ];
        let told = told(&status);
        for line in [
            "behaviour  ALERTS ONLY, cuts nothing: there is no certificate; no signed baseline",
            "may not slow a destination on: rhythm (13 more host-weeks); dns, host-budget (98 more host-weeks)",
            "may not cut a destination on: sum (locked: no certificate)",
        ] {
            assert!(told.contains(line), "{told}");
        }
    }

    #[test]
    fn with_a_certificate_it_says_what_may_act_above_what_and_what_is_spent_or_taken_back() {
        let mut status = LearningStatus::default();
        status.documents.certificate = Some(3);
        status.documents.baseline = Some(2);
        status.documents.expires = Some(NOW.after(Span::from_hours(48)));
        status.documents.refused = Some("seal does not hold".into());
        status.authority.granted =
            vec![Granted { tier: Tier::Hold, channel: Channel::Allowance, threshold: 5e6 }];
        (status.authority.cuts_of_a_week, status.authority.cuts_refused) = (1, 7);
        (status.authority.cuts_rehearsed, status.authority.cuts_rehearsed_refused) = (1, 4);
        status.authority.revoked_at = Some(NOW);
        status.authority.windows = vec![Window { name: "new backup".into(), until: NOW }];
        let told = told(&status);
        for line in [
            "certificate 3 until 2026-05-30 20:26:40Z (2 d 0 h left); baseline 2 names 0 destinations",
            "may slow a destination on: allowance above 5.0 MB",
            "the policy asks for nothing of it",
            "automatic cuts: 0 of 1 in seven days are left; 7 more became holds",
            "withheld in dry run: 1 cuts in seven days, and 4 that would have been holds",
            "CUTTING WAS TAKEN BACK",
            "change window \"new backup\" is open",
            "last refused: seal does not hold",
        ] {
            assert!(told.contains(line), "{told}");
        }
    }
}
