//! `sekisho baseline show` and `diff`.

use super::args::{DiffArgs, ShowArgs};
use super::certify::table;
use super::files::{Source, UNTOUCHED, anchors, calendar, certificate};
use crate::baseline::{BaselineFileError, Job, jobs, read_baseline, read_certificate};
use crate::chain::Complaint;
use crate::cli::args::Format;
use crate::cli::contain::load;
use crate::cli::{Console, Outcome, cannot_write};
use crate::clock;
use sekisho_engine::certify::coverage::{Covered, covered};
use sekisho_engine::certify::review;
use sekisho_schema::certificate::Certificate;
use serde::Serialize;
use std::io::Write;
use std::path::Path;

/// Hosts whose coverage is told on a terminal, at most.
const TOLD: usize = 8;

/// Everything that is known.
#[derive(Serialize)]
struct Shown<'a> {
    role: &'a str,
    host_weeks: f64,
    covered: &'a [Covered],
    /// Jobs of this host, where its record is among those that are read.
    jobs: &'a [Job],
    baseline: u64,
    destinations: usize,
    undecided: usize,
    certificate: Option<&'a Certificate>,
}

pub(super) fn show(args: &ShowArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let source = Source::read(&args.source)?;
    let calendar = calendar(args.calendar.as_ref(), &args.source.config)?;
    let certificate = certificate(None, &args.source.config, clock::now())?
        .filter(|certificate| certificate.role == source.pool.role);
    let hosts: Vec<Covered> =
        source.records.iter().map(|record| covered(record, &calendar)).collect();
    let own = load(&args.source.config)?.host;
    let jobs = source
        .records
        .iter()
        .rfind(|record| record.host == own)
        .map_or_else(Vec::new, |record| jobs(Path::new("/"), record));
    let undecided = review::list(&source.pool, &source.baseline).len();
    let shown = Shown {
        role: &source.pool.role,
        host_weeks: source.pool.host_weeks(),
        covered: &hosts,
        jobs: &jobs,
        baseline: source.baseline.version,
        destinations: source.baseline.entry.len(),
        undecided,
        certificate: certificate.as_deref(),
    };
    let told = match args.output {
        Format::Json => serde_json::to_string(&shown)
            .map_err(std::io::Error::from)
            .and_then(|text| writeln!(console.out, "{text}")),
        Format::Table => tell(&shown, console.out),
    };
    told.map_err(|error| cannot_write(&error))?;
    Ok(if undecided == 0 { Outcome::Fine } else { Outcome::Finding })
}

fn tell(shown: &Shown<'_>, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "role {}: {:.1} host-weeks; baseline {} with {} destinations; {} items to decide",
        shown.role, shown.host_weeks, shown.baseline, shown.destinations, shown.undecided
    )?;
    for host in shown.covered.iter().take(TOLD) {
        tell_host(host, out)?;
    }
    if shown.covered.len() > TOLD {
        writeln!(out, "  and {} more hosts: `-o json` has them all", shown.covered.len() - TOLD)?;
    }
    let missing: Vec<&str> =
        shown.jobs.iter().filter(|job| !job.covered).map(|job| job.name.as_str()).collect();
    if !shown.jobs.is_empty() {
        writeln!(
            out,
            "  jobs of this host: {} of {} ran or had their turn{}{}",
            shown.jobs.len() - missing.len(),
            shown.jobs.len(),
            if missing.is_empty() { "" } else { "; not learned: " },
            missing.join(", ")
        )?;
    }
    match shown.certificate {
        Some(certificate) => table(certificate, out),
        None => {
            writeln!(out, "no certificate: findings of behaviour alert, and hold or cut nothing")
        }
    }
}

fn tell_host(host: &Covered, out: &mut dyn Write) -> std::io::Result<()> {
    let holidays = host
        .holidays
        .map_or_else(|| "holidays unknown".to_owned(), |count| format!("{count} holidays"));
    writeln!(
        out,
        "  {}: {:.1} weeks, {} of 168 hours of the week ({} twice), {holidays}; workloads: {}; destinations: {} ({} new this week)",
        host.host,
        host.weeks,
        host.week_hours,
        host.week_hours_twice,
        host.workloads,
        host.destinations,
        host.destinations_new
    )?;
    writeln!(out, "    {}", host.sentence)
}

pub(super) fn diff(args: &DiffArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let anchors = anchors(&args.config)?;
    let baselines = read_baseline(&args.old, &anchors)
        .and_then(|old| Ok(old.difference(&*read_baseline(&args.new, &anchors)?)));
    let lines = baselines.or_else(|as_baseline| {
        let now = clock::now();
        read_certificate(&args.old, &anchors, now)
            .and_then(|old| Ok(old.difference(&*read_certificate(&args.new, &anchors, now)?)))
            .map_err(|as_certificate| two(&as_baseline, &as_certificate))
    })?;
    let told = lines.iter().try_for_each(|line| writeln!(console.out, "{line}"));
    told.map_err(|error| cannot_write(&error))?;
    Ok(if lines.is_empty() { Outcome::Fine } else { Outcome::Finding })
}

fn two(as_baseline: &BaselineFileError, as_certificate: &BaselineFileError) -> Complaint {
    use crate::chain::causes;
    Complaint::new(
        format!(
            "these are not two baselines ({}) nor two certificates ({})",
            causes(as_baseline),
            causes(as_certificate)
        ),
        UNTOUCHED,
        "name two of a kind, in TOML or sealed",
    )
}
