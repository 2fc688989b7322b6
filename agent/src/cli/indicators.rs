//! `sekisho indicators check|import|reload|stats`

use super::args::{
    Format, IndicatorsArgs, IndicatorsCheckArgs, IndicatorsImportArgs, IndicatorsReadArgs,
    IndicatorsReloadArgs, IndicatorsVerb, ReadArgs,
};
use super::contain::{ask_agent, load, refused};
use super::text::seconds;
use super::{Console, Outcome, cannot_write};
use crate::chain::{Complaint, causes};
use crate::clock;
use crate::control::{Answer, Request};
use crate::rules::{
    Compilation, ListOptions, ListReport, LoadRulesError, LoadedRules, RuleSources, check_file,
    compile,
};
use crate::state::load_anchors;
use sekisho_engine::detect::indicator_set::{Defaults, IndicatorSet};
use sekisho_engine::rules::LIST_DEFAULTS;
use sekisho_schema::TrustAnchors;
use sekisho_schema::intel::Report;
use sekisho_schema::sealed::{Local, SigningKey, key_id, parse_secret};
use std::path::{Path, PathBuf};

pub(super) fn run(args: &IndicatorsArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    match &args.verb {
        IndicatorsVerb::Check(args) => check(args, console),
        IndicatorsVerb::Import(args) => import(args, console),
        IndicatorsVerb::Reload(args) => reload(args, console),
        IndicatorsVerb::Stats(args) => stats(args, console),
    }
}

fn reload(args: &IndicatorsReloadArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    match ask_agent(&load(&args.config)?, &Request::Reload { force: args.force })? {
        Answer::Done { detail, .. } => {
            writeln!(console.out, "{detail}").map_err(|error| cannot_write(&error))?;
            Ok(Outcome::Fine)
        }
        other => refused(other, console),
    }
}

fn options(read: &IndicatorsReadArgs, defaults: Defaults) -> ListOptions {
    ListOptions {
        format: read.format,
        kind: read.kind,
        defaults,
        now: Some(clock::now()),
        lenient: true,
        allow_private: read.allow_private,
        ..ListOptions::default()
    }
}

/// Trust anchors, if there are any; without one a seal can't be checked.
fn anchors(dir: &Path) -> Option<TrustAnchors> {
    load_anchors(dir).ok().filter(|anchors| !anchors.is_empty())
}

fn check(args: &IndicatorsCheckArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let trust = match &args.trust {
        Some(dir) => Some(dir.clone()),
        None => load(&args.config).ok().map(|config| config.trust),
    };
    let anchors = trust.as_deref().and_then(anchors);
    let mut outcome = Outcome::Fine;
    for file in &args.files {
        let options = options(&args.read, LIST_DEFAULTS);
        let (report, set) = check_file(file, &options, anchors.as_ref())
            .map_err(|error| unreadable(&error, "nothing was loaded or changed"))?;
        tell_report(file, &report, &set, console)
            .and_then(|()| console.out.flush())
            .map_err(|error| cannot_write(&error))?;
        if let Some(fault) = report.report.as_ref().and_then(refused_whole) {
            outcome = Outcome::Finding;
            Complaint::new(
                format!("{}:{fault}; as a configured list nothing of it would be loaded", file.display()),
                "nothing was loaded or changed",
                "mend the line, or make a compiled set of the rest with `sekisho indicators import`",
            )
            .print(console.err);
        }
    }
    Ok(outcome)
}

/// The first fault of a plain list, which is refused whole for it when the configuration names it.
fn refused_whole(report: &Report) -> Option<String> {
    let is_plain = report.format == sekisho_schema::intel::Format::Plain;
    // A private address is the operator's own word in a plain list, and what has expired is no fault.
    let is_fault = |why: &str| !why.contains("private") && !why.contains("ceased");
    let first = report.left_out.iter().find(|left| is_fault(&left.why)).filter(|_| is_plain)?;
    let line = first.place.trim_start_matches("line ");
    Some(format!("{line}: \"{}\" {}", first.text, first.why))
}

fn import(args: &IndicatorsImportArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let state = || format!("nothing was compiled; {} is as it was", args.out.display());
    if args.source.is_some() && args.inputs.len() > 1 {
        return Err(Complaint::new(
            "--source names one source and there are several inputs",
            state(),
            "import each input by itself, then import the compiled sets together",
        ));
    }
    let key = match &args.key {
        Some(file) => Some(read_key(file, &state())?),
        None => None,
    };
    let now = clock::now();
    let defaults = Defaults { grade: args.grade, confidence: args.confidence };
    let options = ListOptions { valid_for: args.valid_for, ..options(&args.read, defaults) };
    let inputs: Vec<(String, PathBuf)> = args
        .inputs
        .iter()
        .map(|path| (args.source.clone().unwrap_or_else(|| short_name(path)), path.clone()))
        .collect();
    let name = short_name(&args.out);
    let set = Compilation {
        name: &name,
        version: u64::try_from(now.seconds()).unwrap_or(0),
        built_at: now,
        expires: now.after(args.expires),
        key: key.as_ref(),
    };
    let (reports, set) = compile(&inputs, &options, None, &set, &args.out)
        .map_err(|error| Complaint::new(causes(&error), state(), HELP_FORMATS))?;
    let mut told = || -> std::io::Result<()> {
        for (report, path) in reports.iter().zip(&args.inputs) {
            if let Some(read) = &report.report {
                tell_left_out(path, read, console)?;
            }
        }
        let signed = match &key {
            Some(key) => format!("signed by {}", key_id(&key.verifying_key())),
            None => "unsigned".to_owned(),
        };
        let (total, out) = (set.counts().total(), args.out.display());
        writeln!(console.out, "{out}: {total} indicators ({}), {signed}", by_kind(&set))?;
        if set.duplicates() > 0 {
            writeln!(console.out, "  {} said twice", set.duplicates())?;
        }
        console.out.flush()
    };
    told().map_err(|error| cannot_write(&error))?;
    if set.counts().total() == 0 {
        Complaint::new(
            format!("{} holds no indicator", args.out.display()),
            "it was written; an agent would refuse it in the place of a set that holds some",
            HELP_FORMATS,
        )
        .print(console.err);
        return Ok(Outcome::Finding);
    }
    Ok(Outcome::Fine)
}

const HELP_FORMATS: &str = "`sekisho indicators check --format FORMAT FILE` shows what a file is read as and what of it is left out";

fn unreadable(error: &LoadRulesError, state: &str) -> Complaint {
    Complaint::new(causes(error), state, HELP_FORMATS)
}

fn read_key(file: &Path, state: &str) -> Result<SigningKey, Complaint> {
    let refuse = |why: String| {
        Complaint::new(why, state, "name the file of the secret key, not of the public one")
    };
    let text = std::fs::read_to_string(file)
        .map_err(|error| refuse(format!("cannot read {}: {error}", file.display())))?;
    parse_secret(&text).map_err(|error| refuse(format!("{}: {error}", file.display())))
}

fn short_name(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

fn by_kind(set: &IndicatorSet) -> String {
    let kinds: Vec<String> = set
        .counts()
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") }
}

fn tell_report(
    file: &Path,
    report: &ListReport,
    set: &IndicatorSet,
    console: &mut Console<'_>,
) -> std::io::Result<()> {
    let format = match (&report.report, &report.seal) {
        (Some(read), _) => read.format.to_string(),
        (None, Some(seal)) => format!("compiled, {seal}"),
        (None, None) => String::new(),
    };
    let total = set.counts().total();
    writeln!(console.out, "{}: {total} indicators ({format}): {}", file.display(), by_kind(set))?;
    if set.duplicates() > 0 {
        writeln!(console.out, "  {} said twice", set.duplicates())?;
    }
    match &report.report {
        Some(read) => tell_left_out(file, read, console),
        None => Ok(()),
    }
}

fn tell_left_out(file: &Path, read: &Report, console: &mut Console<'_>) -> std::io::Result<()> {
    if read.defanged > 0 {
        writeln!(
            console.out,
            "  {} values were written so that nobody follows them, and are read as meant",
            read.defanged
        )?;
    }
    if read.left_out_total() == 0 {
        return Ok(());
    }
    let reasons: Vec<String> =
        read.reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    let total = read.left_out_total();
    writeln!(console.out, "  {}: {total} left out: {}", file.display(), reasons.join(", "))?;
    for left in &read.left_out {
        let text = left.text.replace(|sign: char| sign.is_control(), " ");
        let what =
            if text.is_empty() { left.why.clone() } else { format!("\"{text}\": {}", left.why) };
        writeln!(console.out, "    {}: {what}", left.place)?;
    }
    let more = total.saturating_sub(read.left_out.len() as u64);
    if more > 0 {
        writeln!(console.out, "    and {more} more")?;
    }
    Ok(())
}

fn stats(args: &ReadArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let config = load(&args.config)?;
    let packs = if config.rules.exists() { vec![config.rules.clone()] } else { Vec::new() };
    let mut sources = RuleSources::new(&packs, &config.lists, Local::Installed);
    sources.anchors = anchors(&config.trust);
    let loaded = sources.load();
    tell(&loaded, args.output, console)
        .and_then(|()| console.out.flush())
        .map_err(|error| cannot_write(&error))?;
    for error in &loaded.left_out {
        Complaint::new(
            causes(error),
            "it is left out; everything else above is looked for",
            "mend it or take it out of the configuration",
        )
        .print(console.err);
    }
    Ok(if loaded.left_out.is_empty() { Outcome::Fine } else { Outcome::Finding })
}

fn tell(loaded: &LoadedRules, format: Format, console: &mut Console<'_>) -> std::io::Result<()> {
    if format == Format::Json {
        return writeln!(console.out, "{}", as_json(loaded));
    }
    let rules = &loaded.rules;
    let set = &rules.indicators;
    let (total, bytes) = (set.counts().total(), set.bytes());
    writeln!(console.out, "{total} indicators ({}), {} KiB", by_kind(set), bytes.div_ceil(1024))?;
    let expired = set.expired(clock::now());
    if expired > 0 {
        writeln!(console.out, "  {expired} of them have expired and don't count")?;
    }
    for (name, version) in &rules.packs {
        writeln!(console.out, "  pack {name}, version {version}")?;
    }
    for list in &loaded.lists {
        let Some(brought) = list.brought else {
            writeln!(console.out, "  list {}: left out", list.name)?;
            continue;
        };
        let seal = list.seal.as_ref().map_or_else(String::new, |seal| format!(", {seal}"));
        let left = list.report.as_ref().map_or(0, Report::left_out_total);
        let left = if left > 0 { format!(", {left} values left out") } else { String::new() };
        writeln!(console.out, "  list {}: {brought}{seal}{left}", list.name)?;
    }
    for ((kind, source), count) in set.tally() {
        writeln!(console.out, "  {kind} of {source}: {count}")?;
    }
    writeln!(
        console.out,
        "{} detectors: {}",
        rules.detectors.len(),
        rules.detectors.keys().cloned().collect::<Vec<_>>().join(", ")
    )
}

fn as_json(loaded: &LoadedRules) -> serde_json::Value {
    let rules = &loaded.rules;
    let set = &rules.indicators;
    let packs: Vec<_> = rules
        .packs
        .iter()
        .map(|(name, version)| serde_json::json!({"name": name, "version": version}))
        .collect();
    let list = |list: &ListReport| {
        serde_json::json!({
            "source": list.name,
            "indicators": list.brought,
            "seal": list.seal.as_ref().map(ToString::to_string),
            "left_out": list.report.as_ref().map_or(0, Report::left_out_total),
        })
    };
    let lists: Vec<_> = loaded.lists.iter().map(list).collect();
    let kinds: Vec<_> = set
        .tally()
        .into_iter()
        .map(|((kind, source), count)| {
            serde_json::json!({"kind": kind.as_str(), "source": source, "indicators": count})
        })
        .collect();
    let detectors: Vec<_> = rules.detectors.keys().collect();
    serde_json::json!({
        "indicators": set.counts().total(),
        "bytes": set.bytes(),
        "duplicates": set.duplicates(),
        "expired": set.expired(clock::now()),
        "expires_at": null_or_time(loaded),
        "packs": packs,
        "lists": lists,
        "kinds": kinds,
        "detectors": detectors,
        "left_out": loaded.left_out.len(),
    })
}

/// When the first seal of a compiled set ceases to be fresh.
fn null_or_time(loaded: &LoadedRules) -> Option<String> {
    loaded.lists.iter().filter_map(|list| list.expires).min().map(seconds)
}
