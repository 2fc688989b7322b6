//! `sekisho check`: everything that `run` will read, without changing anything.

use super::args::{CheckArgs, Format};
use super::contain::load;
use super::replay::read_policy;
use super::text::seconds;
use super::{Console, Outcome, cannot_write};
use crate::baseline::{
    BASELINE_FILE, CERTIFICATE_FILE, open_baseline, open_certificate, read_calendar, read_kept,
};
use crate::chain::{Complaint, causes};
use crate::clock;
use crate::config::Config;
use crate::host::geoip::Places;
use crate::rules::load_rules;
use crate::state::{load_anchors, load_policy, read_sealed_policy};
use crate::sync::Identity;
use sekisho_schema::TrustAnchors;
use sekisho_schema::sealed::Local;
use std::path::Path;

pub(super) fn run(args: &CheckArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let config = load(&args.read.config)?;
    let mut facts = vec![("configuration", read_from(&args.read.config.config))];
    let mut faults = Vec::new();
    if let Some(file) = &args.policy {
        let policy = read_policy(file)?;
        facts.push((
            "policy file",
            format!("{} is policy {} in mode {}", file.display(), policy.version, policy.mode),
        ));
    }
    match load_anchors(&config.trust) {
        Ok(anchors) => facts.push((
            "trust anchors",
            format!("{} in {}", anchors.ids().count(), config.trust.display()),
        )),
        Err(error) => faults.push(causes(&error)),
    }
    let loaded = load_policy(&config.state, &config.trust, None, clock::now());
    facts.push((
        "policy",
        format!("version {} in mode {} is in force", loaded.policy.version, loaded.policy.mode),
    ));
    faults.extend(loaded.refused.iter().map(|error| causes(error)));
    if let Some(file) = &config.policy {
        match read_sealed_policy(file) {
            Ok(sealed) if sealed.version > loaded.policy.version => facts.push((
                "next policy",
                format!(
                    "version {} of {} is tried at the next start",
                    sealed.version,
                    file.display()
                ),
            )),
            Ok(_) => {}
            Err(error) => faults.push(causes(&error)),
        }
    }
    let packs = if config.rules.exists() { vec![config.rules.clone()] } else { Vec::new() };
    let rules = load_rules(&packs, &config.lists, Local::Installed);
    facts.push((
        "rules",
        format!(
            "{} packs, {} indicators, {} detectors",
            rules.rules.packs.len(),
            rules.rules.indicators.counts().total(),
            rules.rules.detectors.len()
        ),
    ));
    faults.extend(rules.left_out.iter().map(|error| causes(error)));
    if let Some(path) = &config.geo
        && let Err(error) = Places::open(std::slice::from_ref(path))
    {
        faults.push(causes(&error));
    }
    learning(&config, &mut facts, &mut faults);
    if Identity::exists(&config.collector.identity)
        && let Err(error) = Identity::load(&config.collector.identity)
            .and_then(|identity| identity.tls(&config.collector.identity))
    {
        faults.push(causes(&error));
    }
    tell(&facts, &faults, args.read.output, console)
        .and_then(|()| console.out.flush())
        .map_err(|error| cannot_write(&error))?;
    for fault in &faults {
        Complaint::new(
            fault.clone(),
            "nothing was changed; the agent would start without it",
            "mend it before the next start",
        )
        .print(console.err);
    }
    Ok(if faults.is_empty() { Outcome::Fine } else { Outcome::Finding })
}

/// What learning goes on from, and what people signed.
fn learning(config: &Config, facts: &mut Vec<(&str, String)>, faults: &mut Vec<String>) {
    let anchors = load_anchors(&config.trust).unwrap_or_else(|_| TrustAnchors::new([], 1));
    match read_kept(&config.state) {
        Ok(Some(kept)) => facts.push((
            "learning",
            format!(
                "{} hours as role {}, {} episodes over",
                kept.record.hours,
                kept.record.role,
                kept.record.episodes.len()
            ),
        )),
        Ok(None) => facts.push(("learning", "begins with the first start".to_owned())),
        Err(error) => faults.push(causes(&error)),
    }
    if config.state.join(BASELINE_FILE).exists() {
        match open_baseline(&config.state, &anchors, 0) {
            Ok(baseline) => facts.push((
                "baseline",
                format!(
                    "version {} of role {}, {} destinations",
                    baseline.version,
                    baseline.role,
                    baseline.entry.len()
                ),
            )),
            Err(error) => faults.push(causes(&error)),
        }
    }
    if config.state.join(CERTIFICATE_FILE).exists() {
        match open_certificate(&config.state, &anchors, clock::now(), 0) {
            Ok((certificate, expires)) => facts.push((
                "certificate",
                format!(
                    "version {} of role {}, until {}",
                    certificate.version,
                    certificate.role,
                    seconds(expires)
                ),
            )),
            Err(error) => faults.push(causes(&error)),
        }
    }
    if let Some(path) = &config.calendar
        && let Err(error) = read_calendar(path)
    {
        faults.push(causes(&error));
    }
}

fn read_from(file: &Path) -> String {
    if file.exists() {
        format!("{} reads well", file.display())
    } else {
        format!("{} is absent: every default", file.display())
    }
}

fn tell(
    facts: &[(&str, String)],
    faults: &[String],
    format: Format,
    console: &mut Console<'_>,
) -> std::io::Result<()> {
    if format == Format::Json {
        let facts: std::collections::BTreeMap<_, _> = facts.iter().cloned().collect();
        return writeln!(console.out, "{}", serde_json::json!({"facts": facts, "faults": faults}));
    }
    for (name, fact) in facts {
        writeln!(console.out, "{name}: {fact}")?;
    }
    Ok(())
}
