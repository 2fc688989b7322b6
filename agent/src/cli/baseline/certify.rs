//! `sekisho baseline certify`

use super::args::CertifyArgs;
use super::files::{Source, UNTOUCHED, certificate, seal};
use crate::chain::Complaint;
use crate::cli::{Console, Outcome, cannot_write};
use crate::clock;
use sekisho_engine::certify::sentence::amount;
use sekisho_engine::certify::threshold::{Terms, certify as make};
use sekisho_engine::certify::{Channel, Tier};
use sekisho_schema::Timestamp;
use sekisho_schema::certificate::{Budgets, CERTIFICATE_KIND, Certificate};
use std::collections::BTreeSet;
use std::io::Write;

pub(super) fn certify(args: &CertifyArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let budgets = budgets(&args.budget)?;
    if !(0.5..1.0).contains(&args.confidence) {
        return Err(Complaint::new(
            format!("{} is no confidence", args.confidence),
            UNTOUCHED,
            "a share from 0.5 to below 1, such as 0.95",
        ));
    }
    let source = Source::read(&args.source)?;
    // One that has expired is followed all the same.
    let before = certificate(args.after.as_ref(), &args.source.config, Timestamp::EPOCH)?;
    let before = before.filter(|before| before.role == source.pool.role);
    let agents: BTreeSet<&str> =
        source.records.iter().map(|record| record.agent.as_str()).collect();
    let terms = Terms {
        budgets: &budgets,
        confidence: args.confidence,
        version: before.as_ref().map_or(0, |before| before.version) + 1,
        at: clock::now(),
        agent: &agents.into_iter().collect::<Vec<_>>().join(", "),
    };
    let made = make(&source.pool, &source.baseline, &terms);
    let text = made.to_text().map_err(|why| {
        Complaint::new(
            format!("cannot write the certificate: {why}"),
            "nothing was sealed",
            "report this",
        )
    })?;
    seal(&args.seal, (CERTIFICATE_KIND, made.version), &text, console)?;
    let told = table(&made, console.out).and_then(|()| {
        before
            .iter()
            .flat_map(|before| before.difference(&made))
            .try_for_each(|line| writeln!(console.out, "{line}"))
    });
    told.map_err(|error| cannot_write(&error))?;
    Ok(if made.undecided == 0 { Outcome::Fine } else { Outcome::Finding })
}

/// Budgets from their words; a tier that is named has only the channels that are named.
fn budgets(words: &[String]) -> Result<Budgets, Complaint> {
    let mut budgets = Budgets::default();
    let mut named: BTreeSet<Tier> = BTreeSet::new();
    for word in words {
        let refuse = || {
            Complaint::new(
                format!("\"{word}\" is no budget"),
                UNTOUCHED,
                "TIER.CHANNEL=RATE, such as hold.rhythm=0.5 or cut-destination.allowance=0.04; tiers are hold, \
                 cut-destination and isolate-host",
            )
        };
        let (what, rate) = word.split_once('=').ok_or_else(refuse)?;
        let (tier, channel) = what.split_once('.').ok_or_else(refuse)?;
        let tier = Tier::ALL
            .into_iter()
            .find(|known| known.name() == tier && *known != Tier::Alert)
            .ok_or_else(refuse)?;
        let channel =
            Channel::ALL.into_iter().find(|known| known.name() == channel).ok_or_else(refuse)?;
        let rate: f64 = rate.parse().map_err(|_| refuse())?;
        if !rate.is_finite() || rate <= 0.0 {
            return Err(refuse());
        }
        let channels = budgets.0.entry(tier).or_default();
        if named.insert(tier) {
            channels.clear();
        }
        channels.insert(channel, rate);
    }
    Ok(budgets)
}

/// What is granted and what is locked.
pub(super) fn table(made: &Certificate, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "certificate {} of role {}: {:.1} host-weeks of {} hosts, {} episodes, {} clusters, promised at {} %",
        made.version,
        made.role,
        made.host_weeks,
        made.hosts,
        made.episodes,
        made.clusters,
        made.confidence * 100.0
    )?;
    if made.undecided > 0 {
        writeln!(
            out,
            "LOCKED: {} items of the review list are undecided; `sekisho baseline review` lists them",
            made.undecided
        )?;
    }
    for grant in &made.grant {
        match (made.threshold(grant.tier, grant.channel), grant.threshold) {
            (Some(threshold), _) => writeln!(
                out,
                "  {:<15} {:<12} above {:<18} {} of {} events, at most {:.3} of {} a host-week",
                grant.tier.name(),
                grant.channel.name(),
                amount(grant.channel, threshold),
                grant.exceedances.unwrap_or(0),
                made.episodes,
                grant.bound.unwrap_or(0.0),
                grant.budget
            )?,
            (None, Some(_)) => writeln!(
                out,
                "  {:<15} {:<12} locked: undecided items",
                grant.tier.name(),
                grant.channel.name()
            )?,
            (None, None) => writeln!(
                out,
                "  {:<15} {:<12} locked: {:.0} more host-weeks needed for {} a host-week",
                grant.tier.name(),
                grant.channel.name(),
                grant.missing_host_weeks.ceil(),
                grant.budget
            )?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_that_is_named_has_only_the_channels_that_are_named() {
        let words = ["hold.rhythm=0.5", "hold.sum=0.1"].map(str::to_owned);
        let made = budgets(&words).unwrap();
        assert_eq!(made.0[&Tier::Hold].len(), 2);
        assert!((made.promise(Tier::Hold) - 0.6).abs() < 1e-12);
        assert!((made.promise(Tier::CutDestination) - 0.12).abs() < 1e-12);
    }

    #[test]
    fn what_is_no_budget_is_refused() {
        for word in [
            "hold=0.5",
            "hold.rhythm",
            "alert.rhythm=1",
            "hold.colour=1",
            "hold.rhythm=-1",
            "hold.rhythm=NaN",
        ] {
            assert!(budgets(&[word.to_owned()]).is_err(), "{word}");
        }
    }
}
