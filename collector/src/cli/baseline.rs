//! `baseline`: what hosts learned, pooled by role; baselines and certificates are made here, sealed with a key that
//! is not kept here, and pushed.

mod documents;

use super::sealing::{Seal, UNCHANGED, read};
use super::{Failure, Output, Place, Reading, json, refused_by_store};
use crate::clock::{self, to_the_second};
use crate::learning::{LearningError, PushLearningError, Role, push};
use crate::page::text::visible;
use clap::{Args, Subcommand};
use documents::{Document, diff, read_document, seal, write_made};
use sekisho_engine::certify::sentence::amount;
use sekisho_engine::certify::threshold::CONFIDENCE;
use sekisho_schema::baseline::{BASELINE_KIND, PoolError, RoleBaseline};
use sekisho_schema::calendar::Calendar;
use sekisho_schema::certificate::{Budgets, CERTIFICATE_KIND, Certificate};
use sekisho_schema::episode::{Channel, Tier};
use sekisho_schema::sealed::SealError;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub(super) enum BaselineVerb {
    /// Show each role: hosts, what they learned, what is in force, what waits
    Status(Reading),
    /// Show what the hosts of a role learned, or write it for `sekisho baseline`
    Pool(Pooled),
    /// List what a person must decide before anything is granted
    Review(OfRole),
    /// Make the next baseline: what is in force, what was decided on the page, what nobody needs to sign
    Draft(Made),
    /// Make the certificate of a role from what its hosts learned
    Certify(Certify),
    /// Show what the certificate in force would have done, and what any other threshold would have
    Report(Report),
    /// Seal a baseline or certificate, or add a signature; works offline
    Seal(Seal),
    /// Show what differs between two baselines or two certificates, sealed or not
    Diff(Diff),
    /// Put a sealed baseline or certificate in force for its role; its hosts fetch it
    Push(Push),
}

#[derive(Args)]
pub(super) struct OfRole {
    #[command(flatten)]
    reading: Reading,
    /// The role; may be left out where there is one only
    #[arg(long)]
    role: Option<String>,
}

#[derive(Args)]
pub(super) struct Pooled {
    #[command(flatten)]
    of: OfRole,
    /// A new folder into which each host's record is written
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct Report {
    #[command(flatten)]
    of: OfRole,
    /// A holiday calendar
    #[arg(long)]
    calendar: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct Made {
    #[command(flatten)]
    place: Place,
    /// The role; may be left out where there is one only
    #[arg(long)]
    role: Option<String>,
    /// Where it goes: sealed with --key, and readable beside it as *.toml; else readable only
    #[arg(long)]
    out: PathBuf,
    /// Secret key of a trust anchor; better, seal elsewhere with `baseline seal`
    #[arg(long)]
    key: Vec<PathBuf>,
    /// How long the seal is fresh
    #[arg(long, default_value = "90d")]
    expires: String,
}

#[derive(Args)]
pub(super) struct Certify {
    #[command(flatten)]
    made: Made,
    /// The baseline that it rests on, sealed or not; by default the one in force
    #[arg(long)]
    baseline: Option<PathBuf>,
    /// False actions per host-week that a channel may cost, such as hold.rhythm=0.5; a tier that is named has only
    /// the channels that are named
    #[arg(long, value_name = "TIER.CHANNEL=RATE")]
    budget: Vec<String>,
    /// How sure the promise of a tier shall be, all its channels together
    #[arg(long, default_value_t = CONFIDENCE)]
    confidence: f64,
}

#[derive(Args)]
pub(super) struct Diff {
    /// The one
    a: PathBuf,
    /// The other
    b: PathBuf,
}

#[derive(Args)]
pub(super) struct Push {
    #[command(flatten)]
    place: Place,
    /// The sealed document
    file: PathBuf,
}

pub(super) fn act(verb: BaselineVerb, out: &mut dyn Write) -> Result<u8, Failure> {
    match verb {
        BaselineVerb::Status(reading) => status(&reading, out),
        BaselineVerb::Pool(arguments) => pool(&arguments, out),
        BaselineVerb::Review(arguments) => review(&arguments, out),
        BaselineVerb::Draft(arguments) => draft(&arguments, out),
        BaselineVerb::Certify(arguments) => certify(&arguments, out),
        BaselineVerb::Report(arguments) => report(&arguments, out),
        BaselineVerb::Seal(arguments) => seal(&arguments, out),
        BaselineVerb::Diff(arguments) => diff(&arguments, out),
        BaselineVerb::Push(arguments) => push_file(&arguments, out),
    }
}

/// The role that is named, else the only one.
fn open(place: &Place, named: Option<&str>) -> Result<(String, Role), Failure> {
    let (_, store) = place.open()?;
    let name = match named {
        Some(name) => name.to_owned(),
        None => {
            let roles = store.roles().map_err(refused_by_store)?;
            let known: Vec<String> = roles
                .into_iter()
                .filter(|role| role.learned > 0)
                .map(|role| visible(&role.role))
                .collect();
            match known.as_slice() {
                [only] => only.clone(),
                [] => return Err(nothing_learned("no role")),
                several => {
                    return Err(Failure::unable(
                        format!("several roles learned: {}", several.join(", ")),
                        UNCHANGED,
                        "name one with --role",
                    ));
                }
            }
        }
    };
    let role = Role::read(&store, &name, clock::now()).map_err(|error| match error {
        LearningError::Pool(PoolError::Empty(_)) => {
            nothing_learned(&format!("role \"{}\"", visible(&name)))
        }
        other => Failure::unable(other, UNCHANGED, "`sekisho-collector audit verify`"),
    })?;
    Ok((name, role))
}

fn nothing_learned(of: &str) -> Failure {
    Failure::unable(
        format!("{of} has sent anything that it learned"),
        UNCHANGED,
        "hosts send what they learn each hour; `sekisho-collector baseline status` shows what came",
    )
}

fn status(reading: &Reading, out: &mut dyn Write) -> Result<u8, Failure> {
    let (_, store) = reading.place.open()?;
    let now = clock::now();
    let (roles, fleet) =
        store.roles().and_then(|roles| Ok((roles, store.fleet(now)?))).map_err(refused_by_store)?;
    if reading.output == Output::Json {
        json(out, &serde_json::json!({"roles": roles, "fleet": fleet}))?;
        return Ok(0);
    }
    for role in &roles {
        let version = |version: Option<u64>| {
            version.map_or_else(|| "none".to_owned(), |version| version.to_string())
        };
        writeln!(
            out,
            "role {}: {} of {} hosts learned {:.1} host-weeks, {} episodes; baseline {}, certificate {}",
            visible(&role.role),
            role.learned,
            role.hosts,
            role.hours as f64 / 168.0,
            role.episodes,
            version(role.baseline),
            version(role.certificate)
        )?;
        if let Some(spent) = fleet.get(&role.role) {
            writeln!(
                out,
                "  automatic cuts of behaviour in seven days: {} of {}",
                spent.taken, spent.of
            )?;
        }
    }
    if roles.is_empty() {
        writeln!(out, "no host is enrolled")?;
    }
    Ok(0)
}

fn pool(arguments: &Pooled, out: &mut dyn Write) -> Result<u8, Failure> {
    let (name, role) = open(&arguments.of.reading.place, arguments.of.role.as_deref())?;
    let summary = serde_json::json!({
        "role": name, "hosts": role.pool.hosts, "host_weeks": role.pool.host_weeks(), "from": role.pool.from, "until": role.pool.until,
        "episodes": role.pool.episodes.len(), "left_out": role.pool.left_out,
    });
    if arguments.of.reading.output == Output::Json {
        json(out, &summary)?;
    } else {
        writeln!(
            out,
            "role {}: {} hosts, {:.1} host-weeks from {} to {} UTC, {} episodes; {} records overlap others of their host and are left out",
            visible(&name),
            role.pool.hosts.len(),
            role.pool.host_weeks(),
            to_the_second(role.pool.from),
            to_the_second(role.pool.until),
            role.pool.episodes.len(),
            role.pool.left_out
        )?;
    }
    let Some(folder) = &arguments.out else { return Ok(0) };
    let fail = |path: &Path, error: std::io::Error| {
        Failure::unable(
            format!("cannot write {}: {error}", path.display()),
            "the records that were written before it stay there",
            "name a new folder with --out",
        )
    };
    std::fs::create_dir(folder).map_err(|error| fail(folder, error))?;
    for (at, record) in role.records.iter().enumerate() {
        let path = folder.join(format!("{:04}.json", at + 1));
        let text = serde_json::to_string(record).unwrap_or_default();
        std::fs::write(&path, text).map_err(|error| fail(&path, error))?;
    }
    writeln!(out, "{} records: {}", role.records.len(), folder.display())?;
    Ok(0)
}

fn review(arguments: &OfRole, out: &mut dyn Write) -> Result<u8, Failure> {
    let (name, role) = open(&arguments.reading.place, arguments.role.as_deref())?;
    let items = role.undecided();
    if arguments.reading.output == Output::Json {
        json(out, &serde_json::json!({"role": name, "items": items, "unsealed": role.unsealed()}))?;
    } else {
        writeln!(
            out,
            "role {}: {} to decide, {} decided on the page and not in the baseline in force",
            visible(&name),
            items.len(),
            role.unsealed()
        )?;
        for item in &items {
            writeln!(out, "{}  {}", item.id, visible(&item.sentence))?;
        }
    }
    Ok(u8::from(!items.is_empty()))
}

fn draft(arguments: &Made, out: &mut dyn Write) -> Result<u8, Failure> {
    let (_, role) = open(&arguments.place, arguments.role.as_deref())?;
    let next = role.draft(clock::now());
    let text = next.to_text().map_err(senseless)?;
    RoleBaseline::parse(&text).map_err(|error| senseless(error.to_string()))?;
    write_made(arguments, (BASELINE_KIND, next.version), &text, out)?;
    for line in role.baseline.difference(&next) {
        writeln!(out, "{}", visible(&line))?;
    }
    let left = role.undecided().len();
    writeln!(out, "{} destinations are normal, {left} items are left to decide", next.entry.len())?;
    Ok(u8::from(left > 0))
}

fn senseless(why: String) -> Failure {
    Failure::unable(format!("what was made makes no sense: {why}"), UNCHANGED, "report this")
}

fn certify(arguments: &Certify, out: &mut dyn Write) -> Result<u8, Failure> {
    let budgets = budgets(&arguments.budget)?;
    if !(0.5..1.0).contains(&arguments.confidence) {
        return Err(Failure::unable(
            format!("{} is no confidence", arguments.confidence),
            UNCHANGED,
            "a share from 0.5 to below 1, such as 0.95",
        ));
    }
    let (name, role) = open(&arguments.made.place, arguments.made.role.as_deref())?;
    let baseline = match &arguments.baseline {
        None => role.baseline.clone(),
        Some(path) => match read_document(path)? {
            Document::Baseline(baseline) if baseline.role == name => *baseline,
            _ => {
                return Err(Failure::unable(
                    format!("{} is no baseline of role \"{}\"", path.display(), visible(&name)),
                    UNCHANGED,
                    "name the one that `baseline draft` made for the role",
                ));
            }
        },
    };
    let made = role.certify(&baseline, &budgets, arguments.confidence, clock::now());
    let text = made.to_text().map_err(senseless)?;
    write_made(&arguments.made, (CERTIFICATE_KIND, made.version), &text, out)?;
    tell_certificate(&made, out)?;
    if let Some(before) = &role.certificate {
        for line in before.difference(&made) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(u8::from(made.undecided > 0))
}

fn tell_certificate(made: &Certificate, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "certificate {} of role {}: {:.1} host-weeks of {} hosts, {} episodes, promised at {} %",
        made.version,
        visible(&made.role),
        made.host_weeks,
        made.hosts,
        made.episodes,
        made.confidence * 100.0
    )?;
    if made.undecided > 0 {
        writeln!(
            out,
            "LOCKED: {} items are undecided; decide them on the page, push the baseline and certify again",
            made.undecided
        )?;
    }
    for grant in &made.grant {
        let (tier, channel) = (grant.tier.name(), grant.channel.name());
        match grant.threshold {
            Some(threshold) => writeln!(
                out,
                "  {tier:<15} {channel:<12} above {:<14} at most {:.3} of {} a host-week",
                amount(grant.channel, threshold),
                grant.bound.unwrap_or(0.0),
                grant.budget
            )?,
            None => writeln!(
                out,
                "  {tier:<15} {channel:<12} locked: {:.0} more host-weeks needed for {} a host-week",
                grant.missing_host_weeks.ceil(),
                grant.budget
            )?,
        }
    }
    Ok(())
}

/// Budgets from their words; a tier that is named has only the channels that are named.
fn budgets(words: &[String]) -> Result<Budgets, Failure> {
    let mut budgets = Budgets::default();
    let mut named: BTreeSet<Tier> = BTreeSet::new();
    for word in words {
        let read = || -> Option<(Tier, Channel, f64)> {
            let (what, rate) = word.split_once('=')?;
            let (tier, channel) = what.split_once('.')?;
            let tier = Tier::ALL
                .into_iter()
                .find(|known| known.name() == tier && *known != Tier::Alert)?;
            let channel = Channel::ALL.into_iter().find(|known| known.name() == channel)?;
            let rate: f64 = rate.parse().ok()?;
            (rate.is_finite() && rate > 0.0).then_some((tier, channel, rate))
        };
        let Some((tier, channel, rate)) = read() else {
            return Err(Failure::unable(
                format!("\"{}\" is no budget", visible(word)),
                UNCHANGED,
                "TIER.CHANNEL=RATE, such as hold.rhythm=0.5; tiers are hold, cut-destination and isolate-host",
            ));
        };
        let channels = budgets.0.entry(tier).or_default();
        if named.insert(tier) {
            channels.clear();
        }
        channels.insert(channel, rate);
    }
    Ok(budgets)
}

fn report(arguments: &Report, out: &mut dyn Write) -> Result<u8, Failure> {
    let calendar = match &arguments.calendar {
        None => Calendar::unknown(),
        Some(path) => Calendar::parse(&read(path)?).map_err(|error| {
            Failure::unable(
                format!("{}: {error}", path.display()),
                UNCHANGED,
                "docs/baseline.md shows what a calendar holds",
            )
        })?,
    };
    let (name, role) = open(&arguments.of.reading.place, arguments.of.role.as_deref())?;
    let rehearsed = role.rehearse(&calendar, clock::now());
    let report = &rehearsed.report;
    if arguments.of.reading.output == Output::Json {
        json(out, report)?;
        return Ok(u8::from(!report.actions.is_empty()));
    }
    writeln!(
        out,
        "dry run of role {} under {}: {} hosts, {:.1} host-weeks",
        visible(&name),
        if rehearsed.provisional {
            "a certificate made now (none is in force)".to_owned()
        } else {
            format!("certificate {}", report.certificate)
        },
        report.hosts,
        report.host_weeks
    )?;
    for tier in &report.tiers {
        writeln!(out, "  {tier}")?;
    }
    for action in &report.actions {
        writeln!(
            out,
            "{}  {} UTC  {} on {} by {}  [{}]\n  {}",
            action.id,
            to_the_second(action.at),
            action.tier,
            visible(&action.host),
            action.channel,
            action.standing,
            visible(&action.sentence)
        )?;
    }
    Ok(u8::from(!report.actions.is_empty()))
}

fn push_file(arguments: &Push, out: &mut dyn Write) -> Result<u8, Failure> {
    let (dir, store) = arguments.place.open()?;
    let text = read(&arguments.file)?;
    match push(&dir, &store, &text, clock::now()) {
        Ok(pushed) => {
            writeln!(
                out,
                "{} {} is in force for role {}; its running hosts are told within a second or two",
                pushed.kind,
                pushed.version,
                visible(&pushed.role)
            )?;
            Ok(0)
        }
        Err(PushLearningError::Store(error)) => Err(refused_by_store(error)),
        Err(error) => {
            let help = match &error {
                PushLearningError::NoAnchors | PushLearningError::Anchors(_) => {
                    "add the public key of who seals: `sekisho-collector trust add FILE.pub`"
                }
                PushLearningError::Kind(_) => "`policy push` is for policies",
                PushLearningError::Seal(SealError::RolledBack { .. }) => {
                    "make it again: its version is above the one in force then"
                }
                _ => "seal it with an enrolled key: `sekisho-collector baseline seal`",
            };
            Err(Failure::refused(
                format!("{} refused: {error}", arguments.file.display()),
                "what was in force stays in force",
                help,
            ))
        }
    }
}
