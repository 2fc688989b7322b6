//! Baselines and certificates as files: read, written, sealed, compared.

use super::super::sealing::{LONGEST, Seal, UNCHANGED, read, write_file, write_sealed};
use super::super::{Failure, span};
use super::{Diff, Made};
use crate::clock;
use crate::page::text::visible;
use sekisho_schema::Sealed;
use sekisho_schema::baseline::{BASELINE_KIND, RoleBaseline};
use sekisho_schema::certificate::{CERTIFICATE_KIND, Certificate};
use std::io::Write;
use std::path::Path;

/// A baseline or a certificate.
pub(super) enum Document {
    Baseline(Box<RoleBaseline>),
    Certificate(Box<Certificate>),
}

impl Document {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Baseline(_) => BASELINE_KIND,
            Self::Certificate(_) => CERTIFICATE_KIND,
        }
    }

    const fn version(&self) -> u64 {
        match self {
            Self::Baseline(baseline) => baseline.version,
            Self::Certificate(certificate) => certificate.version,
        }
    }
}

/// A document from a file, sealed or not; the seal is not checked.
pub(super) fn read_document(path: &Path) -> Result<Document, Failure> {
    let text = read(path)?;
    let inner = if text.trim_start().starts_with('{') {
        let payload = Sealed::parse(&text).and_then(|sealed| sealed.payload_bytes());
        payload
            .map_err(|error| error.to_string())
            .and_then(|bytes| String::from_utf8(bytes).map_err(|error| error.to_string()))
            .map_err(|why| neither(path, &why))?
    } else {
        text
    };
    match RoleBaseline::parse(&inner) {
        Ok(baseline) => Ok(Document::Baseline(Box::new(baseline))),
        Err(as_baseline) => Certificate::parse(&inner)
            .map(|certificate| Document::Certificate(Box::new(certificate)))
            .map_err(|as_certificate| neither(path, &format!("{as_baseline}; {as_certificate}"))),
    }
}

fn neither(path: &Path, why: &str) -> Failure {
    Failure::refused(
        format!("{} is neither a baseline nor a certificate: {why}", path.display()),
        UNCHANGED,
        "docs/baseline.md shows what they hold",
    )
}

/// Writes what was made: sealed, where there are keys, and as a person reads it.
pub(super) fn write_made(
    arguments: &Made,
    (kind, version): (&str, u64),
    text: &str,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    if arguments.key.is_empty() {
        write_file(&arguments.out, text)?;
        writeln!(
            out,
            "{kind} {version}, not sealed: {}; seal it with `sekisho-collector baseline seal {} --key FILE --out FILE`, then `baseline push` it",
            arguments.out.display(),
            arguments.out.display()
        )?;
        return Ok(());
    }
    let readable = arguments.out.with_extension("toml");
    if readable == arguments.out {
        return Err(Failure::unable(
            "the sealed one must not end in .toml, which is the readable one",
            UNCHANGED,
            "choose another file with --out",
        ));
    }
    let until = clock::now().after(span(&arguments.expires, LONGEST)?);
    let sealed = Sealed::wrap(kind, version, until, text.as_bytes());
    write_sealed(sealed, &arguments.key, &arguments.out, kind, out)?;
    write_file(&readable, text)?;
    writeln!(out, "to read: {}", readable.display())?;
    Ok(())
}

pub(super) fn seal(arguments: &Seal, out: &mut dyn Write) -> Result<u8, Failure> {
    let document = read_document(&arguments.file)?;
    let text = read(&arguments.file)?;
    let sealed = match Sealed::parse(&text) {
        Ok(sealed) => sealed,
        Err(_) => {
            let until = clock::now().after(span(&arguments.expires, LONGEST)?);
            Sealed::wrap(document.kind(), document.version(), until, text.as_bytes())
        }
    };
    write_sealed(sealed, &arguments.key, &arguments.out, document.kind(), out)?;
    Ok(0)
}

pub(super) fn diff(arguments: &Diff, out: &mut dyn Write) -> Result<u8, Failure> {
    let lines = match (read_document(&arguments.a)?, read_document(&arguments.b)?) {
        (Document::Baseline(a), Document::Baseline(b)) => a.difference(&b),
        (Document::Certificate(a), Document::Certificate(b)) => a.difference(&b),
        _ => {
            return Err(Failure::unable(
                "one is a baseline, the other a certificate",
                UNCHANGED,
                "name two of a kind",
            ));
        }
    };
    for line in &lines {
        writeln!(out, "{}", visible(line))?;
    }
    Ok(u8::from(!lines.is_empty()))
}
