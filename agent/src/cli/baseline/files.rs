//! Where the verbs read from and write to.

use super::args::{ExportArgs, ImportArgs, SealArgs, SourceArgs};
use crate::baseline::{
    BASELINE_FILE, BaselineFileError, CERTIFICATE_FILE, LEARNED_FILE, NOT_SEALED, adopt,
    read_baseline, read_calendar, read_certificate, read_learned, write_sealed,
};
use crate::chain::{Complaint, causes};
use crate::cli::args::ConfigArgs;
use crate::cli::contain::load;
use crate::cli::text::seconds;
use crate::cli::{Console, Outcome, cannot_write};
use crate::clock;
use crate::state::{load_anchors, write_atomically};
use sekisho_schema::baseline::{Learned, Pool, RoleBaseline};
use sekisho_schema::calendar::Calendar;
use sekisho_schema::certificate::Certificate;
use sekisho_schema::sealed::{Local, SigningKey, key_id, parse_secret};
use sekisho_schema::{Timestamp, TrustAnchors, Verified};
use std::fs;
use std::path::{Path, PathBuf};

pub(super) const UNTOUCHED: &str = "nothing was changed";

/// A file that can't be used, with what helps.
pub(super) fn cannot(error: &BaselineFileError) -> Complaint {
    let help = match error {
        BaselineFileError::Read { .. } => {
            "name the files with --learned, --baseline and --certificate, or the agent's configuration with --config"
        }
        BaselineFileError::Malformed { why, .. } if why == NOT_SEALED => {
            "`baseline approve`, `draft` and `certify` write the sealed one beside the one to read: name that"
        }
        BaselineFileError::Malformed { .. } => "docs/baseline.md shows what such a file holds",
        BaselineFileError::Refused { .. } => {
            "only what a trust anchor of this host sealed counts; seal it with that key"
        }
        BaselineFileError::Keep(_) => "free space, or write elsewhere with --out",
    };
    Complaint::new(causes(error), UNTOUCHED, help)
}

/// Trust anchors of a configuration; none where there is no directory of them.
pub(super) fn anchors(config: &ConfigArgs) -> Result<TrustAnchors, Complaint> {
    let dir = load(config)?.trust;
    if !dir.exists() {
        return Ok(TrustAnchors::new([], 1));
    }
    load_anchors(&dir).map_err(|error| {
        Complaint::new(
            causes(&error),
            UNTOUCHED,
            "mend the directory of trust anchors, or name another configuration with --config",
        )
    })
}

/// What was learned, of one role.
pub(super) struct Source {
    pub(super) records: Vec<Learned>,
    pub(super) pool: Pool,
    pub(super) baseline: Verified<RoleBaseline>,
}

impl Source {
    pub(super) fn read(args: &SourceArgs) -> Result<Self, Complaint> {
        let records = records(args)?;
        let role = role_of(args, &records)?;
        let pool = Pool::of(&role, &records).map_err(|error| {
            Complaint::new(
                error.to_string(),
                UNTOUCHED,
                "name the role with --role, and records of its hosts with --learned",
            )
        })?;
        let baseline = baseline(args, &role)?;
        let records = records.into_iter().filter(|record| record.role == role).collect();
        Ok(Self { records, pool, baseline })
    }
}

fn records(args: &SourceArgs) -> Result<Vec<Learned>, Complaint> {
    let own = [load(&args.config)?.state.join(LEARNED_FILE)];
    if args.learned.is_empty() && own.iter().all(|path| !path.exists()) {
        return Err(nothing_yet(&own));
    }
    let paths: &[PathBuf] = if args.learned.is_empty() { &own } else { &args.learned };
    let records = read_learned(paths).map_err(|error| cannot(&error))?;
    if records.is_empty() {
        return Err(Complaint::new(
            "there is no record of any host",
            UNTOUCHED,
            "`sekisho baseline export --out FILE` writes one on each host",
        ));
    }
    Ok(records)
}

/// The record of this host is not there yet.
fn nothing_yet(own: &[PathBuf]) -> Complaint {
    let path = own.first().map(|path| path.display().to_string()).unwrap_or_default();
    Complaint::new(
        format!("cannot read {path}: this host has no record yet"),
        UNTOUCHED,
        "the agent writes it each hour and when it stops; name records of other hosts with --learned",
    )
}

fn role_of(args: &SourceArgs, records: &[Learned]) -> Result<String, Complaint> {
    if let Some(role) = &args.role {
        return Ok(role.clone());
    }
    let mut roles: Vec<&str> = records.iter().map(|record| record.role.as_str()).collect();
    roles.sort_unstable();
    roles.dedup();
    match roles.as_slice() {
        [role] => Ok((*role).to_owned()),
        roles => Err(Complaint::new(
            format!("the records are of several roles: {}", roles.join(", ")),
            UNTOUCHED,
            "name one with --role",
        )),
    }
}

/// The baseline that is named, else the one in force, else one in which nothing is normal yet.
pub(super) fn baseline(args: &SourceArgs, role: &str) -> Result<Verified<RoleBaseline>, Complaint> {
    let path = match &args.baseline {
        Some(path) => path.clone(),
        None => load(&args.config)?.state.join(BASELINE_FILE),
    };
    if args.baseline.is_none() && !path.exists() {
        let empty = RoleBaseline::empty(role, clock::now());
        return Ok(Verified::locally(empty, Local::BuiltIn));
    }
    let read = read_baseline(&path, &anchors(&args.config)?).map_err(|error| cannot(&error))?;
    if read.role == role {
        return Ok(read);
    }
    Err(Complaint::new(
        format!("{} is of role \"{}\", not \"{role}\"", path.display(), read.role),
        UNTOUCHED,
        "name the role with --role, or its baseline with --baseline",
    ))
}

/// The certificate that is named, else the one in force; `None` when there is none. One that has expired
/// by `now` is refused.
pub(super) fn certificate(
    named: Option<&PathBuf>,
    config: &ConfigArgs,
    now: Timestamp,
) -> Result<Option<Verified<Certificate>>, Complaint> {
    let path = match named {
        Some(path) => path.clone(),
        None => load(config)?.state.join(CERTIFICATE_FILE),
    };
    if named.is_none() && !path.exists() {
        return Ok(None);
    }
    read_certificate(&path, &anchors(config)?, now).map(Some).map_err(|error| cannot(&error))
}

/// The calendar that is named, else that of the configuration, else none.
pub(super) fn calendar(
    named: Option<&PathBuf>,
    config: &ConfigArgs,
) -> Result<Calendar, Complaint> {
    let path = match named {
        Some(path) => Some(path.clone()),
        None => load(config)?.calendar,
    };
    path.map_or_else(|| Ok(Calendar::unknown()), |path| read_calendar(&path))
        .map_err(|error| cannot(&error))
}

fn secret(path: &Path) -> Result<SigningKey, Complaint> {
    let refuse = |why: String| {
        Complaint::new(
            format!("cannot use key {}: {why}", path.display()),
            "nothing was sealed",
            "name the file of the secret key, not of the public one",
        )
    };
    let text = fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    parse_secret(&text).map_err(|error| refuse(error.to_string()))
}

/// Seals a document, writes it, and tells.
pub(super) fn seal(
    args: &SealArgs,
    (kind, version): (&str, u64),
    text: &str,
    console: &mut Console<'_>,
) -> Result<(), Complaint> {
    let key = secret(&args.key)?;
    let until = clock::now().after(args.expires);
    let readable = write_sealed(&args.out, (kind, version), text, &key, until)
        .map_err(|error| cannot(&error))?;
    writeln!(
        console.out,
        "sealed {kind} {version} by key {} until {}: {} (to read: {})",
        key_id(&key.verifying_key()),
        seconds(until),
        args.out.display(),
        readable.display()
    )
    .map_err(|error| cannot_write(&error))
}

pub(super) fn export(args: &ExportArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let path = load(&args.config)?.state.join(LEARNED_FILE);
    if !path.exists() {
        return Err(nothing_yet(&[path]));
    }
    let records = read_learned(std::slice::from_ref(&path)).map_err(|error| cannot(&error))?;
    let Some(record) = records.first() else {
        return Err(Complaint::new(
            format!("{} holds no record", path.display()),
            UNTOUCHED,
            "the agent writes it each hour; wait for it",
        ));
    };
    let mut text = serde_json::to_string(record).unwrap_or_default();
    text.push('\n');
    write_atomically(&args.out, text.as_bytes(), 0o600)
        .map_err(|error| cannot(&BaselineFileError::Keep(error)))?;
    writeln!(
        console.out,
        "wrote {} episodes of {} ({}), {:.1} weeks: {}",
        record.episodes.len(),
        record.host,
        record.role,
        record.hours as f64 / 168.0,
        args.out.display()
    )
    .map_err(|error| cannot_write(&error))?;
    Ok(Outcome::Fine)
}

pub(super) fn import(args: &ImportArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let config = load(&args.config)?;
    let anchors = anchors(&args.config)?;
    match adopt(&config.state, &args.file, &anchors, clock::now()) {
        Ok((kind, version)) => {
            writeln!(
                console.out,
                "{kind} {version} is taken in; a running agent goes by it within five seconds: `sekisho status` says so"
            )
            .map_err(|error| cannot_write(&error))?;
            Ok(Outcome::Fine)
        }
        Err(error @ BaselineFileError::Refused { .. }) => {
            Complaint::new(
                causes(&error),
                "what was in force stays in force",
                format!(
                    "anchors were read from {}; re-seal with a key of theirs",
                    config.trust.display()
                ),
            )
            .print(console.err);
            Ok(Outcome::Finding)
        }
        Err(error) => Err(cannot(&error)),
    }
}
