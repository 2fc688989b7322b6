//! `policy` and `trust`: keys are made and policies sealed offline; only sealed ones are pushed.

use super::sealing::{LONGEST, Seal, read, write_sealed};
use super::{Failure, Output, Place, Reading, json, refused_by_store, span, table};
use crate::clock::{self, to_the_second};
use crate::dir::{read_anchor, write_public, write_secret};
use crate::page::text::visible;
use crate::policy::{InForce, PushError, push, threshold};
use clap::{Args, Subcommand};
use sekisho_schema::policy::Mode;
use sekisho_schema::sealed::{SealError, SigningKey, key_id, key_pair, parse_public, parse_secret};
use sekisho_schema::{Policy, Sealed};
use serde_json::{Value, json as object};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub(super) enum PolicyVerb {
    /// Make a key pair that seals policies; keep the secret away from the collector
    Keygen(Keygen),
    /// Check a policy, sealed or not
    Lint(OneFile),
    /// Seal a policy, or add a signature to a sealed one; works offline
    Seal(Seal),
    /// Put a sealed policy in force
    Push(Push),
    /// Show the policy in force and who runs it
    Status(Reading),
    /// Show what differs between two policies
    Diff(Diff),
}

#[derive(Subcommand)]
pub(super) enum Trust {
    /// Let a key seal policies
    Add(Push),
    /// Let a person's key seal orders to hosts
    Operator(AddOperator),
    /// List the keys that may seal policies and orders
    List(Reading),
    /// Set how many of them must have sealed a policy
    Threshold(Threshold),
}

#[derive(Args)]
pub(super) struct Keygen {
    /// Where to write the secret key; the public key goes beside it as FILE.pub
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args)]
pub(super) struct OneFile {
    /// The policy
    file: PathBuf,
}

#[derive(Args)]
pub(super) struct Push {
    #[command(flatten)]
    place: Place,
    /// The file
    file: PathBuf,
}

#[derive(Args)]
pub(super) struct AddOperator {
    #[command(flatten)]
    place: Place,
    /// The person: lower-case letters, digits and hyphens
    name: String,
    /// Their public key
    file: PathBuf,
}

#[derive(Args)]
pub(super) struct Threshold {
    #[command(flatten)]
    place: Place,
    /// How many
    #[arg(value_parser = clap::value_parser!(u16).range(1..=100))]
    count: u16,
}

#[derive(Args)]
pub(super) struct Diff {
    /// The one
    a: PathBuf,
    /// The other
    b: PathBuf,
}

pub(super) fn act(verb: PolicyVerb, out: &mut dyn Write) -> Result<u8, Failure> {
    match verb {
        PolicyVerb::Keygen(arguments) => keygen(&arguments, out),
        PolicyVerb::Lint(arguments) => lint(&arguments, out),
        PolicyVerb::Seal(arguments) => seal(&arguments, out),
        PolicyVerb::Push(arguments) => push_file(&arguments, out),
        PolicyVerb::Status(reading) => status(&reading, out),
        PolicyVerb::Diff(arguments) => diff(&arguments, out),
    }
}

fn keygen(arguments: &Keygen, out: &mut dyn Write) -> Result<u8, Failure> {
    let fail = |error: &dyn std::fmt::Display| {
        Failure::unable(
            error,
            "an existing key is never overwritten",
            "choose another file with --out",
        )
    };
    let (secret, public) = key_pair(&crate::secret::random().map_err(|error| fail(&error))?);
    let beside = beside(&arguments.out);
    if beside.exists() {
        return Err(fail(&format!("{} is there already", beside.display())));
    }
    write_secret(&arguments.out, &format!("{secret}\n")).map_err(|error| fail(&error))?;
    write_public(&beside, &format!("{public}\n")).map_err(|error| fail(&error))?;
    let id = parse_public(&public).map(|key| key_id(&key)).unwrap_or_default();
    writeln!(
        out,
        "key {id}: secret in {}, public in {}",
        arguments.out.display(),
        beside.display()
    )?;
    writeln!(
        out,
        "keep the secret off the collector; tell the collector of the public one with `sekisho-collector trust add {}`",
        beside.display()
    )?;
    Ok(0)
}

/// Reads a secret key.
pub(super) fn read_key(path: &Path) -> Result<SigningKey, Failure> {
    parse_secret(&read(path)?).map_err(|error| {
        Failure::unable(
            format!("{}: {error}", path.display()),
            "nothing was written",
            "name the secret key that `policy keygen` wrote, not FILE.pub",
        )
    })
}

pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    PathBuf::from(name)
}

/// A policy from a file, sealed or not; the seal is not checked.
fn read_policy(path: &Path) -> Result<(Policy, Option<Sealed>), Failure> {
    let text = read(path)?;
    let refuse = |why: String| {
        Failure::refused(
            format!("{}:{why}", path.display()),
            "nothing was written or changed",
            "mend that place; docs/policy.md has every key",
        )
    };
    let sealed = if text.trim_start().starts_with('{') {
        Some(Sealed::parse(&text).map_err(|error| refuse(format!(" {error}")))?)
    } else {
        None
    };
    let inner = match &sealed {
        Some(sealed) => {
            String::from_utf8(sealed.payload_bytes().map_err(|error| refuse(format!(" {error}")))?)
                .map_err(|error| refuse(format!(" {error}")))?
        }
        None => text,
    };
    let policy = Policy::parse(&inner).map_err(|error| refuse(error.to_string()))?;
    Ok((policy, sealed))
}

fn lint(arguments: &OneFile, out: &mut dyn Write) -> Result<u8, Failure> {
    let (policy, sealed) = read_policy(&arguments.file)?;
    writeln!(
        out,
        "version {}, {}, {}, {}, owner {}",
        policy.version,
        policy.mode,
        count(policy.decide.len(), "line in the decision table", "lines in the decision table"),
        count(policy.exempt.len(), "exemption", "exemptions"),
        visible(&policy.duty.owner)
    )?;
    match sealed {
        Some(sealed) if sealed.signatures.is_empty() => {
            writeln!(out, "note: in an envelope without a signature")?
        }
        Some(sealed) => writeln!(
            out,
            "note: sealed by {} until {} UTC (seals are checked by push, not here)",
            sealed.signatures.keys().cloned().collect::<Vec<_>>().join(", "),
            to_the_second(sealed.expires)
        )?,
        None => writeln!(out, "note: not sealed yet")?,
    }
    if [&policy.duty.owner, &policy.duty.deputy].iter().any(|who| who.contains("CHANGE ME")) {
        writeln!(out, "note: owner or deputy still says CHANGE ME: nobody will be told")?;
    }
    if policy.mode == Mode::Enforce && policy.decide.iter().all(|rule| rule.level == 0) {
        writeln!(
            out,
            "note: the mode is enforce, but no line of the decision table cuts anything"
        )?;
    }
    if policy.mode == Mode::Enforce && policy.exempt.is_empty() {
        writeln!(out, "note: nothing is exempt: a cut of a host also cuts its customers off")?;
    }
    Ok(0)
}

fn seal(arguments: &Seal, out: &mut dyn Write) -> Result<u8, Failure> {
    let lasting = span(&arguments.expires, LONGEST)?;
    let (policy, sealed) = read_policy(&arguments.file)?;
    let sealed = match sealed {
        Some(sealed) => sealed,
        None => Sealed::wrap(
            "policy",
            policy.version,
            clock::now().after(lasting),
            read(&arguments.file)?.as_bytes(),
        ),
    };
    write_sealed(sealed, &arguments.key, &arguments.out, "policy version", out)?;
    Ok(0)
}

fn push_file(arguments: &Push, out: &mut dyn Write) -> Result<u8, Failure> {
    let (dir, store) = arguments.place.open()?;
    let text = read(&arguments.file)?;
    match push(&dir, &store, &text, clock::now()) {
        Ok(sealed) => {
            writeln!(
                out,
                "policy version {} is in force ({}); running hosts are told within a second or two",
                sealed.version,
                sealed.digest().chars().take(12).collect::<String>()
            )?;
            Ok(0)
        }
        Err(PushError::Store(error)) => Err(refused_by_store(error)),
        Err(error) => {
            let in_force = store.newest_policy().ok().flatten().map_or_else(
                || "no policy is in force".to_owned(),
                |policy| format!("version {} stays in force", policy.version),
            );
            let anchors = dir.trust();
            let anchors = anchors.display();
            let help = match &error {
                PushError::NoAnchors | PushError::Anchors(_) => format!(
                    "add the public key of who seals policies: `sekisho-collector trust add FILE.pub` (anchors are in {anchors})"
                ),
                PushError::Seal(SealError::RolledBack { .. }) => {
                    "to go back to earlier content, seal it under a higher version".to_owned()
                }
                PushError::Seal(SealError::Expired(_)) => {
                    "seal it again with `sekisho-collector policy seal`".to_owned()
                }
                _ => format!("seal it with an enrolled key (anchors are in {anchors})"),
            };
            Err(Failure::refused(
                format!("policy {} refused: {error}", arguments.file.display()),
                in_force,
                help,
            ))
        }
    }
}

fn status(reading: &Reading, out: &mut dyn Write) -> Result<u8, Failure> {
    let (dir, store) = reading.place.open()?;
    let policy = store.newest_policy().map_err(refused_by_store)?.map(InForce::new);
    let hosts = store.hosts(clock::now()).map_err(refused_by_store)?;
    let anchors = dir
        .anchor_texts()
        .map_err(|error| {
            Failure::unable(error, "nothing was changed", "see that trust.d holds public keys only")
        })?
        .len();
    let threshold = threshold(&store).map_err(refused_by_store)?;
    let mut versions: BTreeMap<u64, u64> = BTreeMap::new();
    for version in hosts.iter().filter_map(|host| host.policy_version) {
        *versions.entry(version).or_default() += 1;
    }
    let expires =
        policy.as_ref().and_then(|policy| policy.policy.as_ref()).and_then(|policy| policy.expires);
    if reading.output == Output::Json {
        let in_force = policy.as_ref().map(|policy| object!({"version": policy.stored.version, "digest": policy.stored.digest, "pushed_at": policy.stored.pushed_at, "expires": expires}));
        json(
            out,
            &object!({"policy": in_force, "anchors": anchors, "threshold": threshold, "hosts_by_version": versions}),
        )?;
        return Ok(0);
    }
    match &policy {
        Some(policy) => writeln!(
            out,
            "version {} ({}…), pushed {} UTC, {}",
            policy.stored.version,
            policy.stored.digest.chars().take(12).collect::<String>(),
            to_the_second(policy.stored.pushed_at),
            expires.map_or_else(
                || "can't be read here".to_owned(),
                |expires| format!("expires {} UTC", to_the_second(expires))
            )
        )?,
        None => writeln!(out, "no policy was pushed")?,
    }
    writeln!(
        out,
        "{}, {threshold} must have sealed",
        count(anchors, "trust anchor", "trust anchors")
    )?;
    for (version, hosts) in versions {
        let verb = if hosts == 1 { "host runs" } else { "hosts run" };
        writeln!(out, "{hosts} {verb} version {version}")?;
    }
    Ok(0)
}

fn flatten(path: &str, value: &Value, lines: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            flatten(
                &if path.is_empty() { name.clone() } else { format!("{path}.{name}") },
                value,
                lines,
            )
        }),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(place, value)| flatten(&format!("{path}[{place}]"), value, lines)),
        other => {
            lines.insert(path.to_owned(), other.to_string());
        }
    }
}

fn diff(arguments: &Diff, out: &mut dyn Write) -> Result<u8, Failure> {
    let lines = |path: &Path| -> Result<BTreeMap<String, String>, Failure> {
        let (policy, _) = read_policy(path)?;
        let mut lines = BTreeMap::new();
        flatten("", &serde_json::to_value(&policy).unwrap_or_default(), &mut lines);
        Ok(lines)
    };
    let (a, b) = (lines(&arguments.a)?, lines(&arguments.b)?);
    let mut differ = false;
    let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    for name in names {
        let (old, new) = (a.get(name), b.get(name));
        if old == new {
            continue;
        }
        differ = true;
        for (sign, value) in [('-', old), ('+', new)] {
            if let Some(value) = value {
                writeln!(out, "{sign} {} = {}", visible(name), visible(value))?;
            }
        }
    }
    Ok(u8::from(differ))
}

pub(super) fn trust(verb: Trust, out: &mut dyn Write) -> Result<u8, Failure> {
    match verb {
        Trust::Add(arguments) => add(&arguments, out),
        Trust::Operator(arguments) => add_operator(&arguments, out),
        Trust::List(reading) => list(&reading, out),
        Trust::Threshold(arguments) => {
            let (_, store) = arguments.place.open()?;
            store
                .keep_meta(&[("threshold", &arguments.count.to_string())])
                .map_err(refused_by_store)?;
            writeln!(
                out,
                "{} of the trust anchors must have sealed a policy; hosts enrolled before keep the number they were told",
                arguments.count
            )?;
            Ok(0)
        }
    }
}

fn add(arguments: &Push, out: &mut dyn Write) -> Result<u8, Failure> {
    let (dir, _) = arguments.place.open()?;
    let fail = |error: &dyn std::fmt::Display| {
        Failure::unable(
            error,
            "the trust anchors are as before",
            "name the FILE.pub that `policy keygen` wrote",
        )
    };
    let text = read_anchor(&arguments.file).map_err(|error| fail(&error))?;
    let id = parse_public(&text).map(|key| key_id(&key)).map_err(|error| fail(&error))?;
    let path = dir.trust().join(format!("{id}.pub"));
    if !path.exists() {
        write_public(&path, &format!("{text}\n")).map_err(|error| fail(&error))?;
    }
    writeln!(
        out,
        "key {id} may seal policies; hosts learn of it when they enrol, hosts enrolled before need the file in /etc/sekisho/trust.d"
    )?;
    Ok(0)
}

fn add_operator(arguments: &AddOperator, out: &mut dyn Write) -> Result<u8, Failure> {
    let (dir, _) = arguments.place.open()?;
    let fail = |error: &dyn std::fmt::Display| {
        Failure::unable(
            error,
            "the operators are as before",
            "`trust operator NAME FILE.pub`, with a name such as aiko and the FILE.pub that `policy keygen` wrote",
        )
    };
    let name = &arguments.name;
    let fits = (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !fits {
        return Err(fail(&format!(
            "\"{}\" can't be an operator's name: lower-case letters, digits and hyphens, at most 64",
            visible(name)
        )));
    }
    let text = read_anchor(&arguments.file).map_err(|error| fail(&error))?;
    let id = parse_public(&text).map(|key| key_id(&key)).map_err(|error| fail(&error))?;
    // A key that two people had would let one of them be both.
    let known = dir.operator_texts().map_err(|error| fail(&error))?;
    if let Some((owner, _)) = known.iter().find(|(owner, key)| *key == text && owner != name) {
        return Err(fail(&format!("key {id} is {owner}'s already")));
    }
    let folder = dir.operators_folder();
    std::fs::create_dir_all(&folder).map_err(|error| fail(&error))?;
    let path = folder.join(format!("{name}.{id}.pub"));
    if !path.exists() {
        write_public(&path, &format!("{text}\n")).map_err(|error| fail(&error))?;
    }
    writeln!(
        out,
        "{name} may seal orders with key {id}; hosts learn of it when they enrol, hosts enrolled before need {} in /etc/sekisho/trust.d/operators",
        path.display()
    )?;
    Ok(0)
}

fn list(reading: &Reading, out: &mut dyn Write) -> Result<u8, Failure> {
    let (dir, store) = reading.place.open()?;
    let anchors = dir.anchor_texts().map_err(|error| {
        Failure::unable(error, "nothing was changed", "see that trust.d holds public keys only")
    })?;
    let rows: Vec<[String; 2]> = anchors
        .iter()
        .map(|text| [parse_public(text).map(|key| key_id(&key)).unwrap_or_default(), text.clone()])
        .collect();
    let operators = dir.operator_texts().map_err(|error| {
        Failure::unable(
            error,
            "nothing was changed",
            "see that trust.d/operators holds public keys only",
        )
    })?;
    let threshold = threshold(&store).map_err(refused_by_store)?;
    if reading.output == Output::Json {
        let anchors: Vec<_> =
            rows.iter().map(|[id, key]| object!({"id": id, "key": key})).collect();
        let operators: Vec<_> =
            operators.iter().map(|(name, key)| object!({"name": name, "key": key})).collect();
        json(out, &object!({"threshold": threshold, "anchors": anchors, "operators": operators}))?;
    } else {
        table::write(out, ["ID", "KEY"], &rows)?;
        writeln!(out, "{threshold} must have sealed a policy")?;
        if !operators.is_empty() {
            writeln!(out)?;
            let rows: Vec<[String; 2]> =
                operators.into_iter().map(|(name, key)| [name, key]).collect();
            table::write(out, ["OPERATOR", "KEY"], &rows)?;
        }
    }
    Ok(0)
}
