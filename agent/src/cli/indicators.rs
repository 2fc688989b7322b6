//! `sekisho indicators check|stats`

use super::args::{Format, IndicatorsArgs, IndicatorsVerb, ReadArgs};
use super::contain::load;
use super::{Console, Outcome, cannot_write};
use crate::chain::{Complaint, causes};
use crate::rules::{LoadedRules, load_rules};
use sekisho_engine::rules::RulesBuilder;
use sekisho_schema::sealed::Local;
use std::path::PathBuf;

pub(super) fn run(args: &IndicatorsArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    match &args.verb {
        IndicatorsVerb::Check { files } => check(files, console),
        IndicatorsVerb::Stats(args) => stats(args, console),
    }
}

fn check(files: &[PathBuf], console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    for file in files {
        let refuse = |why: String| {
            Complaint::new(
                why,
                "nothing was loaded or changed",
                "a list has one address, address:port or name a line; # begins a comment",
            )
        };
        let text = std::fs::read_to_string(file)
            .map_err(|error| refuse(format!("cannot read {}: {error}", file.display())))?;
        let lines = RulesBuilder::new()
            .add_list(&file.display().to_string(), &text)
            .map_err(|error| refuse(causes(&error)))?;
        writeln!(console.out, "{}: {lines} indicators", file.display())
            .map_err(|error| cannot_write(&error))?;
    }
    Ok(Outcome::Fine)
}

fn stats(args: &ReadArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let config = load(&args.config)?;
    let packs = if config.rules.exists() { vec![config.rules.clone()] } else { Vec::new() };
    let loaded = load_rules(&packs, &config.lists, Local::Installed);
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
    let rules = &loaded.rules;
    let total = rules.indicators.counts().total();
    if format == Format::Json {
        let packs: Vec<_> = rules
            .packs
            .iter()
            .map(|(name, version)| serde_json::json!({"name": name, "version": version}))
            .collect();
        let lists: Vec<_> = rules
            .lists
            .iter()
            .map(|(source, lines)| serde_json::json!({"source": source, "indicators": lines}))
            .collect();
        let detectors: Vec<_> = rules.detectors.keys().collect();
        return writeln!(
            console.out,
            "{}",
            serde_json::json!({"indicators": total, "packs": packs, "lists": lists, "detectors": detectors, "left_out": loaded.left_out.len()})
        );
    }
    writeln!(console.out, "{total} indicators")?;
    for (name, version) in &rules.packs {
        writeln!(console.out, "  pack {name}, version {version}")?;
    }
    for (source, lines) in &rules.lists {
        writeln!(console.out, "  list {source}: {lines}")?;
    }
    writeln!(
        console.out,
        "{} detectors: {}",
        rules.detectors.len(),
        rules.detectors.keys().cloned().collect::<Vec<_>>().join(", ")
    )
}
