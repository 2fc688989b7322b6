//! `sekisho rules test`: every rule against the traffic that it must find and must leave alone.

use super::args::{Format, RulesArgs, RulesVerb};
use super::{Console, Outcome, cannot_write};
use crate::chain::{Complaint, causes};
use crate::rules::load_rules;
use sekisho_engine::cases::{Case, CaseFile, ForgedFrame, Verdict, try_case};
use sekisho_engine::packs::shipped_packs;
use sekisho_engine::rules::{Rules, RulesBuilder};
use sekisho_engine::{Engine, EngineConfig, Input, Limits, Output};
use sekisho_schema::pack::RulePack;
use sekisho_schema::sealed::Local;
use sekisho_schema::{Body, Timestamp, Verified};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

const UNCHANGED: &str = "no rule was changed or loaded into an agent";

/// What came of one case.
struct Tried {
    file: String,
    name: String,
    faults: Vec<String>,
    told: Vec<String>,
}

pub(super) fn run(args: &RulesArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let RulesVerb::Test { dir, write, output } = &args.verb;
    let dir = dir.clone().unwrap_or_else(|| PathBuf::from("/usr/share/sekisho/rules"));
    let packs =
        Some(dir.join("packs")).filter(|packs| packs.is_dir()).unwrap_or_else(|| dir.clone());
    let files = case_files(&dir.join("cases"))?;
    let own = own_packs(&packs)?;
    let rules = load(&packs)?;
    let shipped = shipped()?;
    let own_detectors = of_packs(&own, &shipped, &rules)?;
    let packs = Packs { own: verified(&own, Local::Replay), shipped: beside(&own, &shipped) };
    let mut tried = Vec::new();
    let mut covered: BTreeMap<String, (bool, bool)> = BTreeMap::new();
    for (file, cases) in &files {
        let both = cases.has_both();
        let covered = covered.entry(cases.detector.clone()).or_default();
        *covered = (covered.0 || both.0, covered.1 || both.1);
        for case in &cases.cases {
            tried.push(try_one(file, case, &packs)?);
            if let Some(folder) = write {
                write_capture(folder, file, case)?;
            }
        }
    }
    if let Some(unknown) = covered.keys().find(|id| !is_known(id, &rules)) {
        return Err(Complaint::new(
            format!("there are cases for \"{unknown}\", and no pack switches it on"),
            UNCHANGED,
            "docs/findings.md names every detector",
        ));
    }
    let lacking = lacking(&own_detectors, &covered);
    let failed = tried.iter().filter(|tried| !tried.faults.is_empty()).count();
    tell(&tried, &lacking, failed, *output, console.out)
        .and_then(|()| console.out.flush())
        .map_err(|error| cannot_write(&error))?;
    Ok(if failed == 0 && lacking.is_empty() { Outcome::Fine } else { Outcome::Finding })
}

/// Every case file of a folder, by name.
fn case_files(folder: &Path) -> Result<Vec<(String, CaseFile)>, Complaint> {
    let refuse = |why: String| {
        Complaint::new(
            why,
            UNCHANGED,
            "give the folder that holds packs/ and cases/; `rules/README.md` shows what a case is",
        )
    };
    let entries = fs::read_dir(folder)
        .map_err(|error| refuse(format!("cannot read cases in {}: {error}", folder.display())))?;
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    paths.sort();
    if paths.is_empty() {
        return Err(refuse(format!("there are no cases in {}", folder.display())));
    }
    paths
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path)
                .map_err(|error| refuse(format!("cannot read {}: {error}", path.display())))?;
            let cases = CaseFile::parse(&text)
                .map_err(|error| refuse(format!("{}:{error}", path.display())))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok((name, cases))
        })
        .collect()
}

/// The packs of the folder; the shipped ones are played beside them.
fn own_packs(packs: &Path) -> Result<Vec<RulePack>, Complaint> {
    let Ok(entries) = fs::read_dir(packs) else { return Ok(Vec::new()) };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path)
                .map_err(|error| mend_pack(format!("cannot read {}: {error}", path.display())))?;
            RulePack::parse(&text)
                .map_err(|error| mend_pack(format!("{}:{}", path.display(), causes(&error))))
        })
        .collect()
}

/// The packs that are built in.
fn shipped() -> Result<Vec<RulePack>, Complaint> {
    let read = |(name, text): (&str, &str)| {
        RulePack::parse(text).map_err(|error| mend_pack(format!("{name}:{}", causes(&error))))
    };
    shipped_packs().into_iter().map(read).collect()
}

/// The packs that every case is played to, read once.
struct Packs {
    own: Vec<Verified<RulePack>>,
    shipped: Vec<Verified<RulePack>>,
}

fn verified(packs: &[RulePack], from: Local) -> Vec<Verified<RulePack>> {
    packs.iter().map(|pack| Verified::locally(pack.clone(), from)).collect()
}

/// Those of the shipped packs that no pack of the folder replaces.
fn beside(own: &[RulePack], shipped: &[RulePack]) -> Vec<Verified<RulePack>> {
    let is_replaced = |pack: &RulePack| own.iter().any(|own| own.name == pack.name);
    let left: Vec<RulePack> = shipped.iter().filter(|pack| !is_replaced(pack)).cloned().collect();
    verified(&left, Local::BuiltIn)
}

fn mend_pack(why: String) -> Complaint {
    Complaint::new(why, UNCHANGED, "mend the pack and test again; docs/rules.md has every key")
}

/// The detectors that packs set up, all of them where there is no pack; refuses one that there is not,
/// which would never say anything.
fn of_packs(
    own: &[RulePack],
    shipped: &[RulePack],
    rules: &Rules,
) -> Result<Vec<String>, Complaint> {
    let shipped: BTreeSet<String> = shipped
        .iter()
        .flat_map(|pack| pack.detector.iter().map(|entry| entry.id.clone()))
        .collect();
    let mut ids = BTreeSet::new();
    for pack in own {
        for entry in &pack.detector {
            if !shipped.contains(&entry.id) {
                let (pack, id) = (&pack.name, &entry.id);
                return Err(mend_pack(format!(
                    "pack {pack} switches on \"{id}\", which is no detector"
                )));
            }
            ids.insert(entry.id.clone());
        }
    }
    match refused_settings(rules) {
        None if own.is_empty() => Ok(shipped.into_iter().collect()),
        None => Ok(ids.into_iter().collect()),
        Some(why) => Err(mend_pack(why)),
    }
}

/// Whether a pack switches the detector on, or indicators do.
fn is_known(id: &str, rules: &Rules) -> bool {
    id.starts_with("indicator.") || rules.detectors.contains_key(id)
}

/// What an engine says of settings that a detector can't use: it would go on with its own.
fn refused_settings(rules: &Rules) -> Option<String> {
    let config = EngineConfig { host: "case".to_owned(), limits: Limits::default(), hash_seed: 0 };
    let mut engine = Engine::new(config);
    let rules = Rules { detectors: rules.detectors.clone(), ..Rules::default() };
    engine.handle(Input::Rules(Box::new(rules), Timestamp::EPOCH));
    std::iter::from_fn(|| engine.poll_output()).find_map(|output| match output {
        Output::Record(record) => match record.body {
            Body::Policy(change) if change.outcome == "rule-refused" => change.why,
            _ => None,
        },
        _ => None,
    })
}

fn load(packs: &Path) -> Result<Rules, Complaint> {
    let packs = if packs.exists() { vec![packs.to_owned()] } else { Vec::new() };
    let loaded = load_rules(&packs, &[], Local::Replay);
    match loaded.left_out.first() {
        None => Ok(loaded.rules),
        Some(error) => Err(mend_pack(causes(error))),
    }
}

fn try_one(file: &str, case: &Case, packs: &Packs) -> Result<Tried, Complaint> {
    let rules = with_list(case.indicators.as_deref().unwrap_or_default(), file, packs)?;
    let verdict: Verdict = try_case(case, rules).map_err(|error| {
        Complaint::new(
            format!("{file}: case \"{}\": {error}", case.name),
            UNCHANGED,
            "rules/README.md shows the lines that a script may have",
        )
    })?;
    let told = verdict
        .told
        .iter()
        .map(|told| format!("{} ({}) at frame {}", told.detector, told.grade, told.frame))
        .collect();
    Ok(Tried { file: file.to_owned(), name: case.name.clone(), faults: verdict.faults, told })
}

/// The packs and the indicators that the case brings along, without the shipped lists.
fn with_list(list: &str, file: &str, packs: &Packs) -> Result<Rules, Complaint> {
    let refuse = |why: String| {
        Complaint::new(format!("{file}: indicators: {why}"), UNCHANGED, "one indicator a line")
    };
    let mut builder = RulesBuilder::new();
    for pack in &packs.own {
        builder.add_pack(pack).map_err(|error| mend_pack(causes(&error)))?;
    }
    builder.add_list("case", list).map_err(|error| refuse(causes(&error)))?;
    for pack in &packs.shipped {
        builder.add_shipped(pack).map_err(|error| refuse(causes(&error)))?;
    }
    Ok(builder.build())
}

/// Detectors without a case for either answer.
fn lacking(own: &[String], covered: &BTreeMap<String, (bool, bool)>) -> Vec<String> {
    own.iter()
        .filter_map(|id| match covered.get(id).copied().unwrap_or_default() {
            (true, true) => None,
            (false, true) => Some(format!("{id} has no case that it must find")),
            (true, false) => Some(format!("{id} has no case that it must leave alone")),
            (false, false) => Some(format!("{id} has no case")),
        })
        .collect()
}

fn tell(
    tried: &[Tried],
    lacking: &[String],
    failed: usize,
    format: Format,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    if format == Format::Json {
        for tried in tried {
            let line = serde_json::json!({
                "file": tried.file, "case": tried.name, "ok": tried.faults.is_empty(),
                "faults": tried.faults, "told": tried.told,
            });
            writeln!(out, "{line}")?;
        }
        let line = serde_json::json!({
            "type": "summary", "cases": tried.len(), "failed": failed, "lacking": lacking,
        });
        return writeln!(out, "{line}");
    }
    for tried in tried.iter().filter(|tried| !tried.faults.is_empty()) {
        writeln!(out, "FAILED {}: {}", tried.file, tried.name)?;
        for fault in &tried.faults {
            writeln!(out, "       {fault}")?;
        }
        for told in &tried.told {
            writeln!(out, "       told: {told}")?;
        }
    }
    for lack in lacking {
        writeln!(out, "LACKING {lack}")?;
    }
    let (cases, lacking) = (tried.len(), lacking.len());
    let case = if cases == 1 { "case" } else { "cases" };
    let lack = if lacking == 1 { "detector lacks" } else { "detectors lack" };
    writeln!(out, "{cases} {case}, {failed} failed; {lacking} {lack} a case")
}

/// Writes the frames of a case as a pcap file with nanoseconds.
fn write_capture(folder: &Path, file: &str, case: &Case) -> Result<(), Complaint> {
    let refuse = |why: String| Complaint::new(why, UNCHANGED, "give a folder that can be written");
    let frames = case.frames().map_err(|error| refuse(error.to_string()))?;
    let words: String = case
        .name
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
        .take(80)
        .collect();
    let path = folder.join(format!("{}-{words}.pcap", file.trim_end_matches(".toml")));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, pcap(&frames)))
        .map_err(|error| refuse(format!("cannot write {}: {error}", path.display())))
}

/// The classic capture format with nanoseconds, link type Ethernet.
fn pcap(frames: &[ForgedFrame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [0xA1B2_3C4D_u32, 0x0004_0002, 0, 0, 262_144, 1] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for frame in frames {
        let seconds = frame.at_ns.div_euclid(1_000_000_000) as u32;
        let nanos = frame.at_ns.rem_euclid(1_000_000_000) as u32;
        let len = frame.bytes.len() as u32;
        for word in [seconds, nanos, len, frame.wire_len] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&frame.bytes);
    }
    bytes
}
